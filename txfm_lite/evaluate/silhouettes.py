r"""Average silhouette widths: of cell types, and both readings of "ASW label/batch", from one pass.

A silhouette compares a cell's mean distance to its own group, a, with that to the nearest other group, b:
:math:`s = (b - a) / \max(a, b)`. All three scores need nothing but the sum of a cell's distances to the
cells of each pair (cell type, batch), so the n x n distances are computed once, a block of columns at a
time, and never kept.

Silhouettes of batches can mislead about integration (Rautenstrauch & Ohler 2025); they are here because the
published tables have them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .mixing import generator
from .scores import partial

BLOCK = 2**24  # distances held at a time: 128 MB


def evaluate(
    values: np.ndarray, labels: np.ndarray, batches: np.ndarray, seed: int = 0
) -> list[dict[str, Any]]:
    """Score how compact cell types are, and how little batches differ within them.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    labels, batches : array, shape (n,)
    seed : int
        Of the permutations.

    Returns
    -------
    list of dict
        Partial rows.

        "ASW": mean silhouette s of the cell types, scaled to (s + 1) / 2. The null has permuted labels. (The
        TxFM paper's formula is not scaled, its numbers are.)

        "ASW l/b", variant "scib": 1 - abs(silhouette of the *batches* among the cells of one type), the mean
        over each type's cells, then over types. Types of a single batch, or with one cell in each, are left
        out. This is what published numbers are. Null and ceiling are one: the value for batches permuted
        within types, since what knows nothing mixes best (:mod:`txfm_lite.evaluate.mixing`).

        "ASW l/b", variant "within batch": the silhouette of the *cell types* among the cells of one batch,
        scaled, the mean over all cells whose batch has several types. This is what the TxFM paper's equation
        17 says. The null has permuted labels.
    """
    import pandas as pd

    labels, batches = (pd.factorize(np.asarray(x, dtype=object))[0] for x in (labels, batches))
    rng = generator(seed)
    no_labels, no_batches = rng.permutation(labels), permuted_within(batches, labels, rng)
    # (labels, batches) of each silhouette; which of the two are the groups, and which one stays the same
    dealt = [(labels, batches), (no_labels, batches), (labels, no_batches)]
    s = _pass(np.asarray(values), dealt)
    n = len(labels)
    scib = [_mean(1 - np.abs(s[i]["batch"]), labels) for i in (0, 2)]
    literal = [_mean((s[i]["label within batch"] + 1) / 2) for i in (0, 1)]
    asw = [(s[i]["label"].mean() + 1) / 2 for i in (0, 1)]
    return [
        partial("ASW", asw[0], null=asw[1], n=n),
        partial("ASW l/b", scib[0], variant="scib", null=scib[1], ceiling=scib[1], n=n),
        partial("ASW l/b", literal[0], variant="within batch", null=literal[1], n=n),
    ]


def permuted_within(what: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `what`, shape (n,), permuted among the members of each group."""
    permuted = np.array(what)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        permuted[members] = permuted[rng.permutation(members)]
    return permuted


def _pass(values: np.ndarray, dealt: list[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Return the silhouettes of each cell, one dictionary per pair of labels and batches."""
    import scipy.sparse as sp
    from sklearn.metrics.pairwise import euclidean_distances

    n = len(values)
    values = values - values.mean(axis=0)  # far from the origin, small distances would drown in rounding
    groups = [_Groups(labels, batches) for labels, batches in dealt]
    members = sp.vstack([g.members for g in groups]).tocsr()
    found = [{name: np.empty(n) for name in _Groups.KINDS} for _ in groups]
    step = max(1, BLOCK // n)
    for start in range(0, n, step):
        block = slice(start, min(start + step, n))
        distances = euclidean_distances(values, values[block])
        distances[np.arange(block.start, block.stop), np.arange(block.stop - start)] = 0  # not by rounding
        sums = members @ distances
        for g, into in zip(groups, found, strict=True):
            for kind in _Groups.KINDS:
                into[kind][block] = g.silhouette(kind, sums[: len(g.sizes)], block)
            sums = sums[len(g.sizes) :]
    return found


class _Groups:
    """The non-empty pairs (label, batch), and the silhouettes that follow from sums over them."""

    KINDS = ("label", "batch", "label within batch")

    def __init__(self, labels: np.ndarray, batches: np.ndarray):
        import scipy.sparse as sp

        pairs, self.own, self.sizes = np.unique(
            np.column_stack([labels, batches]), axis=0, return_inverse=True, return_counts=True
        )
        self.own = self.own.ravel()
        self.label, self.batch = pairs.T
        n, g = len(labels), len(pairs)
        self.members = sp.csr_matrix((np.ones(n), (self.own, np.arange(n))), shape=(g, n))
        self.of_label = sp.csr_matrix((np.ones(g), (self.label, np.arange(g))))
        largest = np.zeros(self.label.max() + 1, dtype=int)
        np.maximum.at(largest, self.label, self.sizes)
        self.alone = largest == 1  # labels with one cell in each batch

    def silhouette(self, kind: str, sums: np.ndarray, block: slice) -> np.ndarray:
        """Return the silhouettes of a block's cells from their distances' sums, shape (groups, block)."""
        own = self.own[block]
        if kind == "label":
            everyone = np.ones((self.of_label.shape[0], len(own)), dtype=bool)
            return _silhouette(self.of_label @ sums, self.of_label @ self.sizes, self.label[own], everyone)
        same = self.label if kind == "batch" else self.batch
        s = _silhouette(sums, self.sizes, own, same[:, None] == same[own])
        return np.where(self.alone[self.label[own]], np.nan, s) if kind == "batch" else s


def _silhouette(sums: np.ndarray, sizes: np.ndarray, own: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Return silhouettes of m cells; 0 for the only cell of a group, nan where there is no other group.

    `sums` (g, m) are sums of distances, `sizes` (g,) the groups' sizes, `own` (m,) each cell's group,
    `eligible` (g, m) which groups may be a cell's neighbours.
    """
    cells = np.arange(len(own))
    a = sums[own, cells] / np.maximum(sizes[own] - 1, 1)
    others = np.where(eligible, sums / sizes[:, None], np.inf)
    others[own, cells] = np.inf
    b = others.min(axis=0)
    with np.errstate(invalid="ignore"):
        s = np.nan_to_num((b - a) / np.maximum(a, b))  # 0 / 0: all in one place
    s[sizes[own] == 1] = 0
    s[np.isinf(b)] = np.nan
    return s


def _mean(s: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Return the mean over cells, or over groups of their cells' mean; nan counts nowhere."""
    import pandas as pd

    s = pd.Series(s)
    return float((s if groups is None else s.groupby(groups).mean()).mean())
