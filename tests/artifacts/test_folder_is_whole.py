"""An artefact folder is whole or not there, and readers refuse what they do not know."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
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
    (tmp_path / "metrics.jsonl.tmp-7").write_text("x", encoding="utf-8")
    (tmp_path / "writer.lock.7").write_text("x", encoding="utf-8")
    assert len(remove_stale(tmp_path)) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "corpus"]


def test_what_no_writer_of_ours_makes_is_never_removed(tmp_path: Path) -> None:
    kept = [
        "notes.tmp-1", "corpus.tmp-backup", "corpus.tmp-1.txt", "draft.txt.tmp-3", "writer.lock.old", "thesis/tokens.tmp-2/a",
        "checkpoints/notes.tmp-1", "checkpoints/step-00000001/x.jsonl.tmp-4", "checkpoints/step-00000001.tmp-mine",
    ]  # fmt: skip
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    assert remove_stale(tmp_path) == []
    assert all((tmp_path / name).read_text() == "mine" for name in kept)


def test_a_link_among_stale_names_is_removed_and_what_it_points_to_is_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "novel.txt").write_text("mine")
    (tmp_path / "run" / "corpus.tmp-5").symlink_to(tmp_path, target_is_directory=True)
    assert remove_stale(tmp_path / "run") == [tmp_path / "run" / "corpus.tmp-5"]
    assert list((tmp_path / "run").iterdir()) == [] and (tmp_path / "novel.txt").is_file()


@pytest.mark.parametrize(
    "manifest", [None, '{"name": "a web app"}', '{"kind": "tokens", "format_version": 1}', "{,", "[]"]
)
def test_a_folder_that_is_not_ours_is_never_replaced_and_no_work_is_begun(tmp_path: Path, manifest: str | None) -> None:
    mine = tmp_path / "corpus"
    mine.mkdir()
    (mine / "novel.txt").write_text("ten years of work")
    if manifest is not None:
        (mine / "manifest.json").write_text(manifest)
    expected = r"corpus is not empty and no corpus of Fangcun's: nothing was changed"
    with pytest.raises(FangcunError, match=expected), write_artifact(mine, Manifest("corpus")):
        raise AssertionError("the work began")
    assert (mine / "novel.txt").read_text() == "ten years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_a_folder_that_appears_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(FangcunError, match="nothing was changed"),
        write_artifact(tmp_path / "tokens", Manifest("tokens")),
    ):
        (tmp_path / "tokens").mkdir()
        (tmp_path / "tokens" / "mine.txt").write_text("mine")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["tokens", "tokens/mine.txt"]


@pytest.mark.parametrize("torn", ["", "{", '{\n "kind": "cor', '{\n "kind": "corpus",\n "finger', "\0\0\0"])
def test_an_empty_folder_and_one_with_a_torn_manifest_are_replaced(tmp_path: Path, torn: str) -> None:
    (tmp_path / "corpus").mkdir()
    write(tmp_path / "corpus", "first")
    (tmp_path / "corpus" / "manifest.json").write_text(torn)
    write(tmp_path / "corpus", "second")
    assert (tmp_path / "corpus" / "data.txt").read_text() == "second"


def test_the_old_folder_is_put_back_when_the_new_one_cannot_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "corpus", "old")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == f"corpus.tmp-{os.getpid()}":
            raise PermissionError(errno.EACCES, "in use by another process", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        write(tmp_path / "corpus", "new")
    assert (tmp_path / "corpus" / "data.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path / "corpus", "old")
    code = "import os, sys; from pathlib import Path; from fangcun.artifacts import Manifest, write_artifact\n"
    code += "rename = Path.rename\n"
    code += "def first_only(self, target):\n    rename(self, target)\n    os.kill(os.getpid(), 9)\n"
    code += "with write_artifact(Path(sys.argv[1]), Manifest('corpus')):\n    Path.rename = first_only\n"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "corpus")], check=False)
    assert not (tmp_path / "corpus").exists()
    remove_stale(tmp_path)
    assert (tmp_path / "corpus" / "data.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_a_checkpoint_that_was_being_deleted_does_not_come_back(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "step-00000002.tmp-old").mkdir(parents=True)
    moved_aside = checkpoints / "step-00000004.tmp-old-77"
    moved_aside.mkdir()
    assert remove_stale(tmp_path) == [checkpoints / "step-00000002.tmp-old"]
    assert [p.name for p in checkpoints.iterdir()] == ["step-00000004"]
