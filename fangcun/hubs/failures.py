"""What can go wrong on the way to a hub: failures that pass, answers that do not, and how long to be patient."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import Message
from email.utils import parsedate_to_datetime

from fangcun.errors import FangcunError

WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Between attempts; after the last the failure is an error. Bytes that arrive begin it anew."""
_FIRST_WAITS = 2
"""Waits while the host has never answered: without a network nobody should wait for minutes."""
_LONGEST_WAIT_SECONDS = 600.0
_RESET_SECONDS = re.compile(r"\bt=(\d+)")


class Cancelled(Exception):  # noqa: N818 - nothing went wrong
    """The user stopped it."""


class PassingError(Exception):
    """A failure that may be gone at the next attempt: a dropped connection, 5xx, 429."""

    def __init__(
        self, reason: str, wait_seconds: float | None = None, *, host: str = "", answered: bool = False
    ) -> None:
        """wait_seconds: what the server asks for. host: who failed, when it may not be the one that was asked first.
        answered: it was an answer, if not a good one."""
        super().__init__(reason)
        self.wait_seconds, self.host, self.answered = wait_seconds, host, answered


class StatusError(Exception):
    """An answer 4xx: it would be the same the next time."""

    def __init__(self, status: int, host: str, headers: Message | None = None, message: str = "") -> None:
        """message: what the server says, for people."""
        super().__init__(status)
        self.status, self.host, self.message = status, host, printable(message)
        self.code = headers.get("X-Error-Code", "") if headers else ""


class Patience:
    """Growing waits between attempts at one thing."""

    def __init__(self, host: str, cancel: threading.Event, *, known: bool) -> None:
        """known: the host has answered before."""
        self._host, self._cancel, self._known, self._used = host, cancel, known, 0

    def renew(self) -> None:
        """Something arrived."""
        self._known, self._used = True, 0

    def wait(self, failure: PassingError) -> None:
        """Sleep before the next attempt. Raises FangcunError when there were enough, Cancelled when the user stops."""
        self._known = self._known or failure.answered
        waits = WAITS_SECONDS if self._known else WAITS_SECONDS[:_FIRST_WAITS]
        host = failure.host or self._host
        if host != self._host:
            host = f"{host}, where {self._host} sends to,"
        if self._used >= len(waits) and not self._known:
            raise FangcunError(
                f"{host} cannot be reached: {failure}. Nothing was changed: check the network (or HTTPS_PROXY), or choose another --source."
            ) from failure
        if self._used >= len(waits):
            raise FangcunError(
                f"{host} fails: {failure}, {self._used + 1} times in a row. What was fetched is kept: check the network (or HTTPS_PROXY) "
                "and run the same command again, or choose another --source."
            ) from failure
        seconds = max(waits[self._used], failure.wait_seconds or 0.0)
        if seconds > _LONGEST_WAIT_SECONDS:
            raise FangcunError(
                f"{host} asks to wait {seconds:,.0f} seconds ({failure}). What was fetched is kept: run the same command again then."
            ) from failure
        self._used += 1
        if self._cancel.wait(seconds):
            raise Cancelled


@contextmanager
def network_failures(hosts: Sequence[str]) -> Iterator[None]:
    """Turn what the standard library raises while it talks into PassingError, or FangcunError where waiting cannot help.

    hosts: those that were talked to, the last of which failed.
    """
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise FangcunError(
            f"The certificate of {hosts[-1]} cannot be verified ({error.verify_message}): nothing was fetched from it. Behind a proxy that opens "
            "connections, set SSL_CERT_FILE to its certificate."
        ) from error
    except http.client.HTTPException as error:
        raise PassingError(f"the answer broke off ({type(error).__name__})", host=hosts[-1]) from error
    except ValueError as error:
        raise PassingError(f"it leads to an address that cannot be used ({error})", host=hosts[-1]) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            with network_failures(hosts):
                raise reason from error
        raise PassingError(_sentence(reason), host=hosts[-1]) from error


def _sentence(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return f"connection failed ({text})"


def printable(text: str) -> str:
    """A server's words, short, without what a terminal would obey."""
    words = " ".join(text.split())
    return "".join(letter for letter in words if letter.isprintable())[:200]


def retry_after_seconds(headers: Message) -> float | None:
    """What Retry-After (seconds or a date) or Hugging Face's RateLimit header asks for; None where neither is there."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    if value:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError, OSError):
            return None
    reset = _RESET_SECONDS.search(headers.get("RateLimit", ""))
    return float(reset[1]) if reset else None
