"""How fast does a gene set model train, beside the plain way? All in one run.

    python benchmarks/gsfm.py                            # 19,000 genes, batches of 128: a minute
    python benchmarks/gsfm.py --genes 2000 --rounds 2    # seconds
    python benchmarks/gsfm.py --device cuda --store      # into results/benchmarks

The plain way: sets as rows of zeros and ones through a linear layer, torch's cross-entropy against a dense
target, torch's Adam as it comes. Ours: a sum of columns, the cross-entropy of the few entries, Adam in one
kernel. Then one part at a time is put back. Weights start equal, and losses are compared; steps take turns,
and the least of the rounds counts: on a busy machine the ratio is worth more than the seconds. The sets are
random, with sizes as those of published libraries. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from txfm_lite import gsfm, results
from txfm_lite.gsfm_blocks import Bags

EPOCH = 30_000  # sets


def batches(n: int, size: int, v: int, device: torch.device) -> list[Bags]:
    """Sets of 11 to 999 genes, 60 in the middle."""
    rng, out = np.random.default_rng(0), []
    popular = 1 / np.arange(10, v + 8) ** 0.5
    for _ in range(n):
        sizes = np.clip(rng.lognormal(np.log(60), 1, size), 11, min(999, v // 4)).astype(int)
        rows = [rng.choice(v - 2, k, replace=False, p=popular / popular.sum()) + 2 for k in sizes]
        indices = torch.from_numpy(np.concatenate(rows)).to(device)
        out.append(Bags(indices, torch.from_numpy(np.cumsum(sizes) - sizes).to(device)))
    return out


def multi_hot(bags: Bags, v: int) -> torch.Tensor:
    """Sets as rows of zeros and ones."""
    x = torch.zeros(len(bags.offsets), v, device=bags.indices.device)
    x[bags.rows, bags.indices] = 1.0
    return x


class Contender:
    """A model and an optimiser, with ours or the plain way for each part."""

    def __init__(self, config: gsfm.GSFMConfig, device: torch.device, bag: bool, sparse: bool, fused: bool):
        torch.manual_seed(0)
        self.model, self.bag, self.sparse = gsfm.GSFM(config).to(device), bag, sparse
        if not bag:
            first = self.model.encoder.layers[0]
            plain = nn.Linear(config.n_tokens, first.out_features, device=device)
            plain.load_state_dict(first.state_dict())
            self.model.encoder.layers[0] = plain
        self.optimiser = torch.optim.Adam(self.model.parameters(), 1e-3, fused=fused or None)

    def step(self, bags: Bags) -> torch.Tensor:
        model, v = self.model, self.model.config.n_tokens
        x = None if self.bag and self.sparse else multi_hot(bags, v)
        z = model.encoder(*bags) if self.bag else model.encoder(x)
        logits = model.decoder(z)
        if self.sparse:
            loss = gsfm.binary_cross_entropy(logits, bags.rows * v + bags.indices)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, x)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.detach()


def timed(step: Callable[[Bags], torch.Tensor], bags: Bags) -> tuple[float, float, float]:
    """Seconds of the clock, of the processor, and the loss."""
    clock, processor = time.perf_counter(), time.process_time()
    loss = step(bags).item()  # waits for the device
    return time.perf_counter() - clock, time.process_time() - processor, loss


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--genes", type=int, default=19_000)
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--store", action="store_true", help="write into the repository's results")
    args = parser.parse_args()
    device = torch.device(args.device)
    config = gsfm.GSFMConfig(
        args.genes + 2, d_model=args.d_model, dropout=0.0
    )  # so that losses can be compared
    ways = {
        "ours": (True, True, True),
        "ours, but dense input": (False, True, True),
        "ours, but dense target": (True, False, True),
        "ours, but Adam as it comes": (True, True, False),
        "plain": (False, False, False),
    }
    contenders = {name: Contender(config, device, *way) for name, way in ways.items()}
    best = dict.fromkeys(ways, (np.inf, np.inf))
    apart = 0.0
    for i, bags in enumerate(batches(args.rounds + 1, args.batch_size, config.n_tokens, device)):
        losses = {}
        for name, contender in contenders.items():
            clock, processor, losses[name] = timed(contender.step, bags)
            if i:  # the first warms up
                best[name] = min(best[name][0], clock), min(best[name][1], processor)
        apart = max(apart, max(losses.values()) - min(losses.values()))
    steps = -(-EPOCH // args.batch_size)
    rows = [
        {
            "genes": args.genes, "d_model": args.d_model, "batch_size": args.batch_size, "way": name,
            "ms_per_step": round(1e3 * clock, 1), "steps_per_s": round(1 / clock, 2),
            "cpu_ms_per_step": round(1e3 * processor, 1),
            "cpu_s_per_epoch_of_30000": round(processor * steps, 1),
            "speed_over_plain": round(best["plain"][0] / clock, 2),
            "cpu_speed_over_plain": round(best["plain"][1] / processor, 2), "losses_apart": apart,
        }
        for name, (clock, processor) in best.items()
    ]  # fmt: skip
    print(json.dumps(rows, indent=1))
    if args.store:
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        facts = results.provenance(blas_threads=threads, rounds=args.rounds, load=os.getloadavg()[0])
        results.write(f"benchmarks/gsfm-{device.type}-{args.genes}", rows, facts)


if __name__ == "__main__":
    main()
