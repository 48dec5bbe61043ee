"""What the engine is asked for and what it answers: a `Request` in, `Piece`s of text and one `Finished` a sample out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fangcun.errors import FangcunError
from fangcun.generation.sampling import SamplingSettings

MOST_ALTERNATIVES = 20
"""Log-probabilities of other tokens that can be asked for, as in OpenAI's API."""

Reason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Request:
    """A prompt and how to go on from it."""

    prompt_ids: tuple[int, ...]
    """Empty: a new document."""

    settings: SamplingSettings = field(default_factory=SamplingSettings)
    max_new_tokens: int = 256
    seed: int | None = None
    """Sample i draws from a generator of its own, made from the seed and i. None: a fresh one."""

    stop: tuple[str, ...] = ()
    """Strings that end the text; they are no part of it."""

    stop_ids: tuple[int, ...] = ()
    """Ids that end the text, besides the end-of-document token and those that the model's folder names."""

    n: int = 1
    """Samples of the prompt, which is read once."""

    logprobs: int | None = None
    """k: the log-probability of each token written and of the k likeliest in its place. They are the model's own,
    before penalties and temperature."""

    prompt_logprobs: bool = False
    """Those of the prompt's tokens too, in a Piece of sample 0 that comes first; needs `logprobs`."""


@dataclass(frozen=True)
class TokenScore:
    """A token and how likely it was."""

    id: int
    text: str
    """Decoded alone: U+FFFD where it is a part of a character."""

    logprob: float | None
    """Natural logarithm; None for a prompt's first token, before which there is nothing."""

    alternatives: tuple[TokenScore, ...] = ()


@dataclass(frozen=True)
class Piece:
    """What one step brought for one sample."""

    sample: int
    text: str
    """Whole characters, nothing of a stop string; may be empty."""

    tokens: tuple[TokenScore, ...] = ()
    """Filled where log-probabilities were asked for, also when the text is still held back."""


@dataclass(frozen=True)
class Finished:
    """The last event of a sample."""

    sample: int
    reason: Reason
    """stop: end of document, or a stop string. length: max_new_tokens."""

    n_tokens: int
    """Written by this sample, an end-of-document token included."""

    n_prompt_tokens: int
    n_cached_tokens: int
    """Of the prompt: taken from what was read before."""

    error: str | None = None


class QueueFullError(FangcunError):
    """More requests wait than the engine takes."""


def check_request(request: Request, rows: int, max_samples: int) -> None:
    """Raise FangcunError naming the field that is wrong. rows: of the model's embedding."""
    for index in request.prompt_ids:
        if not 0 <= index < rows:
            raise FangcunError(
                f"The prompt holds the id {index}, but the model knows ids 0 to {rows - 1}. Encode it with the model's own tokenizer."
            )
    _whole("max_new_tokens", request.max_new_tokens, 0)
    _whole("n", request.n, 1, max_samples)
    if request.logprobs is not None:
        _whole("logprobs", request.logprobs, 0, MOST_ALTERNATIVES)
    elif request.prompt_logprobs:
        raise FangcunError("prompt_logprobs is true, but logprobs is not set. Give logprobs=0 or more.")


def _whole(name: str, value: object, least: int, most: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        limits = f">= {least}" if most is None else f"from {least} to {most}"
        raise FangcunError(f"{name} is {value!r}, expected a whole number {limits}.")
