"""Models that read a cell's genes in order: Geneformer, cell2sentence and its way back, GenePT.

The table in :mod:`txfm_lite.encodings` sets them beside the others and explains the common parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .align import Aligned
from .encodings_arrays import (
    CP10K,
    descending,
    generators,
    log_normalise,
    shuffle_ties,
    sorted_rows,
    weighted_mean,
)
from .encodings_cells import BY_GENE, Encoding, Rows, between, cut, encode

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

GENEPT_PREFIX = "A cell with genes ranked by expression: "
HIGHEST_RANK = 999  # a sentence's inverse is fitted to the places below: log10(1 + place) < 3


def geneformer(
    adata: AnnData,
    medians: Mapping[str, float] | str | Path | None = None,
    tokens: Mapping[str, int] | str | Path | None = None,
    *,
    version: int = 1,
    longest: int | None = None,
    layer: str | None = None,
    device: str | None = None,
) -> Encoding:
    """Order each cell's genes by count / total / the gene's median in a corpus (Theodoris et al. 2023).

    The total is the same for all genes of a cell and is left out. Equal values come in the order of their
    tokens; Geneformer's own sort leaves that to chance. It sorts in float64, this in float32: values that
    differ by less than 6e-8 of themselves count as equal.

    Parameters
    ----------
    medians, tokens : mapping or path, optional
        Ensembl id -> median of its non-zero values per 10,000 counts, and -> token; or pickles of such
        dictionaries, which are opened by an unpickler that knows numbers only. By default those of the first
        version, the dataset "geneformer_v1_dictionaries".
    version : int
        1: the genes alone, up to 2,048. 2: between <cls> and <eos>, up to 4,096 with them; needs the
        dictionaries of that version.
    longest : int, optional
        Another limit; the lowest genes are cut.
    device : str, optional
        Sort on this device, with torch.

    Raises
    ------
    ValueError
        If the dictionaries are of another version, or a median is not above zero.
    """
    median, token = dictionaries(medians, tokens)
    if version not in (1, 2):
        raise ValueError(f"version = {version}: should be 1 or 2")
    if ("<cls>" in token) != (version == 2):
        has = "has" if "<cls>" in token else "lacks"
        raise ValueError(f"version = {version}, but the token dictionary {has} <cls>: it is of another one")
    before, after = ([int(token["<cls>"])], [int(token["<eos>"])]) if version == 2 else ([], [])
    longest = (longest or {1: 2048, 2: 4096}[version]) - len(before) - len(after)
    token = token.astype(np.int32).sort_values()  # ties by column are ties by token
    known = token[token.index.isin(median.index)]
    ids, divisor = known.to_numpy(), median[known.index].to_numpy()
    if not (divisor > 0).all():
        raise ValueError(f"medians of {known.index[~(divisor > 0)][0]} and others are not above zero")
    aligned = Aligned(adata, known.index, layer)

    def rule(counts: sp.csr_matrix, *_: Any) -> Rows:
        indptr, columns = descending(counts, divisor, device=device)
        indptr, lost, columns = cut(indptr, longest, columns)
        return *between(indptr, ids[columns], before, after), None, lost

    names = np.full(token.max() + 1, "", dtype=object)
    names[token.to_numpy()] = token.index
    return encode("Geneformer", aligned, rule, genes=names.astype(str), ties="equal values by token")


def dictionaries(
    medians: Mapping[str, float] | str | Path | None = None,
    tokens: Mapping[str, int] | str | Path | None = None,
) -> tuple[pd.Series, pd.Series]:
    """Return Geneformer's medians and tokens, indexed by Ensembl id; see :func:`geneformer`."""
    import pandas as pd

    from . import datasets
    from .tables import pickled_dictionary

    found = []
    for source, part, value in ((medians, "medians", "median"), (tokens, "tokens", "token")):
        if source is None:
            frame = datasets.read("geneformer_v1_dictionaries", part)
        elif isinstance(source, str | Path):
            frame = pickled_dictionary([Path(source)], value=value)
        else:
            frame = pd.Series(source).rename_axis("key").reset_index(name=value)
        found.append(frame.set_index("key")[value])
    return tuple(found)


def cell2sentence(
    adata: AnnData,
    n_genes: int | None = None,
    *,
    genes: Sequence[str] | None = None,
    to: float = CP10K,
    seed: int | None = 0,
    layer: str | None = None,
) -> Encoding:
    """Write each cell as its genes' names, highest first (Levine et al. 2024): :meth:`.Encoding.sentences`.

    The values, log10(1 + to · count / total), are not part of the sentence; from them :func:`fit_sentences`
    learns the way back. Cell2Sentence leaves out cells with fewer than 200 genes and genes in fewer than 3
    cells. That is not done here, where every cell keeps its row.

    Parameters
    ----------
    n_genes : int, optional
        Length of a sentence: 100 in the first version; by default all detected genes, as later.
    to : float
        Library size to normalise to; it does not change the order.
    seed : int or None
        Equal values, most of a shallow cell, come in random order. None: in alphabetical order.
    """
    aligned = Aligned(adata, genes, layer)

    def rule(counts: sp.csr_matrix, library_size: np.ndarray, cells: Sequence[str]) -> Rows:
        indptr, columns, count = sorted_rows(counts)
        if seed is not None:
            count, columns = shuffle_ties(count, columns, indptr, generators(cells, seed))
        value = np.log10(1 + count * np.repeat(to / library_size, np.diff(indptr))).astype(np.float32)
        indptr, lost, columns, value = cut(indptr, n_genes, columns, value)
        return indptr, columns, value, lost

    words = np.char.upper(aligned.match.genes)
    ties = BY_GENE if seed is None else "equal values in random order"
    return encode("cell2sentence", aligned, rule, genes=words, ties=ties, seed=seed)


@dataclass(frozen=True)
class SentenceFit:
    """A line from a gene's place in a sentence to its expression: y = intercept + slope · log10(1 + r).

    Attributes
    ----------
    slope, intercept : float
        Expression y is log10(1 + CP10k), place r counts from 0.
    r2, pearson, spearman : float
        How well places tell the expression that they were made from.
    n : int
        Entries that were fitted.
    """

    slope: float
    intercept: float
    r2: float
    pearson: float
    spearman: float
    n: int

    def decode(self, sentences: Sequence[str], genes: Sequence[str]) -> sp.csr_matrix:
        """Return the expression that sentences stand for, float64, shape (sentences, G).

        A language model also writes what is no gene: it keeps its place and is left out. A gene that it
        writes several times has the mean of its places. Genes that are not in a sentence are zero. Far down
        a long sentence the line may fall below zero, and is left as it is.

        Parameters
        ----------
        sentences : sequence of str
            Words between blanks, in either case.
        genes : sequence of str, length G
        """
        import scipy.sparse as sp

        column = {str(g).upper(): i for i, g in reversed(list(enumerate(genes)))}  # the first of equal words
        data, indices, indptr = [], [], [0]
        for sentence in sentences:
            gene = np.array([column.get(word, -1) for word in sentence.upper().split()], dtype=np.int64)
            place = np.flatnonzero(gene >= 0)
            found, which, times = np.unique(gene[place], return_inverse=True, return_counts=True)
            mean = np.bincount(which, weights=place, minlength=len(found)) / times
            data.append(self.intercept + self.slope * np.log10(1 + mean))
            indices.append(found)
            indptr.append(indptr[-1] + len(found))
        entries = np.concatenate(data), np.concatenate(indices), indptr
        return sp.csr_matrix(entries, shape=(len(sentences), len(genes)))


def fit_sentences(encoding: Encoding, n_cells: int = 1024, seed: int = 0) -> SentenceFit:
    """Fit expression to place by ordinary least squares, as Cell2Sentence does, below place 999.

    Parameters
    ----------
    encoding : Encoding
        By :func:`cell2sentence`.
    n_cells : int
        A random sample of so many cells is used.
    seed : int

    Raises
    ------
    ValueError
        If the encoding is another model's, or has no two different places.
    """
    from scipy.stats import linregress, spearmanr

    if encoding.model != "cell2sentence":
        raise ValueError(f"{encoding.model} writes no sentences with values: encode with cell2sentence")
    rng, n = np.random.default_rng(seed), len(encoding)
    used = np.zeros(n, dtype=bool)
    used[rng.choice(n, min(n, n_cells), replace=False)] = True
    lengths = np.diff(encoding.indptr)
    place = np.arange(encoding.indptr[-1]) - np.repeat(encoding.indptr[:-1], lengths)
    chosen = np.repeat(used, lengths) & (place < HIGHEST_RANK)
    x, y = np.log10(1 + place[chosen]), encoding.values[chosen].astype(np.float64)
    if len(np.unique(x)) < 2:
        raise ValueError("the sentences have fewer than two places: there is no line to fit")
    line = linregress(x, y)
    r = float(line.rvalue)
    return SentenceFit(
        float(line.slope), float(line.intercept), r**2, r, float(spearmanr(x, y).statistic), len(x)
    )


def genept(
    adata: AnnData,
    vectors: pd.DataFrame | None = None,
    *,
    embed_text: Callable[[list[str]], np.ndarray] | None = None,
    n_genes: int = 1000,
    layer: str | None = None,
) -> Encoding:
    """Embed each cell by what is written about its genes (Chen and Zou 2025): ``vectors`` of the result.

    GenePT-w, given `vectors`: z = (1 / G) Σ x_g E_g with x = log(1 + CP10k) and G all genes of the dataset;
    one without a vector counts as zeros, and the length of z is left as it is. GenePT-s, given `embed_text`:
    a text model reads the genes' names, highest first, behind a line that says so.

    Parameters
    ----------
    vectors : DataFrame, shape (genes, d)
        Indexed by gene symbol. GenePT's describe genes in words; any other table serves as well.
    embed_text : callable
        Takes a list of texts, returns an array (texts, d).
    n_genes : int
        Names in a text of GenePT-s.

    Raises
    ------
    ValueError
        If not exactly one of `vectors` and `embed_text` is given, or `embed_text` does not return one row
        per text.
    """
    import scipy.sparse as sp

    if (vectors is None) == (embed_text is None):
        raise ValueError("give either vectors (GenePT-w) or embed_text (GenePT-s)")
    if embed_text is not None:
        return _genept_s(Aligned(adata, None, layer), embed_text, n_genes)
    aligned, parts = Aligned(adata, vectors.index.to_numpy(), layer), []
    table, n_all = vectors.to_numpy(np.float32), len(aligned.match.place)

    def rule(counts: sp.csr_matrix, library_size: np.ndarray, _: Sequence[str]) -> Rows:
        indptr, columns, x = sorted_rows(log_normalise(counts, library_size, CP10K))
        weights = sp.csr_matrix((x, columns, indptr), counts.shape)  # so that sums have one order, too
        parts.append(weighted_mean(weights, table, n_all))
        return indptr, columns, x, 0

    encoding = encode("GenePT-w", aligned, rule, ties="equal values weigh the same")
    return replace(encoding, vectors=np.concatenate(parts))


def _genept_s(aligned: Aligned, embed_text: Callable[[list[str]], np.ndarray], n_genes: int) -> Encoding:
    def rule(counts: sp.csr_matrix, *_: Any) -> Rows:
        indptr, columns = descending(counts)
        indptr, lost, columns = cut(indptr, n_genes, columns)
        return indptr, columns, None, lost

    encoding = encode("GenePT-s", aligned, rule, ties=BY_GENE)
    told = np.asarray(embed_text([GENEPT_PREFIX + s for s in encoding.sentences()]), dtype=np.float32)
    if told.ndim != 2 or len(told) != len(encoding):
        raise ValueError(f"embed_text returned shape {told.shape} for {len(encoding)} texts")
    return replace(encoding, vectors=told)
