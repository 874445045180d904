"""What a model must beat: the same counts without a model, and linear ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .align import align

if TYPE_CHECKING:
    from anndata import AnnData

    from .corpus import Corpus

LIBRARY_SIZE = 1e5  # the same normalisation as TxFM's


def log_counts(counts, library_size: np.ndarray) -> np.ndarray:
    """Return log(1 + 1e5 · counts / library size), dense float32, from sparse counts of shape (n, G)."""
    scaled = counts.multiply((LIBRARY_SIZE / library_size)[:, None]).toarray()
    return np.log1p(scaled).astype(np.float32)


def embed_log_counts(adata: AnnData, genes: np.ndarray) -> np.ndarray:
    """Return the log-normalised counts of a vocabulary's measured genes, shape (n, measured)."""
    counts, measured, library_size = align(adata, genes)
    return log_counts(counts, library_size)[:, measured]


class CorpusPCA:
    """Principal components of a training corpus, applied to other datasets.

    A gene that a sample's dataset does not measure is given the gene's mean over the samples that do, so that
    it moves the sample nowhere.

    Parameters
    ----------
    corpus : Corpus
        Its training samples are used, held in memory as a dense (n, G) matrix.
    n_components : int
    seed : int
        For the randomised solver.
    """

    def __init__(self, corpus: Corpus, n_components: int = 64, seed: int = 0):
        from sklearn.decomposition import PCA

        rows = corpus.rows("train")
        x = log_counts(corpus.csr(rows), corpus.library_size[rows])
        measured = corpus.measured[corpus.dataset[rows]]
        self.genes = corpus.genes
        self.mean = x.sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
        x = np.where(measured, x, self.mean)
        n_components = min(n_components, *x.shape)
        self.pca = PCA(n_components, svd_solver="randomized", random_state=seed).fit(x)

    def embed(self, adata: AnnData) -> np.ndarray:
        """Project the samples of `adata`, shape (n, n_components)."""
        counts, measured, library_size = align(adata, self.genes)
        return self.pca.transform(np.where(measured, log_counts(counts, library_size), self.mean))
