r"""Invertibility: how much of a cell's expression can be read back from its embedding.

A decoder is fitted on training cells and predicts :math:`y = \log(1 + 10^4 x / \sum x)` for cells of other
batches *and* other perturbations. The score is the mean of two:

- Spearman's correlation per gene, over cells, averaged over genes;
- structural integrity, :math:`1 - D / 2M`, with D the mean over batches of
  :math:`\lVert\hat Y_b - Y_b\rVert_F / n_b` and M that of :math:`\lVert Y_b\rVert_F / n_b`, after the
  batch's controls were centred at zero in both, the observed and the predicted.

A decoder that ignores its input has correlation 0 and integrity 1/2, so the score without information is 1/4,
not 0. The published code scores about one cell in a hundred and lets genes count that do not vary; the
paper's text says "linearly decoded", the code has a network with three hidden layers. Here all cells count,
constant genes are left out, and there are both decoders.
"""

from __future__ import annotations

import numpy as np

NULL = 0.25  # (0 + 1/2) / 2


def target(counts, rows: np.ndarray) -> np.ndarray:
    """Return log(1 + 10^4 · counts / total), dense float32, shape (rows, G), from sparse raw counts.

    Raises
    ------
    ValueError
        If a cell has no counts, or a value is negative or not finite.
    """
    from scipy.sparse import csr_matrix

    x = csr_matrix(counts[rows], dtype=np.float32)
    if not np.isfinite(x.data).all() or (x.data < 0).any():
        raise ValueError("counts: some are negative or not finite; give the raw counts")
    total = np.asarray(x.sum(axis=1)).ravel()
    if not total.all():
        raise ValueError(f"counts: {(total == 0).sum()} cells have none; leave them out")
    x.data = np.log1p(x.data * np.repeat((1e4 / total).astype(np.float32), np.diff(x.indptr)))
    return x.toarray()


def spearman_per_gene(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each gene over cells, shape (G,).

    nan for a gene that is the same in all cells: nothing could be predicted. 0 where the prediction is the
    same in all cells although the gene is not.
    """
    from scipy.stats import rankdata

    a, b = (rankdata(x, axis=0) - (len(x) + 1) / 2 for x in (truth, predicted))
    norm_a, norm_b = (np.sqrt((x**2).sum(axis=0)) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (a * b).sum(axis=0) / (norm_a * norm_b)
    return np.where(norm_a == 0, np.nan, np.where(norm_b == 0, 0.0, correlation))


def structural_integrity(
    truth: np.ndarray, predicted: np.ndarray, batches: np.ndarray, controls: np.ndarray
) -> float:
    """Return 1 - D / 2M: 1 if perfect, 1/2 for the controls' mean, below 0 for predicting too much.

    Parameters
    ----------
    truth, predicted : ndarray, shape (n, G)
        Controls included.
    batches : array of str, shape (n,)
    controls : array of bool, shape (n,)

    Raises
    ------
    ValueError
        If a batch has no controls. (The published code leaves it uncentred.)
    """
    batches, controls = np.asarray(batches), np.asarray(controls, dtype=bool)
    distance, magnitude = [], []
    for batch in np.unique(batches):
        inside = batches == batch
        if not (inside & controls).any():
            raise ValueError(f"batch {str(batch)!r} has no controls to centre it with: leave it out")
        y, z = (x[inside] - x[inside & controls].mean(axis=0) for x in (truth, predicted))
        distance.append(np.linalg.norm(z - y) / inside.sum())
        magnitude.append(np.linalg.norm(y) / inside.sum())
    return float(1 - np.mean(distance) / (2 * np.mean(magnitude)))


def ridge(x: np.ndarray, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Predict `y` linearly from standardised axes (scikit-learn's ridge regression, penalty 1)."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(x)
    return Ridge(1.0).fit(scale.transform(x), y).predict(scale.transform(queries))


def network(x: np.ndarray, y: np.ndarray, queries: np.ndarray, seed: int = 0) -> np.ndarray:
    """Predict `y` by the published network: three hidden layers, their widths between input and output.

    ReLU, squared error, AdamW at 1e-4, 30 epochs in batches of 512. Unlike there, the input axes are
    standardised: at this learning rate a network hardly moves otherwise in a study of a few thousand cells.
    """
    import torch
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(x)
    x, queries = (torch.from_numpy(scale.transform(a).astype(np.float32)) for a in (x, queries))
    y, generator = torch.from_numpy(np.ascontiguousarray(y)), torch.Generator().manual_seed(seed)
    widths = np.linspace(x.shape[1], y.shape[1], 5).astype(int)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(int(a), int(b)) for a, b in zip(widths[:-1], widths[1:], strict=True)]
    parts = [part for layer in layers for part in (layer, torch.nn.ReLU())][:-1]
    model = torch.nn.Sequential(*parts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for _ in range(30):
        for rows in torch.randperm(len(x), generator=generator).split(512):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
    with torch.inference_mode():
        return model(queries).numpy()
