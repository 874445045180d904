"""A name becomes verified files, and then an AnnData with standard columns.

>>> from txfm_lite import datasets
>>> datasets.available()                      # a table of all datasets
>>> brain = datasets.load("darmanis_brain")   # counts in X, standard columns in obs, provenance in uns
>>> datasets.read("efaar_benchmark_annotations", part="SIGNOR")   # gene pairs, gene sets: tables

`load` looks hard at what it got. What can't be repaired without guessing is an error that names the dataset
and the cause: negative, missing or fractional counts, counts that were log-transformed, one cell twice. What
is usually repaired is repaired and logged: rows of the same gene are summed, empty cells are left out.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from txfm_lite import files, genes, manifests, readers
from txfm_lite.files import ChecksumError, Unreachable, fetch

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["ChecksumError", "Unreachable", "available", "describe", "fetch", "load", "read", "source"]

logger = logging.getLogger("txfm_lite")

#: Units of X in which every value must be a whole number.
WHOLE_UNITS = ("UMI counts", "read counts")
COUNT_UNITS = (*WHOLE_UNITS, "expected counts")
#: Units in which the values of one gene's several rows may be added up.
ADDITIVE_UNITS = (*COUNT_UNITS, "TPM", "NX")


def available() -> pd.DataFrame:
    """Return a table of all datasets: one row per part, with role, size, units and whether it is here."""
    import pandas as pd

    rows = []
    for name in manifests.names():
        manifest = manifests.read(name)
        for key, part in manifest.parts.items():
            here = "yes" if not files.missing(name, key) else "download"
            rows.append(
                {"dataset": name, "part": key, "role": part.role, "modality": manifest.modality,
                 "n_obs": part.n_obs, "n_vars": part.n_vars, "units": part.units, "here": here,
                 "title": manifest.title}
            )  # fmt: skip
    return pd.DataFrame(rows).astype({"n_obs": "Int64", "n_vars": "Int64"}).set_index(["dataset", "part"])


def describe(name: str) -> str:
    """Return what the manifest says about a dataset, as text to print."""
    m = manifests.read(name)
    lines = [
        f"{m.name}: {m.title}",
        f"  {m.organism}, {m.modality}{f', {m.accession}' if m.accession else ''}; cite {m.citation}",
        f"  licence: {m.licence} (redistribution {m.redistribution}, commercial use {m.commercial_use})",
    ]
    for key, part in m.parts.items():
        default = " (default)" if key == m.default_part and len(m.parts) > 1 else ""
        what = f"{part.n_obs or '?'} x {part.n_vars or '?'}, {part.units or 'table'}, role {part.role}"
        lines.append(f"  part {key}{default}: {what}. {part.note}".rstrip())
    return "\n".join([*lines, *([f"  {m.note}"] if m.note else [])])


def source(names: Iterable[str] | None = None) -> str:
    """Tell where the data of this machine come from.

    Parameters
    ----------
    names
        The datasets that are needed; by default the training sets with known checksums.

    Returns
    -------
    str
        "local" if all their files lie in `$TXFM_LITE_DATA` or the cache, "network" if the missing ones could
        be downloaded (they are), "embedded" if one of them can't be had: then only simulated data and those
        that come with the dependencies are left.
    """
    if names is None:
        read_all = [manifests.read(name) for name in manifests.names()]
        names = [m.name for m in read_all if m.role == "train" and m.files and m.verified]
    wanted = [name for name in names if files.missing(name)]
    try:
        for name in wanted:
            fetch(name)
    except Unreachable:
        return "embedded"
    return "network" if wanted else "local"


def read(name: str, part: str | None = None) -> pd.DataFrame:
    """Return a table: gene sets (`name`, `description`, `genes`), gene pairs, or facts about genes.

    Raises
    ------
    TypeError
        If the part is a matrix: then `load` is the function to call.
    """
    manifest = manifests.read(name)
    table = _run_reader(manifest, part)
    if hasattr(table, "obs"):
        raise TypeError(f"{_label(manifest, part)} is a matrix: use datasets.load")
    return table


def load(name: str, part: str | None = None) -> AnnData:
    """Return one matrix with its samples and genes described in the same way for every dataset.

    Parameters
    ----------
    name
        A dataset, see `available`.
    part
        One of its matrices; by default the manifest's `default_part`.

    Returns
    -------
    AnnData
        X : CSR float32, samples x genes, in the units of `uns["source"]["units"]`. Whole numbers above
        2**24 (deep bulk samples) are rounded to the next float32, an error below 1e-7.
        obs : the columns of `manifests.STANDARD_OBS` (missing: NaN), then the source's own.
        var : `gene_symbols` and `ensembl_id` ("" if unknown), `source_id`, `matched` (False: the gene table
        does not know the gene; where there is no table, names are taken at face value), and `highly_variable`
        where the source flags genes so; `var_names` are the symbols, or the source's own names.
        uns["source"] : provenance: files with checksums, licence, what was matched and what was repaired.

    Raises
    ------
    ValueError
        If the values are not what the manifest says; the message names dataset, cause and mend.
    TypeError
        If the part is a table: then `read` is the function to call.
    """
    manifest = manifests.read(name)
    key, chosen = part or manifest.default_part, manifest.part(part)
    adata = _run_reader(manifest, part)
    label = _label(manifest, part)
    if not hasattr(adata, "obs"):
        raise TypeError(f"{label} is a table, not a matrix: use datasets.read")
    shape = tuple(int(n) for n in adata.shape)
    adata.X = _as_csr(adata.X)
    check_values(adata, chosen.units, label)
    adata.X = adata.X.astype(np.float32)
    adata.obs = _standard_obs(adata.obs, chosen, label)
    adata, empty = _drop_empty(adata, chosen.units, label)
    # genes of a namespace of their own (simulated ones) are in no table of human genes
    resolver = genes.default_resolver() if chosen.gene_ids else genes.Resolver(None, name="own names")
    adata, report = _identify_genes(adata, resolver, chosen.units, label)
    adata.uns["source"] = {
        "dataset": name, "part": key, "title": manifest.title, "citation": manifest.citation,
        "licence": manifest.licence, "redistribution": manifest.redistribution,
        "commercial_use": manifest.commercial_use, "modality": manifest.modality, "role": chosen.role,
        "units": chosen.units, "genes": report, "empty_cells_dropped": empty,
        "n_obs_in_files": shape[0], "n_vars_in_files": shape[1],
        "files": {f: files.sha256(p) for f, p in zip(chosen.files, fetch(name, key), strict=True)},
    }  # fmt: skip
    return adata


def _label(manifest: manifests.Manifest, part: str | None) -> str:
    key = part or manifest.default_part
    return manifest.name if len(manifest.parts) == 1 else f"{manifest.name}, part {key}"


def _run_reader(manifest: manifests.Manifest, part: str | None) -> AnnData | pd.DataFrame:
    """Fetch the files of a part, read them, and compare the size with the manifest's."""
    chosen, label = manifest.part(part), _label(manifest, part)
    paths = fetch(manifest.name, part or manifest.default_part)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*written without encoding metadata")  # old h5ad files
        result = getattr(readers, chosen.reader)(paths, **chosen.options)
    n_obs, n_vars = result.shape
    if not hasattr(result, "obs") and "genes" in result.columns:  # gene sets: the genes in any of them
        n_vars = len({gene for members in result["genes"] for gene in members})
    for what, found, expected in (("n_obs", n_obs, chosen.n_obs), ("n_vars", n_vars, chosen.n_vars)):
        if expected is not None and found != expected:
            raise ValueError(f"{label}: {what} is {found:,} in the files, but {expected:,} in the manifest")
    return result


def _as_csr(x):
    """Return any matrix as CSR with sorted indices and without stored zeros."""
    import scipy.sparse as sp

    x = sp.csr_matrix(x)
    x.sum_duplicates()
    x.eliminate_zeros()
    return x


def check_values(adata: AnnData, units: str, label: str = "this matrix") -> None:
    """Check that X holds what its units promise.

    Raises
    ------
    ValueError
        For counts that are missing, negative, fractional or log-transformed, and for cells that occur twice.
    """
    values = adata.X.data
    doubled = adata.obs_names[adata.obs_names.duplicated()]
    if len(doubled):
        raise ValueError(f"{label}: {len(doubled)} cells occur more than once, for example {doubled[0]!r}")
    if units not in COUNT_UNITS:
        return
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{label}: {bad:,} values are missing or infinite, but the manifest says {units}")
    if (values < 0).any():
        bad = int((values < 0).sum())
        raise ValueError(f"{label}: {bad:,} values are negative (lowest {values.min():g}); counts can't be")
    fractional = values != np.rint(values)
    if not fractional.any():
        return
    if values.max() < 25 and fractional.mean() > 0.5:  # log1p of anything countable stays below 25
        raise ValueError(
            f"{label}: the values look log-transformed (largest {values.max():.3g}, {fractional.mean():.0%} "
            f"fractional), but the manifest says {units}. Give the raw counts, or correct the units."
        )
    if units in WHOLE_UNITS:
        example = values[fractional][0]
        raise ValueError(
            f"{label}: {fractional.sum():,} values are not whole numbers (for example {example:g}), but the "
            f"manifest says {units}. If they are estimates, its units are 'expected counts'."
        )


def _standard_obs(obs: pd.DataFrame, part: manifests.Part, label: str) -> pd.DataFrame:
    """Put the standard columns first; keep the source's own, renamed where they would hide a standard one."""
    import pandas as pd

    result = pd.DataFrame(index=obs.index.astype(str))
    for column in manifests.STANDARD_OBS:
        origin = part.obs.get(column, "")
        if origin.startswith("="):
            values = pd.Series(origin[1:], index=result.index)
        elif origin and origin not in obs:
            raise ValueError(f"{label}: obs.{column} is to come from {origin!r}, but there is {list(obs)}")
        else:
            values = pd.Series(obs[origin].to_numpy() if origin else np.nan, index=result.index)
        if column == "is_control":
            yes_no = {True: True, False: False, "true": True, "false": False}
            result[column] = values.map(yes_no).astype("boolean")
        else:
            result[column] = values.where(values.isna(), values.astype(str)).astype("category")
    for column in obs.columns:
        if column in part.obs.values():
            continue
        name = f"source_{column}" if column in manifests.STANDARD_OBS else str(column)
        values = obs[column].set_axis(result.index)
        if not (pd.api.types.is_numeric_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype)):
            values = values.where(values.isna(), values.astype(str)).astype("category")
        result[name] = values
    return result


def _drop_empty(adata: AnnData, units: str, label: str) -> tuple[AnnData, int]:
    """Leave out cells without a single count: they have no profile to learn from and no library size."""
    if units not in COUNT_UNITS:
        return adata, 0
    filled = np.diff(adata.X.indptr) > 0
    empty = int((~filled).sum())
    if empty:
        logger.warning("%s: %d empty cells left out", label, empty)
        adata = adata[filled].copy()
    return adata, empty


def _identify_genes(adata: AnnData, resolver: genes.Resolver, units: str, label: str) -> tuple[AnnData, dict]:
    """Give every gene its one name, and add up the rows of genes that occur more than once.

    Logarithms and statistics can't be added up: there a gene's further rows keep the source's names.
    """
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    resolution = resolver.resolve(adata.var_names, also=adata.var.get("symbol"))
    found = resolution.frame
    if units not in ADDITIVE_UNITS:
        again = found["gene"].duplicated()
        found.loc[again, "gene"], found.loc[again, "how"] = found.loc[again, "source_id"], "ambiguous"
    codes, unique = pd.factorize(found["gene"])
    report = {"resolver": resolver.name, **resolution.report, "duplicates_summed": len(codes) - len(unique)}
    first = found.groupby(codes, sort=False).first()
    var = pd.DataFrame(
        {
            "gene_symbols": unique,
            "ensembl_id": first["ensembl_id"].to_numpy(),
            "source_id": first["source_id"].to_numpy(),
            "matched": ~first["how"].isin(["unmatched", "ambiguous"]).to_numpy(),
        },
        index=pd.Index(unique, dtype=object),
    )
    if "highly_variable" in adata.var:  # the authors' choice, which an analysis may have to repeat
        flags = adata.var["highly_variable"].astype(bool)
        var["highly_variable"] = flags.groupby(codes).any().to_numpy()
    x = adata.X
    if report["duplicates_summed"]:
        logger.info("%s: %d rows of repeated genes summed", label, report["duplicates_summed"])
        ones, rows = np.ones(len(codes), dtype=x.dtype), np.arange(len(codes))
        x = _as_csr(x @ sp.csr_matrix((ones, (rows, codes)), shape=(len(codes), len(unique))))
    layers = None if units in ADDITIVE_UNITS else dict(adata.layers)
    if units in COUNT_UNITS:
        per_gene = np.asarray(x.sum(axis=0, dtype=np.float64)).ravel()
        report["matched_counts"] = float(per_gene[var["matched"]].sum() / per_gene.sum())
    return AnnData(x, adata.obs, var, obsm=dict(adata.obsm), uns=dict(adata.uns), layers=layers), report
