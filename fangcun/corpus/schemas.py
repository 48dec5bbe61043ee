"""Where the text stands in a record: the field names people have, whatever their case, or the field the user names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_PLAIN = ("text", "story_zh", "story")
_TURNS = ("conversations", "conversation", "messages")
_TURN_TEXT = ("value", "content")
_ASK = ("instruction", "prompt", "question", "query")
_GIVEN = ("input", "context")
_ANSWER = ("output", "target", "response", "answer", "completion")
_TITLE = ("title",)
_BODY = ("desc", "summary", "content", "sections", "answer")
_ALONE = ("content", "completion")
_HEADING = ("title", "chapter", "rhythmic")

KNOWN_FIELDS = frozenset(
    (*_PLAIN, *_TURNS, *_ASK, *_GIVEN, *_ANSWER, *_TITLE, *_BODY, *_ALONE, *_HEADING, "paragraphs")
)


class NoTextError(Exception):
    """A record in which no text was found; the message says why."""


def has_known_text(names: list[str]) -> bool:
    """Whether a table with these columns holds text that `texts` finds. Column names are compared without case."""
    fields = {name.strip().lower(): "x" for name in names}
    return all(isinstance(text, str) for text in texts(fields, None))


def texts(record: Any, text_key: str | None) -> Iterator[str | NoTextError]:
    """The texts of one record: one for flat records, several where records are nested. Empty texts are yielded too.

    With `text_key`, that field alone is read (a string or a list of strings). A record without text yields a
    NoTextError in its place, so that the others of a nested one are not lost.
    """
    try:
        yield from _texts(record, text_key)
    except NoTextError as error:
        yield error
    except RecursionError:
        yield NoTextError("nested too deeply")


def questions(record: Any, text_key: str | None) -> Iterator[str | NoTextError]:
    """As `texts`, but of a record with a question the question alone: what an exam must keep from training."""
    if isinstance(record, dict) and text_key is None:
        fields = {str(key).strip().lower(): value for key, value in record.items()}
        asked = _first(fields, _ASK)
        if asked and isinstance(fields[asked], str):
            yield fields[asked]
            return
    yield from texts(record, text_key)


def _texts(record: Any, text_key: str | None) -> Iterator[str | NoTextError]:
    if isinstance(record, str):
        yield record
        return
    if isinstance(record, list):
        if not _has_records(record):
            yield _joined(record, "the record")
            return
        for item in record:
            yield from texts(item, text_key)
        return
    if not isinstance(record, dict):
        raise NoTextError(f"a {type(record).__name__}, expected an object or a string")
    if text_key is not None:
        if text_key in record:
            yield _joined(record[text_key], text_key)
            return
        nested = _nested(record)
        if not nested:
            raise NoTextError(f"no field '{text_key}' among {', '.join(map(str, list(record)[:12]))}")
        for value in nested:
            yield from texts(value, text_key)
        return
    yield from _search({str(key).strip().lower(): value for key, value in record.items()})


def _search(fields: dict[str, Any]) -> Iterator[str | NoTextError]:
    for name in _PLAIN:
        if fields.get(name) is not None:
            yield _joined(fields[name], name)
            return
    for name in _TURNS:
        if isinstance(fields.get(name), list):
            yield "\n".join(_turn(turn, name) for turn in fields[name])
            return
    ask, given, answer = (_first(fields, names) for names in (_ASK, _GIVEN, _ANSWER))
    # A question-and-answer page has title, desc and answer: the title is the question.
    if answer and ask != answer and (ask or given):
        yield _lines(*(_joined(fields[name], name) for name in (ask, given, answer) if name))
        return
    # A body of records is a book: each of them becomes a document.
    book = [fields[name] for name in ("content", "paragraphs") if _has_records(fields.get(name))]
    if not book:
        if fields.get("title") is not None and any(fields.get(name) is not None for name in _BODY):
            yield _page(fields)
            return
        for name in _ALONE:
            if fields.get(name) is not None:
                yield _joined(fields[name], name)
                return
        if fields.get("paragraphs") is not None:
            heading = _first(fields, _HEADING)
            yield _lines(
                _joined(fields[heading], heading) if heading else "", _joined(fields["paragraphs"], "paragraphs")
            )
            return
        # A field that is there and null is an empty text, not a broken record.
        if any(name in fields and fields[name] is None for name in (*_PLAIN, *_TURNS, *_ALONE, *_ANSWER, "paragraphs")):
            yield ""
            return
    nested = book or _nested(fields)
    if not nested:
        names = ", ".join(list(fields)[:12]) or "none"
        raise NoTextError(f"no known text field among {names}; name it with --corpus.text_key")
    for value in nested:
        yield from texts(value, None)


def _page(fields: dict[str, Any]) -> str:
    """Title, then description, summary, content, sections, answer: whichever are there and do not repeat the title."""
    title = _joined(fields["title"], "title")
    parts = [
        _sections(fields[name]) if name == "sections" else _joined(fields[name], name)
        for name in _BODY
        if name in fields
    ]
    return _lines(title, *(part for part in parts if part.strip() != title.strip()))


def _nested(record: dict[str, Any]) -> list[Any]:
    """Where the records of a wrapper stand: in its lists of records, else in its objects ({"version": …, "data": […]})."""
    values = [value for value in record.values() if _has_records(value)]
    return [value for value in values if isinstance(value, list)] or values


def _has_records(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    return isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if fields.get(name) is not None), None)


def _lines(*parts: str) -> str:
    return "\n".join(part for part in parts if part.strip())


def _joined(value: Any, name: str) -> str:
    """A field as text: a string, or strings joined by line ends (lists of parts with a `text` too). NaN and null are empty."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        parts = [item.get("text") if isinstance(item, dict) else item for item in value]
        if all(isinstance(part, str) for part in parts):
            return "\n".join(str(part) for part in parts)
    raise NoTextError(f"field '{name}' is a {type(value).__name__}, expected a string or a list of strings")


def _turn(turn: Any, name: str) -> str:
    if isinstance(turn, dict):
        fields = {str(key).lower(): value for key, value in turn.items()}
        text = _first(fields, _TURN_TEXT)
        # A turn without content is a tool call or the like.
        return _joined(fields[text], text) if text else ""
    if isinstance(turn, str):
        return turn
    raise NoTextError(
        f"field '{name}' holds a {type(turn).__name__}, expected turns of {{from, value}} or {{role, content}}"
    )


def _sections(value: Any) -> str:
    """Sections of an encyclopaedia page: title and content each, in order, nested or not."""
    if not isinstance(value, list):
        return _joined(value, "sections")
    parts: list[str] = []
    for section in value:
        if isinstance(section, dict):
            parts += [
                _joined(section.get("title"), "title"),
                _joined(section.get("content") or section.get("text"), "content"),
            ]
            if section.get("sections"):
                parts.append(_sections(section["sections"]))
        else:
            parts.append(_joined(section, "sections"))
    return _lines(*parts)
