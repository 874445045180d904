"""Which terms does a list of genes belong to: enrichment offline, with a background of one's own.

:func:`fisher` is the plain way: is the overlap of a list and a term larger than chance gives? Chance depends
on the *background*, the genes that could have been in the list at all: those that were measured, not all that
there are.

:func:`augmented` first lets a model add genes that fit the list, so that a short list finds terms by genes
that it could have had. Two things are easily done wrong there:

- The genes that are given must not count as a discovery of the model. An augmented list is the list and the
  `k` best *new* genes; what each term shares with the one and with the other are two columns.
- Predicted genes are no independent evidence. They come in groups that the model learned, whatever it is
  given, so a test that takes them as drawn one by one finds terms for random lists, too. So the p-value is
  counted: random lists of the same length go through the same model (:func:`augmented`, column ``p``), and
  the naive one stands beside it for comparison.

:func:`gsea` asks about a whole ranking, by gseapy, without the genes that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .genesets import GeneSets

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

SIGNIFICANT = 0.05
FEW = 5  # genes; a shorter list gets a note on what it can tell
BLOCK = 256  # lists that a model completes at a time
NEIGHBOURHOOD = 100  # genes of like popularity, of which a random list takes one instead of a gene


def fisher(
    genes: Sequence[str], library: GeneSets, background: Collection[str] | None = None
) -> pd.DataFrame:
    """Test every term for a larger overlap with a list than chance gives, by Fisher's exact test, one-sided.

    Parameters
    ----------
    genes : sequence of str
        Symbols; one is enough.
    library : GeneSets
        Over symbols as well.
    background : collection of str, optional
        The genes that could have been in the list. List and terms are cut to it. By default all genes of the
        library and the list, which is seldom right: name the genes that you measured.

    Returns
    -------
    DataFrame
        One row per term with a gene of the background, by rising p: ``term``, ``library``; ``size``, its
        genes in the background; ``overlap`` and how many are ``expected``; ``odds_ratio`` (of the sample;
        infinite when nothing is left over); ``p``; ``q`` after Benjamini and Hochberg; ``least_p``, what p
        would be if all genes of the list were in the term, or the term in the list; ``genes``, the overlap,
        separated by commas. ``attrs``: ``n`` genes of the list and of the ``background``, ``left_out`` those
        of the list that are not in it, and ``note``, what a short list cannot tell ("" for others).

    Raises
    ------
    ValueError
        If no gene of the list is in the background, or no term has one.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control, hypergeom

    listed = list(dict.fromkeys(str(g) for g in genes))
    frame = np.unique([*(library.genes[np.unique(library.indices)] if background is None else background),
                       *(listed if background is None else [])])  # fmt: skip
    terms = library.over(frame)
    mine = np.flatnonzero(np.isin(frame, listed))
    n, total = len(mine), len(frame)
    if not n:
        raise ValueError(f"none of the {len(listed)} genes of the list is in the background of {total:,}")
    rows = np.flatnonzero(terms.sizes)
    if not len(rows):
        raise ValueError(f"no term of the library has a gene of the background of {total:,}: other symbols?")
    matrix, size = _ones(terms)[rows], terms.sizes[rows]
    shared = matrix[:, mine]
    overlap = np.diff(shared.tocsr().indptr)
    p = hypergeom.sf(overlap - 1, total, size, n)
    best = np.minimum(size, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = overlap * (total - size - n + overlap) / ((size - overlap) * (n - overlap))
    found = pd.DataFrame(
        {
            "term": terms.names[rows], "library": terms.libraries[rows], "size": size, "overlap": overlap,
            "expected": size * n / total, "odds_ratio": odds, "p": p,
            "q": false_discovery_control(np.clip(p, 0, 1)), "least_p": hypergeom.sf(best - 1, total, size, n),
            "genes": [", ".join(frame[mine[row.indices]]) for row in shared.tocsr()],
        }
    )  # fmt: skip
    found = found.sort_values(["p", "overlap", "term"], ascending=[True, False, True], ignore_index=True)
    known = set(frame[mine])
    found.attrs = {
        "n": n, "background": total, "left_out": [g for g in listed if g not in known],
        "note": _note(n, found["least_p"].to_numpy()),
    }  # fmt: skip
    return found


def new_genes(
    predict: Callable[[sp.csr_matrix], np.ndarray], lists: sp.csr_matrix, k: int, allowed: np.ndarray
) -> np.ndarray:
    """Return the `k` best genes that are not in a list, for some lists.

    Parameters
    ----------
    predict : callable
        As made by :mod:`txfm_lite.set_rivals`: from lists, a csr_matrix (b, G), to scores (b, G).
    lists : csr_matrix, shape (n, G)
        Ones.
    k : int
    allowed : ndarray of bool, shape (G,)
        Which genes may be added: those of the background.

    Returns
    -------
    ndarray of int64, shape (n, k)
        Places, the best one first; of equal scores the first.

    Raises
    ------
    ValueError
        If there are fewer than `k` genes to add.
    """
    found = np.empty((lists.shape[0], k), dtype=np.int64)
    for start in range(0, len(found), BLOCK):
        given = lists[start : start + BLOCK]
        scores = np.array(predict(given), dtype=np.float32)
        scores[np.isnan(scores)] = -np.inf
        scores[:, ~allowed] = -np.inf
        scores[given.nonzero()] = -np.inf
        if k > np.isfinite(scores).sum(axis=1).min():
            raise ValueError(f"k = {k}: fewer genes are left that the model knows and the background has")
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best.sort(axis=1)
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found[start : start + BLOCK] = np.take_along_axis(best, order, axis=1)
    return found


def augmented(
    genes: Sequence[str],
    library: GeneSets,
    predict: Callable[[sp.csr_matrix], np.ndarray],
    universe: Sequence[str],
    *,
    k: int = 50,
    background: Collection[str] | None = None,
    n_draws: int = 1000,
    popularity: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Test terms with a list and the genes that a model adds to it, by random lists that are treated alike.

    Parameters
    ----------
    genes, library : as for :func:`fisher`
    predict : callable
        See :func:`new_genes`; of a gene set model :func:`txfm_lite.set_rivals.from_model`.
    universe : sequence of str
        The genes that the predictor scores.
    k : int
        Genes to be added.
    background : collection of str, optional
        By default the universe; else what it has in common with it.
    n_draws : int
        Random lists. No p is below 1 / (n_draws + 1).
    popularity : ndarray, shape (G,), optional
        Number of training sets with each gene of the universe. With it, a random list has, for each gene of
        yours, one of the hundred that are nearest in popularity; without, any gene.
    seed : int

    Returns
    -------
    DataFrame
        One row per term with genes in the background, by rising p: ``term``, ``library``, ``size``; ``known``
        and ``predicted``, its genes among those given and those added; ``p_list``, Fisher's test of the list
        alone; ``p_naive``, Fisher's test of both together as if all were drawn one by one; ``p``, the share
        of random lists with as many of both or more; ``q`` after Benjamini and Hochberg; ``z``, standard
        deviations above the random lists; ``known_genes``, ``predicted_genes``. ``attrs``: ``added``, the new
        genes, the best one first; ``n``, ``background``, ``left_out``, ``note``.

    Raises
    ------
    ValueError
        As :func:`fisher` and :func:`new_genes`.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control, hypergeom

    universe = np.asarray(universe, dtype=str)
    allowed = np.ones(len(universe), bool) if background is None else np.isin(universe, list(background))
    plain = fisher(genes, library, universe[allowed])
    terms = library.over(universe[allowed]).over(universe)
    rows = np.flatnonzero(terms.sizes)
    matrix, size, total = _ones(terms)[rows], terms.sizes[rows], int(allowed.sum())
    mine = np.flatnonzero(allowed & np.isin(universe, list(genes)))
    rng = np.random.default_rng(seed)
    drawn = random_lists(mine, allowed, n_draws, rng, popularity)
    everyone = np.vstack([mine, drawn])
    added = new_genes(predict, _indicator(everyone, len(universe)), k, allowed)
    both = _indicator(np.hstack([everyone, added]), len(universe))
    counts = (both @ matrix.T).toarray()
    observed, random = counts[0], counts[1:]
    p = (1 + (random >= observed).sum(axis=0)) / (1 + n_draws)
    spread = random.std(axis=0)
    known = (matrix @ _indicator(mine[None], len(universe)).T).toarray().ravel().astype(int)
    names = {True: set(mine), False: set(added[0])}
    overlaps = {
        side: [", ".join(universe[[j for j in row.indices if j in names[side]]]) for row in matrix]
        for side in names
    }
    found = pd.DataFrame(
        {
            "term": terms.names[rows], "library": terms.libraries[rows], "size": size, "known": known,
            "predicted": observed.astype(int) - known,
            "p_list": hypergeom.sf(known - 1, total, size, len(mine)),
            "p_naive": hypergeom.sf(observed - 1, total, size, len(mine) + k), "p": p,
            "q": false_discovery_control(p),
            "z": (observed - random.mean(axis=0)) / np.where(spread > 0, spread, np.nan),
            "known_genes": overlaps[True], "predicted_genes": overlaps[False],
        }
    )  # fmt: skip
    found = found.sort_values(["p", "z", "term"], ascending=[True, False, True], ignore_index=True)
    found.attrs = {**plain.attrs, "added": list(universe[added[0]])}
    return found


def random_lists(
    genes: np.ndarray,
    allowed: np.ndarray,
    n_draws: int,
    rng: np.random.Generator,
    popularity: np.ndarray | None = None,
) -> np.ndarray:
    """Return lists of as many distinct genes as are given, int64, shape (n_draws, n).

    Parameters
    ----------
    genes : ndarray of int, shape (n,)
        Places in the universe.
    allowed : ndarray of bool, shape (G,)
        Genes of the background.
    n_draws : int
    rng : Generator
    popularity : ndarray, shape (G,), optional
        See :func:`augmented`.
    """
    places = np.flatnonzero(allowed)
    if popularity is None:
        return np.array([rng.choice(places, len(genes), replace=False) for _ in range(n_draws)])
    order = places[np.argsort(np.asarray(popularity)[places], kind="stable")]
    rank = np.empty(len(allowed), dtype=np.int64)
    rank[order] = np.arange(len(order))
    width = min(NEIGHBOURHOOD, len(order))
    low = np.clip(rank[genes] - width // 2, 0, len(order) - width)
    out = np.empty((n_draws, len(genes)), dtype=np.int64)
    for i in range(n_draws):
        taken: set[int] = set()
        for j, first in enumerate(low):  # one by one, so that no gene comes twice
            free = [g for g in order[first : first + width] if g not in taken]
            chosen = rng.choice(free if free else np.setdiff1d(places, list(taken)))
            taken.add(int(chosen))
            out[i, j] = chosen
    return out


def gsea(
    scores: pd.Series,
    library: GeneSets,
    leave_out: Collection[str] = (),
    *,
    by_rank: bool = False,
    least: int = 5,
    most: int = 500,
    n_permutations: int = 1000,
    seed: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """Test terms for genes near an end of a ranking: preranked GSEA, by gseapy.

    Parameters
    ----------
    scores : Series of float
        Indexed by symbol: fold changes, or what a model says of every gene.
    library : GeneSets
    leave_out : collection of str
        Genes that leave the ranking: those that a model was given, which it ranks first for that reason.
    by_rank : bool
        Replace scores by normal quantiles of their ranks: for logits, whose size and zero say little.
    least, most : int
        Terms with fewer or more genes in the ranking are left out.
    n_permutations : int
        No p is below 1 / (n_permutations + 1).
    seed, threads : int

    Returns
    -------
    DataFrame
        One row per term by rising p: ``term``, ``library``, ``size`` in the ranking, ``es``, ``nes``, ``p``,
        ``q`` (Benjamini and Hochberg), ``leading``, the genes that make the score.

    Raises
    ------
    ValueError
        If a symbol occurs twice, a score is not finite, or no term has a fit size.
    ModuleNotFoundError
        Without gseapy: ``pip install "txfm-lite[genesets]"``.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control, norm

    if (twice := scores.index[scores.index.duplicated()]).size:
        raise ValueError(f"{twice.size} symbols of the ranking occur twice, for example {twice[0]!r}")
    if bad := int((~np.isfinite(scores.to_numpy(dtype=float))).sum()):
        raise ValueError(f"{bad} scores of the ranking are missing or infinite: leave those genes out")
    left = (
        scores[~scores.index.isin(list(leave_out))].sort_index().sort_values(ascending=False, kind="stable")
    )
    if by_rank:
        left = pd.Series(norm.isf((np.arange(len(left)) + 0.5) / len(left)), left.index)
    terms = library.over(left.index.to_numpy(dtype=str))
    rows = np.flatnonzero((terms.sizes >= least) & (terms.sizes <= min(most, len(left) - 1)))
    if not len(rows):
        raise ValueError(f"no term has {least} to {most} genes in the ranking of {len(left):,} genes")
    try:
        import gseapy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('GSEA needs gseapy: pip install "txfm-lite[genesets]"') from error
    # Neutral names: gseapy guesses at the case of symbols, and equal names of terms would be one.
    ranking = pd.Series(left.to_numpy(dtype=float), [f"G{i}" for i in range(len(left))])
    sets = {f"T{i}": [f"G{j}" for j in terms.indices[terms.indptr[i] : terms.indptr[i + 1]]] for i in rows}
    run = gseapy.prerank(
        ranking, sets, outdir=None, min_size=least, max_size=most, permutation_num=n_permutations, seed=seed,
        threads=threads, no_plot=True, ascending=None,
    )  # fmt: skip
    table = run.res2d
    row = table["Term"].str[1:].astype(int).to_numpy()
    p = np.maximum(table["NOM p-val"].astype(float).to_numpy(), 1 / (n_permutations + 1))
    genes = left.index.to_numpy(dtype=str)
    found = pd.DataFrame(
        {
            "term": terms.names[row], "library": terms.libraries[row], "size": terms.sizes[row],
            "es": table["ES"].astype(float).to_numpy(), "nes": table["NES"].astype(float).to_numpy(), "p": p,
            "q": false_discovery_control(np.clip(p, 0, 1)),
            "leading": [
                ", ".join(genes[int(g[1:])] for g in text.split(";") if g) for text in table["Lead_genes"]
            ],
        }
    )  # fmt: skip
    order = np.lexsort([-found["nes"].abs(), found["p"]])
    return found.iloc[order].reset_index(drop=True)


def _ones(sets: GeneSets) -> Any:
    """Return sets as a matrix of ones, whatever weights they have."""
    matrix = sets.csr()
    matrix.data = np.ones_like(matrix.data)
    return matrix


def _indicator(lists: np.ndarray, width: int) -> sp.csr_matrix:
    """Return lists of places, shape (n, m), as a matrix of ones, shape (n, width)."""
    import scipy.sparse as sp

    n, m = lists.shape
    indices = np.sort(lists, axis=1).ravel()
    return sp.csr_matrix((np.ones(n * m, np.float32), indices, np.arange(n + 1) * m), (n, width))


def _note(n: int, least_p: np.ndarray) -> str:
    """Say what a short list cannot tell."""
    if n >= FEW:
        return ""
    bound = SIGNIFICANT / len(least_p)
    able = int((least_p <= bound).sum())
    return (
        f"{n} gene{'s' if n > 1 else ''}: even with all of them in a term, {able:,} of {len(least_p):,} "
        f"terms could pass {SIGNIFICANT:g} / {len(least_p):,} tests. A term that is not found is not absent."
    )
