"""`find_weights` takes a run, a checkpoint or a Hugging Face folder, and never a torn checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangcun.artifacts import Manifest, checkpoint_name, find_weights, list_checkpoints, write_artifact
from fangcun.errors import FangcunError


def checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / checkpoint_name(step)
    with write_artifact(folder, Manifest("checkpoint")) as temporary:
        (temporary / "config.json").write_text("{}")
    return folder


def test_newest_complete_checkpoint_wins(tmp_path: Path) -> None:
    checkpoint(tmp_path, 900)
    newest = checkpoint(tmp_path, 1000)
    (tmp_path / "checkpoints" / "step-00002000").mkdir()  # torn: no manifest
    (tmp_path / "checkpoints" / "step-00003000.tmp-1").mkdir()
    assert find_weights(tmp_path) == newest
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000900", "step-00001000"]
    assert find_weights(newest) == newest


def test_plain_hugging_face_folder_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert find_weights(tmp_path) == tmp_path


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match="does not exist"):
        find_weights(tmp_path / "nowhere")
    with pytest.raises(FangcunError, match="is no model"):
        find_weights(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(FangcunError, match="no complete checkpoint"):
        find_weights(tmp_path)


def test_a_checkpoint_copied_without_its_training_state_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / checkpoint_name(5)
    with write_artifact(folder, Manifest("checkpoint")) as temporary:
        (temporary / "config.json").write_text("{}")
        (temporary / "training_state").mkdir()
        (temporary / "training_state" / "optimizer.safetensors").write_text("x")
    (folder / "training_state" / "optimizer.safetensors").unlink()
    assert find_weights(folder) == folder
    (folder / "config.json").write_text("{ }")
    with pytest.raises(FangcunError, match="Use another checkpoint"):
        find_weights(folder)
