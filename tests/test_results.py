"""Stored results: written whole, read as one table, never without their provenance."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest

from txfm_lite import results

ROWS = [dict(dataset="a", metric="m", value=0.5), dict(dataset="b", metric="m", value=1 / 3)]


def test_what_is_written_is_read(tmp_path):
    facts = results.provenance(seed=3)
    assert not results.stored("study/x", tmp_path)
    results.write("study/x", ROWS, facts, tmp_path)
    results.write("study/panel/y", ROWS[:1], {**facts, "seed": 4}, tmp_path)
    assert results.stored("study/x", tmp_path) and not list(tmp_path.rglob("*.partial"))
    for field, value in json.loads((tmp_path / "study" / "x.json").read_text())["provenance"].items():
        assert results.stored("study/x", tmp_path, **{field: value})
        with pytest.raises(ValueError, match=f"x.json: {field} is .* there and 'other' here"):
            results.stored("study/x", tmp_path, **{field: "other"})
    table = results.read("study", tmp_path)
    assert table["run"].tolist() == ["panel/y", "x", "x"]
    assert table["seed"].tolist() == [4, 3, 3]
    assert table["value"].tolist() == [0.5, 0.5, 1 / 3]
    assert {"commit", "date", "device", "threads", "versions"} <= set(table)
    one = results.read("study/panel/y", tmp_path)
    assert one["run"].tolist() == ["y"] and one["value"].tolist() == [0.5]


def test_rows_that_cannot_be_one_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match="same fields"):
        results.write("s/x", [*ROWS, dict(dataset="c")], {}, tmp_path)
    with pytest.raises(ValueError, match="same fields"):
        results.write("s/x", [], {}, tmp_path)
    with pytest.raises(ValueError, match="metric is in the rows and in the provenance"):
        results.write("s/x", ROWS, {"metric": "n"}, tmp_path)
    with pytest.raises(FileNotFoundError, match="no stored results"):
        results.read("nothing", tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_every_stored_run_says_where_it_comes_from():
    files = list(results.directory().rglob("*.json"))
    published = results.directory() / "published"  # numbers in print: from which work, and where in it
    for file in files:
        content = json.loads(file.read_text())
        expected = (
            {"source", "table"} if published in file.parents else {"commit", "date", "device", "versions"}
        )
        assert expected <= set(content["provenance"]), file
        assert len(pd.DataFrame(content["rows"])), file


def test_a_fingerprint_follows_the_source_files_the_size_and_a_readers_own_counts():
    def study(digest, n=3):
        adata = anndata.AnnData(np.ones((n, 2), np.float32))
        adata.uns["source"] = {"dataset": "d", "part": "main", "files": {"f": digest}}
        return results.fingerprint(adata)

    assert study("1") == study("1") and study("1").startswith("d (main) ") and study("1").endswith("3 x 2")
    assert len({study("1"), study("2"), study("1", n=4)}) == 3

    own = anndata.AnnData(np.arange(6, dtype=np.float32).reshape(3, 2))
    other = own.copy()
    other.X[0, 0] = 7
    assert results.fingerprint(own) == results.fingerprint(own.copy()) != results.fingerprint(other)
    assert results.fingerprint("as it is") == "as it is"


def test_an_undefined_value_comes_back_undefined(tmp_path):
    rows = [{"metric": "a", "value": float("nan")}, {"metric": "b", "value": 0.5}]
    file = results.write("study/run", rows, {"commit": "x"}, tmp_path)
    assert "NaN" not in file.read_text()  # which is not JSON
    back = results.read("study", tmp_path)
    assert np.isnan(back["value"][0]) and back["value"][1] == 0.5
