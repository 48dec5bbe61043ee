"""A model that was taken in, as a run: its checkpoint at step 0, its tokenizer, and a recipe that trains it on.

Checkpoint and recipe appear together or not at all; the tokenizer folder follows them. Training never writes into the
run: the recipe starts another one from its weights.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from fangcun.artifacts import Manifest, checkpoint_name, describe_inputs, discard, fingerprint, write_artifact
from fangcun.config.dump import yaml_value
from fangcun.config.schema import TokenizerConfig
from fangcun.errors import FangcunError
from fangcun.importing.foreign import ForeignModel
from fangcun.model import save_model
from fangcun.tokenizer import Tokenizer, build_tokenizer

LONGEST_SAMPLE_TOKENS = 1024
"""Training samples of the recipe are not longer than this, whatever the model can read."""

_RECIPE = """\
# Fangcun run: {format} {source}, taken in.
#
# This run holds the weights as they came; it is not trained further itself. To train on from them, on your own text:
#   fangcun run {recipe} --text PATH
# which writes the run {trained}. Below are the settings that people change; all others have their defaults.

init_from: {init_from}
out_dir: {trained}

train:
  epochs: 1
  max_seq_length: {length}
  global_batch_size: 32
  micro_batch_size: 4
  lr_warmup_steps: 20
  min_lr: 1e-5

optimizer:
  lr: 1e-4 # a tenth of what new weights take
"""


def check_free(out: Path) -> None:
    """Raise FangcunError when something stands at `out` already."""
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        what = "is a file" if out.is_file() else "exists and is not empty"
        raise FangcunError(f"{out} {what}; nothing is ever written over. Choose another folder with --out.")


def write_run(foreign: ForeignModel, tokenizer: Tokenizer, out: Path) -> Path:
    """Write the run folder `out` and return its checkpoint. Raises FangcunError, and nothing stands at `out` then."""
    check_free(out)
    out = Path(os.path.abspath(out))  # noqa: PTH100 - keeps links
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    discard(staging)
    staging.mkdir()
    name = Path("checkpoints") / checkpoint_name(0)
    try:
        _write_checkpoint(foreign, tokenizer, staging / name)
        (staging / "recipe.yaml").write_text(_recipe(foreign, out, out / name), encoding="utf-8", newline="\n")
        check_free(out)
        if out.is_dir():
            out.rmdir()
        staging.rename(out)
    except BaseException:
        discard(staging)
        raise
    try:  # named by the place where it stays
        build_tokenizer(TokenizerConfig(path=str(out / name)), None, out / "tokenizer")
    except BaseException:
        discard(out)
        raise
    return out / name


def _write_checkpoint(foreign: ForeignModel, tokenizer: Tokenizer, folder: Path) -> None:
    inputs = describe_inputs([file.absolute() for file in foreign.files])
    manifest = Manifest(
        "checkpoint",
        fingerprint("imported", foreign.format, [entry["sha256"] for entry in inputs], tokenizer.fingerprint),
        settings={"imported": {"format": foreign.format, "from": str(foreign.folder.absolute()), **foreign.facts}},
        counts={"step": 0, "tokens": 0, "val_loss": None},
        inputs=inputs,
    )
    with write_artifact(folder, manifest) as temporary:
        save_model(
            foreign.model,
            temporary,
            foreign.dtype,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            bos_id=tokenizer.bos_id,
            vocab_size=tokenizer.vocab_size,
        )
        tokenizer.save(temporary)
        if foreign.generation:
            file = temporary / "generation_config.json"
            written = json.loads(file.read_text(encoding="utf-8"))
            theirs = dict(foreign.generation)
            if never := {*written.get("suppress_tokens", ()), *theirs.get("suppress_tokens", ())}:
                theirs["suppress_tokens"] = sorted(never)
            text = json.dumps(written | theirs, indent=2, ensure_ascii=False)
            file.write_text(text + "\n", encoding="utf-8", newline="\n")


def _recipe(foreign: ForeignModel, out: Path, checkpoint: Path) -> str:
    trained = out.with_name(f"{out.name}-trained")
    return _RECIPE.format(
        format=foreign.format,
        source=" ".join(str(foreign.folder).split()),
        recipe=" ".join(str(out / "recipe.yaml").split()),
        trained=yaml_value(str(trained)),
        init_from=yaml_value(str(checkpoint)),
        length=min(foreign.model.config.block_size, LONGEST_SAMPLE_TOKENS),
    )
