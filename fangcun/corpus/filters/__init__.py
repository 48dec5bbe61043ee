"""Which documents stay: rules `(page, limit) -> reason or None`, each a function with a setting of its name in `filter.*`."""

from fangcun.corpus.filters.page import Page
from fangcun.corpus.filters.rules import RULES, Filter

__all__ = ["RULES", "Filter", "Page"]
