"""Readers of what is not a matrix: gene sets, gene pairs, and facts about genes.

Used by name from the manifests, like those of `txfm_lite.readers`. Gene sets come as one row per set with the
columns `name`, `description` and `genes` (a list of symbols, weights stripped, in the source's order); the files
themselves are read in `txfm_lite.genesets_files`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txfm_lite import genesets_files, rfiles

if TYPE_CHECKING:
    import pandas as pd


def table(paths: list[Path], *, sep: str = "\t") -> pd.DataFrame:
    """Read a delimited table with a header."""
    import pandas as pd

    return pd.read_csv(paths[0], sep=sep, low_memory=False)


def text_lines(paths: list[Path]) -> pd.DataFrame:
    """Read a text, such as a licence, line by line."""
    import pandas as pd

    return pd.DataFrame({"line": Path(paths[0]).read_text(encoding="utf-8").splitlines()})


def r_table(paths: list[Path], *, object: str) -> pd.DataFrame:
    """Read a data frame saved by R."""
    return rfiles.load(paths[0])[object].rename(columns=str).reset_index(drop=True)


def gene_info(paths: list[Path]) -> pd.DataFrame:
    """Read NCBI's gene_info table; its header line is separated by blanks, its rows by tabs."""
    import pandas as pd

    names = ["tax_id", "entrez", "symbol", "locus_tag", "synonyms", "references", "chromosome"]
    names += ["map_location", "description", "type_of_gene", "authority_symbol", "authority_name"]
    names += ["nomenclature_status", "other_designations", "modified"]
    return pd.read_csv(paths[0], sep="\t", skiprows=1, names=names, dtype=str, keep_default_na=False)


def gene_sets_gmt(paths: list[Path]) -> pd.DataFrame:
    """Read a GMT file: name, description, genes; "GENE,weight" loses its weight."""
    return _gene_sets(genesets_files.gmt_rows(paths[0]))


def gene_sets_csv(
    paths: list[Path],
    *,
    sep: str = ",",
    name: Sequence[str] = ("Name",),
    genes: str = "Genes",
    description: str = "",
    gene_sep: str = " ",
) -> pd.DataFrame:
    """Read one gene set per row of a delimited table; several `name` columns are joined by "|"."""
    return _gene_sets(
        genesets_files.csv_rows(
            paths[0], sep=sep, name=name, genes=genes, description=description, gene_sep=gene_sep
        )
    )


def gene_sets_r(paths: list[Path], *, object: str) -> pd.DataFrame:
    """Read a named list of character vectors saved by R."""
    return _gene_sets(genesets_files.r_rows(paths[0], object=object))


def gene_sets_tsv(paths: list[Path]) -> pd.DataFrame:
    """Read "name, tab, genes separated by blanks", one set per line."""
    return _gene_sets(genesets_files.tsv_rows(paths[0]))


def _gene_sets(rows: Iterable[genesets_files.Row]) -> pd.DataFrame:
    import pandas as pd

    cleaned = [(name, text, [g.split(",")[0] for g in genes]) for _, name, text, genes in rows]
    return pd.DataFrame(cleaned, columns=["name", "description", "genes"])


def pickled_dictionary(paths: list[Path], *, value: str) -> pd.DataFrame:
    """Read a pickled dictionary of plain keys and numbers or strings, without trusting the file.

    A pickle can run any code when it is opened. This one may build numbers of numpy's and nothing else.

    Raises
    ------
    pickle.UnpicklingError
        If the file asks for any other object.
    """
    import pandas as pd

    with open(paths[0], "rb") as file:
        found = _PlainUnpickler(file).load()
    if not isinstance(found, dict):
        raise pickle.UnpicklingError(f"{paths[0]}: holds a {type(found).__name__}, not a dictionary")
    plain = [v.item() if hasattr(v, "item") else v for v in found.values()]
    return pd.DataFrame({"key": list(found), value: plain})


class _PlainUnpickler(pickle.Unpickler):
    """Knows numpy's scalars and their types; any other name in a pickle is refused."""

    allowed = {
        ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype"),
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"refused: the pickle asks for {module}.{name}, no plain value")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
