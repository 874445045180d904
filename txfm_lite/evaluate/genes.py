r"""Genes: how well the vectors that a model has of genes tell which proteins work together.

A gene's vector may come from anywhere: a model's codebook or decoder, the loadings of a PCA, its expression
over a corpus. The question is always the same (relationship recall of EFAAR_benchmarking, in the gene-level
form of the TxFM paper, appendix B.3): standardise the columns, reduce them by PCA, take cosines. A known pair
of genes is *recalled* if its cosine lies among the lowest or the highest 5 % of those of *all* pairs. What to
mind, and what is done here:

- One pair in ten is recalled by chance, not none. And genes of which much is known are alike for other
  reasons, too: most are highly expressed. So each score's null is measured: the same genes, each in as many
  pairs as before, with others (:func:`rewired`).
- The paper's dimensions of that PCA (32 for the codebook, 256 for the decoder, 1,024 for baselines) were each
  chosen on the reported score. Here one dimension is fixed for all, the whole scan is shown, and "chosen" is
  chosen on one half of the pairs and scored on the other.
- The published code names a sample of 5,000 and a seed for the distribution of all pairs, and uses neither.
  Here it is all of them: 20,000 genes have 200 million, which are counted block by block, never held.
- Where a gene's vector is short because the gene is hardly expressed (loadings of a PCA), taking the columns'
  means away leaves all such genes in one direction, and they fill the upper tail. And standardised loadings
  have no order any more. So vectors with ordered columns are cut after the first ones and left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .scores import partial

if TYPE_CHECKING:
    import pandas as pd

DATABASES = ("CORUM", "HuMAP", "Reactome", "SIGNOR", "StringDB")
DIMENSION = 32  # fixed before any score was seen: every source has that many; the paper's for the codebook
DIMENSIONS = (8, 16, 32, 64, 128, 256)
TAIL = 20  # one pair in so many, at each end
LEAST_PAIRS = 10
N_REWIRED = 3
ROUNDS = 20  # of rewiring; what finds no partner by then is left out
RESOLUTION = 1_000_000  # cosines are counted to the sixth decimal; products in float32 know little more
BLOCK = 512  # genes whose cosines with all others are held at once


def known_pairs(databases: Sequence[str] = DATABASES) -> dict[str, pd.DataFrame]:
    """Return known relationships of genes: database -> DataFrame with columns `entity1` and `entity2`.

    Each pair stands once, its genes in alphabetical order. The lists are EFAAR_benchmarking's; those of
    CORUM and SIGNOR are not for commercial use.
    """
    from .. import datasets

    return {name: _distinct(datasets.read("efaar_benchmark_annotations", name)) for name in databases}


def coverage(genes: Sequence[str], pairs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count the pairs and genes of each database and of their union, and those that have vectors."""
    import pandas as pd

    rows = {}
    for name, frame in with_union(pairs).items():
        here = frame[frame.isin(set(genes)).all(axis=1)]
        n_genes, n_here = (len(pd.unique(x.to_numpy().ravel())) for x in (frame, here))
        rows[name] = [len(frame), len(here), n_genes, n_here]
    return pd.DataFrame(rows, ["pairs", "pairs with vectors", "genes", "genes in these"]).T


def with_union(pairs: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the databases, each pair once, and as the last one their "union"."""
    import pandas as pd

    each = {name: _distinct(frame) for name, frame in pairs.items()}
    return each | {"union": _distinct(pd.concat(each.values()))}


def evaluate(
    vectors: pd.DataFrame,
    pairs: dict[str, pd.DataFrame],
    *,
    dimensions: Sequence[int] = DIMENSIONS,
    ordered: bool = False,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Score gene vectors by the known relationships among the genes that are nearest and farthest.

    Parameters
    ----------
    vectors : DataFrame, shape (G, d)
        Indexed by gene symbol.
    pairs : dict
        Database -> DataFrame with columns `entity1` and `entity2`, see :func:`known_pairs`.
    dimensions : sequence of int
        How many principal axes of the vectors to keep: all d where there are fewer.
    ordered : bool
        The columns come in order of importance, as loadings of a PCA do: keep the first ones and change
        nothing. Without dimensions: take the cosines of the rows as they are.
    seed : int
        Of the rewired pairs and the halves.

    Returns
    -------
    list of partial rows
        `metric` is "recall". `variant` says which pairs and which axes, as in "CORUM, PCA 32": each database;
        "union", the pairs of any database, which is the paper's; "mean" over databases; "alike" and
        "opposite", the two ends of the union; and after the comma each dimension; "chosen", the best of these
        on one half of the pairs, scored on the other, and the reverse; or "all", if there are no dimensions.
        `null`: the same score for rewired pairs, mean of three draws; random vectors have 0.10. `n` counts
        pairs. nan with fewer than ten.

    Raises
    ------
    ValueError
        If a gene has two vectors, or a number is missing or infinite.
    """
    x, index = _checked(vectors), vectors.index
    rng = np.random.default_rng(seed)
    known = {name: positions(frame, index) for name, frame in with_union(pairs).items()}
    drawn = {k: [rewired(p, known["union"], rng) for _ in range(N_REWIRED)] for k, p in known.items()}
    half = {name: rng.permutation(len(p)) % 2 == 0 for name, p in known.items()}
    x = x if ordered else principal_axes(x)
    cuts = {f"PCA {k}": min(k, x.shape[1]) for k in dimensions}
    cuts = cuts or {"all": x.shape[1]}
    found = {k: _hits(unit(x[:, :k]), known, drawn) for k in set(cuts.values())}
    hits = {name: found[k] for name, k in cuts.items()}
    rows = [row for name, hit in hits.items() for row in _rows(name, hit)]
    return rows + (_rows("chosen", _choose(hits, half)) if len(found) > 1 else [])


def recalled(units: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Tell for each of some pairs whether its cosine is in an outer tail of the cosines of all pairs.

    Parameters
    ----------
    units : ndarray, float32, shape (G, d)
        Rows of length one, or zero.
    pairs : ndarray of int, shape (p, 2)
        Two different rows each, the lower one first.

    Returns
    -------
    ndarray of int8, shape (p,)
        -1: at most one in twenty of all pairs has a cosine as low or lower. 1: at least nineteen in twenty
        have a lower one. 0: neither, and so for ties, above all for vectors that are all the same.
    """
    counts = np.zeros(2 * RESOLUTION + 1, dtype=np.int64)
    at = np.empty(len(pairs), dtype=np.int64)
    first, second = pairs.T
    for a in range(0, len(units), BLOCK):
        cosine = np.rint(units[a : a + BLOCK] @ units[a:].T * RESOLUTION)
        place = cosine.astype(np.int64).clip(-RESOLUTION, RESOLUTION) + RESOLUTION
        m = len(place)
        for part in (place[:, :m][np.triu_indices(m, 1)], place[:, m:].ravel()):
            counts += np.bincount(part, minlength=len(counts))
        inside = np.flatnonzero((first >= a) & (first < a + m))
        at[inside] = place[first[inside] - a, second[inside] - a]
    below = counts.cumsum()
    k = below[-1] // TAIL
    low, high = np.searchsorted(below, [k, below[-1] - k - 1], side="right")  # cosines number k from each end
    return (at > high).astype(np.int8) - (at < low)


def rewired(pairs: np.ndarray, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal the partners of pairs anew: each gene in as many pairs as before, none of them known.

    Parameters
    ----------
    pairs, known : ndarray of int, shape (p, 2) and (q, 2)
        The lower number first.
    rng : Generator

    Returns
    -------
    ndarray of int, shape (p or fewer, 2)
        A few genes that are in a large share of all pairs may find too few partners: their surplus is left
        out. A pair may occur twice.
    """
    base = 1 + max(p.max(initial=0) for p in (pairs, known))
    taken = np.append(np.sort(known @ [base, 1]), -1)  # -1 stands behind the last place
    dealt, unfit = pairs.copy(), np.ones(len(pairs), dtype=bool)
    for _ in range(ROUNDS):
        again = unfit.copy()  # those that fit give as many ends as those that do not: a change needs both
        again[rng.permutation(np.flatnonzero(~unfit))[: unfit.sum()]] = True
        new = np.sort(rng.permutation(dealt[again].ravel()).reshape(-1, 2), axis=1)
        code = new @ [base, 1]
        listed = taken[np.searchsorted(taken[:-1], code)] == code
        dealt[again], unfit[again] = new, listed | (new[:, 0] == new[:, 1])
        if not unfit.any():
            break
    return dealt[~unfit]


def positions(frame: pd.DataFrame, genes: pd.Index) -> np.ndarray:
    """Return the distinct pairs among `genes` as places in it, shape (p, 2), the lower one first."""
    found = np.column_stack([genes.get_indexer(frame[side]) for side in ("entity1", "entity2")])
    found = np.sort(found[(found >= 0).all(axis=1)], axis=1)
    return np.unique(found[found[:, 0] != found[:, 1]], axis=0)


def principal_axes(values: np.ndarray) -> np.ndarray:
    """Standardise columns and turn them to their principal axes: float32, as many columns at most.

    A column without variance becomes zeros.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit_transform(values.astype(np.float64))
    if scaled.any():
        solver = "full" if len(scaled) < scaled.shape[1] else "covariance_eigh"
        scaled = PCA(svd_solver=solver).fit_transform(scaled)
    return scaled.astype(np.float32)


def unit(values: np.ndarray) -> np.ndarray:
    """Scale rows to length one, float32; rows of zeros stay so."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(length > 0, length, 1)).astype(np.float32, copy=False)


def neighbours(
    vectors: pd.DataFrame,
    gene: str,
    n: int = 10,
    *,
    dimension: int | None = DIMENSION,
    ordered: bool = False,
    pairs: dict[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Return the genes whose vectors point in the direction most like a gene's.

    Parameters
    ----------
    vectors, ordered, pairs
        As for :func:`evaluate`.
    gene : str
    n : int
    dimension : int, optional
        Axes to keep; all if it is None or the vectors have fewer.

    Returns
    -------
    DataFrame, shape (n, 1 or 2)
        Indexed by gene: `cosine`, and with `pairs` given `known`, the databases that list the two, or "".

    Raises
    ------
    KeyError
        If the gene has no vector.
    """
    import pandas as pd

    if gene not in vectors.index:
        raise KeyError(f"{gene!r} has no vector here; {len(vectors):,} genes have, by symbol")
    x = _checked(vectors)
    x = (x if ordered else principal_axes(x))[:, :dimension]
    units = unit(x)
    cosine = pd.Series(units @ units[vectors.index.get_loc(gene)], vectors.index, name="cosine")
    found = cosine.drop(gene).nlargest(n).to_frame()
    if pairs is not None:
        partners = {name: _partners(frame, gene) for name, frame in pairs.items()}
        found["known"] = [", ".join(k for k, p in partners.items() if g in p) for g in found.index]
    return found


def _distinct(frame: pd.DataFrame) -> pd.DataFrame:
    """Return each pair of two different genes once, in alphabetical order."""
    import pandas as pd

    ends = np.sort(frame[["entity1", "entity2"]].to_numpy(dtype=str), axis=1)
    both = pd.DataFrame(ends, columns=["entity1", "entity2"], dtype=object)
    return both[both["entity1"] != both["entity2"]].drop_duplicates(ignore_index=True)


def _partners(frame: pd.DataFrame, gene: str) -> set[str]:
    a, b = frame["entity1"], frame["entity2"]
    return {*b[a == gene], *a[b == gene]}


def _checked(vectors: pd.DataFrame) -> np.ndarray:
    if (twice := vectors.index[vectors.index.duplicated()]).size:
        raise ValueError(f"{twice.size} genes have more than one vector, for example {twice[0]!r}")
    x = vectors.to_numpy(np.float32)
    if (bad := np.flatnonzero(~np.isfinite(x).all(axis=1))).size:
        raise ValueError(
            f"the vectors of {bad.size} genes have missing or infinite numbers, for example "
            f"{vectors.index[bad[0]]!r}: leave those genes out"
        )
    return x


def _hits(
    units: np.ndarray, known: dict[str, np.ndarray], drawn: dict[str, list[np.ndarray]]
) -> dict[str, tuple[np.ndarray, list[np.ndarray]]]:
    """Return for each database what was recalled (see :func:`recalled`), of its pairs and of each rewiring.

    All pairs go through the cosines of all genes at once: that pass takes the time.
    """
    sets = [p for name in known for p in (known[name], *drawn[name])]
    cuts = np.cumsum([len(p) for p in sets])[:-1]
    parts = iter(np.split(recalled(units, np.concatenate(sets)), cuts))
    return {name: (next(parts), [next(parts) for _ in drawn[name]]) for name in known}


def _choose(hits: dict[str, dict], half: dict[str, np.ndarray]) -> dict:
    """Return for each database the pairs' outcome with the axes that are best on the other half of them."""
    chosen = {}
    for database, a in half.items():
        found = {axes: of[database] for axes, of in hits.items()}
        right = {
            axes: [np.count_nonzero(pairs[part]) for part in (~a, a)] for axes, (pairs, _) in found.items()
        }
        best = [max(right, key=lambda axes: right[axes][side]) for side in (0, 1)]  # noqa: B023
        pairs = np.where(a, found[best[0]][0], found[best[1]][0])
        # a rewired pair belongs to no half: both choices are looked at
        draws = zip(*(found[axes][1] for axes in best), strict=True)
        chosen[database] = pairs, [np.concatenate(draw) for draw in draws]
    return chosen


def _rows(axes: str, found: dict[str, tuple[np.ndarray, list[np.ndarray]]]) -> list[dict[str, Any]]:
    """Return the scores with some axes."""
    rows = [_row(f"{name}, {axes}", *of, (-1, 1)) for name, of in found.items()]
    ends = [
        _row(f"{name}, {axes}", *found["union"], (end,)) for name, end in (("alike", 1), ("opposite", -1))
    ]
    single = [row for row in rows[:-1] if not np.isnan(row["value"])]
    value, null = (np.mean([row[key] for row in single]) if single else np.nan for key in ("value", "null"))
    return [*rows, partial("recall", value, variant=f"mean, {axes}", null=null, n=rows[-1]["n"]), *ends]


def _row(variant: str, pairs: np.ndarray, draws: list[np.ndarray], ends: tuple[int, ...]) -> dict[str, Any]:
    if len(pairs) < LEAST_PAIRS:
        return partial("recall", np.nan, variant=variant, n=len(pairs))
    null = np.mean([np.isin(draw, ends).mean() for draw in draws])
    return partial("recall", np.isin(pairs, ends).mean(), variant=variant, null=null, n=len(pairs))
