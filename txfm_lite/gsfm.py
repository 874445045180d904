"""The gene set foundation model: which genes belong to a set that is known in part.

A set of genes becomes a vector of zeros and ones over V tokens, is pressed through a narrow layer, and comes
out as one number per token: the log-odds that the gene is a member. This is the family of Clarke et al.
(GSFM, bioRxiv 2025.05.30.657124, Patterns 2026), whose published member is the plain denoising autoencoder:

=========== ==========================================================================================
``DAE``     zeros and ones → MLP → d numbers → MLP → V. Depth 2: V → 2d → d | d → d → V
``EDAE``    a vector per gene → an MLP on each → their mean → MLP → V
``mEDAE``   the mean of the vectors first, then the MLP
``EPDAE``   as EDAE, and the mean of the vectors themselves beside it
``VAE``     a DAE whose middle is a distribution over 128 numbers
=========== ==========================================================================================

Tokens 0 and 1 are ``<unk>``, which stands for all genes outside the vocabulary together, and ``<pad>``,
which is never a member. Hidden layers are followed by ReLU and dropout; the last layer of each MLP, and so
the narrow one, by neither. Without `partition` that dropout is the only noise.

Some published choices do not do what they were meant to. They are here as published, which is the default,
and as meant:

================================ ============================= =======================================
choice                           as published                  as meant
================================ ============================= =======================================
what is to be predicted when a   ``target="hidden"``: the      ``target="whole"``: both parts
part of the set is hidden        shown part counts as absent
not to judge the shown part      ``weighting="unseen"``:       ``weighting="unseen_masked"``: leaves
                                 changes nothing               the shown genes out of the loss
the VAE's objective              ``elbo="published"``: KL as   ``elbo="proper"``: both as sums
                                 a sum beside a mean over V
an EDAE's hidden widths          ``widths="powers"`` of d      ``widths="multiples"``
================================ ============================= =======================================

What is ours: the first layer is a sum of columns instead of a product with a matrix of zeros, and that of
``<unk>`` begins as zeros, not at random; the members of a set may carry weights, with a sign if wanted; with
``channels=2`` genes that go up and genes that go down are different tokens; ``hiding="up to"`` hides another
share of each set every time, so that a model meets short lists as well as whole sets. Nothing here asks what
kind of gene a token is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .gsfm_blocks import MLP, PAD, SPECIALS, UNK, Bag, Bags, binary_cross_entropy, mean_of_bags

CHOICES = {
    "architecture": ("DAE", "EDAE", "mEDAE", "EPDAE", "VAE"),
    "target": ("hidden", "whole"),
    "weighting": ("none", "balance", "unseen", "unseen_masked"),
    "hiding": ("share", "up to"),
    "widths": ("powers", "multiples"),
    "elbo": ("published", "proper"),
}


@dataclasses.dataclass(frozen=True)
class GSFMConfig:
    """The shape and the objective of a GSFM. The defaults are those of the published model."""

    n_tokens: int  # V, with <unk> and <pad>
    architecture: str = "DAE"  # see the module's text
    d_model: int = 256  # d
    depth: int = 2  # linear layers of the DAE's encoder
    dropout: float = 0.2
    partition: float = 0.0  # share of a set's genes that is hidden in training
    hiding: str = "share"  # that share, or anything "up to" it
    target: str = "hidden"  # with a partition: what is to be predicted, "hidden" or "whole"
    weighting: str = "none"  # of the loss: "balance", "unseen", "unseen_masked"
    widths: str = "powers"  # of EDAE and mEDAE: hidden layers of d^k, or of "multiples" d · 2^(k-1)
    elbo: str = "published"  # of the VAE, or "proper"
    n_latent: int = 128  # of the VAE
    channels: int = 1  # 2: up and down are different tokens, in the input and in the output

    def __post_init__(self):
        for field, known in CHOICES.items():
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"GSFMConfig.{field} = {value!r}: should be one of {', '.join(known)}")
        for field in ("n_tokens", "d_model", "depth", "n_latent", "channels"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"GSFMConfig.{field} = {value!r}: should be a positive integer")
        for field in ("dropout", "partition"):
            if not 0 <= (value := getattr(self, field)) < 1:
                raise ValueError(f"GSFMConfig.{field} = {value!r}: should be at least 0 and below 1")
        if self.n_tokens <= len(SPECIALS):
            raise ValueError(f"GSFMConfig.n_tokens = {self.n_tokens}: {', '.join(SPECIALS)} are two of them")
        if self.channels > 2:
            raise ValueError(f"GSFMConfig.channels = {self.channels}: should be 1, or 2 for up and down")
        if self.weighting.startswith("unseen") and not self.partition:
            raise ValueError(
                f"GSFMConfig.weighting = {self.weighting!r}: with partition 0 all genes are seen"
            )

        if self.hiding == "up to" and not self.partition:
            raise ValueError("GSFMConfig.hiding = 'up to': with partition 0 nothing is hidden")

    @property
    def n_genes(self) -> int:
        """Tokens that are genes."""
        return self.n_tokens - len(SPECIALS)

    @property
    def n_columns(self) -> int:
        """Width of the input and of the output: tokens times channels."""
        return self.n_tokens * self.channels


def widths(config: GSFMConfig) -> tuple[list[int], list[int]]:
    """Return the widths of encoder and decoder, ends included."""
    d, depth, v = config.d_model, config.depth, config.n_columns
    doubled = [d * 2**k for k in range(depth)]  # d, 2d, 4d, ...
    if config.architecture in ("EDAE", "mEDAE"):
        grown = [d ** (k + 1) for k in range(depth)] if config.widths == "powers" else doubled
        return [*grown[: depth - 1], d], [d, *grown[1 : depth - 1], v]
    if config.architecture == "EPDAE":
        return [d, *doubled[depth - 2 : 0 : -1], d], [2 * d, *doubled[1:], v]
    decoder = [d, *doubled[: depth - 1], v]
    if config.architecture == "VAE":
        decoder = [config.n_latent, *decoder]
    return [v, *doubled[:0:-1], d], decoder


class GSFM(nn.Module):
    """One model of the family; see the module's text.

    Parameters
    ----------
    config : GSFMConfig
    genes : sequence of str, optional
        The vocabulary, token i for column i: ``<unk>``, ``<pad>``, then genes. Saved with the weights; needed
        to complete sets that are given by symbols.

    Raises
    ------
    ValueError
        If `genes` are not as many as ``config.n_tokens``, not distinct, or begin with others than the two
        special tokens.
    """

    def __init__(self, config: GSFMConfig, genes: Sequence[str] | None = None):
        super().__init__()
        if genes is not None and (len(genes) != config.n_tokens or len(set(genes)) != len(genes)):
            found = f"{len(genes):,} tokens, {len(set(genes)):,} distinct"
            raise ValueError(f"the vocabulary has {found}; the config asks for {config.n_tokens:,}")
        if genes is not None and tuple(genes[:2]) != SPECIALS:
            raise ValueError(f"the vocabulary begins with {', '.join(genes[:2])}, not {', '.join(SPECIALS)}")
        self.config, self.genes = config, None if genes is None else [str(g) for g in genes]
        self.provenance: dict[str, Any] = {}  # where the weights come from, if they were loaded
        inner, outer = widths(config)
        if config.architecture in ("DAE", "VAE"):
            self.encoder = MLP(inner, config.dropout, first=Bag)
        else:
            self.embedding = nn.Embedding(config.n_columns, config.d_model, padding_idx=PAD)
            self.embedding.weight.data[UNK] = 0.0  # as in a Bag
            self.encoder = MLP(inner, config.dropout)
        if config.architecture == "VAE":
            self.mu = nn.Linear(config.d_model, config.n_latent)
            self.log_variance = nn.Linear(config.d_model, config.n_latent)
            self.log_scale = nn.Parameter(torch.zeros(1))  # the published model has it and never uses it
        self.decoder = MLP(outer, config.dropout)
        if config.weighting == "balance":  # how often each token was seen, and, at <pad>, how many sets
            self.register_buffer("seen", torch.ones(config.n_columns))

    def encode(self, bags: Bags) -> torch.Tensor:
        """Return the representation of sets: (B, d), EPDAE (B, 2d). It is the set embedding.

        A VAE's is what its two heads read.
        """
        kind = self.config.architecture
        if kind in ("DAE", "VAE"):
            return self.encoder(*bags)
        vectors = self.embedding(bags.indices)
        if kind == "mEDAE":
            return self.encoder(mean_of_bags(vectors, bags))
        encoded = mean_of_bags(self.encoder(vectors), bags)
        return encoded if kind == "EDAE" else torch.cat([encoded, mean_of_bags(vectors, bags)], 1)

    def latent(self, z: torch.Tensor) -> torch.Tensor:
        """Return what the decoder reads: z itself, but for a VAE numbers drawn around its mu.

        A VAE as published draws in use as well, so that two calls differ. A proper one takes mu there.
        """
        if self.config.architecture != "VAE":
            return z
        mu = self.mu(z)
        if self.config.elbo == "proper" and not self.training:
            return mu
        return mu + (0.5 * self.log_variance(z)).exp() * torch.randn_like(mu)

    def penultimate(self, latent: torch.Tensor) -> torch.Tensor:
        """Return what the last layer reads, (B, width)."""
        for layer in self.decoder.layers[:-1]:
            latent = layer(latent)
        return latent

    def forward(
        self, indices: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits of membership, float32, shape (B, V · channels); arguments as in :class:`Bags`."""
        return self.decoder(self.latent(self.encode(Bags(indices, offsets, weights)))).float()

    def loss(self, sets: Bags, shown: torch.Tensor | None = None) -> torch.Tensor:
        """Return the training loss of some sets: the mean over all sets and columns.

        Parameters
        ----------
        sets : Bags
            The whole sets.
        shown : Tensor of bool, shape (N,), optional
            With a partition: the tokens that the model is given, see
            :func:`~txfm_lite.gsfm_blocks.divide`.
        """
        z = self.encode(sets if shown is None else sets.where(shown))
        latent = self.latent(z)
        logits = self.decoder(latent).float()
        entries, positive = self._targets(sets, shown)
        bce = binary_cross_entropy(logits, entries, positive)
        if self.config.architecture != "VAE":
            return bce
        mu, log_variance = self.mu(z), self.log_variance(z)
        if self.config.elbo == "published":  # one draw of log q(z | x) - log N(z; 0, 1), summed
            draw = latent.square() - (latent - mu).square() / log_variance.exp() - log_variance
            return bce + 0.5 * draw.sum(1).mean()
        divergence = 0.5 * (mu.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return bce + divergence / self.config.n_columns

    def _targets(self, sets: Bags, shown: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the entries of the (B, V) target that are not plainly absent, and the weight of each."""
        config = self.config
        entries = sets.rows * config.n_columns + sets.indices
        positive = None
        if config.weighting == "balance":
            if self.training:
                self.seen += torch.bincount(sets.indices, minlength=config.n_columns)
                self.seen[PAD] += len(sets.offsets)
            positive = ((self.seen[PAD] - self.seen) / self.seen)[sets.indices]
        if shown is not None and config.weighting == "unseen_masked":
            present = torch.ones_like(entries, dtype=torch.float32)
            return entries, present.masked_fill(shown, 0.0)
        if (
            shown is not None and config.target == "hidden"
        ):  # "unseen" weighs the hidden genes by 1: no change
            return entries[~shown], None if positive is None else positive[~shown]
        return entries, positive

    @property
    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

    def save_pretrained(
        self, save_directory: str | Path, *, dtype: str = "float32", card: str = "", **provenance: Any
    ) -> Path:
        """Write the model as a folder in the published layout; see :func:`txfm_lite.pretrained.save`."""
        from . import pretrained

        return pretrained.save(self, save_directory, dtype, card, **provenance)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, genes: Sequence[str] | None = None, **hub: Any
    ) -> GSFM:
        """Read a model, ours or a published one, from a folder or the hub: ``"maayanlab/gsfm-rummagene"``.

        See :func:`txfm_lite.pretrained.load`.
        """
        from . import pretrained

        return pretrained.load(pretrained_model_name_or_path, genes, kind=cls, **hub)


def DAE(n_tokens: int, d_model: int = 256, depth: int = 2, dropout: float = 0.2, **fields: Any) -> GSFM:  # noqa: N802
    """Return a denoising autoencoder with random weights: the published shape, unless told otherwise."""
    return GSFM(GSFMConfig(n_tokens, "DAE", d_model, depth, dropout, **fields))


def VAE(n_tokens: int, d_model: int = 256, depth: int = 2, dropout: float = 0.2, **fields: Any) -> GSFM:  # noqa: N802
    """Return a variational autoencoder with random weights."""
    return GSFM(GSFMConfig(n_tokens, "VAE", d_model, depth, dropout, **fields))


def EDAE(n_tokens: int, d_model: int = 256, depth: int = 2, dropout: float = 0.2, **fields: Any) -> GSFM:  # noqa: N802
    """Return an autoencoder that embeds genes one by one, with random weights."""
    return GSFM(GSFMConfig(n_tokens, "EDAE", d_model, depth, dropout, **fields))


def mEDAE(n_tokens: int, d_model: int = 256, depth: int = 2, dropout: float = 0.2, **fields: Any) -> GSFM:  # noqa: N802
    """Return an autoencoder that takes the mean of gene vectors first, with random weights."""
    return GSFM(GSFMConfig(n_tokens, "mEDAE", d_model, depth, dropout, **fields))


def EPDAE(n_tokens: int, d_model: int = 256, depth: int = 2, dropout: float = 0.2, **fields: Any) -> GSFM:  # noqa: N802
    """Return an autoencoder that embeds genes one by one and pools them twice, with random weights."""
    return GSFM(GSFMConfig(n_tokens, "EPDAE", d_model, depth, dropout, **fields))
