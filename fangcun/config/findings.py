"""Where a recipe's settings were written, and what is found wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fangcun.config.keys import recipe_keys
from fangcun.config.schema import Recipe


@dataclass(frozen=True)
class Given:
    """Where a setting was written."""

    place: str
    """"my.yaml:12" or "--train.max_steps"."""
    by_flag: bool


@dataclass
class Findings:
    """Mistakes and idle settings, gathered by the checks."""

    recipe: Recipe
    origins: Mapping[str, Given]
    problems: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    forgive: bool = False

    def value(self, key: str) -> object:
        section, _, leaf = key.rpartition(".")
        return getattr(getattr(self.recipe, section) if section else self.recipe, leaf)

    def place(self, *keys: str) -> str:
        """The first place among `keys` that the user wrote, as the start of a message."""
        origin = next((self.origins[key] for key in keys if key in self.origins), None)
        if origin is None:
            return keys[0]
        return origin.place if origin.by_flag else f"{origin.place}: {next(key for key in keys if key in self.origins)}"

    def by_flag(self, key: str) -> bool:
        """Whether a flag set it."""
        return key in self.origins and self.origins[key].by_flag

    def error(self, keys: Iterable[str], message: str) -> None:
        self.problems.append(f"{self.place(*keys)}: {message}")

    def idle(self, keys: Iterable[str], cause: str, message: str) -> None:
        """`keys` have no effect because of the setting `cause`: an error where they were given with another value."""
        because = self.origins.get(cause)
        for key in keys:
            given = self.origins.get(key)
            if given is None or self.value(key) == recipe_keys()[key].default:
                continue
            if self.forgive or (because is not None and because.by_flag and not given.by_flag):
                self.unused.append(key)
            else:
                self.error([key], f"{message} Remove it{_at(because)}.")


def _at(because: Given | None) -> str:
    return f", or change {because.place}" if because is not None else ""
