"""Exams: files as the authors lay them out, prompts to the letter, few-shot as far as it fits, figures with intervals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from small_models import language_model, make_model

from fangcun.errors import ConfigError, FangcunError
from fangcun.evaluation.exam_files import CMMLU_SUBJECTS, Exam, Question, Subject, read_exam
from fangcun.evaluation.exam_prompts import WORDINGS, encode_subject, prompt_of
from fangcun.evaluation.exams import take_exam, write_predictions
from fangcun.evaluation.intervals import Accuracy, wilson
from fangcun.evaluation.predictions import read_predictions, score_predictions
from fangcun.generation import LanguageModel

ROWS = [
    ["甲乙丙丁？ ", "一", "二", "三", "四", "C"],
    ["2+2=", "3", "4", "5", "6", "B"],
    ["天，“地”", "玄", "黄", "宇", "宙", "A"],
]


def write_csv(file: Path, header: list[str], rows: list[list[str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([header, *([str(n), *row] for n, row in enumerate(rows))])


@pytest.fixture
def cmmlu(tmp_path: Path) -> Path:
    header = ["", "Question", "A", "B", "C", "D", "Answer"]
    for split, rows in (("test", ROWS), ("dev", ROWS[::-1])):
        for subject in ("agronomy", "virology"):
            write_csv(tmp_path / "cmmlu" / split / f"{subject}.csv", header, rows)
    return tmp_path / "cmmlu"


@pytest.fixture
def ceval(tmp_path: Path) -> Path:
    header = ["id", "question", "A", "B", "C", "D", "answer"]
    write_csv(tmp_path / "ceval" / "val" / "law_val.csv", header, ROWS)
    explained = [[*row, "因为"] for row in ROWS]
    write_csv(tmp_path / "ceval" / "dev" / "law_dev.csv", [*header, "explanation"], explained)
    mapping = {"law": ["Law", "法学", "Humanities"]}
    (tmp_path / "ceval" / "subject_mapping.json").write_text(json.dumps(mapping), encoding="utf-8")
    return tmp_path / "ceval"


def test_cmmlu_is_read_as_its_authors_lay_it_out(cmmlu: Path) -> None:
    exam = read_exam("cmmlu", cmmlu)
    assert [s.name for s in exam.subjects] == ["agronomy", "virology"]
    assert (exam.subjects[1].title, exam.subjects[1].categories) == ("病毒学", ("STEM",))
    assert exam.subjects[0].questions[1] == Question("1", "2+2=", ("3", "4", "5", "6"), 1)
    assert exam.subjects[0].shots[0].text == "天，“地”"
    assert len(CMMLU_SUBJECTS) == 67
    assert len(read_exam("cmmlu", cmmlu, ["virology"]).subjects) == 1


def test_the_prompts_are_those_of_lm_eval_and_of_the_authors(cmmlu: Path, ceval: Path) -> None:
    subject = read_exam("cmmlu", cmmlu).subjects[0]
    header = "以下是关于农学的单项选择题，请直接给出正确答案的选项。\n\n"
    choices = "\nA. 一\nB. 二\nC. 三\nD. 四"
    prompt = prompt_of(subject, subject.shots[:1], subject.questions[0], "letter", WORDINGS["cmmlu", "lm-eval"])
    assert prompt == f"{header}天，“地”\nA. 玄\nB. 黄\nC. 宇\nD. 宙\n答案： A\n\n甲乙丙丁？{choices}\n答案："
    prompt = prompt_of(subject, subject.shots[:1], subject.questions[0], "letter", WORDINGS["cmmlu", "authors"])
    assert (
        prompt
        == f"{header}题目：天，“地”\nA. 玄\nB. 黄\nC. 宇\nD. 宙\n答案是：A\n\n题目：甲乙丙丁？{choices}\n答案是："
    )
    law = read_exam("ceval", ceval).subjects[0]
    prompt = prompt_of(law, [], law.questions[0], "letter", WORDINGS["ceval", "lm-eval"])
    assert prompt == f"以下是中国关于法学的单项选择题，请选出其中的正确答案。\n\n甲乙丙丁？{choices}\n答案："
    prompt = prompt_of(law, [], law.questions[0], "letter", WORDINGS["ceval", "authors"])
    assert prompt.startswith("以下是中国关于法学考试的单项选择题")
    assert prompt_of(law, [], law.questions[0], "cloze", WORDINGS["ceval", "lm-eval"]).endswith(
        "\n\n甲乙丙丁？\n答案："
    )


def test_json_lines_take_letters_numbers_and_texts_as_answers(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    records = [
        {"question": "a", "choices": ["x", "y"], "answer": "B"},
        {"question": "b", "A": "x", "B": "y", "C": "z", "answer": 2, "subject": "other", "id": "q7"},
        {"question": "c", "choices": ["x", "yy"], "answer": "yy"},
    ]
    file.write_text("\n".join(json.dumps(r) for r in records) + "\n", encoding="utf-8")
    mine, other = read_exam("jsonl", file).subjects
    assert (mine.name, [q.answer for q in mine.questions]) == ("mine", [1, 1])
    assert other.questions == (Question("q7", "b", ("x", "y", "z"), 2),)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question": "a", "choices": ["x", "y"], "answer": "C"}', "the answer is 'C', expected one of A, B"),
        ('{"question": "a", "choices": ["x"], "answer": "A"}', "2 to 10 choices"),
        ('{"choices": ["x", "y"], "answer": "A"}', "mine.jsonl:1: KeyError"),
        ("nonsense", "mine.jsonl:1"),
        ("", "no question with an answer"),
    ],
)
def test_broken_questions_are_named(line: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(FangcunError, match=words):
        read_exam("jsonl", file)


def test_what_is_no_exam_says_where_it_can_be_had(tmp_path: Path, cmmlu: Path) -> None:
    with pytest.raises(FangcunError, match=r"not fetched by themselves.*fangcun download"):
        read_exam("cmmlu", tmp_path / "nowhere")
    with pytest.raises(FangcunError, match=r"expected val/\*_val.csv"):
        read_exam("ceval", cmmlu)
    with pytest.raises(ConfigError, match="Did you mean 'cmmlu'"):
        read_exam("cmlu", cmmlu)
    with pytest.raises(ConfigError, match="Did you mean 'agronomy'"):
        read_exam("cmmlu", cmmlu, ["agronmy"])
    (cmmlu / "test" / "agronomy.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(FangcunError, match="no column Question"):
        read_exam("cmmlu", cmmlu)
    with pytest.raises(ConfigError, match="has no examples"):
        take_exam(
            language_model(),
            Exam("jsonl", "x", (Subject("s", None, (), (Question("0", "q", ("a", "b"), 0),)),)),
            n_shots=1,
        )


@pytest.mark.parametrize("form", ["letter", "cloze"])
@pytest.mark.parametrize("n_shots", [0, 2])
def test_sharing_changes_no_answer(form: str, n_shots: int, cmmlu: Path) -> None:
    lm, exam = language_model(block_size=512), read_exam("cmmlu", cmmlu)
    shared = take_exam(lm, exam, form=form, n_shots=n_shots)  # type: ignore[arg-type]
    plain = take_exam(lm, exam, form=form, n_shots=n_shots, share=False)  # type: ignore[arg-type]
    for one, other in zip(shared.answers, plain.answers, strict=True):
        assert (one.chosen, one.chosen_by_bytes) == (other.chosen, other.chosen_by_bytes)
        gaps = [a - b for a, b in zip(one.scores, other.scores, strict=True)]
        assert gaps == pytest.approx([gaps[0]] * 4, abs=1e-4)


def test_examples_that_do_not_fit_are_dropped_from_the_front_and_counted(cmmlu: Path) -> None:
    lm, exam = language_model(block_size=250), read_exam("cmmlu", cmmlu, ["agronomy"])
    subject, wording = exam.subjects[0], WORDINGS["cmmlu", "lm-eval"]
    pairs, fitting = encode_subject(lm.tokenizer, subject, form="letter", wording=wording, n_shots=3, block_size=250)
    for question, choices in zip(subject.questions, pairs, strict=True):
        read = lm.tokenizer.decode(choices[0][0])
        fits = [prompt_of(subject, subject.shots[k:3], question, "letter", wording) for k in range(4)]
        assert read == next(p for p in fits if len(p.encode()) + 1 <= 250)
    assert (fitting.shortened, fitting.cut) == (3, 0)
    assert fitting.dropped_shots >= 3
    _, tight = encode_subject(lm.tokenizer, subject, form="letter", wording=wording, n_shots=1, block_size=32)
    assert (tight.shortened, tight.dropped_shots, tight.cut) == (3, 3, 3)
    assert len(take_exam(language_model(), exam, n_shots=3).answers) == 3  # 32 tokens: cut on the left


def test_a_result_tells_subjects_categories_and_how_it_was_asked(cmmlu: Path, tmp_path: Path) -> None:
    result = take_exam(language_model(block_size=512), read_exam("cmmlu", cmmlu), form="cloze")
    record = json.loads(json.dumps(result.record()))
    assert record["protocol"] == "fangcun-exam-1"
    assert set(record["raw"]["categories"]) == {"Other", "STEM"}
    assert record["by_bytes"]["subjects"]["virology"]["questions"] == 3
    assert record["raw"]["macro_accuracy"] == pytest.approx(result.macro())
    assert record["example"].startswith("以下是关于农学的")
    right = sum(a.chosen == a.right for a in result.answers)
    assert result.accuracy().correct == right
    write_predictions(result, tmp_path / "p.csv")
    assert read_predictions(tmp_path / "p.csv").total == Accuracy(right, 6, 0.25)


def test_known_values_of_the_wilson_interval() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for correct, total, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(correct, total) == pytest.approx((low, high), abs=6e-5)
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 correct among 4"):
        wilson(5, 4)


@pytest.mark.parametrize(
    ("correct", "verdict"),
    [(25, "not above chance"), (33, "not above chance"), (35, "above chance"), (10, "below chance")],
)
def test_chance_is_told_in_words(correct: int, verdict: str) -> None:
    assert Accuracy(correct, 100, 0.25).verdict == verdict


def test_predictions_without_a_letter_are_wrong_answers(tmp_path: Path) -> None:
    score = score_predictions([("a", "0", "A", "A"), ("a", "1", "UNKNOWN", "B"), ("b", "0", " c", "C")])
    assert (score.total.correct, score.total.total, score.macro) == (2, 3, 0.75)
    (tmp_path / "x.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(FangcunError, match="no column subject"):
        read_predictions(tmp_path / "x.csv")


@pytest.mark.parametrize(("model", "correct", "published"), [("gpt-4o", 489, 0.7407), ("llama3.1-8b", 336, 0.4829)])
def test_accuracies_of_stored_predictions(model: str, correct: int, published: float, shared_data: Path) -> None:
    """The files hold 26 of the 52 subjects; the reports' own figures are over all 52, and lie in the interval."""
    score = read_predictions(shared_data / "eval" / "ceval_val_zhtw" / f"predictions_{model}.csv")
    assert (score.total.correct, score.total.total, len(score.subjects)) == (correct, 688, 26)
    low, high = score.total.interval
    assert low <= published <= high


def test_random_weights_are_not_above_chance(shared_data: Path) -> None:
    """On all of CMMLU that is there, in letter form. In cloze form chance is no 25 %: right answers are longer ones."""
    from fangcun.tokenizer import import_tokenizer

    tokenizer = import_tokenizer(shared_data / "tokenizers" / "chatglm").tokenizer
    model = make_model(vocab_size=tokenizer.vocab_size, block_size=512, n_layer=2, n_embd=32)
    exam = read_exam("cmmlu", shared_data / "eval" / "cmmlu")
    accuracy = take_exam(LanguageModel(model, tokenizer), exam).accuracy()
    assert (len(exam.subjects), accuracy.total) == (34, exam.size)
    assert exam.size == 5664
    low, high = accuracy.interval
    assert low <= 0.25 <= high
    assert accuracy.verdict == "not above chance"
