"""The model card: Chinese first, then English, filled with what is known of the run. What is not known is said so.

Front matter: huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import ClassVar

import torch

from fangcun.console import format_seconds
from fangcun.export.facts import Facts
from fangcun.version import __version__


def model_card(
    facts: Facts, *, name: str, form: str, dtype: str | None = None, notes: Sequence[str] = ()
) -> str:  # fmt: skip
    """README.md of an exported model.

    form: "hf" or "gguf", what the folder holds; dtype: the number format, None: as it was stored. notes: sentences for
    those who use the files.
    """
    front = _front_matter(facts, form)
    chinese = _Chinese(facts, name, form, dtype).text()
    english = _English(facts, name, form, dtype).text()
    more = "".join(f"- {note}\n" for note in notes)
    tail = f"\n### Notes on the files\n\n{more}" if notes else ""
    return f"{front}\n{chinese}\n---\n\n{english}{tail}"


def _front_matter(facts: Facts, form: str) -> str:
    lines = ["---"]
    if facts.languages:
        lines += ["language:", *(f"- {language}" for language in facts.languages)]
    lines += [
        "license: other  # to be filled in",
        f"library_name: {'transformers' if form == 'hf' else 'gguf'}",
        "pipeline_tag: text-generation",
        "tags:",
        "- fangcun",
        f"- {facts.config.family}",
        "---",
    ]
    return "\n".join(lines) + "\n"


def _shape(facts: Facts) -> str:
    c = facts.config
    return f"{c.family}: n_layer {c.n_layer}, n_embd {c.n_embd}, n_head {c.n_head}, n_query_groups {c.n_query_groups}, head_size {c.head_size}, intermediate_size {c.intermediate_size}, {c.norm_class}, {c.mlp_class}"


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.2f} MB" if size_bytes >= 10_000 else f"{size_bytes:,.0f} bytes"


class _English:
    """The card's sentences; the Chinese card replaces the words."""

    unknown = "not known"
    titles: ClassVar[tuple[str, ...]] = (
        "Model",
        "Data",
        "Training",
        "Results",
        "Intended use and limits",
        "Licence",
        "Use",
    )
    row: ClassVar[dict[str, str]] = {
        "form": "Files", "parameters": "Parameters", "shape": "Shape", "context": "Context", "tokenizer": "Tokenizer",
        "end": "End of a document", "chat": "Chat template", "sources": "Sources", "train": "Training text",
        "val": "Validation text", "tokens": "Tokens", "drops": "Left out by cleaning and filters", "step": "Steps",
        "seen": "Tokens seen", "time": "Time", "settings": "Settings", "software": "Software", "bits": "Bits per byte",
        "loss": "Loss", "preset": "Cleaning",
    }  # fmt: skip
    of_tokens, ids, none, yes, no = "tokens", "ids", "nothing", "yes", "no (a base model: it writes on from a text)"
    documents, lines, per_token = "documents", "lines", "nats per token"
    whole, windows = "the whole validation text", "the first windows of the validation text"
    incomparable = "not comparable between tokenizers: see tokens/manifest.json of the run"
    epochs = "passes over the text"
    exported = "exported by"
    trained = "trained by"
    licence = "To be filled in. It depends on the texts that the model was trained on."
    use = (
        "A small language model for study and for experiments on text like that which it was trained on. It knows nothing "
        "beyond that text, invents facts, and may repeat what the text holds, its errors, prejudices and personal data "
        "included. It was not tuned for safety and was not measured on anything that is not named above. It is not fit "
        "for decisions about people, nor as a source of knowledge."
    )
    no_run = "The run that the model came from is not known: no facts on data and training are at hand."

    def __init__(self, facts: Facts, name: str, form: str, dtype: str | None) -> None:
        self.facts, self.name, self.form, self.dtype = facts, name, form, dtype

    def text(self) -> str:
        model, data, training, results, use, licence, run = self.titles
        parts = [f"# {self.name}\n" if isinstance(self, _Chinese) else f"## {self.name} (English)\n"]
        parts += [f"## {model}\n", self._table(self._model())]
        if self.facts.has_run:
            parts += [f"## {data}\n", self._table(self._data()), f"## {training}\n", self._table(self._training())]
        else:
            parts += [
                f"## {data}, {training}\n" if self.unknown == "not known" else f"## {data}与{training}\n",
                self.no_run + "\n",
            ]
        parts += [f"## {results}\n", self._table(self._results())]
        parts += [f"## {use}\n", self.use + "\n", f"## {licence}\n", self.licence + "\n", f"## {run}\n", self._use()]
        return "\n".join(parts)

    def _table(self, rows: list[tuple[str, str | None]]) -> str:
        lines = [f"| {self.row[key]} | {(value or self.unknown).replace('|', '&#124;')} |" for key, value in rows]
        return "\n".join(["| | |", "|---|---|", *lines]) + "\n"

    def _model(self) -> list[tuple[str, str | None]]:
        facts = self.facts
        files = "Hugging Face (safetensors)" if self.form == "hf" else "GGUF (llama.cpp, Ollama)"
        return [
            ("form", f"{files}{f', {self.dtype}' if self.dtype else ''}"),
            ("parameters", f"{facts.parameters:,}"),
            ("shape", _shape(facts)),
            ("context", f"{facts.config.block_size:,} {self.of_tokens}"),
            ("tokenizer", f"{facts.tokenizer_kind}, {facts.vocab_size:,} {self.ids}"),
            ("end", f"`{facts.eos_token}`"),
            ("chat", self.yes if facts.has_chat_template else self.no),
        ]

    def _data(self) -> list[tuple[str, str | None]]:
        facts = self.facts
        rows: list[tuple[str, str | None]] = [("sources", "; ".join(facts.sources) or None)]
        for split in ("train", "val"):
            counts = facts.corpus.get(split)
            text = f"{counts['documents']:,} {self.documents}, {_size(counts['bytes'])}" if counts else None
            rows.append((split, text))
        rows.append(("preset", self._cleaning()))
        rows.append(("drops", self._drops() if facts.corpus else None))
        counted = [
            f"{split} {facts.token_counts[split]['tokens']:,}"
            for split in ("train", "val")
            if split in facts.token_counts
        ]
        return [*rows, ("tokens", ", ".join(counted) or None)]

    def _cleaning(self) -> str | None:
        recipe = self.facts.recipe
        if not recipe:
            return None
        preset = recipe.get("corpus.preset")
        on = [key for key in recipe if key.startswith(("clean.", "dedup.")) and recipe[key] is True]
        return ", ".join([*([f"preset {preset}"] if preset else []), *(f"`{key}`" for key in on)]) or self.none

    def _drops(self) -> str:
        drops = self.facts.drops
        said = []
        for rule, count in drops.items():
            lines = f"{count['lines']:,} {self.lines}, " if count.get("lines") else ""
            said.append(f"{rule}: {lines}{count['documents']:,} {self.documents}, {_size(count['bytes'])}")
        return "; ".join(said) or self.none

    def _training(self) -> list[tuple[str, str | None]]:
        facts, recipe = self.facts, self.facts.recipe
        seen = None if facts.tokens_seen is None else f"{facts.tokens_seen:,}"
        train = facts.token_counts.get("train", {}).get("tokens")
        if seen and train:
            seen += f" ({facts.tokens_seen / train:.2f} {self.epochs})"  # type: ignore[operator]
        keys = (
            "optimizer.name", "optimizer.lr", "optimizer.weight_decay", "train.lr_schedule", "train.global_batch_size",
            "precision", "device", "seed", "init_from",
        )  # fmt: skip
        settings = ", ".join(f"{key} {recipe[key]}" for key in keys if recipe.get(key) is not None)
        return [
            ("step", None if facts.step is None else f"{facts.step:,}"),
            ("seen", seen),
            ("time", None if facts.seconds is None else format_seconds(facts.seconds)),
            ("settings", settings or None),
            ("software", self._software()),
        ]

    def _software(self) -> str:
        trained = f"{self.trained} {', '.join(self.facts.programs)}; " if self.facts.programs else ""
        return f"{trained}{self.exported} fangcun {__version__}, torch {torch.__version__}, Python {platform.python_version()}"

    def _results(self) -> list[tuple[str, str | None]]:
        facts = self.facts
        if facts.val_loss is None:
            return [("bits", None), ("loss", None)]
        where = f"({self.whole if facts.whole_split else self.windows}, step {facts.val_step:,})"
        bits = None if facts.val_bits_per_byte is None else f"{facts.val_bits_per_byte:.4f} {where}"
        if bits and not facts.val_comparable:
            bits += f"; {self.incomparable}"
        return [("bits", bits), ("loss", f"{facts.val_loss:.4f} {self.per_token} {where}")]

    def _use(self) -> str:
        if self.form == "hf":
            return (
                "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                f'tokenizer = AutoTokenizer.from_pretrained("{self.name}")\n'
                f'model = AutoModelForCausalLM.from_pretrained("{self.name}")\n```\n'
            )
        return (
            f'```sh\nllama-cli -m {self.name}-{self.dtype}.gguf -no-cnv -p "…"\n'
            f"ollama create {self.name.lower()} -f Modelfile\n```\n"
        )


class _Chinese(_English):
    unknown = "未知"
    titles: ClassVar[tuple[str, ...]] = ("模型", "数据", "训练", "结果", "用途与局限", "许可证", "使用")
    row: ClassVar[dict[str, str]] = {
        "form": "文件", "parameters": "参数量", "shape": "结构", "context": "上下文", "tokenizer": "分词器",
        "end": "文档结束符", "chat": "对话模板", "sources": "来源", "train": "训练文本", "val": "验证文本",
        "tokens": "词元数", "drops": "清洗与过滤去掉的", "step": "步数", "seen": "训练过的词元", "time": "用时",
        "settings": "设置", "software": "软件", "bits": "每字节比特数", "loss": "损失", "preset": "清洗",
    }  # fmt: skip
    of_tokens, ids, none, yes, no = "个词元", "个编号", "无", "有", "无（基础模型：接着给定的文本往下写）"
    documents, lines, per_token = "篇", "行", "奈特/词元"
    whole, windows = "整个验证文本", "验证文本开头的若干窗口"
    incomparable = "不同分词器之间不可比：见训练目录的 tokens/manifest.json"
    epochs = "遍"
    exported = "导出："
    trained = "训练："
    licence = "待填写，取决于训练所用文本的许可。"
    use = (
        "小型语言模型，供学习和在同类文本上做实验。它不知道训练文本以外的事，会编造，也可能复述训练文本中的内容，包括其中的错误、偏见和个人信息。"
        "没有做过安全对齐，除上面所列之外没有测过别的指标。不可用于涉及人的决定，也不可当作知识来源。"
    )
    no_run = "不知道这个模型出自哪次训练，因此没有数据和训练方面的信息。"
