"""Completion of gene sets: which genes belong to a set as well, and how sure that is.

:func:`complete` gives a number for every gene and set; :func:`complete_genes` does it for one list that a
user types, and says what became of each name; :func:`annotate` asks of one gene which sets it belongs to.
Around them: vectors of genes and of sets, the spread over dropout or over several models, and what the model
thinks of a member that it is not shown. Probabilities calibrated to a library are in
:mod:`txfm_lite.calibration`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .genesets import GeneSets
from .gsfm import GSFM
from .gsfm_blocks import SPECIALS, UNK, Bags
from .gsfm_sets import SetTokens, tokenise_sets

if TYPE_CHECKING:
    import pandas as pd

    from .genes import Resolver

log = logging.getLogger(__name__)

HIDDEN = 0.2  # share of a set, in draws of a model that has no dropout
SURE = 1.645  # the z above which one in twenty of a normal distribution lies
FIRST = len(SPECIALS)
AT_ONCE = 2_000_000  # tokens that leave-one-out looks up at a time


@torch.no_grad()
def complete(model: GSFM, sets: GeneSets, batch_size: int = 256) -> np.ndarray:
    """Return the logit of membership of every gene in every set.

    Members that are shown are scored as well: for them it is a reconstruction, see :func:`leave_one_out`.

    Parameters
    ----------
    model : GSFM
        In evaluation mode; in training mode, units are dropped.
    sets : GeneSets
        Genes outside the vocabulary are ``<unk>``, as in training.
    batch_size : int
        Sets at a time; without influence.

    Returns
    -------
    ndarray, float32, shape (n, G)
        G genes: ``model.genes`` without the two special tokens. With two channels, the larger of up and down.

    Raises
    ------
    ValueError
        If the model has no vocabulary, or has two channels and the sets no weights.
    """
    tokens, device = _tokens(model, sets), next(model.parameters()).device
    out = np.empty((len(tokens), model.config.n_genes), dtype=np.float32)
    for rows in _parts(len(tokens), batch_size):
        logits = model(*tokens.bags(rows, device)).view(len(rows), model.config.channels, -1)
        out[rows] = logits.amax(1)[:, FIRST:].cpu().numpy()
    return out


@torch.no_grad()
def gene_vectors(model: GSFM, kind: str = "emb", batch_size: int = 1024) -> pd.DataFrame:
    """Return one vector per gene, from the set that holds nothing else.

    Parameters
    ----------
    model : GSFM
        In evaluation mode.
    kind : {"emb", "enc"}
        The encoder's output, or what the decoder's first layer makes of it (before ReLU).
    batch_size : int

    Returns
    -------
    DataFrame, float32, shape (G, d)
        Index: symbols.
    """
    import pandas as pd

    if kind not in ("emb", "enc"):
        raise ValueError(f"kind = {kind!r}: should be emb or enc")
    genes = _vocabulary(model)[FIRST:]
    device = next(model.parameters()).device
    out = []
    for rows in _parts(len(genes), batch_size):
        one = torch.arange(len(rows), device=device)
        vectors = model.encode(Bags(one + int(rows[0]) + FIRST, one))
        if kind == "enc":
            vectors = model.decoder.layers[0](model.latent(vectors))
        out.append(vectors.cpu().numpy())
    return pd.DataFrame(np.concatenate(out), index=genes)


@torch.no_grad()
def set_vectors(model: GSFM, sets: GeneSets, batch_size: int = 1024) -> np.ndarray:
    """Return one vector per set, the encoder's output: float32, shape (n, d)."""
    tokens, device = _tokens(model, sets), next(model.parameters()).device
    parts = [model.encode(tokens.bags(rows, device)) for rows in _parts(len(tokens), batch_size)]
    return torch.cat(parts).cpu().numpy()


@torch.no_grad()
def leave_one_out(model: GSFM, sets: GeneSets) -> np.ndarray:
    """Return the logit of each member of each set, from that set without the member.

    A member that is shown is likely to be given back. This says whether the others would have named it.

    Parameters
    ----------
    model : GSFM
        In evaluation mode.
    sets : GeneSets

    Returns
    -------
    ndarray, float32, shape (len(sets.indices),)
        In the order of ``sets.indices``; NaN for genes outside the vocabulary.
    """
    tokens, v = _tokens(model, sets), model.config.n_tokens
    device, last = next(model.parameters()).device, model.decoder.layers[-1]
    scored = np.empty(len(tokens.indices), dtype=np.float32)
    for rows in _shares(tokens.sizes.astype(np.int64) ** 2, AT_ONCE):
        lengths, indices, weights = tokens.take(rows)
        each = np.repeat(lengths, lengths)  # of every member: how many its set has
        row = np.repeat(np.arange(len(each)), each)
        begin = np.repeat(np.cumsum(lengths) - lengths, lengths)
        member = np.arange(len(row)) - np.repeat(np.cumsum(each) - each, each) + np.repeat(begin, each)
        others = member[member != row]
        offsets = torch.from_numpy(np.cumsum(each - 1) - (each - 1))
        shown = None if weights is None else torch.from_numpy(weights[others]).to(device)
        bags = Bags(torch.from_numpy(indices[others].astype(np.int64)).to(device), offsets.to(device), shown)
        hidden = model.penultimate(model.latent(model.encode(bags)))
        gene = torch.from_numpy(indices.astype(np.int64) % v).to(device)
        logits = [
            (hidden * last.weight[gene + v * c]).sum(1) + last.bias[gene + v * c]
            for c in range(model.config.channels)
        ]
        where = slice(tokens.indptr[rows[0]], tokens.indptr[rows[-1] + 1])
        scored[where] = torch.stack(logits).amax(0).float().cpu().numpy()
    place = {gene: i for i, gene in enumerate(model.genes)}
    mine = np.array([place.get(g, UNK) for g in sets.genes], dtype=np.int64)[sets.indices]
    out = np.full(len(mine), np.nan, dtype=np.float32)
    order = np.lexsort([mine, np.repeat(np.arange(len(sets)), sets.sizes)])
    order = order[mine[order] >= FIRST]  # tokens are in this order, too, but for the channels
    theirs = np.lexsort([tokens.indices % v, np.repeat(np.arange(len(tokens)), tokens.sizes)])
    theirs = theirs[tokens.indices[theirs] % v >= FIRST]
    out[order] = scored[theirs]
    return out


@torch.no_grad()
def mc_dropout(
    model: GSFM, sets: GeneSets, n_draws: int = 30, seed: int = 0, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the logits over draws of dropout, each (n, G) float32.

    The draws follow from `seed` and `batch_size`.
    """
    if n_draws < 2:
        raise ValueError(f"n_draws = {n_draws}: a spread needs two at least")
    with _dropping(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        return _moments(complete(model, sets, batch_size) for _ in range(n_draws))


def hidden_parts(
    model: GSFM, sets: GeneSets, n_draws: int = 30, seed: int = 0, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the logits when a fifth of each set is hidden, (n, G) float32.

    Each draw hides other genes, each gene with the same chance, but never all of a set.
    """
    if n_draws < 2:
        raise ValueError(f"n_draws = {n_draws}: a spread needs two at least")
    rng, rows = np.random.default_rng(seed), np.repeat(np.arange(len(sets)), sets.sizes)

    def draw() -> np.ndarray:
        noise, most = rng.random(len(rows)), np.zeros(len(sets))
        np.maximum.at(most, rows, noise)
        return complete(model, sets.where((noise >= HIDDEN) | (noise == most[rows])), batch_size)

    return _moments(draw() for _ in range(n_draws))


def spread(model: GSFM, sets: GeneSets, n_draws: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the logits under the noise that the model was trained with.

    That is dropout (:func:`mc_dropout`), or, for a model without, hidden genes (:func:`hidden_parts`).
    """
    draws = mc_dropout if model.config.dropout else hidden_parts
    return draws(model, sets, n_draws, seed)


def ensemble(models: Sequence[GSFM], sets: GeneSets, batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the logits over models of one vocabulary, each (n, G) float32."""
    if len(models) < 2:
        raise ValueError(f"{len(models)} models: a spread needs two at least")
    if any(model.genes != models[0].genes for model in models):
        raise ValueError("the models of an ensemble should have the same vocabulary in the same order")
    return _moments(complete(model, sets, batch_size) for model in models)


def z_scores(logits: np.ndarray) -> np.ndarray:
    """Return how many standard deviations each gene is above the mean of all genes, set by set.

    Parameters
    ----------
    logits : ndarray, shape (n, G)

    Returns
    -------
    ndarray, float32, shape (n, G)
        0 throughout for a set whose genes are all alike.
    """
    mean = logits.mean(1, keepdims=True, dtype=np.float64)
    spread = logits.std(1, keepdims=True, dtype=np.float64)
    return ((logits - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)


def predicted(logits: np.ndarray) -> np.ndarray:
    """Return which genes are predicted members, as published: logit > 0 or z > 1.645. Bool, (n, G)."""
    return (logits > 0) | (z_scores(logits) > SURE)


def annotate(
    model: GSFM, gene: str, sets: GeneSets, n_draws: int = 0, seed: int = 0, batch_size: int = 256
) -> pd.DataFrame:
    """Ask of each set whether one gene belongs to it, with the gene taken out where it is a member.

    Parameters
    ----------
    model : GSFM
        In evaluation mode.
    gene : str
        A symbol of the vocabulary.
    sets : GeneSets
    n_draws, seed : int
        Draws for a spread (:func:`spread`), 0 for none.
    batch_size : int
        Sets at a time; draws depend on it.

    Returns
    -------
    DataFrame
        One row per set: ``term``; ``known``, a member; ``logit``, ``probability`` of membership; ``z`` over
        all genes for that set; with draws also ``sd``, on the scale of z.

    Raises
    ------
    ValueError
        If the gene is not in the vocabulary.
    """
    import pandas as pd
    from scipy.special import expit

    vocabulary = _vocabulary(model)[FIRST:]
    if gene not in vocabulary:
        raise ValueError(f"{gene!r} is not in the model's vocabulary; is it a symbol of today?")
    place, found = list(vocabulary).index(gene), []
    own = sets.genes[sets.indices] == gene
    known = np.bincount(np.repeat(np.arange(len(sets)), sets.sizes)[own], minlength=len(sets)) > 0
    asked = sets.where(~own)
    for rows in _parts(len(sets), batch_size):
        some = asked[rows]
        logits = complete(model, some)
        here = {"logit": logits[:, place], "z": z_scores(logits)[:, place]}
        if n_draws:
            _, sd = spread(model, some, n_draws, seed)
            here["sd"] = sd[:, place] / logits.std(1)
        found.append(pd.DataFrame(here))
    frame = pd.concat(found, ignore_index=True)
    frame.insert(0, "term", sets.names)
    frame.insert(1, "known", known)
    frame.insert(3, "probability", expit(frame["logit"]))
    return frame


def complete_genes(
    model: GSFM | Sequence[GSFM],
    genes: Iterable[str] | Mapping[str, float],
    n: int | None = 100,
    n_draws: int = 0,
    seed: int = 0,
    resolver: Resolver | None = None,
) -> pd.DataFrame:
    """Complete one list of genes.

    Parameters
    ----------
    model : GSFM, or several
        Several give their mean and their spread.
    genes : iterable of str, or mapping from str to float
        Symbols, aliases, Ensembl or Entrez ids; with weights, if the model was trained with some.
    n : int, optional
        So many rows, the best; None: all genes.
    n_draws : int
        Draws for a spread (:func:`spread`), 0 for none.
    seed : int
        Of the draws.
    resolver : Resolver, optional
        By default :func:`txfm_lite.genes.default_resolver`.

    Returns
    -------
    DataFrame
        One row per gene, by falling probability: ``gene``; ``probability`` of membership; ``z`` over all
        genes; ``rank`` among all genes, from 1; ``known``, in the list; ``unseen``, for a known gene the
        probability that the rest of the list gives it; with a spread also ``sd``, of the logit.
        ``attrs["renamed"]`` maps names to the symbols that were used, ``attrs["unknown"]`` lists the names
        that are ambiguous, nothing that is known, or outside the vocabulary. Both are logged, too.

    Raises
    ------
    ValueError
        If no name is in the vocabulary.
    """
    import pandas as pd
    from scipy.special import expit

    models = [model] if isinstance(model, GSFM) else list(model)
    vocabulary = _vocabulary(models[0])[FIRST:]
    used, renamed, unknown = _resolve(genes, vocabulary, resolver)
    values = {str(k).strip(): v for k, v in genes.items()} if isinstance(genes, Mapping) else None
    mine = sorted(dict.fromkeys(used.values()))
    if not mine:
        raise ValueError(f"none of these is a gene that the model knows: {', '.join(unknown[:10])}")
    weights = None
    if values is not None:  # of two names of one gene, the later counts
        weight = {symbol: values[name] for name, symbol in used.items()}
        weights = np.array([weight[g] for g in mine], dtype=np.float32)
    one = GeneSets(
        np.array(["own"], dtype=object), np.array(["own"], dtype=object), np.array(mine, dtype=str),
        np.array([0, len(mine)]), np.arange(len(mine), dtype=np.int32), weights,
    )  # fmt: skip
    sd = None
    if len(models) > 1:
        logits, sd = ensemble(models, one)
    elif n_draws:
        logits, (_, sd) = complete(models[0], one), spread(models[0], one, n_draws, seed)
    else:
        logits = complete(models[0], one)
    unseen = np.mean([leave_one_out(m, one) for m in models], axis=0)
    frame = pd.DataFrame({"gene": vocabulary, "probability": expit(logits[0]), "z": z_scores(logits)[0]})
    frame["rank"] = (-logits[0]).argsort(kind="stable").argsort() + 1
    frame["known"] = frame["gene"].isin(mine)
    frame["unseen"] = frame["gene"].map(dict(zip(mine, expit(unseen), strict=True)))
    if sd is not None:
        frame["sd"] = sd[0]
    frame = frame.sort_values("rank", ignore_index=True)
    frame = frame if n is None else frame.head(n)
    frame.attrs = {"renamed": renamed, "unknown": unknown}
    return frame


def _resolve(
    names: Iterable[str], vocabulary: Sequence[str], resolver: Resolver | None
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return the symbols of the names that the vocabulary knows, those that differ, and the other names."""
    known, names = set(vocabulary), [str(name).strip() for name in names]
    used = {name: name for name in names if name in known}
    if others := [name for name in dict.fromkeys(names) if name not in known]:
        if resolver is None:
            from .genes import default_resolver

            resolver = default_resolver()
        found = dict(zip(others, resolver.resolve(others, merge=True).frame["gene"], strict=True))
        used |= {name: gene for name, gene in found.items() if gene in known}
    used = {name: used[name] for name in names if name in used}  # in the order given
    renamed = {name: gene for name, gene in used.items() if name != gene}
    unknown = [name for name in dict.fromkeys(names) if name not in used]
    for name, gene in renamed.items():
        log.info("%s is read as %s", name, gene)
    if unknown:
        log.warning("%d of %d names are left out: %s", len(unknown), len(names), ", ".join(unknown[:20]))
    return used, renamed, unknown


@contextmanager
def _dropping(model: GSFM) -> Iterator[None]:
    """Let dropout, and nothing else, be as in training."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.train(was)


def _moments(draws: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (n - 1) over draws, holding no more than one of them."""
    mean, square, n = 0.0, 0.0, 0
    for n, x in enumerate(draws, start=1):  # Welford's way: no difference of large sums
        step = x - mean
        mean = mean + step / n
        square = square + step * (x - mean)
    return mean, np.sqrt(square / (n - 1))


def _vocabulary(model: GSFM) -> list[str]:
    if model.genes is None:
        raise ValueError("this model has no vocabulary, so nobody knows which gene is which")
    return model.genes


def _tokens(model: GSFM, sets: GeneSets) -> SetTokens:
    return tokenise_sets(sets, _vocabulary(model), model.config.channels)


def _parts(n: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


def _shares(costs: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Divide rows, in order, into parts that cost no more than `most`, or consist of one row."""
    start, total = 0, 0
    for i, cost in enumerate(costs):
        if i > start and total + cost > most:
            yield np.arange(start, i)
            start, total = i, 0
        total += cost
    if start < len(costs):
        yield np.arange(start, len(costs))
