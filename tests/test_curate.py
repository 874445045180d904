import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from txfm_lite import curate, datasets, diverserna
from txfm_lite.corpus import Corpus
from txfm_lite.curate import Rules


def study(name="study", n=120, genes=range(300), seed=0, batches=("a", "b", "c", "d"), **source):
    """A study as datasets.load gives it: counts, standard columns, provenance."""
    rng = np.random.default_rng(seed)
    x = sparse.random(n, len(genes), 0.3, "csr", random_state=seed)
    x.data = rng.integers(1, 20, x.nnz).astype(np.float32)
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(rng.choice(batches, n)),
            "cell_type": pd.Categorical(rng.choice(["t", "u"], n)),
        },
        index=["".join(rng.choice(list("ACGT"), 14)) + f"-{name}" for _ in range(n)],
    )
    var = pd.DataFrame({"matched": True}, index=[f"G{i:03}" for i in genes])
    adata = ad.AnnData(x, obs, var)
    adata.uns["source"] = {
        "dataset": name,
        "role": "train",
        "units": "UMI counts",
        "citation": "x2020",
        **source,
    }
    return adata


SMALL = Rules(min_cells=3, min_genes=10, min_measured_genes=200, validation_fraction=0.25)


def test_held_out_studies_cannot_enter(tmp_path):
    with pytest.raises(ValueError, match="later: its role is 'held_out'"):
        curate.build(tmp_path / "c", {"first": study(), "second": study("later", role="held_out")}, SMALL)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="role is 'not stated'"):
        curate.check_trainable(ad.AnnData(np.ones((1, 1))))
    with pytest.raises(ValueError, match="holds 'TPM'; a corpus takes UMI counts or read counts"):
        curate.check_trainable(study(units="TPM"))
    curate.check_trainable(study())


def test_filters_agree_with_dense_counting():
    adata = study()
    dense = adata.X.toarray() > 0
    cells = curate.filter_cells(adata, 95)
    assert cells.obs_names.tolist() == adata.obs_names[dense.sum(axis=1) >= 95].tolist()
    genes = curate.filter_genes(adata, 40)
    assert genes.var_names.tolist() == adata.var_names[dense.sum(axis=0) >= 40].tolist()
    assert 0 < cells.n_obs < adata.n_obs and 0 < genes.n_vars < adata.n_vars
    # a stored zero is no expression
    adata.X.data[:] = 0
    assert curate.filter_cells(adata, 1).n_obs == 0


def test_identified_genes_and_library_size():
    adata = study()
    adata.var.iloc[:50, 0] = False
    kept = curate.identified_genes(adata)
    assert kept.var_names.tolist() == adata.var_names[50:].tolist()
    assert np.array_equal(kept.obs["library_size"], adata.X.toarray()[:, 50:].sum(axis=1))


@pytest.mark.parametrize("seed", range(5))
def test_validation_is_whole_batches(seed):
    sizes = {"a": 400, "b": 300, "c": 150, "d": 100, "e": 30, "f": 20}
    batch = pd.Series(np.repeat(list(sizes), list(sizes.values())))
    held = curate.held_out_batches(batch, 0.2, seed)
    assert held == curate.held_out_batches(batch.sample(frac=1, random_state=1), 0.2, seed)
    n_held = sum(sizes[b] for b in held)
    assert "a" not in held and 0 < n_held <= 1000 / 3
    assert len(held) == 1 or n_held <= 200
    adata = ad.AnnData(
        np.ones((1000, 1)), pd.DataFrame({"batch": batch.to_numpy()}, index=map(str, range(1000)))
    )
    split = curate.split_batches(adata, 0.2, seed).obs["split"]
    assert set(batch[split.to_numpy() == "validation"]) == set(held)
    assert set(batch[split.to_numpy() == "train"]) == set(sizes) - set(held)


def test_studies_without_a_batch_to_spare_have_no_validation():
    assert curate.held_out_batches(pd.Series(["a"] * 9)) == []
    assert curate.held_out_batches(pd.Series(["a", "b"] * 9)) == []  # half of the study
    assert curate.held_out_batches(pd.Series([np.nan] * 9, dtype=object)) == []
    assert curate.held_out_batches(pd.Series(["a", "b", "c"] * 9), fraction=0) == []
    unknown = pd.Series(["a", "b"] + [None] * 8)
    assert len(curate.held_out_batches(unknown, 0.1)) == 1


def test_duplicates_need_barcode_and_counts():
    first = study()
    second = study("other", seed=1, genes=range(100, 400))  # 200 genes in common
    second.obs_names = [f"{i}x-other" for i in range(second.n_obs)]
    names = second.obs_names.to_list()
    x = second.X.tolil()
    for i, j in ((0, 7), (1, 8), (2, 9)):  # the first three are cells of the first study
        names[i] = f"lib{first.obs_names[j][:14]}-1"
        x[i, :200] = first.X[j, 100:].toarray()
    x[1, 0] += 1  # one count differs: still the same cell
    names[3] = first.obs_names[10]  # a like barcode, other counts: another cell
    second.X, second.obs_names = x.tocsr(), names
    assert np.flatnonzero(curate.duplicates(second, first)).tolist() == [0, 1, 2]
    assert not curate.duplicates(second[50:], first).any()


def test_build_writes_what_the_rules_keep(tmp_path):
    first = study("first")
    second = study("second", seed=1, genes=range(100, 400), n=90)
    x = second.X.toarray() * (np.arange(300) < 290)  # G390 and above are listed, never seen
    x[2, 295] = 1.0  # but for one, seen once
    second.obs_names = [first.obs_names[3], *second.obs_names[1:]]
    x[0, :200] = first.X[3, 100:].toarray()
    x[1, 9:] = 0.0  # an almost empty cell
    second.X = sparse.csr_matrix(x)
    corpus = curate.build(tmp_path / "c", {"one": first, "two": lambda: second}, SMALL)
    assert corpus.genes.tolist() == [f"G{i:03}" for i in range(390)]
    assert [d["n_samples"] for d in corpus.datasets] == [120, 88]
    assert [d["n_duplicates"] for d in corpus.datasets] == [0, 1]
    assert corpus.measured.sum(axis=1).tolist() == [300, 290]
    assert np.array_equal(corpus.csr(corpus.rows(dataset="one")).toarray()[:, :300], first.X.toarray())
    assert np.array_equal(
        corpus.csr(corpus.rows(dataset="two")).toarray()[:, 100:], second.X.toarray()[2:, :290]
    )
    assert np.array_equal(corpus.library_size[120:], np.ravel(second.X.sum(axis=1))[2:])
    obs = corpus.obs()
    held = obs.loc[obs["split"] == "validation", "batch"].unique()
    assert set(held) & {b for b in obs["batch"].unique() if b.startswith("one:")}
    assert not set(held) & set(obs.loc[obs["split"] == "train", "batch"])
    assert corpus.info["rules"]["min_cells"] == 3
    again = curate.build(tmp_path / "d", {"one": first, "two": second}, SMALL)
    assert again.fingerprint == corpus.fingerprint
    corpus.verify()


def test_a_gene_rare_here_and_frequent_there_keeps_its_counts(tmp_path):
    frequent, rare = study("frequent"), study("rare", seed=1)
    x = rare.X.toarray()
    x[:, 5] = 0
    x[7, 5] = 2  # one cell, min_cells is 3
    rare.X = sparse.csr_matrix(x)
    corpus = curate.build(tmp_path / "c", {"frequent": frequent, "rare": rare}, SMALL)
    assert corpus.measured[1, 5] and corpus.csr(corpus.rows(dataset="rare")).toarray()[:, 5].sum() == 2
    alone = curate.build(tmp_path / "d", {"rare": rare}, SMALL)
    assert "G005" not in alone.genes


def test_min_datasets(tmp_path):
    both = {"one": study("one"), "two": study("two", seed=1, genes=range(50, 350))}
    rules = Rules(min_cells=3, min_genes=10, min_measured_genes=200, min_datasets=2)
    assert curate.build(tmp_path / "c", both, rules).genes.tolist() == [f"G{i:03}" for i in range(50, 300)]


def test_equal_batches_of_one_study_are_on_one_side(tmp_path):
    parts = {f"s/{i}": study("s", seed=i) for i in range(4)}
    obs = curate.build(tmp_path / "c", parts, SMALL).obs()
    sides = obs.groupby(obs["batch"].str.split(":").str[1], observed=True)["split"].nunique()
    assert (sides == 1).all() and len(sides) == 4 and obs["split"].nunique() == 2
    # plates that are parts of their own are batches of the study too
    plates = {f"s/{i}": study("s", seed=i, batches=(f"plate{i}",)) for i in range(4)}
    obs = curate.build(tmp_path / "d", plates, SMALL).obs()
    assert obs.loc[obs["split"] == "validation", "dataset"].nunique() == 1


def test_panels_are_dropped_or_scaled(tmp_path):
    whole = study("whole", n=300)
    panel = study("panel", seed=1, genes=range(0, 300, 3))
    dropped = curate.build(tmp_path / "c", {"whole": whole, "panel": panel}, SMALL)
    assert [d["name"] for d in dropped.datasets] == ["whole"]
    assert dropped.info["skipped"] == [
        {"name": "panel", "reason": "panel: 100 identified genes, fewer than 200"}
    ]
    rules = Rules(min_cells=3, min_genes=10, min_measured_genes=200, panels="scale")
    scaled = curate.build(tmp_path / "d", {"panel": panel, "whole": whole}, rules)
    x = whole.X.toarray()
    share = (x[:, ::3].sum(axis=1) / x.sum(axis=1)).mean()
    assert [d["library_share"] for d in scaled.datasets] == [pytest.approx(share), 1.0]
    own = scaled.csr(scaled.rows(dataset="panel")).toarray().sum(axis=1)
    assert np.allclose(scaled.library_size[:120], own / share) and 0.25 < share < 0.45
    with pytest.raises(ValueError, match="panel is a panel: there is no whole single-cell RNA dataset"):
        curate.build(tmp_path / "e", {"panel": panel}, rules)
    with pytest.raises(ValueError, match="allowed: 'drop', 'scale'"):
        Rules(panels="keep")


def test_bulk_is_not_filtered_like_cells(tmp_path):
    bulk = study("bulk", n=5, modality="bulk RNA", units="read counts")
    bulk.X.data *= 10_000  # beyond 16 bits
    strict = Rules(min_cells=100, min_genes=280, min_measured_genes=200)
    corpus = curate.build(tmp_path / "c", {"bulk": bulk}, strict)
    seen = np.flatnonzero(np.ravel(bulk.X.sum(axis=0)))
    assert np.array_equal(corpus.csr().toarray(), bulk.X.toarray()[:, seen]) and corpus.csr().max() > 65_535


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="left out: .*no sample passes the filters"):
        curate.build(tmp_path / "c", {"empty": study()}, Rules(min_genes=299, min_measured_genes=200))


def test_composition_stands_beside_table_1(tmp_path):
    corpus = curate.build(tmp_path / "tiny", {"one": study("one"), "two": study("two", seed=1, n=200)}, SMALL)
    table = diverserna.composition(corpus)
    ours = table[table["corpus"] == "tiny"].set_index("dataset")
    assert ours.index.tolist() == ["two", "one", "total"] and ours.loc["total", "n_samples"] == 320
    assert ours.loc["one", "median_genes"] == np.median(np.diff(corpus.indptr[:121]))
    paper = table[table["corpus"] == "DiverseRNA-1.4M"].set_index("dataset")
    assert paper.drop("total")["n_samples"].sum() == paper.loc["total", "n_samples"]
    assert paper.loc["GTEx"].tolist()[1:5] == ["GTEx Consortium 2020", "bulk", 10_526, 36_695]


@pytest.fixture(scope="session")
def mini(loaded, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", loaded)
        return diverserna.diverserna_mini(tmp_path_factory.mktemp("mini") / "DiverseRNA-mini")


def test_diverserna_mini(mini):
    names = [d["name"] for d in mini.datasets]
    assert {"pbmc_1k_v2", "pbmc_facs_zheng/main", "pollen_11types", "gtex_brain_counts_damirseq"} <= set(
        names
    )
    assert "darmanis_brain" not in {d["study"] for d in mini.datasets}
    reasons = {s["name"]: s["reason"] for s in mini.info["skipped"]}
    assert reasons["pbmc4k_v2_2000"] == "panel: 4,060 genes, fewer than 7,000"
    facts = {d["name"]: d for d in mini.datasets}
    assert facts["pbmc_sorted_donorA_mudan/reference"]["n_duplicates"] == 127
    assert facts["pbmc_1k_v2"]["n_source"] == 996
    assert 15_000 < mini.n_genes < 30_000 and len(mini) > 15_000
    validation = (
        mini.obs().groupby("dataset", observed=True)["split"].apply(lambda s: (s == "validation").sum())
    )
    assert validation["pbmc_1k_v2"] == 0 and 0 < validation["pbmc_facs_zheng/main"] < 1_300
    assert len(mini.overflow) > 0


def test_diverserna_mini_is_opened_when_nothing_changed(mini, monkeypatch):
    monkeypatch.setattr(diverserna, "build", lambda *args, **kwargs: pytest.fail("built again"))
    assert diverserna.diverserna_mini(mini.path).fingerprint == mini.fingerprint
    with pytest.raises(pytest.fail.Exception, match="built again"):
        diverserna.diverserna_mini(mini.path, Rules(min_cells=20, min_genes=200, min_datasets=2))
    assert Corpus.open(mini.path).fingerprint == mini.fingerprint
