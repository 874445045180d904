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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import Block, Residual
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
