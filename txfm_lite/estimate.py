"""What training will cost, before it starts: arithmetic from closed forms, speed and memory from experience.

Arithmetic per sample is exact. How much of it a device does per second is not: each figure below says whether
it was measured or estimated. Loading is left out; it keeps up with all of these models on two cores.

>>> print(estimate("s", device="a100", n_samples=100_000, epochs=10))  # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from .rankformer import Rankformer, RankformerConfig
from .txfm import TxFM, TxFMConfig

WIDTHS = (128, 384, 768, 1024)  # d_model of the last four figures of `Device.tflops`


@dataclasses.dataclass(frozen=True)
class Device:
    """One GPU, or two CPU cores, in the number format that training chooses for it."""

    name: str
    memory: float  # bytes
    precision: str
    tflops: tuple[
        float, ...
    ]  # sustained in training, 10^12/s: one block (bound by memory), then per `WIDTHS`
    basis: str


_FROM_ANCHORS = "estimated from published training speeds and memory bandwidths"
DEVICES = {
    "h200": Device("NVIDIA H200", 150e9, "bf16", (8.0, 100, 297, 386, 425), _FROM_ANCHORS),
    "h100": Device("NVIDIA H100", 85e9, "bf16", (5.5, 90, 270, 355, 400), _FROM_ANCHORS),
    "a100": Device("NVIDIA A100, 80 GB", 85e9, "bf16", (3.5, 40, 119, 130, 135), _FROM_ANCHORS),
    "a100-40": Device("NVIDIA A100, 40 GB", 42e9, "bf16", (2.7, 40, 119, 130, 135), _FROM_ANCHORS),
    "t4": Device("Tesla T4", 15.6e9, "fp16", (0.5, 8, 17, 18, 18), _FROM_ANCHORS),
    "cpu": Device(
        "two CPU cores",
        8e9,
        "fp32",
        (0.04, 0.14, 0.13, 0.13, 0.13),
        "measured on AMD Zen 4 cores; that of one block on one core, and doubled",
    ),
}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The cost of a training run on one device."""

    hours: float
    samples_per_second: float
    memory_gb: float  # at this micro-batch
    micro_batch: int  # samples that go through the model at a time
    n_parameters: int
    tflop_per_sample: float  # forward and backward
    basis: str  # where the speed is known from

    def __str__(self) -> str:
        time = f"{self.hours:,.1f} hours" if self.hours >= 1 else f"{60 * self.hours:.1f} minutes"
        return (
            f"{time} at {self.samples_per_second:,.1f} samples/s ({self.basis})\n"
            f"{self.memory_gb:,.1f} GB of memory with a micro-batch of {self.micro_batch:,}\n"
            f"{self.n_parameters / 1e6:,.1f}M parameters, {self.tflop_per_sample:.4g} TFLOP per sample"
        )


def estimate(
    model: str | TxFMConfig,
    device: str = "h200",
    n_samples: int = 1_434_299,
    epochs: float = 200,
    n_genes: int = 44_349,
    batch_size: int = 1536,
) -> Estimate:
    """Return what training would cost. The defaults are the paper's corpus, epochs and vocabulary.

    Parameters
    ----------
    model : str or TxFMConfig
        A preset's name, or any shape.
    device : str
        One of `DEVICES`.
    n_samples : int
        Training samples.
    epochs : float
        Passes over them.
    n_genes : int
        G, if `model` is a preset's name.
    batch_size : int
        Samples per optimiser step; the micro-batch divides it.

    Raises
    ------
    ValueError
        If the preset or the device is unknown, a number is not positive, or one sample does not fit.
    """
    config = TxFMConfig.preset(model, n_genes) if isinstance(model, str) else model
    if device not in DEVICES:
        raise ValueError(f"no device {device!r}; there are {', '.join(DEVICES)}")
    if not (n_samples > 0 and epochs > 0 and batch_size > 0):
        found = f"n_samples = {n_samples}, epochs = {epochs}, batch_size = {batch_size}"
        raise ValueError(f"{found}: should be positive")
    known = DEVICES[device]
    one_block, *wider = known.tflops
    sustained = one_block if config.n_blocks == 1 else float(np.interp(config.d_model, WIDTHS, wider))
    work = tflop_per_sample(config)
    n = largest_divisor(batch_size, micro_batch(config, known.memory, known.precision))
    return Estimate(
        hours=n_samples * epochs * work / sustained / 3600,
        samples_per_second=sustained / work,
        memory_gb=(_fixed_bytes(config) + n * activation_bytes(config, known.precision)) / 1e9,
        micro_batch=n,
        n_parameters=n_parameters(config),
        tflop_per_sample=work,
        basis=f"{known.name}, {known.precision}: {known.basis}",
    )


def tflop_per_sample(
    config: TxFMConfig | RankformerConfig, full_last_block: bool = False, backward: bool = True
) -> float:
    """Return the arithmetic of a training sample, 10^12 operations; multiplying and adding count as two.

    Matrix products only. Per block and token 8 d² for query, key, value and output, 4 r d² for the MLP of
    ratio r, and 4 T d for attention to T = K + 1 tokens. A single block makes no tokens: 2 G d per sample,
    beside tables of all genes that a batch shares.

    Parameters
    ----------
    config : TxFMConfig or RankformerConfig
        A Rankformer reads all tokens of its last block; a hidden token costs 2 d (d + classes) to predict.
    full_last_block : bool
        Count all tokens of the last block, not only what CLS needs: what a plain implementation would do.
    backward : bool
        Count the backward pass, twice the forward pass.
    """
    d, r, tokens = config.d_model, config.mlp_ratio, _tokens(config)
    block = tokens * (8 + 4 * r) * d**2 + 4 * tokens**2 * d
    one_query = tokens * 4 * d**2 + 4 * tokens * d + (4 + 4 * r) * d**2
    if full_last_block or isinstance(config, RankformerConfig):
        encoder = config.n_blocks * block
    elif config.n_blocks > 1:
        encoder = (config.n_blocks - 1) * block + one_query
    else:
        encoder = 2 * config.n_genes * d + (2 + 4 * r) * d**2
    if isinstance(config, RankformerConfig):
        decoder = 2 * d * (d + _classes(config)) * config.n_hidden
    else:
        decoder = 2 * (1 + 2 * config.decoder_blocks) * d**2 + 2 * d * config.n_genes
    return (3 if backward else 1) * (encoder + decoder) / 1e12


def activation_bytes(config: TxFMConfig | RankformerConfig, precision: str = "bf16") -> float:
    """Return the memory that one training sample needs until its backward pass is done.

    Per token, number and block 22 + 5 r bytes in half precision and 40 + 8 r in float32, for an MLP of ratio
    r; a quarter of it in the last block, which keeps keys and values only (measured as what autograd saves);
    40 bytes per gene for logits and loss. A single block keeps some numbers per gene shown and head. A
    Rankformer keeps all of its last block, and logits for each hidden token.
    """
    tokens, per_number = _tokens(config), 22 + 5 * config.mlp_ratio
    if precision == "fp32":
        per_number = 40 + 8 * config.mlp_ratio
    if isinstance(config, RankformerConfig):
        encoder = per_number * tokens * config.d_model * (config.n_blocks + 0.5)
        return encoder + 16 * config.n_hidden * _classes(config)
    if config.n_blocks == 1:
        encoder = tokens * (16 * config.n_heads + 32)
    else:
        encoder = per_number * tokens * config.d_model * (config.n_blocks - 0.75)
    return encoder + 40 * config.n_genes


def micro_batch(config: TxFMConfig | RankformerConfig, memory_bytes: float, precision: str = "bf16") -> int:
    """Return how many samples fit into a device's memory at a time, with a fifth of it to spare.

    Parameters
    ----------
    config : TxFMConfig
    memory_bytes : float
    precision : {"bf16", "fp16", "fp32"}

    Raises
    ------
    ValueError
        If not even one sample fits.
    """
    n = int((0.8 * memory_bytes - _fixed_bytes(config)) / activation_bytes(config, precision))
    if n < 1:
        need = (_fixed_bytes(config) + activation_bytes(config, precision)) / 0.8e9
        raise ValueError(
            f"this model needs {need:.1f} GB to train and the device has {memory_bytes / 1e9:.1f} GB: take a "
            "smaller preset, or show it fewer genes at a time"
        )
    return n - n % 8 if n >= 8 else n


def largest_divisor(share: int, at_most: int) -> int:
    """Return the largest micro-batch that divides a process' share of a batch."""
    return next(n for n in range(min(share, at_most), 0, -1) if share % n == 0)


def n_parameters(config: TxFMConfig | RankformerConfig) -> int:
    """Return how many numbers the model has, without making it."""
    with torch.device("meta"):
        return (Rankformer if isinstance(config, RankformerConfig) else TxFM)(config).n_parameters


def _tokens(config: TxFMConfig | RankformerConfig) -> int:
    if isinstance(config, RankformerConfig):
        return config.n_tokens
    return min(config.n_revealed, config.n_genes) + 1


def _classes(config: RankformerConfig) -> int:
    return config.n_genes if config.head == "rank" else config.n_levels


def _fixed_bytes(config: TxFMConfig | RankformerConfig) -> float:
    """Return the memory of weights, gradients and both moments in float32, and of half-precision copies."""
    return 18.0 * n_parameters(config)
