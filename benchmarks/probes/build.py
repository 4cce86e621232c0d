"""``python -m benchmarks.probes.build FILE SETTINGS``: build the graph of a file, print CPU seconds and peak as JSON.

SETTINGS is JSON: fields of ``GraphConfig``, and ``memory`` and ``scheduler`` of the build.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from musegnn.cluster.graphs import build_graphs
from musegnn.config import AtlasConfig, DatasetConfig, EdgeConfig, GraphConfig
from musegnn.data_store import Store


def main(path: Path, settings: dict[str, object]) -> dict[str, object]:
    """Build into a temporary store beside the file.

    Returns
    -------
    dict
        ``peak`` in bytes (of this process alone), CPU seconds by stage, ``pairs`` stored and bytes of the store.
    """
    memory, scheduler = settings.pop("memory", None), settings.pop("scheduler", "threads")
    dataset = DatasetConfig(name="synthetic", path=path, modality="scrna", tissue="none", species="none")
    atlas = AtlasConfig(datasets=(dataset,), graph=GraphConfig.model_validate(settings), edges=EdgeConfig())
    clock = {"start": time.process_time()}

    def progress(task: str, done: int, total: int, note: str = "") -> None:
        del task, done, total
        clock.setdefault(note or "end", time.process_time())

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        store = Store.create(Path(folder) / "store")
        build_graphs(atlas, store, scheduler=str(scheduler), memory=memory, progress=progress)  # type: ignore[arg-type]  # JSON
        about = store.info("synthetic")
    names = list(clock)
    seconds = {a: clock[b] - clock[a] for a, b in itertools.pairwise(names)}
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {
        "peak": int(status.split("VmHWM:")[1].split()[0]) * 1024,
        "wall": time.perf_counter() - start,
        "cpu": resource.getrusage(resource.RUSAGE_SELF).ru_utime + resource.getrusage(resource.RUSAGE_SELF).ru_stime,
        "seconds": seconds,
        "pairs": about["n_pair_entries"] // 2,
        "bytes": about["bytes"],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
