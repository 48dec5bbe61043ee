"""The pages, served from the package itself: no other host is ever asked, and nothing runs that is not in these files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def add_pages(app: FastAPI, info: dict[str, Any]) -> None:
    """/ (writing and talking), /runs (training as it goes), /static/NAME, /page.json. info: what the page must know of the
    model (`model`: its id or None, `chat`, `block_size`, `openings`, `runs`, `key`: whether one is wanted)."""
    files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in _TYPES}

    def serve(name: str) -> Response:
        return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=HEADERS)

    @app.get("/", include_in_schema=False)
    def home() -> Response:
        return serve("index.html" if info.get("model") else "runs.html")

    @app.get("/runs", include_in_schema=False)
    def runs() -> Response:
        return serve("runs.html")

    @app.get("/page.json", include_in_schema=False)
    def about() -> dict[str, Any]:
        return info

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return serve("seal.svg")

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in files:
            return Response(status_code=404)
        return serve(name)
