"""Promise of packing: no byte lost, whatever the text, the encoder, the workers, the pieces, the shards, the kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fangcun.artifacts import Manifest, write_artifact
from fangcun.config.schema import TokensConfig
from fangcun.corpus import Document
from fangcun.corpus.shards import ShardWriter
from fangcun.tokenizer import Tokenizer
from fangcun.tokenizer.bulk import BulkEncoder, EncoderName, choose_encoder
from fangcun.tokens import open_split, pack

HAS_FASTOKENS = True
try:
    import fastokens  # noqa: F401
except ImportError:
    HAS_FASTOKENS = False

PIECES = [
    "<|endoftext|>",
    "却说曹操，",
    "\n\n  ",
    "don't ",
    "🐼🏽",
    "𠀀",
    "e\u0301",
    "12345",
    "\u180e",
    "\U00016a40",
    "שלום",
]
TEXTS = st.lists(
    st.text(max_size=80) | st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"])).map("".join),
    max_size=12,
)
PACK = sys.modules["fangcun.tokens.pack"]


def write_corpus(folder: Path, train: list[str], val: list[str]) -> Path:
    manifest = Manifest("corpus", fingerprint="any")
    with write_artifact(folder, manifest) as inside:
        for split, texts in (("train", train), ("val", val)):
            with ShardWriter(inside, split) as writer:
                for i, text in enumerate(texts):
                    writer.write(Document(text, "text", str(i)))
            manifest.counts[split] = writer.counts()
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


@pytest.fixture(scope="module")
def encoders(bpe_folder: Path) -> dict[str, BulkEncoder]:
    """tokenizers, and fastokens where it is installed, compared once for all examples."""
    tokenizer = Tokenizer.load(bpe_folder)
    names: list[EncoderName] = ["tokenizers", "fastokens"] if HAS_FASTOKENS else ["tokenizers"]
    return {name: choose_encoder(tokenizer, [], 0, name) for name in names}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    train=TEXTS,
    val=TEXTS,
    shard_tokens=st.integers(1, 8) | st.integers(9, 300),
    piece_characters=st.integers(1, 60),
    workers=st.integers(1, 3),
)
def test_the_text_comes_back_from_the_shards(
    bpe_folder: Path,
    encoders: dict[str, BulkEncoder],
    train: list[str],
    val: list[str],
    shard_tokens: int,
    piece_characters: int,
    workers: int,
) -> None:
    tokenizer = Tokenizer.load(bpe_folder)
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        corpus = write_corpus(Path(scratch) / "corpus", train, val)
        made: list[dict[str, bytes]] = []
        patch.setattr(PACK, "PIECE_CHARACTERS", piece_characters)
        for sync in ("sync_file", "sync_folder"):  # hundreds of shards would wait for the disk
            patch.setattr(f"fangcun.artifacts.folder.{sync}", lambda _: None)
        for name, encoder in encoders.items():
            patch.setattr("fangcun.tokenizer.bulk.choose_encoder", lambda *_, encoder=encoder: encoder)
            # Processes of their own for each example would take minutes; test_pack_corpus has them.
            config = TokensConfig(shard_tokens=shard_tokens, workers=workers if encoder.in_threads else 1)
            pack(corpus, bpe_folder, Path(scratch) / name, config)
            made.append(content_of(Path(scratch) / name))
        assert made[0] == made[-1]
        for split, texts in (("train", train), ("val", val)):
            tokens = open_split(Path(scratch) / list(encoders)[-1], split)
            ids = tokens.read(0, tokens.n_tokens).tolist()
            ends = tokens.document_ends.tolist()
            documents = [ids[a:b] for a, b in pairwise([0, *ends])]
            assert len(ids) == (ends[-1] if ends else 0)
            assert [document[-1] for document in documents] == [tokenizer.eos_id] * len(texts)
            assert [tokenizer.decode(document) for document in documents] == texts
            assert tokens.document_bytes.tolist() == [len(text.encode()) for text in texts]
            # Pieces are cut where that changes no id.
            assert [document[:-1] for document in documents] == tokenizer.encode_documents(texts)


@pytest.mark.skipif(not HAS_FASTOKENS, reason="fastokens is not installed")
def test_the_manifest_does_not_tell_which_encoder_ran(tmp_path: Path, bpe_folder: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", ["却说曹操，" * 90, "", "don't\n"], ["x"])
    manifests = []
    for encoder in ("tokenizers", "fastokens"):
        manifest = pack(corpus, bpe_folder, tmp_path / encoder, TokensConfig(encoder=encoder))
        manifests.append((manifest.fingerprint, manifest.settings, manifest.counts, manifest.files))
    assert manifests[0] == manifests[1]


def test_a_character_vocabulary_gives_the_same_files_by_table_and_by_library(
    tmp_path: Path, make_characters: Callable[..., Path]
) -> None:
    folder = make_characters("却说曹操，don't\n")
    corpus = write_corpus(tmp_path / "corpus", ["却说曹操，" * 90, "", "don't 🐼\n"] * 40, ["<|endoftext|>"])
    pack(corpus, folder, tmp_path / "a", TokensConfig(workers=3))
    pack(corpus, folder, tmp_path / "b", TokensConfig(encoder="tokenizers"))
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")


SLOWLY = """
    import sys, time
    from pathlib import Path
    from fangcun.config.schema import TokensConfig
    import fangcun.tokens
    import fangcun.artifacts.folder as artifacts
    import fangcun.tokens.work as packing_work
    packing = sys.modules["fangcun.tokens.pack"]
    corpus, tokenizer, out, where = sys.argv[1:5]
    def stop(*_, **__):
        print("here", flush=True)
        time.sleep(60)
    calls = 0
    def pause(original, at):
        def wrapped(*arguments, **more):
            global calls
            calls += 1
            if calls == at:
                stop()
            return original(*arguments, **more)
        return wrapped
    packing.PIECE_CHARACTERS = 500
    packing.SAVE_TOKENS = 300
    if where == "writing":
        packing.DocumentJoiner.add = pause(packing.DocumentJoiner.add, 4)
    elif where == "saving":
        packing_work.write_text_atomic = pause(packing_work.write_text_atomic, 4)
    elif where == "handing over":
        Path.rename = pause(Path.rename, 3)
    elif where == "hashing":
        artifacts.file_sha256 = pause(artifacts.file_sha256, 2)
    elif where == "swapping":
        artifacts.replace_artifact = pause(artifacts.replace_artifact, 1)
    packing.pack(Path(corpus), Path(tokenizer), Path(out), TokensConfig(shard_tokens=700), tell=print)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("where", ["writing", "saving", "handing over", "hashing", "swapping"])
def test_killed_and_run_again_the_files_are_the_same(tmp_path: Path, bpe_folder: Path, where: str) -> None:
    corpus = write_corpus(tmp_path / "corpus", ["却说曹操，引军而去。\n" * 30] * 20, ["don't"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PACK, "PIECE_CHARACTERS", 500)
        pack(corpus, bpe_folder, tmp_path / "never-killed", TokensConfig(shard_tokens=700))
    out = tmp_path / "runs" / "tokens"
    (tmp_path / "slowly.py").write_text(textwrap.dedent(SLOWLY))
    command = [sys.executable, str(tmp_path / "slowly.py"), str(corpus), str(bpe_folder), str(out)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    packing = subprocess.Popen([*command, where], env=env, stdout=subprocess.PIPE, text=True)
    assert packing.stdout is not None
    assert packing.stdout.readline() == "here\n"
    packing.send_signal(signal.SIGKILL)
    packing.wait(timeout=20)
    packing.stdout.close()
    assert not out.exists()  # whole or not there
    started = time.monotonic()
    again = subprocess.run([*command, "nowhere"], env=env, check=True, timeout=60, capture_output=True, text=True)
    assert ("going on" in again.stdout) == (where in ("writing", "saving"))
    assert time.monotonic() - started < 60
    assert content_of(out) == content_of(tmp_path / "never-killed")
    shards = [np.fromfile(path, "<u2") for path in sorted(out.glob("train-*.bin"))]
    assert len(shards) > 2
    assert sum(map(len, shards)) == open_split(out, "train").n_tokens
