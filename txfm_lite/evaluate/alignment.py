r"""Post-processing: use each batch's own controls to make its cells comparable with those of other batches.

Three ways are in use, and published comparisons keep for each model the one with the best *test* score. Here
they are functions of one form, so that all can be shown and the choice be made elsewhere
(:func:`txfm_lite.evaluate.perturbations.choose`). With :math:`K_b` the controls of batch :math:`b`:

- centre: :math:`z - \bar z_{K_b}`;
- centre-scale: the same, divided by the controls' standard deviation per axis;
- TVN, typical variation normalisation (Ando et al. 2017), as coded in EFAAR_benchmarking: whiten with all
  controls, then multiply each batch by :math:`(\mathrm{Cov}(z_{K_b}) + I/2)^{-1/2}`.

They see which cells are controls and their batch, never which perturbation another cell has.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RIDGE = 0.5  # added to each batch's covariance; a choice of the published code, not of Ando et al.
LEAST_VARIANCE = 1e-10  # of the largest: an axis with less is rounding error, and whitening would blow it up


def align(values: np.ndarray, batches: np.ndarray, controls: np.ndarray, how: str) -> np.ndarray:
    """Align an embedding in one of the ways of :data:`ALIGNMENTS`.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    batches : array of str, shape (n,)
    controls : array of bool, shape (n,)
    how : str

    Returns
    -------
    ndarray, float32, shape (n, d), or fewer columns after TVN

    Raises
    ------
    ValueError
        If a value is missing or infinite, a batch has fewer than two controls, or `how` is unknown.
    """
    if how not in ALIGNMENTS:
        raise ValueError(f"alignment {how!r}: there are {', '.join(ALIGNMENTS)}")
    return ALIGNMENTS[how](values, batches, controls).astype(np.float32)


def none(values: np.ndarray, batches: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Return the values as they are."""
    return _checked(values)


def centre(values: np.ndarray, batches: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Move each batch so that its controls' mean is zero."""
    return _per_batch(values, batches, controls, with_std=False)


def centre_scale(values: np.ndarray, batches: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Centre each batch and divide each axis by its controls' standard deviation (by 1 where that is 0)."""
    return _per_batch(values, batches, controls, with_std=True)


def tvn(values: np.ndarray, batches: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Whiten with all controls, then bring each batch's control covariance near two thirds of the identity.

    What it does not do: the *means* of a batch's controls stay where they are. Cosines after it do not depend
    on invertible affine maps of the input. With no more controls than axes, the axes that the controls do not
    span are left out, and those that they barely span are mostly noise: reduce the dimension before.

    Returns
    -------
    ndarray, float64, shape (n, r)
        With r the number of axes along which controls vary, at least 1.
    """
    from sklearn.preprocessing import StandardScaler

    values, controls = _checked(values), np.asarray(controls, dtype=bool)
    parts = list(_batches(batches, controls))  # before anything is fitted: says which batch lacks controls
    values = StandardScaler().fit(values[controls]).transform(values)
    values = values @ _principal_axes(values[controls])
    values = StandardScaler().fit(values[controls]).transform(values)
    for inside, theirs in parts:
        covariance = np.atleast_2d(np.cov(values[theirs], rowvar=False))
        variance, axes = np.linalg.eigh(covariance + RIDGE * np.eye(values.shape[1]))
        values[inside] = values[inside] @ (axes / np.sqrt(variance)) @ axes.T
    return values


def control_axes(values: np.ndarray, batches: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Rotate to the principal axes of the controls, then standardise each batch over all of its cells.

    What the TxFM paper does before its perturbation consistency; not one of the three of its tables.
    """
    from sklearn.preprocessing import StandardScaler

    values, controls = _checked(values), np.asarray(controls, dtype=bool)
    values = (values - values[controls].mean(axis=0)) @ _principal_axes(values[controls])
    for inside, _ in _batches(batches, controls):
        values[inside] = StandardScaler().fit_transform(values[inside])
    return values.astype(np.float32)


ALIGNMENTS = {"none": none, "centre": centre, "centre-scale": centre_scale, "TVN": tvn}


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if (bad := np.flatnonzero(~np.isfinite(values).all(axis=1))).size:
        raise ValueError(f"{bad.size} cells have missing or infinite values, for example row {bad[0]}")
    return values


def _principal_axes(x: np.ndarray) -> np.ndarray:
    """Return the axes along which `x` (n, d) varies, shape (d, r), at least one."""
    _, scale, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return axes[: max(1, int((scale**2 > LEAST_VARIANCE * scale[0] ** 2).sum()))].T


def _per_batch(values, batches, controls, with_std: bool) -> np.ndarray:
    from sklearn.preprocessing import StandardScaler

    values = _checked(values)
    out = np.empty_like(values)
    for inside, theirs in _batches(batches, controls):
        out[inside] = StandardScaler(with_std=with_std).fit(values[theirs]).transform(values[inside])
    return out


def _batches(batches, controls) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of each batch and those of its controls."""
    batches, controls = np.asarray(batches).astype(str), np.asarray(controls, dtype=bool)
    for batch in np.unique(batches):
        inside = np.flatnonzero(batches == batch)
        theirs = inside[controls[inside]]
        if len(theirs) < 2:
            raise ValueError(
                f"batch {str(batch)!r} has {len(theirs)} controls, and its cells cannot be aligned without "
                "at least 2: leave the batch out, or join it with another that was run beside it"
            )
        yield inside, theirs
