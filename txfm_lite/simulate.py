r"""A simulated corpus with known truth: what the book is built on when no real data are within reach.

The generative model is deliberately the one that the methods of this book assume, one layer after the other,
so that every layer can be checked against its truth:

.. math::

    a_{nk} &= A_{t(n),k}\,\varepsilon_{nk}, \qquad \varepsilon_{nk}\sim\mathrm{Gamma}(20, 1/20)
        && \text{activity of programme } k \text{ in cell } n\\
    \eta_{ng} &= b_g + \textstyle\sum_k a_{nk} W_{gk} + \beta_{s(n),g} + \gamma_{r(n),g}
        && \text{log abundance of gene } g\\
    \pi_{ng} &= e^{\eta_{ng}} \big/ \textstyle\sum_{g'\in M_s} e^{\eta_{ng'}}, \qquad
        \ell_n\sim\mathrm{LogNormal}(\log m_s, \sigma_s^2), \qquad \mu_{ng}=\ell_n\,\pi_{ng}
        && \text{expected molecules}\\
    d_{ng} &\sim \mathrm{Bernoulli}\big(h_s/(h_s+\mu_{ng})\big)
        && \text{capture fails}\\
    x_{ng} &\sim (1-d_{ng})\;\mathrm{NB}(\mu_{ng}, \theta_s), \qquad
        \mathrm{Var}[x_{ng}\mid d_{ng}=0]=\mu_{ng}+\mu_{ng}^2/\theta_s
        && \text{counts}

A cell type :math:`t` is a mixture of a few programmes (:math:`A_t`, Dirichlet), a programme raises a sparse
set of genes (:math:`W`). Study :math:`s` (its technology) and batch :math:`r` shift every gene on the log
scale by :math:`\beta_s` and :math:`\gamma_r`. Each study measures its own subset of genes :math:`M_s`; a gene
outside it is absent from the matrix, not zero in it. The half-capture :math:`h_s` is the expected count at
which half of the entries are lost (the Michaelis-Menten dropout of M3Drop, Andrews and Hemberg 2019); 0 means
no dropout. A bulk sample averages the type profiles with Dirichlet fractions instead of drawing one cell. In
the perturbed study a guide lowers its target gene and the programme that the gene belongs to.

Everything above is kept in ``uns["truth"]`` of each study, restricted to the study's genes and in their
order, and :func:`expected` turns it back into :math:`\mu` and the dropout probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

N_PROGRAMMES = 12
N_TYPES = 8
GENES_PER_PROGRAMME = 60
ACTIVITY = 2.5  # total programme activity of a cell type, in log units
STUDY_SD, BATCH_SD = 0.4, 0.25  # of the log shifts beta and gamma
MEASURED_SHARE = 0.75  # of all genes that one study measures
KNOCKDOWN = 0.2  # what a guide leaves of its target gene and of the target's programme
CONTROL_SHARE = 0.3  # cells with a non-targeting guide


@dataclass(frozen=True)
class Study:
    """Design of one simulated study: what differs between laboratories and technologies."""

    name: str
    technology: str
    units: str  # "UMI counts" | "read counts"
    n_obs: int
    n_batches: int
    types: tuple[int, ...]  # cell types that occur in it
    library_median: float  # m_s, molecules per cell over the measured genes, before dropout
    library_sigma: float  # sigma_s, spread of the log library size
    inverse_dispersion: float  # theta_s; larger is closer to Poisson
    half_capture: float  # h_s, expected count at which half of the entries are lost
    role: str = "train"
    bulk: bool = False
    perturbed: bool = False
    guides: int = 2  # genes of each of five programmes that guides aim at, if perturbed


# fmt: off
STUDIES = (
    Study("simulated_a", "droplet, first chemistry",
          "UMI counts", 800, 3, (0, 1, 2, 3, 4), 2_500, 0.35, 4.0, 0.3),
    Study("simulated_b", "droplet, second chemistry",
          "UMI counts", 800, 3, (2, 3, 4, 5, 6), 6_000, 0.45, 5.0, 0.2),
    Study("simulated_c", "plate, full length",
          "read counts", 480, 4, (0, 2, 5, 7), 120_000, 0.6, 2.0, 4.0),
    Study("simulated_d", "droplet, guide screen",
          "UMI counts", 800, 3, (6,), 9_000, 0.3, 5.0, 0.2, perturbed=True),
    Study("simulated_e", "bulk",
          "read counts", 160, 4, tuple(range(8)), 2_000_000, 0.25, 20.0, 0.0, bulk=True),
    Study("simulated_f", "droplet, third chemistry",
          "UMI counts", 800, 3, (0, 1, 3, 5, 6, 7), 4_000, 0.4, 4.0, 0.25, role="held_out"),
    Study("simulated_g", "droplet, guide screen",
          "UMI counts", 1000, 3, (5,), 8_000, 0.3, 5.0, 0.2, role="held_out", perturbed=True, guides=4),
)
# fmt: on


def corpus(seed: int = 0, n_genes: int = 2000, studies: Sequence[Study] = STUDIES) -> dict[str, AnnData]:
    """Simulate several studies of one common biology.

    Parameters
    ----------
    seed
        Same seed, same data. A study depends on the seed and its own design only, not on its neighbours.
    n_genes
        Size of the union vocabulary; each study measures three quarters of it.
    studies
        Designs; by default four single-cell studies to train on (one of them a guide screen), one bulk study
        and two held-out ones: six cell types in three batches, and a guide screen. ``dataclasses.replace``
        changes a design.

    Returns
    -------
    dict
        Study name to AnnData: counts [cells, measured genes] as CSR float32, the standard ``obs`` columns,
        ``var`` with ``gene_symbols``, ``ensembl_id`` (missing), ``source_id`` and ``matched``,
        ``uns["source"]`` and ``uns["truth"]``.
    """
    biology = _biology(seed, n_genes)
    return {design.name: _simulate(design, biology, seed) for design in studies}


def study(name: str, seed: int = 0, n_genes: int = 2000) -> AnnData:
    """Simulate one study of the default corpus, the same as ``corpus(seed, n_genes)[name]``.

    Raises
    ------
    ValueError
        If no default study has this name.
    """
    designs = {design.name: design for design in STUDIES}
    if name not in designs:
        raise ValueError(f"no simulated study {name!r}; there are {', '.join(designs)}")
    return _simulate(designs[name], _biology(seed, n_genes), seed)


def expected(truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return expected counts before dropout and the probability of dropout, from a study's truth.

    Parameters
    ----------
    truth
        ``uns["truth"]`` of a simulated study.

    Returns
    -------
    mu : array [cells, genes]
        Expected molecules, rows summing to the library size.
    dropout : array [cells, genes]
        Probability that an entry is lost, ``h / (h + mu)``.
    """
    log_profile = truth["baseline"] + truth["activity"] @ truth["loadings"].T
    if "fractions" in truth:  # bulk: rows so far are cell types; mix their profiles
        log_profile = np.log(truth["fractions"] @ _softmax(log_profile))
    log_profile = log_profile + truth["study_effect"] + truth["batch_effects"][truth["batch"]]
    if "target" in truth:
        hit = np.flatnonzero(truth["target"] >= 0)
        log_profile[hit, truth["target"][hit]] += np.log(KNOCKDOWN)
    mu = truth["library_size"][:, None] * _softmax(log_profile)
    return mu, truth["half_capture"] / (truth["half_capture"] + mu)


def partners(adata: AnnData) -> pd.DataFrame:
    """Return the pairs of a guide screen's targets that share a programme: columns `entity1`, `entity2`."""
    import pandas as pd

    truth = adata.uns["truth"]
    hit = {g: k for g, k in zip(truth["target"], truth["target_programme"], strict=True) if g >= 0}
    pairs = [(a, b) for a in sorted(hit) for b in sorted(hit) if a < b and hit[a] == hit[b]]
    return pd.DataFrame([adata.var_names[list(pair)] for pair in pairs], columns=["entity1", "entity2"])


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _biology(seed: int, n_genes: int) -> dict[str, np.ndarray]:
    """Draw what all studies share: baseline b [G], loadings W [G, K], type activities A [T, K]."""
    if n_genes < GENES_PER_PROGRAMME:
        raise ValueError(f"n_genes={n_genes}: a programme alone has {GENES_PER_PROGRAMME} genes")
    rng = np.random.default_rng(seed)
    loadings = np.zeros((n_genes, N_PROGRAMMES))
    for k in range(N_PROGRAMMES):
        members = rng.choice(n_genes, GENES_PER_PROGRAMME, replace=False)
        loadings[members, k] = rng.gamma(8.0, 0.125, GENES_PER_PROGRAMME)  # mean 1, never near zero
    return {
        "baseline": rng.normal(0.0, 1.3, n_genes),
        "loadings": loadings,
        "type_activity": ACTIVITY * rng.dirichlet(np.full(N_PROGRAMMES, 0.3), N_TYPES),
    }


def _simulate(design: Study, biology: dict[str, np.ndarray], seed: int) -> AnnData:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    # the name, not the position, seeds a study: its data do not depend on which others are simulated
    rng = np.random.default_rng([seed, *design.name.encode()])
    n, n_genes = design.n_obs, len(biology["baseline"])
    genes = np.sort(rng.choice(n_genes, round(MEASURED_SHARE * n_genes), replace=False))
    batch = rng.permutation(np.arange(n) % design.n_batches)
    truth = {
        "baseline": biology["baseline"][genes],
        "loadings": biology["loadings"][genes],
        "type_activity": biology["type_activity"],
        "study_effect": rng.normal(0.0, STUDY_SD, len(genes)),
        "batch_effects": rng.normal(0.0, BATCH_SD, (design.n_batches, len(genes))),
        "batch": batch,
        "library_size": rng.lognormal(np.log(design.library_median), design.library_sigma, n),
        "inverse_dispersion": design.inverse_dispersion,
        "half_capture": design.half_capture,
    }
    symbols = np.array([f"GENE{g + 1:04d}" for g in range(n_genes)])[genes]
    obs = pd.DataFrame(index=[f"{design.name}_{i:04d}" for i in range(n)])
    if design.bulk:
        truth["activity"] = biology["type_activity"][list(design.types)]
        truth["fractions"] = rng.dirichlet(np.ones(len(design.types)), n)
    else:
        types = rng.choice(design.types, n)
        noise = rng.gamma(20.0, 0.05, (n, N_PROGRAMMES))  # mean 1
        truth["activity"] = biology["type_activity"][types] * noise
        obs["cell_type"] = [f"type {t + 1}" for t in types]
    obs["batch"] = [f"{design.name}_batch{r + 1}" for r in batch]
    obs["technology"] = design.technology
    obs["tissue"] = "simulated"
    if design.perturbed:
        _perturb(design, biology, truth, obs, symbols, rng)

    mu, dropout = expected(truth)
    theta = design.inverse_dispersion
    counts = rng.poisson(rng.gamma(theta, mu / theta)) * (rng.random(mu.shape) >= dropout)
    var = pd.DataFrame(
        {"gene_symbols": symbols, "ensembl_id": np.nan, "source_id": symbols, "matched": True}, index=symbols
    )
    for column in ("cell_type", "donor", "disease", "perturbation", "perturbation_type", "is_control"):
        if column not in obs:
            obs[column] = np.nan
    obs = obs.astype({c: "category" for c in obs if c != "is_control"})
    source = {"dataset": design.name, "part": "main", "licence": "simulated", "units": design.units}
    source |= {"role": design.role, "citation": "", "files": {}, "seed": seed}
    adata = AnnData(csr_matrix(counts, dtype=np.float32), obs=obs, var=var)
    adata.uns.update(source=source, truth=truth)
    return adata


def _perturb(design, biology, truth, obs, symbols, rng) -> None:
    """Give each cell a guide: control, or one of a few genes of each of the five most active programmes."""
    activity = biology["type_activity"][list(design.types)].mean(axis=0)
    programmes = np.argsort(-activity)[:5]
    # the strongest genes of a programme that belong to no other: so that a guide has one programme
    alone = np.count_nonzero(truth["loadings"], axis=1) == 1
    targets = [np.argsort(-truth["loadings"][:, k] * alone)[: design.guides] for k in programmes]
    genes, hit = np.concatenate(targets), np.repeat(programmes, design.guides)
    guide = rng.integers(len(genes), size=design.n_obs)
    guide[rng.random(design.n_obs) < CONTROL_SHARE] = -1
    treated = np.flatnonzero(guide >= 0)
    truth["activity"][treated, hit[guide[treated]]] *= KNOCKDOWN
    truth["target"] = np.where(guide >= 0, genes[guide], -1)
    truth["target_programme"] = np.where(guide >= 0, hit[guide], -1)
    obs["perturbation"] = np.where(guide >= 0, symbols[genes[guide]], "control")
    obs["perturbation_type"] = "knockdown"
    obs["is_control"] = guide < 0
