"""``python -m benchmarks.probes.whole_run ATLAS.json FOLDER ACTORS``: the whole way, stage by stage, printed as JSON.

ATLAS.json is a configuration as JSON; results go into FOLDER, which may hold the store and the run of an earlier call.
Each line is a stage: name, wall and CPU seconds, peak of this process in it and of the largest actor, in bytes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from musegnn import pipeline, results
from musegnn.atlas_file import validate_atlas
from musegnn.cluster.options import ClusterOptions
from musegnn.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def main(config: dict[str, Any], place: Path, actors: int) -> None:  # JSON
    """Build, train, embed, evaluate and report."""
    atlas = validate_atlas(config, where="benchmark")
    store = stage("graphs", lambda: pipeline.build_graphs(atlas, place / "store.zarr"))
    folder = RunFolder.create(place / f"run-{atlas.training.rounds}-{actors}", atlas, store=store.path)
    cluster = ClusterOptions(actors=actors) if actors else None
    model = stage("training", lambda: pipeline.train(folder, store, resume=True, cluster=cluster), folder)
    adata = stage("layout", lambda: results.write_embeddings(folder, model))
    evaluation = stage("evaluation", lambda: results.evaluate(folder, model))
    stage("page", lambda: results.write_report(folder, model, adata, evaluation))


def stage(name: str, work: Callable[[], Any], folder: RunFolder | None = None) -> Any:  # what the stage returns
    """Do the work of a stage and print what it took."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    rows = [row for row in folder.history() if row["kind"] == "process"] if folder is not None else []
    about = {
        "stage": name,
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": int(status.split("VmHWM:")[1].split()[0]) * 1024,
        "actor_peak": max((row["peak_bytes"] for row in rows), default=0),
    }
    print(json.dumps(about), flush=True)
    return result


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    path, folder, count = sys.argv[1:]
    main(json.loads(Path(path).read_text(encoding="utf-8")), Path(folder), int(count))
