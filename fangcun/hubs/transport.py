"""GET requests to one hub, over the standard library: the token goes to that hub alone, wherever it redirects to."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPResponse
from typing import IO, Any
from urllib.parse import urlsplit

from fangcun.errors import FangcunError
from fangcun.hubs.failures import (
    PassingError,
    Patience,
    StatusError,
    network_failures,
    retry_after_seconds,
)
from fangcun.hubs.sources import Repository
from fangcun.version import __version__

TIMEOUT_SECONDS = 30.0
"""For a connection, and for each piece of an answer."""
_JSON_LIMIT_BYTES = 256 << 20
_MESSAGE_LIMIT_BYTES = 1 << 16
_PORTS = {"http": 80, "https": 443}


default_certificates = ssl.create_default_context
"""Whom to believe over https: the system's authorities, or SSL_CERT_FILE's."""


class Transport:
    """Requests on behalf of one repository. May be used by several threads."""

    def __init__(self, repository: Repository, cancel: threading.Event | None = None) -> None:
        """cancel: set from elsewhere, ends every wait between attempts."""
        self.repository = repository
        self.cancel = cancel or threading.Event()
        self.answered = False
        """Whether the hub has answered anything yet."""
        self._opener = urllib.request.OpenerDirector()
        # Not build_opener: its file: and ftp: handlers have no business here.
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=default_certificates()),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
            _Redirects(repository),
        ):
            self._opener.add_handler(handler)

    def patience(self) -> Patience:
        """Patience for one request, or one file."""
        return Patience(self.repository.host, self.cancel, known=self.answered)

    def open(self, url: str, *, start_bytes: int = 0) -> HTTPResponse:
        """One attempt at a GET, from an offset on. Raises PassingError, StatusError, FangcunError."""
        request = _Request(url, {"User-Agent": f"fangcun/{__version__}"}, [self.repository.host])
        if start_bytes:
            request.add_header("Range", f"bytes={start_bytes}-")
        _authorize(request, self.repository)
        try:
            with network_failures(request.hosts):
                response = self._opener.open(request, timeout=TIMEOUT_SECONDS)
        except PassingError as failure:
            cause = failure.__cause__
            if not isinstance(cause, urllib.error.HTTPError):
                raise
            self.answered = True
            raise _failure(cause) from None
        self.answered = True
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            response.close()
            raise FangcunError(
                f"{self.repository.host} sends {url} packed, which nobody asked for. Try another --source."
            )
        return response

    def get_json(self, url: str, *, allowed: bool = False) -> tuple[Any, Message]:
        """A JSON answer and its headers, with patience. Raises StatusError, FangcunError, Cancelled.

        allowed: reading this repository went well before, so that a 403 is a hiccup.
        """
        patience = self.patience()
        while True:
            try:
                with self.open(url) as response:
                    with network_failures([final_host(response)]):
                        raw = response.read(_JSON_LIMIT_BYTES + 1)
                    expected = response.headers.get("Content-Length", "")
                    if expected.isdecimal() and len(raw) < min(int(expected), _JSON_LIMIT_BYTES + 1):
                        raise PassingError("the answer broke off")
                    headers = response.headers
                break
            except StatusError as refusal:
                if not (allowed and refusal.status == 403):
                    raise
                patience.wait(PassingError("403 on a repository that could be read a moment ago"))
            except PassingError as failure:
                patience.wait(failure)
        try:
            if len(raw) > _JSON_LIMIT_BYTES:
                raise ValueError(f"more than {_JSON_LIMIT_BYTES >> 20} MiB")
            return json.loads(raw), headers
        except (ValueError, RecursionError) as error:
            raise FangcunError(
                f"{self.repository.host} answers {urlsplit(url).path} with something that is no JSON ({error}). Is it {_kind_of(self.repository)}?"
            ) from error


class _Request(urllib.request.Request):
    """A request that knows where it was sent on to, so that a failure names the host that failed."""

    def __init__(self, url: str, headers: dict[str, str], hosts: list[str]) -> None:
        super().__init__(url, headers=headers)
        self.hosts = hosts


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects; the token goes along only to where it was meant for, and never from https to http."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if before.scheme == "https" and after.scheme != "https":
            raise FangcunError(
                f"{before.netloc} redirects from https to {after.scheme}://{after.netloc}, unencrypted: not followed. Choose another --source."
            )
        hosts = req.hosts if isinstance(req, _Request) else []
        hosts.append(after.netloc)
        # `headers` of a request are those that were added to be redirected; the token never is.
        request = _Request(newurl, dict(req.headers), hosts)
        _authorize(request, self._repository)
        return request

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # known to Python from 3.11 on


def _authorize(request: urllib.request.Request, repository: Repository) -> None:
    """Add the token when the request goes to the hub that it is for: same scheme, host and port."""
    if repository.token is None or _origin(request.full_url) != _origin(repository.endpoint):
        return
    request.add_unredirected_header("Authorization", f"Bearer {repository.token}")
    if repository.is_modelscope:  # older parts of its API know the cookie alone
        request.add_unredirected_header("Cookie", f"m_session_id={repository.token}")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parsed = urlsplit(url)
    return parsed.scheme, parsed.hostname, parsed.port or _PORTS.get(parsed.scheme)


def final_host(response: HTTPResponse) -> str:
    """The host that answers, after all redirects."""
    return urlsplit(response.geturl() or "").netloc


def _failure(error: urllib.error.HTTPError) -> PassingError | StatusError:
    """An answer that is no success. Its body is read here, and closed."""
    host = urlsplit(error.url or "").netloc
    with error:
        if error.code >= 500 or error.code in (408, 425, 429):
            return PassingError(f"HTTP {error.code}", retry_after_seconds(error.headers), host=host, answered=True)
        if 300 <= error.code < 400:
            return PassingError(f"HTTP {error.code} that leads nowhere", host=host, answered=True)
        message = error.headers.get("X-Error-Message", "") or _message(error)
        return StatusError(error.code, host, error.headers, message)


def _message(error: urllib.error.HTTPError) -> str:
    """What a JSON body says is wrong, or nothing."""
    try:
        with network_failures([""]):
            body = json.loads(error.read(_MESSAGE_LIMIT_BYTES))
        found = body.get("Message") or body.get("error") or ""
    except (ValueError, AttributeError, PassingError):
        return ""
    return found if isinstance(found, str) else ""


def _kind_of(repository: Repository) -> str:
    return "ModelScope's API" if repository.is_modelscope else "a mirror of the Hugging Face API"
