"""The ablations: the paper's grid, one change at a time; statistics as others compute them; stored runs."""

import csv
import dataclasses
import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from txfm_lite import ablate, ablate_data, monitoring, results, training
from txfm_lite.evaluate import ablations, scores
from txfm_lite.txfm import TxFM

TINY = ablate.Size(
    n_genes=200, n_revealed=32, widths=(8, 16, 24), n_components=4, decoder_blocks=1, batch_size=8, samples=64
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("ablations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TXFM_LITE_CACHE", str(path / "cache"))
        return ablate_data.prepare(path / "prepared", "simulated", TINY.n_genes)


@pytest.fixture(scope="module")
def stored(prepared, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    for setting in ablate.choose(names=["K / 2"], size=TINY):
        ablate.run(setting, 0, TINY, prepared, path, path / "results", accelerator="cpu")
    return path


# ---------------------------------------------------------------- the grid


def test_every_row_of_the_papers_table_is_run_or_its_absence_explained():
    printed = results.read("published/kenyondean2026/table-5")
    assert set(ablate.PANELS.values()) == set(printed["dataset"])
    rows = printed[~printed["default"]].groupby("dataset")["model"].agg(set)
    ours = {(ablate.PANELS[s.panel], s.paper) for s in ablate.settings() if s.paper}
    theirs = {(panel, model) for panel, models in rows.items() for model in models}
    assert ours == {row for row in theirs if row[1] not in ablate.NOT_RUN} and len(ours) == 23
    assert set(ablate.NOT_RUN) <= {model for _, model in theirs}


def test_the_grid_is_that_of_the_table_as_it_was_typed(local_data):
    table = local_data.parent / "published" / "txfm_table_5_ablations.csv"
    if not table.exists():
        pytest.skip(f"{table} is not here")
    with table.open() as file:
        rows = [r for r in csv.DictReader(file) if r["is_default"] == "0"]
    letters = pd.Series([r["ablation"][0] for r in rows]).value_counts()
    for letter in ablate.PANELS:
        known = [s for s in ablate.settings() if s.panel == letter and s.paper]
        assert len(known) + (len(ablate.NOT_RUN) if letter == "h" else 0) == letters[letter]


def test_one_change_at_a_time():
    size = ablate.SIZES["full"]
    default = dataclasses.asdict(ablate.config(ablate.DEFAULT, size, 5000))
    for setting in ablate.settings()[1:]:
        config = dataclasses.asdict(ablate.config(setting, size, 5000))
        changed = {key for key in default if default[key] != config[key]}
        assert changed == set(setting.model)
        assert (setting.data, setting.compute) == ("curated", 1) or (not changed and setting.panel == "h")
        assert (changed or setting.data != "curated") and (len(changed) <= 1 or setting.panel == "g")
    names = [ablate.where(s, 0) for s in ablate.settings()]
    assert len(set(names)) == len(names) and names[0] == "ablations/default/default-seed0"
    order = [s.panel for s in ablate.settings()[1:]]
    assert list(dict.fromkeys(order)) == list(ablate.PANELS)


def test_a_part_of_the_grid_can_be_chosen():
    names = [s.name for s in ablate.choose(panels=["a"], names=["linear"])]
    assert names == ["default", "MSE", "smooth L1", "negative binomial", "linear"]
    assert len(ablate.choose()) == len(ablate.settings())
    with pytest.raises(ValueError, match="no 'z' among the ablations; there are a, f, b, c, h, d, e, g"):
        ablate.choose(panels=["z"])
    with pytest.raises(ValueError, match="no 'huber' among the ablations; there are default, MSE"):
        ablate.choose(names=["huber"])
    with pytest.raises(ValueError, match="a batch of samples at least"):
        ablate.Size(samples=3)


# ---------------------------------------------------------------- the data


def test_what_is_scored_was_not_trained_on(prepared):
    whole, info = prepared.whole, prepared.info
    assert info["unseen"] == ["simulated_g"]
    trained = {d["name"] for d in whole.datasets}
    assert not trained & {*info["unseen"], *info["cell_types"]} and info["screen"] in trained
    unseen = prepared.study(f"{info['screen']}, unseen batches")
    code = [d["name"] for d in whole.datasets].index(info["screen"])
    batches = {whole.categories["batch"][b].split(":")[1] for b in whole.batch[whole.dataset == code]}
    assert len(batches) == 1 and not batches & set(unseen.batches)


def test_variants_differ_in_the_screens_cells_alone(prepared, tmp_path):
    sizes, looks = {}, set()
    for variant in ablate_data.VARIANTS:
        corpus = prepared.corpus(variant, tmp_path)
        screen = [d["n_samples"] for d in corpus.datasets if d["name"] == prepared.info["screen"]]
        sizes[variant] = screen[0] if screen else 0
        rows = corpus.rows("validation")
        looks.add((corpus.n_genes, tuple(rows), corpus.name[rows].tobytes(), len(corpus) - sizes[variant]))
        assert np.isin(rows, corpus.rows("train")).sum() == 0
    assert len(looks) == 1  # the same genes, validation samples and other studies
    assert 0 == sizes["none"] < sizes["controls"] < sizes["curated"] < sizes["full"]
    assert sizes["random"] == sizes["curated"]
    with pytest.raises(ValueError, match="no training data are called 'all'; there are none, controls"):
        prepared.corpus("all", tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing is prepared here"):
        ablate_data.Prepared.open(tmp_path)
    with pytest.raises(ValueError, match="holds simulated data of 200 genes: name another folder"):
        ablate_data.prepare(prepared.path, "simulated", 300)


# ---------------------------------------------------------------- runs


def test_what_is_stored_is_read_not_run_again(stored, prepared):
    rows = results.read("ablations", stored / "results")
    assert set(rows["model"]) == {"default", "K / 2"} and set(rows["panel"]) == {"default", "c"}
    assert set(scores.FIELDS) <= set(rows) and rows["value"].between(-1, 1).all()
    file = stored / "results" / "ablations" / "c-genes-shown" / "k-2-seed0.json"
    before = file.read_bytes()
    setting = ablate.choose(names=["K / 2"], size=TINY)[1]
    ablate.run(setting, 0, TINY, prepared, stored / "nowhere", stored / "results")
    assert file.read_bytes() == before and not (stored / "nowhere").exists()
    looks = ablations.curves("ablations", stored / "results")
    assert (looks.dropna(subset="train_loss")["gradient"] > 0).all() and set(looks["panel"]) == {
        "default",
        "c",
    }
    content = json.loads(file.read_text())  # every perturbation's p, from which the share follows
    share = rows[(rows["model"] == "K / 2") & (rows["metric"] == "p.cst permuted")].set_index("dataset")[
        "value"
    ]
    for screen, p in content["p"].items():
        assert np.mean(np.array(list(p.values())) <= 0.01) == pytest.approx(share[screen])


def test_a_run_that_diverged_is_scored_as_it_was_before(stored, prepared, tmp_path, monkeypatch):
    kept = stored / "default" / "default-seed0"

    def breaks(corpus, shape, schedule, path, **_):
        if at > 4:
            shutil.copytree(kept / "snapshots" / "step-4", path / "snapshots" / "step-4")
        path.mkdir(parents=True, exist_ok=True)
        shutil.copy(kept / "history.csv", path / "history.csv")
        raise monitoring.Diverged("the loss is nan", at)

    monkeypatch.setattr(training, "fit", breaks)
    for at, expected in ((5, True), (1, False)):
        model, history, diverged = ablate.train(ablate.DEFAULT, 0, TINY, prepared, tmp_path / f"{at}")
        assert diverged == at and len(history) > 2 and (model is not None) == expected
    rows, p = ablations.score(None, "ReLU", prepared, prepared.corpus("none", tmp_path), 0)
    assert len(rows) == 1 and np.isnan(rows[0]["value"]) and p == {}


def test_the_mean_profile_explains_nothing(prepared, tmp_path):
    corpus = prepared.corpus("none", tmp_path)
    for preprocessing in ("library_log1p", "log1p"):
        shape = ablate.config(
            ablate.Setting("b", "x", model={"preprocessing": preprocessing}), TINY, corpus.n_genes
        )
        model = TxFM(shape, corpus.genes.tolist())
        library = shape.library_size if preprocessing == "library_log1p" else None
        model.start_from_profile(torch.from_numpy(training.mean_profile(corpus, library)).float())
        torch.nn.init.zeros_(model.gene_head.weight)
        share = ablations.explained(model, corpus, 0)["value"]
        assert abs(share) < 0.02 if library else share < 0.9  # raw counts know the depth but not the profile


# ---------------------------------------------------------------- statistics


def test_two_proportions_are_those_of_statsmodels():
    from statsmodels.stats.proportion import proportions_ztest

    for k, n, m_hits, m in ((12, 25, 5, 25), (3, 27, 20, 52), (7.5, 25, 8.25, 25)):
        assert ablations.two_proportions(k, n, m_hits, m) == pytest.approx(
            proportions_ztest([k, m_hits], [n, m])
        )
    assert ablations.two_proportions(25, 25, 25, 25) == (0.0, 1.0)


def test_the_interval_over_seeds_is_welchs():
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 0.02, 3), rng.normal(0.2, 0.05, 5)
    other = CompareMeans(DescrStatsW(a), DescrStatsW(b))
    difference, low, high, p = ablations.over_seeds(a, b)
    assert difference == pytest.approx(a.mean() - b.mean())
    assert (low, high) == pytest.approx(other.tconfint_diff(usevar="unequal"))
    assert p == pytest.approx(other.ttest_ind(usevar="unequal")[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ablations.over_seeds(np.full(3, 0.28), np.array([0.32, 0.28, 0.24]))[0] == pytest.approx(0)
    assert ablations.over_seeds(np.ones(3), np.ones(3)) == (0, 0, 0, 1)
    assert ablations.over_seeds(np.ones(3), np.zeros(3)) == (1, 1, 1, 0)
    assert np.isnan(ablations.over_seeds(a[:1], b)[1])


def fabricated(
    levels: dict[tuple[str, str, str], float], seeds: int = 4, spread: float = 0.004
) -> pd.DataFrame:
    """Rows of the three scores; `levels` are the settings' differences from the default."""
    rows = []
    for (panel, model, paper), level in {("default", "default", ""): 0.0, **levels}.items():
        rng = np.random.default_rng(1)  # the same noise for all: where levels are equal, so is everything
        for seed in range(seeds):
            of = [("simulated_g", "p.cst permuted", ""), ("relationships", "recall", "codebook")]
            for dataset, metric, variant in [*of, ("relationships", "recall", "decoder")]:
                part = [scores.partial(metric, 0.4 + level + spread * rng.normal(), variant=variant, n=200)]
                row = scores.complete(part, dataset, model, seed)[0]
                rows.append(row | {"panel": panel, "paper": paper, "unseen": ["simulated_g"]})
    return pd.DataFrame(rows)


def test_the_table_says_which_directions_hold():
    from statsmodels.stats.multitest import multipletests

    rows = fabricated({
        ("a", "MSE", "MSE"): -0.15, ("c", "K / 4", "512"): 0.1, ("e", "linear", "linear"): 0.0,
        ("h", "random cells instead", ""): -0.2,
    })  # fmt: skip
    table = ablations.table(rows).sort_index()
    assert table.loc[("a", "MSE"), "verdict"].eq("direction holds").all()
    assert table.loc[("c", "K / 4"), "verdict"].eq("contradicted").all()
    assert table.loc[("e", "linear"), "verdict"].eq("not at our scale").all()
    assert table.loc[("h", "random cells instead"), "verdict"].eq("not in the paper").all()
    assert table.loc[("a", "MSE", "perturbations"), "paper"] == pytest.approx(0.272 - 0.373)
    assert table.loc[("a", "MSE", "decoder"), "paper significant"]
    for _, part in table.groupby("score"):  # corrected within a score
        assert part["q"].to_numpy() == pytest.approx(multipletests(part["p"], method="fdr_bh")[1])


def test_screens_that_trained_do_not_count():
    rows = fabricated({("a", "MSE", "MSE"): -0.15})
    other = rows[rows["metric"] == "p.cst permuted"].assign(dataset="trained", value=0.9)
    found = [ablations.compare(r, "p.cst permuted", test="z") for r in (rows, pd.concat([rows, other]))]
    pd.testing.assert_frame_equal(*found)
    assert ablations.compare(rows[rows["model"] != "default"], "recall", "codebook").empty


@pytest.mark.parametrize(
    "values, verdict",
    [
        ((-0.1, -0.05, -0.08, -0.02), "direction holds"),
        ((-0.1, 0.05, 0.02, 0.08), "contradicted"),
        ((-0.1, -0.05, -0.11, 0.01), "not at our scale"),
        ((-0.1, -0.05, np.nan, np.nan), "not at our scale"),
        ((0.0, -0.05, -0.08, -0.02), "not in the paper"),
        ((np.nan, -0.05, -0.08, -0.02), "not in the paper"),
    ],
)
def test_agreement(values, verdict):
    assert ablations.agreement(*values) == verdict


def test_few_cells_of_each_perturbation_and_all_controls():
    labels = np.array(["a"] * 90 + ["b"] * 20 + ["c"] * 70)
    controls = labels == "c"
    rows = ablations.few(labels, controls, seed=0)
    assert pd.Series(labels[rows]).value_counts().to_dict() == {"c": 70, "a": ablations.CELLS, "b": 20}
    assert not np.array_equal(rows, ablations.few(labels, controls, seed=1))
