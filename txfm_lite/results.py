"""Stored results: what took too long to run on a page, with all that says where it came from.

One JSON file per run, ``results/<study>/<run>.json``: a list of rows, each one measured value with the names
of what was measured, and one provenance for all of them. A page that shows stored results reads them with
:func:`read`; a script that makes them writes with :func:`write` and skips what :func:`stored` already has.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def directory() -> Path:
    """Return the folder of the results: the repository's, or the copy inside an installed package."""
    here = Path(__file__).parent
    installed = here / "results"
    return installed if installed.is_dir() else here.parent / "results"


def provenance(**facts: Any) -> dict[str, Any]:
    """Return commit, date, device and versions, and the facts given (seed, data, minutes, ...).

    Examples
    --------
    >>> provenance(seed=0)["seed"]
    0
    """
    from .notebook import commit

    versions = {name: sys.modules[name].__version__ for name in ("numpy", "torch") if name in sys.modules}
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_available()
    return {
        "commit": commit() or "unknown",
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores",
        "threads": torch.get_num_threads() if torch is not None else 1,
        "versions": {"python": platform.python_version(), **versions},
        **facts,
    }


def fingerprint(data: Any) -> str:
    """Return a short text that tells one dataset, or one corpus, from another.

    Parameters
    ----------
    data : AnnData, object with a ``fingerprint``, or str
        Text is returned as it is.
    """
    if isinstance(data, str):
        return data
    if hasattr(data, "fingerprint"):
        return f"{type(data).__name__.lower()} {data.fingerprint[:12]}"
    shape = f"{data.n_obs:,} x {data.n_vars:,}"
    if "source" not in data.uns:  # a reader's own file: its names and counts
        x = data.X.data if hasattr(data.X, "indptr") else np.asarray(data.X)
        content = hashlib.sha256("\n".join([*data.obs_names, *data.var_names]).encode())
        content.update(np.ascontiguousarray(x).tobytes())
        return f"own data {content.hexdigest()[:12]}, {shape}"
    source = data.uns["source"]
    digest = hashlib.sha256(json.dumps(sorted(source["files"].items())).encode())
    return f"{source['dataset']} ({source['part']}) {digest.hexdigest()[:12]}, {shape}"


def stored(name: str, folder: Path | None = None, **facts: Any) -> bool:
    """Tell whether a run, ``"study/run"``, has been stored.

    Raises
    ------
    ValueError
        If it has, but came about in another way than `facts`, fields of its provenance, say.
    """
    path = _path(name, folder)
    if not path.is_file():
        return False
    theirs = json.loads(path.read_text())["provenance"]
    for field, value in json.loads(json.dumps(facts)).items():
        if theirs.get(field) != value:
            raise ValueError(
                f"{path}: {field} is {theirs.get(field)!r} there and {value!r} here, and one study should "
                "not mix them; store into another folder, or move that file away"
            )
    return True


def write(
    name: str,
    rows: Sequence[dict[str, Any]],
    provenance: dict[str, Any],
    folder: Path | None = None,
    parts: dict[str, Any] | None = None,
) -> Path:
    """Store a run under ``"study/run"``, whole or not at all.

    `parts` is further content, under names of its own, that :func:`read` leaves alone.

    Raises
    ------
    ValueError
        If there is no row, rows have different fields, or a row and the provenance share a field.
    """
    fields = {tuple(row) for row in rows}
    if len(fields) != 1:
        raise ValueError(
            f"{name}: the rows of a run should have the same fields, these have {sorted(fields)}"
        )
    if twice := set(fields.pop()) & set(provenance):
        raise ValueError(f"{name}: {', '.join(sorted(twice))} is in the rows and in the provenance")
    path = _path(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    plain = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in r.items()} for r in rows]
    content = {"provenance": provenance, "rows": plain, **(parts or {})}
    aside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(aside, path)
    return path


def read(study: str, folder: Path | None = None) -> pd.DataFrame:
    """Return all rows of a study's runs, or of one run; columns beside them: ``run`` and the provenance.

    The numbers that the papers print lie in the same form under ``published/<citation key>/<table>``.

    Raises
    ------
    FileNotFoundError
        If nothing is stored under that name.
    """
    import pandas as pd

    where = (folder or directory()) / study
    files = sorted(where.rglob("*.json")) or [path for path in [_path(study, folder)] if path.is_file()]
    if not files:
        raise FileNotFoundError(
            f"{where}: no stored results; the benchmark or script of that name makes them"
        )
    rows = []
    for file in files:
        content = json.loads(file.read_text())
        run = file.relative_to(where).with_suffix("").as_posix() if where in file.parents else file.stem
        rows += [{"run": run, **row, **content["provenance"]} for row in content["rows"]]
    return pd.DataFrame(rows)


def _path(name: str, folder: Path | None) -> Path:
    return (folder or directory()) / f"{name}.json"
