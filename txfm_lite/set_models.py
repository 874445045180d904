"""A gene set model that is ready for use: the shipped one, or a small one that is trained on the spot."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from . import files, genesets
from .genesets import GeneSets
from .gsfm import GSFM, GSFMConfig
from .gsfm_blocks import SPECIALS
from .gsfm_training import GSFMTrainConfig, fit

log = logging.getLogger(__name__)

N_SETS = 6000  # of the corpus, for the small model
LEAST = 20  # sets with a gene of its vocabulary


def ready_gsfm(name: str = "gsfm-xs") -> GSFM:
    """Return a model by its name or folder; for want of the shipped one, a small one from the cache.

    The small one has a quarter of the published width and is trained for three passes over 6,000 sets of
    :func:`txfm_lite.genesets.training`: some minutes, once. It is enough to run a page, not to be quoted.

    Raises
    ------
    FileNotFoundError
        If another model than the shipped one is asked for and is not there.
    """
    try:
        return GSFM.from_pretrained(name)
    except FileNotFoundError:
        if name != "gsfm-xs":
            raise
    folder = files.cache_directory() / "gsfm" / "small"
    if not (folder / "model" / "config.json").exists():
        log.warning("the shipped weights are not here: a small model is trained instead")
        corpus = genesets.training("clean")
        step = max(1, len(corpus) // N_SETS)
        small_gsfm(corpus[::step], folder, least=LEAST)
    return GSFM.from_pretrained(folder / "model")


def small_gsfm(
    sets: GeneSets, folder: str | Path | None = None, *, d_model: int = 64, epochs: int = 3, least: int = 1
) -> GSFM:
    """Train a small model on some sets.

    Parameters
    ----------
    sets : GeneSets
    folder : path, optional
        Of the run; by default a temporary one.
    d_model, epochs : int
    least : int
        A gene of the vocabulary is in so many sets.
    """
    genes = genesets.vocabulary(sets, least)
    known = sets.over(genes)
    folder = Path(folder or tempfile.mkdtemp(prefix="gsfm-"))
    config = GSFMConfig(len(genes) + len(SPECIALS), d_model=d_model)
    schedule = GSFMTrainConfig(epochs=epochs, batch_size=32, look_every=epochs)
    return fit(known[known.sizes > 0], config, schedule, folder, genes=genes, progress=False).model
