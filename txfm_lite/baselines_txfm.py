"""TxFM beside itself: with random weights, and trained on with the counts of the dataset to be scored.

The untrained model shows what the architecture alone does with the counts: how much of a score is no merit of
training. The fine-tuned one is the paper's self-supervised fine-tuning (its Table 3): the same objective on
the target's counts, no labels; it stands beside PCA and scVI fitted on the target.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .align import align, match_genes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from .txfm import TxFM

EPOCHS, FEWEST_STEPS = 20, 100  # the paper: 200 epochs; on a screen, cells set aside still gain at the end
FINE_TUNING_BATCH = 128
LEARNING_RATE = 1e-3
VALIDATION = 0.1  # share of the cells that only the history's losses are computed on


def embed_untrained(adata: AnnData, model: TxFM | str | Path = "txfm-xs", seed: int = 0) -> np.ndarray:
    """Embed with a model of the same shape and vocabulary whose weights are random, float32, shape (n, d).

    The weights are those that training would begin with, without what it takes from its corpus (mean profile,
    principal axes). A panel's totals are treated as for the trained model.
    """
    import torch

    from .embed import embed, ready
    from .txfm import TxFM

    model = ready(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = TxFM(model.config, model.genes).eval()
    return embed(_bare(adata), untrained, library_share=_share(adata, model))


def embed_fine_tuned(
    adata: AnnData,
    model: TxFM | str | Path = "txfm-xs",
    seed: int = 0,
    *,
    steps: int | None = None,
    learning_rate: float = LEARNING_RATE,
    history: list[pd.DataFrame] | None = None,
) -> np.ndarray:
    """Train a model on with a dataset's counts, then embed the dataset, float32, shape (n, d).

    The vocabulary is what model and dataset share; every other weight goes on from the model's. A tenth of
    the cells is only looked at.

    Parameters
    ----------
    adata : AnnData
        Raw counts in X, as :func:`txfm_lite.embed.embed` takes them.
    model : TxFM, or the name or folder of one
        Where to start.
    seed : int
        Of the cells set aside and of every draw in training.
    steps : int, optional
        Of 128 cells each, under one cosine cycle of the learning rate; by default 20 passes over the cells,
        at least 100 steps.
    learning_rate : float
        Its peak.
    history : list, optional
        The course of training is appended, see :attr:`txfm_lite.training.Run.history`.
    """
    from .corpus_writer import CorpusWriter
    from .embed import embed, ready
    from .training import TrainConfig, fit

    model = ready(model)
    share, target = _share(adata, model), _known_genes(adata, model.genes)
    if share < 1:  # as embed does with panels
        target.obs["library_size"] = np.maximum(target.X.sum(axis=1).A1, 1) / share
    n = max(1, round(VALIDATION * target.n_obs))
    aside = np.random.default_rng(seed).permutation(target.n_obs)[:n]
    target.obs["split"] = np.where(np.isin(np.arange(target.n_obs), aside), "validation", "train")
    config = dataclasses.replace(model.config, n_genes=target.n_vars)
    batch_size = min(FINE_TUNING_BATCH, target.n_obs - n)
    steps = steps or max(FEWEST_STEPS, EPOCHS * (target.n_obs - n) // batch_size)
    schedule = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
        validate_every=max(1, steps // 5),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        with CorpusWriter(Path(folder) / "corpus", target.var_names) as writer:
            writer.add(target, "target")
            corpus = writer.finish()
        run = fit(corpus, config, schedule, Path(folder) / "run", init=model, progress=False)
        if history is not None:
            history.append(run.history)
    return embed(target, run.model, library_share=share)


def _share(adata: AnnData, model: TxFM) -> float:
    """Return what embed would divide a panel's totals by; 1 for a whole transcriptome."""
    from .embed import PANEL, library_share

    match = match_genes(adata.var, model.genes)
    return 1.0 if match.identified.sum() >= PANEL else library_share(model, match.measured)


def _bare(adata: AnnData) -> AnnData:
    """Return the same counts, so that embed writes its results there and not into the caller's object."""
    import anndata

    return anndata.AnnData(adata.X, adata.obs[[]], adata.var)


def _known_genes(adata: AnnData, genes: list[str]) -> AnnData:
    """Return the counts of the genes that are in the vocabulary, under the vocabulary's names."""
    import anndata
    import pandas as pd

    counts, measured, library_size = align(adata, genes)
    var = pd.DataFrame({"matched": True}, index=np.asarray(genes)[measured])
    obs = pd.DataFrame({"library_size": library_size}, index=adata.obs_names)
    return anndata.AnnData(counts[:, measured], obs, var)
