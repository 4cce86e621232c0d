"""``python -m benchmarks.probes.build FILE SETTINGS [FOLDER]``: build the graph of a file, print what it took as JSON.

SETTINGS is JSON: fields of ``GraphConfig``, ``memory`` and ``scheduler`` of the build, ``modality`` of the counts. The
store is made in FOLDER, by default beside the file.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from musegnn.cluster.build import build_graphs
from musegnn.config import AtlasConfig, DatasetConfig, EdgeConfig, GraphConfig
from musegnn.data_store import Store


def main(path: Path, settings: dict[str, object], place: Path) -> dict[str, object]:
    """Build into a temporary store.

    Returns
    -------
    dict
        ``peak`` in bytes (of this process alone), CPU seconds by stage, ``pairs`` stored and bytes of the store,
        ``genes`` selected and ``passes`` over the file.
    """
    memory, scheduler = settings.pop("memory", None), settings.pop("scheduler", "threads")
    modality = settings.pop("modality", "scrna")
    about = {"name": "synthetic", "path": path, "modality": modality, "tissue": "none", "species": "none"}
    dataset = DatasetConfig.model_validate(about)
    atlas = AtlasConfig(datasets=(dataset,), graph=GraphConfig.model_validate(settings), edges=EdgeConfig())
    clock = {"start": time.process_time()}

    def progress(task: str, done: int, total: int, note: str = "") -> None:
        del task, done, total
        clock.setdefault(note or "end", time.process_time())

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=place) as folder:
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
        "genes": about["n_genes"],
        "passes": sum(name in {"scan", "select", "variance", "extract"} for name in names),
    }


if __name__ == "__main__":
    file, given, *folder = sys.argv[1:]
    print(json.dumps(main(Path(file), json.loads(given), Path(folder[0]) if folder else Path(file).parent)))
