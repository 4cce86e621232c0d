"""Segment operations against dense ones, and implementations against each other."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch

from musegnn.kernels.segment import segment_softmax, segment_sum

LENGTHS = {"mixed": [3, 0, 1, 5, 0], "one": [4], "no_edges": [0, 0, 0], "no_rows": []}
IMPLS = [
    "torch",
    pytest.param(
        "scatter",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("torch_scatter") is None, reason="torch-scatter is not installed (extra `scatter`)"
        ),
    ),
]


def example(lengths: list[int], *trailing: int) -> tuple[torch.Tensor, torch.Tensor]:
    rowptr = torch.tensor([0, *lengths]).cumsum(0)
    values = torch.randn(int(rowptr[-1]), *trailing, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return values * 10, rowptr


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("trailing", [(), (2,), (2, 3)])
def test_equals_a_loop_over_rows(impl: str, lengths: list[int], trailing: tuple[int, ...]) -> None:
    values, rowptr = example(lengths, *trailing)
    total = segment_sum(values, rowptr, impl=impl)
    weights, lse = segment_softmax(values, rowptr, impl=impl)
    assert total.shape == lse.shape == (len(lengths), *trailing)
    for i, length in enumerate(lengths):
        part = slice(int(rowptr[i]), int(rowptr[i + 1]))
        torch.testing.assert_close(total[i], values[part].sum(0))
        torch.testing.assert_close(weights[part], torch.softmax(values[part], 0))
        want = torch.logsumexp(values[part], 0) if length else torch.zeros(trailing, dtype=torch.float64)
        torch.testing.assert_close(lse[i], want)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients(impl: str) -> None:
    values, rowptr = example(LENGTHS["mixed"], 2)
    values = (values / 10).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: segment_sum(x, rowptr, impl=impl), values)
    assert torch.autograd.gradcheck(lambda x: segment_softmax(x, rowptr, impl=impl), values)


def test_scores_of_any_size_do_not_overflow() -> None:
    values = torch.tensor([1e4, -1e4, 1e4 - 1])
    weights, lse = segment_softmax(values, torch.tensor([0, 3]))
    torch.testing.assert_close(weights, torch.softmax(values, 0))
    assert torch.isfinite(lse).all()


def test_what_does_not_fit_is_refused() -> None:
    values, rowptr = example([2, 1])
    with pytest.raises(ValueError, match="values must have shape"):
        segment_sum(values[:-1], rowptr)
    with pytest.raises(ValueError, match="rowptr must have shape"):
        segment_softmax(values, rowptr[:0])
    with pytest.raises(ValueError, match="impl must be"):
        segment_sum(values, rowptr, impl="cuda")


def test_absent_torch_scatter_is_an_import_error_and_nothing_else_needs_it() -> None:
    code = (
        "import sys; sys.modules['torch_scatter'] = None\n"
        "import torch\n"
        "from musegnn.kernels.segment import segment_sum\n"
        "x, p = torch.ones(2), torch.tensor([0, 2])\n"
        "assert segment_sum(x, p).tolist() == [2.0]\n"
        "try:\n    segment_sum(x, p, impl='scatter')\n"
        "except ImportError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"
