"""Reading a Hugging Face tokenizer folder so that it means one thing everywhere.

Settings that would give other ids in `transformers` than the file alone gives (a begin-of-text token added by default,
padding, truncation, dropout, remote code) are taken out; ids, names, chat template stay. Each change is noted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from fangcun.errors import FangcunError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
TEMPLATE_FILE = "chat_template.jinja"
ADDED_FILE = "added_tokens.json"

NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")

# Keys that name code, other files or another library's habits: they would change ids or fail offline.
_DROPPED = (
    "auto_map", "added_tokens_decoder", "add_bos_token", "add_eos_token", "name_or_path", "tokenizer_file", "vocab_file",
    "merges_file", "special_tokens_map_file", "sp_model_kwargs", "legacy", "use_fast", "backend", "is_local",
    "processor_class", "from_slow", "split_special_tokens", "padding_side", "truncation_side", "use_default_system_prompt",
)  # fmt: skip


def token_name(value: Any) -> str | None:
    """The string of a special token as tokenizer_config.json writes it: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def read_backend(file: Path) -> tuple[tokenizers.Tokenizer, list[str]]:
    """Parse a tokenizer.json; returns it with notes on what was changed. Raises FangcunError."""
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception for whatever it cannot parse
        raise FangcunError(
            f"{file} is no tokenizer.json that the tokenizers library ({tokenizers.__version__}) can read: {error}."
        ) from error
    notes = []
    backend.no_padding()
    backend.no_truncation()
    added = backend.get_added_tokens_decoder().values()
    normalised = backend.normalizer is not None and any(token.special and token.normalized for token in added)
    dropout = getattr(backend.model, "dropout", None) is not None
    if normalised or dropout:
        content = json.loads(backend.to_str())
        if dropout:
            content["model"]["dropout"] = None
            notes.append("BPE dropout was switched off: the same text always gives the same ids.")
        if normalised:
            # With sentencepiece's normalizer "</s>" would be looked for as "▁</s>" and missed inside a prompt.
            for token in content["added_tokens"]:
                token["normalized"] = token["normalized"] and not token["special"]
            notes.append("Special tokens are matched in the text as written, before the normalizer.")
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    plain = backend.encode("a", add_special_tokens=False).ids
    if backend.encode("a").ids != plain:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
        notes.append(
            "Tokens that were added in front of or behind every text (such as <s>) are no longer added by default."
        )
    return backend, notes


def read_config(folder: Path) -> tuple[dict[str, Any], dict[int, str]]:
    """tokenizer_config.json of `folder` with special tokens as strings and the chat template taken in; added tokens.

    Both are empty where the files are missing. Raises FangcunError.
    """
    raw = _read_json(folder / CONFIG_FILE)
    special = _read_json(folder / SPECIAL_FILE)
    config = {key: value for key, value in raw.items() if key not in _DROPPED}
    for key in NAMED_TOKENS:
        name = token_name(config.get(key)) or token_name(special.get(key))
        config.pop(key, None)
        if name is not None:
            config[key] = name
    template = folder / TEMPLATE_FILE
    if "chat_template" not in config and template.is_file():
        config["chat_template"] = template.read_text(encoding="utf-8")
    added = {int(index): name for name, index in _read_json(folder / ADDED_FILE).items() if isinstance(index, int)}
    for index, value in (raw.get("added_tokens_decoder") or {}).items():
        if (name := token_name(value)) is not None:
            added[int(index)] = name
    return config, added


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise FangcunError(f"{file} cannot be read: {error}. Expected a JSON object.") from error
    if not isinstance(content, dict):
        raise FangcunError(f"{file} holds a {type(content).__name__}, expected a JSON object.")
    return content
