"""From the store to what training needs, all of it fixed before the first round.

Legend: N genes of a dataset.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from musegnn.coexpression.edges import EdgeSet, select_edges
from musegnn.errors import ConfigError
from musegnn.model.features import NodeFeatures, relations, vocabulary
from musegnn.model.model import AtlasModel
from musegnn.training.align import align_profiles
from musegnn.training.data import GraphData
from musegnn.training.genes import OrthologTable, gene_keys, read_orthologs
from musegnn.training.holdout import Holdout, holdout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig
    from musegnn.data_store.records import DatasetRecord


logger = logging.getLogger(__name__)


class Records(Protocol):
    """Where datasets come from: a :class:`musegnn.Store`, or anything else that reads them by name."""

    def read(self, name: str) -> DatasetRecord:
        """Read one dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The data of a training run.

    Attributes
    ----------
    records
        Datasets as stored, by name, in the order of the atlas.
    edges
        The whole graph of each dataset, held-out edges included.
    holdout
        What training must not see.
    graphs
        What training sees, in the order of the atlas.
    words
        The common vocabulary: gene keys, sorted.
    """

    records: Mapping[str, DatasetRecord]
    edges: Mapping[str, EdgeSet]
    holdout: Holdout
    graphs: Sequence[GraphData]
    words: Sequence[str]


def prepare(store: Records, config: AtlasConfig) -> Prepared:
    """Read the datasets of an atlas, apply the edge rule and the hold-outs.

    Parameters
    ----------
    store
        Holds every dataset of the atlas.
    config
        The configuration.

    Raises
    ------
    StoreError
        When a dataset is missing or damaged.
    GraphError
        When the edge rule cannot be applied or leaves a graph empty.
    ConfigError
        E252 when two datasets are the same data, E303 when the labels of the store and of the configuration differ,
        E304 when a species is missing in the ortholog table.
    """
    records = {d.name: store.read(d.name) for d in config.datasets}
    for d in config.datasets:
        record = records[d.name]
        there, here = (record.modality, record.tissue, record.species), (d.modality, d.tissue, d.species)
        if there != here:
            msg = f"expected modality, tissue and species {', '.join(here)}, the store has {', '.join(there)}"
            raise ConfigError(msg, code="E303", where=d.name, fix="correct the atlas file, or build the dataset again")
    _refuse_copies(records)
    orthologs = read_orthologs(config.orthologs) if config.orthologs is not None else None
    _check_species(config, orthologs)
    keys = {name: gene_keys(record.genes.gene, record.species, orthologs) for name, record in records.items()}
    edges = {name: select_edges(record.pairs, record.n_cells, config.edges) for name, record in records.items()}
    split = holdout(edges, keys, config.evaluation)
    graphs = [
        GraphData(
            name=name,
            modality=record.modality,
            tissue=record.tissue,
            species=record.species,
            keys=keys[name],
            trainable=split.trainable(keys[name]),
            edges=split.datasets[name].train,
            masked_rows=split.datasets[name].masked_rows,
            masked_columns=split.datasets[name].masked_columns,
        )
        for name, record in records.items()
    ]
    words = vocabulary([g.keys for g in graphs], [g.trainable for g in graphs])
    _warn_of_strangers(graphs)
    return Prepared(records=records, edges=edges, holdout=split, graphs=graphs, words=words)


def _refuse_copies(records: Mapping[str, DatasetRecord]) -> None:
    seen: dict[bytes, str] = {}
    for name, record in records.items():
        digest = hashlib.sha256()
        for array in (record.pairs.indptr, record.pairs.indices, record.pairs.z):
            digest.update(np.ascontiguousarray(array).data)
        if digest.digest() in seen:
            msg = f"has the same graph as {seen[digest.digest()]}: what is held out of one would be seen in the other"
            raise ConfigError(msg, code="E252", where=name, fix="leave one of the two out")
        seen[digest.digest()] = name


def _check_species(config: AtlasConfig, orthologs: OrthologTable | None) -> None:
    species = sorted({d.species for d in config.datasets})
    if orthologs is None:
        if len(species) > 1:
            logger.warning("W304: %s share no genes without a table of orthologs (`orthologs:`)", ", ".join(species))
        return
    for name in species:
        if name not in orthologs.species:
            msg = f"species `{name}` is no column of the ortholog table, which has {', '.join(orthologs.species)}"
            raise ConfigError(msg, code="E304", where=str(config.orthologs), fix="spell `species` as in the table")


def _warn_of_strangers(graphs: Sequence[GraphData]) -> None:
    for i, one in enumerate(graphs):
        mine = set(one.keys[one.trainable].tolist())
        for other in graphs[i + 1 :]:
            if mine.isdisjoint(other.keys[other.trainable].tolist()):
                logger.warning("W215: %s and %s share no genes: nothing aligns them directly", one.name, other.name)


def make_model(
    data: Prepared, config: AtlasConfig, *, owned: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> AtlasModel:
    """Make the model with its initial weights.

    Parameters
    ----------
    data
        The data of the run.
    config
        The configuration.
    owned
        Datasets of this process, by their place in the atlas; ``None``: all.
    device
        Where to compute.
    """
    dtype: torch.dtype = getattr(torch, config.training.dtype)
    kind, dim = config.model.features, config.model.relational_dim
    aligned = {}
    if kind == "aligned":
        profiles = {name: record.profile for name, record in data.records.items()}
        aligned = align_profiles(data.graphs, profiles, config.model.dim)
    features = {}
    for i in range(len(data.graphs)) if owned is None else owned:
        graph, record = data.graphs[i], data.records[data.graphs[i].name]
        held_out = (graph.masked_rows, graph.masked_columns)
        features[i] = NodeFeatures(
            profile=record.profile if kind in {"profile", "both"} else None,
            aligned=aligned.get(graph.name),
            related=relations(record.pairs, held_out, graph.keys, data.words) if kind != "profile" else None,
            n_cells=record.n_cells,
            dim=dim,
            dtype=dtype,
            device=device,
        )
    return AtlasModel(
        data.graphs,
        features,
        config.model,
        n_words=len(data.words),
        seed=config.training.seed,
        dtype=dtype,
        device=device,
    )


def fingerprint(data: Prepared, config: AtlasConfig) -> str:
    """Give the sha256 of all data and settings that decide a trained bit, as hex digits.

    The number of rounds and of rounds between checkpoints are left out: they decide when to stop and to save. So is
    recomputation, which changes no bit.
    """
    training = config.training.model_dump(mode="json", exclude={"rounds", "checkpoint_every", "recompute"})
    settings = {"model": config.model.model_dump(mode="json"), "training": training}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for graph in data.graphs:
        labels = [graph.name, graph.modality, graph.tissue, graph.species, *graph.keys.tolist()]
        digest.update(json.dumps(labels).encode())
        edges = graph.edges
        arrays: list[NDArray[np.generic]] = [graph.trainable, graph.masked_rows, graph.masked_columns]
        arrays += [edges.indptr, edges.indices, edges.z, edges.estimate]
        record = data.records[graph.name]
        pairs = record.pairs
        arrays += [pairs.indptr, pairs.indices, pairs.z, pairs.estimate, record.profile, np.array(record.n_cells)]
        for array in arrays:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
