"""What a model reads in an exam: the prompts of the exams' authors and those of lm-eval, few-shot as far as they fit.

Letter form: the question with its choices; the letter whose log-probability is highest is the answer. Cloze form: the
question without them; each choice's own text is scored, which a model that never saw an exam can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fangcun.evaluation.continuations import Pair, encode_pairs
from fangcun.evaluation.exam_files import LETTERS, Question, Subject
from fangcun.tokenizer import Tokenizer

PromptStyle = Literal["lm-eval", "authors"]
Form = Literal["letter", "cloze"]


@dataclass(frozen=True)
class Wording:
    """The parts of a prompt."""

    header: str
    """`{title}` is the subject's name; left out where it has none."""
    before: str
    """In front of a question."""
    answer: str
    """In front of the answer."""
    gap: str
    """Between that and the answer: part of what is scored."""


_CMMLU = "以下是关于{title}的单项选择题，请直接给出正确答案的选项。\n\n"
WORDINGS: dict[tuple[str, PromptStyle], Wording] = {
    ("cmmlu", "lm-eval"): Wording(_CMMLU, "", "\n答案：", " "),
    ("cmmlu", "authors"): Wording(_CMMLU, "题目：", "\n答案是：", ""),
    ("ceval", "lm-eval"): Wording("以下是中国关于{title}的单项选择题，请选出其中的正确答案。\n\n", "", "\n答案：", " "),
    ("ceval", "authors"): Wording(
        "以下是中国关于{title}考试的单项选择题，请选出其中的正确答案。\n\n", "", "\n答案：", ""
    ),
    ("jsonl", "lm-eval"): Wording("", "", "\n答案：", " "),
    ("jsonl", "authors"): Wording("", "", "\n答案：", ""),
}
"""lm-eval: tasks cmmlu and ceval-valid of lm-eval 0.4; authors: src/mp_utils.py of CMMLU, evaluators/llama.py of C-Eval."""


@dataclass
class Fitting:
    """What had to be left out for the context."""

    dropped_shots: int = 0
    """Examples, summed over the questions, that were left out from the front."""
    shortened: int = 0
    """Questions with fewer examples than asked for."""
    cut: int = 0
    """Questions that do not even fit alone, and were cut on the left."""


def prompt_of(subject: Subject, shots: Sequence[Question], question: Question, form: Form, wording: Wording) -> str:
    """The text before the answer."""
    header = wording.header.format(title=subject.title) if subject.title else ""
    parts = [header]
    for shot in shots:
        said = LETTERS[shot.answer] if form == "letter" else shot.choices[shot.answer]
        parts.append(_asked(shot, form, wording) + wording.gap + said + "\n\n")
    return "".join(parts) + _asked(question, form, wording)


def _asked(question: Question, form: Form, wording: Wording) -> str:
    choices = ""
    if form == "letter":
        choices = "".join(f"\n{LETTERS[n]}. {choice}" for n, choice in enumerate(question.choices))
    return wording.before + question.text.strip() + choices + wording.answer


def continuations_of(question: Question, form: Form, wording: Wording) -> list[str]:
    """What is scored behind the prompt, a text for each choice."""
    if form == "letter":
        return [wording.gap + LETTERS[n] for n in range(len(question.choices))]
    return [wording.gap + choice for choice in question.choices]


def encode_subject(
    tokenizer: Tokenizer, subject: Subject, *, form: Form, wording: Wording, n_shots: int, block_size: int
) -> tuple[list[list[Pair]], Fitting]:
    """Ids of (prompt, choice) for all choices of all questions, each with as many examples as the context holds.

    Examples go from the front. What does not fit with none is cut on the left when it is scored.
    """
    fitting, n_shots = Fitting(), min(n_shots, len(subject.shots))
    found: dict[int, list[Pair]] = {}
    left = list(range(len(subject.questions)))
    for count in range(n_shots, -1, -1):
        shots = subject.shots[n_shots - count : n_shots]
        asked = [subject.questions[n] for n in left]
        pairs = encode_pairs(
            tokenizer.backend,
            [prompt_of(subject, shots, question, form, wording) for question in asked],
            [continuations_of(question, form, wording) for question in asked],
        )
        too_long = []
        for number, choices in zip(left, pairs, strict=True):
            fits = all(len(context) + len(choice) - 1 <= block_size for context, choice in choices)
            if fits or count == 0:
                found[number] = choices
                fitting.dropped_shots += n_shots - count
                fitting.shortened += count < n_shots
                fitting.cut += not fits
            else:
                too_long.append(number)
        left = too_long
        if not left:
            break
    return [found[n] for n in range(len(subject.questions))], fitting
