"""The endpoints of the OpenAI-compatible API over one engine."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from fangcun import __version__
from fangcun.errors import FangcunError
from fangcun.generation import Engine, LanguageModel
from fangcun.serving.answers import CLIENT_GONE, Answer, EventStream
from fangcun.serving.bridge import Generation
from fangcun.serving.choices import Choices
from fangcun.serving.errors import ApiError, JsonResponse, going_down
from fangcun.serving.metrics import Metrics
from fangcun.serving.plans import DEFAULTS, Plan, plan_chat, plan_completion
from fangcun.serving.schema import Call, ChatCall, CompletionCall, parse_call
from fangcun.serving.settings import ServerSettings
from fangcun.serving.shapes import ChatShape, CompletionShape, Shape

AnyCall = TypeVar("AnyCall", bound=Call)
RETRY_SECONDS = 1
"""What a client is told to wait when the queue is full."""


class Service:
    """One model behind /v1."""

    def __init__(
        self,
        engine: Engine,
        model_id: str,
        settings: ServerSettings,
        metrics: Metrics,
        *,
        is_draining: Callable[[], bool],
    ) -> None:
        self.engine, self.model_id, self.settings, self.metrics = engine, model_id, settings, metrics
        self._is_draining = is_draining
        self.created = int(time.time())
        told = f"{model_id} {__version__} {engine.lm.config} {engine.lm.model.embedding.weight.dtype}"
        self.fingerprint = f"fp_{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    @property
    def info(self) -> dict[str, Any]:
        """What a page has to know of the model."""
        lm = self.engine.lm
        return {
            "chat": lm.tokenizer.chat_template is not None,
            "block_size": lm.config.block_size,
            "vocab_size": lm.tokenizer.vocab_size,
            "max_new_tokens": self.settings.max_new_tokens,
            "max_batch": self.engine.max_batch,
            "defaults": {
                "temperature": DEFAULTS.temperature,
                "top_k": DEFAULTS.top_k or 0,
                "top_p": DEFAULTS.top_p,
                "min_p": DEFAULTS.min_p,
                "repetition_penalty": DEFAULTS.repetition_penalty,
                "frequency_penalty": DEFAULTS.frequency_penalty,
                "presence_penalty": DEFAULTS.presence_penalty,
                "no_repeat_ngram": DEFAULTS.no_repeat_ngram,
            },
        }

    @property
    def card(self) -> dict[str, Any]:
        """The model as /v1/models lists it; `info` is ours."""
        return {
            "id": self.model_id,
            "object": "model",
            "created": self.created,
            "owned_by": "fangcun",
            "info": self.info,
        }

    def models(self) -> Response:
        """GET /v1/models."""
        return JsonResponse({"object": "list", "data": [self.card]})

    def model(self, name: str) -> Response:
        """GET /v1/models/{id}."""
        self._check_model(name)
        return JsonResponse(self.card)

    async def completions(self, http: HttpRequest) -> Response:
        """POST /v1/completions."""
        return await self._answer(http, CompletionCall, plan_completion, lambda call: (CompletionShape, call.logprobs))

    async def chat(self, http: HttpRequest) -> Response:
        """POST /v1/chat/completions."""
        return await self._answer(
            http, ChatCall, plan_chat, lambda call: (ChatShape, (call.top_logprobs or 0) if call.logprobs else None)
        )

    async def _answer(
        self,
        http: HttpRequest,
        kind: type[AnyCall],
        plan_of: Callable[[AnyCall, LanguageModel, ServerSettings], Plan],
        shape_of: Callable[[AnyCall], tuple[type[Shape], int | None]],
    ) -> Response:
        try:
            body = await asyncio.wait_for(read_body(http, self.settings.max_body_bytes), self.settings.read_seconds)
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        except asyncio.TimeoutError:
            raise ApiError(408, f"The body did not arrive within {self.settings.read_seconds:g} s.", headers={"Connection": "close"}) from None  # fmt: skip
        call = parse_call(kind, body)
        self._check_model(call.model)
        if call.stream_options is not None and not call.stream:
            raise ApiError(400, "stream_options needs stream to be true.", param="stream_options")
        try:
            # In a thread: a long text takes its time to become ids, and the streams of others go on.
            plan = await asyncio.to_thread(plan_of, call, self.engine.lm, self.settings)
        except FangcunError as error:
            raise ApiError(400, str(error)) from None
        if self._is_draining():  # since the guard looked: a body may take its time
            raise going_down()
        generation = Generation(self.engine, self.settings.timeout_seconds)
        generation.submit(plan.requests, retry_seconds=RETRY_SECONDS)
        shape, scored = shape_of(call)
        answer = Answer(
            generation,
            Choices(plan),
            shape(self.model_id, self.fingerprint, self.engine.lm.tokenizer, scored),
            self.metrics,
        )
        if call.stream:
            return EventStream(answer, call, self.metrics, self.settings.read_seconds)
        return await answer.whole(http)

    def _check_model(self, name: str) -> None:
        if name != self.model_id:
            raise ApiError(
                404, f"There is no model {name[:100]!r} here, expected {self.model_id!r}.", param="model", code="model_not_found"
            )  # fmt: skip


async def read_body(http: HttpRequest, most_bytes: int) -> bytes:
    """The body of a request. Raises ApiError 413 as soon as it is known to be too large."""
    too_large = ApiError(
        413, f"The body is larger than {most_bytes:,} bytes, the limit of this server.", code="body_too_large", headers={"Connection": "close"}
    )  # fmt: skip
    if int(http.headers.get("content-length") or 0) > most_bytes:
        raise too_large
    parts, size = [], 0
    async for part in http.stream():
        size += len(part)
        if size > most_bytes:
            raise too_large
        parts.append(part)
    return b"".join(parts)
