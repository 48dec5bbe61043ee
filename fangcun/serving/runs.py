"""The live run page: the runs below a folder, their curves, samples and plan, as JSON for the page and nothing else.

Names come from a listing and are looked up in it: no word of a request becomes a path.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from fangcun.serving.run_log import RunLog

LOG, SAMPLES, RECIPE = "metrics.jsonl", "samples.jsonl", "recipe.yaml"
MOST_RUNS = 200
LOOK_SECONDS = 2.0
"""How long a listing is believed."""

SILENT_SECONDS = 120.0
"""A run that wrote nothing for so long, and for five of its intervals, counts as stopped."""

SAMPLE_BYTES = 1 << 20
"""Of samples.jsonl, from its end."""


class Runs:
    """The runs below `root`: itself, its subfolders and theirs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._logs: dict[str, RunLog] = {}
        self._looked = -LOOK_SECONDS
        self._lock = threading.Lock()

    def lines(self) -> list[dict[str, Any]]:
        """A line for each run, the one that changed last first."""
        with self._lock:
            self._look()
            lines = []
            for name, log in self._logs.items():
                log.refresh()
                lines.append(self._line(name, log))
        return sorted(lines, key=lambda line: -line["changed_at"])

    def find(self, name: str) -> RunLog | None:
        """The run of that name, read up to now; None where there is none."""
        with self._lock:
            self._look()
            log = self._logs.get(name)
            if log is not None:
                log.refresh()
            return log

    def detail(self, name: str) -> dict[str, Any] | None:
        """Curves and plan of a run."""
        log = self.find(name)
        if log is None:
            return None
        with self._lock:
            return {**self._line(name, log), "version": log.version, "curves": log.thinned(), "plan": self._plan(log)}

    def samples(self, name: str) -> list[dict[str, Any]] | None:
        """What the run wrote while it trained, oldest first."""
        log = self.find(name)
        if log is None:
            return None
        found = []
        for line in _tail(log.path.with_name(SAMPLES)):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("text"), str) and isinstance(record.get("step"), int):
                found.append({"step": record["step"], "prompt": str(record.get("prompt", "")), "text": record["text"]})
        return found

    def _look(self) -> None:
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        found = {}
        for pattern in (LOG, f"*/{LOG}", f"*/*/{LOG}"):
            for path in sorted(self.root.glob(pattern)):
                name = path.parent.relative_to(self.root).as_posix()
                found[self.root.resolve().name if name == "." else name] = path
                if len(found) >= MOST_RUNS:
                    break
        self._logs = {
            name: known if (known := self._logs.get(name)) is not None and known.path == path else RunLog(path)
            for name, path in found.items()
        }

    def _line(self, name: str, log: RunLog) -> dict[str, Any]:
        train, evaluated, final = (log.last.get(kind, {}) for kind in ("train", "eval", "final"))
        newest = max((record.get("step", 0) for record in log.last.values()), default=0)
        over = final.get("step", -1) >= train.get("step", 0) and bool(final)
        quiet = time.time() - log.changed_at
        steps = log.curves.get("train.loss", {}).get("seconds", [])
        interval = (steps[-1] or 0) - (steps[-2] or 0) if len(steps) > 1 else 0.0
        state = "finished" if over else "running" if quiet < max(SILENT_SECONDS, 5 * interval) else "stopped"
        return {
            "name": name,
            "state": state,
            "step": newest,
            "tokens": train.get("tokens"),
            "loss": train.get("loss"),
            "val_loss": (final if over else evaluated).get("val_loss"),
            "bits_per_byte": (final if over else evaluated).get("val_bits_per_byte"),
            "tokens_per_second": train.get("tokens_per_second"),
            "memory_bytes": train.get("memory_bytes"),
            "seconds": max((record.get("seconds") or 0 for record in log.last.values()), default=0),
            "changed_at": log.changed_at,
        }

    def _plan(self, log: RunLog) -> dict[str, Any]:
        """What the recipe wants, and when that will be reached at the speed of the last tenth."""
        try:
            recipe = yaml.safe_load(log.path.with_name(RECIPE).read_text(encoding="utf-8"))
            train, model = recipe["train"], recipe["model"]
            steps = train.get("max_steps")
            tokens_a_step = int(train["global_batch_size"]) * int(model["block_size"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            return {}
        plan: dict[str, Any] = {"steps": steps, "tokens_per_step": tokens_a_step}
        curve = log.curves.get("train.loss")
        if isinstance(steps, int) and curve and len(curve["step"]) > 1:
            back = max(1, len(curve["step"]) // 10)
            done, before = curve["step"][-1] or 0, curve["step"][-1 - back] or 0
            spent = (curve["seconds"][-1] or 0) - (curve["seconds"][-1 - back] or 0)
            if done > before and spent > 0:
                plan["seconds_left"] = max(0.0, steps - done) * spent / (done - before)
        return plan


def _tail(path: Path) -> list[bytes]:
    """The whole lines in the last SAMPLE_BYTES of a file; none where it is missing."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - SAMPLE_BYTES)
            file.seek(start)
            lines = file.read().split(b"\n")[:-1]
            return lines[1:] if start else lines
    except OSError:
        return []


def add_runs(app: FastAPI, root: Path | None) -> None:
    """/api/runs (a list), /api/runs/detail?run=NAME (curves, with an ETag), /api/runs/samples?run=NAME. None: no runs."""
    runs = Runs(root) if root is not None else None

    def missing(name: str) -> JSONResponse:
        message = f"There is no run named {name!r} here; /api/runs lists them."
        return JSONResponse(
            {"error": {"message": message, "type": "invalid_request_error", "param": "run", "code": "not_found"}}, 404
        )

    def answer(content: object, tag: str, request: Request) -> Response:
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return JSONResponse(content, headers=headers)

    # Plain functions: FastAPI runs them in threads, so that a large file holds nobody up.
    @app.get("/api/runs", include_in_schema=False)
    def listing() -> dict[str, Any]:
        return {"runs": runs.lines() if runs is not None else [], "watching": runs is not None}

    @app.get("/api/runs/detail", include_in_schema=False)
    def detail(request: Request, run: str) -> Response:
        found = runs.detail(run) if runs is not None else None
        if found is None:
            return missing(run)
        return answer(found, f"{found['version']}-{found['state']}", request)

    @app.get("/api/runs/samples", include_in_schema=False)
    def samples(request: Request, run: str) -> Response:
        found = runs.samples(run) if runs is not None else None
        if found is None:
            return missing(run)
        return answer({"samples": found}, f"{len(found)}-{found[-1]['step'] if found else 0}", request)
