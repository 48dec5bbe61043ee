"""A recipe's tree as dotted keys; what is no key is named, with the nearest right one."""

from __future__ import annotations

from fangcun.config.keys import nearest_key, recipe_keys, sections
from fangcun.config.yaml_tree import Mapping, Node, Scalar


def flatten(tree: Mapping, shown: str) -> tuple[dict[str, tuple[Node, str]], list[str]]:
    """Dotted key to (node, place) for every known key, and a sentence for each unknown one."""
    given: dict[str, tuple[Node, str]] = {}
    problems: list[str] = []
    keys = recipe_keys()

    def unknown(key: str, place: str) -> str:
        if key in keys and "." in key:
            section, leaf = key.split(".", 1)
            return f"{place}: {key}: write it nested, '{section}:' and below it '  {leaf}: …'."
        near = nearest_key(key)
        return f"{place}: {key}: unknown key." + (f" Did you mean '{near}'?" if near else "")

    for top, node in tree.entries.items():
        place = f"{shown}:{tree.lines[top]}"
        if top in sections():
            if isinstance(node, Mapping):
                for leaf, value in node.entries.items():
                    key, inner = f"{top}.{leaf}", f"{shown}:{node.lines[leaf]}"
                    if key in keys:
                        given[key] = (value, inner)
                    else:
                        problems.append(unknown(key, inner))
            elif not (isinstance(node, Scalar) and node.is_null):
                problems.append(
                    f"{place}: {top}: expected a section with settings below it, got a single value or a list."
                )
        elif top in keys and "." not in top:
            given[top] = (node, place)
        else:
            problems.append(unknown(top, place))
    return given, problems
