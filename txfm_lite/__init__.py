"""Transcriptome and gene-set foundation models, small enough to read, train and test on a laptop.

Data flows one way, and so do the imports::

    manifests -> datasets -> curate -> corpus -> loader -> models -> embed -> evaluate

``import txfm_lite`` itself loads none of that: every module, and the short names ``pp`` (curate), ``tl``
(embed) and ``pl`` (plots) that scanpy's users expect, arrive on first use.
"""

from importlib import import_module

__version__ = "0.1.0"

_SHORT = {"pp": "curate", "tl": "embed", "pl": "plots"}
_CLASSES = {
    "TxFM": "txfm",
    "TxFMConfig": "txfm",
    "Rankformer": "rankformer",
    "RankformerConfig": "rankformer",
    "GSFM": "gsfm",
    "GSFMConfig": "gsfm",
    "Corpus": "corpus",
}


def __getattr__(name: str):
    """Import modules, short names and the main classes on first use (PEP 562)."""
    if name in _CLASSES:
        return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name)
    module = f"{__name__}.{_SHORT.get(name, name)}"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # the module is there, but something that it needs is not
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
