import numpy as np

from txfm_lite import genesets
from txfm_lite.genesets import GeneSets


def test_lists_subsets_and_other_genes_keep_members():
    lists = [["B", "A", "B"], ["C"], [], ["D", "A", "C"]]
    sets = GeneSets.from_lists(lists, ["a", "b", "c", "d"])
    assert sets.sizes.tolist() == [2, 1, 0, 3] and [set(sets.members(i)) for i in range(4)] == [
        set(x) for x in lists
    ]
    some = sets[np.array([3, 0])]
    assert some.names.tolist() == ["d", "a"] and set(some.members(0)) == {"A", "C", "D"}
    assert sets[sets.sizes > 0].csr().toarray().tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 1]]
    other = sets.over(["D", "C", "X"])
    assert [other.members(i).tolist() for i in range(4)] == [[], ["C"], [], ["D", "C"]]
    both = genesets.concatenate([other, GeneSets.from_lists([["X", "Q"]], library="more")])
    assert both.libraries.tolist() == ["own"] * 4 + ["more"] and set(both.members(4)) == {"X", "Q"}
    assert set(both.members(3)) == {"C", "D"} and len(both) == 5
