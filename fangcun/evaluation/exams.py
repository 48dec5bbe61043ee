"""Exams of multiple choice: accuracy by subject, by category and in total, with interval and random line.

All questions of an exam are scored together, sorted by length; contexts that are common are read once.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fangcun.errors import ConfigError
from fangcun.evaluation.continuations import Pair, Score, score_continuations
from fangcun.evaluation.exam_files import LETTERS, Exam, Question
from fangcun.evaluation.exam_prompts import WORDINGS, Fitting, Form, PromptStyle, encode_subject, prompt_of
from fangcun.evaluation.intervals import Accuracy
from fangcun.evaluation.predictions import COLUMNS
from fangcun.evaluation.scoring import BATCH_TOKENS
from fangcun.generation import LanguageModel

PROTOCOL = "fangcun-exam-1"
"""Changes when an answer would."""


@dataclass(frozen=True)
class Answer:
    """What a model chose."""

    subject: str
    id: str
    chosen: int
    """Place of the choice with the highest score; of equal ones the first."""
    chosen_by_bytes: int
    """The same, scores divided by the UTF-8 bytes of the choices (cloze form)."""
    right: int
    choices: int
    scores: tuple[float, ...]
    """Log-probabilities in nats; in letter form up to a summand common to the question."""


@dataclass
class ExamResult:
    """An exam taken."""

    exam: Exam
    form: Form
    style: PromptStyle
    n_shots: int
    """Examples asked for; subjects without any have none."""
    answers: list[Answer]
    fitting: Fitting = field(default_factory=Fitting)
    example: str = ""
    """The first prompt, as the model read it."""

    def accuracy(self, subjects: Sequence[str] | None = None, *, by_bytes: bool = False) -> Accuracy:
        """Micro average: right answers over questions, of some subjects or all."""
        return accuracy_of([a for a in self.answers if subjects is None or a.subject in subjects], by_bytes=by_bytes)

    def by_subject(self, *, by_bytes: bool = False) -> dict[str, Accuracy]:
        """Of each subject."""
        grouped: dict[str, list[Answer]] = {}
        for answer in self.answers:
            grouped.setdefault(answer.subject, []).append(answer)
        return {name: accuracy_of(answers, by_bytes=by_bytes) for name, answers in grouped.items()}

    def by_category(self, *, by_bytes: bool = False) -> dict[str, Accuracy]:
        """Of each category that the authors name; some lie across others."""
        names: dict[str, list[str]] = {}
        for subject in self.exam.subjects:
            for category in subject.categories:
                names.setdefault(category, []).append(subject.name)
        return {name: self.accuracy(names[name], by_bytes=by_bytes) for name in sorted(names)}

    def macro(self, *, by_bytes: bool = False) -> float:
        """Mean of the subjects' accuracies, as CMMLU's and C-Eval's authors report it."""
        each = [accuracy.accuracy for accuracy in self.by_subject(by_bytes=by_bytes).values()]
        return sum(each) / len(each)

    def record(self) -> dict[str, Any]:
        """As it stands in a JSON file."""
        record: dict[str, Any] = {
            "exam": self.exam.kind,
            "name": self.exam.name,
            "protocol": PROTOCOL,
            "form": self.form,
            "prompt": self.style,
            "shots": self.n_shots,
            "example": self.example,
            "fitting": asdict(self.fitting),
        }
        ways = {"raw": False, "by_bytes": True} if self.form == "cloze" else {"letter": False}
        for name, by_bytes in ways.items():
            record[name] = self.accuracy(by_bytes=by_bytes).record() | {
                "macro_accuracy": self.macro(by_bytes=by_bytes),
                "categories": {k: v.record() for k, v in self.by_category(by_bytes=by_bytes).items()},
                "subjects": {k: v.record() for k, v in self.by_subject(by_bytes=by_bytes).items()},
            }
        return record


def accuracy_of(answers: Sequence[Answer], *, by_bytes: bool = False) -> Accuracy:
    """Right answers among `answers`."""
    right = sum((a.chosen_by_bytes if by_bytes else a.chosen) == a.right for a in answers)
    chance = sum(1 / a.choices for a in answers) / len(answers) if answers else 0.0
    return Accuracy(right, len(answers), chance)


def take_exam(
    model: LanguageModel,
    exam: Exam,
    *,
    form: Form = "letter",
    style: PromptStyle = "lm-eval",
    n_shots: int = 0,
    share: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> ExamResult:
    """Let a model answer all questions of an exam.

    form: `letter` or `cloze`. style: whose prompts, `lm-eval` or `authors`. n_shots: examples before each question, as far
    as the exam has them and the context holds them. share: read common contexts once; false is only slower. progress:
    called with the choices scored, and their total. Raises ConfigError.
    """
    if n_shots < 0:
        raise ConfigError(f"--shots is {n_shots}, expected 0 or more.")
    if n_shots and not any(subject.shots for subject in exam.subjects):
        raise ConfigError(
            f"--shots is {n_shots}, but {exam.name} has no examples (dev/). Put them there, or leave --shots out."
        )
    wording = WORDINGS[exam.kind, style]
    pairs: list[list[Pair]] = []
    questions: list[tuple[str, Question]] = []
    fitting = Fitting()
    for subject in exam.subjects:
        encoded, one = encode_subject(
            model.tokenizer, subject, form=form, wording=wording, n_shots=n_shots, block_size=model.config.block_size
        )
        pairs += [[_read_from_start(pair, model.tokenizer.eos_id) for pair in choices] for choices in encoded]
        questions += [(subject.name, question) for question in subject.questions]
        fitting.dropped_shots += one.dropped_shots
        fitting.shortened += one.shortened
        fitting.cut += one.cut
    flat = [pair for choices in pairs for pair in choices]
    finished = 0

    def count(pairs_done: int) -> None:
        nonlocal finished
        finished += pairs_done
        if progress is not None:
            progress(min(finished, len(flat)), len(flat))

    scores = score_continuations(
        model.model, flat, relative=form == "letter", share=share, batch_tokens=batch_tokens, done=count
    )
    answers, start = [], 0
    for (subject_name, question), choices in zip(questions, pairs, strict=True):
        answers.append(_choose(subject_name, question, scores[start : start + len(choices)]))
        start += len(choices)
    first = exam.subjects[0]
    example = prompt_of(first, first.shots[:n_shots], first.questions[0], form, wording)
    return ExamResult(exam, form, style, n_shots, answers, fitting, example)


def _read_from_start(pair: Pair, start: int) -> Pair:
    """A context of no ids begins with the end of the document before."""
    context, continuation = pair
    return (context or [start], continuation)


def _choose(subject: str, question: Question, scores: Sequence[Score]) -> Answer:
    values = tuple(score.log_probability for score in scores)
    sizes = [max(1, len(choice.encode("utf-8", "replace"))) for choice in question.choices]
    by_bytes = [value / size for value, size in zip(values, sizes, strict=True)]
    return Answer(
        subject,
        question.id,
        chosen=max(range(len(values)), key=values.__getitem__),
        chosen_by_bytes=max(range(len(values)), key=by_bytes.__getitem__),
        right=question.answer,
        choices=len(values),
        scores=values,
    )


def write_predictions(result: ExamResult, file: str | Path) -> None:
    """`subject,id,prediction,answer` as CSV: what `read_predictions` reads."""
    with open(file, "w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((a.subject, a.id, LETTERS[a.chosen], LETTERS[a.right]) for a in result.answers)
