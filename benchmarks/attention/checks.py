"""The correctness gate of the GPU benchmark: every kernel against the reference in float64."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from benchmarks.attention.contest import MATERIALISED, PYG, Contest, Layer, runs_kernels
from benchmarks.attention.graphs import STRUCTURES, make_graph
from benchmarks.gpu_sections import CheckItem
from benchmarks.registry import Check
from musegnn.kernels.edge_attention import batch_graphs, edge_attention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.gpu_sections import Setting
    from musegnn.kernels.edge_attention import EdgeGraph

NAMES = ("o", "z", "lse", "dq", "dk", "dv", "du", "da")
# Of the largest number: sums of some hundred products in float32 and in TF32 thrice; weights rounded once to half.
BOUNDS = {torch.float32: 2e-5, torch.float16: 2**-9, torch.bfloat16: 2**-6}

Tensors = tuple[torch.Tensor, ...]


def check_items(setting: Setting) -> Iterator[CheckItem]:
    """List the checks: lists and tiles, precisions, structures, dropout, repeats, batches, and baselines."""
    device, impl, tiny = setting.device, setting.impl, setting.dry
    n_nodes = 33 if tiny else 700
    densities = (0.01, 0.3)  # lists and tiles
    for structure, density, dtype in product(STRUCTURES[-2:] if tiny else STRUCTURES, densities, BOUNDS):
        for shape, dropout in (((4, 32, 2), 0.0), ((2, 40, 1), 0.1)):
            if not (tiny and (dtype == torch.float16 or dropout > 0.0)):
                # Without the gradient of attributes, dense rows take tiles in the backward pass, too.
                about = {"dropout": dropout, "needs_da": density < 0.1}
                case = Case(structure, n_nodes, density, *shape, dtype, device)
                yield CheckItem(case.precision, partial(compare, case, impl, **about))
    for shape in ((2, 128, 2), (1, 8, 0), (2, 256, 2), (4, 32, 8))[: 1 if tiny else None]:
        case = Case("uniform", n_nodes, 0.1, *shape, torch.float32, device)
        yield CheckItem(case.precision, partial(compare, case, impl))
    yield CheckItem("float32", partial(_repeats, n_nodes, device, impl))
    yield CheckItem("float32", partial(_batches, n_nodes, device, impl))
    for baseline in (PYG, MATERIALISED) if runs_kernels(device) else (PYG,):
        yield CheckItem("", partial(check_baseline, baseline, device, impl, tiny=tiny))


class Case(NamedTuple):
    """A graph and the sizes and precision of its inputs."""

    structure: str
    n_nodes: int
    density: float
    heads: int
    dim: int
    n_attributes: int
    dtype: torch.dtype
    device: torch.device

    @property
    def precision(self) -> str:
        """Name of the precision."""
        return str(self.dtype).removeprefix("torch.")


def check_baseline(baseline: str, device: torch.device, impl: Any, *, tiny: bool) -> Check:
    """Check that a baseline computes what ours computes."""
    layer = Layer(n_nodes=20 if tiny else 300, density=0.1, heads=2, dim=16, dtype=torch.float32)
    contest = Contest(layer, device, impl)
    results = []
    for job in contest.jobs([baseline]).values():
        out = job()
        assert contest.x.grad is not None
        results.append((out.detach(), contest.x.grad))
    error = max(float((one - other).abs().max() / other.abs().max()) for one, other in zip(*results, strict=True))
    return Check(claim=f"{baseline} = ours, output and gradient, within 2e-5", holds=error <= 2e-5, got=f"{error:.1e}")


def _graphs(n_nodes: int, device: torch.device) -> tuple[list[EdgeGraph], list[Tensors]]:
    graphs = [make_graph("uniform", n_nodes - 7 * i, 0.01 + 0.1 * i, device, seed=i) for i in range(3)]
    return graphs, [draw(graph, 4, 32, 2, torch.float32) for graph in graphs]


def _repeats(n_nodes: int, device: torch.device, impl: Any) -> Check:
    graphs, inputs = _graphs(n_nodes, device)
    joined = tuple(torch.cat(parts) for parts in zip(*inputs, strict=True))
    first, second = (gradients(joined, batch_graphs(graphs), impl) for _ in range(2))
    same = all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    return Check(claim="bitwise identical at every call", holds=same, got=str(same))


def _batches(n_nodes: int, device: torch.device, impl: Any) -> Check:
    graphs, inputs = _graphs(n_nodes, device)
    joined = tuple(torch.cat(parts) for parts in zip(*inputs, strict=True))
    alone = [edge_attention(*part, graph, impl=impl).o for part, graph in zip(inputs, graphs, strict=True)]
    same = torch.equal(edge_attention(*joined, batch_graphs(graphs), impl=impl).o, torch.cat(alone))
    return Check(claim="bitwise identical in a batch and alone", holds=same, got=str(same))


def compare(case: Case, impl: Any, *, dropout: float = 0.0, needs_da: bool = True) -> Check:
    """Compare outputs and gradients with the reference in float64 on the same, already rounded, inputs."""
    graph, bound = make_graph(case.structure, case.n_nodes, case.density, case.device), BOUNDS[case.dtype]
    inputs = draw(graph, case.heads, case.dim, case.n_attributes, case.dtype)
    exact = tuple(part.double() for part in inputs)
    truth = gradients(exact, graph, "reference", dropout, needs_da=needs_da, weights=case.dtype)
    got = gradients(inputs, graph, impl, dropout, needs_da=needs_da, weights=case.dtype)
    worst, where = 0.0, ""
    for name, one, other in zip(NAMES, got, truth, strict=False):
        if other.numel():
            error = float((one.double() - other).abs().max()) / max(float(other.abs().max()), 1e-30)
            if not error <= worst:  # not a number counts as worst
                worst, where = error, name
    about = f"H={case.heads} D={case.dim} F={case.n_attributes} r={dropout} {case.precision}"
    claim = f"{case.structure} d={case.density} {about} within {bound:.1e}"
    return Check(claim=claim, holds=worst <= bound, got=f"{worst:.1e} {where}")


def gradients(
    inputs: Tensors,
    graph: EdgeGraph,
    impl: Any,
    dropout: float = 0.0,
    *,
    needs_da: bool = True,
    weights: torch.dtype = torch.float32,
) -> list[torch.Tensor]:
    """Return outputs and gradients for fixed gradients of the outputs, which are rounded to the precision `weights`."""
    parts = tuple(part.clone().requires_grad_(needs_da or number < 4) for number, part in enumerate(inputs))
    out = edge_attention(*parts, graph, impl=impl, dropout=dropout, seed=5)
    generator = torch.Generator(inputs[0].device).manual_seed(1)
    given = [torch.randn(part.shape, generator=generator, device=part.device).to(weights).to(part) for part in out[:2]]
    loss = (out.o * given[0]).sum() + (out.z * given[1]).sum()
    wanted = [part for part in parts if part.requires_grad]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return [part.detach() for part in (*out, *grads)]


def draw(graph: EdgeGraph, heads: int, dim: int, n_attributes: int, dtype: torch.dtype) -> Tensors:
    """Draw inputs."""
    device = graph.col.device
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(graph.n_nodes, heads, dim)] * 3
    shapes += [(graph.n_nodes, heads, n_attributes)]
    tensors = [torch.randn(shape, generator=generator, device=device).to(dtype) for shape in shapes]
    attributes = torch.randn((graph.n_edges, n_attributes), generator=generator, device=device).to(dtype)
    return (*tensors, attributes)
