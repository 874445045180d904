"""Whether two sources of gene vectors know different things, and what their plain combination knows.

Vectors learned from expression (TxFM) and from gene sets (GSFM) are asked the same: which known relationships
do they recall (:mod:`txfm_lite.evaluate.genes`), and which genes complete a set
(:mod:`txfm_lite.evaluate.genesets`)? Two sources complement each other if one recalls pairs that the other
does not *and* would not recall as many dealt ones: a pair that is recalled by either of two sources that know
nothing is recalled one time in five.

Combinations need no training. With vectors of length one side by side, the cosine is the *mean* of the two
cosines; with each source divided by the spread of its cosines over all pairs, it is that of their z-scores,
so that neither source is louder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import genes

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

Predictor = Callable[["sp.csr_matrix"], np.ndarray]

COMBINATIONS = ("concatenation", "mean of z-scores")
DRAWN = 200_000  # pairs from which the spread of cosines is taken


def joined_vectors(
    tables: dict[str, pd.DataFrame], dimension: int = genes.DIMENSION, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Return sources of gene vectors and their combinations, over the genes that all have.

    Parameters
    ----------
    tables : dict
        Name -> DataFrame (genes, d), indexed by symbol.
    dimension : int
        Principal axes of each source that are kept.
    seed : int
        Of the pairs that the spread is taken from.

    Returns
    -------
    dict
        The names, then "concatenation" and "mean of z-scores" -> DataFrame of float32. Columns are axes in
        order: evaluate with ``ordered=True, dimensions=()``.
    """
    import pandas as pd

    common = pd.Index(sorted(set.intersection(*(set(table.index) for table in tables.values()))))
    units = {
        name: genes.unit(genes.principal_axes(table.loc[common].to_numpy(np.float32))[:, :dimension])
        for name, table in tables.items()
    }
    pairs = np.random.default_rng(seed).integers(len(common), size=(DRAWN, 2))
    first, second = pairs[pairs[:, 0] != pairs[:, 1]].T
    spread = {name: np.einsum("ij,ij->i", x[first], x[second]).std() for name, x in units.items()}
    joined = {
        "concatenation": np.hstack(list(units.values())),
        "mean of z-scores": np.hstack([x / np.sqrt(spread[name]) for name, x in units.items()]),
    }
    return {name: pd.DataFrame(x, common) for name, x in (units | joined).items()}


def shared_recall(
    first: pd.DataFrame, second: pd.DataFrame, pairs: dict[str, pd.DataFrame], seed: int = 0
) -> pd.DataFrame:
    """Count the pairs that both of two sources recall, one of them, or neither.

    Parameters
    ----------
    first, second : DataFrame, shape (G, d)
        Two of :func:`joined_vectors`, of the same genes.
    pairs : dict
        As for :func:`txfm_lite.evaluate.genes.evaluate`.
    seed : int
        Of the dealt pairs.

    Returns
    -------
    DataFrame
        One row per database and their "union": shares of pairs recalled by ``both``, ``first`` alone,
        ``second`` alone, ``neither``; ``either``; of dealt pairs ``either, null``; and ``n``.
    """
    import pandas as pd

    index, rng, rows = first.index, np.random.default_rng(seed), {}
    known = {name: genes.positions(frame, index) for name, frame in genes.with_union(pairs).items()}
    asked = {name: (true, genes.rewired(true, known["union"], rng)) for name, true in known.items()}
    parts = [part for two in asked.values() for part in two]
    cuts = np.cumsum([len(part) for part in parts])[:-1]
    recalled = (
        genes.recalled(genes.unit(x.to_numpy(np.float32)), np.concatenate(parts)) for x in (first, second)
    )
    hits = [iter(np.split(x != 0, cuts)) for x in recalled]  # one pass through all cosines for each source
    for name, (true, dealt) in asked.items():
        a, b = (next(x) for x in hits)
        either = next(hits[0]) | next(hits[1])
        shares = [(a & b), (a & ~b), (b & ~a), ~(a | b), (a | b)]
        mean = [float(x.mean()) if len(true) else np.nan for x in shares]
        rows[name] = [*mean, float(either.mean()) if len(dealt) else np.nan, len(true)]
    columns = ["both", "first", "second", "neither", "either", "either, null", "n"]
    return pd.DataFrame(rows, columns).T


def mean_of_ranks(predictors: Sequence[Predictor]) -> Predictor:
    """Return a predictor whose score is the mean of the ranks that some predictors give.

    Ranks are shares of the genes that a predictor knows, ties shared. A gene that none knows stays unknown;
    one that some know has the mean of those.
    """
    from scipy.stats import rankdata

    def predict(visible):
        total, count = np.zeros(visible.shape), np.zeros(visible.shape)
        for one in predictors:
            scores = np.asarray(one(visible))
            known = ~np.isnan(scores).any(axis=0)
            ranks = rankdata(scores[:, known], axis=1) / max(known.sum(), 1)
            total[:, known] += ranks
            count[:, known] += 1
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)

    return predict
