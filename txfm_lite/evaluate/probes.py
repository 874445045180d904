"""Whether a classifier can tell the cell types of batches that it has never seen.

Everything here is split by *batch*: no batch is in the training part and in the test part, and what is chosen
(a learning rate, when to stop) is chosen on a held-out batch. Published probes choose on random cells of the
training batches, or do not say on what, and let labels that training never had into the mean of F1.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from .scores import partial

log = logging.getLogger("txfm_lite")

LEARNING_RATES = (5e-4, 1e-4, 1e-5)  # the paper's; the smaller two are tried from MANY training cells on
MANY = 20_000
HIDDEN, BATCH = (512, 256), 2_048  # the paper's
STEPS = {"linear": 2_000, "MLP": 200}  # at most, but at least 20 epochs: the paper does not say
PATIENCE = 100  # steps without a gain, but at least 10 epochs
WIDEST = 6_000  # dimensions; the first layer of an MLP on all genes costs hours


def evaluate(
    values: np.ndarray, labels: np.ndarray, batches: np.ndarray, seed: int = 0
) -> list[dict[str, Any]]:
    """Score batch-disjoint probes: logistic regression, and the paper's linear layer and MLP.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    labels, batches : array of str, shape (n,)
    seed : int
        Of the networks; and it picks their fold, so that seeds 0, 1, ... test on different batches.

    Returns
    -------
    list of dict
        Partial rows "LR accuracy" and "LR F1" (logistic regression fitted to convergence, over all folds),
        "linear accuracy", "linear F1", "MLP accuracy", "MLP F1" (:func:`network`, on one fold), and "unseen
        labels", the share of test cells that are in none of the other scores because no training batch has
        their type. F1 is the mean over the types in truth. Nulls: the most frequent type of the training
        part, the class prior. nan for a single batch, and where no type is in two batches.
    """
    folds = splits(batches)
    if not folds:
        log.warning("one batch: no probe can be tested on another")
    one = folds[seed % len(folds) :][:1] if folds else []
    converged = [_compare(labels, *fold, _logistic(values, labels, *fold)) for fold in folds]
    rows = _rows("LR", converged)
    for name, hidden in (("linear", ()), ("MLP", HIDDEN)):
        tried = [
            _compare(labels, *fold, network(values, labels, batches, *fold, hidden, seed)) for fold in one
        ]
        rows += _rows(name, tried)
    unseen = np.mean(np.concatenate([c[3] for c in converged])) if converged else np.nan
    return [*rows, partial("unseen labels", unseen, ceiling=0, n=len(labels))]


def splits(batches: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs (training cells, test cells) that share no batch, as numbers of cells.

    Each batch is left out in turn where there are six or fewer; else batches are dealt into four parts, each
    of them the test part once: the paper's 75/25. Empty for a single batch.
    """
    from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

    batches = np.asarray(batches)
    n = len(np.unique(batches))
    if n < 2:
        return []
    splitter = LeaveOneGroupOut() if n <= 6 else GroupKFold(4)
    return list(splitter.split(batches, groups=batches))


def network(
    values: np.ndarray,
    labels: np.ndarray,
    batches: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    hidden: tuple[int, ...] = (),
    seed: int = 0,
) -> np.ndarray:
    """Train the paper's probe and return its predictions for the test cells.

    A linear layer or, with `hidden`, an MLP with ReLU and dropout 0.5, on standardised values. AdamW with
    weight decay 1e-4, batches of 2,048 cells, at most 2,000 steps (an MLP 200) or 20 epochs, the rate halved
    when the loss on held-out batches rests and the best epoch kept. Where all training cells are of one
    batch, a fifth of them is held out.

    The paper tries three learning rates; the one with the best (accuracy + F1) / 2 on the held-out batches
    wins. Below 20,000 training cells an epoch is a few steps, the smaller two rates go nowhere in so few, and
    only the largest is used. Even that one may be short of convergence: compare with the logistic
    regression.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    labels, batches : array of str, shape (n,)
    train, test : ndarray of int
        Numbers of cells, as from :func:`splits`.
    hidden : tuple of int
        Widths of the hidden layers.
    seed : int

    Returns
    -------
    ndarray of str, shape (len(test),)
        Empty strings, which are nobody's label, for an MLP on more than 6,000 dimensions.
    """
    import torch
    from sklearn.preprocessing import StandardScaler

    if hidden and values.shape[1] > WIDEST:
        return np.full(len(test), "")
    fit, held = _inner(batches, train, seed)
    scaler = StandardScaler().fit(values[fit])
    names = np.unique(labels[fit])
    held = held[np.isin(labels[held], names)]
    if len(names) == 1 or not len(held):
        return np.full(len(test), names[0])
    x, x_held, x_test = (
        torch.from_numpy(scaler.transform(values[part]).astype(np.float32)) for part in (fit, held, test)
    )
    y, y_held = (torch.from_numpy(np.searchsorted(names, labels[part])) for part in (fit, held))
    tried = []
    for rate in LEARNING_RATES if len(x) >= MANY else LEARNING_RATES[:1]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _fitted(x, y, x_held, y_held, len(names), hidden, rate)
        with torch.inference_mode():
            guess, answer = (names[model(part).argmax(1).numpy()] for part in (x_held, x_test))
        tried.append((sum(_accuracy_f1(labels[held], guess)), answer))
    return max(tried, key=lambda t: t[0])[1]


def _inner(batches: np.ndarray, train: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the training cells once more: by batch if there are two, else by cell."""
    folds = splits(batches[train])
    if folds:
        fit, held = folds[seed % len(folds)]
        return train[fit], train[held]
    order = np.random.default_rng(seed).permutation(train)
    return order[len(order) // 5 :], order[: len(order) // 5]


def _fitted(x, y, x_held, y_held, n_classes: int, hidden: tuple[int, ...], rate: float):
    """Train one network with early stopping; return it with the weights of its best epoch."""
    import torch
    from torch import nn

    widths, layers = (x.shape[1], *hidden), []
    for i, o in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(i, o), nn.ReLU(), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Linear(widths[-1], n_classes))
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    per_epoch = math.ceil(len(x) / BATCH)
    epochs = max(20, STEPS["MLP" if hidden else "linear"] // per_epoch)
    patience = max(10, PATIENCE // per_epoch)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=patience // 2)
    best, kept, rests = np.inf, None, 0
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
        model.eval()
        with torch.inference_mode():
            loss = nn.functional.cross_entropy(model(x_held), y_held).item()
        schedule.step(loss)
        rests = 0 if loss < best else rests + 1
        if loss < best:
            best, kept = loss, {k: v.clone() for k, v in model.state_dict().items()}
        if rests == patience:
            break
    model.load_state_dict(kept)
    return model


def _logistic(values, labels, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fit a logistic regression on standardised values; return its predictions for the test cells."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(names := np.unique(labels[train])) == 1:
        return np.full(len(test), names[0])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000))
    return model.fit(values[train], labels[train]).predict(values[test])


def _compare(labels, train, test, predicted) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, prediction and class prior for the test cells of known types, and who is of none."""
    names, counts = np.unique(labels[train], return_counts=True)
    seen = np.isin(labels[test], names)
    prior = np.full(seen.sum(), names[counts.argmax()])
    return labels[test][seen], predicted[seen], prior, ~seen


def _rows(name: str, folds: list[tuple]) -> list[dict[str, Any]]:
    """Make the rows of one probe from what was compared in each fold, all folds' cells together."""
    truth, predicted, prior = (
        np.concatenate([f[i] for f in folds]) if folds else np.array([]) for i in range(3)
    )
    undefined = not len(truth) or (predicted == "").all()
    got = (np.nan, np.nan) if undefined else _accuracy_f1(truth, predicted)
    null = (np.nan, np.nan) if not len(truth) else _accuracy_f1(truth, prior)
    return [
        partial(f"{name} {what}", v, null=o, n=len(truth))
        for what, v, o in zip(("accuracy", "F1"), got, null, strict=True)
    ]


def _accuracy_f1(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    from sklearn.metrics import f1_score

    names = np.unique(truth)
    f1 = f1_score(truth, predicted, labels=names, average="macro", zero_division=0)
    return float(np.mean(truth == predicted)), float(f1)
