"""Cell types: do neighbours share one, even when they must come from another batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def knn_accuracy(
    reference: np.ndarray,
    reference_labels: np.ndarray,
    query: np.ndarray,
    query_labels: np.ndarray,
    n_neighbors: int = 15,
) -> float:
    """Classify query cells by the majority of their nearest reference cells.

    Only query cells whose label occurs among the reference cells count; unlabelled cells are left out on both
    sides.

    Parameters
    ----------
    reference, query : ndarray, shape (n, d) and (m, d)
        Embeddings; cosine distance.
    reference_labels, query_labels : array of str, shape (n,) and (m,)
        Missing values mark unlabelled cells.
    n_neighbors : int

    Returns
    -------
    float
        Mean over the labels of the share classified correctly (balanced accuracy: guessing gives one over the
        number of labels, whatever their frequencies). NaN if no query cell counts.
    """
    import pandas as pd
    from sklearn.metrics import recall_score
    from sklearn.neighbors import KNeighborsClassifier

    labels, queries = (pd.Series(np.asarray(x, dtype=object)) for x in (reference_labels, query_labels))
    known = labels.notna().to_numpy()
    counted = queries.isin(labels[known]).to_numpy() & queries.notna().to_numpy()
    if not counted.any():
        return float("nan")
    n_neighbors = min(n_neighbors, int(known.sum()))
    classifier = KNeighborsClassifier(n_neighbors, metric="cosine")
    classifier.fit(np.asarray(reference)[known], labels[known].astype(str))
    truth = queries[counted].astype(str)
    predicted = classifier.predict(np.asarray(query)[counted])
    return float(recall_score(truth, predicted, labels=truth.unique(), average="macro", zero_division=0))


def knn_across_batches(
    embedding: np.ndarray, labels: pd.Series, batches: pd.Series, n_neighbors: int = 15
) -> pd.Series:
    """Classify the cells of each batch by their nearest neighbours among the cells of all other batches.

    Parameters
    ----------
    embedding : ndarray, shape (n, d)
    labels, batches : Series or array of str, shape (n,)
        Missing labels leave a cell out.
    n_neighbors : int

    Returns
    -------
    Series, shape (number of batches,)
        Balanced accuracy (see :func:`knn_accuracy`) per batch; batches without a label that others share are
        left out. Its mean is the score.

    Raises
    ------
    ValueError
        If the lengths differ, or no batch can be classified.
    """
    import pandas as pd

    labels, batches = (np.asarray(x, dtype=object) for x in (labels, batches))
    if not len(embedding) == len(labels) == len(batches):
        raise ValueError(f"{len(embedding)} embeddings, {len(labels)} labels, {len(batches)} batches")
    scores = {}
    for batch in pd.unique(batches[pd.notna(batches)]):
        inside = batches == batch
        scores[batch] = knn_accuracy(
            embedding[~inside], labels[~inside], embedding[inside], labels[inside], n_neighbors
        )
    result = pd.Series(scores, dtype=float).dropna()
    if result.empty:
        raise ValueError("no label occurs in two batches: nothing can be classified across batches")
    return result
