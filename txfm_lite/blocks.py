"""What a TxFM is built from: encoder blocks, the short way through a single one, and decoder layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from .txfm import TxFMConfig


class _WeightedSum(torch.autograd.Function):
    """sum_k weights[h, b, k] · rows[h, genes[b, k]]: (H, B, K), (H, G, v), (B, K) -> (H, B, v).

    Gathering the rows would move B · K · v numbers. A matrix of weights that is zero outside the genes shown
    turns it into one product per head; built and dropped head by head, it also stays small.
    """

    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, rows: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weights, rows, genes)
        dense = weights.new_empty(len(genes), rows.shape[1])
        pairs = zip(weights, rows, strict=True)
        return torch.stack([dense.zero_().scatter_add_(1, genes, w) @ r for w, r in pairs])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        weights, rows, genes = ctx.saved_tensors
        dense = weights.new_empty(len(genes), rows.shape[1])
        to_weights, to_rows = torch.empty_like(weights), torch.empty_like(rows)
        with torch.autocast(gradient.device.type, enabled=False):
            for h, g in enumerate(gradient):
                torch.mm(dense.zero_().scatter_add_(1, genes, weights[h]).T, g, out=to_rows[h])
                torch.gather(torch.mm(g, rows[h].T, out=dense), 1, genes, out=to_weights[h])
        return to_weights, to_rows, None


class Block(nn.Module):
    """A pre-norm transformer block with LayerScale and stochastic depth."""

    def __init__(self, config: TxFMConfig, drop_path: float):
        super().__init__()
        d, hidden = config.d_model, config.mlp_ratio * config.d_model
        self.n_heads, self.drop_path = config.n_heads, drop_path
        self.norm1 = nn.LayerNorm(d)
        self.query, self.key_value, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.scale1 = nn.Parameter(torch.full((d,), float(config.layer_scale)))
        self.norm2 = nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, d))
        self.scale2 = nn.Parameter(torch.full((d,), float(config.layer_scale)))

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, cls_only: bool = False
    ) -> torch.Tensor:
        """Map (B, T, d) to (B, T, d), or to (B, 1, d) when only the CLS token, the first, is wanted."""
        residual = x[:, :1] if cls_only else x
        x = self._add(
            residual, lambda rows: self._attend(x[rows], mask if mask is None else mask[rows], cls_only)
        )
        return self._add(x, lambda rows: self._transform(x[rows]))

    def _attend(self, x: torch.Tensor, mask: torch.Tensor | None, cls_only: bool) -> torch.Tensor:
        y = self.norm1(x)
        key, value = self.key_value(y).chunk(2, dim=-1)
        q, k, v = (self._heads(t) for t in (self.query(y[:, :1] if cls_only else y), key, value))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.scale1 * self.out(attended.transpose(1, 2).flatten(-2))

    def _transform(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale2 * self.mlp(self.norm2(x))

    def _heads(self, t: torch.Tensor) -> torch.Tensor:  # (B, T, d) -> (B, heads, T, d / heads)
        return t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def _add(self, x: torch.Tensor, branch: Callable[[torch.Tensor | slice], torch.Tensor]) -> torch.Tensor:
        """Return x + branch; in training a fixed share of the samples, drawn anew, skips the branch.

        The skipped samples are not computed, and as their number is fixed, shapes stay what they are.
        """
        if not self.training or self.drop_path == 0:
            return x + branch(slice(None))
        n = max(1, round(len(x) * (1 - self.drop_path)))
        rows = torch.randperm(len(x), device=x.device)[:n]
        return x.index_add(0, rows, (branch(rows) * (len(x) / n)).to(x.dtype))  # the mean stays the same

    def pool(
        self,
        codebook: torch.Tensor,
        cls: torch.Tensor,
        values: torch.Tensor,
        genes: torch.Tensor,
        shown: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Do what ``forward(tokens, mask, cls_only=True)`` does to fresh tokens, without making them.

        In the first block CLS is still the same for all samples, so its query is, too. What a head reads from
        gene g's normalised token, ([E_g, x] - mean) / s, is then linear but for s: (E_g · r + x r_d) / s.
        Here r is the head's key as the query sees it, or a row of its value matrix, less its own mean (so
        that the token's mean drops out). E_g · r is computed once per gene instead of once per token.

        Parameters
        ----------
        codebook : Tensor, shape (G, d - 1)
        cls : Tensor, shape (1, 1, d)
        values, genes, shown : Tensor, shape (B, K)
            As for :meth:`TxFM.encode`.

        Returns
        -------
        Tensor, shape (B, 1, d)
        """
        with torch.autocast(values.device.type, enabled=False):  # few operations, and exponentials
            h, d, values = self.n_heads, cls.shape[-1], values.to(codebook.dtype)
            (to_key, to_value), bias = self.key_value.weight.chunk(2), self.key_value.bias[d:]
            query = self.query(self.norm1(cls.flatten())).view(h, 1, -1) / math.sqrt(d / h)
            read = torch.cat([(query @ to_key.view(h, -1, d)).squeeze(1), to_value]) * self.norm1.weight
            read = read - read.mean(1, keepdim=True)  # (h + d, d): h logits and d numbers of a token's value
            of_gene, of_value = codebook @ read[:, :-1].T, read[:, -1]  # (G, h + d), (h + d,)
            of_cls = read @ F.layer_norm(cls.flatten(), (d,), eps=self.norm1.eps)  # (h + d,)

            moments = torch.stack([codebook.sum(1), codebook.square().sum(1)], 1) / d  # of [E_g, 0]
            per_gene = torch.cat([of_gene[:, :h], moments], 1).index_select(0, genes.flatten())
            *logits, mean, square = per_gene.view(*genes.shape, -1).unbind(-1)  # each (B, K)
            variance = square + values.square() / d - (mean + values / d).square()
            inverse = torch.rsqrt(variance + self.norm1.eps)
            logits = (torch.stack(logits) + values * of_value[:h, None, None]) * inverse  # (h, B, K)
            if shown is not None:
                logits = logits.masked_fill(~shown, -math.inf)
            cls_logit = of_cls[:h, None, None].expand(h, len(values), 1)
            to_cls, share = torch.cat([cls_logit, logits], 2).softmax(2).split([1, values.shape[1]], 2)
            share = share * inverse
            rows = of_gene[:, h:].unflatten(1, (h, -1)).transpose(0, 1)  # (h, G, d / h)
            attended = _WeightedSum.apply(share, rows, genes)  # (h, B, d / h)
            attended = attended + (share * values).sum(2, keepdim=True) * of_value[h:].view(h, 1, -1)
            attended = attended + to_cls * of_cls[h:].view(h, 1, -1)
            attended = attended.transpose(0, 1).flatten(1) + F.linear(self.norm1.bias, to_value, bias)
        x = cls + (self.scale1 * self.out(attended)).unsqueeze(1)
        return x + self._transform(x)


class Residual(nn.Module):
    """One decoder layer: h + W2 gelu(W1 h)."""

    def __init__(self, d: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, d))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map (B, d) to (B, d)."""
        return h + self.mlp(h)
