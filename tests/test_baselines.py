"""Baselines against scikit-learn, scanpy and closed forms; what is fitted on a corpus can be stored."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import norm, rankdata
from sklearn.decomposition import PCA

from txfm_lite import baselines
from txfm_lite.corpus_writer import CorpusWriter
from txfm_lite.linear import normal_scores

GENES = [f"G{i}" for i in range(60)]


def simulated(n: int, genes=GENES, seed: int = 0, n_types: int = 3) -> anndata.AnnData:
    """Counts of a few cell types in two batches; every gene named as in the vocabulary."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(n_types, size=n)
    rate = np.random.default_rng(99).gamma(1, 3, size=(n_types, len(GENES)))[kind][:, : len(genes)]
    counts = rng.poisson(rate * rng.gamma(5, 0.2, size=(n, 1))) + (np.arange(len(genes)) == 0)
    obs = pd.DataFrame({"cell_type": kind.astype(str), "batch": np.arange(n) % 2})
    obs.index = [f"cell{i}" for i in range(n)]
    return anndata.AnnData(
        sp.csr_matrix(counts.astype(np.float32)), obs, pd.DataFrame({"matched": True}, index=list(genes))
    )


@pytest.fixture
def adata():
    return simulated(80)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with CorpusWriter(tmp_path_factory.mktemp("baselines") / "corpus", GENES) as writer:
        for i, genes in enumerate((GENES, GENES[:45])):
            study = simulated(120, genes, seed=i + 1)
            study.obs["split"] = np.where(np.arange(120) < 20, "validation", "train")
            study.obs["batch"] = "b"
            writer.add(study, f"study{i}")
        return writer.finish()


def same_up_to_sign(a: np.ndarray, b: np.ndarray, **tolerance) -> None:
    np.testing.assert_allclose(a * np.sign((a * b).sum(axis=0)), b, **tolerance)


def test_genes_of_a_vocabulary_but_totals_of_all(adata):
    some = GENES[10:30][::-1]
    counts, names, total = baselines.measured_counts(adata, [*some, "unknown"])
    assert names.tolist() == some
    np.testing.assert_array_equal(counts.toarray(), adata[:, some].to_df())
    np.testing.assert_array_equal(total, adata.to_df().sum(axis=1))
    x = np.log1p(adata[:, some].to_df().to_numpy() / total[:, None] * 1e5)
    np.testing.assert_allclose(baselines.embed_log_counts(adata, some), x, rtol=1e-5)
    np.testing.assert_array_equal(baselines.embed_raw_counts(adata), adata.to_df())


def test_bad_counts_are_refused(adata):
    logged = adata.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(ValueError, match="X looks log-transformed"):
        baselines.embed_raw_counts(logged)
    empty = adata.copy()
    empty.X = sp.diags((np.arange(80) != 7).astype(np.float32)) @ empty.X
    with pytest.raises(ValueError, match="1 samples have no counts, for example 'cell7'"):
        baselines.embed_log_counts(empty)


def test_pca_of_the_target_is_scikit_learns(adata):
    x = baselines.embed_log_counts(adata)
    expected = PCA(5, svd_solver="full").fit_transform(x)
    ours = baselines.embed_pca(adata, 5)
    same_up_to_sign(ours, expected, atol=2e-3)
    np.testing.assert_allclose(
        baselines.embed_pca(adata, 5, seed=1), baselines.embed_pca(adata, 5), atol=2e-3
    )
    assert baselines.embed_pca(adata[:10].copy(), 64).shape == (10, 9)
    with pytest.raises(ValueError, match="1 samples of 60 genes have no principal component"):
        baselines.embed_pca(adata[:1].copy())


def test_normal_scores_are_those_of_the_ranks(adata):
    above, zero = normal_scores(adata.X)
    scores = above.toarray() + zero[:, None]
    expected = norm.ppf(rankdata(adata.X.toarray(), axis=1) / 61)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    depth = np.random.default_rng(0).uniform(1, 9, 80).astype(np.float32)
    scaled, again = normal_scores(sp.csr_matrix((sp.diags(depth) @ adata.X).log1p()))
    np.testing.assert_allclose(scaled.toarray() + again[:, None], expected, atol=1e-5)
    same_up_to_sign(
        baselines.embed_souza_mehta(adata, 4), PCA(4, svd_solver="full").fit_transform(expected), atol=2e-3
    )


def test_stored_zeros_rank_like_other_zeros():
    dense = np.array([[0, 3, 0, 1]], dtype=np.float32)
    stored = sp.csr_matrix((dense[0], np.arange(4), [0, 4]), shape=(1, 4))
    assert stored.nnz == 4
    above, zero = normal_scores(stored)
    np.testing.assert_allclose(above.toarray() + zero, norm.ppf([[0.3, 0.8, 0.3, 0.6]]), atol=1e-6)


def test_variable_genes_are_scanpys(adata):
    import scanpy as sc

    expected = anndata.AnnData(adata.X.copy(), var=adata.var)
    expected = expected[:, expected.X.sum(axis=0).A1 >= 10].copy()
    sc.pp.normalize_total(expected, target_sum=1e4)  # no gene is below 10 counts here
    sc.pp.log1p(expected)
    sc.pp.highly_variable_genes(expected, n_top_genes=20)
    values = baselines.embed_variable_genes(adata, 20)
    assert expected.n_vars == 60 and values.shape == (80, 20)
    np.testing.assert_allclose(values, expected[:, expected.var["highly_variable"]].X.toarray(), rtol=1e-4)
    assert baselines.embed_variable_genes(adata, 2000).shape == (80, 60)


def test_gene_vectors_are_averaged_over_all_genes(adata):
    toy = anndata.AnnData(sp.csr_matrix([[1.0, 0, 2]], dtype=np.float32), var=adata.var[:3])
    vectors = pd.DataFrame([[1.0, 0], [0, 1]], index=["G0", "G1"])  # G2 has none
    expected = [[np.log1p(1e4 / 3) / 3, 0]]
    np.testing.assert_allclose(baselines.embed_gene_vectors(toy, vectors), expected, rtol=1e-6)
    x = sp.csr_matrix([[1.0, 0, 2]])  # the golden vector: x itself, without its normalisation
    np.testing.assert_allclose((x @ np.array([[1, 0], [0, 1], [0, 0]])) / 3, [[1 / 3, 0]])


def test_pca_of_the_corpus_is_scikit_learns_of_the_filled_matrix(corpus, adata, tmp_path, monkeypatch):
    rows = corpus.rows("train")
    x = np.log1p(corpus.csr(rows).toarray() * 1e5 / corpus.library_size[rows, None])
    x[~corpus.measured[corpus.dataset[rows]]] = np.nan
    mean = np.nanmean(x, axis=0)
    expected = PCA(4, svd_solver="full").fit(np.where(np.isnan(x), mean, x))
    ours = baselines.CorpusPCA(corpus, 4)
    same_up_to_sign(ours.components.T, expected.components_.T, atol=1e-3)

    lacking = adata[:, GENES[:40]].copy()
    share = np.where(np.isnan(x), 0, np.expm1(x)).sum(axis=0) / (~np.isnan(x)).sum(axis=0) / 1e5
    total = lacking.X.sum(axis=1).A1 / share[:40].sum()  # a panel: 40 genes are no library
    filled = np.tile(mean, (80, 1))
    filled[:, :40] = np.log1p(lacking.X.toarray() / total[:, None] * 1e5)
    same_up_to_sign(ours.embed(lacking), expected.transform(filled), atol=2e-2)

    again = baselines.CorpusPCA.load(ours.save(tmp_path / "pca.npz"))
    np.testing.assert_array_equal(again.embed(lacking), ours.embed(lacking))
    assert again.gene_vectors().shape == (60, 4) and again.gene_vectors().index[3] == "G3"

    monkeypatch.setattr(baselines, "PANEL", 30)  # a whole transcriptome is divided by its own total
    filled[:, :40] = baselines.embed_log_counts(lacking)
    same_up_to_sign(ours.embed(lacking), expected.transform(filled), atol=2e-2)


def test_permuting_cells_permutes_rows(adata):
    order = np.random.default_rng(1).permutation(80)
    for name, model in baselines.models().items():
        if name != "scVI (target)":
            a, b = model(adata, 0)[order], model(adata[order].copy(), 0)
            np.testing.assert_allclose(
                np.linalg.norm(a[:, None] - a, axis=2), np.linalg.norm(b[:, None] - b, axis=2), atol=2e-2
            )


def test_a_fit_on_the_corpus_is_made_once(corpus, adata, tmp_path, monkeypatch):
    first = baselines.models(corpus, folder=tmp_path)["PCA (corpus)"](adata, 0)
    (file,) = tmp_path.iterdir()
    assert file.name == f"pca64-{corpus.fingerprint[:12]}-seed0.npz"
    monkeypatch.setattr(baselines, "principal_components", lambda *_: pytest.fail("fitted again"))
    again = baselines.models(corpus, folder=tmp_path)
    np.testing.assert_array_equal(again["PCA (corpus)"](adata, 0), first)


def test_the_names_are_those_of_the_palette(corpus):
    from txfm_lite import plots

    vectors = pd.DataFrame(np.eye(60), index=GENES)
    names = set(baselines.models(corpus, txfm="txfm-xs", vectors=vectors))
    assert names <= set(plots.MODELS)
    only_with = {"PCA (corpus)", "scVI (corpus)", "GenePT-w", "TxFM untrained", "TxFM fine-tuned"}
    assert names - set(baselines.models()) == only_with


def test_scvi_on_the_corpus_embeds_without_knowing_the_batch(corpus, adata, tmp_path):
    from scvi.model import SCVI

    from txfm_lite.baselines_scvi import CorpusSCVI

    scvi = CorpusSCVI(corpus, max_epochs=4)
    assert len(scvi.elbo) == 4 and min(scvi.elbo) < scvi.elbo[0]
    lacking = adata[:, GENES[:50]][:, ::-1].copy()
    z = scvi.embed(lacking)
    assert z.shape == (80, 30) and z.dtype == np.float32

    # the library's own way, with either of the corpus' datasets as the batch
    filled = anndata.AnnData(sp.csr_matrix(lacking.to_df().reindex(columns=GENES).fillna(0).to_numpy("f")))
    for batch in "01":
        filled.obs["batch"] = pd.Categorical([batch] * 80, categories=["0", "1"])
        filled.obs.iloc[:2, 0] = ["0", "1"]
        SCVI.setup_anndata(filled, batch_key="batch")
        reference = SCVI(filled, n_layers=2, n_latent=30, gene_likelihood="nb")
        reference.module.load_state_dict(scvi._module.state_dict())
        reference.is_trained_, _ = True, reference.module.eval()
        np.testing.assert_allclose(reference.get_latent_representation(), z, atol=1e-5)

    again = CorpusSCVI.load(scvi.save(tmp_path / "scvi.safetensors"))
    np.testing.assert_array_equal(again.embed(lacking), z)
    assert again.elbo == scvi.elbo and again.gene_vectors().shape == (60, 128)
    deep = adata.copy()
    deep.X = deep.X * 10_000  # beyond 1e5 counts a sample is scaled down: depth is no signal there
    deeper = adata.copy()
    deeper.X = deeper.X * 30_000
    np.testing.assert_allclose(scvi.embed(deep), scvi.embed(deeper), atol=1e-4)


def test_scvi_on_the_target_finds_the_types_and_keeps_the_order():
    from sklearn.metrics import silhouette_score

    from txfm_lite.baselines_scvi import embed_scvi

    cells = simulated(150, seed=7)
    z = embed_scvi(cells, max_epochs=20)
    assert z.shape == (150, 30)
    assert silhouette_score(z, cells.obs["cell_type"]) > 0.2  # rows in another order: about 0
    once, again = (embed_scvi(cells, max_epochs=1) for _ in range(2))
    np.testing.assert_allclose(again, once, atol=1e-5)


def test_training_stops_when_the_bound_no_longer_improves(monkeypatch):
    from txfm_lite import baselines_scvi

    monkeypatch.setattr(baselines_scvi, "PATIENCE", 1)
    monkeypatch.setattr(baselines_scvi, "PATIENT_STEPS", 1)
    cells = simulated(60, seed=3)
    order = np.arange(60)  # a batch of 128 is more than all: 3 epochs without a better one
    module, elbo = baselines_scvi._train(cells.X, np.array(["a"] * 60), order[10:], order[:10], 0, 400)
    assert len(elbo) < 400 and np.argmin(elbo) == len(elbo) - 4 and not module.training


@pytest.fixture(scope="module")
def txfm():
    import torch

    from txfm_lite.txfm import TxFM, TxFMConfig

    torch.manual_seed(0)
    return TxFM(TxFMConfig(n_genes=50, d_model=8, n_blocks=1, n_heads=2, n_revealed=16), GENES[:50]).eval()


def test_the_untrained_model_depends_on_the_seed_alone(adata, txfm):
    import torch

    from txfm_lite.baselines_txfm import embed_untrained

    before = torch.get_rng_state()
    a, b, c = (embed_untrained(adata, txfm, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (80, 8) and not np.allclose(a, c)
    assert "X_txfm" not in adata.obsm and torch.equal(before, torch.get_rng_state())


def test_fine_tuning_learns_from_counts_and_leaves_model_and_data_alone(adata, txfm):
    from txfm_lite.baselines_txfm import embed_fine_tuned
    from txfm_lite.embed import embed

    weights, history = txfm.state_dict(), []
    before = {k: v.clone() for k, v in weights.items()}
    e = embed_fine_tuned(adata, txfm, steps=30, learning_rate=1e-2, history=history)
    loss = history[0]["loss"].to_numpy()
    assert e.shape == (80, 8) and loss[-1] < loss[0] - 0.03
    assert all((before[k] == v).all() for k, v in weights.items()) and "X_txfm" not in adata.obsm
    blind = adata.copy()
    blind.obs = blind.obs[[]]  # no label, no batch is needed
    again = embed_fine_tuned(blind, txfm, steps=30, learning_rate=1e-2)
    np.testing.assert_allclose(again, e, atol=1e-5)
    assert not np.allclose(e, embed(adata, txfm), atol=1e-2)
