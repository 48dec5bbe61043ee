"""The door: which hosts, origins and keys come in, and the count of what went out.

A page of another site must not use a server on this machine: its requests bear its Origin, and a name that it has made
point here (DNS rebinding) stands in their Host.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fangcun.serving.errors import ApiError, going_down
from fangcun.serving.metrics import Metrics
from fangcun.serving.settings import ServerSettings

_LOCKED = ("/v1", "/api", "/metrics")
"""What wants the key, where one is set. The pages are open: what they show comes from these."""


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, metrics: Metrics, is_draining: Callable[[], bool]
    ) -> None:
        self._app, self._settings, self._metrics, self._is_draining = app, settings, metrics, is_draining
        self._hosts = {"localhost", settings.host.lower(), *(name.lower() for name in settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                headers.append((b"x-content-type-options", b"nosniff"))
            await send(message)

        try:
            try:
                self._check(scope)
            except ApiError as error:
                await error.response(scope, receive, counted)
            else:
                await self._app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in ("GET", "POST", "OPTIONS", "HEAD") else "other"
            self._metrics.requests.labels(route, method, str(status)).inc()

    def _check(self, scope: Scope) -> None:
        """Raise ApiError for a request that may not come in."""
        headers, path = Headers(scope=scope), scope["path"]
        self._check_host(headers)
        if self._settings.api_key is not None and path.startswith(_LOCKED):
            self._check_key(headers.get("authorization", ""), self._settings.api_key)
        if self._is_draining() and path.startswith("/v1") and scope["method"] == "POST":
            raise going_down()

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host")
        if host is not None and not self._is_ours(host):
            raise ApiError(
                403, f"This server does not answer to the name {host[:100]!r}. Use localhost or an address, or start it with --allowed-host NAME.", code="host_not_allowed"
            )  # fmt: skip
        origin = headers.get("origin")
        allowed = self._settings.cors_origins
        if origin is None or "*" in allowed or origin in allowed:
            return
        if host is None or urlsplit(origin).netloc.lower() != host.lower():
            raise ApiError(
                403, f"Pages of {origin[:100]!r} may not use this server. Start it with --cors-origin {origin[:100]} to let them.", code="origin_not_allowed"
            )  # fmt: skip

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._hosts or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    @staticmethod
    def _check_key(given: str, key: str) -> None:
        scheme, _, word = given.partition(" ")
        right = hmac.compare_digest(word.strip().encode("utf-8", "surrogateescape"), key.encode())
        if scheme.lower() != "bearer" or not right:
            raise ApiError(
                401, "The API key is missing or wrong. Send it as the header Authorization: Bearer KEY.", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )  # fmt: skip
