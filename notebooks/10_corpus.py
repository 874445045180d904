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
# # One corpus from many studies
#
# A foundation model of expression can only be as good as the counts it reads. Studies differ in which genes they report, how
# deeply they count, and what they call a gene; this chapter turns them into one corpus without pretending that they are alike.
# It repeats, in small, the curation behind Table 1 of {cite:t}`kenyondean2026`.
#
# :::{admonition} At a glance
# - **You will** tell "not measured" from "zero", see what each filter keeps, build a corpus by one call, and keep held-out data out.
# - **You need** [the notation](../book/notation.md).
# - **It takes** `smoke` about 10 s on simulated studies; `book` a minute and 2.5 GB on 2 CPU cores (most of it reading R files);
#   `full` is the same as `book`: the corpus has one size.
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
min_cells: int = 10  # @param {type:"integer"}
min_genes: int = 200  # @param {type:"integer"}
panels: str = "drop"  # @param ["drop", "scale"]

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from txfm_lite import curate, datasets, diverserna, notebook, plots, studies

cfg = notebook.resolve(
    globals(),
    valid={
        "data": ["real", "simulated"],
        "seed": (0, 2**31),
        "min_cells": (1, 100_000),
        "min_genes": (0, 20_000),
        "panels": ["drop", "scale"],
    },
    profiles={
        "smoke": {"data": "simulated"},
        "book": {"data": "real"},
        "full": {"data": "real"},
    },
)
stand_ins = studies.stand_ins(cfg.data)
notebook.banner(stand_ins)
plots.style()

# %% [markdown]
# ## What is there?
#
# Every dataset has a manifest: where its files lie, their checksums, its licence, and its **role**. The role decides, once and for
# all, what a dataset may be used for. A study that is held out cannot slip into training later, because the code refuses it.

# %%
table = datasets.available().reset_index()
roles = table.groupby("role").agg(
    datasets=("dataset", "nunique"),
    matrices=("part", "count"),
    samples=("n_obs", "sum"),
)
roles

# %% [markdown]
# ## What is in a dataset?
#
# `datasets.load` gives every study the same face: whole counts in `X`, nine standard columns in `obs`, one identity per gene in
# `var`. Here is one of them.

# %%
name = (
    "pbmc68k_reduced" if stand_ins else "kang_ifnb"
)  # the former comes with scanpy
example = datasets.load(name)
print(datasets.describe(name))
example.obs[["cell_type", "batch", "technology"]].head()

# %%
filled = example.X.nnz / np.prod(example.shape)
print(f"{example.n_obs:,} cells x {example.n_vars:,} genes, {filled:.1%} non-zero")
assert (example.X.data == np.rint(example.X.data)).all()  # counts, not estimates
pd.Series(example.uns["source"]["genes"], name="gene identity")

# %% [markdown]
# Most entries are zero, and every non-zero one is a whole number. The report above says which share of the gene names was
# recognised as a gene (`matched`), how many needed an alias or a spelling rule, and which share of the *counts* those genes carry.
# Names that nobody recognises stay in the matrix but never enter a corpus: a model cannot share what it cannot name.
#
# ## From many studies to one corpus?
#
# The paper joins nine studies by a few rules. The same rules with smaller thresholds make **DiverseRNA-mini** from every training
# dataset of the manifests, in one call:
#
# 1. keep genes with an identity, and note each sample's *library size*, its total over them;
# 2. keep cells that express at least `min_genes` genes; leave out cells that an earlier dataset already holds;
# 3. the vocabulary is the union of genes expressed in at least `min_cells` cells of some dataset and measured by two datasets;
# 4. a dataset that lists fewer than 7,000 genes is a *panel* and is left out (or rescaled: try `panels = "scale"`);
# 5. whole batches are held out for validation.

# %%
rules = dataclasses.replace(
    curate.MINI,
    min_cells=cfg.min_cells,
    min_genes=cfg.min_genes,
    panels=cfg.panels,
    seed=cfg.seed,
)
default = dataclasses.replace(rules, seed=0) == curate.MINI and cfg.seed == 0
corpus = studies.training_corpus(
    None if default else "corpus-of-chapter-10", cfg.data, rules
)
corpus

# %% [markdown]
# ## What did the filters keep?

# %%
obs = corpus.obs()
kept = pd.DataFrame(corpus.datasets).set_index("name")
kept["n_kept"] = obs.groupby("dataset", observed=True).size()
kept = kept.sort_values("n_source", ascending=True)

# %% mystnb={"figure": {"caption": "Samples in the source and samples kept, by dataset.", "name": "fig-kept"}, "image": {"alt": "Horizontal bars per training dataset: samples in the source in grey, samples kept in blue on top; nearly all samples are kept."}}
fig, ax = plt.subplots(figsize=(6.5, 0.6 + 0.22 * len(kept)))
ax.barh(kept.index, kept["n_source"], color="#CCCCCC", label="in the source")
ax.barh(
    kept.index, kept["n_kept"], color=plots.colour("TxFM"), height=0.5, label="kept"
)
ax.set(xscale="log", xlabel=plots.label("samples", "number"))
ax.legend(loc="lower right")
plt.show()

# %%
lost = int((kept["n_source"] - kept["n_duplicates"] - kept["n_kept"]).sum())
print(
    f"{kept['n_source'].sum():,} samples came in; {kept['n_duplicates'].sum():,} were already there, {lost:,} had too few genes"
)
skipped = pd.DataFrame(corpus.info["skipped"], columns=["name", "reason"])
skipped.groupby("reason", sort=False)["name"].agg(", ".join).to_frame("left out")

# %% [markdown]
# **What we see.** Little is lost to the filters; far more is left out because it is a panel, normalised, or too large for a small
# machine. That list is part of the corpus: a reader of its numbers can see what is *not* in it.
#
# ## Which genes does everybody measure?
#
# For each pair of datasets, the share of the row's measured genes that the column measures too.

# %% mystnb={"figure": {"caption": "Share of the genes measured by the row's dataset that the column's dataset measures as well.", "name": "fig-overlap"}, "image": {"alt": "Square heat map of gene overlap between datasets, values between about 0.4 and 1; datasets with few genes are contained in those with many."}}
measured = corpus.measured.astype(float)
overlap = measured @ measured.T / measured.sum(axis=1, keepdims=True)
order = np.argsort(-measured.sum(axis=1))
names = [corpus.datasets[i]["name"] for i in order]
fig, ax = plt.subplots(figsize=(6.5, 5.8))
image = ax.imshow(overlap[np.ix_(order, order)], vmin=0, vmax=1)
ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
ax.set_yticks(range(len(names)), names, fontsize=7)
ax.grid(visible=False)
fig.colorbar(image, label=plots.label("shared genes", "share"), shrink=0.8)
plt.show()

# %%
by_how_many = (
    pd.Series(corpus.measured.sum(axis=0))
    .value_counts()
    .sort_index(ascending=False)
)
everywhere = int((corpus.measured.all(axis=0)).sum())
print(
    f"{everywhere:,} of {corpus.n_genes:,} genes are measured by all {len(corpus.datasets)} datasets"
)
assert corpus.measured.any(
    axis=0
).all()  # no gene in the vocabulary that nobody measures

# %% [markdown]
# **What we see.** An intersection would keep only those genes and throw the rest away; a union filled with zeros would tell the
# model that a gene is off where nobody looked. The corpus does neither: it keeps the union *and* a mask
# $m \in \{0, 1\}^{D \times G}$ of what each of the $D$ datasets can report. A gene outside its dataset's mask is never shown to the
# model and never scored.
#
# ## How deep does a sample go?
#
# A library may hold a thousand molecules or a hundred million reads.

# %% mystnb={"figure": {"caption": "Library size and number of genes seen, one point per sample (at most 300 per dataset).", "name": "fig-depth"}, "image": {"alt": "Scatter plot on logarithmic axes of genes seen against library size; single cells lie between 500 and 100,000 counts, bulk samples above 10 million counts with more than 15,000 genes."}}
rng = np.random.default_rng(cfg.seed)
n_seen = np.diff(corpus.indptr)
fig, ax = plt.subplots()
for kind, look in {
    "single-cell RNA": ("TxFM", 0.25),
    "bulk RNA": ("PCA", 0.9),
}.items():
    codes = [i for i, d in enumerate(corpus.datasets) if d["modality"] == kind]
    rows = [
        r
        for c in codes
        for r in rng.permutation(np.flatnonzero(corpus.dataset == c))[:300]
    ]
    colour, marker = plots.colour(look[0]), plots.marker(look[0])
    ax.scatter(
        corpus.library_size[rows],
        n_seen[rows],
        s=8,
        alpha=look[1],
        color=colour,
        marker=marker,
        label=kind,
    )
ax.set(
    xscale="log",
    yscale="log",
    xlabel=plots.label("library size", "counts"),
    ylabel=plots.label("genes seen", "number"),
)
ax.legend()
plt.show()

# %% [markdown]
# Depth is a property of the experiment, not of the cell. Before a model sees a sample, every count $c_{ng}$ of sample $n$ is
# therefore scaled to a common library size $L = 10^5$ and logged:
#
# $$x_{ng} = \log\left(1 + L\,\frac{c_{ng}}{\sum_{g'} c_{ng'}}\right)$$
#
# The sum runs over the genes that the sample's dataset measures. That is why panels are a trap: with 300 genes measured, the same
# cell's values would come out tens of times larger.

# %%
rows = corpus.rows("train")[:1000]
counts, total = corpus.csr(rows), corpus.library_size[rows]
x = np.log1p(counts.multiply(1e5 / total[:, None]).toarray())
assert x.shape == (len(rows), corpus.n_genes)
assert np.all(
    np.expm1(x).sum(axis=1) <= 1e5 * (1 + 1e-6)
)  # at most L: some identified genes are outside the vocabulary
print(
    f"values from 0 to {x.max():.1f}; the ceiling is log(1 + L) = {np.log1p(1e5):.1f}"
)

# %% [markdown]
# ## Can a held-out study slip in?
#
# It is worth trying. The roles are not a convention among careful people; the code enforces them.

# %%
held_out = next(iter(studies.held_out(cfg.data).values()))
try:
    curate.check_trainable(held_out)
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# Validation is stricter than a random tenth of the cells, too: whole *batches* are held out, so that a model cannot score by
# recognising the batch it was trained on. Studies with a single batch contribute none.

# %%
split = obs.groupby(["dataset", "split"], observed=False).size().unstack()
split[split["validation"] > 0]

# %% [markdown]
# ## What does a corpus cost to open?
#
# Four bytes per non-zero entry on disk, nothing in memory: opening it reads a page of JSON, a batch reads its own rows.

# %%
import time

from txfm_lite.corpus import Corpus
from txfm_lite.loader import BatchLoader

start = time.perf_counter()
again = Corpus.open(corpus.path)
opened = time.perf_counter() - start
batch = next(
    iter(BatchLoader(again, batch_size=64, seed=cfg.seed, in_memory=False))
)
print(
    f"{corpus.nbytes / 1e6:,.0f} MB of counts, opened in {opened * 1e3:.0f} ms; fingerprint {corpus.fingerprint[:12]}"
)
print(
    f"one batch: {len(batch)} samples of {len(set(batch.dataset))} datasets, {len(batch.counts):,} non-zeros"
)
assert (batch.dense(again.n_genes) == again.csr(batch.row).toarray()).all()

# %% [markdown]
# ## Compared with the paper
#
# Ours above, the paper's Table 1 below.

# %%
composition = diverserna.composition(corpus)
columns = ["mode", "n_samples", "n_genes", "n_batches", "n_validation"]
shown = composition.set_index(["corpus", "dataset"])[columns].astype(object)
shown.map(lambda v: "–" if pd.isna(v) else v if isinstance(v, str) else f"{v:,}")

# %%
ours, paper = (
    composition[composition["dataset"] == "total"][c].astype(int).tolist()
    for c in ("n_samples", "n_genes")
)
print(f"{ours[1] / ours[0]:.0f} times fewer samples than DiverseRNA-1.4M")
print(f"{paper[0] / paper[1]:.0%} of its vocabulary")

# %% [markdown]
# The recipe is the same; the ingredients are not. Ours are what anybody can fetch in minutes: mostly blood, where the paper has
# perturbed cell lines, tumours and thousands of bulk samples. A claim about curation at a million samples cannot be settled at
# this size, and no chapter of this book pretends that it can.
#
# One more caution: the mixture wells of `sc_mixology` (pools of three cancer cell lines) are in training, while single cells of
# the same study are held out. They share laboratory and cell lines, so wherever that study serves as a test, its score is easier
# than a wholly unseen study's; the chapters that use it show a second, wholly unseen one beside it.
#
# ## Exercises
#
# 1. (easy) Set `min_genes` to 2,000, the paper's threshold. Which kind of dataset disappears?
#
# :::{dropdown} Solution
# The shallow droplet studies: hardly any of their cells shows 2,000 genes. What is left is mostly plate-based data and bulk, and the
# corpus is no longer mostly blood. The paper's threshold suits its own, deeper, studies.
# :::
#
# 2. (medium) Set `panels` to `"scale"`. How large is the library of a panel's cell, before and after?
#
# :::{dropdown} Solution
# Compare `corpus.info["datasets"]` with and without: `library_share` is the share of a whole transcriptome's counts that falls on
# the panel's genes, estimated from the whole-transcriptome datasets. The stored library size is the observed one divided by it.
# :::
#
# 3. (hard) Fit a PCA on the 1,024 most variable genes, once with zeros for unmeasured genes and once with the gene's mean. Which
# share of each component's variance does the dataset explain? Then use genes that only half of the datasets measure.
#
# :::{dropdown} Solution
# On the most variable genes the two hardly differ: nearly every dataset measures nearly all of them, and what separates datasets
# there is tissue and technology, not the mask. The fewer datasets measure a gene, the more a zero says "this study" and not "this
# cell". `txfm_lite.baselines.CorpusPCA` uses means, so that an unmeasured gene moves a sample nowhere.
# :::
#
# **Ask yourself.** Why is the library size a sum over *measured* genes and not over the vocabulary? What would a model learn
# from zeros where nobody looked? Why hold out batches and not cells?
#
# ## Takeaways
#
# - Roles and checksums make "held out" a fact of the code: [tried above](#can-a-held-out-study-slip-in).
# - Not measured is not zero: [the mask](#which-genes-does-everybody-measure) carries the difference.
# - Depth spans five orders of magnitude; [one equation](#how-deep-does-a-sample-go) puts all samples on one scale.
#
# **Next:** [one cell of it on its way through the model](20_txfm_anatomy.ipynb).
#
# ## Where the numbers come from

# %%
notebook.provenance(cfg, data=[corpus])
