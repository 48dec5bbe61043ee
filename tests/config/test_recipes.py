"""The shipped recipes: all load, build on the meta device, and have the parameters that their headers state."""

from __future__ import annotations

import pytest

from fangcun.config import count_parameters, load_recipe, recipe_names, recipe_text, resolve_model
from fangcun.config.model import ModelConfig

# Ids of the tokenizer that each recipe is meant for, and parameters as the source counts them (in millions).
SHAPES = {
    "demo": (4096, None),
    "shakespeare-char": (70, 0.80),
    "shakespeare-char-gpu": (70, 10.65),
    "shakespeare-char-fast": (70, None),
    "honglou-char": (4405, 0.96),
    "honglou-char-fast": (4405, None),
    "honglou-char-24l": (4405, 77.8),
    "novels-bbpe": (16384, 115.6),
    "novels-qwen2": (151646, 193.6),
    "gpt2-124m": (50257, 123.6),
    "owt-small": (50257, 50.9),
    "single-gpu-gated": (50257, 148.1),
    "microstories-44m": (64798, 43.915776),
    "wiki-qwen2-120m": (151646, 123.3),
    "news-llama-deep": (64798, 416),
    "news-llama-wide": (64798, 446),
}
BORROWED = {
    "novels-qwen2",
    "gpt2-124m",
    "owt-small",
    "single-gpu-gated",
    "microstories-44m",
    "wiki-qwen2-120m",
    "news-llama-deep",
    "news-llama-wide",
}


def shape(name: str) -> ModelConfig:
    return resolve_model(load_recipe(name).recipe.model, SHAPES[name][0])


def test_every_recipe_is_shipped_and_known_here() -> None:
    assert set(recipe_names()) == set(SHAPES)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_recipe_has_the_parameters_that_its_source_states(name: str) -> None:
    model = shape(name)
    positions = model.block_size * model.n_embd if model.positions == "learned" else 0
    stated = SHAPES[name][1]
    if stated is not None:
        counted = (count_parameters(model) - positions) / 1e6
        assert counted == pytest.approx(stated, rel=2e-3 if stated < 400 else 1.5e-3, abs=0.005)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_recipe_builds_on_the_meta_device_with_as_many_parameters(name: str) -> None:
    import torch

    from fangcun.model import Transformer

    with torch.device("meta"):
        model = Transformer(shape(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(shape(name))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_recipe_says_what_it_is_where_it_comes_from_and_what_to_expect(name: str) -> None:
    head = [line for line in recipe_text(name).splitlines() if line.startswith("#")]
    assert head[0].startswith(f"# {name}: ")
    for label in ("What", "Source", "Hardware", "Figures"):
        assert any(line.startswith(f"# {label}:") for line in head), label


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_recipe_that_needs_a_tokenizer_says_where_to_get_it(name: str) -> None:
    tokenizer = load_recipe(name).recipe.tokenizer
    assert (tokenizer.source is not None) == (name in BORROWED)
    assert tokenizer.path is None


def test_the_settings_are_those_of_the_sources() -> None:
    small = load_recipe("shakespeare-char").recipe
    assert (small.train.micro_batch_size, small.train.max_steps, small.optimizer.lr, small.train.min_lr) == (
        12,
        2000,
        1e-3,
        1e-4,
    )
    assert (small.corpus.val_split, small.corpus.val_share, small.optimizer.betas) == ("tail", 0.1, (0.9, 0.99))
    gpt2 = load_recipe("gpt2-124m").recipe
    assert (gpt2.train.global_batch_size, gpt2.train.max_steps, gpt2.train.lr_warmup_steps) == (480, 600_000, 2000)
    stories = load_recipe("microstories-44m").recipe
    assert (stories.train.global_batch_size, stories.train.micro_batch_size, stories.optimizer.lr) == (512, 32, 5e-4)
    wiki = load_recipe("wiki-qwen2-120m").recipe
    assert (wiki.train.global_batch_size, wiki.train.epochs) == (288, 2)
    assert wiki.samples.prompts == ["人工智能", "牛顿", "北京市", "亚洲历史"]
    news = load_recipe("news-llama-wide").recipe
    assert (news.optimizer.name, news.train.max_seq_length, news.model.attention_dropout) == ("adamw8bit", 192, 0.1)
