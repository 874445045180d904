"""The simulated corpus against the truth that it carries."""

from dataclasses import replace

import numpy as np
import pytest

from txfm_lite import simulate

STANDARD = {"cell_type", "batch", "donor", "technology", "tissue", "disease"}
STANDARD |= {"perturbation", "perturbation_type", "is_control"}


@pytest.fixture(scope="module")
def corpus():
    return simulate.corpus(seed=0)


def counts(adata):
    return adata.X.toarray().astype(float)


def designs():
    return {design.name: design for design in simulate.STUDIES}


def test_contract(corpus):
    roles = [a.uns["source"]["role"] for a in corpus.values()]
    assert roles.count("held_out") == 2 and roles.count("train") == 5
    for name, adata in corpus.items():
        assert adata.X.format == "csr" and adata.X.dtype == np.float32
        assert (adata.X.data > 0).all() and (adata.X.data == np.round(adata.X.data)).all()
        assert set(adata.obs) == STANDARD
        assert {"gene_symbols", "ensembl_id", "source_id", "matched"} <= set(adata.var)
        assert adata.obs_names.is_unique and adata.var_names.is_unique
        assert adata.uns["source"]["dataset"] == name
        assert adata.obs["batch"].nunique() >= 2


def test_held_out_study_has_types_in_every_batch(corpus):
    obs = corpus["simulated_f"].obs
    table = obs.groupby(["batch", "cell_type"], observed=True).size().unstack()
    assert table.shape == (3, 6) and table.min().min() >= 20


def test_same_seed_same_data_and_studies_do_not_depend_on_each_other(corpus):
    alone = simulate.study("simulated_c", seed=0)
    assert (alone.X != corpus["simulated_c"].X).nnz == 0
    assert alone.obs.equals(corpus["simulated_c"].obs)
    other = simulate.study("simulated_c", seed=1)
    assert not np.array_equal(other.var_names, alone.var_names)
    with pytest.raises(ValueError, match="simulated_z.*simulated_a"):
        simulate.study("simulated_z")
    with pytest.raises(ValueError, match="n_genes=10"):
        simulate.corpus(n_genes=10)


def test_measured_genes_differ(corpus):
    measured = [set(a.var_names) for a in corpus.values()]
    assert all(len(m) == 1500 for m in measured)
    assert 200 < len(set.intersection(*measured)) < 600  # 0.75^7 of 2,000 is 267
    assert len(set.union(*measured)) > 1990


def test_truth_is_in_the_order_of_the_genes(corpus):
    """Shared genes have the same baseline and loadings in two studies, found through their names."""
    a, b = corpus["simulated_a"], corpus["simulated_b"]
    shared = a.var_names.intersection(b.var_names)
    for key in ("baseline", "loadings"):
        left = a.uns["truth"][key][a.var_names.get_indexer(shared)]
        assert np.array_equal(left, b.uns["truth"][key][b.var_names.get_indexer(shared)])


@pytest.mark.parametrize("name", [design.name for design in simulate.STUDIES])
def test_library_sizes(corpus, name):
    design, adata = designs()[name], corpus[name]
    log_size = np.log(adata.uns["truth"]["library_size"])
    error = design.library_sigma / np.sqrt(adata.n_obs)
    assert abs(log_size.mean() - np.log(design.library_median)) < 4 * error
    assert abs(log_size.std() / design.library_sigma - 1) < 4 / np.sqrt(2 * adata.n_obs)
    # observed totals are the library size less what dropout takes
    mu, dropout = simulate.expected(adata.uns["truth"])
    assert np.allclose(mu.sum(axis=1), adata.uns["truth"]["library_size"])
    ratio = counts(adata).sum(axis=1) / (mu * (1 - dropout)).sum(axis=1)
    assert abs(ratio.mean() - 1) < 0.02


@pytest.mark.parametrize("name", ["simulated_a", "simulated_c", "simulated_e"])
def test_mean_and_variance_are_negative_binomial_with_dropout(corpus, name):
    adata = corpus[name]
    mu, p = simulate.expected(adata.uns["truth"])
    theta, x = adata.uns["truth"]["inverse_dispersion"], counts(adata)
    mean = (1 - p) * mu
    variance = (1 - p) * (mu + mu**2 / theta) + p * (1 - p) * mu**2
    high = mu > 1
    assert abs(((x - mean) / np.sqrt(variance))[high].mean()) < 0.01
    assert abs(((x - mean) ** 2 / variance)[high].mean() - 1) < 0.05
    assert ((x - mean) ** 2 / mean)[high].mean() > 1.3  # Poisson would give 1


@pytest.mark.parametrize("name", ["simulated_a", "simulated_c"])
def test_share_of_zeros(corpus, name):
    adata = corpus[name]
    mu, p = simulate.expected(adata.uns["truth"])
    theta = adata.uns["truth"]["inverse_dispersion"]
    sampling = (theta / (theta + mu)) ** theta  # zeros that the negative binomial itself makes
    zero = (counts(adata) == 0).mean()
    assert abs(zero - (p + (1 - p) * sampling).mean()) < 0.003
    assert zero > sampling.mean() + 0.05  # dropout is there, and not small


def test_bulk_has_no_dropout_and_mixes_types(corpus):
    truth = corpus["simulated_e"].uns["truth"]
    assert (simulate.expected(truth)[1] == 0).all()
    assert np.allclose(truth["fractions"].sum(axis=1), 1)
    assert corpus["simulated_e"].obs["cell_type"].isna().all()


def test_programmes_are_recovered_by_regression_on_their_activity():
    """Least squares of log counts on the true activities gives back the loadings, gene by gene."""
    deep = replace(designs()["simulated_c"], types=tuple(range(8)), half_capture=0.0, inverse_dispersion=20.0)
    adata = simulate.corpus(studies=[deep])["simulated_c"]
    truth, x = adata.uns["truth"], counts(adata)
    high = x.mean(axis=0) > 20
    y = np.log(x[:, high] + 1) - np.log(truth["library_size"])[:, None]
    design = np.column_stack([np.ones(len(y)), truth["activity"], np.eye(4)[truth["batch"]][:, 1:]])
    fit = np.linalg.lstsq(design, y, rcond=None)[0][1 : 1 + simulate.N_PROGRAMMES]
    fit -= np.median(fit, axis=1, keepdims=True)  # the library constraint lowers all genes alike
    loadings = truth["loadings"][high].T
    seen = truth["activity"].std(axis=0) > 0.2  # a programme that hardly varies leaves no trace
    assert seen.sum() >= 6
    for guess, true in zip(fit[seen], loadings[seen], strict=True):
        assert np.corrcoef(guess, true)[0, 1] > 0.65
    members = loadings[seen] > 0
    assert abs(np.median(fit[seen][members] / loadings[seen][members]) - 1) < 0.1
    assert abs(np.median(fit[seen][~members])) < 0.02


def test_batch_effects_have_the_stated_size(corpus):
    """Log ratios of two batches' pooled profiles follow the true batch effects with slope 1."""
    adata = corpus["simulated_e"]
    truth, x = adata.uns["truth"], counts(adata)
    share = np.array([x[truth["batch"] == r].sum(axis=0) for r in (0, 1)])
    log_ratio = np.diff(np.log(share / share.sum(axis=1, keepdims=True)), axis=0)[0]
    true = truth["batch_effects"][1] - truth["batch_effects"][0]
    slope = np.polyfit(true, log_ratio, 1)[0]
    assert abs(slope - 1) < 0.05
    assert abs(truth["batch_effects"].std() / simulate.BATCH_SD - 1) < 0.05


def test_guides_lower_their_target_and_its_programme(corpus):
    adata = corpus["simulated_d"]
    obs, truth, x = adata.obs, adata.uns["truth"], counts(adata)
    control = obs["is_control"].to_numpy(dtype=bool)
    assert abs(control.mean() - simulate.CONTROL_SHARE) < 0.06
    assert (obs["perturbation"][control] == "control").all()
    x = x / x.sum(axis=1, keepdims=True)
    for gene in obs["perturbation"][~control].unique():
        treated = (obs["perturbation"] == gene).to_numpy()
        column = adata.var_names.get_loc(gene)
        assert x[treated, column].mean() < 0.5 * x[control, column].mean()
        k = truth["target_programme"][treated][0]
        assert truth["loadings"][column, k] > 0
        drop = truth["activity"][treated, k].mean() / truth["activity"][control, k].mean()
        assert abs(drop / simulate.KNOCKDOWN - 1) < 0.15


def test_the_guide_screens_know_which_targets_are_related(corpus):
    for name, n_targets, n_pairs in (("simulated_d", 10, 5), ("simulated_g", 20, 30)):
        adata = corpus[name]
        truth, found = adata.uns["truth"], simulate.partners(adata)
        pairs = {(g, k) for g, k in zip(truth["target"], truth["target_programme"], strict=True) if g >= 0}
        assert len(pairs) == n_targets and len({k for _, k in pairs}) == 5
        programme = {adata.var_names[g]: k for g, k in pairs}
        assert len(found.drop_duplicates()) == len(found) == n_pairs
        assert all(programme[a] == programme[b] for a, b in found.itertuples(index=False))
    counted = corpus["simulated_g"].obs.groupby(["batch", "perturbation"], observed=True).size()
    assert len(counted) == 3 * 21 and counted.min() >= 3


def test_a_design_can_be_changed():
    small = [replace(design, n_obs=30) for design in simulate.STUDIES[:2]]
    made = simulate.corpus(seed=3, n_genes=200, studies=small)
    assert [a.shape for a in made.values()] == [(30, 150), (30, 150)]


def test_truth_survives_a_file(tmp_path, corpus):
    import anndata

    corpus["simulated_d"].write_h5ad(tmp_path / "d.h5ad")
    back = anndata.read_h5ad(tmp_path / "d.h5ad")
    before, after = corpus["simulated_d"].uns["truth"], back.uns["truth"]
    assert np.array_equal(simulate.expected(before)[0], simulate.expected(after)[0])
