"""How long does it take to embed 10,000 cells, and how much memory?  From a file to the embedding, by preset.

    python benchmarks/embed.py                              # txfm-xs, 10,000 cells x 20,000 genes
    python benchmarks/embed.py --cells 500 --threads 1      # seconds

The weights are random: they have no influence on the time. The cells come from a backed .h5ad file, so that
reading, matching genes, checking counts and normalising are all in the figure. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from txfm_lite import TxFM, TxFMConfig, tl

NNZ = 1_549  # mean non-zeros per cell, as in benchmarks/loader.py
ROWS = 1_000  # written at a time


def write(path: Path, cells: int, genes: int, seed: int = 0) -> None:
    """Write random counts; in pieces, so that the peak of memory is the embedding's."""
    rng = np.random.default_rng(seed)
    pieces = []
    for start in range(0, cells, ROWS):
        n = min(ROWS, cells - start)
        lengths = rng.integers(NNZ // 2, NNZ * 3 // 2, n)
        indices = np.concatenate([np.sort(rng.choice(genes, k, replace=False)) for k in lengths])
        counts = rng.geometric(0.5, len(indices)).astype(np.float32)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        pieces.append(sp.csr_matrix((counts, indices.astype(np.int32), indptr), shape=(n, genes)))
    var = pd.DataFrame({"matched": True}, index=[f"g{i}" for i in range(genes)])
    anndata.AnnData(sp.vstack(pieces, format="csr"), var=var).write_h5ad(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--preset", default="xs")
    parser.add_argument("--shown", type=int, help="genes shown to the model (default: all)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=2, help="the best of this many rounds counts")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = TxFMConfig.preset(args.preset, n_genes=args.genes)
    model = TxFM(config, [f"g{i}" for i in range(args.genes)]).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        write(path, args.cells, args.genes)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            adata = anndata.read_h5ad(path, backed="r")
            tl.embed(adata, model, args.shown, device=args.device)
            seconds.append(time.perf_counter() - start)
    result = {
        "preset": args.preset,
        "parameters": model.n_parameters,
        "cells": args.cells,
        "genes": args.genes,
        "genes_shown": adata.uns["txfm"]["genes_shown"],
        "device": args.device,
        "threads": args.threads,
        "seconds": round(min(seconds), 2),
        "cells_per_s": round(args.cells / min(seconds)),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "peak_before_gb": round(before / 1e6, 2),
        "load_1min": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
