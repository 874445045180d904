"""Do two proteins interact? Pairs without a protein of any training pair, negatives as well connected.

A classifier of pairs can do well without knowing anything about pairs. Two habits let it:

- *Proteins are shared.* When pairs are split at random, nearly every protein of a test pair was in training,
  too, and "this protein has many partners" is learned by heart. Here proteins are split, and a pair is in
  training or in the test only with both of its proteins; the others are left out.
- *Negatives are any two proteins.* Most proteins have few listed partners, so the number of partners alone
  tells true pairs from random ones. Here negatives are dealt from the ends of the true pairs, so that every
  protein is in as many negatives as positives (:func:`txfm_lite.evaluate.genes.rewired`).

The published way, pairs at random and any negatives, is here for comparison. Predictors: the cosine of two
vectors; logistic regression on the product of the two, number by number, or on both side by side; and
"degree", how many partners the two have among the pairs that are not tested, which needs no vectors at all.
With matched negatives, a linear model on two vectors side by side must fail: it adds up one number for each
protein, and each protein is in as many true pairs as in others. What it reaches otherwise is popularity.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .genes import positions, rewired, unit
from .scores import partial

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("disjoint", "shared")
NEGATIVES = ("degree-matched", "any")
PREDICTORS = ("degree", "cosine", "product", "concatenation")
TEST = 0.4  # of the proteins, or pairs, are tested on; of proteins, 16 % of the pairs have both there
MOST = 20_000  # pairs to train on, and to test on
PENALTY = 0.01  # C of the regression, where columns have variance one; fixed beforehand


def evaluate(
    vectors: dict[str, pd.DataFrame], pairs: pd.DataFrame, *, most: int = MOST, seed: int = 0
) -> list[dict[str, Any]]:
    """Score gene vectors by how well they tell interacting proteins from others.

    Parameters
    ----------
    vectors : dict
        Name -> DataFrame (genes, d), indexed by symbol. All are judged on the genes that all have.
    pairs : DataFrame
        Columns `entity1` and `entity2`, as one of :func:`txfm_lite.evaluate.genes.known_pairs`.
    most : int
        Pairs to train on, and to test on, at most; the others are drawn away.
    seed : int
        Of splits, negatives and draws, which are the same for all vectors.

    Returns
    -------
    list of dict
        As of :func:`txfm_lite.evaluate.scores.partial`, and ``vectors``, "none" for degree. `metric`:
        "AUROC" or "AP". `variant`: split, negatives, predictor, as in "disjoint, degree-matched, cosine".
        `null`: 0.5, and for AP the share of true pairs. `n`: true pairs tested.

    Raises
    ------
    ValueError
        If fewer than ten pairs remain to train on, or to test on.
    """
    import pandas as pd

    genes = pd.Index(sorted(set.intersection(*(set(table.index) for table in vectors.values()))))
    known = positions(pairs, genes)
    units = {name: unit(_scaled(table.loc[genes].to_numpy(np.float32))) for name, table in vectors.items()}
    rows = []
    for split in SPLITS:
        for negatives in NEGATIVES:
            rng = np.random.default_rng([seed, SPLITS.index(split), NEGATIVES.index(negatives)])
            train, test, sides = split_pairs(known, len(genes), split, rng)
            if min(len(train), len(test)) < 10:
                raise ValueError(f"{len(train)} pairs to train on and {len(test)} to test on: too few")
            degree = _degree(known, test, len(genes))
            train, test = (p[np.sort(rng.permutation(len(p))[:most])] for p in (train, test))
            both = [
                with_negatives(p, known, negatives, side, rng)
                for p, side in zip((train, test), sides, strict=True)
            ]
            scored = [("none", "degree", degree[both[1][0]].sum(axis=1))]
            for name, x in units.items():
                scored += [(name, how, score) for how, score in _predictions(x, *both)]
            truth = both[1][1]
            for name, how, score in scored:
                variant = f"{split}, {negatives}, {how}"
                rows += [{**row, "vectors": name} for row in _measured(truth, score, variant)]
    return rows


def split_pairs(
    known: np.ndarray, n_genes: int, split: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return pairs to train on, pairs to test on, and the genes of either side that have any pair at all.

    Parameters
    ----------
    known : ndarray of int, shape (p, 2)
    n_genes : int
    split : {"disjoint", "shared"}
        By protein, so that no protein is on both sides, or by pair.
    rng : Generator
    """
    paired = np.unique(known)
    if split == "shared":
        tested = rng.random(len(known)) < TEST**2  # as large as the other test
        return known[~tested], known[tested], (paired, paired)
    there = rng.random(n_genes) < TEST
    tested = there[known]
    sides = paired[~there[paired]], paired[there[paired]]
    return known[~tested.any(axis=1)], known[tested.all(axis=1)], sides


def with_negatives(
    true: np.ndarray, known: np.ndarray, negatives: str, genes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return true pairs and about as many others, shape (m, 2), and which are true.

    Parameters
    ----------
    true, known : ndarray of int, shape (p, 2) and (q, 2)
        No negative is among `known`.
    negatives : {"degree-matched", "any"}
        The ends of the true pairs dealt anew; or any two of `genes`.
    genes : ndarray of int
        Of this side of the split.
    rng : Generator
    """
    if negatives == "degree-matched":
        false = rewired(true, known, rng)
    else:
        base = 1 + known.max()
        drawn = np.sort(rng.choice(genes, size=(2 * len(true) + 100, 2)), axis=1)
        fit = (drawn[:, 0] != drawn[:, 1]) & ~np.isin(drawn @ [base, 1], known @ [base, 1])
        false = drawn[fit][: len(true)]
    return np.concatenate([true, false]), np.arange(len(true) + len(false)) < len(true)


def _predictions(
    x: np.ndarray, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the scores of each predictor with vectors of length one."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    first, second = test[0].T
    yield "cosine", np.einsum("ij,ij->i", x[first], x[second])
    a, b = train[0].T
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=300))
    yield "product", model.fit(x[a] * x[b], train[1]).decision_function(x[first] * x[second])
    turned = np.concatenate([np.hstack([x[a], x[b]]), np.hstack([x[b], x[a]])])  # a pair has no order
    model.fit(turned, np.tile(train[1], 2))
    yield (
        "concatenation",
        sum(model.decision_function(np.hstack([x[i], x[j]])) for i, j in ((first, second), (second, first))),
    )


def _scaled(x: np.ndarray) -> np.ndarray:
    """Return columns with mean zero and variance one; those without variance become zeros."""
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _degree(known: np.ndarray, test: np.ndarray, n_genes: int) -> np.ndarray:
    """Return the log of one plus the partners of each gene in pairs that are not tested."""
    count = np.bincount(known.ravel(), minlength=n_genes) - np.bincount(test.ravel(), minlength=n_genes)
    return np.log1p(count)


def _measured(truth: np.ndarray, score: np.ndarray, variant: str) -> list[dict[str, Any]]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    n, share = int(truth.sum()), float(truth.mean())
    return [
        partial("AUROC", roc_auc_score(truth, score), variant=variant, null=0.5, n=n),
        partial("AP", average_precision_score(truth, score), variant=variant, null=share, n=n),
    ]
