"""How long do a million gene sets take, and how much memory?  As many as Rummagene has.

    python benchmarks/genesets.py                      # 1,000,000 sets, a minute to make the file
    python benchmarks/genesets.py --sets 100000 --gz   # fewer, gzipped
    python benchmarks/genesets.py --store              # into results/benchmarks

The file is like what is known of Rummagene's (642,389 sets in 624 MB): sizes are log-normal with a median of
50 genes and a mean near 105, between 5 and 2,499; genes are popular by a power law; names have about 45
letters; one gene in thirty goes by an alias; one set in twenty is a copy of the one before. It is made piece
by piece, so that the peak of memory is that of loading. Each step follows the one before it. Prints JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from txfm_lite import files, genesets, results, tables

PIECE = 5_000  # sets that are made at a time


def names_of_genes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of coding genes with their popularity; one in thirty is replaced by its first alias."""
    table = tables.gene_info(files.fetch("ncbi_gene_info_2016"))
    table = table[table["type_of_gene"] == "protein-coding"].drop_duplicates("symbol")
    alias = table["synonyms"].str.split("|").str[0]
    use = (rng.random(len(table)) < 1 / 30) & (alias != "-")
    popularity = 1 / (np.arange(len(table)) + 200.0)
    return table["symbol"].mask(use, alias).to_numpy(object), rng.permutation(popularity / popularity.sum())


def make(path: Path, n: int, seed: int = 0) -> int:
    """Write a file of n sets; return the number of memberships."""
    rng = np.random.default_rng(seed)
    names, popularity = names_of_genes(rng)
    chances, total = np.cumsum(popularity), 0
    with gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else open(path, "w") as file:
        for start in range(0, n, PIECE):
            count = min(PIECE, n - start)
            sizes = np.clip(rng.lognormal(np.log(50), 1.25, count).astype(int), 5, 2499)
            drawn = names[np.searchsorted(chances, rng.random(sizes.sum()), side="right")]
            copied, ends, line = rng.random(count) < 1 / 20, np.cumsum(sizes), ""
            for i in range(count):
                if not line or not copied[i]:
                    line = "\t".join(drawn[ends[i] - sizes[i] : ends[i]])
                    size = sizes[i]
                total += size
                number = 1_000_000 + (start + i) // 3
                file.write(
                    f"PMC{number}-supplementary_table_{i % 7}.xlsx-Sheet{i % 3 + 1}-gene\t2020\t{line}\n"
                )
    return int(total)


def timed(call: Callable[[], object]) -> tuple[dict[str, float], object]:
    """Seconds of the clock and of the processor, the peak of memory so far, and what came out."""
    clock, processor = time.perf_counter(), time.process_time()
    found = call()
    seconds, cpu = time.perf_counter() - clock, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": round(seconds, 1), "cpu_s": round(cpu, 1), "peak_gb": round(peak, 2)}, found


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--sets", type=int, default=1_000_000)
    parser.add_argument("--gz", action="store_true", help="a gzipped file")
    parser.add_argument("--store", action="store_true", help="write into the repository's results")
    args = parser.parse_args()
    rows, sets = [], None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("sets.gmt.gz" if args.gz else "sets.gmt")
        total = make(path, args.sets)
        megabytes = round(path.stat().st_size / 1e6)
        steps = {
            "made": lambda _: None,
            "read": lambda _: genesets.read_gmt(path),
            "symbols": genesets.resolve,
            "copies left out": genesets.distinct,
            "11 to 999 genes": genesets.of_size,
            "vocabulary": lambda some: (genesets.vocabulary(some), some)[1],
        }
        for step, call in steps.items():
            row, sets = timed(lambda call=call, some=sets: call(some))
            size = (0, 0, 0) if sets is None else (len(sets), len(sets.indices), len(sets.genes))
            rows.append({"step": step, **row, "sets": size[0], "memberships": int(size[1]), "genes": size[2]})
    print(json.dumps(rows, indent=1))
    if args.store:
        facts = results.provenance(
            sets_in_file=args.sets, memberships_in_file=total, megabytes=megabytes, gzipped=args.gz, seed=0,
            load=os.getloadavg()[0],
        )  # fmt: skip
        results.write(f"benchmarks/genesets-{args.sets}", rows, facts)


if __name__ == "__main__":
    main()
