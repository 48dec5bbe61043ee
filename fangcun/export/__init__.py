"""A trained model in the form that other tools read: a Hugging Face folder or a GGUF file, with a model card of its facts.

What another tool would read differently is refused with the reason. `verify` compares ids, logits and greedy text with
the other implementation.
"""

from fangcun.export.gguf_file import export_gguf
from fangcun.export.hf import export_hf, parse_size
from fangcun.export.verify import Check, verify

__all__ = ["Check", "export_gguf", "export_hf", "parse_size", "verify"]
