"""How fast do shuffled batches come off the disk?  Ratios in one run, on a synthetic corpus.

    python benchmarks/loader.py                  # 200,000 cells x 20,000 genes: 4 GB of disk, 6 GB of memory
    python benchmarks/loader.py --cells 20000    # seconds

Absolute rates depend on the machine and on what else it does; the ratios to slicing a scipy CSR matrix in
memory, measured in turns by the same process, carry over. Rows lie in groups of 5,000 (the worst case for
shuffling by blocks); the entropy of the groups in a batch says how well the loader mixes them. AnnData's
backed mode runs beside it, and scDataset and annbatch where they are installed. Prints JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from txfm_lite.corpus import Corpus
from txfm_lite.corpus_writer import CorpusWriter
from txfm_lite.loader import BatchLoader

RIVALS = ("scdataset", "annbatch")
NNZ = 1_549  # mean non-zeros per cell
READ_AHEAD = 16  # batches that scDataset and annbatch read together


def synthetic(path: Path, cells: int, genes: int, group: int, seed: int = 0) -> Corpus:
    """Write a corpus of random cells, group by group."""
    rng = np.random.default_rng(seed)
    names = [f"g{i}" for i in range(genes)]
    with CorpusWriter(path, names) as writer:
        for a in range(0, cells, group):
            n = min(group, cells - a)
            lengths = rng.integers(NNZ // 2, NNZ * 3 // 2, n)
            indptr = np.concatenate([[0], np.cumsum(lengths)])
            # one random start and stride per cell give distinct genes at the price of one multiplication
            within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths)
            start, stride = rng.integers(0, genes, n), 2 * rng.integers(1, genes // 20, n) + 1
            stride += (stride % 5 == 0) * 2  # coprime to 20,000 = 2^5 * 5^4
            indices = (np.repeat(start, lengths) + within * np.repeat(stride, lengths)) % genes
            counts = rng.geometric(0.5, indptr[-1])
            writer.begin(f"group{a // group}", np.ones(genes, bool))
            labels = {"name": np.arange(a, a + n).astype("S"), "split": ["train"] * n, "batch": [None] * n}
            library = np.add.reduceat(counts, indptr[:-1])
            writer.append(indptr, indices, counts, library_size=library, cell_type=[None] * n, **labels)
        return writer.finish()


def forget(path: Path) -> None:
    """Drop a file, or the files of a folder, from the page cache."""
    for file in path.iterdir() if path.is_dir() else [path]:
        with open(file, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(batches: Iterator, seconds: float) -> np.ndarray:
    """Samples per second and per second of processor time, over `seconds` or an epoch."""
    start, busy, n = time.perf_counter(), time.process_time(), 0
    for i, batch in enumerate(batches, 1):
        n += batch.shape[0] if hasattr(batch, "shape") else len(batch)
        if i % READ_AHEAD == 0 and time.perf_counter() - start > seconds:
            break  # not amid batches that were read together
    return n / np.array([time.perf_counter() - start, time.process_time() - busy])


def entropy(groups: np.ndarray, n_groups: int) -> float:
    share = np.bincount(groups, minlength=n_groups) / len(groups)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def drawn(n: int, batch: int, take: Callable[[np.ndarray], object], seed: int = 0) -> Iterator:
    """Batches of truly random rows from something that takes row numbers."""
    order = np.random.default_rng(seed).permutation(n)
    for a in range(0, n - batch + 1, batch):
        yield take(order[a : a + batch])


def scdataset(backed, batch: int) -> Callable[[], Iterator]:
    """Blocks of 64 rows of an .h5ad as it is, 16 batches per fetch."""
    from scdataset import BlockShuffling, scDataset

    options = {"batch_size": batch, "fetch_factor": READ_AHEAD}
    options |= {"fetch_transform": lambda a: a.to_memory(), "batch_transform": lambda a: a.X}
    return lambda: iter(scDataset(backed, BlockShuffling(block_size=64), **options))


def annbatch(h5ad: Path, batch: int) -> Callable[[], Iterator]:
    """Its own shuffled copy of an .h5ad, blocks of 64 rows, 16 batches per fetch."""
    import annbatch
    import anndata
    import zarr

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})  # as its authors advise
    copy = annbatch.DatasetCollection(h5ad.with_suffix(".zarr"))
    copy.add_adatas([h5ad], n_obs_per_chunk=64)

    def matrix(group: zarr.Group) -> anndata.AnnData:
        return anndata.AnnData(anndata.io.sparse_dataset(group["X"]))

    def batches() -> Iterator:
        options = {"batch_size": batch, "chunk_size": 64, "preload_nchunks": READ_AHEAD * batch // 64}
        loader = annbatch.Loader(**options, shuffle=True, preload_to_gpu=False, drop_last=True)
        return (b["X"] for b in loader.use_collection(copy, load_adata=matrix))

    return batches


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1_024)
    parser.add_argument("--rounds", type=int, default=3, help="the best of this many rounds counts")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest time for one measurement")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: the temporary folder)")
    args = parser.parse_args()
    group = min(5_000, args.cells // 8)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "corpus"
        start = time.perf_counter()
        corpus = synthetic(path, args.cells, args.genes, group)
        result = {
            "cells": args.cells,
            "genes": args.genes,
            "nnz": corpus.nnz,
            "corpus_gb": round(corpus.nbytes / 1e9, 3),
            "write_s": round(time.perf_counter() - start, 1),
            "batch": args.batch,
        }
        start = time.perf_counter()
        corpus = Corpus.open(path)
        result["open_ms"] = round(1e3 * (time.perf_counter() - start), 2)

        def disk() -> BatchLoader:
            return BatchLoader(corpus, args.batch, in_memory=False)

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cold = []
        for _ in range(args.rounds):
            forget(path)
            cold.append(rate(disk(), args.seconds))
        result["loader_peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
        result["peak_before_gb"] = round(before / 1e6, 2)
        small = BatchLoader(corpus, 256, in_memory=False)
        mixed = [entropy(corpus.dataset[b.row], len(corpus.datasets)) for b in small]
        rng = np.random.default_rng(0)
        ideal = [entropy(corpus.dataset[rng.choice(args.cells, 256)], len(corpus.datasets)) for _ in mixed]
        result["entropy_of_random"] = round(np.mean(mixed) / np.mean(ideal), 4)

        matrix = corpus.csr()  # float32 counts, int32 indices: what scipy users hold
        h5ad = Path(folder) / "corpus.h5ad"
        import anndata

        anndata.AnnData(matrix).write_h5ad(h5ad)
        backed = anndata.read_h5ad(h5ad, backed="r")
        held = Corpus.open(path).load()
        contenders: dict[str, Callable[[], Iterator]] = {
            "scipy_csr_in_memory": lambda: drawn(args.cells, args.batch, lambda rows: matrix[rows]),
            "loader_from_disk": lambda: disk(),
            "loader_in_memory": lambda: BatchLoader(held, args.batch),
            "anndata_backed_sorted": lambda: drawn(args.cells, args.batch, lambda r: backed[np.sort(r)].X),
        }
        if importlib.util.find_spec("scdataset"):
            contenders["scdataset_on_h5ad"] = scdataset(backed, args.batch)
        if importlib.util.find_spec("annbatch"):
            start = time.perf_counter()
            contenders["annbatch"] = annbatch(h5ad, args.batch)
            result["annbatch_convert_s"] = round(time.perf_counter() - start, 1)
        best = dict.fromkeys(contenders, np.zeros(2))
        for _ in range(args.rounds):
            for name, batches in contenders.items():
                best[name] = np.maximum(best[name], rate(batches(), args.seconds))
        best["loader_from_disk_cold"] = np.max(cold, axis=0)
        # on a busy machine the clock favours whoever runs in a quiet moment: processor time does not
        for i, unit in enumerate(("s", "cpu_s")):
            rates = {name: r[i] for name, r in best.items()}
            reference = rates["scipy_csr_in_memory"]
            result[f"samples_per_{unit}"] = {name: round(r) for name, r in rates.items()}
            result[f"ratio_to_scipy_per_{unit}"] = {
                name: round(r / reference, 3) for name, r in rates.items()
            }
            ratio = rates["loader_from_disk"] / rates["anndata_backed_sorted"]
            result[f"loader_to_backed_per_{unit}"] = round(ratio, 1)
        result["left_out"] = {m: f"{m} is not installed" for m in RIVALS if not importlib.util.find_spec(m)}
        if sys.version_info < (3, 12):
            result["left_out"]["annbatch"] = f"needs Python 3.12, this is {platform.python_version()}"
        result["cpus"], result["load_1min"] = os.cpu_count(), round(os.getloadavg()[0], 1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
