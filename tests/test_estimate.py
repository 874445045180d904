"""Arithmetic against torch's own counter and the published table; memory against what autograd keeps."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from txfm_lite.estimate import (
    DEVICES,
    WIDTHS,
    activation_bytes,
    estimate,
    largest_divisor,
    micro_batch,
    n_parameters,
    tflop_per_sample,
)
from txfm_lite.txfm import TxFM, TxFMConfig


def preset(name, **changes):
    return TxFMConfig.preset(name, 44_349, **changes)


@pytest.mark.parametrize(
    ("name", "full", "cls_only"),
    [("s6", 0.2467, 0.2093), ("s", 0.4933, 0.4559), ("b", 1.5087, 1.3976), ("l", 4.9512, 4.7707)],
)
def test_published_arithmetic(name, full, cls_only):
    assert tflop_per_sample(preset(name), full_last_block=True) == pytest.approx(full, abs=1e-4)
    assert tflop_per_sample(preset(name)) == pytest.approx(cls_only, abs=1e-4)


@pytest.mark.parametrize(("k", "tflop"), [(256, 0.139), (512, 0.291), (1024, 0.639), (4096, 3.944)])
def test_arithmetic_grows_with_the_genes_shown(k, tflop):
    assert tflop_per_sample(preset("b", n_revealed=k), full_last_block=True) == pytest.approx(tflop, abs=1e-3)


@pytest.mark.parametrize("n_blocks", [1, 3])
@pytest.mark.parametrize("backward", [False, True])
def test_arithmetic_is_what_torch_counts(n_blocks, backward):
    """Two batch sizes: the difference is the samples' own, without what a batch shares."""
    config = TxFMConfig(
        n_genes=300, d_model=32, n_blocks=n_blocks, n_heads=4, n_revealed=100, mlp_ratio=3, drop_path=0.0
    )
    model, counted = TxFM(config), []
    for n in (2, 5):
        x, measured = torch.rand(n, 300), torch.ones(n, 300, dtype=torch.bool)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            rates = model(x, measured, enough=True)
            if backward:
                model.loss(rates, x, measured).backward()
        counted.append(counter.get_total_flops())
    per_sample = (counted[1] - counted[0]) / 3
    assert per_sample == pytest.approx(tflop_per_sample(config, backward=backward) * 1e12, rel=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("n_blocks", [1, 3, 6])
def test_memory_is_about_what_autograd_keeps(n_blocks, precision):
    config = TxFMConfig(n_genes=600, d_model=96, n_blocks=n_blocks, n_heads=4, n_revealed=512, drop_path=0.0)
    model, kept = TxFM(config), []
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    for n in (10, 20):
        stored = {}

        def keep(tensor, stored=stored):
            stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        x, measured = torch.rand(n, 600), torch.ones(n, 600, dtype=torch.bool)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):
            loss = model.loss(model(x, measured, enough=True), x, measured)
        assert loss.requires_grad
        kept.append(sum(s.nbytes() for address, s in stored.items() if address not in weights))
    per_sample = (kept[1] - kept[0]) / 10
    assert 0.95 * per_sample < activation_bytes(config, precision) < 1.5 * per_sample


@pytest.mark.parametrize(
    ("name", "device", "low", "high"),
    [("b", "h200", 128, 168), ("b", "a100", 80, 96), ("b", "a100-40", 40, 48), ("s6", "t4", 48, 72)],
)
def test_micro_batches_that_fit(name, device, low, high):
    n = micro_batch(preset(name), DEVICES[device].memory)
    assert low <= n <= high and n % 8 == 0


def test_micro_batch_follows_the_memory():
    b = preset("b")
    assert micro_batch(b, 40e9, "fp32") < micro_batch(b, 40e9) < micro_batch(b, 80e9)
    assert 1 <= micro_batch(b, 6e9) < 8
    with pytest.raises(ValueError, match=r"needs [\d.]+ GB to train and the device has 2.0 GB"):
        micro_batch(b, 2e9)


def test_the_papers_run():
    """1,434,299 samples, 200 epochs: the paper used 864 H100-hours for B, and left room."""
    run = estimate("b", device="h200")
    assert 250 < run.hours < 350
    assert run.samples_per_second * run.hours * 3600 == pytest.approx(1_434_299 * 200)
    assert run.n_parameters == n_parameters(preset("b")) == pytest.approx(159e6, rel=0.02)
    assert 0.5 * DEVICES["h200"].memory < run.memory_gb * 1e9 < 0.82 * DEVICES["h200"].memory
    assert estimate("b", "h200", epochs=100).hours == pytest.approx(run.hours / 2)
    for text in ("hours", "samples/s", "estimated", "158.5M parameters", f"micro-batch of {run.micro_batch}"):
        assert text in str(run)


def test_small_models_on_a_cpu():
    run = estimate(TxFMConfig.preset("xs", 20_000), device="cpu", n_samples=100_000, epochs=1)
    assert 100 < run.samples_per_second < 5_000
    assert "minutes" in str(run) and "measured" in str(run)
    assert run.micro_batch == 1536  # no more than a batch, however small the model


@pytest.mark.parametrize("device", DEVICES)
def test_devices(device):
    known = DEVICES[device]
    assert len(known.tflops) == 1 + len(WIDTHS)
    assert known.basis.startswith(("measured", "estimated"))


def test_the_micro_batch_divides_the_batch():
    """What is promised is what training will choose."""
    fits = micro_batch(preset("b"), DEVICES["h200"].memory)
    assert 1536 % fits and estimate("b", "h200").micro_batch == largest_divisor(1536, fits) == 128
    assert largest_divisor(64, 30) == 16 and largest_divisor(7, 6) == 1 and largest_divisor(8, 100) == 8


def test_nothing_takes_no_time():
    with pytest.raises(ValueError, match="n_samples = -3, .*should be positive"):
        estimate("xs", n_samples=-3)


def test_unknown_names():
    with pytest.raises(ValueError, match="h200, h100, a100"):
        estimate("b", device="abacus")
    with pytest.raises(ValueError, match="no preset 'm'"):
        estimate("m")
