"""The store of experiments: what is there is not run again; changes by decile; the families of studies."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from txfm_lite import encodings, ledger, results, robustness, studies
from txfm_lite.evaluate import experiments, scores


@pytest.fixture(scope="module")
def simulated():
    return studies.disturbed("simulated", most=60)


def test_runs_are_stored_once_and_read_back(simulated, tmp_path, monkeypatch):
    first = experiments.run("x4-molecule", simulated, [0], ["scBERT"], tmp_path)
    assert (
        list(first[list(scores.FIELDS)]) == list(scores.FIELDS) and (first["dataset"] == "simulated_f").all()
    )
    assert results.stored("rank-robustness/x4-molecule/simulated_f/scbert-seed0", tmp_path)
    monkeypatch.setitem(experiments.EXPERIMENTS, "x4-molecule", (None, ("scBERT",), "studies"))
    again = experiments.run("x4-molecule", simulated, [0], folder=tmp_path)
    assert again.equals(first)
    with pytest.raises(ValueError, match="no experiment is called 'x9'"):
        experiments.run("x9", simulated)
    with pytest.raises(ValueError, match="x8 has no scGPT; it has presence"):
        experiments.run("x8", simulated, models=["scGPT"])


def test_changes_by_decile(simulated):
    adata = next(iter(simulated.values()))
    found = {}
    for encoding in ("cell2sentence", "log counts", "scBERT"):
        found[encoding] = {
            (r["metric"], r["variant"]): r["value"] for r in experiments.changes(adata, encoding)
        }
    order, values, bins = found.values()
    assert values["fold change up", "all"] == 1 and values["unseen twofold", "all"] == 0
    assert order["fold change up", "1"] >= order["fold change up", "9"] > 1  # neighbours are near, relatively
    assert bins["unseen twofold", "all"] > 0.05
    assert order["others changed", "top"] == 0 and values["others changed", "top"] == 1
    assert order["others moved", "any"] > 0 and values["up, whole", "1"] > values["up, whole", "10"]


def test_deciles_share_ties():
    counts = sp.csr_matrix(np.array([[1] * 50 + list(range(2, 52))], dtype=np.float32))
    found = experiments.deciles(counts)
    assert set(found[:50]) == {3} and found[-1] == 10 and (np.diff(found[50:]) >= 0).all()


def test_matrices_are_what_the_models_are_shown():
    adata = studies.disturbed("simulated", most=12)["simulated_f"]
    genes = np.sort(adata.var_names.to_numpy(str))
    counts = adata[:, genes].X.tocsr()
    shown = {
        "cell2sentence": encodings.cell2sentence(adata, seed=None),
        "scBERT": encodings.scbert(adata, genes),
        "log counts": encodings.scfoundation(adata, genes),
    }
    for name, encoding in shown.items():
        matrix = robustness.matrix(name, counts, seed=None)
        place = {gene.upper(): j for j, gene in enumerate(genes)}
        for i in range(len(encoding)):
            row = matrix[i].toarray()[0]
            words = [w.upper() for w in encoding[i]]
            columns = [place[w] for w in words if w in place]
            if name == "cell2sentence":
                assert columns == np.argsort(-row, kind="stable")[: len(columns)].tolist()
                assert len(columns) == (row > 0).sum()
            else:
                values = encoding.values[encoding.indptr[i] : encoding.indptr[i + 1]]
                known = [v for w, v in zip(words, values, strict=True) if w in place]
                np.testing.assert_allclose(row[columns], known, rtol=1e-5)
                assert np.isclose(row.sum(), np.sum(known), rtol=1e-5)


def test_families_share_types_under_common_names(local_data):
    families = studies.families(only=["blood_chemistries", "pancreas"])
    assert {name: sorted(f) for name, f in families.items()} == {
        "blood_chemistries": ["3pv1", "3pv2", "5p"], "pancreas": ["batch 1", "batch 4", "batch 5"],
    }  # fmt: skip
    for family in families.values():
        assert len({tuple(a.var_names) for a in family.values()}) == 1
        for adata in family.values():
            assert (adata.X.data == adata.X.data.round()).all()


def test_types_of_blood_get_common_names(loaded):
    theirs = loaded("pbmc3k_annotated")
    ours = studies._common_names(theirs)
    before, after = theirs.obs["cell_type"].value_counts(), ours.obs["cell_type"].value_counts()
    assert after["CD4 T"] == before["Naive CD4 T"] + before["Memory CD4 T"] and after["NK"] == before["NK"]
    assert set(after.index) <= set(studies.BLOOD) and ours.n_obs < theirs.n_obs


def test_every_claim_on_rank_robustness_has_an_experiment():
    for claim in ledger.read():
        if claim.experiment == "notebooks/75_rank_robustness":
            name = claim.compare["study"].removeprefix("rank-robustness/")
            assert name in experiments.EXPERIMENTS
            models = experiments.EXPERIMENTS[name][1]
            assert claim.compare["ours"]["model"] in models


def test_means_and_differences_pair_what_belongs_together():
    rows = pd.DataFrame(
        [
            {
                "dataset": d,
                "seed": s,
                "model": m,
                "metric": "x",
                "variant": v,
                "value": i + 0.1 * s + k,
                "null": 0,
            }
            for i, d in enumerate("abc")
            for s in (0, 1)
            for k, m in enumerate(("one", "two"))
            for v in ("low", "high")
        ]
    )
    mean = experiments.means(rows, "x")
    assert list(mean.index) == [("one", "low"), ("one", "high"), ("two", "low"), ("two", "high")]
    assert mean.loc[("one", "low"), "value"] == pytest.approx(1.05)
    assert mean.loc[("one", "low"), "low"] < 0.8 and mean.loc[("one", "low"), "high"] > 1.3
    assert list(experiments.means(rows, "x", ["two"]).index.unique("model")) == ["two"]
    paired = experiments.differences(rows, "x", "two", "one")
    assert np.allclose(paired, 1) and list(paired.index) == ["low", "high"]  # datasets differ, pairs do not
    assert experiments.differences(rows, "x", "two", "three").empty
