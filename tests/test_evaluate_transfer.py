"""Probes across studies and parts of the input: against sklearn, and on data where the answer is known."""

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from txfm_lite import robustness, studies
from txfm_lite.evaluate import transfer


@pytest.fixture(scope="module")
def cells():
    """Two types that differ in 20 of 200 genes, in two batches."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 60)
    mean = np.where((np.arange(200) < 20)[None, :] & (labels == "a")[:, None], 6.0, 1.0)
    adata = AnnData(sp.csr_matrix(rng.poisson(mean).astype(np.float32)))
    adata.obs["cell_type"], adata.obs["batch"] = labels, np.tile(["1", "2"], 60)
    adata.var["ensembl_id"] = ""
    return adata


def test_the_probe_is_a_logistic_regression_on_standardised_genes(cells):
    x, y = cells.X.toarray(), cells.obs["cell_type"].to_numpy()
    x[:, 150:] = 0
    x[3, 199] = 1  # one cell in forty: not a gene that a twentieth of them shows
    train, test = np.arange(0, 120, 3), np.arange(1, 120, 3)
    noisy = np.random.default_rng(1).permutation(y)  # labels that the probe cannot get all right
    for labels in (y, noisy):
        shown = (x[train] != 0).mean(axis=0) >= 0.05
        scaler = StandardScaler().fit(x[train][:, shown])
        model = LogisticRegression(max_iter=2000).fit(scaler.transform(x[train][:, shown]), labels[train])
        expected = model.predict(scaler.transform(x[test][:, shown]))
        found = transfer.predict(sp.csr_matrix(x[train]), labels[train], [sp.csr_matrix(x[test])])
        assert (found[0] == expected).mean() >= 0.97  # a tie at the border may fall either way


def test_accuracy_is_balanced():
    truth, answer = np.array(list("aaaabb")), np.array(list("aaabbb"))
    assert transfer.accuracy(truth, answer) == balanced_accuracy_score(truth, answer) == 0.875


def test_across_drops_nothing_where_studies_are_alike_and_much_where_genes_are_swapped(cells):
    rng = np.random.default_rng(2)
    half = rng.permutation(120)
    one, two = cells[np.sort(half[:60])].copy(), cells[np.sort(half[60:])].copy()
    swapped = two.copy()
    swapped.obs["cell_type"] = np.where(two.obs["cell_type"] == "a", "b", "a")

    def rows(second):
        found = transfer.across({"one": one, "two": second}, "log counts")
        return {(r["metric"], r["variant"]): r for r in found}

    same, wrong = rows(two), rows(swapped)
    assert abs(same["drop", "mean"]["value"]) < 0.05 and same["accuracy at home", "mean"]["value"] > 0.95
    assert wrong["accuracy away", "one > two"]["value"] < 0.05 < 0.9 < wrong["drop", "mean"]["value"]
    assert same["drop", "one > two"]["value"] == pytest.approx(
        same["accuracy at home", "one > two"]["value"] - same["accuracy away", "one > two"]["value"]
    )
    mean = np.mean([same["drop", v]["value"] for v in ("one > two", "two > one")])
    assert same["drop", "mean"]["value"] == pytest.approx(mean)
    assert same["kNN", "one + two"]["value"] > 0.9 > 0.3 > wrong["kNN", "one + two"]["value"]
    assert same["accuracy at home", "one > two"]["null"] < 0.8


def test_only_shared_types_and_genes_are_compared(cells):
    few = cells.obs["cell_type"].to_numpy().copy()
    few[:5] = "rare"
    other = cells[:, 10:].copy()
    other.obs["cell_type"] = few
    (a, first), (b, second) = transfer._chosen(cells, other, seed=0)
    assert a.n_vars == b.n_vars == 190 and set(first) == set(second) == {"a", "b"}


def test_part_of_hides_what_it_should():
    rng = np.random.default_rng(3)
    counts = sp.csr_matrix(rng.poisson(0.8, (50, 30)).astype(np.float32))
    places = robustness.matrix("cell2sentence", counts, seed=0)
    train = np.arange(25)
    presence = transfer.part_of("presence", places, train).toarray()
    assert (presence == (counts.toarray() > 0)).all()
    ranks = transfer.part_of("ranks of detected", places, train).toarray()
    assert (ranks[~(presence > 0)] == 0).all()
    shown = presence[train] > 0
    np.testing.assert_allclose((ranks[train] * shown).sum(axis=0) / shown.sum(axis=0), 0, atol=1e-6)
    both = transfer.part_of("presence + ranks", places, train)
    assert both.shape == (50, 60)
    with pytest.raises(ValueError, match="part = 'zeros'"):
        transfer.part_of("zeros", places, train)


def test_decomposition_finds_where_the_type_lies():
    rng = np.random.default_rng(4)
    labels = np.repeat(["a", "b"], 100)
    present = rng.random((200, 100)) < 0.5
    values = rng.permuted(np.tile(np.arange(1, 101), (200, 1)), axis=1) * present
    by_order = values.copy()
    by_order[100:, :10] *= 100  # the same genes, at the top of the list
    by_presence = values.copy()
    by_presence[100:, :10] = 0
    for x, sees in ((by_order, "ranks of detected"), (by_presence, "presence")):
        adata = AnnData(sp.csr_matrix(x.astype(np.float32)))
        adata.obs["cell_type"], adata.obs["batch"] = labels, "1"
        adata.var["ensembl_id"] = ""
        found = {p: transfer.decomposition(adata, p)[0]["value"] for p in transfer.PARTS[:4]}
        blind = {"presence", "ranks of detected"} - {sees}
        assert found[sees] > 0.95 and found["presence + ranks"] > 0.9
        if sees == "ranks of detected":
            assert found[blind.pop()] < 0.7  # without presence nothing, but a list gets shorter
    assert transfer.decomposition(adata, "raw counts")[0]["null"] < 0.65


def test_recovery_falls_with_the_molecules(cells):
    rows = {r["variant"]: r for r in transfer.recovery(cells, "log counts")}
    assert list(rows) == ["1", "0.9", "0.75", "0.5", "0.25", "0.1"]
    assert rows["1"]["value"] > 0.95 and rows["0.1"]["value"] < rows["1"]["value"]
    assert all(abs(r["null"] - 0.5) < 0.2 for r in rows.values())


def test_amounts_are_read_from_depth_and_not_from_what_has_no_depth():
    adata = next(iter(studies.known_amounts("simulated").values()))[::4].copy()
    depth = {r["variant"]: r for r in transfer.amounts(adata, "depth")}
    assert depth["as measured"]["value"] > 0.8 > 0.65 > depth["at one total"]["value"]
    assert "with the total" not in depth
    rows = {(r["metric"], r["variant"]): r for r in transfer.amounts(adata, "raw counts")}
    assert rows["changed by scaling", ""]["value"] == 1
    rows = {(r["metric"], r["variant"]): r for r in transfer.amounts(adata, "scBERT")}
    assert rows["changed by scaling", ""]["value"] == 0
