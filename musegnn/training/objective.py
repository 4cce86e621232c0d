"""The losses of datasets and of pairs of datasets, composed as the configuration says.

Legend: N genes of a dataset, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from musegnn.training.losses import alignment, ntxent, similarity
from musegnn.training.overlap import Overlaps
from musegnn.training.reconstruction import Reconstruction
from musegnn.training.schedule import ALONE, draw_contrast

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from musegnn.config import TrainingConfig
    from musegnn.graph import ComparedGraph
    from musegnn.model.model import AtlasModel

    Losses = dict[str, torch.Tensor]


class Objective:
    """The losses of the datasets of one process."""

    def __init__(self, model: AtlasModel, config: TrainingConfig) -> None:
        self._config, self._graphs = config, model.graphs
        self._device, self._dtype = model.device, model.dtype
        self._overlaps = Overlaps(model.graphs)
        self._reconstructions = {
            i: Reconstruction(model.decoder(i), model.graph(i), config, device=model.device) for i in model.owned
        }

    def graph(self, i: int) -> ComparedGraph:
        """Return what comparisons need of dataset `i`, owned or not."""
        return self._overlaps.graph(i)

    def reconstruction(self, round_: int, i: int, z: torch.Tensor) -> Losses:
        """Return the loss of one dataset's graph under its decoder; empty when it has no weight."""
        if self._config.loss.reconstruction == 0.0:
            return {}
        return {"reconstruction": self._reconstructions[i](round_, z)}

    def comparison(self, round_: int, i: int, j: int, z_i: torch.Tensor, z_j: torch.Tensor) -> Losses:
        """Return the losses between two datasets that have a weight and genes to compare."""
        weights, overlap = self._config.loss, self._overlaps.pair(i, j)
        rows_i, rows_j = self._tensor(overlap.rows_i), self._tensor(overlap.rows_j)
        losses: Losses = {}
        if weights.similarity > 0.0 and len(rows_i):
            weight = self._tensor(overlap.weight).to(self._dtype)
            losses["similarity"] = similarity(z_i[rows_i], z_j[rows_j], weight)
        if weights.contrast > 0.0:
            pair = self.graph(i), self.graph(j)
            draw = draw_contrast(self._config.seed, round_, pair, overlap, weights.n_contrast)
            if len(draw) > 1:
                rows = [draw.anchors_i, draw.anchors_j, draw.positives_i, draw.positives_j]
                a_i, a_j, p_i, p_j = (self._tensor(r) for r in rows)
                anchor, positive = torch.cat([z_i[a_i], z_j[a_j]]), torch.cat([z_i[p_i], z_j[p_j]])
                exclude = None if self._config.published.false_negatives else self._tensor(draw.exclude)
                losses["contrast"] = ntxent(anchor, positive, weights.temperature, exclude)
        if weights.alignment > 0.0 and len(rows_i) > 1:
            losses["alignment"] = alignment(z_i[rows_i], z_j[rows_j], weights.temperature)
        return losses

    def weighted(self, losses: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Return the weighted sum of losses; ``None`` of no losses."""
        parts = [getattr(self._config.loss, name) * loss for name, loss in losses.items()]
        return torch.stack(parts).sum() if parts else None

    def row(self, round_: int, i: int, j: int, values: Mapping[str, float]) -> dict[str, Any]:
        """Return the record of dataset `i` with partner `j`, see :meth:`musegnn.training.engine.Engine.round`."""
        return {
            "round": round_,
            "dataset": self._graphs[i].name,
            "partner": None if j == ALONE else self._graphs[j].name,
            "loss": sum(getattr(self._config.loss, name) * value for name, value in values.items()),
            **values,
            "n_shared": 0 if j == ALONE else len(self._overlaps.pair(i, j).rows_i),
        }

    def _tensor(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.as_tensor(array, device=self._device)
