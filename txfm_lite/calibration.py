"""Probabilities that mean what they say, for the terms of one library.

A GSFM's probability is that of its training sets, which are larger, smaller or noisier than the terms of a
library. Here it is compared with what happens in the library: one half of each term is shown, the model
scores the other genes of the library, and a rising curve from logit to the share of true members is fitted. A
term's own genes have no say in the curve that it is read with: curves are fitted fold by fold of the terms.

What a calibrated probability speaks of is that experiment, in which half of a term is missing. When a whole
term is shown, fewer members are missing, so it is an upper bound for a term that is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .completion import FIRST, complete
from .evaluate import set_splits
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
        Of folds, and of the negatives that are kept: 20 for each positive, weighing as all.

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
    universe, points = np.unique(inside.indices), []
    for part in np.array_split(usable, len(usable) // 256 + 1):
        for term, *question in halves(lambda sets: complete(model, sets), inside, part):
            found = sample(*question, universe, np.random.default_rng([seed, 2, term]))
            points.append((np.full(len(found[0]), term), *found))
    term, x, y, weight = (np.concatenate(column) for column in zip(*points, strict=True))
    curves = [_curve(method, *(a[fold[term] != k] for a in (x, y, weight))) for k in range(n_folds)]
    return Calibration(_curve(method, x, y, weight), curves, fold)


def halves(
    complete: Callable[[GeneSets], np.ndarray], library: GeneSets, terms: np.ndarray, n_splits: int = 1
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Show halves of some terms to a completer, which gets all of them at once.

    They are those of the benchmark (:func:`txfm_lite.evaluate.set_splits.lots`).

    Yields
    ------
    term : int
        Each `n_splits` times.
    logits : ndarray, shape (G,)
    visible, hidden : ndarray of int
        Places of the genes shown, and of the others; both ascend.
    """
    asked = library[np.asarray(terms)]
    shown = set_splits.lots(asked, n_splits)
    jobs = []
    for i, term in enumerate(terms):
        here = slice(asked.indptr[i], asked.indptr[i + 1])
        members = asked.indices[here]
        jobs += [(term, members[lot], members[~lot]) for lot in shown[:, here]]
    given = library.parts([term for term, _, _ in jobs], [visible for _, visible, _ in jobs])
    for (term, visible, hidden), row in zip(jobs, complete(given), strict=True):
        yield term, row, visible, hidden


def sample(
    logits: np.ndarray,
    visible: np.ndarray,
    hidden: np.ndarray,
    universe: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, truths and weights of the hidden genes of a term, and of some of those outside of it.

    Those outside are drawn from the `universe`, :data:`PER_POSITIVE` for each hidden gene, and weigh as all.
    """
    member = np.zeros(len(logits), dtype=bool)
    member[visible] = member[hidden] = True
    others = rng.choice(universe, PER_POSITIVE * len(hidden))
    others = others[~member[others]]
    all_others = len(universe) - len(visible) - len(hidden)
    sizes = [len(hidden), len(others)]
    weight = np.repeat([1.0, all_others / max(len(others), 1)], sizes)
    return logits[np.append(hidden, others)], np.repeat([1.0, 0.0], sizes), weight


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
