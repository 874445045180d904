"""The command line: each command is run once for real, and misspelt words are answered with right ones."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch

from txfm_lite import cli, datasets, files, recipe, simulate
from txfm_lite.corpus import Corpus
from txfm_lite.curate import Rules, build
from txfm_lite.embed import embed
from txfm_lite.estimate import estimate
from txfm_lite.pretrained import SHIPPED
from txfm_lite.txfm import TxFM, TxFMConfig

SMALL = """
corpus = "{corpus}"
output = "{output}"
[model]
d_model = 16
n_heads = 2
n_revealed = 40
[training]
steps = 4
batch_size = 16
validate_every = 4
n_validation = 16
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    studies = {n: a for n, a in simulate.corpus(n_genes=300).items() if a.uns["source"]["role"] == "train"}
    rules = Rules(min_cells=5, min_genes=20, min_measured_genes=100)
    return build(tmp_path_factory.mktemp("corpus") / "simulated", studies, rules)


@pytest.fixture
def run(capsys):
    """Run a command; return its status and what it printed, errors included."""

    def call(*arguments) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out + printed.err

    return call


@pytest.fixture(scope="module")
def real(local_data, tmp_path_factory) -> tuple[Path, Path]:
    """A user's file, as scanpy writes it, and a small model of some of its genes."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.warns(UserWarning, match="not unique"):
        adata = sc.read_10x_h5(files.fetch("pbmc_1k_v2")[0])[:300].copy()
    adata.write_h5ad(folder / "mine.h5ad")
    curated = datasets.load("pbmc_1k_v2")
    torch.manual_seed(0)
    genes = sorted(curated.var_names[curated.var["matched"]][::4])
    config = TxFMConfig.preset("xs", n_genes=len(genes), d_model=32)
    TxFM(config, genes).save_pretrained(folder / "small-model")
    return folder / "mine.h5ad", folder / "small-model"


def test_a_real_file_through_the_command_line(real, tmp_path):
    """Another process, backed by the file, gives what the library gives in memory; nothing else changes."""
    source, model = real
    target = tmp_path / "new" / "embedded.h5ad"
    command = [sys.executable, "-m", "txfm_lite", "embed", source, target, "--model", model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "300 cells" in done.stdout and "genes measured" in done.stderr
    before, after = sc.read_h5ad(source), sc.read_h5ad(target)
    np.testing.assert_allclose(after.obsm["X_txfm"], embed(before, TxFM.from_pretrained(model)), atol=1e-4)
    assert (after.X != before.X).nnz == 0
    assert after.obs_names.equals(before.obs_names) and after.var.equals(before.var)
    assert after.uns["txfm"]["model_genes_measured"] > 0.99
    assert [p.name for p in target.parent.iterdir()] == ["embedded.h5ad"]


def test_the_readme_s_three_lines(real, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (lines,) = [b for b in text.split("```python\n")[1:] if "tl.embed" in b]
    code = lines.split("```")[0]
    assert len(code.strip().splitlines()) == 3
    monkeypatch.chdir(tmp_path)
    source, model = real
    names = {}
    exec(code.replace("mine.h5ad", str(source)).replace('"txfm-xs"', repr(str(model))), names)
    assert np.isfinite(names["adata"].obsm["X_txfm"]).all()


def test_embedding_again_replaces(real, tmp_path, run):
    source, model = real
    some = sc.read_h5ad(source)[:20].copy()
    some.layers["kept"] = some.X.copy()
    some.X = some.X.log1p()
    some.write_h5ad(tmp_path / "some.h5ad")
    status, printed = run("embed", tmp_path / "some.h5ad", tmp_path / "out.h5ad", "--model", model)
    assert status == 1 and "error: X looks log-transformed" in printed and "layer='kept'" in printed
    assert not (tmp_path / "out.h5ad").exists()
    arguments = [tmp_path / "some.h5ad", tmp_path / "some.h5ad", "--model", model, "--layer", "kept"]
    assert run("-q", "embed", *arguments)[0] == 0
    everything = sc.read_h5ad(tmp_path / "some.h5ad").obsm["X_txfm"]
    assert run("-q", "embed", *arguments, "--n-genes", 100, "--n-draws", 2)[0] == 0
    drawn = sc.read_h5ad(tmp_path / "some.h5ad")
    assert drawn.uns["txfm"]["n_draws"] == 2 and not np.allclose(drawn.obsm["X_txfm"], everything)


def test_train_from_a_file(corpus, run, tmp_path):
    (tmp_path / "small.toml").write_text(SMALL.format(corpus=corpus.path, output=tmp_path / "run"))
    arguments = ("--config", tmp_path / "small.toml", "--preset", "xs", "--set", "training.seed=3")
    status, printed = run("train", *arguments)
    assert status == 0 and str(tmp_path / "run" / "model") in printed
    model = TxFM.from_pretrained(tmp_path / "run" / "model")
    assert (model.config.d_model, model.config.n_blocks) == (16, 1)
    provenance = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["provenance"]
    assert (provenance["seed"], provenance["steps"]) == (3, 4)


def test_a_recipe_runs_without_the_command_line_s_packages(corpus, tmp_path):
    """Where typer is missing, the module's text says how; what training needs is tested with training."""
    (tmp_path / "run.toml").write_text(SMALL.format(corpus=corpus.path, output=tmp_path / "run"))
    code = recipe.__doc__.split("python -c ")[1].strip().strip('"').replace("xs.toml", f"{tmp_path}/run.toml")
    code = f"import sys; sys.modules['typer'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_epochs_are_steps(corpus, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("txfm_lite.training.fit", lambda *a, **k: asked.update(config=a[2], options=k))
    changes = [f"corpus='{corpus.path}'", f"output={tmp_path}", "epochs=2.5", "training.batch_size=16"]
    recipe.train(recipe.read(changes=[*changes, "trainer.devices=2"]), progress=False)
    assert asked["config"].steps == round(2.5 * len(corpus.rows("train")) / 16)
    assert asked["options"]["devices"] == 2


def test_epochs_need_a_batch(corpus, tmp_path):
    changes = [f"corpus={corpus.path}", f"output={tmp_path}", "epochs=1", "training.batch_size=0"]
    with pytest.raises(ValueError, match="batch_size = 0: should be positive"):
        recipe.train(recipe.read(changes=changes))


def test_fine_tuning_takes_the_size_of_its_start(corpus, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("txfm_lite.training.fit", lambda *a, **k: asked.update(model=a[1], options=k))
    start = TxFM(TxFMConfig.preset("tiny", n_genes=50), corpus.genes[:50].tolist())  # genes of its own
    start.save_pretrained(tmp_path / "start")
    changes = [f"corpus={corpus.path}", f"init={tmp_path / 'start'}", "output=x", "training.steps=2"]
    recipe.train(recipe.read(changes=changes))
    assert asked["model"] == dataclasses.replace(start.config, n_genes=corpus.n_genes)
    assert torch.equal(asked["options"]["init"].codebook.weight, start.codebook.weight)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('output = "x"\nstpes = 3', "unknown key 'stpes'"),
        (
            'output = "x"\nepochs = 3\n[model]\nn_reveal = 3',
            r"'n_reveal' in \[model\]; did you mean 'n_revealed'",
        ),
        (
            'output = "x"\nepochs = 3\n[training]\nlr = 3',
            r"unknown key 'lr' in \[training\]; there are steps, ",
        ),
        ('output = "x"\nepochs = 3\n[trainer]\ndevice = 3', "did you mean 'devices'"),
        ('output = "x"\nepochs = 3\nmodel = "xs"', "'model' should be a table"),
        ('output = "x"\nepochs = "3"', "epochs = '3': should be float"),
        ('output = "x"\n[training]\nsteps = 2.5', "steps = 2.5: should be int"),
        ('output = "x"\nepochs = 0', "epochs = 0: should be positive"),
        ('output = "x"', "either 'epochs' or 'training.steps'"),
        ('output = "x"\nepochs = 1\n[training]\nsteps = 2', "either 'epochs' or 'training.steps'"),
        ("epochs = 1", "no 'output'"),
        ('output = "x"\nepochs = 1\ninit = "y"\npreset = "xs"', "'init' brings its own size"),
        ("output = x", "not valid TOML"),
    ],
)
def test_recipes_that_cannot_be_meant(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"bad.toml: .*{message}"):
        recipe.read(tmp_path / "bad.toml")


def test_the_recipe_in_the_documentation_is_valid(tmp_path):
    text = recipe.__doc__.split("::\n")[1].split("\nEvery key")[0]
    (tmp_path / "documented.toml").write_text(
        "\n".join(line.removeprefix("    ") for line in text.splitlines())
    )
    with pytest.raises(ValueError, match="'init' brings its own size"):  # it shows both
        recipe.read(tmp_path / "documented.toml")


def test_values_need_no_quotes(tmp_path):
    made = recipe.read(
        changes=["output=runs/a b", "epochs=1", 'trainer.precision="32-true"', "model.drop_path=0"]
    )
    assert made.output == "runs/a b" and made.trainer == {"precision": "32-true"}
    assert made.model == {"drop_path": 0}
    with pytest.raises(ValueError, match="should be KEY=VALUE"):
        recipe.read(changes=["output"])


def test_corpus_commands(corpus, run, tmp_path):
    status, printed = run("corpus", "info", corpus.path)
    assert status == 0 and corpus.fingerprint[:12] in printed and "simulated_a" in printed
    assert run("corpus", "verify", corpus.path)[0] == 0
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in corpus.path.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    with open(damaged / "counts.bin", "r+b") as file:
        file.write(b"\x07\x07")
    status, printed = run("corpus", "verify", damaged)
    assert status == 1 and "error:" in printed and "counts.bin" in printed
    assert run("corpus", "info", tmp_path / "nothing")[0] == 1


def test_corpus_subset(corpus, run, tmp_path):
    status, printed = run("corpus", "subset", corpus.path, tmp_path / "common", "--common", "1")
    everywhere = corpus.genes[corpus.measured.all(0)]
    assert status == 0 and f"{len(everywhere):,} genes" in printed
    assert Corpus.open(tmp_path / "common").genes.tolist() == everywhere.tolist()
    assert run("corpus", "subset", corpus.path, tmp_path / "variable", "--variable", "20")[0] == 0
    assert Corpus.open(tmp_path / "variable").n_genes == 20
    status, printed = run("corpus", "subset", corpus.path, tmp_path / "neither")
    assert status == 1 and "either --common or --variable" in printed


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_the_shipped_models(path):
    assert f"txfm-{recipe.read(path).preset}" == path.stem


def test_corpus_build(run, tmp_path):
    status, printed = run("corpus", "build", tmp_path / "c", "--data", "simulated", "--set", "min_cells=5")
    assert status == 0 and "Corpus(" in printed
    assert Corpus.open(tmp_path / "c").info["rules"]["min_cells"] == 5
    status, printed = run("corpus", "build", tmp_path / "d", "--set", "min_cell=5")
    assert status == 1 and "did you mean 'min_cells'" in printed
    assert run("corpus", "build", tmp_path / "d", "--data", "simulate")[0] == 1


def test_fetch(local_data, run):
    status, printed = run("fetch", "darmanis_brain")
    assert status == 0 and str(local_data) in printed
    status, printed = run("fetch", "darmanis_brian")
    assert status == 1 and "did you mean 'darmanis_brain'" in printed


def test_estimate(run):
    status, printed = run("estimate", "s", "--device", "t4", "--samples", 1000, "--epochs", 2, "--genes", 900)
    assert status == 0 and printed.strip() == str(estimate("s", "t4", 1000, 2, n_genes=900))
    assert run("estimate", "nonsense")[0] == 1


def test_faults_are_one_line_unless_asked(run, tmp_path):
    missing = tmp_path / "missing.h5ad"
    status, printed = run("embed", missing, tmp_path / "out.h5ad")
    assert status == 1 and printed == f"error: {missing}: there is no such file\n"
    with pytest.raises(FileNotFoundError):
        cli.main(["--traceback", "embed", str(missing), "out.h5ad"])
    (tmp_path / "text.h5ad").write_text("no HDF5")
    status, printed = run("embed", tmp_path / "text.h5ad", tmp_path / "out.h5ad")
    assert status == 1 and "text.h5ad: cannot be read as an .h5ad file" in printed
    assert run("embed")[0] == 2 and "Usage" in run("nonsense")[1]


def test_h5ad_without_obsm(tmp_path):
    """Files of other writers may lack the group that the embedding goes to."""
    import h5py

    adata = anndata.AnnData(np.ones((3, 2), np.float32))
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        del file["obsm"], file["uns"]
    cli._copy_with(tmp_path / "a.h5ad", tmp_path / "b.h5ad", {"obsm/X": np.eye(3), "uns/how": {"n": 1}})
    back = anndata.read_h5ad(tmp_path / "b.h5ad")
    assert back.uns["how"]["n"] == 1 and back.obsm["X"].shape == (3, 3)


@pytest.fixture(scope="module")
def screen(tmp_path_factory) -> tuple[Path, Path]:
    """A small screen with cell types, as a user has it, and somebody's embedding of it in another order."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["control", "A", "B", "C"], 45)
    mean = np.ones((4, 40))
    for i in (1, 2, 3):
        mean[i, 10 * i : 10 * i + 10] = 4
    counts = rng.poisson(np.repeat(mean, 45, axis=0)).astype(np.float32)
    obs = pd.DataFrame({"target": groups, "type": groups, "plate": np.tile(["p1", "p2", "p3"], 60)})
    obs["is_control"] = groups == "control"
    obs.index = [f"cell{i}" for i in range(180)]
    adata = anndata.AnnData(counts, obs, pd.DataFrame(index=[f"G{i}" for i in range(40)]))
    folder, order = tmp_path_factory.mktemp("screen"), rng.permutation(180)
    adata.write_h5ad(folder / "screen.h5ad")
    values = np.log1p(counts[order])
    np.savez(folder / "mine.npz", values=values, ids=adata.obs_names[order].to_numpy().astype(str))
    np.save(folder / "bare.npy", values)
    (folder / "ids.txt").write_text("\n".join(adata.obs_names[order]))
    return folder / "screen.h5ad", folder / "mine.npz"


def test_evaluate_scores_any_models_output_by_its_cells_names(run, screen, tmp_path, monkeypatch):
    monkeypatch.setattr("txfm_lite.evaluate.probes.STEPS", {"linear": 5, "MLP": 2})
    monkeypatch.setattr("txfm_lite.evaluate.cells.RESOLUTIONS", (0.5, 1.0))
    data, embedding = screen
    columns = ["--cell-type", "type", "--batch", "plate"]
    given = ["--embedding", embedding, "--output", tmp_path / "scores.csv"]
    status, printed = run("evaluate", "cells", data, *given, *columns)
    assert status == 0, printed
    rows = pd.read_csv(tmp_path / "scores.csv")
    rows = rows[rows["metric"] == "kNN"].set_index("model")["value"]
    assert rows["mine"] > 0.7 > 0.5 > rows["scrambled"]  # aligned, though in another order
    assert "kNN" in printed and "constant" in printed and "depth" in printed

    bare = ["--embedding", embedding.with_name("bare.npy")]
    status, printed = run("evaluate", "cells", data, *bare, *columns)
    assert status == 1 and "bare.npy: no cell names" in printed
    status, printed = run("evaluate", "cells", data, "--embedding", embedding)
    assert status == 1 and "obs has no column 'cell_type'" in printed and "--cell-type COLUMN" in printed
    ids = embedding.with_name("few.txt")
    ids.write_text("\n".join(f"cell{i}" for i in range(1, 181)))
    status, printed = run("evaluate", "cells", data, *bare, "--ids", ids, *columns)
    assert status == 1 and "1 have no embedding, 1 are not in the data ('cell0', 'cell180')" in printed


def test_evaluate_perturbations(run, screen, tmp_path):
    data, embedding = screen
    bare = ["--embedding", embedding.with_name("bare.npy"), "--ids", embedding.with_name("ids.txt")]
    columns = ["--perturbation", "target", "--batch", "plate", "--no-relationships"]
    status, printed = run("evaluate", "perturbations", data, *bare, *columns, "--output", tmp_path / "s.csv")
    assert status == 0, printed
    rows = pd.read_csv(tmp_path / "s.csv")
    rows = rows[(rows["metric"] == "lin converged") & (rows["variant"] == "centre")]
    rows = rows.set_index("model")["value"]
    assert rows["bare"] > 0.9 > rows["scrambled"]
