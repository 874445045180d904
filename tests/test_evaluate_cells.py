"""Cell-type scores: closed cases, chance, and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from txfm_lite.evaluate.cells import knn_across_batches


@pytest.fixture
def clusters():
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abc"), size=300, p=[0.6, 0.3, 0.1])
    centres = {"a": [5, 0, 0], "b": [0, 5, 0], "c": [0, 0, 5]}
    x = np.array([centres[label] for label in labels]) + rng.normal(size=(300, 3))
    return x, pd.Series(labels), pd.Series(rng.choice(["p", "q", "r"], 300))


def test_against_scikit_learn(clusters):
    x, labels, batches = clusters
    x = x + np.random.default_rng(1).normal(scale=3, size=x.shape)  # hard enough not to be 1
    predicted = labels.copy()
    for batch in "pqr":
        inside = (batches == batch).to_numpy()
        knn = KNeighborsClassifier(7, metric="cosine").fit(x[~inside], labels[~inside])
        predicted[inside] = knn.predict(x[inside])
    expected = balanced_accuracy_score(labels, predicted)
    assert knn_across_batches(x, labels, batches, 7) == pytest.approx(expected)
    assert expected < 0.95


def test_separated_clusters_and_chance(clusters):
    x, labels, batches = clusters
    assert knn_across_batches(x, labels, batches) > 0.95
    shuffled = [
        knn_across_batches(x, labels.sample(frac=1, random_state=i).to_numpy(), batches) for i in range(10)
    ]
    assert np.mean(shuffled) == pytest.approx(1 / 3, abs=0.05)  # balanced: the class prior gains nothing
    assert knn_across_batches(np.ones((300, 3)), labels, batches) == pytest.approx(1 / 3, abs=0.05)


def test_neighbours_come_from_other_batches():
    """An embedding that knows only the batch scores nothing, though each cell's neighbours are twins."""
    batches = np.repeat(["p", "q"], 20)
    labels = np.array((["a"] * 10 + ["b"] * 10) * 2)
    x = np.column_stack([np.repeat([1.0, -1.0], 20), np.zeros(40)])
    x[:, 1] = np.where((labels == "a") == (batches == "p"), 0.1, -0.1)  # perfect within, inverted across
    assert knn_across_batches(x, labels, batches, n_neighbors=5) == 0


def test_labels_that_no_other_batch_has_do_not_count(clusters):
    x, labels, batches = clusters
    reference = knn_across_batches(x[batches != "p"], labels[batches != "p"], batches[batches != "p"])
    here = labels.mask(batches == "p", "only here")
    far = np.where((batches == "p").to_numpy()[:, None], -100 * np.ones(3), x)  # and nobody's neighbours
    assert knn_across_batches(far, here, batches) == pytest.approx(reference)
    assert knn_across_batches(x, labels.mask(batches == "p"), batches) == pytest.approx(reference)


def test_refuses(clusters):
    x, labels, batches = clusters
    with pytest.raises(ValueError, match="299 labels"):
        knn_across_batches(x, labels[1:], batches)
    with pytest.raises(ValueError, match="no label occurs in two batches"):
        knn_across_batches(x, batches, batches)
