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
import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .objectives import LIBRARY_SIZE, inverse_rectified_tanh, rectified_tanh

PRESETS = {  # Table 6 of the paper. Its S has 6 blocks in print, but only 12 give the 57M parameters stated.
    "tiny": dict(d_model=64, n_blocks=2, n_heads=4, n_revealed=256, drop_path=0.0),  # ours: minutes on a CPU
    "s": dict(d_model=384, n_blocks=12, n_heads=6, drop_path=0.1),
    "b": dict(d_model=768, n_blocks=12, n_heads=12, drop_path=0.1),
    "l": dict(d_model=1024, n_blocks=24, n_heads=16, drop_path=0.3),
}


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

    def __post_init__(self):
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
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return cls(n_genes=n_genes, **{**PRESETS[name], **changes})


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
    measured: torch.Tensor, n: int, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw n measured genes per sample, uniformly and without replacement, zeros included.

    Parameters
    ----------
    measured : Tensor of bool, shape (B, G)
    n : int
        K. A sample that measures fewer genes shows all of them.
    generator : torch.Generator, optional

    Returns
    -------
    genes : Tensor of int64, shape (B, min(n, G))
    shown : Tensor of bool, same shape
        False where a sample has run out of measured genes.
    """
    draw = torch.rand(measured.shape, generator=generator, device=measured.device)
    draw, genes = draw.masked_fill(~measured, -1.0).topk(min(n, measured.shape[1]), dim=1, sorted=False)
    return genes, draw >= 0


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

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, cls_only: bool = False) -> torch.Tensor:
        """Map (B, T, d) to (B, T, d), or to (B, 1, d) when only the CLS token, the first, is wanted."""
        y = self.norm1(x)
        queries, x = (y[:, :1], x[:, :1]) if cls_only else (y, x)
        key, value = self.key_value(y).chunk(2, dim=-1)
        q, k, v = (self._heads(t) for t in (self.query(queries), key, value))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self._branch(self.scale1 * self.out(attended.transpose(1, 2).flatten(-2)))
        return x + self._branch(self.scale2 * self.mlp(self.norm2(x)))

    def _heads(self, t: torch.Tensor) -> torch.Tensor:  # (B, T, d) -> (B, heads, T, d / heads)
        return t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def _branch(self, y: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_path == 0:
            return y
        keep = torch.rand(len(y), 1, 1, device=y.device) >= self.drop_path  # per sample
        return y * keep / (1 - self.drop_path)


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
        d, last = config.d_model, max(config.n_blocks - 1, 1)
        self.codebook = nn.Embedding(config.n_genes, d - 1)
        self.cls = nn.Parameter(torch.zeros(1, 1, d))
        self.blocks = nn.ModuleList(
            Block(config, config.drop_path * i / last) for i in range(config.n_blocks)
        )
        self.norm = nn.LayerNorm(d)
        self.decoder = nn.Sequential(nn.Linear(d, d), *(Residual(d) for _ in range(config.decoder_blocks)))
        self.gene_head = nn.Linear(d, config.n_genes)  # its weight rows are the "decoder gene vectors"
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
            Mean of the library-normalised counts of each gene, over the samples that measure it.
        """
        # A logit at zero has no gradient: genes that are never seen start just above it.
        log_rate = torch.log1p(mean_counts).clamp(0.01, 0.999 * math.log1p(self.config.library_size))
        self.gene_head.bias.copy_(inverse_rectified_tanh(log_rate, self.config.library_size))

    def encode(
        self, values: torch.Tensor, genes: torch.Tensor, shown: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed samples from some of their genes.

        Parameters
        ----------
        values : Tensor, shape (B, T)
            x of the genes named beside.
        genes : Tensor of int64, shape (B, T)
            Which genes; their order does not matter.
        shown : Tensor of bool, shape (B, T), optional
            False hides an entry: for samples with fewer than T genes.

        Returns
        -------
        Tensor, shape (B, d)
            The CLS output e.
        """
        tokens = torch.cat([self.codebook(genes), values.unsqueeze(-1)], dim=-1)  # (B, T, d)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)  # (B, 1 + T, d)
        mask = None
        if shown is not None and not bool(shown.all()):
            mask = F.pad(shown, (1, 0), value=True)[:, None, None, :]  # keys that every query may see
        for block in self.blocks[:-1]:
            tokens = block(tokens, mask)
        tokens = self.blocks[-1](tokens, mask, cls_only=True)  # only CLS is read: the other rows need not be
        return self.norm(tokens)[:, 0]

    def decode(self, e: torch.Tensor) -> torch.Tensor:
        """Predict the log-rate of every gene, shape (B, G), from embeddings of shape (B, d)."""
        logits = self.gene_head(self.decoder(e))
        return rectified_tanh(logits.float(), self.config.library_size)

    def forward(
        self, values: torch.Tensor, measured: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Hide, encode, decode: what training does.

        Parameters
        ----------
        values : Tensor, shape (B, G)
            x; entries of unmeasured genes are never looked at.
        measured : Tensor of bool, shape (B, G)
        generator : torch.Generator, optional
            For the draw of the revealed genes.

        Returns
        -------
        Tensor, shape (B, G)
            Log-rates x̂ of all genes.
        """
        genes, shown = reveal(measured, self.config.n_revealed, generator)
        return self.decode(self.encode(values.gather(1, genes), genes, shown))

    @property
    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

    def save_pretrained(self, path: str | Path, **provenance: Any) -> Path:
        """Write config.json, genes.txt and model.safetensors into the folder `path`, whole or not at all.

        Parameters
        ----------
        path : path
            A model that lies there is replaced.
        **provenance
            What the weights come from (corpus fingerprint, seed, steps, ...), stored in config.json.
        """
        from safetensors.torch import save_file

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            save_file({k: v.contiguous() for k, v in self.state_dict().items()}, aside / "model.safetensors")
            if self.genes is not None:
                (aside / "genes.txt").write_text("\n".join(self.genes) + "\n")
            info = {"model": "TxFM", "config": dataclasses.asdict(self.config), "provenance": provenance}
            (aside / "config.json").write_text(json.dumps(info, indent=2) + "\n")
            os.chmod(aside, 0o755)  # mkdtemp's folders are private
            if path.exists():
                shutil.rmtree(path)
            aside.rename(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return path

    @classmethod
    def from_pretrained(cls, path: str | Path) -> TxFM:
        """Read a model that :meth:`save_pretrained` wrote, in evaluation mode.

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If the config has an unknown field, or config, vocabulary and weights do not fit one another.
        """
        from safetensors.torch import load_file

        path = Path(path)
        for file in ("config.json", "model.safetensors"):
            if not (path / file).is_file():
                raise FileNotFoundError(f"{path}: no {file}; a model folder is written by save_pretrained")
        fields = json.loads((path / "config.json").read_text())["config"]
        unknown = set(fields) - {f.name for f in dataclasses.fields(TxFMConfig)}
        if unknown:
            raise ValueError(f"{path}/config.json: unknown field {', '.join(sorted(unknown))}")
        genes = path / "genes.txt"
        model = cls(TxFMConfig(**fields), genes.read_text().splitlines() if genes.is_file() else None)
        try:
            model.load_state_dict(load_file(path / "model.safetensors"))
        except RuntimeError as error:
            raise ValueError(f"{path}/model.safetensors does not fit config.json: {error}") from error
        return model.eval()
