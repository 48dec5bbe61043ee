"""What a request may say. Unknown keys are errors with the nearest right one, keys without an effect here are refused by
name, and keys that only label a request are taken.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fangcun.errors import did_you_mean
from fangcun.serving.errors import ApiError

Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Field(ge=0, le=2**31)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Strict):
    """`stream_options` of a streamed request."""

    include_usage: bool | None = None
    """One more chunk at the end with the counts of tokens."""
    include_obfuscation: bool | None = None


class Call(_Strict):
    """What completions and chat have in common. A null is the default."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Not OpenAI's: tokens below this share of the likeliest one's probability are not drawn."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Not OpenAI's: draw among the k likeliest tokens; 0 is all."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    """Not OpenAI's: above 1 makes tokens of the context less likely."""
    no_repeat_ngram: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Not OpenAI's: no sequence of this many tokens is written twice; 0 is off."""
    # Labels for the provider's own books: they change no answer, so they are taken and not kept.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None


class CompletionCall(Call):
    """The body of /v1/completions."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]] | None = None
    echo: bool | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    """Not OpenAI's: of a longer prompt only so many of its last tokens are read, instead of an error."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class TextPart(_Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None


class ChatCall(Call):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


_REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": ("The model calls no tools", ([],)),
    "tool_choice": ("The model calls no tools", ("none",)),
    "parallel_tool_calls": ("The model calls no tools", ()),
    "functions": ("The model calls no functions", ([],)),
    "function_call": ("The model calls no functions", ("none",)),
    "response_format": ("Only text is written", ({"type": "text"},)),
    "logit_bias": ("Single tokens cannot be biased", ({},)),
    "modalities": ("Only text is written", (["text"],)),
    "audio": ("Only text is written", ()),
    "prediction": ("Predicted text is not used", ()),
    "web_search_options": ("Nothing is searched", ()),
    "reasoning_effort": ("The model has no reasoning of its own", ("none",)),
    "verbosity": ("The length is set by max_tokens", ()),
    "suffix": ("The model writes only behind a text, not between two", ("",)),
}
"""OpenAI's keys that have no effect here: why, and the values that ask for nothing."""

_EXPECTED = {
    "prompt": "a text, a list of texts, a list of token ids, or a list of such lists",
    "stop": "a text, or a list of texts",
    "content": "a text, or a list of parts {'type': 'text', 'text': …}; images, sound and files cannot be read",
}
AnyCall = TypeVar("AnyCall", bound=Call)


def parse_call(kind: type[AnyCall], body: bytes) -> AnyCall:
    """The request that a body states. Raises ApiError 400, which names the key."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not JSON in UTF-8: {error}.", code="invalid_json") from None
    if not isinstance(data, dict):
        raise ApiError(400, f'The body is a JSON {_kind(data)}, expected an object such as {{"model": …}}.')
    best_of = data.pop("best_of", None)
    if best_of is not None and best_of != (data.get("n") or 1):
        raise ApiError(
            400, f"best_of is {_short(best_of)}: all n samples are given back, none is left out. Leave it away.", param="best_of"
        )  # fmt: skip
    for key in [key for key in data if key in _REFUSED and key not in kind.model_fields]:
        reason, empty = _REFUSED[key]
        value = data.pop(key)
        if value is not None and value not in empty:
            raise ApiError(
                400, f"{key} is not supported: {reason}. Leave it away.", param=key, code="unsupported_parameter"
            )
    for key in data:
        if key not in kind.model_fields:
            near = did_you_mean(key, kind.model_fields)
            raise ApiError(
                400, f"{_short(key)} is not a key of this request.{near}", param=key, code="unknown_parameter"
            )
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> ApiError:
    """The first thing wrong, in words."""
    first = error.errors(include_url=False, include_context=False)[0]
    path, where = "", ""
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif "[" not in part and part not in ("str", "TextPart"):
            path += f".{part}" if path else part
            where = part
        if where in _EXPECTED and where != "prompt":
            break
    root = str(first["loc"][0])
    if root == "prompt":
        path, where = root, root
    if where in _EXPECTED:
        return ApiError(400, f"{path}: expected {_EXPECTED[where]}.", param=path, code="invalid_type")
    if first["type"] == "missing":
        return ApiError(400, f"{path} is missing.", param=path, code="missing_required_parameter")
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"{path} is not a key of this request.", param=path, code="unknown_parameter")
    said = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return ApiError(400, f"{path} is {_short(first['input'])}: {said}.", param=path, code="invalid_value")


def _kind(value: object) -> str:
    kinds: dict[type, str] = {list: "array", str: "string", type(None): "null", bool: "boolean"}
    return kinds.get(type(value), "number")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
