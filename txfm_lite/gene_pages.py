"""What a set model says about every gene: the terms of each library that the gene should belong to.

A *completer* takes sets of genes and gives every gene a logit, its log odds to be one more member (see
`txfm_lite.completion`). Each term of a library is completed once; read across all terms, the logits of one
gene are a page about it. Five quantities are kept, and each answers another question:

- **new terms**: the gene is no member, the whole term was the input. Kept where the logit is above 0 or
  `z`, the logit standardised over all genes for this term, is above 1.645 (one-sided 5 %).
- **known terms**: the gene is a member. A model gives back what it was given, so members are hidden from the
  input: one at a time in terms of at most `PASSES` genes, a twentieth at a time in larger ones. All known
  terms count, whatever the score: a low one says that the rest of the term does not look like this gene.
- **AUROC** of a term: how well its other half is found from one half, the median of five splits. Candidates
  are the genes of the library that were not given.
- **probability**: the share of true members among the hidden halves and all other genes of the library that
  have such a logit, by a logistic curve per library. Half of a term was missing there: an upper bound for a
  term that is complete.
- **uniqueness** of a term: of the genes that it is predicted for, the share that has it among their ten best.
  Near 0, it is predicted for everybody.

:func:`build` does this for several libraries and writes files that a browser can read without a server
(see `txfm_lite.gene_shards`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .evaluate.set_splits import LEAST, REPLICATES
from .genesets import GeneSets

if TYPE_CHECKING:
    import pandas as pd

    from .genes import Resolver

FEWEST = 5  # genes of a term that the model must know
THRESHOLD = 1.645  # z beyond which a term is kept although its logit is not positive
PASSES = 20  # inputs, at most, among which the members of one term are hidden
UNIQUE = 10  # a term is unique to the genes that have it among so many best
BLOCK = 512  # sets completed at a time: 40 MB of logits for 20,000 genes

Completer = Callable[[GeneSets], np.ndarray]  # n sets over G genes -> logits (n, G), higher: rather a member


@dataclass(frozen=True)
class Predictions:
    """What one library says about all genes.

    Attributes
    ----------
    terms : DataFrame, shape (n, 5)
        One row per term, indexed by name: `size` (genes that the model knows), `auroc` (nan below ten genes),
        `uniqueness`, `predicted` (genes that pass the thresholds, members among them).
    rows : DataFrame
        The best rows of every gene: `gene` and `term` (places), `known`, `logit`, `z`, `rank` among the genes
        that were not given to the model (1: the highest). Sorted by gene, then by logit, falling.
    totals : ndarray of int, shape (G, 2)
        Known and new terms of each gene before only the best were kept.
    curve : tuple of float
        Slope and intercept that turn a logit into calibrated log odds; (1, 0), which leaves the model's own,
        without a term of ten genes, or without genes beside those of a single term.
    """

    terms: pd.DataFrame
    rows: pd.DataFrame
    totals: np.ndarray
    curve: tuple[float, float]


def predict(
    complete: Completer, library: GeneSets, *, known: int = 10, new: int = 15, seed: int = 42
) -> Predictions:
    """Complete all terms of a library and keep the best ones of every gene.

    Parameters
    ----------
    complete : callable
        Gets sets over ``library.genes``, some at a time.
    library : GeneSets
        Over the model's genes (see :meth:`GeneSets.over`). Terms of fewer than five genes are left out.
    known, new : int
        Rows kept per gene.
    seed : int
        Of the half splits and of the groups of genes that are hidden together.

    Returns
    -------
    Predictions
    """
    import pandas as pd

    library = library[library.sizes >= FEWEST]
    if not len(library):
        raise ValueError(f"no term has {FEWEST} genes that the model knows: are these the same symbols?")
    best, predicted, unique, totals = _new(complete, library, new)
    held = _known(complete, library, np.random.default_rng(seed))
    totals = np.column_stack([np.bincount(library.indices, minlength=len(library.genes)), totals])
    rows = pd.concat([_first(held, known), best]).sort_values(["gene", "logit", "z"], ascending=[1, 0, 0])
    aurocs, curve = _halves(complete, library, seed)
    terms = pd.DataFrame(
        {
            "size": library.sizes,
            "auroc": aurocs,
            "uniqueness": unique / np.maximum(predicted, 1),
            "predicted": predicted,
        },
        index=pd.Index(library.names, name="term"),
    )
    return Predictions(terms, rows.reset_index(drop=True), totals, curve)


def build(
    complete: Completer,
    genes: Sequence[str],
    libraries: Mapping[str, GeneSets],
    folder: str | Path,
    *,
    gene_vectors: Mapping[str, pd.DataFrame] | None = None,
    resolver: Resolver | None = None,
    sources: Mapping[str, Mapping[str, str]] | None = None,
    known: int = 10,
    new: int = 15,
    near: int = 15,
    seed: int = 42,
    **facts: Any,
) -> dict[str, Any]:
    """Make the pages of all genes and write them as files for a browser.

    Parameters
    ----------
    complete : callable
        ``functools.partial(completion.complete, model)``, or anything that gives logits over `genes`.
    genes : sequence of str
        The model's genes, without special tokens.
    libraries : mapping
        Title -> library, over any genes.
    folder : path
        Replaced when the new files are whole.
    gene_vectors : mapping, optional
        Title -> one row per gene, indexed by symbol, for lists of neighbours by cosine.
    resolver : Resolver, optional
        Knows aliases, full names, Entrez and Ensembl ids.
    sources : mapping, optional
        Title of a library -> `licence`, `link` (address of a term: ``{id}`` stands for what
        the regular expression `id` finds in its name, ``{term}`` for the name).
    known, new, near : int
        Rows per gene and library, and neighbours per table of vectors.
    seed : int
    **facts
        Kept in the manifest: model, fingerprint, ...

    Returns
    -------
    dict
        The manifest.
    """
    from . import gene_shards

    genes = np.asarray(genes, dtype=str)
    found = {
        title: predict(complete, library.over(genes), known=known, new=new, seed=seed)
        for title, library in libraries.items()
    }
    close = {title: neighbours(frame, genes, near) for title, frame in (gene_vectors or {}).items()}
    return gene_shards.write(
        folder, genes, found, close, resolver=resolver, sources=sources or {}, seed=seed, **facts
    )


def neighbours(
    vectors: pd.DataFrame, genes: Sequence[str], n: int = 15
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each gene's nearest genes by cosine.

    Parameters
    ----------
    vectors : DataFrame, shape (V, d)
        Indexed by symbol.
    genes : sequence of str
        Those to look for; one without a vector gets no entry.
    n : int

    Returns
    -------
    dict
        Gene -> names and cosines of its neighbours, the nearest first, shape (n,) each.
    """
    names = vectors.index.to_numpy()
    units = vectors.to_numpy(np.float32)
    length = np.linalg.norm(units, axis=1, keepdims=True)
    units = units / np.where(length > 0, length, 1)
    place = vectors.index.get_indexer(genes)
    asked, n, found = place[place >= 0], min(n, len(vectors) - 1), {}
    for start in range(0, len(asked), BLOCK):
        here = asked[start : start + BLOCK]
        distance = -(units[here] @ units.T)
        distance[np.arange(len(here)), here] = np.inf
        best = np.argpartition(distance, n - 1, axis=1)[:, :n]
        order = np.argsort(np.take_along_axis(distance, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        cosine = -np.take_along_axis(distance, best, axis=1)
        found.update(zip(names[here], zip(names[best], cosine, strict=True), strict=True))
    return found


def _new(complete: Completer, library: GeneSets, n: int) -> tuple[pd.DataFrame, np.ndarray, ...]:
    """Return each gene's best terms that it is no member of, and three counts.

    Genes that a term is predicted for; genes that have it among their best; new terms per gene.
    """
    import pandas as pd

    n_terms, n_genes = len(library), len(library.genes)
    best, any_best = _Best(n_genes, n), _Best(n_genes, UNIQUE)
    mean, sd = np.empty((2, n_terms))
    predicted, totals = np.zeros(n_terms, int), np.zeros(n_genes, int)
    for here in _blocks(n_terms, f"{library.libraries[0]}: terms", BLOCK // 4):  # a dozen arrays of this size
        terms = library[here]
        logits = complete(terms)
        mean[here], sd[here], z = _standardise(logits)
        kept = (logits > 0) | (z > THRESHOLD)
        member = terms.csr().toarray() > 0
        predicted[here] = kept.sum(axis=1)
        any_best.add(np.where(kept, logits, -np.inf), here.start)
        kept &= ~member
        totals += kept.sum(axis=0)
        rank = _ranks(np.where(member, np.inf, logits)) - terms.sizes[:, None]
        best.add(np.where(kept, logits, -np.inf), here.start, rank)
    gene, term, logit, rank = best.table()
    z = (logit - mean[term]) / sd[term]
    rows = pd.DataFrame({"gene": gene, "term": term, "known": False, "logit": logit, "z": z, "rank": rank})
    return rows, predicted, np.bincount(any_best.table()[1], minlength=n_terms), totals


def _known(complete: Completer, library: GeneSets, rng: np.random.Generator) -> pd.DataFrame:
    """Score the members of every term when they are hidden from it."""
    import pandas as pd

    jobs, parts = [], []
    for term in range(len(library)):
        members = library.indices[library.indptr[term] : library.indptr[term + 1]]
        n_groups = min(len(members), PASSES)
        group = rng.permutation(len(members)) % n_groups
        jobs += [(term, members[group != k], members[group == k]) for k in range(n_groups)]
    for here in _blocks(len(jobs), f"{library.libraries[0]}: members left out"):
        terms, shown, _ = zip(*jobs[here], strict=True)
        logits = complete(library.parts(terms, shown))
        mean, sd, _ = _standardise(logits)
        for i, (term, visible, hidden) in enumerate(jobs[here]):
            scores, row = logits[i, hidden], logits[i]
            above = [(row > s).sum() - (row[visible] > s).sum() for s in scores]
            z = (scores - mean[i]) / sd[i]
            parts.append((np.full(len(hidden), term), hidden, scores, z, np.array(above) + 1))
    term, gene, logit, z, rank = map(np.concatenate, zip(*parts, strict=True))
    return pd.DataFrame({"gene": gene, "term": term, "known": True, "logit": logit, "z": z, "rank": rank})


def _first(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """Keep each gene's `n` highest rows."""
    rows = rows.sort_values(["gene", "logit", "z"], ascending=[True, False, False])
    return rows[rows.groupby("gene").cumcount() < n]


def _halves(complete: Completer, library: GeneSets, seed: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Find one half of each term from the other.

    Return per term the median AUROC, nan for terms below ten genes, and the library's curve.
    """
    from .calibration import halves, platt, sample

    universe, rng, points = np.unique(library.indices), np.random.default_rng(seed), []
    asked = np.flatnonzero(library.sizes // 2 >= LEAST)
    found = np.full((len(library), REPLICATES), np.nan)
    for here in _blocks(len(asked), f"{library.libraries[0]}: half splits", BLOCK // REPLICATES):
        questions = halves(complete, library, asked[here], REPLICATES)
        for i, (term, row, visible, hidden) in enumerate(questions):
            found[term, i % REPLICATES] = _auroc(row[universe], row[visible], row[hidden])
            points.append(sample(row, visible, hidden, universe, rng))
    x, y, weight = map(np.concatenate, zip(*points, strict=True)) if points else np.ones((3, 1))
    curve = (1.0, 0.0) if y.all() else platt(x, y, weight)  # no term to ask, or no other gene
    return np.median(found, axis=1), curve


def _auroc(candidates: np.ndarray, visible: np.ndarray, hidden: np.ndarray) -> float:
    """Return how often a hidden gene scores above a candidate that is neither hidden nor visible.

    All three are scores; the first holds the two others. Sorting once and looking up the few hidden ones
    takes a tenth of the time of ranking; ties count one half.
    """

    def below(values: np.ndarray) -> float:
        values = np.sort(values)
        return (np.searchsorted(values, hidden) + np.searchsorted(values, hidden, "right")).sum() / 2

    others = len(candidates) - len(visible) - len(hidden)
    return (below(candidates) - below(visible) - below(hidden)) / (len(hidden) * others) if others else np.nan


class _Best:
    """The `n` highest values of every column of a matrix that comes some rows at a time."""

    def __init__(self, columns: int, n: int):
        self.values = np.full((columns, n), -np.inf, np.float32)
        self.rows, self.extra = np.zeros((2, columns, n), np.int32)

    def add(self, block: np.ndarray, start: int, extra: np.ndarray | None = None) -> None:
        """Take in rows `start` and on, shape (b, columns), and a number that goes with each value."""
        shape, n = block.T.shape, self.values.shape[1]
        rows = np.broadcast_to(np.arange(start, start + len(block), dtype=np.int32), shape)
        extra = np.zeros(shape, np.int32) if extra is None else extra.T
        values = np.concatenate([self.values, block.T], axis=1)
        keep = np.argpartition(-values, n - 1, axis=1)[:, :n]
        self.values = np.take_along_axis(values, keep, axis=1)
        self.rows = np.take_along_axis(np.concatenate([self.rows, rows], axis=1), keep, axis=1)
        self.extra = np.take_along_axis(np.concatenate([self.extra, extra], axis=1), keep, axis=1)

    def table(self) -> tuple[np.ndarray, ...]:
        """Return column, row, value and extra of all finite values."""
        column, place = np.nonzero(np.isfinite(self.values))
        return column, self.rows[column, place], self.values[column, place], self.extra[column, place]


def _standardise(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each row's mean and standard deviation, and its z; a row of equal values has z = 0."""
    mean = logits.mean(axis=1)
    z = logits - mean[:, None]
    sd = np.sqrt(np.einsum("ij,ij->i", z, z) / z.shape[1])
    sd[sd == 0] = 1
    z /= sd[:, None]
    return mean, sd, z


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the place of every value in its row, 1 for the highest."""
    order = np.argsort(-values, axis=1)
    ranks = np.empty(values.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(1, values.shape[1] + 1, dtype=np.int32)[None], axis=1)
    return ranks


def _blocks(n: int, title: str, size: int | None = None) -> Iterator[slice]:
    """Yield slices that cover `n` rows and show how far they got."""
    from tqdm.auto import tqdm

    size = size or BLOCK
    with tqdm(total=n, desc=title, unit_scale=True, disable=None) as bar:
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield slice(start, stop)
            bar.update(stop - start)
