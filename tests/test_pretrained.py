"""A model's folder: nothing is lost or half written, and what does not belong together is named."""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import txfm_lite
from txfm_lite import pretrained
from txfm_lite.txfm import TxFM, TxFMConfig

GENES = [f"ENSG{i:011d}" for i in range(30)]


@pytest.fixture
def model() -> TxFM:
    torch.manual_seed(0)
    config = TxFMConfig(n_genes=30, d_model=16, n_blocks=2, n_heads=4, n_revealed=10, activation="softmax")
    return TxFM(config, GENES).eval()


def edit(path: Path, **changes) -> None:
    info = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**info, **changes}))


def test_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path / "m", seed=3)
    path = model.save_pretrained(tmp_path / "m", seed=4, result={"loss": -1.5})  # replaces
    again = TxFM.from_pretrained(path)
    x, genes = torch.rand(4, 30), torch.arange(30).expand(4, -1)
    assert (model.encode(x, genes) == again.encode(x, genes)).all()
    assert (again.config, again.genes, again.training) == (model.config, GENES, False)
    assert again.provenance == {"seed": 4, "result": {"loss": -1.5}}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]  # nothing left aside
    assert {p.name for p in path.iterdir()} == set(pretrained.FILES)


def test_the_hash_is_that_of_the_file(model, tmp_path):
    path = model.save_pretrained(tmp_path / "m")
    expected = hashlib.sha256((path / "genes.txt").read_bytes()).hexdigest()
    assert json.loads((path / "config.json").read_text())["vocabulary"]["sha256"] == expected


def test_half_precision_is_on_disk_only(model, tmp_path):
    whole, half = (model.save_pretrained(tmp_path / d, dtype=d) for d in ("float32", "float16"))
    stored = load_file(half / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}
    assert (
        1.8 < (whole / "model.safetensors").stat().st_size / (half / "model.safetensors").stat().st_size < 2
    )
    again = TxFM.from_pretrained(half)
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert theirs.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_weight_that_does_not_fit_is_no_file(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    before = model.gene_head.bias[3].item()
    model.gene_head.bias.data[3] = 1e6
    with pytest.raises(ValueError, match="float16 in gene_head.bias"):
        model.save_pretrained(tmp_path / "m", dtype="float16")
    with pytest.raises(ValueError, match="float32, float16"):
        model.save_pretrained(tmp_path / "m", dtype="int8")
    assert TxFM.from_pretrained(tmp_path / "m").gene_head.bias[3].item() == before  # the earlier one is whole


def test_a_failed_save_leaves_the_earlier_model(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "m", seed=1)
    with pytest.raises(TypeError):
        model.save_pretrained(tmp_path / "m", seed=object())  # no JSON
    assert TxFM.from_pretrained(tmp_path / "m").provenance == {"seed": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_only_a_model_is_replaced(model, tmp_path):
    (tmp_path / "notes.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is no model"):
        model.save_pretrained(tmp_path)
    with pytest.raises(FileExistsError, match="is no model"):
        model.save_pretrained(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert TxFM.from_pretrained(model.save_pretrained(tmp_path / "empty")).genes == GENES


def test_model_card(model, tmp_path):
    path = model.save_pretrained(tmp_path / "m", card="## Limits\n\nMade for a test.", corpus="abc123")
    card = (path / "README.md").read_text()
    assert "Made for a test." in card and "| corpus | abc123 |" in card and "| activation | softmax |" in card
    assert f"{model.n_parameters:,} parameters" in card
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_a_changed_vocabulary_file_is_refused(model, tmp_path):
    path = model.save_pretrained(tmp_path / "m")
    swapped = [GENES[1], GENES[0], *GENES[2:]]  # same genes, another order: silent nonsense otherwise
    (path / "genes.txt").write_text("\n".join(swapped) + "\n")
    with pytest.raises(ValueError, match=r"genes.txt is not the vocabulary of these weights"):
        TxFM.from_pretrained(path)
    (path / "genes.txt").unlink()
    with pytest.raises(FileNotFoundError, match="no genes.txt"):
        TxFM.from_pretrained(path)


@pytest.mark.parametrize(
    ("genes", "word"),
    [
        (["A", *GENES[1:]], f"gene 0 is {GENES[0]} there and A in yours"),
        (GENES[:-1], f"30 genes there, 29 in yours; {GENES[-1]} is only in the model"),
        ([*GENES, "B"], "30 genes there, 31 in yours; B is only in yours"),
    ],
)
def test_another_vocabulary_is_refused_and_named(model, tmp_path, genes, word):
    path = model.save_pretrained(tmp_path / "m")
    assert TxFM.from_pretrained(path, genes=GENES).genes == GENES
    with pytest.raises(ValueError, match=word):
        TxFM.from_pretrained(path, genes=genes)


def test_damaged_files(model, tmp_path):
    path = model.save_pretrained(tmp_path / "m")
    config = json.loads((path / "config.json").read_text())["config"]
    for changes, word in (({"width": 3}, "unknown field width"), ({"d_model": 32}, "does not fit")):
        edit(path, config={**config, **changes})
        with pytest.raises(ValueError, match=word):
            TxFM.from_pretrained(path)
    for bad in ({**config, "loss": "l2"}, {"d_model": 16}, 3):
        edit(path, config=bad)
        with pytest.raises(ValueError, match="config.json"):
            TxFM.from_pretrained(path)
    edit(path, config=config)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors"):
        TxFM.from_pretrained(path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors"):
        TxFM.from_pretrained(path)
    (path / "config.json").write_text("{")
    weights.touch()
    with pytest.raises(ValueError, match="config.json is no configuration"):
        TxFM.from_pretrained(path)


def test_models_of_this_package(model, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="there are: none"):
        TxFM.from_pretrained("txfm-xs")
    model.save_pretrained(tmp_path / "weights" / "txfm-xs")
    assert TxFM.from_pretrained("txfm-xs").genes == GENES
    with pytest.raises(FileNotFoundError, match="there are: txfm-xs"):
        TxFM.from_pretrained("txfm-xxl")


def test_a_mistyped_folder_without_the_hub_s_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match="runs/xs: no such folder here"):
        TxFM.from_pretrained("runs/xs")


def test_whatever_ships_loads():
    for path in pretrained.SHIPPED.glob("*/"):
        kind = json.loads((path / "config.json").read_text())["model"]
        model = getattr(txfm_lite, kind).from_pretrained(path.name)
        assert model.genes and model.provenance
        assert all(p.isfinite().all() for p in model.parameters())


def test_hub(model, tmp_path, monkeypatch):
    """Up and down again, over a hub that is a folder."""
    import huggingface_hub

    hub = tmp_path / "hub"

    class Api:
        def __init__(self, token):
            assert token == "t"

        def create_repo(self, repo_id, private, exist_ok):
            assert private and exist_ok
            return SimpleNamespace(repo_id=f"me/{repo_id}")

        def upload_folder(self, repo_id, folder_path, commit_message):
            (hub / repo_id).parent.mkdir(parents=True)
            Path(folder_path).rename(hub / repo_id)
            return repo_id

    def download(repo_id, allow_patterns, revision=None):
        if not (hub / repo_id).exists():
            raise OSError("404")
        assert set(allow_patterns) == {p.name for p in (hub / repo_id).iterdir()} and revision == "main"
        return str(hub / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model.provenance = {"corpus": "abc", "seed": 3}
    said = pretrained.identity(model)
    assert said == pretrained.identity(model) and said["seed"] == 3 and set(said) == {"weights", "seed"}
    model.provenance = {"corpus": "abc"}
    assert model.push_to_hub("small", private=True, token="t", dtype="float16") == "me/small"
    again = TxFM.from_pretrained("me/small", revision="main")
    assert again.genes == GENES and again.provenance == {"corpus": "abc"}
    with pytest.raises(
        FileNotFoundError, match="me/other: no such folder here, and not to be had from the hub"
    ):
        TxFM.from_pretrained("me/other")
