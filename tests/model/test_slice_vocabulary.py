"""Promises of a sliced vocabulary: kept ids have their old logits, and the rest is refused by name."""

from __future__ import annotations

import pytest
import torch
from shapes import FAMILIES, random_config, random_model

from fangcun.errors import FangcunError
from fangcun.model import load_model, save_model, slice_vocabulary


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_kept_ids_are_the_old_ones(family: str, tied: bool) -> None:
    model = random_model(random_config(family, 3, tie_embeddings=tied, vocab_size=70, padding_multiple=8)).eval()
    kept = [0, 3, 4, 9, 20, 21, 22, 41, 55, 69, 7]
    small = slice_vocabulary(model, kept)
    assert (small.config.vocab_size, small.config.padded_vocab_size) == (11, 16)
    assert small.config.tie_embeddings == tied
    ids = torch.randint(0, len(kept), (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        old, new = model(torch.tensor(kept)[ids]), small(ids)
    torch.testing.assert_close(new[..., : len(kept)], old[..., kept], rtol=1e-5, atol=1e-6)
    # What fills up to a multiple of 8 are the old model's last rows, its padding first.
    assert torch.equal(small.embedding.weight[11:], model.embedding.weight[[71, 70, 68, 67, 66]])


def test_it_is_a_checkpoint_like_any_other(tmp_path) -> None:
    model = random_model(random_config("qwen3", 5, vocab_size=70, padding_multiple=1))
    small = slice_vocabulary(model, list(range(0, 70, 2)))
    save_model(small, tmp_path)
    again = load_model(tmp_path)
    assert again.config.vocab_size == 35
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("kept", [[], [0, 1, 1], [0, 4000], [-1]])
def test_ids_that_the_model_does_not_have_are_refused(kept: list[int]) -> None:
    with pytest.raises(FangcunError, match="belong together"):
        slice_vocabulary(random_model(random_config("qwen3", 1)), kept)
