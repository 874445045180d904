"""What a run tells about itself: its losses, its history, and a cheap probe of what it has learned."""

from __future__ import annotations

import csv
import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from .corpus import Corpus
    from .loader import Batch


ADVICE = (
    "use an activation that is bounded ('rectified_tanh'), and 'bf16' or 'fp32' in place of 'fp16'; if one "
    "dataset comes up again and again, look at its counts and library sizes"
)


class Diverged(FloatingPointError):
    """The loss of a step is no finite number; `step` says of which."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Watch:
    """Losses as they become known, and the time spent waiting for data.

    Reading a number from a GPU means waiting until all work before it is done. So each loss is sent to the
    host beside that work and looked at once it has arrived, some steps later.

    Attributes
    ----------
    last : float
        The newest loss that is known.
    total, n : float, int
        Sum and number of the losses since :meth:`reset`.
    gradient : float
        Length of the longest gradient since :meth:`reset`, before it was clipped; nan if none was told.
    waited, started : float
        Seconds of waiting for data since :meth:`reset`, and when that was.
    """

    def __init__(self, datasets: list[str], advice: str = ADVICE):
        self.datasets, self.advice, self.last = datasets, advice, math.nan
        self._sent: deque = deque()
        self.reset()

    def reset(self) -> None:
        """Begin a new interval."""
        self.total, self.n, self.waited, self.started = 0.0, 0, 0.0, time.monotonic()
        self.gradient = math.nan

    def add(
        self, losses: torch.Tensor, step: int, batch: Batch, gradient: torch.Tensor | None = None
    ) -> None:
        """Take the losses of a step's micro-batches, shape (micro-batches,), and the gradient's length."""
        if gradient is None:
            gradient = losses.new_full((), math.nan)
        arrival, losses = None, torch.cat([losses.detach().float(), gradient.detach().float()[None]])
        if losses.is_cuda:
            losses = torch.empty(losses.shape, pin_memory=True).copy_(losses, non_blocking=True)
            arrival = torch.cuda.Event()
            arrival.record()
        self._sent.append((arrival, losses, step, batch))
        self.collect(wait=False)

    def collect(self, wait: bool = True) -> None:
        """Look at the losses that have arrived, or wait for all of them.

        Raises
        ------
        Diverged
            If a loss is no finite number, naming step, datasets and rows of the corpus.
        """
        while self._sent:
            arrival, losses, step, batch = self._sent[0]
            if arrival is not None and not arrival.query():
                if not wait:
                    return
                arrival.synchronize()
            self._sent.popleft()
            losses, gradient = losses[:-1], losses[-1].item()
            self.last = losses.mean().item()
            if not math.isfinite(self.last):
                raise Diverged(self._describe(losses, step, batch), step)
            self.total, self.n = self.total + self.last, self.n + 1
            self.gradient = float(np.fmax(self.gradient, gradient))

    def _describe(self, losses: torch.Tensor, step: int, batch: Batch) -> str:
        first = int((~losses.isfinite()).nonzero()[0])
        part = slice(first * len(batch) // len(losses), (first + 1) * len(batch) // len(losses))
        rows, codes = batch.row[part], batch.dataset[part]
        names = ", ".join(self.datasets[code] for code in np.unique(codes))
        some = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
        return (
            f"the loss is {losses[first].item()} at step {step}, on {len(rows)} samples of {names} "
            f"(rows {some} of the corpus): lower the learning rate; {self.advice}"
        )


def write_history(rows: list[dict[str, float]], path: Path) -> None:
    """Write one line per row; numbers keep all their digits, and a reader never sees half a file."""
    aside = path.with_name(path.name + ".partial")
    with open(aside, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    os.replace(aside, path)


def probe(embed: Callable[[np.ndarray, int], np.ndarray], corpus: Corpus, n_cells: int = 800) -> float:
    """Tell cell types of held-out batches by their nearest neighbours in the other batches.

    Parameters
    ----------
    embed : callable
        From rows of the corpus, all of one dataset, and the dataset's number to vectors.
    corpus : Corpus
    n_cells : int
        At most so many cells are embedded in all; the same ones at every look.

    Returns
    -------
    float
        Balanced accuracy (chance is one over the number of types), averaged over the datasets that have
        labelled cells in both splits; NaN if none has.
    """
    questions, scores = [], []
    for code in range(len(corpus.datasets)):
        mine = np.flatnonzero((corpus.dataset == code) & (corpus.cell_type >= 0))
        reference, query = (mine[corpus.split[mine] == split] for split in (0, 1))
        query = query[np.isin(corpus.cell_type[query], corpus.cell_type[reference])]
        if query.size:
            questions.append((code, reference, query))
    for code, *sides in questions:
        rng = np.random.default_rng(code)
        sides = [rng.permutation(rows)[: n_cells // (2 * len(questions))] for rows in sides]
        vectors = [embed(rows, code) for rows in sides]
        scores.append(
            neighbour_accuracy(vectors[0], corpus.cell_type[sides[0]], vectors[1], corpus.cell_type[sides[1]])
        )
    return float(np.mean(scores)) if scores else math.nan


def neighbour_accuracy(
    reference: np.ndarray,
    reference_labels: np.ndarray,
    query: np.ndarray,
    query_labels: np.ndarray,
    n_neighbours: int = 15,
) -> float:
    """Classify each query by the majority of its nearest references; the smaller label wins a tie.

    Parameters
    ----------
    reference, query : ndarray, shape (n, d) and (m, d)
        Cosine distance.
    reference_labels, query_labels : ndarray of int >= 0, shape (n,) and (m,)
    n_neighbours : int

    Returns
    -------
    float
        Balanced accuracy over the queries whose label the references have; NaN without any.
    """
    known = np.isin(query_labels, reference_labels)
    query, query_labels = query[known], query_labels[known]
    if not len(query):
        return math.nan
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (query, reference))
    nearest = np.argsort(-(a @ b.T), axis=1, kind="stable")[:, :n_neighbours]
    predicted = np.array([np.bincount(votes).argmax() for votes in reference_labels[nearest]])
    right = predicted == query_labels
    return float(np.mean([right[query_labels == label].mean() for label in np.unique(query_labels)]))
