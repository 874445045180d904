"""Cell-type scores: closed cases, chance, golden values, scikit-learn and scanpy."""

import random

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

from txfm_lite.baselines import embed_log_counts
from txfm_lite.evaluate import cells, mixing, probes, scores
from txfm_lite.evaluate.cells import knn_across_batches


@pytest.fixture
def clusters():
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abc"), size=300, p=[0.6, 0.3, 0.1])
    centres = {"a": [5, 0, 0], "b": [0, 5, 0], "c": [0, 0, 5]}
    x = np.array([centres[label] for label in labels]) + rng.normal(size=(300, 3))
    return x, pd.Series(labels), pd.Series(rng.choice(["p", "q", "r"], 300))


def test_against_scikit_learn(clusters):
    x, labels, batches = clusters
    x = x + np.random.default_rng(1).normal(scale=3, size=x.shape)  # hard enough not to be 1
    predicted = labels.copy()
    for batch in "pqr":
        inside = (batches == batch).to_numpy()
        knn = KNeighborsClassifier(7, metric="cosine").fit(x[~inside], labels[~inside])
        predicted[inside] = knn.predict(x[inside])
    expected = balanced_accuracy_score(labels, predicted)
    assert knn_across_batches(x, labels, batches, 7) == pytest.approx(expected)
    assert expected < 0.95


def test_separated_clusters_and_chance(clusters):
    x, labels, batches = clusters
    assert knn_across_batches(x, labels, batches) > 0.95
    shuffled = [
        knn_across_batches(x, labels.sample(frac=1, random_state=i).to_numpy(), batches) for i in range(10)
    ]
    assert np.mean(shuffled) == pytest.approx(1 / 3, abs=0.05)  # balanced: the class prior gains nothing
    assert knn_across_batches(np.ones((300, 3)), labels, batches) == pytest.approx(1 / 3, abs=0.05)


def test_neighbours_come_from_other_batches():
    """An embedding that knows only the batch scores nothing, though each cell's neighbours are twins."""
    batches = np.repeat(["p", "q"], 20)
    labels = np.array((["a"] * 10 + ["b"] * 10) * 2)
    x = np.column_stack([np.repeat([1.0, -1.0], 20), np.zeros(40)])
    x[:, 1] = np.where((labels == "a") == (batches == "p"), 0.1, -0.1)  # perfect within, inverted across
    assert knn_across_batches(x, labels, batches, n_neighbors=5) == 0


def test_labels_that_no_other_batch_has_do_not_count(clusters):
    x, labels, batches = clusters
    reference = knn_across_batches(x[batches != "p"], labels[batches != "p"], batches[batches != "p"])
    here = labels.mask(batches == "p", "only here")
    far = np.where((batches == "p").to_numpy()[:, None], -100 * np.ones(3), x)  # and nobody's neighbours
    assert knn_across_batches(far, here, batches) == pytest.approx(reference)
    assert knn_across_batches(x, labels.mask(batches == "p"), batches) == pytest.approx(reference)


def test_refuses(clusters):
    x, labels, batches = clusters
    with pytest.raises(ValueError, match="299 labels"):
        knn_across_batches(x, labels[1:], batches)
    with pytest.raises(ValueError, match="no label occurs in two batches"):
        knn_across_batches(x, batches, batches)


def by_name(rows):
    return {(row["metric"], row["variant"]): row for row in rows}


def test_null_of_neighbours_is_the_class_prior_of_the_other_batches(clusters):
    x, labels, batches = clusters
    row = cells.knn(x, labels, batches)
    assert row["value"] == knn_across_batches(x, labels, batches) and row["null"] == pytest.approx(1 / 3)
    assert np.isnan(cells.knn(x, batches, batches)["value"])


def test_separated_clusters_are_found_at_some_resolution(clusters):
    x, labels, _ = clusters
    got = by_name(cells.clusters(mixing.neighbours(5 * x), labels.to_numpy()))
    for algorithm in ("Leiden", "Louvain"):
        best, fixed = got["NMI", algorithm], got["NMI", f"{algorithm}, resolution 1"]
        assert fixed["value"] <= best["value"] and best["value"] > 0.9
        assert got["ARI", algorithm]["value"] > 0.9
        assert fixed["null"] < best["null"] < 0.2


def test_the_best_resolution_is_the_best_and_both_scores_are_from_there(clusters, monkeypatch):
    """Eight cells too many in one cluster: golden values, and a search that kept the last one would fail."""
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    golden = [0, 0, 0, 1, 1, 1, 1, 2, 2, 0]
    monkeypatch.setattr(
        cells, "_communities", lambda graph, w, how, r, seed: golden if r == 0.4 else [0] * 9 + [1]
    )
    near = mixing.neighbours(np.random.default_rng(0).normal(size=(10, 2)))
    got = by_name(cells.clusters(near, truth))
    assert got["NMI", "Leiden"]["value"] == pytest.approx(0.596162, abs=1e-6)
    assert got["ARI", "Leiden"]["value"] == pytest.approx(0.391144, abs=1e-6)
    assert got["NMI", "Leiden, resolution 1"]["value"] < 0.4


def test_clusters_are_scanpys(loaded):
    adata = loaded("pbmc_3tech_symphony")
    x = embed_log_counts(adata, adata.var_names.to_numpy())
    x = PCA(20, random_state=0).fit_transform(x)
    other = anndata.AnnData(x, adata.obs[["cell_type"]].astype(str))
    sc.pp.neighbors(other, 15, use_rep="X", random_state=0)
    best = []
    for resolution in cells.RESOLUTIONS:
        sc.tl.leiden(other, resolution, flavor="igraph", n_iterations=2, directed=False, random_state=0)
        best.append(normalized_mutual_info_score(other.obs["cell_type"], other.obs["leiden"]))
    got = by_name(cells.clusters(mixing.neighbours(x), other.obs["cell_type"].to_numpy()))
    assert got["NMI", "Leiden"]["value"] == pytest.approx(max(best), abs=0.04)


def test_choosing_a_resolution_by_labels_rewards_one_cluster_per_cell():
    """Identical rows have no structure at all, yet the best NMI is far from 0: the null says so."""
    labels = np.random.default_rng(0).choice(list("abcdefgh"), 400)
    got = by_name(cells.clusters(mixing.neighbours(np.zeros((400, 2))), labels))
    best = got["NMI", "Leiden"]
    assert best["value"] > 0.2 and best["value"] == pytest.approx(best["null"], abs=0.05)


def test_pythons_generator_is_left_as_it_was(clusters):
    random.seed(5)
    expected = random.Random(5).random()
    cells.clusters(mixing.neighbours(clusters[0]), clusters[1].to_numpy())
    assert random.random() == expected


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(probes, "STEPS", {"linear": 4, "MLP": 4})


def frame(labels, batches):
    return pd.DataFrame({"cell_type": labels, "batch": batches})


def test_all_scores_have_a_null_a_ceiling_and_a_count(clusters, quick):
    x, labels, batches = clusters
    counts = sp.random(300, 30, 0.5, "csr", random_state=0)
    rows = cells.evaluate(x, frame(labels, batches), counts=counts)
    assert set(cells.PUBLISHED) <= set(by_name(rows)) and len(by_name(rows)) == len(rows)
    for row in rows:
        assert np.isfinite([row["value"], row["ceiling"]]).all() and row["n"] > 0
        mixes = row["metric"] in ("iLISI", "PCR comparison") or row["variant"] == "scib"
        assert (row["null"] == row["ceiling"]) == mixes  # knowing nothing mixes best
        assert np.isfinite(row["null"]) or row["metric"] == "unseen labels"
    again = cells.evaluate(x, frame(labels, batches), counts=counts)
    assert rows == again


def test_scores_do_not_depend_on_the_order_of_cells_or_on_axes(clusters, quick):
    x, labels, batches = clusters
    order = np.random.default_rng(1).permutation(300)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    moved = (2 * x @ rotation)[order], frame(labels, batches).iloc[order]
    a, b = (by_name(cells.evaluate(*given)) for given in ((x, frame(labels, batches)), moved))
    for name in (("ASW", ""), ("ASW l/b", "scib"), ("PCR", ""), ("kNN", ""), ("graph connectivity", "")):
        assert a[name]["value"] == pytest.approx(b[name]["value"], abs=1e-6)
    for name in (("NMI", "Leiden"), ("iLISI", "raw"), ("LR accuracy", "")):
        assert a[name]["value"] == pytest.approx(b[name]["value"], abs=0.03)


def test_scrambled_rows_score_their_null(clusters, quick):
    x, labels, batches = clusters
    rows = by_name(cells.evaluate(scores.scrambled(x, seed=0), frame(labels, batches), seed=0))
    for name in (("NMI", "Leiden"), ("ARI", "Louvain"), ("ASW", ""), ("kNN", "")):
        # a null permuted by the same random numbers as the rows would be a perfect score
        assert rows[name]["value"] == pytest.approx(rows[name]["null"], abs=0.08)
    assert rows["iLISI", "of permuted"]["value"] == pytest.approx(1, abs=0.05)  # knowing nothing mixes best


def test_one_batch_leaves_the_scores_without_batches(clusters, quick, caplog):
    x, labels, _ = clusters
    unknown = cells.evaluate(x, frame(labels, np.full(300, np.nan)))
    same = cells.evaluate(x, frame(labels, "p"))
    assert "one batch" in caplog.text
    for row, twin in zip(unknown, same, strict=True):
        assert row["value"] == twin["value"] or (np.isnan(row["value"]) and np.isnan(twin["value"]))
    defined = {row["metric"] for row in same if np.isfinite(row["value"])}
    assert defined == {"NMI", "ARI", "ASW", "ASW l/b", "graph connectivity"}


def test_cells_without_label_or_batch_are_left_out(clusters, quick):
    x, labels, batches = clusters
    holes = frame(labels, batches)
    holes.iloc[:10, 0], holes.iloc[10:15, 1] = None, None
    counts = np.random.default_rng(0).poisson(1, (300, 5))
    rows = cells.evaluate(x, holes, counts=counts)
    assert rows == cells.evaluate(x[15:], holes[15:], counts=counts[15:]) and rows[0]["n"] == 285


def test_evaluate_refuses(clusters):
    x, labels, batches = clusters
    good = frame(labels, batches)
    with pytest.raises(ValueError, match=r"shape \(299, 3\) for 300 cells"):
        cells.evaluate(x[1:], good)
    with pytest.raises(ValueError, match="obs has no column batch"):
        cells.evaluate(x, good[["cell_type"]])
    with pytest.raises(ValueError, match="1 rows .* the first is row 7"):
        cells.evaluate(np.where(np.arange(300)[:, None] == 7, np.inf, x), good)
    with pytest.raises(ValueError, match="300 cells with a label, 1 cell types"):
        cells.evaluate(x, frame("a", batches))
