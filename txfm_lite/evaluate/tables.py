"""From scores to the table that a paper prints: mean ± sd over seeds, best in bold, ranks, controls apart.

Printed averages hide two things: chance levels that differ from metric to metric, and models that were not
scored on everything. So two columns stand beside the plain mean: the mean after chance is taken out (0: no
information, 1: the best that can be reached) and the mean rank. Controls are shown but not ranked, and a
model that lacks a score which others have gets no mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .scores import chance_corrected

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

#: Models that are there to show what a score is without information or training: shown last, never ranked.
CONTROLS = (
    *("TxFM untrained", "rank untrained", "bin untrained"),
    *("depth", "constant", "scrambled", "random", "class prior"),
)

#: Columns that sum up a model, behind those of the scores.
SUMMARY = ("mean", "chance-corrected mean", "mean rank")

NO_BREAK = "\N{NO-BREAK SPACE}"  # on a narrow screen a table scrolls: a number is never cut in two


def label(metric: str, variant: str = "") -> str:
    """Return a score's name in tables: ``"NMI"``, or ``"p.cst (TVN)"`` for a variant."""
    return f"{metric} ({variant})" if variant else metric


def per_dataset(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one line per dataset, model and score, the seeds summed up.

    Parameters
    ----------
    rows : DataFrame
        Stored rows: dataset, model, metric, variant, value, seed, null, ceiling
        (:data:`txfm_lite.evaluate.scores.FIELDS`). Published ones have no seed and bring their sd.

    Returns
    -------
    DataFrame
        dataset, model, score, mean, sd (nan for one seed), seeds, corrected (mean of the chance-corrected
        values; nan where the null is unknown or is the ceiling), falling (whether lower is better: the
        ceiling lies below the null), and rank among the dataset's models (1 is best, ties share; nan for
        controls).

    Raises
    ------
    ValueError
        If a dataset, model, score and seed occur twice.
    """
    rows = rows.assign(score=[label(*pair) for pair in zip(rows["metric"], rows["variant"], strict=True)])
    key = ["dataset", "model", "score"]
    if (twice := rows.duplicated([*key, "seed"])).any():
        first = rows.loc[twice, [*key, "seed"]].iloc[0].to_dict()
        raise ValueError(f"{int(twice.sum())} scores occur twice, for example {first}")
    spread = rows["ceiling"] - rows["null"]
    rows["corrected"] = chance_corrected(rows["value"], rows["null"], rows["ceiling"]).where(spread != 0)
    rows["falling"] = spread < 0
    found = rows.groupby(key, sort=False).agg(
        mean=("value", "mean"), sd=("value", "std"), seeds=("seed", "nunique"),
        corrected=("corrected", "mean"), falling=("falling", "any"),
    ).reset_index()  # fmt: skip
    if "sd" in rows:  # rows in print are means already
        printed = rows.groupby(key, sort=False)["sd"].first().to_numpy()
        found["sd"] = found["sd"].where(found["seeds"] > 0, printed)
    goodness = found["mean"].where(~found["model"].isin(CONTROLS)) * np.where(found["falling"], -1, 1)
    found["rank"] = goodness.groupby([found["dataset"], found["score"]]).rank(ascending=False)
    return found


def numbers(rows: pd.DataFrame, metrics: Sequence[str] | None = None, *, apart: bool = False) -> pd.DataFrame:
    """Return means and standard deviations per model, and what sums them up.

    Parameters
    ----------
    rows : DataFrame
        Stored rows, of one dataset or several.
    metrics : sequence of str, optional
        Which scores, in the order of the columns: names as :func:`label` makes them. Default: all.
    apart : bool
        A column for each dataset and score instead of one per score with the mean over datasets.

    Returns
    -------
    DataFrame
        Index: models, by mean rank, controls last. Columns: (score, "mean") and (score, "sd"), then those of
        :data:`SUMMARY` that make sense: no plain mean of a single column or where low is good, no correction
        without nulls. The sd of a mean over datasets takes their seeds as independent. A dataset in which no
        model has a score does not count for that score. ``attrs["low is good"]`` names the columns where the
        ceiling lies below the null.

    Raises
    ------
    ValueError
        For a metric that no row has; the message lists those that are there.
    """
    import pandas as pd

    lines = per_dataset(rows)
    there = list(dict.fromkeys(lines["score"]))
    metrics = there if metrics is None else list(metrics)
    if unknown := [name for name in metrics if name not in there]:
        raise ValueError(f"no score is called {', '.join(map(repr, unknown))}; there are {', '.join(there)}")
    lines = lines[lines["score"].isin(metrics)]
    wide = lines.pivot(index="model", columns=["score", "dataset"])
    mean = wide["mean"].dropna(axis=1, how="all")
    columns = sorted(mean.columns, key=lambda pair: metrics.index(pair[0]))  # stable: datasets stay in order
    mean = mean[columns]
    groups: dict[str, list] = {}
    for score, dataset in columns:
        name = (f"{dataset}: {score}" if len(metrics) > 1 else dataset) if apart else score
        groups.setdefault(name, []).append((score, dataset))
    parts = {}
    for name, group in groups.items():
        parts[name, "mean"] = mean[group].mean(axis=1, skipna=False)
        parts[name, "sd"] = np.sqrt((wide["sd"][group] ** 2).sum(axis=1, skipna=False)) / len(group)
    corrected = wide["corrected"][columns].dropna(axis=1, how="all")
    if len(groups) > 1 and not lines["falling"].any():
        parts["mean", ""] = mean.mean(axis=1, skipna=False)
    if corrected.size:
        parts["chance-corrected mean", ""] = corrected.mean(axis=1, skipna=False)
    parts["mean rank", ""] = rank = wide["rank"][columns].mean(axis=1, skipna=False)
    found = pd.DataFrame(parts)
    found.columns = pd.MultiIndex.from_tuples(parts)
    low = set(lines.loc[lines["falling"], "score"])
    found.attrs["low is good"] = [name for name, group in groups.items() if group[0][0] in low]
    places = {m: (CONTROLS.index(m) + 1 if m in CONTROLS else 0, r) for m, r in rank.fillna(np.inf).items()}
    return found.loc[sorted(places, key=places.get)]


def table(
    rows: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    apart: bool = False,
    decimals: int = 3,
    caption: str = "",
) -> Styler:
    """Return the numbers as a page shows them: bold is best, underlined second, italic a control.

    Parameters
    ----------
    rows, metrics, apart
        As in :func:`numbers`.
    decimals : int
        Of fractions; ranks have one.
    caption : str
        What the table shows; how to read it is added.
    """
    import pandas as pd

    found = numbers(rows, metrics, apart=apart)
    shown = [name for name, part in found.columns if part in ("mean", "")]
    text, marks = pd.DataFrame(index=found.index), pd.DataFrame("", index=found.index, columns=shown)
    ranked = ~found.index.isin(CONTROLS)
    for name in shown:
        score = name not in SUMMARY
        mean = found[name, "mean" if score else ""]
        sd = found[name, "sd"] if score else mean * np.nan
        digits = 1 if name == "mean rank" else decimals
        text[name] = [_number(m, s, digits) for m, s in zip(mean, sd, strict=True)]
        low = name == "mean rank" or name in found.attrs["low is good"]
        place = mean[ranked].rank(ascending=low, method="min")
        marks.loc[place[place == 1].index, name] = "font-weight: bold"
        marks.loc[place[place == 2].index, name] = "text-decoration: underline"
    marks.loc[~ranked] = "font-style: italic"
    seeds = sorted(set(per_dataset(rows)["seeds"]))
    note = (
        f"Seeds: {' to '.join(map(str, sorted({seeds[0], seeds[-1]})))}, mean ± sd. "
        "Bold: best; underlined: second; italic: controls, not ranked; –: not scored."
    )
    text.index.name = None
    caption = f"{caption.rstrip('.')}. {note}" if caption else note
    looks = text.style.apply(lambda _: marks, axis=None).set_caption(caption)
    return looks.set_table_attributes('class="dataframe"')  # so that themes treat it like a DataFrame


def _number(mean: float, sd: float, decimals: int) -> str:
    if np.isnan(mean):
        return "–"
    spread = "" if np.isnan(sd) else f" ± {sd:.{decimals}f}".replace(" ", NO_BREAK)
    return f"{mean:.{decimals}f}{spread}"
