"""Real studies or their stand-ins: the same kinds of objects either way."""

import pytest

from txfm_lite import curate, datasets, manifests, studies
from txfm_lite.corpus_writer import write_subset
from txfm_lite.files import Unreachable


@pytest.fixture
def nothing_reachable(monkeypatch, tmp_path):
    """A machine without local data, without a cache and without a network."""

    def refuse(*args, **kwargs):
        raise Unreachable("no network")

    monkeypatch.delenv("TXFM_LITE_DATA", raising=False)
    monkeypatch.setenv("TXFM_LITE_CACHE", str(tmp_path))
    monkeypatch.setattr("txfm_lite.files._download", refuse)


def test_stand_ins_where_nothing_is_reachable(nothing_reachable):
    assert datasets.source() == "embedded"
    assert studies.stand_ins() and set(studies.held_out()) == {"simulated_f"}
    corpus = studies.training_corpus()
    assert [d["name"] for d in corpus.datasets] == list(studies.SIMULATED)
    assert len(corpus.rows("validation")) > 0
    assert {d["modality"] for d in corpus.datasets} == {"single-cell RNA", "bulk RNA"}


def test_stand_ins_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "source", lambda: "local")
    assert studies.stand_ins("simulated") and not studies.stand_ins("real")
    corpus = studies.training_corpus(tmp_path / "c", "simulated")
    assert corpus.n_samples > 1000 and corpus.path == tmp_path / "c"


def test_the_shipped_models_corpus_is_made_once_and_follows_the_training_corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("TXFM_LITE_CACHE", str(tmp_path))
    whole = studies.training_corpus(tmp_path / "whole", "simulated")
    monkeypatch.setattr(studies, "stand_ins", lambda data: False)
    monkeypatch.setattr(studies, "training_corpus", lambda data: whole)
    common = studies.common_corpus()
    shared = whole.genes[whole.measured.mean(axis=0) >= 0.3]
    assert common.genes.tolist() == shared.tolist() and common.n_samples == whole.n_samples
    written = (common.path / "corpus.json").stat().st_mtime_ns
    assert studies.common_corpus().path.joinpath("corpus.json").stat().st_mtime_ns == written
    fewer = write_subset(whole, tmp_path / "fewer", rows=whole.rows("train"))
    monkeypatch.setattr(studies, "training_corpus", lambda data: fewer)
    assert studies.common_corpus().n_samples == fewer.n_samples < whole.n_samples


def test_held_out_studies_are_real_and_may_not_train(local_data):
    held_out = studies.held_out()
    assert set(held_out) == {"sc_mixology", "darmanis_brain"}
    for adata in held_out.values():
        assert adata.obs["batch"].nunique() > 1 and adata.obs["cell_type"].nunique() > 1
        with pytest.raises(ValueError, match="held_out"):
            curate.check_trainable(adata)


def test_simulated_screens_when_nothing_is_reachable(nothing_reachable):
    (name, adata), *rest = studies.screens().items()
    assert name == "simulated_g" and not rest
    assert set(adata.obs["batch"][adata.obs["is_control"]]) == set(adata.obs["batch"])


def test_screens_have_one_guide_per_cell_and_controls_in_every_batch(local_data):
    found = studies.screens()
    assert list(found)[:2] == list(studies.SCREENS)
    assert [found[name].n_obs for name in studies.SCREENS] == [16_192, 6_623]
    for adata in found.values():
        assert not adata.obs[["perturbation", "batch", "is_control"]].isna().any().any()
        assert (adata.obs.groupby("batch")["is_control"].sum() >= 2).all()
    assert (found["papalexi2021_eccite_thp1"].obs["guide_share"] >= 0.8).all()
    assert "LARP1" in set(found["gasperini2019_k562_highmoi"].obs["perturbation"])


def test_a_batch_without_controls_is_left_out():
    adata = datasets.load("simulated_g")
    first = adata.obs["batch"].unique()[0]
    here = (adata.obs["batch"] == first).to_numpy()
    few = adata[~(here & adata.obs["is_control"].to_numpy(dtype=bool))].copy()
    assert studies.screen(few).n_obs == adata.n_obs - here.sum()
    assert first not in set(studies.screen(few).obs["batch"])


def test_cell_types_are_held_out_have_batches_and_whole_counts(local_data):
    found = studies.cell_types()
    assert list(found)[:5] == list(studies.CELL_TYPES)
    for name, adata in found.items():
        assert manifests.read(name).role == "held_out"
        assert adata.obs[["cell_type", "batch"]].notna().all(axis=None)
        assert adata.obs["cell_type"].nunique() > 1 and adata.obs["batch"].nunique() > 1
        assert (adata.X.data == adata.X.data.round()).all() and adata.X.data.min() > 0
    assert set(studies.cell_types("simulated")) == {"simulated_f"}
