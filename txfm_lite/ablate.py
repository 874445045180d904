"""The ablations of the TxFM paper's Table 5, at a size that two CPU cores can afford in a night.

A default, and one change of it at a time. All settings see the same number of samples (but the one that is
about more), with one recipe: nobody's learning rate is tuned. A setting is trained from several seeds; a seed
decides weights, order and what is hidden. What a run gives is one JSON file of scores, see
:mod:`txfm_lite.evaluate.ablations`; one that is stored is not run again. Training needs torch and lightning,
scoring pandas, scikit-learn and scipy, and both read prepared files (:mod:`txfm_lite.ablate_data`), so that a
machine with a GPU needs nothing else.

What is scaled: about a tenth of a sample's measured genes is shown, as in the paper, and K varies by its
factors. A small vocabulary is learned much sooner. Sizes are widths of one block, whose cost does not grow
with K (:mod:`txfm_lite.blocks`). Some coordinates of the gene vectors start at principal axes of the corpus,
as in the shipped model: in a trial with 4,500 genes, 51,200 samples with them explained 12 % of the loss,
102,400 without them 8 %, and where little is learned no setting differs from another. So what the codebook
recalls was in part there before training, in every setting alike.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import results
from .evaluate.ablations import PANELS

if TYPE_CHECKING:
    from .ablate_data import Prepared
    from .txfm import TxFM, TxFMConfig

log = logging.getLogger("txfm_lite")

STUDY = "ablations"
#: Rows of the paper's table without a counterpart here, and why.
NOT_RUN = {"TF-Sapiens (57M) at 4x compute": "no atlas of that kind is at hand"}


@dataclass(frozen=True)
class Size:
    """What every run may spend. The defaults are a few minutes on one CPU core."""

    n_genes: int = 2048  # most variable ones; the screens' panels come on top
    n_revealed: int = 256  # K
    widths: tuple[int, int, int] = (32, 64, 128)  # of the small, the default and the large model
    n_blocks: int = 1
    decoder_blocks: int = 4
    n_components: int = 16  # coordinates of gene vectors that start at principal axes
    batch_size: int = 64
    samples: int = 204_800
    learning_rate: float = 5e-3

    def __post_init__(self):
        if self.samples < self.batch_size or self.n_revealed < 4:
            raise ValueError(f"{self}: should have a batch of samples at least, and four genes shown")


SIZES = {
    "smoke": Size(n_genes=300, n_revealed=64, widths=(8, 16, 24), n_components=4, batch_size=16, samples=320),
    "full": Size(),
}


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Parameters
    ----------
    panel : str
        "default", or a letter of :data:`PANELS`.
    name : str
        Ours, as it stands in the results' field ``model``.
    paper : str
        The row of the paper's table that it stands for; empty if there is none.
    model : mapping
        Fields of :class:`~txfm_lite.txfm.TxFMConfig` that differ from the default's.
    data : str
        Of :data:`txfm_lite.ablate_data.VARIANTS`.
    compute : float
        Samples seen, relative to the default.
    """

    panel: str
    name: str
    paper: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    data: str = "curated"
    compute: float = 1.0

    @property
    def folder(self) -> str:
        """Where its results lie within a study."""
        return (
            self.panel if self.panel == "default" else f"{self.panel}-{PANELS[self.panel].replace(' ', '-')}"
        )


DEFAULT = Setting("default", "default")


def settings(size: Size = SIZES["full"]) -> list[Setting]:
    """Return the default and every single change of it, in the order in which they are run."""
    k, (small, _, large) = size.n_revealed, size.widths

    def row(panel: str, name: str, paper: str, **model: Any) -> Setting:
        return Setting(panel, name, paper, model)

    def trained_on(name: str, paper: str, data: str, compute: float = 1.0) -> Setting:
        return Setting("h", name, paper, data=data, compute=compute)

    return [
        DEFAULT,
        row("a", "MSE", "MSE", loss="mse"),
        row("a", "smooth L1", "SmoothL1", loss="smooth_l1"),
        row("a", "negative binomial", "Negative binomial", loss="negative_binomial"),
        row("f", "ReLU", "ReLU (diverges)", activation="relu"),
        row("f", "clamped ReLU", "clamped ReLU", activation="clamped_relu"),
        row("f", "softmax", "softmax", activation="softmax"),
        row("b", "log1p of counts", "log1p", preprocessing="log1p"),
        row("c", "K / 4", "512", n_revealed=k // 4),
        row("c", "K / 2", "1024", n_revealed=k // 2),
        row("c", "2 K", "4096", n_revealed=2 * k),
        trained_on("no screen", "DiverseRNA without K562 (932K)", "none"),
        trained_on("controls only", "DiverseRNA with K562 controls only (1.0M)", "controls"),
        trained_on("full screen", "DiverseRNA with full K562 (2.8M)", "full"),
        trained_on("full screen at 2x compute", "DiverseRNA with full K562 (2.8M) at 2x compute", "full", 2),
        trained_on("random cells instead", "", "random"),
        row("d", "tau minus 1", "-1", reveal_exponent=-1.0),
        row("d", "tau minus 0.5", "-0.5", reveal_exponent=-0.5),
        row("d", "tau 0.5", "0.5", reveal_exponent=0.5),
        row("d", "tau 1", "1.0", reveal_exponent=1.0),
        row("e", "linear", "linear", decoder_blocks=0),
        row("e", "1 block", "1-layer MLP", decoder_blocks=1),
        row("e", "8 blocks", "8-layer MLP", decoder_blocks=8),
        row("g", "small", "S (57M)", **_width(small)),
        row("g", "large", "L (403M)", **_width(large)),
    ]  # fmt: skip


def choose(
    panels: Sequence[str] = (), names: Sequence[str] = (), size: Size = SIZES["full"]
) -> list[Setting]:
    """Return the default and the settings of some panels, or of some names; all without either.

    Raises
    ------
    ValueError
        For an unknown panel or name; the message lists those that there are.
    """
    every = settings(size)
    for given, known in ((panels, PANELS), (names, [s.name for s in every])):
        if unknown := [x for x in given if x not in known]:
            raise ValueError(
                f"no {', '.join(map(repr, unknown))} among the ablations; there are {', '.join(known)}"
            )
    wanted = panels or () if names else panels or tuple(PANELS)
    return [s for s in every if s is DEFAULT or s.panel in wanted or s.name in names]


def config(setting: Setting, size: Size, n_genes: int) -> TxFMConfig:
    """Return a setting's model."""
    from .txfm import TxFMConfig

    same = {"n_blocks": size.n_blocks, "decoder_blocks": size.decoder_blocks, "drop_path": 0.0}
    same |= {"n_revealed": size.n_revealed, **_width(size.widths[1])}
    return TxFMConfig(n_genes, **{**same, **setting.model})


def _width(d: int) -> dict[str, int]:
    return {"d_model": d, "n_heads": max(1, d // 32)}


def where(setting: Setting, seed: int, study: str = STUDY) -> str:
    """Return the name of a run's result."""
    from .evaluate.suite import path

    return path(study, setting.folder, setting.name, seed)


def train(
    setting: Setting, seed: int, size: Size, prepared: Prepared, runs: str | Path, **trainer: Any
) -> tuple[TxFM | None, list[dict[str, float]], int | None]:
    """Train a setting, or go on where that stopped, or open it.

    Parameters
    ----------
    setting : Setting
    seed : int
    size : Size
    prepared : Prepared
    runs : path
        A folder for runs and the variants of the training data; for one size only.
    **trainer
        Arguments of ``lightning.Trainer``.

    Returns
    -------
    model : TxFM or None
        The trained model. If training diverged, the last one that was kept before (every quarter), if any.
    history : list of dict
        One row per look, see :class:`~txfm_lite.steps.Steps`.
    diverged : int or None
        The step whose loss was no finite number.
    """
    import pandas as pd

    from .monitoring import Diverged
    from .training import TrainConfig, fit
    from .txfm import TxFM

    corpus = prepared.corpus(setting.data, Path(runs) / "corpora")
    path = Path(runs) / setting.folder / where(setting, seed).rsplit("/", 1)[1]
    steps = round(size.samples * setting.compute / size.batch_size)
    schedule = TrainConfig(
        steps=steps, batch_size=size.batch_size, learning_rate=size.learning_rate, seed=seed,
        validate_every=max(1, steps // 8), checkpoint_minutes=1,
        start_from_components=size.n_components,
    )  # fmt: skip
    quarters = sorted({max(1, steps * i // 4) for i in (1, 2, 3)})
    shape = config(setting, size, corpus.n_genes)
    model, diverged = None, None
    try:
        model = fit(corpus, shape, schedule, path, progress=False, snapshots=quarters, **trainer).model
    except Diverged as error:
        log.info("%s, seed %d: %s", setting.name, seed, error)
        diverged = error.step
        if kept := [q for q in quarters if (path / "snapshots" / f"step-{q}").is_dir() and q < diverged]:
            model = TxFM.from_pretrained(path / "snapshots" / f"step-{kept[-1]}")
    history = pd.read_csv(path / "history.csv", float_precision="round_trip").to_dict("records")
    return model, history, diverged


def run(
    setting: Setting,
    seed: int,
    size: Size,
    prepared: Prepared,
    runs: str | Path,
    folder: Path | None = None,
    study: str = STUDY,
    facts: Mapping[str, Any] | None = None,
    **trainer: Any,
) -> None:
    """Train and score a setting with a seed and store the rows, unless they are stored.

    Parameters
    ----------
    setting, seed, size, prepared, runs, **trainer
        As for :func:`train`.
    folder : path, optional
        Of the results; by default the repository's.
    study : str
        The results lie in ``<study>/<panel>/<setting>-seed<k>.json``: another size needs another.
    facts : mapping, optional
        What the provenance should say beside what is known here.
    """
    from .evaluate import ablations

    if results.stored(name := where(setting, seed, study), folder):
        return
    log.info("%s, seed %d", setting.name, seed)
    model, history, diverged = train(setting, seed, size, prepared, runs, **trainer)
    corpus = prepared.corpus(setting.data, Path(runs) / "corpora")
    rows, tested = ablations.score(model, setting.name, prepared, corpus, seed)
    known = {
        "data": results.fingerprint(corpus), "panel": setting.panel, "paper": setting.paper,
        "samples": round(size.samples * setting.compute), "diverged": diverged,
        "parameters": model and model.n_parameters, "minutes": history[-1]["minutes"],
        "unseen": prepared.info["unseen"], "size": asdict(size), **(facts or {}),
    }  # fmt: skip
    plain = [{k: None if v != v else v for k, v in look.items()} for look in history]  # JSON has no nan
    results.write(name, rows, results.provenance(**known), folder, parts={"history": plain, "p": tested})
