"""Rank tokens against value tokens: two rival input heads on one encoder.

Both heads see the same genes of a cell through the same blocks, with the same number of parameters. A token
says two things, which gene and which level; one of them is hidden in 15 % of the tokens, and the model has to
say what it was. The heads differ in what a level is and in what is hidden:

======== ==================================== ======================= ==================================
head     level of a token                     hidden, predicted       after
======== ==================================== ======================= ==================================
``rank`` its place in the cell's order         the gene, one of G      Geneformer (Theodoris et al. 2023)
``bin``  floor(log2(1 + counts per 10,000))   the level, one of few   scBERT (Yang et al. 2022)
======== ==================================== ======================= ==================================

One cell's way through the model, function by function:

1. :func:`tokenise`: expressed genes by falling ``counts / median``, where the median is the gene's own over
   the corpus' cells that express it. The first T are the tokens; ties go to the gene with the lower number.
2. :meth:`Rankformer.tokens`: a token is the sum of two vectors, its gene's and its level's.
3. :meth:`Rankformer.encode`: transformer blocks in which every token attends to every other.
4. :meth:`Rankformer.forward`: hide, encode, predict what was hidden from the tokens in its place.

The cell's embedding is the mean over its tokens (:func:`txfm_lite.inference.encode_tokens`).

What is ours, so that the two heads are equal to the last parameter:

- A level is read through the same small matrix of ``n_levels`` rows. A bin picks one of them; a place in the
  order, of which there are thousands, is first written as waves of ``n_levels / 2`` lengths (Geneformer
  learns a vector for each place).
- scBERT reads all genes, zeros included. Here both read the same T genes, the highest of the cell.
- Predictions start where the corpus is without looking at the cell: at the genes' frequencies, or at each
  gene's mean bin, by one number per gene.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .blocks import Block

HEADS = ("rank", "bin")
PER = 1e4  # counts per ten thousand: both models' unit


@dataclasses.dataclass(frozen=True)
class RankformerConfig:
    """The shape of a Rankformer. The defaults are those of Geneformer's first model of six blocks."""

    n_genes: int  # G
    head: str = "rank"  # what a level is, and what is hidden: rank or bin
    n_tokens: int = 2048  # T: so many genes of a cell at most, the highest
    n_levels: int = 8  # bins 0 ... n_levels - 1, the top one open; n_levels / 2 waves for ranks
    d_model: int = 256  # width of a token and of the embedding
    n_blocks: int = 6
    n_heads: int = 4
    mlp_ratio: int = 2  # width of a block's MLP / d_model
    drop_path: float = 0.0  # stochastic depth: chance to skip the last block, rising from 0 at the first
    layer_scale: float = 1.0  # initial gain of each residual branch
    hidden_share: float = 0.15  # of a cell's tokens: those to be predicted
    masked: float = 0.8  # of these, so many carry a vector that says "hidden" ...
    replaced: float = 0.1  # ... so many something drawn at random, and the rest what was there

    def __post_init__(self):
        if self.head not in HEADS:
            raise ValueError(f"RankformerConfig.head = {self.head!r}: should be one of {', '.join(HEADS)}")
        for field in ("n_genes", "n_tokens", "n_levels", "d_model", "n_blocks", "n_heads", "mlp_ratio"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"RankformerConfig.{field} = {value!r}: should be a positive integer")
        if self.d_model % self.n_heads:
            found = f"d_model {self.d_model} is no multiple of n_heads {self.n_heads}"
            raise ValueError(f"RankformerConfig: {found}")
        if self.n_levels % 2:
            raise ValueError(f"RankformerConfig.n_levels = {self.n_levels}: should be even, waves are pairs")
        if not 0 < self.hidden_share < 1 or not 0 <= self.drop_path < 1:
            raise ValueError(f"RankformerConfig: hidden_share or drop_path out of range: {self}")
        if min(self.masked, self.replaced) < 0 or self.masked + self.replaced > 1:
            found = f"masked {self.masked} and replaced {self.replaced}"
            raise ValueError(f"RankformerConfig: {found} should be shares of a whole")

    @property
    def n_hidden(self) -> int:
        """How many tokens of a full cell are hidden."""
        return max(1, round(self.hidden_share * self.n_tokens))


def tokenise(
    indptr: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
    library_size: np.ndarray,
    medians: np.ndarray,
    config: RankformerConfig,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn counts into tokens.

    Parameters
    ----------
    indptr, indices, counts : ndarray
        CSR arrays of n cells over the model's vocabulary, no gene twice in a cell.
    library_size : ndarray, shape (n,)
        Total counts of each whole profile. The order of a cell's genes does not depend on it, bins do.
    medians : ndarray, float32, shape (G,)
        Each gene's median counts per 10,000 over the cells that express it. A gene whose median is 0 was
        never seen in training, and makes no token.
    config : RankformerConfig

    Returns
    -------
    genes : ndarray of int64, shape (n, T)
        In falling order of ``counts / median``; 0 beyond the end of a short cell.
    levels : ndarray of int64, shape (n, T)
        Places in the order, or bins.
    shown : ndarray of bool, shape (n, T)
        False beyond the end of a short cell.
    """
    from scipy.sparse import csr_matrix

    from .encodings_arrays import absolute_bins, descending

    spans = indices.astype(np.int64), indptr - indptr[0]
    cells = csr_matrix((np.array(counts, np.float64), *spans), (len(library_size), config.n_genes))
    cells.data[medians[cells.indices] == 0] = 0
    cells.eliminate_zeros()
    starts, columns = descending(cells, medians)
    place = np.arange(config.n_tokens)
    shown = place < np.diff(starts)[:, None]
    genes = np.zeros(shown.shape, dtype=np.int64)
    genes[shown] = columns[(starts[:-1, None] + place)[shown]]
    if config.head == "rank":
        return genes, np.broadcast_to(place, genes.shape), shown
    cells.data *= np.repeat(PER / np.asarray(library_size, dtype=np.float64), np.diff(cells.indptr))
    bins = absolute_bins(cells, config.n_levels - 1).toarray()
    return genes, np.take_along_axis(bins, genes, 1).astype(np.int64) * shown, shown


class Rankformer(nn.Module):
    """The encoder with one of the two heads; see the module's text.

    Parameters
    ----------
    config : RankformerConfig
    genes : sequence of str, optional
        The vocabulary, gene i for column i. Saved with the weights; needed to embed new data.

    Attributes
    ----------
    medians : Tensor, shape (G,)
        See :func:`tokenise`; saved with the weights.
    profile : Tensor, shape (G,)
        Each gene's mean share of a cell's counts in the corpus: what a panel's genes add up to.
    spread : Tensor, shape ()
        Standard deviation of a gene's bins around its mean in the corpus.

    Raises
    ------
    ValueError
        If `genes` are not as many as ``config.n_genes``, or not distinct.
    """

    def __init__(self, config: RankformerConfig, genes: Sequence[str] | None = None):
        super().__init__()
        if genes is not None and (len(genes) != config.n_genes or len(set(genes)) != len(genes)):
            found = f"{len(genes):,} genes, {len(set(genes)):,} distinct"
            raise ValueError(f"the vocabulary has {found}; the config asks for {config.n_genes:,}")
        self.config, self.genes = config, None if genes is None else [str(g) for g in genes]
        self.provenance: dict[str, Any] = {}  # where the weights come from, if they were loaded
        d, last = config.d_model, max(config.n_blocks - 1, 1)
        self.codebook = nn.Embedding(config.n_genes, d)  # unit scale: normalised, a token keeps its gene
        self.levels = nn.Parameter(torch.randn(config.n_levels, d))
        self.hidden = nn.Parameter(torch.randn(d))  # stands for what is hidden, a gene or a level
        self.blocks = nn.ModuleList(
            Block(config, config.drop_path * i / last) for i in range(config.n_blocks)
        )
        self.norm = nn.LayerNorm(d)
        self.head = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.LayerNorm(d))
        self.offset = nn.Parameter(torch.zeros(config.n_genes))  # a gene's log share, or its mean bin
        for block in self.blocks:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        nn.init.constant_(self.head[-1].weight, 0.1)  # predictions start near the offsets
        self.register_buffer("medians", torch.ones(config.n_genes))
        self.register_buffer("profile", torch.zeros(config.n_genes))
        self.register_buffer("spread", torch.ones(()))
        pairs = config.n_levels // 2  # wave lengths from 4 places to twice the longest list
        length = 4 * (config.n_tokens / 2) ** torch.linspace(0, 1, pairs)
        angle = torch.arange(config.n_tokens)[:, None] * (2 * math.pi / length)
        waves = torch.cat([angle.sin(), angle.cos()], 1) / math.sqrt(pairs)  # as long as a bin's 1
        self.register_buffer("waves", waves, persistent=False)

    @torch.no_grad()
    def start_from_profile(self, frequency: torch.Tensor) -> None:
        """Set the offsets so that an untrained model predicts what is to be had without looking at the cell.

        Parameters
        ----------
        frequency : Tensor, shape (G, n_levels)
            How often each gene is a token, by bin; for ranks the sum over bins counts.
        """
        total = frequency.sum(1)
        if self.config.head == "rank":
            self.offset.copy_(((total + 1) / (total.sum() + len(total))).log())
        else:
            bins = torch.arange(frequency.shape[1], dtype=frequency.dtype)
            overall = (frequency.sum(0) * bins).sum() / total.sum().clamp(min=1)
            mean = ((frequency * bins).sum(1) + overall) / (total + 1)
            within = (frequency * (bins - mean[:, None]).square()).sum() / total.sum().clamp(min=1)
            self.offset.copy_(mean)
            self.spread.copy_(within.sqrt().clamp(min=0.3))

    @torch.no_grad()
    def start_from_components(self, axes: torch.Tensor) -> None:
        """Let the first coordinates of the gene vectors start at principal axes, as those of a TxFM can.

        Parameters
        ----------
        axes : Tensor, shape (n, G)
            See :func:`txfm_lite.pretraining.principal_axes`; n <= d.
        """
        if len(axes) > self.config.d_model:
            raise ValueError(
                f"{len(axes)} components do not fit gene vectors of {self.config.d_model} numbers"
            )
        scaled = axes / axes.square().mean(1, keepdim=True).sqrt()
        self.codebook.weight[:, : len(axes)] = scaled.clamp(-6, 6).T  # no gene may drown the others

    def normalise(self, counts: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
        """Return log(1 + counts per 10,000), shape (B, G): what principal axes are of."""
        return torch.log1p(counts * (PER / totals)[:, None])

    def tokens(
        self, genes: torch.Tensor, levels: torch.Tensor, hidden: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return gene vectors plus level vectors, (B, T, d), one of the two replaced where `hidden`."""
        gene = self.codebook(genes)
        level = self.waves[levels] @ self.levels if self.config.head == "rank" else self.levels[levels]
        if hidden is not None and self.config.head == "rank":
            gene = torch.where(hidden[..., None], self.hidden, gene)
        elif hidden is not None:
            level = torch.where(hidden[..., None], self.hidden, level)
        return gene + level

    def encode(
        self,
        genes: torch.Tensor,
        levels: torch.Tensor,
        shown: torch.Tensor | None = None,
        hidden: torch.Tensor | None = None,
        block: int = -1,
    ) -> torch.Tensor:
        """Let the tokens of each cell look at each other.

        Parameters
        ----------
        genes, levels : Tensor of int64, shape (B, T)
            As from :func:`tokenise`.
        shown : Tensor of bool, shape (B, T), optional
            False beyond the end of a short cell. Leave it out where all cells are full.
        hidden : Tensor of bool, shape (B, T), optional
            Tokens whose gene, or level, is not told.
        block : int
            The block behind which to stop: -1 is the last, -2 the one before it; -n_blocks - 1, the tokens.

        Returns
        -------
        Tensor, shape (B, T, d)
            Read through the last normalisation, whichever the block.
        """
        x, mask = self.tokens(genes, levels, hidden), None
        if shown is not None:  # an empty cell looks at its first place, so that softmax stays finite
            mask = F.pad(shown[:, 1:], (1, 0), value=True)[:, None, None, :]
        for layer in self.blocks[: self.config.n_blocks + 1 + block]:
            x = layer(x, mask)
        return self.norm(x)

    def hide(
        self, genes: torch.Tensor, levels: torch.Tensor, shown: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw the tokens to be predicted, and what each of them carries instead.

        Parameters
        ----------
        genes, levels, shown : Tensor, shape (B, T)
        noise : Tensor, shape (B, 3, T)
            Uniform numbers in [0, 1): which tokens, their fate, and what replaces them.

        Returns
        -------
        genes, levels : Tensor, shape (B, T)
            With what was replaced.
        hidden : Tensor of bool, shape (B, T)
        where : Tensor of int64, shape (B, H)
            The places to be predicted; H is 15 % of T, and a shorter cell has fewer.
        asked : Tensor of bool, shape (B, H)
            False beyond a shorter cell's number.
        """
        config, (which, fate, draw) = self.config, noise.unbind(1)
        where = which.masked_fill(~shown, math.inf).topk(config.n_hidden, largest=False).indices
        n = (config.hidden_share * shown.sum(1)).round().clamp(min=1) * shown.any(1)
        asked = torch.arange(config.n_hidden, device=where.device) < n[:, None]
        chosen = torch.zeros_like(shown).scatter(1, where, asked)
        hidden = chosen & (fate < config.masked)
        replaced = chosen & ~hidden & (fate < config.masked + config.replaced)
        if config.head == "rank":
            genes = torch.where(replaced, (draw * config.n_genes).long(), genes)
        else:
            levels = torch.where(replaced, (draw * config.n_levels).long(), levels)
        return genes, levels, hidden, where, asked

    def forward(
        self,
        genes: torch.Tensor,
        levels: torch.Tensor,
        shown: torch.Tensor,
        noise: torch.Tensor,
        full: bool | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Hide, encode, predict: what training does.

        Parameters
        ----------
        genes, levels, shown, noise : Tensor
            As for :meth:`hide`.
        full : bool, optional
            Whether no cell is short, if the caller knows. Otherwise the device is asked, and waited for.

        Returns
        -------
        logits : Tensor, float32, shape (B, H, G) or (B, H, n_levels)
        where : Tensor of int64, shape (B, H)
            Which places they are for.
        asked : Tensor of bool, shape (B, H)
            Which of them count.
        """
        carried, seen, hidden, where, asked = self.hide(genes, levels, shown, noise)
        full = bool(shown.all()) if full is None else full
        x = self.encode(carried, seen, None if full else shown, hidden)
        x = self.head(x.gather(1, where[..., None].expand(-1, -1, x.shape[-1])))
        if self.config.head == "rank":
            logits = F.linear(x, self.codebook.weight / math.sqrt(self.config.d_model), self.offset)
        else:  # a bell around the gene's mean bin, which the cell's other genes push and bend
            bins = torch.arange(self.config.n_levels, device=x.device)
            mean = self.offset[genes.gather(1, where)][..., None]
            bell = -0.5 * ((bins - mean) / self.spread).square()
            logits = F.linear(x, self.levels / math.sqrt(self.config.d_model)) + bell
        return logits.float(), where, asked

    def loss(self, logits: torch.Tensor, target: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy in nats: a mean over a cell's hidden tokens, then over cells.

        Parameters
        ----------
        logits : Tensor, shape (B, H, classes)
        target : Tensor of int64, shape (B, H)
            Genes or levels that were hidden.
        asked : Tensor of bool, shape (B, H)
        """
        nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        return per_cell(nats.view_as(target), asked)

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
    ) -> Rankformer:
        """Read a model from a folder or the hub; see :func:`txfm_lite.pretrained.load`."""
        from . import pretrained

        return pretrained.load(pretrained_model_name_or_path, genes, kind=cls, **hub)


def per_cell(nats: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Return the mean over cells of each cell's mean over what was asked; a cell without any counts as 0."""
    return ((nats * asked).sum(1) / asked.sum(1).clamp(min=1)).mean()
