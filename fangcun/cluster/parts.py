"""Which task reads which files: contiguous runs of about the same size, and windows of large files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from fangcun.cluster.job import count_tasks
from fangcun.config.cluster import ClusterConfig
from fangcun.corpus.files import suffixes
from fangcun.corpus.sources import Part, Source

MAX_WINDOWS = 32
"""Of one file: a task reads and passes over what lies before its own."""


@dataclass(frozen=True)
class Share:
    """What one task reads."""

    parts: dict[int, Part] = field(default_factory=dict)
    """By the number of the source."""
    size_bytes: int = 0

    def sources(self, sources: Sequence[Source]) -> list[Source]:
        """As many sources as there are, each with the files of this task only."""
        return [source.part(self.parts.get(number, Part(0, 0))) for number, source in enumerate(sources)]


def cut(sources: Sequence[Source], config: ClusterConfig) -> list[Share]:
    """The shares of the tasks in reading order. They depend on the files' sizes and on `config.tasks` alone."""
    total = sum(source.size_bytes for source in sources)
    target = max(1, -(-total // count_tasks(config, total)))
    shares: list[Share] = []
    parts: dict[int, Part] = {}
    filled = 0

    def close() -> None:
        nonlocal parts, filled
        if parts:
            shares.append(Share(parts, filled))
        parts, filled = {}, 0

    for number, source in enumerate(sources):
        for place, path in enumerate(source.files):
            size = source.sizes[path]
            whole = source.config.txt_split == "file" and suffixes(path)[0] in ("txt", "md")  # one document
            windows = 1 if whole else min(MAX_WINDOWS, round(size / target))
            if windows > 1:
                close()
                bounds = [size * window // windows for window in range(windows)] + [size + 1]
                for start, stop in itertools.pairwise(bounds):
                    shares.append(Share({number: Part(place, place + 1, (start, stop))}, min(stop, size) - start))
                continue
            if filled + size / 2 > target:
                close()
            begun = parts.get(number)
            parts[number] = Part(begun.first if begun else place, place + 1)
            filled += size
    close()
    return shares
