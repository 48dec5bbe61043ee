"""`fangcun serve`: a model behind OpenAI's API and a page, and runs as they grow."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fangcun.errors import FangcunError

Words = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]


def serve(
    path: str | None = None,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto",
    device: str = "auto",
    max_batch: int = 16,
    max_waiting: int = 256,
    max_new_tokens: int = 2048,
    timeout_seconds: float = 600.0,
    drain_seconds: float = 30.0,
    api_key: str | None = None,
    runs: str | None = None,
    allowed_host: Words = None,
    cors_origin: Words = None,
) -> int:
    """Serve a model to OpenAI clients and to a browser, until Ctrl-C or SIGTERM. With --runs alone: the pages of runs.

    Parameters
    ----------
    path
        A run (its newest complete checkpoint), a checkpoint, or a Hugging Face folder.
    host
        Address to listen at. 0.0.0.0 is every network of the machine: set an API key then.
    port
        0 takes a free one.
    name
        What clients call the model. Default: the name of the run.
    dtype
        Arithmetic. auto: bfloat16 where that is fast. int8, int4: weights of so many bits.
    device
        cpu, cuda, cuda:1; auto takes cuda where there is one.
    max_batch
        Samples that are written at the same time; each keeps a cache of the whole context.
    max_waiting
        Samples that may wait for a place; who comes then is told 429.
    max_new_tokens
        Most tokens that one sample may ask for.
    timeout_seconds
        Longest time from a request to its last token, waiting included.
    drain_seconds
        At a shutdown, how long running requests may go on. A second Ctrl-C ends them at once.
    api_key
        What clients must send as Authorization: Bearer KEY. Better in the environment, as FANGCUN_API_KEY: a command line
        can be read by others.
    runs
        A folder of runs to show as they grow, at /runs. Default: the run that is served.
    allowed_host
        Names beside localhost and the host by which the server may be called, behind a proxy say.
    cors_origin
        Pages of other sites that may use the server, such as https://example.org.
    """
    if path is None and runs is None:
        raise FangcunError("There is nothing to serve. Name a run, as in fangcun serve runs/demo, or --runs FOLDER.")
    if runs is not None and not Path(runs).is_dir():
        raise FangcunError(f"--runs {runs} is no folder. Name the folder that holds the runs, such as runs.")
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise FangcunError(f"fangcun serve needs {error.name}: pip install 'fangcun[serve]'") from error
    from fangcun.serving.app import create_app
    from fangcun.serving.server import open_socket, serve_forever, url_of
    from fangcun.serving.settings import ServerSettings

    settings = ServerSettings(
        host=host,
        port=port,
        api_key=os.environ.get("FANGCUN_API_KEY") if api_key is None else api_key,
        allowed_hosts=tuple(allowed_host or ()),
        cors_origins=tuple(cors_origin or ()),
        max_new_tokens=max_new_tokens,
        timeout_seconds=timeout_seconds,
        drain_seconds=drain_seconds,
    )
    with open_socket(settings) as door:  # a taken port is told before the weights are read
        engine = None
        if path is not None:
            import fangcun
            from fangcun.generation import Engine

            engine = Engine(
                fangcun.load(path, dtype=dtype, device=device), max_batch=max_batch, max_waiting=max_waiting
            )
        model_id = name or (model_name(Path(path)) if path is not None else "")
        run = run_of(Path(path)) if path is not None else None
        app = create_app(
            engine,
            model_id=model_id,
            settings=settings,
            runs=run if runs is None else Path(runs),
            openings=() if run is None else openings_of(run),
        )
        if settings.api_key is None and not is_local(host):
            _say(f"warning: {host} can be reached from other machines, and there is no API key. Set FANGCUN_API_KEY.")
        what = f"Serving {model_id}" if engine is not None else f"Showing the runs in {runs}"
        _say(f"{what} at {url_of(door)}" + (f", OpenAI's API at {url_of(door)}/v1" if engine is not None else ""))
        serve_forever(app, engine, settings, door)
    _say("Stopped.")
    return 0


def model_name(path: Path) -> str:
    """The name of the run that `path` lies in, or of the folder."""
    path = path.resolve()
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.name


def run_of(path: Path) -> Path | None:
    """The run that `path` is, or that it is a checkpoint of; None where there are no metrics to show."""
    for folder in (path, path.parent.parent):
        if (folder / "metrics.jsonl").is_file():
            return folder
    return None


def openings_of(run: Path, most: int = 20) -> list[str]:
    """The prompts of the samples that the run wrote while it trained: texts of its own kind to begin with."""
    found: dict[str, None] = {}
    with contextlib.suppress(OSError, ValueError), open(run / "samples.jsonl", encoding="utf-8") as file:
        for line in itertools.islice(file, 1000):
            prompt = json.loads(line).get("prompt")
            if isinstance(prompt, str) and prompt:
                found[prompt] = None
    return list(found)[:most]


def is_local(host: str) -> bool:
    """Whether an address is this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
