"""One identity per gene.

A gene has an Ensembl id, an Entrez id, one official symbol and any number of former or popular names, and
every study uses another mixture. `Resolver` maps all of them to one symbol. It is built from NCBI's gene
table, whose "synonyms" hold aliases and previous symbols together, so that the two can't be told apart, and
from a younger list of pairs of symbol and Ensembl id, which knows many ids that NCBI's table does not and
the names that genes got since.

Three rules keep it honest. An exact symbol beats a synonym. A synonym of several genes names none of them:
such ids are *ambiguous* and stay unmatched. And where a dataset lists a gene under its symbol, another row
that would reach the same gene only by a synonym is a different feature there, so it is ambiguous, too.

>>> from txfm_lite import genes
>>> genes.default_resolver().resolve(["MLL", "ENSG00000141510.16", "HLA.A"]).frame["gene"].tolist()
['KMT2A', 'TP53', 'HLA-A']
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from txfm_lite import files
from txfm_lite.tables import gene_info, pickled_dictionary

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("txfm_lite")

#: How an id can have been matched, best first; the last two are no matches. "own": there was nothing to
#: compare with, so that names are taken at face value.
HOW = ("ensembl", "entrez", "symbol", "spelling", "alias", "own", "ambiguous", "unmatched")


@dataclass(frozen=True)
class Resolution:
    """What became of a list of gene ids.

    Attributes
    ----------
    frame
        One row per id, in order: `source_id`; `gene`, the canonical symbol, or the id itself (without blanks
        and Ensembl version) if there is none; `ensembl_id`, or ""; `how`, one of `HOW`.
    """

    frame: pd.DataFrame

    @property
    def report(self) -> dict[str, float]:
        """Shares of the ids: all matched ones, those matched by alias, the ambiguous and the unmatched."""
        share = self.frame["how"].value_counts(normalize=True)
        lost = {key: float(share.get(key, 0.0)) for key in ("ambiguous", "unmatched")}
        return {
            "matched": 1.0 - sum(lost.values()),
            "alias": float(share.get("alias", 0.0)),
            "spelling": float(share.get("spelling", 0.0)),
            **lost,
        }


class Resolver:
    """Maps symbols, synonyms, Ensembl and Entrez ids to one symbol per gene.

    Parameters
    ----------
    table
        One row per gene with the columns `entrez`, `symbol`, `synonyms` and `ensembl`; the last two are
        separated by "|", and "-" or "" stands for none. `None` makes the identity resolver, which takes
        every name at face value.
    links
        Pairs of a symbol and an Ensembl id from elsewhere. A pair whose id the table knows gives that gene
        another name; one whose symbol it knows gives it another id; the rest are further genes.
    name
        What `uns["source"]` records about the resolver.
    """

    def __init__(
        self,
        table: pd.DataFrame | None,
        links: Iterable[tuple[str, str]] = (),
        name: str = "table",
    ) -> None:
        self.name, self.table, self._links = name, table, []
        self._lookup: dict[str, dict[str, str]] = {}
        self._ensembl_of: dict[str, str] = {}
        if table is None:
            return
        symbols = table["symbol"]
        own = dict(zip(symbols, symbols, strict=True))
        ensembl = _one_to_one(table, "ensembl")
        aliases = _one_to_one(table, "synonyms", taken=own)
        for symbol, key in links:
            gene = ensembl.get(key) or own.get(symbol) or aliases.get(symbol) or symbol
            ensembl[key] = gene
            if gene == symbol:
                own[symbol] = symbol
            elif symbol not in own:
                aliases[symbol] = gene
                self._links.append((symbol, gene))
        self._ensembl_of = {gene: key for key, gene in reversed(ensembl.items())}
        self._lookup = {
            "ensembl": ensembl,
            "entrez": dict(zip(table["entrez"].astype(str), symbols, strict=True)),
            "symbol": own,
            "spelling": _unique({_spelling(s): s for s in own}, [_spelling(s) for s in own]),
            "alias": aliases,
        }

    @classmethod
    def from_table(cls, path: Path, links: Iterable[tuple[str, str]] = ()) -> Resolver:
        """Build a resolver from NCBI's `gene_info` file of one species (tab-separated, may be gzipped)."""
        table = gene_info([path])
        table = table[table["tax_id"] == "9606"]  # the file also lists mitochondria of Neanderthals
        ids = table["references"].str.findall(r"Ensembl:(ENSG\d+)").str.join("|")
        # HGNC's symbol where it differs from NCBI's (MT-ND1, not ND1); NCBI's then is a synonym
        official = table["authority_symbol"].where(table["authority_symbol"] != "-", table["symbol"])
        synonyms = table["synonyms"] + "|" + table["symbol"]
        genes = table.assign(symbol=official, synonyms=synonyms, ensembl=ids)
        return cls(genes, links, name=Path(path).name)

    def resolve(
        self, ids: Iterable[str], also: Iterable[str] | None = None, merge: bool = False
    ) -> Resolution:
        """Find the gene of every id.

        Parameters
        ----------
        ids
            Symbols, synonyms, Ensembl ids (any version) or Entrez ids, also mixed.
        also
            As many second names, used where the first one finds nothing.
        merge
            Whether two names of one gene are the same gene, as in sets of genes. In a matrix they are two
            features, so that the weaker name is ambiguous: the third rule above.
        """
        import pandas as pd

        frame = self._match(pd.Series([str(i) for i in ids], dtype=object))
        if also is not None:
            second = self._match(pd.Series([str(i) for i in also], dtype=object))
            better = frame["how"].isin(["unmatched", "ambiguous"])
            # an unknown name that several rows share (7SK, Y_RNA) would merge genes that may differ
            unknown = second["how"].isin(["unmatched", "ambiguous"])
            better &= ~(unknown & second["gene"].duplicated(keep=False))
            frame.loc[better, ["gene", "how"]] = second.loc[better, ["gene", "how"]]
        weak = frame["how"].isin(["alias", "spelling"]) & (not merge)
        clash = weak & frame["gene"].isin(frame.loc[~weak, "gene"])
        clash |= weak & frame["gene"].duplicated(keep=False)
        frame.loc[clash, "gene"] = frame.loc[clash, "source_id"].str.strip()
        frame.loc[clash, "how"] = "ambiguous"
        own = frame["clean"].where(frame["clean"].str.match(r"ENSG\d+$"), "")
        frame["ensembl_id"] = own.where(own != "", frame["gene"].map(self._ensembl_of).fillna(""))
        return Resolution(frame[["source_id", "gene", "ensembl_id", "how"]])

    def names(self) -> list[tuple[str, str]]:
        """Return all pairs of another name and a gene; a name of several genes stands with each of them."""
        if self.table is None:
            return []
        names = self.table.set_index("symbol")["synonyms"].str.split("|").explode()
        pairs = [(name, gene) for gene, name in names.items() if name not in ("", "-", gene)]
        return list(dict.fromkeys(pairs + self._links))

    def ensembl(self) -> dict[str, str]:
        """Return gene -> Ensembl id, where one is known."""
        return dict(self._ensembl_of)

    def _match(self, ids: pd.Series) -> pd.DataFrame:
        """Try the kinds of names from the surest to the weakest."""
        import pandas as pd

        # "ENSG00000141510.16" loses its version, "TP53_ENSG00000141510" its symbol
        clean = ids.str.strip().str.replace(r"^(?:.+_)?(ENSG\d+)(?:\.\d+)?$", r"\1", regex=True)
        gene, how = clean.copy(), pd.Series("unmatched" if self._lookup else "own", ids.index)
        open_ = pd.Series(True, ids.index)
        for kind, table in self._lookup.items():
            names = clean[open_]
            found = (names.map(_spelling) if kind == "spelling" else names).map(table).dropna()
            good = found[found != ""]
            gene[good.index], how[good.index] = good, kind
            how[found.index.difference(good.index)] = "ambiguous"
            open_[good.index] = False
        return pd.DataFrame({"source_id": ids, "clean": clean, "gene": gene, "how": how})


def _one_to_one(table: pd.DataFrame, column: str, taken: Iterable[str] = ()) -> dict[str, str]:
    """Map each "|"-separated name of `column` to its gene's symbol, or to "" where several genes claim it."""
    names = table[column].str.split("|").explode()
    names = names[~names.isin(["", "-"]) & ~names.isin(list(taken))]
    owners = table["symbol"].loc[names.index]
    return _unique(dict(zip(names, owners, strict=True)), names)


def _unique(mapping: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    """Replace the value of every name that occurs more than once by ""."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            mapping[name] = ""
        seen.add(name)
    return mapping


def _spelling(name: str) -> str:
    """Undo what software does to symbols: case (C1ORF112) and R's habit to write HLA-A as HLA.A."""
    return name.upper().replace(".", "-")


@cache
def default_resolver() -> Resolver:
    """Return the resolver of NCBI's gene table of 2016, with the symbols and Ensembl ids of Geneformer.

    Where one of the two is neither here nor to be had, genes keep their own names, with one warning.
    """
    try:
        (path,) = files.fetch("ncbi_gene_info_2016")
        names = pickled_dictionary(files.fetch("geneformer_v1_dictionaries", "names"), value="ensembl_id")
    except files.Unreachable as fault:
        logger.warning("gene names are kept as they are, because the gene tables are out of reach: %s", fault)
        return Resolver(None, name="identity")
    return Resolver.from_table(path, zip(names["key"], names["ensembl_id"], strict=True))
