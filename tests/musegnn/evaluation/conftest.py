"""Small tasks made from keys and edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix

from musegnn.evaluation.task import DatasetTask, HeldOutPairs


def csr_of(n, pairs):
    """Return the symmetric CSR arrays of unordered pairs."""
    a = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    rows, cols = np.concatenate([a[:, 0], a[:, 1]]), np.concatenate([a[:, 1], a[:, 0]])
    matrix = coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n)).tocsr()
    matrix.sort_indices()
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)


def build_task(name, keys, *, hidden=(), edges=(), held=(), sign=None, others=(), **labels):
    keys = np.array(list(keys), dtype=np.str_)
    indptr, indices = csr_of(len(keys), edges)
    held = np.array(held, dtype=np.int64).reshape(-1, 2)
    others = np.array(others, dtype=np.int64).reshape(-1, 2)
    return DatasetTask(
        name=name,
        modality=labels.get("modality", "scrna"),
        tissue=labels.get("tissue", "lung"),
        species=labels.get("species", "human"),
        gene_key=keys,
        held_out_gene=np.isin(keys, list(hidden)),
        indptr=indptr,
        indices=indices,
        pairs=HeldOutPairs(
            rows=held[:, 0],
            cols=held[:, 1],
            sign=np.ones(len(held), np.int8) if sign is None else np.asarray(sign, np.int8),
            other_rows=others[:, 0],
            other_cols=others[:, 1],
        ),
    )


@pytest.fixture(scope="session")
def make_task():
    return build_task


@pytest.fixture(scope="session")
def make_atlas():
    """Return a function that plants one vector per gene, rotates it per dataset, and draws a graph from the cosines."""

    def make(seed=0, *, n=80, dim=8, noise=0.1, n_datasets=3, pool=120):
        random = np.random.default_rng(seed)
        truth = random.normal(size=(pool, dim))
        hidden = {f"g{i}" for i in range(0, pool, 4)}
        labels = [{}, {"tissue": "brain"}, {"modality": "scatac"}, {"species": "mouse"}]
        tasks, vectors = [], {}
        for t in range(n_datasets):
            genes = np.sort(random.permutation(pool)[:n])
            x = truth[genes] + noise * random.normal(size=(n, dim))
            unit = x / np.linalg.norm(x, axis=1, keepdims=True)
            cosine = unit @ unit.T
            upper = np.argwhere(np.triu(np.abs(cosine) > 0.45, k=1))
            order = random.permutation(len(upper))
            held, kept = upper[order[: len(upper) // 10]], upper[order[len(upper) // 10 :]]
            apart = np.argwhere(np.triu(np.abs(cosine) <= 0.45, k=1))
            others = apart[random.permutation(len(apart))[: len(held)]]
            name = f"d{t}"
            tasks.append(
                build_task(
                    name,
                    [f"g{i}" for i in genes],
                    hidden=hidden,
                    edges=kept,
                    held=held,
                    sign=np.sign(cosine[held[:, 0], held[:, 1]]),
                    others=others,
                    **labels[t],
                )
            )
            vectors[name] = x
        return tasks, vectors

    return make
