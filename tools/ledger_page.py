"""Write the claims, as judged by the stored results, into the page ``book/ledger.md`` of a staged book."""

from __future__ import annotations

import html
from collections import Counter
from itertools import groupby
from pathlib import Path

from txfm_lite import ledger

# Lines of the page that are replaced.
SUMMARY, VERDICTS, TABLE = (f"<!-- ledger: {name} -->" for name in ("summary", "verdicts", "table"))


def fill(page: Path, claims: Path, results: Path) -> None:
    """Replace the marked lines of a page by a summary, what verdicts mean, and the table of all claims."""
    found = list(ledger.judged(ledger.read(claims), results))
    pages = {path.stem for path in (page.parents[1] / "notebooks").glob("*.ipynb")}
    text = page.read_text(encoding="utf8")
    meanings = [f"| {icon} {name} | {when} |" for name, (icon, when) in ledger.VERDICTS.items()]
    text = text.replace(SUMMARY, summary(found)).replace(VERDICTS, "\n".join(meanings))
    text = text.replace(TABLE, table(found, pages))
    page.write_text(text, encoding="utf8")


def summary(found: list[tuple[ledger.Claim, ledger.Judgement]]) -> str:
    """Return the counts per verdict as a sentence, and a tile per claim whose icon says its verdict."""
    counts = Counter(judgement.verdict for _, judgement in found)
    shares = [f"{icon} {name} {counts[name]}" for name, (icon, _) in ledger.VERDICTS.items()]
    order = list(ledger.VERDICTS)
    tiles = [
        f'<a class="verdict-{judgement.verdict.replace(" ", "-")}" href="#{claim.id}" '
        f'title="{html.escape(f"{claim.id}: {judgement.verdict}")}">'
        f'<span aria-hidden="true">{ledger.VERDICTS[judgement.verdict][0]}</span>'
        f'<span class="visually-hidden">{claim.id}: {judgement.verdict}</span></a>'
        for claim, judgement in sorted(found, key=lambda pair: order.index(pair[1].verdict))
    ]
    sentence = f"Of {len(found)} claims: {', '.join(shares)}."
    return f'{sentence}\n\n<div class="verdicts">{"".join(tiles)}</div>'


def table(found: list[tuple[ledger.Claim, ledger.Judgement]], pages: set[str]) -> str:
    """Return a table of claims for each work, with links to the pages that exist."""
    parts = []
    for source, group in groupby(found, key=lambda pair: pair[0].source):
        lines = [
            f"From {{cite:t}}`{source}`:",
            "",
            ":::{list-table}",
            ":class: ledger",
            ":header-rows: 1",
        ]
        lines += [":widths: 24 21 35 20", "", *_row("claim", "in print", "ours", "verdict")]
        lines += [line for claim, judgement in group for line in _claim(claim, judgement, pages)]
        parts.append("\n".join([*lines, ":::"]))
    return "\n\n".join(parts)


def _claim(claim: ledger.Claim, judgement: ledger.Judgement, pages: set[str]) -> list[str]:
    icon, _ = ledger.VERDICTS[judgement.verdict]
    name = Path(claim.experiment).name
    link = f" [Shown here](../{claim.experiment}.ipynb)." if name in pages else ""
    if judgement.verdict == "not run":
        ours = claim.reason or judgement.why
    else:
        what = "Ratio" if claim.compare["by"] == "ratio" else "Difference"
        ours = f"{what} **{judgement.value:.3f}**{_interval(judgement)}; {ledger.scale(judgement)}."
    rule = f" *{claim.rule}*"
    return _row(
        f"[{claim.id}]{{#{claim.id}}}. {claim.statement}", claim.published, ours + link + rule,
        f"{icon} {judgement.verdict}",
    )  # fmt: skip


def _interval(judgement: ledger.Judgement) -> str:
    return "" if judgement.pairs < ledger.FEWEST else f" [{judgement.low:.3f}, {judgement.high:.3f}]"


def _row(*cells: str) -> list[str]:
    flat = [" ".join(cell.split()) for cell in cells]
    return [f"{'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(flat)]
