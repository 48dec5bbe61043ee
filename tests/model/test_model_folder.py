"""A saved model comes back bitwise; a folder that is not what it says is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shapes import FAMILIES, GPT2, random_config, random_ids, random_model, small_config

from fangcun.errors import ConfigError, FangcunError
from fangcun.model import (
    Transformer,
    initialize,
    load_model,
    load_weights,
    read_config,
    read_tensors,
    save_model,
    write_tensors,
)


def change_config(folder: Path, **changes: Any) -> None:
    """Edit config.json as another program's would be: without our own part; None removes a key."""
    raw = json.loads((folder / "config.json").read_text())
    raw.pop("fangcun")
    raw |= changes
    (folder / "config.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("family", FAMILIES)
def test_save_then_load_is_bitwise(family: str, seed: int, tmp_path: Path) -> None:
    config = random_config(family, seed)
    model = random_model(config, seed)
    save_model(model, tmp_path)
    back = load_model(tmp_path)
    assert back.config == config
    mine, theirs = model.state_dict(), back.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    ids = random_ids(config)
    assert torch.equal(model(ids), back(ids))
    assert not back.training


def test_weights_load_in_place_bitwise(tmp_path: Path) -> None:
    config = random_config("qwen3", 4)
    model, other = random_model(config, 1), Transformer(config)
    save_model(model, tmp_path)
    before = {name: p.data_ptr() for name, p in other.named_parameters()}
    load_weights(other, tmp_path)
    assert {name: p.data_ptr() for name, p in other.named_parameters()} == before
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_shape_that_no_family_has_comes_back_bitwise_when_it_says_so(tmp_path: Path) -> None:
    config = small_config(
        exportable=False, mlp_class="ReLU2", parallel_residual=True, rotary_percentage=0.5, scale_embeddings=True,
        logit_softcap=30.0, norm_class="LayerNorm", bias=True, tie_embeddings=False,
    )  # fmt: skip
    model = random_model(config)
    save_model(model, tmp_path)
    back = load_model(tmp_path)
    assert back.config == config
    assert torch.equal(model(random_ids(config)), back(random_ids(config)))


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    for tied in (True, False):
        save_model(random_model(small_config(tie_embeddings=tied)), tmp_path)
        assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not tied


def test_a_head_stored_beside_the_embedding_it_is_tied_to_must_be_equal(tmp_path: Path) -> None:
    model = random_model(small_config())
    save_model(model, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path).embedding.weight, model.embedding.weight)
    state["lm_head.weight"][0, 0] += 1
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(FangcunError, match="tie_word_embeddings"):
        load_model(tmp_path)


def test_shards_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    model = random_model(small_config())
    save_model(model, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    back = load_model(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FangcunError, match="model-00002-of-00002"):
        load_model(tmp_path)


def test_missing_left_over_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    save_model(random_model(small_config()), tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)

    save_file({n: t for n, t in whole.items() if n != "model.layers.1.mlp.up_proj.weight"}, file)
    with pytest.raises(FangcunError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(tmp_path)
    save_file({**whole, "model.layers.9.mlp.up_proj.weight": torch.ones(2)}, file)
    with pytest.raises(FangcunError, match=r"model\.layers\.9\.mlp\.up_proj\.weight"):
        load_model(tmp_path)
    save_file({**whole, "model.norm.weight": torch.ones(5)}, file)
    with pytest.raises(FangcunError, match=r"norm\.weight is \(5,\), expected \(32,\)"):
        load_model(tmp_path)


def test_rotary_buffers_of_old_files_are_ignored(tmp_path: Path) -> None:
    model = random_model(random_config("llama", 0))
    save_model(model, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for layer in range(model.config.n_layer):
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(state, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path)(random_ids(model.config)), model(random_ids(model.config)))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    save_model(random_model(small_config()), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(FangcunError, match=r"pytorch_model\.bin.*fangcun import"):
        load_model(tmp_path)


def test_folders_without_weights_or_config_and_torn_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match=r"config\.json does not exist"):
        load_model(tmp_path)
    save_model(random_model(small_config()), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FangcunError, match="damaged"):
        load_model(tmp_path)
    file.unlink()
    with pytest.raises(FangcunError, match="has no weights"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FangcunError, match="not JSON"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("mistral", {"sliding_window": 8}, "sliding_window is 8"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "sliding_window is 8"),
        ("qwen3", {"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}}, "rope_parameters.*llama3"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.*linear"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"mlp_bias": True, "attention_bias": False}, "mlp_bias"),
        ("llama", {"hidden_size": None}, "hidden_size is missing"),
        ("llama", {"hidden_size": "wide"}, "wrong type"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"model_type": "mixtral"}, "model_type is 'mixtral'"),
        ("llama", {"model_type": "qwen3_moe"}, "qwen3_moe.*Did you mean 'qwen3'"),
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("qwen2", {"head_dim": 20}, "head_size"),
    ],
)  # fmt: skip
def test_what_fangcun_does_not_have_is_refused_by_name(family: str, changes: dict, named: str, tmp_path: Path) -> None:
    save_model(random_model(random_config(family, 0)), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ConfigError, match=f"(?s){named}"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {"sliding_window": 4096}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 28}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0}),
    ],
)
def test_a_window_without_effect_is_no_obstacle(family: str, changes: dict, tmp_path: Path) -> None:
    save_model(random_model(random_config(family, 0)), tmp_path)
    change_config(tmp_path, **changes)
    assert read_config(tmp_path).family == family


def test_our_own_config_from_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    save_model(random_model(small_config()), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["fangcun"]["n_dimensions"] = 3
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"fangcun\.n_dimensions"):
        read_config(tmp_path)


def test_a_model_that_its_family_cannot_express_is_not_written(tmp_path: Path) -> None:
    config = small_config(exportable=False, logit_softcap=5.0)
    config.exportable = True
    model = Transformer(config)
    initialize(model, 0)
    with pytest.raises(ConfigError, match="logit_softcap is 5"):
        save_model(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_learned_positions_cannot_be_exceeded_and_rotary_ones_can() -> None:
    gpt2 = small_config(family="gpt2", n_query_groups=None, **GPT2)
    with pytest.raises(FangcunError, match=r"block_size \(24\)"):
        random_model(gpt2)(random_ids(gpt2, length=25))
    config = small_config()
    ids = random_ids(config, length=60)
    longer = random_model(small_config(block_size=64))
    assert torch.equal(random_model(config)(ids), longer(ids))


def test_what_was_loaded_does_not_hang_on_the_file(tmp_path: Path) -> None:
    model = random_model(small_config())
    save_model(model, tmp_path)
    file = tmp_path / "model.safetensors"
    back, tensors = load_model(tmp_path), read_tensors(file)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    with open(file, "r+b") as opened:  # in place: a mapped file would change under the model
        opened.write(b"\xff" * file.stat().st_size)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))
    assert all(torch.equal(tensors[name], before[name]) for name in before)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 2 kB in this process."""
    resource = pytest.importorskip("resource", reason="the size of files can be limited on Unix only")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_while_weights_are_written_is_one_sentence(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(FangcunError, match=r"cannot write .*model\.safetensors: .*disk full\?"):
        save_model(random_model(small_config()), tmp_path)
    with pytest.raises(FangcunError, match=r"cannot write .*state\.safetensors: .*disk full\?"):
        write_tensors({"moment": torch.ones(5000)}, tmp_path / "state.safetensors")


def test_tensors_come_back_bitwise_and_a_torn_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    write_tensors({"moment": torch.arange(6.0), "step": torch.tensor(3)}, file)
    back = read_tensors(file)
    assert torch.equal(back["moment"], torch.arange(6.0)) and int(back["step"]) == 3
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FangcunError, match=r"state\.safetensors cannot be read"):
        read_tensors(file)


def test_rows_beyond_the_tokenizer_are_suppressed_in_generation(tmp_path: Path) -> None:
    model = random_model(small_config())
    rows, ids = model.config.padded_vocab_size, model.config.vocab_size
    assert rows is not None and ids is not None
    for given, first in ((None, ids), (ids - 3, ids - 3), (rows, rows)):
        save_model(model, tmp_path, vocab_size=given)
        generation = json.loads((tmp_path / "generation_config.json").read_text())
        assert generation.get("suppress_tokens", []) == list(range(first, rows))
