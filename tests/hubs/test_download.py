"""A download is what the hub has, byte for byte, checked, and fetched once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, FILES, NAME, HubServer, noise, sha256

from fangcun import cli
from fangcun.corpus.files import list_files
from fangcun.errors import ConfigError, FangcunError
from fangcun.hubs import Download, download, modelscope, read_record
from fangcun.tokenizer import import_tokenizer, train_bpe

SAFE = {
    name: content for name, content in FILES.items() if name not in (".gitattributes", "pytorch_model.bin", "load.py")
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a download but its record."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path != folder / "download.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def fetch(source: str = "huggingface", **settings: object) -> Download:
    return download(NAME, source=source, **settings)  # type: ignore[arg-type]


def test_without_a_source_an_error_lists_them_and_nobody_is_contacted(
    hub: HubServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["download", NAME]) == 2
    shown = capsys.readouterr().err
    assert "--source modelscope, --source hf-mirror, --source huggingface" in shown and "nothing was contacted" in shown
    assert hub.requests == [] and list(tmp_path.iterdir()) == []


def test_what_comes_is_what_the_hub_has(hub: HubServer, source: str) -> None:
    done = fetch(source)
    assert done.folder == Path("downloads/owner/name")
    assert contents(done.folder) == SAFE
    assert sorted(done.fetched) == sorted(SAFE)


def test_the_record_tells_where_each_file_is_from_and_what_it_is(hub: HubServer, source: str) -> None:
    record = json.loads((fetch(source).folder / "download.json").read_text(encoding="utf-8"))
    assert (record["source"], record["endpoint"], record["name"]) == (source, hub.address, NAME)
    assert record["commit"] == COMMIT and record["revision"] == {"huggingface": "main", "modelscope": "master"}[source]
    assert {name: (f["size_bytes"], f["sha256"]) for name, f in record["files"].items()} == {
        name: (len(content), sha256(content)) for name, content in SAFE.items()
    }
    ways = {name: entry["checked_by"] for name, entry in record["files"].items()}
    in_git = "git-sha1" if source == "huggingface" else "sha256"
    assert ways == {name: "sha256" if name in hub.large else in_git for name in SAFE}


def test_a_listing_of_many_pages_is_read_to_its_end_on_the_mirror_itself(hub: HubServer, source: str) -> None:
    """The links to the next page lead to huggingface.co, as hf-mirror.com passes them on: following one would fail here."""
    hub.files = {f"data/{number:04}.txt": b"%d" % number for number in range(450)}
    hub.page_files = 100
    done = fetch("hf-mirror" if source == "huggingface" else source)
    assert contents(done.folder) == hub.files


def test_a_model_with_more_files_than_one_answer_holds_is_listed_by_folders(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelscope, "MODEL_LISTING_LIMIT", 10)
    hub.kind, hub.listing_limit = "model", 10
    hub.files = {f"{a}/{b}/{c}.txt": f"{a}{b}{c}".encode() for a in "abc" for b in "de" for c in range(4)} | {
        "x.txt": b"x"
    }
    assert contents(fetch("modelscope", kind="model").folder) == hub.files
    hub.files |= {f"a/d/{number}.json": b"" for number in range(20)}
    with pytest.raises(FangcunError, match="lists at most 10 files of a folder, and a/d has more"):
        fetch("modelscope", kind="model")


def test_a_finished_download_again_asks_for_the_listing_alone(hub: HubServer, source: str) -> None:
    first = fetch(source)
    before = contents(first.folder) | {"record": (first.folder / "download.json").read_bytes()}
    hub.requests.clear()
    again = fetch(source)
    assert again.fetched == [] and hub.fetched() == []
    assert contents(again.folder) | {"record": (again.folder / "download.json").read_bytes()} == before


def test_offline_contacts_nobody_and_finds_what_is_not_whole(hub: HubServer, source: str) -> None:
    folder = fetch(source).folder
    hub.requests.clear()
    assert fetch(source, offline=True).files.keys() == SAFE.keys()
    status = (folder / "train.txt").stat()
    damaged = bytearray(SAFE["train.txt"])
    damaged[7] ^= 1
    (folder / "train.txt").write_bytes(damaged)
    os.utime(folder / "train.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    fetch(source, offline=True)  # time and size are trusted …
    with pytest.raises(FangcunError, match=r"1 of 5 files .* missing or changed: train\.txt"):
        fetch(source, offline=True, verify=True)  # … unless one asks
    (folder / "data/第一.jsonl").unlink()
    with pytest.raises(FangcunError, match="missing or changed: data/第一"):
        fetch(source, offline=True)
    assert hub.requests == []
    assert sorted(fetch(source, verify=True).fetched) == ["data/第一.jsonl", "train.txt"]
    assert contents(folder) == SAFE


def test_files_that_were_copied_elsewhere_are_read_and_not_fetched(hub: HubServer, source: str) -> None:
    folder = fetch(source).folder
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    hub.requests.clear()
    assert fetch(source).fetched == [] and hub.fetched() == []


def test_a_new_revision_replaces_what_changed_and_takes_away_what_is_gone(hub: HubServer, source: str) -> None:
    folder = fetch(source).folder
    hub.commit = "f" * 40
    hub.files["train.txt"] = noise(6_000, 7)
    del hub.files["data/第一.jsonl"]
    hub.files["more/new.txt"] = b"new"
    again = fetch(source)
    assert sorted(again.fetched) == ["more/new.txt", "train.txt"]
    assert contents(folder) == {name: content for name, content in hub.files.items() if name in SAFE or "new" in name}
    record = read_record(folder)
    assert record is not None and record.commit == "f" * 40 and sorted(record.files) == sorted(contents(folder))


def test_a_file_that_moved_from_git_to_lfs_is_known_again(hub: HubServer) -> None:
    folder = fetch(include=["train.txt", "*.parquet"]).folder
    hub.large, hub.commit = {"train.txt"}, "d" * 40
    hub.requests.clear()
    again = fetch(include=["train.txt", "*.parquet"], out=folder)
    assert again.fetched == [] and hub.fetched() == []
    assert {name: entry.checked_by for name, entry in again.files.items()} == {
        "train.txt": "sha256", "data/large.parquet": "git-sha1"
    }  # fmt: skip


def test_another_choice_adds_to_the_folder_and_takes_nothing_away(hub: HubServer, source: str) -> None:
    folder = fetch(source, include=["*.jsonl"]).folder
    assert list(contents(folder)) == ["data/第一.jsonl"]
    fetch(source, include=["train.txt"])
    assert sorted(contents(folder)) == ["data/第一.jsonl", "train.txt"]
    assert fetch(source, include=["data/"]).fetched == ["data/empty.txt", "data/large.parquet"]


def test_what_the_user_put_there_is_never_overwritten(hub: HubServer, source: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "train.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FangcunError, match=r"is no download: nothing was contacted"):
        fetch(source, out=mine)
    assert hub.requests == []
    fetch(source, out="d", include=["*.jsonl"])
    Path("d/train.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FangcunError, match=r"train\.txt did not come from this download"):
        fetch(source, out="d")
    assert Path("d/train.txt").read_text(encoding="utf-8") == "mine"


def test_a_folder_belongs_to_one_repository(hub: HubServer) -> None:
    fetch("huggingface", out="d")
    hub.kind = "model"
    with pytest.raises(FangcunError, match=r"d holds owner/name \(dataset\) from"):
        fetch("huggingface", kind="model", out="d")


def test_pickles_and_programs_come_only_when_they_are_named(
    hub: HubServer, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(fetch(source, include=["*"]).left_out) == {".gitattributes", "pytorch_model.bin", "load.py"}
    shown = capsys.readouterr().out
    assert (
        "left out, may be a pickle, which runs code when it is opened (name it with --include to have it): pytorch_model.bin"
        in shown
    )
    assert "left out, a program (name it with --include to have it): load.py" in shown
    assert set(contents(fetch(source, include=["*.bin"], out="b").folder)) == {"pytorch_model.bin"}
    assert set(contents(fetch(source, include=["load.py"], out="p").folder)) == {"load.py"}


def test_a_pattern_that_means_nothing_names_what_there_is(hub: HubServer, source: str) -> None:
    with pytest.raises(ConfigError, match=r"'train.tx' matches no file. Did you mean 'train.txt'\?"):
        fetch(source, include=["*.jsonl", "train.tx"])


def test_a_dry_run_lists_and_fetches_nothing(hub: HubServer, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(source, dry_run=True)
    shown = capsys.readouterr().out
    assert "5 files, 306 kB" in shown and "300,000  data/large.parquet" in shown
    assert hub.fetched() == [] and not Path("downloads").exists()


def test_the_number_of_connections_changes_nothing_but_time(hub: HubServer, source: str) -> None:
    hub.files |= {f"{number}.txt": noise(number * 100, number) for number in range(30)}
    one, many = fetch(source, out="one", connections=1), fetch(source, out="many", connections=8)
    assert contents(one.folder) == contents(many.folder)
    assert [(name, e.digests) for name, e in one.files.items()] == [(name, e.digests) for name, e in many.files.items()]


def test_the_folder_is_a_corpus_and_its_record_is_no_text(hub: HubServer) -> None:
    folder = fetch().folder
    used, _ = list_files([str(folder)])
    assert {path.relative_to(folder).as_posix() for path in used} == {
        "data/empty.txt", "data/large.parquet", "data/第一.jsonl", "train.txt"
    }  # fmt: skip


def test_a_tokenizer_that_came_is_the_one_that_was_there(hub: HubServer, source: str, tmp_path: Path) -> None:
    text = ["天下大势，分久必合，合久必分。The quick brown fox."] * 20
    there = train_bpe(text, vocab_size=300, max_han_run=4)[0]
    there.save(tmp_path / "there")
    hub.kind = "model"
    hub.files = {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} | {
        "model.safetensors": b"weights"
    }
    folder = fetch(source, kind="model", include=["*token*"]).folder
    here = import_tokenizer(folder).tokenizer
    assert here.fingerprint == there.fingerprint
    assert here.encode_documents(text) == there.encode_documents(text)


def test_the_verb_says_what_came_and_how_to_use_it(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["download", NAME, "--source", "huggingface", "--include", "train.txt", "data/", "--out", "d e"]) == 0
    )
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(
        f"{NAME} (dataset) at 127.0.0.1:{hub.port}, revision main, commit 01234567: 4 files, 306 kB"
    )
    assert shown[-2:] == [
        "4 files, 306 kB in d e, 4 of them now; checked: 3 by git-sha1, 1 by sha256",
        "Use it: --text 'd e'",
    ]


def test_help_imports_neither_torch_nor_the_room() -> None:
    code = "import sys; from fangcun.cli import main; main(['download', '--help']); sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'fangcun.hubs')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "--source" in done.stdout


def test_hugging_faces_own_client_fetches_the_same_from_this_server(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that the server of these tests speaks the API that is meant."""
    constants = pytest.importorskip("huggingface_hub.constants")
    from huggingface_hub import snapshot_download

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the server is on this machine
    theirs = snapshot_download(
        NAME, repo_type="dataset", endpoint=hub.address, local_dir=tmp_path / "theirs", token=False
    )
    found = {name: content for name, content in contents(Path(theirs)).items() if not name.startswith(".cache")}
    assert found == FILES
    assert contents(fetch().folder) == {name: found[name] for name in SAFE}
