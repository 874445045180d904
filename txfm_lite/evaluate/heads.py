"""Rank, bin and value models at one budget: trained on the same cells, scored on studies held out.

Three arms see the same cells in the same order, for the same number of steps, at the same width:

- ``rank`` and ``bin``, the two heads of :mod:`txfm_lite.rankformer`: equal in parameters and tokens;
- ``TxFM``, which reads values. It shows :attr:`Budget.n_revealed` genes, zeros included, to a single block,
  whose cost does not grow with their square, and its decoder has weights for every gene beside its encoder's.

Gene vectors of all three start at the same principal axes of the corpus. Learning rates are chosen on
validation batches of the training corpus (:func:`learning_rate`), never on what is scored.

Beside them: each arm before training, and what needs no model. ``top genes`` says only which genes are
tokens, ``rank tokens`` and ``bin tokens`` also at which level; ``log counts`` are all genes that there are.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import results
from . import cells, probes, suite

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from anndata import AnnData

    from ..corpus import Corpus
    from ..rankformer import RankformerConfig
    from ..training import TrainConfig
    from ..txfm import TxFMConfig

log = logging.getLogger("txfm_lite")

ARMS = ("rank", "bin", "TxFM")
FOLDS = 4  # within a study
SEED_FREE = ("top genes", "rank tokens", "bin tokens", "log counts")
#: Two studies of blood, and what their cell types are called in both.
BLOOD = {
    "pbmc_3tech_symphony": {
        "T_CD4": "CD4 T",
        "B": "B",
        "Mono_CD14": "CD14 monocyte",
        "Mono_CD16": "CD16 monocyte",
    },
    "onek1k_40donors": {
        "cd4nc": "CD4 T",
        "bmem": "B",
        "monoc": "CD14 monocyte",
        "mononc": "CD16 monocyte",
    },
}
MOST_CELLS = 2_000  # of one study


@dataclass(frozen=True)
class Budget:
    """What every arm may spend. The defaults are minutes per model on one CPU core."""

    n_genes: int = 4096  # the corpus' most variable genes
    n_tokens: int = 64  # of a cell, rank and bin
    n_levels: int = 8
    n_revealed: int = 1024  # of a cell, TxFM
    d_model: int = 64
    n_blocks: int = 2  # of rank and bin
    n_heads: int = 4
    batch_size: int = 32
    steps: int = 3000
    trial_steps: int = 60  # for each learning rate
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    n_components: int = 32  # coordinates of gene vectors that start at principal axes


def corpus(whole: Corpus, budget: Budget, path: str | Path) -> Corpus:
    """Return the corpus cut to its most variable genes, written to `path` unless it is there."""
    from ..corpus import Corpus, select_variable_genes
    from ..corpus_writer import write_subset

    genes = select_variable_genes(whole, min(budget.n_genes, whole.n_genes))
    if (Path(path) / "corpus.json").is_file():
        found = Corpus.open(path)
        if found.info["rules"].get("subset_of") == whole.fingerprint and np.array_equal(found.genes, genes):
            return found
    return write_subset(whole, path, genes=genes, overwrite=True)


def shape(arm: str, n_genes: int, budget: Budget) -> RankformerConfig | TxFMConfig:
    """Return an arm's configuration.

    Raises
    ------
    ValueError
        If there is no such arm.
    """
    from ..rankformer import RankformerConfig
    from ..txfm import TxFMConfig

    if arm not in ARMS:
        raise ValueError(f"no arm {arm!r}; there are {', '.join(ARMS)}")
    same = {"d_model": budget.d_model, "n_heads": budget.n_heads, "drop_path": 0.0}
    if arm == "TxFM":
        return TxFMConfig(n_genes, n_blocks=1, n_revealed=budget.n_revealed, **same)
    tokens = {"n_tokens": budget.n_tokens, "n_levels": budget.n_levels, "n_blocks": budget.n_blocks}
    return RankformerConfig(n_genes, arm, **tokens, **same)


def schedule(budget: Budget, learning_rate: float, seed: int, steps: int | None = None) -> TrainConfig:
    """Return how an arm trains: the same for all but for the learning rate."""
    from ..training import TrainConfig

    steps = steps or budget.steps
    return TrainConfig(
        steps=steps,
        batch_size=budget.batch_size,
        learning_rate=learning_rate,
        seed=seed,
        validate_every=max(1, steps // 3),
        n_validation=256,
        checkpoint_minutes=2,
        start_from_components=budget.n_components,
    )


def learning_rate(
    arm: str,
    corpus: Corpus,
    budget: Budget,
    runs: Path,
    folder: Path | None = None,
    study: str = "rank-heads-training",
) -> float:
    """Return the rate with the lowest validation loss after a short trial of each, and store the trials.

    Where the budget names a single rate, there is nothing to try.

    Parameters
    ----------
    arm : str
    corpus : Corpus
        Its validation batches decide.
    budget : Budget
    runs : path
        Where the runs lie: what stopped goes on.
    folder : path, optional
        Of the results.
    study : str
        The trials lie in ``<study>/rates-<arm>.json``.
    """
    from ..training import fit

    if len(budget.learning_rates) == 1:
        return budget.learning_rates[0]
    where = f"{study}/rates-{arm.lower()}"
    if not results.stored(where, folder):
        rows = []
        for rate in budget.learning_rates:
            config = schedule(budget, rate, 0, budget.trial_steps)
            path = Path(runs) / f"{arm}-rate-{rate:g}"
            run = fit(corpus, shape(arm, corpus.n_genes, budget), config, path, progress=False)
            last = run.history.iloc[-1]
            log.info("%s: learning rate %g, validation loss %.4f", arm, rate, last["loss"])
            rows.append({"arm": arm, "rate": rate, "loss": last["loss"], "floor": last["floor"]})
        results.write(where, rows, _provenance(corpus, budget), folder)
    trials = results.read(where, folder)
    return float(trials.loc[trials["loss"].idxmin(), "rate"])


def train(
    arm: str,
    corpus: Corpus,
    budget: Budget,
    seed: int,
    runs: Path,
    folder: Path | None = None,
    study: str = "rank-heads-training",
) -> torch.nn.Module:
    """Train one arm with one seed, or go on where that stopped, or open it; store its curve.

    Parameters as for :func:`learning_rate`; the curve lies in ``<study>/<arm>-seed<k>.json``.
    """
    from ..training import fit

    rate = learning_rate(arm, corpus, budget, runs, folder, study)
    config, path = schedule(budget, rate, seed), Path(runs) / f"{arm}-seed{seed}"
    run = fit(corpus, shape(arm, corpus.n_genes, budget), config, path, progress=False)
    where = f"{study}/{arm.lower()}-seed{seed}"
    if not results.stored(where, folder):
        facts = {"arm": arm, "seed": seed, "rate": rate, "n_parameters": run.model.n_parameters}
        kept = ["step", "samples", "minutes", "loss", "floor", "explained", "probe"]
        rows = [facts | row for row in run.history[kept].to_dict("records")]
        results.write(where, rows, _provenance(corpus, budget), folder)
    return run.model


def _provenance(corpus: Corpus, budget: Budget) -> dict[str, Any]:
    return results.provenance(data=results.fingerprint(corpus), budget=asdict(budget))


def models(
    trained: Callable[[str, int], torch.nn.Module], corpus: Corpus, budget: Budget
) -> dict[str, suite.Model]:
    """Return everything that is compared, by name, as :func:`txfm_lite.evaluate.suite.run` takes it.

    Parameters
    ----------
    trained : callable
        From an arm and a seed to its model; asked only for what is not stored yet.
    corpus : Corpus
        Its genes are the vocabulary of what needs no model.
    budget : Budget
        Of the arms, for their untrained twins.
    """
    fresh = functools.cache(lambda arm, seed: untrained(arm, corpus, budget, seed))
    found: dict[str, suite.Model] = {}
    for arm in ARMS:
        found[arm] = lambda adata, seed, arm=arm: embed(adata, trained(arm, seed))
    for arm in ARMS:
        found[f"{arm} untrained"] = lambda adata, seed, arm=arm: embed(adata, fresh(arm, seed))
    for what in ("top genes", "rank tokens", "bin tokens"):
        arm = "bin" if what == "bin tokens" else "rank"
        found[what] = lambda adata, seed, what=what, arm=arm: dense(adata, trained(arm, 0), what)
    found["log counts"] = lambda adata, seed: log_counts(adata, corpus.genes)
    return found


def embed(adata: AnnData, model: torch.nn.Module) -> np.ndarray:
    """Embed with whichever arm."""
    from ..embed import embed as embed_values
    from ..embed_tokens import embed_tokens
    from ..txfm import TxFM

    return embed_values(adata, model) if isinstance(model, TxFM) else embed_tokens(adata, model)


def untrained(arm: str, corpus: Corpus, budget: Budget, seed: int) -> torch.nn.Module:
    """Return an arm as it is before its first step: the same random weights, axes and medians."""
    import torch

    from ..training import KINDS

    config = shape(arm, corpus.n_genes, budget)
    torch.manual_seed(seed)
    fresh = KINDS[type(config)].model(config, corpus.genes.tolist())
    plan = schedule(budget, budget.learning_rates[0], seed)  # of which the start depends on the axes alone
    return KINDS[type(config)].steps(fresh, corpus, plan, Path(), 1).model.eval()


def dense(adata: AnnData, model: torch.nn.Module, what: str) -> np.ndarray:
    """Return the tokens themselves as numbers per gene, float32, shape (n, G); 0 for what is no token.

    "top genes": 1; "rank tokens": from 1 for the first down to 1 / T for the last; "bin tokens": the bin,
    plus one.
    """
    from ..embed_tokens import tokens

    genes, levels, shown = tokens(adata, model)
    last = model.config.n_tokens
    value = {"top genes": np.ones_like(levels), "rank tokens": 1 - levels / last, "bin tokens": 1 + levels}
    out = np.zeros((adata.n_obs, model.config.n_genes), dtype=np.float32)
    np.add.at(out, (np.nonzero(shown)[0], genes[shown]), value[what][shown])
    return out


def log_counts(adata: AnnData, genes: Sequence[str]) -> np.ndarray:
    """Return log counts of all `genes`, 0 where a study does not measure one, float32, shape (n, G)."""
    from .. import align, baselines

    counts, _, library_size = align.align(adata, genes)
    return baselines.log_counts(counts, library_size)


def score(values: np.ndarray, adata: AnnData, seed: int) -> list[dict[str, Any]]:
    """Score linear probes within and across batches, and neighbours across batches.

    Returns
    -------
    list of dict
        Partial rows: "LR accuracy" and "LR F1" of a logistic regression, variants "across batches" (each
        batch, or group of batches, left out: :func:`txfm_lite.evaluate.probes.splits`) and "within batches"
        (four folds of cells, drawn with `seed`); "kNN", across batches.
    """
    from sklearn.model_selection import KFold

    values, labels, batches, _ = cells._checked(values, adata.obs)
    folds = {
        "across batches": probes.splits(batches),
        "within batches": list(KFold(FOLDS, shuffle=True, random_state=seed).split(values)),
    }
    rows = [{**cells.knn(values, labels, batches), "variant": "across batches"}]
    for variant, pairs in folds.items():
        compared = [probes._compare(labels, *fold, probes._logistic(values, labels, *fold)) for fold in pairs]
        rows += [{**row, "variant": variant} for row in probes._rows("LR", compared)]
    return rows


def some(adata: AnnData, most: int = MOST_CELLS) -> AnnData:
    """Return at most so many cells, the same ones always."""
    if adata.n_obs <= most:
        return adata
    rows = np.sort(np.random.default_rng(0).choice(adata.n_obs, most, replace=False))
    return adata[rows].copy()


def pooled(studies: dict[str, AnnData], names: dict[str, dict[str, str]]) -> tuple[AnnData, list[AnnData]]:
    """Put studies side by side whose cell types are known by common names; each study is a batch.

    Parameters
    ----------
    studies : dict
    names : dict
        Study -> its cell types -> the common names; cells of other types are left out.

    Returns
    -------
    both : AnnData
        The genes that all share; ``obs`` has the common ``cell_type``, and the study as ``batch``.
    parts : list of AnnData
        Each study's cells with all its genes, in the order of `both`: what a model should see.
    """
    import anndata

    parts = []
    for name, types in names.items():
        part = some(studies[name][studies[name].obs["cell_type"].isin(list(types)).to_numpy()].copy())
        part.obs["cell_type"] = part.obs["cell_type"].astype(str).map(types)
        part.obs["batch"] = name
        part.obs_names = [f"{name}-{i}" for i in part.obs_names]
        parts.append(part)
    both = anndata.concat(parts, join="inner")
    return both, parts


def side_by_side(model: suite.Model, parts: Sequence[AnnData]) -> suite.Model:
    """Return a model that embeds each part by itself and stacks the rows."""
    return lambda _, seed: np.vstack([suite.embed("", model, part, seed) for part in parts])


def compare(
    corpus: Corpus,
    studies: dict[str, AnnData],
    budget: Budget,
    seeds: Sequence[int],
    runs: str | Path,
    folder: Path | None = None,
    study: str = "rank-heads",
) -> pd.DataFrame:
    """Train every arm with every seed, score everything on every study, and return the stored rows.

    What is stored is neither trained nor scored again.

    Parameters
    ----------
    corpus : Corpus
        As from :func:`corpus`.
    studies : dict
        Held-out studies by name, with ``cell_type`` and ``batch``. Where both studies of :data:`BLOOD` are
        among them, a probe is also trained on one and tested on the other: dataset "blood, two studies".
    budget : Budget
    seeds : sequence of int
    runs : path
        A folder for the runs.
    folder : path, optional
        Of the results; by default the repository's.
    study : str
        Scores lie in ``<study>/``, curves in ``<study>-training/``.
    """
    import pandas as pd

    trained = functools.cache(
        lambda arm, seed: train(arm, corpus, budget, seed, Path(runs), folder, f"{study}-training")
    )
    contestants = models(trained, corpus, budget)
    tests = {name: (some(adata), contestants) for name, adata in studies.items()}
    if set(BLOOD) <= set(studies):
        both, parts = pooled(studies, BLOOD)
        tests["blood-two-studies"] = both, {k: side_by_side(m, parts) for k, m in contestants.items()}
    frames = []
    for seed in seeds:  # a seed is whole before the next begins
        for arm in ARMS:
            trained(arm, seed)
        for name, (adata, contest) in tests.items():
            due = {k: m for k, m in contest.items() if seed == seeds[0] or k not in SEED_FREE}
            frames.append(suite.run(study, name, adata, due, score, [seed], folder))
    return pd.concat(frames, ignore_index=True)
