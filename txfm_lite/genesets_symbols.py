"""One name per gene in sets from anywhere.

Libraries spell genes as their year and species did. :func:`symbols` looks every distinct name up once, by the
project's table of genes (:mod:`txfm_lite.genes`), and says what it is; :func:`resolve` gives the sets these
names, so that an alias and its symbol in one set are one member. Unlike in a matrix, they always are.

Small letters are a mouse's: `Trp53` and `Tp53` are no human symbols and become one only on purpose, by capital
letters or a table of orthologues. What no table knows keeps its own name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from txfm_lite import genes
from txfm_lite.genesets_container import GeneSets

if TYPE_CHECKING:
    import pandas as pd


def symbols(
    sets: GeneSets,
    mouse: str | Path | pd.DataFrame = "keep",
    resolver: genes.Resolver | None = None,
    entrez: bool = False,
) -> pd.DataFrame:
    """Tell what each name of a gene is.

    Parameters
    ----------
    sets
        Sets with names as their source spells them.
    mouse
        What becomes of names with small letters that are no human symbol: "keep" leaves them apart, "upper"
        takes their capital letters for a human name, and a table of orthologues, or its path (tab-separated),
        with the columns `mouse` and `human` gives human names where it has exactly one, and keeps the others.
    resolver
        By default the project's.
    entrez
        Whether numbers are Entrez ids. Otherwise they are remains of a spreadsheet, and unmatched.

    Returns
    -------
    DataFrame
        One row per gene of `sets`, in its order: `source`, the name there; `gene`, its symbol, or the name itself;
        `how`, one of `genes.HOW`, "orthologue" or "mouse" (kept apart); `sets`, the number of sets that have it.

    Raises
    ------
    ValueError
        If the table lacks one of its columns, or `mouse` is another word.
    """
    import pandas as pd

    source = pd.Series(sets.genes, dtype=object)
    small = source != source.str.upper()
    asked, partner = source.copy(), pd.Series(False, source.index)
    if isinstance(mouse, str) and mouse == "upper":
        asked = asked.str.upper()
    elif not (isinstance(mouse, str) and mouse == "keep"):
        human = source.where(small).map(_orthologues(mouse))
        partner = human.notna()
        asked = human.fillna(asked)
    found = (resolver or genes.default_resolver()).resolve(asked, merge=True).frame
    gene, how = found["gene"].copy(), found["how"].copy()
    foreign = small & (how == "spelling") & (asked == source)
    gene[foreign], how[foreign] = source[foreign], "mouse"
    how[partner & ~how.isin(["unmatched", "ambiguous"])] = "orthologue"
    number = source.str.fullmatch(r"\s*\d+\s*").astype(bool)
    if not entrez:
        gene[number], how[number] = source[number], "unmatched"
    count = np.bincount(sets.indices, minlength=len(sets.genes))
    return pd.DataFrame({"source": source, "gene": gene.str.strip(), "how": how, "sets": count})


def resolve(sets: GeneSets, table: pd.DataFrame | None = None, drop: bool = False) -> GeneSets:
    """Return the sets with one name per gene; members of a set that are one gene merge.

    Parameters
    ----------
    sets
        Sets with names as their source spells them.
    table
        What :func:`symbols` says of them; by default with its defaults.
    drop
        Leave out names that no table knows, and ambiguous ones; a set can become empty by it.
    """
    table = symbols(sets) if table is None else table
    names = table["gene"].where(~table["how"].isin(_LOST), "") if drop else table["gene"]
    return sets.renamed(names.to_numpy(dtype=str))


_LOST = ("unmatched", "ambiguous", "mouse")


def unmapped(table: pd.DataFrame, examples: int = 5) -> pd.DataFrame:
    """Sum up what :func:`symbols` found.

    Returns
    -------
    DataFrame
        One row per way that a name was matched, or was not: `names`, their number; `share`, of all
        memberships; `examples`, the most frequent ones.
    """
    import pandas as pd

    total = max(int(table["sets"].sum()), 1)
    rows = {}
    for how, group in table.groupby("how", sort=True):
        frequent = group.sort_values(["sets", "source"], ascending=[False, True])["source"]
        rows[how] = {
            "names": len(group), "share": group["sets"].sum() / total,
            "examples": ", ".join(frequent.head(examples)),
        }  # fmt: skip
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["names", "share", "examples"])
    return frame.rename_axis("how")


def _orthologues(table: str | Path | pd.DataFrame) -> dict[str, str]:
    """Map mouse symbols to their only human orthologue."""
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        if not Path(table).is_file():
            raise ValueError(f"mouse: {table!r} is neither 'keep' nor 'upper', and there is no such file")
        table = pd.read_csv(table, sep="\t", dtype=str)
    if lacking := {"mouse", "human"} - set(table):
        raise ValueError(
            f"the table of orthologues has the columns {list(table)}, but no {sorted(lacking)[0]!r}: "
            "name them 'mouse' and 'human'"
        )
    pairs = table[["mouse", "human"]].dropna().drop_duplicates()
    pairs = pairs[~pairs["mouse"].duplicated(keep=False)]
    return dict(zip(pairs["mouse"], pairs["human"], strict=True))
