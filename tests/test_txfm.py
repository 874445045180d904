"""The model: what it may see, what it must not see, its variants and its size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch.nn.attention import SDPBackend, sdpa_kernel

from txfm_lite.blocks import Block
from txfm_lite.objectives import ACTIVATIONS, LOSSES, poisson_loss
from txfm_lite.txfm import TxFM, TxFMConfig, log_normalise, reveal

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


def test_other_sizes():
    with torch.device("meta"):
        read_literally = TxFM(TxFMConfig.preset("s6", n_genes=44_349))
        for_laptops = TxFM(TxFMConfig.preset("txfm-xs", n_genes=20_000))
    assert read_literally.n_parameters / 1e6 == pytest.approx(46.0, rel=0.01)
    assert 10e6 < for_laptops.n_parameters < 15e6


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


def test_reveal_in_proportion_to_weights():
    """The first of a weighted draw without replacement is a plain weighted draw."""
    weights = torch.tensor([0.0, 1, 2, 3, 4])
    genes, _ = reveal(torch.ones(8000, 5, dtype=torch.bool), 1, torch.Generator().manual_seed(0), weights)
    shares = torch.bincount(genes.ravel(), minlength=5) / 8000
    np.testing.assert_allclose(shares, weights / 10, atol=0.02)
    measured = torch.ones(20, 5, dtype=torch.bool)
    measured[:, 3] = False
    genes, shown = reveal(measured, 5, torch.Generator().manual_seed(0), weights)
    assert (genes[shown].view(20, 4).sort().values == torch.tensor([0, 1, 2, 4])).all()


@pytest.mark.parametrize("weights", [None, torch.rand(G, generator=torch.Generator().manual_seed(0))])
def test_given_noise_decides_the_draw(weights):
    """Rows of a shared draw show the same genes, whoever holds them."""
    measured, noise = torch.ones(6, G, dtype=torch.bool), torch.rand(6, G)
    genes, _ = reveal(measured, 10, weights=weights, noise=noise)
    own, _ = reveal(measured[2:4], 10, weights=weights, noise=noise[2:4])
    assert (genes[2:4] == own).all()


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


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_hidden_values_never_reach_the_embedding(cells, n_blocks):
    model, measured = small(n_blocks=n_blocks), torch.ones(4, G, dtype=torch.bool)
    genes, shown = reveal(measured, 10, torch.Generator().manual_seed(3))
    hidden = torch.ones(4, G, dtype=torch.bool).scatter(1, genes, False)
    changed = torch.where(hidden, cells + 5, cells)
    before, after = (model(x, measured, torch.Generator().manual_seed(3)) for x in (cells, changed))
    assert (before == after).all()
    seen = torch.where(hidden, cells, cells + 1)  # and the test can fail: a shown value does matter
    assert not torch.allclose(before, model(seen, measured, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("n_blocks", [1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_unmeasured_genes_change_nothing(cells, loss, activation, n_blocks):
    """Neither the embedding nor the loss nor any gradient; and they get none themselves."""
    model = small(n_blocks=n_blocks, loss=loss, activation=activation).train()
    model.start_from_profile(torch.full((G,), 100.0))  # every logit where it has a gradient
    measured = torch.rand(4, G, generator=torch.Generator().manual_seed(0)) < 0.7
    measured[:, 5] = False  # a gene that nobody measures
    genes, shown = reveal(measured, 10, torch.Generator().manual_seed(0))
    embeddings, losses, gradients = [], [], []
    for x in (cells, torch.where(measured, cells, 99.0)):
        model.zero_grad()
        embeddings.append(model.encode(x.gather(1, genes), genes, shown))
        rates = model(x, measured, torch.Generator().manual_seed(0))
        losses.append(model.loss(rates, x, measured, totals=torch.full((4,), 3e4)))
        losses[-1].backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert (embeddings[0] == embeddings[1]).all()
    assert losses[0].isfinite() and losses[0] == losses[1]
    assert all((a == b).all() for a, b in zip(*gradients, strict=True))
    assert (model.gene_head.weight.grad[5] == 0).all() and (model.gene_head.weight.grad[6] != 0).any()


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
    mask = None if shown is None else F.pad(shown, (1, 0), value=True)[:, None, None]
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


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_one_block_keeps_its_precision_under_autocast(low):
    model = small(n_blocks=1)
    genes, values = torch.arange(G).expand(4, -1), torch.rand(4, G) * 11
    exact = model.encode(values, genes)
    with torch.autocast("cpu", low):
        rough = model.encode(values, genes)
        rough.sum().backward()  # also the backward pass, in here or outside
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    assert model.codebook.weight.grad.dtype == torch.float32 and model.codebook.weight.grad.isfinite().all()


def test_attention_at_full_length():
    """Plain attention at the paper's 2,049 tokens, a length that is no multiple of anything, against the
    written-out formula: outputs and gradients."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 2049, 64, requires_grad=True) for _ in range(3))
    fast = F.scaled_dot_product_attention(q, k, v)
    with sdpa_kernel(SDPBackend.MATH):
        exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(fast, exact.float(), atol=1e-5, rtol=1e-4)
    direction = torch.randn_like(fast)
    ours = torch.autograd.grad((fast * direction).sum(), (q, k, v))
    theirs = torch.autograd.grad((exact * direction).sum(), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_every_layer_can_be_read(cells):
    genes = torch.arange(G).expand(4, -1)
    for n_blocks in (1, 3):
        model = small(n_blocks=n_blocks)
        layers = model.encode(cells, genes, return_all=True)
        assert layers.shape == (4, n_blocks, D)
        torch.testing.assert_close(layers[:, -1], model.encode(cells, genes))
    shallow = small(n_blocks=3)
    shallow.blocks = shallow.blocks[:2]  # a model cut after its second block says what layer two says
    torch.testing.assert_close(layers[:, 1], shallow.encode(cells, genes))


@pytest.mark.parametrize(("n_blocks", "enough"), [(3, True), (1, None)])
def test_no_wait_for_the_device_when_all_genes_are_shown(cells, monkeypatch, n_blocks, enough):
    def refuse(_):
        raise AssertionError("a value was asked for")

    model, measured = small(n_blocks=n_blocks), torch.ones(4, G, dtype=torch.bool)
    expected = model(cells, measured, torch.Generator().manual_seed(0))
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__bool__", refuse)
        patch.setattr(torch.Tensor, "item", refuse)
        rates = model(cells, measured, torch.Generator().manual_seed(0), enough=enough)
    torch.testing.assert_close(rates, expected)


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


@pytest.mark.parametrize("preprocessing", ["library_log1p", "log1p"])
def test_negative_binomial_learns_its_dispersion(preprocessing):
    """Raw counts come back from x: the loss is scipy's, and each gene's dispersion gets a gradient."""
    model = small(loss="negative_binomial", preprocessing=preprocessing)
    counts, totals = torch.poisson(torch.rand(4, G) * 20), torch.tensor([500.0, 300, 900, 400])
    x, rates = model.normalise(counts, totals), torch.rand(4, G) * 3
    loss = model.loss(rates, x, totals=totals)
    size = (totals / 1e5)[:, None] if preprocessing == "library_log1p" else 1.0
    mean = size * (torch.expm1(rates) + 0.01)
    expected = -stats.nbinom.logpmf(counts.numpy(), 1.0, (1 / (1 + mean)).numpy()).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert (model.log_dispersion.grad != 0).all()
    assert not hasattr(small(), "log_dispersion")
    if preprocessing == "library_log1p":
        with pytest.raises(ValueError, match="totals"):
            model.loss(rates, x)


def test_preprocessing():
    counts, totals = torch.tensor([[1.0, 3.0]]), torch.tensor([10.0])
    np.testing.assert_allclose(small().normalise(counts, totals), np.log1p([[1e4, 3e4]]), rtol=1e-6)
    np.testing.assert_allclose(
        small(preprocessing="log1p").normalise(counts, totals), np.log1p([[1, 3]]), rtol=1e-6
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_starts_at_the_mean_profile(activation):
    model, mean = small(activation=activation), torch.rand(G) * 300
    mean *= 1e5 / mean.sum()
    model.start_from_profile(mean)
    np.testing.assert_allclose(
        ACTIVATIONS[activation](model.gene_head.bias.detach(), 1e5), torch.log1p(mean), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"n_genes": 10, "activation": "tanh"}, "activation = 'tanh': should be one of rectified_tanh, relu"),
        ({"n_genes": 10, "loss": "l2"}, "loss = 'l2': should be one of poisson, mse"),
        ({"n_genes": 10, "preprocessing": "cpm"}, "preprocessing = 'cpm': should be one of library_log1p"),
        ({"n_genes": 10, "reveal_exponent": float("nan")}, "reveal_exponent"),
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


def test_vocabulary_must_fit():
    with pytest.raises(ValueError, match="29 genes"):
        TxFM(TxFMConfig(n_genes=G), genes=[str(i) for i in range(29)])
    with pytest.raises(ValueError, match="29 distinct"):
        TxFM(TxFMConfig(n_genes=G), genes=["1", *map(str, range(29))])
