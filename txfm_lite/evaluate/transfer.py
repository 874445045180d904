"""What a probe learned on some cells is worth on others: another study, fewer molecules, part of the input.

The probe is the same everywhere: a logistic regression on standardised values of the genes that at least one
in twenty training cells shows, its strength left as it comes. Nothing is chosen on test cells. Accuracy is
balanced, each type counting the same, and its null is that of the same answers to permuted cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import robustness
from . import mixing, probes, silhouettes
from .cells import knn
from .scores import depth, partial

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData

SEEN = 0.05  # of the training cells that must show a gene
FEWEST = 10  # cells of a type in either study, for the type to be asked for
MOST = 250  # cells of a study that train, and that are asked for
POOL = 20  # cells in a profile as deep as bulk
#: Parts of the input, whose probes tell where the cell type lies.
PARTS = (
    *("presence", "ranks of detected", "ranks of detected, ties shared", "presence + ranks"),
    *("raw counts", "log counts"),
)
SHARES = (0.9, 0.75, 0.5, 0.25, 0.1)  # of a cell's molecules that are kept


def predict(train: Any, labels: np.ndarray, tests: Sequence[Any]) -> list[np.ndarray]:
    """Train the probe and return its answers for each set of test cells.

    With more genes than cells, the regression's weights lie in the span of the training cells: it is fitted
    there, to the same result.

    Parameters
    ----------
    train : csr_matrix or ndarray, shape (n, G)
    labels : array of str, shape (n,)
    tests : sequence of csr_matrix or ndarray, shape (m, G)

    Returns
    -------
    list of ndarray of str, shape (m,)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    shown = np.asarray((train != 0).sum(axis=0)).ravel() >= max(1, SEEN * train.shape[0])
    train, *tests = (_dense(x[:, shown]) for x in (train, *tests))
    scaler = StandardScaler(copy=False).fit(train)
    x, *tests = (scaler.transform(m) for m in (train, *tests))
    if x.shape[1] > x.shape[0]:
        power, axes = np.linalg.eigh((x @ x.T).astype(np.float64))
        kept = power > 1e-6 * power[-1]
        axes = axes[:, kept] / np.sqrt(power[kept])
        x, *tests = ((m @ x.T) @ axes for m in (x, *tests))
    model = LogisticRegression(max_iter=2_000).fit(x, labels)
    return [model.predict(t) for t in tests]


def _dense(x: Any) -> np.ndarray:
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float32)


def accuracy(truth: np.ndarray, answer: np.ndarray) -> float:
    """Return the mean over the types in `truth` of the share that was answered right."""
    return float(np.mean([np.mean(answer[truth == t] == t) for t in np.unique(truth)]))


def _with_null(truth: np.ndarray, answer: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the accuracy and its null: the mean over ten permutations of the cells that were asked for."""
    rng = mixing.generator(seed)
    return accuracy(truth, answer), float(
        np.mean([accuracy(rng.permutation(truth), answer) for _ in range(10)])
    )


def across(studies: Mapping[str, AnnData], encoding: str, seed: int = 0) -> list[dict[str, Any]]:
    """Train on one study and test on another, for every ordered pair of studies with the same cell types.

    A pair is compared on the genes and the types that both have; totals are over these genes. Of study A,
    half of the chosen cells train, half (A') are asked for; the drop is accuracy(A -> A') - accuracy(A -> B).

    Parameters
    ----------
    studies : mapping of str to AnnData
        With ``obs["cell_type"]`` in common names.
    encoding : str
        One of :data:`txfm_lite.robustness.KINDS`.
    seed : int
        Of the choice of cells, the split and the ties.

    Returns
    -------
    list of dict
        Partial rows with variant "A > B": "accuracy at home", "accuracy away", "accuracy away, pooled" (B's
        cells added up by 20), "drop", and "depth ratio", log10 of the larger median total over the smaller.
        With variant "A + B", of the two in one matrix, 50 components: "kNN" (in the other study), "iLISI",
        "ASW l/b", "PCR". With variant "mean", their means over all pairs, and "drop per tenfold depth", the
        slope of one on the other.
    """
    rows = []
    for a, b in permutations(studies, 2):
        rows += _pair(f"{a} > {b}", studies[a], studies[b], encoding, seed)
    for a, b in combinations(studies, 2):
        rows += _together(f"{a} + {b}", studies[a], studies[b], encoding, seed)
    for metric in dict.fromkeys(row["metric"] for row in rows):
        of = [row for row in rows if row["metric"] == metric]
        value, null, ceiling = (np.mean([row[k] for row in of]) for k in ("value", "null", "ceiling"))
        n = sum(row["n"] for row in of)
        rows.append(partial(metric, value, variant="mean", null=null, ceiling=ceiling, n=n))
    drops, ratios = (
        [row["value"] for row in rows if row["metric"] == m and row["variant"] != "mean"]
        for m in ("drop", "depth ratio")
    )
    slope = np.polyfit(ratios, drops, 1)[0]
    return [*rows, partial("drop per tenfold depth", slope, variant="mean", null=0, ceiling=0, n=len(drops))]


def _chosen(a: AnnData, b: AnnData, seed: int) -> list[tuple[AnnData, np.ndarray]]:
    """Return cells of shared types of both studies, on their shared genes, and the cells' types."""
    labels = [x.obs["cell_type"].astype(str).to_numpy() for x in (a, b)]
    counted = [dict(zip(*np.unique(y, return_counts=True), strict=True)) for y in labels]
    types = [t for t in counted[0] if min(counted[0][t], counted[1].get(t, 0)) >= FEWEST]
    genes = a.var_names[a.var_names.isin(b.var_names)]
    found = []
    for x, y, most in zip((a, b), labels, (2 * MOST, MOST), strict=True):
        of_types = np.flatnonzero(np.isin(y, types))
        rows = of_types[robustness.balanced(y[of_types], most, seed)]
        found.append((x[rows, genes], y[rows]))
    return found


def _pair(name: str, a: AnnData, b: AnnData, encoding: str, seed: int) -> list[dict[str, Any]]:
    from sklearn.model_selection import train_test_split

    (a, labels), (b, truth) = _chosen(a, b, seed)
    medians = robustness.gene_medians(a)
    train, home = train_test_split(np.arange(len(labels)), test_size=0.5, random_state=seed, stratify=labels)
    pooled, pooled_truth = robustness.pool(b.X.tocsr(), truth, POOL, seed)
    x, away, away_pooled = (robustness.matrix(encoding, m, medians, seed) for m in (a.X, b.X, pooled))
    asked = [(x[home], labels[home]), (away, truth), (away_pooled, pooled_truth)]
    tests, truths = zip(*asked, strict=True)
    answers = predict(x[train], labels[train], tests)
    value, null = zip(*(_with_null(t, p, seed) for t, p in zip(truths, answers, strict=True)), strict=True)
    depths = [np.median(np.asarray(m.X.sum(axis=1)).ravel()) for m in (a, b)]
    names = ("accuracy at home", "accuracy away", "accuracy away, pooled")
    rows = [
        partial(metric, v, variant=name, null=o, n=len(t))
        for metric, v, o, t in zip(names, value, null, truths, strict=True)
    ]
    drop = partial("drop", value[0] - value[1], variant=name, null=null[0] - null[1], ceiling=0, n=len(truth))
    ratio = partial("depth ratio", abs(np.log10(depths[0] / depths[1])), variant=name, n=len(truth))
    return [*rows, drop, ratio]


def _together(name: str, a: AnnData, b: AnnData, encoding: str, seed: int) -> list[dict[str, Any]]:
    import scipy.sparse as sp

    from ..linear import principal_components

    (a, first), (b, second) = _chosen(a, b, seed)
    medians = robustness.gene_medians(a)
    x = sp.vstack([robustness.matrix(encoding, m.X, medians, seed) for m in (a, b)]).tocsr()
    labels, batches = np.concatenate([first, second]), np.repeat(["a", "b"], [len(first), len(second)])
    centre = -np.asarray(x.mean(axis=0)).reshape(1, -1)
    values, _ = principal_components(x, np.ones((x.shape[0], 1)), centre, 50, seed)
    wanted = {("kNN", ""), ("iLISI", "of permuted"), ("ASW l/b", "scib"), ("PCR", "")}
    scored = [
        knn(values, labels, batches),
        *mixing.ilisi(values, batches, seed, mixing.neighbours(values, seed=seed)),
        *silhouettes.evaluate(values, labels, batches, seed),
        *mixing.pcr(values, batches),
    ]
    return [row | {"variant": name} for row in scored if (row["metric"], row["variant"]) in wanted]


def folds(labels: np.ndarray, batches: np.ndarray, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (training cells, test cells): by batch, or, in a single batch, four parts with equal shares."""
    from sklearn.model_selection import StratifiedKFold

    if len(np.unique(batches)) > 1:
        return probes.splits(batches)
    splitter = StratifiedKFold(4, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(labels)), labels))


def _asked(
    x: Any, labels: np.ndarray, parts: list, tests: Mapping[str, Any], seed: int, prepare: Any = None
) -> dict[str, tuple[float, float, int]]:
    """Return accuracy, null and number of cells for each test matrix, over all folds' test cells together.

    `prepare` makes of a fold's training cells and all matrices those that are compared. Types that training
    lacks are not asked for.
    """
    truth, answers = [], {name: [] for name in tests}
    for train, test in parts:
        test = test[np.isin(labels[test], labels[train])]
        if len(np.unique(labels[train])) < 2 or not len(test):
            continue
        own, others = (x, tests) if prepare is None else prepare(train)
        truth.append(labels[test])
        found = predict(own[train], labels[train], [others[name][test] for name in tests])
        for name, answer in zip(tests, found, strict=True):
            answers[name].append(answer)
    truth = np.concatenate(truth)
    return {n: (*_with_null(truth, np.concatenate(a), seed), len(truth)) for n, a in answers.items()}


def recovery(adata: AnnData, encoding: str, seed: int = 0) -> list[dict[str, Any]]:
    """Ask for the types of cells that lost molecules, by a probe that was trained on whole cells.

    Returns
    -------
    list of dict
        Partial rows "recovery", variants "1", "0.9" ... "0.1": the share of molecules kept.
    """
    counts, labels, batches = arrays(adata)
    medians = robustness.gene_medians(adata)
    x = robustness.matrix(encoding, counts, medians, seed)
    tests = {"1": x}
    for share in SHARES:
        tests[f"{share}"] = robustness.matrix(encoding, robustness.thin(counts, share, seed), medians, seed)
    found = _asked(x, labels, folds(labels, batches, seed), tests, seed)
    return [partial("recovery", v, variant=name, null=o, n=n) for name, (v, o, n) in found.items()]


def decomposition(adata: AnnData, part: str, seed: int = 0) -> list[dict[str, Any]]:
    """Ask a probe that sees part of the input: which genes are there, or how those are ordered.

    "ranks of detected" are places among the cell's detected genes, less the gene's mean place in those
    training cells that have it; a gene that is absent is at its mean, so that absence shows nowhere. Equal
    counts come in random order there, as in a sentence, or share their mean place.

    Parameters
    ----------
    adata : AnnData
    part : str
        One of :data:`PARTS`.
    seed : int

    Returns
    -------
    list of dict
        One partial row, "type accuracy".
    """
    counts, labels, batches = arrays(adata)
    if part in ("raw counts", "log counts"):
        x, prepare = robustness.matrix(part, counts), None
    else:
        shared = part == "ranks of detected, ties shared"
        x = (
            robustness.mean_places(counts)
            if shared
            else robustness.matrix("cell2sentence", counts, seed=seed)
        )

        def prepare(train: np.ndarray) -> tuple[Any, dict[str, Any]]:
            own = part_of(part, x, train)
            return own, {"": own}

    (value, null, n), *_ = _asked(x, labels, folds(labels, batches, seed), {"": x}, seed, prepare).values()
    return [partial("type accuracy", value, null=null, n=n)]


def part_of(part: str, places: sp.csr_matrix, train: np.ndarray) -> sp.csr_matrix:
    """Return presence, ranks of detected genes or both side by side, from places that are 0 if absent."""
    import scipy.sparse as sp

    if part not in PARTS[:4]:
        raise ValueError(f"part = {part!r}: should be one of {', '.join(PARTS[:4])}")
    presence = places.copy()
    presence.data[:] = 1
    if part == "presence":
        return presence
    sums, cells = (np.asarray(m[train].sum(axis=0)).ravel() for m in (places, presence))
    ranks = places.copy()
    ranks.data -= (sums / np.maximum(cells, 1)).astype(np.float32)[ranks.indices]
    return sp.hstack([presence, ranks]).tocsr() if part == "presence + ranks" else ranks


def amounts(adata: AnnData, encoding: str, seed: int = 0) -> list[dict[str, Any]]:
    """Ask how much RNA went into a well, of mixtures that the probe has not seen.

    Parameters
    ----------
    adata : AnnData
        With ``obs["amount"]`` and ``obs["mixture"]``, as of :func:`txfm_lite.studies.known_amounts`.
    encoding : str
        One of :data:`txfm_lite.robustness.KINDS`, or "depth", total and number of genes alone.
    seed : int

    Returns
    -------
    list of dict
        Partial rows "amount accuracy": "as measured", "with the total" as one column more, and, all wells
        thinned to the smallest total, "at one total". And, but for "depth", "changed by scaling": the share
        of entries that change when all counts are tripled.
    """
    import scipy.sparse as sp
    from sklearn.model_selection import GroupKFold

    counts = adata.X.tocsr()
    labels, mixtures = (adata.obs[c].astype(str).to_numpy() for c in ("amount", "mixture"))
    medians = None if encoding == "depth" else robustness.gene_medians(adata)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    equal = robustness.thin(counts, totals.min() / totals, seed)

    def encode(x: sp.csr_matrix) -> Any:
        if encoding == "depth":
            return depth(type(adata)(x))
        return robustness.matrix(encoding, x, medians, seed)

    x = encode(counts)
    inputs = {"as measured": x, "at one total": encode(equal)}
    if encoding != "depth":
        inputs["with the total"] = sp.hstack([x, np.log10(totals)[:, None]]).tocsr()
    parts, rows = list(GroupKFold(4).split(labels, groups=mixtures)), []
    for name, matrix in inputs.items():
        (value, null, n), *_ = _asked(matrix, labels, parts, {name: matrix}, seed).values()
        rows.append(partial("amount accuracy", value, variant=name, null=null, n=n))
    if encoding == "depth":
        return rows
    triple = encode(counts * 3)
    changed = ~np.isclose(_dense(triple), _dense(x), rtol=1e-5)
    shown = (_dense(x) != 0) | (_dense(triple) != 0)
    return [*rows, partial("changed by scaling", changed[shown].mean(), ceiling=0, n=int(shown.sum()))]


def arrays(adata: AnnData) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Return counts, cell types and batches."""
    labels, batches = (adata.obs[c].astype(str).to_numpy() for c in ("cell_type", "batch"))
    return adata.X.tocsr(), labels, batches
