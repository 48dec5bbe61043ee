"""Sketches on disk, in the order of the documents: signatures a row each, band keys a band after the other in blocks.

The files only grow, a whole block at a time, so what a killed run has written can be gone on with.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fangcun.corpus.dedup.sketches import PLACES, Sketches, mix
from fangcun.errors import FangcunError

BANDS = 32
ROWS = PLACES // BANDS
"""Of a band. A pair of similarity J meets in a band with probability 1 - (1 - J^8)^32: 0.997 at 0.8, 0.002 at 0.3."""

BLOCK_DOCUMENTS = 4096
DOCUMENT = np.dtype([("exact", "<u8"), ("id", "<u8"), ("length", "<u4")])
_BLOCK_BYTES = {
    "documents.bin": BLOCK_DOCUMENTS * DOCUMENT.itemsize,
    "signatures.bin": BLOCK_DOCUMENTS * PLACES * 2,
    "bands.bin": BLOCK_DOCUMENTS * BANDS * 4,
}
_SETTINGS = "spool.json"


class Spool:
    """Files in `folder`: 660 bytes a document."""

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"format": 1, "places": PLACES, "bands": BANDS, "block": BLOCK_DOCUMENTS, **settings}
        about = self.folder / _SETTINGS
        if about.exists() and json.loads(about.read_text(encoding="utf-8")) != settings:
            raise FangcunError(
                f"{about} belongs to sketches made otherwise: expected {json.dumps(settings)}. Delete the folder, or choose another one."
            )
        about.write_text(json.dumps(settings), encoding="utf-8", newline="\n")
        self._files: dict[str, BinaryIO] = {}
        paths = {name: self.folder / name for name in _BLOCK_BYTES}
        blocks = min(path.stat().st_size // _BLOCK_BYTES[name] if path.exists() else 0 for name, path in paths.items())
        for name, path in paths.items():
            self._files[name] = file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
            file.truncate(blocks * _BLOCK_BYTES[name])
            file.seek(0, 2)
        self.documents = blocks * BLOCK_DOCUMENTS
        self._documents = np.zeros(BLOCK_DOCUMENTS, DOCUMENT)
        self._signatures = np.zeros((BLOCK_DOCUMENTS, PLACES), "<u2")

    def keep(self, documents: int) -> int:
        """Forget all but the first `documents`, and of these the last block if it is not whole; returns how many are left."""
        blocks = min(self.documents, documents) // BLOCK_DOCUMENTS
        for name, file in self._files.items():
            file.truncate(blocks * _BLOCK_BYTES[name])
            file.seek(0, 2)
        self.documents = blocks * BLOCK_DOCUMENTS
        return self.documents

    def add(self, sketches: Sketches, ids: np.ndarray) -> None:
        """Append documents."""
        done = 0
        while done < len(sketches):
            at = self.documents % BLOCK_DOCUMENTS
            count = min(BLOCK_DOCUMENTS - at, len(sketches) - done)
            here, there = slice(at, at + count), slice(done, done + count)
            self._signatures[here] = sketches.signatures[there]
            self._documents["exact"][here] = sketches.exact[there]
            self._documents["length"][here] = sketches.lengths[there]
            self._documents["id"][here] = ids[there]
            done += count
            self.documents += count
            if self.documents % BLOCK_DOCUMENTS == 0:
                self._write_block()

    def _write_block(self, documents: int = BLOCK_DOCUMENTS) -> None:
        self._files["signatures.bin"].write(self._signatures.tobytes())
        self._files["bands.bin"].write(_band_keys(self._signatures).T.tobytes())
        self._files["documents.bin"].write(self._documents[:documents].tobytes())

    def add_spool(self, folder: Path, documents: int) -> None:
        """Append the first `documents` of a spool in another folder that was opened when all were in it."""
        if not documents:
            return
        about = np.memmap(Path(folder) / "documents.bin", DOCUMENT, "r", shape=(documents,))
        signatures = np.memmap(Path(folder) / "signatures.bin", "<u2", "r", shape=(documents, PLACES))
        for start in range(0, documents, BLOCK_DOCUMENTS):
            rows = about[start : start + BLOCK_DOCUMENTS]
            self.add(Sketches(signatures[start : start + len(rows)], rows["exact"], rows["length"]), rows["id"])

    def open(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Memory maps of what was added: documents, signatures (documents, 256), band keys (blocks, 32, 4096)."""
        at = self.documents % BLOCK_DOCUMENTS
        positions = {name: file.tell() for name, file in self._files.items()}
        if at:  # the block begun, overwritten by the next one written; too short to count when opened again
            self._write_block(at)
        for name, file in self._files.items():
            file.flush()
            file.seek(positions[name])
        blocks = -(-self.documents // BLOCK_DOCUMENTS)
        shapes = {"documents.bin": (DOCUMENT, (self.documents,)), "signatures.bin": (np.dtype("<u2"), (blocks * BLOCK_DOCUMENTS, PLACES)), "bands.bin": (np.dtype("<u4"), (blocks, BANDS, BLOCK_DOCUMENTS))}  # fmt: skip
        if not blocks:
            return tuple(np.zeros(shape, dtype) for dtype, shape in shapes.values())  # type: ignore[return-value]
        documents, signatures, bands = (
            np.memmap(self.folder / name, dtype, "r", shape=shape) for name, (dtype, shape) in shapes.items()
        )
        return documents, signatures[: self.documents], bands

    def close(self) -> None:
        """Close the files; they stay."""
        for file in self._files.values():
            file.close()


def release(mapped: np.ndarray) -> None:
    """Give back the memory of what was read of a mapped file; it stays in the system's cache."""
    mapping = getattr(mapped, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _band_keys(signatures: np.ndarray) -> np.ndarray:
    """(documents, 32) uint32: equal where the eight places of a band are."""
    halves = np.ascontiguousarray(signatures).view("<u8").reshape(len(signatures), BANDS, ROWS * 2 // 8)
    keys = mix(halves[:, :, 0] + np.uint64(1))
    for half in range(1, halves.shape[2]):
        keys = mix(keys + halves[:, :, half])
    return keys.astype("<u4")
