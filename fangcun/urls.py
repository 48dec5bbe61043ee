"""Which paths of a recipe are URLs: s3://bucket/run and the like, which no function for local paths may touch."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""Two letters at least: C:// is a drive of Windows."""


def is_url(path: object) -> bool:
    """Whether a setting names something behind a URL rather than a path of this machine."""
    return isinstance(path, str) and _SCHEME.match(path) is not None


def scheme_of(url: str) -> str:
    """What stands before ://, in lower case."""
    return url.partition("://")[0].lower()
