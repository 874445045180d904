"""Training runs: the floor, the probe, and going on after an interruption as if there had been none."""

import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from txfm_lite import simulate
from txfm_lite.corpus import Corpus
from txfm_lite.curate import Rules, build
from txfm_lite.training import TrainConfig, fit, mean_profile
from txfm_lite.txfm import TxFMConfig

RULES = Rules(min_cells=5, min_genes=20, min_measured_genes=100)
RUN = dict(
    steps=30, batch_size=16, learning_rate=3e-3, validate_every=10, n_validation=32, checkpoint_minutes=0
)  # fmt: skip


def model(corpus: Corpus, **changes) -> TxFMConfig:
    fields = dict(d_model=16, n_blocks=2, n_heads=2, n_revealed=40, drop_path=0.2)
    return TxFMConfig(**{"n_genes": corpus.n_genes, **fields, **changes})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    studies = {n: a for n, a in simulate.corpus(n_genes=300).items() if a.uns["source"]["role"] == "train"}
    return build(tmp_path_factory.mktemp("corpus") / "simulated", studies, RULES)


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    return fit(corpus, model(corpus), TrainConfig(**RUN), path, progress=False)


def test_mean_profile_against_pandas(corpus):
    rows = corpus.rows("train")
    x = pd.DataFrame(corpus.csr(rows).toarray() * (1e4 / corpus.library_size[rows])[:, None])
    x = x.mask(~corpus.measured[corpus.dataset[rows]])
    np.testing.assert_allclose(mean_profile(corpus, 1e4), x.mean().fillna(0), rtol=1e-5)


def test_history(run):
    history = run.history
    assert history["step"].tolist() == [0, 10, 20, 30]
    assert history["samples"].tolist() == [0, 160, 320, 480]
    assert history["floor"].nunique() == 1
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert history["explained"].lt(1).all()
    assert history["probe"].between(0, 1).all()


def test_explained_is_zero_on_the_floor(corpus, run):
    """The floor is the best constant prediction: no other profile has a smaller training loss."""
    from txfm_lite.objectives import poisson_loss

    rows = corpus.rows("train")
    x = torch.from_numpy(np.log1p(corpus.csr(rows).toarray() * (1e5 / corpus.library_size[rows])[:, None]))
    measured = torch.from_numpy(corpus.measured[corpus.dataset[rows]])
    gene = np.flatnonzero(measured.all(0))[:50]
    best = torch.from_numpy(np.log1p(mean_profile(corpus, 1e5))).float()[gene].requires_grad_()
    poisson_loss(best.expand(len(x), -1), x[:, gene].float()).backward()
    scale = x[:, gene].exp().mean(0) / len(gene)
    assert (best.grad.abs() < 1e-4 * scale).all()


def test_a_finished_run_is_opened_not_repeated(corpus, run):
    before = time.monotonic()
    again = fit(corpus, model(corpus), TrainConfig(**RUN), run.path, progress=False)
    assert time.monotonic() - before < 5
    pd.testing.assert_frame_equal(again.history, run.history)
    for a, b in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_run_in_the_same_folder_is_refused(corpus, run):
    with pytest.raises(ValueError, match=r"learning_rate was 0.003 and is 0.1 now"):
        fit(corpus, model(corpus), TrainConfig(**{**RUN, "learning_rate": 0.1}), run.path, progress=False)
    with pytest.raises(ValueError, match="n_genes is 7"):
        fit(corpus, model(corpus, n_genes=7), TrainConfig(**RUN), run.path, progress=False)


def test_resumes_exactly_after_sigkill(corpus, run, tmp_path):
    code = f"""
from txfm_lite.corpus import Corpus
from txfm_lite.training import TrainConfig, fit
from txfm_lite.txfm import TxFMConfig
corpus = Corpus.open({str(corpus.path)!r})
fit(corpus, {model(corpus)!r}, TrainConfig(**{RUN!r}), {str(tmp_path)!r}, progress=False)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint, deadline = tmp_path / "last.ckpt", time.monotonic() + 120
    while time.monotonic() < deadline and not _reached(checkpoint, 12):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert 12 <= step < 30  # in the middle: steps 0-11 are done, 30 are wanted
    resumed = fit(corpus, model(corpus), TrainConfig(**RUN), tmp_path, progress=False)
    columns = [c for c in run.history if c not in ("minutes", "waiting")]
    pd.testing.assert_frame_equal(resumed.history[columns], run.history[columns], rtol=0, atol=0)
    for a, b in zip(run.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not checkpoint.exists()


def _reached(checkpoint, step: int) -> bool:
    return checkpoint.exists() and torch.load(checkpoint, weights_only=True)["global_step"] >= step


def test_a_diverging_run_says_so(corpus, tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(corpus, model(corpus), TrainConfig(**{**RUN, "learning_rate": 1e30}), tmp_path, progress=False)


def test_config_refuses():
    with pytest.raises(ValueError, match="steps"):
        TrainConfig(steps=0)
