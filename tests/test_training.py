"""Training runs: the floor, the probe, and going on after an interruption as if there had been none."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from txfm_lite import devices, simulate
from txfm_lite.corpus import Corpus
from txfm_lite.corpus_writer import write_subset
from txfm_lite.curate import Rules, build
from txfm_lite.devices import Samples
from txfm_lite.loader import BatchLoader
from txfm_lite.monitoring import Watch, neighbour_accuracy
from txfm_lite.pretraining import Pretraining, gene_frequency
from txfm_lite.training import TrainConfig, _start_from, fit, mean_profile
from txfm_lite.txfm import TxFM, TxFMConfig

RULES = Rules(min_cells=5, min_genes=20, min_measured_genes=100)
RUN = dict(  # two micro-batches per step
    steps=30, batch_size=16, micro_batch=8, learning_rate=3e-3, validate_every=10, n_validation=32,
    checkpoint_minutes=0,
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


def test_snapshots_are_the_model_as_it_was(corpus, run, tmp_path):
    steps = [0, 7, 30]
    again = fit(corpus, model(corpus), TrainConfig(**RUN), tmp_path, progress=False, snapshots=steps)
    kept = {n: TxFM.from_pretrained(tmp_path / f"snapshots/step-{n}").state_dict() for n in steps}
    assert sorted(p.name for p in (tmp_path / "snapshots").iterdir()) == ["step-0", "step-30", "step-7"]
    for name, final in run.model.state_dict().items():  # keeping them changes nothing
        assert torch.equal(again.model.state_dict()[name], final) and torch.equal(kept[30][name], final)
    moved = [torch.dist(kept[n]["gene_head.weight"], kept[30]["gene_head.weight"]) for n in steps]
    assert moved[0] > moved[1] > moved[2] == 0


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
    columns = [c for c in run.history if c not in ("minutes", "waiting", "explained")]
    # a loss is a sum, and where its numbers lie in memory decides in which order torch adds them: one ulp
    pd.testing.assert_frame_equal(resumed.history[columns], run.history[columns], rtol=1e-6, atol=0)
    # of "explained" it is more: a small difference of losses, over one that is not much larger
    np.testing.assert_allclose(resumed.history["explained"], run.history["explained"], atol=1e-4)
    for a, b in zip(run.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not checkpoint.exists()


class StopsAt(lightning.Callback):
    def __init__(self, step: int, look: bool = False):
        self.step, self.look = step, look

    def on_validation_start(self, trainer, module):
        if self.look and trainer.global_step == self.step:
            raise TimeoutError("amid a look")

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = not self.look and trainer.global_step == self.step


def test_a_run_cut_off_at_a_look_does_not_lose_it(corpus, run, tmp_path):
    with pytest.raises(TimeoutError):
        stop = [StopsAt(10, look=True)]
        fit(corpus, model(corpus), TrainConfig(**RUN), tmp_path, progress=False, callbacks=stop)
    resumed = fit(corpus, model(corpus), TrainConfig(**RUN), tmp_path, progress=False)
    columns = [c for c in run.history if c not in ("minutes", "waiting")]
    pd.testing.assert_frame_equal(resumed.history[columns], run.history[columns], rtol=0, atol=0)


def test_a_run_that_a_limit_ended_is_not_called_finished(corpus, run, tmp_path):
    config = TrainConfig(**{**RUN, "checkpoint_minutes": 1e9})
    with pytest.raises(InterruptedError, match="stopped at step 13 of 30; the same call goes on"):
        fit(corpus, model(corpus), config, tmp_path, progress=False, callbacks=[StopsAt(13)])
    assert not (tmp_path / "model").exists()
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 13
    resumed = fit(corpus, model(corpus), config, tmp_path, progress=False)
    for a, b in zip(run.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_longest_gradient_is_followed(corpus, tmp_path, monkeypatch):
    lengths, clip = [], torch.nn.utils.clip_grad_norm_

    def seen(parameters, longest):
        parameters = list(parameters)
        lengths.append(sum(p.grad.square().sum() for p in parameters).sqrt().item())
        return clip(parameters, longest)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", seen)
    config = TrainConfig(**{**RUN, "steps": 6, "validate_every": 3})
    history = fit(corpus, model(corpus), config, tmp_path, progress=False).history
    assert np.isnan(history["gradient"][0])
    assert history["gradient"][1:].tolist() == pytest.approx([max(lengths[:3]), max(lengths[3:])])


def _reached(checkpoint, step: int) -> bool:
    return checkpoint.exists() and torch.load(checkpoint, weights_only=True)["global_step"] >= step


def test_a_diverging_run_says_so(corpus, tmp_path):
    """The rows named are those of the batch, and no model is left behind."""
    with pytest.raises(FloatingPointError, match="lower the learning rate") as error:
        fit(corpus, model(corpus), TrainConfig(**{**RUN, "learning_rate": 1e30}), tmp_path, progress=False)
    step, n, names, rows = re.search(
        r"at step (\d+), on (\d+) samples of ([\w, ]+) \(rows ([\d, ]+) of", str(error.value)
    ).groups()
    batch = list(BatchLoader(corpus, 16, seed=0))[int(step)]
    rows = [int(row) for row in rows.split(", ")]
    assert int(n) == 8 and rows in (batch.row[:8].tolist(), batch.row[8:].tolist())
    assert names.split(", ") == [corpus.datasets[c]["name"] for c in np.unique(corpus.dataset[rows])]
    assert not (tmp_path / "model").exists()


def test_relu_diverges_and_says_so(corpus, tmp_path):
    """At a learning rate that the activation with a ceiling survives."""
    config = TrainConfig(**{**RUN, "learning_rate": 3.0, "clip": 1e6})
    run = fit(corpus, model(corpus), config, tmp_path / "tanh", progress=False)
    assert run.history["loss"].map(np.isfinite).all()
    with pytest.raises(FloatingPointError, match="activation that is bounded"):
        fit(corpus, model(corpus, activation="relu"), config, tmp_path / "relu", progress=False)


def test_the_micro_batch_that_fails_is_named(corpus):
    batch = next(iter(BatchLoader(corpus, 12)))
    watch = Watch([d["name"] for d in corpus.datasets])
    watch.add(torch.tensor([1.0, 3.0]), 0, batch)
    assert (watch.last, watch.total, watch.n) == (2.0, 2.0, 1)
    some = ", ".join(map(str, batch.row[4:8]))
    with pytest.raises(FloatingPointError, match=rf"nan at step 1, on 4 samples of .* \(rows {some} of"):
        watch.add(torch.tensor([1.0, float("nan"), 1.0]), 1, batch)


def test_micro_batches_change_nothing(corpus, tmp_path):
    runs = []
    for n in (16, 4):
        config = TrainConfig(**{**RUN, "steps": 10, "micro_batch": n})
        runs.append(fit(corpus, model(corpus, drop_path=0.0), config, tmp_path / str(n), progress=False))
    columns = ["loss", "train_loss"]
    pd.testing.assert_frame_equal(runs[0].history[columns], runs[1].history[columns], rtol=1e-5)
    for a, b in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_the_last_look_is_at_the_last_step(corpus, tmp_path):
    config = TrainConfig(**{**RUN, "steps": 13})
    run = fit(corpus, model(corpus), config, tmp_path, progress=False)
    assert run.history["step"].tolist() == [0, 10, 13]
    info = json.loads((tmp_path / "model" / "config.json").read_text())["provenance"]
    assert info["result"]["loss"] == run.history["loss"].iloc[-1] and info["device"] == "CPU"


def test_genes_are_drawn_by_their_frequency(corpus, tmp_path):
    frequency = gene_frequency(corpus)
    assert np.array_equal(frequency, (corpus.csr(corpus.rows("train")) > 0).sum(axis=0).A1)
    config = model(corpus, reveal_exponent=0.5)
    module = Pretraining(TxFM(config), corpus, TrainConfig(**RUN), tmp_path, 8)
    np.testing.assert_allclose(module.reveal_weights, np.maximum(frequency, 1) ** 0.5, rtol=1e-6)
    assert Pretraining(TxFM(model(corpus)), corpus, TrainConfig(**RUN), tmp_path, 8).reveal_weights is None
    fit(corpus, config, TrainConfig(**{**RUN, "steps": 2}), tmp_path / "run", progress=False)


def test_fine_tuning_starts_where_pretraining_ended(corpus, run, tmp_path):
    config = TrainConfig(**{**RUN, "steps": 3, "learning_rate": 1e-5})
    tuned = fit(corpus, model(corpus), config, tmp_path / "a", progress=False, init=run.path / "model")
    assert tuned.history["loss"].iloc[0] == pytest.approx(run.history["loss"].iloc[-1], rel=1e-6)
    with pytest.raises(ValueError, match="cannot resume: init was"):
        other = TxFM(model(corpus), corpus.genes.tolist())
        fit(corpus, model(corpus), config, tmp_path / "a", progress=False, init=other)
    with pytest.raises(ValueError, match="do not fit this TxFMConfig"):
        fit(corpus, model(corpus, d_model=32), config, tmp_path / "b", progress=False, init=run.model)
    with pytest.raises(ValueError, match="cannot resume: init was '.*' and is None now"):
        fit(corpus, model(corpus), config, tmp_path / "a", progress=False)


@pytest.mark.parametrize("field", ["n_heads", "n_blocks", "mlp_ratio", "decoder_blocks"])
def test_weights_of_another_shape_are_no_start(corpus, run, field):
    """Also where every tensor would fit: other heads, or blocks that would stay as they were drawn."""
    changed = dataclasses.replace(model(corpus), **{field: getattr(model(corpus), field) * 2})
    with pytest.raises(ValueError, match=f"do not fit this TxFMConfig: {field} "):
        _start_from(run.model, TxFM(changed, corpus.genes.tolist()))


def test_a_start_may_have_another_loss(corpus, run):
    other = TxFM(model(corpus, loss="negative_binomial"), corpus.genes.tolist())
    _start_from(run.model, other)
    assert torch.equal(other.cls, run.model.cls) and (other.log_dispersion == 0).all()
    back = TxFM(model(corpus), corpus.genes.tolist())
    _start_from(other, back)
    assert torch.equal(back.gene_head.bias, run.model.gene_head.bias)


def test_what_cannot_run_is_refused_before_it_starts(corpus, tmp_path):
    with pytest.raises(ValueError, match="lightning.Trainer refuses its arguments: .*devices"):
        options = {"progress": False, "accelerator": "cpu", "devices": "abc"}
        fit(corpus, model(corpus), TrainConfig(**RUN), tmp_path, **options)
    studies = {n: a for n, a in simulate.corpus(n_genes=300).items() if n == "simulated_a"}
    whole = build(tmp_path / "c", studies, dataclasses.replace(RULES, validation_fraction=0))
    with pytest.raises(ValueError, match="no validation samples"):
        fit(whole, model(whole), TrainConfig(**RUN), tmp_path / "run", progress=False)


def test_genes_are_matched_by_name(corpus, run, tmp_path):
    few = write_subset(corpus, tmp_path / "corpus", genes=corpus.genes[[7, 3, 250]])
    small = TxFM(model(few), ["unheard", *few.genes[1:]])
    fresh = small.codebook.weight[0].clone()
    _start_from(run.model, small)
    assert torch.equal(small.codebook.weight[1:], run.model.codebook.weight[[3, 250]])
    assert torch.equal(small.gene_head.bias[1:], run.model.gene_head.bias[[3, 250]])
    assert torch.equal(small.cls, run.model.cls)
    assert torch.equal(small.codebook.weight[0], fresh)
    with pytest.raises(ValueError, match="none of the corpus' genes"):
        _start_from(TxFM(model(few), ["a", "b", "c"]), small)


def test_samples_on_a_device_are_the_rows(corpus):
    batch = next(iter(BatchLoader(corpus, 16)))
    counts = batch.counts.astype(np.uint32)
    counts[0] = 3_000_000_000  # no signed 32-bit number
    for one in (batch, dataclasses.replace(batch, counts=counts)):
        samples = Samples(one, corpus.n_genes, torch.device("cpu"))
        for part in (slice(0, 16), slice(4, 9)):
            assert np.array_equal(samples.counts(part).numpy(), one.dense(corpus.n_genes)[part])


def test_neighbours_against_sklearn():
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 5, n) for n in (300, 200)]
    x, y = (rng.normal(size=(len(c), 8)) + np.eye(8)[c] for c in labels)
    ours = neighbour_accuracy(x, labels[0], y, labels[1])
    knn = KNeighborsClassifier(15, metric="cosine").fit(x, labels[0])
    expected = balanced_accuracy_score(labels[1], knn.predict(y))
    assert ours == pytest.approx(expected) and 0.3 < ours < 0.9
    assert np.isnan(neighbour_accuracy(x, labels[0], y, labels[1] + 5))


@pytest.mark.parametrize(
    ("capability", "choice", "reason"),
    [((7, 5), "fp16", "Tesla T4 has no bf16"), ((9, 0), "bf16", "multiplies bf16")],
)
def test_precision_follows_the_device(monkeypatch, capability, choice, reason):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    gpu = torch.device("cuda", 0)
    precision, why = devices.choose_precision("auto", gpu)
    assert precision == choice and reason in why
    assert devices.choose_precision("fp32", gpu)[0] == "fp32"
    long = TxFMConfig.preset("b", 44_349)
    assert devices.choose_compile(None, gpu, long, 1_000_000)[0] == (capability >= (8, 0))
    assert not devices.choose_compile(None, gpu, long, 1_000)[0]
    if choice == "fp16":
        with pytest.raises(ValueError, match="'bf16': Tesla T4 has none"):
            devices.choose_precision("bf16", gpu)


def test_choices_on_a_cpu(corpus):
    cpu = torch.device("cpu")
    assert devices.choose_precision("auto", cpu)[0] == "fp32"
    assert devices.choose_compile(True, cpu, model(corpus), 10**9) == (False, "CPU: only a GPU gains from it")
    with pytest.raises(ValueError, match="'fp16': CPU has none"):
        devices.choose_precision("fp16", cpu)
    choose = devices.choose_micro_batch
    assert choose(None, model(corpus), 48, cpu, "fp32") == 48
    assert choose(12, model(corpus), 48, cpu, "fp32") == 12
    with pytest.raises(ValueError, match="micro_batch 7 does not divide the 48"):
        choose(7, model(corpus), 48, cpu, "fp32")


def test_micro_batches_fill_the_memory(monkeypatch):
    """Thirty fit; the largest divisor of 64 below that is taken."""
    monkeypatch.setattr("txfm_lite.estimate.micro_batch", lambda model, memory, precision: 30)
    chosen = devices.choose_micro_batch(None, TxFMConfig(10), 64, torch.device("cpu"), "fp32")
    assert chosen == 16


def test_compiled_parts_compute_the_same_and_leave_nothing_behind(corpus, monkeypatch):
    """Traced as on a GPU, but run by torch itself: what the compiler sees is the same function."""
    compilations = []

    def traced(function, **options):
        compilations.append(function.__name__)
        return compile(function, backend="eager", **options)

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    small = TxFM(model(corpus))
    own = set(vars(small))
    values, noise = torch.rand(2, 8, corpus.n_genes).unbind()
    measured = torch.ones_like(values, dtype=torch.bool)

    def gradients():
        torch.manual_seed(0)
        small.zero_grad()
        small.loss(small(values, measured, noise=noise, enough=True), values, measured).backward()
        return [p.grad for p in small.parameters()]

    expected = gradients()
    with devices.compiled(small):
        found = gradients()
    assert compilations == ["encode", "decode", "loss"] and set(vars(small)) == own
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


WITHOUT = """
import sys
from importlib import metadata
from importlib.machinery import PathFinder

HIDDEN = {"pandas", "scipy", "sklearn", "scanpy", "anndata", "h5py", "matplotlib", "tensorboard", "pooch"}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)

def from_name(name, found=metadata.Distribution.from_name):
    if name.replace("scikit-learn", "sklearn") in HIDDEN:
        raise metadata.PackageNotFoundError(name)
    return found(name)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
metadata.Distribution.from_name = from_name
"""


def test_runs_with_torch_lightning_numpy_and_safetensors_alone(corpus, tmp_path):
    code = f"""{WITHOUT}
from txfm_lite import TxFM
from txfm_lite.corpus import Corpus
from txfm_lite.inference import encode_rows
from txfm_lite.training import TrainConfig, fit
from txfm_lite.txfm import TxFMConfig
corpus = Corpus.open({str(corpus.path)!r})
config = TrainConfig(**{ ({**RUN, "steps": 2})!r})
fit(corpus, {model(corpus)!r}, config, {str(tmp_path)!r}, progress=False)
trained = TxFM.from_pretrained({str(tmp_path / "model")!r})
rows = corpus.rows("validation")[:5]
measured = corpus.measured[corpus.dataset[rows[0]]]
e = encode_rows(trained, *corpus.read(rows), corpus.library_size[rows], measured)
assert e.shape == (5, 16)
assert not HIDDEN & {{name.partition(".")[0] for name in sys.modules}}
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_config_refuses():
    for field, value in [("steps", 0), ("clip", -1.0), ("micro_batch", 0), ("precision", "int8")]:
        with pytest.raises(ValueError, match=field):
            TrainConfig(**{"steps": 1, field: value})
