"""How fast does training run on this GPU, from the corpus on disk to the optimiser's step?

    python benchmarks/gpu.py                      # each configuration takes 2 to 8 minutes
    python benchmarks/gpu.py --only b-compiled embed-b
    python benchmarks/gpu.py --size small --out gpu-try    # the same on a CPU, in seconds: does it run?

It calls what users call, ``training.fit``, on a synthetic corpus as wide as DiverseRNA (nine gene lists in a
vocabulary of 44,349), and times the steps between two waits for the device: reading, shuffling, shipping,
densifying, the draw of the genes, the model, the optimiser. Results lie in results/gpu, one file per
configuration; one that is there already is not measured again, so an interrupted run goes on where it
stopped. Needs torch, lightning, numpy and safetensors.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from txfm_lite import devices, inference, results, training
from txfm_lite.corpus import Corpus
from txfm_lite.corpus_writer import CorpusWriter
from txfm_lite.estimate import tflop_per_sample
from txfm_lite.txfm import TxFM, TxFMConfig

LIMIT = 530  # seconds for one configuration
GENES = (8_248, 21_310, 15_438, 18_486, 16_445, 17_619, 24_712, 19_594, 36_695)  # measured by each dataset
SIZES = {  # preset changes, corpus, steps to warm up and to time
    "full": dict(
        n_genes=44_349, cells=80_000, nnz=3_500, batch=1_536, warm=3, steps=8, embed=4_096, model={},
    ),
    "small": dict(
        n_genes=400, cells=512, nnz=40, batch=16, warm=2, steps=4, embed=64,
        model=dict(d_model=24, n_heads=2, n_revealed=48),
    ),
}  # fmt: skip
CONFIGURATIONS = {  # in the order of their interest
    "b-compiled": dict(preset="b", compile=True),
    "s-compiled": dict(preset="s", compile=True),
    "embed-b": dict(preset="b", embed=True),
    "xs-eager": dict(preset="xs", compile=False),
    "xs-compiled": dict(preset="xs", compile=True),
    "b-eager": dict(preset="b", compile=False),
    "s-eager": dict(preset="s", compile=False),
    "b-compiled-cudnn": dict(preset="b", compile=True, attention="CUDNN_ATTENTION"),
    "b-compiled-flash": dict(preset="b", compile=True, attention="FLASH_ATTENTION"),
    "b-compiled-k2047": dict(preset="b", compile=True, model=dict(n_revealed=2_047)),  # 2,048 tokens
}


def synthetic(path: Path, n_genes: int, cells: int, nnz: int, seed: int) -> Corpus:
    """Write nine datasets of random cells, each with genes of its own out of one vocabulary."""
    rng = np.random.default_rng(seed)
    with CorpusWriter(path, [f"g{i}" for i in range(n_genes)]) as writer:
        for code, share in enumerate(GENES):
            genes = rng.permutation(n_genes)[: share * n_genes // 44_349]
            writer.begin(f"dataset{code}", np.isin(np.arange(n_genes), genes))
            n = cells // len(GENES)
            lengths = rng.integers(nnz // 2, nnz * 3 // 2, n)
            indptr = np.concatenate([[0], np.cumsum(lengths)])
            within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths)  # a window of the list: distinct
            indices = genes[(np.repeat(rng.integers(0, len(genes), n), lengths) + within) % len(genes)]
            counts = np.minimum(rng.geometric(0.3, indptr[-1]), 1_000)
            labels = {"name": np.arange(n).astype("S"), "batch": [None] * n, "cell_type": [None] * n}
            split = ["validation" if i % 64 == 0 else "train" for i in range(n)]
            library = np.add.reduceat(counts, indptr[:-1])
            writer.append(indptr, indices, counts, library_size=library, split=split, **labels)
        return writer.finish()


class Timer(lightning.Callback):
    """Seconds from the end of the warm-up to the end of the last step, the device's work included."""

    def __init__(self, warm: int, steps: int):
        self.warm, self.last = warm, warm + steps

    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step in (self.warm, self.last):
            wait(module.device)
            now = time.perf_counter()
            if trainer.global_step == self.warm:
                self.start, self.waited = now, module.watch.waited
                if module.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
            else:
                self.seconds, self.waited = now - self.start, module.watch.waited - self.waited
                self.micro_batch, self.peak = module.micro_batch, peak_memory(module.device)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_memory(device: torch.device) -> float | None:
    """GB."""
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None


def matmul_rate(device: torch.device) -> float:
    """TFLOP/s of a large product in the number format of training, on random data: the median of ten."""
    n, dtype = (8_192, torch.bfloat16) if device.type == "cuda" else (512, torch.float32)
    if device.type == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        dtype = torch.float16
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(13):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / float(np.median(seconds[3:])) / 1e12


def attention_kernel(config: TxFMConfig, device: torch.device) -> str:
    """Name the kernel that takes most of the time of an attention of this model's shape."""
    head = config.d_model // config.n_heads
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q = torch.randn(4, config.n_heads, config.n_revealed + 1, head, device=device, dtype=dtype)
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU, activity.CUDA] if device.type == "cuda" else [activity.CPU]
    with torch.profiler.profile(activities=kinds) as profile:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
        wait(device)
    cost = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return max(profile.key_averages(), key=lambda event: getattr(event, cost)).key


def train(config: TxFMConfig, corpus: Corpus, size: dict, compile: bool, seed: int) -> dict:
    """Time training steps."""
    timer = Timer(size["warm"], size["steps"])
    schedule = training.TrainConfig(
        steps=timer.last, batch_size=size["batch"], seed=seed, compile=compile, n_validation=64,
        validate_every=timer.last, checkpoint_minutes=1e9,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        options = {"progress": False, "callbacks": [timer], "logger": False}
        run = training.fit(corpus, config, schedule, folder, **options)
        facts = json.loads((Path(folder) / "model" / "config.json").read_text())["provenance"]
    rate = size["steps"] * size["batch"] / timer.seconds
    return {
        "samples_per_second": rate,
        "tflops": rate * tflop_per_sample(config),
        "waiting": timer.waited / timer.seconds,
        "seconds_per_step": timer.seconds / size["steps"],
        "peak_gb": timer.peak,
        "precision": facts["precision"],
        "micro_batch": timer.micro_batch,
        "parameters": run.model.n_parameters,
    }


def embed(config: TxFMConfig, corpus: Corpus, size: dict, seed: int) -> dict:
    """Time embedding, forward only, of K genes per cell: reading and shipping included."""
    device = devices.training_device()
    precision, _ = devices.choose_precision("auto", device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    torch.manual_seed(seed)
    model = TxFM(config).to(device)
    rows = corpus.rows("train", "dataset6")[: size["embed"]]

    def go(rows: np.ndarray) -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            triple, totals = corpus.read(rows), corpus.library_size[rows]
            measured = corpus.measured[corpus.dataset[rows[0]]]
            inference.encode_rows(model, *triple, totals, measured, n_genes=config.n_revealed)
        wait(device)

    go(rows[:256])
    start = time.perf_counter()
    go(rows)
    rate = len(rows) / (time.perf_counter() - start)
    return {
        "samples_per_second": rate,
        "tflops": rate * tflop_per_sample(config, backward=False),
        "peak_gb": peak_memory(device),
        "precision": precision,
        "parameters": model.n_parameters,
    }


def measure(name: str, size_name: str, corpus: Path, out: Path, seed: int, commit: str | None) -> None:
    """Measure one configuration and store it; in a process of its own, so that none inherits memory."""
    start, size, what = time.time(), SIZES[size_name], CONFIGURATIONS[name]
    changes = {**size["model"], **(what.get("model", {}) if size_name == "full" else {})}
    config = TxFMConfig.preset(what["preset"], size["n_genes"], **changes)
    device, corpus = devices.training_device(), Corpus.open(corpus)
    backend = what.get("attention")
    forced = sdpa_kernel(SDPBackend[backend]) if backend and device.type == "cuda" else nullcontext()
    with forced:
        kernel = attention_kernel(config, device) if config.n_blocks > 1 else None
        if what.get("embed"):
            result = embed(config, corpus, size, seed)
        else:
            result = train(config, corpus, size, what["compile"], seed)
    peak = matmul_rate(device)
    result |= {"matmul_tflops": peak, "share_of_matmul": result["tflops"] / peak, "attention_kernel": kernel}
    versions = {"cuda": torch.version.cuda, "lightning": lightning.__version__}
    known = {"commit": commit} if commit else {}
    provenance = results.provenance(seed=seed, seconds=time.time() - start, **versions, **known)
    facts = {
        "configuration": name,
        "size": size_name,
        **what,
        "k": config.n_revealed,
        "genes": config.n_genes,
    }
    facts |= {
        "cells": len(corpus),
        "nnz_per_cell": corpus.nnz / len(corpus),
        "corpus_gb": corpus.nbytes / 1e9,
    }
    results.write(name, [{**facts, **result}], provenance, out)


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--out", type=Path, default=results.directory() / "gpu")
    parser.add_argument("--corpus", type=Path, help="keep the synthetic corpus here (default: for this run)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", help="of this code, where git cannot tell")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.corpus or Path(folder) / "corpus"
        todo = [name for name in args.only if not results.stored(name, args.out)]
        if todo and not path.exists():
            size = SIZES[args.size]
            synthetic(path, size["n_genes"], size["cells"], size["nnz"], args.seed)
        for name in todo:
            # forked before this process has touched a GPU, each child has the card to itself
            work = (name, args.size, path, args.out, args.seed, args.commit)
            child = multiprocessing.get_context("fork").Process(target=measure, args=work)
            child.start()
            child.join(LIMIT)
            if child.is_alive():
                child.kill()
                child.join()
                print(f"{name}: not done after {LIMIT} s")
            elif child.exitcode:
                print(f"{name}: failed, see above")
    print(f"{'':18}{'samples/s':>10}{'TFLOP/s':>9}{'of matmul':>10}{'waiting':>9}{'GB':>7}")
    for name in args.only:
        if results.stored(name, args.out):
            r = json.loads((args.out / f"{name}.json").read_text())["rows"][0]
            waiting = f"{r['waiting']:.1%}" if "waiting" in r else ""
            memory = f"{r['peak_gb']:.1f}" if r["peak_gb"] else ""
            rates = f"{r['samples_per_second']:10.1f}{r['tflops']:9.3g}{r['share_of_matmul']:10.1%}"
            print(f"{name:18}{rates}{waiting:>9}{memory:>7}")


if __name__ == "__main__":
    main()
