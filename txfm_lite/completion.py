"""Which genes belong to a set as well, and how sure is that?

:func:`complete` gives a number for every gene and set; :func:`complete_genes` does it for one list that a
user types, and says what became of each name. Around them: vectors of genes and of sets, the spread over
several models or over dropout, what the model thinks of a member that it is not shown, and probabilities that
are calibrated to a library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .genesets import GeneSets
from .gsfm import GSFM, PAD, SPECIALS, Bags
from .gsfm_sets import Tokens, tokenise

if TYPE_CHECKING:
    import pandas as pd

SURE = 1.645  # z above which 5 % of a normal distribution lie
FIRST = len(SPECIALS)


@torch.no_grad()
def complete(model: GSFM, sets: GeneSets, batch_size: int = 256) -> np.ndarray:
    """Return the logit of membership of every gene in every set.

    Members that are shown are scored as well: for them it is a reconstruction, see :func:`leave_one_out`.

    Parameters
    ----------
    model : GSFM
        In evaluation mode; in training mode, units are dropped.
    sets : GeneSets
        Genes outside the vocabulary are ``<unk>``, as in training.
    batch_size : int
        Sets at a time; without influence.

    Returns
    -------
    ndarray, float32, shape (n, G)
        G genes: ``model.genes`` without the two special tokens. With two channels, the larger of up and down.

    Raises
    ------
    ValueError
        If the model has no vocabulary, or has two channels and the sets no weights.
    """
    tokens, device = _tokens(model, sets), next(model.parameters()).device
    out = np.empty((len(tokens), model.config.n_genes), dtype=np.float32)
    for rows in _parts(len(tokens), batch_size):
        logits = model(*tokens.bags(rows, device)).view(len(rows), model.config.channels, -1)
        out[rows] = logits.amax(1)[:, FIRST:].cpu().numpy()
    return out


@torch.no_grad()
def gene_vectors(model: GSFM, kind: str = "emb", batch_size: int = 1024) -> pd.DataFrame:
    """Return one vector per gene, from the set that holds nothing else.

    Parameters
    ----------
    model : GSFM
        In evaluation mode.
    kind : {"emb", "enc"}
        The encoder's output, or what the decoder's first layer makes of it (before ReLU).
    batch_size : int

    Returns
    -------
    DataFrame, float32, shape (G, d)
        Index: symbols.
    """
    import pandas as pd

    if kind not in ("emb", "enc"):
        raise ValueError(f"kind = {kind!r}: should be emb or enc")
    genes = _vocabulary(model)[FIRST:]
    device = next(model.parameters()).device
    out = []
    for rows in _parts(len(genes), batch_size):
        one = torch.arange(len(rows), device=device)
        vectors = model.encode(Bags(one + int(rows[0]) + FIRST, one))
        if kind == "enc":
            vectors = model.decoder.layers[0](model.latent(vectors))
        out.append(vectors.cpu().numpy())
    return pd.DataFrame(np.concatenate(out), index=genes)


@torch.no_grad()
def set_vectors(model: GSFM, sets: GeneSets, batch_size: int = 1024) -> np.ndarray:
    """Return one vector per set, the encoder's output: float32, shape (n, d)."""
    tokens, device = _tokens(model, sets), next(model.parameters()).device
    parts = [model.encode(tokens.bags(rows, device)) for rows in _parts(len(tokens), batch_size)]
    return torch.cat(parts).cpu().numpy()


def _vocabulary(model: GSFM) -> list[str]:
    if model.genes is None:
        raise ValueError("this model has no vocabulary, so nobody knows which gene is which")
    return model.genes


def _tokens(model: GSFM, sets: GeneSets) -> Tokens:
    return tokenise(sets, _vocabulary(model), model.config.channels)


def _parts(n: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]
