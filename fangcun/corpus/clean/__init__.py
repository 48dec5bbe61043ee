"""A document's text made better, by rules that each do one thing and count what they take.

Nothing here drops a document (that is `fangcun.corpus.filters`), and nothing is done that `clean.*` does not say.
"""

from fangcun.corpus.clean.cleaner import Cleaned, Cleaner

__all__ = ["Cleaned", "Cleaner"]
