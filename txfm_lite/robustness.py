"""Disturb counts in known ways, and see each encoding as a matrix of cells by genes.

The disturbances keep counts whole: molecules are lost (:func:`thin`), dealt into two halves (:func:`halves`),
found one more (:func:`add_molecules`), or added up over cells (:func:`pool`). Thinning is what a shallower
sequencing run does to a cell, so that its replicates differ by sampling alone.

To compare encodings by one probe and one distance, each is written as a matrix (:func:`matrix`): a gene's
value in a cell is its count, its logarithm, its bin, or its place in the cell's order, and 0 where the model
is not shown the gene. The genes are those of the data, the same for all encodings: what is compared are the
rules, not the vocabularies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .encodings_arrays import (
    absolute_bins,
    cp,
    descending,
    generators,
    log_normalise,
    quantile_bins,
    shuffle_ties,
    sort_rows,
)

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData

#: Encoding -> what of it is a function of the order within a cell: the places, bins of them, or nothing.
KINDS = {
    "Geneformer": "order",
    "cell2sentence": "order",
    "scGPT": "bins of the order",
    "scBERT": "absolute bins",
    "log counts": "values",
    "raw counts": "values",
}
ORDERS = tuple(name for name, kind in KINDS.items() if kind == "order")


def thin(counts: sp.csr_matrix, share: float | np.ndarray, seed: int = 0) -> sp.csr_matrix:
    """Keep each molecule with probability `share`.

    Parameters
    ----------
    counts : csr_matrix, shape (n, G)
        Whole numbers.
    share : float or ndarray, shape (n,)
        One for all cells, or one for each.
    seed : int

    Returns
    -------
    csr_matrix, float32, shape (n, G)

    Raises
    ------
    ValueError
        If a count is no whole number, or `share` is not between 0 and 1.
    """
    whole = _whole(counts)
    share = np.broadcast_to(np.asarray(share, dtype=np.float64), counts.shape[0])
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"share lies between {share.min():.3g} and {share.max():.3g}: should be in 0 to 1")
    rng = np.random.default_rng([seed, 6])
    kept = counts.astype(np.float32)  # a copy
    kept.data[:] = rng.binomial(whole, np.repeat(share, np.diff(counts.indptr)))
    kept.eliminate_zeros()
    return kept


def halves(counts: sp.csr_matrix, seed: int = 0) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Deal each cell's molecules at random into two cells: replicates that share none (count splitting).

    Returns
    -------
    pair of csr_matrix, float32, shape (n, G)
        They add up to `counts`.
    """
    first = thin(counts, 0.5, seed)
    second = (counts.astype(np.float32) - first).tocsr()
    second.eliminate_zeros()
    return first, second


def add_molecules(counts: sp.csr_matrix, genes: np.ndarray) -> sp.csr_matrix:
    """Add one molecule to each cell: of gene ``genes[i]``, a column, in cell i."""
    import scipy.sparse as sp

    n = counts.shape[0]
    one = sp.csr_matrix((np.ones(n, dtype=np.float32), (np.arange(n), genes)), shape=counts.shape)
    return (counts.astype(np.float32) + one).tocsr()


def thin_to_sparsity(counts: sp.csr_matrix, sparsity: float, seed: int = 0) -> sp.csr_matrix:
    """Thin each cell so that an expected share `sparsity` of its genes has no molecule.

    A gene with c molecules is seen with probability 1 - (1 - q)^c, if each is kept with probability q; the q
    of every cell is found by bisection. A cell that is sparser already stays as it is.

    Raises
    ------
    ValueError
        As :func:`thin`.
    """
    counts = counts.copy()
    counts.eliminate_zeros()
    wanted, whole = (1 - sparsity) * counts.shape[1], _whole(counts)
    lengths, starts = np.diff(counts.indptr), counts.indptr[:-1]
    low, high = np.zeros(counts.shape[0]), np.ones(counts.shape[0])
    full = lengths > 0
    for _ in range(30):
        middle = (low + high) / 2
        seen = 1 - (1 - np.repeat(middle, lengths)) ** whole
        expected = np.zeros(counts.shape[0])
        expected[full] = np.add.reduceat(seen, starts[full])
        low, high = np.where(expected < wanted, middle, low), np.where(expected < wanted, high, middle)
    return thin(counts, np.where(lengths <= wanted, 1.0, high), seed)


def pool(
    counts: sp.csr_matrix, labels: np.ndarray, size: int = 20, seed: int = 0
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Add up cells of one label, `size` at a time: profiles as deep as bulk, a positive control.

    Returns
    -------
    pooled : csr_matrix, float32, shape (m, G)
        A label's last cells that do not fill a pool are left out; one with fewer than `size` is one pool.
    labels : ndarray, shape (m,)
    """
    import scipy.sparse as sp

    rng, rows, names = np.random.default_rng([seed, 7]), [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        n_pools = max(1, len(members) // size)
        rows += [part[:size] for part in np.array_split(members, n_pools)]
        names += [label] * n_pools
    which = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    adds = sp.csr_matrix(
        (np.ones(len(which), dtype=np.float32), (which, np.concatenate(rows))),
        shape=(len(rows), counts.shape[0]),
    )
    return (adds @ counts).tocsr(), np.array(names)


def _whole(counts: sp.csr_matrix) -> np.ndarray:
    """Return the stored values as integers."""
    whole = counts.data.astype(np.int64)
    if (whole != counts.data).any() or (whole < 0).any():
        raise ValueError(
            "counts holds fractions or negative values, but molecules are whole: round estimated counts, and "
            "undo a normalisation"
        )
    return whole


def gene_medians(adata: AnnData) -> np.ndarray:
    """Return what Geneformer divides each gene by: its median over 27 million cells, nan where unknown.

    Simulated genes are in no corpus: there it is the median of the data's own non-zero counts per 10,000.
    """
    from . import datasets

    if adata.var["ensembl_id"].astype(str).str.startswith("ENSG").any():
        known = datasets.read("geneformer_v1_dictionaries", "medians").set_index("key")["median"]
        return known.reindex(adata.var["ensembl_id"].astype(str)).to_numpy(dtype=np.float64)
    x = cp(adata.X.tocsr(), _totals(adata.X)).tocsc()
    parts = np.split(x.data, x.indptr[1:-1])
    return np.array([np.median(part) if len(part) else np.nan for part in parts])


def matrix(
    encoding: str, counts: sp.csr_matrix, medians: np.ndarray | None = None, seed: int | None = 0
) -> sp.csr_matrix:
    r"""Return an encoding of cells as a matrix of cells by genes.

    ====================  =========================================================================
    "raw counts"          the count
    "log counts"          log(1 + CP10k), as of scFoundation, and, but for constants, GenePT-w and TxFM
    "scBERT"              the bin of log2(1 + CP10k), 0 to 5
    "scGPT"               the bin among the cell's non-zero values, 1 to 50; equal values at random
    "cell2sentence"       (L - r) / L for the gene at place r of the cell's L detected genes, the first at
                          place 0; equal counts in random order
    "Geneformer"          the same, in the order of count / median, over genes with a median
    ====================  =========================================================================

    Parameters
    ----------
    encoding : str
        One of :data:`KINDS`.
    counts : csr_matrix, shape (n, G)
    medians : ndarray, shape (G,), optional
        For Geneformer (:func:`gene_medians`).
    seed : int or None
        Of the order of equal values. None: nothing is random, equal values come by column, or share the
        highest of their bins.

    Returns
    -------
    csr_matrix, float32, shape (n, G)

    Raises
    ------
    ValueError
        For an unknown encoding, or Geneformer without medians.
    """
    import scipy.sparse as sp

    if encoding not in KINDS:
        raise ValueError(f"no encoding is called {encoding!r}; there are {', '.join(KINDS)}")
    counts = counts.astype(np.float32)  # a copy
    counts.eliminate_zeros()
    totals = _totals(counts)
    if encoding == "raw counts":
        return counts
    if encoding == "log counts":
        return log_normalise(counts, totals, 1e4)
    if encoding == "scBERT":
        return absolute_bins(cp(counts, totals)).astype(np.float32)
    if encoding == "scGPT":
        rng = np.random.default_rng([seed or 0, 8])
        draws = np.zeros(counts.nnz) if seed is None else rng.random(counts.nnz)
        indptr, columns, values = quantile_bins(counts, draws)
    else:
        indptr, columns = order(encoding, counts, medians, seed)
        lengths = np.diff(indptr)
        place = np.arange(len(columns)) - np.repeat(indptr[:-1], lengths)
        values = 1 - place / np.repeat(np.maximum(lengths, 1), lengths)
    found = sp.csr_matrix((values.astype(np.float32), columns, indptr), counts.shape)
    found.sort_indices()
    return found


def order(
    encoding: str, counts: sp.csr_matrix, medians: np.ndarray | None = None, seed: int | None = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the genes of each cell, first to last, as "Geneformer" or "cell2sentence" lists them.

    Returns
    -------
    indptr : ndarray of int64, shape (n + 1,)
    columns : ndarray of int32, shape (nnz,)
        As :func:`txfm_lite.encodings.descending`.
    """
    if encoding == "Geneformer":
        if medians is None:
            raise ValueError("Geneformer's order needs medians: give gene_medians(adata)")
        return descending(with_median(counts, medians), np.nan_to_num(medians, nan=1.0), threads=1)
    if seed is None:
        return descending(counts, threads=1)
    indptr = counts.indptr.astype(np.int64)
    found = sort_rows(counts.data, counts.indices, indptr, threads=1)
    names = map(str, range(counts.shape[0]))
    return indptr, shuffle_ties(*found, indptr, generators(names, seed))[1]


def mean_places(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Return places like those of "cell2sentence" in :func:`matrix`, but equal counts share a mean one."""
    from scipy.stats import rankdata

    found = counts.astype(np.float32)  # a copy
    found.eliminate_zeros()
    for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True):
        found.data[a:b] = rankdata(found.data[a:b]) / max(b - a, 1)
    return found


def with_median(counts: sp.csr_matrix, medians: np.ndarray) -> sp.csr_matrix:
    """Return the counts, float32, without those of genes that have no median."""
    kept = counts.astype(np.float32)  # a copy
    kept.data[np.isnan(medians)[kept.indices]] = 0
    kept.eliminate_zeros()
    return kept


def _totals(counts: sp.csr_matrix) -> np.ndarray:
    """Return library sizes, shape (n,), at least 1: an empty cell has no value to divide."""
    return np.maximum(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel(), 1)


def balanced(labels: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Return the rows, in order, of at most `most` cells, labels as equal in number as can be."""
    rng = np.random.default_rng([seed, 9])
    shuffled = rng.permutation(len(labels))
    nth = np.empty(len(labels), dtype=np.int64)  # of its label
    seen: dict = {}
    for i in shuffled:
        nth[i] = seen[labels[i]] = seen.get(labels[i], -1) + 1
    return np.sort(shuffled[np.argsort(nth[shuffled], kind="stable")][:most])
