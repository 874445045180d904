"""What two collections of gene sets share: copies, near copies, terms that leak into training.

The number of genes that two sets share is a product of sparse matrices. It is taken some rows at a time, so
that 30,000 sets against 30,000 need no more than some hundred megabytes. The measures are exact: for tens of
thousands of sets there is nothing to gain by hashing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from txfm_lite.genesets_container import GeneSets

CELLS = 2**23  # pairs of sets that are compared at a time
MEASURES = ("jaccard", "containment")


def overlapping(
    train: GeneSets, test: GeneSets, threshold: float = 0.5, measure: str = "jaccard"
) -> np.ndarray:
    """Tell which training sets are too much like any test set.

    Parameters
    ----------
    train, test
        Over any genes; they are matched by name.
    threshold
        Of 0 to 1. What lies above it overlaps; 0 are all that share a gene.
    measure
        "jaccard", shared genes / genes in either; or "containment", shared genes / genes of the smaller set.

    Returns
    -------
    ndarray of bool, shape (len(train),)
    """
    found = np.zeros(len(train), bool)
    for rows, _ in _above(train, test, threshold, measure):
        found[rows] = True
    return found


def nearest(train: GeneSets, test: GeneSets, measure: str = "jaccard") -> tuple[np.ndarray, np.ndarray]:
    """Return for each training set how much it overlaps with the test set most like it, and which that is.

    Returns
    -------
    ndarray of float64, shape (len(train),)
    ndarray of int, shape (len(train),)
        The first of several; -1 where no gene is shared.
    """
    best, which = np.zeros(len(train)), np.full(len(train), -1)
    for rows, columns, shared, size, other in _shared(train, test, 0.0, measure):
        values = _measured(shared, size, other, measure)
        first = np.flatnonzero(np.diff(rows, prepend=-1))  # pairs come row by row
        if len(first):
            top = np.maximum.reduceat(values, first)
            best[rows[first]] = top
            highest = np.flatnonzero(values == np.repeat(top, np.diff(first, append=len(rows))))
            order = highest[np.lexsort([columns[highest], rows[highest]])]
            row, place = np.unique(rows[order], return_index=True)
            which[row] = columns[order][place]
    return best, which


def repeated(sets: GeneSets, threshold: float = 0.5, measure: str = "jaccard") -> np.ndarray:
    """Tell which sets have an earlier one in the same collection that is too much like them.

    Parameters and errors are those of :func:`overlapping`.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    found = np.zeros(len(sets), bool)
    for rows, columns in _above(sets, sets, threshold, measure):
        found[rows[columns < rows]] = True
    return found


def copies(sets: GeneSets) -> np.ndarray:
    """Tell which sets have exactly the genes of an earlier one; works for millions.

    Returns
    -------
    ndarray of bool, shape (n,)
        Empty sets are copies of one another.
    """
    # Sets with different sums of random 64-bit numbers differ. The few with equal sums are compared in full.
    numbers = np.random.default_rng(0).integers(0, 2**63, len(sets.genes), dtype=np.uint64)
    sums = np.zeros(len(sets), np.uint64)
    filled = np.flatnonzero(sets.sizes)
    for start in range(0, len(filled), 2**16):
        rows = filled[start : start + 2**16]
        begin, end = sets.indptr[rows[0]], sets.indptr[rows[-1] + 1]
        sums[rows] = np.add.reduceat(numbers[sets.indices[begin:end]], sets.indptr[rows] - begin)
    order = np.lexsort([np.arange(len(sets)), sums, sets.sizes])
    same = np.zeros(len(sets), bool)
    same[1:] = (np.diff(sums[order]) == 0) & (np.diff(sets.sizes[order]) == 0)
    first = order[np.maximum.accumulate(np.where(same, 0, np.arange(len(sets))))]
    later, earlier = order[same], first[same]
    equal = np.fromiter(
        (np.array_equal(_row(sets, a), _row(sets, b)) for a, b in zip(later, earlier, strict=True)),
        bool, len(later),
    )  # fmt: skip
    found = np.zeros(len(sets), bool)
    found[later[equal]] = True
    return found


def _row(sets: GeneSets, i: int) -> np.ndarray:
    return sets.indices[sets.indptr[i] : sets.indptr[i + 1]]


def _above(
    a: GeneSets, b: GeneSets, threshold: float, measure: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs above a threshold, block by block: rows of a, rows of b."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it has to lie between 0 and 1")
    for rows, columns, shared, size, other in _shared(a, b, threshold, measure):
        above = _measured(shared, size, other, measure) > threshold
        yield rows[above], columns[above]


def _measured(shared: np.ndarray, size: np.ndarray, other: np.ndarray, measure: str) -> np.ndarray:
    """Return the measure of pairs from the numbers of genes that they share and have."""
    return shared / (size + other - shared if measure == "jaccard" else np.minimum(size, other))


def _shared(
    a: GeneSets, b: GeneSets, threshold: float, measure: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the pairs that can be above a threshold: rows of a, rows of b, shared genes, the two sizes.

    For a Jaccard index above t the smaller of two sets has more than t times the genes of the larger one. So
    rows go by size, and each block is multiplied only with what is of its size.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure is {measure!r}; it has to be one of {', '.join(map(repr, MEASURES))}")
    ratio = threshold if measure == "jaccard" else 0.0
    size, other = a.sizes.astype(np.float64), b.sizes.astype(np.float64)  # with genes only one of them has
    rows, columns = np.argsort(size, kind="stable"), np.argsort(other, kind="stable")
    left = replace(a, weights=None)[rows].csr()
    right = replace(b, weights=None).over(a.genes)[columns].csr()
    size, other = size[rows], other[columns]
    start = int(np.searchsorted(size, 1))  # empty sets share nothing
    while start < len(a):
        low = int(np.searchsorted(other, max(1, ratio * size[start])))
        stop = start + max(1, CELLS // max(len(b) - low, 1))
        high = int(np.searchsorted(other, size[min(stop, len(a)) - 1] / max(ratio, 1e-12), side="right"))
        product = left[start:stop] @ right[low:high].T
        here = np.repeat(np.arange(start, start + product.shape[0]), np.diff(product.indptr))
        there, shared = product.indices + low, product.data.astype(np.float64)
        if threshold:
            least = np.maximum if measure == "jaccard" else np.minimum
            possible = shared > threshold * least(size[here], other[there]) - 1e-6
            here, there, shared = here[possible], there[possible], shared[possible]
        yield rows[here], columns[there], shared, size[here], other[there]
        start = stop
