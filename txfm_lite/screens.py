"""Readers of perturbation screens: who was perturbed in each cell, and what bulk knockouts did.

The same contract as in `txfm_lite.readers`, where manifests find these functions by name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from txfm_lite import rfiles

if TYPE_CHECKING:
    from anndata import AnnData


def papalexi(paths: list[Path]) -> AnnData:
    """Read a screen in which each cell was meant to take up one guide: the one with most UMIs names the cell.

    Columns: `guide`, `guide_share` (of the cell's guide UMIs: below 0.8 the cell may carry two), `target`,
    `replicate`, `control`. `obsm["guides"]` keeps all guides' UMI counts, in the order of `uns["guides"]`.
    """
    data = rfiles.load(paths[0])["lowmoi_example_data"]
    adata = _numbered(rfiles.cells_by_genes(data["response_matrix"]))
    targets = data["grna_target_data_frame"].astype(str).set_index("grna_id")["grna_target"]
    guides = _attach_guides(adata, data["grna_matrix"])
    best = np.asarray(guides.argmax(axis=1)).ravel()
    adata.obs["guide"] = np.array(adata.uns["guides"])[best]
    adata.obs["guide_share"] = guides.max(axis=1).toarray().ravel() / np.asarray(guides.sum(axis=1)).ravel()
    adata.obs["target"] = targets.loc[adata.obs["guide"]].to_numpy()
    adata.obs["replicate"] = data["extra_covariates"]["bio_rep"].astype(str).to_numpy()
    adata.obs["control"] = adata.obs["target"] == "non-targeting"
    return adata


def gasperini(paths: list[Path], *, min_umis: int = 5) -> AnnData:
    """Read a screen in which a cell takes up many guides; the files hold 79 of the thousands of guides.

    Columns: `n_guides` (those of the 79 with at least `min_umis` UMIs; fewer may be background), `target`
    (their targets, sorted, joined by "+"; missing in a cell without any), `control` (only non-targeting
    ones; missing without any) and `batch`. `obsm["guides"]` and `uns["guides"]` as in `papalexi`.
    """
    import pandas as pd

    objects = {k: v for path in paths for k, v in rfiles.load(path).items()}
    adata = _numbered(rfiles.cells_by_genes(objects["response_matrix_highmoi"]))
    groups = objects["grna_group_data_frame_highmoi"].astype(str).set_index("grna_id")["grna_group"]
    guides = _attach_guides(adata, objects["grna_matrix_highmoi"])
    target = groups.loc[adata.uns["guides"]].to_numpy()
    cell, guide = (guides >= min_umis).nonzero()
    joined = pd.Series(target[guide]).groupby(cell).agg(lambda found: "+".join(sorted(set(found))))
    adata.obs["target"] = joined.reindex(range(adata.n_obs)).to_numpy()
    adata.obs["n_guides"] = np.bincount(cell, minlength=adata.n_obs)
    known = adata.obs["target"].notna()
    adata.obs["control"] = (adata.obs["target"] == "non-targeting").astype("boolean").mask(~known)
    adata.obs["batch"] = objects["extra_covariates_highmoi"]["batch"].astype(str).to_numpy()
    return adata


def _numbered(adata: AnnData) -> AnnData:
    """Name the cells by their position: these files carry no barcodes."""
    adata.obs_names = [f"cell_{i}" for i in range(adata.n_obs)]
    return adata


def _attach_guides(adata: AnnData, matrix):
    """Keep the cells x guides UMI counts beside the gene counts, and return them."""
    guides = rfiles.cells_by_genes(matrix)
    adata.obsm["guides"], adata.uns["guides"] = guides.X, list(guides.var_names)
    return guides.X


def deseq2(paths: list[Path]) -> AnnData:
    """Read DESeq2 tables as contrasts x genes, over the genes that all tables list.

    X is the log2 fold change of knockout against wild type; layers hold `lfcSE`, `stat`, `pvalue`, `padj`
    and `baseMean` (DESeq2 leaves values out where it could not test: they are NaN). Columns: `contrast`,
    `target`, `strategy` (how the gene was broken) and `release`.
    """
    import pandas as pd
    from anndata import AnnData

    tables = [pd.read_csv(path, sep="\t", index_col="gene_ID") for path in paths]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared[shared.isin(table.index)]
    change = "log2FoldChange"
    values: dict[str, list] = {key: [] for key in (change, "lfcSE", "stat", "pvalue", "padj", "baseMean")}
    rows = []
    for path, table in zip(paths, tables, strict=True):
        release = re.match(r"\d{4}_\d{2}", Path(path).name).group()
        columns = table.columns[table.columns.str.endswith(f"_{change}")]
        for contrast in columns.str.removesuffix(f"_{change}"):
            target, strategy = contrast.rsplit("_", 1)
            rows.append({"contrast": contrast, "target": target, "strategy": strategy, "release": release})
            for key, kept in values.items():
                kept.append(table.loc[shared, f"{contrast}_{key}"].to_numpy(dtype=float))
    obs = pd.DataFrame(rows)
    obs.index = obs["contrast"] + "_" + obs["release"]
    stacked = {key: np.vstack(kept) for key, kept in values.items()}
    return AnnData(stacked.pop(change), obs, pd.DataFrame(index=shared.astype(str)), layers=stacked)
