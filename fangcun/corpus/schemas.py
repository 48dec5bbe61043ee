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
    try:
        return bool(list(texts(fields, None)))
    except NoTextError:
        return False


def texts(record: Any, text_key: str | None) -> Iterator[str]:
    """The texts of one record: one for flat records, several where records are nested. Empty texts are yielded too.

    With `text_key`, that field alone is read (a string or a list of strings). Raises NoTextError.
    """
    if isinstance(record, str):
        yield record
        return
    if isinstance(record, list):
        found = False
        for item in record:
            if isinstance(item, (dict, list)):
                found = True
                yield from texts(item, text_key)
        if not found:
            raise NoTextError("a list without records")
        return
    if not isinstance(record, dict):
        raise NoTextError(f"a {type(record).__name__}, expected an object or a string")
    if text_key is not None:
        if text_key in record:
            yield _joined(record[text_key], text_key)
            return
        nested = [value for value in record.values() if _has_records(value)]
        if not nested:
            raise NoTextError(f"no field '{text_key}' among {', '.join(map(str, list(record)[:12]))}")
        for value in nested:
            yield from texts(value, text_key)
        return
    yield from _search({str(key).strip().lower(): value for key, value in record.items()})


def _search(fields: dict[str, Any]) -> Iterator[str]:
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
    nested = [fields[name] for name in ("content", "paragraphs", "sections") if _has_records(fields.get(name))]
    if fields.get("title") is not None and any(fields.get(name) is not None for name in _BODY) and not _walks(fields):
        parts = [_joined(fields["title"], "title")]
        for name in _BODY:
            if fields.get(name) is not None:
                part = _sections(fields[name]) if name == "sections" else _joined(fields[name], name)
                if part.strip() != parts[0].strip():
                    parts.append(part)
        yield _lines(*parts)
        return
    if not nested:
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
    found = False
    for value in nested or fields.values():
        if _has_records(value):
            found = True
            yield from texts(value, None)
    if not found:
        # A field that is there and null is an empty text, not a broken record.
        if any(name in fields for name in (*_PLAIN, *_ALONE, "paragraphs")):
            yield ""
            return
        raise NoTextError(
            f"no known text field among {', '.join(list(fields)[:12]) or 'none'}; name it with --corpus.text_key"
        )


def _has_records(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    return isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)


def _walks(fields: dict[str, Any]) -> bool:
    """Whether the body is a book of records (each becomes a document) and not text of this record."""
    return _has_records(fields.get("content"))


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
