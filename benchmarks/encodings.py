"""How fast do cells become tokens, against the published kind of loop?  All in one run.

    python benchmarks/encodings.py                            # 10,000 cells x 25,000 genes, a minute
    python benchmarks/encodings.py --cells 2000 --rounds 1    # seconds
    python benchmarks/encodings.py --device cuda              # the sorting on a GPU
    python benchmarks/encodings.py --store                    # into results/benchmarks

First the rank-value tokens alone, from counts in memory to tokens in memory: one cell at a time (normalise,
argsort, map), as Geneformer's tokeniser does it and without scipy's slices, which cost more than the sorting;
one lexsort over everything; and :func:`txfm_lite.encodings.descending`. Then every encoding as a whole, from
an AnnData: reading, checking, matching genes and normalising are in the figure. The rounds alternate, and
the best of each counts. Prints JSON; "ratio" is the speed over that of the loop, "ratio_of_cpu_time" the same
per second of a processor: what another program takes away on a busy machine is not in it, nor what a second
core adds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from txfm_lite import encodings, results

NNZ = 1_549  # mean non-zeros per cell, as in benchmarks/loader.py


def random_cells(cells: int, genes: int, seed: int = 0) -> sp.csr_matrix:
    """Return counts of which half are 1, as in cells of some thousand counts."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(NNZ // 2, NNZ * 3 // 2, cells)
    indices = np.concatenate([np.sort(rng.choice(genes, k, replace=False)) for k in lengths])
    counts = rng.geometric(0.5, len(indices)).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_matrix((counts, indices.astype(np.int32), indptr), shape=(cells, genes))


def loop(x: sp.csr_matrix, median: np.ndarray, token: np.ndarray) -> np.ndarray:
    """The published kind, at its best: one cell at a time, on plain arrays."""
    out = np.empty(x.nnz, np.int32)
    total = np.asarray(x.sum(axis=1)).ravel()
    for i, (a, b) in enumerate(zip(x.indptr[:-1], x.indptr[1:], strict=True)):
        gene = x.indices[a:b]
        value = x.data[a:b] / total[i] * 1e4 / median[gene]
        out[a:b] = token[gene[np.argsort(-value)]]
    return out


def sliced_loop(x: sp.csr_matrix, median: np.ndarray, token: np.ndarray) -> np.ndarray:
    """The same with one scipy row per cell."""
    total = np.asarray(x.sum(axis=1)).ravel()
    cells = []
    for start in range(0, x.shape[0], 512):
        rows = slice(start, start + 512)
        values = sp.csr_matrix(x[rows].multiply(1e4 / total[rows, None]).multiply(1 / median))
        for i in range(values.shape[0]):
            cell = values[i]
            cells.append(token[cell.indices[np.argsort(-cell.data)]])
    return np.concatenate(cells)


def lexsort(x: sp.csr_matrix, median: np.ndarray, token: np.ndarray) -> np.ndarray:
    """One sort over all cells."""
    row = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    return token[x.indices[np.lexsort((x.indices, -x.data / median[x.indices], row))]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=25_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", help="also sort here, with torch")
    parser.add_argument("--store", action="store_true", help="write into the repository's results")
    args = parser.parse_args()
    x = random_cells(args.cells, args.genes)
    median = np.random.default_rng(1).lognormal(1, 0.5, args.genes).astype(np.float32)
    token = np.arange(2, args.genes + 2, dtype=np.int32)
    symbols, ids = ([f"{k}{i:05d}" for i in range(args.genes)] for k in ("G", "ENSG"))
    var = pd.DataFrame({"ensembl_id": ids, "matched": True}, index=symbols)
    adata = anndata.AnnData(x, pd.DataFrame(index=[f"cell{i}" for i in range(args.cells)]), var)
    medians = dict(zip(ids, median, strict=True))
    tokens = {"<pad>": 0, "<mask>": 1} | dict(zip(ids, token, strict=True))
    vectors = pd.DataFrame(np.random.default_rng(2).normal(size=(args.genes, 64)), index=symbols)
    positions = pd.DataFrame({"chromosome": np.arange(args.genes) % 24, "start": token}, index=symbols)

    def ours(**options) -> np.ndarray:
        return token[encodings.descending(x, median, **options)[1]]

    arrays: dict[str, Callable[[], np.ndarray]] = {
        "loop": lambda: loop(x, median, token),
        "loop over scipy rows": lambda: sliced_loop(x, median, token),
        "lexsort": lambda: lexsort(x, median, token),
        "descending, 1 thread": lambda: ours(threads=1),
        f"descending, {args.threads} threads": lambda: ours(threads=args.threads),
    }
    if args.device:
        arrays[f"descending, {args.device}"] = lambda: ours(device=args.device)
    whole: dict[str, Callable[[], encodings.Encoding]] = {
        "geneformer": lambda: encodings.geneformer(adata, medians, tokens),
        "cell2sentence": lambda: encodings.cell2sentence(adata),
        "genept-w": lambda: encodings.genept(adata, vectors),
        "scgpt": lambda: encodings.scgpt(adata, symbols),
        "scbert": lambda: encodings.scbert(adata, symbols),
        "scfoundation": lambda: encodings.scfoundation(adata, symbols),
        "uce": lambda: encodings.uce(adata, positions),
        "txfm": lambda: encodings.txfm(adata, symbols),
    }
    if args.device:
        whole[f"geneformer, {args.device}"] = lambda: encodings.geneformer(
            adata, medians, tokens, device=args.device
        )
    seconds, cpu = {}, {}
    for _ in range(args.rounds):
        for name, function in (arrays | whole).items():
            start, start_cpu = time.perf_counter(), time.process_time()
            found = function()
            seconds[name] = min(seconds.get(name, np.inf), time.perf_counter() - start)
            cpu[name] = min(cpu.get(name, np.inf), time.process_time() - start_cpu)
            if name == "lexsort":
                expected = found
            elif name.startswith("descending"):
                np.testing.assert_array_equal(found, expected)
    rows = [
        {
            "from": "arrays" if name in arrays else "an AnnData",
            "encoding": name,
            "cells_per_s": round(args.cells / s),
            "ratio": round(seconds["loop"] / s, 2),
            "ratio_of_cpu_time": round(cpu["loop"] / cpu[name], 2),
        }
        for name, s in seconds.items()
    ]
    print(json.dumps(rows, indent=1))
    if args.store:
        sizes = {"cells": args.cells, "genes": args.genes, "nnz_per_cell": round(x.nnz / args.cells)}
        facts = results.provenance(**sizes, load=os.getloadavg()[0])
        results.write(f"benchmarks/encodings-{args.device or 'cpu'}-{args.cells}", rows, facts)


if __name__ == "__main__":
    main()
