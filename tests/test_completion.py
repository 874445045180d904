"""Completion of sets: rules on matrices made by hand, members left out one by one, names as users type."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import zscore

from txfm_lite import calibration, cli, completion
from txfm_lite.calibration import calibrate
from txfm_lite.completion import complete, complete_genes, gene_vectors, leave_one_out
from txfm_lite.evaluate import set_splits
from txfm_lite.genes import Resolver
from txfm_lite.genesets import GeneSets
from txfm_lite.gsfm import GSFM, GSFMConfig
from txfm_lite.gsfm_blocks import SPECIALS, Bags

GENES = ["TP53", "MDM2", "KMT2A", "CDKN1A", "NEAT1", "MALAT1", "XIST", *(f"G{i}" for i in range(40))]
G = len(GENES)


def model(seed: int = 0, **fields) -> GSFM:
    torch.manual_seed(seed)
    made = GSFM(GSFMConfig(G + 2, **{"d_model": 16, "dropout": 0.3, **fields}), [*SPECIALS, *GENES]).eval()
    for p in made.parameters():
        p.data *= 3  # untrained models say nearly the same of all
    return made


@pytest.fixture
def sets() -> GeneSets:
    rng = np.random.default_rng(0)
    lists = [rng.choice(GENES, n, replace=False).tolist() for n in (1, 5, 9, 20, 12)]
    return GeneSets.from_lists([*lists, ["MDM2", "nobody", "TP53", "else"]])


def one_by_one(net: GSFM, names: list[str]) -> np.ndarray:
    """Logits of one set, from the model itself."""
    tokens = sorted({net.genes.index(n) if n in net.genes else 0 for n in names})
    with torch.no_grad():
        return net(torch.tensor(tokens, dtype=torch.long), torch.tensor([0]))[0, 2:].numpy()


@pytest.mark.parametrize("kind", ["DAE", "EPDAE", "mEDAE"])
def test_complete_and_leave_one_out_against_one_call_each(sets, kind, monkeypatch):
    net = model(architecture=kind)
    found = complete(net, sets, batch_size=4)
    assert found.shape == (6, G) and found.dtype == np.float32
    for most in (10, completion.AT_ONCE):  # set by set, and all at once
        monkeypatch.setattr(completion, "AT_ONCE", most)
        alone = np.split(leave_one_out(net, sets), sets.indptr[1:-1])
        for i, mine in enumerate(alone):
            members = sets.members(i).tolist()
            np.testing.assert_allclose(found[i], one_by_one(net, members), atol=1e-5)
            for gene, value in zip(members, mine, strict=True):
                rest = [g for g in members if g != gene]
                if gene in GENES:
                    assert value == pytest.approx(one_by_one(net, rest)[GENES.index(gene)], abs=1e-5)
                else:
                    assert np.isnan(value)


def test_leave_one_out_keeps_to_its_genes_with_two_channels(sets):
    weights = np.random.default_rng(1).normal(size=len(sets.indices)).astype(np.float32)
    signed = dataclasses.replace(sets, weights=weights)
    net = model(channels=2)
    alone = leave_one_out(net, signed)
    rows = np.repeat(np.arange(len(sets)), sets.sizes)
    for at in range(len(alone)):
        i, gene = rows[at], sets.genes[sets.indices[at]]
        if gene in GENES:
            keep = np.flatnonzero((rows == i) & (np.arange(len(rows)) != at))
            rest = dataclasses.replace(
                signed[i : i + 1], indptr=np.array([0, len(keep)]), indices=sets.indices[keep],
                weights=weights[keep],
            )  # fmt: skip
            assert alone[at] == pytest.approx(complete(net, rest)[0, GENES.index(gene)], abs=1e-5)


def test_vectors_of_genes_and_sets(sets):
    net = model()
    emb, enc = gene_vectors(net), gene_vectors(net, "enc", batch_size=7)
    assert emb.index.tolist() == GENES and emb.shape == enc.shape == (G, 16)
    alone = GeneSets.from_lists([[g] for g in GENES])
    np.testing.assert_allclose(completion.set_vectors(net, alone, 5), emb, atol=1e-6)
    reading = []
    hook = net.decoder.layers[1].register_forward_hook(lambda _, x, __: reading.append(x[0].detach().clone()))
    complete(net, alone)
    hook.remove()
    np.testing.assert_allclose(enc, reading[0], atol=1e-6)  # what ReLU is given
    with pytest.raises(ValueError, match="emb or enc"):
        gene_vectors(net, "dec")
    with pytest.raises(ValueError, match="no vocabulary"):
        gene_vectors(GSFM(net.config))


def test_the_rule_on_a_matrix_made_by_hand():
    """Logit above 0, or more than 1.645 standard deviations above the mean of its own set."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-6, 1, size=(3, 1000)).astype(np.float32)
    logits[1] = -np.abs(logits[1]) * 0 - 4  # all alike: nothing stands out
    logits[2, :3] = [0.1, 0.0, -2]
    np.testing.assert_allclose(completion.z_scores(logits)[[0, 2]], zscore(logits[[0, 2]], axis=1), atol=1e-4)
    found = completion.predicted(logits)
    assert 30 < found[0].sum() < 70 and not found[1].any() and found[2, :3].all()
    assert np.array_equal(found[0], zscore(logits[0]) > 1.645)
    positive = np.linspace(0.01, 5, 50)[None]  # all above 0, most of them below the mean + 1.645 sd
    assert completion.predicted(positive).all() and not completion.predicted(positive - 9)[0, :25].any()
    edge = np.array([[-1.0, 0.0, 0.0, 0.0]])  # 0 is not above 0
    assert not completion.predicted(edge).any()


def test_spread_of_dropout(sets):
    net = model()
    mean, sd = completion.mc_dropout(net, sets, n_draws=40, seed=1)
    again = completion.mc_dropout(net, sets, n_draws=40, seed=1)
    assert np.array_equal(mean, again[0]) and np.array_equal(sd, again[1])
    assert not np.array_equal(mean, completion.mc_dropout(net, sets, n_draws=40, seed=2)[0])
    assert not any(m.training for m in net.modules()) and (sd > 0).all()
    net.train()
    torch.manual_seed(1)
    draws = np.stack([complete(net, sets) for _ in range(40)])
    np.testing.assert_allclose(mean, draws.mean(0), atol=1e-4)
    np.testing.assert_allclose(sd, draws.std(0, ddof=1), atol=1e-4)
    assert not completion.mc_dropout(model(dropout=0.0), sets, n_draws=3)[1].any()


def test_spread_over_hidden_parts(sets, monkeypatch):
    net, given = model(dropout=0.0), []

    def remember(net, some, batch_size=256):
        given.append(some)
        return complete(net, some, batch_size)

    monkeypatch.setattr(completion, "complete", remember)
    mean, sd = completion.hidden_parts(net, sets, n_draws=40, seed=1)
    draws = np.stack([complete(net, some) for some in given])
    np.testing.assert_allclose(mean, draws.mean(0), atol=1e-4)
    np.testing.assert_allclose(sd, draws.std(0, ddof=1), atol=1e-4)
    assert all(set(some.members(i)) <= set(sets.members(i)) for some in given for i in range(len(sets)))
    kept = np.stack([some.sizes for some in given])
    assert (kept[:, sets.sizes > 0] > 0).all()
    assert abs(kept.sum() / (40 * sets.sizes.sum()) - 0.8) < 0.1
    for one, expected in ((net, completion.hidden_parts), (model(), completion.mc_dropout)):
        for a, b in zip(completion.spread(one, sets, 5, 3), expected(one, sets, 5, 3), strict=True):
            assert np.array_equal(a, b)


def test_a_gene_is_annotated_by_sets_without_it(sets):
    net = model()
    found = completion.annotate(net, "TP53", sets, batch_size=4)
    assert list(found["known"]) == ["TP53" in sets.members(i) for i in range(6)]
    for i, row in found.iterrows():
        alone = one_by_one(net, [g for g in sets.members(i) if g != "TP53"])
        assert row["logit"] == pytest.approx(alone[GENES.index("TP53")], abs=1e-5)
        assert row["z"] == pytest.approx(zscore(alone)[GENES.index("TP53")], abs=1e-4)
        assert row["probability"] == pytest.approx(expit(row["logit"]))
    drawn = completion.annotate(net, "TP53", sets, n_draws=5, seed=1)
    pd.testing.assert_frame_equal(drawn[found.columns], found)
    _, sd = completion.spread(net, sets[:1], 5, 1)
    assert drawn["sd"].gt(0).all() and "TP53" not in sets.members(0)
    alone = completion.annotate(net, "TP53", sets[:1], n_draws=5, seed=1)
    assert alone["sd"][0] == pytest.approx(
        sd[0, GENES.index("TP53")] / complete(net, sets[:1]).std(), rel=1e-4
    )
    with pytest.raises(ValueError, match="'P53' is not in the model's vocabulary"):
        completion.annotate(net, "P53", sets)


def test_spread_of_an_ensemble(sets):
    models = [model(seed) for seed in range(3)]
    mean, sd = completion.ensemble(models, sets)
    each = np.stack([complete(m, sets) for m in models])
    np.testing.assert_allclose(mean, each.mean(0), atol=1e-5)
    np.testing.assert_allclose(sd, each.std(0, ddof=1), atol=1e-5)
    other = GSFM(models[0].config, [*SPECIALS, *GENES[::-1]])
    with pytest.raises(ValueError, match="same vocabulary in the same order"):
        completion.ensemble([models[0], other], sets)
    with pytest.raises(ValueError, match="two at least"):
        completion.ensemble(models[:1], sets)


TABLE = pd.DataFrame({
    "entrez": ["1", "2", "3", "4"], "symbol": ["TP53", "MDM2", "KMT2A", "ELSE"],
    "synonyms": ["P53", "HDM2|SAME", "MLL", "SAME|OTHER"], "ensembl": ["-", "-", "-", "-"],
})  # fmt: skip


def test_a_list_as_a_user_types_it(caplog):
    net, resolver = model(), Resolver(TABLE)
    names = ["TP53", " MLL ", "P53", "NEAT1", "SAME", "OTHER", "xyz"]
    with caplog.at_level("INFO", logger="txfm_lite"):
        frame = complete_genes(net, names, n=None, resolver=resolver)
    assert frame.attrs["unknown"] == ["SAME", "OTHER", "xyz"]  # of two genes; outside; nothing
    assert frame.attrs["renamed"] == {"MLL": "KMT2A", "P53": "TP53"}
    assert (
        "MLL is read as KMT2A" in caplog.text and "3 of 7 names are left out: SAME, OTHER, xyz" in caplog.text
    )
    known = ["TP53", "KMT2A", "NEAT1"]  # non-coding genes are genes
    assert sorted(frame.loc[frame["known"], "gene"]) == sorted(known)
    logits = one_by_one(net, known)
    np.testing.assert_allclose(frame.set_index("gene")["probability"][GENES], expit(logits), rtol=1e-5)
    np.testing.assert_allclose(frame.set_index("gene")["z"][GENES], zscore(logits), atol=1e-4)
    assert frame["rank"].tolist() == list(range(1, G + 1)) and frame["probability"].is_monotonic_decreasing
    unseen = frame.set_index("gene")["unseen"].dropna()
    for gene in known:
        expected = expit(one_by_one(net, [g for g in known if g != gene])[GENES.index(gene)])
        assert unseen[gene] == pytest.approx(expected, rel=1e-4)
    assert len(unseen) == 3 and "sd" not in frame
    assert len(complete_genes(net, known, n=5)) == 5
    with pytest.raises(ValueError, match="none of these is a gene that the model knows: xyz"):
        complete_genes(net, ["xyz"], resolver=resolver)


def test_a_list_with_weights_and_spreads():
    net = model()
    frame = complete_genes(net, {"TP53": 2.0, "MDM2": -1.0}, n=None)
    with torch.no_grad():
        logits = net(torch.tensor([2, 3]), torch.tensor([0]), torch.tensor([2.0, -1.0]))[0, 2:].numpy()
    np.testing.assert_allclose(frame.set_index("gene")["probability"][GENES], expit(logits), rtol=1e-5)
    drawn = complete_genes(net, ["TP53", "MDM2"], n=None, n_draws=20, seed=3)
    plain = complete_genes(net, ["TP53", "MDM2"], n=None)
    pd.testing.assert_frame_equal(drawn[plain.columns], plain)  # the spread is of draws, the numbers are not
    assert drawn["sd"].gt(0).all()
    several = complete_genes([net, model(1)], ["TP53", "MDM2"], n=3)
    assert several["sd"].gt(0).all() and len(several) == 3


def test_real_aliases(local_data):
    frame = complete_genes(model(), ["MLL", "p21", "ENSG00000141510", "NEAT1"], n=None)
    assert {"KMT2A", "TP53", "NEAT1"} <= set(frame.loc[frame["known"], "gene"])
    assert frame.attrs["renamed"]["MLL"] == "KMT2A" and frame.attrs["renamed"]["ENSG00000141510"] == "TP53"
    twice = complete_genes(model(), ["MLL", "CXXC7", "TP53"], n=None)  # two former names of one gene
    assert set(twice.loc[twice["known"], "gene"]) == {"KMT2A", "TP53"} and not twice.attrs["unknown"]


def test_an_empty_set_and_no_sets():
    net = model()
    nothing = GeneSets.from_lists([[], ["TP53"]])
    with torch.no_grad():
        expected = net(torch.tensor([], dtype=torch.long), torch.tensor([0]))[0, 2:]
    np.testing.assert_allclose(complete(net, nothing)[0], expected, atol=1e-6)
    assert complete(net, nothing[:0]).shape == (0, G)


@pytest.fixture
def library(monkeypatch) -> tuple[GeneSets, np.ndarray]:
    """Terms drawn gene by gene with known chances, and a model that knows them but for a constant."""
    rng = np.random.default_rng(0)
    chance = expit(rng.normal(-0.5, 1.5, size=(300, G)))
    member = rng.random(chance.shape) < chance
    sets = GeneSets.from_lists([np.array(GENES)[row].tolist() for row in member])
    logits = (logit(chance) - 4).astype(np.float32)
    at = {name: i for i, name in enumerate(sets.names)}
    seen = []

    def fake(_, some, batch_size=256):
        seen.append(some)
        return logits[[at[name] for name in some.names]]

    monkeypatch.setattr(calibration, "complete", fake)
    return sets, chance, logits, seen


@pytest.mark.parametrize("kept", [1, 20])  # negatives for each positive: half of them, all
@pytest.mark.parametrize("method", calibration.METHODS)
def test_calibrated_probabilities_are_the_true_ones(library, method, kept, monkeypatch):
    """Half of a term is shown: of what is not shown, p / (2 - p) are members."""
    sets, chance, logits, seen = library
    monkeypatch.setattr(calibration, "PER_POSITIVE", kept)
    made = calibrate(model(), sets, method)
    true = chance / (2 - chance)
    assert np.abs(expit(logits) - true).mean() > 0.1  # 4 too low, that is
    crossed = made(logits, np.arange(300))
    for found in (crossed, made(logits)):
        assert np.abs(found - true).mean() < 0.03 and abs((found - true).mean()) < 0.015
    assert crossed.dtype == np.float32 and crossed.shape == logits.shape
    sizes = {name: n for some in seen for name, n in zip(some.names, some.sizes, strict=True)}
    assert all(sizes[n] == k // 2 for n, k in zip(sets.names, sets.sizes, strict=True) if k >= 10)
    assert np.array_equal(calibrate(model(), sets, method)(logits), made(logits))


def test_halves_are_those_of_the_benchmark(library):
    sets = library[0]
    asked = set_splits.splits(sets, 2)
    expected = {}
    for term, row in zip(asked.term, asked.visible, strict=True):
        expected.setdefault(str(asked.terms[term]), []).append(set(asked.genes[row.indices]))
    for some in ([7, 5, 200], range(300)):
        halves = calibration.halves(lambda x: np.zeros((len(x), G)), sets, some, 2)
        for i, (term, _, visible, hidden) in enumerate(halves):
            assert set(sets.genes[visible]) == expected[sets.names[term]][i % 2]
            assert set(sets.genes[visible]) | set(sets.genes[hidden]) == set(sets.members(term))


def test_a_term_has_no_say_in_its_own_curve(library):
    sets, _, logits, _ = library
    before = calibrate(model(), sets, "isotonic")
    fold = before.fold == 0
    rng = np.random.default_rng(9)
    lists = [sets.members(i).tolist() for i in range(300)]
    for i in np.flatnonzero(fold):
        lists[i] = rng.choice(GENES, max(len(lists[i]), 10), replace=False).tolist()
    after = calibrate(model(), GeneSets.from_lists(lists), "isotonic")
    terms = np.arange(300)
    assert np.array_equal(before(logits, terms)[fold], after(logits, terms)[fold])
    assert not np.array_equal(before(logits, terms)[~fold], after(logits, terms)[~fold])


def test_calibration_refuses(library):
    with pytest.raises(ValueError, match="isotonic, platt"):
        calibrate(model(), library[0], "beta")
    with pytest.raises(ValueError, match="too few for 5 folds"):
        calibrate(model(), library[0][:3])


def test_calibration_of_a_model(sets):
    """Through the whole way, with a model that knows nothing: probabilities near the share of members."""
    rng = np.random.default_rng(0)
    library = GeneSets.from_lists([rng.choice(GENES, 12, replace=False).tolist() for _ in range(60)])
    made = calibrate(model(), library, "platt")
    found = made(complete(model(), library), np.arange(60))
    assert found.mean() == pytest.approx(6 / (G - 6), abs=0.03)


def test_command(tmp_path, capsys):
    folder = model().save_pretrained(tmp_path / "m")
    (tmp_path / "list.txt").write_text("MDM2, NEAT1\n\nXIST;nobody\n")

    def run(*arguments) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["-q", "complete", "--model", str(folder), *map(str, arguments)])
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out + printed.err

    code, printed = run("TP53", "--file", tmp_path / "list.txt", "--n", 4)
    expected = complete_genes(GSFM.from_pretrained(folder), ["TP53", "MDM2", "NEAT1", "XIST"], n=None)
    assert (
        code == 0 and [line.split()[0] for line in printed.splitlines()[1:5]] == expected["gene"][:4].tolist()
    )
    code, printed = run("TP53", "MDM2", "NEAT1", "XIST", "--output", tmp_path / "new" / "all.csv")
    assert code == 0 and f"{G} genes" in printed
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "all.csv"), expected, check_dtype=False)
    code, printed = run("TP53", "--new", "--draws", 3, "--n", 100)
    assert "TP53" not in printed and "sd" in printed.splitlines()[0] and len(printed.splitlines()) == G
    assert run()[0] == 1 and "name some genes" in run()[1]
    assert "no such folder" in run("TP53", "--model", tmp_path / "nothing")[1]


def test_bags_keep_their_rows():
    bags = Bags(torch.tensor([5, 6, 7]), torch.tensor([0, 0, 2]))  # the first set is empty
    assert bags.rows.tolist() == [1, 1, 2]
    kept = bags.where(torch.tensor([False, True, True]))
    assert kept.offsets.tolist() == [0, 0, 1] and kept.rows.tolist() == [1, 2]
