"""Alignment by controls: closed forms, invariances, and what cannot be aligned."""

import numpy as np
import pytest

from txfm_lite.evaluate import alignment


@pytest.fixture
def screen():
    """Three batches, shifted and stretched, a third of the cells controls."""
    rng = np.random.default_rng(0)
    batches = np.repeat(["a", "b", "c"], [90, 120, 150])
    controls = np.arange(360) % 3 == 0
    x = (
        rng.normal(size=(360, 5))
        @ rng.normal(size=(5, 5))
        * np.select([batches == b for b in "abc"], [1, 2, 3])[:, None]
    )
    return x + np.select([batches == b for b in "abc"], [0, 4, -2])[:, None], batches, controls


def test_controls_are_centred_and_scaled(screen):
    x, batches, controls = screen
    centred, scaled = (alignment.align(x, batches, controls, how) for how in ("centre", "centre-scale"))
    for batch in "abc":
        inside = batches == batch
        theirs = x[inside & controls]
        np.testing.assert_allclose(centred[inside], x[inside] - theirs.mean(axis=0), rtol=1e-4, atol=1e-5)
        expected = (x[inside] - theirs.mean(axis=0)) / theirs.std(axis=0)  # of the population
        np.testing.assert_allclose(scaled[inside], expected, rtol=1e-4, atol=1e-5)
    assert alignment.align(x, batches, controls, "none") == pytest.approx(x.astype(np.float32))


def test_an_axis_without_variance_is_only_centred():
    x = np.column_stack([np.full(8, 3.0), np.arange(8.0)])
    out = alignment.align(x, np.repeat("a", 8), np.arange(8) < 4, "centre-scale")
    assert (out[:, 0] == 0).all()
    assert np.isfinite(out).all()


def test_tvn_before_and_after_the_batch_step(screen):
    """One batch: controls have covariance I before it, I · 2/3 or so after (exactly, with n - 1 counted)."""
    x, _, controls = screen
    out = alignment.tvn(x, np.repeat("one", len(x)), controls)
    n = controls.sum()
    sample = n / (n - 1)  # the covariance of standardised controls, as the step estimates it
    np.testing.assert_allclose(
        np.cov(out[controls], rowvar=False, ddof=0), np.eye(5) / (sample + 0.5), atol=1e-12
    )
    at_one = (1 + alignment.RIDGE) ** -0.5
    assert at_one == pytest.approx(0.816497, abs=1e-6)


def test_tvn_leaves_batch_means(screen):
    x, batches, controls = screen
    out = alignment.tvn(x, batches, controls)
    means = [np.linalg.norm(out[(batches == b) & controls].mean(axis=0)) for b in "abc"]
    assert max(means) > 0.3
    for b in "abc":
        eigenvalues = np.linalg.eigvalsh(np.cov(out[(batches == b) & controls], rowvar=False))
        assert (eigenvalues < 1).all()


def test_cosines_after_tvn_do_not_depend_on_affine_maps(screen):
    x, batches, controls = screen
    rng = np.random.default_rng(1)
    moved = x @ rng.normal(size=(5, 5)) + rng.normal(size=5)

    def cosines(values):
        z = alignment.tvn(values, batches, controls)
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        return z @ z.T

    np.testing.assert_allclose(cosines(x), cosines(moved), atol=1e-9)


@pytest.mark.parametrize("how", ["centre", "TVN"])
def test_distances_do_not_depend_on_rotation_or_order(screen, how):
    x, batches, controls = screen
    rng = np.random.default_rng(2)
    rotation, order = np.linalg.qr(rng.normal(size=(5, 5)))[0], rng.permutation(len(x))

    def lengths(values, rows=slice(None)):
        return np.linalg.norm(alignment.align(values[rows], batches[rows], controls[rows], how), axis=1)

    expected = lengths(x)
    if how == "centre":
        np.testing.assert_allclose(lengths(x @ rotation), expected, rtol=1e-4)
    np.testing.assert_allclose(lengths(x, order), expected[order], rtol=1e-4)


def test_fewer_controls_than_axes_and_constants():
    rng = np.random.default_rng(3)
    x, batches = rng.normal(size=(40, 30)), np.repeat(["a", "b"], 20)
    controls = np.arange(40) % 4 == 0  # 10 controls span 9 axes
    assert alignment.align(x, batches, controls, "TVN").shape == (40, 9)
    for how in alignment.ALIGNMENTS:
        out = alignment.align(np.zeros((40, 2)), batches, controls, how)
        assert not out.any()


def test_control_axes_standardise_each_batch(screen):
    x, batches, controls = screen
    out = alignment.control_axes(x, batches, controls)
    for b in "abc":
        np.testing.assert_allclose(out[batches == b].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(out[batches == b].std(axis=0), 1, atol=1e-5)


def test_refuses(screen):
    x, batches, controls = screen
    lonely = controls & ((batches != "b") | (np.arange(360) == 90))
    for how in ("centre", "centre-scale", "TVN"):
        with pytest.raises(ValueError, match="'b' has 1 controls"):
            alignment.align(x, batches, lonely, how)
    with pytest.raises(ValueError, match="there are none, centre"):
        alignment.align(x, batches, controls, "whiten")
    x[7, 2] = np.nan
    with pytest.raises(ValueError, match="row 7"):
        alignment.align(x, batches, controls, "none")
