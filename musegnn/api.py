"""The model as a user sees it: trained on a store, one vector per gene and dataset."""

from __future__ import annotations

import copy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from musegnn.data_store import Store
from musegnn.datasets import atlas_of_store, expand_strata
from musegnn.errors import RunError
from musegnn.machine import resolve_device
from musegnn.model.decoder import score_pairs
from musegnn.progress import count_warnings, reporting
from musegnn.run_folder import RunFolder
from musegnn.text import some_of
from musegnn.training.extend import TrainedRun, outline
from musegnn.training.genes import gene_keys, read_orthologs
from musegnn.training.memory import check_memory, fitting_at_a_time
from musegnn.training.prepare import prepare
from musegnn.training.trainer import Trainer, refuse_old_checkpoints, threads

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig
    from musegnn.data_store.records import DatasetRecord
    from musegnn.graph import EdgeSet, GraphData
    from musegnn.progress import Progress
    from musegnn.training.diagnostics import Problem


class MuSeGNN:
    """One vector per gene and dataset, in one space for all datasets.

    Parameters
    ----------
    store, config
        Store with the graph of every dataset of the atlas, or its path; and the configuration, see
        :func:`musegnn.load_atlas` and :func:`musegnn.atlas`. ``None``: all datasets of the store, default settings.
    device, dtype
        ``auto``, ``cpu`` or ``cuda``, by default ``training.device``; and type of parameters and activations;
        ``torch.float64`` checks parity.
    memory
        Bytes that training on the CPU may use, weights included; not checked by default. A ``RunError`` E411 names
        settings that fit.

    Attributes
    ----------
    records, edges
        Datasets as stored, and their whole graphs, held-out edges included, by name.
    graphs
        Datasets in the order of the atlas: gene keys, training edges, and the genes and pairs that are held out.

    References
    ----------
    Liu et al., "MuSe-GNN: Learning Unified Gene Representation From Multimodal Biological Graph Data", NeurIPS 2023.
    """

    def __init__(
        self,
        store: Store | Path | str,
        config: AtlasConfig | None = None,
        *,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        memory: int | None = None,
    ) -> None:
        self.store = store = Store.open(store) if isinstance(store, (str, Path)) else store
        self.config = config = expand_strata(config) if config is not None else atlas_of_store(store)
        self.device = resolve_device(config.training.device if device is None else device)
        self.dtype = dtype
        self._data = prepare(store, config)
        if memory is not None and self.device == "cpu":
            check_memory(self._data, config.model, config.training, memory)
        self._at_a_time = 1
        if self.device == "cpu":
            self._at_a_time = fitting_at_a_time(self._data, config.model, config.training, memory)
        self.records: dict[str, DatasetRecord] = dict(self._data.records)
        self.edges: dict[str, EdgeSet] = dict(self._data.edges)
        self.graphs: Sequence[GraphData] = list(self._data.owned_graphs().values())
        self._reset()

    def __repr__(self) -> str:
        n_genes, rounds = sum(graph.n_genes for graph in self.graphs), self.config.training.rounds
        state = f"{self.rounds} of {rounds} rounds" if rounds else "closed form" if self.history else "untrained"
        names = some_of([graph.name for graph in self.graphs], 6)
        vectors = f"{n_genes} vectors of {self.config.model.dim} dimensions"
        return f"MuSeGNN: {len(self.graphs)} datasets ({names}), {vectors}, {state}; store {self.store.path}"

    def _reset(self, like: MuSeGNN | None = None) -> None:
        same = None if like is None else like._trainer.model
        self._trainer: Trainer = Trainer(
            self._data, self.config, device=self.device, dtype=self.dtype, like=same, at_a_time=self._at_a_time
        )

    @property
    def rounds(self) -> int:
        """Number of rounds trained."""
        return self._trainer.rounds

    @property
    def history(self) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl``."""
        return self._trainer.history

    def problems(self) -> list[Problem]:
        """Return silent failures of training: collapse, memorised anchor genes, datasets that nothing aligns."""
        return self._trainer.problems()

    def untrained(self) -> MuSeGNN:
        """Return a model on the same data with the initial weights."""
        other = copy.copy(self)
        other._reset(like=self)
        return other

    def started(self) -> MuSeGNN:
        """Return a model on the same data before the first round, with maps in closed form."""
        other = self.untrained()
        with threads(self.config.training.threads):
            other._trainer.start()
        return other

    def reseeded(self, seed: int) -> MuSeGNN:
        """Return an untrained model on the same data with another training seed and as many rounds."""
        other = copy.copy(self)
        training = self.config.training.model_copy(update={"seed": seed, "rounds": self.rounds})
        other.config = self.config.model_copy(update={"training": training})
        other._reset(like=self)
        return other

    def fingerprint(self) -> str:
        """Return the sha256, in hex digits, of all data and settings that decide a trained bit."""
        return self._trainer.fingerprint

    def train(
        self, out: Path | str | None = None, *, resume: bool = False, progress: Progress | bool | None = True
    ) -> Self:
        """Train until ``config.training.rounds`` rounds are done, and return the model itself.

        Parameters
        ----------
        out
            Run folder for checkpoints and metrics; nothing is written by default.
        resume
            Whether to continue from the newest whole checkpoint of `out`; no stop changes a bit of the result.
        progress
            Whether to show progress, or the function that is called with it.

        Raises
        ------
        RunError
            E293 when `out` holds something else, E404 when it holds checkpoints and `resume` is off, E402 when they
            are of other data or settings, E410 when numbers stop being finite.
        """
        folder = None if out is None else RunFolder.create(out, self.config, store=self.store.path).path
        if folder is not None:
            refuse_old_checkpoints(folder, resume=resume)
            self._trainer.restore(folder)
        rounds = self.config.training.rounds
        with reporting(progress) as report:

            def tell(round_: int, rows: list[dict[str, Any]]) -> None:
                if report is not None:
                    mean = float(np.mean([row["loss"] for row in rows]))
                    details = "MuSeGNN.problems()" if folder is None else f"musegnn status {folder.name}"
                    seen = count_warnings([problem.code for problem in self.problems()], details=details)
                    report("train", round_, rounds, f"loss {mean:.4f}, {seen}" if seen else f"loss {mean:.4f}")

            self._trainer.run(folder, progress=tell)
        return self

    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of all genes by dataset name, shape (N, dim)."""
        return self._trainer.vectors()

    def embeddings(self, *, layout: bool = True, vectors: Mapping[str, NDArray[np.float32]] | None = None) -> AnnData:
        """Return the vectors of all genes: one row per dataset and gene, named ``dataset/gene``; ``X`` float32.

        With `layout` they are annotated (:func:`musegnn.analysis.annotate.annotate`): ``obsm["X_umap"]`` and
        ``obs["cluster"]``, for ``scanpy.pl.umap(genes, color="cluster")``; both take minutes for 100,000 vectors.
        `vectors` are those of the model, where they are known.

        Columns of ``obs``: ``gene``, ``gene_id``, ``gene_key`` (equal for the same gene of different datasets),
        ``dataset``, ``modality``, ``tissue``, ``species``, ``condition``, ``degree`` (neighbours in the whole graph),
        ``held_out`` (gene hidden from alignment), and ``certainty`` (agreement of two halves of the cells on the gene's
        co-expression, from 0 to 1; NaN, or no column, for graphs of earlier versions).
        """
        import anndata
        import pandas as pd

        vectors = self.vectors() if vectors is None else vectors
        frames, certainty = [], []
        for graph in self.graphs:
            record, n = self.records[graph.name], graph.n_genes
            labels = {
                "gene": record.genes.gene,
                "gene_id": record.genes.gene_id,
                "gene_key": graph.keys,
                "dataset": np.repeat(graph.name, n),
                "modality": np.repeat(graph.modality, n),
                "tissue": np.repeat(graph.tissue, n),
                "species": np.repeat(graph.species, n),
                "condition": np.repeat(record.condition or "", n),
                "degree": np.diff(self.edges[graph.name].indptr),
                "held_out": ~graph.trainable,
            }
            index = [f"{graph.name}/{gene}" for gene in record.genes.gene.tolist()]
            frames.append(pd.DataFrame(labels, index=index))
            known = record.genes.certainty
            certainty.append(np.full(n, np.nan, dtype=np.float32) if known is None else known)
        obs = pd.concat(frames)
        if np.isfinite(np.concatenate(certainty)).any():
            obs["certainty"] = np.concatenate(certainty)
        for column in ("dataset", "modality", "tissue", "species", "condition"):
            obs[column] = obs[column].astype("category")
        X = np.concatenate([vectors[graph.name] for graph in self.graphs])
        var = pd.DataFrame(index=[f"z{k}" for k in range(X.shape[1])])
        adata = anndata.AnnData(X=X, obs=obs, var=var)
        adata.uns["musegnn"] = {"rounds": self.rounds, "fingerprint": self.fingerprint()}
        if layout:
            from musegnn.analysis.annotate import annotate

            annotate(adata)
        return adata

    def decoder_scores(self, dataset: str, rows: NDArray[np.integer], cols: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the decoder's logit of each pair of genes in a dataset, mean of both directions, (P,) float32."""
        i = [graph.name for graph in self.graphs].index(dataset)
        model = self._trainer.model
        with torch.no_grad(), threads(self.config.training.threads):
            ends = torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(cols.astype(np.int64))
            return score_pairs(model.decoder(i), model.encode(i), *ends).cpu().numpy().astype(np.float32)

    def graph_reports(self) -> list[dict[str, Any]]:
        """Return size, density and signs of each graph, and what the build dropped and why (``report``).

        ``uncertain_share`` is the share of genes of low certainty, ``None`` where the graph knows of none.
        """
        from musegnn.analysis.certainty import LOW

        reports = []
        found = self.problems()
        for graph in self.graphs:
            record, edges = self.records[graph.name], self.edges[graph.name]
            certainty = record.genes.certainty
            reports.append(
                {
                    "dataset": graph.name,
                    "modality": graph.modality,
                    "tissue": graph.tissue,
                    "species": graph.species,
                    "n_cells": record.n_cells,
                    "n_genes": graph.n_genes,
                    "n_edges": edges.n_edges // 2,
                    "density": edges.density,
                    "negative_share": edges.negative_share,
                    "mean_degree": edges.mean_degree,
                    "isolated": int((np.diff(edges.indptr) == 0).sum()),
                    "cutoff": edges.cutoff,
                    "held_out_edges": len(graph.held_out.rows),
                    "held_out_genes": int((~graph.trainable).sum()),
                    "uncertain_share": None if certainty is None else float((certainty < LOW).mean()),
                    "problems": [str(problem) for problem in found if problem.dataset == graph.name],
                    "report": record.report,
                }
            )
        return reports

    def gene_sets(self, sets: Mapping[str, Collection[str]], species: str = "human") -> dict[str, list[str]]:
        """Translate gene sets from names of one species to the keys that the datasets of the atlas use."""
        table = self.config.orthologs
        orthologs = read_orthologs(table) if table is not None else None
        return {
            name: gene_keys(np.array(sorted(genes), dtype=np.str_), species, orthologs).tolist()
            for name, genes in sets.items()
        }

    def as_trained(self) -> TrainedRun:
        """Return what an added dataset is fitted to."""
        pairs = zip(self.config.datasets, self.graphs, strict=True)
        return TrainedRun(
            graphs=[outline(dataset, graph.keys, graph.trainable) for dataset, graph in pairs],
            vectors=self.vectors(),
            units=self._trainer.state(),
            fingerprint=self.fingerprint(),
            rounds=self.rounds,
        )

    def add(self, data: AnnData | Path | str | Mapping[str, Any], *, out: Path | str, **settings: Any) -> MuSeGNN:
        """Return a model that has one more dataset, in a new run folder; this one stays as it is.

        Parameters and errors are those of :func:`musegnn.add`.
        """
        pipeline = import_module("musegnn.pipeline")  # which imports this module
        larger: MuSeGNN = pipeline.add(self, data, out=out, **settings)
        return larger

    def save(self, folder: Path | str) -> Path:
        """Write configuration and weights into a new folder that :meth:`load` and the command line read."""
        run = RunFolder.create(folder, self.config, store=self.store.path)
        self._trainer.save(run.path)
        return run.path

    @classmethod
    def load(cls, folder: Path | str, store: Store | None = None, *, device: str | None = None) -> MuSeGNN:
        """Load a model from a run folder or from what :meth:`save` wrote, on the store that it was trained on.

        `store` is needed where that has moved.

        Raises
        ------
        RunError
            E401 when the folder holds no run, E402 when the store holds other data, E403 when no checkpoint is whole,
            E405 when there is none yet.
        """
        run = RunFolder.open(folder)
        opened = store if store is not None else Store.open(run.store_path())
        return cls.from_run(run.path, opened, run.atlas(), device=device)

    @classmethod
    def from_run(cls, folder: Path, store: Store, config: AtlasConfig, *, device: str | None = None) -> MuSeGNN:
        """Load the newest whole checkpoint of a run folder under a given configuration; errors as of :meth:`load`."""
        model = cls(store, config, device=device)
        if not model._trainer.restore(folder):
            msg = "the run has no checkpoint yet"
            raise RunError(msg, code="E405", where=str(folder), fix="train it first")
        model._trainer.history = RunFolder(folder).history()
        return model
