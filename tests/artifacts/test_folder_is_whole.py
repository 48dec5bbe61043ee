"""An artefact folder is whole or not there, and readers refuse what they do not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fangcun.artifacts import Manifest, describe_inputs, fingerprint, read_manifest, remove_stale, write_artifact
from fangcun.errors import FangcunError


def write(path: Path, text: str) -> None:
    with write_artifact(path, Manifest("corpus", fingerprint="f")) as folder:
        (folder / "data.txt").write_text(text, encoding="utf-8")
        (folder / "deep").mkdir()
        (folder / "deep" / "more.txt").write_text("more", encoding="utf-8")


def test_written_folder_reads_back_with_hashes(tmp_path: Path) -> None:
    write(tmp_path / "corpus", "text")
    manifest = read_manifest(tmp_path / "corpus", "corpus", verify=True)
    assert set(manifest.files) == {"data.txt", "deep/more.txt"}
    assert manifest.files["data.txt"]["size_bytes"] == 4


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "corpus", "old")
    with pytest.raises(RuntimeError), write_artifact(tmp_path / "corpus", Manifest("corpus")) as folder:
        (folder / "data.txt").write_text("new", encoding="utf-8")
        raise RuntimeError("the power went")
    assert (tmp_path / "corpus" / "data.txt").read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_a_rebuilt_folder_replaces_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "corpus", "old")
    write(tmp_path / "corpus", "newer")
    assert (tmp_path / "corpus" / "data.txt").read_text(encoding="utf-8") == "newer"
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: (f / "data.txt").unlink(), "missing"),
        (lambda f: (f / "data.txt").write_text("texts"), "bytes"),
        (lambda f: (f / "manifest.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "manifest.json").unlink(), "no manifest.json"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, expected: str) -> None:
    write(tmp_path / "corpus", "text")
    damage(tmp_path / "corpus")
    with pytest.raises(FangcunError, match=expected):
        read_manifest(tmp_path / "corpus", "corpus")


def test_changed_bytes_of_equal_size_are_found_by_verify(tmp_path: Path) -> None:
    write(tmp_path / "corpus", "text")
    (tmp_path / "corpus" / "data.txt").write_text("tent", encoding="utf-8")
    read_manifest(tmp_path / "corpus", "corpus")
    with pytest.raises(FangcunError, match="sha256"):
        read_manifest(tmp_path / "corpus", "corpus", verify=True)


def test_another_kind_and_a_future_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "corpus", "text")
    with pytest.raises(FangcunError, match="holds a corpus, expected a tokens"):
        read_manifest(tmp_path / "corpus", "tokens")
    file = tmp_path / "corpus" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"format_version": 99}), encoding="utf-8")
    with pytest.raises(FangcunError, match="format version 99"):
        read_manifest(tmp_path / "corpus", "corpus")


def test_input_hashes_are_reused_only_for_untouched_files(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one", encoding="utf-8")
    first = describe_inputs([file])
    poisoned = [first[0] | {"sha256": "from the cache"}]
    assert describe_inputs([file], poisoned)[0]["sha256"] == "from the cache"
    file.write_text("three", encoding="utf-8")
    assert describe_inputs([file], poisoned)[0]["sha256"] not in ("from the cache", first[0]["sha256"])


def test_fingerprint_depends_on_content_not_on_key_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_stale_temporary_folders_are_removed(tmp_path: Path) -> None:
    write(tmp_path / "corpus", "text")
    (tmp_path / "tokens.tmp-123").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.tmp-9").mkdir()
    (tmp_path / "recipe.yaml.tmp-7").write_text("x", encoding="utf-8")
    assert len(remove_stale(tmp_path)) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "corpus"]
