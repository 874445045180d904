"""Overlaps against sets of Python; the libraries against their sources' numbers; what may be trained on."""

import gzip
import logging

import numpy as np
import pytest

from txfm_lite import genesets, manifests
from txfm_lite import genesets_libraries as libraries
from txfm_lite.genesets import GeneSets
from txfm_lite.genesets_overlap import CELLS


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def containment(a: set, b: set) -> float:
    return len(a & b) / min(len(a), len(b)) if a and b else 0.0


MEASURES = {"jaccard": jaccard, "containment": containment}


def random_sets(rng, n, names):
    """Sets of different sizes over popular genes, one in five a changed copy of an earlier one."""
    made: list[set[str]] = []
    for _ in range(n):
        if made and rng.random() < 0.2:
            old = sorted(made[rng.integers(len(made))])
            made.append({g for g in old if rng.random() < 0.8} | set(rng.choice(names, 2)))
        else:
            made.append(set(rng.choice(names, int(rng.geometric(0.1)) - 1)))
    return made


# --- copies and overlaps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("cells", [CELLS, 50])
def test_overlaps_are_those_of_python_sets(monkeypatch, measure, cells):
    monkeypatch.setattr("txfm_lite.genesets_overlap.CELLS", cells)
    rng = np.random.default_rng(0)
    train = random_sets(rng, 70, [f"G{i}" for i in range(40)])
    test = random_sets(rng, 50, [f"G{i}" for i in range(10, 60)])  # with genes that the other lacks
    a, b = GeneSets.from_lists(map(list, train)), GeneSets.from_lists(map(list, test))
    values = np.array([[MEASURES[measure](x, y) for y in test] for x in train])
    for threshold in (0.0, 0.2, 1 / 3, 0.5, 0.75, 1.0):
        expected = (values > threshold).any(axis=1)
        assert genesets.overlapping(a, b, threshold, measure).tolist() == expected.tolist()
    most, which = genesets.nearest(a, b, measure)
    np.testing.assert_allclose(most, values.max(axis=1), rtol=1e-12)
    assert which.tolist() == np.where(values.max(axis=1) > 0, values.argmax(axis=1), -1).tolist()
    own = np.array([[MEASURES[measure](x, y) for y in train] for x in train])
    expected = [bool((own[i, :i] > 0.4).any()) for i in range(len(train))]
    assert genesets.repeated(a, 0.4, measure).tolist() == expected and any(expected)


def test_weights_do_not_count_in_overlaps():
    a = GeneSets.from_lists([["A", "B"]], weights=[[-5, 9]])
    assert genesets.nearest(a, GeneSets.from_lists([["B", "C"]]))[0].tolist() == [1 / 3]


def test_copies_are_those_of_frozen_sets():
    rng = np.random.default_rng(3)
    made = random_sets(rng, 300, list("ABCDEFG"))
    seen, expected = set(), []
    for x in made:
        expected.append(frozenset(x) in seen)
        seen.add(frozenset(x))
    sets = GeneSets.from_lists(map(list, made))
    assert genesets.copies(sets).tolist() == expected and len(genesets.distinct(sets)) == len(seen)


def test_what_is_no_measure_and_no_threshold_is_named():
    sets = GeneSets.from_lists([["A"]])
    with pytest.raises(ValueError, match="measure is 'cosine'; it has to be one of 'jaccard', 'containment'"):
        genesets.overlapping(sets, sets, 0.5, "cosine")
    with pytest.raises(ValueError, match="threshold is 50; it has to lie between 0 and 1"):
        genesets.overlapping(sets, sets, 50)


# --- simulated sets ---------------------------------------------------------------------------------------


def test_simulated_sets_are_of_their_modules():
    sets = genesets.simulated(300, 500, 12, seed=1)
    again, other = genesets.simulated(300, 500, 12, seed=1), genesets.simulated(300, 500, 12, seed=2)
    assert (again.indices == sets.indices).all() and again.names.tolist() == sets.names.tolist()
    assert len(other.indices) != len(sets.indices) and len(sets) == 300 and len(sets.genes) <= 500
    modules = np.array([name.split("module ")[1] for name in sets.names])
    alone = np.flatnonzero([" + " not in m for m in modules])
    x = sets.csr().toarray()[alone]
    shared = x @ x.T
    alike = shared / (x.sum(axis=1)[:, None] + x.sum(axis=1) - shared)
    same = modules[alone][:, None] == modules[alone]
    np.fill_diagonal(same, False)
    different = ~same & ~np.eye(len(x), dtype=bool)
    assert alike[same].mean() > 4 * alike[different].mean()


# --- real libraries ---------------------------------------------------------------------------------------

# Sets, genes and largest set of the benchmark's files, as their description states.
BENCHMARK = {
    "GO_Biological_Process_2023": (5407, 14698, 2028), "GWAS_Catalog_2023": (5271, 18290, 6159),
    "Human_Phenotype_Ontology": (1779, 3096, 1722), "KEGG_2021_Human": (320, 8078, 531),
    "MGI_Mammalian_Phenotype_Level_4_2021": (4601, 9767, 1654), "WikiPathway_2023_Human": (801, 8044, 437),
}  # fmt: skip


@pytest.fixture(scope="module")
def tests(local_data):
    return genesets.benchmark()


def test_the_benchmark_has_its_numbers(tests):
    for name, (sets, genes, largest) in BENCHMARK.items():
        raw = genesets.load(libraries.BENCHMARK, name, resolved=False)
        assert (len(raw), len(raw.genes), raw.sizes.max()) == (sets, genes, largest)
        assert len(tests[name]) == sets and 0 <= genes - len(tests[name].genes) < 10
        assert set(tests[name].libraries) == {name}
    assert list(tests) == list(BENCHMARK)


# Old and new terms, matched ones, those with at least one and at least five new genes, new memberships.
TIME_SPLITS = {
    "KEGG 2016-2021": (293, 320, 260, 226, 126, 3315),
    "GWAS Catalog 2019-2023": (1737, 5271, 1230, 1159, 657, 65086),
    "GO BP 2017-2023": (3166, 5407, 2512, 2357, 1680, 71751),
    "GO BP 2021-2023": (6036, 5407, 5124, 3290, 1136, 24188),
    "WikiPathways 2019-2023": (472, 801, 461, 134, 30, 933),
}


@pytest.mark.parametrize("name", TIME_SPLITS)
def test_old_terms_find_their_new_versions(local_data, name):
    which, partner, key = libraries.TIME_SPLITS[name]
    old = genesets.load(*which, resolved=False)
    new = genesets.load(libraries.BENCHMARK, partner, resolved=False)
    first, second = genesets.matched(old, new, key)
    added = np.asarray(((second.csr() - first.csr()) > 0).sum(axis=1)).ravel()
    counts = (len(old), len(new), len(first), (added >= 1).sum(), (added >= 5).sum(), added.sum())
    assert counts == TIME_SPLITS[name] and first.genes.tolist() == second.genes.tolist()
    assert all(key(a) == key(b) for a, b in zip(first.names, second.names, strict=True))


def test_one_name_per_gene_leaves_fewer_new_genes(local_data):
    """What looks new is often renamed only, so that the splits are smaller than they seem."""
    splits = genesets.time_splits()
    assert list(splits) == list(TIME_SPLITS)
    for name, (old, new) in splits.items():
        added = ((new.csr() - old.csr()) > 0).sum()
        assert len(old) == TIME_SPLITS[name][2] and 0.8 < added / TIME_SPLITS[name][5] < 1


def test_terms_without_a_key_have_no_partner_and_the_first_of_several_counts():
    old = GeneSets.from_lists([["A"], ["B"], ["C"], ["D"]], ["GO:1", "x", "GO:2", "GO:2"])
    new = GeneSets.from_lists([["E"], ["F"], ["G"], ["H"]], ["y", "GO:2", "GO:1", "GO:1"])
    first, second = genesets.matched(old, new, libraries._go)
    assert [first.members(i).tolist() for i in range(2)] == [["A"], ["C"]]
    assert [second.members(i).tolist() for i in range(2)] == [["G"], ["F"]]


def test_libraries_of_all_kinds_get_symbols(local_data):
    for which, known in (
        (("pathways_cc0_himmelstein", None), 0.99),  # Entrez ids
        (("omics_nest_l1000_viral", None), 0.95),
        (("gseapy_enrichr", None), 0.99),
    ):
        sets = genesets.load(*which)
        types = genesets.biotypes(sets.genes)
        weights = np.bincount(sets.indices)
        assert weights[types != ""].sum() / weights.sum() > known
    assert set(sets.libraries) == {"gseapy_enrichr"}
    assert genesets.biotypes(["TP53", "MALAT1", "nobody"]).tolist() == ["protein-coding", "ncRNA", ""]
    with pytest.raises(TypeError, match="part licence holds no gene sets"):
        genesets.load("msigdb_v7.0", "licence")


def test_weights_are_kept_where_the_source_has_them(local_data):
    up = genesets.load(libraries.ENRICHR, "Virus_Perturbations_from_GEO_up", weights=True)
    plain = genesets.load(libraries.ENRICHR, "Virus_Perturbations_from_GEO_up")
    assert plain.weights is None and (up.indices == plain.indices).all()
    assert len(np.unique(up.weights)) > 1000 and np.isfinite(up.weights).all()


def test_notes_of_the_manifest_agree_with_what_is_trained_on():
    parts = manifests.read(libraries.ENRICHR).parts
    noted = {key for key, part in parts.items() if part.note.startswith("Experimental")}
    # lists that users sent in can be lists of a pathway's genes
    assert set(libraries.EXPERIMENTAL) == noted - {"Enrichr_Submissions_TF-Gene_Coocurrence"}
    assert len(set(libraries.EXPERIMENTAL)) == len(libraries.EXPERIMENTAL)
    kept_out = {key for key, part in parts.items() if part.note.startswith("Benchmark")}
    assert {key for dataset, key in libraries.VERSIONS if dataset == libraries.ENRICHR} == kept_out
    everything = set(libraries.corpus_libraries("all"))
    assert set(libraries.corpus_libraries("clean")) < everything
    assert not everything & set(libraries.VERSIONS) and len(everything) == 64 - len(kept_out) + 4


@pytest.fixture(scope="module")
def corpus(local_data):
    return libraries._corpus("clean", 0.5, "jaccard", "keep")


def test_training_sets_are_of_size_distinct_and_unlike_the_benchmark(corpus, tests):
    sets, report = corpus
    assert sets.sizes.min() >= 11 and sets.sizes.max() <= 999 and not genesets.copies(sets).any()
    assert not set(sets.libraries) & ({*BENCHMARK} | {part for _, part in libraries.VERSIONS})
    for name in ("KEGG_2021_Human", "WikiPathway_2023_Human"):
        assert not genesets.overlapping(sets, tests[name], 0.5).any()
    terms = [set(tests["KEGG_2021_Human"].members(i)) for i in range(320)]
    for i in np.random.default_rng(0).choice(len(sets), 200, replace=False):  # by another way
        members = set(sets.members(i))
        assert max(jaccard(members, term) for term in terms) <= 0.5
    assert (report.drop(columns="sets").sum(axis=1) == report["sets"]).all()
    assert report["kept"].sum() == len(sets) and report["like_benchmark"].sum() > 0
    counts = dict(zip(*np.unique(sets.libraries.astype(str), return_counts=True), strict=True))
    assert {k: int(v) for k, v in report["kept"].items() if v} == counts
    assert len(sets) > 20_000 and report.loc["msigdb_v7.0_c2_cgp", "sets"] == 3302


def test_sources_and_licences_are_known(corpus):
    table = genesets.sources(corpus[0])
    assert set(table.index) == set(corpus[0].libraries) and (table["licence"] != "").all()
    assert table.loc["msigdb_v7.0_c2_cgp", "licence"].startswith("MSigDB CC BY 4.0")
    assert genesets.sources(GeneSets.from_lists([["A"]])).empty
    assert {"clean", "human", "main"} <= set(genesets.sources()["part"])


def test_a_mined_corpus_goes_the_same_way(local_data, tmp_path, monkeypatch, caplog):
    """A file in the layout of Rummagene's: copies, copies of a benchmark's term, sizes, years, mice."""
    kegg = genesets.load(libraries.BENCHMARK, "KEGG_2021_Human", resolved=False)
    term = list(kegg.members(int(np.flatnonzero(kegg.sizes == 100)[0])))
    own = [f"OWN{i}" for i in range(20)]
    lines = [
        ("PMC1-a.xlsx-S1-gene", "2019", own), ("PMC2-b.xlsx-S1-gene", "2020", own[::-1]),
        ("PMC3-c.xlsx-S1-gene", "2021", term), ("PMC4-d.xlsx-S1-gene", "2021", term[:51]),
        ("PMC5-e.xlsx-S1-gene", "2022", term[:50]), ("PMC6-f.xlsx-S1-gene", "2022", own[:10]),
        ("PMC7-g.xlsx-S1-gene", "2023", [*own, "Trp53"]), ("PMC8-h.xlsx-S1-gene", "", [*own, "TRP53"]),
    ]  # fmt: skip
    place = tmp_path / "genesets" / "rummagene"
    place.mkdir(parents=True)
    text = "".join("\t".join([name, year, *members]) + "\n" for name, year, members in lines)
    (place / "table-mining-clean.gmt.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("TXFM_LITE_CACHE", str(tmp_path))
    with caplog.at_level(logging.WARNING, "txfm_lite"):
        sets = genesets.training("rummagene")
    assert "8 sets in" in caplog.text and "642,389 in the manifest, which nobody could check" in caplog.text
    assert [name[:4] for name in sets.names] == ["PMC1", "PMC5", "PMC7", "PMC8"]
    assert sets.years.tolist() == [2019, 2022, 2023, 0]
    assert {"Trp53"} <= set(sets.members(2)) and {"TP53"} <= set(sets.members(3))
    merged = genesets.load("rummagene", mouse="upper")
    assert genesets.copies(merged).tolist() == [False, True, *[False] * 5, True]


def test_a_tier_that_is_none_is_named():
    with pytest.raises(ValueError, match="tier is 'best'; it has to be one of 'clean', 'all'"):
        genesets.training("best")


def test_a_file_with_other_numbers_than_its_manifest_is_refused(damaged):
    name = damaged.manifest("few", b"a\t\tA\tB\n", "few.gmt", reader="gene_sets_gmt", role="gene_sets")
    assert len(genesets.load(name)) == 1
    path = damaged.manifests / "few.toml"
    path.write_text(path.read_text() + "n_obs = 2\n")
    manifests.read.cache_clear()
    with pytest.raises(ValueError, match=r"few, part main: 1 sets in .*few\.gmt, 2 in the manifest"):
        genesets.load(name)
