"""Probabilities that mean what they say, for the terms of one library.

A GSFM's probability is that of its training sets, which are larger, smaller or noisier than the terms of a
library. Here it is compared with what happens in the library: one half of each term is shown, the model
scores the other genes of the library, and a rising curve from logit to the share of true members is fitted. A
term's own genes have no say in the curve that it is read with: curves are fitted fold by fold of the terms.

What a calibrated probability speaks of is that experiment, in which half of a term is missing. When a whole
term is shown, fewer members are missing, so it is an upper bound for a term that is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .completion import FIRST, complete
from .genesets import GeneSets
from .gsfm import GSFM

METHODS = ("isotonic", "platt")
PER_POSITIVE = 20  # negatives kept for each positive; the others are in their weight
LEAST = 10  # genes of a term that is calibrated with

Curve = Callable[[np.ndarray], np.ndarray]  # from logits, shape (k,), to probabilities


@dataclass(frozen=True)
class Calibration:
    """Curves of one library; see :func:`calibrate`.

    Attributes
    ----------
    overall : callable
        The curve fitted on all terms, for sets that are none of them.
    curves : list of callable
        One per fold, fitted on the terms of the others.
    fold : ndarray of int, shape (n,)
        The fold of each term.
    """

    overall: Curve
    curves: list[Curve]
    fold: np.ndarray

    def __call__(self, logits: np.ndarray, terms: np.ndarray | None = None) -> np.ndarray:
        """Return probabilities.

        Parameters
        ----------
        logits : ndarray, shape (n, G)
        terms : ndarray of int, shape (n,), optional
            The terms of the library that the rows belong to; without, they are none of them.

        Returns
        -------
        ndarray, float32, shape (n, G)
        """
        if terms is None:
            return self.overall(logits.ravel()).reshape(logits.shape).astype(np.float32)
        out = np.empty(logits.shape, dtype=np.float32)
        for fold, curve in enumerate(self.curves):
            mine = self.fold[terms] == fold
            if mine.any():
                out[mine] = curve(logits[mine].ravel()).reshape(-1, logits.shape[1])
        return out


def calibrate(
    model: GSFM, library: GeneSets, method: str = "isotonic", n_folds: int = 5, seed: int = 0
) -> Calibration:
    """Fit a library's curves.

    Parameters
    ----------
    model : GSFM
        In evaluation mode.
    library : GeneSets
        Terms with fewer than ten genes of the vocabulary have no say, but a fold.
    method : {"isotonic", "platt"}
        A rising staircase, or a logistic curve.
    n_folds : int
    seed : int
        Of folds, halves, and of the negatives that are kept: 20 for each positive, weighing as all.

    Raises
    ------
    ValueError
        If the method is another one, or there are fewer terms to calibrate with than folds.
    """
    if method not in METHODS:
        raise ValueError(f"method = {method!r}: should be one of {', '.join(METHODS)}")
    fold = np.random.default_rng([seed, 0]).permutation(np.arange(len(library)) % n_folds)
    inside = library.over(model.genes[FIRST:])
    usable = np.flatnonzero(inside.sizes >= LEAST)
    if len(np.unique(fold[usable])) < n_folds or n_folds < 2:
        raise ValueError(
            f"{len(usable)} terms have {LEAST} genes that the model knows: too few for {n_folds} folds"
        )
    universe = np.unique(inside.indices)
    points = [
        _points(model, inside, part, universe, seed)
        for part in np.array_split(usable, len(usable) // 256 + 1)
    ]
    term, x, y, weight = (np.concatenate(column) for column in zip(*points, strict=True))
    curves = [_curve(method, *(a[fold[term] != k] for a in (x, y, weight))) for k in range(n_folds)]
    return Calibration(_curve(method, x, y, weight), curves, fold)


def _points(
    model: GSFM, library: GeneSets, terms: np.ndarray, universe: np.ndarray, seed: int
) -> tuple[np.ndarray, ...]:
    """Show one half of some terms: return term, logit, truth and weight of the genes that are kept."""
    mine, keep = library[terms], []
    for i, term in enumerate(terms):
        order = np.random.default_rng([seed, 1, term]).permutation(mine.sizes[i])
        keep.append(order < mine.sizes[i] // 2)
    keep = np.concatenate(keep)
    rows = np.repeat(np.arange(len(terms)), mine.sizes)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[keep], minlength=len(terms)))])
    shown = GeneSets(mine.names, mine.libraries, mine.genes, indptr, mine.indices[keep], None)
    logits, out = complete(model, shown), []
    for i, term in enumerate(terms):
        hidden = mine.indices[(rows == i) & ~keep]
        members = mine.indices[rows == i]
        absent = np.setdiff1d(universe, members, assume_unique=True)
        few = np.random.default_rng([seed, 2, term]).permutation(absent)[: PER_POSITIVE * len(hidden)]
        x = np.concatenate([logits[i, hidden], logits[i, few]])
        y = np.repeat([1.0, 0.0], [len(hidden), len(few)])
        weight = np.repeat([1.0, len(absent) / max(len(few), 1)], [len(hidden), len(few)])
        out.append((np.full(len(x), term), x, y, weight))
    return tuple(np.concatenate(column) for column in zip(*out, strict=True))


def _curve(method: str, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Curve:
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y, weight).predict
    slope, start = platt(x, y, weight)
    return lambda logits: 1 / (1 + np.exp(-(slope * logits + start)))


def platt(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic curve from logits `x` to truths `y`, 0 or 1, shape (k,).

    The curve never falls: where it would, it is level, at the weighted share of ones.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=np.inf).fit(x[:, None], y, weight)
    if (slope := float(fitted.coef_[0, 0])) > 0:
        return slope, float(fitted.intercept_[0])
    share = np.average(y, weights=weight)
    return 0.0, float(np.log(share / (1 - share)))
