"""A model that is ready: the one asked for, or for want of the shipped one a small one, trained once."""

import numpy as np
import pytest

from txfm_lite import completion, files, genesets, pretrained, set_models


def test_a_small_model_is_trained_once_where_none_is_shipped(monkeypatch, tmp_path):
    calls = []

    def training(tier):
        calls.append(tier)
        return genesets.simulated(200, 150, 10)

    monkeypatch.setattr(files, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "nothing")
    monkeypatch.setattr(genesets, "training", training)
    monkeypatch.setattr(set_models, "LEAST", 1)
    first, second = set_models.ready_gsfm(), set_models.ready_gsfm()
    assert calls == ["clean"] and first.genes == second.genes
    sets = genesets.simulated(5, 150, 10, seed=1)
    assert np.allclose(completion.complete(first, sets), completion.complete(second, sets), atol=1e-5)
    with pytest.raises(FileNotFoundError):
        set_models.ready_gsfm(str(tmp_path / "no such model"))


def test_a_folder_is_opened_as_it_is(tmp_path):
    model = set_models.small_gsfm(genesets.simulated(60, 100, 5), tmp_path / "run", d_model=8, epochs=1)
    assert set_models.ready_gsfm(tmp_path / "run" / "model").genes == model.genes
