"""Pretraining on a corpus: one Lightning module, one call, and a run that can stop and go on.

Every random draw of a step (which cells, which genes are shown, which blocks are skipped) follows from the
seed and the step's number alone. A run that is resumed from a checkpoint therefore sees exactly what it would
have seen without the interruption.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

from .corpus import Corpus
from .loader import Batch, BatchLoader
from .objectives import poisson_loss
from .txfm import TxFM, TxFMConfig, log_normalise

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's where it states them."""

    steps: int  # optimiser steps
    batch_size: int = 1536
    learning_rate: float = 1e-3  # the peak of one cosine cycle with 10 % warm-up
    seed: int = 0
    start_from_profile: bool = True  # open: the decoder's bias begins at the corpus' mean profile
    validate_every: int = 500  # steps
    checkpoint_minutes: float = 10.0
    n_validation: int = 512  # validation samples per look, the same ones each time

    def __post_init__(self):
        for field in ("steps", "batch_size", "validate_every", "n_validation", "learning_rate"):
            if not getattr(self, field) > 0:
                raise ValueError(f"TrainConfig.{field} = {getattr(self, field)!r}: should be positive")


def mean_profile(corpus: Corpus, library_size: float) -> np.ndarray:
    """Return the mean library-normalised counts of each gene, shape (G,), float64.

    The mean runs over the training samples whose dataset measures the gene; zero where none does.
    """
    total, n = np.zeros(corpus.n_genes), np.zeros(corpus.n_genes)
    rows = corpus.rows("train")
    for start in range(0, len(rows), 4096):
        some = rows[start : start + 4096]
        indptr, indices, counts = corpus.read(some)
        scale = np.repeat(library_size / corpus.library_size[some], np.diff(indptr))
        total += np.bincount(indices, counts * scale, corpus.n_genes)
    for dataset, size in enumerate(np.bincount(corpus.dataset[rows], minlength=len(corpus.measured))):
        n += size * corpus.measured[dataset]
    return total / np.maximum(n, 1)


class Pretraining(lightning.LightningModule):
    """The training step, the validation step and the optimiser of a TxFM.

    Besides the loss it follows what tells learning from memorising an average:

    ``floor``
        The loss of predicting the corpus' mean profile for every cell: what a model reaches without looking.
    ``explained``
        (floor − loss) / (floor − loss of a perfect prediction): 0 on the plateau, 1 for a perfect model.
    ``probe``
        Cell types of held-out batches, told by their nearest neighbours in the other batches of the same
        datasets: balanced accuracy. Chance is one over the number of types.
    """

    def __init__(self, model: TxFM, corpus: Corpus, config: TrainConfig):
        super().__init__()
        self.model, self.corpus, self.config = model, corpus, config
        self.history: list[dict[str, float]] = []
        self.register_buffer("measured", torch.from_numpy(np.array(corpus.measured)), persistent=False)
        profile = mean_profile(corpus, model.config.library_size)
        self.register_buffer("log_profile", torch.from_numpy(np.log1p(profile)).float(), persistent=False)
        if config.start_from_profile:
            model.start_from_profile(torch.from_numpy(profile).float())
        self._losses: list[torch.Tensor] = []
        self._validation: list[tuple[int, torch.Tensor]] = []
        self._minutes, self._started = 0.0, time.monotonic()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Any:
        """Make the sparse counts dense on the device: values (B, G), measured (B, G)."""
        row = np.repeat(np.arange(len(batch)), np.diff(batch.indptr))
        row, gene = (torch.from_numpy(x).to(device) for x in (row, batch.indices.astype(np.int64)))
        counts = torch.zeros(len(batch), self.corpus.n_genes, device=device)
        counts[row, gene] = torch.from_numpy(batch.counts.astype(np.float32)).to(device)
        totals = torch.from_numpy(batch.library_size.astype(np.float32)).to(device)
        x = log_normalise(counts, totals, self.model.config.library_size)
        return x, self.measured[torch.from_numpy(batch.dataset).to(device)]

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """Return the loss of one batch."""
        values, measured = batch
        # the same step draws the same genes and skips the same blocks, resumed or not, on every rank its own
        torch.manual_seed(hash((self.config.seed, self.global_step, self.global_rank)) % 2**63)
        loss = poisson_loss(self.model(values, measured), values, measured)
        if not torch.isfinite(loss):
            at = f"at step {self.global_step}"
            raise FloatingPointError(f"the loss is {loss.item()} {at}: lower the learning rate")
        self._losses.append(loss.detach())
        self.log("loss", loss, prog_bar=True, logger=False)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        """Add up the losses of the model, of the mean profile and of a perfect prediction."""
        values, measured = batch
        generator = torch.Generator(values.device).manual_seed(index)  # the same genes at every look
        guesses = self.model(values, measured, generator), self.log_profile.expand_as(values), values
        self._validation.append(
            (len(values), torch.stack([poisson_loss(g, values, measured) for g in guesses]))
        )

    def on_validation_epoch_end(self) -> None:
        """Write one line of history."""
        if self.trainer.sanity_checking:
            return
        weights = torch.tensor([float(n) for n, _ in self._validation])
        losses = torch.stack([x.cpu() for _, x in self._validation])
        loss, floor, perfect = ((weights[:, None] * losses).sum(0) / weights.sum()).tolist()
        row = {
            "step": self.global_step,
            "samples": self.global_step * self.config.batch_size,
            "minutes": self._minutes + (time.monotonic() - self._started) / 60,
            "train_loss": torch.stack(self._losses).mean().item() if self._losses else float("nan"),
            "loss": loss,
            "floor": floor,
            "explained": (floor - loss) / (floor - perfect),
            "probe": self._probe(),
        }
        self.history.append(row)
        self._losses.clear()
        self._validation.clear()
        self.log_dict({k: row[k] for k in ("explained", "probe")}, prog_bar=True, logger=False)

    def _probe(self, n_cells: int = 800, n_shown: int = 1024) -> float:
        """Return the mean, over the training datasets that allow it, of held-out batches' kNN accuracy."""
        from .embed import encode
        from .evaluate.cells import knn_accuracy

        corpus, questions, scores = self.corpus, [], []
        for code in range(len(corpus.datasets)):
            mine = np.flatnonzero((corpus.dataset == code) & (corpus.cell_type >= 0))
            query, reference = (mine[corpus.split[mine] == split] for split in (1, 0))
            query = query[np.isin(corpus.cell_type[query], corpus.cell_type[reference])]
            if query.size:
                questions.append((code, reference, query))
        for code, *sides in questions:
            rng = np.random.default_rng(code)  # the same cells and genes at every look
            sides = [rng.permutation(rows)[: n_cells // (2 * len(questions))] for rows in sides]
            genes = rng.permutation(np.flatnonzero(corpus.measured[code]))[:n_shown]
            shown = torch.from_numpy(genes)
            vectors = [
                encode(self.model, corpus.csr(rows)[:, genes], corpus.library_size[rows], shown)
                for rows in sides
            ]
            labels = [corpus.cell_type[rows].astype(str) for rows in sides]
            scores.append(knn_accuracy(vectors[0], labels[0], vectors[1], labels[1]))
        return float(np.mean(scores)) if scores else float("nan")

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, weight decay 1 / (lr · steps) on matrices, one cosine cycle: the paper's settings."""
        steps, lr = self.config.steps, self.config.learning_rate
        decayed = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "codebook" not in n]
        spared = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "codebook" in n]
        groups = [
            {"params": decayed, "weight_decay": 1 / (lr * steps)},
            {"params": spared, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-6)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=lr, total_steps=steps, pct_start=0.1, cycle_momentum=False
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep, beside the weights, what a resumed run must not differ in, and the history so far."""
        checkpoint["identity"] = self._identity()
        checkpoint["history"] = self.history
        checkpoint["losses"] = self._losses
        checkpoint["minutes"] = self._minutes + (time.monotonic() - self._started) / 60

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint stands; refuse another corpus, model or schedule."""
        for key, mine in self._identity().items():
            theirs = checkpoint["identity"].get(key)
            if theirs != mine:
                raise ValueError(
                    f"cannot resume: {key} was {theirs!r} and is {mine!r} now; use another folder"
                )
        self.history, self._losses = checkpoint["history"], checkpoint["losses"]
        self._minutes = checkpoint["minutes"]

    def _identity(self) -> dict[str, Any]:
        schedule = {k: v for k, v in asdict(self.config).items() if k != "checkpoint_minutes"}
        return {"corpus": self.corpus.fingerprint, **asdict(self.model.config), **schedule}


class _Stream:
    """The loader's epochs, one after another, from a given step to the last: what Lightning takes for one."""

    def __init__(self, loader: BatchLoader, steps: int, first: int = 0):
        self.loader, self.steps, self.first = loader, steps, first

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
        left = self.steps - self.first
        while left > 0:
            for item in self.loader:
                yield item
                left -= 1
                if not left:
                    return


class _Saver(lightning.Callback):
    """Save a checkpoint every few minutes, aside and then renamed: a killed run leaves a whole one."""

    def __init__(self, path: Path, minutes: float):
        self.path, self.minutes, self.last = path, minutes, time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if time.monotonic() - self.last >= 60 * self.minutes:
            aside = self.path.with_suffix(".partial")
            trainer.save_checkpoint(aside)
            if trainer.is_global_zero:
                os.replace(aside, self.path)
            self.last = time.monotonic()


@dataclass
class Run:
    """A trained model, the folder that holds it, and its history (one row per look at the validation set)."""

    model: TxFM
    path: Path
    history: pd.DataFrame


def fit(
    corpus: Corpus,
    model: TxFMConfig,
    config: TrainConfig,
    path: str | Path,
    *,
    progress: bool = True,
    **trainer: Any,
) -> Run:
    """Train a TxFM on a corpus, or go on with the run that stopped in `path`, or open it if it is done.

    Parameters
    ----------
    corpus : Corpus
    model : TxFMConfig
        ``n_genes`` must be the corpus'.
    config : TrainConfig
    path : path
        A folder: ``last.ckpt`` while running, ``model/`` and ``history.csv`` when done.
    progress : bool
        Show a progress bar.
    **trainer
        Further arguments of ``lightning.Trainer``, for example ``devices`` or ``precision``.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If `path` holds a run with another corpus, model or schedule.
    FloatingPointError
        If the loss stops being a number.
    """
    import json

    import pandas as pd

    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if model.n_genes != corpus.n_genes:
        raise ValueError(f"TxFMConfig.n_genes is {model.n_genes:,}; the corpus has {corpus.n_genes:,}")
    torch.manual_seed(config.seed)
    module = Pretraining(TxFM(model, corpus.genes.tolist()), corpus, config)
    if (path / "model" / "config.json").is_file():
        done = json.loads((path / "model" / "config.json").read_text())["provenance"]
        module.on_load_checkpoint({"identity": done, "history": [], "losses": [], "minutes": 0.0})
        log.info("%s holds this run, finished", path)
        return Run(TxFM.from_pretrained(path / "model"), path, pd.read_csv(path / "history.csv"))

    checkpoint = path / "last.ckpt"
    first = 0
    if checkpoint.is_file():
        first = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
        log.info("%s: going on from step %d", checkpoint, first)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its remarks on devices and loggers
    gpu = torch.cuda.is_available()
    trainer = lightning.Trainer(
        **{
            "accelerator": "auto",
            "devices": 1,
            "precision": "bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true",
            "max_steps": config.steps,
            "val_check_interval": min(config.validate_every, config.steps),
            "num_sanity_val_steps": 0,
            "gradient_clip_val": 1.0,
            "callbacks": [_Saver(checkpoint, config.checkpoint_minutes)],
            "enable_checkpointing": False,
            "enable_progress_bar": progress,
            "enable_model_summary": False,
            "logger": False,
            **trainer,
        }
    )
    options = {"rank": trainer.global_rank, "world_size": trainer.world_size, "seed": config.seed}
    loader = BatchLoader(corpus, config.batch_size // trainer.world_size, **options)
    rows = np.random.default_rng(0).permutation(corpus.rows("validation"))[: config.n_validation]
    looks = BatchLoader(corpus, min(256, len(rows)), rows=rows, shuffle=False, drop_last=False)
    stream = _Stream(loader, config.steps, first)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # between Lightning and torch
        if not first:
            trainer.validate(module, looks, verbose=False)  # untrained: the first point of the curve
        trainer.fit(module, stream, looks, ckpt_path=checkpoint if first else None)
    history = pd.DataFrame(module.history)
    aside = path / "history.csv.partial"
    history.to_csv(aside, index=False)
    os.replace(aside, path / "history.csv")
    module.model.save_pretrained(path / "model", **module._identity(), **history.iloc[-1].to_dict())
    checkpoint.unlink(missing_ok=True)
    return Run(module.model.eval(), path, history)
