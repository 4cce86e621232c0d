"""Edge attention: the reference against dense attention, the compiled one against the reference.

Outputs that a kernel fails to write show up as NaN: new tensors are filled with it in these tests.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from musegnn.kernels.edge_attention import EdgeGraph, batch_graphs, edge_attention, edge_graph
from musegnn.kernels.edge_attention.impl import cpu, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

F64 = torch.float64
NAMES = ["o", "z", "lse", "dq", "dk", "dv", "du", "da"]


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *a, **k: new_empty(self, *a, **k).fill_(float("nan")))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def adjacency(kind: str, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "hub":
        mask = np.zeros((n, n), dtype=bool)
        mask[n // 2] = mask[:, n // 3] = True
        return mask
    mask = rng.random((n, n)) < {"sparse": 0.05, "half": 0.5, "full": 2.0, "none": 0.0}[kind]
    if kind == "sparse":
        mask[: n // 3] = False
    return mask


Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def example(
    mask: np.ndarray, heads: int = 2, dim: int = 3, n_attributes: int = 2, dtype: torch.dtype = F64, seed: int = 0
) -> tuple[Inputs, EdgeGraph]:
    rows = sparse.csr_matrix(mask)
    graph = edge_graph(rows.indptr, rows.indices)
    generator = torch.Generator().manual_seed(seed)
    n = mask.shape[0]
    shapes = [(n, heads, dim)] * 3 + [(n, heads, n_attributes), (graph.n_edges, n_attributes)]
    q, k, v, u, a = (torch.randn(*shape, dtype=F64, generator=generator).to(dtype) for shape in shapes)
    return (q, k, v, u, a), graph


def everything(inputs: Inputs, graph: EdgeGraph, impl: str, **options: float) -> list[torch.Tensor]:
    """Return outputs and all gradients under one fixed weighting of the outputs."""
    inputs = tuple(part.clone().requires_grad_() for part in inputs)
    out = edge_attention(*inputs, graph, impl=impl, **options)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(part.shape, dtype=F64, generator=generator).to(part.dtype) for part in (out.o, out.z)]
    loss = (out.o * weights[0]).sum() + (out.z * weights[1]).sum()
    grads = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return [part.detach() for part in (*out, *grads)]


def assert_all_close(got: list[torch.Tensor], want: list[torch.Tensor], *, tol: float) -> None:
    for name, g, w in zip(NAMES, got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=tol, atol=tol, msg=lambda text, name=name: f"{name}: {text}")


def dense(inputs: Inputs, mask: np.ndarray, scale: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attend by (N, N) matrices."""
    q, k, v, u, a = inputs
    n = q.shape[0]
    keep = torch.from_numpy(mask)
    attributes = q.new_zeros((n, n, a.shape[1]))
    attributes[keep] = a
    score = scale * (torch.einsum("ihd,jhd->hij", q, k) + torch.einsum("ihf,ijf->hij", u, attributes))
    score = score.masked_fill(~keep, -torch.inf)
    some = keep.any(1)
    p = torch.softmax(score, -1).masked_fill(~some[None, :, None], 0.0)
    lse = torch.logsumexp(score, -1).masked_fill(~some, 0.0)
    return torch.einsum("hij,jhd->ihd", p, v), torch.einsum("hij,ijf->ihf", p, attributes), lse.T


KINDS = ["sparse", "half", "full", "none", "hub"]


@pytest.mark.parametrize("impl", ["reference", "numba"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_dense_attention(kind: str, impl: str) -> None:
    mask = adjacency(kind, 19)
    inputs, graph = example(mask)
    got = edge_attention(*inputs, graph, scale=0.7, impl=impl)
    for name, g, w in zip(NAMES, got, dense(inputs, mask, 0.7), strict=False):
        torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("impl", "n", "dropout"), [("numba", 6, 0.4), ("numba", 12, 0.0), ("reference", 4, 0.4)])
@pytest.mark.parametrize("n_attributes", [0, 2])
def test_gradcheck(impl: str, n: int, dropout: float, n_attributes: int, threads: None) -> None:
    torch.set_num_threads(1)
    inputs, graph = example(adjacency("half", n), n_attributes=n_attributes)
    inputs = tuple(part.requires_grad_() for part in inputs)

    def outputs(*parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = edge_attention(*parts, graph, dropout=dropout, seed=4, impl=impl)
        return out.o, out.z

    assert torch.autograd.gradcheck(outputs, inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("heads", "dim", "n_attributes"), [(1, 32, 0), (4, 32, 2), (3, 3, 1), (2, 37, 8)])
def test_compiled_equals_reference(kind: str, dropout: float, heads: int, dim: int, n_attributes: int) -> None:
    inputs, graph = example(adjacency(kind, 37), heads, dim, n_attributes)
    options = {"dropout": dropout, "seed": -7}
    assert_all_close(
        everything(inputs, graph, "numba", **options), everything(inputs, graph, "reference", **options), tol=1e-10
    )


@pytest.mark.parametrize("n", [0, 1])
def test_smallest_graphs(n: int) -> None:
    for mask in (np.zeros((n, n), dtype=bool), np.ones((n, n), dtype=bool)):
        inputs, graph = example(mask)
        assert_all_close(everything(inputs, graph, "numba"), everything(inputs, graph, "reference"), tol=1e-12)


@pytest.mark.parametrize("kind", ["half", "hub"])
def test_float32_error_is_at_most_twice_the_reference_own(kind: str) -> None:
    inputs, graph = example(adjacency(kind, 60), 4, 32, 2)
    exact = everything(inputs, graph, "reference")
    single = tuple(part.float() for part in inputs)
    compiled, plain = (everything(single, graph, impl) for impl in ("numba", "reference"))
    rounded = everything(tuple(part.double() for part in single), graph, "reference")
    for name, truth, by_input, ours, theirs in zip(NAMES, exact, rounded, compiled, plain, strict=True):
        # The band is the error that rounding the inputs alone makes, plus that of rounding the output.
        band = (by_input - truth).abs().max() + truth.abs().max() * torch.finfo(torch.float32).eps
        error, reference_error = ((part.double() - truth).abs().max() for part in (ours, theirs))
        assert error <= 2 * reference_error + band, name


def test_scores_far_apart_do_not_overflow() -> None:
    inputs, graph = example(adjacency("half", 20), 2, 32, dtype=torch.float32)
    large = (inputs[0] * 100, *inputs[1:])
    for got, want in zip(everything(large, graph, "numba"), everything(large, graph, "reference"), strict=True):
        assert torch.isfinite(got).all()
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_not_a_number_reaches_the_rows_that_see_it_and_no_others(dtype: torch.dtype) -> None:
    mask = adjacency("half", 16)
    (q, k, v, u, a), graph = example(mask, 2, 32, dtype=dtype)
    k[3] = float("nan")
    out = edge_attention(q, k, v, u, a, graph, impl="numba")
    assert torch.equal(out.o.isnan().all((1, 2)), torch.from_numpy(mask[:, 3]))
    assert torch.equal(out.o.isnan().any(2).any(1), torch.from_numpy(mask[:, 3]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 14), impl=st.sampled_from(["reference", "numba"]))
def test_weights_of_a_row_sum_to_one(seed: int, n: int, impl: str) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((n, n)) < rng.random()
    (q, k, v, u, a), graph = example(mask, seed=seed)
    ones = torch.ones_like(v)
    out = edge_attention(q, k, ones, u, a, graph, impl=impl)
    want = torch.from_numpy(mask.any(1)).to(F64)[:, None, None].expand_as(out.o)
    torch.testing.assert_close(out.o, want, rtol=1e-12, atol=1e-12)


def test_same_bits_for_any_number_of_threads_and_repeats(threads: None) -> None:
    inputs, graph = example(adjacency("half", 200), 4, 32, 2, torch.float32)
    torch.set_num_threads(1)
    want = everything(inputs, graph, "numba", dropout=0.1)
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        got = everything(inputs, graph, "numba", dropout=0.1)
        assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_same_bits_when_heads_are_handed_over_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, graph = example(adjacency("half", 40), 3, 32, 2, torch.float32)
    want = everything(inputs, graph, "numba")
    monkeypatch.setattr(cpu, "HANDOFF_BYTES", 1)
    assert all(torch.equal(g, w) for g, w in zip(everything(inputs, graph, "numba"), want, strict=True))


@pytest.mark.parametrize("tile_bytes", [cpu.TILE_BYTES, 1 << 12])
def test_same_bits_in_a_batch_as_alone(monkeypatch: pytest.MonkeyPatch, tile_bytes: int) -> None:
    """Also where graphs of the batch have one, two and three tiles of columns."""
    monkeypatch.setattr(cpu, "TILE_BYTES", tile_bytes)
    kinds = [("half", 90), ("none", 3), ("hub", 40), ("sparse", 70)]
    examples = [example(adjacency(kind, n, n), 3, 32, 2, torch.float32, n) for kind, n in kinds]
    alone = [edge_attention(*inputs, graph, impl="numba") for inputs, graph in examples]
    joined = tuple(torch.cat(parts).requires_grad_() for parts in zip(*(part for part, _ in examples), strict=True))
    batch = edge_attention(*joined, batch_graphs([graph for _, graph in examples]), impl="numba")
    for got, want in zip(batch, zip(*alone, strict=True), strict=True):
        assert torch.equal(got, torch.cat(want))
    got_grads = torch.autograd.grad(batch.o.square().sum() + batch.z.square().sum(), joined)
    want_grads = []
    for inputs, graph in examples:
        parts = tuple(part.requires_grad_() for part in inputs)
        out = edge_attention(*parts, graph, impl="numba")
        want_grads.append(torch.autograd.grad(out.o.square().sum() + out.z.square().sum(), parts))
    for got, want in zip(got_grads, zip(*want_grads, strict=True), strict=True):
        assert torch.equal(got, torch.cat(want))


def test_concurrent_callers_do_not_disturb_each_other() -> None:
    examples = [example(adjacency("half", 150, seed), 4, 32, 2, torch.float32, seed) for seed in range(4)]
    want = [everything(*part, "numba") for part in examples]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda part: everything(*part, "numba"), examples * 4))
    for g, w in zip(got, want * 4, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(g, w, strict=True))


def test_dropout_keeps_the_stated_share_and_the_mean() -> None:
    keep = reference.keep_mask(50_000, 4, dropout=0.3, seed=1)
    assert float(keep.double().mean()) == pytest.approx(0.7, abs=0.005)
    assert np.abs(np.corrcoef(keep.double().numpy().T) - np.eye(4)).max() < 0.02
    assert not torch.equal(keep, reference.keep_mask(50_000, 4, dropout=0.3, seed=2))
    assert torch.equal(keep[:100, :2], reference.keep_mask(100, 2, dropout=0.3, seed=1))
    mask = adjacency("full", 400)
    (q, k, v, u, a), graph = example(mask)
    out = edge_attention(0 * q, k, torch.ones_like(v), 0 * u, a, graph, dropout=0.3, seed=1)
    assert float(out.o.mean()) == pytest.approx(1.0, abs=0.005)


def test_lse_has_no_gradient() -> None:
    inputs, graph = example(adjacency("half", 6))
    for impl in ("reference", "numba"):
        assert not edge_attention(*(part.requires_grad_() for part in inputs), graph, impl=impl).lse.requires_grad


def test_only_needed_gradients_are_given() -> None:
    (q, k, v, u, a), graph = example(adjacency("half", 6))
    out = edge_attention(q.requires_grad_(), k, v, u, a, graph, impl="numba")
    out.o.sum().backward()
    assert q.grad is not None
    assert a.grad is None


def test_half_precision_goes_to_the_reference() -> None:
    inputs, graph = example(adjacency("half", 9), dtype=torch.bfloat16)
    out = edge_attention(*inputs, graph)
    assert out.o.dtype == torch.bfloat16
    exact = edge_attention(*(part.double() for part in inputs), graph)
    torch.testing.assert_close(out.o.double(), exact.o, rtol=2**-8, atol=2**-8)


def test_named_implementation_is_never_replaced() -> None:
    inputs, graph = example(adjacency("half", 9), dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="takes float32 and float64"):
        edge_attention(*inputs, graph, impl="numba")
    with pytest.raises(TypeError, match="on CUDA devices, got"):
        edge_attention(*inputs, graph, impl="triton")
    with pytest.raises(ValueError, match="impl must be"):
        edge_attention(*inputs, graph, impl="fast")


def test_what_does_not_fit_is_refused() -> None:
    (q, k, v, u, a), graph = example(adjacency("half", 9))
    with pytest.raises(ValueError, match="q must have shape"):
        edge_attention(q[:, 0], k, v, u, a, graph)
    with pytest.raises(ValueError, match="k must have shape"):
        edge_attention(q, k[:-1], v, u, a, graph)
    with pytest.raises(ValueError, match="u must have shape"):
        edge_attention(q, k, v, u[..., :1], a, graph)
    with pytest.raises(ValueError, match="a must have shape"):
        edge_attention(q, k, v, u, a[:-1], graph)
    with pytest.raises(TypeError, match="v must have the floating point dtype"):
        edge_attention(q, k, v.float(), u, a, graph)
    with pytest.raises(ValueError, match="dropout must lie"):
        edge_attention(q, k, v, u, a, graph, dropout=1.0)


def test_operator_passes_the_checks_of_torch() -> None:
    inputs, graph = example(adjacency("half", 9))
    arguments = (*(part.requires_grad_() for part in inputs), *graph, 0.5, 0.0, 0, "numba")
    torch.library.opcheck(torch.ops.musegnn.edge_attention.default, arguments)


def test_works_with_torch_alone() -> None:
    code = (
        "import sys\n"
        "for name in ('numba', 'llvmlite', 'triton', 'scipy', 'pydantic', 'zarr'): sys.modules[name] = None\n"
        "import torch\n"
        "from musegnn.kernels.edge_attention import edge_graph\n"
        "from musegnn.model.conv import EdgeFeaturedTransformerConv\n"
        "conv = EdgeFeaturedTransformerConv(3, 4, edge_dim=1)\n"
        "graph = edge_graph([0, 1, 2], [1, 0])\n"
        "print(tuple(conv(torch.ones(2, 3), graph, torch.ones(2, 1), impl='reference').shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 4)"
