"""How each model sees a cell: published golden values, what must and what must not change an encoding."""

import logging
import subprocess
import sys
from fractions import Fraction

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from txfm_lite import datasets, encodings

N_GENES = 60
SYMBOLS = [f"G{i:02d}" for i in range(N_GENES)]
ENSEMBL = [f"ENSG{i:011d}" for i in range(N_GENES)]
TOKENS = {"<pad>": 0, "<mask>": 1} | {gene: i + 2 for i, gene in enumerate(ENSEMBL[:58])}  # 58, 59: unknown
MEDIANS = dict(zip(ENSEMBL, np.random.default_rng(5).lognormal(1, 0.7, N_GENES), strict=True))
VECTORS = pd.DataFrame(np.random.default_rng(6).normal(size=(N_GENES, 4)), index=SYMBOLS)
POSITIONS = pd.DataFrame(
    {"chromosome": np.repeat(["1", "2", "X"], 20), "start": np.random.default_rng(7).permutation(N_GENES)},
    index=SYMBOLS,
)


def random_counts(n=40, g=300, seed=0) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(rng.poisson(rng.gamma(0.3, 3, size=g), size=(n, g)).astype(np.float32))


def as_adata(counts, names=SYMBOLS, ids=ENSEMBL) -> anndata.AnnData:
    counts = sp.csr_matrix(np.asarray(counts, dtype=np.float32))
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(counts.shape[0])])
    n = counts.shape[1]
    var = pd.DataFrame({"ensembl_id": list(ids[:n]), "matched": True}, index=list(names[:n]))
    return anndata.AnnData(counts, obs, var)


@pytest.fixture
def adata():
    counts = random_counts(30, N_GENES).toarray()
    counts[:, 0] += 1  # no cell is empty
    counts[:, 59] += 20_000  # single counts are below 1 in 10,000; Geneformer's dictionary lacks this gene
    return as_adata(counts)


def embed_text(texts):
    """Not a good text model, but one that tells texts apart."""
    return np.array([[len(t), sum(map(ord, t[:80]))] for t in texts])


ENCODERS = {
    "geneformer": lambda a, **k: encodings.geneformer(a, MEDIANS, TOKENS, **k),
    "cell2sentence": lambda a, **k: encodings.cell2sentence(a, **k),
    "cell2sentence, stable": lambda a, **k: encodings.cell2sentence(a, seed=None, **k),
    "genept-w": lambda a, **k: encodings.genept(a, VECTORS, **k),
    "genept-s": lambda a, **k: encodings.genept(a, embed_text=embed_text, **k),
    "scgpt": lambda a, **k: encodings.scgpt(a, longest=12, **k),
    "scbert": lambda a, **k: encodings.scbert(a, **k),
    "scfoundation": lambda a, **k: encodings.scfoundation(a, SYMBOLS, **k),
    "uce": lambda a, **k: encodings.uce(a, POSITIONS, n_sampled=50, **k),
    "txfm": lambda a, **k: encodings.txfm(a, n_genes=40, **k),
}
RANDOM = ("cell2sentence", "scgpt", "uce", "txfm")
each = pytest.mark.parametrize("name", ENCODERS)


def rows(encoding) -> list[tuple]:
    """Return all that is known about each cell, in a form that two encodings can be compared by."""
    parts = []
    for i in range(len(encoding)):
        own = slice(encoding.indptr[i], encoding.indptr[i + 1])
        values = () if encoding.values is None else tuple(encoding.values[own].tolist())
        vector = () if encoding.vectors is None else tuple(encoding.vectors[i].tolist())
        parts.append((str(encoding.cells[i]), tuple(encoding[i]), values, vector))
    return parts


# ---------------------------------------------------------------- what encodings are made of


@pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])
@pytest.mark.parametrize("divided", [False, True])
def test_descending_equals_a_stable_sort(device, divided, monkeypatch):
    monkeypatch.setattr("txfm_lite.encodings_arrays.ROWS", 7)
    monkeypatch.setattr("txfm_lite.encodings_arrays.DEVICE_ROWS", 9)
    counts = random_counts()
    counts.data[counts.indptr[11] : counts.indptr[12]] = 0  # stored zeros: a row without anything
    divisor = np.random.default_rng(1).lognormal(size=300).astype(np.float32) if divided else None
    shuffled = sp.csr_matrix(counts[:, ::-1])[:, ::-1]  # other order in memory
    for x, threads in ((counts, 1), (counts, 3), (shuffled, None)):
        indptr, columns = encodings.descending(x, divisor, threads=threads, device=device)
        for i, row in enumerate(counts.toarray() / (1 if divisor is None else divisor)):
            expected = np.argsort(-row, kind="stable")[: (row > 0).sum()]
            np.testing.assert_array_equal(columns[indptr[i] : indptr[i + 1]], expected)
    assert columns.dtype == np.int32 and indptr[12] == indptr[11]


@pytest.mark.parametrize("bad", [-1, np.nan])
def test_what_has_no_place_is_refused(bad):
    for function in (encodings.descending, encodings.absolute_bins):
        with pytest.raises(ValueError, match="negative or missing"):
            function(sp.csr_matrix([[1.0, bad]]))


def test_absolute_bins_of_the_golden_vector():
    x = np.array([[0.5, 0.99, 1, 3, 7, 15, 31, 100]])
    assert encodings.absolute_bins(sp.csr_matrix(x)).toarray().tolist() == [[0, 0, 1, 2, 3, 4, 5, 5]]
    edges = 2.0 ** np.arange(1, 6) - 1
    for x, shift in ((edges, 0), (np.nextafter(edges, 0), -1)):
        bins = encodings.absolute_bins(sp.csr_matrix(x[None])).toarray()[0]
        np.testing.assert_array_equal(bins, np.arange(1, 6) + shift)


def test_quantile_bins_of_the_golden_vector():
    values = sp.csr_matrix([[0.0, 1, 1, 1, 2, 3, 5, 8, 8]])
    for seed in range(5):  # no edge repeats: nothing is random but between the upper two bins of 8
        draws = np.random.default_rng(seed).random(8)
        _, columns, bins = encodings.quantile_bins(values, draws, 5)
        found = dict(zip(columns.tolist(), bins.tolist(), strict=True))
        assert [found[i] for i in range(1, 9)] == [1, 1, 1, 2, 2, 3, 4, 4]
    n = 4000  # edges 1, 1, 1, 2
    values = sp.csr_matrix(np.tile([1.0] * 8 + [2], (n, 1)))
    _, columns, bins = encodings.quantile_bins(values, np.random.default_rng(0).random(9 * n), 5)
    assert set(bins[columns == 8]) == {4}
    np.testing.assert_allclose(np.bincount(bins[columns != 8])[1:] / (8 * n), 1 / 3, atol=0.01)


@pytest.mark.parametrize("n_bins", [3, 5, 51])
def test_quantile_bins_are_those_of_exact_quantiles(n_bins):
    """The edges as fractions, where floating point would round; and as numpy computes them."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 17, 50, 99, 140):
        values = rng.geometric(0.4, n).astype(np.float64)
        exact, s = [], [Fraction(v) for v in sorted(values)]
        for k in range(n_bins - 1):
            at = Fraction((n - 1) * k, n_bins - 2)
            low, high = s[int(at)], s[min(int(at) + 1, n - 1)]
            exact.append(low + (at - int(at)) * (high - low))
        np.testing.assert_allclose(
            [float(e) for e in exact], np.quantile(values, np.linspace(0, 1, n_bins - 1)), rtol=1e-12
        )
        a = np.array([sum(e < Fraction(v) for e in exact) for v in values])
        b = np.array([sum(e <= Fraction(v) for e in exact) for v in values])
        lowest = np.where(b > a, a + 1, b)
        for draw, expected in ((0.0, b), (0.3, np.ceil(0.3 * (a - b) + b)), (1 - 2**-53, lowest)):
            _, columns, bins = encodings.quantile_bins(sp.csr_matrix(values), np.full(n, draw), n_bins)
            np.testing.assert_array_equal(bins, expected[columns])


def test_soft_bins_are_those_of_torch():
    import torch

    torch.manual_seed(0)
    one, two, table, alpha = torch.nn.Linear(1, 7), torch.nn.Linear(7, 7), torch.nn.Embedding(7, 5), 0.8
    x = torch.rand(3, 4) * 4
    h = torch.nn.functional.leaky_relu(one(x[..., None]), 0.1)
    expected = torch.softmax(two(h) + alpha * h, dim=-1) @ table.weight
    w1, b1, w2, b2, rows_ = (
        p.detach().numpy() for p in (one.weight[:, 0], one.bias, two.weight, two.bias, table.weight)
    )
    ours = encodings.soft_bins(x.numpy(), w1, w2, alpha, b1, b2)
    assert ours.shape == (3, 4, 7)
    np.testing.assert_allclose(ours @ rows_, expected.detach().numpy(), atol=1e-6)


def test_gene_vectors_of_the_golden_vector():
    x, e = sp.csr_matrix([[1.0, 0, 2]]), np.array([[1, 0], [0, 1], [0, 0]])
    np.testing.assert_allclose(encodings.weighted_mean(x, e, 3), [[1 / 3, 0]], rtol=1e-6)


# ---------------------------------------------------------------- Geneformer

GOLDEN = [3, 0, 1, 8, 2, 6]
GOLDEN_MEDIANS = [2, 4, 1, 8, 2.5, 5]


def golden(counts=GOLDEN, outside=5) -> encodings.Encoding:
    adata = as_adata([[*counts, outside]])
    return encodings.geneformer(adata, dict(zip(ENSEMBL, GOLDEN_MEDIANS, strict=False)), TOKENS)


def test_geneformer_of_the_golden_vector():
    v = 1e4 * np.array(GOLDEN) / 25 / GOLDEN_MEDIANS
    np.testing.assert_allclose(v, [600, 0, 400, 400, 320, 480])
    assert (golden().tokens - 2).tolist() == [0, 5, 2, 3, 4]  # 2 and 3 are equal
    assert golden().genes[golden().tokens].tolist() == [ENSEMBL[i] for i in (0, 5, 2, 3, 4)]
    for outside in (0, 1, 10_000):  # the total, and genes that are not in the vocabulary, change nothing
        assert golden(outside=outside).tokens.tolist() == golden().tokens.tolist()
    logged = sp.csr_matrix(np.log1p(1e4 * np.array([GOLDEN]) / 25))
    assert encodings.descending(logged, np.array(GOLDEN_MEDIANS))[1].tolist() == [2, 0, 4, 5, 3]
    with pytest.raises(ValueError, match="looks log-transformed"):  # which is why this input is refused
        golden(np.log1p(1e4 * np.array(GOLDEN) / 25))


def test_geneformer_cuts_the_lowest_and_says_how_many(adata, caplog):
    caplog.set_level(logging.INFO, logger="txfm_lite")
    whole, cut = (ENCODERS["geneformer"](adata, longest=n) for n in (None, 9))
    lengths = np.diff(whole.indptr)
    np.testing.assert_array_equal(np.diff(cut.indptr), np.minimum(lengths, 9))
    assert all(tuple(cut[i]) == tuple(whole[i][:9]) for i in range(30))
    assert whole.truncated == 0
    assert cut.truncated == pytest.approx(np.maximum(lengths - 9, 0).sum() / lengths.sum())
    assert f"{(lengths > 9).sum()} of 30 cells lose genes" in caplog.text
    assert whole.matched == 58 / 60
    assert whole.matched_counts == pytest.approx(adata.X[:, :58].sum() / adata.X.sum())


def test_geneformer_of_the_second_version(adata):
    with pytest.raises(ValueError, match="version = 2, but the token dictionary lacks <cls>"):
        encodings.geneformer(adata, MEDIANS, TOKENS, version=2)
    tokens = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3} | {
        g: i + 4 for i, g in enumerate(ENSEMBL[:58])
    }
    with pytest.raises(ValueError, match="version = 1, but the token dictionary has <cls>"):
        encodings.geneformer(adata, MEDIANS, tokens)
    with pytest.raises(ValueError, match="version = 3: should be 1 or 2"):
        encodings.geneformer(adata, MEDIANS, tokens, version=3)
    with pytest.raises(ValueError, match=f"medians of {ENSEMBL[7]} and others are not above zero"):
        encodings.geneformer(adata, MEDIANS | {ENSEMBL[7]: 0.0}, TOKENS)
    first = ENCODERS["geneformer"](adata, longest=8)
    second = encodings.geneformer(adata, MEDIANS, tokens, version=2, longest=10)
    for i in range(30):
        assert second[i].tolist() == ["<cls>", *first[i], "<eos>"]
    assert second.truncated == first.truncated
    wide = as_adata(np.ones((2, 4100)), [f"g{i}" for i in range(4100)], [f"ENSG{i}" for i in range(4100)])
    ids = {f"ENSG{i}": 2 + i for i in range(4100)}
    medians = dict.fromkeys(ids, 1.0)
    one = encodings.geneformer(wide, medians, {"<pad>": 0} | ids)
    two = encodings.geneformer(wide, medians, {"<pad>": 0, "<cls>": 4102, "<eos>": 4103} | ids, version=2)
    assert np.diff(one.indptr).tolist() == [2048] * 2 and np.diff(two.indptr).tolist() == [4096] * 2


def test_geneformer_knows_versions_and_adds_up_columns(adata, caplog):
    caplog.set_level(logging.INFO, logger="txfm_lite")
    expected = rows(ENCODERS["geneformer"](adata))
    split = anndata.concat([adata, adata], axis=1)
    split.X = sp.csr_matrix(split.X) / 2
    split.X = sp.hstack([adata.X, adata.X], format="csr")  # every gene twice: all counts doubled
    split.var["ensembl_id"] = [f"{g}.{i}" for i, g in enumerate(ENSEMBL)] + ENSEMBL
    split.var["matched"] = True
    assert rows(ENCODERS["geneformer"](split)) == expected
    assert "58 columns added to others of their gene, 60 versions dropped" in caplog.text


def test_geneformer_by_ensembl_id_wherever_it_is(local_data):
    """Without this package's own columns: symbols, ids with versions, ids beside symbols, upper case."""
    ids = ["ENSG00000167286", "ENSG00000156738", "ENSG00000075624", "ENSG00000111640"]
    symbols = ["CD3D", "MS4A1", "ACTB", "GAPDH"]
    counts = sp.csr_matrix(np.array([[1, 2, 80, 20]], dtype=np.float32))
    vars_ = [pd.DataFrame(index=symbols), pd.DataFrame(index=[f"{i}.7" for i in ids])]
    vars_.append(pd.DataFrame({"gene_ids": ids}, index=symbols))
    vars_.append(pd.DataFrame({"feature_name": symbols}, index=ids))
    for var in vars_:
        found = encodings.geneformer(anndata.AnnData(counts, var=var))
        # 1 / 7.8623, 2 / 12.157, 80 / 41.877, 20 / 20.045
        assert found.tokens.tolist() == [1319, 3906, 9969, 11987] and found.matched == 1


@pytest.fixture(scope="module")
def blood(loaded):
    adata = loaded("pbmc3k_allgenes")
    return adata[:150].copy()


def test_geneformer_of_real_cells(blood):
    """Against the published recipe: normalise, divide, sort, map, one cell at a time in float64."""
    medians = datasets.read("geneformer_v1_dictionaries", "medians").set_index("key")["median"]
    tokens = datasets.read("geneformer_v1_dictionaries", "tokens").set_index("key")["token"]
    table = {
        "ENSG00000167286": (7.8623, 11987), "ENSG00000156738": (12.157, 9969),
        "ENSG00000075624": (41.877, 1319), "ENSG00000111640": (20.045, 3906),
        "ENSG00000166710": (81.889, 11842), "ENSG00000105374": (28.585, 3083),
        "ENSG00000090382": (22.662, 1876), "ENSG00000049768": (3.411, 670),
        "ENSG00000198804": (100.447, 17247),
    }  # fmt: skip
    for gene, (median, token) in table.items():
        assert tokens[gene] == token and medians[gene] == pytest.approx(median, rel=2e-4)
    ours = encodings.geneformer(blood)
    known = np.flatnonzero(blood.var["ensembl_id"].isin(tokens.index[2:]))
    token = tokens[blood.var["ensembl_id"].iloc[known]].to_numpy()
    median = medians[blood.var["ensembl_id"].iloc[known]].to_numpy()
    different = 0
    for i, cell in enumerate(blood.X.toarray().astype(np.float64)):
        v = cell[known] / cell.sum() * 10_000 / median
        order = np.lexsort((token, -v))[: min((v > 0).sum(), 2048)]
        mine = ours.tokens[ours.indptr[i] : ours.indptr[i + 1]]
        at = pd.Series(v, index=token)[mine].to_numpy()
        np.testing.assert_allclose(at, v[order], rtol=1.2e-7)  # at most, neighbours that float32 cannot tell
        different += (mine != token[order]).sum()
    assert different < 1e-4 * len(ours.tokens)
    assert blood.var.loc["MALAT1", "ensembl_id"] not in tokens  # it makes no protein
    assert 0.9 < ours.matched_counts < 1 and ours.truncated < 0.01


def test_geneformers_singletons_have_one_order_for_all_cells(blood):
    """Not a pure rank within the cell: where counts are equal, the corpus decides."""
    ours = encodings.geneformer(blood)
    column = pd.Series(np.arange(blood.n_vars), index=blood.var["ensembl_id"])
    medians = datasets.read("geneformer_v1_dictionaries", "medians").set_index("key")["median"]
    place, x, seen = medians.astype(np.float32).rank(method="min"), blood.X.toarray(), 0
    for i in range(len(ours)):
        singletons = ours[i][x[i, column[ours[i]]] == 1]
        assert place[singletons].is_monotonic_increasing
        seen += len(singletons)
    assert seen > 300 * len(ours)


# ---------------------------------------------------------------- cell2sentence and its inverse


def test_sentences_of_the_golden_vector():
    adata = as_adata([[0, 4, 2, 2, 1, 0, 1, 8]])
    ours = encodings.cell2sentence(adata, to=18, seed=None)  # the cell's own total: values log10(1 + count)
    assert ours.tokens.tolist() == [7, 1, 2, 3, 4, 6]
    assert ours.sentences() == ["G07 G01 G02 G03 G04 G06"]
    fit = encodings.fit_sentences(ours)
    expected = (-0.865681, 0.947175, 0.973305, 0.986562, 0.971008)
    got = (fit.slope, fit.intercept, fit.r2, -fit.pearson, -fit.spearman)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_sentences_shuffle_equal_counts_only(adata):
    a, b = (encodings.cell2sentence(adata, seed=s) for s in (0, 1))
    stable = encodings.cell2sentence(adata, seed=None)
    for other in (a, b):
        np.testing.assert_array_equal(other.values, stable.values)
    assert (a.tokens != b.tokens).mean() > 0.3 and (a.seed, stable.seed) == (0, None)
    many = as_adata(np.tile([1.0, 1, 1], (6000, 1)))
    order = encodings.cell2sentence(many).tokens.reshape(-1, 3)
    for which in np.unique(order, axis=0, return_counts=True)[1]:
        assert which == pytest.approx(1000, abs=120)  # all six orders alike


def test_sentences_have_upper_case_words_and_a_length(adata):
    adata.var_names = [n.lower() for n in adata.var_names]
    ours = encodings.cell2sentence(adata, 5)
    assert all(s == s.upper() and len(s.split()) <= 5 for s in ours.sentences())
    n_genes = adata.X.getnnz(axis=1)
    assert ours.truncated == pytest.approx(np.maximum(n_genes - 5, 0).sum() / n_genes.sum())


def test_sentences_of_real_cells_lead_back(blood):
    ours = encodings.cell2sentence(blood)
    fit = encodings.fit_sentences(ours, n_cells=100)
    decoded = fit.decode(ours.sentences(), ours.genes)
    x = blood.X.toarray().astype(np.float64)
    x = np.log10(1 + 1e4 * x / x.sum(axis=1, keepdims=True))
    words = blood.var_names.str.upper()
    once = ~words.duplicated(keep=False)  # C1orf220 and C1ORF220 are one word
    decoded = decoded.toarray()[:, pd.Index(ours.genes).get_indexer_for(words[once])]
    x = x[:, once]
    np.testing.assert_array_equal(decoded != 0, x != 0)
    held_out = np.setdiff1d(np.arange(150), _sample(150, 100))
    r = np.corrcoef(decoded[held_out].ravel(), x[held_out].ravel())[0, 1]
    assert r > 0.9 and fit.slope < -0.3 and fit.r2 == pytest.approx(fit.pearson**2)
    assert fit.n == sum(min(len(ours[i]), 999) for i in _sample(150, 100))


def _sample(n, size):
    return np.random.default_rng(0).choice(n, size, replace=False)


def test_generated_sentences():
    fit = encodings.SentenceFit(slope=-1.0, intercept=2.0, r2=1.0, pearson=-1.0, spearman=-1.0, n=9)
    read = fit.decode(["B nonsense a b", "", "C"], ["a", "b", "c"]).toarray()
    expected = [[2 - np.log10(3), 2 - np.log10(2.5), 0], [0, 0, 0], [0, 0, 2]]  # b: mean of places 0 and 3
    np.testing.assert_allclose(read, expected)


def test_what_has_no_line_is_not_fitted(adata):
    with pytest.raises(ValueError, match="Geneformer writes no sentences with values"):
        encodings.fit_sentences(ENCODERS["geneformer"](adata))
    with pytest.raises(ValueError, match="fewer than two places"):
        encodings.fit_sentences(encodings.cell2sentence(as_adata([[3, 0], [0, 1]])))


# ---------------------------------------------------------------- GenePT


def test_genept_w_is_a_mean_over_all_genes(adata):
    ours = encodings.genept(adata, VECTORS.iloc[:50])
    x = adata.X.toarray()
    x = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ours.vectors, x[:, :50] @ VECTORS[:50] / 60, rtol=1e-4, atol=1e-6)
    assert ours.matched == 50 / 60


def test_genept_s_reads_names(adata):
    told = []

    def embed(texts):
        told.extend(texts)
        return embed_text(texts)

    ours = encodings.genept(adata, embed_text=embed, n_genes=7)
    assert told == [f"A cell with genes ranked by expression: {s}" for s in ours.sentences()]
    np.testing.assert_array_equal(ours.vectors, embed_text(told))
    stable = encodings.cell2sentence(adata, 7, seed=None)
    assert ours.sentences() == stable.sentences() and ours.truncated == stable.truncated > 0
    with pytest.raises(ValueError, match=r"returned shape \(1, 2\) for 30 texts"):
        encodings.genept(adata, embed_text=lambda texts: embed_text(texts[:1]))
    for wrong in ({}, {"vectors": VECTORS, "embed_text": embed_text}):
        with pytest.raises(ValueError, match="either vectors"):
            encodings.genept(adata, **wrong)


# ---------------------------------------------------------------- scGPT, scBERT, scFoundation


def test_scgpt_shows_a_draw_of_the_genes_with_bins_of_all(adata):
    whole, some = (encodings.scgpt(adata, n_bins=11, longest=n) for n in (1200, 12))
    n_genes = adata.X.getnnz(axis=1)
    for i in range(30):
        assert whole[i][0] == some[i][0] == "<cls>"
        bins = dict(zip(whole[i], whole.values[whole.indptr[i] : whole.indptr[i + 1]], strict=True))
        kept = dict(zip(some[i], some.values[some.indptr[i] : some.indptr[i + 1]], strict=True))
        assert bins["<cls>"] == -2 and len(bins) == n_genes[i] + 1 and len(kept) == min(n_genes[i] + 1, 12)
        assert kept.items() <= bins.items()
    assert some.truncated == pytest.approx(np.maximum(n_genes - 11, 0).sum() / n_genes.sum())


def test_scgpts_bins_are_a_coarse_rank_encoding():
    """Any increasing map of a cell's counts leaves every bin as it was, drawn with the same random stream."""
    counts = random_counts(20, 400)
    total = np.asarray(counts.sum(axis=1)).ravel()
    draws = np.random.default_rng(1).random(counts.nnz)
    raw = encodings.quantile_bins(counts, draws)
    for x in (encodings.log_normalise(counts, total, 1e4), encodings.cp(counts, total), counts.power(3)):
        for a, b in zip(raw, encodings.quantile_bins(x, draws), strict=True):
            np.testing.assert_array_equal(a, b)
    assert raw[2].min() >= 1 and raw[2].max() == 50


def test_scbert_shows_zeros_and_absolute_bins():
    counts = np.zeros((2, 5))
    counts[0, :4], counts[1, :2] = (1, 3, 7, 9_989), (1, 20_000)  # totals 10,000 and 20,001
    ours = encodings.scbert(as_adata(counts))
    tokens, values, shown = ours.padded()
    assert values.tolist() == [[1, 2, 3, 5, 0, 0], [0, 5, 0, 0, 0, 0]]  # one count is worth less than 1
    assert tokens.tolist() == [[0, 1, 2, 3, 4, 5]] * 2 and shown.all() and ours.genes[-1] == "<end>"
    wider = encodings.scbert(as_adata(counts), [*SYMBOLS[:5], "unmeasured"])
    assert wider.padded()[1].tolist() == [[1, 2, 3, 5, 0, 0, 0], [0, 5, 0, 0, 0, 0, 0]]


def test_scfoundation_knows_the_depth(adata):
    ours = encodings.scfoundation(adata, SYMBOLS[:50])
    x = adata.X.toarray()
    total = x.sum(axis=1)
    for i in range(30):
        own = slice(ours.indptr[i], ours.indptr[i + 1])
        values = dict(zip(ours[i], ours.values[own], strict=True))
        assert ours[i][-2:].tolist() == ["<T>", "<S>"]
        assert values.pop("<T>") == 4 and values.pop("<S>") == pytest.approx(np.log10(total[i]))
        expected = {SYMBOLS[g]: np.log1p(1e4 * x[i, g] / total[i]) for g in np.flatnonzero(x[i, :50])}
        assert values == pytest.approx(expected)
    for target, t in (("f5", np.log10(5 * total)), ("a1", np.log10(total) + 1), ("t3.5", 3.5)):
        other = encodings.scfoundation(adata, SYMBOLS[:50], target=target)
        np.testing.assert_allclose(other.values[other.indptr[1:] - 2], np.broadcast_to(t, 30), rtol=1e-6)
    for bad in ("x4", "t", "f0", "", "fnan"):
        with pytest.raises(ValueError, match="should be t, f or a with a number"):
            encodings.scfoundation(adata, SYMBOLS, target=bad)
    one = encodings.scfoundation(as_adata([[1, 0]]), SYMBOLS[:2])  # log10(1) = 0 is not above zero
    assert one[0].tolist() == ["G00", "<T>"]


def test_scfoundation_has_19264_genes(blood):
    ours = encodings.scfoundation(blood)
    assert len(ours.genes) == 19_266 and ours.genes[0] == "A1BG" and ours.matched_counts > 0.85


# ---------------------------------------------------------------- UCE, TxFM


def test_uce_lines_genes_up_along_the_genome(adata):
    ours = encodings.uce(adata, POSITIONS, n_sampled=100)
    opened = []
    for i in range(30):
        tokens = ours[i].tolist()
        assert tokens[0] == "<cls>"
        text = " ".join(tokens[1:])
        drawn = [t for t in tokens if t[0] == "G"]
        assert len(drawn) == 100 and adata[i, drawn].X.min() > 0
        blocks = [b.split() for b in text.split("<end>")[:-1]]  # "<chr 1>" is two words
        assert text.endswith("<end>")
        for block in blocks:
            chromosome = block[1].rstrip(">")
            assert block[0] == "<chr" and set(POSITIONS.chromosome[block[2:]]) == {chromosome}
            assert POSITIONS.start[block[2:]].is_monotonic_increasing
        names = [b[1] for b in blocks]
        assert len(set(names)) == len(names)
        opened.append(names[0])
    assert len(set(opened)) == 3  # chromosomes come in random order
    hidden = [1 - len(set(ours[i]) & set(SYMBOLS)) / adata.X[i].nnz for i in range(30)]
    assert ours.truncated == pytest.approx(np.average(hidden, weights=adata.X.getnnz(axis=1)))


def test_uces_chances_grow_with_the_logarithm():
    ours = encodings.uce(as_adata([[1, 3, 0, 60]]), POSITIONS, n_sampled=200_000)
    share = pd.Series(ours[0]).value_counts()[["G00", "G01", "G03"]] / 200_000
    weight = np.log1p([1, 3, 60])
    np.testing.assert_allclose(share, weight / weight.sum(), atol=0.005)


def test_uce_finds_bands_of_real_genes(blood):
    ours = encodings.uce(blood[:20].copy())
    assert 0.5 < ours.matched < 0.8 and ours.matched_counts > 0.85
    at = {gene: i for i, gene in enumerate(ours.genes)}
    assert at["TP53"] < at["BRCA1"] < at["GRB2"]  # 17p13, 17q21, 17q25
    chromosomes = {t for i in range(20) for t in ours[i] if t.startswith("<chr")}
    assert {"<chr 1>", "<chr 22>", "<chr X>"} <= chromosomes
    with pytest.raises(ValueError, match="positions lacks start: it has"):
        encodings.uce(blood, POSITIONS[["chromosome"]])


def test_txfm_shows_zeros_of_measured_genes(adata):
    ours = encodings.txfm(adata, [*SYMBOLS[:50], "unmeasured"])
    tokens, values, shown = ours.padded()
    x = adata.X.toarray()
    x = np.log1p(1e5 * x / x.sum(axis=1, keepdims=True))[:, :50]
    np.testing.assert_allclose(values, x, rtol=1e-5)
    assert shown.shape == (30, 50) and (tokens == np.arange(50)).all() and ours.seed is None
    some = encodings.txfm(adata, SYMBOLS, 20, seed=3)
    tokens, values, _ = some.padded()
    assert (tokens == some.everywhere).all() and len(set(some.everywhere)) == 20 and some.seed == 3
    np.testing.assert_allclose(values[:, some.everywhere < 50], x[:, some.everywhere[some.everywhere < 50]])
    inside = adata.X[:, some.everywhere].nnz
    assert some.truncated == pytest.approx(1 - inside / adata.X.nnz)


def test_txfms_values_are_what_the_model_sees(adata):
    torch = pytest.importorskip("torch")
    from txfm_lite.txfm import log_normalise

    dense = torch.from_numpy(adata.X.toarray())
    expected = log_normalise(dense, dense.sum(dim=1)).numpy()
    np.testing.assert_allclose(encodings.txfm(adata).padded()[1], expected, rtol=1e-5)


# ---------------------------------------------------------------- the way back


def test_counts_come_back_from_what_was_kept(adata):
    x = adata.X.toarray()
    total = x.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        encodings.decode(encodings.scfoundation(adata, SYMBOLS)).toarray(), x, rtol=1e-4
    )
    one = encodings.decode(encodings.scfoundation(as_adata([[1, 0]]), SYMBOLS[:2]))
    np.testing.assert_allclose(one.toarray(), [[1, 0]], rtol=1e-5)
    np.testing.assert_allclose(encodings.decode(encodings.txfm(adata)).toarray(), x / total, rtol=1e-4)
    lower = encodings.decode(encodings.scbert(adata)).toarray()
    cp10k = 1e4 * x / total
    assert (lower <= cp10k).all() and (cp10k[lower < 31] < 2 * lower[lower < 31] + 1).all()
    with pytest.raises(ValueError, match="scGPT keeps no values"):
        encodings.decode(ENCODERS["scgpt"](adata))


# ---------------------------------------------------------------- all encodings


@each
def test_rows_stay_with_their_cells(name, adata, monkeypatch):
    monkeypatch.setattr("txfm_lite.align.ROWS", 7)
    ours, order = ENCODERS[name](adata), np.random.default_rng(1).permutation(30)
    assert ours.cells.tolist() == adata.obs_names.tolist() and len(ours) == 30
    expected = rows(ours)
    assert rows(ENCODERS[name](adata[order].copy())) == [expected[i] for i in order]
    for i in (0, 13):
        assert rows(ENCODERS[name](adata[[i]].copy())) == [expected[i]]  # nor with the others


@each
def test_the_order_of_the_columns_is_not_felt(name, adata):
    shuffled = adata[:, np.random.default_rng(2).permutation(N_GENES)].copy()
    assert rows(ENCODERS[name](shuffled)) == rows(ENCODERS[name](adata))


@each
def test_the_way_of_storing_is_not_felt(name, adata):
    expected, dense = rows(ENCODERS[name](adata)), adata.X.toarray()
    columns, ends = np.tile(np.arange(N_GENES), 30), np.arange(0, dense.size + 1, N_GENES)
    zeros = sp.csr_matrix((dense.ravel(), columns, ends), shape=dense.shape)
    halves = sp.csr_matrix(  # every count in two entries
        (np.repeat(dense.ravel() / 2, 2), np.repeat(columns, 2), 2 * ends), shape=dense.shape
    )
    halves.data[::2], halves.data[1::2] = np.floor(halves.data[::2]), np.ceil(halves.data[1::2])
    for x in (dense, zeros, halves, sp.csc_matrix(dense), dense.astype(np.int64)):
        stored = anndata.AnnData(x, adata.obs, adata.var)
        assert rows(ENCODERS[name](stored)) == expected
    assert zeros.nnz == dense.size and halves.nnz == 2 * dense.size  # as given


@pytest.mark.parametrize("name", [n for n in ENCODERS if n not in ("genept-w", "txfm")])
def test_a_gene_without_counts_changes_nothing(name, adata):
    """GenePT-w divides by the number of genes, and TxFM draws among them."""
    wider = as_adata(np.c_[np.zeros(30), adata.X.toarray()], ["A", *SYMBOLS], ["ENSG9", *ENSEMBL])
    assert rows(ENCODERS[name](wider)) == rows(ENCODERS[name](adata))


@each
def test_the_same_seed_gives_the_same(name, adata):
    assert rows(ENCODERS[name](adata)) == rows(ENCODERS[name](adata))
    if name in RANDOM:
        assert ENCODERS[name](adata).seed == 0
        assert rows(ENCODERS[name](adata, seed=1)) != rows(ENCODERS[name](adata))
    else:
        assert ENCODERS[name](adata).seed is None
    assert ENCODERS[name](adata).ties


@each
def test_scaling_genes_changes_all(name, adata):
    scaled = adata.copy()
    scaled.X = adata.X @ sp.diags(1.0 + np.arange(N_GENES) % 7)
    assert rows(ENCODERS[name](scaled)) != rows(ENCODERS[name](adata))


@each
def test_which_encodings_are_ranks_within_the_cell(name, adata):
    """The cells' counts, mapped by an increasing function: pure orders and quantile bins are as before."""
    bent = adata.copy()
    bent.X = adata.X.multiply(adata.X).tocsr()
    before, after = (rows(ENCODERS[name](a)) for a in (adata, bent))
    same = [a[1:] == b[1:] for a, b in zip(before, after, strict=True)]
    if name.startswith("cell2sentence"):  # the order; its values belong to the inverse
        np.testing.assert_array_equal(ENCODERS[name](bent).tokens, ENCODERS[name](adata).tokens)
    elif name in ("genept-s", "scgpt"):
        assert all(same)
    else:  # Geneformer's corpus prior, absolute bins and values, GenePT-w, UCE's chances
        assert np.mean(same) < 0.5


@each
def test_what_scaling_a_cell_leaves(name, adata):
    """All counts of a cell three times: only a token of depth, and chances by log(1 + count), notice."""
    deeper = adata.copy()
    deeper.X = adata.X * 3
    a, b = ENCODERS[name](adata), ENCODERS[name](deeper)
    if name == "uce":
        assert rows(a) != rows(b)
    elif name == "scfoundation":
        depth = a.genes[a.tokens] == "<S>"
        np.testing.assert_allclose(b.values[depth] - a.values[depth], np.log10(3), rtol=1e-5)
        np.testing.assert_allclose(b.values[~depth], a.values[~depth], rtol=1e-6)
    else:
        np.testing.assert_array_equal(a.tokens, b.tokens)
        for x, y in ((a.values, b.values), (a.vectors, b.vectors)):
            assert x is None or np.allclose(x, y, rtol=1e-5)


@each
def test_bad_input_is_refused(name, adata):
    logged = adata.copy()
    logged.X = adata.X.log1p()
    logged.layers["counts"] = adata.X
    with pytest.raises(ValueError, match="X looks log-transformed.*layer='counts'"):
        ENCODERS[name](logged)
    assert rows(ENCODERS[name](logged, layer="counts")) == rows(ENCODERS[name](adata))
    for change, message in ((-1, "negative values"), (0.5, "not whole numbers"), (np.nan, "missing")):
        bad = adata.copy()
        bad.X.data[3] = change
        with pytest.raises(ValueError, match=message):
            ENCODERS[name](bad)
    empty = adata.copy()
    empty.X = sp.diags((np.arange(30) != 4).astype(np.float32)) @ adata.X
    with pytest.raises(ValueError, match="have no counts.*'cell4'.*filter_cells"):
        ENCODERS[name](empty)


def test_a_cell_without_a_gene_that_the_model_knows(adata, caplog):
    counts = adata.X.toarray()
    counts[4, :58], counts[4, 59] = 0, 3
    adata.X = sp.csr_matrix(counts)
    some = SYMBOLS[:58]
    found = {
        "Geneformer": (ENCODERS["geneformer"](adata), []),
        "cell2sentence": (encodings.cell2sentence(adata, genes=some), []),
        "GenePT-w": (encodings.genept(adata, VECTORS[:58]), []),
        "scGPT": (encodings.scgpt(adata, some), ["<cls>"]),
        "scBERT": (encodings.scbert(adata, some), []),
        "scFoundation": (encodings.scfoundation(adata, some), ["<T>", "<S>"]),
        "UCE": (encodings.uce(adata, POSITIONS[:58]), ["<cls>"]),
        "TxFM": (encodings.txfm(adata, some), []),
    }
    for name, (encoding, tokens) in found.items():
        assert encoding.model == name and encoding[4].tolist() == tokens and len(encoding[5]) > len(tokens)
        assert f"1 cells have no gene that {name} knows, for example 'cell4'" in caplog.text
    assert found["cell2sentence"][0].sentences()[4] == "" and not found["GenePT-w"][0].vectors[4].any()
    assert not found["scBERT"][0].padded()[1][4].any() and not found["TxFM"][0].padded()[1][4].any()


def test_a_vocabulary_with_a_gene_twice(adata):
    with pytest.raises(ValueError, match="the vocabulary lists 'G03' more than once"):
        encodings.uce(adata, pd.concat([POSITIONS, POSITIONS.iloc[3:5]]))


def test_a_dataset_that_was_hardly_understood(adata, caplog):
    encodings.scgpt(adata, SYMBOLS[40:43])
    assert "scGPT knows only" in caplog.text


def test_padded_rows(adata):
    ours = ENCODERS["geneformer"](adata)
    tokens, values, shown = ours.padded()
    lengths = np.diff(ours.indptr)
    assert values is None and tokens.shape == shown.shape == (30, lengths.max())
    np.testing.assert_array_equal(shown.sum(axis=1), lengths)
    np.testing.assert_array_equal(tokens[shown], ours.tokens)
    assert (tokens[~shown] == 0).all() and (ours.padded(pad=9)[0][~shown] == 9).all()
    ours = ENCODERS["scgpt"](adata)
    tokens, values, shown = ours.padded()
    np.testing.assert_array_equal(values[shown], ours.values)
    assert (values[:, 0] == -2).all()


def test_encoding_in_blocks_on_a_device_is_the_same(adata, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("txfm_lite.encodings_arrays.DEVICE_ROWS", 4)
    assert rows(ENCODERS["geneformer"](adata, device="cpu")) == rows(ENCODERS["geneformer"](adata))


def test_encodings_cost_nothing_until_used():
    code = (
        "import sys, txfm_lite.encodings; print({'torch', 'pandas', 'scipy', 'anndata'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
