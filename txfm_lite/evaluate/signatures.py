"""Whether directions, sizes of effects and non-coding genes help a gene set model.

GSFM's authors name all three as work to be done. Each is asked here with models of one shape, trained on the
same sets and asked about the same hidden genes of sets that were held out, study by study:

================== ================================================================================
arm                what the model is given
================== ================================================================================
no sign            one set: what goes up and what goes down together
two lists          what goes up and what goes down as two sets, as published
signed             two channels: up and down are different tokens
signed, weighted   the same, with each gene's effect as its weight
coding genes       the vocabulary is protein-coding genes
all genes          non-coding ones are in it, too; hidden genes and candidates are the coding ones
================== ================================================================================

Of each held-out set one half is shown. "which" is the AUROC of its hidden genes among all others that are not
shown, whatever their direction. "direction" is the AUROC of the hidden genes that go up against those that go
down. "popularity" needs no model: how often a gene is in training signatures, and how much oftener up than
down.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..genesets import GeneSets, concatenate
from ..gsfm import GSFM, GSFMConfig
from ..gsfm_blocks import SPECIALS
from ..gsfm_sets import tokenise_sets
from ..gsfm_training import GSFMTrainConfig, fit
from . import set_splits
from .scores import partial
from .set_statistics import rank_measures

ARMS = ("no sign", "two lists", "signed", "signed, weighted")
HELD_OUT = 0.2  # of the studies
BATCH = 32  # sets; signatures are few, so steps are made small to be many
LEAST = 5  # genes to be shown, and to be found


def signed_sets(up: GeneSets, down: GeneSets) -> GeneSets:
    """Join two libraries of lists, up and down, to signatures: weights above and below zero.

    Lists belong together by their names; a gene in both is left out. Where the libraries have weights, they
    are scaled to a mean size of one in each signature.
    """
    place = {name: i for i, name in enumerate(down.names)}
    rows = [(i, place[name]) for i, name in enumerate(up.names) if name in place]
    genes, weights = [], []
    for i, j in rows:
        sides = [_row(up, i), _row(down, j)]
        both = set(sides[0][0]) & set(sides[1][0])
        kept = [(g, s * abs(w)) for s, (names, values) in zip((1, -1), sides, strict=True)
                for g, w in zip(names, values, strict=True) if g not in both]  # fmt: skip
        size = np.mean([abs(w) for _, w in kept])
        genes.append([g for g, _ in kept])
        weights.append([w / size for _, w in kept])
    library = str(up.libraries[0]).removesuffix("_up")
    return GeneSets.from_lists(genes, [up.names[i] for i, _ in rows], library, weights)


def signature(
    genes: Sequence[str],
    log_fold_change: Sequence[float],
    p: Sequence[float] | None = None,
    n: int = 250,
    name: str = "own",
) -> GeneSets:
    """Make one signature of a table of differential expression.

    A gene's weight is its log fold change, or with p-values that times -log10(p), the "π-value" of Xiao et
    al. (2014, Bioinformatics), which asks for both. The `n` genes with the largest weights, up or down, are
    kept, and these scaled to a mean size of one, as :func:`signed_sets` does.

    Parameters
    ----------
    genes : sequence of str, shape (G,)
    log_fold_change, p : sequence of float, shape (G,)
        Genes where either is missing are left out. A p of 0 counts as the smallest number there is.
    n : int
    name : str

    Returns
    -------
    GeneSets
        One set, for a model with two channels.

    Raises
    ------
    ValueError
        For other lengths, p-values outside 0 to 1, or no gene with a weight.
    """
    weights = np.asarray(log_fold_change, dtype=float)
    if len(weights) != len(genes) or (p is not None and len(p) != len(genes)):
        raise ValueError(
            f"{len(genes)} genes, {len(weights)} log fold changes, {'no' if p is None else len(p)} p-values: "
            "there should be one for each gene"
        )
    if p is not None:
        p = np.asarray(p, dtype=float)
        if (p < 0).any() or (p > 1).any():
            raise ValueError(
                f"p-values reach from {np.nanmin(p):g} to {np.nanmax(p):g}: should lie in 0 to 1"
            )
        weights = weights * -np.log10(np.maximum(p, np.finfo(float).tiny))
    size = np.where(np.isfinite(weights), np.abs(weights), 0)
    kept = np.argsort(-size, kind="stable")[: min(n, int((size > 0).sum()))]
    if not len(kept):
        raise ValueError(f"{name}: no gene has a log fold change (and a p-value below 1)")
    return GeneSets.from_lists(
        [np.asarray(genes, dtype=str)[kept]], [name], weights=[weights[kept] / size[kept].mean()]
    )


def study_of(sets: GeneSets) -> np.ndarray:
    """Return the study of each set: the last word of its name, an accession where there is one."""
    return np.array([str(name).split()[-1] for name in sets.names])


def studies_held_out(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return which sets are held out, bool (n,): all of a fifth of the groups."""
    names = np.unique(groups)
    chosen = np.random.default_rng(seed).random(len(names)) < HELD_OUT
    return chosen[np.searchsorted(names, groups)]


def compare_signs(
    sets: GeneSets, seed: int = 0, epochs: int = 40, d_model: int = 128, arms: Sequence[str] = ARMS
) -> list[dict[str, Any]]:
    """Train one model per arm on signatures and score it on those of other studies.

    Parameters
    ----------
    sets : GeneSets
        With signed weights, see :func:`signed_sets`.
    seed : int
        Of held-out studies, and of models.
    epochs, d_model : int
        Of every model.
    arms : sequence of str

    Returns
    -------
    list of dict
        As of :func:`txfm_lite.evaluate.scores.partial`: `metric` is "AUROC", `variant` "which, <arm>" or
        "direction, <arm>", `null` 0.5, `n` held-out signatures.
    """
    out = studies_held_out(study_of(sets), seed)
    train, test = sets[~out], sets[out]
    seen = np.bincount(train.indices, minlength=len(sets.genes)) > 0
    universe = sets.genes[seen]
    train, test = train.over(universe), test.over(universe)
    shown, hidden = show_halves(test)
    scored = {"popularity": _popular(train, len(test))}
    for arm in arms:
        model = _trained(
            _as_arm(train, arm), universe, 2 if arm.startswith("signed") else 1, seed, epochs, d_model
        )
        scored[arm] = _score(model, shown, arm)
    rows = []
    for arm, (which, direction) in scored.items():
        found = _which(which, shown, hidden)
        rows.append(_row_of(found, f"which, {arm}"))
        if direction is not None:
            rows.append(_row_of(_direction(direction, hidden), f"direction, {arm}"))
    return rows


def compare_vocabularies(
    sets: GeneSets, coding: np.ndarray, seed: int = 0, epochs: int = 20, d_model: int = 128
) -> list[dict[str, Any]]:
    """Train with protein-coding genes alone and with all, and score hidden coding genes of held-out sets.

    Parameters
    ----------
    sets : GeneSets
        Held out are a fifth of them; asked about are those with five non-coding genes and ten coding ones.
    coding : ndarray of bool, shape (G,)
        Which of ``sets.genes`` are protein-coding.
    seed, epochs, d_model
        As for :func:`compare_signs`.

    Returns
    -------
    list of dict
        As there; variants "which, coding genes", "which, all genes", "which, popularity".
    """
    out = studies_held_out(np.arange(len(sets)), seed)
    train, test = sets[~out], sets[out]
    test = test[(_count(test, ~coding) >= LEAST) & (_count(test, coding) >= 2 * LEAST)]
    shown, hidden = show_halves(test)
    universe = sets.genes[coding]
    hidden, given = hidden.over(universe), shown.over(universe)
    scored = {"popularity": np.bincount(train.over(universe).indices, minlength=len(universe))}
    scored["popularity"] = np.broadcast_to(
        scored["popularity"].astype(np.float32), (len(test), len(universe))
    )
    for arm, vocabulary in (("coding genes", universe), ("all genes", sets.genes)):
        some = train.over(vocabulary)
        model = _trained(some[some.sizes > 0], vocabulary, 1, seed, epochs, d_model)
        which, _ = _score(model, shown.over(vocabulary), "no sign")
        scored[arm] = which if arm == "coding genes" else which[:, coding]
    return [_row_of(_which(which, given, hidden), f"which, {arm}") for arm, which in scored.items()]


def show_halves(sets: GeneSets) -> tuple[GeneSets, GeneSets]:
    """Return the shown and the hidden half of each set, as everywhere (:mod:`.set_splits`); weights stay."""
    (shown,) = set_splits.lots(sets, 1)
    return sets.where(shown), sets.where(~shown)


def _as_arm(sets: GeneSets, arm: str) -> GeneSets:
    """Return signatures as an arm is given them."""
    if arm == "no sign":
        return replace(sets, weights=None)
    if arm == "two lists":
        sides = concatenate(
            [replace(sets.where(side), weights=None) for side in (sets.weights > 0, sets.weights < 0)]
        )
        sides = sides.over(sets.genes)
        return sides[sides.sizes > 0]
    return replace(sets, weights=np.sign(sets.weights)) if arm == "signed" else sets


def _trained(
    sets: GeneSets, universe: np.ndarray, channels: int, seed: int, epochs: int, d_model: int
) -> GSFM:
    config = GSFMConfig(len(universe) + len(SPECIALS), d_model=d_model, channels=channels)
    schedule = GSFMTrainConfig(epochs=epochs, batch_size=BATCH, seed=seed, look_every=epochs)
    with tempfile.TemporaryDirectory() as folder:
        run = fit(
            sets, config, schedule, Path(folder) / "run", genes=universe, progress=False, accelerator="cpu"
        )
        return run.model


@torch.no_grad()
def _score(model: GSFM, shown: GeneSets, arm: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return how likely each gene is a member, and how much rather up than down, each (n, G)."""
    first = len(SPECIALS)
    if arm == "two lists":
        sides = [shown.where(shown.weights > 0), shown.where(shown.weights < 0)]
        up, down = (_logits(model, replace(side, weights=None))[:, 0, first:] for side in sides)
    else:
        logits = _logits(model, _as_arm(shown, arm))
        up, down = logits[:, 0, first:], logits[:, -1, first:]
    return np.maximum(up, down), None if arm == "no sign" else up - down


def _logits(model: GSFM, sets: GeneSets) -> np.ndarray:
    """Return logits of both channels, (n, channels, V)."""
    config, device = model.config, next(model.parameters()).device
    tokens = tokenise_sets(sets, model.genes, config.channels)
    parts = [
        model(*tokens.bags(rows, device)).view(len(rows), config.channels, -1).cpu().numpy()
        for rows in np.array_split(np.arange(len(tokens)), len(tokens) // 128 + 1)
    ]
    return np.concatenate(parts)


def _popular(train: GeneSets, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return number of signatures with each gene, and how many more up than down, for n questions alike."""
    up, down = (
        np.bincount(train.indices[side], minlength=len(train.genes)).astype(np.float32)
        for side in (train.weights > 0, train.weights < 0)
    )
    return tuple(np.broadcast_to(x, (n, len(x))) for x in (up + down, up - down))


def _which(scores: np.ndarray, shown: GeneSets, hidden: GeneSets) -> np.ndarray:
    """Return the AUROC of each set's hidden genes among all that are not shown."""
    candidates = shown.csr().toarray() == 0
    wanted = replace(hidden, weights=None).csr()
    return rank_measures(np.asarray(scores, dtype=np.float32), wanted, candidates)[:, 0]


def _direction(scores: np.ndarray, hidden: GeneSets) -> np.ndarray:
    """Return the AUROC of hidden genes that go up against hidden genes that go down."""
    from sklearn.metrics import roc_auc_score

    found = np.full(len(hidden), np.nan)
    for i in range(len(hidden)):
        here = slice(hidden.indptr[i], hidden.indptr[i + 1])
        up = hidden.weights[here] > 0
        if up.any() and not up.all():
            found[i] = roc_auc_score(up, scores[i, hidden.indices[here]])
    return found


def _row_of(values: np.ndarray, variant: str) -> dict[str, Any]:
    n = int(np.isfinite(values).sum())
    return partial("AUROC", float(np.nanmean(values)), variant=variant, null=0.5, n=n)


def _count(sets: GeneSets, genes: np.ndarray) -> np.ndarray:
    """Return how many of some genes, bool (G,), each set has."""
    rows = np.repeat(np.arange(len(sets)), sets.sizes)
    return np.bincount(rows[genes[sets.indices]], minlength=len(sets))


def _row(sets: GeneSets, i: int) -> tuple[np.ndarray, np.ndarray]:
    here = slice(sets.indptr[i], sets.indptr[i + 1])
    weights = np.ones(here.stop - here.start) if sets.weights is None else sets.weights[here]
    return sets.members(i), weights
