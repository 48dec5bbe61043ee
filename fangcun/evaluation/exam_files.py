"""Exams from local folders: CMMLU and C-Eval as their authors lay them out, and multiple choice as JSON lines.

Nothing is downloaded. Questions are taken as they stand in the files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fangcun.errors import ConfigError, FangcunError, did_you_mean
from fangcun.evaluation.exam_names import CMMLU_SUBJECTS

LETTERS = "ABCDEFGHIJ"

_WHERE = {
    "cmmlu": "CMMLU: github.com/haonan-li/CMMLU, or by name: fangcun download haonan-li/cmmlu --source huggingface (its zip unpacked), licence CC BY-NC-SA 4.0",
    "ceval": "C-Eval: github.com/hkust-nlp/ceval, or by name: fangcun download ceval/ceval-exam --source huggingface (its zip unpacked), licence CC BY-NC-SA 4.0",
}


@dataclass(frozen=True)
class Question:
    """One of several choices is right."""

    id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    """Place of the right one in `choices`."""


@dataclass(frozen=True)
class Subject:
    """The questions of a subject."""

    name: str
    title: str | None
    """As prompts call it, in Chinese; None where there is no name."""
    categories: tuple[str, ...]
    questions: tuple[Question, ...]
    shots: tuple[Question, ...] = ()
    """Examples for few-shot prompts."""


@dataclass(frozen=True)
class Exam:
    """Subjects of one exam, in order of their names."""

    kind: str
    """cmmlu, ceval or jsonl: which prompt is the authors'."""
    name: str
    subjects: tuple[Subject, ...]

    @property
    def size(self) -> int:
        """Questions."""
        return sum(len(subject.questions) for subject in self.subjects)


def read_exam(kind: str, path: str | Path, subjects: list[str] | None = None) -> Exam:
    """Open an exam: `cmmlu` or `ceval` with its folder, `jsonl` with a file or a folder of files.

    subjects: only these. Raises ConfigError for a kind or a subject that is not there, FangcunError for files that are
    not what was expected.
    """
    readers = {"cmmlu": _read_cmmlu, "ceval": _read_ceval, "jsonl": _read_jsonl}
    if kind not in readers:
        raise ConfigError(
            f"--exam: '{kind}' is no exam.{did_you_mean(kind, readers)} Expected cmmlu=FOLDER, ceval=FOLDER or jsonl=PATH."
        )
    path = Path(path).expanduser()
    if not path.exists():
        raise FangcunError(
            f"{path} does not exist. Expected the exam's files; they are not fetched by themselves. {_WHERE.get(kind, '')}".rstrip()
        )
    found = list(readers[kind](path))
    if subjects is not None:
        names = [subject.name for subject in found]
        for name in subjects:
            if name not in names:
                raise ConfigError(f"--subjects: {path} has no subject '{name}'.{did_you_mean(name, names)}")
        found = [subject for subject in found if subject.name in subjects]
    found = [subject for subject in found if subject.questions]
    if not found:
        raise FangcunError(f"{path} has no question with an answer. {_WHERE.get(kind, '')}".rstrip())
    return Exam(kind, path.name, tuple(found))


def _read_cmmlu(folder: Path) -> Iterator[Subject]:
    """test/SUBJECT.csv and dev/SUBJECT.csv: `,Question,A,B,C,D,Answer`."""
    files = _files(folder, "test", "*.csv", "cmmlu")
    for file in files:
        title, categories = CMMLU_SUBJECTS.get(file.stem, (None, ()))
        dev = folder / "dev" / file.name
        yield Subject(
            file.stem,
            title,
            categories,
            tuple(_read_csv(file, "Question", "Answer", "")),
            tuple(_read_csv(dev, "Question", "Answer", "")) if dev.is_file() else (),
        )


def _read_ceval(folder: Path) -> Iterator[Subject]:
    """val/SUBJECT_val.csv and dev/SUBJECT_dev.csv: `id,question,A,B,C,D,answer`; test/ has no answers and is not read."""
    files = _files(folder, "val", "*_val.csv", "ceval")
    names = _ceval_names(folder)
    for file in files:
        name = file.stem.removesuffix("_val")
        title, categories = names.get(name, (None, ()))
        dev = folder / "dev" / f"{name}_dev.csv"
        yield Subject(
            name,
            title,
            categories,
            tuple(_read_csv(file, "question", "answer", "id")),
            tuple(_read_csv(dev, "question", "answer", "id")) if dev.is_file() else (),
        )


def _ceval_names(folder: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    file = folder / "subject_mapping.json"
    if not file.is_file():
        return {}
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return {name: (entry[1], (entry[2],)) for name, entry in raw.items()}
    except (ValueError, AttributeError, IndexError, TypeError) as error:
        raise FangcunError(
            f"{file}: {error}. Expected an object of subject: [English name, Chinese name, category]."
        ) from error


def _files(folder: Path, split: str, pattern: str, kind: str) -> list[Path]:
    files = sorted((folder / split).glob(pattern)) if folder.is_dir() else []
    if not files:
        raise FangcunError(
            f"{folder} is not laid out as the authors of {kind} do: expected {split}/{pattern}. {_WHERE[kind]}."
        )
    return files


def _read_csv(file: Path, text: str, answer: str, identity: str) -> Iterator[Question]:
    with open(file, encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in (text, *"ABCD", answer) if name not in (reader.fieldnames or [])]
        if missing:
            raise FangcunError(
                f"{file} has no column {', '.join(missing)}. Expected the header {identity},{text},A,B,C,D,{answer}."
            )
        for number, row in enumerate(reader):
            choices = tuple(row[letter] or "" for letter in "ABCD")
            right = _place(row[answer], choices, f"{file}, question {row.get(identity) or number}")
            yield Question(str(row.get(identity) or number), row[text] or "", choices, right)


def _read_jsonl(path: Path) -> Iterator[Subject]:
    """{"question", "choices" or A, B …, "answer"}, with "subject" and "id" where there are such. Without a subject: the
    file's name."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    found: dict[str, list[Question]] = {}
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
            if not line.strip():
                continue
            place = f"{file}:{number}"
            try:
                record: dict[str, Any] = json.loads(line)
                choices = record.get("choices") or [record[c] for c in LETTERS if c in record]
                question, answer = str(record["question"]), record["answer"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise FangcunError(
                    f'{place}: {error!r}. Expected {{"question": …, "choices": [… ] or "A": …, "B": …, "answer": …}}.'
                ) from error
            if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
                raise FangcunError(f"{place}: expected 2 to {len(LETTERS)} choices, got {choices!r}.")
            texts = tuple(str(choice) for choice in choices)
            right = _place(answer, texts, place)
            subject = str(record.get("subject", file.stem))
            found.setdefault(subject, []).append(Question(str(record.get("id", number)), question, texts, right))
    for name in sorted(found):
        yield Subject(name, None, (), tuple(found[name]))


def _place(answer: Any, choices: tuple[str, ...], where: str) -> int:
    """The right choice: a letter, a number from 0, or the text of a choice. Raises FangcunError."""
    if isinstance(answer, str):
        letter = answer.strip().upper()
        if len(letter) == 1 and letter in LETTERS[: len(choices)]:
            return LETTERS.index(letter)
        if choices.count(answer) == 1:
            return choices.index(answer)
    elif isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    raise FangcunError(
        f"{where}: the answer is {answer!r}, expected one of {', '.join(LETTERS[: len(choices)])}, a number from 0, or the text of one choice."
    )
