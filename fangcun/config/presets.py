"""Presets of cleaning: `corpus.preset` and the presets of single sources give way to the settings that they stand for."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fangcun.config.findings import Given
from fangcun.config.flatten import flatten
from fangcun.config.yaml_tree import Mapping, Node, Scalar, describe, parse_yaml, read_yaml
from fangcun.errors import did_you_mean

PRESET_SECTIONS = ("clean", "filter", "dedup")
"""What a preset may set."""

_Nodes = dict[str, tuple[Node, Given]]


def shipped_names(folder_name: str) -> list[str]:
    """The YAML files of a package folder, without their ending."""
    folder = resources.files("fangcun") / folder_name
    return sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_names() -> list[str]:
    """The shipped presets, by name."""
    return shipped_names("presets")


def fill_in_presets(nodes: _Nodes) -> list[str]:
    """Replace every preset in `nodes` by its settings, below those that are given; a sentence for each mistake."""
    below: _Nodes = {}
    problems: list[str] = []
    if "corpus.preset" in nodes:
        node, origin = nodes.pop("corpus.preset")
        label = origin.place if origin.by_flag else f"{origin.place}: corpus.preset"
        below = _read(node, label, problems)
    if "corpus.sources" in nodes:
        node, origin = nodes["corpus.sources"]
        if isinstance(node, Mapping):
            entries = {
                name: _filled_in(source, f"{origin.place}: corpus.sources.{name}.preset", nodes, below, problems)
                if isinstance(source, Mapping)
                else source
                for name, source in node.entries.items()
            }
            nodes["corpus.sources"] = (Mapping(entries, node.lines, node.line), origin)
    for key, given in below.items():
        nodes.setdefault(key, given)
    return problems


def _filled_in(source: Mapping, label: str, nodes: _Nodes, below: _Nodes, problems: list[str]) -> Mapping:
    """A source with whole sections: its own words, then the recipe's, then those of a preset.

    Copies are looked for in all sources together: what its preset says of dedup goes to `below`.
    """
    preset = _read(source.entries["preset"], label, problems) if "preset" in source.entries else {}
    entries = {name: node for name, node in source.entries.items() if name != "preset"}
    for section in ("clean", "filter"):
        own = entries.get(section)
        of_preset = _leaves(preset, section)
        if not of_preset and not isinstance(own, Mapping):
            continue  # as the recipe's
        own = own if isinstance(own, Mapping) else Mapping()
        leaves = (of_preset or _leaves(below, section)) | _leaves(nodes, section)
        entries[section] = Mapping({**leaves, **own.entries}, dict.fromkeys(leaves, source.line) | own.lines, own.line)
    for key, given in preset.items():
        if key.startswith("dedup.") and key not in nodes:
            other = below.setdefault(key, given)
            if other[0] != given[0] and getattr(other[0], "text", None) != getattr(given[0], "text", None):
                problems.append(
                    f"{label}: {key} differs from that of another preset; all sources share it. Write {key} in the recipe."
                )
    return Mapping(entries, source.lines, source.line)


def _leaves(nodes: _Nodes, section: str) -> dict[str, Node]:
    return {key.partition(".")[2]: node for key, (node, _) in nodes.items() if key.startswith(f"{section}.")}


def _read(node: Node, label: str, problems: list[str]) -> _Nodes:
    """The settings of the preset that `node` names."""
    if not isinstance(node, Scalar):
        problems.append(f"{label}: expected the name of a preset, or of a YAML file, got {describe(node)}.")
        return {}
    # As a flag, none is a spelling of null elsewhere; here it is a preset's name.
    if node.is_null and node.text != "none":
        return {}
    name = node.text
    if name in preset_names():
        shown = f"preset {name}"
        tree = parse_yaml((resources.files("fangcun") / "presets" / f"{name}.yaml").read_text(encoding="utf-8"), shown)
    elif name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            problems.append(f"{label}: there is no file '{name}'.")
            return {}
        shown, tree = name, read_yaml(Path(name), name)
    else:
        names = ", ".join(preset_names())
        problems.append(
            f"{label}: '{name}' is no preset.{did_you_mean(name, preset_names())} They are {names}, or a YAML file."
        )
        return {}
    given, mistakes = flatten(tree, shown)
    problems += mistakes
    for key, (_, place) in given.items():
        if key.partition(".")[0] not in PRESET_SECTIONS:
            problems.append(f"{place}: {key}: a preset has the sections {', '.join(PRESET_SECTIONS)} only.")
    return {
        key: (node, Given(place, False))
        for key, (node, place) in given.items()
        if key.partition(".")[0] in PRESET_SECTIONS
    }
