"""The training engine: rounds of encode, exchange, losses, gradients and one optimiser step.

The engine is the same program in every process; each owns some datasets, and a :class:`~musegnn.training.comm.Comm`
connects them. No collective runs inside autograd: vectors travel as plain copies, gradients by them travel back, and
only then does each owner run its encoder's backward pass.

Legend: T datasets, N genes of a dataset, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.errors import RunError
from musegnn.training.comm import Comm, LocalComm, add_ascending
from musegnn.training.diagnostics import compare_pair
from musegnn.training.losses import alignment, ntxent, similarity
from musegnn.training.overlap import Overlaps
from musegnn.training.phases import Phases
from musegnn.training.reconstruction import Reconstruction
from musegnn.training.schedule import ALONE, draw_alignment, draw_contrast, participants, partners

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from torch import nn

    from musegnn.config import TrainingConfig
    from musegnn.model.model import AtlasModel, Unit

COMPARED = 3


class NotFiniteError(RunError):
    """A loss or a gradient is not finite.

    Attributes
    ----------
    datasets
        Whose.
    """

    datasets: tuple[str, ...] = ()


class Engine:
    """Trains the datasets that this process owns.

    Parameters
    ----------
    model
        The model of the owned datasets.
    config
        Losses, learning rates, order and seed.
    comm
        The group of processes; ``None``: this one alone.
    phases
        Told what is being done.
    left_out
        Datasets of the atlas that take no part.

    Attributes
    ----------
    watched
        Records of :func:`musegnn.training.diagnostics.compare_pair` that nobody has taken yet.

    Raises
    ------
    ValueError
        When the order is ``sequential`` and there is more than one process.
    """

    def __init__(
        self,
        model: AtlasModel,
        config: TrainingConfig,
        *,
        comm: Comm | None = None,
        phases: Phases | None = None,
        left_out: Collection[int] = (),
    ) -> None:
        self.model = model
        self.config = config
        self.comm: Comm = LocalComm(config.reduce) if comm is None else comm
        self.phases = Phases() if phases is None else phases
        if config.order == "sequential" and self.comm.size > 1:
            msg = "sequential order runs in one process"
            raise ValueError(msg)
        self._graphs = model.graphs
        self._overlaps = Overlaps(model.graphs)
        self._reconstructions = {
            i: Reconstruction(model.decoder(i), model.graphs[i], config, device=model.device) for i in model.owned
        }
        rates = {"dataset": config.lr_dataset, "shared": config.lr_shared, "decoder": config.lr_decoder}
        by_kind = {kind: [u for u in model.units.values() if u.kind == kind] for kind in rates}
        self._optimizer = torch.optim.Adam(
            [{"params": [p for u in units for p in u.parameters], "lr": rates[kind]} for kind, units in by_kind.items()],
            fused=True,
        )
        self._layers = {model.layer_unit(i): i for i in model.owned}
        self._left_out = frozenset(left_out)
        self._previous: dict[int | None, torch.Tensor] = {}
        self.watched: list[dict[str, Any]] = []

    def round(self, round_: int, *, before_step: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
        """Train one round: every dataset is once the subject.

        Parameters
        ----------
        round_
            Number of the round, from 1.
        before_step
            Called when all processes have agreed on the step and before any weight changes; in sequential order before
            the first dataset.

        Returns
        -------
        list of dict
            Per owned dataset that takes part: ``round``, ``dataset``, ``partner``, ``loss`` (weighted sum), the
            unweighted losses that took part and ``n_shared`` genes compared.

        Raises
        ------
        RunError
            E410 when a loss or a gradient is not finite. No weight has changed then in parallel order; in
            sequential order the datasets before the one named have taken their steps.
        """
        if self.config.order == "sequential":
            return self._sequential(round_, before_step)
        return self._parallel(round_, before_step)

    def compare(self) -> None:
        """Note how well the genes of each dataset find themselves in some others, without a round."""
        with torch.no_grad():
            z = {i: self.model.encode(i) for i in self.model.owned if i not in self._left_out}
        compared: set[tuple[int, int]] = set()
        for draw in range(1, COMPARED + 1):
            partner = self._partners(draw)
            mine = {i: x for i, x in z.items() if i in partner}
            others = self.comm.exchange(mine, partner)()
            for i in mine:
                pair = (i, partner[i])
                if partner[i] >= 0 and pair not in compared:
                    compared.add(pair)
                    self._watch(0, *pair, z[i], others[partner[i]])

    def _parallel(self, round_: int, before_step: Callable[[], None]) -> list[dict[str, Any]]:
        config, enter = self.config, self.phases.enter
        partner = self._partners(round_)
        owned = [i for i in self.model.owned if i in partner]
        kept = {i: self._previous.get(i) for i in owned} if config.exchange == "stale" else {}
        z: dict[int, torch.Tensor] = {}
        for i in owned:
            enter("encode", round_, self._graphs[i].name)
            with torch.set_grad_enabled(not config.recompute):
                z[i] = self.model.encode(i, round_=round_)
        leaves = {i: z[i].detach().requires_grad_() for i in owned}
        sent = {i: leaf.detach() for i, leaf in leaves.items()} | {i: old for i, old in kept.items() if old is not None}
        receive = self.comm.exchange(sent, partner)
        if config.exchange == "stale":
            self._previous |= {i: leaf.detach().clone() for i, leaf in leaves.items()}
        rows: dict[int, dict[str, Any]] = {}
        losses: dict[int, dict[str, torch.Tensor]] = {}
        by_own: dict[int, torch.Tensor | None] = {}
        by_other: dict[int, torch.Tensor] = {}
        decoder_gradients: dict[int, list[torch.Tensor | None]] = {}
        for i in owned:
            enter("reconstruct", round_, self._graphs[i].name)
            found = self._reconstruction(round_, i, leaves[i])
            decoder = self._unit(self.model.decoder_unit(i)).parameters
            by_own[i], *decoder_gradients[i] = _gradients(self._weighted(found), [leaves[i], *decoder])
            losses[i] = {name: loss.detach() for name, loss in found.items()}
        enter("exchange", round_)
        others = receive()
        for i in owned:
            enter("compare", round_, self._graphs[i].name)
            compared: dict[str, torch.Tensor] = {}
            if partner[i] >= 0:
                other = others[partner[i]].detach().requires_grad_(config.exchange == "exact")
                compared = self._comparison(round_, i, partner[i], leaves[i], other)
                wanted = [leaves[i], other] if other.requires_grad else [leaves[i]]
                gradients = _gradients(self._weighted(compared), wanted)
                by_own[i] = _add(by_own[i], gradients[0])
                if other.requires_grad and gradients[1] is not None:
                    by_other[i] = gradients[1]
                self._watch(round_, i, partner[i], leaves[i], other)
            rows[i] = self._row(round_, i, partner[i], losses[i] | compared)
        returned = by_other
        if config.exchange == "exact":
            collect = self.comm.return_gradients(by_other, partner)
            enter("return", round_)
            returned = collect()
        layer_gradients, contributions = self._backward(round_, z, by_own, returned, partner)
        enter("reduce", round_)
        bad = _not_finite(rows, [layer_gradients, decoder_gradients], contributions)
        reduction = self.comm.reduce(contributions, self.model.shared.members, bad)
        self._refuse(round_, reduction.objections)
        before_step()
        enter("step", round_)
        gradients = {self.model.layer_unit(i): layer_gradients[i] for i in owned}
        gradients |= {self.model.decoder_unit(i): decoder_gradients[i] for i in owned}
        for name, total in reduction.sums.items():
            gradients[name] = list(_unflatten(total, self._unit(name).parameters))
        self._step(gradients)
        return [rows[i] for i in owned]

    def _partners(self, round_: int) -> dict[int, int]:
        """Return the partner of each dataset that takes part in this round, -1 when it is the only one."""
        law = "uniform" if self.config.order == "sequential" else self.config.partners
        size = None if self.config.order == "sequential" else self.config.round_size
        chosen = participants(self.config.seed, round_, len(self._graphs), size)
        members = [i for i in chosen if i not in self._left_out]
        found = partners(self.config.seed, round_, len(members), law).tolist()
        return {i: members[k] if k >= 0 else ALONE for i, k in zip(members, found, strict=True)}

    def _backward(
        self,
        round_: int,
        z: Mapping[int, torch.Tensor],
        by_own: Mapping[int, torch.Tensor | None],
        returned: Mapping[int, torch.Tensor],
        partner: Mapping[int, int],
    ) -> tuple[dict[int, list[torch.Tensor | None]], dict[str, dict[int, torch.Tensor]]]:
        """Run the encoders' backward passes on the gradients by their vectors, added in ascending dataset index."""
        layer_gradients: dict[int, list[torch.Tensor | None]] = {}
        contributions: dict[str, dict[int, torch.Tensor]] = {}
        for j in z:
            self.phases.enter("backward", round_, self._graphs[j].name)
            parts = {i: gradient for i, gradient in returned.items() if partner[i] == j}
            own = by_own[j]
            if own is not None:
                parts[j] = own
            layer = self._unit(self.model.layer_unit(j)).parameters
            if not parts:
                layer_gradients[j] = [None] * len(layer)
                continue
            names = self.model.shared.units(j)
            shared = [self._unit(name).parameters for name in names]
            wanted = [*layer, *(p for unit in shared for p in unit)]
            z_j = self.model.encode(j, round_=round_) if self.config.recompute else z[j]
            along = (z_j * add_ascending(parts)).sum()  # whose gradient by z is the parts' sum to the bit
            found = iter(_gradients(along, wanted))
            layer_gradients[j] = [next(found) for _ in layer]
            for name, parameters in zip(names, shared, strict=True):
                contributions.setdefault(name, {})[j] = _flatten([next(found) for _ in parameters], parameters)
        return layer_gradients, contributions

    def _sequential(self, round_: int, before_step: Callable[[], None]) -> list[dict[str, Any]]:
        model = self.model
        partner = self._partners(round_)
        rows = []
        before_step()
        for i, j in partner.items():
            self.phases.enter("encode", round_, self._graphs[i].name)
            z_i = model.encode(i, round_=round_)
            losses = self._reconstruction(round_, i, z_i)
            touched = [model.layer_unit(i), model.decoder_unit(i), *model.shared.units(i)]
            if j >= 0:
                z_j = model.encode(j, round_=round_)
                losses |= self._comparison(round_, i, j, z_i, z_j)
                touched += [name for name in (model.layer_unit(j), *model.shared.units(j)) if name not in touched]
                self._watch(round_, i, j, z_i, z_j)
            row = self._row(round_, i, j, losses)
            units = [self._unit(name) for name in touched]
            found = iter(_gradients(self._weighted(losses), [p for unit in units for p in unit.parameters]))
            gradients = {unit.name: [next(found) for _ in unit.parameters] for unit in units}
            self._refuse(round_, _not_finite({i: row}, [{i: parts} for parts in gradients.values()], {}))
            self._step(gradients)
            rows.append(row)
        return rows

    def _watch(self, round_: int, i: int, j: int, z_i: torch.Tensor, z_j: torch.Tensor) -> None:
        """At checkpoints, note how well a dataset's genes find themselves in its partner."""
        if round_ % self.config.checkpoint_every and round_ != self.config.rounds:
            return
        own, other = (z.detach().double().cpu().numpy() for z in (z_i, z_j))
        record = compare_pair(self._graphs[i], self._graphs[j], own, other, round_)
        if record is not None:
            self.watched.append(record)

    def _reconstruction(self, round_: int, i: int, z: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.config.loss.reconstruction == 0.0:
            return {}
        return {"reconstruction": self._reconstructions[i](round_, z)}

    def _comparison(self, round_: int, i: int, j: int, z_i: torch.Tensor, z_j: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the losses between two datasets that have a weight and genes to compare."""
        weights, seed = self.config.loss, self.config.seed
        overlap, pair = self._overlaps.pair(i, j), (self._graphs[i], self._graphs[j])
        rows_i, rows_j, weight = self._shared_genes(i, j)
        losses: dict[str, torch.Tensor] = {}
        if weights.similarity > 0.0 and len(rows_i):
            losses["similarity"] = similarity(z_i[rows_i], z_j[rows_j], weight, normalize=weights.normalize)
        if weights.contrast > 0.0:
            draw = draw_contrast(seed, round_, pair, overlap, weights.n_contrast)
            if len(draw) > 1:
                rows = [draw.anchors_i, draw.anchors_j, draw.positives_i, draw.positives_j]
                a_i, a_j, p_i, p_j = (self._tensor(r) for r in rows)
                anchor, positive = torch.cat([z_i[a_i], z_j[a_j]]), torch.cat([z_i[p_i], z_j[p_j]])
                exclude = self._tensor(draw.exclude) if weights.exclude_neighbours else None
                losses["contrast"] = ntxent(anchor, positive, weights.temperature, exclude)
        if weights.alignment > 0.0 and len(rows_i) > 1:
            names = (pair[0].name, pair[1].name)
            drawn = self._tensor(draw_alignment(seed, round_, names, len(rows_i), weights.n_alignment))
            aligned = z_i[rows_i[drawn]], z_j[rows_j[drawn]]
            losses["alignment"] = alignment(*aligned, None, weights.alignment_temperature)
        return losses

    def _shared_genes(self, i: int, j: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        overlap = self._overlaps.pair(i, j)
        weight = self._tensor(overlap.weight).to(getattr(torch, self.config.dtype))
        return self._tensor(overlap.rows_i), self._tensor(overlap.rows_j), weight

    def _weighted(self, losses: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        parts = [getattr(self.config.loss, name) * loss for name, loss in losses.items()]
        return None if not parts else torch.stack(parts).sum()

    def _row(self, round_: int, i: int, j: int, losses: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        values = {name: loss.item() for name, loss in losses.items()}
        return {
            "round": round_,
            "dataset": self._graphs[i].name,
            "partner": self._graphs[j].name if j >= 0 else None,
            "loss": sum(getattr(self.config.loss, name) * value for name, value in values.items()),
            **values,
            "n_shared": len(self._overlaps.pair(i, j).rows_i) if j >= 0 else 0,
        }

    def _refuse(self, round_: int, objections: Collection[int]) -> None:
        """Stop before any step when a loss or a gradient of any process is not finite."""
        if objections:
            names = tuple(self._graphs[i].name for i in sorted(objections))
            found = f"(datasets: {', '.join(names)}; seed {self.config.seed})"
            msg, fix = f"round {round_}: a loss or a gradient is not finite {found}", "lower the learning rates"
            error = NotFiniteError(msg, code="E410", where="training", fix=f"{fix}, or leave the dataset out")
            error.datasets = names
            raise error

    def _step(self, gradients: Mapping[str, Sequence[torch.Tensor | None]]) -> None:
        """Take one step of Adam on some units; a parameter without a gradient keeps its weights and moments."""
        for name, parts in gradients.items():
            for parameter, gradient in zip(self._unit(name).parameters, parts, strict=True):
                parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad()

    def leave_out(self, datasets: Iterable[int]) -> None:
        """Let more datasets take no part from now on."""
        self._left_out |= frozenset(datasets)

    def state(self, unit: str) -> dict[str, torch.Tensor]:
        """Return the weights and Adam moments of a unit, on the CPU.

        Returns
        -------
        dict
            ``weight/NAME`` and, once a parameter has been stepped, ``adam/NAME/KEY``; with ``exchange: stale`` also
            ``vectors``, which others compare with in the next round, beside the weights of a dataset's layer.
        """
        state: dict[str, torch.Tensor] = {}
        owner = self._layers.get(unit)
        if owner in self._previous:
            state["vectors"] = self._previous[owner].cpu()
        for name, parameter in self._unit(unit).module.named_parameters():
            state[f"weight/{name}"] = parameter.detach().cpu().contiguous()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                state[f"adam/{name}/{key}"] = value.detach().cpu().contiguous()
        return state

    def load_state(self, unit: str, state: Mapping[str, torch.Tensor]) -> None:
        """Set the weights and Adam moments of a unit to what :meth:`state` gave.

        Raises
        ------
        RunError
            E402 when names or shapes are not those of this model.
        """
        expected = {f"weight/{name}": p for name, p in self._unit(unit).module.named_parameters()}
        weights = {key: value for key, value in state.items() if key.startswith("weight/")}
        if {k: v.shape for k, v in weights.items()} != {k: p.shape for k, p in expected.items()}:
            msg = f"the weights of `{unit}` are not those of this model"
            raise RunError(msg, code="E402", where="checkpoint", fix="use the configuration and store of the run")
        optimizer = self._optimizer
        for key, parameter in expected.items():
            with torch.no_grad():
                parameter.copy_(weights[key])
            optimizer.state.pop(parameter, None)
            prefix = f"adam/{key.removeprefix('weight/')}/"
            moments = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if moments:
                optimizer.state[parameter] = {k: v.clone().to(parameter.device) for k, v in moments.items()}
        if unit in self._layers:
            self._previous.pop(self._layers[unit], None)
            if "vectors" in state:
                self._previous[self._layers[unit]] = state["vectors"].clone().to(self.model.device)

    def _unit(self, name: str) -> Unit:
        return self.model.units[name]

    def _tensor(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.as_tensor(array, device=self.model.device)


def _gradients(loss: torch.Tensor | None, wanted: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    if loss is None:
        return [None] * len(wanted)
    return list(torch.autograd.grad(loss, wanted, allow_unused=True))


def _add(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def _flatten(gradients: Sequence[torch.Tensor | None], parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    return torch.cat([part.reshape(-1) for part in parts])


def _unflatten(flat: torch.Tensor, parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    parts = torch.split(flat, [p.numel() for p in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]


def _not_finite(
    rows: Mapping[int, dict[str, Any]],
    gradients: Sequence[Mapping[int, Sequence[torch.Tensor | None]]],
    contributions: Mapping[str, Mapping[int, torch.Tensor]],
) -> set[int]:
    """Return the datasets with a loss or a gradient that is not finite."""
    bad = {i for i, row in rows.items() if not np.isfinite(row["loss"])}
    for group in gradients:
        bad |= {i for i, parts in group.items() if not _all_finite([part for part in parts if part is not None])}
    for parts in contributions.values():
        bad |= {i for i, part in parts.items() if not _all_finite([part])}
    return bad


def _all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    # The sum of entries that are not all finite is not finite; entries so large that their sum overflows are no better.
    return all(bool(torch.isfinite(tensor.sum())) for tensor in tensors)
