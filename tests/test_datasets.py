"""Real data by name, with the numbers their sources state, and what happens to damaged files."""

import functools
import logging
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from txfm_lite import datasets, files, manifests, readers, tables

# --- real matrices ----------------------------------------------------------------------------------------

# Samples and genes in the files, distinct cell types and batches, as the sources state them.
MATRICES = {
    ("pbmc_facs_zheng", "main"): (3774, 16791, 10, 10),
    ("pbmc_facs_zheng", "test"): (100, 16791, 10, 10),
    ("pbmc_sorted_donorA_mudan", "donorA"): (2896, 13939, 0, 1),
    ("pbmc_sorted_donorA_mudan", "reference"): (2140, 8863, 9, 9),
    ("pbmc_1k_v2", "main"): (996, 33538, 0, 1),
    ("pbmc_v3_citeseq", "pbmc5k"): (200, 16581, 0, 1),
    ("pbmc_v3_citeseq", "pbmc10k"): (200, 16727, 0, 1),
    ("pbmc4k_v2_2000", "main"): (2000, 4060, 9, 1),
    ("pbmc_multilane_pisces", "main"): (1000, 58828, 0, 16),
    ("kang_ifnb", "kang_se"): (12261, 1287, 8, 8),
    ("kang_ifnb", "kang"): (8684, 2511, 4, 5),
    ("kang_ifnb", "example_sce"): (1556, 1267, 5, 4),
    ("kang_ifnb", "pbmc_ctrl"): (1000, 9015, 8, 9),
    ("kang_ifnb", "pbmc_stim"): (1000, 9015, 5, 3),
    ("breast_copykat", "main"): (302, 33694, 0, 1),
    ("pollen_11types", "main"): (299, 23794, 11, 0),
    ("ipsc_cm_timecourse", "main"): (315, 15724, 5, 0),
    ("blakeley_blastocyst", "main"): (30, 23794, 3, 0),
    ("sc_mixology", "single_cells"): (1408, 11533, 5, 5),
    ("sc_mixology", "celseq2"): (274, 28204 - 62, 3, 1),
    ("sc_mixology", "celseq2_5cl_p1"): (297, 15564 - 34, 5, 1),
    ("sc_mixology", "celseq2_5cl_p2"): (307, 14078 - 29, 5, 1),
    ("sc_mixology", "celseq2_5cl_p3"): (305, 13426 - 28, 5, 1),
    ("sc_mixology", "dropseq"): (225, 15127, 3, 1),
    ("sc_mixology", "RNAmix_celseq2"): (340, 14804 - 27, 0, 1),
    ("sc_mixology", "RNAmix_sortseq"): (296, 15571 - 44, 0, 1),
    ("sc_mixology", "cellmix1"): (266, 11798 - 16, 0, 1),
    ("sc_mixology", "cellmix2"): (268, 13747 - 20, 0, 1),
    ("sc_mixology", "cellmix3"): (285, 14053 - 19, 0, 1),
    ("sc_mixology", "cellmix4"): (288, 15149 - 25, 0, 1),
    ("sc_mixology", "cellmix5"): (21, 29858 - 33, 0, 1),
    ("sc_mixology_10x_hvg", "main"): (895, 894, 3, 1),
    ("pbmc3k_annotated", "main"): (2700, 13714, 9, 1),
    ("pbmc3k_allgenes", "main"): (2700, 32738, 0, 1),
    ("darmanis_brain", "main"): (466, 22088 - 3, 9, 16),
    ("pbmc_3tech_symphony", "main"): (1200, 1767, 9, 3),
    ("onek1k_40donors", "main"): (7811, 1000, 4, 29),
    ("pancreas_3batch_cepo", "main"): (528, 1403, 2, 3),
    ("papalexi2021_eccite_thp1", "main"): (20729, 299, 1, 3),
    ("gasperini2019_k562_highmoi", "main"): (40002, 366, 1, 2),
    ("morphic_bulk_ko_deseq2", "signatures"): (11, 16593, 1, 4),
    ("morphic_bulk_ko_deseq2", "GCM1_2023_12"): (3, 23493, 1, 1),
    ("morphic_bulk_ko_deseq2", "GCM1_2024_09"): (1, 18424, 1, 1),
    ("tcga_brca_counts_tcgabiolinks", "main"): (1172, 1354, 0, 29),
    ("gtex_brain_counts_damirseq", "main"): (40, 21363, 0, 2),
    ("roadmap_57epigenomes", "main"): (57, 19795, 56, 0),
    ("compgenomr_counts", "SRP029880"): (10, 19719, 0, 1),
    ("compgenomr_counts", "SRP049988"): (10, 19719, 0, 1),
    ("tcga_pancan_cognoma", "main"): (148, 16261, 0, 115),
    ("hpa_rna_tables", "extended"): (130, 19670, 130, 0),
    ("hpa_rna_tables", "blood"): (19, 19670, 19, 0),
    ("gtex_median_tpm", "main"): (34, 18392, 0, 0),
}


@pytest.mark.parametrize("name, part", MATRICES)
def test_every_matrix_loads_with_its_numbers(loaded, name, part):
    adata = loaded(name, part)
    n_obs, n_vars, types, batches = MATRICES[name, part]
    source = adata.uns["source"]
    assert (source["n_obs_in_files"], source["n_vars_in_files"]) == (n_obs, n_vars)
    assert adata.shape == (
        n_obs - source["empty_cells_dropped"], n_vars - source["genes"]["duplicates_summed"],
    )  # fmt: skip
    assert (adata.obs["cell_type"].nunique(), adata.obs["batch"].nunique()) == (types, batches)
    assert sp.isspmatrix_csr(adata.X) and adata.X.dtype == np.float32 and adata.X.has_sorted_indices
    assert list(adata.obs.columns[:9]) == list(manifests.STANDARD_OBS)
    assert adata.obs_names.is_unique and adata.var_names.is_unique
    assert {"gene_symbols", "ensembl_id", "source_id", "matched"} <= set(adata.var.columns)
    assert set(source["files"]) == set(manifests.read(name).part(part).files)
    whole = bool((adata.X.data == np.rint(adata.X.data)).all())
    assert whole == (source["units"] in datasets.WHOLE_UNITS)
    assert source["empty_cells_dropped"] == 0


def test_no_local_matrix_is_forgotten(local_data):
    table = datasets.available()
    here = table[
        (table["here"] == "yes") & table["units"].ne("") & ~table["role"].isin(["gene_sets", "genes"])
    ]
    rest = set(here.index) - set(MATRICES)
    others = {(name, part) for name, part in rest if name != "morphic_bulk_ko_deseq2"}
    assert {name for name, _ in others} <= {"pbmc68k_reduced"} | {f"simulated_{x}" for x in "abcdefg"}


def test_loading_adds_and_loses_nothing(loaded, local_data):
    """The sums of the text file itself, by another reader than ours."""
    raw = np.genfromtxt(
        local_data / "sc/sc_mixology/cellmix5.count.csv.gz", delimiter=",", skip_header=1, dtype=str
    )
    genes = np.char.strip(raw[:, 0], '"')
    counts = raw[:, 1:].astype(float)[~np.char.startswith(genes, "ERCC-")]
    adata = loaded("sc_mixology", "cellmix5")
    np.testing.assert_array_equal(np.asarray(adata.X.sum(axis=1)).ravel(), counts.sum(axis=0))
    assert np.median(raw[:, 1:].astype(float).sum(axis=0)) == 611_257  # as the data's description states


def test_darmanis(loaded):
    adata = loaded("darmanis_brain", None)
    assert np.median(np.asarray(adata.X.sum(axis=1))) == 519_020
    assert not adata.var_names.isin(["no_feature", "ambiguous", "alignment_not_unique"]).any()
    assert adata.obs["donor"].nunique() == 12 and adata.obs["age"].nunique() == 8
    assert set(adata.obs["tissue"]) == {"cortex", "hippocampus"}


def test_symphony_is_inverted_to_counts(loaded):
    adata = loaded("pbmc_3tech_symphony", None)
    assert adata.X.max() > 100 and (adata.X.data >= 1).all()
    assert (np.asarray(adata.X.sum(axis=1)).ravel() <= adata.obs["nUMI"]).all()
    assert adata.obs["batch"].value_counts().to_dict() == {"3pv2": 480, "5p": 430, "3pv1": 290}


def test_kang_parts_nest_and_share_columns(loaded):
    barcodes = {p: set(loaded("kang_ifnb", p).obs["barcode"]) for p in manifests.read("kang_ifnb").parts}
    assert barcodes["kang"] < barcodes["kang_se"]
    assert len(barcodes["pbmc_ctrl"] & barcodes["kang_se"]) == 954
    assert loaded("kang_ifnb", "pbmc_ctrl").obs["cell_type"].notna().sum() == 954
    assert loaded("kang_ifnb", "pbmc_stim").obs["cell_type"].notna().sum() == 59
    both = loaded("kang_ifnb", "example_sce").obs
    assert set(both["batch"]) == {"ctrl_101", "ctrl_107", "stim_101", "stim_107"}
    assert (both["is_control"] == (both["perturbation"] == "none")).all() and both["is_control"].sum() == 750
    assert set(loaded("kang_ifnb", "pbmc_ctrl").obs["batch"]) >= {"ctrl", "ctrl_1015"}


def test_shared_cells_of_two_studies_are_seen_by_barcode(loaded):
    zheng = loaded("pbmc_facs_zheng", "main").obs["barcode"]
    reference = loaded("pbmc_sorted_donorA_mudan", "reference").obs["barcode"]
    assert 127 <= len(set(zheng) & set(reference)) <= 133


def test_pbmc_labels(loaded):
    four = loaded("pbmc4k_v2_2000", None)
    assert four.obs["cell_type"].notna().sum() == 1999
    dense = four[:, ["CD3D", "MS4A1", "LYZ"]].to_df()
    means = dense.groupby(four.obs["cell_type"].to_numpy()).mean()
    assert means["MS4A1"].idxmax() == "B cells"
    assert means.loc["CD14+ Monocytes", "LYZ"] > 20 * means.loc["CD4 T cells", "LYZ"]
    three, all_genes = loaded("pbmc3k_annotated", None), loaded("pbmc3k_allgenes", None)
    assert three.obs["cell_type"].isna().sum() == 62
    assert three.obs["barcode"].tolist() == all_genes.obs["barcode"].tolist()


def test_pisces_names_lose_their_blanks(loaded):
    adata = loaded("pbmc_multilane_pisces", None)
    assert adata.var["source_id"].str.startswith(" ").sum() == 4341
    assert not adata.var_names.str.contains(r"^\s|\s$").any()
    assert adata.var.loc["TAZ", "source_id"] == "  TAZ"


def test_mixtures_keep_their_truth(loaded):
    rna = loaded("sc_mixology", "RNAmix_celseq2").obs
    shares = rna[["H2228_prop", "H1975_prop", "HCC827_prop"]]
    assert len(shares.round(2).drop_duplicates()) == 7 and rna["mRNA_amount"].nunique() == 4
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=0.02)
    cells = loaded("sc_mixology", "single_cells")
    assert cells.obs["technology"].value_counts().to_dict() == {"CEL-seq2": 1183, "Drop-seq": 225}
    alone = loaded("sc_mixology", "dropseq")
    shared = alone.var_names.intersection(cells.var_names)
    piece = cells[cells.obs["batch"] == "dropseq"]
    # a gene with two Ensembl ids of which only one is on all plates has fewer counts in the joint matrix
    differ = np.unique((piece[:, shared].X != alone[:, shared].X).nonzero()[1])
    assert len(shared) == cells.n_vars and len(differ) <= 3


def test_papalexi_guides(loaded):
    adata = loaded("papalexi2021_eccite_thp1", None)
    counts = adata.obs["perturbation"].value_counts()
    assert len(counts) == 26
    assert counts[["non-targeting", "IFNGR1", "STAT1", "MYC", "SPI1"]].tolist() == [2386, 1341, 444, 109, 48]
    assert adata.obs["batch"].value_counts().tolist() == [9428, 6001, 5300]
    assert adata.obs["is_control"].sum() == 2386
    assert (adata.obs["guide_share"] > 0.8).mean() == pytest.approx(0.776, abs=5e-4)
    assert adata.X.nnz == 1_390_126 and adata.X.max() == 278 and adata.obsm["guides"].shape == (20729, 110)
    per_thousand = AnnData(adata.X.toarray() / np.asarray(adata.X.sum(axis=1)) * 1000, adata.obs, adata.var)
    stat1 = np.log1p(per_thousand[:, "STAT1"].X.ravel())
    by_target = pd.Series(stat1).groupby(adata.obs["perturbation"].to_numpy()).mean()
    assert by_target["non-targeting"] == pytest.approx(3.99, abs=0.02)
    assert by_target["STAT1"] == pytest.approx(1.63, abs=0.02)


def test_gasperini_guides(loaded):
    adata = loaded("gasperini2019_k562_highmoi", None)
    assert adata.X.nnz == 4_556_731 and adata.X.max() == 752
    guides = adata.obsm["guides"]
    assert guides.nnz == 16_335 and guides.shape == (40002, 79)
    assert adata.obs["n_guides"].sum() == (guides.data >= 5).sum()
    carries = adata.obs["n_guides"] > 0
    assert (adata.obs["perturbation"].notna() == carries).all()
    assert (adata.obs["is_control"].notna() == carries).all()
    single = adata[adata.obs["perturbation"] == "CITED2_TSS"]
    others = adata[adata.obs["is_control"].fillna(False)]
    assert (
        single[:, "CITED2"].X.mean() < 0.5 * others[:, "CITED2"].X.mean()
    )  # the guide does silence its target


def test_bulk_tables(loaded):
    roadmap = loaded("roadmap_57epigenomes", None)
    tspan6 = roadmap[:, roadmap.var["source_id"] == "ENSG00000000003"]
    assert tspan6["E000"].X[0, 0] == 3211 and tspan6["E003"].X[0, 0] == 22232  # not shifted by one
    assert (
        roadmap.obs["TYPE"].value_counts()["PrimaryTissue"] == 21 and roadmap.obs["tissue"].isna().sum() == 1
    )
    hpa = loaded("hpa_rna_tables", "extended")
    assert np.isnan(hpa.X.data).sum() >= 19_000 and hpa.obs["Category"].notna().all()  # blanks stripped
    assert hpa.obs["Category"].str.startswith("CL:").sum() == 69
    brca = loaded("tcga_brca_counts_tcgabiolinks", None).obs["disease"].value_counts()
    assert brca.tolist() == [1052, 113, 7]
    pancan = loaded("tcga_pancan_cognoma", None)
    assert pancan.obs["disease"].nunique() == 30 and pancan.obs["acronym"].value_counts()["BRCA"] == 12
    gtex = loaded("gtex_brain_counts_damirseq", None)
    assert gtex.obs["tissue"].value_counts().tolist() == [20, 20]
    assert 38e6 < np.asarray(gtex.X.sum(axis=1)).min() < 39e6
    tpm = np.asarray(loaded("gtex_median_tpm", None).X.sum(axis=1))
    assert tpm.min() > 0.67e6 and tpm.max() < 1.03e6
    cepo = loaded("pancreas_3batch_cepo", None)
    fractional = np.asarray(abs(cepo.X - cepo.X.rint()).sum(axis=1)).ravel() > 0
    assert set(cepo.obs["batch"][fractional]) == {"batch 5"}


def test_morphic_signatures(loaded):
    adata = loaded("morphic_bulk_ko_deseq2", "signatures")
    strong = (adata.layers["padj"] < 0.05) & (np.abs(adata.X.toarray()) > 1)
    changed = pd.Series(strong.sum(axis=1), adata.obs_names)
    assert adata.obs["perturbation"].nunique() == 8 and adata.obs["strategy"].nunique() == 3
    assert changed["VGLL1_PTC_2025_06"] < 400 < 2000 < changed["MSX2_PTC_2025_06"]
    same = np.corrcoef(adata["GCM1_CE_2023_12"].X.toarray(), adata["GCM1_KO_2023_12"].X.toarray())[0, 1]
    assert same == pytest.approx(0.935, abs=0.02)


def test_proteins_come_along(loaded):
    adata = loaded("pbmc_v3_citeseq", "pbmc5k")
    assert adata.obsm["protein_expression"].shape[0] == 200


def test_cells_and_values_survive_a_file(loaded, tmp_path):
    import anndata

    for name, part in (
        ("kang_ifnb", "pbmc_ctrl"),
        ("gasperini2019_k562_highmoi", None),
        ("darmanis_brain", None),
    ):
        adata = loaded(name, part)
        adata.write_h5ad(tmp_path / "copy.h5ad")
        assert (anndata.read_h5ad(tmp_path / "copy.h5ad").X != adata.X).nnz == 0


# --- real tables ------------------------------------------------------------------------------------------

GENE_SETS = {
    ("enrichr_rummageo_benchmark", "GO_Biological_Process_2023"): (5407, 14698, 2028),
    ("enrichr_rummageo_benchmark", "Human_Phenotype_Ontology"): (1779, 3096, 1722),
    ("gseapy_enrichr", "main"): (6036, 14937, 2244),
    ("msigdb_v7.0", "hallmark"): (50, 4384, 200),
    ("msigdb_v7.0", "c2_cgp"): (3302, 20181, 1989),
    ("pathways_cc0_himmelstein", "main"): (1862, 9222, 2004),
    ("chea3_chea2016", "main"): (307, 20163, 5778),
    ("omics_nest_l1000_viral", "main"): (300, 6260, 100),
    ("enrichr_2020_libraries", "GeneSigDB"): (2139, 23726, 17122),
    ("enrichr_2020_libraries", "KEGG_2016"): (293, 7010, 1239),
    ("enrichr_2020_libraries", "Transcription_Factor_PPIs"): (290, 6002, 957),
    ("efaar_benchmark_annotations", "CORUM_clusters"): (2696, 3541, 139),
}


@pytest.mark.parametrize("name, part", GENE_SETS)
def test_gene_sets_have_their_numbers(local_data, name, part):
    table = datasets.read(name, part)
    sets, genes, largest = GENE_SETS[name, part]
    assert list(table.columns) == ["name", "description", "genes"]
    sizes = table["genes"].map(len)
    assert (len(table), len(set().union(*table["genes"])), sizes.max()) == (sets, genes, largest)
    assert not table["genes"].explode().dropna().str.contains(",").any()  # no weights left


def test_every_enrichr_library_is_readable(local_data):
    parts = manifests.read("enrichr_2020_libraries").parts
    assert len(parts) == 64
    assert sum(len(datasets.read("enrichr_2020_libraries", part)) for part in parts) > 31_447


@pytest.mark.parametrize(
    "part, rows, pairs, genes",
    [("CORUM", 75298, 37649, 3505), ("HuMAP", 117076, 58538, 7368), ("Reactome", 22865, 18565, 4509),
     ("SIGNOR", 12177, 11617, 4544), ("StringDB", 116118, 58059, 10335)],
)  # fmt: skip
def test_relationships_have_their_numbers(local_data, part, rows, pairs, genes):
    table = datasets.read("efaar_benchmark_annotations", part)
    unordered = {frozenset(pair) for pair in table.to_numpy() if pair[0] != pair[1]}
    assert (len(table), len(unordered)) == (rows, pairs)
    assert len(set(table.to_numpy().ravel())) == genes


def test_gene_tables(local_data):
    info = datasets.read("ncbi_gene_info_2016")
    coding = info[info["type_of_gene"] == "protein-coding"]
    assert (len(info), len(coding), coding["references"].str.contains("Ensembl:").sum()) == (
        56425,
        20971,
        17424,
    )
    assert len(datasets.read("scfoundation_gene_index")) == 19264
    tokens = datasets.read("geneformer_v1_dictionaries", "tokens")
    assert set(tokens["key"]) >= {"<pad>", "<mask>"} and len(tokens) == 25426
    medians = datasets.read("geneformer_v1_dictionaries", "medians")
    assert len(medians) == 25424 and medians["median"].gt(0).all()


def test_every_other_table_is_readable(local_data):
    parts = [
        ("gasperini2019_k562_highmoi", "discovery_pairs"),
        ("gasperini2019_k562_highmoi", "positive_control_pairs"),
    ]
    parts += [("efaar_benchmark_annotations", "licence"), ("msigdb_v7.0", "licence")]
    parts += [
        ("morphic_bulk_ko_deseq2", f"samples_{r}") for r in ("2023_12", "2024_06", "2024_09", "2025_06")
    ]
    for name, part in parts:
        assert len(datasets.read(name, part))


def test_load_and_read_send_to_each_other(local_data):
    with pytest.raises(TypeError, match="use datasets.read"):
        datasets.load("efaar_benchmark_annotations", "SIGNOR")
    with pytest.raises(TypeError, match="use datasets.load"):
        datasets.read("blakeley_blastocyst")


def test_available_and_describe(local_data):
    table = datasets.available()
    assert table.loc[("darmanis_brain", "main"), ["role", "n_obs", "here"]].tolist() == [
        "held_out",
        466,
        "yes",
    ]
    text = datasets.describe("efaar_benchmark_annotations")
    assert "commercial use limited" in text and "part CORUM" in text


def test_source(local_data, monkeypatch, tmp_path):
    assert datasets.source() == "local"
    monkeypatch.setenv("TXFM_LITE_DATA", str(tmp_path))
    monkeypatch.setenv("TXFM_LITE_CACHE", str(tmp_path))

    def offline(url, *_):
        raise files.Unreachable(url)

    monkeypatch.setattr(files, "_download", offline)
    assert datasets.source(["darmanis_brain"]) == "embedded"


# --- a pickle is a programme ------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return (print, ("the pickle ran code",))


@pytest.mark.parametrize(
    "content", [{"a": Malicious()}, {"a": functools.partial(print)}, ["not a dictionary"]]
)
def test_pickles_with_anything_but_plain_values_are_refused(tmp_path, capsys, content):
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(pickle.UnpicklingError, match="refused|not a dictionary"):
        tables.pickled_dictionary([path], value="x")
    assert capsys.readouterr().out == ""


# --- damaged copies of real data --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cells(local_data) -> AnnData:
    """Sixty real cells, as the file has them."""
    adata = readers.h5ad([local_data / "sc/pbmc_v3_citeseq/pbmc_5k_protein_v3.h5ad"])[:60, 3000:6000]
    return AnnData(sp.csr_matrix(adata.X), obs=adata.obs[[]].copy(), var=adata.var[[]].copy())


def test_an_undamaged_copy_loads(damaged, cells):
    adata = datasets.load(damaged.matrix("fine", cells))
    assert adata.shape == (60, 3000) and adata.X.sum() == cells.X.sum()


def _set(value):
    def change(adata):
        adata.X.data[5] = value

    return change


def _log(adata):
    adata.X.data = np.log1p(adata.X.data)


def _normalise(adata):
    adata.X = sp.csr_matrix(np.log1p(adata.X.toarray() / np.asarray(adata.X.sum(axis=1)) * 1e4))


@pytest.mark.parametrize(
    "change, message",
    [
        (_set(-3.0), "bad: 1 values are negative"),
        (_set(np.nan), "bad: 1 values are missing or infinite"),
        (_set(np.inf), "bad: 1 values are missing or infinite"),
        (_set(2.5), r"bad: 1 values are not whole numbers \(for example 2.5\)"),
        (_log, "bad: the values look log-transformed"),
        (_normalise, "bad: the values look log-transformed"),
    ],
)
def test_values_that_are_no_counts(damaged, cells, change, message):
    adata = cells.copy()
    adata.X = adata.X.astype(np.float64)
    change(adata)
    with pytest.raises(ValueError, match=message):
        datasets.load(damaged.matrix("bad", adata))


def test_fractions_are_welcome_where_the_manifest_says_so(damaged, cells):
    adata = cells.copy()
    adata.X.data[5] = 2.5
    assert datasets.load(damaged.matrix("estimates", adata, units="expected counts")).n_obs == 60
    _log(adata)
    with pytest.raises(ValueError, match="look log-transformed"):
        datasets.load(damaged.matrix("logged", adata, units="expected counts"))


def test_a_cell_that_occurs_twice_is_an_error(damaged, cells):
    names = cells.obs_names.tolist()
    twice = AnnData(cells.X, obs=pd.DataFrame(index=[names[1], *names[1:]]), var=cells.var)
    with (
        pytest.warns(UserWarning, match="Observation names"),
        pytest.raises(ValueError, match="more than once"),
    ):
        datasets.load(damaged.matrix("twice", twice))


def test_empty_cells_are_left_out_and_logged(damaged, cells, caplog):
    x = cells.X.copy().tolil()
    x[[4, 9]] = 0
    with caplog.at_level(logging.WARNING, logger="txfm_lite"):
        adata = datasets.load(damaged.matrix("empty", AnnData(x.tocsr(), cells.obs, cells.var)))
    assert adata.n_obs == 58 and adata.uns["source"]["empty_cells_dropped"] == 2
    assert "empty: 2 empty cells left out" in caplog.text
    assert cells.obs_names[4] not in adata.obs_names


@pytest.mark.filterwarnings("ignore:Variable names")
def test_rows_of_one_gene_are_summed_and_logged(damaged, cells, caplog):
    names = cells.var_names.tolist()
    found = datasets.genes.default_resolver().resolve(names).frame
    first = int(found.index[found["how"] == "symbol"][0])
    var = pd.DataFrame({"highly_variable": False}, index=[*names[:-1], names[first]])
    var.iloc[[5, -1]] = True
    doubled = AnnData(cells.X, obs=cells.obs, var=var)
    with caplog.at_level(logging.INFO, logger="txfm_lite"):
        adata = datasets.load(damaged.matrix("doubled", doubled))
    assert adata.n_vars == 2999 and adata.uns["source"]["genes"]["duplicates_summed"] == 1
    assert "1 rows of repeated genes summed" in caplog.text
    expected = cells.X[:, [first, -1]].sum(axis=1)
    np.testing.assert_array_equal(adata[:, names[first]].X.toarray(), expected)
    flagged = adata.var_names[adata.var["highly_variable"]]
    assert set(flagged) == set(found["gene"].iloc[[5, first]])


def test_the_manifest_and_the_file_disagree(damaged, cells):
    name = damaged.matrix("other_size", cells)
    path = damaged.manifests / "other_size.toml"
    path.write_text(path.read_text() + "n_obs = 61\n")
    with pytest.raises(ValueError, match="other_size: n_obs is 60 in the files, but 61 in the manifest"):
        datasets.load(name)
    path.write_text(path.read_text().replace("61", '60\nobs = {cell_type = "kind"}'))
    manifests.read.cache_clear()
    with pytest.raises(ValueError, match="obs.cell_type is to come from 'kind'"):
        datasets.load(name)
