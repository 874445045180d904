"""Pages about genes as plain files that a browser can read from a disk as well as from a server.

Browsers refuse to fetch JSON for a page opened from a disk, but they run scripts there. So each file is a
script of one call, ``geneExplorer.file(name, data)``, and the data are JSON:

===================  ==========================================================================
file                 holds
===================  ==========================================================================
``manifest.js``      libraries with sources, licences, curves; model, date, seed; how many others there are
``names-<i>.js``     all symbols and aliases, in order, from the manifest's ``starts[i]`` on
``shard-<i>.js``     the pages of some genes, those whose hash leaves remainder `i`, with the terms they use
===================  ==========================================================================

A gene costs the manifest, the names around what was typed, after each letter, and one shard. Together they
stay below `BUDGET` bytes; the number of shards follows from that. A gene named with "!" before it, as a
neighbour or another owner of an alias, has no page.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from .gene_pages import Predictions
    from .genes import Resolver

BUDGET = 300_000  # bytes per gene, of which
SHARD, NAMES = 190_000, 15_000  # a shard and a file of names have at most so many
SCALES = {
    "logit": 100,
    "z": 100,
    "auroc": 1000,
    "uniqueness": 1000,
    "cosine": 1000,
}  # stored as whole numbers


def write(
    folder: str | Path,
    genes: Sequence[str],
    found: Mapping[str, Predictions],
    close: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    *,
    resolver: Resolver | None = None,
    sources: Mapping[str, Mapping[str, str]],
    **facts: Any,
) -> dict[str, Any]:
    """Write the pages of all genes (see :func:`txfm_lite.gene_pages.build`) and return the manifest.

    Raises
    ------
    ValueError
        If the pages of one gene alone are larger than a shard may be.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        names = _names(genes, resolver)
        starts = []
        for i, (first, data) in enumerate(_by_alphabet(genes, names)):
            starts.append(first)
            _put(aside, f"names-{i}", data)
        n_shards = _put_shards(aside, _pages(genes, found, close, resolver))
        libraries = [
            {"title": title, **sources.get(title, {}), "terms": len(x.terms),
             "scored": int(x.terms["auroc"].notna().sum()), "auroc": _median(x.terms["auroc"]),
             "curve": [round(number, 4) for number in x.curve]}
            for title, x in found.items()
        ]  # fmt: skip
        manifest = {
            "made": datetime.now(UTC).date().isoformat(), "genes": len(genes), "shards": n_shards,
            "starts": starts, "libraries": libraries, "vectors": list(close), **facts,
        }  # fmt: skip
        _put(aside, "manifest", manifest)
        aside.chmod(0o755)  # temporary folders are private
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def manifest(folder: str | Path) -> dict[str, Any]:
    """Return what a folder of gene pages says about itself; empty if there is none."""
    path = Path(folder) / "manifest.js"
    return _get(path) if path.exists() else {}


def read(folder: str | Path, gene: str) -> pd.DataFrame:
    """Return the page of one gene as a table.

    Returns
    -------
    DataFrame
        `library`, `term`, `known`, `probability`, `logit`, `z`, `rank`, `auroc`, `uniqueness`, `size`.

    Raises
    ------
    KeyError
        If there is no page for this symbol.
    """
    import pandas as pd

    facts = manifest(folder)
    shard = _get(Path(folder) / f"shard-{hashed(gene) % facts['shards']}.js")
    if gene not in shard["symbols"]:
        raise KeyError(f"{gene!r} has no page here; {facts['genes']:,} genes have, by symbol")
    place, tables = shard["symbols"].index(gene), []
    for library, terms, of_gene in zip(facts["libraries"], shard["terms"], shard["rows"][place], strict=True):
        for flag, flat in ((True, of_gene[2]), (False, of_gene[3])):
            rows = np.array(flat, dtype=float).reshape(-1, 4)
            term = rows[:, 0].astype(int)
            logit, (slope, start) = rows[:, 1] / SCALES["logit"], library["curve"]
            columns = {
                "library": library["title"], "term": np.array(terms["name"], dtype=object)[term],
                "known": flag, "probability": 1 / (1 + np.exp(-(slope * logit + start))), "logit": logit,
                "z": rows[:, 2] / SCALES["z"], "rank": rows[:, 3].astype(int),
                **{k: np.array(terms[k], dtype=float)[term] / SCALES[k] for k in ("auroc", "uniqueness")},
                "size": np.array(terms["size"])[term],
            }  # fmt: skip
            tables.append(pd.DataFrame(columns))
    return pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)


def hashed(symbol: str) -> int:
    """Return the FNV-1a hash of a symbol, 32 bits: short enough to be written in any language."""
    state = 2166136261
    for byte in symbol.encode():
        state = (state ^ byte) * 16777619 % 2**32
    return state


def _names(genes: Sequence[str], resolver: Resolver | None) -> dict[str, list[str]]:
    """Return alias -> the genes that go by it, as soon as one of them has a page."""
    if resolver is None:
        return {}
    ours, owners = set(genes), defaultdict(set)
    for name, gene in resolver.names():
        owners[name].add(gene)
    return {name: _marked(sorted(of), ours) for name, of in owners.items() if of & ours}


def _marked(names: Sequence[str], ours: set[str]) -> list[str]:
    """Put "!" before the genes that have no page."""
    return [name if name in ours else f"!{name}" for name in names]


def _by_alphabet(genes: Sequence[str], aliases: Mapping[str, list[str]]) -> Iterator[tuple[str, dict]]:
    """Cut the sorted names into files of a certain size; yield each with its first name.

    Names are sorted and found in upper case; those that differ in nothing else stay together.
    """
    entries = [(gene.upper(), gene, None) for gene in genes]
    entries += [(name.upper(), name, of) for name, of in aliases.items()]
    entries.sort(key=lambda entry: entry[:2])
    first, symbols, others, size = "", [], [], 100
    for upper, same in itertools.groupby(entries, key=lambda entry: entry[0]):
        same = list(same)
        more = [name for _, name, of in same if of is None]
        further = [x for _, name, of in same if of for x in (name, of if len(of) > 1 else of[0])]
        size += len(_json([more, further])) - 3
        if size > NAMES and first:
            yield first, {"symbols": symbols, "aliases": others}
            first, symbols, others, size = "", [], [], 100
        first = first or upper
        symbols += more
        others += further
    yield first, {"symbols": symbols, "aliases": others}


def _pages(
    genes: Sequence[str],
    found: Mapping[str, Predictions],
    close: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    resolver: Resolver | None,
) -> dict[str, dict[str, Any]]:
    """Return per gene what is to be written, and the terms of each library."""
    identities, ensembl, libraries = {}, {} if resolver is None else resolver.ensembl(), []
    if resolver is not None and resolver.table is not None:
        table = resolver.table.drop_duplicates("symbol").set_index("symbol")
        identities = table.reindex(columns=["entrez", "description"], fill_value="").to_dict("index")
    for predictions in found.values():
        rows = predictions.rows
        start = np.searchsorted(rows["gene"], np.arange(len(genes) + 1))
        scaled = [rows[k].to_numpy() * SCALES[k] for k in ("logit", "z")]
        numbers = np.column_stack([rows["term"], *np.rint(scaled).astype(int), rows["rank"]])
        libraries.append((start, rows["known"].to_numpy(), numbers, predictions.totals))
    terms = [
        {
            "name": list(x.terms.index),
            "size": x.terms["size"].tolist(),
            "auroc": _whole(x.terms["auroc"], SCALES["auroc"]),
            "uniqueness": _whole(x.terms["uniqueness"], SCALES["uniqueness"]),
        }
        for x in found.values()
    ]
    ours, pages = set(genes), {}
    for i, gene in enumerate(genes):
        identity, of_gene = identities.get(gene, {}), []
        for start, known, numbers, totals in libraries:
            here = slice(start[i], start[i + 1])
            of_gene.append((totals[i].tolist(), numbers[here][known[here]], numbers[here][~known[here]]))
        near = [
            [_marked(x[0], ours), _whole(x[1], SCALES["cosine"])] if (x := vectors.get(gene)) else None
            for vectors in close.values()
        ]
        facts = [str(identity.get("entrez", "")), ensembl.get(gene, ""), identity.get("description", "")]
        pages[gene] = {"facts": facts, "rows": of_gene, "near": near}
    return {"genes": pages, "terms": terms}


def _put_shards(folder: Path, pages: Mapping[str, Any]) -> int:
    """Write as few shards as the size of the largest allows, and return their number."""
    n = math.ceil(len(pages["genes"]) / 32)
    while True:
        groups = [[] for _ in range(n)]
        for gene in pages["genes"]:
            groups[hashed(gene) % n].append(gene)
        # the largest first: whether they fit is soon seen
        for i in sorted(range(n), key=lambda i: -len(groups[i])):
            size = _put(folder, f"shard-{i}", _shard(groups[i], **pages))
            if size > SHARD:
                break
        else:
            return n
        if len(groups[i]) == 1:
            raise ValueError(f"the page of {groups[i][0]} alone has {size:,} bytes: keep fewer rows per gene")
        n = math.ceil(n * 1.25)


def _shard(symbols: list[str], genes: Mapping[str, Any], terms: Sequence[Mapping[str, list]]) -> dict:
    """Return the pages of some genes, with those terms of each library that they mention."""
    places, shown = [], []
    for k, library in enumerate(terms):
        parts = [p[:, 0] for s in symbols for p in genes[s]["rows"][k][1:]]
        used = np.unique(np.concatenate([np.zeros(0, int), *parts]))
        places.append(used)
        shown.append({key: [values[i] for i in used] for key, values in library.items()})

    def flat(rows: np.ndarray, k: int) -> list[int]:
        return np.column_stack([np.searchsorted(places[k], rows[:, 0]), rows[:, 1:]]).ravel().tolist()

    return {
        "symbols": symbols,
        "facts": [genes[s]["facts"] for s in symbols],
        "terms": shown,
        "rows": [
            [
                [*totals, flat(known, k), flat(new, k)]
                for k, (totals, known, new) in enumerate(genes[s]["rows"])
            ]
            for s in symbols
        ],
        "near": [genes[s]["near"] for s in symbols],
    }


def _whole(values: Iterable[float], scale: int) -> list[int | None]:
    """Return numbers as whole ones, missing ones as None."""
    return [None if math.isnan(x) else round(x * scale) for x in values]


def _median(values: pd.Series) -> float | None:
    return round(float(values.median()), 3) if values.notna().any() else None


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"))


def _put(folder: Path, name: str, data: Any) -> int:
    """Write one file; return its size."""
    text = f'geneExplorer.file("{name}",{_json(data)});\n'
    (folder / f"{name}.js").write_text(text, encoding="ascii")
    return len(text)


def _get(path: Path) -> Any:
    text = path.read_text(encoding="ascii")
    return json.loads(text[text.index(",") + 1 : text.rindex(")")])
