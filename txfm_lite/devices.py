"""What a device asks for: number format, micro-batch, compilation; and sparse samples made dense on it.

Each choice is made here, once, and comes with its reason, so that a log can say why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from .loader import Batch
    from .training import Model, ModelConfig

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}  # our names: Lightning's
COMPILE_PAYS = 50_000.0  # TFLOP in a run below which a minute or two of compilation is not worth it


def training_device(accelerator: str = "auto") -> torch.device:
    """Return the device that ``lightning.Trainer(accelerator=...)`` would take."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """Return what a device is called in logs and results: "NVIDIA H200", "CPU", "MPS"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def choose_precision(wanted: str, device: torch.device) -> tuple[str, str]:
    """Return a key of `PRECISIONS` and the reason for it.

    Parameters
    ----------
    wanted : {"auto", "bf16", "fp16", "fp32"}
    device : torch.device

    Raises
    ------
    ValueError
        If the device has no such arithmetic.
    """
    native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    name = device_name(device)
    if wanted == "auto":
        if native:
            return "bf16", f"{name} multiplies bf16 matrices many times faster than fp32"
        if device.type == "cuda":
            return "fp16", f"{name} has no bf16"
        return "fp32", f"{name} gains little from half precision"
    if (wanted == "bf16" and device.type == "cuda" and not native) or (
        wanted == "fp16" and device.type != "cuda"
    ):
        raise ValueError(f"precision = {wanted!r}: {name} has none; 'auto' chooses what it has")
    return wanted, "as asked"


def choose_micro_batch(
    wanted: int | None, model: ModelConfig, share: int, device: torch.device, precision: str
) -> int:
    """Return how many samples go through the model at a time; it divides `share`, a process' part of a batch.

    Parameters
    ----------
    wanted : int, optional
        By default the largest number whose activations the device's memory holds.
    model : TxFMConfig or RankformerConfig
    share : int
    device : torch.device
    precision : str

    Raises
    ------
    ValueError
        If `wanted` does not divide `share`, or not even one sample fits.
    """
    if wanted is not None:
        if share % wanted:
            raise ValueError(f"micro_batch {wanted} does not divide the {share} samples of a process' batch")
        return wanted
    from .estimate import largest_divisor, micro_batch

    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):  # shared with the system and everything else
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    else:  # Windows does not say
        memory = 4e9
    return largest_divisor(share, micro_batch(model, memory, precision))


def choose_compile(
    wanted: bool | None, device: torch.device, model: ModelConfig, n_samples: int
) -> tuple[bool, str]:
    """Return whether to compile the model, and the reason.

    Parameters
    ----------
    wanted : bool, optional
    device : torch.device
    model : TxFMConfig or RankformerConfig
    n_samples : int
        Of the whole run.
    """
    if device.type != "cuda":
        return False, f"{device_name(device)}: only a GPU gains from it"
    if wanted is not None:
        return wanted, "as asked"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False, f"{device_name(device)} is too old to gain from it"
    from .estimate import tflop_per_sample

    work = n_samples * tflop_per_sample(model)
    pays = work >= COMPILE_PAYS
    return pays, f"{work:,.0f} TFLOP {'repay' if pays else 'do not repay'} some minutes of compilation"


@contextmanager
def compiled(model: Model) -> Iterator[None]:
    """Let encoder, decoder and loss of a model run compiled while it trains.

    Validation, with other shapes and little to gain, stays as it is. So does the lookup of gene vectors: its
    gradient, a scattered sum, gains nothing.
    """

    def in_training(plain: Callable) -> Callable:
        fast = torch.compile(plain, dynamic=False)
        return lambda *args, **options: (fast if model.training else plain)(*args, **options)

    model.tokens = torch.compiler.disable(model.tokens)
    parts = [part for part in ("encode", "decode", "loss") if hasattr(model, part)]
    for part in parts:
        setattr(model, part, in_training(getattr(model, part)))
    try:
        yield
    finally:
        for part in (*parts, "tokens"):
            delattr(model, part)  # the class' own method shows again


class Samples:
    """A loader's batch on its way to a device: shipped sparse, 4 bytes per non-zero, without waiting.

    Attributes
    ----------
    source : Batch
        The batch as the loader gave it.
    dataset : Tensor of int64, shape (b,)
    totals : Tensor of float32, shape (b,)
        Library sizes.
    """

    def __init__(self, batch: Batch, n_genes: int, device: torch.device):
        self.source, self.n_genes = batch, n_genes
        self.dataset = ship(batch.dataset, device)
        self.totals = ship(batch.library_size.astype(np.float32), device)
        self._lengths = ship(np.diff(batch.indptr), device)
        self._indices, self._counts = ship(batch.indices, device), ship(batch.counts, device)
        self._mask = [(1 << 8 * array.itemsize) - 1 for array in (batch.indices, batch.counts)]

    def __len__(self) -> int:
        return len(self.source)

    def counts(self, part: slice) -> torch.Tensor:
        """Return the counts of some samples, dense on the device: float32, shape (samples, G)."""
        a, b = self.source.indptr[part.start], self.source.indptr[part.stop]
        lengths = self._lengths[part]
        out = torch.zeros(len(lengths), self.n_genes, device=lengths.device)
        # told the number of entries, the device need not be asked for it
        row = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths, output_size=b - a)
        gene, count = (
            x[a:b].to(torch.int64) & mask
            for x, mask in zip((self._indices, self._counts), self._mask, strict=True)
        )
        out[row, gene] = count.float()
        return out


@contextmanager
def flushed() -> Iterator[None]:
    """Take numbers nearer to zero than 1e-38 for zero, on this thread's CPU.

    Adam's averages for a gene that is in few batches fade into such numbers, and an ordinary CPU takes twenty
    times as long for a sum with one of them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def ship(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to a device without waiting for it; unsigned integers arrive as signed ones.

    (Few of torch's operations know unsigned types. Widened, ``x & 0xFFFF`` is the value again.)
    """
    if array.dtype.kind == "u":
        array = array.view(array.dtype.str.replace("u", "i"))
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # only from such memory does a copy run beside other work
    return tensor.to(device, non_blocking=True)
