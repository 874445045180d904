"""Gene sets as what a GSFM reads: tokens, in batches whose every draw follows from seed and step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .devices import ship
from .genesets import GeneSets
from .gsfm_blocks import SPECIALS, UNK, Bags, divide


@dataclass(frozen=True)
class SetTokens:
    """Sets as tokens of a vocabulary, in the layout of a CSR matrix.

    Attributes
    ----------
    indptr : ndarray of int64, shape (n + 1,)
    indices : ndarray of int32, shape (indptr[-1],)
        Ascending and unique within a set; all unknown genes of a set are one ``<unk>``.
    weights : ndarray of float32, shape (indptr[-1],), optional
        What each token counts in the input; ``<unk>`` counts 1.
    n_columns : int
        Tokens times channels.
    """

    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray | None
    n_columns: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def sizes(self) -> np.ndarray:
        """Number of tokens of each set, shape (n,)."""
        return np.diff(self.indptr)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it, 64 hex digits."""
        digest = hashlib.sha256(f"{self.n_columns}".encode())
        for array in (self.indptr, self.indices, self.weights):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return lengths, tokens and weights of some sets, one set after the other."""
        lengths = self.sizes[rows]
        where = np.arange(lengths.sum()) + np.repeat(
            self.indptr[rows] - np.cumsum(lengths) + lengths, lengths
        )
        return lengths, self.indices[where], None if self.weights is None else self.weights[where]

    def bags(self, rows: np.ndarray, device: torch.device) -> Bags:
        """Return some sets on a device."""
        lengths, indices, weights = self.take(rows)
        offsets = np.cumsum(lengths) - lengths
        return Bags(
            ship(indices.astype(np.int64), device),
            ship(offsets, device),
            None if weights is None else ship(weights, device),
        )


def tokenise_sets(sets: GeneSets, genes: Sequence[str], channels: int = 1) -> SetTokens:
    """Turn sets of symbols into tokens.

    Parameters
    ----------
    sets : GeneSets
        Weights, if there are any, are kept as they are: bring them to the order of 1, for example log fold
        changes divided by their standard deviation.
    genes : sequence of str
        The vocabulary, ``<unk>`` and ``<pad>`` included.
    channels : int
        With 2, genes of negative weight become other tokens, V higher, and weights lose their sign.

    Raises
    ------
    ValueError
        If there are two channels and no weights, or a weight is not finite.
    """
    if channels == 2 and sets.weights is None:
        raise ValueError("two channels, up and down, need signed weights, and these sets have none")
    if sets.weights is not None and (bad := ~np.isfinite(sets.weights)).any():
        first = np.searchsorted(sets.indptr, np.flatnonzero(bad)[0], side="right") - 1
        raise ValueError(f"{int(bad.sum())} weights are not finite, the first one in {sets.names[first]!r}")
    place = {gene: i for i, gene in enumerate(genes)} | dict.fromkeys(SPECIALS, UNK)
    tokens = np.array([place.get(gene, UNK) for gene in sets.genes], dtype=np.int64)[sets.indices]
    rows = np.repeat(np.arange(len(sets)), sets.sizes)
    weights = sets.weights
    if weights is not None:
        weights = np.where(tokens == UNK, np.float32(1), weights.astype(np.float32))
        if channels == 2:
            tokens = tokens + len(genes) * (weights < 0)
            weights = np.abs(weights)
    width = len(genes) * channels
    keys, first = np.unique(rows * width + tokens, return_index=True)
    indptr = np.searchsorted(keys, np.arange(len(sets) + 1) * width)
    indices = (keys % width).astype(np.int32)
    return SetTokens(indptr, indices, None if weights is None else weights[first], width)


@dataclass(frozen=True)
class SetBatch:
    """A batch of sets, still on the host.

    Attributes
    ----------
    row, dataset : ndarray of int, shape (b,)
        Which sets these are, and the number of the library of each.
    lengths, indices, weights : ndarray
        See :meth:`SetTokens.take`.
    shares, noise : ndarray of float64, shape (b,) and (N,), optional
        With a partition: how much of each set is hidden, and the numbers that decide what.
    """

    row: np.ndarray
    dataset: np.ndarray
    lengths: np.ndarray
    indices: np.ndarray
    weights: np.ndarray | None
    shares: np.ndarray | None
    noise: np.ndarray | None

    def __len__(self) -> int:
        return len(self.row)


class SetSample:
    """A batch on a device; ``source`` is the batch."""

    def __init__(self, batch: SetBatch, device: torch.device):
        self.source = batch
        offsets = np.cumsum(batch.lengths) - batch.lengths
        weights = None if batch.weights is None else ship(batch.weights, device)
        self.bags = Bags(ship(batch.indices.astype(np.int64), device), ship(offsets, device), weights)
        self.shown = None
        if batch.shares is not None:
            numbers = (torch.from_numpy(x) for x in (batch.lengths, batch.shares, batch.noise))
            self.shown = ship(divide(*numbers).numpy(), device)


class SetLoader:
    """Epoch after epoch of shuffled batches; the last one of an epoch may be short, and no set is left out.

    Parameters
    ----------
    tokens : SetTokens
    rows : ndarray of int
        The sets to be used.
    dataset : ndarray of int, shape (n,)
        The number of each set's library.
    batch_size : int
    seed : int
        Order and noise follow from it and from the number of the epoch.
    partition : float
        Share of each set that is hidden.
    hiding : {"share", "up to"}
        Hide that share, or anything up to it: the logarithm of what is shown is uniform.
    """

    def __init__(
        self,
        tokens: SetTokens,
        rows: np.ndarray,
        dataset: np.ndarray,
        batch_size: int,
        seed: int,
        partition: float = 0.0,
        hiding: str = "share",
    ):
        self.tokens, self.rows, self.dataset = tokens, rows, dataset
        self.batch_size, self.seed, self.partition = batch_size, seed, partition
        self.hiding = hiding
        self.epoch = self.batch = 0

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stood."""
        self.epoch, self.batch = state["epoch"], state["batch"]

    def __iter__(self) -> Iterator[SetBatch]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        while self.batch < len(self):
            rows = order[self.batch * self.batch_size :][: self.batch_size]
            lengths, indices, weights = self.tokens.take(rows)
            rng = np.random.default_rng([self.seed, self.epoch, self.batch])
            shares = noise = None
            if self.partition:
                noise, shares = rng.random(len(indices)), np.full(len(rows), self.partition)
                if self.hiding == "up to":
                    shares = 1 - (1 - shares) ** rng.random(len(rows))
            self.batch += 1
            yield SetBatch(rows, self.dataset[rows], lengths, indices, weights, shares, noise)
        self.epoch, self.batch = self.epoch + 1, 0
