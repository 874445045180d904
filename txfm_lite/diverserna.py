"""DiverseRNA-mini: the paper's corpus in small, from every training dataset that the manifests name.

DiverseRNA-1.4M joins nine public studies; its sizes are in :data:`TABLE_1`. The mini corpus joins all
training datasets that anybody can fetch in minutes, under the same rules with smaller thresholds
(:data:`txfm_lite.curate.MINI`). What is left out is listed with its reason in ``corpus.info["skipped"]``.

One caveat on its validation batches: the sorted blood cells of Zheng et al. 2017 come to us from two
repositories. Cells in both are taken once, but the remaining ones stem from the same libraries, and a library
held out in one may train in the other.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import manifests
from .corpus import Corpus
from .curate import COUNT_UNITS, MINI, Rules, build

if TYPE_CHECKING:
    import pandas
    from anndata import AnnData

log = logging.getLogger(__name__)

MAX_BYTES = 64_000_000  # a dataset with larger files is no longer "mini"
#: What the counts and their curation depend on, beside the manifests: a change here means another corpus.
CODE = ("readers", "rfiles", "datasets", "genes", "curate", "corpus", "corpus_writer")

#: Table 1 of Kenyon-Dean et al. 2026 (arXiv 2605.31562): dataset, reference, mode, samples, genes.
TABLE_1 = (
    ("K562 CRISPRi phenoprints", "Replogle et al. 2022", "single-cell", 502_080, 8_248),
    ("Glioblastoma", "Ruiz-Moreno et al. 2022", "single-cell", 504_929, 21_310),
    ("MixSeq cancer cell lines", "McFarland et al. 2020", "single-cell", 102_205, 15_438),
    ("sci-Plex compounds", "Srivatsan et al. 2020", "single-cell", 99_300, 18_486),
    ("Gastric metaplasia", "Nowicki-Osuch et al. 2023", "single-cell", 88_399, 16_445),
    ("Tumor microenvironment", "Guimaraes et al. 2024", "single-cell", 71_585, 17_619),
    ("Breast cancer", "Wu et al. 2021", "single-cell", 31_542, 24_712),
    ("TCGA", "Weinstein et al. 2013", "bulk", 23_733, 19_594),
    ("GTEx", "GTEx Consortium 2020", "bulk", 10_526, 36_695),
    ("total", "Kenyon-Dean et al. 2026", "mixed", 1_434_299, 44_349),
)


def sources(rules: Rules = MINI) -> tuple[list[tuple[str, str]], list[dict[str, str]]]:
    """List the (dataset, part) pairs of the mini corpus, and the training parts left out, with reasons.

    Within a dataset the part with the most genes comes first: a cell in several parts is taken from there.
    """
    chosen, skipped = [], []
    for name in manifests.names():
        manifest = manifests.read(name)
        for key in sorted(manifest.parts, key=lambda key: (-(manifest.parts[key].n_vars or 0), key)):
            part = manifest.parts[key]
            if part.role != "train":
                continue
            largest = max((manifest.file(file).bytes for file in part.files), default=0)
            if part.units not in COUNT_UNITS:
                reason = f"holds {part.units or 'no matrix'}, not counts"
            elif not part.files:
                reason = "comes with the code: simulated, or an example"
            elif any(manifest.file(file).sha256 == "unverified" for file in part.files):
                reason = "its checksum is not known"
            elif largest > MAX_BYTES:
                reason = f"a file of {largest / 1e6:,.0f} MB"
            elif rules.panels == "drop" and part.n_vars and part.n_vars < rules.min_measured_genes:
                reason = f"panel: {part.n_vars:,} genes, fewer than {rules.min_measured_genes:,}"
            else:
                chosen.append((name, key))
                continue
            skipped.append({"name": _label(name, key), "reason": reason})
    return chosen, skipped


def diverserna_mini(path: str | Path, rules: Rules = MINI) -> Corpus:
    """Build DiverseRNA-mini at `path`, or open it if it is there: made of the same files by the same rules.

    Parameters
    ----------
    path : path
        A corpus of another recipe that lies there is replaced.
    rules : Rules

    Returns
    -------
    Corpus

    Raises
    ------
    txfm_lite.datasets.Unreachable
        If a file is neither local nor cached and its download fails.
    """
    chosen, skipped = sources(rules)
    recipe = _recipe(chosen, rules)
    try:
        corpus = Corpus.open(path)
    except (FileNotFoundError, ValueError):  # none there, unfinished, or of an older format
        pass
    else:
        if corpus.info.get("recipe") == recipe:
            return corpus
        log.info("%s was made by another recipe and is built anew", path)
    loaders = {_label(name, part): partial(_load, name, part) for name, part in chosen}
    return build(path, loaders, rules, overwrite=True, skipped=skipped, recipe=recipe)


def composition(corpus: Corpus) -> pandas.DataFrame:
    """Return what a corpus consists of, beside the paper's Table 1: one row per dataset of either."""
    import pandas as pd

    obs = corpus.obs()
    rows = []
    for code, facts in enumerate(corpus.datasets):
        mine = obs[corpus.dataset == code]
        n_genes = np.diff(corpus.indptr)[corpus.dataset == code]
        rows.append(
            {
                "dataset": facts["name"],
                "reference": facts.get("citation", ""),
                "mode": "bulk" if facts.get("modality", "").startswith("bulk") else "single-cell",
                "n_samples": len(mine),
                "n_genes": facts["n_measured"],
                "n_batches": mine["batch"].nunique(),
                "n_validation": int((mine["split"] == "validation").sum()),
                "median_genes": int(np.median(n_genes)),
                "median_library": int(mine["library_size"].median()),
            }
        )
    ours = pd.DataFrame(rows).sort_values("n_samples", ascending=False)
    total = {"dataset": "total", "mode": "mixed", "n_samples": len(obs), "n_genes": corpus.n_genes}
    total |= {column: ours[column].sum() for column in ("n_batches", "n_validation")}
    paper = pd.DataFrame(TABLE_1, columns=["dataset", "reference", "mode", "n_samples", "n_genes"])
    tables = {corpus.path.name: pd.concat([ours, pd.DataFrame([total])]), "DiverseRNA-1.4M": paper}
    table = pd.concat(tables, names=["corpus"]).reset_index(level="corpus").reset_index(drop=True)
    counts = ["n_samples", "n_genes", "n_batches", "n_validation", "median_genes", "median_library"]
    return table.astype(dict.fromkeys(counts, "Int64")).fillna({"reference": ""})


def _load(name: str, part: str) -> AnnData:
    from . import datasets

    adata = datasets.load(name, part)
    adata.uns["source"]["modality"] = manifests.read(name).modality
    return adata


def _label(name: str, part: str) -> str:
    return name if len(manifests.read(name).parts) == 1 else f"{name}/{part}"


def _recipe(chosen: list[tuple[str, str]], rules: Rules) -> str:
    """Hash all that the corpus will be made of, without reading any data."""
    from .genes import default_resolver

    digest = hashlib.sha256(json.dumps([asdict(rules), chosen, default_resolver().name]).encode())
    for name in sorted({name for name, _ in chosen}):
        digest.update((manifests.directory() / f"{name}.toml").read_bytes())
    for module in CODE:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()
