"""The libraries of gene sets at hand: what is trained on, what is tested on, what is kept out.

GSFM learns from the sets of hundreds of thousands of papers, and is tested on terms that people wrote. Where
Rummagene is out of reach, :func:`training` puts the experimental libraries of the manifests in its place. No
library of :func:`benchmark` is in it, no older version of one, and no single set that is much like one of
their terms: none of this depends on the care of whoever trains.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from txfm_lite import files, manifests
from txfm_lite.genesets_container import GeneSets, concatenate
from txfm_lite.genesets_files import ROWS, collect
from txfm_lite.genesets_overlap import copies, overlapping
from txfm_lite.genesets_symbols import resolve, symbols

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("txfm_lite")

BENCHMARK = "enrichr_rummageo_benchmark"
ENRICHR = "enrichr_2020_libraries"
# Other versions of the benchmark libraries: old halves of time splits, and copies.
VERSIONS = (
    (ENRICHR, "KEGG_2016"), (ENRICHR, "GWAS_Catalog_2019"), (ENRICHR, "GO_Biological_Process_2017"),
    (ENRICHR, "WikiPathways_2019_Human"), (ENRICHR, "Human_Phenotype_Ontology"),
    (ENRICHR, "MGI_Mammalian_Phenotype_Level_4"), ("gseapy_enrichr", "main"),
)  # fmt: skip
# Measured, not written down by curators; these can share no sentence of a database with a benchmark term.
EXPERIMENTAL = (
    "TF_Perturbations_Followed_by_Expression", "GeneSigDB", "Table_Mining_of_CRISPR_Studies",
    "Virus_Perturbations_from_GEO_up", "Virus_Perturbations_from_GEO_down",
    "Kinase_Perturbations_from_GEO_up", "Kinase_Perturbations_from_GEO_down", "TF-LOF_Expression_from_GEO",
    "LINCS_L1000_Ligand_Perturbations_up", "LINCS_L1000_Ligand_Perturbations_down",
    "MSigDB_Computational", "MSigDB_Oncogenic_Signatures", "ESCAPE",
    "Cancer_Cell_Line_Encyclopedia", "NCI-60_Cancer_Cell_Lines", "ARCHS4_Cell-lines", "ARCHS4_Tissues",
    "Human_Gene_Atlas", "Mouse_Gene_Atlas",
    "ARCHS4_IDG_Coexp", "ARCHS4_Kinases_Coexp", "ARCHS4_TFs_Coexp", "lncHUB_lncRNA_Co-Expression",
    "DepMap_WG_CRISPR_Screens_Broad_CellLines_2019", "DepMap_WG_CRISPR_Screens_Sanger_CellLines_2019",
    "Achilles_fitness_increase", "Achilles_fitness_decrease",
    "CCLE_Proteomics_2020", "ProteomicsDB_2020", "Tissue_Protein_Expression_from_Human_Proteome_Map",
    "SILAC_Phosphoproteomics", "SubCell_BarCode",
    "PPI_Hub_Proteins", "NURSA_Human_Endogenous_Complexome", "huMAP", "Transcription_Factor_PPIs",
)  # fmt: skip
TIERS = ("clean", "all")


def load(
    dataset: str,
    part: str | None = None,
    weights: bool = False,
    mouse: str | pd.DataFrame = "keep",
    resolved: bool = True,
) -> GeneSets:
    """Return a library of a manifest.

    Parameters
    ----------
    dataset, part
        A dataset with gene sets, see `datasets.available`; by default its `default_part`.
    weights
        Keep the weights of members where the source has them.
    mouse
        What becomes of mouse symbols, see :func:`~txfm_lite.genesets_symbols.symbols`; of RummaGEO's mouse
        sets, say.
    resolved
        Give every gene its one symbol; otherwise names stay as the source spells them.

    Raises
    ------
    TypeError
        If the part holds something else than gene sets.
    ValueError
        If the file is damaged, or its numbers are not the manifest's.
    """
    manifest = manifests.read(dataset)
    chosen, key = manifest.part(part), part or manifest.default_part
    if chosen.reader not in ROWS:
        raise TypeError(f"{dataset}, part {key} holds no gene sets: use datasets.read or datasets.load")
    (path,) = files.fetch(dataset, key)
    sets = collect(ROWS[chosen.reader](path, **chosen.options), path, library_name(dataset, key), weights)
    for what, found, expected in (
        ("sets", len(sets), chosen.n_obs),
        ("genes", len(sets.genes), chosen.n_vars),
    ):
        if expected is not None and found != expected:
            raise ValueError(
                f"{dataset}, part {key}: {found:,} {what} in {path}, {expected:,} in the manifest"
            )
    if not resolved:
        return sets
    return resolve(sets, symbols(sets, mouse, entrez=chosen.gene_ids == "entrez"))


def library_name(dataset: str, part: str) -> str:
    """Return what a library is called in `GeneSets.libraries`: the part, or the dataset if it has but one."""
    return dataset if part == "main" else part


def sources(sets: GeneSets | None = None) -> pd.DataFrame:
    """Return where libraries come from and what they may be used for.

    Parameters
    ----------
    sets
        Only the libraries of these; by default all that have a manifest.

    Returns
    -------
    DataFrame
        One row per library: dataset, part, title, licence, redistribution, commercial_use, citation, note.
        Libraries of a user's own have no row, and a library that two datasets hold has two.
    """
    import pandas as pd

    rows = []
    for manifest in map(manifests.read, manifests.names()):
        for key, part in manifest.parts.items():
            if part.reader in ROWS:
                rows.append({
                    "library": library_name(manifest.name, key), "dataset": manifest.name, "part": key,
                    "title": manifest.title, "licence": manifest.licence,
                    "redistribution": manifest.redistribution, "commercial_use": manifest.commercial_use,
                    "citation": manifest.citation, "note": part.note or manifest.note,
                })  # fmt: skip
    table = pd.DataFrame(rows).set_index("library")
    return table if sets is None else table[table.index.isin(set(sets.libraries))]


def benchmark() -> dict[str, GeneSets]:
    """Return the six libraries of the benchmark by name."""
    return {part: load(BENCHMARK, part) for part in manifests.read(BENCHMARK).parts}


def training(tier: str = "clean", threshold: float = 0.5, measure: str = "jaccard") -> GeneSets:
    """Return the sets that stand in for Rummagene, of 11 to 999 genes, each once.

    Parameters
    ----------
    tier
        "clean": experimental libraries, and signatures from papers (MSigDB's C2 CGP). "all": also curated,
        text-mined and computed ones, which draw on the databases that benchmark terms come from.
    threshold, measure
        Sets that overlap more with any term of a benchmark library, or of a version of one, are left out, and
        exact copies in any case; see :func:`~txfm_lite.genesets_overlap.overlapping`.

    Returns
    -------
    GeneSets
        In the order of the libraries; of copies the first one stays.
    """
    return _corpus(tier, threshold, measure)[0]


def training_report(tier: str = "clean", threshold: float = 0.5, measure: str = "jaccard") -> pd.DataFrame:
    """Return what each library gives to :func:`training`, and what was removed why.

    Returns
    -------
    DataFrame
        One row per library: `sets` in the file, of these `too_small`, `too_large`, `copies` of an earlier set,
        `like_benchmark`, and `kept`.
    """
    return _corpus(tier, threshold, measure)[1]


def _corpus(tier: str, threshold: float, measure: str) -> tuple[GeneSets, pd.DataFrame]:
    import pandas as pd

    if tier not in TIERS:
        raise ValueError(f"tier is {tier!r}; it has to be one of {', '.join(map(repr, TIERS))}")
    raw = concatenate([load(*which, resolved=False) for which in corpus_libraries(tier)])
    sets = resolve(raw)  # once per name, for all libraries together
    if tier == "all":
        sets = concatenate([sets, _pathways()[0]])
    terms = concatenate([*benchmark().values(), *(load(*version) for version in VERSIONS), _pathways()[1]])
    sizes = sets.sizes
    why = np.where(sizes < 11, "too_small", np.where(sizes > 999, "too_large", "kept")).astype(object)
    why[copies(sets) & (why == "kept")] = "copies"
    here = np.flatnonzero(why == "kept")
    like = overlapping(sets[here], terms, min(threshold, 1 - 1e-9), measure)
    why[here[like]] = "like_benchmark"
    columns = ["too_small", "too_large", "copies", "like_benchmark", "kept"]
    table = pd.crosstab(pd.Series(sets.libraries, name="library"), pd.Series(why)).reindex(
        index=pd.unique(sets.libraries), columns=columns, fill_value=0
    )
    table.insert(0, "sets", table.sum(axis=1))
    return sets[why == "kept"], table.rename_axis(index="library", columns=None)


def corpus_libraries(tier: str) -> list[tuple[str, str]]:
    """Return dataset and part of the libraries of a tier whose genes are symbols."""
    clean = [(ENRICHR, part) for part in EXPERIMENTAL]
    clean += [("msigdb_v7.0", "c2_cgp"), ("omics_nest_l1000_viral", "main")]
    if tier == "clean":
        return clean
    rest = [(ENRICHR, part) for part in manifests.read(ENRICHR).parts]
    rest += [("msigdb_v7.0", "hallmark"), ("chea3_chea2016", "main")]
    return clean + [which for which in rest if which not in clean and which not in VERSIONS]


def _pathways() -> tuple[GeneSets, GeneSets]:
    """Return Himmelstein's pathways without and with those of WikiPathways, a benchmark library."""
    sets = load("pathways_cc0_himmelstein")
    wiki = np.array([name.startswith("WP") for name in sets.names])
    return sets[~wiki], sets[wiki]


# --- old and new versions of one library --------------------------------------------------------------------


def _kegg(name: str) -> str:
    return name.split(" Homo sapiens")[0].lower()


def _go(name: str) -> str:
    return _found(r"GO:\d+", name)


def _wiki(name: str) -> str:
    return _found(r"WP\d+", name)


def _found(pattern: str, name: str) -> str:
    match = re.search(pattern, name)
    return match.group() if match else ""


# A pair's old library, its new one, and what two names of one term have in common.
TIME_SPLITS: dict[str, tuple[tuple[str, str], str, Callable[[str], str]]] = {
    "KEGG 2016-2021": ((ENRICHR, "KEGG_2016"), "KEGG_2021_Human", _kegg),
    "GWAS Catalog 2019-2023": ((ENRICHR, "GWAS_Catalog_2019"), "GWAS_Catalog_2023", str.lower),
    "GO BP 2017-2023": ((ENRICHR, "GO_Biological_Process_2017"), "GO_Biological_Process_2023", _go),
    "GO BP 2021-2023": (("gseapy_enrichr", "main"), "GO_Biological_Process_2023", _go),
    "WikiPathways 2019-2023": ((ENRICHR, "WikiPathways_2019_Human"), "WikiPathway_2023_Human", _wiki),
}


def time_splits() -> dict[str, tuple[GeneSets, GeneSets]]:
    """Return pairs of an old and a new version of a library, with the terms that both have.

    The terms of both are in the same order, and over the same genes, so that `new.csr() - old.csr()` is what was
    added (1) and withdrawn (-1).
    """
    pairs = {}
    for name, (old, new, key) in TIME_SPLITS.items():
        pairs[name] = matched(load(*old), load(BENCHMARK, new), key)
    return pairs


def matched(old: GeneSets, new: GeneSets, key: Callable[[str], str]) -> tuple[GeneSets, GeneSets]:
    """Return the sets of two libraries whose names have the same key, in the order of the old one.

    Of several sets with one key the first counts; sets with the key "" have no partner.
    """
    places: dict[str, int] = {}
    for i, name in enumerate(new.names):
        places.setdefault(key(name), i)
    partners = {key(name): i for i, name in reversed(list(enumerate(old.names)))}
    both = sorted((i, places[k]) for k, i in partners.items() if k and k in places)
    genes = np.union1d(old.genes, new.genes)
    first, second = (np.array([pair[side] for pair in both], dtype=int) for side in (0, 1))
    return old[first].over(genes), new[second].over(genes)
