"""Names that come from elsewhere stay in their folder; names that users give are understood or refused."""

from __future__ import annotations

import itertools
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hub_server import FILES, NAME, HubServer
from hypothesis import given
from hypothesis import strategies as st

from fangcun.errors import ConfigError, FangcunError
from fangcun.hubs import download, read_record
from fangcun.hubs.checksum import Hasher, agrees
from fangcun.hubs.listing import check_path, remote_file
from fangcun.hubs.selection import matches
from fangcun.hubs.sources import choose

PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "a", "C:", ":", "~", "\0", "\n", " ", "天", "a.txt", "//", "aux", "con.txt"]
)


@given(path=st.lists(PIECES, max_size=6).map("".join) | st.text(max_size=12))
def test_a_name_that_is_taken_stays_in_its_folder_on_every_system(path: str) -> None:
    try:
        check_path(path)
    except FangcunError:
        return
    for system in (PurePosixPath, PureWindowsPath):
        root = system("/root/d") if system is PurePosixPath else system("C:/root/d")
        place = root / path
        assert place.is_relative_to(root) and ".." not in place.parts and place != root
        assert len(place.relative_to(root).parts) == path.count("/") + 1
    assert "\0" not in path


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "C:/x", "c:x", "a\\..\\x", "\\\\host\\x", "~/x", "a//b", "./a", "a/", "", "a\nb", "a\x9b2J", None, 5],
)  # fmt: skip
def test_a_name_that_leads_outside_is_refused(path: object) -> None:
    with pytest.raises(FangcunError, match="refused, and nothing was fetched"):
        check_path(path)


@pytest.mark.parametrize(
    "path", ["a.txt", "数据/第一回.txt", "a..b", "...", ".gitattributes", "a b/c d.json", "ab:y", "a~"]
)
def test_a_harmless_name_is_taken(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize("name", ["../../outside.txt", "/tmp/outside.txt", "a/../../outside.txt", "C:\\outside.txt"])
def test_a_listing_with_one_bad_name_fetches_nothing_at_all(
    hub: HubServer, source: str, name: str, tmp_path: Path
) -> None:
    hub.files[name] = b"bad"
    with pytest.raises(FangcunError, match="refused, and nothing was fetched"):
        download(NAME, source=source)
    assert hub.fetched() == [] and list(tmp_path.iterdir()) == []


def test_names_that_the_folder_uses_itself_are_left_out(hub: HubServer, source: str) -> None:
    hub.files = {"download.json": b"{}", ".part/x.part": b"x", "Writer.lock": b"", "a.txt": b"a"}
    done = download(NAME, source=source)
    assert list(done.files) == ["a.txt"] and len(done.left_out) == 3
    record = read_record(done.folder)
    assert record is not None and record.complete


def test_a_file_cannot_be_the_folder_of_another(hub: HubServer) -> None:
    hub.files = {"a": b"1", "a/b": b"2"}
    with pytest.raises(FangcunError, match="'a' both a file and a folder"):
        download(NAME, source="huggingface")


@pytest.mark.parametrize("size", [-1, None, "5", 1.5, True])
def test_a_size_that_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(FangcunError, match="expected a number of bytes"):
        remote_file("a", size, "u")


@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4), other=st.binary(max_size=300))
def test_a_content_agrees_with_its_own_checksums_and_with_no_others(
    content: bytes, cuts: list[int], other: bytes
) -> None:
    """git's own sha1 as the reference: `git hash-object` of an empty file is e69de29b."""
    hasher = Hasher(len(content), git=True)
    ends = sorted({min(cut, len(content)) for cut in cuts} | {0, len(content)})
    for begin, end in itertools.pairwise(ends):
        hasher.update(content[begin:end])
    found = hasher.result()
    if not content:
        assert found.git_sha1 == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    wanted = Hasher(len(other), git=True)
    wanted.update(other)
    theirs = wanted.result()
    for told in ({"sha256": theirs.sha256}, {"git_sha1": theirs.git_sha1}):
        assert agrees(found, remote_file("a", len(other), "u", **told)) is (content == other)
    assert agrees(found, remote_file("a", len(other), "u")) is (len(content) == len(other))


@pytest.mark.parametrize(
    ("path", "pattern", "meant"),
    [
        ("data/a.parquet", "*.parquet", True),
        ("data/a.parquet", "data/", True),
        ("data/a.parquet", "data/*", True),
        ("data/a.parquet", "a.parquet", True),
        ("data/a.parquet", "b/a.parquet", False),
        ("database/a.txt", "data/", False),
        ("a[1].txt", "a[1].txt", True),
        ("A.txt", "a.txt", False),
    ],
)
def test_a_pattern_means_names_paths_and_folders(path: str, pattern: str, meant: bool) -> None:
    assert matches(path, pattern) is meant


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("modelscop", "Did you mean 'modelscope'?"),
        ("hf", "'hf' is no source"),
        ("ftp://x/y", "is no source"),
        ("https://user:secret@x", "without user, password"),
        ("https://x/?token=secret", "without user, password"),
        ("https://[x", "is no source"),
        ("https://x:99999999", "is no source"),
    ],
)
def test_a_source_is_a_name_or_an_address(source: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose(NAME, source, "dataset")
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "/a", "a/", "../a", "a/..", "https://huggingface.co/a/b", "a b/c", "a/b?x", "a%2fb/c", "-a/b"]
)
def test_a_name_is_owner_and_name(name: str) -> None:
    with pytest.raises(ConfigError, match="Expected OWNER/NAME"):
        choose(name, "huggingface", "model")


def test_old_names_without_an_owner_are_hugging_faces_alone() -> None:
    assert choose("gpt2", "huggingface", "model").api == "https://huggingface.co/api/models/gpt2"
    with pytest.raises(ConfigError, match="Expected OWNER/NAME"):
        choose("gpt2", "modelscope", "model")


def test_a_folder_that_is_here_is_not_looked_for_elsewhere(tmp_path: Path, hub: HubServer) -> None:
    with pytest.raises(ConfigError, match="is a folder here already"):
        download(str(tmp_path), source="huggingface")
    assert hub.requests == []


def test_a_token_with_a_line_break_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        choose(NAME, "huggingface", "model", environment={"HF_TOKEN": "sec\nret"})
    assert "sec" not in str(refused.value)


def test_a_record_that_leads_outside_is_not_believed(hub: HubServer, source: str) -> None:
    """What it names may be deleted by the next revision."""
    folder = download(NAME, source=source).folder
    text = (folder / "download.json").read_text(encoding="utf-8")
    (folder / "download.json").write_text(text.replace('"train.txt"', '"../../../x"'), encoding="utf-8")
    with pytest.raises(FangcunError, match="refused"):
        download(NAME, source=source)
    (folder / "download.json").write_text("{", encoding="utf-8")
    with pytest.raises(FangcunError, match="is no record of a download"):
        download(NAME, source=source)


def test_every_file_of_this_server_has_a_name_that_is_taken() -> None:
    for name in FILES:
        check_path(name)
