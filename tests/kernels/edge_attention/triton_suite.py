"""The Triton kernels against the reference in float64: in the interpreter, or compiled where there is a GPU.

``test_triton.py`` starts this file in a process of its own, because the interpreter is chosen when Triton is imported.
Outputs that a kernel fails to write show up as NaN: new tensors are filled with it in these tests.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import sparse

from musegnn.kernels.edge_attention import EdgeGraph, available, batch_graphs, edge_attention, edge_graph
from musegnn.kernels.edge_attention.impl.triton import config, launch
from musegnn.kernels.edge_attention.impl.triton.work_lists import plan_for

if TYPE_CHECKING:
    from collections.abc import Callable

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
F64 = torch.float64
NAMES = ["o", "z", "lse", "dq", "dk", "dv", "du", "da"]
LISTS, TILES = 2.0, 0.0  # densities from which tiles are taken: never, and always
PATHS = pytest.mark.parametrize("density", [pytest.param(LISTS, id="lists"), pytest.param(TILES, id="tiles")])

Inputs = tuple[torch.Tensor, ...]


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def make_poisoned(*arguments: object, **options: object) -> torch.Tensor:
            new = make(*arguments, **options)
            return new.fill_(float("nan")) if new.is_floating_point() else new

        return make_poisoned

    for home, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(home, name, poison(getattr(home, name)))


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_limits(density: float, longest: int = 2048) -> None:
        monkeypatch.setattr(config, "LIMITS", config.Limits(tile_density=density, longest_part=longest))

    return set_limits


def adjacency(kind: str, n: int) -> np.ndarray:
    """Draw edges; "mixed" has empty rows and columns, a full row, a full column and bit 31 of every word."""
    rng = np.random.default_rng(n)
    if kind == "hub":
        mask = np.zeros((n, n), dtype=bool)
        mask[n // 2] = mask[:, n // 3] = True
        return mask
    mask = rng.random((n, n)) < {"sparse": 0.05, "half": 0.5, "full": 2.0, "none": 0.0, "mixed": 0.1}[kind]
    if kind == "mixed":
        mask[:, 31::32] |= rng.random((n, n // 32)) < 0.8
        mask[n // 2] = mask[:, n // 3] = True
        mask[5:8] = mask[:, 9:12] = False
    return mask


def example(
    mask: np.ndarray, heads: int = 2, dim: int = 8, n_attributes: int = 2, seed: int = 0
) -> tuple[Inputs, EdgeGraph]:
    rows = sparse.csr_matrix(mask)
    graph = edge_graph(rows.indptr, rows.indices).to(DEVICE)
    generator = torch.Generator().manual_seed(seed)
    n = mask.shape[0]
    shapes = [(n, heads, dim)] * 3 + [(n, heads, n_attributes), (graph.n_edges, n_attributes)]
    return tuple(torch.randn(*shape, dtype=F64, generator=generator).to(DEVICE) for shape in shapes), graph


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return tuple(part.to(dtype) for part in inputs)


def weights_of(out: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Draw the fixed gradients of o and z."""
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(part.shape, generator=generator).to(part) for part in out[:2]]


def everything(
    inputs: Inputs, graph: EdgeGraph, impl: str, *, needs_da: bool = True, **options: float
) -> list[torch.Tensor]:
    """Return outputs and all gradients under one fixed weighting of the outputs, in float64."""
    inputs = tuple(part.clone().requires_grad_(needs_da or number < 4) for number, part in enumerate(inputs))
    out = edge_attention(*inputs, graph, impl=impl, **options)
    loss = sum((part * weight).sum() for part, weight in zip(out, weights_of(out), strict=False))
    wanted = [part for part in inputs if part.requires_grad]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return [part.detach().double() for part in (*out, *grads)]


def cancellation(inputs: Inputs, graph: EdgeGraph, lse: torch.Tensor, grow: float) -> dict[str, float]:
    """Bound what one rounding of each term of ``dp`` and of ``delta`` in equation (7) does to gradients."""
    q, k, v, u, a = (part.double() for part in inputs)
    row, col = graph.target, graph.col
    do, dz = weights_of((q, u))
    scale = q.shape[2] ** -0.5
    score = scale * ((q[row] * k[col]).sum(-1) + (u[row] * a[:, None]).sum(-1))
    terms = grow * ((do[row] * v[col]).abs().sum(-1) + (dz[row] * a[:, None]).abs().sum(-1))
    delta = torch.zeros_like(lse).index_add(0, row, torch.exp(score - lse[row]) * terms)
    off = scale * torch.exp(score - lse[row]) * (terms + delta[row]) * torch.finfo(torch.float32).eps
    sums = {
        "dq": torch.zeros_like(q).index_add(0, row, off[..., None] * k[col].abs()),
        "dk": torch.zeros_like(k).index_add(0, col, off[..., None] * q[row].abs()),
        "du": torch.zeros_like(u).index_add(0, row, off[..., None] * a[:, None].abs()),
        "da": (off[..., None] * u[row].abs()).sum(1),
    }
    return {name: float(part.max()) if part.numel() else 0.0 for name, part in sums.items()}


def assert_as_good_as_the_reference(
    inputs: Inputs, graph: EdgeGraph, *, needs_da: bool = True, **options: float
) -> None:
    """Allow twice the error of the reference in float32, one rounding of inputs and outputs, and cancellation."""
    exact = everything(inputs, graph, "reference", needs_da=needs_da, **options)
    single = cast(inputs, torch.float32)
    rounded = everything(cast(single, F64), graph, "reference", needs_da=needs_da, **options)
    plain = everything(single, graph, "reference", needs_da=needs_da, **options)
    ours = everything(single, graph, "triton", needs_da=needs_da, **options)
    eps = torch.finfo(torch.float32).eps
    cancelled = cancellation(inputs, graph, exact[2], 1.0 / (1.0 - options.get("dropout", 0.0)))
    for name, truth, by_input, theirs, got in zip(NAMES, exact, rounded, plain, ours, strict=False):
        assert got.shape == truth.shape, name
        if truth.numel() == 0:
            continue
        band = float((by_input - truth).abs().max()) + float(truth.abs().max()) * eps + cancelled.get(name, 0.0)
        error, reference_error = (float((part - truth).abs().max()) for part in (got, theirs))
        assert error <= 2 * reference_error + band, (
            f"{name}: {error:.2e}, reference {reference_error:.2e}, band {band:.2e}"
        )


@PATHS
@pytest.mark.parametrize(
    ("kind", "n", "heads", "dim", "n_attributes", "dropout"),
    [
        ("full", 1, 2, 8, 2, 0.0),
        ("none", 1, 1, 8, 1, 0.0),
        ("none", 40, 2, 8, 2, 0.0),
        ("half", 17, 3, 5, 1, 0.3),
        ("full", 33, 1, 16, 0, 0.0),
        ("hub", 40, 2, 20, 2, 0.2),
        ("mixed", 150, 1, 32, 2, 0.0),
        ("mixed", 66, 4, 8, 4, 0.1),
    ],
)
def test_equals_reference(
    limits: Callable[..., None], density: float, kind: str, n: int, heads: int, dim: int, n_attributes: int,
    dropout: float,
) -> None:  # fmt: skip
    limits(density)
    inputs, graph = example(adjacency(kind, n), heads, dim, n_attributes)
    # With the gradient of attributes, rows go by lists in the backward pass.
    assert_as_good_as_the_reference(inputs, graph, needs_da=density == LISTS, dropout=dropout, seed=-7)


@pytest.mark.parametrize(("heads", "dim", "n_attributes"), [(2, 8, 8), (3, 130, 1), (1, 300, 2), (12, 32, 0)])
def test_what_tiles_do_not_take_goes_by_lists(
    limits: Callable[..., None], heads: int, dim: int, n_attributes: int
) -> None:
    limits(TILES)
    inputs, graph = example(adjacency("half", 17), heads, dim, n_attributes)
    assert_as_good_as_the_reference(inputs, graph, dropout=0.2, seed=3)


@pytest.mark.parametrize("longest", [1, 7])
def test_long_rows_and_columns_are_split_and_merged(limits: Callable[..., None], longest: int) -> None:
    limits(LISTS, longest)
    for kind, n in (("hub", 26), ("half", 9)):
        inputs, graph = example(adjacency(kind, n), 3, 12, 2)
        assert_as_good_as_the_reference(inputs, graph, dropout=0.2, seed=5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradient_of_attributes_of_dense_graphs(limits: Callable[..., None], dropout: float) -> None:
    limits(TILES)
    inputs, graph = example(adjacency("mixed", 40), 2, 16, 2)
    assert_as_good_as_the_reference(inputs, graph, dropout=dropout)


@PATHS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_within_its_rounding(limits: Callable[..., None], density: float, dtype: torch.dtype) -> None:
    limits(density)
    inputs, graph = example(adjacency("half", 34), 2, 16, 2)
    low = cast(inputs, dtype)
    exact = everything(cast(low, F64), graph, "reference", needs_da=False)
    ours = everything(low, graph, "triton", needs_da=False)
    # The interpreter cuts where a GPU rounds. Weights and the outputs are rounded, each once, and o again in delta.
    step = torch.finfo(dtype).eps * (2 if INTERPRETED else 1)
    for name, got, truth in zip(NAMES, ours, exact, strict=False):
        assert float((got - truth).abs().max()) <= 2 * step * float(truth.abs().max()), name


def test_a_batch_has_the_bits_of_its_graphs_alone(limits: Callable[..., None]) -> None:
    limits(0.3)
    examples = [example(adjacency(kind, n), 2, 8, 2, n) for kind, n in (("half", 40), ("sparse", 20), ("full", 36))]
    examples.append(example(adjacency("none", 2), 2, 8, 2))
    whole = batch_graphs([graph for _, graph in examples])
    joined = tuple(torch.cat(parts) for parts in zip(*(inputs for inputs, _ in examples), strict=True))
    plan = plan_for(whole, config.LIMITS, may_tile=True)
    assert plan.tiles is not None
    assert plan.tiles.sizes == [40, 36]
    assert_as_good_as_the_reference(joined, whole, dropout=0.2, seed=1)

    def outputs_and_gradients(inputs: Inputs, graph: EdgeGraph) -> Inputs:
        q, k, v, u, a = (part.float().requires_grad_() for part in inputs)
        out = edge_attention(q, k, v, u, a.detach(), graph, impl="triton")
        return (*out, *torch.autograd.grad(out.o.square().sum() + out.z.square().sum(), (q, k, v, u)))

    alone = [outputs_and_gradients(*part) for part in examples]
    for got, want in zip(outputs_and_gradients(joined, whole), zip(*alone, strict=True), strict=True):
        assert torch.equal(got, torch.cat(want))


@PATHS
def test_not_a_number_in_keys_reaches_the_rows_that_see_it_and_no_others(
    limits: Callable[..., None], density: float
) -> None:
    limits(density)
    mask = adjacency("half", 34)
    (q, k, v, u, a), graph = example(mask)
    k[3] = float("nan")
    out = edge_attention(*cast((q, k, v, u, a), torch.float32), graph, impl="triton")
    seen = torch.from_numpy(mask[:, 3])
    assert torch.equal(out.o.isnan().all((1, 2)).cpu(), seen)
    assert torch.equal(out.o.isnan().any(2).any(1).cpu(), seen)


@PATHS
def test_large_scores_do_not_overflow(limits: Callable[..., None], density: float) -> None:
    limits(density)
    (q, *others), graph = example(adjacency("half", 20))
    inputs = cast((q * 100, *others), torch.float32)
    ours = everything(inputs, graph, "triton", needs_da=False)
    exact = everything(cast(inputs, F64), graph, "reference", needs_da=False)
    for name, got, truth in zip(NAMES, ours, exact, strict=False):
        scale = float(truth.abs().max())
        torch.testing.assert_close(got, truth, rtol=1e-4, atol=1e-4 * scale, msg=lambda text, name=name: name + text)


def test_same_bits_at_every_call(limits: Callable[..., None]) -> None:
    limits(0.3, 5)
    inputs, graph = example(adjacency("hub", 20))
    first, second = (everything(cast(inputs, torch.float32), graph, "triton", dropout=0.1) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_operator_passes_the_checks_of_torch() -> None:
    inputs, graph = example(adjacency("half", 9))
    arguments = (*(part.float().requires_grad_() for part in inputs), *graph, 0.5, 0.1, 0, "triton")
    torch.library.opcheck(torch.ops.musegnn.edge_attention.default, arguments)


@PATHS
def test_compiles_as_one_graph(limits: Callable[..., None], density: float) -> None:
    limits(density)
    inputs, graph = example(adjacency("half", 20))

    def loss(*parts: torch.Tensor) -> torch.Tensor:
        out = edge_attention(*parts, graph, impl="triton", dropout=0.1, seed=2)
        return out.o.square().sum() + out.z.sum()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        parts = tuple(part.float().requires_grad_() for part in inputs)
        gradients.append(torch.autograd.grad(function(*parts), parts))
    assert all(torch.equal(x, y) for x, y in zip(*gradients, strict=True))


def test_double_precision_is_refused() -> None:
    assert "triton" in available()
    inputs, graph = example(adjacency("half", 4))
    with pytest.raises(TypeError, match="takes float32, bfloat16 and float16"):
        edge_attention(*inputs, graph, impl="triton")


@pytest.mark.skipif(not INTERPRETED, reason="the automatic choice on a GPU is tested by its results")
def test_automatic_choice_on_the_cpu_is_never_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "forward", None)
    inputs, graph = example(adjacency("half", 4))
    edge_attention(*cast(inputs, torch.float32), graph)
