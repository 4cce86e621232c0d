"""The model of an atlas.

Legend: N genes, E edges, R profile columns, V anchor genes, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from musegnn.graph import GraphData
from musegnn.kernels.edge_attention import EdgeGraph, edge_graph
from musegnn.model.conv import EdgeFeaturedTransformerConv
from musegnn.model.decoder import Decoder, make_decoder
from musegnn.model.encoder import DatasetLayer, SharedLayers
from musegnn.model.features import DatasetMaps, NodeFeatures, Projection, dropout_mask
from musegnn.model.shared import SharedModules
from musegnn.random import torch_generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from musegnn.config import ModelConfig
    from musegnn.graph import AtlasGraph
    from musegnn.model.encoder import MakeConvolution

UnitKind = Literal["dataset", "decoder", "shared"]


class AtlasModel(nn.Module):
    """Encoders and decoders of the datasets that one process owns, those in `features`, among all `graphs`.

    Weights depend on the seed and the unit's name alone, never on which process makes them.

    Attributes
    ----------
    units
        The smallest parts that are stepped and stored on their own, by name: of each owned dataset
        ``dataset/NAME/layer`` and ``dataset/NAME/decoder``, then the shared ones, ``shared/ROLE/KEY``.
    """

    convolution: ClassVar[MakeConvolution] = EdgeFeaturedTransformerConv

    def __init__(
        self,
        graphs: Sequence[AtlasGraph],
        features: Mapping[int, NodeFeatures],
        config: ModelConfig,
        *,
        n_anchors: int,
        seed: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.graphs = graphs
        self.config = config
        self.n_anchors = n_anchors
        self.dtype = dtype
        self.device = torch.device(device)
        self.owned = sorted(features)
        self._seed = seed
        self._features = features
        passing = self.owned if config.encoder != "none" else []
        self._edges = {i: _edge_tensors(self.graph(i), dtype, self.device, config) for i in passing}
        self.shared = SharedModules()
        with torch.random.fork_rng(devices=[]):  # constructors draw weights that are drawn again below
            self._add_shared()
            self._own = nn.ModuleDict({str(i): self._make_own(i) for i in self.owned})
            self._decoders = nn.ModuleDict({str(i): self._make_decoder(i) for i in self.owned})
        self.units: dict[str, nn.Module] = {}
        for i in self.owned:
            self.units[self.layer_unit(i)] = self._own[str(i)]
            self.units[self.decoder_unit(i)] = self._decoders[str(i)]
        self.units |= self.shared.by_unit

    def layer_unit(self, i: int) -> str:
        """Return the name of the unit of dataset `i`'s maps and layer."""
        return f"dataset/{self.graphs[i].name}/layer"

    def decoder_unit(self, i: int) -> str:
        """Return the name of the unit of dataset `i`'s decoder."""
        return f"dataset/{self.graphs[i].name}/decoder"

    @staticmethod
    def kind(unit: str) -> UnitKind:
        """Return the kind of a unit, which decides its learning rate."""
        if unit.startswith("shared/"):
            return "shared"
        return "decoder" if unit.endswith("/decoder") else "dataset"

    def encode(self, i: int, *, round_: int | None = None) -> torch.Tensor:
        """Return the vectors of an owned dataset, shape (N, d); the dropout is keyed by `round_`, ``None``: without."""
        features, own = self._features[i], self._own[str(i)]
        assert isinstance(own, nn.ModuleDict)
        keep = self._dropout_mask("feature_dropout", i, round_, features.profile.shape)
        x: torch.Tensor = features.profile if keep is None else keep.mul_(features.profile)
        if "maps" in own:
            assert features.columns is not None
            anchors = self._dropout_mask("anchor_dropout", i, round_, features.columns.shape)
            x = own["maps"](x, features.project(self._shared("projection", i), anchors), features.extra)
        if "layer" not in own:
            return x
        graph, edge_attr = self._edges[i]
        correction: torch.Tensor = self._shared("layers", i)(own["layer"](x, graph, edge_attr), graph, edge_attr)
        return x + correction if "maps" in own else correction

    def graph(self, i: int) -> GraphData:
        """Return the graph of an owned dataset."""
        graph = self.graphs[i]
        assert isinstance(graph, GraphData)
        return graph

    def maps(self, i: int) -> DatasetMaps:
        """Return the maps of dataset `i`, where vectors are made of maps."""
        maps = self._own[str(i)].get_submodule("maps")
        assert isinstance(maps, DatasetMaps)
        return maps

    def features(self, i: int) -> NodeFeatures:
        """Return the node features of dataset `i`."""
        return self._features[i]

    def decoder(self, i: int) -> Decoder:
        """Return the decoder of dataset `i`."""
        decoder = self._decoders[str(i)]
        assert isinstance(decoder, Decoder)
        return decoder

    def _shared(self, role: str, i: int) -> nn.Module:
        module = self.shared.get(role, i)
        assert module is not None
        return module

    def _dropout_mask(self, purpose: str, i: int, round_: int | None, size: Sequence[int]) -> torch.Tensor | None:
        if round_ is None:
            return None
        generator = torch_generator(self._seed, purpose, round_, self.graphs[i].name)
        return dropout_mask(size, self.config.feature_dropout, generator, self._features[i].profile)

    def _add_shared(self) -> None:
        config = self.config

        def layers(unit: str) -> nn.Module:
            return self._drawn(make_shared_layers(config, self.convolution), unit)

        def projection(unit: str) -> nn.Module:
            return self._drawn(Projection(self.n_anchors, config.projected_width), unit)

        if config.encoder != "none":
            self.shared.add("layers", self.graphs, config.share_by, layers, owned=self.owned)
        if config.has_maps:
            self.shared.add("projection", self.graphs, (), projection, owned=self.owned)

    def _make_own(self, i: int) -> nn.ModuleDict:
        features, unit = self._features[i], self.layer_unit(i)
        n_extra = 0 if features.extra is None else features.extra.shape[1]
        own = make_own(self.config, features.n_profile, self.convolution, n_extra=n_extra)
        for part, module in own.items():
            # datasets share the meaning of the maps, and so the weights that layers start from
            alike = part == "layer" and self.config.has_maps
            self._drawn(module, "dataset layers" if alike else unit)
        return own

    def _make_decoder(self, i: int) -> nn.Module:
        decoder = make_decoder(self.config.decoder, self.graph(i).n_genes, dim=self.config.dim)
        return self._drawn(decoder, self.decoder_unit(i))

    def _drawn(self, module: Any, *key: str) -> nn.Module:  # torch's type of modules lacks reset_parameters
        """Draw the weights of a module and move it to the device."""
        module.to(self.dtype).reset_parameters(torch_generator(self._seed, "weights", *key))
        moved: nn.Module = module.to(self.device)
        return moved


def make_own(
    config: ModelConfig,
    n_profile: int,
    convolution: MakeConvolution = EdgeFeaturedTransformerConv,
    *,
    n_extra: int = 0,
) -> nn.ModuleDict:
    """Make the ``maps`` and the ``layer`` of one dataset, where the model has them, without drawing their weights."""
    own = nn.ModuleDict()
    if config.has_maps:
        widths = config.own_width, config.shared_width, config.projected_width
        own["maps"] = DatasetMaps(n_profile, *widths, n_extra=n_extra)
    if config.encoder != "none":
        width = config.dim if config.has_maps else n_profile
        own["layer"] = DatasetLayer(
            width, config.head_width, config.heads_dataset, edge_dim=config.edge_dim, convolution=convolution
        )
    return own


def make_shared_layers(config: ModelConfig, convolution: MakeConvolution = EdgeFeaturedTransformerConv) -> SharedLayers:
    """Make the layers that a group of datasets shares, without drawing their weights."""
    return SharedLayers(
        config.head_width * config.heads_dataset,
        config.dim,
        config.heads_shared,
        head_dim=config.head_width,
        edge_dim=config.edge_dim,
        convolution=convolution,
        gated=config.has_maps,
    )


def _edge_tensors(
    graph: GraphData, dtype: torch.dtype, device: torch.device, config: ModelConfig
) -> tuple[EdgeGraph, torch.Tensor | None]:
    edges = edge_graph(graph.edges.indptr, graph.edges.indices).to(device)
    if not config.edge_features:
        return edges, None
    return edges, torch.as_tensor(graph.edges.features, dtype=dtype, device=device)
