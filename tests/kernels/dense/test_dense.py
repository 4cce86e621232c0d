"""Both libraries against products in float64, their derivatives, and which one is taken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from musegnn.kernels import dense
from musegnn.kernels.dense import api

HERE = str(Path(__file__).parent)
IMPLS = [
    "auto",
    "torch",
    pytest.param("onednn", marks=pytest.mark.skipif(not api._has_onednn(), reason="torch was built without oneDNN")),
]
SHAPES = [(5, 7, 3), (1, 64, 24), (40, 1, 24), (40, 64, 1), (0, 7, 3), (5, 0, 3), (5, 7, 0), (1000, 500, 128)]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layouts(rows: int, columns: int) -> dict[str, torch.Tensor]:
    """One matrix shape in every way in which autograd may hand it over."""
    return {
        "whole": draw(rows, columns),
        "transposed": draw(columns, rows).t(),
        "part of rows": draw(rows, columns + 9)[:, 4 : 4 + columns],
        "every other column": draw(rows, 2 * columns)[:, ::2],
        "one number": draw(1, 1).expand(rows, columns),
        "one row": draw(1, columns).expand(rows, columns),
        "one column": draw(rows, 1).expand(rows, columns),
        "not aligned": draw(rows * columns + 1)[1:].view(rows, columns),
    }


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_and_gradients_equal_those_in_float64(impl: api.DenseImpl, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    inputs = [
        draw(m, k, seed=1).requires_grad_(),
        draw(n, k, seed=2).requires_grad_(),
        draw(n, seed=3).requires_grad_(),
    ]
    exact = [part.detach().double().requires_grad_() for part in inputs]
    grad = draw(m, n, seed=4)
    results = []
    for x, weight, bias in (inputs, exact):
        found = dense.linear(x, weight, bias, impl=impl if x.dtype == torch.float32 else "torch")
        results.append([found, *torch.autograd.grad(found, [x, weight, bias], grad.to(x.dtype))])
        product = dense.matmul(x, weight.t(), impl=impl if x.dtype == torch.float32 else "torch")
        results[-1] += [product, *torch.autograd.grad(product, [x, weight], grad.to(x.dtype))]
    for got, want in zip(*results, strict=True):
        assert got.shape == want.shape
        bound = 1e-6 * max(m, k, n) ** 0.5 * 10
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=bound)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("left", layouts(40, 64))
@pytest.mark.parametrize("right", layouts(64, 24))
def test_layout_does_not_matter(impl: api.DenseImpl, left: str, right: str) -> None:
    a, b = layouts(40, 64)[left], layouts(64, 24)[right]
    torch.testing.assert_close(dense.matmul(a, b, impl=impl).double(), a.double() @ b.double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("impl", IMPLS)
def test_leading_dimensions_are_rows(impl: api.DenseImpl) -> None:
    x, weight, bias = draw(2, 3, 4, 8), draw(5, 8), draw(5)
    want = functional.linear(x, weight, bias)
    torch.testing.assert_close(dense.linear(x, weight, bias, impl=impl), want)
    torch.testing.assert_close(dense.linear(x[0, 0, 0], weight, bias), want[0, 0, 0])


@pytest.mark.parametrize("impl", IMPLS)
def test_second_derivatives(impl: api.DenseImpl) -> None:
    x, weight = draw(6, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    slopes = []
    for kind in (impl, "torch"):
        out = dense.linear(torch.tanh(x), weight, impl=kind)
        (first,) = torch.autograd.grad((out**3).sum(), x, create_graph=True)
        slopes.append(torch.autograd.grad((first**2).sum(), [x, weight]))
    for got, want in zip(*slopes, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("impl", IMPLS)
def test_functional_transforms(impl: api.DenseImpl) -> None:
    xs, weight = draw(5, 6, 4), draw(3, 4, seed=1)

    biases = draw(5, 3, seed=2)

    def loss(weight: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return dense.linear(x, weight, bias, impl=impl).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weight, xs, biases)
    want = [2 * (x @ weight.t() + bias).t() @ x for x, bias in zip(xs, biases, strict=True)]
    torch.testing.assert_close(each, torch.stack(want))
    of_all = torch.func.grad(lambda w: torch.func.vmap(loss, in_dims=(None, 0, 0))(w, xs, biases).sum())(weight)
    torch.testing.assert_close(of_all, sum(want))
    with torch.inference_mode():
        torch.testing.assert_close(dense.matmul(xs[0], weight.t(), impl=impl), xs[0] @ weight.t())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("inner", [32, 500, 2000])
def test_a_row_has_the_same_bits_among_others_and_on_more_threads(impl: api.DenseImpl, inner: int) -> None:
    if impl == "onednn" and not api._onednn_is_wider():
        pytest.skip("oneDNN is not taken on this processor")
    x, weight = draw(900, inner), draw(70, inner, seed=1)
    threads, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            whole = dense.linear(x, weight, impl=impl)
            assert torch.equal(dense.linear(x[137:411].clone(), weight, impl=impl), whole[137:411])
            found.append((whole, dense.matmul(whole.t(), x, impl=impl)))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


KINDS = """
import torch
from test_dense import layouts
from musegnn.kernels.dense import matmul
for m, k, n in ((1, 7, 3), (40, 64, 24), (17, 1, 5), (130, 2600, 70), (600, 300, 1)):
    for a in layouts(m, k).values():
        for b in layouts(k, n).values():
            x, y = a.detach().requires_grad_(), b.detach().requires_grad_()
            matmul(x, y, impl="onednn").sum().backward()
"""


@pytest.mark.skipif(not api._onednn_is_wider(), reason="oneDNN is not taken on this processor")
def test_no_layout_is_left_to_plain_loops() -> None:
    environment = {**os.environ, "ONEDNN_VERBOSE": "profile_exec", "PYTHONPATH": os.pathsep.join([HERE, *sys.path])}
    done = subprocess.run([sys.executable, "-c", KINDS], env=environment, capture_output=True, text=True, check=True)
    kinds = {line.split(",")[6] for line in done.stdout.splitlines() if "primitive,exec" in line}
    assert kinds
    assert not [kind for kind in kinds if kind.startswith("ref")]


def test_a_module_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_onednn_is_wider", api._has_onednn)
    ours, theirs = dense.Linear(8, 5), torch.nn.Linear(8, 5)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(draw(3, 8)), theirs(draw(3, 8)))


def test_the_compiler_sees_torchs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_onednn_is_wider", api._has_onednn)
    compiled = torch.compile(dense.linear, backend="eager", fullgraph=True)
    x, weight = draw(3, 8), draw(5, 8)
    torch.testing.assert_close(compiled(x, weight), functional.linear(x, weight))


def test_automatic_choice_follows_machine_dtype_and_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(3, 4)
    monkeypatch.setattr(api, "_onednn_is_wider", lambda: True)
    assert api._by_onednn(x, x.t(), "auto")
    assert not api._by_onednn(x.double(), x.double().t(), "auto")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not api._by_onednn(x, x.t(), "auto")
        assert dense.linear(x, x).dtype == torch.bfloat16
    monkeypatch.setattr(api, "_onednn_is_wider", lambda: False)
    assert not api._by_onednn(x, x.t(), "auto")


@pytest.mark.parametrize(
    ("vendor", "family", "expected"),
    [("AuthenticAMD", 26, True), ("AuthenticAMD", 25, False), ("GenuineIntel", 6, False), ("HygonGenuine", 26, False)],
)
def test_half_vectors_and_other_makers_are_left_to_torch(vendor: str, family: int, expected: bool) -> None:
    cpuinfo = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 17\n"
    assert api._has_whole_vectors(cpuinfo) is expected
    assert not api._has_whole_vectors("")


def test_a_named_library_is_used_or_refused() -> None:
    x = draw(3, 4)
    with pytest.raises(ValueError, match="impl must be 'auto', 'torch' or 'onednn', got 'mkl'"):
        dense.matmul(x, x.t(), impl="mkl")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"impl='onednn' takes float32 matrices on the CPU, got torch\.float64"):
        dense.linear(x.double(), x.double(), impl="onednn")
