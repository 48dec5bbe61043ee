"""A map over worker processes or threads: results in order, little in flight, no process that outlives its parent."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from fangcun.errors import FangcunError

Item = TypeVar("Item")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    prepare: Callable[..., None],
    arguments: tuple[Any, ...] = (),
) -> Generator[Result, None, None]:
    """Yield function(item) in the order of `items`, computed in `workers` new processes.

    At most 2 * workers + 1 items are read ahead. Each process calls prepare(*arguments) first. Processes are spawned,
    the same on all systems and safe beside threads, so a script that comes here must guard its entry point with
    `if __name__ == "__main__":`. An exception in a process is raised here; one that dies gives FangcunError.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(prepare, arguments))
    try:
        yield from _in_order(pool, function, items, workers)
    except BrokenProcessPool as error:
        raise FangcunError(
            "A worker process ended unexpectedly (killed, or out of memory). Run again with fewer processes: "
            '--corpus.workers 1 --tokens.workers 1. In a script of your own, the call must stand under if __name__ == "__main__".'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def threaded_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """`ordered_map` in threads of this process, for functions that work outside of Python's lock."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="encode")
    try:
        yield from _in_order(pool, function, items, workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    flying: deque[Future[Result]] = deque()
    for item in items:
        flying.append(pool.submit(function, item))
        if len(flying) > 2 * workers:
            yield flying.popleft().result()
    while flying:
        yield flying.popleft().result()


def _begin(prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _end_with_parent()
    prepare(*arguments)


def _end_with_parent() -> None:
    """Make this process end when its parent does, however that happens.

    The pool alone would not: its workers wait for work for ever on a pipe that they hold open themselves.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent.pid and not multiprocessing.connection.wait([parent.sentinel], timeout=1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
