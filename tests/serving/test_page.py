"""The page in a real browser, offline: a base model writes on from the reader's text, a tuned one answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from browser import Open, chromium, until
from tiny_server import Serve, Served


@pytest.fixture(scope="module")
def open_page() -> Iterator[Open]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def slow(serve_tiny: Serve) -> Served:
    """A server that takes its time."""
    return serve_tiny(step_seconds=0.05)


def settle(page: Any) -> None:
    page.wait_for_selector("#go:visible", timeout=30000)


def choose(page: Any, **settings: object) -> None:
    for name, value in settings.items():
        page.fill(f"#set-{name}", str(value))
        page.dispatch_event(f"#set-{name}", "change")


def test_a_text_is_written_on_in_its_place(open_page: Open, server: Served) -> None:
    page = open_page(server.url)
    choose(page, max_tokens=16, seed=1)
    page.click("#text")
    page.keyboard.type("却说曹操")
    page.keyboard.press("Control+Enter")
    settle(page)
    text = page.inner_text("#text")
    assert text.startswith("却说曹操")
    assert page.locator("#text .token").count() > 1
    assert "".join(page.locator("#text .token").all_text_contents()) == text.removeprefix("却说曹操")
    assert re.search(r"\d+ 词元", page.inner_text("#count"))
    # On from any edit: what was typed is no token of the model's.
    page.click("#text")
    page.keyboard.press("Control+End")
    page.keyboard.type("曰")
    before = page.inner_text("#text")
    page.click("#go")
    settle(page)
    assert page.inner_text("#text").startswith(before)
    page.click("#undo")
    assert page.inner_text("#text") == before
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#text") == before  # nothing is lost


def test_alternatives_are_shown_and_can_be_taken(open_page: Open, server: Served) -> None:
    page = open_page(server.url, locale="en-GB")
    choose(page, max_tokens=16, seed=2)
    page.click("#go")
    settle(page)
    count = page.locator("#text .token").count()
    for number in range(count):
        token = page.locator("#text .token").nth(number)
        token.hover()
        rows = page.locator("#bubble button:not(.chosen):not([disabled])")
        if rows.count() and "\ufffd" not in rows.first.inner_text():
            break
    else:
        raise AssertionError("no token has an alternative")
    shares = [float(s.split()[0]) for s in page.locator("#bubble .share").all_inner_texts()]
    assert 0 < sum(shares) <= 101
    word = rows.first.locator(".word").text_content().replace("↵", "\n")
    kept = page.locator("#text .token").all_text_contents()[:number]
    choose(page, max_tokens=16)
    token.hover()
    rows.first.click()
    settle(page)
    words = page.locator("#text .token").all_text_contents()
    assert words[: number + 1] == [*kept, word]


def test_several_samples_stand_side_by_side_and_one_is_taken(open_page: Open, server: Served) -> None:
    page = open_page(server.url)
    choose(page, n=3, max_tokens=16, seed=4)
    page.click("#text")
    page.keyboard.type("刘备")
    page.click("#go")
    settle(page)
    samples = page.locator("#samples .words").all_text_contents()
    assert len(samples) == 3
    assert len(set(samples)) > 1
    page.locator("#samples button").nth(1).click()
    assert page.inner_text("#text") == "刘备" + samples[1]
    assert page.locator("#samples").is_hidden()


def test_stop_ends_the_writing_on_the_server_too(open_page: Open, slow: Served) -> None:
    page = open_page(slow.url)
    choose(page, max_tokens=1000, no_repeat_ngram=0)
    page.click("#go")
    page.wait_for_selector("#text .token")
    page.click("#stop")
    settle(page)
    slow.wait_until_idle()
    assert page.locator("#error").is_hidden()


def test_a_text_longer_than_the_context_goes_on(open_page: Open, server: Served) -> None:
    page = open_page(server.url)
    choose(page, max_tokens=16)
    page.evaluate("document.querySelector('#text').textContent = '关羽大怒。'.repeat(300)")
    page.click("#go")
    settle(page)
    assert page.locator("#error").is_hidden()
    assert page.locator("#text .token").count() > 0


def test_model_text_and_pasted_text_never_become_markup(open_page: Open, server: Served) -> None:
    page = open_page(server.url)
    page.evaluate(
        "localStorage.setItem('fangcun.text', JSON.stringify([{text: '<img src=x onerror=document.title=1>'}]))"
    )
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#text") == "<img src=x onerror=document.title=1>"
    assert page.locator("#text img").count() == 0


def test_an_error_is_a_sentence_and_the_text_stays(open_page: Open, serve_tiny: Serve) -> None:
    keyed = serve_tiny(api_key="geheim")
    page = open_page(keyed.url)
    page.click("#text")
    page.keyboard.type("孔明")
    page.click("#go")
    settle(page)
    assert "密钥" in page.inner_text("#error")
    assert page.inner_text("#text") == "孔明"
    page.fill("#key", "geheim")
    page.dispatch_event("#key", "change")
    choose(page, max_tokens=16)
    page.click("#go")
    settle(page)
    assert page.locator("#error").is_hidden()
    assert page.inner_text("#text").startswith("孔明")


def test_a_conversation_can_be_edited_and_answered_anew(open_page: Open, server: Served) -> None:
    page = open_page(server.url)
    choose(page, max_tokens=16, seed=3)
    page.click("#mode-chat")
    page.click(".system summary")
    page.fill("#system", "你是曹操。")
    page.dispatch_event("#system", "change")
    page.click("#message")
    page.keyboard.type("你好")
    # While an input method composes, Enter takes its word and sends nothing.
    page.evaluate(
        "document.querySelector('#message').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    assert page.locator(".turn").count() == 0
    page.keyboard.press("Enter")
    page.wait_for_selector("#send:visible")
    until(page, "document.querySelectorAll('.turn.assistant').length === 1")
    first = page.locator(".turn.assistant .words").inner_text()
    page.locator(".turn.assistant button").click()
    until(page, "document.querySelectorAll('.turn.assistant button').length === 1")
    assert page.locator(".turn.assistant .words").inner_text() == first  # the same seed
    page.locator(".turn.user button").first.click()
    page.fill(".turn textarea", "再见")
    page.locator(".turn .tools button").first.click()
    until(page, "document.querySelectorAll('.turn.assistant button').length === 1")
    assert page.locator(".turn.user .words").all_inner_texts() == ["再见"]
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.locator(".turn").count() == 2


def test_a_base_model_offers_no_conversation(open_page: Open, serve_tiny: Serve) -> None:
    page = open_page(serve_tiny(chat=False).url)
    assert page.locator("#mode-chat").is_hidden()
    assert page.locator("#write").is_visible()


@pytest.mark.parametrize("path", ["", "/runs"])
def test_two_languages_light_and_dark_and_a_phone(path: str, open_page: Open, server: Served) -> None:
    page = open_page(server.url + path, width=360, dark=True)
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "en"
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, textarea, select')].filter(e => e.checkVisibility() && !e.innerText.trim() && !e.labels?.length && !e.ariaLabel).map(e => e.outerHTML)"
    )
    assert unnamed == []
    untranslated = page.evaluate(
        "[...document.querySelectorAll('[data-i18n]')].filter(e => !e.textContent || e.textContent === e.dataset.i18n && !['step', 'tokens', 'running'].includes(e.textContent)).map(e => e.dataset.i18n)"
    )
    assert [key for key in untranslated if key not in ("step", "tokens")] == []
