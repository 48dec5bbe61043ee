"""Which hub is meant: one of three by name, or the address of a mirror of the Hugging Face API. There is no default."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from fangcun.errors import ConfigError, did_you_mean

Kind = Literal["dataset", "model"]
KINDS: tuple[Kind, ...] = ("dataset", "model")

SOURCES = {
    "modelscope": "https://modelscope.cn",
    "hf-mirror": "https://hf-mirror.com",
    "huggingface": "https://huggingface.co",
}
"""Name of a source -> its address."""
_TOKENS = {"modelscope": "MODELSCOPE_API_TOKEN", "huggingface": "HF_TOKEN"}
"""Whose token the variable holds. A mirror is somebody else: it gets HF_TOKEN only when the user says so."""
_PART = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Repository:
    """What is to be fetched, and from where."""

    source: str
    """A name of SOURCES, or an address."""
    endpoint: str
    """Address without a slash at its end."""
    kind: Kind
    name: str
    """OWNER/NAME; a few old ones of Hugging Face's have no owner."""
    token: str | None = field(default=None, repr=False)
    """Sent to `endpoint` alone."""
    token_variable: str = ""
    """Environment variable that the token comes from, or would come from."""

    @property
    def is_modelscope(self) -> bool:
        """Whether it speaks ModelScope's API, not Hugging Face's."""
        return self.source == "modelscope"

    @property
    def host(self) -> str:
        """Host, and port where one is given."""
        return urlsplit(self.endpoint).netloc

    @property
    def page(self) -> str:
        """The page for people."""
        kind = f"{self.kind}s/" if self.kind == "dataset" or self.is_modelscope else ""
        return f"{self.endpoint}/{kind}{quote(self.name)}"

    @property
    def api(self) -> str:
        """Where its API begins."""
        prefix = "/api/v1" if self.is_modelscope else "/api"
        return f"{self.endpoint}{prefix}/{self.kind}s/{quote(self.name)}"


def choose(
    name: str, source: str | None, kind: str, *, send_token: bool = False, environment: Mapping[str, str] = os.environ
) -> Repository:
    """The repository that is meant. Contacts nothing. Raises ConfigError.

    The token of a gated repository is MODELSCOPE_API_TOKEN or HF_TOKEN from `environment`; a mirror gets the latter only
    with `send_token`.
    """
    if source is None:
        raise ConfigError(
            f"fangcun download needs the place to fetch from; none is chosen for you, and nothing was contacted. Add one of {_choices()}."
        )
    if kind not in KINDS:
        raise ConfigError(f"--kind: expected one of 'dataset', 'model', got '{kind}'.")
    if Path(name).is_dir() and (name.startswith((".", "/", "~")) or Path(name).is_absolute()):
        raise ConfigError(f"{name} is a folder here already, nothing to fetch: use it with --text or --tokenizer.path.")
    parts = name.split("/")
    if not 1 <= len(parts) <= 2 or not all(map(_PART.fullmatch, parts)) or (source == "modelscope" and len(parts) < 2):
        raise ConfigError(f"'{name}': no name of a repository. Expected OWNER/NAME, as in the address of its page.")
    if source in SOURCES:
        endpoint, variable = SOURCES[source], _TOKENS.get(source, "HF_TOKEN")
        sent = source in _TOKENS or send_token
    else:
        endpoint, variable, sent = _address(source), "HF_TOKEN", send_token
        source = endpoint
    token = (environment.get(variable) or "").strip() if sent else ""
    if token and not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{variable} holds no token: expected letters and digits without a space or a line's end.")
    return Repository(source, endpoint, "dataset" if kind == "dataset" else "model", name, token or None, variable)


def _address(source: str) -> str:
    try:
        parsed = urlsplit(source)
        usable = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        parsed, usable = urlsplit(""), False
    if not usable:
        raise ConfigError(
            f"--source: '{source}' is no source.{did_you_mean(source, SOURCES)} Expected one of {_choices()}."
        )
    if parsed.username or parsed.password or parsed.query or parsed.fragment:
        raise ConfigError(
            "--source: expected an address without user, password, ? and #. A token is taken from HF_TOKEN with --send-token."
        )
    return source.rstrip("/")


def _choices() -> str:
    named = ", ".join(f"--source {name}" for name in SOURCES)
    return f"{named}, or --source https://… for a mirror of the Hugging Face API"
