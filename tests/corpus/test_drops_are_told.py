"""What of the input was not plain UTF-8 text is told in lines that name it."""

from __future__ import annotations

import json
from pathlib import Path

from fangcun.config import CorpusConfig
from fangcun.corpus import build_corpus, describe_drops


def told(folder: Path) -> list[str]:
    build_corpus(CorpusConfig(paths=[str(folder)], max_broken_share=0.5), folder.parent / "out")
    return describe_drops(json.loads((folder.parent / "out" / "drops.json").read_text(encoding="utf-8")))


def test_plain_text_needs_no_words(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("却说曹操引军攻吕布。\n" * 50, encoding="utf-8")
    assert told(folder) == []


def test_skipped_files_other_encodings_and_broken_records_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_bytes(("却说曹操引军攻吕布。\n" * 50).encode("gb18030"))
    (folder / "b.jsonl").write_text('{"text": "一"}\n{"text": "二"}\n{broken\n', encoding="utf-8")
    (folder / "README.md").write_text("read me", encoding="utf-8")
    (folder / "notes.doc").write_text("?", encoding="utf-8")
    lines = "\n".join(told(folder))
    assert "README.md" in lines
    assert "notes.doc" in lines
    assert "a.txt (gb18030)" in lines
    assert "b.jsonl:3" in lines


def test_an_uncertain_encoding_is_told_by_name_however_many_others_there_are(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in "abcdef":
        (folder / f"{name}.txt").write_bytes(("却说曹操引军攻吕布，大家都来看。\n" * 50).encode("gb18030"))
    (folder / "short.txt").write_bytes("鬯".encode("gb18030"))
    lines = told(folder)
    assert "and 4 more" in lines[0] and "short" not in lines[0]
    assert lines[1].startswith("encoding uncertain or mixed: short.txt (gb18030, uncertain). ")
