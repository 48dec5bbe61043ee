"""Surprise as a page of its own: the text with each token's background by its bits, details on hover, no script."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from fangcun.evaluation.surprise import Stretch, Token

_STEPS = (0.5, 1, 2, 3, 4, 6, 8, 11, 15)
"""Bits at which the colour changes."""

_LIGHT = ("#ffffff", "#fff8e6", "#fff0c9", "#ffe5a6", "#ffd586", "#ffc06b", "#ffa558", "#fb864b", "#ec6442", "#d1453b")
_DARK = ("#16181c", "#232118", "#302a17", "#403416", "#534016", "#684a18", "#80511c", "#9a5522", "#b6562b", "#d45536")

_STYLE = (
    """
:root { color-scheme: light dark; }
body { margin: 2rem auto; max-width: 46rem; padding: 0 1rem; background: #fff; color: #1c1c1c;
  font: 1rem/1.9 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
h1 { font-size: 1.15rem; margin: 0; } p { margin: .2rem 0 1rem; color: #666; font-size: .9rem; line-height: 1.5; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; border-top: 1px solid #ddd; padding-top: 1rem; }
span[title] { border-radius: 3px; cursor: help; } span[title]:hover { outline: 1px solid #888; }
.key { display: inline-block; padding: 0 .45rem; border-radius: 3px; color: #1c1c1c; }
"""
    + "".join(f".s{n} {{ background: {colour}; }}\n" for n, colour in enumerate(_LIGHT))
    + ".s9 { color: #fff; }\n@media (prefers-color-scheme: dark) {\n"
    "body { background: #16181c; color: #e6e6e6; } p { color: #9aa0a6; } .text { border-color: #333; } .key { color: #e6e6e6; }\n"
    + "".join(f".s{n} {{ background: {colour}; }}\n" for n, colour in enumerate(_DARK))
    + "}\n"
)


def surprise_page(
    found: Sequence[Stretch], decode: Callable[[int], str], *, title: str, note: str = "", n_bytes: int | None = None
) -> str:
    """An HTML page. decode: the text of an id. note: a line below the title. n_bytes: of the text, for bits per byte."""
    tokens = sum(len(stretch.tokens) for stretch in found)
    bits = sum(stretch.bits for stretch in found)
    size = n_bytes if n_bytes is not None else sum(len(stretch.text.encode()) for stretch in found)
    per_byte = f", {bits / size:.4f} bits/byte" if size else ""
    body = "".join(_span(stretch, decode) for stretch in found)
    bounds = [f"&lt; {_STEPS[0]:g}", *(f"{low:g}" for low in _STEPS)]
    key = " ".join(f'<span class="key s{n}">{text}</span>' for n, text in enumerate(bounds))
    return (
        f'<!doctype html>\n<html lang="zh">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n"
        f"<p>{tokens:,} tokens, {bits:,.1f} bits{per_byte}{'<br>' + html.escape(note) if note else ''}<br>"
        f"bits / 比特: {key}</p>\n"
        f'<div class="text">{body}</div>\n</body>\n</html>\n'
    )


def _span(stretch: Stretch, decode: Callable[[int], str]) -> str:
    level = sum(stretch.bits >= step for step in _STEPS)
    details = "\n".join(_describe(token, decode) for token in stretch.tokens)
    if len(stretch.tokens) > 1:
        details = f"{stretch.bits:.2f} bits in {len(stretch.tokens)} tokens\n{details}"
    shown = html.escape(stretch.text)
    if stretch.text.endswith("\n"):
        shown = shown[:-1] + "⏎\n"  # an end of line has a surprise too, and no width
    return f'<span class="s{level}" title="{html.escape(details).replace(chr(10), "&#10;")}">{shown}</span>'


def _describe(token: Token, decode: Callable[[int], str]) -> str:
    best = ", ".join(f"{_visible(decode(index))} {_percent(chance)}" for index, chance in token.alternatives)
    return f"{token.bits:.2f} bits, rank {token.rank:,}; likeliest: {best}"


def _visible(text: str) -> str:
    return f"“{text}”".replace("\n", "⏎").replace("\t", "⇥") if text else "∅"


def _percent(chance: float) -> str:
    return f"{100 * chance:.{1 if chance < 0.1 and not math.isclose(chance, 0.1) else 0}f}%"
