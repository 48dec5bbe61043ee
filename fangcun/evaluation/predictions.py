"""Accuracies from a file of answers, whoever gave them: `subject,id,prediction,answer`."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fangcun.errors import FangcunError
from fangcun.evaluation.intervals import Accuracy

COLUMNS = ("subject", "id", "prediction", "answer")


@dataclass(frozen=True)
class PredictionScore:
    """Micro average, and each subject's own."""

    total: Accuracy
    subjects: dict[str, Accuracy]

    @property
    def macro(self) -> float:
        """Mean of the subjects' accuracies."""
        return sum(accuracy.accuracy for accuracy in self.subjects.values()) / len(self.subjects)


def score_predictions(records: Iterable[tuple[str, str, str, str]], *, n_choices: int = 4) -> PredictionScore:
    """From (subject, id, prediction, answer). A prediction that is no letter is a wrong answer. Raises FangcunError."""
    counts: dict[str, list[int]] = {}
    for subject, _, prediction, answer in records:
        own = counts.setdefault(subject, [0, 0])
        own[0] += prediction.strip().upper() == answer.strip().upper()
        own[1] += 1
    if not counts:
        raise FangcunError("There are no predictions to score.")
    right, asked = (sum(own[part] for own in counts.values()) for part in (0, 1))
    chance = 1 / n_choices
    return PredictionScore(
        Accuracy(right, asked, chance), {name: Accuracy(own[0], own[1], chance) for name, own in counts.items()}
    )


def read_predictions(file: str | Path) -> PredictionScore:
    """Score a CSV file. Raises FangcunError."""
    with open(file, encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise FangcunError(f"{file} has no column {', '.join(missing)}. Expected the header {','.join(COLUMNS)}.")
        return score_predictions([(r["subject"], r["id"], r["prediction"] or "", r["answer"] or "") for r in reader])
