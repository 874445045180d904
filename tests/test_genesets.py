"""The container, files in and out, symbols and copies, against plain Python sets."""

import gzip
import logging

import numpy as np
import pandas as pd
import pytest

from txfm_lite import genes, genesets, tables
from txfm_lite.genesets import GeneSets
from txfm_lite.genesets_codes import Codes
from txfm_lite.genesets_container import sorted_rows

TABLE = pd.DataFrame(
    [
        ("7157", "TP53", "P53|TRP53|LFS1", ""),
        ("4609", "MYC", "c-Myc|SHARED", ""),
        ("1", "A1BG", "SHARED|A1B", ""),
        ("2", "C1orf112", "-", ""),
        ("3", "HLA-A", "HLAA", ""),
        ("4", "NKX2-5", "CSX", ""),
    ],
    columns=["entrez", "symbol", "synonyms", "ensembl"],
)


@pytest.fixture
def resolver():
    return genes.Resolver(TABLE)


def random_lists(rng, n=60, names=40):
    """Lists with repeats, and empty ones; names of 1 to 30 letters, some of which begin alike."""
    pool = ["G" * int(rng.integers(1, 25)) + str(i) for i in range(names)] + ["é€𝛼", "G G"]
    return [list(rng.choice(pool, rng.integers(0, 12))) for _ in range(n)]


def as_sets(sets: GeneSets) -> list[set[str]]:
    return [set(sets.members(i)) for i in range(len(sets))]


# --- the container ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("seed", range(5))
def test_random_sets_behave_like_sets_of_python(seed):
    rng = np.random.default_rng(seed)
    lists = random_lists(rng)
    sets = GeneSets.from_lists(lists)
    truth = [set(x) for x in lists]
    assert as_sets(sets) == truth and sets.genes.tolist() == sorted(set().union(*truth))
    for i in range(len(sets)):  # ascending and unique
        assert (np.diff(sets.indices[sets.indptr[i] : sets.indptr[i + 1]]) > 0).all()
    other = list(rng.permutation(sets.genes))[:20] + ["new"]
    assert as_sets(sets.over(other)) == [x & set(other) for x in truth]
    letters = [gene[0] if rng.random() < 0.8 else "" for gene in sets.genes]
    new = dict(zip(sets.genes, letters, strict=True))
    assert as_sets(sets.renamed(letters)) == [{new[g] for g in x} - {""} for x in truth]
    half = len(lists) // 2
    parts = [GeneSets.from_lists(lists[:half]), GeneSets.from_lists(lists[half:])]
    joined = genesets.concatenate(parts)
    assert as_sets(joined) == truth and joined.genes.tolist() == sets.genes.tolist()
    np.testing.assert_array_equal(joined.indices, sets.indices)


def test_no_sets_and_no_genes():
    for sets in (GeneSets.from_lists([]), GeneSets.from_lists([[], []])):
        assert len(sets.genes) == 0 and sets.sizes.sum() == 0
        assert genesets.vocabulary(sets).tolist() == [] and len(genesets.of_size(sets)) == 0
        assert sets.over(["A"]).csr().shape == (len(sets), 1) and sets.over([]).csr().shape == (len(sets), 0)
    assert genesets.copies(GeneSets.from_lists([[], ["A"], []])).tolist() == [False, False, True]


def test_weights_stay_with_their_genes_and_the_strongest_of_several_counts():
    sets = GeneSets.from_lists([["B", "A", "B"], ["C", "A"]], weights=[[1, -2, -3], [0.5, 4]])
    assert sets.csr().toarray().tolist() == [[-2, -3, 0], [4, 0, 0.5]]
    assert sets[[1]].over(["C", "A"]).csr().toarray().tolist() == [[0.5, 4]]
    assert sets.renamed(["X", "X", "Y"]).csr().toarray().tolist() == [[-3, 0], [4, 0.5]]
    assert GeneSets.from_lists([["A", "A"]], weights=[[-2, 2]]).weights.tolist() == [2]
    mixed = genesets.concatenate([sets, GeneSets.from_lists([["A"]])])
    assert mixed.weights.tolist() == [-2, -3, 4, 0.5, 1]
    with pytest.raises(ValueError, match="'set 1' has 2 genes, but 1 weights"):
        GeneSets.from_lists([["A", "B"]], weights=[[1]])
    with pytest.raises(ValueError, match="2 sets, but 1 names"):
        GeneSets.from_lists([["A"], ["B"]], ["one"])


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_sorted_the_same_in_blocks_of_any_size(monkeypatch, weighted):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 30, 200)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    codes = rng.integers(-2, 20, indptr[-1]).astype(np.int32)
    weights = rng.normal(size=indptr[-1]).astype(np.float32) if weighted else None
    whole = sorted_rows(indptr, codes, weights)
    monkeypatch.setattr("txfm_lite.genesets_container.BLOCK", 7)
    for one, other in zip(whole, sorted_rows(indptr, codes, weights), strict=True):
        np.testing.assert_array_equal(one, other)
    for i in range(200):
        part = codes[indptr[i] : indptr[i + 1]]
        here = slice(whole[0][i], whole[0][i + 1])
        assert whole[1][here].tolist() == sorted(set(part[part >= 0].tolist()))
        if weighted:
            of = weights[indptr[i] : indptr[i + 1]]
            best = [max(of[part == code], key=abs) for code in whole[1][here]]
            assert whole[2][here].tolist() == best


def test_vocabulary_goes_by_number_of_sets_then_by_the_alphabet():
    sets = GeneSets.from_lists([["B", "A", "Z"], ["A", "B"], ["C", "Z", "A"], ["C"]])
    assert genesets.vocabulary(sets, least=2).tolist() == ["A", "B", "C", "Z"]
    assert genesets.vocabulary(sets[::-1], least=2).tolist() == ["A", "B", "C", "Z"]
    assert genesets.vocabulary(sets, least=3).tolist() == ["A"]
    sizes = GeneSets.from_lists([[f"G{i}" for i in range(n)] for n in (10, 11, 999, 1000)])
    assert genesets.of_size(sizes).sizes.tolist() == [11, 999]


def test_names_get_one_number_each_whatever_their_length(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr("txfm_lite.genesets_codes.SLOTS", 4)  # 16 slots for 300 names: most share one
    pool = ["x" * int(rng.integers(0, 40)) + str(i) for i in range(300)]
    pool += ["12345678", "1234567812345678", "12345678123456789", "é" * 8, "é" * 9, ""]
    codes, numbers = Codes(), {}
    for _ in range(4):
        names = list(rng.choice(pool, 500))
        found = codes.encode("".join(name + "\0" for name in names))
        for name, number in zip(names, found.tolist(), strict=True):
            assert numbers.setdefault(name, number) == number
    assert sorted(numbers.values()) == list(range(len(numbers)))
    assert [numbers[name] for name in codes.names] == list(range(len(numbers)))
    assert codes.encode("").tolist() == []
    with pytest.raises(ValueError, match="zero byte"):
        GeneSets.from_lists([["A\0B"]])


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sets.gmt", "sets.gmt.gz"])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_written_is_read_again(tmp_path, name, weighted):
    rng = np.random.default_rng(1)
    lists = [genes for genes in random_lists(rng) if genes]
    weights = [rng.normal(size=len(x)) * 10.0 ** rng.integers(-9, 9) for x in lists] if weighted else None
    sets = GeneSets.from_lists(lists, [f"a set, {i} \x85 ü" for i in range(len(lists))], "sets", weights)
    path = genesets.write_gmt(sets, tmp_path / name)
    again = genesets.read_gmt(path, weights=weighted)
    for field in ("names", "libraries", "genes", "indptr", "indices"):
        assert getattr(again, field).tolist() == getattr(sets, field).tolist()
    if weighted:
        np.testing.assert_array_equal(again.weights, sets.weights)
    assert again.descriptions is None and [x.name for x in tmp_path.iterdir()] == [name]
    first = path.read_bytes()
    assert genesets.write_gmt(again, path).read_bytes() == first
    assert first.startswith(b"\x1f\x8b") == name.endswith(".gz")


def test_descriptions_and_years_are_kept(tmp_path):
    path = tmp_path / "mined.gmt"
    path.write_text("PMC1-a\t2019\tA\tB\nPMC2-b\tsome text\tC\n\nPMC3-c\t\tD\r\nPMC4\t20190\tD\n")
    sets = genesets.read_gmt(path)
    assert sets.years.tolist() == [2019, 0, 0, 0] and sets[[0, 2]].descriptions.tolist() == ["2019", ""]
    assert GeneSets.from_lists([["A"]]).years.tolist() == [0]
    joined = genesets.concatenate([sets, GeneSets.from_lists([["A"]])])
    assert joined.descriptions.tolist() == ["2019", "some text", "", "20190", ""]
    assert (
        genesets.read_gmt(genesets.write_gmt(sets, path)).descriptions.tolist() == sets.descriptions.tolist()
    )


def test_weights_are_cut_off_or_kept(tmp_path):
    path = tmp_path / "up.txt"
    path.write_text("a\t\tA,1.5\tB,-2e-1\tC\nb\t\tA\tB\n")
    assert as_sets(genesets.read_gmt(path)) == [{"A", "B", "C"}, {"A", "B"}]
    sets = genesets.read_gmt(path, weights=True, library="mine")
    np.testing.assert_allclose(sets.csr().toarray(), [[1.5, -0.2, 1], [1, 1, 0]])
    assert set(sets.libraries) == {"mine"} and set(genesets.read_gmt(path).libraries) == {"up"}
    for bad in ("x", "", "nan", "inf"):
        path.write_text(f"a\t\tA,1\n\nb\t\tB,{bad}\n")
        with pytest.raises(
            ValueError, match=r"up\.txt, line 3: the weight of 'B' is .*read the file without"
        ):
            genesets.read_gmt(path, weights=True)


def test_short_lines_are_left_out_with_a_word(tmp_path, caplog):
    path = tmp_path / "sets.gmt"
    path.write_text("a\t\tA\t\tB\t\none\ntwo\tfields\nthree\t\t\t\na\t\tC\n")
    with caplog.at_level(logging.WARNING, "txfm_lite"):
        sets = genesets.read_gmt(path)
    assert sets.names.tolist() == ["a", "a"] and as_sets(sets) == [{"A", "B"}, {"C"}]
    assert "3 lines without genes left out, the first is line 2" in caplog.text


@pytest.mark.parametrize("name, content, words", [
    ("empty.gmt", b"", "no gene set"),
    ("names.gmt", b"TP53\nMYC\n", "no gene set in it. GMT has one set per line"),
    ("latin.gmt", b"a\t\tA\nb\t\tB\xe9\tC\n", "line 2: not UTF-8"),
    ("packed.gmt", gzip.compress(b"a\t\tA\tB\n"), "line 1: not UTF-8 .*has to end in .gz"),
    ("plain.gmt.gz", b"a\t\tA\tB\n", "after line 0: damaged or cut off .*must not end in .gz"),
    ("cut.gmt.gz", gzip.compress(b"".join(b"s%d\t\tA\tB%d\n" % (i, i * i) for i in range(9999)))[:9000],
     "after line [1-9].*cut off"),
])  # fmt: skip
def test_bad_files_are_named_with_line_cause_and_mend(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{words}"):
        genesets.read_gmt(tmp_path / name)


def test_a_mark_at_the_beginning_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.gmt").write_bytes(b"\xef\xbb\xbfa\t\tA\n")
    assert genesets.read_gmt(tmp_path / "a.gmt").names.tolist() == ["a"]


def test_what_gmt_cannot_say_is_not_written(tmp_path):
    path = tmp_path / "sets.gmt"
    for sets, words in (
        (GeneSets.from_lists([["A"], []]), r"set 1, 'set 2', is empty.*sizes > 0"),
        (GeneSets.from_lists([["A,B"]]), "a gene, 'A,B'"),
        (GeneSets.from_lists([["A"]], ["a\tb"]), "a set's name"),
        (GeneSets.from_lists([["A"]], ["a\nb"]), "a set's name"),
    ):
        with pytest.raises(ValueError, match=words):
            genesets.write_gmt(sets, path)
    assert not list(tmp_path.iterdir())


def test_tables_name_what_they_lack(tmp_path):
    path = tmp_path / "sets.csv"
    path.write_text('Name,Genes\n"a, b",A B  C\n')
    assert tables.gene_sets_csv([path]).to_numpy().tolist() == [["a, b", "", ["A", "B", "C"]]]
    with pytest.raises(ValueError, match=r"sets\.csv: no column 'Members' in its first line"):
        tables.gene_sets_csv([path], genes="Members")
    path.write_text("Name,Genes\na,A\nb\n")
    with pytest.raises(ValueError, match=r"sets\.csv, line 3: fewer fields"):
        tables.gene_sets_csv([path])


# --- symbols ----------------------------------------------------------------------------------------------


def test_an_alias_and_its_symbol_in_one_set_are_one_gene(resolver):
    raw = GeneSets.from_lists(
        [["TP53", "P53", "LFS1", "NEW"], ["SHARED", "CSX", "7157"], ["C1ORF112", "HLA.A"]]
    )
    table = genesets.symbols(raw, resolver=resolver)
    found = table.set_index("source")
    assert found.loc[["P53", "LFS1", "CSX"], "gene"].tolist() == ["TP53", "TP53", "NKX2-5"]
    assert found["how"].to_dict() == {
        "TP53": "symbol", "P53": "alias", "LFS1": "alias", "NEW": "unmatched", "SHARED": "ambiguous",
        "CSX": "alias", "7157": "unmatched", "C1ORF112": "spelling", "HLA.A": "spelling",
    }  # fmt: skip
    sets = genesets.resolve(raw, table)
    assert as_sets(sets) == [{"TP53", "NEW"}, {"SHARED", "NKX2-5", "7157"}, {"C1orf112", "HLA-A"}]
    assert as_sets(genesets.resolve(raw, table, drop=True)) == [{"TP53"}, {"NKX2-5"}, {"C1orf112", "HLA-A"}]
    gone = genesets.resolve(GeneSets.from_lists([["NEW"], ["TP53"]]), table=None)  # with the project's table
    assert gone.sizes.tolist() == [1, 1]
    numbers = genesets.symbols(GeneSets.from_lists([["7157", "4609"]]), resolver=resolver, entrez=True)
    assert dict(zip(numbers["source"], numbers["gene"], strict=True)) == {"4609": "MYC", "7157": "TP53"}


def test_a_set_can_be_emptied_by_leaving_out_what_is_unknown(resolver):
    raw = GeneSets.from_lists([["NEW", "SHARED"], ["MYC"]])
    sets = genesets.resolve(raw, genesets.symbols(raw, resolver=resolver), drop=True)
    assert sets.sizes.tolist() == [0, 1] and sets.genes.tolist() == ["MYC"]


def test_mice_become_human_only_on_purpose(resolver, tmp_path):
    raw = GeneSets.from_lists([["Trp53", "Myc", "Gm1"], ["TP53", "C1orf112"]])

    def names(mouse):
        table = genesets.symbols(raw, mouse, resolver).set_index("source")
        return table["gene"].to_dict(), table["how"].to_dict()

    gene, how = names("keep")
    assert gene == {x: x for x in raw.genes} and (how["Myc"], how["C1orf112"]) == ("mouse", "symbol")
    gene, how = names("upper")
    assert (gene["Trp53"], gene["Myc"], gene["Gm1"], gene["C1orf112"]) == ("TP53", "MYC", "GM1", "C1orf112")
    pairs = pd.DataFrame({"mouse": ["Trp53", "Gm1", "Gm1"], "human": ["TP53", "MYC", "A1BG"]})
    gene, how = names(pairs)
    assert (gene["Trp53"], how["Trp53"], gene["Gm1"], gene["Myc"]) == ("TP53", "orthologue", "Gm1", "Myc")
    pairs.to_csv(tmp_path / "pairs.tsv", sep="\t", index=False)
    assert names(tmp_path / "pairs.tsv") == (gene, how)
    assert as_sets(genesets.resolve(raw, genesets.symbols(raw, pairs, resolver)))[0] == {"TP53", "Myc", "Gm1"}
    with pytest.raises(ValueError, match="no 'human'"):
        genesets.symbols(raw, pairs.rename(columns={"human": "Homo"}), resolver)
    with pytest.raises(ValueError, match="'lower' is neither 'keep' nor 'upper'"):
        genesets.symbols(raw, "lower", resolver)


def test_the_report_counts_memberships(resolver):
    raw = GeneSets.from_lists([["TP53", "NEW", "NEWER"], ["TP53", "NEWER"], ["SHARED", "MYC", "NEWER"]])
    report = genesets.unmapped(genesets.symbols(raw, resolver=resolver), examples=1)
    assert report.loc["unmatched"].tolist() == [2, 4 / 8, "NEWER"]
    assert report.loc["ambiguous"].tolist() == [1, 1 / 8, "SHARED"] and report["share"].sum() == 1


def test_in_a_matrix_an_alias_beside_its_symbol_stays_another_feature(resolver):
    assert resolver.resolve(["TP53", "P53"]).frame["how"].tolist() == ["symbol", "ambiguous"]
    assert resolver.resolve(["TP53", "P53"], merge=True).frame["gene"].tolist() == ["TP53", "TP53"]
