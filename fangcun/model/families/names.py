"""Small tools of the weight mappings: taking tensors out of a state by name, with errors that name them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from fangcun.errors import FangcunError

State = dict[str, Tensor]


def take(state: State, name: str) -> Tensor:
    """Remove and return a tensor. Raises FangcunError naming it when it is missing."""
    if name not in state:
        raise FangcunError(
            f"the weights lack {name}. Expected a complete checkpoint of the shape that config.json states."
        )
    return state.pop(name)


def refuse_rest(state: State) -> None:
    """Raise FangcunError naming what is left over in `state` after all known names were taken."""
    if state:
        raise FangcunError(
            f"the weights hold what config.json does not account for: {listed(state)}. Check its settings on biases, "
            "norms, layers and tied embeddings."
        )


def listed(names: Iterable[str], limit: int = 8) -> str:
    """At most `limit` names, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
