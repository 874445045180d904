"""All pairs by type: counts, medians, histograms, effects, against all pairs in memory; memory; bad input."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from txfm_lite import pairs, similarity
from txfm_lite.similarity import Cosine, Euclid, Pearson, Spearman

KINDS = [Spearman, Pearson, Cosine, Euclid]


@pytest.fixture(scope="module")
def cells():
    """Cells of three types in mixed order, one of them without a count."""
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abc"), 150, p=[0.5, 0.3, 0.2])
    rate = rng.gamma(0.3, size=(3, 80))[np.searchsorted(list("abc"), labels)]
    x = rng.poisson(rate)
    x[7] = 0
    return x, labels


def brute_force(measure, labels):
    """Values of the pairs of each two types, from the whole matrix, nan left out."""
    whole, (i, j) = measure.matrix(), np.triu_indices(len(labels), 1)
    found = {}
    for a, b, value in zip(labels[i], labels[j], whole[i, j], strict=True):
        found.setdefault(tuple(sorted((a, b))), []).append(value)
    return {pair: np.array(v)[~np.isnan(v)] for pair, v in found.items()}


def test_numbers_of_pairs():
    labels = np.repeat(np.arange(89), 500)
    assert pairs.n_pairs(labels) == {"types": 3_916, "within": 11_102_750, "between": 979_000_000}
    assert pairs.n_pairs(labels[:500]) == {"types": 0, "within": 124_750, "between": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_medians_and_histograms_are_those_of_all_pairs(kind, cells, monkeypatch):
    x, labels = cells
    measure = kind(x)
    expected = brute_force(measure, labels)
    for block in (16, 2048):
        monkeypatch.setattr(similarity, "BLOCK", block)
        found = pairs.summarise(measure, labels)
        for (a, b), values in expected.items():
            k, j = np.searchsorted(found.types, [a, b])
            error = abs(found.median[k, j] - np.median(values))
            assert (
                error <= (1e-6 if a == b else found.resolution) and found.median[j, k] == found.median[k, j]
            )
            assert found.histograms[k, j].sum() == len(values)
        within = np.concatenate([v for (a, b), v in expected.items() if a == b])
        between = np.concatenate([v for (a, b), v in expected.items() if a != b])
        assert found.within.sum() == len(within) and found.between.sum() == len(between)
        for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1):
            assert found.quantile(q, "within") == pytest.approx(np.quantile(within, q), abs=found.resolution)
            assert found.quantile(q, "between") == pytest.approx(
                np.quantile(between, q), abs=found.resolution
            )
        truth = np.repeat([1, 0], [len(within), len(between)])
        area = roc_auc_score(truth, np.concatenate([within, between]) * (1 if measure.alike else -1))
        assert found.effects()["auc"] == pytest.approx(area, abs=2e-4) and area > 0.6
        assert found.undefined == measure.undefined.sum() == (kind is not Euclid)
        assert found.cells.sum() == len(x) - found.undefined
        exact = pairs.medians_within(measure, labels)
        assert exact.to_dict() == dict(zip(found.types, np.diag(found.median), strict=True))


@pytest.mark.parametrize("values", [[1, 2, 4], [0, 0, 0, 5], [3, 3, 3, 3], [1, 9]])
def test_quantiles_are_numpys_also_of_few_values(values):
    """Positions on a line: their distances are few and far apart, and many are equal."""
    x = np.column_stack([values, np.zeros(len(values))])
    x = np.vstack([x, x + [100, 0]])
    found = pairs.summarise(Euclid(x), np.repeat(["near", "far"], len(values)))
    a = np.array(values, dtype=float)
    within = np.repeat(abs(a[:, None] - a)[np.triu_indices(len(a), 1)], 2)
    assert np.diag(found.median) == pytest.approx(np.median(within))
    between = abs(a[:, None] - a - 100)
    assert found.median[0, 1] == pytest.approx(np.median(between), abs=found.resolution)


def test_effects_by_hand(cells):
    x, labels = cells
    found = pairs.summarise(Spearman(x), labels)
    own, other = np.diag(found.median), found.between_medians()
    assert len(other) == 3
    pooled = np.sqrt((2 * own.var(ddof=1) + 2 * other.var(ddof=1)) / 4)
    effects = found.effects()
    assert effects["d"] == pytest.approx((own.mean() - other.mean()) / pooled) and effects["d"] > 0
    assert effects["ratio"] == pytest.approx(np.median(other) / np.median(own))
    distance = pairs.summarise(Euclid(x), labels).effects()
    assert distance["d"] > 0 and distance["ratio"] > 1 > effects["ratio"]
    frame = found.frame()
    assert frame["within"].tolist() == own.tolist() and (frame["apart"] == 1).all()


def test_labels_without_meaning_give_one_half(cells):
    x, labels = cells
    permuted = np.random.default_rng(0).permutation(labels)
    for kind in KINDS:
        effects = pairs.summarise(kind(x), permuted).effects()
        assert effects["auc"] == pytest.approx(0.5, abs=0.03)
        assert kind is not Euclid or effects["ratio"] == pytest.approx(1, abs=0.1)


def test_intervals_hold_the_value_and_shrink_with_more_types():
    rng = np.random.default_rng(0)
    width = []
    for t in (6, 24):
        x = np.repeat(rng.normal(size=(t, 5)), 20, axis=0) + rng.normal(size=(20 * t, 5))
        found = pairs.summarise(Euclid(x), np.repeat(np.arange(t), 20)).intervals()
        assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
        width.append(found["high"] - found["low"])
    assert (width[1] < width[0]).all()
    again = pairs.summarise(Euclid(x), np.repeat(np.arange(t), 20)).intervals()
    assert again.equals(found)


def test_two_measures_at_once(cells):
    x, labels = cells
    first, second = Spearman(x), Euclid(x)
    found = pairs.joint(first, second, labels, bins=20)
    i, j = np.triu_indices(len(x), 1)
    a, b, same = first.matrix()[i, j], second.matrix()[i, j], labels[i] == labels[j]
    for got, chosen in ((found.within, same), (found.between, ~same)):
        chosen = chosen & ~np.isnan(a)
        expected = np.histogram2d(a[chosen], b[chosen], bins=[found.first, found.second])[0]
        assert got.sum() == expected.sum() and abs(got - expected).sum() <= 4  # rounding at an edge
    narrow = pairs.joint(first, second, labels, ranges=((0, 0.1), (0, 5)), bins=4)
    assert narrow.within.sum() == found.within.sum() and narrow.within[-1].sum() > narrow.within[1].sum()


def test_single_cells_and_cells_in_any_order(cells):
    x, labels = cells
    x, alone = np.vstack([x, x[0]]), np.append(labels, "z")
    found = pairs.summarise(Spearman(x), alone)
    assert np.isnan(found.median[3, 3]) and np.isfinite(found.median[3, :3]).all()
    assert np.isfinite(list(found.effects().values())).all()
    order = np.argsort(alone, kind="stable")
    ordered = pairs.summarise(Spearman(x[order]), alone[order])
    assert np.array_equal(ordered.within, found.within) or abs(ordered.within - found.within).sum() <= 4
    assert ordered.median == pytest.approx(found.median, abs=found.resolution, nan_ok=True)


def test_memory_does_not_grow_with_the_pairs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12_000, 3))  # all pairs in float64 would be 1.2 GB
    measure = Euclid(x)
    labels = np.repeat(["p", "q"], 6_000)
    tracemalloc.start()
    found = pairs.summarise(measure, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6 and found.within.sum() + found.between.sum() == 12_000 * 11_999 // 2


@pytest.mark.parametrize(
    "labels, told",
    [
        (["a"] * 4, "a single type"),
        (["a", "b"], "length 2, but there are 4"),
        (["a", "b", None, float("nan")], "2 cells have no type"),
    ],
)
def test_bad_labels_are_named(labels, told):
    measure = Cosine(np.eye(4) + 1)
    with pytest.raises(ValueError, match=told):
        pairs.summarise(measure, labels)


def test_measures_of_different_cells_are_refused():
    with pytest.raises(ValueError, match="of 4 and of 3 cells"):
        pairs.joint(Cosine(np.eye(4)), Cosine(np.eye(3)), list("aabb"))
