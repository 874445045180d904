"""How a cell becomes model input, model by model."""

from .encodings_values import absolute_bins, descending

__all__ = ["absolute_bins", "descending"]
