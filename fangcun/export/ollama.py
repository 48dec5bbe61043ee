"""The Modelfile with which Ollama takes a GGUF file: a base model writes on from the text, a tuned one is asked in its form."""

from __future__ import annotations

from fangcun.export.facts import is_base_model
from fangcun.export.source import Source

_CHATML = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
_COMPLETION = "{{ .Prompt }}"


def modelfile(source: Source, gguf_name: str) -> str:
    """The content of `Modelfile`, for a GGUF file beside it."""
    tokenizer = source.tokenizer
    template = None if is_base_model(source.folder) else tokenizer.chat_template
    stops = [tokenizer.eos_token]
    lines = [f"FROM ./{gguf_name}"]
    if template is None:
        lines += ["# A base model: it writes on from the text as it stands.", _quoted("TEMPLATE", _COMPLETION)]
    elif "<|im_start|>" in template:
        lines.append(_quoted("TEMPLATE", _CHATML))
        stops.append("<|im_end|>")
    else:
        lines.append("# The chat template stands in the GGUF file; Ollama takes it from there where it knows it.")
    lines += [f"PARAMETER stop {_string(stop)}" for stop in dict.fromkeys(stops)]
    lines += ["PARAMETER temperature 0.8", f"PARAMETER num_ctx {source.config.block_size}"]
    return "\n".join(lines) + "\n"


def _quoted(key: str, value: str) -> str:
    return f'{key} """{value}"""'


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
