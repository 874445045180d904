"""Two sources of gene vectors: combined by formulas that can be checked, and what each knows alone."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from txfm_lite.evaluate import complements, genes

N = 240
NAMES = [f"G{i:03}" for i in range(N)]


@pytest.fixture(scope="module")
def tables():
    """Genes have two kinds of modules; each source knows one."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(12, size=(2, N))
    centres = rng.normal(size=(2, 12, 20))
    made = {
        name: pd.DataFrame(centres[k][kinds[k]] + 0.4 * rng.normal(size=(N, 20)), NAMES)
        for k, name in enumerate(("A", "B"))
    }
    pairs = {}
    for k, name in enumerate(("first", "second")):
        i, j = np.triu_indices(N, 1)
        same = kinds[k][i] == kinds[k][j]
        pairs[name] = pd.DataFrame({"entity1": np.array(NAMES)[i[same]], "entity2": np.array(NAMES)[j[same]]})
    return made, pairs


def test_combined_cosines_are_means_of_cosines(tables):
    made, _ = tables
    found = complements.joined_vectors(made, dimension=10)
    cosines = {name: table.to_numpy() @ table.to_numpy().T for name, table in found.items()}
    i, j = np.triu_indices(N, 1)
    a, b = (cosines[name][i, j] for name in ("A", "B"))
    joined = genes.unit(found["concatenation"].to_numpy())
    assert (joined @ joined.T)[i, j] == pytest.approx((a + b) / 2, abs=1e-5)
    z = genes.unit(found["mean of z-scores"].to_numpy())
    wanted = a / a.std() + b / b.std()
    assert np.corrcoef((z @ z.T)[i, j], wanted)[0, 1] > 0.9999


def test_genes_are_those_that_all_have(tables):
    made, _ = tables
    found = complements.joined_vectors({"A": made["A"][:200], "B": made["B"][40:]}, dimension=5)
    assert all(list(table.index) == NAMES[40:200] for table in found.values())


def test_the_combination_recalls_what_either_knows(tables):
    made, pairs = tables
    found = complements.joined_vectors(made, dimension=16)

    def recall(name):
        rows = genes.evaluate(found[name], pairs, dimensions=(), ordered=True)
        return {row["variant"]: row["value"] for row in rows}

    alone, both = recall("A"), recall("concatenation")
    assert alone["first, all"] > alone["second, all"] + 0.3
    assert both["second, all"] > alone["second, all"] + 0.2
    table = complements.shared_recall(found["A"], found["B"], pairs)
    assert table.loc["first", "first"] > table.loc["first", "second"] + 0.3
    assert table[["both", "first", "second", "neither"]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert table.loc["union", "either"] > table.loc["union", "either, null"] + 0.2
    assert table.loc["first", "n"] == len(pairs["first"])
    units = found["A"].to_numpy()  # against the recall of the module that it builds on
    hit = genes.recalled(units, genes.positions(pairs["first"], found["A"].index)) != 0
    assert table.loc["first", "both"] + table.loc["first", "first"] == pytest.approx(hit.mean())


def test_mean_of_ranks():
    scores = [np.array([[3.0, 1, 2, np.nan]]), np.array([[10.0, 10, 0, 5]])]
    predict = complements.mean_of_ranks([lambda v, s=s: s for s in scores])
    found = predict(sp.csr_matrix((1, 4)))
    wanted = [(3 / 3 + 3.5 / 4) / 2, (1 / 3 + 3.5 / 4) / 2, (2 / 3 + 1 / 4) / 2, 2 / 4]
    assert found[0] == pytest.approx(wanted)
    unknown = complements.mean_of_ranks([lambda v: np.array([[1.0, np.nan]])])(sp.csr_matrix((1, 2)))
    assert np.isnan(unknown[0, 1]) and not np.isnan(unknown[0, 0])
