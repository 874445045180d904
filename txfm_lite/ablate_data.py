"""What the ablations train and score on, prepared once as plain files that numpy alone reads.

Table 5 of the TxFM paper varies, among others, how much of a CRISPRi screen of K562 cells is trained on. Ours
is Gasperini's, the only screen here that may train, a panel of 366 genes. One of its batches trains, and no
cell of the others ever does; the other screens are held out entirely. Of the training batch there are

==========  ==================================================================================================
none        nothing
controls    cells with one non-targeting guide
curated     these, and the cells of phenoprints (:mod:`txfm_lite.phenoprints`), judged by the shipped model
full        all cells, also those whose guides the files do not name: most of a screen that nobody has curated
random      as many cells as `curated` has, drawn from `full`
==========  ==================================================================================================

The permutation test decides what a phenoprint is: by the paper's, next to nothing of this screen is one. All
variants have the same genes and the same validation batches. A panel's counts are divided by its share of the
corpus' mean profile, here and for what is scored, so that no score depends on a model's own idea of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .corpus import Corpus
from .corpus_writer import CorpusWriter, write_subset

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

VARIANTS = ("none", "controls", "curated", "full", "random")
SCREEN, SIMULATED_SCREEN = "gasperini2019_k562_highmoi", "simulated_d"


@dataclass(frozen=True)
class Study:
    """Samples to embed: CSR arrays over the vocabulary, and what they are scored by.

    Parameters
    ----------
    indptr, indices, counts : ndarray
        CSR triple of n rows.
    library_size : ndarray, shape (n,)
        Counts of each whole profile; of a panel, as if all genes had been counted.
    measured : ndarray of bool, shape (G,)
    labels : ndarray of str, shape (n,)
        Perturbation, or cell type.
    batches : ndarray of str, shape (n,)
    controls : ndarray of bool, shape (n,)
        All False for cell types.
    """

    indptr: np.ndarray
    indices: np.ndarray
    counts: np.ndarray
    library_size: np.ndarray
    measured: np.ndarray
    labels: np.ndarray
    batches: np.ndarray
    controls: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """A folder made by :func:`prepare`.

    Parameters
    ----------
    path : path
    info : dict
        `data` and `n_genes`, as asked for; `unseen`, the screens of which nothing is trained on;
        `phenoprints`, kept and dropped.
    """

    path: Path
    info: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Prepared:
        """Open a prepared folder.

        Raises
        ------
        FileNotFoundError
            If it is not there or not whole.
        """
        path = Path(path)
        if not (path / "info.json").is_file():
            raise FileNotFoundError(f"{path}: nothing is prepared here; ablate_data.prepare does it")
        return cls(path, json.loads((path / "info.json").read_text()))

    @cached_property
    def whole(self) -> Corpus:
        """All that any variant trains on."""
        return Corpus.open(self.path / "corpus")

    @cached_property
    def pairs(self) -> dict[str, pd.DataFrame]:
        """Known relationships among the vocabulary's genes: database -> `entity1`, `entity2`."""
        import pandas as pd

        with np.load(self.path / "pairs.npz") as file:
            return {
                k: pd.DataFrame(v.astype(object), columns=["entity1", "entity2"]) for k, v in file.items()
            }

    def study(self, name: str) -> Study:
        """Read the study of a name in ``info["screens"]`` or ``info["cell_types"]``."""
        with np.load(self.path / f"{name}.npz") as file:
            return Study(**file)

    def corpus(self, variant: str, folder: str | Path) -> Corpus:
        """Return a variant of the training data, cut from the whole into `folder` unless it is there.

        Raises
        ------
        ValueError
            For an unknown variant.
        """
        if variant not in VARIANTS:
            raise ValueError(f"no training data are called {variant!r}; there are {', '.join(VARIANTS)}")
        path = Path(folder) / variant
        if not (path / "corpus.json").is_file():
            with np.load(self.path / "variants.npz") as file:
                rows = np.flatnonzero(file[variant])
            try:
                return write_subset(self.whole, path, rows=rows)
            except OSError:  # another process has been faster
                pass
        return Corpus.open(path)


def prepare(path: str | Path, data: str = "real", n_genes: int = 2048) -> Prepared:
    """Make the files, or open them if they are there.

    Parameters
    ----------
    path : path
        A folder; some 50 MB for the real data.
    data : str
        "real", or "simulated" for the stand-ins.
    n_genes : int
        The corpus' most variable genes that are in the vocabulary, beside those of the screens' panels.

    Raises
    ------
    ValueError
        If the folder holds other data.
    """
    from . import curate, datasets, studies
    from .corpus import select_variable_genes
    from .pretraining import mean_profile

    path = Path(path)
    if (path / "info.json").is_file():
        found = Prepared.open(path)
        if (there := (found.info["data"], found.info["n_genes"])) != (data, n_genes):
            raise ValueError(f"{path}: holds {there[0]} data of {there[1]} genes: name another folder")
        return found
    path.mkdir(parents=True, exist_ok=True)
    base, simulated = studies.common_corpus(data), studies.stand_ins(data)
    name = SIMULATED_SCREEN if simulated else SCREEN
    screen = datasets.load(name)
    curate.check_trainable(screen)
    screen = curate.identified_genes(screen)
    unseen = {k: a for k, a in studies.screens(data).items() if k != name}
    least = base.info["rules"]["min_measured_genes"]
    # few genes of a panel vary most; of simulated screens all are wanted, for the pairs of their targets
    whole_lists = [a for a in (screen, *unseen.values()) if simulated or curate.is_panel(a, least)]
    chosen = set(select_variable_genes(base, min(n_genes, base.n_genes)))
    genes = base.genes[np.isin(base.genes, sorted(chosen.union(*(a.var_names for a in whole_lists))))]

    profile = mean_profile(base, 1.0)  # each gene's share of a library

    def share(adata: AnnData) -> float:
        panel = curate.is_panel(adata, least)
        return min(1.0, float(profile[np.isin(base.genes, adata.var_names)].sum())) if panel else 1.0

    least_genes = base.info["rules"]["min_genes"] * min(1.0, screen.n_vars / least)  # a panel shows fewer
    screen = curate.filter_cells(screen, least_genes)
    batches = screen.obs["batch"].astype(str)
    trains = (batches == batches.min()).to_numpy()
    training, rest = screen[trains].copy(), studies.screen(screen[~trains].copy())
    parts = _curated(training, simulated)
    facts = {"modality": "single-cell RNA", "study": name, "panel": curate.is_panel(screen, least)}
    facts["library_share"] = share(screen)
    rules = {**base.info["rules"], "subset_of": base.fingerprint}
    with CorpusWriter(path / "corpus", genes, rules=rules, overwrite=True) as writer:
        for code, of in enumerate(base.datasets):
            if of["name"] != name:
                writer.add(_dataset(base, code), **of)
        writer.add(training, name, **facts)
        whole = writer.finish()
    _save(path / "variants.npz", **_variants(whole, name, training, parts["cells"]))
    screens = {**unseen, f"{name}, unseen batches": rest}
    kinds = {"screens": screens, "cell_types": studies.held_out(data)}
    for adatas, label in zip(kinds.values(), ("perturbation", "cell_type"), strict=True):
        for key, adata in adatas.items():
            _save(path / f"{key}.npz", **_study(adata, genes, share(adata), label))
    _save(path / "pairs.npz", **_pairs(genes, screens if simulated else None))
    info = {
        "data": data, "n_genes": n_genes, "unseen": list(unseen),
        **{kind: list(found) for kind, found in kinds.items()},
        "screen": name, "phenoprints": {k: parts[k] for k in ("kept", "dropped")},
    }  # fmt: skip
    (path / "info.json").write_text(json.dumps(info, indent=1))
    return Prepared.open(path)


def _dataset(corpus: Corpus, code: int) -> AnnData:
    """Return one dataset of a corpus: the genes that it measures, and what a writer takes from ``obs``."""
    import anndata
    import pandas as pd

    rows, measured = np.flatnonzero(corpus.dataset == code), np.flatnonzero(corpus.measured[code])
    facts, obs = corpus.datasets[code], corpus.obs().iloc[rows].drop(columns="dataset")
    obs["library_size"] *= facts["library_share"]  # which the writer applies again
    obs["batch"] = (
        obs["batch"].astype(object).str.removeprefix(f"{facts['name']}:")
    )  # and this it puts before
    return anndata.AnnData(corpus.csr(rows)[:, measured], obs, pd.DataFrame(index=corpus.genes[measured]))


def _code(corpus: Corpus, name: str) -> int:
    """Return a dataset's number in a corpus, or one that no sample has."""
    names = [d["name"] for d in corpus.datasets]
    return names.index(name) if name in names else len(names)


def _curated(training: AnnData, simulated: bool) -> dict[str, Any]:
    """Return the names of kept and dropped perturbations, and of the cells of the smaller variants."""
    from . import studies
    from .baselines import embed_pca
    from .embed import embed
    from .phenoprints import phenoprints

    labelled = studies.screen(training)
    earlier = embed_pca(labelled, 16) if simulated else embed(labelled, "txfm-xs")
    found = phenoprints(labelled, earlier, against="permutations")
    controls = labelled.obs["is_control"].to_numpy()
    cells = {"controls": labelled.obs_names[controls], "curated": labelled.obs_names[found.cells]}
    return {"kept": found.kept, "dropped": found.dropped, "cells": cells}


def _variants(whole: Corpus, name: str, training: AnnData, cells: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return which rows of the whole belong to which variant."""
    mine = np.flatnonzero(whole.dataset == _code(whole, name))
    drawn = np.random.default_rng(0).choice(len(mine), len(cells["curated"]), replace=False)
    inside = {
        "none": np.zeros(len(mine), dtype=bool),
        **{variant: training.obs_names.isin(named) for variant, named in cells.items()},
        "full": np.ones(len(mine), dtype=bool),
        "random": np.isin(np.arange(len(mine)), drawn),
    }
    masks = {variant: np.ones(len(whole), dtype=bool) for variant in VARIANTS}
    for variant, mask in masks.items():
        mask[mine] = inside[variant]
    return masks


def _study(adata: AnnData, genes: Sequence[str], share: float, label: str) -> dict[str, np.ndarray]:
    """Return what a :class:`Study` holds, of the samples whose label and batch are known."""
    from .align import align

    known = (adata.obs[label].notna() & adata.obs["batch"].notna()).to_numpy()
    adata = adata[known & (np.ravel(adata.X.sum(axis=1)) > 0)].copy()
    counts, measured, library_size = align(adata, genes)
    controls = (
        adata.obs["is_control"].to_numpy(bool) if label == "perturbation" else np.zeros(len(adata), bool)
    )
    return {
        "indptr": counts.indptr, "indices": counts.indices.astype(np.uint16),
        "counts": counts.data.astype(np.uint32), "library_size": library_size / share, "measured": measured,
        "labels": adata.obs[label].to_numpy(str), "batches": adata.obs["batch"].to_numpy(str),
        "controls": controls,
    }  # fmt: skip


def _pairs(genes: np.ndarray, screens: dict[str, AnnData] | None) -> dict[str, np.ndarray]:
    """Return the known pairs among some genes; of simulated screens, the targets of one programme."""
    import pandas as pd

    from . import simulate
    from .evaluate.genes import known_pairs

    if screens:
        found = {
            "programme": pd.concat(
                [simulate.partners(a) for a in screens.values() if "target" in a.uns["truth"]]
            )
        }
    else:
        found = known_pairs()
    there = {name: frame[frame.isin(set(genes)).all(axis=1)] for name, frame in found.items()}
    return {name: frame.to_numpy(str).reshape(-1, 2) for name, frame in there.items()}


def _save(path: Path, **arrays: np.ndarray) -> None:
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(aside, path)
