"""Shuffled, resumable batches of sparse counts from a corpus.

An epoch is one fixed order of the rows, decided by the seed and the epoch's number alone:

1. the rows of the split are cut into blocks of `block` neighbours and the blocks are permuted;
2. the result is cut into pools of `pool` blocks (rounded to whole batches) whose rows are permuted.

One thread reads the next pool while the present one is used: block after block, in long contiguous reads,
each row straight to its place in the final order, so that a batch is merely a view. As the order does not
depend on how rows are read, a corpus in memory and one on disk give the same batches; as it is known
beforehand, an interrupted epoch resumes at any batch without replaying those before.

numpy only: the model's side moves the small arrays to its device and makes them dense there.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .corpus import Corpus

MEMORY_LIMIT = 1_000_000_000  # bytes of counts below which a corpus is simply held in memory


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples of a corpus as a CSR triple; the arrays may be views of a pool: copy to change them.

    Attributes
    ----------
    indptr : ndarray, int64, shape (b + 1,)
    indices : ndarray, uint16 or uint32, shape (nnz,)
        Vocabulary ids, in no particular order within a row.
    counts : ndarray, uint16 or uint32, shape (nnz,)
    dataset : ndarray, int64, shape (b,)
        Row of ``corpus.measured`` for each sample.
    row : ndarray, int64, shape (b,)
        Row of the corpus for each sample.
    library_size : ndarray, float64, shape (b,)
        Total counts of each whole profile; normalise with ``counts * 1e5 / library_size``.
    """

    indptr: np.ndarray
    indices: np.ndarray
    counts: np.ndarray
    dataset: np.ndarray
    row: np.ndarray
    library_size: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def dense(self, n_genes: int) -> np.ndarray:
        """Return the counts as float32, shape (b, n_genes)."""
        out = np.zeros((len(self), n_genes), dtype=np.float32)
        out[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.counts
        return out


class BatchLoader:
    """Iterate over batches of a corpus; every sample once per epoch.

    Each ``iter()`` is one epoch: that of :meth:`set_epoch`, or the one after the last that ran to its end.

    Parameters
    ----------
    corpus : Corpus
    batch_size : int
        Samples per batch *and per rank*.
    split : str or None
        "train", "validation" or None for all rows.
    rows : array of int, optional
        Exactly these rows instead of a split.
    shuffle : bool
        False gives the rows in corpus order.
    seed : int
    block, pool : int
        Neighbouring rows read together, and blocks shuffled together. Two pools are in memory at a time, each
        of ``block * pool`` samples at 4 bytes per non-zero (50 MB for 1,500 genes per cell). Larger pools mix
        better, but arrays above 32 MB cost a page fault per 4 kB: twice the defaults is a quarter slower.
    drop_last : bool
        Leave out the last, smaller batch of an epoch.
    rank, world_size : int
        This process and the number of processes: together, at every step, the ranks hold the batch that one
        process with ``batch_size * world_size`` would have held.
    in_memory : bool, optional
        Hold the counts in memory; by default if they take less than 1 GB.

    Raises
    ------
    ValueError
        If there is not a single batch, or a parameter is out of range.

    Examples
    --------
    >>> loader = BatchLoader(Corpus.open("corpus"), batch_size=64, seed=0)      # doctest: +SKIP
    >>> batch = next(iter(loader))                                              # doctest: +SKIP
    """

    def __init__(
        self, corpus: Corpus, batch_size: int, *, split: str | None = "train", rows: np.ndarray | None = None,
        shuffle: bool = True, seed: int = 0, block: int = 32, pool: int = 256, drop_last: bool = True,
        rank: int = 0, world_size: int = 1, in_memory: bool | None = None,
    ):  # fmt: skip
        if min(batch_size, block, pool, world_size) < 1 or not 0 <= rank < world_size:
            raise ValueError("batch_size, block, pool, world_size must be positive and rank below world_size")
        self.corpus, self.batch_size, self.seed, self.shuffle = corpus, batch_size, seed, shuffle
        self.rows = corpus.rows(split) if rows is None else np.unique(np.asarray(rows, dtype=np.int64))
        self.block, self.drop_last, self.rank, self.world_size = block, drop_last, rank, world_size
        self.global_batch = batch_size * world_size
        self.batches_per_pool = max(1, round(block * pool / self.global_batch))
        if len(self) == 0:
            have = f"{len(self.rows):,} samples (split {split!r})"
            raise ValueError(f"{have} do not fill one batch of {self.global_batch:,}; lower batch_size")
        if corpus.nbytes <= MEMORY_LIMIT if in_memory is None else in_memory:
            corpus.load()
        self.epoch = 0
        self._next = 0  # batches of the running epoch already handed out
        self._resume = False

    def __len__(self) -> int:
        n = len(self.rows)
        return n // self.global_batch if self.drop_last else -(-n // self.global_batch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next ``iter()``; a restored position survives if it lies in that epoch."""
        if epoch != self.epoch:
            self.epoch, self._next, self._resume = epoch, 0, False

    def order(self, epoch: int) -> np.ndarray:
        """Return all rows in the order of `epoch`, before they are dealt to ranks: int64, shape (n,)."""
        if not self.shuffle:
            return self.rows
        rng = np.random.default_rng([self.seed, epoch])
        starts = rng.permutation(-(-len(self.rows) // self.block)) * self.block
        position = (starts[:, None] + np.arange(self.block)).ravel()
        order = self.rows[position[position < len(self.rows)]]
        pool = self.batches_per_pool * self.global_batch
        for start in range(0, len(order), pool):
            rng.shuffle(order[start : start + pool])
        return order

    def _share(self, order: np.ndarray) -> np.ndarray:
        """Deal the rows to ranks: of every global batch, each rank takes its own `batch_size` rows."""
        whole = len(order) // self.global_batch * self.global_batch
        mine = order[:whole].reshape(-1, self.world_size, self.batch_size)[:, self.rank].ravel()
        if self.drop_last:
            return mine
        return np.concatenate([mine, np.array_split(order[whole:], self.world_size)[self.rank]])

    def __iter__(self) -> Iterator[Batch]:
        first, self._resume = (self._next if self._resume else 0), False
        epoch, self._next = self.epoch, first
        mine = self._share(self.order(epoch))
        size, per_pool = self.batch_size, self.batches_per_pool
        # pools of the whole epoch, the first one from where we resume
        edges = [first, *range((first // per_pool + 1) * per_pool, len(self), per_pool), len(self)]
        pools = [mine[a * size : b * size] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        with ThreadPoolExecutor(1, thread_name_prefix="corpus") as thread:
            ahead = thread.submit(self.corpus.read, pools[0])
            for i, rows in enumerate(pools):
                data = ahead.result()
                if i + 1 < len(pools):
                    ahead = thread.submit(self.corpus.read, pools[i + 1])
                for a in range(0, max(len(rows), 1), size):  # an empty share is still a step
                    self._next += 1
                    yield self._batch(rows, *data, slice(a, a + size))
        self.set_epoch(epoch + 1)

    def _batch(self, rows, indptr, indices, counts, part: slice) -> Batch:
        row = rows[part]
        bounds = indptr[part.start : part.stop + 1]
        values = slice(bounds[0], bounds[-1])
        return Batch(
            indptr=bounds - bounds[0],
            indices=indices[values],
            counts=counts[values],
            dataset=self.corpus.dataset[row].astype(np.int64),
            row=row,
            library_size=self.corpus.library_size[row],
        )

    def state_dict(self) -> dict[str, Any]:
        """Return where the epoch stands: enough to continue with exactly the batch that comes next."""
        epoch, batch = (self.epoch, self._next) if self._next < len(self) else (self.epoch + 1, 0)
        return {"epoch": epoch, "batch": batch, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position with the next ``iter()``.

        Raises
        ------
        ValueError
            If corpus, rows, seed or batch layout differ from the saved ones: the order would be another.
        """
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise ValueError(f"cannot resume: {key} was {state.get(key)!r} and is {value!r} now")
        self.epoch, self._next, self._resume = state["epoch"], state["batch"], True

    def _identity(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus.fingerprint,
            "n_rows": len(self.rows),
            "seed": self.seed,
            "shuffle": self.shuffle,
            "global_batch": self.global_batch,
            "block": self.block,
            "batches_per_pool": self.batches_per_pool,
            "drop_last": self.drop_last,
        }
