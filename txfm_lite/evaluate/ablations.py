"""Scores of an ablation's model, and the statistics by which settings are compared with the default.

The TxFM paper compares three scores: the share of consistent perturbations (a two-proportion z test), and the
recall of known relationships by codebook and decoder vectors (a t test over draws of the null), each
corrected after Benjamini and Hochberg within a score. Here:

- *perturbations* are those of screens that nothing was trained on. By the paper's test of consistency none or
  all are significant at our scale, so that the share compared is that against permuted labels, with at most
  :data:`CELLS` cells each; the paper's stands beside it. The z test takes perturbations for independent draws
  and counts each once, with its mean outcome over seeds.
- the t test is Welch's, over *seeds*: whole trainings, not draws of a null. So is every interval. A setting
  agrees with the paper if the sign of its difference does and the interval excludes zero.
- losses in different units are compared by one thing that all models predict, the normalised counts of
  validation batches: the share of the Poisson loss between mean profile and perfect prediction.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import results
from . import alignment, cells, consistency, genes, scores
from .scores import partial

if TYPE_CHECKING:
    import pandas as pd

    from ..ablate_data import Prepared, Study
    from ..corpus import Corpus
    from ..txfm import TxFM

#: Panel of the paper's table -> its name among the published results, in the order in which they are run.
PANELS = {
    "a": "loss", "f": "activation", "b": "preprocessing", "c": "genes shown", "h": "training data",
    "d": "masking temperature", "e": "decoder", "g": "size",
}  # fmt: skip
CELLS = 50  # of a perturbation, for the share against permuted labels: with all of them, nearly all differ
AXES = {"codebook": 32, "decoder": 256}  # the paper's; all there are in a narrow model
N_VALIDATION = 512  # samples
LEVEL = 0.95
#: The paper's three scores: name -> (metric, variant) of our rows, of the printed ones, and the test.
THREE = {
    "perturbations": (("p.cst permuted", ""), ("p.cst", ""), "z"),
    "codebook": (("recall", "codebook"), ("recall", "codebook"), "t"),
    "decoder": (("recall", "decoder"), ("recall", "decoder"), "t"),
}
#: Further scores to read them with: name -> (metric, variant).
BESIDE = {
    "reconstruction": ("Poisson explained", ""),
    "cell types": ("kNN", ""),
    "perturbations, paper's test": ("p.cst", ""),
    "perturbations, percentile": ("p.cst percentile", ""),
    "decoder, all axes": ("recall", "decoder, most axes"),
}


def score(
    model: TxFM | None, name: str, prepared: Prepared, corpus: Corpus, seed: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Score a model in every way.

    Parameters
    ----------
    model : TxFM or None
        None, for a training that left nothing: a single row without a value.
    name : str
        Of the setting.
    prepared : Prepared
    corpus : Corpus
        What it was trained on.
    seed : int
        Of the nulls, and of the draws of cells and of hidden genes.

    Returns
    -------
    rows : list of dict
        "Poisson explained" on validation batches; "recall", variants "codebook" and "decoder", both on 32
        axes, and "decoder, most axes"; "kNN" across batches of held-out cell types; per screen "p.cst" (the
        paper's test, on its alignment), "p.cst percentile" (mean of 1 - p) and "p.cst permuted"; and as
        dataset "all" the mean of the paper's three scores, perturbations over unseen screens.
    p : dict
        Screen -> perturbation -> its p against permuted labels.
    """
    from ..embed import gene_vectors

    if model is None:
        return scores.complete([partial("Poisson explained", np.nan)], corpus.path.name, name, seed), {}
    found = scores.complete([explained(model, corpus, seed)], "validation batches", name, seed)
    vectors = gene_vectors(model)
    for part in AXES:
        found += scores.complete(
            _recall(part, vectors[part], prepared.pairs, seed), "relationships", name, seed
        )
    for dataset in prepared.info["cell_types"]:
        study = prepared.study(dataset)
        row = cells.knn(embed(model, study), study.labels, study.batches)
        found += scores.complete([row], dataset, name, seed)
    p = {}
    for dataset in prepared.info["screens"]:
        study = prepared.study(dataset)
        rows, p[dataset] = perturbed(embed(model, study), study, seed)
        found += scores.complete(rows, dataset, name, seed)
    return found + scores.complete([_mean_of_three(found, prepared)], "all", name, seed), p


def embed(model: TxFM, study: Study) -> np.ndarray:
    """Return a study's embeddings, all measured genes shown: float32, shape (n, d)."""
    from ..inference import encode_rows

    arrays = study.indptr, study.indices, study.counts, study.library_size, study.measured
    return encode_rows(model, *arrays)


def perturbed(values: np.ndarray, study: Study, seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Score the consistency of a screen's perturbations, as partial rows, and return each one's p."""
    labels, controls, batches = study.labels, study.controls, study.batches
    x = alignment.control_axes(values, batches, controls)
    order = np.random.default_rng([seed, 2]).permutation(len(x))
    single, scrambled = (
        consistency.against_single_cells(x[rows], labels, controls, seed=seed)["p"]
        for rows in (slice(None), order)
    )
    drawn = few(labels, controls, seed)
    permuted = consistency.against_permutations(
        x[drawn], labels[drawn], controls[drawn], batches[drawn], seed=seed
    )["p"]
    return [
        partial("p.cst", (single < 0.01).mean(), null=(scrambled < 0.01).mean(), n=len(single)),
        partial("p.cst percentile", 1 - single.mean(), null=1 - scrambled.mean(), n=len(single)),
        partial("p.cst permuted", (permuted <= 0.01).mean(), null=0.01, n=len(permuted)),
    ], permuted.to_dict()


def few(labels: np.ndarray, controls: np.ndarray, seed: int, most: int = CELLS) -> np.ndarray:
    """Return rows, sorted: at most so many random cells of each perturbation, and all controls."""
    import pandas as pd

    order = np.random.default_rng([seed, 5]).permutation(len(labels))
    place = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    return np.sort(order[(place < most) | controls[order]])


def explained(model: TxFM, corpus: Corpus, seed: int) -> dict[str, Any]:
    """Return how well a model predicts the normalised counts of validation batches, as a partial row.

    (floor - loss) / (floor - perfect) of the Poisson loss over all measured genes, whatever was trained
    with; the floor is the mean profile. A model of raw counts is judged by its counts scaled to the library.
    """
    import torch

    from ..objectives import LIBRARY_SIZE, poisson_loss
    from ..pretraining import mean_profile
    from ..txfm import log_normalise, reveal

    rows = np.random.default_rng(0).permutation(corpus.rows("validation"))[:N_VALIDATION]
    counts = torch.from_numpy(corpus.csr(rows).toarray())
    totals = torch.from_numpy(corpus.library_size[rows]).float()
    measured = torch.from_numpy(corpus.measured[corpus.dataset[rows]])
    model = model.cpu().eval()
    with torch.inference_mode():
        values = model.normalise(counts, totals)
        generator = torch.Generator().manual_seed(seed)
        shown = reveal(measured, model.config.n_revealed, generator)
        log_rate = model.decode(model.encode(values.gather(1, shown[0]), *shown), measured)
        if model.config.preprocessing == "log1p":
            log_rate = torch.log1p(torch.expm1(log_rate) * (LIBRARY_SIZE / totals)[:, None])
        x = log_normalise(counts, totals)
        profile = torch.from_numpy(np.log1p(mean_profile(corpus, LIBRARY_SIZE))).float()
        loss, floor, perfect = (
            poisson_loss(guess, x, measured).item() for guess in (log_rate, profile.expand_as(x), x)
        )
    share = (floor - loss) / (floor - perfect)
    return partial("Poisson explained", share if np.isfinite(share) else np.nan, null=0.0, n=len(rows))


def _recall(
    part: str, vectors: pd.DataFrame, pairs: dict[str, pd.DataFrame], seed: int
) -> list[dict[str, Any]]:
    """Return the recall of any database's pairs by one kind of gene vector."""
    axes = sorted({genes.DIMENSION, AXES[part]})
    found = {row["variant"]: row for row in genes.evaluate(vectors, pairs, dimensions=axes, seed=seed)}
    names = dict(zip(axes, (part, f"{part}, most axes"), strict=False))
    return [found[f"union, PCA {k}"] | {"variant": name} for k, name in names.items()]


def _mean_of_three(rows: list[dict[str, Any]], prepared: Prepared) -> dict[str, Any]:
    wanted = [((metric, variant), prepared.info["unseen"]) for (metric, variant), _, _ in THREE.values()]
    parts = [
        np.mean([r["value"] for r in rows if (r["metric"], r["variant"]) == of
                 and (r["metric"] == "recall" or r["dataset"] in unseen)])
        for of, unseen in wanted
    ]  # fmt: skip
    return partial("mean of three", float(np.mean(parts)), n=len(parts))


def two_proportions(k: float, n: int, l: float, m: int) -> tuple[float, float]:  # noqa: E741
    """Test whether two shares k / n and l / m differ; return z and the two-sided p, 0 and 1 if all are alike.

    The variance is that of the pooled share, as in the usual two-proportion z test.
    """
    from scipy.stats import norm

    pooled = (k + l) / (n + m)
    sd = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    z = (k / n - l / m) / sd if sd > 0 else 0.0
    return float(z), float(2 * norm.sf(abs(z)))


def over_seeds(ours: np.ndarray, default: np.ndarray) -> tuple[float, float, float, float]:
    """Return the difference of two means, its 95 % interval and the two-sided p of Welch's t test.

    The interval is nan with fewer than two seeds on a side, and p is 1 where nothing can be told. Seeds that
    do not differ at all leave an interval without width.
    """
    from scipy.stats import ttest_ind

    difference = float(np.mean(ours) - np.mean(default))
    if min(len(ours), len(default)) < 2:
        return difference, np.nan, np.nan, 1.0
    if np.ptp(ours) == np.ptp(default) == 0:
        return difference, difference, difference, float(difference == 0)
    with warnings.catch_warnings():  # seeds of one side may score alike: nothing is lost
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = ttest_ind(ours, default, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    return difference, float(low), float(high), float(test.pvalue)


def compare(rows: pd.DataFrame, metric: str, variant: str = "", *, test: str = "t") -> pd.DataFrame:
    """Compare every setting with the default by one score.

    Parameters
    ----------
    rows : DataFrame
        Stored rows, of :func:`txfm_lite.results.read`. Of screens only unseen ones count.
    metric, variant : str
    test : str
        "t", over seeds; or "z" for a share: a perturbation counts once, with its mean outcome over seeds.

    Returns
    -------
    DataFrame, indexed by panel and setting
        `ours`, `default`, `difference`, `low`, `high` (over seeds), `seeds` (the fewer of the two), `p` of
        the test and `q`, corrected over all settings after Benjamini and Hochberg. Empty without the default.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control

    here = rows[(rows["metric"] == metric) & (rows["variant"] == variant) & rows["value"].notna()]
    if metric.startswith("p.cst"):
        here = here[
            [dataset in unseen for dataset, unseen in zip(here["dataset"], here["unseen"], strict=True)]
        ]
    groups = {key: part for key, part in here.groupby(["panel", "model"], sort=False)}
    found = {}
    if default := {key: groups.pop(key) for key in list(groups) if key[0] == "default"}:
        (default,) = default.values()
        for key, ours in groups.items():
            a, b = (part.groupby("seed")["value"].mean().to_numpy() for part in (ours, default))
            difference, low, high, p = over_seeds(a, b)
            if test == "z":
                hits = [part.assign(k=part["value"] * part["n"]).groupby("dataset")[["k", "n"]].mean().sum()
                        for part in (ours, default)]  # fmt: skip
                p = two_proportions(*(x for h in hits for x in (h["k"], h["n"])))[1]
            found[key] = [a.mean(), b.mean(), difference, low, high, min(len(a), len(b)), p]
    columns = ["ours", "default", "difference", "low", "high", "seeds", "p"]
    index = pd.MultiIndex.from_arrays(np.array(list(found), dtype=object).reshape(-1, 2).T)
    frame = pd.DataFrame(list(found.values()), index.set_names(["panel", "setting"]), columns)
    return frame.assign(q=false_discovery_control(frame["p"]) if len(frame) else [])


def table(rows: pd.DataFrame, printed: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return every setting's three scores beside the paper's.

    Parameters
    ----------
    rows : DataFrame
        As :func:`txfm_lite.results.read` returns them.
    printed : DataFrame, optional
        As for :func:`in_print`.

    Returns
    -------
    DataFrame, indexed by panel, setting and score
        What :func:`compare` returns, `paper` (its difference from the default; nan where there is no
        counterpart), `paper significant`, and `verdict`, see :func:`agreement`.
    """
    import pandas as pd

    theirs = in_print(printed)
    names = rows.groupby(["panel", "model"])["paper"].first()
    frames = {}
    for name, (of, _, test) in THREE.items():
        found = compare(rows, *of, test=test)
        keys = [(panel, names[panel, setting], name) for panel, setting in found.index]
        found["paper"] = [theirs["difference"].get(k, np.nan) for k in keys]
        found["paper significant"] = [bool(theirs["significant"].get(k, False)) for k in keys]
        found["verdict"] = [agreement(*x) for x in found[["paper", "difference", "low", "high"]].to_numpy()]
        frames[name] = found
    return pd.concat(frames, names=["score"]).reorder_levels(["panel", "setting", "score"])


def in_print(printed: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the paper's differences from its default.

    Parameters
    ----------
    printed : DataFrame, optional
        The paper's table; by default ``published/kenyondean2026/table-5``.

    Returns
    -------
    DataFrame, indexed by panel, setting as it is called there, and score
        `difference` and `significant`.
    """
    import pandas as pd

    printed = results.read("published/kenyondean2026/table-5") if printed is None else printed
    letters, frames = {name: letter for letter, name in PANELS.items()}, {}
    for name, (_, theirs, _) in THREE.items():
        part = printed[(printed["metric"] == theirs[0]) & (printed["variant"] == theirs[1])]
        default, others = part[part["default"]], part[~part["default"]]
        index = [others["dataset"].map(letters), others["model"]]
        frame = (
            others[["value", "significant"]].set_axis(index).set_axis(["difference", "significant"], axis=1)
        )
        frames[name] = frame.assign(difference=frame["difference"] - default["value"].mean())
    both = pd.concat(frames, names=["score", "panel", "setting"])
    return both.reorder_levels(["panel", "setting", "score"])


def agreement(paper: float, difference: float, low: float, high: float) -> str:
    """Say whether a difference goes where the paper's goes.

    "direction holds" or "contradicted" if the interval over seeds excludes zero; "not at our scale" if it
    does not, or there is none; "not in the paper" if the paper has no such setting, or no difference.
    """
    if not paper or np.isnan(paper):  # nan is true
        return "not in the paper"
    if np.isnan(low) or low <= 0 <= high:
        return "not at our scale"
    return "direction holds" if np.sign(difference) == np.sign(paper) else "contradicted"


def curves(study: str, folder: Path | None = None) -> pd.DataFrame:
    """Return what the runs of a study logged at each look, with `panel`, `model` and `seed`."""
    import pandas as pd

    found = []
    for file in sorted(((folder or results.directory()) / study).rglob("*.json")):
        content = json.loads(file.read_text())
        first, about = content["rows"][0], content["provenance"]
        names = {
            "model": first["model"],
            "seed": first["seed"],
            "panel": about["panel"],
            "diverged": about["diverged"],
        }
        found += [names | look for look in content["history"]]
    return pd.DataFrame(found)
