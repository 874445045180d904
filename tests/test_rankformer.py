"""The two input heads: equal in size, different in what they hide; tokens, losses, training, embedding."""

import dataclasses
import json
import math

import anndata
import lightning
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from txfm_lite import simulate
from txfm_lite.corpus import Corpus
from txfm_lite.curate import Rules, build
from txfm_lite.embed_tokens import embed_tokens, tokens
from txfm_lite.estimate import activation_bytes, n_parameters, tflop_per_sample
from txfm_lite.inference import encode_tokens
from txfm_lite.pretraining import TokenPretraining, gene_medians, mean_profile, token_frequency
from txfm_lite.rankformer import HEADS, Rankformer, RankformerConfig, per_cell, tokenise
from txfm_lite.training import TrainConfig, _start_from, fit
from txfm_lite.txfm import TxFM, TxFMConfig

SHAPE = dict(d_model=16, n_blocks=2, n_heads=2, n_tokens=24)
RUN = dict(
    steps=40, batch_size=32, micro_batch=16, learning_rate=3e-3, validate_every=20, n_validation=64,
    start_from_components=8,
    checkpoint_minutes=1e9,
)  # fmt: skip
both = pytest.mark.parametrize("head", HEADS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    studies = {n: a for n, a in simulate.corpus(n_genes=300).items() if a.uns["source"]["role"] == "train"}
    rules = Rules(min_cells=5, min_genes=20, min_measured_genes=100)
    return build(tmp_path_factory.mktemp("corpus") / "simulated", studies, rules)


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    config = {h: RankformerConfig(corpus.n_genes, h, **SHAPE) for h in HEADS}
    return {h: fit(corpus, config[h], TrainConfig(**RUN), path / h, progress=False) for h in HEADS}


def model(head: str, n_genes: int = 50, **changes) -> Rankformer:
    torch.manual_seed(0)
    return Rankformer(RankformerConfig(n_genes, head, **{**SHAPE, **changes})).eval()


def cells(n: int, n_genes: int = 50, seed: int = 0, mean: float = 2.0) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(rng.poisson(mean * rng.random(n_genes), (n, n_genes)).astype(np.float32))


def arrays(x: sp.csr_matrix) -> tuple[np.ndarray, ...]:
    return x.indptr, x.indices, x.data, np.asarray(x.sum(1)).ravel()


def batch(head: str, n: int = 6, **changes):
    """A model, tokens of some full cells, and noise."""
    m = model(head, **changes)
    tokens = tokenise(*arrays(cells(n, mean=6)), m.medians.numpy(), m.config)
    assert tokens[2].all()
    noise = torch.rand(n, 3, m.config.n_tokens, generator=torch.Generator().manual_seed(1))
    return m, [torch.from_numpy(np.array(t)) for t in tokens], noise


# ------------------------------------------------------------------------------------------------ tokens
def test_rank_tokens_of_a_known_cell():
    """Values 600, 0, 400, 400, 320, 480 per median: in that order, the tie to the lower number."""
    medians = np.array([2, 4, 1, 8, 2.5, 5], np.float32)
    x = sp.csr_matrix(np.array([[3, 0, 1, 8, 2, 6.0]]))
    config = RankformerConfig(6, "rank", n_tokens=8, d_model=4, n_heads=2)
    for n_counts in (25.0, 7.0):  # the order does not depend on it
        genes, levels, shown = tokenise(x.indptr, x.indices, x.data, [n_counts], medians, config)
        assert genes[0, shown[0]].tolist() == [0, 5, 2, 3, 4]
        assert levels[0].tolist() == list(range(8))
    medians[5] = 0  # a gene never seen makes no token
    genes, _, shown = tokenise(x.indptr, x.indices, x.data, [25.0], medians, config)
    assert genes[0, shown[0]].tolist() == [0, 2, 3, 4]
    short = dataclasses.replace(config, n_tokens=2)
    assert tokenise(x.indptr, x.indices, x.data, [25.0], medians, short)[0].tolist() == [[0, 2]]


def test_bins_of_known_values():
    """Bin k holds 2^k - 1 <= counts per 10,000 < 2^(k+1) - 1; genes and order are those of ranks."""
    cp10k = np.array([[0.5, 0.99, 1, 3, 7, 15, 31, 100]])
    x, medians = sp.csr_matrix(cp10k), np.ones(8, np.float32)
    config = RankformerConfig(8, "bin", n_tokens=8, n_levels=6, d_model=4, n_heads=2)
    genes, levels, shown = tokenise(x.indptr, x.indices, x.data, [1e4], medians, config)
    assert genes[0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0] and shown.all()
    assert levels[0].tolist() == [5, 5, 4, 3, 2, 1, 0, 0]
    again = tokenise(x.indptr, x.indices, x.data, [1e4], medians, dataclasses.replace(config, head="rank"))
    assert np.array_equal(again[0], genes)


def test_both_heads_have_as_many_parameters_and_tokens(corpus):
    models = [model(head, n_genes=corpus.n_genes) for head in HEADS]
    assert models[0].n_parameters == models[1].n_parameters
    assert [*models[0].state_dict()] == [*models[1].state_dict()]
    rows, medians = corpus.rows("train")[:50], gene_medians(corpus)
    genes, _, shown = zip(
        *(tokenise(*corpus.read(rows), corpus.library_size[rows], medians, m.config) for m in models),
        strict=True,
    )
    assert np.array_equal(*genes) and np.array_equal(*shown)


@both
def test_every_parameter_is_used(head):
    m, tokens, noise = batch(head)
    logits, where, asked = m(*tokens, noise)
    target = tokens[head == "bin"].gather(1, where)
    m.loss(logits, target, asked).backward()
    for name, parameter in m.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# ------------------------------------------------------------------------------------------------ hiding
@both
def test_shares_of_what_is_hidden(head):
    m = model(head, n_tokens=100, hidden_share=0.15)
    n, config = 4000, m.config
    genes, levels = torch.full((n, 100), 49), torch.full((n, 100), 7)
    shown = torch.arange(100) < torch.tensor([100, 40])[torch.arange(n) % 2, None]
    noise = torch.rand(n, 3, 100, generator=torch.Generator().manual_seed(0))
    carried, seen, hidden, where, asked = m.hide(genes, levels, shown, noise)
    assert asked.sum(1).tolist() == [15, 6] * (n // 2)
    chosen = torch.zeros_like(shown).scatter(1, where, asked)
    assert (chosen.sum(1) == asked.sum(1)).all() and not (chosen & ~shown).any()
    total = chosen.sum().item()
    changed = (carried != genes) | (seen != levels)
    assert not (changed & ~chosen).any() and not (hidden & ~chosen).any() and not (changed & hidden).any()
    assert hidden.sum().item() / total == pytest.approx(0.8, abs=0.01)
    classes = config.n_genes if head == "rank" else config.n_levels  # a draw can hit what was there
    assert changed.sum().item() / total == pytest.approx(0.1 * (1 - 1 / classes), abs=0.006)
    per_place = chosen[::2].float().mean(0)  # no place of a full cell is preferred
    assert (per_place - 0.15).abs().max() < 5 * math.sqrt(0.15 * 0.85 / (n / 2))


@both
def test_what_is_hidden_cannot_be_seen(head):
    """Predictions do not change with what a masked token really is."""
    m, (genes, levels, shown), noise = batch(head, masked=1.0, replaced=0.0)
    before, where, _ = m(genes, levels, shown, noise)
    if head == "rank":
        after, *_ = m(genes.scatter(1, where, 3), levels, shown, noise)
    else:
        after, *_ = m(genes, levels.scatter(1, where, 3), shown, noise)
    assert torch.equal(before, after)
    told, *_ = m(genes.roll(1, 0), levels.roll(1, 0), shown, noise)
    assert not torch.equal(before, told)


@both
def test_loss_is_the_cross_entropy(head):
    m, tokens, noise = batch(head)
    logits, where, asked = m(*tokens, noise)
    target = tokens[head == "bin"].gather(1, where)
    assert asked.all()  # full cells, all with the same number: the plain mean
    expected = F.cross_entropy(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(m.loss(logits, target, asked), expected)
    asked = asked.clone()
    asked[0, 1:] = False
    one = F.cross_entropy(logits[0, :1], target[0, :1])
    rest = [F.cross_entropy(logits[i], target[i]) for i in range(1, len(logits))]
    torch.testing.assert_close(m.loss(logits, target, asked), torch.stack([one, *rest]).mean())
    assert per_cell(torch.ones(2, 3), torch.tensor([[True] * 3, [False] * 3])) == 0.5


# ------------------------------------------------------------------------------------------------ encoder
@both
def test_padding_says_nothing(head):
    m = model(head)
    x = cells(8, seed=3)
    genes, levels, shown = (
        torch.from_numpy(np.array(t)) for t in tokenise(*arrays(x), m.medians.numpy(), m.config)
    )
    assert 0 < shown.sum() < shown.numel()
    with torch.inference_mode():
        out = m.encode(genes, levels, shown)
        other = m.encode(torch.where(shown, genes, 7), torch.where(shown, levels, 1), shown)
    assert torch.equal(out[shown], other[shown])
    alone = [encode_tokens(m, *arrays(x[i])) for i in range(8)]
    together = encode_tokens(m, *arrays(x))
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)
    n = shown[2].sum()
    expected = m.encode(genes[2:3, :n], levels[2:3, :n])[0].mean(0)
    np.testing.assert_allclose(together[2], expected.detach().numpy(), atol=1e-5)


def test_order_matters_to_rank_tokens_alone():
    for head in HEADS:
        m, (genes, levels, _), _ = batch(head)
        order = torch.randperm(genes.shape[1], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            before = m.encode(genes, levels).mean(1)
            if head == "bin":  # a bin goes with its gene
                after = m.encode(genes[:, order], levels[:, order]).mean(1)
                torch.testing.assert_close(before, after, atol=1e-5, rtol=0)
            else:  # a place does not
                after = m.encode(genes[:, order], levels).mean(1)
                assert (before - after).abs().max() > 0.01


@both
def test_columns_in_another_order_change_nothing(head):
    m, x = model(head), cells(5)
    order = np.random.default_rng(0).permutation(50)
    shuffled = [x.getrow(i) for i in range(5)]
    for row in shuffled:  # the same entries, stored in another order
        places = np.random.default_rng(1).permutation(row.nnz)
        row.indices, row.data = row.indices[places], row.data[places]
    stored = [encode_tokens(m, *arrays(row)) for row in shuffled]
    np.testing.assert_allclose(np.concatenate(stored), encode_tokens(m, *arrays(x)), atol=1e-5)
    m.genes = [f"g{i}" for i in range(50)]
    adata = anndata.AnnData(x, var=pd.DataFrame({"matched": True}, index=m.genes))
    a = embed_tokens(adata.copy(), m)
    b = embed_tokens(adata[:, order].copy(), m)
    np.testing.assert_allclose(a, b, atol=1e-5)


@both
def test_untrained_predictions_start_at_the_corpus(head):
    m, tokens, noise = batch(head)
    with torch.no_grad():
        m.head[-1].weight.zero_()
        frequency = torch.from_numpy(np.random.default_rng(0).poisson(30, (50, 8))).double()
        m.start_from_profile(frequency)
    logits, where, _ = m(*tokens, noise)
    if head == "rank":
        share = (frequency.sum(1) + 1) / (frequency.sum() + 50)
        torch.testing.assert_close(logits.softmax(-1)[0, 0], share.float(), atol=1e-6, rtol=1e-5)
    else:
        best = logits.argmax(-1)
        mean = ((frequency * torch.arange(8)).sum(1) / frequency.sum(1))[tokens[0].gather(1, where)]
        assert ((best - mean).abs() < 0.51 + 0.1).all()


# ------------------------------------------------------------------------------------------------ corpus
def test_medians_and_frequencies_against_pandas(corpus):
    rows = corpus.rows("train")
    x = pd.DataFrame(corpus.csr(rows).toarray() * (1e4 / corpus.library_size[rows])[:, None])
    medians = gene_medians(corpus)
    np.testing.assert_allclose(medians, x.where(x > 0).median().fillna(0), rtol=1e-5)
    m = model("bin", n_genes=corpus.n_genes)
    m.medians.copy_(torch.from_numpy(medians))
    genes, levels, shown = tokenise(*corpus.read(rows), corpus.library_size[rows], medians, m.config)
    expected = pd.crosstab(genes[shown], levels[shown])
    counted = token_frequency(corpus, m)
    assert counted.sum() == shown.sum()
    assert np.array_equal(counted[np.ix_(expected.index, expected.columns)], expected)
    m.config = dataclasses.replace(m.config, head="rank")
    assert np.array_equal(token_frequency(corpus, m).sum(1), counted.sum(1))


# ------------------------------------------------------------------------------------------------ training
@both
def test_it_learns_more_than_frequencies(head, runs, corpus):
    """The loss falls below the entropy, in nats, of genes among tokens, or of bins."""
    history, levels = runs[head].history, token_frequency(corpus, runs[head].model)
    assert history["step"].tolist() == [0, 20, 40] and history["floor"].nunique() == 1
    share = levels.sum(1 if head == "rank" else 0)
    share = share[share > 0] / share.sum()
    entropy = -(share * np.log(share)).sum()
    assert history["loss"].iloc[-1] < min(entropy, history["loss"].iloc[0])
    assert history["probe"].between(0, 1).all()
    if head == "rank":
        assert history["floor"].iloc[0] == pytest.approx(entropy, rel=0.02)
    else:  # where genes are known, so are their own bins
        assert history["floor"].iloc[0] < entropy


@both
def test_same_seed_same_model(head, runs, corpus, tmp_path):
    config = runs[head].model.config
    again = fit(corpus, config, TrainConfig(**RUN), tmp_path / "a", progress=False)
    for name, weights in runs[head].model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weights), name
    other = fit(corpus, config, TrainConfig(**{**RUN, "seed": 1, "steps": 2}), tmp_path / "b", progress=False)
    assert not torch.equal(other.model.levels, again.model.levels)


class Stop(lightning.Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 23


@both
def test_a_run_goes_on_exactly_where_it_stopped(head, runs, corpus, tmp_path):
    config = runs[head].model.config
    with pytest.raises(InterruptedError, match="stopped at step 23 of 40"):
        fit(corpus, config, TrainConfig(**RUN), tmp_path, progress=False, callbacks=[Stop()])
    assert not (tmp_path / "model").exists()
    resumed = fit(corpus, config, TrainConfig(**RUN), tmp_path, progress=False)
    for name, weights in runs[head].model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weights), name
    columns = ["loss", "floor", "explained", "probe"]
    looks = resumed.history[resumed.history["step"] != 23].reset_index()  # where it was stopped
    pd.testing.assert_frame_equal(looks[columns], runs[head].history[columns], rtol=1e-6)
    other = "bin" if head == "rank" else "rank"
    with pytest.raises(ValueError, match="head was"):
        fit(corpus, dataclasses.replace(config, head=other), TrainConfig(**RUN), tmp_path, progress=False)


def test_micro_batches_change_nothing(corpus, tmp_path):
    config = RankformerConfig(corpus.n_genes, "rank", **SHAPE)
    few = [
        fit(corpus, config, TrainConfig(**{**RUN, "steps": 5, "micro_batch": n}), tmp_path / str(n),
            progress=False)
        for n in (16, 4)
    ]  # fmt: skip
    for a, b in zip(*(run.model.parameters() for run in few), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_fine_tuning_keeps_weights_and_medians(corpus, runs, tmp_path):
    config = runs["rank"].model.config
    fresh = Rankformer(config, corpus.genes.tolist())
    module = TokenPretraining(fresh, corpus, TrainConfig(**RUN), tmp_path, 8)
    runs["rank"].model.medians[3] += 1
    _start_from(runs["rank"].model, module.model)
    assert torch.equal(module.model.medians, runs["rank"].model.medians)
    runs["rank"].model.medians[3] -= 1
    with pytest.raises(ValueError, match="head rank there, bin here"):
        _start_from(runs["rank"].model, Rankformer(runs["bin"].model.config, corpus.genes.tolist()))
    with pytest.raises(ValueError, match="a TxFM is no start for a Rankformer"):
        _start_from(TxFM(TxFMConfig(3, 4, 1, 1), ["a", "b", "c"]), module.model)


def test_gene_vectors_can_start_at_principal_axes(corpus, tmp_path):
    config = RankformerConfig(corpus.n_genes, **SHAPE)
    fresh = Rankformer(config, corpus.genes.tolist())
    rest = fresh.codebook.weight[:, 5:].clone()
    TokenPretraining(fresh, corpus, TrainConfig(**{**RUN, "start_from_components": 5}), tmp_path, 8)
    axes = fresh.codebook.weight[:, :5].T
    torch.testing.assert_close(axes.square().mean(1), torch.ones(5), atol=0.3, rtol=0)  # less what is clamped
    x = np.log1p(
        corpus.csr(corpus.rows("train")).toarray()
        * (1e4 / corpus.library_size[corpus.rows("train")])[:, None]
    )
    random = torch.randn(5, corpus.n_genes).numpy()
    kept = [np.linalg.norm((x - x.mean(0)) @ np.linalg.qr(a.T)[0]) for a in (axes.detach().numpy(), random)]
    assert kept[0] > 2 * kept[1]  # they hold far more of the variance than random axes
    assert torch.equal(fresh.codebook.weight[:, 5:], rest)
    with pytest.raises(ValueError, match="17 components do not fit gene vectors of 16"):
        fresh.start_from_components(torch.ones(17, corpus.n_genes))


# ------------------------------------------------------------------------------------------------ files
@both
def test_round_trip(head, runs, tmp_path):
    m = runs[head].model
    for dtype in ("float32", "float16"):
        path = m.save_pretrained(tmp_path / dtype, dtype=dtype, seed=5)
        again = Rankformer.from_pretrained(path, genes=m.genes)
        assert again.config == m.config and again.provenance["seed"] == 5 and not again.training
        assert torch.equal(again.medians, m.medians)  # or the order of genes would change
        for a, b in zip(m.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3 if dtype == "float16" else 0, atol=1e-6)
    assert "Geneformer" in (path / "README.md").read_text()
    with pytest.raises(ValueError, match="this is a Rankformer, not a TxFM"):
        TxFM.from_pretrained(path)
    info = json.loads((path / "config.json").read_text())
    info["config"]["head"] = "value"
    (path / "config.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="should be one of rank, bin"):
        Rankformer.from_pretrained(path)


# ------------------------------------------------------------------------------------------------ embedding
@both
def test_embedding_an_anndata(head, runs, corpus):
    m = runs[head].model
    rows = corpus.rows("validation")[:12]
    var = pd.DataFrame({"matched": True}, index=corpus.genes)
    adata = anndata.AnnData(corpus.csr(rows), var=var)
    found = embed_tokens(adata, m, library_share=1.0)
    assert np.array_equal(adata.obsm[f"X_{head}"], found) and adata.uns[head]["block"] == -1
    expected = encode_tokens(m, *corpus.read(rows), np.asarray(adata.X.sum(1)).ravel())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            tokens(adata, m, library_share=1.0),
            tokenise(*corpus.read(rows), np.asarray(adata.X.sum(1)).ravel(), m.medians.numpy(), m.config),
            strict=True,
        )
    )
    backwards = embed_tokens(adata[::-1].copy(), m, library_share=1.0, batch_size=5)
    np.testing.assert_allclose(backwards[::-1], found, atol=1e-5)
    assert not np.allclose(embed_tokens(adata, m, block=-2, library_share=1.0), found)
    panel = embed_tokens(adata, m)  # 300 genes are a panel: totals matter to bins alone
    share = min(mean_profile(corpus, 1.0).sum(), 1.0)
    assert adata.uns[head]["library_share"] == pytest.approx(share, rel=1e-3)
    if head == "rank":
        np.testing.assert_array_equal(panel, found)


@both
def test_what_cannot_be_embedded(head, runs, corpus):
    m = runs[head].model
    x = corpus.csr(corpus.rows("validation")[:3])
    adata = anndata.AnnData(x, var=pd.DataFrame({"matched": True}, index=corpus.genes))
    with pytest.raises(ValueError, match="block = 0: with 2 blocks it is -3 to -1"):
        embed_tokens(adata, m, block=0)
    with pytest.raises(ValueError, match="library_share = 2"):
        embed_tokens(adata, m, library_share=2)
    adata.X = x.multiply(0.5).tocsr()
    with pytest.raises(ValueError, match="not whole numbers|log-transformed"):
        embed_tokens(adata, m)
    with pytest.raises(ValueError, match=r"1 samples have no counts .* row 1"):
        x = cells(3)
        x.data[x.indptr[1] : x.indptr[2]] = 0
        encode_tokens(model(head), *arrays(x)[:3], np.ones(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(head="value"), "head = 'value': should be one of rank, bin"),
        (dict(n_tokens=0), "n_tokens = 0: should be a positive integer"),
        (dict(d_model=10, n_heads=4), "no multiple"),
        (dict(n_levels=7), "should be even"),
        (dict(hidden_share=0.0), "out of range"),
        (dict(masked=0.9, replaced=0.2), "shares of a whole"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        RankformerConfig(50, **changes)


def test_bad_vocabulary():
    with pytest.raises(ValueError, match="2 genes, 1 distinct"):
        Rankformer(RankformerConfig(2, **SHAPE), ["a", "a"])


@both
def test_cost_is_known_before(head):
    config = RankformerConfig(1000, head, n_tokens=64, d_model=32, n_blocks=3, n_heads=4)
    m = Rankformer(config)
    assert n_parameters(config) == m.n_parameters
    own, saved, kept = {p.data_ptr() for p in m.parameters()}, {}, []

    def count(t):
        kept.append(t)  # or its address is given away again
        if t.data_ptr() not in own:
            saved[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    genes = torch.randint(1000, (4, 64))
    inputs = genes, genes % 8, genes >= 0, torch.rand(4, 3, 64)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        logits, where, asked = m(*inputs)
        m.loss(logits, genes.gather(1, where) % 8, asked)
    assert activation_bytes(config, "fp32") * 4 / sum(saved.values()) == pytest.approx(1, abs=0.2)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        m(*inputs)
    assert counter.get_total_flops() / 4e12 == pytest.approx(
        tflop_per_sample(config, backward=False), rel=0.05
    )
