"""What is a gene set model good for?  Kinases, pairs of proteins, complements, augmentation, signatures.

    python benchmarks/gene_set_uses.py                               # all parts, what is stored is kept
    python benchmarks/gene_set_uses.py --parts kinases pairs --gsfm FOLDER
    python benchmarks/gene_set_uses.py --train-without-interactions FOLDER   # only that model, then
    python benchmarks/gene_set_uses.py --parts kinases pairs --without-interactions FOLDER

Results lie in results/genesets-uses/<part>/. One core, 4 GB:

==============  ==============================================================================  ========
kinases         KEA_2015: random halves, rivals, and the GSFM trained without interactions      10 min
pairs           pairs of STRING by gene vectors, proteins apart or shared                       5 min
complements     relations recalled by TxFM, GSFM and both; completion of the six libraries      10 min
alarms          random lists through augmented enrichment; members of terms among random genes  30 min
signatures      directions and weights of signatures                                            10 min
noncoding       a vocabulary with and without non-coding genes                                  10 min
==============  ==============================================================================  ========

Some training libraries are themselves lists of interactions; a kinase's interactors are much like its
substrates. So kinases and pairs are also asked of models that never saw those libraries.
"""

from __future__ import annotations

import argparse
import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from txfm_lite import genesets, results, set_rivals, set_studies
from txfm_lite.evaluate import complements, interactions, scores, set_splits, suite
from txfm_lite.evaluate import genes as relations
from txfm_lite.evaluate import genesets as benchmark

log = logging.getLogger("txfm_lite")

ENRICHR = "enrichr_2020_libraries"
INTERACTIONS = ("PPI_Hub_Proteins", "NURSA_Human_Endogenous_Complexome", "huMAP", "Transcription_Factor_PPIs")
SIGNED = ("Virus_Perturbations_from_GEO", "Kinase_Perturbations_from_GEO", "LINCS_L1000_Ligand_Perturbations")
NONCODING = ("ncRNA", "snoRNA", "snRNA", "scRNA", "miscRNA", "pseudo")
ALIKE = 0.5  # Jaccard index above which a training set is a copy of a tested term
SOME = 6_000  # sets for the question of vocabularies

Rows = list[dict[str, Any]]


@functools.cache
def training() -> genesets.GeneSets:
    return genesets.training("clean")


@functools.cache
def without_interactions() -> genesets.GeneSets:
    """Training sets without lists of interactions, nor any set much like a term of KEA_2015."""
    sets = training()
    names = [genesets.load(ENRICHR, part, resolved=False).libraries[0] for part in INTERACTIONS]
    sets = sets[~np.isin(sets.libraries.astype(str), names)]
    return sets[~genesets.overlapping(sets, kinase_terms(), ALIKE)]


@functools.cache
def kinase_terms() -> genesets.GeneSets:
    return genesets.load(ENRICHR, "KEA_2015")


def models(args) -> dict[str, Any]:
    found = {"GSFM": opened(args.gsfm)}
    if args.without_interactions:
        found["GSFM, no interactions"] = opened(args.without_interactions)
    return found


def said(args, *names: str) -> dict[str, Any]:
    """Return what a result says of the gene set models in it."""
    from txfm_lite.pretrained import identity

    return {"trained": {name: identity(model) for name, model in models(args).items() if name in names}}


@functools.cache
def opened(name: str) -> Any:
    from txfm_lite.gsfm import GSFM

    return GSFM.from_pretrained(name)


def txfm_vectors() -> dict[str, Any]:
    from txfm_lite.embed import gene_vectors

    return gene_vectors("txfm-xs")


def vectors(args) -> dict[str, Any]:
    """Name -> table of gene vectors: TxFM's two, and GSFM's two of every model."""
    from txfm_lite import completion

    theirs = txfm_vectors()
    found = {f"TxFM {kind}": theirs[kind] for kind in ("codebook", "decoder")}
    for name, model in models(args).items():
        for kind in ("emb", "enc"):
            found[f"{name} {kind}"] = completion.gene_vectors(model, kind)
    return found


def kinases(args) -> Iterator[tuple[str, Rows, dict]]:
    library = kinase_terms()
    universe = benchmark.common_universe({"KEA": library}, genesets.vocabulary(training()))
    asked = set_splits.splits(library)
    made = {
        "popularity within library": lambda s: set_rivals.popularity_within(library, universe),
        "popularity": lambda s: set_rivals.popularity(s, universe),
        "co-occurrence": lambda s: set_rivals.cooccurrence(s, universe),
        "SVD": lambda s: set_rivals.svd(s, universe, seed=args.seed),
        "kNN": lambda s: set_rivals.neighbours(s, universe),
        "EASE": lambda s: set_rivals.ease(s, universe),
        "TxFM codebook": lambda s: set_rivals.cosine(txfm_vectors()["codebook"], universe),
    }
    fitted = ("popularity", "co-occurrence", "SVD", "kNN", "EASE")
    jobs = {name: (make, training) for name, make in made.items()}
    jobs |= {f"{name}, no interactions": (made[name], without_interactions) for name in fitted}
    for name in set(models(args)) - {"GSFM"}:  # which may have read KEA_2015, as the shipped one has
        jobs[name] = (lambda s, name=name: set_rivals.from_model(models(args)[name], universe), training)
    for name, (make, train) in jobs.items():
        if not stored(args, "kinases", name):
            rows, _ = benchmark.evaluate(make(train()), asked, universe)
            rows = [
                {**full, "low": row["low"], "high": row["high"]}
                for row, full in zip(rows, scores.complete(rows, "KEA_2015", name, args.seed), strict=True)
            ]
            facts = {"genes_in_universe": len(universe), "splits": asked.fingerprint}
            yield name, rows, facts | said(args, name)


def pairs(args) -> Iterator[tuple[str, Rows, dict]]:
    known = relations.known_pairs(["StringDB"])["StringDB"]
    name = " and ".join(models(args))
    if not stored(args, "pairs", name):
        rows = interactions.evaluate(vectors(args), known, seed=args.seed)
        full = [scores.complete([row], "StringDB", row["vectors"], args.seed)[0] for row in rows]
        yield name, full, {"most_pairs": interactions.MOST} | said(args, *models(args))


def complementarity(args) -> Iterator[tuple[str, Rows, dict]]:
    known = relations.known_pairs()
    if not stored(args, "complements", "relations"):
        rows: Rows = []
        sources = {"TxFM": txfm_vectors()["codebook"], "GSFM": vectors(args)["GSFM emb"]}
        found = complements.joined_vectors(sources, seed=args.seed)
        for name, table in found.items():
            here = relations.evaluate(table, known, dimensions=(), ordered=True, seed=args.seed)
            rows += scores.complete(here, "relations", name, args.seed)
        table = complements.shared_recall(found["TxFM"], found["GSFM"], known, args.seed)
        for database, of in table.iterrows():
            for column in ("both", "first", "second", "neither", "either"):
                null = of["either, null"] if column == "either" else float("nan")
                row = scores.partial(
                    f"recalled by {column}", of[column], variant=database, null=null, n=int(of["n"])
                )
                rows += scores.complete([row], "relations", "TxFM (first) and GSFM (second)", args.seed)
        yield "relations", rows, {"dimension": relations.DIMENSION} | said(args, "GSFM")
    libraries = genesets.benchmark()
    universe = benchmark.common_universe(libraries, genesets.vocabulary(training()))
    model, tables = set_rivals.from_model(models(args)["GSFM"], universe), vectors(args)
    codebook = set_rivals.cosine(tables["TxFM codebook"], universe)
    predictors = {
        "GSFM": model,
        "TxFM codebook": codebook,
        "GSFM emb": set_rivals.cosine(tables["GSFM emb"], universe),
        "GSFM + TxFM codebook": complements.mean_of_ranks([model, codebook]),
    }
    for library, sets in libraries.items():
        asked = set_splits.splits(sets, n=2)  # two of the five: means of ranks take their time
        for name, predict in predictors.items():
            run = f"{library} {name}"
            if not stored(args, "complements", run):
                rows, _ = benchmark.evaluate(predict, asked, universe)
                facts = {"replicates": 2} | (said(args, "GSFM") if "GSFM" in name else {})
                yield run, scores.complete(rows, library, name, args.seed), facts


def alarms(args) -> Iterator[tuple[str, Rows, dict]]:
    from txfm_lite.evaluate import augmentation

    library = genesets.benchmark()["KEGG_2021_Human"]
    universe = np.asarray(models(args)["GSFM"].genes[2:], dtype=str)
    universe = np.intersect1d(
        universe, np.unique(np.concatenate([x.genes for x in genesets.benchmark().values()]))
    )
    predict = set_rivals.from_model(models(args)["GSFM"], universe)
    popularity = set_rivals.counted(training(), universe)
    for name, weights in (("random lists", None), ("random lists of popular genes", popularity)):
        if not stored(args, "alarms", name):
            rows = augmentation.false_alarms(
                library,
                predict,
                universe,
                n_lists=args.n_lists,
                n_draws=500,
                popularity=weights,
                seed=args.seed,
            )
            facts = {"k": 50, "draws": 500, "lists": args.n_lists} | said(args, "GSFM")
            yield name, scores.complete(rows, "KEGG_2021_Human", name, args.seed), facts
    for members in (2, 3, 5):
        name = f"{members} of 20"
        if not stored(args, "alarms", name):
            rows = augmentation.term_recovery(
                library, predict, universe, n_members=members, n_random=20 - members,
                n_lists=2 * args.n_lists, n_draws=2000, seed=args.seed,
            )  # fmt: skip
            facts = {"k": 50, "draws": 2000, "lists": 2 * args.n_lists} | said(args, "GSFM")
            yield name, scores.complete(rows, "KEGG_2021_Human", name, args.seed), facts


def signature_sets() -> genesets.GeneSets:
    from txfm_lite.evaluate import signatures

    sides = [
        [genesets.load(ENRICHR, f"{name}_{side}", weights=True) for side in ("up", "down")] for name in SIGNED
    ]
    return genesets.concatenate([signatures.signed_sets(*two) for two in sides])


def signed(args) -> Iterator[tuple[str, Rows, dict]]:
    from txfm_lite.evaluate import signatures

    name = f"seed {args.seed}"
    if not stored(args, "signatures", name):
        sets = signature_sets()
        rows = signatures.compare_signs(sets, args.seed)
        yield name, scores.complete(rows, "signatures", "GSFM", args.seed), {"signatures": len(sets)}


def noncoding(args) -> Iterator[tuple[str, Rows, dict]]:
    from txfm_lite.evaluate import signatures

    name = f"seed {args.seed}"
    if not stored(args, "noncoding", name):
        sets = training()
        sets = sets[np.random.default_rng(args.seed).permutation(len(sets))[:SOME]]
        kept = genesets.vocabulary(sets)
        kinds = genesets.biotypes(kept)
        coding = kinds == "protein-coding"
        kept, coding = kept[coding | np.isin(kinds, NONCODING)], coding[coding | np.isin(kinds, NONCODING)]
        sets = sets.over(kept)
        rows = signatures.compare_vocabularies(genesets.of_size(sets, 11, 999), coding, args.seed)
        facts = {"sets": len(sets), "coding": int(coding.sum()), "non_coding": int((~coding).sum())}
        yield name, scores.complete(rows, "training sets", "GSFM", args.seed), facts


PARTS = {
    "kinases": kinases, "pairs": pairs, "complements": complementarity, "alarms": alarms,
    "signatures": signed, "noncoding": noncoding,
}  # fmt: skip


def stored(args, part: str, name: str) -> bool:
    return results.stored(path(args, part, name), args.folder)


def path(args, part: str, name: str) -> str:
    return suite.path("genesets-uses", part, name, args.seed)


def train_without_interactions(folder: Path, epochs: int, seed: int) -> None:
    """Train on what :func:`without_interactions` leaves, as was best on held-out sets."""
    from txfm_lite.gsfm_training import GSFMTrainConfig, train_on

    sets, vocabulary = without_interactions(), genesets.vocabulary(training())
    shape, schedule = set_studies.divided(set_studies.CHOSEN)
    schedule = GSFMTrainConfig(epochs=epochs, seed=seed, **schedule)
    run = train_on(sets, vocabulary, schedule, folder, shape=shape)
    print(f"{len(sets):,} sets; the model lies in {run.path / 'model'}")


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--gsfm", default="gsfm-xs", help="the model: its name, or a folder")
    parser.add_argument("--without-interactions", help="folder of a model that saw no list of interactions")
    parser.add_argument(
        "--train-without-interactions", type=Path, help="only train that model, into a folder"
    )
    parser.add_argument("--epochs", type=int, default=20, help="of that training")
    parser.add_argument("--n-lists", type=int, default=30, help="random lists of each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="of the results; by default the repository's")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.train_without_interactions:
        train_without_interactions(args.train_without_interactions, args.epochs, args.seed)
        return
    for part in args.parts:
        start = time.monotonic()
        for name, rows, facts in PARTS[part](args):
            facts["minutes"] = round((time.monotonic() - start) / 60, 2)
            results.write(path(args, part, name), rows, results.provenance(**facts), args.folder)
            log.info("%s, %s: %d rows", part, name, len(rows))
            start = time.monotonic()


if __name__ == "__main__":
    main()
