"""What is left out is counted by rule, with samples that depend on the documents alone; processes change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import fangcun

from fangcun.config import CleanConfig, CorpusConfig, DedupConfig, FilterConfig, Rules
from fangcun.corpus import build_corpus, corpus_fingerprint, iter_split, read_samples
from fangcun.corpus.drops import SAMPLES, Drops
from fangcun.errors import ConfigError, FangcunError

GOOD = "却说曹操引军攻吕布，布坚守不出，军中粮尽，众将皆有怨言，操乃与谋士商议退兵之计，忽报一人来见，乃故人许攸也，操大喜，跣足出迎，携手共入帐中。"


def write(folder: Path, records: list[str], name: str = "a.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in records))
    return folder


def records(count: int = 120) -> list[str]:
    out = []
    for number in range(count):
        out.append(
            [f"{GOOD}第{number}次。", f"短{number}", f"{GOOD}\n责任编辑：王{number}", "123 " * 20 + str(number)][
                number % 4
            ]
        )
    return out


RULES = Rules(CleanConfig(boilerplate=["web"]), FilterConfig(min_characters=20, max_digits=0.3))


def build(source: Path, out: Path, **settings) -> dict:
    config = CorpusConfig(paths=[str(source)], val_share=0.1, val_split="hash", **settings)
    build_corpus(config, out, RULES)
    return json.loads((out / "drops.json").read_text(encoding="utf-8"))


def test_every_rule_counts_its_documents_lines_and_bytes(tmp_path: Path) -> None:
    drops = build(write(tmp_path / "in", records()), tmp_path / "corpus")
    short = sum(len(f"短{n}".encode()) for n in range(1, 120, 4))
    assert drops["rules"]["min_characters"] == {"documents": 30, "lines": 0, "bytes": short}
    assert drops["rules"]["boilerplate"]["documents"] == drops["rules"]["boilerplate"]["lines"] == 30
    assert drops["rules"]["max_digits"]["documents"] == 30
    texts = [d.text for split in ("train", "val") for d in iter_split(tmp_path / "corpus", split)]
    assert len(texts) == 60
    assert not any("责任编辑" in text for text in texts)
    samples = list(read_samples(tmp_path / "corpus"))
    assert {sample["rule"] for sample in samples} == {"min_characters", "boilerplate", "max_digits"}
    digits = next(sample for sample in samples if sample["rule"] == "max_digits")
    assert (
        digits["source"].startswith("a.jsonl:") and "% digits" in digits["reason"] and digits["text"].startswith("123")
    )


def test_copies_are_left_out_and_say_of_what(tmp_path: Path) -> None:
    other = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。汉朝自高祖斩白蛇而起义，一统天下。"
    texts = [GOOD, other, GOOD.replace("，", " "), other + "后来光武中兴。", "短"]
    config = CorpusConfig(paths=[str(write(tmp_path / "in", texts))], val_share=0.0)
    build_corpus(config, tmp_path / "corpus", Rules(dedup=DedupConfig(exact=True, near=True)))
    kept = [d.text for d in iter_split(tmp_path / "corpus", "train")]
    assert len(kept) == 3 and "短" in kept and other + "后来光武中兴。" in kept
    drops = json.loads((tmp_path / "corpus" / "drops.json").read_text(encoding="utf-8"))["rules"]
    assert {name: count["documents"] for name, count in drops.items()} == {"exact_duplicate": 1, "near_duplicate": 1}
    reasons = {sample["rule"]: sample["reason"] for sample in read_samples(tmp_path / "corpus")}
    assert reasons["near_duplicate"] == "of a.jsonl:4"
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == [
        "dropped.jsonl.zst", "drops.json", "manifest.json", "train-00000.jsonl.zst", "val-00000.jsonl.zst",
    ]  # fmt: skip


def test_processes_do_not_change_a_byte(tmp_path: Path) -> None:
    source = write(tmp_path / "in", records(400))
    for workers in (1, 2):
        build(source, tmp_path / f"corpus{workers}", workers=workers)
    one, two = (sorted((tmp_path / f"corpus{n}").iterdir()) for n in (1, 2))
    assert [file.name for file in one] == [file.name for file in two]
    for left, right in zip(one, two, strict=True):
        assert left.read_bytes() == right.read_bytes() or left.name == "manifest.json"


def test_the_fingerprint_knows_the_rules_and_not_the_processes(tmp_path: Path) -> None:
    source = str(write(tmp_path / "in", records(8)))
    plain = corpus_fingerprint(CorpusConfig(paths=[source]))[0]
    assert corpus_fingerprint(CorpusConfig(paths=[source], workers=2), rules=Rules())[0] == plain
    assert corpus_fingerprint(CorpusConfig(paths=[source]), rules=RULES)[0] != plain
    assert corpus_fingerprint(CorpusConfig(paths=[source]), rules=Rules(dedup=DedupConfig(exact=True)))[0] != plain
    with pytest.raises(ConfigError, match=r"corpus\.preset is 'web'"):
        corpus_fingerprint(CorpusConfig(paths=[source], preset="web"))


def test_when_the_filters_drop_everything_the_rules_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "in", ["短一", "短二"])
    with pytest.raises(FangcunError, match=r"dropped all 2 documents \(min_characters 2\).*Loosen"):
        build(source, tmp_path / "corpus")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=5), max_size=150), st.randoms())
def test_samples_do_not_depend_on_the_order_of_the_documents(texts: list[str], draw) -> None:
    def samples(order: list[str]) -> list[str]:
        drops = Drops()
        for text in order:
            drops.drop("rule", "why", text, "place")
        count = drops.rules.get("rule")
        return sorted(sample["text"] for _, sample in count.samples) if count else []

    shuffled = texts[:]
    draw.shuffle(shuffled)
    texts = [text for text in texts if text.isprintable()]
    shuffled = [text for text in shuffled if text.isprintable()]
    assert samples(texts) == samples(shuffled)
    assert len(samples(texts)) == min(SAMPLES, len(set(texts)))


def test_a_recipe_with_a_preset_says_what_went_and_show_shows_it(tmp_path: Path) -> None:
    source = write(tmp_path / "in", records())
    run = tmp_path / "run"
    done = fangcun("corpus", "demo", "--text", str(source), "--corpus.preset", "news", "--out", str(run))
    assert done.returncode == 0, done.stderr
    assert "left out:" in done.stdout and "min_characters" in done.stdout
    shown = fangcun("corpus", "show", str(run), "--dropped", "min_characters", "--count", "2")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("短") == 2 and "characters" in shown.stdout
    listed = fangcun("corpus", "show", str(run))
    assert "boilerplate" in listed.stdout and "30" in listed.stdout
    wrong = fangcun("corpus", "show", str(run), "--dropped", "min_character")
    assert wrong.returncode == 2 and "Did you mean 'min_characters'?" in wrong.stderr


def test_a_wrong_preset_is_one_error_with_the_nearest(tmp_path: Path) -> None:
    wrong = fangcun("corpus", "demo", "--text", str(write(tmp_path / "in", records(4))), "--corpus.preset", "novle")
    assert wrong.returncode == 2
    assert "--corpus.preset: 'novle' is no preset. Did you mean 'novel'?" in wrong.stderr
    own = tmp_path / "own.yaml"
    own.write_text("clean:\n  tidy: false\ntrain:\n  max_steps: 3\n", encoding="utf-8")
    mixed = fangcun("corpus", "demo", "--text", str(tmp_path / "in"), "--corpus.preset", str(own))
    assert (
        mixed.returncode == 2
        and "own.yaml:4: train.max_steps: a preset has the sections clean, filter, dedup only" in mixed.stderr
    )


def test_a_flag_beats_the_recipe_beats_the_preset(tmp_path: Path) -> None:
    from fangcun.config import load_recipe

    file = tmp_path / "mine.yaml"
    file.write_text(
        "corpus:\n  preset: news\nfilter:\n  max_spam: 9.0\n  min_characters: 5\ntrain:\n  max_steps: 3\n",
        encoding="utf-8",
    )
    recipe = load_recipe(file, ["--filter.min_characters", "7", "--clean.mask", "email"]).recipe
    assert (recipe.filter.max_spam, recipe.filter.min_characters, recipe.filter.max_digits) == (9.0, 7, 0.25)
    assert recipe.clean.boilerplate == ["web"] and recipe.clean.mask == ["email"]


@pytest.mark.parametrize("repair", [False, True])
def test_text_that_was_misread_is_counted_and_repaired_when_asked(tmp_path: Path, repair: bool) -> None:
    from fangcun.corpus import describe_drops
    from fangcun.corpus.mojibake import garble

    texts = [GOOD, garble(GOOD + "第二次。", "utf-8 as latin-1")]
    config = CorpusConfig(paths=[str(write(tmp_path / "in", texts))], val_share=0.0)
    build_corpus(config, tmp_path / "corpus", Rules(CleanConfig(mojibake=repair)))
    kept = [d.text for d in iter_split(tmp_path / "corpus", "train")]
    assert (GOOD + "第二次。" in kept) == repair
    drops = json.loads((tmp_path / "corpus" / "drops.json").read_text(encoding="utf-8"))
    assert drops["mojibake"] == {"repaired": repair, "documents": {"utf-8 as latin-1": 1}}
    assert any("wrong encoding" in line and ("not repaired" in line) != repair for line in describe_drops(drops))
