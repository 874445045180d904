"""Who finds the hidden half of a gene set?  Rivals and gene set models on six benchmark libraries.

    python benchmarks/gene_sets.py                                   # all rivals, what is stored is kept
    python benchmarks/gene_sets.py --models SVD EASE --libraries KEGG_2021_Human
    python benchmarks/gene_sets.py --gsfm FOLDER --name "GSFM" --seed 1
    python benchmarks/gene_sets.py --gsfm A B C --name "GSFM (three together)"
    python benchmarks/gene_sets.py --tier all                        # also curated and text-mined sets
    python benchmarks/gene_sets.py --study size --seeds 0 1 2        # or leakage, time, choices

The studies train models of their own (txfm_lite.set_studies); `--models DAE` runs only these, and for
"choices" it names some of them. The study "time" takes a trained one (`--gsfm`), and all rivals.

All predictors are fitted on the same training sets and search in the same genes: those of the benchmark that
are in at least five training sets of the tier "clean". Results lie in results/genesets/<library>/.
Memory: 4 GB (co-occurrence and EASE hold a matrix of all pairs of genes each).
"""

from __future__ import annotations

import argparse
import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from txfm_lite import files, genesets, results, set_rivals, set_studies
from txfm_lite.evaluate import genesets as benchmark
from txfm_lite.evaluate import set_splits, suite

log = logging.getLogger("txfm_lite")

SLOW = ("PrismEXP-like",)  # minutes per library: only when asked for
WITHIN = ("popularity within library", "popularity of other libraries")  # read the benchmark's new version


def predictors(
    libraries: dict, train: genesets.GeneSets, universe: np.ndarray, seed: int
) -> dict[str, Callable[[str], Callable]]:
    """Return for every name a function from a library's name to a predictor."""

    @functools.cache
    def profiles():
        from txfm_lite.evaluate.weights import bulk_coexpression

        return bulk_coexpression()

    def vectors(kind):
        from txfm_lite.embed import gene_vectors

        return gene_vectors("txfm-xs")[kind]

    def others(name):
        return genesets.concatenate([x for other, x in libraries.items() if other != name])

    made = {
        "popularity": lambda: set_rivals.popularity(train, universe),
        "co-occurrence": lambda: set_rivals.cooccurrence(train, universe),
        "SVD": lambda: set_rivals.svd(train, universe, seed=seed),
        "kNN": lambda: set_rivals.neighbours(train, universe),
        "EASE": lambda: set_rivals.ease(train, universe),
        "TxFM codebook": lambda: set_rivals.cosine(vectors("codebook"), universe),
        "TxFM decoder": lambda: set_rivals.cosine(vectors("decoder"), universe),
        "co-expression": lambda: set_rivals.cosine(profiles(), universe),
    }
    found = {
        "PrismEXP-like": lambda name: set_rivals.prismexp(
            train, universe, profiles(), seed=seed, only=libraries[name].genes if name in libraries else None
        ),
        "popularity within library": lambda name: set_rivals.popularity_within(libraries[name], universe),
        "popularity of other libraries": lambda name: set_rivals.popularity(others(name), universe, True),
    }
    for name, make in made.items():
        once = functools.lru_cache(1)(make)
        found[name] = lambda _, once=once: once()
    return found


def answering(folders: list[Path], universe: np.ndarray) -> tuple[Callable, dict[str, Any]]:
    """Return the predictor of models that answer together, or of one, and what results should say of them."""
    from txfm_lite.gsfm import GSFM
    from txfm_lite.pretrained import identity

    models = [GSFM.from_pretrained(folder) for folder in folders]
    return set_rivals.from_model(models, universe), {"trained": [identity(model) for model in models]}


def study(args: argparse.Namespace, libraries: dict, universe: np.ndarray) -> None:
    """Run one of the studies that train models of their own."""
    changes = {"d_model": args.width, "epochs": args.epochs}
    recipe = set_studies.recipe(args.study, args.runs, **{k: v for k, v in changes.items() if v})
    chosen = {"models": args.models} if args.models else {}
    if args.study == "leakage":  # unfiltered: the study filters
        train = genesets.training(args.tier, threshold=1.0)
        set_studies.store_leakage(
            recipe, train, libraries, universe, args.thresholds, args.seeds,
            folder=args.folder, tier=args.tier, **chosen,
        )  # fmt: skip
        return
    train = genesets.training(args.tier)
    if args.study == "size":
        set_studies.store_size(
            recipe, train, libraries, universe, seeds=args.seeds, folder=args.folder, **chosen
        )
    elif args.study == "choices":
        choices = {name: set_studies.CHOICES[name] for name in args.models or set_studies.CHOICES}
        set_studies.store_choices(recipe, train, universe, choices, args.seeds, args.folder)
    else:
        for seed in args.seeds:
            made = predictors(libraries, train, universe, seed)
            names = args.models or [name for name in made if name not in (*SLOW, *WITHIN)]
            fits = {name: functools.partial(made[name], name) for name in names}
            if args.gsfm:
                predict, trained = answering(args.gsfm, universe)
                set_studies.store_time(
                    {args.name: lambda p=predict: p}, genesets.time_splits(), universe, seed, args.folder,
                    n_train=len(train), **trained,
                )  # fmt: skip
            set_studies.store_time(
                fits, genesets.time_splits(), universe, seed, args.folder, n_train=len(train)
            )


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--models", nargs="+", help="by default all rivals but the slowest")
    parser.add_argument("--libraries", nargs="+", help="by default all six")
    parser.add_argument("--seed", type=int, default=0, help="of the models; the splits are always the same")
    parser.add_argument("--tier", choices=genesets.TIERS, default="clean", help="of the training sets")
    parser.add_argument(
        "--gsfm", type=Path, nargs="+", help="folder of a trained model, or of several that answer together"
    )
    parser.add_argument("--name", default="GSFM", help="of that in tables; only it is scored")
    parser.add_argument("--write-splits", type=Path, help="only write the splits, for others to use")
    parser.add_argument("--folder", type=Path, help="of the results; by default the repository's")
    parser.add_argument("--study", choices=["size", "leakage", "time", "choices"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of a study")
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=set_studies.THRESHOLDS, help="of the study of leakage"
    )
    parser.add_argument("--epochs", type=int, help="of a study's models, if not those of what is stored")
    parser.add_argument("--width", type=int, help="d of a study's models, the same")
    parser.add_argument("--runs", type=Path, default=files.cache_directory() / "runs", help="of a study")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    libraries = genesets.benchmark()
    asked = {name: set_splits.splits(library) for name, library in libraries.items()}
    if args.write_splits:
        print(set_splits.write_splits(args.write_splits, list(asked.values())))
        return
    clean = genesets.training("clean")
    universe = benchmark.common_universe(libraries, genesets.vocabulary(clean))
    if args.study:
        study(args, libraries, universe)
        return
    train = clean if args.tier == "clean" else genesets.training(args.tier)
    popularity, trained = set_rivals.counted(clean, universe), {}
    if args.gsfm:
        predict, trained = answering(args.gsfm, universe)
        chosen = {args.name: lambda _: predict}
    else:
        chosen = predictors(libraries, train, universe, args.seed)
        names = args.models or [name for name in chosen if name not in SLOW]
        if unknown := set(names) - set(chosen):
            raise SystemExit(f"no model is called {', '.join(unknown)}; there are {', '.join(chosen)}")
        chosen = {name: chosen[name] for name in names}
    for name, make in chosen.items():
        label = name if args.tier == "clean" else f"{name} ({args.tier})"
        for library in args.libraries or libraries:
            if results.stored(suite.path("genesets", library, label, args.seed), args.folder, **trained):
                continue
            start = time.monotonic()
            predict = make(library)
            fitted = time.monotonic()
            rows, terms = benchmark.evaluate(predict, asked[library], universe, popularity)
            facts = {
                "tier": args.tier, "n_train": len(train), "genes_in_universe": len(universe),
                "minutes_fitting": round((fitted - start) / 60, 2),
                "minutes_scoring": round((time.monotonic() - fitted) / 60, 2), **trained,
            }  # fmt: skip
            benchmark.store(label, args.seed, asked[library], rows, terms, args.folder, **facts)
            log.info("%s: %s, median AUROC %.3f", library, label, rows[0]["value"])


if __name__ == "__main__":
    main()
