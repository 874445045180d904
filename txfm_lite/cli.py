"""The command line: ``python -m txfm_lite train | embed | complete | evaluate | fetch | corpus | estimate``.

Thin over the library: every command is one call that a notebook could make as well; ``--help`` after each
says what it takes. What can go wrong for a user is one line on the error stream, with cause and mend;
``--traceback`` shows the rest.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
corpus_app = typer.Typer(no_args_is_help=True, help="Build, describe and verify a training corpus.")
app.add_typer(corpus_app, name="corpus")
evaluate_app = typer.Typer(no_args_is_help=True, help="Score any model's embedding, beside controls.")
app.add_typer(evaluate_app, name="evaluate")

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one field; may repeat.")
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; faults that a user can mend end with one line and exit status 1."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(arguments, prog_name="txfm_lite")
    except (ValueError, OSError, FloatingPointError) as error:
        if "--traceback" in arguments:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.")] = False,
    traceback: Annotated[bool, typer.Option(help="Show where in the code an error arose.")] = False,
) -> None:
    """Transcriptome foundation models: train, embed, fetch data, build corpora, estimate cost."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("txfm_lite").setLevel(logging.WARNING if quiet else logging.INFO)


@app.command()
def train(
    config: Annotated[Path | None, typer.Option(help="A TOML file; see txfm_lite.recipe.")] = None,
    preset: Annotated[str | None, typer.Option(help="Size of the model: xs, s, b, l, ...")] = None,
    init: Annotated[str | None, typer.Option(help="Fine-tune this model: a name, hub id or folder.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="A corpus' folder (default: DiverseRNA-mini).")] = None,
    output: Annotated[Path | None, typer.Option(help="The run's folder; a stopped run goes on.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or passes over the corpus.")] = None,
    change: Set = None,
) -> None:
    """Train a model, or go on with a run that stopped.

    Options win over the file. --set reaches every field, for example --set training.batch_size=256
    """
    from . import recipe

    texts = {"preset": preset, "init": init, "corpus": corpus, "output": output}
    changes = [f"{k}={json.dumps(str(v))}" for k, v in texts.items() if v is not None]
    numbers = {"training.steps": steps, "epochs": epochs}
    changes += [f"{k}={v}" for k, v in numbers.items() if v is not None]
    run = recipe.train(recipe.read(config, [*changes, *(change or [])]), progress=sys.stderr.isatty())
    typer.echo(f"{run.path / 'model'}: trained; its curve is in {run.path / 'history.csv'}")


@app.command()
def embed(
    source: Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Raw counts of human cells.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.h5ad", help="The same, with obsm['X_txfm'].")],
    model: Annotated[str, typer.Option(help="A name, hub id or folder.")] = "txfm-xs",
    n_genes: Annotated[
        int | None, typer.Option(help="Genes shown, at random (default: all measured).")
    ] = None,
    n_draws: Annotated[int, typer.Option(help="Draws of n-genes to average.")] = 1,
    layer: Annotated[str | None, typer.Option(help="Where the counts are: a layer, or raw.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Cells at a time; without influence.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ... (default: a GPU if there is one).")
    ] = None,
) -> None:
    """Embed the cells of a file; rows stay where they are, and memory does not grow with the file."""
    import anndata

    from .embed import embed as run

    if not source.is_file():
        raise FileNotFoundError(f"{source}: there is no such file")
    try:
        adata = anndata.read_h5ad(source, backed="r")
    except OSError as error:
        raise OSError(f"{source}: cannot be read as an .h5ad file: {error}") from error
    options = {"n_genes": n_genes, "n_draws": n_draws, "layer": layer, "batch_size": batch_size, "seed": seed}
    result = run(adata, model, device=device, **options)
    how = adata.uns["txfm"]
    adata.file.close()
    _copy_with(source, target, {"obsm/X_txfm": result, "uns/txfm": how})
    typer.echo(f"{target}: {len(result):,} cells, obsm['X_txfm'] of width {result.shape[1]}")


@app.command()
def complete(
    model: Annotated[str, typer.Option(help="A GSFM: a folder or hub id.")],
    genes: Annotated[
        list[str] | None, typer.Argument(metavar="[GENE]...", help="Symbols or aliases.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Also those in this file, apart by blanks or commas.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="So many genes, the best.")] = 50,
    new: Annotated[bool, typer.Option("--new", help="Leave out the genes that were given.")] = False,
    draws: Annotated[int, typer.Option(min=0, help="Draws for a standard deviation.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write all genes into this CSV file instead.")] = None,
) -> None:
    """Say which genes belong to a list as well: probability, z over all genes, rank, whether given.

    "unseen" is the probability of a given gene by the rest of the list alone.
    """
    import re

    from .completion import complete_genes
    from .gsfm import GSFM

    names = list(genes or [])
    if file is not None:
        names += [name for name in re.split(r"[\s,;]+", file.read_text(encoding="utf-8-sig")) if name]
    if not names:
        raise ValueError("name some genes, or a file of them with --file")
    frame = complete_genes(GSFM.from_pretrained(model), names, n=None, n_draws=draws, seed=seed)
    if new:
        frame = frame[~frame["known"]].drop(columns=["known", "unseen"])
    if output is None:
        typer.echo(frame.head(n).to_string(index=False, float_format="{:.3g}".format, na_rep="-"))
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f".{output.name}.partial")
    frame.to_csv(aside, index=False)
    os.replace(aside, output)
    typer.echo(f"{output}: {len(frame):,} genes")


def _copy_with(source: Path, target: Path, elements: dict[str, Any]) -> None:
    """Copy an .h5ad and write more elements into the copy; it takes its name when it is whole."""
    import h5py
    from anndata.io import write_elem

    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(descriptor)
    try:
        shutil.copyfile(source, aside)
        with h5py.File(aside, "r+") as file:
            for key, value in elements.items():
                write_elem(file, key, value)
        os.chmod(aside, 0o644)  # mkstemp's files are private
        os.replace(aside, target)
    finally:
        Path(aside).unlink(missing_ok=True)


Data = Annotated[Path, typer.Argument(metavar="DATA.h5ad", help="Raw counts in X, labels in obs.")]
Values = Annotated[
    Path, typer.Option(help="The model's output: .npz with arrays values and ids (or .npy, with --ids).")
]
Ids = Annotated[Path | None, typer.Option(help="Cell names, one per line, in the embedding's order.")]
Column = Annotated[str, typer.Option(help="A column of obs.")]
Seeds = Annotated[int, typer.Option(min=1, help="So many seeds, from 0.")]
Output = Annotated[Path | None, typer.Option(help="Also write every score into this CSV file.")]


@evaluate_app.command("cells")
def evaluate_cells(
    data: Data,
    embedding: Values,
    ids: Ids = None,
    cell_type: Column = "cell_type",
    batch: Column = "batch",
    seeds: Seeds = 1,
    output: Output = None,
) -> None:
    """Score how well an embedding keeps cell types apart and batches together."""
    from .evaluate import cells

    def score(values, adata, seed):
        return cells.evaluate(values, adata.obs, counts=adata.X, seed=seed)

    columns = {"cell_type": cell_type, "batch": batch}
    _score(data, embedding, ids, columns, score, seeds, output)


@evaluate_app.command("perturbations")
def evaluate_perturbations(
    data: Data,
    embedding: Values,
    ids: Ids = None,
    perturbation: Column = "perturbation",
    is_control: Column = "is_control",
    batch: Column = "batch",
    relationships: Annotated[bool, typer.Option(help="Also recall of known gene pairs.")] = True,
    seeds: Seeds = 1,
    output: Output = None,
) -> None:
    """Score how well an embedding tells perturbations apart, across batches."""
    from .evaluate import genes, perturbations

    pairs = genes.known_pairs() if relationships else None

    def score(values, adata, seed):
        names = adata.var_names.to_numpy()
        return perturbations.evaluate(values, adata.obs, counts=adata.X, genes=names, pairs=pairs, seed=seed)

    columns = {"perturbation": perturbation, "is_control": is_control, "batch": batch}
    _score(data, embedding, ids, columns, score, seeds, output)


def _score(data, embedding, ids, columns: dict[str, str], score, seeds: int, output: Path | None) -> None:
    """Score an embedding and the controls on one file, and print a table."""
    import anndata
    import pandas as pd

    from .evaluate import scores, suite, tables

    adata = anndata.read_h5ad(data)
    for standard, column in columns.items():
        if column not in adata.obs:
            raise ValueError(
                f"{data}: obs has no column {column!r}; it has {', '.join(adata.obs) or 'none'}. "
                f"Name it: --{standard.replace('_', '-')} COLUMN"
            )
        adata.obs[standard] = adata.obs[column].to_numpy()
    given = scores.Embedding.read(embedding, ids)
    given.align(adata)  # a fault of the cells' names, before anything takes time
    models = {given.name: lambda adata, seed: given} | suite.controls(lambda adata, seed: given)
    rows = []
    for name, model in models.items():
        for seed in range(seeds):
            values = suite.embed(name, model, adata, seed)
            rows += scores.complete(score(values, adata, seed), data.stem, name, seed)
    frame = pd.DataFrame(rows)
    if output is not None:
        frame.to_csv(output, index=False)
    with pd.option_context("display.width", 200, "display.max_rows", None, "display.precision", 3):
        typer.echo(tables.numbers(frame).xs("mean", axis=1, level=1).T.to_string(na_rep="-"))
    if output is not None:
        typer.echo(f"{output}: {len(frame)} scores with nulls, ceilings and n")


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Datasets (default: all that train).")] = None,
) -> None:
    """Make datasets' verified files local, downloading what is missing."""
    from . import files, manifests
    from .diverserna import sources

    everything = manifests.names()
    for name in names or []:
        if name not in everything:
            from .recipe import known

            known("", [name], everything, "data_manifests")
    for name in names or sorted({name for name, _ in sources()[0]}):
        for path in files.fetch(name):
            typer.echo(f"{name}: {path} ({path.stat().st_size:,} bytes)")


@corpus_app.command("build")
def corpus_build(
    target: Annotated[Path, typer.Argument(help="The corpus' folder.")],
    data: Annotated[str, typer.Option(help="real (DiverseRNA-mini) or simulated.")] = "real",
    change: Set = None,
) -> None:
    """Curate the training datasets into a corpus; one of the same recipe is only opened.

    --set changes a rule of txfm_lite.curate.Rules: --set min_cells=100
    """
    from dataclasses import fields, replace

    from .curate import MINI
    from .recipe import known, parse
    from .studies import training_corpus

    rules = {k: v for text in change or [] for k, v in parse(text).items()}
    known("", rules, [f.name for f in fields(MINI)], "rules")
    known("", [data], ["real", "simulated"], "--data")
    typer.echo(repr(training_corpus(target, data, replace(MINI, **rules))))


@corpus_app.command("info")
def corpus_info(path: Path) -> None:
    """Say what a corpus consists of."""
    from .corpus import SPLITS, Corpus

    corpus = Corpus.open(path)
    typer.echo(repr(corpus))
    typer.echo(f"rules: {corpus.info['rules']}")
    typer.echo(f"{'samples':>10} {SPLITS[1]:>10} {'genes':>8}  dataset")
    for dataset in corpus.datasets:
        n, held = (len(corpus.rows(split, dataset["name"])) for split in (None, SPLITS[1]))
        typer.echo(f"{n:>10,} {held:>10,} {dataset['n_measured']:>8,}  {dataset['name']}")


@corpus_app.command("subset")
def corpus_subset(
    source: Annotated[Path, typer.Argument(help="A corpus' folder.")],
    target: Annotated[Path, typer.Argument(help="The smaller corpus' folder.")],
    common: Annotated[
        float | None, typer.Option(help="Genes that this share of the datasets measures, at least.")
    ] = None,
    variable: Annotated[int | None, typer.Option(help="Or so many of the most variable genes.")] = None,
) -> None:
    """Write a corpus with fewer genes; a cell's library size stays that of its whole profile."""
    from .corpus import Corpus, select_common_genes, select_variable_genes
    from .corpus_writer import write_subset

    if (common is None) == (variable is None):
        raise ValueError("say which genes: either --common or --variable")
    corpus = Corpus.open(source)
    if common is not None:
        genes = select_common_genes(corpus, common)
    else:
        genes = select_variable_genes(corpus, variable)
    typer.echo(repr(write_subset(corpus, target, genes=genes)))


@corpus_app.command("verify")
def corpus_verify(path: Path) -> None:
    """Compare every file of a corpus with its checksum."""
    from .corpus import Corpus

    corpus = Corpus.open(path)
    corpus.verify()
    typer.echo(f"{path}: as it was written, fingerprint {corpus.fingerprint}")


@app.command()
def estimate(
    preset: Annotated[str, typer.Argument(help="xs, s, b, l, ...")],
    device: Annotated[str, typer.Option(help="h200, h100, a100, t4, cpu, ...")] = "h200",
    samples: Annotated[int, typer.Option(help="Training samples.")] = 1_434_299,
    epochs: Annotated[float, typer.Option(help="Passes over them.")] = 200,
    genes: Annotated[int, typer.Option(help="Size of the vocabulary.")] = 44_349,
) -> None:
    """Say what training would cost before it starts; the defaults are the paper's corpus and epochs."""
    from .estimate import estimate as run

    typer.echo(str(run(preset, device=device, n_samples=samples, epochs=epochs, n_genes=genes)))
