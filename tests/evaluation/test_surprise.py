"""Surprise: bits that sum to those of the text, ranks and alternatives of the model, a page that shows text as text."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import language_model, log_probabilities

from fangcun.evaluation.surprise import Token, stretches, surprise_of
from fangcun.evaluation.surprise_page import surprise_page
from fangcun.evaluation.text import measure_texts

LM = language_model()


def test_bits_sum_to_those_of_the_text_and_ranks_are_the_models() -> None:
    import math

    text = "却说曹操 A"
    tokens = surprise_of(LM, text)
    assert b"".join(token.piece for token in tokens).decode() == text
    total = measure_texts(LM, [("x", text)]).total
    assert sum(token.bits for token in tokens) == pytest.approx(total.nats / math.log(2), rel=1e-6)
    ids = LM.tokenizer.encode_documents([text])[0]
    found = log_probabilities(LM.model, [LM.tokenizer.eos_id, *ids][:-1])
    for row, index, token in zip(found, ids, tokens, strict=True):
        order = row.argsort(descending=True).tolist()
        assert order[token.rank - 1] == index
        assert [i for i, _ in token.alternatives] == order[:5]
        assert token.alternatives[0][1] == pytest.approx(float(row[order[0]].exp()), rel=1e-4)


def token(piece: bytes) -> Token:
    return Token(piece, 1.0, 1, ())


@given(st.text(max_size=30), st.data())
def test_however_a_text_is_cut_its_characters_stay_whole(text: str, data: st.DataObject) -> None:
    whole = text.encode("utf-8", "replace")
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=12)))
    bounds = [0, *(c for c in cuts if c < len(whole)), len(whole)]
    pieces = [token(whole[a:b]) for a, b in itertools.pairwise(bounds)]
    found = stretches(pieces)
    assert "".join(stretch.text for stretch in found) == whole.decode()
    assert [t for stretch in found for t in stretch.tokens] == pieces


def test_bytes_that_are_no_text_do_not_hold_the_rest_back() -> None:
    found = stretches([token(b"\xff"), token(b"a"), token(b"\xe4"), token(b"b"), token(b"\xe4")])
    assert [stretch.text for stretch in found] == ["\ufffd", "a", "\ufffdb", "\ufffd"]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.shown, self.inside = "", False
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.inside |= tag == "div"
        if tag == "span" and dict(attrs).get("title"):
            self.titles.append(dict(attrs)["title"] or "")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.shown += data


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_the_page_shows_the_text_and_nothing_of_it_becomes_markup(text: str) -> None:
    text = f"<script>alert('&')</script>{text}\"汉"
    tokens = surprise_of(LM, text)
    page = Page()
    page.feed(surprise_page(stretches(tokens), lambda i: LM.tokenizer.decode([i]), title="<b>"))
    assert page.shown.strip() == text.strip()
    assert page.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "p", "br", "span", "div"}
    assert len(page.titles) == len(stretches(tokens))
    assert "3 tokens" in page.titles[-1]  # 汉 is three bytes
    assert "rank" in page.titles[0]
