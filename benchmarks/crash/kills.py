"""Process groups that are killed with SIGKILL while they build and train, again and again until they are done."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.crash.records import committed, make_atlas
from musegnn import pipeline
from musegnn.atlas_file import load_atlas
from musegnn.data_store import Store
from musegnn.errors import MuseGNNError
from musegnn.run_folder import RunFolder
from musegnn.training import checkpoint

CLUSTER_SHARE = 0.05


@dataclass
class Kills:
    """Number of kills, of those while graphs were built and while training, of finished lives, and what was lost."""

    kills: int = 0
    building: int = 0
    training: int = 0
    finished: int = 0
    lost: list[str] = field(default_factory=list)


def work(atlas: Path, folder: Path, scheduler: str = "threads") -> None:
    """Build the graphs of an atlas and train on them, going on where an earlier process stopped."""
    config = load_atlas(atlas)
    run = RunFolder.create(folder / "run", config, store=folder / "store")
    store = pipeline.build_graphs(config, run.store_path(), scheduler=scheduler, device="cpu")
    pipeline.train(run, store, resume=True)


def kill_at_random(kills: int) -> Kills:
    """Kill process groups at random moments, from a new process, which has one thread and forks those to be killed."""
    command = [sys.executable, "-m", "benchmarks.crash.kills", str(kills)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Kills(**json.loads(done.stdout))


def _kill_here(kills: int, *, seed: int = 0) -> Kills:
    """Kill process groups at random moments; after each kill look at what was committed, and go on.

    A process that comes to its end begins another life in an empty folder, once its results are compared with those of
    a process that nobody disturbed. One kill in twenty hits a build whose tasks run in processes of a dask cluster.
    """
    result, rng = Kills(), np.random.default_rng(seed)
    with TemporaryDirectory(prefix="musegnn-") as name:
        base = Path(name)
        atlas = make_atlas(base)
        times = []
        for _ in range(2):  # the first one compiles
            shutil.rmtree(base / "calm", ignore_errors=True)
            started = time.monotonic()
            if _wait(_start(atlas, base / "calm")) != 0:
                result.lost.append(f"the undisturbed run failed: {(base / 'stderr').read_text()[-400:]}")
                return result
            times.append(time.monotonic() - started)
        expected = committed(base / "calm" / "store"), _weights(base / "calm")
        life = base / "life"
        known = _State()
        while result.kills < kills:
            clustered = rng.random() < CLUSTER_SHARE
            pid = _start_cluster(atlas, life) if clustered else _start(atlas, life)
            moment = rng.random() * (5.0 + times[-1] if clustered else times[-1])
            code = _code_within(pid, moment)
            if code is not None:
                if code:
                    result.lost.append(f"going on failed: {(base / 'stderr').read_text()[-200:]}")
                else:
                    _finish(result, life, expected)
                known = _State()
                shutil.rmtree(life, ignore_errors=True)
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _wait(pid)
            result.kills += 1
            known = _look(result, life, known, expected[0])
    return result


@dataclass(frozen=True)
class _State:
    """What was committed at a moment: builds by dataset, and the newest round, -1 before the first."""

    builds: dict[str, str] = field(default_factory=dict)
    round: int = -1


def _look(result: Kills, life: Path, before: _State, expected: dict[str, str]) -> _State:
    """Compare what is there with what was there after the kill before."""
    try:
        if not (life / "store" / "FORMAT.json").exists():
            result.building += 1
            if before.builds:
                result.lost.append("the store is gone")
            return _State()
        store = Store.open(life / "store")
        builds = {name: str(store.build_of(name)) for name in store.datasets()}
        result.lost += store.verify()
        result.lost += [f"{name} is gone" for name in before.builds if builds.get(name) != before.builds[name]]
        result.lost += [
            f"{path} differs"
            for path, digest in committed(store.path).items()
            if path.startswith("refs/") and digest != expected.get(path)
        ]
        for name in builds:
            store.read(name)
        found = checkpoint.manifests(life / "run" / "checkpoints")
        for manifest in found:
            checkpoint.read_units(life / "run" / "checkpoints", manifest)
        newest = found[0].round if found else -1
        if newest < before.round:
            result.lost.append(f"round {before.round} is gone, the newest is {newest}")
        built = len(builds) == sum(path.startswith("refs/") for path in expected)
        result.training += built
        result.building += not built
        return _State(builds, newest)
    except MuseGNNError as error:
        result.lost.append(str(error))
        return before


def _finish(result: Kills, life: Path, expected: tuple[dict[str, str], dict[str, str]]) -> None:
    result.finished += 1
    if (committed(life / "store"), _weights(life)) != expected:
        result.lost.append("a life that was killed ended with other bytes than an undisturbed one")


def _weights(folder: Path) -> dict[str, str]:
    """Return the digest of every unit of the newest checkpoint."""
    newest = checkpoint.manifests(folder / "run" / "checkpoints")[0]
    return {name: shard.sha256 for name, shard in newest.units.items()}


def _start(atlas: Path, folder: Path) -> int:
    """Start the work in a process group of its own, forked from this process, which runs one thread."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(folder.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            work(atlas, folder)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return pid


def _start_cluster(atlas: Path, folder: Path) -> int:
    """Start the build in a process group with the workers of a dask cluster."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.crash.kills", str(atlas), str(folder)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid


def _code_within(pid: int, seconds: float) -> int | None:
    """Return the exit code of a process that ends within this time, else ``None``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return _wait(pid)
        time.sleep(0.002)
    return None


def _wait(pid: int) -> int:
    with contextlib.suppress(ChildProcessError):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(asdict(_kill_here(int(sys.argv[1])))))
    else:
        work(Path(sys.argv[1]), Path(sys.argv[2]), "distributed")
