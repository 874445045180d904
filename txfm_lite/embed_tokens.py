"""AnnData in, tokens or a Rankformer's embedding out: the same door as :mod:`txfm_lite.embed`.

>>> from txfm_lite.embed_tokens import embed_tokens                   # doctest: +SKIP
>>> embed_tokens(adata, "runs/rank/model")                            # doctest: +SKIP

writes ``adata.obsm["X_rank"]``, or ``obsm["X_bin"]``, by the model's input head.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .align import Aligned
from .embed import LEAST_SHARE, PANEL, _judge, ready
from .inference import encode_tokens
from .rankformer import Rankformer, tokenise

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData


def embed_tokens(
    adata: AnnData,
    model: Rankformer | str | Path,
    layer: str | None = None,
    *,
    block: int = -1,
    library_share: float | None = None,
    batch_size: int | None = None,
    device: str | None = None,
) -> np.ndarray:
    """Embed every sample with a Rankformer and write ``obsm["X_rank"]`` or ``obsm["X_bin"]``.

    A sample's embedding is the mean over its tokens; it depends on its own counts alone. Ranks do not depend
    on its total, bins do: there, the total of a panel (below 7,000 genes) is divided by the share of a cell's
    counts that the training corpus has in those genes.

    Parameters
    ----------
    adata, layer, batch_size, device
        As for :func:`txfm_lite.embed.embed`.
    model : Rankformer, or the name, hub id or folder of one
    block : int
        Behind which block: -1 is the last; -2, the one before it, is Geneformer's default.
    library_share : float, optional
        Which share of a cell's transcripts the genes of a panel stand for, if you know it.

    Returns
    -------
    ndarray, float32, shape (n, d)
        Row i is sample i of `adata`. ``uns["rank"]`` or ``uns["bin"]`` says how it was made.

    Raises
    ------
    ValueError
        As :func:`txfm_lite.embed.embed`; if there is no such block; or if a sample has no counts in the
        model's genes.
    """
    name = "" if not isinstance(model, str | Path) else str(model)
    model = ready(model, device, Rankformer)
    aligned, head = Aligned(adata, model.genes, layer), model.config.head
    share = _share(aligned, model, library_share)
    out = np.empty((adata.n_obs, model.config.d_model), dtype=np.float32)
    for rows, x, library_size in _cells(aligned, share):
        arrays = x.indptr, x.indices, x.data, library_size
        out[rows] = encode_tokens(model, *arrays, block=block, batch_size=batch_size)
    adata.obsm[f"X_{head}"] = out
    adata.uns[head] = {**aligned.report(), "model": name, "block": block, "library_share": share}
    return out


def tokens(
    adata: AnnData,
    model: Rankformer | str | Path,
    layer: str | None = None,
    *,
    library_share: float | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the model sees of every sample: genes, levels, and where a short list has ended.

    Parameters and errors as for :func:`embed_tokens`.

    Returns
    -------
    genes, levels : ndarray of int64, shape (n, T)
        Numbers in ``model.genes``; places in the order, or bins. See :func:`txfm_lite.rankformer.tokenise`.
    shown : ndarray of bool, shape (n, T)
    """
    model = ready(model, kind=Rankformer)
    aligned, medians = Aligned(adata, model.genes, layer), model.medians.cpu().numpy()
    found = [
        tokenise(x.indptr, x.indices, x.data, library_size, medians, model.config)
        for _, x, library_size in _cells(aligned, _share(aligned, model, library_share))
    ]
    genes, levels, shown = (np.concatenate(part) for part in zip(*found, strict=True))
    return genes, levels, shown


def _share(aligned: Aligned, model: Rankformer, given: float | None) -> float:
    """Return what to divide totals by: 1 for whole transcriptomes, and where the model knows no profile."""
    if given is not None:
        if not 0 < given <= 1:
            raise ValueError(f"library_share = {given}: should be above 0 and at most 1")
        return float(given)
    known = float(model.profile.cpu().numpy()[aligned.match.measured].sum())
    whole = int(aligned.match.identified.sum()) >= PANEL or known < LEAST_SHARE
    return 1.0 if whole else min(known, 1.0)


def _cells(aligned: Aligned, share: float) -> Iterator[tuple[slice, sp.csr_matrix, np.ndarray]]:
    """Yield rows, counts over the vocabulary and library sizes, as a panel's share says."""
    for rows, x, library_size in aligned:
        _judge(aligned, last=rows.stop == aligned.adata.n_obs)
        if share < 1:
            library_size = np.maximum(np.asarray(x.sum(axis=1)).ravel(), 1) / share
        yield rows, x, library_size
