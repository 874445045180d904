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
# # Ablations: which choices matter?
#
# {cite:t}`kenyondean2026` change one thing at a time in TxFM: the loss, the count activation, what is shown, what is trained on, how deep
# and how wide. Their Table 5 is why the default is the default. Here it is rerun, whole, at a size that a night on two cores affords,
# with seeds. What can be repeated is not the numbers but the *directions*: does a change that helped there help here?
#
# :::{admonition} At a glance
# - **You will** run a part of the grid yourself, see all of it beside the paper's, tell a difference from noise between seeds, watch what a
#   ceiling on the rate is good for, and cut a screen to its phenoprints.
# - **You need** [pretraining](30_pretrain.ipynb), [perturbations](40_perturbations.ipynb) for consistency, [genes](60_genes.ipynb) for recall.
# - **It takes** `smoke` about a minute on simulated studies; `book` about 2 minutes and 2 GB on 2 CPU cores (three tiny runs live, and their
#   data, which are kept); `full` the stored grid: `python benchmarks/ablations.py`, some hours of one core; it can stop and go on.
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
panels: str = ""  # @param {type:"string"}
settings: str = None  # @param {type:"raw"}
n_genes: int = None  # @param {type:"raw"}
n_revealed: int = None  # @param {type:"raw"}
d_model: int = None  # @param {type:"raw"}
batch_size: int = None  # @param {type:"raw"}
samples: int = None  # @param {type:"raw"}
run_dir: str = ""  # @param {type:"string"}

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from txfm_lite import (
    ablate,
    ablate_data,
    datasets,
    ledger,
    notebook,
    plots,
    results,
    studies,
)
from txfm_lite.baselines import embed_pca
from txfm_lite.embed import embed
from txfm_lite.evaluate import ablations
from txfm_lite.files import cache_directory
from txfm_lite.phenoprints import ALPHA, phenoprints

cfg = notebook.resolve(
    globals(),
    valid={
        "data": ["real", "simulated"],
        "seed": (0, 2**31),
        "n_seeds": (1, 20),
        "panels": str,
        "settings": str,
        "n_genes": (50, 50_000),
        "n_revealed": (4, 50_000),
        "d_model": (8, 2048),
        "batch_size": (1, 10_000),
        "samples": (16, 10**9),
        "run_dir": str,
    },
    profiles={
        "smoke": dict(
            data="simulated",
            n_seeds=1,
            settings="ReLU",
            n_genes=300,
            n_revealed=64,
            d_model=16,
            batch_size=16,
            samples=320,
        ),
        "book": dict(
            data="real",
            n_seeds=1,
            settings="MSE, ReLU",
            n_genes=1024,
            n_revealed=128,
            d_model=32,
            batch_size=64,
            samples=12_800,
        ),
        "full": dict(
            data="real",
            n_seeds=3,
            settings=", ".join(s.name for s in ablate.settings()),
            n_genes=2048,
            n_revealed=256,
            d_model=64,
            batch_size=64,
            samples=204_800,
        ),
    },
)
stand_ins = studies.stand_ins(cfg.data)
notebook.banner(stand_ins)
plots.style()
folder = Path(cfg.run_dir or tempfile.mkdtemp(prefix="ablations-"))

# %% [markdown]
# ## What is changed, one at a time?
#
# One default, and every other row of the grid differs from it in one thing. All rows see equally many samples (one says that it sees twice as
# many), and nobody's learning rate is tuned for them: a setting that needs another rate loses here, as it does in the paper. What is a
# number in the paper is a ratio here: $K$ genes are shown of a few thousand, and `K / 4` stands for its 512 of 2,048. Sizes are widths.

# %%
size = ablate.Size(
    n_genes=cfg.n_genes,
    n_revealed=cfg.n_revealed,
    widths=(cfg.d_model // 2, cfg.d_model, cfg.d_model * 2),
    n_components=cfg.d_model // 4,
    batch_size=cfg.batch_size,
    samples=cfg.samples,
)
every = ablate.settings(size)
grid = pd.DataFrame(
    {
        "panel": f"{s.panel}: {ablate.PANELS[s.panel]}",
        "here": s.name,
        "in the paper": s.paper or "–",
        "what differs": ", ".join(f"{k} = {v}" for k, v in s.model.items())
        or f"data: {s.data}"
        + (f", {s.compute:g}x samples" if s.compute > 1 else ""),
    }
    for s in every[1:]
)
display(grid.set_index(["panel", "here"]))
for row, why in ablate.NOT_RUN.items():
    print(f"Not run: {row}: {why}.")

# %% [markdown]
# ## What is scored?
#
# The paper's three: the share of *consistent perturbations* in screens, and how many known pairs the *codebook* and the *decoder* recall.
# Each is compared with the default. A share $k/n$ of perturbations by
#
# $$z = \frac{k_1/n_1 - k_0/n_0}{\sqrt{\bar p\,(1-\bar p)\,(1/n_1 + 1/n_0)}}, \qquad \bar p = \frac{k_1+k_0}{n_1+n_0},$$
#
# the others by a t test, and all $p$ of a score together are corrected after Benjamini and Hochberg. One thing differs: the paper's t test has
# three draws of the null of *one* model on each side. That asks whether the null is noisy. Ours has *trainings* on each side, so that it asks
# whether the setting would win again. Intervals are over trainings, too.
#
# And *consistent* means consistent against permuted labels here, fifty cells per perturbation: by the paper's own test no perturbation of
# our held-out screen has been yet ([why](40_perturbations.ipynb)), with all cells and the calibrated test nearly every one, and a score at its floor or ceiling
# compares nothing.
#
# ## Run some of it
#
# The default and what `settings` and `panels` name, at this page's size. What was trained before in `run_dir` is only read.

# %%
kept = "simulated"
if not stand_ins:  # made anew for another corpus
    kept = f"{studies.common_corpus().fingerprint[:12]}-{cfg.n_genes}"
home = cache_directory() / "ablations" / kept
prepared = ablate_data.prepare(home, cfg.data, cfg.n_genes)
names = [x.strip() for x in cfg.settings.split(",") if x.strip()]
letters = [x.strip() for x in cfg.panels.split(",") if x.strip()]
for setting in ablate.choose(letters, names, size):
    for k in range(cfg.seed, cfg.seed + cfg.n_seeds):
        ablate.run(setting, k, size, prepared, folder, folder / "results")
live = results.read(ablate.STUDY, folder / "results")
live = live.assign(score=live["metric"] + " " + live["variant"])
live.pivot_table("value", ["dataset", "score"], "model").round(3)

# %% [markdown]
# Two screens are in the table. Of the first nothing was ever trained on. Of the second, one batch of cells is among the training data (that is
# panel h), and other batches are scored: they say what it helps to have seen the *screen*. Only the first counts in what follows.
#
# ## Ours and the paper's, side by side

# %%
try:
    if stand_ins or cfg.profile == "full":
        raise FileNotFoundError
    where, source = ablate.STUDY, None
    stored = results.read(where)
except FileNotFoundError:
    where, source = ablate.STUDY, folder / "results"
    stored = results.read(where, source)
    if not stand_ins:
        text = "*What follows are the runs of this page. The whole grid is not "
        text += (
            "stored yet: `python benchmarks/ablations.py --run-dir runs` makes it.*"
        )
        display(Markdown(text))
table = ablations.table(stored).sort_index()
n_runs, n_settings = (
    stored["run"].nunique(),
    stored[["panel", "model"]].drop_duplicates().shape[0],
)
print(
    f"{n_runs} runs of {n_settings} of {len(every)} settings, "
    f"{stored['samples'].min():,} samples each or more"
)

# %% mystnb={"figure": {"caption": "Difference from the default, in points of per cent. Filled: ours, with 95 % intervals over seeds where there are several; hollow: the paper's. A ring around a filled mark: significant after correction.", "name": "fig-ablations"}, "image": {"alt": "Eight small panels, one per group of settings: for each setting, filled marks for our differences in three scores and hollow marks for the paper's, around a vertical line at zero."}}
LOOK = {
    "perturbations": ("#0072B2", "o"),
    "codebook": ("#D55E00", "s"),
    "decoder": ("#009E73", "^"),
}
printed = 100 * ablations.in_print()["difference"]
shown = {p: [s for s in every if s.panel == p] for p in sorted(ablate.PANELS)}
fig, axes = plt.subplots(4, 2, figsize=(7.4, 8.6))
for ax, (panel, rows) in zip(axes.flat, shown.items(), strict=True):
    ax.axvline(0, color="black", lw=0.8)
    for y, s in enumerate(reversed(rows)):
        for i, (score, (colour, marker)) in enumerate(LOOK.items()):
            at = y + 0.25 * (1 - i)
            look = dict(color=colour, marker=marker, ms=5, ls="none")
            theirs = printed.get((panel, s.paper, score), np.nan)
            ax.plot(theirs, at, **look, mfc="white")
            if (panel, s.name, score) not in table.index:
                continue
            r = table.loc[(panel, s.name, score)]
            ax.plot(100 * r["difference"], at, **look)
            ax.plot([100 * r["low"], 100 * r["high"]], [at, at], color=colour)
            if r["q"] < 0.05:
                ring = look | dict(marker="o", ms=11, mfc="none")
                ax.plot(100 * r["difference"], at, **ring)
    ax.set_yticks(range(len(rows)), [s.name for s in reversed(rows)], fontsize=8)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_title(f"{panel}: {ablate.PANELS[panel]}", fontsize=9)
    if panel not in table.index.get_level_values("panel"):
        ax.set_title("not run here", loc="right", fontsize=8)
handles = [
    plt.Line2D([], [], color=c, marker=m, ls="none", label=s)
    for s, (c, m) in LOOK.items()
]
fig.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8)
fig.supxlabel(plots.label("difference from the default", "points"), fontsize=9)
plt.show()

# %% [markdown]
# Where hollow and filled marks are on the same side of the line, the directions agree. But a filled mark whose interval crosses the line is on no
# side at all. Of each setting and score one of four things can be said:

# %%
columns = ["ours", "default", "difference", "low", "high", "q", "paper"]
shares = table[columns[:5] + ["paper"]].mul(100).round(1)
shares.insert(5, "q", table["q"].round(3))
display(shares.assign(verdict=table["verdict"]))
table.groupby(["score", "verdict"]).size().unstack(fill_value=0)

# %% [markdown]
# `q` is the corrected $p$ of the test; the interval knows nothing of it. They can disagree: the z test takes perturbations for independent draws,
# but a screen's perturbations are the same ones in every training, and some share a pathway.
#
# **What we see.** By the three scores of the paper nearly everything is free here. Twenty-five perturbations move in steps of four points, and
# trainings of one and the same default lie between 24 and 32 %; recall lies just above its chance of 10 % for the codebook, and between 16 and
# 17 % for the decoder. Three differences have intervals that exclude zero. The small model finds eleven points fewer consistent perturbations; the
# paper's, four. But its codebook recalls two points *more*, and without division by the library size the codebook recalls four points more, both
# against the paper, and why is not known. Corrected for all settings, $q$ is 0.06 for the two codebooks and 1 for the perturbations, whose test
# takes the screen's few for independent draws. The next table says what else these changes cost.
#
# ## What goes with it?
#
# Three scores are a choice. Reconstruction of validation batches, in one unit for all losses, and cell types of held-out studies are two more;
# the paper's own test of perturbations stands beside ours. Differences from the default, in points:

# %%
beside = {}
for name, of in ablations.BESIDE.items():
    found = ablations.compare(stored, *of)
    beside[name] = 100 * found["difference"]
    beside[f"{name} ±"] = 100 * (found["high"] - found["low"]) / 2
pd.DataFrame(beside).sort_index().round(1)

# %% [markdown]
# **What we see.** Reconstruction and cell types are sharper scores, and in them choices count. Without division by the library size, types of
# held-out studies are told apart worse by thirty points. Fewer genes shown cost both: half as many about five points of either, a quarter
# eight to ten. Squared and smooth absolute errors and the softmax give counts back badly and lose no cell types: another goal, not a worse
# embedding. The decoder's depth, a ceiling on the rate and what is kept of the screen make no difference that three trainings could show.
#
# ## Does the ranking change with more samples?
#
# The paper trains each setting on hundreds of millions of samples. If a setting's rank among the others depends on how many were seen, a small
# grid is no guide to a large one. Every grid of another number of samples that is stored is compared with this one:

# %%
others = (
    [] if stand_ins else sorted(results.directory().glob(f"{ablate.STUDY}-[0-9]*"))
)
for other in others:
    second = ablations.table(results.read(other.name))
    both = table[["difference"]].join(second["difference"].rename("other"))
    both = both.dropna()
    rank = both.groupby("score").corr("spearman")["other"].xs("difference", level=1)
    print(f"{other.name}: Spearman of {len(both) // 3} settings' differences")
    print(rank.round(2).to_string())
if not others:
    quarter = ablate.SIZES["full"].samples // 4
    command = f"--run-dir runs-small --samples {quarter}"
    text = "*Not run here: `python benchmarks/ablations.py "
    display(Markdown(f"{text}{command}` stores a second size.*"))

# %% [markdown]
# **What we see.** At a quarter of the samples, with one training each, the orders agree little or not at all: where differences are within what
# trainings differ by, so is their order. Whether a small grid is a guide to a large one stays open for the three scores of the paper.
#
# ## Does ReLU diverge?
#
# In the paper, a plain ReLU became NaN midway. The reason would be the loss: its gradient with respect to a log-rate is
# $\mathrm{e}^{\hat x} - \mathrm{e}^{x}$, and nothing but the activation keeps $\hat x$ below the library, $\log(L+1) = 11.5$. One logit of 20
# is a gradient of half a billion for its gene. Gradients are clipped to length 1, so that such a step is not *long*, but it is the outlier's alone: whatever
# the other samples say is divided by the same number. Length of the longest gradient between two looks, before clipping:

# %% mystnb={"figure": {"caption": "Longest gradient since the look before, before it is clipped, and loss on validation batches; activations, mean and range over seeds. A cross: the loss was no number any more.", "name": "fig-relu"}, "image": {"alt": "Two line charts against samples seen: length of the longest gradient on a logarithmic axis, and share explained, one line per activation."}}
looks = ablations.curves(where, source)
looks = looks[looks["panel"].isin(["default", "f"])]
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3))
styles = zip(("-", "--", "-.", ":"), ("o", "s", "^", "D"), strict=True)
for (name, part), (line, marker) in zip(
    looks.groupby("model"), styles, strict=False
):
    label = "rectified tanh (default)" if name == "default" else name
    for ax, quantity in zip(axes, ("gradient", "explained"), strict=True):
        of = part.dropna(subset=quantity).groupby("samples")[quantity]
        mean = of.mean()
        ax.plot(mean, ls=line, marker=marker, ms=4, label=label)
        ax.fill_between(mean.index, of.min(), of.max(), alpha=0.2)
        if part["diverged"].notna().any():
            ax.plot(mean.index[-1], mean.iloc[-1], "kx", ms=10)
axes[0].set_yscale("log")
axes[0].set(
    xlabel=plots.label("samples seen", "number"),
    ylabel=plots.label("longest gradient", "length"),
)
axes[1].set(
    xlabel=plots.label("samples seen", "number"),
    ylabel=plots.label("explained", "share"),
)
axes[1].set_ylim(bottom=max(-0.3, axes[1].get_ylim()[0]))
axes[0].legend(fontsize=8)
plt.show()

# %%
step = looks.groupby(["model", "seed"])["diverged"].first().unstack()
step.rename_axis(columns="seed").fillna("did not diverge")

# %% [markdown]
# **What we see.** It does not, within 205,000 samples. In the stored grid two of three trainings with ReLU score the same with a ceiling and
# without, to the last digit: no rate met it. In the third some did, and three scores of thirteen differ from the fifth decimal on. Gradients calm
# down after the first looks, as those of the rectified tanh do. The paper's came midway through a thousand times as many samples, in a larger
# model. What a ceiling is good for there, this grid cannot say.
#
# ## What is a phenoprint?
#
# A genome-wide screen is mostly perturbations without an effect. The paper keeps those whose cells look alike to a model trained *before*
# (consistency with $p < 0.1$), and all controls; a quarter of its K562 cells are left. Panel h asks whether that helps. We do the same with the
# one screen that may train here, and the shipped model, by the paper's test and by the calibrated one:

# %%
screen = studies.screen(datasets.load(prepared.info["screen"]))
earlier = embed_pca(screen, 16) if stand_ins else embed(screen, "txfm-xs")
prints = {
    against: phenoprints(screen, earlier, against=against, seed=cfg.seed)
    for against in ("single cells", "permutations")
}
print(f"{screen.n_obs:,} cells with one known guide")
pd.DataFrame(
    {
        against: {
            "kept": len(p.kept),
            "dropped": len(p.dropped),
            "cells left, controls included": f"{p.cells.sum():,}",
            "kept perturbations": ", ".join(p.kept[:8]) or "none",
        }
        for against, p in prints.items()
    }
)

# %% mystnb={"figure": {"caption": "p of every perturbation of the training screen, sorted, by the paper's test (against single cells) and against permuted labels. Kept is what lies below the dashed line.", "name": "fig-phenoprints"}, "image": {"alt": "Two rising curves of sorted p-values, one per test, with a dashed line at one tenth and a thin diagonal for perturbations without any effect."}}
fig, ax = plt.subplots(figsize=(6, 3))
for (against, p), (colour, marker) in zip(
    prints.items(), (("#7F7F7F", "^"), ("#0072B2", "o")), strict=True
):
    values = p.table["p"].dropna().sort_values().to_numpy()
    place = (np.arange(len(values)) + 0.5) / len(values)
    ax.plot(place, values, marker, ls="-", color=colour, ms=4, label=against)
ax.axhline(ALPHA, color="black", ls="--", lw=1)
ax.plot([0, 1], [0, 1], color="black", lw=0.6)
ax.set(
    xlabel=plots.label("perturbations, sorted", "share"),
    ylabel=plots.label("p"),
)
ax.legend(title="compared with")
plt.show()

# %% [markdown]
# The diagonal is where a calibrated test puts perturbations without an effect: a tenth of them is kept at 0.1, whatever the screen. The paper's
# test compares an *average* of many cells with *single* ones: where effects are small beside the noise of a cell, it keeps nothing. The variants of panel h use the permutations, in one batch of the screen:

# %%
found = prepared.info["phenoprints"]
with np.load(prepared.path / "variants.npz") as file:
    n_cells = {k: int(v.sum() - file["none"].sum()) for k, v in file.items()}
print("kept:", ", ".join(found["kept"]))
print("dropped:", ", ".join(found["dropped"]))
pd.Series(n_cells, name="cells of the screen that train").to_frame()

# %% [markdown]
# `random` has as many cells as `curated`, from anywhere in the batch: if curation is worth something, and not just fewer cells of a kind that is
# unlike the rest, `curated` beats it.
#
# ## What the claims come to
#
# By rules that were written before the grid was run:

# %%
if not stand_ins:
    with pd.option_context("display.max_colwidth", None):
        display(ledger.table("notebooks/65_ablations"))

# %% [markdown]
# ## Compared with the paper
#
# | | paper | here |
# |---|---|---|
# | default | 12 blocks, 768 wide, 159 M parameters | one block, 64 wide, well below a million |
# | genes, shown | 44,349; 2,048, about a tenth of those measured | two and a half thousand; 256, about a tenth |
# | samples seen | about 287 million | about 205,000 |
# | learning rate | 1e-3 | 5e-3, for all settings |
# | gene vectors start | at random, as far as is said | a quarter at principal axes: in a trial with more genes, twice the samples without them explained 8 % instead of 12 % |
# | training screen | K562, 1.9 million cells, whole transcriptome | K562, 20,719 cells of one batch, 366 genes |
# | "57 M cells, uncurated" | Tabula Sapiens and more | none; as many random cells of the screen instead |
# | perturbations scored | whole transcriptomes | one held-out screen, 25 knockouts, 299 genes |
# | consistent | by the paper's test | against permuted labels, 50 cells each |
# | replicates | three draws of a null | three trainings |
#
# So a direction that does not show here is not refuted: 25 perturbations can tell only large differences, and one block of width 64 has little
# depth to lose. A direction that does show is the stronger for it.
#
# ## What to take into practice
#
# At this size: divide by the library size, and show as many genes as you can pay for. Take the Poisson loss if you want counts back. The rest is
# free, so take the cheaper: a decoder of one layer, no second screen, no larger model; but perhaps not a smaller one. With another goal, look
# up the score that is yours in the tables, then the width of its interval: a choice whose interval crosses zero is no finding. Change the
# learning rate before you blame a loss. And look at the validation loss last: it ranks settings by reconstruction, which is not what the
# embedding is for.
#
# ## Exercises
#
# 1. (easy) Run another panel live: `-p panels e`. How far apart are the depths of the decoder, compared with two seeds of one depth?
#
# :::{dropdown} Solution
# `-p panels e -p settings "" -p n_seeds 2`. At this size differences between depths are about as large as those between seeds: then the number of
# layers is not a finding.
# :::
#
# 2. (medium) Give MSE a fair chance: `ablate.Size(learning_rate=...)` with three rates. Does its rank against Poisson change?
#
# :::{dropdown} Solution
# Each loss has its own scale, and AdamW divides most of it out, but clipping does not. Choose each rate on validation batches by a score that both
# have in common (`Poisson explained` favours Poisson; the probe does not), then compare on held-out studies.
# :::
#
# 3. (hard) Test curation itself: write a variant with as many cells as `curated` from the *dropped* perturbations. What do you expect?
#
# :::{dropdown} Solution
# `phenoprints(...).dropped` names them; `variants.npz` is a mask over the corpus' rows. If cells without a consistent effect are as useful, it was
# the number of cells that helped, not their selection.
# :::
#
# **Ask yourself.** Why do three draws of a null say nothing about another training? Why can a setting be significant by the z test while its
# interval over seeds includes zero? What would be a fair default if every setting had its own learning rate?
#
# ## Takeaways
#
# - One change at a time needs [one recipe for all](#what-is-changed-one-at-a-time), which favours the setting the recipe was made for.
# - Replicates are [trainings, not draws of a null](#what-is-scored); without them a table of differences cannot be read.
# - An unbounded rate could put one outlier in charge of a step. [It did not here](#does-relu-diverge): gradients say so before a loss is NaN.
# - [Reconstruction and cell types](#what-goes-with-it) tell settings apart at a size where 25 perturbations do not.
# - [Curation](#what-is-a-phenoprint) is only as good as the test that curates.
#
# ## Where the numbers come from

# %%
notebook.provenance(cfg, data=[prepared.whole, screen])
