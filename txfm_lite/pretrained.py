"""A trained model as a folder, here, in this package or on a model hub.

=====================  =========================================================================
file                   holds
=====================  =========================================================================
``config.json``        the shape of the model, the hash of its vocabulary, where the weights come from
``genes.txt``          the vocabulary: line i is the gene of column i (a GSFM's: ``vocab.txt``)
``model.safetensors``  the weights, in float32 or float16; plain numbers, no code
``README.md``          the model card: the same for people
=====================  =========================================================================

A GSFM's folder is laid out as the published ones are, with our fields beside theirs: what reads those reads
ours. A published folder, which has no hash and no provenance, is read as well.

:meth:`TxFM.save_pretrained`, :meth:`TxFM.from_pretrained` and :meth:`TxFM.push_to_hub` call what is here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .gsfm import GSFM, GSFMConfig
from .rankformer import Rankformer, RankformerConfig
from .txfm import TxFM, TxFMConfig

SHIPPED = Path(__file__).parent / "weights"  # models that come with the package
FILES = ("config.json", "genes.txt", "model.safetensors", "README.md")
DTYPES = {"float32": torch.float32, "float16": torch.float16}

Model = TxFM | Rankformer | GSFM
CONFIGS = {"TxFM": TxFMConfig, "Rankformer": RankformerConfig, "GSFM": GSFMConfig}  # config.json's "model"
# What a result says of how its model was trained, where the model has such a field.
SAID = (
    "commit", "seed", "n_sets", "epochs", "learning_rate", "cooldown", "d_model", "dropout", "partition",
    "hiding", "target",
)  # fmt: skip
PUBLISHED = {"vocab_size": "n_tokens", "weighted_loss": "weighting"}  # a published GSFM's names: ours

_CARD = """---
library_name: txfm-lite
tags: [biology, transcriptomics, {tag}]
---
# {title}

{what}:
{n_parameters:,} parameters, {n_genes:,} genes, embeddings of {d_model} numbers.

```python
import txfm_lite

model = txfm_lite.{model}.from_pretrained("{name}")
{use}
```
{text}
## Shape

{shape}

## Where the weights come from

{provenance}
"""
_INTRODUCTION = {
    "TxFM": {
        "tag": "masked-autoencoder",
        "what": "A masked autoencoder on RNA-seq counts (TxFM, Kenyon-Dean et al. 2026, arXiv 2605.31562)",
        "use": 'txfm_lite.tl.embed(adata, model)  # raw counts in, adata.obsm["X_txfm"] out',
    },
    "Rankformer": {
        "tag": "masked-language-model",
        "what": "A transformer on tokens of genes, with the input head of Geneformer (rank) or scBERT (bin)",
        "use": 'txfm_lite.embed_tokens.embed_tokens(adata, model)  # adata.obsm["X_rank"], or "X_bin"',
    },
    "GSFM": {
        "tag": "gene-sets",
        "what": "A denoising autoencoder of gene sets (GSFM, Clarke et al., bioRxiv 2025.05.30.657124)",
        "use": 'txfm_lite.completion.complete_genes(model, ["TP53", "MDM2", "CDKN1A"])',
    },
}


def vocabulary_hash(genes: Sequence[str]) -> str:
    """Return the SHA-256 of a vocabulary, one gene a line, as 64 hex digits: that of ``genes.txt``."""
    return hashlib.sha256(_lines(genes).encode()).hexdigest()


def save(model: Model, path: str | Path, dtype: str = "float32", card: str = "", **provenance: Any) -> Path:
    """Write a model into the folder `path`, whole or not at all.

    Parameters
    ----------
    model : TxFM, Rankformer or GSFM
    path : path
        A model that lies there is replaced.
    dtype : {"float32", "float16"}
        On disk; float16 halves the file and keeps three digits. In memory it is always float32. What is not
        trained but taken from the corpus, such as a gene's median, stays float32.
    card : str
        Markdown for the model card, after its introduction.
    **provenance
        What the weights come from (corpus fingerprint, seed, steps, ...), added to ``model.provenance``.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If `dtype` is another one, or a weight does not fit it.
    FileExistsError
        If something else than a model lies at `path`: it would be lost.
    """
    from safetensors.torch import save_file

    if dtype not in DTYPES:
        raise ValueError(f"dtype = {dtype!r}: should be one of {', '.join(DTYPES)}")
    buffers = {name for name, _ in model.named_buffers()}
    weights = {
        k: v.detach().to("cpu", torch.float32 if k in buffers else DTYPES[dtype]).contiguous()
        for k, v in model.state_dict().items()
    }
    if unfit := [k for k, v in weights.items() if not v.isfinite().all()]:
        raise ValueError(f"not every number is finite as {dtype} in {', '.join(unfit)}")
    info = {
        **_published_fields(model),
        "model": type(model).__name__,
        "config": dataclasses.asdict(model.config),
        "vocabulary": model.genes and {"sha256": vocabulary_hash(model.genes)},
        "provenance": {**model.provenance, **provenance},
    }
    path = Path(path)
    if not _replaceable(path):
        raise FileExistsError(f"{path} is there and is no model: name a new folder, or a model to replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        new, old = aside / "new", aside / "old"
        new.mkdir()
        save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
        if model.genes is not None:
            (new / _vocabulary_file(type(model))).write_text(_lines(model.genes), encoding="utf-8")
        (new / "config.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        (new / "README.md").write_text(_card(model, path.name, card, info), encoding="utf-8")
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def load(name: str | Path, genes: Sequence[str] | None = None, kind: type = TxFM, **hub: Any) -> Model:
    """Read a model in evaluation mode, in float32, on the CPU.

    Parameters
    ----------
    name : str or path
        A folder that :func:`save` wrote; else a model of this package (``"txfm-xs"``); else one on the hub
        (``"organisation/name"``).
    genes : sequence of str, optional
        The vocabulary that the caller counts on, in its order.
    kind : type
        The class that the caller counts on.
    **hub
        For ``huggingface_hub.snapshot_download``: revision, token, cache_dir, ...

    Returns
    -------
    TxFM, Rankformer or GSFM

    Raises
    ------
    FileNotFoundError
        If there is no such model, or a file of it is missing.
    ValueError
        If a file is damaged, config, vocabulary and weights do not belong together, `genes` differ, or the
        model is of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    listed = _vocabulary_file(kind)
    path = _locate(name, hub, [listed if file == "genes.txt" else file for file in FILES])
    for file in ("config.json", "model.safetensors"):
        if not (path / file).is_file():
            raise FileNotFoundError(f"{path}: no {file}; a model folder is written by save_pretrained")
    try:
        info = json.loads((path / "config.json").read_text(encoding="utf-8"))
        fields = _fields(info, kind)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}/config.json is no configuration of a {kind.__name__}: {error!r}") from error
    if (found := info.get("model", "TxFM" if "config" in info else "GSFM")) != kind.__name__:
        raise ValueError(f"{path}/config.json: this is a {found}, not a {kind.__name__}")
    if unknown := set(fields) - {f.name for f in dataclasses.fields(CONFIGS[kind.__name__])}:
        raise ValueError(f"{path}/config.json: unknown field {', '.join(sorted(unknown))}")
    try:
        config = CONFIGS[kind.__name__](**fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}/config.json: {error}") from error
    vocabulary = _vocabulary(path, info, listed)
    if genes is not None:
        _compare(path, vocabulary, [str(g) for g in genes])
    try:
        model = kind(config, vocabulary)
    except ValueError as error:
        raise ValueError(f"{path}/{listed}: {error}") from error
    try:
        model.load_state_dict({k: v.float() for k, v in load_file(path / "model.safetensors").items()})
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path}/model.safetensors does not fit config.json: {error}") from error
    model.provenance = info.get("provenance", {})
    return model.eval()


def identity(model: Model) -> dict[str, Any]:
    """Return what a result says of its model: a hash of the weights and, if known, how they were trained."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    known = {k: v for k, v in model.provenance.items() if k in SAID}
    return {"weights": digest.hexdigest()[:12]} | known


def push(
    model: TxFM, repo_id: str, commit_message: str, private: bool | None, token: str | None, **saved: Any
) -> str:
    """Save a model and upload the folder to the hub; return its address there.

    Parameters
    ----------
    model : TxFM
    repo_id : str
        ``"organisation/name"``; made if it does not exist.
    commit_message, private, token
        As ``huggingface_hub`` takes them.
    **saved
        For :func:`save`.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        path = save(model, Path(folder) / repo_id, **saved)
        return api.upload_folder(repo_id=repo_id, folder_path=path, commit_message=commit_message)


def _vocabulary_file(kind: type) -> str:
    return "vocab.txt" if kind is GSFM else "genes.txt"


def _published_fields(model: Model) -> dict[str, Any]:
    """Return what the published code reads of a GSFM's config.json."""
    if not isinstance(model, GSFM):
        return {}
    config = model.config
    same = {field: getattr(config, field) for field in ("d_model", "depth", "dropout", "partition")}
    return same | {theirs: getattr(config, ours) for theirs, ours in PUBLISHED.items()}


def _fields(info: dict[str, Any], kind: type) -> dict[str, Any]:
    """Return the fields of the configuration: ours, or what a published GSFM's mean in ours."""
    if kind is not GSFM or "config" in info:
        return dict(info["config"])
    return {PUBLISHED.get(field, field): value for field, value in info.items()}


def _locate(name: str | Path, hub: dict[str, Any], files: list[str]) -> Path:
    """Return the folder of a model, downloading it if it is on the hub."""
    if Path(name).is_dir():
        return Path(name)
    if (SHIPPED / name).is_dir():
        return SHIPPED / name
    known = ", ".join(sorted(p.name for p in SHIPPED.glob("*/"))) or "none"
    if not (isinstance(name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", name)):
        raise FileNotFoundError(f"{name}: no such folder, nor a model of this package (there are: {known})")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise FileNotFoundError(f"{name}: no such folder here, and no huggingface_hub to fetch it") from error

    try:
        return Path(snapshot_download(name, allow_patterns=files, **hub))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{name}: no such folder here, and not to be had from the hub: {error}"
        ) from error


def _replaceable(path: Path) -> bool:
    """Tell whether nothing but a model would be lost if this path were written to."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return True
    try:
        return json.loads((path / "config.json").read_text(encoding="utf-8"))["model"] in CONFIGS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _vocabulary(path: Path, info: dict[str, Any], file: str) -> list[str] | None:
    """Return the vocabulary if it is the one that config.json was written with."""
    expected = info.get("vocabulary")
    if expected is None and "config" in info:
        return None
    if not (path / file).is_file():
        raise FileNotFoundError(f"{path}: no {file}, so nobody knows which gene is which")
    genes = (path / file).read_text(encoding="utf-8").splitlines()
    if expected and (found := vocabulary_hash(genes)) != expected["sha256"]:
        raise ValueError(
            f"{path}/{file} is not the vocabulary of these weights: its SHA-256 is {found[:12]}..., "
            f"config.json says {expected['sha256'][:12]}...; copy the whole model folder again"
        )
    return genes


def _compare(path: Path, ours: list[str] | None, theirs: list[str]) -> None:
    """Raise if two vocabularies differ, saying where."""
    if ours is None:
        raise ValueError(f"{path}: this model has no vocabulary to compare yours with")
    for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            raise ValueError(f"{path}: another vocabulary: gene {i:,} is {a} there and {b} in yours")
    if len(ours) != len(theirs):
        longer = max(ours, theirs, key=len)
        extra = (
            f"{longer[min(len(ours), len(theirs))]} is only in {'the model' if longer is ours else 'yours'}"
        )
        raise ValueError(
            f"{path}: another vocabulary: {len(ours):,} genes there, {len(theirs):,} in yours; {extra}"
        )


def _lines(genes: Sequence[str]) -> str:
    return "\n".join(genes) + "\n"


def _card(model: Model, title: str, text: str, info: dict[str, Any]) -> str:
    def table(facts: dict[str, Any]) -> str:
        return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items())])

    name = title if (SHIPPED / title).is_dir() else f"path/to/{title}"
    origin = {k: v for k, v in info["provenance"].items() if k not in info["config"]}  # the shape is said
    return _CARD.format(
        title=title,
        name=name,
        model=info["model"],
        **_INTRODUCTION[info["model"]],
        n_parameters=model.n_parameters,
        n_genes=model.config.n_genes,
        d_model=model.config.d_model,
        text=f"\n{text.strip()}\n" if text else "",
        shape=table(info["config"]),
        provenance=table(origin) if origin else "Nothing was recorded.",
    )
