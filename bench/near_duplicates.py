"""Near-duplicate search on real documents with planted copies: recall, false drops, MB/s, peak memory; peers beside us.

python bench/near_duplicates.py FILE... [--copies 0.2] [--rounds 3] [--peer-python PY-WITH-GAOYA-AND-RENSA]
    [--speed-only] [--pair A.txt B.txt]

The truth is the exact Jaccard similarity of the folded character 5-grams of all pairs, planted or not. Recall: of the
pairs at 0.8 or more, the share of which at most one document is kept. False drop: a document dropped although none has a
similarity of 0.7 or more with it. Peers get the folded text, so that all search among the same 5-grams.
"""

from __future__ import annotations

import argparse
import inspect
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from common import median_of, report

from fangcun.config import CorpusConfig
from fangcun.corpus.dedup import Duplicates, Folding, sketch
from fangcun.corpus.dedup.sketches import shingle_hashes
from fangcun.corpus.documents import document_id, split_text
from fangcun.corpus.process import read_documents
from fangcun.corpus.report import ReadReport
from fangcun.processes import ordered_map

BATCH_CHARACTERS = 1 << 19
SEARCHED, TRUE = 0.7, 0.8


def peak_mib() -> int:
    """Largest resident memory of this program alone (Linux): ru_maxrss begins with what the parent process had."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))


def originals(files: list[str]) -> Iterator[str]:
    """The documents of the files; long ones cut into pieces of about 2000 characters."""
    for document in read_documents(CorpusConfig(paths=files, max_broken_share=0.5), ReadReport()):
        text = document.text
        for start in range(0, len(text), 2000 if len(text) > 5000 else len(text)):
            yield text[start : start + 2000] if len(text) > 5000 else text


def edited(draw: random.Random, text: str, pool: str, traditional) -> str:
    """A copy: 5 to 30 % of the characters replaced, put in or taken out in runs, other marks, perhaps traditional."""
    letters, left = list(text), draw.uniform(0.05, 0.3) * len(text)
    while left > 0:
        run, at = min(draw.randint(1, 60), int(left) + 1), draw.randrange(len(letters))
        source = draw.randrange(max(1, len(pool) - run))
        new = pool[source : source + run]
        how = draw.choice(["replace", "insert", "delete"])
        letters[at : at if how == "insert" else at + run] = [] if how == "delete" else new
        if not letters:
            letters = list(new)
        left -= run
    copy = "".join(letters)
    if draw.random() < 0.5:
        copy = copy.translate(str.maketrans("，。！？", ",.!?"))
    if draw.random() < 0.3:
        copy = traditional(copy)
    return copy.replace("。", "。\n") if draw.random() < 0.3 else copy


def make_corpus(files: list[str], share: float, out: Path) -> tuple[int, int, int]:
    """Write the corpus as JSON lines; returns documents, planted ones and UTF-8 bytes."""
    import opencc

    draw = random.Random(0)
    texts = [text for text in originals(files) if text.strip()]
    pool, traditional = "".join(draw.sample(texts, min(len(texts), 500))), opencc.OpenCC("s2t").convert
    copies = [edited(draw, text, pool, traditional) for text in draw.choices(texts, k=int(len(texts) * share))]
    everything = [*texts, *copies]
    draw.shuffle(everything)
    with open(out, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in everything)
    return len(everything), len(copies), sum(len(text.encode()) for text in everything)


def read(path: Path) -> Iterator[str]:
    """The texts of a corpus made here."""
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def true_pairs(texts: Iterable[str], folding: Folding) -> tuple[np.ndarray, np.ndarray]:
    """All pairs with a similarity of SEARCHED or more, and the similarities.

    Two such sets share one of their rarest 30 % of elements (prefix filter), which finds all of them.
    """
    sets = [np.unique(shingle_hashes(folding.fold_one(text)[0])) for text in texts]
    values, counts = np.unique(np.concatenate(sets), return_counts=True)
    tokens, owners = [], []
    for number, one in enumerate(sets):
        frequency = counts[np.searchsorted(values, one)]
        prefix = one[np.lexsort((one, frequency))][: len(one) - int(np.ceil(SEARCHED * len(one))) + 1]
        tokens.append(prefix)
        owners.append(np.full(len(prefix), number))
    token, owner = np.concatenate(tokens), np.concatenate(owners)
    order = np.argsort(token, kind="stable")
    token, owner = token[order], owner[order]
    candidates: set[tuple[int, int]] = set()
    starts = np.flatnonzero(np.diff(token, prepend=token[0] ^ np.uint64(1)))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(token)], strict=True):
        if end - start > 1:
            members = owner[start:end].tolist()
            candidates.update((a, b) for i, b in enumerate(members) for a in members[:i])
    pairs, similarities = [], []
    for a, b in sorted(candidates):
        small, large = sorted((len(sets[a]), len(sets[b])))
        if small < SEARCHED * large:
            continue
        shared = len(np.intersect1d(sets[a], sets[b], assume_unique=True))
        if (similarity := shared / (small + large - shared)) >= SEARCHED:
            pairs.append((a, b))
            similarities.append(similarity)
    return np.array(pairs).reshape(-1, 2), np.array(similarities)


def score(pairs: np.ndarray, similarities: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    """Recall and false drops of a choice of kept documents."""
    true = pairs[similarities >= TRUE]
    known = np.zeros(len(kept), bool)
    known[pairs.reshape(-1)] = True
    false = int((~kept & ~known).sum())
    return {
        "true_pairs": len(true),
        "recall": round(float(1 - (kept[true[:, 0]] & kept[true[:, 1]]).mean()), 4),
        "dropped": int((~kept).sum()),
        "false_drops": false,
        "false_drop_share": round(false / max(1, int((~kept).sum())), 4),
    }


_folding: Folding | None = None


def prepare(traditional: bool) -> None:
    """Set up a worker."""
    global _folding
    _folding = Folding(traditional=traditional)


def work(texts: list[str]):
    """A batch in a worker."""
    assert _folding is not None
    return sketch(texts, _folding), [document_id(text) for text in texts]


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in batches of half a million characters."""
    batch, characters = [], 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(batch) >= 2000:
            yield batch
            batch, characters = [], 0
    yield batch


def ours(corpus: Path, workers: int) -> tuple[dict[str, float], np.ndarray]:
    """Seconds of sketching (reading the file and ids among them) and of the search."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(True)
        before = peak_mib()
        started = time.perf_counter()
        with Duplicates(Path(folder)) as duplicates:
            made = map(work, batches(read(corpus))) if workers == 1 else ordered_map(work, batches(read(corpus)), workers, prepare, (True,))  # fmt: skip
            for sketches, ids in made:
                duplicates.add(sketches, ids)
            sketched = time.perf_counter()
            copies = duplicates.find()
            ended = time.perf_counter()
    seconds = {"sketch_s": round(sketched - started, 3), "find_s": round(ended - sketched, 3), "seconds": round(ended - started, 3)}  # fmt: skip
    return seconds | {"mib_before": before, "peak_mib": peak_mib()}, copies.copy_of < 0


PEER = r"""
import json, sys, time
peer, path = sys.argv[1:]
texts = [json.loads(line) for line in open(path, encoding="utf-8")]
before = peak_mib()
start = time.perf_counter()
order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
if peer == "gaoya":
    import gaoya
    index = gaoya.minhash.MinHashStringIndex(hash_size=32, jaccard_threshold=0.75, num_bands=25, band_size=5, analyzer="char", ngram_range=(5, 5))
    index.par_bulk_insert_docs(list(range(len(texts))), texts)
    found = index.par_bulk_query(texts)
else:
    import rensa
    sets = [list({t[i:i + 5] for i in range(len(t) - 4)}) for t in texts]
    hashes = rensa.RMinHash.from_token_sets(sets, 125, 42)
    index = rensa.RMinHashLSH(0.75, 125, 25)
    for number, one in enumerate(hashes):
        index.insert(number, one)
    found = [[o for o in index.query(h) if h.jaccard(hashes[o]) >= 0.75] for h in hashes]
kept = [True] * len(texts)
for n in order:
    if kept[n]:
        for o in found[n]:
            if o != n:
                kept[o] = False
seconds = time.perf_counter() - start
print(json.dumps({"seconds": round(seconds, 3), "mib_before": before, "peak_mib": peak_mib(), "kept": kept}))
"""


def alone(corpus: Path, workers: int) -> tuple[dict[str, float], np.ndarray]:
    """`ours` in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--one", str(corpus), "--workers", str(workers)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found, np.array(found.pop("kept"))


def peers(python: str, peer: str, folded: Path) -> tuple[dict[str, float], np.ndarray] | None:
    """A peer in its own Python; None where it is not installed."""
    if subprocess.run([python, "-c", f"import {peer}"], capture_output=True, check=False).returncode:
        return None
    done = subprocess.run(
        [python, "-c", inspect.getsource(peak_mib) + PEER, peer, str(folded)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{peer} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    return found, np.array(found.pop("kept"))


def compare_pair(one: str, other: str) -> None:
    """Two copies of a book: whole, and chapter by chapter."""
    folding = Folding(traditional=True)
    texts = [Path(path).read_text(encoding="utf-8") for path in (one, other)]
    chapters = [[text for _, text in split_text([text], "chapter", None, None)] for text in texts]
    for name, documents in (("whole", texts), ("chapters", [*chapters[0], *chapters[1]])):
        with tempfile.TemporaryDirectory() as folder, Duplicates(Path(folder)) as duplicates:
            started = time.perf_counter()
            duplicates.add(sketch(documents, folding), [document_id(text) for text in documents])
            copies = duplicates.find()
            seconds = time.perf_counter() - started
        gone = copies.copy_of >= 0
        report({"pair": name, "documents": len(documents), "chapters": list(map(len, chapters)), "dropped": int(gone.sum()), "least_similarity": round(float(copies.similarity[gone].min(initial=1)), 3), "seconds": round(seconds, 3)})  # fmt: skip


def main() -> None:
    """Make the corpus, find the truth, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--copies", type=float, default=0.2, help="planted copies, as a share of the originals")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peer-python")
    parser.add_argument("--pair", nargs=2)
    parser.add_argument(
        "--speed-only", action="store_true", help="leave out the truth, which takes minutes beyond 50 MB"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        seconds, kept = ours(Path(options.one), options.workers)
        report(seconds | {"kept": kept.tolist()})
        return
    if options.pair:
        compare_pair(*options.pair)
    if not options.files:
        return
    with tempfile.TemporaryDirectory() as folder:
        corpus, folded = Path(folder) / "corpus.jsonl", Path(folder) / "folded.jsonl"
        documents, planted, size_bytes = make_corpus(options.files, options.copies, corpus)
        report({"documents": documents, "planted": planted, "megabytes": round(size_bytes / 1e6, 2)})
        folding = Folding(traditional=True)
        with open(folded, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(folding.folded_text(text), ensure_ascii=False) + "\n" for text in read(corpus))
        truth = None if options.speed_only else true_pairs(read(corpus), folding)
        programs = {f"fangcun workers {workers}": lambda w=workers: alone(corpus, w) for workers in sorted({1, options.workers})}  # fmt: skip
        for peer in ("gaoya", "rensa") if options.peer_python else ():
            programs[peer] = lambda p=peer: peers(options.peer_python, p, folded)
        records: dict[str, list[dict]] = {}
        for _ in range(options.rounds):
            for name, program in programs.items():
                if (found := program()) is None:
                    continue
                record = found[0] | {"mb_per_s": round(size_bytes / 1e6 / found[0]["seconds"], 2)}
                report({"program": name} | record | (score(*truth, found[1]) if truth else {}))
                records.setdefault(name, []).append(record)
        for name, of in records.items():
            report({"median": name, "mb_per_s": median_of(of, "mb_per_s"), "peak_mib": median_of(of, "peak_mib")})


if __name__ == "__main__":
    main()
