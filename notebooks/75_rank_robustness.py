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
# # Rank encodings: what do they survive?
#
# Geneformer and Cell2Sentence show a model the *order* of a cell's genes and drop the numbers. Two opposite things are said of that.
# An order is sturdy: it forgets depth and chemistry {cite:p}`theodoris2023`. An order is frail: most counts of a droplet cell are
# ones, one molecule more or less turns it over, and the zeros are gone {cite:p}`scrnaseq_assumptions2023`. Here both are measured, on
# the encodings themselves. No model is trained but a linear probe, so that what differs is the input alone.
#
# :::{admonition} At a glance
# - **You will** thin cells to a tenth, add one molecule, double one gene, take a probe from one laboratory to another, and see
#   what an order, a bin and a value make of it.
# - **You need** [the encodings](70_rank_encodings.ipynb) and [the notation](../book/notation.md); the experiments are those of
#   {mod}`txfm_lite.evaluate.experiments`.
# - **It takes** `smoke` about a minute on a simulated study; `book` about 2 minutes and 2 GB on 2 CPU cores (one study is disturbed
#   live, the others were before, and stored); `full` about an hour.
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
n_seeds: int = None  # @param {type:"raw"}
study: str = None  # @param {type:"raw"}
n_cells: int = None  # @param {type:"raw"}
everything: bool = None  # @param {type:"raw"}

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from IPython.display import display

from txfm_lite import (
    TxFM,
    TxFMConfig,
    fold_changes,
    ledger,
    notebook,
    plots,
    results,
    robustness,
    studies,
)
from txfm_lite.embed import embed
from txfm_lite.evaluate import experiments, noise, transfer

cfg = notebook.resolve(
    globals(),
    valid={
        "data": ["real", "simulated"],
        "seed": (0, 2**31),
        "n_seeds": (1, 20),
        "study": str,
        "n_cells": (60, 10**6),
        "everything": bool,
    },
    profiles={
        "smoke": dict(
            data="simulated",
            n_seeds=1,
            study="simulated_f",
            n_cells=100,
            everything=False,
        ),
        "book": dict(
            data="real",
            n_seeds=1,
            study="pbmc3k_annotated",
            n_cells=500,
            everything=False,
        ),
        "full": dict(
            data="real",
            n_seeds=3,
            study="pbmc3k_annotated",
            n_cells=500,
            everything=True,
        ),
    },
)
stand_ins = studies.stand_ins(cfg.data)
notebook.banner(stand_ins)
plots.style()
folder = Path(tempfile.mkdtemp(prefix="robustness-"))
seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)

# %% [markdown]
# ## What is compared?
#
# Six rules that turn counts $c_g$ with total $N$ into input. Each becomes a matrix of cells by genes, 0 where the model is shown nothing.
#
# | name here | a gene's value in a cell | a function of the order alone? |
# |---|---|---|
# | Geneformer | its place by $c_g / m_g$, with $m_g$ the gene's median in a corpus | no: the cell's counts and fixed $m_g$ |
# | cell2sentence | its place by $c_g$, equal counts at random | yes |
# | scGPT | one of 50 bins, quantiles of the cell's own counts, equal counts at random | yes |
# | scBERT | $\lfloor\log_2(1 + 10^4 c_g / N)\rfloor$, at most 5 | no |
# | log counts | $\ln(1 + 10^4 c_g / N)$, as of scFoundation; TxFM's and GenePT-w's differ by constants | no |
# | raw counts | $c_g$ | no |
#
# scGPT is often put beside scBERT as a model of values. Its bins are made from each cell's own quantiles, so that it is a coarse rank
# encoding {cite:p}`cui2024`. The genes are those of each study, the same for all: vocabularies are not compared.
#
# Live, on one study; the others have been run and stored.

# %%
target = studies.disturbed(cfg.data, [cfg.study], cfg.n_cells)
adata = target[cfg.study]
counts, cell_types, batches = transfer.arrays(adata)
medians = robustness.gene_medians(adata)
pd.DataFrame(
    {
        "cells": adata.n_obs,
        "genes measured": adata.n_vars,
        "median total": np.median(np.asarray(counts.sum(axis=1))),
        "zeros": 1 - counts.nnz / np.prod(counts.shape),
        "ones among the rest": np.mean(counts.data == 1),
        "genes with a median": np.isfinite(medians).mean(),
    },
    index=[cfg.study],
).T.round(3)


# %%
MAKERS = {
    "families": studies.families,
    "studies": studies.disturbed,
    "amounts": studies.known_amounts,
}


def experiment(name: str) -> pd.DataFrame:
    """All stored results of an experiment, or, where there are none, a small run made now."""
    kind = experiments.EXPERIMENTS[name][2]
    if cfg.everything and not stand_ins:
        return experiments.run(name, MAKERS[kind](cfg.data), seeds)
    try:
        return results.read(f"{experiments.STUDY}/{name}")
    except FileNotFoundError:
        print("No stored results are here: what follows was made just now.")
        small = target if kind == "studies" else MAKERS[kind](cfg.data)
        return experiments.run(name, small, seeds, folder=folder)


# %% [markdown]
# ## How far apart is a cell from its own twin?
#
# Sequence a cell twice, and the two results differ by sampling. We deal each cell's molecules into two halves, or keep a share $p$ of
# them twice. The *noise ratio* puts that beside biology:
#
# $$\text{noise ratio} = \operatorname{median}_i \frac{d(x_i, x_i')}{d(x_i, x_j')},$$
#
# with $x_i, x_i'$ the encodings of two twins and $j$ another cell of the same type. At 1 a cell's own twin is no nearer than a stranger's.

# %%
experiments.run("x4-replicates", target, [cfg.seed], folder=folder).query(
    "variant in ['halves', 'ties']"
).pivot_table(index=["metric", "variant"], columns="model", values="value")[
    list(robustness.KINDS)
].round(2)

# %% [markdown]
# *Ties* are the same counts, encoded twice with two seeds. The mean of all studies, with intervals over studies:

# %% mystnb={"figure": {"caption": "Noise ratio of two replicates that keep a share of each cell's molecules, mean over studies; bars are 95 % intervals over studies. Right: two halves that share no molecule, and the same counts encoded twice.", "name": "fig-noise"}, "image": {"alt": "Left, six lines, one per encoding, that rise towards one as fewer molecules are kept. Right, six points with intervals for the two halves of a cell and six for repeated encoding, where all but scGPT and cell2sentence are at zero."}}
replicates = experiment("x4-replicates")
ratio = experiments.means(replicates, "noise ratio")
fig, (ax, bx) = plt.subplots(
    1, 2, figsize=(7, 3.6), sharey=True, width_ratios=[3, 2]
)
for k, name in enumerate(robustness.KINDS):
    look = dict(color=plots.colour(name), marker=plots.marker(name), ms=8)
    of = ratio.loc[name]
    line = of.loc[[f"{share}" for share in noise.SHARES]]
    ax.plot(noise.SHARES, line["value"], label=name, **look)
    for x, variant in enumerate(("halves", "ties")):
        point = of.loc[variant]
        bars = [[point["value"] - point["low"]], [point["high"] - point["value"]]]
        bx.errorbar(
            x + 0.12 * (k - 2.5), point["value"], np.nan_to_num(bars), lw=1, **look
        )
ax.axhline(1, color="black", ls=":", lw=1)
bx.axhline(1, color="black", ls=":", lw=1)
ax.invert_xaxis()
ax.set(
    xlabel=plots.label("molecules kept", "share"),
    ylabel=plots.label("noise ratio", "1 = no nearer than a stranger"),
)
bx.set_xticks([0, 1], ["two halves", "encoded twice"])
fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# **What we see.** By sampling alone, orders, bins and log counts are equally noisy: two halves of a cell lie about two thirds as far
# apart as two cells of a type, and in the shallow cells of `pbmc3k_annotated` just as far. (Raw counts do better for a poor reason:
# what sets two cells apart there is mostly their depth.) The difference is the noise that an encoding *adds*. Dealing out ties at
# random puts the same counts a fifth of the way to a stranger, in `pbmc3k_annotated` two fifths, with scGPT as with Cell2Sentence.
# Geneformer's medians spare it that.
#
# ## What does one molecule do?
#
# One molecule is added to a cell: to a gene at random, or to one that has a single molecule, which then leaves all its equals behind.
# How many of the *other* genes get another place, another bin or another value?

# %%
molecule = experiments.means(experiment("x4-molecule"), "moved by one molecule")
(100 * molecule["value"].unstack("variant")).loc[list(robustness.KINDS)].round(
    1
).rename_axis(columns="other genes changed [%] by a molecule of")

# %% [markdown]
# **What we see.** One molecule moves a fifth to a quarter of a list: every gene between the old and the new place shifts by one.
# scGPT's fifty bins absorb most of that, scBERT's six nearly all. In log counts *every* gene changes, through the total, each by a
# hair. How many change and how far they go are two questions; the noise ratio above answers the second.
#
# ## Are cell types still found in what is left?
#
# A probe (logistic regression) learns types from whole cells and is asked about thinned cells of other batches.

# %% mystnb={"figure": {"caption": "Balanced accuracy of a probe trained on whole cells, in cells of other batches that keep a share of their molecules; mean over studies, dotted the null.", "name": "fig-recovery"}, "image": {"alt": "Six lines, one per encoding, of accuracy against the share of molecules kept, falling to the right towards a dotted line of chance."}}
recovery = experiments.means(experiment("x4-recovery"), "recovery")
shares = (1.0, *noise.SHARES)
fig, ax = plt.subplots(figsize=(6, 3.8))
for name in robustness.KINDS:
    line = recovery.loc[name].loc[["1", *map(str, noise.SHARES)]]
    ax.plot(
        shares,
        line["value"],
        color=plots.colour(name),
        marker=plots.marker(name),
        ms=8,
        label=name,
    )
ax.axhline(recovery["null"].mean(), color="black", ls=":", lw=1)
ax.invert_xaxis()
ax.set(
    xlabel=plots.label("molecules kept", "share"),
    ylabel=plots.label("accuracy", "mean of types"),
)
fig.legend(loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# **What we see.** Down to half of the molecules, all but raw counts hold out. At a tenth, log counts are clearly ahead, scBERT's bins
# next, and both orders and scGPT's bins behind. The noise is the same (last section), so it is not that. The probe has learned places
# in long lists and is shown short ones, in which every place means something else.
#
# ## At which sparsity do ranks and values part?
#
# No probe now, only pairs of cells. A measure is good if pairs of one type are more alike than pairs of two: the AUC of that
# question. Each cell is thinned to the same sparsity. Ranks have three choices for the zeros: one tie for all, dropped, or an order
# by the genes' medians in a corpus.

# %% mystnb={"figure": {"caption": "AUC of pairs within a type against pairs between types, by the sparsity that cells are thinned to; mean over studies. Left of the gap: cells added up by twenty, as deep as bulk, and cells as measured.", "name": "fig-dose"}, "image": {"alt": "Six lines, one per measure, from high AUC for pooled cells down towards one half at 99 per cent sparsity."}}
dose = experiment("x5")
auc = experiments.means(dose, "pair AUC")
variants = ["pooled", "as measured", *map(str, noise.SPARSITIES)]
fig, ax = plt.subplots(figsize=(6.5, 4.2))
for name in noise.MEASURES:
    values = auc.loc[name].loc[variants, "value"].to_numpy()
    look = dict(color=plots.colour(name), marker=plots.marker(name), ms=8)
    ax.plot(range(2), values[:2], ls="none", **look)
    ax.plot(range(3, 3 + len(values) - 2), values[2:], label=name, **look)
ax.axhline(0.5, color="black", ls=":", lw=1)
ax.set_xticks(
    [0, 1, *range(3, 3 + len(noise.SPARSITIES))],
    ["pooled", "as is", *map(str, noise.SPARSITIES)],
    rotation=45,
)
ax.set(
    xlabel=plots.label("zeros", "share of genes"),
    ylabel=plots.label("pair AUC", "share of pairs"),
)
fig.legend(loc="outside lower center", ncols=2)
plt.show()

# %%
apart = experiments.differences(dose, "pair AUC", "log counts", "ranks, zeros tied")
print("Log counts (Euclid) minus ranks (Spearman), paired, 95 % over studies")
apart.round(3)

# %% [markdown]
# **What we see.** Ranks do not fall behind log counts as cells get sparser: from 90 % zeros on, Spearman's correlation is the better
# of the two. But the rival matters. Against the *cosine* of log counts, which ignores a cell's length as a correlation does, nothing
# is left of the difference. What does matter is the zeros. Taken as one large tie they carry most of what a rank correlation knows:
# without them the AUC falls by about 0.15 in sparse cells. Ordering the zeros by a corpus puts the same fixed order into every cell,
# and is worst.
#
# ## How much must one gene change to be seen?
#
# Here is one cell and one of its highest genes. Its count is changed, everything else stays, and we look how far the cell's encoding moves.

# %%
cell = int(np.argmax(np.asarray(counts.sum(axis=1)).ravel()))
row = counts[cell]
gene = int(row.indices[np.argsort(-row.data)[9]])  # the tenth of its genes
count = int(row[0, gene])
molecules = np.unique(np.geomspace(max(1, count / 4), count * 4, 40).astype(int))
series = row[np.zeros(len(molecules), dtype=int)].tolil()
series[:, gene] = molecules[:, None]
series = series.tocsr()
series.sort_indices()


def txfm_model() -> TxFM | str:
    """The shipped model; for simulated genes, which it does not know, an untrained one."""
    if not stand_ins:
        return "txfm-xs"
    torch.manual_seed(cfg.seed)
    config = TxFMConfig.preset(
        "tiny", adata.n_vars, d_model=32, n_blocks=1, n_heads=2
    )
    return TxFM(config, adata.var_names.tolist()).eval()


copies = AnnData(series, var=adata.var)
copies.uns["source"] = adata.uns["source"]
moved = {
    name: robustness.matrix(name, series, medians, seed=None).toarray()
    for name in ("Geneformer", "cell2sentence", "scGPT", "scBERT", "log counts")
} | {"TxFM": embed(copies, txfm_model(), seed=cfg.seed)}
start = int(np.argmin(np.abs(molecules - count)))

# %% mystnb={"figure": {"caption": "One gene of one cell is given more or fewer molecules: distance of the cell's encoding, and of TxFM's embedding, from the original, each as a share of its largest.", "name": "fig-staircase"}, "image": {"alt": "Six small panels of distance against the fold change of one gene: wide flat steps for scGPT and scBERT, small ones for Geneformer and cell2sentence, smooth valleys for log counts and TxFM."}}
fig, axes = plt.subplots(2, 3, figsize=(7, 4.2), sharex=True, sharey=True)
for ax, (name, values) in zip(axes.ravel(), moved.items(), strict=True):
    distance = np.linalg.norm(values - values[start], axis=1)
    ax.plot(
        molecules / count,
        distance / max(distance.max(), 1e-12),
        color=plots.colour(name),
        marker=".",
        ms=4,
        lw=1,
    )
    ax.set_xscale("log", base=2)
    ax.set_title(name)
fig.supxlabel(plots.label("count of the gene", "times the original"), fontsize=10)
fig.supylabel(plots.label("distance", "share of the largest"), fontsize=10)
plt.show()

# %% [markdown]
# A flat step is a change that is not seen. The smallest factor that is seen has a closed form for every encoding
# ({mod}`txfm_lite.fold_changes`): to pass the next different value, to reach the next bin, or none at all. For this gene:

# %%
where = np.flatnonzero(row.indices == gene)[0]
pd.DataFrame(
    {
        name: dict(
            zip(
                ("factor up", "factor down", "molecules more", "molecules fewer"),
                [
                    of[where]
                    for of in (
                        *fold_changes.minimum_fold_changes(name, row, medians),
                        *fold_changes.molecules_to_change(name, row, medians),
                    )
                ],
                strict=True,
            )
        )
        for name in robustness.KINDS
    }
).round(3)

# %% [markdown]
# And for all genes of all studies, with molecules whole? A gene with one molecule cannot rise by less than a factor of two.

# %% mystnb={"figure": {"caption": "Smallest factor that changes a gene's own encoding, molecules whole, by decile of its count within the cell; median of genes and cells, mean over studies. Right: genes whose doubling is not seen.", "name": "fig-folds"}, "image": {"alt": "Left, lines of the smallest visible fold change falling from two at low deciles towards one at high deciles, scBERT above the others. Right, lines of the share of genes whose doubling is not seen."}}
changes = experiment("x6")
deciles = [f"{k}" for k in range(1, experiments.DECILES + 1)]
fig, axes = plt.subplots(1, 2, figsize=(7, 3.8))
for ax, metric in zip(axes, ("up, whole", "unseen twofold"), strict=True):
    found = experiments.means(changes, metric)["value"].clip(upper=16)
    for name in robustness.KINDS:
        ax.plot(
            range(1, 11),
            found[name].reindex(deciles),
            color=plots.colour(name),
            marker=plots.marker(name),
            ms=7,
            label=name,
        )
    ax.set_xlabel(plots.label("count in the cell", "decile"))
axes[0].set_yscale("log", base=2)
axes[0].set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "none"])
axes[0].set_ylabel(plots.label("smallest visible change", "factor"))
axes[1].set_ylabel(plots.label("doubling not seen", "share of genes"))
fig.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
)
plt.show()

# %% [markdown]
# **What we see.** An order is *not* blind. Nearly every gene has equals or near neighbours, and one molecule is enough to leave them:
# below the highest decile its threshold is the smallest step that molecules allow, the same as for log counts. Only among a cell's
# first genes do neighbours stand apart, and even there about one doubling in twenty-five goes unseen. The bins are blind: about two
# doublings in five to scBERT (rare genes stay below one count per 10,000, high ones are in the last, open bin), one in five of the
# highest decile to scGPT. Without whole molecules, Geneformer would see half a per cent: the medians leave no ties. It sees a
# neighbour being passed, and who that is is mostly chance.
#
# ## Who else moves?
#
# The leak of proportions: where counts are divided by the total, a gene that doubles takes from all others. In an order, the others keep
# their order, though those that were passed move by one place, which is another position embedding.

# %%
leak = {
    metric: experiments.means(changes, metric)["value"].unstack("variant")
    for metric in ("others changed", "others moved")
}
(100 * pd.concat(leak, axis=1)).loc[list(robustness.KINDS)].round(1).rename_axis(
    columns=["other genes [%]", "doubled: a gene at random, or the first"]
)

# %% [markdown]
# **What we see.** When a cell's first gene doubles, a tenth of the other genes change their scBERT bin without having changed, and in
# log counts all do. Among the others, orders change nothing. But a gene at random that doubles pushes a fifth of the list by one
# place.
#
# ## Is the absolute scale lost?
#
# Triple all counts of a cell: the order stays, and so does everything that is divided by the total. So orders *should* know nothing
# about how much RNA a cell has. {cite:t}`tian2019` pipetted known amounts of RNA, 3.75 to 30 pg, in eight mixtures of three cell
# lines. A probe names the amount in mixtures that it has not seen.

# %%
scale = experiment("x7")
amount = experiments.means(scale, "amount accuracy")
amount["value"].unstack("variant").join(
    amount["null"].groupby("model").mean().rename("null")
).join(
    scale[scale["metric"] == "changed by scaling"]
    .groupby("model")["value"]
    .mean()
    .rename("entries changed by tripling")
).round(3)

# %% [markdown]
# **What we see.** Scaling leaves all but raw counts as they were (last column), and still the probe reads the amount from an *order*,
# better than from log counts. For more RNA is not the same cell tripled: more molecules show more genes, lists grow longer, and with
# them every place and every quantile. Depth comes back through the zeros. At one total, little of it is left. The total as one more
# column among thousands adds nothing that was not there; alone with the number of genes (*depth*) it does best.
#
# ## The ranks or the zeros?
#
# Two probes, each blind on one eye. One sees which genes are there and not how many. The other sees the places of the genes that are
# there, and an absent gene looks to it like one at its usual place.

# %%
live = experiments.run("x8", target, [cfg.seed], folder=folder)
live.set_index("model")[["value", "null"]].round(3)

# %% mystnb={"figure": {"caption": "Balanced accuracy for cell types in new batches, by what the probe is shown; one panel per study, dotted the null. Small marks are seeds.", "name": "fig-parts"}, "image": {"alt": "Dot plots, one panel per study: accuracy of probes on presence, on ranks of detected genes, on both, on raw and on log counts, with a dotted line for chance."}}
parts = experiment("x8")
panels = list(parts["dataset"].unique())
n_rows = -(-len(panels) // 3)
fig, axes = plt.subplots(
    n_rows,
    min(3, len(panels)),
    figsize=(7, 0.6 + 1.6 * n_rows),
    sharey=True,
    squeeze=False,
)
for ax in axes.ravel()[len(panels) :]:
    ax.set_visible(False)
for ax, name in zip(axes.ravel(), panels, strict=False):
    of = parts[parts["dataset"] == name]
    for y, part in enumerate(reversed(transfer.PARTS)):
        values = of.loc[of["model"] == part, "value"]
        look = dict(color=plots.colour(part), marker=plots.marker(part), ms=8)
        ax.plot(values, np.full(len(values), y), ls="none", **look)
    ax.axvline(of["null"].mean(), color="black", ls=":", lw=1)
    ax.set_title(name.replace("_", " "), fontsize=8)
    ax.set_ylim(-0.6, len(transfer.PARTS) - 0.4)
axes[0, 0].set_yticks(range(len(transfer.PARTS)), list(reversed(transfer.PARTS)))
fig.supxlabel(plots.label("accuracy", "mean of types"), fontsize=10)
plt.show()

# %% [markdown]
# **What we see.** Which genes are there says nearly as much as the log counts do. How those are ordered says less, in shallow cells
# much less, whether ties are broken at random (*R*) or shared (*r*); and on top of presence a linear probe gains nothing from it. The
# exception is the lung lines, deep and easy, where either is enough. "Rank encodings drop the zeros" is half the story: a list of
# detected genes is itself the complement of the zeros, and this is the better half of what it tells.
#
# ## Do ranks travel better between laboratories?
#
# This is the claim *for* orders. Four families of studies hold the same cell types in other chemistries or other hands: lung cell lines
# (CEL-seq2, Drop-seq, 10x), blood in three chemistries, blood of four laboratories, pancreas in three. A probe is trained on study A and
# asked about other cells of A (A') and about B:
#
# $$\text{drop} = \text{acc}(A \to A') - \text{acc}(A \to B).$$

# %%
travels = experiment("x3")
summary = travels[travels["variant"] == "mean"]
home, away, pooled = (
    experiments.means(summary, m)["value"].droplevel("variant")
    for m in ("accuracy at home", "accuracy away", "accuracy away, pooled")
)
drop = experiments.means(summary, "drop").droplevel("variant")
pd.DataFrame(
    {
        "A to A'": home,
        "A to B": away,
        "A to B, 20 cells pooled": pooled,
        "drop": drop["value"],
        "low": drop["low"],
        "high": drop["high"],
        "null drop": drop["null"],
    }
).loc[list(robustness.KINDS)].round(3)

# %% mystnb={"figure": {"caption": "Accuracy lost from study A to study B: each mark is an ordered pair of studies and an encoding, mean over splits; one panel per family. Right is a larger loss.", "name": "fig-drop"}, "image": {"alt": "Dot plots, one panel per family of studies, with one row per encoding: the loss of accuracy for each ordered pair, and a line at the mean."}}
pairs = travels[(travels["metric"] == "drop") & (travels["variant"] != "mean")]
of_pair = pairs.groupby(["dataset", "model", "variant"])["value"].mean()
panels = list(pairs["dataset"].unique())
n_rows = -(-len(panels) // 2)
fig, axes = plt.subplots(
    n_rows,
    min(2, len(panels)),
    figsize=(7, 0.6 + 1.9 * n_rows),
    sharey=True,
    squeeze=False,
)
names = list(reversed(robustness.KINDS))
for ax, family in zip(axes.ravel(), panels, strict=True):
    for y, name in enumerate(names):
        values = of_pair[family, name]
        look = dict(color=plots.colour(name), marker=plots.marker(name), ms=7)
        ax.plot(values, np.full(len(values), y), ls="none", alpha=0.7, **look)
        ax.plot([values.mean()] * 2, [y - 0.35, y + 0.35], color="black", lw=1.5)
    ax.axvline(0, color="black", ls=":", lw=1)
    ax.set_title(family.replace("_", " "))
axes[0, 0].set_yticks(range(len(names)), names)
fig.supxlabel(plots.label("drop", "accuracy lost"), fontsize=10)
plt.show()

# %% [markdown]
# And do the studies lie in one cloud? Of A and B in one matrix, 50 components: *kNN* names a cell by its neighbours in the other study.
# Mixing scores alone are no merit (an embedding that knows nothing mixes perfectly, see [the chapter on cell types](50_cell_types.ipynb)).

# %%
pd.DataFrame(
    {
        metric: experiments.means(summary, metric)["value"].droplevel("variant")
        for metric in ("kNN", "iLISI", "ASW l/b", "PCR", "drop per tenfold depth")
    }
).loc[list(robustness.KINDS)].round(3)

# %% [markdown]
# **What we see.** In three families all encodings but raw counts travel well, and nobody has an advantage. Between the laboratories
# of blood, where it matters, *orders and scGPT's bins lose more* than log counts and scBERT's bins, not less. The worst pairs are
# with the study that lists 4,060 genes at two to four times the depth of the others: what a place means depends on how long the list is. That is
# also why pooling twenty cells, which helps values, hurts orders: a list that is much longer is another language. What saves an order
# from depth, that it drops the numbers, also makes it forget the number that would explain the shift. One caveat: our places are
# shares of the list's length; a model with position embeddings would count them from the top.
#
# ## What the ledger makes of it
#
# The hypotheses and their rules were written down before the first of these results.

# %%
with pd.option_context("display.max_colwidth", None):
    display(ledger.table("notebooks/75_rank_robustness"))

# %% [markdown]
# ## Compared with the sources
#
# | statement | source | here |
# |---|---|---|
# | an order is steadier than counts against technical artefacts | {cite:t}`theodoris2023`, an argument | [measured](#do-ranks-travel-better-between-laboratories), by a linear probe, on shared genes |
# | rank encodings suffer from noise and sparsity | {cite:t}`scrnaseq_assumptions2023`, a limitation for future work | [replicates](#how-far-apart-is-a-cell-from-its-own-twin) and [doses](#at-which-sparsity-do-ranks-and-values-part) |
# | rank encodings drop the zeros, and with them information | the same | [presence against order](#the-ranks-or-the-zeros) |
# | a rank does not see a change that keeps the order | the same | [closed forms](#how-much-must-one-gene-change-to-be-seen), checked against brute force in the tests |
# | scGPT encodes values | the same | its bins are a function of the order within a cell |
#
# What a linear probe on the input cannot say is what a large model makes of it. Pretraining may repair an encoding, or spoil it:
# [the next chapter](78_head_to_head.ipynb) trains small models on each.
#
# ## Exercises
#
# 1. (easy) Run the chapter on another study (`-p study darmanis_brain`): read counts, half a million per cell. Which of the first two figures
#    changes most?
#
# :::{dropdown} Solution
# The noise ratios fall for all encodings: a twin of half a million reads is nearly the cell itself. Ones are rare, so ties are, and
# encoding twice hardly differs.
# :::
#
# 2. (medium) Raise *all* genes of a pathway by a factor of 1.3 in one cell. Which encodings see it? Use `robustness.matrix` before and after.
#
# :::{dropdown} Solution
# Values see each gene. Orders see those genes that pass a neighbour, which in a dense part of the order nearly all do; among
# singletons none does, since 1.3 of a molecule does not exist.
# :::
#
# 3. (hard) Give the probe of the last section the union of both studies' genes instead of the shared ones. Whose drop grows?
#
# :::{dropdown} Solution
# A gene that B did not measure is a zero there. Places shift with the length of the list, so orders change at every gene; values change
# at the missing genes, and through the total.
# :::
#
# **Ask yourself.** Why is a noise ratio of one half better than a distance of 12? Why does a list of places still tell the depth?
# What would the drop be if A' came from another batch than the training cells?
#
# ## Takeaways
#
# - Ask [what a noise ratio is relative to](#how-far-apart-is-a-cell-from-its-own-twin): a distance alone is no noise.
# - Ranks keep up with values [as cells get sparser](#at-which-sparsity-do-ranks-and-values-part), if the zeros are ranked with them.
# - [Bins, not orders, are blind](#how-much-must-one-gene-change-to-be-seen) to the change of one gene.
# - An order still [tells the depth](#is-the-absolute-scale-lost), through its length.
# - [Presence](#the-ranks-or-the-zeros) carries most of the cell type, and an order adds little to it.
# - That orders [travel better](#do-ranks-travel-better-between-laboratories) is not seen here; where studies differ most, they travel worse.
#
# ## Where the numbers come from

# %%
notebook.provenance(cfg, data=[adata])
