"""A run's own validation split, measured as pretraining measures it at the end."""

from __future__ import annotations

from pathlib import Path

from fangcun.artifacts import MANIFEST
from fangcun.config import load_recipe
from fangcun.errors import FangcunError
from fangcun.evaluation.bits_per_byte import Evaluation, evaluate_windows
from fangcun.generation import LanguageModel
from fangcun.tokens import TokenSplit, check_tokenizer, fixed_windows, open_split
from fangcun.urls import is_url

PROTOCOL = "fangcun-validation-1"
"""Windows of train.max_seq_length that do not overlap over the whole split (or as many as eval.final_max_iters says),
documents one behind the other, their end tokens targets."""


def run_of(path: str | Path) -> Path | None:
    """The run folder that a run or one of its checkpoints belongs to; None for any other model."""
    path = Path(path).absolute()
    for folder in (path, path.parent.parent if path.parent.name == "checkpoints" else path):
        if (folder / "recipe.yaml").is_file():
            return folder
    return None


def evaluate_own_split(model: LanguageModel, path: str | Path) -> dict[str, Evaluation]:
    """Measure the validation split of the run at `path`, in all ("validation") and by named source where it has such.

    In the model's own type: a run that trained under bf16 autocast differs in the last digits. Raises FangcunError where
    there is no such run, or its tokens are not on this machine.
    """
    run = run_of(path)
    if run is None:
        raise FangcunError(
            f"{path} is no run, so it has no validation split of its own. Name a text: fangcun evaluate {path} --text PATH"
        )
    recipe = load_recipe(str(run / "recipe.yaml"), []).recipe
    tokens = _tokens_of(run, recipe.tokens.path)
    check_tokenizer(tokens, model.tokenizer)
    split = open_split(tokens, "val")
    block_size = recipe.train.max_seq_length or model.config.block_size
    micro, limit = recipe.train.micro_batch_size, recipe.eval.final_max_iters
    count = None if limit is None else limit * micro

    def measure(source: str | None = None) -> Evaluation:
        return evaluate_windows(
            model.model,
            split,
            fixed_windows(split, block_size, count, source=source),
            batch_size=micro,
            token_bytes=model.tokenizer.token_bytes(),
            device=model.device,
            document_mask=recipe.train.document_mask,
        )

    found = {"validation": measure()}
    found |= {name: measure(name) for name in split.sources if _has_tokens(split, name)}
    return found


def _has_tokens(split: TokenSplit, source: str) -> bool:
    begin, stop = split.sources[source]
    return stop - begin > 1


def _tokens_of(run: Path, given: str | None) -> Path:
    if given is None:
        folder = run / "tokens"
    elif is_url(given):
        raise FangcunError(
            f"The tokens of {run} lie at {given}, and are not read from there. Name a text to measure: --text PATH"
        )
    else:
        folder = Path(given, "tokens") if Path(given, "tokens", MANIFEST).is_file() else Path(given)
    if not (folder / MANIFEST).is_file():
        raise FangcunError(f"{folder} is not there any more. Name a text to measure: --text PATH")
    return folder
