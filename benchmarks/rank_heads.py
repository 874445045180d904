"""Rank tokens, bin tokens or values?  Trains the three at one budget and scores them on held-out studies.

    python benchmarks/rank_heads.py --run-dir runs                                    # the stored comparison
    python benchmarks/rank_heads.py --run-dir short --study rank-heads-short --set steps=300 # a shorter one
    python benchmarks/rank_heads.py --run-dir wide --study rank-heads-wide --set steps=20000 d_model=256

Results go to results/rank-heads and results/rank-heads-training, one JSON per model, seed and study. What is
stored is not run again, and a run that stopped goes on. On a GPU only the size changes.
"""

from __future__ import annotations

import argparse
import ast
import logging
from pathlib import Path

import torch

from txfm_lite import studies
from txfm_lite.evaluate import heads


def main() -> None:
    """Run what is not stored yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--study", default="rank-heads", help="the results' name: another size needs another")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of heads.Budget")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.threads:
        torch.set_num_threads(args.threads)
    changes = (pair.split("=", 1) for pair in args.set)
    budget = heads.Budget(**{field: ast.literal_eval(value) for field, value in changes})
    runs = Path(args.run_dir)
    corpus = heads.corpus(studies.common_corpus(), budget, runs / "corpus")
    heads.compare(corpus, studies.cell_types(), budget, range(args.seeds), runs, study=args.study)


if __name__ == "__main__":
    main()
