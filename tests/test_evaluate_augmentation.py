"""False alarms and recovery of augmented enrichment, with predictors whose behaviour is known."""

import numpy as np
import pytest

from txfm_lite.evaluate import augmentation
from txfm_lite.genesets import GeneSets

GENES = np.array([f"G{i:03}" for i in range(300)])


@pytest.fixture(scope="module")
def library():
    """Thirty terms of ten genes that share none."""
    return GeneSets.from_lists(GENES.reshape(30, 10), [f"T{i}" for i in range(30)], "own")


def same_block(visible):
    """Score a gene by how many of the given genes are in its term: a model that knows the truth."""
    blocks = visible.toarray().reshape(-1, 30, 10).sum(axis=2)
    noise = np.random.default_rng(0).random(visible.shape) * 0.01
    return (np.repeat(blocks, 10, axis=1) + noise).astype(np.float32)


def favourites(visible):
    """Always name the same genes, whatever is given."""
    return np.broadcast_to(np.arange(300, 0, -1, dtype=np.float32), visible.shape)


def table(rows):
    return {(row["metric"], row["variant"]): row["value"] for row in rows}


def test_favourites_alarm_the_naive_test_only(library):
    rows = augmentation.false_alarms(library, favourites, GENES, sizes=(10,), n_lists=8, k=20, n_draws=99)
    value = table(rows)
    assert value["lists with a term", "10 genes, augmented, as if independent"] == 1
    assert value["lists with a term", "10 genes, augmented, counted"] < 0.3
    assert value["terms at 0.05", "10 genes, augmented, counted"] < 0.08
    assert all(row["null"] == 0.05 and row["n"] == 8 for row in rows)


def test_a_model_that_knows_finds_more_and_one_that_does_not_finds_less(library):
    options = dict(n_members=3, n_random=9, n_lists=12, k=10, n_draws=99)
    knows = table(augmentation.term_recovery(library, same_block, GENES, **options))
    blind = table(augmentation.term_recovery(library, favourites, GENES, **options))
    assert knows["first", "augmented, counted"] >= knows["first", "the list alone"]
    assert knows["first", "the list alone"] == blind["first", "the list alone"] > 0.5
    assert knows["first", "augmented, as if independent"] > blind["first", "augmented, as if independent"]
    with pytest.raises(ValueError, match="terms have more than 20"):
        augmentation.term_recovery(library, favourites, GENES, n_members=20)
