"""What each model learns from: its loss, the losses to read it by, and where it starts from in a corpus.

:mod:`txfm_lite.steps` has what they share, :func:`txfm_lite.training.fit` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from .corpus import Corpus
from .devices import Samples, ship
from .inference import encode_rows, encode_tokens
from .loader import Batch
from .rankformer import PER, Rankformer, per_cell, tokenise
from .steps import Steps, TrainConfig
from .txfm import TxFM

MOST = 65_536  # training samples that medians and frequencies of tokens are taken from
PROBED = 1024  # genes that a TxFM is shown by the probe, the same ones at every look


def mean_profile(corpus: Corpus, library_size: float | None) -> np.ndarray:
    """Return the mean counts of each gene, scaled to a library size (None: as they are), shape (G,), float64.

    The mean runs over the training samples whose dataset measures the gene; zero where none does.
    """
    total, n = np.zeros(corpus.n_genes), np.zeros(corpus.n_genes)
    for rows, indptr, indices, counts in _training_rows(corpus):
        if library_size is not None:
            counts = counts * np.repeat(library_size / corpus.library_size[rows], np.diff(indptr))
        total += np.bincount(indices, counts, corpus.n_genes)
        for dataset, size in enumerate(np.bincount(corpus.dataset[rows], minlength=len(corpus.measured))):
            n += size * corpus.measured[dataset]
    return total / np.maximum(n, 1)


def gene_frequency(corpus: Corpus) -> np.ndarray:
    """Return in how many training samples each gene has a count (m_g in the paper), shape (G,), int64."""
    return sum(np.bincount(genes, minlength=corpus.n_genes) for _, _, genes, _ in _training_rows(corpus))


def principal_axes(
    corpus: Corpus, model: TxFM | Rankformer, n: int, n_samples: int = 8192, seed: int = 0
) -> torch.Tensor:
    """Return the first principal axes of the values x over some training samples.

    A gene that a sample's dataset does not measure counts as average there.

    Parameters
    ----------
    corpus : Corpus
    model : TxFM or Rankformer
        Says how counts become values.
    n : int
    n_samples : int
        So many at most, drawn at random: they are held in memory as a dense float32 matrix.
    seed : int
        For the draw and for the randomised solver.

    Returns
    -------
    Tensor, float32, shape (n, G)
        Orthogonal; each as long as the standard deviation of its scores.

    Raises
    ------
    ValueError
        If there are fewer samples or genes than axes.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(corpus.rows("train"))[:n_samples])
    most = min(len(rows), corpus.n_genes)
    if n > most:
        raise ValueError(f"start_from_components = {n}: these {len(rows):,} samples have {most:,} at most")
    indptr, indices, counts = corpus.read(rows)
    x = torch.zeros(len(rows), corpus.n_genes)
    sample = np.repeat(np.arange(len(rows)), np.diff(indptr))
    x[torch.from_numpy(sample), torch.from_numpy(indices.astype(np.int64))] = torch.from_numpy(counts).float()
    totals = torch.from_numpy(corpus.library_size[rows]).float()
    measured = torch.from_numpy(corpus.measured[corpus.dataset[rows]])
    x = model.normalise(x, totals).masked_fill_(~measured, 0.0)
    x -= x.sum(0) / measured.sum(0).clamp(min=1)
    x.masked_fill_(~measured, 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, scale, axes = torch.svd_lowrank(x, q=min(n + 16, most), niter=3)
    return axes[:, :n].T * scale[:n, None] / len(rows) ** 0.5


def gene_medians(corpus: Corpus) -> np.ndarray:
    """Return each gene's median counts per 10,000 over the cells that express it, float32, shape (G,).

    Over at most :data:`MOST` training samples, drawn at random; 0 where none of them expresses the gene.
    """
    genes, values = [], []
    for rows, indptr, indices, counts in _training_rows(corpus, at_most=MOST):
        genes.append(indices)
        values.append(
            (counts * np.repeat(PER / corpus.library_size[rows], np.diff(indptr))).astype(np.float32)
        )
    genes, values = np.concatenate(genes), np.concatenate(values)
    values = values[np.argsort(genes, kind="stable")]
    ends = np.cumsum(np.bincount(genes, minlength=corpus.n_genes))
    return np.array([np.median(v) if v.size else 0 for v in np.split(values, ends[:-1])], dtype=np.float32)


def token_frequency(corpus: Corpus, model: Rankformer) -> np.ndarray:
    """Return how often each gene is a token, by bin, in the samples of :func:`gene_medians`: (G, n_levels).

    For ranks, which have no bins, all is in the first column.
    """
    config, medians = model.config, model.medians.cpu().numpy()
    counted = np.zeros(config.n_genes * config.n_levels)
    for rows, *cells in _training_rows(corpus, at_most=MOST):
        genes, levels, shown = tokenise(*cells, corpus.library_size[rows], medians, config)
        bins = levels if config.head == "bin" else np.zeros_like(levels)
        counted += np.bincount((genes * config.n_levels + bins)[shown], minlength=counted.size)
    return counted.reshape(config.n_genes, config.n_levels)


def _training_rows(
    corpus: Corpus, size: int = 4096, at_most: int | None = None
) -> Iterator[tuple[np.ndarray, ...]]:
    rows = corpus.rows("train")
    if at_most is not None and len(rows) > at_most:
        rows = np.sort(np.random.default_rng(0).choice(rows, at_most, replace=False))
    for start in range(0, len(rows), size):
        yield rows[start : start + size], *corpus.read(rows[start : start + size])


class Pretraining(Steps):
    """The steps of a TxFM: predict all measured genes from some of them."""

    def __init__(self, model: TxFM, corpus: Corpus, config: TrainConfig, path: Path, micro_batch: int):
        super().__init__(model, corpus, config, path, micro_batch)
        self.noise_shape = (corpus.n_genes,)
        scaled = model.config.preprocessing == "library_log1p"
        profile = mean_profile(corpus, model.config.library_size if scaled else None)
        if config.start_from_profile:
            model.start_from_profile(torch.from_numpy(profile).float())
        if config.start_from_components:
            model.start_from_components(principal_axes(corpus, model, config.start_from_components))
        weights = None
        if tau := model.config.reveal_exponent:
            weights = torch.from_numpy(np.maximum(gene_frequency(corpus), 1.0) ** tau).float()
        self.register_buffer("reveal_weights", weights, persistent=False)
        self.register_buffer("measured", torch.from_numpy(np.array(corpus.measured)), persistent=False)
        self.register_buffer("log_profile", torch.from_numpy(np.log1p(profile)).float(), persistent=False)
        # known beforehand, so that no step has to ask: does every sample measure as many genes as are shown?
        self.enough = bool(corpus.measured.sum(1).min() >= model.config.n_revealed)

    def prepare(self, batch: Batch, device: torch.device) -> Samples:
        """Ship the sparse counts."""
        return Samples(batch, self.corpus.n_genes, device)

    def _predict(
        self, samples: Samples, part: slice, noise: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return log-rates of some samples, (b, G), and what a loss compares them with."""
        totals, measured = samples.totals[part], self.measured[samples.dataset[part]]
        values = self.model.normalise(samples.counts(part), totals)
        log_rate = self.model(
            values, measured, weights=self.reveal_weights, noise=noise[part], enough=self.enough
        )
        return log_rate, (values, measured, totals)

    def training_loss(self, samples: Samples, part: slice, noise: torch.Tensor) -> torch.Tensor:
        """Return the configured loss, a mean over measured genes."""
        log_rate, target = self._predict(samples, part, noise)
        return self.model.loss(log_rate, *target)

    def losses(self, samples: Samples, noise: torch.Tensor) -> torch.Tensor:
        """Return the losses of the model, of the mean profile and of a perfect prediction."""
        log_rate, target = self._predict(samples, slice(0, len(samples)), noise)
        guesses = log_rate, self.log_profile.expand_as(log_rate), target[0]
        return torch.stack([self.model.loss(g, *target) for g in guesses])

    def embed(self, rows: np.ndarray, dataset: int) -> np.ndarray:
        """Embed rows from 1,024 of their genes."""
        cells, measured = self.corpus.read(rows), self.corpus.measured[dataset]
        totals = self.corpus.library_size[rows]
        return encode_rows(self.model, *cells, totals, measured, n_genes=PROBED, seed=dataset)


class Tokens:
    """A batch's tokens on a device; ``source`` is the batch."""

    def __init__(self, batch: Batch, model: Rankformer, medians: np.ndarray, device: torch.device):
        arrays = batch.indptr, batch.indices, batch.counts, batch.library_size
        genes, levels, shown = tokenise(*arrays, medians, model.config)
        self.source, self.full = batch, bool(shown.all())
        self.genes, self.levels, self.shown = (
            ship(np.ascontiguousarray(a), device) for a in (genes, levels, shown)
        )

    def __len__(self) -> int:
        return len(self.source)


class TokenPretraining(Steps):
    """The steps of a Rankformer: predict what is hidden of some tokens.

    The floor is the cross-entropy of what the corpus says about a hidden token without its cell: the genes'
    frequencies among tokens; or, as a bin's gene is known, the gene's own frequencies of bins.
    """

    def __init__(self, model: Rankformer, corpus: Corpus, config: TrainConfig, path: Path, micro_batch: int):
        super().__init__(model, corpus, config, path, micro_batch)
        self.noise_shape = (3, model.config.n_tokens)
        model.medians.copy_(torch.from_numpy(gene_medians(corpus)))
        model.profile.copy_(torch.from_numpy(mean_profile(corpus, 1.0)))
        if config.start_from_profile:
            model.start_from_profile(torch.from_numpy(token_frequency(corpus, model)))
        if config.start_from_components:
            model.start_from_components(principal_axes(corpus, model, config.start_from_components))
        self.register_buffer("log_share", None, persistent=False)

    def setup(self, stage: str) -> None:
        """Take the floor from the corpus, with the medians that the model has by now."""
        if self.log_share is None:
            self.medians = self.model.medians.cpu().numpy()
            n = torch.from_numpy(token_frequency(self.corpus, self.model))
            if self.model.config.head == "rank":
                share = (n.sum(1) + 1) / (n.sum() + len(n))
            else:  # a gene seen rarely has the bins of all genes
                share = (n + n.sum(0) / n.sum()) / (n.sum(1, keepdim=True) + 1)
            self.log_share = share.clamp(min=1e-12).log().float().to(self.device)

    def prepare(self, batch: Batch, device: torch.device) -> Tokens:
        """Make tokens and ship them."""
        return Tokens(batch, self.model, self.medians, device)

    def _predict(self, tokens: Tokens, part: slice, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits of some samples, what was hidden, which genes it belongs to, and which count."""
        genes, levels = tokens.genes[part], tokens.levels[part]
        logits, where, asked = self.model(genes, levels, tokens.shown[part], noise[part], tokens.full)
        hidden = genes if self.model.config.head == "rank" else levels
        return logits, hidden.gather(1, where), genes.gather(1, where), asked

    def training_loss(self, tokens: Tokens, part: slice, noise: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of what was hidden, in nats."""
        logits, target, _, asked = self._predict(tokens, part, noise)
        return self.model.loss(logits, target, asked)

    def losses(self, tokens: Tokens, noise: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropies of the model, of the corpus' frequencies and, 0, of who knows."""
        logits, target, genes, asked = self._predict(tokens, slice(0, len(tokens)), noise)
        loss, share = self.model.loss(logits, target, asked), self.log_share[genes]
        if self.model.config.head == "bin":
            share = share.gather(2, target[..., None]).squeeze(2)
        return torch.stack([loss, per_cell(-share, asked), torch.zeros_like(loss)])

    def embed(self, rows: np.ndarray, dataset: int) -> np.ndarray:
        """Embed rows: the mean over their tokens."""
        return encode_tokens(self.model, *self.corpus.read(rows), self.corpus.library_size[rows])
