"""From the decoder's logits to log-counts, and what it costs to be wrong.

Counts are normalised to the library size L and logged, x = log(1 + c), so the model predicts a log-rate x̂ in
[0, log(1 + L)): nothing below zero (a rate of one is "no counts", since e^x = c + 1) and nothing above "all
counts in one gene". Source: Kenyon-Dean et al. 2026, equations 2 and 3, and the variants of its ablations.

Every activation maps logits to log-rates. Every loss takes log-rates and log-targets of shape (..., G) and a
mask of measured genes, broadcastable to it; it returns the mean over the measured genes of each sample, then
over samples. Unmeasured genes cost nothing and get no gradient, whatever stands there. Losses are computed in
float32 under any autocast: exponents reach 11.5, and e^11.5 has no room in half precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

LIBRARY_SIZE = 1e5  # L: every profile is scaled to this many counts
SLOPE = 4 * math.e  # beta in the paper: how far a logit must go for the rate to bend towards its ceiling
MEAN_FLOOR = 0.01  # normalised counts: the least mean of the negative binomial


def rectified_tanh(z: torch.Tensor, library_size: float = LIBRARY_SIZE) -> torch.Tensor:
    """Map logits to log-rates: log(L + 1) · relu(tanh(z / 4e)).

    The slope at 0+ is log(L + 1) / 4e, about 1.06; the ceiling is the library itself. A logit at or below
    zero predicts "no counts" and gets no gradient.

    Parameters
    ----------
    z : Tensor, any shape
        Logits.
    library_size : float
        L, in counts.

    Returns
    -------
    Tensor, the shape of `z`
        Log-rates, log(counts + 1).
    """
    return math.log1p(library_size) * torch.relu(torch.tanh(z / SLOPE))


def inverse_rectified_tanh(log_rate: torch.Tensor, library_size: float = LIBRARY_SIZE) -> torch.Tensor:
    """Return the logits z > 0 whose :func:`rectified_tanh` is `log_rate`, for 0 < log_rate < log(L + 1)."""
    return SLOPE * torch.atanh(log_rate / math.log1p(library_size))


def relu(z: torch.Tensor, library_size: float = LIBRARY_SIZE) -> torch.Tensor:
    """Map logits to log-rates without a ceiling: e^x̂ can overflow, and in the paper the loss became NaN."""
    return torch.relu(z)


def clamped_relu(z: torch.Tensor, library_size: float = LIBRARY_SIZE) -> torch.Tensor:
    """Map logits to log-rates between 0 and log(L + 1); no gradient outside."""
    return torch.clamp(z, 0.0, math.log1p(library_size))


def softmax(z: torch.Tensor, library_size: float = LIBRARY_SIZE) -> torch.Tensor:
    """Map logits to log-rates that share one library: log(1 + L · softmax(z)) over the last axis.

    A logit of -inf takes a gene out; the model does so with unmeasured genes, which have no share in L.
    """
    return torch.log1p(library_size * torch.softmax(z, dim=-1))


def inverse_softmax(log_rate: torch.Tensor, library_size: float = LIBRARY_SIZE) -> torch.Tensor:
    """Return logits whose :func:`softmax` is `log_rate`, if those counts add up to L."""
    return torch.log(torch.expm1(log_rate) / library_size)


def poisson_loss(
    log_rate: torch.Tensor, log_target: torch.Tensor, measured: torch.Tensor | None = None
) -> torch.Tensor:
    """Poisson negative log-likelihood without its constant: exp(x̂) − x̂ · exp(x).

    The target is exp(x) = normalised count + 1, and so is the rate exp(x̂) a count + 1.

    Parameters
    ----------
    log_rate, log_target : Tensor, shape (..., G)
        Predicted x̂ and observed x, log(counts + 1).
    measured : Tensor of bool, broadcastable to the same shape, optional
        Genes that the sample's dataset can report.

    Returns
    -------
    Tensor, shape ()
    """
    log_rate, log_target = _comparable(log_rate, log_target, measured)
    return _mean(torch.exp(log_rate) - log_rate * torch.exp(log_target), measured)


def mse_loss(
    log_rate: torch.Tensor, log_target: torch.Tensor, measured: torch.Tensor | None = None
) -> torch.Tensor:
    """Squared error of the log-values; arguments as for :func:`poisson_loss`."""
    return _mean(torch.square(torch.sub(*_comparable(log_rate, log_target, measured))), measured)


def smooth_l1_loss(
    log_rate: torch.Tensor, log_target: torch.Tensor, measured: torch.Tensor | None = None
) -> torch.Tensor:
    """Huber's error of the log-values, linear beyond 1; arguments as for :func:`poisson_loss`."""
    pair = _comparable(log_rate, log_target, measured)
    return _mean(F.smooth_l1_loss(*pair, reduction="none"), measured)


def negative_binomial_loss(
    log_rate: torch.Tensor,
    log_target: torch.Tensor,
    measured: torch.Tensor | None = None,
    *,
    theta: torch.Tensor,
    size_factor: torch.Tensor,
) -> torch.Tensor:
    """Negative log-likelihood of the raw counts under a negative binomial.

    The mean is s · μ and the variance s · μ + (s · μ)² / θ: scipy's ``nbinom(n=θ, p=θ / (θ + s · μ))``.
    The paper does not say how μ follows from x̂. We take μ = exp(x̂) − 1, the counts that x̂ stands for, plus
    a hundredth of a count: a mean of zero would rule out what happens.

    Parameters
    ----------
    log_rate, log_target, measured
        As for :func:`poisson_loss`; the raw counts are s · (exp(x) − 1).
    theta : Tensor, shape (G,)
        Inverse dispersion of each gene, shared by all samples.
    size_factor : Tensor, shape (...,)
        s of each sample: its total counts / L.
    """
    log_rate, log_target = _comparable(log_rate, log_target, measured)
    theta, size_factor = theta.float(), size_factor.float().unsqueeze(-1)
    counts, mean = size_factor * torch.expm1(log_target), size_factor * (torch.expm1(log_rate) + MEAN_FLOOR)
    constant = torch.lgamma(theta) + torch.lgamma(counts + 1) - torch.lgamma(counts + theta)
    cost = constant + counts * torch.log1p(theta / mean) + theta * torch.log1p(mean / theta)
    return _mean(cost, measured)


def _comparable(
    log_rate: torch.Tensor, log_target: torch.Tensor, measured: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both in float32, zero where not measured: masking the cost alone leaves 0 · inf in gradients."""
    log_rate, log_target = log_rate.float(), log_target.float()
    if measured is None:
        return log_rate, log_target
    return torch.where(measured, log_rate, 0.0), torch.where(measured, log_target, 0.0)


def _mean(cost: torch.Tensor, measured: torch.Tensor | None) -> torch.Tensor:
    if measured is None:
        return cost.mean()
    weight = measured.to(cost.dtype)
    return ((cost * weight).sum(-1) / weight.sum(-1)).mean()


ACTIVATIONS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "rectified_tanh": rectified_tanh,
    "relu": relu,
    "clamped_relu": clamped_relu,
    "softmax": softmax,
}
INVERSES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {  # where logits have a gradient
    "rectified_tanh": inverse_rectified_tanh,
    "relu": relu,
    "clamped_relu": clamped_relu,
    "softmax": inverse_softmax,
}
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "poisson": poisson_loss,
    "mse": mse_loss,
    "smooth_l1": smooth_l1_loss,
    "negative_binomial": negative_binomial_loss,
}
