"""Tokenizers that exist, in every format: the ids of the original library, in a file that transformers opens."""

from __future__ import annotations

import base64
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizer_text import TEXT

from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer, import_tokenizer
from fangcun.tokenizer.decoding import byte_characters
from fangcun.tokenizer.patterns import CL100K, GPT2, QWEN2
from fangcun.tokenizer.rank_files import read_ranks
from fangcun.tokenizer.self_check import EVERYDAY, RARE, compare

Encode = Callable[[str], list[int]]

SIGNS = [
    *" \t\n\r▁　-=.哈a!0,。é１人的一th",
    "🙂",
    "👍🏽",
    "\u200d",
    "\u0301",
    "か\u3099",
    "각",
    "Ａ",
    "ﬁ",
    "𠀀",
    "\x07",
    "\ufffd",
    "\ufeff",
    "\u00a0",
    "ing",
    "  ",
    "\n\n",
]


def odd_texts(count: int) -> list[str]:
    """Short texts of runs of spaces, tabs, newlines, rare signs and anything in Unicode, always the same."""
    rng = random.Random(7)
    texts = [
        "".join(rng.choice(SIGNS) * rng.choice([1, 1, 1, 2, 3, 5, 9, 30]) for _ in range(rng.randrange(1, 20)))
        for _ in range(count)
    ]
    ranges = ((1, 0x3000), (0x3000, 0xD7FF), (0xE000, 0x20000))
    return texts + [
        "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 30))) for _ in range(count // 4)
    ]


def mixed_texts(data: Path, size_bytes: int) -> list[str]:
    """Chinese, classical and traditional Chinese, English, web text as JSON, and code: `size_bytes` in all."""
    sources = [
        data / "novels" / "hongloumeng.txt", *sorted((data / "english").glob("*.txt"))[:1],
        *sorted((data / "web").glob("*.jsonl"))[:2], *sorted((data / "poetry").glob("*.json"))[:1], Path(random.__file__),
    ]  # fmt: skip
    rng, texts = random.Random(3), [*EVERYDAY]
    for file in sources:
        text = file.read_text(encoding="utf-8")[: size_bytes // len(sources)]
        text = text.encode()[: size_bytes // len(sources)].decode("utf-8", "ignore")
        start = 0
        while start < len(text):
            stop = start + rng.choice((40, 400, 4000))
            texts.append(text[start:stop])
            start = stop
    return texts


@functools.cache
def imported_once(path: Path) -> Tokenizer:
    """A shared tokenizer, converted once for all tests."""
    return import_tokenizer(path).tokenizer


def of_sentencepiece(file: Path) -> Encode:
    return pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=str(file)).encode


def of_tiktoken(ranks: dict[bytes, int], pattern: str) -> Encode:
    tiktoken = pytest.importorskip("tiktoken")
    return tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}).encode_ordinary


def original(data: Path, name: str) -> Encode:
    """The library that a shared tokenizer was made for."""
    folder = data / "tokenizers"
    if name == "qwen2/qwen.tiktoken":
        return of_tiktoken(read_ranks(folder / name), QWEN2)
    if name == "gpt2":
        character = byte_characters()
        vocabulary = json.loads((folder / "gpt2" / "vocab.json").read_text(encoding="utf-8"))
        ranks = {bytes(character[c] for c in token): i for token, i in vocabulary.items() if token != "<|endoftext|>"}
        return of_tiktoken(ranks, GPT2)
    return of_sentencepiece(folder / name)


def assert_same_ids(tokenizer: Tokenizer, encode: Encode, texts: list[str]) -> None:
    for text, ids in zip(texts, tokenizer.encode_documents(texts), strict=True):
        assert ids == encode(text), repr(text)


EXACT = ("qwen2/qwen.tiktoken", "gpt2", "chatglm/tokenizer.model", "llama2/tokenizer.model")


@pytest.mark.parametrize("name", EXACT)
def test_ids_are_the_original_librarys(shared_data: Path, tmp_path: Path, name: str) -> None:
    tokenizer = imported_once(shared_data / "tokenizers" / name)
    encode = original(shared_data, name)
    texts = [*mixed_texts(shared_data, 200_000), *RARE, *odd_texts(300)]
    assert_same_ids(tokenizer, encode, texts)
    theirs = saved_for_transformers(tokenizer, tmp_path)
    for text in texts[:40]:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == tokenizer.decode(ids, skip_special_tokens=False)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.eos_id, tokenizer.pad_id)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_ids_are_the_original_librarys_on_a_megabyte(shared_data: Path, name: str) -> None:
    tokenizer = imported_once(shared_data / "tokenizers" / name)
    assert_same_ids(tokenizer, original(shared_data, name), [*mixed_texts(shared_data, 1_000_000), *odd_texts(4000)])


def test_a_unigram_model_differs_only_where_two_cuts_are_equally_good(shared_data: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    file = shared_data / "tokenizers" / "chinese_llama_sp" / "chinese_sp.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    tokenizer = import_tokenizer(file).tokenizer
    assert (tokenizer.eos_id, tokenizer.unk_id) == (2, 0)
    texts = mixed_texts(shared_data, 200_000)
    differing = [text for text in texts if tokenizer.encode(text, special_tokens=False) != processor.encode(text)]
    assert len(differing) <= len(texts) // 200
    for text in differing:
        ours, theirs = (sum(map(processor.get_score, ids)) for ids in (tokenizer.encode(text), processor.encode(text)))
        assert ours == pytest.approx(theirs, rel=1e-6)


def saved_for_transformers(tokenizer: Tokenizer, folder: Path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_chatglm_has_its_special_tokens_at_their_ids(shared_data: Path) -> None:
    for path in ("chatglm", "chatglm/tokenizer.model"):
        tokenizer = imported_once(shared_data / "tokenizers" / path)
        assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (64_798, 2, 0, 1)
        assert tokenizer.encode("[gMASK]")[-1] == 64_790
        assert tokenizer.encode("<|user|>")[-1] == 64_795
        assert tokenizer.encode("人工智能") == [30910, 34797]
        assert tokenizer.decode(tokenizer.encode("a philosopher")) == "a philosopher"


def test_qwen_ids_and_specials(shared_data: Path) -> None:
    tokenizer = imported_once(shared_data / "tokenizers" / "qwen2" / "qwen.tiktoken")
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id) == (151_646, 151_643, 151_643)
    assert tokenizer.encode("<|im_start|>人工智能<|im_end|>") == [151_644, 104_455, 151_645]


@pytest.mark.parametrize(
    ("name", "size", "eos", "word"),
    [
        ("qwen3", 151_669, 151_645, [104_455]),
        ("minimind", 6_400, 2, [2_225]),
        ("llama2", 32_000, 2, [29871, 30313, 31041, 31676, 30815]),
    ],
)
def test_hugging_face_folders_keep_ids_names_and_template(
    shared_data: Path, tmp_path: Path, name: str, size: int, eos: int, word: list[int]
) -> None:
    folder = shared_data / "tokenizers" / name
    tokenizer = import_tokenizer(folder).tokenizer
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.encode("人工智能")) == (size, eos, word)
    theirs = saved_for_transformers(tokenizer, tmp_path)
    for text in (*EVERYDAY, *RARE):
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids == theirs(text, add_special_tokens=False)["input_ids"]
        assert theirs.decode(ids) == tokenizer.decode(ids, skip_special_tokens=False)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (eos, tokenizer.pad_id)
    if (folder / "tokenizer_config.json").is_file():
        given = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert theirs.chat_template == tokenizer.chat_template == given["chat_template"]


def test_llama_special_tokens_are_found_inside_a_prompt(shared_data: Path) -> None:
    tokenizer = import_tokenizer(shared_data / "tokenizers" / "llama2").tokenizer
    assert 2 in tokenizer.encode("one</s>two")
    assert 2 not in tokenizer.encode("one</s>two", special_tokens=False)


def test_small_sentencepiece_models_give_the_librarys_ids(sentencepiece_models: dict[str, str], tmp_path: Path) -> None:
    texts = [*EVERYDAY, TEXT, *RARE, *odd_texts(200)]
    bpe = import_tokenizer(sentencepiece_models["bpe"]).tokenizer
    assert_same_ids(bpe, of_sentencepiece(Path(sentencepiece_models["bpe"])), texts)
    assert bpe.decode(bpe.encode(TEXT)) == TEXT
    ids = bpe.encode(" 龘 a")  # a space in front, the text's own space, three bytes, a space, a letter
    assert sum(bpe.token_bytes()[i] for i in ids) == len("  龘 a".encode())
    assert_same_ids(
        import_tokenizer(sentencepiece_models["unigram"]).tokenizer,
        of_sentencepiece(Path(sentencepiece_models["unigram"])),
        [TEXT, *TEXT.splitlines(), *(text for text in EVERYDAY if "====" not in text)],
    )
    saved_for_transformers(bpe, tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == bpe.fingerprint


def test_a_control_pieces_string_in_a_document_is_text(sentencepiece_models: dict[str, str]) -> None:
    for file in sentencepiece_models.values():
        tokenizer = import_tokenizer(file).tokenizer
        (ids,) = tokenizer.encode_documents(["<s>a</s>"])
        assert not {1, 2} & set(ids)
        assert {1, 2} <= set(tokenizer.encode("<s>a</s>"))


@pytest.fixture
def rank_file(bpe: Tokenizer, tmp_path: Path) -> Path:
    """The merges of a small tokenizer as tiktoken would list them."""
    character = byte_characters()
    vocabulary = sorted((i, token) for token, i in bpe.backend.get_vocab().items() if i >= 4)
    lines = [f"{base64.b64encode(bytes(character[c] for c in token)).decode()} {i - 4}\n" for i, token in vocabulary]
    file = tmp_path / "own.tiktoken"
    file.write_text("".join(lines), encoding="ascii")
    return file


def test_a_rank_file_of_no_known_family_is_taken_with_a_note(rank_file: Path, bpe: Tokenizer) -> None:
    imported = import_tokenizer(rank_file)
    assert any("no family known" in note for note in imported.notes)
    assert imported.tokenizer.eos_id == bpe.vocab_size - 4
    assert imported.tokenizer.encode(TEXT, special_tokens=False) == [
        i - 4 for i in bpe.encode(TEXT, special_tokens=False)
    ]


def test_a_damaged_rank_file_names_the_line(rank_file: Path) -> None:
    lines = rank_file.read_text().splitlines(keepends=True)
    rank_file.write_text("".join([*lines[:10], "broken\n", *lines[11:]]))
    with pytest.raises(FangcunError, match=r"own\.tiktoken:11: expected a base64 string"):
        import_tokenizer(rank_file)
    rank_file.write_text("".join([*lines[:300], *lines[301:]]))
    with pytest.raises(FangcunError, match="gap"):
        import_tokenizer(rank_file)


def test_tiktokens_own_pattern_cuts_as_ours() -> None:
    tiktoken = pytest.importorskip("tiktoken")
    regex = pytest.importorskip("regex")
    from tokenizers import Regex, pre_tokenizers

    ours = pre_tokenizers.Split(Regex(CL100K), "isolated")
    # As tiktoken's cl100k_base writes it today.
    theirs = regex.compile(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    )
    assert tiktoken.__version__
    for text in EVERYDAY:
        assert [piece for piece, _ in ours.pre_tokenize_str(text)] == theirs.findall(text)


@pytest.mark.parametrize("header", ["", "#version: 0.2\n"])
def test_gpt2_files_with_and_without_a_version_line(tmp_path: Path, header: str) -> None:
    signs = sorted(byte_characters())
    vocabulary = {token: i for i, token in enumerate([*signs, "Ġt", "he", "Ġthe", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(f"{header}Ġ t\nh e\nĠt he\n", encoding="utf-8")
    for path in (tmp_path, tmp_path / "vocab.json", tmp_path / "merges.txt"):
        imported = import_tokenizer(path)
        assert imported.format == "vocab.json + merges.txt"
        assert imported.tokenizer.encode("the the") == [vocabulary["t"], vocabulary["he"], vocabulary["Ġthe"]]
        assert imported.tokenizer.eos_id == len(vocabulary) - 1
        assert imported.tokenizer.decode(imported.tokenizer.encode("  中文\n the ")) == "  中文\n the "


def test_merges_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}', encoding="utf-8")
    (tmp_path / "merges.txt").write_text("a b\n", encoding="utf-8")
    with pytest.raises(FangcunError, match="do not belong together"):
        import_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"hello"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b'{"version": "1.0", "model": 3}'),
        ("x.model", b"\x00\x01"),
        ("x.model", b"\n\x05\n\x03abc\xff\xff"),
    ],
)
def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FangcunError) as error:
        import_tokenizer(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_a_missing_or_empty_path_lists_what_was_expected(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FangcunError, match=r"tokenizer\.json.*vocab\.json.*tiktoken.*sentencepiece"):
            import_tokenizer(path)
    for name in ("a.model", "b.model"):
        (tmp_path / name).write_bytes(b"\n\x05\n\x03abc")
    with pytest.raises(FangcunError, match=r"several tokenizers \(a.model, b.model\)"):
        import_tokenizer(tmp_path)


def test_habits_that_change_ids_are_taken_out_and_noted(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["model"]["dropout"] = 0.5
    end = {"id": "<|endoftext|>", "type_id": 0}
    content["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": end}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [1], "tokens": ["<|endoftext|>"]}},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    config = {
        "eos_token": {"content": "<|im_end|>", "lstrip": False},
        "add_bos_token": True,
        "auto_map": {"AutoTokenizer": ["x.Y", None]},
        "tokenizer_class": "Y",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "special_tokens_map.json").unlink()
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    imported = import_tokenizer(tmp_path)
    assert len(imported.notes) == 3  # dropout, added token, end of document
    tokenizer = imported.tokenizer
    assert (tokenizer.eos_id, tokenizer.chat_template) == (3, "{{ messages }}")
    assert tokenizer.encode(TEXT) == bpe.encode(TEXT)
    theirs = saved_for_transformers(tokenizer, tmp_path / "saved")
    assert theirs(TEXT)["input_ids"] == bpe.encode(TEXT)


def test_a_tokenizer_without_an_end_is_refused(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink()
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<|endoftext|>", "<|fin|>"), encoding="utf-8")
    with pytest.raises(FangcunError, match="no token that ends a document"):
        import_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}', encoding="utf-8")
    with pytest.raises(FangcunError, match=r"calls '<\|end\|>' the eos_token"):
        import_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|fin|>"}', encoding="utf-8")
    assert import_tokenizer(tmp_path).tokenizer.eos_id == 1


def test_a_conversion_with_other_ids_is_an_error_and_rare_differences_a_note(bpe: Tokenizer) -> None:
    with pytest.raises(FangcunError, match="does not give sentencepiece's ids"):
        compare(bpe, lambda text: [*bpe.encode(text, special_tokens=False), 7], "sentencepiece")
    rarely = compare(
        bpe,
        lambda text: [9] if text == RARE[2] else bpe.encode(text, special_tokens=False),
        "tiktoken",
        [TEXT, RARE[2]],
    )
    assert len(rarely) == 2
    assert "1 of 2 blocks" in rarely[1]
    assert compare(bpe, lambda text: bpe.encode(text, special_tokens=False), "tiktoken") == []
