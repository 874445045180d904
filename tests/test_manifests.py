"""Manifests: the committed ones, and those with faults."""

import csv
import re

import pytest

from txfm_lite import manifests

ALL = manifests.names()


def test_every_manifest_is_read_and_complete():
    assert len(ALL) >= 37
    for name in ALL:
        manifest = manifests.read(name)
        assert manifest.name == name and manifest.parts, name
        for file in manifest.files:
            pinned = re.search(r"/[0-9a-f]{40}/", file.url)
            assert pinned or file.sha256 == "unverified", f"{name}: {file.url} may change"
        used = {file for part in manifest.parts.values() for file in part.files}
        assert used == {file.file for file in manifest.files}, f"{name}: files that no part uses"


def test_the_manifests_list_every_local_file_with_its_checksum(local_data):
    table = local_data / "files.csv"
    if not table.is_file():
        pytest.skip("this data directory has no files.csv")
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 178
    for row in rows:
        manifest = manifests.read(row["slug"])
        entry = manifest.file(row["file"])
        assert manifest.group == row["group"]
        assert (entry.sha256, entry.bytes) == (row["sha256"], int(row["bytes"]))
        assert f"/{row['repo']}/{row['commit']}/" in entry.url


@pytest.mark.parametrize(
    "name, part, role",
    [
        ("kang_ifnb", "pbmc_stim", "train"),
        ("sc_mixology", "RNAmix_celseq2", "train"),
        ("sc_mixology", "cellmix5", "train"),
        ("sc_mixology", "single_cells", "held_out"),
        ("sc_mixology", "dropseq", "held_out"),
        ("sc_mixology_10x_hvg", None, "held_out"),
        ("darmanis_brain", None, "held_out"),
        ("papalexi2021_eccite_thp1", None, "held_out"),
        ("gasperini2019_k562_highmoi", None, "train"),
        ("tcga_pancan_cognoma", None, "train"),
        ("efaar_benchmark_annotations", "CORUM", "relationships"),
        ("msigdb_v7.0", "c2_cgp", "gene_sets"),
        ("ncbi_gene_info_2016", None, "genes"),
    ],
)
def test_roles(name, part, role):
    assert manifests.read(name).part(part).role == role


def test_restricted_licences_are_marked():
    for name in ("efaar_benchmark_annotations", "enrichr_rummageo_benchmark", "enrichr_2020_libraries"):
        assert manifests.read(name).commercial_use == "limited"
    assert manifests.read("pbmc_multilane_pisces").redistribution == "unclear"


def test_an_unknown_dataset_or_part_is_named():
    with pytest.raises(manifests.ManifestError, match="no dataset 'darmanis'"):
        manifests.read("darmanis")
    with pytest.raises(manifests.ManifestError, match="no part 'x'; its parts: donorA, reference"):
        manifests.read("pbmc_sorted_donorA_mudan").part("x")
    with pytest.raises(manifests.ManifestError, match="its parts: CORUM"):
        manifests.read("efaar_benchmark_annotations").part()


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('title = "', 'titel = "x"\ntitle = "', "broken.toml: unknown field 'titel'; allowed: accession"),
        ('title = "A damaged copy"\n', "", "field 'title' is missing"),
        ("sha256", "md5", r"section \[files\[0\]\]: unknown field 'md5'; allowed: bytes, file, sha256, url"),
        (
            'reader = "h5ad"',
            'reader = "h5ad"\ncolour = "red"',
            r"section \[parts.main\]: unknown field 'colour'",
        ),
        ('reader = "h5ad"', 'reader = "excel"', "no reader 'excel'"),
        ('reader = "h5ad"', 'reader = "_with_barcodes"', "no reader '_with_barcodes'"),
        ('role = "train"', 'role = "training"', "role is 'training'; allowed: 'train', 'held_out'"),
        ('group = "sc"', 'group = "single"', "group is 'single'"),
        ('name = "broken"', 'name = "other"', "name is 'other', but must be the file's"),
        (
            'files = ["data.h5ad"]',
            'files = ["other.h5ad"]',
            r"uses 'other.h5ad', which \[\[files\]\] does not",
        ),
        (
            "[parts.main]",
            '[parts.main]\nobs = {celltype = "x"}',
            "unknown field 'celltype'; allowed: cell_type",
        ),
        ("[parts.main]", '[parts.main]\nrole = "both"', "role 'both'"),
        ("[[files]]", 'default_part = "x"\n[[files]]', "default_part 'x' is none of its parts"),
        ('sha256 = "', 'sha256 = "xyz', "neither 64 hex digits nor 'unverified'"),
        ('name = "broken"', "name = broken", "not valid TOML"),
    ],
)
def test_faults_are_named(damaged, old, new, message):
    damaged.manifest("broken", b"x")
    path = damaged.manifests / "broken.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(manifests.ManifestError, match=message):
        manifests.read("broken")
