"""Sets of genes: what a paper's table, a pathway or a list of differential genes has in common.

A *library* is a collection of named sets. Whatever file it comes from, it is held in one form,
:class:`GeneSets`: all sets as rows of one sparse matrix over one list of genes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp


@dataclass(frozen=True)
class GeneSets:
    """Named sets over one list of genes, in the layout of a CSR matrix.

    Attributes
    ----------
    names : ndarray of str, shape (n,)
        One per set; need not be unique.
    libraries : ndarray of str, shape (n,)
        The library that each set comes from.
    genes : ndarray of str, shape (G,)
        Unique.
    indptr : ndarray of int64, shape (n + 1,)
    indices : ndarray of int32, shape (indptr[-1],)
        Positions in `genes`, ascending and unique within a set.
    weights : ndarray of float32, shape (indptr[-1],), optional
        Signed or unsigned, one per membership, for signatures; without them all members count 1.
    """

    names: np.ndarray
    libraries: np.ndarray
    genes: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray | None = None

    @classmethod
    def from_lists(
        cls, sets: Iterable[Sequence[str]], names: Iterable[str] | None = None, library: str = "own"
    ) -> GeneSets:
        """Build from lists of symbols; a symbol that occurs twice in a list counts once."""
        lists = [list(dict.fromkeys(genes)) for genes in sets]
        names = [f"set {i + 1}" for i in range(len(lists))] if names is None else list(names)
        genes, codes = np.unique(
            np.array([g for genes in lists for g in genes], dtype=str), return_inverse=True
        )
        indptr = np.concatenate([[0], np.cumsum([len(genes) for genes in lists], dtype=np.int64)])
        rows = np.repeat(np.arange(len(lists)), np.diff(indptr))
        order = np.lexsort([codes, rows])
        libraries = np.full(len(lists), library, dtype=object)
        return cls(np.array(names, dtype=object), libraries, genes, indptr, codes[order].astype(np.int32))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: np.ndarray | slice) -> GeneSets:
        """Return some sets, by a mask, positions or a slice; the genes stay all."""
        rows = np.arange(len(self))[which]
        lengths = self.sizes[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        take = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        weights = None if self.weights is None else self.weights[take]
        return replace(
            self, names=self.names[rows], libraries=self.libraries[rows], indptr=indptr,
            indices=self.indices[take], weights=weights,
        )  # fmt: skip

    @property
    def sizes(self) -> np.ndarray:
        """Number of genes in each set, shape (n,)."""
        return np.diff(self.indptr)

    def members(self, i: int) -> np.ndarray:
        """Return the symbols of set `i`."""
        return self.genes[self.indices[self.indptr[i] : self.indptr[i + 1]]]

    def csr(self) -> sp.csr_matrix:
        """Return the sets as a matrix of float32, shape (n, G): ones, or the weights."""
        import scipy.sparse as sp

        data = np.ones(len(self.indices), np.float32) if self.weights is None else self.weights
        return sp.csr_matrix((data, self.indices, self.indptr), (len(self), len(self.genes)))

    def over(self, genes: Sequence[str]) -> GeneSets:
        """Return the same sets over another list of genes; genes that it lacks leave the sets."""
        place = {gene: i for i, gene in enumerate(genes)}
        new = np.array([place.get(gene, -1) for gene in self.genes], dtype=np.int32)[self.indices]
        kept, rows = new >= 0, np.repeat(np.arange(len(self)), self.sizes)
        order = np.lexsort([new[kept], rows[kept]])
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(self)))])
        weights = None if self.weights is None else self.weights[kept][order]
        return replace(
            self, genes=np.asarray(genes, dtype=str), indptr=indptr.astype(np.int64),
            indices=new[kept][order], weights=weights,
        )  # fmt: skip


def concatenate(libraries: Sequence[GeneSets]) -> GeneSets:
    """Return the sets of several libraries over the union of their genes, in order of the alphabet."""
    genes = np.unique(np.concatenate([x.genes for x in libraries]))
    same = [x.over(genes) for x in libraries]
    steps = np.cumsum([0, *(x.indptr[-1] for x in same)])
    weighted = any(x.weights is not None for x in same)
    return GeneSets(
        np.concatenate([x.names for x in same]),
        np.concatenate([x.libraries for x in same]),
        genes,
        np.concatenate([[0], *(x.indptr[1:] + step for x, step in zip(same, steps, strict=False))]),
        np.concatenate([x.indices for x in same]),
        np.concatenate([x.csr().data for x in same]) if weighted else None,
    )
