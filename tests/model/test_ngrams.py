"""The table of runs of ids: a run's row depends on its ids alone, and a model with the table is kept apart from the families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shapes import random_ids, random_model, small_config

from fangcun.config import count_parameters, resolve_model
from fangcun.config.model import ModelConfig
from fangcun.errors import ConfigError
from fangcun.model import Transformer, initialize, load_model, parameter_kinds, save_model
from fangcun.model.ngrams import NgramEmbedding


def table(length: int, rows: int = 100_003) -> NgramEmbedding:
    config = small_config(exportable=False, ngram_rows=rows, ngram_length=length)
    found = NgramEmbedding(config)
    torch.nn.init.normal_(found.table.weight, generator=torch.Generator().manual_seed(1))
    return found


@pytest.mark.parametrize("length", [2, 3, 4])
def test_equal_runs_give_equal_vectors_and_other_runs_others(length: int) -> None:
    embed = table(length)
    ids = torch.randint(0, 50, (1, 400), generator=torch.Generator().manual_seed(2))
    found = embed(ids)[0]
    runs: dict[tuple, torch.Tensor] = {}
    for place in range(length - 1, 400):
        run = tuple(ids[0, place - length + 1 : place + 1].tolist())
        assert torch.equal(runs.setdefault(run, found[place]), found[place])
    vectors = torch.stack(list(runs.values()))
    assert len(vectors.unique(dim=0)) == len(runs)


def test_long_runs_of_a_large_vocabulary_stay_inside_the_table() -> None:
    config = small_config(exportable=False, vocab_size=151_936, ngram_rows=501, ngram_length=7, n_embd=8)
    ids = torch.randint(0, 151_936, (2, 24), generator=torch.Generator().manual_seed(3))
    assert NgramEmbedding(config)(ids).shape == (2, 24, 8)


def test_a_vector_does_not_depend_on_ids_beyond_its_run() -> None:
    embed, ids = table(3), torch.arange(12)[None]
    changed = ids.clone()
    changed[0, 4] = 40
    differs = (embed(ids) != embed(changed)).any(dim=-1)[0].tolist()
    assert differs == [place in (4, 5, 6) for place in range(12)]


def test_it_starts_by_adding_nothing_and_is_counted(tmp_path: Path) -> None:
    config = small_config(exportable=False, ngram_rows=77, ngram_length=3)
    model = Transformer(config)
    initialize(model, 1)
    assert not model.get_parameter("ngrams.table.weight").any()
    assert parameter_kinds(model)["ngrams.table.weight"] == "embedding"
    assert sum(p.numel() for p in model.parameters()) == count_parameters(config)


def test_such_a_model_says_that_no_other_program_opens_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ngram_rows is 77, qwen3 has null"):
        resolve_model(ModelConfig(vocab_size=50, ngram_rows=77))
    with pytest.raises(ConfigError, match="ngram_length is 1"):
        resolve_model(ModelConfig(vocab_size=50, ngram_rows=77, ngram_length=1, exportable=False))
    config = small_config(exportable=False, ngram_rows=77)
    model, ids = random_model(config), random_ids(config)
    save_model(model, tmp_path)
    assert torch.equal(load_model(tmp_path)(ids), model(ids))
