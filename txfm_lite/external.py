"""Other people's models, scored like ours: Geneformer here, scGPT in :mod:`txfm_lite.external_scgpt`.

Both adapters take an AnnData with raw counts and give embeddings in the order of its cells. That is less
than it seems: Geneformer's own extractor shuffles the cells and sorts them by length, and neither project
fixes its random draws. Here a cell's tokens depend on the cell, its name and the seed alone.

=====================  ===============================================  ===================================
.                      :class:`Geneformer` (first version)              :class:`ScGPT`
=====================  ===============================================  ===================================
files                  a ``BertForMaskedLM`` folder, two dictionaries   best_model.pt, args.json, vocab.json
a gene's value is      its place in the order                           a bin within the cell
order, or bins, of     counts / total / the gene's median in a corpus   counts above zero
longest cell           2,048 genes, the lowest are cut                  1,200 tokens, drawn at random
embedding              mean over genes, last layer but one              the class token's output, length 1
=====================  ===============================================  ===================================

Needs the extra ``txfm-lite[external]``. Neither weights nor dictionaries come with this package; both
classes take a local folder or a name on the model hub.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import encodings
from .encodings_orders import dictionaries
from .evaluate.scores import Embedding

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

    from .encodings import Encoding

log = logging.getLogger("txfm_lite")

BATCH_SIZE = 8  # cells at a time: memory grows with the square of their length


class Geneformer:
    """A Geneformer checkpoint of the first version: cells as lists of genes in order (Theodoris et al. 2023).

    Parameters
    ----------
    model : str or path
        A folder with ``config.json`` and weights, or a name on the hub.
    medians, tokens : path, optional
        Pickled dictionaries Ensembl id -> median of its non-zero values, and -> token. They are opened by an
        unpickler that knows numbers only. By default the dataset "geneformer_v1_dictionaries".
    device : str
    **hub
        For ``from_pretrained``: revision, token, ...

    Raises
    ------
    ValueError
        If dictionary and model have different numbers of tokens (each version has its own), or the
        dictionary is of a later version.
    """

    def __init__(
        self,
        model: str | Path,
        medians: str | Path | None = None,
        tokens: str | Path | None = None,
        *,
        device: str = "cpu",
        **hub: Any,
    ):
        try:
            from transformers import BertForMaskedLM
        except ImportError as error:
            raise ImportError("Geneformer needs transformers: pip install 'txfm-lite[external]'") from error
        self.medians, self.tokens = dictionaries(medians, tokens)
        if "<cls>" in self.tokens:
            raise ValueError("this dictionary has <cls>: it is of a later version than this adapter reads")
        self.model = BertForMaskedLM.from_pretrained(model, **hub).eval().to(device)
        config = self.model.config
        if config.vocab_size != len(self.tokens):
            raise ValueError(
                f"{model} has {config.vocab_size:,} tokens, the dictionary {len(self.tokens):,}: take the "
                "dictionaries that were published with these weights"
            )
        self.longest, self.pad = config.max_position_embeddings, int(self.tokens["<pad>"])

    def encode(self, adata: AnnData) -> Encoding:
        """Return each cell's tokens, the gene with the highest value first.

        See :func:`txfm_lite.encodings_orders.geneformer`, which also says what is refused.
        """
        return encodings.geneformer(adata, self.medians, self.tokens, longest=self.longest)

    def embed(self, adata: AnnData) -> np.ndarray:
        """Return one row per cell, float32, shape (n, d); nan, with a warning, for a cell without a token."""
        import torch

        encoding = self.encode(adata)
        cells = np.split(encoding.tokens, encoding.indptr[1:-1])
        lengths = np.diff(encoding.indptr)
        out = empty_rows(adata, lengths, self.model.config.hidden_size)
        with torch.inference_mode():
            for rows in batches(lengths):
                tokens = padded([cells[i] for i in rows], self.pad, self.model.device)
                shown = tokens != self.pad
                found = self.model.base_model(tokens, attention_mask=shown, output_hidden_states=True)
                layer = found.hidden_states[-2]  # without scores for 25,426 genes, which nobody reads
                total = (layer * shown[..., None]).sum(dim=1)
                out[rows] = (total / shown.sum(dim=1, keepdim=True)).float().cpu().numpy()
        return out

    def __call__(self, adata: AnnData, seed: int = 0) -> Embedding:
        """Return the embedding with the cells' names; a cell without one is an error that names it."""
        return Embedding(self.embed(adata), adata.obs_names, "Geneformer")


def empty_rows(adata: AnnData, lengths: np.ndarray, d: int) -> np.ndarray:
    """Return rows of nan to be filled, and warn of cells for which nothing will come."""
    if (without := np.flatnonzero(lengths == 0)).size:
        log.warning(
            "%d cells have no gene that the model knows, for example %r: their rows are nan",
            without.size, str(adata.obs_names[without[0]]),
        )  # fmt: skip
    return np.full((len(lengths), d), np.nan, dtype=np.float32)


def batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield row numbers of cells of similar length, so that little is padded; not of empty ones."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    for a in range(0, len(order), BATCH_SIZE):
        yield order[a : a + BATCH_SIZE]


def padded(rows: Sequence[np.ndarray], pad: float, device: Any) -> torch.Tensor:
    """Return rows of different lengths as one matrix, filled up on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence([torch.as_tensor(r) for r in rows], batch_first=True, padding_value=pad).to(device)
