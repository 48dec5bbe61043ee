"""Why an artefact no longer fits: which settings and which input files differ from those it was made with."""

from __future__ import annotations

from typing import Any

from fangcun.artifacts.folder import Manifest

_MOST = 4


def describe_changes(
    manifest: Manifest, settings: dict[str, Any], inputs: list[dict[str, Any]], parents: dict[str, str]
) -> str:
    """A sentence part such as "filter.min_characters 60 → 50; new file b.txt", or what else it must be.

    `settings`, `inputs` and `parents` are those of now, as they stand in a manifest; what the manifest knows beside these
    settings was found out by the stage.
    """
    before, now = _flat(manifest.settings), _flat(settings)
    sections = {name.partition(".")[0] for name in now} | {
        n.partition(".")[0] for n, v in manifest.settings.items() if isinstance(v, dict)
    }
    changes = []
    for name in sorted(before.keys() | now.keys()):
        if name.partition(".")[0] in sections and before.get(name) != now.get(name):
            changes.append(f"{name} {_shown(before, name)} → {_shown(now, name)}")
    old, new = ({entry["path"]: entry["sha256"] for entry in each} for each in (manifest.inputs, inputs))
    # A file that only moved is no change.
    changes += [f"new file {path}" for path in new if path not in old and new[path] not in old.values()]
    changes += [f"{path} is gone" for path in old if path not in new and old[path] not in new.values()]
    changes += [f"{path} has other content" for path in new if path in old and new[path] != old[path]]
    changes += [f"the {name} changed" for name in parents if manifest.parents.get(name) != parents[name]]
    if not changes:
        return "the order of the files, or the rules of this version"
    more = f"; and {len(changes) - _MOST} more" if len(changes) > _MOST else ""
    return "; ".join(changes[:_MOST]) + more


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted name to value, whatever is nested."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{leaf}": each for leaf, each in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def _shown(settings: dict[str, Any], name: str) -> str:
    if name not in settings:
        return "(default)"
    value = settings[name]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
