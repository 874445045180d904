"""How each model sees a cell: published golden values, what must and what must not change an encoding."""

import numpy as np
import pytest
import scipy.sparse as sp

from txfm_lite import encodings


def random_counts(n=40, g=300, seed=0) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(rng.poisson(rng.gamma(0.3, 3, size=g), size=(n, g)).astype(np.float32))


@pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])
@pytest.mark.parametrize("divided", [False, True])
def test_descending_equals_a_stable_sort(device, divided, monkeypatch):
    monkeypatch.setattr("txfm_lite.encodings_values.ROWS", 7)
    monkeypatch.setattr("txfm_lite.encodings_values.DEVICE_ROWS", 9)
    counts = random_counts()
    counts.data[counts.indptr[11] : counts.indptr[12]] = 0  # stored zeros: a row without anything
    divisor = np.random.default_rng(1).lognormal(size=300).astype(np.float32) if divided else None
    shuffled = sp.csr_matrix(counts[:, ::-1])[:, ::-1]  # other order in memory
    for x, threads in ((counts, 1), (counts, 3), (shuffled, None)):
        indptr, columns = encodings.descending(x, divisor, threads=threads, device=device)
        for i, row in enumerate(counts.toarray() / (1 if divisor is None else divisor)):
            expected = np.argsort(-row, kind="stable")[: (row > 0).sum()]
            np.testing.assert_array_equal(columns[indptr[i] : indptr[i + 1]], expected)
    assert columns.dtype == np.int32 and indptr[12] == indptr[11]


@pytest.mark.parametrize("bad", [-1, np.nan])
def test_descending_refuses_what_has_no_place(bad):
    with pytest.raises(ValueError, match="negative or missing"):
        encodings.descending(sp.csr_matrix([[1.0, bad]]))


def test_absolute_bins_of_the_golden_vector():
    x = np.array([[0.5, 0.99, 1, 3, 7, 15, 31, 100]])
    assert encodings.absolute_bins(sp.csr_matrix(x)).toarray().tolist() == [[0, 0, 1, 2, 3, 4, 5, 5]]
    edges = 2.0 ** np.arange(1, 6) - 1
    for x, shift in ((edges, 0), (np.nextafter(edges, 0), -1)):
        bins = encodings.absolute_bins(sp.csr_matrix(x[None])).toarray()[0]
        np.testing.assert_array_equal(bins, np.arange(1, 6) + shift)
