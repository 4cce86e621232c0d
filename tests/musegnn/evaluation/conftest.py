"""Small graphs made from keys and edges."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.graphs import held_out_pairs, plain_graph


def build_graph(name, keys, *, hidden=(), edges=(), held=(), sign=None, others=(), **labels):
    keys = list(keys)
    return plain_graph(
        name,
        keys,
        trainable=~np.isin(keys, list(hidden)),
        edges=edges,
        held_out=held_out_pairs(held, others, sign),
        **{"tissue": "lung"} | labels,
    )


@pytest.fixture(scope="session")
def make_graph():
    return build_graph


@pytest.fixture(scope="session")
def make_atlas():
    """Return a function that plants one vector per gene, rotates it per dataset, and draws a graph from the cosines."""

    def make(seed=0, *, n=80, dim=8, noise=0.1, n_datasets=3, pool=120):
        random = np.random.default_rng(seed)
        truth = random.normal(size=(pool, dim))
        hidden = {f"g{i}" for i in range(0, pool, 4)}
        labels = [{}, {"tissue": "brain"}, {"modality": "scatac"}, {"species": "mouse"}]
        graphs, vectors = [], {}
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
            graphs.append(
                build_graph(
                    name,
                    [f"g{i}" for i in genes],
                    hidden=hidden,
                    edges=kept,
                    held=held,
                    sign=np.sign(cosine[held[:, 0], held[:, 1]]),
                    others=others,
                    **labels[t % len(labels)],
                )
            )
            vectors[name] = x
        return graphs, vectors

    return make
