"""How many samples buy how much?  Trains models of several widths for several budgets and scores them.

    python benchmarks/budget.py --corpus corpora/common --run-dir runs                  # the stored grid
    python benchmarks/budget.py --corpus corpora/common --run-dir runs --widths 64 --samples 6400

One JSON per run goes to results/budget; what is stored is not run again, and a run that stopped goes on. The
score is the accuracy of nearest neighbours across batches on held-out studies, as in the pretraining chapter.
Beside the models: log counts, PCA fitted on the same corpus, and models that have seen nothing yet.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from txfm_lite import results, studies
from txfm_lite.baselines import CorpusPCA, embed_log_counts
from txfm_lite.corpus import Corpus
from txfm_lite.embed import embed
from txfm_lite.evaluate.cells import knn_across_batches
from txfm_lite.pretraining import principal_axes
from txfm_lite.training import TrainConfig, fit
from txfm_lite.txfm import TxFM, TxFMConfig

COMPONENTS = 32  # where gene vectors start: fewer than the narrowest width


def score(embedding: Callable, tests: dict) -> list[dict]:
    """Return one row per held-out study."""
    rows = []
    for name, adata in tests.items():
        labels, batches = adata.obs["cell_type"], adata.obs["batch"]
        value = knn_across_batches(np.asarray(embedding(adata)), labels, batches)
        rows.append(dict(dataset=name, metric="kNN balanced accuracy across batches", value=value,
                         null=1 / labels.nunique(), n=adata.n_obs))  # fmt: skip
    return rows


def config(width: int, n_genes: int) -> TxFMConfig:
    """Return the xs preset at another width, its heads 32 wide."""
    return TxFMConfig.preset("xs", n_genes, d_model=width, n_heads=width // 32)


def main() -> None:
    """Run what is not stored yet, the cheapest first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--samples", type=int, nargs="+", default=[25_600, 102_400, 409_600])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--shipped", nargs="*", default=["txfm-xs"], help="the package's own models, as they are"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    corpus, tests = Corpus.open(args.corpus), studies.held_out()

    def store(name: str, embedding: Callable, **facts) -> None:
        facts = dict(corpus=corpus.fingerprint, seed=args.seed, **facts)
        results.write(f"budget/{name}", score(embedding, tests), results.provenance(**facts))

    if not results.stored("budget/log-counts"):
        facts = {"model": "log counts", "samples": 0, "width": corpus.n_genes, "components": 0}
        store("log-counts", lambda a: embed_log_counts(a, corpus.genes), **facts)
    for width in args.widths:
        name = f"pca-{width}"
        if not results.stored(f"budget/{name}"):
            pca = CorpusPCA(corpus, width, args.seed)
            n = len(corpus.rows("train"))
            store(name, pca.embed, model="PCA", samples=n, width=width, components=width)
        for components in (0, COMPONENTS):
            name = f"untrained-d{width}-c{components}-seed{args.seed}"
            if not results.stored(f"budget/{name}"):
                torch.manual_seed(args.seed)
                model = TxFM(config(width, corpus.n_genes), corpus.genes.tolist())
                if components:
                    model.start_from_components(principal_axes(corpus, model, components))
                facts = {"width": width, "components": components}
                store(name, lambda a, m=model: embed(a, m), model="TxFM untrained", samples=0, **facts)
    for name in args.shipped:
        if not results.stored(f"budget/{name}"):
            model = TxFM.from_pretrained(name)
            made, last = model.provenance, model.provenance["result"]
            store(name, lambda a, m=model: embed(a, m), model="TxFM", width=model.config.d_model,
                  samples=last["samples"], components=made["start_from_components"], minutes=last["minutes"],
                  explained=last["explained"], probe=last["probe"])  # fmt: skip
    for samples in sorted(args.samples):
        for width in args.widths:
            name = f"d{width}-n{samples}-seed{args.seed}"
            if results.stored(f"budget/{name}"):
                continue
            steps = samples // args.batch_size
            schedule = TrainConfig(
                steps=steps, batch_size=args.batch_size, learning_rate=args.learning_rate, seed=args.seed,
                start_from_components=COMPONENTS, validate_every=max(1, steps // 4),
            )  # fmt: skip
            run = fit(corpus, config(width, corpus.n_genes), schedule, Path(args.run_dir) / name)
            last = run.history.iloc[-1]
            store(name, lambda a, m=run.model: embed(a, m), model="TxFM", width=width, samples=samples,
                  components=COMPONENTS, minutes=last["minutes"], explained=last["explained"],
                  probe=last["probe"])  # fmt: skip


if __name__ == "__main__":
    main()
