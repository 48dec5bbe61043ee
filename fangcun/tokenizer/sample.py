"""Text for training and for reports: blocks of a corpus, evenly spread, always the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

BLOCK_CHARACTERS = 16_384


def blocks(text: str, size: int = BLOCK_CHARACTERS) -> Iterator[str]:
    """Cut a long text into blocks of about `size` characters, behind line ends where there are any.

    A novel in one piece would make the trainer hold the cuts of the whole book at once.
    """
    start = 0
    while start < len(text):
        stop = start + size
        if stop < len(text):
            line_end = text.rfind("\n", start + size // 2, stop)
            stop = line_end + 1 if line_end >= 0 else stop
        yield text[start:stop]
        start = stop


def evenly(
    texts: Iterable[str], total_bytes: int, limit_bytes: int, progress: Callable[[int, int], None] | None = None
) -> Iterator[str]:
    """Blocks of `texts`, evenly spread over them, `limit_bytes` of UTF-8 in all at most (one block more at least).

    `total_bytes` is the size of all texts; when it fits, everything is given. `progress(read_bytes, total_bytes)`.
    """
    share = min(1.0, limit_bytes / total_bytes) if total_bytes else 1.0
    credit, read_bytes, taken = 0.0, 0, False
    for text in texts:
        for block in blocks(text):
            size = len(block.encode())
            read_bytes += size
            credit += size * share
            # The first block is taken however small the share is, so that a sample is never empty.
            if share == 1.0 or credit >= size or not taken:
                credit, taken = credit - size, True
                yield block
            if progress is not None:
                progress(read_bytes, max(total_bytes, read_bytes))
