"""Make the files of the gene explorer, unless they are there already, and complete its page.

python tools/gene_pages.py [--profile smoke|book|full]

The files go to ``_build/gene_pages/``. They are made from the shipped gene set model, or the one that the
environment variable ``GENE_MODEL`` names, and the benchmark's libraries. Where either is not at hand, and in
the `smoke` profile, a small model that is trained on simulated sets on the spot stands in, and the page says
so. They are made again when the model, the libraries, the profile or the code that makes them changed.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import logging
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

# Models, of sets and of expression: folders, or shipped ones.
MODEL, EXPRESSION = os.environ.get("GENE_MODEL") or "gsfm-xs", "txfm-xs"
DATASET = "enrichr_rummageo_benchmark"
# What no files are made of, and why.
LEFT_OUT = {"KEGG_2021_Human": "its terms of use do not let it be passed on"}
# Where a term can be looked up, and what of its name stands for {}: a regular expression, or the whole name.
LINKS = {
    "GO_Biological_Process_2023": ("https://amigo.geneontology.org/amigo/term/{}", r"GO:\d+"),
    "GWAS_Catalog_2023": ("https://www.ebi.ac.uk/gwas/search?query={}", None),
    "Human_Phenotype_Ontology": ("https://hpo.jax.org/browse/term/{}", r"HP:\d+"),
    "MGI_Mammalian_Phenotype_Level_4_2021": (
        "https://www.informatics.jax.org/vocab/mp_ontology/{}",
        r"MP:\d+",
    ),
    "WikiPathway_2023_Human": ("https://www.wikipathways.org/pathways/{}", r"WP\d+"),
}
EXAMPLES = ("TP53", "CFTR", "INS", "C1orf112")  # from the best known to one of little-known function
TOPICS = {  # of the simulated libraries
    "Simulated library A": slice(0, 60),
    "Simulated library B": slice(60, 100),
}
BANNER, STATIC, LIBRARIES = (f"<!-- genes: {name} -->" for name in ("banner", "examples", "libraries"))


def make(root: Path, profile: str = "book", model: str = MODEL) -> Path:
    """Make the files if need be and return their folder."""
    from txfm_lite import gene_shards

    folder = root / "_build" / "gene_pages"
    lacking = _lacking(profile, model)
    now = fingerprint(profile, model, lacking)
    if gene_shards.manifest(folder).get("fingerprint") == now:
        print("gene pages: unchanged, kept", flush=True)
        return folder
    print(
        f"gene pages: making them{f' from simulated sets, because {lacking}' if lacking else ''}", flush=True
    )
    start = time.time()
    facts = _simulated(folder, lacking, now) if lacking else _real(folder, model, now)
    print(
        f"gene pages: {facts['genes']:,} genes, {len(facts['libraries'])} libraries "
        f"after {time.time() - start:.0f} s", flush=True,
    )  # fmt: skip
    return folder


def fingerprint(profile: str, model: str, lacking: str) -> str:
    """Return a short hash that changes with the model, the libraries or the code."""
    import txfm_lite
    from txfm_lite import files, manifests, pretrained

    state = hashlib.sha256(f"{profile if lacking else 'real'} {lacking} {EXAMPLES} {LINKS}".encode())
    package = Path(txfm_lite.__file__).parent
    here = ("gene*.py", "gsfm*.py", "completion.py", "calibration.py", "embed.py", "evaluate/set_s*.py")
    for pattern in here:
        for path in sorted(package.glob(pattern)):
            state.update(path.read_bytes())
    state.update(Path(__file__).read_bytes())
    if not lacking:
        for name in (model, EXPRESSION):
            state.update(files.sha256(_folder(name, pretrained) / "model.safetensors").encode())
        state.update("".join(file.sha256 for file in manifests.read(DATASET).files).encode())
    else:
        state.update(txfm_lite.__version__.encode())
    return state.hexdigest()[:16]


def _folder(name: str, pretrained: Any) -> Path:
    return Path(name) if Path(name).is_dir() else pretrained.SHIPPED / name


def _lacking(profile: str, model: str) -> str:
    """Say why simulated sets must stand in; nothing if the real ones can be had."""
    from txfm_lite import datasets, pretrained

    if profile == "smoke":
        return "a small profile was asked for"
    if not (_folder(model, pretrained) / "model.safetensors").exists():
        return f"there is no model {model!r}"
    if datasets.source([DATASET]) == "embedded":
        return "the libraries are neither here nor to be had"
    return ""


def _real(folder: Path, model: str, now: str) -> dict[str, Any]:
    from txfm_lite import completion, embed, gene_pages, genes, genesets, manifests
    from txfm_lite.gsfm import GSFM

    manifest = manifests.read(DATASET)
    gsfm = GSFM.from_pretrained(model)
    parts = [part for part in manifest.parts if part not in LEFT_OUT]
    sources = {}
    for part in parts:
        link, found = LINKS[part]
        terms = f"{manifest.parts[part].note.rstrip('.')}; the copy: {manifest.licence.split(';')[0]}"
        sources[_title(part)] = {"licence": terms, "link": link, "id": found}
    vectors = {
        "TxFM, from expression": embed.gene_vectors(EXPRESSION)["codebook"],
        "GSFM, from sets": completion.gene_vectors(gsfm),
    }
    return gene_pages.build(
        partial(completion.complete, gsfm), gsfm.genes[2:],
        {_title(part): genesets.load(DATASET, part) for part in parts}, folder,
        gene_vectors=vectors, resolver=genes.default_resolver(), sources=sources,
        model=Path(model).name, examples=[g for g in EXAMPLES if g in set(gsfm.genes)],
        left_out={_title(k): why for k, why in LEFT_OUT.items()},
        dataset={"title": manifest.title, "citation": manifest.citation}, fingerprint=now,
    )  # fmt: skip


def _simulated(folder: Path, lacking: str, now: str) -> dict[str, Any]:
    from txfm_lite import completion, gene_pages, genesets, gsfm_training

    sets = genesets.simulated(n_sets=600, n_genes=400)
    logging.getLogger("txfm_lite").setLevel(logging.WARNING)
    genes = genesets.vocabulary(sets)
    with tempfile.TemporaryDirectory() as run:
        schedule = gsfm_training.GSFMTrainConfig(epochs=30)
        shape = {"d_model": 32}
        model = gsfm_training.train_on(sets[100:], genes, schedule, run, shape=shape, progress=False).model
    return gene_pages.build(
        partial(completion.complete, model), model.genes[2:],
        {title: sets[which] for title, which in TOPICS.items()}, folder,
        gene_vectors={"GSFM, from sets": completion.gene_vectors(model)},
        sources={title: {"licence": "simulated"} for title in TOPICS},
        model="trained on simulated sets", examples=list(model.genes[2:5]), simulated=lacking,
        fingerprint=now,
    )  # fmt: skip


def _title(part: str) -> str:
    return part.replace("_", " ")


# ---------------------------------------------------------------- the page


def fill(page: Path, folder: Path) -> None:
    """Replace the marked lines of the page by a banner if need be, static examples, and the libraries."""
    from txfm_lite import gene_shards

    facts = gene_shards.manifest(folder)
    text = page.read_text(encoding="utf8").replace(BANNER, banner(facts))
    text = text.replace(STATIC, examples(facts, folder)).replace(LIBRARIES, libraries(facts))
    page.write_text(text, encoding="utf8")


def banner(facts: dict[str, Any]) -> str:
    """Return a warning if the sets are simulated."""
    if not facts.get("simulated"):
        return ""
    return (
        ":::{warning}\nThis copy of the page shows simulated sets and genes, because "
        f"{facts['simulated']}. It works, but its numbers say nothing about biology.\n:::"
    )


def examples(facts: dict[str, Any], folder: Path, n: int = 2) -> str:
    """Return a table of the best new terms of a few genes, for readers without JavaScript."""
    from txfm_lite import gene_shards

    rows = []
    for gene in facts["examples"]:
        found = gene_shards.read(folder, gene)
        best = found[~found["known"]].groupby("library", sort=False).head(n)
        cells = (
            (
                gene,
                r.library,
                r.term,
                f"{r.probability:.3f}",
                f"{r.z:.2f}",
                f"{r.auroc:.3f}" if r.auroc > 0 else "–",
            )
            for r in best.itertuples()
        )
        rows += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells]
    heads = "".join(
        f"<th>{h}</th>" for h in ("gene", "library", "new term", "probability", "z", "term AUROC")
    )
    return (
        '<div class="ge-static">\n<table class="table">'
        f"<caption>Best new terms of some genes</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>\n</div>"
    )


def libraries(facts: dict[str, Any]) -> str:
    """Return a table of the libraries with sources and licences, and what is not shown."""
    lines = ["| library | terms | median AUROC | licence |", "|---|---|---|---|"]
    for x in facts["libraries"]:
        auroc = "–" if x["auroc"] is None else f"{x['auroc']:.3f} of {x['scored']:,}"
        cells = (x["title"], f"{x['terms']:,}", auroc, x.get("licence", ""))
        lines.append(f"| {' | '.join(cells)} |")
    if of := facts.get("dataset"):
        lines += ["", f"From: {of['title']} {{cite:p}}`{of['citation']}`."]
    lines += ["", f"Model: {facts['model']}; {facts['genes']:,} genes; made on {facts['made']}; "
              f"seed {facts['seed']}; fingerprint `{facts['fingerprint']}`."]  # fmt: skip
    lines += [f"Not shown: {title}, because {why}." for title, why in facts.get("left_out", {}).items()]
    return "\n".join(lines)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--profile", default="book", choices=["smoke", "book", "full"])
    args = parser.parse_args()
    make(root, args.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
