"""R's own files (.rda, .RData) as numpy, pandas and AnnData.

Many single-cell studies live in R packages as saved objects. `rdata` parses them without R; what is left is
to know where Bioconductor and Seurat objects keep their counts. Three shapes occur: a sparse `dgCMatrix` or
`dgTMatrix`, a dense matrix, and a data frame, all genes x cells; sometimes one of them sits inside a
SummarizedExperiment, which also carries the table of cells.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def load(path: Path) -> dict[str, Any]:
    """Return the objects saved in an R file by name.

    Old S4 objects carry lazily evaluated values ("promises") and functions: a promise becomes the value it
    already holds, and functions become None, because no code from a data file is ever run.
    """
    import rdata
    from rdata.conversion import DEFAULT_CLASS_MAP, SimpleConverter
    from rdata.parser import RObjectType as Type

    class Converter(SimpleConverter):
        def _convert_next(self, obj):
            kind = getattr(getattr(obj, "info", None), "type", None)
            if kind == Type.PROM:
                return self._convert_next(obj.value[0])
            if kind in (Type.CLO, Type.BUILTIN, Type.SPECIAL, Type.BCODE, Type.EXTPTR):
                return None
            return super()._convert_next(obj)

    with _deep_recursion(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Missing constructor")
        objects = Converter(DEFAULT_CLASS_MAP).convert(rdata.parser.parse_file(path, extension=".rda"))
    return {str(name): value for name, value in objects.items()}


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """R's linked lists are parsed by recursion, deeper than Python's default limit."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def cells_by_genes(matrix: Any) -> AnnData:
    """Return an R matrix of genes x cells as AnnData of cells x genes (X: CSR, float64, values untouched)."""
    import scipy.sparse as sp
    from anndata import AnnData

    if hasattr(matrix, "Dim"):
        shape = tuple(int(n) for n in matrix.Dim)[::-1]
        if hasattr(matrix, "p"):  # dgCMatrix: its columns are our rows, so nothing needs to be sorted
            x = sp.csr_matrix((matrix.x, matrix.i, matrix.p), shape=shape)
        else:  # dgTMatrix: triplets
            x = sp.coo_matrix((matrix.x, (matrix.j, matrix.i)), shape=shape).tocsr()
        genes, cells = matrix.Dimnames
    elif hasattr(matrix, "dims"):  # a dense matrix, as xarray
        x = sp.csr_matrix(np.asarray(matrix.values, dtype=np.float64).T)
        genes, cells = (matrix.coords[d].values if d in matrix.coords else None for d in matrix.dims)
    else:  # a data frame
        x = sp.csr_matrix(matrix.to_numpy(dtype=np.float64).T)
        genes, cells = matrix.index, matrix.columns
    adata = AnnData(x)
    if cells is not None:
        adata.obs_names = strings(cells)
    if genes is not None:
        adata.var_names = strings(genes)
    return adata


def experiment(obj: Any, assay: str) -> AnnData:
    """Return one assay of a SummarizedExperiment or SingleCellExperiment, with its table of cells."""
    assays = obj.assays
    if ".xData" in vars(assays):  # before Bioconductor 3.10 assays lived in an environment
        inner = vars(assays)[".xData"].maps[0][".self"]
        found = vars(inner)[".xData"].maps[0][".->data"].listData
    else:
        found = assays.data.listData
    if isinstance(found, dict):
        by_name = {str(key): value for key, value in found.items()}
        if assay not in by_name:
            raise KeyError(f"no assay {assay!r} in the R object; it has {', '.join(by_name)}")
        adata = cells_by_genes(by_name[assay])
    else:  # a single assay without a name
        adata = cells_by_genes(found[0])
    cells, genes = getattr(obj.colData, "rownames", None), getattr(obj, "NAMES", None)
    if np.ndim(cells) == 1:
        adata.obs_names = strings(cells)
    if np.ndim(genes) == 1:
        adata.var_names = strings(genes)
    adata.obs = frame(obj.colData.listData, adata.obs_names)
    return adata


def frame(columns: dict[str, Any], index: pd.Index) -> pd.DataFrame:
    """Return the one-dimensional columns of an R list as a table."""
    import pandas as pd

    flat = {str(k): v for k, v in columns.items() if np.ndim(v) == 1 and len(v) == len(index)}
    plain = {k: v if hasattr(v, "categories") else np.asarray(v) for k, v in flat.items()}
    return pd.DataFrame(plain, index=index)


def named_factor(path: Path) -> pd.Series:
    """Return the single factor saved in an R file with the names of its elements, which `load` would lose."""
    import pandas as pd
    import rdata
    from rdata.parser import RObjectType as Type

    factor = rdata.parser.parse_file(path, extension=".rda").object.value[0]
    attributes, pair = {}, factor.attributes
    while pair is not None and pair.info.type == Type.LIST:
        tag = pair.tag if pair.tag.info.type == Type.SYM else pair.tag.referenced_object
        attributes[tag.value.value.decode()] = [getattr(v, "value", v) for v in pair.value[0].value]
        pair = pair.value[1]
    levels = [level.decode() for level in attributes["levels"]]
    labels = pd.Categorical.from_codes(np.asarray(factor.value) - 1, levels)
    return pd.Series(labels, index=[name.decode() for name in attributes["names"]])


def strings(values: Any) -> list[str]:
    """Return R strings as plain Python strings (rdata gives numpy's, which HDF5 cannot write)."""
    return [str(value) for value in values]
