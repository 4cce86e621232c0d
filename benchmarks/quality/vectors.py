"""Vectors of models that take minutes or more, kept in files.

``python -m benchmarks.quality.vectors MODEL GROUP SPLIT`` makes them: ``previous`` is the default of an earlier commit,
trained by the code of that commit; ``published`` the published recipe with all of its 2000 rounds, ``published200``
with 200 at ten times its learning rates; ``baselines`` all of :mod:`musegnn.evaluation.baselines` that is trained. The
files lie in the folder that ``MUSEGNN_VECTORS`` names, else in ``benchmarks/.vectors``, as
``MODEL-GROUP-SPLIT-SEED.npz``: one array per dataset, and ``meta``, JSON with CPU seconds and the AUROC of held-out
edges by ``decoder`` and ``cosine``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.api import MuSeGNN

    Spaces = Mapping[str, NDArray[np.floating]]

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "6ce6e09"
FILES = {"previous": "default"}
"""What a model is called in the names of files, where that differs: the previous model is the default of its commit."""

SETTINGS: dict[str, dict[str, Any]] = {  # values of any setting
    "previous": {},
    "published": {"published": True},
    "published200": {
        "published": True,
        "training": {"rounds": 200, "lr_dataset": 1e-3, "lr_shared": 1e-3, "lr_decoder": 1e-2},
    },
}
EDGES = ("all", "positive")


@dataclass(frozen=True, slots=True)
class Saved:
    """Vectors by dataset name, each float32 of shape (N, d), and what is known of their training."""

    vectors: dict[str, NDArray[np.float32]]
    meta: dict[str, Any]  # JSON


def vector_file(model: str, group: str, split: int, seed: int = 0) -> Path:
    """Return the path of a file, which may not be there."""
    folder = Path(os.environ.get("MUSEGNN_VECTORS", ROOT / "benchmarks" / ".vectors"))
    return folder / f"{FILES.get(model, model)}-{group}-{split}-{seed}.npz"


def load(path: Path) -> Saved | None:
    """Read a file; ``None`` where there is none."""
    if not path.is_file():
        return None
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        return Saved({name: file[name] for name in file.files if name != "meta"}, meta)


def save(path: Path, vectors: Spaces, meta: Mapping[str, Any]) -> None:  # JSON
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npz")
    arrays = {name: np.asarray(x, dtype=np.float32) for name, x in vectors.items()}
    np.savez(unfinished, meta=np.array(json.dumps(meta)), **arrays)
    unfinished.replace(path)


def make(model: str, group: str, split: int) -> None:
    """Train a model and write its file, or the files of all trained baselines.

    Parameters
    ----------
    model
        ``previous``, ``published``, ``published200`` or ``baselines``.
    group, split
        A group of datasets, and the seed of the hold-outs.
    """
    from benchmarks.quality.groups import store

    if model == "previous":
        _train_previous(group, split)
    elif model in SETTINGS:
        train(SETTINGS[model], group, split, store(group), vector_file(model, group, split))
    else:
        _train_baselines(group, split, store(group))


def missing() -> list[tuple[str, str, int]]:
    """Return model, group and split of what a whole comparison needs and no file has, quickest first."""
    from benchmarks.quality.groups import REPORT_SPLITS, present

    first = REPORT_SPLITS[:1]
    every = {"published200": first, "previous": REPORT_SPLITS, "baselines": first, "published": first}
    wanted = [(model, group, split) for model, splits in every.items() for split in splits for group in present()]
    files = {"baselines": "gene2vec_32"}  # one of several
    return [each for each in wanted if not vector_file(files.get(each[0], each[0]), *each[1:]).is_file()]


def train(settings: Mapping[str, Any], group: str, split: int, store: Path, path: Path) -> None:
    """Train our model and write its vectors.

    Runs under the code of an earlier commit, too.

    Parameters
    ----------
    settings
        Sections of the atlas file that differ from the defaults.
    group, split
        A group of datasets, and the seed of the hold-outs.
    store
        Folder of the graphs.
    path
        The file to write.
    """
    from threadpoolctl import threadpool_limits

    from musegnn.evaluation.edge_prediction import pair_cosine

    with threadpool_limits(1):
        model = make_model(settings, group, split, 0, store)
        start = time.process_time()
        vectors = model.train().vectors()
        seconds = time.process_time() - start
        tasks = _tasks(model)
        cosine = {task.name: pair_cosine(vectors[task.name]) for task in tasks}
        meta = {
            "cpu": seconds,
            "decoder": edge_means(tasks, lambda name: lambda rows, cols: model.decoder_scores(name, rows, cols)),
            "cosine": edge_means(tasks, cosine.__getitem__),
        }
    save(path, vectors, meta)


def _tasks(model: MuSeGNN) -> Sequence[Any]:
    """Return the datasets with what is held out, which the earlier commit keeps apart from graphs."""
    from musegnn.evaluation import evaluate

    return evaluate.dataset_tasks(model) if hasattr(evaluate, "dataset_tasks") else model.graphs


def edge_means(tasks: Sequence[Any], score: Any) -> dict[str, float]:  # of whichever commit is imported
    """Return the means over datasets of the AUROC of held-out edges, of all and of positive ones.

    Parameters
    ----------
    tasks
        The datasets with what is held out of them, as the imported commit has them.
    score
        From the name of a dataset to a score of pairs of its genes.
    """
    from musegnn.evaluation.edge_prediction import held_out_auc

    found = [held_out_auc(score(task.name), getattr(task, "held_out", None) or task.pairs) for task in tasks]
    return {which: float(np.nanmean([auc[which] for auc in found])) for which in EDGES}


def make_model(settings: Mapping[str, Any], group: str, split: int, seed: int, store: Path) -> MuSeGNN:
    """Return an untrained model, on one thread.

    Parameters
    ----------
    settings
        Sections of the atlas file that differ from the defaults.
    group, split, seed
        A group of datasets, the seed of the hold-outs, and the training seed.
    store
        Folder of the graphs.
    """
    import torch

    import musegnn as mg
    from benchmarks.quality.groups import group_atlas

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    training = {**settings.get("training", {}), "seed": seed, "threads": 1, "checkpoint_every": 100_000}
    sections = {**settings, "training": training, "evaluation": {"seed": split}}
    return mg.MuSeGNN(mg.Store.open(store), group_atlas(group, store.parent, sections))


def _train_previous(group: str, split: int) -> None:
    """Run this file under the code of the earlier commit, on graphs that this code builds."""
    from benchmarks.quality.groups import shared_folder

    with tempfile.TemporaryDirectory() as folder:
        code, archive = Path(folder) / "code", Path(folder) / "code.tar"
        subprocess.run(["git", "archive", "-o", archive, COMMIT], cwd=ROOT, check=True)
        with tarfile.open(archive) as file:
            file.extractall(code, filter="data")
        path = vector_file("previous", group, split).absolute()
        command = [sys.executable, "-P", __file__, "previous", group, str(split), "--into", path]
        environment = os.environ | {"PYTHONPATH": str(code), "MUSEGNN_SHARED": str(shared_folder().absolute())}
        subprocess.run(command, cwd=folder, env=environment, check=True)


def _train_here(model: str, group: str, split: int, path: Path) -> None:
    """Build graphs in this folder and train on them, by the code that is imported."""
    import musegnn as mg
    from benchmarks.quality.groups import group_atlas

    store = Path.cwd() / "store.zarr"
    mg.build_graphs(group_atlas(group, Path.cwd(), {}), store)
    train(SETTINGS[model], group, split, store, path)


def _train_baselines(group: str, split: int, store: Path) -> None:
    from threadpoolctl import threadpool_limits

    from musegnn.evaluation.baselines.registry import trained_baselines
    from musegnn.evaluation.edge_prediction import pair_cosine

    with threadpool_limits(1):
        model = make_model({}, group, split, 0, store)
        profiles = {name: record.profile for name, record in model.records.items()}
        start = time.process_time()
        made = trained_baselines(model.graphs, profiles, seed=0)
        seconds = time.process_time() - start
        for name, vectors in made.items():
            if not name.startswith("pca_"):
                cosine = {graph.name: pair_cosine(vectors[graph.name]) for graph in model.graphs}
                meta = {"cpu_of_all": seconds, "cosine": edge_means(model.graphs, cosine.__getitem__)}
                save(vector_file(name, group, split), vectors, meta)


def main() -> None:
    """Train what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.vectors", description=__doc__)
    parser.add_argument("model", choices=[*SETTINGS, "baselines", "missing"], help="missing: all that is not there yet")
    parser.add_argument("group", nargs="?")
    parser.add_argument("split", nargs="?", type=int, help="seed of the hold-outs")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # under the code of the earlier commit
    options = parser.parse_args()
    if options.model == "missing":
        for model, group, split in missing():
            print(model, group, split, flush=True)
            make(model, group, split)
    elif options.group is None or options.split is None:
        parser.error("name a group and a split")
    elif options.into is None:
        make(options.model, options.group, options.split)
    else:
        _train_here(options.model, options.group, options.split, options.into)


if __name__ == "__main__":
    main()
