"""Relationship recall on gene vectors: exact on small cases, with fair controls."""

import numpy as np
import pandas as pd
import pytest

from txfm_lite.evaluate import genes

TOY = np.array([(1, 0), (0.9, 0.1), (0, 1), (-1, 0.05), (0.1, 1), (-0.9, -0.2), (0.5, 0.5)])


def frame(values, prefix="g"):
    return pd.DataFrame(values, [f"{prefix}{i}" for i in range(len(values))])


def pairs_of(*places):
    return pd.DataFrame([(f"g{i}", f"g{j}") for i, j in places], columns=["entity1", "entity2"])


def by(rows, field="value"):
    assert {row["metric"] for row in rows} == {"recall"}
    return {tuple(row["variant"].split(", ")): row[field] for row in rows}


@pytest.fixture
def planted():
    """Return vectors of 200 genes, of which the first 100 are twins of each other, two by two."""
    values = np.random.default_rng(0).normal(size=(200, 40))
    values[1:100:2] = values[0:100:2] + 0.01 * values[1:100:2]
    twins = pairs_of(*((i, i + 1) for i in range(0, 100, 2)))
    apart = pairs_of(*((i, (i * 7 + 3) % 100 + 100) for i in range(100, 160)))
    return frame(values), {"twins": twins, "apart": apart}


def test_the_toy_of_seven_vectors():
    got = genes.recalled(genes.unit(TOY), np.array([(0, 1), (2, 4), (0, 3), (0, 2)]))
    assert got.tolist() == [0, 1, -1, 0]


def test_blocks_and_counting_agree_with_sorting_all_pairs(monkeypatch):
    units = genes.unit(np.random.default_rng(1).normal(size=(150, 6)))
    units[:20] = units[0]  # ties
    pairs = np.column_stack(np.triu_indices(150, 1))
    cosine = np.round(units.astype(np.float64) @ units.astype(np.float64).T, 6)[tuple(pairs.T)]
    null = np.sort(cosine)
    right, left = (np.searchsorted(null, cosine, side) / len(null) for side in ("right", "left"))
    expected = (right <= 0.05) | (left >= 0.95)
    for block in (512, 150, 64, 7):
        monkeypatch.setattr(genes, "BLOCK", block)
        got = genes.recalled(units, pairs)
        assert (got != 0).mean() > 0.08
        assert ((got != 0) != expected).sum() <= 2  # float32 and float64 may part at the threshold itself
    shuffled = np.random.default_rng(2).permutation(len(pairs))
    assert np.array_equal(genes.recalled(units, pairs[shuffled]), got[shuffled])


def test_vectors_that_are_all_the_same_recall_nothing():
    pairs = {"db": pairs_of(*((i, i + 1) for i in range(30)))}
    for values in (np.zeros((60, 3)), np.ones((60, 3))):
        for ordered in (False, True):
            rows = genes.evaluate(frame(values), pairs, ordered=ordered, dimensions=(2,))
            assert {row["value"] for row in rows} == {0.0}


def test_twins_are_recalled_and_strangers_are_not(planted):
    vectors, pairs = planted
    rows = genes.evaluate(vectors, pairs, dimensions=(8, 16, 256))
    value, null, n = (by(rows, field) for field in ("value", "null", "n"))
    assert value["twins", "PCA 256"] == 1 and value["alike", "PCA 256"] > 0.45
    assert value["apart", "PCA 256"] < 0.3
    assert 0 <= null["twins", "PCA 256"] < 0.25
    assert n["twins", "PCA 256"] == 50 and n["union", "PCA 256"] == n["mean", "PCA 256"] == 110
    for variant in ("PCA 8", "PCA 16", "PCA 256", "chosen"):
        both = [value[name, variant] for name in pairs]
        assert value["mean", variant] == pytest.approx(np.mean(both))
        ends = value["alike", variant] + value["opposite", variant]
        assert ends == pytest.approx(value["union", variant])
        if variant != "chosen":  # which each list of pairs chooses for itself
            assert value["union", variant] == pytest.approx((both[0] * 50 + both[1] * 60) / 110)


def test_random_vectors_recall_one_pair_in_ten():
    rng = np.random.default_rng(3)
    pairs = {"db": pairs_of(*{tuple(sorted(rng.choice(400, 2, replace=False))) for _ in range(8000)})}
    value, null = (
        by(genes.evaluate(frame(rng.normal(size=(400, 30))), pairs, dimensions=(8, 30)), field)
        for field in ("value", "null")
    )
    assert all(abs(value["db", v] - 0.1) < 0.012 for v in ("PCA 8", "PCA 30", "chosen"))
    assert all(abs(null["db", v] - 0.1) < 0.012 for v in ("PCA 8", "PCA 30", "chosen"))


def test_the_control_sees_that_well_known_genes_are_all_alike():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(300, 20))
    values[:40] += 4  # the genes that databases know, related or not
    known = {tuple(sorted(rng.choice(40, 2, replace=False))) for _ in range(150)}
    rows = genes.evaluate(frame(values), {"db": pairs_of(*known)}, ordered=True, dimensions=())
    value, null = (by(rows, field)["db", "all"] for field in ("value", "null"))
    assert value > 0.8 and abs(value - null) < 0.1


def test_rewired_pairs_keep_each_genes_number_and_avoid_known_ones():
    rng = np.random.default_rng(5)
    known = np.array(sorted({tuple(sorted(rng.choice(60, 2, replace=False))) for _ in range(300)}))
    dealt = genes.rewired(known, known, rng)
    assert len(dealt) == len(known)
    assert np.array_equal(np.bincount(dealt.ravel(), minlength=60), np.bincount(known.ravel(), minlength=60))
    assert (dealt[:, 0] < dealt[:, 1]).all()
    assert not {map(tuple, dealt)} & {map(tuple, known)}
    clique = np.column_stack(np.triu_indices(5, 1))  # everybody knows everybody: nobody else is left
    assert len(genes.rewired(clique, clique, rng)) == 0
    assert len(genes.rewired(known[:0], known, rng)) == 0


def test_scores_do_not_depend_on_the_order_of_genes_or_pairs_nor_on_turning_and_scaling(planted):
    vectors, pairs = planted
    rng = np.random.default_rng(6)

    def score(vectors, pairs=pairs, ordered=True):
        return by(genes.evaluate(vectors, pairs, dimensions=(40,), ordered=ordered))

    expected = score(vectors)
    turned = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    stretched = rng.uniform(0.1, 10, size=(200, 1))
    assert score(vectors @ turned) == expected
    assert score(vectors * stretched) == expected
    assert score(vectors.sample(frac=1, random_state=0)) == expected
    swapped = {k: v.rename(columns={"entity1": "entity2", "entity2": "entity1"}) for k, v in pairs.items()}
    doubled = {k: pd.concat([v, swapped[k], v]) for k, v in pairs.items()}
    assert score(vectors, doubled) == expected
    # columns are standardised, so their units and signs are of no account
    units = rng.uniform(0.1, 10, size=40) * rng.choice([-1, 1], size=40)
    assert score(vectors * units + 3, ordered=False) == score(vectors, ordered=False)


def test_axes_are_those_of_a_pca_and_ordered_columns_stay_as_they_are():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(7)
    x = rng.normal(size=(50, 10)) @ rng.normal(size=(10, 10))
    expected = PCA(3, svd_solver="full").fit_transform(StandardScaler().fit_transform(x))
    np.testing.assert_allclose(np.abs(genes.principal_axes(x)[:, :3]), np.abs(expected), atol=1e-4)
    assert genes.principal_axes(x[:5]).shape == (5, 5)  # fewer genes than columns
    pairs = {"db": pairs_of(*((i, i + 1) for i in range(40)))}
    first = by(genes.evaluate(frame(x), pairs, ordered=True, dimensions=(3, 10)))
    alone = by(genes.evaluate(frame(x[:, :3]), pairs, ordered=True, dimensions=()))
    assert first["db", "PCA 3"] == alone["db", "all"] and first["db", "PCA 3"] != first["db", "PCA 10"]


def test_the_dimension_is_chosen_on_the_other_half(planted, monkeypatch):
    vectors, pairs = planted
    rows = genes.evaluate(vectors, pairs, dimensions=(1, 2, 40))
    value = by(rows)
    # with 50 twins, both halves see that all axes are better than one or two
    assert value["twins", "chosen"] == value["twins", "PCA 40"] > value["twins", "PCA 1"]
    a = np.arange(20) % 2 == 0
    lucky = {"x": {"db": (a.astype(int), [])}, "y": {"db": ((~a).astype(int), [])}}
    pairs_chosen, _ = genes._choose(lucky, {"db": a})["db"]
    assert not pairs_chosen.any()  # each variant shines where it was chosen, and is scored where it does not


def test_what_cannot_be_scored_is_nan_or_refused(planted):
    vectors, pairs = planted
    rows = genes.evaluate(vectors, {"few": pairs["twins"].head(9), "none": pairs["twins"].head(0)})
    assert all(np.isnan(row["value"]) for row in rows)
    assert by(rows, "n")["few", "PCA 256"] == 9
    assert {row["variant"].split(", ")[1] for row in rows} == {
        *(f"PCA {k}" for k in genes.DIMENSIONS),
        "chosen",
    }
    with pytest.raises(ValueError, match="1 genes have more than one vector, for example 'g0'"):
        genes.evaluate(vectors.rename(index={"g1": "g0"}), pairs)
    broken = vectors.copy()
    broken.iloc[3, 2] = np.nan
    with pytest.raises(ValueError, match="vectors of 1 genes have missing .* 'g3'"):
        genes.evaluate(broken, pairs)


def test_neighbours_are_the_nearest_and_say_who_knows_them(planted):
    vectors, pairs = planted
    found = genes.neighbours(vectors, "g4", 3, pairs=pairs)
    assert found.index[0] == "g5" and found["known"].tolist() == ["twins", "", ""]
    assert found["cosine"].is_monotonic_decreasing and "g4" not in found.index
    x = vectors.to_numpy()
    cosine = pd.Series(x @ x[4] / np.linalg.norm(x, axis=1) / np.linalg.norm(x[4]), vectors.index).drop("g4")
    plain = genes.neighbours(vectors, "g4", 3, dimension=None, ordered=True)
    pd.testing.assert_series_equal(
        plain["cosine"], cosine.nlargest(3), check_names=False, rtol=1e-4, check_dtype=False
    )
    with pytest.raises(KeyError, match="'ABC' has no vector"):
        genes.neighbours(vectors, "ABC")


def test_the_databases_have_the_pairs_that_their_readme_counts(local_data):
    pairs = genes.known_pairs()
    counted = genes.coverage(["TP53", "MDM2", "EP300"], pairs)
    assert counted["pairs"].tolist() == [37_649, 58_538, 18_565, 11_617, 58_059, 143_252]
    assert counted["genes"].tolist() == [3_505, 7_368, 4_509, 4_544, 10_335, 13_183]
    assert counted.loc["union", "pairs with vectors"] == 3 and counted.loc["union", "genes in these"] == 3


def test_shipped_gene_vectors_know_complexes_better_than_chance(local_data):
    from txfm_lite.embed import gene_vectors

    vectors = gene_vectors("txfm-xs")["codebook"]
    rows = genes.evaluate(vectors, genes.known_pairs(["CORUM"]), dimensions=())
    value, null = (by(rows, field)["CORUM", "all"] for field in ("value", "null"))
    assert value > 1.5 * null and 0.05 < null < 0.2
