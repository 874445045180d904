"""Four questions about a gene set model that one trained model cannot answer.

==================  ======================================================================================
study               question
==================  ======================================================================================
genesets-size       how do results grow with the number of training sets?
genesets-leakage    what is left when training sets that resemble a tested term are taken out?
genesets-time       who finds the genes that the next version of a library added?
genesets-choices    what to hide, what to predict, how to weigh: judged on training sets that are held out
==================  ======================================================================================

Each trained model is one run, stored as one file of ``results/<study>/``; what is stored is not run again,
and training that was interrupted goes on. The three rivals that are fitted in seconds go the same way. All
models of a study know the same genes, those in which it searches.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import results, set_rivals
from .evaluate import genesets as benchmark
from .evaluate import scores, set_splits
from .genesets import GeneSets, simulated
from .gsfm_training import GSFMTrainConfig, Run, hold_out, train_on

log = logging.getLogger("txfm_lite")

SIZES = (300, 1000, 3000, 10_000)  # and all
THRESHOLDS = (1.0, 0.8, 0.6, 0.4, 0.2)
MORE = 4  # times as many epochs, at most, for fewer sets
HELD_OUT = 0.1  # share of the training sets on which choices are judged
FEW = 10  # genes shown of them, beside one half: terms are shorter than training sets
MODELS = ("DAE", "kNN", "SVD", "popularity")
HALF = {"partition": 0.5}
WIDE = {"d_model": 192, "learning_rate": 3e-3}
WHOLE = HALF | {"target": "whole"}
ANY = {"partition": 0.95, "hiding": "up to", "target": "whole"}
# What won; stored and shipped models are trained so. The published schedule follows single batches, whose
# losses go up and down with what is hidden, and ends learning too soon.
CHOSEN = WIDE | ANY | {"dropout": 0.0, "cooldown": 0.25}
PUBLISHED = "nothing hidden (the published model)"
#: What can be chosen -> fields of the model's config, or of the schedule.
#: "Published" are those that do not do what they were meant to.
CHOICES: dict[str, dict[str, Any]] = {
    PUBLISHED: {},
    "nothing hidden, no dropout": {"dropout": 0.0},
    "nothing hidden, balanced": {"weighting": "balance"},
    "nothing hidden, three times the learning rate": {"learning_rate": 3e-3},  # below: "faster"
    "half hidden, predict the hidden (published)": HALF,
    "half hidden, predict the hidden, unseen (published)": HALF | {"weighting": "unseen"},
    "half hidden, predict the hidden, unseen masked": HALF | {"weighting": "unseen_masked"},
    "half hidden, predict the whole": WHOLE,
    "a fifth hidden, predict the whole": {"partition": 0.2, "target": "whole"},
    "nine tenths hidden, predict the whole": {"partition": 0.9, "target": "whole"},
    "up to 95 % hidden, predict the whole": ANY,
    "d 192, faster": WIDE,
    "d 192, faster, half hidden, predict the whole": WIDE | WHOLE,
    "d 192, faster, up to 95 % hidden, predict the whole, no dropout": CHOSEN | {"cooldown": 0.0},
    "d 192, faster, up to 95 % hidden, predict the whole, no dropout, cooling down": CHOSEN,
    "EDAE": {"architecture": "EDAE"},
    "mEDAE": {"architecture": "mEDAE"},
    "EPDAE": {"architecture": "EPDAE"},
    "VAE": {"architecture": "VAE"},
    "VAE, proper objective": {"architecture": "VAE", "elbo": "proper"},
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the models of a study are made: those of the stored results by :func:`recipe`.

    Attributes
    ----------
    runs : path
        Where training runs lie, one folder each.
    fields : dict
        Of :class:`~txfm_lite.gsfm.GSFMConfig`, beside ``n_tokens``.
    schedule : GSFMTrainConfig
        Its seed is that of each run.
    trainer : dict
        Further arguments of :func:`~txfm_lite.gsfm_training.train_on`.
    """

    runs: Path
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    schedule: GSFMTrainConfig = dataclasses.field(default_factory=GSFMTrainConfig)
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)

    def facts(self, model: str, **schedule: Any) -> dict[str, Any]:
        """Return what a result should say about how its model was trained."""
        if model != "DAE":
            return {}
        how = dataclasses.replace(self.schedule, **schedule)
        return {"epochs": how.epochs, "learning_rate": how.learning_rate, "fields": self.fields}

    def train(self, sets: GeneSets, universe: np.ndarray, name: str, seed: int, **schedule: Any) -> Run:
        """Train on the sets, over the genes of the universe; return the run."""
        how = dataclasses.replace(self.schedule, seed=seed, **schedule)
        path = Path(self.runs) / f"{slug(name)}-seed{seed}"
        return train_on(sets, universe, how, path, shape=self.fields, progress=False, **self.trainer)

    def predictor(
        self, model: str, sets: GeneSets, universe: np.ndarray, name: str, seed: int, **schedule: Any
    ) -> Callable:
        """Return a predictor fitted on the sets: one of :data:`MODELS`."""
        make = {
            "DAE": lambda: set_rivals.from_model(
                self.train(sets, universe, name, seed, **schedule).model, universe
            ),
            "kNN": lambda: set_rivals.neighbours(sets, universe),
            "SVD": lambda: set_rivals.svd(sets, universe, seed=seed),
            "popularity": lambda: set_rivals.popularity(sets, universe),
        }
        if model not in make:
            raise ValueError(f"no model is called {model!r}; there are {', '.join(make)}")
        return make[model]()


def recipe(study: str, runs: Path, **changes: Any) -> Recipe:
    """Return how the models of a study's stored results are made.

    A study takes many models. So they are narrower than the best one and see the sets fewer times.

    Parameters
    ----------
    study : {"size", "leakage", "time", "choices"}
        Choices are changes of the published model; models of the others are trained as won among them.
    runs : path
        Where training runs lie.
    **changes
        Fields of the model's config, or of the schedule.
    """
    fields = {"d_model": 64, "epochs": 20} if study == "choices" else CHOSEN | {"d_model": 128, "epochs": 10}
    shape, schedule = divided(fields | changes)
    return Recipe(runs, shape, GSFMTrainConfig(precision="auto", **schedule))


def store_all(
    recipe: Recipe,
    judge: Recipe,
    train: GeneSets,
    unfiltered: GeneSets,
    tests: Mapping[str, GeneSets],
    pairs: Mapping[str, tuple[GeneSets, GeneSets]],
    universe: np.ndarray,
    *,
    sizes: Sequence[int] = SIZES,
    thresholds: Sequence[float] = THRESHOLDS,
    choices: Mapping[str, Mapping[str, Any]] = CHOICES,
    seeds: Sequence[int] = (0,),
    tier: str = "clean",
    folder: Path | None = None,
) -> None:
    """Make the four studies, as far as they are not stored.

    `judge` is the recipe of the choices, `recipe` that of the others; `unfiltered` and its `tier` are for
    leakage.
    """
    store_size(recipe, train, tests, universe, sizes, seeds, folder=folder)
    store_leakage(recipe, unfiltered, tests, universe, thresholds, seeds, tier=tier, folder=folder)
    whole = f"size-{len(train)}"  # the same run
    for seed in seeds:
        fits = {
            model: lambda m=model, s=seed: recipe.predictor(m, train, universe, whole, s) for model in MODELS
        }
        store_time(fits, pairs, universe, seed, folder, n_train=len(train))
    store_choices(judge, train, universe, choices, seeds, folder)


def store_size(
    recipe: Recipe,
    train: GeneSets,
    tests: Mapping[str, GeneSets],
    universe: np.ndarray,
    sizes: Sequence[int] = SIZES,
    seeds: Sequence[int] = (0,),
    models: Sequence[str] = MODELS,
    folder: Path | None = None,
) -> None:
    """Fit every model on random parts of the training sets, nested within a seed, and on all of them.

    Fewer sets make fewer steps in an epoch. So that they are not simply trained less, they get more epochs:
    as many steps as all sets, but no more than :data:`MORE` times the epochs.
    """
    asked = _questions(tests)
    batch, epochs = recipe.schedule.batch_size, recipe.schedule.epochs
    steps = epochs * -(-len(train) // batch)
    for seed in seeds:
        order = np.random.default_rng([seed, 80]).permutation(len(train))
        for size in [*(n for n in sizes if n < len(train)), len(train)]:
            part = train[np.sort(order[:size])]
            longer = max(epochs, min(MORE * epochs, steps // -(-size // batch)))
            for model in models:
                name = f"{slug(model)}-{size}"
                facts = {"n_train": size} | recipe.facts(model, epochs=longer)
                _store(
                    f"genesets-size/{name}-seed{seed}",
                    lambda m=model, p=part, n=size, s=seed, e=longer: recipe.predictor(
                        m, p, universe, f"size-{n}", s, epochs=e
                    ),
                    asked, universe, folder, model=model, seed=seed, variant=str(size), facts=facts,
                )  # fmt: skip


def store_leakage(
    recipe: Recipe,
    train: GeneSets,
    tests: Mapping[str, GeneSets],
    universe: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
    seeds: Sequence[int] = (0,),
    models: Sequence[str] = ("DAE", "kNN"),
    measure: str = "jaccard",
    tier: str = "clean",
    folder: Path | None = None,
) -> None:
    """Take out training sets that resemble a tested term, ever more strictly; beside it, as many at random.

    Fewer sets are a worse training corpus for that reason alone: what counts is the distance between
    "<model>" and "<model>, as many at random". `train` should come unfiltered, from
    ``genesets.training(tier, threshold=1.0)``; a threshold of 1 takes out copies only. Models of another tier
    than "clean" have it in their names.
    """
    asked = _questions(tests)
    of = "" if tier == "clean" else f" ({tier})"
    for seed in seeds:
        for threshold, parts in benchmark.leakage_parts(train, tests, thresholds, measure, seed):
            for model, (label, rows) in itertools.product(models, parts.items()):
                label = f"{model}{of}{label}"
                name = f"{slug(measure)}-{threshold}-{slug(label)}"
                _store(
                    f"genesets-leakage/{name}-seed{seed}",
                    lambda m=model, r=rows, n=name, s=seed: recipe.predictor(
                        m, train[r], universe, f"leakage-{n}", s
                    ),
                    asked, universe, folder, model=label, seed=seed, variant=str(threshold),
                    facts={"n_train": len(rows), "measure": measure, "tier": tier} | recipe.facts(model),
                )  # fmt: skip


def store_time(
    predictors: Mapping[str, Callable[[], Callable]],
    pairs: Mapping[str, tuple[GeneSets, GeneSets]],
    universe: np.ndarray,
    seed: int = 0,
    folder: Path | None = None,
    **facts: Any,
) -> None:
    """Show the genes that terms had, hide those that a later version added.

    `predictors` names functions that fit one; to them comes popularity in the old version, which needs no
    fit. `pairs` are those of :func:`txfm_lite.genesets.time_splits`, `facts` go to the provenance.
    """
    asked = {name: set_splits.time_split(*pair) for name, pair in pairs.items()}
    for model, make in predictors.items():
        _store(
            f"genesets-time/{slug(model)}-seed{seed}", make, asked, universe, folder,
            model=model, seed=seed, variant="", facts=facts,
        )  # fmt: skip
    old = "popularity in the old version"
    for name, (before, _) in pairs.items():
        _store(
            f"genesets-time/{slug(old)}-{slug(name)}-seed{seed}",
            lambda b=before: set_rivals.popularity(b, universe), {name: asked[name]}, universe, folder,
            model=old, seed=seed, variant="", facts=facts,
        )  # fmt: skip


def store_choices(
    recipe: Recipe,
    train: GeneSets,
    universe: np.ndarray,
    choices: Mapping[str, Mapping[str, Any]] = CHOICES,
    seeds: Sequence[int] = (0,),
    folder: Path | None = None,
) -> None:
    """Train with each choice and score training sets that were held out, the same for all.

    One half of each is shown; for "AUROC, few shown" ten genes, as terms are shorter than training sets. No
    benchmark library is looked at: the published shape may be compared with what wins here. Choices of what
    the DAE hides are variants of the model "DAE"; other architectures, of which none hides anything, are
    models of their own.
    """
    known = train.over(universe)
    known = known[known.sizes > 0]
    out, rest = hold_out(len(known), HELD_OUT)
    out = np.sort(out[known.sizes[out] >= 2 * FEW][: recipe.schedule.n_validation])
    popular = set_rivals.popularity(known[rest], universe)
    for seed in seeds:
        for choice, fields in choices.items():
            where = f"genesets-choices/{slug(choice)}-seed{seed}"
            shape, schedule = divided(fields)
            own = dataclasses.replace(recipe, fields=recipe.fields | shape)
            facts = {"epochs": own.schedule.epochs, "fields": own.fields | schedule}
            if results.stored(where, folder, **facts):
                continue
            run = own.train(known, universe, f"choice-{choice}", seed, validation=HELD_OUT, **schedule)
            last = run.history.iloc[-1]
            looked_at = min(own.schedule.n_validation, round(HELD_OUT * len(known)))
            model, variant = (choice, PUBLISHED) if "architecture" in fields else ("DAE", choice)
            of_model = set_rivals.from_model(run.model, universe)
            judged = ((model, of_model, "auroc"), ("popularity", popular, "popularity"))
            rows = [
                scores.partial(metric, value, variant=variant, null=0.5, n=n) | {"model": name}
                for name, predict, column in judged
                for metric, value, n in (
                    ("AUROC", last[column], looked_at),
                    ("AUROC, few shown", few_shown(predict, known[out]), len(out)),
                )
            ]
            trained = json.loads((run.path / "model" / "config.json").read_text())["provenance"]["commit"]
            facts |= {"n_train": len(train), "trained_at": trained}  # a finished run is opened, not repeated
            rows = scores.complete(rows, dataset="held-out training sets", model="", seed=seed)
            results.write(where, rows, results.provenance(**facts), folder)
            log.info("%s, seed %d: AUROC %.3f", choice, seed, last["auroc"])


def few_shown(predict: Callable, sets: GeneSets) -> float:
    """Show :data:`FEW` genes of each set; return the mean AUROC of its others among all genes not shown."""
    import torch
    from sklearn.metrics import roc_auc_score

    member = (sets.csr() > 0).toarray()
    (lot,) = set_splits.lots(sets, 1, n_shown=FEW)
    shown = sets.where(lot).csr()
    with torch.random.fork_rng(devices=[]):  # a published VAE draws
        torch.manual_seed(set_splits.SEED)
        found = np.asarray(predict(shown))
    return float(np.mean([
        roc_auc_score(member[i][~given], found[i][~given]) for i, given in enumerate(shown.toarray() > 0)
    ]))  # fmt: skip


def stand_ins(
    seed: int = 0,
) -> tuple[GeneSets, dict[str, GeneSets], dict[str, tuple[GeneSets, GeneSets]]]:
    """Return simulated training sets, two libraries of the same modules, and two versions of one of them."""
    sets = simulated(600, 400, 25, seed)
    tests = {
        name: dataclasses.replace(part, libraries=np.full(len(part), name, dtype=object))
        for name, part in (("simulated A", sets[:70]), ("simulated B", sets[70:140]))
    }
    new, rng = tests["simulated A"], np.random.default_rng([seed, 82])
    earlier = [rng.permutation(m)[: len(m) * 3 // 5] for m in map(new.members, range(len(new)))]
    old = GeneSets.from_lists(earlier, new.names, "simulated A, older").over(new.genes)
    return sets[140:], tests, {"simulated A, two versions": (old, new)}


def growth(n: Sequence[int], values: Sequence[float], at: float) -> dict[str, float]:
    """Fit values by a straight line in the decimal logarithm of n, and follow it to another n.

    Returns
    -------
    dict
        ``slope``, per tenfold n; ``value`` at `at`; ``low`` and ``high``, its 95 % prediction interval by
        Student's t, which knows the scatter about the line, and not whether the line bends.

    Raises
    ------
    ValueError
        With fewer than three different n.
    """
    from scipy.stats import t

    x, y = np.log10(np.asarray(n, dtype=float)), np.asarray(values, dtype=float)
    if len(np.unique(x)) < 3:
        raise ValueError(f"{len(np.unique(x))} different sizes: a line and its scatter need three")
    slope, start = np.polyfit(x, y, 1)
    rest = np.sum((y - start - slope * x) ** 2) / (len(x) - 2)
    far = np.log10(at) - x.mean()
    spread = np.sqrt(rest * (1 + 1 / len(x) + far**2 / np.sum((x - x.mean()) ** 2)))
    value, width = start + slope * np.log10(at), t.ppf(0.975, len(x) - 2) * spread
    return {"slope": slope, "value": value, "low": value - width, "high": value + width}


def divided(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of a model's config, and those of its schedule."""
    known = {f.name for f in dataclasses.fields(GSFMTrainConfig)}
    schedule = {k: v for k, v in fields.items() if k in known}
    return {k: v for k, v in fields.items() if k not in known}, schedule


def slug(text: str) -> str:
    """Return a name for a file: lower case, everything but letters, digits and points a hyphen."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _questions(tests: Mapping[str, GeneSets]) -> dict[str, set_splits.Questions]:
    return {name: set_splits.splits(library) for name, library in tests.items()}


def _store(
    where: str,
    make: Callable[[], Callable],
    asked: Mapping[str, set_splits.Questions],
    universe: np.ndarray,
    folder: Path | None,
    *,
    model: str,
    seed: int,
    variant: str,
    facts: dict[str, Any],
) -> None:
    """Fit one predictor and store its scores on all libraries, unless they are stored."""
    how = ("epochs", "learning_rate", "fields", "tier", "n_train", "trained")
    if results.stored(where, folder, **{k: v for k, v in facts.items() if k in how}):
        return
    predict, rows = make(), []
    for name, questions in asked.items():
        found, _ = benchmark.evaluate(predict, questions, universe)
        rows += [
            {**scores.complete([row | {"variant": variant}], name, model, seed)[0],
             "low": row["low"], "high": row["high"]}
            for row in found if row["variant"] == ""
        ]  # fmt: skip
    results.write(where, rows, results.provenance(genes_in_universe=len(universe), **facts), folder)
    medians = [row["value"] for row in rows if row["metric"] == "AUROC"]
    log.info("%s: median AUROC, mean of %d libraries: %.3f", where, len(medians), np.mean(medians))
