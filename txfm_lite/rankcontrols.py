"""Controls for the comparison of ranks and values: one depth, no training, zeros and ranks apart, order only.

:mod:`txfm_lite.rankstudy` compares how cells are encoded. Each function here takes away one other reason why
two encodings might differ.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .similarity import Spearman, ranks

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData

    from .encodings import Encoding


def embed_geneformer(adata: AnnData, folder: str = "", longest: int = 256, seed: int = 0) -> np.ndarray:
    """Embed cells with Geneformer's first architecture, with random weights unless a folder has real ones.

    Parameters
    ----------
    adata : AnnData
        Raw counts, all genes.
    folder : str
        Of a checkpoint, see :class:`txfm_lite.external.Geneformer`.
    longest : int
        Genes that the random network reads of a cell, the highest first; the real one reads 2,048.
    seed : int
        Of the random weights.

    Returns
    -------
    ndarray of float32, shape (n, 256)
        Row i is cell i. For genes that have no Ensembl id (simulated ones), medians are of these cells.
    """
    from . import external

    if folder:
        return external.Geneformer(folder).embed(adata)
    import torch
    from transformers import BertConfig, BertForMaskedLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of files that nobody will see
    medians, tokens = _own_dictionaries(adata) if _own_genes(adata) else external.dictionaries()
    torch.manual_seed(seed)
    network = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokens),
            hidden_size=256,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=512,
            hidden_act="relu",
            max_position_embeddings=longest,
        )  # fmt: skip
    )
    with tempfile.TemporaryDirectory() as where:
        network.save_pretrained(where)
        return external.Geneformer(where, medians, tokens).embed(adata)


def _own_genes(adata: AnnData) -> bool:
    """Tell whether the genes are simulated ones."""
    return "ensembl_id" in adata.var and not (adata.var["ensembl_id"] != "").any()


def _own_dictionaries(adata: AnnData) -> tuple[dict[str, float], dict[str, int]]:
    """Return medians of the non-zero CP10k values and tokens for genes that no dictionary knows."""
    x = adata.X.tocsc()
    x = x.multiply(1e4 / np.maximum(np.asarray(adata.X.sum(axis=1)), 1)).tocsc()
    cut = [x.data[a:b] for a, b in zip(x.indptr[:-1], x.indptr[1:], strict=True)]
    medians = {g: float(np.median(v)) for g, v in zip(adata.var_names, cut, strict=True) if len(v)}
    return medians, {"<pad>": 0, "<mask>": 1} | {g: i for i, g in enumerate(medians, 2)}


def zeros_and_ranks(counts: sp.csr_matrix) -> dict[str, np.ndarray]:
    """Return a cell's zeros and its ranks apart: each a matrix of rows of length one.

    "all ranks" has zeros as one group of equals. "zeros only" says which genes were detected and no more.
    "ranks without zeros" has the ranks of the detected genes, centred among themselves; a gene that was not
    detected stands in the middle, so that nothing tells it from a gene of average rank.
    """
    detected = (counts > 0).astype(np.float32).tocsr()
    inner = ranks(counts)
    present = detected.toarray() > 0
    inner[~present] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cell without a gene has no mean
        inner -= np.nanmean(inner, axis=1, keepdims=True)
    inner = np.nan_to_num(inner)
    length = np.maximum(np.linalg.norm(inner, axis=1, keepdims=True), 1e-12)
    return {
        "all ranks": Spearman(counts).rows,
        "zeros only": Spearman(detected).rows,
        "ranks without zeros": inner / length,
    }


def changed_by_squaring(adata: AnnData, seed: int = 0) -> dict[str, float]:
    """Return, for each encoding, the share of cells that it shows otherwise when their counts are squared.

    Squaring keeps the order of a cell's values and nothing else. So 0 says that an encoding sees the order
    alone, and 1 that it sees more. GenePT-w gets random gene vectors, which do not matter here.
    """
    import pandas as pd

    from . import encodings

    squared = adata.copy()
    squared.X = adata.X.power(2)
    rng = np.random.default_rng(seed)
    vectors = pd.DataFrame(rng.normal(size=(adata.n_vars, 16)), index=adata.var_names)
    dictionaries = _own_dictionaries(adata) if _own_genes(adata) else ()
    found = {}
    for name, encode in {
        "Cell2Sentence": lambda a: replace(encodings.cell2sentence(a, seed=seed), values=None),
        "Geneformer": lambda a: encodings.geneformer(a, *dictionaries),
        "scGPT": lambda a: encodings.scgpt(a, longest=a.n_vars + 1, seed=seed),
        "scBERT": encodings.scbert,
        "scFoundation": lambda a: encodings.scfoundation(a, list(a.var_names)),
        "GenePT-w": lambda a: encodings.genept(a, vectors),
        "TxFM": encodings.txfm,
    }.items():
        a, b = encode(adata), encode(squared)
        found[name] = np.mean([not _same(a, b, i) for i in range(len(a))])
    return found


def _same(a: Encoding, b: Encoding, i: int) -> bool:
    if a.vectors is not None:
        u, v = (e.vectors[i] / np.linalg.norm(e.vectors[i]) for e in (a, b))
        return bool(np.allclose(u, v, atol=1e-5))
    (one, two) = (slice(e.indptr[i], e.indptr[i + 1]) for e in (a, b))
    if not np.array_equal(a.tokens[one], b.tokens[two]):
        return False
    return a.values is None or bool(np.allclose(a.values[one], b.values[two], rtol=1e-5))
