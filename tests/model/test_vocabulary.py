"""A model for fewer tokens gives the logits that the whole one gives for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shapes import FAMILIES, random_config, random_model, small_config

from fangcun.errors import ConfigError, FangcunError
from fangcun.model import load_model, save_model, slice_vocabulary

KEPT = [0, 3, 4, 11, 25, 26, 39]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_kept_ids_are_the_old_ones(family: str, tied: bool) -> None:
    model = random_model(random_config(family, 3, tie_embeddings=tied))
    sliced = slice_vocabulary(model, KEPT)
    ids = torch.randint(0, len(KEPT), (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        old, new = model(torch.tensor(KEPT)[ids]), sliced(ids)
    assert new.shape[-1] == len(KEPT)
    torch.testing.assert_close(new, old[..., KEPT])


def test_padded_rows_are_zero_and_no_tokens(tmp_path: Path) -> None:
    sliced = slice_vocabulary(random_model(small_config()), KEPT, padding_multiple=8)
    assert (sliced.config.vocab_size, sliced.config.padded_vocab_size) == (7, 8)
    assert sliced.embedding.weight[7:].abs().sum() == 0
    save_model(sliced, tmp_path)
    assert load_model(tmp_path).config == sliced.config


def test_the_folder_opens_in_transformers_with_the_same_logits(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = random_model(small_config())
    save_model(slice_vocabulary(model, KEPT), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[1, 5, 2, 6, 0]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(torch.tensor(KEPT)[ids])[..., KEPT], rtol=1e-4, atol=1e-5)


def test_ids_that_the_model_does_not_have_are_refused() -> None:
    model = random_model(small_config())
    rows = model.config.padded_vocab_size
    with pytest.raises(FangcunError, match=f"ids up to {rows}, but the model has rows for {rows}"):
        slice_vocabulary(model, [0, rows])
    with pytest.raises(FangcunError, match="the same id twice"):
        slice_vocabulary(model, [1, 1])
    with pytest.raises(ConfigError, match="ngram_rows"):
        slice_vocabulary(random_model(small_config(ngram_rows=64, exportable=False)), KEPT)
