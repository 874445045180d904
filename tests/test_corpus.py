import json
import pickle
import shutil
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from txfm_lite.corpus import Corpus, select_variable_genes
from txfm_lite.corpus_writer import CorpusWriter, write_subset

GENES = [f"G{i}" for i in range(120)]


def study(n, genes, seed, largest=50):
    """Random counts with an empty row, and batches and labels with gaps."""
    rng = np.random.default_rng(seed)
    x = sparse.random(n, len(genes), 0.2, "csr", random_state=seed)
    x.data = rng.integers(1, largest, x.nnz).astype(np.float32)
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(rng.choice(["1", "2"], n)),
            "cell_type": pd.Series(rng.choice(["a", "b"], n)).where(rng.random(n) < 0.8).to_numpy(),
            "split": rng.choice(["train", "validation"], n, p=[0.8, 0.2]),
            "library_size": np.asarray(x.sum(axis=1)).ravel() + 1000.0,
        },
        index=[f"s{seed}_{i}" for i in range(n)],
    )
    return ad.AnnData(x.astype(np.float32), obs, pd.DataFrame(index=genes))


@pytest.fixture(scope="module")
def studies():
    return {
        "one": study(90, GENES[:80], 1),
        "deep": study(40, GENES[40:], 2, largest=3_000_000),
        "three": study(70, ["outside", *GENES[::3]], 3),
    }


@pytest.fixture(scope="module")
def path(studies, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpora") / "corpus"
    write(path, studies)
    return path


def write(path, studies, **options):
    with CorpusWriter(path, GENES, rules={"rule": 1}, **options) as writer:
        for name, adata in studies.items():
            writer.add(adata, name, modality="single-cell RNA")
        return writer.finish()


def expected(studies):
    """The same counts, put together with pandas."""
    frames = [
        pd.DataFrame(a.X.toarray().astype(np.int64), a.obs_names, a.var_names) for a in studies.values()
    ]
    return pd.concat([f.reindex(columns=GENES, fill_value=0) for f in frames])


@pytest.mark.parametrize("in_memory", [False, True])
def test_rows_are_the_counts_that_went_in(path, studies, in_memory):
    corpus = Corpus.open(path)
    if in_memory:
        corpus.load()
    truth = expected(studies).to_numpy()
    assert np.array_equal(corpus.csr(dtype=np.int64).toarray(), truth)
    rng = np.random.default_rng(0)
    for rows in (rng.permutation(len(truth)), rng.integers(0, 200, 333), [7], np.arange(20, 90)[::-1], []):
        rows = np.array(rows, dtype=int)
        assert np.array_equal(corpus.csr(rows, dtype=np.int64).toarray(), truth[rows])


def test_large_counts_are_exact_and_small_ones_stay_16_bit(path, studies):
    corpus = Corpus.open(path)
    assert expected(studies).to_numpy().max() > 2**21 and len(corpus.overflow) > 100
    assert corpus.read(corpus.rows(dataset="one"))[2].dtype == np.uint16
    assert corpus.read(corpus.rows(dataset="deep"))[2].dtype == np.uint32
    # exactly at the mark that stands for "larger"
    edge = ad.AnnData(sparse.csr_matrix(np.array([[65_534, 65_535, 65_536, 2**32 - 1]], dtype=np.float64)))
    edge.var_names = GENES[:4]
    with CorpusWriter(path.parent / "edge", GENES) as writer:
        writer.add(edge, "edge")
        corpus = writer.finish()
    assert corpus.csr(dtype=np.int64).toarray()[0, :4].tolist() == [65_534, 65_535, 65_536, 2**32 - 1]


def test_long_runs_of_rows_are_read_in_several_calls(tmp_path):
    x = sparse.random(2_500, 50, 0.1, "csr", random_state=0)
    x.data = np.ceil(x.data * 9)
    with CorpusWriter(tmp_path / "c", GENES[:50]) as writer:
        obs = pd.DataFrame({"library_size": 1.0}, index=map(str, range(2_500)))
        writer.add(ad.AnnData(x, obs, pd.DataFrame(index=GENES[:50])), "d")
        corpus = writer.finish()
    assert (corpus.csr() != x).nnz == 0


def test_measured_is_what_a_dataset_lists_not_what_it_saw(path, studies):
    corpus = Corpus.open(path)
    for code, adata in enumerate(studies.values()):
        assert corpus.genes[corpus.measured[code]].tolist() == [g for g in GENES if g in adata.var_names]
    assert (corpus.csr(corpus.rows(dataset="one")).toarray()[:, ~corpus.measured[0]] == 0).all()


def test_sample_table(path, studies):
    corpus = Corpus.open(path)
    obs = corpus.obs()
    truth = pd.concat([a.obs.assign(dataset=name) for name, a in studies.items()])
    assert obs.index.tolist() == truth.index.tolist()
    assert obs["dataset"].tolist() == truth["dataset"].tolist()
    assert obs["split"].tolist() == truth["split"].tolist()
    assert obs["batch"].tolist() == (truth["dataset"] + ":" + truth["batch"].astype(str)).tolist()
    assert obs["cell_type"].astype(object).fillna("?").tolist() == truth["cell_type"].fillna("?").tolist()
    assert np.array_equal(obs["library_size"], truth["library_size"])
    assert corpus.rows("validation", "deep").tolist() == np.flatnonzero(
        (truth["split"] == "validation") & (truth["dataset"] == "deep")
    ).tolist()  # fmt: skip
    with pytest.raises(ValueError, match="no split 'test'; there are train, validation"):
        corpus.rows("test")
    with pytest.raises(IndexError, match="200 samples"):
        corpus.read([200])


def test_fingerprint_follows_content_and_nothing_else(path, studies, tmp_path):
    corpus = Corpus.open(path)
    assert write(tmp_path / "again", studies).fingerprint == corpus.fingerprint
    changed = {name: a.copy() for name, a in studies.items()}
    changed["one"].X.data[0] += 1
    relabelled = {name: a.copy() for name, a in studies.items()}
    relabelled["one"].obs["split"] = "train"
    less = dict(studies, one=studies["one"][:, [g for g in GENES[:79]]].copy())  # one gene no longer measured
    for i, other in enumerate((changed, relabelled, less, dict(reversed(studies.items())))):
        assert write(tmp_path / str(i), other).fingerprint != corpus.fingerprint


def test_verify_names_the_damaged_file(path, tmp_path):
    Corpus.open(path).verify()
    for file in ("counts.bin", "measured.npy", "genes.txt", "library_size.npy"):
        copy = shutil.copytree(path, tmp_path / file)
        data = bytearray((copy / file).read_bytes())
        data[-2] ^= 1
        (copy / file).write_bytes(data)
        with pytest.raises(ValueError, match=f"{file}: not the bytes"):
            Corpus.open(copy).verify()
    copy = shutil.copytree(path, tmp_path / "edited")
    info = json.loads((copy / "corpus.json").read_text())
    info["rules"]["rule"] = 2
    (copy / "corpus.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="edited"):
        Corpus.open(copy).verify()


def test_truncated_and_foreign_corpora_are_refused(path, tmp_path):
    copy = shutil.copytree(path, tmp_path / "short")
    (copy / "counts.bin").write_bytes((copy / "counts.bin").read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"counts.bin: [\d,]+ bytes instead of"):
        Corpus.open(copy)
    copy = shutil.copytree(path, tmp_path / "old")
    (copy / "corpus.json").write_text(json.dumps({"format": "txfm_lite corpus", "version": 0}))
    with pytest.raises(ValueError, match="version 0"):
        Corpus.open(copy)
    copy = shutil.copytree(path, tmp_path / "shrinking")
    corpus = Corpus.open(copy)
    (copy / "indices.bin").write_bytes(b"")
    with pytest.raises(OSError, match="indices.bin: ends before row"):
        corpus.read([0, 1, 2])


def test_unfinished_corpora_are_refused(studies, tmp_path):
    writer = CorpusWriter(tmp_path / "c", GENES)
    writer.add(studies["one"], "one")  # and then the process is gone
    with pytest.raises(
        FileNotFoundError, match=r"no corpus here; delete c.partial-\S+ \(an interrupted build\)"
    ):
        Corpus.open(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="unfinished"):
        Corpus.open(writer.partial)
    shutil.rmtree(writer.partial)
    with pytest.raises(RuntimeError, match="stop"), CorpusWriter(tmp_path / "c", GENES) as writer:
        writer.add(studies["one"], "one")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="no corpus here$"):
        Corpus.open(tmp_path / "c")


def test_existing_paths_are_safe(path, studies, tmp_path):
    with pytest.raises(FileExistsError, match="overwrite=True replaces"):
        CorpusWriter(path, GENES)
    (tmp_path / "notes").mkdir()
    with pytest.raises(FileExistsError, match="no corpus"):
        CorpusWriter(tmp_path / "notes", GENES, overwrite=True)
    copy = shutil.copytree(path, tmp_path / "copy")
    small = write(copy, {"one": studies["one"]}, overwrite=True)
    assert len(small) == 90 and sorted(p.name for p in tmp_path.iterdir()) == ["copy", "notes"]


@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf, 2.0**32])
def test_only_counts_get_in(value, tmp_path):
    x = sparse.csr_matrix(np.array([[1.0, value], [3.0, 4.0]]))
    bad = ad.AnnData(x, pd.DataFrame({"library_size": 5.0}, index=["a", "b"]), pd.DataFrame(index=GENES[:2]))
    with (
        CorpusWriter(tmp_path / "c", GENES) as writer,
        pytest.raises(ValueError, match="a corpus holds counts"),
    ):
        writer.add(bad, "bad")


def test_other_bad_input(studies, tmp_path):
    with pytest.raises(ValueError, match="gene twice"):
        CorpusWriter(tmp_path / "c", ["A", "A"])
    with CorpusWriter(tmp_path / "c", GENES) as writer:
        writer.add(studies["one"], "one")
        with pytest.raises(ValueError, match="'one' was added before"):
            writer.add(studies["one"], "one")
        doubled = studies["one"][:, ["G0", "G1", "G1"]].copy()
        with pytest.raises(ValueError, match="listed twice"):
            writer.add(doubled, "doubled")
        empty = ad.AnnData(sparse.csr_matrix((1, 2)), var=pd.DataFrame(index=GENES[:2]))
        with pytest.raises(ValueError, match="without counts"):
            writer.add(empty, "empty")


def test_subset_keeps_whole_library_sizes(path, studies, tmp_path):
    corpus = Corpus.open(path)
    genes, rows = ["G50", "G3", "G110", "G42"], corpus.rows("train")
    small = write_subset(corpus, tmp_path / "small", genes=genes, rows=rows)
    assert small.genes.tolist() == genes and len(small) == len(rows)
    assert np.array_equal(small.csr(dtype=np.int64).toarray(), expected(studies)[genes].to_numpy()[rows])
    assert np.array_equal(small.library_size, corpus.library_size[rows])
    pd.testing.assert_frame_equal(small.obs(), corpus.obs().iloc[rows], check_categorical=False)
    assert np.array_equal(small.measured, corpus.measured[:, [50, 3, 110, 42]])
    assert small.info["rules"]["subset_of"] == corpus.fingerprint
    without = write_subset(corpus, tmp_path / "without", rows=corpus.rows(dataset="deep"))
    assert [d["name"] for d in without.datasets] == ["deep"] and set(without.dataset) == {0}
    assert np.array_equal(without.csr().toarray(), corpus.csr(corpus.rows(dataset="deep")).toarray())
    with pytest.raises(ValueError, match="1 genes are not in its vocabulary, as 'X'"):
        write_subset(corpus, tmp_path / "c", genes=["G1", "X"])


def test_variable_genes_match_a_dense_computation(path, studies):
    corpus = Corpus.open(path)
    ranks = []
    for code, adata in enumerate(studies.values()):
        rows = corpus.rows("train", list(studies)[code])
        x = np.log1p(corpus.csr(rows, np.float64).toarray() * 1e5 / corpus.library_size[rows][:, None])
        variance = pd.Series(x.var(axis=0), GENES)[corpus.measured[code]]
        ranks.append((variance.rank(method="min") - 1) / len(variance))
        assert len(adata) > len(rows)
    score = pd.concat(ranks, axis=1)
    score = score[score.notna().sum(axis=1) >= 1.5].mean(axis=1)
    assert set(select_variable_genes(corpus, 10)) == set(score.nlargest(10).index)
    with pytest.raises(ValueError, match="lower min_measured"):
        select_variable_genes(corpus, 115)


def test_a_copy_in_another_process_opens_its_own_files(path):
    corpus = Corpus.open(path)
    other = pickle.loads(pickle.dumps(corpus))
    assert not set(other._descriptors) & set(corpus._descriptors)
    assert (other.csr() != corpus.csr()).nnz == 0


def test_reading_needs_numpy_alone(path):
    code = (
        "import sys; from txfm_lite.loader import BatchLoader; from txfm_lite.corpus import Corpus;"
        f"c = Corpus.open({str(path)!r}); c.verify(); n = sum(len(b) for b in BatchLoader(c, 8));"
        "print(n, [m for m in ('scipy', 'pandas', 'anndata', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n, modules = result.stdout.split(" ", 1)
    assert int(n) > 100 and modules.strip() == "[]"
