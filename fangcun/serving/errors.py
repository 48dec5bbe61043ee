"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}} with the status that its clients know."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fangcun.errors import FangcunError, did_you_mean

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that cannot be served, with the status and the words that its sender gets."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> Response:
        """The whole answer."""
        return JsonResponse(self.body, self.status, self.headers)


def going_down() -> ApiError:
    """For a request that comes while the server shuts down."""
    return ApiError(503, "The server is going down and takes no new requests.", code="shutting_down", headers={"Retry-After": "5"})  # fmt: skip


class JsonResponse(Response):
    """JSON as orjson writes it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body's bytes."""
        return orjson.dumps(content)


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of `app` OpenAI's shape, those of unknown paths and of bugs too."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == 404:
            known = {getattr(route, "path", "") for route in app.routes} - {""}
            text = f"There is nothing at {path}.{did_you_mean(path, sorted(known))}"
        elif error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            text = f"{path} does not answer {request.method}, expected {allowed}."
        else:
            text = str(error.detail)
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
        return ApiError(error.status_code, text, code=code, headers=error.headers).response

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return ApiError(400, str(first["msg"]), param=".".join(map(str, first["loc"][1:]))).response

    async def mistaken(request: Request, error: Exception) -> Response:
        return ApiError(400, str(error)).response

    async def bug(request: Request, error: Exception) -> Response:
        logging.getLogger("fangcun.serving").error("%s %s failed", request.method, request.url.path)
        return ApiError(500, "The server failed at this request; its log has the details.", code="internal").response

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(FangcunError, mistaken)
    app.add_exception_handler(Exception, bug)
