r"""E-distance: how far a perturbation is from the controls, beyond the spread of both; with a test.

:math:`E = 2\,\overline{d(x, y)} - \overline{d(x, x')} - \overline{d(y, y')}` (Peidli et al. 2024, scPerturb),
with squared Euclidean distances, the default there. Then all means over pairs have closed forms, so that
nothing is ever n × n:

.. math:: E = 2 \lVert \bar x - \bar y \rVert^2 - 2 V_x / (n_x - 1) - 2 V_y / (n_y - 1)

with V the mean squared distance of a group to its mean. It is an unbiased estimate of twice the squared
distance of the means, and it sees nothing but the means: a perturbation that only widens the cloud is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MOST_CONTROLS = 2000


def e_distance(sums: np.ndarray, squares: np.ndarray, n, total: np.ndarray, square: float, m: int):
    """Return the E-distance between groups and what remains of a pool when they are taken out.

    Parameters
    ----------
    sums, squares : ndarray, shapes (k, d) and (k,)
        Sum and sum of squared lengths of the cells of each group.
    n : int
        Cells per group, at least 2.
    total, square : ndarray, shape (d,), and float
        The same for the whole pool.
    m : int
        Cells in the pool beside the group, at least 2.

    Returns
    -------
    ndarray, shape (k,)
    """
    mean, other = sums / n, (total - sums) / m
    spread = squares / n - (mean**2).sum(axis=1)
    other_spread = (square - squares) / m - (other**2).sum(axis=1)
    between = ((mean - other) ** 2).sum(axis=1)
    return 2 * (between - spread / (n - 1) - other_spread / (m - 1))


def e_test(
    values: np.ndarray, groups: np.ndarray, controls: np.ndarray, n_permutations: int = 999, seed: int = 0
) -> pd.DataFrame:
    """Compare each perturbation with the controls, and with random splits of both together.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    groups : array of str, shape (n,)
        Perturbation of each cell; those of fewer than two cells are left out.
    controls : array of bool, shape (n,)
        Of more than 2,000, as many are drawn.
    n_permutations : int
        More are made where there are so many perturbations that the smallest p could not reach 0.05 after
        correction.
    seed : int

    Returns
    -------
    DataFrame
        Indexed by perturbation: `n`, `distance` (E), `relative` (E over the mean squared distance between two
        controls, which does not depend on the embedding's scale), `p` with + 1, and `adjusted` by Holm's and
        Šidák's rule, as in scPerturb.

    Raises
    ------
    ValueError
        If there are fewer than two controls.
    """
    import pandas as pd
    from statsmodels.stats.multitest import multipletests

    controls, rng = np.asarray(controls, dtype=bool), np.random.default_rng(seed)
    pool = rng.permutation(np.flatnonzero(controls))[:MOST_CONTROLS]
    if len(pool) < 2:
        raise ValueError(f"an E-distance needs two controls; there are {len(pool)}")
    values = np.asarray(values, dtype=np.float64)
    values = values - values[pool].mean(axis=0)  # differences of large squares would lose digits
    within = 2 * (values[pool] ** 2).sum() / (len(pool) - 1)
    names, n = np.unique(np.asarray(groups).astype(str)[~controls], return_counts=True)
    names, n = names[n >= 2], n[n >= 2]
    n_permutations = max(n_permutations, 25 * len(names))  # Šidák: p < 0.05 / m
    rows = []
    for name, size in zip(names, n, strict=True):
        x = np.concatenate([values[(groups == name) & ~controls], values[pool]])
        length = (x**2).sum(axis=1)
        everything = x.sum(axis=0), length.sum(), len(pool)
        observed = e_distance(
            x[:size].sum(axis=0, keepdims=True), length[:size].sum(keepdims=True), size, *everything
        )
        drawn = np.zeros((n_permutations, len(x)), dtype=np.float32)
        chosen = np.argpartition(rng.random(drawn.shape, dtype=np.float32), size - 1, axis=1)[:, :size]
        np.put_along_axis(drawn, chosen, 1, axis=1)
        sums = drawn @ np.column_stack([x, length]).astype(np.float32)
        null = e_distance(sums[:, :-1].astype(np.float64), sums[:, -1].astype(np.float64), size, *everything)
        p = ((null >= observed - 1e-6 * abs(observed)).sum() + 1) / (n_permutations + 1)
        rows.append({"n": size, "distance": observed[0], "p": p})
    frame = pd.DataFrame(rows, index=names, columns=["n", "distance", "p"])
    relative = frame["distance"] / within if within > 0 else 0.0
    adjusted = multipletests(frame["p"].clip(upper=1 - 1e-9), method="holm-sidak")[1] if len(frame) else []
    return frame.assign(relative=relative, adjusted=adjusted)
