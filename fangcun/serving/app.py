"""The application: the API, the pages, health and metrics, behind one guard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from fangcun import __version__
from fangcun.errors import FangcunError
from fangcun.generation import Engine
from fangcun.serving.errors import JsonResponse, add_error_handlers
from fangcun.serving.guard import Guard
from fangcun.serving.metrics import Metrics
from fangcun.serving.pages import add_pages
from fangcun.serving.runs import add_runs
from fangcun.serving.schema import ChatCall, CompletionCall
from fangcun.serving.service import Service
from fangcun.serving.settings import ServerSettings


def create_app(
    engine: Engine | None = None,
    *,
    model_id: str = "fangcun",
    settings: ServerSettings | None = None,
    runs: Path | None = None,
    openings: Sequence[str] = (),
) -> FastAPI:
    """The ASGI application. The caller starts and closes the engine. `app.state.draining` refuses new requests.

    runs: a run, or a folder of runs, for the live page. openings: texts that the page offers to begin with. Raises FangcunError when there is neither an engine nor a folder.
    """
    if engine is None and runs is None:
        raise FangcunError("There is neither a model nor a folder of runs to serve. Name a run, or --runs FOLDER.")
    settings = settings or ServerSettings()
    # FastAPI's own pages of documentation load scripts from elsewhere; the description stays at /openapi.json.
    app = FastAPI(title="Fangcun", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.draining = False
    metrics = Metrics(engine)
    app.add_middleware(Guard, settings=settings, metrics=metrics, is_draining=lambda: app.state.draining)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
    add_error_handlers(app)
    _add_own(app, engine, metrics)
    info: dict[str, Any] = {"model": None, "needs_key": settings.api_key is not None, "runs": runs is not None}
    if engine is not None:
        service = Service(engine, model_id, settings, metrics, is_draining=lambda: app.state.draining)
        _add_api(app, service)
        info |= {"model": model_id, "openings": list(openings), **service.info}
    add_pages(app, info)
    add_runs(app, runs)
    return app


def _add_own(app: FastAPI, engine: Engine | None, metrics: Metrics) -> None:
    @app.get("/health", summary="Ready, or going down")
    async def health() -> Response:
        draining = app.state.draining
        dead = engine is not None and not engine.alive
        body: dict[str, Any] = {"status": "dead" if dead else "draining" if draining else "ready"}
        if engine is not None:
            body |= {"running": engine.running, "waiting": engine.waiting}
        return JsonResponse(body, 503 if draining or dead else 200)

    @app.get("/metrics", summary="Counts for Prometheus")
    async def counts() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_api(app: FastAPI, service: Service) -> None:
    errors: dict[int | str, dict[str, Any]] = {
        code: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for code, text in {
            400: "The request cannot be meant", 401: "The API key is missing or wrong", 403: "A host or an origin that may not",
            404: "No such model", 408: "The body did not arrive", 413: "The body is too large", 422: "Never",
            429: "The queue is full", 500: "The model failed", 503: "Going down", 504: "Took too long",
        }.items()
    }  # fmt: skip

    @app.get("/v1/models", summary="The model")
    async def models() -> Response:
        return service.models()

    @app.get("/v1/models/{name:path}", summary="The model by its name", responses={404: errors[404]})
    async def model(name: str) -> Response:
        return service.model(name)

    @app.post("/v1/completions", summary="Write on", responses=errors, openapi_extra=_body(CompletionCall))
    async def completions(http: HttpRequest) -> Response:
        return await service.completions(http)

    @app.post("/v1/chat/completions", summary="Answer", responses=errors, openapi_extra=_body(ChatCall))
    async def chat(http: HttpRequest) -> Response:
        return await service.chat(http)


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _body(kind: type[CompletionCall] | type[ChatCall]) -> dict[str, Any]:
    """OpenAPI's description of a body that we parse ourselves, with its definitions in place."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(definitions[value["$ref"].rpartition("/")[2]])
            return {key: inlined(part) for key, part in value.items()}
        return [inlined(part) for part in value] if isinstance(value, list) else value

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined(schema)}}}}
