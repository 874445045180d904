"""One TOML file per dataset says what it is, where its bytes come from and how they become a matrix.

A manifest is data, not code: `data_manifests/<name>.toml` holds title, citation, licence, files with
checksums, and one or more *parts* (matrices or tables) with the reader that understands them. This module
turns the text into frozen dataclasses and refuses whatever it does not know, so that a misspelt field can
never be silently ignored.

>>> from txfm_lite import manifests
>>> manifests.read("darmanis_brain").parts["main"].n_obs
466
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from txfm_lite import readers

GROUPS = ("sc", "bulk", "perturb", "relationships", "genesets", "genes")
ROLES = ("train", "held_out", "gene_sets", "relationships", "genes")
GENE_IDS = ("symbol", "ensembl", "entrez", "")
RIGHTS = ("allowed", "limited", "unclear")

#: The columns that `obs` of every loaded matrix has, whatever its source calls them.
STANDARD_OBS = (
    "cell_type", "batch", "donor", "technology", "tissue", "disease",
    "perturbation", "perturbation_type", "is_control",
)  # fmt: skip


class ManifestError(ValueError):
    """A manifest is missing, malformed, or says something this version does not understand."""


@dataclass(frozen=True)
class File:
    """One file of a dataset: its local name, its pinned URL and how to know it is the right one."""

    file: str  # name below $TXFM_LITE_DATA/<group>/<dataset>/
    url: str  # pinned to a commit or a versioned record; "" where there is none
    sha256: str  # 64 hex digits, or "unverified" where nobody could compute it
    bytes: int = 0  # 0: not known


@dataclass(frozen=True)
class Part:
    """One matrix (or table) of a dataset, with the reader that understands its files."""

    reader: str  # a function in `txfm_lite.readers`
    files: tuple[str, ...] = ()  # what the reader gets, in this order
    n_obs: int | None = None  # samples (table: rows; gene sets: sets) as the reader gives them
    n_vars: int | None = None  # genes (table: columns) as the reader gives them, before any are summed
    obs: Mapping[str, str] = field(default_factory=dict)  # standard column <- source column, or "=constant"
    role: str = ""  # role, units and gene_ids: the dataset's unless the part says otherwise
    units: str = ""
    gene_ids: str = ""
    note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # the reader's keyword arguments


@dataclass(frozen=True)
class Manifest:
    """All that is known about one dataset, before a byte of it is read."""

    name: str
    group: str
    title: str
    citation: str
    licence: str
    redistribution: str
    commercial_use: str
    organism: str
    modality: str
    accession: str
    role: str
    units: str
    gene_ids: str
    note: str
    parts: Mapping[str, Part]
    files: tuple[File, ...] = ()
    default_part: str = "main"  # "": none is special, so a part must be named

    def part(self, name: str | None = None) -> Part:
        """Return the part called `name`, or the default one.

        Raises
        ------
        ManifestError
            If there is no such part; the message lists those there are.
        """
        wanted = name or self.default_part
        if wanted not in self.parts:
            raise ManifestError(f"{self.name} has no part {wanted!r}; its parts: {', '.join(self.parts)}")
        return self.parts[wanted]

    @property
    def verified(self) -> bool:
        """Whether every file has a checksum that was computed from its real bytes."""
        return all(file.sha256 != "unverified" for file in self.files)

    def file(self, name: str) -> File:
        """Return the file called `name`."""
        return next(f for f in self.files if f.file == name)


def directory() -> Path:
    """Return the folder of the TOML files: the repository's, or the copy inside an installed package."""
    here = Path(__file__).parent
    installed = here / "data_manifests"
    return installed if installed.is_dir() else here.parent / "data_manifests"


def names() -> list[str]:
    """Return the names of all datasets that have a manifest, sorted."""
    return sorted(path.stem for path in directory().glob("*.toml"))


@cache
def read(name: str) -> Manifest:
    """Return the manifest of the dataset `name`.

    Raises
    ------
    ManifestError
        If there is no such dataset, or its manifest has a fault; file, field and mend are named.
    """
    path = directory() / f"{name}.toml"
    if not path.is_file():
        raise ManifestError(f"no dataset {name!r}; txfm_lite.datasets.available() lists those there are")
    return parse(path)


def parse(path: Path) -> Manifest:
    """Read and check one manifest file (see `read` for the errors)."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ManifestError(f"{path.name} is not valid TOML: {fault}") from fault
    raw_files, raw_parts = raw.pop("files", []), raw.pop("parts", {})
    files = tuple(_build(File, entry, path.name, f"files[{i}]") for i, entry in enumerate(raw_files))
    parts = MappingProxyType({key: _part(entry, raw, path.name, key) for key, entry in raw_parts.items()})
    manifest = _build(Manifest, {**raw, "files": files, "parts": parts}, path.name, "")
    _check(manifest, path)
    return manifest


def _build(kind: type, values: dict, where: str, section: str):
    """Make the dataclass `kind` from `values`, naming every unknown or missing field."""
    known = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    place = f"{where}, section [{section}]" if section else where
    for unknown in sorted(set(values) - known):
        raise ManifestError(f"{place}: unknown field {unknown!r}; allowed: {', '.join(sorted(known))}")
    for missing in sorted(needed - set(values)):
        raise ManifestError(f"{place}: field {missing!r} is missing")
    return kind(**values)


def _part(entry: dict, dataset: dict, where: str, key: str) -> Part:
    """Make one part: whatever is no field of `Part` must be a keyword argument of its reader."""
    section = f"parts.{key}"
    reader = getattr(readers, str(entry.get("reader")), None)
    if not inspect.isfunction(reader) or entry["reader"].startswith("_"):
        raise ManifestError(f"{where}, section [{section}]: no reader {entry.get('reader')!r} in readers.py")
    keywords = {p.name for p in inspect.signature(reader).parameters.values() if p.kind is p.KEYWORD_ONLY}
    options = {k: entry[k] for k in entry if k in keywords}
    known = {f.name for f in fields(Part)} - {"options"}
    for unknown in sorted(set(entry) - known - keywords):
        allowed = ", ".join(sorted(known | keywords))
        raise ManifestError(f"{where}, section [{section}]: unknown field {unknown!r}; allowed: {allowed}")
    for column in entry.get("obs", {}):
        if column not in STANDARD_OBS:
            allowed = ", ".join(STANDARD_OBS)
            raise ManifestError(
                f"{where}, section [{section}.obs]: unknown field {column!r}; allowed: {allowed}"
            )
    inherited = {k: dataset.get(k, "") for k in ("role", "units", "gene_ids")}
    own = {k: v for k, v in entry.items() if k not in keywords}
    own |= {"files": tuple(entry.get("files", ())), "obs": MappingProxyType(entry.get("obs", {}))}
    return Part(**{**inherited, **own, "options": MappingProxyType(options)})


def _check(manifest: Manifest, path: Path) -> None:
    """Check what belongs together: names, vocabularies, files that parts use."""

    def fail(text: str) -> None:
        raise ManifestError(f"{path.name}: {text}")

    if manifest.name != path.stem:
        fail(f"name is {manifest.name!r}, but must be the file's, {path.stem!r}")
    words = {"group": GROUPS, "role": ROLES, "gene_ids": GENE_IDS}
    words |= {"redistribution": RIGHTS, "commercial_use": RIGHTS}
    for key, allowed in words.items():
        if getattr(manifest, key) not in allowed:
            fail(f"{key} is {getattr(manifest, key)!r}; allowed: {', '.join(map(repr, allowed))}")
    for file in manifest.files:
        hexadecimal = len(file.sha256) == 64 and set(file.sha256) <= set("0123456789abcdef")
        if not (hexadecimal or file.sha256 == "unverified"):
            fail(f"sha256 of {file.file} is neither 64 hex digits nor 'unverified'")
    if manifest.default_part and manifest.parts and manifest.default_part not in manifest.parts:
        fail(f"default_part {manifest.default_part!r} is none of its parts: {', '.join(manifest.parts)}")
    known = {file.file for file in manifest.files}
    for key, part in manifest.parts.items():
        if part.role not in ROLES or part.gene_ids not in GENE_IDS:
            fail(f"parts.{key}: role {part.role!r} or gene_ids {part.gene_ids!r} is not allowed")
        for unknown in sorted(set(part.files) - known):
            fail(f"parts.{key} uses {unknown!r}, which [[files]] does not list")
