"""The weights that a run starts from where `init_from` names them: whose they are, and that the tokenizer is theirs."""

from __future__ import annotations

from pathlib import Path

from fangcun.artifacts import MANIFEST, describe_inputs, find_weights, fingerprint, read_manifest
from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer, import_tokenizer

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")


def check_own_tokenizer(init_from: str, tokenizer: Tokenizer) -> None:
    """Raise FangcunError when `tokenizer` gives other ids than the one beside the weights of `init_from`.

    It may have tokens more. A folder without a tokenizer says nothing.
    """
    folder = find_weights(init_from)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return
    own = import_tokenizer(folder).tokenizer.backend.get_vocab(with_added_tokens=True)
    ours = tokenizer.backend.get_vocab(with_added_tokens=True)
    wrong = [token for token, index in own.items() if ours.get(token) != index]
    if wrong:
        token = min(wrong, key=lambda name: own[name])
        there = f"id {ours[token]}" if token in ours else "no token"
        raise FangcunError(
            f"init_from: {init_from} was trained with another tokenizer: {len(wrong):,} of its {len(own):,} tokens differ, "
            f"the first is {token!r}, id {own[token]} there and {there} in the tokenizer of this run. Leave out "
            "tokenizer.path (and tokens.path) to use its own."
        )


def weights_fingerprint(init_from: str) -> str:
    """What the weights are, by content: the fingerprint that stands in the checkpoints of a run that began with them."""
    folder = find_weights(init_from)
    if (folder / MANIFEST).is_file():
        files = read_manifest(folder, "checkpoint", without="training_state").files
        return fingerprint(
            "weights",
            {name: files[name]["sha256"] for name in files if name.endswith(".safetensors") and "/" not in name},
        )
    found = describe_inputs(sorted(folder.glob("*.safetensors")))
    return fingerprint("weights", {Path(entry["path"]).name: entry["sha256"] for entry in found})
