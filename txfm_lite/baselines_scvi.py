"""scVI as a baseline: fitted on the dataset to be scored, or on the training corpus (Lopez et al. 2018).

scvi-tools does the work, with the settings of the published zero-shot benchmark (Kedzierska et al. 2025): two
layers, 30 latent dimensions, negative binomial counts, a batch key. How long to train is decided by the
evidence lower bound (ELBO) on samples set aside: after each epoch it is looked at, the best epoch's weights
are kept, and training ends when it has not improved for a while. No label and no test score has a say.

The encoder sees counts alone, not the batch, so that a dataset that no training sample came from can be
embedded like any other.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .align import Aligned
from .baselines import measured_counts

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    from .corpus import Corpus

log = logging.getLogger("txfm_lite")

SHAPE = {"n_layers": 2, "n_latent": 30, "gene_likelihood": "nb"}
MOST_EPOCHS = 400
PATIENCE = 10  # epochs without a better ELBO, and
PATIENT_STEPS = 200  # so many steps: an epoch of a small dataset is short
WARM_UP = 20  # epochs in which the weight of the KL term grows to 1
LARGEST_SAMPLE = 1e5  # counts of a corpus sample: deeper ones are scaled down to it
BATCH_SIZE = 128
ROWS = 512  # embedded at a time


def embed_scvi(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    seed: int = 0,
    *,
    max_epochs: int = MOST_EPOCHS,
    validation: float = 0.1,
) -> np.ndarray:
    """Fit scVI on a dataset and return its embedding, float32, shape (n, 30).

    Parameters
    ----------
    adata : AnnData
        Raw counts in X; ``obs["batch"]``, if it is there, is the batch key.
    genes : sequence of str, optional
        As in :func:`txfm_lite.baselines.measured_counts`.
    seed : int
    max_epochs : int
    validation : float
        Share of the cells that only the ELBO is computed on.
    """
    import pandas as pd

    counts, _, _ = measured_counts(adata, genes)
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    n = max(1, round(validation * adata.n_obs))
    batch = adata.obs["batch"] if "batch" in adata.obs else pd.Series("all", adata.obs_names)
    batch = batch.astype(str).to_numpy()  # a missing one becomes a batch of its own, "nan"
    module, _ = _train(counts, batch, order[n:], order[:n], seed, max_epochs)
    return _posterior_mean(module, counts)


class CorpusSCVI:
    """scVI fitted on a training corpus, applied to other datasets.

    Trained on the corpus' training samples, stopped by the ELBO of its validation samples; the batch key is
    the dataset. A gene that a dataset does not measure is a zero, here and in :meth:`embed`: scVI has no
    other way to say it. Samples of more than 1e5 counts (bulk, full-length reads) are scaled to 1e5 and
    rounded, here and in :meth:`embed`, or a few samples with millions of counts would be most of the
    likelihood.

    Parameters
    ----------
    corpus : Corpus
    seed : int
    max_epochs : int

    Attributes
    ----------
    genes : ndarray of str, shape (G,)
    elbo : list of float
        Negative ELBO per validation sample after each epoch; the lowest one's weights are kept.

    Raises
    ------
    ValueError
        If the corpus has no validation samples.
    """

    def __init__(self, corpus: Corpus, seed: int = 0, *, max_epochs: int = MOST_EPOCHS):
        train, validation = corpus.rows("train"), corpus.rows("validation")
        if not len(validation):
            raise ValueError(f"{corpus.path}: no validation samples to stop by: build it with some")
        self.genes, self._n_batches = corpus.genes, len(np.unique(corpus.dataset))
        counts = _at_most(corpus.csr(), LARGEST_SAMPLE)
        batch = corpus.dataset.astype(str)
        self._module, self.elbo = _train(counts, batch, train, validation, seed, max_epochs)

    def embed(self, adata: AnnData) -> np.ndarray:
        """Return the posterior means of the samples of `adata`, float32, shape (n, 30)."""
        aligned = Aligned(adata, self.genes)
        return np.concatenate(
            [_posterior_mean(self._module, _at_most(x, LARGEST_SAMPLE)) for _, x, _ in aligned]
        )

    def gene_vectors(self) -> pd.DataFrame:
        """Return the decoder's last weights, those that tell a gene's share, shape (G, 128)."""
        import pandas as pd

        weight = self._module.decoder.px_scale_decoder[0].weight
        return pd.DataFrame(weight.detach().numpy(), index=pd.Index(self.genes, name="gene"))

    def save(self, path: str | Path) -> Path:
        """Write one .safetensors file, whole or not at all."""
        from safetensors.torch import save_file

        path = Path(path)
        aside = path.with_name(path.name + ".partial")
        facts = {"genes": self.genes.tolist(), "n_batches": self._n_batches, "elbo": self.elbo}
        weights = {k: v.contiguous() for k, v in self._module.state_dict().items()}
        save_file(weights, aside, metadata={k: json.dumps(v) for k, v in facts.items()})
        return aside.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> CorpusSCVI:
        """Read what :meth:`save` wrote."""
        from safetensors import safe_open
        from scvi.module import VAE

        self = cls.__new__(cls)
        with safe_open(path, "pt") as file:
            facts = {k: json.loads(v) for k, v in file.metadata().items()}
            weights = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        self.genes, self.elbo = np.array(facts["genes"]), facts["elbo"]
        self._n_batches = facts["n_batches"]
        self._module = VAE(len(self.genes), self._n_batches, **SHAPE)
        self._module.load_state_dict(weights)
        self._module.eval()
        return self


def _at_most(counts: sp.csr_matrix, most: float) -> sp.csr_matrix:
    """Scale deeper samples down to so many counts, rounded."""
    total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    factor = np.minimum(1, most / np.maximum(total, 1))
    scaled = counts.astype(np.float32)
    scaled.data = np.rint(scaled.data * np.repeat(factor, np.diff(scaled.indptr))).astype(np.float32)
    scaled.eliminate_zeros()
    return scaled


def _train(
    counts: sp.csr_matrix,
    batch: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    seed: int,
    epochs: int,
) -> tuple[Any, list[float]]:
    """Return a trained module in evaluation mode and its course, the weights those of the best epoch."""
    import anndata
    import lightning
    import pandas as pd
    import scvi

    class Best(lightning.Callback):
        """Keep the best epoch's weights; stop when none has been better for a while."""

        elbo: list[float] = []
        weights: dict[str, Any] = {}

        def on_validation_end(self, trainer, plan):
            self.elbo.append(float(trainer.callback_metrics["elbo_validation"]))
            if self.elbo[-1] <= min(self.elbo):
                self.weights = {k: v.clone() for k, v in plan.module.state_dict().items()}
            trainer.should_stop |= len(self.elbo) > int(np.argmin(self.elbo)) + patience

    obs = pd.DataFrame({"batch": batch}, index=[str(i) for i in range(len(batch))])
    adata = anndata.AnnData(counts, obs)
    scvi.settings.seed, scvi.settings.verbosity = seed, logging.ERROR
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    patience = max(PATIENCE, math.ceil(PATIENT_STEPS * BATCH_SIZE / len(train)))
    best = Best()
    best.elbo, none = [], np.array([], dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on workers, on small last batches
        scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
        model = scvi.model.SCVI(adata, **SHAPE)
        model.train(
            max_epochs=epochs, batch_size=BATCH_SIZE, check_val_every_n_epoch=1, callbacks=[best],
            datasplitter_kwargs={"external_indexing": [train, validation, none]},
            plan_kwargs={"n_epochs_kl_warmup": WARM_UP}, enable_progress_bar=False,
        )  # fmt: skip
    module = model.module.cpu()
    module.load_state_dict(best.weights)
    log.info("scVI: %d epochs, the best ELBO after %d", len(best.elbo), 1 + int(np.argmin(best.elbo)))
    return module.eval(), best.elbo


def _posterior_mean(module: Any, counts: sp.csr_matrix) -> np.ndarray:
    import torch

    parts = []
    with torch.inference_mode():
        for a in range(0, counts.shape[0], ROWS):
            x = torch.from_numpy(counts[a : a + ROWS].toarray())
            parts.append(module.z_encoder(torch.log1p(x))[0].loc.numpy())
    return np.concatenate(parts)
