"""Promises of the strict loader: file, flags, contradictions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fangcun.config import load_recipe
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
    ("text", "expected"),
    [
        (STOP + "model:\n  n_layers: 4\n", "my.yaml:3: model.n_layers: unknown key. Did you mean 'model.n_layer'?"),
        (STOP + "lr: 1\n", "my.yaml:2: lr: unknown key. Did you mean 'optimizer.lr'?"),
        (STOP + "learning_rate: 1\n", "my.yaml:2: learning_rate: unknown key. Did you mean 'optimizer.lr'?"),
        (STOP + "optimizer:\n  beta2: 1\n", "my.yaml:3: optimizer.beta2: unknown key. Did you mean 'optimizer.betas'?"),
        (STOP + "optimiser:\n  lr: 1\n", "my.yaml:2: optimiser: unknown key. Did you mean 'optimizer'?"),
        (STOP + "model:\n  max_steps: 1\n", "my.yaml:3: model.max_steps: unknown key. Did you mean 'train.max_steps'?"),
        (
            STOP + "model:\n  hidden_size: 1\n",
            "my.yaml:3: model.hidden_size: unknown key. Did you mean 'model.n_embd'?",
        ),
        (STOP + "zzqq: 1\n", "my.yaml:2: zzqq: unknown key."),
        (
            STOP + "model.n_layer: 1\n",
            "my.yaml:2: model.n_layer: write it nested, 'model:' and below it '  n_layer: …'.",
        ),
    ],
)
def test_an_unknown_key_names_file_line_and_the_nearest_right_key(tmp_path: Path, text: str, expected: str) -> None:
    assert refused(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {n_layer: four}", "model.n_layer: expected a whole number >= 1, got 'four'."),
        ("model: {n_layer: 0}", "model.n_layer: expected a whole number >= 1, got '0'."),
        ("model: {n_layer: 2.5}", "model.n_layer: expected a whole number >= 1, got '2.5'."),
        ("model: {n_layer: true}", "model.n_layer: expected a whole number >= 1, got 'true'."),
        ("model: {n_layer: null}", "model.n_layer: expected a whole number >= 1, got nothing (null)."),
        ("model: {n_layer: '4'}", "model.n_layer: expected a whole number >= 1, got '4'. Remove the quotes."),
        ("model: {n_layer: [4]}", "model.n_layer: expected a whole number >= 1, got the list [4]."),
        (
            "model: {n_layer: {a: 4}}",
            "model.n_layer: expected a whole number >= 1, got a section (key: value). It is a setting, not a section.",
        ),
        ("model: {dropout: 1}", "model.dropout: expected a number >= 0 and < 1, got '1'."),
        ("optimizer: {lr: .nan}", "optimizer.lr: expected a number > 0, got '.nan'."),
        ("optimizer: {lr: 1e999}", "optimizer.lr: expected a number > 0, got '1e999'."),
        (
            "optimizer: {betas: [0.9]}",
            "optimizer.betas: expected 2 values, each a number >= 0 and < 1, got the list [0.9].",
        ),
        ("tokenizer: {kind: bpr}", "tokenizer.kind: expected one of 'bpe', 'char', got 'bpr'. Did you mean 'bpe'?"),
        (
            "corpus: {paths: a.txt}",
            "corpus.paths: expected a list (each item: text) or null, got 'a.txt'. Write it in brackets: [a.txt].",
        ),
        ("compile: 3", "compile: expected true or false or 'auto', got '3'."),
        (
            "trackers: [wanb]",
            "trackers: expected a list (each item: one of 'jsonl', 'tensorboard', 'swanlab', 'wandb', 'trackio'), got the list [wanb].",
        ),
    ],
)
def test_a_wrong_type_or_value_says_what_was_expected(tmp_path: Path, text: str, expected: str) -> None:
    assert refused(tmp_path, STOP + text) == f"my.yaml:2: {expected}"


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    message = refused(
        tmp_path, "model:\n  n_layers: 4\n  n_head: x\ntrain: {max_steps: 1}\n", "--seeed", "1", "--train.epochs", "-1"
    )
    assert message.splitlines() == [
        "4 mistakes in the recipe my.yaml and its flags:",
        "  my.yaml:2: model.n_layers: unknown key. Did you mean 'model.n_layer'?",
        "  --seeed: unknown setting. Did you mean '--seed'?",
        "  my.yaml:3: model.n_head: expected a whole number >= 1, got 'x'.",
        "  --train.epochs: expected a number > 0 or null, got '-1'.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "my.yaml:2: the key 'a' stands here a second time (first in line 1)."),
        (
            "train:\n  max_steps: 1\n  max_steps: 2\n",
            "my.yaml:3: the key 'max_steps' stands here a second time (first in line 2).",
        ),
        ("- a\n", "my.yaml:1: expected sections (key: value) at the top, got the list [a]."),
        (
            "seed: !!python/object/apply:os.system [true]\n",
            "the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed",
        ),
        ("a: [1\n", "not valid YAML"),
        ("a: 1\n---\nb: 1\n", "not valid YAML"),
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("model: 3\ntrain: {max_steps: 1}\n", "my.yaml:1: model: expected a section with settings below it"),
        ("[" * 3000, "nested too deeply"),
        ("a: &x [*x]\n", "nested too deeply"),
    ],
)
def test_what_is_no_recipe_is_one_sentence(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refused(tmp_path, text)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00seed: 1")
    for name, expected in (
        ("binary.yaml", "not a UTF-8 text file"),
        ("gone.yaml", "no such recipe file"),
        (".", "this is a folder"),
    ):
        with pytest.raises(ConfigError, match=expected):
            load_recipe(tmp_path / name)
    with pytest.raises(ConfigError, match=r"'dmo' is neither a shipped recipe nor a file\. Did you mean 'demo'"):
        load_recipe("dmo")


def test_numbers_are_read_by_the_fields_type_and_not_by_yamls_guess(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        "train: {max_tokens: 3e12, max_steps: 1_000, min_lr: 1e-4}\noptimizer: {lr: 3e-4, weight_decay: 0}\n"
        "corpus: {paths: [1.txt, no, 12:30]}\ncompile: no\nresume: true\nmodel:\n",
    ).recipe
    assert (recipe.train.max_tokens, recipe.train.max_steps, recipe.train.min_lr) == (3 * 10**12, 1000, 1e-4)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (3e-4, 0.0)
    assert recipe.corpus.paths == ["1.txt", "no", "12:30"]
    assert recipe.compile is False and recipe.resume is True


def test_flags_override_the_file_in_every_spelling(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        STOP + "corpus: {builtin: sanguo}\n",
        *[
            "--train.max-steps=20",
            "--text",
            "A",
            "B",
            "C",
            "--out",
            "here",
            "--compile",
            "false",
            "--eval.initial_validation",
            "--train.max_norm",
            "none",
        ],
        *[
            "--optimizer.betas",
            "0.8",
            "0.9",
            "--samples.prompts",
            "人工智能",
            "--samples.prompts",
            "牛顿",
            "--resume",
            "--model.rope_base",
            "1e6",
        ],
        *["--samples.top-k", "null", "--tokenizer.path=a=b"],
    )
    recipe = loaded.recipe
    assert recipe.train.max_steps == 20 and recipe.train.max_norm is None
    assert recipe.corpus.paths == ["A", "B", "C"] and recipe.corpus.builtin is None
    assert recipe.out_dir == "here" and recipe.compile is False and recipe.eval.initial_validation is True
    assert recipe.optimizer.betas == (0.8, 0.9) and recipe.samples.prompts == ["人工智能", "牛顿"]
    assert recipe.resume is True and recipe.model.rope_base == 1e6 and recipe.samples.top_k is None
    assert recipe.tokenizer.path == "a=b"
    assert loaded.origins["train.max_steps"] == "--train.max-steps" and loaded.origins["corpus.paths"] == "--text"
    assert "corpus.builtin" not in loaded.origins and loaded.name == "my"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--train.max_step", "3"], "--train.max_step: unknown setting. Did you mean '--train.max_steps'?"),
        (["--max_steps", "3"], "--max_steps: unknown setting. Did you mean '--train.max_steps'?"),
        (["--train.max_steps"], "--train.max_steps: needs a value."),
        (["--train.max_steps", "3", "4"], "--train.max_steps: takes one value, got 2: 3 4."),
        (["--train.max_steps", "3", "--train.max-steps", "4"], "--train.max-steps: given twice; give it once."),
        (["--train.max_steps", "x"], "--train.max_steps: expected a whole number >= 1 or null, got 'x'."),
        (["stray"], "'stray': unexpected argument. Settings are written --section.key value."),
        (
            ["--checkpoint", "3"],
            "--checkpoint: is a section, not a setting. Its settings are --checkpoint.keep_last, --checkpoint.keep_best, --checkpoint.background.",
        ),
        (
            ["--optimizer.betas", "0.9"],
            "--optimizer.betas: expected 2 values, each a number >= 0 and < 1, got the list [0.9].",
        ),
        (
            ["--precision", "bf16"],
            "--precision: expected one of 'auto', '32-true', 'bf16-mixed', 'bf16-true', '16-mixed', 'fp8-mixed', got 'bf16'. Did you mean 'bf16-true'?",
        ),
    ],
)
def test_a_wrong_flag_is_named_as_it_was_typed(tmp_path: Path, flags: list[str], expected: str) -> None:
    assert refused(tmp_path, STOP, *flags) == expected


WORDS = st.sampled_from(
    [
        "train:",
        "model:",
        "max_steps",
        "model_config:",
        "optimizer",
        "class_path",
        "lr",
        "name",
        ": ",
        "\n",
        "\n  ",
        "[",
        "]",
        "{",
        "}",
        "- ",
        "1",
        "&a ",
        "*a",
        "!!set ",
        "null",
        "'",
        '"',
        "|",
        "\t",
        "#",
        "---\n",
        "data:",
        "eval:",
        "<<",
        "? ",
        "三",
        "\x00",
        "9" * 5000,
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(WORDS, max_size=14).map("".join),
    st.lists(WORDS | st.sampled_from(["--train.max_steps", "--text", "--model", "--"]), max_size=4),
)
def test_whatever_the_file_and_the_flags_hold_the_answer_is_a_recipe_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, flags: list[str]
) -> None:
    file = tmp_path_factory.getbasetemp() / "random.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        assert load_recipe(file, flags).name == "random"
    except ConfigError as error:
        assert str(error)
