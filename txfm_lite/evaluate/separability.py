"""Separability: naming the perturbation of a cell in a batch that the classifier never saw.

Both scores are the mean of top-1 and top-5 accuracy, as in Tx-Evaluation (Bendidi et al. 2024), so that a
classifier that knows nothing but how frequent each perturbation is already scores
:func:`class_prior`, often several per cent.
"""

from __future__ import annotations

import numpy as np

BATCH = 64_768  # cells per step of the published linear layer
N_NEIGHBORS = 251
N_COMPONENTS = 32  # of the principal components in which neighbours are looked for
BLOCK = 20_000_000  # distances held at a time, 80 MB


def top_1_and_5(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean of top-1 and top-5 accuracy.

    Parameters
    ----------
    scores : ndarray, shape (n, classes)
        Higher is more likely; of equal ones the class with the lower number comes first.
    truth : ndarray of int, shape (n,)
        Column of the true class; -1 for a class that cannot be predicted, which is a mistake.
    """
    if not len(truth):
        return float("nan")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5] == truth[:, None]
    return float((best[:, 0].mean() + best.any(axis=1).mean()) / 2)


def class_prior(train: np.ndarray, test: np.ndarray) -> float:
    """Return the score of always naming the most frequent perturbations of the training cells.

    For classes with shares p in both parts this is (p_1 + p_1 + ... + p_5) / 2.
    """
    classes, truth = _encode(train, test)
    counts = np.bincount(np.searchsorted(classes, train), minlength=len(classes))
    return top_1_and_5(np.tile(counts.astype(float), (len(test), 1)), truth)


def linear_layer(x: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray, seed: int = 0):
    """Score a linear layer trained as published: AdamW, 250 epochs of nearly always a single step.

    Learning rate 1e-3 with 10 epochs of warm-up and cosine decay, weight decay 1e-6, batches of 64,768 cells,
    the weights of the last epoch. Two hundred and fifty small steps are far from convergence, so the score
    depends on the scale of the embedding, and without information may stay below the class prior;
    :func:`logistic_regression` does neither. The published loader drops the cells of an incomplete batch, and
    with them *all* cells of a study smaller than a batch; here they stay.

    Parameters
    ----------
    x, labels : ndarray, shapes (n, d) and (n,)
        Training cells.
    queries, truth : ndarray, shapes (m, d) and (m,)
        Cells to classify. A label that no training cell has is a mistake.
    seed : int
        Of the initial weights and the order of cells.
    """
    import torch

    classes, encoded = _encode(labels, truth)
    generator = torch.Generator().manual_seed(seed)
    y = torch.from_numpy(np.searchsorted(classes, labels))
    x, queries = (torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for a in (x, queries))
    layer = torch.nn.Linear(x.shape[1], len(classes))
    with torch.no_grad():
        for parameter in layer.parameters():  # torch's own start, from our generator
            parameter.uniform_(-(x.shape[1] ** -0.5), x.shape[1] ** -0.5, generator=generator)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=1e-6, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: min((epoch + 1) / 10, 0.5 + 0.5 * np.cos(np.pi * max(0, epoch - 10) / 240))
    )
    for _ in range(250):
        order = torch.randperm(len(x), generator=generator) if len(x) > BATCH else slice(None)
        for part, target in zip(x[order].split(BATCH), y[order].split(BATCH), strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(part), target).backward()
            optimizer.step()
        rate.step()
    with torch.no_grad():
        return top_1_and_5(layer(queries).numpy(), encoded)


def logistic_regression(x: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> float:
    """Score a multinomial logistic regression on standardised axes, fitted to convergence.

    Parameters as for :func:`linear_layer`; scikit-learn's, with its default penalty (C = 1). Its
    Newton solver needs a dozen steps where L-BFGS needs hundreds, each of which waits for all threads.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    _, encoded = _encode(labels, truth)
    scale = StandardScaler().fit(x)
    model = LogisticRegression(solver="newton-cg", max_iter=2000).fit(scale.transform(x), labels)
    scores = model.decision_function(scale.transform(queries))
    if scores.ndim == 1:  # of two classes scikit-learn scores only the second
        scores = np.column_stack([-scores, scores])
    return top_1_and_5(scores, encoded)


def nearest_neighbours(
    x: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray, seed: int = 0
) -> float:
    """Score the votes of the 251 nearest training cells, each weighing 1 / (distance + 1e-5).

    Parameters as for :func:`linear_layer`; `seed` decides among equally near cells. Neighbours are looked for
    in 32 principal components of the training cells where there are more axes. The published code counts
    controls as one more class, which raises the level without information to several per cent; whether they
    are among the cells given here is up to the caller, who says so.
    """
    from sklearn.decomposition import PCA

    classes, encoded = _encode(labels, truth)
    order = np.random.default_rng(seed).permutation(len(x))
    x, votes_for = np.asarray(x)[order], np.searchsorted(classes, labels)[order]
    if x.shape[1] > N_COMPONENTS and len(x) > N_COMPONENTS:
        pca = PCA(N_COMPONENTS, svd_solver="covariance_eigh").fit(x)
        x, queries = pca.transform(x), pca.transform(queries)
    k, squares = min(N_NEIGHBORS, len(x)), (x**2).sum(axis=1)
    votes = np.zeros((len(queries), len(classes)))
    step = max(1, BLOCK // len(x))
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        distance = squares - 2 * part @ x.T + (part**2).sum(axis=1, keepdims=True)
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        weight = 1 / (np.sqrt(np.maximum(np.take_along_axis(distance, nearest, axis=1), 0)) + 1e-5)
        cell = np.arange(len(part))[:, None] * len(classes) + votes_for[nearest]
        counted = np.bincount(cell.ravel(), weight.ravel(), minlength=len(part) * len(classes))
        votes[start : start + step] = counted.reshape(len(part), -1)
    return top_1_and_5(votes, encoded)


def _encode(labels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the training classes, sorted, and each true label's position among them (-1: none)."""
    classes = np.unique(labels)
    position = np.searchsorted(classes, truth).clip(max=len(classes) - 1)
    return classes, np.where(classes[position] == truth, position, -1)
