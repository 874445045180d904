"""Whether batches mix: in neighbourhoods (iLISI, graph connectivity) and in variance (PCR).

A warning belongs to every score of mixing: an embedding that knows nothing mixes batches perfectly. What is
reached without information, the ``null``, is the best that can be reached, the ``ceiling``: the value for
batches that are dealt out at random. So nothing can be corrected for chance, means of corrected scores leave
these out, and high mixing is good news only beside high scores for cell types.

The neighbours are always those of the array that is passed in, found here: published scores have used a
graph that lay in the dataset from another embedding (theislab/scib, issue 389).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from .scores import partial

if TYPE_CHECKING:
    from scib_metrics.nearest_neighbors import NeighborsResults

log = logging.getLogger("txfm_lite")

N_NEIGHBORS = 15  # of the graph for clusters and connectivity, the cell itself included, as in scanpy
PERPLEXITY = 30  # of iLISI, which looks at three times as many neighbours


def evaluate(
    values: np.ndarray,
    labels: np.ndarray,
    batches: np.ndarray,
    *,
    counts=None,
    nearest: NeighborsResults | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Score how well batches mix.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    labels, batches : array, shape (n,)
    counts : array or sparse matrix, shape (n, G), optional
        Raw counts, for the PCR comparison.
    nearest : NeighborsResults, optional
        Of these `values`, when :func:`neighbours` has been called already.
    seed : int
        Of the permutations.

    Returns
    -------
    list of dict
        Partial rows "iLISI" (three variants), "graph connectivity", "PCR" and "PCR comparison".
    """
    nearest = nearest or neighbours(values, seed=seed)
    return [
        *ilisi(values, batches, seed, nearest),
        graph_connectivity(nearest, labels, seed),
        *pcr(values, batches, counts),
    ]


def neighbours(values: np.ndarray, k: int = 3 * PERPLEXITY + 1, seed: int = 0) -> NeighborsResults:
    """Find each cell's exact nearest neighbours by Euclidean distance.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    k : int
        The cell itself, which comes first, and its ``k - 1`` nearest others; at most n.
    seed : int
        Where distances tie, as between identical rows, the neighbours are a random choice and not the cells
        that happen to stand first in the file.

    Returns
    -------
    scib_metrics.nearest_neighbors.NeighborsResults
        ``indices`` and ``distances``, shape (n, k). Found block by block, so memory grows with n · k.
    """
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    n = len(values)
    order = generator(seed).permutation(n)
    back = np.argsort(order)
    distances, found = NearestNeighbors(n_neighbors=min(k, n) - 1).fit(values[order]).kneighbors()
    indices = np.column_stack([np.arange(n), order[found[back]]])
    return NeighborsResults(indices, np.column_stack([np.zeros(n), distances[back]]))


def generator(seed: int) -> np.random.Generator:
    """Return the generator of a null's permutations.

    A stream of its own: labels permuted by the numbers that scrambled an embedding's rows, or drew a split,
    would fit them perfectly.
    """
    return np.random.default_rng([seed, 1])


def ilisi(
    values: np.ndarray, batches: np.ndarray, seed: int = 0, nearest: NeighborsResults | None = None
) -> list[dict[str, Any]]:
    r"""Score local mixing: how many batches a cell's neighbourhood holds (Korsunsky et al. 2019).

    :math:`\mathrm{LISI}_i = 1 / \sum_b (\sum_{j \in b} p_{ij})^2` with Gaussian-like weights
    :math:`p_{ij} \propto e^{-\beta_i d_{ij}}` of perplexity 30 over 90 neighbours; the mean over cells.

    Published versions scale differently, by :math:`(L-1)/(B-1)` or not at all, and none has its maximum at 1:
    with 48 batches, perfect mixing reaches 0.4. Hence the third variant.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    batches : array, shape (n,)
    seed : int
        Of the permutation.
    nearest : NeighborsResults, optional
        As in :func:`evaluate`.

    Returns
    -------
    list of dict
        Partial rows with metric "iLISI" and variant "raw" (from 1 to the number of batches B), "scaled"
        (:math:`(L-1)/(B-1)`) and "of permuted" (raw, as a share of the value for permuted batches). Their
        values are nan for a single batch.
    """
    import pandas as pd
    from scib_metrics import lisi_knn

    codes, names = pd.factorize(np.asarray(batches, dtype=object))
    n, b = len(codes), len(names)
    if b < 2:
        return [partial("iLISI", np.nan, variant=v, n=n) for v in ("raw", "scaled", "of permuted")]
    nearest = nearest or neighbours(values, seed=seed)
    perplexity = min(PERPLEXITY, (nearest.n_neighbors - 1) // 3)

    def mean(batch: np.ndarray) -> float:
        lisi = lisi_knn(nearest, batch, perplexity)
        return float(np.where(lisi < 1, 1, lisi).mean())  # -1: a twin so near that nobody else has a weight

    raw, best = mean(codes), mean(generator(seed).permutation(codes))
    scaled, best_scaled = (raw - 1) / (b - 1), (best - 1) / (b - 1)
    return [
        partial("iLISI", raw, variant="raw", null=best, ceiling=best, n=n),
        partial("iLISI", scaled, variant="scaled", null=best_scaled, ceiling=best_scaled, n=n),
        partial("iLISI", raw / best, variant="of permuted", null=1, n=n),
    ]


def graph_connectivity(nearest: NeighborsResults, labels: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Score whether the cells of a type hang together in the graph of 15 neighbours.

    The mean over types of the share of cells in the type's largest connected component, as in scib, where an
    edge has no direction. (scib-metrics asks for paths both ways; a cell that is nobody's neighbour is then
    cut off.) The null is the mean over five permutations of the labels.
    """
    from scipy.sparse.csgraph import connected_components

    graph = nearest.subset_neighbors(min(N_NEIGHBORS, nearest.n_neighbors)).knn_graph_distances
    graph.data[:] = 1  # else neighbours at distance 0 might be taken for none

    def connected(labels: np.ndarray) -> float:
        members = (np.flatnonzero(labels == label) for label in np.unique(labels))
        found = (connected_components(graph[m][:, m], connection="weak")[1] for m in members)
        return float(np.mean([np.bincount(component).max() / len(component) for component in found]))

    labels, rng = np.asarray(labels), generator(seed)
    null = np.mean([connected(rng.permutation(labels)) for _ in range(5)])
    return partial("graph connectivity", connected(labels), null=null, n=len(labels))


def pcr(values: np.ndarray, batches: np.ndarray, counts=None) -> list[dict[str, Any]]:
    r"""Score the share of variance that lies between batches: principal component regression.

    Summed over *all* components, :math:`\sum_i R_i^2 v_i / \sum_i v_i` is the sum of squares between batches
    over the total, whatever the axes: no component has to be computed, and counts may stay sparse.
    Published code keeps 50 components, regresses on the batch's *number* unless told that it is a category,
    and once weighted by squared variances.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    batches : array, shape (n,)
    counts : array or sparse matrix, shape (n, G), optional
        Raw counts; log(1 + counts per 10,000) is what the comparison starts from.

    Returns
    -------
    list of dict
        "PCR": **lower is better**. Its ceiling is the value expected for permuted batches,
        :math:`(B-1)/(n-1)`; to show the direction, its null is not that, but 1: all variance is between
        batches. "PCR comparison": (before - after) / before, not below 0; nan without counts. Both are nan
        for one batch or no variance.
    """
    import pandas as pd
    import scipy.sparse as sp

    codes, names = pd.factorize(np.asarray(batches, dtype=object))
    n, b = len(codes), len(names)
    after = between_share(values, codes)
    before = np.nan
    if counts is not None:
        counts = sp.csr_matrix(counts)
        scale = 1e4 / np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
        before = between_share(sp.diags(scale).dot(counts).log1p(), codes)
    least = (b - 1) / (n - 1)

    def reduced(to: float) -> float:
        return max(0.0, (before - to) / before) if before > 0 and np.isfinite(to) else np.nan

    return [
        partial("PCR", after, null=1, ceiling=least, n=n),
        partial("PCR comparison", reduced(after), null=reduced(least), ceiling=reduced(least), n=n),
    ]


def between_share(x, groups: np.ndarray) -> float:
    """Return the sum of squares between groups over the total one; nan for one group or no variance.

    Parameters
    ----------
    x : array or sparse matrix, shape (n, d)
    groups : ndarray of int, shape (n,)
        From 0 on, none empty.
    """
    import scipy.sparse as sp

    n, sizes = len(groups), np.bincount(groups)
    if not sp.issparse(x):
        x = np.asarray(x, dtype=np.float64)
        x = x - x.mean(axis=0)
    members = sp.csr_matrix((np.ones(n), (groups, np.arange(n))), shape=(len(sizes), n))
    sums = members @ x
    sums = sums.toarray() if sp.issparse(sums) else sums
    squares = x.power(2).sum() if sp.issparse(x) else np.square(x).sum()
    offset = np.square(sums.sum(axis=0)).sum() / n
    total, between = squares - offset, (np.square(sums).sum(axis=1) / sizes).sum() - offset
    return float(between / total) if len(sizes) > 1 and total > 1e-12 * max(squares, 1e-300) else np.nan
