"""The one kind of error a user is meant to read: a sentence with place, value, expectation and next step.

Everything else that escapes is a bug in Fangcun and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FangcunError(Exception):
    """A mistake in the input or the surroundings. The command line prints it without a traceback."""

    exit_code = 1


class LostRankError(FangcunError):
    """Another process of this run is gone. Every process that is left says so: the first may be the one that is gone."""


class OutOfReachError(FangcunError):
    """Data that cannot be read at this time, with nothing wrong in the run: it is saved and can go on later."""


class ConfigError(FangcunError):
    """A recipe, a flag or a model configuration that cannot be meant. Exit code 2, as for usage errors."""

    exit_code = 2


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'n_layer'?"` for the closest choice, or an empty string when none is close."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
