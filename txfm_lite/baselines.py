"""What a model must beat: the same counts without a model, linear ones, and scVI.

Published comparisons often give the simple methods less care than the new one: other genes, other
normalisation, one seed. Here all see the same genes and the same totals. Those that are fitted are fitted
either on the *target*, the dataset to be scored (its counts, never its labels), or on the training *corpus*
that the model under test has seen. :func:`models` returns them all under the names that tables use.

=================  ====================================================================================
name               embedding of a cell
=================  ====================================================================================
raw counts         its counts
log counts         log(1 + 1e5 · counts / total)
HVG n              log(1 + 1e4 · counts / total) of the n most variable genes of the target
PCA (target)       principal components of the target's log counts
PCA (corpus)       the corpus' principal components: :class:`CorpusPCA`
Souza-Mehta        normal scores of the ranks within the cell, then principal components
GenePT-w           mean of gene vectors, weighted by expression
scVI (...)         mean of the posterior: :mod:`txfm_lite.baselines_scvi`
TxFM untrained     the architecture with random weights: :mod:`txfm_lite.baselines_txfm`
TxFM fine-tuned    the model, trained on with the target's counts: the same module
=================  ====================================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import encodings
from .align import Aligned, align, not_counts
from .embed import PANEL
from .encodings_arrays import CP10K, log_normalise
from .files import cache_directory
from .linear import normal_scores, principal_components

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    from .corpus import Corpus
    from .txfm import TxFM

LIBRARY_SIZE = 1e5  # the same normalisation as TxFM's
N_COMPONENTS = 64  # 32 to 128 do equally well on held-out batches of the training studies
HVG_SIZES = (1024, 2000, 5000)
LEAST_COUNTS = 10  # genes with fewer in the whole target are no candidates for the most variable ones


def measured_counts(
    adata: AnnData, genes: Sequence[str] | None = None
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Return the counts that a baseline sees.

    Parameters
    ----------
    adata : AnnData
        Raw counts in X.
    genes : sequence of str, optional
        A vocabulary: only its genes are returned, see :func:`txfm_lite.align.align`. By default all columns.

    Returns
    -------
    counts : csr_matrix, float32, shape (n, g)
    names : ndarray of str, shape (g,)
    library_size : ndarray, float64, shape (n,)
        Totals, also of genes outside the vocabulary.

    Raises
    ------
    ValueError
        If X holds no counts, or a sample is empty.
    """
    import scipy.sparse as sp

    if genes is not None:
        counts, measured, library_size = align(adata, genes)
        return counts[:, measured], np.asarray(genes)[measured], library_size
    counts = sp.csr_matrix(adata.X, dtype=np.float32)
    if fault := not_counts(counts.data):
        raise ValueError(f"X {fault}")
    library_size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    if (empty := np.flatnonzero(library_size == 0)).size:
        raise ValueError(f"{empty.size} samples have no counts, for example {adata.obs_names[empty[0]]!r}")
    return counts, adata.var_names.to_numpy().astype(str), library_size


def log_counts(counts: sp.csr_matrix, library_size: np.ndarray) -> np.ndarray:
    """Return log(1 + 1e5 · counts / library size), dense float32, from sparse counts of shape (n, G)."""
    return log_normalise(counts, library_size, LIBRARY_SIZE).toarray()


def embed_raw_counts(adata: AnnData, genes: Sequence[str] | None = None) -> np.ndarray:
    """Return the counts themselves, dense float32, shape (n, measured): 4 bytes per cell and gene."""
    return measured_counts(adata, genes)[0].toarray()


def embed_log_counts(adata: AnnData, genes: Sequence[str] | None = None) -> np.ndarray:
    """Return the log-normalised counts of a vocabulary's measured genes, dense float32, (n, measured)."""
    counts, _, library_size = measured_counts(adata, genes)
    return log_counts(counts, library_size)


def embed_variable_genes(adata: AnnData, n: int = 2000, genes: Sequence[str] | None = None) -> np.ndarray:
    """Return log(1 + CP10k) of the `n` most variable genes, float32, shape (n_cells, at most n).

    As in the zero-shot benchmark of Kedzierska et al. (2025): genes with fewer than 10 counts are left out,
    then scanpy's flavour "seurat" (dispersion against mean) over all cells, whatever their batch. (The
    flavour "seurat_v3" takes raw counts and chooses other genes.) A dataset with no more than `n` such genes
    keeps them all.
    """
    import scanpy as sc

    counts, _, library_size = measured_counts(adata, genes)
    seen = np.asarray(counts.sum(axis=0)).ravel() >= LEAST_COUNTS
    x = sc.AnnData(log_normalise(counts, library_size, CP10K)[:, seen])
    if x.n_vars <= n:
        return x.X.toarray()
    sc.pp.highly_variable_genes(x, flavor="seurat", n_top_genes=n)
    return x.X[:, x.var["highly_variable"].to_numpy()].toarray()


def embed_pca(
    adata: AnnData,
    n_components: int = N_COMPONENTS,
    genes: Sequence[str] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Return principal components of a dataset's own log counts, float32, shape (n, n_components).

    All genes take part, unscaled. A small dataset has at most min(n, G) - 1 components.
    """
    counts, _, library_size = measured_counts(adata, genes)
    x = log_normalise(counts, library_size, LIBRARY_SIZE)
    scores, _ = principal_components(x, np.ones((len(library_size), 1)), -x.mean(axis=0), n_components, seed)
    return scores


def embed_souza_mehta(
    adata: AnnData,
    n_components: int = N_COMPONENTS,
    genes: Sequence[str] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Return principal components of within-cell normal scores, float32, shape (n, n_components).

    The representation of Souza & Mehta (2026, arXiv 2602.16696): the counts of a cell are normalised, ranked
    and turned into normal scores (as in scTOP, :func:`txfm_lite.linear.normal_scores`), then reduced by PCA;
    linear methods do the rest. Their pipeline also selects genes by an analysis of variance between cell
    types. That needs labels, which an embedding must not see: here all genes stay, so that nothing is left
    to choose but the number of components.
    """
    counts, _, _ = measured_counts(adata, genes)
    above, zero = normal_scores(counts)
    mean = np.asarray(above.mean(axis=0)).ravel() + zero.mean()
    left = np.column_stack([zero, np.ones_like(zero)])
    scores, _ = principal_components(above, left, np.stack([np.ones_like(mean), -mean]), n_components, seed)
    return scores


def embed_gene_vectors(adata: AnnData, vectors: pd.DataFrame) -> np.ndarray:
    """Return the mean of gene vectors weighted by expression, float32, shape (n, d).

    GenePT-w: see :func:`txfm_lite.encodings_orders.genept`.

    Parameters
    ----------
    adata : AnnData
    vectors : DataFrame, shape (genes, d)
        Indexed by gene symbol.
    """
    return encodings.genept(adata, vectors).vectors


class CorpusPCA:
    """Principal components of a training corpus, applied to other datasets.

    A gene that a sample's dataset does not measure is given the gene's mean over the samples that do, so that
    it moves the sample nowhere. The totals of a panel (fewer than 7,000 genes) are divided by the share of a
    library that falls on its genes in the corpus, as TxFM's are by the share that TxFM expects. Neither
    fitting nor embedding makes the counts dense.

    Parameters
    ----------
    corpus : Corpus
        Its training samples are used.
    n_components : int
    seed : int
        For the first vector of the iterative solver.

    Attributes
    ----------
    genes : ndarray of str, shape (G,)
    mean : ndarray, float32, shape (G,)
        Mean log counts of each gene, where it is measured.
    profile : ndarray, float32, shape (G,)
        Mean share of each gene in a library, where it is measured.
    centre : ndarray, float32, shape (G,)
        Mean of all samples, filled up.
    components : ndarray, float32, shape (n_components, G)
    """

    _ARRAYS = ("genes", "mean", "profile", "centre", "components")

    def __init__(self, corpus: Corpus, n_components: int = N_COMPONENTS, seed: int = 0):
        import scipy.sparse as sp

        rows = corpus.rows("train")
        x, dataset = (
            log_normalise(corpus.csr(rows), corpus.library_size[rows], LIBRARY_SIZE),
            corpus.dataset[rows],
        )
        size = np.bincount(dataset, minlength=len(corpus.measured))
        n_measuring = np.maximum(size @ corpus.measured, 1)
        total = np.asarray(x.sum(axis=0, dtype=np.float64)).ravel()
        self.genes = corpus.genes
        self.mean = (total / n_measuring).astype(np.float32)
        scaled = np.asarray(x.expm1().sum(axis=0, dtype=np.float64)).ravel()
        self.profile = (scaled / LIBRARY_SIZE / n_measuring).astype(np.float32)
        filled = ~corpus.measured * self.mean  # what a dataset's samples get where it measures nothing
        self.centre = ((total + size @ filled) / len(rows)).astype(np.float32)
        membership = sp.csr_matrix((np.ones(len(rows)), (np.arange(len(rows)), dataset)))
        filled = filled[: membership.shape[1]] - self.centre
        _, self.components = principal_components(x, membership, filled, n_components, seed)

    def embed(self, adata: AnnData) -> np.ndarray:
        """Project the samples of `adata`, float32, shape (n, n_components)."""
        aligned = Aligned(adata, self.genes)
        measured, panel = aligned.match.measured, aligned.match.identified.sum() < PANEL
        share = min(1.0, float(self.profile[measured].sum())) if panel else 1.0
        shift = (~measured * self.mean - self.centre) @ self.components.T
        parts = []
        for _, x, total in aligned:
            if share < 1:
                total = np.maximum(np.asarray(x.sum(axis=1)).ravel(), 1) / share
            parts.append(log_normalise(x, total, LIBRARY_SIZE) @ self.components.T + shift)
        return np.concatenate(parts)

    def gene_vectors(self) -> pd.DataFrame:
        """Return the loadings, one row per gene, shape (G, n_components)."""
        import pandas as pd

        return pd.DataFrame(self.components.T, index=pd.Index(self.genes, name="gene"))

    def save(self, path: str | Path) -> Path:
        """Write one .npz file, whole or not at all."""
        path = Path(path)
        aside = path.with_name(path.name + ".partial")
        with aside.open("wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in self._ARRAYS})
        return aside.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> CorpusPCA:
        """Read what :meth:`save` wrote."""
        self = cls.__new__(cls)
        with np.load(path, allow_pickle=False) as arrays:
            for name in cls._ARRAYS:
                setattr(self, name, arrays[name])
        return self


def models(
    corpus: Corpus | None = None,
    genes: Sequence[str] | None = None,
    *,
    txfm: TxFM | str | Path | None = None,
    vectors: pd.DataFrame | None = None,
    folder: str | Path | None = None,
) -> dict[str, Callable[[AnnData, int], np.ndarray]]:
    """Return every baseline as a function ``(adata, seed) -> ndarray``, float32, row i for cell i.

    Parameters
    ----------
    corpus : Corpus, optional
        Adds the models fitted on it, one fit per seed when first needed; fits are kept in `folder`.
    genes : sequence of str, optional
        The vocabulary that all baselines see; by default the corpus', or without one all genes of a dataset.
    txfm : TxFM, or the name or folder of one, optional
        Adds this model untrained, and fine-tuned on the target.
    vectors : DataFrame, optional
        Adds GenePT-w with these gene vectors, see :func:`embed_gene_vectors`.
    folder : path, optional
        By default one in the cache. A file's name says on which corpus, how and with which seed it was made.

    Returns
    -------
    dict
        In the order of this module's table. Without a use for the seed, all seeds give one result.
    """
    from .baselines_scvi import CorpusSCVI, embed_scvi

    if genes is None and corpus is not None:
        genes = corpus.genes
    found = {
        "raw counts": lambda adata, seed: embed_raw_counts(adata, genes),
        "log counts": lambda adata, seed: embed_log_counts(adata, genes),
    }
    for n in HVG_SIZES:
        found[f"HVG {n}"] = lambda adata, seed, n=n: embed_variable_genes(adata, n, genes)
    found["PCA (target)"] = lambda adata, seed: embed_pca(adata, genes=genes, seed=seed)
    if corpus is not None:
        pca = fitted(CorpusPCA, corpus, f"pca{N_COMPONENTS}", ".npz", folder)
        found["PCA (corpus)"] = lambda adata, seed: pca(seed).embed(adata)
    found["Souza-Mehta"] = lambda adata, seed: embed_souza_mehta(adata, genes=genes, seed=seed)
    if vectors is not None:
        found["GenePT-w"] = lambda adata, seed: embed_gene_vectors(adata, vectors)
    found["scVI (target)"] = lambda adata, seed: embed_scvi(adata, genes, seed)
    if corpus is not None:
        scvi = fitted(CorpusSCVI, corpus, "scvi", ".safetensors", folder)
        found["scVI (corpus)"] = lambda adata, seed: scvi(seed).embed(adata)
    if txfm is not None:
        from .baselines_txfm import embed_fine_tuned, embed_untrained

        found["TxFM untrained"] = lambda adata, seed: embed_untrained(adata, txfm, seed)
        found["TxFM fine-tuned"] = lambda adata, seed: embed_fine_tuned(adata, txfm, seed)
    return found


def fitted(
    kind: type, corpus: Corpus, name: str, suffix: str, folder: str | Path | None = None
) -> Callable[[int], Any]:
    """Return a function seed -> model that reads a stored fit of a corpus, or fits and stores it.

    Parameters
    ----------
    kind : type
        Made by ``kind(corpus, seed=...)``, with ``save(path)`` and ``kind.load(path)``.
    corpus : Corpus
    name, suffix : str
        Of the file, between them the corpus' fingerprint and the seed.
    folder : path, optional
        By default one in the cache.
    """
    folder = Path(folder) if folder is not None else cache_directory() / "baselines"

    @functools.cache
    def get(seed: int):
        path = folder / f"{name}-{corpus.fingerprint[:12]}-seed{seed}{suffix}"
        if path.is_file():
            return kind.load(path)
        folder.mkdir(parents=True, exist_ok=True)
        model = kind(corpus, seed=seed)
        model.save(path)
        return model

    return get
