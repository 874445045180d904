"""Replicates and doses: against definitions, and on data with no noise and with nothing else."""

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from txfm_lite import studies
from txfm_lite.evaluate import noise, scores


@pytest.fixture(scope="module")
def simulated():
    return studies.disturbed("simulated", most=60)["simulated_f"]


def value(rows, metric, variant):
    (row,) = [r for r in rows if (r["metric"], r["variant"]) == (metric, variant)]
    return row["value"]


def test_noise_ratio_is_one_without_identity_and_zero_without_noise():
    rng = np.random.default_rng(0)
    other = noise.partners(np.repeat("a", 400), rng)
    assert (other != np.arange(400)).all() and len(set(other)) == 400
    a, b = (sp.csr_matrix(rng.poisson(2.0, (400, 300)).astype(float)) for _ in range(2))
    assert noise.noise_ratio(a, b, other)[0] == pytest.approx(1, abs=0.02)  # cells differ by noise alone
    assert noise.noise_ratio(a, a, other) == (0.0, 400)
    dense = [m.toarray() for m in (a, b)]
    same = np.linalg.norm(dense[0] - dense[1], axis=1)
    different = np.linalg.norm(dense[0] - dense[1][other], axis=1)
    assert noise.noise_ratio(a, b, other)[0] == pytest.approx(np.median(same / different))
    assert noise.partners(np.array(["a", "a", "b"]), rng).tolist() == [1, 0, -1]


def test_tokens_follow_their_definitions():
    rng = np.random.default_rng(1)
    x, y = rng.poisson(1.5, (2, 1, 400))
    found = noise.tokens(sp.csr_matrix(x), sp.csr_matrix(y), in_order=True)
    both = (x[0] > 0) & (y[0] > 0)
    assert found["Kendall"][0] == pytest.approx(kendalltau(x[0][both], y[0][both]).statistic)
    assert found["agreement"][0] == pytest.approx((x[0] == y[0])[both].mean())
    assert 0 <= found["top 100"][0] <= 1
    same = noise.tokens(sp.csr_matrix(x), sp.csr_matrix(x), in_order=False)
    assert same["Kendall"][0] == pytest.approx(1) and same["agreement"][0] == 1 and "top 100" not in same


def test_only_chance_among_equals_separates_encodings_of_the_same_counts(simulated):
    for encoding, changes in {
        "scGPT": True,
        "cell2sentence": True,
        "scBERT": False,
        "log counts": False,
    }.items():
        ratio = value(noise.replicates(simulated, encoding), "noise ratio", "ties")
        assert (ratio > 0.02) == changes, encoding


def test_replicates_drift_apart_with_fewer_molecules(simulated):
    rows = noise.replicates(simulated, "log counts")
    ratios = [value(rows, "noise ratio", f"{share}") for share in noise.SHARES]
    assert ratios == sorted(ratios) and 0 < ratios[0] < ratios[-1] <= 1.05
    assert {tuple(r) for r in scores.complete(rows, "d", "m", 0)} == {scores.FIELDS}


def test_one_molecule_moves_all_values_of_a_cell_but_few_bins(simulated):
    moved = {
        e: noise.one_molecule(simulated, e) for e in ("log counts", "scBERT", "cell2sentence", "raw counts")
    }
    for variant in ("any gene", "single"):
        assert value(moved["log counts"], "moved by one molecule", variant) == 1
        assert value(moved["raw counts"], "moved by one molecule", variant) == 0
        assert value(moved["scBERT"], "moved by one molecule", variant) < 0.05
        assert 0.05 < value(moved["cell2sentence"], "moved by one molecule", variant) < 0.6


def test_alikeness_against_scipy():
    rng = np.random.default_rng(2)
    x = rng.negative_binomial(0.5, 0.2, (6, 80)).astype(float)
    counts, medians = sp.csr_matrix(x), rng.permutation(80) + 1.0
    tied = noise.alikeness("ranks, zeros tied", counts, medians)
    assert tied[0, 1] == pytest.approx(spearmanr(x[0], x[1]).statistic)
    both = (x[0] > 0) & (x[1] > 0)
    ranks = [rankdata(row[row > 0]) / (row > 0).sum() for row in x[:2]]
    own = [r[both[row > 0]] for r, row in zip(ranks, x[:2], strict=True)]
    dropped = noise.alikeness("ranks, zeros dropped", counts, medians)
    assert dropped[0, 1] == pytest.approx(pearsonr(*own).statistic)
    filled = [np.where(row > 0, row, medians / 1000) for row in x[:2]]
    by_median = noise.alikeness("ranks, zeros by median", counts, medians)
    assert by_median[0, 1] == pytest.approx(spearmanr(*filled).statistic)
    euclid = noise.alikeness("raw counts", counts, medians)
    assert euclid[0, 1] == pytest.approx(-np.linalg.norm(x[0] - x[1]))
    with pytest.raises(ValueError, match="no measure is called 'spearman'"):
        noise.alikeness("spearman", counts, medians)


def test_pair_auc_by_counting():
    labels = np.array(list("aabb"))
    alike = np.array([[0, 5, 1, 2], [5, 0, 3, 5], [1, 3, 0, 4], [2, 5, 4, 0]], dtype=float)
    within, between = [5, 4], [1, 2, 3, 5]
    expected = np.mean([(w > b) + 0.5 * (w == b) for w in within for b in between])
    assert noise.pair_auc(alike, labels) == pytest.approx(expected)
    alike[0, 1] = np.nan  # undefined: less alike than any
    assert noise.pair_auc(alike, labels) == pytest.approx(0.5 * 3 / 4)
    assert np.isnan(noise.pair_auc(alike, np.array(list("aaaa"))))


def test_dose_reaches_its_sparsities_and_loses_types():
    rng = np.random.default_rng(5)
    labels = np.repeat(["a", "b"], 60)
    mean = np.where((np.arange(300) < 60)[None, :] & (labels == "a")[:, None], 12.0, 3.0)
    adata = AnnData(sp.csr_matrix(rng.poisson(mean).astype(np.float32)))
    adata.obs["cell_type"], adata.obs["batch"] = labels, "1"
    adata.var["ensembl_id"] = ""
    rows = noise.dose(adata, "log counts, cosine")
    for sparsity in noise.SPARSITIES:
        assert value(rows, "sparsity", f"{sparsity}") == pytest.approx(sparsity, abs=0.01)
    curve = [value(rows, "pair AUC", v) for v in ("pooled", "as measured", "0.9", "0.99")]
    assert curve[0] == 1 and curve[1] > 0.8 > curve[2] > curve[3] > 0.49
    nulls = [r["null"] for r in rows if r["metric"] == "pair AUC" and r["variant"] != "pooled"]
    assert np.allclose(nulls, 0.5, atol=0.03)
