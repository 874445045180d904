"""Activations and losses: published constants, closed forms, scipy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from txfm_lite.objectives import (
    ACTIVATIONS,
    INVERSES,
    LOSSES,
    MEAN_FLOOR,
    clamped_relu,
    inverse_rectified_tanh,
    mse_loss,
    negative_binomial_loss,
    poisson_loss,
    rectified_tanh,
    relu,
    smooth_l1_loss,
    softmax,
)

ALPHA, BETA = math.log(1e5 + 1), 4 * math.e


def loss_of(name, rate, target, measured=None):
    """Any loss, with arguments for the negative binomial that every shape below allows."""
    extra = {}
    if name == "negative_binomial":
        extra = {"theta": torch.full(rate.shape[-1:], 2.0), "size_factor": torch.full(rate.shape[:-1], 0.3)}
    return LOSSES[name](rate, target, measured, **extra)


def test_published_values():
    z = torch.tensor([-1.0, 0, 1, 5, 10, 20, 50], dtype=torch.float64)
    expected = [0, 0, 1.055868, 4.950118, 8.355568, 10.945777, 11.510602]
    np.testing.assert_allclose(rectified_tanh(z), expected, atol=1e-6)


def test_slope_at_zero():
    z = torch.tensor(1e-6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(rectified_tanh(z), z)
    assert slope.item() == pytest.approx(1.058843, abs=1e-6)


@pytest.mark.parametrize("library_size", [1e4, 1e5])
def test_equals_the_sigmoid_form(library_size):
    z = torch.linspace(-30, 30, 601, dtype=torch.float64)
    other = math.log1p(library_size) * torch.relu(2 * torch.sigmoid(z / (2 * math.e)) - 1)
    torch.testing.assert_close(rectified_tanh(z, library_size), other)


def test_inverse():
    z = torch.linspace(0.01, 25, 100, dtype=torch.float64)
    torch.testing.assert_close(inverse_rectified_tanh(rectified_tanh(z)), z)


def test_other_activations():
    z = torch.tensor([-3.0, 0.5, 11.0, 90.0])
    np.testing.assert_allclose(relu(z), [0, 0.5, 11, 90])
    np.testing.assert_allclose(clamped_relu(z), [0, 0.5, 11, ALPHA], rtol=1e-6)
    np.testing.assert_allclose(clamped_relu(z, 100.0), [0, 0.5, math.log(101), math.log(101)], rtol=1e-6)


def test_softmax_shares_one_library():
    z = torch.tensor([[0.0, math.log(3), -math.inf], [5.0, 5.0, 5.0]])
    counts = torch.expm1(softmax(z, 100.0))
    np.testing.assert_allclose(counts, [[25, 75, 0], [100 / 3] * 3], rtol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_can_start_from_a_profile(name):
    counts = torch.tensor([5.0, 20, 75, 99_900], dtype=torch.float64)  # one library
    log_rate = torch.log1p(counts)
    torch.testing.assert_close(ACTIVATIONS[name](INVERSES[name](log_rate, 1e5), 1e5), log_rate)


def test_published_losses():
    x = torch.tensor([math.log(11.0)])
    assert poisson_loss(x, x).item() == pytest.approx(-15.376848, abs=1e-5)
    assert poisson_loss(torch.zeros(1), x).item() == pytest.approx(1.0)
    assert poisson_loss(torch.tensor([ALPHA]), x).item() == pytest.approx(99_874.358, rel=1e-5)
    zero = torch.zeros(1)  # nothing costs less than 1 where nothing was counted
    assert poisson_loss(zero, zero).item() == 1.0
    assert all(poisson_loss(torch.tensor([r]), zero) > 1 for r in (-0.1, 0.1, 3.0))


def test_is_the_poisson_likelihood():
    """Against scipy: the loss is the negative log-pmf of count + 1, up to the target's own constant."""
    counts = np.arange(0, 40)
    log_rate = np.linspace(0.1, 4, 40)
    constant = np.array([math.lgamma(c + 2) for c in counts])
    scipys = -stats.poisson.logpmf(counts + 1, np.exp(log_rate)) - constant
    loss = poisson_loss(torch.tensor(log_rate), torch.log1p(torch.tensor(counts, dtype=torch.float64)))
    assert loss.item() == pytest.approx(scipys.mean(), rel=1e-6)


def test_is_the_negative_binomial_likelihood():
    """Against scipy, sample by sample and gene by gene."""
    rng = np.random.default_rng(0)
    theta, size = rng.uniform(0.2, 20, 50), rng.uniform(0.05, 3, 4)
    counts, log_rate = rng.poisson(8, (4, 50)), rng.uniform(0, 5, (4, 50))
    mean = size[:, None] * (np.expm1(log_rate) + MEAN_FLOOR)
    expected = -stats.nbinom.logpmf(counts, theta, theta / (theta + mean)).mean()
    loss = negative_binomial_loss(
        torch.tensor(log_rate),
        torch.log1p(torch.tensor(counts / size[:, None])),
        theta=torch.tensor(theta),
        size_factor=torch.tensor(size),
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_squared_and_absolute_errors():
    rate, target = torch.randn(3, 40) * 2, torch.randn(3, 40) * 2
    torch.testing.assert_close(mse_loss(rate, target), F.mse_loss(rate, target))
    torch.testing.assert_close(smooth_l1_loss(rate, target), F.smooth_l1_loss(rate, target))
    np.testing.assert_allclose(smooth_l1_loss(torch.tensor([0.5, 3.0]), torch.zeros(2)), (0.125 + 2.5) / 2)


def test_gradient_against_the_closed_form():
    x = torch.log1p(torch.tensor([0.0, 1, 10, 500]))
    z = torch.tensor([2.0, 0.5, 6, 9], requires_grad=True)
    poisson_loss(rectified_tanh(z), x).backward()
    t = torch.tanh(z.detach() / BETA)
    closed = ALPHA / BETA * (1 - t**2) * (torch.exp(ALPHA * t) - torch.exp(x))
    torch.testing.assert_close(z.grad * len(x), closed, rtol=1e-5, atol=1e-5)
    dead = torch.tensor([-1.0, 0.0, -20.0], requires_grad=True)
    poisson_loss(rectified_tanh(dead), torch.ones(3)).backward()
    assert (dead.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_unmeasured_genes_cost_nothing(name):
    rate, target = torch.rand(3, 5), torch.rand(3, 5)
    measured = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    by_hand = torch.stack(
        [loss_of(name, rate[i : i + 1, m], target[i : i + 1, m]) for i, m in enumerate(measured)]
    ).mean()
    spoilt_rate = torch.where(measured, rate, 200.0).requires_grad_()  # e^200 is more than float32 can hold
    for guess, truth in ((rate, target), (spoilt_rate, torch.where(measured, target, torch.nan))):
        assert loss_of(name, guess, truth, measured).item() == pytest.approx(by_hand.item(), rel=1e-6)
    loss_of(name, spoilt_rate, torch.where(measured, target, torch.inf), measured).backward()
    assert spoilt_rate.grad.isfinite().all()
    assert ((spoilt_rate.grad != 0) == measured).all()


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_float32_under_autocast(name, low):
    """e^11.4 is 89,322: no number in float16, and 8 bits of one in bfloat16."""
    rate, target = torch.full((1, 4), 11.4, dtype=low), torch.full((1, 4), 11.3, dtype=low)
    outside = loss_of(name, rate.float(), target.float())
    with torch.autocast("cpu", low):
        inside = loss_of(name, rate, target)
    assert inside.dtype == torch.float32
    assert inside.isfinite() and inside.item() == outside.item()


def test_a_diverging_relu_is_seen():
    """Without a ceiling e^x̂ overflows; the loss says so instead of hiding it."""
    z, x = torch.tensor([3.0, 200.0]), torch.tensor([1.0, 1.0])
    assert not poisson_loss(relu(z), x).isfinite()
    assert poisson_loss(rectified_tanh(z), x).isfinite()
    assert poisson_loss(clamped_relu(z), x).isfinite()
