"""What the encodings are made of: orders, bins and normalised values of sparse rows, without AnnData.

Every function takes a CSR matrix of cells by genes. Zeros are not stored, and what a model does with them is
:mod:`txfm_lite.encodings`' business.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp

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
    return indptr, sort_rows(data, columns, indptr, divisor, threads=threads, device=device)[1]


def _above_zero(values: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the entries above zero as float32 values, columns and int64 row bounds."""
    if not (values.data >= 0).all():
        raise ValueError("values holds negative or missing values: only what is above zero has a place")
    if not values.data.all():
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
) -> tuple[np.ndarray, np.ndarray]:
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

    Returns
    -------
    values : ndarray, float32, shape (nnz,)
    low : ndarray of int32, shape (nnz,)
        Both in the new order.
    """
    if divisor is not None:
        divisor = np.asarray(divisor, dtype=np.float32)
    if device is not None:
        return _sort_rows_torch(data, low, indptr, divisor, device)
    values, out = np.empty(len(data), np.float32), np.empty(len(data), np.int32)

    def sort(start: int) -> None:
        bounds = indptr[start : start + ROWS + 1]
        part = slice(bounds[0], bounds[-1])
        value = data[part] if divisor is None else data[part] / divisor[low[part]]
        halves = np.empty((len(value), 2), np.uint32)
        np.invert(value.view(np.uint32), out=halves[:, HIGH])
        halves[:, LOW] = low[part]
        keys = halves.view(np.uint64)[:, 0]
        at = (bounds - bounds[0]).tolist()
        for a, b in zip(at[:-1], at[1:], strict=True):
            keys[a:b].sort()  # other threads run meanwhile
        values[part] = (~halves[:, HIGH]).view(np.float32)
        out[part] = halves[:, LOW]

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
    data: np.ndarray, low: np.ndarray, indptr: np.ndarray, divisor: np.ndarray | None, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sort many rows as one long array of keys: the row's number, the inverted value, `low`."""
    import torch

    bits = int(low.max(initial=1)).bit_length()
    step = min(DEVICE_ROWS, 1 << (32 - bits))  # 32 bits for row and low, 31 for a value without its sign
    values, out = np.empty(len(data), np.float32), np.empty(len(data), np.int32)
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
        values[part] = (0x7FFFFFFF - (key >> bits & 0x7FFFFFFF)).int().view(torch.float32).cpu().numpy()
    return values, out


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
    csr_matrix of int64, shape (n, G)

    Raises
    ------
    ValueError
        If a value is negative or missing.
    """
    if not (cp10k.data >= 0).all():
        raise ValueError("cp10k holds negative or missing values: give counts per 10,000")
    edges = 2.0 ** np.arange(1, n_bins + 1) - 1
    found = np.searchsorted(edges, cp10k.data, side="right")  # exact, where a logarithm would be rounded
    bins = sp.csr_matrix((found, cp10k.indices, cp10k.indptr), cp10k.shape, copy=True)
    bins.eliminate_zeros()
    return bins
