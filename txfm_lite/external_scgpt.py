"""An scGPT checkpoint, scored like our models; see :mod:`txfm_lite.external` for what it sees of a cell.

Plain layers of PyTorch hold the encoder: neither scGPT's package nor flash attention is needed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import encodings
from .evaluate.scores import Embedding
from .external import batches, empty_rows, padded

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

FILES = ("best_model.pt", "args.json", "vocab.json")


class ScGPT:
    """An scGPT checkpoint: cells as sets of genes with binned counts (Cui et al. 2024).

    Parameters
    ----------
    model : str or path
        A folder with ``best_model.pt``, ``args.json`` and ``vocab.json``, or a name on the hub.
    longest : int
        Tokens per cell, the class token among them.
    device : str
    **hub
        For ``huggingface_hub.snapshot_download``: revision, token, ...

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the files do not fit together, or the model's values are not continuous ones.
    """

    def __init__(self, model: str | Path, *, longest: int = 1200, device: str = "cpu", **hub: Any):
        import torch

        folder = Path(model)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(str(model), allow_patterns=list(FILES), **hub))
        if missing := [f for f in FILES if not (folder / f).is_file()]:
            raise FileNotFoundError(f"{folder}: no {', '.join(missing)}")
        args = json.loads((folder / "args.json").read_text())
        vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text())
        if (style := args.get("input_emb_style", "continuous")) != "continuous":
            raise ValueError(
                f"{folder}/args.json: input_emb_style is {style!r}; this reads 'continuous' only"
            )
        self.longest, self.n_bins, self.device = longest, args["n_bins"], device
        self.pad, self.pad_value = vocabulary[args.get("pad_token", "<pad>")], float(args["pad_value"])
        self.cls = vocabulary["<cls>"]
        genes = {gene: i for gene, i in vocabulary.items() if not re.fullmatch(r"<.*>", gene)}
        self.genes, self.token = list(genes), np.array(list(genes.values()))
        weights = torch.load(folder / "best_model.pt", map_location="cpu", weights_only=True)
        self.network = _scgpt_network(weights, args, str(folder)).eval().to(device)

    def encode(self, adata: AnnData, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each cell's tokens and values, the class token first.

        See :func:`txfm_lite.encodings_values.scgpt`, which also says what is refused.
        """
        found = encodings.scgpt(adata, self.genes, n_bins=self.n_bins, longest=self.longest, seed=seed)
        tokens = np.append(self.token, self.cls)[found.tokens]
        values = np.where(tokens == self.cls, self.pad_value, found.values)
        return list(zip(*(np.split(a, found.indptr[1:-1]) for a in (tokens, values)), strict=True))

    def embed(self, adata: AnnData, seed: int = 0) -> np.ndarray:
        """Return one row per cell, of length 1, float32, shape (n, d); nan, warned of, without a gene."""
        import torch

        cells = self.encode(adata, seed)
        lengths = np.array([len(tokens) - 1 for tokens, _ in cells])
        out = empty_rows(adata, lengths, self.network["gene"][0].embedding_dim)
        with torch.inference_mode():
            for rows in batches(lengths):
                tokens = padded([cells[i][0] for i in rows], self.pad, self.device)
                values = padded([cells[i][1] for i in rows], self.pad_value, self.device).float()
                x = self.network["gene"](tokens) + self.network["value"](values.clamp(max=512)[..., None])
                e = self.network["transformer"](x, src_key_padding_mask=tokens == self.pad)[:, 0]
                out[rows] = torch.nn.functional.normalize(e, dim=1).cpu().numpy()
        return out

    def __call__(self, adata: AnnData, seed: int = 0) -> Embedding:
        """Return the embedding with the cells' names; a cell without one is an error that names it."""
        return Embedding(self.embed(adata, seed), adata.obs_names, "scGPT")


def _scgpt_network(weights: dict[str, torch.Tensor], args: dict[str, Any], label: str) -> torch.nn.ModuleDict:
    """Build the encoder half of scGPT from plain layers and fill it; the decoders' weights are left out."""
    from torch import nn

    d = args["embsize"]
    layer = nn.TransformerEncoderLayer(d, args["nheads"], args["d_hid"], batch_first=True)
    network = nn.ModuleDict(
        {
            "gene": nn.Sequential(nn.Embedding(*weights["encoder.embedding.weight"].shape), nn.LayerNorm(d)),
            "value": nn.Sequential(nn.Linear(1, d), nn.ReLU(), nn.Linear(d, d), nn.LayerNorm(d)),
            "transformer": nn.TransformerEncoder(layer, args["nlayers"], enable_nested_tensor=False),
        }
    )
    names = {
        r"^encoder\.embedding\.": "gene.0.", r"^encoder\.enc_norm\.": "gene.1.",
        r"^value_encoder\.linear1\.": "value.0.", r"^value_encoder\.linear2\.": "value.2.",
        r"^value_encoder\.norm\.": "value.3.", r"^transformer_encoder\.": "transformer.",
        r"self_attn\.Wqkv\.": "self_attn.in_proj_",  # as flash attention calls the same matrix
    }  # fmt: skip
    state = {}
    for name, tensor in weights.items():
        for pattern, ours in names.items():
            name = re.sub(pattern, ours, name)
        if name.split(".")[0] in network:
            state[name] = tensor
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{label}: best_model.pt does not fit args.json: {error}") from error
    return network
