"""The path from sparse counts to embeddings: equal to the model by hand, and each cell on its own."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from txfm_lite.inference import cells_per_batch, encode_rows, shown_genes
from txfm_lite.txfm import TxFM, TxFMConfig

G = 30


@pytest.fixture(params=[1, 3], ids=["one block", "three blocks"])
def model(request) -> TxFM:
    torch.manual_seed(0)
    return TxFM(TxFMConfig(n_genes=G, d_model=16, n_blocks=request.param, n_heads=2, n_revealed=8)).eval()


@pytest.fixture
def cells() -> dict:
    rng = np.random.default_rng(0)
    dense = rng.poisson(1.0, size=(23, G)) * rng.integers(1, 50, size=(23, 1))
    dense[:, ::4] = 0  # measured or not, nobody sees these
    dense[:, 1] += 1
    x = sp.csr_matrix(dense)
    library = dense.sum(axis=1) + rng.integers(0, 100, 23)  # counts outside the vocabulary
    return {
        "indptr": x.indptr, "indices": x.indices.astype(np.uint16), "counts": x.data.astype(np.uint16),
        "library_size": library.astype(float), "measured": np.arange(G) % 4 != 0,
    }  # fmt: skip


def dense(cells: dict) -> np.ndarray:
    return sp.csr_matrix((cells["counts"], cells["indices"], cells["indptr"]), shape=(23, G)).toarray()


def rows_of(cells: dict, rows: np.ndarray) -> dict:
    x = sp.csr_matrix(dense(cells)[rows])
    some = {"indptr": x.indptr, "indices": x.indices, "counts": x.data}
    return {**cells, **some, "library_size": cells["library_size"][rows]}


def by_hand(model: TxFM, cells: dict, genes: np.ndarray) -> np.ndarray:
    x = np.log1p(dense(cells) * (1e5 / cells["library_size"])[:, None])[:, genes]
    with torch.no_grad():
        e = model.encode(torch.from_numpy(x).float(), torch.from_numpy(genes).expand(23, -1))
    return e.numpy()


def test_all_measured_genes_by_hand(model, cells):
    expected = by_hand(model, cells, np.flatnonzero(cells["measured"]))
    np.testing.assert_allclose(encode_rows(model, **cells), expected, atol=1e-5)


def test_draws_are_shared_by_all_rows_and_averaged(model, cells):
    draws = shown_genes(cells["measured"], 10, 3, seed=5)
    assert len({tuple(d) for d in draws}) == 3
    assert all(len(set(d)) == 10 and cells["measured"][d].all() for d in draws)
    expected = np.mean([by_hand(model, cells, d) for d in draws], axis=0)
    np.testing.assert_allclose(
        encode_rows(model, **cells, n_genes=10, n_draws=3, seed=5), expected, atol=1e-5
    )
    assert not np.allclose(encode_rows(model, **cells, n_genes=10, seed=6), expected)


def test_as_many_genes_as_there_are_is_all_of_them(model, cells):
    np.testing.assert_array_equal(
        encode_rows(model, **cells, n_genes=G, n_draws=4), encode_rows(model, **cells)
    )


@pytest.mark.parametrize("n_genes", [None, 7])
def test_a_cell_s_embedding_is_its_own(model, cells, n_genes):
    """Whatever the batch, the order and the other cells."""
    together = encode_rows(model, **cells, n_genes=n_genes)
    for size in (1, 5, 23):
        np.testing.assert_allclose(
            encode_rows(model, **cells, n_genes=n_genes, batch_size=size), together, atol=1e-5
        )
    rows = np.random.default_rng(1).permutation(23)[:9]
    alone = encode_rows(model, **rows_of(cells, rows), n_genes=n_genes)
    np.testing.assert_allclose(alone, together[rows], atol=1e-5)


def test_unmeasured_genes_are_not_looked_at(model, cells):
    unmeasured = {**cells, "measured": cells["measured"] & (np.arange(G) != 1)}
    altered = sp.csr_matrix(dense(cells) * np.where(np.arange(G) == 1, 7, 1))
    arrays = {"indptr": altered.indptr, "indices": altered.indices, "counts": altered.data}
    np.testing.assert_array_equal(
        encode_rows(model, **unmeasured), encode_rows(model, **{**unmeasured, **arrays})
    )


def test_the_model_is_left_as_it_was(model, cells):
    model.train()
    encode_rows(model, **cells)
    assert model.training
    with pytest.raises(ValueError, match="nothing to show"):
        encode_rows(model, **{**cells, "measured": np.zeros(G, bool)})
    assert model.training


def test_refuses_what_has_no_profile(model, cells):
    cells["library_size"][3] = 0
    with pytest.raises(ValueError, match=r"1 samples without counts \(the first is row 3\)"):
        encode_rows(model, **cells)
    with pytest.raises(ValueError, match="n_genes = 0"):
        shown_genes(cells["measured"], 0, 1, 0)


def test_batches_shrink_with_what_is_shown(model):
    assert cells_per_batch(model, 10) > cells_per_batch(model, 1000) >= 1
    assert cells_per_batch(model, 10**9) == 1
