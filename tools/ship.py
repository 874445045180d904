"""Put a trained model into the package: half precision, with its curve and its model card.

    python tools/ship.py runs/txfm-xs txfm_lite/weights/txfm-xs --card txfm_lite/weights/txfm-xs.md

The card's own words come from the Markdown file; shape, provenance and how to load it are added.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import txfm_lite

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path, help="a finished run's folder")
parser.add_argument("target", type=Path, help="the model's folder in the package")
parser.add_argument("--card", type=Path, required=True)
parser.add_argument("--fact", action="append", default=[], metavar="KEY=VALUE", help="provenance to add")
args = parser.parse_args()

kind = json.loads((args.run / "model" / "config.json").read_text())["model"]
model = getattr(txfm_lite, kind).from_pretrained(args.run / "model")
args.target.mkdir(exist_ok=True)  # the card names a shipped model by its name alone
facts = dict(fact.split("=", 1) for fact in args.fact)
model.save_pretrained(args.target, dtype="float16", card=args.card.read_text(), **facts)
shutil.copyfile(args.run / "history.csv", args.target / "history.csv")
for path in sorted(args.target.iterdir()):
    print(f"{path.stat().st_size:>12,}  {path}")
