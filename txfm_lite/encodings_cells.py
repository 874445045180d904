"""From an AnnData to rows of tokens: what all encodings share.

The counts are read, checked and brought into the vocabulary's order some cells at a time; a model's own rule
turns each piece into tokens; the pieces are joined, and it is counted what the model knew and what it lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .align import Aligned

if TYPE_CHECKING:
    import scipy.sparse as sp

log = logging.getLogger("txfm_lite")

LEAST_COUNTS = 0.3  # of a dataset's counts in the vocabulary; below, its genes were hardly understood
BY_GENE = "equal values in the order of the vocabulary"

# indptr, tokens, values or None, and for each cell how many detected genes are not shown.
Rows = tuple[np.ndarray, np.ndarray, "np.ndarray | None", "np.ndarray | int"]
# A model's rule: from counts (n, G) without stored zeros, library sizes (n,) and the cells' names.
Rule = Callable[["sp.csr_matrix", np.ndarray, Sequence[str]], Rows]


@dataclass(frozen=True, eq=False)
class Encoding:
    """What a model is shown of every cell; row i is cell i of the AnnData.

    Attributes
    ----------
    model : str
    cells : ndarray of str, shape (n,)
        The cells' names.
    genes : ndarray of str, shape (V,)
        What each token stands for, ``genes[tokens]``: the vocabulary and special tokens like "<cls>".
    indptr : ndarray of int64, shape (n + 1,)
        Cell i has the tokens ``tokens[indptr[i] : indptr[i + 1]]``, and the values at the same places.
    tokens : ndarray of int32, shape (nnz,)
        In the order in which the model reads them.
    values : ndarray, shape (nnz,), or None
        What the model is told beside the token; None where the order says all.
    everywhere : ndarray of int32, shape (k,), or None
        Tokens that every cell shows, also where its value is zero; `tokens` are then those above zero. None
        where zeros are left out.
    vectors : ndarray, float32, shape (n, d), or None
        GenePT's embedding.
    matched : float
        Share of the dataset's genes that are in the vocabulary.
    matched_counts : float
        Share of the dataset's counts in them.
    truncated : float
        Share of the detected genes of the vocabulary that the model does not get to see.
    ties : str
        What becomes of equal values.
    seed : int or None
        None if nothing is random.
    """

    model: str
    cells: np.ndarray
    genes: np.ndarray
    indptr: np.ndarray
    tokens: np.ndarray
    values: np.ndarray | None
    everywhere: np.ndarray | None
    vectors: np.ndarray | None
    matched: float
    matched_counts: float
    truncated: float
    ties: str
    seed: int | None

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, i: int) -> np.ndarray:
        """Return the names of cell i's tokens, in order."""
        return self.genes[self.tokens[self.indptr[i] : self.indptr[i + 1]]]

    def sentences(self) -> list[str]:
        """Return each cell's tokens as words, separated by blanks."""
        return [" ".join(self[i]) for i in range(len(self))]

    def padded(self, pad: int = 0) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return matrices with one row per cell, filled up on the right.

        Returns
        -------
        tokens : ndarray of int32, shape (n, L)
            L is the longest cell's number of tokens, or k where all cells show the same ones.
        values : ndarray, shape (n, L), or None
            Zero where there is no token.
        shown : ndarray of bool, shape (n, L)
            False where a row is filled up, with the token `pad`.
        """
        lengths = np.diff(self.indptr)
        row = np.repeat(np.arange(len(self)), lengths)
        if self.everywhere is None:
            column = np.arange(len(self.tokens)) - np.repeat(self.indptr[:-1], lengths)
            shape = len(self), int(lengths.max(initial=0))
            tokens, shown = np.full(shape, pad, dtype=np.int32), np.zeros(shape, dtype=bool)
            tokens[row, column], shown[row, column] = self.tokens, True
        else:
            place = np.empty(len(self.genes), dtype=np.int64)
            place[self.everywhere] = np.arange(len(self.everywhere))
            column, shape = place[self.tokens], (len(self), len(self.everywhere))
            tokens, shown = np.broadcast_to(self.everywhere, shape), np.broadcast_to(np.True_, shape)
        if self.values is None:
            return tokens, None, shown
        values = np.zeros(shape, dtype=self.values.dtype)
        values[row, column] = self.values
        return tokens, values, shown


def encode(
    model: str,
    aligned: Aligned,
    rule: Rule,
    *,
    ties: str,
    seed: int | None = None,
    genes: np.ndarray | None = None,
    everywhere: np.ndarray | None = None,
) -> Encoding:
    """Apply a model's rule to all cells; say how well dataset and vocabulary fit.

    Parameters
    ----------
    aligned : Aligned
    rule : callable
        See ``Rule``, above.
    genes : ndarray of str, optional
        What the tokens stand for, by default the vocabulary.
    model, ties, seed, everywhere
        See :class:`Encoding`.
    """
    cells = np.asarray(aligned.adata.obs_names, dtype=str)
    bounds, tokens, values, lost, empty = [np.zeros(1, dtype=np.int64)], [], [], [], []
    detected = 0
    for rows, counts, library_size in _ahead(aligned):
        if not counts.data.all():
            counts.eliminate_zeros()
        indptr, token, value, missing = rule(counts, library_size, cells[rows])
        bounds.append(indptr[1:].astype(np.int64) + bounds[-1][-1])
        tokens.append(token.astype(np.int32, copy=False))
        values.append(value)
        n_genes = np.diff(counts.indptr)
        lost.append(np.broadcast_to(missing, n_genes.shape))
        empty.append(n_genes == 0)
        detected += counts.nnz
    lost, empty, match = np.concatenate(lost), np.flatnonzero(np.concatenate(empty)), aligned.match
    truncated = float(lost.sum() / max(detected, 1))
    report = aligned.report()
    matched, matched_counts = float((match.place >= 0).mean()), report["counts_in_model"]
    log.info(
        "%s: counts from %s, genes by %s: %d of %d genes known (%.1f %% of the counts; %d columns added to "
        "others of their gene, %d versions dropped); %d of %d cells lose genes (%.1f %% of those detected)",
        model, report["counts"], report["gene_names"], (match.place >= 0).sum(), report["genes"],
        100 * matched_counts, (match.place >= 0).sum() - match.measured.sum(), match.versions,
        (lost > 0).sum(), len(cells), 100 * truncated,
    )  # fmt: skip
    if matched_counts < LEAST_COUNTS:
        log.warning("%s knows only %.0f %% of the counts' genes", model, 100 * matched_counts)
    if empty.size:
        log.warning(
            "%d cells have no gene that %s knows, for example %r: they have no token, or only special ones",
            empty.size, model, str(cells[empty[0]]),
        )  # fmt: skip
    return Encoding(
        model, cells, match.genes if genes is None else genes, np.concatenate(bounds),
        np.concatenate(tokens), None if values[0] is None else np.concatenate(values), everywhere, None,
        matched, matched_counts, truncated, ties, seed,
    )  # fmt: skip


def _ahead(pieces: Iterable) -> Iterator:
    """Yield the same, while a thread prepares the next."""
    with ThreadPoolExecutor(1, thread_name_prefix="align") as thread:
        iterator = iter(pieces)
        ahead = thread.submit(next, iterator, None)
        while (piece := ahead.result()) is not None:
            ahead = thread.submit(next, iterator, None)
            yield piece


def cut(
    indptr: np.ndarray, longest: int | None, *arrays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, *tuple[np.ndarray, ...]]:
    """Keep each row's first entries; return the new indptr, how many each row lost, and the arrays."""
    lengths = np.diff(indptr)
    if longest is None or lengths.max(initial=0) <= longest:
        return indptr, np.zeros_like(lengths), *arrays
    kept = np.minimum(lengths, longest)
    parts = [slice(a, a + k) for a, k in zip(indptr[:-1].tolist(), kept.tolist(), strict=True)]
    shorter = (np.concatenate([array[part] for part in parts]) for array in arrays)
    return np.append(0, np.cumsum(kept)), lengths - kept, *shorter


def between(
    indptr: np.ndarray, array: np.ndarray, before: Sequence = (), after: Sequence = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Put further entries, one or one per row, before and after those of a row; return indptr and array."""
    extra = len(before) + len(after)
    if not extra:
        return indptr, array
    new = indptr + extra * np.arange(len(indptr))
    out = np.empty(new[-1], dtype=array.dtype)
    starts = (new[:-1] + len(before)).tolist()
    for start, a, b in zip(starts, indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
        out[start : start + b - a] = array[a:b]
    for i, entry in enumerate(before):
        out[new[:-1] + i] = entry
    for i, entry in enumerate(after):
        out[new[1:] - len(after) + i] = entry
    return new, out
