"""One immutable corpus on disk: a vocabulary, who measured what, sparse counts, and a table of samples.

A corpus is a directory of plain arrays that needs numpy alone to be read:

============= ========================= ============================================================
file          shape, type               meaning
============= ========================= ============================================================
corpus.json   --                        format, datasets, category names, rules, hashes, fingerprint
genes.txt     G lines                   the union vocabulary; gene i stands on line i
measured.npy  bool [n_datasets, G]      genes that a dataset *can* report: not measured is not zero
indptr.npy    int64 [n + 1]             where each sample's non-zeros begin
indices.bin   uint16 [nnz]              vocabulary ids of the non-zeros (uint32 if G > 65,536)
counts.bin    uint16 [nnz]              their counts; 65,535 means "see overflow.npy"
overflow.npy  int64 [m, 2]              (position, count) of all counts of 65,535 and more, exact
dataset.npy … one value per sample      dataset, batch, split, cell_type (codes), library_size, name
============= ========================= ============================================================

Four bytes per non-zero, half of a float32 CSR matrix. Rows are fetched with ``preadv``: many rows of one
contiguous stretch per call, each straight to its place in the result. (Touching a cold memory map row by row
would wait for the disk once per page instead.) The small columns are memory-mapped, so opening takes
milliseconds whatever the size. :mod:`txfm_lite.corpus_writer` writes such a directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas
    import scipy.sparse

FORMAT, VERSION = "txfm_lite corpus", 1
SPLITS = ("train", "validation")
COLUMNS = {
    "dataset": np.int32,
    "batch": np.int32,
    "split": np.int8,
    "cell_type": np.int32,
    "library_size": np.float64,
    "name": np.bytes_,
}
OVERFLOW = 65_535  # stands in counts.bin for every count that needs more than 16 bits
ROWS_PER_READ = 512  # buffers handed to one preadv call (Linux allows 1,024)


class Corpus:
    """A finished corpus, opened for reading with :meth:`Corpus.open`.

    Attributes
    ----------
    path : pathlib.Path
    info : dict
        ``corpus.json``; ``datasets`` and ``categories`` are its parts.
    n_samples, n_genes, nnz : int
    fingerprint : str
        Hash of everything that a model sees.
    indptr : ndarray, int64, shape (n_samples + 1,)
    measured : ndarray, bool, shape (n_datasets, n_genes)
    dataset, batch, split, cell_type : ndarray of integer codes, shape (n_samples,)
        -1 is "unknown"; the names are in ``datasets``, ``SPLITS`` and ``categories``.
    library_size : ndarray, float64, shape (n_samples,)
        Counts of the whole profile: the sum over all identified genes of the sample's own dataset, also those
        outside the vocabulary (divided by the dataset's ``library_share``, which is 1 except for panels).
    name : ndarray, bytes, shape (n_samples,)
        Sample names as in the source.
    """

    def __init__(self, path: Path, info: dict[str, Any]):
        self.path, self.info = path, info
        self.n_samples, self.n_genes, self.nnz = info["n_samples"], info["n_genes"], info["nnz"]
        self.fingerprint: str = info["fingerprint"]
        self.datasets: list[dict[str, Any]] = info["datasets"]
        self.categories: dict[str, list[str]] = info["categories"]
        for column in ("indptr", "measured", "overflow", *COLUMNS):
            setattr(self, column, np.load(path / f"{column}.npy", mmap_mode="r"))
        self._streams = {"indices.bin": np.dtype(info["index_dtype"]), "counts.bin": np.dtype(np.uint16)}
        self._descriptors = [os.open(path / file, os.O_RDONLY) for file in self._streams]
        weakref.finalize(self, lambda opened: [os.close(fd) for fd in opened], self._descriptors)
        self._memory: list[np.ndarray] | None = None

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Open a finished corpus: milliseconds, no counts read.

        Raises
        ------
        FileNotFoundError
            If there is no corpus at `path`, or only an unfinished one.
        ValueError
            If it was written in another format version, or a file has not the size it should have.
        """
        path = Path(path)
        if not (path / "corpus.json").is_file():
            left = sorted(p.name for p in path.parent.glob(f"{path.name}.partial-*"))
            if path.is_dir():
                raise FileNotFoundError(f"{path}: an unfinished corpus (corpus.json is written last)")
            hint = f"; delete {', '.join(left)} (an interrupted build) and build again" if left else ""
            raise FileNotFoundError(f"{path}: there is no corpus here{hint}")
        info = json.loads((path / "corpus.json").read_text())
        if (info.get("format"), info.get("version")) != (FORMAT, VERSION):
            found = f"{info.get('format')!r} version {info.get('version')}"
            raise ValueError(f"{path}/corpus.json: {found}, this code reads {VERSION}: build it again")
        corpus = cls(path, info)
        for file, dtype in corpus._streams.items():
            size, expected = (path / file).stat().st_size, corpus.nnz * dtype.itemsize
            if size != expected:
                raise ValueError(f"{path / file}: {size:,} bytes instead of {expected:,}: build it again")
        return corpus

    def __len__(self) -> int:
        return self.n_samples

    def __repr__(self) -> str:
        return (
            f"Corpus({self.n_samples:,} samples x {self.n_genes:,} genes, {self.nnz:,} non-zeros, "
            f"{len(self.datasets)} datasets, fingerprint {self.fingerprint[:12]})"
        )

    def __reduce__(self):  # a copy in another process opens its own files
        return Corpus.open, (self.path,)

    @cached_property
    def genes(self) -> np.ndarray:
        """The vocabulary, shape (n_genes,)."""
        return np.array((self.path / "genes.txt").read_text().splitlines())

    @property
    def nbytes(self) -> int:
        """Bytes of the two large files."""
        return self.nnz * sum(dtype.itemsize for dtype in self._streams.values())

    def rows(self, split: str | None = None, dataset: str | None = None) -> np.ndarray:
        """Return the row numbers (int64, sorted) of a split and/or a dataset; of all rows by default."""
        keep = np.ones(self.n_samples, dtype=bool)
        names = {"split": list(SPLITS), "dataset": [d["name"] for d in self.datasets]}
        for column, wanted in (("split", split), ("dataset", dataset)):
            if wanted is not None:
                if wanted not in names[column]:
                    known = ", ".join(names[column])
                    raise ValueError(f"{self.path}: no {column} {wanted!r}; there are {known}")
                keep &= getattr(self, column) == names[column].index(wanted)
        return np.flatnonzero(keep)

    def obs(self) -> pandas.DataFrame:
        """Return the sample table: four categoricals and library_size, indexed by sample name."""
        import pandas as pd

        names = {"dataset": [d["name"] for d in self.datasets], "split": SPLITS, **self.categories}
        frame = {c: pd.Categorical.from_codes(getattr(self, c), names[c]) for c in COLUMNS if c in names}
        index = pd.Index(np.char.decode(self.name, "utf-8"), name="name")
        return pd.DataFrame({**frame, "library_size": np.array(self.library_size)}, index=index)

    def load(self) -> Corpus:
        """Hold all counts in memory from now on; every method keeps giving the same result, from there."""
        if self._memory is None:
            self._memory = [np.fromfile(self.path / file, dtype) for file, dtype in self._streams.items()]
        return self

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the sparse counts of `rows`, in the order given.

        Parameters
        ----------
        rows : array of int, shape (b,)
            Row numbers in any order; repeats are allowed.

        Returns
        -------
        indptr : ndarray, int64, shape (b + 1,)
        indices : ndarray, uint16 or uint32, shape (nnz,)
            Vocabulary ids.
        counts : ndarray, shape (nnz,)
            uint16, or uint32 if one of these rows holds a count that needs it.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.n_samples:
            raise IndexError(f"rows {rows.min()}..{rows.max()} of a corpus with {self.n_samples} samples")
        start, stop = self.indptr[rows], self.indptr[rows + 1]
        indptr = np.concatenate([[0], np.cumsum(stop - start)])
        indices, counts = (np.empty(indptr[-1], dtype) for dtype in self._streams.values())
        if self._memory is None:
            self._read_files(rows, start, indptr, (indices, counts))
        elif rows.size:
            spans = list(zip(start.tolist(), stop.tolist(), strict=True))
            for source, target in zip(self._memory, (indices, counts), strict=True):
                np.concatenate([source[a:b] for a, b in spans], out=target)
        return indptr, indices, self._with_overflow(counts, indptr, start, stop)

    def _read_files(self, rows, start, indptr, targets) -> None:
        """Fill the targets with one preadv per run of consecutive rows, each row straight to its place."""
        order = np.argsort(rows, kind="stable")
        breaks = np.flatnonzero(np.diff(rows[order]) != 1) + 1
        cuts = np.union1d(breaks, np.append(np.arange(0, len(rows), ROWS_PER_READ), len(rows))).tolist()
        for file, fd, target in zip(self._streams, self._descriptors, targets, strict=True):
            view = memoryview(target.view(np.uint8))
            places = indptr[order], indptr[order + 1], start[order]
            begin, end, offset = ((place * target.itemsize).tolist() for place in places)
            runs = [
                (a, b, offset[a], offset[b - 1] + end[b - 1] - begin[b - 1] - offset[a])
                for a, b in zip(cuts[:-1], cuts[1:], strict=True)
            ]
            if hasattr(os, "posix_fadvise"):  # the disk may fetch all runs at once, not one after the other
                for _, _, place, length in runs:
                    os.posix_fadvise(fd, place, max(length, 1), os.POSIX_FADV_WILLNEED)  # 0: all the rest
            for a, b, place, length in runs:
                buffers = [view[i:j] for i, j in zip(begin[a:b], end[a:b], strict=True)]
                if os.preadv(fd, buffers, place) != length:
                    row = rows[order[b - 1]]
                    raise OSError(f"{self.path / file}: ends before row {row}: build it again")

    def _with_overflow(self, counts, indptr, start, stop) -> np.ndarray:
        """Put the exact counts where the 16-bit file could only say "more than I can hold"."""
        if not len(self.overflow):
            return counts
        position, value = self.overflow.T
        first, last = np.searchsorted(position, start), np.searchsorted(position, stop)
        hit = np.flatnonzero(last > first)
        if hit.size:
            counts = counts.astype(np.uint32)
            for i in hit:
                found = slice(first[i], last[i])
                counts[indptr[i] + position[found] - start[i]] = value[found]
        return counts

    def csr(self, rows: np.ndarray | None = None, dtype: type = np.float32) -> scipy.sparse.csr_matrix:
        """Return the counts of `rows` (default all) as a scipy CSR matrix of shape (len(rows), n_genes)."""
        from scipy.sparse import csr_matrix

        rows = np.arange(self.n_samples) if rows is None else np.asarray(rows)
        indptr, indices, counts = self.read(rows)
        return csr_matrix((counts.astype(dtype), indices, indptr), shape=(len(rows), self.n_genes))

    def verify(self) -> None:
        """Read every file and compare it with the hash taken when the corpus was finished.

        Raises
        ------
        ValueError
            Naming the file that changed.
        """
        for file, expected in self.info["files"].items():
            if file_hash(self.path / file) != expected:
                raise ValueError(f"{self.path / file}: not the bytes that were written: build it again")
        if fingerprint(self.info) != self.fingerprint:
            raise ValueError(f"{self.path}/corpus.json: edited after it was written: build it again")


def select_common_genes(corpus: Corpus, min_measured: float = 0.3) -> np.ndarray:
    """Return the genes that at least this share of the datasets measures, in the vocabulary's order.

    A gene that few studies name (a clone, a retired symbol) is hardly trained on, and is only noise in the
    embedding of a study that measures it.
    """
    return corpus.genes[corpus.measured.mean(axis=0) >= min_measured]


def select_variable_genes(
    corpus: Corpus,
    n: int,
    *,
    split: str | None = "train",
    min_measured: float = 0.5,
    library_size: float = 1e5,
) -> np.ndarray:
    """Return the genes that vary most within datasets, averaged over the datasets.

    Within each dataset: the variance over samples of ``log1p(counts / own library * library_size)``, then
    its rank among the genes that the dataset measures, from 0 to 1. A gene's score is its mean rank: a deep
    bulk study has one voice, like a shallow single-cell one; differences between studies have none.

    Parameters
    ----------
    corpus : Corpus
    n : int
        How many genes.
    split : str or None
        The rows that count; validation samples should have no say.
    min_measured : float
        A gene must be measured by at least this share of the datasets that have such rows.
    library_size : float
        L of the normalisation.

    Returns
    -------
    ndarray of str, shape (n,)
        In the vocabulary's order.

    Raises
    ------
    ValueError
        If fewer than `n` genes are measured by enough datasets.
    """
    rank, times, n_datasets = np.zeros(corpus.n_genes), np.zeros(corpus.n_genes), 0
    for code, dataset in enumerate(corpus.datasets):
        rows = corpus.rows(split, dataset["name"])
        if len(rows) < 2:
            continue
        moments = np.zeros((2, corpus.n_genes))
        for a in range(0, len(rows), 4096):
            some = rows[a : a + 4096]
            indptr, indices, counts = corpus.read(some)
            x = np.log1p(counts * np.repeat(library_size / corpus.library_size[some], np.diff(indptr)))
            moments += [np.bincount(indices, x**power, corpus.n_genes) for power in (1, 2)]
        mean, square = moments / len(rows)
        measured = np.flatnonzero(corpus.measured[code])
        variance = (square - mean**2)[measured]
        # the many genes that never vary share the lowest rank
        rank[measured] += np.searchsorted(np.sort(variance), variance) / len(measured)
        times[measured] += 1
        n_datasets += 1
    allowed = np.flatnonzero(times >= max(1, min_measured * n_datasets))
    if len(allowed) < n:
        raise ValueError(f"only {len(allowed):,} genes are measured by enough datasets: lower min_measured")
    best = np.argsort(-rank[allowed] / times[allowed], kind="stable")[:n]
    return corpus.genes[np.sort(allowed[best])]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(info: dict[str, Any]) -> str:
    """Return one hash of all that a model can see: counts, vocabulary, masks, samples, names and rules."""
    facts = {key: info[key] for key in ("version", "files", "categories", "rules")}
    facts["datasets"] = [(d["name"], d["library_share"]) for d in info["datasets"]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
