"""What a GSFM is built from: sets as bags of tokens, layers that read them, a loss that reads few entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

SPECIALS = ("<unk>", "<pad>")
UNK, PAD = 0, 1


class Bags(NamedTuple):
    """Some sets as what the models read: the tokens of all sets, one set after the other.

    Parameters
    ----------
    indices : Tensor of int64, shape (N,)
        Tokens; with two channels, V more for a gene that goes down.
    offsets : Tensor of int64, shape (B,)
        Where each set begins.
    weights : Tensor of float32, shape (N,), optional
        Of each member in the input; without them 1.
    """

    indices: torch.Tensor
    offsets: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def rows(self) -> torch.Tensor:
        """The set that each token belongs to, shape (N,)."""
        lengths = torch.diff(self.offsets, append=self.offsets.new_tensor([len(self.indices)]))
        rows = torch.arange(len(lengths), device=lengths.device)
        return rows.repeat_interleave(lengths, output_size=len(self.indices))

    def where(self, kept: torch.Tensor) -> Bags:
        """Return the same sets with the tokens of a mask, shape (N,), only."""
        n = F.pad(kept.cumsum(0), (1, 0))[self.offsets]
        return Bags(self.indices[kept], n, None if self.weights is None else self.weights[kept])


class Bag(nn.Module):
    """A linear layer whose input is given by its non-zeros: a sum of rows of a table, and the bias.

    Its parameter is that table, (V, out), so that a row lies in one piece, for the sum and for the optimiser.
    To the outside, and in files, it has the `weight` of any linear layer, (out, V).
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        dense = nn.Linear(in_features, out_features)
        table = dense.weight.detach().T.contiguous()
        table[UNK] = 0.0  # where training never meets an unknown gene, it goes on to say nothing
        self.table, self.bias = nn.Parameter(table), dense.bias
        self.out_features = out_features

    @property
    def weight(self) -> torch.Tensor:
        """The weights as those of a linear layer, (out, V)."""
        return self.table.T

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = destination.pop(f"{prefix}table").T

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if (weight := state_dict.pop(f"{prefix}weight", None)) is not None:
            state_dict[f"{prefix}table"] = weight.T
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self, indices: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return one vector per set, shape (B, out); ``<pad>`` adds nothing."""
        total = F.embedding_bag(
            indices, self.table, offsets, mode="sum", per_sample_weights=weights, padding_idx=PAD
        )
        return total + self.bias


class MLP(nn.Module):
    """Linear layers of the given widths, with ReLU and dropout after all but the last."""

    def __init__(self, widths: Sequence[int], dropout: float, first: type[nn.Module] = nn.Linear):
        super().__init__()
        self.layers = nn.Sequential()
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            if i:
                self.layers.extend([nn.ReLU(), nn.Dropout(dropout)])
            self.layers.append((first if i == 0 else nn.Linear)(a, b))

    def forward(self, *x: torch.Tensor | None) -> torch.Tensor:
        """Return the output of the last layer; what the first one takes may be several tensors."""
        for layer in self.layers:
            x = (layer(*x),)
        return x[0]


def divide(lengths: torch.Tensor, share: float | torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Divide sets at random into a part that is shown and one that is hidden, as published.

    Of n tokens ``ceil(n · (1 - share)) - 1`` are shown.

    Parameters
    ----------
    lengths : Tensor of int64, shape (B,)
        Number of tokens of each set.
    share : float, or Tensor of shape (B,)
        The part to be hidden, of all sets or of each.
    noise : Tensor of float64, shape (N,)
        Uniform numbers in [0, 1), one per token: in each set those with the smallest are shown.

    Returns
    -------
    Tensor of bool, shape (N,)
        True where shown.
    """
    rows = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    order = (rows + noise).argsort()
    place = torch.arange(len(rows), device=rows.device) - (lengths.cumsum(0) - lengths)[rows]
    n_shown = (lengths.double() * (1 - share)).ceil().long() - 1
    shown = torch.empty_like(rows, dtype=torch.bool)
    shown[order] = place < n_shown[rows]
    return shown


class _CrossEntropy(torch.autograd.Function):
    """Sum of binary cross-entropies over (B, V) logits whose target is given by its few entries.

    An absent entry costs softplus(x), a present one of weight w costs w · softplus(-x). All are summed as
    absent, and the few are corrected; the gradient is sigmoid(x), and w · (sigmoid(x) - 1) at the
    few. A dense target is never made, nor what else would be as large as the logits, but for that gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, entries: torch.Tensor, weight: torch.Tensor | None
    ) -> torch.Tensor:
        few = x.flatten()[entries]
        ctx.save_for_backward(x, entries, few, weight)
        if weight is None:  # softplus(-x) - softplus(x) = -x
            return F.softplus(x).sum() - few.sum()
        return F.softplus(x).sum() + (weight * F.softplus(-few) - F.softplus(few)).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, entries, few, weight = ctx.saved_tensors
        out = torch.sigmoid(x)
        at = -torch.sigmoid(-few) if weight is None else -weight * torch.sigmoid(-few)
        out.view(-1)[entries] = at
        return out.mul_(gradient), None, None


def binary_cross_entropy(
    logits: torch.Tensor, entries: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean binary cross-entropy over all B · V entries, in nats.

    Parameters
    ----------
    logits : Tensor, shape (B, V)
    entries : Tensor of int64
        Flat positions, ``row · V + column``, that are present; none twice.
    weight : Tensor, optional
        Of each of these (``pos_weight``). With weight 0 an entry is left out: neither present nor absent.
    """
    return _CrossEntropy.apply(logits.contiguous(), entries, weight) / logits.numel()


def mean_of_bags(vectors: torch.Tensor, bags: Bags) -> torch.Tensor:
    """Return the mean vector of each set, (B, d): weighted if the members are; 0 for an empty set."""
    rows, weights = bags.rows, bags.weights
    real = (bags.indices != PAD).to(vectors) if weights is None else weights * (bags.indices != PAD)
    total = vectors.new_zeros(len(bags.offsets), vectors.shape[1])
    total = total.index_add(0, rows, vectors * real[:, None])
    size = real.new_zeros(len(bags.offsets)).index_add(0, rows, real.abs())
    return total / torch.where(size > 0, size, 1.0)[:, None]
