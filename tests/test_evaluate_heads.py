"""The comparison of input heads: equal budgets, what is stored, what needs no model."""

import dataclasses

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from txfm_lite import results, studies
from txfm_lite.embed_tokens import tokens
from txfm_lite.evaluate import heads

TINY = heads.Budget(
    n_genes=200, n_tokens=16, n_revealed=32, d_model=8, n_blocks=1, n_heads=2, batch_size=8, steps=3,
    trial_steps=2, learning_rates=(1e-3, 1e-2), n_components=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus")
    whole = studies.training_corpus(path / "whole", data="simulated")
    return heads.corpus(whole, TINY, path / "small")


@pytest.fixture(scope="module")
def compared(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    held_out = {name: heads.some(a, 150) for name, a in studies.held_out("simulated").items()}
    rows = heads.compare(corpus, held_out, TINY, range(2), path, path / "results")
    return rows, path, held_out


def test_budgets_are_equal(corpus):
    rank, bins, txfm = (heads.shape(arm, corpus.n_genes, TINY) for arm in heads.ARMS)
    assert dataclasses.replace(rank, head="bin") == bins
    assert txfm.d_model == rank.d_model and txfm.n_heads == rank.n_heads
    schedules = {heads.schedule(TINY, 1e-3, 0) for _ in heads.ARMS}
    assert len(schedules) == 1
    with pytest.raises(ValueError, match="no arm 'ranks'; there are rank, bin, TxFM"):
        heads.shape("ranks", 10, TINY)


def test_all_is_scored_and_stored_once(compared, corpus):
    rows, path, held_out = compared
    known = {*heads.ARMS, *(f"{arm} untrained" for arm in heads.ARMS), *heads.SEED_FREE}
    assert set(rows["model"]) == known
    n_seeds = rows.groupby("model")["seed"].nunique()
    assert all(n_seeds[m] == (1 if m in heads.SEED_FREE else 2) for m in known)
    assert set(rows["variant"]) == {"across batches", "within batches"}
    assert rows["value"].between(0, 1).all()
    (path / "rank-seed0" / "model" / "config.json").unlink()  # whoever trained again would notice
    again = heads.compare(
        corpus, held_out, dataclasses.replace(TINY), range(1), path / "empty", path / "results"
    )
    first = rows[rows["seed"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(again[first.columns], first, check_dtype=False)
    curves = results.read("rank-heads-training", path / "results")
    assert set(curves["arm"]) == set(heads.ARMS)
    sizes = curves.dropna(subset="n_parameters").groupby("arm")["n_parameters"].unique()
    assert sizes["rank"] == sizes["bin"] and len(sizes["rank"]) == 1


def test_the_rate_is_that_of_the_lowest_validation_loss(compared):
    _, path, _ = compared
    for arm in heads.ARMS:
        trials = results.read(f"rank-heads-training/rates-{arm.lower()}", path / "results")
        curve = results.read(f"rank-heads-training/{arm.lower()}-seed0", path / "results")
        assert curve["rate"].unique() == trials.set_index("rate")["loss"].idxmin()


def test_untrained_is_the_model_at_step_zero(corpus, tmp_path):
    from txfm_lite.training import fit

    for arm in heads.ARMS:
        config = heads.schedule(TINY, 1e-3, 5)
        run = fit(corpus, heads.shape(arm, corpus.n_genes, TINY), config, tmp_path / arm, progress=False,
                  snapshots=[0])  # fmt: skip
        fresh = heads.untrained(arm, corpus, TINY, 5)
        start = type(run.model).from_pretrained(tmp_path / arm / "snapshots" / "step-0")
        for name, weights in start.state_dict().items():
            assert torch.equal(fresh.state_dict()[name], weights), name


def test_tokens_as_numbers(compared, corpus):
    _, path, held_out = compared
    adata = next(iter(held_out.values()))[:20].copy()
    from txfm_lite.rankformer import Rankformer

    for head in ("rank", "bin"):
        model = Rankformer(heads.shape(head, corpus.n_genes, TINY), corpus.genes.tolist())
        genes, levels, shown = tokens(adata, model)
        bag = heads.dense(adata, model, "top genes")
        assert bag.sum() == shown.sum() and set(np.unique(bag)) == {0, 1}
        x = heads.dense(adata, model, f"{head} tokens")
        assert ((x > 0) == (bag > 0)).all()
        i, j = 3, 2
        expected = 1 - j / TINY.n_tokens if head == "rank" else 1 + levels[i, j]
        assert x[i, genes[i, j]] == pytest.approx(expected)


def test_probes_know_what_separates_and_what_does_not():
    rng = np.random.default_rng(0)
    labels, batches = np.repeat(["a", "b"], 60), np.tile(["x", "y", "z"], 40)
    obs = pd.DataFrame({"cell_type": labels, "batch": batches}, index=[str(i) for i in range(120)])
    adata = anndata.AnnData(np.zeros((120, 1)), obs)
    good = rng.normal(size=(120, 3)) + 4 * (labels == "a")[:, None]
    for values, low, high in ((good, 0.9, 1.0), (rng.normal(size=(120, 3)), 0.25, 0.75)):
        rows = pd.DataFrame(heads.score(values, adata, 0))
        assert rows["value"].between(low, high).all() and len(rows) == 5
    # a shift per batch and type, which a probe can learn only where it has seen the batch
    codes = np.searchsorted(["x", "y", "z"], batches)
    shifted = np.eye(3)[codes] * np.where(labels == "a", 5, -5)[:, None] + rng.normal(size=(120, 3))
    f1 = pd.DataFrame(heads.score(shifted, adata, 0)).query("metric == 'LR F1'").set_index("variant")["value"]
    assert f1["within batches"] > 0.95 > 0.8 > f1["across batches"]


def test_log_counts_have_a_column_for_every_gene(corpus):
    """Also for a study that lacks some: studies can be put side by side."""
    adata = next(iter(studies.held_out("simulated").values()))[:5].copy()
    few = adata[:, ::2].copy()
    whole, half = (heads.log_counts(a, corpus.genes) for a in (adata, few))
    assert whole.shape == half.shape == (5, corpus.n_genes)
    measured = np.isin(corpus.genes, few.var_names)
    assert (half[:, ~measured] == 0).all() and (half[:, measured] > 0).any()
    total = np.asarray(adata.X.sum(1)).ravel()
    gene = corpus.genes[measured][0]
    expected = np.log1p(adata[:, gene].X.toarray().ravel() / total * 1e5)
    np.testing.assert_allclose(whole[:, corpus.genes == gene].ravel(), expected, rtol=1e-5)


def test_studies_side_by_side():
    a, b = (a_study(seed) for seed in (0, 1))
    both, parts = heads.pooled({"p": a, "q": b}, {"p": {"A": "one", "B": "two"}, "q": {"A": "two"}})
    assert set(both.obs["batch"]) == {"p", "q"} and set(both.obs["cell_type"]) == {"one", "two"}
    assert both.n_obs == sum(p.n_obs for p in parts) == 20 + 10
    seen = heads.side_by_side(lambda adata, seed: np.full((adata.n_obs, 1), adata.n_vars), parts)(both, 0)
    assert seen.ravel().tolist() == [3] * 20 + [4] * 10


def a_study(seed: int) -> anndata.AnnData:
    n_vars = 3 + seed
    obs = pd.DataFrame({"cell_type": np.repeat(["A", "B", "C"], 10)}, index=[str(i) for i in range(30)])
    var = pd.DataFrame(index=[f"g{i}" for i in range(n_vars)])
    return anndata.AnnData(np.ones((30, n_vars), np.float32), obs, var)
