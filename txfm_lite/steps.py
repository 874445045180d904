"""One step of training, whatever the model: what is drawn, compared, followed and kept.

Every random draw of a step (which cells, what is hidden, which blocks are skipped) follows from the seed and
the step's number alone. A run that is resumed from a checkpoint therefore sees exactly what it would have
seen without the interruption. What is hidden is drawn for the whole batch, and each process and each
micro-batch takes its own rows: how a batch is divided does not change what is learned from it. (Stochastic
depth is the exception: each micro-batch skips a fixed share of its own samples.)

:mod:`txfm_lite.pretraining` says what the loss of each model is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

from . import devices, monitoring
from .corpus import Corpus
from .loader import Batch

HOW_NOT_WHAT = ("checkpoint_minutes", "micro_batch", "precision", "compile")  # may differ when a run goes on


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's where it states them."""

    steps: int  # optimiser steps
    batch_size: int = 1536  # samples per step, over all devices
    learning_rate: float = 1e-3  # the peak of one cosine cycle with 10 % warm-up
    clip: float = 1.0  # open: longest gradient
    seed: int = 0
    start_from_profile: bool = True  # open: the decoder's bias begins at the corpus' mean profile
    start_from_components: int = 0  # ours: so many coordinates of the gene vectors begin at principal axes
    validate_every: int = 500  # steps
    n_validation: int = 512  # validation samples per look, the same ones each time
    checkpoint_minutes: float = 10.0
    micro_batch: int | None = None  # samples at a time on one device; None: as many as its memory holds
    precision: str = "auto"  # "bf16", "fp16", "fp32"; "auto": what the device is fast at
    compile: bool | None = None  # None: on a recent GPU, if the run is long enough to repay it

    def __post_init__(self):
        for field in ("steps", "batch_size", "validate_every", "n_validation", "learning_rate", "clip"):
            if not getattr(self, field) > 0:
                raise ValueError(f"TrainConfig.{field} = {getattr(self, field)!r}: should be positive")
        if self.start_from_components < 0:
            raise ValueError(f"TrainConfig.start_from_components = {self.start_from_components}: negative")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"TrainConfig.micro_batch = {self.micro_batch!r}: should be positive, or None")
        if self.precision not in ("auto", *devices.PRECISIONS):
            known = ", ".join(devices.PRECISIONS)
            raise ValueError(f"TrainConfig.precision = {self.precision!r}: should be auto, {known}")


class Resumable(lightning.LightningModule):
    """What a run keeps and compares, so that it can stop and go on: identity, history, losses, minutes.

    Parameters
    ----------
    model : Module
    config : dataclass
        How to train.
    path : path
        The run's folder.
    fingerprint : str
        Of the data.
    datasets : list of str
        Their names, for messages.
    """

    def __init__(self, model: nn.Module, config: Any, path: Path, fingerprint: str, datasets: list[str]):
        super().__init__()
        self.automatic_optimization = False  # one call of training_step is one optimiser step
        self.model, self.config, self.path, self.fingerprint = model, config, path, fingerprint
        self.history: list[dict[str, float]] = []
        self.origin: dict[str, str] = {}  # of the initial weights, unless they are random
        self.watch = monitoring.Watch(datasets)
        self._minutes, self._started = 0.0, time.monotonic()

    def _clock(self) -> float:
        return self._minutes + (time.monotonic() - self._started) / 60

    def _over_ranks(self, value: float) -> float:
        if self.trainer.world_size == 1:  # also where the device has no float64
            return value
        value = torch.tensor(value, dtype=torch.float64, device=self.device)
        return self.trainer.strategy.reduce(value, reduce_op="mean").item()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep, beside the weights, what a resumed run must not differ in, and the history so far."""
        self.watch.collect()  # no checkpoint after a loss that was not finite
        checkpoint["identity"] = self.identity()
        checkpoint["history"] = self.history
        checkpoint["losses"] = (self._over_ranks(self.watch.total), self.watch.n)
        checkpoint["gradient"] = self.watch.gradient
        checkpoint["minutes"] = self._clock()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint stands; refuse other data, another model or schedule."""
        self.check(checkpoint["identity"])
        self.history, self._minutes = checkpoint["history"], checkpoint["minutes"]
        self.watch.total, self.watch.n = checkpoint["losses"]
        self.watch.gradient = checkpoint["gradient"]

    def identity(self) -> dict[str, Any]:
        """Return all that decides what is learned."""
        schedule = {k: v for k, v in asdict(self.config).items() if k not in HOW_NOT_WHAT}
        return {"corpus": self.fingerprint, **asdict(self.model.config), **schedule, **self.origin}

    def check(self, theirs: dict[str, Any]) -> None:
        """Refuse to go on with a run whose identity is another one."""
        for key, mine in {"init": None, **self.identity()}.items():
            if theirs.get(key) != mine:
                raise ValueError(
                    f"cannot resume: {key} was {theirs.get(key)!r} and is {mine!r} now; use another folder"
                )


class Steps(Resumable):
    """The training step, the validation step and the optimiser: what all models share.

    A model adds what a batch becomes on the device (:meth:`prepare`), its loss (:meth:`training_loss`), the
    losses that this is read against (:meth:`losses`), and how the probe sees cells (:meth:`embed`).

    A step never waits for its device: losses are read some steps later (:class:`txfm_lite.monitoring.Watch`).
    Besides the loss it follows what tells learning from memorising an average:

    ``floor``
        The loss of predicting the corpus' mean for every cell: what a model reaches without looking at it.
    ``explained``
        (floor − loss) / (floor − loss of a perfect prediction): 0 on the plateau, 1 for a perfect model.
    ``probe``
        Cell types of held-out batches, told by their nearest neighbours in the other batches of the same
        datasets: balanced accuracy. Chance is one over the number of types.
    ``gradient``
        Length of the longest gradient since the last look, before clipping: what grows when a run diverges.
    ``waiting``
        Share of the time since the last look that went into waiting for data.
    """

    noise_shape: tuple[int, ...]  # of the numbers that decide what is hidden of one sample

    def __init__(self, model: nn.Module, corpus: Corpus, config: TrainConfig, path: Path, micro_batch: int):
        super().__init__(model, config, path, corpus.fingerprint, [d["name"] for d in corpus.datasets])
        self.corpus, self.micro_batch = corpus, micro_batch
        self._validation: list[tuple[int, torch.Tensor]] = []

    def prepare(self, batch: Batch, device: torch.device) -> Sized:
        """Return a batch on the device: sliced by samples later, and with the batch itself as ``source``."""
        raise NotImplementedError

    def training_loss(self, samples: Sized, part: slice, noise: torch.Tensor) -> torch.Tensor:
        """Return the loss of some samples."""
        raise NotImplementedError

    def losses(self, samples: Sized, noise: torch.Tensor) -> torch.Tensor:
        """Return the losses of the model, of the corpus' mean and of a perfect prediction, shape (3,)."""
        raise NotImplementedError

    def embed(self, rows: np.ndarray, dataset: int) -> np.ndarray:
        """Embed rows of the corpus, all of one dataset, for the probe."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Share out the weights where the strategy asks for it (Lightning calls this)."""
        if self.device_mesh is not None:
            _shard(self.model, self.device_mesh["data_parallel"])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Sized:
        """Ship the batch (Lightning calls this)."""
        return self.prepare(batch, device)

    def _noise(self, n: int, *seed: int) -> torch.Tensor:
        """Return the numbers in [0, 1) that decide what is hidden, (n, ...), the same on every rank."""
        generator = torch.Generator(self.device).manual_seed(_seed(self.config.seed, *seed))
        return torch.rand(n, *self.noise_shape, generator=generator, device=self.device)

    def training_step(self, samples: Sized, _: int) -> None:
        """Do one optimiser step, micro-batch by micro-batch."""
        step, n, losses = self.global_step, len(samples), []
        world, rank, optimiser = self.trainer.world_size, self.global_rank, self.optimizers()
        noise = self._noise(n * world, step)[rank * n : (rank + 1) * n]
        whole = getattr(self.trainer.strategy, "block_backward_sync", contextlib.nullcontext)
        for start in range(0, n, self.micro_batch):
            part = slice(start, start + self.micro_batch)
            torch.manual_seed(_seed(self.config.seed, step, start, rank))  # of the blocks skipped
            # processes exchange gradients once per step
            with whole() if part.stop < n else contextlib.nullcontext():
                loss = self.training_loss(samples, part, noise)
                with torch.autocast(self.device.type, enabled=False):  # backward does as forward did
                    self.manual_backward(loss * self.micro_batch / n)
            losses.append(loss.detach())
        scaler = getattr(
            self.trainer.precision_plugin, "scaler", None
        )  # fp16: the gradients are still scaled
        scale = scaler.get_scale() if scaler else 1.0
        length = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip * scale)
        if hasattr(length, "full_tensor"):  # of weights that are shared out
            length = length.full_tensor()
        optimiser.step()
        optimiser.zero_grad()
        self.lr_schedulers().step()
        self.watch.add(torch.stack(losses), step, samples.source, length / scale)
        if self.logger and step % 20 == 0 and self.watch.n:
            self.logger.log_metrics({"train_loss": self.watch.last}, step)

    def validation_step(self, samples: Sized, index: int) -> None:
        """Add up the losses of the model, of the corpus' mean and of a perfect prediction."""
        noise = self._noise(len(samples), index)  # the same tokens at every look
        self._validation.append((len(samples), self.losses(samples, noise)))

    def on_validation_epoch_end(self) -> None:
        """Write one line of history."""
        watch = self.watch
        watch.collect()
        weights = torch.tensor([float(n) for n, _ in self._validation])
        losses = torch.stack([x.cpu() for _, x in self._validation])
        loss, floor, perfect = ((weights[:, None] * losses).sum(0) / weights.sum()).tolist()
        row = {
            "step": self.global_step,
            "samples": self.global_step * self.config.batch_size,
            "minutes": self._clock(),
            "train_loss": self._over_ranks(watch.total) / watch.n if watch.n else float("nan"),
            "loss": loss,
            "floor": floor,
            "explained": (floor - loss) / (floor - perfect),
            "probe": monitoring.probe(self.embed, self.corpus),
            "gradient": watch.gradient,
            "waiting": watch.waited / max(time.monotonic() - watch.started, 1e-9),
        }
        self.history.append(row)
        watch.reset()
        self._validation.clear()
        if self.logger:
            self.logger.log_metrics(
                {k: row[k] for k in ("loss", "explained", "probe", "waiting")}, row["step"]
            )
        if self.trainer.is_global_zero:
            monitoring.write_history(self.history, self.path / "history.csv")

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, weight decay 1 / (lr · steps) on matrices, one cosine cycle: the paper's settings."""
        steps, lr = self.config.steps, self.config.learning_rate
        decayed = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "codebook" not in n]
        spared = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "codebook" in n]
        groups = [
            {"params": decayed, "weight_decay": 1 / (lr * steps)},
            {"params": spared, "weight_decay": 0.0},
        ]
        # one kernel for all weights; with fp16 Lightning has to see the gradients between scaling and step
        fused = self.device.type == "cuda" and self.trainer.precision != "16-mixed"
        optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-6, fused=fused or None)
        warm_up = min(max(0.1, 1.5 / steps), 0.9)  # the cycle divides by zero at a warm-up of one step
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=lr, total_steps=steps, pct_start=warm_up, cycle_momentum=False
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def _seed(*numbers: int) -> int:
    return hash(numbers) % 2**63


def _shard(model: nn.Module, mesh: Any) -> None:
    """Divide weights, gradients and optimiser among processes (PyTorch's FSDP2), block by block."""
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if isinstance(model, FSDPModule):  # Lightning asks before validation and before training
        return
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    register_fsdp_forward_method(model.blocks[0], "pool")  # what a single block of a TxFM does
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "encode")  # the probe calls it directly
