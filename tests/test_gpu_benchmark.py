"""The GPU benchmark at its smallest, on whatever device is here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from txfm_lite import results
from txfm_lite.estimate import tflop_per_sample
from txfm_lite.txfm import TxFMConfig

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def bench(out: Path, *names: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, SCRIPT, "--size", "small", "--out", out, "--only", *names]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_measures_stores_and_does_not_repeat(tmp_path):
    bench(tmp_path, "b-compiled", "embed-b")
    stored = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(stored) == {"b-compiled.json", "embed-b.json"}
    table = bench(tmp_path, "b-compiled", "embed-b", "xs-eager")
    assert all((tmp_path / name).read_bytes() == content for name, content in stored.items())
    assert all(name in table for name in ("b-compiled", "embed-b", "xs-eager"))

    contents = [json.loads(stored[f"{name}.json"]) for name in ("b-compiled", "embed-b")]
    assert all({"commit", "seed", "device", "versions", "date"} <= set(c["provenance"]) for c in contents)
    assert len(results.read(tmp_path.name, tmp_path.parent)) == 3
    (train,), (embed,) = (c["rows"] for c in contents)
    config = TxFMConfig.preset("b", 400, d_model=24, n_heads=2, n_revealed=48)
    work = tflop_per_sample(config)
    assert train["tflops"] == pytest.approx(work * train["samples_per_second"])
    assert embed["tflops"] == pytest.approx(work / 3 * embed["samples_per_second"])
    assert train["samples_per_second"] == pytest.approx(16 / train["seconds_per_step"])
    for r in (train, embed):
        assert r["share_of_matmul"] == pytest.approx(r["tflops"] / r["matmul_tflops"])
    assert 0 <= train["waiting"] < 1 and train["k"] == 48


def test_the_synthetic_corpus_is_like_a_real_one(tmp_path):
    specification = importlib.util.spec_from_file_location("gpu", SCRIPT)
    gpu = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(gpu)
    corpus = gpu.synthetic(tmp_path / "corpus", 400, 512, 40, seed=0)
    assert corpus.measured.sum(1).tolist() == [n * 400 // 44_349 for n in gpu.GENES]
    assert corpus.measured.sum(1).min() >= gpu.SIZES["small"]["model"]["n_revealed"]
    indptr, indices, _ = corpus.read(np.arange(len(corpus)))
    for row, (a, b) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
        assert len(set(indices[a:b])) == b - a  # no gene twice
        assert corpus.measured[corpus.dataset[row], indices[a:b]].all()
    assert corpus.nnz / len(corpus) == pytest.approx(40, rel=0.1)
