"""Runs of gene set models: what they learn of known modules, and going on as if nothing had happened."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from txfm_lite import completion
from txfm_lite.genesets import GeneSets
from txfm_lite.gsfm import GSFMConfig
from txfm_lite.gsfm_blocks import SPECIALS
from txfm_lite.gsfm_training import GSFMTrainConfig, _auroc, _show_half, fit

G = 300
RUN = dict(epochs=4, batch_size=32, validation=0.2, checkpoint_minutes=0.0, plateau="mean", patience=1)
SMALL = dict(n_tokens=G + 2, d_model=16)


def modules(n: int, seed: int, g: int = G) -> GeneSets:
    """Sets from one or two of 20 overlapping modules, and genes of no module, popular ones more often."""
    members = [np.random.default_rng([0, m]).choice(g, g // 10, replace=False) for m in range(20)]
    rng = np.random.default_rng(seed)
    popular = np.arange(1, g + 1) ** -0.7
    lists = []
    for _ in range(n):
        parts = [
            rng.permutation(members[m])[: g // 15] for m in rng.choice(20, rng.integers(1, 3), replace=False)
        ]
        noise = rng.choice(g, 6, replace=False, p=popular / popular.sum())
        lists.append([f"G{i:03d}" for i in np.concatenate([*parts, noise])])
    sets = GeneSets.from_lists(lists, library="simulated")
    return sets.over([f"G{i:03d}" for i in range(g)])


@pytest.fixture(scope="module")
def sets() -> GeneSets:
    return modules(240, 1)


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    return fit(sets, GSFMConfig(**SMALL), GSFMTrainConfig(**RUN), path, progress=False, snapshots=[0, 2])


def score(logits: np.ndarray, shown: np.ndarray, wanted: np.ndarray) -> float:
    """Mean AUROC of the hidden half among all genes that are not shown."""
    return float(np.mean([
        roc_auc_score(wanted[i][~shown[i]], logits[i][~shown[i]]) for i in range(len(logits))
    ]))  # fmt: skip


def test_beats_popularity_and_is_close_to_ease(tmp_path):
    """Fresh sets, one half shown, the other to be found; EASE is ridge from all genes to each other one."""
    train, test = modules(1500, 1), modules(150, 2)
    config = GSFMTrainConfig(epochs=50, learning_rate=5e-3, validation=0.1, look_every=50)
    run = fit(train, GSFMConfig(G + 2, d_model=32), config, tmp_path, progress=False)
    x, y = (s.csr().toarray() for s in (train, test))
    rng = np.random.default_rng(0)
    shown = y * (rng.random(y.shape) < 0.5)
    known = [list(test.genes[row > 0]) for row in shown]
    ours = score(completion.complete(run.model, GeneSets.from_lists(known)), shown > 0, y - shown)
    popularity = score(np.tile(x.sum(0), (len(y), 1)), shown > 0, y - shown)
    inverse = np.linalg.inv(x.T @ x + 50 * np.eye(G))
    ease = score(shown @ np.where(np.eye(G), 0, -inverse / np.diag(inverse)), shown > 0, y - shown)
    assert ours > popularity + 0.15 and ours > ease - 0.02
    history = run.history.iloc[-1]
    assert abs(history["auroc"] - ours) < 0.05 and abs(history["popularity"] - popularity) < 0.05


def test_history_and_the_folder(sets, run):
    history = run.history
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4] and history["step"].tolist() == [0, 6, 12, 18, 24]
    assert history["train_loss"].iloc[1:].is_monotonic_decreasing
    assert history["loss"].is_monotonic_decreasing and history["popularity"].nunique() == 1
    assert sorted(p.name for p in (run.path / "snapshots").iterdir()) == ["step-0", "step-12"]
    info = json.loads((run.path / "model" / "config.json").read_text())["provenance"]
    assert (info["n_sets"], info["n_held_out"], info["seed"]) == (192, 48, 42)
    assert info["result"]["auroc"] == history["auroc"].iloc[-1]
    assert not run.model.training and run.model.genes == [*SPECIALS, *sets.genes]


def test_an_untrained_model_costs_one_bit(run):
    """Logits near 0: half a chance for each gene."""
    assert run.history["loss"].iloc[0] == pytest.approx(np.log(2), abs=0.01)


def test_a_finished_run_is_opened_not_repeated(sets, run):
    before = time.monotonic()
    again = fit(sets, GSFMConfig(**SMALL), GSFMTrainConfig(**RUN), run.path, progress=False)
    assert time.monotonic() - before < 5
    pd.testing.assert_frame_equal(again.history, run.history)
    assert all(
        torch.equal(a, b) for a, b in zip(run.model.parameters(), again.model.parameters(), strict=True)
    )
    with pytest.raises(ValueError, match="patience was 1 and is 3 now"):
        fit(sets, GSFMConfig(**SMALL), GSFMTrainConfig(**{**RUN, "patience": 3}), run.path, progress=False)
    with pytest.raises(ValueError, match="cannot resume: corpus was"):
        fit(modules(240, 5), GSFMConfig(**SMALL), GSFMTrainConfig(**RUN), run.path, progress=False)


def same(resumed, run) -> None:
    columns = [c for c in run.history if c != "minutes"]
    pd.testing.assert_frame_equal(resumed.history[columns], run.history[columns], check_exact=True)
    for (name, a), b in zip(run.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_resumes_exactly_after_sigkill(sets, run, tmp_path):
    np.savez(tmp_path / "sets.npz", **{k: v for k, v in vars(sets).items() if v is not None})
    path = tmp_path / "run"
    code = f"""
import numpy as np
from txfm_lite.genesets import GeneSets
from txfm_lite.gsfm import GSFMConfig
from txfm_lite.gsfm_training import GSFMTrainConfig, fit
sets = GeneSets(**np.load({str(tmp_path / "sets.npz")!r}, allow_pickle=True))
fit(sets, GSFMConfig(**{SMALL!r}), GSFMTrainConfig(**{RUN!r}), {str(path)!r}, progress=False)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint, deadline = path / "last.ckpt", time.monotonic() + 120
    while time.monotonic() < deadline and not _reached(checkpoint, 8):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 8 <= torch.load(checkpoint, weights_only=True)["global_step"] < 24
    same(fit(sets, GSFMConfig(**SMALL), GSFMTrainConfig(**RUN), path, progress=False), run)
    assert not checkpoint.exists()


def _reached(checkpoint, step: int) -> bool:
    return checkpoint.exists() and torch.load(checkpoint, weights_only=True)["global_step"] >= step


class StopsAfter(lightning.Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise TimeoutError


@pytest.mark.parametrize("step", [9, 12, 13])
@pytest.mark.parametrize(
    "fields",
    [
        dict(partition=0.5, weighting="balance"),
        dict(architecture="VAE", n_latent=4),
        dict(architecture="EPDAE", partition=0.9, hiding="up to", target="whole"),
    ],
    ids=lambda fields: fields.get("architecture", "DAE"),
)
def test_resumes_exactly_whatever_is_drawn(sets, tmp_path, fields, step):
    """Amid an epoch, at its end, and one step behind: what is hidden, dropped, counted and followed."""
    if step != 9 and "architecture" in fields:
        pytest.skip("one model is enough for the ends of epochs")
    model, config = GSFMConfig(**SMALL, **fields), GSFMTrainConfig(**{**RUN, "plateau": "last"})
    run = fit(sets, model, config, tmp_path / "whole", progress=False)
    with pytest.raises(TimeoutError):
        fit(sets, model, config, tmp_path / "parts", progress=False, callbacks=[StopsAfter(step)])
    assert _reached(tmp_path / "parts" / "last.ckpt", step - 1)
    same(fit(sets, model, config, tmp_path / "parts", progress=False), run)


@pytest.mark.parametrize("plateau", ["last", "mean"])
def test_the_learning_rate_follows_what_it_says(sets, tmp_path, plateau):
    """A scheduler of torch's own, fed from outside with the losses of each step, takes the same steps."""
    losses = []

    class Records(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            losses.append(module.watch.last)

    config = GSFMTrainConfig(
        **{**RUN, "plateau": plateau, "epochs": 9, "patience": 1, "learning_rate": 1e-6, "look_every": 3}
    )
    run = fit(sets, GSFMConfig(**SMALL), config, tmp_path, progress=False, callbacks=[Records()])
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1e-6)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.25, patience=1)
    rates = []
    for epoch in np.array(losses).reshape(9, 6):
        reference.step(epoch[-1] if plateau == "last" else epoch.mean())
        rates.append(optimiser.param_groups[0]["lr"])
    assert run.history["epoch"].tolist() == [0, 3, 6, 9]
    assert run.history["learning_rate"].tolist()[1:] == [rates[2], rates[5], rates[8]]
    assert rates[-1] < 1e-6


def test_the_learning_rate_cools_down_and_resumes(sets, tmp_path):
    rates = []

    class Records(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            rates.append(module.optimizers().param_groups[0]["lr"])

    config, model = GSFMTrainConfig(**{**RUN, "cooldown": 0.5, "learning_rate": 0.01}), GSFMConfig(**SMALL)
    run = fit(sets, model, config, tmp_path / "whole", progress=False, callbacks=[Records()])
    assert len(rates) == 24 and set(rates[:12]) == {0.01}
    np.testing.assert_allclose(rates[12:], 0.01 * np.arange(11, -1, -1) / 12, atol=1e-12)
    with pytest.raises(TimeoutError):
        fit(sets, model, config, tmp_path / "parts", progress=False, callbacks=[StopsAfter(15)])
    same(fit(sets, model, config, tmp_path / "parts", progress=False), run)


def test_rare_genes_do_not_slow_adam_down(sets, tmp_path):
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot take the smallest numbers for zero")
    torch.set_flush_denormal(False)
    tiny, seen = torch.full((3,), 1e-39), []

    class Multiplies(lightning.Callback):
        def on_train_batch_end(self, *_):
            seen.append((tiny * 1).any().item())

    short = GSFMTrainConfig(**{**RUN, "epochs": 1})
    fit(sets, GSFMConfig(**SMALL), short, tmp_path, progress=False, callbacks=[Multiplies()])
    assert seen and not any(seen) and (tiny * 1).all()


def test_published_defaults():
    config = GSFMTrainConfig()
    assert (config.epochs, config.batch_size, config.seed, config.plateau) == (50, 128, 42, "last")
    assert (config.factor, config.patience, config.validation) == (0.25, 10, 0.0)


def test_no_set_held_out_and_a_rate_of_its_own(sets, tmp_path):
    config = GSFMTrainConfig(epochs=1, batch_size=64)
    run = fit(sets, GSFMConfig(**SMALL, architecture="mEDAE"), config, tmp_path, progress=False)
    assert run.history["auroc"].isna().all() and run.history["learning_rate"].tolist() == [1e-5, 1e-5]
    info = json.loads((tmp_path / "model" / "config.json").read_text())["provenance"]
    assert info["n_sets"] == 240 and "auroc" not in info["result"]


def test_a_smaller_vocabulary_has_unknown_genes(sets, tmp_path):
    config = GSFMTrainConfig(epochs=1, batch_size=64)
    model = GSFMConfig(52, d_model=8)
    run = fit(sets, model, config, tmp_path / "a", genes=sets.genes[:50], progress=False)
    assert run.model.genes == ["<unk>", "<pad>", *sets.genes[:50]]
    assert run.model.encoder.layers[0].weight[:, 0].all()  # learnt
    with pytest.raises(ValueError, match="n_tokens is 52; the vocabulary has 302"):
        fit(sets, model, config, tmp_path / "b", progress=False)


def test_weighted_and_signed_sets_train(sets, tmp_path):
    rng = np.random.default_rng(0)
    signed = dataclasses.replace(sets, weights=rng.normal(size=len(sets.indices)).astype(np.float32))
    for channels in (1, 2):
        config = GSFMTrainConfig(**{**RUN, "epochs": 2})
        model = GSFMConfig(**SMALL, channels=channels)
        run = fit(signed, model, config, tmp_path / str(channels), progress=False)
        assert run.history["loss"].is_monotonic_decreasing
        assert completion.complete(run.model, signed).shape == (240, G)


def test_what_cannot_be_trained_is_refused(sets, tmp_path):
    model, config = GSFMConfig(**SMALL), GSFMTrainConfig(**RUN)
    empty = GeneSets.from_lists([["G001", "G002"], []], ["a", "nothing"]).over(sets.genes)
    with pytest.raises(ValueError, match="1 sets have no gene, for example 'nothing'"):
        fit(empty, model, config, tmp_path, progress=False)
    small = GeneSets.from_lists([["G001", "G002"]] * 10).over(sets.genes)
    with pytest.raises(ValueError, match="none of the 2 sets held out has 10 genes"):
        fit(small, model, config, tmp_path, progress=False)
    huge = dataclasses.replace(sets, weights=np.full(len(sets.indices), 1e38, np.float32))
    with pytest.raises(FloatingPointError, match="of simulated .* look at the weights of these sets"):
        fit(huge, model, config, tmp_path, progress=False)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("plateau", "best"), ("validation", 1.0), ("precision", "int8"), ("learning_rate", -1.0),
     ("factor", 1.0), ("cooldown", 2.0)],
)  # fmt: skip
def test_config_refuses(field, value):
    with pytest.raises(ValueError, match=field):
        GSFMTrainConfig(**{field: value})


def test_auroc_against_sklearn():
    rng = np.random.default_rng(0)
    for decimals in (0, 1, 6):  # many ties, some, none
        scores = torch.from_numpy(rng.normal(size=200).round(decimals))
        candidate = torch.from_numpy(rng.random(200) < 0.8)
        truth = candidate.numpy() & (rng.random(200) < 0.1)
        found = _auroc(scores, torch.from_numpy(np.flatnonzero(truth)), candidate)
        assert found == pytest.approx(roc_auc_score(truth[candidate], scores[candidate]))
    assert _auroc(torch.arange(5.0), torch.tensor([3, 4]), torch.ones(5, dtype=torch.bool)) == 1
    assert np.isnan(
        _auroc(torch.arange(5.0), torch.tensor([], dtype=torch.long), torch.ones(5, dtype=torch.bool))
    )


def test_halves_are_halves():
    lengths = torch.tensor([10, 11, 1, 20])
    shown = _show_half(lengths, torch.rand(42, dtype=torch.float64))
    assert [int(part.sum()) for part in shown.split(lengths.tolist())] == [5, 5, 0, 10]
