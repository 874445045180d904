"""From files to matrices: one small function per kind of source file.

A manifest names a function of this module for each of its parts. Every function takes the local paths of the
part's files, in the manifest's order, and the part's remaining fields as keyword arguments. It returns either

* an `AnnData` of samples x genes with the source's own numbers in `X`, the source's own columns in `obs`, the
  source's own gene names as `var_names` and, where the source has both, `var["ensembl"]` and `var["symbol"]`;
* or a `DataFrame`, for gene sets, gene pairs and gene tables.

Those of single-cell packages are here; the rest are in `atlases`, `bulk`, `screens` and `tables`.

Readers undo what a file format did to the data (a shifted header, a transposed matrix, an invertible
normalisation). They judge nothing: checks, gene identity and standard columns come later, in `datasets`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from txfm_lite import rfiles

# readers, too: manifests find all of them here by name
from txfm_lite.atlases import h5ad, large_table, mtx_archive  # noqa: F401
from txfm_lite.bulk import cognoma, roadmap, tcga_barcodes, wide_table  # noqa: F401
from txfm_lite.screens import deseq2, gasperini, papalexi  # noqa: F401
from txfm_lite.tables import (  # noqa: F401
    gene_info,
    gene_sets_csv,
    gene_sets_gmt,
    gene_sets_r,
    gene_sets_tsv,
    pickled_dictionary,
    r_table,
    table,
    text_lines,
)

if TYPE_CHECKING:
    from anndata import AnnData


# --- single-cell files of Python's, 10x's and plain text --------------------------------------------------


def tenx_h5(paths: list[Path]) -> AnnData:
    """Read a 10x Genomics HDF5 matrix; gene names repeat there, Ensembl ids do not."""
    import scanpy

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        adata = scanpy.read_10x_h5(paths[0])
    adata.var = adata.var.rename(columns={"gene_ids": "ensembl"}).assign(symbol=adata.var_names)
    adata.var_names = adata.var["ensembl"]
    return adata


def counts_csv(
    paths: list[Path],
    *,
    sep: str = ",",
    drop_genes: str = "",
    drop_columns: Sequence[str] = (),
) -> AnnData:
    """Read genes x samples counts and, if there is a second file, the table of samples.

    Parameters
    ----------
    sep
        What separates the columns.
    drop_genes
        Regular expression: rows whose whole name matches are no genes (spike-ins, summaries) and left out.
    drop_columns
        Columns of the count table that are no samples.
    """
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    counts = pd.read_csv(paths[0], sep=sep, index_col=0)
    counts = counts.drop(columns=list(drop_columns))
    if drop_genes:
        counts = counts[~counts.index.str.fullmatch(drop_genes)]
    adata = AnnData(sp.csr_matrix(counts.to_numpy(dtype=np.float64).T))
    adata.obs_names, adata.var_names = counts.columns.astype(str), counts.index.astype(str)
    if len(paths) > 1:
        samples = pd.read_csv(paths[1], sep=sep, index_col=0)
        adata.obs = samples.reindex(adata.obs_names)
    return adata


def mixology_plates(paths: list[Path], *, plates: Sequence[str], technologies: Sequence[str]) -> AnnData:
    """Read several plates of one study as one matrix over the genes that all of them measured.

    The intersection, because a gene that a plate's file does not list was not zero there: it is unknown.
    `paths` alternate between counts and metadata, one pair per plate.
    """
    import anndata

    pieces = []
    for i, (plate, technology) in enumerate(zip(plates, technologies, strict=True)):
        piece = counts_csv(paths[2 * i : 2 * i + 2], drop_genes="ERCC-.*")
        piece.obs = piece.obs.assign(plate=plate, technology=technology)
        piece.obs_names = plate + "_" + piece.obs_names
        pieces.append(piece)
    return anndata.concat(pieces, join="inner", merge="same")


# --- single-cell files of R's -----------------------------------------------------------------------------


def r_matrix(paths: list[Path], *, object: str) -> AnnData:
    """Read a genes x cells matrix, sparse or dense, or a data frame of one, saved by R."""
    return _with_barcodes(rfiles.cells_by_genes(rfiles.load(paths[0])[object]))


def r_experiment(paths: list[Path], *, object: str, assay: str = "counts") -> AnnData:
    """Read one assay of a SummarizedExperiment or SingleCellExperiment saved by R."""
    return _with_barcodes(rfiles.experiment(rfiles.load(paths[0])[object], assay))


def r_seurat(paths: list[Path], *, object: str, assay: str = "RNA") -> AnnData:
    """Read the raw counts and the metadata of a Seurat object saved by R."""
    seurat = rfiles.load(paths[0])[object]
    adata = rfiles.cells_by_genes(seurat.assays[assay].counts)
    adata.obs = getattr(seurat, "meta.data").rename(columns=str).loc[adata.obs_names]
    return _with_barcodes(adata)


def _with_barcodes(adata: AnnData) -> AnnData:
    """Add what a 10x cell name tells: the barcode itself, and the lane (the suffix) if there are several."""
    found = adata.obs_names.to_series().str.extract(r"([ACGT]{14,16})(?:-(\w+))?$")
    if found[0].notna().all():
        adata.obs = adata.obs.assign(barcode=found[0])
        if found[1].nunique() > 1:
            adata.obs = adata.obs.assign(lane=found[1])
    return adata


def zheng_sorted(paths: list[Path], *, counts: str, samples: str) -> AnnData:
    """Read the sorted blood cells of the fastTopics package (cells x genes already)."""
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    data = rfiles.load(paths[0])["pbmc_facs"]
    matrix = data[counts]
    x = sp.csc_matrix((matrix.x, matrix.i, matrix.p), shape=tuple(int(n) for n in matrix.Dim)).tocsr()
    obs = pd.DataFrame({str(c): data[samples][c].astype(str).to_numpy() for c in data[samples]})
    obs = obs.set_index(pd.Index(rfiles.strings(matrix.Dimnames[0])))
    obs["barcode"] = obs["barcode"].str.removesuffix("-1")
    var = pd.DataFrame({str(c): data["genes"][c].astype(str).to_numpy() for c in data["genes"]})
    return AnnData(x, obs, var.set_index("ensembl", drop=False).rename_axis(None))


def mudan_reference(paths: list[Path]) -> AnnData:
    """Read the sorted reference cells of the MUDAN package and their labels, which come in the same order."""
    adata = _with_barcodes(rfiles.cells_by_genes(rfiles.load(paths[0])["referenceCounts"]))
    adata.obs["annotation"] = rfiles.strings(rfiles.load(paths[1])["referenceAnnot"])
    adata.obs["library"] = adata.obs_names.str.replace(r"[ACGT]{14}-1$", "", regex=True)
    return adata


def pbmc4k(paths: list[Path]) -> AnnData:
    """Read 2,000 cells of 10x's pbmc4k, with another package's Seurat labels, joined by barcode."""
    adata = _with_barcodes(rfiles.cells_by_genes(rfiles.load(paths[0])["pbmc_counts"]))
    adata.obs["seurat_ident"] = rfiles.named_factor(paths[1]).reindex(adata.obs_names)
    return adata


def symphony(paths: list[Path]) -> AnnData:
    """Read log1p(counts per 10,000) and turn it back into counts, exactly, with each cell's own UMI total.

    Raises
    ------
    ValueError
        If the inverted values are not whole numbers: then the file is not what it is said to be.
    """
    adata = rfiles.cells_by_genes(rfiles.load(paths[0])["pbmcs_exprs_small"])
    meta = rfiles.load(paths[1])["pbmcs_meta_small"].rename(columns=str).set_index("cell_id")
    adata.obs = meta.loc[adata.obs_names].astype({"nUMI": float, "nGene": float})
    per_value = np.repeat(adata.obs["nUMI"].to_numpy(), np.diff(adata.X.indptr))
    counts = np.expm1(adata.X.data) / 1e4 * per_value
    residual = np.abs(counts - np.rint(counts)).max()
    if residual > 1e-6:
        raise ValueError(f"{paths[0].name}: log1p(CP10k) does not invert to counts (residual {residual:.2g})")
    adata.X.data = np.rint(counts)
    return adata


def kang(paths: list[Path], *, object: str, condition: str = "") -> AnnData:
    """Read one of the packages' cuts of the Kang interferon study, all with the same columns.

    A file without labels takes them, by barcode, from the experiment in a second file: type and donor stay
    missing for the cells which that one lacks. Columns: `cluster`, `donor`, `condition` ("ctrl" or "stim"),
    `batch` (condition and, where known, donor), `stimulus` and `control`.
    """
    import pandas as pd

    source = rfiles.load(paths[0])[object]
    if hasattr(source, "assays"):
        adata = rfiles.experiment(source, "counts")
        labels = adata.obs
    else:
        adata = rfiles.cells_by_genes(source)
        (other,) = rfiles.load(paths[1]).values()
        labels = rfiles.frame(other.colData.listData, pd.Index(rfiles.strings(other.colData.rownames)))
    labels = labels.astype(str).reindex(adata.obs_names)
    sample = labels["sample_id"]  # "101", or "ctrl101"
    state = sample.str.extract("(ctrl|stim)")[0] if not condition else pd.Series(condition, adata.obs_names)
    donor = sample.str.extract(r"(\d+)$")[0]
    adata.obs = pd.DataFrame(
        {
            "cluster": labels["cluster_id"],
            "donor": donor,
            "condition": state,
            "batch": (state + "_" + donor).fillna(state),
            "stimulus": state.map({"ctrl": "none", "stim": "IFN-beta"}),
            "control": state == "ctrl",
        }
    )
    return _with_barcodes(adata)


# --- data that come with the dependencies -----------------------------------------------------------------


def simulated(paths: list[Path], *, study: str, seed: int = 0) -> AnnData:
    """Simulate a study; its truth comes along in `uns["truth"]`, in the order of the genes."""
    from txfm_lite import simulate

    adata = simulate.study(study, seed)
    adata.obs = adata.obs.dropna(axis=1, how="all")  # columns that this study does not have
    return adata


def pbmc68k_reduced(paths: list[Path]) -> AnnData:
    """Read scanpy's bundled cut of 10x's 68k blood cells and undo its normalisation.

    `X` is scaled there, but `raw` is log1p(counts per 10,000) to three decimals, and `obs` has each cell's
    UMI total over all genes: together they give the counts back, all within 0.1 of a whole number.

    Raises
    ------
    ValueError
        If the inverted values are not nearly whole: then scanpy's file is another one.
    """
    import scanpy
    import scipy.sparse as sp
    from anndata import AnnData

    bundled = scanpy.datasets.pbmc68k_reduced()
    x = sp.csr_matrix(bundled.raw.X, dtype=np.float64)
    total = bundled.obs["n_counts"].to_numpy(dtype=float)
    counts = np.expm1(x.data) / 1e4 * np.repeat(total, np.diff(x.indptr))
    residual = np.abs(counts - np.rint(counts)).max()
    if residual > 0.2:
        raise ValueError(f"scanpy's pbmc68k_reduced does not invert to counts (residual {residual:.2g})")
    x.data = np.rint(counts)
    obs = bundled.obs[["bulk_labels", "n_counts"]].copy()
    obs["lane"] = obs.index.str.extract(r"-(\d+)$", expand=False)
    return AnnData(x, obs=obs, var=bundled.raw.var[[]])
