"""Gene sets from and to files, set by set.

A GMT file has one set per line, separated by tabs: name, description, genes. Enrichr's texts are GMT with an
empty description, and some of its libraries say `GENE,1.3` where a member has a weight. Other libraries come as
tables with one set per row, or as a list saved by R. Each reader here yields one set after the other, so that
a file of a gigabyte is never in memory as text; what is made of them is up to :func:`collect` and to
:mod:`txfm_lite.tables`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from txfm_lite import rfiles
from txfm_lite.genesets_container import Collector, GeneSets

logger = logging.getLogger("txfm_lite")

# a set in a file: the number of its line or row, its name, its description, its members as they are written
Row = tuple[int, str, str, list[str]]


def read_gmt(path: Path | str, weights: bool = False, library: str | None = None) -> GeneSets:
    """Read a GMT file, plain or gzipped; symbols stay as they are written.

    Parameters
    ----------
    path
        Lines without genes are left out with a warning, as are empty fields.
    weights
        Keep the numbers of members like `GENE,1.3`; a member without one counts 1. By default they are cut off.
    library
        By default the file's name without its endings.

    Raises
    ------
    ValueError
        If the file is empty, cut off, not UTF-8, or has no line with three fields; or if a weight is no number.
        The message names file, line, cause and mend.
    """
    path = Path(path)
    return collect(gmt_rows(path), path, library or _stem(path), weights)


def write_gmt(sets: GeneSets, path: Path | str) -> Path:
    """Write a GMT file, gzipped if its name ends in .gz; with weights as `GENE,1.3`.

    Reading it gives names, descriptions, members and weights back.

    Raises
    ------
    ValueError
        If a set is empty, which GMT cannot say, or a name holds a tab, a comma in a gene, or the end of a line.
    """
    path = Path(path)
    texts = np.full(len(sets), "") if sets.descriptions is None else sets.descriptions
    if (sets.sizes == 0).any():
        i = int(np.argmin(sets.sizes))
        raise ValueError(
            f"{path}: set {i}, {sets.names[i]!r}, is empty, which GMT cannot say: write sets[sets.sizes > 0]"
        )
    for what, names, forbidden in (
        ("a gene", sets.genes, "\t\n\r,"), ("a set's name", sets.names, "\t\n\r"),
        ("a description", texts, "\t\n\r"),
    ):  # fmt: skip
        for name in names:
            if any(sign in name for sign in forbidden):
                raise ValueError(
                    f"{path}: {what}, {name!r}, has a tab, a comma or a line's end in it: rename it"
                )
    aside = path.with_name(path.name + ".partial")
    genes = sets.genes.astype(object)
    with open(aside, "wb") as raw, _packed(raw, path) as file:
        for i in range(len(sets)):
            where = slice(sets.indptr[i], sets.indptr[i + 1])
            members = genes[sets.indices[where]]
            if sets.weights is not None:  # nine digits give a float32 back
                members = [f"{g},{w:.9g}" for g, w in zip(members, sets.weights[where], strict=True)]
            file.write(("\t".join([sets.names[i], texts[i], *members]) + "\n").encode())
    os.replace(aside, path)
    return path


def collect(rows: Iterator[Row], path: Path, library: str, weights: bool = False) -> GeneSets:
    """Return the sets of a reader (see `read_gmt` for the errors)."""
    found, line = Collector(library, weights), 0
    for line, name, text, members in rows:
        values = None
        if "," in "".join(members):
            values = [_weight(m, path, line) for m in members] if weights else None
            members = [member.partition(",")[0] for member in members]
        found.add(name, text, members, values)
    if not line:
        raise ValueError(
            f"{path}: no gene set in it. GMT has one set per line, separated by tabs: name, description, genes"
        )
    return found.sets()


def gmt_rows(path: Path) -> Iterator[Row]:
    """Yield the sets of a GMT file, plain or gzipped."""
    short, first = 0, 0
    for number, line in _lines(path):
        fields = line.split("\t", 2)
        members = fields[2].split("\t") if len(fields) == 3 else []
        if not all(members):
            members = [member for member in members if member]
        if not members:
            if line:
                short, first = short + 1, first or number
            continue
        yield number, fields[0], fields[1], members
    if short:
        logger.warning("%s: %d lines without genes left out, the first is line %d", path, short, first)


def csv_rows(
    path: Path,
    *,
    sep: str = ",",
    name: Sequence[str] = ("Name",),
    genes: str = "Genes",
    description: str = "",
    gene_sep: str = " ",
) -> Iterator[Row]:
    """Yield the sets of a delimited table, one per row; several `name` columns are joined by "|"."""
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader((line + "\n" for _, line in _lines(path)), delimiter=sep)
    needed = [*name, genes, *([description] if description else [])]
    if lacking := [column for column in needed if column not in (reader.fieldnames or [])]:
        raise ValueError(
            f"{path}: no column {lacking[0]!r} in its first line, only {reader.fieldnames}; "
            "give the names of the columns, and the sign between them, in the manifest"
        )
    for row in reader:
        if None in (row[column] for column in needed):
            raise ValueError(f"{path}, line {reader.line_num}: fewer fields than the first line has")
        members = [member for member in row[genes].split(gene_sep) if member]
        yield reader.line_num, "|".join(row[n] for n in name), row.get(description, ""), members


def r_rows(path: Path, *, object: str) -> Iterator[Row]:
    """Yield the sets of a named list of character vectors saved by R."""
    for number, (name, genes) in enumerate(rfiles.load(path)[object].items(), start=1):
        yield number, str(name), "", [str(gene) for gene in genes]


def tsv_rows(path: Path) -> Iterator[Row]:
    """Yield the sets of lines "name, tab, genes separated by blanks"."""
    for number, line in _lines(path):
        name, _, genes = line.partition("\t")
        if line:
            yield number, name, "", genes.split()


# How the files of a manifest's part are read here, by the reader that it names.
ROWS = {
    "gene_sets_gmt": gmt_rows,
    "gene_sets_csv": csv_rows,
    "gene_sets_r": r_rows,
    "gene_sets_tsv": tsv_rows,
}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text, numbered from 1, without their ends."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                yield number, line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as fault:
        raise ValueError(
            f"{path}, line {number}: not UTF-8 ({fault.reason} at byte {fault.start}). Save it as UTF-8; if it "
            "is gzipped, its name has to end in .gz"
        ) from fault
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise ValueError(
            f"{path}, after line {number}: damaged or cut off ({fault}). Delete it and fetch it again; if it is "
            "not gzipped, its name must not end in .gz"
        ) from fault


def _weight(member: str, path: Path, line: int) -> float:
    """Return the number behind the comma, 1 where there is no comma."""
    gene, comma, number = member.partition(",")
    try:
        value = float(number) if comma else 1.0
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(
            f"{path}, line {line}: the weight of {gene!r} is {number!r}, no number. Mend it, or read the file "
            "without weights"
        )
    return value


def _packed(raw, path: Path):
    """Return the file, or what packs into it; the same sets make the same bytes."""
    return gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw


def _stem(path: Path) -> str:
    """Return a file's name without the endings that gene sets have."""
    name = path.name.removesuffix(".gz")
    return name.removesuffix(".gmt").removesuffix(".txt")
