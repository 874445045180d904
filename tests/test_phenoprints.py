"""Phenoprints: perturbations with an effect are kept, those without are not, controls always stay."""

import anndata
import numpy as np
import pandas as pd
import pytest

from txfm_lite.phenoprints import phenoprints

EFFECTS, NULLS, CELLS, CONTROLS, WIDTH = 12, 60, 30, 400, 10


def screen(effect: float, seed: int = 0) -> tuple[anndata.AnnData, np.ndarray]:
    """A screen of three shifted batches, with effects of known length, in standard deviations."""
    rng = np.random.default_rng(seed)
    names = [f"hit{i}" for i in range(EFFECTS)] + [f"null{i}" for i in range(NULLS)]
    groups = np.array(np.repeat(names, CELLS).tolist() + ["control"] * CONTROLS)
    batch = rng.integers(3, size=len(groups))
    obs = pd.DataFrame(
        {"perturbation": groups, "is_control": groups == "control", "batch": batch.astype(str)}
    )
    directions = {name: rng.normal(size=WIDTH) for name in names if name.startswith("hit")}
    shift = np.array([effect * _unit(directions[g]) if g in directions else np.zeros(WIDTH) for g in groups])
    values = rng.normal(size=(len(groups), WIDTH)) + shift + rng.normal(0, 3, (3, WIDTH))[batch]
    return anndata.AnnData(
        np.ones((len(groups), 1), np.float32), obs.set_index(obs.index.astype(str))
    ), values


def _unit(x):
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("against, effect", [("permutations", 1.5), ("single cells", 6.0)])
def test_known_effects_are_kept_and_controls_stay(against, effect):
    adata, values = screen(effect)
    found = phenoprints(adata, values, against=against)
    hits = {f"hit{i}" for i in range(EFFECTS)}
    assert hits <= set(found.kept)
    # 60 without an effect at 0.1: more than 13 once in 1,000 (the binomial), none where single cells decide
    assert len(set(found.kept) - hits) <= (13 if against == "permutations" else 0)
    assert sorted(found.kept + found.dropped) == sorted(set(adata.obs["perturbation"]) - {"control"})
    wanted = adata.obs["is_control"] | adata.obs["perturbation"].isin(found.kept)
    assert np.array_equal(found.cells, wanted.to_numpy())
    assert found.table["p"].is_monotonic_increasing and (found.table["n"] == CELLS).all()


def test_without_effects_permutations_keep_the_share_alpha():
    kept = [len(phenoprints(*screen(0.0, seed), against="permutations", alpha=0.2).kept) for seed in range(3)]
    n = 3 * (EFFECTS + NULLS)
    assert abs(sum(kept) / n - 0.2) < 4 * np.sqrt(0.2 * 0.8 / n)


def test_a_perturbation_of_one_cell_is_dropped():
    adata, values = screen(4.0)
    alone = np.flatnonzero(adata.obs["perturbation"] == "hit0")[1:]
    keep = np.setdiff1d(np.arange(adata.n_obs), alone)
    found = phenoprints(adata[keep].copy(), values[keep], against="permutations")
    assert "hit0" in found.dropped and found.table.loc["hit0", ["n"]].item() == 1
    assert np.isnan(found.table.loc["hit0", "p"]) and found.table.index[-1] == "hit0"


def test_bad_input_is_named():
    adata, values = screen(1.0)
    with pytest.raises(ValueError, match=r"alpha = 10: should lie between 0 and 1"):
        phenoprints(adata, values, alpha=10)
    with pytest.raises(ValueError, match="there are 'single cells' and 'permutations'"):
        phenoprints(adata, values, against="controls")
    with pytest.raises(ValueError, match="3 embeddings for 2560 cells"):
        phenoprints(adata, values[:3])
    with pytest.raises(ValueError, match="obs has no column 'batch'"):
        phenoprints(anndata.AnnData(adata.X, adata.obs.drop(columns="batch")), values)
