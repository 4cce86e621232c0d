"""``python -m benchmarks.probes.build_memory CELLS``: build a graph, print the peak memory in bytes."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.synthetic import SyntheticCounts
from musegnn.coexpression.build import build_dataset
from musegnn.config import DatasetConfig, GraphConfig


def main(n_cells: int) -> int:
    """Build and give the peak resident memory in bytes (of this program alone: rusage counts the parent's, too)."""
    dataset = DatasetConfig(name="synthetic", path="synthetic", modality="scrna", tissue="none", species="none")
    build_dataset(SyntheticCounts(n_cells, 1000, 0.1), dataset, GraphConfig(block_rows=8192))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
