"""The claims ledger: what the papers say, what we measured, and a verdict that a rule decides, not a hand.

``book/claims.yml`` lists claims. Each names the stored results that it is judged by, as one comparison: which
rows against which others, against their own chance level, or against a number. :func:`judge` makes of it

- *our number*: the ratio or the difference of two means; datasets count equally, and seeds within them;
- *its 95 % interval*: a paired bootstrap, which draws datasets, then seeds within each (both sides of a pair
  together), so that five seeds of one dataset are not taken for five datasets;
- *the verdict*, one of :data:`VERDICTS`.

``python -m txfm_lite.ledger`` prints the table, ``--write`` puts the verdicts into the file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import results

if TYPE_CHECKING:
    import pandas as pd

#: Verdict -> (icon, when it is given).
VERDICTS: dict[str, tuple[str, str]] = {
    "holds": ("✔", "right direction, the interval excludes no effect, and the published margin is reached"),
    "direction holds": ("↗", "right direction and the interval excludes no effect, but less than published"),
    "not at our scale": ("≈", "the interval includes no effect, or there are fewer than three pairs"),
    "contradicted": ("✘", "the interval excludes no effect on the other side"),
    "not run": ("○", "no result yet; the reason stands beside it"),
}
NEUTRAL = {"ratio": 1.0, "difference": 0.0, "equal": 0.0}  # what "no effect" is
FEWEST = 3  # pairs for an interval
DRAWS = 4000
UNIT = ["dataset", "seed"]
STAGES = {"quarter": 0.25, "last": 1.0}  # of the largest value of a field that counts samples


@dataclass(frozen=True)
class Claim:
    """One claim, as ``book/claims.yml`` has it.

    Parameters
    ----------
    id : str
        Work and number: ``txfm-2-pca``.
    source : str
        Key in ``book/references.bib``.
    statement, published, rule : str
        The claim in our words, its number in print, and how it is judged, in words.
    experiment : str
        The page that shows our result: ``notebooks/40_perturbations``.
    verdict : str
        One of :data:`VERDICTS`.
    compare : dict
        `study`; `ours` and `against`: field -> value or list of values (``quarter`` or ``last`` where a
        field counts samples along training); what `against` does not name is as in `ours`. Instead,
        `against` may be a number, or ``chance``, the rows' own null. `datasets`: those that count, held-out
        ones. `by`: ``ratio``, ``difference``, or ``equal`` (the difference stays within the margin).
        `margin`: the published effect; without it, direction is all that is claimed. Of several models on
        one side, the best in each dataset and seed counts; of metrics or variants, the mean, unless `over`
        makes one of these fields what the bootstrap draws in place of datasets.
    reason : str
        Why there is no result, for ``not run``.
    """

    id: str
    source: str
    statement: str
    published: str
    experiment: str
    rule: str
    verdict: str
    compare: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Judgement:
    """Our number, its interval, on how many pairs of how many datasets, and the verdict; `why` if not run."""

    verdict: str
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    pairs: int = 0
    datasets: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        if self.verdict == "not run":
            return "–"
        interval = "" if np.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval}"


def path() -> Path:
    """Return the file of the claims: the repository's, or the copy inside an installed package."""
    here = Path(__file__).parent
    installed = here / "claims.yml"
    return installed if installed.is_file() else here.parent / "book" / "claims.yml"


def read(file: Path | None = None) -> list[Claim]:
    """Return all claims.

    Raises
    ------
    ValueError
        For an unknown or missing field, an unknown verdict, an id that occurs twice, ``not run`` without a
        reason, or a reason beside another verdict; the message names the claim.
    """
    import yaml

    known = {f.name for f in fields(Claim)}
    claims = []
    for entry in yaml.safe_load((file or path()).read_text(encoding="utf8"))["claims"]:
        name = entry.get("id", "a claim without id")
        if unknown := set(entry) - known:
            raise ValueError(
                f"{name}: unknown fields {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            )
        if missing := known - {"compare", "reason"} - set(entry):
            raise ValueError(f"{name}: lacks {', '.join(sorted(missing))}")
        claim = Claim(**{k: v.strip() if isinstance(v, str) else v for k, v in entry.items()})
        if claim.verdict not in VERDICTS:
            raise ValueError(
                f"{name}: no verdict is called {claim.verdict!r}; there are {', '.join(VERDICTS)}"
            )
        if (claim.verdict == "not run") != bool(claim.reason):
            raise ValueError(f"{name}: 'not run' needs a reason, and no other verdict has one")
        if claim.id in {c.id for c in claims}:
            raise ValueError(f"{name}: the id occurs twice")
        claims.append(claim)
    return claims


def judged(claims: Sequence[Claim], folder: Path | None = None) -> Iterator[tuple[Claim, Judgement]]:
    """Judge claims by the stored results, reading each study once."""
    studies: dict[str, pd.DataFrame | None] = {}
    for claim in claims:
        study = claim.compare.get("study", "")
        if study and study not in studies:
            try:
                studies[study] = results.read(study, folder)
            except FileNotFoundError:  # not run yet
                studies[study] = None
        yield claim, judge(claim, studies.get(study))


def judge(claim: Claim, rows: pd.DataFrame | None) -> Judgement:
    """Judge a claim by the rows of its study (None: there are none).

    Raises
    ------
    ValueError
        If the comparison is not well defined: unknown fields, or rows that differ in more than it names.
    """
    if not claim.compare:
        return Judgement("not run", why="no experiment is declared")
    compare = {"by": "ratio", "margin": None, "datasets": None, "over": "dataset"} | claim.compare
    if unknown := set(compare) - {"study", "ours", "against", "by", "margin", "datasets", "over"}:
        raise ValueError(f"{claim.id}: compare has unknown fields {', '.join(sorted(unknown))}")
    if compare["by"] not in NEUTRAL:
        raise ValueError(f"{claim.id}: by should be one of {', '.join(NEUTRAL)}, not {compare['by']!r}")
    if rows is None:
        return Judgement("not run", why=f"no results are stored for {compare['study']}")
    rows = _databases_apart(rows)
    if compare["datasets"]:
        rows = rows[rows["dataset"].isin(compare["datasets"])]
    try:
        pairs = _pairs(rows, compare["ours"], compare["against"], compare["over"])
    except ValueError as error:
        raise ValueError(f"{claim.id}: {error}") from None
    if pairs.empty:
        return Judgement("not run", why=f"{compare['study']} has no dataset with both sides")
    value, low, high = interval(pairs, compare["by"])
    said = verdict(value, low, high, compare["by"], compare["margin"])
    return Judgement(said, value, low, high, len(pairs), tuple(pairs.index.unique("dataset")))


def _databases_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn ("recall", "CORUM, PCA 32") into ("recall CORUM", "PCA 32"): one is compared over databases."""
    parts = rows["variant"].astype(str).str.split(", ", n=1, expand=True).reindex(columns=[0, 1])
    two = (rows["metric"] == "recall") & parts[1].notna()
    metric = rows["metric"].where(~two, "recall " + parts[0])
    return rows.assign(metric=metric, variant=rows["variant"].where(~two, parts[1]))


def _pairs(rows: pd.DataFrame, ours: dict, against: dict | float | str, over: str) -> pd.DataFrame:
    """Return columns a and b per dataset and seed; where the rival lacks a seed, its mean stands in."""
    import pandas as pd

    a = _side(rows, ours, over)
    if isinstance(against, dict):
        b = _side(rows, ours | against, over)
        b = b.reindex(a.index).fillna(b.groupby("dataset").mean().reindex(a.index, level="dataset"))
    else:
        b = _side(rows, ours, over, "null") if against == "chance" else pd.Series(float(against), a.index)
    return pd.DataFrame({"a": a, "b": b}).dropna()


def _side(rows: pd.DataFrame, where: dict[str, Any], over: str, column: str = "value") -> pd.Series:
    """Return one value per dataset (or what stands for it) and seed of the rows that `where` describes."""
    for name, wanted in where.items():
        if name not in rows:
            raise ValueError(f"the results have no field {name!r}")
        if isinstance(wanted, str) and wanted in STAGES and len(rows):
            wanted = rows[name].iloc[(rows[name] - STAGES[wanted] * rows[name].max()).abs().argmin()]
        rows = rows[rows[name].isin(wanted if isinstance(wanted, list) else [wanted])]
    for name in ("metric", "variant"):
        if name not in where and rows[name].nunique() > 1:
            raise ValueError(f"name the {name}: {', '.join(map(repr, sorted(rows[name].unique())))}")
    if rows.duplicated([*UNIT, "model", "metric", "variant"]).any():
        raise ValueError(f"several results of the same dataset, seed, model, metric and variant for {where}")
    if over != "dataset":
        rows = rows.assign(**{"dataset": rows[over], over: ""})
    wide = rows.pivot(index=[*UNIT, "model"], columns=["metric", "variant"], values=column)
    return wide.mean(axis=1, skipna=False).groupby(UNIT).max()


def interval(pairs: pd.DataFrame, by: str, seed: int = 0) -> tuple[float, float, float]:
    """Return the ratio, or difference, of the means, and its 95 % bootstrap interval.

    Parameters
    ----------
    pairs : DataFrame, index (dataset, seed), columns a and b
    by : {"ratio", "difference", "equal"}
    seed : int
        Of the bootstrap.

    Returns
    -------
    tuple of float
        Value, low, high; the bounds are nan for fewer than three pairs.

    Raises
    ------
    ValueError
        For a ratio to a mean that is not positive.
    """
    groups = [group.to_numpy(dtype=float) for _, group in pairs.groupby("dataset")]

    def effect(means: np.ndarray) -> np.ndarray:
        if by == "ratio" and (means[..., 1] <= 0).any():
            raise ValueError("a ratio to a mean that is not positive says nothing: compare by difference")
        return means[..., 0] / means[..., 1] if by == "ratio" else means[..., 0] - means[..., 1]

    value = float(effect(np.mean([group.mean(axis=0) for group in groups], axis=0)))
    if len(pairs) < FEWEST:
        return value, np.nan, np.nan
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(groups), size=(DRAWS, len(groups)))
    means = np.empty((*drawn.shape, 2))
    for k, group in enumerate(groups):
        here = drawn == k
        means[here] = group[rng.integers(len(group), size=(here.sum(), len(group)))].mean(axis=1)
    low, high = np.quantile(effect(means.mean(axis=1)), [0.025, 0.975])
    return value, float(low), float(high)


def verdict(value: float, low: float, high: float, by: str, margin: float | None = None) -> str:
    """Return the verdict on an effect with its interval.

    For ``equal``, "no effect" is the claim: it holds if the whole interval lies within ± `margin`, the
    direction holds if the value does, and it is contradicted if the whole interval lies outside.
    """
    if np.isnan(low):
        return "not at our scale"
    if by == "equal":
        if max(abs(low), abs(high)) <= margin:
            return "holds"
        if low > margin or high < -margin:
            return "contradicted"
        return "direction holds" if abs(value) <= margin else "not at our scale"
    neutral = NEUTRAL[by]
    if low <= neutral <= high:
        return "not at our scale"
    if high < neutral:
        return "contradicted"
    return "holds" if margin is None or value >= margin else "direction holds"


def faults(claims: Sequence[Claim], folder: Path | None = None) -> list[str]:
    """Return the claims whose written verdict is not that of their rule, each as a sentence."""
    return [
        f"{claim.id}: written {claim.verdict!r}, judged {found.verdict!r} ({found.why or found})"
        for claim, found in judged(claims, folder)
        if claim.verdict != found.verdict
    ]


def table(experiment: str = "", file: Path | None = None, folder: Path | None = None) -> pd.DataFrame:
    """Return the ledger, or the claims of one page, as a table for reading: one line per claim."""
    import pandas as pd

    chosen = [claim for claim in read(file) if experiment in ("", claim.experiment)]
    lines = [
        {
            "claim": claim.statement,
            "published": claim.published,
            "ours [95 %]": claim.reason or found.why or f"{found}, {scale(found)}",
            "verdict": f"{VERDICTS[found.verdict][0]} {found.verdict}",
        }
        for claim, found in judged(chosen, folder)
    ]
    return pd.DataFrame(lines, index=[claim.id for claim in chosen])


def scale(found: Judgement) -> str:
    """Say what a judgement rests on."""
    count = len(found.datasets)
    return f"{found.pairs} pairs on {', '.join(found.datasets) if count < 4 else f'{count} datasets'}"


def write(file: Path | None = None, folder: Path | None = None) -> list[str]:
    """Put the judged verdicts into the file, everything else left as it is; return what changed.

    A reason goes when its claim is judged. If results are gone, ValueError: a person has to write the reason.
    """
    file = file or path()
    text, changed = file.read_text(encoding="utf8"), []
    for claim, found in judged(read(file), folder):
        if claim.verdict == found.verdict:
            continue
        if found.verdict == "not run":
            raise ValueError(f"{claim.id}: {found.why}; write 'verdict: not run' and the reason by hand")
        before, entry, after = re.split(rf"(?ms)(^  - id: {re.escape(claim.id)}\n.*?(?=^  - id: |\Z))", text)
        entry = re.sub(r"(?m)^    verdict: .*$", f"    verdict: {found.verdict}", entry)
        entry = re.sub(r"(?m)^    reason:.*\n(?:      .*\n)*", "", entry)
        text = before + entry + after
        changed.append(f"{claim.id}: {claim.verdict} -> {found.verdict}")
    file.write_text(text, encoding="utf8")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ledger; with ``--write``, update the written verdicts first. 1 if any is wrong."""
    parser = argparse.ArgumentParser(prog="python -m txfm_lite.ledger", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the judged verdicts into book/claims.yml")
    if parser.parse_args(arguments).write:
        print("\n".join(write()) or "all verdicts stand")
    for claim, found in judged(read()):
        what = found.why if found.verdict == "not run" else f"{found}  ({scale(found)})"
        print(f"{VERDICTS[found.verdict][0]} {found.verdict:17} {claim.id:20} {what}")
    wrong = faults(read())
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
