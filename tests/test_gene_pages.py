"""Gene pages: the numbers against dense formulas, the files against the numbers."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from txfm_lite import gene_pages, gene_shards
from txfm_lite.genes import Resolver
from txfm_lite.genesets import GeneSets

GENES = np.array([f"G{i:02d}" for i in range(90)])


def library(sizes=(5, 8, 12, 20, 31, 9, 10, 14), seed=0):
    rng = np.random.default_rng(seed)
    lists = [rng.choice(GENES, n, replace=False) for n in sizes]
    return GeneSets.from_lists(lists, [f"term {i}" for i in range(len(sizes))], "own").over(GENES)


class Completer:
    """A linear model; remembers what it was given."""

    def __init__(self, offset=-1.0):
        self.weights = np.random.default_rng(1).normal(size=(len(GENES), len(GENES))).astype(np.float32)
        self.offset, self.given = offset, []

    def __call__(self, sets):
        self.given += [sets.indices[a:b] for a, b in zip(sets.indptr, sets.indptr[1:], strict=False)]
        x = sets.csr().toarray()
        return (x @ self.weights / np.sqrt(x.sum(1, keepdims=True)) + self.offset).astype(np.float32)


def dense(complete, sets):
    """All logits, z, members, kept."""
    logits = complete(sets).astype(np.float64)
    z = (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)
    return logits, z, sets.csr().toarray() > 0, (logits > 0) | (z > 1.645)


@pytest.mark.parametrize("block", [12, 512])
def test_new_terms_are_those_of_the_dense_formula(monkeypatch, block):
    monkeypatch.setattr(gene_pages, "BLOCK", block)
    complete, sets = Completer(), library()
    found = gene_pages.predict(complete, sets, new=3)
    logits, z, member, kept = dense(complete, sets)
    expected = []
    for gene in range(len(GENES)):
        terms = np.flatnonzero(kept[:, gene] & ~member[:, gene])
        for term in terms[np.argsort(-logits[terms, gene])][:3]:
            rank = rankdata(-logits[term, ~member[term]])[np.flatnonzero(~member[term]) == gene][0]
            expected.append((gene, term, logits[term, gene], z[term, gene], rank))
    rows = found.rows[~found.rows["known"]]
    np.testing.assert_array_equal(rows[["gene", "term", "rank"]], [(g, t, r) for g, t, _, _, r in expected])
    np.testing.assert_allclose(rows[["logit", "z"]], [e[2:4] for e in expected], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.totals[:, 0], member.sum(0))
    np.testing.assert_array_equal(found.totals[:, 1], (kept & ~member).sum(0))
    np.testing.assert_array_equal(found.terms["predicted"], kept.sum(1))


def test_a_negative_logit_is_kept_for_its_z_alone():
    found = gene_pages.predict(Completer(offset=-1000.0), library())
    rows = found.rows[~found.rows["known"]]
    assert len(rows) and (rows["logit"] < 0).all() and (rows["z"] > 1.645).all()


def test_uniqueness_counts_the_genes_that_a_term_is_among_the_best_of(monkeypatch):
    monkeypatch.setattr(gene_pages, "UNIQUE", 2)
    complete, sets = Completer(), library()
    found = gene_pages.predict(complete, sets)
    logits, _, _, kept = dense(complete, sets)
    best = np.zeros_like(kept)
    for gene in range(len(GENES)):
        terms = np.flatnonzero(kept[:, gene])
        best[terms[np.argsort(-logits[terms, gene])][:2], gene] = True
    np.testing.assert_allclose(found.terms["uniqueness"], best.sum(1) / kept.sum(1))


def test_known_terms_are_scored_by_leaving_the_gene_out():
    complete, sets = Completer(), library()
    rows = gene_pages.predict(complete, sets, known=99).rows
    rows = rows[rows["known"]].set_index(["term", "gene"])
    assert len(rows) == sets.sizes.sum()
    for term in (0, 2, 3):  # all of at most PASSES genes
        members = sets.indices[sets.indptr[term] : sets.indptr[term + 1]]
        for gene in members:
            others = GeneSets.from_lists([GENES[members[members != gene]]]).over(GENES)
            logits, z, given, _ = dense(complete, others)
            assert rows.loc[(term, gene), "logit"] == pytest.approx(logits[0, gene], rel=1e-4, abs=1e-5)
            assert rows.loc[(term, gene), "z"] == pytest.approx(z[0, gene], rel=1e-4, abs=1e-5)
            above = logits[0, ~given[0]] > logits[0, gene]
            assert rows.loc[(term, gene), "rank"] == above.sum() + 1


def test_in_large_terms_members_are_hidden_some_at_a_time(monkeypatch):
    monkeypatch.setattr(gene_pages, "PASSES", 4)
    sets = library((5, 31))
    given = []

    def remember(x):  # what is given gets 9, the rest 0
        given.extend(np.diff(x.indptr))
        return 9 * x.csr().toarray()

    rows = gene_pages._known(remember, sets, np.random.default_rng(0))
    assert (rows["logit"] == 0).all() and (rows["rank"] == 1).all()
    assert len(rows) == 36 and not rows.duplicated(["gene", "term"]).any()
    assert len(given) == 8 and set(given[4:]) == {23, 24}  # of 31


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_that_of_scikit_learn(ties):
    complete, sets = Completer(), library()
    scores = (lambda x: np.rint(complete(x))) if ties else complete
    found, _ = gene_pages._halves(scores, sets, 42)
    universe, given, expected = np.unique(sets.indices), list(complete.given), []
    for term in np.flatnonzero(sets.sizes >= 10):
        members, values = set(sets.indices[sets.indptr[term] : sets.indptr[term + 1]]), []
        for _ in range(5):
            visible = given.pop(0)
            assert len(visible) == len(members) // 2 and set(visible) <= members
            candidates = np.setdiff1d(universe, visible)
            one = GeneSets.from_lists([GENES[visible]]).over(GENES)
            values.append(roc_auc_score([g in members for g in candidates], scores(one)[0, candidates]))
        expected.append(np.median(values))
    assert not given
    np.testing.assert_allclose(found[sets.sizes >= 10], expected, rtol=1e-6)
    assert np.isnan(found[sets.sizes < 10]).all() and (sets.sizes < 10).sum() == 3


def test_probabilities_are_the_shares_of_true_members():
    """A completer that knows each set's other half, but for noise: its log odds are known."""
    rng, sets = np.random.default_rng(0), library((40,) * 40)
    universe, truth = np.unique(sets.indices), sets.csr().toarray()

    def complete(x):  # 2 for members, 0 for others, and noise of variance 1: odds rise by e^2 per unit
        term = np.argmax(x.csr() @ truth.T, axis=1)
        return 2 * truth[term] + rng.normal(size=(len(x), truth.shape[1]))

    _, (slope, start) = gene_pages._halves(complete, sets, 1)
    prior = np.log(20 / (len(universe) - 40))
    assert slope == pytest.approx(2, abs=0.15) and start == pytest.approx(prior - 2, abs=0.15)
    _, (slope, start) = gene_pages._halves(lambda x: -complete(x), sets, 1)
    assert slope == 0 and start == pytest.approx(prior, abs=0.02)


def test_parts_of_sets_keep_names_and_genes():
    sets = library((6, 8))
    found = sets.parts([1, 1, 0], [sets.indices[6:9], sets.indices[:0], sets.indices[:2]])
    assert found.names.tolist() == sets.names[[1, 1, 0]].tolist() and found.sizes.tolist() == [3, 0, 2]
    assert found.members(0).tolist() == sets.members(1)[:3].tolist()
    assert found.members(2).tolist() == sets.members(0)[:2].tolist()


@pytest.mark.parametrize("sizes", [(6, 8), (20,)])
def test_where_nothing_can_be_calibrated_the_probability_is_the_models_own(sizes):
    assert gene_pages.predict(Completer(), library(sizes)).curve == (1, 0)


def test_terms_of_fewer_than_five_genes_are_left_out():
    found = gene_pages.predict(Completer(), library((4, 5, 3)))
    assert found.terms["size"].tolist() == [5]
    with pytest.raises(ValueError, match="same symbols"):
        gene_pages.predict(Completer(), library((4, 3)))


def test_neighbours_are_the_nearest_by_cosine(monkeypatch):
    monkeypatch.setattr(gene_pages, "BLOCK", 7)
    x = np.random.default_rng(0).normal(size=(40, 6))
    x[3] = 0
    frame = pd.DataFrame(x, index=[f"G{i:02d}" for i in range(20, 60)])
    found = gene_pages.neighbours(frame, GENES, 5)
    assert set(found) == set(frame.index)
    with np.errstate(invalid="ignore"):
        cosine = np.nan_to_num(np.corrcoef(np.hstack([x, -x])))  # centred rows: the correlation is the cosine
    for i, gene in enumerate(frame.index):
        order = [j for j in np.argsort(-cosine[i], kind="stable") if j != i][:5]
        np.testing.assert_allclose(found[gene][1], cosine[i, order], atol=1e-5)
        if i != 3:
            assert found[gene][0].tolist() == [frame.index[j] for j in order]


# ---------------------------------------------------------------- files

TABLE = pd.DataFrame(
    [
        ("1", "G00", "OLD1|p-zero|Both", "ENSG00000000001", "gene nought"),
        ("2", "G01", "Both|G02", "", "gene one"),
        ("3", "ELSEWHERE", "Shared|Alone", "", "a gene that the model lacks"),
        ("4", "G05", "Shared", "", "gene five"),
    ],
    columns=["entrez", "symbol", "synonyms", "ensembl", "description"],
)
SOURCES = {"Own": {"licence": "none", "link": "https://example.org/{}", "id": r"\d+"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "gene_pages"
    vectors = {"Ours": pd.DataFrame(np.random.default_rng(3).normal(size=(91, 4)), [*GENES, "NOPAGE"])}
    gene_pages.build(
        Completer(), GENES, {"Own": library(), "Other": library(seed=5)}, folder, gene_vectors=vectors,
        resolver=Resolver(TABLE, [("NEWER", "ENSG00000000001")]), sources=SOURCES, model="linear",
    )  # fmt: skip
    return folder


def data(path):
    name, text = re.fullmatch(r'geneExplorer\.file\("([\w-]+)",(.*)\);\n', path.read_text()).groups()
    assert name == path.stem
    return json.loads(text)


def test_the_files_hold_the_numbers(made):
    for k, (title, sets) in enumerate({"Own": library(), "Other": library(seed=5)}.items()):
        found = gene_pages.predict(Completer(), sets)
        for i in (0, 44, 89):
            page = gene_shards.read(made, GENES[i])
            page = page[page["library"] == title].sort_values("logit").reset_index()
            rows = found.rows[found.rows["gene"] == i].sort_values("logit").reset_index()
            terms = found.terms.iloc[rows["term"]].reset_index()
            pd.testing.assert_frame_equal(page[["known", "rank"]], rows[["known", "rank"]], check_dtype=False)
            assert page["term"].tolist() == terms["term"].tolist()
            np.testing.assert_allclose(page[["logit", "z"]], rows[["logit", "z"]], atol=0.0051)
            slope, start = found.curve
            expected = 1 / (1 + np.exp(-(slope * rows["logit"] + start)))
            np.testing.assert_allclose(page["probability"], expected, atol=0.0015)
            same = ["auroc", "uniqueness"]
            np.testing.assert_allclose(page[same], terms[same], atol=0.00051)
            shard = data(
                made / f"shard-{gene_shards.hashed(GENES[i]) % data(made / 'manifest.js')['shards']}.js"
            )
            assert shard["rows"][shard["symbols"].index(GENES[i])][k][:2] == found.totals[i].tolist()
    with pytest.raises(KeyError, match="has no page"):
        gene_shards.read(made, "G99")


def test_the_manifest_says_what_was_used(made):
    facts = gene_shards.manifest(made)
    assert facts["model"] == "linear" and facts["seed"] == 42 and facts["genes"] == 90
    assert (
        facts["libraries"][0].items() >= {"title": "Own", "terms": 8, "scored": 5, **SOURCES["Own"]}.items()
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["made"])
    assert gene_shards.manifest(made / "nowhere") == {}


def test_the_hash_is_fnv_1a():
    assert [gene_shards.hashed(x) for x in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


def test_names_lead_to_genes_and_say_who_has_no_page(made):
    names = data(made / "names-0.js")
    assert names["symbols"] == GENES.tolist()
    aliases = dict(zip(names["aliases"][::2], names["aliases"][1::2], strict=True))
    assert aliases == {
        "OLD1": "G00", "p-zero": "G00", "NEWER": "G00", "Both": ["G00", "G01"], "G02": "G01",
        "Shared": ["!ELSEWHERE", "G05"],
    }  # fmt: skip
    shard = next(s for s in map(data, made.glob("shard-*.js")) if "G00" in s["symbols"])
    assert shard["facts"][shard["symbols"].index("G00")] == ["1", "ENSG00000000001", "gene nought"]
    near = [gene for s in map(data, made.glob("shard-*.js")) for ((genes, _),) in s["near"] for gene in genes]
    assert "!NOPAGE" in near and "NOPAGE" not in near and set(near) <= {*GENES, "!NOPAGE"}


def test_names_are_cut_into_files_in_order(monkeypatch):
    monkeypatch.setattr(gene_shards, "NAMES", 300)
    parts = list(gene_shards._by_alphabet(GENES, {"g50": ["G01"], "zz": ["G03", "G04"]}))
    assert len(parts) > 3
    assert [name for _, part in parts for name in part["symbols"]] == GENES.tolist()
    starts = [first for first, _ in parts]
    assert starts == sorted(starts)
    for i, (first, part) in enumerate(parts):
        names = [name.upper() for name in part["symbols"] + part["aliases"][::2]]
        assert min(names) == first and (i + 1 == len(parts) or max(names) < starts[i + 1])
        assert len(gene_shards._json(part)) <= 300
    (home,) = [part for _, part in parts if "G50" in part["symbols"]]
    assert "g50" in home["aliases"]  # names that differ in case alone stay together


def test_no_gene_costs_more_than_the_budget(monkeypatch, tmp_path):
    monkeypatch.setattr(gene_shards, "SHARD", 1500)
    gene_pages.build(Completer(), GENES, {"Own": library()}, tmp_path / "pages")
    shards = list((tmp_path / "pages").glob("shard-*.js"))
    assert max(path.stat().st_size for path in shards) <= 1500
    assert len(shards) == gene_shards.manifest(tmp_path / "pages")["shards"] > 3
    assert sorted(gene for path in shards for gene in data(path)["symbols"]) == GENES.tolist()
    monkeypatch.setattr(gene_shards, "SHARD", 300)
    with pytest.raises(ValueError, match="keep fewer rows"):
        gene_pages.build(Completer(), GENES, {"Own": library()}, tmp_path / "pages")
    assert gene_shards.read(tmp_path / "pages", "G07") is not None  # what was there is still whole
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]


def test_the_same_seed_gives_the_same_files(made, tmp_path):
    for name in ("a", "b"):
        gene_pages.build(Completer(), GENES, {"Own": library()}, tmp_path / name, seed=3)
    gene_pages.build(Completer(), GENES, {"Own": library()}, tmp_path / "c", seed=4)
    texts = [[p.read_text() for p in sorted((tmp_path / name).iterdir())] for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
