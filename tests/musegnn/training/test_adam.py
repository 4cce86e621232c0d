"""The optimiser against torch's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from musegnn.training.adam import Adam


def parameters():
    random = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in ((3, 4), (5,), ())]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_have_the_bits_of_the_fused_optimiser_of_torch(weight_decay):
    ours, theirs = parameters(), parameters()
    adam = Adam(ours, lr=0.01, weight_decay=weight_decay)
    optimizer = torch.optim.AdamW(theirs, lr=0.01, weight_decay=weight_decay, fused=True)
    random = torch.Generator().manual_seed(1)
    for step in range(5):
        gradients = [torch.randn(p.shape, generator=random) for p in ours]
        if step % 2:
            gradients[1] = None
        adam.step(gradients)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)
        assert adam.state[mine].keys() == optimizer.state[other].keys()
        assert all(torch.equal(adam.state[mine][key], optimizer.state[other][key]) for key in adam.state[mine])


def test_nothing_is_kept_for_a_parameter_without_a_gradient():
    ours = parameters()
    adam = Adam(ours, lr=0.01, weight_decay=0.0)
    adam.step([None, None, None])
    assert not adam.state
    adam.step([torch.ones(3, 4), None, None])
    assert list(adam.state) == [ours[0]]


def test_training_does_not_load_the_compiler_of_torch():
    program = (
        "import torch, sys; from musegnn.training.adam import Adam; p = torch.nn.Parameter(torch.ones(3));"
        "Adam([p], lr=0.1, weight_decay=0.0).step([torch.ones(3)]); import musegnn.training.engine;"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
