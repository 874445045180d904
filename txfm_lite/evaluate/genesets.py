"""Hide half of a gene set: who finds it again?

The benchmark of the Gene Set Foundation Model, with what makes its numbers comparable: *one* split of every
term for all models, and *one* list of genes among which all of them search.

1. Every term is split at random into genes that are shown and genes that are hidden, five times. Which are
   hidden follows from the names alone (seed, library, term, gene, replicate), so that neither the order of a
   file nor the platform matters; :func:`write_splits` writes it down for others.
2. A *predictor* is given the shown genes and scores all genes of the universe. Candidates are the library's
   genes in the universe, except those shown. Terms need five shown and five hidden ones in the universe.
3. Measures are those of :mod:`txfm_lite.evaluate.set_statistics`, the median (average precision: the mean)
   over the five splits of a term, then over terms.

A predictor is a function ``predict(visible) -> scores``, from a csr_matrix of shape (b, G) over the universe
to a float32 array of the same shape; nan says that it does not know a gene. In the common universe such a
gene comes last; the variant "own genes" leaves it out, also in counting to five.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import results
from ..genesets import GeneSets, concatenate
from . import scores, set_statistics, suite

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

Predictor = Callable[["sp.csr_matrix"], np.ndarray]
Fit = Callable[[GeneSets, np.ndarray], Predictor]

REPLICATES = 5
SEED = 42
LEAST = 5  # genes to be shown, and genes to be found
BLOCK = 256  # questions at a time: 20 MB of scores for 20,000 genes
FORMAT = "txfm_lite splits 1"
QUARTERS = ("least popular quarter", "second quarter", "third quarter", "most popular quarter")
PER_TERM = ("AUROC", "AP")  # kept for every term


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


def splits(library: GeneSets, n: int = REPLICATES, seed: int = SEED) -> Questions:
    """Show half of each term's genes, rounded down, and hide the others, `n` times.

    A gene's place in the lottery is a 64-bit hash of seed, library, term and replicate, mixed with that of
    its symbol; the lower half is shown.

    Raises
    ------
    ValueError
        If the sets are of several libraries, or there is none.
    """
    library = _sorted_by_name(library)
    shown = np.empty((n, len(library.indices)), dtype=bool)
    gene = np.array([_hash(symbol) for symbol in library.genes], dtype=np.uint64)[library.indices]
    rows = np.repeat(np.arange(len(library)), library.sizes)
    place = np.arange(len(rows)) - library.indptr[rows]
    name = library.libraries[0]
    for k in range(n):
        key = np.array([_hash(f"{seed}\t{name}\t{term}\t{k}") for term in library.names], dtype=np.uint64)
        order = np.lexsort([_mix(gene ^ key[rows]), rows])
        shown[k, order] = place < library.sizes[rows] // 2
    return _questions(library, shown)


def time_split(old: GeneSets, new: GeneSets) -> Questions:
    """Show the genes that terms had in an old version of a library, hide those that were added since.

    Terms are matched by name; kept are those with at least five old genes and five new ones. Candidates are
    the genes of any kept term, in either version.

    Parameters
    ----------
    old, new : GeneSets
        Names written alike in both: the caller strips what only one version adds, such as a species.

    Raises
    ------
    ValueError
        If a name occurs twice in a version, or no term is kept.
    """
    import scipy.sparse as sp

    old, new = _sorted_by_name(old), _sorted_by_name(new)
    for version in (old, new):
        names, times = np.unique(version.names.astype(str), return_counts=True)
        if (times > 1).any():
            raise ValueError(
                f"{version.libraries[0]}: {names[times > 1][0]!r} occurs twice, so that old and new cannot be paired"
            )
    names, i, j = np.intersect1d(old.names.astype(str), new.names.astype(str), return_indices=True)
    genes = np.union1d(old.genes, new.genes)
    before, after = (x.over(genes).csr() for x in (old[i], new[j]))
    before.data[:], after.data[:] = 1, 1
    added = sp.csr_matrix(after - after.multiply(before))
    added.eliminate_zeros()
    keep = (np.diff(before.indptr) >= LEAST) & (np.diff(added.indptr) >= LEAST)
    if not keep.any():
        raise ValueError(
            f"{old.libraries[0]} and {new.libraries[0]}: of {len(names)} terms in both, none has {LEAST} old and "
            f"{LEAST} new genes"
        )
    before, added = before[keep], added[keep]
    there = np.asarray((before + added).sum(axis=0)).ravel() > 0
    title = f"{old.libraries[0]} to {new.libraries[0]}"
    return Questions(title, names[keep], np.arange(keep.sum()), genes, there, before, added)


def common_universe(libraries: dict[str, GeneSets], vocabulary: Sequence[str] | None = None) -> np.ndarray:
    """Return the genes in which all models search: those of any library that are in the vocabulary, sorted."""
    genes = np.unique(np.concatenate([x.genes[np.unique(x.indices)] for x in libraries.values()]))
    return genes if vocabulary is None else np.intersect1d(genes, np.asarray(vocabulary, dtype=str))


def evaluate(
    predict: Predictor,
    library: GeneSets | Questions,
    universe: Sequence[str],
    popularity: np.ndarray | None = None,
    *,
    cluster: bool = True,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Score one predictor on one library.

    Parameters
    ----------
    predict : callable
        See this module. One with an attribute ``leaves_out`` that is true reads the library itself: it is
        called with the whole sets, too, so that it can leave out the one that is asked about.
    library : GeneSets or Questions
        Sets are split by :func:`splits`.
    universe : sequence of str, length G
        The columns of what the predictor gets and returns.
    popularity : ndarray, shape (G,), optional
        In how many training sets a gene is. Adds the AUROC within quarters of popularity, and against
        candidates that are as popular (:func:`txfm_lite.evaluate.set_statistics.matched_auroc`). A quarter
        has few members of a term, often one: there the mean over terms is taken.
    cluster : bool
        Whether the bootstrap draws groups of near-duplicate terms (the default), or terms.
    seed : int
        Of the bootstrap.

    Returns
    -------
    rows : list of dict
        As of :func:`txfm_lite.evaluate.scores.partial`, with ``low`` and ``high``, the 95 % interval over terms.
        The variants: "" is the common universe.
    terms : DataFrame, shape (n, 2)
        AUROC and AP of every term of the library, over the replicates; nan for those without a score.

    Raises
    ------
    ValueError
        If no term has enough genes in the universe, or the predictor's answer has another shape, or none of
        its scores is a number.
    """
    asked = (library if isinstance(library, Questions) else splits(library)).over(universe)
    if not len(asked):
        raise ValueError(
            f"{asked.library}: no term has {LEAST} genes to show and {LEAST} to find among the {len(universe):,} genes "
            "of the universe. Are both in symbols of the same species?"
        )
    columns = np.flatnonzero(asked.candidates)
    popular = None if popularity is None else np.asarray(popularity)[columns]
    pieces, known = [], None
    for here, values in _answers(predict, asked, columns):
        if known is None:
            known = ~np.isnan(values).all(axis=0)
            if not known.any():
                raise ValueError(
                    f"{asked.library}: the predictor knows none of the candidates, all scores are nan"
                )
        visible, hidden = asked.visible[here][:, columns], asked.hidden[here][:, columns]
        pieces.append(_score_block(values, visible, hidden, known, popular))
    tables = {variant: np.concatenate([piece[variant] for piece in pieces]) for variant in pieces[0]}
    groups = near_duplicates(asked) if cluster else np.arange(len(asked.terms))
    rows = [row for variant, table in tables.items() for row in _summary(variant, table, asked, groups, seed)]
    return rows, _per_term(tables[""][:, 0], asked.term, len(asked.terms))[list(PER_TERM)]


def near_duplicates(questions: Questions) -> np.ndarray:
    """Return a number per term, the same for terms that are nearly the same set; -1 for terms not asked about."""
    term, first = np.unique(questions.term, return_index=True)
    groups = np.full(len(questions.terms), -1)
    groups[term] = set_statistics.clusters((questions.visible + questions.hidden)[first])
    return groups


def leakage_curve(
    train: GeneSets,
    tests: dict[str, GeneSets],
    fit: Fit,
    universe: Sequence[str],
    thresholds: Sequence[float] = (1.0, 0.8, 0.6, 0.4, 0.2),
    measure: str = "jaccard",
) -> pd.DataFrame:
    """Take out training sets that resemble a tested term, fit again, score again, ever more strictly.

    Parameters
    ----------
    train : GeneSets
    tests : dict
        Library name -> its sets. A training set that resembles a term of any of them goes, so that one fit
        for each threshold serves all.
    fit : callable
        ``fit(train, universe) -> predictor``.
    universe : sequence of str
    thresholds : sequence of float
        Above which overlap a training set goes; a first point has all of them, its threshold is nan.
    measure : {"jaccard", "containment"}
        Of :func:`txfm_lite.genesets.overlapping`.

    Returns
    -------
    DataFrame
        The rows of :func:`evaluate`, with ``dataset``, ``threshold``, ``measure`` (of overlap) and ``n_train``.
    """
    import pandas as pd

    from ..genesets import overlapping

    asked = {name: splits(library) for name, library in tests.items()}
    terms, found = concatenate(list(tests.values())), []
    for threshold in (float("nan"), *thresholds):
        clean = train
        if not np.isnan(threshold):
            clean = train[~overlapping(train, terms, threshold, measure)]
        predict = fit(clean, np.asarray(universe))
        facts = {"threshold": threshold, "measure": measure, "n_train": len(clean)}
        for name, questions in asked.items():
            rows, _ = evaluate(predict, questions, universe)
            found += [{"dataset": name, **row, **facts} for row in rows]
    return pd.DataFrame(found)


def store(
    model: str,
    seed: int,
    questions: Questions,
    rows: Sequence[dict[str, Any]],
    terms: pd.DataFrame,
    folder: Path | None = None,
    **facts: Any,
) -> Path:
    """Store what :func:`evaluate` returned, as ``genesets/<library>/<model>-seed<k>.json``.

    Parameters
    ----------
    model : str
    seed : int
        Of the model.
    questions : Questions
        As :func:`splits` made them, before :meth:`Questions.over`.
    rows, terms
        Of :func:`evaluate`; the values per term are kept in ten-thousandths.
    folder : path, optional
        Of the results; by default the repository's.
    **facts
        For the provenance.
    """
    name = questions.library
    known = {"dataset": name, "model": model, "seed": seed}
    rows = [{**scores.complete([row], **known)[0], "low": row["low"], "high": row["high"]} for row in rows]
    kept = {
        column: " ".join("-" if np.isnan(v) else str(round(v * 1e4)) for v in terms[column])
        for column in terms
    }
    facts = results.provenance(splits=questions.fingerprint, **facts)
    return results.write(suite.path("genesets", name, model, seed), rows, facts, folder, {"terms": kept})


def per_term(library: str, measure: str = "AUROC", folder: Path | None = None) -> pd.DataFrame:
    """Return the stored values of every term, one column per model, the mean over its seeds.

    Parameters
    ----------
    library : str
    measure : {"AUROC", "AP"}
    folder : path, optional

    Returns
    -------
    DataFrame, shape (n, models)
        Terms in the order of :attr:`Questions.terms`; for :func:`txfm_lite.evaluate.set_statistics.compare`.

    Raises
    ------
    FileNotFoundError
        If nothing is stored for the library.
    ValueError
        If models were scored on different splits.
    """
    import json

    import pandas as pd

    where = (folder or results.directory()) / "genesets" / library
    files = sorted(where.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{where}: no stored results; benchmarks/gene_sets.py makes them")
    found: dict[str, list[np.ndarray]] = {}
    made: dict[str, str] = {}
    for file in files:
        content = json.loads(file.read_text())
        text = content["terms"][measure].split()
        values = np.array([np.nan if v == "-" else int(v) / 1e4 for v in text])
        found.setdefault(content["rows"][0]["model"], []).append(values)
        made[content["provenance"]["splits"]] = file.name
    if len(made) > 1:
        raise ValueError(
            f"{where}: {' and '.join(made.values())} were scored on different splits; run one of them again"
        )
    return pd.DataFrame({model: np.mean(values, axis=0) for model, values in found.items()})


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
    """Make questions from a sorted library and what each replicate shows of it, bool (replicates, members)."""
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
                f"{label}: the file is about {fields[0]!r} with {fields[1]} genes (hash {fields[2]}), the library "
                f"has {expected[0]!r} with {expected[1]} genes ({expected[2]}): another version of it?"
            )
        shown.append(replicates.split("\t"))
    bits = ["".join(term) for term in zip(*shown, strict=True)]
    return _questions(library, np.array([np.frombuffer(b.encode(), np.uint8) == ord("1") for b in bits]))


def _answers(predict: Predictor, asked: Questions, columns: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a predictor's scores of the candidates, some questions at a time."""
    for start in range(0, len(asked), BLOCK):
        here = slice(start, start + BLOCK)
        visible = asked.visible[here]
        whole = (visible + asked.hidden[here],) if getattr(predict, "leaves_out", False) else ()
        values = np.asarray(predict(visible, *whole), dtype=np.float32)
        if values.shape != visible.shape:
            raise ValueError(
                f"the predictor returned scores of shape {values.shape} for questions of shape {visible.shape}"
            )
        yield here, values[:, columns]


def _score_block(
    values: np.ndarray,
    visible: sp.csr_matrix,
    hidden: sp.csr_matrix,
    known: np.ndarray,
    popularity: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Return for each variant value, null and ceiling of its measures, arrays (b, 3, measures)."""
    candidates = visible.toarray() == 0
    filled = np.where(np.isnan(values), np.float32(-np.inf), values)

    def measured(hidden, candidates):
        null, ceiling = set_statistics.nulls_and_ceilings(np.diff(hidden.indptr), candidates.sum(axis=1))
        return np.stack([set_statistics.rank_measures(filled, hidden, candidates), null, ceiling], axis=1)

    def auroc(values):
        return np.stack([values, np.where(np.isnan(values), np.nan, 0.5), np.ones(len(values))], axis=1)[
            :, :, None
        ]

    found = {"": measured(hidden, candidates)}
    if not known.all():
        own = _only(hidden, known)
        found["own genes"] = measured(own, candidates & known)
        few = (np.diff(own.indptr) < LEAST) | (np.diff(_only(visible, known).indptr) < LEAST)
        found["own genes"][few] = np.nan
    if popularity is not None:
        place = np.argsort(np.argsort(popularity, kind="stable"), kind="stable")
        for i, name in enumerate(QUARTERS):
            inside = place * len(QUARTERS) // len(place) == i
            some = set_statistics.rank_measures(filled[:, inside], hidden[:, inside], candidates[:, inside])
            found[name] = auroc(some[:, 0])
        found["matched popularity"] = auroc(
            set_statistics.matched_auroc(filled, hidden, candidates, popularity)
        )
    return found


def _only(matrix: sp.csr_matrix, columns: np.ndarray) -> sp.csr_matrix:
    """Return the entries in some columns, bool (G,); the shape stays."""
    import scipy.sparse as sp

    keep = columns[matrix.indices]
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[keep]
    return sp.csr_matrix((matrix.data[keep], (rows, matrix.indices[keep])), matrix.shape)


def _per_term(values: np.ndarray, term: np.ndarray, n_terms: int) -> pd.DataFrame:
    """Return the median over replicates of each measure per term, of average precision the mean."""
    import pandas as pd

    names = set_statistics.MEASURES[: values.shape[1]]
    grouped = pd.DataFrame(values, columns=names).groupby(term)
    found = grouped.median()
    if "AP" in found:
        found["AP"] = grouped["AP"].mean()
    return found.reindex(range(n_terms))


def _summary(
    variant: str, table: np.ndarray, asked: Questions, groups: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """Return the rows of one variant: over replicates, then over terms."""
    value, null, ceiling = (_per_term(table[:, i], asked.term, len(asked.terms)) for i in range(3))
    rows = []
    for measure in value:
        there = value[measure].notna().to_numpy()
        if not there.any():
            continue
        mean = measure == "AP" or variant in QUARTERS
        middle = np.mean if mean else np.median
        values = value[measure].to_numpy()[there]
        low, high = set_statistics.interval(values, groups[there], mean=mean, seed=seed)
        row = scores.partial(
            measure, middle(values), variant=variant, null=middle(null[measure][there]),
            ceiling=middle(ceiling[measure][there]), n=int(there.sum()),
        )  # fmt: skip
        rows.append({**row, "low": low, "high": high})
    return rows
