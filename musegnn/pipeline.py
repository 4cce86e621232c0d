"""The steps of a run as functions. Every step reads from and writes to the store and the run folder only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.errors import ConfigError, InputError, RunError
from musegnn.progress import reporting
from musegnn.results import write_embeddings, write_results
from musegnn.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

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
