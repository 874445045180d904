"""How a cell becomes model input, model by model.

Every function takes an AnnData of raw counts and returns an :class:`.Encoding`: what one model is shown of
each cell, row by row. None looks at another cell, none drops a row, and whatever is random hangs on the
cell's name and the seed alone. So a permutation of the cells permutes the rows, and no order of the columns
is felt.

======================  ========================================  ===========================  =========
function                a gene's value becomes                    of the cell's depth is left  random
======================  ========================================  ===========================  =========
:func:`.geneformer`     its place in the order of count / median  the length of the list       no
:func:`.cell2sentence`  its place in the order of counts          the length, unless cut       ties
:func:`.genept`, -s     its place in the order of counts          the length, unless cut       no
:func:`.genept`, -w     the weight of its vector                  nothing                      no
:func:`.scgpt`          one of 50 bins of that order              the length, unless cut       ties, cut
:func:`.scbert`         one of 6 bins of log2(1 + CP10k)          which genes are below 1      no
:func:`.scfoundation`   log(1 + CP10k)                            the total, in a token        no
:func:`.uce`            its chance to be drawn                    nearly nothing               draws
:func:`.txfm`           log(1 + 1e5 · count / total)              nothing                      genes
======================  ========================================  ===========================  =========

Three things are easily mistaken. scGPT's bins are quantiles of the cell's own values: a coarse rank encoding,
which no monotone transformation of a cell changes. GenePT-w is linear in log-normalised values and no rank
encoding, though GenePT-s is one. And Geneformer's order is not that of the cell alone: the division by each
gene's median over a corpus puts all genes with one count into one order, the same in every cell.

Common parameters: `adata`, raw counts, human genes by symbol or Ensembl id (see :mod:`txfm_lite.align`, which
also says what is refused: logarithms, negative values, cells without a count). `genes`, the model's
vocabulary; by default the dataset's own genes, in alphabetical order. `layer`, where the counts are, if not
in X. CP10k = 10,000 · count / total, with the total over all identified genes, in the vocabulary or not.
Columns of one gene are added up. A cell in which no gene of the vocabulary is detected has no token but
special ones, and is warned of.
"""

from .encodings_arrays import (
    absolute_bins,
    cp,
    descending,
    log_normalise,
    quantile_bins,
    soft_bins,
    weighted_mean,
)
from .encodings_cells import Encoding
from .encodings_orders import SentenceFit, cell2sentence, fit_sentences, geneformer, genept
from .encodings_values import decode, scbert, scfoundation, scgpt, txfm, uce

__all__ = [
    "Encoding", "geneformer", "cell2sentence", "genept", "scgpt", "scbert", "scfoundation", "uce", "txfm",
    "SentenceFit", "fit_sentences", "decode",
    "descending", "absolute_bins", "quantile_bins", "soft_bins", "weighted_mean", "log_normalise", "cp",
]  # fmt: skip
