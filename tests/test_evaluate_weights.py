"""The three studies of what weights know: run once, stored with what the ledger asks for."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from txfm_lite.corpus_writer import CorpusWriter
from txfm_lite.evaluate import weights
from txfm_lite.training import TrainConfig, fit
from txfm_lite.txfm import TxFM, TxFMConfig

GENES = [f"G{i}" for i in range(60)]
PAIRS = {"db": pd.DataFrame({"entity1": GENES[:30:2], "entity2": GENES[1:30:2]})}
SHAPE = dict(n_genes=60, d_model=8, n_blocks=2, n_heads=2, n_revealed=20, decoder_blocks=2)


def simulated(n, genes=GENES, seed=0):
    """Cells of a screen, every fourth of them a control; the other three groups differ."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 4
    rate = np.random.default_rng(99).gamma(1, 3, size=(4, 60))[group][:, : len(genes)] + 0.2
    obs = pd.DataFrame(
        {"perturbation": np.array(["control", "A", "B", "C"])[group], "batch": np.arange(n) // 4 % 2}
    )
    obs["is_control"] = obs["perturbation"] == "control"
    obs.index = [f"cell{i}" for i in range(n)]
    var = pd.DataFrame({"matched": True}, index=list(genes))
    return anndata.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)), obs, var)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with CorpusWriter(tmp_path_factory.mktemp("weights") / "corpus", GENES) as writer:
        for i, genes in enumerate((GENES, GENES[:45])):
            study = simulated(120, genes, seed=i + 1)
            study.obs = pd.DataFrame(
                {"batch": "b", "split": np.where(np.arange(120) < 20, "validation", "train")}, study.obs_names
            )
            writer.add(study, f"study{i}")
        return writer.finish()


def test_coexpression_is_pearsons_correlation_within_datasets(corpus):
    x = np.log1p(corpus.csr().toarray() * (1e5 / np.array(corpus.library_size))[:, None])
    rows = [corpus.rows("train", name) for name in ("study0", "study1")]
    whole = weights.coexpression(corpus)
    assert whole.shape == (60, 200) and whole.index.tolist() == GENES
    units = whole.to_numpy() / np.linalg.norm(whole, axis=1, keepdims=True)
    alone = np.corrcoef(x[rows[0]][:, 45:].T)  # measured in one dataset only
    np.testing.assert_allclose((units @ units.T)[45:, 45:], alone, atol=1e-5)
    centred = np.concatenate([x[r] - x[r].mean(axis=0) for r in rows])[:, :45]
    np.testing.assert_allclose((units @ units.T)[:45, :45], np.corrcoef(centred.T), atol=1e-5)
    across = weights.coexpression(corpus, within=False).to_numpy()
    units = across / np.linalg.norm(across, axis=1, keepdims=True)
    np.testing.assert_allclose(
        (units @ units.T)[:45, :45], np.corrcoef(x[np.concatenate(rows)][:, :45].T), atol=1e-5
    )
    assert not across[45:, corpus.dataset[np.sort(np.concatenate(rows))] == 1].any()
    assert weights.coexpression(corpus, n_samples=50).shape == (60, 50)


def test_bulk_coexpression_joins_datasets_of_different_units(monkeypatch):
    """Counts and logarithms, a gene with a gap, one without a match, genes of one dataset only."""
    rng = np.random.default_rng(0)
    counts, logs = rng.poisson(20, (8, 4)).astype(float), rng.normal(size=(9, 4))
    logs[2, 3] = np.nan
    made = {
        "a": (counts, ["A", "B", "C", "unknown"], [True, True, True, False], "read counts"),
        "b": (logs, ["B", "A", "D", "C"], [True] * 4, "log2 RSEM"),
    }

    def load(name):
        x, genes, matched, units = made[name]
        adata = anndata.AnnData(x, var=pd.DataFrame({"matched": matched}, index=genes))
        adata.uns["source"] = {"units": units}
        return adata

    monkeypatch.setattr("txfm_lite.datasets.load", load)
    found = weights.bulk_coexpression(["a", "b"])
    assert sorted(found.index) == ["A", "B", "C", "D"] and found.shape == (4, 17)
    kept = np.log1p(counts[:, :3] / counts[:, :3].sum(axis=1, keepdims=True) * 1e6)
    joined = np.concatenate(
        [kept[:, :2] - kept[:, :2].mean(axis=0), logs[:, [1, 0]] - logs[:, [1, 0]].mean(axis=0)]
    )
    np.testing.assert_allclose(np.corrcoef(found.loc[["A", "B"]]), np.corrcoef(joined.T), atol=1e-5)
    assert not found.loc["C"].iloc[8:].any() and not found.loc["D"].iloc[:8].any()


def test_gene_sources_are_scored_and_stored_once(corpus, tmp_path, monkeypatch):
    torch.manual_seed(0)
    models = [TxFM(TxFMConfig(**SHAPE), GENES) for _ in range(2)]
    sources = weights.txfm_sources(models) | weights.corpus_sources(corpus)
    monkeypatch.setattr(weights, "WIDEST", 10)
    found = weights.store_genes(sources, PAIRS, seeds=(0, 1), folder=tmp_path, dimensions=(4, 8))
    assert set(found["model"]) == set(sources) and set(found["seed"]) == {0, 1}
    assert set(found.loc[found["model"] == "co-expression", "variant"].str.split(", ").str[1]) == {"all"}
    decoder = found[(found["model"] == "TxFM decoder") & (found["variant"] == "union, PCA 4")]
    assert len(decoder) == 2 and set(decoder["n"]) == {15} and set(decoder["genes"]) == {60}
    again = weights.store_genes({k: (None, {}) for k in sources}, PAIRS, seeds=(0, 1), folder=tmp_path)
    pd.testing.assert_frame_equal(again, found)


def test_snapshots_are_scored_with_the_samples_seen(corpus, tmp_path):
    assert weights.snapshot_steps(64) == [0, 1, 2, 4, 8, 16, 32, 48, 64]
    schedule = TrainConfig(steps=4, batch_size=8, micro_batch=8, validate_every=4, n_validation=8)
    fit(corpus, TxFMConfig(**SHAPE), schedule, tmp_path / "run", progress=False, snapshots=[0, 1, 4])
    found = weights.store_training(tmp_path / "run", PAIRS, folder=tmp_path / "results")
    assert set(found["samples"]) == {0, 8, 32} and set(found["step"]) == {0, 1, 4}
    assert set(found["model"]) == {"TxFM codebook", "TxFM decoder"}
    assert {"union, PCA 32", "db, PCA 256"} <= set(found["variant"])
    with pytest.raises(FileNotFoundError, match="no snapshots"):
        weights.store_training(tmp_path, PAIRS, folder=tmp_path / "results")


def test_all_at_once(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WIDEST", 10)
    schedule = TrainConfig(steps=2, batch_size=8, micro_batch=8, validate_every=2, n_validation=8)
    fit(corpus, TxFMConfig(**SHAPE), schedule, tmp_path / "run", progress=False, snapshots=[0, 2])
    screens, folder = {"screen": simulated(80)}, tmp_path / "results"
    weights.store_all(corpus, screens, [tmp_path / "run"], (0, 1), pairs=PAIRS, scvi=False, folder=folder)
    made = {
        study: len(list((folder / study).rglob("*.json"))) for study in ("genes", "genes-training", "layers")
    }
    assert made == {"genes": 2 + 5 * 2, "genes-training": 2 * 2, "layers": 1}


def test_layers_of_a_screen_with_effects_and_of_one_without(tmp_path):
    torch.manual_seed(0)
    model, screen = TxFM(TxFMConfig(**SHAPE), GENES), simulated(240)
    found = weights.store_layers({"screen": screen}, [model], folder=tmp_path)
    layers = ["encoder 0", "encoder 1", "encoder 2", "decoder 0", "decoder 1", "decoder 2"]
    scored = found[found["metric"] == "p.cst permuted"].set_index("variant")
    assert scored.index.tolist() == layers and set(scored["n"]) == {3}
    assert scored.loc["encoder 0", "value"] == 1 and set(found["dataset"]) == {"screen"}
    assert set(found["metric"]) == {"p.cst", "p.cst percentile", "p.cst permuted"}
    screen.X = sp.csr_matrix(np.random.default_rng(1).poisson(3.0, screen.shape).astype(np.float32))
    for row in weights.layer_rows(screen, model):
        assert abs(row["value"] - 0.5) < 0.2 if row["metric"] == "p.cst percentile" else row["value"] <= 1 / 3
