"""Faults of hosts and of the network between them, played on a training of three actors on three hosts.

Host 1 is the head of a Ray cluster and has the command; hosts 2 to 4 have one actor each. The cluster is started with
the settings of `examples/cluster/slurm.sh`.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hosts.lab import Lab, address, number

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
HEAD = 1
WORKERS = (2, 3, 4)
START_ROUND = 15
GIVEN_UP_SECONDS = 60.0
SETTINGS = dict(re.findall(r"\b(RAY_\w+)=([\w.]+)", (ROOT / "examples" / "cluster" / "slurm.sh").read_text()))
SETTINGS = {name: value for name, value in SETTINGS.items() if "TOKEN" not in name}


class Cluster:
    """A Ray cluster on the hosts of a laboratory."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._sizes: dict[int, int] = {}
        self._token = secrets.token_hex(32)

    def start(self) -> None:
        self.start_head()
        for host in WORKERS:
            self.join(host)

    def start_head(self) -> None:
        self._ray(HEAD, ["--head", "--port=6379", "--include-dashboard=false", "--num-cpus=0"])

    def join(self, host: int) -> None:
        self._ray(host, [f"--address={address(HEAD)}:6379", f"--num-cpus={self._sizes.get(host, 1)}"])

    def resize(self, cpus: dict[int, int]) -> None:
        """Start Ray on hosts anew, with other numbers of CPUs."""
        self._sizes |= cpus
        self.start_again(set(cpus))

    def start_again(self, hosts: set[int]) -> None:
        """Start Ray on hosts anew, once the head has given up what was there before: it would place actors on it."""
        for host in hosts:
            self.leave(host)
        until = time.monotonic() + GIVEN_UP_SECONDS
        while hosts & self.nodes() and time.monotonic() < until:
            time.sleep(1.0)
        for host in hosts:
            self.join(host)

    def leave(self, host: int) -> None:
        subprocess.run(self.lab.words(host, [*RAY, "stop", "--force"]), capture_output=True, timeout=120)

    def _ray(self, host: int, words: list[str]) -> None:
        path = self.lab.folder / f"h{host}" / "home" / ".ray" / "auth_token"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._token)
        path.chmod(0o600)
        words += [f"--node-ip-address={address(host)}", "--object-store-memory=80000000", "--disable-usage-stats"]
        self.lab.run(host, [*RAY, "start", *words], timeout=180)

    def nodes(self) -> set[int]:
        """Return the hosts that Ray counts as alive."""
        script = (
            "import ray; ray.init(address='auto', logging_level='critical', log_to_driver=False);"
            "print([n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']])"
        )
        return {number(a) for a in re.findall(r"10\.83\.0\.\d+", self.lab.run(HEAD, [PYTHON, "-c", script]))}

    def repair(self) -> None:
        """Bring every host back, as an operator would."""
        self.lab.restore()
        resized, self._sizes = self._sizes, {}
        for host in self.lab.hosts:
            if host in self.lab._first:
                self.lab.mend(host)
            else:
                self.lab.power_on(host)
        alive = self.nodes() if self.lab.processes(HEAD, "gcs_server") else set()
        if not alive:
            for host in self.lab.hosts:
                self.leave(host)
            self.start()
        if alive:
            lost = {host for host in WORKERS if not self.lab.processes(host, "raylet/raylet")}
            if again := lost | set(resized) | (set(WORKERS) - alive):
                self.start_again(again)


RAY = [PYTHON, "-m", "ray.scripts.scripts"]


@dataclass
class Run:
    """A training and what was seen of it."""

    cluster: Cluster
    folder: Path
    actors: int = 3
    spares: int = 0
    host: int = HEAD
    causes: list[tuple[float, str]] = field(default_factory=list)
    """What the status said was wrong, and when it first said so."""
    fault_at: float | None = None
    seconds: float | None = None
    """From the fault to the end of the next round after a recovery."""
    status: dict = field(default_factory=dict)
    process: subprocess.Popen | None = None
    first: dict[int, int] = field(default_factory=dict)
    seen: dict[int, set[int]] = field(default_factory=dict)
    """Process ids of actors after the fault, by host."""
    message: str = ""
    hosts: int = 0
    """Most hosts with actors at a time."""

    @property
    def lab(self) -> Lab:
        return self.cluster.lab

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def begin(self) -> None:
        command = [PYTHON, str(ROOT / "tests" / "hosts" / "command.py"), str(self.folder)]
        self.process = self.lab.start(self.host, [*command, str(self.actors), str(self.spares)], self.log)

    def look(self) -> bool:
        """Read the status, and return whether the command goes on."""
        over = self.process.poll() is not None
        try:
            self.status = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return not over
        self.hosts = max(self.hosts, len(self.status["hosts"]))
        for actor in self.status["actors"]:
            if actor["host"] and self.fault_at is not None:
                self.seen.setdefault(number(actor["host"]), set()).add(actor["pid"])
        lines = self.status["stalled"] + self.status["aside"] + [f["cause"] for f in self.status["failures"]]
        if self.fault_at is not None:
            for line in lines:
                text = re.sub(r"\d+(\.\d+)? s\b", "N s", line)
                if text not in {known for _, known in self.causes}:
                    self.causes.append((time.time() - self.fault_at, text))
            if self.seconds is None and self.status["recovery_seconds"]:
                self.seconds = time.time() - self.fault_at
        return not over

    def wait(self, condition: Callable[[Run], bool], seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            goes_on = self.look()
            if condition(self):
                return True
            if not goes_on:
                return False
            time.sleep(0.1)
        return False

    def reach(self, round_: int, seconds: float = 120.0) -> bool:
        return self.wait(lambda run: run.status.get("rounds", 0) >= round_, seconds)

    def fault(self) -> None:
        """Note the time, and who works where."""
        self.first = {number(a["host"]): a["pid"] for a in self.status["actors"]}
        self.fault_at = time.time()

    def host_of(self, rank: int) -> int:
        return next(number(a["host"]) for a in self.status["actors"] if a["rank"] == rank)

    def end(self, seconds: float) -> int | None:
        """Wait for the end of the command and return its exit code; ``None`` when it had to be killed."""
        until = time.monotonic() + seconds
        while self.look():
            if time.monotonic() > until:
                self.process.kill()
                self.process.wait()
                return None
            time.sleep(0.1)
        return self.process.returncode

    def same_actors(self, hosts: set[int]) -> bool:
        """Return whether the actors of some hosts are those of the beginning, as long as there are any."""
        return all(self.seen.get(host, {pid}) == {pid} for host, pid in self.first.items() if host in hosts)

    def left_behind(self) -> dict[int, list[int]]:
        """Return trainers on hosts by what Ray shows of them, by host."""
        found = {host: list(self.lab.processes(host, "ray::TrainerActor")) for host in self.lab.hosts}
        return {host: pids for host, pids in found.items() if pids}


def units(folder: Path) -> tuple[int, dict[str, str]]:
    """Return the round of the newest checkpoint, and the sha256 of every unit: weights, moments and all."""
    from musegnn.training.checkpoint import manifests

    newest = manifests(folder / "checkpoints")[0]
    return newest.round, {name: shard.sha256 for name, shard in newest.units.items()}


def make_store(folder: Path, helpers, *, rounds: int = 150):
    """Store five datasets, configure their training, and train them in one process."""
    from musegnn.api import MuSeGNN

    folder.mkdir(parents=True, exist_ok=True)
    store, config = helpers.make_run(folder, n=5, rounds=rounds, checkpoint_every=10)
    MuSeGNN(store, config).train(folder / "alone")
    return store, config


def new_run(cluster: Cluster, folder: Path, store, config, *, prepare=None, trained: int = 0, **options) -> Run:
    """Make a run folder, with some rounds trained where asked, prepare the hosts, and start the command."""
    from musegnn.api import MuSeGNN
    from musegnn.run_folder import RunFolder

    if trained:
        short = config.training.model_copy(update={"rounds": trained})
        MuSeGNN(store, config.model_copy(update={"training": short})).train(folder)
    RunFolder.create(folder, config, store=store.path)
    if prepare is not None:
        prepare(cluster, folder)
    run = Run(cluster, folder, **options)
    run.begin()
    return run
