"""What all scores share: embeddings that know their cells' names, rows with null and ceiling, controls.

Published comparisons have scored embeddings whose rows were in another order than the labels, and averaged
scores whose chance levels differ (a recall of 10 % by chance beside an accuracy of 1 %). Here an embedding is
aligned by cell name or refused, and each score says what it would be without any information (``null``) and
what it can reach at best (``ceiling``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

#: Fields of one score, in the order in which they are stored.
FIELDS = ("dataset", "model", "metric", "variant", "value", "seed", "null", "ceiling", "n")


def partial(
    metric: str,
    value: float,
    *,
    variant: str = "",
    null: float = float("nan"),
    ceiling: float = 1.0,
    n: int = 0,
) -> dict[str, Any]:
    """Return one score that does not know its dataset, model and seed yet.

    Parameters
    ----------
    metric : str
    value : float
        A fraction, not per cent; nan where it is undefined.
    variant : str
        What else distinguishes it: a post-processing, a database, an algorithm.
    null : float
        The value expected without information: measured by permutation, or the class prior.
    ceiling : float
        The best value that can be reached.
    n : int
        On how many cells, pairs or genes it rests.
    """
    return {
        "metric": metric, "variant": variant, "value": float(value), "null": float(null),
        "ceiling": float(ceiling), "n": int(n),
    }  # fmt: skip


def complete(rows: Sequence[dict[str, Any]], dataset: str, model: str, seed: int) -> list[dict[str, Any]]:
    """Return rows as they are stored, from what a metric returned."""
    known = {"dataset": dataset, "model": model, "seed": seed}
    return [{field: (known | row)[field] for field in FIELDS} for row in rows]


def chance_corrected(value, null, ceiling):
    """Return (value - null) / (ceiling - null): 0 without information, 1 at the best; arrays or numbers."""
    return (value - null) / (ceiling - null)


@dataclass(frozen=True)
class Embedding:
    """Numbers and the names of the cells that they belong to.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    ids : sequence of str, length n
    name : str
        Of the model.

    Raises
    ------
    ValueError
        If the lengths differ, a name occurs twice, or a value is missing or infinite.
    """

    values: np.ndarray
    ids: np.ndarray
    name: str = ""

    def __post_init__(self):
        import pandas as pd

        values, ids = np.asarray(self.values), np.asarray(self.ids).astype(str)
        if values.ndim != 2 or len(values) != len(ids):
            raise ValueError(f"{self.name}: values of shape {values.shape} for {len(ids)} cell names")
        if (twice := pd.Index(ids)[pd.Index(ids).duplicated()]).size:
            raise ValueError(f"{self.name}: {twice.size} cell names occur twice, for example {twice[0]!r}")
        if (bad := np.flatnonzero(~np.isfinite(values).all(axis=1))).size:
            raise ValueError(
                f"{self.name}: {bad.size} cells have missing or infinite values, for example "
                f"{str(ids[bad[0]])!r}: leave them out of the data, too"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "ids", ids)

    def align(self, adata: AnnData) -> np.ndarray:
        """Return the values in the order of ``adata.obs_names``.

        Raises
        ------
        ValueError
            If the two do not have the same cells.
        """
        import pandas as pd

        here, there = pd.Index(self.ids), pd.Index(adata.obs_names.astype(str))
        lacking, unknown = there.difference(here), here.difference(there)
        if len(lacking) or len(unknown):
            examples = ", ".join(map(repr, [*lacking[:2], *unknown[:2]]))
            raise ValueError(
                f"{self.name}: the cells differ from the data's: {len(lacking)} have no embedding, "
                f"{len(unknown)} are not in the data ({examples}). Embed exactly these cells, and store "
                "their obs_names as ids"
            )
        return self.values[here.get_indexer(there)]

    def write(self, path: str | Path) -> Path:
        """Write ``values`` and ``ids`` into one .npz file."""
        path = Path(path)
        aside = path.with_name(path.name + ".partial")
        with aside.open("wb") as file:
            np.savez_compressed(file, values=self.values, ids=self.ids)
        os.replace(aside, path)
        return path

    @classmethod
    def read(cls, path: str | Path, ids: str | Path | None = None, name: str = "") -> Embedding:
        """Read an .npz file with arrays ``values`` and ``ids``, or an .npy file beside a file of names.

        Parameters
        ----------
        path : path
        ids : path, optional
            Text, one cell name per line; needed for .npy, and wins over the names inside an .npz.
        name : str
            By default the file's name.

        Raises
        ------
        ValueError
            If there are no names: rows without names cannot be trusted to be in the data's order.
        """
        path = Path(path)
        content = np.load(path, allow_pickle=False)
        arrays = {"values": content} if isinstance(content, np.ndarray) else dict(content)
        if "values" not in arrays:
            raise ValueError(f"{path}: there is no array 'values', only {', '.join(arrays) or 'nothing'}")
        names = Path(ids).read_text().splitlines() if ids is not None else arrays.get("ids")
        if names is None:
            raise ValueError(
                f"{path}: no cell names. Store obs_names as an array 'ids', or give a text file of them: "
                "rows in an unknown order score like noise and nobody notices"
            )
        return cls(arrays["values"], names, name or path.stem)


def scrambled(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the rows in random order: every distance as before, every label wrong.

    The order is a stream of its own: a null that permuted by the same numbers would fit these rows perfectly.
    """
    return np.asarray(values)[np.random.default_rng([seed, 4]).permutation(len(values))]


def constant(n: int) -> np.ndarray:
    """Return zeros, shape (n, 2): an embedding that says nothing about any cell."""
    return np.zeros((n, 2), dtype=np.float32)


def depth(adata: AnnData) -> np.ndarray:
    """Return log10 total counts and genes detected, standardised, shape (n, 2): what depth alone can tell."""
    total = np.asarray(adata.X.sum(axis=1)).ravel()
    detected = np.asarray((adata.X > 0).sum(axis=1)).ravel()
    x = np.column_stack([np.log10(np.maximum(total, 1)), detected]).astype(np.float64)
    return ((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-12)).astype(np.float32)
