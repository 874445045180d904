"""The model: what it may see, what it must not see, its size, and its files."""

import json

import numpy as np
import pytest
import torch

from txfm_lite.objectives import poisson_loss
from txfm_lite.txfm import Block, TxFM, TxFMConfig, log_normalise, reveal

G, D = 30, 16


def small(**changes) -> TxFM:
    torch.manual_seed(0)
    fields = dict(n_genes=G, d_model=D, n_blocks=3, n_heads=4, n_revealed=10, drop_path=0.0)
    return TxFM(TxFMConfig(**{**fields, **changes})).eval()


@pytest.fixture
def cells() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.log1p(torch.poisson(torch.rand(4, G) * 20))


@pytest.mark.parametrize(("name", "millions"), [("s", 57), ("b", 159), ("l", 403)])
def test_published_sizes(name, millions):
    with torch.device("meta"):
        model = TxFM(TxFMConfig.preset(name, n_genes=44_349))
    assert model.n_parameters / 1e6 == pytest.approx(millions, rel=0.02)


def test_log_normalise():
    counts = torch.tensor([[1.0, 3.0], [0.0, 5.0]])
    x = log_normalise(counts, torch.tensor([10.0, 5.0]), 100.0)
    np.testing.assert_allclose(x, np.log1p([[10, 30], [0, 100]]), rtol=1e-6)


def test_reveal_draws_measured_genes_without_replacement():
    measured = torch.rand(50, G, generator=torch.Generator().manual_seed(0)) < 0.6
    genes, shown = reveal(measured, 10, torch.Generator().manual_seed(1))
    assert genes.shape == shown.shape == (50, 10)
    for i in range(50):
        drawn = genes[i][shown[i]]
        assert len(drawn.unique()) == len(drawn) == min(10, int(measured[i].sum()))
        assert measured[i][drawn].all()


def test_reveal_is_uniform():
    measured = torch.ones(6000, G, dtype=torch.bool)
    genes, _ = reveal(measured, 10, torch.Generator().manual_seed(0))
    counts = torch.bincount(genes.ravel(), minlength=G).double()
    expected = 6000 * 10 / G
    chi2 = ((counts - expected) ** 2 / expected).sum().item()
    assert chi2 < 60  # 29 degrees of freedom: p < 0.001 beyond 58


def test_more_genes_wanted_than_measured(cells):
    """A cell that measures fewer genes than K shows them all, and its batch does not change what it gets."""
    model = small(n_revealed=20)
    measured = torch.ones(4, G, dtype=torch.bool)
    measured[0, 7:] = False
    genes, shown = reveal(measured, 20, torch.Generator().manual_seed(0))
    assert shown.sum(1).tolist() == [7, 20, 20, 20]
    together = model.encode(cells.gather(1, genes), genes, shown)
    own = genes[:1][:, shown[0]]
    alone = model.encode(cells[:1].gather(1, own), own)
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)


def test_a_cell_is_a_set(cells):
    model, genes = small(), torch.stack([torch.randperm(G)[:12] for _ in cells])
    order = torch.randperm(12)
    values = cells.gather(1, genes)
    torch.testing.assert_close(
        model.encode(values, genes), model.encode(values[:, order], genes[:, order]), atol=1e-5, rtol=1e-4
    )


def test_hidden_values_never_reach_the_embedding(cells):
    model, measured = small(), torch.ones(4, G, dtype=torch.bool)
    genes, shown = reveal(measured, 10, torch.Generator().manual_seed(3))
    hidden = torch.ones(4, G, dtype=torch.bool).scatter(1, genes, False)
    changed = torch.where(hidden, cells + 5, cells)
    before, after = (model(x, measured, torch.Generator().manual_seed(3)) for x in (cells, changed))
    torch.testing.assert_close(before, after)
    seen = torch.where(hidden, cells, cells + 1)  # and the test can fail: a shown value does matter
    assert not torch.allclose(before, model(seen, measured, torch.Generator().manual_seed(3)))


def test_unmeasured_genes_change_nothing(cells):
    model, measured = small().train(), torch.rand(4, G, generator=torch.Generator().manual_seed(0)) < 0.7
    losses, gradients = [], []
    for x in (cells, torch.where(measured, cells, 99.0)):
        model.zero_grad()
        loss = poisson_loss(model(x, measured, torch.Generator().manual_seed(0)), x, measured)
        loss.backward()
        losses.append(loss.item())
        gradients.append(model.codebook.weight.grad.clone())
    assert losses[0] == losses[1]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("hidden", [False, True])
def test_one_block_without_tokens(hidden):
    """The short way through a single block equals attention over the tokens, gradients included."""
    model = small(n_blocks=1, n_genes=80).double()
    for p in model.parameters():  # also those that start at zero or one
        p.data += 0.1 * torch.randn_like(p)
    genes = torch.stack([torch.randperm(80)[:20] for _ in range(4)])
    values = torch.rand(4, 20, dtype=torch.float64) * 8
    shown = torch.rand(4, 20) < 0.6 if hidden else None
    short = model.encode(values, genes, shown)
    mask = None if shown is None else torch.nn.functional.pad(shown, (1, 0), value=True)[:, None, None]
    plain = model.norm(model.blocks[0](model.tokens(values, genes), mask, cls_only=True))[:, 0]
    torch.testing.assert_close(short, plain, atol=1e-10, rtol=0)
    direction, parameters = (
        torch.randn_like(short),
        [*model.blocks.parameters(), model.codebook.weight, model.cls],
    )
    gradients = [torch.autograd.grad((e * direction).sum(), parameters) for e in (short, plain)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    single = model.float().encode(values.float(), genes, shown)
    torch.testing.assert_close(single, plain.float(), atol=1e-5, rtol=1e-5)


def test_last_block_needs_only_cls(cells):
    block = Block(TxFMConfig(n_genes=G, d_model=D, n_heads=4), drop_path=0.0).eval()
    x = torch.randn(4, 9, D)
    mask = torch.rand(4, 1, 1, 9) < 0.7
    mask[..., 0] = True
    torch.testing.assert_close(block(x, mask)[:, :1], block(x, mask, cls_only=True))


def test_stochastic_depth_keeps_the_mean():
    """A fixed share of the samples takes part, each as often as any other, and the expectation stays."""
    block = Block(TxFMConfig(n_genes=G, d_model=D, n_heads=4), drop_path=0.3).train()
    sizes, total = [], torch.zeros(10, 1, 1)
    for _ in range(2000):
        rows_seen = []

        def branch(rows, seen=rows_seen):
            seen.append(len(rows))
            return torch.ones(len(rows), 1, 1)

        total += block._add(torch.zeros(10, 1, 1), branch)
        sizes += rows_seen
    assert set(sizes) == {7}
    np.testing.assert_allclose(total / 2000, 1, atol=0.06)
    x = torch.randn(6, 5, D)
    assert not torch.allclose(block(x), block.eval()(x))


def test_starts_at_the_mean_profile():
    model = small()
    mean = torch.rand(G) * 300
    model.start_from_profile(mean)
    with torch.no_grad():
        for layer in model.decoder.modules():  # an embedding that says nothing
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_(), layer.bias.zero_()
    torch.testing.assert_close(model.decode(torch.randn(2, D)), torch.log1p(mean).expand(2, -1))


def test_overfits_one_batch(cells):
    model = small(n_revealed=G).train()
    model.start_from_profile(cells.exp().mean(0) - 1)
    measured = torch.ones(4, G, dtype=torch.bool)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    perfect = poisson_loss(cells, cells).item()
    mean = torch.log(cells.exp().mean(0)).expand_as(cells)
    floor = poisson_loss(mean, cells).item()
    for _ in range(400):
        loss = poisson_loss(model(cells, measured), cells, measured)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    assert loss.item() < floor - 0.9 * (floor - perfect)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"n_genes": 0}, "n_genes"),
        ({"n_genes": 10, "d_model": 10, "n_heads": 3}, "n_heads"),
        ({"n_genes": 10, "drop_path": 1.0}, "drop_path"),
        ({"n_genes": 10, "n_revealed": 2.5}, "n_revealed"),
    ],
)
def test_config_refuses(fields, word):
    with pytest.raises(ValueError, match=word):
        TxFMConfig(**fields)


def test_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match="tiny, s, s6, b, l"):
        TxFMConfig.preset("xxl", n_genes=10)


def test_files_round_trip(tmp_path, cells):
    model = small()
    model.genes = [f"gene{i}" for i in range(G)]
    model.save_pretrained(tmp_path / "m", seed=3)
    model.save_pretrained(tmp_path / "m", seed=4)  # replaces
    again = TxFM.from_pretrained(tmp_path / "m")
    genes = torch.arange(G).expand(4, -1)
    torch.testing.assert_close(model.encode(cells, genes), again.encode(cells, genes), atol=0, rtol=0)
    assert again.genes == model.genes
    assert json.loads((tmp_path / "m" / "config.json").read_text())["provenance"] == {"seed": 4}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]  # nothing left aside


def test_damaged_files(tmp_path):
    path = small().save_pretrained(tmp_path / "m")
    info = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**info, "config": {**info["config"], "width": 3}}))
    with pytest.raises(ValueError, match="unknown field width"):
        TxFM.from_pretrained(path)
    (path / "config.json").write_text(json.dumps({**info, "config": {**info["config"], "n_genes": G + 1}}))
    with pytest.raises(ValueError, match="does not fit"):
        TxFM.from_pretrained(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        TxFM.from_pretrained(path)
    with pytest.raises(ValueError, match="29 genes"):
        TxFM(TxFMConfig(n_genes=G), genes=[str(i) for i in range(29)])
