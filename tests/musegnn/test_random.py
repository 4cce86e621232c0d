"""Streams depend on what they are for and on nothing else."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from musegnn.random import stream, torch_generator

IDS = st.lists(st.integers(0, 10**6) | st.text(max_size=5), max_size=3)


@given(seed=st.integers(0, 2**40), purpose=st.text(max_size=8), ids=IDS)
def test_equal_keys_give_equal_streams_in_any_order(seed, purpose, ids):
    first = stream(seed, purpose, *ids).random(5)
    stream(seed + 1, purpose, *ids).random(100)
    assert np.array_equal(stream(seed, purpose, *ids).random(5), first)


def test_different_keys_give_different_streams():
    keys = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 1, 2), (0, "a", 12), (0, "a", "x", "y"), (0, "a", "xy")]
    draws = {tuple(stream(*key).integers(0, 2**62, 2)) for key in keys}
    assert len(draws) == len(keys)


def test_streams_are_uniform():
    values = np.array([stream(0, "u", i).random() for i in range(4000)])
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05


def test_torch_generator_is_keyed_alike():
    one = torch.rand(3, generator=torch_generator(3, "w", "x"))
    two = torch.rand(3, generator=torch_generator(3, "w", "x"))
    assert torch.equal(one, two)
    assert not torch.equal(one, torch.rand(3, generator=torch_generator(3, "w", "y")))
