"""Documentation that cannot fall behind the code."""

from __future__ import annotations

from pathlib import Path

from fangcun.config import field_docs
from fangcun.config.keys import recipe_keys
from fangcun.config.reference import reference_page
from fangcun.config.schema import EvalConfig

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_has_a_docstring() -> None:
    assert [name for name, key in recipe_keys().items() if not key.doc] == []
    assert field_docs(EvalConfig)["interval"].startswith("Steps between two evaluations.")


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run: python -m fangcun.config.reference > docs/reference.md"
    assert all(f"| `{name.rpartition('.')[2]}` |" in page for name in recipe_keys())
