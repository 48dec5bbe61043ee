"""The data sets people hold are read in the layout they have them in."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fangcun.config.schema import CorpusConfig
from fangcun.corpus import Document, ReadReport, describe_drops, list_files, read_documents
from fangcun.corpus.report import MAX_FILES
from fangcun.errors import FangcunError


def read(path: Path, **settings: Any) -> tuple[list[Document], ReadReport]:
    report = ReadReport()
    return list(read_documents(CorpusConfig(paths=[str(path)], **settings), report)), report


def texts_of(path: Path, **settings: Any) -> list[str]:
    return [document.text for document in read(path, **settings)[0]]


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(*records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


PACK = {".gz": gzip.compress, ".zst": zstandard.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("suffix", PACK)
def test_packed_files_of_several_streams_are_read_and_cut_ones_are_noticed(suffix: str, tmp_path: Path) -> None:
    texts = ["甲" * 300_000, "乙丙" * 200_000]
    data = b"".join(PACK[suffix](f"{text}\n".encode()) for text in texts)
    path = put(tmp_path / f"a.txt{suffix}", data)
    assert texts_of(path) == ["\n".join(texts)]
    for cut in (len(data) - 3, len(data) // 2 + 20, 30):
        put(path, data[:cut])
        with pytest.raises(FangcunError, match=r"a\.txt.*damaged or cut short"):
            read(path)
    put(path, data[:40] + bytes(40) + data[80:])
    with pytest.raises(FangcunError, match=r"a\.txt.*damaged or cut short"):
        read(path)


def test_padding_between_xz_streams_is_no_text(tmp_path: Path) -> None:
    data = lzma.compress("甲\n".encode()) + bytes(8) + lzma.compress("乙\n".encode()) + bytes(4)
    assert texts_of(put(tmp_path / "a.txt.xz", data)) == ["甲\n乙"]


def test_a_very_repetitive_xz_file_is_unpacked_in_small_blocks(tmp_path: Path) -> None:
    from fangcun.corpus.streams import ByteStream

    path = put(tmp_path / "a.txt.xz", lzma.compress(bytes(20_000_000)))
    sizes = [len(block) for block in ByteStream(path)]
    assert sum(sizes) == 20_000_000 and max(sizes) <= 1 << 20


def save_to_disk(folder: Path, columns: dict[str, list[Any]], *, rows_a_batch: int = 2, shards: int = 2) -> None:
    """A folder as `datasets.Dataset.save_to_disk` writes it: IPC streams, dataset_info.json, state.json."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table(columns)
    folder.mkdir(parents=True)
    names = [f"data-{index:05d}-of-{shards:05d}.arrow" for index in range(shards)]
    rows = -(-table.num_rows // shards)
    for index, name in enumerate(names):
        with (
            pyarrow.OSFile(str(folder / name), "wb") as sink,
            pyarrow.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table.slice(index * rows, rows), max_chunksize=rows_a_batch)
    features = {name: {"dtype": "string", "_type": "Value"} for name in columns}
    put(folder / "dataset_info.json", json.dumps({"citation": "", "description": "some text", "features": features}))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": "train"}
    put(folder / "state.json", json.dumps(state))


def test_a_data_set_saved_to_disk_gives_its_rows_and_nothing_else(tmp_path: Path) -> None:
    rows = [f"第{index}篇" for index in range(7)]
    columns = {"text": rows, "source": ["x"] * 7, "score": [0.5] * 7}
    save_to_disk(tmp_path / "d" / "train", columns)
    save_to_disk(tmp_path / "d" / "validation", {"text": ["验"]}, shards=1)
    put(tmp_path / "d" / "dataset_dict.json", json.dumps({"splits": ["train", "validation"]}))
    put(tmp_path / "d" / "train" / "cache-0123456789abcdef.arrow", b"something datasets left")
    documents, report = read(tmp_path / "d")
    assert [document.text for document in documents] == [*rows, "验"]
    assert documents[4].source == "train/data-00001-of-00002.arrow:1"
    assert {file.encoding for file in report.files} == {"arrow"} and not report.samples
    assert describe_drops(report.as_dict())[0].startswith("skipped: ")
    assert texts_of(tmp_path / "d", text_key="text") == [*rows, "验"]
    with pytest.raises(FangcunError, match=r"no column 'txt'.*Did you mean 'text'"):
        read(tmp_path / "d", text_key="txt")


def test_arrow_files_that_are_cut_or_of_the_other_kind(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "d", {"text": ["长" * 5000] * 8}, shards=1)
    path = tmp_path / "d" / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(FangcunError, match=r"data-00000-of-00001\.arrow is no Arrow file that can be read"):
        read(tmp_path / "d")
    # Cut between two batches.
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as sink:
        writer = pyarrow.ipc.new_stream(sink, pyarrow.schema({"text": pyarrow.string()}))
        writer.write_batch(pyarrow.record_batch({"text": ["甲"]}))
        position = sink.tell()
        writer.close()
    path.write_bytes(path.read_bytes()[:position])
    documents, report = read(tmp_path / "d", max_broken_share=0.5)
    assert [document.text for document in documents] == ["甲"] and "no end mark" in report.samples[0]["reason"]
    put(path, b"")
    with pytest.raises(FangcunError, match="no Arrow file"):
        read(tmp_path / "d")
    table = pyarrow.table({"text": ["甲", "乙"]})
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert texts_of(tmp_path / "d") == ["甲", "乙"]


@pytest.mark.parametrize(
    ("name", "records"),
    [
        # FineWeb-Edu-Chinese and SkyPile-150B
        ("4_5/000000.parquet", [{"text": "甲", "score": 0.7, "source": "cci3"}, {"text": "乙", "score": 0.8, "source": "map"}]),
        ("2021-31_zh_head_0000.jsonl", [{"text": "甲"}, {"text": "乙"}]),
        # WanJuan-1.0 and 2.0
        ("part-000036-a894b46e.jsonl", [{"id": "BkORdv3xK7IA0HG7pccr", "content": "甲"}, {"id": "B", "content": "乙"}]),
    ],
)  # fmt: skip
def test_web_corpora_with_one_field_of_text(name: str, records: list[dict[str, Any]], tmp_path: Path) -> None:
    if name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        (tmp_path / name).parent.mkdir()
        parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / name)
    else:
        put(tmp_path / name, lines(*records))
    assert texts_of(tmp_path) == ["甲", "乙"]


def test_wudao_pages_have_title_and_content(tmp_path: Path) -> None:
    pages = [
        {"id": 1, "uniqueKey": "a1", "titleUkey": "b1", "dataType": "百科", "title": "题", "content": "甲\n乙"},
        {"id": 2, "uniqueKey": "a2", "titleUkey": "b2", "dataType": "博客", "title": "", "content": "丙"},
    ]
    put(tmp_path / "WuDaoCorpus2.0_base_200G" / "part-2021009337.json", json.dumps(pages, ensure_ascii=False))
    assert texts_of(tmp_path) == ["题\n甲\n乙", "丙"]


def test_wanjuan_pages_with_a_title(tmp_path: Path) -> None:
    put(tmp_path / "part-006853.jsonl", lines({"id": "x", "title": "题", "content": "甲", "q_main": None}))
    assert texts_of(tmp_path) == ["题\n甲"]


def test_thucnews_folders_give_one_document_a_file_in_natural_order(tmp_path: Path) -> None:
    for label in ("体育", "财经"):
        for number in (0, 1, 2, 10):
            put(tmp_path / "THUCNews" / label / f"{number}.txt", f"{label}{number}\n　　正文。\n")
    documents, _ = read(tmp_path / "THUCNews")
    assert [document.source for document in documents][:5] == [
        "体育/0.txt",
        "体育/1.txt",
        "体育/2.txt",
        "体育/10.txt",
        "财经/0.txt",
    ]
    assert documents[3].text == "体育10\n正文。"


ARTICLE = '<doc id="{0}" url="https://zh.wikipedia.org/wiki?curid={0}" title="{1}">\n{1}\n\n{2}\n\n</doc>\n'


def test_wiki_files_without_suffix_are_read_as_what_they_hold(tmp_path: Path) -> None:
    put(
        tmp_path / "AA" / "wiki_00",
        ARTICLE.format(13, "数学", "数学是研究数量的学科。\n第二段。") + ARTICLE.format(18, "空", ""),
    )
    page = {
        "id": "53",
        "revid": "1",
        "url": "https://zh.wikipedia.org/wiki?curid=53",
        "title": "文学",
        "text": "文学\n\n是一种艺术。",
    }
    put(tmp_path / "AA" / "wiki_01", lines(page, page))
    put(tmp_path / "AB" / "wiki_02.bz2", bz2.compress(ARTICLE.format(21, "物理", "物理学。").encode()))
    put(tmp_path / "AB" / "wiki_notes", "no article")
    documents, report = read(tmp_path)
    assert [(document.text, document.source) for document in documents] == [
        ("数学\n\n数学是研究数量的学科。\n第二段。", "AA/wiki_00:1"),
        ("文学\n\n是一种艺术。", "AA/wiki_01:1"),
        ("文学\n\n是一种艺术。", "AA/wiki_01:2"),
        ("物理\n\n物理学。", "AB/wiki_02.bz2:1"),
    ]  # fmt: skip
    assert report.total("empty_documents") == 1 and report.skipped == ["AB/wiki_notes"]


def test_a_wiki_file_that_ends_in_an_article_is_told(tmp_path: Path) -> None:
    text = ARTICLE.format(1, "一", "文" * 50) * 3 + "stray\n" + ARTICLE.format(2, "二", "字")[:-8]
    put(tmp_path / "wiki_00", text)
    documents, report = read(tmp_path, max_broken_share=0.5)
    assert len(documents) == 3 and report.total("broken_records") == 2
    assert [sample["place"] for sample in report.samples] == ["wiki_00:19", "wiki_00:20"]


def test_extracted_wiki_pages_in_json_files(tmp_path: Path) -> None:
    put(tmp_path / "wiki_zh" / "a.json", lines({"id": "1", "url": "u", "title": "题", "text": "题\n\n文。"}))
    assert texts_of(tmp_path) == ["题\n\n文。"]


def test_the_report_of_very_many_files_stays_small(tmp_path: Path) -> None:
    count = MAX_FILES + 100
    for number in range(count):
        text = f"第{number}篇文章，说的是一件大家都知道的事情，我们来看看。"
        put(tmp_path / f"c{number % 3}" / f"{number}.txt", text.encode("gb18030" if number % 3 else "utf-8"))
    put(tmp_path / "c0" / "broken.jsonl", '{"text": "甲"}\n{"text": \n')
    for number in range(MAX_FILES + 5):
        put(tmp_path / "c1" / f"{number}.pdf", b"")
    _, report = read(tmp_path)
    drops = report.as_dict()
    assert [file["name"] for file in drops["files"]] == ["c0/broken.jsonl"]
    totals = {(group["folder"], group["encoding"]): group for group in drops["groups"]}
    assert set(totals) == {("c0", "utf-8"), ("c1", "gb18030"), ("c2", "gb18030")}
    assert sum(group["files"] for group in drops["groups"]) == count + 1
    for name in ("documents", "bytes", "broken_records", "broken_bytes"):
        assert sum(group[name] for group in drops["groups"]) == drops[name] == report.total(name)
    assert len(drops["skipped"]) == MAX_FILES and drops["skipped_files"] == MAX_FILES + 5
    told = describe_drops(json.loads(json.dumps(drops)))
    assert f"and {MAX_FILES + 2} more" in told[0]
    assert told[1] == "not plain UTF-8: 100 files in c1 (gb18030), 100 files in c2 (gb18030)"
    assert all(len(line) < 500 for line in told)


def test_more_folders_than_fit_are_summed_up_by_the_folders_above(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 50):
        put(tmp_path / f"part{number % 2}" / f"x{number}" / "a.txt", "文")
    groups = read(tmp_path)[1].as_dict()["groups"]
    assert [(group["folder"], group["files"]) for group in groups] == [("part0", 125), ("part1", 125)]


def test_a_link_to_a_file_that_is_read_anyway_is_read_once(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.txt", "文")
    for link, target in (("in/b.txt", "in/a.txt"), ("in/again", "in")):
        try:
            (tmp_path / link).symlink_to(tmp_path / target)
        except OSError:
            pytest.skip("this system makes no links")
    assert [path.name for path in list_files([str(tmp_path / "in"), str(tmp_path / "in" / "b.txt")])[0]] == ["a.txt"]
