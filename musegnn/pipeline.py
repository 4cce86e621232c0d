"""The steps of a run as functions. Every step reads from and writes to the store and the run folder only."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.errors import ConfigError, InputError, RunError
from musegnn.progress import reporting
from musegnn.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.analysis.explore import ExploreServer
    from musegnn.analysis.report import ReportData
    from musegnn.api import MuSeGNN
    from musegnn.cluster.estimate import AtlasEstimate
    from musegnn.cluster.options import ClusterOptions
    from musegnn.config import AtlasConfig, DatasetConfig
    from musegnn.data_store import Store
    from musegnn.progress import Progress

logger = logging.getLogger(__name__)

ATLAS_FILES = (".yaml", ".yml", ".csv", ".tsv")


def build_graphs(
    atlas: AtlasConfig | AnnData | Path | str | Sequence[Any] | Mapping[str, Any],
    store: Store | Path | str,
    *,
    scheduler: str = "threads",
    memory: int | None = None,
    device: str = "auto",
    progress: Progress | bool | None = True,
    **settings: Any,
) -> Store:
    """Build the co-expression graph of every dataset of an atlas into a store, and return the store.

    Datasets whose graph is already in the store, from the same counts and the same settings, are not built again.

    Parameters
    ----------
    atlas
        An atlas, the path of its file, or its datasets: an AnnData object, the path of a file, or several of these as a
        list or by name. What is not said of these in `settings` is taken from their labels, gene names and
        coordinates (:func:`musegnn.guesses.guess_entry`) and logged.
    store
        A store, or its path, created when missing.
    scheduler
        Place of the work: ``threads``, ``synchronous``, ``distributed``, ``ray``, or the address of a dask scheduler
        such as ``tcp://host:8786``. The result is the same.
    memory
        Bytes that each process may use; ``None``: half of what this machine has free.
    device
        Where Gram matrices are summed: ``cpu``, ``cuda``, or ``auto``: CUDA where this machine has it. The last bits
        differ, so that a graph of the other device is built anew.
    progress
        Whether to show progress, or the function that is called with it.
    settings
        Settings of the datasets and sections of the atlas, see :func:`musegnn.atlas`; not beside an atlas.

    Raises
    ------
    InputError
        When a dataset cannot be used; nothing of it is written.
    ConfigError
        For an unknown scheduler, settings that do not fit, or too little memory.
    """
    from musegnn.cluster.build import build_graphs as build
    from musegnn.data_store import Store

    config = _as_atlas(atlas, settings)
    opened = store if isinstance(store, Store) else Store.open_or_create(Path(store))
    with reporting(progress) as report:
        build(config, opened, scheduler=scheduler, memory=memory, device=device, progress=report)
    return opened


def _as_atlas(given: Any, settings: dict[str, Any]) -> AtlasConfig:  # as build_graphs takes it
    from musegnn.atlas_file import atlas, load_atlas
    from musegnn.config import AtlasConfig, DatasetConfig

    is_file = isinstance(given, (str, Path)) and Path(given).suffix.casefold() in ATLAS_FILES
    if isinstance(given, AtlasConfig) or is_file:
        if settings:
            msg = f"`{next(iter(settings))}` is given beside an atlas, which has its own settings"
            raise ConfigError(msg, code="E303", where="build_graphs", fix="set it in the atlas")
        return given if isinstance(given, AtlasConfig) else load_atlas(given)
    if isinstance(given, Mapping):
        named = list(given.items())
    else:
        several = list(given) if isinstance(given, (list, tuple)) else [given]
        named = [(f"dataset_{k}" if hasattr(each, "obs_names") else "", each) for k, each in enumerate(several, 1)]
    own = {key: value for key, value in settings.items() if key in DatasetConfig.model_fields}
    entries = [_guessed(name, each, own) for name, each in named]
    return atlas(entries, **{key: value for key, value in settings.items() if key not in own})


def _guessed(name: str, given: Any, settings: dict[str, Any]) -> dict[str, Any]:  # an AnnData object, path or settings
    from musegnn.guesses import guess_entry, require_known

    entry = settings | (dict(given) if isinstance(given, Mapping) else {"path": given})
    if name:
        entry.setdefault("name", name)
    if {"modality", "tissue", "species"} <= entry.keys():
        return entry
    counts = entry.get("path", entry.get("adata"))
    counts = counts if hasattr(counts, "obs_names") else Path(str(counts)).expanduser()
    guessed = guess_entry(counts, entry.get("name", ""))
    found = {key: value for key, value in guessed.items() if key not in entry and key != "path"}
    logger.info("%s: taken from the data: %s", guessed["name"], ", ".join(f"{k} {v}" for k, v in found.items()))
    return require_known(guessed | entry, where=guessed["name"])


def run(
    atlas: AtlasConfig,
    out: Path | str,
    *,
    scheduler: str = "threads",
    memory: int | None = None,
    device: str = "auto",
    cluster: ClusterOptions | None = None,
    progress: Progress | bool | None = True,
) -> RunFolder:
    """Build graphs, train, and write embeddings, evaluation and report; on the same folder, continue where it stopped.

    Parameters are those of :func:`build_graphs` and :func:`train`; paths in `atlas` are absolute.
    """
    from musegnn.datasets import expand_strata

    atlas = expand_strata(atlas)
    folder = RunFolder.create(out, atlas)
    with folder.logging(), reporting(progress) as report:
        store = build_graphs(
            atlas, folder.store_path(), scheduler=scheduler, memory=memory, device=device, progress=report
        )
        model = train(folder, store, progress=report, resume=True, memory=memory, cluster=cluster)
        write_results(folder, model, progress=report)
    return folder


def add(
    run: RunFolder | MuSeGNN | Path | str,
    data: AnnData | Path | str | Mapping[str, Any],
    *,
    out: Path | str,
    name: str = "",
    scheduler: str = "threads",
    memory: int | None = None,
    device: str = "auto",
    progress: Progress | bool | None = True,
    **settings: Any,
) -> MuSeGNN:
    """Extend a finished run by a dataset, in a new run folder; vectors and weights of the run stay as they are.

    The dataset is built with the settings of the run; its maps are fitted, in closed form, to the vectors of the genes
    that the run has (:mod:`musegnn.training.added`). The run is only read. The same call goes on with a folder that was
    not finished.

    Parameters
    ----------
    run
        Folder of a finished run, or a model that is trained.
    data
        AnnData object, path of a file, or settings of a dataset, as in :func:`build_graphs`. With ``by`` each label is
        added as a dataset.
    out
        New run folder, with a store of its own.
    name
        Name of the dataset; by default that of the file.
    scheduler, memory, device, progress
        As in :func:`build_graphs`.
    settings
        Settings of the dataset, such as ``modality``, ``tissue`` and ``species``.

    Raises
    ------
    InputError
        When the dataset cannot be used; E258 when it shares too few genes with the run.
    RunError
        E405 or E406 when the run is not finished, E412 when its vectors are not made of maps alone, E413 when it has a
        dataset of this name, E293 when `out` holds something else.
    """
    from musegnn.api import MuSeGNN
    from musegnn.cluster.build import build_graphs as build
    from musegnn.data_store import Store
    from musegnn.training.extend import extend, read_trained, write_extended

    if isinstance(run, MuSeGNN):
        config, source, trained = run.config, run.store, run.as_trained()
    else:
        folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
        config, source = folder.atlas(), Store.open(folder.store_path())
        trained = read_trained(folder.path, config)
    extended = _extended(config, _guessed(name, data, settings))
    known, new = config.datasets, extended.datasets[len(config.datasets) :]
    _refuse_unmatched(new, [graph.keys for graph in trained.graphs], extended)
    target = RunFolder.create(out, extended)
    with target.logging(), reporting(progress) as report:
        store = Store.open_or_create(target.store_path())
        source.copy(store, [dataset.name for dataset in known])
        alone = extended.model_copy(update={"datasets": new})
        build(alone, store, scheduler=scheduler, memory=memory, device=device, progress=report, beside=known)
        found, rows = extend(trained, store, extended)
        write_extended(found, target.path)
        history = [] if isinstance(run, MuSeGNN) else folder.history()
        target.write_history([*history, *rows])
        model = MuSeGNN.from_run(target.path, store, extended)
        write_embeddings(target, model, vectors=found.vectors)
    return model


def _extended(config: AtlasConfig, entry: dict[str, Any]) -> AtlasConfig:
    """Return the configuration of a run with a dataset added, or one per label of its column `by`."""
    from musegnn.atlas_file import atlas, validate_atlas
    from musegnn.datasets import expand_strata

    if not config.model.is_closed_form:
        model = config.model
        settings = f"embedding {model.embedding}, encoder {model.encoder}, decoder {model.decoder}"
        msg = f"its vectors are not made of maps in closed form alone ({settings}), to which a dataset could be fitted"
        raise RunError(msg, code="E412", where="add", fix="train all datasets together")
    new = expand_strata(atlas([entry])).datasets
    taken = {dataset.name for dataset in config.datasets}
    for dataset in new:
        if dataset.name in taken:
            msg = f"the run has a dataset `{dataset.name}` already"
            raise RunError(msg, code="E413", where="add", fix="give another name with --name")
    added = tuple(dataset.model_copy(update={"added": True}) for dataset in new)
    return validate_atlas(dict(config) | {"datasets": (*config.datasets, *added)}, where="add")


def _refuse_unmatched(new: Sequence[DatasetConfig], known: Sequence[NDArray[np.str_]], config: AtlasConfig) -> None:
    """Refuse, from headers alone, datasets that share too few genes with gene keys of the run."""
    from musegnn.datasets import open_counts
    from musegnn.training.canonical import MIN_ANCHORS
    from musegnn.training.genes import check_orthologs, gene_keys

    orthologs, keys = check_orthologs(config), set[str]().union(*(names.tolist() for names in known))
    for dataset in new:
        shared = keys.intersection(gene_keys(open_counts(dataset).gene, dataset.species, orthologs).tolist())
        if len(shared) >= MIN_ANCHORS:
            continue
        species = sorted({d.species for d in config.datasets if not d.added})
        msg = f"shares {len(shared)} genes with the run"
        fix = "check the names of its genes"
        if dataset.species not in species and orthologs is None:
            msg += f", which has genes of {', '.join(species)}, none of {dataset.species}, and no table of orthologs"
            fix = "train a run with `orthologs`, or correct `species`"
        raise InputError(msg, code="E258", where=dataset.name, fix=fix)


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
        return load_model(folder, device="auto")  # the GPUs are those of the cluster
    model = MuSeGNN(store, folder.atlas(), memory=memory_budget(memory))
    model.train(folder.path, resume=resume, progress=progress)
    return model


def status(folder: RunFolder) -> tuple[dict[str, Any], str, bool]:  # JSON
    """Return the state of the training of a run folder, as data, as text for a terminal, and whether it is well."""
    from musegnn.cluster.status import is_well, read_status, show_status

    found = read_status(folder)
    return found, show_status(found), is_well(found)


def load_model(folder: RunFolder, *, device: str | None = None) -> MuSeGNN:
    """Load the trained model of a run folder on a device, by default that of its settings.

    A ``RunError`` says that there is no checkpoint yet.
    """
    from musegnn.api import MuSeGNN
    from musegnn.data_store import Store

    return MuSeGNN.from_run(folder.path, Store.open(folder.store_path()), folder.atlas(), device=device)


def write_results(folder: RunFolder, model: MuSeGNN, *, progress: Progress | None = None) -> None:
    """Write embeddings, evaluation, summary and report of a trained model; what is there of this model stays."""
    report = progress or (lambda *_: None)
    report("results", 0, 3, "embeddings")
    adata = _current_embeddings(folder, model)
    if adata is None:
        adata = write_embeddings(folder, model)
    report("results", 1, 3, "evaluation")
    evaluation = _current_evaluation(folder, model)
    if evaluation is None:
        evaluation = evaluate(folder, model, progress=progress)
    report("results", 2, 3, "report")
    results = (folder.embeddings, folder.evaluation, folder.summary, *folder.contrast_files())
    made = max((path.stat().st_mtime_ns for path in results if path.is_file()), default=0)
    if not folder.report.is_file() or folder.report.stat().st_mtime_ns < made:
        write_report(folder, model, adata, evaluation, progress=progress)
    report("results", 3, 3, "")


def _current_embeddings(folder: RunFolder, model: MuSeGNN) -> AnnData | None:
    """Return the embeddings in the folder, if they are of this model."""
    if not folder.embeddings.is_file():
        return None
    import anndata

    adata = anndata.read_h5ad(folder.embeddings)
    about = dict(adata.uns.get("musegnn", {}))
    same = about == {"rounds": model.rounds, "fingerprint": model.fingerprint()}
    return adata if same and (folder.path / "embeddings.parquet").is_file() else None


def _current_evaluation(folder: RunFolder, model: MuSeGNN) -> dict[str, Any] | None:  # JSON
    """Return the evaluation in the folder, if it is of this model."""
    if not folder.evaluation.is_file() or not folder.summary.is_file():
        return None
    found: dict[str, Any] = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    same = (found.get("fingerprint"), found["settings"]["rounds"]) == (model.fingerprint(), model.rounds)
    return found if same else None


def write_embeddings(
    folder: RunFolder, model: MuSeGNN, *, vectors: Mapping[str, NDArray[np.float32]] | None = None
) -> AnnData:
    """Embed, cluster and lay out all genes; write ``embeddings.h5ad`` and ``embeddings.parquet``.

    `vectors` are those of the model where they are known; they keep their bits on any machine.
    """
    from musegnn.analysis.annotate import annotate
    from musegnn.analysis.export import export

    adata = model.embeddings(layout=False, vectors=vectors)
    annotate(adata)
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
    progress: Progress | None = None,
) -> dict[str, Any]:  # JSON
    """Score the model and its baselines on what was held out; write ``evaluation.json`` and ``summary.json``.

    Parameters
    ----------
    gmt
        File of gene sets (human names) to predict.
    trained_baselines
        Whether to train baselines as well; needs the extra ``baselines``.
    seeds
        Number of training seeds to average over, that of the run included.
    """
    from musegnn.data_store.atomic_files import write_file
    from musegnn.evaluation.evaluate import evaluate_model, write_evaluation
    from musegnn.evaluation.gene_sets import read_gmt
    from musegnn.evaluation.summary import dataset_table, sentences

    sets = None if gmt is None else model.gene_sets(read_gmt(gmt))
    evaluation = evaluate_model(
        model, sets=sets, trained_baselines=trained_baselines, seeds=seeds, progress=progress
    ) | {"fingerprint": model.fingerprint()}
    write_evaluation(evaluation, folder.evaluation)
    graphs, problems = model.graph_reports(), model.problems()
    warnings = [f"{graph['dataset']}: {line}" for graph in graphs for line in graph["report"].get("warnings", [])]
    about = {
        "sentences": sentences(evaluation, [(problem.code, problem.dataset) for problem in problems], graphs),
        "table": dataset_table(evaluation, graphs),
        "warnings": [*warnings, *map(str, problems)],
    }
    write_file(folder.summary, json.dumps(about, indent=1) + "\n")
    return evaluation


def write_report(
    folder: RunFolder,
    model: MuSeGNN,
    adata: AnnData,
    evaluation: dict[str, Any],  # JSON
    *,
    gmt: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Write ``report.html``: one self-contained page, with the gene sets of a .gmt file (human names) where given."""
    from musegnn.analysis.report import write_report as write

    write(folder.report, report_data(folder, model, adata, evaluation, gmt=gmt), progress=progress)


def explore(
    folder: RunFolder,
    model: MuSeGNN,
    adata: AnnData,
    evaluation: dict[str, Any],  # JSON
    *,
    port: int = 0,
    gmt: Path | None = None,
    progress: Progress | None = None,
) -> ExploreServer:
    """Return a server of the page on 127.0.0.1, not serving yet; parameters are those of :func:`write_report`."""
    from musegnn.analysis.explore import Explorer, ExploreServer
    from musegnn.analysis.report.page import render

    page = render(report_data(folder, model, adata, evaluation, gmt=gmt), live=True, progress=progress).encode()
    pairs = {name: record.pairs for name, record in model.records.items()}
    return ExploreServer(Explorer(page=page, adata=adata, pairs=pairs), port)


def report_data(
    folder: RunFolder,
    model: MuSeGNN,
    adata: AnnData,
    evaluation: dict[str, Any],  # JSON
    *,
    gmt: Path | None = None,
) -> ReportData:
    """Collect what the page shows of a run."""
    from musegnn.analysis.report import ReportData
    from musegnn.evaluation.gene_sets import read_gmt, set_titles

    titles = {} if gmt is None else set_titles(gmt)
    sets = {} if gmt is None else model.gene_sets({titles[name]: genes for name, genes in read_gmt(gmt).items()})
    return ReportData(
        adata=adata,
        evaluation=evaluation,
        history=folder.history(),
        graphs=model.graph_reports(),
        config=folder.lock.read_text(encoding="utf-8"),
        title=folder.path.name,
        pairs={name: record.pairs for name, record in model.records.items()},
        sets=sets,
        contrasts=folder.contrasts(),
    )
