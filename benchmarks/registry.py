"""Benchmark cases: every module in ``benchmarks/cases`` defines one ``CASE``."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim of a correctness gate, with its bound, and the number behind it."""

    claim: str
    holds: bool
    got: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One result, with that of a baseline in the same run where there is one.

    Attributes
    ----------
    shape
        Size of the problem, e.g. ``50000x1000 d=0.1``.
    baseline, baseline_value
        Name of the baseline, and its value of the metric.
    goal
        Bound that the design sets: ``("ratio", ">=", 30.0)`` or ``("value", "<=", 1e-9)``.
    larger_is_better
        Whether the metric is a score; times and sizes are better when smaller.
    """

    shape: str
    metric: str
    value: float
    unit: str
    baseline: str = ""
    baseline_value: float | None = None
    goal: tuple[str, str, float] | None = None
    larger_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """Factor by which the result is better than the baseline."""
        if self.baseline_value is None:
            return None
        better, worse = (
            (self.value, self.baseline_value) if self.larger_is_better else (self.baseline_value, self.value)
        )
        return None if worse == 0 else better / worse

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; ``None`` without a goal."""
        if self.goal is None:
            return None
        what, relation, bound = self.goal
        got = self.ratio if what == "ratio" else self.value
        if got is None or relation not in {">=", "<="}:
            msg = f"goal {self.goal} cannot be judged"
            raise ValueError(msg)
        return got >= bound if relation == ">=" else got <= bound


class Case(Protocol):
    """A benchmark."""

    name: str

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check results before anything is timed."""

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Measure time and memory; called when every check holds."""


def load_cases() -> dict[str, Case]:
    """Import all cases, by name."""
    from benchmarks import cases

    found: list[Case] = [
        import_module(f"benchmarks.cases.{module.name}").CASE for module in pkgutil.iter_modules(cases.__path__)
    ]
    return {case.name: case for case in sorted(found, key=lambda case: case.name)}
