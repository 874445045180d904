"""What a chapter runs on: the real studies, or, where they cannot be had, stand-ins that come with the code.

A chapter asks for "the training corpus" and "the held-out studies" and gets the same kinds of objects either
way; ``notebook.banner()`` tells the reader which ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import datasets
from .files import cache_directory

if TYPE_CHECKING:
    from anndata import AnnData

    from .corpus import Corpus
    from .curate import Rules

#: Held-out studies of whole transcriptomes with labels in several batches: dataset -> (part, batches).
HELD_OUT = {
    "sc_mixology": ("single_cells", "plates and protocols"),
    "darmanis_brain": ("main", "tissue samples"),
}
SIMULATED = tuple(f"simulated_{x}" for x in "abcde")
SIMULATED_HELD_OUT = {"simulated_f": ("main", "simulated batches")}


def embedded() -> bool:
    """Tell whether stand-ins are in use: some training file is neither here nor to be downloaded."""
    return datasets.source() == "embedded"


def training_corpus(rules: Rules | None = None, path: str | Path | None = None) -> Corpus:
    """Build DiverseRNA-mini, or open it if it is there; the simulated studies take its place if need be.

    Parameters
    ----------
    rules : Rules, optional
        By default :data:`txfm_lite.curate.MINI`. For the simulated studies, which have fewer genes, the
        thresholds on genes are lowered.
    path : path, optional
        By default a folder in the cache.
    """
    from . import diverserna
    from .curate import MINI, build

    rules = rules or MINI
    folder = cache_directory() / "corpora"
    if not embedded():
        return diverserna.diverserna_mini(path or folder / "diverserna-mini", rules)
    rules = replace(rules, min_measured_genes=500, min_genes=100)
    loaders = {name: partial(datasets.load, name) for name in SIMULATED}
    return build(path or folder / "simulated", loaders, rules, overwrite=True)


def held_out() -> dict[str, AnnData]:
    """Load the held-out studies, by name."""
    chosen = SIMULATED_HELD_OUT if embedded() else HELD_OUT
    return {name: datasets.load(name, part) for name, (part, _) in chosen.items()}
