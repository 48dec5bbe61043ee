"""Several named sources: each is read, cleaned and split by itself, and they are compared with each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import fangcun

from fangcun.config import CleanConfig, CorpusConfig, DedupConfig, FilterConfig, Rules, SourceConfig
from fangcun.corpus import build_corpus, corpus_fingerprint, iter_split, read_samples
from fangcun.errors import ConfigError, FangcunError

STORY = "却说曹操引军攻吕布，布坚守不出，军中粮尽，众将皆有怨言，操乃与谋士商议退兵之计，忽报一人来见，乃故人许攸也。"


def write(folder: Path, **files: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, texts in files.items():
        lines = (json.dumps({"body": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def config_of(folder: Path, **more: object) -> CorpusConfig:
    sources = {
        "books": SourceConfig([str(folder / "book.txt")], txt_split="chapter"),
        "web": SourceConfig([str(folder / "web.jsonl")], text_key="body", filter=FilterConfig(min_characters=6)),
    }
    return CorpusConfig(sources=sources, val_share=0.1, **more)  # type: ignore[arg-type]


def make(folder: Path) -> CorpusConfig:
    folder.mkdir()
    chapters = "".join(f"第{n}回 标题\n{STORY}{'天地玄黄' * n}\n" for n in range(1, 30))
    (folder / "book.txt").write_text(chapters, encoding="utf-8")
    write(folder, web=[f"网页第{n}篇，讲的是{chr(0x4E00 + n)}{chr(0x5E00 + n)}。" for n in range(400)] + ["短", STORY])
    return config_of(folder)


def test_each_source_has_its_own_reading_rules_and_share_of_the_validation_split(tmp_path: Path) -> None:
    manifest = build_corpus(make(tmp_path / "in"), tmp_path / "corpus", Rules(CleanConfig(width="letters")))
    assert manifest.settings["val_split_used"] == {"books": "tail", "web": "hash"}
    counts = {split: manifest.counts[split]["sources"] for split in ("train", "val")}
    assert list(counts["train"]) == ["books", "web"]
    for split in ("train", "val"):
        documents = list(iter_split(tmp_path / "corpus", split))
        begun = [document.source.partition("/")[0] for document in documents]
        assert begun == sorted(begun)  # one source after the other
        for name, count in counts[split].items():
            of_source = [d for d in documents if d.source.startswith(f"{name}/")]
            assert count["documents"] == len(of_source) and count["characters"] == sum(len(d.text) for d in of_source)
    books = counts["val"]["books"]["characters"] / sum(counts[s]["books"]["characters"] for s in counts)
    assert abs(books - 0.1) < 0.002 and 20 < counts["val"]["web"]["documents"] < 60
    assert {sample["rule"] for sample in read_samples(tmp_path / "corpus")} == {"min_characters"}


def test_copies_are_found_across_sources(tmp_path: Path) -> None:
    config = make(tmp_path / "in")
    (tmp_path / "in" / "book.txt").write_text(
        f"第一回\n{STORY}\n第二回\n{STORY}多一句。{STORY[::-1]}", encoding="utf-8"
    )
    assert config.sources is not None
    config.sources["books"].chapter_pattern = "^$^"  # never: one document
    config.sources["books"].txt_split = "blank_lines"
    (tmp_path / "in" / "book.txt").write_text(f"{STORY}\n\n{STORY[::-1]}", encoding="utf-8")
    config.val_share = 0.0
    build_corpus(config, tmp_path / "corpus", Rules(dedup=DedupConfig(exact=True)))
    (sample,) = [s for s in read_samples(tmp_path / "corpus") if s["rule"] == "exact_duplicate"]
    assert {sample["source"], sample["reason"].removeprefix("of ")} == {"books/book.txt:1", "web/web.jsonl:402"}


def test_the_fingerprint_follows_the_sources_and_not_where_they_lie(tmp_path: Path) -> None:
    config = make(tmp_path / "in")
    first = corpus_fingerprint(config)[0]
    (tmp_path / "in").rename(tmp_path / "moved")
    assert corpus_fingerprint(config_of(tmp_path / "moved"))[0] == first
    other = config_of(tmp_path / "moved")
    assert other.sources is not None
    other.sources["web"].filter = FilterConfig(min_characters=7)
    assert corpus_fingerprint(other)[0] != first
    other.sources["web"].filter = FilterConfig(min_characters=6)
    other.sources = dict(reversed(list(other.sources.items())))
    assert corpus_fingerprint(other)[0] != first  # the order in which they are read


def test_sources_beside_paths_are_refused(tmp_path: Path) -> None:
    config = make(tmp_path / "in")
    config.paths = ["x"]
    with pytest.raises(ConfigError, match="is one of them"):
        build_corpus(config, tmp_path / "corpus")


def test_an_exam_is_kept_out_of_training_and_the_drops_say_of_which_question(tmp_path: Path) -> None:
    question = "下列关于光合作用与呼吸作用之间相互关系的叙述中，正确的一项是哪一个选项，请从四个答案中选出来"
    write(
        tmp_path / "in",
        web=[f"练习：{question}？答案是甲", "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳", *(f"{STORY}{n}" for n in range(30))],
    )
    (tmp_path / "exam.csv").write_text(
        f",Question,A,B,Answer\n0,{question},甲,乙,A\n1,短问题,甲,乙,B\n", encoding="utf-8"
    )
    config = CorpusConfig(paths=[str(tmp_path / "in")], text_key="body", val_share=0.0)
    rules = Rules(dedup=DedupConfig(references=[str(tmp_path / "exam.csv")]))
    manifest = build_corpus(config, tmp_path / "corpus", rules)
    (sample,) = read_samples(tmp_path / "corpus")
    assert (
        sample["rule"] == "references"
        and "references/exam.csv:2" in sample["reason"]
        and question[:9] in sample["reason"]
    )
    texts = [d.text for split in ("train", "val") for d in iter_split(tmp_path / "corpus", split)]
    assert len(texts) == 31 and not any(question[:32] in text for text in texts)
    (tmp_path / "exam.csv").write_text(f",Question,A,B,Answer\n0,{question}了,甲,乙,A\n", encoding="utf-8")
    assert corpus_fingerprint(config, rules=rules)[0] != manifest.fingerprint
    (tmp_path / "exam.csv").write_text(",Question,A,B,Answer\n0,短问题,甲,乙,B\n", encoding="utf-8")
    with pytest.raises(FangcunError, match="13 characters or more"):
        build_corpus(config, tmp_path / "corpus", rules)


def test_training_does_not_hold_what_validation_asks(tmp_path: Path) -> None:
    shared = "此段文字既在训练文本之中又在验证文本之中因此训练的那一篇应当被去掉才对呢"
    texts = [f"{chr(0x4E00 + n) * 3}{STORY[n:]}{chr(0x6E00 + n) * 40}" for n in range(40)]
    texts[3] += shared
    texts[-1] += shared
    write(tmp_path / "in", web=texts)
    config = CorpusConfig(paths=[str(tmp_path / "in")], text_key="body", val_share=0.05, val_split="tail")
    build_corpus(config, tmp_path / "corpus", Rules(dedup=DedupConfig(held_out=True)))
    assert not any(shared in document.text for document in iter_split(tmp_path / "corpus", "train"))
    assert any(shared in document.text for document in iter_split(tmp_path / "corpus", "val"))
    reasons = [sample["reason"] for sample in read_samples(tmp_path / "corpus") if sample["rule"] == "held_out"]
    assert any("a.jsonl" in reason or "web.jsonl:40" in reason for reason in reasons)


def test_repeated_paragraphs_stay_once_and_what_is_left_is_filtered_again(tmp_path: Path) -> None:
    footer = "版权声明：本文系作者授权发表，未经许可不得转载使用"
    texts = [f"{STORY[n:]}{chr(0x6E00 + n)}\n{footer}" for n in range(20)] + [f"很短\n{footer}", footer + "！"]
    write(tmp_path / "in", web=texts)
    rules = Rules(filter=FilterConfig(min_characters=5), dedup=DedupConfig(paragraph_documents=4))
    config = CorpusConfig(paths=[str(tmp_path / "in")], text_key="body", val_share=0.0)
    build_corpus(config, tmp_path / "corpus", rules)
    kept = [document.text for document in iter_split(tmp_path / "corpus", "train")]
    assert sum(footer in text for text in kept) == 1 and all(len(text) >= 5 for text in kept)
    drops = json.loads((tmp_path / "corpus" / "drops.json").read_text(encoding="utf-8"))["rules"]
    assert drops["repeated_paragraphs"]["lines"] >= 19
    assert sum(STORY[n:] + chr(0x6E00 + n) in "\n".join(kept) for n in range(20)) == 20


def test_a_recipe_with_sources_walks_the_way_to_tokens_and_the_report_names_them(tmp_path: Path) -> None:
    make(tmp_path / "in")
    (tmp_path / "my.yaml").write_text(
        f"""
corpus:
  sources:
    books: {{paths: [{tmp_path}/in/book.txt], txt_split: chapter, preset: novel}}
    web: {{paths: [{tmp_path}/in/web.jsonl], text_key: body}}
tokenizer: {{kind: char}}
train: {{max_steps: 5}}
""",
        encoding="utf-8",
    )
    out = fangcun("pack", tmp_path / "my.yaml", "--out", tmp_path / "run")
    assert out.returncode == 0, out.stderr
    again = fangcun("pack", tmp_path / "run" / "recipe.yaml", "--out", tmp_path / "run")
    assert again.returncode == 0 and again.stdout.count("done before, skipped") == 3, again.stdout + again.stderr
    report = fangcun("corpus", "report", tmp_path / "run")
    assert "books" in report.stdout and "web" in report.stdout
