"""Train a gene set model on the sets that stand in for Rummagene.  A run that stopped goes on.

    python benchmarks/train_gsfm.py runs/gsfm-clean --universe --chosen \\
        --set epochs=40 validation=0.02                                      # the benchmark's, as its rivals
    python benchmarks/train_gsfm.py runs/gsfm-xs --tier all --least 20 --chosen \\
        --set epochs=40 validation=0.02                                      # the shipped weights
    python benchmarks/train_gsfm.py runs/gsfm --tier all                     # the published size and schedule
    python benchmarks/train_gsfm.py runs/gsfm-rummagene --tier rummagene     # its corpus, once downloaded
    python benchmarks/train_gsfm.py runs/gsfm-rummageo --tier rummageo --mouse upper

Then `python tools/ship.py` puts it into the package, and `python benchmarks/gene_sets.py --gsfm` scores it.
"""

from __future__ import annotations

import argparse
import ast
import logging
from pathlib import Path

from txfm_lite import genesets, set_studies
from txfm_lite.evaluate import genesets as benchmark
from txfm_lite.gsfm_training import GSFMTrainConfig, train_on


def value(text: str) -> int | float | str:
    """Read a number, or else take the text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    """Train, or go on."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--tier", choices=genesets.TIERS, default="clean", help="of the training sets")
    parser.add_argument(
        "--mouse",
        choices=("keep", "upper"),
        default="keep",
        help="what becomes of mouse symbols; published: upper",
    )
    parser.add_argument("--least", type=int, default=5, help="sets that a gene of the vocabulary is in")
    parser.add_argument("--universe", action="store_true", help="only genes in which the benchmark searches")
    parser.add_argument("--chosen", action="store_true", help="as won on held-out sets, not as published")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="FIELD=VALUE", help="of GSFMConfig and GSFMTrainConfig"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    changes = {field: value(text) for field, text in (pair.split("=", 1) for pair in args.set)}
    shape, schedule = set_studies.divided((set_studies.CHOSEN if args.chosen else {}) | changes)
    sets = genesets.training(args.tier, mouse=args.mouse)
    genes = genesets.vocabulary(sets, args.least)
    if args.universe:
        clean = genesets.vocabulary(genesets.training("clean"))
        genes = benchmark.common_universe(genesets.benchmark(), clean)
    train_on(sets, genes, GSFMTrainConfig(**schedule), args.run, shape=shape)


if __name__ == "__main__":
    main()
