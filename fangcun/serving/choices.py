"""From the engine's events to the choices of an answer: numbered, with the prompt before them where it is echoed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fangcun.generation import Finished, TokenScore
from fangcun.serving.bridge import Event
from fangcun.serving.errors import ApiError
from fangcun.serving.plans import Plan


@dataclass(frozen=True)
class Update:
    """What is new of choice `index`."""

    index: int
    text: str = ""
    tokens: tuple[TokenScore, ...] = ()
    reason: str | None = None
    """finish_reason, at its end."""


class Choices:
    """Follows all samples of a plan and counts their tokens."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._begun: set[int] = set()
        self._prompt_scores: dict[int, list[TokenScore]] = defaultdict(list)
        self._written_scores: dict[int, int] = defaultdict(int)
        self._prompt_tokens: dict[int, int] = {}
        self._cached_tokens: dict[int, int] = {}
        self.completion_tokens = 0

    def updates(self, events: Sequence[Event]) -> Iterator[Update]:
        """Raises ApiError 500 where the model failed, 503 where the server is going down."""
        for number, event in events:
            index = number * self._plan.n + event.sample
            if isinstance(event, Finished):
                yield from self._end(number, index, event)
                continue
            text, tokens, missing = event.text, event.tokens, 0
            if self._plan.requests[number].prompt_logprobs and event.sample == 0:
                missing = len(self._plan.requests[number].prompt_ids) - len(self._prompt_scores[number])
                self._prompt_scores[number] += tokens[:missing]
                if self._plan.only_scores:
                    tokens = tokens[:missing]
            self._written_scores[index] += max(0, len(tokens) - missing)
            if self._plan.only_scores:
                text = ""
                tokens = tokens if event.sample == 0 else ()
            head, scores = self._begin(number, index, event.sample)
            if head or text or scores or tokens:
                yield Update(index, head + text, (*scores, *tokens))

    def _begin(self, number: int, index: int, sample: int) -> tuple[str, tuple[TokenScore, ...]]:
        """The prompt that stands before the first piece of a choice, and its scores, which sample 0 alone was told."""
        if index in self._begun:
            return "", ()
        self._begun.add(index)
        if self._plan.echo is None:
            return "", ()
        return self._plan.echo[number], tuple(self._prompt_scores[number]) if sample else ()

    def _end(self, number: int, index: int, event: Finished) -> Iterator[Update]:
        if event.reason == "error":
            raise ApiError(
                500, f"The model failed at this request: {(event.error or '').rstrip('.')}.", code="generation_failed"
            )
        if event.reason == "cancelled":
            raise ApiError(503, "The server is going down and has ended this request.", code="shutting_down", headers={"Retry-After": "5"})  # fmt: skip
        head, scores = self._begin(number, index, event.sample)
        self._prompt_tokens[number] = event.n_prompt_tokens
        if event.sample == 0:  # the other samples of a prompt never read it again
            self._cached_tokens[number] = event.n_cached_tokens
        if self._plan.only_scores:
            yield Update(index, head, scores, "length")
            return
        self.completion_tokens += event.n_tokens
        if self._plan.end is not None and event.reason == "stop" and self._written_scores[index] < event.n_tokens:
            scores = (*scores, self._plan.end)
        yield Update(index, head, scores, event.reason)

    @property
    def usage(self) -> dict[str, object]:
        """Counts of tokens so far, as OpenAI names them; a prompt counts once, however many samples it has."""
        prompt = sum(self._prompt_tokens.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(self._cached_tokens.values())},
        }
