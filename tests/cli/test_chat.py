"""The conversation in the terminal: turns through the model's own template, commands, and what no longer fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import run_tiny

from fangcun import load
from fangcun.cli import main
from fangcun.cli_chat import Talk
from fangcun.errors import FangcunError
from fangcun.generation import Engine, SamplingSettings
from fangcun.tokenizer.chat_template import render_chat

TEMPLATE = (
    "{% for m in messages %}<|endoftext|>{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|endoftext|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def run_folder(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chat") / "run"
    assert run_tiny(text, out, "--model.block_size", "128") == 0
    return out


@pytest.fixture(scope="module")
def tuned(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's model as a folder with a chat template."""
    from fangcun.artifacts import find_weights
    from fangcun.model import load_model, save_model
    from fangcun.tokenizer import Tokenizer

    folder, source = tmp_path_factory.mktemp("tuned"), find_weights(run_folder)
    words = Tokenizer.load(source)
    save_model(load_model(source), folder, eos_id=words.eos_id)
    words.save(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}), encoding="utf-8")
    return folder


def talk(folder: Path, *, talks: bool, max_new_tokens: int = 8, system: str | None = None) -> Talk:
    lm = load(folder)
    return Talk(lm, Engine(lm, max_batch=1), SamplingSettings(0.8), max_new_tokens, 1, system, talks=talks)


def test_a_base_model_writes_on_from_each_line(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert talk(run_folder, talks=False).run(iter(["却说曹操", "", "/again", "/quit", "never read"])) == 0
    first, second = [line for line in capsys.readouterr().out.splitlines() if line.startswith("却说曹操")]
    assert first == second  # the seed is fixed
    assert first.removesuffix(" …") != "却说曹操"
    assert load(run_folder).generate("却说曹操", max_new_tokens=8, seed=1) in first


def test_turns_go_through_the_template_and_are_remembered(tuned: Path) -> None:
    conversation = talk(tuned, talks=True, system="你是曹操。")
    conversation.run(iter(["你好", "再说一次"]))
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    # What was said before is not read again.
    assert conversation.engine.totals.cached_tokens > 0
    conversation.run(iter(["/again"]))
    assert [message["role"] for message in conversation.messages] == roles
    conversation.run(iter(["/new"]))
    assert [message["role"] for message in conversation.messages] == ["system"]


def test_the_oldest_turns_are_left_out_when_the_context_is_full(
    tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = talk(tuned, talks=True, max_new_tokens=20)
    conversation.run(iter(["曹操大骂孙权" * 5] * 4))
    assert "no longer fit" in capsys.readouterr().out
    assert (
        len(conversation.lm.tokenizer.encode(render_chat(conversation.lm.tokenizer, conversation.messages[:-1]))) <= 128
    )


def test_commands_change_settings_and_wrong_ones_are_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = talk(run_folder, talks=False)
    conversation.run(
        iter(["/set temperature 0.5", "/set top_k 0", "/set seed none", "/set max_new_tokens 3", "/settings"])
    )
    assert conversation.settings == SamplingSettings(0.5, None)
    assert (conversation.seed, conversation.max_new_tokens) == (None, 3)
    assert "temperature 0.5, top_k None" in capsys.readouterr().out
    conversation.run(iter(["/sett", "/set tempreature 1", "/set top_k x", "/set temperature -1", "/again", "/set"]))
    errors = capsys.readouterr().err.splitlines()
    for error, words in zip(
        errors, ("/set", "temperature", "whole number", "-1", "nothing to answer", "no such setting"), strict=True
    ):
        assert error.startswith("error: ")
        assert words in error


def test_a_template_is_rendered_as_transformers_renders_it(tuned: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tuned)
    messages = [{"role": "user", "content": "甲\n"}, {"role": "assistant", "content": " 乙"}]
    for prompt in (True, False):
        wanted = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert render_chat(load(tuned).tokenizer, messages, add_generation_prompt=prompt) == wanted


def test_a_template_reaches_nothing_outside(tuned: Path, tmp_path: Path) -> None:
    lm = load(tuned)
    lm.tokenizer.config["chat_template"] = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(FangcunError, match="template"):
        render_chat(lm.tokenizer, [{"role": "user", "content": "x"}])


def test_samples_and_scores_from_the_command_line(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(run_folder), "--prompt", "却说", "--max_new_tokens", "4", "--seed", "3"]
    assert main([*words, "--n", "2"]) == 0
    first, one, second, two = capsys.readouterr().out.splitlines()[:4]
    assert (first, second) == ("--- 1 ---", "--- 2 ---")
    assert one.startswith("却说")
    assert one != two
    assert main([*words, "--logprobs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 4
    assert all(float(line.split()[0]) <= 0 for line in lines)
    assert main([*words, "--stream", "--n", "2"]) == 2
    assert "--stream" in capsys.readouterr().err
    if torch.backends.mkldnn.is_available():
        assert main([*words, "--dtype", "int8"]) == 0
