"""What the encodings are made of: orders, bins and normalised values of sparse rows, without AnnData.

Cells are rows of a CSR matrix over genes. Zeros are not stored; what a model makes of them is the business of
:mod:`txfm_lite.encodings`, where all of this can be reached, too.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp

CP10K = 1e4  # the usual library size to normalise to
ROWS = 128  # sorted at a time: their keys fit into a core's cache
DEVICE_ROWS = 8192  # the same on a GPU: below 1 GB of keys
LOW, HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)  # halves of a 64-bit key


def descending(
    values: sp.csr_matrix,
    divisor: np.ndarray | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's columns by falling value; equal values by rising column.

    Nothing else decides the order: not the order in which entries are stored, nor the machine, nor how many
    rows are sorted at a time.

    Parameters
    ----------
    values : csr_matrix, float32, shape (n, G)
        No column twice in a row. Stored zeros are left out.
    divisor : ndarray, shape (G,), optional
        Order by values / divisor instead, computed in float32.
    threads : int, optional
        By default one per core, at most 8.
    device : str, optional
        Sort with torch on this device ("cuda").

    Returns
    -------
    indptr : ndarray of int64, shape (n + 1,)
    columns : ndarray of int32, shape (nnz,)
        ``columns[indptr[i] : indptr[i + 1]]`` are the columns of row i.

    Raises
    ------
    ValueError
        If a value is negative or missing.
    """
    data, columns, indptr = _above_zero(values)
    options = {"threads": threads, "device": device, "keep_values": False}
    return indptr, sort_rows(data, columns, indptr, divisor, **options)[1]


def sorted_rows(values: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what :func:`descending` does, and the values in that order, float32."""
    data, columns, indptr = _above_zero(values)
    data, columns = sort_rows(data, columns, indptr)
    return indptr, columns, data


def _above_zero(values: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the entries above zero: float32 values, columns, int64 row bounds."""
    if not (lowest := values.data.min(initial=1)) > 0:  # nor is nan
        if lowest != 0:
            raise ValueError("values holds negative or missing values: only what is above zero has a place")
        values = values.copy()
        values.eliminate_zeros()
    return values.data.astype(np.float32, copy=False), values.indices, values.indptr.astype(np.int64)


def sort_rows(
    data: np.ndarray,
    low: np.ndarray,
    indptr: np.ndarray,
    divisor: np.ndarray | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
    keep_values: bool = True,
) -> tuple[np.ndarray | None, np.ndarray]:
    """Sort each row's values, highest first; equal ones by `low`, a number that is unique within a row.

    A value and its `low` become one 64-bit number: the bits of a positive float32, read as an integer, have
    the order of the floats. Such keys are all different, so that any sort gives the same result, and numpy's
    vectorised one needs no second array to move along.

    Parameters
    ----------
    data : ndarray, float32, shape (nnz,)
        Above zero.
    low : ndarray of int, shape (nnz,)
    indptr : ndarray of int64, shape (n + 1,)
    divisor : ndarray, optional
        Divide the value by ``divisor[low]`` before.
    threads, device
        As in :func:`descending`.
    keep_values : bool
        Return the values, too.

    Returns
    -------
    values : ndarray, float32, shape (nnz,), or None
    low : ndarray of int32, shape (nnz,)
        Both in the new order.
    """
    if divisor is not None:
        divisor = np.asarray(divisor, dtype=np.float32)
    if device is not None:
        return _sort_rows_torch(data, low, indptr, divisor, device, keep_values)
    values = np.empty(len(data), np.float32) if keep_values else None
    out = np.empty(len(data), np.int32)

    def sort(start: int) -> None:
        bounds = indptr[start : start + ROWS + 1]
        part = slice(bounds[0], bounds[-1])
        value = data[part] if divisor is None else data[part] / divisor.take(low[part])
        halves = np.empty((len(value), 2), np.uint32)
        np.invert(value.view(np.uint32), out=halves[:, HIGH])
        halves[:, LOW] = low[part]
        keys = halves.view(np.uint64)[:, 0]
        at = (bounds - bounds[0]).tolist()
        for a, b in zip(at[:-1], at[1:], strict=True):
            keys[a:b].sort()  # other threads run meanwhile
        out[part] = halves[:, LOW]
        if keep_values:
            values[part] = (~halves[:, HIGH]).view(np.float32)

    starts = range(0, len(indptr) - 1, ROWS)
    threads = min(threads or min(os.cpu_count() or 1, 8), len(starts))
    if threads > 1:
        with ThreadPoolExecutor(threads, thread_name_prefix="encodings") as pool:
            list(pool.map(sort, starts))
    else:
        for start in starts:
            sort(start)
    return values, out


def _sort_rows_torch(
    data: np.ndarray,
    low: np.ndarray,
    indptr: np.ndarray,
    divisor: np.ndarray | None,
    device: str,
    keep_values: bool,
) -> tuple[np.ndarray | None, np.ndarray]:
    """Sort many rows as one long array of keys: the row's number, the inverted value, `low`."""
    import torch

    bits = int(low.max(initial=1)).bit_length()
    step = min(DEVICE_ROWS, 1 << (32 - bits))  # 32 bits for row and low, 31 for a value without its sign
    values = np.empty(len(data), np.float32) if keep_values else None
    out = np.empty(len(data), np.int32)
    by = None if divisor is None else torch.from_numpy(divisor).to(device)
    for start in range(0, len(indptr) - 1, step):
        bounds = indptr[start : start + step + 1]
        part = slice(bounds[0], bounds[-1])
        value, second = (torch.from_numpy(x[part]).to(device) for x in (data, low))
        if by is not None:
            value = value / by[second.long()]
        lengths = torch.from_numpy(np.diff(bounds)).to(device)
        key = torch.repeat_interleave(lengths) << 31
        key |= 0x7FFFFFFF - value.view(torch.int32).long()
        key = ((key << bits) | second).sort().values
        out[part] = (key & ((1 << bits) - 1)).int().cpu().numpy()
        if keep_values:
            value = 0x7FFFFFFF - (key >> bits & 0x7FFFFFFF)
            values[part] = value.int().view(torch.float32).cpu().numpy()
    return values, out


def shuffle_ties(
    values: np.ndarray, low: np.ndarray, indptr: np.ndarray, generators: Iterable[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray]:
    """Put equal values of a row into a random order: shuffle the row, then sort it.

    Parameters
    ----------
    values, low, indptr
        As :func:`sort_rows` returns them, so that the result does not hang on how entries were stored.
    generators : iterable of numpy.random.Generator, length n

    Returns
    -------
    values, low
    """
    lengths = np.diff(indptr)
    moves = [rng.permutation(n) for rng, n in zip(generators, lengths, strict=True)]
    start = np.repeat(indptr[:-1], lengths)
    shuffled = np.concatenate(moves) + start
    values, place = sort_rows(values[shuffled], np.arange(len(start)) - start, indptr)
    return values, low[shuffled][place + start]


def generators(names: Iterable[str], seed: int) -> Iterator[np.random.Generator]:
    """Yield a cell's source of randomness, which hangs on its name and the seed alone."""
    for name in names:
        yield np.random.default_rng([seed, zlib.crc32(str(name).encode())])


def quantile_bins(
    values: sp.csr_matrix, draws: np.ndarray, n_bins: int = 51
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put each row's values into bins 1 to n_bins - 1, by quantiles of that row's own values.

    With edges e = quantile(values, linspace(0, 1, n_bins - 1)), a value x lies above a = #{e < x} and reaches
    b = #{e <= x} edges. Its bin is b, or where it equals edges, b > a, one of a + 1 ... b at random: scGPT
    puts equal counts into different bins. No edge has to be computed. Edge k stands k (n - 1) / (n_bins - 2)
    places up the n sorted values, at a value or strictly between two, so that a and b follow from the first
    and the last place that holds x: the bins are a function of the order within the cell.

    Parameters
    ----------
    values : csr_matrix, shape (n, G)
    draws : ndarray, shape (nnz,)
        Uniform on [0, 1), one per value above zero, in the order of :func:`descending`.
    n_bins : int
        Of which bin 0 is that of the zeros.

    Returns
    -------
    indptr, columns
        As :func:`descending` returns them.
    bins : ndarray of int32, shape (nnz,)
    """
    indptr, columns, data = sorted_rows(values)
    lengths = np.diff(indptr)
    end = np.repeat(indptr[1:], lengths)
    group = np.ones(len(data) + 1, dtype=bool)  # where another value, or row, begins
    group[1:-1] = data[1:] != data[:-1]
    group[indptr] = True
    bounds = np.flatnonzero(group)
    size = np.diff(bounds)
    first, last = end - np.repeat(bounds[1:], size), end - 1 - np.repeat(bounds[:-1], size)  # places, rising
    top, n_edges = np.repeat(lengths - 1, lengths), n_bins - 1
    below = -(first * (1 - n_edges) // np.maximum(top, 1))
    reached = np.where(last == top, n_edges, last * (n_edges - 1) // np.maximum(top, 1) + 1)
    return indptr, columns, (reached - np.floor(draws * (reached - below))).astype(np.int32)


def absolute_bins(cp10k: sp.csr_matrix, n_bins: int = 5) -> sp.csr_matrix:
    """Put values into bins that are the same for every cell: floor(log2(1 + x)), at most `n_bins`.

    Bin k holds 2^k - 1 <= x < 2^(k+1) - 1, the last one all above. A value below 1 is in bin 0, with the
    zeros, and is not stored.

    Parameters
    ----------
    cp10k : csr_matrix, shape (n, G)
        Counts per 10,000. Of two numbers on either side of an edge, float32 may make one: keep float64.
    n_bins : int

    Returns
    -------
    csr_matrix of int32, shape (n, G)

    Raises
    ------
    ValueError
        If a value is negative or missing.
    """
    import scipy.sparse as sp

    if not (cp10k.data >= 0).all():
        raise ValueError("cp10k holds negative or missing values: give counts per 10,000")
    edges = 2.0 ** np.arange(1, n_bins + 1) - 1
    found = np.searchsorted(edges, cp10k.data, side="right")  # exact, where a logarithm would be rounded
    bins = sp.csr_matrix((found.astype(np.int32), cp10k.indices, cp10k.indptr), cp10k.shape, copy=True)
    bins.eliminate_zeros()
    return bins


def soft_bins(
    values: np.ndarray,
    w1: np.ndarray,
    w2: np.ndarray,
    alpha: float = 1.0,
    b1: np.ndarray | float = 0.0,
    b2: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Return the share that each learned bin has in a value: scFoundation's "auto-discretisation".

    h = LeakyReLU(w1 x + b1) with slope 0.1, then softmax(w2 h + b2 + alpha h). The value's embedding is
    ``soft_bins(...) @ table``, with one row of `table` per bin.

    Parameters
    ----------
    values : ndarray, shape (...)
    w1, b1 : ndarray, shape (b,)
    w2 : ndarray, shape (b, b)
    b2 : ndarray, shape (b,)
    alpha : float

    Returns
    -------
    ndarray, shape (..., b)
        Sums to 1 over the last axis.
    """
    from scipy.special import softmax

    h = np.asarray(values)[..., None] * w1 + b1
    h = np.where(h > 0, h, 0.1 * h)
    return softmax(h @ np.asarray(w2).T + b2 + alpha * h, axis=-1)


def cp(counts: sp.csr_matrix, library_size: np.ndarray, to: float = CP10K) -> sp.csr_matrix:
    """Return to · counts / library size, sparse float64, shape (n, G)."""
    x = counts.astype(np.float64)  # a copy
    x.data *= to
    x.data /= np.repeat(library_size, np.diff(x.indptr))  # in this order, a whole number comes out whole
    return x


def log_normalise(counts: sp.csr_matrix, library_size: np.ndarray, to: float) -> sp.csr_matrix:
    """Return log(1 + to · counts / library size), sparse float32, shape (n, G)."""
    x = counts.astype(np.float32)  # a copy
    x.data = np.log1p(x.data * np.repeat(to / library_size, np.diff(x.indptr))).astype(np.float32)
    return x


def weighted_mean(x: sp.csr_matrix, vectors: np.ndarray, n_genes: int) -> np.ndarray:
    """Return (1 / n_genes) Σ x_g E_g, float32, shape (n, d); genes without a vector are among n_genes."""
    return (x @ np.asarray(vectors, dtype=np.float32)) / np.float32(n_genes)


def shown_genes(measured: np.ndarray, n_genes: int | None, n_draws: int, seed: int) -> list[np.ndarray]:
    """Return the vocabulary ids to show, one sorted array per draw; a single one if all genes are shown.

    Raises
    ------
    ValueError
        If no gene is measured, or `n_genes` or `n_draws` is not positive.
    """
    candidates = np.flatnonzero(measured)
    if not candidates.size:
        raise ValueError("none of the model's genes is measured: there is nothing to show")
    if n_draws < 1 or (n_genes is not None and n_genes < 1):
        raise ValueError(f"n_genes = {n_genes}, n_draws = {n_draws}: should be positive")
    if n_genes is None or n_genes >= len(candidates):
        return [candidates]
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(candidates, n_genes, replace=False)) for _ in range(n_draws)]
