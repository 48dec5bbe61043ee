"""Tokens packed by tasks have the bytes of those packed by a single process, however the text is cut."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cluster_inputs import content, manifest_of, without_executor
from tiny import fangcun, story, tiny_flags

from fangcun.artifacts import read_manifest
from fangcun.cluster import packing
from fangcun.cluster.packing import pack_by_tasks
from fangcun.config import CorpusConfig, SourceConfig, TokenizerConfig, TokensConfig
from fangcun.config.cluster import ClusterConfig
from fangcun.corpus import build_corpus
from fangcun.corpus.shards import ShardWriter
from fangcun.tokenizer import build_tokenizer
from fangcun.tokens import pack
from fangcun.tokens.windows import cut_windows, read_window


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus of two sources in many shards, and a character tokenizer that does not know all of its characters."""
    folder = tmp_path_factory.mktemp("made")
    draw = random.Random(1)
    lines = story(1, 600).splitlines()
    documents = ["\n".join(lines[at : at + draw.choice((1, 2, 5))]) for at in range(0, 590, 4)] * 3
    for name in ("a", "b"):
        draw.shuffle(documents)
        text = "\n\n".join(f"{name}{number}{text}" for number, text in enumerate(documents))
        (folder / f"{name}.txt").write_text(text + "\n\n" + story(2, 90), encoding="utf-8")
    sources = {name: SourceConfig([str(folder / f"{name}.txt")]) for name in ("a", "b")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ShardWriter.__init__.__kwdefaults__, "shard_bytes", 30_000)
        build_corpus(CorpusConfig(sources=sources, txt_split="blank_lines", val_share=0.2), folder / "corpus")
    (folder / "few.txt").write_text(story(3, 10), encoding="utf-8")
    build_corpus(CorpusConfig(paths=[str(folder / "few.txt")]), folder / "few")
    build_tokenizer(TokenizerConfig(kind="char"), folder / "few", folder / "tokenizer")
    return folder / "corpus", folder / "tokenizer"


@pytest.mark.parametrize(("tasks", "shard_tokens"), [(1, 1 << 28), (3, 1000), (20, 400), (100, 3000)])
def test_tasks_make_the_same_files_however_many_there_are(
    tmp_path: Path, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tasks: int, shard_tokens: int
) -> None:
    corpus, tokenizer = made
    config = TokensConfig(shard_tokens=shard_tokens, workers=1)
    alone = pack(corpus, tokenizer, tmp_path / "alone", config)
    without_executor(monkeypatch, packing)
    pack_by_tasks(corpus, tokenizer, tmp_path / "tokens", config, ClusterConfig("local", tasks))
    assert content(tmp_path / "tokens") == content(tmp_path / "alone")
    assert manifest_of(tmp_path / "tokens") == manifest_of(tmp_path / "alone")
    assert alone.counts["train"]["unk_tokens"] and alone.counts["val"]["lossy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "tokens"]


def test_windows_hold_each_document_once_and_in_order(made: tuple[Path, Path]) -> None:
    corpus, _ = made
    source = read_manifest(corpus, "corpus")
    whole = [d.id for split in ("train", "val") for d in _documents(corpus, source, split)]
    for target in (10**9, 20_000, 3_000, 200):
        windows = cut_windows(source, target)
        assert [d.id for window in windows for d in read_window(corpus, window)] == whole
    assert len(windows) > 100


def _documents(corpus: Path, source, split: str):
    from fangcun.corpus.shards import read_shards

    return read_shards([corpus / name for name in sorted(source.files) if name.startswith(f"{split}-")])


def test_a_recipe_with_an_executor_makes_the_artefacts_of_one_without(tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason="datatrove is not installed (extra cluster)")
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.txt").write_text(story(number, 300), encoding="utf-8")
    flags = ["--text", str(tmp_path / "in"), "--corpus.txt_split", "blank_lines"]
    alone = fangcun("pack", "demo", *tiny_flags(*flags, "--out", str(tmp_path / "alone")))
    assert alone.returncode == 0, alone.stderr
    tasks = ["--cluster.executor", "local", "--cluster.tasks", "2", "--cluster.workers", "2"]
    by_tasks = fangcun("pack", "demo", *tiny_flags(*flags, *tasks, "--out", str(tmp_path / "run")))
    assert by_tasks.returncode == 0, by_tasks.stderr
    assert "tasks by local" in by_tasks.stdout and not by_tasks.stderr.strip()
    for stage in ("corpus", "tokenizer", "tokens"):
        assert content(tmp_path / "run" / stage) == content(tmp_path / "alone" / stage)
        assert manifest_of(tmp_path / "run" / stage) == manifest_of(tmp_path / "alone" / stage)
    again = fangcun("pack", str(tmp_path / "run" / "recipe.yaml"), "--out", str(tmp_path / "run"))
    assert again.stdout.count("done before, skipped") == 3, again.stdout + again.stderr
