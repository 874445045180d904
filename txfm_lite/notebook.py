"""What every notebook needs beside its story: checked parameters, a banner, a provenance footer.

A notebook's parameters cell gives each parameter a literal default, or ``None`` for "what the profile says"::

    profile: str = "book"
    seed: int = 0
    steps: int = None

and the next code cell says what the profiles mean and which values are allowed::

    cfg = notebook.resolve(
        globals(),
        valid={"seed": (0, 2**31), "steps": (1, 10**7)},
        profiles={
            "smoke": {"steps": 20},
            "book": {"steps": 2_000},
            "full": {"steps": 200_000},
        },
    )

Then ``papermill in.ipynb out.ipynb -p profile smoke -p steps 50`` works, and a misspelt name fails, which
papermill by itself lets pass.
"""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

from . import results

PROFILES = ("smoke", "book", "full")  # seconds, for tests | minutes on two CPU cores, the default | a GPU

_START = time.monotonic()


def resolve(namespace: Mapping, valid: Mapping, profiles: Mapping[str, Mapping]) -> SimpleNamespace:
    """Check a notebook's parameters and fill in what its profile decides.

    Parameters
    ----------
    namespace
        The notebook's ``globals()``.
    valid
        A rule for every parameter but ``profile``: a tuple ``(low, high)`` of inclusive bounds (integers
        when both are), a list of choices, or a type.
    profiles
        For each of ``smoke``, ``book``, ``full``: the values of the parameters that are ``None`` in the
        parameters cell.

    Returns
    -------
    SimpleNamespace
        The profile and every parameter, as attributes.

    Raises
    ------
    ValueError
        For an unknown name, a wrong type or a value out of its rule; the message lists what the notebook
        takes.
    """
    if set(profiles) != set(PROFILES):
        raise ValueError(f"profiles must be {', '.join(PROFILES)}, not {', '.join(profiles)}")
    rules = {"profile": list(PROFILES), **valid}
    faults = [
        f"unknown parameter {name!r}{_hint(name, rules)}"
        for name in _injected(namespace)
        if name not in rules
    ]
    for profile, values in profiles.items():
        faults += [
            f"profile {profile!r} sets {name!r}, which has no rule" for name in values if name not in valid
        ]

    resolved = {}
    defaults = profiles.get(str(namespace.get("profile")), {})
    for name, rule in rules.items():
        value = namespace.get(name)
        value = defaults.get(name) if value is None else value
        if name not in namespace:
            faults.append(f"the parameters cell does not define {name!r}")
        elif _fits(value, rule):
            resolved[name] = float(value) if _kind(rule) is float else value
        elif value is not None or not faults:  # a wrong profile leaves the rest empty: one fault is enough
            faults.append(f"{name} = {value!r}: should be {_describe(rule)}")
    if faults:
        takes = [f"{name}: {_describe(rule)}{_defaults(name, profiles)}" for name, rule in rules.items()]
        raise ValueError(
            "\n  ".join(["notebook parameters", *faults]) + "\n  ".join(["\nThis notebook takes", *takes])
        )
    return SimpleNamespace(**resolved)


def _injected(namespace: Mapping) -> list[str]:
    """Names that papermill set: it runs a cell of its own, which starts with this comment."""
    cells = [ast.parse(cell) for cell in namespace.get("In", ()) if cell.startswith("# Parameters\n")]
    return [
        t.id for cell in cells for line in cell.body if isinstance(line, ast.Assign) for t in line.targets
    ]


def _hint(name: str, rules: Mapping) -> str:
    close = difflib.get_close_matches(name, rules, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _kind(rule) -> type:
    """Return the type that a rule asks for."""
    if isinstance(rule, type):
        return rule
    if isinstance(rule, list):
        return type(rule[0])
    return int if all(isinstance(bound, int) for bound in rule) else float


def _fits(value, rule) -> bool:
    kind = _kind(rule)
    right_type = isinstance(value, (int, float) if kind is float else kind)
    if not right_type or (isinstance(value, bool) and kind is not bool):  # True is an int in Python, not here
        return False
    if isinstance(rule, tuple):
        return rule[0] <= value <= rule[1]
    return value in rule if isinstance(rule, list) else True


def _describe(rule) -> str:
    if isinstance(rule, list):
        return "one of " + ", ".join(map(repr, rule))
    if isinstance(rule, tuple):
        return f"{_kind(rule).__name__} from {rule[0]:,} to {rule[1]:,}"
    return rule.__name__


def _defaults(name: str, profiles: Mapping[str, Mapping]) -> str:
    values = [f"{p} {profiles[p][name]}" for p in PROFILES if name in profiles[p]]
    return f" ({', '.join(values)})" if values else ""


def banner(stand_ins: bool) -> None:
    """Show a warning box when simulated studies stand in for the real ones; show nothing otherwise."""
    from IPython.display import HTML, display

    if stand_ins:
        text = (
            "This run shows simulated studies: either a small profile was asked for, or neither a local data "
            "directory nor the public files could be reached. The code runs; the numbers say nothing about "
            "biology. For the real data, set <code>TXFM_LITE_DATA</code> or connect to the internet, and run "
            "the <code>book</code> profile."
        )
        title = '<p class="admonition-title">Embedded data</p>'
        display(HTML(f'<div class="admonition warning">{title}<p>{text}</p></div>'))


def provenance(cfg: SimpleNamespace, data: Iterable = ()) -> None:
    """Show where a page's numbers come from: commit, parameters, data, device, versions, minutes, memory.

    Parameters
    ----------
    cfg
        What :func:`resolve` returned.
    data
        The datasets in use: AnnData from ``datasets.load``, anything with a ``fingerprint``, or plain text.
    """
    from IPython.display import Markdown, display

    parameters = {name: value for name, value in vars(cfg).items() if name != "profile"}
    rows = {
        "commit": commit() or "unknown",
        "profile": cfg.profile,
        "parameters": ", ".join(f"{name} = {value}" for name, value in parameters.items()),
        "data": ", ".join(map(results.fingerprint, data)) or "none",
        "device": _device(),
        "versions": ", ".join(_versions()),
        "time": f"{(time.monotonic() - _START) / 60:.1f} minutes",
        "memory": f"{_peak_memory():.1f} GiB at its peak",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    display(Markdown("\n".join(["| provenance | |", "|---|---|", *lines])))


def commit() -> str:
    """Return the package's commit, ``+`` appended if files differ from it; empty when unknown."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        ours = subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True)
        if ours.returncode == 0:  # and not merely some other project's checkout around an installed copy
            describe = [*git, "describe", "--always", "--dirty=+", "--exclude=*"]
            return subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # no git on this machine
        pass
    try:  # pip records the commit of an install from a repository
        url = importlib.metadata.distribution("txfm-lite").read_text("direct_url.json") or "{}"
    except importlib.metadata.PackageNotFoundError:
        return ""
    return json.loads(url).get("vcs_info", {}).get("commit_id", "")[:7]


def _device() -> str:
    cores = f"{os.cpu_count()} CPU cores"
    torch = sys.modules.get("torch")
    if torch is None:
        return cores
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{gpu}, {cores}, {torch.get_num_threads()} threads"


def _versions() -> list[str]:
    names = ("txfm_lite", "numpy", "scipy", "pandas", "anndata", "scanpy", "sklearn", "torch", "lightning")
    loaded = [f"{name} {_version(name)}" for name in names if name in sys.modules]
    return [f"Python {platform.python_version()}", *loaded]


def _version(module: str) -> str:
    distribution = {"txfm_lite": "txfm-lite", "sklearn": "scikit-learn"}.get(module, module)
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # used from its folder, without being installed
        return sys.modules[module].__version__


def _peak_memory() -> float:
    """Peak resident memory of this process, in GiB."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on macOS, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
