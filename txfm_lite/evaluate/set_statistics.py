"""How well a ranking of genes finds the hidden members of a set, and how sure one can be of it.

All measures of one ranking follow from two numbers per hidden member: how many candidates score higher, and
how many the same. So every row of scores is sorted once, its members are looked up, and all rows are summed
up together. Equal scores are treated as equal: AUROC counts half, average precision takes them as one step
(both as scikit-learn does), and recall is what a random order among equals would give on average.

===========  ====================================================  ====================  ====================
measure      meaning                                               null                  ceiling
===========  ====================================================  ====================  ====================
AUROC        a hidden member scores above another candidate        1/2                   1
AP           precision, averaged over the hidden members           about their share     1
recall at k  share of the hidden members among the first k         k / candidates        k / members, or 1
ES           largest lead of the members in the running sum        that of random ranks  1
===========  ====================================================  ====================  ====================
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

EARLY = (10, 50, 100)
MEASURES = ("AUROC", "AP", *(f"recall at {k}" for k in EARLY), "ES")
WINDOW = 50  # candidates of like popularity that a member is compared with
ALIKE = 0.5  # Jaccard index above which two terms are taken as one for the bootstrap
DRAWS = 1000  # of the bootstrap


def rank_measures(scores: np.ndarray, hidden: sp.csr_matrix, candidates: np.ndarray) -> np.ndarray:
    """Return all measures of some rankings.

    Parameters
    ----------
    scores : ndarray of float32, shape (b, G)
        Higher means more likely a member; -inf is last.
    hidden : csr_matrix, shape (b, G)
        The members to be found; all of them must be candidates.
    candidates : ndarray of bool, shape (b, G)
        Who is ranked: all but the genes that were given.

    Returns
    -------
    ndarray of float64, shape (b, 6)
        In the order of :data:`MEASURES`; nan where a row has no member, or nothing but members.

    Raises
    ------
    ValueError
        If a score is nan.
    """
    if bad := int(np.isnan(scores).sum()):
        raise ValueError(
            f"{bad:,} scores are nan: a gene that cannot be judged should have -inf, the last place"
        )
    above, ties = _standing(scores, hidden, candidates)
    n_hidden = np.diff(hidden.indptr)
    n_other = candidates.sum(axis=1) - n_hidden
    row = np.repeat(np.arange(len(scores)), n_hidden)
    # members scoring at least as high: in each row, those whose step of the ranking ends no later
    end = above + ties
    order = np.lexsort([end, row])
    first = np.repeat(hidden.indptr[:-1], n_hidden)
    place = np.arange(len(row)) - first
    last_of_step = np.append((end[order][1:] != end[order][:-1]) | (row[1:] != row[:-1]), True)
    steps = np.flatnonzero(last_of_step)
    found = np.empty(len(row))
    found[order] = place[steps][np.searchsorted(steps, np.arange(len(row)))] + 1

    def total(values):
        return np.bincount(row, values, minlength=len(scores))

    possible = (n_hidden > 0) & (n_other > 0)
    n_hidden, n_other = np.maximum(n_hidden, 1), np.maximum(n_other, 1)
    every = n_hidden + n_other
    from_below = every[row] - above - (ties - 1) / 2  # fractional rank, 1 the lowest score
    auroc = (total(from_below) - n_hidden * (n_hidden + 1) / 2) / (n_hidden * n_other)
    precision = total(found / end) / n_hidden
    recall = [total(np.clip((k - above) / ties, 0, 1)) / n_hidden for k in EARLY]
    lead = np.zeros(len(scores))
    np.maximum.at(lead, row, found / n_hidden[row] - (end - found) / n_other[row])
    values = np.column_stack([auroc, precision, *recall, lead])
    values[~possible] = np.nan
    return values


def nulls_and_ceilings(n_hidden: np.ndarray, n_candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each measure is for random scores, and at best, two arrays of shape (b, 6).

    The average precision of a random ranking of N candidates with n members is (n - 1) / (N - 1) (1 - h) + h
    with h the N-th harmonic number over N, a little above their share. The ES is then the one-sided statistic
    of Kolmogorov and Smirnov for a uniform sample, the others being many; its mean for n members is
    n! / (2 nⁿ⁺¹) times the sum of nʲ / j! over j < n.
    """
    from scipy.special import digamma, gammaincc, gammaln

    n, n_candidates = np.maximum(n_hidden, 1).astype(float), np.maximum(n_candidates, 1)
    lead = np.exp(gammaln(n + 1) - (n + 1) * np.log(n) + n) / 2 * gammaincc(n, n)
    first = (digamma(n_candidates + 1) + np.euler_gamma) / n_candidates
    precision = (n - 1) / np.maximum(n_candidates - 1, 1) * (1 - first) + first
    one = np.ones(len(n))
    null = [one / 2, precision, *(np.minimum(k / n_candidates, 1) for k in EARLY), lead]
    best = [np.minimum(k / n, 1) for k in EARLY]
    return np.column_stack(null), np.column_stack([one, one, *best, one])


def matched_auroc(
    scores: np.ndarray, hidden: sp.csr_matrix, candidates: np.ndarray, popularity: np.ndarray
) -> np.ndarray:
    """Return the AUROC of members against other candidates that are about as popular, shape (b,).

    Each hidden member is compared with the candidates, not members, among the :data:`WINDOW` genes that stand
    next to it in the order of popularity. What is left is what a model knows beyond popularity.

    Parameters
    ----------
    scores, hidden, candidates
        As for :func:`rank_measures`.
    popularity : ndarray, shape (G,)
        For example the number of training sets with the gene; equals are taken in the order of genes.
    """
    g, half = scores.shape[1], min(WINDOW // 2, (scores.shape[1] - 1) // 2)
    order = np.argsort(popularity, kind="stable")
    place = np.empty(g, dtype=np.int64)
    place[order] = np.arange(g)
    rivals = candidates.copy()
    row = np.repeat(np.arange(len(scores)), np.diff(hidden.indptr))
    rivals[row, hidden.indices] = False
    centre = np.clip(place[hidden.indices], half, g - 1 - half)
    near = order[centre[:, None] + np.arange(-half, half + 1)]
    there = rivals[row[:, None], near]
    others, own = scores[row[:, None], near], scores[row, hidden.indices][:, None]
    won = ((others < own) + 0.5 * (others == own)) * there
    count = there.sum(axis=1)
    fine = count > 0
    share = won.sum(axis=1)[fine] / count[fine]
    n = np.bincount(row[fine], minlength=len(scores)).astype(float)
    n[n == 0] = np.nan
    return np.bincount(row[fine], share, minlength=len(scores)) / n


def clusters(sets: sp.csr_matrix, alike: float = ALIKE) -> np.ndarray:
    """Return a number per set: the same for sets that are joined by a chain of Jaccard indices above `alike`.

    Parameters
    ----------
    sets : csr_matrix of 0 and 1, shape (n, G)
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = np.diff(sets.indptr)
    both = (sets @ sets.T).tocoo()
    jaccard = both.data / (n[both.row] + n[both.col] - both.data)
    near = jaccard > alike
    graph = coo_matrix((np.ones(near.sum()), (both.row[near], both.col[near])), both.shape)
    return connected_components(graph, directed=False)[1]


def interval(
    values: np.ndarray, groups: np.ndarray, *, mean: bool = False, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return a bootstrap interval of the median of terms, or of their mean.

    Whole groups of near-duplicate terms are drawn, since they are not independent.

    Parameters
    ----------
    values : ndarray, shape (n,)
    groups : ndarray of int, shape (n,)
        Of :func:`clusters`; ``np.arange(n)`` takes terms as independent.
    mean : bool
    seed : int
    level : float
    """
    order = np.argsort(values)
    values, (names, groups) = values[order], np.unique(groups[order], return_inverse=True)
    rng, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        weight = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[groups]
        if mean:
            found.append(values @ weight / weight.sum())
        else:
            reached = np.cumsum(weight)
            found.append(values[np.searchsorted(reached, reached[-1] / 2)])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(values: pd.DataFrame, groups: np.ndarray | None = None) -> pd.DataFrame:
    """Test every pair of models on the terms that both have a value for.

    Wilcoxon's signed-rank test of the differences; p values of all pairs together are corrected after
    Benjamini and Hochberg. With `groups`, the differences of near-duplicate terms are averaged first.

    Parameters
    ----------
    values : DataFrame, shape (terms, models)
        For example the AUROC per term.
    groups : ndarray of int, shape (terms,), optional
        Of :func:`clusters`.

    Returns
    -------
    DataFrame
        a, b, n (terms or groups), difference (the median of a - b), better (share in which a is higher,
        equals half), p, q.

    Raises
    ------
    ValueError
        If there are fewer than two models, or two have fewer than six terms in common.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control, wilcoxon

    if values.shape[1] < 2:
        raise ValueError(f"{values.shape[1]} model(s): a comparison needs two")
    rows = []
    for a, b in combinations(values.columns, 2):
        difference = (values[a] - values[b]).to_numpy()
        there = np.isfinite(difference)
        if groups is not None:
            difference = pd.Series(difference[there]).groupby(np.asarray(groups)[there]).mean().to_numpy()
        else:
            difference = difference[there]
        if len(difference) < 6:
            raise ValueError(f"{a} and {b} have {len(difference)} terms in common: too few for a test")
        p = wilcoxon(difference, zero_method="zsplit").pvalue if difference.any() else 1.0
        better = ((difference > 0) + 0.5 * (difference == 0)).mean()
        rows.append({
            "a": a, "b": b, "n": len(difference), "difference": float(np.median(difference)),
            "better": float(better), "p": float(p),
        })  # fmt: skip
    found = pd.DataFrame(rows)
    return found.assign(q=false_discovery_control(found["p"]))


def only(matrix: sp.csr_matrix, columns: np.ndarray) -> sp.csr_matrix:
    """Return the entries in some columns, bool (G,); the shape stays."""
    import scipy.sparse as sp

    keep = columns[matrix.indices]
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[keep]
    return sp.csr_matrix((matrix.data[keep], (rows, matrix.indices[keep])), matrix.shape)


def _standing(
    scores: np.ndarray, hidden: sp.csr_matrix, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each hidden member how many candidates score higher, and how many the same (with it)."""
    ordered = np.where(candidates, scores, -np.inf)
    ordered.sort(axis=1)  # values only: several times as fast as their order
    above, ties = np.empty(hidden.nnz), np.empty(hidden.nnz)
    for row, (start, stop) in enumerate(zip(hidden.indptr[:-1], hidden.indptr[1:], strict=True)):
        own = scores[row, hidden.indices[start:stop]]
        left, right = (np.searchsorted(ordered[row], own, side) for side in ("left", "right"))
        above[start:stop], ties[start:stop] = scores.shape[1] - right, right - left
    last = scores[np.repeat(np.arange(len(scores)), np.diff(hidden.indptr)), hidden.indices] == -np.inf
    if last.any():  # those who are no candidates stand there, too
        outside = np.repeat((~candidates).sum(axis=1), np.diff(hidden.indptr))
        ties[last] -= outside[last]
    return above, ties
