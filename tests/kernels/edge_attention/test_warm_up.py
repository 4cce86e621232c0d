"""Warming up compiles the kernels of the asked head dimensions, and doctor does it on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from musegnn import doctor
from musegnn.cli import app
from musegnn.kernels.edge_attention.impl import numba as kernels
from musegnn.kernels.edge_attention.warm_up import warm_up

if TYPE_CHECKING:
    import pytest


def test_every_kernel_is_compiled_afterwards() -> None:
    warm_up.cache_clear()
    warm_up((16,), (torch.float32,))
    for make in (kernels.forward_kernel, kernels.backward_rows_kernel, kernels.backward_columns_kernel):
        assert make(16).signatures


def test_doctor_warms_up_only_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "warm_up", lambda: 3.0)
    app(["doctor"], result_action="return_value")
    assert "compilation" not in capsys.readouterr().out
    app(["doctor", "--warm-up"], result_action="return_value")
    assert "all CPU kernels are compiled; 3 s" in capsys.readouterr().out
