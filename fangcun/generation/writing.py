"""One sample of a request as text: ids become whole characters, stop strings are held back, scores are told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fangcun.generation.requests import Finished, Piece, Reason, Request, TokenScore
from fangcun.generation.samples import Sample, make_generator
from fangcun.generation.stopping import StopStrings

if TYPE_CHECKING:
    from fangcun.generation.language_model import LanguageModel

SCORED_AT_ONCE = 64
"""Positions of a prompt whose logits are held at a time."""


class Writing:
    """What the engine keeps of sample `number` of a request, and what it tells of it."""

    def __init__(
        self, lm: LanguageModel, request: Request, number: int, deliver: Callable[[Piece | Finished], None]
    ) -> None:
        self.request, self.number, self.deliver = request, number, deliver
        self.tokenizer = lm.tokenizer
        self.sample = Sample(
            request.prompt_ids,
            request.settings,
            vocab_size=lm.tokenizer.vocab_size,
            block_size=lm.config.block_size,
            end_id=lm.tokenizer.eos_id,
            stop_ids=(*lm.stop_ids, *request.stop_ids),
            max_new_tokens=request.max_new_tokens,
            generator=make_generator(request.seed, number),
        )
        self.cut_tokens = max(0, len(request.prompt_ids) - lm.config.block_size)
        """Of the prompt that the model cannot read."""
        self.unread: list[int] = []
        self.n_cached_tokens = 0
        self.cancelled = self.moved = self.finished = False
        self.scores_prompt = request.prompt_logprobs and number == 0
        self.last_hidden = torch.empty(0)
        self._scored = 0
        self._decoder = lm.tokenizer.stream(context=request.prompt_ids)
        self._gate = StopStrings(request.stop)

    def advance(self, logits: Tensor) -> Reason | None:
        """Draw the next token from float32 logits (V,) and tell it; the reason where it was the last."""
        index = self.sample.choose(logits)
        if index is None:
            return "stop"
        tokens = ()
        if self.request.logprobs is not None:
            tokens = (self._score(index, logits.log_softmax(-1)),)
        text = self._gate.push(self._decoder.push(index))
        if text or tokens:
            self.deliver(Piece(self.number, text, tokens))
        if self._gate.stopped:
            return "stop"
        return "length" if self.sample.full else None

    def finish(self, reason: Reason, error: str | None = None) -> None:
        """Tell what was held back, and that this is the end; once."""
        if self.finished:
            return
        self.finished = True
        n_tokens, n_prompt_tokens = self.sample.n_tokens, len(self.request.prompt_ids)
        with suppress(Exception):  # a receiver that fails here has missed its end; the others go on
            if reason in ("stop", "length"):
                rest = self._gate.push(self._decoder.flush()) + self._gate.flush()
                if rest:
                    self.deliver(Piece(self.number, rest))
            self.deliver(Finished(self.number, reason, n_tokens, n_prompt_tokens, self.n_cached_tokens, error))

    def score_prompt(self, hidden: Tensor, head: Callable[[Tensor], Tensor]) -> None:
        """Tell how likely the prompt's tokens were, from the hidden states (T, n_embd) of the stretch just read."""
        context, start = self.sample.context, self._scored
        previous = self.last_hidden
        self.last_hidden = hidden[-1]
        self._scored += len(hidden)
        if not self.request.prompt_ids:
            return
        scores = [] if start else [TokenScore(context[0], self._text(context[0]), None)]
        states = hidden[:-1] if not start else torch.cat((previous[None], hidden[:-1]))
        place = max(start, 1)
        for part in states.split(SCORED_AT_ONCE):
            for row in head(part).log_softmax(-1):
                scores.append(self._score(context[place], row))
                place += 1
        self.deliver(Piece(self.number, "", tuple(scores)))

    def _score(self, index: int, logprobs: Tensor) -> TokenScore:
        best: tuple[TokenScore, ...] = ()
        if self.request.logprobs:
            values, ids = logprobs[: self.tokenizer.vocab_size].topk(
                min(self.request.logprobs, self.tokenizer.vocab_size)
            )
            best = tuple(
                TokenScore(other, self._text(other), value)
                for other, value in zip(ids.tolist(), values.tolist(), strict=True)
            )
        return TokenScore(index, self._text(index), float(logprobs[index]), best)

    def _text(self, index: int) -> str:
        return self.tokenizer.decode([index])
