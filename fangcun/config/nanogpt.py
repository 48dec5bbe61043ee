"""nanoGPT's `config/*.py`, read as a recipe. Read, never executed.

What the file leaves out has nanoGPT's defaults (train.py of 2022 to 2025), not ours, so that the imported run is the run
that was written: its GPT-2 shape with exact GELU, its schedule, its split of the text where the data set is one of its own.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fangcun.config.nanogpt_tables import (
    DEFAULTS,
    GPT2,
    PRECISION,
    SAME,
    SCHEDULE,
    SHAPE,
    SPLITS,
    WANTS_GPT2,
    WITHOUT_EFFECT,
)
from fangcun.config.python_settings import PythonSettings, Value, read_python_settings
from fangcun.config.report import ImportReport
from fangcun.config.translation import Translation
from fangcun.config.yaml_tree import Items, Mapping, Scalar
from fangcun.errors import ConfigError, did_you_mean


def import_nanogpt(path: Path, shown: str) -> tuple[Mapping, ImportReport]:
    """A nanoGPT configuration as the tree of a recipe (with the lines of the file), and the report.

    Raises ConfigError when something is refused; the message is the whole report.
    """
    settings = read_python_settings(path, shown)
    if not (settings.values.keys() | settings.unclear.keys()) & DEFAULTS.keys():
        raise ConfigError(
            f"{shown}: no setting of nanoGPT's is assigned here. Expected a file such as nanoGPT's config/train_shakespeare_char.py, or a recipe in YAML."
        )
    work = _Reading(shown, settings)
    work.read(path)
    if work.report.refused:
        count = len(work.report.refused)
        raise ConfigError(
            f"{shown}: {count} {'thing' if count == 1 else 'things'} cannot be taken over.\n{work.report.render()}"
        )
    return work.tree(), work.report


class _Reading(Translation):
    """One file on its way to a recipe."""

    def __init__(self, shown: str, settings: PythonSettings) -> None:
        super().__init__(shown, ImportReport("nanoGPT", shown))
        self.settings = settings

    def read(self, path: Path) -> None:
        self._refuse_what_is_unclear()
        self._start()
        for theirs, ours in SAME.items():
            if theirs not in SHAPE or self._fresh:
                self._take(theirs, ours)
        self._shape()
        self._batches()
        self._schedule()
        self._optimizer()
        self._saving()
        self._machine()
        self._tracker()
        self._data(path)
        for theirs, why in WITHOUT_EFFECT.items():
            if theirs in self.settings.values:
                self._idle(theirs, why)

    @property
    def _fresh(self) -> bool:
        return not str(self.value("init_from")).startswith("gpt2")

    def value(self, theirs: str) -> Value:
        """As the file says, else nanoGPT's default."""
        return self.settings.values.get(theirs, (DEFAULTS[theirs], 1))[0]

    def line(self, theirs: str) -> int:
        return self.settings.values.get(theirs, (None, 1))[1]

    def given(self, *theirs: str) -> bool:
        return any(name in self.settings.values for name in theirs)

    def put(self, ours: str, value: Value | tuple[Value, ...], line: int = 1) -> None:
        """Set one of our keys, silently."""
        node = Items(tuple(_scalar(v, line) for v in value), line) if isinstance(value, tuple) else _scalar(value, line)
        self.set(ours, node, line)

    def told(self, theirs: str, text: str) -> None:
        """Report as mapped: with the line of the file, or as nanoGPT's default."""
        if self.given(theirs):
            self.mapped(theirs, _scalar(self.value(theirs), 1), self.line(theirs), text)
        else:
            self.report.mapped.append(f"{text} (nanoGPT's default {theirs}, not in the file)")

    def _take(self, theirs: str, ours: str) -> None:
        self.put(ours, self.value(theirs), self.line(theirs))
        self.told(theirs, ours if self.given(theirs) else f"{ours}: {_text(self.value(theirs))}")

    def _idle(self, theirs: str, why: str) -> None:
        self.no_effect(theirs, _scalar(self.value(theirs), 1), self.line(theirs), why)

    def _refuse_what_is_unclear(self) -> None:
        for name, (text, line) in self.settings.unclear.items():
            told = f"{name} (line {line}): not understood, and never executed: {text}"
            if name in DEFAULTS and name not in WITHOUT_EFFECT:
                self.report.refused.append(f"{told}. Write its value.")
            else:
                self.report.without_effect.append(told)
        for text, line in self.settings.other:
            self.report.refused.append(
                f"line {line}: not understood, and never executed: {text}. Write plain name = value."
            )
        for name, (value, line) in self.settings.values.items():
            if name in DEFAULTS:
                continue
            near = did_you_mean(name, DEFAULTS)
            if near:
                self.refuse(name, _scalar(value, line), line, f"nanoGPT has no such setting.{near}")
            else:
                self.no_effect(name, _scalar(value, line), line, "no setting of nanoGPT's train.py")

    def _start(self) -> None:
        start = str(self.value("init_from"))
        if start == "scratch":
            if self.given("init_from"):
                self._idle("init_from", "a run begins with new weights unless init_from names a folder")
        elif start == "resume":
            self.put("resume", "auto", self.line("init_from"))
            text = "resume: auto; goes on where a checkpoint is. A ckpt.pt of nanoGPT: fangcun import CKPT --out RUN"
            self.report.better.append(self.entry("init_from", _scalar(start, 1), self.line("init_from"), text))
        elif start.startswith("gpt2"):
            self.put("init_from", start, self.line("init_from"))
            self.told(
                "init_from",
                f"init_from: {start}, a folder with config.json and model.safetensors; --init_from FOLDER names another",
            )
        else:
            self.refuse("init_from", _scalar(start, 1), self.line("init_from"), "expected scratch, resume or gpt2…")

    def _shape(self) -> None:
        if not self._fresh:
            for theirs in SHAPE:
                if self.given(theirs):
                    self._idle(theirs, "the shape comes from the folder of init_from")
            return
        for ours in ("dropout", "attention_dropout"):
            self.put(f"model.{ours}", self.value("dropout"), self.line("dropout"))
        self.told("dropout", f"model.dropout and model.attention_dropout: {_text(self.value('dropout'))}")
        for field, value in GPT2.items():
            self.put(f"model.{field}", value)
        self.report.mapped.append(
            "model: nanoGPT's GPT-2 (" + ", ".join(f"{k}: {_text(v)}" for k, v in GPT2.items()) + ")"
        )

    def _batches(self) -> None:
        steps, batch = self.value("gradient_accumulation_steps"), self.value("batch_size")
        line = self.line("batch_size")
        if not isinstance(steps, int) or not isinstance(batch, int):
            self.report.refused.append(
                f"batch_size (line {line}): expected whole numbers, got batch_size {batch} and gradient_accumulation_steps {steps}"
            )
            return
        self.put("train.global_batch_size", steps * batch, line)
        self.put("train.micro_batch_size", batch, line)
        self.told("batch_size", f"train.micro_batch_size: {batch}")
        self.told(
            "gradient_accumulation_steps",
            f"train.global_batch_size: {steps * batch} ({steps} x {batch}), at any number of GPUs",
        )

    def _schedule(self) -> None:
        self.put("train.max_steps", self.value("max_iters"), self.line("max_iters"))
        self.told("max_iters", f"train.max_steps: {_text(self.value('max_iters'))}")
        if not self.value("decay_lr"):
            self.put("train.lr_schedule", "constant", self.line("decay_lr"))
            self.put("train.lr_warmup_steps", 0, self.line("decay_lr"))
            self.told("decay_lr", "train.lr_schedule: constant, and no warm-up, as there")
            for theirs in SCHEDULE:
                if self.given(theirs):
                    self._idle(theirs, "nanoGPT reads it with decay_lr only")
            return
        self.put("train.lr_schedule", "cosine", self.line("decay_lr"))
        self.told("decay_lr", "train.lr_schedule: cosine")
        for theirs, ours in SCHEDULE.items():
            self._take(theirs, ours)

    def _optimizer(self) -> None:
        self.put("optimizer.name", "adamw")
        self.put("optimizer.betas", (self.value("beta1"), self.value("beta2")), self.line("beta2"))
        self.told("beta1", f"optimizer.betas, the first: {_text(self.value('beta1'))}")
        self.told("beta2", f"optimizer.betas, the second: {_text(self.value('beta2'))}")
        clip = self.value("grad_clip") or None
        self.put("train.max_norm", clip, self.line("grad_clip"))
        self.told("grad_clip", f"train.max_norm: {_text(clip)}")
        self.report.better.append("weight decay: matrices between layers only; nanoGPT decays the embeddings too")

    def _saving(self) -> None:
        self.put("out_dir", self.value("out_dir"), self.line("out_dir"))
        self.told("out_dir", f"out_dir: {_text(self.value('out_dir'))}")
        always = bool(self.value("always_save_checkpoint"))
        self.put(
            "train.save_interval", self.value("eval_interval") if always else None, self.line("always_save_checkpoint")
        )
        text = f"train.save_interval: {_text(self.value('eval_interval')) if always else 'null'}, checkpoint.keep_best: true; the last one is kept too"
        if self.given("always_save_checkpoint"):
            node = _scalar(always, 1)
            self.report.better.append(
                self.entry("always_save_checkpoint", node, self.line("always_save_checkpoint"), text)
            )
        else:
            self.report.better.append(f"{text} (nanoGPT's default always_save_checkpoint, not in the file)")
        if self.value("eval_only"):
            self.refuse(
                "eval_only", _scalar(True, 1), self.line("eval_only"), "a recipe trains; use fangcun evaluate RUN"
            )
        elif self.given("eval_only"):
            self._idle("eval_only", "a recipe trains")

    def _machine(self) -> None:
        device, dtype = str(self.value("device")), str(self.value("dtype"))
        if self.given("device"):
            self._take("device", "device")
        else:
            self.report.better.append("device: auto (nanoGPT's default is cuda); the CPU is used where there is no GPU")
        if device == "cpu" and self.given("dtype"):
            self.put("precision", "32-true", self.line("dtype"))
            self.told("dtype", "precision: 32-true; nanoGPT computes in float32 on a CPU whatever dtype says")
        elif dtype in PRECISION:
            self.put("precision", PRECISION[dtype], self.line("dtype"))
            self.told("dtype", f"precision: {PRECISION[dtype]}")
        elif self.given("dtype"):
            self.refuse("dtype", _scalar(dtype, 1), self.line("dtype"), f"expected one of {', '.join(PRECISION)}")
        else:
            self.told("dtype", "precision: auto, bf16-mixed where the device has it")
        if self.given("compile"):
            self._take("compile", "compile")
        else:
            self.report.better.append(
                "compile: auto (nanoGPT's default is True); not on a CPU, where it costs more than it gives"
            )

    def _tracker(self) -> None:
        if not self.value("wandb_log"):
            for theirs in ("wandb_log", "wandb_project"):
                if self.given(theirs):
                    self._idle(theirs, "metrics go to metrics.jsonl")
            return
        if importlib.util.find_spec("wandb") is None:
            self._idle("wandb_log", "wandb is not installed (pip install wandb); metrics go to metrics.jsonl")
            return
        self.put("trackers", ("wandb",), self.line("wandb_log"))
        self.told("wandb_log", "trackers: [wandb]; metrics.jsonl is written too")
        self._take("wandb_project", "tracking.project")

    def _data(self, path: Path) -> None:
        name = str(self.value("dataset"))
        folder = path.absolute().parent.parent / "data" / Path(name).name
        line = self.line("dataset")
        characters = name.endswith("_char") or (folder / "meta.pkl").is_file()
        if not self._fresh:
            words = "the tokenizer comes with init_from"
        elif characters:
            self.put("tokenizer.kind", "char", line)
            self.put("model.padding_multiple", 1, line)
            words = "tokenizer.kind: char"
        else:
            self.put("tokenizer.source", WANTS_GPT2, line)
            self.put("model.padding_multiple", 64, line)
            words = "GPT-2's tokenizer, to be named with --tokenizer.path"
        split = SPLITS.get(name) or (("tail", 0.1) if characters else None)
        if split is not None:
            self.put("corpus.val_split", split[0], line)
            self.put("corpus.val_share", split[1], line)
            words += f"; corpus.val_split: {split[0]}, corpus.val_share: {split[1]}"
        text = folder / "input.txt"
        if text.is_file():
            self.put("corpus.paths", (str(text),), line)
            self.told("dataset", f"corpus.paths: {text}; {words}")
        else:
            self.told("dataset", f"its text is named with --text; {words}")


def _scalar(value: Value, line: int) -> Scalar:
    """A value as it would stand in YAML; text is quoted, so that it stays text."""
    return Scalar(value, "quoted", line) if isinstance(value, str) else Scalar(_text(value), "plain", line)


def _text(value: Value) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
