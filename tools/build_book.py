"""Build the book: execute what changed with papermill in a staging tree, then render from there.

python tools/build_book.py [--profile smoke|book|full]

1. Every notebook whose ingredients (its own text, the package, the data, stored results, the environment, the
   profile) changed is executed into ``_build/executed/PROFILE/``: under another name first, renamed when
   whole, its ingredients stored inside it.
2. ``_build/stage/`` gets the book's sources and the executed notebooks at their own relative paths, so that
   links and launch buttons come out as for the repository; the ledger's page gets its table, the gene
   explorer's page its libraries and examples (its files: ``tools/gene_pages.py``).
3. If all notebooks are there and whole, the book is rendered, warnings being errors, and moved to
   ``_build/html/``; the gene explorer's files go beside it, into ``_build/html/gene_pages/``.

If a notebook fails, the others still run, nothing is rendered, and its name, cell and traceback end the log.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import nbformat
import papermill
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import gene_pages
import ledger_page

import notebooks

LIVE = "application/vnd.jupyter.widget-view+json"  # an output that needs a running kernel
STAMP = "txfm_lite"  # key of our entry in an executed notebook's metadata
ANNOUNCEMENT = (
    "This copy of the book was built without the real data: simulated and bundled sample data stand in, and "
    "the numbers say nothing about biology. Set <code>TXFM_LITE_DATA</code> or connect to the internet, and "
    "build again."
)


def digest(*parts: str | bytes) -> str:
    """Return a short hash of some texts."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode() if isinstance(part, str) else part)
        state.update(b"\0")
    return state.hexdigest()[:16]


def tree_digest(root: Path, pattern: str) -> str:
    """Return a short hash of the names and contents of the files under a folder."""
    files = sorted(path for path in root.rglob(pattern) if path.is_file())
    return digest(*(part for path in files for part in (str(path.relative_to(root)), path.read_bytes())))


def data_state() -> tuple[str, str]:
    """Return where the data come from, in a word, and a hash that changes when local files do."""
    from txfm_lite import datasets

    source = datasets.source()
    folder = os.environ.get("TXFM_LITE_DATA")
    if source == "embedded" or not folder:  # downloaded files are fixed by the manifests' checksums
        return source, digest("embedded" if source == "embedded" else "public")
    found = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    facts = [(path.relative_to(folder), path.stat()) for path in found]
    return source, digest(*(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in facts))


def ingredients(root: Path, profile: str, data: str) -> dict[str, str]:
    """Return a hash for everything that an executed notebook depends on, its own text left out."""
    return {
        "package": tree_digest(root / "txfm_lite", "*.py"),
        "manifests": tree_digest(root / "data_manifests", "*.toml"),
        "stored results": tree_digest(root / "results", "*.json"),
        "environment": digest((root / "constraints.txt").read_bytes(), platform.python_version()),
        "data": data,
        "profile": profile,
    }


def stored(path: Path) -> dict:
    """Return what an executed notebook says about its own run; empty if there is none."""
    return nbformat.read(path, as_version=4).metadata[STAMP] if path.exists() else {}


def reason(before: dict, now: dict[str, str]) -> str:
    """Say why a notebook must be executed; empty if it need not."""
    if not before:
        return "not executed yet"
    changed = [name for name, value in now.items() if before["ingredients"].get(name) != value]
    return f"the {' and the '.join(changed)} changed" if changed else ""


def execute(source: Path, target: Path, cwd: Path, profile: str, now: dict[str, str]) -> str:
    """Run one notebook with papermill; return its fault, or nothing when all of it lies at ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished.ipynb")
    start = time.time()
    try:
        papermill.execute_notebook(
            str(source),
            str(unfinished),
            parameters={} if profile == "book" else {"profile": profile},  # without any, no cell is injected
            cwd=str(cwd),
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--log-level=ERROR"],  # the kernel's remarks on its transport are no news here
        )
    except papermill.PapermillExecutionError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        return f"{source.name}, cell In [{error.exec_count}]:\n\n{error.source}\n\n{plain}"
    except Exception:  # the kernel died or would not start: reported like a failing cell, and the build fails
        return f"{source.name}, cell {_unfinished_cell(unfinished)}:\n\n{traceback.format_exc()}"
    notebook = nbformat.read(unfinished, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":  # progress bars are for live readers; on a page they would stand at 0 %
            cell.outputs = [o for o in cell.outputs if LIVE not in o.get("data", {})]
    day = time.strftime("%Y-%m-%d", time.gmtime())
    notebook.metadata[STAMP] = {"ingredients": now, "minutes": (time.time() - start) / 60, "day": day}
    nbformat.write(notebook, unfinished)
    unfinished.replace(target)
    return ""


def _unfinished_cell(path: Path) -> str:
    """Find the cell that was running when the kernel was lost: the last one that was started."""
    cells = nbformat.read(path, as_version=4).cells if path.exists() else []
    started = [cell.source for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return f"with this source:\n\n{started[-1]}" if started else "none (the kernel did not start)"


def stage(root: Path, target: Path, executed: list[Path], embedded: bool, genes: Path | None = None) -> None:
    """Lay out the book's sources and the executed notebooks as they lie in the repository.

    `genes` is the folder of the gene explorer's files, if the book has that page.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target / "book")
    shutil.copy(root / "_toc.yml", target)
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    if embedded:
        config.setdefault("html", {})["announcement"] = ANNOUNCEMENT
    (target / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf8")
    (target / "notebooks").mkdir()
    rows = ["# Execution times", "", "| notebook | profile | minutes | executed on |", "|---|---|---|---|"]
    for path in executed:
        shutil.copy(path, target / "notebooks")
        run = stored(path)
        link = f"[{path.stem}](../notebooks/{path.name})"
        rows.append(f"| {link} | {run['ingredients']['profile']} | {run['minutes']:.1f} | {run['day']} |")
    (target / "book" / "execution.md").write_text("\n".join(rows) + "\n", encoding="utf8")
    if (page := target / "book" / "ledger.md").exists():
        ledger_page.fill(page, root / "book" / "claims.yml", root / "results")
    if genes is not None:
        gene_pages.fill(target / "book" / "gene_explorer.md", genes)


def render(root: Path, staged: Path, build: Path) -> str:
    """Render the staged book into ``_build/html`` unless that is there already; return the fault, if any."""
    html, scratch = build / "html", build / "render"
    now = digest(
        tree_digest(staged, "*"), tree_digest(root / "txfm_lite", "*.py"), Path(__file__).read_bytes()
    )
    if (html / ".stamp").exists() and (html / ".stamp").read_text() == now:
        print("book: unchanged, kept", flush=True)
        return ""
    print("book: rendering", flush=True)
    shutil.rmtree(scratch, ignore_errors=True)
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    log = build / "render.log"
    with log.open("w") as out:
        command = [
            *jupyter_book,
            "build",
            str(staged),
            "--path-output",
            str(scratch),
            "-W",
            "-n",
            "--keep-going",
        ]
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode
    if code:
        text = log.read_text(errors="replace")
        warnings = re.findall(r"^.*(?:WARNING|ERROR).*$", text, flags=re.M)
        return f"the book does not render (whole log: {log}):\n" + "\n".join(
            warnings or text.splitlines()[-30:]
        )
    shutil.rmtree(html, ignore_errors=True)
    (scratch / "_build" / "html").rename(html)
    shutil.rmtree(scratch)
    (html / ".stamp").write_text(now)
    return ""


def place(genes: Path, html: Path) -> None:
    """Copy the gene explorer's files into the rendered book, unless they are there."""
    target, aside = html / "gene_pages", html / ".gene_pages"
    if target.exists() and (target / "manifest.js").read_bytes() == (genes / "manifest.js").read_bytes():
        return
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(genes, aside)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def build_book(root: Path, profile: str) -> int:
    """Execute, stage and render; return the exit code."""
    stale = notebooks.faults(root)
    if stale:
        print("The notebooks are not in form:\n" + "\n".join(stale))
        return 1
    build = root / "_build"
    word, data = data_state()
    print(f"data: {word}", flush=True)
    common, faults, executed = ingredients(root, profile, data), [], []
    scratch = build / "run"  # the notebooks' working folder: stray files stay out of the sources
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars have no place on a page
    for source in sorted((root / "notebooks").glob("[!_]*.ipynb")):
        now = {"notebook": digest(source.read_bytes()), **common}
        target = build / "executed" / profile / source.name
        executed.append(target)
        why = reason(stored(target), now)
        if not why:
            print(f"{source.stem}: unchanged, kept", flush=True)
            continue
        print(f"{source.stem}: executing, because {why}", flush=True)
        start = time.time()
        fault = execute(source, target, scratch, profile, now)
        print(f"{source.stem}: {'FAILED' if fault else 'done'} after {time.time() - start:.0f} s", flush=True)
        faults += [fault] if fault else []
    if not faults:
        genes = gene_pages.make(root, profile) if (root / "book" / "gene_explorer.md").exists() else None
        stage(root, build / "stage", executed, word == "embedded", genes)
        fault = render(root, build / "stage", build)
        faults += [fault] if fault else []
        if genes is not None and not fault:
            place(genes, build / "html")
    if faults:
        print("\nThe book was not built.")
        for fault in faults:
            print(f"\n{'-' * 80}\n{fault}")
        return 1
    print(f"\nThe book: {build / 'html' / 'index.html'}")
    return 0


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parents[1], help="the project's folder"
    )
    parser.add_argument("--profile", default="book", choices=["smoke", "book", "full"])
    args = parser.parse_args()
    return build_book(args.root.resolve(), args.profile)


if __name__ == "__main__":
    sys.exit(main())
