"""TxFM: a masked autoencoder on RNA-seq counts (Kenyon-Dean et al. 2026, arXiv 2605.31562).

One sample's way through the model, method by method:

1. :func:`reveal`: K of the genes that its dataset measured are shown, the others are hidden.
2. :meth:`TxFM.encode`: a shown gene is a token, its learned vector E_g beside its value x_g; a CLS token
   joins them. There are no positions: the cell is a set. After the blocks, CLS *is* the embedding e.
3. :meth:`TxFM.decode`: from e alone, a residual MLP predicts the log-rate of every gene of the vocabulary.

=========  ====================  =========================================================
symbol     here                  meaning
=========  ====================  =========================================================
G          ``n_genes``           genes in the vocabulary
K          ``n_revealed``        genes shown to the encoder in training
L          ``library_size``      counts to which every sample is scaled
d          ``d_model``           width of a token and of the embedding
x, x̂       values, log-rates     log(1 + normalised counts), observed and predicted
E          ``codebook``          one learned vector of d - 1 numbers per gene
e          CLS output            the sample's embedding
=========  ====================  =========================================================

Where the paper is silent we chose: pre-norm blocks with GELU (the habit of vision transformers), the width of
the decoder, and the initial scales. The scales decide how long the model learns nothing but the mean profile;
three choices end that quickly (the chapter on pretraining shows it):

- ``codebook_std = 1``: gene vectors as large as values, or layer normalisation hides which gene a token is;
- ``value_gain = sqrt(d)``: the one value coordinate speaks as loudly as the d - 1 coordinates beside it;
- :meth:`TxFM.start_from_profile`: the decoder's bias starts at the mean profile instead of learning it first
  (and no gene starts with a logit below zero, where the activation has no gradient).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .objectives import ACTIVATIONS, INVERSES, LIBRARY_SIZE, LOSSES

PRESETS = {  # Table 6 of the paper. Its S has 6 blocks in print, but only 12 give the 57M parameters stated.
    "xs": dict(d_model=256, n_blocks=1, n_heads=8, drop_path=0.0),  # ours: one block costs the same at any K
    "tiny": dict(d_model=64, n_blocks=2, n_heads=4, n_revealed=256, drop_path=0.0),  # ours: minutes on a CPU
    "s": dict(d_model=384, n_blocks=12, n_heads=6, drop_path=0.1),
    "s6": dict(d_model=384, n_blocks=6, n_heads=6, drop_path=0.1),  # the table read literally: 46M
    "b": dict(d_model=768, n_blocks=12, n_heads=12, drop_path=0.1),
    "l": dict(d_model=1024, n_blocks=24, n_heads=16, drop_path=0.3),
}
PREPROCESSING = ("library_log1p", "log1p")


@dataclasses.dataclass(frozen=True)
class TxFMConfig:
    """The shape of a TxFM. The defaults are the paper's TxFM-B; "open" marks what it does not state."""

    n_genes: int  # G
    d_model: int = 768
    n_blocks: int = 12
    n_heads: int = 12
    n_revealed: int = 2048  # K
    library_size: float = LIBRARY_SIZE  # L
    decoder_blocks: int = 4  # residual MLPs between e and the genes
    drop_path: float = 0.1  # stochastic depth: chance to skip the last block, rising from 0 at the first
    layer_scale: float = 1.0  # open: initial gain of each residual branch
    mlp_ratio: int = 4  # open: width of a block's MLP / d_model
    codebook_std: float = 1.0  # open: initial scale of the gene vectors
    value_gain: float | None = None  # open: initial gain of weights that read the value; None is sqrt(d)
    activation: str = "rectified_tanh"  # from logits to log-rates; or relu, clamped_relu, softmax
    loss: str = "poisson"  # or mse, smooth_l1, negative_binomial
    preprocessing: str = (
        "library_log1p"  # x = log(1 + counts scaled to L); log1p leaves the counts as they are
    )
    reveal_exponent: float = 0.0  # tau: gene g is drawn with weight m_g ** tau, m_g = samples that express it

    def __post_init__(self):
        for field, known in (("activation", ACTIVATIONS), ("loss", LOSSES), ("preprocessing", PREPROCESSING)):
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"TxFMConfig.{field} = {value!r}: should be one of {', '.join(known)}")
        if not math.isfinite(self.reveal_exponent):
            raise ValueError(f"TxFMConfig.reveal_exponent = {self.reveal_exponent!r}: should be finite")
        for field in ("n_genes", "d_model", "n_blocks", "n_heads", "n_revealed", "mlp_ratio"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"TxFMConfig.{field} = {value!r}: should be a positive integer")
        if self.d_model % self.n_heads:
            raise ValueError(f"TxFMConfig: d_model {self.d_model} is no multiple of n_heads {self.n_heads}")
        if self.decoder_blocks < 0 or not 0 <= self.drop_path < 1 or self.library_size <= 0:
            raise ValueError(f"TxFMConfig: decoder_blocks, drop_path or library_size out of range: {self}")

    @classmethod
    def preset(cls, name: str, n_genes: int, **changes: Any) -> TxFMConfig:
        """Return one of the sizes in ``PRESETS``, with changes: ``preset("b", 44_349)`` is the paper's."""
        size = name.removeprefix("txfm-")
        if size not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return cls(n_genes=n_genes, **{**PRESETS[size], **changes})


def log_normalise(
    counts: torch.Tensor, totals: torch.Tensor, library_size: float = LIBRARY_SIZE
) -> torch.Tensor:
    """Return x = log(1 + L · counts / total).

    Parameters
    ----------
    counts : Tensor, shape (B, G)
    totals : Tensor, shape (B,)
        Counts of each whole sample, which can exceed the sum over these G genes.
    library_size : float
        L.
    """
    return torch.log1p(counts * (library_size / totals)[:, None])


def reveal(
    measured: torch.Tensor,
    n: int,
    generator: torch.Generator | None = None,
    weights: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw n measured genes per sample without replacement, zeros included.

    Parameters
    ----------
    measured : Tensor of bool, shape (B, G)
    n : int
        K. A sample that measures fewer genes shows all of them.
    generator : torch.Generator, optional
    weights : Tensor, shape (G,), optional
        Draw in proportion to them instead of uniformly (the paper's m_g ** tau). A gene of weight 0 comes
        after all others.
    noise : Tensor, shape (B, G), optional
        The uniform numbers in [0, 1) that decide, for callers who share one draw between processes.

    Returns
    -------
    genes : Tensor of int64, shape (B, min(n, G))
    shown : Tensor of bool, same shape
        False where a sample has run out of measured genes.
    """
    if noise is None:
        noise = torch.rand(measured.shape, generator=generator, device=measured.device)
    if weights is not None:  # a race: the first n of exponential arrival times are a weighted draw
        noise = torch.log1p(-noise) / weights.clamp(min=1e-30)
    keys = noise.masked_fill(~measured, -math.inf)
    genes = keys.topk(min(n, keys.shape[1]), dim=1, sorted=False).indices
    return genes, measured.gather(1, genes)


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


class TxFM(nn.Module):
    """The masked autoencoder; see the module's text for the symbols.

    Parameters
    ----------
    config : TxFMConfig
    genes : sequence of str, optional
        The vocabulary, gene i for column i. Saved with the weights; needed to embed new data.

    Raises
    ------
    ValueError
        If `genes` are not as many as ``config.n_genes``, or not distinct.
    """

    def __init__(self, config: TxFMConfig, genes: Sequence[str] | None = None):
        super().__init__()
        if genes is not None and (len(genes) != config.n_genes or len(set(genes)) != len(genes)):
            found = f"{len(genes):,} genes, {len(set(genes)):,} distinct"
            raise ValueError(f"the vocabulary has {found}; the config asks for {config.n_genes:,}")
        self.config, self.genes = config, None if genes is None else [str(g) for g in genes]
        self.provenance: dict[str, Any] = {}  # where the weights come from, if they were loaded
        d, last = config.d_model, max(config.n_blocks - 1, 1)
        self.codebook = nn.Embedding(config.n_genes, d - 1)
        self.cls = nn.Parameter(torch.zeros(1, 1, d))
        self.blocks = nn.ModuleList(
            Block(config, config.drop_path * i / last) for i in range(config.n_blocks)
        )
        self.norm = nn.LayerNorm(d)
        self.decoder = nn.Sequential(nn.Linear(d, d), *(Residual(d) for _ in range(config.decoder_blocks)))
        self.gene_head = nn.Linear(d, config.n_genes)  # its weight rows are the "decoder gene vectors"
        if config.loss == "negative_binomial":
            self.log_dispersion = nn.Parameter(torch.zeros(config.n_genes))  # log theta, one per gene
        self._initialise()

    def _initialise(self) -> None:
        for block in self.blocks:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.codebook.weight, std=self.config.codebook_std)
        nn.init.normal_(self.cls, std=0.02)
        gain = self.config.value_gain
        first = self.blocks[0]
        with torch.no_grad():  # the value is the token's last coordinate
            for layer in (first.query, first.key_value, first.mlp[0]):
                layer.weight[:, -1] *= math.sqrt(self.config.d_model) if gain is None else gain

    @torch.no_grad()
    def start_from_profile(self, mean_counts: torch.Tensor) -> None:
        """Set the decoder's bias so that e = 0 predicts a mean profile.

        Parameters
        ----------
        mean_counts : Tensor, shape (G,)
            Mean of exp(x) - 1, the normalised counts, of each gene over the samples that measure it.
        """
        # A logit at zero has no gradient: genes that are never seen start just above it.
        library_size = self.config.library_size
        log_rate = torch.log1p(mean_counts).clamp(0.01, 0.999 * math.log1p(library_size))
        self.gene_head.bias.copy_(INVERSES[self.config.activation](log_rate, library_size))

    @torch.no_grad()
    def start_from_components(self, axes: torch.Tensor) -> None:
        """Let the first coordinates of the gene vectors, codebook and decoder, start at principal axes.

        A head that looks at the cell's high genes then reads something like its principal components, and the
        decoder needs not find first which genes vary together.

        Parameters
        ----------
        axes : Tensor, shape (n, G)
            Principal axes of the corpus' values x, each as long as its scores' standard deviation; n < d.
        """
        n, std = len(axes), self.config.codebook_std
        if n >= self.config.d_model:
            raise ValueError(f"{n} components do not fit gene vectors of {self.config.d_model - 1} numbers")
        scaled = axes / axes.square().mean(1, keepdim=True).sqrt() * std
        self.codebook.weight[:, :n] = scaled.clamp(-6 * std, 6 * std).T  # no gene may drown the others
        self.gene_head.weight.mul_(0.1)  # what is random should not hide what is known
        self.gene_head.weight[:, :n] += axes.T

    def normalise(self, counts: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
        """Return x, shape (B, G), of raw counts; `totals`, shape (B,), counts all of each sample."""
        if self.config.preprocessing == "log1p":
            return torch.log1p(counts)
        return log_normalise(counts, totals, self.config.library_size)

    def tokens(self, values: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
        """Return CLS and the tokens [E_g, x_g] behind it, shape (B, 1 + T, d), from two of shape (B, T)."""
        tokens = torch.cat([self.codebook(genes), values.unsqueeze(-1)], dim=-1)
        return torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)

    def encode(
        self,
        values: torch.Tensor,
        genes: torch.Tensor,
        shown: torch.Tensor | None = None,
        return_all: bool = False,
    ) -> torch.Tensor:
        """Embed samples from some of their genes.

        Parameters
        ----------
        values : Tensor, shape (B, T)
            x of the genes named beside.
        genes : Tensor of int64, shape (B, T)
            Which genes; their order does not matter.
        shown : Tensor of bool, shape (B, T), optional
            False hides an entry: for samples with fewer than T genes. Leave it out when nothing is hidden:
            attention without a mask is faster on a GPU.
        return_all : bool
            Return the CLS output of every block, each read through the last normalisation as e is.

        Returns
        -------
        Tensor, shape (B, d), or (B, n_blocks, d) if `return_all`
            The CLS output e; the last of all is e.
        """
        if len(self.blocks) == 1:
            outputs = [self.blocks[0].pool(self.codebook.weight, self.cls, values, genes, shown)]
        else:
            x, outputs = self.tokens(values, genes), []
            # keys that every query may see
            mask = None if shown is None else F.pad(shown, (1, 0), value=True)[:, None, None, :]
            for block in self.blocks:  # of the last one only CLS is read: the other rows need not be
                x = block(x, mask, cls_only=block is self.blocks[-1])
                outputs.append(x[:, :1])
        return self.norm(torch.cat(outputs, 1)) if return_all else self.norm(outputs[-1][:, 0])

    def decode(self, e: torch.Tensor, measured: torch.Tensor | None = None) -> torch.Tensor:
        """Predict the log-rate of every gene, shape (B, G), from embeddings of shape (B, d).

        Only for the softmax does it matter which genes were `measured` (bool, broadcastable to (B, G); all by
        default): they share the library among them, and the others get a log-rate of zero.
        """
        logits = self.gene_head(self.decoder(e)).float()
        if self.config.activation == "softmax" and measured is not None:
            logits = logits.masked_fill(~measured, -math.inf)
        return ACTIVATIONS[self.config.activation](logits, self.config.library_size)

    def loss(
        self,
        log_rate: torch.Tensor,
        values: torch.Tensor,
        measured: torch.Tensor | None = None,
        totals: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the configured loss, a mean over measured genes.

        Parameters
        ----------
        log_rate, values : Tensor, shape (B, G)
            x̂ and x.
        measured : Tensor of bool, broadcastable to (B, G), optional
        totals : Tensor, shape (B,), optional
            Counts of each whole sample. The negative binomial needs them if x was scaled to L.

        Raises
        ------
        ValueError
            If `totals` are needed and missing.
        """
        loss = LOSSES[self.config.loss]
        if self.config.loss != "negative_binomial":
            return loss(log_rate, values, measured)
        if self.config.preprocessing == "log1p":
            size_factor = values.new_ones(len(values))
        elif totals is None:
            raise ValueError("the negative binomial is a loss of raw counts: pass the samples' totals")
        else:
            size_factor = totals / self.config.library_size
        return loss(log_rate, values, measured, theta=self.log_dispersion.exp(), size_factor=size_factor)

    def forward(
        self,
        values: torch.Tensor,
        measured: torch.Tensor,
        generator: torch.Generator | None = None,
        weights: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        enough: bool | None = None,
    ) -> torch.Tensor:
        """Hide, encode, decode: what training does.

        Parameters
        ----------
        values : Tensor, shape (B, G)
            x; entries of unmeasured genes are never looked at.
        measured : Tensor of bool, shape (B, G)
        generator, weights, noise : optional
            For the draw of the revealed genes, see :func:`reveal`.
        enough : bool, optional
            Whether every sample measures at least K genes, if the caller knows. Otherwise the device is
            asked, and waited for.

        Returns
        -------
        Tensor, shape (B, G)
            Log-rates x̂ of all genes.
        """
        genes, shown = reveal(measured, self.config.n_revealed, generator, weights, noise)
        if enough is None and len(self.blocks) > 1:  # one block alone needs not know
            enough = bool(shown.all())
        e = self.encode(values.gather(1, genes), genes, None if enough else shown)
        return self.decode(e, measured)

    @property
    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

    def save_pretrained(
        self, save_directory: str | Path, *, dtype: str = "float32", card: str = "", **provenance: Any
    ) -> Path:
        """Write the model as a folder; see :func:`txfm_lite.pretrained.save`."""
        from . import pretrained

        return pretrained.save(self, save_directory, dtype, card, **provenance)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, genes: Sequence[str] | None = None, **hub: Any
    ) -> TxFM:
        """Read a model from a folder, this package or the hub; see :func:`txfm_lite.pretrained.load`."""
        from . import pretrained

        return pretrained.load(pretrained_model_name_or_path, genes, **hub)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "A TxFM",
        private: bool | None = None,
        token: str | None = None,
        **saved: Any,
    ) -> str:
        """Upload the model to the hub; see :func:`txfm_lite.pretrained.push`."""
        from . import pretrained

        return pretrained.push(self, repo_id, commit_message, private, token, **saved)
