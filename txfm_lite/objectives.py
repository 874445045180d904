"""From the decoder's logits to log-counts, and what it costs to be wrong.

Counts are normalised to the library size L and logged, x = log(1 + c), so the model predicts a log-rate x̂ in
[0, log(1 + L)): nothing below zero (a rate of one is "no counts", since e^x = c + 1) and nothing above "all
counts in one gene". Source: Kenyon-Dean et al. 2026, equations 2 and 3.
"""

from __future__ import annotations

import math

import torch

LIBRARY_SIZE = 1e5  # L: every profile is scaled to this many counts
SLOPE = 4 * math.e  # beta in the paper: how far a logit must go for the rate to bend towards its ceiling


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
    return math.log(library_size + 1) * torch.relu(torch.tanh(z / SLOPE))


def inverse_rectified_tanh(log_rate: torch.Tensor, library_size: float = LIBRARY_SIZE) -> torch.Tensor:
    """Return the logits z > 0 whose :func:`rectified_tanh` is `log_rate`, for 0 < log_rate < log(L + 1)."""
    return SLOPE * torch.atanh(log_rate / math.log(library_size + 1))


def poisson_loss(
    log_rate: torch.Tensor, log_target: torch.Tensor, measured: torch.Tensor | None = None
) -> torch.Tensor:
    """Poisson negative log-likelihood (without its constant), averaged over the measured genes.

    exp(x̂) − x̂ · exp(x), where exp(x) = normalised count + 1 is the target. Always computed in float32: the
    exponents reach 11.5, and e^11.5 has no room in half precision.

    Parameters
    ----------
    log_rate, log_target : Tensor, shape (..., G)
        Predicted x̂ and observed x, log(counts + 1).
    measured : Tensor of bool, broadcastable to the same shape, optional
        Genes that the sample's dataset can report. The others cost nothing, whatever their values.

    Returns
    -------
    Tensor, shape ()
        Mean over the measured genes of each sample, then over samples.
    """
    log_rate, log_target = log_rate.float(), log_target.float()
    if measured is None:
        return (torch.exp(log_rate) - log_rate * torch.exp(log_target)).mean()
    log_target = torch.where(measured, log_target, 0.0)  # also here: 0 * inf in the gradient would be NaN
    cost = torch.where(measured, torch.exp(log_rate) - log_rate * torch.exp(log_target), 0.0)
    return (cost.sum(-1) / measured.expand_as(cost).sum(-1)).mean()
