"""What a chapter runs on: the real studies, or, where they cannot be had, stand-ins that come with the code.

A chapter asks for "the training corpus" and "the held-out studies" and gets the same kinds of objects either
way; ``notebook.banner()`` tells the reader which ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import datasets, files
from .files import cache_directory

if TYPE_CHECKING:
    from anndata import AnnData

    from .corpus import Corpus
    from .curate import Rules

#: Held-out studies of whole transcriptomes with labels in several batches: dataset -> part.
HELD_OUT = {"sc_mixology": "single_cells", "darmanis_brain": "main"}  # batches: plates, chips
#: Held-out studies to score cell types on: these two, and panels of a thousand genes or so.
CELL_TYPES = HELD_OUT | {
    name: "main" for name in ("pbmc_3tech_symphony", "onek1k_40donors", "pancreas_3batch_cepo")
}
LARGE_CELL_TYPES = ("luecken2022_pancreas",)  # of the published benchmark, and large
#: Screens that the shipped model has never seen, and those that the TxFM paper scores.
SCREENS = ("papalexi2021_eccite_thp1", "gasperini2019_k562_highmoi")
LARGE_SCREENS = ("replogle2022_rpe1_crispri", "nadig2025_hepg2_crispri", "nadig2025_jurkat_crispri")
ONE_GUIDE = 0.8  # of a cell's guide UMIs: below that share it may carry a second one
SIMULATED = tuple(f"simulated_{x}" for x in "abcde")
SIMULATED_HELD_OUT = {"simulated_f": "main"}
SIMULATED_SCREENS = ("simulated_g",)


def stand_ins(data: str = "real") -> bool:
    """Tell whether simulated studies are in use: asked for, or because some file cannot be had."""
    return data == "simulated" or datasets.source() == "embedded"


def training_corpus(path: str | Path | None = None, data: str = "real", rules: Rules | None = None) -> Corpus:
    """Build DiverseRNA-mini, or open it if it is there; or build the corpus of the simulated studies.

    Parameters
    ----------
    path : path, optional
        By default a folder in the cache.
    data : str
        "real", or "simulated" to want the stand-ins.
    rules : Rules, optional
        By default :data:`txfm_lite.curate.MINI`. For the simulated studies, which have fewer genes, the
        thresholds on genes are lowered.
    """
    from . import diverserna
    from .curate import MINI, build

    rules = rules or MINI
    folder = cache_directory() / "corpora"
    if not stand_ins(data):
        return diverserna.diverserna_mini(path or folder / "diverserna-mini", rules)
    rules = replace(rules, min_measured_genes=500, min_genes=100)
    loaders = {name: partial(datasets.load, name) for name in SIMULATED}
    return build(path or folder / "simulated", loaders, rules, overwrite=True)


def common_corpus(data: str = "real") -> Corpus:
    """Open or make the training corpus of the shipped model, on which its rivals are to be fitted.

    It is :func:`training_corpus` with the genes that three in ten of its datasets measure, kept in the cache.
    """
    from .corpus import Corpus, select_common_genes
    from .corpus_writer import write_subset

    whole = training_corpus(data=data)
    if stand_ins(data):
        return whole
    path = cache_directory() / "corpora" / "common"
    if (path / "corpus.json").is_file():
        found = Corpus.open(path)
        if found.info["rules"].get("subset_of") == whole.fingerprint:
            return found
    return write_subset(whole, path, genes=select_common_genes(whole), overwrite=True)


def held_out(data: str = "real") -> dict[str, AnnData]:
    """Load the held-out studies, by name; `data` as in :func:`training_corpus`."""
    chosen = SIMULATED_HELD_OUT if stand_ins(data) else HELD_OUT
    return {name: datasets.load(name, part) for name, part in chosen.items()}


def cell_types(data: str = "real") -> dict[str, AnnData]:
    """Load the held-out studies with cell types in several batches, by name; `data` as above.

    The pancreas of the published benchmark is among them where its file is on this machine, with the inDrop
    batches merged, as there. Counts that were estimated are rounded.
    """
    if stand_ins(data):
        return held_out(data)
    large = {name: "main" for name in LARGE_CELL_TYPES if not files.missing(name)}
    found = {name: datasets.load(name, part) for name, part in (CELL_TYPES | large).items()}
    for name, adata in found.items():
        _rounded(adata)
        if name in large:
            adata.obs["batch"] = (
                adata.obs["batch"].astype(str).str.replace(r"(?i)(indrop)\d", r"\1", regex=True)
            )
    return found


def screens(data: str = "real") -> dict[str, AnnData]:
    """Load the held-out perturbation screens, by name, each cell with one known guide; `data` as above.

    The screens of the TxFM paper, which are large, are among them where their files are on this machine.
    """
    chosen = SIMULATED_SCREENS
    if not stand_ins(data):
        chosen = (*SCREENS, *(name for name in LARGE_SCREENS if not files.missing(name)))
    return {name: screen(datasets.load(name)) for name in chosen}


def screen(adata: AnnData) -> AnnData:
    """Keep the cells whose one perturbation and batch are known, in batches with controls to align them.

    Left out are cells without a perturbation, whose dominant guide has less than 0.8 of the guide UMIs, or
    with several guides, and batches with fewer than two controls. ``obs["perturbation"]`` becomes a gene's
    symbol where it was a promoter ("GATA1_TSS").
    """
    obs = adata.obs
    keep = (obs["perturbation"].notna() & obs["batch"].notna()).to_numpy()
    if "guide_share" in obs:
        keep &= (obs["guide_share"] >= ONE_GUIDE).to_numpy()
    if "n_guides" in obs:
        keep &= (obs["n_guides"] == 1).to_numpy()
    adata = adata[keep].copy()
    adata.obs["is_control"] = adata.obs["is_control"].astype(bool)
    for column in ("perturbation", "batch"):
        adata.obs[column] = adata.obs[column].astype(str)
    adata.obs["perturbation"] = adata.obs["perturbation"].str.removesuffix("_TSS")
    n_controls = adata.obs.groupby("batch")["is_control"].transform("sum")
    return adata[(n_controls >= 2).to_numpy()].copy()


#: Study -> part: whole transcriptomes and panels in which an encoding is disturbed.
DISTURBED = CELL_TYPES | {"pbmc3k_annotated": "main"}
#: Names of one cell type in different studies of blood.
BLOOD = {
    "CD4 T": ("CD4 T cells", "Naive CD4 T", "Memory CD4 T", "CD4+ T Helper2", "CD4+/CD45RO+ Memory",
              "CD4+/CD25 T Reg", "CD4+/CD45RA+/CD25- Naive T"),
    "CD8 T": ("CD8 T cells", "CD8 T", "CD8+ Cytotoxic T", "CD8+/CD45RA+ Naive Cytotoxic"),
    "B": ("B cells", "B", "CD19+ B"),
    "NK": ("NK cells", "NK", "CD56+ NK"),
    "CD14 monocyte": ("CD14+ Monocytes", "CD14+ Mono", "CD14+ Monocyte"),
    "CD16 monocyte": ("FCGR3A+ Monocytes", "FCGR3A+ Mono"),
}  # fmt: skip
SIMULATED_FAMILY = ("simulated_a", "simulated_b", "simulated_f")
BLOOD_STUDIES = ("pbmc_facs_zheng", "pbmc3k_annotated", "pbmc4k_v2_2000", "kang_ifnb")


def disturbed(
    data: str = "real", only: Iterable[str] | None = None, most: int = 500, seed: int = 0
) -> dict[str, AnnData]:
    """Load the studies in which encodings are disturbed, at most so many cells each; `data` as above.

    Types with fewer than ten cells are left out, and the more frequent ones make room for the rarer.
    Estimated counts are rounded. `only` names the studies to load, by default all of :data:`DISTURBED`.
    """
    from .robustness import balanced

    chosen = SIMULATED_HELD_OUT if stand_ins(data) else DISTURBED
    chosen = {name: part for name, part in chosen.items() if only is None or name in only}
    found = {name: _rounded(datasets.load(name, part)) for name, part in chosen.items()}
    for name, adata in found.items():
        often = adata.obs["cell_type"].map(adata.obs["cell_type"].value_counts()).astype(float) >= 10
        adata = adata[often.to_numpy()]
        found[name] = adata[balanced(adata.obs["cell_type"].astype(str).to_numpy(), most, seed)].copy()
    return found


def families(data: str = "real", only: Iterable[str] | None = None) -> dict[str, dict[str, AnnData]]:
    """Load families of studies of the same cell types, by other chemistries or laboratories; `data` as above.

    "lung_lines", "blood_chemistries", "blood_laboratories" and "pancreas", or those that `only` names. Cell
    types have common names within a family.
    """
    if stand_ins(data):
        return {"simulated": {name: datasets.load(name) for name in SIMULATED_FAMILY}}
    made = {
        "lung_lines": lambda: (
            _split("sc_mixology", "technology") | {"10x": datasets.load("sc_mixology_10x_hvg")}
        ),
        "blood_chemistries": lambda: _split("pbmc_3tech_symphony", "batch"),
        "blood_laboratories": lambda: {name: _common_names(datasets.load(name)) for name in BLOOD_STUDIES},
        "pancreas": lambda: _split("pancreas_3batch_cepo", "batch"),
    }
    return {name: make() for name, make in made.items() if only is None or name in only}


def _split(name: str, column: str) -> dict[str, AnnData]:
    """Load a study and return the parts that differ in a column of ``obs``."""
    adata = _rounded(datasets.load(name))
    values = adata.obs[column].astype(str)
    return {value: adata[(values == value).to_numpy()].copy() for value in values.unique()}


def _common_names(adata: AnnData) -> AnnData:
    """Keep the cells whose type :data:`BLOOD` knows, under its names."""
    common = {theirs: ours for ours, names in BLOOD.items() for theirs in names}
    found = adata[adata.obs["cell_type"].isin(common).to_numpy()].copy()
    found.obs["cell_type"] = found.obs["cell_type"].astype(str).map(common)
    return found


def known_amounts(data: str = "real") -> dict[str, AnnData]:
    """Load mixtures of known amounts of RNA, ``obs["amount"]`` in pg and ``obs["mixture"]``; `data` as above.

    The simulated stand-in is one study in two depths, with cell types for mixtures.
    """
    import anndata

    if not stand_ins(data):
        found = {part: datasets.load("sc_mixology", part) for part in ("RNAmix_celseq2", "RNAmix_sortseq")}
        for adata in found.values():
            adata.obs["amount"] = adata.obs["mRNA_amount"].astype(str)
            adata.obs["mixture"] = adata.obs["mix"].astype(str)
        return found
    from .robustness import thin

    adata = datasets.load("simulated_f")[:200].copy()
    adata.obs["mixture"] = adata.obs["cell_type"].astype(str)
    half = adata.copy()
    half.X = thin(adata.X.tocsr(), 0.3)
    both = anndata.concat({"30": adata, "9": half}, label="amount", index_unique="-", merge="same")
    both.uns["source"] = adata.uns["source"]
    return {"simulated_f": both}


def _rounded(adata: AnnData) -> AnnData:
    adata.X.data = adata.X.data.round()
    adata.X.eliminate_zeros()
    return adata
