"""From AnnData to embedding: the right gene in the right column, the right row for each cell."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData

from txfm_lite import datasets
from txfm_lite.align import align
from txfm_lite.embed import embed, gene_vectors, layers, library_share, reconstruct
from txfm_lite.inference import shown_genes
from txfm_lite.txfm import TxFM, TxFMConfig

GENES = [f"G{i}" for i in range(12)]


@pytest.fixture
def adata() -> AnnData:
    rng = np.random.default_rng(0)
    names = [*GENES[:8][::-1], "X1", "X2"]  # 8 of the vocabulary, backwards, and two that it lacks
    counts = rng.poisson(4, size=(9, 10)) + 1
    matched = np.r_[np.ones(9, bool), False]
    return AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        pd.DataFrame(index=[f"c{i}" for i in range(9)]),
        pd.DataFrame({"matched": matched}, index=names),
    )


@pytest.fixture
def model() -> TxFM:
    torch.manual_seed(0)
    config = TxFMConfig(n_genes=12, d_model=8, n_blocks=2, n_heads=2, n_revealed=4)
    return TxFM(config, GENES).eval()


def test_layers_end_in_the_embedding_and_in_what_predicts_the_genes(adata, model):
    found = layers(adata, model)
    decoder = [f"decoder {i}" for i in range(5)]
    assert list(found) == ["encoder 1", "encoder 2", *decoder]
    assert all(x.shape == (9, 8) for x in found.values())
    np.testing.assert_allclose(found["encoder 2"], embed(adata, model), atol=1e-6)
    assert not np.allclose(found["encoder 1"], found["encoder 2"], atol=1e-2)
    with torch.no_grad():
        logits = model.gene_head(torch.from_numpy(found["decoder 4"]))
        expected = model.gene_head(model.decoder(torch.from_numpy(found["encoder 2"])))
    torch.testing.assert_close(logits, expected)
    one = TxFM(TxFMConfig(n_genes=12, d_model=8, n_blocks=1, n_heads=2, decoder_blocks=0), GENES)
    assert list(layers(adata, one)) == ["encoder 1", "decoder 0"]


def test_align_against_pandas(adata):
    counts, measured, library_size = align(adata, GENES)
    frame = adata.to_df().reindex(columns=GENES)
    np.testing.assert_array_equal(counts.toarray(), frame.fillna(0))
    np.testing.assert_array_equal(measured, frame.notna().all())
    np.testing.assert_array_equal(library_size, adata.to_df().drop(columns="X2").sum(axis=1))


def test_align_refuses_foreign_ids(adata):
    with pytest.raises(ValueError, match=r"none of the 10 genes \(G7, G6, G5"):
        align(adata, ["ENSG1", "ENSG2"])


def test_embed_by_hand(adata, model):
    result = embed(adata, model)
    assert result is adata.obsm["X_txfm"] and result.shape == (9, 8)
    total = adata.to_df().drop(columns="X2").sum(axis=1).to_numpy()
    x = np.log1p(adata.to_df()[GENES[:8]].to_numpy() * 1e5 / total[:, None]).astype(np.float32)
    with torch.no_grad():
        by_hand = model.encode(torch.from_numpy(x), torch.arange(8).expand(9, -1))
    np.testing.assert_allclose(result, by_hand, atol=1e-5)


def test_batch_size_and_order_do_not_matter(adata, model):
    reference = embed(adata, model).copy()
    np.testing.assert_allclose(embed(adata, model, batch_size=2), reference, atol=1e-5)
    order = np.random.default_rng(1).permutation(9)
    np.testing.assert_allclose(embed(adata[order].copy(), model), reference[order], atol=1e-5)


def test_embed_from_some_genes(adata, model):
    some = embed(adata, model, n_genes=5, seed=1).copy()
    np.testing.assert_array_equal(embed(adata, model, n_genes=5, seed=1), some)
    assert not np.allclose(embed(adata, model, n_genes=5, seed=2), some)
    assert model.training is False


def test_draws_are_averaged(adata, model):
    several = embed(adata, model, n_genes=5, n_draws=3).copy()
    genes = shown_genes(np.arange(12) < 8, 5, 3, seed=0)
    one_by_one = []
    for g in genes:
        columns = adata[:, [GENES[i] for i in g]].to_df().to_numpy()
        x = np.log1p(columns * 1e5 / adata.to_df().drop(columns="X2").sum(axis=1).to_numpy()[:, None])
        with torch.no_grad():
            one_by_one.append(model.encode(torch.from_numpy(x).float(), torch.from_numpy(g).expand(9, -1)))
    np.testing.assert_allclose(several, np.mean(one_by_one, axis=0), atol=1e-5)


def test_embed_from_a_folder_says_how(adata, model, tmp_path, caplog):
    model.save_pretrained(tmp_path / "small")
    caplog.set_level("INFO", "txfm_lite")
    expected = embed(adata, model).copy()
    np.testing.assert_allclose(embed(adata, tmp_path / "small", device="cpu"), expected, atol=1e-6)
    how = adata.uns["txfm"]
    assert how["model"] == str(tmp_path / "small") and how["genes_shown"] == 8
    assert how["model_genes_measured"] == 8 / 12
    assert "8 of the model's 12 genes measured" in caplog.text
    adata.write_h5ad(tmp_path / "embedded.h5ad")
    back = anndata.read_h5ad(tmp_path / "embedded.h5ad")
    np.testing.assert_array_equal(back.obsm["X_txfm"], adata.obsm["X_txfm"])
    assert back.uns["txfm"]["genes"] == 10


def test_many_cells_in_pieces(adata, model, monkeypatch):
    expected = embed(adata, model).copy()
    monkeypatch.setattr("txfm_lite.align.ROWS", 4)
    np.testing.assert_allclose(embed(adata, model), expected, atol=1e-5)
    report = adata.uns["txfm"]
    inside = adata.to_df()[GENES[:8]].to_numpy().sum()
    assert report["counts_in_model"] == pytest.approx(inside / adata.X.sum())


def test_embed_judges_the_match(adata, model, caplog):
    few = adata[:, ["G0", "X1"]].copy()
    embed(few, model)
    assert "only 8 % of the model's genes" in caplog.text
    foreign = adata.copy()
    foreign.var["matched"] = foreign.var_names == "G0"
    with pytest.raises(ValueError, match=r"only \d+% of the counts are in known genes"):
        embed(foreign, model)
    assert "X_txfm" not in foreign.obsm


def test_embed_needs_a_vocabulary(adata):
    with pytest.raises(ValueError, match="no vocabulary"):
        embed(adata, TxFM(TxFMConfig(n_genes=3, d_model=8, n_heads=2, n_blocks=1)))


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_embed_needs_a_device_that_is_there(adata, model, device):
    with pytest.raises(ValueError, match=f"device = '{device}' cannot be used"):
        embed(adata, model, device=device)


def test_gene_vectors_are_labelled(model):
    frame = gene_vectors(model)
    assert frame.shape == (12, 7 + 8) and frame.index.tolist() == GENES
    np.testing.assert_array_equal(frame["codebook"].loc["G3"], model.codebook.weight[3].detach())
    np.testing.assert_array_equal(frame.loc["G3", "decoder"], model.gene_head.weight[3].detach())


def test_reconstruct_by_hand(adata, model):
    with torch.no_grad():
        log_rate = model.decode(torch.from_numpy(embed(adata, model)))
    total = adata.to_df().drop(columns="X2").sum(axis=1).to_numpy()
    expected = np.expm1(log_rate.numpy()) * (total / 1e5)[:, None]
    result = reconstruct(adata, model)
    np.testing.assert_allclose(result.X, expected, rtol=1e-4, atol=1e-6)
    assert result.obs_names.equals(adata.obs_names) and result.var_names.tolist() == GENES
    assert result.var["measured"].tolist() == [True] * 8 + [False] * 4
    some = reconstruct(adata, model, ["G9", "G1"])
    np.testing.assert_allclose(some.X, expected[:, [9, 1]], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="does not know nonsense"):
        reconstruct(adata, model, ["G1", "nonsense"])


def test_a_panel_is_not_taken_for_a_library(adata, model, monkeypatch, caplog):
    caplog.set_level("INFO", "txfm_lite")
    profile = np.linspace(1, 12, 12) / 78 * 1e5
    with torch.no_grad():
        for weight in model.decoder.parameters():
            weight.zero_()
    model.start_from_profile(torch.from_numpy(profile.astype(np.float32)))
    measured = np.isin(GENES, adata.var_names)
    share = library_share(model, measured)
    np.testing.assert_allclose(share, profile[measured].sum() / 1e5, rtol=1e-4)

    as_panel = embed(adata, model).copy()
    assert adata.uns["txfm"]["library_share"] == share and "taken for 46.2 % of a library" in caplog.text
    inside = adata.to_df()[GENES[:8]].sum(axis=1).to_numpy()
    whole = adata.copy()  # the same counts with the rest of the library in one gene that the model lacks
    counts = whole.X.toarray()
    counts[:, list(whole.var_names).index("X1")] = inside / share - inside
    whole.X = sp.csr_matrix(counts)
    monkeypatch.setattr("txfm_lite.align.not_counts", lambda values: "")  # the rest is no whole number
    np.testing.assert_allclose(as_panel, embed(whole, model, library_share=1), atol=1e-5)
    monkeypatch.setattr("txfm_lite.embed.PANEL", 9)  # nine identified genes: a whole transcriptome
    np.testing.assert_array_equal(embed(adata, model), embed(adata, model, library_share=1))
    with pytest.raises(ValueError, match="library_share = 1.5: should be above 0"):
        embed(adata, model, library_share=1.5)


def test_a_panel_of_real_cells_lands_nearer_to_where_all_their_genes_put_them(local_data):
    cells = datasets.load("pbmc_facs_zheng", "test")
    panel = cells[:, cells.var_names.isin(datasets.load("papalexi2021_eccite_thp1").var_names)].copy()
    keep = np.asarray(panel.X.sum(axis=1)).ravel() > 0
    full = embed(cells[keep].copy())
    near, far = (embed(panel[keep].copy(), library_share=share) for share in (None, 1))

    def likeness(e):
        a, b = e - e.mean(axis=0), full - full.mean(axis=0)
        return ((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()

    assert likeness(near) > likeness(far) + 0.05
