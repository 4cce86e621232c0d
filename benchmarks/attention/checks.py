"""The correctness gate of the GPU benchmark: every kernel against the reference in float64."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.attention.contest import MATERIALISED, PYG, Contest, Layer, runs_kernels
from benchmarks.attention.graphs import STRUCTURES, make_graph
from benchmarks.registry import Check
from musegnn.kernels.edge_attention import batch_graphs, edge_attention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.kernels.edge_attention import EdgeGraph

NAMES = ("o", "z", "lse", "dq", "dk", "dv", "du", "da")
# Of the largest number: sums of some hundred products in float32 and in TF32 thrice; weights rounded once to half.
BOUNDS = {torch.float32: 2e-5, torch.float16: 2**-9, torch.bfloat16: 2**-6}

Tensors = tuple[torch.Tensor, ...]


def check_kernels(device: torch.device, impl: Any, *, tiny: bool) -> Iterator[Check]:
    """Check lists and tiles, both precisions, structures, dropout, repeats and batches."""
    n_nodes = 33 if tiny else 700
    densities = (0.01, 0.3)  # lists and tiles
    for structure, density, dtype in product(STRUCTURES[-2:] if tiny else STRUCTURES, densities, BOUNDS):
        graph = make_graph(structure, n_nodes, density, device)
        for (heads, dim, n_attributes), dropout in (((4, 32, 2), 0.0), ((2, 40, 1), 0.1)):
            if tiny and (dtype == torch.float16 or dropout > 0.0):
                continue
            inputs = draw(graph, heads, dim, n_attributes, dtype)
            claim = f"{structure} d={density} H={heads} D={dim} F={n_attributes} r={dropout} {dtype}"
            # Without the gradient of attributes, dense rows take tiles in the backward pass, too.
            yield compare(claim, inputs, graph, impl, dropout=dropout, needs_da=density < 0.1)
    for heads, dim, n_attributes in ((2, 128, 2), (1, 8, 0), (2, 256, 2), (4, 32, 8))[: 1 if tiny else None]:
        graph = make_graph("uniform", n_nodes, 0.1, device)
        inputs = draw(graph, heads, dim, n_attributes, torch.float32)
        yield compare(f"uniform d=0.1 H={heads} D={dim} F={n_attributes}", inputs, graph, impl)
    graphs = [make_graph("uniform", n_nodes - 7 * i, 0.01 + 0.1 * i, device, seed=i) for i in range(3)]
    yield from check_bits(graphs, impl)
    yield from check_baselines(device, impl, tiny=tiny)


def check_baselines(device: torch.device, impl: Any, *, tiny: bool) -> Iterator[Check]:
    """Check that the baselines compute what ours computes."""
    layer = Layer(n_nodes=20 if tiny else 300, density=0.1, heads=2, dim=16, dtype=torch.float32)
    contest = Contest(layer, device, impl)
    jobs = contest.jobs([PYG, MATERIALISED] if runs_kernels(device) else [PYG])
    results = {}
    for name, job in jobs.items():
        out = job()
        assert contest.x.grad is not None
        results[name] = (out.detach(), contest.x.grad)
    for baseline in list(jobs)[1:]:
        pairs = zip(results["ours"], results[baseline], strict=True)
        error = max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)
        yield Check(
            claim=f"{baseline} = ours, output and gradient, within 2e-5", holds=error <= 2e-5, got=f"{error:.1e}"
        )


def check_bits(graphs: list[EdgeGraph], impl: Any) -> Iterator[Check]:
    """Check that calls repeat, and that a graph has the same bits in a batch as alone."""
    inputs = [draw(graph, 4, 32, 2, torch.float32) for graph in graphs]
    whole = batch_graphs(graphs)
    joined = tuple(torch.cat(parts) for parts in zip(*inputs, strict=True))
    first, second = (gradients(joined, whole, impl) for _ in range(2))
    same = all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    yield Check(claim="the same bits at every call", holds=same, got=str(same))
    alone = [edge_attention(*part, graph, impl=impl).o for part, graph in zip(inputs, graphs, strict=True)]
    same = torch.equal(edge_attention(*joined, whole, impl=impl).o, torch.cat(alone))
    yield Check(claim="the same bits in a batch as alone", holds=same, got=str(same))


def compare(
    claim: str, inputs: Tensors, graph: EdgeGraph, impl: Any, *, dropout: float = 0.0, needs_da: bool = True
) -> Check:
    """Compare outputs and gradients with the reference in float64 on the same, already rounded, inputs."""
    bound = BOUNDS[inputs[0].dtype]
    truth = gradients(tuple(part.double() for part in inputs), graph, "reference", dropout, needs_da=needs_da)
    got = gradients(inputs, graph, impl, dropout, needs_da=needs_da)
    worst, where = 0.0, ""
    for name, one, other in zip(NAMES, got, truth, strict=False):
        if other.numel():
            error = float((one.double() - other).abs().max()) / max(float(other.abs().max()), 1e-30)
            if not error <= worst:  # not a number counts as worst
                worst, where = error, name
    return Check(claim=f"{claim} within {bound:.1e}", holds=worst <= bound, got=f"{worst:.1e} {where}")


def gradients(
    inputs: Tensors, graph: EdgeGraph, impl: Any, dropout: float = 0.0, *, needs_da: bool = True
) -> list[torch.Tensor]:
    """Return outputs and gradients for fixed gradients of the outputs."""
    parts = tuple(part.clone().requires_grad_(needs_da or number < 4) for number, part in enumerate(inputs))
    out = edge_attention(*parts, graph, impl=impl, dropout=dropout, seed=5)
    generator = torch.Generator(inputs[0].device).manual_seed(1)
    weights = [torch.randn(part.shape, generator=generator, device=part.device).to(part) for part in out[:2]]
    loss = (out.o * weights[0]).sum() + (out.z * weights[1]).sum()
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
