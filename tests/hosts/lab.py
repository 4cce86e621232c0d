"""A network of hosts on one machine, each with its own address, processes, name, home and Ray folder.

A host is a set of Linux namespaces. Its cable leads to a bridge in a namespace of its own, from which nothing is
routed, so that nothing leaves the laboratory. All hosts see the same files, but for their home, ``/tmp/ray`` and
``/dev/shm``. Needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

NET = "10.83.0"
NOWHERE = "02:00:00:00:00:ff"
CABLE = Path(__file__).with_name("cable.py")
TOOLS = ("ip", "bridge", "unshare", "nsenter")
INIT = """
import os, signal, time
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)
open(os.environ["READY"], "w").close()
while True:  # the first process of a host collects those whose parents have ended
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.2)
"""


def why_not() -> str:
    """Return why there can be no laboratory here; empty when there can."""
    if sys.platform != "linux":
        return "namespaces are a feature of Linux"
    if os.geteuid() != 0:
        return "namespaces of networks need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    name = f"try{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"this container may make no namespaces ({tried.stderr.strip()})"
    tried = subprocess.run(["ip", "-n", name, "link", "add", "br0", "type", "bridge"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], check=False)
    return f"the kernel has no bridges ({tried.stderr.strip()})" if tried.returncode else ""


def ip(*words: str, tool: str = "ip") -> None:
    subprocess.run([tool, *words], check=True, capture_output=True)


def address(host: int) -> str:
    return f"{NET}.{host}"


def number(host: str) -> int:
    """Return the number of a host by its address."""
    return int(host.rpartition(".")[2])


class Lab:
    """Hosts 1 to `n`, as a context manager; their own files lie in `folder`."""

    def __init__(self, n: int, folder: Path, *, env: dict[str, str]) -> None:
        self.hosts, self.folder, self.env = range(1, n + 1), folder, env
        self._name = f"lab{os.getpid()}"
        self._switch = f"{self._name}s"
        self._first: dict[int, int] = {}
        self._cables: dict[int, subprocess.Popen] = {}
        self._silent: set[tuple[int, int]] = set()
        self.cut_off: set[int] = set()
        self._started: list[subprocess.Popen] = []

    def __enter__(self) -> Lab:
        ip("netns", "add", self._switch)
        try:
            ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
            ip("-n", self._switch, "link", "set", "br0", "up")
            for host in self.hosts:
                self._plug_in(host)
                self.power_on(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in list(self._first):
            self.kill_all(host)
        for cable in self._cables.values():
            cable.terminate()
            cable.wait()
        for process in self._started:
            process.wait(timeout=30)
        for name in [*(self._space(host) for host in self.hosts), self._switch]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _space(self, host: int) -> str:
        return f"{self._name}h{host}"

    def _plug_in(self, host: int) -> None:
        space, switch = self._space(host), self._switch
        ip("netns", "add", space)
        ip("-n", switch, "link", "add", f"p{host}", "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("-n", switch, "link", "set", f"p{host}", "master", "br0", "up")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "addr", "add", f"{address(host)}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")

    # ---- processes ----
    def power_on(self, host: int) -> None:
        """Start the first process of a host, and plug its cable in."""
        self.mend(host)
        own = self.folder / f"h{host}"
        shutil.rmtree(own / "ray", ignore_errors=True)
        for part in ("home", "ray"):
            (own / part).mkdir(parents=True, exist_ok=True)
        (own / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{address(k)} h{k}\n" for k in self.hosts))
        ready = own / "ready"
        ready.unlink(missing_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        script = (
            f"mount --bind {own}/ray /tmp/ray && mount --bind {own}/hosts /etc/hosts && "
            f"mount -t tmpfs tmpfs /dev/shm && hostname h{host} && exec {sys.executable} -c '{INIT}'"
        )
        words = ["ip", "netns", "exec", self._space(host), "unshare", "--pid", "--fork", "--kill-child"]
        words += ["--mount", "--uts", "--ipc", "--mount-proc", "sh", "-c", script]
        started = subprocess.Popen(words, stdin=subprocess.DEVNULL, env={**os.environ, "READY": str(ready)})
        until = time.monotonic() + 20
        while not ready.exists():
            if time.monotonic() > until or started.poll() is not None:
                msg = f"host {host} did not start"
                raise RuntimeError(msg)
            time.sleep(0.05)
        self._started.append(started)
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        self._first[host] = int(children[0])

    def words(self, host: int, command: list[str], env: dict[str, str] | None = None) -> list[str]:
        """Return the words that run a command on a host."""
        home = self.folder / f"h{host}" / "home"
        settings = {"HOME": str(home), "LANG": "C.UTF-8"} | self.env | (env or {})
        inside = ["nsenter", "-t", str(self._first[host]), "-m", "-u", "-i", "-n", "-p", "--"]
        return [*inside, "env", "-i", "-C", str(self.folder), *(f"{k}={v}" for k, v in settings.items()), *command]

    def run(self, host: int, command: list[str], *, env: dict[str, str] | None = None, timeout: float = 120) -> str:
        done = subprocess.run(self.words(host, command, env), capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            msg = (
                f"h{host}: {' '.join(command)} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
            )
            raise RuntimeError(msg)
        return done.stdout

    def start(self, host: int, command: list[str], log: Path) -> subprocess.Popen:
        with log.open("w") as out:
            words = self.words(host, command)
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        self._started.append(process)
        return process

    def processes(self, host: int, word: str) -> dict[int, int]:
        """Return processes of a host whose command has a word: their ids here, by those that they have there."""
        if host not in self._first:
            return {}
        found, space = {}, Path(f"/proc/{self._first[host]}/ns/pid").readlink()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "ns/pid").readlink() == space and word in (entry / "cmdline").read_text():
                    line = next(x for x in (entry / "status").read_text().splitlines() if x.startswith("NSpid"))
                    found[int(line.split()[-1])] = int(entry.name)
            except (OSError, StopIteration):
                continue
        return found

    def kill_all(self, host: int) -> None:
        """End all processes of a host; its system closes their connections."""
        if host in self._first:
            pid = self._first.pop(host)
            os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + 20
            while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
                for process in self._started:
                    process.poll()
                time.sleep(0.02)

    def power_off(self, host: int) -> None:
        """End a host without a word to the others."""
        self.cut(host)
        self.kill_all(host)

    # ---- cables ----
    def cut(self, host: int) -> None:
        """Pull a host's cable: nothing comes or goes, and no connection is closed."""
        ip("-n", self._switch, "link", "set", f"p{host}", "down")
        self.cut_off.add(host)

    def mend(self, host: int) -> None:
        ip("-n", self._switch, "link", "set", f"p{host}", "up")
        self.cut_off.discard(host)

    def silence(self, source: int, target: int) -> None:
        """Lose whatever one host sends to another; the way back stays."""
        words = ("neigh", "replace", address(target), "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")
        ip("-n", self._space(source), *words)
        self._silent.add((source, target))

    def hear(self, source: int, target: int) -> None:
        """Undo :meth:`silence`."""
        ip("-n", self._space(source), "neigh", "del", address(target), "dev", "eth0")
        self._silent.discard((source, target))

    def bad_cable(self, host: int, *, loss: float = 0.0, delay: float = 0.0, mbit: float = 0.0) -> None:
        """Put a bad cable between a host and the bridge: percent lost, ms and Mbit/s in each direction."""
        switch = self._switch
        for k in self.hosts:  # a lost frame shall be one packet, not many that are sent as one
            ip("-n", self._space(k), "link", "set", "eth0", "gso_max_segs", "1")
        ip("-n", switch, "link", "set", f"p{host}", "nomaster")
        ip("-n", switch, "link", "add", f"q{host}", "type", "veth", "peer", "name", f"b{host}")
        ip("-n", switch, "link", "set", f"b{host}", "master", "br0", "up")
        ip("-n", switch, "link", "set", f"q{host}", "up")
        words = [sys.executable, str(CABLE), f"p{host}", f"q{host}", str(loss), str(delay), str(mbit)]
        self._cables[host] = subprocess.Popen(["ip", "netns", "exec", switch, *words])

    def _good_cable(self, host: int) -> None:
        cable = self._cables.pop(host)
        cable.terminate()
        cable.wait()
        ip("-n", self._switch, "link", "del", f"q{host}")
        ip("-n", self._switch, "link", "set", f"p{host}", "master", "br0")

    def restore(self) -> None:
        """Undo all silence, bad cables, and mounts that hide something."""
        for host in list(self._cables):
            self._good_cable(host)
        for source, target in sorted(self._silent):
            self.hear(source, target)
        for host in self._first:
            lines = Path(f"/proc/{self._first[host]}/mounts").read_text().splitlines()
            inside = [line.split()[1] for line in lines if line.split()[1].startswith(str(self.folder))]
            for path in reversed(inside):
                self.run(host, ["umount", "-l", path])

    def isolate(self, one: int, other: int, *, on: bool = True) -> None:
        """Let two hosts not reach each other; both reach, and are reached by, all others."""
        for source, target in ((one, other), (other, one)):
            (self.silence if on else self.hear)(source, target)
