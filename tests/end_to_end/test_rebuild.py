"""A changed setting: what it changes and costs is said first, long rebuilds are asked about, what stood there is kept."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import on_terminal
from tiny import fangcun, story, tiny_flags, write_story

from fangcun import corpus as corpus_room
from fangcun.artifacts import TIMINGS, previous_of, read_manifest
from fangcun.config import load_recipe
from fangcun.console import Console
from fangcun.errors import FangcunError
from fangcun.pipeline import run

STAGES = ("corpus", "tokenizer", "tokens")
CHANGED = ("--corpus.val_share", "0.3")


def pack(text: Path, out: Path, *flags: str, verb: str = "pack", yes: bool = False) -> list[str]:
    """`fangcun pack` in this process; what it said, by line."""
    said = io.StringIO()
    loaded = load_recipe("demo", tiny_flags("--text", str(text), "--out", str(out), *flags))
    assert run(loaded, verb=verb, yes=yes, console=Console(said)) == 0  # type: ignore[arg-type]
    return said.getvalue().splitlines()


def took(out: Path, **seconds: float) -> None:
    """Let the stages have taken this long."""
    timings = json.loads((out / TIMINGS).read_text(encoding="utf-8"))
    for stage, value in seconds.items():
        timings[stage]["seconds"] = value
    (out / TIMINGS).write_text(json.dumps(timings), encoding="utf-8")


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fingerprints(out: Path, *, previous: bool = False) -> list[str]:
    folders = {stage: out / stage for stage in STAGES}
    return [read_manifest(previous_of(f) if previous else f, stage, verify=True).fingerprint for stage, f in folders.items()]  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """(text, a run folder with the three artefacts)."""
    text = write_story(tmp_path)
    pack(text, tmp_path / "run")
    return text, tmp_path / "run"


def test_what_changed_and_what_it_costs_is_said_before_any_work(made: tuple[Path, Path]) -> None:
    text, out = made
    took(out, corpus=200, tokenizer=90, tokens=250)
    lines = pack(text, out, *CHANGED)
    assert lines[:4] == [
        "corpus     made anew: val_share null → 0.3 (about 3 min; took 3 min last time)",
        "tokenizer  made anew: the corpus changed (about 90 s; took 90 s last time)",
        "tokens     made anew: the corpus changed; the tokenizer changed (about 4 min; took 4 min last time)",
        "in all     about 9 min",
    ]
    assert list(dict.fromkeys(line.split()[0] for line in lines[4:] if not line.startswith(" "))) == [*STAGES, "done"]


def test_twice_the_text_costs_twice_the_time(made: tuple[Path, Path]) -> None:
    text, out = made
    took(out, corpus=205, tokenizer=25, tokens=105)
    more = story() + story()
    text.write_text(more, encoding="utf-8", newline="\n")
    said = "\n".join(pack(text, out, yes=True))
    assert "has other content (about 7 min; took 3 min last time)" in said  # 5 + 2 * 200 s
    assert "the corpus changed (about 45 s; took 25 s last time)" in said
    assert "in all     about 11 min" in said or "in all     about 10 min" in said


def test_a_rebuild_leaves_the_bytes_of_a_fresh_build_and_keeps_what_stood_there(made: tuple[Path, Path]) -> None:
    text, out = made
    before, old = fingerprints(out), content(out / "corpus")
    lines = pack(text, out, *CHANGED)
    pack(text, out.parent / "fresh", *CHANGED)
    for stage in STAGES:
        assert content(out / stage) == content(out.parent / "fresh" / stage)
    assert fingerprints(out, previous=True) == before
    assert content(out / "corpus.previous") == old
    size = sum(len(each) for name, each in old.items() if name != "manifest.json")
    assert f"           the one before is kept as {out / 'corpus.previous'} ({size / 1000:.1f} kB); it may be deleted" in lines  # fmt: skip


def test_settings_put_back_exchange_the_artefacts_and_make_nothing(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, out = made
    first = fingerprints(out)
    pack(text, out, *CHANGED)
    second = fingerprints(out)
    took(out, corpus=5000, tokenizer=5000, tokens=5000)

    def never(*given: object, **named: object) -> None:
        raise AssertionError("something was made")

    monkeypatch.setattr("fangcun.corpus.build_corpus", never)
    monkeypatch.setattr("fangcun.tokenizer.build_tokenizer", never)
    monkeypatch.setattr("fangcun.tokens.pack", never)
    lines = pack(text, out)
    for stage in STAGES:
        assert any(line.startswith(f"{stage:<10} put back, not made anew: ") for line in lines), lines
    assert (fingerprints(out), fingerprints(out, previous=True)) == (first, second)
    pack(text, out, *CHANGED)
    assert (fingerprints(out), fingerprints(out, previous=True)) == (second, first)


def test_a_change_undone_half_way_leaves_the_later_stages_alone(made: tuple[Path, Path]) -> None:
    text, out = made
    first = fingerprints(out)
    pack(text, out, *CHANGED, verb="corpus")
    lines = pack(text, out)
    assert fingerprints(out) == first
    assert [line.split()[1] for line in lines if line.startswith(STAGES)] == ["put", "done", "done"]
    assert not (out / "tokens.previous").exists()


@pytest.mark.parametrize("damage", ["a file", "the manifest", "other content"])
def test_a_kept_artefact_that_is_not_whole_is_not_put_back(made: tuple[Path, Path], damage: str) -> None:
    text, out = made
    first = fingerprints(out)
    pack(text, out, *CHANGED)
    if damage == "a file":
        (out / "corpus.previous" / "train-00000.jsonl.zst").unlink()
    elif damage == "the manifest":
        (out / "corpus.previous" / "manifest.json").write_text("{")
    else:
        (out / "corpus.previous" / "train-00000.jsonl.zst").write_bytes(b"x")
    lines = pack(text, out)
    assert any(line.startswith("corpus     made anew") for line in lines)
    assert fingerprints(out) == first


def test_without_a_terminal_a_long_rebuild_is_refused_and_nothing_is_changed(made: tuple[Path, Path]) -> None:
    text, out = made
    took(out, corpus=400, tokens=300)
    before = content(out)
    with pytest.raises(FangcunError, match=r"takes about 12 min, .* Nothing was changed\. .* --yes\. .* --out NEW"):
        pack(text, out, *CHANGED)
    assert content(out) == before
    pack(text, out, *CHANGED, yes=True)
    assert previous_of(out / "tokens").is_dir()


def test_only_what_this_command_makes_is_counted(made: tuple[Path, Path]) -> None:
    text, out = made
    took(out, corpus=400, tokens=300)
    pack(text, out, *CHANGED, verb="corpus")


def test_where_the_time_is_not_known_that_is_said_and_nobody_is_asked(made: tuple[Path, Path]) -> None:
    text, out = made
    (out / TIMINGS).unlink()
    lines = pack(text, out, *CHANGED)
    assert lines[0] == "corpus     made anew: val_share null → 0.3 (how long it takes is not known)"
    assert not any(line.startswith("in all") for line in lines)


def test_a_stage_that_is_only_missing_is_made_without_a_word(made: tuple[Path, Path]) -> None:
    text, out = made
    took(out, corpus=5000, tokens=5000)
    for file in (out / "tokens").iterdir():
        file.unlink()
    lines = pack(text, out)
    assert not any("made" in line for line in lines)


def test_another_way_of_making_a_tokenizer_has_another_cost(made: tuple[Path, Path]) -> None:
    text, out = made
    took(out, tokenizer=5000)
    flags = tiny_flags("--text", str(text), "--out", str(out), "--tokenizer.kind", "char", leave_out="--tokenizer.vocab_size")  # fmt: skip
    said = io.StringIO()
    assert run(load_recipe("demo", flags), verb="tokenizer", console=Console(said)) == 0
    assert "how long it takes is not known" in said.getvalue()


def test_a_stage_that_fails_leaves_what_stood_there(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    text, out = made
    before = {stage: content(out / stage) for stage in STAGES}
    build = corpus_room.build_corpus

    def fails(*given, progress: Callable[[int, int], None], **named) -> None:
        def stop(done: int, total: int) -> None:
            raise FangcunError("the disk is full")

        build(*given, progress=stop, **named)

    monkeypatch.setattr("fangcun.corpus.build_corpus", fails)
    with pytest.raises(FangcunError, match="the disk is full"):
        pack(text, out, *CHANGED)
    assert {stage: content(out / stage) for stage in STAGES} == before
    assert not list(out.glob("*.previous")) and not list(out.glob("*.tmp-*"))


def test_a_rebuild_that_was_cut_short_costs_the_rest_and_is_remembered_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, out = tmp_path / "lines.jsonl", tmp_path / "run"
    lines = [json.dumps({"text": story(seed, 20)}, ensure_ascii=False) for seed in range(60)]
    text.write_text("\n".join(lines), encoding="utf-8")
    pack(text, out, verb="corpus")
    took(out, corpus=1000)
    with monkeypatch.context() as patched:
        patched.setattr("fangcun.corpus.work.PART_CHARACTERS", 5000)
        patched.setattr("fangcun.corpus.process._BATCH_DOCUMENTS", 7)
        patched.setattr("fangcun.corpus.work.Work.finish", _interrupt)
        loaded = load_recipe("demo", tiny_flags("--text", str(text), "--out", str(out), *CHANGED))
        assert run(loaded, verb="corpus", yes=True, console=Console(io.StringIO())) == 130
    assert (out / "corpus.work").is_dir()
    timings = json.loads((out / TIMINGS).read_text(encoding="utf-8"))
    timings["corpus"]["unfinished"]["seconds"] = 600
    (out / TIMINGS).write_text(json.dumps(timings), encoding="utf-8")
    lines = pack(text, out, *CHANGED, verb="corpus")  # 400 s are left, of which nobody is asked
    assert lines[0] == "corpus     made anew: val_share null → 0.3 (about 7 min; took 17 min last time)"
    assert any("going on from" in line for line in lines)
    assert 600 < json.loads((out / TIMINGS).read_text(encoding="utf-8"))["corpus"]["seconds"] < 700
    assert previous_of(out / "corpus").is_dir()


DIES = """
import os, sys
from pathlib import Path
from fangcun.cli import main
left, rename = int(sys.argv[1]), Path.rename
def dying(self, target):
    global left
    if "corpus" in self.name:
        left -= 1
        if left == 0:
            os._exit(9)
    done = rename(self, target)
    if "corpus" in self.name:
        left -= 1
        if left == 0:
            os._exit(9)
    return done
Path.rename = dying
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("step", range(1, 8))
def test_killed_at_any_rename_the_next_start_has_what_is_wanted_and_the_one_after_it_too(
    made: tuple[Path, Path], step: int
) -> None:
    text, out = made
    first = fingerprints(out)
    words = ["pack", "demo", *tiny_flags("--text", str(text), "--out", str(out), *CHANGED)]
    done = subprocess.run([sys.executable, "-c", DIES, str(step), *words], capture_output=True, timeout=60, check=False)
    assert done.returncode == (9 if step < 7 else 0), done.stderr
    if step % 2:
        pack(text, out)
        assert fingerprints(out) == first
    pack(text, out, *CHANGED)
    second = fingerprints(out)
    assert second != first and fingerprints(out, previous=True) == first
    pack(text, out)
    assert (fingerprints(out), fingerprints(out, previous=True)) == (first, second)


def _interrupt(*given: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize(
    ("typed", "code"), [(b"y\n", 0), ("是\n".encode(), 0), (b"\n", 1), (b"n\n", 1), (b"\x04", 1), (b"\x03", 130)]
)
def test_on_a_terminal_it_is_asked_and_only_yes_is_yes(made: tuple[Path, Path], typed: bytes, code: int) -> None:
    text, out = made
    took(out, corpus=1500)
    before = content(out)
    found, shown = on_terminal(["corpus", "demo", *tiny_flags("--text", str(text), "--out", str(out), *CHANGED)], typed)
    assert "corpus     made anew: val_share null → 0.3 (about 25 min; took 25 min last time)" in shown
    assert f"Make corpus in {out} anew?" in shown and "[y/N]" in shown
    assert found == code, shown
    assert "Traceback" not in shown
    if code == 0:
        assert (out / "corpus.previous").is_dir()
    else:
        assert "Nothing was changed. To go on: the same command with --yes." in shown and "--out NEW" in shown
        assert content(out) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_torchrun_on_a_terminal_does_not_ask(made: tuple[Path, Path]) -> None:
    text, out = made
    took(out, corpus=1500)
    words = ["corpus", "demo", *tiny_flags("--text", str(text), "--out", str(out), *CHANGED)]
    code, shown = on_terminal(words, b"", TORCHELASTIC_RUN_ID="none")
    assert code == 1 and "there is no terminal to ask at" in shown and "[y/N]" not in shown


def test_yes_is_a_word_of_the_command_and_not_of_the_recipe(made: tuple[Path, Path]) -> None:
    text, out = made
    took(out, corpus=1500)
    flags = tiny_flags("--text", str(text), "--out", str(out), *CHANGED)
    refused = fangcun("corpus", "demo", *flags)
    assert refused.returncode == 1 and "--yes" in refused.stderr and "Traceback" not in refused.stderr
    done = fangcun("corpus", "demo", *flags, "--yes")
    assert done.returncode == 0, done.stderr
    assert "yes" not in (out / "recipe.yaml").read_text(encoding="utf-8").split()


def test_what_an_unwanted_rebuild_has_left_goes(made: tuple[Path, Path]) -> None:
    text, out = made
    (out / "corpus.work").mkdir()
    (out / "corpus.work" / "part-00000.jsonl.zst").write_bytes(b"much")
    pack(text, out)
    assert not (out / "corpus.work").exists()
