"""Enrichment: beside scipy, with a background, without double counting, calibrated on random lists."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from txfm_lite import enrichment, genesets, set_rivals
from txfm_lite.genesets import GeneSets

GENES = np.array([f"G{i:03}" for i in range(400)])


@pytest.fixture(scope="module")
def library():
    rng = np.random.default_rng(0)
    lists = [rng.choice(GENES, n, replace=False) for n in (5, 20, 40, 60, 80)]
    return GeneSets.from_lists(lists, [f"T{i}" for i in range(5)], "own")


def test_fisher_is_that_of_scipy(library):
    listed, background = GENES[:30], GENES[:300]
    found = enrichment.fisher(listed, library, background).set_index("term")
    for i, name in enumerate(library.names):
        term = set(library.members(i)) & set(background)
        both = len(term & set(listed))
        table = [[both, len(term) - both], [30 - both, 300 - 30 - len(term) + both]]
        odds, p = stats.fisher_exact(table, alternative="greater")
        assert found.loc[name, "p"] == pytest.approx(p)
        assert found.loc[name, "odds_ratio"] == pytest.approx(odds)
        assert found.loc[name, ["size", "overlap"]].tolist() == [len(term), both]
        assert set(filter(None, found.loc[name, "genes"].split(", "))) == term & set(listed)
    assert found["q"].to_numpy() == pytest.approx(stats.false_discovery_control(found["p"]))
    assert found["p"].is_monotonic_increasing


def test_the_background_changes_the_answer_and_cuts_the_list(library):
    listed = [*library.members(1)[:10], "NOT_MEASURED"]
    wide = enrichment.fisher(listed, library, [*GENES, *(f"X{i}" for i in range(2000))])
    narrow = enrichment.fisher(listed, library, np.union1d(library.members(1), library.members(2)))
    assert wide.attrs["left_out"] == narrow.attrs["left_out"] == ["NOT_MEASURED"]
    assert wide.set_index("term").loc["T1", "p"] < narrow.set_index("term").loc["T1", "p"]
    with pytest.raises(ValueError, match="none of the 1 genes of the list"):
        enrichment.fisher(["A"], library, GENES)
    with pytest.raises(ValueError, match="no term of the library"):
        enrichment.fisher(["A"], library, ["A", "B"])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_short_lists_work_and_say_what_they_cannot_tell(library, n):
    found = enrichment.fisher(library.members(0)[:n], library, GENES)
    top = found.set_index("term").loc["T0"]
    assert top["overlap"] == n and top["p"] == pytest.approx(top["least_p"])
    able = (found["least_p"] <= 0.05 / 5).sum()
    assert f"{able} of 5 terms could pass" in found.attrs["note"]
    assert enrichment.fisher(GENES[:9], library, GENES).attrs["note"] == ""


def test_new_genes_are_new_allowed_and_the_best():
    scores = np.tile(np.arange(10, dtype=np.float32), (3, 1))
    lists = enrichment._indicator(np.array([[9, 0], [1, 2], [8, 7]]), 10)
    allowed = np.ones(10, bool)
    allowed[6] = False
    found = enrichment.new_genes(lambda x: scores[: x.shape[0]], lists, 3, allowed)
    assert found.tolist() == [[8, 7, 5], [9, 8, 7], [9, 5, 4]]
    with pytest.raises(ValueError, match="k = 8"):
        enrichment.new_genes(lambda x: scores[: x.shape[0]], lists, 8, allowed)


@pytest.fixture(scope="module")
def modules():
    """Sets of latent modules: training sets, a library of true modules, and a predictor."""
    sets = genesets.simulated(600, 400, 20, seed=1)
    universe = sets.genes
    predict = set_rivals.neighbours(sets[:500], universe, 50)
    return sets, universe, predict


def test_evidence_is_counted_once_and_apart(modules):
    sets, universe, predict = modules
    listed = sets.members(550)[:8]
    found = enrichment.augmented(listed, sets[500:], predict, universe, k=20, n_draws=99)
    assert not set(found.attrs["added"]) & set(listed) and len(found.attrs["added"]) == 20
    for row in found.itertuples():
        term = set(sets.members(500 + list(sets[500:].names).index(row.term)))
        assert row.known == len(term & set(listed))
        assert row.predicted == len(term & set(found.attrs["added"]))
        assert len([g for g in row.predicted_genes.split(", ") if g]) == row.predicted
    plain = enrichment.fisher(listed, sets[500:], universe).set_index("term")["p"]
    assert found.set_index("term")["p_list"].sort_index().to_numpy() == pytest.approx(
        plain.sort_index().to_numpy()
    )
    assert found["p"].min() >= 1 / 100
    again = enrichment.augmented(listed, sets[500:], predict, universe, k=20, n_draws=99)
    pd.testing.assert_frame_equal(found, again)


def test_on_random_lists_the_naive_test_is_wrong_and_the_counted_one_is_not(modules):
    sets, universe, predict = modules
    rng = np.random.default_rng(3)
    naive, counted = [], []
    for i in range(30):
        listed = rng.choice(universe, 8, replace=False)
        found = enrichment.augmented(listed, sets[500:540], predict, universe, k=40, n_draws=199, seed=i)
        naive.append((found["p_naive"] <= 0.05).mean())
        counted.append((found["p"] <= 0.05).mean())
    assert np.mean(naive) > 0.15
    assert np.mean(counted) < 0.08


def test_random_lists_are_distinct_and_as_popular(modules):
    _, universe, _ = modules
    allowed = np.ones(len(universe), bool)
    allowed[:50] = False
    popularity = np.arange(len(universe))
    genes = np.array([320, 321, 322, 60])
    drawn = enrichment.random_lists(genes, allowed, 50, np.random.default_rng(0), popularity)
    assert allowed[drawn].all() and all(len(set(row)) == 4 for row in drawn.tolist())
    assert (drawn[:, :3] >= 230).all() and (drawn[:, 3] < 150).all()
    anything = enrichment.random_lists(genes, allowed, 50, np.random.default_rng(0))
    assert anything.shape == (50, 4) and anything.min() < 150


def test_gsea_finds_a_planted_term_without_the_genes_that_made_the_ranking(library):
    pytest.importorskip("gseapy")
    rng = np.random.default_rng(0)
    scores = pd.Series(rng.normal(size=400), GENES)
    scores[library.members(2)] += 3
    scores["G000"] = 100.0
    found = enrichment.gsea(scores, library, ["G000"], n_permutations=200)
    assert found.loc[0, "term"] == "T2" and found.loc[0, "nes"] > 0
    ranking = scores.drop("G000").sort_values(ascending=False)  # ES by its definition
    inside = ranking.index.isin(library.members(2))
    steps = np.where(inside, ranking.abs() / ranking.abs()[inside].sum(), -1 / (~inside).sum())
    running = steps.cumsum()
    assert found.loc[0, "es"] == pytest.approx(running[np.abs(running).argmax()], abs=1e-6)
    assert found["p"].min() >= 1 / 201 and "G000" not in found.loc[0, "leading"]
    flipped = enrichment.gsea(-scores, library, ["G000"], by_rank=True, n_permutations=200)
    assert flipped.loc[0, "term"] == "T2" and flipped.loc[0, "nes"] < 0


def test_gsea_refuses_bad_rankings(library):
    scores = pd.Series(np.arange(400.0), GENES)
    with pytest.raises(ValueError, match="occur twice"):
        enrichment.gsea(pd.concat([scores, scores[:1]]), library)
    with pytest.raises(ValueError, match="missing or infinite"):
        enrichment.gsea(scores.replace(5.0, np.nan), library)
    with pytest.raises(ValueError, match="no term has 300 to 500"):
        enrichment.gsea(scores, library, least=300)
