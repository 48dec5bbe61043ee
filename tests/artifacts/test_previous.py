"""What a rebuild replaces is kept for one generation, can be put back, and survives a kill at every step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fangcun.artifacts import (
    MANIFEST,
    Manifest,
    keep_replaced,
    previous_of,
    put_back,
    read_manifest,
    remove_stale,
    write_artifact,
)
from fangcun.errors import FangcunError


def write(path: Path, made_from: str, kind: str = "corpus") -> None:
    with write_artifact(path, Manifest(kind, fingerprint=made_from)) as folder:
        (folder / "a.txt").write_text(f"{made_from} a", encoding="utf-8")
        (folder / "b.txt").write_text(f"{made_from} b", encoding="utf-8")


def rebuild(path: Path, made_from: str) -> None:
    with keep_replaced():
        write(path, made_from)


def whole(path: Path) -> str | None:
    """What the artefact at `path` was made from, None where there is none. It must be whole."""
    if not os.path.lexists(path):
        return None
    found = read_manifest(path, "corpus", verify=True).fingerprint
    assert (path / "a.txt").read_text(encoding="utf-8") == f"{found} a"
    return found


def both(path: Path) -> tuple[str | None, str | None]:
    return whole(path), whole(previous_of(path))


def test_a_rebuild_keeps_one_generation(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    for made_from, kept in (("first", None), ("second", "first"), ("third", "second")):
        rebuild(path, made_from)
        assert both(path) == (made_from, kept)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "corpus.previous"]


def test_made_again_from_the_same_or_without_being_asked_to_keep_nothing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    rebuild(path, "first")
    rebuild(path, "first")
    write(path, "second")
    assert both(path) == ("second", None)


def test_put_back_exchanges_the_two_any_number_of_times(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    rebuild(path, "first")
    rebuild(path, "second")
    for expected in (("first", "second"), ("second", "first"), ("first", "second")):
        put_back(path)
        assert both(path) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "corpus.previous"]


def test_put_back_where_nothing_stands_only_moves(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    rebuild(path, "first")
    rebuild(path, "second")
    shutil.rmtree(path)
    put_back(path)
    assert both(path) == ("first", None)


def test_a_failed_rebuild_touches_neither(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    rebuild(path, "first")
    rebuild(path, "second")
    with pytest.raises(KeyboardInterrupt), keep_replaced(), write_artifact(path, Manifest("corpus", "third")):
        raise KeyboardInterrupt
    assert both(path) == ("second", "first")


@pytest.mark.parametrize("kind", [None, "tokens"])
def test_what_is_not_ours_under_the_name_of_the_kept_is_never_replaced(tmp_path: Path, kind: str | None) -> None:
    path = tmp_path / "corpus"
    write(path, "first")
    previous_of(path).mkdir()
    (previous_of(path) / "novel.txt").write_text("ten years of work")
    if kind:
        (previous_of(path) / MANIFEST).write_text('{"kind": "tokens", "format_version": 1}')
    expected = r"corpus\.previous is not empty and no corpus of Fangcun's: nothing was changed"
    with pytest.raises(FangcunError, match=expected), keep_replaced(), write_artifact(path, Manifest("corpus", "new")):
        raise AssertionError("the work began")
    assert (previous_of(path) / "novel.txt").read_text() == "ten years of work"
    assert whole(path) == "first"


def test_a_link_to_another_disk_is_kept_as_a_link(tmp_path: Path) -> None:
    run, disk = tmp_path / "run", tmp_path / "disk"
    run.mkdir()
    write(disk / "corpus", "first")
    (run / "corpus").symlink_to(disk / "corpus", target_is_directory=True)
    rebuild(run / "corpus", "second")
    assert both(run / "corpus") == ("second", "first")
    assert previous_of(run / "corpus").is_symlink()
    rebuild(run / "corpus", "third")
    assert whole(disk / "corpus") == "first"  # only the link was replaced


class Killed:
    """Ends the process at its n-th step: before a rename, after it, or in the middle of a deletion."""

    def __init__(self, step: int) -> None:
        self.left = step

    def pass_by(self) -> None:
        if self.left == 0:
            os._exit(9)
        self.left -= 1

    def install(self) -> None:
        rename, rmtree = Path.rename, shutil.rmtree

        def killed_rename(path: Path, target: Path) -> Path:
            self.pass_by()
            done = rename(path, target)
            self.pass_by()
            return done

        def killed_rmtree(path: Path, **how: bool) -> None:
            self.pass_by()
            files = sorted(Path(path).rglob("*.txt"))
            if files:
                files[0].unlink()
            self.pass_by()
            rmtree(path, **how)

        Path.rename, shutil.rmtree = killed_rename, killed_rmtree  # type: ignore[assignment,method-assign]


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a copy of this process that is killed at `step`; False when it had come to its end before."""
    child = os.fork()
    if child == 0:
        try:
            Killed(step).install()
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def start_over(folder: Path, build: Callable[[Path], None]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    build(folder / "corpus")
    return folder / "corpus"


def three_generations(path: Path) -> None:
    rebuild(path, "older")
    rebuild(path, "old")


WORKS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], set[tuple[str | None, str | None]]]] = {
    "the first rebuild": (
        lambda path: write(path, "old"), lambda path: rebuild(path, "new"), {("old", None), ("new", "old")},
    ),
    "a rebuild over a kept one": (
        three_generations, lambda path: rebuild(path, "new"), {("old", "older"), ("new", "old")},
    ),
    "putting back": (
        three_generations, put_back, {("old", "older"), ("older", "old")},
    ),
    "the same again": (
        three_generations, lambda path: rebuild(path, "old"), {("old", "older")},
    ),
}  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")
@pytest.mark.parametrize("name", WORKS)
def test_killed_at_any_step_and_again_while_clearing_up_a_whole_artefact_stands(tmp_path: Path, name: str) -> None:
    before, work, allowed = WORKS[name]
    seen, step = set(), 0
    while True:
        path = start_over(tmp_path / "run", before)
        if not killed_at(step, lambda path=path: work(path)):
            break
        again = 0
        while True:  # the next start is killed too, and the one after it
            interrupted = killed_at(again, lambda path=path: remove_stale(path.parent))
            if not interrupted:
                break
            again += 1
        remove_stale(path.parent)
        found = both(path)
        assert found in allowed, f"killed at step {step}"
        assert {p.name for p in path.parent.iterdir()} <= {"corpus", "corpus.previous"}
        seen.add(found)
        step += 1
    assert both(path) in allowed
    assert (step > 2 and seen == allowed) or name == "the same again"


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")
def test_a_torn_copy_under_the_name_of_a_dead_writer_never_becomes_the_kept_one(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    write(path, "old")
    for name in ("corpus.tmp-old-7", "corpus.tmp-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("half")
    remove_stale(tmp_path)
    assert both(path) == ("old", None)
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]
