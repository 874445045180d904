"""Do ranks lose what tells cell types apart?  The published comparison, and the arms that it lacked.

The analysis of 2023 compared three measures of cells (Euclidean distance in a UMAP of the expression,
Spearman's correlation, Euclidean distance in a UMAP of Geneformer's embedding) by how far pairs within a type
lie from pairs between types. Two of the three went through UMAP and one did not, so the input and the
projection cannot be told apart. Here every input goes through every projection:

================  ======================================================  ============================
input             of a cell's counts                                      without a projection
================  ======================================================  ============================
raw               the counts                                              Euclidean distance
log               log(1 + 10,000 · count / total)                         Euclidean distance
log standardised  the same, centred, of length one                        Pearson's correlation
rank              fractional ranks, centred, of length one                Spearman's correlation
================  ======================================================  ============================

and then PCA to 50 dimensions, or UMAP to 5 as published. What else could make a difference is held still by
:mod:`txfm_lite.rankcontrols`: all cells thinned to one depth, Geneformer with random weights, zeros and ranks
apart.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import pairs, results
from .align import not_counts
from .rankcontrols import changed_by_squaring, embed_geneformer, zeros_and_ranks
from .similarity import Cosine, Euclid, Measure, Pearson, Spearman

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

log = logging.getLogger("txfm_lite")

INPUTS = ("raw", "log", "log standardised", "rank")
PROJECTIONS = ("none", "PCA-50", "UMAP-5")
VARIABLE_GENES = 2435  # in the text of the analysis; its figure caption has 2,450
NEIGHBOURS = 15
FOLDS = 5
#: Studies with types named by their authors: dataset -> part.
STUDIES = {
    "pbmc_facs_zheng": "main",  # types by sorted surface proteins, not by expression
    "pbmc3k_annotated": "main",
    "pbmc4k_v2_2000": "main",
    "kang_ifnb": "kang_se",
    "sc_mixology": "single_cells",  # cell lines
    "darmanis_brain": "main",
    "pollen_11types": "main",
}
NO_TYPE = ("Other", "hybrid")  # what is left over, and what lies between types


def load(dataset: str) -> AnnData:
    """Load one of the studies, without cells whose label names no type."""
    from . import datasets

    adata = datasets.load(dataset, STUDIES.get(dataset))
    return adata[~adata.obs["cell_type"].isin(NO_TYPE).to_numpy()].copy()


def draw(
    adata: AnnData, cell_type: str, per_type: int, least: int | None = None, seed: int = 0, layer: str = ""
) -> AnnData:
    """Draw cells of each type; of the types with enough cells, sorted by type.

    Parameters
    ----------
    adata : AnnData
        Raw counts; may be backed by a file.
    cell_type : str
        Column of ``obs``; cells without a type are left out.
    per_type : int
        Most cells of a type.
    least : int, optional
        Types with fewer cells are left out; by default `per_type`, as published with 500.
    seed : int
    layer : str
        Where the counts are, if not in X.

    Returns
    -------
    AnnData
        A copy with the counts in X, and the types as text in ``obs["type"]``.

    Raises
    ------
    ValueError
        If there is no such column, fewer than two types have enough cells, or the values are no counts.
    """
    import scipy.sparse as sp

    least = per_type if least is None else least
    if cell_type not in adata.obs:
        raise ValueError(f"obs has no column {cell_type!r}; there are {', '.join(map(str, adata.obs))}")
    labels = adata.obs[cell_type]
    labels = labels[labels.notna()].astype(str)
    sizes = labels.value_counts()
    types = sorted(sizes.index[sizes >= least])
    if len(types) < 2:
        raise ValueError(
            f"obs[{cell_type!r}]: {len(types)} types have at least {least} cells (the largest have "
            f"{', '.join(f'{k} {n}' for k, n in sizes.head(3).items())}); ask for fewer cells per type"
        )
    rng = np.random.default_rng(seed)
    codes = adata.obs[cell_type].astype(str).to_numpy()
    drawn = [rng.permutation(np.flatnonzero(codes == name))[:per_type] for name in types]
    found = adata[np.concatenate(drawn)]
    found = found.to_memory() if adata.isbacked else found.copy()
    found.X = sp.csr_matrix(found.layers[layer] if layer else found.X, dtype=np.float32)
    if fault := not_counts(found.X.data):
        raise ValueError(f"{f'layer {layer!r}' if layer else 'X'} {fault}")
    found.obs["type"] = np.repeat(types, [len(d) for d in drawn])
    return found


def variable_genes(adata: AnnData, n: int = VARIABLE_GENES) -> np.ndarray:
    """Return which genes are used: those flagged in ``var["highly_variable"]``, or the `n` most variable.

    Variable is by the dispersion of log-normalised values (scanpy's "seurat").
    """
    import scanpy as sc

    if "highly_variable" in adata.var:
        return adata.var["highly_variable"].to_numpy(dtype=bool)
    seen = np.asarray((adata.X > 0).sum(axis=0)).ravel() >= 3
    if seen.sum() <= n:
        return seen
    logs = adata[:, seen].copy()
    sc.pp.normalize_total(logs, target_sum=1e4)
    sc.pp.log1p(logs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, about its own future
        flags = sc.pp.highly_variable_genes(logs, n_top_genes=n, flavor="seurat", inplace=False)
    chosen = np.zeros(adata.n_vars, dtype=bool)
    chosen[np.flatnonzero(seen)[flags["highly_variable"].to_numpy()]] = True
    return chosen


def inputs(adata: AnnData, genes: np.ndarray) -> dict[str, Any]:
    """Return what is compared: input -> matrix of cells by the chosen genes; totals are over all genes."""
    import scipy.sparse as sp

    x = sp.csr_matrix(adata.X, dtype=np.float32)
    totals = np.asarray(x.sum(axis=1)).ravel()
    chosen = x[:, np.flatnonzero(genes)]
    logs = sp.diags((1e4 / np.maximum(totals, 1)).astype(np.float32)) @ chosen
    logs = logs.log1p().tocsr()
    return {
        "raw": chosen,
        "log": logs,
        "log standardised": Pearson(logs).rows,
        "rank": Spearman(chosen).rows,
    }


def project(x: Any, how: str, seed: int = 0) -> np.ndarray:
    """Return cells in few dimensions: "PCA-50" or "UMAP-5", the latter with umap-learn's defaults.

    With a seed UMAP runs on one thread and repeats itself on the same machine, not on every one.
    """
    x = np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float32)  # sparse is far slower
    if how == "UMAP-5":
        from umap import UMAP

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a seed means one thread
            return UMAP(n_components=5, random_state=seed).fit_transform(x)
    if how != "PCA-50":
        raise ValueError(f"no projection is called {how!r}; there are {', '.join(PROJECTIONS)}")
    from sklearn.decomposition import PCA

    return PCA(min(50, *x.shape), svd_solver="randomized", random_state=seed).fit_transform(x)


def measure(x: Any, name: str, projection: str, seed: int = 0) -> tuple[Measure, Any]:
    """Return the measure of one arm and the matrix that it is of.

    Without a projection, rows that are centred and of length one have their product: a correlation.
    """
    if projection != "none":
        x = project(x, projection, seed)
        return Euclid(x), x
    return (Cosine(x) if name in ("log standardised", "rank") else Euclid(x)), x


def scores(of: Measure, x: Any, labels: np.ndarray, seed: int = 0) -> tuple[list[dict], pairs.Summary]:
    """Score one arm: pair AUC, Cohen's d, ratio, spread of the pairs, and accuracy of nearest neighbours.

    The null of each has permuted labels.

    Returns
    -------
    rows : list of dict
        `metric`, `value`, `null`.
    summary : Summary
    """
    permuted = np.random.default_rng(seed).permutation(labels)
    found, nothing = pairs.summarise(of, labels), pairs.summarise(of, permuted)
    values, null = found.effects(), nothing.effects()
    for which in ("within", "between"):
        for name, (low, high) in {"IQR": (0.25, 0.75), "90 % range": (0.05, 0.95)}.items():
            for summary, into in ((found, values), (nothing, null)):
                spread = summary.quantile(high, which) - summary.quantile(low, which)
                into[f"{name} {which}"] = spread
    values["kNN"], null["kNN"] = (knn(x, names, seed) for names in (labels, permuted))
    return [_row(m, values[m], null[m]) for m in values], found


def _row(metric: str, value: float, null: float) -> dict[str, Any]:
    return {"metric": metric, "value": float(value), "null": float(null)}


def knn(x: Any, labels: np.ndarray, seed: int = 0) -> float:
    """Return the balanced accuracy of the 15 nearest cells, by Euclidean distance, cross-validated."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    said = cross_val_predict(KNeighborsClassifier(NEIGHBOURS), x, labels, cv=folds)
    return float(balanced_accuracy_score(labels, said))


def mantel(a: np.ndarray, b: np.ndarray, draws: int = 999, seed: int = 0) -> tuple[float, float]:
    """Return Spearman's correlation of two types x types matrices, and its p-value when types are permuted.

    Pairs that share a type are not independent, so the types of one matrix are permuted (Mantel's test).
    """
    from scipy.stats import rankdata

    first, second = np.triu_indices(len(a), 1)
    ra = rankdata(a[first, second])
    rng, found = np.random.default_rng(seed), []
    for i in range(draws + 1):
        order = np.arange(len(b)) if i == 0 else rng.permutation(len(b))
        rb = rankdata(b[np.ix_(order, order)][first, second])
        found.append(np.corrcoef(ra, rb)[0, 1])
    return float(found[0]), float(np.mean(np.array(found) >= found[0] - 1e-12))


def run(
    dataset: str, adata: AnnData, per_type: int, least: int | None = None, seed: int = 0,
    geneformer_folder: str = "", folder: Path | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Score all arms and controls on one draw of cells, store and return the rows.

    Parameters
    ----------
    dataset : str
        Name for the results, ``rank/<dataset>-seed<k>``; what is stored is not run again.
    adata : AnnData
        Raw counts, types in ``obs["cell_type"]``.
    per_type, least
        See :func:`draw`.
    seed : int
        Of the draw, of UMAP, of the permuted labels and of the random weights.
    geneformer_folder : str
        See :func:`.embed_geneformer`.
    folder : path, optional
        Of the results; by default the repository's.
    """
    import scanpy as sc

    where = f"rank/{dataset}-seed{seed}"
    if results.stored(where, folder):
        return results.read(where, folder)
    cells = draw(adata, "cell_type", per_type, least, seed)
    labels, genes = cells.obs["type"].to_numpy(), variable_genes(cells)
    rows = []

    def add(model: str, variant: str, found: list[dict]) -> None:
        rows.extend(
            {"dataset": dataset, "seed": seed, "model": model, "variant": variant, **r} for r in found
        )

    medians = {}
    x = inputs(cells, genes)
    for name in INPUTS:
        for projection in PROJECTIONS:
            found, summary = scores(*measure(x[name], name, projection, seed), labels, seed)
            add(name, projection, found)
            medians[name, projection] = summary.median if summary.alike is False else -summary.median
    totals = np.asarray(cells.X.sum(axis=1)).ravel()
    depth = int(np.quantile(totals, 0.05))
    enough = cells[totals >= depth]
    same = sc.pp.downsample_counts(enough, counts_per_cell=depth, random_state=seed, copy=True)
    y = inputs(same, genes)
    for name in ("log", "rank"):
        for projection in PROJECTIONS:
            arm = measure(y[name], name, projection, seed)
            add(name, f"{projection}, one depth", scores(*arm, same.obs["type"].to_numpy(), seed)[0])
    model = "Geneformer" if geneformer_folder else "Geneformer untrained"
    embedded = embed_geneformer(cells, geneformer_folder, seed=seed)
    for projection in ("none", "UMAP-5"):
        found, summary = scores(*measure(embedded, model, projection, seed), labels, seed)
        add(model, projection, found)
        medians[model, projection] = summary.median
    for name, matrix in zeros_and_ranks(x["raw"]).items():
        add(name, "none", [_row("kNN", knn(matrix, labels, seed), 1 / len(set(labels)))])
    for (name, projection), of in medians.items():
        value = mantel(medians["log", "UMAP-5"], of, draws=0)[0]
        add(name, projection, [_row("agreement with log UMAP-5", value, 0.0)])
    for name, share in changed_by_squaring(cells, seed).items():
        add(name, "encoding", [_row("changed by squaring", share, 0.0)])
    facts = {
        "data": results.fingerprint(adata), "cells": cells.n_obs, "types": len(set(labels)),
        "per_type": per_type, "genes": int(genes.sum()), "depth": depth,
        "zeros": float(1 - x["raw"].nnz / np.prod(x["raw"].shape)),
    }  # fmt: skip
    results.write(where, rows, results.provenance(**facts), folder)
    return results.read(where, folder)
