"""Two processes learn what one process learns: torchrun, gloo, CPU.

What a CPU cannot show: NCCL, the overlap of communication with work, and bf16 on several GPUs.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from txfm_lite import simulate
from txfm_lite.corpus import Corpus
from txfm_lite.curate import Rules, build
from txfm_lite.loader import BatchLoader
from txfm_lite.training import TrainConfig, fit
from txfm_lite.txfm import TxFMConfig

MODEL = dict(d_model=16, n_blocks=2, n_heads=2, n_revealed=40, drop_path=0.0)
RUN = TrainConfig(
    steps=12, batch_size=16, learning_rate=3e-3, validate_every=12, n_validation=32, checkpoint_minutes=0
)

# What each of the two processes does. Everything it opens for writing in the runs' folders is noted down.
WORKER = """
import json, os, sys
from pathlib import Path

corpus, folder, model, run = sys.argv[1:]
notes = {"rows": [], "written": [], "local": {}}

def note(event, args):
    if event == "open" and str(args[0]).startswith(folder) and args[2] & (os.O_WRONLY | os.O_RDWR):
        notes["written"].append(args[0])
    if event == "os.rename" and str(args[1]).startswith(folder):
        notes["written"].append(str(args[1]))

sys.addaudithook(note)
import lightning
import torch.distributed as dist
from txfm_lite.corpus import Corpus
from txfm_lite.training import TrainConfig, fit
from txfm_lite.txfm import TxFMConfig

class Look(lightning.Callback):
    def __init__(self, stop=None):
        self.stop = stop
    def on_train_batch_start(self, trainer, module, batch, _):
        if trainer.global_step == self.stop:
            raise RuntimeError("stopped")
        notes["rows"].append(batch.source.row.tolist())
    def on_train_start(self, trainer, module):
        size = lambda p: p.to_local().numel() if hasattr(p, "to_local") else p.numel()
        notes["local"][trainer.strategy.__class__.__name__] = sum(map(size, module.parameters()))

corpus = Corpus.open(corpus)
model = TxFMConfig(corpus.n_genes, **json.loads(model))
run = TrainConfig(**json.loads(run))

def go(name, look, **options):
    options |= {"progress": False, "accelerator": "cpu", "callbacks": [look]}
    fit(corpus, model, run, f"{folder}/{name}", **options)

go("ddp", Look())
seen = list(notes["rows"])
go("fsdp", Look(), strategy="fsdp")
try:
    go("stopped", Look(11))
except RuntimeError as error:
    assert str(error) == "stopped"
notes["rows"] = seen
rank = dist.get_rank()
Path(f"{folder}-{rank}.json").write_text(json.dumps(notes))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    studies = {n: a for n, a in simulate.corpus(n_genes=300).items() if a.uns["source"]["role"] == "train"}
    rules = Rules(min_cells=5, min_genes=20, min_measured_genes=100)
    return build(tmp_path_factory.mktemp("corpus") / "simulated", studies, rules)


@pytest.fixture(scope="module")
def one(corpus, tmp_path_factory):
    """The run of a single process with the whole batch at once."""
    path = tmp_path_factory.mktemp("one")
    return fit(corpus, TxFMConfig(corpus.n_genes, **MODEL), RUN, path, progress=False, accelerator="cpu")


@pytest.fixture(scope="module")
def two(corpus, tmp_path_factory) -> Path:
    """The folder with the runs of two processes; their notes lie beside it."""
    folder = tmp_path_factory.mktemp("two") / "runs"
    folder.mkdir()
    script = folder.parent / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    halves = dataclasses.asdict(dataclasses.replace(RUN, micro_batch=4))  # two micro-batches on each
    arguments = [corpus.path, folder, json.dumps(MODEL), json.dumps(halves)]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    result = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def notes(two: Path) -> list[dict]:
    return [json.loads(Path(f"{two}-{rank}.json").read_text()) for rank in range(2)]


def same(run: Path, one) -> None:
    columns = ["step", "samples", "train_loss", "loss", "floor", "explained"]
    history = pd.read_csv(run / "history.csv")
    pd.testing.assert_frame_equal(history[columns], one.history[columns], rtol=1e-4, atol=1e-4)
    weights, expected = (load_file(path / "model" / "model.safetensors") for path in (run, one.path))
    assert set(weights) == set(expected)
    for name in expected:
        np.testing.assert_allclose(weights[name], expected[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns(one, two, strategy):
    same(two / strategy, one)


def test_the_test_would_notice_another_draw(corpus, one, tmp_path):
    """Other genes shown, everything else equal: a difference far above the tolerance."""
    other = dataclasses.replace(RUN, seed=1)
    run = fit(corpus, TxFMConfig(corpus.n_genes, **MODEL), other, tmp_path, progress=False, accelerator="cpu")
    with pytest.raises(AssertionError):
        same(run.path, one)


def test_every_sample_once_per_epoch(corpus, two):
    rows = np.array([n["rows"] for n in notes(two)])  # (processes, steps, samples)
    assert rows.shape == (2, RUN.steps, RUN.batch_size // 2)
    whole = list(BatchLoader(corpus, RUN.batch_size, seed=RUN.seed))
    n = min(len(whole), RUN.steps)
    seen = rows[:, :n].ravel()
    assert len(np.unique(seen)) == len(seen) == n * RUN.batch_size
    for step in range(n):
        assert sorted(rows[:, step].ravel()) == sorted(whole[step].row)


def test_only_the_first_process_writes(two):
    first, second = (n["written"] for n in notes(two))
    assert any(path.endswith("history.csv") for path in first)
    assert any(path.endswith("last.ckpt") for path in first)
    assert second == []


def test_fsdp_divides_the_weights(two):
    local = [n["local"] for n in notes(two)]
    whole = local[0]["DDPStrategy"]
    assert sum(n["ModelParallelStrategy"] for n in local) == whole
    assert max(n["ModelParallelStrategy"] for n in local) < 0.6 * whole


def test_one_process_goes_on_with_a_run_of_two(corpus, one, two):
    assert (two / "stopped" / "last.ckpt").is_file()
    config = dataclasses.replace(RUN, micro_batch=2)
    model = TxFMConfig(corpus.n_genes, **MODEL)
    fit(corpus, model, config, two / "stopped", progress=False, accelerator="cpu")
    same(two / "stopped", one)
