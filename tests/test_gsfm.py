"""The GSFM family against dense formulas, torch's own losses, and the published numbers."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence

from txfm_lite import gsfm
from txfm_lite.genesets import GeneSets
from txfm_lite.gsfm import GSFM, GSFMConfig
from txfm_lite.gsfm_blocks import PAD, SPECIALS, Bag, Bags, divide
from txfm_lite.gsfm_sets import SetLoader, SetSample, tokenise_sets

V, D = 40, 8
GENES = [*SPECIALS, *(f"G{i}" for i in range(V - 2))]
KINDS = ("DAE", "EDAE", "mEDAE", "EPDAE", "VAE")


def some_sets(n: int = 9, weighted: bool = False) -> Bags:
    rng = np.random.default_rng(0)
    lists = [np.sort(rng.choice(np.arange(2, V), rng.integers(1, 15), replace=False)) for _ in range(n)]
    offsets = torch.tensor([0, *np.cumsum([len(x) for x in lists])[:-1]])
    indices = torch.from_numpy(np.concatenate(lists))
    return Bags(indices, offsets, torch.randn(len(indices)) if weighted else None)


def multi_hot(bags: Bags, columns: int = V) -> torch.Tensor:
    x = torch.zeros(len(bags.offsets), columns)
    x[bags.rows, bags.indices] = 1.0 if bags.weights is None else bags.weights
    x[:, PAD] = 0
    return x


@pytest.mark.parametrize(
    ("v", "d", "counts"),
    [
        (19_589, 128, (5_034_501, 7_591_429, 15_278_213)),
        (19_589, 256, (10_049_413, 15_261_573, 30_962_821)),
        (19_589, 512, (20_079_237, 30_896_773, 63_609_989)),
        (19_589, 1024, (40_138_885, 63_346_821, 134_016_133)),
        (89_890, 256, (None, 69_323_042, None)),
        (106_972, 256, (None, 82_459_100, None)),
        (19_400, 256, (None, 15_116_232, None)),
    ],
)
def test_parameters_of_the_dae(v, d, counts):
    with torch.device("meta"):
        for depth, expected in enumerate(counts, start=1):
            if expected is not None:
                assert gsfm.DAE(v, d, depth, 0.2).n_parameters == expected


def test_parameters_of_the_others():
    expected = {"VAE": 15_360_390, "EPDAE": 15_392_389, "EDAE": 10_114_949, "mEDAE": 10_114_949}
    with torch.device("meta"):
        for name, n in expected.items():
            assert getattr(gsfm, name)(19_589, d_model=256, depth=2, dropout=0.2).n_parameters == n
        powers, multiples = (
            GSFM(GSFMConfig(19_589, "EDAE", depth=3, widths=w)) for w in gsfm.CHOICES["widths"]
        )
    assert powers.decoder.layers[0].out_features == 65_536  # as published: 1.3 thousand million weights
    assert 1.3e9 < powers.n_parameters < 1.4e9 and multiples.n_parameters < 2e7
    assert gsfm.widths(powers.config) == ([256, 65_536, 256], [256, 65_536, 19_589])


def test_layers_of_the_published_model():
    names = {name: tuple(p.shape) for name, p in gsfm.DAE(V, d_model=D).state_dict().items()}
    assert names == {
        "encoder.layers.0.weight": (2 * D, V), "encoder.layers.0.bias": (2 * D,),
        "encoder.layers.3.weight": (D, 2 * D), "encoder.layers.3.bias": (D,),
        "decoder.layers.0.weight": (D, D), "decoder.layers.0.bias": (D,),
        "decoder.layers.3.weight": (V, D), "decoder.layers.3.bias": (V,),
    }  # fmt: skip
    dims = {k: gsfm.widths(GSFMConfig(V, "DAE", d_model=D, depth=k)) for k in (1, 2, 3)}
    assert dims[1] == ([V, D], [D, V]) and dims[3] == ([V, 4 * D, 2 * D, D], [D, D, 2 * D, V])
    dims = {k: gsfm.widths(GSFMConfig(V, "EPDAE", d_model=D, depth=k)) for k in (1, 2, 3)}
    assert dims[1] == ([D, D], [2 * D, V]) and dims[3] == ([D, 2 * D, D], [2 * D, 2 * D, 4 * D, V])
    assert gsfm.widths(GSFMConfig(V, "VAE", d_model=D, depth=3))[1] == [128, D, D, 2 * D, V]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_bag_is_a_dense_layer(weighted):
    bags, bag = some_sets(weighted=weighted), Bag(V, 2 * D)
    bag.weight.data[:, 0] = torch.randn(2 * D)
    padded = Bags(  # <pad> anywhere changes nothing
        torch.cat([torch.tensor([PAD, 0]), bags.indices, torch.tensor([PAD])]),
        torch.cat([torch.tensor([0]), bags.offsets[1:] + 2]),
        None if bags.weights is None else torch.cat([torch.ones(2), bags.weights, torch.ones(1)]),
    )
    for sets in (bags, padded):
        expected = F.linear(multi_hot(sets), bag.weight, bag.bias)
        torch.testing.assert_close(bag(*sets), expected, atol=1e-6, rtol=0)
    gradients = []
    for result in (bag(*bags), F.linear(multi_hot(bags), bag.weight, bag.bias)):
        gradients.append(torch.autograd.grad(result.square().sum(), list(bag.parameters())))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)
    assert bag(torch.empty(0, dtype=torch.long), torch.tensor([0]))[0].equal(bag.bias)  # an empty set


def dense(model: GSFM, bags: Bags) -> torch.Tensor:
    """The forward pass set by set, from the spec's words."""
    out = []
    for row in range(len(bags.offsets)):
        genes = bags.indices[bags.rows == row]
        if model.config.architecture == "DAE":
            z = model.encoder.layers[3](F.relu(F.linear(
                multi_hot(bags)[row], model.encoder.layers[0].weight, model.encoder.layers[0].bias
            )))  # fmt: skip
        else:
            vectors = model.embedding.weight[genes]
            apply = model.encoder.layers
            z = apply(vectors.mean(0)) if model.config.architecture == "mEDAE" else apply(vectors).mean(0)
            if model.config.architecture == "EPDAE":
                z = torch.cat([z, vectors.mean(0)])
        out.append(model.decoder.layers(z))
    return torch.stack(out)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_forward_against_the_definition(kind):
    torch.manual_seed(0)
    model, bags = GSFM(GSFMConfig(V, kind, d_model=D)).eval(), some_sets()
    torch.testing.assert_close(model(*bags), dense(model, bags), atol=1e-6, rtol=1e-6)
    empty = model(torch.empty(0, dtype=torch.long), torch.tensor([0]))
    assert empty.isfinite().all()  # published: a division by zero


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_depth_learns(kind, depth):
    torch.manual_seed(0)
    bags = some_sets(weighted=kind == "EPDAE")
    model = GSFM(GSFMConfig(V, kind, d_model=D, depth=depth, dropout=0.0, elbo="proper"))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        losses.append(model.loss(bags))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


def test_cross_entropy_against_torch():
    torch.manual_seed(0)
    bags = some_sets()
    entries, target = bags.rows * V + bags.indices, multi_hot(bags)
    for scale, weight in ((1, None), (30, None), (1, torch.rand(len(entries)) * 5)):
        x = (scale * torch.randn(len(target), V)).requires_grad_()
        positive = None if weight is None else torch.ones_like(target)
        if weight is not None:
            positive.view(-1)[entries] = weight
        expected = F.binary_cross_entropy_with_logits(x, target, pos_weight=positive)
        (a,) = torch.autograd.grad(expected, x)
        found = gsfm.binary_cross_entropy(x, entries, weight)
        (b,) = torch.autograd.grad(found, x)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize(("n", "share", "n_shown"), [(100, 0.8, 19), (100, 0.5, 49), (11, 0.8, 2)])
def test_numbers_shown(n, share, n_shown):
    lengths = torch.tensor([n, 1, n])
    shown = divide(lengths, share, torch.rand(int(lengths.sum()), dtype=torch.float64))
    parts = [p.sum().item() for p in shown.split(lengths.tolist())]
    assert parts == [n_shown, 0, n_shown] and (~shown).sum() == 2 * (n - n_shown) + 1
    other = divide(lengths, share, torch.rand(int(lengths.sum()), dtype=torch.float64))
    assert not torch.equal(shown, other)


def test_both_parts_are_the_set_and_draws_are_even():
    bags = some_sets()
    lengths = torch.diff(bags.offsets, append=torch.tensor([len(bags.indices)]))
    count = torch.zeros(len(bags.indices))
    for _ in range(400):
        shown = divide(lengths, 0.5, torch.rand(len(bags.indices), dtype=torch.float64))
        count += shown
    a, b = multi_hot(bags.where(shown)), multi_hot(bags.where(~shown))
    assert torch.equal(a + b, multi_hot(bags)) and not (a * b).any()
    expected = ((lengths * 0.5).ceil() - 1)[bags.rows] / lengths[bags.rows]
    assert (count / 400 - expected).abs().max() < 5 * 0.5 / 400**0.5


def model_with(weighting: str, **fields) -> GSFM:
    torch.manual_seed(0)
    return GSFM(GSFMConfig(V, d_model=D, dropout=0.0, partition=0.5, weighting=weighting, **fields))


def gradients(model: GSFM, bags: Bags, shown: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss = model.loss(bags, shown)
    return loss, torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("target", ["hidden", "whole"])
def test_weightings_against_torch(target):
    bags = some_sets()
    lengths = torch.diff(bags.offsets, append=torch.tensor([len(bags.indices)]))
    shown = divide(lengths, 0.5, torch.rand(len(bags.indices), dtype=torch.float64))
    x, whole = multi_hot(bags.where(shown)), multi_hot(bags)
    y = whole if target == "whole" else whole - x
    bce = F.binary_cross_entropy_with_logits
    logits = model_with("none").eval()(*bags.where(shown))
    expected = {
        "none": bce(logits, y),
        "unseen": bce(logits, y, pos_weight=1 - x) if target == "hidden" else None,
        "unseen_masked": bce(logits, y, weight=1 - x),
    }
    seen = 1 + whole.sum(0)
    n = 1 + len(whole)
    expected["balance"] = bce(logits, y, pos_weight=(n - seen) / seen)
    for weighting, value in expected.items():
        if value is not None:
            found = model_with(weighting, target=target).loss(bags, shown)
            torch.testing.assert_close(found, value, atol=1e-6, rtol=1e-6)
    balanced = model_with("balance", target=target)
    balanced.loss(bags, shown)
    balanced.loss(bags, shown)
    assert torch.equal(balanced.seen, 1 + 2 * whole.sum(0) + 2 * len(whole) * F.one_hot(torch.tensor(PAD), V))
    assert "seen" in balanced.state_dict() and "seen" not in model_with("none").state_dict()


def test_unseen_as_published_changes_nothing():
    bags = some_sets()
    lengths = torch.diff(bags.offsets, append=torch.tensor([len(bags.indices)]))
    shown = divide(lengths, 0.5, torch.rand(len(bags.indices), dtype=torch.float64))
    (none, a), (unseen, b), (masked, c) = (
        gradients(model_with(w), bags, shown) for w in ("none", "unseen", "unseen_masked")
    )
    assert torch.equal(none, unseen) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(none, masked) and not any(torch.equal(x, y) for x, y in zip(a, c, strict=True))


def test_elbos_against_torch():
    bags = some_sets()
    for elbo in gsfm.CHOICES["elbo"]:
        torch.manual_seed(0)
        model = GSFM(GSFMConfig(V, "VAE", d_model=D, n_latent=6, dropout=0.0, elbo=elbo))
        torch.manual_seed(1)
        loss = model.loss(bags)
        h = model.encode(bags)
        q = Normal(model.mu(h), (0.5 * model.log_variance(h)).exp())
        torch.manual_seed(1)
        z = q.mean + q.stddev * torch.randn_like(q.mean)
        bce = F.binary_cross_entropy_with_logits(model.decoder(z), multi_hot(bags), reduction="none")
        prior = Normal(torch.zeros(6), torch.ones(6))
        if elbo == "published":
            expected = ((q.log_prob(z) - prior.log_prob(z)).sum(1) + bce.mean(1)).mean()
        else:
            expected = (kl_divergence(q, prior).sum(1) + bce.sum(1)).mean() / V
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        model.eval()
        assert torch.equal(model(*bags), model(*bags)) == (elbo == "proper")


def test_two_channels_tell_up_from_down():
    sets = GeneSets.from_lists([["G1", "G2", "G3"]])
    sets = GeneSets(
        sets.names, sets.libraries, sets.genes, sets.indptr, sets.indices, np.float32([2, -1, 0.5])
    )
    one, two = (tokenise_sets(sets, GENES, channels) for channels in (1, 2))
    assert one.indices.tolist() == [3, 4, 5] and one.weights.tolist() == [2, -1, 0.5]
    assert two.indices.tolist() == [3, 5, 4 + V] and two.weights.tolist() == [2, 0.5, 1]
    model = GSFM(GSFMConfig(V, d_model=D, channels=2), GENES).eval()
    bags = two.bags(np.array([0]), torch.device("cpu"))
    assert model(*bags).shape == (1, 2 * V)
    x = multi_hot(bags, 2 * V)
    first = model.encoder.layers[0]
    expected = model.encoder.layers[1:](F.linear(x, first.weight, first.bias))
    torch.testing.assert_close(model.encode(bags), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="need signed weights"):
        tokenise_sets(GeneSets.from_lists([["G1"]]), GENES, 2)
    bad = GeneSets(
        sets.names, sets.libraries, sets.genes, sets.indptr, sets.indices, np.float32([2, np.nan, 1])
    )
    with pytest.raises(ValueError, match="1 weights are not finite, the first one in 'set 1'"):
        tokenise_sets(bad, GENES)


@pytest.mark.parametrize("weighting", ["none", "balance"])  # the second counts genes, which are no weights
def test_half_precision_is_half_the_file(tmp_path, weighting):
    model = GSFM(GSFMConfig(V, d_model=D, weighting=weighting), GENES)
    stored = load_file(model.save_pretrained(tmp_path / "m", dtype="float16") / "model.safetensors")
    kinds = {name: tensor.dtype for name, tensor in stored.items()}
    assert (kinds.pop("seen", torch.float32) == torch.float32) and set(kinds.values()) == {torch.float16}
    assert kinds.keys() == dict(model.state_dict()).keys() - {"seen"}


def test_unknown_genes_are_one_token():
    lists = [["G3", "X", "Y", "G1"], ["Z"], ["G0"], ["<pad>", "G2"]]
    tokens = tokenise_sets(GeneSets.from_lists(lists), GENES)
    got = [tokens.take(np.array([i]))[1].tolist() for i in range(4)]
    assert got == [[0, 3, 5], [0], [2], [0, 4]]
    weighted = GeneSets.from_lists([["G1", "X", "Y"]])
    weights = np.float32([3, -9, -8])
    weighted = GeneSets(
        weighted.names, weighted.libraries, weighted.genes, weighted.indptr, weighted.indices, weights
    )
    assert tokenise_sets(weighted, GENES).weights.tolist() == [1, 3]
    assert not gsfm.DAE(V, d_model=D).encoder.layers[0].weight[:, 0].any()
    assert gsfm.DAE(V, d_model=D).encoder.layers[0].weight[:, 1:].all()


def test_an_epoch_leaves_no_set_out():
    sets = GeneSets.from_lists([[f"G{i % 30}", f"G{(i * 7 + 1) % 30}"] for i in range(103)])
    tokens = tokenise_sets(sets, GENES)
    rows = np.arange(3, 103)
    loader = SetLoader(tokens, rows, np.zeros(103, int), 16, seed=1, partition=0.5)
    first, second = list(loader), list(loader)
    for epoch in (first, second):
        assert [len(b) for b in epoch] == [16] * 6 + [4]
        assert sorted(np.concatenate([b.row for b in epoch])) == rows.tolist()
    assert not np.array_equal(first[0].row, second[0].row)
    other = SetLoader(tokens, rows, np.zeros(103, int), 16, seed=1, partition=0.5)
    other.load_state_dict({"epoch": 1, "batch": 5})
    for a, b in zip(other, second[5:], strict=True):
        assert np.array_equal(a.row, b.row) and np.array_equal(a.noise, b.noise)
        assert np.array_equal(a.indices, b.indices)


def test_hidden_up_to_a_share():
    sets = GeneSets.from_lists([[f"G{i}" for i in range(30)] for _ in range(2000)])
    tokens = tokenise_sets(sets, GENES)
    loader = SetLoader(tokens, np.arange(2000), np.zeros(2000, int), 2000, 1, 0.9, "up to")
    (batch,) = loader
    shown = np.log(1 - batch.shares) / np.log(1 - 0.9)
    assert stats.kstest(shown, "uniform").pvalue > 0.01
    sample = SetSample(batch, torch.device("cpu"))
    found = sample.shown.reshape(2000, 30).sum(1).numpy()
    assert np.array_equal(found, np.ceil(30 * (1 - batch.shares)) - 1)
    assert (found.min(), found.max()) == (3, 29)
    plain = next(iter(SetLoader(tokens, np.arange(2000), np.zeros(2000, int), 2000, 1, 0.9)))
    assert np.array_equal(plain.noise, batch.noise) and set(plain.shares) == {0.9}


@pytest.fixture
def published(tmp_path):
    """A folder as the published ones are laid out, written by torch alone."""
    torch.manual_seed(3)
    net = nn.ModuleDict({
        "encoder": nn.ModuleDict({"layers": nn.Sequential(
            nn.Linear(V, 2 * D), nn.ReLU(), nn.Dropout(0.2), nn.Linear(2 * D, D))}),
        "decoder": nn.ModuleDict({"layers": nn.Sequential(
            nn.Linear(D, D), nn.ReLU(), nn.Dropout(0.2), nn.Linear(D, V))}),
    }).eval()  # fmt: skip
    folder = tmp_path / "gsfm-published"
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    fields = {
        "d_model": D,
        "depth": 2,
        "dropout": 0.2,
        "partition": 0,
        "vocab_size": V,
        "weighted_loss": "none",
    }
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "vocab.txt").write_text("\n".join(GENES) + "\n")
    return folder, net


def test_a_published_folder_is_read_and_written(published, tmp_path):
    folder, net = published
    model = GSFM.from_pretrained(folder)
    assert model.genes == GENES and model.config == GSFMConfig(V, d_model=D) and not model.training
    bags = some_sets()
    expected = net["decoder"]["layers"](net["encoder"]["layers"](multi_hot(bags)))
    torch.testing.assert_close(model(*bags), expected, atol=1e-6, rtol=0)
    ours = model.save_pretrained(tmp_path / "ours", seed=7)
    info = json.loads((ours / "config.json").read_text())
    theirs = json.loads((folder / "config.json").read_text())
    assert theirs.items() <= info.items()
    assert (ours / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()
    stored = load_file(ours / "model.safetensors")
    assert {k: (tuple(v.shape), v.dtype) for k, v in stored.items()} == {
        k: (tuple(v.shape), v.dtype) for k, v in net.state_dict().items()
    }
    assert all(torch.equal(stored[k], v) for k, v in net.state_dict().items())
    again = GSFM.from_pretrained(ours, genes=GENES)
    assert again.provenance == {"seed": 7} and torch.equal(again(*bags), model(*bags))
    card = (ours / "README.md").read_text()
    assert "complete_genes" in card and f"{model.n_parameters:,} parameters" in card


def test_published_models_come_from_the_hub(published, monkeypatch):
    import huggingface_hub

    def download(repo_id, allow_patterns):
        assert repo_id == "maayanlab/gsfm-rummagene"
        assert {"config.json", "vocab.txt", "model.safetensors"} <= set(allow_patterns)
        return str(published[0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert GSFM.from_pretrained("maayanlab/gsfm-rummagene").genes == GENES


def test_every_kind_is_saved_whole(tmp_path):
    bags = some_sets()
    for kind in KINDS:
        config = GSFMConfig(
            V, kind, d_model=D, partition=0.2, weighting="balance", target="whole", elbo="proper"
        )
        model = GSFM(config, GENES)
        model.loss(bags, torch.ones(len(bags.indices), dtype=torch.bool))
        again = GSFM.from_pretrained(model.save_pretrained(tmp_path / kind))
        assert again.config == config and torch.equal(again.seen, model.seen)
        assert torch.equal(again(*bags), model.eval()(*bags))


def test_damaged_folders(published, tmp_path):
    folder, _ = published
    config, vocabulary = ((folder / f).read_text() for f in ("config.json", "vocab.txt"))
    for text, message in (
        (vocabulary.replace("<pad>", "PAD"), "vocab.txt: the vocabulary begins with <unk>, PAD"),
        (vocabulary.replace("G7\n", "G8\n"), "vocab.txt: the vocabulary has 40 tokens, 39 distinct"),
        (vocabulary + "G99\n", "41 tokens"),
    ):
        (folder / "vocab.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            GSFM.from_pretrained(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(FileNotFoundError, match="no vocab.txt"):
        GSFM.from_pretrained(folder)
    (folder / "vocab.txt").write_text(vocabulary)
    for old, new, message in (
        ('"depth": 2', '"depth": 3', "does not fit config.json"),
        ('"depth"', '"deepness"', "unknown field deepness"),
        ('"none"', '"equal"', "weighting = 'equal'"),
    ):
        (folder / "config.json").write_text(config.replace(old, new))
        with pytest.raises(ValueError, match=message):
            GSFM.from_pretrained(folder)
    from txfm_lite.txfm import TxFM

    (folder / "config.json").write_text(config)
    with pytest.raises(ValueError, match="no configuration of a TxFM"):
        TxFM.from_pretrained(folder)
    assert GSFM.from_pretrained(folder).genes == GENES  # whole again


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "dae"}, "architecture = 'dae'"),
        ({"d_model": 0}, "d_model = 0"),
        ({"depth": 1.5}, "depth = 1.5"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"partition": -0.1}, "partition = -0.1"),
        ({"weighting": "unseen"}, "with partition 0 all genes are seen"),
        ({"hiding": "up to"}, "with partition 0 nothing is hidden"),
        ({"weighting": "inverse"}, "none, balance, unseen, unseen_masked"),
        ({"n_tokens": 2}, "<unk>, <pad> are two of them"),
        ({"channels": 3}, "channels = 3"),
    ],
)
def test_config_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        GSFMConfig(**{"n_tokens": V, **fields})
