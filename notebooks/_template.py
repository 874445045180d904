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
# # Title of the chapter
#
# One sentence that says what the reader will know afterwards. It repeats Figure N of {cite:t}`kenyondean2026`.
#
# :::{admonition} At a glance
# - **You will** measure …, compare …, decide …
# - **You need** [the notation](../book/notation.md) and the chapter before this one.
# - **It takes** `smoke` 10 s and 1 GB; `book` 2 min and 2 GB on 2 CPU cores; `full` 20 min on a GPU.
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
seed: int = 0  # @param {type:"integer"}
n_genes: int = None  # @param {type:"raw"}

# %%
import numpy as np

from txfm_lite import notebook, plots

cfg = notebook.resolve(
    globals(),
    valid={"seed": (0, 2**31), "n_genes": (1, 50_000)},
    profiles={
        "smoke": {"n_genes": 50},
        "book": {"n_genes": 500},
        "full": {"n_genes": 20_000},
    },
)
notebook.banner(
    stand_ins=False
)  # or studies.stand_ins(cfg.data), for a chapter on real studies
plots.style()
cfg

# %% [markdown]
# ## A question that a figure can answer?
#
# The idea in a few lines, then its equation, then the code (about ten words to a line of code):
#
# $$x = \log\left(1 + L \, \frac{c}{\sum_g c_g}\right)$$

# %%
rng = np.random.default_rng(cfg.seed)
counts = rng.poisson(1.0, size=(3, cfg.n_genes))  # (B cells, G genes), counts
x = np.log1p(1e5 * counts / counts.sum(axis=1, keepdims=True))
assert x.shape == counts.shape

# %% [markdown]
# The figure answers the question asked above it. Its caption and its alternative text stand on the cell.

# %% mystnb={"figure": {"caption": "Log-normalised values of the first cell.", "name": "fig-template"}, "image": {"alt": "Histogram of log-normalised values: a spike at zero and a hump near seven."}}
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.hist(x[0], bins=30, color=plots.colour("TxFM"))
ax.set_xlabel(plots.label("value", "log counts"))
ax.set_ylabel(plots.label("genes", "number"))
plt.show()

# %% [markdown]
# **What we see.** One sentence.
#
# ## Compared with the paper
#
# | quantity | paper | here | why they differ |
# |---|---|---|---|
# | … | … | … | … |
#
# ## Exercises
#
# 1. (easy) A small change to the parameters cell that shows something.
#
# :::{dropdown} Solution
# What one finds.
# :::
#
# ## Takeaways
#
# - One sentence, with a link to [where it is shown](#a-question-that-a-figure-can-answer).
#
# ## Where the numbers come from

# %%
notebook.provenance(cfg)
