"""The training engine: rounds of encode, exchange, losses, gradients and one optimiser step.

The engine is the same program in every process; each owns some datasets, and a :class:`~musegnn.training.comm.Comm`
connects them. No collective runs inside autograd: vectors travel as plain copies, gradients by them travel back, and
only then does each owner run its encoder's backward pass.

Legend: T datasets, N genes of a dataset, d dimensions of the embedding.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from musegnn.errors import RunError
from musegnn.training.checkpoint import load_weights
from musegnn.training.comm import Comm, LocalComm, add_ascending, read_numbers
from musegnn.training.diagnostics import compare_pair
from musegnn.training.objective import Objective
from musegnn.training.phases import Phases
from musegnn.training.schedule import ALONE, participants, partners

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from musegnn.config import TrainingConfig
    from musegnn.model.model import AtlasModel
    from musegnn.training.phases import Phase

    Gradients = list[torch.Tensor | None]

Result = TypeVar("Result")

COMPARED = 3


class NotFiniteError(RunError):
    """A loss or a gradient of some ``datasets``, by name, is not finite."""

    datasets: tuple[str, ...] = ()


@dataclass(slots=True)
class DatasetRound:
    """The state of one dataset of this process in a round of parallel order; ``partner`` is -1 when there is none.

    Attributes
    ----------
    z, leaf
        Vectors of its genes from the encoder, (N, d), and the leaf by which the losses are differentiated.
    by_own, by_partner
        Gradients of its losses by its own vectors and by those of the partner.
    units, contributions
        Gradients by the parameters of its layer and decoder, and flat ones by those of shared units, by unit.
    """

    index: int
    partner: int
    z: torch.Tensor
    leaf: torch.Tensor
    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    by_own: torch.Tensor | None = None
    by_partner: torch.Tensor | None = None
    units: dict[str, Gradients] = field(default_factory=dict)
    contributions: dict[str, torch.Tensor] = field(default_factory=dict)

    def numbers(self) -> list[torch.Tensor]:
        """Return the losses, and a number per gradient that is finite when the gradient is."""
        return [*self.losses.values(), *_sums([*self.units.values(), list(self.contributions.values())])]


class Engine:
    """Trains the datasets that this process owns.

    Parameters
    ----------
    comm
        The group of processes; ``None``: this one alone.
    left_out
        Datasets of the atlas that take no part.
    at_a_time
        Datasets computed at a time, each by a thread of its own; it changes no bit. In a group of processes it is 1.

    Attributes
    ----------
    watched
        Records of :func:`musegnn.training.diagnostics.compare_pair` that nobody has taken yet.

    Raises
    ------
    ValueError
        When the order of steps is sequential and there is more than one process.
    """

    def __init__(
        self,
        model: AtlasModel,
        config: TrainingConfig,
        *,
        comm: Comm | None = None,
        phases: Phases | None = None,
        left_out: Collection[int] = (),
        at_a_time: int = 1,
    ) -> None:
        self.model = model
        self.config = config
        self.comm: Comm = LocalComm() if comm is None else comm
        self.phases = Phases() if phases is None else phases
        if config.published.sequential and self.comm.size > 1:
            msg = "sequential order runs in one process"
            raise ValueError(msg)
        self.objective = Objective(model, config)
        self.watched: list[dict[str, Any]] = []
        self._graphs = model.graphs
        self._left_out = frozenset(left_out)
        self._pool = ThreadPoolExecutor(at_a_time, thread_name_prefix="dataset") if at_a_time > 1 else None
        self._parameters = {name: list(unit.parameters()) for name, unit in model.units.items()}

    @cached_property
    def _optimizer(self) -> torch.optim.Adam:
        """The optimiser; made at the first step, as torch.optim takes memory and seconds to load."""
        config, groups = self.config, []
        rates = {"dataset": config.lr_dataset, "shared": config.lr_shared, "decoder": config.lr_decoder}
        for kind, rate in rates.items():
            units = [unit for unit in self._parameters if self.model.kind(unit) == kind]
            groups.append({"params": [p for unit in units for p in self._parameters[unit]], "lr": rate})
        return torch.optim.Adam(groups, fused=True)

    def round(self, round_: int, *, before_step: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
        """Train one round, `round_` from 1: every dataset is once the subject.

        Parameters
        ----------
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
        NotFiniteError
            E410. In parallel order no weight has changed; in sequential order earlier datasets have taken their steps.
        """
        if self.config.published.sequential:
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
                    self.watched += self._watch(0, *pair, z[i], others[partner[i]])

    def leave_out(self, datasets: Iterable[int]) -> None:
        """Let more datasets take no part from now on."""
        self._left_out |= frozenset(datasets)

    def state(self, unit: str) -> dict[str, torch.Tensor]:
        """Return the state of a unit on the CPU: ``weight/NAME`` and, once it was stepped, ``adam/NAME/KEY``."""
        state: dict[str, torch.Tensor] = {}
        moments = self._optimizer.state if "_optimizer" in vars(self) else {}
        for name, parameter in self.model.units[unit].named_parameters():
            state[f"weight/{name}"] = parameter.detach().cpu().contiguous()
            for key, value in moments.get(parameter, {}).items():
                state[f"adam/{name}/{key}"] = value.detach().cpu().contiguous()
        return state

    def load_state(self, unit: str, state: Mapping[str, torch.Tensor]) -> None:
        """Set the weights and Adam moments of a unit to a result of :meth:`state`.

        Raises
        ------
        RunError
            E402 when names or shapes are not those of this model.
        """
        load_weights(self.model.units[unit], unit, state)
        for name, parameter in self.model.units[unit].named_parameters():
            prefix = f"adam/{name}/"
            moments = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if "_optimizer" in vars(self):
                self._optimizer.state.pop(parameter, None)
            if moments:
                self._optimizer.state[parameter] = {k: v.clone().to(parameter.device) for k, v in moments.items()}

    def _parallel(self, round_: int, before_step: Callable[[], None]) -> list[dict[str, Any]]:
        model, objective = self.model, self.objective
        partner = self._partners(round_)

        def encode(i: int) -> DatasetRound:
            with torch.set_grad_enabled(not self.config.recompute):
                z = model.encode(i, round_=round_)
            return DatasetRound(i, partner[i], z, z.detach().requires_grad_())

        def reconstruct(i: int) -> None:
            d, unit = own[i], model.decoder_unit(i)
            losses = objective.reconstruction(round_, i, d.leaf)
            d.by_own, *d.units[unit] = _gradients(objective.weighted(losses), [d.leaf, *self._parameters[unit]])
            d.losses = _detached(losses)

        def compare(i: int) -> list[dict[str, Any]]:
            d, j = own[i], partner[i]
            if j == ALONE:
                return []
            other = others[j].detach().requires_grad_()
            losses = objective.comparison(round_, i, j, d.leaf, other)
            by_own, d.by_partner = _gradients(objective.weighted(losses), [d.leaf, other])
            d.by_own = _add(d.by_own, by_own)
            d.losses |= _detached(losses)
            return self._watch(round_, i, j, d.leaf, other)

        def backward(i: int) -> None:
            self._backward(round_, own[i], {k: g for k, g in returned.items() if partner[k] == i})

        datasets = self._each("encode", round_, [i for i in model.owned if i in partner], encode)
        own = {d.index: d for d in datasets}
        receive = self.comm.exchange({i: d.leaf.detach() for i, d in own.items()}, partner)
        self._each("reconstruct", round_, own, reconstruct)
        self.phases.enter("exchange", round_)
        others = receive()
        for records in self._each("compare", round_, own, compare):
            self.watched += records
        by_partner = {i: d.by_partner for i, d in own.items() if d.by_partner is not None}
        collect = self.comm.return_gradients(by_partner, partner)
        self.phases.enter("return", round_)
        returned = collect()
        self._each("backward", round_, own, backward)
        self.phases.enter("reduce", round_)
        contributions: dict[str, dict[int, torch.Tensor]] = {}
        for i, d in own.items():
            for unit, flat in d.contributions.items():
                contributions.setdefault(unit, {})[i] = flat
        rows, bad = self._read(round_, datasets)
        reduction = self.comm.reduce(contributions, model.shared.members, bad)
        self._refuse(round_, reduction.objections)
        before_step()
        self.phases.enter("step", round_)
        gradients = {unit: parts for d in datasets for unit, parts in d.units.items()}
        gradients |= {unit: _unflatten(flat, self._parameters[unit]) for unit, flat in reduction.sums.items()}
        self._step(gradients)
        return rows

    def _read(self, round_: int, datasets: Sequence[DatasetRound]) -> tuple[list[dict[str, Any]], set[int]]:
        """Return the records of datasets, and those of them that are not finite, from one read of the device."""
        numbers = [d.numbers() for d in datasets]
        found = iter(read_numbers([number for each in numbers for number in each]))
        rows, bad = [], set()
        for d, each in zip(datasets, numbers, strict=True):
            values = [next(found) for _ in each]
            row = self.objective.row(round_, d.index, d.partner, dict(zip(d.losses, values, strict=False)))
            rows.append(row)
            if not np.isfinite([row["loss"], *values]).all():
                bad.add(d.index)
        return rows, bad

    def _backward(self, round_: int, d: DatasetRound, returned: dict[int, torch.Tensor]) -> None:
        """Run the encoder's backward pass on the gradients by its vectors, added in ascending dataset index."""
        parts = returned if d.by_own is None else returned | {d.index: d.by_own}
        layer, shared = self.model.layer_unit(d.index), self.model.shared.units(d.index)
        if not parts:
            d.units[layer] = [None] * len(self._parameters[layer])
            return
        z = self.model.encode(d.index, round_=round_) if self.config.recompute else d.z
        wanted = [p for unit in (layer, *shared) for p in self._parameters[unit]]
        found = iter(torch.autograd.grad(z, wanted, add_ascending(parts), allow_unused=True))
        d.units[layer] = [next(found) for _ in self._parameters[layer]]
        for unit in shared:
            d.contributions[unit] = _flatten([next(found) for _ in self._parameters[unit]], self._parameters[unit])

    def _sequential(self, round_: int, before_step: Callable[[], None]) -> list[dict[str, Any]]:
        model, objective = self.model, self.objective
        partner = self._partners(round_)
        rows = []
        before_step()
        for i, j in partner.items():
            self.phases.enter("encode", round_, self._graphs[i].name)
            z_i = model.encode(i, round_=round_)
            losses = objective.reconstruction(round_, i, z_i)
            units = [model.layer_unit(i), model.decoder_unit(i), *model.shared.units(i)]
            if j != ALONE:
                z_j = model.encode(j, round_=round_)
                losses |= objective.comparison(round_, i, j, z_i, z_j)
                units += [unit for unit in (model.layer_unit(j), *model.shared.units(j)) if unit not in units]
                self.watched += self._watch(round_, i, j, z_i, z_j)
            found = iter(_gradients(objective.weighted(losses), [p for u in units for p in self._parameters[u]]))
            gradients = {unit: [next(found) for _ in self._parameters[unit]] for unit in units}
            values = read_numbers([*_detached(losses).values(), *_sums(gradients.values())])
            row = objective.row(round_, i, j, dict(zip(losses, values, strict=False)))
            self._refuse(round_, () if np.isfinite([row["loss"], *values]).all() else (i,))
            self._step(gradients)
            rows.append(row)
        return rows

    def _each(self, phase: Phase, round_: int, datasets: Iterable[int], work: Callable[[int], Result]) -> list[Result]:
        """Do the work of datasets, each under a phase of its own, and return their results in order."""

        def one(i: int) -> Result:
            self.phases.enter(phase, round_, self._graphs[i].name)
            return work(i)

        return [one(i) for i in datasets] if self._pool is None else list(self._pool.map(one, datasets))

    def _partners(self, round_: int) -> dict[int, int]:
        """Return the partner of each dataset that takes part in this round, -1 when it is the only one."""
        seed, is_sequential = self.config.seed, self.config.published.sequential
        size = None if is_sequential else self.config.round_size
        members = [i for i in participants(seed, round_, len(self._graphs), size) if i not in self._left_out]
        found = partners(seed, round_, len(members), "uniform" if is_sequential else "cycle").tolist()
        return {i: members[k] if k >= 0 else ALONE for i, k in zip(members, found, strict=True)}

    def _watch(self, round_: int, i: int, j: int, z_i: torch.Tensor, z_j: torch.Tensor) -> list[dict[str, Any]]:
        """Return at checkpoints a record of how well a dataset's genes find themselves in its partner, else none."""
        if round_ % self.config.checkpoint_every and round_ != self.config.rounds:
            return []
        own, other = (z.detach().double().cpu().numpy() for z in (z_i, z_j))
        record = compare_pair(self.objective.graph(i), self.objective.graph(j), own, other, round_)
        return [] if record is None else [record]

    def _refuse(self, round_: int, objections: Collection[int]) -> None:
        """Stop before any step when a loss or a gradient of any process is not finite."""
        if objections:
            names = tuple(self._graphs[i].name for i in sorted(objections))
            found = f"(datasets: {', '.join(names)}; seed {self.config.seed})"
            msg, fix = f"round {round_}: a loss or a gradient is not finite {found}", "lower the learning rates"
            error = NotFiniteError(msg, code="E410", where="training", fix=f"{fix}, or leave the dataset out")
            error.datasets = names
            raise error

    def _step(self, gradients: Mapping[str, Gradients]) -> None:
        """Take one step of Adam on some units; a parameter without a gradient keeps its weights and moments."""
        for unit, parts in gradients.items():
            for parameter, gradient in zip(self._parameters[unit], parts, strict=True):
                parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad()


def _detached(losses: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: loss.detach() for name, loss in losses.items()}


def _gradients(loss: torch.Tensor | None, wanted: Sequence[torch.Tensor]) -> Gradients:
    if loss is None:
        return [None] * len(wanted)
    return list(torch.autograd.grad(loss, wanted, allow_unused=True))


def _add(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def _flatten(gradients: Gradients, parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    return torch.cat([part.reshape(-1) for part in parts])


def _unflatten(flat: torch.Tensor, parameters: Sequence[torch.Tensor]) -> Gradients:
    parts = torch.split(flat, [p.numel() for p in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]


def _sums(gradients: Iterable[Sequence[torch.Tensor | None]]) -> list[torch.Tensor]:
    # The sum of entries that are not all finite is not finite; entries so large that their sum overflows are no better.
    return [gradient.sum() for parts in gradients for gradient in parts if gradient is not None]
