"""The model of an atlas: encoders and decoders of the datasets that one process owns.

Legend: N genes, E edges, R profile columns, V anchor genes, d dimensions of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from musegnn.kernels.edge_attention import EdgeGraph, edge_graph
from musegnn.model.decoder import make_decoder
from musegnn.model.encoder import DatasetLayer, SharedLayers
from musegnn.model.features import DatasetMaps, NodeFeatures, Projection, dropout_mask
from musegnn.model.shared import SharedModules
from musegnn.random import stream, torch_generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from musegnn.config import ModelConfig
    from musegnn.graph import GraphData
    from musegnn.model.decoder import AnyDecoder, Decoder

UnitKind = Literal["dataset", "decoder", "shared"]


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part of a model that is stepped and stored on its own.

    Attributes
    ----------
    name
        ``dataset/NAME/layer``, ``dataset/NAME/decoder`` or ``shared/ROLE/KEY``.
    kind
        Decides the learning rate.
    module
        Holds the parameters.
    """

    name: str
    kind: UnitKind
    module: nn.Module

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters in the order of the module."""
        return list(self.module.parameters())


class AtlasModel:
    """Encoders and decoders of some datasets of an atlas.

    Weights depend on the seed and the unit's name alone, never on which process makes them.

    Parameters
    ----------
    graphs
        All datasets of the atlas.
    features
        Node features of the datasets that this process owns, by dataset index.
    config
        Sizes and options.
    n_words
        Number of anchor genes V.
    seed
        Of weights and dropout.
    dtype, device
        Of parameters and activations.

    Attributes
    ----------
    units
        All parts by name: of each owned dataset its layer and decoder, then the shared ones.
    shared
        The shared modules.
    n_relations
        F = 2V, inputs of the shared projection.
    """

    def __init__(
        self,
        graphs: Sequence[GraphData],
        features: Mapping[int, NodeFeatures],
        config: ModelConfig,
        *,
        n_words: int,
        seed: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.graphs = graphs
        self.config = config
        self.n_relations = 2 * n_words
        self.dtype = dtype
        self.device = torch.device(device)
        self.owned = sorted(features)
        self._seed = seed
        self._features = features
        passing = self.owned if config.encoder != "none" else []
        self._edges = {i: _edge_tensors(graphs[i], dtype, self.device, config) for i in passing}
        self.shared = SharedModules()
        with torch.random.fork_rng(devices=[]):  # constructors draw weights that are drawn again below
            self._make_shared(dtype, n_words)
            self._own = {i: self._make_own(i, dtype) for i in self.owned}
            self._decoders = {i: self._make_decoder(i, dtype) for i in self.owned}
        self.units: dict[str, Unit] = {}
        for i in self.owned:
            self._add_unit(self.layer_unit(i), "dataset", self._own[i])
            self._add_unit(self.decoder_unit(i), "decoder", self._decoders[i])
        for name, module in self.shared.modules.items():
            self._add_unit(name, "shared", module)

    def layer_unit(self, i: int) -> str:
        """Name the unit of dataset `i`'s own layer."""
        return f"dataset/{self.graphs[i].name}/layer"

    def decoder_unit(self, i: int) -> str:
        """Name the unit of dataset `i`'s decoder."""
        return f"dataset/{self.graphs[i].name}/decoder"

    def encode(self, i: int, *, round_: int | None = None) -> torch.Tensor:
        """Return the vectors of all genes of a dataset.

        Parameters
        ----------
        i
            A dataset of this process.
        round_
            The round of training, which keys the dropout; ``None``: without dropout.

        Returns
        -------
        torch.Tensor
            (N, d).
        """
        features, own = self._features[i], self._own[i]
        keep = self._dropout_mask("feature_dropout", i, round_, features.profile.shape)
        x: torch.Tensor = features.profile if keep is None else features.profile * keep
        if "maps" in own:
            assert features.columns is not None
            anchors = self._dropout_mask("anchor_dropout", i, round_, features.columns.shape)
            x = own["maps"](x, features.project(self._shared("projection", i), anchors))
        if "layer" not in own:
            return x
        correction = self._pass_messages(i, x, round_)
        return x + correction if "maps" in own else correction

    def maps(self, i: int) -> DatasetMaps:
        """Return the maps of dataset `i`'s own, where vectors are made of maps."""
        maps = self._own[i]["maps"]
        assert isinstance(maps, DatasetMaps)
        return maps

    def _pass_messages(self, i: int, x: torch.Tensor, round_: int | None) -> torch.Tensor:
        layer, shared = self._own[i]["layer"], self._shared("layers", i)
        for module in (layer, shared):
            module.train(round_ is not None)
        graph, edge_attr = self._edges[i]
        seed = 0
        if round_ is not None:
            seed = int(stream(self._seed, "edge_dropout", round_, self.graphs[i].name).integers(2**62))
        h = layer(x, graph, edge_attr, seed=seed)
        z: torch.Tensor = shared(h, graph, edge_attr, seed=seed + 1)
        return z

    def _shared(self, role: str, i: int) -> nn.Module:
        module = self.shared.get(role, i)
        assert module is not None
        return module

    def _dropout_mask(self, purpose: str, i: int, round_: int | None, size: Sequence[int]) -> torch.Tensor | None:
        """Draw what node features are multiplied by in a round."""
        if round_ is None:
            return None
        generator = torch_generator(self._seed, purpose, round_, self.graphs[i].name)
        like = next(iter(self._decoders[i].parameters()))
        return dropout_mask(size, self.config.feature_dropout, generator, like)

    def features(self, i: int) -> NodeFeatures:
        """Return the node features of dataset `i`."""
        return self._features[i]

    def decoder(self, i: int) -> Decoder:
        """Return the decoder of dataset `i`."""
        return self._decoders[i]

    def _make_shared(self, dtype: torch.dtype, n_words: int) -> None:
        config = self.config

        def layers(unit: str) -> nn.Module:
            module = SharedLayers(
                config.head_width * config.heads_dataset,
                config.dim,
                config.heads_shared,
                head_dim=config.head_width,
                edge_dim=config.edge_dim,
                edge_dropout=config.edge_dropout,
                convolution=config.encoder,
                gated=config.has_maps,
            ).to(dtype)
            module.reset_parameters(torch_generator(self._seed, "weights", unit))
            return module.to(self.device)

        def projection(unit: str) -> nn.Module:
            module = Projection(n_words, config.projected_width).to(dtype)
            module.reset_parameters(torch_generator(self._seed, "weights", unit))
            return module.to(self.device)

        if config.encoder != "none":
            self.shared.add("layers", self.graphs, config.share_by, layers, owned=self.owned)
        if config.has_maps:
            self.shared.add("projection", self.graphs, (), projection, owned=self.owned)

    def _make_own(self, i: int, dtype: torch.dtype) -> nn.ModuleDict:
        """Make what dataset `i` has of its own beside the decoder: ``maps`` and ``layer``, where the model has them."""
        config, n_profile = self.config, self._features[i].n_profile
        own = nn.ModuleDict()
        generator = torch_generator(self._seed, "weights", self.layer_unit(i))
        if config.has_maps:
            maps = DatasetMaps(n_profile, config.own_width, config.shared_width, config.projected_width).to(dtype)
            maps.reset_parameters(generator)
            own["maps"] = maps
        if config.encoder != "none":
            layer = DatasetLayer(
                config.dim if config.has_maps else n_profile,
                config.head_width,
                config.heads_dataset,
                edge_dim=config.edge_dim,
                edge_dropout=config.edge_dropout,
                convolution=config.encoder,
            ).to(dtype)
            if config.has_maps:  # datasets share the meaning of the maps, and so the weights that layers start from
                generator = torch_generator(self._seed, "weights", "dataset layers")
            layer.reset_parameters(generator)
            own["layer"] = layer
        return own.to(self.device)

    def _make_decoder(self, i: int, dtype: torch.dtype) -> AnyDecoder:
        config = self.config
        decoder = make_decoder(config.decoder, self.graphs[i].n_genes, dim=config.dim, width=config.decoder_width).to(
            dtype
        )
        decoder.reset_parameters(torch_generator(self._seed, "weights", self.decoder_unit(i)))
        return decoder.to(self.device)

    def _add_unit(self, name: str, kind: UnitKind, module: nn.Module) -> None:
        self.units[name] = Unit(name, kind, module)


def _edge_tensors(
    graph: GraphData, dtype: torch.dtype, device: torch.device, config: ModelConfig
) -> tuple[EdgeGraph, torch.Tensor | None]:
    edges = edge_graph(graph.edges.indptr, graph.edges.indices).to(device)
    if not config.edge_features:
        return edges, None
    return edges, torch.as_tensor(graph.edges.features, dtype=dtype, device=device)
