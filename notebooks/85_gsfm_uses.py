# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,cellView,-all
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a gene set model is good for
#
# A model that completes gene sets {cite:p}`clarke2026` has been put to many uses: to guess what an unknown gene does, to lengthen a list, to
# find terms for a list that is too short, to name the substrates of a kinase or the partners of a protein. This chapter tries each of them on
# your genes or ours, and asks of each the same question: how much of the answer would be there without the model?
#
# :::{admonition} At a glance
# - **You will** annotate a gene, complete a list of your own, test a list for terms with and without a model's help and see what that help does
#   to p-values, look for kinase substrates and protein partners, and put expression-trained and set-trained gene vectors side by side.
# - **You need** [what the weights know about genes](60_genes.ipynb), and [the notation](../book/notation.md).
# - **It takes** `smoke` about half a minute on simulated sets; `book` 2 to 4 minutes on 2 CPU cores, the less the more is stored; `full` half an
#   hour, estimated.
# :::

# %% tags=["setup", "hide-cell"] cellView="form"
# @title Setup: installs the package where it is missing (Colab)
try:
    import txfm_lite
except ImportError:
    import subprocess
    import sys
    from importlib import metadata
    from pathlib import Path

    # What is here stays as it is: another numpy or torch would break the kernel.
    kept = [
        "numpy",
        "scipy",
        "pandas",
        "scikit-learn",
        "matplotlib",
        "h5py",
        "torch",
    ]
    found = {
        d.metadata["Name"].lower(): d.version for d in metadata.distributions()
    }
    pins = [f"{name}=={found[name]}\n" for name in kept if name in found]
    Path("kept.txt").write_text("".join(pins))
    pip = [sys.executable, "-m", "pip", "install", "-q", "-c", "kept.txt"]
    address = "git+https://github.com/txfm-lite/txfm-lite"
    subprocess.run([*pip, f"txfm-lite[evaluate] @ {address}"], check=True)
    import txfm_lite
txfm_lite.__version__

# %% tags=["parameters"] cellView="form"
# @title Parameters: None means "what the profile says"
profile: str = "book"  # @param ["smoke", "book", "full"]
data: str = None  # @param {type:"raw"}
seed: int = 0  # @param {type:"integer"}
model: str = "gsfm-xs"  # @param {type:"string"}   or a folder
gene: str = ""  # @param {type:"string"}   to annotate
genes: str = ""  # @param {type:"string"}   your list, separated by commas
gmt: str = ""  # @param {type:"string"}   or a file with your lists
n_lists: int = None  # @param {type:"raw"}   random lists of each size
n_draws: int = None  # @param {type:"raw"}   lists that a p-value is counted with
most_pairs: int = None  # @param {type:"raw"}

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from txfm_lite import (
    completion,
    datasets,
    enrichment,
    genesets,
    gsfm,
    gsfm_training,
    ledger,
    notebook,
    plots,
    results,
    set_rivals,
    studies,
)
from txfm_lite.embed import gene_vectors
from txfm_lite.evaluate import (
    augmentation,
    complements,
    interactions,
    set_splits,
    signatures,
)
from txfm_lite.evaluate import genes as relations
from txfm_lite.evaluate import genesets as benchmark

cfg = notebook.resolve(
    globals(),
    valid={
        "data": ["real", "simulated"],
        "seed": (0, 2**31),
        "model": str,
        "gene": str,
        "genes": str,
        "gmt": str,
        "n_lists": (2, 1000),
        "n_draws": (20, 10**6),
        "most_pairs": (50, 10**6),
    },
    profiles={
        "smoke": dict(data="simulated", n_lists=4, n_draws=99, most_pairs=1000),
        "book": dict(data="real", n_lists=6, n_draws=500, most_pairs=4000),
        "full": dict(data="real", n_lists=30, n_draws=2000, most_pairs=20_000),
    },
)
stand_ins = studies.stand_ins(cfg.data)
notebook.banner(stand_ins)
plots.style()
GSFM, TXFM, GREY = plots.colour("GSFM"), plots.colour("TxFM"), "#7F7F7F"


def stored(part: str) -> pd.DataFrame | None:
    """Results that took too long for a page, if there are any."""
    try:
        return None if stand_ins else results.read(f"genesets-uses/{part}")
    except FileNotFoundError:
        print(f"{part}: no stored results here")


# %% [markdown]
# ## Which model, and which terms is it asked about?
#
# The shipped model was trained on all sets at hand, measured ones and curated ones. The pathways of KEGG were kept out of its training,
# together with other versions and near copies of their terms. Kinases with their substrates (KEA) were not: what it says of them below is
# partly memory.

# %%
if stand_ins:
    sets = genesets.simulated(1000, 400, 24, cfg.seed)
    few = gsfm_training.GSFMTrainConfig(epochs=40, batch_size=32)
    run = tempfile.mkdtemp(prefix="gsfm-")
    net = gsfm_training.train_on(
        sets[:700],
        genesets.vocabulary(sets[:700], 1),
        few,
        run,
        shape={"d_model": 64},
        progress=False,
    ).model
    library, kinases = sets[700:780], sets[800:880]
    annotated = {"modules": library}
else:
    net = gsfm.GSFM.from_pretrained(cfg.model)
    library = genesets.load("enrichr_rummageo_benchmark", "KEGG_2021_Human")
    kinases = genesets.load("enrichr_2020_libraries", "KEA_2015")
    processes = genesets.load(
        "enrichr_rummageo_benchmark", "GO_Biological_Process_2023"
    )
    annotated = {"KEGG": library, "GO BP": genesets.of_size(processes, 5, 500)}
vocabulary = np.asarray(net.genes[2:])
print(f"{net.n_parameters:,} weights, {len(vocabulary):,} genes")
pd.DataFrame(
    {
        name: {
            "terms": len(x),
            "genes": len(np.unique(x.indices)),
            "of these known to the model": len(
                np.unique(x.over(vocabulary).indices)
            ),
        }
        for name, x in {**annotated, "kinases": kinases}.items()
    }
).T

# %% [markdown]
# ## What does this gene do?
#
# Give the model all genes of a term; it returns a logit $\ell_{tg}$ for every gene $g$. Read for one gene over all terms $t$, that is an
# annotation. A *z* compares the gene with all other genes in the same term,
#
# $$z_{tg} = \frac{\ell_{tg} - \bar\ell_t}{\mathrm{sd}_g(\ell_{tg})},$$
#
# since large terms raise the logits of all genes. Where the gene is a **known** member, it is among what the model was given, and its score is
# memory. So the gene is taken out of the terms that it is a member of, before the model sees them. The spread (*sd of z*) is that of
# thirty draws, each of which hides a fifth of the term; training hid up to 95 %. (For a model with dropout, units are dropped instead.)

# %%
asked = cfg.gene or (
    "FAM111B" if not stand_ins else vocabulary[len(vocabulary) // 2]
)
answers = {}
for name, of in annotated.items():
    scored = completion.annotate(net, asked, of).sort_values("z", ascending=False)
    best = [*scored.index[~scored["known"]][:8], *scored.index[scored["known"]][:4]]
    answers[name] = completion.annotate(net, asked, of[best], n_draws=30, seed=cfg.seed)
pd.concat(answers).rename(columns={"sd": "sd of z"}).round(3)

# %% mystnb={"figure": {"caption": "Terms for one gene, by z: hollow are new, filled are known, which were scored without the gene. Bars are two standard deviations over draws, on the scale of z.", "name": "fig-annotation"}, "image": {"alt": "Dot plot of terms on the vertical axis and z on the horizontal one, with horizontal bars; hollow marks for new terms, filled marks for known ones, and a dotted line at 1.645."}}
first = next(iter(answers))
shown = answers[first].sort_values("z")
fig, ax = plt.subplots(figsize=(6.5, 0.8 + 0.27 * len(shown)))
for y, (_, row) in enumerate(shown.iterrows()):
    bar = 2 * row["sd"]
    ax.plot([row["z"] - bar, row["z"] + bar], [y, y], color=GSFM, lw=1)
    ax.plot(row["z"], y, "h", color=GSFM, mfc=GSFM if row["known"] else "white")
ax.axvline(1.645, color="black", ls=":", lw=1)
ax.set_yticks(range(len(shown)), [str(t)[:48] for t in shown["term"]], fontsize=8)
ax.set_xlabel(plots.label(f"z of {asked}", "standard deviations"))
plt.show()

# %% [markdown]
# The dotted line is the published threshold, one gene in twenty if logits were normal. With thousands of terms, every gene passes it somewhere:
# a z is for ordering, not for testing. All genes, looked up in a moment, are in the [gene explorer](../book/gene_explorer.md).
#
# ## Which genes does my list lack?
#
# Five genes that interferon switches on, one by a name it has no more. Give your own as the parameter `genes`, or a whole file as `gmt`. The
# column *unseen* says what the others would have said of a gene that you gave.

# %%
interferon = "IFIT1, MX1, OAS1, STAT1, G1P2"
default = ", ".join(sets.members(900)[:6]) if stand_ins else interferon
mine = [name.strip() for name in (cfg.genes or default).split(",") if name.strip()]
completed = completion.complete_genes(net, mine, n=None, n_draws=30, seed=cfg.seed)
print(
    "read as:",
    completed.attrs["renamed"],
    "- left out:",
    completed.attrs["unknown"],
)
new = completed[~completed["known"]].head(12)
pd.concat([completed[completed["known"]], new]).round(3)

# %% mystnb={"figure": {"caption": "The twelve best new genes of the list, by logit, with two standard deviations over draws.", "name": "fig-completion"}, "image": {"alt": "Dot plot of the logits of twelve genes in falling order, each with an error bar."}}
fig, ax = plt.subplots(figsize=(5.5, 3.2))
logit = np.log(new["probability"] / (1 - new["probability"]))[::-1]
ax.errorbar(logit, new["gene"][::-1], xerr=2 * new["sd"][::-1], fmt="h", color=GSFM)
ax.set_xlabel(plots.label("logit of membership"))
plt.show()

# %% [markdown]
# A file of lists goes through in one go. Without a file, two of the library's terms are written as one and read back:

# %%
path = Path(cfg.gmt or Path(tempfile.mkdtemp()) / "mine.gmt")
if not cfg.gmt:
    genesets.write_gmt(library[:2], path)
own = genesets.read_gmt(path)
own = own if stand_ins else genesets.resolve(own)
logits = completion.complete(net, own)
logits[own.over(vocabulary).csr().nonzero()] = -np.inf  # what was given
best = np.argsort(-logits, axis=1)[:, :6]
pd.DataFrame(
    {
        "set": own.names,
        "genes": own.sizes,
        "best new genes": [", ".join(vocabulary[row]) for row in best],
    }
)

# %% [markdown]
# ## Which terms does my list belong to?
#
# The plain test first: is the overlap with a term larger than chance gives? Chance depends on the *background*, the genes that could have been
# in the list. Ours come from blood cells with and without interferon-β {cite:p}`kang2018`, in which some nine thousand genes were measured at all.
# Taken against all genes there are, any list from these cells looks like a list of blood genes. ($q$ is $p$ after the correction of
# Benjamini and Hochberg for the number of terms.)

# %%
if stand_ins:
    signature, background = list(sets.members(900)[:20]), list(vocabulary)
    everything = [*background, *(f"X{i}" for i in range(400))]
else:
    means = {}
    for condition in ("ctrl", "stim"):
        cells = datasets.load("kang_ifnb", f"pbmc_{condition}")
        x = cells.X.multiply(1e4 / cells.X.sum(axis=1)).tocsr()
        x.data = np.log1p(x.data)
        means[condition] = pd.Series(np.asarray(x.mean(axis=0))[0], cells.var_names)
    change = means["stim"] - means["ctrl"]
    background = list(change.index)
    signature = list(change.nlargest(30).index)
    everything = np.union1d(vocabulary, background)
print(f"{len(signature)} genes; {len(background):,} were measured")
columns = ["term", "size", "overlap", "expected", "p", "q"]
pd.concat(
    {
        name: enrichment.fisher(signature, library, frame)[columns].head(5)
        for name, frame in (("measured", background), ("all genes", everything))
    }
)

# %% [markdown]
# And how short may a list be? With one to four genes the test still runs. It then says what it cannot say:

# %%
for n in (1, 2, 4):
    table = enrichment.fisher(signature[:n], library, background)
    top = table.iloc[0]
    print(f"{n}: {top['term']}, p = {top['p']:.2g}, q = {top['q']:.2g}")
    print("  ", table.attrs["note"])

# %% [markdown]
# ## Does it help to let the model lengthen the list?
#
# This is called *augmentation*: the `k` best new genes join the list, then the test is done. Two things can go wrong, and both were done in
# published uses.
#
# *Counting twice.* Genes that were given are no discovery of the model. Here an augmented list is the list and $k$ new genes, and the two
# overlaps stand in two columns. A ranking of all genes (GSEA) leaves out the genes that made it.
#
# *Taking predictions for draws.* Fisher's test takes $n + k$ genes as drawn one by one. The model does not draw: it names genes of one group
# together, and it has favourites. So `p` is counted: random lists of the same length go through the same model, and
#
# $$p_t = \frac{1 + \#\{\text{random lists with at least as many genes in } t\}}{1 + \#\{\text{random lists}\}} .$$

# %%
universe = np.intersect1d(vocabulary, np.unique(library.genes))
predict = set_rivals.from_model(net, universe)
short = [g for g in signature if g in set(universe)][:5]
helped = enrichment.augmented(
    short,
    library,
    predict,
    universe,
    k=50 if not stand_ins else 20,
    background=background,
    n_draws=cfg.n_draws,
    seed=cfg.seed,
)
print("given:", ", ".join(short))
print("added:", ", ".join(helped.attrs["added"][:12]), "...")
helped.drop(columns=["library", "known_genes", "predicted_genes"]).head(10).round(4)

# %% [markdown]
# `p_list` is the list alone, `p_naive` the augmented list taken as drawn, `p` the counted one. The same with a whole ranking: GSEA on what the
# model says of every gene, the five given ones left out.

# %%
try:
    ranking = completion.complete_genes(net, short, n=None).set_index("gene")["z"]
    ranked = enrichment.gsea(
        ranking[ranking.index.isin(background)],
        library,
        leave_out=short,
        by_rank=True,
        seed=cfg.seed,
    )
    display(ranked.drop(columns=["library", "leading"]).head(8).round(4))
except ModuleNotFoundError as error:
    print(error)

# %% [markdown]
# A ranking by a model is no ranking by measurements, either: GSEA's permutations shuffle genes as if they had been scored one by one. So its
# p-values are of the naive kind, and they are here to be compared.
#
# ### What do random lists find?
#
# The test of a test. Random lists belong to no term, so one term in twenty should have $p \le 0.05$, whatever the model does.

# %%
alarms = stored("alarms")
if alarms is None:
    alarms = pd.DataFrame(
        augmentation.false_alarms(
            library,
            predict,
            universe,
            n_lists=cfg.n_lists,
            k=50 if not stand_ins else 20,
            n_draws=min(cfg.n_draws, 200),
            seed=cfg.seed,
        )
    ).assign(model="random lists")
alarms[["size", "test"]] = alarms["variant"].str.split(", ", n=1, expand=True)
null = alarms[(alarms["metric"] == "terms at 0.05")]
lists = alarms[alarms["metric"] == "lists with a term"]
lists.pivot_table(index=["model", "size"], columns="test", values="value").round(2)

# %% [markdown]
# These are the shares of random lists that come home with at least one "significant" term, $q \le 0.05$ after Benjamini and Hochberg. And the
# shares of terms:

# %% mystnb={"figure": {"caption": "Share of terms with p ≤ 0.05 for random lists, by length of the list and test. Dotted: one in twenty, where a right test lies or just below.", "name": "fig-alarms"}, "image": {"alt": "Dot plot with one row per length of list and three marks each: list alone and counted below the dotted line at 0.05, the naive augmented test apart from them to the right."}}
LOOK = {
    augmentation.TESTS["p_list"]: (GREY, "o"),
    augmentation.TESTS["p_naive"]: (plots.colour("scVI (corpus)"), "X"),
    augmentation.TESTS["p"]: (GSFM, "h"),
}
of = null[null["model"] == "random lists"]
of = of.groupby(["size", "test"], as_index=False)["value"].mean()
sizes = sorted(of["size"].unique(), key=lambda text: int(text.split()[0]))
fig, ax = plt.subplots(figsize=(6, 1.2 + 0.4 * len(sizes)))
for test, (colour, mark) in LOOK.items():
    some = of[of["test"] == test]
    y = some["size"].map(sizes.index)
    ax.plot(some["value"], y, mark, color=colour, ms=8, label=test)
ax.axvline(0.05, color="black", ls=":", lw=1)
ax.set_yticks(range(len(sizes)), sizes)
ax.set_ylim(-0.6, len(sizes) - 0.4)
ax.set_xlim(left=0)
ax.set_xlabel(plots.label("terms with p ≤ 0.05", "share"))
fig.legend(loc="outside lower center", ncols=3, fontsize=8)
plt.show()

# %% [markdown]
# A list alone lies below one in twenty, since an overlap is a whole number: most terms have none, and p = 1. So does the counted test, which
# counts whole overlaps as well. For the naive test, random lists are not random enough: what the model adds to them belongs together, and
# with it whole terms come up.
#
# **What we see.** Of thirty stored lists of each length, the naive test sends a third to two thirds home with a term, and seven to nine in ten
# where random lists are drawn from popular genes. The counted test sends home two of all 180. (With 500 draws its p is 1/501 at least, which few
# terms alone could bring through the correction. That it is right is better seen in the shares of terms: .02, and .03 to .055 with popular genes.)
#
# ### Does it find more of what is there?
#
# Lists of 20 genes, of which a few are members of a term and the rest are random. How often is that term found?

# %%
if not stand_ins and "found at q 0.05" in set(alarms["metric"]):
    found = alarms[alarms["metric"].isin(["found at q 0.05", "first", "among ten"])]
    found = found.assign(test=found["variant"])
else:
    found = pd.DataFrame(
        augmentation.term_recovery(
            library,
            predict,
            universe,
            n_lists=2 * cfg.n_lists,
            k=50 if not stand_ins else 20,
            n_draws=min(cfg.n_draws, 200),
            seed=cfg.seed,
        )
    ).assign(model="3 of 20", test=lambda t: t["variant"])
found.pivot_table(index=["model", "test"], columns="metric", values="value").round(
    2
)

# %% [markdown]
# *Found* is $q \le 0.05$; a counted p cannot be smaller than one over the number of random lists, so that it needs many of them to pass a
# correction for hundreds of terms. *First* and *among ten* need no threshold.
#
# **What we see.** It does not. In the stored runs (sixty lists each with two, three and five members of a term) the list alone has the term in the
# first place most often, by far, and augmenting puts others before it: what the model adds to seventeen random genes is not about the three. The
# naive test does call the term of two members significant more often than the list alone does (.28 against .07). But it says so of random lists, too.
#
# ## Which substrates does a kinase have?
#
# Show half of a kinase's known substrates, find the others: five genes shown at least and five to find, on KEA. The authors print a
# median AUROC of 0.765. But popular substrates are popular with all kinases, so "in how many other terms of this library is the
# gene?" is asked as well. It is no rival, since it reads the library that is tested; it says how much is to be had without any biology.
# The shipped model is not in the stored table: KEA was among its training sets.

# %%
kea = stored("kinases")
if kea is None:
    asked_about = set_splits.splits(kinases, n=5 if cfg.profile == "full" else 2)
    searched = benchmark.common_universe({"kinases": kinases}, vocabulary)
    read = "GSFM" if stand_ins else "GSFM, which has read KEA"
    within = set_rivals.popularity_within(kinases, searched)
    contest = {
        read: set_rivals.from_model(net, searched),
        "popularity within library": within,
    }
    rows = []
    for name, one in contest.items():
        scored, _ = benchmark.evaluate(one, asked_about, searched)
        rows += [{"model": name, **row} for row in scored]
    kea = pd.DataFrame(rows)
auroc = kea[(kea["metric"] == "AUROC") & (kea["variant"] == "")]
auroc = auroc.groupby("model")[["value", "low", "high", "n"]].mean()
auroc.sort_values("value", ascending=False).round(3)

# %% mystnb={"figure": {"caption": "Median AUROC over kinases, with 95 % intervals over groups of alike kinases. Dotted: chance; dashed: the published model, whose corpus is 20 to 40 times as large.", "name": "fig-kinases"}, "image": {"alt": "Dot plot of models by median AUROC with horizontal intervals, a dotted line at one half and a dashed line at 0.765."}}
order = auroc.sort_values("value")
fig, ax = plt.subplots(figsize=(6.2, 1 + 0.3 * len(order)))
for y, (name, row) in enumerate(order.iterrows()):
    colour = GSFM if name.startswith("GSFM") else GREY
    ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=2)
    ax.plot(row["value"], y, "h" if colour == GSFM else "o", color=colour, ms=8)
ax.axvline(0.5, color="black", ls=":", lw=1)
if not stand_ins:
    ax.axvline(0.765, color="black", ls="--", lw=1)
ax.set_yticks(range(len(order)), order.index)
ax.set_ylim(-0.6, len(order) - 0.4)
ax.set_xlabel(plots.label("median AUROC of hidden substrates"))
plt.show()

# %% [markdown]
# To ask fairly, KEA must not be trained on. Is it enough to leave out that library? Another training library lists the *interactors* of
# well-studied proteins, and a kinase's interactors are, in good part, its substrates:

# %%
if stand_ins:
    overlap, partner = genesets.nearest(sets[:100], kinases)
    hubs = sets[:100]
else:
    hubs = genesets.load("enrichr_2020_libraries", "PPI_Hub_Proteins")
    overlap, partner = genesets.nearest(hubs, genesets.of_size(kinases, 10, 10**6))
terms = kinases if stand_ins else genesets.of_size(kinases, 10, 10**6)
close = np.argsort(-overlap)[:8]
print(
    f"{(overlap > 0.5).sum()} of {len(hubs)} training sets have a Jaccard index above 0.5"
)
pd.DataFrame(
    {
        "training set": hubs.names[close],
        "nearest kinase": terms.names[partner[close]],
        "Jaccard index": overlap[close].round(2),
    }
)

# %% [markdown]
# So part of any score may be reading, not guessing, even then: a model that looks up the training sets most like what is shown (*kNN*) has
# the most to read. In stored runs, "no interactions" marks what was fitted without the four libraries of interactions and without any set
# that is half a kinase's term. The same doubt holds for other models that trained on KEA or on lists of interactors.
#
# **What we see.** With the lists of interactions in (KEA itself was never trained on here), neighbours find most, since they have most to read. Without the lists of interactions everybody loses, and what
# is left of the lead is small: the autoencoder is the best of what reads no interactions, and none of these reaches what popularity within
# the library gives away, nor the published number, whose corpus may hold such lists, too.
#
# ## Which proteins interact?
#
# Gene vectors are asked about pairs of STRING. Two habits flatter such tests. *Proteins are shared*: pairs are split at random, so
# every protein has been seen with some partner, and "has many" is learned by heart. *Negatives are any two proteins*: most have few partners, so
# that the number of partners alone tells true pairs from others. Here, on the left, proteins are split, and every protein is in as many negatives as
# positives. Then a linear model on two vectors side by side has nothing to learn: it adds up what it thinks of each protein, and each protein is as
# often in a true pair as in a false one.

# %%
if stand_ins:
    member = (sets[700:].csr() > 0).astype(np.float32)
    counts = (member.T @ member).toarray()
    i, j = np.nonzero(np.triu(counts, 1) >= np.quantile(counts, 0.95))
    string = pd.DataFrame({"entity1": sets.genes[i], "entity2": sets.genes[j]})
    rng = np.random.default_rng(cfg.seed)
    tables = {
        "TxFM codebook": pd.DataFrame(
            rng.normal(size=(len(sets.genes), 32)), sets.genes
        )  # knows nothing here
    }
else:
    string = relations.known_pairs(["StringDB"])["StringDB"]
    tables = {"TxFM codebook": gene_vectors("txfm-xs")["codebook"]}
tables["GSFM emb"] = completion.gene_vectors(net, "emb")
pairs = stored("pairs")
if pairs is None:
    pairs = pd.DataFrame(
        interactions.evaluate(tables, string, most=cfg.most_pairs, seed=cfg.seed)
    ).rename(columns={"vectors": "model"})
pairs = pairs.groupby(["model", "metric", "variant"], as_index=False)["value"].mean()
pairs[["split", "negatives", "how"]] = pairs["variant"].str.split(", ", expand=True)
pairs["test"] = pairs["split"] + ", " + pairs["negatives"]
wide = pairs.pivot_table(
    index=["metric", "model", "how"], columns="test", values="value"
)
ORDER = [f"{a}, {b}" for a in interactions.SPLITS for b in interactions.NEGATIVES]
wide[ORDER].round(3)

# %% mystnb={"figure": {"caption": "AUROC of protein pairs: proteins apart and negatives matched by degree (left), to pairs at random and any negatives (right, the published way). Degree has no vectors.", "name": "fig-pairs"}, "image": {"alt": "Four columns of marks, one per way of testing; the black bar of degree alone lies at one half where negatives are matched and high where they are not; the marks of the vectors move with it, but less."}}
kept = pairs[(pairs["metric"] == "AUROC")]
names = [m for m in kept["model"].unique() if m != "none"]
MARKS = {"cosine": "o", "product": "s", "concatenation": "^"}
fig, ax = plt.subplots(figsize=(7, 3.4))
for x, test in enumerate(ORDER):
    here = kept[kept["test"] == test].set_index(["model", "how"])["value"]
    ax.hlines(here["none", "degree"], x - 0.4, x + 0.4, color="black", lw=2)
    for i, name in enumerate(names):
        colour = TXFM if name.startswith("TxFM") else GSFM
        place = x + 0.6 * ((i + 0.5) / len(names) - 0.5)
        for how, mark in MARKS.items():
            ax.plot(place, here[name, how], mark, color=colour, ms=6, alpha=0.8)
ax.axhline(0.5, color="black", ls=":", lw=1)
ax.set_xticks(range(4), [t.replace(", ", "\n") for t in ORDER])
ax.set_ylabel(plots.label("AUROC", "probability"))
handles = [plt.Line2D([], [], ls="", marker=m, color=GREY) for m in MARKS.values()]
handles += [plt.Line2D([], [], color=c, lw=5) for c in (TXFM, GSFM)]
handles += [plt.Line2D([], [], color="black", lw=2)]
fig.legend(
    handles,
    [*MARKS, "TxFM", "GSFM", "degree alone"],
    loc="outside lower center",
    ncols=6,
    fontsize=8,
)
plt.show()

# %% [markdown]
# What the black bar reaches needs no model at all. And GSFM's own training had lists of interactors in it, so on STRING, too, its vectors may
# remember; stored runs have vectors of a model without them beside.
#
# **What we see.** Tested the published way, degree alone reaches .84, a little more than cosines of GSFM's vectors and far more than TxFM's
# vectors by any means; only products of GSFM's vectors go beyond it, to .91. Tested the strict way, degree has nothing left, nor have two vectors side by side, and products of the vectors do tell pairs: .86 to .88 with
# the shipped model, .72 to .73 with the one that read no lists of interactions (and no curated sets), .67 with TxFM's. Whether proteins are shared
# makes little difference here; which negatives are drawn decides what degree is worth.
#
# ## Do expression and sets teach different things?
#
# TxFM's vectors come from expression, GSFM's from sets. Both recall known relationships ([how that is scored](60_genes.ipynb)). Do they recall the
# *same* ones? And is the plainest combination, the mean of the two cosines, better than either?

# %%
known = {"modules": string} if stand_ins else relations.known_pairs()
kept = stored("complements")
if kept is None:
    joined = complements.joined_vectors(
        {"TxFM": tables["TxFM codebook"], "GSFM": tables["GSFM emb"]}, seed=cfg.seed
    )
    rows = []
    for name, table in joined.items():
        scored = relations.evaluate(
            table, known, dimensions=(), ordered=True, seed=cfg.seed
        )
        rows += [{"model": name, "dataset": "relations", **row} for row in scored]
    recall = pd.DataFrame(rows)
else:
    recall = kept[(kept["dataset"] == "relations") & (kept["metric"] == "recall")]
recall = recall.assign(
    of=recall["variant"].str.removesuffix(", all"),
    excess=recall["value"] - recall["null"],
)
recall.pivot_table(index="of", columns="model", values="excess")[
    ["TxFM", "GSFM", *complements.COMBINATIONS]
].loc[[*known, "union"]].round(3)

# %% mystnb={"figure": {"caption": "Recall of relationships beyond the null, by database: each source of gene vectors, and their mean.", "name": "fig-complements"}, "image": {"alt": "Dot plot with one group per database and three marks: vectors from expression, vectors from sets, and both together."}}
LOOKS = {
    "TxFM": (TXFM, "o"),
    "GSFM": (GSFM, "h"),
    "mean of z-scores": ("black", "D"),
}
groups = [*known, "union"]
fig, ax = plt.subplots(figsize=(6.4, 3))
for i, (name, (colour, mark)) in enumerate(LOOKS.items()):
    of = recall[recall["model"] == name].set_index("of")["excess"]
    of = of[~of.index.duplicated()]
    x = np.arange(len(groups)) + 0.15 * (i - 1)
    label = "both" if name == "mean of z-scores" else name
    ax.plot(x, of.loc[groups], mark, color=colour, ms=7, label=label)
ax.axhline(0, color="black", lw=0.8)
ax.set_xticks(range(len(groups)), groups)
ax.set_ylabel(plots.label("recall beyond null", "share"))
fig.legend(loc="outside lower center", ncols=3, fontsize=8)
plt.show()

# %% [markdown]
# Pairs that both recall, one of them, or neither. *Either* has its own null, since two chances are more than one:

# %%
if kept is None:
    both = complements.shared_recall(
        joined["TxFM"], joined["GSFM"], known, cfg.seed
    )
else:
    both = kept[kept["metric"].str.startswith("recalled by")]
    null = both[both["metric"] == "recalled by either"].set_index("variant")["null"]
    both = both.assign(of=both["metric"].str.removeprefix("recalled by "))
    both = both.pivot_table(index="variant", columns="of", values="value")
    both["either, null"] = null
names = {"first": "TxFM alone", "second": "GSFM alone"}
both.rename(columns=names)[
    ["both", "TxFM alone", "GSFM alone", "neither", "either", "either, null"]
].round(3)

# %% [markdown]
# **What we see.** Vectors from sets recall two to seven times as much beyond the null as vectors from expression, whose model is small and trained on
# a fraction of the paper's corpus. (The sets of the shipped model hold complexes, Reactome and interactors, of which the tested databases are
# made, too: part of its recall may be memory.) A tenth of all relations are recalled by TxFM alone, but chance would give seven in a hundred. And
# their plain mean is better than GSFM's by itself on complexes at most (CORUM), and worse on pathways.
#
# And in completing sets? The mean of the ranks that the model and the cosine of TxFM's vectors give to each gene:

# %%
if kept is None:
    half = set_splits.splits(library, n=1)
    codebook = set_rivals.cosine(tables["TxFM codebook"], universe)
    contest = {
        "GSFM": predict,
        "TxFM codebook": codebook,
        "GSFM + TxFM codebook": complements.mean_of_ranks([predict, codebook]),
    }
    rows = []
    for name, one in contest.items():
        scored, _ = benchmark.evaluate(one, half, universe)
        rows += [{"model": name, "dataset": half.library, **row} for row in scored]
    completing = pd.DataFrame(rows)
else:
    completing = kept[kept["dataset"] != "relations"]
completing = completing[completing["variant"] == ""]
completing[completing["metric"].isin(["AUROC", "AP"])].pivot_table(
    index="dataset", columns=["metric", "model"], values="value"
).round(3)

# %% [markdown]
# ## Directions, sizes, non-coding genes
#
# A list of differential genes forgets which went up, and by how much. GSFM's authors name signed and weighted input, and non-coding genes, as work to
# be done. Both were tried: models of one shape, trained on signatures of some studies, asked about those of others, half of each shown
# ({mod}`txfm_lite.evaluate.signatures`, which also makes a signature of a table with fold changes and p-values; the libraries at hand have no
# p-values, so these were not tried). *Which*: find the hidden genes. *Direction*: tell those that go up from those that go down.

# %%
signed = stored("signatures")
if stand_ins:
    down = genesets.GeneSets.from_lists(
        [sets.members((i + 1) % 200) for i in range(200)], list(sets.names[:200])
    )
    made = signatures.signed_sets(sets[:200], down)
    signed = pd.DataFrame(
        signatures.compare_signs(made, cfg.seed, epochs=20, d_model=16)
    )
if signed is None:
    table = "Run `python benchmarks/gene_set_uses.py --parts signatures`."
else:
    signed[["question", "arm"]] = signed["variant"].str.split(
        ", ", n=1, expand=True
    )
    table = signed.pivot_table(index="arm", columns="question", values="value")
    table = table.round(3)
table

# %% [markdown]
# **What we see.** (Three draws of held-out studies, 130 to 170 signatures each.) Signs and weights do not help to find the hidden genes: they cost
# about a point in each draw. Which way they go is told best by a model that got the two sides as two lists, three points better or more than by
# signs, and seven better or more than by popularity on either side.
#
# And the vocabulary: the same sets with protein-coding genes only, and with non-coding ones in the input as well. Asked for are coding genes in both.
# In the stored runs, 1,413 non-coding genes beside 18,750 coding ones made no difference to the third digit.

# %%
coding = stored("noncoding")
if stand_ins:
    coding = pd.DataFrame(
        signatures.compare_vocabularies(
            sets[:400],
            np.arange(len(sets.genes)) % 3 > 0,
            cfg.seed,
            epochs=20,
            d_model=16,
        )
    )
if coding is None:
    table = "Run `python benchmarks/gene_set_uses.py --parts noncoding`."
else:
    table = coding.pivot_table(index="variant", values=["value", "n"]).round(3)
table

# %% [markdown]
# ## Compared with the paper
#
# | | source | here | why they differ |
# |---|---|---|---|
# | training sets | 0.89 million tables of papers | some 42,000 sets at hand, benchmark terms kept out | what can be had without a large download; and nothing is tested that was read |
# | gene → terms | the gene's score in terms that contain it is reported as it is | known members are scored without the gene | a given gene's score is memory |
# | enrichment | augmented list and Fisher, or GSEA on logits with the input genes in it | new genes apart, input genes left out, p counted with random lists | [random lists](#what-do-random-lists-find) |
# | kinase–substrate | median AUROC 0.765, no baseline | [above](#which-substrates-does-a-kinase-have), beside popularity and rivals | corpus; which libraries were trained on |
# | protein pairs | random pairs of Pathway Commons, proteins shared, numbers in images | [proteins apart, degrees matched](#which-proteins-interact) | the published way flatters |
# | TxFM and GSFM | – | [side by side](#do-expression-and-sets-teach-different-things) | – |
# | signs, weights, non-coding | future work | [tried](#directions-sizes-non-coding-genes) | – |
#
# Statements on these uses are judged by rules; one that was written after a first look at results says so:

# %%
with pd.option_context("display.max_colwidth", None):
    display(ledger.table("notebooks/85_gsfm_uses"))

# %% [markdown]
# ## Exercises
#
# 1. (easy) Complete a list of your own (`-p genes "TP53, MDM2, CDKN1A"`). Which of your genes has the lowest *unseen*?
#
# :::{dropdown} Solution
# It is the gene that the others do not suggest: a member of another programme, a gene that is rare in the training sets, or a mistake in the list.
# :::
#
# 2. (medium) Augment with `k = 10` and with `k = 200`. What happens to `p_naive`, what to `p`?
#
# :::{dropdown} Solution
# The naive p of whatever the model likes falls with every gene that it adds. The counted p does not care for k as such, since random lists get as
# many. It changes where the further genes fit your list less than the first ones.
# :::
#
# 3. (hard) In [the test of protein pairs](#which-proteins-interact), train a regression on both proteins' number of partners, and nothing else, with
#    proteins shared and any negatives. How much of the vectors' lead is left?
#
# :::{dropdown} Solution
# `known = relations.known_pairs(["StringDB"])["StringDB"]`; count partners among training pairs; two columns, `log1p` of the smaller and larger
# count. Compare with the black bar, which simply adds them up. What vectors have beyond that is what they know of *pairs*, and the left column shows it
# without any regression.
# :::
#
# **Ask yourself.** Why is the score of a known member no evidence? What do random lists have that shuffled p-values have not? Why can a model that
# never saw KEA still have read it?
#
# ## Takeaways
#
# - A known member is scored [without itself](#what-does-this-gene-do), or not at all.
# - Augmented lists need [a p-value that is counted](#what-do-random-lists-find): the model's additions are not independent.
# - Kept out as a library is not kept out: look for [its content elsewhere](#which-substrates-does-a-kinase-have).
# - Pairs of proteins: [split proteins, match degrees](#which-proteins-interact), and show degree alone.
# - All genes at once: the [gene explorer](../book/gene_explorer.md).
#
# ## Where the numbers come from

# %%
notebook.provenance(
    cfg,
    data=[]
    if stand_ins
    else ["enrichr_rummageo_benchmark", "enrichr_2020_libraries", "kang_ifnb"],
)
