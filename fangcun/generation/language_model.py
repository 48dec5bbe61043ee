"""A trained model with its tokenizer, opened from a folder: text in, text out.

lm = fangcun.load("runs/mine")
print(lm.generate("却说曹操", max_new_tokens=64, seed=1))
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fangcun.artifacts import find_weights
from fangcun.config.model import ModelConfig
from fangcun.errors import FangcunError
from fangcun.generation.engine import Engine
from fangcun.generation.ids import check_max_new_tokens, evaluation_mode
from fangcun.generation.requests import Finished, Piece, Request
from fangcun.generation.samples import make_generator
from fangcun.generation.sampling import SamplingSettings
from fangcun.generation.stopping import check_stop
from fangcun.model import Transformer, choose_device, load_model
from fangcun.model.packed import Packing, pack, packs
from fangcun.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTIZED: tuple[Packing, ...] = ("int8", "int4")
"""Weights in 8 or 4 bits."""


class LanguageModel:
    """A model and its tokenizer. The model is used as it is: its mode is put back after each call."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, *, stop_ids: Sequence[int] = ()) -> None:
        """`stop_ids` end a text besides the tokenizer's end-of-document token. Raises FangcunError when the tokenizer
        gives ids that the model has no embedding for."""
        rows = int(model.embedding.weight.shape[0])
        if tokenizer.vocab_size > rows:
            raise FangcunError(
                f"The tokenizer has {tokenizer.vocab_size:,} ids, the model's vocabulary only {rows:,}: they do not belong together. Use the tokenizer that the model was trained with."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.stop_ids = tuple(stop_ids)

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.model.embedding.weight.device

    @torch.no_grad()
    def logits(self, ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """Logits for the token after each position: ids (B, T) -> float32 (B, T, padded_vocab_size), dropout off.

        The result lies on the model's device. T is at most `config.block_size`. Raises FangcunError.
        """
        ids = torch.as_tensor(ids, device=self.device)
        if ids.ndim != 2 or 0 in ids.shape or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise FangcunError(
                f"ids has shape {tuple(ids.shape)} and type {ids.dtype}, expected whole numbers of shape (batch, length), neither 0. For one text: torch.tensor([ids])."
            )
        rows = int(self.model.embedding.weight.shape[0])
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= rows:
            raise FangcunError(
                f"ids holds {low if low < 0 else high}, but the model knows ids 0 to {rows - 1}. Encode with the model's own tokenizer."
            )
        if ids.shape[1] > self.config.block_size:
            raise FangcunError(
                f"ids has {ids.shape[1]:,} tokens a row, the model reads at most block_size = {self.config.block_size:,}. Cut the text into windows."
            )
        with evaluation_mode(self.model):
            return self.model(ids.long()).float()

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        """The ids of a prompt; characters that the tokenizer does not know are warned of."""
        if not isinstance(prompt, str):
            raise FangcunError(f"prompt is {prompt!r}, expected text.")
        ids, unk_id = self.tokenizer.encode(prompt), self.tokenizer.unk_id
        if unk_id is not None and unk_id in ids:
            unknown = sorted({c for c in prompt if unk_id in self.tokenizer.encode(c)})
            warnings.warn(f"The model never saw {' '.join(unknown)}: its tokenizer reads each as <unk>.", stacklevel=3)
        return tuple(ids)

    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.8,
        top_k: int | None = 50,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        no_repeat_ngram: int = 0,
        seed: int | None = None,
        stop: str | Sequence[str] | None = (),
    ) -> str:
        """The text that follows `prompt`, without the prompt.

        temperature 0 or top_k 1 is greedy; top_k None keeps all tokens; the other ways of choosing are described at
        `SamplingSettings`. The text ends after `max_new_tokens` tokens, at the end-of-document token, or before a string of
        `stop`. The same seed gives the same text (None: a new one each time). An empty prompt starts a new document. Past
        `block_size` the model goes on from the last half of its context. Raises FangcunError, which names the argument
        that is wrong.
        """
        settings = SamplingSettings(
            temperature,
            top_k,
            top_p,
            repetition_penalty,
            min_p,
            no_repeat_ngram,
            frequency_penalty,
            presence_penalty,
        )
        return self.generate_batch([prompt], settings, max_new_tokens=max_new_tokens, seed=seed, stop=stop)[0]

    def generate_batch(
        self,
        prompts: Sequence[str],
        settings: SamplingSettings | None = None,
        *,
        max_new_tokens: int = 256,
        seed: int | None = None,
        stop: str | Sequence[str] | None = (),
        max_batch: int = 16,
    ) -> list[str]:
        """The texts that follow `prompts`, each as `generate` writes it alone, at most `max_batch` of them at a time.

        The seed of prompt i is `seed` + i. Equal to `generate` but for the rounding of a product of many rows.
        """
        requests = [
            self._request(
                prompt, settings or SamplingSettings(), max_new_tokens, seed if seed is None else seed + i, stop
            )
            for i, prompt in enumerate(prompts)
        ]
        if not requests:
            return []
        engine = self._engine(requests, min(max_batch, len(requests)))
        texts = [""] * len(requests)

        def take(number: int, event: Piece | Finished) -> None:
            if isinstance(event, Piece):
                texts[number] += event.text
            elif event.reason == "error":
                errors.append(event.error or "the engine failed")

        errors: list[str] = []
        for number, request in enumerate(requests):
            engine.submit(request, lambda event, number=number: take(number, event))
        while (engine.running or engine.waiting) and not errors:
            engine.turn()
        if errors:
            raise FangcunError(errors[0])
        return texts

    def stream(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.8,
        top_k: int | None = 50,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        no_repeat_ngram: int = 0,
        seed: int | None = None,
        stop: str | Sequence[str] | None = (),
    ) -> Iterator[str]:
        """`generate`, piece by piece as the text comes into being: whole characters, and nothing of a stop string.

        The pieces joined are the text that `generate` returns. Arguments are checked at once, not at the first piece.
        """
        settings = SamplingSettings(
            temperature,
            top_k,
            top_p,
            repetition_penalty,
            min_p,
            no_repeat_ngram,
            frequency_penalty,
            presence_penalty,
        )
        return self._pieces(self._request(prompt, settings, max_new_tokens, seed, stop))

    def _pieces(self, request: Request) -> Iterator[str]:
        with contextlib.closing(self._engine([request], 1).stream(request)) as events:
            for event in events:
                if isinstance(event, Piece):
                    yield event.text

    def _engine(self, requests: Sequence[Request], max_batch: int) -> Engine:
        """An engine just large enough."""
        longest = max(max(1, len(request.prompt_ids)) + request.max_new_tokens for request in requests)
        return Engine(self, max_batch=max_batch, max_waiting=len(requests), max_length=longest)

    def _request(
        self,
        prompt: str,
        settings: SamplingSettings,
        max_new_tokens: int,
        seed: int | None,
        stop: str | Sequence[str] | None,
    ) -> Request:
        """The request for a prompt, every argument checked."""
        ids = self.encode_prompt(prompt)
        check_max_new_tokens(max_new_tokens)
        make_generator(seed)
        return Request(ids, settings, max_new_tokens, seed, check_stop(stop))


def load(
    path: str | Path, *, dtype: str = "float32", device: str = "auto", tokenizer: str | Path | None = None
) -> LanguageModel:
    """Open a run (its newest complete checkpoint), a checkpoint or a Hugging Face folder, to use it.

    dtype: "float32", "bfloat16" or "float16", of the weights and of the arithmetic; "int8" or "int4" for the weights alone;
    "auto" is bfloat16 where that is fast, else float32. On a CPU the matrices are laid out for speed, and what is between
    them is float32: such a model is not there to be trained or saved (that is `fangcun.model.load_model`). device: "auto"
    (CUDA when there is one), "cpu", "cuda", "cuda:1". tokenizer: a folder or tokenizer.json, for a folder without one.
    Raises FangcunError.
    """
    if dtype not in (*DTYPES, *QUANTIZED, "auto"):
        raise FangcunError(f"dtype is {dtype!r}, expected one of {', '.join((*DTYPES, *QUANTIZED, 'auto'))}.")
    where = choose_device(device)
    folder = find_weights(path)
    # The tokenizer comes first: it opens in milliseconds, and without it the weights need not be read.
    if tokenizer is None and not (folder / "tokenizer.json").is_file():
        raise FangcunError(
            f"{folder} has no tokenizer (tokenizer.json), so it can neither read nor write text. Put the model's tokenizer.json there, or name it: fangcun.load({str(path)!r}, tokenizer=PATH)."
        )
    words = Tokenizer.load(folder if tokenizer is None else tokenizer)
    if dtype == "auto":
        fast = packs(torch.bfloat16) if where.type == "cpu" else where.type == "cuda"
        dtype = "bfloat16" if fast else "float32"
    stored = DTYPES.get(dtype, torch.float32 if where.type == "cpu" else torch.bfloat16)
    model = load_model(folder, device=where, dtype=stored).eval()
    pack(model, next((kind for kind in QUANTIZED if kind == dtype), "float"))
    return LanguageModel(model, words, stop_ids=_ends_named_in(folder))


def _ends_named_in(folder: Path) -> tuple[int, ...]:
    """The eos_token_id of generation_config.json, or else of config.json: one id or several, as transformers reads them."""
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise FangcunError(f"{file} cannot be read: {error}. Expected a JSON object.") from error
        if found is not None:
            return (found,) if isinstance(found, int) else tuple(found)
    return ()
