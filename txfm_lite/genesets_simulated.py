"""Gene sets out of a random generator, for tests and for machines without data."""

from __future__ import annotations

import numpy as np

from txfm_lite.genesets_container import GeneSets


def simulated(n_sets: int = 2000, n_genes: int = 1000, n_modules: int = 40, seed: int = 0) -> GeneSets:
    """Return sets that are glimpses of overlapping latent modules, as tables of papers are of pathways.

    Each module has 3 % to 8 % of the genes, frequent ones rather than rare ones, as in real libraries, where some
    genes are in every tenth set. A set shows 30 % to 80 % of one module, and every third set of a second one, too;
    10 % of its members are noise.

    Parameters
    ----------
    n_sets, n_genes, n_modules
        How many.
    seed
        The same seed gives the same sets.

    Returns
    -------
    GeneSets
        Genes are called G0001, ... and are in no table of human genes; a set's name tells its modules.
    """
    rng = np.random.default_rng(seed)
    genes = np.array([f"G{i + 1:0{len(str(n_genes))}}" for i in range(n_genes)])
    fame = rng.gamma(1.0, size=n_genes) + 0.05
    fame /= fame.sum()
    sizes = rng.integers(max(2, n_genes * 3 // 100), max(3, n_genes * 8 // 100) + 1, n_modules)
    modules = [rng.choice(n_genes, size, replace=False, p=fame) for size in sizes]
    lists, names = [], []
    for i in range(n_sets):
        shown = rng.choice(n_modules, 2 if rng.random() < 1 / 3 else 1, replace=False)
        members = [modules[m][rng.random(sizes[m]) < rng.uniform(0.3, 0.8)] for m in shown]
        noise = rng.choice(n_genes, 1 + sum(map(len, members)) // 9, p=fame)
        lists.append(genes[np.concatenate([*members, noise])])
        names.append(f"set {i + 1}, module {' + '.join(str(m + 1) for m in sorted(shown))}")
    return GeneSets.from_lists(lists, names, "simulated")
