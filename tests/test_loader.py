import os
import subprocess
import sys
import threading

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from txfm_lite.corpus import Corpus
from txfm_lite.corpus_writer import CorpusWriter
from txfm_lite.loader import BatchLoader

GENES = [f"G{i}" for i in range(200)]
GROUPS, PER_GROUP = 20, 250


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(0)
    x = sparse.random(GROUPS * PER_GROUP, len(GENES), 0.1, "csr", random_state=0)
    x.data = rng.geometric(0.3, x.nnz).astype(np.float32)
    x.data[[1_000, 60_000]] = 1_000_000  # two counts that do not fit into 16 bits
    return x


@pytest.fixture(scope="module")
def path(matrix, tmp_path_factory):
    """Twenty datasets one after the other: the worst order for shuffling by blocks."""
    path = tmp_path_factory.mktemp("loader") / "corpus"
    with CorpusWriter(path, GENES) as writer:
        for g in range(GROUPS):
            rows = slice(g * PER_GROUP, (g + 1) * PER_GROUP)
            obs = pd.DataFrame({"split": "train"}, index=[f"c{i}" for i in range(rows.start, rows.stop)])
            obs.iloc[::10] = "validation"
            writer.add(ad.AnnData(matrix[rows], obs, pd.DataFrame(index=GENES)), f"d{g:02}")
        writer.finish()
    return path


@pytest.fixture
def corpus(path):
    return Corpus.open(path)


def rows_of(batches):
    return np.concatenate([b.row for b in batches])


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_rows_of_the_matrix(corpus, matrix, in_memory, shuffle):
    loader = BatchLoader(corpus, 33, block=16, pool=8, in_memory=in_memory, shuffle=shuffle, drop_last=False)
    library = np.asarray(matrix.sum(axis=1)).ravel()
    batches = list(loader)
    for batch in batches:
        csr = sparse.csr_matrix((batch.counts, batch.indices, batch.indptr), shape=(len(batch), len(GENES)))
        assert (csr != matrix[batch.row]).nnz == 0
        assert np.array_equal(batch.dense(len(GENES)), matrix[batch.row].toarray())
        assert np.array_equal(batch.dataset, batch.row // PER_GROUP)
        assert np.allclose(batch.library_size, library[batch.row])
    assert len(batches) == len(loader) == -(-4500 // 33)
    assert [len(b) for b in batches] == [33] * 136 + [4500 - 136 * 33]
    assert (np.sort(rows_of(batches)) == corpus.rows("train")).all()
    assert (rows_of(batches) == corpus.rows("train")).all() != shuffle


def test_every_tier_gives_the_same_batches(path):
    disk, memory = (BatchLoader(Corpus.open(path), 50, pool=8, in_memory=m) for m in (False, True))
    for a, b in zip(disk, memory, strict=True):
        for field in ("indptr", "indices", "counts", "dataset", "row", "library_size"):
            x, y = getattr(a, field), getattr(b, field)
            assert x.dtype == y.dtype and np.array_equal(x, y)


def test_epochs_differ_and_repeat(corpus):
    loader = BatchLoader(corpus, 64, seed=1)
    first, second = rows_of(loader), rows_of(loader)
    assert loader.epoch == 2 and not np.array_equal(first, second)
    again = BatchLoader(corpus, 64, seed=1)
    again.set_epoch(1)
    assert np.array_equal(rows_of(again), second)
    again.set_epoch(0)
    assert np.array_equal(rows_of(again), first)
    assert not np.array_equal(rows_of(BatchLoader(corpus, 64, seed=2)), first)


def test_breaking_off_starts_the_epoch_anew(corpus):
    loader = BatchLoader(corpus, 64)
    taken = [b.row for b, _ in zip(loader, range(5), strict=False)]
    assert np.array_equal(rows_of(loader)[:320], np.concatenate(taken))


def entropy(groups):
    share = np.bincount(groups) / len(groups)
    return -(share[share > 0] * np.log2(share[share > 0])).sum()


def test_batches_are_nearly_as_mixed_as_random_ones(corpus):
    loader = BatchLoader(corpus, 128, block=8, pool=128)  # pools of 1,024 out of 4,500 samples
    mixed = np.mean([entropy(b.dataset) for b in loader])
    rng = np.random.default_rng(0)
    rows = corpus.rows("train")
    random = np.mean([entropy(rng.choice(rows, 128, replace=False) // PER_GROUP) for _ in range(100)])
    ordered = np.mean([entropy(b.dataset) for b in BatchLoader(corpus, 128, shuffle=False)])
    assert mixed > 0.97 * random > 0.9 * random > 3 * ordered


@pytest.mark.parametrize("stop", [0, 1, 15, 16, 17, 69])
@pytest.mark.parametrize("in_memory", [False, True])
def test_resume_in_the_middle_of_an_epoch_is_exact(path, stop, in_memory):
    def new():
        return BatchLoader(Corpus.open(path), 64, seed=3, block=32, pool=32, in_memory=in_memory)

    whole = new()
    whole.set_epoch(2)
    everything = [*whole, *whole]  # epochs 2 and 3
    assert whole.batches_per_pool == 16 and len(whole) == 70
    stopped = new()
    stopped.set_epoch(2)
    iterator = iter(stopped)
    for _ in range(stop):
        next(iterator)
    state = stopped.state_dict()
    assert state["epoch"] == 2 and state["batch"] == stop
    resumed = new()
    resumed.load_state_dict(state)
    resumed.set_epoch(2)  # a trainer may say so again
    assert np.array_equal(rows_of([*resumed, *resumed]), rows_of(everything[stop:]))


def test_state_after_the_last_batch_is_the_next_epoch(corpus):
    loader = BatchLoader(corpus, 64)
    iterator = iter(loader)
    for _ in range(len(loader)):
        next(iterator)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (
        1,
        0,
    )  # before the loop has noticed
    assert next(iterator, None) is None
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 0)


def test_a_state_of_another_order_is_refused(corpus):
    state = BatchLoader(corpus, 64, seed=1).state_dict()
    for other in (
        BatchLoader(corpus, 64, seed=2),
        BatchLoader(corpus, 32, seed=1),
        BatchLoader(corpus, 64, seed=1, block=16),
        BatchLoader(corpus, 64, seed=1, split="validation"),
    ):
        with pytest.raises(ValueError, match="cannot resume: (seed|global_batch|block|n_rows) was"):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="corpus was 'x'"):
        BatchLoader(corpus, 64, seed=1).load_state_dict({**state, "corpus": "x"})


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_batches_of_one_process(corpus, drop_last):
    one = list(BatchLoader(corpus, 96, pool=8, drop_last=drop_last))
    ranks = [
        list(BatchLoader(corpus, 32, pool=8, drop_last=drop_last, rank=r, world_size=3)) for r in range(3)
    ]
    assert {len(batches) for batches in ranks} == {len(one)}
    for whole, *parts in zip(one, *ranks, strict=True):
        assert np.array_equal(np.sort(rows_of(parts)), np.sort(whole.row))
    rows = rows_of([b for batches in ranks for b in batches])
    assert len(np.unique(rows)) == len(rows) == (4500 // 96 * 96 if drop_last else 4500)


def test_resume_with_another_number_of_ranks(corpus):
    one = BatchLoader(corpus, 64)
    iterator = iter(one)
    [next(iterator) for _ in range(9)]
    state, rest = one.state_dict(), rows_of(iterator)
    ranks = [BatchLoader(corpus, 32, rank=r, world_size=2) for r in range(2)]
    for loader in ranks:
        loader.load_state_dict(state)
    assert np.array_equal(np.sort(rows_of([*ranks[0], *ranks[1]])), np.sort(rest))


def test_chosen_rows_and_splits(corpus):
    rows = np.array([5, 4000, 17, 18, 19])
    assert rows_of(BatchLoader(corpus, 2, rows=rows, shuffle=False, drop_last=False)).tolist() == sorted(rows)
    assert (corpus.split[rows_of(BatchLoader(corpus, 10, split="validation"))] == 1).all()
    assert len(rows_of(BatchLoader(corpus, 1, split=None))) == len(corpus)


def test_bad_arguments(corpus):
    with pytest.raises(ValueError, match="500 samples .* do not fill one batch of 600; lower batch_size"):
        BatchLoader(corpus, 600, split="validation")
    with pytest.raises(ValueError, match="rank below world_size"):
        BatchLoader(corpus, 8, rank=2, world_size=2)
    with pytest.raises(ValueError, match="must be positive"):
        BatchLoader(corpus, 0)


def test_the_reading_thread_ends_with_the_iteration(corpus):
    before = threading.active_count()
    iterator = iter(BatchLoader(corpus, 16, pool=1, in_memory=False))
    next(iterator)
    assert threading.active_count() == before + 1
    iterator.close()
    assert threading.active_count() == before


def test_a_failed_read_reaches_the_reader_of_batches(corpus, monkeypatch):
    monkeypatch.setattr(os, "preadv", lambda *args: 0)
    with pytest.raises(OSError, match="ends before row"):
        next(iter(BatchLoader(corpus, 16, in_memory=False)))


def test_a_corpus_on_disk_stays_on_disk(tmp_path):
    """Memory grows by the pools, not by the corpus: 80 MB of it, counted in a fresh process."""
    rng, n, nnz = np.random.default_rng(0), 20_000, 1_000
    genes = [f"G{i}" for i in range(2_000)]
    with CorpusWriter(tmp_path / "large", genes) as writer:
        writer.begin("d", np.ones(2_000, bool))
        nothing = {"batch": [None] * n, "cell_type": [None] * n, "split": ["train"] * n, "name": [b"c"] * n}
        indices = (np.arange(n * nnz) + rng.integers(2_000)) % 2_000
        counts = np.ones(n * nnz, np.uint16)
        writer.append(np.arange(n + 1) * nnz, indices, counts, library_size=np.full(n, nnz), **nothing)
        writer.finish()
    code = (
        "from resource import RUSAGE_SELF, getrusage; from txfm_lite.corpus import Corpus;"
        "from txfm_lite.loader import BatchLoader; peak = lambda: getrusage(RUSAGE_SELF).ru_maxrss;"
        f"c = Corpus.open({str(tmp_path / 'large')!r});"
        "loader = BatchLoader(c, 64, pool=16, in_memory=False); before = peak();"
        "print(sum(len(b) for b in loader), peak() - before)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n_seen, grown = map(int, result.stdout.split())
    assert n_seen == n // 64 * 64 and grown < 30_000  # kB; the two pools take 8,000
