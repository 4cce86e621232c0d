"""Adam with decoupled weight decay, as torch's fused operator computes it.

``torch.optim`` loads torch's compiler with the first optimiser (about 140 MB and a second), which training does not
use; this class calls the same operator, so weights and moments have the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Steps the parameters of one unit.

    Parameters
    ----------
    parameters
        In a fixed order.
    lr
        Learning rate.
    weight_decay
        Decoupled weight decay.

    Attributes
    ----------
    state
        Per parameter that has been stepped: ``step`` (0-d float32), ``exp_avg`` and ``exp_avg_sq``.

    References
    ----------
    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], *, lr: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._lr, self._weight_decay = lr, weight_decay
        self.state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}

    def step(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Take one step; a parameter without a gradient keeps its weights and moments.

        Parameters
        ----------
        gradients
            One per parameter.
        """
        pairs = [(p, g) for p, g in zip(self._parameters, gradients, strict=True) if g is not None]
        if not pairs:
            return
        states = [self._moments(parameter) for parameter, _ in pairs]
        steps = [state["step"] for state in states]
        with torch.no_grad():
            for step in steps:
                step.add_(1)
            torch._fused_adamw_(
                [parameter for parameter, _ in pairs],
                [gradient for _, gradient in pairs],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=self._lr,
                beta1=BETA_1,
                beta2=BETA_2,
                weight_decay=self._weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def _moments(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self.state[parameter]
