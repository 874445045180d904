"""How fast are the cell-type scores beside the reference implementations?  Ratios in one run, one thread.

    python benchmarks/evaluate.py                          # 5,000 cells x 64 dimensions
    python benchmarks/evaluate.py --cells 100000 --ours    # time and memory of ours alone
    python benchmarks/evaluate.py --store                  # into results/benchmarks

Cells come from random groups, so that clusters and silhouettes have something to find. Each contender runs
once to compile and import, then in turns with its rivals; the least processor time of the rounds counts, so
that other work on the machine matters little. Ours does more in that time: silhouettes with their nulls and
both readings of label/batch, iLISI with the permuted batches. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
import pandas as pd

from txfm_lite import results
from txfm_lite.evaluate import cells, mixing, probes, silhouettes

Contenders = dict[str, Callable[[], object]]


def simulated(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of ten cell types in six batches, with an effect of both."""
    rng = np.random.default_rng(seed)
    label, batch = rng.integers(10, size=n), rng.integers(6, size=n)
    x = rng.normal(size=(10, d))[label] + 0.3 * rng.normal(size=(6, d))[batch] + rng.normal(size=(n, d))
    return x.astype(np.float32), np.char.add("t", label.astype(str)), np.char.add("b", batch.astype(str))


def contenders(x: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> dict[str, Contenders]:
    """What is compared: question -> implementation -> call; ours is first."""
    import anndata
    import scanpy as sc
    import scib_metrics
    from harmonypy import compute_lisi
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import KNeighborsClassifier

    codes = pd.factorize(batches)[0]

    def scanpy_leiden() -> None:
        adata = anndata.AnnData(x)
        sc.pp.neighbors(adata, use_rep="X")
        for resolution in cells.RESOLUTIONS:
            sc.tl.leiden(adata, resolution, flavor="igraph", n_iterations=2, directed=False)

    def cosine_knn() -> None:
        for batch in np.unique(batches):
            here = batches == batch
            classifier = KNeighborsClassifier(15, metric="cosine").fit(x[~here], labels[~here])
            classifier.predict(x[here])

    def scib_silhouettes() -> None:
        scib_metrics.silhouette_label(x, labels)
        scib_metrics.silhouette_batch(x, labels, batches)

    return {
        "silhouettes": {
            "txfm_lite": lambda: silhouettes.evaluate(x, labels, batches),
            "scib-metrics": scib_silhouettes,
            "scikit-learn, labels only": lambda: silhouette_score(x, labels),
        },
        "iLISI": {
            "txfm_lite": lambda: mixing.ilisi(x, batches),
            "harmonypy": lambda: compute_lisi(x, pd.DataFrame({"batch": batches}), ["batch"]),
        },
        "Leiden at ten resolutions": {
            "txfm_lite, and Louvain": lambda: cells.clusters(mixing.neighbours(x, 15), labels),
            "scanpy": scanpy_leiden,
        },
        "kNN across batches": {
            "txfm_lite": lambda: cells.knn(x, labels, batches),
            "scikit-learn, cosine": cosine_knn,
        },
        "PCR": {
            "txfm_lite": lambda: mixing.pcr(x, batches),
            "scib-metrics": lambda: scib_metrics.utils.principal_component_regression(x, codes, True),
        },
    }


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds of a call, all threads together."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(given: tuple, rounds: int) -> list[dict]:
    """Time everything in turns."""
    rows = []
    for question, rivals in contenders(*given).items():
        for call in rivals.values():
            call()
        best = {name: min(seconds(call) for _ in range(rounds)) for name, call in rivals.items()}
        ours = next(iter(best.values()))
        for name, s in best.items():
            timed = {"cpu_s": round(s, 3), "times_ours": round(s / ours, 2)}
            rows.append({"question": question, "implementation": name, **timed})
    return rows


def ours(x: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> list[dict]:
    """Time the parts of cells.evaluate one after the other, with the peak of memory so far."""
    nearest = []
    parts: Contenders = {
        "neighbours": lambda: nearest.append(mixing.neighbours(x)),
        "clusters": lambda: cells.clusters(nearest[0], labels),
        "silhouettes": lambda: silhouettes.evaluate(x, labels, batches),
        "mixing": lambda: mixing.evaluate(x, labels, batches, nearest=nearest[0]),
        "kNN": lambda: cells.knn(x, labels, batches),
        "probes": lambda: probes.evaluate(x, labels, batches),
    }
    rows = []
    for name, call in parts.items():
        spent = seconds(call)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rows.append({"part": name, "cpu_s": round(spent, 1), "peak_gb": round(peak, 2)})
    return rows


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--cells", type=int, default=5_000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help="only ours, with the peak of memory")
    parser.add_argument("--store", action="store_true", help="write into the repository's results")
    args = parser.parse_args()
    given = simulated(args.cells, args.dimensions)
    rows = ours(*given) if args.ours else compare(given, args.rounds)
    print(json.dumps(rows, indent=1))
    if args.store:
        facts = results.provenance(cells=args.cells, dimensions=args.dimensions, load=os.getloadavg()[0])
        results.write(f"benchmarks/evaluate-{'ours' if args.ours else 'ratios'}-{args.cells}", rows, facts)


if __name__ == "__main__":
    main()
