"""Cell types: do neighbours share one, even when they must come from another batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def knn_across_batches(
    embedding: np.ndarray, labels: pd.Series, batches: pd.Series, n_neighbors: int = 15
) -> float:
    """Classify the cells of each batch by their nearest neighbours among the cells of all other batches.

    Parameters
    ----------
    embedding : ndarray, shape (n, d)
    labels, batches : Series or array of str, shape (n,)
        A cell whose label or batch is missing is left out.
    n_neighbors : int

    Returns
    -------
    float
        Balanced accuracy over all cells that have a label which another batch has too.

    Raises
    ------
    ValueError
        If the lengths differ, or no label occurs in two batches.
    """
    import pandas as pd

    labels, batches = (np.asarray(x, dtype=object) for x in (labels, batches))
    if not len(embedding) == len(labels) == len(batches):
        raise ValueError(f"{len(embedding)} embeddings, {len(labels)} labels, {len(batches)} batches")
    known = pd.notna(labels) & pd.notna(batches)
    embedding, labels, batches = np.asarray(embedding)[known], labels[known], batches[known]
    truth, predicted = [], []
    for batch in pd.unique(batches):
        inside = batches == batch
        if not inside.all():
            pair = embedding[~inside], labels[~inside], embedding[inside], labels[inside]
            for total, part in zip((truth, predicted), _classify(*pair, n_neighbors), strict=True):
                total.extend(part)
    if not truth:
        raise ValueError("no label occurs in two batches: nothing can be classified across batches")
    return _balanced_accuracy(truth, predicted)


def _classify(reference, reference_labels, query, query_labels, n_neighbors) -> tuple:
    """Return the labels, true and predicted, of the query cells that count."""
    import pandas as pd
    from sklearn.neighbors import KNeighborsClassifier

    labels, queries = (pd.Series(np.asarray(x, dtype=object)) for x in (reference_labels, query_labels))
    known = labels.notna().to_numpy()
    counted = queries.isin(labels[known]).to_numpy() & queries.notna().to_numpy()
    if not counted.any():
        return [], []
    classifier = KNeighborsClassifier(min(n_neighbors, int(known.sum())), metric="cosine")
    classifier.fit(np.asarray(reference)[known], labels[known].astype(str))
    return queries[counted].astype(str).tolist(), classifier.predict(np.asarray(query)[counted]).tolist()


def _balanced_accuracy(truth: list[str], predicted: list[str]) -> float:
    from sklearn.metrics import recall_score

    if not truth:
        return float("nan")
    # a predicted label that no query cell has is a mistake, not a class of its own
    return float(recall_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0))
