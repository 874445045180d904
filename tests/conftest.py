"""What all tests share: the real data, and damaged copies of them."""

import functools
import hashlib
import os
from pathlib import Path

import pytest

from txfm_lite import datasets, manifests

MANIFEST = """
name = "{name}"
group = "sc"
title = "A damaged copy"
citation = "none"
licence = "none"
redistribution = "unclear"
commercial_use = "unclear"
organism = "Homo sapiens"
modality = "single-cell RNA"
accession = ""
role = "{role}"
units = "{units}"
gene_ids = "symbol"
note = ""
{extra}
[[files]]
file = "{file}"
url = "{url}"
sha256 = "{sha256}"
bytes = {bytes}

[parts.main]
reader = "{reader}"
files = ["{file}"]
"""


@pytest.fixture(scope="session")
def local_data() -> Path:
    """The directory of real data files; tests that need it are skipped where it is not set."""
    named = os.environ.get("TXFM_LITE_DATA")
    if not named:
        pytest.skip("TXFM_LITE_DATA is not set")
    return Path(named)


@pytest.fixture(scope="session")
def loaded(local_data):
    """`datasets.load` that keeps what it loaded, because several tests look at the same matrices."""
    kept = functools.cache(datasets.load)
    return lambda name, part=None: kept(name, part or manifests.read(name).default_part)


class Damaged:
    """Makes datasets out of files that are not as they should be, in a directory of their own."""

    def __init__(self, root: Path):
        self.data, self.manifests = root / "data", root / "manifests"
        self.manifests.mkdir(parents=True)

    def manifest(
        self, name: str, content: bytes = b"", file: str = "data.h5ad", place: bool = True, **fields
    ):
        """Write a manifest for one file and, with `place`, the file itself; return the dataset's name."""
        values = {"url": "", "reader": "h5ad", "units": "UMI counts", "role": "train", "extra": ""}
        values |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **fields}
        text = MANIFEST.format(name=name, file=file, **values)
        (self.manifests / f"{name}.toml").write_text(text)
        if place:
            path = self.data / "sc" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return name

    def matrix(self, name: str, adata, **fields) -> str:
        """Make a dataset of an AnnData."""
        path = self.manifests / "scratch.h5ad"
        adata.write_h5ad(path)
        return self.manifest(name, path.read_bytes(), **fields)


@pytest.fixture
def damaged(tmp_path, monkeypatch) -> Damaged:
    """A place for damaged datasets; data directory, cache and manifests all point into it."""
    made = Damaged(tmp_path)
    from txfm_lite import genes

    genes.default_resolver()  # with the real manifests, before they are out of sight
    monkeypatch.setenv("TXFM_LITE_DATA", str(made.data))
    monkeypatch.setenv("TXFM_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(manifests, "directory", lambda: made.manifests)
    manifests.read.cache_clear()
    yield made
    manifests.read.cache_clear()
