"""The section mix as phases of a data order: shares, limits on repetition, changes planned or made when a run goes on."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fangcun.config import MixConfig, Recipe
from fangcun.config.check_sources import name_mistakes
from fangcun.errors import ConfigError, FangcunError
from fangcun.tokens import MixedOrder, Phase, TokenSplit, quotas
from fangcun.training.resume import flatten


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What the recipe asks for, of the sources of the tokens at hand."""

    names: tuple[str, ...]
    tokens: tuple[int, ...]
    """Targets of each source in one pass over it."""
    shares: tuple[float, ...]
    """Of the training tokens, in any unit."""
    epoch_tokens: float
    """Tokens of one epoch of the mixture."""
    max_epochs: float | None
    changes: tuple[tuple[int, tuple[float, ...]], ...]
    """(optimizer step, shares from it on)."""

    def samples_in(self, block_size: int) -> Callable[[float], int]:
        """Samples of so many epochs of the mixture."""
        return lambda epochs: math.ceil(epochs * self.epoch_tokens / block_size)


def read_mixture(config: MixConfig, train: TokenSplit) -> Mixture | None:
    """The mixture of `config`, or None where it asks for none. Raises ConfigError for names that `train` does not have."""
    ways = [name for name in ("weights", "tokens", "epochs") if getattr(config, name) is not None]
    if not ways:
        return None
    (way,) = ways
    if not train.sources:
        raise ConfigError(
            f"mix.{way}: {train.folder} holds no named sources. Pack them from corpus.sources, or remove the section mix."
        )
    names = list(train.sources)
    amounts: dict[str, float] = getattr(config, way)
    for key, shares in ((way, amounts), *(("changes", shares) for shares in (config.changes or {}).values())):
        if wrong := name_mistakes(shares, names):
            raise ConfigError("\n".join(f"mix.{key}: {message}" for message in wrong))
    tokens = tuple(max(stop - start - 1, 0) for start, stop in train.sources.values())
    given = tuple(float(amounts[name]) for name in names)
    read = tuple(amount * size for amount, size in zip(given, tokens, strict=True)) if way == "epochs" else given
    whole = sum(size for size, share in zip(tokens, given, strict=True) if share) if way == "weights" else sum(read)
    if not sum(size for size, amount in zip(tokens, given, strict=True) if amount):
        raise ConfigError(
            f"mix.{way}: the sources that it reads hold no training text (all others have 0). Give one that has some a share."
        )
    changes = tuple(
        (step, tuple(float(shares[name]) for name in names)) for step, shares in sorted((config.changes or {}).items())
    )
    return Mixture(tuple(names), tokens, read, whole, config.max_epochs, changes)


def plan_phases(
    mixture: Mixture,
    *,
    block_size: int,
    global_batch_size: int,
    last_step: int | None,
    past: Sequence[Phase] = (),
    from_sample: int = 0,
) -> list[Phase]:
    """The phases of a run: those of `past` up to `from_sample`, and from there on what the mixture asks for.

    Raises FangcunError where max_epochs leaves too little to read.
    """
    kept = [phase for phase in past if phase.first_sample < from_sample]
    counted = np.zeros(len(mixture.names), np.int64)
    ends = [*(phase.first_sample for phase in kept), from_sample][1:]
    for phase, end in zip(kept, ends, strict=True):
        counted += phase.counts(end - phase.first_sample)
    planned = [(0, mixture.shares), *((step * global_batch_size, shares) for step, shares in mixture.changes)]
    current = [entry for entry in planned if entry[0] <= from_sample][-1][1]
    planned = [(from_sample, current), *(entry for entry in planned if entry[0] > from_sample)]
    end = None if last_step is None else last_step * global_batch_size
    phases = list(kept)
    for (first, shares), following in itertools.zip_longest(planned, [first for first, _ in planned[1:]]):
        last = end if following is None else following if end is None else min(following, end)
        limited = None
        if mixture.max_epochs is not None:
            # The last step is a whole one, though the epochs asked for end within it.
            slack = len(shares) + global_batch_size
            shares, limited = _limited(mixture, shares, counted, first, last, block_size, slack)
        phase = Phase(first, quotas(shares, mixture.names, limited))
        if last is not None:
            counted = counted + phase.counts(max(0, last - first))
        if not phases or phases[-1].quotas != phase.quotas:
            phases.append(phase)
    return phases


def _limited(
    mixture: Mixture, shares: Sequence[float], counted: np.ndarray, first: int, last: int | None, block_size: int,
    slack: int,
) -> tuple[tuple[float, ...], list[bool]]:  # fmt: skip
    """Shares in which no source goes beyond max_epochs; what is over goes to the others, by their shares.

    Also tells which sources are at their limit. `slack` samples too few are let pass.
    """
    assert mixture.max_epochs is not None
    if last is None:
        raise ConfigError(
            "mix.max_epochs needs to know how long the run is, and train.max_time alone does not say. Give train.max_steps, max_tokens or epochs."
        )
    samples = last - first
    if samples <= 0:
        return tuple(shares), [False] * len(shares)
    left = np.maximum(mixture.max_epochs * np.array(mixture.tokens) / block_size - counted, 0.0)
    wanted, free = np.zeros(len(shares)), np.array(shares) > 0
    while True:
        rest = samples - wanted[~free].sum()
        if not free.any() or rest <= 0:
            break
        part = np.where(free, np.array(shares), 0.0)
        wanted = np.where(free, rest * part / part.sum(), wanted)
        over = free & (wanted > left)
        if not over.any():
            return tuple(wanted.tolist()), (~free).tolist()
        wanted, free = np.where(over, left, wanted), free & ~over
    if wanted.sum() >= samples - slack and wanted.any():
        return tuple(wanted.tolist()), [place != int(wanted.argmax()) for place in range(len(shares))]
    most = int((counted.sum() + wanted.sum()) * block_size)
    raise FangcunError(
        f"mix.max_epochs: at {mixture.max_epochs:g} passes over each source there are {most:,} tokens to read until sample {last:,}, "
        f"but {last * block_size:,} are asked for. Raise mix.max_epochs, shorten the run (train.max_steps), or add text."
    )


def plan_run(
    mixture: Mixture | None,
    recipe: Recipe,
    *,
    block_size: int,
    last_step: int | None,
    samples: int,
    stored: dict[str, Any] | None,
) -> tuple[list[Phase] | None, str | None]:
    """The phases of a run's data order (None: no mixture), and what changed, in words.

    `stored` are the settings of the checkpoint that the run goes on from, after `samples`: what was read so far stands,
    and while nothing is asked that differs, so do its plans. Raises FangcunError.
    """
    before = stored.get("mixture") if stored is not None else None
    if stored is not None and (mixture is None) != (before is None):
        was, now = ("a mixture", "none") if before is not None else ("no mixture", "one")
        raise FangcunError(
            f"mix: this run began with {was} and is asked to go on with {now}. Keep the section mix as it was (its numbers may "
            "change), or start a new run from its weights: --init_from CHECKPOINT --out NEW."
        )
    if mixture is None:
        return None, None
    size = recipe.train.global_batch_size
    if stored is None or before is None:
        return plan_phases(mixture, block_size=block_size, global_batch_size=size, last_step=last_step), None
    past = [Phase(first, tuple(counts)) for first, counts in before["phases"]]
    same = all(stored["recipe"].get(key) == value for key, value in flatten(recipe.mix, "mix.").items())
    if same and (mixture.max_epochs is None or before["last_step"] == last_step):
        return past, None
    phases = plan_phases(
        mixture, block_size=block_size, global_batch_size=size, last_step=last_step, past=past, from_sample=samples
    )
    told = []
    if phases != past:
        told.append(f"the mixture is another one from sample {samples:,} (step {samples // size:,}) on")
    if recipe.train.lr_schedule != "constant" and last_step != before["last_step"]:
        told.append(
            f"the run has {last_step:,} steps now, not {before['last_step']:,}: the {recipe.train.lr_schedule} schedule is recomputed"
            if last_step and before["last_step"]
            else "the length of the run changed: its schedule is recomputed"
        )
    return phases, "; ".join(told) or None


def phases_as_json(phases: Sequence[Phase], names: Sequence[str], last_step: int | None) -> dict[str, Any]:
    """What a checkpoint's manifest says of the mixture; `plan_run` goes on from it."""
    return {
        "sources": list(names),
        "phases": [[phase.first_sample, list(phase.quotas)] for phase in phases],
        "last_step": last_step,
    }


def describe_phases(order: MixedOrder, samples: int, last_sample: int | None) -> list[str]:
    """The shares of each phase that is still to come, in words, with how often each source is read in the whole run."""
    lines = []
    ends = [*(phase.first_sample for phase in order.phases[1:]), None]
    for phase, end in zip(order.phases, ends, strict=True):
        if end is not None and end <= samples:
            continue
        total = sum(phase.quotas)
        shares = ", ".join(f"{name} {quota / total:.1%}" for name, quota in zip(order.names, phase.quotas, strict=True))
        lines.append(shares if phase.first_sample <= samples else f"from sample {phase.first_sample:,}: {shares}")
    if last_sample is not None:
        passes = ", ".join(f"{name} {count:.2f}" for name, count in order.epochs(last_sample).items())
        lines.append(f"passes over each source by the end: {passes}")
    return lines
