"""Gene identity, on a small table of our own and on the real one."""

import pandas as pd
import pytest

from txfm_lite import genes


@pytest.fixture
def small() -> genes.Resolver:
    table = pd.DataFrame(
        {
            "entrez": ["1", "2", "3", "4"],
            "symbol": ["KMT2A", "HLA-A", "C1orf112", "MT-ND2"],
            "synonyms": ["MLL|ALL1|SHARED", "HLAA|SHARED", "-", "ND2|KMT2A"],
            "ensembl": ["ENSG00000000001", "ENSG00000000002|ENSG00000000022", "", "ENSG00000000001"],
        }
    )
    links = [("KMT2A", "ENSG00000000001"), ("NEWNAME", "ENSG00000000002"), ("C1orf112", "ENSG00000000003")]
    return genes.Resolver(table, [*links, ("FRESH", "ENSG00000000009")])


@pytest.mark.parametrize(
    "name, gene, how",
    [
        ("KMT2A", "KMT2A", "symbol"),  # although another gene claims it as a synonym
        ("MLL", "KMT2A", "alias"),
        ("SHARED", "SHARED", "ambiguous"),  # two genes claim it
        ("ENSG00000000002", "HLA-A", "ensembl"),
        ("ENSG00000000022.5", "HLA-A", "ensembl"),  # a version, and a second id of the same gene
        ("HLA-A_ENSG00000000002", "HLA-A", "ensembl"),
        ("ENSG00000000001", "KMT2A", "ensembl"),  # two genes claim it, the younger list decides
        ("ENSG00000000003", "C1orf112", "ensembl"),  # only the younger list knows it
        ("ENSG00000000009", "FRESH", "ensembl"),
        ("FRESH", "FRESH", "symbol"),
        ("NEWNAME", "HLA-A", "alias"),
        ("HLA.A", "HLA-A", "spelling"),
        ("C1ORF112", "C1orf112", "spelling"),
        ("  MLL ", "KMT2A", "alias"),
        ("4", "MT-ND2", "entrez"),
        ("RP11-34P13.7", "RP11-34P13.7", "unmatched"),
        ("ENSG00000999999.2", "ENSG00000999999", "unmatched"),
    ],
)
def test_each_kind_of_name(small, name, gene, how):
    row = small.resolve([name]).frame.iloc[0]
    assert (row["source_id"], row["gene"], row["how"]) == (name, gene, how)


def test_a_synonym_beside_its_symbol_is_another_feature(small):
    found = small.resolve(["KMT2A", "MLL", "HLA.A"])
    assert found.frame["how"].tolist() == ["symbol", "ambiguous", "spelling"]
    assert found.frame["gene"].tolist() == ["KMT2A", "MLL", "HLA-A"]
    both = small.resolve(["MLL", "ALL1"]).frame
    assert both["how"].tolist() == ["ambiguous", "ambiguous"]


def test_second_names_help_where_the_first_find_nothing(small):
    ids = ["ENSG1", "ENSG2", "ENSG3", "ENSG00000000002"]
    found = small.resolve(ids, also=["MLL", "Y_RNA", "Y_RNA", "KMT2A"]).frame
    assert found["gene"].tolist() == ["KMT2A", "ENSG2", "ENSG3", "HLA-A"]


def test_report_and_identity(small):
    report = small.resolve(["KMT2A", "MLLT", "SHARED", "HLAA"]).report
    assert report == {"matched": 0.5, "alias": 0.25, "spelling": 0.0, "ambiguous": 0.25, "unmatched": 0.25}
    own = genes.Resolver(None, name="identity").resolve(["GENE0001", "MLL"])
    assert own.frame["gene"].tolist() == ["GENE0001", "MLL"] and own.report["matched"] == 1.0


# Independent of the table: today's facts about well-known genes, by name, id and former name.
KNOWN = {
    "ENSG00000141510": "TP53", "ENSG00000146648.18": "EGFR", "7157": "TP53", "MLL": "KMT2A", "OCT4": "POU5F1",
    "HER2": "ERBB2", "DPC4": "SMAD4", "ENSG00000198763": "MT-ND2", "MT-ND2": "MT-ND2", "HLA.DRA": "HLA-DRA",
    "C1ORF43": "C1orf43", "ENSG00000167286": "CD3D", "RTFDC1": "RTFDC1", "NRDC": "NRD1",
}  # fmt: skip


def test_the_real_table_knows_well_known_genes(local_data):
    found = genes.default_resolver().resolve(KNOWN).frame
    assert dict(zip(found["source_id"], found["gene"], strict=True)) == KNOWN
    by_id = found.set_index("source_id")["ensembl_id"]
    assert by_id["MLL"] == "ENSG00000118058" and by_id["7157"] == "ENSG00000141510"


# What the matrices were seen to match; a change to the resolver that loses genes must show.
SHARES = {
    ("pollen_11types", None): 0.97, ("ipsc_cm_timecourse", None): 0.98, ("darmanis_brain", None): 0.96,
    ("kang_ifnb", "pbmc_ctrl"): 0.97, ("kang_ifnb", "kang_se"): 0.99, ("kang_ifnb", "example_sce"): 0.99,
    ("sc_mixology", "single_cells"): 0.94, ("roadmap_57epigenomes", None): 0.95,
    ("gtex_median_tpm", None): 0.99, ("tcga_pancan_cognoma", None): 0.999, ("pbmc4k_v2_2000", None): 0.98,
    ("pbmc_v3_citeseq", "pbmc5k"): 0.86, ("pbmc_1k_v2", None): 0.75, ("compgenomr_counts", None): 0.97,
}  # fmt: skip


@pytest.mark.parametrize("name, part", SHARES)
def test_matched_shares_of_real_data(loaded, name, part):
    adata = loaded(name, part)
    report = adata.uns["source"]["genes"]
    assert report["matched"] > SHARES[name, part]
    assert report["matched"] + report["ambiguous"] + report["unmatched"] == pytest.approx(1.0)
    if adata.uns["source"]["units"] in ("UMI counts", "read counts"):
        assert report["matched_counts"] > 0.96  # what is unknown is mostly silent
    assert adata.var_names.is_unique


def test_out_of_reach_gene_tables_leave_names_as_they_are(monkeypatch, caplog):
    def nothing(*_):
        raise genes.files.Unreachable("no network")

    monkeypatch.setattr(genes.files, "fetch", nothing)
    resolver = genes.default_resolver.__wrapped__()
    assert resolver.name == "identity" and "out of reach" in caplog.text
    assert resolver.resolve(["MLL"]).frame["gene"].tolist() == ["MLL"]
