"""The reference page of the recipe, made from the dataclasses: `python -m fangcun.config.reference > docs/reference.md`."""

from __future__ import annotations

import sys

from fangcun.config.convert import expectation
from fangcun.config.dump import yaml_value
from fangcun.config.keys import field_docs, recipe_keys, sections
from fangcun.config.schema import Recipe

_HEAD = """# Recipe reference

Every setting of a recipe. In YAML a section is a mapping (`train:` and below it `max_steps: 20`); on the command line the same
setting is `--train.max_steps 20`. `--text PATH…` is short for `--corpus.paths`, `--out DIR` for `--out_dir`.

Made by `python -m fangcun.config.reference` from the docstrings in `fangcun/config/`; change them there.
"""


def reference_page() -> str:
    """The page as Markdown."""
    about = field_docs(Recipe)
    parts = [_HEAD]
    for section, cls in sections().items():
        parts.append(f"## {section}\n\n{about[section]} {' '.join((cls.__doc__ or '').split())}\n")
        parts.append(_table(f"{section}."))
    parts.append("## Top level\n")
    parts.append(_table(""))
    return "\n".join(parts)


def _table(prefix: str) -> str:
    rows = ["| setting | type | default | |", "|---|---|---|---|"]
    for key in recipe_keys().values():
        section, dot, leaf = key.name.rpartition(".")
        if section + dot == prefix:
            doc = " ".join(key.doc.split())
            rows.append(
                f"| `{leaf}` | {_cell(expectation(key.hint))} | `{_cell(yaml_value(key.default))}` | {_cell(doc)} |"
            )
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.buffer.write(reference_page().encode())
