r"""All pairs of cells, by type: medians, histograms and effect sizes, without all pairs in memory.

44,500 cells make 990 million pairs: one matrix of them takes 8 GB, and the usual functions hold several. Here
blocks of pairs are computed, counted and forgotten::

    measure = similarity.Spearman(x)
    found = pairs.summarise(measure, labels)   # one pass
    found.median                               # types x types
    found.effects()                            # how far "within" lies from "between"

Medians within types are exact. What lies between types comes from histograms of 65,536 bins; such a median is
at most one bin away, which for a correlation is 0.00003.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .similarity import Measure, slices

if TYPE_CHECKING:
    import pandas as pd

BINS = 2**16  # of the histograms that medians come from
KEPT = 2**10  # of the histogram that is kept for each pair of types
DRAWS = 1000  # of types, for an interval


def n_pairs(labels: Sequence) -> dict[str, int]:
    """Return how many pairs of types there are, and of cells within and between types.

    Examples
    --------
    >>> n_pairs(["T", "T", "T", "B", "B"])
    {'types': 1, 'within': 4, 'between': 6}
    """
    sizes = np.unique(np.asarray(labels, dtype=str), return_counts=True)[1]
    within = int((sizes * (sizes - 1) // 2).sum())
    n = int(sizes.sum())
    return {
        "types": len(sizes) * (len(sizes) - 1) // 2,
        "within": within,
        "between": n * (n - 1) // 2 - within,
    }


@dataclass(frozen=True)
class Summary:
    """What is left of all pairs of cells, by type.

    Attributes
    ----------
    types : ndarray of str, shape (t,)
    cells : ndarray of int, shape (t,)
        Cells of each type that can be compared.
    undefined : int
        Cells that cannot; their pairs are in no number here.
    alike : bool
        As in :class:`Measure`.
    median : ndarray, shape (t, t)
        Within a type (diagonal) exact, nan for a single cell; between types within one `resolution`.
    within, between : ndarray of int, shape (65536,)
        Histograms of all pairs.
    low, high : float
        Where the histograms begin and end.
    histograms : ndarray of int, shape (t, t, 1024)
        One for each pair of types, k before l; the others are zero.
    """

    types: np.ndarray
    cells: np.ndarray
    undefined: int
    alike: bool
    low: float
    high: float
    median: np.ndarray
    within: np.ndarray
    between: np.ndarray
    histograms: np.ndarray = field(repr=False)

    @property
    def resolution(self) -> float:
        """Width of a bin, in units of the measure."""
        return (self.high - self.low) / BINS

    def between_medians(self) -> np.ndarray:
        """Return the medians of the pairs of different types, shape (t (t - 1) / 2,)."""
        return self.median[np.triu_indices(len(self.types), 1)]

    def quantile(self, q: float, which: str) -> float:
        """Return a quantile of all pairs "within" or "between" types, to one `resolution`."""
        return _quantile({"within": self.within, "between": self.between}[which], q, self.low, self.high)

    def frame(self) -> pd.DataFrame:
        """Return one row per type: its cells, the median within, and how it lies to the other types.

        `between` is the median of the medians with each other type, `apart` the share of other types whose
        cells are less like the type's own than those are among themselves.
        """
        import pandas as pd

        own = np.diag(self.median)
        other = np.where(np.eye(len(own), dtype=bool), np.nan, self.median)
        less = (other < own[:, None]) if self.alike else (other > own[:, None])
        columns = {
            "cells": self.cells,
            "within": own,
            "between": np.nanmedian(other, axis=1),
            "apart": less.sum(axis=1) / (len(own) - 1),
        }
        return pd.DataFrame(columns, index=self.types)

    def effects(self) -> dict[str, float]:
        """Return how far "within" lies from "between", three times free of the measure's scale.

        Returns
        -------
        dict
            `auc`: probability that a pair within a type is more alike than one between types, over all
            pairs. `d`: Cohen's d of the types' medians, positive if within is more alike. `ratio`: median of
            the medians between types over that within; for distances, since correlations near zero may have
            any ratio.
        """
        return self._effects(np.arange(len(self.types)), self.within, self.between)

    def intervals(self, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
        """Return :meth:`effects` with bootstrap intervals over types: columns `value`, `low`, `high`.

        Types are drawn with replacement; a pair of types counts as often as both were drawn. Pairs of a type
        with itself stay within.
        """
        import pandas as pd

        t = len(self.types)
        first, second = np.triu_indices(t, 1)
        within = self.histograms[np.arange(t), np.arange(t)].astype(float)
        between = self.histograms[first, second].astype(float)
        rng, rows = np.random.default_rng(seed), []
        for _ in range(DRAWS):
            chosen = rng.integers(t, size=t)
            times = np.bincount(chosen, minlength=t)
            if (times > 0).sum() > 2:
                rows.append(self._effects(chosen, times @ within, (times[first] * times[second]) @ between))
        drawn = pd.DataFrame(rows)
        edge = (1 - level) / 2
        return pd.DataFrame(
            {"value": self.effects(), "low": drawn.quantile(edge), "high": drawn.quantile(1 - edge)}
        )

    def _effects(self, chosen: np.ndarray, within: np.ndarray, between: np.ndarray) -> dict[str, float]:
        """Return the effects for some types, `chosen` with repeats, and the histograms of their pairs."""
        first, second = np.triu_indices(len(chosen), 1)
        pairs = chosen[first] != chosen[second]
        own = self.median[chosen, chosen]
        other = self.median[chosen[first[pairs]], chosen[second[pairs]]]
        own, other = own[~np.isnan(own)], other[~np.isnan(other)]
        d = cohens_d(own, other)
        ratio = np.median(other) / np.median(own) if len(own) and len(other) else np.nan
        higher = auc(within, between)
        return {
            "auc": higher if self.alike else 1 - higher,
            "d": d if self.alike else -d,
            "ratio": float(ratio),
        }


def summarise(measure: Measure, labels: Sequence) -> Summary:
    """Go once through all pairs of cells and keep medians and histograms for each pair of types.

    Cells of one type that stand side by side save copies: sort the cells by type where there are many.

    Parameters
    ----------
    measure : Measure
    labels : sequence, length n
        Type of each cell.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        If a label is missing, their number is not that of the cells, or all are the same.
    """
    types, members = _groups(measure, labels)
    t = len(types)
    if t < 2:
        raise ValueError("labels name a single type: there is nothing between types")
    median, within, between = np.full((t, t), np.nan), *np.zeros((2, BINS), dtype=np.int64)
    histograms = np.zeros((t, t, KEPT), dtype=np.int64)
    for k in range(t):
        own = _histogram(measure, members[k])
        within += own
        histograms[k, k] = own.reshape(KEPT, -1).sum(axis=1)
        median[k, k] = _exact_median(measure, members[k], own)
        for j in range(k + 1, t):
            found = _histogram(measure, members[k], members[j])
            between += found
            histograms[k, j] = found.reshape(KEPT, -1).sum(axis=1)
            median[k, j] = median[j, k] = _quantile(found, 0.5, measure.low, measure.high)
    cells = np.array([len(m) for m in members])
    return Summary(
        types, cells, int(measure.undefined.sum()), measure.alike, measure.low, measure.high,
        median, within, between, histograms,
    )  # fmt: skip


def medians_within(measure: Measure, labels: Sequence) -> pd.Series:
    """Return the exact median of each type's pairs, indexed by type; no other pair is computed.

    Raises
    ------
    ValueError
        As in :func:`summarise`.
    """
    import pandas as pd

    types, members = _groups(measure, labels)
    found = [_exact_median(measure, cells, _histogram(measure, cells)) for cells in members]
    return pd.Series(found, index=types)


@dataclass(frozen=True)
class Joint:
    """Two measures of the same pairs: 2-D histograms, the first measure along the first axis.

    Attributes
    ----------
    within, between : ndarray of int, shape (bins, bins)
        Values outside the ranges are counted in the outermost bins.
    first, second : ndarray, shape (bins + 1,)
        Edges of the bins.
    """

    within: np.ndarray
    between: np.ndarray
    first: np.ndarray
    second: np.ndarray


def joint(
    first: Measure,
    second: Measure,
    labels: Sequence,
    ranges: tuple[tuple[float, float], tuple[float, float]] | None = None,
    bins: int = 60,
) -> Joint:
    """Go once through all pairs of cells and count where they lie by two measures at once.

    Parameters
    ----------
    first, second : Measure
        Of the same cells. Pairs that one of them cannot compare are left out.
    labels : sequence, length n
    ranges : pair of (low, high), optional
        Of either measure; by default those in which all values must lie.
    bins : int
        Along either axis.

    Raises
    ------
    ValueError
        If the measures are of different numbers of cells; for labels as in :func:`summarise`.
    """
    if len(first) != len(second):
        raise ValueError(f"the measures are of {len(first):,} and of {len(second):,} cells")
    ranges = ranges or tuple((m.low, m.high) for m in (first, second))
    _, members = _groups(first, labels, ~(first.undefined | second.undefined))
    counts = np.zeros((2, bins * bins), dtype=np.int64)
    for k, own in enumerate(members):
        for j in range(k, len(members)):
            other = None if j == k else members[j]
            pieces = (_pairs(m, own, other) for m in (first, second))
            for a, b in zip(*pieces, strict=True):
                place = _places(a, *ranges[0], bins) * bins + _places(b, *ranges[1], bins)
                counts[int(j != k)] += np.bincount(place, minlength=bins * bins)
    edges = (np.linspace(*r, bins + 1) for r in ranges)
    return Joint(*counts.reshape(2, bins, bins), *edges)


def auc(higher: np.ndarray, lower: np.ndarray) -> float:
    """Return the probability that a value of one histogram exceeds one of another; same bin counts half."""
    below = np.cumsum(lower, dtype=float) - 0.5 * lower
    total = float(higher.sum()) * float(lower.sum())
    return float(higher @ below) / total if total else float("nan")


def cohens_d(a: np.ndarray, b: np.ndarray) -> float:
    """Return the difference of two means over the pooled standard deviation; nan without two values each."""
    if min(len(a), len(b)) < 2:
        return float("nan")
    spread = ((len(a) - 1) * np.var(a, ddof=1) + (len(b) - 1) * np.var(b, ddof=1)) / (len(a) + len(b) - 2)
    return float((np.mean(a) - np.mean(b)) / np.sqrt(spread)) if spread > 0 else float("nan")


def _groups(
    measure: Measure, labels: Sequence, defined: np.ndarray | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the types' names and which cells that can be compared are of each."""
    import pandas as pd

    labels = pd.Series(np.asarray(labels, dtype=object))
    if len(labels) != len(measure):
        raise ValueError(f"labels has length {len(labels):,}, but there are {len(measure):,} cells")
    if missing := int(labels.isna().sum()):
        raise ValueError(f"labels: {missing:,} cells have no type; leave them out")
    types, codes = np.unique(labels.astype(str), return_inverse=True)
    defined = ~measure.undefined if defined is None else defined
    return types, [np.flatnonzero((codes == k) & defined) for k in range(len(types))]


def _pairs(measure: Measure, rows: np.ndarray, columns: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield flat arrays of values: of all pairs of `rows`, or of `rows` with `columns`."""
    for a in slices(len(rows)):
        for b in slices(len(rows), a.start) if columns is None else slices(len(columns)):
            some, others = rows[a], (rows if columns is None else columns)[b]
            values = measure.block(_run(some), _run(others))
            same = columns is None and a == b
            yield values[np.triu(np.ones(values.shape, dtype=bool), 1)] if same else values.ravel()


def _run(index: np.ndarray) -> slice | np.ndarray:
    """Return a slice for cells that stand side by side, so that no copy is made."""
    if index[-1] - index[0] + 1 == len(index):
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _places(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """Return the bin of each value; what lies outside belongs to the outermost."""
    place = (values - values.dtype.type(low)) * values.dtype.type(bins / (high - low))
    return np.clip(place, 0, bins - 1, out=place).astype(np.int64)


def _histogram(measure: Measure, rows: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    counts = np.zeros(BINS, dtype=np.int64)
    for values in _pairs(measure, rows, columns):
        counts += np.bincount(_places(values, measure.low, measure.high, BINS), minlength=BINS)
    return counts


def _exact_median(measure: Measure, rows: np.ndarray, histogram: np.ndarray) -> float:
    """Return the median of all pairs of `rows`: a second look at the bins in which it must lie."""
    n = histogram.sum()
    if not n:
        return float("nan")
    counts = np.cumsum(histogram)
    middle = np.array([(n - 1) // 2, n // 2])
    first, last = np.searchsorted(counts, middle, side="right")
    found = []
    for values in _pairs(measure, rows):
        place = _places(values, measure.low, measure.high, BINS)
        found.append(values[(place >= first) & (place <= last)])
    before = counts[first] - histogram[first]
    return float(np.sort(np.concatenate(found))[middle - before].astype(np.float64).mean())


def _quantile(histogram: np.ndarray, q: float, low: float, high: float) -> float:
    """Return a quantile as numpy defines it, values taken to lie evenly in a bin: off by a bin at most."""
    counts = np.cumsum(histogram)
    if not counts[-1]:
        return float("nan")
    position = q * (counts[-1] - 1)
    order = np.array([np.floor(position), np.ceil(position)]).astype(np.int64)
    bins = np.searchsorted(counts, order, side="right")
    inside = (order - (counts[bins] - histogram[bins]) + 0.5) / histogram[bins]
    values = low + (bins + inside) * (high - low) / len(histogram)
    return float(values[0] + (position - order[0]) * (values[1] - values[0]))
