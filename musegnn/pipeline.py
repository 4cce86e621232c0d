"""The steps of a run as functions. Every step reads from and writes to the store and the run folder only."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.run_folder import RunFolder

if TYPE_CHECKING:
    from anndata import AnnData

    from musegnn.api import MuSeGNN
    from musegnn.cluster.estimate import AtlasEstimate
    from musegnn.cluster.options import ClusterOptions
    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store
    from musegnn.progress import Progress

logger = logging.getLogger(__name__)


def build_graphs(
    atlas: AtlasConfig,
    store: Store | Path | str,
    *,
    scheduler: str = "threads",
    memory: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Store:
    """Build the co-expression graph of every dataset of an atlas into a store, and return the store.

    Datasets whose graph is already in the store, from the same counts and the same settings, are not built again.

    Parameters
    ----------
    atlas, store
        Datasets and ``graph`` settings; a store, or its path, created when missing.
    scheduler
        Place of the work: ``threads``, ``synchronous``, ``distributed``, ``ray``, or the address of a dask scheduler
        such as ``tcp://host:8786``. The result is the same.
    memory
        Bytes that each process may use; ``None``: half of what this machine has free.
    device
        Where Gram matrices are summed: ``cpu``, ``cuda``, or ``auto``: CUDA where this machine has it. The last bits
        differ, so that a graph of the other device is built anew.

    Raises
    ------
    InputError
        When a dataset cannot be used; nothing of it is written.
    ConfigError
        For an unknown scheduler, or too little memory.
    """
    from musegnn.cluster.build import build_graphs as build
    from musegnn.data_store import Store

    opened = store if isinstance(store, Store) else Store.open_or_create(Path(store))
    build(atlas, opened, scheduler=scheduler, memory=memory, device=device, progress=progress)
    return opened


def run(
    atlas: AtlasConfig,
    out: Path | str,
    *,
    scheduler: str = "threads",
    memory: int | None = None,
    device: str = "auto",
    cluster: ClusterOptions | None = None,
    progress: Progress | None = None,
) -> RunFolder:
    """Build graphs, train, and write embeddings, evaluation and report; on the same folder, continue where it stopped.

    Parameters are those of :func:`build_graphs` and :func:`train`; paths in `atlas` are absolute.
    """
    from musegnn.datasets import expand_strata

    atlas = expand_strata(atlas)
    folder = RunFolder.create(out, atlas)
    with folder.logging():
        store = build_graphs(
            atlas, folder.store_path(), scheduler=scheduler, memory=memory, device=device, progress=progress
        )
        model = train(folder, store, progress=progress, resume=True, memory=memory, cluster=cluster)
        write_results(folder, model, progress=progress)
    return folder


def estimate(atlas: AtlasConfig, *, scheduler: str = "threads", memory: int | None = None) -> AtlasEstimate:
    """Predict passes, memory, disk and time of :func:`build_graphs`, from the heads of the files and some cells."""
    from musegnn.cluster.estimate import estimate_graphs

    return estimate_graphs(atlas, scheduler=scheduler, memory=memory)


def train(
    folder: RunFolder,
    store: Store,
    *,
    resume: bool,
    memory: int | None = None,
    cluster: ClusterOptions | None = None,
    progress: Progress | None = None,
) -> MuSeGNN:
    """Train the model of a run folder on a store; checkpoints and metrics are written to the folder.

    Parameters
    ----------
    resume
        Whether to continue from the newest good checkpoint; without it an existing checkpoint is an error.
    memory
        Bytes that training may use; ``None``: half of what this machine has free. A ``RunError`` E411 asks for more.
    cluster
        Options of training with several processes on Ray; ``None`` or without ``actors``: in this process. The result
        is the same.
    """
    from musegnn.api import MuSeGNN
    from musegnn.coexpression.memory import memory_budget

    if cluster is not None and cluster.actors is not None:
        from musegnn.cluster.train import train_on_cluster

        train_on_cluster(folder, store, cluster, resume=resume, memory=memory, progress=progress)
        return load_model(folder)
    model = MuSeGNN(store, folder.atlas(), memory=memory_budget(memory))
    model.train(folder.path, resume=resume, progress=progress)
    return model


def status(folder: RunFolder) -> tuple[dict[str, Any], str]:  # JSON
    """Return the state of the training of a run folder, as data and as text for a terminal."""
    from musegnn.cluster.status import read_status, show_status

    found = read_status(folder)
    return found, show_status(found)


def load_model(folder: RunFolder) -> MuSeGNN:
    """Load the trained model of a run folder; a ``RunError`` says that there is no checkpoint yet."""
    from musegnn.api import MuSeGNN
    from musegnn.data_store import Store

    return MuSeGNN.from_run(folder.path, Store.open(folder.store_path()), folder.atlas())


def write_results(folder: RunFolder, model: MuSeGNN, *, progress: Progress | None = None) -> None:
    """Write embeddings, evaluation and report of a trained model into its run folder."""
    report = progress or (lambda *_: None)
    report("results", 0, 3, "embeddings")
    adata = write_embeddings(folder, model)
    report("results", 1, 3, "evaluation")
    evaluation = evaluate(folder, model)
    report("results", 2, 3, "report")
    write_report(folder, model, adata, evaluation)
    report("results", 3, 3, "")


def write_embeddings(folder: RunFolder, model: MuSeGNN) -> AnnData:
    """Embed, cluster and lay out all genes; write ``embeddings.h5ad`` and ``embeddings.parquet``."""
    from musegnn.analysis.annotate import annotate
    from musegnn.analysis.export import export

    adata = annotate(model.embeddings())
    export(adata, folder.path / "embeddings.h5ad", format="h5ad")
    export(adata, folder.path / "embeddings.parquet", format="parquet")
    return adata


def evaluate(
    folder: RunFolder,
    model: MuSeGNN,
    *,
    gmt: Path | None = None,
    trained_baselines: bool = False,
    seeds: int = 1,
) -> dict[str, Any]:  # JSON
    """Score the model and its baselines on what was held out; write ``evaluation.json``.

    Parameters
    ----------
    gmt
        File of gene sets (human names) to predict.
    trained_baselines
        Whether to train baselines as well; needs the extra ``baselines``.
    seeds
        Number of training seeds to average over, that of the run included.
    """
    from musegnn.evaluation.evaluate import evaluate_model, write_evaluation
    from musegnn.evaluation.gene_sets import read_gmt

    sets = None if gmt is None else model.gene_sets(read_gmt(gmt))
    evaluation = evaluate_model(model, sets=sets, trained_baselines=trained_baselines, seeds=seeds)
    write_evaluation(evaluation, folder.evaluation)
    return evaluation


def write_report(folder: RunFolder, model: MuSeGNN, adata: AnnData, evaluation: dict[str, Any]) -> None:  # JSON
    """Write ``report.html``: one self-contained page."""
    from musegnn.analysis.report import ReportData
    from musegnn.analysis.report import write_report as write

    data = ReportData(
        adata=adata,
        evaluation=evaluation,
        history=folder.history(),
        graphs=model.graph_reports(),
        config=folder.lock.read_text(encoding="utf-8"),
        title=folder.path.name,
    )
    write(folder.report, data)
