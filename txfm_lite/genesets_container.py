"""Sets of genes in one form: named rows of a sparse matrix over one list of genes.

A *library* is a collection of named sets. Whatever file it comes from, it is held as :class:`GeneSets`, in
the layout of a CSR matrix: four bytes per membership, so that a million sets of a hundred genes are 400 MB.
Names of genes are looked at once per gene, never once per membership.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from txfm_lite.genesets_codes import Codes

if TYPE_CHECKING:
    import scipy.sparse as sp

BLOCK = 2**22  # memberships that are sorted at a time: 32 MB of keys
LETTERS = 2**20  # of names that are encoded at a time


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
    descriptions : ndarray of str, shape (n,), optional
        What a file says about each set beside its name: a description, an address, a year.
    """

    names: np.ndarray
    libraries: np.ndarray
    genes: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray | None = None
    descriptions: np.ndarray | None = None

    @classmethod
    def from_lists(
        cls,
        sets: Iterable[Sequence[str]],
        names: Iterable[str] | None = None,
        library: str = "own",
        weights: Iterable[Sequence[float]] | None = None,
    ) -> GeneSets:
        """Build from lists of symbols.

        A symbol that occurs twice in a list counts once, with the weight furthest from zero.

        Raises
        ------
        ValueError
            If there are not as many names, or weights, as sets or symbols.
        """
        lists = [list(genes) for genes in sets]
        names = [f"set {i + 1}" for i in range(len(lists))] if names is None else list(names)
        values = [None] * len(lists) if weights is None else list(weights)
        if not len(lists) == len(names) == len(values):
            raise ValueError(f"{len(lists)} sets, but {len(names)} names and {len(values)} lists of weights")
        found = Collector(library, weighted=weights is not None)
        for name, genes, value in zip(names, lists, values, strict=True):
            if value is not None and len(value) != len(genes):
                raise ValueError(f"set {name!r} has {len(genes)} genes, but {len(value)} weights")
            found.add(name, "", genes, value)
        return found.sets()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: np.ndarray | slice) -> GeneSets:
        """Return some sets, by a mask, positions or a slice; the genes stay all."""
        rows = np.arange(len(self))[which]
        lengths = self.sizes[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        if (np.diff(rows) > 0).all():  # one byte per membership, not eight
            chosen = np.zeros(len(self), bool)
            chosen[rows] = True
            take = np.repeat(chosen, self.sizes)
        else:
            take = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return replace(
            self, names=self.names[rows], libraries=self.libraries[rows], indptr=indptr,
            indices=self.indices[take], weights=None if self.weights is None else self.weights[take],
            descriptions=None if self.descriptions is None else self.descriptions[rows],
        )  # fmt: skip

    def parts(self, rows: Sequence[int], members: Sequence[np.ndarray]) -> GeneSets:
        """Return a part of each of some sets: the genes at the ascending places that `members` gives."""
        rows = np.asarray(rows, dtype=np.int64)
        indptr = np.concatenate([[0], np.cumsum([len(part) for part in members])]).astype(np.int64)
        indices = np.concatenate([np.zeros(0, np.int32), *members]).astype(np.int32)
        return replace(self[rows], indptr=indptr, indices=indices, weights=None)

    def where(self, kept: np.ndarray) -> GeneSets:
        """Return the same sets with some of their memberships, bool (len(indices),), and their weights."""
        rows = np.repeat(np.arange(len(self)), self.sizes)
        sizes = np.bincount(rows[kept], minlength=len(self))
        return replace(
            self, indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), indices=self.indices[kept],
            weights=None if self.weights is None else self.weights[kept],
        )  # fmt: skip

    @property
    def sizes(self) -> np.ndarray:
        """Number of genes in each set, shape (n,)."""
        return np.diff(self.indptr)

    @property
    def years(self) -> np.ndarray:
        """The year that each set's description is, shape (n,); 0 where it is none."""
        if self.descriptions is None:
            return np.zeros(len(self), np.int64)
        return np.array([int(x) if len(x) == 4 and x.isdecimal() else 0 for x in self.descriptions], np.int64)

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
        genes = np.asarray(genes, dtype=str)
        order = np.argsort(genes)
        place = np.searchsorted(genes[order], self.genes)
        place = order[np.minimum(place, len(genes) - 1)] if len(genes) else np.zeros(len(self.genes), int)
        known = genes[place] == self.genes if len(genes) else np.zeros(len(self.genes), bool)
        return self._moved(genes, np.where(known, place, -1).astype(np.int32))

    def renamed(self, names: Sequence[str]) -> GeneSets:
        """Return the same sets with other names of the genes, in alphabetical order.

        Parameters
        ----------
        names : sequence of str, shape (G,)
            The new name of each gene. Genes that get one name are one; those that get "" leave the sets.
        """
        unique, codes = np.unique(np.asarray(names, dtype=str), return_inverse=True)
        if len(unique) and unique[0] == "":
            unique, codes = unique[1:], codes - 1
        return self._moved(unique, codes.astype(np.int32))

    def _moved(self, genes: np.ndarray, place: np.ndarray) -> GeneSets:
        """Put each gene at a place in another list, -1 for none."""
        codes = place[self.indices] if len(place) else self.indices
        indptr, indices, weights = sorted_rows(self.indptr, codes, self.weights)
        return replace(self, genes=genes, indptr=indptr, indices=indices, weights=weights)


class Collector:
    """Takes sets one by one as lists of names, and keeps numbers.

    Parameters
    ----------
    library
        The name of the library they make.
    weighted
        Whether members have weights.
    """

    def __init__(self, library: str, weighted: bool = False) -> None:
        self.library = library
        self._codes = Codes()
        self._names, self._texts, self._sizes = [], [], array("q")
        self._waiting, self._length, self._chunks = [], 0, []
        self._weights = array("f") if weighted else None
        self._same: dict[str, str] = {}

    def add(
        self, name: str, text: str, members: Sequence[str], weights: Sequence[float] | None = None
    ) -> None:
        """Add a set; without weights, in a weighted library, its members count 1."""
        self._names.append(name)
        self._texts.append(self._same.setdefault(text, text) if len(text) <= 4 else text)  # years
        self._sizes.append(len(members))
        if members:
            joined = "\0".join([*members, ""])
            self._waiting.append(joined)
            self._length += len(joined)
        if self._weights is not None:
            self._weights.extend([1.0] * len(members) if weights is None else weights)
        if self._length > LETTERS:
            self._encode()

    def _encode(self) -> None:
        """Turn the names that wait into numbers."""
        self._chunks.append(self._codes.encode("".join(self._waiting)))
        self._waiting, self._length = [], 0

    def sets(self) -> GeneSets:
        """Return what came, with the genes in alphabetical order."""
        self._encode()
        codes = np.concatenate(self._chunks)
        self._chunks = []
        indptr = np.concatenate([[0], np.cumsum(np.frombuffer(self._sizes, np.int64))]).astype(np.int64)
        if len(codes) != indptr[-1]:
            raise ValueError(f"library {self.library!r}: a gene's name holds a zero byte")
        names = np.array(self._names, dtype=object)
        raw = GeneSets(
            names,
            np.full(len(names), self.library, dtype=object),
            np.array(self._codes.names, dtype=str),
            indptr,
            codes,
            None if self._weights is None else np.array(self._weights, np.float32),
            np.array(self._texts, dtype=object) if any(self._texts) else None,
        )
        return raw.renamed(raw.genes)


def sorted_rows(
    indptr: np.ndarray, codes: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Sort the codes of every row, drop negative and repeated ones; of several weights the largest stays.

    Parameters
    ----------
    indptr : ndarray of int64, shape (n + 1,)
    codes : ndarray of int32, shape (m,)
    weights : ndarray of float32, shape (m,), optional
        Of one code's weights in a row that of the largest absolute value counts, of equals the positive one.

    Returns
    -------
    tuple
        indptr, codes and weights of the same kinds.
    """
    n, lengths = len(indptr) - 1, np.diff(indptr)
    kept, counts = np.empty(len(codes), np.int32), np.zeros(n, np.int64)
    values = None if weights is None else np.empty(len(codes), np.float32)
    start, filled = 0, 0
    while start < n:  # some rows at a time: one sort of (row, code) as one number
        stop = max(start + 1, int(np.searchsorted(indptr, indptr[start] + BLOCK, side="right")) - 1)
        here = slice(indptr[start], indptr[stop])
        key = np.repeat(np.arange(stop - start, dtype=np.int64) << 32, lengths[start:stop]) + codes[here]
        known = codes[here] >= 0
        key = key[known]
        if weights is None:
            key.sort()
        else:
            some = weights[here][known]
            order = np.lexsort([-some, -np.abs(some), key])
            key = key[order]
        new = np.ones(len(key), bool)
        np.not_equal(key[1:], key[:-1], out=new[1:])
        key = key[new]
        to = slice(filled, filled + len(key))
        kept[to] = key & 0xFFFFFFFF
        if weights is not None:
            values[to] = some[order][new]
        counts[start:stop] = np.bincount(key >> 32, minlength=stop - start)
        start, filled = stop, filled + len(key)
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ends, kept[:filled], None if values is None else values[:filled]


def concatenate(libraries: Sequence[GeneSets]) -> GeneSets:
    """Return the sets of several libraries over the union of their genes, in order of the alphabet."""
    genes = np.unique(np.concatenate([x.genes for x in libraries]))
    same = [x.over(genes) for x in libraries]
    steps = np.cumsum([0, *(x.indptr[-1] for x in same)])
    weighted = any(x.weights is not None for x in same)
    described = any(x.descriptions is not None for x in same)
    texts = [np.full(len(x), "", object) if x.descriptions is None else x.descriptions for x in same]
    return GeneSets(
        np.concatenate([x.names for x in same]),
        np.concatenate([x.libraries for x in same]),
        genes,
        np.concatenate([[0], *(x.indptr[1:] + step for x, step in zip(same, steps, strict=False))]),
        np.concatenate([x.indices for x in same]),
        np.concatenate([x.csr().data for x in same]) if weighted else None,
        np.concatenate(texts) if described else None,
    )


def of_size(sets: GeneSets, least: int = 11, most: int = 999) -> GeneSets:
    """Return the sets with at least `least` and at most `most` genes; the defaults are GSFM's."""
    return sets[(sets.sizes >= least) & (sets.sizes <= most)]


def vocabulary(sets: GeneSets, least: int = 5) -> np.ndarray:
    """Return the genes that at least `least` sets have, shape (V,).

    The most frequent gene comes first, and of equally frequent ones the first of the alphabet, so that one
    corpus has one vocabulary, whatever the order of its sets.
    """
    count = np.bincount(sets.indices, minlength=len(sets.genes))
    order = np.lexsort([sets.genes, -count])
    return sets.genes[order[count[order] >= least]]
