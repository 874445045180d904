"""Rivals."""
from __future__ import annotations
from typing import TYPE_CHECKING
import numpy as np
if TYPE_CHECKING:
    import scipy.sparse as sp
    from .genesets import GeneSets

class WithinLibrary:
    leaves_out = True
    def __init__(self, library, universe):
        self.count = np.asarray(library.over(universe).csr().sum(axis=0)).ravel()
    def __call__(self, visible, members):
        return self.count - members.toarray()

def popularity(train, universe):
    count = np.asarray(train.over(universe).csr().sum(axis=0)).ravel()
    return lambda visible: np.broadcast_to(count, visible.shape)
