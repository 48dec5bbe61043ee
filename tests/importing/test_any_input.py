"""Whatever stands in a configuration or a checkpoint, the answer is a model, a recipe or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from folders import huggingface_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapes import FAMILIES
from test_litgpt_checkpoints import NEOX, from_neox, litgpt_config, write
from test_nanogpt_checkpoints import SHAPE, weights_of, write_checkpoint

from fangcun.config import load_recipe
from fangcun.config.nanogpt_tables import DEFAULTS
from fangcun.errors import FangcunError
from fangcun.importing import read_config_json, read_litgpt, read_nanogpt
from fangcun.importing.recipe import render_recipe

ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.floats(-1e4, 1e4)
    | st.sampled_from([float("nan"), float("inf")])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answers(call: Any, *arguments: Any) -> Any:
    """The result, or None for a sentence; anything else that is raised is a bug."""
    try:
        return call(*arguments)
    except FangcunError as error:
        assert str(error)
        return None


@pytest.fixture(scope="module")
def config_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The config.json of a folder of each family, as transformers writes it."""
    found = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        huggingface_folder(folder, family)
        found[family] = json.loads((folder / "hf/config.json").read_text(encoding="utf-8"))
    return found


@settings(MANY, max_examples=25)
@given(data=st.data())
def test_any_value_in_a_config_json(data: st.DataObject, config_files: dict, tmp_path: Path) -> None:
    raw = dict(config_files[data.draw(st.sampled_from(FAMILIES))])
    for key in data.draw(st.lists(st.sampled_from([*raw, "rope_scaling", "rotary_pct", "sliding_window"]), max_size=2)):
        raw[key] = data.draw(ANY)
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    found = answers(read_config_json, tmp_path / "config.json")
    if found is not None:
        (tmp_path / "r.yaml").write_text(render_recipe(*found), encoding="utf-8")
        assert load_recipe(tmp_path / "r.yaml").recipe == found[0]


@MANY
@given(data=st.data())
def test_any_value_in_a_nanogpt_file(data: st.DataObject, tmp_path: Path) -> None:
    names = data.draw(st.lists(st.sampled_from(list(DEFAULTS)), min_size=1, max_size=4))
    lines = [f"{name} = {data.draw(ANY)!r}" for name in names]
    (tmp_path / "a.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    answers(load_recipe, tmp_path / "a.py")


@MANY
@given(text=st.text(max_size=60))
def test_any_text_as_a_nanogpt_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text("n_layer = 2\n" + text, encoding="utf-8", errors="ignore")
    answers(load_recipe, tmp_path / "a.py")


@MANY
@given(data=st.data())
def test_any_value_in_the_arguments_of_a_nanogpt_checkpoint(data: st.DataObject, tmp_path: Path) -> None:
    shape = dict(SHAPE)
    shape[data.draw(st.sampled_from([*SHAPE, "bias"]))] = data.draw(ANY)
    file = write_checkpoint(tmp_path / "ckpt.pt", weights_of(SHAPE, False), shape)
    answers(read_nanogpt, file)


@pytest.fixture(scope="module")
def litgpt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lit")
    theirs = huggingface_folder(folder, "gpt_neox", n_head=4, n_embd=32, bias=True, tie_embeddings=False)
    return write(folder / "lit", litgpt_config(theirs, **NEOX), from_neox(theirs, grouped=True))


@MANY
@given(data=st.data())
def test_any_value_in_a_litgpt_configuration(data: st.DataObject, litgpt_folder: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((litgpt_folder / "model_config.yaml").read_text(encoding="utf-8"))
    raw[data.draw(st.sampled_from([*raw, "norm_qk", "rope_adjustments", "attn_bias", "head_size"]))] = data.draw(ANY)
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    link = tmp_path / "lit_model.pth"
    if not link.exists():
        link.write_bytes((litgpt_folder / "lit_model.pth").read_bytes())
    answers(read_litgpt, tmp_path)


@MANY
@given(content=st.binary(max_size=200))
def test_any_bytes_as_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ckpt.pt").write_bytes(content)
    assert answers(read_nanogpt, tmp_path / "ckpt.pt") is None


@MANY
@given(data=st.data())
def test_a_checkpoint_with_changed_bytes(data: st.DataObject, tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}, "model_args": {"n_layer": 1}}, tmp_path / "good.pt")
    content = bytearray((tmp_path / "good.pt").read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "ckpt.pt").write_bytes(bytes(content))
    assert answers(read_nanogpt, tmp_path / "ckpt.pt") is None
