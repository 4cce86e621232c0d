"""Products of dense matrices by oneDNN, which the model takes on some processors, against torch's own choice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from benchmarks.registry import Check, Measurement
from benchmarks.run import interleave
from musegnn.kernels.dense import linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONEDNN = partial(linear, impl="onednn")
RIVAL = "torch"
TIMES_THEIRS = 2.0
# Rows, inputs, outputs: a layer of attention, the features of a profile, a layer of the `mlp` decoder.
SHAPES = ((1000, 128, 128), (5000, 128, 128), (1000, 500, 128), (1000, 1000, 1000))
MULTIPLY_ADDS = 5e9


class Dense:
    """A linear map with its derivatives in float32, one thread."""

    name = "dense"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare the errors against float64 of the map and of its derivatives."""
        for shape in SHAPES[:1] if quick else SHAPES:
            inputs, grad = _draw(shape)
            exact = _map(functional.linear, [part.detach().double().requires_grad_() for part in inputs], grad.double())
            ours, theirs = _map(ONEDNN, inputs, grad), _map(functional.linear, inputs, grad)
            for name, want, mine, other in zip(("out", "x", "weight", "bias"), exact, ours, theirs, strict=True):
                error, bound = (float((part.double() - want).norm()) for part in (mine, other))
                yield Check(
                    claim=f"{_name(shape)}, {name}: error at most {TIMES_THEIRS:g} times torch's",
                    holds=error <= TIMES_THEIRS * bound,
                    got=f"{error / bound:.2f}" if bound else f"{error:.1e} of 0",
                )

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Give the rates of forward and backward passes."""
        torch.set_num_threads(1)
        for shape in SHAPES[:1] if quick else SHAPES:
            inputs, grad = _draw(shape)
            work = 3 * shape[0] * shape[1] * shape[2]
            times = max(1, int(MULTIPLY_ADDS / work))
            ours, theirs = interleave(
                _repeat(ONEDNN, inputs, grad, times),
                _repeat(functional.linear, inputs, grad, times),
                rounds=3 if quick else 9,
            )
            rates = [2 * work * times / seconds / 1e9 for seconds in (ours, theirs)]
            yield Measurement(
                shape=_name(shape),
                metric="linear_fwd_bwd_rate",
                value=rates[0],
                unit="GFLOP/s",
                rival=RIVAL,
                rival_value=rates[1],
                larger_is_better=True,
            )


def _name(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _draw(shape: tuple[int, int, int]) -> tuple[list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    rows, inputs, outputs = shape
    parts = [torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)]
    return [part.requires_grad_() for part in parts], torch.randn(rows, outputs)


def _map(kind: Callable[..., torch.Tensor], inputs: list[torch.Tensor], grad: torch.Tensor) -> list[torch.Tensor]:
    out = kind(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


def _repeat(
    kind: Callable[..., torch.Tensor], inputs: list[torch.Tensor], grad: torch.Tensor, times: int
) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            _map(kind, inputs, grad)

    return run


CASE = Dense()
