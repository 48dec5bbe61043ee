"""`fangcun evaluate`: what one or several models are worth, side by side, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fangcun.errors import ConfigError

if TYPE_CHECKING:
    from fangcun.console import Console
    from fangcun.generation import LanguageModel

Words = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]
Measure = Callable[["LanguageModel", str], dict[str, Any]]
Show = Callable[[list[str], list[dict[str, Any]]], str]


def evaluate(
    models: Annotated[list[str], Parameter(negative=())],
    /,
    *,
    text: Words = None,
    txt_split: Literal["file", "blank_lines", "chapter"] = "file",
    stride: int | None = None,
    exam: Words = None,
    subjects: Words = None,
    form: Literal["letter", "cloze"] = "letter",
    shots: int = 0,
    prompt_style: Literal["lm-eval", "authors"] = "lm-eval",
    predictions: str | None = None,
    samples: int | None = None,
    prompts: Words = None,
    max_new_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
    html: str | None = None,
    harness: Words = None,
    include_path: str | None = None,
    json_file: Annotated[str | None, Parameter(name="--json")] = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str = "auto",
) -> int:
    """Measure models: bits per byte of texts, exams, repetition of free samples. Several models stand side by side.

    Without --text, --exam, --samples or --harness: the run's own validation split, as at the end of its training.

    Parameters
    ----------
    models
        Runs, checkpoints or Hugging Face folders.
    text
        Files, folders or globs to measure bits per byte on, plain: txt, jsonl, csv, parquet … by their text. The start
        token, then windows of block_size over each document; every token is predicted once.
    txt_split
        How text files become documents: a file is one, or blank lines or chapter headings part them.
    stride
        Tokens by which a window moves on. Default: half of block_size. Smaller: more context a token, and more time.
    exam
        cmmlu=FOLDER or ceval=FOLDER, laid out as their authors do, or jsonl=PATH with {question, choices, answer} a line.
    subjects
        Only these subjects.
    form
        letter: the letter behind the question with its choices. cloze: each choice's text behind the question alone.
    shots
        Examples before each question, as many of them as the context holds.
    prompt_style
        Whose prompts: those of lm-eval's tasks, or those of the exam's authors.
    predictions
        Write subject,id,prediction,answer of the exams to this CSV file (one model, one exam).
    samples
        Free samples to write and look over for repetition.
    prompts
        Openings of the samples, taken in turn. Default: none, a new document each.
    max_new_tokens
        Tokens of a sample at most.
    temperature
        Of the samples; 0 is greedy.
    top_k
        Of the samples; 0: all.
    seed
        Of the first sample; the next have the next ones.
    html
        Write the text with each token coloured by its surprise to this page (one model, one text file).
    harness
        Tasks of lm-eval to run offline (needs pip install 'fangcun[eval]').
    include_path
        Folder with the task files of --harness. Without it lm-eval's own tasks, whose data must be in its cache.
    json_file
        Write everything to this file: settings, protocols with their versions, all figures.
    dtype
        Arithmetic. What is to be compared should be measured in float32.
    device
        cpu, cuda, cuda:1; auto takes cuda where there is one.
    """
    import fangcun
    from fangcun.console import Console

    console = Console()
    if not models:
        raise ConfigError("fangcun evaluate needs a model first: fangcun evaluate RUN [RUN …] [--text PATH …]")
    if html is not None and (len(models) > 1 or not text or len(text) > 1):
        raise ConfigError("--html: shows one text file to one model: fangcun evaluate RUN --text FILE --html OUT.html")
    if predictions is not None and (len(models) > 1 or len(exam or []) != 1):
        raise ConfigError("--predictions: writes the answers of one model in one exam.")
    if samples is not None and samples < 1:
        raise ConfigError(f"--samples is {samples}, expected at least 1.")
    _refuse_unused("--text", bool(text), txt_split=txt_split != "file", stride=stride is not None)
    _refuse_unused(
        "--exam", bool(exam), subjects=bool(subjects), form=form != "letter", shots=shots != 0,
        prompt_style=prompt_style != "lm-eval",
    )  # fmt: skip
    _refuse_unused(
        "--samples", samples is not None, prompts=bool(prompts), max_new_tokens=max_new_tokens != 256,
        temperature=temperature != 0.8, top_k=top_k != 50, seed=seed != 0,
    )  # fmt: skip
    _refuse_unused("--harness", bool(harness), include_path=include_path is not None)
    settings = {"temperature": temperature, "top_k": top_k or None, "max_new_tokens": max_new_tokens, "seed": seed}
    jobs: list[tuple[str, Measure, Show]] = []
    if html is not None:
        assert text is not None
        jobs.append(("surprise", _surprise(text[0], html, stride), _said("surprise")))
    elif text:
        jobs.append(_texts(text, txt_split, stride, console))
    jobs += [_exam(word, subjects, form, shots, prompt_style, predictions, console) for word in exam or []]
    if samples is not None:
        jobs.append(_samples(samples, prompts or [""], settings, console))
    if harness:
        jobs.append(_harness(harness, include_path))
    if not jobs:
        jobs.append(_own_split())
    results: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in jobs}
    described = []
    for path in models:
        model = fangcun.load(path, dtype=dtype, device=device)
        described.append(_describe(model, path, dtype))
        for name, measure, _ in jobs:
            results[name].append(measure(model, path))
            console.clear()
        del model
    names = _short(models)
    print("\n\n".join(show(names, results[name]) for name, _, show in jobs))
    if json_file is not None:
        whole = {"fangcun": fangcun.__version__, "models": described, "results": results}
        Path(json_file).write_text(
            json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n"
        )
    return 0


def _refuse_unused(task: str, asked: bool, **given: bool) -> None:
    """A setting of a task that was not asked for would change nothing."""
    for name, is_given in given.items():
        if is_given and not asked:
            raise ConfigError(
                f"--{name.replace('_', '-')}: belongs to {task}, which is not given. Give {task}, or leave it out."
            )


def _describe(model: LanguageModel, path: str, dtype: str) -> dict[str, Any]:
    from fangcun.artifacts import find_weights

    return {
        "path": path,
        "weights": str(find_weights(path)),
        "dtype": dtype,
        "device": str(model.device),
        "block_size": model.config.block_size,
        "tokenizer": model.tokenizer.fingerprint,
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
    }


def _short(models: list[str]) -> list[str]:
    """The last part of each path, or the whole of it where two would look the same."""
    last = [Path(model).name or model for model in models]
    return [name if last.count(name) == 1 else model for name, model in zip(last, models, strict=True)]


def _texts(paths: list[str], txt_split: str, stride: int | None, console: Console) -> tuple[str, Measure, Show]:
    from fangcun.evaluation.text import PROTOCOL, measure_texts
    from fangcun.evaluation.view import text_table

    def measure(model: LanguageModel, path: str) -> dict[str, Any]:
        documents, total = _documents(paths, txt_split)
        line = console.progress("text")
        found = measure_texts(model, documents, stride=stride, done=lambda done: line(min(done, total), total))
        return {
            "protocol": PROTOCOL,
            "stride": found.stride,
            "txt_split": txt_split,
            "total": found.total.record(),
            "sources": {name: totals.record() for name, totals in found.sources.items()},
        }

    return "text", measure, text_table


def _documents(paths: list[str], txt_split: str) -> tuple[Iterator[tuple[str, str]], int]:
    """(source, text) of the documents as they stand in the files, and the files' bytes.

    A source is what was named, a file or a folder; where one thing was named, each file in it.
    """
    from fangcun.config.schema import CorpusConfig
    from fangcun.corpus import ReadReport
    from fangcun.corpus.readers import check_read, read_raw
    from fangcun.corpus.sources import Source

    configs = {path: CorpusConfig(paths=[path], txt_split=txt_split) for path in paths}  # type: ignore[arg-type]
    sources = {path: Source(config) for path, config in configs.items()}

    def read() -> Iterator[tuple[str, str]]:
        for path, source in sources.items():
            report = ReadReport()
            for document in read_raw(source, report):
                document.counts.documents += 1
                yield (path if len(sources) > 1 else document.counts.name), document.text
            check_read(configs[path], report)

    return read(), sum(source.size_bytes for source in sources.values())


def _exam(
    word: str, subjects: list[str] | None, form: Any, shots: int, style: Any, predictions: str | None, console: Console
) -> tuple[str, Measure, Show]:
    from fangcun.evaluation.exam_files import read_exam
    from fangcun.evaluation.exams import take_exam, write_predictions
    from fangcun.evaluation.view import exam_table

    kind, equals, path = word.partition("=")
    if not equals or not path:
        raise ConfigError(f"--exam: expected cmmlu=FOLDER, ceval=FOLDER or jsonl=PATH, got '{word}'.")
    found = read_exam(kind, path, subjects)

    def measure(model: LanguageModel, path: str) -> dict[str, Any]:
        result = take_exam(model, found, form=form, style=style, n_shots=shots, progress=console.progress(kind))
        if predictions is not None:
            write_predictions(result, predictions)
        return result.record()

    return f"exam {word}", measure, lambda names, records: exam_table(names, records, subjects=True)


def _samples(count: int, prompts: list[str], settings: dict[str, Any], console: Console) -> tuple[str, Measure, Show]:
    from fangcun.evaluation.repetition import describe_samples
    from fangcun.evaluation.samples import write_samples
    from fangcun.evaluation.view import samples_table
    from fangcun.generation import SamplingSettings

    sampling = SamplingSettings(settings["temperature"], settings["top_k"], 1.0, 1.0)

    def measure(model: LanguageModel, path: str) -> dict[str, Any]:
        line = console.progress("samples")
        written = write_samples(
            model, prompts, count, sampling, max_new_tokens=settings["max_new_tokens"], seed=settings["seed"],
            done=lambda done: line(done, count),
        )  # fmt: skip
        figures = describe_samples([sample.text for sample in written], [sample.ended for sample in written])
        texts = [{"prompt": s.prompt, "text": s.text, "tokens": s.tokens, "ended": s.ended} for s in written]
        return {"protocol": "fangcun-samples-1", "settings": settings, **figures, "texts": texts}

    return "samples", measure, samples_table


def _harness(tasks: list[str], include_path: str | None) -> tuple[str, Measure, Show]:
    from fangcun.evaluation.harness import run_tasks
    from fangcun.evaluation.view import harness_table

    def measure(model: LanguageModel, path: str) -> dict[str, Any]:
        found = run_tasks(model, tasks, include_path)
        return {"results": found["results"], "versions": found.get("versions"), "n_samples": found.get("n-samples")}

    return "harness", measure, harness_table


def _own_split() -> tuple[str, Measure, Show]:
    import dataclasses

    from fangcun.evaluation.own_split import PROTOCOL, evaluate_own_split
    from fangcun.evaluation.view import validation_table

    def measure(model: LanguageModel, path: str) -> dict[str, Any]:
        found = evaluate_own_split(model, path)
        return {"protocol": PROTOCOL, "splits": {name: dataclasses.asdict(one) for name, one in found.items()}}

    return "validation", measure, validation_table


def _surprise(text: str, page: str, stride: int | None) -> Measure:
    from fangcun.evaluation.surprise import stretches, surprise_of
    from fangcun.evaluation.surprise_page import surprise_page

    def measure(model: LanguageModel, path: str) -> dict[str, Any]:
        documents, size = _documents([text], "file")
        if size > _LARGEST_PAGE_BYTES:
            raise ConfigError(
                f"--html: {text} has {size:,} bytes; a page of more than {_LARGEST_PAGE_BYTES:,} opens in no browser. Take a part of it."
            )
        whole = "\n\n".join(document for _, document in documents)
        tokens = surprise_of(model, whole, stride=stride)
        decode = lambda index: model.tokenizer.decode([index], skip_special_tokens=False)  # noqa: E731
        content = surprise_page(
            stretches(tokens), decode, title=Path(text).name, note=f"{path}", n_bytes=len(whole.encode())
        )
        Path(page).write_text(content, encoding="utf-8", newline="\n")
        bits = sum(token.bits for token in tokens)
        said = f"{len(tokens):,} tokens, {bits:,.1f} bits, {bits / max(1, len(whole.encode())):.4f} bits/byte. Open it: {page}"
        return {"said": said, "tokens": len(tokens), "bits": bits, "page": page}

    return measure


_LARGEST_PAGE_BYTES = 1_000_000


def _said(key: str) -> Show:
    return lambda names, records: "\n".join(f"{key}: {record['said']}" for record in records)
