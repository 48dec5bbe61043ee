"""How tokens are chosen, as flags: the same for every verb that writes, with the defaults for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from fangcun.generation import SamplingSettings


@dataclass
class SamplingFlags:
    """The fields of `fangcun.generation.SamplingSettings`, with 0 for "no limit" where a flag cannot be null."""

    temperature: float = 0.8
    """0 is greedy: always the likeliest token."""

    top_k: int = 50
    """Sample among the k likeliest tokens. 0: all."""

    top_p: float = 1.0
    """Sample among the likeliest tokens that together have this probability."""

    min_p: float = 0.0
    """Sample among tokens with at least this share of the likeliest one's probability."""

    repetition_penalty: float = 1.0
    """Above 1 makes tokens that were used less likely."""

    frequency_penalty: float = 0.0
    """Taken off a token's logit for each time that it was written."""

    presence_penalty: float = 0.0
    """Taken off a token's logit once it was written."""

    no_repeat_ngram: int = 12
    """No run of this many tokens is written twice, which ends loops; the prompt may be quoted. 0: no such rule."""

    def settings(self) -> SamplingSettings:
        """For the engine. Raises FangcunError, which names the flag."""
        from fangcun.generation import SamplingSettings

        return SamplingSettings(
            self.temperature, self.top_k or None, self.top_p, self.repetition_penalty, self.min_p, self.no_repeat_ngram,
            self.frequency_penalty, self.presence_penalty,
        )  # fmt: skip


Sampling = Annotated[SamplingFlags | None, Parameter(name="*")]
