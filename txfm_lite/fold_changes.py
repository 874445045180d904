r"""How much one gene must change before an encoding shows it, and what else changes with it.

Multiply gene g's count c by f > 1. An order shows nothing until the gene passes its next higher neighbour,
scGPT's bins until it enters the next bin, scBERT's until log2(1 + CP10k) reaches a whole number; a value
shows any f. The smallest f that shows, and the largest below 1, are closed forms in the cell's sorted values
(:func:`minimum_fold_changes`). Molecules come whole, so that no f below (c + 1) / c exists:
:func:`molecules_to_change` counts them.

The total of the cell grows with the gene. Where counts are divided by it, every *other* gene falls a little:
:func:`others_changed` counts these. In an order nothing happens among the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .robustness import ORDERS, matrix, order

if TYPE_CHECKING:
    import scipy.sparse as sp

N_EDGES = 50  # of scGPT's bins: 51 with that of the zeros
TOP = 5  # scBERT's last bin


def minimum_fold_changes(
    encoding: str, counts: sp.csr_matrix, medians: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest factor above 1, and the largest below, at which a gene's own encoding changes.

    Equal values are no neighbours: their order is chance, and a gene among equals has changed when it passes
    the next *different* value. The factors are limits: just beyond them something changes.

    Parameters
    ----------
    encoding : str
        One of :data:`txfm_lite.robustness.KINDS`.
    counts : csr_matrix, shape (n, G)
        Without stored zeros; any values above zero.
    medians : ndarray, shape (G,), optional
        For Geneformer.

    Returns
    -------
    up, down : ndarray, shape (nnz,)
        For each stored count. `up` is inf where no factor changes anything, as for the first gene of an
        order; `down` is 0 where only the loss of the gene does. nan: the model does not know the gene.
    """
    if encoding in ORDERS or encoding == "scGPT":
        near = _neighbours(encoding, counts, medians)
        return near.higher / near.value, near.lower / near.value
    if encoding == "scBERT":
        return _absolute(counts)
    return np.ones(counts.nnz), np.ones(counts.nnz)


def molecules_to_change(
    encoding: str, counts: sp.csr_matrix, medians: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many molecules more, and how many fewer, a gene needs until its own encoding changes.

    Here equal values matter: a gene that leaves its equals, or joins others, has changed, and so has one in
    scGPT's bins if other bins become possible for it.

    Returns
    -------
    more, fewer : ndarray, shape (nnz,)
        inf where no number is enough; nan where the model does not know the gene.
    """
    count = counts.data.astype(np.float64)
    if encoding in ORDERS or encoding == "scGPT":
        near = _neighbours(encoding, counts, medians)
        unit = near.value / count  # of the value, in one molecule
        higher, lower = np.ceil(near.higher / unit - 1e-9), np.floor(near.lower / unit + 1e-9)
        more, fewer = higher - count, count - lower + near.strict
        return np.where(near.loose_up, 1, more), np.where(near.loose_down, 1, fewer)
    if encoding == "scBERT":
        up, down = _absolute(counts)
        more = np.maximum(np.ceil(up * count - 1e-9) - count, 1)
        fewer = count - np.ceil(down * count - 1e-9) + 1
        return more, np.where(down > 0, fewer, np.inf)  # below CP10k = 1 a gene is a zero already
    return np.ones(counts.nnz), np.ones(counts.nnz)


class _Near(NamedTuple):
    """What lies next to each entry, shape (nnz,)."""

    value: np.ndarray
    higher: np.ndarray  # values that must be passed
    lower: np.ndarray
    loose_up: np.ndarray  # bool: one step is enough
    loose_down: np.ndarray
    strict: np.ndarray  # bool: to become equal to `lower` is not enough


def _neighbours(encoding: str, counts: sp.csr_matrix, medians: np.ndarray | None) -> _Near:
    """Look at each cell's sorted values.

    In an order one step up or down is enough for a gene that has equals. In scGPT's bins it is for one whose
    equals spread over several bins, or reach into a bin that the lowest of them alone would not be in.
    """
    value = counts.data.astype(np.float64)
    if encoding == "Geneformer":
        value = value / medians[counts.indices]
    higher, lower = np.full((2, len(value)), np.nan)
    loose_up, loose_down, strict = np.zeros((3, len(value)), dtype=bool)
    for a, b in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        known = a + np.flatnonzero(~np.isnan(value[a:b]))
        ranked = np.sort(value[known])
        first = np.searchsorted(ranked, value[known])
        last = np.searchsorted(ranked, value[known], side="right") - 1
        up, down = last + 1, first - 1
        padded = np.concatenate([[0.0], ranked, [np.inf]])
        if encoding == "scGPT":
            up, down, spread = _bin_neighbours(first, last, len(ranked))
            loose_up[known], loose_down[known] = spread, spread | (down >= first)
            joined = np.searchsorted(ranked, padded[down + 1])  # first place of those that it would equal
            strict[known] = (down >= 0) & ~_bin_neighbours(joined, first, len(ranked))[2]
        else:
            loose_up[known] = loose_down[known] = last > first
        higher[known], lower[known] = padded[up + 1], padded[down + 1]
    return _Near(value, higher, lower, loose_up, loose_down, strict)


def _bin_neighbours(first: np.ndarray, last: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places that a gene must pass to get into another bin, -1 or n if there is none.

    `first` and `last` are the places of its equals, which rise with the value. Edge k of N_EDGES stands
    k (n - 1) / (N_EDGES - 1) places up, so that a gene alone at place j is in bin
    floor(j (N_EDGES - 1) / (n - 1)) + 1, whatever the values are. The third array tells whose equals have
    several bins to choose from.
    """
    steps, top = N_EDGES - 1, max(n - 1, 1)
    below, reached = -(-first * steps // top), last * steps // top + 1
    if n == 1:
        reached = np.full_like(reached, N_EDGES)  # all edges lie on the one value
    lowest = np.minimum(below + 1, reached)
    up = -(-reached * top // steps)  # first place at edge number `reached`
    down = -(-(lowest - 1) * top // steps) - 1  # last place below edge number lowest - 1
    return np.minimum(np.where(reached > steps, n, up), n), np.minimum(down, last), reached > lowest


def _absolute(counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors at which 10,000 f c / (N + (f - 1) c) meets the next edge, up and down."""
    count = counts.data.astype(np.float64)
    total = np.repeat(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel(), np.diff(counts.indptr))
    edges = 2.0 ** np.arange(1, TOP + 1) - 1
    bins = np.searchsorted(edges, 1e4 * count / total, side="right")
    next_up = np.append(edges, np.inf)[bins]
    next_down = np.concatenate([[0.0], edges])[bins]
    with np.errstate(invalid="ignore"):
        up, down = (t * (total - count) / (count * (1e4 - t)) for t in (next_up, next_down))
    return np.where(np.isinf(next_up), np.inf, up), down


def others_changed(
    encoding: str,
    before: sp.csr_matrix,
    after: sp.csr_matrix,
    genes: np.ndarray,
    medians: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what share of the *other* genes changes when one gene of each cell does.

    Parameters
    ----------
    encoding : str
    before, after : csr_matrix, shape (n, G)
        They differ in gene ``genes[i]`` of cell i (:func:`multiply`,
        :func:`txfm_lite.robustness.add_molecules`).
    genes : ndarray of int, shape (n,)
    medians : ndarray, shape (G,), optional
        For Geneformer.

    Returns
    -------
    changed : ndarray, shape (n,)
        Share of the other detected genes with another value, another bin, or, in an order, another place
        among the others.
    moved : ndarray, shape (n,)
        The same, but in an order by the place in the list: every gene that was passed moves by one.
    """
    if encoding in ORDERS:
        return _order_changed(encoding, before, after, genes, medians)
    n = before.shape[0]
    differs = (matrix(encoding, before, medians, None) != matrix(encoding, after, medians, None)).tolil()
    differs[np.arange(n), genes] = False
    share = np.asarray(differs.tocsr().sum(axis=1)).ravel() / _others(before, genes)
    return share, share


def multiply(counts: sp.csr_matrix, genes: np.ndarray, factor: int) -> sp.csr_matrix:
    """Multiply the count of gene ``genes[i]`` in cell i by a factor, float32."""
    raised = counts.astype(np.float32).tolil()
    raised[np.arange(counts.shape[0]), genes] *= factor
    return raised.tocsr()


def _others(counts: sp.csr_matrix, genes: np.ndarray) -> np.ndarray:
    """Return how many genes other than the one are detected in each cell; at least 1, to divide by."""
    own = np.asarray(counts[np.arange(counts.shape[0]), genes]).ravel() > 0
    return np.maximum(np.diff(counts.indptr) - own, 1)


def _order_changed(
    encoding: str, before: sp.csr_matrix, after: sp.csr_matrix, genes: np.ndarray, medians: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    lists = [order(encoding, x, medians, seed=None) for x in (before, after)]
    changed, moved = np.zeros((2, len(genes)))
    for i, gene in enumerate(genes):
        old, new = (columns[indptr[i] : indptr[i + 1]] for indptr, columns in lists)
        others, still = old[old != gene], new[new != gene]
        if len(others):
            places = [np.flatnonzero(x != gene) for x in (old, new)]  # of the others, in their own order
            now = dict(zip(still.tolist(), places[1].tolist(), strict=True))
            changed[i] = np.mean(others != still)
            moved[i] = np.mean(places[0] != np.array([now[g] for g in others.tolist()]))
    return changed, moved
