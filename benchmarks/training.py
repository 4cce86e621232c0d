"""What the training benchmarks train: random graphs and profiles, ours and the published loop on the same data.

Legend: T datasets, N genes, M cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.graphs import random_graphs, random_profile
from musegnn.config import PUBLISHED, ModelConfig, TrainingConfig
from musegnn.model.features import NodeFeatures
from musegnn.model.model import AtlasModel
from musegnn.training.engine import Engine
from musegnn.training.memory import DatasetSize, estimate_memory, weight_bytes
from musegnn.training.overlap import Overlaps
from musegnn.training.schedule import draw_contrast, partners

if TYPE_CHECKING:
    from benchmarks.peers.published_loop import Drawn, PublishedLoop
    from musegnn.graph import GraphData
    from musegnn.training.phases import Phases

SHARED_LAYERS = "shared/layers/scrna"


@dataclass(frozen=True)
class Workload:
    """Datasets of one size; two of them share about half of their genes."""

    n_datasets: int
    n_genes: int
    n_cells: int
    density: float

    def __str__(self) -> str:
        """Name the size."""
        return f"T={self.n_datasets} N={self.n_genes} M={self.n_cells} {self.density:.0%}"

    @cached_property
    def graphs(self) -> list[GraphData]:
        """The graphs."""
        return random_graphs(self.n_datasets, self.n_genes, self.density, n_pool=2 * self.n_genes)

    @cached_property
    def profiles(self) -> list[Any]:  # arrays
        """The node features, (N, M) float32."""
        return [random_profile(graph.name, self.n_genes, self.n_cells) for graph in self.graphs]

    def engine(self, model: dict[str, Any], training: dict[str, Any], *, phases: Phases | None = None) -> Engine:
        """Make our engine: the published architecture, losses and learning rates but for the settings given."""
        loss = {"reconstruction": 1.0, "alignment": 0.0} | training.get("loss", {})
        rates = {"lr_dataset": 1e-4, "lr_shared": 1e-4, "lr_decoder": 1e-3}
        model_config = ModelConfig.model_validate(PUBLISHED["model"] | {"share_by": ["modality"]} | model)
        config = TrainingConfig.model_validate(rates | {"rounds": 100, "threads": 1} | training | {"loss": loss})
        features = {
            i: NodeFeatures(profile=profile, n_cells=self.n_cells, dtype=torch.float32)
            for i, profile in enumerate(self.profiles)
        }
        atlas = AtlasModel(self.graphs, features, model_config, n_anchors=0, seed=config.seed, dtype=torch.float32)
        return Engine(atlas, config, phases=phases)

    def estimate(self, engine: Engine) -> int:
        """Return the bytes that the memory estimate predicts for one of our engines, which writes no checkpoints."""
        model, training = engine.model.config, engine.config
        found = estimate_memory([self.size] * self.n_datasets, model, training, n_anchors=0)
        return sum(found.values()) - 3 * self.n_datasets * sum(weight_bytes(self.size, model))

    @cached_property
    def size(self) -> DatasetSize:
        """Return the sizes of the first dataset; none has pairs stored, and all are of one modality."""
        return DatasetSize(
            key="scrna",
            n_genes=self.n_genes,
            n_pairs=0,
            n_edges=self.graphs[0].edges.n_edges,
            n_profile=self.n_cells,
            n_related=0,
        )

    def published(self) -> PublishedLoop:
        """Make the published loop, with weights and draws of its own."""
        from benchmarks.peers.published_loop import PublishedLoop

        return PublishedLoop(self.graphs, self.profiles, Overlaps(self.graphs))


def copy_weights(engine: Engine, loop: PublishedLoop) -> None:
    """Return the published loop the weights of our engine, whose names are PyG's."""
    for layer, graph in zip(loop.layers, engine.model.graphs, strict=True):
        own = _weights(engine, f"dataset/{graph.name}/layer")
        for part, module in (("layer.conv.", layer.conv), ("layer.norm.", layer.norm)):
            module.load_state_dict({k.removeprefix(part): v for k, v in own.items() if k.startswith(part)})
        decoder = _weights(engine, f"dataset/{graph.name}/decoder")
        names = {key: f"{2 * int(key.split('.')[1])}.{key.split('.')[2]}" for key in decoder}
        layer.decoder.load_state_dict({names[key]: value for key, value in decoder.items()})
    loop.shared["scrna"].load_state_dict(_weights(engine, SHARED_LAYERS))


def published_epoch(engine: Engine, loop: PublishedLoop, round_: int) -> list[tuple[float, ...]]:
    """Run one epoch of the published loop with the partners and genes that our engine draws in a round."""
    from benchmarks.peers.published_loop import Drawn

    graphs, config = list(engine.model.graphs), engine.config
    overlaps = Overlaps(graphs)

    def draw(i: int, j: int) -> Drawn:
        found = draw_contrast(config.seed, round_, (graphs[i], graphs[j]), overlaps.pair(i, j), config.loss.n_contrast)
        return Drawn(
            anchors_i=found.anchors_i,
            positives_i=found.positives_i,
            anchors_j=found.anchors_j,
            positives_j=found.positives_j,
        )

    return loop.epoch(partners(config.seed, round_, len(graphs), "uniform").tolist(), draw)


def _weights(engine: Engine, unit: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix("weight/"): v for k, v in engine.state(unit).items() if k.startswith("weight/")}
