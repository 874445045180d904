"""Readers of bulk tables: whole tissues, tumours and cell lines, one profile per sample.

The same contract as in `txfm_lite.readers`, where manifests find these functions by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from txfm_lite import rfiles

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: Characters 14-15 of a TCGA barcode.
TCGA_SAMPLES = {"01": "primary tumour", "06": "metastasis", "11": "normal tissue"}


def wide_table(paths: list[Path], *, skip_columns: int = 0, symbol: str = "", labels: str = "") -> AnnData:
    """Read genes x samples values whose samples are tissues or cell types, named by the columns.

    Parameters
    ----------
    skip_columns
        How many columns after the gene id are no samples.
    symbol
        The one of them that holds gene symbols.
    labels
        Column of the second file that names the samples; its blanks at the ends are no part of the name.
    """
    import pandas as pd

    values = pd.read_csv(paths[0], sep="\t", index_col=0)
    names = values.get(symbol)
    values = values.iloc[:, skip_columns:]
    adata = _samples_by_genes(values)
    adata.obs["sample"] = values.columns
    if symbol:
        adata.var["symbol"] = names.to_numpy()
    if labels:
        facts = pd.read_csv(paths[1], sep="\t").apply(lambda column: column.str.strip())
        facts = facts.drop_duplicates(labels).set_index(labels)
        adata.obs = adata.obs.join(facts)
    return adata


def roadmap(paths: list[Path]) -> AnnData:
    """Read the Roadmap consortium's counts and what its table of epigenomes says about each sample.

    Rows end in a tab, which would silently shift all columns by one; the label table has two junk rows.
    """
    import pandas as pd

    counts = pd.read_csv(paths[0], sep="\t", index_col=False).set_index("gene_id")
    facts = pd.read_csv(paths[1], sep="\t").set_index("Epigenome ID (EID)")
    facts = facts[facts.index.astype(str).str.fullmatch(r"E\d{3}")]
    facts = facts[["GROUP", "ANATOMY", "TYPE", "Standardized Epigenome name"]]
    adata = _samples_by_genes(counts)
    adata.obs = facts.reindex(adata.obs_names)
    return adata


def tcga_barcodes(paths: list[Path], *, object: str) -> AnnData:
    """Read a TCGA matrix saved by R; the samples' barcodes say what they are and where they come from."""
    adata = rfiles.cells_by_genes(rfiles.load(paths[0])[object])
    _read_barcodes(adata)
    return adata


def cognoma(paths: list[Path]) -> AnnData:
    """Read Project Cognoma's subsets of TCGA: several samples x genes tables, then samples, then genes.

    Two samples lie in two of the tables, with the same values: they are taken once.
    """
    import pandas as pd
    from anndata import AnnData

    *matrices, samples, genes = paths
    values = pd.concat([pd.read_csv(path, sep="\t", index_col=0) for path in matrices])
    values = values[~values.index.duplicated()]
    facts = pd.read_csv(samples, sep="\t", index_col=0, low_memory=False).reindex(values.index)
    known = pd.read_csv(genes, sep="\t", dtype=str).set_index("entrez_gene_id")["symbol"]
    var = pd.DataFrame({"symbol": known.reindex(values.columns).to_numpy()}, index=values.columns)
    adata = AnnData(values.to_numpy(dtype=float), facts, var)
    _read_barcodes(adata)
    return adata


def _read_barcodes(adata: AnnData) -> None:
    """Add `sample_type` and `source_site` (where the tissue was taken), both part of a TCGA barcode."""
    adata.obs["sample_type"] = adata.obs_names.str[13:15].map(TCGA_SAMPLES).to_numpy()
    adata.obs["source_site"] = adata.obs_names.str[5:7].to_numpy()


def _samples_by_genes(table: pd.DataFrame) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    obs = pd.DataFrame(index=table.columns.astype(str))
    return AnnData(table.to_numpy(dtype=np.float64).T, obs, pd.DataFrame(index=table.index.astype(str)))
