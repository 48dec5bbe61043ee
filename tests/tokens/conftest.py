"""Small tokenizers and corpora for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from fangcun.artifacts import Manifest, write_artifact
from fangcun.corpus import Document
from fangcun.corpus.shards import ShardWriter

TEXT = "话说天下大势，分久必合，合久必分。\nthe quick brown fox\n\n  jumps over 12 dogs.\n" * 20

MakeCorpus = Callable[..., Path]


def save_backend(backend: Backend, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def bpe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE of 300 ids; id 0 ends a document."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT], trainer)
    return save_backend(backend, tmp_path_factory.mktemp("bpe") / "tokenizer")


@pytest.fixture
def make_characters(tmp_path: Path) -> Callable[..., Path]:
    """make_characters(characters, lowercase=False) -> a tokenizer with one id a character, <unk> for others."""

    def make(characters: str, *, lowercase: bool = False) -> Path:
        vocabulary = {"<|endoftext|>": 0, "<unk>": 1} | {c: i + 2 for i, c in enumerate(sorted(set(characters)))}
        backend = Backend(models.WordLevel(vocabulary, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        if lowercase:
            backend.normalizer = normalizers.Lowercase()
        backend.add_special_tokens(["<|endoftext|>", "<unk>"])
        return save_backend(backend, tmp_path / f"characters-{len(vocabulary)}{'-lower' * lowercase}")

    return make


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    """make_corpus(train texts, val texts) -> a corpus folder."""

    def make(train: list[str], val: list[str] | None = None, name: str = "corpus") -> Path:
        manifest = Manifest("corpus", fingerprint=f"fingerprint of {name}")
        with write_artifact(tmp_path / name, manifest) as folder:
            for split, texts in (("train", train), ("val", val or [])):
                with ShardWriter(folder, split) as writer:
                    for i, text in enumerate(texts):
                        writer.write(Document(text, f"{split}.txt:{i + 1}", f"{split}{i}"))
                manifest.counts[split] = {
                    "documents": writer.documents,
                    "characters": writer.characters,
                    "bytes": writer.bytes,
                }
        return tmp_path / name

    return make
