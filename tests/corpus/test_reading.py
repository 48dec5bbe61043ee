"""Any file people have becomes documents; what is broken or left out is counted and named."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fangcun.config.schema import CorpusConfig
from fangcun.corpus import Document, ReadReport, list_files, read_documents
from fangcun.errors import ConfigError, FangcunError


def read(*paths: Path | str, **settings: Any) -> tuple[list[Document], ReadReport]:
    report = ReadReport()
    return list(read_documents(CorpusConfig(paths=[str(path) for path in paths], **settings), report)), report


def texts_of(*paths: Path | str, **settings: Any) -> list[str]:
    return [document.text for document in read(*paths, **settings)[0]]


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"text": "甲"}, "甲"),
        ({"id": 1, "Text": "甲", "meta": {"text": "no"}}, "甲"),
        ({"content": "甲"}, "甲"),
        ({"content": ["甲", "乙"]}, "甲\n乙"),
        ({"completion": "甲", "source": "x"}, "甲"),
        ({"story": "tale", "story_zh": "甲"}, "甲"),
        ({"story": "甲"}, "甲"),
        ({"author": "x", "rhythmic": "导引", "paragraphs": ["甲。", "乙。"]}, "导引\n甲。\n乙。"),
        ({"paragraphs": ["甲", "乙"]}, "甲\n乙"),
        ({"title": "题", "content": "甲"}, "题\n甲"),
        ({"title": "题", "chapter": "风", "content": ["甲", "乙"]}, "题\n甲\n乙"),
        (
            {"title": "题", "summary": "甲", "sections": [{"title": "节", "content": "乙"}], "tags": ["x"]},
            "题\n甲\n节\n乙",
        ),
        ({"title": "题", "summary": "甲", "sections": []}, "题\n甲"),
        ({"qid": "q", "title": "问", "desc": "", "answer": "答"}, "问\n答"),
        ({"title": "问", "desc": "述", "answer": "答"}, "问\n述\n答"),
        ({"instruction": "问", "input": "", "output": "答"}, "问\n答"),
        ({"instruction": "问", "input": "料", "output": "答"}, "问\n料\n答"),
        ({"kind": "NLI", "input": "问", "target": "答"}, "问\n答"),
        ({"prompt": "问", "response": "答"}, "问\n答"),
        ({"prompt": "问", "completion": "答"}, "问\n答"),
        ({"INSTRUCTION": "问", "RESPONSE": "答", "SOURCE": "x"}, "问\n答"),
        ({"question": "问", "answer": "答"}, "问\n答"),
        ({"conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]}, "问\n答"),
        ({"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]}, "问\n答"),
        ("甲", "甲"),
    ],
)
def test_the_text_is_found_in_the_schemas_people_have(record: Any, text: str, tmp_path: Path) -> None:
    assert texts_of(write(tmp_path / "a.jsonl", record)) == [text]


def test_nested_books_give_one_document_a_piece(tmp_path: Path) -> None:
    book = {
        "title": "書",
        "abstract": ["x"],
        "content": [
            {
                "title": "卷一",
                "content": [
                    {"chapter": "篇", "author": "x", "paragraphs": ["甲", "乙"]},
                    {"chapter": "章", "paragraphs": ["丙"]},
                ],
            },
            {"chapter": "末", "paragraphs": ["丁"]},
        ],
    }
    (tmp_path / "book.json").write_text(json.dumps(book, indent=1), encoding="utf-8")
    assert texts_of(tmp_path / "book.json") == ["篇\n甲\n乙", "章\n丙", "末\n丁"]


def test_a_wrapper_is_walked_and_a_bad_piece_does_not_cost_the_others(tmp_path: Path) -> None:
    wrapped = {"version": {"text_version": 1}, "data": [{"text": "甲"}, {"nothing": 1}, {"text": "乙"}]}
    (tmp_path / "w.json").write_text(json.dumps(wrapped), encoding="utf-8")
    documents, report = read(tmp_path / "w.json", max_broken_share=0.5)
    assert [document.text for document in documents] == ["甲", "乙"] and report.total("broken_records") == 1


@pytest.mark.parametrize("layout", ["array", "indented", "lines", "joined"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".json.gz", ".jsonl.zst"])
def test_json_is_read_in_every_layout_and_packing(layout: str, suffix: str, tmp_path: Path) -> None:
    records = [{"text": f"第{i}回"} for i in range(5)]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    text = {
        "array": json.dumps(records),
        "indented": json.dumps(records, indent=2),
        "lines": "\n".join(lines),
        "joined": "".join(lines),
    }[layout]
    if suffix.startswith(".jsonl") and layout == "joined":
        pytest.skip("JSON lines end at line ends")
    data = text.encode()
    pack = {"gz": gzip.compress, "st": zstandard.compress}.get(suffix[-2:], bytes)
    (tmp_path / f"a{suffix}").write_bytes(pack(data))
    assert texts_of(tmp_path / f"a{suffix}") == [record["text"] for record in records]


def test_all_frames_of_a_zst_file_are_read_and_a_cut_one_is_noticed(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    data = zstandard.compress("甲\n".encode()) + skippable + zstandard.compress("乙\n".encode())
    (tmp_path / "a.txt.zst").write_bytes(data)
    assert texts_of(tmp_path / "a.txt.zst") == ["甲\n乙"]
    for name, cut in (
        ("a.txt.zst", data[:-4]),
        ("b.txt.gz", gzip.compress(b"text " * 100)[:-12]),
        ("c.txt.gz", b"no gzip"),
    ):
        (tmp_path / name).write_bytes(cut)
        with pytest.raises(FangcunError, match=rf"{name[:1]}\.txt.*damaged"):
            read(tmp_path / name)


def test_tables_are_read_by_their_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'names, genre, story\n甲, x,"第一行\n第二行, ""引"""\n乙|丙,y,短\n', encoding="utf-8"
    )
    (tmp_path / "b.tsv").write_text("text\tlabel\n甲\t1\n", encoding="gb18030")
    documents, report = read(tmp_path / "a.csv", tmp_path / "b.tsv")
    assert [(d.text, d.source) for d in documents] == [
        ('第一行\n第二行, "引"', "a.csv:2"),
        ("短", "a.csv:4"),
        ("甲", "b.tsv:2"),
    ]
    assert [file.encoding for file in report.files] == ["utf-8", "gb18030, uncertain"]


def test_a_long_field_of_a_table_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n\n" + "长" * 300_000 + ",1\n", encoding="utf-8")
    assert [len(text) for text in texts_of(tmp_path / "a.csv")] == [300_000]


def test_a_table_without_header_or_text_column_names_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("一段文字,1\n二,2\n", encoding="utf-8")
    with pytest.raises(FangcunError, match=r"a\.csv.*'一段文字'.*header"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("storys,n\n甲,2\n", encoding="utf-8")
    with pytest.raises(FangcunError, match=r"no column 'story'.*'storys'.*Did you mean 'storys'"):
        read(tmp_path / "a.csv", text_key="story")
    assert texts_of(tmp_path / "a.csv", text_key="storys") == ["甲"]


def test_parquet_is_read_by_column(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = pyarrow.table({"prompt": ["问", "问二"], "response": ["答", None], "vector": [[1.0], [2.0]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    documents, _ = read(tmp_path / "a.parquet")
    assert [(d.text, d.source) for d in documents] == [("问\n答", "a.parquet:1")]
    with pytest.raises(FangcunError, match=r"no column 'respnse'.*Did you mean 'response'"):
        read(tmp_path / "a.parquet", text_key="respnse")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(FangcunError, match=r"b\.parquet is no Parquet"):
        read(tmp_path / "b.parquet")


def test_a_text_file_splits_as_the_setting_says(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("《书》\n\n第一回 起\n甲\n第一回合战罢，乙\n\n\n第二回　承\n丙\n", encoding="utf-8")
    assert len(texts_of(tmp_path / "a.txt")) == 1
    assert texts_of(tmp_path / "a.txt", txt_split="chapter") == [
        "《书》",
        "第一回 起\n甲\n第一回合战罢，乙",
        "第二回　承\n丙",
    ]
    assert texts_of(tmp_path / "a.txt", txt_split="chapter", chapter_pattern="^第二") == [
        "《书》\n\n第一回 起\n甲\n第一回合战罢，乙",
        "第二回　承\n丙",
    ]
    documents, _ = read(tmp_path / "a.txt", txt_split="blank_lines")
    assert [(d.text[:3], d.source) for d in documents] == [
        ("《书》", "a.txt:1"),
        ("第一回", "a.txt:3"),
        ("第二回", "a.txt:8"),
    ]
    (tmp_path / "b.txt").write_text("甲<|end|>乙\n乙<|end|>\n丙<|en", encoding="utf-8")
    assert texts_of(tmp_path / "b.txt", txt_split="separator", separator="<|end|>") == ["甲", "乙\n乙", "丙<|en"]


@pytest.mark.parametrize("block", range(1, 12))
def test_a_separator_cut_by_a_block_border_still_separates(block: int) -> None:
    from fangcun.corpus.documents import split_text

    text = "--a----b-----c--"
    blocks = [text[i : i + block] for i in range(0, len(text), block)]
    for separator in ("-", "--", "----", "b-"):
        assert [part for _, part in split_text(blocks, "separator", separator, None)] == text.split(separator)


def test_settings_that_cannot_be_meant_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "x")
    for settings, message in (
        ({"txt_split": "separator"}, "corpus.separator"),
        ({"txt_split": "chapter", "chapter_pattern": "("}, "no regular expression"),
        ({"builtin": "sanguo"}, "both"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(path, **settings)
    with pytest.raises(ConfigError, match="--text"):
        list(read_documents(CorpusConfig(), ReadReport()))


def test_folders_are_walked_in_natural_order_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    for name in ("a10.txt", "a2.txt", "sub/b.md", "README.md", "LICENSE", ".hidden.txt", "x.pdf", ".git/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("文", encoding="utf-8")
    run = tmp_path / "run"
    (run / "corpus").mkdir(parents=True)
    (run / "recipe.yaml").touch()
    write(run / "metrics.jsonl", {"text": "x"})
    used, skipped = list_files([str(tmp_path), str(tmp_path / "a2.txt")])
    assert [path.relative_to(tmp_path).as_posix() for path in used] == ["a2.txt", "a10.txt", "sub/b.md"]
    assert {path.name for path in skipped} == {"README.md", "LICENSE", ".hidden.txt", "x.pdf", ".git", "run"}
    assert [path.name for path in list_files([str(tmp_path / "*.txt")])[0]] == ["a2.txt", "a10.txt"]
    assert [path.name for path in list_files([str(tmp_path / "**/*.md")])[0]] == ["b.md"]
    assert [path.name for path in list_files([str(tmp_path / "README.md")])[0]] == ["README.md"]
    assert read(tmp_path)[1].skipped == sorted(
        (p.relative_to(tmp_path).as_posix() for p in skipped), key=read(tmp_path)[1].skipped.index
    )


@pytest.mark.parametrize("stage", ["corpus", "tokens.previous", "corpus.work", "checkpoints"])
def test_a_run_folder_is_known_by_any_of_its_parts(tmp_path: Path, stage: str) -> None:
    write(tmp_path / "a.txt", "文")
    (tmp_path / "run" / stage).mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").touch()
    write(tmp_path / "run" / "timings.json", {"text": "x"})
    used, skipped = list_files([str(tmp_path)])
    assert ([p.name for p in used], [p.name for p in skipped]) == (["a.txt"], ["run"])


def test_paths_without_text_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.pdf").touch()
    (tmp_path / "empty.txt").touch()
    with pytest.raises(FangcunError, match=r"nowhere.*does not exist"):
        list_files([str(tmp_path / "nowhere")])
    with pytest.raises(FangcunError, match=r"no text file.*x\.pdf"):
        (tmp_path / "only").mkdir()
        (tmp_path / "only" / "x.pdf").touch()
        list_files([str(tmp_path / "only")])
    with pytest.raises(FangcunError, match="matches no file"):
        list_files([str(tmp_path / "*.csv")])
    with pytest.raises(FangcunError, match="suffix"):
        list_files([str(tmp_path / "x.pdf")])
    with pytest.raises(FangcunError, match=r"empty.*empty\.txt"):
        read(tmp_path / "empty.txt")


def test_a_file_that_may_not_be_read_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "x")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(FangcunError, match=r"a\.txt cannot be read: permission denied"):
        read(path)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".csv"])
def test_random_bytes_are_one_clear_error(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"noise{suffix}").write_bytes(random.Random(1).randbytes(300_000))
    with pytest.raises(FangcunError, match="noise"):
        read(tmp_path / f"noise{suffix}")


def test_broken_records_are_counted_sampled_and_stop_above_the_share(tmp_path: Path) -> None:
    lines = ['{"text": "甲"}'] * 300 + ['{"text": '] * 2
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    documents, report = read(tmp_path / "a.jsonl")
    assert len(documents) == 300 and report.total("broken_records") == 2
    assert report.samples[0]["place"] == "a.jsonl:301"
    (tmp_path / "a.jsonl").write_text("\n".join(lines + ['{"text": '] * 30), encoding="utf-8")
    with pytest.raises(FangcunError, match=r"32 broken records of 332.*a\.jsonl:301.*max_broken_share"):
        read(tmp_path / "a.jsonl")
    report = read(tmp_path / "a.jsonl", max_broken_share=0.2)[1]
    assert len(report.samples) == 20 and report.total("broken_records") == 32


def test_bad_bytes_stop_above_the_share_naming_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("合久必分\n".encode() * 100 + b"\xff" * 5)
    documents, report = read(tmp_path / "a.txt")
    assert documents[0].text == "\n".join(["合久必分"] * 100) and report.total("broken_bytes") == 5
    (tmp_path / "a.txt").write_bytes("合久必分\n".encode() * 100 + b"\xff" * 50)
    with pytest.raises(FangcunError, match=r"broken bytes.*a\.txt:101.*utf-8"):
        read(tmp_path / "a.txt")


def test_a_named_field_that_is_not_there_lists_the_fields_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[{"body": "甲", "head": "x"}] * 3)
    assert texts_of(path, text_key="body") == ["甲"] * 3
    with pytest.raises(FangcunError, match=r"no field 'bodi'.*'body', 'head'.*Did you mean 'body'"):
        read(path, text_key="bodi")
    with pytest.raises(FangcunError, match=r"no known text field among body, head.*text_key"):
        read(path)


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.jsonl", *[{"text": "x" * 1000}] * 2000) for i in range(2)]
    seen: list[tuple[int, int]] = []
    config = CorpusConfig(paths=[str(path) for path in paths])
    for _ in read_documents(config, ReadReport(), progress=lambda done, total: seen.append((done, total))):
        pass
    total = sum(path.stat().st_size for path in paths)
    assert len(seen) > 2 and seen == sorted(seen) and seen[-1] == (total, total)


def test_gb18030_and_utf8_copies_give_the_same_documents(tmp_path: Path) -> None:
    text = "第一回 起\n合久必分，１９９８。\n" * 50
    for name, codec in (("a", "utf-8"), ("b", "gb18030"), ("c", "utf-8-sig")):
        (tmp_path / f"{name}.txt").write_bytes(text.encode(codec))
    documents, report = read(tmp_path)
    assert len({document.id for document in documents}) == 1
    assert [file.encoding for file in report.files] == ["utf-8", "gb18030", "utf-8 with BOM"]


@pytest.mark.parametrize(
    ("path", "documents"),
    [
        ("poetry/mengxue", 579),
        ("poetry/shijing", 305),
        ("stories", 1794),
        ("web/baidubaike_sample.jsonl", 800),
        ("sft/chatlm_mini_3k.parquet", 3000),
        ("sft/alpaca_zh_demo.json", 795),
    ],
)
def test_real_files_give_every_record(shared_data: Path, path: str, documents: int) -> None:
    if path.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    found, report = read(shared_data / path)
    assert len(found) == documents and report.total("broken_records") == report.total("broken_bytes") == 0
