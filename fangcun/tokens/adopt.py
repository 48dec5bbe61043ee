"""Adopt: token files that another program wrote become a tokens artefact.

nanoGPT, baby-llama2-chinese and Mini-LLM write what our shards are: ids of two (or four) bytes, end to end. The files
are copied as they are. Documents are found by the end-of-document token, and their bytes are those that the ids stand
for, since the text itself is not at hand.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fangcun.artifacts import Manifest, describe_inputs, fingerprint, write_artifact
from fangcun.errors import FangcunError
from fangcun.tokens.format import KIND, NUMBER, DtypeName, choose_dtype, disk_dtype, explain_write_errors, map_file
from fangcun.tokens.pack import Progress, artifact_fingerprint, split_counts

if TYPE_CHECKING:
    from fangcun.tokenizer import Tokenizer

_CHUNK_TOKENS = 1 << 22


def adopt(
    train: Path,
    val: Path | None,
    tokenizer_folder: Path,
    out: Path,
    dtype: DtypeName = "auto",
    *,
    progress: Progress | None = None,
) -> Manifest:
    """Make a tokens artefact at `out` from flat files of ids and the tokenizer folder that they were made with.

    dtype "auto": found from the files (see `infer_dtype`). Without `val` the validation split is empty. Bits per byte
    counts as comparable where no `<unk>` occurs. Raises FangcunError for files that are not ids of this tokenizer.
    """
    from fangcun.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(tokenizer_folder)
    files = {"train": Path(train)} | ({} if val is None else {"val": Path(val)})
    for file in files.values():
        if not file.is_file():
            raise FangcunError(f"{file} does not exist. Expected a file of token ids, such as nanoGPT's train.bin.")
    name = infer_dtype(list(files.values()), tokenizer.vocab_size) if dtype == "auto" else dtype
    for file in files.values():
        _check_ids(file, name, tokenizer.vocab_size)
    inputs = describe_inputs(list(files.values()))
    tokenizer_fp = artifact_fingerprint(tokenizer_folder, tokenizer)
    manifest = Manifest(
        KIND,
        fingerprint=fingerprint(KIND, "adopted", [entry["sha256"] for entry in inputs], name, tokenizer_fp),
        settings={
            "dtype": name,
            "vocab_size": tokenizer.vocab_size,
            "eos_id": tokenizer.eos_id,
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "adopted": True,
        },
        parents={"tokenizer": tokenizer_fp},
        inputs=inputs,
    )
    total_bytes = sum(entry["size_bytes"] for entry in inputs)
    done_bytes = 0
    with explain_write_errors(Path(out)), write_artifact(Path(out), manifest) as folder:
        for split in ("train", "val"):
            target = folder / f"{split}-00000.bin"
            if split in files:
                shutil.copyfile(files[split], target)
            else:
                target.touch()
            manifest.counts[split] = _describe(target, name, tokenizer)
            done_bytes += target.stat().st_size
            if progress is not None:
                progress(done_bytes, total_bytes)
    return manifest


def infer_dtype(files: list[Path], vocab_size: int) -> str:
    """The type with which all ids of the files are below vocab_size; uint32 before uint16 where both are possible.

    Ids of four bytes read as two are in range as well (every second is 0), ids of two bytes read as four are not,
    unless every second one is nearly 0. Files without any other id than 0 are taken for uint16.
    """
    fits: dict[str, int | None] = {}
    for name in ("uint32", "uint16"):
        size_bytes = disk_dtype(name).itemsize
        whole = all(file.stat().st_size % size_bytes == 0 for file in files)
        fits[name] = max(int(chunk.max()) for chunk in _chunks(files, name, default=True)) if whole else None
    if fits["uint32"] is not None and 0 < fits["uint32"] < vocab_size:
        return "uint32"
    if fits["uint16"] is not None and (fits["uint16"] < vocab_size or vocab_size <= 1 << 16):
        return "uint16"  # ids out of range are told of with their place by the check that follows
    if fits["uint16"] is None:
        odd = next(file for file in files if file.stat().st_size % 2)
        raise FangcunError(
            f"{odd} has {odd.stat().st_size:,} bytes, an odd number: it is no file of uint16 or uint32 token ids."
        )
    return choose_dtype("auto", vocab_size)


def _chunks(files: list[Path], dtype: str, *, default: bool = False) -> Iterator[np.ndarray]:
    """The ids of files, some million at a time. With `default`, a 0 first, so that there is always one."""
    if default:
        yield np.zeros(1, disk_dtype(dtype))
    for file in files:
        ids = map_file(file, disk_dtype(dtype))
        for start in range(0, len(ids), _CHUNK_TOKENS):
            yield ids[start : start + _CHUNK_TOKENS]


def _check_ids(file: Path, dtype: str, vocab_size: int) -> None:
    size_bytes = disk_dtype(dtype).itemsize
    if file.stat().st_size % size_bytes:
        raise FangcunError(
            f"{file} has {file.stat().st_size:,} bytes, which is no multiple of {size_bytes}: it is no file of {dtype} token ids. "
            "Say what it is with --tokens.dtype uint16 or uint32."
        )
    position = 0
    for chunk in _chunks([file], dtype):
        outside = np.flatnonzero(chunk >= vocab_size)
        if len(outside):
            first = int(outside[0])
            raise FangcunError(
                f"{file}: token {position + first:,} is id {int(chunk[first]):,}, but the tokenizer has {vocab_size:,} ids (read as "
                f"{dtype}). The file was made with another tokenizer: name that one with --tokenizer.path, or its type with --tokens.dtype."
            )
        position += len(chunk)


def _describe(target: Path, dtype: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Write .idx and .bytes beside a shard and count."""
    id_bytes = np.array(tokenizer.token_bytes(), dtype=np.int64)
    # A tokenizer whose <unk> is its end-of-document token gives no way to tell them apart.
    unk_id = None if tokenizer.unk_id == tokenizer.eos_id else tokenizer.unk_id
    tokens = documents = total_bytes = unk_tokens = 0
    open_bytes, open_tokens = 0, 0  # of the document that has not ended yet
    with open(target.with_suffix(".idx"), "wb") as ends_file, open(target.with_suffix(".bytes"), "wb") as bytes_file:

        def write(ends: np.ndarray, n_bytes: np.ndarray) -> None:
            nonlocal documents
            ends_file.write(ends.astype(NUMBER).tobytes())
            bytes_file.write(n_bytes.astype(NUMBER).tobytes())
            documents += len(ends)

        for chunk in _chunks([target], dtype):
            if unk_id is not None:
                unk_tokens += int((chunk == unk_id).sum())
            until = np.cumsum(id_bytes[chunk])
            ends = np.flatnonzero(chunk == tokenizer.eos_id)
            if len(ends):
                n_bytes = np.diff(until[ends], prepend=0)
                n_bytes[0] += open_bytes
                write(tokens + ends + 1, n_bytes)
                open_bytes, open_tokens = int(until[-1] - until[ends[-1]]), len(chunk) - int(ends[-1]) - 1
            else:
                open_bytes, open_tokens = open_bytes + int(until[-1]), open_tokens + len(chunk)
            tokens += len(chunk)
            total_bytes += int(until[-1])
        if open_tokens:  # text behind the last end is a document as well
            write(np.array([tokens]), np.array([open_bytes]))
    return split_counts(tokens, documents, total_bytes, unk_tokens)
