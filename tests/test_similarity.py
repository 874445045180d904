"""Measures of pairs: golden values, scipy, pandas and scikit-learn; ties, sparse and real data, bad input."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances

from txfm_lite import similarity

MEASURES = [similarity.Spearman, similarity.Pearson, similarity.Cosine, similarity.Euclid]


def counts(n=120, g=300, density=0.2, seed=0):
    rng = np.random.default_rng(seed)
    drawn = rng.binomial(1, density, (n, g)) * rng.geometric(0.4, (n, g))
    return sp.csr_matrix(drawn.astype(np.float32))


def reference(kind, x):
    x = x.toarray() if sp.issparse(x) else np.asarray(x)
    return {
        "Spearman": lambda: spearmanr(x, axis=1)[0],
        "Pearson": lambda: np.corrcoef(x),
        "Cosine": lambda: cosine_similarity(x),
        "Euclid": lambda: euclidean_distances(x.astype(np.float64)),
    }[kind.__name__]()


def test_golden_values():
    assert similarity.ranks([[0, 0, 0, 1, 2, 5], [0, 0, 1, 1, 3, 0]]).tolist() == [
        [2, 2, 2, 4, 5, 6],
        [2, 2, 4.5, 4.5, 6, 2],
    ]
    two = np.array([[0, 0, 0, 1, 2, 5], [0, 0, 1, 1, 3, 0]])
    assert similarity.spearman(two)[0, 1] == pytest.approx(0.229539, abs=1e-6)
    assert similarity.spearman(two[:, 3:])[0, 1] == pytest.approx(-0.5)  # the genes seen in the first cell
    constant = similarity.Spearman(np.vstack([two, [0] * 6, [7] * 6]))
    assert constant.undefined.tolist() == [False, False, True, True]
    assert np.isnan(constant.matrix()[2:]).all() and np.isnan(constant.matrix()[:, 2:]).all()
    assert np.isfinite(constant.matrix()[:2, :2]).all()


TIED = arrays(
    np.float64, st.tuples(st.integers(2, 6), st.integers(2, 12)), elements=st.integers(-2, 3).map(float)
)


COUNTS = arrays(
    np.float32, st.tuples(st.integers(2, 6), st.integers(2, 12)), elements=st.integers(0, 4).map(float)
)


@settings(deadline=None, max_examples=80)
@given(st.one_of(TIED, TIED.map(np.exp), COUNTS))
def test_ranks_are_those_of_scipy_with_ties_negative_values_and_counts(x):
    expected = rankdata(x, axis=1)
    assert np.array_equal(similarity.ranks(x), expected)
    assert np.array_equal(similarity.ranks(sp.csr_matrix(x)), expected)
    assert np.array_equal(similarity.ranks(sp.csc_matrix(x)), expected)
    assert np.array_equal(similarity.Spearman(x).undefined, np.ptp(x, axis=1) == 0)


@pytest.mark.parametrize("third", [-1, 3, 0.5, 2 * similarity.MOST])
def test_zeros_that_are_stored_and_entries_stored_twice(third):
    x = sp.csr_matrix((np.array([0, 2, third, 1, 1]), ([0, 0, 0, 1, 1], [0, 1, 2, 3, 3])), shape=(2, 5))
    before = x.copy()
    assert np.array_equal(similarity.ranks(x), rankdata(x.toarray(), axis=1))
    assert (x != before).nnz == 0 and x.nnz == before.nnz  # left as it was


@pytest.mark.parametrize("kind", MEASURES)
def test_against_references(kind):
    rng = np.random.default_rng(0)
    for x in (counts(), counts(density=0.01, g=2000), rng.normal(size=(90, 40)), 100 + rng.random((50, 300))):
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = reference(kind, x)
        assert kind(x).matrix() == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_against_pandas():
    x = counts()
    expected = pd.DataFrame(x.T.toarray()).corr("spearman").to_numpy()
    assert similarity.spearman(x) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", MEASURES)
def test_blocks_change_nothing(kind, monkeypatch):
    x = counts(n=50)
    whole = kind(x).matrix()
    monkeypatch.setattr(similarity, "BLOCK", 7)
    measure = kind(x)
    assert measure.matrix() == pytest.approx(whole, abs=1e-5)
    rows, columns = np.array([3, 49, 0]), slice(10, 31)
    assert measure.block(rows, columns) == pytest.approx(whole[rows][:, columns], abs=1e-5)
    assert len(measure) == 50 and measure.low <= np.nanmin(whole) and np.nanmax(whole) <= measure.high


@pytest.mark.parametrize("kind", MEASURES)
def test_real_cells(kind, loaded):
    x = loaded("pbmc3k_annotated").X[:150]
    measure = kind(np.log1p(x))
    assert measure.matrix() == pytest.approx(reference(kind, np.log1p(x)), abs=1e-5)


def test_spearman_sees_order_and_nothing_else():
    x = counts()
    plain = similarity.spearman(x)
    depth = np.random.default_rng(0).integers(1, 9, size=(x.shape[0], 1))
    assert np.array_equal(similarity.spearman(np.log1p(x.multiply(depth).tocsr())), plain)
    order = np.random.default_rng(1).permutation(x.shape[1])
    assert similarity.spearman(x[:, order]) == pytest.approx(plain, abs=1e-5)
    genes = np.random.default_rng(2).lognormal(size=x.shape[1])
    assert (
        abs(similarity.spearman(x.multiply(genes).tocsr()) - plain).max() > 0.01
    )  # gene-wise scales do matter


def test_distances_far_from_the_origin_and_between_twins():
    x = np.random.default_rng(0).normal(size=(40, 5))
    x[1] = x[0] + 1e-4
    moved = similarity.Euclid(x + 1e4).matrix()
    assert moved[0, 1] == pytest.approx(1e-4 * np.sqrt(5), rel=1e-3)
    assert moved == pytest.approx(euclidean_distances(x), abs=1e-5) and (np.diag(moved) == 0).all()
    assert (similarity.Euclid(np.ones((3, 4))).matrix() == 0).all()


def test_what_is_undefined():
    x = np.array([[0, 0, 0], [1, 1, 1], [1, 2, 0.0], [0.1, 0.1, 0.1]])
    undefined = {kind.__name__: kind(x).undefined.tolist() for kind in MEASURES}
    assert undefined == {
        "Spearman": [True, True, False, True],
        "Pearson": [True, True, False, True],
        "Cosine": [True, False, False, False],
        "Euclid": [False] * 4,
    }


@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize(
    "x, told",
    [
        (np.array([[1, np.nan], [0, 1]]), "missing or infinite values among cells 0 to 1"),
        (sp.csr_matrix([[1, np.inf], [0, 1.0]]), "missing or infinite"),
        (np.ones(4), r"shape \(4,\)"),
        (np.ones((1, 4)), "at least two cells"),
        (np.ones((4, 1)), "two genes"),
    ],
)
def test_bad_input_is_named(kind, x, told):
    with pytest.raises(ValueError, match=told):
        kind(x)
