"""Pretraining on a corpus: one call for every model, and a run that can stop and go on.

:mod:`txfm_lite.steps` says what one step is; here is what a run is: its device and processes, its
stream of batches, its checkpoints, its folder. Started by ``torchrun --nproc-per-node=N``, a script that
calls :func:`fit` trains on N devices.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from . import devices, monitoring, results
from .corpus import Corpus
from .loader import Batch, BatchLoader
from .pretraining import Pretraining, TokenPretraining, mean_profile
from .rankformer import Rankformer, RankformerConfig
from .steps import Steps, TrainConfig
from .txfm import TxFM, TxFMConfig

if TYPE_CHECKING:
    import pandas as pd

    from .gsfm import GSFM

__all__ = ["Run", "TrainConfig", "fit", "mean_profile"]

log = logging.getLogger(__name__)

Model = TxFM | Rankformer
ModelConfig = TxFMConfig | RankformerConfig


@dataclass(frozen=True)
class _Kind:
    """What training has to know about a class of models."""

    model: type
    steps: type[Steps]
    shape: tuple[str, ...]  # fields of the configuration that weights belong to
    per_gene: tuple[str, ...]  # weights with one row per gene


_BLOCKS = ("d_model", "n_blocks", "n_heads", "mlp_ratio")
KINDS: dict[type, _Kind] = {
    TxFMConfig: _Kind(
        TxFM,
        Pretraining,
        (*_BLOCKS, "decoder_blocks"),
        ("codebook.weight", "gene_head.weight", "gene_head.bias", "log_dispersion"),
    ),
    RankformerConfig: _Kind(
        Rankformer,
        TokenPretraining,
        (*_BLOCKS, "head", "n_levels", "n_tokens"),
        ("codebook.weight", "offset", "medians", "profile"),
    ),
}


class _Stream:
    """The loader's epochs, one after another, from a given step to the last: what Lightning takes for one."""

    def __init__(self, loader: BatchLoader, steps: int, first: int, watch: monitoring.Watch):
        self.loader, self.steps, self.first, self.watch = loader, steps, first, watch

    def __len__(self) -> int:
        return self.steps

    # Lightning asks a loader that can resume for its state; ours follows from the step alone.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, _: dict[str, Any]) -> None:
        pass

    def __iter__(self) -> Iterator[Batch]:
        epoch, batch = divmod(self.first, len(self.loader))
        self.loader.load_state_dict({**self.loader.state_dict(), "epoch": epoch, "batch": batch})
        current = iter(self.loader)
        for _ in range(self.first, self.steps):
            before = time.monotonic()
            batch = next(current, None)
            if batch is None:
                current = iter(self.loader)  # the next epoch
                batch = next(current)
            self.watch.waited += time.monotonic() - before
            yield batch


class _Saver(lightning.Callback):
    """Save a checkpoint every few minutes, aside and then renamed: a killed run leaves a whole one.

    It is saved before a step, not after one, where a look may be due: that look would be lost.
    """

    def __init__(self, path: Path, minutes: float, steps: int):
        self.path, self.minutes, self.steps, self.last = path, minutes, steps, time.monotonic()

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        step = trainer.global_step
        due = step > 0 and time.monotonic() - self.last >= 60 * self.minutes
        if trainer.world_size > 1:  # all processes save together, and clocks differ: the first one's counts
            # weights that are shared out (FSDP) lie open after a look: to save them then would spoil them
            quiet = step % 10 == 5 and step % trainer.val_check_batch != 0
            due = quiet and trainer.strategy.broadcast(due)
        if due:
            self._save(trainer)

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step < self.steps:
            self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        aside = self.path.with_suffix(".partial")
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            os.replace(aside, self.path)
        self.last = time.monotonic()


class _Keeper(lightning.Callback):
    """Keep the model as it is after some steps, to see what it learns when."""

    def __init__(self, path: Path, steps: Sequence[int]):
        self.path, self.steps = path, frozenset(steps)

    def on_train_start(self, trainer: lightning.Trainer, module: Steps) -> None:
        self.on_train_batch_end(trainer, module)

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Steps, *_: Any) -> None:
        if trainer.global_step in self.steps:
            whole = _whole(module.model)
            if trainer.is_global_zero:
                whole.save_pretrained(self.path / f"step-{trainer.global_step}", **module.identity())


class _Bar(TQDMProgressBar):
    """Lightning's progress bar, showing numbers that are on the host already."""

    def get_metrics(self, trainer: lightning.Trainer, module: Steps) -> dict[str, str]:
        last = module.history[-1] if module.history else {}
        known = {"loss": module.watch.last, **{k: last[k] for k in ("explained", "probe") if k in last}}
        return {k: f"{v:.3f}" for k, v in known.items()}


def _trainer(
    steps: int,
    look_every: int,
    minutes: float,
    checkpoint: Path,
    precision: str,
    progress: bool,
    given: dict[str, Any],
) -> lightning.Trainer:
    """Return a trainer of so many steps, looking at the validation data and saving every now and then."""
    callbacks = [_Saver(checkpoint, minutes, steps), *given.pop("callbacks", [])]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun says so
    if progress:
        callbacks.append(_Bar())
    logger = False
    if importlib.util.find_spec("tensorboard"):
        from lightning.pytorch.loggers import TensorBoardLogger

        logger = TensorBoardLogger(checkpoint.parent, name="", version="tensorboard")
    options = {
        "accelerator": "auto",
        "devices": local,
        "num_nodes": int(os.environ.get("WORLD_SIZE", 1)) // local,
        "precision": precision,
        "max_steps": steps,
        "val_check_interval": min(look_every, steps),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,  # of what Lightning logs by itself, nothing; else it warns about short runs
        "enable_checkpointing": False,
        "enable_progress_bar": progress,
        "enable_model_summary": False,
        "logger": logger,
        **given,
    }
    if options.get("strategy") == "fsdp":
        from lightning.pytorch.strategies import ModelParallelStrategy

        n = options["devices"] * options["num_nodes"]
        options["strategy"] = ModelParallelStrategy(n, 1, save_distributed_checkpoint=False)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its remarks on devices and loggers
    try:
        return lightning.Trainer(callbacks=callbacks, **options)
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(f"lightning.Trainer refuses its arguments: {error}") from error


def _reached(checkpoint: Path) -> int:
    """Return the step that a run stopped at, 0 for a new one."""
    if not checkpoint.is_file():
        return 0
    first = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
    log.info("%s: going on from step %d", checkpoint, first)
    return first


def _start_from(init: Model, model: Model) -> dict[str, str]:
    """Copy weights into a new model, matching genes by name; return what identifies the weights."""
    kind = KINDS[type(model.config)]
    if type(init) is not kind.model:
        raise ValueError(f"init: a {type(init).__name__} is no start for a {kind.model.__name__}")
    place = {gene: i for i, gene in enumerate(init.genes or [])}
    mine = [i for i, gene in enumerate(model.genes) if gene in place]
    theirs = [place[model.genes[i]] for i in mine]
    if not mine:
        raise ValueError("init: it knows none of the corpus' genes, so there is nothing to start from")
    for field in kind.shape:
        if (a := getattr(init.config, field)) != (b := getattr(model.config, field)):
            name = type(model.config).__name__
            raise ValueError(f"init: its weights do not fit this {name}: {field} {a} there, {b} here")
    log.info("fine-tuning: %d of %d genes are known", len(mine), len(model.genes))
    state, digest = model.state_dict(), hashlib.sha256()
    for name, tensor in init.state_dict().items():
        digest.update(tensor.cpu().numpy().tobytes())
        if name not in kind.per_gene:
            state[name] = tensor
        elif name in state:  # dispersions are there only if the loss needs them
            state[name][mine] = tensor[theirs].to(state[name])
    model.load_state_dict(state)
    return {"init": digest.hexdigest()}


def _whole(model: Model) -> Model:
    """Return a model that has all its weights itself, also if processes have shared them out."""
    kind = KINDS.get(type(model.config))  # a GSFM is never shared out
    if kind is None or type(model) is kind.model:
        return model
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    whole = kind.model(model.config, model.genes)
    whole.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
    return whole


@dataclass
class Run:
    """A trained model and the folder that holds it."""

    model: Model | GSFM
    path: Path

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per look, see :class:`~txfm_lite.steps.Steps` or :mod:`~txfm_lite.gsfm_training`."""
        import pandas as pd

        return pd.read_csv(self.path / "history.csv", float_precision="round_trip")


def fit(
    corpus: Corpus,
    model: ModelConfig,
    config: TrainConfig,
    path: str | Path,
    *,
    progress: bool = True,
    init: Model | str | Path | None = None,
    snapshots: Sequence[int] = (),
    **trainer: Any,
) -> Run:
    """Train a model on a corpus, or go on with the run that stopped in `path`, or open it if it is done.

    Parameters
    ----------
    corpus : Corpus
    model : TxFMConfig or RankformerConfig
        What to train; ``n_genes`` must be the corpus'.
    config : TrainConfig
    path : path
        A folder: ``history.csv`` from the first look on, ``last.ckpt`` while running, ``model/`` when done;
        ``tensorboard/`` if that package is installed.
    progress : bool
        Show a progress bar.
    init : model, or the name or folder of one, optional
        Fine-tuning: start from these weights. Genes are matched by name; those it does not know start afresh.
    snapshots : sequence of int
        Keep the model after these steps, 0 included, as ``snapshots/step-<n>`` in the folder.
    **trainer
        Further arguments of ``lightning.Trainer``, for example ``accelerator="cpu"``, or
        ``devices=4, strategy="fsdp"`` (by default every device has all the weights, ``"ddp"``).

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If `path` holds a run with another corpus, model or schedule, a batch cannot be divided as asked, the
        device lacks the precision, Lightning refuses an argument, or the weights of `init` do not fit.
    FloatingPointError
        If the loss stops being a finite number, naming step, datasets and rows of the corpus.
    InterruptedError
        If one of the trainer's arguments, such as ``max_time``, ended the run early: the same call goes on.
    """
    path, kind = Path(path), KINDS[type(model)]
    path.mkdir(parents=True, exist_ok=True)
    if model.n_genes != corpus.n_genes:
        name = type(model).__name__
        raise ValueError(f"{name}.n_genes is {model.n_genes:,}; the corpus has {corpus.n_genes:,}")
    rows = np.random.default_rng(0).permutation(corpus.rows("validation"))[: config.n_validation]
    if not len(rows):
        raise ValueError(f"{corpus.path}: no validation samples to look at: build it with some")
    device = devices.training_device(trainer.get("accelerator", "auto"))
    precision, why_precision = devices.choose_precision(config.precision, device)
    checkpoint = path / "last.ckpt"
    keeper = _Keeper(path / "snapshots", snapshots)
    trainer["callbacks"] = [keeper, *trainer.get("callbacks", [])]
    schedule = config.steps, config.validate_every, config.checkpoint_minutes
    trainer = _trainer(*schedule, checkpoint, devices.PRECISIONS[precision], progress, trainer)
    share, rest = divmod(config.batch_size, trainer.world_size)
    if rest:
        raise ValueError(f"batch_size {config.batch_size} is no multiple of {trainer.world_size} processes")
    micro_batch = devices.choose_micro_batch(config.micro_batch, model, share, device, precision)

    torch.manual_seed(config.seed)
    module = kind.steps(kind.model(model, corpus.genes.tolist()), corpus, config, path, micro_batch)
    if init is not None:
        given = kind.model.from_pretrained(init) if isinstance(init, str | Path) else init
        module.origin = _start_from(given, module.model)
    if (path / "model" / "config.json").is_file():
        module.check(json.loads((path / "model" / "config.json").read_text())["provenance"])
        log.info("%s holds this run, finished", path)
        return Run(kind.model.from_pretrained(path / "model"), path)

    first = _reached(checkpoint)
    compiling, why_compiling = devices.choose_compile(
        config.compile, device, model, config.steps * config.batch_size
    )
    log.info("precision %s: %s", precision, why_precision)
    log.info("micro-batches of %d: %d per step and process", micro_batch, share // micro_batch)
    log.info("compiled: %s: %s", "yes" if compiling else "no", why_compiling)

    options = {"rank": trainer.global_rank, "world_size": trainer.world_size, "seed": config.seed}
    stream = _Stream(BatchLoader(corpus, share, **options), config.steps, first, module.watch)
    looks = BatchLoader(corpus, min(64, len(rows)), rows=rows, shuffle=False, drop_last=False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # between Lightning and torch
        if compiling:
            stack.enter_context(devices.compiled(module.model))
        if not first:
            trainer.validate(module, looks, verbose=False)  # untrained: the first point of the curve
        trainer.fit(module, stream, looks, ckpt_path=checkpoint if first else None)
        module.watch.collect()
        if (step := trainer.global_step) < config.steps:
            raise InterruptedError(f"{path}: stopped at step {step} of {config.steps}; the same call goes on")
        if module.history[-1]["step"] < config.steps:
            trainer.validate(module, looks, verbose=False)  # where the last look was not at the last step
    done = _whole(module.model)
    if trainer.is_global_zero:
        where = {"device": devices.device_name(device), "n_devices": trainer.world_size}
        facts = results.provenance(**where, precision=precision)
        done.save_pretrained(path / "model", **module.identity(), **facts, result=module.history[-1])
        checkpoint.unlink(missing_ok=True)
    trainer.strategy.barrier()
    return Run(done.eval(), path)
