"""How fast are all pairs of cells, beside scipy and pandas?  And 44,500 cells, which those cannot hold?

    python benchmarks/similarity.py                        # 8,000 cells x 2,435 genes; pandas on 4,000
    python benchmarks/similarity.py --cells 44500 --ours   # time and memory of ours alone
    python benchmarks/similarity.py --store                # into results/benchmarks

The counts are random, 65 % zeros, as highly variable genes of a tissue atlas have. Seconds are of the clock,
since scipy and pandas use one processor where ours uses all it may (OMP_NUM_THREADS); the processor's own
seconds stand beside them. pandas takes minutes at this size: it is timed on fewer cells, and so is ours
beside it. Rivals take turns, and the least of the rounds counts. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import spearmanr

from txfm_lite import pairs, results, similarity

PER_TYPE = 500
DENSITY = 0.35
SHAPES = 89  # types, each with its own genes


def simulated(n: int, g: int, seed: int = 0) -> sp.csr_matrix:
    """Counts of cells in types of 500; some rows at a time, so that memory's peak is not made here."""
    rng, pieces = np.random.default_rng(seed), []
    rates = np.log1p(rng.lognormal(-1.1, 1.2, size=(SHAPES, g))).astype(np.float32)
    for start in range(0, n, PER_TYPE):
        size = min(PER_TYPE, n - start)
        seen = rng.random((size, g), dtype=np.float32) < rates[start // PER_TYPE % SHAPES] * DENSITY / 0.36
        pieces.append(sp.csr_matrix(seen * rng.geometric(0.5, (size, g)).astype(np.float32)))
    return sp.vstack(pieces, format="csr")


def timed(call: Callable[[], object]) -> tuple[float, float, object]:
    """Seconds of the clock, of the processor, and what came out."""
    clock, processor = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - clock, time.process_time() - processor, found


def compare(x: sp.csr_matrix, few: int, rounds: int) -> list[dict]:
    """Time whole matrices in turns: ours and scipy on all cells, ours and pandas on a few."""
    rows = []
    for cells, name, rival in (
        (x.shape[0], "scipy.stats.spearmanr", lambda some: spearmanr(some.toarray(), axis=1)[0]),
        (few, "pandas.DataFrame.corr", lambda some: pd.DataFrame(some.T.toarray()).corr("spearman")),
    ):
        some = x[:cells]
        contenders = {"txfm_lite": similarity.spearman, name: rival}
        best, values = dict.fromkeys(contenders, (np.inf, np.inf)), {}
        for _ in range(rounds):
            for contender, call in contenders.items():
                clock, processor, values[contender] = timed(lambda call=call, some=some: call(some))
                best[contender] = min(best[contender], (clock, processor))
        for contender, (clock, processor) in best.items():
            rows.append({
                "cells": cells, "genes": x.shape[1], "implementation": contender, "seconds": round(clock, 3),
                "cpu_s": round(processor, 3), "times_ours": round(clock / best["txfm_lite"][0], 1),
                "cpu_times_ours": round(processor / best["txfm_lite"][1], 1),
                "largest_difference": float(
                    np.abs(np.asarray(values[contender]) - values["txfm_lite"]).max()
                ),
            })  # fmt: skip
    return rows


def ours(x: sp.csr_matrix, kinds: list[str]) -> list[dict]:
    """Time the passes over all pairs, one after the other, with the peak of memory so far."""
    labels = [f"t{i // PER_TYPE:03}" for i in range(x.shape[0])]
    measures, rows = {}, []

    def prepare(kind: type) -> None:
        measures.clear()  # one at a time
        measures["now"] = kind(x)

    for kind in (getattr(similarity, name) for name in kinds):
        for what, call in {
            "prepare": lambda kind=kind: prepare(kind),
            "medians within types": lambda: pairs.medians_within(measures["now"], labels),
            "medians and histograms of all pairs": lambda: pairs.summarise(measures["now"], labels),
        }.items():
            clock, processor, _ = timed(call)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            rows.append({
                "cells": x.shape[0], "genes": x.shape[1], "measure": kind.__name__, "part": what,
                "seconds": round(clock, 1), "cpu_s": round(processor, 1), "peak_gb": round(peak, 2),
            })  # fmt: skip
    return rows


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--cells", type=int, default=8_000)
    parser.add_argument("--genes", type=int, default=2_435)
    parser.add_argument("--few", type=int, default=4_000, help="cells for pandas")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ours", action="store_true", help="only ours, with the peak of memory")
    parser.add_argument(
        "--measures", nargs="+", default=["Spearman"], help="with --ours; also Euclid, Cosine"
    )
    parser.add_argument("--store", action="store_true", help="write into the repository's results")
    args = parser.parse_args()
    x = simulated(args.cells, args.genes)
    rows = ours(x, args.measures) if args.ours else compare(x, args.few, args.rounds)
    print(json.dumps(rows, indent=1))
    if args.store:
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        zeros = round(1 - x.nnz / np.prod(x.shape), 3)
        facts = results.provenance(blas_threads=threads, zeros=zeros, load=os.getloadavg()[0])
        results.write(f"benchmarks/similarity-{'ours' if args.ours else 'ratios'}-{args.cells}", rows, facts)


if __name__ == "__main__":
    main()
