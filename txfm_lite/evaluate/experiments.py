"""What an encoding survives: the experiments on noise, sparsity, studies and scale, run once and stored.

Each experiment is a function of data, a model (the name of an encoding, a measure or a part of the input) and
a seed. :data:`EXPERIMENTS` lists them; :func:`run` stores each result under
``rank-robustness/<experiment>/<dataset>`` and goes on where it stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import fold_changes, ledger, results, robustness
from . import noise, scores, suite, transfer
from .scores import partial
from .transfer import arrays

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

log = logging.getLogger("txfm_lite")

STUDY = "rank-robustness"
ENCODINGS = tuple(robustness.KINDS)
DECILES = 10
RAISED = 300  # cells in which one gene is doubled
LARGEST = 16.0  # factor: what needs more, or never shows, counts as this


def changes(adata: AnnData, encoding: str, seed: int = 0) -> list[dict[str, Any]]:
    """Measure how much a gene must change to be seen, and what else changes with it.

    Parameters
    ----------
    adata : AnnData
        Up to 300 of its cells are used.
    encoding : str
    seed : int

    Returns
    -------
    list of dict
        Partial rows by decile of a detected gene's count within its cell ("1" the lowest ... "10", and
        "all"), medians over genes and cells: "fold change up" and "fold change down", the factors of
        :func:`txfm_lite.fold_changes.minimum_fold_changes`, at most 16; "up, whole" and "down, whole", those
        of whole molecules; "unseen twofold", the share of genes that can be doubled unseen. And, for one
        detected gene per cell, doubled, the shares of the others that changed ("others changed") and that
        moved in the list ("others moved"), variants "any" and "top": a gene at random, and the one with the
        most molecules.
    """
    counts, _, _ = arrays(adata)
    medians = robustness.gene_medians(adata)
    rng = np.random.default_rng([seed, 13])
    counts = counts[np.sort(rng.permutation(counts.shape[0])[:RAISED])]
    counts.sort_indices()
    count = counts.data.astype(np.float64)
    up, down = fold_changes.minimum_fold_changes(encoding, counts, medians)
    more, fewer = fold_changes.molecules_to_change(encoding, counts, medians)
    columns = {
        "fold change up": (up, np.inf),
        "fold change down": (down, 0),
        "up, whole": ((count + more) / count, np.inf),
        "down, whole": (np.maximum(count - fewer, 0) / count, 0),
        "unseen twofold": (np.where(np.isnan(more), np.nan, 2 * count < count + more), 1),
    }
    decile = deciles(counts)
    rows = []
    for metric, (values, unseen) in columns.items():
        for name in [*range(1, DECILES + 1), "all"]:
            of = values[~np.isnan(values) & ((decile == name) | (name == "all"))]
            value = np.nan
            if len(of):
                value = of.mean() if metric == "unseen twofold" else min(np.median(of), LARGEST)
            ceiling = 0 if metric == "unseen twofold" else 1
            rows.append(
                partial(
                    metric, value, variant=f"{name}", null=min(unseen, LARGEST), ceiling=ceiling, n=len(of)
                )
            )
    spans = list(zip(counts.indptr[:-1], counts.indptr[1:], strict=True))
    for name, places in {
        "any": [rng.integers(a, b) for a, b in spans],
        "top": [a + counts.data[a:b].argmax() for a, b in spans],
    }.items():
        genes = counts.indices[places]
        after = fold_changes.multiply(counts, genes, 2)
        found = fold_changes.others_changed(encoding, counts, after, genes, medians)
        for metric, values in zip(("others changed", "others moved"), found, strict=True):
            rows.append(partial(metric, values.mean(), variant=name, null=1, ceiling=0, n=len(values)))
    return rows


def deciles(counts: Any) -> np.ndarray:
    """Return for each stored count its decile within its cell, 1 to 10; equal counts share the middle one."""
    from scipy.stats import rankdata

    found = np.empty(counts.nnz, dtype=int)
    for a, b in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        share = (rankdata(counts.data[a:b]) - 0.5) / max(b - a, 1)
        found[a:b] = np.minimum((share * DECILES).astype(int) + 1, DECILES)
    return found


#: Experiment -> (function of data, model and seed; the models that it compares; what its data are).
EXPERIMENTS: dict[str, tuple[Callable[..., list[dict]], tuple[str, ...], str]] = {
    "x3": (transfer.across, ENCODINGS, "families"),
    "x4-replicates": (noise.replicates, ENCODINGS, "studies"),
    "x4-recovery": (transfer.recovery, ENCODINGS, "studies"),
    "x4-molecule": (noise.one_molecule, ENCODINGS, "studies"),
    "x5": (noise.dose, tuple(noise.MEASURES), "studies"),
    "x6": (changes, ENCODINGS, "studies"),
    "x7": (transfer.amounts, (*ENCODINGS, "depth"), "amounts"),
    "x8": (transfer.decomposition, transfer.PARTS, "studies"),
}


def run(
    experiment: str,
    data: Mapping[str, Any],
    seeds: Sequence[int] = (0,),
    models: Sequence[str] | None = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Run an experiment on each dataset, with each model and seed; store and return the rows.

    Parameters
    ----------
    experiment : str
        One of :data:`EXPERIMENTS`.
    data : mapping
        Dataset -> AnnData; for "x3", family -> mapping of studies.
    seeds : sequence of int
    models : sequence of str, optional
        By default all that the experiment compares.
    folder : path, optional
        Of the results; by default the repository's.

    Returns
    -------
    DataFrame
        The rows asked for, with their provenance.

    Raises
    ------
    ValueError
        For an unknown experiment, or a model that it does not have.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(f"no experiment is called {experiment!r}; there are {', '.join(EXPERIMENTS)}")
    function, known, _ = EXPERIMENTS[experiment]
    models = known if models is None else models
    if unknown := set(models) - set(known):
        raise ValueError(f"{experiment} has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    study = f"{STUDY}/{experiment}"
    for dataset, content in data.items():
        for model in models:
            for seed in seeds:
                where = suite.path(study, dataset, model, seed)
                if results.stored(where, folder):
                    continue
                log.info("%s: %s, %s, seed %d", experiment, dataset, model, seed)
                start = time.monotonic()
                rows = scores.complete(function(content, model, seed), dataset, model, seed)
                parts = content.values() if isinstance(content, Mapping) else [content]
                facts = {
                    "data": "; ".join(map(results.fingerprint, parts)),
                    "minutes": round((time.monotonic() - start) / 60, 2),
                }
                results.write(where, rows, results.provenance(**facts), folder)
    frame = results.read(study, folder)
    wanted = frame["model"].isin(models) & frame["seed"].isin(seeds) & frame["dataset"].isin(data)
    return frame[wanted].reset_index(drop=True)


def means(rows: pd.DataFrame, metric: str, models: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a metric's mean over datasets with its 95 % interval, for each model and variant.

    The bootstrap is the ledger's: it draws datasets, then seeds within each.

    Returns
    -------
    DataFrame, indexed by model and variant in the order of the rows
        Columns `value`, `low`, `high`, `null`.
    """
    import pandas as pd

    of = rows[(rows["metric"] == metric) & (models is None or rows["model"].isin(models or []))]
    found = {}
    for key, group in of.groupby(["model", "variant"], sort=False):
        pairs = group.set_index(["dataset", "seed"])[["value"]].dropna().set_axis(["a"], axis=1).assign(b=0.0)
        spread = ledger.interval(pairs, "difference") if len(pairs) else (np.nan,) * 3
        found[key] = (*spread, group["null"].mean())
    index = pd.MultiIndex.from_tuples(found, names=["model", "variant"])
    return pd.DataFrame(found.values(), index=index, columns=["value", "low", "high", "null"])


def differences(rows: pd.DataFrame, metric: str, ours: str, against: str) -> pd.DataFrame:
    """Return the paired difference of two models with its 95 % interval, for each variant.

    Returns
    -------
    DataFrame, indexed by variant
        Columns `value`, `low`, `high`.
    """
    import pandas as pd

    of = rows[rows["metric"] == metric]
    found = {}
    for variant, group in of.groupby("variant", sort=False):
        wide = group.pivot(index=["dataset", "seed"], columns="model", values="value")
        if {ours, against} <= set(wide):
            pairs = wide[[ours, against]].set_axis(["a", "b"], axis=1).dropna()
            if len(pairs):
                found[variant] = ledger.interval(pairs, "difference")
    return pd.DataFrame.from_dict(found, orient="index", columns=["value", "low", "high"])
