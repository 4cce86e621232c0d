"""``python -m benchmarks.probes.ingest PATH OPTIONS``: read a file once in blocks; print the largest memory as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from musegnn.data_store import open_matrix

ROWS = 16384


def main(path: str, options: dict[str, object]) -> dict[str, int]:
    """Return the counts of the file, and the largest resident memory of this process."""
    total = sum(int(block.data.sum()) for _, block in open_matrix(path, **options).blocks(ROWS))  # type: ignore[arg-type]
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {"total": total, "peak": 1024 * int(status.split("VmHWM:")[1].split()[0])}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
