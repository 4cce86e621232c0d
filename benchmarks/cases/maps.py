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
PARTS = 4


def variants() -> dict[str, Variant]:
    """Return what is computed, the default first."""
    found: dict[str, Variant] = {
        "default": _changed(),
        "without alignment": _changed(("initialize.SHRINKAGE", 1e12)),
        "without averaging": _changed(_components(128), _ridges(1.0)),
        "own map without averaging": _changed(_components(128)),
        "own map without averaging, 256 components": _changed(_components(256)),
        "own map without averaging, ridge 0.3": _changed(_components(128), ("initialize.ProfileView", _view(0.3))),
        "own map without averaging, ridge 3": _changed(_components(128), ("initialize.ProfileView", _view(3.0))),
        "shared map without averaging": _changed(_ridges(1.0)),
        "shared map without averaging, ridge 0.3": _changed(_ridges(0.3)),
        "shared map without averaging, ridge 3": _changed(_ridges(3.0)),
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


def _components(k: int) -> tuple[str, Any]:
    """Return a change: both maps that are averaged are of k components, and so the same."""
    return "initialize.COMPONENTS", (k, k)


def _ridges(ridge: float) -> tuple[str, Any]:
    """Return a change: both maps that are averaged have one ridge, and so are the same."""
    from musegnn.training.discriminant import shared_maps

    return "initialize.shared_maps", partial(shared_maps, ridges=(ridge, ridge))


def _view(ridge: float) -> Any:  # a class with one argument given
    from musegnn.training.canonical import ProfileView

    return partial(ProfileView, ridge=ridge)


def _columns(vectors: Vectors, chosen: slice) -> dict[str, NDArray[np.floating]]:
    return {name: x[:, chosen] for name, x in vectors.items()}


def score(model: MuSeGNN, vectors: Vectors) -> dict[str, float]:
    """Return joint and pair MRR of held-out genes, mixing, and held-out positive edges by cosine."""
    from musegnn.evaluation.baselines.candidates import vector_candidate
    from musegnn.evaluation.edge_prediction import held_out_auc, pair_cosine
    from musegnn.evaluation.joint import mixing, retrieve_jointly
    from musegnn.evaluation.metrics import mean_of_defined
    from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs

    joint = summarize_pairs(retrieve_jointly(model.graphs, vectors))["overall"]["mrr"]
    pair = summarize_pairs(retrieve_all(model.graphs, vector_candidate("", vectors).similarity))["overall"]["mrr"]
    edges = mean_of_defined([held_out_auc(pair_cosine(vectors[t.name]), t.held_out)["positive"] for t in model.graphs])
    return {
        "joint_mrr": joint,
        "pair_mrr": pair,
        "mixing": mixing(model.graphs, vectors)["overall"],
        "edges_positive": edges,
    }


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
