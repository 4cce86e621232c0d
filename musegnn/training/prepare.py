"""From the store to what training needs, all of it fixed before the first round.

Legend: N genes of a dataset.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from musegnn.aliases import species_name
from musegnn.coexpression.edges import select_edges
from musegnn.errors import ConfigError, InputError
from musegnn.graph import GraphData, PartnerFile
from musegnn.model.features import NodeFeatures, extra_features
from musegnn.model.model import AtlasModel
from musegnn.model.relational_features import anchor_genes, relations
from musegnn.progress import shorten_warnings
from musegnn.removed_settings import with_removed
from musegnn.training.genes import OrthologTable, check_orthologs, gene_keys
from musegnn.training.holdout import holdout_edges, trainable_genes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig, DatasetConfig
    from musegnn.data_store.records import DatasetRecord
    from musegnn.graph import AtlasGraph, EdgeSet


logger = logging.getLogger(__name__)
MOST_LISTED, MOST_COUNTED = 5, 100
"""Numbers of datasets up to which genes in common are logged of every pair, and counted at all."""


class Records(Protocol):
    """A source of datasets: a :class:`musegnn.Store`, or anything else that reads them by name."""

    def read(self, name: str) -> DatasetRecord:
        """Read one dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedDataset:
    """One dataset as its owner holds it: as stored, its whole graph, and what training sees of it.

    ``digest`` is the sha256 of what decides a trained bit, ``pairs_digest`` that of its stored pairs.
    """

    record: DatasetRecord
    edges: EdgeSet
    graph: GraphData
    digest: str
    pairs_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The data of a training run, as one process holds it.

    Attributes
    ----------
    records, edges
        Owned datasets as stored, and their whole graphs, held-out edges included; by name, in the order of the atlas.
    graphs
        What training sees of every dataset, in the order of the atlas: of owned ones all, and what is held out; of
        others what losses between datasets need, or where to find it.
    anchors
        Keys of the anchor genes, sorted.
    digests
        sha256 of what decides a trained bit in each dataset, in the order of the atlas.
    """

    records: Mapping[str, DatasetRecord]
    edges: Mapping[str, EdgeSet]
    graphs: Sequence[AtlasGraph]
    anchors: Sequence[str]
    digests: Sequence[str]

    def owned_graphs(self) -> dict[int, GraphData]:
        """Return the graphs of the owned datasets by place in the atlas."""
        return {i: graph for i, graph in enumerate(self.graphs) if isinstance(graph, GraphData)}


def prepare(store: Records, config: AtlasConfig, *, owned: Collection[int] | None = None) -> Prepared:
    """Read the datasets of an atlas and apply the edge rule and the hold-outs.

    All datasets are read, one at a time; those not `owned`, by place in the atlas (``None``: all), are kept as what
    their partners need. :func:`musegnn.training.spmd.prepare_together` reads the owned ones alone.

    Raises
    ------
    InputError
        E252 when two datasets are the same data.
    ConfigError
        E304 when a species is missing in the ortholog table, E307 when the labels of the store and of the configuration
        differ.
    """
    orthologs = check_orthologs(config)
    records, edges = {}, {}
    graphs: list[AtlasGraph] = []
    digests, pairs_digests, keys, every = [], [], [], []
    for i, dataset in enumerate(config.datasets):
        found = prepare_dataset(store, config, dataset, orthologs)
        is_owned = owned is None or i in owned
        if is_owned:
            records[dataset.name], edges[dataset.name] = found.record, found.edges
        graphs.append(found.graph if is_owned else found.graph.as_partner())
        digests.append(found.digest)
        pairs_digests.append(found.pairs_digest)
        keys.append(found.graph.keys[found.graph.trainable])
        every.append(found.graph.keys)
    refuse_copies(config, pairs_digests)
    names = [dataset.name for dataset in config.datasets]
    _warn_of_disjoint_datasets(names, keys)
    _log_shared_genes(names, every)
    anchors = anchor_genes([names for names, graph in zip(keys, graphs, strict=True) if not graph.added])
    return Prepared(records=records, edges=edges, graphs=graphs, anchors=anchors, digests=digests)


def prepare_dataset(
    store: Records, config: AtlasConfig, dataset: DatasetConfig, orthologs: OrthologTable | None
) -> PreparedDataset:
    """Read one dataset of an atlas and apply the edge rule and the hold-outs; errors as of :func:`prepare`."""
    name, record = dataset.name, store.read(dataset.name)
    _check_labels(dataset, record)
    keys = gene_keys(record.genes.gene, species_name(record.species), orthologs)
    whole = select_edges(record.pairs, record.n_cells, config.edges)
    seen, held_out = holdout_edges(whole, config.evaluation.holdout_edges, seed=config.evaluation.seed, name=name)
    graph = GraphData(
        name=name,
        modality=record.modality,
        tissue=record.tissue,
        species=species_name(record.species),
        added=dataset.added,
        keys=keys,
        trainable=trainable_genes(keys, config.evaluation),
        edges=seen,
        held_out=held_out,
    )
    pairs = record.pairs
    return PreparedDataset(
        record=record,
        edges=whole,
        graph=graph,
        digest=_digest(graph, record),
        pairs_digest=_sha256([pairs.indptr, pairs.indices, pairs.z]),
    )


def refuse_copies(config: AtlasConfig, pairs_digests: Sequence[str]) -> None:
    """Refuse, by ``InputError`` E252, two datasets with the same stored pairs."""
    seen: dict[str, str] = {}
    for dataset, digest in zip(config.datasets, pairs_digests, strict=True):
        if digest in seen:
            msg = f"has the same graph as {seen[digest]}: what is held out of one would be seen in the other"
            raise InputError(msg, code="E252", where=dataset.name, fix="leave one of the two out")
        seen[digest] = dataset.name


def _check_labels(dataset: DatasetConfig, record: DatasetRecord) -> None:
    there = (record.modality, record.tissue, species_name(record.species))
    here = (dataset.modality, dataset.tissue, dataset.species)
    if there != here:
        msg = f"expected modality, tissue and species {', '.join(here)}, the store has {', '.join(there)}"
        fix = "correct the atlas file, or build the dataset again"
        raise ConfigError(msg, code="E307", where=dataset.name, fix=fix)


def _warn_of_disjoint_datasets(names: Sequence[str], keys: Sequence[NDArray[np.str_]]) -> None:
    pairs = [(names[i], names[j]) for i, j in disjoint_pairs(keys)]
    for line in shorten_warnings([f"W215: {a} and {b} share no genes: nothing aligns them directly" for a, b in pairs]):
        logger.warning("%s", line)


def _log_shared_genes(names: Sequence[str], keys: Sequence[NDArray[np.str_]]) -> None:
    """Log how many genes the datasets have in common, of few datasets for every pair."""
    if not 1 < len(names) <= MOST_COUNTED:
        return
    pairs = list(combinations(range(len(names)), 2))
    shared = [len(np.intersect1d(keys[i], keys[j])) for i, j in pairs]
    if len(names) <= MOST_LISTED:
        listed = [f"{names[i]} and {names[j]} {n}" for (i, j), n in zip(pairs, shared, strict=True)]
        logger.info("genes in common: %s", "; ".join(listed))
    else:
        i, j = pairs[int(np.argmin(shared))]
        most, middle = max(shared), int(np.median(shared))
        logger.info(
            "genes in common: %d to %d of a pair, median %d; fewest of %s and %s",
            min(shared), most, middle, names[i], names[j],
        )  # fmt: skip


def disjoint_pairs(keys: Sequence[NDArray[np.str_]]) -> list[tuple[int, int]]:
    """Return the pairs of datasets that share no gene key, given the keys of each, in ascending order.

    Each dataset looks for the others by its most common genes first, so that where most share some, a few genes do.
    """
    sizes = [len(names) for names in keys]
    _, code, count = np.unique(
        np.concatenate([np.empty(0, dtype=np.str_), *keys]), return_inverse=True, return_counts=True
    )
    order = np.argsort(code, kind="stable")
    holders = np.split(np.repeat(np.arange(len(keys)), sizes)[order], np.cumsum(count)[:-1])
    pairs = []
    for i, genes in enumerate(np.split(code, np.cumsum(sizes)[:-1])):
        left = np.arange(len(keys)) > i
        for gene in genes[np.argsort(-count[genes], kind="stable")].tolist():
            left[holders[gene]] = False
            if not left.any():
                break
        pairs += [(i, j) for j in np.flatnonzero(left).tolist()]
    return pairs


def make_model(
    data: Prepared,
    config: AtlasConfig,
    *,
    owned: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    like: AtlasModel | None = None,
) -> AtlasModel:
    """Make the model with its initial weights for the datasets `owned`, whose records `data` holds; ``None``: all.

    Node features are those of the model `like`, of the same data, device and type, where there is one.
    """
    features = {}
    for i in range(len(data.graphs)) if owned is None else owned:
        if like is not None:
            features[i] = like.features(i)
            continue
        graph = data.graphs[i]
        assert isinstance(graph, GraphData)
        record = data.records[graph.name]
        related = None
        if config.model.has_maps:
            related = relations(record.pairs, record.profile, graph.held_out.all, graph.keys, data.anchors)
        extra = _extra_features(data, i) if graph.added else None
        features[i] = NodeFeatures(
            profile=record.profile, related=related, extra=extra, n_cells=record.n_cells, dtype=dtype, device=device
        )
    return AtlasModel(
        data.graphs,
        features,
        config.model,
        n_anchors=len(data.anchors),
        seed=config.training.seed,
        dtype=dtype,
        device=device,
    )


def _extra_features(data: Prepared, i: int) -> NDArray[np.float32]:
    """Return the extra features of an added dataset, of which all datasets before it must be here."""
    graph = data.graphs[i]
    assert isinstance(graph, GraphData)
    before: set[str] = set()
    for other in data.graphs[:i]:
        assert not isinstance(other, PartnerFile)
        before.update(other.keys[other.trainable].tolist())
    shared = sorted(before.intersection(graph.keys[graph.trainable].tolist()))
    record = data.records[graph.name]
    found = relations(record.pairs, record.profile, graph.held_out.all, graph.keys, shared)
    return extra_features(record.profile, found.values[:, : len(shared)])


def fingerprint(data: Prepared, config: AtlasConfig, dtype: torch.dtype = torch.float32) -> str:
    """Return the sha256 of all data and settings that decide a trained bit, as hex digits.

    Settings that were removed count with their defaults, so that runs of earlier versions keep their fingerprint. The
    number of rounds and of rounds between checkpoints are left out: they decide when to stop and to save. So are
    recomputation, which changes no bit, and the device, on which a run may go on elsewhere. Added datasets follow one
    by one, see :func:`fingerprint_with`.
    """
    training = with_removed(config.training.model_dump(mode="json"), "training")
    training["loss"] = with_removed(training["loss"], "training.loss")
    switches = config.training.published
    training["order"] = "sequential" if switches.sequential else "parallel"
    training["loss"] |= {"exclude_neighbours": not switches.false_negatives, "include_diagonal": switches.diagonal}
    training["dtype"] = str(dtype).removeprefix("torch.")
    for name in ("rounds", "checkpoint_every", "recompute", "published", "device"):
        del training[name]
    settings = {"model": with_removed(config.model.model_dump(mode="json"), "model"), "training": training}
    digests = {True: list[str](), False: list[str]()}
    for graph, digest in zip(data.graphs, data.digests, strict=True):
        digests[graph.added].append(digest)
    found = hashlib.sha256(json.dumps([settings, *digests[False]], sort_keys=True).encode()).hexdigest()
    for digest in digests[True]:
        found = fingerprint_with(found, digest)
    return found


def fingerprint_with(found: str, digest: str) -> str:
    """Return the fingerprint of a run with a dataset added, from that of the run and the digest of the dataset."""
    return hashlib.sha256(f"{found} added {digest}".encode()).hexdigest()


def _digest(graph: GraphData, record: DatasetRecord) -> str:
    edges, pairs = graph.edges, record.pairs
    arrays: list[NDArray[np.generic]] = [graph.trainable, *graph.held_out.all]
    arrays += [edges.indptr, edges.indices, edges.z, edges.estimate]
    arrays += [pairs.indptr, pairs.indices, pairs.z, pairs.estimate, record.profile, np.array(record.n_cells)]
    labels = [graph.name, graph.modality, graph.tissue, graph.species, *graph.keys.tolist()]
    return _sha256(arrays, json.dumps(labels))


def _sha256(arrays: Sequence[NDArray[np.generic]], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
