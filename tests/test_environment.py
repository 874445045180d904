"""pyproject.toml, constraints.txt and environment.yml describe one environment; the import stays light."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"(?m)^([\w.-]+)==([\w.+!]+)$", (ROOT / "constraints.txt").read_text())
}


def requirements(*extras: str) -> list[Requirement]:
    """The dependencies, and those of the extras; an extra that names our own extras brings theirs."""
    listed = [Requirement(line) for line in PROJECT["dependencies"] + [r for e in extras for r in EXTRAS[e]]]
    ours = {e for r in listed if r.name == PROJECT["name"] for e in r.extras}
    others = [r for r in listed if r.name != PROJECT["name"]]
    return others + (requirements(*ours)[len(PROJECT["dependencies"]) :] if ours else [])


def test_the_promised_extras_exist():
    assert set(EXTRAS) == {"book", "test", "evaluate", "genesets", "baselines", "external"}


@pytest.mark.parametrize("requirement", requirements(*EXTRAS), ids=lambda r: r.name)
def test_every_direct_dependency_is_pinned_within_its_bounds(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_the_package_pins_nothing():
    exact = [str(r) for r in requirements(*EXTRAS) if any(s.operator in ("==", "===") for s in r.specifier)]
    assert exact == []


def test_jupyter_book_stays_below_2():
    (book,) = [r for r in requirements("book") if r.name == "jupyter-book"]
    assert book.specifier.contains("1.0.4.post1") and not book.specifier.contains("2.0.0")


def test_constraints_hold_plain_pins_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)] == []
    assert len(PINS) == sum("==" in line for line in lines)  # no package twice


def test_conda_users_get_the_same_versions():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    pins = {canonicalize_name(name): v for name, _, v in (line.partition("==") for line in pip) if v}
    wanted = {canonicalize_name(r.name) for r in requirements("book", "test")}
    assert pins == {name: PINS[name] for name in wanted}
    assert {"-c constraints.txt", "-e ."} <= set(pip)
    (python,) = [entry for entry in conda if str(entry).startswith("python=")]
    assert Requirement("python" + PROJECT["requires-python"]).specifier.contains(python.split("=")[1] + ".0")


def test_what_is_installed_here_is_covered_by_the_pins():
    """Walk the installed packages' own requirements: whatever we need, directly or not, must be pinned."""
    todo, seen = requirements("book", "test"), set()
    while todo:
        wanted = todo.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = [Requirement(need) for need in metadata.requires(wanted.name) or []]
        except metadata.PackageNotFoundError:  # a package for another platform or Python
            continue
        extras = wanted.extras or {""}
        todo += [n for n in needs if not n.marker or any(n.marker.evaluate({"extra": e}) for e in extras)]
    installed = {canonicalize_name(d.metadata["Name"]) for d in metadata.distributions()}
    assert {name for name, _ in seen} & installed - set(PINS) == set()


def test_import_is_quick_and_light():
    code = (
        "import sys, time; t = time.perf_counter(); import txfm_lite; t = time.perf_counter() - t;"
        "heavy = {'torch', 'scanpy', 'anndata', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules);"
        "print(t, *heavy)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, *heavy = out.stdout.split()
    assert heavy == [] and float(seconds) < 0.3


def test_short_names_and_unknown_names():
    import txfm_lite

    assert txfm_lite.pl is __import__("txfm_lite.plots").plots
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = txfm_lite.nonsense
    with pytest.raises(ImportError):
        from txfm_lite import nonsense  # noqa: F401
