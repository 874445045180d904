"""A figure with sliders: drawn beforehand for a page without a kernel, drawn on demand in a live notebook.

A function draws one figure from a few choices and says in a sentence what it shows; :func:`frames` draws it
for every combination of the choices and puts the pictures, as SVG, behind one control per choice::

    def line(slope=1):
        fig, ax = plt.subplots()
        ax.plot([0, 1], [0, slope])
        return fig, f"A slope of {slope}."

    explore.frames(
        line, title="Slopes", alt="A straight line", labels={"slope": "slope"}, slope=[0, 1, 2]
    )

The result is plain HTML with a few lines of JavaScript in an attribute: no file to load, no network, no
kernel. Numbers get a slider, words a menu; both have labels, work from the keyboard and take the page's
colours. The sentence under the picture changes with it and is announced to screen readers. Where scripts are
off, the first picture stands alone. With ``live=True`` ipywidgets take over: the same controls, more values.
"""

from __future__ import annotations

import hashlib
import html
import inspect
import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_FRAMES, MAX_BYTES = 24, 1_000_000  # per object: a page should still open on a telephone
LIVE_STEPS = 8  # values that a live slider offers for each step of the static one

# One handler on the outer element hears all controls: the last choice runs fastest, as in itertools.product.
_HANDLER = """
let frame = 0;
for (const control of this.querySelectorAll('[data-texts]')) {
  const texts = control.dataset.texts.split('|'), chosen = Number(control.value);
  frame = frame * texts.length + chosen;
  control.setAttribute('aria-valuetext', texts[chosen]);
  if (control.type === 'range') control.nextElementSibling.value = texts[chosen];
}
this.querySelectorAll('figure').forEach((figure, i) => { figure.hidden = i !== frame; });
"""
_STYLE = """
.explore { max-width: 46rem; color: inherit; }
.explore-controls { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; padding: .4rem .5rem; }
.explore-controls label { display: flex; align-items: center; gap: .6rem; max-width: 100%;
  white-space: nowrap; }
.explore-controls input { width: 11rem; min-width: 4rem; height: 1.8rem; margin: 0; cursor: pointer;
  accent-color: #0072B2; }
.explore-controls select { font: inherit; padding: .1rem .3rem; }
.explore-controls output { min-width: 5.5em; font-weight: bold; font-variant-numeric: tabular-nums; }
.explore figure { margin: 0; } .explore [hidden] { display: none !important; }
.explore svg { display: block; width: 100%; height: auto; }
.explore svg * { stroke-linejoin: round; stroke-linecap: butt; }
.explore figure figcaption { margin: .4rem .5rem 0; text-align: left; color: inherit;
  font-family: inherit; font-weight: inherit; }
@media (scripting: none) { .explore-controls { display: none; } }
"""


def frames(
    function: Callable[..., tuple[Figure, str]],
    *,
    title: str,
    alt: str,
    labels: Mapping[str, str],
    live: bool = False,
    **choices: Sequence,
) -> Any:
    """Return a figure whose choices the reader can change.

    Parameters
    ----------
    function
        Draws one frame: called with one value per choice, returns a matplotlib figure and a sentence that
        says what is seen. Its own defaults are the frame that is shown first.
    title : str
        Name of the whole, for screen readers.
    alt : str
        Alternative text of the pictures: what kind of picture it is. The sentence says what is in it.
    labels : mapping
        Choice -> the text beside its control.
    live : bool
        With a running kernel: draw on demand, with a finer slider for every numeric choice.
    **choices
        Argument of the function -> its values, in order; all numbers, or all text.

    Returns
    -------
    IPython.display.HTML, or ipywidgets.interactive if `live`

    Raises
    ------
    ValueError
        If a choice has no label, its values are of mixed kind, the function's default is not among them, or
        the frames are too many or too heavy for a page.
    """
    first = _check(function, labels, choices)
    if live:
        return _live(function, labels, choices, first)
    from IPython.display import HTML

    combinations = list(itertools.product(*choices.values()))
    if len(combinations) > MAX_FRAMES:
        raise ValueError(f"{title}: {len(combinations)} frames; a page should not carry over {MAX_FRAMES}")
    start = combinations.index(tuple(first[name] for name in choices))
    drawn = []
    for i, values in enumerate(combinations):
        svg, text = _draw(function, dict(zip(choices, values, strict=True)), alt)
        hidden = "" if i == start else " hidden"
        drawn.append(f"<figure{hidden}>{svg}<figcaption>{html.escape(text)}</figcaption></figure>")
    controls = "".join(_control(labels[name], choices[name], first[name]) for name in choices)
    page = (
        f"<style>{_STYLE}</style>\n"
        f'<div class="explore" role="group" aria-label="{html.escape(title)}" '
        f'oninput="{html.escape(_HANDLER)}">\n'
        f'<div class="explore-controls">{controls}</div>\n'
        f'<div aria-live="polite">{"".join(drawn)}</div></div>'
    )
    if len(page) > MAX_BYTES:
        raise ValueError(f"{title}: {len(page):,} bytes; a page should not carry over {MAX_BYTES:,}")
    return HTML(page)


def _check(function: Callable, labels: Mapping[str, str], choices: Mapping[str, Sequence]) -> dict[str, Any]:
    """Return the values of the first frame: the function's defaults."""
    first = {}
    for name, values in choices.items():
        if name not in labels:
            raise ValueError(f"the choice {name!r} has no label")
        if len({isinstance(value, str) for value in values}) != 1:
            raise ValueError(f"the values of {name!r} should be all numbers or all text: {values!r}")
        first[name] = inspect.signature(function).parameters[name].default
        if first[name] not in values:
            raise ValueError(f"the function's default {name}={first[name]!r} is not among {list(values)}")
    return first


def _draw(function: Callable, values: dict[str, Any], alt: str) -> tuple[str, str]:
    """Return one frame as an SVG element, its ids its own, and its sentence."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    figure, text = function(**values)
    name = "f" + hashlib.sha256(f"{alt} {values}".encode()).hexdigest()[:8]
    out = io.StringIO()
    # Text stays text, in fonts of nearly the same widths; the same choices give the same ids.
    fonts = ["DejaVu Sans", "Verdana", "Arial"]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": fonts}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]  # without the prologue that a file of its own needs
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)  # would rule the page
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", svg))  # a hundredth of a point is enough
    # A clip path inside a hidden picture does not clip the shown one that borrows its id.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    size = r'<svg (.*?)width="[\d.]+pt" height="[\d.]+pt"'
    named = rf'<svg role="img" aria-label="{html.escape(alt)}" \1'
    return re.sub(size, named, svg, count=1), text


def _control(label: str, values: Sequence, first: Any) -> str:
    """Return the HTML of one labelled control: a menu for words, a slider for numbers."""
    texts, chosen = [_text(value) for value in values], list(values).index(first)
    data = f'data-texts="{html.escape("|".join(texts))}" autocomplete="off"'
    if isinstance(first, str):
        options = "".join(
            f'<option value="{i}"{" selected" * (i == chosen)}>{html.escape(text)}</option>'
            for i, text in enumerate(texts)
        )
        return f"<label>{html.escape(label)} <select {data}>{options}</select></label>"
    slider = f'<input type="range" min="0" max="{len(texts) - 1}" step="1" value="{chosen}" {data}'
    return (
        f'<label>{html.escape(label)} {slider} aria-valuetext="{texts[chosen]}">'
        f"<output>{texts[chosen]}</output></label>"
    )


def _text(value: Any) -> str:
    return value.replace("_", " ") if isinstance(value, str) else f"{value:,}"


def _live(function: Callable, labels: Mapping[str, str], choices: Mapping[str, Sequence], first: dict) -> Any:
    """Return the same controls as ipywidgets; a numeric choice also offers values between the given ones."""
    import ipywidgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    def show(**values):
        figure, text = function(**values)
        display(figure)
        plt.close(figure)
        print(text)

    look = {"style": {"description_width": "initial"}, "layout": {"width": "30em"}}
    controls = {}
    for name, values in choices.items():
        shared = {"value": first[name], "description": labels[name], **look}
        if isinstance(first[name], str):
            controls[name] = ipywidgets.Dropdown(options=[(_text(v), v) for v in values], **shared)
        else:  # one drawing when the handle is let go, not one for every step on its way
            options = [(_text(v), v) for v in _finer(values)]
            controls[name] = ipywidgets.SelectionSlider(options=options, continuous_update=False, **shared)
    return ipywidgets.interactive(show, **controls)


def _finer(values: Sequence[float]) -> list[float]:
    """Put values between the given ones, keeping their spacing and, for whole numbers, their kind."""
    import numpy as np

    places = np.linspace(0, len(values) - 1, LIVE_STEPS * (len(values) - 1) + 1)
    between = np.interp(places, range(len(values)), values).tolist()
    if all(isinstance(value, int) for value in values):
        between = [round(value) for value in between]
    return sorted({*between, *values})
