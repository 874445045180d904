"""Whose column is this, and are these counts: every way in which a user's AnnData may come."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from txfm_lite import files, genes
from txfm_lite.align import Aligned, align, match_genes, not_counts

SYMBOLS = ["TP53", "HLA-A", "KMT2A", "GAPDH", "MALAT1", "CD3E"]
ENSEMBL = [f"ENSG00000{n}" for n in ("141510", "206503", "118058", "111640", "251562", "198851")]


@pytest.fixture(scope="module")
def tables(local_data):
    """The gene tables: without them, names are taken at face value."""
    if genes.default_resolver().name == "identity":
        pytest.skip("the gene tables are not here")


def user_data(names=SYMBOLS, **var) -> AnnData:
    counts = np.random.default_rng(0).poisson(3, size=(7, len(names))) + 1
    return AnnData(sp.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(var, index=list(names)))


@pytest.mark.parametrize(
    ("names", "var"),
    [
        (SYMBOLS, {}),
        (ENSEMBL, {}),
        ([f"{e}.{i}" for i, e in enumerate(ENSEMBL)], {}),  # versions
        (["TP53", "HLA.A", "MLL", "GAPDH", "MALAT1", "CD3E"], {}),  # R's spelling and a former symbol
        ([str(i) for i in range(6)], {"feature_name": SYMBOLS}),  # numbers are no Entrez ids here
        ([f"soma{i}" for i in range(6)], {"feature_id": pd.Categorical(ENSEMBL)}),
        (["TP53", "?", "?", "GAPDH", "MALAT1", "CD3E"], {"gene_ids": ENSEMBL}),
        (["TP53", "HLA-A", "KMT2A", "GAPDH", "?", "?"], {"gene_ids": ["", "", *ENSEMBL[2:]]}),  # each helps
    ],
    ids=["symbols", "ensembl", "versions", "aliases", "numbered", "feature_id", "gene_ids", "both"],
)
def test_names_wherever_they_are(tables, names, var):
    adata = user_data(names, **var)
    vocabulary = [*SYMBOLS[::-1], "ACTB"]
    counts, measured, library_size = align(adata, vocabulary)
    np.testing.assert_array_equal(counts.toarray()[:, :6], adata.X.toarray()[:, ::-1])
    assert measured.tolist() == [True] * 6 + [False]
    np.testing.assert_array_equal(library_size, np.ravel(adata.X.sum(axis=1)))


@pytest.mark.parametrize(
    ("names", "var"),
    [
        (SYMBOLS, {}),
        ([f"{e}.{i}" for i, e in enumerate(ENSEMBL)], {}),
        (SYMBOLS, {"gene_ids": ENSEMBL}),
        (SYMBOLS, {"ensembl_id": [f"{e}.3" for e in ENSEMBL], "matched": [True] * 6}),
    ],
    ids=["symbols", "versions", "gene_ids", "loaded"],
)
def test_a_vocabulary_of_ensembl_ids(tables, names, var):
    adata = user_data(names, **var)
    counts, measured, library_size = align(adata, [*ENSEMBL[:4][::-1], "ENSG00000075624"])
    np.testing.assert_array_equal(counts.toarray()[:, :4], adata.X.toarray()[:, 3::-1])
    assert measured.tolist() == [True] * 4 + [False]
    np.testing.assert_array_equal(library_size, np.ravel(adata.X.sum(axis=1)))


def test_a_dataset_is_its_own_vocabulary(tables):
    adata = user_data(["TP53", "ENSG00000141510.16", "ERCC-00002", "MLL"])
    aligned = Aligned(adata)
    ((_, counts, library_size),) = aligned
    dense = adata.X.toarray()
    assert aligned.match.genes.tolist() == ["ERCC-00002", "KMT2A", "TP53"] and aligned.match.versions == 1
    np.testing.assert_array_equal(
        counts.toarray(), np.c_[dense[:, 2], dense[:, 3], dense[:, 0] + dense[:, 1]]
    )
    np.testing.assert_array_equal(library_size, dense.sum(axis=1))


def test_duplicates_are_summed_and_strangers_left_out_of_the_total(tables):
    adata = user_data(["TP53", "ENSG00000141510.16", "ERCC-00002", "GAPDH"])
    counts, _, library_size = align(adata, ["GAPDH", "TP53"])
    dense = adata.X.toarray()
    np.testing.assert_array_equal(counts.toarray(), np.c_[dense[:, 3], dense[:, 0] + dense[:, 1]])
    np.testing.assert_array_equal(library_size, dense[:, [0, 1, 3]].sum(axis=1))


def test_report_counts_what_was_read(tables):
    adata = user_data(["TP53", "no gene", "GAPDH"])
    aligned = Aligned(adata, ["TP53", "ACTB"])
    list(aligned)
    found, total = aligned.report(), adata.X.sum()
    assert (found["genes"], found["genes_identified"], found["genes_in_model"]) == (3, 2, 1)
    assert found["model_genes_measured"] == 0.5
    assert found["counts_identified"] == pytest.approx(adata.X[:, [0, 2]].sum() / total)
    assert found["counts_in_model"] == pytest.approx(adata.X[:, 0].sum() / total)


def test_mouse_symbols_are_noticed(tables):
    assert match_genes(user_data(["Trp53", "Gapdh", "Malat1"]).var, SYMBOLS).spelling == 1
    assert match_genes(user_data().var, SYMBOLS).spelling == 0


def test_names_that_lead_nowhere(tables, monkeypatch):
    with pytest.raises(ValueError, match=r"none of the 2 genes \(ENSMUSG1, ENSMUSG2, ...\).*put symbols"):
        align(user_data(["ENSMUSG1", "ENSMUSG2"]), SYMBOLS)
    with pytest.raises(ValueError, match="only numbered"):
        align(user_data(["0", "1", "2"]), SYMBOLS)
    monkeypatch.setattr(genes, "default_resolver", lambda: genes.Resolver(None, name="identity"))
    assert align(user_data(), SYMBOLS)[1].all()  # equal names need no table
    with pytest.raises(ValueError, match="gene tables are out of reach"):
        align(user_data(ENSEMBL), SYMBOLS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.log1p(x), r"X looks log-transformed \(largest value 2.*layer='counts'"),
        (lambda x: x / x.sum(1, keepdims=True) * 1e4, "not whole numbers.*layer='counts'"),
        (lambda x: x - 2, "negative values.*scaled.*layer='counts'"),
        (lambda x: np.where(x > 3, np.nan, x), "missing or infinite.*layer='counts'"),
    ],
    ids=["log", "normalised", "scaled", "missing"],
)
@pytest.mark.parametrize("store", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_what_is_no_count(tables, change, message, store):
    adata = user_data()
    adata.layers["counts"] = adata.X.copy()
    adata.X = store(change(adata.X.toarray()))
    with pytest.raises(ValueError, match=message):
        align(adata, SYMBOLS)
    expected = adata.layers["counts"].toarray()
    np.testing.assert_array_equal(align(adata, SYMBOLS, "counts")[0].toarray(), expected)


def test_counts_in_raw_with_genes_of_their_own(tables):
    """As in CELLxGENE's files: normalised values in X, counts in raw.X."""
    full = user_data()
    adata = full[:, :3].copy()
    adata.raw = full
    adata.X = adata.X.log1p()
    with pytest.raises(ValueError, match="layer='raw'"):
        align(adata, SYMBOLS)
    np.testing.assert_array_equal(align(adata, SYMBOLS, "raw")[0].toarray(), full.X.toarray())
    with pytest.raises(ValueError, match="no layer 'count'; there are: raw"):
        align(adata, SYMBOLS, "count")


def test_no_counts_anywhere_is_not_promised(tables):
    adata = user_data()
    adata.layers["scaled"] = adata.X.toarray() - 1.5
    adata.X = adata.X.log1p()
    with pytest.raises(ValueError, match="give raw counts$"):
        align(adata, SYMBOLS)
    adata.X = None
    with pytest.raises(ValueError, match="X is empty"):
        align(adata, SYMBOLS)


def test_a_file_without_x(tables, tmp_path):
    adata = user_data()
    adata.layers["counts"], adata.X = adata.X, None
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match="X is empty. Counts are in another place: layer='counts'"):
        align(backed, SYMBOLS)
    assert align(backed, SYMBOLS, "counts")[0].sum() == adata.layers["counts"].sum()


def test_empty_cells_are_named(tables):
    adata = user_data([*SYMBOLS, "no gene"])
    dense = adata.X.toarray()
    dense[2], dense[4, :6] = 0, 0  # nothing, and nothing in known genes
    adata.X = sp.csr_matrix(dense)
    with pytest.raises(ValueError, match="2 of the samples 0 to 6.*first is '2'.*filter_cells"):
        align(adata, SYMBOLS)


@pytest.mark.parametrize("store", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_backed_by_a_file_some_rows_at_a_time(tables, tmp_path, monkeypatch, store):
    adata = user_data()
    adata.X = store(adata.X.toarray())
    adata.write_h5ad(tmp_path / "a.h5ad")
    monkeypatch.setattr("txfm_lite.align.ROWS", 3)
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    for mine, expected in zip(align(backed, SYMBOLS), align(adata, SYMBOLS), strict=True):
        mine, expected = (x.toarray() if sp.issparse(x) else x for x in (mine, expected))
        np.testing.assert_array_equal(mine, expected)


def test_a_real_file_as_scanpy_reads_it_equals_the_curated_dataset(tables, loaded):
    """Repeated symbols beside Ensembl ids: the same counts and totals as `datasets.load` finds."""
    import scanpy as sc

    with pytest.warns(UserWarning, match="not unique"):
        mine = sc.read_10x_h5(files.fetch("pbmc_1k_v2")[0])
    curated = loaded("pbmc_1k_v2")
    vocabulary = curated.var_names[curated.var["matched"]].to_numpy()
    counts, measured, library_size = align(mine, vocabulary)
    expected, _, totals = align(curated, vocabulary)
    assert measured.mean() > 0.999
    assert abs(counts - expected).sum() < 1e-4 * expected.sum()
    np.testing.assert_allclose(library_size, totals, rtol=1e-3)


def test_counts_are_counts():
    assert not_counts(np.array([0, 1, 70_000], dtype=np.float32)) == ""
    assert not_counts(np.array([], dtype=np.float32)) == ""
    assert "rounded first" in not_counts(np.array([100.5, 3.0]))
