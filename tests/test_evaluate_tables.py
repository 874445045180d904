"""Rows become the table that a paper prints: by hand, against scipy, and with what must never be averaged."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from txfm_lite.evaluate import scores, tables

LEVELS = {"TxFM": 0.8, "PCA": 0.7, "scVI": 0.75, "scrambled": 0.1, "depth": 0.9}


def rows(datasets=("a", "b"), seeds=3):
    rng = np.random.default_rng(0)
    found = []
    for dataset in datasets:
        for model, level in LEVELS.items():
            for seed in range(seeds):
                part = [
                    scores.partial("NMI", level + rng.normal(0, 0.01), null=0.1),
                    scores.partial("recall", level / 2, variant="CORUM", null=0.05, ceiling=0.55),
                ]
                found += scores.complete(part, dataset, model, seed)
    return pd.DataFrame(found)


def marks_of(table):
    _, (function, *_), _ = table.export()["apply"][0]
    return function(None)


def test_means_deviations_and_the_correction_for_chance():
    given = rows(("a",))
    found = tables.numbers(given)
    for model in LEVELS:
        values = given.query("model == @model and metric == 'NMI'")["value"]
        assert found.loc[model, ("NMI", "mean")] == pytest.approx(np.mean(values))
        assert found.loc[model, ("NMI", "sd")] == pytest.approx(stats.tstd(values))
        by_hand = [(values.mean() - 0.1) / 0.9, (LEVELS[model] / 2 - 0.05) / 0.5]
        assert found.loc[model, ("chance-corrected mean", "")] == pytest.approx(np.mean(by_hand))
        assert found.loc[model, ("mean", "")] == pytest.approx((values.mean() + LEVELS[model] / 2) / 2)
    assert found.columns.get_level_values(0).unique().tolist()[:2] == ["NMI", "recall (CORUM)"]


def test_several_datasets_are_averaged_or_stand_apart():
    given = rows()
    together, apart = tables.numbers(given, ["NMI"]), tables.numbers(given, ["NMI"], apart=True)
    assert list(apart.columns.get_level_values(0).unique()[:2]) == ["a", "b"]
    assert together["NMI", "mean"].to_numpy() == pytest.approx((apart["a", "mean"] + apart["b", "mean"]) / 2)
    assert together["NMI", "sd"].to_numpy() == pytest.approx(np.hypot(apart["a", "sd"], apart["b", "sd"]) / 2)
    names = tables.numbers(given, apart=True).columns.get_level_values(0)
    assert {"a: NMI", "b: recall (CORUM)"} <= set(names)


def test_ranks_are_those_of_scipy_and_controls_have_none():
    lines = tables.per_dataset(rows()).query("score == 'NMI' and dataset == 'b'").set_index("model")
    models = ["TxFM", "PCA", "scVI"]
    assert lines.loc[models, "rank"].to_list() == stats.rankdata(-lines.loc[models, "mean"]).tolist()
    assert lines.loc[["scrambled", "depth"], "rank"].isna().all()
    assert tables.numbers(rows()).index.tolist() == ["TxFM", "scVI", "PCA", "depth", "scrambled"]


def test_where_low_is_good_low_ranks_first_and_is_no_part_of_a_plain_mean():
    given = rows()
    given.loc[given["metric"] == "NMI", ["null", "ceiling"]] = [1.0, 0.0]
    found = tables.numbers(given, ["NMI"], apart=True)
    assert found.index[:3].tolist() == ["PCA", "scVI", "TxFM"]
    assert ("mean", "") not in found and found.loc["PCA", ("chance-corrected mean", "")] == pytest.approx(
        0.3, abs=0.02
    )
    marks = marks_of(tables.table(given, ["NMI"], apart=True))
    assert "bold" in marks.loc["PCA", "a"] and "underline" in marks.loc["scVI", "a"]


def test_a_model_that_lacks_a_score_gets_no_mean():
    given = rows()
    lacking = given[~((given["model"] == "TxFM") & (given["dataset"] == "b"))]
    found = tables.numbers(lacking)
    assert found.loc["TxFM"].isna().all() and found.loc["PCA"].drop(("mean rank", "")).notna().all()
    assert found.index.tolist()[2] == "TxFM"  # behind the models that have all
    undefined = given.copy()
    undefined.loc[(undefined["dataset"] == "b") & (undefined["metric"] == "NMI"), "value"] = np.nan
    alone = tables.numbers(given[given["dataset"] == "a"], ["NMI"])["NMI", "mean"]
    assert tables.numbers(undefined, ["NMI"])["NMI", "mean"].equals(alone)


def test_without_nulls_nothing_is_corrected_and_one_seed_has_no_deviation():
    given = rows(seeds=1).assign(null=np.nan)
    found = tables.numbers(given)
    assert ("chance-corrected mean", "") not in found and found["NMI", "sd"].isna().all()
    assert "±" not in tables.table(given).to_string().replace("mean ± sd", "")
    at_ceiling = rows().assign(null=1.0, ceiling=1.0)
    assert ("chance-corrected mean", "") not in tables.numbers(at_ceiling)


def test_the_printed_table_marks_best_and_second_not_by_colour():
    html = tables.table(rows(), caption="Two studies.").to_html()
    assert "font-weight: bold" in html and "text-decoration: underline" in html and "color" not in html
    assert (
        "Two studies. Seeds: 3, mean ± sd" in html
        and "0.400\xa0±\xa00.000" in html
        and 'class="dataframe"' in html
    )
    marks = marks_of(tables.table(rows()))
    assert marks.loc["TxFM"].str.contains("bold").all() and marks.loc["scVI"].str.contains("underline").all()
    assert (marks.loc["depth"] == "font-style: italic").all()  # the highest values, and not ranked


def test_what_cannot_be_a_table_is_refused():
    with pytest.raises(ValueError, match=r"no score is called 'ARI'; there are NMI, recall \(CORUM\)"):
        tables.numbers(rows(), ["NMI", "ARI"])
    with pytest.raises(ValueError, match="30 scores occur twice, for example .*TxFM"):
        tables.numbers(pd.concat([rows(("a",)), rows(("a",))]))
