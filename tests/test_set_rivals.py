"""Rivals of gene set models beside dense formulas, on simulated modules and on the real model's vectors."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics.pairwise import cosine_similarity

from txfm_lite import genesets, set_rivals
from txfm_lite.evaluate import genesets as benchmark
from txfm_lite.evaluate import set_splits
from txfm_lite.genesets import GeneSets


@pytest.fixture(scope="module")
def modules():
    """Training sets and test sets that show the same 30 modules of 400 genes, and profiles of the genes."""
    sets = genesets.simulated(1500, 400, 30, seed=0)
    sets = sets.over(np.sort(sets.genes))
    test = sets[:120]
    test.libraries[:] = "test"
    rng = np.random.default_rng(0)
    activity = rng.normal(size=(200, len(sets))).astype(np.float32)
    profiles = activity @ sets.csr().toarray() + 4 * rng.normal(size=(200, len(sets.genes)))
    return sets[120:], test, pd.DataFrame(profiles.T.astype(np.float32), index=sets.genes)


def dense(train, universe):
    return train.over(universe).csr().toarray().astype(np.float64)


def questions(universe, n=7, size=6, seed=1):
    """Some genes each, as a matrix of ones."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, len(universe)), dtype=np.float32)
    for row in x:
        row[rng.choice(len(universe), size, replace=False)] = 1
    return sp.csr_matrix(x)


def test_all_rivals_find_more_than_chance_in_simulated_modules(modules):
    train, test, profiles = modules
    universe = train.genes
    makers = {
        "popularity": lambda: set_rivals.popularity(train, universe),
        "within": lambda: set_rivals.popularity_within(test, universe),
        "cooccurrence": lambda: set_rivals.cooccurrence(train, universe),
        "svd": lambda: set_rivals.svd(train, universe, 30),
        "neighbours": lambda: set_rivals.neighbours(train, universe),
        "ease": lambda: set_rivals.ease(train, universe),
        "cosine": lambda: set_rivals.cosine(profiles, universe),
        "prismexp": lambda: set_rivals.prismexp(train, universe, profiles, 3, 200),
    }
    value = {}
    for name, make in makers.items():
        rows, _ = benchmark.evaluate(make(), test, universe)
        value[name] = rows[0]["value"]
    assert min(value.values()) > 0.55
    for name in ("cooccurrence", "svd", "neighbours", "ease"):
        assert value[name] > value["popularity"] + 0.1, value
    assert value["prismexp"] > value["popularity"]


def test_popularity_counts_sets_or_gives_libraries_equal_weight():
    one = GeneSets.from_lists([["A", "B"], ["A", "C"], ["A", "B"]], library="one")
    two = GeneSets.from_lists([["C"]], library="two")
    train, universe, asked = genesets.concatenate([one, two]), ["C", "A", "X"], sp.csr_matrix(np.eye(3))
    assert set_rivals.popularity(train, universe)(asked)[0].tolist() == [2, 3, 0]
    equal = set_rivals.popularity(train, universe, equal=True)(asked)
    assert equal[1].tolist() == pytest.approx([1 / 6 + 1, 3 / 6, 0])


def test_popularity_within_leaves_the_asked_term_out():
    sets = GeneSets.from_lists([["A", "B"], ["A", "C"], ["A", "B"]])
    scores = set_rivals.popularity_within(sets, sets.genes)(None, sets.csr())
    assert scores.tolist() == [[2, 1, 1], [2, 2, 0], [2, 1, 1]]


def test_cooccurrence_is_a_conditional_probability_column_normalised(modules):
    train, _, _ = modules
    universe = train.genes[::3]
    x, given = dense(train, universe), questions(universe)
    matrix = np.zeros((len(universe), len(universe)))
    for j in range(len(universe)):
        matrix[:, j] = x[x[:, j] > 0].mean(axis=0) if x[:, j].any() else 0  # P(i in a set | j in it)
    np.fill_diagonal(matrix, np.nan)
    expected = [np.nan_to_num(np.nanmean(matrix[row.indices], axis=0)) for row in given]
    assert set_rivals.cooccurrence(train, universe)(given) == pytest.approx(np.array(expected), abs=1e-5)


def test_diagonal_of_a_similarity_does_not_matter():
    rng = np.random.default_rng(0)
    matrix = rng.random((30, 30)).astype(np.float32)
    other = matrix.copy()
    np.fill_diagonal(other, 1e3)
    given = questions(range(30))
    plain = set_rivals.similarity(matrix)(given)
    assert (plain == set_rivals.similarity(other)(given)).all()
    np.fill_diagonal(matrix, np.nan)
    expected = [np.nanmean(matrix[row.indices], axis=0) for row in given]
    assert plain == pytest.approx(np.array(expected), abs=1e-6)


def test_ease_is_the_closed_form_and_the_regression_of_each_gene_on_the_others(modules):
    train, _, _ = modules
    universe, given = train.genes[:80], questions(train.genes[:80])
    x = dense(train, universe)
    x /= np.sqrt(np.maximum(x.sum(axis=1, keepdims=True), 1))
    inverse = np.linalg.inv(x.T @ x + 2 * np.eye(80))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = set_rivals.ease(train, universe, 2.0)(given)
    assert scores == pytest.approx(given @ weights, abs=1e-4)
    rest = np.arange(80) != 5
    gram = x[:, rest].T @ x[:, rest] + 2 * np.eye(79)
    ridge = np.linalg.solve(gram, x[:, rest].T @ x[:, 5])
    assert scores[:, 5] == pytest.approx(given.toarray()[:, rest] @ ridge, abs=1e-4)
    with pytest.raises(ValueError, match="take a larger one"):
        set_rivals.ease(train, universe, -100.0)


def test_more_genes_than_a_block_of_the_inverse():
    sets = genesets.simulated(900, 1300, 40)
    x = dense(sets, sets.genes)
    x /= np.sqrt(x.sum(axis=1, keepdims=True))
    inverse = np.linalg.inv(x.T @ x + np.eye(len(sets.genes)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    given = questions(sets.genes)
    assert set_rivals.ease(sets, sets.genes, 1.0)(given) == pytest.approx(given @ weights, abs=1e-3)


def test_neighbours_beside_all_pairs(modules):
    train, _, _ = modules
    universe, given = train.genes, questions(train.genes)
    x = dense(train, universe)
    alike = cosine_similarity(given, x)
    scores = set_rivals.neighbours(train, universe, len(train))(given)
    assert scores - scores.min() == pytest.approx(alike @ x, abs=1e-3)
    few = set_rivals.neighbours(train, universe, 3)(given)
    nearest = np.argsort(-alike, axis=1)[:, :3]
    expected = [sum(alike[i, j] * x[j] for j in row) for i, row in enumerate(nearest)]
    kth = np.sort(alike, axis=1)[:, -4:-2]
    clear = kth[:, 1] > kth[:, 0]  # which the third is does not depend on the order of equals
    assert clear.any() and few[clear] == pytest.approx(np.array(expected)[clear], abs=1e-3)


def test_svd_with_all_axes_gives_back_what_the_sets_span():
    sets = genesets.simulated(300, 60, 10)
    given = questions(sets.genes, size=4)
    x = dense(sets, sets.genes)
    x /= np.sqrt(x.sum(axis=1, keepdims=True))
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    expected = given @ axes[:20].T @ axes[:20]
    assert set_rivals.svd(sets, sets.genes, 20)(given) == pytest.approx(expected, abs=0.02)


def test_cosine_excludes_the_gene_itself_and_what_has_no_vector():
    rng = np.random.default_rng(0)
    vectors = pd.DataFrame(rng.normal(size=(12, 5)), index=[f"G{i}" for i in range(12)])
    vectors.iloc[4] = 0
    universe = ["X", *vectors.index]
    given = questions(universe, 20, 5)
    similar = cosine_similarity(vectors)
    np.fill_diagonal(similar, np.nan)
    similar[4], similar[:, 4] = np.nan, np.nan
    scores = set_rivals.cosine(vectors, universe)(given)
    assert np.isnan(scores[:, [0, 5]]).all()
    for row, found in zip(given, scores, strict=True):
        rows = row.indices[row.indices > 0] - 1
        expected = np.nanmean(similar[rows][:, np.arange(12) != 4], axis=0)
        assert found[1:][np.arange(12) != 4] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="1 symbols of the vectors occur twice, for example 'G1'"):
        set_rivals.cosine(vectors.rename(index={"G2": "G1"}), universe)
    with pytest.raises(ValueError, match="no gene of the universe has a vector"):
        set_rivals.cosine(vectors, ["Trp53"])
    vectors.iloc[7, 2] = np.nan
    with pytest.raises(ValueError, match="missing or infinite numbers, for example that of 'G7'"):
        set_rivals.cosine(vectors, universe)


def test_prismexp_is_repeatable_and_does_not_know_unmeasured_genes(modules):
    train, _, profiles = modules
    universe, given = train.genes, questions(train.genes, 3)
    some = profiles.drop(index=universe[[3, 9]])
    first = set_rivals.prismexp(train, universe, some, 3, 50)(given)
    assert np.isnan(first).all(axis=0).sum() == 2 and np.isnan(first[:, [3, 9]]).all()
    again = set_rivals.prismexp(train, universe, some, 3, 50)(given)
    assert np.array_equal(first, again, equal_nan=True)
    few = set_rivals.prismexp(train, universe, some, 3, 50, only=universe[2:8])(given)
    assert np.array_equal(few[:, 2:8], first[:, 2:8], equal_nan=True)
    assert np.isnan(np.delete(few, range(2, 8), axis=1)).all()


def test_a_gene_set_model_is_asked_in_its_own_genes():
    import torch

    from txfm_lite.gsfm import GSFM, GSFMConfig

    torch.manual_seed(0)
    tokens = ["<unk>", "<pad>", *(f"G{i}" for i in range(20))]
    model = GSFM(GSFMConfig(n_tokens=22, d_model=8), tokens).eval()
    universe = ["G7", "only here", "G0", "G19"]
    visible = sp.csr_matrix(np.array([[1, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32))
    scores = set_rivals.from_model(model, universe)(visible)
    assert np.isnan(scores[:, 1]).all()
    x = torch.zeros(2, 22)
    x[0, [2, 9]] = x[1, 21] = 1
    for name, bend in (
        ("encoder.layers.0", 1),
        ("encoder.layers.3", 0),
        ("decoder.layers.0", 1),
        ("decoder.layers.3", 0),
    ):
        weights = model.state_dict()
        x = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        x = x.relu() if bend else x
    expected = x.numpy()
    assert scores[:, [0, 2, 3]] == pytest.approx(expected[:, [9, 2, 21]], abs=1e-5)
    other = GSFM(GSFMConfig(n_tokens=22, d_model=8), tokens).eval()
    alone = set_rivals.from_model(other, universe)(visible)
    both = set_rivals.from_model([model, other], universe)(visible)
    assert both == pytest.approx((scores + alone) / 2, abs=1e-5, nan_ok=True)
    assert not np.allclose(both, scores, equal_nan=True)


def test_shipped_gene_vectors_know_more_than_chance(local_data):
    from txfm_lite.embed import gene_vectors

    sets = genesets.load("enrichr_rummageo_benchmark", "KEGG_2021_Human")
    predict = set_rivals.cosine(gene_vectors("txfm-xs")["decoder"], sets.genes)
    rows, _ = benchmark.evaluate(predict, set_splits.splits(sets, 1), sets.genes)
    value = {row["variant"]: row for row in rows if row["metric"] == "AUROC"}
    assert value["own genes"]["low"] > 0.5
