"""A made-up atlas: genes with a latent direction, seen with noise in several datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from musegnn.random import stream

DATASETS = [
    ("lung_rna", "scrna", "lung", "human"),
    ("brain_visium", "spatial", "brain", "human"),
    ("brain_atac", "scatac", "brain", "mouse"),
]
STRANGE = "<script>alert(1)</script>"


def make_embeddings(n_genes=60, n_shared=40, dim=8, seed=0, strange=True):
    """Return one row per dataset x gene: the first `n_shared` genes are in all datasets, one has a hostile name."""
    rng = stream(seed, "test embeddings")
    latent = rng.normal(size=(n_genes * len(DATASETS), dim))
    rows, vectors = [], []
    for d, (dataset, modality, tissue, species) in enumerate(DATASETS):
        own = [*range(n_shared), *range(n_shared + d * n_genes, (d + 1) * n_genes)]
        for gene in own:
            name = STRANGE if strange and gene == 7 else f"GENE{gene}"
            shown = name.capitalize() if species == "mouse" and name != STRANGE else name
            rows.append((shown, f"ENSG{gene:011d}", name.upper(), dataset, modality, tissue, species, len(rows) % 40))
            vectors.append(latent[gene % len(latent)] + 0.3 * rng.normal(size=dim))
    names = ["gene", "gene_id", "gene_key", "dataset", "modality", "tissue", "species", "degree"]
    obs = pd.DataFrame(rows, columns=names)
    obs.index = [f"{row.dataset}/{row.gene}" for row in obs.itertuples()]
    for name in ("dataset", "modality", "tissue", "species"):
        obs[name] = obs[name].astype("category")
    var = pd.DataFrame(index=[f"z{k}" for k in range(dim)])
    return AnnData(X=np.asarray(vectors, dtype=np.float32), obs=obs, var=var, uns={"musegnn": {"rounds": 3}})


def fake_annotation(adata):
    """Annotate without UMAP, which takes seconds to compile."""
    from musegnn.analysis.annotate import agreement
    from musegnn.vectors import unit_rows

    unit = unit_rows(adata.X, dtype=np.float32)
    adata.obsm["X_umap"] = np.ascontiguousarray(unit[:, :2])
    adata.obs["cluster"] = pd.Categorical([str(int(v > 0)) for v in unit[:, 0]])
    adata.uns["clusters"] = "the sign of one number"
    copies, mean = agreement(unit, adata.obs["gene_key"].to_numpy(dtype=object))
    adata.obs["n_datasets"], adata.obs["agreement"] = copies, mean
    return adata


@pytest.fixture
def adata():
    return make_embeddings()


@pytest.fixture
def annotated():
    return fake_annotation(make_embeddings())


def make_pairs(adata, seed=0):
    """Return random pairs of each dataset; GENE3 goes with GENE4 in lung_rna alone, and with GENE5 in brain_visium."""
    from musegnn.data_store.records import PairTable

    pairs = {}
    for n, (dataset, *_) in enumerate(DATASETS):
        names = adata.obs.loc[(adata.obs["dataset"] == dataset).to_numpy(), "gene_key"].tolist()
        z = stream(seed, "test pairs", n).normal(size=(len(names), len(names)))
        z = np.round(np.triu(z, 1) * 2, 2)
        if "GENE3" in names:
            a, *others = (names.index(name) for name in ("GENE3", "GENE4", "GENE5"))
            for b, where in zip(others, ("lung_rna", "brain_visium"), strict=True):
                z[min(a, b), max(a, b)] = 12.5 if dataset == where else 0.5
        z = z + z.T
        stored = np.abs(z) >= 2.0
        pairs[dataset] = PairTable(
            indptr=np.concatenate([[0], np.cumsum(stored.sum(axis=1))]), indices=np.nonzero(stored)[1].astype(np.int32),
            z=z[stored].astype(np.float32), estimate=(z[stored] / 50).astype(np.float32), n_tests=len(names),
            z_store=2.0, histogram=np.zeros(801, np.int64),
        )  # fmt: skip
    return pairs


SETS = {
    "HALLMARK_FIRST_TWENTY": [f"GENE{g}" for g in range(20)],
    "cell thing (GO:0000001)": [f"GENE{g}" for g in range(0, 40, 3)],
    "HALLMARK_TOO_SMALL": ["GENE1", "NOSUCHGENE"],
}


@pytest.fixture
def gene_sets():
    return SETS


@pytest.fixture
def make_atlas():
    return lambda **sizes: fake_annotation(make_embeddings(**sizes))


@pytest.fixture
def history():
    return [
        {
            "kind": "losses",
            "round": r,
            "dataset": d,
            "partner": "x",
            "loss": 2.0 / r + k,
            "contrast": 0.1 * r,
            "n_shared": 7,
        }
        for r in range(1, 6)
        for k, (d, *_) in enumerate(DATASETS)
    ]


@pytest.fixture
def graphs():
    return [
        {
            "dataset": d, "modality": m, "tissue": t, "species": s, "n_cells": 1000 + k, "n_genes": 60, "n_edges": 400,
            "density": 0.2, "negative_share": 0.3, "mean_degree": 13.3, "isolated": k, "cutoff": 2.8,
            "report": {"negative_variance": 4, "genes_kept": 70, "genes_selected": 60,
                       "cells_dropped": {"no_counts": 3}, "genes_dropped": {"too_few_cells": 9},
                       "warnings": ["W101: few cells <b>here</b>"] if k else []},
        }
        for k, (d, m, t, s) in enumerate(DATASETS)
    ]  # fmt: skip


@pytest.fixture
def report_data(annotated, evaluation, history, graphs):
    from musegnn.analysis.report import ReportData

    annotated.obs["certainty"] = np.linspace(0.2, 1.0, annotated.n_obs).astype(np.float32)
    return ReportData(
        adata=annotated, evaluation=evaluation, history=history, graphs=graphs, config="seed: 0\n", title="A <b> test",
        pairs=make_pairs(annotated), sets=SETS,
    )  # fmt: skip


@pytest.fixture(scope="session")
def evaluation():
    """Score the made-up vectors with the real evaluation, on made-up graphs."""
    from benchmarks.graphs import held_out_pairs, plain_graph
    from musegnn.evaluation.evaluate import _plain, evaluate, vector_candidate
    from musegnn.evaluation.gene_sets import function_document, transfer_scores
    from musegnn.evaluation.modules import module_document
    from musegnn.evaluation.seeds import summarize_seeds

    adata = make_embeddings()
    graphs, vectors, noise = [], {}, {}
    for k, (name, modality, tissue, species) in enumerate(DATASETS):
        part = adata[(adata.obs["dataset"] == name).to_numpy()]
        keys = part.obs["gene_key"].to_numpy(dtype=str)
        n = len(keys)
        held, ring = np.arange(0, n, 4), np.arange(n)
        far, farther = (np.stack([held, (held + k) % n], axis=1) for k in (2, 3))
        graphs.append(plain_graph(
            name, keys, trainable=~np.isin(keys, [f"GENE{g}" for g in range(0, 40, 3)]),
            edges=np.stack([ring, (ring + 1) % n], axis=1),
            held_out=held_out_pairs(far, farther, np.where(held % 8, 1, -1)),
            modality=modality, tissue=tissue, species=species,
        ))  # fmt: skip
        vectors[name] = np.asarray(part.X, dtype=np.float64)
        noise[name] = stream(k, "noise").normal(size=(n, 8))
    spaces = {"trained": vectors, "untrained": noise}
    candidates = {name: vector_candidate(f"about {name}", space) for name, space in spaces.items()}
    document = evaluate(graphs, candidates, seed=0)
    modules = {name: {f"{name} 0": [f"GENE{g}" for g in range(0, 40, 3)]} for name, *_ in DATASETS}
    sets = {"set": [f"GENE{g}" for g in range(0, 40, 3)]}
    document["modules"] = _plain(module_document(graphs, spaces, modules, seed=0))
    document["function"] = _plain(function_document(graphs, spaces, sets, subject="trained", seed=0))
    transfer = function_document(graphs, spaces, sets, subject="trained", seed=0, score=transfer_scores)
    for name, scores in transfer["models"].items():
        scores["within"] = document["function"]["models"][name]["auroc"]
    document["transfer"] = _plain(transfer)
    document["seeds"] = _plain(summarize_seeds([document, evaluate(graphs, candidates, seed=1)], [0, 1]))
    document["seeds"]["stability"] = {"trained": 0.5}
    return document


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from benchmarks.browser import Browser, find_browser

    program = find_browser()
    if program is None:
        pytest.skip("Chromium is not installed")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def contrasts():
    """Return a contrast of brain_visium with lung_rna in which GENE3 gains GENE5 and loses GENE4."""
    genes = [
        {"gene": f"GENE{g}", "change": 3.0 - 0.05 * n, "p_value": 1e-5 * 9**n, "q_value": min(1e-4 * 9**n, 1.0),
         "n_gained": int(n == 0), "n_lost": int(n == 0), "certainty_a": 0.9, "certainty_b": 0.3 if n else None}
        for n, g in enumerate([3, 1, 2, 4, 5, 6])
    ]  # fmt: skip
    pairs = [
        {"gene": "GENE3", "partner": "GENE5", "z_a": 0.5, "z_b": 12.5, "t": 8.0, "q_value": 1e-9, "kind": "gained"},
        {"gene": "GENE4", "partner": "GENE3", "z_a": 12.5, "z_b": 0.5, "t": -8.0, "q_value": 1e-9, "kind": "lost"},
        {"gene": "GENE1", "partner": "GENE2", "z_a": -4.0, "z_b": 4.0, "t": 6.0, "q_value": 1e-4, "kind": "turned"},
    ]
    document = {"a": ["lung_rna"], "b": ["brain_visium"], "changed": 3, "genes": genes, "pairs": pairs}
    return {"contrast-lung_rna-brain_visium": document}
