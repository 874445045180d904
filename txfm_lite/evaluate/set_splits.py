"""Which genes of a set are shown and which are hidden: one division for all models, and for everyone.

A split drawn from a random generator depends on the order of terms and genes in a file, and on whoever
draws. Here a gene's lot is a hash of names: seed, library, term, replicate, gene. It is the same in any order
of the file, on any platform, and stays when other terms are left out. :func:`write_splits` writes all lots
down, for those who would rather read than compute.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..genesets import GeneSets

if TYPE_CHECKING:
    import scipy.sparse as sp

REPLICATES = 5
SEED = 42
LEAST = 5  # genes to be shown, and genes to be found
FORMAT = "txfm_lite splits 1"


@dataclass(frozen=True)
class Questions:
    """Genes shown and genes hidden: what predictors are asked.

    Attributes
    ----------
    library : str
    terms : ndarray of str, shape (n,)
        All terms of the library, in order of their names.
    term : ndarray of int, shape (m,)
        Which term a question is about; its replicates follow one another.
    genes : ndarray of str, shape (G,)
    candidates : ndarray of bool, shape (G,)
        Genes among which the hidden ones are sought.
    visible, hidden : csr_matrix of float32, shape (m, G)
        Ones.
    """

    library: str
    terms: np.ndarray
    term: np.ndarray
    genes: np.ndarray
    candidates: np.ndarray
    visible: sp.csr_matrix
    hidden: sp.csr_matrix

    def __len__(self) -> int:
        return len(self.term)

    @property
    def fingerprint(self) -> str:
        """A short text that changes with any term, gene or split."""
        digest = hashlib.sha256(self.library.encode())
        for line in _lines(self):
            digest.update(line.encode())
        return digest.hexdigest()[:12]

    def over(self, universe: Sequence[str]) -> Questions:
        """Return the questions in another list of genes, without those that have too few genes in it."""
        import scipy.sparse as sp

        place = {gene: i for i, gene in enumerate(universe)}
        column = np.array([place.get(gene, -1) for gene in self.genes])
        here = np.flatnonzero(column >= 0)
        move = sp.csr_matrix(
            (np.ones(len(here), np.float32), (here, column[here])), (len(column), len(universe))
        )
        visible, hidden = (sp.csr_matrix(x @ move) for x in (self.visible, self.hidden))
        for matrix in (visible, hidden):
            matrix.sort_indices()
        candidates = np.zeros(len(universe), dtype=bool)
        candidates[column[here]] = self.candidates[here]
        keep = np.flatnonzero((np.diff(visible.indptr) >= LEAST) & (np.diff(hidden.indptr) >= LEAST))
        return replace(
            self, term=self.term[keep], genes=np.asarray(universe, dtype=str), candidates=candidates,
            visible=visible[keep], hidden=hidden[keep],
        )  # fmt: skip


def lots(sets: GeneSets, n: int = REPLICATES, seed: int = SEED, n_shown: int | None = None) -> np.ndarray:
    """Return which members are shown, bool (n, memberships), `n` times: `n_shown` of each set.

    By default half of its genes, rounded down.

    A gene's place in the lottery is a 64-bit hash of seed, library, set and replicate, mixed with that of its
    symbol; the lower half is shown. Columns are in the order of ``sets.indices``.
    """
    shown = np.empty((n, len(sets.indices)), dtype=bool)
    gene = np.array([_hash(str(symbol)) for symbol in sets.genes], dtype=np.uint64)[sets.indices]
    rows = np.repeat(np.arange(len(sets)), sets.sizes)
    place = np.arange(len(rows)) - sets.indptr[rows]
    limit = np.broadcast_to(sets.sizes // 2 if n_shown is None else n_shown, len(sets))[rows]
    names = list(zip(sets.libraries, sets.names, strict=True))
    for k in range(n):
        key = np.array([_hash(f"{seed}\t{of}\t{name}\t{k}") for of, name in names], dtype=np.uint64)
        order = np.lexsort([_mix(gene ^ key[rows]), rows])
        shown[k, order] = place < limit
    return shown


def splits(library: GeneSets, n: int = REPLICATES, seed: int = SEED) -> Questions:
    """Show half of each term's genes, rounded down, and hide the others, `n` times: see :func:`lots`.

    Raises
    ------
    ValueError
        If the sets are of several libraries, or there is none.
    """
    library = _sorted_by_name(library)
    return _questions(library, lots(library, n, seed))


def time_split(old: GeneSets, new: GeneSets) -> Questions:
    """Show the genes that terms had in an old version of a library, hide those that were added since.

    Kept are terms with at least five old genes and five new ones. Candidates are the genes of any kept term,
    in either version. There is one question per term.

    Parameters
    ----------
    old, new : GeneSets
        Term by term the two versions, in the same order: a pair of :func:`txfm_lite.genesets.time_splits`, or
        what :func:`txfm_lite.genesets.matched` returns. Terms are called as in the new one.

    Raises
    ------
    ValueError
        If the versions have different numbers of terms, or no term is kept.
    """
    import scipy.sparse as sp

    if len(old) != len(new):
        raise ValueError(f"{len(old)} old terms and {len(new)} new ones: pair them with genesets.matched")
    order = np.argsort(new.names.astype(str), kind="stable")
    genes = np.union1d(old.genes, new.genes)
    before, after = ((x[order].over(genes).csr() > 0).astype(np.float32) for x in (old, new))
    added = sp.csr_matrix(after - after.multiply(before))
    added.eliminate_zeros()
    keep = (np.diff(before.indptr) >= LEAST) & (np.diff(added.indptr) >= LEAST)
    title = f"{old.libraries[0]} to {new.libraries[0]}" if len(old) else "no terms"
    if not keep.any():
        raise ValueError(f"{title}: of {len(old)} terms, none has {LEAST} old and {LEAST} new genes")
    before, added = before[keep], added[keep]
    there = np.asarray((before + added).sum(axis=0)).ravel() > 0
    names = new.names[order][keep].astype(str)
    return Questions(title, names, np.arange(len(names)), genes, there, before, added)


def write_splits(path: str | Path, questions: Sequence[Questions]) -> str:
    """Write the splits of some libraries into one file, and return its fingerprint.

    Gzipped text, tab separated. The first line: format and fingerprint (SHA-256 of all lines that follow).
    Each other line is a term: library, name, number of genes, the first 12 digits of the SHA-256 of its
    symbols (sorted, joined by spaces), then one field per replicate: a 1 for each shown gene and a 0 for each
    hidden one, in the order of the sorted symbols. The symbols themselves are left out: not every library
    may be passed on.
    """
    path = Path(path)
    body = "".join(f"{x.library}\t{line}\n" for x in questions for line in _lines(x))
    digest = hashlib.sha256(body.encode()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    aside.write_bytes(gzip.compress(f"{FORMAT}\t{digest}\n{body}".encode(), mtime=0))
    aside.replace(path)
    return digest


def read_splits(path: str | Path, libraries: dict[str, GeneSets]) -> dict[str, Questions]:
    """Read a file of splits, for libraries that are at hand.

    Returns
    -------
    dict
        Library name -> questions, those that :func:`splits` made when the file was written.

    Raises
    ------
    ValueError
        If the file is no file of splits or was changed, or a library is not the one that was split.
    """
    head, _, body = gzip.decompress(Path(path).read_bytes()).decode().partition("\n")
    kind, _, digest = head.partition("\t")
    if kind != FORMAT:
        raise ValueError(f"{path}: the first line is {head[:40]!r}, not {FORMAT!r}: no file of splits")
    if hashlib.sha256(body.encode()).hexdigest() != digest:
        raise ValueError(
            f"{path}: its content does not have the fingerprint of its first line: fetch it again"
        )
    lines: dict[str, list[str]] = {}
    for line in body.splitlines():
        name, _, rest = line.partition("\t")
        lines.setdefault(name, []).append(rest)
    found = {}
    for name, library in libraries.items():
        if name not in lines:
            raise ValueError(f"{path}: has no library {name!r}, but {', '.join(lines)}")
        found[name] = _from_lines(_sorted_by_name(library), lines[name], f"{path}, {name}")
    return found


def _sorted_by_name(library: GeneSets) -> GeneSets:
    """Return the terms of one library in an order that does not depend on its file, its genes sorted."""
    names = np.unique(library.libraries.astype(str))
    if len(names) != 1:
        raise ValueError(f"sets of {len(names)} libraries ({', '.join(names[:3])}): give those of one")
    library = library.over(np.sort(library.genes))
    keys = [(str(name), tuple(library.members(i))) for i, name in enumerate(library.names)]
    return library[np.array(sorted(range(len(keys)), key=keys.__getitem__))]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(x: np.ndarray) -> np.ndarray:
    """Scramble 64-bit numbers one to one: the last steps of the generator SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _questions(library: GeneSets, shown: np.ndarray) -> Questions:
    """Make questions from a sorted library and what each replicate shows, bool (replicates, members)."""
    import scipy.sparse as sp

    n, replicates = len(library), len(shown)
    row = np.repeat(np.arange(n), library.sizes) * replicates
    rows = np.concatenate([row + k for k in range(replicates)])
    genes, shown = np.tile(library.indices, replicates), shown.ravel()
    shape = (n * replicates, len(library.genes))
    visible, hidden = (
        sp.csr_matrix((np.ones(which.sum(), np.float32), (rows[which], genes[which])), shape)
        for which in (shown, ~shown)
    )
    there = np.zeros(len(library.genes), dtype=bool)
    there[library.indices] = True
    return Questions(
        str(library.libraries[0]), library.names.astype(str), np.repeat(np.arange(n), replicates),
        library.genes, there, visible, hidden,
    )  # fmt: skip


def _lines(questions: Questions) -> Iterator[str]:
    """Yield a line for each term: name, number and hash of its genes, the shown ones of each replicate."""
    both = (questions.visible + 2 * questions.hidden).tocsr()  # 1: shown, 2: hidden
    both.sort_indices()
    bits = (np.where(both.data == 1, ord("1"), ord("0"))).astype(np.uint8)
    starts = np.flatnonzero(np.append(True, questions.term[1:] != questions.term[:-1]))
    for start, stop in zip(starts, [*starts[1:], len(questions)], strict=True):
        genes = questions.genes[both.indices[both.indptr[start] : both.indptr[start + 1]]]
        ends = zip(both.indptr[start:stop], both.indptr[start + 1 : stop + 1], strict=True)
        shown = [bits[a:b].tobytes().decode() for a, b in ends]
        yield "\t".join([*_term_fields(questions.terms[questions.term[start]], genes), *shown])


def _term_fields(name: str, genes: np.ndarray) -> list[str]:
    return [str(name), str(len(genes)), hashlib.sha256(" ".join(genes).encode()).hexdigest()[:12]]


def _from_lines(library: GeneSets, lines: Sequence[str], label: str) -> Questions:
    """Read what :func:`_lines` wrote, and check that it was about this library."""
    if len(lines) != len(library):
        raise ValueError(f"{label}: {len(lines):,} terms in the file, {len(library):,} in the library")
    shown = []
    for i, line in enumerate(lines):
        *fields, replicates = line.split("\t", 3)
        expected = _term_fields(library.names[i], library.members(i))
        if fields != expected:
            raise ValueError(
                f"{label}: the file is about {fields[0]!r} with {fields[1]} genes (hash {fields[2]}), the "
                f"library has {expected[0]!r} with {expected[1]} genes ({expected[2]}): another version?"
            )
        shown.append(replicates.split("\t"))
    bits = ["".join(term) for term in zip(*shown, strict=True)]
    return _questions(library, np.array([np.frombuffer(b.encode(), np.uint8) == ord("1") for b in bits]))
