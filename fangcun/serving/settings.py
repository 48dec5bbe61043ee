"""What a server allows: addresses, keys, and the limits of one request."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fangcun.errors import FangcunError


@dataclass(frozen=True)
class ServerSettings:
    """Limits and doors of a server. Wrong values raise FangcunError, which names the setting."""

    host: str = "127.0.0.1"
    """Address to listen at. 0.0.0.0 is every network of the machine."""

    port: int = 8000
    """0 takes a free one."""

    api_key: str | None = None
    """What a client must send as `Authorization: Bearer KEY` to /v1, /api and /metrics. None: no key."""

    allowed_hosts: tuple[str, ...] = ()
    """Names beside localhost, `host` and plain addresses that a Host header may hold (behind a proxy)."""

    cors_origins: tuple[str, ...] = ()
    """Web pages of other origins that may use the server, such as https://example.org. Empty: none."""

    max_body_bytes: int = 1 << 20
    """Largest body of a request."""

    max_new_tokens: int = 2048
    """Most tokens that one sample may ask for."""

    max_samples: int = 256
    """Most samples (prompts times n) of one request."""

    timeout_seconds: float = 600.0
    """Longest time from a request to its last token, waiting included."""

    read_seconds: float = 30.0
    """Longest time that a client may take to send a body, or to take a part of the answer."""

    drain_seconds: float = 30.0
    """At a shutdown, how long running requests may go on."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise FangcunError(f"port is {self.port}, expected 0 to 65535 (0 takes a free one).")
        if self.api_key is not None and (not self.api_key.strip() or not self.api_key.isascii()):
            raise FangcunError("The API key is empty or not ASCII. Choose a word of letters and digits, or leave it out.")
        for name in ("max_body_bytes", "max_new_tokens", "max_samples"):
            if getattr(self, name) < 1:
                raise FangcunError(f"{name} is {getattr(self, name)}, expected a whole number >= 1.")
        for name in ("timeout_seconds", "read_seconds", "drain_seconds"):
            value = getattr(self, name)
            if not 0 <= value < math.inf or (value == 0 and name != "drain_seconds"):
                raise FangcunError(f"{name} is {value}, expected seconds above 0.")
        for origin in self.cors_origins:
            if origin != "*" and ("://" not in origin or origin.endswith("/")):
                raise FangcunError(
                    f"cors_origins holds {origin!r}, expected an origin such as https://example.org, without a path."
                )
