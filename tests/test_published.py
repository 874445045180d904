"""The numbers in print: complete, as fractions, in agreement with each other where the paper derives them."""

import json

import numpy as np
import pytest

from txfm_lite import results
from txfm_lite.evaluate import scores, tables

SIX = ["iLISI", "lin", "knn", "p.cst", "bmdb", "inv"]
TABLES = ["table-3", "table-4", "table-5", "table-7", "tables-9-11"]


def read(table):
    return results.read(f"published/kenyondean2026/{table}")


@pytest.mark.parametrize("table", TABLES)
def test_published_rows_are_scores_like_ours(table):
    rows = read(table)
    assert set(scores.FIELDS) | {"sd", "source", "table"} <= set(rows.columns)
    assert (rows["source"] == "kenyondean2026").all() and not rows.duplicated(
        ["dataset", "model", "metric", "variant"]
    ).any()
    fractions = rows[rows["metric"] != "rank"]
    assert fractions["value"].between(0, 1).all() and rows["sd"].dropna().between(0, 0.2).all()


def test_the_perturbation_means_are_those_of_the_six_scores():
    rows = read("tables-9-11")
    wide = rows.pivot(index=["dataset", "model"], columns="metric", values="value")
    assert wide.shape == (81, 7) and wide.notna().all().all()
    residual = (wide["avg"] - wide[SIX].mean(axis=1)).drop(("HepG2", "STATE-SE"))  # off by 0.0023 in print
    assert residual.between(-0.0001, 0.0018).all()  # iLISI is cut to two decimals
    fitted = read("table-3").set_index(["dataset", "model"])["value"]
    assert np.allclose(wide["avg"].loc[fitted.index], fitted)


def test_the_cell_type_means_are_those_of_five_datasets():
    ours = tables.numbers(read("table-7"))
    printed = read("table-4")
    assert len(ours) == printed["model"].nunique() == 11
    for row in printed[printed["metric"] != "rank"].itertuples():
        mean = ours.loc[row.model, (tables.label(row.metric, row.variant), "mean")]
        assert mean == pytest.approx(row.value, abs=0.00051), (row.model, row.metric)


def test_scrambled_rows_are_the_null_in_print():
    rows = read("tables-9-11")
    scrambled = rows[(rows["model"] == "scrambled") & rows["metric"].isin(SIX[1:])]
    assert len(scrambled) == 15 and (scrambled["value"] == scrambled["null"]).all()
    found = tables.numbers(rows, SIX)
    assert found.loc["scrambled", ("chance-corrected mean", "")] == 0
    assert found.loc["TxFM-B", ("mean", "")] > found.loc["PCA (corpus)", ("mean", "")]


def test_the_default_of_each_ablation_is_one_model():
    rows = read("table-5")
    default = rows[rows["default"]]
    assert default["dataset"].nunique() == 8 and not default["significant"].any()
    assert default.groupby(["metric", "variant"])["value"].nunique().eq(1).all()


def test_a_table_with_deviations_in_print_shows_them():
    text = tables.table(read("table-7"), ["NMI (Louvain)"], apart=True).to_string()
    assert "0.836\xa0±\xa00.007" in text  # scTab, pan-immune


def test_published_files_hold_published_numbers_only():
    folder = results.directory() / "published"
    gsfm = ["figure-15-may", "figure-29-may"]
    assert sorted(path.stem for path in folder.rglob("*.json")) == sorted([*TABLES, *gsfm])
    for path in folder.rglob("*.json"):
        assert json.loads(path.read_text())["provenance"]["source"] == path.parent.name


def test_gene_set_figures_are_whole():
    late = results.read("published/clarke2026/figure-29-may")
    wide = late.pivot(index="model", columns="dataset", values="value")  # a model twice would be an error
    assert wide.shape == (13, 4) and wide.notna().all(axis=None)
    assert (wide.loc["random"] == 0.5).all()
    assert wide.loc["GSFM, Rummagene", "KEGG_2021_Human"] == 0.981
    boxes = late.dropna(subset=["q1", "q3"])
    assert len(boxes) == 5 and (boxes["q1"] < boxes["value"]).all() and (boxes["value"] < boxes["q3"]).all()
    early = results.read("published/clarke2026/figure-15-may")
    early = early.pivot(index="model", columns="dataset", values="value")
    change = (wide.loc[early.index] - early).loc["GSFM, Rummagene"].round(3)
    assert change.to_dict() == {
        "ChEA_2022": -0.005, "GO_Biological_Process_2023": 0.010, "GWAS_Catalog_2023": 0.006,
        "KEGG_2021_Human": 0.013,
    }  # fmt: skip
