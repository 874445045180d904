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
# # Anatomy of TxFM: one cell's journey
#
# A cell comes in as counts and leaves as one number, the loss. In between it is scaled, mostly hidden, gathered into one vector and
# predicted back, gene by gene. This chapter follows one real cell all the way through the model of {cite:t}`kenyondean2026`, with the
# shapes and numbers that a programmer would print, and asks at every station why it is built that way.
#
# :::{admonition} At a glance
# - **You will** compute every step from counts to loss by hand, derive the loss's gradient and check it, see why the output is a
#   rectified tanh and what happens without a ceiling, and count parameters and operations before you pay for them.
# - **You need** [the corpus](10_corpus.ipynb) and [the notation](../book/notation.md).
# - **It takes** `smoke` about 10 s on simulated studies; `book` and `full` half a minute and 1.5 GB on one CPU core (plus the
#   corpus, if it is not built yet).
# - **Sliders** work on this page as they are. In a live notebook set `live = True`: they then draw what you ask for.
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
row: int = -1  # @param {type:"integer"}   which sample of the corpus; -1: see below
n_revealed: int = None  # @param {type:"raw"}
d_model: int = 64  # @param {type:"integer"}
n_seeds: int = None  # @param {type:"raw"}
steps: int = None  # @param {type:"raw"}
live: bool = False  # @param {type:"boolean"}   sliders that draw on demand

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from txfm_lite import TxFM, TxFMConfig, explore, notebook, plots, studies, training

cfg = notebook.resolve(
    globals(),
    valid={
        "data": ["real", "simulated"],
        "seed": (0, 2**31),
        "row": (-1, 10**9),
        "n_revealed": (8, 50_000),
        "d_model": (8, 2048),
        "n_seeds": (1, 10),
        "steps": (12, 10_000),
        "live": bool,
    },
    profiles={
        "smoke": dict(data="simulated", n_revealed=256, n_seeds=1, steps=16),
        "book": dict(data="real", n_revealed=2048, n_seeds=3, steps=60),
        "full": dict(data="real", n_revealed=2048, n_seeds=3, steps=60),
    },
)
stand_ins = studies.stand_ins(cfg.data)
notebook.banner(stand_ins)
plots.style()
torch.manual_seed(cfg.seed)
corpus = studies.training_corpus(data=cfg.data)

# %% [markdown]
# ## What is a cell, to a computer?
#
# A row of whole numbers: how many molecules of each gene were caught. We take a monocyte of median depth from a validation batch
# (any row of the corpus will do: set `row`). Its study decides which genes it *could* report, its measured genes; all others are
# not zero but unknown, and stay out of everything below.

# %%
obs = corpus.obs()
kind = "type 1" if stand_ins else "CD14+ Monocyte"
of_kind = np.flatnonzero(
    (obs["split"] == "validation") & (obs["cell_type"] == kind)
)
by_depth = of_kind[np.argsort(corpus.library_size[of_kind])]
chosen = cfg.row if cfg.row >= 0 else int(by_depth[len(by_depth) // 2])

counts = torch.from_numpy(corpus.csr([chosen]).toarray())  # (1, G)
measured = torch.from_numpy(corpus.measured[corpus.dataset[[chosen]]])  # (1, G)
total = torch.tensor([corpus.library_size[chosen]]).float()  # (1,)
G, M = corpus.n_genes, int(measured.sum())
n_expressed = int((counts > 0).sum())
obs.iloc[[chosen]].T

# %%
print(f"{G:,} genes in the vocabulary; {M:,} of them measured in this study")
print(f"{n_expressed:,} genes with a count, {total.item():,.0f} counts in all")
top = counts[0].topk(8)
names = [str(corpus.genes[g]) for g in top.indices]
pd.DataFrame({"gene": names, "count": top.values.int()}).set_index("gene").T

# %% [markdown]
# ## Why scale, why log?
#
# Another cell of the same kind may have been counted twice as deeply. So every count $c_g$ is scaled to a common library size $L$
# and logged, so that a doubling is the same step for a rare gene as for a frequent one:
#
# $$x_g = \log\left(1 + L\,\frac{c_g}{\sum_{g'} c_{g'}}\right)$$

# %%
from txfm_lite.objectives import LIBRARY_SIZE
from txfm_lite.txfm import log_normalise

x = log_normalise(counts, total)  # (1, G)
largest = int(counts.max())
by_hand = math.log(1 + LIBRARY_SIZE * largest / total.item())
assert x.shape == counts.shape and math.isclose(
    x.max().item(), by_hand, rel_tol=1e-5
)
print(f"a count of 1 becomes {x[counts > 0].min():.2f}")
print(f"the largest, {largest}, becomes {x.max():.2f}")
print(f"the ceiling, all counts in one gene: {math.log1p(LIBRARY_SIZE):.2f}")

# %% [markdown]
# **How much does $L$ matter?** It is a choice, $10^5$ in the paper. Move it, and watch how far a single count stands from zero.

# %%
from txfm_lite.objectives import rectified_tanh


def library(L=100_000):
    """This cell's values, and the range of predictions, at library size L."""
    c = np.unique(np.geomspace(1, largest, 60).round())
    values = np.log1p(L * np.append(0, c) / total.item())
    z = torch.linspace(-10, 40, 101)
    fig, (left, right) = plt.subplots(1, 2, figsize=(5.8, 2.7))
    left.plot(np.append(0, c), values, color="#999999", lw=1)
    found = c[np.isin(c, counts)]
    left.plot(found, values[1:][np.isin(c, counts)], "o", ms=4)
    left.plot(0, 0, "o", ms=6, mfc="white", color=plots.colour("TxFM"))
    left.set_xlabel(plots.label("count of a gene", "molecules"))
    left.set_ylabel(plots.label("value x", "log counts"))
    right.plot(z, rectified_tanh(z, L), color=plots.colour("TxFM"))
    right.set_xlabel(plots.label("decoder output z", "logits"))
    right.set_ylabel(plots.label("predicted x", "log counts"))
    for ax in (left, right):
        ax.axhline(math.log1p(L), color="black", ls=":", lw=1)
        ax.set_ylim(-0.4, 14.5)
    share, slope = values[1] / values[-1], math.log1p(L) / (4 * math.e)
    return fig, (
        f"L = {L:,}. Left: one count becomes {values[1]:.2f}, the cell's largest "
        f"{values[-1]:.2f}; the first count alone takes {share:.0%} of that range. "
        f"Right: predictions bend towards log(L + 1) = {math.log1p(L):.2f} "
        f"(dotted); near zero their slope is {slope:.2f}."
    )


explore.frames(
    library,
    title="Library size",
    alt="Two curves: values against counts, and predictions against logits.",
    labels={"L": "library size L"},
    live=cfg.live,
    L=[100, 1_000, 10_000, 100_000, 1_000_000],
)

# %% [markdown]
# **What we see.** $L$ decides what the model pays attention to. A small $L$ keeps values nearly proportional to counts: a few loud
# genes are all there is. A large $L$ makes them nearly yes or no: whether a gene was caught at all, which in a shallow cell is
# mostly luck. $10^5$ stands between, and gives the activation on the right a slope of almost one.
#
# ## How little does the encoder see?
#
# Of the measured genes, $K$ are drawn at random and shown, zeros included; the rest is hidden and has to be predicted. It is a
# {term}`masked autoencoder` {cite:p}`he2022`, with genes for patches: below, every measured gene is one pixel, from the corpus's
# most expressed gene (top left) to its least.

# %%
from txfm_lite.txfm import reveal

profile_counts = torch.from_numpy(
    training.mean_profile(corpus, LIBRARY_SIZE)
).float()
K = min(cfg.n_revealed, M)
draw = torch.Generator().manual_seed(cfg.seed)
shown, _ = reveal(measured, K, draw)  # which genes, (1, K)
assert shown.unique().numel() == K and measured.gather(1, shown).all()

ranked = torch.where(measured[0], profile_counts, -1.0).argsort(descending=True)[:M]
priority = np.random.default_rng(cfg.seed).permutation(M)  # cut at every K


def picture(values):
    """M values as an image: M pixels in rows, the last row filled up."""
    wide = math.ceil(math.sqrt(1.4 * M))
    return np.pad(values, (0, -M % wide), constant_values=np.nan).reshape(-1, wide)


def seen(K=K):
    """The whole cell beside what the encoder is given."""
    cell, open_ = x[0, ranked].numpy(), priority < K
    colours = plt.get_cmap("cividis").with_extremes(bad="#D9D9D9")
    look = dict(cmap=colours, vmin=0, vmax=cell.max(), interpolation="none")
    shown_only = np.where(open_, cell, np.nan)
    panels = {"the cell": cell, "what the encoder sees": shown_only}
    fig, axes = plt.subplots(1, 2, figsize=(5.8, 2.1))
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        image = ax.imshow(picture(values), **look)
        ax.set(title=name, xticks=[], yticks=[])
    fig.colorbar(image, ax=axes, label=plots.label("value x", "log counts"))
    c = counts[0, ranked].numpy()
    n, part = (c[open_] > 0).sum(), c[open_].sum() / c.sum()
    return fig, (
        f"K = {K:,} of {M:,} measured genes ({K / M:.1%}). Of the cell's "
        f"{n_expressed:,} expressed genes the encoder gets {n:,}, with "
        f"{part:.1%} of its counts; {M - K:,} genes are hidden (grey)."
    )


explore.frames(
    seen,
    title="Genes revealed to the encoder",
    alt="Two images, a pixel per gene: the cell, and the part that is revealed.",
    labels={"K": "genes revealed, K"},
    live=cfg.live,
    K=sorted({k for k in (64, 256, 1024, 2048, 4096, 8192) if k < M} | {K, M}),
)

# %% [markdown]
# **What we see.** Most pixels are dark: the cell is mostly zeros, and a random draw shows mostly zeros, which are news too. At the
# paper's $K = 2048$ the encoder works with a few dozen expressed genes. That it can place a cell at all shows how much genes tell
# about one another; and a cell drawn again shows other genes, so one cell is many training examples.
#
# ## How does a set of genes become one vector?
#
# A revealed gene becomes a {term}`token`: its learned vector $E_g$ of $d - 1$ numbers, and its value as the last one. A learned CLS
# token joins them. There is no position: a cell is a set, not a sentence.

# %%
config = TxFMConfig.preset(
    "tiny", G, d_model=cfg.d_model, n_heads=max(1, cfg.d_model // 16), n_revealed=K
)
model = TxFM(config, corpus.genes).eval()
model.start_from_profile(profile_counts)
d, n_heads = config.d_model, config.n_heads

with torch.no_grad():
    values = x.gather(1, shown)  # (1, K)
    tokens = model.tokens(values, shown)  # (1, 1 + K, d), CLS first
    assert torch.equal(tokens[0, 1:, :-1], model.codebook(shown)[0])  # E_g
    assert torch.equal(tokens[0, 1:, -1], values[0])  # x_g
    e = model.encode(values, shown)  # (1, d)
print(f"{config.n_blocks} blocks, {n_heads} heads; tokens {tuple(tokens.shape)}")
print(f"embedding {tuple(e.shape)}")
assert tokens.shape == (1, 1 + K, d) and e.shape == (1, d)

# %% [markdown]
# Three promises follow from this design, and each can be broken by a careless line of code. So they are tested, here and in the
# package's tests:

# %%
with torch.no_grad():
    order = torch.randperm(K)
    shuffled = model.encode(values[:, order], shown[:, order])
    assert torch.allclose(e, shuffled, atol=1e-4)  # a set has no order

    hidden = measured.clone().scatter_(1, shown, False)
    other = torch.where(hidden, x + 1, x)  # another cell behind the mask
    assert torch.equal(e, model.encode(other.gather(1, shown), shown))  # no leak

    louder = model.encode(values + 1.0, shown)
    assert not torch.allclose(e, louder, atol=1e-3)  # it looks at values
print("a set; nothing leaks; the values count")

# %% [markdown]
# ### What does CLS attend to?
#
# In every block each token asks (query), offers (key) and gives (value) {cite:p}`vaswani2017`. For the CLS token in head $h$:
#
# $$p_{hg} = \operatorname{softmax}_g\left(\frac{q_h^\top k_{hg}}{\sqrt{d/H}}\right), \qquad
# \text{CLS} \leftarrow \text{CLS} + W_\text{out} \Big[\sum_g p_{hg}\, v_{hg}\Big]_{h=1}^{H}$$
#
# a weighted average over the tokens, one per head, and after it a small MLP. By hand, it is ten lines:


# %%
def attention_of_cls(model, tokens):
    """CLS's weights in the first block, (H, 1 + K), and what CLS becomes."""
    block, H = model.blocks[0], model.config.n_heads
    y = block.norm1(tokens)
    key, value = (
        block.key_value(y).unflatten(-1, (2, H, -1)).unbind(2)
    )  # (1, T, H, d/H)
    query = block.query(y[:, 0]).unflatten(-1, (H, -1))  # (1, H, d/H)
    fit = torch.einsum("bhi,bthi->bht", query, key) / math.sqrt(query.shape[-1])
    p = fit.softmax(-1)
    pooled = torch.einsum("bht,bthi->bhi", p, value).flatten(1)  # (1, d)
    cls = tokens[:, 0] + block.scale1 * block.out(pooled)
    return p[0], cls + block.scale2 * block.mlp(block.norm2(cls))


with torch.no_grad():
    p, cls = attention_of_cls(model, tokens)
    assert torch.allclose(cls, model.blocks[0](tokens, None)[:, 0], atol=1e-4)
print(f"weights {tuple(p.shape)}; each head's sum: {p.sum(-1).numpy().round(4)}")

# %% [markdown]
# Does an untrained CLS already hear which genes are high? Only if the value, one coordinate among $d$, speaks loudly enough. The
# model starts with the weights that read it $\sqrt d$ times larger (`value_gain`); beside it, the usual start, where all
# coordinates weigh the same.

# %% mystnb={"figure": {"caption": "Attention of CLS to each revealed gene before training, in units of an equal share; one colour and marker per head. Left: the weights that read the value are the square root of d times larger; right: the usual start.", "name": "fig-attention"}, "image": {"alt": "Two scatter plots of attention against the gene's value. Left: expressed genes get up to a hundred equal shares in some heads. Right: expressed genes lie around one, like the zeros."}}
torch.manual_seed(cfg.seed)
usual = TxFM(TxFMConfig(**{**vars(config), "value_gain": 1.0})).eval()
usual.codebook.load_state_dict(model.codebook.state_dict())
starts = {"value heard (our start)": model, "all coordinates alike": usual}
on = values[0] > 0  # the expressed ones among the revealed genes
some = on | (torch.arange(K) % 16 == 0)  # all of those, and some zeros
fig, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True)
told = {}
for ax, (title, m) in zip(axes, starts.items(), strict=True):
    with torch.no_grad():
        share = attention_of_cls(m, tokens)[0][:, 1:] * (1 + K)  # 1: an equal share
    told[title] = {
        f"head {h + 1}": share[h, on].mean().item() for h in range(n_heads)
    }
    for h in range(min(4, n_heads)):
        ax.plot(values[0, some], share[h, some], "os^D"[h], ms=3.5, alpha=0.6)
    ax.set(title=title, xlabel=plots.label("value x", "log counts"), yscale="log")
axes[0].set_ylabel(plots.label("attention", "equal shares"))
plt.show()

# %%
mean_attention = pd.DataFrame(told).T.round(2)
mean_attention.rename_axis("attention to an expressed gene")

# %% [markdown]
# **What we see.** In both starts a gene's own vector decides much. With the value heard, some heads give an expressed gene many
# equal shares before anything has been learned; with all coordinates alike, hardly more than one.
# [The next chapter](30_pretrain.ipynb) shows what this costs in training.
#
# ### Why is the last block cheaper?
#
# Only CLS leaves the encoder. In the last block the other tokens still have to offer keys and values, but nobody reads what they
# would become; so only one query is asked. This is exact, not an approximation:

# %%
with torch.no_grad():
    inside = model.blocks[0](
        tokens, None
    )  # (1, 1 + K, d): all are needed by the next
    full = model.blocks[-1](inside, None)[:, :1]
    only = model.blocks[-1](inside, None, cls_only=True)  # (1, 1, d)
    assert torch.allclose(full, only, atol=1e-4)
    assert torch.allclose(model.norm(only)[:, 0], e, atol=1e-4)
print(f"largest difference {(full - only).abs().max():.1e}")

# %% [markdown]
# ## How does one vector become all genes?
#
# The decoder is a few residual layers on $e$, and then one row of weights per gene: $z_g = w_g^\top h + b_g$. Everything that the
# model knows about a cell passes through the $d$ numbers of $e$, while everything that it knows about genes lies in the rows $w_g$.

# %%
with torch.no_grad():
    h = model.decoder(e)  # (1, d)
    z = model.gene_head(h)  # (1, G) logits
    log_rate = rectified_tanh(z)  # (1, G), between 0 and log(L + 1)
    assert torch.allclose(log_rate, model.decode(e))
print(f"e {tuple(e.shape)} -> h {tuple(h.shape)} -> logits {tuple(z.shape)}")
print(f"logits from {z.min():.1f} to {z.max():.1f}")
print(f"log-rates from {log_rate.min():.1f} to {log_rate.max():.1f}")

# %% [markdown]
# ## Why a rectified tanh?
#
# A log-rate must not be negative (a rate of one is "no counts", since $\mathrm{e}^x = c + 1$) and cannot exceed $\log(L + 1)$, all
# counts in one gene. The activation builds both bounds in:
#
# $$\varphi(z) = \alpha\,\mathrm{relu}\left(\tanh\frac{z}{\beta}\right), \qquad \alpha = \log(L + 1), \quad \beta = 4\mathrm{e}$$
#
# with a slope of $\alpha / \beta$ at zero: for $L = 10^5$ about 1.06, so that a logit *is* nearly a log count as long as it is
# small. It can also be written with a sigmoid, $\log(L+1)\,\mathrm{relu}\left(2\sigma(\tfrac{z}{2\mathrm{e}}) - 1\right)$.

# %%
from txfm_lite.objectives import SLOPE, inverse_rectified_tanh

alpha, beta = math.log(LIBRARY_SIZE + 1), SLOPE
grid = torch.linspace(-10, 40, 501, dtype=torch.float64)
by_sigmoid = alpha * torch.relu(2 * torch.sigmoid(grid / (2 * math.e)) - 1)
assert torch.allclose(rectified_tanh(grid), by_sigmoid)
above = grid[(grid > 0) & (grid < 30)]
assert torch.allclose(inverse_rectified_tanh(rectified_tanh(above)), above)
assert math.isclose(beta, 4 * math.e)
print(
    f"slope at zero {alpha / beta:.3f}; it is 1 for L = {math.exp(beta) - 1:,.0f}"
)

# %% [markdown]
# ## What does a wrong prediction cost?
#
# The counts are taken as Poisson with rate $\lambda_g = \mathrm{e}^{\hat x_g}$. Without the term that the model cannot change, the
# negative log-likelihood, averaged over the $M$ measured genes, revealed and hidden alike, is
#
# $$\ell = \frac{1}{M}\sum_g \left(\mathrm{e}^{\hat x_g} - \hat x_g\,\mathrm{e}^{x_g}\right).$$

# %%
from txfm_lite.objectives import poisson_loss

with torch.no_grad():
    cost = log_rate.exp() - log_rate * x.exp()  # (1, G), gene by gene
    loss = poisson_loss(log_rate, x, measured)
    assert torch.isclose(loss, cost[measured].mean())
    unknown = torch.where(measured, x, 7.0)  # whatever stands where nobody looked
    assert loss == poisson_loss(log_rate, unknown, measured)
    floor = poisson_loss(torch.log1p(profile_counts)[None], x, measured)
    nothing, perfect = (
        poisson_loss(v, x, measured) for v in (torch.zeros_like(x), x)
    )
pd.Series(
    {
        "predict no counts": nothing,
        "untrained model": loss,
        "mean profile of the corpus": floor,
        "perfect prediction": perfect,
    },
    name="loss of this cell [nats per gene]",
).astype(float).round(2).to_frame()

# %% [markdown]
# ### How does the loss pull?
#
# The chain rule gives the pull on a logit in closed form. For $z > 0$
#
# $$\frac{\partial \ell_g}{\partial z} = \underbrace{\frac{\alpha}{\beta}\,\mathrm{sech}^2\frac{z}{\beta}}_{\text{slope of }\varphi}\;
# \underbrace{\left(\mathrm{e}^{\alpha \tanh(z/\beta)} - \mathrm{e}^{x}\right)}_{\text{rate} - \text{target}},$$
#
# and nothing at all for $z \le 0$. Autograd should agree:


# %%
def closed_form(z, x):
    slope = alpha / beta / torch.cosh(z / beta) ** 2
    return (z > 0) * slope * (torch.exp(rectified_tanh(z)) - math.exp(x))


def autograd(z, x):
    z = z.clone().requires_grad_()
    r = rectified_tanh(z)
    (r.exp() - r * math.exp(x)).sum().backward()
    return z.grad


targets = (0, 10, 1000)  # normalised counts
for c in targets:
    a, b = closed_form(grid, math.log1p(c)), autograd(grid, math.log1p(c))
    assert torch.allclose(a, b, rtol=1e-9)
    print(f"count {c:>5,}: largest difference {(a - b).abs().max():.1e}")

# %% mystnb={"figure": {"caption": "Pull of the Poisson loss on a logit for three observed counts. Lines: closed form; marks: autograd. The scale is linear between -1 and 1 and logarithmic beyond.", "name": "fig-gradient"}, "image": {"alt": "Three curves of the gradient against the logit: zero for negative logits, below zero until the prediction meets the target, then rising to several thousand near logit 17 and falling again."}}
fig, ax = plt.subplots(figsize=(6.5, 3.4))
for c, mark in zip(targets, "os^", strict=True):
    curve = closed_form(grid, math.log1p(c))
    (line,) = ax.plot(grid, curve, label=f"observed count {c:,}")
    ax.plot(
        grid[::20],
        autograd(grid, math.log1p(c))[::20],
        mark,
        color=line.get_color(),
        ms=4,
    )
ax.axhline(0, color="black", lw=0.8)
ax.set_yscale("symlog", linthresh=1)
ax.set_xlabel(plots.label("logit z", "dimensionless"))
ax.set_ylabel(plots.label("gradient", "nats per logit"))
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# **What we see.** Three regions. Left of zero there is silence: a gene whose logit has gone below zero gets no gradient from this
# cell, and comes back only if other cells push the weights that they share. Around the target the pull is what one wishes: towards
# it, in proportion to what is missing. Far to the right the rate has reached its ceiling, and the slope dies out before the error
# can explode. A missed count of 1,000 pulls a thousand times harder than a missed count of one: the loss is led by loud genes.
#
# ## What do other activations do?
#
# The paper tried three others. Choose one, and an observed count:
#
# - **relu**: no ceiling; the rate $\mathrm{e}^z$ grows without end;
# - **clamped relu**: a ceiling with a hard corner, and no gradient beyond it;
# - **softmax**: rates are shares of the library and sum to it. One gene's rate now depends on all others; here, on 199 of logit 0.

# %%
from txfm_lite.objectives import ACTIVATIONS


def pull(activation="rectified_tanh", count=10):
    """Prediction and gradient against the logit of one gene."""
    axis = torch.linspace(-10, 40, 126, dtype=torch.float64, requires_grad=True)
    others = torch.zeros(len(axis), 199, dtype=torch.float64)
    r = ACTIVATIONS[activation](
        torch.cat([axis[:, None], others], 1), LIBRARY_SIZE
    )[:, 0]
    (slope,) = torch.autograd.grad((r.exp() - r * (count + 1)).sum(), axis)
    axis, r = axis.detach(), r.detach()
    fig, (left, right) = plt.subplots(1, 2, figsize=(5.8, 2.8))
    left.plot(axis, r, color=plots.colour("TxFM"))
    left.axhline(alpha, color="black", ls=":", lw=1)
    left.axhline(math.log1p(count), color=plots.colour("PCA"), ls="--", lw=1)
    left.set_ylim(-0.6, 20)
    left.set_ylabel(plots.label("prediction", "log counts"))
    right.plot(axis, slope, color=plots.colour("TxFM"))
    right.axhline(0, color="black", lw=0.8)
    right.set_yscale("symlog", linthresh=1)
    right.set(ylim=(-1e4, 1e10), yticks=[-1e3, -1, 0, 1, 1e3, 1e6, 1e9])
    right.minorticks_off()
    right.set_ylabel(plots.label("gradient", "nats per logit"))
    for ax in (left, right):
        ax.set_xlabel(plots.label("logit z", "dimensionless"))
    places = {
        z: slope[int((axis - z).abs().argmin())].item() for z in (-5, 10, 20, 40)
    }
    pulls = ", ".join(f"{g:.2g} at {z}" for z, g in places.items())
    return fig, (
        f"{activation.replace('_', ' ')}, observed count {count:,} (dashed; "
        f"dotted: the whole library). The gradient is {pulls}."
    )


explore.frames(
    pull,
    title="Activation",
    alt="Two curves against the logit: the prediction and the gradient.",
    labels={"activation": "activation", "count": "observed count"},
    live=cfg.live,
    activation=["rectified_tanh", "relu", "clamped_relu", "softmax"],
    count=[0, 10, 1_000],
)

# %% [markdown]
# **What we see.** Relu's gradient at $z = 40$ is $\mathrm{e}^{40}$: a single logit out of step outweighs everything else in a batch.
# Clamped relu stops that, but a logit beyond the ceiling gets no pull back, whatever the target. Rectified tanh bends instead of
# breaking. Softmax alone also pulls on negative logits, but no gene can rise unless others fall.
#
# ## What happens without a ceiling?
#
# It is worth trying. Small models that differ in nothing but the activation learn one batch at a sensible rate. A quarter of the way
# through they have an accident: three steps that are thirty times too large. Then all goes on as before.

# %%
from txfm_lite.corpus import select_variable_genes

n_small = min(1024, G // 3)
keep = np.searchsorted(corpus.genes, select_variable_genes(corpus, n_small))
accident = range(cfg.steps // 4, cfg.steps // 4 + 3)


def descend(activation, seed):
    """Losses of a small model on one batch; ends early if they overflow."""
    torch.manual_seed(seed)
    rows = np.random.default_rng(seed).permutation(corpus.rows("train"))[:64]
    batch = torch.from_numpy(corpus.csr(rows)[:, keep].toarray())
    X = log_normalise(batch, torch.from_numpy(corpus.library_size[rows]).float())
    mask = torch.from_numpy(corpus.measured[corpus.dataset[rows]][:, keep])
    shape = dict(n_blocks=1, n_revealed=256, activation=activation)
    small = TxFM(TxFMConfig.preset("tiny", n_small, **shape))
    small.start_from_profile(profile_counts[keep])
    optimiser = torch.optim.AdamW(small.parameters())
    losses = []
    while len(losses) < cfg.steps and (not losses or math.isfinite(losses[-1])):
        too_large = len(losses) in accident
        optimiser.param_groups[0]["lr"] = 0.1 if too_large else 0.003
        optimiser.zero_grad()
        loss = poisson_loss(small(X, mask), X, mask)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
runs = {a: [descend(a, s) for s in seeds] for a in ACTIVATIONS}

# %% mystnb={"figure": {"caption": "Poisson loss on one batch of 64 samples, one line per seed; grey: three steps that are too large. Dotted: L + 1, the most that a gene without counts can cost. A cross ends a run whose loss is no finite number any more. Between -100 and 100 the scale is linear.", "name": "fig-divergence"}, "image": {"alt": "Four panels of loss against steps, one per activation. In the grey band relu climbs beyond the dotted line to the upper edge; the other three stay below the line, and rectified tanh and clamped relu come down again."}}
TOP = 1e20  # of the picture
fig, axes = plt.subplots(2, 2, figsize=(7, 4.6), sharex=True, sharey=True)
for ax, (activation, curves) in zip(axes.flat, runs.items(), strict=True):
    for losses in curves:
        drawn = np.nan_to_num(losses, nan=TOP, posinf=TOP)
        (line,) = ax.plot(drawn, lw=1.5)
        if not math.isfinite(losses[-1]):
            end = (len(losses) - 1, TOP)
            ax.plot(*end, "x", color=line.get_color(), ms=9, mew=2.5, clip_on=False)
    ax.axvspan(accident[0], accident[-1] + 1, color="#DDDDDD")
    ax.axhline(LIBRARY_SIZE + 1, color="black", ls=":", lw=1)
    ax.set_title(activation.replace("_", " "))
    ax.set_yscale("symlog", linthresh=100)
    ax.set(ylim=(-200, TOP), yticks=[-100, 100, 1e5, 1e10, 1e15, TOP])
    ax.minorticks_off()
for ax in axes[1]:
    ax.set_xlabel(plots.label("steps", "number"))
for ax in axes[:, 0]:
    ax.set_ylabel(plots.label("loss", "nats per gene"))
plt.show()

# %%
accounts = {}
for activation, curves in runs.items():
    moments = {
        "before": [c[accident[0]] for c in curves],
        "worst": [max(c) for c in curves],
        "at the end": [c[-1] for c in curves],
    }
    accounts[activation] = {
        n: ", ".join(f"{v:.3g}" for v in vs) for n, vs in moments.items()
    }
bounded = [a for a in ACTIVATIONS if a != "relu"]
assert all(max(c) <= LIBRARY_SIZE + 1 for a in bounded for c in runs[a])
pd.DataFrame(accounts).T.rename_axis("loss, by seed")

# %% [markdown]
# **What we see.** Before the accident relu learns as well as rectified tanh; nothing warns of what is to come. After it, relu's rates
# are powers of ten, and the loss is soon no number. The ceiling does not make a bad step good, but it bounds the damage, $L + 1$ for a
# gene without counts; with rectified tanh and with clamped relu the loss comes down again. Which of the two is better, this small trial
# cannot tell; in the paper it is rectified tanh, while relu diverges midway through training. Softmax is at a disadvantage here:
# its rates have to sum to the whole library, of which the small vocabulary holds only a part.
#
# ## How many numbers, how much work?
#
# Both follow from a few integers, before anything is built. Parameters: the {term}`codebook` $G(d-1)$, about $12 d^2$ per block,
# $9 d^2$ for the decoder's layers, $G(d+1)$ for its gene rows.


# %%
def parameters(size, n_genes=44_349, **changes):
    """Parameters by part; the meta device builds no numbers, only shapes."""
    with torch.device("meta"):
        m = TxFM(TxFMConfig.preset(size, n_genes, **changes))
    parts = {"codebook": m.codebook, "blocks": m.blocks, "decoder": m.decoder}
    parts["gene rows"] = m.gene_head
    sizes = {
        n: sum(p.numel() for p in part.parameters()) for n, part in parts.items()
    }
    return {**sizes, "all": m.n_parameters}


sizes = {
    "TxFM-S, 6 blocks": parameters("s", n_blocks=6),
    "TxFM-S, 12 blocks": parameters("s"),
    "TxFM-B": parameters("b"),
    "TxFM-L": parameters("l"),
}
table = (pd.DataFrame(sizes).T / 1e6).round(1)
table["paper"] = [57, 57, 159, 403]
assert (abs(table["all"] / table["paper"] - 1)[1:] < 0.02).all()
table.rename_axis("millions")

# %% [markdown]
# The paper's table prints six blocks for S, beside six heads. With six, S would have 46 million parameters, not the 57 million that
# the text states; with twelve, all three sizes come out. So our preset `s` has twelve, and the printed six are probably the heads
# again.
#
# Work, for $T = K + 1$ tokens: two operations per weight and token in the linear layers, $24 d^2 T$ per block, and $4 d T^2$ for
# attention, where every token meets every other. The backward pass costs twice the forward one. If the last block asks for CLS only,
# it saves $20 d^2$ and $4 d T$ per token.


# %%
from txfm_lite.estimate import tflop_per_sample


def operations(c, K, cls_only=True):
    """Floating-point operations of a training sample; attention's share."""
    T, d, n = K + 1, c.d_model, c.n_blocks
    linear, attention = 24 * d**2 * T * n, 4 * d * T**2 * n
    decoder = 2 * (9 * d**2 + c.n_genes * d)
    if cls_only:  # last block: keys and values for all tokens, the rest for one
        linear -= 20 * d**2 * (T - 1)
        attention -= 4 * d * T * (T - 1)
    forward = linear + attention + decoder
    return 3 * forward, attention / forward


paper_sizes = {f"TxFM-{s.upper()}": TxFMConfig.preset(s, 44_349) for s in "sbl"}
rows = {}
for name, c in paper_sizes.items():
    flop, share = operations(c, 2048)
    assert math.isclose(flop / 1e12, tflop_per_sample(c))  # the library's count
    saved = 1 - flop / operations(c, 2048, cls_only=False)[0]
    rows[name] = {
        "TFLOP per sample": round(flop / 1e12, 3),
        "attention": f"{share:.0%}",
        "saved by CLS only": f"{saved:.1%}",
    }
pd.DataFrame(rows).T

# %% mystnb={"figure": {"caption": "Work of one training sample against the number of genes revealed. Dotted: the paper's K. Dashed: what the largest size would cost without attention's square.", "name": "fig-cost"}, "image": {"alt": "Three rising curves on logarithmic axes, one per size, steeper than proportional beyond about two thousand genes; a dotted vertical line at 2,048."}}
fig, ax = plt.subplots(figsize=(6.5, 3.4))
Ks = np.geomspace(64, 40_000, 60)
for (name, c), look in zip(paper_sizes.items(), ["-", "--", "-."], strict=True):
    ax.plot(Ks, [operations(c, K)[0] / 1e12 for K in Ks], look, label=name)
ax.axvline(2048, color="black", ls=":", lw=1)
ax.set(
    xscale="log", yscale="log", xlabel=plots.label("genes revealed, K", "number")
)
ax.set_ylabel(plots.label("work per sample", "TFLOP"))
ax.legend()
plt.show()

# %% [markdown]
# **What we see.** The vocabulary hardly costs anything: 44,349 genes are predicted for less than a thousandth of the work. What
# costs is how many genes are *looked at*, and beyond a few thousand, that they all look at one another. Hiding nine genes in ten is
# not only a task to learn from; it is what makes the model affordable.
#
# ## Compared with the paper
#
# | quantity | paper | here | why they differ |
# |---|---|---|---|
# | parameters of S, B, L | 57, 159, 403 million | 56.7, 158.5, 402.6 million | they do not: the decoder's width is our guess, and it fits all three |
# | rectified tanh, clamped relu, relu, softmax: perturbation score | 37.3, 34.6, 34.4, 27.6 | not measured here | a score needs a trained model; here only why relu may fail |
# | relu | diverges midway | diverges after steps that are too large | we provoked it; the paper does not say what set it off |
# | K = 512, 1024, 2048, 4096: perturbation score | 31.9, 35.2, 37.3, 35.6 | cost only | more genes cost more and are not always better |
# | activation's slope at zero | not discussed | 1.06 | $L$ and $4\mathrm{e}$ nearly cancel |
#
# ## Exercises
#
# 1. (easy) Choose a bulk sample: set `row` to one of `corpus.rows(dataset="gtex_brain_counts_damirseq")`. What changes in the two
#    images of the cell, and in the loss of predicting no counts?
#
# :::{dropdown} Solution
# Nearly every pixel is bright: a bulk sample expresses most genes. Predicting "no counts" still costs exactly 1 for every gene, since
# $\mathrm{e}^0 - 0 = 1$ whatever was counted. A perfect prediction, on the other hand, differs between samples: that is why losses of
# different samples, and of different corpora, cannot be compared without a floor and a ceiling.
# :::
#
# 2. (medium) For which prediction is the loss of a gene smallest, and what is its value there for a target of zero counts?
#
# :::{dropdown} Solution
# Set the derivative $\mathrm{e}^{\hat x} - \mathrm{e}^{x}$ to zero: $\hat x = x$, with loss $\mathrm{e}^x (1 - x)$. For zero counts
# $x = 0$ and the loss is 1, its largest possible minimum; for a target of 10 it is $11\,(1 - \log 11) = -15.4$. So the level of the loss
# is set by the loud genes, and a cell with many zeros has a loss near 1.
# :::
#
# 3. (medium) In `descend`, set every logit below zero after the start (`small.gene_head.bias.data.fill_(-50)`). What does the loss
#    of each activation do?
#
# :::{dropdown} Solution
# With the three rectified ones it stays at exactly 1: no logit has a gradient, so no weight moves, weight decay aside. Softmax
# loses its start and learns from a flat profile, since only differences between logits count. This is the risk on the other side of the rectifier; it is why the model starts
# from the mean profile, where every logit is above zero.
# :::
#
# 4. (hard) One block only: CLS is the same for every cell before it, so its query is a constant. Write the attention logits of a gene as
#    a function of $E_g$ and $x_g$ alone. What does it save?
#
# :::{dropdown} Solution
# With $q$ constant, $q_h^\top W_k\,\mathrm{LN}([E_g, x_g])$ needs only the mean and the variance of the token, the product of $E_g$ with
# one fixed vector per head, and $x_g$ times one number. The products with $E_g$ are the same for all cells of a batch and computed once
# per gene. No token of any cell is ever built, and $K$ no longer matters: all measured genes can be shown.
# :::
#
# **Ask yourself.** Why is the loss taken over revealed genes too? Why does a token carry the gene's identity *and* its value, and what
# would be lost if they were added instead? Which of the three promises would a position encoding break?
#
# ## Takeaways
#
# - [The library size](#why-scale-why-log) decides whether loud genes or mere presence rules a cell's values.
# - The encoder sees [a set of few genes](#how-little-does-the-encoder-see); only [one vector](#how-does-a-set-of-genes-become-one-vector)
#   leaves it, and that makes the last block cheap.
# - [The gradient](#how-does-the-loss-pull) is silent below zero, proportional near the target, and dies out at the ceiling; without
#   [a ceiling](#what-happens-without-a-ceiling) one logit can end a run.
# - Work grows with [the genes that are shown](#how-many-numbers-how-much-work), not with those that are predicted.
#
# **Next:** [training it, off the plateau](30_pretrain.ipynb).
#
# ## Where the numbers come from

# %%
notebook.provenance(cfg, data=[corpus])
