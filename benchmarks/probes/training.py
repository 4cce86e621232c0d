"""``python -m benchmarks.probes.training SETTINGS``: train a few rounds, print the peak and CPU seconds as JSON.

SETTINGS is JSON: ``workload`` (fields of ``benchmarks.training.Workload``), ``rounds``, and either ``model`` and
``training`` (our settings) or ``published: true``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.training import Workload


def main(settings: dict[str, Any]) -> dict[str, Any]:  # JSON
    """Train.

    Returns
    -------
    dict
        ``peak`` in bytes (of this process, all its life), ``start`` in bytes (with the data made, before the model),
        ``cpu`` seconds of each round, the mean ``loss`` of the last one, and for ours the ``estimate`` of the peak.
    """
    torch.set_num_threads(1)
    work = Workload(**settings["workload"])
    _ = work.graphs, work.profiles
    start, cpu, rows, estimate = _status("VmRSS"), [], [], None
    if settings.get("published"):
        loop = work.published()
        step = lambda _: [sum(losses) for losses in loop.epoch()]  # noqa: E731
    else:
        engine = work.engine(settings.get("model", {}), settings.get("training", {}))
        estimate = work.estimate(engine)
        step = lambda round_: [row["loss"] for row in engine.round(round_)]  # noqa: E731
    for round_ in range(1, settings["rounds"] + 1):
        began = time.process_time()
        rows = step(round_)
        cpu.append(time.process_time() - began)
    return {"peak": _status("VmHWM"), "start": start, "cpu": cpu, "loss": sum(rows) / len(rows), "estimate": estimate}


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
