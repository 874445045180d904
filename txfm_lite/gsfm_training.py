"""Training of a GSFM: the published recipe, on sets held in memory, in a run that can stop and go on.

As in :mod:`txfm_lite.training`, whose trainer, checkpoints and folder these are, every draw of a step (which
sets, what is hidden, which units are dropped) follows from the seed and the step alone.

The recipe, with the published value as the default: Adam at 1e-3 (mEDAE 1e-5), 50 epochs of shuffled batches
of 128 sets; a learning rate that is multiplied by 0.25 when the training loss has not fallen for 10 epochs.
Published, this loss is that of the epoch's *last batch* alone; ``plateau="mean"`` takes the epoch's mean.

Published models were trained on all sets and chosen by the libraries that they are judged on. Here a share
of the training sets can be held out, to choose by: of each held-out set one half is shown, and the other is
to be found. ``history.csv`` has one line per look:

=================  ==================================================================================
``epoch, step``    looks are at the ends of epochs, and before the first
``train_loss``     mean since the last look, as trained
``loss``           on held-out sets: cross-entropy over all genes but those shown
``auroc``          on held-out sets: of the other half among all genes but those shown, mean over sets
``popularity``     the same of a gene's number of training sets: what needs no model
``learning_rate``  from here on
=================  ==================================================================================
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import devices, monitoring, results
from .genesets import GeneSets
from .gsfm import GSFM, GSFMConfig
from .gsfm_blocks import SPECIALS, binary_cross_entropy
from .gsfm_sets import SetBatch, SetLoader, SetSample, tokenise_sets
from .pretrained import vocabulary_hash
from .steps import Resumable, _seed
from .training import Run, _Keeper, _reached, _Stream, _trainer

log = logging.getLogger(__name__)

LEAST = 10  # tokens of a held-out set: fewer are no two halves of five
RATES = {"mEDAE": 1e-5}  # published learning rates that are not 1e-3


@dataclasses.dataclass(frozen=True)
class GSFMTrainConfig:
    """How to train a GSFM; the defaults are the published ones where there are any."""

    epochs: int = 50
    batch_size: int = 128
    learning_rate: float | None = None  # None: the published one of the architecture
    plateau: str = "last"  # what the learning rate follows: the "last" batch's loss, or the epoch's "mean"
    factor: float = 0.25  # of the learning rate, on a plateau
    patience: int = 10  # epochs without a smaller loss
    cooldown: float = 0.0  # share of the steps, the last ones, in which it falls to zero instead
    seed: int = 42
    validation: float = 0.0  # share of the sets that is held out, the same ones whatever the seed
    n_validation: int = 512  # of these, so many at most are looked at
    look_every: int = 1  # epochs
    checkpoint_minutes: float = 10.0
    precision: str = "fp32"  # "bf16" on a GPU, or "auto"

    def __post_init__(self):
        for field in ("epochs", "batch_size", "patience", "n_validation", "look_every"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"GSFMTrainConfig.{field} = {value!r}: should be a positive integer")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"GSFMTrainConfig.learning_rate = {self.learning_rate!r}: should be positive")
        if self.plateau not in ("last", "mean"):
            raise ValueError(f"GSFMTrainConfig.plateau = {self.plateau!r}: should be last or mean")
        if not 0 < self.factor < 1:
            raise ValueError(f"GSFMTrainConfig.factor = {self.factor!r}: should be between 0 and 1")
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"GSFMTrainConfig.cooldown = {self.cooldown!r}: should be a share of the steps")
        if not 0 <= self.validation < 1:
            raise ValueError(f"GSFMTrainConfig.validation = {self.validation!r}: should be a share below 1")
        if self.precision not in ("auto", *devices.PRECISIONS):
            known = ", ".join(devices.PRECISIONS)
            raise ValueError(f"GSFMTrainConfig.precision = {self.precision!r}: should be auto, {known}")


class SetSteps(Resumable):
    """The steps of a GSFM, and its looks at held-out sets."""

    def __init__(
        self,
        model: GSFM,
        config: GSFMTrainConfig,
        path: Path,
        fingerprint: str,
        libraries: list[str],
        loader: SetLoader,
        held_out: np.ndarray,
    ):
        super().__init__(model, config, path, fingerprint, libraries)
        self.watch.advice = "look at the weights of these sets, if they have any"
        self.tokens, self.held_out, self.epoch = loader.tokens, held_out, len(loader)  # epoch: steps of one
        counts = np.bincount(self.tokens.take(loader.rows)[1], minlength=self.tokens.n_columns)
        self.register_buffer("popularity", torch.from_numpy(counts).float(), persistent=False)
        self.register_buffer("total", torch.zeros(()), persistent=False)  # of the losses of an epoch

    def transfer_batch_to_device(self, batch: SetBatch, device: torch.device, _: int) -> SetSample:
        """Ship the batch (Lightning calls this)."""
        return SetSample(batch, device)

    def on_train_start(self) -> None:
        """Look at the untrained model: the first point of the curve."""
        if self.global_step == 0:
            self._look()

    def training_step(self, sample: SetSample, _: int) -> None:
        """Do one step; at the end of an epoch see to the learning rate and look at held-out sets."""
        step, optimiser = self.global_step, self.optimizers()
        torch.manual_seed(_seed(self.config.seed, step))  # of the units dropped
        loss = self.model.loss(sample.bags, sample.shown)
        with torch.autocast(self.device.type, enabled=False):  # backward does as forward did
            self.manual_backward(loss)
        optimiser.step()
        optimiser.zero_grad()
        loss = loss.detach()
        self.total += loss
        self.watch.add(loss[None], step, sample.source)
        if self.logger and step % 20 == 0 and self.watch.n:
            self.logger.log_metrics({"train_loss": self.watch.last}, step)
        if self.config.cooldown:
            self.lr_schedulers().step()
        done, rest = divmod(step + 1, self.epoch)
        if not rest:
            if not self.config.cooldown:
                followed = loss if self.config.plateau == "last" else self.total / self.epoch
                self.lr_schedulers().step(followed.item())
            self.total.zero_()
            if done % self.config.look_every == 0 or done == self.config.epochs:
                self._look()

    def _look(self) -> None:
        """Write one line of history."""
        self.watch.collect()
        watch, step = self.watch, self.global_step
        self.model.eval()
        loss, auroc, popularity = self._held_out()
        self.model.train()
        row = {
            "epoch": step // self.epoch,
            "step": step,
            "minutes": self._clock(),
            "train_loss": watch.total / watch.n if watch.n else float("nan"),
            "loss": loss,
            "auroc": auroc,
            "popularity": popularity,
            "learning_rate": self.optimizers().param_groups[0]["lr"],
        }
        self.history.append(row)
        watch.reset()
        if self.logger:
            self.logger.log_metrics({k: row[k] for k in ("loss", "auroc", "learning_rate")}, step)
        monitoring.write_history(self.history, self.path / "history.csv")

    @torch.no_grad()
    def _held_out(self) -> tuple[float, float, float]:
        """Return loss and AUROC on held-out sets, and the AUROC of popularity; NaN without any."""
        if not len(self.held_out):
            return (float("nan"),) * 3
        with torch.random.fork_rng(devices=[]):  # a VAE draws
            torch.manual_seed(0)
            scored = [
                self._half(rows) for rows in np.array_split(self.held_out, -(-len(self.held_out) // 64))
            ]
        return tuple(np.concatenate(scored).mean(0).tolist())

    def _half(self, rows: np.ndarray) -> np.ndarray:
        """Show one half of some sets, the same one at every look, and score the other: (rows, 3)."""
        bags = self.tokens.bags(rows, self.device)
        noise = np.concatenate([np.random.default_rng([0, r]).random(self.tokens.sizes[r]) for r in rows])
        shown = _show_half(torch.from_numpy(self.tokens.sizes[rows]), torch.from_numpy(noise)).to(self.device)
        logits = self.model(*bags.where(shown))
        out, row = [], bags.rows
        for i, x in enumerate(logits):
            mine = row == i
            known, wanted = bags.indices[mine & shown], bags.indices[mine & ~shown]
            members = bags.indices[mine]
            loss = binary_cross_entropy(x[None], members, (~shown[mine]).float())
            loss *= len(x) / (len(x) - len(known))  # those shown have been left out
            candidate = torch.ones_like(x, dtype=torch.bool)
            candidate[: len(SPECIALS)] = False
            candidate[known] = False
            wanted = wanted[wanted >= len(SPECIALS)]
            out.append([loss.item(), *(_auroc(s, wanted, candidate) for s in (x, self.popularity))])
        return np.array(out)

    def configure_optimizers(self) -> Any:
        """Adam with one kernel for all weights, and the plateau, or the fall to zero at the end."""
        config = self.config
        rate = config.learning_rate or RATES.get(self.model.config.architecture, 1e-3)
        known = tuple(int(x) for x in torch.__version__.split(".")[:2])
        fused = self.device.type == "cuda" or (self.device.type == "cpu" and known >= (2, 4))
        fused = fused and self.trainer.precision != "16-mixed"  # Lightning has to see those gradients
        optimiser = torch.optim.Adam(self.model.parameters(), lr=rate, fused=fused or None)
        schedulers, steps = torch.optim.lr_scheduler, config.epochs * self.epoch
        if config.cooldown:

            def left(step: int) -> float:
                return min(1.0, (steps - step) / (config.cooldown * steps))

            return [optimiser], [schedulers.LambdaLR(optimiser, left)]
        plateau = schedulers.ReduceLROnPlateau(optimiser, factor=config.factor, patience=config.patience)
        return [optimiser], [plateau]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the losses of the epoch so far, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["total"] = self.total.item()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on amid an epoch."""
        super().on_load_checkpoint(checkpoint)
        self.total.fill_(checkpoint["total"])


def hold_out(n: int, validation: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which of n sets are held out, and which are trained on; the seed of a run has no say in it."""
    order, n_held_out = np.random.default_rng(0).permutation(n), round(validation * n)
    return order[:n_held_out], np.sort(order[n_held_out:])


def _show_half(lengths: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return a mask that shows the first half, rounded down, of each set in the order of the noise."""
    rows = torch.arange(len(lengths)).repeat_interleave(lengths)
    place = torch.empty_like(rows)
    place[(rows + noise).argsort()] = torch.arange(len(rows))
    return place - (lengths.cumsum(0) - lengths)[rows] < (lengths // 2)[rows]


def _auroc(scores: torch.Tensor, positive: torch.Tensor, candidate: torch.Tensor) -> float:
    """Return the area under the ROC curve of one set, ties counted half; NaN without positives.

    Parameters
    ----------
    scores : Tensor, shape (V,)
    positive : Tensor of int64
        Positions; all of them candidates.
    candidate : Tensor of bool, shape (V,)
    """
    order = np.sort(scores[candidate].float().numpy(force=True))  # several times as fast as torch
    mine = scores[positive].float().numpy(force=True)
    below = np.searchsorted(order, mine) + np.searchsorted(order, mine, side="right")
    n, others = len(positive), len(order) - len(positive)
    if not n or not others:
        return float("nan")
    return float(((below.sum() - n) / 2 - n * (n - 1) / 2) / (n * others))


def fit(
    sets: GeneSets,
    model: GSFMConfig,
    config: GSFMTrainConfig,
    path: str | Path,
    *,
    genes: Sequence[str] | None = None,
    progress: bool = True,
    snapshots: Sequence[int] = (),
    **trainer: Any,
) -> Run:
    """Train a model on gene sets, or go on with the run that stopped in `path`, or open it if it is done.

    Parameters
    ----------
    sets : GeneSets
        Every one is trained on, but for those held out; how many are is logged and kept with the model.
    model : GSFMConfig
        ``n_tokens`` must be the number of genes plus two.
    config : GSFMTrainConfig
    path : path
        A folder: ``history.csv``, ``last.ckpt`` while running, ``model/`` when done.
    genes : sequence of str, optional
        The vocabulary, without the special tokens; other genes of the sets become ``<unk>``. By default all
        genes of `sets`, in their order.
    progress : bool
        Show a progress bar.
    snapshots : sequence of int
        Keep the model after these epochs, 0 included, as ``snapshots/step-<n>`` in the folder.
    **trainer
        Further arguments of ``lightning.Trainer``, for example ``accelerator="cpu"``.

    Returns
    -------
    Run
        With ``model`` (in evaluation mode), ``path`` and ``history``.

    Raises
    ------
    ValueError
        If a set has no token, the vocabulary is of another size, no held-out set has ten tokens, or `path`
        holds a run with other sets, model or schedule.
    FloatingPointError
        If the loss stops being a finite number, naming step, libraries and sets.
    InterruptedError
        If one of the trainer's arguments, such as ``max_time``, ended the run early: the same call goes on.
    """
    path = Path(path)
    vocabulary = [*SPECIALS, *(str(g) for g in (sets.genes if genes is None else genes))]
    if model.n_tokens != len(vocabulary):
        raise ValueError(
            f"GSFMConfig.n_tokens is {model.n_tokens:,}; the vocabulary has {len(vocabulary):,}, "
            f"{', '.join(SPECIALS)} included"
        )
    tokens = tokenise_sets(sets, vocabulary, model.channels)
    if (empty := np.flatnonzero(tokens.sizes == 0)).size:
        raise ValueError(
            f"{empty.size} sets have no gene, for example {sets.names[empty[0]]!r}: leave them out"
        )
    held_out, rows = hold_out(len(tokens), config.validation)
    if (n_held_out := len(held_out)) == len(tokens):
        raise ValueError(f"no set is left to train on: {len(tokens)} sets, {config.validation:.0%} held out")
    looked_at = np.sort(held_out[tokens.sizes[held_out] >= LEAST][: config.n_validation])
    if n_held_out and not len(looked_at):
        raise ValueError(f"none of the {n_held_out} sets held out has {LEAST} genes of the vocabulary")

    path.mkdir(parents=True, exist_ok=True)
    device = devices.training_device(trainer.get("accelerator", "auto"))
    precision, why_precision = devices.choose_precision(config.precision, device)
    libraries, dataset = np.unique(sets.libraries.astype(str), return_inverse=True)
    hiding = model.partition, model.hiding
    loader = SetLoader(tokens, rows, dataset, config.batch_size, config.seed, *hiding)
    steps, checkpoint = config.epochs * len(loader), path / "last.ckpt"
    trainer["callbacks"] = [
        _Keeper(path / "snapshots", [n * len(loader) for n in snapshots]),
        *trainer.get("callbacks", []),
    ]
    trainer = {"devices": 1, "num_nodes": 1, "limit_val_batches": 0, **trainer}
    schedule = steps, steps, config.checkpoint_minutes
    trainer = _trainer(*schedule, checkpoint, devices.PRECISIONS[precision], progress, trainer)

    torch.manual_seed(config.seed)
    net = GSFM(model, vocabulary)
    digest = f"{tokens.fingerprint[:32]}{vocabulary_hash(vocabulary)[:32]}"
    module = SetSteps(net, config, path, digest, libraries.tolist(), loader, looked_at)
    if (path / "model" / "config.json").is_file():
        module.check(json.loads((path / "model" / "config.json").read_text())["provenance"])
        log.info("%s holds this run, finished", path)
        return Run(GSFM.from_pretrained(path / "model"), path)
    first = _reached(checkpoint)
    log.info("precision %s: %s", precision, why_precision)
    log.info("%d sets to train on, %d held out, %d of these looked at", len(rows), n_held_out, len(looked_at))

    with warnings.catch_warnings(), devices.flushed():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # between Lightning and torch
        stream = _Stream(loader, steps, first, module.watch)
        trainer.fit(module, stream, ckpt_path=checkpoint if first else None)
        module.watch.collect()
    if (step := trainer.global_step) < steps:
        raise InterruptedError(f"{path}: stopped at step {step} of {steps}; the same call goes on")
    numbers = {"n_sets": len(rows), "n_held_out": n_held_out}
    facts = results.provenance(device=devices.device_name(device), precision=precision, **numbers)
    known = {k: v for k, v in module.history[-1].items() if v == v}  # all but NaN
    net.save_pretrained(path / "model", **module.identity(), **facts, result=known)
    checkpoint.unlink(missing_ok=True)
    return Run(net.eval(), path)


def train_on(
    sets: GeneSets,
    genes: Sequence[str],
    config: GSFMTrainConfig,
    path: str | Path,
    *,
    shape: dict[str, Any] | None = None,
    **options: Any,
) -> Run:
    """Train over a vocabulary: its genes alone are seen, and sets with none of them are left out.

    Parameters
    ----------
    sets : GeneSets
    genes : sequence of str
        For example of :func:`txfm_lite.genesets.vocabulary`.
    config : GSFMTrainConfig
    path : path
        As for :func:`fit`.
    shape : dict, optional
        Fields of :class:`~txfm_lite.gsfm.GSFMConfig`, beside ``n_tokens``.
    **options
        Further arguments of :func:`fit`.
    """
    known = sets.over(genes)
    kept = known[known.sizes > 0]
    log.info("%d of %d sets have a gene of the vocabulary", len(kept), len(sets))
    return fit(kept, GSFMConfig(len(genes) + len(SPECIALS), **(shape or {})), config, path, **options)
