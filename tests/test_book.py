"""The book's pipeline, for real, on a tiny project; the checks of built pages; what its pages must hold."""

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import build_book  # noqa: E402
import check_book  # noqa: E402

import notebooks  # noqa: E402

HEADER, _, _ = (ROOT / "notebooks" / "_template.py").read_text().partition("# %% [markdown]")
NOTEBOOK = """# %% [markdown]
# # A trial
# See [the start](../book/index.md).

# %% tags=["setup", "hide-cell"]
import os

# %% tags=["parameters"]
profile: str = "book"

# %%
from txfm_lite import notebook

cfg = notebook.resolve(globals(), valid={}, profiles={"smoke": {}, "book": {}, "full": {}})

# %%
print("the answer", 6 * 7, cfg.profile)

# %%
notebook.provenance(cfg)
"""
TOC = {"format": "jb-book", "root": "book/index"}
TRIAL = ("notebooks/10_trial", "book/ledger", "book/execution", "book/references")
CHAPTERS = [{"file": name} for name in TRIAL]


def write_notebook(root: Path, text: str = NOTEBOOK, name: str = "10_trial") -> None:
    (root / "notebooks" / f"{name}.py").write_text(HEADER + text)
    notebooks.write(root)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A whole small project: our own configuration, two pages, one notebook, a package folder, data."""
    root = tmp_path_factory.mktemp("project")
    for folder in ("book", "notebooks", "txfm_lite", "data_manifests", "results", "data"):
        (root / folder).mkdir()
    shutil.copy(ROOT / "_config.yml", root)
    shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
    for name in ("references.bib", "references.md", "ledger.md", "claims.yml"):
        shutil.copy(ROOT / "book" / name, root / "book")
    (root / "_toc.yml").write_text(yaml.safe_dump({**TOC, "chapters": CHAPTERS}))
    (root / "book" / "index.md").write_text("# A book\n\n$$x^2$$\n\n{cite:p}`wolf2018`\n")
    (root / "txfm_lite" / "__init__.py").write_text("")
    (root / "constraints.txt").write_text("numpy==1\n")
    (root / "data" / "a.csv").write_text("1")
    for name in ("_template", "10_trial"):
        write_notebook(root, name=name)
    return root


@pytest.fixture
def build(project, monkeypatch, capsys):
    """Build the small project and return the exit code and what was printed."""
    from txfm_lite import datasets

    monkeypatch.setenv("TXFM_LITE_DATA", str(project / "data"))
    monkeypatch.setattr(datasets, "source", lambda names=None: "local")

    def run(profile="book", render=True):
        if not render:
            monkeypatch.setattr(build_book, "render", lambda *_: "")
        code = build_book.build_book(project, profile)
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def built(project, build):
    """The small project, executed and rendered (by the first test that asks for it)."""
    write_notebook(project)
    code, log = build()
    assert code == 0, log
    return project


@pytest.fixture
def executed(project, build):
    """The small project, executed only."""
    write_notebook(project)
    code, log = build(render=False)
    assert code == 0, log
    return project


def test_the_book_shows_the_executed_notebook(built):
    page = (built / "_build" / "html" / "notebooks" / "10_trial.html").read_text()
    assert "the answer 42 book" in page and "provenance" in page
    assert "colab.research.google.com/github/txfm-lite/txfm-lite/blob/main/notebooks/10_trial.ipynb" in page
    assert "injected-parameters" not in page
    times = (built / "_build" / "html" / "book" / "execution.html").read_text()
    assert "10_trial" in times and re.search(r"<td[^>]*><p>\d+\.\d</p></td>", times)


def test_the_book_shows_the_ledger_as_judged(built):
    page = (built / "_build" / "html" / "book" / "ledger.html").read_text()
    claims = re.findall(r'id="(?:txfm|rank|gsfm)-', page)
    assert "<!-- ledger" not in page and page.count('class="verdict-') == len(claims) > 16


def test_the_pages_ask_nothing_of_the_network(built):
    html = built / "_build" / "html"
    for page in html.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)[^>]*?(?:src|href)=\"(https?:[^\"]+)", page.read_text())
        assert loaded == [], page
    assert (html / "_static" / "mathjax" / "tex-chtml.js").exists()


def test_unchanged_work_is_kept(built, build):
    code, log = build()
    assert code == 0
    assert "10_trial: unchanged, kept" in log and "book: unchanged, kept" in log
    assert log.rstrip().endswith(str(built / "_build" / "html" / "index.html"))


@pytest.mark.parametrize(
    "cell, told",
    [
        (
            'shape = (3, 4)\nraise RuntimeError(f"no such shape {shape}")',
            ["RuntimeError: no such shape (3, 4)"],
        ),
        ("os._exit(1)", ["os._exit(1)", "DeadKernelError"]),
    ],
)
def test_a_failing_notebook_fails_the_build_and_ends_the_log(built, build, cell, told):
    stamp = built / "_build" / "html" / ".stamp"
    rendered = stamp.stat().st_mtime_ns
    write_notebook(built, NOTEBOOK.replace("print(", f"{cell}\nprint("))
    code, log = build()
    assert code == 1 and stamp.stat().st_mtime_ns == rendered and "book: rendering" not in log
    end = log[log.index("The book was not built.") :]
    for text in ("10_trial.ipynb, cell", *told):
        assert text in end
    assert "\x1b" not in end
    write_notebook(built)
    code, log = build()  # what was executed before the failure is still whole, and so is the book
    assert code == 0 and "10_trial: unchanged, kept" in log and "book: unchanged, kept" in log


def test_a_half_executed_notebook_is_never_taken_for_a_whole_one(built, build):
    done = built / "_build" / "executed" / "book" / "10_trial.ipynb"
    write_notebook(built, NOTEBOOK.replace("print(", "raise KeyError\nprint("))
    for _ in range(2):
        code, log = build()
        assert code == 1 and "because the notebook changed" in log and "10_trial: FAILED" in log
    assert "the answer 42" in done.read_text() and "KeyError" not in done.read_text()


def test_a_page_with_a_warning_is_not_a_book(built, build):
    page = built / "book" / "index.md"
    whole = page.read_text()
    page.write_text(whole + "\n[nowhere](nowhere.md)\n")
    code, log = build()
    page.write_text(whole)
    assert code == 1 and "nowhere" in log[log.index("The book was not built.") :]


def test_a_stale_notebook_stops_the_build(built, build):
    source = built / "notebooks" / "10_trial.py"
    source.write_text(source.read_text().replace("# # A trial", "# # Another trial"))
    code, log = build()
    assert code == 1 and "run `make notebooks`" in log


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda root: write_notebook(root, NOTEBOOK.replace("6 * 7", "6 * 8")), "the notebook changed"),
        (lambda root: (root / "txfm_lite" / "new.py").write_text("x = 1"), "the package changed"),
        (lambda root: (root / "data_manifests" / "a.toml").write_text("x = 1"), "the manifests changed"),
        (lambda root: (root / "data" / "a.csv").write_text("12"), "the data changed"),
        (lambda root: (root / "results" / "a.json").write_text("{}"), "the stored results changed"),
        (lambda root: (root / "constraints.txt").write_text("numpy==2\n"), "the environment changed"),
    ],
)
def test_a_change_executes_again_and_says_why(executed, build, change, why):
    change(executed)
    code, log = build(render=False)
    assert code == 0 and f"10_trial: executing, because {why}" in log


def test_another_profile_is_injected_and_kept_apart(executed, build):
    code, log = build("smoke", render=False)
    assert code == 0 and "because not executed yet" in log
    staged = nbformat.read(executed / "_build" / "stage" / "notebooks" / "10_trial.ipynb", as_version=4)
    assert "the answer 42 smoke" in json.dumps(staged)
    assert "10_trial: unchanged, kept" in build("book", render=False)[1]


def test_without_the_real_data_every_page_says_so(executed, build, monkeypatch):
    from txfm_lite import datasets

    monkeypatch.setattr(datasets, "source", lambda names=None: "embedded")
    code, log = build(render=False)
    assert code == 0 and "data: embedded" in log and "because the data changed" in log
    config = yaml.safe_load((executed / "_build" / "stage" / "_config.yml").read_text())
    assert "without the real data" in config["html"]["announcement"]


# ---------------------------------------------------------------- looking at pages in a browser

DARK = "<style>html[data-theme=dark] p { width: 600px }</style><p>x</p>"
FAULTY = {
    "console.html": ("<script>console.error('oh dear')</script>", "console: oh dear"),
    "exception.html": ("<script>nonsense()</script>", "exception: nonsense is not defined"),
    "network.html": (
        "<script src='https://example.org/x.js'></script>",
        "does not load: https://example.org",
    ),
    "image.html": ("<img src='none.png' alt='x'>", "image does not show"),
    "alt.html": (
        "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='>",
        "image without alternative text",
    ),
    "name.html": ("<img src='none.png' alt='_images/none.png'>", "image without alternative text"),
    "link.html": ("<a href='none.html'>x</a>", "dead link"),
    "anchor.html": ("<a href='good.html#none'>x</a>", "link to a missing anchor"),
    "wide.html": ("<p style='width: 600px'>x</p>", "page is"),
    "formula.html": ("<span class='math'>\\(x\\)</span>", "1 formulae, none set"),
    "error.html": ("<mjx-merror data-mjx-error='Missing }'>x</mjx-merror>", "formula: Missing }"),
}
GOOD = "<div style='overflow-x: auto'><p style='width: 600px' id='here'>x</p></div><a href='#here'>x</a>"


@pytest.mark.skipif(not any(map(shutil.which, check_book.BROWSERS)), reason="needs chromium on PATH")
def test_every_kind_of_fault_is_found(tmp_path):
    for name, (body, _) in {**FAULTY, "good.html": (GOOD, "")}.items():
        (tmp_path / name).write_text(f"<!doctype html><html><body>{body}</body></html>")
    (tmp_path / "dark.html").write_text(DARK)
    faults = check_book.check(tmp_path, screenshots=tmp_path / "shots")
    for name, (_, text) in FAULTY.items():
        assert any(fault.startswith(name) and text in fault for fault in faults), (name, faults)
    assert [fault for fault in faults if fault.startswith("good.html")] == []
    assert [fault[:27] for fault in faults if "dark.html" in fault] == ["dark.html (390 px, dark): p"]
    assert [fault for fault in faults if "wide.html" in fault and "1280" in fault] == []
    assert len(list((tmp_path / "shots").glob("good-*.png"))) == 4


# ---------------------------------------------------------------- what this book holds

PAGES = {
    entry["file"]
    for part in yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    for entry in part["chapters"]
}
KEYS = set(re.findall(r"(?m)^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text()))


def test_every_chapter_is_in_the_table_of_contents_and_there():
    chapters = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("[!_]*.py")}
    assert chapters == {page for page in PAGES if page.startswith("notebooks/")}
    missing = {page for page in PAGES - chapters if not (ROOT / f"{page}.md").exists()}
    assert missing == {"book/execution"}  # written by the build


def test_every_dataset_is_cited():
    cited = {
        path.name: tomllib.loads(path.read_text())["citation"]
        for path in (ROOT / "data_manifests").glob("*.toml")
    }
    assert {name: key for name, key in cited.items() if key not in KEYS} == {}


def test_the_code_reference_lists_every_module():
    package = ROOT / "txfm_lite"
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in package.rglob("*.py")
        if not path.name.startswith("_")
    }
    assert set(re.findall(r"automodule:: (\S+)", (ROOT / "book" / "api.md").read_text())) == modules


def test_the_declared_repository_is_one():
    addresses = set()
    for name in (
        "README.md",
        "_config.yml",
        "CITATION.cff",
        "pyproject.toml",
        "notebooks/_template.py",
        "book/index.md",
    ):
        addresses |= set(re.findall(r"https://github\.com/[\w-]+/[\w-]+", (ROOT / name).read_text()))
    assert addresses == {"https://github.com/txfm-lite/txfm-lite"}
