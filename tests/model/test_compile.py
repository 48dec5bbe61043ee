"""The model is one graph: nothing in it makes torch.compile fall back to Python."""

from __future__ import annotations

import pytest
import torch
from shapes import GPT2, random_ids, random_model, small_config


@pytest.mark.parametrize("shape", [{}, {**GPT2, "family": "gpt2", "n_query_groups": None}], ids=["qwen3", "gpt2"])
def test_the_forward_pass_is_one_graph(shape: dict) -> None:
    config = small_config(**shape)
    model, ids = random_model(config), random_ids(config)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids), model(ids))
