r"""Measures of how alike two cells are, in blocks: Spearman, Pearson, cosine, Euclid.

A measure prepares every cell once and then gives any block of pairs as a matrix product. For Spearman, which
usually ranks with every pair, or in float64 and with tests, that is most of the work saved: ranks are taken
once, and of the non-zero values only, since zeros are one group of equals::

    spearman(x)                        # all pairs, where n x n fits
    measure = Spearman(x)              # or block by block:
    measure.block(slice(0, 500), slice(500, 1000))

:mod:`txfm_lite.pairs` goes through all blocks and keeps medians and histograms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

BLOCK = 2048  # cells on either side of a block: 16 MB of float32
MOST = 2**12  # counts up to which ranks come without sorting
FEW = 256  # dimensions, up to which distances are computed in float64


class Measure:
    """One way to compare cells: prepared once, then any block of pairs.

    Attributes
    ----------
    alike : bool
        True if a high value means that two cells are similar, False for distances.
    low, high : float
        Between which all values lie.
    undefined : ndarray of bool, shape (n,)
        Cells that cannot be compared with any other; their values are nan.
    """

    alike = True
    low, high = -1.0, 1.0
    rows: np.ndarray  # (n, d): the prepared cells
    undefined: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, rows: Any, columns: Any) -> np.ndarray:
        """Return the values of some cells, shape (m,), with others, shape (k,): an array (m, k).

        Parameters
        ----------
        rows, columns : slice, or array of int
            A slice saves a copy of the prepared cells.
        """
        values = self._values(rows, columns)
        values[self.undefined[rows]] = np.nan
        values[:, self.undefined[columns]] = np.nan
        return values

    def matrix(self) -> np.ndarray:
        """Return all values, shape (n, n); half of them are computed."""
        n = len(self)
        out = np.empty((n, n), dtype=self.rows.dtype)
        for a in slices(n):
            for b in slices(n, a.start):
                out[a, b] = self.block(a, b)
                out[b, a] = out[a, b].T
        np.fill_diagonal(out, np.where(self.undefined, np.nan, 1.0 if self.alike else 0.0))
        return out

    def _values(self, rows: Any, columns: Any) -> np.ndarray:
        raise NotImplementedError


class _Cosine(Measure):
    """Products of rows of length one; subclasses differ in what they do to a row before."""

    def __init__(self, x: Any):
        n, d = _shape(x)
        self.rows, self.undefined = np.empty((n, d), dtype=np.float32), np.zeros(n, dtype=bool)
        for here, piece in _read(x):
            self.undefined[here] = self._prepare(piece, self.rows[here])

    def _values(self, rows: Any, columns: Any) -> np.ndarray:
        values = self.rows[rows] @ self.rows[columns].T
        return np.clip(values, -1, 1, out=values)

    def _prepare(self, piece: Any, out: np.ndarray) -> np.ndarray:
        """Write the prepared cells into `out`, return which have no direction."""
        raise NotImplementedError


class Cosine(_Cosine):
    """Cosine of the angle between two cells; undefined for a cell of zeros."""

    def _prepare(self, piece: Any, out: np.ndarray) -> np.ndarray:
        return _unit(_dense(piece), out)


class Pearson(_Cosine):
    """Pearson's correlation of two cells over their genes; undefined for a cell with one value everywhere."""

    def _prepare(self, piece: Any, out: np.ndarray) -> np.ndarray:
        values = _dense(piece)
        constant = values.min(axis=1) == values.max(axis=1)  # a rounded mean would leave a trace of it
        values -= values.mean(axis=1, keepdims=True)
        values[constant] = 0
        return _unit(values, out)


class Spearman(_Cosine):
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs.

    Zeros take part, as one large group of equal values. Undefined for a cell with one value everywhere, such
    as one without any count.
    """

    def _prepare(self, piece: Any, out: np.ndarray) -> np.ndarray:
        _rank(piece, out)
        out -= np.float32((out.shape[1] + 1) / 2)  # the mean rank, with ties or without: exact in float32
        return _unit(out, out)


class Euclid(Measure):
    """Euclidean distance."""

    alike = False
    low = 0.0

    def __init__(self, x: Any):
        n, d = _shape(x)
        # Squares of a few large coordinates would drown small distances in float32; many genes add up to
        # distances far from zero, and there float32 is twice as fast.
        self.rows = np.empty((n, d), dtype=np.float64 if d <= FEW else np.float32)
        mean = sum(_dense(piece).sum(axis=0) for _, piece in _read(x)) / n
        for here, piece in _read(x):
            self.rows[here] = _dense(piece) - mean  # before float32: distances may be small beside the values
        squares = np.einsum("ij,ij->i", self.rows, self.rows, dtype=np.float64)
        self.squares = squares.astype(self.rows.dtype)
        self.undefined = np.zeros(n, dtype=bool)
        self.high = float(2 * np.sqrt(self.squares.max()) * (1 + 1e-6)) or 1.0

    def _values(self, rows: Any, columns: Any) -> np.ndarray:
        values = self.rows[rows] @ self.rows[columns].T
        values *= -2
        values += self.squares[rows][:, None]
        values += self.squares[columns]
        return np.sqrt(np.maximum(values, 0, out=values), out=values)


def spearman(x: Any) -> np.ndarray:
    """Return Spearman's correlation of all pairs of cells.

    Parameters
    ----------
    x : matrix, sparse or dense, shape (n, g)

    Returns
    -------
    ndarray of float32, shape (n, n)
        nan for a cell whose values are all equal.

    Raises
    ------
    ValueError
        If a value is missing or infinite, or there are fewer than two genes.
    """
    return Spearman(x).matrix()


def ranks(x: Any) -> np.ndarray:
    """Return each cell's fractional ranks, 1 the lowest, equal values sharing the mean of theirs.

    Parameters
    ----------
    x : matrix, sparse or dense, shape (n, g)

    Returns
    -------
    ndarray of float32, shape (n, g)
    """
    out = np.empty(_shape(x), dtype=np.float32)
    for here, piece in _read(x):
        _rank(piece, out[here])
    return out


def _shape(x: Any) -> tuple[int, int]:
    shape = np.shape(x)
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 2:
        raise ValueError(f"x has shape {shape}: give at least two cells (rows) and two genes (columns)")
    return shape


def _read(x: Any) -> Iterator[tuple[slice, Any]]:
    """Yield a matrix some rows at a time, each piece checked."""
    x = x.tocsr() if hasattr(x, "tocsr") else x
    for here in slices(np.shape(x)[0]):
        piece = x[here] if hasattr(x, "indptr") else np.asarray(x[here])
        values = piece.data if hasattr(piece, "indptr") else piece
        if not np.isfinite(values).all():
            raise ValueError(
                f"x has missing or infinite values among cells {here.start:,} to {here.stop - 1:,}: "
                "leave out these cells or genes, or fill them in"
            )
        yield here, piece


def _dense(piece: Any) -> np.ndarray:
    """Return rows as an array of float64 that may be written to."""
    return np.array(piece.toarray() if hasattr(piece, "toarray") else piece, dtype=np.float64)


def _unit(values: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write the rows, made of length one, into `out`; return which have no length."""
    length = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    nothing = length == 0
    length[nothing] = 1
    np.divide(values, length[:, None], out=out, casting="same_kind")
    return nothing


def _rank(piece: Any, out: np.ndarray) -> None:
    """Write fractional ranks of rows into `out`; only what is not zero is looked at."""
    import scipy.sparse as sp

    piece = sp.csr_matrix(piece)
    piece.sum_duplicates()
    if piece.data.size and piece.data.min() >= 0 and piece.data.max() <= MOST:
        whole = piece.data.astype(np.int64)
        if (whole == piece.data).all():
            return _rank_counts(piece, whole, out)
    for i, row in enumerate(out):
        where = slice(piece.indptr[i], piece.indptr[i + 1])
        genes, values = piece.indices[where], piece.data[where]
        if not values.all():  # zeros that are stored are zeros
            genes, values = genes[values != 0], values[values != 0]
        order = np.argsort(values)
        values = values[order]
        starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
        ends = np.append(starts[1:], len(values))
        rank = np.repeat((starts + ends + 1) / 2, ends - starts)
        negative, zeros = np.searchsorted(values, 0), len(row) - len(values)
        rank[negative:] += zeros
        row[:] = negative + (zeros + 1) / 2
        row[genes[order]] = rank


def _rank_counts(piece: Any, counts: np.ndarray, out: np.ndarray) -> None:
    """Do the same for small whole numbers, without sorting: count how often each occurs in a row."""
    n, most = len(out), int(counts.max()) + 1
    place = np.repeat(np.arange(n) * most, np.diff(piece.indptr)) + counts
    times = np.bincount(place, minlength=n * most).reshape(n, most)
    times[:, 0] = out.shape[1] - times[:, 1:].sum(axis=1)  # zeros, stored or not
    rank = (np.cumsum(times, axis=1) - (times - 1) / 2).astype(out.dtype)
    out[:] = rank[:, :1]
    out[np.repeat(np.arange(n), np.diff(piece.indptr)), piece.indices] = rank.ravel()[place]


def slices(n: int, start: int = 0) -> list[slice]:
    """Return slices of a block's length that cover `start` to `n`."""
    return [slice(a, min(a + BLOCK, n)) for a in range(start, n, BLOCK)]
