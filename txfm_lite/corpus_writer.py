"""Write a corpus: append datasets one after the other, then put the finished directory in place at once.

Nothing appears under the final name before everything is written and hashed: a build that is killed halfway
leaves a directory called ``<name>.partial-…``, which :meth:`txfm_lite.corpus.Corpus.open` refuses.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .corpus import COLUMNS, FORMAT, OVERFLOW, SPLITS, VERSION, Corpus, file_hash, fingerprint

if TYPE_CHECKING:
    import anndata
    import pandas

ROWS_AT_ONCE = 4096
LARGEST = 2**32 - 1  # the largest count that a reader hands out exactly (uint32)


class CorpusWriter:
    """Append datasets to a new corpus; nothing appears at `path` before :meth:`finish`.

    Parameters
    ----------
    path : path
        The directory to be.
    genes : sequence of str
        The vocabulary, in the order of its ids.
    rules : dict, optional
        How the corpus was curated: stored, and part of the fingerprint.
    overwrite : bool
        Replace a corpus that lies at `path` already. Anything else that lies there is an error.

    Raises
    ------
    FileExistsError
        If something lies at `path`.
    ValueError
        If the vocabulary names a gene twice.

    Examples
    --------
    >>> with CorpusWriter("corpus", genes) as writer:  # doctest: +SKIP
    ...     writer.add(adata, "my_study", modality="single-cell RNA")
    ...     corpus = writer.finish()
    """

    def __init__(self, path: str | Path, genes, *, rules: dict[str, Any] | None = None, overwrite=False):
        self.path, self.rules = Path(path), dict(rules or {})
        self.genes = np.asarray(genes, dtype=np.str_)
        self._id_of = {gene: i for i, gene in enumerate(self.genes.tolist())}
        if len(self._id_of) != len(self.genes):
            raise ValueError("the vocabulary names a gene twice")
        if self.path.exists() and not (overwrite and (self.path / "corpus.json").is_file()):
            mend = "it is no corpus; choose another path" if overwrite else "overwrite=True replaces a corpus"
            raise FileExistsError(f"{self.path} exists: {mend}")
        self.index_dtype = np.dtype(np.uint16 if len(self.genes) <= 2**16 else np.uint32)
        self.datasets: list[dict[str, Any]] = []
        self.nnz = 0
        self._measured: list[np.ndarray] = []
        self._lengths = [np.empty(0, dtype=np.int64)]
        self._overflow = [np.empty((0, 2), dtype=np.int64)]
        self._columns = {column: [np.empty(0, dtype)] for column, dtype in COLUMNS.items()}
        self._codes: dict[str, dict[str, int]] = {"batch": {}, "cell_type": {}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.partial = Path(tempfile.mkdtemp(prefix=f"{self.path.name}.partial-", dir=self.path.parent))
        self._files = [open(self.partial / file, "wb") for file in ("indices.bin", "counts.bin")]  # noqa: SIM115

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()
        if self.partial.exists():  # not finished: leave nothing behind
            shutil.rmtree(self.partial)

    def add(self, adata: anndata.AnnData, name: str, **facts: Any) -> None:
        """Append an AnnData as one dataset.

        Parameters
        ----------
        adata : AnnData
            Counts in X, gene names in ``var_names``. All its genes count as measured; those outside the
            vocabulary are left out. ``obs`` may hold ``batch``, ``cell_type``, ``split`` (default: "train")
            and ``library_size`` (default: the row sums of X).
        name : str
        **facts
            Stored with the dataset in ``corpus.json``; ``library_share`` means something (see :meth:`begin`).

        Raises
        ------
        ValueError
            If a gene is listed twice, or as in :meth:`append`.
        """
        from scipy.sparse import csr_matrix

        ids = np.array([self._id_of.get(gene, -1) for gene in adata.var_names], dtype=np.int64)
        inside = np.flatnonzero(ids >= 0)
        ids = ids[inside]
        measured = np.zeros(len(self.genes), dtype=bool)
        measured[ids] = True
        if measured.sum() != len(ids):
            raise ValueError(f"{name}: a gene is listed twice in var_names; sum its columns first")
        self.begin(name, measured, **facts)
        obs = adata.obs
        # "1" is a batch of many studies: the dataset's name makes it one batch of the corpus
        batch = [None if b is None else f"{name}:{b}" for b in _labels(obs, "batch")]
        cell_type = _labels(obs, "cell_type")
        split = _labels(obs, "split") if "split" in obs else ["train"] * len(obs)
        names = np.char.encode(obs.index.to_numpy(dtype=np.str_), "utf-8")
        for a in range(0, len(obs), ROWS_AT_ONCE):
            rows = slice(a, a + ROWS_AT_ONCE)
            whole = csr_matrix(adata.X[rows])
            part = whole[:, inside]
            part.eliminate_zeros()
            self.append(
                part.indptr,
                ids[part.indices],
                part.data,
                library_size=obs["library_size"][rows] if "library_size" in obs else whole.sum(axis=1).A1,
                name=names[rows],
                split=split[rows],
                batch=batch[rows],
                cell_type=cell_type[rows],
            )

    def begin(self, name: str, measured: np.ndarray, *, library_share: float = 1.0, **facts: Any) -> None:
        """Start a dataset; the rows appended next belong to it.

        Parameters
        ----------
        name : str
        measured : ndarray of bool, shape (n_genes,)
        library_share : float
            Share of a whole transcriptome's counts that falls on the measured genes: 1 but for panels.
            Library sizes are divided by it.
        **facts
            Anything else that ``corpus.json`` should say about the dataset.
        """
        if name in [d["name"] for d in self.datasets]:
            raise ValueError(f"dataset {name!r} was added before")
        self._measured.append(np.asarray(measured, dtype=bool))
        sizes = {"n_samples": 0, "nnz": 0, "n_measured": int(np.sum(measured))}
        self.datasets.append({**facts, "name": name, "library_share": float(library_share), **sizes})

    def append(self, indptr, indices, counts, *, library_size, name, split, batch, cell_type) -> None:
        """Append rows to the dataset begun last.

        Parameters
        ----------
        indptr, indices, counts : ndarray
            CSR triple of b rows over the vocabulary.
        library_size : sequence of float, shape (b,)
            As measured; the dataset's ``library_share`` is applied here.
        name, split, batch, cell_type : sequence, shape (b,)
            `name` is bytes; `split` is "train" or "validation"; an unknown batch or cell type is None.

        Raises
        ------
        ValueError
            If a count is negative, not finite, not an integer or above 4,294,967,295, or lies in a gene
            that the dataset does not measure, or a library size is not positive.
        """
        dataset, counts = self.datasets[-1], np.asarray(counts)
        library_size = np.asarray(library_size, dtype=np.float64)
        if not ((counts >= 0) & (counts <= LARGEST) & (counts == np.rint(counts))).all():
            raise ValueError(f"{dataset['name']}: a corpus holds counts: integers from 0 to {LARGEST:,}")
        if not self._measured[-1][indices].all():
            raise ValueError(f"{dataset['name']}: counts in a gene that is not marked as measured")
        if not (library_size > 0).all():
            raise ValueError(f"{dataset['name']}: a sample without counts; leave it out")
        large = np.flatnonzero(counts >= OVERFLOW)
        self._overflow.append(np.stack([self.nnz + large, counts[large].astype(np.int64)], axis=1))
        self._files[0].write(np.ascontiguousarray(indices, dtype=self.index_dtype))
        self._files[1].write(np.minimum(counts, OVERFLOW).astype(np.uint16))
        lengths = np.diff(indptr)
        self._lengths.append(lengths)
        self.nnz += len(counts)
        dataset["n_samples"] += len(lengths)
        dataset["nnz"] += len(counts)
        columns = {
            "dataset": np.full(len(lengths), len(self.datasets) - 1),
            "batch": self._encode("batch", batch),
            "split": [SPLITS.index(s) for s in split],
            "cell_type": self._encode("cell_type", cell_type),
            "library_size": library_size / dataset["library_share"],
            "name": name,
        }
        for column, values in columns.items():
            self._columns[column].append(np.asarray(values, dtype=COLUMNS[column]))

    def _encode(self, column: str, labels) -> list[int]:
        codes = self._codes[column]
        return [-1 if label is None else codes.setdefault(label, len(codes)) for label in labels]

    def finish(self, **facts: Any) -> Corpus:
        """Write the tables, take the fingerprint, put the directory in place and open it.

        Keyword arguments are stored in ``corpus.json`` without becoming part of the fingerprint.
        """
        for file in self._files:
            file.close()
        lengths = np.concatenate(self._lengths)
        arrays = {column: np.concatenate(values) for column, values in self._columns.items()}
        arrays["indptr"] = np.concatenate([[0], np.cumsum(lengths)])
        arrays["measured"] = np.array(self._measured, dtype=bool).reshape(-1, len(self.genes))
        arrays["overflow"] = np.concatenate(self._overflow)
        for array, values in arrays.items():
            np.save(self.partial / f"{array}.npy", values)
        (self.partial / "genes.txt").write_text("".join(f"{gene}\n" for gene in self.genes.tolist()))
        info = {
            "format": FORMAT,
            "version": VERSION,
            "n_samples": len(lengths),
            "n_genes": len(self.genes),
            "nnz": self.nnz,
            "index_dtype": self.index_dtype.name,
            "datasets": self.datasets,
            "categories": {column: list(codes) for column, codes in self._codes.items()},
            "rules": self.rules,
            "files": {file.name: file_hash(file) for file in sorted(self.partial.iterdir())},
            **facts,
        }
        info["fingerprint"] = fingerprint(info)
        (self.partial / "corpus.json").write_text(json.dumps(info, indent=1))
        os.chmod(self.partial, 0o755)  # mkdtemp made it private
        if self.path.exists():  # overwrite=True: step aside, then in
            old = tempfile.mkdtemp(prefix=f"{self.path.name}.old-", dir=self.path.parent)
            os.replace(self.path, old)
            os.replace(self.partial, self.path)
            shutil.rmtree(old)
        else:
            os.replace(self.partial, self.path)
        return Corpus.open(self.path)


def write_subset(
    corpus: Corpus,
    path: str | Path,
    *,
    genes: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    overwrite: bool = False,
) -> Corpus:
    """Write a smaller corpus: some genes and/or some rows of `corpus`.

    ``library_size`` stays the total of the whole profile, so a normalised value is the same number in both.

    Parameters
    ----------
    corpus : Corpus
    path : path
    genes : array of str, optional
        Gene names, in the order wanted.
    rows : array of int, optional
        Row numbers; they keep their order. A dataset without a row left is left out.
    overwrite : bool
        Replace a corpus that lies at `path`.

    Raises
    ------
    ValueError
        If a gene is not in the vocabulary.
    """
    genes = corpus.genes if genes is None else np.asarray(genes, dtype=np.str_)
    rows = np.arange(corpus.n_samples) if rows is None else np.unique(rows)
    id_of = {gene: i for i, gene in enumerate(corpus.genes.tolist())}
    unknown = [gene for gene in genes.tolist() if gene not in id_of]
    if unknown:
        raise ValueError(f"{corpus.path}: {len(unknown)} genes are not in its vocabulary, as {unknown[0]!r}")
    old_ids = np.array([id_of[gene] for gene in genes.tolist()], dtype=np.int64)
    new_id = np.full(corpus.n_genes, -1, dtype=np.int64)
    new_id[old_ids] = np.arange(len(old_ids))
    rules = {**corpus.info["rules"], "subset_of": corpus.fingerprint}
    names = {column: np.array([*labels, None], dtype=object) for column, labels in corpus.categories.items()}
    with CorpusWriter(path, genes, rules=rules, overwrite=overwrite) as writer:
        for code, facts in enumerate(corpus.datasets):
            mine = rows[corpus.dataset[rows] == code]
            if not mine.size:
                continue
            writer.begin(**{**facts, "measured": corpus.measured[code, old_ids]})
            for a in range(0, len(mine), ROWS_AT_ONCE):
                some = mine[a : a + ROWS_AT_ONCE]
                indptr, indices, counts = corpus.read(some)
                ids = new_id[indices]
                writer.append(
                    np.concatenate([[0], np.cumsum(ids >= 0)])[indptr],
                    ids[ids >= 0],
                    counts[ids >= 0],
                    library_size=corpus.library_size[some] * facts["library_share"],
                    name=corpus.name[some],
                    split=[SPLITS[code] for code in corpus.split[some]],
                    batch=names["batch"][corpus.batch[some]],
                    cell_type=names["cell_type"][corpus.cell_type[some]],
                )
        return writer.finish(skipped=corpus.info.get("skipped", []))


def _labels(obs: pandas.DataFrame, column: str) -> list[str | None]:
    """Return a column as strings, None where it is missing."""
    if column not in obs:
        return [None] * len(obs)
    return [None if missing else str(v) for v, missing in zip(obs[column], obs[column].isna(), strict=True)]
