"""Ranks and values through the same projections: draws, arms, controls, zeros, order alone."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr

from txfm_lite import datasets, pairs, rankcontrols, rankstudy, similarity


@pytest.fixture(scope="module")
def cells():
    return rankstudy.draw(datasets.load("simulated_f"), "cell_type", 15, least=5)


def test_a_draw_takes_types_with_enough_cells_and_repeats_itself(tmp_path):
    adata = datasets.load("simulated_f")
    sizes = adata.obs["cell_type"].value_counts()
    least = int(sizes.iloc[2])
    found = rankstudy.draw(adata, "cell_type", least, seed=3)
    assert found.obs["type"].value_counts().to_dict() == dict.fromkeys(sizes.index[sizes >= least], least)
    assert (found.obs["type"] == found.obs["cell_type"]).all() and found.obs["type"].is_monotonic_increasing
    assert found.obs_names.equals(rankstudy.draw(adata, "cell_type", least, seed=3).obs_names)
    assert not found.obs_names.equals(rankstudy.draw(adata, "cell_type", least, seed=4).obs_names)
    assert (found.X != adata[found.obs_names].X).nnz == 0
    adata.layers["counts"], adata.X = adata.X.copy(), adata.X.log1p()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    again = rankstudy.draw(backed, "cell_type", least, seed=3, layer="counts")
    assert (again.X != found.X).nnz == 0 and again.obs_names.equals(found.obs_names)
    with pytest.raises(ValueError, match="X .*log"):
        rankstudy.draw(adata, "cell_type", least)


@pytest.mark.parametrize(
    "column, per_type, told", [("type", 5, "no column 'type'"), ("cell_type", 10**6, "0 types have at least")]
)
def test_a_draw_that_cannot_be_made_says_why(column, per_type, told):
    with pytest.raises(ValueError, match=told):
        rankstudy.draw(datasets.load("simulated_f"), column, per_type)


def test_variable_genes(cells):
    assert rankstudy.variable_genes(cells, 200).sum() == 200
    assert rankstudy.variable_genes(cells, 10**6).sum() == (np.diff(cells.X.tocsc().indptr) >= 3).sum()
    flagged = cells.copy()
    flagged.var["highly_variable"] = np.arange(cells.n_vars) < 7
    assert rankstudy.variable_genes(flagged).sum() == 7


def test_inputs_and_measures_are_what_they_are_called(cells):
    genes = rankstudy.variable_genes(cells, 300)
    x = rankstudy.inputs(cells, genes)
    dense = cells.X.toarray()
    cp10k = 1e4 * dense / dense.sum(axis=1, keepdims=True)
    assert x["log"].toarray() == pytest.approx(np.log1p(cp10k)[:, genes], rel=1e-5)
    of, _ = rankstudy.measure(x["rank"], "rank", "none")
    assert of.matrix() == pytest.approx(spearmanr(dense[:, genes], axis=1)[0], abs=1e-5)
    of, _ = rankstudy.measure(x["log standardised"], "log standardised", "none")
    assert of.matrix() == pytest.approx(np.corrcoef(np.log1p(cp10k)[:, genes]), abs=1e-5)
    for name in rankstudy.INPUTS:
        of, matrix = rankstudy.measure(x[name], name, "PCA-50")
        assert matrix.shape == (cells.n_obs, 50) and not of.alike
    with pytest.raises(ValueError, match="no projection is called 'tSNE'"):
        rankstudy.project(x["log"], "tSNE")


def test_order_alone_is_what_sentences_and_scgpts_bins_see(cells):
    changed = rankcontrols.changed_by_squaring(cells)
    assert changed["Cell2Sentence"] == changed["scGPT"] == 0
    assert all(changed[name] == 1 for name in ("Geneformer", "scBERT", "scFoundation", "GenePT-w", "TxFM"))


def test_zeros_and_ranks_apart():
    x = sp.csr_matrix(np.array([[0, 0, 3, 1, 2, 2], [4, 0, 0, 1, 0, 0], [0, 9, 9, 0, 0, 0.0]]))
    apart = rankcontrols.zeros_and_ranks(x)
    dense = x.toarray()
    assert apart["all ranks"] @ apart["all ranks"].T == pytest.approx(spearmanr(dense, axis=1)[0], abs=1e-6)
    assert apart["zeros only"] @ apart["zeros only"].T == pytest.approx(np.corrcoef(dense > 0), abs=1e-6)
    inner = apart["ranks without zeros"]
    assert (inner[dense == 0] == 0).all() and inner.sum(axis=1) == pytest.approx(0, abs=1e-6)
    assert np.argsort(inner[0])[[0, -1]].tolist() == [3, 2] and (inner[2] == 0).all()  # two equals: no order


def test_mantels_test():
    rng = np.random.default_rng(0)
    place = rng.normal(size=(12, 2))
    a = similarity.Euclid(place).matrix()
    related, p = rankstudy.mantel(a, similarity.Euclid(place + 0.3 * rng.normal(size=(12, 2))).matrix())
    i = np.triu_indices(12, 1)
    assert related > 0.6 and p == 0.001
    noise = similarity.Euclid(rng.normal(size=(12, 2))).matrix()
    unrelated, p = rankstudy.mantel(a, noise)
    assert unrelated == pytest.approx(spearmanr(a[i], noise[i])[0]) and p > 0.05


def test_scores_find_types_and_nothing_in_permuted_labels():
    rng = np.random.default_rng(0)
    labels = np.repeat(list("abcd"), 30)
    x = rng.normal(size=(4, 8))[np.repeat(range(4), 30)] * 3 + rng.normal(size=(120, 8))
    rows, summary = rankstudy.scores(similarity.Euclid(x), x, labels)
    rows = pd.DataFrame(rows).set_index("metric")
    assert isinstance(summary, pairs.Summary) and rows.loc["auc", "value"] > 0.95
    assert rows.loc["auc", "null"] == pytest.approx(0.5, abs=0.02)
    assert rows.loc["kNN", "value"] > 0.95 and rows.loc["kNN", "null"] < 0.45


def test_an_untrained_geneformer_repeats_itself_row_by_row(cells):
    few = cells[:6].copy()
    e = rankcontrols.embed_geneformer(few, longest=64)
    assert e.shape == (6, 256) and np.isfinite(e).all()
    order = [4, 1, 0, 5, 2, 3]
    assert rankcontrols.embed_geneformer(few[order].copy(), longest=64) == pytest.approx(e[order], abs=1e-4)
    assert abs(rankcontrols.embed_geneformer(few, longest=64, seed=1) - e).max() > 0.01
