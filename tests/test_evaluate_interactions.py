"""Pairs of proteins: disjoint splits, matched negatives, and what popularity does without them."""

import numpy as np
import pandas as pd
import pytest

from txfm_lite.evaluate import interactions

N = 300
NAMES = np.array([f"G{i:03}" for i in range(N)])


@pytest.fixture(scope="module")
def known():
    """Pairs whose proteins have very different numbers of partners, with no other structure."""
    rng = np.random.default_rng(0)
    fame = rng.lognormal(sigma=1.0, size=N)
    drawn = np.sort(rng.choice(N, size=(3000, 2), p=fame / fame.sum()), axis=1)
    return np.unique(drawn[drawn[:, 0] != drawn[:, 1]], axis=0)


def frame(pairs):
    return pd.DataFrame(NAMES[pairs], columns=["entity1", "entity2"])


def table(rows):
    return pd.DataFrame(rows).set_index(["metric", "variant", "vectors"])["value"]


def test_no_protein_is_on_both_sides_of_a_disjoint_split(known):
    train, test, sides = interactions.split_pairs(known, N, "disjoint", np.random.default_rng(0))
    assert np.isin(train, sides[0]).all() and np.isin(test, sides[1]).all()
    assert not np.intersect1d(*sides).size
    assert not np.intersect1d(train, test).size and len(train) > 100 and len(test) > 50
    train, test, _ = interactions.split_pairs(known, N, "shared", np.random.default_rng(0))
    assert len(train) + len(test) == len(known) and np.intersect1d(train, test).size


def test_matched_negatives_leave_every_degree_as_it_is(known):
    rng = np.random.default_rng(1)
    code = set((known @ [N, 1]).tolist())
    train, _, sides = interactions.split_pairs(known, N, "disjoint", rng)
    for negatives in interactions.NEGATIVES:
        pairs, truth = interactions.with_negatives(train, known, negatives, sides[0], rng)
        false = pairs[~truth]
        assert not code & set((false @ [N, 1]).tolist()) and (false[:, 0] < false[:, 1]).all()
        count = [np.bincount(p.ravel(), minlength=N) for p in (train, false)]
        apart = np.abs(count[0] - count[1]).sum() / count[0].sum()
        assert apart < 0.1 if negatives == "degree-matched" else apart > 0.4


def test_popularity_alone_wins_against_any_negatives_and_loses_against_matched_ones(known):
    rng = np.random.default_rng(2)
    noise = pd.DataFrame(rng.normal(size=(N, 12)), NAMES)
    value = table(interactions.evaluate({"noise": noise}, frame(known)))["AUROC"]
    assert value["shared, any, degree", "none"] > 0.75
    assert value["disjoint, degree-matched, degree", "none"] < 0.62
    assert abs(value["disjoint, degree-matched, concatenation", "noise"] - 0.5) < 0.06
    for how in ("cosine", "product", "concatenation"):
        assert abs(value[f"disjoint, degree-matched, {how}", "noise"] - 0.5) < 0.12


def test_vectors_that_know_pairs_are_found_out_with_disjoint_proteins():
    rng = np.random.default_rng(3)
    module = rng.integers(15, size=N)
    centres = rng.normal(size=(15, 10))
    vectors = pd.DataFrame(centres[module] + 0.3 * rng.normal(size=(N, 10)), NAMES)
    first, second = np.triu_indices(N, 1)
    same = (module[first] == module[second]) & (rng.random(len(first)) < 0.6)
    pairs = np.column_stack([first, second])[same]
    noise = vectors.sample(frac=1, random_state=0).set_axis(NAMES)
    rows = interactions.evaluate({"own": vectors, "noise": noise}, frame(pairs))
    value = table(rows)
    assert value["AUROC", "disjoint, degree-matched, cosine", "own"] > 0.85
    assert value["AUROC", "disjoint, degree-matched, product", "own"] > 0.8
    assert abs(value["AUROC", "disjoint, degree-matched, cosine", "noise"] - 0.5) < 0.1
    again = interactions.evaluate({"own": vectors, "noise": vectors}, frame(pairs))
    assert table(again)["AUROC", "shared, any, cosine", "own"] == value["AUROC", "shared, any, cosine", "own"]
    assert all(0 < row["null"] < 1 and row["n"] >= 10 for row in rows)


def test_too_few_pairs_are_refused():
    vectors = pd.DataFrame(np.eye(N)[:, :5] + 0.1, NAMES)
    with pytest.raises(ValueError, match="too few"):
        interactions.evaluate({"own": vectors}, frame(np.array([[0, 1], [1, 2]])))
