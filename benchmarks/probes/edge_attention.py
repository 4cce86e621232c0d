"""``python -m benchmarks.probes.edge_attention LAYER NODES DENSITY``: peak bytes of one forward and backward pass.

LAYER is ``ours`` or ``theirs``. What the inputs, the libraries and the loaded kernels take is not counted.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch

from benchmarks.attention.layers import setting

STATUS = Path("/proc/self/status")


def main(layer: str, n_nodes: int, density: float) -> int:
    """Return how far the resident memory rises above what is there before."""
    torch.set_num_threads(1)
    _run(layer, 8, 0.5)
    chosen = setting(n_nodes, density)
    run = chosen.run_ours if layer == "ours" else chosen.run_theirs
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    before = _kilobytes("VmRSS")
    run()
    return (_kilobytes("VmHWM") - before) * 1024


def _run(layer: str, n_nodes: int, density: float) -> None:
    small = setting(n_nodes, density)
    if layer == "ours":
        small.run_ours()
    else:
        small.run_theirs()


def _kilobytes(field: str) -> int:
    return int(STATUS.read_text(encoding="utf-8").split(f"{field}:")[1].split()[0])


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
