"""Relationship recall: whether known partners are among the most like, or most unlike, perturbations.

All pairs of perturbations are ranked by cosine; a known pair is recalled if it is among the lowest or the
highest five per cent. So one in ten is recalled by chance, and scores that show this metric on a scale from
zero hide it. Published code reads a boolean column as text, so that controls stay on the map, and needs
twenty known genes; here controls are off it, and ten known pairs are needed. Vectors of genes, thousands of
them, are scored in :mod:`txfm_lite.evaluate.genes`, by the same rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import genes
from .scores import partial

if TYPE_CHECKING:
    import pandas as pd

N_PERMUTATIONS = 200


def recalled(vectors: np.ndarray) -> np.ndarray:
    """Tell for each pair of rows of `vectors` (k, d) whether it is recalled: bool, (k, k), symmetric.

    The rule, and what happens to ties, is that of :func:`txfm_lite.evaluate.genes.recalled`.
    """
    pairs = np.column_stack(np.triu_indices(len(vectors), 1))
    hit = np.zeros((len(vectors), len(vectors)), dtype=bool)
    hit[*pairs.T] = genes.recalled(genes.unit(vectors), pairs) != 0
    return hit | hit.T


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
    import pandas as pd

    hit, rng = recalled(vectors), np.random.default_rng(seed)
    permuted = [rng.permutation(len(names)) for _ in range(N_PERMUTATIONS)]
    known = {database: genes.positions(frame, pd.Index(names)) for database, frame in pairs.items()}
    rows, total = [], np.unique(np.concatenate([np.empty((0, 2), int), *known.values()]), axis=0)
    for database, (i, j) in ((d, p.T) for d, p in [*known.items(), ("union", total)]):
        value = null = float("nan")
        if len(i) >= genes.LEAST_PAIRS:
            value, null = hit[i, j].mean(), np.mean([hit[order[i], order[j]].mean() for order in permuted])
        rows.append(partial(f"bmdb {database}", value, null=null, n=len(i)))
    defined = [row for row in rows[:-1] if not np.isnan(row["value"])]
    value, null = (np.mean([row[key] for row in defined]) if defined else np.nan for key in ("value", "null"))
    return [partial("bmdb", value, null=null, n=len(total)), *rows]
