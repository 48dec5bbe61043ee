"""Seconds of CMMLU, 0-shot letter form, random weights of the 44M shape: our scorer and lm-eval with HFLM, answers compared.

    python bench/exams.py --exam CMMLU_FOLDER --tokenizer FOLDER [--subjects 3] [--rounds 1] [--batch-size 8]

The tokenizer has at most 65,024 ids (ChatGLM's). HFLM reads the exported folder, offline, with the same task files
(`harness.write_tasks`: lm-eval's own prompt); it needs accelerate. Loading is not counted, tokenising is.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"

import torch  # noqa: E402
from common import median_of, reference_gflops, report  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exam", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--subjects", type=int, help="only the first so many")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8, help="of HFLM")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    import fangcun
    from fangcun.config import ModelConfig, resolve_model
    from fangcun.evaluation.exam_files import read_exam
    from fangcun.evaluation.exams import take_exam
    from fangcun.evaluation.harness import write_tasks
    from fangcun.model import Transformer, initialize, save_model
    from fangcun.tokenizer import import_tokenizer

    names = [s.name for s in read_exam("cmmlu", args.exam).subjects][: args.subjects]
    exam = read_exam("cmmlu", args.exam, names)
    shape = ModelConfig(family="mistral", block_size=512, n_layer=6, n_head=6, head_size=48, n_embd=512, intermediate_size=768, qk_norm=False)  # fmt: skip
    model = Transformer(resolve_model(shape, vocab_size=65024))
    initialize(model, 0)
    words = import_tokenizer(args.tokenizer).tokenizer
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_model(model, folder / "model", eos_id=words.eos_id)
        words.save(folder / "model")
        ours = fangcun.load(folder / "model", device="cpu")
        theirs = HFLM(pretrained=str(folder / "model"), device="cpu", dtype="float32", batch_size=args.batch_size)
        tasks = write_tasks(exam, folder / "tasks")
        manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
        records = []
        for _ in range(args.rounds):
            reference = reference_gflops()
            started = time.perf_counter()
            result = take_exam(ours, exam)
            middle = time.perf_counter()
            found = lm_eval.simple_evaluate(model=theirs, tasks=tasks, task_manager=manager, bootstrap_iters=0, log_samples=True)  # fmt: skip
            ended = time.perf_counter()
            assert found is not None
            chosen = []
            for task in tasks:
                for sample in sorted(found["samples"][task], key=lambda s: s["doc_id"]):
                    scores = [float(response[0][0]) for response in sample["resps"]]
                    chosen.append(max(range(len(scores)), key=scores.__getitem__))
            different = sum(a.chosen != other for a, other in zip(result.answers, chosen, strict=True))
            records.append(
                {"questions": exam.size, "subjects": len(names), "fangcun_seconds": round(middle - started, 2), "hflm_seconds": round(ended - middle, 2),
                 "times_faster": round((ended - middle) / (middle - started), 2), "different_answers": different, "ref_gflops": reference}
            )  # fmt: skip
            report(records[-1])
    keys = ("fangcun_seconds", "hflm_seconds", "times_faster")
    report({"median": {key: median_of(records, key) for key in keys}})


if __name__ == "__main__":
    main()
