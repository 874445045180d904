"""Sets of genes: what a paper's table, a pathway or a list of differential genes has in common.

Whatever file a library comes from, it is held in one form, :class:`.GeneSets`: all sets as rows of one sparse
matrix over one list of genes::

    from txfm_lite import genesets

    mine = genesets.resolve(genesets.read_gmt("mine.gmt"))     # one symbol per gene
    corpus = genesets.training()                               # what a model may learn from
    tests = genesets.benchmark()                               # six libraries that are kept out of it
    clean = mine[~genesets.overlapping(mine, tests["KEGG_2021_Human"], threshold=0.5)]
    genesets.vocabulary(corpus)                                # the genes, the most frequent one first
    genesets.sources(corpus)                                   # where they come from, and the licences

====================================  ======================================================================
:mod:`.genesets_container`            the form itself, sizes, vocabulary
:mod:`.genesets_codes`                numbers for names
:mod:`.genesets_files`                GMT in and out; tables and R's lists in
:mod:`.genesets_symbols`              aliases, former symbols, mouse orthologues
:mod:`.genesets_overlap`              copies and near copies
:mod:`.genesets_libraries`            libraries of the manifests: to train on, to test on, old and new ones
:mod:`.genesets_simulated`            sets of latent modules
====================================  ======================================================================
"""

from .genesets_container import GeneSets, concatenate, of_size, vocabulary
from .genesets_files import read_gmt, write_gmt
from .genesets_libraries import (
    TIERS,
    benchmark,
    load,
    matched,
    sources,
    time_splits,
    training,
    training_report,
)
from .genesets_overlap import copies, distinct, nearest, overlapping, repeated
from .genesets_simulated import simulated
from .genesets_symbols import biotypes, resolve, symbols, unmapped

__all__ = [
    "GeneSets", "concatenate", "of_size", "vocabulary",
    "read_gmt", "write_gmt",
    "symbols", "resolve", "unmapped", "biotypes",
    "copies", "distinct", "repeated", "overlapping", "nearest",
    "TIERS", "load", "training", "training_report", "benchmark", "time_splits", "matched", "sources",
    "simulated",
]  # fmt: skip
