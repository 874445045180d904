"""From many studies to one training corpus: the paper's rules as functions on AnnData.

The rules act on one dataset at a time and return copies: who may train (:func:`check_trainable`), which genes
have an identity (:func:`identified_genes`), which cells and genes carry enough signal (:func:`filter_cells`,
:func:`filter_genes`), which cells are in two datasets (:func:`duplicates`), and which whole batches are kept
for validation (:func:`split_batches`). :func:`build` applies them to several datasets and writes a corpus.

Decisions that the paper leaves open:

- *Measured* are all identified genes that a dataset's own matrix lists. The filter on genes only decides the
  vocabulary: a gene that is rare here but frequent in another study stays, with its true zeros.
- Cells are filtered before genes, so that empty droplets cannot vote for a gene.
- The library size of a sample is its total over all identified genes, inside the vocabulary or not.
- Validation batches are chosen per study: equally named batches of its parts are one batch, on one side.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from .corpus import Corpus
from .corpus_writer import CorpusWriter

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

log = logging.getLogger(__name__)

COUNT_UNITS = ("UMI counts", "read counts")
LARGEST_VALIDATION = 1 / 3  # a single batch larger than this share of its dataset is not held out
SAME_COUNTS = 0.9  # two cells with one barcode are one cell if this share of their counts agrees


@dataclass(frozen=True)
class Rules:
    """What decides a corpus, beside its datasets. The defaults are the paper's, for 1.4 million samples."""

    min_cells: int = 1_000  # single-cell: a gene must be expressed by this many cells of some dataset
    min_genes: int = 2_000  # single-cell: a cell stays if it expresses this many genes
    min_datasets: int = 1  # a gene must be measured by this many datasets
    min_measured_genes: int = 7_000  # a dataset with fewer is a panel (the paper's smallest has 8,248)
    panels: str = "drop"  # "drop", or "scale" their library sizes up to a whole transcriptome's
    validation_fraction: float = 0.1  # share of each dataset's samples to hold out, in whole batches (open)
    seed: int = 0  # which batches

    def __post_init__(self):
        if self.panels not in ("drop", "scale"):
            raise ValueError(f"panels is {self.panels!r}; allowed: 'drop', 'scale'")


PAPER = Rules()
MINI = Rules(min_cells=10, min_genes=200, min_datasets=2)  # for tens to thousands of samples per dataset


def check_trainable(adata: AnnData) -> None:
    """Refuse what must not enter a training corpus.

    Raises
    ------
    ValueError
        If the dataset's role is not "train" (held-out studies above all), or X does not hold counts.
    """
    source = adata.uns.get("source", {})
    name, role, units = (source.get(key, "not stated") for key in ("dataset", "role", "units"))
    if role != "train":
        raise ValueError(f"{name}: its role is {role!r}; only the role 'train' may enter a corpus")
    if units not in COUNT_UNITS:
        raise ValueError(f"{name}: X holds {units!r}; a corpus takes {' or '.join(COUNT_UNITS)}")


def identified_genes(adata: AnnData) -> AnnData:
    """Keep the genes whose identity was resolved (``var["matched"]``) and note each sample's total over them.

    The total goes to ``obs["library_size"]``.
    """
    kept = adata[:, adata.var["matched"].to_numpy(dtype=bool)].copy()
    kept.obs["library_size"] = np.asarray(kept.X.sum(axis=1), dtype=np.float64).ravel()
    log.info("identified genes: %d of %d", kept.n_vars, adata.n_vars)
    return kept


def filter_cells(adata: AnnData, min_genes: int) -> AnnData:
    """Keep the cells that express at least `min_genes` genes (2,000 in the paper)."""
    kept = adata[np.ravel((adata.X > 0).sum(axis=1)) >= min_genes].copy()
    log.info("cells with >= %d genes: %d of %d", min_genes, kept.n_obs, adata.n_obs)
    return kept


def filter_genes(adata: AnnData, min_cells: int) -> AnnData:
    """Keep the genes that at least `min_cells` cells express (1,000 in the paper)."""
    kept = adata[:, np.ravel((adata.X > 0).sum(axis=0)) >= min_cells].copy()
    log.info("genes in >= %d cells: %d of %d", min_cells, kept.n_vars, adata.n_vars)
    return kept


def is_panel(adata: AnnData, min_measured: int = 7_000) -> bool:
    """Tell whether a dataset lists too few genes to stand for a whole transcriptome.

    Normalising a few hundred genes to the library size of thousands multiplies every value by tens, and those
    values then dominate a loss that is averaged over genes.
    """
    return adata.n_vars < min_measured


def is_bulk(adata: AnnData) -> bool:
    """Tell whether the samples are bulk profiles, to which the rules for cells do not apply."""
    return adata.uns["source"].get("modality", "").startswith("bulk")


def held_out_batches(batch: pd.Series, fraction: float = 0.1, seed: int = 0) -> list[str]:
    """Choose the whole batches of one study that are kept for validation.

    In random order: the first batch that is no more than a third of the study, then others as long as the
    total stays within `fraction`. A study with one batch has none to hold out (half a batch is not a held-out
    batch), and samples of unknown batch stay in training.

    Parameters
    ----------
    batch : Series of str, shape (n_samples,)
        The batch of every sample; missing where it is not known.
    fraction : float
        Share of the samples to hold out, as far as whole batches allow; 0 holds out none.
    seed : int

    Returns
    -------
    list of str
    """
    sizes = batch.astype(object).value_counts().sort_index()
    held: list[str] = []
    if fraction > 0 and len(sizes) > 1:
        for name in np.random.default_rng(seed).permutation(sizes.index.to_numpy()):
            allowed = fraction if held else LARGEST_VALIDATION
            if sizes[[*held, name]].sum() <= allowed * len(batch):
                held.append(name)
    return held


def split_batches(adata: AnnData, fraction: float = 0.1, seed: int = 0) -> AnnData:
    """Return a copy with ``obs["split"]``: "validation" in :func:`held_out_batches`, "train" elsewhere."""
    adata = adata.copy()
    held = held_out_batches(adata.obs["batch"], fraction, seed)
    adata.obs["split"] = np.where(adata.obs["batch"].isin(held), "validation", "train")
    return adata


def barcodes(adata: AnnData) -> pd.Series:
    """Return the nucleotide barcode in each sample's name; missing where there is none (10 bases or more)."""
    return adata.obs_names.to_series().str.extract(r"([ACGT]{10,})", expand=False)


def duplicates(adata: AnnData, earlier: AnnData) -> np.ndarray:
    """Find the cells of `adata` that are in `earlier` too.

    The same cell carries the same barcode *and* the same counts. Barcodes alone repeat between libraries; so
    of the entries that are non-zero in either cell, over the genes that both list, 90 % must be equal.

    Returns
    -------
    ndarray of bool, shape (adata.n_obs,)
    """
    names = [barcodes(a).reset_index(drop=True).rename("barcode") for a in (adata, earlier)]
    here, there = (name.dropna().rename_axis("row").reset_index() for name in names)
    pairs = here.merge(there, on="barcode")
    found = np.zeros(adata.n_obs, dtype=bool)
    genes = adata.var_names.intersection(earlier.var_names)
    if len(pairs) and len(genes):
        x = adata[pairs["row_x"].to_numpy()][:, genes].X
        y = earlier[pairs["row_y"].to_numpy()][:, genes].X
        differ, either = (np.diff(m.tocsr().indptr) for m in (x != y, x + y))
        same = (either > 0) & (differ <= (1 - SAME_COUNTS) * either)
        found[pairs["row_x"].to_numpy()[same]] = True
    return found


def build(
    path: str | Path,
    datasets: Mapping[str, AnnData | Callable[[], AnnData]],
    rules: Rules = PAPER,
    *,
    overwrite: bool = False,
    **facts: Any,
) -> Corpus:
    """Curate datasets and write them as one corpus; one dataset is in memory at a time.

    Parameters
    ----------
    path : path
        Where the corpus will be.
    datasets : mapping of str to AnnData, or to a function that loads one
        Matrices as :func:`txfm_lite.datasets.load` gives them: counts in X, ``obs["batch"]``,
        ``var["matched"]``, ``uns["source"]``. A cell in several datasets counts for the first of them.
    rules : Rules
    overwrite : bool
        Replace a corpus that lies at `path`.
    **facts
        Stored in ``corpus.json``. `skipped`, a list of ``{"name", "reason"}``, is continued with the datasets
        that the rules leave out.

    Returns
    -------
    Corpus

    Raises
    ------
    ValueError
        If a dataset may not train (see :func:`check_trainable`), or none is left.
    """
    import anndata
    import pandas as pd
    from tqdm.auto import tqdm

    skipped = list(facts.pop("skipped", []))
    staged: dict[str, dict[str, Any]] = {}
    nominated: set[str] = set()
    measured_by: Counter[str] = Counter()
    batches: dict[str, list[pd.Series]] = {}
    seen: dict[Path, pd.Series] = {}
    with TemporaryDirectory() as folder:
        # The vocabulary is known when every dataset has been seen: stage them, then write them.
        for name, dataset in tqdm(datasets.items(), desc="curate", unit="dataset"):
            adata = dataset() if callable(dataset) else dataset
            check_trainable(adata)
            source, n_source = adata.uns["source"], adata.n_obs
            adata = identified_genes(adata)
            panel, bulk = is_panel(adata, rules.min_measured_genes), is_bulk(adata)
            if panel and rules.panels == "drop":
                reason = f"panel: {adata.n_vars:,} identified genes, fewer than {rules.min_measured_genes:,}"
                skipped.append({"name": name, "reason": reason})
                continue
            again = _in_earlier(adata, seen)
            adata = adata[~again].copy()
            if not bulk:
                # a panel shows fewer genes of the same cell: ask for fewer in proportion
                visible = adata.n_vars / rules.min_measured_genes if panel else 1
                adata = filter_cells(adata, rules.min_genes * visible)
            if not adata.n_obs:
                skipped.append({"name": name, "reason": "no sample passes the filters"})
                continue
            measured_by.update(adata.var_names)
            nominated.update(filter_genes(adata, 1 if bulk else rules.min_cells).var_names)
            batches.setdefault(source["dataset"], []).append(adata.obs["batch"])
            stage = Path(folder, f"{len(staged)}.h5ad")
            columns = adata.obs[["batch", "cell_type", "library_size"]]
            anndata.AnnData(adata.X, columns, adata.var[[]]).write_h5ad(stage)
            seen[stage] = barcodes(adata).dropna()
            staged[name] = {
                **{key: source.get(key, "") for key in ("citation", "licence", "units")},
                "study": source["dataset"],
                "modality": "bulk RNA" if bulk else "single-cell RNA",
                "panel": panel,
                "n_source": n_source,
                "n_duplicates": int(again.sum()),
            }
        genes = sorted(gene for gene in nominated if measured_by[gene] >= rules.min_datasets)
        if not genes:
            raise ValueError(f"no gene or no dataset is left for a corpus; left out: {skipped}")
        shares = _library_shares(folder, staged)
        split = rules.validation_fraction, rules.seed
        held = {study: held_out_batches(pd.concat(parts), *split) for study, parts in batches.items()}
        with CorpusWriter(path, genes, rules=asdict(rules), overwrite=overwrite) as writer:
            for i, name in enumerate(tqdm(staged, desc="write", unit="dataset")):
                adata = anndata.read_h5ad(Path(folder, f"{i}.h5ad"))
                mine = adata.obs["batch"].isin(held[staged[name]["study"]])
                adata.obs["split"] = np.where(mine, "validation", "train")
                writer.add(adata, name, library_share=shares.get(name, 1.0), **staged[name])
            return writer.finish(skipped=skipped, **facts)


def _in_earlier(adata: AnnData, seen: dict[Path, pd.Series]) -> np.ndarray:
    """Find the cells that a dataset staged before holds as well; only those of equal barcode are read."""
    import anndata

    found = np.zeros(adata.n_obs, dtype=bool)
    mine = barcodes(adata).dropna()
    for path, theirs in seen.items():
        shared = mine[mine.isin(theirs)].index
        if len(shared):
            earlier = anndata.read_h5ad(path, backed="r")
            found |= duplicates(adata, earlier[theirs[theirs.isin(mine)].index].to_memory())
            earlier.file.close()
    return found


def _library_shares(folder: str, staged: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Estimate the share of a whole transcriptome's counts that falls on each panel's genes.

    It is the mean over the corpus's own whole-transcriptome datasets of the same kind (cells or bulk).
    Tissues differ, so this is an estimate: better than taking a panel for a whole transcriptome, no more.
    """
    import anndata
    import pandas as pd

    profiles: dict[str, list[pd.Series]] = {}
    panels: dict[str, tuple[str, pd.Index]] = {}
    if not any(facts["panel"] for facts in staged.values()):
        return {}
    for i, (name, facts) in enumerate(staged.items()):
        adata = anndata.read_h5ad(Path(folder, f"{i}.h5ad"))
        if facts["panel"]:
            panels[name] = facts["modality"], adata.var_names
        else:
            mean = adata.X.multiply(1 / adata.obs["library_size"].to_numpy()[:, None]).mean(axis=0)
            profiles.setdefault(facts["modality"], []).append(pd.Series(np.ravel(mean), adata.var_names))
    for name, (modality, _) in panels.items():
        if modality not in profiles:
            raise ValueError(f"{name} is a panel: there is no whole {modality} dataset to scale it by")
    return {
        name: float(np.mean([profile.reindex(genes).sum() for profile in profiles[modality]]))
        for name, (modality, genes) in panels.items()
    }
