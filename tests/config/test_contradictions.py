"""Promises about settings that exclude each other or that nothing reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangcun.config import check_inputs, load_recipe
from fangcun.errors import ConfigError


def load(tmp_path: Path, text: str, *flags: str):
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, flags)


def refused(tmp_path: Path, text: str, *flags: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text, *flags)
    return str(error.value).replace(str(tmp_path) + "/", "")


STOP = "train: {max_steps: 10}\n"


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        (STOP + "corpus: {paths: [a], builtin: sanguo}", [], "my.yaml:2: corpus.builtin: corpus.paths (my.yaml:2: corpus.paths) is given too"),
        (STOP, ["--text", "a", "--corpus.builtin", "sanguo"], "--corpus.builtin: corpus.paths (--text) is given too"),
        (STOP + "corpus: {paths: []}", [], "the list is empty"),
        (STOP + "corpus: {txt_split: separator}", [], "needs corpus.separator"),
        (STOP + "corpus: {separator: '***'}", [], "my.yaml:2: corpus.separator: it has no effect with corpus.txt_split 'file'. Remove it."),
        (STOP + "corpus: {chapter_pattern: '^第'}", [], "my.yaml:2: corpus.chapter_pattern: it has no effect"),
        (STOP + "corpus: {txt_split: chapter, chapter_pattern: '(第'}", [], "corpus.chapter_pattern: not a regular expression"),
        (STOP + "corpus: {builtin: sanguo, text_key: body}", [], "corpus.text_key: it has no effect on the built-in text. Remove it, or change my.yaml:2."),
        (STOP + "tokenizer: {path: x, vocab_size: 100}", [], "my.yaml:2: tokenizer.vocab_size: it has no effect where tokenizer.path names"),
        (STOP + "tokenizer: {path: x}", ["--tokenizer.kind", "char"], "--tokenizer.kind: it has no effect where tokenizer.path names"),
        (STOP + "tokenizer: {kind: char, vocab_size: 100}", [], "tokenizer.vocab_size: it has no effect with tokenizer.kind 'char'"),
        (STOP + "tokens: {path: x, dtype: uint32}", [], "tokens.dtype: it has no effect where tokens.path names"),
        ("train: {max_steps: 1, global_batch_size: 64, micro_batch_size: 24}", [], "64 is not a multiple of micro_batch_size 24. A micro_batch_size of 16 fits."),
        (STOP, ["--train.max_seq_length", "513"], "--train.max_seq_length: train.max_seq_length 513 is longer than model.block_size 512"),
        ("seed: 1", [], "the run would never end. Give one of train.max_steps, max_tokens, epochs, max_time."),
        ("train: {max_time: 60}", [], "my.yaml:1: train.max_time: cosine has to know its last step"),
        (STOP + "optimizer: {lr: 1e-5}", ["--train.min_lr", "1e-4"], "--train.min_lr: min_lr 0.0001 is above optimizer.lr 1e-05."),
        ("train: {max_steps: 9, lr_schedule: constant, min_lr: 1e-5}", [], "train.min_lr: it has no effect with train.lr_schedule 'constant'"),
        ("train: {max_steps: 9, lr_schedule: constant, lr_decay_steps: 5}", [], "train.lr_decay_steps: it has no effect"),
        ("train: {max_steps: 9, lr_decay_steps: 50}", [], "before the warm-up of train.lr_warmup_steps 100 does"),
        ("train: {max_steps: 9, lr_decay_share: 0.5}", [], "train.lr_decay_share: it has no effect with train.lr_schedule 'cosine'"),
        ("train: {max_time: 60, lr_schedule: wsd}", [], "my.yaml:1: train.lr_schedule: wsd has to know its last step"),
        (STOP + "optimizer: {muon_momentum: 0.9}", [], "optimizer.muon_momentum: it has no effect with optimizer.name 'adamw'"),
        (STOP + "optimizer: {head_lr: 0.1}", [], "optimizer.head_lr: the head is the embedding's matrix"),
        (STOP + "init: {zero_head: true}", [], "init.zero_head: the head is the embedding's matrix"),
        (STOP + "init_from: x\ninit: {zero_residual: true}", [], "my.yaml:3: init.zero_residual: the first weights come from the folder of init_from."),
        (STOP + "init_from: x\nmodel: {n_layer: 2}", [], "my.yaml:3: model.n_layer: the model's shape comes from the folder of init_from."),
        (STOP + "model: {n_embd: 100, n_head: 3}", [], "my.yaml:2: model.n_embd is 100, expected a multiple of n_head (3)"),
        (STOP + "model: {family: llama}", [], "my.yaml:2: model: family llama cannot express this shape: qk_norm is true"),
        (STOP + "device: cpu\nprecision: 16-mixed", [], "my.yaml:3: precision: 16-mixed needs a CUDA device; on cpu use bf16-mixed"),
        ("train: {max_steps: 10, strategy: fsdp}\nprecision: bf16-true", [], "fsdp computes with bf16 weights and keeps float32 ones under bf16-mixed; use that."),
        (STOP + "device: gpu", [], "my.yaml:2: device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'."),
    ],
)  # fmt: skip
def test_a_contradiction_names_the_place_and_the_remedy(
    tmp_path: Path, text: str, flags: list[str], expected: str
) -> None:
    assert expected in refused(tmp_path, text, *flags)


@pytest.mark.parametrize(
    ("text", "flags", "key", "value"),
    [
        ("tokenizer: {vocab_size: 100}", ["--tokenizer.path", "x"], "tokenizer.vocab_size", 8192),
        ("tokenizer: {kind: char}", ["--tokenizer.path", "x"], "tokenizer.kind", "bpe"),
        ("tokenizer: {vocab_size: 100}", ["--tokenizer.kind", "char"], "tokenizer.vocab_size", 8192),
        ("model: {n_layer: 2, block_size: 64}", ["--init_from", "x"], "model.n_layer", 6),
        ("corpus: {txt_split: separator, separator: '*'}", ["--corpus.txt_split", "file"], "corpus.separator", None),
        ("optimizer: {lr: 1}", ["--train.lr_schedule", "constant"], "train.min_lr", 0.0),
    ],
)
def test_a_flag_retires_the_settings_of_the_file_that_it_makes_idle(
    tmp_path: Path, text: str, flags: list[str], key: str, value: object
) -> None:
    loaded = load(tmp_path, f"train: {{max_steps: 10, min_lr: 1e-5}}\n{text}\n", *flags)
    section, leaf = key.split(".")
    assert getattr(getattr(loaded.recipe, section), leaf) == value
    assert key not in loaded.origins
    assert loaded.recipe.model.block_size == 512


def test_all_four_stop_conditions_may_stand_together(tmp_path: Path) -> None:
    train = load(tmp_path, "train: {max_steps: 9, max_tokens: 9, epochs: 0.5, max_time: 9}").recipe.train
    assert (train.max_steps, train.max_tokens, train.epochs, train.max_time) == (9, 9, 0.5, 9.0)
    assert load(tmp_path, "train: {max_time: 60, lr_schedule: constant}").recipe.train.max_time == 60
    assert load(tmp_path, "train: {max_time: 60, lr_decay_steps: 500}").recipe.train.lr_decay_steps == 500


@pytest.mark.parametrize(
    ("recipe", "flags", "verb", "expected"),
    [
        ("shakespeare-char", [], "run", "no text to train on. Name files, folders or globs with --text PATH."),
        ("shakespeare-char", ["--text", "gone.txt"], "corpus", "--text: there is no 'gone.txt'."),
        (
            "gpt2-124m",
            ["--text", "*.txt"],
            "run",
            "give it with --tokenizer.path PATH. GPT-2: tokenizer.json, or vocab.json",
        ),
        (
            "demo",
            ["--tokenizer.path", "gone"],
            "run",
            "--tokenizer.path: there is no 'gone'. Give yours with --tokenizer.path PATH.",
        ),
        ("demo", ["--init_from", "gone"], "run", "--init_from: there is no 'gone'."),
        ("demo", ["--tokens.path", "gone"], "pretrain", "--tokens.path: there is no 'gone'."),
    ],
)
def test_what_a_run_needs_from_outside_is_asked_for_by_flag(recipe: str, flags: list[str], verb, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_inputs(load_recipe(recipe, flags), verb)
    assert expected in str(error.value)


def test_a_complete_recipe_asks_for_nothing_and_a_stage_only_for_its_own_inputs() -> None:
    check_inputs(load_recipe("demo"))
    check_inputs(load_recipe("gpt2-124m", ["--text", "*.txt"]), "corpus")
