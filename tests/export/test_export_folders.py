"""Folders of an export: whole or not there, complete shards, a card that says what is known, a Modelfile."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import run_tiny, story

from fangcun.config import ModelConfig, resolve_model
from fangcun.errors import ConfigError, FangcunError
from fangcun.export import export_gguf, export_hf, parse_size, verify
from fangcun.model import Transformer, initialize, load_model, save_model
from fangcun.tokenizer import Tokenizer, train_bpe

pytest.importorskip("gguf", reason="the extra export is not installed")

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_bpe([story(sentences=60)], vocab_size=400, max_han_run=4)[0]


@pytest.fixture
def make(words: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A Llama of random weights as a Hugging Face folder, without a run."""

    def folder(**changes: Any) -> Path:
        shape = {"block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 64, "qk_norm": False, "tie_embeddings": False}
        config = resolve_model(ModelConfig(**({"family": "llama"} | shape | changes)), words.vocab_size)
        model = Transformer(config)
        initialize(model, 0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
                elif name.startswith("blocks"):
                    parameter.mul_(8)
        out = tmp_path_factory.mktemp("model")
        save_model(model, out, eos_id=words.eos_id, pad_id=words.pad_id, vocab_size=words.vocab_size)
        words.save(out)
        return out

    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run on two files, of which a rule drops one."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "texts").mkdir()
    for number in range(3):
        (folder / "texts" / f"story{number}.txt").write_text(story(number, 150), encoding="utf-8")
    (folder / "texts" / "short.txt").write_text("太短。\n", encoding="utf-8")
    assert run_tiny(folder / "texts", folder / "run", "--filter.min_characters", "20", "--train.max_steps", "4") == 0
    return folder / "run"


@pytest.mark.parametrize("tied", [True, False])
def test_llama_with_biases_everywhere_is_the_same_model_in_llama_cpp(tied: bool, make: Make) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp (llama.cpp) is not installed")
    checks = verify(make(bias=True, n_query_groups=2, tie_embeddings=tied), "gguf")
    assert [check for check in checks if not check.passed] == []


def test_rows_that_q8_0_cannot_cut_are_stored_in_f16_and_named(make: Make, tmp_path: Path) -> None:
    import gguf

    source = make(n_embd=40, head_size=10, intermediate_size=64)
    file, notes = export_gguf(source, tmp_path / "odd", dtype="q8_0")
    assert len(notes) == 1 and "stored in f16" in notes[0]
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert kinds["blk.0.attn_q.weight"] == "F16" and kinds["blk.0.ffn_down.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


def test_rows_beyond_the_tokenizer_are_not_in_the_file(make: Make, words: Tokenizer, tmp_path: Path) -> None:
    import gguf

    source = make(padding_multiple=64)
    assert load_model(source).head_weight.shape[0] > words.vocab_size
    tensors = {t.name: t for t in gguf.GGUFReader(export_gguf(source, tmp_path / "out", dtype="f32")[0]).tensors}
    for name in ("token_embd.weight", "output.weight"):
        assert tensors[name].shape.tolist() == [64, words.vocab_size]


def test_shards_are_small_and_their_index_is_complete(make: Make, tmp_path: Path) -> None:
    source = make()
    one = export_hf(source, tmp_path / "one")
    many = export_hf(source, tmp_path / "many", max_shard_bytes=120_000)
    assert (one / "model.safetensors").is_file()
    index = json.loads((many / "model.safetensors.index.json").read_text(encoding="utf-8"))
    shards = sorted(set(index["weight_map"].values()))
    assert shards == sorted(file.name for file in many.glob("*.safetensors"))
    assert all((many / shard).stat().st_size < 130_000 for shard in shards)
    before, alone, sharded = (load_model(folder).state_dict() for folder in (source, one, many))
    assert all(torch.equal(before[name], alone[name]) and torch.equal(alone[name], sharded[name]) for name in before)


def test_the_card_names_sources_and_what_was_dropped(run: Path, tmp_path: Path) -> None:
    card = (export_hf(run, tmp_path / "carded", dtype="bf16") / "README.md").read_text(encoding="utf-8")
    rules = json.loads((run / "corpus" / "drops.json").read_text(encoding="utf-8"))["rules"]
    assert rules
    for fact in ("story1.txt", *(f"{rule}: {count['documents']}" for rule, count in rules.items()), "bf16"):
        assert card.count(fact) >= 2, f"{fact} is not said in both languages"
    assert card.startswith("---\nlanguage:\n- zh\nlicense: other")
    assert "待填写" in card and "To be filled in" in card


def test_a_folder_without_a_run_gets_a_card_that_says_so(make: Make, tmp_path: Path) -> None:
    card = (export_hf(make(), tmp_path / "plain") / "README.md").read_text(encoding="utf-8")
    assert "is not known" in card and "不知道这个模型出自哪次训练" in card
    assert "language:" not in card and "Steps" not in card


def test_a_base_model_is_offered_to_ollama_as_one_that_writes_on(run: Path, tmp_path: Path) -> None:
    file, _ = export_gguf(run, tmp_path / "novel")
    said = (file.parent / "Modelfile").read_text(encoding="utf-8")
    assert f"FROM ./{file.name}\n" in said and 'TEMPLATE """{{ .Prompt }}"""' in said
    assert 'PARAMETER stop "<|endoftext|>"' in said and "PARAMETER num_ctx 32" in said


def test_an_export_that_fails_leaves_nothing(make: Make, words: Tokenizer, tmp_path: Path) -> None:
    source = make()
    model = load_model(source)
    with torch.no_grad():
        model.state_dict()["embedding.weight"][0, 0] = 1e6
    save_model(model, source, eos_id=words.eos_id, pad_id=words.pad_id)
    for export in (export_gguf, export_hf):
        with pytest.raises(FangcunError, match=r"65,504.*bf16 or f32"):
            export(source, tmp_path / "out", dtype="f16")
    assert list(tmp_path.iterdir()) == []


def test_an_export_can_be_exported_again(make: Make, tmp_path: Path) -> None:
    first = export_hf(make(), tmp_path / "first")
    second = export_hf(first, tmp_path / "second", dtype="f32")
    a, b = load_model(first).state_dict(), load_model(second).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_weight_without_a_place_in_the_file_is_an_error(make: Make, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = make()
    tensors = load_file(source / "model.safetensors")
    save_file(tensors | {"model.layers.0.extra.weight": torch.zeros(2)}, source / "model.safetensors")
    with pytest.raises(FangcunError, match=r"model\.layers\.0\.extra\.weight"):
        export_gguf(source, tmp_path / "a")
    missing = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp.up_proj" not in name}
    save_file(missing, source / "model.safetensors")
    with pytest.raises(FangcunError, match=r"lack model\.layers\.1\.mlp\.up_proj"):
        export_gguf(source, tmp_path / "b")


def test_wrong_settings_are_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"q8_0.*--to gguf"):
        export_hf(make(), tmp_path / "out", dtype="q8_0")
    with pytest.raises(ConfigError, match="q4_0"):
        export_gguf(make(), tmp_path / "out", dtype="q4_0")
    for size in ("2 cows", "0GB", "GB"):
        with pytest.raises(ConfigError, match="max-shard-size"):
            parse_size(size)
    assert (parse_size("1.5KiB"), parse_size("4096"), parse_size("2 gb")) == (1536, 4096, 2_000_000_000)


def test_a_missing_package_is_told_in_one_sentence(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("gguf", "xllamacpp", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FangcunError, match=r"pip install 'fangcun\[export\]'"):
        export_gguf(make(), tmp_path / "out")
    for against in ("gguf", "hf"):
        with pytest.raises(FangcunError, match=r"pip install (xllamacpp|transformers)"):
            verify(make(), against)
