"""GPUs of actors, with fakes: how many are waited for, what is refused, what is shown. No GPU is needed."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from musegnn.cluster import device
from musegnn.cluster.train import actor_environment, gpus_per_actor
from musegnn.errors import ConfigError


def cluster_of(*counts):
    """Return a Ray whose cluster has these numbers of GPUs, one after the other; the last one stays."""
    found = itertools.chain(counts, itertools.repeat(counts[-1]))
    return SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0, "GPU": float(next(found))})


@pytest.mark.parametrize("count", [0, 1, 7])
def test_cpus_take_no_gpu(count):
    assert gpus_per_actor(cluster_of(count), "cpu", 8) == 0


def test_auto_takes_cpus_where_no_gpu_is_and_one_each_where_there_are_enough():
    assert gpus_per_actor(cluster_of(0), "auto", 8) == 0
    assert gpus_per_actor(cluster_of(8), "auto", 8) == gpus_per_actor(cluster_of(9), "cuda", 8) == 1


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_fewer_gpus_than_actors_are_refused_in_one_line(asked):
    with pytest.raises(ConfigError, match=r"E308.*8 actors.*has 7 after.*--actors 7") as caught:
        gpus_per_actor(cluster_of(7), asked, 8, wait=0.0)
    assert "\n" not in caught.value.line()


def test_cuda_without_gpus_is_refused():
    with pytest.raises(ConfigError, match=r"E308.*has 0.*--device cpu"):
        gpus_per_actor(cluster_of(0), "cuda", 1, wait=0.0)


def test_gpus_that_come_late_are_waited_for():
    assert gpus_per_actor(cluster_of(1, 4, 4, 8), "cuda", 8, wait=0.05) == 1


def test_an_actor_binds_and_names_its_gpu(monkeypatch):
    bound = []
    monkeypatch.setattr(device, "resolve_device", lambda name: name)
    monkeypatch.setattr(torch.cuda, "set_device", bound.append)
    about = SimpleNamespace(name="H200", total_memory=143 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5)
    assert device.describe_device("cpu") == "cpu"
    assert not bound
    assert device.describe_device("cuda") == "cuda (H200, 143.0 GB)"
    assert bound == [0]
    assert (device.device_bytes("cpu"), device.device_bytes("cuda")) == (0, 5)


def test_a_gpu_that_no_longer_answers_is_lost(monkeypatch):
    def fail():
        message = "CUDA error: an illegal memory access was encountered"
        raise RuntimeError(message)

    assert not device.is_lost("cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not device.is_lost("cuda")
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert device.is_lost("cuda")


def test_waiting_threads_of_actors_sleep_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert actor_environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert actor_environment()["OMP_WAIT_POLICY"] == "ACTIVE"
