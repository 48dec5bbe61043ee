"""A dumped recipe loads as the same recipe: as a property, over random valid recipes."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fangcun.config import dump_recipe, load_recipe, recipe_names
from fangcun.config.constraints import Bounds
from fangcun.config.keys import recipe_keys
from fangcun.config.loader import build_recipe
from fangcun.errors import ConfigError

TEXT = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from("\n\t '\"#:-[]{}&*!|>%@`~三国"), max_size=12
)


def values(hint: Any) -> st.SearchStrategy:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = next(extra for extra in args[1:] if isinstance(extra, Bounds))
        return values(args[0]).filter(bounds.holds)
    if origin in (Union, types.UnionType):
        return st.one_of(*(st.none() if arg is type(None) else values(arg) for arg in args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(values(args[0]), min_size=1, max_size=3)
    if origin is tuple:
        return st.tuples(*(values(arg) for arg in args))
    numbers = st.integers(0, 10**13), st.floats(0, 1e9) | st.floats(0, 1)
    return {bool: st.booleans(), int: numbers[0], float: numbers[1], str: TEXT}[hint]


RECIPES = st.fixed_dictionaries(
    {},
    optional={
        name: values(key.hint)
        for name, key in recipe_keys().items()
        if name not in ("device", "corpus.sources") and not name.startswith(("mix.", "cluster."))
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(RECIPES)
def test_a_valid_recipe_survives_the_round_trip_exactly(
    tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, Any]
) -> None:
    chosen = {
        key: value for key, value in chosen.items() if not key.startswith("model.") and key not in UNUSABLE(chosen)
    }
    recipe = build_recipe({"train.max_steps": 10, **chosen})
    file = tmp_path_factory.mktemp("dump") / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file).recipe == recipe


def UNUSABLE(chosen: dict[str, Any]) -> set[str]:  # noqa: N802
    """Keys to leave out so that the rest is free of contradictions; those have tests of their own."""
    out = {
        "corpus.builtin",
        "corpus.preset",
        "dedup.similarity",
        "dedup.paragraph_characters",
        "dedup.overlap_characters",
        "corpus.txt_split",
        "corpus.separator",
        "corpus.chapter_pattern",
        "train.lr_schedule",
        "train.min_lr",
    }
    out |= {"train.lr_decay_steps", "train.max_seq_length", "train.micro_batch_size", "train.global_batch_size"}
    out |= {"train.lr_decay_share", "train.lr_decay_shape", "optimizer.name", "optimizer.head_lr", "init.zero_head"}
    out |= {key for key in chosen if key.startswith("optimizer.muon_")}
    if chosen.get("init_from") is not None:
        out |= {key for key in chosen if key.startswith("init.")}
    if chosen.get("tokenizer.path") is not None or chosen.get("tokenizer.kind") == "char":
        out |= {
            f"tokenizer.{leaf}" for leaf in ("kind", "vocab_size", "trainer", "gb2312", "max_han_run", "sample_bytes")
        }
    if chosen.get("tokenizer.trainer") == "tokenizers" or chosen.get("tokenizer.vocab_size", 8192) < 8000:
        out |= {"tokenizer.gb2312"}
    if chosen.get("tokens.path") is not None:
        out |= {"tokens.dtype", "tokens.workers", "tokens.encoder", "tokens.shard_tokens"}
    out |= {"tokens.upload", "tokens.cache_bytes", "tokens.cache_folder"}  # they want a URL
    if chosen.get("train.strategy") == "fsdp" and chosen.get("precision") in ("bf16-true", "16-mixed"):
        out |= {"precision"}
    named = chosen.get("trackers", [])
    out |= {"tracking.project"} | ({"tracking.folder"} if not {"swanlab", "wandb", "trackio"} & set(named) else set())
    out |= {f"tracking.{name}_mode" for name in ("swanlab", "wandb") if name not in named}
    # As text, "true", "null" and "yes" would be the other member of the union.
    if str(chosen.get("resume")).lower() in ("", "true", "false", "yes", "no", "on", "off"):
        out |= {"resume"}
    return out | ({"train.max_steps"} if chosen.get("train.max_steps") is None else set())


SOURCES = """
corpus:
  sources:
    novels: {paths: [a.txt, "b b.txt"], preset: novel, txt_split: chapter}
    news:
      paths: [news.jsonl]
      text_key: content
      preset: news
      filter: {min_characters: 7}
    own: {paths: [c.txt]}
mix:
  weights: {novels: 1, news: 2.5, own: 0}
  max_epochs: 4
  changes: {100: {novels: 1, news: 0, own: 1}}
train: {max_steps: 200}
"""


def test_sources_and_mixture_survive_the_round_trip(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(SOURCES, encoding="utf-8")
    recipe = load_recipe(
        tmp_path / "my.yaml", ["--mix.changes", "50:novels=0,news=1,own=0", "80:novels=1,news=1,own=1"]
    ).recipe
    assert recipe.corpus.sources is not None and recipe.mix.changes is not None
    assert recipe.corpus.sources["news"].filter is not None and recipe.corpus.sources["news"].filter.min_characters == 7
    assert recipe.corpus.sources["novels"].clean is not None and recipe.corpus.sources["novels"].preset is None
    assert recipe.corpus.sources["own"].clean is None and recipe.dedup.near
    assert recipe.mix.changes[50] == {"novels": 0, "news": 1, "own": 0}
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").recipe == recipe


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("txt_split: chapter", "txt_spilt: chapter", r"novels \(line 4\): txt_spilt \(line 4\): unknown key. Did you mean 'txt_split'"),
        ("min_characters: 7", "min_characters: x", r"min_characters \(line 9\): expected a whole number >= 0, got 'x'"),
        ("preset: news", "preset: nwes", r"news.preset: 'nwes' is no preset. Did you mean 'news'"),
        ("paths: [c.txt]", "text_key: x", "own: it has no paths"),
        ("own: {paths", "'b:d': {paths", "b:d: a source's name"),
        ("news: 2.5", "nwes: 2.5", r"mix.weights: there is no source 'nwes'. Did you mean 'news'"),
        ("news: 2.5, ", "", "mix.weights: it does not say anything of news. Write 0"),
        ("{novels: 1, news: 2.5, own: 0}", "{novels: 0, news: 0, own: 0}", "nothing is left to read"),
        ("max_epochs: 4", "epochs: {novels: 1, news: 1, own: 1}", "here is mix.weights and mix.epochs"),
        ("news: 0, own: 1}}", "own: 1}}", "mix.changes: step 100: it does not say anything of news"),
        ("100: {", "0: {", r"mix.changes: 0 \(line 14\): expected a whole number >= 1, got '0'"),
        ("train:", "dedup: {near: false, paragraph_characters: 9}\ntrain:", "no effect without dedup.paragraph_documents"),
        ("  sources:", "  paths: [x.txt]\n  sources:", "corpus.paths .*is given too"),
    ],
)  # fmt: skip
def test_a_mistake_in_sources_names_place_and_remedy(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in SOURCES
    (tmp_path / "my.yaml").write_text(SOURCES.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        load_recipe(tmp_path / "my.yaml")


LAYERS = """
corpus:
  sources:
    novels: {paths: [a.txt], preset: novel}
    news: {paths: [b.txt], preset: news, filter: {max_digits: 0.4}}
filter: {min_characters: 77, max_digits: 0.1, max_characters: 9000}
clean: {markup: true}
train: {max_steps: 9}
"""


def test_a_source_says_before_the_recipe_and_the_recipe_before_the_presets(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(LAYERS, encoding="utf-8")
    recipe = load_recipe(tmp_path / "my.yaml", ["--filter.min_characters", "88"]).recipe
    assert recipe.corpus.sources is not None
    novels, news = recipe.corpus.sources["novels"], recipe.corpus.sources["news"]
    assert novels.clean is not None and novels.clean.markup and novels.clean.unwrap_lines
    assert novels.filter is None and recipe.filter.min_characters == 88 and recipe.filter.max_digits == 0.1
    assert news.filter is not None and (news.filter.min_characters, news.filter.max_digits) == (88, 0.4)
    assert news.filter.max_spam is not None and news.filter.max_characters == 9000
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").recipe == recipe


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("preset: novel", "preset: [novel]", "corpus.sources.novels.preset: expected the name of a preset"),
        ("preset: novel", "filter: {min_characters: 3}", r"filter.max_digits|filter.min_characters"),
        ("corpus:", "corpus:\n  preset: {clean: novel}", "corpus.preset: expected the name of a preset"),
    ],
)
def test_a_preset_that_is_no_name_and_a_setting_that_no_source_reads_are_refused(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    text = LAYERS.replace(old, new, 1)
    if "min_characters: 3" in new:
        text = text.replace("filter: {max_digits: 0.4}", "filter: {max_digits: 0.4, min_characters: 5}")
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        load_recipe(tmp_path / "my.yaml")


def test_presets_that_differ_on_duplicates_need_a_word_in_the_recipe(tmp_path: Path) -> None:
    for name, similarity in (("x", 0.6), ("y", 0.8)):
        (tmp_path / f"{name}.yaml").write_text(f"dedup: {{near: true, similarity: {similarity}}}\n", encoding="utf-8")
    sources = ", ".join(f"{name}: {{paths: [a.txt], preset: {tmp_path}/{name}.yaml}}" for name in "xy")
    (tmp_path / "my.yaml").write_text(
        f"corpus: {{sources: {{{sources}}}}}\ntrain: {{max_steps: 3}}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"dedup.similarity differs .* Write dedup.similarity in the recipe"):
        load_recipe(tmp_path / "my.yaml")
    assert load_recipe(tmp_path / "my.yaml", ["--dedup.similarity", "0.7"]).recipe.dedup.similarity == 0.7


def test_a_mixture_without_sources_is_refused_and_text_on_the_command_line_replaces_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no sources to mix"):
        load_recipe("demo", ["--mix.weights", "a=1"])
    with pytest.raises(ConfigError, match="name=value"):
        load_recipe("demo", ["--mix.weights", "a=1", "a=2"])
    with pytest.raises(ConfigError, match="no flag can write"):
        load_recipe("demo", ["--corpus.sources", "a=1"])
    (tmp_path / "my.yaml").write_text(SOURCES, encoding="utf-8")
    recipe = load_recipe(tmp_path / "my.yaml", ["--text", "x.txt"]).recipe
    assert recipe.corpus.paths == ["x.txt"] and recipe.corpus.sources is None and recipe.mix.weights is None


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_survives_the_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name).recipe
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe, "two\nlines"), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").recipe == recipe
    assert dump_recipe(recipe, "two\nlines").startswith("# two\n# lines\ncorpus:\n")


def test_settings_that_nothing_reads_are_left_out_so_that_the_text_loads(tmp_path: Path) -> None:
    recipe = load_recipe("demo").recipe
    for change in ({"tokenizer": dataclasses.replace(recipe.tokenizer, path="x")}, {"init_from": "x"}):
        (tmp_path / "recipe.yaml").write_text(dump_recipe(dataclasses.replace(recipe, **change)), encoding="utf-8")
        again = load_recipe(tmp_path / "recipe.yaml").recipe
        assert (again.init_from or again.tokenizer.path) == "x"
        assert again.train == recipe.train


def test_text_that_looks_like_something_else_stays_text(tmp_path: Path) -> None:
    recipe = build_recipe(
        {"train.max_steps": 1, "samples.prompts": ["null", "3e4", "no", "", " x ", "a: b", "# c", "- d"]}
    )
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").recipe.samples.prompts == recipe.samples.prompts


def test_a_broken_dump_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        dump_recipe(load_recipe("demo").recipe).replace("n_layer", "n_lager"), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="n_lager"):
        load_recipe(tmp_path / "recipe.yaml")
