"""The book's one look: a white face, a colour-blind palette, one colour and one marker per model.

A figure keeps its white face in both themes of the book (the dark theme lays a light pad behind it), and a
model keeps its colour and its marker on every page, so that a reader who cannot tell two colours apart
still has the shape. Axes carry units: ``ax.set_xlabel(label("library size", "counts"))``.
"""

from __future__ import annotations

# Okabe & Ito's palette, safe for the common forms of colour blindness, without yellow: too faint on white.
_BLACK, _ORANGE, _SKY, _GREEN, _BLUE, _RED, _PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
_GREY, _BROWN = "#7F7F7F", "#8C613C"

#: Model name -> (colour, marker). Ours are blue; references without training are grey or black. A family has
#: one colour, and a shape for what it was fitted on: a corpus, or the dataset under test.
MODELS: dict[str, tuple[str, str]] = {
    "TxFM": (_BLUE, "o"),
    "TxFM fine-tuned": (_BLUE, "8"),
    "TxFM untrained": (_SKY, "o"),
    "rank": (_GREEN, "$k$"),
    "rank untrained": (_SKY, "$k$"),
    "bin": (_RED, "$b$"),
    "bin untrained": (_SKY, "$b$"),
    "rank tokens": (_BROWN, "$t$"),
    "bin tokens": (_BROWN, "$n$"),
    "top genes": (_GREY, "."),
    "PCA": (_ORANGE, "s"),  # on pages with one PCA; the same as the next
    "PCA (corpus)": (_ORANGE, "s"),
    "PCA (target)": (_ORANGE, "d"),
    "scVI (corpus)": (_RED, "D"),
    "scVI (target)": (_RED, "H"),
    "HVG 1024": (_BROWN, "1"),
    "HVG 2000": (_BROWN, "P"),
    "HVG 5000": (_BROWN, "2"),
    "log counts": (_GREY, "^"),
    "raw counts": (_GREY, "v"),
    "Souza-Mehta": (_PURPLE, "X"),
    "GenePT-w": (_GREEN, "<"),
    "co-expression": (_BROWN, ">"),
    "ranks": (_GREEN, "$R$"),
    "standardised log counts": (_BROWN, "$S$"),
    "Geneformer": (_GREEN, "*"),
    "Geneformer untrained": (_SKY, "*"),
    "scGPT": (_PURPLE, "p"),
    "cell2sentence": (_SKY, "$W$"),
    "scBERT": (_RED, "$B$"),
    "log counts, cosine": (_ORANGE, "$C$"),  # measures of two cells
    "ranks, zeros tied": (_SKY, "$T$"),
    "ranks, zeros dropped": (_BLUE, "$D$"),
    "ranks, zeros by median": (_GREEN, "$M$"),
    "presence": (_ORANGE, "$P$"),  # parts of the input
    "ranks of detected": (_SKY, "$d$"),
    "ranks of detected, ties shared": (_GREEN, "$r$"),
    "presence + ranks": (_BLUE, "$+$"),
    "GSFM": (_GREEN, "h"),  # gene sets: the autoencoder, and what it has to beat
    "GSFM (three together)": (_GREEN, "$3$"),  # the mean of three trainings
    "GSFM (published recipe)": (_GREEN, "$g$"),  # nothing hidden in training
    "GSFM (all)": (_GREEN, "$G$"),  # trained on curated sets, too
    "EASE": (_SKY, "$E$"),
    "SVD": (_PURPLE, "$V$"),
    "kNN": (_RED, "$N$"),
    "co-occurrence": (_ORANGE, "$c$"),
    "popularity": (_GREY, "$p$"),
    "popularity of other libraries": (_GREY, "$o$"),
    "popularity within library": (_BLACK, "$w$"),
    "TxFM codebook": (_BLUE, "$x$"),
    "TxFM decoder": (_BLUE, "$y$"),
    "PrismEXP-like": (_BROWN, "$X$"),
    "scrambled": (_BLACK, "+"),
    "constant": (_BLACK, "_"),
    "depth": (_BLACK, "3"),
    "class prior": (_BLACK, "4"),
    "random": (_BLACK, "x"),
}

_STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",  # never transparent: dark labels would vanish on a dark page
    "figure.figsize": (6.0, 3.6),
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "image.cmap": "cividis",
}


def style() -> None:
    """Set matplotlib to the book's look for the rest of the session."""
    import matplotlib as mpl

    cycle = mpl.cycler(color=[_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY, _BROWN, _GREY])
    mpl.rcParams.update(_STYLE | {"axes.prop_cycle": cycle})


def _look(model: str) -> tuple[str, str]:
    if model not in MODELS:
        raise ValueError(f"no colour is fixed for {model!r}; plots.MODELS has {', '.join(MODELS)}")
    return MODELS[model]


def colour(model: str) -> str:
    """Return the hex colour that a model has on every page.

    Raises
    ------
    ValueError
        For a model without a fixed colour; the message lists those that have one.
    """
    return _look(model)[0]


def marker(model: str) -> str:
    """Return the matplotlib marker that a model has on every page (errors as in :func:`colour`)."""
    return _look(model)[1]


def label(quantity: str, unit: str = "") -> str:
    """Return an axis label with its unit in brackets: ``label("loss", "nats")`` is ``"loss [nats]"``."""
    return f"{quantity} [{unit}]" if unit else quantity
