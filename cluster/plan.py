"""STUB"""

from __future__ import annotations
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    owner: tuple

    def to_json(self):
        return {"owner": list(self.owner)}


def dataset_costs(store, config):
    return [1.0] * len(config.datasets)


def make_plan(costs, n, previous=None):
    return Plan(tuple(i % n for i in range(len(costs))))
