"""Scores of a screen: closed cases, chance levels, reference packages, real cells."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.neighbors import KNeighborsClassifier

from txfm_lite.evaluate import (
    consistency,
    distances,
    invertibility,
    perturbations,
    recall,
    separability,
    splits,
)

# perturbation consistency


@pytest.fixture
def toy():
    x = np.array([(1, 0), (0.8, 0.6), (0.6, 0.8), (0, 1), (-0.6, 0.8), (-1, 0)])
    return x, np.array(list("AAABBB")), np.zeros(6, dtype=bool)


def test_consistency_golden(toy):
    found = consistency.against_single_cells(*toy)
    assert found["statistic"].to_numpy() == pytest.approx([0.837723, 0.584464], abs=1e-6)
    assert (found["exceeding"] / found["n_null"]).to_list() == [0, 0]  # p without the + 1
    assert found["p"].to_list() == [0.25, 0.25]


def test_a_cell_of_the_null_may_exceed(toy):
    x, groups, controls = toy
    x = np.vstack([x, (0.81, 0.59)])  # a control that lies in the middle of A
    found = consistency.against_single_cells(x, np.append(groups, "none"), np.append(controls, True))
    assert found.loc["A", "exceeding"] == 1
    assert found.index.to_list() == ["A", "B"]


def test_mean_pairwise_cosine_is_what_the_pairs_say():
    rng = np.random.default_rng(0)
    x, groups, controls = (
        rng.normal(size=(60, 4)) + 0.3,
        np.repeat(list("abcx"), 15),
        np.repeat([0, 0, 0, 1], 15) > 0,
    )
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = (u[:15] @ u[:15].T)[np.triu_indices(15, 1)].mean()
    assert consistency.against_controls(x, groups, controls).loc["a", "statistic"] == pytest.approx(pairs)
    permuted = consistency.against_permutations(x, groups, controls, np.repeat("one", 60))
    assert permuted.loc["a", "statistic"] == pytest.approx(pairs)


@pytest.fixture(scope="module")
def noise():
    """Forty perturbations of 25 cells and 200 controls in two batches; the batches differ, nothing else."""
    rng = np.random.default_rng(1)
    groups = np.array([f"g{i:02d}" for i in range(40)] * 25 + ["control"] * 200)
    batches = rng.choice(["a", "b"], 1200)
    x = rng.normal(size=(1200, 20)) + np.where(batches == "a", 1.0, -1.0)[:, None]
    return x, groups, groups == "control", batches


def test_only_the_permutation_test_is_calibrated(noise):
    x, groups, controls, batches = noise
    shift = np.where(batches == "a", 1.0, -1.0)[:, None]
    p = consistency.against_single_cells(x - shift, groups, controls)["p"]
    assert p.between(0.2, 0.8).all()  # not uniform: means are compared with single cells
    p = np.concatenate(
        [consistency.against_permutations(x[rows], groups, controls, batches[rows], seed=s)["p"]
         for s, rows in enumerate(np.random.default_rng(s).permutation(1200) for s in range(5))]
    )  # fmt: skip
    assert (p <= 0.01).mean() < 0.04
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_batches_are_no_consistency():
    """A perturbation that was run in one batch only must not be taken for a batch effect, or the reverse."""
    rng = np.random.default_rng(2)
    groups, batches = np.repeat(["p", "q", "control"], 100), np.repeat(["a", "b"], 150)
    x = rng.normal(size=(300, 10)) + np.where(batches == "a", 2.0, -2.0)[:, None]
    within = consistency.against_permutations(x, groups, groups == "control", batches)["p"]
    across = consistency.against_permutations(x, groups, groups == "control", np.repeat("one", 300))["p"]
    assert across["p"] == pytest.approx(1 / 300)
    assert within["p"] > 0.01


def test_real_shifts_are_found_long_before_the_published_score_sees_them(noise):
    x, groups, controls, batches = noise
    x = x - np.where(batches == "a", 1.0, -1.0)[:, None]
    for size, published, calibrated in ((2.0, (0, 0.2), (1, 1)), (20.0, (1, 1), (1, 1))):
        shifted = x.copy()
        for i in range(0, 40, 4):  # ten perturbations, each its own way
            shifted[groups == f"g{i:02d}", i // 4] += size
        moved = [f"g{i:02d}" for i in range(0, 40, 4)]
        low, high = published
        share = (consistency.against_single_cells(shifted, groups, controls)["p"].loc[moved] < 0.01).mean()
        assert low <= share <= high
        low, high = calibrated
        p = consistency.against_permutations(shifted, groups, controls, batches)["p"].loc[moved]
        assert low <= (p <= 0.01).mean() <= high


def test_constant_embeddings_are_not_consistent(noise):
    _, groups, controls, batches = noise
    zeros = np.zeros((1200, 3))
    assert (consistency.against_single_cells(zeros, groups, controls)["p"] > 0.9).all()
    assert (consistency.against_controls(zeros, groups, controls)["p"] == 1).all()
    assert (consistency.against_permutations(zeros, groups, controls, batches)["p"] == 1).all()


# relationship recall


def test_recall_golden():
    rows = np.array([(1, 0), (0.9, 0.1), (0, 1), (-1, 0.05), (0.1, 1), (-0.9, -0.2), (0.5, 0.5)])
    hit = recall.recalled(rows)
    assert [bool(hit[pair]) for pair in ((0, 1), (2, 4), (0, 3), (0, 2))] == [False, True, True, False]
    assert (hit == hit.T).all()
    assert (
        recall.recalled(rows * [[2.0], [3], [0.1], [5], [1], [9], [1]]) == hit
    ).all()  # lengths do not matter
    assert not recall.recalled(np.zeros((7, 2)))[np.triu_indices(7, 1)].any()


def _complexes(k: int = 40) -> tuple[np.ndarray, pd.DataFrame]:
    names = np.array([f"G{i}" for i in range(k)])
    return names, pd.DataFrame({"entity1": names[::2], "entity2": names[1::2]})


def test_recall_of_true_partners_and_of_chance():
    rng = np.random.default_rng(0)
    names, pairs = _complexes()
    vectors = rng.normal(size=(20, 10)).repeat(2, axis=0) + 0.01 * rng.normal(size=(40, 10))
    first, *_ = recall.relationship_recall(vectors, names, {"one": pairs})
    assert first["metric"] == "bmdb"
    assert first["value"] == 1
    assert first["null"] == pytest.approx(0.1, abs=0.02)
    assert first["n"] == 20
    blind = [
        recall.relationship_recall(rng.normal(size=(40, 10)), names, {"one": pairs})[0]["value"]
        for _ in range(60)
    ]
    assert np.mean(blind) == pytest.approx(0.1, abs=0.03)


def test_repeats_and_order_of_pairs_do_not_matter():
    names, pairs = _complexes()
    vectors = np.random.default_rng(1).normal(size=(40, 10))
    turned = pairs.rename(columns={"entity1": "entity2", "entity2": "entity1"})
    more = pd.concat([pairs, turned, pd.DataFrame({"entity1": ["G1", "G2"], "entity2": ["G1", "other"]})])
    rows = recall.relationship_recall(vectors, names, {"one": pairs, "all": more})
    assert [row["n"] for row in rows] == [20, 20, 20, 20]
    assert len({row["value"] for row in rows}) == 1


def test_recall_needs_ten_pairs():
    names, pairs = _complexes()
    vectors = np.random.default_rng(1).normal(size=(40, 10))
    rows = recall.relationship_recall(vectors, names, {"few": pairs[:9], "many": pairs})
    values = {row["metric"]: row["value"] for row in rows}
    assert np.isnan(values["bmdb few"])
    assert values["bmdb"] == values["bmdb many"]
    assert np.isnan(recall.relationship_recall(vectors, names, {})[0]["value"])


# separability


def test_class_prior_golden():
    labels = np.repeat(list("abcdef"), [50, 20, 10, 10, 5, 5])
    assert separability.class_prior(labels, labels) == pytest.approx(0.725)


@pytest.fixture(scope="module")
def classes():
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abcdefgh"), 1500, p=np.array([8, 7, 6, 5, 4, 3, 2, 1]) / 36)
    centres = {c: rng.normal(size=40) for c in "abcdefgh"}
    x = np.array([centres[c] for c in labels]) + 2 * rng.normal(size=(1500, 40))
    return x.astype(np.float32), labels


def test_neighbours_against_scikit_learn(classes):
    from sklearn.decomposition import PCA

    x, labels = classes
    pca = PCA(32, svd_solver="covariance_eigh").fit(x[:1000])
    knn = KNeighborsClassifier(251, weights=lambda d: 1 / (d + 1e-5)).fit(
        pca.transform(x[:1000]), labels[:1000]
    )
    truth = np.searchsorted(knn.classes_, labels[1000:])
    expected = separability.top_1_and_5(knn.predict_proba(pca.transform(x[1000:])), truth)
    found = separability.nearest_neighbours(x[:1000], labels[:1000], x[1000:], labels[1000:])
    assert found == pytest.approx(expected, abs=1e-3)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(40, 40)))[0].astype(np.float32)
    turned = separability.nearest_neighbours(
        x[:1000] @ rotation, labels[:1000], x[1000:] @ rotation, labels[1000:]
    )
    assert turned == pytest.approx(found, abs=5e-3)


def test_blocks_do_not_change_neighbours(classes, monkeypatch):
    x, labels = classes
    pair = x[:1000], labels[:1000], x[1000:], labels[1000:]
    whole = separability.nearest_neighbours(*pair)
    monkeypatch.setattr(separability, "BLOCK", 70_000)
    assert separability.nearest_neighbours(*pair) == pytest.approx(whole)


@pytest.mark.parametrize("score", ["linear_layer", "logistic_regression", "nearest_neighbours"])
def test_signal_beats_the_prior_and_a_constant_is_it(classes, score):
    x, labels = classes
    score, half = getattr(separability, score), 750
    prior = separability.class_prior(labels[:half], labels[half:])
    assert score(x[:half], labels[:half], x[half:], labels[half:]) > prior + 0.2
    zeros = np.zeros((half, 2), dtype=np.float32)
    at_zero = score(zeros, labels[:half], zeros, labels[half:])
    if score is separability.linear_layer:  # its steps are too few to learn even the prior
        assert at_zero <= prior + 0.03
    else:
        assert at_zero == pytest.approx(prior, abs=0.03)


@pytest.mark.parametrize("score", ["linear_layer", "logistic_regression", "nearest_neighbours"])
def test_an_unseen_label_is_a_mistake(classes, score):
    x, labels = classes
    score = getattr(separability, score)
    known = score(x[:500], labels[:500], x[500:1000], labels[500:1000])
    strange = np.concatenate([labels[500:1000], np.repeat("unheard of", 500)])
    twice = np.concatenate([x[500:1000]] * 2)
    assert score(x[:500], labels[:500], twice, strange) == pytest.approx(known / 2, abs=2e-3)


def test_two_classes(classes):
    x, labels = classes
    two = np.isin(labels, ["a", "b"])
    x, labels = x[two], labels[two]
    value = separability.logistic_regression(x[:200], labels[:200], x[200:], labels[200:])
    assert 0.85 < value <= 1  # (top 1 + 1) / 2


# invertibility


def test_integrity_golden():
    y = np.array([(1, 0), (1, 2), (3, 1), (5, 1)], dtype=float)
    predicted = np.array([(1, 1), (1, 1), (2, 1), (4, 1)], dtype=float)
    about = np.repeat("b", 4), np.array([True, True, False, False])
    centred = y - y[:2].mean(axis=0)
    assert invertibility.structural_integrity(y, predicted, *about) == pytest.approx(0.786799, abs=1e-6)
    for factor, expected in ((0, 0.5), (-1, 0.0), (3, 0.0), (1, 1.0), (5, -1.0)):
        assert invertibility.structural_integrity(y, factor * centred, *about) == pytest.approx(expected)
    with pytest.raises(ValueError, match="'b' has no controls"):
        invertibility.structural_integrity(y, y, about[0], np.zeros(4, bool))


def test_spearman_against_scipy():
    rng = np.random.default_rng(0)
    truth, predicted = rng.poisson(1.0, (80, 6)).astype(float), rng.normal(size=(80, 6))
    truth[:, 4], predicted[:, 5] = 2.0, 0.0
    found = invertibility.spearman_per_gene(truth, predicted)
    expected = [stats.spearmanr(truth[:, i], predicted[:, i]).statistic for i in range(4)]
    assert found[:4] == pytest.approx(expected)
    assert np.isnan(found[4])
    assert found[5] == 0


def test_target():
    counts = sparse.csr_matrix(np.array([[1, 0, 3], [0, 5, 0]], dtype=np.int32))
    expected = np.log1p([[2500, 0, 7500], [0, 10000, 0]])
    assert invertibility.target(counts, np.array([0, 1])) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="1 cells have none"):
        invertibility.target(sparse.csr_matrix(np.array([[1.0], [0.0]])), np.arange(2))
    with pytest.raises(ValueError, match="negative"):
        invertibility.target(sparse.csr_matrix(np.array([[1.0], [-1.0]])), np.arange(2))


@pytest.mark.parametrize("decoder", ["ridge", "network"])
def test_decoders_find_a_linear_map(decoder):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3000, 40)), rng.normal(size=(40, 200))
    y = (x @ w + 0.1 * rng.normal(size=(3000, 200))).astype(np.float32)
    predicted = getattr(invertibility, decoder)(x[:2000], y[:2000], x[2000:])
    assert np.corrcoef(predicted.ravel(), y[2000:].ravel())[0, 1] > (0.99 if decoder == "ridge" else 0.15)
    blind = getattr(invertibility, decoder)(0 * x[:2000], y[:2000], 0 * x[2000:])
    assert np.ptp(blind, axis=0).max() < 1e-6


# E-distance


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    groups = np.repeat(["control", "far", "near", "same"], [60, 30, 25, 40])
    shift = pd.Series(groups).map({"control": 0, "far": 2.0, "near": 0.6, "same": 0}).to_numpy()
    return rng.normal(size=(155, 5)) + 10 + shift[:, None], groups, groups == "control"


def test_e_distance_against_scperturb(clouds):
    import scperturb

    x, groups, controls = clouds
    adata = anndata.AnnData(
        np.zeros((len(x), 1)), pd.DataFrame({"perturbation": groups}, index=map(str, range(155)))
    )
    adata.obsm["X_pca"] = x
    theirs = scperturb.edist_to_control(adata, n_jobs=1, verbose=False).iloc[:, 0]
    tested = scperturb.etest(adata, runs=200, n_jobs=1, verbose=False)
    ours = distances.e_test(x, groups, controls)
    assert ours["distance"].to_numpy() == pytest.approx(
        theirs.loc[ours.index].astype(float).to_numpy(), rel=1e-6
    )
    assert (ours["adjusted"] < 0.05).to_dict() == {"far": True, "near": True, "same": False}
    assert (tested["pvalue_adj"] < 0.05).loc[ours.index].to_dict() == (ours["adjusted"] < 0.05).to_dict()
    scaled = distances.e_test(100 * x, groups, controls)
    assert scaled["relative"].to_numpy() == pytest.approx(ours["relative"].to_numpy(), rel=1e-6)


def test_e_test_is_calibrated(noise):
    x, groups, controls, _ = noise
    p = distances.e_test(x, groups, controls)["p"]
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert distances.e_test(np.zeros_like(x), groups, controls)["p"].min() == 1
    with pytest.raises(ValueError, match="two controls"):
        distances.e_test(x, groups, np.zeros(len(x), bool))


# splits and the whole


@pytest.mark.parametrize("n_batches", [2, 3, 10])
def test_folds(n_batches):
    rng = np.random.default_rng(0)
    groups = rng.choice(["control", *"abcdefghij"], 2000)
    controls, batches = groups == "control", rng.choice([f"b{i}" for i in range(n_batches)], 2000)
    found = splits.folds(groups, controls, batches, seed=1)
    assert len(found) == (1 if n_batches == 10 else n_batches)
    for fold in found:
        train, test = np.concatenate([fold.train, fold.train_controls]), fold.test
        assert not set(batches[train]) & set(batches[test])
        assert set(groups[fold.test1]) == set(groups[fold.train])
        assert len(set(groups[fold.train])) == 7
        assert not set(groups[fold.test2]) & set(groups[fold.train])
        assert controls[fold.test_controls].all()
        within = splits.inner(fold, groups, controls, batches, seed=1)
        assert set(within.test) | set(within.train) <= set(train)
        assert not set(within.test) & set(within.train)
        assert not set(groups[within.test2]) & set(groups[within.train])
    if n_batches < 10:
        assert sorted(np.concatenate([fold.test for fold in found])) == list(range(2000))
    with pytest.raises(ValueError, match=r"1 batch\(es\)"):
        splits.folds(groups, controls, np.repeat("one", 2000))


def test_the_choice_is_made_by_validation_alone():
    def row(variant, fold, part, value, metric="lin"):
        return {"metric": metric, "variant": variant, "fold": fold, "part": part, "value": value}

    scored = [
        row("none", 0, "test", 0.9), row("TVN", 0, "test", 0.1), row("none", 1, "test", 0.3),
        row("TVN", 1, "test", 0.4), row("none", 0, "validation", 0.2), row("TVN", 0, "validation", 0.3),
        row("none", 1, "validation", 0.5), row("TVN", 1, "validation", np.nan),
        row("none", 0, "test", 1.0, "iLISI"), row("centre-scale", 0, "test", 0.8, "iLISI"),
        row("none", 0, "test", 0.5, "lin converged"),
    ]  # fmt: skip
    chosen = [r for r in perturbations.choose(scored) if r["variant"] == "chosen"]
    assert [(r["metric"], r["fold"], r["value"]) for r in chosen] == [
        ("lin", 0, 0.1), ("lin", 1, 0.3), ("iLISI", 0, 0.8)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def screen():
    """A small simulated screen, its known pairs, and the log counts as an embedding."""
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(12)]
    groups = rng.choice(["control", *names], 900, p=[0.28, *[0.06] * 12])
    batches = rng.choice(["r1", "r2", "r3"], 900)
    programme = {name: i // 2 for i, name in enumerate(names)}  # two genes share a programme
    activity = np.zeros((900, 6))
    for i, group in enumerate(groups):
        if group != "control":
            activity[i, programme[group]] = 1
    loadings, shifts = (
        rng.normal(size=(6, 80)),
        dict(zip(["r1", "r2", "r3"], rng.normal(0, 0.5, (3, 80)), strict=True)),
    )
    log_rate = 1.5 + activity @ loadings + np.array([shifts[b] for b in batches])
    counts = sparse.csr_matrix(rng.poisson(np.exp(log_rate)).astype(np.float32))
    obs = pd.DataFrame({"perturbation": groups, "is_control": groups == "control", "batch": batches})
    mates = pd.DataFrame({"entity1": names[::2] + names[:4], "entity2": names[1::2] + names[4:8]})
    values = np.log1p(counts.toarray())
    return (
        values,
        obs,
        {"counts": counts, "genes": np.array([f"x{i}" for i in range(80)]), "pairs": {"db": mates}},
    )


def _frame(rows) -> pd.DataFrame:
    return pd.DataFrame(rows).set_index(["metric", "variant"])


@pytest.fixture(scope="module")
def scored(screen):
    values, obs, rest = screen
    return _frame(perturbations.evaluate(values, obs, **rest))


def test_signal_and_what_scrambling_leaves(screen, scored):
    values, obs, rest = screen
    order = np.random.default_rng(5).permutation(len(values))
    blind = _frame(perturbations.evaluate(values[order], obs, **rest))
    for metric in ("lin converged", "knn", "bmdb", "inv", "e-test", "p.cst permuted"):
        known, chance = scored.loc[(metric, "centre")], blind.loc[(metric, "centre")]
        assert known["value"] > known["null"] + 0.15, metric
        assert chance["value"] == pytest.approx(chance["null"], abs=0.12), metric
    assert scored.loc[("avg corrected", "chosen"), "value"] > 0.3
    assert abs(blind.loc[("avg corrected", "chosen"), "value"]) < 0.05
    assert (scored["null"].dropna() <= 1).all()
    assert scored.index.is_unique
    five = [m for m in perturbations.SIX if m != "bmdb"]
    assert set(scored.xs("chosen", level="variant").index) >= {*five, "bmdb", "avg", "avg corrected"}


def test_the_average_is_that_of_the_six(scored):
    for how in ("none", "TVN", "chosen"):
        six = scored.loc[[(m, how) for m in perturbations.SIX]]
        assert scored.loc[("avg", how), "value"] == pytest.approx(six["value"].mean())
        five = six.drop([("iLISI", how)])
        corrected = (five["value"] - five["null"]) / (five["ceiling"] - five["null"])
        assert scored.loc[("avg corrected", how), "value"] == pytest.approx(corrected.mean())


def test_cells_may_come_in_any_order_and_any_unit(screen, scored):
    values, obs, rest = screen
    order = np.random.default_rng(6).permutation(len(values))
    other = _frame(
        perturbations.evaluate(
            3 * values[order], obs.iloc[order], **(rest | {"counts": rest["counts"][order]})
        )
    )
    exact = ["lin converged", "knn without controls", "p.cst", "bmdb", "inv", "inv integrity", "E-distance"]
    for metric in exact:
        for how in ("none", "centre-scale", "TVN"):
            a, b = scored.loc[(metric, how), "value"], other.loc[(metric, how), "value"]
            assert a == pytest.approx(b, abs=0.02), (metric, how)


def test_a_constant_embedding_is_at_chance(screen):
    _, obs, rest = screen
    found = _frame(perturbations.evaluate(np.zeros((len(obs), 2)), obs, **rest))
    for metric in ("lin converged", "knn", "p.cst", "inv", "e-test", "inv network"):
        row = found.loc[(metric, "none")]
        assert row["value"] == pytest.approx(row["null"], abs=0.05), metric
    assert found.loc[("bmdb", "none"), "value"] == 0


def test_refuses(screen):
    values, obs, rest = screen
    with pytest.raises(ValueError, match="no column 'is_control'"):
        perturbations.evaluate(values, obs.drop(columns="is_control"), **rest)
    with pytest.raises(ValueError, match="missing in 1 cells"):
        perturbations.evaluate(values, obs.assign(batch=obs["batch"].mask(obs.index == 3)), **rest)
    with pytest.raises(ValueError, match="899 embeddings"):
        perturbations.evaluate(values[1:], obs, **rest)
    with pytest.raises(ValueError, match="column that names replicates"):
        perturbations.evaluate(values, obs.assign(batch="one"), **rest)


def test_two_batches_and_no_pairs(screen):
    values, obs, rest = screen
    two = (obs["batch"] != "r3").to_numpy()
    rest = rest | {"counts": rest["counts"][two], "pairs": None}
    found = _frame(perturbations.evaluate(values[two], obs[two], **rest))
    assert np.isnan(found.loc[("bmdb", "chosen"), "value"])
    assert found.loc[("avg", "chosen"), "n"] == 5
    assert (
        found.loc[("lin converged", "centre"), "value"] > found.loc[("lin converged", "centre"), "null"] + 0.1
    )
