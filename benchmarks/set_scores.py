"""How fast are all measures of a gene set benchmark, beside a loop over terms with scikit-learn?

    python benchmarks/set_scores.py                          # 5,000 terms x 5 splits, 15,000 genes
    python benchmarks/set_scores.py --terms 500 --few 100
    python benchmarks/set_scores.py --store                  # into results/benchmarks

Scores are random, so that no predictor's time is in it. scikit-learn's loop (AUROC and AP, question by
question) is timed on a few questions, ours on the same ones beside it; then ours on all of them, with the
bootstrap. Seconds are of the clock, the processor's own stand beside them. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from txfm_lite import results
from txfm_lite.evaluate import genesets as benchmark
from txfm_lite.evaluate import set_splits, set_statistics
from txfm_lite.genesets import GeneSets


def library(terms: int, genes: int, seed: int = 0) -> GeneSets:
    """Draw terms of 10 to 60 genes."""
    rng = np.random.default_rng(seed)
    names = np.array([f"G{i:05}" for i in range(genes)])
    lists = [names[rng.choice(genes, rng.integers(10, 61), replace=False)] for _ in range(terms)]
    return GeneSets.from_lists(lists, library="simulated")


def random_scores(visible) -> np.ndarray:
    """Return scores that cost next to nothing: a row of a table for each question."""
    return np.take(TABLE, np.arange(visible.shape[0]) % len(TABLE), axis=0)[:, : visible.shape[1]]


def plain_loop(questions: set_splits.Questions, scores: np.ndarray) -> np.ndarray:
    """Return AUROC and AP of every question as one would write it at first."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = []
    for i in range(len(questions)):
        left = questions.visible[i].toarray()[0] == 0
        truth = questions.hidden[i].toarray()[0][left] > 0
        found.append([f(truth, scores[i, left]) for f in (roc_auc_score, average_precision_score)])
    return np.array(found)


def timed(call: Callable[[], object]) -> tuple[float, float, object]:
    """Seconds of the clock, of the processor, and what came out."""
    clock, processor = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - clock, time.process_time() - processor, found


TABLE = np.random.default_rng(0).random((64, 20_000), dtype=np.float32)


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--terms", type=int, default=5_000)
    parser.add_argument("--genes", type=int, default=15_000)
    parser.add_argument("--few", type=int, default=256, help="questions for scikit-learn")
    parser.add_argument("--store", action="store_true", help="write into the repository's results")
    args = parser.parse_args()
    sets = library(args.terms, args.genes)
    clock, processor, asked = timed(lambda: set_splits.splits(sets))
    rows = [
        {
            "part": "splits",
            "implementation": "txfm_lite",
            "questions": len(asked),
            "clock": clock,
            "cpu": processor,
        }
    ]
    some = asked.over(sets.genes)
    few = slice(0, args.few)
    scores = random_scores(some.visible[few])
    candidates = some.visible[few].toarray() == 0
    subset = replace(some, term=some.term[few], visible=some.visible[few], hidden=some.hidden[few])
    ours = timed(lambda: set_statistics.rank_measures(scores, subset.hidden, candidates))
    theirs = timed(lambda: plain_loop(subset, scores))
    for name, (clock, processor, _) in {"txfm_lite, six measures": ours, "scikit-learn, two": theirs}.items():
        rows.append(
            {
                "part": "measures",
                "implementation": name,
                "questions": args.few,
                "clock": clock,
                "cpu": processor,
            }
        )
    counts = np.bincount(sets.indices, minlength=len(sets.genes))
    for part, popularity in (("all", None), ("all, with popularity", counts)):
        clock, processor, _ = timed(
            lambda p=popularity: benchmark.evaluate(random_scores, asked, sets.genes, p)
        )
        rows.append(
            {
                "part": part,
                "implementation": "txfm_lite",
                "questions": len(asked),
                "clock": clock,
                "cpu": processor,
            }
        )
    ratio = theirs[1] / ours[1]
    difference = float(np.abs(theirs[2] - ours[2][:, :2]).max())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rows = [{**row, "clock": round(row["clock"], 2), "cpu": round(row["cpu"], 2)} for row in rows]
    facts = {
        "times_as_fast": round(ratio, 1), "largest_difference": difference, "peak_gb": round(peak, 2),
        "genes": args.genes, "terms": args.terms, "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    print(json.dumps({"rows": rows, **facts}, indent=1))
    if args.store:
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        results.write("benchmarks/set-scores", rows, results.provenance(blas_threads=threads, **facts))


if __name__ == "__main__":
    main()
