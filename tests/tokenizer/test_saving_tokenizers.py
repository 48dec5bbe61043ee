"""A tokenizer that cannot be written or found says so in a sentence, with a command that works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tokenizers

from fangcun.config import load_recipe
from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer


def long_tokenizer() -> Tokenizer:
    """More than 2 kB of vocabulary."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"word-{i}": i for i in range(500)}, "word-0"))
    backend.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(backend)


def test_a_disk_that_fills_while_the_tokenizer_is_written_is_one_sentence(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="the size of files can be limited on Unix only")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        with pytest.raises(FangcunError, match=r"cannot write .*tokenizer\.json: .*disk full\?"):
            long_tokenizer().save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_command_that_a_missing_tokenizer_recommends_is_valid(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match=r"has no tokenizer\.json") as caught:
        Tokenizer.load(tmp_path)
    command = re.search(r"fangcun tokenizer .*? --out DIR", str(caught.value))
    assert command is not None
    _, _, recipe, *flags = shlex.split(command[0])
    assert load_recipe(recipe, flags).recipe.tokenizer.path == str(tmp_path)
