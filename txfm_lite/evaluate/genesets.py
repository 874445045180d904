"""Half of a gene set is hidden, and a model has to find it again.

The benchmark of the Gene Set Foundation Model, with what makes its numbers comparable: *one* split of every
term for all models, and *one* list of genes among which all of them search.

1. Every term is split at random into genes that are shown and genes that are hidden, five times. Which are
   hidden follows from the names alone (:mod:`txfm_lite.evaluate.set_splits`).
2. A *predictor* is given the shown genes and scores all genes of the universe. Candidates are the library's
   genes in the universe, except those shown. Terms need five shown and five hidden ones in the universe.
3. Measures are those of :mod:`txfm_lite.evaluate.set_statistics`, the median (average precision: the mean)
   over the five splits of a term, then over terms.

A predictor is a function ``predict(visible) -> scores``, from a csr_matrix of shape (b, G) over the universe
to a float32 array of the same shape; nan says that it does not know a gene. In the common universe such a
gene comes last; the variant "own genes" leaves it out, also in counting to five.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import results
from ..genesets import GeneSets, concatenate, nearest
from . import scores, set_statistics, suite
from .set_splits import LEAST, Questions, splits

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

Predictor = Callable[["sp.csr_matrix"], np.ndarray]

BLOCK = 256  # questions at a time: 20 MB of scores for 20,000 genes
QUARTERS = ("least popular quarter", "second quarter", "third quarter", "most popular quarter")
PER_TERM = ("AUROC", "AP")  # kept for every term


def common_universe(libraries: dict[str, GeneSets], vocabulary: Sequence[str] | None = None) -> np.ndarray:
    """Return the genes in which all models search: any library's that are in the vocabulary, sorted."""
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
        As of :func:`txfm_lite.evaluate.scores.partial`, and ``low`` and ``high``, the 95 % interval over
        terms. The variant "" is the common universe; the others have names that say what they are.
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
            f"{asked.library}: no term has {LEAST} genes to show and {LEAST} to find among the "
            f"{len(universe):,} genes of the universe. Are both in symbols of the same species?"
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
    """Return a number per term, the same for near-duplicates, -1 for terms that are not asked about."""
    term, first = np.unique(questions.term, return_index=True)
    groups = np.full(len(questions.terms), -1)
    groups[term] = set_statistics.clusters((questions.visible + questions.hidden)[first])
    return groups


def leakage_parts(
    train: GeneSets,
    tests: Mapping[str, GeneSets],
    thresholds: Sequence[float],
    measure: str = "jaccard",
    seed: int = 0,
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Yield what is left when training sets that resemble a tested term are taken out, ever more strictly.

    Parameters
    ----------
    train : GeneSets
        Unfiltered.
    tests : mapping
        Library name -> its sets. A training set that resembles a term of any of them goes, so that one fit
        for each threshold serves all.
    thresholds : sequence of float
        Overlap above which a training set goes; 1 takes out copies only.
    measure : {"jaccard", "containment"}
        Of :func:`txfm_lite.genesets.nearest`.
    seed : int
        Of the control.

    Yields
    ------
    float, dict
        The threshold, and places of training sets, int (n,): under "" those that are left; under ", as many
        at random" a control, since fewer sets are a worse corpus for that reason alone. It is missing where
        none was taken out.
    """
    most, _ = nearest(train, concatenate(list(tests.values())), measure)
    order = np.random.default_rng([seed, 81]).permutation(len(train))
    for threshold in thresholds:
        kept = np.flatnonzero(most <= min(threshold, 1 - 1e-9))
        control = {", as many at random": np.sort(order[: len(kept)])} if len(kept) < len(train) else {}
        yield threshold, {"": kept} | control


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


def _answers(predict: Predictor, asked: Questions, columns: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a predictor's scores of the candidates, some questions at a time."""
    for start in range(0, len(asked), BLOCK):
        here = slice(start, start + BLOCK)
        visible = asked.visible[here]
        whole = (visible + asked.hidden[here],) if getattr(predict, "leaves_out", False) else ()
        values = np.asarray(predict(visible, *whole), dtype=np.float32)
        if values.shape != visible.shape:
            raise ValueError(
                f"the predictor returned scores of shape {values.shape} for questions of {visible.shape}"
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
        own = set_statistics.only(hidden, known)
        found["own genes"] = measured(own, candidates & known)
        few = (np.diff(own.indptr) < LEAST) | (np.diff(set_statistics.only(visible, known).indptr) < LEAST)
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
