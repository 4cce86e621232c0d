"""A dataset added to a trained run, against training all datasets together.

C146 is added to the other lung datasets, and PBMC stimulated with interferon beta to the other two of PBMC. Joint MRR
of held-out genes and transfer of gene sets are those of all datasets, and joint MRR also of the pairs with the new one
alone. CPU seconds from stored graphs count reading and preparing what is needed, on both sides; those of the whole
count the builds as well. As adding takes the time of one dataset, seconds are measured for 20 resampled datasets, too
(:mod:`benchmarks.resampled`). Constants of :mod:`musegnn.training.added` were chosen on evaluation seeds 1 and 2.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.quality import groups
from benchmarks.registry import Check, Measurement
from benchmarks.resampled import resampled_atlas

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from musegnn.api import MuSeGNN
    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store

    Vectors = Mapping[str, NDArray[np.float32]]

NEW = {"pbmc": "ifnb_stim", "lung": "C146"}
SPLITS = groups.REPORT_SPLITS
LARGER = 20
GOALS = {"joint_mrr": 0.95, "transfer": 0.95, "cpu_from_graphs": 10.0}


def split_atlas(atlas: AtlasConfig, new: str) -> tuple[AtlasConfig, AtlasConfig]:
    """Return an atlas without a dataset, and with it as an added one."""
    known = tuple(d for d in atlas.datasets if d.name != new)
    added = tuple(d.model_copy(update={"added": True}) for d in atlas.datasets if d.name == new)
    return (
        atlas.model_copy(update={"datasets": known}),
        atlas.model_copy(update={"datasets": known + added}),
    )


def added_vectors(store: Store, base: AtlasConfig, extended: AtlasConfig, folder: Path) -> tuple[Vectors, float, bool]:
    """Train a run and add a dataset; return the vectors, CPU seconds of adding, and whether the run's stayed equal."""
    import musegnn as mg
    from musegnn.analysis.export import export
    from musegnn.training.extend import extend, read_trained, write_extended

    run = mg.MuSeGNN(store, base).train(folder / "run", progress=False)
    export(run.embeddings(layout=False), folder / "run" / "embeddings.h5ad", format="h5ad")
    began = time.process_time()
    found, _ = extend(read_trained(folder / "run", base), store, extended)
    write_extended(found, folder / "larger")
    seconds = time.process_time() - began
    files = [{p.name for p in (folder / name / "checkpoints" / "shards").iterdir()} for name in ("run", "larger")]
    equal = all(np.array_equal(z, found.vectors[name]) for name, z in run.vectors().items())
    return found.vectors, seconds, equal and files[0] <= files[1]  # names of shards are digests of weights


def scores(model: MuSeGNN, vectors: Vectors, new: str, sets: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Return joint MRR of held-out genes over all pairs and over those with one dataset, and transfer."""
    from musegnn.evaluation.gene_sets import transfer_scores
    from musegnn.evaluation.joint import retrieve_jointly
    from musegnn.evaluation.retrieval import summarize_pairs

    pairs = retrieve_jointly(model.graphs, vectors)
    mine = [pair for pair in pairs if new in (pair.first, pair.second)]
    found = {
        "joint_mrr": summarize_pairs(pairs)["overall"]["mrr"],
        "joint_mrr_of_new": summarize_pairs(mine)["overall"]["mrr"],
    }
    return found | ({"transfer": transfer_scores(model.graphs, vectors, sets).mean} if sets else {})


class Add:
    """Adding a dataset against training all."""

    name = "add"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that nothing of a run changes."""
        import musegnn as mg

        logging.disable(logging.WARNING)
        with tempfile.TemporaryDirectory() as folder:
            atlas = groups.group_atlas("atlas", Path(folder), {"graph": {"n_genes": 200}})
            base, extended = split_atlas(atlas, atlas.datasets[-1].name)
            store = mg.build_graphs(atlas, Path(folder) / "store", progress=False)
            *_, equal = added_vectors(store, base, extended, Path(folder))
        yield Check(claim="vectors and weights of the run stay equal to the byte", holds=equal, got=str(equal))

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Add and train on every group and hold-out that is reported."""
        names = [name for name in NEW if name in groups.present()]
        for group in names[:1] if quick else names:
            yield from self._group(group, SPLITS[:1] if quick else SPLITS)
        yield self._larger(4 if quick else LARGER)

    def _larger(self, n: int) -> Measurement:
        """Measure the seconds from stored graphs for the last of many datasets."""
        import musegnn as mg

        with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
            atlas = resampled_atlas(Path(folder), n, {"training": {"threads": 1}})
            new = atlas.datasets[-1].name
            store = mg.build_graphs(atlas, Path(folder) / "store", progress=False)
            began = time.process_time()
            mg.MuSeGNN(store, atlas).started()
            cpu = time.process_time() - began
            _, seconds, equal = added_vectors(store, *split_atlas(atlas, new), Path(folder) / "added")
        if not equal:
            msg = f"{n} datasets: the run has changed"
            raise AssertionError(msg)
        return Measurement(
            shape=f"1 dataset added to {n - 1}",
            metric="cpu_from_graphs",
            value=seconds,
            unit="s",
            baseline="all trained together",
            baseline_value=cpu,
            goal=("ratio", ">=", GOALS["cpu_from_graphs"]) if n == LARGER else None,
            larger_is_better=False,
        )

    def _group(self, group: str, splits: Collection[int]) -> Iterator[Measurement]:
        import musegnn as mg
        from musegnn.evaluation.gene_sets import read_gmt

        new, ours, theirs = NEW[group], list[dict[str, float]](), list[dict[str, float]]()
        with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
            settings = {"training": {"threads": 1}}
            whole = groups.group_atlas(group, Path(folder), settings)
            base = split_atlas(whole, new)[0]
            began = time.process_time()
            mg.build_graphs(base, Path(folder) / "store", progress=False)
            of_base = time.process_time()
            alone = whole.model_copy(update={"datasets": tuple(d for d in whole.datasets if d.name == new)})
            store = mg.build_graphs(alone, Path(folder) / "store", progress=False)
            build_base, build_new = of_base - began, time.process_time() - of_base
            for split in splits:
                atlas = groups.group_atlas(group, Path(folder), settings | {"evaluation": {"seed": split}})
                began = time.process_time()
                model = mg.MuSeGNN(store, atlas)
                trained = model.started().vectors()
                cpu = time.process_time() - began
                vectors, seconds, equal = added_vectors(store, *split_atlas(atlas, new), Path(folder) / str(split))
                if not equal:
                    msg = f"{group}, split {split}: the run has changed"
                    raise AssertionError(msg)
                path = groups.gene_sets()
                sets = {} if path is None else model.gene_sets(read_gmt(path))
                for rows, z, spent, build in (
                    (ours, vectors, seconds, build_new),
                    (theirs, trained, cpu, build_base + build_new),
                ):
                    times = {"cpu_from_graphs": spent, "cpu_with_builds": spent + build}
                    rows.append(scores(model, z, new, sets) | times)
        for metric in ours[0]:
            values, other = ([row[metric] for row in rows] for rows in (ours, theirs))
            yield Measurement(
                shape=f"{new} added to {group}",
                metric=metric,
                value=float(np.mean(values)),
                unit=f"splits {', '.join(f'{value:.4g}' for value in values)}",
                baseline="all trained together",
                baseline_value=float(np.mean(other)),
                goal=("ratio", ">=", GOALS[metric]) if metric in GOALS else None,
                larger_is_better=not metric.startswith("cpu"),
            )


CASE = Add()
