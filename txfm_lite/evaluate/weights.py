"""What a model's weights know, stored once: gene vectors, how they came about, and layer by layer.

- ``genes`` (:func:`store_genes`): which gene vectors recall known relationships, with how many axes: TxFM's,
  those of PCA and scVI fitted on the same corpus, co-expression, random ones;
- ``genes-training`` (:func:`store_training`): when in training codebook and decoder learn them;
- ``layers`` (:func:`store_layers`): behind which layer perturbations are told apart.

What has been stored is read, not run again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import results
from . import genes, scores, suite

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from ..corpus import Corpus
    from ..txfm import TxFM

log = logging.getLogger("txfm_lite")

DATASET = "relationships"  # the name of what gene vectors are scored on
PAPERS = (32, 256)  # axes that the paper keeps of codebook and decoder
WIDEST = 256  # components of the PCA, one for each number of the shipped model's vectors
SIGNIFICANT = 0.01

# Name -> how its vectors are made from a seed, and what genes.evaluate must know about them
Sources = dict[str, tuple[Callable[[int], "pd.DataFrame"], dict[str, Any]]]
PROFILES = {"ordered": True, "dimensions": ()}  # to be compared as they are

# tissues, cell lines and tumours, whole transcriptomes; counts or not, a correlation does not mind
BULK = (
    "tcga_pancan_cognoma",
    "hpa_rna_tables",
    "roadmap_57epigenomes",
    "gtex_brain_counts_damirseq",
    "gtex_median_tpm",
)


def coexpression(
    corpus: Corpus, n_samples: int = 4096, seed: int = 0, *, within: bool = True
) -> pd.DataFrame:
    """Return each gene's expression over samples of a corpus: the cosine of two rows is their co-expression.

    Log-normalised as for TxFM, less the gene's mean over the samples of the same dataset, so that differences
    between studies do not count; zero where a dataset does not measure the gene. The cosine is then Pearson's
    correlation within datasets, the plainest rival of learned vectors.

    Parameters
    ----------
    corpus : Corpus
        Its training samples are used.
    n_samples : int
        Drawn at random; all, if there are fewer. The result takes 4 bytes per gene and sample.
    seed : int
    within : bool
        False: less the mean over all samples that measure the gene. Then the differences between studies are
        most of what is seen, and well-known genes are alike whether they are related or not.

    Returns
    -------
    DataFrame, float32, shape (G, n_samples)
    """
    from ..baselines import log_counts

    rows = np.sort(np.random.default_rng(seed).permutation(corpus.rows("train"))[:n_samples])
    x, dataset = log_counts(corpus.csr(rows), corpus.library_size[rows]), corpus.dataset[rows]
    if within:
        for code in np.unique(dataset):
            x[dataset == code] -= x[dataset == code].mean(axis=0)
    else:
        measured = corpus.measured[dataset]
        x -= x.sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
        x[~measured] = 0
    return _labelled(np.ascontiguousarray(x.T), corpus.genes)


def bulk_coexpression(names: Sequence[str] = BULK) -> pd.DataFrame:
    """Return each gene's expression over bulk samples, to be compared as that of :func:`coexpression`.

    Logarithms of counts per million (of what is a logarithm already, the values as they are), less the gene's
    mean over the samples of its dataset; zero where a dataset does not measure the gene.

    Parameters
    ----------
    names : sequence of str
        Datasets of the manifests.

    Returns
    -------
    DataFrame, float32, shape (G, samples)
        G are all genes that some dataset measures.
    """
    import pandas as pd
    import scipy.sparse as sp

    from .. import datasets

    parts = []
    for name in names:
        adata = datasets.load(name)
        adata = adata[:, adata.var["matched"].to_numpy()]
        x = adata.X.toarray() if sp.issparse(adata.X) else np.array(adata.X)
        measured = np.isfinite(x).all(axis=0)
        x = x[:, measured].astype(np.float64)
        if not adata.uns["source"]["units"].startswith("log"):
            x = np.log1p(x / x.sum(axis=1, keepdims=True) * 1e6)
        parts.append(pd.DataFrame((x - x.mean(axis=0)).T, adata.var_names[measured]))
    return pd.concat(parts, axis=1, ignore_index=True).fillna(0).astype(np.float32)


def random_vectors(names: Sequence[str], dimension: int = 255, seed: int = 0) -> pd.DataFrame:
    """Return normal random vectors, shape (G, dimension): also what an untrained codebook is."""
    return _labelled(np.random.default_rng(seed).standard_normal((len(names), dimension), np.float32), names)


def txfm_sources(models: Sequence[TxFM | str | Path]) -> Sources:
    """Return TxFM's two kinds of vectors; seed k stands for the k-th of the models."""
    from ..embed import gene_vectors

    return {
        f"TxFM {kind}": (lambda seed, kind=kind: gene_vectors(models[seed])[kind], {})
        for kind in ("codebook", "decoder")
    }


def corpus_sources(corpus: Corpus, scvi: Callable[[int], Any] | None = None) -> Sources:
    """Return the rivals that were fitted on a corpus, and random vectors.

    Two of them show what the null is for: loadings of a PCA prepared as published, and co-expression
    with the differences between studies left in.

    `scvi` makes, from a seed, an object with ``gene_vectors()``, such as
    :class:`txfm_lite.baselines_scvi.CorpusSCVI`; without it there is no scVI.
    """
    from ..baselines import CorpusPCA

    @functools.cache
    def loadings(seed):
        return CorpusPCA(corpus, WIDEST, seed).gene_vectors()

    found: Sources = {
        "PCA (corpus)": (loadings, {"ordered": True}),
        "PCA (corpus), standardised": (loadings, {}),
        "co-expression": (lambda seed: coexpression(corpus, seed=seed), PROFILES),
        "co-expression, across studies": (
            lambda seed: coexpression(corpus, seed=seed, within=False),
            PROFILES,
        ),
        "random": (lambda seed: random_vectors(corpus.genes, seed=seed), {}),
    }
    if scvi is not None:
        found["scVI (corpus)"] = (lambda seed: scvi(seed).gene_vectors(), {})
    return found


def store_all(
    corpus: Corpus,
    screens: dict[str, AnnData],
    runs: Sequence[Path] = (),
    seeds: Sequence[int] = (0,),
    *,
    models: Sequence[TxFM | str | Path] = (),
    pairs: dict[str, pd.DataFrame] | None = None,
    scvi: bool = True,
    folder: Path | None = None,
) -> None:
    """Make the three studies, as far as they are not stored yet.

    Parameters
    ----------
    corpus : Corpus
        What PCA, scVI and co-expression see: the one that the models were trained on.
    screens : dict
        For the layers, see :func:`store_layers`; :func:`txfm_lite.studies.screens` has them.
    runs : sequence of path
        Folders of training runs with snapshots, one per seed: 0, 1 and so on.
    seeds : sequence of int
        Of the rivals.
    models : sequence of TxFM, names or folders
        One per seed. By default the models of the runs, or without runs the shipped one.
    pairs : dict, optional
        By default :func:`genes.known_pairs`.
    scvi : bool
        Fit scVI on the corpus, or read the fit that the other chapters use: it takes long.
    folder : path, optional
        Of the results; by default the repository's.
    """
    from ..baselines import fitted
    from ..baselines_scvi import CorpusSCVI

    pairs = genes.known_pairs() if pairs is None else pairs
    models = models or [Path(run) / "model" for run in runs] or ["txfm-xs"]
    fit = fitted(CorpusSCVI, corpus, "scvi", ".safetensors") if scvi else None
    store_genes(txfm_sources(models), pairs, range(len(models)), folder)
    store_layers(screens, models, range(len(models)), folder)
    for seed, run in enumerate(runs):
        store_training(Path(run), pairs, seed, folder)
    store_genes(corpus_sources(corpus, fit), pairs, seeds, folder)


def store_genes(
    sources: Sources,
    pairs: dict[str, pd.DataFrame],
    seeds: Sequence[int] = (0,),
    folder: Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Score every source of gene vectors with every seed, store and return the rows of the study ``genes``.

    Parameters
    ----------
    sources : dict
        Of :func:`txfm_sources` and :func:`corpus_sources`, or your own.
    pairs : dict
        See :func:`genes.known_pairs`.
    seeds : sequence of int
    folder : path, optional
        Of the results; by default the repository's.
    **options
        Further arguments of :func:`genes.evaluate`; what a source says of itself comes first.
    """
    for name, (vectors, how) in sources.items():
        for seed in seeds:
            where = suite.path("genes", DATASET, name, seed)
            if not results.stored(where, folder):
                _store(where, name, vectors(seed), pairs, seed, folder, {}, **(options | how))
    return results.read(f"genes/{DATASET}", folder)


def snapshot_steps(steps: int) -> list[int]:
    """Return when to keep the model in a training of so many steps: 0, then doubling, and three quarters."""
    halved = [steps >> k for k in range(7)]
    return sorted({0, *halved, 3 * steps // 4})


def store_training(
    run: Path, pairs: dict[str, pd.DataFrame], seed: int = 0, folder: Path | None = None
) -> pd.DataFrame:
    """Score the gene vectors of the models that a run kept, store and return the study ``genes-training``.

    Parameters
    ----------
    run : path
        The folder of a run with ``snapshots``, see :func:`txfm_lite.training.fit`.
    pairs, folder
        As for :func:`store_genes`. The rows have two fields more, ``step`` and ``samples``.
    seed : int
        By which the run is named.
    """
    from ..txfm import TxFM

    kept = {int(path.name.removeprefix("step-")): path for path in (run / "snapshots").glob("step-*")}
    if not kept:
        raise FileNotFoundError(f"{run}: no snapshots/step-...; train with fit(..., snapshots=[0, ...])")
    for step, path in sorted(kept.items()):
        model = TxFM.from_pretrained(path)
        facts = {"step": step, "samples": step * model.provenance["batch_size"]}
        for name, (vectors, _) in txfm_sources([model]).items():
            where = suite.path("genes-training", DATASET, f"{name} step {step}", seed)
            if not results.stored(where, folder):
                _store(where, name, vectors(0), pairs, seed, folder, facts, dimensions=PAPERS)
    return results.read(f"genes-training/{DATASET}", folder)


def store_layers(
    screens: dict[str, AnnData],
    models: Sequence[TxFM | str | Path] = ("txfm-xs",),
    seeds: Sequence[int] = (0,),
    folder: Path | None = None,
) -> pd.DataFrame:
    """Score perturbation consistency behind every layer, store and return the study ``layers``.

    Parameters
    ----------
    screens : dict
        Name -> AnnData with raw counts, `perturbation`, `is_control` and `batch`.
    models : sequence of TxFM, names or folders
        If there are several, seed k takes the k-th; a single one is taken for all seeds.
    seeds : sequence of int
        Of the null draws.
    folder : path, optional
    """
    for dataset, adata in screens.items():
        for seed in seeds:
            where = suite.path("layers", dataset, "TxFM", seed)
            if results.stored(where, folder):
                continue
            model = models[seed] if len(models) > 1 else models[0]
            rows = scores.complete(list(layer_rows(adata, model, seed)), dataset, "TxFM", seed)
            results.write(where, rows, results.provenance(data=results.fingerprint(adata)), folder)
    return results.read("layers", folder)


def layer_rows(adata: AnnData, model: TxFM | str | Path, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the perturbation consistency of a screen behind each layer of a model, as partial rows.

    `variant` is the layer, as :func:`txfm_lite.embed.layers` names it; "encoder 0" is what goes in: the log
    counts of the genes that the model knows, as many principal components of them as the model is wide.
    After the alignment that the paper gives this score (:func:`~.alignment.control_axes`), "p.cst" is the
    share of perturbations with p < 0.01 by the paper's definition, its null that of scrambled rows. It is
    often none or all; "p.cst percentile", the mean of 1 - p, says the same in degrees. "p.cst permuted" is
    the share against permuted labels, which is calibrated.
    """
    from .. import embed
    from ..baselines import embed_pca
    from . import alignment, consistency
    from .perturbations import Screen

    model, screen = embed.ready(model), Screen.of(adata.obs, adata.X, None)
    order = np.random.default_rng([seed, 2]).permutation(adata.n_obs)
    first = {"encoder 0": embed_pca(adata, model.config.d_model, model.genes, seed)}
    for layer, values in (first | embed.layers(adata, model, seed=seed)).items():
        x = alignment.control_axes(values, screen.batches, screen.controls)
        test = functools.partial(
            consistency.against_single_cells, groups=screen.groups, controls=screen.controls, seed=seed
        )
        found, scrambled = test(x), test(x[order])
        row = functools.partial(scores.partial, variant=layer, n=len(found))
        yield row("p.cst", _share(found), null=_share(scrambled))
        yield row("p.cst percentile", 1 - found["p"].mean(), null=1 - scrambled["p"].mean())
        permuted = consistency.against_permutations(
            x, screen.groups, screen.controls, screen.batches, seed=seed
        )
        yield row("p.cst permuted", _share(permuted), null=SIGNIFICANT)


def _store(where, name, vectors, pairs, seed, folder, facts, **options) -> None:
    log.info("%s", where)
    rows = scores.complete(genes.evaluate(vectors, pairs, seed=seed, **options), DATASET, name, seed)
    facts = {"genes": len(vectors), "dimensions": vectors.shape[1], **facts}
    results.write(where, rows, results.provenance(data="efaar_benchmark_annotations", **facts), folder)


def _share(found: pd.DataFrame) -> float:
    return float((found["p"] <= SIGNIFICANT).mean())


def _labelled(values: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(values, index=pd.Index(names, name="gene"))
