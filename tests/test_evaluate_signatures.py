"""Signed and weighted signatures: built, split and scored; a planted direction is found."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from txfm_lite.evaluate import signatures
from txfm_lite.genesets import GeneSets


@pytest.fixture(scope="module")
def sets():
    """Signatures of eight programmes, which go up in one half of them and down in the other."""
    rng = np.random.default_rng(0)
    genes = np.array([f"G{i:03}" for i in range(240)])
    up, down, names = [], [], []
    for i in range(240):
        one, other = rng.choice(8, 2, replace=False)
        sides = [rng.choice(genes[p * 30 : p * 30 + 30], 20, replace=False) for p in (one, other)]
        up.append(sides[0])
        down.append(sides[1])
        names.append(f"perturbation {i} GSE{i // 2}")
    return signatures.signed_sets(*(GeneSets.from_lists(x, names, "own_up") for x in (up, down)))


def test_signed_sets_join_by_name_and_drops_what_is_in_both():
    up = GeneSets.from_lists([["A", "B", "C"], ["D"]], ["x", "y"], "L_up", [[3.0, 1, 2], [1]])
    down = GeneSets.from_lists([["C", "E"]], ["x"], "L_down", [[5.0, 2]])
    found = signatures.signed_sets(up, down)
    assert list(found.names) == ["x"] and found.libraries[0] == "L"
    assert dict(zip(found.members(0), found.weights, strict=True)) == {"A": 1.5, "B": 0.5, "E": -1.0}


def test_a_table_of_differential_expression_becomes_a_signature():
    genes, change = list("ABCDEF"), [2.0, -3.0, 0.5, np.nan, 4.0, 1.0]
    found = signatures.signature(genes, change, n=3)
    assert dict(zip(found.members(0), found.weights, strict=True)) == pytest.approx(
        {"A": 2 / 3, "B": -1.0, "E": 4 / 3}
    )
    p = [1e-10, 1e-2, 1e-4, 1e-9, 1.0, 0.0]
    found = signatures.signature(genes, change, p, name="mine")
    weight = dict(zip(found.members(0), found.weights, strict=True))
    assert found.names[0] == "mine" and set(weight) == set("ABCF")  # E has p = 1, D no change
    assert weight["A"] / weight["C"] == pytest.approx(2 * 10 / (0.5 * 4)) and weight["B"] < 0
    assert np.mean(np.abs(found.weights)) == pytest.approx(1)
    for fault, message in (
        ((genes, change[:5]), "6 genes, 5 log fold changes"),
        ((genes, change, [2.0] * 6), "from 2 to 2"),
        ((genes, [0.0] * 6), "no gene has a log fold change"),
    ):
        with pytest.raises(ValueError, match=message):
            signatures.signature(*fault)


def test_studies_are_held_out_whole_and_halves_are_disjoint(sets):
    groups = signatures.study_of(sets)
    out = signatures.studies_held_out(groups)
    assert groups[0] == "GSE0" and not set(groups[out]) & set(groups[~out]) and 0.1 < out.mean() < 0.3
    shown, hidden = signatures.show_halves(sets)
    for i in range(len(sets)):
        assert set(shown.members(i)) | set(hidden.members(i)) == set(sets.members(i))
        assert len(shown.members(i)) == sets.sizes[i] // 2
    assert sorted([*shown.weights, *hidden.weights]) == sorted(sets.weights)


def test_arms_are_given_what_they_are_called(sets):
    assert signatures._as_arm(sets, "no sign").weights is None
    two = signatures._as_arm(sets, "two lists")
    assert len(two) == 2 * len(sets) and set(two.sizes) == {20}
    assert set(signatures._as_arm(sets, "signed").weights) == {-1.0, 1.0}


def test_the_direction_is_that_of_scikit_learn(sets):
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(len(sets), len(sets.genes)))
    found = signatures._direction(scores, sets)
    member = sets.csr()[3].toarray()[0]
    wanted = roc_auc_score(member[member != 0] > 0, scores[3][member != 0])
    assert found[3] == pytest.approx(wanted)


def test_a_signed_model_knows_the_direction_and_popularity_does_not(sets):
    rows = signatures.compare_signs(sets, epochs=100, d_model=16, arms=("no sign", "signed"))
    value = {row["variant"]: row["value"] for row in rows}
    assert set(value) == {"which, popularity", "direction, popularity", "which, no sign", "which, signed",
                          "direction, signed"}  # fmt: skip
    assert value["direction, signed"] > 0.85 and abs(value["direction, popularity"] - 0.5) < 0.15
    assert value["which, signed"] > value["which, popularity"] + 0.1
    assert all(row["n"] > 20 and row["null"] == 0.5 for row in rows)


def test_vocabularies_are_asked_about_the_same_coding_genes(sets):
    plain = replace(sets, weights=None)
    coding = np.arange(len(sets.genes)) % 3 > 0
    rows = signatures.compare_vocabularies(plain, coding, epochs=60, d_model=16)
    value = {row["variant"]: row["value"] for row in rows}
    assert list(value) == ["which, popularity", "which, coding genes", "which, all genes"]
    assert len({row["n"] for row in rows}) == 1 and value["which, all genes"] > 0.6
