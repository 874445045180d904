"""Cell types: whether clusters, distances, neighbours and classifiers find them, also in unseen batches.

:func:`evaluate` scores an embedding in every way that the published comparisons do, and with what they leave
out: each score's chance level. The single scores are in this module (clusters, neighbours),
:mod:`~txfm_lite.evaluate.silhouettes`, :mod:`~txfm_lite.evaluate.mixing` and
:mod:`~txfm_lite.evaluate.probes`. All take plain arrays and make every graph from them, so that nothing that
lies in a dataset from an earlier analysis can be scored by mistake.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from . import mixing, probes, silhouettes
from .scores import partial

if TYPE_CHECKING:
    import pandas as pd
    from scib_metrics.nearest_neighbors import NeighborsResults

log = logging.getLogger("txfm_lite")

RESOLUTIONS = tuple(i / 5 for i in range(1, 11))  # 0.2, 0.4, ... 2.0

#: (metric, variant) of the columns of the TxFM paper's tables 4 and 7, in their order.
PUBLISHED = (
    ("ASW", ""), ("NMI", "Louvain"), ("ARI", "Louvain"), ("ASW l/b", "scib"), ("linear accuracy", ""),
    ("linear F1", ""), ("MLP accuracy", ""), ("MLP F1", ""),
)  # fmt: skip


def evaluate(values: np.ndarray, obs: pd.DataFrame, *, counts=None, seed: int = 0) -> list[dict[str, Any]]:
    """Score an embedding against cell types, and how it treats batches.

    Parameters
    ----------
    values : ndarray, shape (n, d)
        Row i is cell i of `obs`.
    obs : DataFrame
        Columns ``cell_type`` and ``batch``. A cell for which either is missing is left out; where no cell has
        a batch, all are taken to be of one.
    counts : array or sparse matrix, shape (n, G), optional
        Raw counts, for the PCR comparison alone.
    seed : int
        Of clusters, permutations and networks; it also picks the networks' test batches.

    Returns
    -------
    list of dict
        Partial rows (:func:`txfm_lite.evaluate.scores.partial`): those of :func:`clusters`, of :func:`knn`
        and of the three other modules' ``evaluate``. What cannot be said is nan, and the log says why: with
        one batch, everything about batches.

    Raises
    ------
    ValueError
        If lengths differ, a value is missing or infinite, a column is missing, or there are fewer than two
        cell types or eight cells.
    """
    values, labels, batches, kept = _checked(values, obs)
    counts = None if counts is None else counts[kept]
    nearest = mixing.neighbours(values, seed=seed)
    if len(set(batches)) == 1:
        log.warning("one batch: scores that compare batches are undefined")
    return [
        *clusters(nearest, labels, seed),
        *silhouettes.evaluate(values, labels, batches, seed),
        *mixing.evaluate(values, labels, batches, counts=counts, nearest=nearest, seed=seed),
        knn(values, labels, batches),
        *probes.evaluate(values, labels, batches, seed),
    ]


def _checked(values: np.ndarray, obs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return values, labels and batches of the cells that have both, and which those are."""
    values = np.asarray(values)
    if values.ndim != 2 or len(values) != len(obs):
        raise ValueError(f"an embedding of shape {values.shape} for {len(obs)} cells in obs")
    if missing := {"cell_type", "batch"} - set(obs.columns):
        raise ValueError(f"obs has no column {', '.join(sorted(missing))}: name them in obs, or rename yours")
    if (bad := np.flatnonzero(~np.isfinite(values).all(axis=1))).size:
        raise ValueError(
            f"{bad.size} rows of the embedding have missing or infinite values, the first is row {bad[0]}: "
            "leave these cells out of obs, too"
        )
    labels, batches = obs["cell_type"], obs["batch"]
    if batches.isna().all():
        batches = batches.astype(object).fillna("all")
    kept = (labels.notna() & batches.notna()).to_numpy()
    values, labels, batches = values[kept], labels[kept].astype(str), batches[kept].astype(str)
    if labels.nunique() < 2 or len(labels) < 8:
        raise ValueError(f"{len(labels)} cells with a label, {labels.nunique()} cell types: too few to score")
    return values, labels.to_numpy(dtype=str), batches.to_numpy(dtype=str), kept


def clusters(nearest: NeighborsResults, labels: np.ndarray, seed: int = 0) -> list[dict[str, Any]]:
    """Compare clusters of the neighbour graph with the cell types, at ten resolutions.

    As published: the resolution with the best normalised mutual information (NMI, arithmetic mean) is kept,
    and NMI and the adjusted Rand index (ARI) are reported there. That choice looks at the labels, so beside
    it stands the result at resolution 1, which does not. Clusters by Leiden's and by Louvain's algorithm
    (igraph), on scanpy's graph of 15 neighbours.

    The choice has a price: where many resolutions give one cluster per cell, or nearly, the NMI with *any*
    labels is high. The null has been through the same choice, and shows it.

    Parameters
    ----------
    nearest : NeighborsResults
        From :func:`txfm_lite.evaluate.mixing.neighbours`, of the embedding under test.
    labels : array of str, shape (n,)
    seed : int

    Returns
    -------
    list of dict
        Partial rows, metrics "NMI" and "ARI", variants "Leiden", "Leiden, resolution 1", "Louvain" and
        "Louvain, resolution 1". Nulls: the mean of five permutations of the labels, each with its own best
        resolution.
    """
    import igraph
    import pandas as pd
    import scipy.sparse as sp
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    near = nearest.subset_neighbors(min(mixing.N_NEIGHBORS, nearest.n_neighbors))
    edges = sp.triu(near.knn_graph_connectivities, k=1).tocoo()
    graph = igraph.Graph(n=edges.shape[0], edges=np.column_stack([edges.row, edges.col]))
    truth, rng = pd.factorize(np.asarray(labels))[0], mixing.generator(seed)
    permuted = [rng.permutation(truth) for _ in range(5)]
    fixed, rows = RESOLUTIONS.index(1.0), []
    for algorithm in ("Leiden", "Louvain"):
        found = [_communities(graph, edges.data, algorithm, r, seed) for r in RESOLUTIONS]
        scores = [
            np.array([[f(y, c) for f in (normalized_mutual_info_score, adjusted_rand_score)] for c in found])
            for y in (truth, *permuted)
        ]  # each (resolutions, 2)
        for variant, choose in ((algorithm, None), (f"{algorithm}, resolution 1", fixed)):
            value, *nulls = (s[s[:, 0].argmax() if choose is None else choose] for s in scores)
            rows += [
                partial(metric, value[i], variant=variant, null=np.mean(nulls, axis=0)[i], n=len(truth))
                for i, metric in enumerate(("NMI", "ARI"))
            ]
    return rows


def _communities(graph, weights: np.ndarray, algorithm: str, resolution: float, seed: int) -> list[int]:
    """Return each cell's cluster; igraph draws from Python's generator, which is given back as it was."""
    import random

    state = random.getstate()
    random.seed(seed)
    try:
        if algorithm == "Louvain":
            return graph.community_multilevel(weights=weights, resolution=resolution).membership
        how = {"objective_function": "modularity", "weights": weights, "n_iterations": 2}
        return graph.community_leiden(resolution=resolution, **how).membership
    finally:
        random.setstate(state)


def knn(values: np.ndarray, labels: np.ndarray, batches: np.ndarray, n_neighbors: int = 15) -> dict[str, Any]:
    """Return :func:`knn_across_batches` as a partial row "kNN"; nan if no type is in two batches.

    The null predicts, for each batch, the most frequent type of all other batches.
    """
    truth, predicted, prior = _across_batches(values, labels, batches, n_neighbors)
    if not truth:
        log.warning("no cell type is in two batches: neighbours across batches cannot be compared")
    accuracy, null = (_balanced_accuracy(truth, guess) for guess in (predicted, prior))
    return partial("kNN", accuracy, null=null, n=len(truth))


def knn_across_batches(
    embedding: np.ndarray, labels: pd.Series, batches: pd.Series, n_neighbors: int = 15
) -> float:
    """Classify the cells of each batch by their nearest neighbours among the cells of all other batches.

    Parameters
    ----------
    embedding : ndarray, shape (n, d)
    labels, batches : Series or array of str, shape (n,)
        A cell whose label or batch is missing is left out.
    n_neighbors : int

    Returns
    -------
    float
        Balanced accuracy over all cells that have a label which another batch has too.

    Raises
    ------
    ValueError
        If the lengths differ, or no label occurs in two batches.
    """
    truth, predicted, _ = _across_batches(embedding, labels, batches, n_neighbors)
    if not truth:
        raise ValueError("no label occurs in two batches: nothing can be classified across batches")
    return _balanced_accuracy(truth, predicted)


def _across_batches(embedding, labels, batches, n_neighbors: int) -> tuple[list, list, list]:
    """Return true and predicted labels of all cells that count, and those predicted without the embedding."""
    import pandas as pd
    from sklearn.preprocessing import normalize

    labels, batches = (np.asarray(x, dtype=object) for x in (labels, batches))
    if not len(embedding) == len(labels) == len(batches):
        raise ValueError(f"{len(embedding)} embeddings, {len(labels)} labels, {len(batches)} batches")
    known = pd.notna(labels) & pd.notna(batches)
    # between rows of length 1, the Euclidean distance ranks as the cosine does, found faster, in less memory
    embedding, labels, batches = normalize(np.asarray(embedding)[known]), labels[known], batches[known]
    labels, batches = labels.astype(str), batches.astype(str)
    truth, predicted, prior = [], [], []
    for batch in pd.unique(batches):
        inside = batches == batch
        if not inside.all():
            pair = embedding[~inside], labels[~inside], embedding[inside], labels[inside]
            true, guess = _classify(*pair, n_neighbors)
            truth, predicted = truth + true, predicted + guess
            prior += [pd.Series(labels[~inside]).mode()[0]] * len(true)
    return truth, predicted, prior


def _classify(reference, reference_labels, query, query_labels, n_neighbors) -> tuple[list, list]:
    """Return the labels, true and predicted, of the query cells whose label the reference has."""
    from sklearn.neighbors import KNeighborsClassifier

    counted = np.isin(query_labels, reference_labels)
    if not counted.any():
        return [], []
    classifier = KNeighborsClassifier(min(n_neighbors, len(reference))).fit(reference, reference_labels)
    return query_labels[counted].tolist(), classifier.predict(query[counted]).tolist()


def _balanced_accuracy(truth: list[str], predicted: list[str]) -> float:
    from sklearn.metrics import recall_score

    if not truth:
        return float("nan")
    # a predicted label that no query cell has is a mistake, not a class of its own
    return float(recall_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0))
