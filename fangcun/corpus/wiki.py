"""Articles of a Wikipedia dump as WikiExtractor writes them: `<doc id="…" url="…" title="…">`, the text, `</doc>`.

The first line of an article is its title. One that has nothing else (a redirect, a list of templates) is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fangcun.corpus.documents import split_lines

START = "<doc "
_END = "</doc>"


def split_wiki(blocks: Iterable[str], on_broken: Callable[[int, str, str, int], None]) -> Iterator[tuple[int, str]]:
    """Yield (line of its `<doc`, text) for each article; one is held at a time.

    Text outside an article, and an article that does not end, are reported: line, reason, excerpt, bytes.
    """
    start, held = 0, []
    for number, line in enumerate(split_lines(blocks), 1):
        if line.startswith(START):
            if start:
                _report(on_broken, start, "an article without </doc>", held)
            start, held = number, []
        elif start and line.rstrip() == _END:
            yield start, _article(held)
            start, held = 0, []
        elif start:
            held.append(line)
        elif line.strip():
            _report(on_broken, number, "text outside <doc …> and </doc>", [line])
    if start:
        _report(on_broken, start, "an article without </doc>: the file ends in the middle", held)


def _article(lines: list[str]) -> str:
    return "\n".join(lines) if any(line.strip() for line in lines[1:]) else ""


def _report(on_broken: Callable[[int, str, str, int], None], line: int, reason: str, lines: list[str]) -> None:
    text = "\n".join(lines)
    on_broken(line, reason, text[:200], len(text.encode(errors="replace")))
