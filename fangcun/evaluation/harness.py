"""lm-eval's tasks on the model object that is loaded here, scored by the code that scores our own exams.

    import lm_eval, fangcun
    from fangcun.evaluation.harness import FangcunLM
    lm_eval.simple_evaluate(model=FangcunLM(fangcun.load("runs/mine")), tasks=[…])

Nothing is registered with lm-eval: the object is handed over. Needs the extra: pip install 'fangcun[eval]'.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fangcun.errors import ConfigError, FangcunError
from fangcun.evaluation.continuations import Pair, encode_pairs, score_continuations
from fangcun.evaluation.exam_files import LETTERS, Exam, Question
from fangcun.evaluation.exam_prompts import WORDINGS
from fangcun.evaluation.scoring import BATCH_TOKENS
from fangcun.evaluation.text import start_id
from fangcun.generation import LanguageModel

try:
    from lm_eval.api.model import LM
except ImportError as error:
    raise FangcunError("lm-eval is not installed. Install it with: pip install 'fangcun[eval]'") from error

MAX_NEW_TOKENS = 256
"""Where a task does not say; lm-eval's own default."""


class FangcunLM(LM):
    """A LanguageModel as lm-eval wants it."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """batch_tokens: of one forward pass. progress: called with the continuations scored, and their total."""
        super().__init__()
        self.language_model = model
        self.batch_tokens = batch_tokens
        self.progress = progress

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in caches of lm-eval."""
        return self.language_model.tokenizer.fingerprint

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy) of each (context, continuation)."""
        asked = [request.args for request in requests]
        backend, start = self.language_model.tokenizer.backend, start_id(self.language_model.tokenizer)
        by_context: dict[str, list[int]] = {}
        for number, (context, _) in enumerate(asked):
            by_context.setdefault(context, []).append(number)
        pairs: list[Pair] = [((), ())] * len(asked)
        members = list(by_context.items())
        encoded = encode_pairs(
            backend, [context for context, _ in members], [[asked[n][1] for n in numbers] for _, numbers in members]
        )
        for (_, numbers), own in zip(members, encoded, strict=True):
            for number, (context, continuation) in zip(numbers, own, strict=True):
                if not context and list(continuation[:1]) == [start]:
                    context, continuation = continuation[:1], continuation[1:]
                pairs[number] = (context or [start], continuation)
        scores = self._score(pairs)
        for request, score in zip(requests, scores, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, score)
        return scores

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows that do not overlap, each token predicted once."""
        model, start = self.language_model, start_id(self.language_model.tokenizer)
        block_size = model.config.block_size
        pairs: list[Pair] = []
        counts = []
        for (text,) in (request.args for request in requests):
            sequence = [start, *model.tokenizer.encode(text)]
            own = []
            for first in range(0, len(sequence) - 1, block_size):
                end = min(first + block_size, len(sequence) - 1)
                # The last window reaches back to be a whole one; what it repeats is context.
                begin = max(0, end - block_size)
                own.append((sequence[begin : first + 1], sequence[first + 1 : end + 1]))
            counts.append(len(own))
            pairs += own
        scores = iter(self._score(pairs))
        totals = [sum(next(scores)[0] for _ in range(count)) for count in counts]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to one of the stop strings of each request; greedy unless it says `do_sample`."""
        texts = []
        for number, request in enumerate(requests):
            context, given = request.args
            settings = dict(given)
            stop = settings.get("until") or ()
            stop = (stop,) if isinstance(stop, str) else tuple(text for text in stop if text)
            count = int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or MAX_NEW_TOKENS)
            sampled = bool(settings.get("do_sample")) and float(settings.get("temperature", 1.0)) > 0
            text = self.language_model.generate(
                self._cut(context, count),
                max_new_tokens=count,
                temperature=float(settings.get("temperature", 1.0)) if sampled else 0.0,
                top_k=int(settings["top_k"]) if sampled and settings.get("top_k") else None,
                top_p=float(settings.get("top_p", 1.0)) if sampled else 1.0,
                seed=number,
                stop=stop,
            )
            self.cache_hook.add_partial("generate_until", request.args, text)
            texts.append(text)
        return texts

    def _cut(self, context: str, new_tokens: int) -> str:
        """The end of a context that leaves room for what is to be written, as far as that is possible."""
        tokenizer, block_size = self.language_model.tokenizer, self.language_model.config.block_size
        ids = tokenizer.encode(context)
        room = max(block_size - new_tokens, block_size // 2)
        return context if len(ids) <= room else tokenizer.decode(ids[-room:], skip_special_tokens=False)

    def _score(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        finished = 0

        def count(done: int) -> None:
            nonlocal finished
            finished += done
            if self.progress is not None:
                self.progress(min(finished, len(pairs)), len(pairs))

        scores = score_continuations(
            self.language_model.model, pairs, greedy=True, batch_tokens=self.batch_tokens, done=count
        )
        return [(score.log_probability, score.greedy) for score in scores]


def write_tasks(exam: Exam, folder: str | Path, *, prefix: str = "") -> list[str]:
    """Write an exam as task files of lm-eval, in the letter form with lm-eval's own prompt; the tasks' names.

    So other programs take the same exam: questions and examples lie beside as JSON lines, nothing is fetched.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wording = WORDINGS[exam.kind, "lm-eval"]
    names = []
    for subject in exam.subjects:
        task: dict[str, Any] = {
            "task": f"{prefix}{exam.kind}_{subject.name}",
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": _write_questions(folder, f"{subject.name}_test", subject.questions)}
            },
            "test_split": "test",
            "output_type": "multiple_choice",
            "description": wording.header.format(title=subject.title) if subject.title else "",
            "doc_to_text": "{{question.strip()}}{{choices_text}}" + wording.answer,
            "doc_to_choice": "{{letters}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        if subject.shots:
            task["dataset_kwargs"]["data_files"]["dev"] = _write_questions(folder, f"{subject.name}_dev", subject.shots)
            task |= {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}}
        # JSON is YAML too.
        (folder / f"{task['task']}.yaml").write_text(json.dumps(task, ensure_ascii=False, indent=1), encoding="utf-8")
        names.append(task["task"])
    return names


def _write_questions(folder: Path, name: str, questions: Sequence[Question]) -> str:
    file = folder / f"{name}.jsonl"
    with open(file, "w", encoding="utf-8", newline="\n") as lines:
        for question in questions:
            listed = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, question.choices, strict=False))
            record = {
                "id": f"#{question.id}",
                "question": question.text,
                "choices_text": listed,
                "letters": list(LETTERS[: len(question.choices)]),
                "answer": question.answer,
            }
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
    return str(file.absolute())


def run_tasks(
    model: LanguageModel,
    tasks: Sequence[str],
    include_path: str | Path | None,
    *,
    limit: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """lm-eval's results for tasks by name, from a folder of task files; without one from lm-eval's own. Offline.

    options: of `lm_eval.simple_evaluate`. Raises ConfigError for tasks that are not there.
    """
    # The libraries below lm-eval ask the hub for every data set, also for those that are files.
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(name, "1")
    import lm_eval
    from lm_eval.tasks import TaskManager

    if include_path is not None and not Path(include_path).is_dir():
        raise ConfigError(f"--include-path: {include_path} is no folder. Expected one with task files (*.yaml).")
    manager = TaskManager(
        include_path=None if include_path is None else str(include_path), include_defaults=include_path is None
    )
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise ConfigError(f"--harness: there is no task {', '.join(unknown)} in {include_path or 'lm-eval itself'}.")
    found = lm_eval.simple_evaluate(
        model=FangcunLM(model),
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        **({"bootstrap_iters": 0} | options),  # type: ignore[arg-type]
    )
    assert found is not None, "only other ranks get nothing"
    return found
