"""Splits of a screen: the test differs from what training sees in batches, and in perturbations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHARE = 0.7  # of batches and of perturbations that training sees
FEW = 6  # batches: up to here, each is the test once


@dataclass(frozen=True)
class Fold:
    """Row numbers of one split.

    Attributes
    ----------
    train, train_controls : ndarray of int
        Cells of seen perturbations, and controls, in the training batches.
    test1, test2, test_controls : ndarray of int
        In the other batches: cells of seen perturbations, of unseen ones, and controls.
    """

    train: np.ndarray
    train_controls: np.ndarray
    test1: np.ndarray
    test2: np.ndarray
    test_controls: np.ndarray

    @property
    def test(self) -> np.ndarray:
        """All cells of the test batches, in order."""
        return np.sort(np.concatenate([self.test1, self.test2, self.test_controls]))


def folds(groups: np.ndarray, controls: np.ndarray, batches: np.ndarray, seed: int = 0) -> list[Fold]:
    """Split a screen as Tx-Evaluation does where it can be done.

    Seventy per cent of the perturbations, drawn with `seed`, are seen in training. With more than six
    batches, so are seventy per cent of these, in one fold; with fewer, each batch is left out once.

    Parameters
    ----------
    groups, batches : array of str, shape (n,)
    controls : array of bool, shape (n,)
    seed : int

    Raises
    ------
    ValueError
        If there is one batch only, or fewer than three perturbations: two to tell apart, one never seen.
    """
    names, every = np.unique(batches), np.unique(groups[~controls])
    if len(names) < 2 or len(every) < 3:
        raise ValueError(
            f"{len(names)} batch(es) and {len(every)} perturbation(s): scores across batches need at least "
            "two batches and three perturbations. Is there a column that names replicates, lanes or plates?"
        )
    rng = np.random.default_rng(seed)
    seen = _some(every, rng)
    left_out = [[name] for name in names]
    if len(names) > FEW:
        left_out = [rng.permutation(names)[round(SHARE * len(names)) :]]
    rows = np.arange(len(groups))
    return [_fold(rows, groups, controls, np.isin(batches, out), seen) for out in left_out]


def inner(fold: Fold, groups: np.ndarray, controls: np.ndarray, batches: np.ndarray, seed: int = 0) -> Fold:
    """Split the training cells of a fold again, for a choice that its test cells must not make.

    A third of the training batches, at least one, is held out; of a single one, half of the cells.
    """
    rng = np.random.default_rng([seed, 1])
    rows = np.sort(np.concatenate([fold.train, fold.train_controls]))
    names = np.unique(batches[rows])
    if len(names) > 1:
        held_out = np.isin(batches[rows], rng.permutation(names)[: max(1, round(len(names) / 3))])
    else:
        held_out = rng.random(len(rows)) < 0.5
    seen = _some(np.unique(groups[fold.train]), rng)
    return _fold(rows, groups[rows], controls[rows], held_out, seen)


def _some(names: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw seventy per cent, and leave at least one out."""
    return rng.permutation(names)[: min(len(names) - 1, max(1, round(SHARE * len(names))))]


def _fold(rows, groups, controls, test, seen) -> Fold:
    seen = np.isin(groups, seen) & ~controls
    masks = (~test & seen, ~test & controls, test & seen, test & ~seen & ~controls, test & controls)
    return Fold(*(rows[mask] for mask in masks))
