"""Score many models on a dataset, over seeds, storing each result once.

A model is a function ``(adata, seed) -> Embedding``, or one that returns an array whose rows are the cells of
`adata`; a score is a function ``(values, adata, seed) -> partial rows`` (:mod:`txfm_lite.evaluate.scores`).
What has been stored is read, not run again, so that a long comparison can stop and go on, and a new model
costs only its own runs.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import results
from . import scores

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

log = logging.getLogger("txfm_lite")

Model = Callable[["AnnData", int], "np.ndarray | scores.Embedding"]
Score = Callable[[np.ndarray, "AnnData", int], list[dict[str, Any]]]


def run(
    study: str,
    dataset: str,
    adata: AnnData,
    models: dict[str, Model],
    score: Score,
    seeds: Sequence[int] = (0,),
    folder: Path | None = None,
) -> pd.DataFrame:
    """Embed and score with every model and seed; store and return the rows.

    Parameters
    ----------
    study, dataset : str
        Results lie in ``<study>/<dataset>/<model>-seed<k>.json``.
    adata : AnnData
    models : dict
        Name -> function; a name should have a colour in :data:`txfm_lite.plots.MODELS`.
    score : callable
    seeds : sequence of int
        Each is passed to the model and to the score.
    folder : path, optional
        Of the results; by default the repository's.

    Returns
    -------
    DataFrame
        The rows of the models and seeds asked for, with their provenance.

    Raises
    ------
    ValueError
        If an embedding's rows are not the dataset's cells; the message says which model.
    """
    for name, model in models.items():
        for seed in seeds:
            where = path(study, dataset, name, seed)
            if results.stored(where, folder):
                continue
            log.info("%s: %s, seed %d", dataset, name, seed)
            start = time.monotonic()
            values = embed(name, model, adata, seed)
            embedded = time.monotonic()
            rows = scores.complete(score(values, adata, seed), dataset, name, seed)
            facts = {
                "data": results.fingerprint(adata),
                "dimensions": int(values.shape[1]),
                "minutes_embedding": round((embedded - start) / 60, 2),
                "minutes_scoring": round((time.monotonic() - embedded) / 60, 2),
            }
            results.write(where, rows, results.provenance(**facts), folder)
    frame = results.read(f"{study}/{dataset}", folder)
    return frame[frame["model"].isin(models) & frame["seed"].isin(seeds)].reset_index(drop=True)


def embed(name: str, model: Model, adata: AnnData, seed: int) -> np.ndarray:
    """Return a model's embedding of a dataset, row i for cell i, float32 (errors as in :func:`run`)."""
    found = model(adata, seed)
    if isinstance(found, scores.Embedding):
        return found.align(adata).astype(np.float32)
    if len(found) != adata.n_obs:
        raise ValueError(f"{name}: {len(found)} rows for {adata.n_obs} cells")
    return scores.Embedding(found, adata.obs_names, name).values.astype(np.float32)


def controls(of: Model) -> dict[str, Model]:
    """Return what every table shows beside the models; "scrambled" permutes the rows of the model `of`."""
    return {
        "scrambled": lambda adata, seed: scores.scrambled(embed("scrambled", of, adata, seed), seed),
        "constant": lambda adata, seed: scores.constant(adata.n_obs),
        "depth": lambda adata, seed: scores.depth(adata),
    }


def path(study: str, dataset: str, model: str, seed: int) -> str:
    """Return the name of a result: lower case, everything but letters and digits a hyphen."""
    slug = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return f"{study}/{dataset}/{slug}-seed{seed}"
