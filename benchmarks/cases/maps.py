"""What the closed forms are made of: one constant or part changed at a time, on the hold-outs that defaults come from.

Variants change the inside of :mod:`musegnn.training.initialize`, so they are no settings. Groups: PBMC, lung and brain,
and ``sections``, the two DLPFC sections cut into four random parts each: datasets of some 370 spots, where little but
noise tells maps apart. Evaluation seeds 1 and 2; results are reported on others (``python -m benchmarks quality``).

Writes ``benchmarks/reports/maps.md`` when all groups ran.
"""

from __future__ import annotations

import logging
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.quality import groups
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from musegnn.api import MuSeGNN
    from musegnn.config import AtlasConfig

    Vectors = Mapping[str, NDArray[np.floating]]
    Variant = Callable[["MuSeGNN"], Vectors]

GROUPS, SPLITS = ("pbmc", "lung", "brain", "sections"), (1, 2)
MEASURES = ("joint_mrr", "pair_mrr", "mixing", "edges_positive", "seconds")
REPORT = Path(__file__).resolve().parents[1] / "reports" / "maps.md"
LOO_RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
PARTS = 4


def variants() -> dict[str, Variant]:
    """Return what is computed, the default first."""
    found: dict[str, Variant] = {
        "default": _changed(),
        "without alignment": _changed(("initialize.SHRINKAGE", 1e12)),
        "own ridge 0.3": _changed(("initialize.ProfileView", _view(0.3))),
        "own ridge 3": _changed(("initialize.ProfileView", _view(3.0))),
        "own ridges by leave-one-out error": partial(_chosen_ridges, criterion="error"),
        "own ridges by leave-one-out cosine": partial(_chosen_ridges, criterion="cosine"),
        "shared ridge 0.3": _changed(("initialize.shared_map", _shared(0.3))),
        "shared ridge 3": _changed(("initialize.shared_map", _shared(3.0))),
        "256 profile components": _changed(("canonical.COMPONENTS", 256)),
    }
    return found


def parts(name: str, vectors: Vectors) -> dict[str, Vectors]:
    """Return vectors by the name they are shown under: with the first two variants also either map alone."""
    if name not in {"default", "without alignment"}:
        return {name: vectors}
    half = next(iter(vectors.values())).shape[1] // 2
    more = "" if name == "default" else f", {name}"
    return {
        name: vectors,
        f"own map alone{more}": _columns(vectors, slice(0, half)),
        f"shared map alone{more}": _columns(vectors, slice(half, None)),
    }


def _changed(*changes: tuple[str, Any]) -> Variant:
    """Return a variant with other values of names in ``musegnn.training``."""

    def vectors(model: MuSeGNN) -> Vectors:
        with ExitStack() as stack:
            for name, value in changes:
                stack.enter_context(mock.patch(f"musegnn.training.{name}", value))
            return model.started().vectors()

    return vectors


def _view(ridge: float) -> Any:  # a class with one argument given
    from musegnn.training.canonical import ProfileView

    return partial(ProfileView, ridge=ridge)


def _shared(ridge: float) -> Any:  # a function with one argument given
    from musegnn.training.discriminant import shared_map

    return partial(shared_map, ridge=ridge)


def _columns(vectors: Vectors, chosen: slice) -> dict[str, NDArray[np.floating]]:
    return {name: x[:, chosen] for name, x in vectors.items()}


def _chosen_ridges(model: MuSeGNN, *, criterion: str) -> Vectors:
    """Choose each dataset's ridge by how well the mean of the other datasets is predicted for left-out anchor genes."""
    from musegnn.training import canonical

    views: list[canonical.ProfileView] = []

    def remembered(*args: Any, **more: Any) -> canonical.ProfileView:
        views.append(canonical.ProfileView(*args, **more))
        return views[-1]

    with mock.patch("musegnn.training.initialize.ProfileView", remembered):
        fitted = model.started()
    n_anchors = max(int(view.anchors.max()) for view in views) + 1
    maps, rows = fitted._trainer.model.maps, [view.rows for view in views]
    placed = [
        row @ (view.axes.T @ maps(i).own.detach().double().numpy())
        for i, (view, row) in enumerate(zip(views, rows, strict=True))
    ]
    total, counts = np.zeros((n_anchors, placed[0].shape[1])), np.zeros(n_anchors)
    for view, y in zip(views, placed, strict=True):
        total[view.anchors] += y
        counts[view.anchors] += 1
    ridges = iter(
        [
            _leave_one_out(x, (total[view.anchors] - y) / np.maximum(counts[view.anchors] - 1, 1)[:, None], criterion)
            for view, x, y in zip(views, rows, placed, strict=True)
        ]
    )

    def with_ridge(*args: Any, **more: Any) -> canonical.ProfileView:
        return canonical.ProfileView(*args, **more | {"ridge": next(ridges)})

    return _changed(("initialize.ProfileView", with_ridge))(model)


def _leave_one_out(x: NDArray[np.float64], target: NDArray[np.float64], criterion: str) -> float:
    """Return the ridge whose leave-one-out predictions are best; in closed form from the hat matrix."""
    target = target - target.mean(axis=0)
    values, basis = np.linalg.eigh(x.T @ x)
    turned = x @ basis
    scores = []
    for ridge in LOO_RIDGES:
        shrunk = values + ridge * values.mean()
        fit, leverage = turned @ (turned.T @ target / shrunk[:, None]), (turned**2 / shrunk).sum(axis=1) + 1 / len(x)
        left_out = target - (target - fit) / (1 - leverage)[:, None]
        if criterion == "error":
            scores.append(-float(((left_out - target) ** 2).sum()))
        else:
            norms = np.linalg.norm(left_out, axis=1) * np.linalg.norm(target, axis=1)
            scores.append(float(((left_out * target).sum(axis=1) / np.maximum(norms, 1e-300)).mean()))
    return LOO_RIDGES[int(np.argmax(scores))]


def score(model: MuSeGNN, vectors: Vectors) -> dict[str, float]:
    """Return joint and pair MRR of held-out genes, mixing, and held-out positive edges by cosine."""
    from musegnn.evaluation.baselines.candidates import vector_candidate
    from musegnn.evaluation.edge_prediction import held_out_auc, pair_cosine
    from musegnn.evaluation.evaluate import dataset_tasks
    from musegnn.evaluation.joint import mixing, retrieve_jointly
    from musegnn.evaluation.metrics import mean_of_defined
    from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs

    tasks = dataset_tasks(model)
    joint = summarize_pairs(retrieve_jointly(tasks, vectors))["overall"]["mrr"]
    pair = summarize_pairs(retrieve_all(tasks, vector_candidate("", vectors).similarity))["overall"]["mrr"]
    edges = mean_of_defined([held_out_auc(pair_cosine(vectors[t.name]), t.pairs)["positive"] for t in tasks])
    return {"joint_mrr": joint, "pair_mrr": pair, "mixing": mixing(tasks, vectors)["overall"], "edges_positive": edges}


@contextmanager
def atlas_of(group: str, split: int) -> Iterator[AtlasConfig]:
    """Configure a group; files that have to be made are gone afterwards."""
    from musegnn.atlas_file import validate_atlas

    evaluation = {"evaluation": {"seed": split}, "training": {"threads": 1}}
    with tempfile.TemporaryDirectory() as folder:
        if group != "sections":
            yield groups.group_atlas(group, Path(folder), evaluation)
            return
        import anndata

        rows = []
        for name in ("151673", "151674"):
            whole = anndata.read_h5ad(groups.shared_folder() / "data" / f"hs_brain_dlpfc_{name}.h5ad")
            part = np.random.default_rng(0).permutation(whole.n_obs) % PARTS
            for k in range(PARTS):
                path = Path(folder) / f"{name}_{k}.h5ad"
                whole[part == k].copy().write_h5ad(path)
                rows.append({"name": path.stem, "path": str(path), "modality": "spatial"})
        labels = {"tissue": "brain", "species": "human"}
        yield validate_atlas({"datasets": [row | labels for row in rows], **evaluation}, where=group)


class Maps:
    """Closed forms with one part changed at a time."""

    name = "maps"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that variants are variants."""
        with tempfile.TemporaryDirectory() as folder, atlas_of("atlas", 1) as atlas:
            import musegnn as mg

            small = atlas.model_copy(update={"graph": atlas.graph.model_copy(update={"n_genes": 150})})
            model = mg.MuSeGNN(mg.build_graphs(small, Path(folder) / "store"), small)
            plain = np.concatenate(list(model.started().vectors().values()))
            other = np.concatenate(list(_changed(("initialize.SHRINKAGE", 1.0))(model).values()))
        differ = float(np.abs(plain - other).max())
        yield Check(claim="another shrinkage gives other vectors", holds=differ > 1e-3, got=f"{differ:.2g}")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Compute every variant on every group and hold-out."""
        import musegnn as mg

        logging.disable(logging.WARNING)
        shown = dict(list(variants().items())[:2]) if quick else variants()
        names = [name for name in (GROUPS[:1] if quick else GROUPS) if name in groups.present() or name == "sections"]
        if "brain" not in groups.present():
            names = [name for name in names if name != "sections"]
        means: dict[tuple[str, str], dict[str, float]] = {}
        for group in names:
            found: dict[str, list[dict[str, float]]] = {}
            with tempfile.TemporaryDirectory() as folder:
                for split in SPLITS[:1] if quick else SPLITS:
                    with atlas_of(group, split) as atlas, threadpool_limits(1):
                        model = mg.MuSeGNN(mg.build_graphs(atlas, Path(folder) / "store"), atlas)
                        for name, variant in shown.items():
                            began = time.process_time()
                            vectors = variant(model)
                            seconds = {"seconds": time.process_time() - began}
                            for part, columns in parts(name, vectors).items():
                                found.setdefault(part, []).append(score(model, columns) | seconds)
            for name, rows in found.items():
                means[group, name] = {m: float(np.mean([row[m] for row in rows])) for m in MEASURES}
                for measure, value in means[group, name].items():
                    spread = f"splits {', '.join(f'{row[measure]:.4g}' for row in rows)}"
                    yield Measurement(
                        shape=f"{group} {name}",
                        metric=measure,
                        value=value,
                        unit=spread,
                        baseline="" if name == "default" else "default",
                        baseline_value=None if name == "default" else means[group, "default"][measure],
                        larger_is_better=measure != "seconds",
                    )
        if not quick and len(names) == len(GROUPS):
            REPORT.write_text(page(means), encoding="utf-8")


def page(means: Mapping[tuple[str, str], Mapping[str, float]]) -> str:
    """Return the page of all variants."""
    names = list(dict.fromkeys(name for _, name in means))
    lines = [
        "# What the closed forms are made of",
        "",
        "`python -m benchmarks maps` writes this page: one part of `musegnn/training/initialize.py` changed at a",
        "time; means over the hold-outs (evaluation seeds 1 and 2) from which defaults are chosen. `sections` are the",
        "two DLPFC sections cut into four random parts each. Per group: joint MRR / pair MRR / mixing / held-out",
        "positive edges by cosine.",
        "",
        "| variant | " + " | ".join(GROUPS) + " |",
        "|---|" + "---|" * len(GROUPS),
    ]
    for name in names:
        cells = []
        for group in GROUPS:
            m = means[group, name]
            cells.append(f"{m['joint_mrr']:.4f} / {m['pair_mrr']:.3f} / {m['mixing']:.2f} / {m['edges_positive']:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


CASE = Maps()
