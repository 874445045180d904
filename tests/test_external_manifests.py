"""Manifests of public data that lie elsewhere, their readers, and what comes with the dependencies."""

import gzip
import re
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from anndata import AnnData

from txfm_lite import atlases, datasets, manifests, simulate

# Table 1 of Kenyon-Dean et al. 2026: samples and genes of DiverseRNA-1.4M
NINE = {
    "replogle2022_k562_crispri": (502_080, 8_248),
    "ruizmoreno2022_gbmap": (504_929, 21_310),
    "mcfarland2020_mixseq": (102_205, 15_438),
    "srivatsan2020_sciplex": (99_300, 18_486),
    "nowickiosuch2023_gastric": (88_399, 16_445),
    "guimaraes2024_tme": (71_585, 17_619),
    "wu2021_breast": (31_542, 24_712),
    "weinstein2013_tcga": (23_733, 19_594),
    "gtex2020_v8": (10_526, 36_695),
}
EVALUATION = ["replogle2022_rpe1_crispri", "nadig2025_hepg2_crispri", "nadig2025_jurkat_crispri"]
CELL_TYPES = ["luecken2022_pancreas", "pbmc12k_batches", "pbmc68k_zheng", "dominguezconde2022_panimmune"]
CELL_TYPES += ["tabula_sapiens_v1"]
GENE_SETS = ["rummagene", "rummageo"]
SIMULATED = [design.name for design in simulate.STUDIES]


@pytest.mark.parametrize("name", [*NINE, *EVALUATION, *CELL_TYPES, *GENE_SETS])
def test_downloads_are_named_and_marked_unverified(name):
    manifest = manifests.read(name)
    assert manifest.files and manifest.parts
    assert {file for part in manifest.parts.values() for file in part.files} == {
        f.file for f in manifest.files
    }
    for file in manifest.files:
        assert file.url.startswith("https://")
        assert file.sha256 == "unverified"
    assert "Neither the checksum" in " ".join(manifest.note.split())
    assert manifest.citation and manifest.licence


def test_the_nine_have_the_published_numbers():
    found = {}
    for name in NINE:
        manifest = manifests.read(name)
        table = re.match(r"Table 1 of the TxFM paper: (\d+) samples x (\d+) genes\.", manifest.note)
        assert table, f"{name}: its note does not begin with the published numbers"
        found[name] = tuple(int(n) for n in table.groups())
        part = manifest.part()
        assert (
            manifest.role == "train" and part.n_obs != found[name][0]
        )  # n_obs is the file's, before any filter
    assert found == NINE
    assert sum(samples for samples, _ in found.values()) == 1_434_299


def test_roles():
    assert {manifests.read(name).role for name in [*EVALUATION, *CELL_TYPES]} == {"held_out"}
    assert {manifests.read(name).role for name in GENE_SETS} == {"gene_sets"}


# --- readers of large public files ------------------------------------------------------------------------


@pytest.fixture
def counts():
    return sp.random(
        7, 5, density=0.5, format="csr", random_state=0, data_rvs=lambda n: np.arange(1.0, n + 1)
    )


def test_h5ad_takes_counts_from_where_they_are(tmp_path, counts):
    genes = pd.DataFrame({"feature_name": list("ABCDE")}, index=[f"ENSG{i}" for i in range(5)])
    cells = pd.DataFrame(
        {"perturbation": ["control", "X", "Y", None, "X", "X", "control"]}, index=list("tuvwxyz")
    )
    full = AnnData(counts, obs=cells, var=genes)
    adata = AnnData(np.log1p(counts)[:, :3], obs=cells, var=genes[:3], layers={"counts": counts[:, :3]})
    adata.raw = full
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)

    raw = atlases.h5ad([path], matrix="raw", symbol="feature_name", control="control")
    assert (counts != raw.X).nnz == 0 and raw.shape == (7, 5)
    assert list(raw.var["symbol"]) == list("ABCDE")
    assert raw.obs["control"].tolist()[:3] == [True, False, False] and raw.obs["control"].isna().sum() == 1
    layer = atlases.h5ad([path], matrix="counts")
    assert (counts[:, :3] != layer.X).nnz == 0
    plain = atlases.h5ad([path])
    assert np.allclose(plain.X.toarray(), np.log1p(counts)[:, :3].toarray())

    with zipfile.ZipFile(tmp_path / "b.h5ad.zip", "w") as archive:
        archive.write(path, "inside/b.h5ad")
    zipped = atlases.h5ad([tmp_path / "b.h5ad.zip"], matrix="raw")
    assert (counts != zipped.X).nnz == 0


def test_mtx_archive(tmp_path, counts):
    folder = tmp_path / "study"
    folder.mkdir()
    scipy.io.mmwrite(folder / "count_matrix.mtx", counts.T.tocoo())
    barcodes = [f"ACGT{i}-{1 + i % 2}" for i in range(7)]
    (folder / "barcodes.tsv").write_text("\n".join(barcodes) + "\n")
    (folder / "genes.tsv").write_text("".join(f"ENSG{i}\tG{i}\n" for i in range(5)))
    with tarfile.open(tmp_path / "study.tar.gz", "w:gz") as archive:
        archive.add(folder, "study")
    labels = pd.DataFrame({"barcodes": barcodes[::-1], "celltype": list("gfedcba")})
    labels.to_csv(tmp_path / "labels.tsv", sep="\t", index=False)

    adata = atlases.mtx_archive([tmp_path / "study.tar.gz", tmp_path / "labels.tsv"])
    assert (counts != adata.X).nnz == 0
    assert adata.obs["celltype"].tolist() == list("abcdefg")  # joined by barcode, not by position
    assert adata.obs["lane"].tolist() == list("1212121")
    assert adata.var["symbol"].tolist() == [f"G{i}" for i in range(5)]


@pytest.mark.parametrize("log2", [False, True])
def test_large_table(tmp_path, counts, log2):
    samples = [f"S{i}" for i in range(7)]
    values = counts.T.toarray()
    values = np.round(np.log2(values + 1), 4) if log2 else values.astype(int)
    table = pd.DataFrame(values, index=[f"ENSG{i}.1" for i in range(5)], columns=samples)
    table.insert(0, "Description", "text")
    path = tmp_path / "table.gct.gz"
    table.rename_axis("Name").to_csv(path, sep="\t")
    if not log2:  # a GCT file has two lines before its header
        body = gzip.decompress(path.read_bytes()).decode()
        with gzip.open(path, "wt") as file:
            file.write("#1.2\n5\t7\n" + body)
    pd.DataFrame({"SAMPID": samples[::-1], "SMTSD": range(7)}).to_csv(
        tmp_path / "s.txt", sep="\t", index=False
    )
    adata = atlases.large_table(
        [path, tmp_path / "s.txt"], skip_lines=0 if log2 else 2, drop_columns=["Description"], log2=log2,
        sample_key="SAMPID",
    )  # fmt: skip
    assert adata.X.format == "csr" and adata.X.dtype == np.float32
    assert np.allclose(adata.X.toarray(), counts.toarray(), rtol=1e-3)
    assert adata.obs["SMTSD"].tolist() == list(range(7))[::-1]
    assert adata.var_names[0] == "ENSG0.1"


# --- what comes with the dependencies ---------------------------------------------------------------------


def test_pbmc68k_reduced_gives_counts_back():
    import scanpy

    adata = datasets.load("pbmc68k_reduced")
    assert adata.shape == (700, 765)
    assert adata.uns["source"]["units"] == "UMI counts" and adata.uns["source"]["role"] == "held_out"
    assert adata.obs["cell_type"].nunique() == 10 and adata.obs["batch"].nunique() == 8
    # normalising the counts again must give scanpy's own values, up to their three decimals
    total = adata.obs["n_counts"].to_numpy(dtype=float)[:, None]
    again = np.log1p(adata.X.toarray() / total * 1e4)
    theirs = scanpy.datasets.pbmc68k_reduced().raw.X.toarray()
    assert np.abs(again - theirs).max() < 1e-3
    share = adata.X.sum(axis=1) / total
    assert share.min() > 0.1 and share.max() < 0.3  # the panel's part of the cell's total


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_studies_load_like_any_other(name):
    adata, made = datasets.load(name), simulate.study(name)
    assert (adata.X != made.X).nnz == 0
    assert adata.var_names.equals(made.var_names)
    assert np.array_equal(simulate.expected(adata.uns["truth"])[0], simulate.expected(made.uns["truth"])[0])
    assert adata.uns["source"]["role"] == made.uns["source"]["role"]
    assert adata.uns["source"]["units"] == made.uns["source"]["units"]
    assert adata.obs["batch"].tolist() == made.obs["batch"].tolist()
    assert adata.obs["cell_type"].isna().all() == made.obs["cell_type"].isna().all()


def test_simulated_guides_keep_their_controls():
    obs = datasets.load("simulated_d").obs
    assert ((obs["perturbation"] == "control") == obs["is_control"].astype(bool)).all()
    assert 0.2 < obs["is_control"].mean() < 0.4
