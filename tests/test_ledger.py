"""The claims ledger: verdicts follow from stored results by rule; what is written agrees with them."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from txfm_lite import ledger, results
from txfm_lite.evaluate import scores

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import ledger_page  # noqa: E402

ENTRY = dict(id="a-1", source="s", statement="A.", published="p", experiment="notebooks/x", rule="r")
COMPARE = dict(
    study="trial", ours=dict(model="A", metric="m"), against=dict(model="B"), by="ratio", margin=1.2
)


def claim(**changes):
    compare = COMPARE | changes.pop("compare", {})
    return ledger.Claim(**ENTRY | dict(verdict="not run", reason="waits", compare=compare) | changes)


def rows(a=1.3, b=1.0, noise=0.01, datasets=("x", "y"), seeds=3, **fields):
    rng = np.random.default_rng(0)
    found = []
    for dataset in datasets:
        for model, level in (("A", a), ("B", b)):
            for seed in range(seeds):
                part = [scores.partial("m", level + noise * rng.normal(), null=0.5)]
                found += scores.complete(part, dataset, model, seed)
    return pd.DataFrame(found).assign(**fields)


# ---------------------------------------------------------------- what stands in the book


def test_written_verdicts_are_those_of_their_rules():
    assert ledger.faults(ledger.read()) == []


def test_judged_claims_link_to_a_page_and_cite_a_work():
    keys = set(re.findall(r"(?m)^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text()))
    for one in ledger.read():
        assert one.source in keys, one.id
        assert one.verdict == "not run" or (ROOT / f"{one.experiment}.py").exists(), one.id


def test_every_claim_of_the_first_paper_is_there():
    numbers = {int(one.id.split("-")[1]) for one in ledger.read() if one.source == "kenyondean2026"}
    assert numbers == set(range(1, 17))


OTHER_NAMES = {"TxFM": "TxFM-B", "TxFM fine-tuned": "TxFM-B fine-tuned"}
SCREENS = [one for one in ledger.read() if one.compare.get("study") == "perturbations"]


@pytest.mark.parametrize("one", SCREENS, ids=lambda one: one.id)
def test_margins_are_what_the_papers_tables_give(one):
    """The rule itself, on the printed rows, gives the printed margin."""
    printed = results.read("published/kenyondean2026/tables-9-11").assign(seed=0, variant="chosen")
    ours = one.compare["ours"] | {
        "model": OTHER_NAMES.get(one.compare["ours"]["model"], one.compare["ours"]["model"])
    }
    compare = one.compare | {"datasets": None, "ours": ours}
    found = ledger.judge(ledger.Claim(**{**vars(one), "compare": compare}), printed)
    assert found.pairs == 3 and round(found.value, 2) == pytest.approx(one.compare["margin"], abs=0.0101)
    assert f"{one.compare['margin']:.2f}" in one.published + one.rule


def test_the_printed_claim_about_other_models_is_counted():
    printed = results.read("published/kenyondean2026/tables-9-11").query("metric == 'avg'")
    mean = printed.groupby("model")["value"].mean()
    others = [
        "Geneformer",
        "GeneJEPA",
        "scTab",
        "CellPLM",
        "UCE",
        "scCello",
        "scPrint-L",
        "scGPT",
        "Tahoe-x1",
    ]
    others += ["TranscriptFormer", "AIDO.Cell-100M", "Cell2Sentence", "STATE-SE"]
    assert len(others) == 13 and (mean[others] < mean["log counts"]).sum() == 12
    text = next(one for one in ledger.read() if one.id == "txfm-3").published
    assert "12 of 13" in text and f"{100 * mean['log counts']:.2f}" in text


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    "a, noise, expected",
    [
        (1.3, 0.01, "holds"),
        (1.1, 0.01, "direction holds"),
        (0.9, 0.01, "contradicted"),
    ],
)
def test_a_ratio_is_judged_by_interval_and_margin(a, noise, expected):
    found = ledger.judge(claim(), rows(a, noise=noise, seeds=8))
    assert found.verdict == expected and found.low < found.value < found.high
    assert found.pairs == 16 and found.datasets == ("x", "y")


def test_an_effect_and_its_opposite_decide_nothing():
    given = rows(1.1, noise=0.2)
    opposite = given.assign(model=given["model"].map({"A": "B", "B": "A"}), dataset=given["dataset"] + "2")
    found = ledger.judge(claim(), pd.concat([given, opposite]))
    assert found.verdict == "not at our scale" and found.value == pytest.approx(1)


def test_without_a_margin_direction_is_the_claim():
    assert ledger.judge(claim(compare=dict(margin=None)), rows(1.02, noise=0.001)).verdict == "holds"


@pytest.mark.parametrize(
    "values, expected",
    [
        ((0.01, -0.02, 0.03), "holds"),
        ((0.02, -0.02, 0.09), "direction holds"),
        ((0.07, 0.02, 0.09), "not at our scale"),
        ((0.5, 0.06, 0.9), "contradicted"),
        ((0.01, np.nan, np.nan), "not at our scale"),
    ],
)
def test_no_change_is_judged_by_where_the_interval_lies(values, expected):
    assert ledger.verdict(*values, "equal", 0.05) == expected


def test_the_interval_is_that_of_scipy_for_one_dataset():
    from scipy import stats

    rng = np.random.default_rng(1)
    index = pd.MultiIndex.from_product([["x"], range(12)], names=["dataset", "seed"])
    pairs = pd.DataFrame({"a": rng.normal(1.2, 0.2, 12), "b": rng.normal(1, 0.2, 12)}, index=index)
    value, low, high = ledger.interval(pairs, "ratio")
    reference = stats.bootstrap(
        (pairs["a"], pairs["b"]), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True,
        vectorized=True, n_resamples=9999, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert value == pytest.approx(pairs["a"].mean() / pairs["b"].mean())
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.02)
    assert ledger.interval(pairs, "ratio") == (value, low, high)  # seeded


def test_seeds_of_one_dataset_do_not_stand_in_for_datasets():
    """Two datasets that disagree leave the question open, however many seeds agree within each."""
    split = pd.concat([rows(1.5, datasets=("x",), seeds=20), rows(0.9, datasets=("y",), seeds=20)])
    found = ledger.judge(claim(), split)
    assert found.verdict == "not at our scale" and found.low < 0.95 and found.high > 1.4


def test_without_an_effect_few_pairs_miss_it_as_often_as_the_page_says(monkeypatch):
    monkeypatch.setattr(ledger, "DRAWS", 500)
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([["x", "y"], range(3)], names=["dataset", "seed"])
    missed = 0
    for _ in range(400):
        pairs = pd.DataFrame({"a": rng.normal(size=6), "b": 0.0}, index=index)
        _, low, high = ledger.interval(pairs, "difference")
        missed += not low <= 0 <= high
    assert 1 / 12 < missed / 400 < 1 / 6 and "one interval in eight" in (ROOT / "book/ledger.md").read_text()


def test_datasets_count_equally_and_pairs_go_together():
    uneven = pd.concat(
        [rows(2, noise=0, datasets=("x",), seeds=9), rows(1, noise=0, datasets=("y",), seeds=1)]
    )
    assert ledger.judge(claim(), uneven).value == pytest.approx(1.5)
    shared = rows(noise=0)
    shared["value"] += shared["dataset"].map({"x": 5.0, "y": 0.0})  # cancels in every pair
    assert ledger.judge(claim(compare=dict(by="difference", margin=0.3)), shared).low == pytest.approx(0.3)


def test_a_rival_without_seeds_stands_against_each():
    alone = rows(noise=0).query("model == 'A' or seed == 0")
    found = ledger.judge(claim(), alone)
    assert found.pairs == 6 and found.value == pytest.approx(1.3)


def test_chance_a_number_the_best_of_several_and_the_mean_of_variants():
    given = rows(noise=0)
    difference = dict(by="difference", margin=None)
    assert ledger.judge(claim(compare=difference | {"against": "chance"}), given).value == pytest.approx(0.8)
    assert ledger.judge(claim(compare=difference | {"against": 1.25}), given).value == pytest.approx(0.05)
    three = pd.concat([given, given.query("model == 'B'").assign(model="C", value=1.1)])
    best = claim(compare=difference | {"against": {"model": ["B", "C"]}})
    assert ledger.judge(best, three).value == pytest.approx(0.2)
    two = pd.concat([given.assign(variant="u"), given.assign(variant="v", value=given["value"] + 1)])
    both = claim(
        compare={"ours": {"model": "A", "metric": "m", "variant": ["u", "v"]}, "against": {"variant": "u"}}
    )
    assert ledger.judge(both, two).value == pytest.approx((1.3 + 2.3) / 2 / 1.3)


def test_databases_can_stand_for_datasets():
    given = pd.concat([rows(a, datasets=("x",), noise=0).assign(metric=f"recall {a}") for a in (1.2, 1.6)])
    ours = {"model": "A", "metric": ["recall 1.2", "recall 1.6"]}
    found = ledger.judge(claim(compare=dict(ours=ours, over="metric")), given)
    assert found.datasets == ("recall 1.2", "recall 1.6") and found.pairs == 6
    assert (found.low, found.value, found.high) == pytest.approx((1.2, 1.4, 1.6))
    mean = ledger.judge(claim(compare=dict(ours=ours)), given)
    assert mean.pairs == 3 and (mean.low, mean.high) == pytest.approx((1.4, 1.4))


def test_only_the_datasets_named_count_and_undefined_values_do_not():
    given = rows(noise=0, datasets=("x", "seen in training"))
    assert ledger.judge(claim(compare=dict(datasets=["x"])), given).datasets == ("x",)
    given.loc[given["dataset"] == "x", "value"] = np.nan
    assert ledger.judge(claim(compare=dict(datasets=["x"])), given).verdict == "not run"


def test_stages_of_training_are_found():
    steps = pd.concat([rows(a, noise=0, samples=s) for a, s in ((1.0, 100), (1.5, 240), (1.2, 1000))])
    ours = {"model": "A", "metric": "m", "samples": "quarter"}
    peak = claim(compare=dict(ours=ours, against={"samples": "last"}, by="difference", margin=None))
    found = ledger.judge(peak, steps)
    assert found.value == pytest.approx(0.3) and found.verdict == "holds"


def test_what_is_not_well_defined_is_refused():
    two = pd.concat([rows(variant="u"), rows(variant="v")])
    with pytest.raises(ValueError, match="a-1: name the variant: 'u', 'v'"):
        ledger.judge(claim(), two)
    with pytest.raises(ValueError, match="a-1: several results of the same dataset"):
        ledger.judge(claim(), pd.concat([rows(), rows()]))
    with pytest.raises(ValueError, match="a-1: the results have no field 'epoch'"):
        ledger.judge(claim(compare={"ours": {"model": "A", "metric": "m", "epoch": 1}}), rows())
    with pytest.raises(ValueError, match="unknown fields versus"):
        ledger.judge(claim(compare={"versus": 1}), rows())
    with pytest.raises(ValueError, match="by should be one of ratio, difference, equal, not 'quotient'"):
        ledger.judge(claim(compare={"by": "quotient"}), rows())
    with pytest.raises(ValueError, match="compare by difference"):
        ledger.judge(claim(), rows(b=-1))


def test_few_pairs_or_none_decide_nothing():
    few = ledger.judge(claim(), rows(9, datasets=("x",), seeds=2))
    assert few.verdict == "not at our scale" and np.isnan(few.low) and few.value > 8
    assert ledger.judge(claim(), rows().query("model == 'A'")).verdict == "not run"
    assert ledger.judge(claim(), None).verdict == "not run"


# ---------------------------------------------------------------- the file and the page


@pytest.fixture
def book(tmp_path):
    """A ledger of two claims, one with results, and the page."""
    entries = [
        ENTRY | dict(verdict="not run", reason="waits", compare=COMPARE),
        ENTRY | dict(id="b-2", verdict="not run", reason="No chapter <yet>."),
    ]
    text = yaml.safe_dump({"claims": entries}, sort_keys=False, indent=2)
    text = "# by hand\n" + re.sub(r"(?m)^(?!claims)", "  ", text).rstrip() + "\n"
    (tmp_path / "claims.yml").write_text(text)
    for model, part in rows().groupby("model"):
        plain = part.to_dict("records")
        results.write(f"trial/{model}", plain, dict(commit="x"), tmp_path / "results")
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "x.ipynb").write_text("{}")
    (tmp_path / "book" / "ledger.md").write_text((ROOT / "book" / "ledger.md").read_text())
    return tmp_path


def test_a_wrong_verdict_is_found_and_mended_in_place(book):
    file, folder = book / "claims.yml", book / "results"
    assert ledger.faults(ledger.read(file), folder)[0].startswith(
        "a-1: written 'not run', judged 'holds' (1.3"
    )
    before = file.read_text()
    assert ledger.write(file, folder) == ["a-1: not run -> holds"]
    after = file.read_text()
    assert after == before.replace("verdict: not run\n    reason: waits\n", "verdict: holds\n", 1)
    assert ledger.faults(ledger.read(file), folder) == [] and ledger.write(file, folder) == []
    file.write_text(after.replace("verdict: holds", "verdict: contradicted"))
    assert len(ledger.faults(ledger.read(file), folder)) == 1


def test_a_result_that_is_gone_is_a_fault(book):
    file, folder = book / "claims.yml", book / "results"
    ledger.write(file, folder)
    (folder / "trial" / "B.json").unlink()
    assert ledger.faults(ledger.read(file), folder) == [
        "a-1: written 'holds', judged 'not run' (trial has no dataset with both sides)"
    ]
    with pytest.raises(
        ValueError, match="a-1: trial has no dataset with both sides; write 'verdict: not run'"
    ):
        ledger.write(file, folder)


@pytest.mark.parametrize(
    "change, told",
    [
        (("verdict: not run", "verdict: true enough"), "a-1: no verdict is called 'true enough'"),
        (("    reason: waits\n", ""), "a-1: 'not run' needs a reason"),
        (("id: b-2", "id: a-1"), "a-1: the id occurs twice"),
        (("rule: r", "rules: r"), "a-1: unknown fields rules"),
        (("    rule: r\n", ""), "a-1: lacks rule"),
    ],
)
def test_a_faulty_file_is_refused(book, change, told):
    file = book / "claims.yml"
    file.write_text(file.read_text().replace(*change, 1))
    with pytest.raises(ValueError, match=told):
        ledger.read(file)


def test_the_page_shows_counts_tiles_and_every_claim(book):
    ledger.write(book / "claims.yml", book / "results")
    page = book / "book" / "ledger.md"
    ledger_page.fill(page, book / "claims.yml", book / "results")
    text = page.read_text()
    assert "<!--" not in text and "Of 2 claims: ✔ holds 1" in text and "○ not run 1" in text
    assert text.count("<a class=") == 2 and '<a class="verdict-holds" href="#a-1"' in text
    assert (
        "[a-1]{#a-1}" in text and "[Shown here](../notebooks/x.ipynb)" in text and "No chapter <yet>." in text
    )
    assert re.search(r"Ratio \*\*1\.3\d\d\*\* \[1\.\d+, 1\.\d+\]; 6 pairs on x, y", text)


def test_a_notebook_shows_its_own_claims(book):
    shown = ledger.table("notebooks/x", book / "claims.yml", book / "results")
    assert shown.index.tolist() == ["a-1", "b-2"] and shown.loc["a-1", "verdict"] == "✔ holds"
    assert shown.loc["b-2", "ours [95 %]"] == "No chapter <yet>."
    assert ledger.table("notebooks/y", book / "claims.yml", book / "results").empty


def test_the_command_prints_every_claim(capsys):
    assert ledger.main([]) == 0
    printed = capsys.readouterr().out
    assert all(one.id in printed for one in ledger.read())


def test_recall_is_compared_over_databases():
    def recall(model, values):
        fields = {"dataset": "relationships", "model": model, "metric": "recall", "seed": 0, "null": 0.1}
        pairs = zip("ABC", values, strict=True)
        return [fields | {"variant": f"{database}, PCA 32", "value": value} for database, value in pairs]

    found = pd.DataFrame(recall("ours", [0.3, 0.4, 0.5]) + recall("theirs", [0.2, 0.2, 0.2]))
    compare = {
        "study": "genes", "against": {"model": "theirs"}, "over": "metric",
        "by": "difference", "margin": 0.15,
        "ours": {"model": "ours", "metric": ["recall A", "recall B", "recall C"], "variant": "PCA 32"},
    }  # fmt: skip
    judged = ledger.judge(claim(compare=compare), found)
    assert judged.pairs == 3 and judged.value == pytest.approx(0.2) and judged.verdict == "holds"
