"""AnnData in, embedding out; and what else a trained TxFM has to offer: gene vectors, reconstructed counts.

>>> import scanpy as sc, txfm_lite as tx                              # doctest: +SKIP
>>> adata = sc.read_h5ad("mine.h5ad")                                 # doctest: +SKIP
>>> tx.tl.embed(adata, "txfm-xs")                                     # doctest: +SKIP

writes ``adata.obsm["X_txfm"]``, which ``sc.pp.neighbors(adata, use_rep="X_txfm")`` takes from there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .align import Aligned

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from .rankformer import Rankformer
    from .txfm import TxFM

log = logging.getLogger("txfm_lite")

LEAST_COUNTS = 0.3  # a dataset with a smaller share of its counts in known genes was not understood
LEAST_GENES = 0.3  # below this share of the model's genes, a dataset is unlike what the model was trained on
PANEL = 7_000  # identified genes; a dataset with fewer is no whole transcriptome (curate.Rules says the same)
LEAST_SHARE = 0.002  # a model that expects less on a panel of hundreds of genes has not learned a profile


def embed(
    adata: AnnData,
    model: TxFM | str | Path = "txfm-xs",
    n_genes: int | None = None,
    n_draws: int = 1,
    layer: str | None = None,
    *,
    library_share: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> np.ndarray:
    """Embed every sample with TxFM and write ``obsm["X_txfm"]``.

    A sample's embedding depends on its own counts alone, not on the samples beside it.

    A panel's counts do not add up to a library: taken for a whole transcriptome, 300 genes would each look
    fifty times as abundant as anything that the model was trained on. So below 7,000 genes the total is
    divided by the share of a library that the model expects on them, the same for all samples
    (``benchmarks/panels.py``: nearer to the embedding of all genes in 20 of 20 trials).

    Parameters
    ----------
    adata : AnnData
        Raw counts, and human genes named by symbol or Ensembl id; see :mod:`txfm_lite.align`. May be backed.
    model : TxFM, or the name, hub id or folder of one
        See :meth:`TxFM.from_pretrained`.
    n_genes : int, optional
        Show only so many genes: a random draw of the measured genes, the same for all samples. By default all
        measured genes are shown, so that nothing is random. The paper does not say which it did.
    n_draws : int
        Average over so many draws of `n_genes`.
    layer : str, optional
        Where the counts are, if not in X: a name in ``layers``, or "raw" for ``adata.raw``.
    library_share : float, optional
        Which share of a cell's transcripts the genes of a panel stand for, if you know it; 1 leaves the
        totals alone. By default see :func:`library_share`.
    batch_size : int, optional
        Samples at a time; it has no influence on the result.
    seed : int
        Of the draws.
    device : str, optional
        "cpu", "cuda", ...; by default a GPU if there is one for a model given by name, and where it is for
        one given as such.

    Returns
    -------
    ndarray, float32, shape (n, d)
        Row i is sample i of `adata`. ``uns["txfm"]`` says how it was made and which share of genes and counts
        the model knew.

    Raises
    ------
    ValueError
        If the values are no counts, the genes cannot be recognised, a sample is empty, or the device cannot
        be used; the message names the cause and the mend.
    """
    name = "" if not isinstance(model, str | Path) else str(model)
    model = ready(model, device)
    aligned = Aligned(adata, model.genes, layer)
    options = {"n_genes": n_genes, "n_draws": n_draws, "batch_size": batch_size, "seed": seed}
    share = _share(aligned, model, library_share)
    out = np.empty((adata.n_obs, model.config.d_model), dtype=np.float32)
    for rows, _, e in _encoded(aligned, model, options, share):
        out[rows] = e
    adata.obsm["X_txfm"] = out
    n_shown = min(n_genes or model.config.n_genes, int(aligned.match.measured.sum()))
    how = {"model": name, "genes_shown": n_shown, "n_draws": n_draws, "seed": seed, "library_share": share}
    adata.uns["txfm"] = {**aligned.report(), **how}
    return out


def ready(
    model: TxFM | Rankformer | str | Path, device: str | None = None, kind: type | None = None
) -> TxFM | Rankformer:
    """Return a model that can embed: loaded (as a TxFM, or as `kind`), with a vocabulary, on the device."""
    import torch

    from .txfm import TxFM

    if isinstance(model, str | Path):
        model = (kind or TxFM).from_pretrained(model)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if model.genes is None:
        raise ValueError("this model has no vocabulary: it cannot tell which gene is which")
    try:
        return model if device is None else model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch's words for "no such device"
        raise ValueError(f"device = {device!r} cannot be used: {error}") from error


def library_share(model: TxFM, measured: np.ndarray) -> float:
    """Return the share of a library that a model expects on some of its genes.

    It is what the decoder predicts from an embedding of zeros, that is, knowing nothing about the cell: after
    training, close to the corpus' mean profile.

    Parameters
    ----------
    model : TxFM
    measured : ndarray of bool, shape (G,)

    Returns
    -------
    float
        Between 0 and 1.
    """
    import torch

    with torch.inference_mode():
        profile = model.decode(torch.zeros(1, model.config.d_model, device=model.cls.device))[0].cpu().numpy()
    return float(min(np.expm1(profile[measured].astype(np.float64)).sum() / model.config.library_size, 1.0))


def _share(aligned: Aligned, model: TxFM, given: float | None) -> float:
    """Return what to divide the totals by: 1 for whole transcriptomes."""
    if given is not None:
        if not 0 < given <= 1:
            raise ValueError(f"library_share = {given}: should be above 0 and at most 1")
        return float(given)
    n_genes = int(aligned.match.identified.sum())
    if n_genes >= PANEL or model.config.preprocessing != "library_log1p":
        return 1.0
    share = library_share(model, aligned.match.measured)
    if share < LEAST_SHARE:  # an untrained model: its expectation says nothing
        return 1.0
    log.info(
        "%d genes are a panel: taken for %.1f %% of a library, as the model expects", n_genes, 100 * share
    )
    return share


def _encoded(
    aligned: Aligned, model: TxFM, options: dict, share: float
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield rows, library sizes and embeddings, with a progress bar if it takes long."""
    from tqdm.auto import tqdm

    from .inference import encode_rows

    config, measured = model.config, aligned.match.measured
    if config.n_blocks > 1 and options["n_genes"] is None and measured.sum() > 4 * config.n_revealed:
        log.warning(
            "all %d measured genes are shown to %d blocks, whose cost grows with the square of that number; "
            "n_genes=%d, as in training, is many times faster",
            measured.sum(), config.n_blocks, config.n_revealed,
        )  # fmt: skip
    off = bool(os.environ.get("TQDM_DISABLE"))  # in a notebook, tqdm itself does not look
    with tqdm(total=aligned.adata.n_obs, desc="embed", unit="cell", delay=3, disable=off) as bar:
        for rows, x, library_size in aligned:
            _judge(aligned, last=rows.stop == aligned.adata.n_obs)
            if share < 1:  # of genes that the model knows, as is the share; all zeros whatever the total is
                library_size = np.maximum(np.asarray(x.sum(axis=1)).ravel(), 1) / share
            arrays = x.indptr, x.indices, x.data, library_size, measured
            yield rows, library_size, encode_rows(model, *arrays, **options)
            bar.update(len(library_size))


def _judge(aligned: Aligned, last: bool) -> None:
    """Refuse a dataset whose genes were not understood; say, at the end, how well it fits the model."""
    found = aligned.report()
    known, inside = found["counts_identified"], found["counts_in_model"]
    if known < LEAST_COUNTS:
        raise ValueError(
            f"only {known:.0%} of the counts are in known genes (by {found['gene_names']}, "
            f"for example {aligned.adata.var_names[0]!r}): put human symbols or Ensembl ids into var_names"
        )
    if not last:
        return
    log.info(
        "counts from %s, genes by %s: %d of %d genes identified (%.1f %% of the counts), "
        "%d of the model's %d genes measured (%.1f %% of the counts)",
        found["counts"], found["gene_names"], found["genes_identified"], found["genes"], 100 * known,
        found["genes_in_model"], aligned.n_genes, 100 * inside,
    )  # fmt: skip
    if found["model_genes_measured"] < LEAST_GENES:
        log.warning(
            "only %.0f %% of the model's genes are in this dataset. If it is a selection of variable genes, "
            "the cells' totals are wrong, too: embed the full matrix (adata.raw holds one? layer='raw')",
            100 * found["model_genes_measured"],
        )
    if aligned.match.spelling > 0.5:
        log.warning(
            "%.0f %% of the genes were found only by ignoring case: are these mouse genes? The model knows "
            "human ones; take orthologues, not equal names",
            100 * aligned.match.spelling,
        )


def layers(
    adata: AnnData, model: TxFM | str | Path = "txfm-xs", n_genes: int | None = None, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return what every layer of the model makes of every sample, each float32, shape (n, d).

    Parameters and errors as for :func:`embed`.

    Returns
    -------
    dict
        In the order of the model: "encoder 1" and so on, the CLS token behind each block (the last is the
        embedding); "decoder 0", behind the decoder's linear layer, "decoder 1" and so on, behind its residual
        layers. What the genes are predicted from is the last.
    """
    import torch

    model = ready(model)
    aligned = Aligned(adata, model.genes)
    options = {"n_genes": n_genes, "seed": seed, "return_all": True}
    parts = [e for _, _, e in _encoded(aligned, model, options, _share(aligned, model, None))]
    encoder = np.concatenate(parts)
    found = {f"encoder {i + 1}": encoder[:, i] for i in range(encoder.shape[1])}
    with torch.inference_mode():
        h = torch.from_numpy(encoder[:, -1]).to(model.cls.device)
        for i, layer in enumerate(model.decoder):
            h = layer(h)
            found[f"decoder {i}"] = h.cpu().numpy()
    return found


def gene_vectors(model: TxFM | str | Path) -> pd.DataFrame:
    """Return what the model learned about each gene, as a labelled frame.

    Returns
    -------
    DataFrame, shape (G, 2 d - 1)
        Indexed by gene, with two groups of columns: ``frame["codebook"]``, the d - 1 numbers that stand for a
        gene in the encoder's tokens, and ``frame["decoder"]``, the d weights that predict it from the
        embedding. The paper's gene-level results standardise each and keep 32 and 256 principal components.
    """
    import pandas as pd

    model = ready(model)
    vectors = {"codebook": model.codebook.weight, "decoder": model.gene_head.weight}
    genes = pd.Index(model.genes, name="gene")
    frames = {k: pd.DataFrame(v.detach().float().cpu().numpy(), index=genes) for k, v in vectors.items()}
    return pd.concat(frames, axis=1, names=["vector", "dimension"])


def reconstruct(
    adata: AnnData,
    model: TxFM | str | Path = "txfm-xs",
    genes: Sequence[str] | None = None,
    *,
    n_genes: int | None = None,
    n_draws: int = 1,
    layer: str | None = None,
    library_share: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> AnnData:
    """Predict the counts of every sample from its embedding, also of genes that it did not measure.

    Parameters
    ----------
    adata, model, n_genes, n_draws, layer, library_share, batch_size, seed, device
        As for :func:`embed`.
    genes : sequence of str, optional
        Which genes of the vocabulary; by default all, which takes 4 bytes per sample and gene.

    Returns
    -------
    AnnData, shape (n, genes)
        X, float32, dense: expected counts at the sample's own library size, (exp(x̂) - 1) · total / L.
        ``var["measured"]``: False where the prediction rests on other genes alone. obs as in `adata`;
        ``obsm["X_txfm"]``: the embeddings. (With the softmax activation all genes of the vocabulary share
        the library here; in training only the measured ones do.)

    Raises
    ------
    ValueError
        As :func:`embed`; or if a gene is not in the vocabulary.
    """
    import anndata
    import pandas as pd
    import torch

    model = ready(model, device)
    vocabulary = pd.Index(model.genes)
    chosen = np.arange(len(vocabulary)) if genes is None else vocabulary.get_indexer(list(genes))
    if (chosen < 0).any():
        missing = [g for g, i in zip(genes, chosen, strict=True) if i < 0]
        raise ValueError(f"the model does not know {', '.join(missing[:5])} ({len(missing)} of {len(genes)})")
    aligned = Aligned(adata, model.genes, layer)
    options = {"n_genes": n_genes, "n_draws": n_draws, "batch_size": batch_size, "seed": seed}
    x = np.empty((adata.n_obs, len(chosen)), dtype=np.float32)
    embedding = np.empty((adata.n_obs, model.config.d_model), dtype=np.float32)
    share = _share(aligned, model, library_share)
    for rows, library_size, e in _encoded(aligned, model, options, share):
        with torch.inference_mode():
            log_rate = model.decode(torch.from_numpy(e).to(model.cls.device)).cpu().numpy()
        embedding[rows] = e
        x[rows] = np.expm1(log_rate[:, chosen])
        if model.config.preprocessing == "library_log1p":
            x[rows] *= (library_size / model.config.library_size)[:, None]
    var = pd.DataFrame({"measured": aligned.match.measured[chosen]}, index=vocabulary[chosen])
    return anndata.AnnData(x, adata.obs.copy(), var, obsm={"X_txfm": embedding})
