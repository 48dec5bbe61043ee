"""Promises of the nanoGPT importer: read and never executed, nothing lost in silence, the run that was written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.config import LoadedRecipe, check_inputs, count_parameters, dump_recipe, load_recipe, resolve_model
from fangcun.config.nanogpt_tables import DEFAULTS
from fangcun.config.python_settings import read_python_settings
from fangcun.errors import ConfigError

CHARACTERS = """# train a miniature character-level model
out_dir = 'out-char'
eval_interval = 250 # often
eval_iters = 200
log_interval = 10
always_save_checkpoint = False
wandb_log = False
wandb_project = 'chars'
wandb_run_name = 'mini-' + str(time.time())
dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 256
n_layer = 6
n_head = 6
n_embd = 384
dropout = 0.2
learning_rate = 1e-3
max_iters = 5000
lr_decay_iters = 5000
min_lr = 1e-4
beta2 = 0.99
warmup_iters = 100
device = 'cpu'
compile = False
"""


def load(tmp_path: Path, text: str, *flags: str) -> LoadedRecipe:
    file = tmp_path / "train_mine.py"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, flags)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    return str(error.value)


def test_a_file_as_people_have_it_gives_the_run_that_was_written(tmp_path: Path) -> None:
    loaded = load(tmp_path, CHARACTERS)
    recipe = loaded.recipe
    model = resolve_model(recipe.model, vocab_size=65)
    assert (model.family, model.n_layer, model.n_head, model.n_embd, model.block_size) == ("gpt2", 6, 6, 384, 256)
    assert (model.norm_class, model.norm_eps, model.mlp_class, model.gelu_approximate) == (
        "LayerNorm",
        1e-5,
        "GELU",
        "none",
    )
    assert (model.positions, model.qk_norm, model.bias, model.tie_embeddings) == ("learned", False, False, True)
    assert (model.dropout, model.attention_dropout, model.padded_vocab_size) == (0.2, 0.2, 65)
    # nanoGPT prints 10.65M for this file: it counts without the table of positions.
    assert count_parameters(model) - 256 * 384 == 10_646_784
    train = recipe.train
    assert (train.global_batch_size, train.micro_batch_size, train.max_steps) == (64, 64, 5000)
    assert (train.lr_schedule, train.lr_warmup_steps, train.lr_decay_steps, train.min_lr) == ("cosine", 100, 5000, 1e-4)
    assert (train.max_norm, train.log_interval, train.save_interval) == (1.0, 10, None)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.optimizer.betas) == (1e-3, 0.1, (0.9, 0.99))
    assert (recipe.eval.interval, recipe.eval.max_iters) == (250, 200)
    assert (recipe.tokenizer.kind, recipe.corpus.val_split, recipe.corpus.val_share) == ("char", "tail", 0.1)
    assert (recipe.device, recipe.compile, recipe.out_dir, recipe.trackers) == ("cpu", False, "out-char", ["jsonl"])
    assert loaded.origins["optimizer.lr"].endswith("train_mine.py:18")


def test_the_recipe_that_is_written_loads_to_the_same_settings(tmp_path: Path) -> None:
    loaded = load(tmp_path, CHARACTERS)
    (tmp_path / "mine.yaml").write_text(dump_recipe(loaded.recipe, header=str(loaded.import_report)), encoding="utf-8")
    assert load_recipe(tmp_path / "mine.yaml").recipe == loaded.recipe


def test_every_setting_appears_in_the_report_once_whether_the_file_has_it_or_not(tmp_path: Path) -> None:
    text = str(load(tmp_path, CHARACTERS).import_report)
    for line in CHARACTERS.splitlines()[1:]:
        assert sum(entry.strip().startswith(line.split(" ")[0]) for entry in text.splitlines()) == 1, line
    bare = str(load(tmp_path, "n_layer = 2\n").import_report)
    silent = {"eval_only", "init_from", "wandb_log", "wandb_project", "wandb_run_name", "backend", "n_layer"}
    for name in DEFAULTS.keys() - silent - {"device", "compile"}:
        assert f"nanoGPT's default {name}," in bare
    assert "device: auto (nanoGPT's default is cuda)" in bare and "compile: auto (nanoGPT's default is True)" in bare


def test_the_file_is_never_executed(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    text = refused(
        tmp_path,
        f"import os\nn_layer = 2\nopen({str(trap)!r}, 'w')\nbatch_size = len(os.listdir('.'))\nfor i in range(3):\n    n_head = i\n",
    )
    assert not trap.exists()
    assert "line 3: not understood, and never executed: open(" in text
    assert (
        "batch_size (line 4): not understood, and never executed: batch_size = len(os.listdir('.')). Write its value."
        in text
    )
    assert "line 5: not understood" in text


def test_arithmetic_of_earlier_names_is_calculated(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        "batch_size = 12\ngradient_accumulation_steps = 5 * 8\nmax_iters = lr_decay_iters = 6 * 10**5 // 4\n"
        "learning_rate: float = 6e-4\nmin_lr = learning_rate / 10\nbias = not True\nn_layer = -(-24 // 2)\nout_dir = 'out-' + 'a'\n",
    ).recipe
    assert (recipe.train.global_batch_size, recipe.train.max_steps, recipe.train.lr_decay_steps) == (
        480,
        150000,
        150000,
    )
    assert recipe.train.min_lr == pytest.approx(6e-5) and recipe.out_dir == "out-a"
    assert (recipe.model.n_layer, recipe.model.bias) == (12, False)


def test_of_several_assignments_the_last_one_counts(tmp_path: Path) -> None:
    assert load(tmp_path, "n_layer = 2\nn_layer = 3\n").recipe.model.n_layer == 3
    assert load(tmp_path, "n_layer = len('a')\nn_layer = 3\n").recipe.model.n_layer == 3
    assert "n_layer (line 2): not understood" in refused(tmp_path, "n_layer = 2\nn_layer = len('a')\n")
    assert "n_layer += 1" in refused(tmp_path, "n_layer = 2\nn_layer += 1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_layers = 2\nn_head = 2\n", "nanoGPT has no such setting. Did you mean 'n_layer'?"),
        ("eval_only = True\n", "fangcun evaluate RUN"),
        ("init_from = 'llama'\n", "expected scratch, resume or gpt2…"),
        ("dtype = 'float8'\n", "expected one of float32, bfloat16, float16"),
        ("batch_size = 1.5\n", "expected whole numbers"),
        ("n_layer = 2 +\n", "train_mine.py:1: not valid Python"),
        ("x = 1\n", "no setting of nanoGPT's is assigned here"),
        ("n_layer = 10**10**10\n", "n_layer (line 1): not understood"),
        ("n_layer = 1 // 0\n", "n_layer (line 1): not understood"),
        ("n_layer = 'two'\n", "model.n_layer: expected a whole number >= 1"),
        ("n_layer = 2\nmin_lr = 1.0\n", "min_lr 1 is above optimizer.lr"),
        ("n_layer = 2\0\n", "not valid Python"),
        ("n_layer = " + "(" * 5000 + "2" + ")" * 5000, "not valid Python"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, text)


def test_without_decay_the_rate_is_constant_and_idle_settings_are_told(tmp_path: Path) -> None:
    loaded = load(tmp_path, "decay_lr = False\nwarmup_iters = 5\nlearning_rate = 3e-5\n")
    assert (loaded.recipe.train.lr_schedule, loaded.recipe.train.lr_warmup_steps) == ("constant", 0)
    assert "warmup_iters: 5 (line 2) → nanoGPT reads it with decay_lr only" in str(loaded.import_report)


def test_a_start_from_gpt2_names_a_folder_and_takes_its_shape(tmp_path: Path) -> None:
    text = "init_from = 'gpt2-xl'\nn_layer = 3\ndataset = 'shakespeare'\n"
    loaded = load(tmp_path, text, "--text", str(tmp_path))
    assert loaded.recipe.init_from == "gpt2-xl"
    assert "n_layer: 3 (line 2) → the shape comes from the folder of init_from" in str(loaded.import_report)
    with pytest.raises(ConfigError, match=r"there is no 'gpt2-xl'. Give the folder with --init_from"):
        check_inputs(loaded)
    assert load(tmp_path, text, "--init_from", "there").recipe.init_from == "there"


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    recipe = load(tmp_path, CHARACTERS, "--train.max_steps", "3", "--text", "mine.txt").recipe
    assert (recipe.train.max_steps, recipe.corpus.paths) == (3, ["mine.txt"])


def test_the_text_of_a_data_set_beside_the_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "data/novel").mkdir(parents=True)
    (tmp_path / "data/novel/input.txt").write_text("却说", encoding="utf-8")
    (tmp_path / "data/novel/meta.pkl").write_bytes(b"never opened")
    recipe = load(tmp_path / "config", "dataset = 'novel'\n").recipe
    assert recipe.corpus.paths == [str(tmp_path / "data/novel/input.txt")]
    assert recipe.tokenizer.kind == "char"


@pytest.mark.parametrize("name", ["train_shakespeare_char", "train_gpt2", "finetune_shakespeare"])
def test_nanogpts_own_files_are_read(name: str) -> None:
    clone = os.environ.get("FANGCUN_NANOGPT")
    if not clone:
        pytest.skip("FANGCUN_NANOGPT does not name a clone of nanoGPT")
    report = load_recipe(Path(clone, "config", f"{name}.py")).import_report
    assert report is not None and not report.refused


@given(
    st.one_of(
        st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False), st.text()
    )
)
def test_any_literal_is_read_as_python_reads_it(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    file = tmp_path_factory.mktemp("literal") / "a.py"
    file.write_text(f"a = {value!r}\nb = a\n", encoding="utf-8")
    if isinstance(value, float) and abs(value) > 1e30:
        return  # -1e308 is arithmetic of too large a number
    assert read_python_settings(file, "a.py").values["b"][0] == value
