"""Any AnnData's counts in a vocabulary's order: which column is which gene, and whether these are counts.

Gene names may be symbols, former symbols or Ensembl ids of any version, in ``var_names`` or in a usual column
of ``var``; the name that reaches most of the vocabulary is used, the second best where it finds nothing. A
vocabulary is a list of symbols, or of Ensembl ids; without one, the dataset's own genes are taken. The
matrix may be sparse or dense, in memory or backed by a file; it is read some rows at a time, and every piece
is checked: log-transformed, scaled or otherwise processed values are refused, with a word on where the counts
are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import genes as gene_names

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

log = logging.getLogger("txfm_lite")

#: Columns of ``var`` that may hold gene names (10x, scanpy, CELLxGENE, Seurat's converters, this package).
ID_COLUMNS = (
    *("ensembl_id", "ensembl", "ensembl_ids", "gene_ids", "gene_id", "feature_id"),
    *("gene_symbols", "gene_symbol", "symbol", "feature_name", "gene_name", "gene_names", "gene_short_name"),
)
ROWS = 1024  # read, checked and aligned at a time
LARGEST_LOG = 25  # log1p of anything countable stays below


@dataclass(frozen=True)
class GeneMatch:
    """What became of a dataset's genes.

    Attributes
    ----------
    place : ndarray of int64, shape (n_vars,)
        Each column's gene in the vocabulary; -1 if it is not there. Columns of one gene share a place.
    identified : ndarray of bool, shape (n_vars,)
        Columns whose gene is known, in the vocabulary or not: they make up the library size.
    measured : ndarray of bool, shape (G,)
        Genes of the vocabulary that the dataset lists.
    names : str
        Where the gene names were found.
    spelling : float
        Share of the identified genes that only another spelling (case, dots) led to.
    genes : ndarray of str, shape (G,)
        The vocabulary.
    versions : int
        Names that were Ensembl ids with a version, which was dropped.
    """

    place: np.ndarray
    identified: np.ndarray
    measured: np.ndarray
    names: str
    spelling: float
    genes: np.ndarray
    versions: int


def match_genes(var: pd.DataFrame, genes: Sequence[str] | None = None) -> GeneMatch:
    """Find the vocabulary's gene for each row of ``var``.

    Parameters
    ----------
    var : DataFrame
        With a column ``matched``, as :func:`txfm_lite.datasets.load` gives it, the index counts as resolved.
    genes : sequence of str, length G, optional
        Symbols, or Ensembl ids without version. By default the dataset's own genes: all columns, in
        alphabetical order of their symbols, or of their own names where no symbol is known.

    Raises
    ------
    ValueError
        If none of the names leads to a gene of the vocabulary, or it lists a gene twice.
    """
    import pandas as pd

    vocabulary, resolver = None if genes is None else pd.Index(genes), None
    if genes is not None and not vocabulary.is_unique:
        raise ValueError(f"the vocabulary lists {vocabulary[vocabulary.duplicated()][0]!r} more than once")
    ensembl = genes is not None and len(genes) and all(str(g).startswith("ENSG") for g in genes)
    by = "ensembl_id" if ensembl else "gene"
    if "matched" in var and (by == "gene" or by in var):
        names, label = (var.index, "var_names") if by == "gene" else (var[by], f"var[{by!r}]")
        known = pd.Index(names).astype(str)
        if by == "ensembl_id":
            known = known.str.replace(r"\.\d+$", "", regex=True)
        found, spelled = var["matched"].to_numpy(dtype=bool), 0
    else:
        resolver = gene_names.default_resolver()
        candidates = {"var_names": var.index, **{f"var[{c!r}]": var[c] for c in ID_COLUMNS if c in var}}
        numbered = [str(i) for i in range(len(var))]  # not Entrez ids, but nobody's names
        candidates = {k: v for k, v in candidates.items() if list(map(str, v)) != numbered}
        if not candidates:
            raise ValueError(
                "the genes are only numbered: put their symbols or Ensembl ids into adata.var_names"
            )
        hits = {k: _reach(resolver.resolve(v).frame, by, vocabulary) for k, v in candidates.items()}
        label, *others = sorted(hits, key=hits.get, reverse=True)
        second = next((k for k in others if 2 * hits[k] >= hits[label]), None)  # fewer: another kind of data
        frame = resolver.resolve(candidates[label], also=candidates.get(second)).frame
        names, known = candidates[label], pd.Index(frame[by])
        found = ~frame["how"].isin(["unmatched", "ambiguous"]).to_numpy()
        spelled = (frame["how"] == "spelling").sum()
    if vocabulary is None:
        vocabulary = pd.Index(np.unique(known.to_numpy().astype(str)))
    place = vocabulary.get_indexer(known)
    if resolver is not None or by == "ensembl_id" or genes is None:
        found = found | (place >= 0)
    if not (place >= 0).any():
        hint = "resolve the names, or put symbols or Ensembl ids into adata.var_names"
        if resolver is not None and resolver.name == "identity":
            hint = "the gene tables are out of reach, so that only identical names are found"
        raise ValueError(
            f"none of the {len(var):,} genes ({', '.join(map(str, names[:3]))}, ...) is in the vocabulary "
            f"({', '.join(map(str, vocabulary[:3]))}, ...): {hint}"
        )
    measured = np.zeros(len(vocabulary), dtype=bool)
    measured[place[place >= 0]] = True
    versions = sum(n.startswith("ENSG") and "." in n for n in map(str, names))
    spelling = float(spelled / max(found.sum(), 1))
    return GeneMatch(place, found, measured, label, spelling, vocabulary.to_numpy().astype(str), versions)


def _reach(frame: pd.DataFrame, by: str, vocabulary: pd.Index | None) -> int:
    """Count the genes of the vocabulary, or without one of the gene table, that some names lead to."""
    if vocabulary is None:
        return frame.loc[~frame["how"].isin(["unmatched", "ambiguous"]), "gene"].nunique()
    return len(np.unique(vocabulary.get_indexer(frame[by])))


class Aligned:
    """A dataset's counts over a vocabulary, some rows at a time.

    Parameters
    ----------
    adata : AnnData
        In memory, or backed by a file.
    genes : sequence of str, length G, optional
        By default the dataset's own, see :func:`match_genes`.
    layer : str, optional
        Where the counts are: a name in ``layers``, or "raw" for ``adata.raw``; by default X.

    Attributes
    ----------
    match : GeneMatch
    totals : ndarray, float64, shape (3,)
        Counts read so far: all, in identified genes, in the vocabulary.

    Raises
    ------
    ValueError
        If there is no such layer, or none of the genes is in the vocabulary.
    """

    def __init__(self, adata: AnnData, genes: Sequence[str] | None = None, layer: str | None = None):
        self.adata = adata
        if layer is None:
            self.matrix, var, self.where = _x(adata), adata.var, "X"
        elif layer in adata.layers:
            self.matrix, var, self.where = adata.layers[layer], adata.var, f"layers[{layer!r}]"
        elif layer == "raw" and adata.raw is not None:
            self.matrix, var, self.where = adata.raw.X, adata.raw.var, "raw.X"
        else:
            there = [*adata.layers, *(["raw"] if adata.raw is not None else [])]
            raise ValueError(f"there is no layer {layer!r}; there are: {', '.join(there) or 'none'}")
        if self.matrix is None or not adata.n_obs:
            raise ValueError(f"{self.where} is empty{self._elsewhere()}")
        self.match, self.totals = match_genes(var, genes), np.zeros(3)
        self.n_genes = len(self.match.genes)

    def __iter__(self) -> Iterator[tuple[slice, sp.csr_matrix, np.ndarray]]:
        """Yield rows, their counts over the vocabulary, float32 (n, G), and their library sizes, (n,).

        A gene's several columns are added up. The library size is the total over all identified genes, inside
        the vocabulary or not.

        Raises
        ------
        ValueError
            If the values are no counts, or a sample has none.
        """
        import scipy.sparse as sp

        self.totals = np.zeros(3)
        for start in range(0, self.adata.n_obs, ROWS):
            rows = slice(start, min(start + ROWS, self.adata.n_obs))
            x = sp.csr_matrix(self.matrix[rows])
            fault = not_counts(x.data)
            if fault:
                raise ValueError(f"{self.where} {fault}{self._elsewhere()}")
            x = x.astype(np.float32)  # a copy
            x.sum_duplicates()
            library_size = x @ self.match.identified.astype(np.float64)
            empty = np.flatnonzero(library_size == 0)
            if empty.size:
                raise ValueError(
                    f"{empty.size} of the samples {rows.start} to {rows.stop - 1} have no counts in known "
                    f"genes (the first is {self.adata.obs_names[start + empty[0]]!r}): leave them out, for "
                    "example with scanpy.pp.filter_cells(adata, min_counts=1)"
                )
            counts = self._move(x)
            # of the arrays: a matrix would first sort its entries, which takes longer than all the rest
            totals = x.data.sum(dtype=np.float64), library_size.sum(), counts.data.sum(dtype=np.float64)
            self.totals += totals
            yield rows, counts, library_size

    def _move(self, x: sp.csr_matrix) -> sp.csr_matrix:
        """Bring columns into the vocabulary's order; add up those of one gene."""
        import scipy.sparse as sp

        place, shape = self.match.place, (x.shape[0], self.n_genes)
        found = np.flatnonzero(place >= 0)
        if found.size > self.match.measured.sum():
            entries = np.ones(found.size, np.float32), (found, place[found])
            return x @ sp.csr_matrix(entries, shape=(len(place), self.n_genes))
        indices = place.astype(np.int32).take(x.indices)  # half the time of the product
        kept = np.flatnonzero(indices >= 0)
        indptr = np.searchsorted(kept, x.indptr)
        return sp.csr_matrix((x.data.take(kept), indices.take(kept), indptr), shape)

    def report(self) -> dict[str, Any]:
        """Say how well the dataset and the vocabulary fit; counts are those read so far."""
        total, identified, inside = self.totals
        place = self.match.place
        return {
            "counts": self.where,
            "gene_names": self.match.names,
            "genes": len(place),
            "genes_identified": int(self.match.identified.sum()),
            "genes_in_model": int(self.match.measured.sum()),
            "model_genes_measured": float(self.match.measured.mean()),
            "counts_identified": float(identified / total),
            "counts_in_model": float(inside / total),
        }

    def _elsewhere(self) -> str:
        """Name the other places of this AnnData that hold counts, by the look of the first rows."""
        places = {f"layer={k!r}": v for k, v in self.adata.layers.items() if self.where != f"layers[{k!r}]"}
        if self.adata.raw is not None and self.where != "raw.X":
            places["layer='raw'"] = self.adata.raw.X
        if self.where != "X" and _x(self.adata) is not None:
            places["layer=None (X)"] = self.adata.X
        good = [where for where, x in places.items() if not not_counts(_values(x[:200]))]
        return f". Counts are in another place: {' or '.join(good)}" if good else ""


def _x(adata: AnnData) -> Any:
    """Return X, or None if there is none: of a file without X, AnnData does not say so but fails."""
    try:
        return adata.X
    except KeyError:
        return None


def _values(x: Any) -> np.ndarray:
    return x.data if hasattr(x, "indptr") else np.asarray(x)


def not_counts(values: np.ndarray) -> str:
    """Say what is wrong with values that should be counts, and what to do; "" if they are counts."""
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        return f"holds {bad:,} missing or infinite values: a gene that was not measured has no column"
    if (values < 0).any():
        return (
            f"holds negative values (lowest {values.min():.3g}), so it was scaled or centred: give raw counts"
        )
    fractional = values != np.rint(values)
    if not fractional.any():
        return ""
    largest, share = values.max(), fractional.mean()
    if largest < LARGEST_LOG and share > 0.5:
        return f"looks log-transformed (largest value {largest:.3g}, {share:.0%} fractional): give raw counts"
    example = values[fractional].flat[0]
    return (
        f"holds values that are not whole numbers (for example {example:.6g}): give raw counts; estimated "
        "counts (RSEM, salmon) should be rounded first, normalised values cannot be used"
    )


def align(
    adata: AnnData, genes: Sequence[str], layer: str | None = None
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Bring all counts of a dataset into the order of a vocabulary.

    Parameters
    ----------
    adata : AnnData
    genes : sequence of str, length G
    layer : str, optional
        See :class:`Aligned`, which also says what is refused.

    Returns
    -------
    counts : csr_matrix, float32, shape (n, G)
        Zero where a gene is not measured.
    measured : ndarray of bool, shape (G,)
        Which genes `adata` lists.
    library_size : ndarray, float64, shape (n,)
        Total counts of each sample over all identified genes, inside the vocabulary or not.
    """
    import scipy.sparse as sp

    aligned = Aligned(adata, genes, layer)
    _, counts, library_size = zip(*aligned, strict=True)
    return sp.vstack(counts, format="csr"), aligned.match.measured, np.concatenate(library_size)
