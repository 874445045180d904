"""Models that read a value beside each gene: scGPT, scBERT, scFoundation, UCE, TxFM; and counts read back.

The table in :mod:`txfm_lite.encodings` sets them beside the others and explains the common parameters. None
of these models knows positions, so that the order of a cell's tokens, highest value first, means nothing to
them. UCE does: its tokens follow the genome.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .align import Aligned
from .encodings_arrays import (
    CP10K,
    absolute_bins,
    cp,
    generators,
    log_normalise,
    quantile_bins,
    shown_genes,
    sorted_rows,
)
from .encodings_cells import Encoding, Rows, between, encode

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

CLS_VALUE = -2  # of scGPT's class token: the value that also stands for padding
LIBRARY_SIZE = 1e5  # of TxFM
SHARED = "equal counts of a cell have equal values"


def scgpt(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    *,
    n_bins: int = 51,
    longest: int = 1200,
    seed: int = 0,
    layer: str | None = None,
) -> Encoding:
    """Put each cell's counts into bins of its own quantiles (Cui et al. 2024): :func:`.quantile_bins`.

    The detected genes behind a class token. A cell with more genes than fit is shown a random draw of them;
    its bins are those of all. scGPT seeds neither draw. It does not normalise first, nor would that change a
    bin.

    Parameters
    ----------
    n_bins : int
        With bin 0 for zeros, which are not shown.
    longest : int
        Tokens of a cell, the class token among them.
    """
    aligned = Aligned(adata, genes, layer)

    def rule(counts: sp.csr_matrix, _: np.ndarray, cells: Sequence[str]) -> Rows:
        lengths = np.diff(counts.indptr)
        draws, keep = [], []
        for rng, n in zip(generators(cells, seed), lengths, strict=True):
            draws.append(rng.random(n))
            keep.append(np.ones(n, dtype=bool))
            if n >= longest:
                keep[-1][rng.choice(n, n - longest + 1, replace=False)] = False
        indptr, columns, bins = quantile_bins(counts, np.concatenate(draws), n_bins)
        kept = np.concatenate(keep)
        n_kept = np.minimum(lengths, longest - 1)
        indptr = np.append(0, np.cumsum(n_kept))
        tokens = between(indptr, columns[kept], before=[aligned.n_genes])
        return *tokens, between(indptr, bins[kept], before=[CLS_VALUE])[1], lengths - n_kept

    names = np.append(aligned.match.genes, "<cls>")
    return encode("scGPT", aligned, rule, genes=names, ties="equal values in random bins", seed=seed)


def scbert(
    adata: AnnData, genes: Sequence[str] | None = None, *, n_bins: int = 5, layer: str | None = None
) -> Encoding:
    """Put counts into bins that are the same for all cells (Yang et al. 2022): :func:`.absolute_bins`.

    All genes of the vocabulary are shown, those that are not measured as zeros, too, and a last token "<end>"
    that is always zero. CP10k below 1 is bin 0: a single count in a cell of more than 10,000 looks like none.
    scBERT's vocabulary of 16,906 symbols comes with its checkpoint; it leaves out cells with fewer than 200
    genes, and normalises to the total of its own genes. Here every cell keeps its row, and its whole total.
    """
    aligned = Aligned(adata, genes, layer)

    def rule(counts: sp.csr_matrix, library_size: np.ndarray, _: Sequence[str]) -> Rows:
        indptr, columns, bins = sorted_rows(absolute_bins(cp(counts, library_size), n_bins))
        return indptr, columns, bins.astype(np.int32), 0

    names = np.append(aligned.match.genes, "<end>")
    everywhere = np.arange(len(names), dtype=np.int32)
    return encode("scBERT", aligned, rule, genes=names, everywhere=everywhere, ties=SHARED)


def scfoundation(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    *,
    target: str = "t4",
    layer: str | None = None,
) -> Encoding:
    """Show log(1 + CP10k), and the cell's depth as tokens of their own (Hao et al. 2024).

    Behind the detected genes stand "<T>", the log10 of the depth that the model is asked to imagine, and
    "<S>", that of the cell's total. Only values above zero are encoded: of a cell with a single count, S
    drops out. :func:`.soft_bins` is how the model reads a value. scFoundation takes the total of its own
    19,264 genes; here it is that of all identified ones, as for every other model.

    Parameters
    ----------
    genes : sequence of str, optional
        By default the dataset "scfoundation_gene_index", its 19,264 genes.
    target : str
        "t4": T = 4, 10,000 counts; "f5": five times the cell's own depth; "a1": its own log10 and 1.

    Raises
    ------
    ValueError
        If `target` is none of these.
    """
    from . import datasets

    kind, number = target[:1], target[1:]
    try:
        number = math.log10(float(number)) if kind == "f" else float(number)
    except ValueError:
        number = math.nan
    if kind not in ("t", "f", "a") or not math.isfinite(number):
        raise ValueError(f"target = {target!r}: should be t, f or a with a number, such as 't4'")
    if genes is None:
        genes = datasets.read("scfoundation_gene_index")["gene_name"].tolist()
    aligned = Aligned(adata, genes, layer)

    def rule(counts: sp.csr_matrix, library_size: np.ndarray, _: Sequence[str]) -> Rows:
        s = np.log10(library_size)
        t = np.full_like(s, number) if kind == "t" else s + number
        indptr, columns, x = sorted_rows(log_normalise(counts, library_size, CP10K))
        value = between(indptr, x, after=[t, s])[1]
        indptr, tokens = between(indptr, columns, after=[aligned.n_genes, aligned.n_genes + 1])
        above = value > 0
        return np.append(0, np.cumsum(above))[indptr], tokens[above], value[above], 0

    names = np.append(aligned.match.genes, ["<T>", "<S>"])
    return encode("scFoundation", aligned, rule, genes=names, ties=SHARED)


def uce(
    adata: AnnData,
    positions: pd.DataFrame | None = None,
    *,
    n_sampled: int = 1024,
    seed: int = 0,
    layer: str | None = None,
) -> Encoding:
    """Draw genes with chances that grow with their counts, along the genome (Rosen et al. 2023).

    1,024 draws with replacement, p_g ∝ log(1 + count). Behind a class token come the chromosomes in random
    order, each between a token of its own and a common last one, and within it the drawn genes by their
    start. UCE draws without a seed.

    Parameters
    ----------
    positions : DataFrame, optional
        Indexed by gene symbol, with `chromosome` and `start`, of all genes that have a protein embedding. By
        default the protein-coding genes of the dataset "ncbi_gene_info_2016", which knows no starts: there
        genes stand in the order of their cytogenetic bands.

    Raises
    ------
    ValueError
        If `positions` lacks a column.
    """
    positions = _bands() if positions is None else positions
    if missing := {"chromosome", "start"} - set(positions.columns):
        raise ValueError(f"positions lacks {', '.join(sorted(missing))}: it has {list(positions.columns)}")
    positions = positions.assign(chromosome=positions["chromosome"].astype(str), name=positions.index)
    positions = positions.sort_values(["chromosome", "start", "name"])
    chromosomes, chromosome = np.unique(positions["chromosome"], return_inverse=True)
    aligned = Aligned(adata, positions.index.to_numpy(), layer)

    def rule(counts: sp.csr_matrix, _: np.ndarray, cells: Sequence[str]) -> Rows:
        indptr, columns, count = sorted_rows(counts)
        weight, drawn = np.log1p(count.astype(np.float64)), []
        for rng, a, b in zip(generators(cells, seed), indptr[:-1], indptr[1:], strict=True):
            gene = columns[a:b]
            if b > a:
                gene = gene[rng.choice(b - a, n_sampled, p=weight[a:b] / weight[a:b].sum())]
            turn = rng.permutation(len(chromosomes))  # when it is a chromosome's turn
            drawn.append(gene[np.lexsort((gene, turn[chromosome[gene]]))])
        lost = np.diff(indptr) - [len(np.unique(g)) for g in drawn]
        return *_along_the_genome(drawn, chromosome, aligned.n_genes), None, lost

    names = np.concatenate([aligned.match.genes, ["<cls>", "<end>"], [f"<chr {c}>" for c in chromosomes]])
    ties = "equal counts of a cell have equal chances"
    return encode("UCE", aligned, rule, genes=names, ties=ties, seed=seed)


def _along_the_genome(
    drawn: Sequence[np.ndarray], chromosome: np.ndarray, n_genes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return indptr and tokens: behind each class token the genes, a chromosome's in brackets."""
    cls, end, first = n_genes, n_genes + 1, n_genes + 2
    lengths = np.array([len(g) for g in drawn])
    gene, row = np.concatenate(drawn), np.repeat(np.arange(len(drawn)), lengths)
    place = chromosome[gene] + len(chromosome) * row
    opens = np.append(True, place[1:] != place[:-1])[: len(gene)]
    block = np.cumsum(opens)
    at = np.arange(len(gene)) + row + 2 * block  # before it: genes, class tokens, brackets
    indptr = np.append(0, np.cumsum(lengths + 1 + 2 * np.bincount(row[opens], minlength=len(drawn))))
    tokens = np.full(indptr[-1], cls, dtype=np.int32)
    tokens[at], tokens[at[opens] - 1] = gene, first + chromosome[gene[opens]]
    tokens[at[np.append(opens[1:], True)[: len(gene)]] + 1] = end
    return indptr, tokens


def _bands() -> pd.DataFrame:
    """Return chromosome and place of protein-coding genes, as far as cytogenetic bands tell."""
    from . import datasets

    table = datasets.read("ncbi_gene_info_2016")
    table = table[(table["tax_id"] == "9606") & (table["type_of_gene"] == "protein-coding")]
    symbol = table["authority_symbol"].where(table["authority_symbol"] != "-", table["symbol"])
    band = table["map_location"].str.extract(r"([pq])([\d.]*\d)")
    start = band[1].astype(float) * band[0].map({"p": -1, "q": 1})  # bands are numbered away from the middle
    chromosome = table["chromosome"].str.split("|").str[0]
    found = table.assign(chromosome=chromosome, start=start.fillna(0)).set_index(symbol)
    found = found.loc[found["chromosome"] != "-", ["chromosome", "start"]]
    return found[~found.index.duplicated()]


def txfm(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    n_genes: int | None = None,
    *,
    seed: int = 0,
    layer: str | None = None,
) -> Encoding:
    """Show log(1 + 1e5 · count / total) of measured genes, zeros included.

    In training each sample is shown another random draw of its genes. The paper does not say which are shown
    afterwards. Here it is all that the dataset measures, or one draw for all cells, as in
    :func:`txfm_lite.embed.embed`. That one also corrects the totals of panels of few genes, by what a trained
    model expects; this does not.

    Parameters
    ----------
    genes : sequence of str, optional
        A model's ``genes``.
    n_genes : int, optional
        Show so many genes, drawn without replacement.
    """
    aligned = Aligned(adata, genes, layer)
    shown = shown_genes(aligned.match.measured, n_genes, 1, seed)[0].astype(np.int32)

    def rule(counts: sp.csr_matrix, library_size: np.ndarray, _: Sequence[str]) -> Rows:
        indptr, columns, x = sorted_rows(log_normalise(counts, library_size, LIBRARY_SIZE)[:, shown])
        return indptr, shown[columns], x, np.diff(counts.indptr) - np.diff(indptr)

    drawn = None if n_genes is None else seed
    return encode("TxFM", aligned, rule, everywhere=shown, ties=SHARED, seed=drawn)


def decode(encoding: Encoding) -> sp.csr_matrix:
    """Read back from an encoding what it kept of the counts, float64, shape (n, G), special tokens left out.

    scFoundation keeps all: counts = (e^x - 1) · 10^S / 1e4. TxFM keeps shares: counts / total. scBERT keeps
    the lower edge of a bin: CP10k of at least 2^bin - 1. For sentences see :func:`.fit_sentences`; from the
    other encodings no value comes back.

    Raises
    ------
    ValueError
        If the encoding is of another model.
    """
    import scipy.sparse as sp

    value = encoding.values
    if encoding.model == "TxFM":
        value, n_special = np.expm1(value.astype(np.float64)) / LIBRARY_SIZE, 0
    elif encoding.model == "scBERT":
        value, n_special = 2.0**value - 1, 1
    elif encoding.model == "scFoundation":
        n_special, is_s = 2, encoding.tokens == len(encoding.genes) - 1
        row = np.repeat(np.arange(len(encoding)), np.diff(encoding.indptr))
        total = np.ones(len(encoding))  # where S dropped out, log10(1) = 0
        total[row[is_s]] = 10 ** value[is_s].astype(np.float64)
        value = np.expm1(value.astype(np.float64)) * total[row] / CP10K
    else:
        raise ValueError(f"{encoding.model} keeps no values that counts could be read from")
    shape = len(encoding), len(encoding.genes)
    return sp.csr_matrix((value, encoding.tokens, encoding.indptr), shape)[:, : shape[1] - n_special]
