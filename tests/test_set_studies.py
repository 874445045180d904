"""Studies that train models: what is stored, that nothing runs twice, what curves say where it is known."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from txfm_lite import genesets, results, set_rivals, set_studies
from txfm_lite.evaluate import genesets as benchmark
from txfm_lite.evaluate import set_splits
from txfm_lite.gsfm_training import GSFMTrainConfig


@pytest.fixture(scope="module")
def known():
    """Sets of the same modules: to train on, and to test on."""
    train, tests, _ = set_studies.stand_ins(1)
    return train, {"lib": tests["simulated A"]}, np.sort(train.genes)


@pytest.fixture
def recipe(tmp_path):
    schedule = GSFMTrainConfig(epochs=2, batch_size=32, n_validation=40)
    return set_studies.Recipe(tmp_path / "runs", {"d_model": 8}, schedule, {"accelerator": "cpu"})


def provenance(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["provenance"]


def test_size_uses_nested_parts_and_as_many_steps(known, recipe, tmp_path):
    train, tests, universe = known
    set_studies.store_size(recipe, train, tests, universe, (50, 10**9), (0,), ("DAE", "kNN"), tmp_path)
    rows = results.read("genesets-size", tmp_path)
    auroc = rows[rows["metric"] == "AUROC"].pivot(index="model", columns="variant", values="value")
    assert set(auroc.columns) == {"50", "460"} and set(auroc.index) == {"DAE", "kNN"}
    assert auroc.loc["kNN", "460"] > auroc.loc["kNN", "50"] > 0.5  # neighbours: more sets, nearer ones
    epochs = {n: provenance(tmp_path, f"genesets-size/dae-{n}-seed0")["epochs"] for n in (50, 460)}
    assert epochs == {50: 2 * set_studies.MORE, 460: 2}
    part = train[np.sort(np.random.default_rng([0, 80]).permutation(len(train))[:50])]
    own, _ = benchmark.evaluate(
        set_rivals.neighbours(part, universe), set_splits.splits(tests["lib"]), universe
    )
    assert auroc.loc["kNN", "50"] == own[0]["value"]


def test_what_is_stored_is_not_run_again(known, recipe, tmp_path, monkeypatch):
    train, tests, universe = known
    go = lambda: set_studies.store_size(recipe, train, tests, universe, (), (0,), ("kNN",), tmp_path)  # noqa: E731
    go()
    monkeypatch.setattr(set_rivals, "neighbours", None)
    go()


def test_models_of_two_recipes_are_not_mixed(known, recipe, tmp_path):
    train, tests, universe = known
    wider = dataclasses.replace(recipe, fields={"d_model": 12})
    choice = {"EPDAE": set_studies.CHOICES["EPDAE"]}
    go = (
        lambda r: set_studies.store_size(r, train, tests, universe, (), models=("DAE",), folder=tmp_path),
        lambda r: set_studies.store_choices(r, train, universe, choice, folder=tmp_path),
    )
    for store in go:
        store(recipe)
        store(recipe)
        with pytest.raises(ValueError, match="'d_model': 8.* there and .*'d_model': 12.* here"):
            store(wider)


def test_stored_results_are_of_the_recipe_that_is_offered(tmp_path):
    for study, name in (("size", "dae-10000"), ("leakage", "jaccard-0.4-dae-all"), ("choices", "edae")):
        offered = set_studies.recipe(study, tmp_path)
        fields = offered.fields | ({"architecture": "EDAE"} if name == "edae" else {})
        facts = (
            {"fields": fields} if study == "size" else {"fields": fields, "epochs": offered.schedule.epochs}
        )
        assert results.stored(f"genesets-{study}/{name}-seed0", **facts)
    assert set_studies.recipe("size", tmp_path, d_model=256, epochs=3).fields["d_model"] == 256


def test_a_copy_of_the_test_helps_until_it_is_taken_out(known, recipe, tmp_path):
    train, tests, universe = known
    leaked = genesets.concatenate([train[:200], tests["lib"]])
    set_studies.store_leakage(
        recipe, leaked, tests, universe, (1.0, 0.3), models=("kNN",), tier="all", folder=tmp_path
    )
    rows = results.read("genesets-leakage", tmp_path)
    auroc = rows[rows["metric"] == "AUROC"].pivot(index="model", columns="variant", values="value")
    assert auroc.loc["kNN (all), as many at random", "0.3"] > auroc.loc["kNN (all)", "0.3"]
    n = rows.groupby(["model", "variant"])["n_train"].first()
    assert n["kNN (all)", "1.0"] == 200 > n["kNN (all)", "0.3"]
    assert n["kNN (all), as many at random", "0.3"] == n["kNN (all)", "0.3"]
    far = next(iter(set_studies.stand_ins(9)[1].values()))  # of other modules: nothing to take out
    set_studies.store_leakage(recipe, train, {"far": far}, universe, (1.0,), (5,), ("kNN",), folder=tmp_path)
    rows = results.read("genesets-leakage", tmp_path).query("seed == 5")
    assert set(rows["model"]) == {"kNN"} and set(rows["n_train"]) == {len(train)}


def test_time_shows_the_old_version_only(known, recipe, tmp_path):
    train, tests, universe = known
    ((old, new),) = set_studies.stand_ins(1)[2].values()
    assert (old.csr().multiply(new.csr()) != old.csr()).nnz == 0  # the old version is part of the new one
    fits = {"SVD": lambda: set_rivals.svd(train, universe)}
    set_studies.store_time(fits, {"lib, old and new": (old, new)}, universe, 3, tmp_path, n_train=460)
    rows = results.read("genesets-time", tmp_path)
    rows = rows[rows["metric"] == "AUROC"].set_index("model")
    assert set(rows.index) == {"SVD", "popularity in the old version"}
    assert set(rows["dataset"]) == {"lib, old and new"} and set(rows["seed"]) == {3}
    asked = set_splits.time_split(old, new)
    own, _ = benchmark.evaluate(set_rivals.popularity(old, universe), asked, universe)
    assert rows.loc["popularity in the old version", "value"] == own[0]["value"]


def test_choices_are_judged_on_held_out_training_sets(known, recipe, tmp_path):
    train, _, universe = known
    names = (
        "half hidden, predict the hidden (published)",
        "half hidden, predict the hidden, unseen (published)",
        "EPDAE",
    )
    choices = {name: set_studies.CHOICES[name] for name in names}
    set_studies.store_choices(recipe, train, universe, choices, (0,), tmp_path)
    rows = results.read("genesets-choices", tmp_path)
    dae = rows[rows["model"] == "DAE"].pivot(index="metric", columns="variant", values="value")
    assert dae[names[0]].equals(dae[names[1]])  # as published, "unseen" changes nothing
    popular = rows[rows["model"] == "popularity"].groupby("metric")["value"]
    assert (popular.nunique() == 1).all() and len(popular) == 2  # the same sets are held out
    assert set(rows["dataset"]) == {"held-out training sets"}
    assert set(rows["n"]) == {40, 18}  # 18 have 20 genes or more
    assert set(rows["model"]) == {"DAE", "EPDAE", "popularity"}
    assert set(rows.loc[rows["model"] == "EPDAE", "variant"]) == {set_studies.PUBLISHED}


def test_few_genes_are_shown(known):
    sets = known[0]
    sets, given = sets[sets.sizes >= 20], []
    member = (sets.csr() > 0).toarray()

    def knows(visible):
        given.append(visible)
        return member + 2 * visible.toarray()  # those given do not count

    assert set_studies.few_shown(knows, sets) == 1 and set_studies.few_shown(lambda x: -knows(x), sets) == 0
    assert (np.diff(given[0].indptr) == 10).all() and (given[0].toarray() <= member).all()


@pytest.mark.parametrize("choice", set_studies.CHOICES)
def test_every_choice_is_one_of_model_or_schedule(choice):
    from txfm_lite.gsfm import GSFMConfig

    fields = set_studies.CHOICES[choice]
    shape, schedule = set_studies.divided(fields)
    assert GSFMConfig(100, **shape) and GSFMTrainConfig(**schedule) and shape | schedule == fields


def test_growth_is_a_line_with_its_prediction_interval():
    n, y = [100, 1000, 10_000, 100, 1000, 10_000], [0.60, 0.69, 0.82, 0.62, 0.71, 0.80]
    found, x = set_studies.growth(n, y, 10**6), np.log10(n)
    line = stats.linregress(x, y)
    assert found["slope"] == pytest.approx(line.slope)
    assert found["value"] == pytest.approx(line.intercept + 6 * line.slope)
    s = np.sqrt(np.sum((y - line.intercept - line.slope * x) ** 2) / 4)
    width = stats.t.ppf(0.975, 4) * np.sqrt(s**2 + s**2 / 6 + (line.stderr * (6 - x.mean())) ** 2)
    assert found["high"] - found["value"] == pytest.approx(width)
    assert found["value"] - found["low"] == pytest.approx(width)
    with pytest.raises(ValueError, match="2 different sizes"):
        set_studies.growth([1, 10, 10], [0, 1, 2], 100)


def test_an_unknown_model_is_told(known, recipe):
    train, _, universe = known
    with pytest.raises(ValueError, match="'GPT'.*DAE, kNN"):
        recipe.predictor("GPT", train, universe, "x", 0)
