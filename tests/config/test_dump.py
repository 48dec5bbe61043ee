"""A dumped recipe loads as the same recipe: as a property, over random valid recipes."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fangcun.config import dump_recipe, load_recipe, recipe_names
from fangcun.config.constraints import Bounds
from fangcun.config.keys import recipe_keys
from fangcun.config.loader import build_recipe
from fangcun.errors import ConfigError

TEXT = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from("\n\t '\"#:-[]{}&*!|>%@`~三国"), max_size=12
)


def values(hint: Any) -> st.SearchStrategy:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = next(extra for extra in args[1:] if isinstance(extra, Bounds))
        return values(args[0]).filter(bounds.holds)
    if origin in (Union, types.UnionType):
        return st.one_of(*(st.none() if arg is type(None) else values(arg) for arg in args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(values(args[0]), min_size=1, max_size=3)
    if origin is tuple:
        return st.tuples(*(values(arg) for arg in args))
    numbers = st.integers(0, 10**13), st.floats(0, 1e9) | st.floats(0, 1)
    return {bool: st.booleans(), int: numbers[0], float: numbers[1], str: TEXT}[hint]


RECIPES = st.fixed_dictionaries(
    {}, optional={name: values(key.hint) for name, key in recipe_keys().items() if name != "device"}
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(RECIPES)
def test_a_valid_recipe_survives_the_round_trip_exactly(
    tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, Any]
) -> None:
    chosen = {
        key: value for key, value in chosen.items() if not key.startswith("model.") and key not in UNUSABLE(chosen)
    }
    recipe = build_recipe({"train.max_steps": 10, **chosen})
    file = tmp_path_factory.mktemp("dump") / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file).recipe == recipe


def UNUSABLE(chosen: dict[str, Any]) -> set[str]:  # noqa: N802
    """Keys to leave out so that the rest is free of contradictions; those have tests of their own."""
    out = {
        "corpus.builtin",
        "corpus.preset",
        "dedup.exact",
        "dedup.near",
        "dedup.similarity",
        "corpus.txt_split",
        "corpus.separator",
        "corpus.chapter_pattern",
        "train.lr_schedule",
        "train.min_lr",
    }
    out |= {"train.lr_decay_steps", "train.max_seq_length", "train.micro_batch_size", "train.global_batch_size"}
    out |= {"train.lr_decay_share", "train.lr_decay_shape", "optimizer.name", "optimizer.head_lr", "init.zero_head"}
    out |= {key for key in chosen if key.startswith("optimizer.muon_")}
    if chosen.get("init_from") is not None:
        out |= {key for key in chosen if key.startswith("init.")}
    if chosen.get("tokenizer.path") is not None or chosen.get("tokenizer.kind") == "char":
        out |= {
            f"tokenizer.{leaf}" for leaf in ("kind", "vocab_size", "trainer", "gb2312", "max_han_run", "sample_bytes")
        }
    if chosen.get("tokenizer.trainer") == "tokenizers" or chosen.get("tokenizer.vocab_size", 8192) < 8000:
        out |= {"tokenizer.gb2312"}
    if chosen.get("tokens.path") is not None:
        out |= {"tokens.dtype", "tokens.workers", "tokens.encoder", "tokens.shard_tokens"}
    out |= {"tokens.upload", "tokens.cache_bytes", "tokens.cache_folder"}  # they want a URL
    if chosen.get("train.strategy") == "fsdp" and chosen.get("precision") in ("bf16-true", "16-mixed"):
        out |= {"precision"}
    named = chosen.get("trackers", [])
    out |= {"tracking.project"} | ({"tracking.folder"} if not {"swanlab", "wandb", "trackio"} & set(named) else set())
    out |= {f"tracking.{name}_mode" for name in ("swanlab", "wandb") if name not in named}
    # As text, "true", "null" and "yes" would be the other member of the union.
    if str(chosen.get("resume")).lower() in ("", "true", "false", "yes", "no", "on", "off"):
        out |= {"resume"}
    return out | ({"train.max_steps"} if chosen.get("train.max_steps") is None else set())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_survives_the_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name).recipe
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe, "two\nlines"), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").recipe == recipe
    assert dump_recipe(recipe, "two\nlines").startswith("# two\n# lines\ncorpus:\n")


def test_settings_that_nothing_reads_are_left_out_so_that_the_text_loads(tmp_path: Path) -> None:
    recipe = load_recipe("demo").recipe
    for change in ({"tokenizer": dataclasses.replace(recipe.tokenizer, path="x")}, {"init_from": "x"}):
        (tmp_path / "recipe.yaml").write_text(dump_recipe(dataclasses.replace(recipe, **change)), encoding="utf-8")
        again = load_recipe(tmp_path / "recipe.yaml").recipe
        assert (again.init_from or again.tokenizer.path) == "x"
        assert again.train == recipe.train


def test_text_that_looks_like_something_else_stays_text(tmp_path: Path) -> None:
    recipe = build_recipe(
        {"train.max_steps": 1, "samples.prompts": ["null", "3e4", "no", "", " x ", "a: b", "# c", "- d"]}
    )
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").recipe.samples.prompts == recipe.samples.prompts


def test_a_broken_dump_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        dump_recipe(load_recipe("demo").recipe).replace("n_layer", "n_lager"), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="n_lager"):
        load_recipe(tmp_path / "recipe.yaml")
