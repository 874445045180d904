"""Relationship recall: whether known partners are among the most like, or most unlike, perturbations.

All pairs of perturbations are ranked by cosine; a known pair is recalled if it is among the lowest or the
highest five per cent. So one in ten is recalled by chance, and scores that show this metric on a scale from
zero hide it. Published code reads a boolean column as text, so that controls stay on the map, and needs
twenty known genes; here controls are off it, and ten known pairs are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .scores import partial

if TYPE_CHECKING:
    import pandas as pd

TAIL = 0.05
LEAST_PAIRS = 10
N_PERMUTATIONS = 200


def recalled(vectors: np.ndarray) -> np.ndarray:
    """Tell for each pair of rows whether its cosine is in the outer tails of those of all pairs.

    Parameters
    ----------
    vectors : ndarray, shape (k, d)

    Returns
    -------
    ndarray of bool, shape (k, k)
        Symmetric. At most 5 % of all pairs are at or below its cosine, or at least 95 % are below it; so a
        pair in a large tie, as in a constant embedding, is not recalled.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(length > 0, length, 1)
    cosine = np.round(units @ units.T, 12)  # equal ones must tie, whatever the order of summation
    null = np.sort(cosine[np.triu_indices(len(units), 1)])
    left, right = (np.searchsorted(null, cosine, side) / max(1, len(null)) for side in ("left", "right"))
    return (right <= TAIL) | (left >= 1 - TAIL)


def relationship_recall(
    vectors: np.ndarray, names: np.ndarray, pairs: dict[str, pd.DataFrame], seed: int = 0
) -> list[dict[str, Any]]:
    """Score a map of perturbations by the known pairs of each database.

    Parameters
    ----------
    vectors : ndarray, shape (k, d)
        One per perturbation.
    names : array of str, shape (k,)
        Gene symbols.
    pairs : dict
        Database -> DataFrame with columns `entity1` and `entity2`. Order, repeats and pairs of a gene with
        itself do not matter.
    seed : int
        Of the null: the names permuted, so that each keeps its number of known partners.

    Returns
    -------
    list of partial rows
        "bmdb <database>", "bmdb union", and "bmdb", the mean over the databases that have ten known pairs
        here; nan with fewer. n counts the pairs.
    """
    hit, rng = recalled(vectors), np.random.default_rng(seed)
    permuted = [rng.permutation(len(names)) for _ in range(N_PERMUTATIONS)]
    known = {database: _positions(frame, names) for database, frame in pairs.items()}
    rows, total = [], np.unique(np.concatenate([np.empty((0, 2), int), *known.values()]), axis=0)
    for database, (i, j) in ((d, p.T) for d, p in [*known.items(), ("union", total)]):
        value = null = float("nan")
        if len(i) >= LEAST_PAIRS:
            value, null = hit[i, j].mean(), np.mean([hit[order[i], order[j]].mean() for order in permuted])
        rows.append(partial(f"bmdb {database}", value, null=null, n=len(i)))
    defined = [row for row in rows[:-1] if not np.isnan(row["value"])]
    value, null = (np.mean([row[key] for row in defined]) if defined else np.nan for key in ("value", "null"))
    return [partial("bmdb", value, null=null, n=len(total)), *rows]


def _positions(frame: pd.DataFrame, names: np.ndarray) -> np.ndarray:
    """Return the distinct pairs among `names`, as positions in it, shape (pairs, 2)."""
    import pandas as pd

    index = pd.Index(np.asarray(names).astype(str))
    found = np.column_stack([index.get_indexer(frame[side]) for side in ("entity1", "entity2")])
    found = np.sort(found[(found >= 0).all(axis=1) & (found[:, 0] != found[:, 1])], axis=1)
    return np.unique(found, axis=0)
