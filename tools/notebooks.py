"""Notebooks are written as ``.py`` (percent format); the ``.ipynb`` beside each is derived, without outputs.

python tools/notebooks.py derive   write every notebooks/*.ipynb anew (make notebooks)
python tools/notebooks.py check    list what is stale or breaks the shared form; exit 1 if anything is

One direction only: the ``.ipynb`` is a pure function of the ``.py``, cell ids included, so that unchanged
cells keep their ids, a diff shows only what changed, and freshness is plain equality.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

import jupytext
import nbformat

TEMPLATE = "_template.py"
FILTER = "cell_metadata_filter: tags,mystnb,cellView,-all"  # keeps run times and the like out of the .py


def sources(root: Path) -> list[Path]:
    """All notebook sources of a project, the template included."""
    return sorted((root / "notebooks").glob("*.py"))


def derive(source: Path) -> str:
    """Return the ``.ipynb`` text of a percent source: no outputs, ids from the cells' own text."""
    notebook = jupytext.read(source, fmt="py:percent")
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    notebook.metadata.pop("jupytext", None)  # an editor must not try to write back into the .py
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def write(root: Path) -> list[Path]:
    """Derive every stale ``.ipynb`` and return those that changed."""
    changed = []
    for source in sources(root):
        target, text = source.with_suffix(".ipynb"), derive(source)
        if not target.exists() or target.read_text(encoding="utf8") != text:
            target.write_text(text, encoding="utf8")
            changed.append(target)
    return changed


def setup_cell(root: Path) -> str:
    """Return the setup cell that all notebooks share: the first code cell of the template."""
    return _code(jupytext.read(root / "notebooks" / TEMPLATE, fmt="py:percent"))[0].source


def faults(root: Path) -> list[str]:
    """Say what is stale or out of form, one line each."""
    found, setup = [], setup_cell(root)
    for source in sources(root):
        target, notebook = source.with_suffix(".ipynb"), jupytext.read(source, fmt="py:percent")
        code = _code(notebook)
        titles = [
            t for c in notebook.cells if c.cell_type == "markdown" for t in re.findall(r"(?m)^# .+", c.source)
        ]
        checks = {
            f"{target.name} is not what {source.name} gives: run `make notebooks`": target.exists()
            and target.read_text(encoding="utf8") == derive(source),
            f"its header lacks the kernelspec or `{FILTER}`": "kernelspec" in notebook.metadata
            and FILTER in source.read_text(encoding="utf8"),
            "needs exactly one title (# ...)": len(titles) == 1,
            f"its first code cell is not the setup cell of {TEMPLATE}": bool(code)
            and code[0].source == setup,
            "needs exactly one cell tagged `parameters`, right after the setup cell": len(code) > 1
            and [c for c in code if "parameters" in c.metadata.get("tags", [])] == [code[1]],
            "needs notebook.resolve(globals(), ...) in the cell after the parameters": len(code) > 2
            and "resolve(" in code[2].source,
            "needs notebook.provenance(cfg, ...) in its last code cell": bool(code)
            and "provenance(" in code[-1].source,
            # each output would get the figure's name, and names must not repeat
            "a cell with a figure's name must end with its figure, plt.show()": all(
                cell.source.rstrip().endswith("plt.show()")
                for cell in code
                if "figure" in cell.metadata.get("mystnb", {})
            ),
        }
        found += [f"{source.name}: {text}" for text, right in checks.items() if not right]
    derived = {source.stem for source in sources(root)}
    found += [
        f"{lone.name}: has no .py source"
        for lone in sorted((root / "notebooks").glob("*.ipynb"))
        if lone.stem not in derived
    ]
    return found


def _code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["derive", "check"])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the project's folder")
    args = parser.parse_args()
    if args.command == "derive":
        for path in write(args.root):
            print(f"wrote {path.relative_to(args.root)}")
        return 0
    found = faults(args.root)
    print("\n".join(found) if found else "notebooks: all fresh and in form")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
