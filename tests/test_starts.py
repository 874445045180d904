"""Where a model starts: principal axes of the corpus in its gene vectors."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from txfm_lite import simulate
from txfm_lite.corpus import Corpus, select_common_genes
from txfm_lite.curate import Rules, build
from txfm_lite.pretraining import principal_axes
from txfm_lite.training import TrainConfig, fit
from txfm_lite.txfm import TxFM, TxFMConfig


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    studies = {n: a for n, a in simulate.corpus(n_genes=300).items() if a.uns["source"]["role"] == "train"}
    rules = Rules(min_cells=5, min_genes=20, min_measured_genes=100)
    return build(tmp_path_factory.mktemp("corpus") / "simulated", studies, rules)


def model(corpus: Corpus) -> TxFM:
    torch.manual_seed(0)
    config = TxFMConfig(corpus.n_genes, d_model=16, n_blocks=1, n_heads=2, n_revealed=100, drop_path=0.0)
    return TxFM(config, corpus.genes.tolist())


def test_principal_axes_are_those_of_scikit_learn(corpus):
    rows = corpus.rows("train")
    x = np.log1p(corpus.csr(rows).toarray() * (1e5 / corpus.library_size[rows])[:, None])
    measured = corpus.measured[corpus.dataset[rows]]
    mean = x.sum(0, where=measured) / np.maximum(measured.sum(0), 1)
    pca = PCA(4, svd_solver="full").fit(np.where(measured, x - mean, 0))  # its own centring moves little
    axes = principal_axes(corpus, model(corpus), 4).numpy()
    length = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(length, np.sqrt(pca.explained_variance_), rtol=0.02)
    np.testing.assert_allclose(np.abs((axes / length[:, None] * pca.components_).sum(1)), 1, atol=0.01)


def test_the_axes_of_a_part_of_the_samples_do_not_depend_on_the_generator(corpus):
    torch.manual_seed(1)
    first = principal_axes(corpus, model(corpus), 3, n_samples=100, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first, principal_axes(corpus, model(corpus), 3, n_samples=100, seed=5))
    assert not torch.equal(first, principal_axes(corpus, model(corpus), 3, n_samples=100, seed=6))
    assert principal_axes(corpus, model(corpus), 10, n_samples=12).shape == (10, corpus.n_genes)
    with pytest.raises(ValueError, match="these 12 samples have 12 at most"):
        principal_axes(corpus, model(corpus), 13, n_samples=12)


def test_gene_vectors_start_at_the_axes(corpus):
    axes, started, plain = (
        principal_axes(corpus, model(corpus), 4),
        model(corpus).requires_grad_(False),
        model(corpus).requires_grad_(False),
    )
    started.start_from_components(axes)
    for k in range(4):
        pair = torch.stack([started.codebook.weight[:, k], axes[k]])
        assert torch.corrcoef(pair)[0, 1] > 0.95
        assert started.codebook.weight[:, k].square().mean().sqrt() == pytest.approx(1, abs=0.1)
    assert torch.equal(started.codebook.weight[:, 4:], plain.codebook.weight[:, 4:])
    moved = started.gene_head.weight - 0.1 * plain.gene_head.weight
    torch.testing.assert_close(moved[:, :4], axes.T)
    assert torch.equal(moved[:, 4:], torch.zeros_like(moved[:, 4:]))
    with pytest.raises(ValueError, match="16 components do not fit gene vectors of 15 numbers"):
        started.start_from_components(torch.ones(16, corpus.n_genes))


def test_a_run_that_starts_from_components_learns_faster(corpus, tmp_path):
    def explained(n: int) -> float:
        schedule = TrainConfig(
            steps=40, batch_size=32, learning_rate=3e-3, validate_every=40, start_from_components=n
        )
        return (
            fit(corpus, model(corpus).config, schedule, tmp_path / str(n), progress=False)
            .history["explained"]
            .iloc[-1]
        )

    assert explained(8) > explained(0)


def test_common_genes(corpus):
    share = corpus.measured.mean(0)
    for least in (0.0, 0.5, 1.0):
        genes = select_common_genes(corpus, least)
        assert genes.tolist() == [g for g, s in zip(corpus.genes, share, strict=True) if s >= least]
    assert len(select_common_genes(corpus, 1.0)) < len(select_common_genes(corpus, 0.0))
