"""Probes: no batch on both sides, chance is the class prior, scikit-learn agrees."""

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from txfm_lite.evaluate import probes


def by_name(rows):
    return {row["metric"]: row for row in rows}


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abc"), 300, p=[0.6, 0.3, 0.1])
    x = rng.normal(size=(300, 10)) + 1.5 * (labels == "b")[:, None] - 1.5 * (labels == "c")[:, None]
    return x.astype(np.float32), labels, rng.choice(list("pqr"), 300)


@pytest.mark.parametrize("n_batches, n_folds", [(1, 0), (2, 2), (6, 6), (7, 4), (30, 4)])
def test_no_batch_is_on_both_sides(n_batches, n_folds):
    batches = np.random.default_rng(0).permutation(np.arange(300) % n_batches).astype(str)
    folds = probes.splits(batches)
    assert len(folds) == n_folds
    for train, test in folds:
        assert not set(batches[train]) & set(batches[test]) and len(train) + len(test) == 300
    if folds:
        assert sorted(np.concatenate([test for _, test in folds])) == list(range(300))


@pytest.mark.parametrize("n_batches", [2, 3, 8])
def test_what_is_chosen_is_chosen_on_another_batch(n_batches):
    batches = np.arange(240) % n_batches
    for seed, (train, test) in enumerate(probes.splits(batches)):
        fit, held = probes._inner(batches, train, seed)
        assert sorted([*fit, *held, *test]) == list(range(240))
        if n_batches > 2:
            assert not set(batches[fit]) & set(batches[held])


def test_logistic_regression_against_scikit_learn(cells):
    x, labels, batches = cells
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000))
    predicted = cross_val_predict(model, x, labels, groups=batches, cv=LeaveOneGroupOut())
    got = by_name(probes.evaluate(x, labels, batches))
    assert got["LR accuracy"]["value"] == pytest.approx(accuracy_score(labels, predicted))
    assert got["LR F1"]["value"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert got["LR accuracy"]["n"] == 300 and got["LR accuracy"]["value"] < 1


def test_null_is_the_class_prior_and_an_embedding_without_information_reaches_it(cells):
    _, labels, batches = cells
    got = by_name(probes.evaluate(np.zeros((300, 2), np.float32), labels, batches))
    share = np.mean(labels == "a")
    assert got["LR accuracy"]["null"] == pytest.approx(share)
    assert got["LR F1"]["null"] == pytest.approx(2 * share / (1 + share) / 3)  # one class of three
    assert got["LR accuracy"]["value"] == pytest.approx(got["LR accuracy"]["null"])


def test_networks_learn_what_a_line_cannot_tell():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(1200, 2)).astype(np.float32)
    labels, batches = np.where(x.prod(axis=1) > 0, "same", "different"), rng.choice(list("pqr"), 1200)
    got = by_name(probes.evaluate(x, labels, batches))
    assert got["MLP accuracy"]["value"] > 0.9 > 0.7 > got["MLP accuracy"]["null"]
    assert got["linear accuracy"]["value"] < 0.7 and got["LR accuracy"]["value"] < 0.7


def test_networks_are_repeatable_and_seeds_test_other_batches(cells):
    x, labels, batches = cells
    first, again, other = (by_name(probes.evaluate(x, labels, batches, seed)) for seed in (0, 0, 1))
    assert all(first[k]["value"] == again[k]["value"] for k in first)
    sizes = [np.sum(batches == b) for b in "pq"]
    assert [first["MLP accuracy"]["n"], other["MLP accuracy"]["n"]] == sizes
    assert first["LR accuracy"] == other["LR accuracy"]


def test_a_type_of_one_batch_is_counted_apart(cells):
    x, labels, batches = cells
    labels = np.where((batches == "p") & (labels == "c"), "only here", labels)
    got = by_name(probes.evaluate(x, labels, batches))
    alone = np.sum(labels == "only here")
    assert got["unseen labels"]["value"] == pytest.approx(alone / 300)
    assert got["LR accuracy"]["n"] == 300 - alone


def test_one_batch_is_nan_and_says_so(cells, caplog):
    x, labels, _ = cells
    with caplog.at_level(logging.WARNING):
        rows = probes.evaluate(x, labels, np.full(300, "p"))
    assert all(np.isnan(row["value"]) for row in rows) and "one batch" in caplog.text
    nothing_shared = probes.evaluate(x, labels, labels)
    assert all(np.isnan(row["value"]) for row in nothing_shared[:-1]) and nothing_shared[-1]["value"] == 1


def test_of_several_learning_rates_the_best_on_the_held_out_batch_wins(cells, monkeypatch):
    x, labels, batches = cells
    expected = by_name(probes.evaluate(x, labels, batches))["linear accuracy"]
    monkeypatch.setattr(probes, "MANY", 0)
    monkeypatch.setattr(probes, "LEARNING_RATES", (1e-9, 5e-4))  # the first cannot move
    assert by_name(probes.evaluate(x, labels, batches))["linear accuracy"] == expected


def test_an_mlp_on_too_many_dimensions_is_left_out(cells, monkeypatch):
    monkeypatch.setattr(probes, "WIDEST", 9)
    got = by_name(probes.evaluate(*cells))
    assert np.isnan(got["MLP accuracy"]["value"]) and np.isfinite(got["linear accuracy"]["value"])


def test_rows_in_another_order_score_the_same(cells):
    x, labels, batches = cells
    order = np.random.default_rng(1).permutation(300)
    a, b = (by_name(probes.evaluate(*c)) for c in (cells, (x[order], labels[order], batches[order])))
    assert a["LR accuracy"]["value"] == pytest.approx(b["LR accuracy"]["value"], abs=0.01)
