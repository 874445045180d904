r"""Perturbation consistency: whether the cells of one perturbation point the same way.

Two different metrics are published under this name, and a third is needed to read them.

- :func:`against_single_cells` (TxFM): each cell's cosine to the mean of the *others* of its perturbation,
  averaged; compared with the cosines of *single* random cells to the perturbation's mean. An average of many
  cells is compared with a distribution of single ones, so the p-values do not measure significance: without
  any signal they crowd around one half, and a score above zero takes an effect as large as the differences
  between cells. It favours embeddings with little noise per cell, and is nearly all or none.
- :func:`against_controls` (EFAAR, Tx-Evaluation): the mean cosine of all pairs of its cells, compared with
  the same for other groups: there perturbations of genes that are not expressed, here groups of controls.
  After centring on these very controls it finds too much: their mean is zero, that of any other cells is not.
- :func:`against_permutations`: the same statistic, compared with groups of the same size and batches. This is
  calibrated: without signal, one perturbation in a hundred has p ≤ 0.01.

The mean over all pairs of n unit vectors needs only their sum,
:math:`(\lVert\sum u\rVert^2 - n) / (n (n-1))`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def against_single_cells(
    values: np.ndarray, groups: np.ndarray, controls: np.ndarray, n_null: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Compare each perturbation's mean leave-one-out cosine with cosines of single random cells.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    groups : array of str, shape (n,)
        Perturbation of each cell.
    controls : array of bool, shape (n,)
        They are among the random cells, but get no row of their own.
    n_null : int
        Random cells, the same for all perturbations, each without its own cells; all cells where there are
        fewer.
    seed : int

    Returns
    -------
    DataFrame
        Indexed by perturbation, at least two cells each: `n`, `statistic`, `exceeding` (random cells with a
        cosine at least as high), `n_null`, and `p` = (exceeding + 1) / (n_null + 1). The paper leaves open
        whether the null is shared, whether controls belong to it, and whether p has the + 1.
    """
    import pandas as pd

    names, code, values = *_codes(groups, controls), np.asarray(values, dtype=np.float64)
    units = _unit(values)
    n, sums = np.bincount(code[code >= 0], minlength=len(names)), _sums(code, values, len(names))
    own = np.flatnonzero(code >= 0)
    leave_one_out = (units[own] * _unit(sums[code[own]] - values[own])).sum(axis=1)
    statistic = np.bincount(code[own], leave_one_out, minlength=len(names)) / n
    drawn = np.random.default_rng(seed).permutation(len(values))[:n_null]
    cosine = units[drawn] @ _unit(sums).T
    others = code[drawn][:, None] != np.arange(len(names))
    exceeding = ((cosine >= statistic - 1e-12) & others).sum(axis=0)
    frame = pd.DataFrame(
        {"n": n, "statistic": statistic, "exceeding": exceeding, "n_null": others.sum(axis=0)}, index=names
    )
    return frame.assign(p=(frame["exceeding"] + 1) / (frame["n_null"] + 1))[n >= 2]


def against_controls(
    values: np.ndarray, groups: np.ndarray, controls: np.ndarray, n_null: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare each perturbation's mean pairwise cosine with that of groups of controls.

    Parameters as for :func:`against_single_cells`. A null group has as many cells as a perturbation drawn at
    random, at most half of the controls. Published: null groups are perturbations of genes that the cells do
    not express, and p may be 0; a panel or a screen of essential genes has no such perturbations.

    Returns
    -------
    DataFrame
        Indexed by perturbation: `n`, `statistic`, and `p`, the share of null groups with at least its value.
    """
    import pandas as pd

    names, code = _codes(groups, controls)
    units, rng = _unit(np.asarray(values, dtype=np.float64)), np.random.default_rng(seed)
    n, sums = np.bincount(code[code >= 0], minlength=len(names)), _sums(code, units, len(names))
    pool = units[np.asarray(controls, dtype=bool)]
    sizes = rng.choice(n[n >= 2], n_null).clip(2, max(2, len(pool) // 2))
    drawn = np.array([pool[rng.choice(len(pool), size, replace=False)].sum(axis=0) for size in sizes])
    null, statistic = np.sort(_mean_cosine(drawn, sizes)), _mean_cosine(sums, n)
    p = 1 - np.searchsorted(null, statistic - 1e-12) / n_null
    return pd.DataFrame({"n": n, "statistic": statistic, "p": p}, index=names)[n >= 2]


def against_permutations(
    values: np.ndarray,
    groups: np.ndarray,
    controls: np.ndarray,
    batches: np.ndarray,
    n_null: int = 299,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare each perturbation's mean pairwise cosine with that of random cells, as many from each batch.

    Parameters as for :func:`against_single_cells`; labels, those of controls included, are permuted within
    `batches`.

    Returns
    -------
    DataFrame
        Indexed by perturbation: `n`, `statistic`, and `p` = (permutations at least as high + 1) /
        (`n_null` + 1).
    """
    import pandas as pd

    names, code = _codes(groups, controls)
    units, rng = _unit(np.asarray(values)).astype(np.float32), np.random.default_rng(seed)
    n = np.bincount(code[code >= 0], minlength=len(names))
    statistic = _mean_cosine(_sums(code, units, len(names)), n)
    batch = np.unique(np.asarray(batches).astype(str), return_inverse=True)[1]
    in_order, exceeding = np.argsort(batch, kind="stable"), np.zeros(len(names), dtype=int)
    for _ in range(n_null):
        permuted = np.empty_like(code)
        permuted[in_order] = code[np.lexsort((rng.random(len(code)), batch))]
        exceeding += _mean_cosine(_sums(permuted, units, len(names)), n) >= statistic - 1e-9
    frame = pd.DataFrame({"n": n, "statistic": statistic, "p": (exceeding + 1) / (n_null + 1)}, index=names)
    return frame[n >= 2]


def _codes(groups: np.ndarray, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the perturbations' names and each cell's number among them; -1 for a control."""
    groups, controls = np.asarray(groups).astype(str), np.asarray(controls, dtype=bool)
    names, code = np.unique(groups[~controls]), np.full(len(groups), -1)
    code[~controls] = np.searchsorted(names, groups[~controls])
    return names, code


def _unit(x: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; a row of zeros stays, and has cosine 0 with everything."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def _sums(code: np.ndarray, x: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum the rows of each group; rows with code -1 belong to none."""
    from scipy.sparse import csr_matrix

    inside = np.flatnonzero(code >= 0)
    member = (np.ones(len(inside), dtype=x.dtype), (code[inside], inside))
    return np.asarray(csr_matrix(member, shape=(n_groups, len(x))) @ x)


def _mean_cosine(sums: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the mean cosine of all pairs of unit vectors, from their sum; 0 for vectors of zeros."""
    squared = (sums.astype(np.float64) ** 2).sum(axis=1)
    return np.where(squared > 0, (squared - n) / np.maximum(n * (n - 1), 1), 0.0)
