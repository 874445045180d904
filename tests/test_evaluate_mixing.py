"""Mixing of batches: reference packages, closed forms, golden values."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from harmonypy import compute_lisi
from scib_metrics import pcr_comparison
from scib_metrics.utils import principal_component_regression
from sklearn.neighbors import NearestNeighbors

from txfm_lite.baselines import embed_log_counts
from txfm_lite.evaluate import mixing


def by_name(rows):
    return {(row["metric"], row["variant"]): row for row in rows}


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return rng.normal(size=(600, 8)), rng.choice(list("pqr"), 600, p=[0.5, 0.3, 0.2])


def test_neighbours_are_exact_and_come_in_the_cells_order(noise):
    x, _ = noise
    got = mixing.neighbours(x, 20, seed=3)
    distances, indices = NearestNeighbors(n_neighbors=19).fit(x).kneighbors()
    assert np.array_equal(got.indices[:, 1:], indices) and np.array_equal(got.indices[:, 0], np.arange(600))
    np.testing.assert_allclose(got.distances[:, 1:], distances)


def test_identical_cells_have_random_neighbours_not_the_first_ones():
    got = mixing.neighbours(np.zeros((500, 2)), 31)
    assert got.indices[:, 1:].max() > 250
    raw = by_name(mixing.ilisi(np.zeros((500, 2)), np.repeat(["p", "q"], 250)))["iLISI", "raw"]
    assert raw["value"] > 1.5  # the first 90 cells of the file are all of batch p, which would give 1


def test_ilisi_golden_values():
    x, batches = np.random.default_rng(7).normal(size=(60, 3)), np.tile(list("abc"), 20)
    near = mixing.neighbours(x, 31)  # perplexity 10 where there are 30 neighbours
    assert by_name(mixing.ilisi(x, batches, nearest=near))["iLISI", "raw"]["value"] == pytest.approx(2.320066)


def test_ilisi_is_harmonys_on_real_cells(loaded):
    adata = loaded("pbmc_3tech_symphony")
    x = embed_log_counts(adata, adata.var_names.to_numpy())[:, :40]
    x += np.random.default_rng(0).normal(
        scale=1e-3, size=x.shape
    )  # no ties, which each breaks in its own way
    batches = adata.obs["batch"].astype(str)
    expected = compute_lisi(x, pd.DataFrame({"batch": batches}), ["batch"], 30).mean()
    got = by_name(mixing.ilisi(x, batches.to_numpy()))
    assert got["iLISI", "raw"]["value"] == pytest.approx(expected, rel=1e-3)
    assert got["iLISI", "scaled"]["value"] == pytest.approx((expected - 1) / 2, rel=2e-3)


def test_ilisi_at_its_two_ends(noise):
    x, batches = noise
    mixed = by_name(mixing.ilisi(x, batches))
    assert mixed["iLISI", "of permuted"]["value"] == pytest.approx(1, abs=0.03)
    assert mixed["iLISI", "raw"]["ceiling"] < 1 / np.sum(np.array([0.5, 0.3, 0.2]) ** 2)  # and not 3
    apart = by_name(
        mixing.ilisi(x + 100 * (batches == "p")[:, None] - 100 * (batches == "q")[:, None], batches)
    )
    assert apart["iLISI", "raw"]["value"] == pytest.approx(1, abs=1e-6)
    assert apart["iLISI", "scaled"]["value"] == pytest.approx(0, abs=1e-6)
    assert all(np.isnan(row["value"]) for row in mixing.ilisi(x, np.full(600, "p")))


def test_a_twin_among_distant_cells_counts_as_one_batch():
    """Its weight is 1 and all others' 0, where published code returns -1."""
    x = np.random.default_rng(0).normal(size=(100, 2)) * 1e6
    x[50:] = x[:50]
    got = by_name(mixing.ilisi(x, np.repeat(["p", "q"], 50)))["iLISI", "raw"]
    assert 1 <= got["value"] <= 2


def test_pcr_golden_value_and_scib(noise):
    a = np.array([(0, 0), (0, 1), (1, 0), (5, 5), (5, 6), (6, 5), (10, 0), (10, 1), (11, 0)], dtype=float)
    batches = np.array([0, 1, 0, 1, 0, 1, 0, 1, 1])
    assert mixing.pcr(a, batches)[0]["value"] == pytest.approx(0.071569, abs=1e-6)

    x, batches = noise
    x = x + (batches == "p")[:, None] * np.arange(8)
    codes = pd.factorize(batches)[0]
    expected = principal_component_regression(x, codes, categorical=True)
    assert mixing.pcr(x, batches)[0]["value"] == pytest.approx(expected, rel=1e-4)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    assert mixing.pcr(5 * x @ rotation + 1000, batches)[0]["value"] == pytest.approx(expected, rel=1e-4)


def test_pcr_comparison_against_scib():
    rng = np.random.default_rng(0)
    batches = np.repeat([0, 1, 2], 50)
    counts = rng.poisson(2 + 3 * (batches[:, None] == np.arange(12) % 3)).astype(float)
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    after = rng.normal(size=(150, 5)) + 0.3 * batches[:, None]
    expected = pcr_comparison(logged, after, batches, categorical=True)
    for given in (counts, sp.csr_matrix(counts)):
        got = by_name(mixing.pcr(after, batches, given))["PCR comparison", ""]
        assert got["value"] == pytest.approx(expected, rel=1e-4)
    assert by_name(mixing.pcr(1.0 * batches[:, None], batches, counts))["PCR comparison", ""]["value"] == 0
    assert np.isnan(by_name(mixing.pcr(after, batches))["PCR comparison", ""]["value"])


def test_pcr_expects_this_much_of_permuted_batches(noise):
    x, batches = noise
    rng = np.random.default_rng(0)
    permuted = [mixing.pcr(x, rng.permutation(batches))[0] for _ in range(100)]
    assert np.mean([p["value"] for p in permuted]) == pytest.approx(permuted[0]["ceiling"], rel=0.1)


@pytest.mark.parametrize("x, batches", [(np.zeros((9, 2)), list("pqr") * 3), (np.eye(9), ["p"] * 9)])
def test_pcr_is_undefined_without_variance_or_with_one_batch(x, batches):
    assert all(np.isnan(row["value"]) for row in mixing.pcr(x, np.array(batches), np.eye(9)))


def test_graph_connectivity_is_1_for_islands_and_falls_when_one_is_torn(noise):
    x, _ = noise
    labels = np.repeat(["a", "b"], 300)
    islands = x + 100 * (labels == "b")[:, None]
    assert mixing.graph_connectivity(mixing.neighbours(islands), labels)["value"] == 1
    islands[:150] -= 100
    torn = mixing.graph_connectivity(mixing.neighbours(islands), labels)
    assert torn["value"] == pytest.approx(0.75) and torn["null"] < torn["value"]
