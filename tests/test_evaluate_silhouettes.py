"""Silhouettes: golden values, scikit-learn and scib-metrics, blocks, memory, properties."""

import tracemalloc

import numpy as np
import pytest
from scib_metrics import silhouette_batch, silhouette_label
from sklearn.metrics import silhouette_samples, silhouette_score

from txfm_lite.baselines import embed_log_counts
from txfm_lite.evaluate import silhouettes


def widths(*args):
    return [row["value"] for row in silhouettes.evaluate(*args)]


def each(x, what, groups):
    """Silhouettes of `what` inside each group where it can be computed."""
    inside = [groups == g for g in np.unique(groups)]
    return [silhouette_samples(x[i], what[i]) for i in inside if 1 < len(set(what[i])) < i.sum()]


@pytest.fixture
def groups():
    rng = np.random.default_rng(0)
    labels, batches = rng.choice(list("abc"), 400, p=[0.6, 0.3, 0.1]), rng.choice(list("pqrs"), 400)
    x = rng.normal(size=(400, 6)) + 2 * (labels == "b")[:, None] + (batches == "q")[:, None]
    return x, labels, batches


def test_golden_values():
    a = np.array([(0, 0), (0, 1), (1, 0), (5, 5), (5, 6), (6, 5), (10, 0), (10, 1), (11, 0)], dtype=float)
    got = widths(a, np.repeat(list("xyz"), 3), np.array([0, 1, 0, 1, 0, 1, 0, 1, 1]))
    assert got == pytest.approx([0.918239, 0.869825, 0.777521], abs=1e-6)


def test_against_scikit_learn_and_scib(groups):
    x, labels, batches = groups
    asw, scib, literal = widths(x, labels, batches)
    assert asw == pytest.approx((silhouette_score(x, labels) + 1) / 2)
    assert asw == pytest.approx(silhouette_label(x, labels), abs=1e-5)
    assert scib == pytest.approx(silhouette_batch(x, labels, batches), abs=1e-5)
    within = [silhouette_samples(x[batches == b], labels[batches == b]) for b in "pqrs"]
    assert literal == pytest.approx((np.concatenate(within).mean() + 1) / 2)


def test_real_cells_of_chips_with_few_types_and_types_on_few_chips(loaded):
    adata = loaded("darmanis_brain")
    x = embed_log_counts(adata, adata.var_names.to_numpy()[:500])
    labels, batches = (adata.obs[c].astype(str).to_numpy() for c in ("cell_type", "batch"))
    asw, scib, literal = widths(x, labels, batches)
    assert asw == pytest.approx((silhouette_score(x, labels) + 1) / 2, abs=1e-5)
    assert scib == pytest.approx(
        np.mean([np.mean(1 - np.abs(s)) for s in each(x, batches, labels)]), abs=1e-5
    )
    within = np.concatenate(each(x, labels, batches))
    assert len(within) < len(x) and literal == pytest.approx((within.mean() + 1) / 2, abs=1e-5)


def test_blocks_permutations_and_rotations_change_nothing(groups, monkeypatch):
    x, labels, batches = groups
    expected = widths(x, labels, batches)
    monkeypatch.setattr(silhouettes, "BLOCK", 400 * 7)
    assert widths(x, labels, batches) == pytest.approx(expected)
    order = np.random.default_rng(1).permutation(400)
    assert widths(x[order], labels[order], batches[order]) == pytest.approx(expected)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    assert widths(3 * x @ rotation + 50, labels, batches) == pytest.approx(expected)
    assert widths((x + 1000).astype(np.float32), labels, batches) == pytest.approx(expected, abs=1e-4)


def test_nulls_and_ceilings(groups):
    x, labels, batches = groups
    asw, scib, literal = silhouettes.evaluate(x, labels, batches)
    chance = [(silhouette_score(x, np.random.default_rng(i).permutation(labels)) + 1) / 2 for i in range(20)]
    assert asw["null"] == pytest.approx(np.mean(chance), abs=5 * np.std(chance))
    assert literal["null"] < 0.55 and asw["null"] < 0.55
    noise = np.random.default_rng(2).normal(size=x.shape)
    scib_noise = silhouettes.evaluate(noise, labels, batches)[1]
    assert scib_noise["value"] == pytest.approx(scib_noise["ceiling"], abs=0.02)  # knowing nothing is best
    assert scib["value"] < scib["ceiling"]


def test_undefined_cases():
    x, one = np.random.default_rng(0).normal(size=(30, 2)), np.full(30, "p")
    labels = np.repeat(list("ab"), 15)
    asw, scib, literal = widths(x, labels, one)
    assert np.isnan(scib) and literal == pytest.approx(asw)  # one batch: nothing to compare, all within it
    assert np.isnan(widths(x, labels, labels)[1:]).all()  # each type in a batch of its own
    assert widths(np.zeros((30, 2)), labels, np.tile(list("pq"), 15)) == pytest.approx([0.5, 1, 0.5])
    alone = np.append(labels[:-1], "c")  # the only cell of its type has silhouette 0
    s = silhouette_samples(x, alone)
    assert s[-1] == 0 and widths(x, alone, one)[0] == pytest.approx((s.mean() + 1) / 2)


def test_memory_does_not_grow_with_all_pairs():
    rng = np.random.default_rng(0)
    n = 20_000  # all pairs in float32 would be 1.6 GB
    x = rng.normal(size=(n, 4)).astype(np.float32)
    tracemalloc.start()
    silhouettes.evaluate(x, rng.choice(list("abcdef"), n), rng.choice(list("pqrst"), n))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600e6
