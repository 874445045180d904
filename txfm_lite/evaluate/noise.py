"""How much of an encoding is chance: replicates of one cell, one molecule more, and fewer and fewer of them.

Two replicates of a cell differ by sampling alone. How far apart an encoding puts them means something only
beside how far apart it puts different cells of one type: the *noise ratio* is 1 where a cell's own replicate
is no nearer than another cell's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import fold_changes, robustness, similarity
from . import mixing
from .scores import partial
from .transfer import POOL, SHARES, arrays

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData

LISTED = 100  # genes at the top of a list
LOOKED_AT = 200  # cells, for what goes through them one by one
SPARSITIES = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
PAIRED = 200  # cells, for all their pairs
#: Measure of two cells -> what it does with zeros.
MEASURES = {
    "raw counts": "Euclidean distance of counts",
    "log counts": "Euclidean distance of log(1 + CP10k)",
    "log counts, cosine": "cosine of log(1 + CP10k)",
    "ranks, zeros tied": "Spearman's correlation: all zeros share one rank",
    "ranks, zeros dropped": "correlation of the ranks of detected genes, over those that both cells show",
    "ranks, zeros by median": "Spearman's correlation, zeros ranked below, by the gene's median in a corpus",
}


def replicates(adata: AnnData, encoding: str, seed: int = 0) -> list[dict[str, Any]]:
    """Compare two replicates of each cell: thinned twice, dealt into halves, or encoded twice.

    Parameters
    ----------
    adata : AnnData
    encoding : str
        One of :data:`txfm_lite.robustness.KINDS`.
    seed : int

    Returns
    -------
    list of dict
        Partial rows with variants "0.9" ... "0.1", two thinnings that keep this share each, independently;
        "halves", which share no molecule; and "ties", the same counts encoded with two seeds.

        "noise ratio": Euclidean distance of the replicates over that to the replicate of another cell of the
        type, the median of cells. For "halves" and "ties" also what happens to tokens, the mean over up to
        200 cells: "Kendall" (τ-b over the genes that both show), "agreement" (share of these with the same
        value) and, for orders, "top 100" (share of either list's first genes that are in the other's).
    """
    counts, labels, _ = arrays(adata)
    medians = robustness.gene_medians(adata)
    rng = np.random.default_rng([seed, 10])
    other = partners(labels, rng)

    def encode(x: sp.csr_matrix, s: int) -> sp.csr_matrix:
        return robustness.matrix(encoding, x, medians, s)

    streams = (2 * seed, 2 * seed + 1)
    pairs = {f"{share}": [encode(robustness.thin(counts, share, s), s) for s in streams] for share in SHARES}
    pairs["halves"] = [encode(x, s) for x, s in zip(robustness.halves(counts, seed), streams, strict=True)]
    pairs["ties"] = [encode(counts, s) for s in streams]
    rows = []
    for name, (a, b) in pairs.items():
        ratio, n = noise_ratio(a, b, other)
        rows.append(partial("noise ratio", ratio, variant=name, null=1, ceiling=0, n=n))
        if name in ("halves", "ties"):
            chosen = rng.permutation(len(labels))[:LOOKED_AT]
            found = tokens(a[chosen], b[chosen], encoding in robustness.ORDERS)
            rows += [partial(m, v, variant=name, null=o, n=len(chosen)) for m, (v, o) in found.items()]
    return rows


def partners(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each cell another one of its type, at random; -1 where there is none."""
    found = np.full(len(labels), -1)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            found[members] = np.roll(members, 1)
    return found


def noise_ratio(a: sp.csr_matrix, b: sp.csr_matrix, other: np.ndarray) -> tuple[float, int]:
    """Return the median of d(a_i, b_i) / d(a_i, b_other(i)), and over how many cells it is taken.

    Parameters
    ----------
    a, b : csr_matrix, shape (n, G)
        Replicates, row i of either for cell i.
    other : ndarray of int, shape (n,)
        As from :func:`partners`.
    """
    has = np.flatnonzero(other >= 0)
    same, different = (_norms(a[has] - b[rows]) for rows in (has, other[has]))
    defined = different > 0
    if not defined.any():
        return float("nan"), 0
    return float(np.median(same[defined] / different[defined])), int(defined.sum())


def _norms(x: sp.csr_matrix) -> np.ndarray:
    return np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())


def tokens(a: sp.csr_matrix, b: sp.csr_matrix, in_order: bool) -> dict[str, tuple[float, float]]:
    """Return "Kendall", "agreement" and, in orders, "top 100", each with what unrelated rows would give.

    The nulls are 0 for τ, the agreement of permuted values, and of the top 100 that of the next cell's list.
    """
    from scipy.stats import kendalltau

    tau, agree, by_chance, top, top_next = [], [], [], [], []
    rng = np.random.default_rng(11)
    tops = []
    for i in range(a.shape[0]):
        x, y = (m[i].toarray()[0] for m in (a, b))
        both = (x != 0) & (y != 0)
        if both.sum() > 1:
            tau.append(kendalltau(x[both], y[both]).statistic)
            agree.append(np.mean(x[both] == y[both]))
            by_chance.append(np.mean(x[both] == rng.permutation(y[both])))
        tops.append([set(np.argsort(-v)[:LISTED]) for v in (x, y)])
    found = {"Kendall": (_mean(tau), 0.0), "agreement": (_mean(agree), _mean(by_chance))}
    if in_order:
        following = [*tops[1:], tops[0]]
        top = [len(x & y) / LISTED for x, y in tops]
        top_next = [len(x & y) / LISTED for (x, _), (_, y) in zip(tops, following, strict=True)]
        found[f"top {LISTED}"] = (_mean(top), _mean(top_next))
    return found


def _mean(values: list[float]) -> float:
    values = np.asarray(values, dtype=float)
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")


def one_molecule(adata: AnnData, encoding: str, seed: int = 0) -> list[dict[str, Any]]:
    """Add one molecule to each of up to 200 cells and count the other genes that an encoding changes.

    Equal values keep a fixed order here, so that only the molecule is at work.

    Returns
    -------
    list of dict
        Partial rows "moved by one molecule", the mean share of the cell's other genes: of a measured gene at
        random ("any gene"), most of them absent before, or of one with a single molecule ("single"), which
        jumps over all its equals.
    """
    counts, _, _ = arrays(adata)
    medians = robustness.gene_medians(adata)
    rng = np.random.default_rng([seed, 12])
    counts = counts[np.sort(rng.permutation(counts.shape[0])[:LOOKED_AT])]
    single = [
        rng.choice(found) if len(found := row.indices[row.data == 1]) else -1
        for row in (counts[i] for i in range(counts.shape[0]))
    ]
    rows = []
    for name, genes in {
        "any gene": rng.integers(counts.shape[1], size=counts.shape[0]),
        "single": np.array(single),
    }.items():
        x, genes = counts[genes >= 0], genes[genes >= 0]
        after = robustness.add_molecules(x, genes)
        _, moved = fold_changes.others_changed(encoding, x, after, genes, medians)
        rows.append(
            partial("moved by one molecule", _mean(moved), variant=name, null=1, ceiling=0, n=len(moved))
        )
    return rows


def dose(adata: AnnData, measure: str, seed: int = 0) -> list[dict[str, Any]]:
    """Thin up to 200 cells to rising sparsities and ask whether cells of one type stay the more alike.

    Parameters
    ----------
    adata : AnnData
    measure : str
        One of :data:`MEASURES`.
    seed : int

    Returns
    -------
    list of dict
        Partial rows with variants "as measured", "pooled" (cells of a type added up by 20, as deep as bulk)
        and "0.8" ... "0.99", sparsities of each cell (a sparser one stays as it is): "pair AUC", the
        probability that a pair within a type is more alike than one between types, its null for permuted
        types; and "sparsity", the mean that was reached.
    """
    counts, labels, _ = arrays(adata)
    medians = robustness.gene_medians(adata)
    chosen = robustness.balanced(labels, PAIRED, seed)
    pooled = robustness.pool(counts, labels, POOL, seed)
    counts, labels = counts[chosen], labels[chosen]
    doses = {"pooled": pooled, "as measured": (counts, labels)}
    for sparsity in SPARSITIES:
        doses[f"{sparsity}"] = (robustness.thin_to_sparsity(counts, sparsity, seed), labels)
    rows = []
    for name, (x, y) in doses.items():
        alike = alikeness(measure, x, medians)
        value, null = (pair_auc(alike, types) for types in (y, mixing.generator(seed).permutation(y)))
        reached = 1 - x.nnz / np.prod(x.shape)
        rows.append(partial("pair AUC", value, variant=name, null=null, n=len(y)))
        rows.append(partial("sparsity", reached, variant=name, n=len(y)))
    return rows


def alikeness(measure: str, counts: sp.csr_matrix, medians: np.ndarray) -> np.ndarray:
    """Return how alike all pairs of cells are, shape (n, n): higher is more alike, nan is undefined.

    Raises
    ------
    ValueError
        For an unknown measure.
    """
    from scipy.stats import rankdata

    if measure not in MEASURES:
        raise ValueError(f"no measure is called {measure!r}; there are {', '.join(MEASURES)}")
    if measure == "ranks, zeros tied":
        return similarity.Spearman(counts).matrix()
    if measure == "ranks, zeros dropped":
        return _shared_correlation(counts)
    if measure == "ranks, zeros by median":
        absent = -1 - rankdata(-np.nan_to_num(medians)) / len(medians)  # in [-2, -1), best median highest
        dense = counts.toarray().astype(np.float64)
        return similarity.Spearman(np.where(dense > 0, dense, absent)).matrix()
    x = robustness.matrix("raw counts" if measure == "raw counts" else "log counts", counts)
    if measure == "log counts, cosine":
        return similarity.Cosine(x).matrix()
    return -similarity.Euclid(x).matrix()


def _shared_correlation(counts: sp.csr_matrix) -> np.ndarray:
    """Return Pearson's correlation of ranks among a cell's detected genes, over those shared by two cells."""
    ranks = robustness.mean_places(counts).astype(np.float64)
    ranks.data -= 0.5  # near zero, for the sums below
    shown = ranks.copy()
    shown.data[:] = 1
    squares = ranks.multiply(ranks).tocsr()
    n, xy, sx, sxx = (
        (a @ b.T).toarray() for a, b in [(shown, shown), (ranks, ranks), (ranks, shown), (squares, shown)]
    )
    n = np.maximum(n, 1)
    covariance, variance = xy - sx * sx.T / n, sxx - sx**2 / n
    return _divided(covariance, np.sqrt(np.maximum(variance * variance.T, 0)))


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b, nan where b is nothing but rounding."""
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 1e-9)


def pair_auc(alike: np.ndarray, labels: np.ndarray) -> float:
    """Return the probability that a pair within a type is more alike than a pair between; ties count half.

    Undefined pairs are less alike than any other.
    """
    from sklearn.metrics import roc_auc_score

    pairs = np.triu_indices(len(labels), 1)
    values, within = alike[pairs], (labels[:, None] == labels)[pairs]
    if within.all() or not within.any():
        return float("nan")
    lowest = np.nanmin(values) if np.isfinite(values).any() else 0.0
    return float(roc_auc_score(within, np.nan_to_num(values, nan=lowest - 1)))
