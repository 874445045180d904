"""A training run as one file: what is trained, on what, for how long.

::

    output = "runs/xs"                # the run's folder: checkpoint, history, model
    corpus = "corpora/mine"           # a corpus' folder; without it, DiverseRNA-mini is built in the cache
    preset = "xs"                     # the model's size ...
    init = "txfm-xs"                  # ... or a trained model to go on from (fine-tuning)
    epochs = 20                       # or: [training] steps = 10_000

    [model]                           # fields of TxFMConfig that differ from the preset's
    n_revealed = 1024

    [training]                        # fields of TrainConfig
    batch_size = 256

    [trainer]                         # arguments of lightning.Trainer
    devices = 2

Every key is checked before anything is loaded; one that does not exist is an error that names the nearest
that does. Like training itself, this needs torch, lightning, numpy and safetensors alone::

    python -c "from txfm_lite.recipe import read, train; train(read('xs.toml'))"
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .training import Run

KINDS = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What :func:`train` needs; see the module's text."""

    output: str
    corpus: str | None = None
    preset: str | None = None  # "xs" if neither this nor `init` is given
    init: str | None = None
    epochs: float | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)


def read(path: str | Path | None = None, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe and check its keys.

    Parameters
    ----------
    path : path, optional
        A TOML file.
    changes : iterable of str
        ``"key=value"`` each, in TOML's words; ``table.key`` reaches into a table. They win over the file.

    Raises
    ------
    ValueError
        If the file is no TOML, a key does not exist or has a value of the wrong kind, or what is asked for
        contradicts itself.
    """
    fields, where = {}, "the command line"
    if path is not None:
        where = str(path)
        try:
            fields = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not valid TOML: {error}") from error
    for change in changes:
        _merge(fields, parse(change))
    _check("", fields, Recipe, where)
    for table, kind in _tables().items():
        if not isinstance(fields.get(table, {}), dict):
            raise ValueError(f"{where}: {table!r} should be a table of keys, is {fields[table]!r}")
        _check(table, fields.get(table, {}), kind, where)
    if "output" not in fields:
        raise ValueError(f"{where}: no 'output': say which folder the run should have")
    if ("epochs" in fields) == ("steps" in fields.get("training", {})):
        raise ValueError(f"{where}: say how long: either 'epochs' or 'training.steps'")
    if "epochs" in fields and not fields["epochs"] > 0:
        raise ValueError(f"{where}: epochs = {fields['epochs']!r}: should be positive")
    if "init" in fields and ("preset" in fields or fields.get("model")):
        raise ValueError(f"{where}: 'init' brings its own size: leave out 'preset' and [model]")
    return Recipe(**fields)


def train(recipe: Recipe, *, progress: bool = True) -> Run:
    """Do what a recipe says, or go on with it where it stopped; see :func:`txfm_lite.training.fit`."""
    from .corpus import Corpus
    from .training import TrainConfig, fit
    from .txfm import TxFM, TxFMConfig

    if recipe.corpus is None:
        from .studies import training_corpus

        corpus = training_corpus()
    else:
        corpus = Corpus.open(recipe.corpus)
    config = TrainConfig(**{"steps": 1, **recipe.training})
    if recipe.epochs is not None:
        steps = round(recipe.epochs * len(corpus.rows("train")) / config.batch_size)
        config = dataclasses.replace(config, steps=max(1, steps))
    if recipe.init is not None:
        start = TxFM.from_pretrained(recipe.init)
        model, initial = dataclasses.replace(start.config, n_genes=corpus.n_genes), {"init": start}
    else:
        model = TxFMConfig.preset(recipe.preset or "xs", n_genes=corpus.n_genes, **recipe.model)
        initial = {}
    return fit(corpus, model, config, recipe.output, progress=progress, **initial, **recipe.trainer)


def parse(change: str) -> dict[str, Any]:
    """Read one ``key=value``; a value that is no TOML is taken as text, so that quotes can be left out."""
    key, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"{change!r}: should be KEY=VALUE")
    try:
        return tomllib.loads(change)
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {json.dumps(value.strip())}")


def known(table: str, fields: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """Refuse a key that does not exist, naming the nearest that does."""
    allowed = list(allowed)
    for key in fields:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(allowed)}"
            raise ValueError(f"{where}: unknown key {key!r}{f' in [{table}]' if table else ''}; {hint}")


def _tables() -> dict[str, type]:
    """Return what decides the keys of each table."""
    import lightning

    from .training import TrainConfig
    from .txfm import TxFMConfig

    return {"model": TxFMConfig, "training": TrainConfig, "trainer": lightning.Trainer}


def _check(table: str, fields: dict[str, Any], kind: type, where: str) -> None:
    """Compare the keys of a table with a class' arguments, and the values with their plain types."""
    wanted = inspect.signature(kind).parameters
    known(table, fields, [k for k in wanted if k != "n_genes"], where)  # the corpus says how many genes
    for key, value in fields.items():
        kinds = [KINDS[k] for k in str(wanted[key].annotation).split(" | ") if k in KINDS]
        if kinds and not any(type(value) in k for k in kinds):
            raise ValueError(f"{where}: {key} = {value!r}: should be {wanted[key].annotation}")


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
