"""Embeddings are aligned by name or refused; the suite runs each model once and stores it."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from txfm_lite import results
from txfm_lite.evaluate import scores, suite


@pytest.fixture
def adata():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(1.0, (20, 6)).astype(np.float32))
    return anndata.AnnData(counts, pd.DataFrame(index=[f"cell{i}" for i in range(20)]))


def test_an_embedding_in_another_order_is_put_into_the_datas(adata):
    values = np.random.default_rng(1).normal(size=(20, 3))
    order = np.random.default_rng(2).permutation(20)
    shuffled = scores.Embedding(values[order], adata.obs_names[order])
    assert np.array_equal(shuffled.align(adata), values)


def test_cells_that_differ_are_an_error_that_names_them(adata):
    values = np.zeros((20, 2))
    with pytest.raises(ValueError, match=r"1 have no embedding, 1 are not in the data .*'cell3', 'other'"):
        scores.Embedding(values, adata.obs_names.where(adata.obs_names != "cell3", "other")).align(adata)
    with pytest.raises(ValueError, match="1 cell names occur twice, for example 'cell4'"):
        scores.Embedding(values, adata.obs_names.where(adata.obs_names != "cell3", "cell4"))
    with pytest.raises(ValueError, match=r"\(20, 2\) for 19 cell names"):
        scores.Embedding(values, adata.obs_names[:-1])
    values[7] = np.nan
    with pytest.raises(ValueError, match="1 cells have missing or infinite values, for example 'cell7'"):
        scores.Embedding(values, adata.obs_names)


def test_files_keep_the_names_or_are_refused(adata, tmp_path):
    values = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    file = scores.Embedding(values, adata.obs_names).write(tmp_path / "mine.npz")
    back = scores.Embedding.read(file)
    assert back.name == "mine" and np.array_equal(back.align(adata), values)

    np.save(tmp_path / "bare.npy", values)
    with pytest.raises(ValueError, match=r"bare\.npy: no cell names"):
        scores.Embedding.read(tmp_path / "bare.npy")
    (tmp_path / "ids.txt").write_text("\n".join(adata.obs_names[::-1]) + "\n")
    beside = scores.Embedding.read(tmp_path / "bare.npy", tmp_path / "ids.txt")
    assert np.array_equal(beside.align(adata), values[::-1])
    np.savez(tmp_path / "other.npz", x=values)
    with pytest.raises(ValueError, match="no array 'values', only x"):
        scores.Embedding.read(tmp_path / "other.npz")


def test_chance_correction_is_0_at_the_null_and_1_at_the_ceiling():
    got = scores.chance_corrected(np.array([0.1, 0.55, 1.0]), 0.1, 1.0)
    np.testing.assert_allclose(got, [0, 0.5, 1])


def test_the_controls_hold_what_they_say(adata):
    values = np.arange(20.0)[:, None]
    assert sorted(scores.scrambled(values, 3).ravel()) == sorted(values.ravel())
    assert not np.array_equal(scores.scrambled(values, 3), values)
    depth = scores.depth(adata)
    total = np.log10(np.asarray(adata.X.sum(axis=1)).ravel())
    np.testing.assert_allclose(np.corrcoef(depth[:, 0], total)[0, 1], 1, rtol=1e-5)
    np.testing.assert_allclose([depth.mean(axis=0), depth.std(axis=0)], [[0, 0], [1, 1]], atol=1e-5)
    models = suite.controls(lambda adata, seed: values)
    assert set(models) == {"scrambled", "constant", "depth"}
    assert np.ptp(suite.embed("constant", models["constant"], adata, 0)) == 0


def test_what_is_stored_is_not_run_again(adata, tmp_path):
    calls = []

    def model(adata, seed):
        calls.append(seed)
        return np.full((adata.n_obs, 1), seed)

    def score(values, adata, seed):
        return [scores.partial("mean", values.mean(), n=len(values)), scores.partial("lost", np.nan)]

    def run(seeds):
        return suite.run("study", "data", adata, {"PCA (target)": model}, score, seeds, tmp_path)

    first = run([0, 1])
    again = run([0, 1, 2])
    assert calls == [0, 1, 2]
    assert first["value"].dropna().tolist() == [0, 1] and again["value"].dropna().tolist() == [0, 1, 2]
    assert (tmp_path / "study/data/pca-target-seed2.json").is_file()
    assert set(scores.FIELDS) | {"commit", "data", "device"} <= set(again.columns)
    assert results.read("study", tmp_path)["n"].max() == 20


def test_a_models_rows_must_be_the_datas_cells(adata, tmp_path):
    short = {"TxFM": lambda adata, seed: np.zeros((19, 2))}
    with pytest.raises(ValueError, match="TxFM: 19 rows for 20 cells"):
        suite.run("study", "data", adata, short, lambda *_: [], folder=tmp_path)
    assert not list(tmp_path.rglob("*.json"))
