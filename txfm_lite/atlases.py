"""Readers for the large public files of atlases and consortia, which few machines have.

The same contract as in `readers`: local paths in, the source's own numbers and names out. All three kinds are
read without ever holding a dense matrix of ours; how much memory a file takes is in its manifest's note.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData


def h5ad(paths: list[Path], *, matrix: str = "X", symbol: str = "", control: str = "") -> AnnData:
    """Read an AnnData file, or a zip with one in it.

    Parameters
    ----------
    matrix
        Where the counts are: "X", "raw", or the name of a layer.
    symbol
        Column of `var` with gene symbols, where its index holds Ensembl ids.
    control
        Label of the unperturbed cells in `obs["perturbation"]`; `obs["control"]` then says which they are.
    """
    import anndata
    from anndata import AnnData

    adata = anndata.read_h5ad(_unzipped(paths[0]))
    if matrix == "X" and not (symbol or control):
        return adata
    kept = adata.raw if matrix == "raw" else adata
    x = kept.X if matrix in ("X", "raw") else adata.layers[matrix]
    result = AnnData(x, obs=adata.obs, var=kept.var)
    if symbol:
        result.var["symbol"] = kept.var[symbol].astype(str)
    if control:
        label = adata.obs["perturbation"]
        result.obs["control"] = (label == control).astype("boolean").mask(label.isna())
    return result


def _unzipped(path: Path) -> Path:
    """Return the file itself, or the only .h5ad of a zip, unpacked once beside it."""
    import shutil
    import zipfile

    target = path.with_suffix("")
    if path.suffix != ".zip":
        return path
    if not target.exists():
        aside = target.with_name(target.name + ".tmp")
        with zipfile.ZipFile(path) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(".h5ad"))
            with archive.open(member) as packed, open(aside, "wb") as file:
                shutil.copyfileobj(packed, file)
        aside.replace(target)
    return target


def mtx_archive(paths: list[Path]) -> AnnData:
    """Read a tar of 10x's text files: a genes x cells `.mtx`, `*genes.tsv`, `*barcodes.tsv`.

    A `metadata.csv` in the archive, or a table with a column `barcodes` as second file, describes the cells.
    The suffix of a barcode ("-3") is its `lane`.
    """
    import tarfile

    import pandas as pd
    import scipy.io
    from anndata import AnnData

    samples = None
    with tarfile.open(paths[0]) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if member.name.endswith(".mtx"):
                x = scipy.io.mmread(file).T.tocsr()
            elif member.name.endswith("genes.tsv"):
                names = pd.read_csv(file, sep="\t", header=None, dtype=str)
            elif member.name.endswith("barcodes.tsv"):
                cells = pd.read_csv(file, sep="\t", header=None, dtype=str)[0]
            elif member.name.endswith("metadata.csv"):
                samples = pd.read_csv(file, index_col=0)
    if len(paths) > 1:
        samples = pd.read_csv(paths[1], sep="\t").set_index("barcodes")
    adata = AnnData(x, obs=pd.DataFrame(index=cells.to_numpy()), var=pd.DataFrame(index=names[0].to_numpy()))
    if names.shape[1] > 1:
        adata.var["symbol"] = names[1].to_numpy()
    if samples is not None:
        adata.obs = samples.reindex(adata.obs_names)
    adata.obs["lane"] = adata.obs_names.str.extract(r"-(\w+)$", expand=False)
    return adata


def large_table(
    paths: list[Path],
    *,
    skip_lines: int = 0,
    drop_columns: Sequence[str] = (),
    log2: bool = False,
    sample_key: str,
) -> AnnData:
    """Read a genes x samples text table that is too large to be held dense, in slices of genes.

    Parameters
    ----------
    skip_lines
        Lines before the header (2 in a GCT file).
    drop_columns
        Columns that are no samples.
    log2
        The table holds log2(count + 1): undo it.
    sample_key
        Column of the table of samples (second file) that has the samples' names.
    """
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    slices, names = [], []
    for piece in pd.read_csv(paths[0], sep="\t", skiprows=skip_lines, index_col=0, chunksize=1000):
        piece = piece.drop(columns=list(drop_columns))
        x = np.exp2(piece.to_numpy(dtype=float)) - 1 if log2 else piece.to_numpy(dtype=float)
        # log2 tables are rounded to four decimals: zero comes back as a very small number
        slices.append(sp.csr_matrix(np.where(np.abs(x) < 1e-3, 0, x), dtype=np.float32))
        names.extend(piece.index.astype(str))
    samples = pd.read_csv(paths[1], sep="\t").drop_duplicates(sample_key).set_index(sample_key)
    obs = samples.reindex(piece.columns.astype(str))
    return AnnData(sp.vstack(slices).T.tocsr(), obs=obs, var=pd.DataFrame(index=names))
