"""Should a panel's totals be scaled up?  Whole transcriptomes cut to the genes of real panels, both ways.

    python benchmarks/panels.py            # a few minutes on one core; prints a table
    python benchmarks/panels.py --store    # into results/benchmarks

A panel's counts do not add up to a library; :func:`txfm_lite.embed.embed` divides their total by the share
of a library that the model expects on its genes. The studies are of the *training* corpus, so that no
held-out study had a say in this choice. For each study and panel: how well neighbours name the cell type
(balanced accuracy, five folds of cells: in most of these studies a batch is a cell type), and how near
(cosine, mean over cells) the embedding is to the one of all genes.
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from txfm_lite import datasets, results
from txfm_lite.embed import embed

MODEL = "txfm-xs"
STUDIES = (  # with cell types: dataset, part
    ("pollen_11types", "main"), ("ipsc_cm_timecourse", "main"), ("kang_ifnb", "pbmc_ctrl"),
    ("pbmc_facs_zheng", "main"), ("pbmc_sorted_donorA_mudan", "reference"),
)  # fmt: skip
PANELS = (  # only their lists of genes are used
    "papalexi2021_eccite_thp1", "gasperini2019_k562_highmoi", "pbmc_3tech_symphony", "pancreas_3batch_cepo",
)  # fmt: skip


def embeddings(adata: AnnData, genes: pd.Index) -> tuple[dict[str, np.ndarray], pd.Series, float]:
    """Embed all genes, the panel's as they are, and the panel's with the total scaled up.

    Cells without a count on the panel are left out. Returned beside: their types, and the share.
    """
    panel = adata[:, adata.var_names.isin(genes)].copy()
    kept = np.asarray(panel.X.sum(axis=1)).ravel() > 0
    panel = panel[kept].copy()
    found = {
        "all genes": embed(adata[kept].copy(), MODEL),
        "as it is": embed(panel.copy(), MODEL, library_share=1.0),
        "scaled": embed(panel, MODEL),
    }
    return found, panel.obs["cell_type"].astype(str), panel.uns["txfm"]["library_share"]


def knn(values: np.ndarray, labels: pd.Series) -> float:
    """Balanced accuracy of 15 nearest neighbours by cosine, five stratified folds."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    named = cross_val_predict(KNeighborsClassifier(15, metric="cosine"), values, labels, cv=folds)
    return float(balanced_accuracy_score(labels, named))


def rows() -> list[dict]:
    """Score every study cut to every panel."""
    lists = {name: datasets.load(name).var_names for name in PANELS}
    found = []
    for name, part in STUDIES:
        adata = datasets.load(name, part)
        adata = adata[adata.obs["cell_type"].notna()].copy()
        for panel, genes in lists.items():
            e, labels, share = embeddings(adata, genes)
            unit = {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in e.items()}
            for how, values in e.items():
                near = float((unit[how] * unit["all genes"]).sum(axis=1).mean())
                found.append(
                    {
                        "dataset": f"{name}/{part}",
                        "panel": panel,
                        "totals": how,
                        "library_share": round(share, 4) if how == "scaled" else 1.0,
                        "knn": round(knn(values, labels), 4),
                        "cosine_to_all_genes": round(near, 4),
                        "n": len(values),
                    }
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", action="store_true", help="write into the repository's results")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # that a panel lacks genes is the point
    start = time.monotonic()
    found = rows()
    table = pd.DataFrame(found).pivot(index=["dataset", "panel"], columns="totals")
    print(table[["knn", "cosine_to_all_genes"]].to_string())
    if args.store:
        minutes = round((time.monotonic() - start) / 60, 1)
        results.write("benchmarks/panels", found, results.provenance(model=MODEL, minutes=minutes))


if __name__ == "__main__":
    main()
