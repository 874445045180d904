"""Splits that follow from names alone, measures beside scikit-learn's, protocol, time, leakage, storing."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon
from sklearn.metrics import average_precision_score, roc_auc_score

from txfm_lite import datasets, genesets, results, set_rivals
from txfm_lite.evaluate import genesets as benchmark
from txfm_lite.evaluate import set_splits, set_statistics
from txfm_lite.genesets import GeneSets

LIBRARIES = {  # within the library, and from the other five: AUROC as measured for the specification
    "KEGG_2021_Human": (0.767, 0.700),
    "GO_Biological_Process_2023": (0.791, 0.668),
    "GWAS_Catalog_2023": (0.822, 0.596),
    "WikiPathway_2023_Human": (0.769, 0.738),
    "Human_Phenotype_Ontology": (0.780, 0.583),
    "MGI_Mammalian_Phenotype_Level_4_2021": (0.819, 0.683),
}


def library(n=40, g=120, seed=0, name="lib"):
    rng = np.random.default_rng(seed)
    genes = [f"G{i:03}" for i in range(g)]
    lists = [rng.choice(genes, rng.integers(4, 40), replace=False) for _ in range(n)]
    return GeneSets.from_lists(lists, [f"term {i}" for i in range(n)], name)


def asked(x):
    """Every question as (term, shown genes, hidden genes), whatever the order."""
    rows = zip(x.terms[x.term], x.visible, x.hidden, strict=True)
    return [(t, tuple(sorted(x.genes[v.indices])), tuple(sorted(x.genes[h.indices]))) for t, v, h in rows]


# --- measures -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_measures_are_those_of_scikit_learn_with_ties(seed, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (5, 30)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    candidates = rng.random(scores.shape) < 0.8
    hidden = sp.csr_matrix(((rng.random(scores.shape) < 0.3) & candidates).astype(np.float32))
    found = set_statistics.rank_measures(scores, hidden, candidates)
    for i, row in enumerate(found):
        truth = hidden[i].toarray()[0, candidates[i]] > 0
        own = np.nan_to_num(scores[i, candidates[i]], neginf=-1.0)
        if truth.all() or not truth.any():
            assert np.isnan(row).all()
            continue
        assert row[0] == pytest.approx(roc_auc_score(truth, own))
        assert row[1] == pytest.approx(average_precision_score(truth, own))
        expected = [expected_recall(truth, own, k) for k in set_statistics.EARLY]
        assert row[2:5] == pytest.approx(expected)
        steps = [(own[truth] >= s).mean() - (own[~truth] >= s).mean() for s in np.unique(own)]
        assert row[5] == pytest.approx(max(0, *steps))


def expected_recall(truth, scores, k):
    """Mean over the orders of equals: those above the step that k falls into, and a share of the step."""
    ordered = np.sort(scores)[::-1]
    if k >= len(ordered):
        return 1.0
    step = ordered[k - 1]
    sure, equal = scores > step, scores == step
    return (truth[sure].sum() + truth[equal].sum() * (k - sure.sum()) / equal.sum()) / truth.sum()


def test_es_auroc_and_ap_of_perfect_and_reverse_rankings():
    truth = np.arange(50) < 10
    hidden = sp.csr_matrix(np.stack([truth, truth]).astype(np.float32))
    scores = np.stack([50 - np.arange(50), np.arange(50)]).astype(np.float32)
    perfect, reverse = set_statistics.rank_measures(scores, hidden, np.ones((2, 50), dtype=bool))
    assert perfect == pytest.approx([1, 1, 1, 1, 1, 1])
    assert reverse[[0, 5]] == pytest.approx([0, 0])
    with pytest.raises(ValueError, match="1 scores are nan"):
        scores[0, 3] = np.nan
        set_statistics.rank_measures(scores, hidden, np.ones((2, 50), dtype=bool))


def test_nulls_are_what_random_scores_reach():
    rng = np.random.default_rng(0)
    hidden = sp.csr_matrix(np.tile(np.arange(2000) < 12, (1000, 1)).astype(np.float32))
    every = np.ones((1000, 2000), dtype=bool)
    found = set_statistics.rank_measures(rng.random((1000, 2000), dtype=np.float32), hidden, every)
    null, ceiling = set_statistics.nulls_and_ceilings(np.diff(hidden.indptr), every.sum(axis=1))
    assert found.mean(axis=0) == pytest.approx(null.mean(axis=0), abs=0.012)
    assert ceiling[0] == pytest.approx([1, 1, 10 / 12, 1, 1, 1])


def test_matched_candidates_take_popularity_out():
    rng = np.random.default_rng(0)
    popularity = np.repeat(np.arange(1, 11) ** 2, 200)  # ten levels, each wider than the window
    order = rng.permutation(2000)
    popularity = popularity[order]
    truth = [rng.choice(2000, 20, replace=False, p=popularity / popularity.sum()) for _ in range(200)]
    dense = np.zeros((200, 2000), dtype=np.float32)
    dense[np.arange(200)[:, None], truth] = 1
    hidden, every = sp.csr_matrix(dense), np.ones((200, 2000), dtype=bool)
    scores = np.tile(popularity.astype(np.float32), (200, 1))
    plain = set_statistics.rank_measures(scores, hidden, every)[:, 0]
    matched = set_statistics.matched_auroc(scores, hidden, every, popularity)
    assert plain.mean() > 0.7 and matched.mean() == pytest.approx(0.5, abs=0.02)
    assert set_statistics.matched_auroc(dense, hidden, every, popularity) == pytest.approx(1)
    half = every.copy()
    half[:, ::2] = hidden.toarray()[:, ::2] > 0  # only members and genes at odd places are candidates
    lower = np.where(np.arange(2000) % 2, dense, 2.0).astype(np.float32)
    lower[dense > 0] = 1
    assert set_statistics.matched_auroc(lower, hidden, half, popularity) == pytest.approx(1)


# --- statistics ---------------------------------------------------------------------------------------------


def test_interval_covers_the_median_and_groups_widen_it():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(100):
        low, high = set_statistics.interval(rng.normal(size=60), np.arange(60), seed=seed)
        inside += low <= 0 <= high
    assert 88 <= inside <= 100
    values, groups = np.repeat(rng.normal(size=30), 10), np.repeat(np.arange(30), 10)
    apart = np.diff(set_statistics.interval(values, np.arange(300), mean=True))[0]
    together = np.diff(set_statistics.interval(values, groups, mean=True))[0]
    assert together > 2 * apart
    standard_error = values.std() / np.sqrt(30)
    assert together == pytest.approx(2 * 1.96 * standard_error, rel=0.15)


def test_clusters_join_chains_of_near_duplicates():
    sets = GeneSets.from_lists([list("abcdef"), list("abcdeg"), list("abcdgh"), list("abcxyz"), list("uvw")])
    assert set_statistics.clusters(sets.csr()).tolist() == [0, 0, 0, 1, 2]


def test_paired_tests_are_scipys_corrected_for_their_number():
    rng = np.random.default_rng(0)
    base = rng.normal(size=40)
    table = pd.DataFrame({"a": base + 0.5 + 0.1 * rng.normal(size=40), "b": base, "c": rng.normal(size=40)})
    table.loc[3, "b"] = np.nan
    found = set_statistics.compare(table).set_index(["a", "b"])
    rest = table.dropna()
    assert found.loc[("a", "b"), "p"] == pytest.approx(wilcoxon(rest["a"], rest["b"]).pvalue)
    assert found.loc[("a", "b"), "n"] == 39 and found.loc[("a", "b"), "better"] == 1
    assert (found["q"] >= found["p"]).all() and found.loc[("a", "b"), "q"] < 1e-6
    fewer = set_statistics.compare(table, np.arange(40) // 4).set_index(["a", "b"])
    assert fewer.loc[("a", "b"), "n"] == 10 and fewer.loc[("a", "b"), "p"] > found.loc[("a", "b"), "p"]
    with pytest.raises(ValueError, match="needs two"):
        set_statistics.compare(table[["a"]])
    with pytest.raises(ValueError, match="too few"):
        set_statistics.compare(table[:4])


# --- splits -------------------------------------------------------------------------------------------------


def test_splits_follow_from_names_alone():
    sets = library()
    plain = asked(set_splits.splits(sets))
    rng = np.random.default_rng(1)
    shuffled = sets.over(rng.permutation(sets.genes))[rng.permutation(len(sets))]
    assert asked(set_splits.splits(shuffled)) == plain
    assert set_splits.splits(shuffled).fingerprint == set_splits.splits(sets).fingerprint
    some = {row for row in plain if row[0] in ("term 3", "term 7")}
    assert set(asked(set_splits.splits(sets[[3, 7]]))) == some  # other terms do not matter
    assert asked(set_splits.splits(sets, seed=1)) != plain
    assert asked(set_splits.splits(library(name="other"))) != plain
    # golden: the same on every platform
    two = GeneSets.from_lists([["TP53", "MDM2", "KIT", "MYC", "EGFR", "ATM"]], ["p53"], "golden")
    assert [row[1] for row in asked(set_splits.splits(two, 3))] == [
        ("ATM", "KIT", "MYC"), ("ATM", "EGFR", "KIT"), ("ATM", "EGFR", "KIT"),
    ]  # fmt: skip


def test_each_split_shows_half_rounded_down():
    sets = library()
    found = set_splits.splits(sets)
    whole = found.visible + found.hidden
    sizes = np.diff(whole.indptr)
    assert (whole.data == 1).all() and (np.diff(found.visible.indptr) == sizes // 2).all()
    assert len(found) == 5 * len(sets)
    shown = np.asarray(found.visible.sum(axis=0)).ravel() / np.asarray(whole.sum(axis=0)).ravel()
    assert 0.4 < shown.mean() < 0.55 and shown.std() < 0.15  # no gene is always on one side
    one = found.visible[:5].toarray()
    assert len(np.unique(one, axis=0)) == 5  # replicates differ


def test_splits_are_written_read_and_checked(tmp_path):
    sets = {name: library(seed=i, name=name) for i, name in enumerate(["one", "two"])}
    made = {name: set_splits.splits(x) for name, x in sets.items()}
    path = tmp_path / "splits.tsv.gz"
    digest = set_splits.write_splits(path, list(made.values()))
    assert digest == set_splits.write_splits(tmp_path / "again.gz", list(made.values()))
    assert path.read_bytes() == (tmp_path / "again.gz").read_bytes()
    read = set_splits.read_splits(path, sets)
    for name in sets:
        assert asked(read[name]) == asked(made[name]) and read[name].fingerprint == made[name].fingerprint
    with pytest.raises(ValueError, match="another version\\?"):
        set_splits.read_splits(path, {"one": library(seed=5, name="one")})
    with pytest.raises(ValueError, match="40 terms in the file, 39"):
        set_splits.read_splits(path, {"one": sets["one"][:39]})
    with pytest.raises(ValueError, match="has no library 'three', but one, two"):
        set_splits.read_splits(path, {"three": sets["one"]})
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace("term 3\t", "term 4\t", 1).encode()))
    with pytest.raises(ValueError, match="fingerprint of its first line"):
        set_splits.read_splits(path, sets)
    path.write_bytes(gzip.compress(b"name\tgenes\n"))
    with pytest.raises(ValueError, match="no file of splits"):
        set_splits.read_splits(path, sets)
    with pytest.raises(ValueError, match="sets of 2 libraries"):
        set_splits.splits(genesets.concatenate(list(sets.values())))


# --- the protocol -------------------------------------------------------------------------------------------


def test_protocol_beside_a_plain_loop():
    sets, universe = library(60, 150), np.array([f"G{i:03}" for i in range(10, 140)])
    rng = np.random.default_rng(0)
    table = rng.integers(0, 9, 130).astype(np.float32)
    rows, terms = benchmark.evaluate(lambda v: v.toarray() * 2 + table, sets, universe)
    auroc, ap = {}, {}
    for term, shown, hidden in asked(set_splits.splits(sets)):
        shown, hidden = set(shown) & set(universe), set(hidden) & set(universe)
        if min(len(shown), len(hidden)) < 5:
            continue
        candidates = [i for i, g in enumerate(universe) if g not in shown and g in sets.genes]
        truth = [universe[i] in hidden for i in candidates]
        auroc.setdefault(term, []).append(roc_auc_score(truth, table[candidates]))
        ap.setdefault(term, []).append(average_precision_score(truth, table[candidates]))
    found = {row["metric"]: row for row in rows}
    medians = {term: np.median(values) for term, values in auroc.items()}
    assert found["AUROC"]["value"] == pytest.approx(np.median(list(medians.values())))
    assert found["AP"]["value"] == pytest.approx(np.mean([np.mean(v) for v in ap.values()]))
    assert found["AUROC"]["n"] == len(auroc) < 60
    assert found["AUROC"]["low"] <= found["AUROC"]["value"] <= found["AUROC"]["high"]
    names = set_splits.splits(sets).terms
    assert terms["AUROC"].dropna().to_numpy() == pytest.approx([medians[t] for t in names if t in medians])


def test_genes_that_a_predictor_does_not_know_come_last_or_are_left_out():
    sets, universe = library(60, 150), np.array([f"G{i:03}" for i in range(150)])
    known = np.arange(150) % 3 > 0
    table = np.random.default_rng(0).random(150).astype(np.float32)

    def predict(visible):
        return np.broadcast_to(np.where(known, table, np.nan), visible.shape)

    rows, _ = benchmark.evaluate(predict, sets, universe)
    both = {row["variant"]: row["value"] for row in rows if row["metric"] == "AUROC"}
    last, _ = benchmark.evaluate(
        lambda v: np.tile(np.where(known, table, -1), (v.shape[0], 1)), sets, universe
    )
    own, _ = benchmark.evaluate(lambda v: np.tile(table[known], (v.shape[0], 1)), sets, universe[known])
    assert both[""] == last[0]["value"] and both["own genes"] == own[0]["value"]


def test_popularity_variants():
    sets = genesets.simulated(300, 400, 20)
    universe, counts = sets.genes, set_rivals.counted(sets, sets.genes)
    rows, _ = benchmark.evaluate(set_rivals.popularity(sets, universe), sets, universe, counts)
    value = {row["variant"]: row["value"] for row in rows if row["metric"] == "AUROC"}
    assert value[""] > 0.6 > value["matched popularity"] > 0.45
    assert set(benchmark.QUARTERS) < set(value)
    assert all(0.4 < value[quarter] < value[""] for quarter in benchmark.QUARTERS)


def test_bad_input_is_told():
    sets, universe = library(), library().genes
    with pytest.raises(ValueError, match="no term has 5 genes to show"):
        benchmark.evaluate(lambda v: v.toarray(), sets, ["Trp53", "Kit"])
    with pytest.raises(ValueError, match="scores of shape"):
        benchmark.evaluate(lambda v: v.toarray()[:, :5], sets, universe)
    with pytest.raises(ValueError, match="knows none of the candidates"):
        benchmark.evaluate(lambda v: np.full(v.shape, np.nan), sets, universe)


def test_common_universe():
    one, two = GeneSets.from_lists([list("abc")]), GeneSets.from_lists([list("bxd")])
    assert benchmark.common_universe({"1": one, "2": two}).tolist() == list("abcdx")
    assert benchmark.common_universe({"1": one, "2": two}, list("xzb")).tolist() == list("bx")


# --- time and leakage ---------------------------------------------------------------------------------------


def test_time_split_shows_the_old_genes_and_hides_the_new():
    genes = np.array([f"G{i:02}" for i in range(40)])
    old = GeneSets.from_lists([genes[20:30], genes[:8], genes[:6]], ["x", "grown", "y"], "2016")
    new = GeneSets.from_lists([genes[22:34], genes[2:16], genes[:7]], ["shifts", "grows", "stays"], "2021")
    found = set_splits.time_split(old, new)
    assert found.library == "2016 to 2021" and found.terms.tolist() == ["grows"]
    assert asked(found) == [("grows", tuple(genes[:8]), tuple(genes[8:16]))]
    assert found.genes[found.candidates].tolist() == genes[:16].tolist()
    with pytest.raises(ValueError, match="of 1 terms, none has 5 old and 5 new"):
        set_splits.time_split(old[2:], new[2:])
    with pytest.raises(ValueError, match="3 old terms and 2 new ones"):
        set_splits.time_split(old, new[1:])


def test_time_split_of_a_real_library(local_data):
    old = genesets.load("enrichr_2020_libraries", "KEGG_2016")
    new = genesets.load("enrichr_rummageo_benchmark", "KEGG_2021_Human")
    old, new = genesets.matched(old, new, lambda name: name.split(" Homo sapiens")[0].lower())
    found = set_splits.time_split(old, new)
    added = np.asarray(((new.csr() - old.csr()) > 0).sum(axis=1)).ravel()
    keep = (old.sizes >= 5) & (added >= 5)
    assert len(found) == keep.sum() > 50
    assert sorted(np.diff(found.hidden.indptr)) == sorted(added[keep])
    rows, _ = benchmark.evaluate(set_rivals.popularity(old, found.genes), found, found.genes)
    assert rows[0]["n"] == len(found) and rows[0]["low"] < rows[0]["value"] < rows[0]["high"]


def test_a_leaked_training_set_is_taken_out():
    tests = {"lib": genesets.simulated(60, 300, 10, seed=1)}
    tests["lib"].libraries[:] = "lib"
    train = genesets.concatenate([genesets.simulated(300, 300, 30, seed=2), tests["lib"]])
    universe, asked = tests["lib"].genes, set_splits.splits(tests["lib"])

    def auroc(rows):
        predict = set_rivals.neighbours(train[rows], universe, 5)
        return benchmark.evaluate(predict, asked, universe)[0][0]["value"]

    assert auroc(np.arange(360)) == pytest.approx(1, abs=0.02)
    parts = dict(benchmark.leakage_parts(train, tests, (1.0, 0.9, 0.2)))
    sizes = [len(part[""]) for part in parts.values()]
    assert sizes[0] == sizes[1] == 300 > sizes[2]  # copies go first
    for threshold, part in parts.items():
        left, control = part.values()
        assert "lib" not in set(train[left].libraries) and len(control) == len(left)
        assert genesets.nearest(train[left], tests["lib"])[0].max() <= threshold
        assert "lib" in set(train[control].libraries) and auroc(control) > auroc(left) + 0.1
    (far,) = dict(benchmark.leakage_parts(train[:300], tests, (1.0,))).values()
    assert list(far) == [""] and len(far[""]) == 300  # nothing to take out, no control


# --- storing ------------------------------------------------------------------------------------------------


def test_results_are_stored_with_values_per_term(tmp_path):
    sets = library(60, 150)
    questions = set_splits.splits(sets)
    for seed, name in ((0, "popularity"), (0, "a b"), (1, "a b")):
        predict = set_rivals.popularity_within(sets, sets.genes)
        rows, terms = benchmark.evaluate(predict, questions, sets.genes)
        path = benchmark.store(name, seed, questions, rows, terms, tmp_path, tier="clean")
    assert path.name == "a-b-seed1.json" and path.parent.name == "lib"
    assert json.loads(path.read_text())["provenance"]["splits"] == questions.fingerprint
    frame = results.read("genesets", tmp_path)
    assert {"low", "high", "tier"} < set(frame) and "terms" not in frame
    values = benchmark.per_term("lib", folder=tmp_path)
    assert list(values) == ["a b", "popularity"] and len(values) == len(questions.terms)
    assert values["popularity"].to_numpy() == pytest.approx(terms["AUROC"].to_numpy(), abs=1e-4, nan_ok=True)
    other = set_splits.splits(sets, seed=7)
    benchmark.store("other", 0, other, rows, terms, tmp_path)
    with pytest.raises(ValueError, match="different splits"):
        benchmark.per_term("lib", folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="no stored results"):
        benchmark.per_term("nothing", folder=tmp_path)


# --- real libraries -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(local_data):
    """The six libraries with the symbols of the files."""
    found = {}
    for name in LIBRARIES:
        table = datasets.read("enrichr_rummageo_benchmark", name)
        found[name] = GeneSets.from_lists(table["genes"], table["name"], name)
    return found


@pytest.mark.parametrize("name", LIBRARIES)
def test_popularity_reaches_what_was_measured(real, name, monkeypatch):
    monkeypatch.setattr(set_statistics, "DRAWS", 2)
    sets, (within, elsewhere) = real[name], LIBRARIES[name]
    # with few terms, one draw of splits moves the median by up to .005
    questions = set_splits.splits(sets, 20 if len(sets) < 1000 else 3)
    rows, _ = benchmark.evaluate(
        set_rivals.popularity_within(sets, sets.genes), questions, sets.genes, cluster=False
    )
    assert rows[0]["value"] == pytest.approx(within, abs=0.005)
    others = genesets.concatenate([x for other, x in real.items() if other != name])
    predict = set_rivals.popularity(others, sets.genes, equal=True)
    rows, _ = benchmark.evaluate(predict, questions, sets.genes, cluster=False)
    assert rows[0]["value"] == pytest.approx(elsewhere, abs=0.005)
