"""What a gene set model must beat: popularity, counting, linear algebra, neighbours, gene vectors.

A predictor is given some genes of a set and scores all genes: ``predict(visible) -> scores``, both of shape
(b, G) over one list of genes, `visible` a csr_matrix of ones, `scores` float32, nan for a gene that the
predictor does not know. :mod:`txfm_lite.evaluate.genesets` asks them all the same questions.

====================  ================================================================================
function              score of a gene j, given the genes i
====================  ================================================================================
popularity            number of training sets with j, whatever is given
popularity_within     number of other terms of the tested library with j: reads the test, not a rival
cooccurrence          mean over i of P(i in a set | j in it), as published
svd                   the given genes, projected on the first axes of the training sets
neighbours            share of the most similar training sets that have j, weighted by similarity
ease                  linear item-to-item model with a diagonal of zero, in closed form
cosine                mean cosine of the vector of j with those of i: any gene vectors
prismexp              boosted trees on correlations with i, one for each cluster of samples
from_model            logit of j of a trained gene set model
====================  ================================================================================

The first five are made by ``function(train, universe)`` from training sets; the numbers they need were
chosen on training sets that were held out, never on a benchmark library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .evaluate.set_statistics import only
from .genesets import GeneSets

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

Predictor = Callable[["sp.csr_matrix"], np.ndarray]

N_AXES = 64
N_NEIGHBOURS = 200
PENALTY = 30.0  # of EASE, where each set has length one
N_CLUSTERS = 16  # of samples; each needs enough of them for a correlation
POSITIVES, NEGATIVES = 25, 100  # hidden members and random genes of a set that trees learn from, at most
N_TREES = 60
ROWS = 32  # questions whose features for the trees are held at a time


def popularity(train: GeneSets, universe: Sequence[str], equal: bool = False) -> Predictor:
    """Score a gene by the number of training sets with it, the same for every question.

    Parameters
    ----------
    train : GeneSets
    universe : sequence of str
    equal : bool
        Give every library the same weight: sum up the gene's shares of the memberships of each. Otherwise the
        library with the most memberships decides.
    """
    if not equal:
        counts = counted(train, universe)
    else:
        names = np.unique(train.libraries.astype(str))
        parts = [train[train.libraries == name] for name in names]
        counts = sum(counted(part, universe) / len(part.indices) for part in parts)
    counts = counts.astype(np.float32)
    return lambda visible: np.broadcast_to(counts, visible.shape)


def counted(train: GeneSets, universe: Sequence[str]) -> np.ndarray:
    """Return in how many sets each gene of a universe is, float64, shape (G,)."""
    here = train.over(universe)
    return np.bincount(here.indices, minlength=len(universe)).astype(np.float64)


class popularity_within:
    """Score a gene by the number of other terms of the tested library with it.

    It sees the whole library but the term in question, and shows how much a benchmark gives away.
    """

    leaves_out = True

    def __init__(self, library: GeneSets, universe: Sequence[str]):
        self.counts = counted(library, universe).astype(np.float32)

    def __call__(self, visible: sp.csr_matrix, members: sp.csr_matrix) -> np.ndarray:
        """Return scores; `members` are the whole sets, shown and hidden genes."""
        return self.counts - members.toarray()


def similarity(matrix: np.ndarray) -> Predictor:
    """Score gene j by the mean over the given i of matrix[i, j], never of j with itself.

    Parameters
    ----------
    matrix : ndarray of float32, shape (G, G)
        Changed in place: the diagonal becomes zero.
    """
    np.fill_diagonal(matrix, 0)

    def predict(visible):
        return (visible @ matrix) / _others(visible)

    return predict


def cooccurrence(train: GeneSets, universe: Sequence[str]) -> Predictor:
    """Score gene j by the mean over the given i of P(i | j), the share of the sets with j that have i.

    Memory: 4 G² bytes. A gene in no training set scores zero.
    """
    together = _gram(_present(train.over(universe)))
    together /= np.maximum(np.diagonal(together).copy(), 1)
    return similarity(together)


def svd(train: GeneSets, universe: Sequence[str], n_axes: int = N_AXES, seed: int = 0) -> Predictor:
    """Project the given genes on the first singular vectors of the training sets, each of length one."""
    from sklearn.utils.extmath import randomized_svd

    x = _unit(train.over(universe).csr())
    n_axes = min(n_axes, min(x.shape) - 1)
    _, _, axes = randomized_svd(x, n_axes, random_state=seed)
    axes = axes.astype(np.float32)
    return lambda visible: (visible @ axes.T) @ axes


def neighbours(train: GeneSets, universe: Sequence[str], k: int = N_NEIGHBOURS) -> Predictor:
    """Score a gene by the `k` training sets most like what is given, by cosine, as a sum of similarities.

    The share of all training sets with the gene, times 1e-4, orders genes that none of the nearest has.
    """
    import scipy.sparse as sp

    sets = _present(train.over(universe))
    lengths, k = _unit(sets), min(k, len(train))
    popular = counted(train, universe).astype(np.float32) / max(len(train), 1) * 1e-4

    def predict(visible):
        alike = (_unit(visible) @ lengths.T).toarray()
        nearest = np.argpartition(-alike, k - 1, axis=1)[:, :k]
        weights = np.take_along_axis(alike, nearest, axis=1)
        rows = np.repeat(np.arange(len(alike)), k)
        chosen = sp.csr_matrix((weights.ravel(), (rows, nearest.ravel())), alike.shape)
        return (chosen @ sets).toarray() + popular

    return predict


def ease(train: GeneSets, universe: Sequence[str], penalty: float = PENALTY) -> Predictor:
    """Score by the linear item-to-item model of Steck (2019, WWW), "EASE", in closed form.

    With X the training sets, each scaled to length one, and P = (XᵀX + penalty · 1)⁻¹, the weights are
    B[i, j] = -P[i, j] / P[j, j], and zero on the diagonal: the regression of every gene on all others. The
    inverse is taken by Cholesky in place: 4 G² bytes, G³ operations, minutes for 19,000 genes.

    Raises
    ------
    ValueError
        If the penalty is too small for float32.
    """
    from scipy.linalg import lapack

    x = _unit(train.over(universe).csr())
    inverse = _gram(x).T  # symmetric: the transpose only makes it LAPACK's order
    inverse[np.diag_indices_from(inverse)] += penalty
    inverse, fault = lapack.spotrf(inverse, lower=True, overwrite_a=True)
    if not fault:
        inverse, fault = lapack.spotri(inverse, lower=True, overwrite_c=True)
    if fault:
        raise ValueError(
            f"penalty {penalty:g}: the Gram matrix cannot be inverted in float32; take a larger one"
        )
    for start in range(0, len(inverse), 512):  # the other triangle
        stop = min(start + 512, len(inverse))
        inverse[:start, start:stop] = inverse[start:stop, :start].T
        block = np.tril(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = block + np.tril(block, -1).T
    weights = inverse.T
    weights /= -np.diagonal(weights).copy()
    np.fill_diagonal(weights, 0)
    return lambda visible: visible @ weights


def cosine(vectors: pd.DataFrame, universe: Sequence[str]) -> Predictor:
    """Score gene j by its mean cosine with the given genes that have a vector, never with itself.

    Parameters
    ----------
    vectors : DataFrame, shape (genes, d)
        Indexed by symbol: of :func:`txfm_lite.embed.gene_vectors`, GenePT's, or expression over samples,
        whose cosine is co-expression (:func:`txfm_lite.evaluate.weights.bulk_coexpression`).
    universe : sequence of str
        Genes without a vector, or with one of zeros, are not known.

    Raises
    ------
    ValueError
        If a symbol occurs twice, a number is missing, or no gene of the universe has a vector.
    """
    lengths, known = _directions(vectors, universe)

    def predict(visible):
        given = only(visible, known)
        scores = (given @ lengths) @ lengths.T
        scores -= given.toarray()  # itself: the cosine is one
        scores /= _others(given)
        scores[:, ~known] = np.nan
        return scores

    return predict


def prismexp(
    train: GeneSets,
    universe: Sequence[str],
    profiles: pd.DataFrame,
    n_clusters: int = N_CLUSTERS,
    n_sets: int = 1000,
    seed: int = 0,
    only: Sequence[str] | None = None,
) -> Predictor:
    """Score by co-expression in clusters of samples, weighed by boosted trees, after PrismEXP.

    Samples are clustered; within each cluster, and over all, genes are correlated. The features of a gene and
    a set are its mean correlations with the given genes, itself excluded. Trees learn from training sets,
    half of each given, to tell its other genes from random ones. In small: PrismEXP has a hundred clusters or
    more of thousands of samples each, and LightGBM.

    Parameters
    ----------
    train : GeneSets
    universe : sequence of str
    profiles : DataFrame, shape (genes, samples)
        Of :func:`txfm_lite.evaluate.weights.bulk_coexpression`.
    n_clusters : int
    n_sets : int
        From how many training sets, drawn at random, trees learn.
    seed : int
    only : sequence of str, optional
        Genes that are scored, if not all: trees take their time. Scores of others are nan.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    directions, known = _cluster_directions(profiles, universe, n_clusters, seed)
    rng = np.random.default_rng(seed)
    sets = train.over(np.asarray(universe)[known])
    sets = sets[rng.permutation(np.flatnonzero(sets.sizes >= 10))[:n_sets]]
    features, target = [], []
    for start, stop in zip(sets.indptr[:-1], sets.indptr[1:], strict=True):
        members = rng.permutation(sets.indices[start:stop])
        given, hidden = members[: len(members) // 2], members[len(members) // 2 :][:POSITIVES]
        others = np.setdiff1d(rng.integers(len(sets.genes), size=NEGATIVES), members)
        asked = np.concatenate([hidden, others])
        features.append(np.column_stack([d[asked] @ d[given].mean(axis=0) for d in directions]))
        target.append(np.arange(len(asked)) < len(hidden))
    trees = HistGradientBoostingClassifier(max_iter=N_TREES, max_leaf_nodes=15, random_state=seed)
    trees.fit(np.concatenate(features), np.concatenate(target))

    wanted = known if only is None else known & np.isin(universe, np.asarray(only, dtype=str))

    def predict(visible):
        scores = np.full(visible.shape, np.nan, dtype=np.float32)
        given = visible[:, known]
        for start in range(0, len(scores), ROWS):
            some = given[start : start + ROWS]
            row, gene = some.nonzero()
            x = np.empty((*some.shape, len(directions)), dtype=np.float32)
            for i, d in enumerate(directions):
                x[..., i] = (some @ d) @ d.T
                x[row, gene, i] -= np.einsum("ij,ij->i", d[gene], d[gene])
            x /= _others(some)[..., None]
            x = x[:, wanted[known]]
            found = trees.predict_proba(x.reshape(-1, len(directions)))[:, 1]
            scores[start : start + ROWS, wanted] = found.reshape(x.shape[:2])
        return scores

    return predict


def from_model(model: Any, universe: Sequence[str]) -> Predictor:
    """Score by a trained model's logits; genes outside its vocabulary are not known.

    Parameters
    ----------
    model : GSFM or list of GSFM
        What :func:`txfm_lite.completion.complete` takes; of several, the mean of their logits counts, as in
        :func:`txfm_lite.completion.ensemble`.
    universe : sequence of str
    """
    from . import completion

    models = model if isinstance(model, list) else [model]
    universe = np.asarray(universe, dtype=str)
    place = {gene: i for i, gene in enumerate(universe)}
    column = np.array([place.get(gene, -1) for gene in models[0].genes[2:]])  # behind <unk> and <pad>
    here = column >= 0

    def predict(visible):
        names = np.arange(visible.shape[0]).astype(str).astype(object)
        sets = GeneSets(
            names, np.full(len(names), "asked", dtype=object), universe, visible.indptr.astype(np.int64),
            visible.indices.astype(np.int32),
        )  # fmt: skip
        scores = np.full(visible.shape, np.nan, dtype=np.float32)
        one = len(models) == 1
        logits = completion.complete(models[0], sets) if one else completion.ensemble(models, sets)[0]
        scores[:, column[here]] = logits[:, here]
        return scores

    return predict


def _present(sets: GeneSets) -> sp.csr_matrix:
    """Return 1 for each member, whatever its weight."""
    x = sets.csr()
    x.data[:] = 1
    return x


def _gram(x: sp.csr_matrix) -> np.ndarray:
    """Return xᵀx dense, float32, some rows at a time: a sparse product takes three times the memory."""
    columns, out = x.tocsc(), np.empty((x.shape[1], x.shape[1]), dtype=np.float32)
    for start in range(0, x.shape[1], 1024):
        piece = columns[:, start : start + 1024].T.tocsr() @ x
        piece.toarray(out=out[start : start + 1024])
    return out


def _unit(x: sp.csr_matrix) -> sp.csr_matrix:
    """Return rows of ones scaled to length one."""
    x = x.copy()
    x.data = np.repeat(1 / np.sqrt(np.maximum(np.diff(x.indptr), 1)), np.diff(x.indptr)).astype(np.float32)
    return x


def _others(given: sp.csr_matrix) -> np.ndarray:
    """Return for each row and gene how many genes are given beside it, at least 1, float32."""
    return np.maximum(np.diff(given.indptr)[:, None].astype(np.float32) - given.toarray(), 1)


def _directions(vectors: pd.DataFrame, universe: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of length one in the order of a universe, zeros where there is none, and who has one."""
    if (twice := vectors.index[vectors.index.duplicated()]).size:
        raise ValueError(f"{twice.size} symbols of the vectors occur twice, for example {twice[0]!r}")
    there = vectors.reindex(universe)
    known = np.asarray(universe)[vectors.index.get_indexer(universe) >= 0]
    if not len(known):
        raise ValueError("no gene of the universe has a vector: is the table indexed by gene symbol?")
    values = there.to_numpy(dtype=np.float32, copy=True)
    missing = ~np.isfinite(values).all(axis=1) & np.isin(np.asarray(universe), known)
    if missing.any():
        raise ValueError(
            f"{missing.sum()} vectors have missing or infinite numbers, for example that of "
            f"{str(np.asarray(universe)[missing][0])!r}"
        )
    values = np.nan_to_num(values)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(length, np.float32(1e-20)), length[:, 0] > 0


def _cluster_directions(
    profiles: pd.DataFrame, universe: Sequence[str], n_clusters: int, seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return centred profiles of length one: over all samples, then of each cluster; and the known genes.

    Samples are clustered by a thousand random genes, as in PrismEXP; clusters of fewer than ten are left out.
    """
    from sklearn.cluster import MiniBatchKMeans

    values, known = _directions(profiles, universe)
    values = profiles.reindex(np.asarray(universe)[known]).to_numpy(dtype=np.float32)
    some = np.random.default_rng(seed).permutation(len(values))[:1000]
    labels = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3).fit_predict(values[some].T)
    groups = [np.arange(values.shape[1]), *(np.flatnonzero(labels == c) for c in range(n_clusters))]
    found = []
    for samples in groups:
        if len(samples) >= 10:
            x = values[:, samples]
            x = x - x.mean(axis=1, keepdims=True)
            found.append(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-6)))
    return found, known
