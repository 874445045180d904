"""From sparse counts to embeddings: the one path that every cell takes, in training's probe and in use.

A cell's embedding depends on its own counts, its own total and the genes shown, nothing else: not on the
cells beside it, the size of the batch or their order. numpy and torch alone; :mod:`txfm_lite.embed` is the
door for AnnData.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from .encodings_arrays import shown_genes
from .rankformer import tokenise

if TYPE_CHECKING:
    from .rankformer import Rankformer
    from .txfm import TxFM

MEMORY = 256_000_000  # bytes of activations per batch: it fits beside anything, and larger is no faster


def encode_rows(
    model: TxFM,
    indptr: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
    library_size: np.ndarray,
    measured: np.ndarray,
    *,
    n_genes: int | None = None,
    n_draws: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
    return_all: bool = False,
) -> np.ndarray:
    """Embed samples of one dataset, given as CSR arrays over the model's vocabulary.

    It runs on the model's device, in float32, or in what a surrounding ``torch.autocast`` says.

    Parameters
    ----------
    model : TxFM
    indptr : ndarray of int, shape (n + 1,)
    indices : ndarray of int, shape (nnz,)
        Vocabulary ids, no id twice in a row.
    counts : ndarray, shape (nnz,)
        Raw counts.
    library_size : ndarray, shape (n,)
        Total counts of each whole profile, genes outside the vocabulary included.
    measured : ndarray of bool, shape (G,)
        Genes that the dataset can report; only these are shown, their zeros included.
    n_genes : int, optional
        Show only so many of them, drawn once for all samples; by default all, and nothing is random.
        The paper does not say which it did.
    n_draws : int
        Average the embeddings of so many draws; without effect where all genes are shown.
    batch_size : int, optional
        Samples at a time; by default what `MEMORY` holds. It has no influence on the result.
    seed : int
        Of the draws.
    return_all : bool
        Return what every block makes of the samples, see :meth:`TxFM.encode`.

    Returns
    -------
    ndarray, float32, shape (n, d_model), or (n, n_blocks, d_model) if `return_all`

    Raises
    ------
    ValueError
        If a sample has no counts at all (it has no profile), or nothing can be shown.
    """
    empty = np.flatnonzero(~(np.asarray(library_size) > 0))
    if empty.size:
        raise ValueError(f"{empty.size} samples without counts (the first is row {empty[0]}): leave them out")
    device, was_training = model.cls.device, model.training
    draws = [torch.from_numpy(g).to(device) for g in shown_genes(measured, n_genes, n_draws, seed)]
    size = batch_size or cells_per_batch(model, len(draws[0]))
    shape = (model.config.n_blocks,) * return_all + (model.config.d_model,)
    out = np.empty((len(library_size), *shape), dtype=np.float32)
    model.eval()
    try:
        with torch.inference_mode():
            for rows, values in _dense(model, indptr, indices, counts, library_size, size):
                shown = [(values[:, g], g.expand(len(values), -1)) for g in draws]
                e = [model.encode(*pair, return_all=return_all).float() for pair in shown]
                out[rows] = torch.stack(e).mean(dim=0).cpu().numpy()
    finally:
        model.train(was_training)
    return out


def encode_tokens(
    model: Rankformer,
    indptr: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
    library_size: np.ndarray,
    *,
    block: int = -1,
    batch_size: int | None = None,
) -> np.ndarray:
    """Embed samples given as CSR arrays over the model's vocabulary: the mean over each cell's tokens.

    Parameters
    ----------
    model : Rankformer
    indptr, indices, counts, library_size : ndarray
        As for :func:`txfm_lite.rankformer.tokenise`.
    block : int
        -1 is the last block, -2 the one before it (Geneformer's default).
    batch_size : int, optional
        Samples at a time; it has no influence on the result beyond rounding.

    Returns
    -------
    ndarray, float32, shape (n, d_model)

    Raises
    ------
    ValueError
        If a sample has no token, or there is no such block.
    """
    config, device, was_training = model.config, model.hidden.device, model.training
    if not -config.n_blocks - 1 <= block <= -1:
        raise ValueError(f"block = {block}: with {config.n_blocks} blocks it is {-config.n_blocks - 1} to -1")
    medians, n = model.medians.cpu().numpy(), len(library_size)
    size = batch_size or max(1, MEMORY // (4 * config.n_tokens * (14 * config.d_model + config.n_tokens)))
    out = np.empty((n, config.d_model), dtype=np.float32)
    model.eval()
    try:
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            bounds = np.asarray(indptr[part.start : part.stop + 1])
            entries, totals = slice(bounds[0], bounds[-1]), np.asarray(library_size)[part]
            tokens = tokenise(bounds, indices[entries], counts[entries], totals, medians, config)
            if (empty := np.flatnonzero(~tokens[2][:, 0])).size:
                raise ValueError(
                    f"{empty.size} samples have no counts in the model's genes (the first is row "
                    f"{start + empty[0]}): leave them out"
                )
            longest = tokens[2].sum(1).max()
            genes, levels, shown = (torch.from_numpy(t[:, :longest].copy()).to(device) for t in tokens)
            with torch.inference_mode():
                x = model.encode(genes, levels, None if shown.all() else shown, block=block).float()
                mean = (x * shown[..., None]).sum(1) / shown.sum(1, keepdim=True)
            out[part] = mean.cpu().numpy()
    finally:
        model.train(was_training)
    return out


def cells_per_batch(model: TxFM, n_shown: int) -> int:
    """Return how many cells' activations fit into `MEMORY`.

    One block costs a few numbers per gene and head; several blocks about ten widths per gene.
    """
    c = model.config
    per_gene = 4 * c.n_heads if c.n_blocks == 1 else 10 * c.d_model
    return max(1, MEMORY // (4 * max(n_shown * per_gene, c.n_genes)))


def _dense(
    model: TxFM,
    indptr: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
    library_size: np.ndarray,
    size: int,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield batches of rows and their normalised values of all genes, (b, G), dense on the model's device."""
    device = model.cls.device
    for start in range(0, len(library_size), size):
        rows = slice(start, min(start + size, len(library_size)))
        bounds = np.asarray(indptr[rows.start : rows.stop + 1])
        entries = slice(bounds[0], bounds[-1])
        row = torch.from_numpy(np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)))
        gene = torch.from_numpy(indices[entries].astype(np.int64))
        count = torch.from_numpy(counts[entries].astype(np.float32))
        dense = torch.zeros(len(bounds) - 1, model.config.n_genes, device=device)
        dense[row.to(device), gene.to(device)] = count.to(device)
        totals = torch.from_numpy(np.asarray(library_size[rows], dtype=np.float32)).to(device)
        yield rows, model.normalise(dense, totals)
