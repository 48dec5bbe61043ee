"""Promises of the litgpt importer: both dialects, nothing lost in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangcun.config import check_inputs, count_parameters, load_recipe, resolve_model
from fangcun.errors import ConfigError

SHAPE = """
model_config:
  name: small
  block_size: 256
  vocab_size: 1000
  n_layer: 2
  n_head: 4
  n_embd: 64
  rotary_percentage: 1.0
  parallel_residual: false
  bias: false
  norm_class_name: RMSNorm
  mlp_class_name: LLaMAMLP
  intermediate_size: 128
"""
OLD = (
    SHAPE
    + """
train:
  global_batch_size: 8
  micro_batch_size: 4
  learning_rate: 3e-4
  beta2: 0.99
  max_steps: 20
  tie_embeddings: true
eval:
  max_new_tokens: 50
"""
)


def load(tmp_path: Path, text: str, *flags: str):
    file = tmp_path / "lit.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, flags)


def refused(tmp_path: Path, text: str, *flags: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text, *flags)
    return str(error.value)


def test_a_file_as_people_have_it_gives_the_run_that_was_written(shared_data: Path) -> None:
    flags = [
        "--text",
        str(shared_data / "stories"),
        "--tokenizer.path",
        str(shared_data / "tokenizers/chatglm/tokenizer.model"),
    ]
    loaded = load_recipe(shared_data / "recipes" / "litgpt_microstories.yaml", [*flags, "--train.max_steps", "2"])
    recipe, report = loaded.recipe, loaded.import_report
    model = resolve_model(recipe.model)
    assert count_parameters(model) == 43_915_776
    assert (model.family, model.tie_embeddings, model.padded_vocab_size, model.vocab_size) == (
        "mistral",
        True,
        65024,
        64798,
    )
    assert (model.n_layer, model.n_head, model.head_size, model.n_embd, model.intermediate_size) == (6, 6, 48, 512, 768)
    assert (model.norm_class, model.mlp_class, model.norm_eps, model.qk_norm, model.positions) == (
        "RMSNorm",
        "SwiGLU",
        1e-5,
        False,
        "rope",
    )
    train = recipe.train
    assert (train.global_batch_size, train.micro_batch_size, train.max_steps, train.max_tokens) == (
        512,
        32,
        2,
        3 * 10**12,
    )
    assert (train.lr_warmup_steps, train.max_seq_length, train.max_norm, train.min_lr, train.save_interval) == (
        1000,
        512,
        1.0,
        0.0,
        1000,
    )
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.optimizer.betas) == (5e-4, 0.1, (0.9, 0.95))
    assert (recipe.eval.interval, recipe.eval.max_iters) == (2000, 100)
    assert (recipe.eval.initial_validation, recipe.eval.final_validation) == (False, False)
    assert recipe.samples.max_new_tokens == 0
    assert (recipe.precision, recipe.resume, recipe.seed) == ("bf16-mixed", "auto", 42)
    assert loaded.origins["optimizer.lr"].endswith("litgpt_microstories.yaml:114")
    assert report is not None and not report.refused
    assert {"name", "hf_config"} <= {line.split(":")[0].rpartition(".")[2] for line in report.without_effect}
    assert {"data", "devices", "num_nodes"} <= {line.split(":")[0] for line in report.without_effect}
    better = {line.split(":")[0] for line in report.better}
    assert {"resume", "train.tie_embeddings", "train.max_steps", "train.epochs"} <= better
    check_inputs(loaded)


def test_every_key_of_the_file_appears_in_the_report(shared_data: Path) -> None:
    loaded = load_recipe(shared_data / "recipes" / "litgpt_microstories.yaml")
    text = str(loaded.import_report)
    lines = (shared_data / "recipes" / "litgpt_microstories.yaml").read_text(encoding="utf-8").splitlines()
    keys = {line.split(":")[0].strip() for line in lines if ":" in line and not line.strip().startswith("#")}
    # Section names, inside of data (one line for all of it), and keys whose null says nothing.
    for key in keys - {
        "model_config",
        "train",
        "eval",
        "class_path",
        "init_args",
        "data_path",
        "split_names",
        "initial_checkpoint_dir",
    }:
        assert f"{key}:" in text, key


def test_its_paths_are_replaced_by_flags_and_the_error_says_so(shared_data: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check_inputs(load_recipe(shared_data / "recipes" / "litgpt_microstories.yaml"))
    text, tokenizer = str(error.value).splitlines()
    assert "no text to train on (the data section of the imported file is not used)" in text and "--text PATH" in text
    assert "litgpt_microstories.yaml:132: tokenizer.path: there is no 'Chinese_LLM_From_Scratch" in tokenizer
    assert "--tokenizer.path PATH" in tokenizer


def test_the_dialect_of_early_2024_is_read(tmp_path: Path) -> None:
    loaded = load(tmp_path, OLD)
    recipe = loaded.recipe
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.optimizer.betas) == (3e-4, 0.1, (0.9, 0.99))
    assert recipe.model.family == "llama" and recipe.model.tie_embeddings and recipe.train.max_steps == 20
    assert recipe.samples.max_new_tokens == 50
    # What the file leaves out is litgpt's default, not ours.
    assert (recipe.train.lr_warmup_steps, recipe.train.min_lr, recipe.train.max_tokens) == (2000, 4e-5, 3 * 10**12)
    assert (recipe.eval.initial_validation, recipe.eval.final_validation, recipe.eval.interval) == (False, True, 1000)
    assert resolve_model(recipe.model).padded_vocab_size == 1024
    assert loaded.origins["optimizer.betas"].endswith("lit.yaml:19")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("optimizer: AdamW", ("adamw", 1e-3, 0.01, (0.9, 0.999))),
        (
            "optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-4, fused: true}}",
            ("adamw", 1e-4, 0.01, (0.9, 0.999)),
        ),
        ("optimizer: {class_path: bitsandbytes.optim.AdamW8bit}", ("adamw8bit", 1e-3, 0.01, (0.9, 0.999))),
        ("", ("adamw", 1e-3, 0.01, (0.9, 0.999))),
    ],
)
def test_the_newer_dialect_is_read_with_torchs_defaults(tmp_path: Path, optimizer: str, expected: tuple) -> None:
    made = load(tmp_path, SHAPE + "tokenizer_dir: x\n" + optimizer).recipe.optimizer
    assert (made.name, made.lr, made.weight_decay, made.betas) == expected


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("optimizer: {class_path: torch.optim.SGD}", "optimizer"),
        ("optimizer: {class_path: torch.optim.AdamW, init_args: {amsgrad: true}}", "optimizer.init_args.amsgrad"),
        ("precision: 64-true", "precision"),
        ("train: {lr_warmup_fraction: 0.1}", "train.lr_warmup_fraction"),
        ("train: {gradient_clip: 1}", "train.gradient_clip"),
        ("eval: {often: 1}", "eval.often"),
        ("colour: red", "colour"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_with_the_whole_report(tmp_path: Path, change: str, key: str) -> None:
    message = refused(tmp_path, SHAPE + change)
    assert f"\n    {key}: " in message.split("  refused:")[1]
    assert "  mapped:" in message


@pytest.mark.parametrize(
    "field",
    ["n_expert: 8", "sliding_window_size: 128", "mlp_class_name: GemmaMLP", "post_mlp_norm: true", "flavour: x"],
)
def test_a_model_that_is_not_offered_is_refused_by_field(tmp_path: Path, field: str) -> None:
    text = SHAPE.replace("  mlp_class_name: LLaMAMLP\n", "") if field.startswith("mlp") else SHAPE
    assert f"model_config.{field.split(':')[0]}: " in refused(tmp_path, text + f"  {field}\n").split("  refused:")[1]


def test_fields_at_their_neutral_value_change_nothing(tmp_path: Path) -> None:
    plain = load(tmp_path, SHAPE).recipe
    assert load(tmp_path, SHAPE + "  n_expert: 0\n  sliding_window_size: null\n  lm_head_bias: false\n").recipe == plain


@pytest.mark.parametrize(("field", "form"), [("", "none"), ("  gelu_approximate: tanh\n", "tanh")])
def test_gelu_has_litgpts_form(tmp_path: Path, field: str, form: str) -> None:
    text = SHAPE.replace("  mlp_class_name: LLaMAMLP\n", "  mlp_class_name: GptNeoxMLP\n")
    assert load(tmp_path, text + field, "--model.exportable", "false").recipe.model.gelu_approximate == form
    with_swiglu = load(tmp_path, SHAPE + "  gelu_approximate: none\n")
    assert with_swiglu.import_report is not None
    assert "gelu_approximate: none" in str(with_swiglu.import_report)
    assert with_swiglu.recipe.model.gelu_approximate == "tanh"


def test_a_name_alone_gives_the_shape_where_it_is_known(tmp_path: Path) -> None:
    recipe = load(tmp_path, "model_name: tiny-llama-1.1b\ntokenizer_dir: x\n").recipe
    assert count_parameters(resolve_model(recipe.model)) == 1_100_048_384  # as Hugging Face counts TinyLlama-1.1B
    model = resolve_model(
        load(tmp_path, "model_name: EleutherAI/pythia-70m-deduped\ntokenizer_dir: x\n").recipe.model, 50277
    )
    assert count_parameters(model) == 70_426_624  # as EleutherAI counts it
    assert (model.family, model.rotary_percentage, model.parallel_residual) == ("gpt_neox", 0.25, True)
    assert "its shape is not known here" in refused(tmp_path, "model_name: falcon-7b\ntokenizer_dir: x\n")


def test_the_family_follows_from_the_mathematics(tmp_path: Path) -> None:
    assert load(tmp_path, SHAPE + "  attn_bias: true\n").recipe.model.family == "qwen2"
    assert load(tmp_path, SHAPE + "  norm_qk: true\n").recipe.model.family == "qwen3"
    assert (
        load(tmp_path, SHAPE.replace("n_embd: 64", "n_embd: 66") + "  head_size: 16\n").recipe.model.family == "mistral"
    )
    assert "cannot express this shape" in refused(
        tmp_path, SHAPE.replace("rotary_percentage: 1.0", "rotary_percentage: 0.5")
    )


def test_weights_to_start_from_replace_the_shape(tmp_path: Path) -> None:
    recipe = load(tmp_path, SHAPE + "initial_checkpoint_dir: there\n").recipe
    assert recipe.init_from == "there" and recipe.model.n_layer == 6


def test_text_files_of_the_file_are_taken_over_and_bf16_true_keeps_fp32_weights(tmp_path: Path) -> None:
    data = "data: {class_path: litgpt.data.TextFiles, init_args: {train_data_path: novels}}\nprecision: bf16-true\n"
    recipe = load(tmp_path, SHAPE + data).recipe
    assert recipe.corpus.paths == ["novels"] and recipe.precision == "bf16-mixed"
    assert load(tmp_path, SHAPE + data, "--text", "mine").recipe.corpus.paths == ["mine"]


def test_a_wrong_value_names_the_line_of_the_imported_file(tmp_path: Path) -> None:
    assert "lit.yaml:6: model.n_layer: expected a whole number >= 1, got 'two'." in refused(
        tmp_path, SHAPE.replace("n_layer: 2", "n_layer: two")
    )


def test_a_recipe_of_ours_with_a_stray_key_is_not_taken_for_litgpts(tmp_path: Path) -> None:
    message = refused(tmp_path, "train: {max_steps: 1}\nmodel: {n_layer: 1}\ndevices: 1\n")
    assert "lit.yaml:3: devices: unknown key. Did you mean 'device'?" in message


def test_fine_tuning_files_are_told_apart(tmp_path: Path) -> None:
    assert "configuration for fine-tuning" in refused(tmp_path, "checkpoint_dir: x\nlora_r: 8\ntrain: {epochs: 1}\n")


@pytest.mark.parametrize("installed", [True, False])
def test_its_logger_is_taken_over_where_it_is_installed(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: object() if installed else None)
    file = tmp_path / "lit.yaml"
    file.write_text("model_name: tiny-llama-1.1b\ntokenizer_dir: x\nlogger_name: wandb\n", encoding="utf-8")
    loaded = load_recipe(file)
    assert loaded.import_report is not None
    assert loaded.recipe.trackers == (["wandb"] if installed else ["jsonl"])
    if not installed:
        assert any("pip install wandb" in line for line in loaded.import_report.without_effect)
