"""The activation and the loss: published constants, closed forms, scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from txfm_lite.objectives import inverse_rectified_tanh, poisson_loss, rectified_tanh

ALPHA, BETA = math.log(1e5 + 1), 4 * math.e


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


def test_published_losses():
    x = torch.tensor([math.log(11.0)])
    assert poisson_loss(x, x).item() == pytest.approx(-15.376848, abs=1e-5)
    assert poisson_loss(torch.zeros(1), x).item() == pytest.approx(1.0)
    assert poisson_loss(torch.tensor([ALPHA]), x).item() == pytest.approx(99_874.358, rel=1e-5)


def test_is_the_poisson_likelihood():
    """Against scipy: the loss is the negative log-pmf of count + 1, up to the target's own constant."""
    counts = np.arange(0, 40)
    log_rate = np.linspace(0.1, 4, 40)
    ours = np.exp(log_rate) - log_rate * (counts + 1)
    scipys = -stats.poisson.logpmf(counts + 1, np.exp(log_rate)) - np.array(
        [math.lgamma(c + 2) for c in counts]
    )
    np.testing.assert_allclose(ours, scipys, atol=1e-10)
    loss = poisson_loss(torch.tensor(log_rate), torch.log1p(torch.tensor(counts, dtype=torch.float64)))
    assert loss.item() == pytest.approx(ours.mean(), rel=1e-6)


def test_gradient_against_the_closed_form():
    x = torch.log1p(torch.tensor([0.0, 1, 10, 500], dtype=torch.float64))
    z = torch.tensor([2.0, 0.5, 6, 9], dtype=torch.float64, requires_grad=True)
    rate = rectified_tanh(z)
    (torch.exp(rate) - rate * torch.exp(x)).sum().backward()
    t = torch.tanh(z.detach() / BETA)
    closed = ALPHA / BETA * (1 - t**2) * (torch.exp(ALPHA * t) - torch.exp(x))
    torch.testing.assert_close(z.grad, closed)
    dead = torch.tensor([-1.0, -20.0], requires_grad=True)
    rectified_tanh(dead).sum().backward()
    assert (dead.grad == 0).all()


def test_unmeasured_genes_cost_nothing():
    rate, target = torch.rand(3, 5), torch.rand(3, 5)
    measured = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    by_hand = torch.stack([poisson_loss(rate[i, m], target[i, m]) for i, m in enumerate(measured)]).mean()
    assert poisson_loss(rate, target, measured).item() == pytest.approx(by_hand.item(), rel=1e-6)
    spoilt = torch.where(measured, target, torch.inf)
    assert poisson_loss(rate, spoilt, measured).item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_loss_is_float32_under_autocast():
    rate, target = torch.full((1, 4), 11.4), torch.full((1, 4), 11.4)
    with torch.autocast("cpu", torch.bfloat16):
        low = poisson_loss(rate.bfloat16(), target.bfloat16())
    assert low.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert poisson_loss(rate, target).item() == poisson_loss(rate, target).item()
