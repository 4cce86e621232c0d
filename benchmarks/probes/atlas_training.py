"""``python -m benchmarks.probes.atlas_training RUN``: train a run folder; print estimate and peak as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from musegnn.api import MuSeGNN
from musegnn.data_store import Store
from musegnn.run_folder import RunFolder
from musegnn.training.memory import check_memory


def main(path: Path) -> dict[str, int]:
    """Return the bytes that were estimated and the largest resident memory of this process."""
    torch.set_num_threads(1)
    folder = RunFolder.open(path)
    model = MuSeGNN(Store.open(folder.store_path()), folder.atlas())
    estimate = check_memory(model._data, model.config.model, model.config.training, 10**15)
    model.train(folder.path)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {"estimate": sum(estimate.values()), "peak": 1024 * int(status.split("VmHWM:")[1].split()[0])}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
