"""A real browser for the tests of the pages, which may speak to the server under test and to nobody else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

Open = Callable[..., Any]


def until(page: Any, condition: str, seconds: float = 10.0) -> None:
    """Wait for a JavaScript expression to be true; Playwright's own way of asking is forbidden by the pages' policy."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never true: {condition}"
        page.wait_for_timeout(50)


@contextmanager
def chromium() -> Iterator[Open]:
    """open(url, locale=, width=, dark=) -> a page that is ready. Leaving checks that no page asked another host for
    anything or had an error of its own. Skips where Playwright or a Chromium is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    found = os.environ.get("FANGCUN_CHROMIUM", found)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    wrong: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)

        def open_page(url: str, *, locale: str = "zh-CN", width: int = 1200, dark: bool = False) -> Any:
            home = "/".join(url.split("/")[:3])
            context = browser.new_context(
                locale=locale, viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
            )
            page = context.new_page()
            page.on("request", lambda request: request.url.startswith((home, "data:")) or wrong.append(request.url))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            return page

        try:
            yield open_page
        finally:
            browser.close()
    assert wrong == []
