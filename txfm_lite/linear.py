"""Two linear tools that leave sparse counts sparse: principal components, and normal scores of ranks.

Filling a gene that was not measured with its mean, centring, or giving all zeros of a cell one score turns a
sparse matrix into a dense one, ten times as large. But the change is a matrix of low rank, and a solver that
only multiplies never needs the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp


def principal_components(
    x: sp.csr_matrix, left: np.ndarray | sp.csr_matrix, right: np.ndarray, k: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first principal components of x + left @ right, a sum that is never formed.

    The caller's second term centres the columns: this function subtracts nothing.

    Parameters
    ----------
    x : csr_matrix, shape (n, G)
    left : ndarray or csr_matrix, shape (n, r)
    right : ndarray, shape (r, G)
    k : int
        At most min(n, G) - 1 are returned.
    seed : int
        For the solver's first vector.

    Returns
    -------
    scores : ndarray, float32, shape (n, k)
    axes : ndarray, float32, shape (k, G)
        Orthonormal rows. The largest entry of each is positive, since an axis has no direction of its own.

    Raises
    ------
    ValueError
        If there are fewer than two samples or genes.
    """
    from scipy.sparse.linalg import LinearOperator, svds

    k = min(k, min(x.shape) - 1)
    if k < 1:
        raise ValueError(f"{x.shape[0]} samples of {x.shape[1]} genes have no principal component")
    right = np.asarray(right, dtype=np.float32)
    left = left.astype(np.float32)

    def forward(v):
        return x @ v + left @ (right @ v)

    def backward(u):
        return x.T @ u + right.T @ (left.T @ u)

    operator = LinearOperator(
        x.shape, matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=np.float32
    )
    start = np.random.default_rng(seed).normal(size=min(x.shape)).astype(np.float32)
    u, s, axes = svds(operator, k=k, v0=start)
    order = np.argsort(-s)
    u, s, axes = u[:, order], s[order], axes[order]
    sign = np.sign(axes[np.arange(k), np.abs(axes).argmax(axis=1)])
    return (u * s * sign).astype(np.float32), (axes * sign[:, None]).astype(np.float32)


def normal_scores(counts: sp.csr_matrix) -> tuple[sp.csr_matrix, np.ndarray]:
    """Replace each cell's counts by normal scores of their ranks: Φ⁻¹(rank / (G + 1)).

    Equal counts share their mean rank, the zeros of a cell above all. Whatever keeps the order within a cell
    (a division by its total, a logarithm) leaves the scores as they are.

    Returns
    -------
    above : csr_matrix, float32, shape (n, G)
        How far each non-zero's score lies above that of the cell's zeros.
    zero : ndarray, float32, shape (n,)
        The score of the cell's zeros. All scores: ``above.toarray() + zero[:, None]``.
    """
    from scipy.stats import norm, rankdata

    above = counts.astype(np.float32)
    above.eliminate_zeros()
    n_genes = counts.shape[1]
    n_zeros = n_genes - np.diff(above.indptr)
    zero = norm.ppf((n_zeros + 1) / 2 / (n_genes + 1))
    for i, (a, b) in enumerate(zip(above.indptr[:-1], above.indptr[1:], strict=True)):
        rank = n_zeros[i] + rankdata(above.data[a:b])
        above.data[a:b] = norm.ppf(rank / (n_genes + 1)) - zero[i]
    return above, zero.astype(np.float32)
