"""lm-eval on our model object: the answers of our own scorer, and of lm-eval's own HFLM on the exported folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_models import byte_tokenizer, language_model, log_probabilities, make_model

pytest.importorskip("lm_eval")

from fangcun.evaluation.exam_files import Exam, Question, Subject, read_exam
from fangcun.evaluation.exams import take_exam
from fangcun.evaluation.harness import FangcunLM, run_tasks, write_tasks
from fangcun.generation import LanguageModel
from fangcun.model import save_model


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=each) for each in arguments]


def small_exam() -> Exam:
    questions = tuple(
        Question(str(n), f"第{n}题：{'甲乙丙丁戊'[n % 5]}？ ", (f"{n}", "2024-01-01", " 0.50", "天地"), n % 4)
        for n in range(8)
    )
    return Exam("cmmlu", "x", (Subject("agronomy", "农学", (), questions, questions[:2]), Subject("virology", "病毒学", (), questions[3:], questions[:2])))  # fmt: skip


def scores_of(found: dict, exam: Exam, names: list[str]) -> list[list[float]]:
    rows = []
    for name in names:
        for sample in sorted(found["samples"][name], key=lambda s: s["doc_id"]):
            rows.append([float(response[0][0]) for response in sample["resps"]])
    assert len(rows) == exam.size
    return rows


def agree(found: list[list[float]], result) -> None:
    for row, answer in zip(found, result.answers, strict=True):
        assert max(range(len(row)), key=row.__getitem__) == answer.chosen
        gaps = [a - b for a, b in zip(row, answer.scores, strict=True)]
        assert gaps == pytest.approx([gaps[0]] * len(row), abs=1e-4)


@pytest.mark.parametrize("n_shots", [0, 2])
def test_lm_eval_gives_our_answers_to_every_question(
    n_shots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lm, exam = language_model(block_size=512), small_exam()
    names = write_tasks(exam, tmp_path / "tasks")
    found = run_tasks(lm, names, tmp_path / "tasks", num_fewshot=n_shots, log_samples=True)
    result = take_exam(lm, exam, n_shots=n_shots)
    agree(scores_of(found, exam, names), result)
    accuracies = [found["results"][name]["acc,none"] for name in names]
    assert accuracies == pytest.approx([a.accuracy for a in result.by_subject().values()])


def test_hflm_on_the_exported_folder_gives_our_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")  # HFLM wants it
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    words, model, exam = byte_tokenizer(), make_model(block_size=512), small_exam()
    save_model(model, tmp_path / "model", eos_id=words.eos_id)
    words.save(tmp_path / "model")
    names = write_tasks(exam, tmp_path / "tasks")
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    theirs = HFLM(pretrained=str(tmp_path / "model"), device="cpu", dtype="float32", batch_size=4)
    for n_shots in (0, 2):
        found = lm_eval.simple_evaluate(
            model=theirs, tasks=names, task_manager=manager, num_fewshot=n_shots, bootstrap_iters=0
        )
        agree(scores_of(found, exam, names), take_exam(LanguageModel(model, words), exam, n_shots=n_shots))
    asked = requests(("a", "b 汉"), ("", "abc"), ("x ", "A"), ("长" * 300, "短"))
    ours = FangcunLM(LanguageModel(model, words))
    for mine, other in zip(ours.loglikelihood(asked), theirs.loglikelihood(asked, disable_tqdm=True), strict=True):
        assert mine == (pytest.approx(other[0], abs=1e-3), other[1])
    texts = requests(("短",), ("长文。" * 200,))
    assert ours.loglikelihood_rolling(texts) == pytest.approx(
        theirs.loglikelihood_rolling(texts, disable_tqdm=True), rel=1e-5
    )
    asked = requests(
        ("却说", {"until": ["b"], "max_gen_toks": 12}), ("a", {"until": [], "max_gen_toks": 5, "do_sample": False})
    )
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)


def test_log_likelihoods_are_those_of_the_model_and_say_what_is_greedy() -> None:
    lm = language_model()
    a, b = (lm.tokenizer.encode(letter)[0] for letter in "ab")
    greedy = lm.tokenizer.decode([int(log_probabilities(lm.model, [a])[-1].argmax())])
    ours = FangcunLM(lm)
    (first, _), (alone, _) = ours.loglikelihood(requests(("a", "b"), ("", "a")))
    assert first == pytest.approx(float(log_probabilities(lm.model, [a])[-1, b]), abs=1e-5)
    assert alone == pytest.approx(float(log_probabilities(lm.model, [lm.tokenizer.eos_id])[-1, a]), abs=1e-5)
    if greedy.isascii() and greedy:
        assert [flag for _, flag in ours.loglikelihood(requests(("a", greedy), ("a", "汉")))] == [True, False]


@pytest.mark.slow
@pytest.mark.slow
def test_lm_eval_agrees_on_the_shared_cmmlu_subjects(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lm, exam = language_model(block_size=256), read_exam("cmmlu", shared_data / "eval" / "cmmlu")
    names = write_tasks(exam, tmp_path / "tasks")
    found = run_tasks(lm, names, tmp_path / "tasks", log_samples=True)
    agree(scores_of(found, exam, names), take_exam(lm, exam))


def test_without_lm_eval_one_sentence_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['lm_eval'] = None; sys.path.insert(0, '.')\n"
        "from fangcun.errors import FangcunError\n"
        "try:\n    import fangcun.evaluation.harness\n"
        "except FangcunError as error:\n    assert \"pip install 'fangcun[eval]'\" in str(error), error\n"
        "else:\n    raise SystemExit('imported')\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
