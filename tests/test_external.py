"""Adapters for other models, on tiny random checkpoints written in the same format."""

import json
import pickle

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from txfm_lite.external import Geneformer
from txfm_lite.external_scgpt import ScGPT

GENES = [f"ENSG{i:011d}" for i in range(40)]
SYMBOLS = [f"G{i}" for i in range(40)]


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1, 2, size=40), size=(21, 40))
    counts[:, 39] += 1  # in no dictionary: no cell is empty as a whole
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(21)])
    var = pd.DataFrame({"ensembl_id": GENES, "matched": True}, index=SYMBOLS)
    return anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs, var)


@pytest.fixture(scope="module")
def geneformer_files(tmp_path_factory):
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("geneformer")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=41, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        hidden_act="relu", max_position_embeddings=12, pad_token_id=0,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    tokens = {"<pad>": 0, "<mask>": 1} | {gene: i + 2 for i, gene in enumerate(GENES[:39])}
    medians = {gene: np.float64(m) for gene, m in zip(GENES[:39], np.linspace(1, 9, 39), strict=True)}
    for name, content in (("tokens", tokens), ("medians", medians)):
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(content))
    return folder


def geneformer(folder) -> Geneformer:
    return Geneformer(folder, folder / "medians.pkl", folder / "tokens.pkl")


def test_geneformer_by_hand(adata, geneformer_files):
    from transformers import BertForMaskedLM

    ours = geneformer(geneformer_files)
    embedding = ours(adata)
    assert embedding.values.shape == (21, 16) and embedding.ids.tolist() == adata.obs_names.tolist()
    bert = BertForMaskedLM.from_pretrained(geneformer_files).eval()
    values = adata.X.toarray()[:, :39] / np.linspace(1, 9, 39)
    for i in (0, 7, 20):
        order = np.argsort(-values[i], kind="stable")
        tokens = torch.tensor([[g + 2 for g in order if values[i, g] > 0][:12]])
        with torch.no_grad():
            by_hand = bert(tokens, output_hidden_states=True).hidden_states[-2][0].mean(dim=0)
        np.testing.assert_allclose(embedding.values[i], by_hand, atol=1e-5)


def test_geneformer_rows_stay_with_their_cells(adata, geneformer_files):
    ours, order = geneformer(geneformer_files), np.random.default_rng(1).permutation(21)
    values = ours.embed(adata)
    np.testing.assert_allclose(ours.embed(adata[order].copy()), values[order], atol=1e-5)
    versioned = adata[:, ::-1].copy()
    versioned.var["ensembl_id"] = [f"{g}.{i}" for i, g in enumerate(versioned.var["ensembl_id"])]
    np.testing.assert_allclose(ours.embed(versioned), values, atol=1e-5)
    split = anndata.concat([adata, adata], axis=1)  # every gene in two columns, each with half the counts
    split.X, split.var["ensembl_id"] = sp.csr_matrix(split.X), GENES * 2
    np.testing.assert_allclose(ours.embed(split), values, atol=1e-5)


def test_geneformer_without_a_known_gene(adata, geneformer_files, caplog):
    ours = geneformer(geneformer_files)
    adata.X[4, :39] = 0
    values = ours.embed(adata)
    assert np.isnan(values[4]).all() and np.isfinite(np.delete(values, 4, axis=0)).all()
    assert "1 cells have no gene that the model knows, for example 'cell4'" in caplog.text
    with pytest.raises(ValueError, match="1 cells have missing or infinite values, for example 'cell4'"):
        ours(adata)


def test_geneformer_refuses_what_does_not_fit(adata, geneformer_files, tmp_path):
    logged = adata.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(ValueError, match="X looks log-transformed"):
        geneformer(geneformer_files).embed(logged)
    foreign = adata.copy()
    foreign.var["ensembl_id"] = "ENSMUSG1"
    with pytest.raises(ValueError, match=r"none of the 40 genes \(ENSMUSG1, .* in the vocabulary \(ENSG"):
        geneformer(geneformer_files).embed(foreign)

    def with_tokens(content):
        (tmp_path / "tokens.pkl").write_bytes(pickle.dumps(content))
        return Geneformer(geneformer_files, geneformer_files / "medians.pkl", tmp_path / "tokens.pkl")

    with pytest.raises(ValueError, match="has 41 tokens, the dictionary 3"):
        with_tokens({"<pad>": 0, "<mask>": 1, GENES[0]: 2})
    with pytest.raises(ValueError, match="of a later version"):
        with_tokens({"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3})
    with pytest.raises(pickle.UnpicklingError, match="refused: the pickle asks for"):
        with_tokens({"<pad>": print})


def test_the_published_dictionaries_pair(local_data, geneformer_files):
    with pytest.raises(ValueError, match="has 41 tokens, the dictionary 25,426"):
        Geneformer(geneformer_files)


@pytest.fixture(scope="module", params=["in_proj_", "Wqkv."])
def scgpt_folder(request, tmp_path_factory):
    """A checkpoint as scGPT writes it, with either name of the attention's matrix, and a decoder."""
    folder, d, d_hid = tmp_path_factory.mktemp("scgpt"), 16, 24
    vocabulary = {gene: i for i, gene in enumerate(SYMBOLS[:39])} | {"<pad>": 39, "<cls>": 40, "<eoc>": 41}
    args = {"embsize": d, "nheads": 2, "d_hid": d_hid, "nlayers": 2, "n_bins": 11, "pad_token": "<pad>",
            "pad_value": -2, "dropout": 0.2, "n_layers_cls": 3}  # fmt: skip
    shapes = {"encoder.embedding.weight": (42, d), "flag_encoder.weight": (2, d),
              "value_encoder.linear1.weight": (d, 1), "value_encoder.linear1.bias": (d,),
              "value_encoder.linear2.weight": (d, d), "value_encoder.linear2.bias": (d,),
              "decoder.fc.0.weight": (d, d)}  # fmt: skip
    norms = ["encoder.enc_norm", "value_encoder.norm"]
    for i in range(2):
        layer = f"transformer_encoder.layers.{i}"
        shapes |= {f"{layer}.self_attn.{request.param}weight": (3 * d, d),
                   f"{layer}.self_attn.{request.param}bias": (3 * d,),
                   f"{layer}.self_attn.out_proj.weight": (d, d), f"{layer}.self_attn.out_proj.bias": (d,),
                   f"{layer}.linear1.weight": (d_hid, d), f"{layer}.linear1.bias": (d_hid,),
                   f"{layer}.linear2.weight": (d, d_hid), f"{layer}.linear2.bias": (d,)}  # fmt: skip
        norms += [f"{layer}.norm1", f"{layer}.norm2"]
    shapes |= {f"{norm}.{p}": (d,) for norm in norms for p in ("weight", "bias")}
    generator = torch.Generator().manual_seed(0)
    torch.save(
        {k: 0.5 * torch.randn(s, generator=generator) for k, s in shapes.items()}, folder / "best_model.pt"
    )
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "args.json").write_text(json.dumps(args))
    return folder


def layer_norm(x, w, name):
    z = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return z * w[f"{name}.weight"] + w[f"{name}.bias"]


def test_scgpt_by_hand(adata, scgpt_folder):
    """One cell through the network, in numpy."""
    ours = ScGPT(scgpt_folder)
    weights = torch.load(scgpt_folder / "best_model.pt")
    w = {k.replace("Wqkv.", "in_proj_"): v.numpy() for k, v in weights.items()}
    tokens, values = ours.encode(adata)[3]
    assert (
        tokens[0] == 40
        and values[0] == -2
        and set(tokens[1:]) == set(np.flatnonzero(adata.X[3].toarray()[0, :39]))
    )

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    v = linear(np.maximum(linear(values[:, None], "value_encoder.linear1"), 0), "value_encoder.linear2")
    gene = layer_norm(w["encoder.embedding.weight"][tokens], w, "encoder.enc_norm")
    x = gene + layer_norm(v, w, "value_encoder.norm")
    for i in range(2):
        layer = f"transformer_encoder.layers.{i}"
        qkv = x @ w[f"{layer}.self_attn.in_proj_weight"].T + w[f"{layer}.self_attn.in_proj_bias"]
        q, k, v = (a.reshape(len(x), 2, 8).transpose(1, 0, 2) for a in np.split(qkv, 3, axis=1))
        score = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(8))
        mixed = (score / score.sum(axis=2, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(x), 16)
        x = layer_norm(x + linear(mixed, f"{layer}.self_attn.out_proj"), w, f"{layer}.norm1")
        mlp = linear(np.maximum(linear(x, f"{layer}.linear1"), 0), f"{layer}.linear2")
        x = layer_norm(x + mlp, w, f"{layer}.norm2")
    np.testing.assert_allclose(ours.embed(adata)[3], x[0] / np.linalg.norm(x[0]), atol=1e-4)


def test_scgpt_rows_stay_with_their_cells_and_draws_with_the_seed(adata, scgpt_folder):
    ours, order = ScGPT(scgpt_folder, longest=10), np.random.default_rng(1).permutation(21)
    embedding = ours(adata, 0)
    assert embedding.ids.tolist() == adata.obs_names.tolist()
    assert max(len(tokens) for tokens, _ in ours.encode(adata)) == 10
    np.testing.assert_allclose(ours.embed(adata[order].copy()), embedding.values[order], atol=1e-5)
    shuffled = adata[:, np.random.default_rng(2).permutation(40)].copy()
    np.testing.assert_allclose(ours.embed(shuffled), embedding.values, atol=1e-5)
    assert not np.allclose(ours.embed(adata, 1), embedding.values, atol=1e-3)


def test_scgpt_refuses_what_does_not_fit(adata, scgpt_folder, tmp_path, caplog):
    adata.X[4, :39] = 0
    values = ScGPT(scgpt_folder).embed(adata)
    assert np.isnan(values[4]).all() and np.isfinite(np.delete(values, 4, axis=0)).all()
    assert "1 cells have no gene that the model knows, for example 'cell4'" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"no best_model\.pt, args\.json, vocab\.json"):
        ScGPT(tmp_path)
    args = json.loads((scgpt_folder / "args.json").read_text())
    for file in ("best_model.pt", "vocab.json"):
        (tmp_path / file).write_bytes((scgpt_folder / file).read_bytes())
    (tmp_path / "args.json").write_text(json.dumps(args | {"nlayers": 3}))
    with pytest.raises(ValueError, match=r"best_model\.pt does not fit args\.json"):
        ScGPT(tmp_path)
    (tmp_path / "args.json").write_text(json.dumps(args | {"input_emb_style": "category"}))
    with pytest.raises(ValueError, match="input_emb_style is 'category'"):
        ScGPT(tmp_path)


def test_the_adapters_cost_nothing_until_used():
    import subprocess
    import sys

    code = (
        "import sys, txfm_lite.external_scgpt; print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
