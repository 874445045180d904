"""AnnData in, embedding out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

    from .txfm import TxFM


def align(adata: AnnData, genes: Sequence[str]) -> tuple:
    """Bring the counts of a dataset into the order of a vocabulary.

    Parameters
    ----------
    adata : AnnData
        Counts in X, gene identities in ``var_names`` (as :func:`txfm_lite.datasets.load` gives them).
    genes : sequence of str, length G

    Returns
    -------
    counts : csr_matrix, float32, shape (n, G)
        Zero where a gene is not measured.
    measured : ndarray of bool, shape (G,)
        Which genes `adata` lists.
    library_size : ndarray, float64, shape (n,)
        Total counts of each sample over all identified genes, inside the vocabulary or not.

    Raises
    ------
    ValueError
        If none of the genes is measured.
    """
    import pandas as pd
    import scipy.sparse as sp

    place = pd.Index(genes).get_indexer(adata.var_names)
    found = np.flatnonzero(place >= 0)
    if not found.size:
        raise ValueError(
            f"none of the {adata.n_vars:,} genes ({', '.join(map(str, adata.var_names[:3]))}, ...) is in the "
            f"vocabulary ({', '.join(genes[:3])}, ...): load the data with datasets.load, or resolve the ids"
        )
    X = sp.csr_matrix(adata.X, dtype=np.float32)
    identified = adata.var["matched"].to_numpy(dtype=bool) if "matched" in adata.var else slice(None)
    library_size = np.asarray(X[:, identified].sum(axis=1), dtype=np.float64).ravel()
    move = sp.csr_matrix(
        (np.ones(found.size, np.float32), (found, place[found])), shape=(adata.n_vars, len(genes))
    )
    measured = np.zeros(len(genes), dtype=bool)
    measured[place[found]] = True
    return (X @ move).tocsr(), measured, library_size


def embed(
    adata: AnnData, model: TxFM, n_genes: int | None = None, batch_size: int = 64, seed: int = 0
) -> np.ndarray:
    """Embed every sample with TxFM and write ``obsm["X_txfm"]``.

    Parameters
    ----------
    adata : AnnData
        Counts; see :func:`align`.
    model : TxFM
        With its vocabulary.
    n_genes : int, optional
        Show only so many genes: one random draw of the measured genes, the same for all samples. By default
        all measured genes are shown, so that nothing is random. The paper does not say which it did.
    batch_size : int
        Samples at a time; it has no influence on the result.
    seed : int
        For the draw.

    Returns
    -------
    ndarray, float32, shape (n, d)
        Row i is sample i of `adata`.
    """
    import torch

    if model.genes is None:
        raise ValueError("this model has no vocabulary: it cannot tell which gene is which")
    counts, measured, library_size = align(adata, model.genes)
    shown = np.flatnonzero(measured)
    if n_genes is not None and n_genes < len(shown):
        shown = np.sort(np.random.default_rng(seed).choice(shown, n_genes, replace=False))
    adata.obsm["X_txfm"] = encode(model, counts[:, shown], library_size, torch.from_numpy(shown), batch_size)
    return adata.obsm["X_txfm"]


def encode(model: TxFM, counts, library_size: np.ndarray, genes, batch_size: int = 64) -> np.ndarray:
    """Embed samples that all show the same genes.

    Parameters
    ----------
    model : TxFM
    counts : csr_matrix, shape (n, T)
    library_size : ndarray, shape (n,)
    genes : Tensor of int64, shape (T,)
        The vocabulary's ids of the T columns.

    Returns
    -------
    ndarray, float32, shape (n, d)
    """
    import torch

    from .txfm import log_normalise

    device, training = model.cls.device, model.training
    out = np.empty((counts.shape[0], model.config.d_model), dtype=np.float32)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(out), batch_size):
            rows = slice(start, start + batch_size)
            dense = torch.from_numpy(counts[rows].toarray()).to(device)
            totals = torch.from_numpy(library_size[rows].astype(np.float32)).to(device)
            values = log_normalise(dense, totals, model.config.library_size)
            out[rows] = model.encode(values, genes.to(device).expand(len(values), -1)).float().cpu().numpy()
    model.train(training)
    return out
