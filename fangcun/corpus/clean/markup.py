"""What HTML leaves in text: entities and tags."""

from __future__ import annotations

import html
import re

_TAG = re.compile(
    r"</?(?:a|abbr|article|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|"
    r"input|label|li|link|main|meta|nav|ol|option|p|pre|script|section|select|small|span|strike|strong|style|sub|sup|table|tbody|td|"
    r"textarea|th|thead|title|tr|u|ul|video)(?:\s+[\w:-]+(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=]+))?)*\s*/?>",
    re.IGNORECASE,
)
"""Tags by name, with attributes of their form: `a < b and c > d` is none."""
_BREAK = re.compile(r"<(?:br|/?p|/?div|/?li|/?tr|/?h[1-6])\b", re.IGNORECASE)
_ENTITY = re.compile(
    r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});|&(?:nbsp|gt|lt|amp|quot)(?![A-Za-z=])"
)


def strip_markup(text: str) -> str:
    """Entities as the characters that they name; tags gone, those that end a paragraph as a line end."""
    while "&" in text or "<" in text:
        before = text
        if "&" in text:
            text = _ENTITY.sub(lambda match: html.unescape(match.group().rstrip(";") + ";"), text)
        if "<" in text:
            text = _TAG.sub(lambda match: "\n" if _BREAK.match(match.group()) else "", text)
        if text == before:
            break
    return text
