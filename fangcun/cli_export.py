"""`fangcun export` and `fangcun verify`: a model for other tools, and whether they compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def export(
    path: str,
    /,
    *,
    to: Literal["hf", "gguf"],
    out: str,
    dtype: Literal["f32", "bf16", "f16", "q8_0"] | None = None,
    max_shard_size: str = "2GB",
) -> int:
    """Write a trained model as a Hugging Face folder or as GGUF for llama.cpp and Ollama, with a model card.

    Parameters
    ----------
    path
        A run (its newest complete checkpoint), a checkpoint, or a Hugging Face folder.
    to
        hf: the folder that transformers opens, without the state of training. gguf: one file, and an Ollama Modelfile.
    out
        Folder to write. An earlier export there is replaced, anything else is refused.
    dtype
        Number format of the weights. Default: as stored for hf, f16 for gguf. q8_0 for gguf only.
    max_shard_size
        hf: above this the weights go to several files.
    """
    from fangcun.export import export_gguf, export_hf, parse_size

    notes: list[str] = []
    if to == "hf":
        written = export_hf(path, out, dtype=dtype, max_shard_bytes=parse_size(max_shard_size))
    else:
        written, notes = export_gguf(path, out, dtype=dtype or "f16")
    for note in notes:
        print(f"note: {note}")
    print(f"{written}\n{Path(out) / 'README.md'}: the model card; its licence is to be filled in.")
    return 0


def verify(path: str, other: str | None = None, /, *, against: Literal["hf", "gguf"], tolerance: float = 1e-3) -> int:
    """Compare a model with transformers or llama.cpp: token ids, logits, greedy text. Exit code 1 where they differ.

    Parameters
    ----------
    path
        A run, a checkpoint, or a Hugging Face folder; computed here in float32.
    other
        What the other implementation opens: a model folder or a GGUF file. Default: an export to f32, made for this.
    against
        hf: transformers. gguf: llama.cpp, through the package xllamacpp.
    tolerance
        How far below our best logit a token of the other's greedy text may lie; the logits may differ by ten times that.
    """
    from rich.console import Console
    from rich.table import Table

    from fangcun.export import verify as compare

    checks = compare(path, against, other, tolerance=tolerance)
    table = Table("compared", "found", "")
    for check in checks:
        table.add_row(check.name, check.result, "same" if check.passed else "DIFFERENT")
    Console(width=None).print(table)
    return 0 if all(check.passed for check in checks) else 1
