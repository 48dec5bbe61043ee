"""What is exported is read by transformers and llama.cpp as it is here; what would not be is refused, with the reason."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from tiny import run_tiny

from fangcun.artifacts import find_weights
from fangcun.cli import main
from fangcun.config import ModelConfig, resolve_model
from fangcun.errors import FangcunError
from fangcun.export import export_gguf, export_hf, parse_size, verify
from fangcun.model import Transformer, initialize, load_model, save_model
from fangcun.tokenizer import Tokenizer

pytest.importorskip("gguf", reason="the extra export is not installed")

SHAPES: dict[str, dict] = {
    "gpt2": {"norm_class": "LayerNorm", "mlp_class": "GELU", "positions": "learned", "qk_norm": False, "bias": True},
    "gpt_neox": {
        "norm_class": "LayerNorm", "mlp_class": "GELU", "gelu_approximate": "none", "qk_norm": False, "bias": True,
        "rotary_percentage": 0.5, "parallel_residual": True, "tie_embeddings": False,
    },
    "llama": {"qk_norm": False, "n_query_groups": 2, "tie_embeddings": False},
    "mistral": {"qk_norm": False, "head_size": 32},
    "qwen2": {"qk_norm": False, "attention_bias": True, "n_query_groups": 2},
    "qwen3": {"n_query_groups": 1, "head_size": 32},
}  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a BPE tokenizer of its own."""
    out = tmp_path_factory.mktemp("export") / "run"
    assert run_tiny(text, out, "--model.block_size", "128", "--model.n_embd", "64", "--train.max_steps", "30") == 0
    return out


def random_folder(family: str, words: Tokenizer, folder: Path) -> Path:
    """A model of random weights, large enough that its greedy text does not stand still, with the run's tokenizer."""
    shape = {"block_size": 128, "n_layer": 2, "n_head": 4, "n_embd": 64, "intermediate_size": 96, "norm_eps": 1e-5}
    config = resolve_model(ModelConfig(family=family, **shape | SHAPES[family]), words.vocab_size)  # type: ignore[arg-type]
    model = Transformer(config)
    initialize(model, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and name.startswith("blocks"):
                parameter.mul_(8)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    save_model(model, folder, eos_id=words.eos_id, vocab_size=words.vocab_size)
    words.save(folder)
    return folder


def failed(source: Path, against: str, other: Path | None = None, tolerance: float = 1e-3) -> list[str]:
    checks = verify(source, against, other, tolerance=tolerance)
    assert len(checks) == 3
    return [check.name for check in checks if not check.passed]


def needs_llama_cpp() -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp (llama.cpp) is not installed")


def test_llama_cpp_reads_a_trained_run_as_it_is_here(run_folder: Path) -> None:
    needs_llama_cpp()
    assert failed(run_folder, "gguf") == []


@pytest.mark.parametrize("family", SHAPES)
def test_llama_cpp_computes_every_family_as_it_is_here(family: str, run_folder: Path, tmp_path: Path) -> None:
    needs_llama_cpp()
    folder = random_folder(family, Tokenizer.load(run_folder / "tokenizer"), tmp_path / family)
    assert failed(folder, "gguf") == []


@pytest.mark.parametrize("family", ["gpt_neox", "qwen3"])
def test_transformers_computes_an_export_as_it_is_here(family: str, run_folder: Path, tmp_path: Path) -> None:
    folder = random_folder(family, Tokenizer.load(run_folder / "tokenizer"), tmp_path / family)
    assert failed(folder, "hf") == []


def test_a_difference_is_found(run_folder: Path, tmp_path: Path) -> None:
    needs_llama_cpp()
    words = Tokenizer.load(run_folder / "tokenizer")
    folder = random_folder("qwen3", words, tmp_path / "model")
    file, _ = export_gguf(folder, tmp_path / "out", dtype="f32")
    model = load_model(folder)
    with torch.no_grad():
        model.blocks[0].mlp.down.weight.mul_(1.5)  # type: ignore[union-attr]
    save_model(model, folder, eos_id=words.eos_id, vocab_size=words.vocab_size)
    assert len(failed(folder, "gguf", file)) == 2
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:20]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert "token ids" in failed(folder, "gguf", file)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_smaller_files_open_and_are_near(dtype: str, run_folder: Path, tmp_path: Path) -> None:
    needs_llama_cpp()
    file, _ = export_gguf(run_folder, tmp_path / "out", dtype=dtype)
    whole, _ = export_gguf(run_folder, tmp_path / "whole", dtype="f32")
    assert file.stat().st_size < 0.8 * whole.stat().st_size
    assert failed(run_folder, "gguf", file, tolerance=0.3) == []
    assert (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8").startswith(f"FROM ./{file.name}")


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_a_folder_in_shards_opens_in_transformers(dtype: str, run_folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "hf"
    export_hf(run_folder, out, dtype=dtype, max_shard_bytes=60_000)
    shards = list(out.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    assert not (out / "training_state").exists()
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=kind)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        wanted = load_model(find_weights(run_folder), dtype=kind).float()(ids)
        torch.testing.assert_close(theirs.float()(ids).logits, wanted, atol=1e-4, rtol=1e-4)
    assert Tokenizer.load(out).fingerprint == Tokenizer.load(run_folder / "tokenizer").fingerprint
    ours = load_model(out, dtype=kind).float()  # and here again
    with torch.no_grad():
        assert torch.equal(ours(ids), wanted)


def test_the_card_holds_the_facts_of_the_run(run_folder: Path, tmp_path: Path) -> None:
    export_hf(run_folder, tmp_path / "card")
    card = (tmp_path / "card" / "README.md").read_text(encoding="utf-8")
    records = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    final = next(record for record in records if record["kind"] == "final")
    assert card.startswith("---\n")
    for name in ("val_bits_per_byte", "val_loss"):
        assert card.count(f"{final[name]:.4f}") == 2  # once a language
    manifest = json.loads((run_folder / "tokens" / "manifest.json").read_text(encoding="utf-8"))
    assert f"{manifest['counts']['train']['tokens']:,}" in card
    for words in ("story.txt", "Licence", "许可证", "qwen3", "30"):
        assert words in card
    assert str(run_folder.parent) not in card  # no paths of this machine


def test_what_llama_cpp_would_read_differently_is_refused(text: Path, run_folder: Path, tmp_path: Path) -> None:
    chars = tmp_path / "chars"
    assert (
        run_tiny(text, chars, "--tokenizer.kind", "char", "--train.max_steps", "2", leave_out="--tokenizer.vocab_size")
        == 0
    )
    with pytest.raises(FangcunError, match=r"no merges.*kind: bpe"):
        export_gguf(chars, tmp_path / "a")
    words = Tokenizer.load(run_folder / "tokenizer")
    folder = random_folder("qwen3", words, tmp_path / "odd")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[ab]+"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FangcunError, match="cuts text in a way"):
        export_gguf(folder, tmp_path / "b")
    model = Transformer(
        resolve_model(
            ModelConfig(exportable=False, mlp_class="ReLU2", block_size=32, n_layer=1, n_head=2, n_embd=32), 400
        )
    )
    save_model(model, tmp_path / "own", eos_id=0)
    words.save(tmp_path / "own")
    for export in (export_gguf, export_hf):
        with pytest.raises(FangcunError, match="exportable"):
            export(tmp_path / "own", tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")


def test_an_earlier_export_is_replaced_and_nothing_else(run_folder: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine", encoding="utf-8")
    words = ["export", str(run_folder), "--out"]
    assert main([*words, str(foreign), "--to", "hf"]) != 0
    assert [file.name for file in foreign.iterdir()] == ["thesis.txt"]
    assert main([*words, str(tmp_path / "out"), "--to", "hf"]) == 0
    assert main([*words, str(tmp_path / "out"), "--to", "gguf"]) == 0
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert main([*words, str(run_folder), "--to", "hf"]) != 0
    assert (run_folder / "recipe.yaml").is_file()


def test_sizes_are_read_with_their_units() -> None:
    assert (parse_size("2GB"), parse_size("500MB")) == (2 * 10**9, 5 * 10**8)
    with pytest.raises(FangcunError, match="big"):
        parse_size("big")
