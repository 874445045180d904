"""Disturbances of counts, against what binomials promise; encodings as matrices, against their rules."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import kstest, rankdata

from txfm_lite import datasets, robustness

MEDIANS = np.random.default_rng(5).uniform(0.5, 30, 80)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(1)
    return sp.csr_matrix(rng.negative_binomial(0.5, 0.1, (40, 80)).astype(np.float32))


def test_thinning_keeps_a_binomial_share_and_repeats_with_its_seed():
    x = sp.csr_matrix(np.full((200, 30), 20, dtype=np.float32))
    kept = robustness.thin(x, 0.3, seed=2)
    values = kept.toarray().ravel()
    assert abs(values.mean() - 6) < 4 * np.sqrt(20 * 0.21 / values.size)
    assert abs(values.var() - 20 * 0.21) < 0.3
    assert (robustness.thin(x, 0.3, seed=2) != kept).nnz == 0 and (
        robustness.thin(x, 0.3, seed=3) != kept
    ).nnz
    assert (robustness.thin(x, 1.0) != x).nnz == 0 and robustness.thin(x, 0.0).nnz == 0
    shares = np.repeat([0.0, 1.0], 100)
    by_cell = np.asarray(robustness.thin(x, shares).sum(axis=1)).ravel()
    assert (by_cell == shares * 600).all()


def test_halves_add_up_and_share_nothing_but_the_cell(counts):
    first, second = robustness.halves(counts, seed=0)
    assert ((first + second) != counts).nnz == 0 and first.nnz and second.nnz
    poisson = sp.csr_matrix(np.random.default_rng(0).poisson(4.0, (1, 20_000)).astype(np.float32))
    a, b = (half.toarray().ravel() for half in robustness.halves(poisson))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03  # halves of a Poisson count are independent


def test_one_molecule_more(counts):
    genes = np.arange(40) % 80
    more = robustness.add_molecules(counts, genes)
    difference = (more - counts).toarray()
    assert difference.sum() == 40 and (difference[np.arange(40), genes] == 1).all()


def test_thinning_to_a_sparsity_meets_it_on_average_and_leaves_sparser_cells(counts):
    rng = np.random.default_rng(3)
    x = sp.csr_matrix(rng.negative_binomial(2, 0.02, (300, 500)).astype(np.float32))
    thinned = robustness.thin_to_sparsity(x, 0.9)
    per_cell = 1 - np.diff(thinned.indptr) / 500
    assert abs(per_cell.mean() - 0.9) < 0.003
    sparse = sp.vstack([x[:5], sp.csr_matrix((1, 500), dtype=np.float32)]).tocsr()
    again = robustness.thin_to_sparsity(sparse, 0.0)
    assert (again != sparse).nnz == 0


def test_pools_add_up_cells_of_one_label(counts):
    labels = np.array(["a"] * 25 + ["b"] * 15)
    pooled, names = robustness.pool(counts, labels, size=10)
    assert names.tolist() == ["a", "a", "b"] and pooled.shape == (3, 80)
    assert pooled[2].sum() <= counts[25:].sum()
    pooled, names = robustness.pool(counts, labels, size=5)
    assert names.tolist() == ["a"] * 5 + ["b"] * 3
    assert pooled.sum() == counts.sum()


@pytest.mark.parametrize("bad", [np.array([[0.5, 1.0]]), np.array([[-1.0, 2.0]])])
def test_what_is_no_count_is_refused(bad):
    for disturb in (lambda x: robustness.thin(x, 0.5), lambda x: robustness.thin_to_sparsity(x, 0.5)):
        with pytest.raises(ValueError, match="molecules are whole"):
            disturb(sp.csr_matrix(bad))
    with pytest.raises(ValueError, match="share lies between"):
        robustness.thin(sp.csr_matrix(np.ones((1, 2))), 1.5)


def test_orders_are_those_of_ranks(counts):
    places = robustness.matrix("cell2sentence", counts, seed=None).toarray()
    for row, place in zip(counts.toarray(), places, strict=True):
        n = (row > 0).sum()
        falling = rankdata(-row, method="ordinal") - 1  # equal values by column
        expected = np.where(row > 0, 1 - falling / n, 0)
        np.testing.assert_allclose(place, expected, rtol=1e-6)
    places = robustness.matrix("Geneformer", counts, MEDIANS).toarray()
    row = counts.toarray()[3]
    falling = rankdata(-(row / MEDIANS).astype(np.float32), method="ordinal") - 1
    np.testing.assert_allclose(places[3], np.where(row > 0, 1 - falling / (row > 0).sum(), 0), rtol=1e-6)


def test_equal_counts_come_in_random_order_and_others_do_not():
    x = sp.csr_matrix(np.repeat([[5, 1, 1, 1, 1]], 2000, axis=0).astype(np.float32))
    places = robustness.matrix("cell2sentence", x, seed=1).toarray()
    assert (places[:, 0] == 1).all()
    assert np.allclose(places[:, 1:].mean(axis=0), 0.5, atol=0.02)  # 0.8, 0.6, 0.4, 0.2 in equal shares
    assert (
        kstest(places[:, 1] + np.random.default_rng(0).uniform(-0.1, 0.1, 2000), "uniform", (0.1, 0.8))[1]
        > 1e-3
    )
    assert (places != robustness.matrix("cell2sentence", x, seed=2).toarray()).any()
    bins = robustness.matrix("scGPT", x, seed=1).toarray()
    assert (bins[:, 0] == 50).all() and np.ptp(bins[:, 1]) > 20


def test_mean_places_are_the_mean_of_random_ones(counts):
    many = np.mean([robustness.matrix("cell2sentence", counts, seed=s).toarray() for s in range(400)], axis=0)
    assert np.abs(many - robustness.mean_places(counts).toarray()).max() < 0.1
    ranks = rankdata(counts.toarray()[3][counts.toarray()[3] > 0])
    np.testing.assert_allclose(robustness.mean_places(counts)[3].data, ranks / len(ranks), rtol=1e-6)


def test_monotone_changes_within_a_cell_leave_orders_and_per_cell_bins(counts):
    squared = counts.copy()
    squared.data = squared.data**2
    for encoding in ("cell2sentence", "scGPT"):
        same = robustness.matrix(encoding, squared, seed=4) != robustness.matrix(encoding, counts, seed=4)
        assert same.nnz == 0
    for encoding in ("scBERT", "log counts"):
        assert (robustness.matrix(encoding, squared) != robustness.matrix(encoding, counts)).nnz


def test_depth_leaves_what_is_divided_by_the_total_and_gene_scaling_leaves_nothing(counts):
    triple = counts * 3
    for encoding in robustness.KINDS:
        changed = robustness.matrix(encoding, triple, MEDIANS) != robustness.matrix(encoding, counts, MEDIANS)
        if encoding == "raw counts":
            assert changed.nnz == counts.nnz
        else:
            a, b = (robustness.matrix(encoding, x, MEDIANS).toarray() for x in (triple, counts))
            np.testing.assert_allclose(a, b, rtol=1e-5)
    scaled = (counts @ sp.diags(np.arange(1, 81))).tocsr()
    for encoding in robustness.KINDS:
        assert (
            robustness.matrix(encoding, scaled, MEDIANS, None)
            != robustness.matrix(encoding, counts, MEDIANS, None)
        ).nnz


def test_cells_and_silent_genes_do_not_matter_to_each_other(counts):
    back = np.arange(40)[::-1]
    wider = sp.hstack([counts, sp.csr_matrix((40, 7), dtype=np.float32)]).tocsr()
    for encoding in robustness.KINDS:
        one = robustness.matrix(encoding, counts, MEDIANS, None)
        assert (robustness.matrix(encoding, counts[back], MEDIANS, None)[back] != one).nnz == 0
        more = robustness.matrix(encoding, wider, np.append(MEDIANS, np.full(7, np.nan)), None)
        assert (more[:, :80] != one).nnz == 0 and more[:, 80:].nnz == 0


def test_empty_cells_are_rows_of_zeros():
    x = sp.csr_matrix(np.array([[0, 0, 0], [1, 0, 2]], dtype=np.float32))
    for encoding in robustness.KINDS:
        found = robustness.matrix(encoding, x, np.ones(3))
        assert found[0].nnz == 0 and found[1].nnz and np.isfinite(found.data).all()


def test_wrong_names_and_missing_medians_say_so(counts):
    with pytest.raises(ValueError, match="no encoding is called 'geneformer'"):
        robustness.matrix("geneformer", counts)
    with pytest.raises(ValueError, match="needs medians"):
        robustness.matrix("Geneformer", counts)


def test_balanced_takes_from_every_label():
    labels = np.array(["a"] * 100 + ["b"] * 10 + ["c"] * 40)
    rows = robustness.balanced(labels, 60)
    assert len(np.unique(rows)) == 60 and (np.diff(rows) > 0).all()
    assert dict(zip(*np.unique(labels[rows], return_counts=True), strict=True)) == {"a": 25, "b": 10, "c": 25}


def test_medians_are_geneformers(loaded):
    adata = loaded("pbmc_1k_v2")
    medians = robustness.gene_medians(adata)
    at = dict(zip(adata.var_names, medians, strict=True))
    assert at["ACTB"] == pytest.approx(41.877, abs=1e-3) and at["B2M"] == pytest.approx(81.889, abs=1e-3)
    assert 0.3 < np.isfinite(medians).mean() < 1 and np.isnan(at["MALAT1"])


def test_medians_of_simulated_genes_are_their_own():
    adata = datasets.load("simulated_f")
    medians = robustness.gene_medians(adata)
    x = adata.X.toarray()
    x = 1e4 * x / x.sum(axis=1, keepdims=True)
    j = int((x > 0).sum(axis=0).argmax())
    assert medians[j] == pytest.approx(np.median(x[x[:, j] > 0, j]))
