"""Which perturbations of a screen are worth training on: those whose cells look alike to an earlier model.

A genome-wide screen is mostly perturbations without an effect. The TxFM paper keeps *phenoprints*: with the
embeddings of a model trained before, the perturbations whose consistency has p < 0.1, and all controls; about
a quarter of its K562 screen. It names the test by which it scores perturbation consistency, and that one
is none or all where single cells are noisy (:mod:`txfm_lite.evaluate.consistency`). So there are two here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ALPHA = 0.1  # the paper's


@dataclass(frozen=True)
class Phenoprints:
    """What is kept of a screen, and what is dropped.

    Parameters
    ----------
    table : DataFrame
        Indexed by perturbation, the most consistent first: `n` cells, `statistic`, `p`, and `kept`.
    cells : ndarray of bool, shape (n,)
        The controls and the cells of kept perturbations.
    """

    table: pd.DataFrame
    cells: np.ndarray

    @property
    def kept(self) -> list[str]:
        """Perturbations that are kept."""
        return self.table.index[self.table["kept"]].tolist()

    @property
    def dropped(self) -> list[str]:
        """Perturbations that are left out."""
        return self.table.index[~self.table["kept"]].tolist()


def phenoprints(
    adata: AnnData,
    embedding: np.ndarray,
    *,
    alpha: float = ALPHA,
    against: str = "single cells",
    seed: int = 0,
) -> Phenoprints:
    """Keep the perturbations whose cells point the same way in an embedding.

    The embedding is turned to the controls' axes and standardised by batch first, as the paper does.

    Parameters
    ----------
    adata : AnnData
        ``obs`` has `perturbation`, `is_control` and `batch`, none missing, and two controls in each batch.
    embedding : ndarray, shape (n, d)
        Of the same cells, by a model that was trained before.
    alpha : float
        A perturbation stays if its p is below.
    against : str
        "single cells", the paper's test, or "permutations", which is calibrated: of perturbations without an
        effect, it keeps the share `alpha`.
    seed : int
        Of the null.

    Returns
    -------
    Phenoprints
        A perturbation with a single cell has no consistency, and is dropped with a missing p.

    Raises
    ------
    ValueError
        If columns are missing or incomplete, lengths differ, `alpha` is no share, or `against` is unknown.
    """
    from .evaluate import alignment, consistency
    from .evaluate.perturbations import Screen

    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: should lie between 0 and 1")
    if against not in ("single cells", "permutations"):
        raise ValueError(f"against = {against!r}: there are 'single cells' and 'permutations'")
    if len(embedding) != adata.n_obs:
        raise ValueError(f"{len(embedding)} embeddings for {adata.n_obs} cells")
    screen = Screen.of(adata.obs, adata.X, None)
    x = alignment.control_axes(embedding, screen.batches, screen.controls)
    if against == "single cells":
        found = consistency.against_single_cells(x, screen.groups, screen.controls, seed=seed)
    else:
        found = consistency.against_permutations(x, screen.groups, screen.controls, screen.batches, seed=seed)
    every = np.unique(screen.groups[~screen.controls])
    table = found[["n", "statistic", "p"]].reindex(every)
    table["n"] = table["n"].fillna(1).astype(int)
    table = table.assign(kept=table["p"] < alpha).sort_values(["p", "statistic"], ascending=[True, False])
    return Phenoprints(table, screen.controls | np.isin(screen.groups, table.index[table["kept"]]))
