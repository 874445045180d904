"""Reruns the ablations of the TxFM paper's Table 5 at our scale: a default, and one change at a time.

    python benchmarks/ablations.py --run-dir runs                                       # the stored grid
    python benchmarks/ablations.py --run-dir runs --panels a f --seeds 0 --minutes 60   # a part of it
    python benchmarks/ablations.py --run-dir runs-51200 --samples 51200                 # another study

Results go to results/ablations (or ablations-<samples>), one JSON per setting and seed. What is stored is not
run again, and a run that stopped goes on; two processes with different --seeds can share a folder. The data
are prepared as plain files in RUN_DIR/prepared first (`--prepare` does only that). A machine with a GPU needs
these, and neither data nor scanpy nor anndata: `tar -C runs -czf prepared.tar.gz prepared` makes it 35 MB.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from pathlib import Path

from txfm_lite import ablate, ablate_data, results
from txfm_lite.evaluate import ablations


def main() -> None:
    """Run what is not stored yet."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--run-dir", required=True, type=Path, help="one for each profile and --samples")
    parser.add_argument("--profile", choices=ablate.SIZES, default="full")
    parser.add_argument("--panels", nargs="+", default=[], help=f"of {', '.join(ablate.PANELS)}")
    parser.add_argument("--settings", nargs="+", default=[], help="by name, instead of or beside panels")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, help="seen in training")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no run starts later than that")
    parser.add_argument("--prepare", action="store_true", help="prepare the data, and stop")
    parser.add_argument("--results", type=Path, help="by default the repository's; RUN_DIR/results for smoke")
    parser.add_argument("--commit", help="of this code, where git cannot tell")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    start, size, study = time.monotonic(), ablate.SIZES[args.profile], ablate.STUDY
    if args.samples and args.samples != size.samples:
        study = f"{study}-{args.samples}"
        size = dataclasses.replace(size, samples=args.samples)
    smoke = args.profile == "smoke"
    folder = args.results or (args.run_dir / "results" if smoke else results.directory())
    chosen = ablate.choose(args.panels, args.settings, size)
    data = "simulated" if smoke else "real"
    prepared = ablate_data.prepare(args.run_dir / "prepared", data, size.n_genes)
    if args.prepare:
        return
    known = {"commit": args.commit} if args.commit else {}
    for setting in chosen:
        for seed in args.seeds:
            if time.monotonic() - start > 60 * args.minutes:
                print("time is up: the same command goes on")
                return
            ablate.run(
                setting,
                seed,
                size,
                prepared,
                args.run_dir,
                folder,
                study,
                facts=known,
                accelerator=args.device,
            )
    columns = ["ours", "default", "difference", "low", "high", "q", "paper", "verdict"]
    print(ablations.table(results.read(study, folder))[columns].round(3).to_string())


if __name__ == "__main__":
    main()
