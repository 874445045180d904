"""What one gene must do to be seen: closed forms against encodings made anew, without and with ties."""

import numpy as np
import pytest
import scipy.sparse as sp

from txfm_lite import fold_changes, robustness

MEDIANS = np.random.default_rng(5).uniform(0.5, 30, 60)


@pytest.fixture(scope="module")
def smooth():
    """Values that are all different, as a real-valued change needs them."""
    rng = np.random.default_rng(0)
    values = rng.lognormal(2, 1.5, (4, 60)) * (rng.random((4, 60)) < 0.8)
    return sp.csr_matrix(values.astype(np.float32))


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(1)
    return sp.csr_matrix(rng.negative_binomial(0.5, 0.1, (3, 60)).astype(np.float32))


def seen(encoding, x, cell, gene, value):
    """The gene's own encoding, as other genes' places see it, after its value is set."""
    row = x[cell].toarray()
    row[0, gene] = value
    row = sp.csr_matrix(row)
    if encoding in robustness.ORDERS:
        _, columns = robustness.order(encoding, row, MEDIANS, seed=None)
        return int(np.flatnonzero(columns == gene)[0])
    return float(robustness.matrix(encoding, row, MEDIANS, seed=None)[0, gene])


@pytest.mark.parametrize("encoding", ["cell2sentence", "Geneformer", "scGPT", "scBERT"])
def test_nothing_is_seen_short_of_the_fold_change_and_something_beyond(encoding, smooth):
    up, down = fold_changes.minimum_fold_changes(encoding, smooth, MEDIANS)
    checked = 0
    for cell in range(smooth.shape[0]):
        for k in range(smooth.indptr[cell], smooth.indptr[cell + 1]):
            gene, value = smooth.indices[k], smooth.data[k]
            now = seen(encoding, smooth, cell, gene, value)
            if np.isfinite(up[k]):
                assert up[k] > 1
                assert seen(encoding, smooth, cell, gene, value * (1 + (up[k] - 1) * 0.999)) == now
                assert seen(encoding, smooth, cell, gene, value * up[k] * 1.0001) != now
                checked += 1
            else:
                assert seen(encoding, smooth, cell, gene, value * 1e4) == now
            if down[k] > 0:
                assert down[k] <= 1
                assert seen(encoding, smooth, cell, gene, value * (down[k] + (1 - down[k]) * 1e-3)) == now
                assert seen(encoding, smooth, cell, gene, value * down[k] * 0.9999) != now
                checked += 1
            else:
                assert seen(encoding, smooth, cell, gene, value * 1e-6) == now
    assert checked > 200


def test_values_show_any_fold_change(smooth):
    for encoding in ("raw counts", "log counts"):
        up, down = fold_changes.minimum_fold_changes(encoding, smooth)
        assert (up == 1).all() and (down == 1).all()
        assert seen(encoding, smooth, 0, smooth.indices[0], smooth.data[0] * 1.001) != seen(
            encoding, smooth, 0, smooth.indices[0], smooth.data[0]
        )


def weak_order(values, gene):
    """How many genes stand above, and how many beside, a gene: an order that knows ties."""
    return (values > values[gene]).sum(), (values == values[gene]).sum()


def possible_bins(values, gene):
    """Between which bins chance may choose, by the published rule on quantiles."""
    edges = np.quantile(values[values > 0], np.linspace(0, 1, 50))
    edges = np.where(np.isclose(edges, edges.round(), rtol=1e-12), edges.round(), edges)
    above, reached = (edges < values[gene]).sum(), (edges <= values[gene]).sum()
    return min(above + 1, reached), reached


def scbert_bin(values, gene):
    return np.clip(np.floor(np.log2(1 + 1e4 * values[gene] / values.sum()) + 1e-12), 0, 5)


@pytest.mark.parametrize(
    ("encoding", "look"),
    [("cell2sentence", weak_order), ("scGPT", possible_bins), ("scBERT", scbert_bin)],
)
def test_molecules_to_change_are_those_that_a_search_finds(encoding, look, counts):
    more, fewer = fold_changes.molecules_to_change(encoding, counts)
    found = 0
    for cell in range(counts.shape[0]):
        row = counts[cell].toarray()[0].astype(np.float64)
        for k in range(counts.indptr[cell], counts.indptr[cell + 1]):
            gene, count = counts.indices[k], counts.data[k]
            now = look(row, gene)
            for sign, wanted in ((1, more[k]), (-1, fewer[k])):
                changed = np.inf
                for m in range(1, 400 if sign > 0 else int(count) + 1):
                    other = row.copy()
                    other[gene] += sign * m
                    lost = other[gene] == 0 and encoding != "scBERT"  # no longer in the list
                    if lost or look(other, gene) != now:
                        changed = m
                        break
                if changed < np.inf or wanted > 400:
                    assert changed == wanted or (wanted > 400 and changed == np.inf), (cell, gene, sign)
                    found += changed < np.inf
                else:
                    assert np.isinf(wanted)
    assert found > 50


def test_geneformer_needs_a_median(counts):
    medians = MEDIANS.copy()
    medians[:10] = np.nan
    up, down = fold_changes.minimum_fold_changes("Geneformer", counts, medians)
    assert (np.isnan(up) == (counts.indices < 10)).all() and (np.isnan(down) == np.isnan(up)).all()
    more, _ = fold_changes.molecules_to_change("Geneformer", counts, medians)
    assert (np.isnan(more) == np.isnan(up)).all() and np.nanmin(more) == 1


def test_a_raised_gene_leaks_into_values_but_not_into_orders(counts):
    genes = np.asarray(counts.argmax(axis=1)).ravel()
    double = fold_changes.multiply(counts, genes, 2)
    assert ((double - counts).toarray()[np.arange(3), genes] == counts.toarray()[np.arange(3), genes]).all()
    for encoding in robustness.ORDERS:
        assert (fold_changes.others_changed(encoding, counts, double, genes, MEDIANS)[0] == 0).all()
    changed, moved = fold_changes.others_changed("log counts", counts, double, genes)
    assert (changed == 1).all() and (moved == 1).all()
    assert (fold_changes.others_changed("raw counts", counts, double, genes)[0] == 0).all()
    few = fold_changes.others_changed("scBERT", counts, double, genes)[0]
    assert (few < 1).all()
    for cell, gene in enumerate(genes):  # every bin anew, by the formula
        rows = [x[cell].toarray()[0].astype(np.float64) for x in (counts, double)]
        bins = [[scbert_bin(row, g) for g in range(60)] for row in rows]
        differ = [g for g in range(60) if g != gene and bins[0][g] != bins[1][g]]
        assert few[cell] == pytest.approx(len(differ) / ((rows[0] > 0).sum() - 1))


def test_who_is_passed_moves_by_one_place():
    row = sp.csr_matrix(np.array([[1, 2, 4, 8]], dtype=np.float32))
    first = np.array([0])
    # order 3 2 1 0; four times the first: 3 0 2 1, equal counts by column
    changed, moved = fold_changes.others_changed(
        "cell2sentence", row, fold_changes.multiply(row, first, 4), first
    )
    assert changed[0] == 0 and moved[0] == pytest.approx(2 / 3)
    # a gene that was not there pushes back all below it
    more = robustness.add_molecules(sp.csr_matrix(np.array([[0, 2, 1, 1]])), first)
    before = sp.csr_matrix(np.array([[0, 2, 1, 1]], dtype=np.float32))
    changed, moved = fold_changes.others_changed("cell2sentence", before, more, first)
    assert changed[0] == 0 and moved[0] == pytest.approx(2 / 3)
