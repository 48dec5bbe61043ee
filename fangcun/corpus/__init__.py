"""Documents in, clean documents out.

Reads the files people have in constant memory, cleans them, holds out a validation share, and writes the corpus
artefact. What was broken or left out is counted and named.
"""

from fangcun.corpus.build import build_corpus, corpus_fingerprint, corpus_settings
from fangcun.corpus.builtin import builtin_file
from fangcun.corpus.clean.tidy import normalize
from fangcun.corpus.documents import Document
from fangcun.corpus.drops import Drops, read_samples
from fangcun.corpus.files import list_files
from fangcun.corpus.process import read_documents
from fangcun.corpus.report import ReadReport, describe_drops
from fangcun.corpus.shards import iter_split

__all__ = [
    "Document",
    "Drops",
    "ReadReport",
    "build_corpus",
    "builtin_file",
    "corpus_fingerprint",
    "corpus_settings",
    "describe_drops",
    "iter_split",
    "list_files",
    "normalize",
    "read_documents",
    "read_samples",
]
