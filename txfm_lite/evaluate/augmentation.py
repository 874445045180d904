"""What augmentation does to enrichment: how often it raises a false alarm, and how often it finds the truth.

:func:`false_alarms` sends random lists, which belong to no term, through the test: a p-value that means what
it says is below 0.05 one time in twenty. :func:`term_recovery` sends lists that hold a few members of a term
among random genes, and asks whether that term is found, with the genes that a model adds and without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..enrichment import SIGNIFICANT, augmented, random_lists
from ..genesets import GeneSets
from .scores import partial

if TYPE_CHECKING:
    import scipy.sparse as sp

TESTS = {"p_list": "the list alone", "p_naive": "augmented, as if independent", "p": "augmented, counted"}


def false_alarms(
    library: GeneSets,
    predict: Callable[[sp.csr_matrix], np.ndarray],
    universe: Sequence[str],
    *,
    sizes: Sequence[int] = (5, 20, 100),
    n_lists: int = 20,
    k: int = 50,
    n_draws: int = 300,
    popularity: np.ndarray | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Count terms that random lists come up with.

    Parameters
    ----------
    library, predict, universe, k, n_draws
        As for :func:`txfm_lite.enrichment.augmented`.
    sizes : sequence of int
        Genes in a list.
    n_lists : int
        Of each size.
    popularity : ndarray, shape (G,), optional
        Lists are drawn in proportion to it, as lists that people make are; the random lists that they are
        compared with are then matched to it. Without, all genes are equal in both.
    seed : int

    Returns
    -------
    list of dict
        As of :func:`txfm_lite.evaluate.scores.partial`, two for each size and test: `metric` "terms at 0.05",
        the mean share of terms with p ≤ 0.05, and "lists with a term", the share of lists with any term at
        q ≤ 0.05. `null`: 0.05 in both. `variant`: as in "20 genes, augmented, counted". `n`: lists.
    """
    universe = np.asarray(universe, dtype=str)
    rng = np.random.default_rng(seed)
    chance = None if popularity is None else np.asarray(popularity) / np.sum(popularity)
    rows = []
    for size in sizes:
        found = []
        for i in range(n_lists):
            genes = universe[rng.choice(len(universe), size, replace=False, p=chance)]
            table = augmented(
                genes, library, predict, universe, k=k, n_draws=n_draws, popularity=popularity,
                seed=seed + i,
            )  # fmt: skip
            found.append([_alarms(table[column].to_numpy()) for column in TESTS])
        for label, (terms, lists) in zip(TESTS.values(), np.mean(found, axis=0), strict=True):
            variant = f"{size} genes, {label}"
            rows += [
                partial("terms at 0.05", terms, variant=variant, null=SIGNIFICANT, n=n_lists),
                partial("lists with a term", lists, variant=variant, null=SIGNIFICANT, n=n_lists),
            ]
    return rows


def term_recovery(
    library: GeneSets,
    predict: Callable[[sp.csr_matrix], np.ndarray],
    universe: Sequence[str],
    *,
    n_members: int = 3,
    n_random: int = 17,
    n_lists: int = 40,
    k: int = 50,
    n_draws: int = 300,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Hide a few members of a term among random genes, and look for the term.

    Parameters
    ----------
    library, predict, universe, k, n_draws, seed
        As for :func:`txfm_lite.enrichment.augmented`.
    n_members, n_random : int
        Genes of the term, and others, in a list.
    n_lists : int
        Each about a term of its own.

    Returns
    -------
    list of dict
        For each test: `metric` "found at q 0.05", "first" and "among ten": the share of lists whose term is
        significant, has the smallest p, or one of the ten smallest. Of equal p, half count as smaller.

    Raises
    ------
    ValueError
        If fewer than two terms have more members in the universe than are shown.
    """
    universe = np.asarray(universe, dtype=str)
    rng = np.random.default_rng(seed)
    terms = library.over(universe)
    large = rng.permutation(np.flatnonzero(terms.sizes > n_members))[:n_lists]
    if len(large) < 2:
        raise ValueError(f"{len(large)} terms have more than {n_members} genes in the universe")
    numbered = GeneSets(
        np.arange(len(terms)).astype(str).astype(object), terms.libraries, terms.genes, terms.indptr,
        terms.indices,
    )  # fmt: skip
    found = []
    for i in large:
        members = terms.indices[terms.indptr[i] : terms.indptr[i + 1]]
        others = np.ones(len(universe), bool)
        others[members] = False
        drawn = random_lists(np.zeros(n_random, int), others, 1, rng)[0]
        genes = universe[np.concatenate([rng.choice(members, n_members, replace=False), drawn])]
        table = augmented(genes, numbered, predict, universe, k=k, n_draws=n_draws, seed=seed)
        here = (table["term"] == str(i)).to_numpy()
        found.append([_place(table[column].to_numpy(), here) for column in TESTS])
    rows = []
    for label, shares in zip(TESTS.values(), np.mean(found, axis=0), strict=True):
        for metric, share in zip(("found at q 0.05", "first", "among ten"), shares, strict=True):
            rows.append(partial(metric, share, variant=label, n=len(large)))
    return rows


def _alarms(p: np.ndarray) -> tuple[float, bool]:
    from scipy.stats import false_discovery_control

    return (p <= SIGNIFICANT).mean(), (false_discovery_control(p) <= SIGNIFICANT).any()


def _place(p: np.ndarray, here: np.ndarray) -> tuple[bool, bool, bool]:
    """Tell whether a term is significant, the first, and among ten."""
    from scipy.stats import false_discovery_control

    mine = p[here][0]
    rank = (p < mine).sum() + ((p == mine).sum() - 1) / 2
    return false_discovery_control(p)[here][0] <= SIGNIFICANT, rank < 1, rank < 10
