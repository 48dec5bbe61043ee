"""Promises of an upload: whole or not there, gone on with where it stopped, nothing of others touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_stores import TestStore, counted_tokens, lay, store

from fangcun.artifacts import Manifest, read_manifest, write_artifact
from fangcun.errors import FangcunError
from fangcun.tokens import RemoteFolder, RemoteTokens, fetch_artifact, open_split, upload_artifact
from fangcun.tokens import store as module

URL = "teststore://bucket/run/tokens"


@pytest.fixture
def afar(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[TestStore]]:
    monkeypatch.setattr(module, "RETRY_WAITS_SECONDS", ())
    with store() as made:
        yield made


def upload(folder: Path):
    return upload_artifact(folder, "tokens", RemoteFolder(URL))


def sent(afar: type[TestStore]) -> list[str]:
    names = [path.rpartition("/")[2] for path in afar.writes]
    afar.writes.clear()
    return [name for name in names if name != "upload.json"]


def test_what_is_sent_is_the_folder_and_its_manifest_comes_last(tmp_path: Path, afar: type[TestStore]) -> None:
    folder = counted_tokens(tmp_path / "t", [300, 50], shard_tokens=100)
    done = upload(folder)
    assert done.sent_files == len(read_manifest(folder, "tokens").files) and done.kept_files == 0
    assert sent(afar)[-1] == "manifest.json"
    for file in folder.iterdir():
        assert TestStore().cat_file(f"/bucket/run/tokens/{file.name}") == file.read_bytes()
    split = open_split(RemoteTokens(URL, cache_folder=tmp_path / "c"), "train")
    assert split.read(0, 350).tolist() == list(range(350))
    again = upload(folder)
    assert (again.sent_files, again.kept_files) == (0, done.sent_files)
    assert sent(afar) == [] and read_manifest(folder, "tokens", verify=True)


@pytest.mark.parametrize("stop", range(0, 40, 3))
def test_an_upload_that_broke_off_is_gone_on_with(tmp_path: Path, afar: type[TestStore], stop: int) -> None:
    folder = counted_tokens(tmp_path / "t", [300], shard_tokens=100)
    left = [stop]

    def break_off(path: str) -> None:
        if not left[0]:
            # A store without whole-or-nothing writes keeps a part of the file.
            TestStore.store.pop(path, None)
            afar.on_write = None
            TestStore().pipe_file(path, b"torn")
            afar.on_write = break_off
            raise ConnectionResetError("reset")
        left[0] -= 1

    afar.on_write = break_off
    try:
        upload(folder)
        finished = True
    except FangcunError as error:
        assert "run the same command again" in str(error)
        finished = False
    before = sent(afar)
    assert finished == ("manifest.json" in before)
    if not finished and "/bucket/run/tokens/manifest.json" not in TestStore.store:
        with pytest.raises(FangcunError, match="holds no tokens"):
            RemoteTokens(URL, cache_folder=tmp_path / "c")
    afar.on_write = None
    done = upload(folder)
    assert done.sent_files + done.kept_files == len(read_manifest(folder, "tokens").files)
    assert done.kept_files >= len(before) - 1
    for file in folder.iterdir():
        assert TestStore().cat_file(f"/bucket/run/tokens/{file.name}") == file.read_bytes()


def test_other_tokens_are_never_written_over(tmp_path: Path, afar: type[TestStore]) -> None:
    upload(counted_tokens(tmp_path / "a", [300]))
    before = {path: bytes(file.getbuffer()) for path, file in TestStore.store.items()}
    with pytest.raises(FangcunError, match=r"holds another tokens: nothing was changed.*--tokens.upload"):
        upload(counted_tokens(tmp_path / "b", [301]))
    assert {path: bytes(file.getbuffer()) for path, file in TestStore.store.items()} == before


@pytest.mark.parametrize("name", ["train-00000.bin", "val-00000.bin", "manifest.json"])
def test_files_of_others_are_never_written_over(tmp_path: Path, afar: type[TestStore], name: str) -> None:
    TestStore().pipe_file(f"/bucket/run/tokens/{name}", b"mine")
    with pytest.raises(FangcunError, match=r"(?i)nothing was changed"):
        upload(counted_tokens(tmp_path / "t", [300]))
    assert TestStore().cat_file(f"/bucket/run/tokens/{name}") == b"mine"


def test_what_another_tool_copied_is_recognized_by_its_content(tmp_path: Path, afar: type[TestStore]) -> None:
    folder = counted_tokens(tmp_path / "t", [300])
    lay(folder, URL)
    del TestStore.store["/bucket/run/tokens/manifest.json"], TestStore.store["/bucket/run/tokens/train-00000.idx"]
    sent(afar)
    upload(folder)
    assert sorted(sent(afar)) == ["manifest.json", "train-00000.idx"]


def test_a_file_that_is_missing_behind_a_manifest_is_sent_again(tmp_path: Path, afar: type[TestStore]) -> None:
    folder = counted_tokens(tmp_path / "t", [300])
    upload(folder)
    del TestStore.store["/bucket/run/tokens/train-00000.bin"]
    sent(afar)
    assert upload(folder).sent_files == 1
    assert sent(afar) == ["train-00000.bin"]


def test_a_damaged_local_folder_is_not_sent(tmp_path: Path, afar: type[TestStore]) -> None:
    folder = counted_tokens(tmp_path / "t", [300])
    (folder / "train-00000.idx").unlink()
    with pytest.raises(FangcunError, match="damaged"):
        upload(folder)
    assert afar.writes == []


def small_artifact(folder: Path) -> Path:
    with write_artifact(folder, Manifest("tokenizer", fingerprint="f", counts={"vocab_size": 3})) as out:
        (out / "tokenizer.json").write_bytes(b"{}")
    return folder


def test_an_artefact_comes_back_as_it_was(tmp_path: Path, afar: type[TestStore]) -> None:
    source = RemoteFolder("teststore://bucket/run/tokenizer")
    upload_artifact(small_artifact(tmp_path / "a"), "tokenizer", source)
    fetch_artifact(source, "tokenizer", tmp_path / "b")
    assert read_manifest(tmp_path / "a", "tokenizer") == read_manifest(tmp_path / "b", "tokenizer", verify=True)
    with pytest.raises(FangcunError, match="holds a tokenizer, expected a tokens"):
        fetch_artifact(source, "tokens", tmp_path / "c")


@pytest.mark.parametrize("change", ["content", "name"])
def test_an_artefact_that_is_not_whole_is_not_fetched(tmp_path: Path, afar: type[TestStore], change: str) -> None:
    source = RemoteFolder(lay(small_artifact(tmp_path / "a"), "teststore://bucket/tokenizer"))
    if change == "content":
        TestStore().pipe_file("/bucket/tokenizer/tokenizer.json", b"[]")
    else:
        manifest = json.loads(TestStore().cat_file("/bucket/tokenizer/manifest.json"))
        manifest["files"]["../../evil"] = manifest["files"]["tokenizer.json"]
        TestStore().pipe_file("/bucket/tokenizer/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(FangcunError, match=r"sha256|no file name"):
        fetch_artifact(source, "tokenizer", tmp_path / "b")
    assert not list(tmp_path.glob("b*")) and not list(tmp_path.rglob("evil"))


def test_a_folder_of_this_machine_is_a_url_as_well(tmp_path: Path) -> None:
    folder = counted_tokens(tmp_path / "t", [300])
    url = f"{tmp_path.as_uri()}/far/run"
    upload_artifact(folder, "tokens", RemoteFolder(url).below("tokens"))
    assert open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train").read(0, 300).tolist() == list(range(300))
