"""LanguageModel: opened from a folder it writes what transformers writes, streams whole characters, and names mistakes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fangcun
from fangcun.errors import FangcunError
from fangcun.generation import LanguageModel, generate_ids, load
from fangcun.model import Transformer
from fangcun.tokenizer import Tokenizer

FAMILIES = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]
PROMPTS = ["却说曹操", "a", "Once upon a time"]

Make = Callable[..., Transformer]
Save = Callable[[Transformer], Path]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_ids_are_those_of_transformers(family: str, make_model: Make, save: Save) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save(make_model(family, block_size=64))
    lm = load(folder, device="cpu")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    their_words = AutoTokenizer.from_pretrained(folder)
    for prompt in PROMPTS:
        for penalty in (1.0, 1.3):
            ids = their_words(prompt, add_special_tokens=False, return_tensors="pt").input_ids
            out = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40, repetition_penalty=penalty
            )
            expected = [i for i in out[0, ids.shape[1] :].tolist() if i != lm.tokenizer.eos_id]
            prompt_ids = lm.tokenizer.encode(prompt)
            assert prompt_ids == ids[0].tolist()
            got = generate_ids(
                lm.model,
                prompt_ids,
                vocab_size=lm.tokenizer.vocab_size,
                end_id=lm.tokenizer.eos_id,
                max_new_tokens=40,
                temperature=0.0,
                repetition_penalty=penalty,
            )
            assert got == expected
            assert len(set(got)) > 3


def test_transformers_like_us_never_writes_ids_that_pad_the_embedding(make_model: Make, save: Save) -> None:
    from transformers import AutoModelForCausalLM

    model = make_model("llama", padding_multiple=64)
    with torch.no_grad():
        model.head_weight[257:] = 10 * model.head_weight[:63]  # unsuppressed, padding would win often
    folder = save(model)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([[1, 2, 3]])
    out = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=25)[0, 3:].tolist()
    assert int(model(ids)[0, -1].argmax()) > 256
    expected = generate_ids(
        load(folder).model, [1, 2, 3], vocab_size=257, end_id=256, max_new_tokens=25, temperature=0.0
    )
    assert [i for i in out if i != 256] == expected


def test_logits_are_float32_of_the_padded_vocabulary_and_equal_the_models(make_model: Make, words: Tokenizer) -> None:
    model = make_model("qwen3", padding_multiple=64).to(torch.bfloat16)
    lm = LanguageModel(model, words)
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    logits = lm.logits(ids)
    assert logits.shape == (2, 3, 320)
    assert logits.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(logits, model(ids).float())
    assert torch.equal(lm.logits([[1, 2, 3], [4, 5, 6]]), logits)
    logits.add_(1)  # an ordinary tensor, which its owner may change


@pytest.mark.parametrize("ids", [[1, 2], [[]], [[0.5]], [[257]], [[-1]], [[1] * 33]])
def test_logits_refuses_what_is_no_batch_of_ids(ids: list, make_model: Make, words: Tokenizer) -> None:
    with pytest.raises(FangcunError, match="ids "):
        LanguageModel(make_model(), words).logits(torch.tensor(ids))


def test_generate_gives_the_continuation_only_and_streams_the_same_text(make_model: Make, words: Tokenizer) -> None:
    lm = LanguageModel(make_model("qwen3"), words)
    text = lm.generate("却说", max_new_tokens=80, temperature=1.0, seed=3)
    assert text
    assert not text.startswith("却说")
    assert "".join(lm.stream("却说", max_new_tokens=80, temperature=1.0, seed=3)) == text
    assert lm.generate("却说", max_new_tokens=80, temperature=1.0, seed=4) != text
    assert lm.generate("却说", max_new_tokens=0) == ""


class Recites:
    """Stands in for a model that writes a given text, whatever it reads, to steer the bytes that arrive."""

    def __init__(self, make_model: Make, words: Tokenizer, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        from fangcun.generation.rows import Rows

        ids = iter([*words.encode(text), words.eos_id])

        def next_logits() -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.tensor(next(ids)), 257).float()

        monkeypatch.setattr(Rows, "read", lambda *_: next_logits())
        monkeypatch.setattr(Rows, "step", lambda *_: next_logits()[None])
        self.lm = LanguageModel(make_model(), words)


def test_a_character_of_several_tokens_arrives_whole(
    make_model: Make, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = Recites(make_model, words, monkeypatch, "曹操🙂a").lm
    assert list(lm.stream("x", temperature=0.0)) == ["曹", "操", "🙂", "a"]


def test_a_stop_string_across_tokens_is_never_shown(
    make_model: Make, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = Recites(make_model, words, monkeypatch, "甲乙丙。\n\n丁").lm
    pieces = list(lm.stream("x", temperature=0.0, stop=["丙。\n\n", "戊"]))
    assert pieces == ["甲", "乙"]


def test_what_was_held_back_comes_at_the_end_of_the_text(
    make_model: Make, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = Recites(make_model, words, monkeypatch, "甲。\n").lm
    assert lm.generate("x", temperature=0.0, stop="\n\n") == "甲。\n"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("temperature", -0.5),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", 0),
        ("max_new_tokens", -1),
        ("repetition_penalty", 0),
        ("seed", 0.5),
        ("stop", [""]),
        ("prompt", None),
    ],
)
def test_a_wrong_argument_is_named_before_the_first_piece(
    argument: str, value: object, make_model: Make, words: Tokenizer
) -> None:
    lm = LanguageModel(make_model(), words)
    arguments = {"prompt": "a", argument: value}
    with pytest.raises(FangcunError, match=rf"^{argument} "):
        lm.stream(**arguments)  # type: ignore[arg-type]


def test_load_opens_the_newest_checkpoint_of_a_run(make_model: Make, save: Save, tmp_path: Path) -> None:
    from fangcun.artifacts import Manifest, write_artifact

    folder, run = save(make_model("qwen3")), tmp_path / "run"
    for step in (1, 20):
        with write_artifact(run / "checkpoints" / f"step-{step:08d}", Manifest("checkpoint")) as temporary:
            for file in folder.iterdir():
                (temporary / file.name).write_bytes(file.read_bytes())
            if step == 1:
                (temporary / "model.safetensors").write_bytes(b"old")
    assert fangcun.load(run, device="cpu").generate("a", max_new_tokens=2, seed=1) == fangcun.load(
        folder, device="cpu"
    ).generate("a", max_new_tokens=2, seed=1)


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_load_takes_the_dtype_asked_for(name: str, dtype: torch.dtype, make_model: Make, save: Save) -> None:
    lm = load(save(make_model("llama")), dtype=name, device="cpu")
    assert next(lm.model.parameters()).dtype == dtype
    assert not lm.model.training
    assert len(lm.tokenizer.encode(lm.generate("ab", max_new_tokens=4, seed=0, temperature=0.5))) >= 1
    assert lm.logits(torch.tensor([[1]])).dtype == torch.float32


def test_a_folder_without_tokenizer_says_so_and_takes_one_by_name(
    make_model: Make, save: Save, words: Tokenizer, tmp_path: Path
) -> None:
    folder = save(make_model())
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    with pytest.raises(FangcunError, match=r"no tokenizer .*tokenizer=PATH"):
        load(folder)
    words.save(tmp_path / "words")
    assert load(folder, tokenizer=tmp_path / "words").tokenizer.vocab_size == 257


def test_a_tokenizer_larger_than_the_model_is_refused(make_model: Make, save: Save) -> None:
    folder = save(make_model(vocab_size=200))
    with pytest.raises(FangcunError, match=r"257 ids.*200"):
        load(folder)


def test_several_end_tokens_of_a_generation_config_all_end_the_text(make_model: Make, save: Save) -> None:
    folder = save(make_model())
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 7]}))
    assert load(folder).stop_ids == (256, 7)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("dtype", "int3"), *(("device", name) for name in ("toaster", "cuda:99", "mps", "meta", "xpu:0"))],
)
def test_load_names_a_wrong_dtype_or_device(argument: str, value: str, make_model: Make, save: Save) -> None:
    with pytest.raises(FangcunError, match=f"{argument}(:| is) '?{value}"):
        load(save(make_model()), **{argument: value})


def test_load_names_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match="does not exist"):
        load(tmp_path / "nowhere")


def run_python(code: str, *arguments: str) -> None:
    root = Path(fangcun.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_fangcun_imports_no_torch() -> None:
    run_python(
        "import sys, fangcun; fangcun.FangcunError; sys.exit(str([m for m in ('torch', 'numpy', 'tokenizers') if m in sys.modules]) if 'torch' in sys.modules else 0)"
    )


def test_the_snippet_of_the_readme_works_and_needs_no_transformers(make_model: Make, save: Save) -> None:
    code = """
import sys, torch, fangcun
lm = fangcun.load(sys.argv[1])
ids = lm.tokenizer.encode("却说曹操")
assert lm.logits(torch.tensor([ids])).shape == (1, len(ids), lm.config.padded_vocab_size)
assert isinstance(lm.generate("却说曹操", max_new_tokens=8, temperature=0.8, seed=1), str)
assert isinstance(lm, fangcun.LanguageModel)
loaded = {"transformers", "pyarrow", "sentencepiece", "tiktoken", "torch._dynamo", "torch._inductor"} & set(sys.modules)
assert not loaded, loaded
"""
    run_python(code, str(save(make_model("qwen3"))))
