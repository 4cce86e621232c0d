"""Read foreign HDF5 files in a limited process first, so that a file on which the HDF5 library crashes harms nobody.

This file is also the program of that process. It is started with the first file and serves all later ones. It may take
512 MiB of memory and, per file, 4 seconds of CPU time and one more for each 256 KiB up to a minute, as 20,000 small
objects in 9 MiB take 12; it writes nothing and follows no link out of the file. It walks all objects and attributes and
reads arrays whole up to 16 MiB, of larger ones the first and the last rows.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMORY = 512 * 2**20
"""Beyond what the libraries take."""
CPU_SECONDS, CPU_SECONDS_MOST = 4, 60
BYTES_PER_SECOND = 256 * 2**10
WALL_SECONDS = 300
MAX_OBJECTS = 20_000
WHOLE_BYTES = 16 * 2**20
PART_BYTES = 2**20


class _Probe:
    """The process, started at first use and again after it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._passed: set[tuple[str, int, int]] = set()

    def check(self, path: Path) -> None:
        stat = path.stat()
        key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
        with self._lock:
            if key not in self._passed:
                trouble = self._ask(key[0])
                if trouble:
                    raise _refusal(path, trouble)
                self._passed.add(key)

    def _ask(self, path: str) -> str:
        """Return what goes wrong with a file in the process, empty when nothing does."""
        process = self._started()
        if process.stdin is None or process.stdout is None:
            return "its process has no pipes"
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(path).encode() + b"\n")
            process.stdin.flush()
        answered, _, _ = select.select([process.stdout], [], [], WALL_SECONDS)
        answer = process.stdout.readline() if answered else b""
        if answer:
            return str(json.loads(answer))
        if not answered:
            process.kill()
        code = process.wait()
        self._process = None
        if not answered or code == -signal.SIGXCPU:
            return "does not come to an end"
        return f"dies ({signal.Signals(-code).name})" if code < 0 else f"ends with exit code {code}"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            command = [sys.executable, "-P", __file__]
            limited = os.environ | {
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "HDF5_USE_FILE_LOCKING": "FALSE",
            }
            self._process = subprocess.Popen(  # noqa: S603  the interpreter and this file
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=limited
            )
            self._owner = os.getpid()
            atexit.register(_end, self._process)
        return self._process


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.kill()
        process.communicate()


_PROBE = _Probe()


def probe_hdf5(path: Path) -> None:
    """Read a file in the limited process, once per process and state of the file; other faults than these pass.

    Raises
    ------
    InputError
        E101 when the HDF5 library crashes on the file, does not come to an end, or takes too much memory.
    """
    if path.is_file():
        _PROBE.check(path)


def _refusal(path: Path, trouble: str) -> Exception:
    from musegnn.errors import InputError
    from musegnn.text import short_path

    msg = f"the HDF5 library {trouble} on this file"
    return InputError(msg, code="E101", where=short_path(path), fix="copy it again, or write it anew from its source")


def main() -> None:
    """Answer each path on standard input by one line: what goes wrong, as JSON text, empty when nothing does."""
    import h5py  # noqa: F401  counted with the libraries

    if importlib.util.find_spec("hdf5plugin") is not None:
        importlib.import_module("hdf5plugin")  # as the reader does

    if os.path.exists("/proc/self/statm"):  # noqa: PTH110  no pathlib here
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            libraries = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (libraries + MEMORY, libraries + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    for line in sys.stdin:
        path = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + _cpu_seconds(path), hard))
        trouble = ""
        try:
            _read(path)
        except MemoryError:
            trouble = "takes too much memory"
        except Exception as error:  # the reader meets it again, and names it better
            trouble = "takes too much memory" if "alloc" in str(error) else ""
        print(json.dumps(trouble), flush=True)


def _cpu_seconds(path: str) -> int:
    """Return the CPU time that a whole file of this size needs at the most."""
    return min(CPU_SECONDS + os.stat(path).st_size // BYTES_PER_SECOND, CPU_SECONDS_MOST)  # noqa: PTH116  no pathlib


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Go on after an error of the library, unless memory has run out."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        if "alloc" in str(error):
            raise MemoryError from error


def _read(path: str) -> None:
    import h5py

    with h5py.File(path, "r") as file:
        waiting: list[Any] = [file]  # groups and arrays
        seen: set[int] = set()
        while waiting and len(seen) < MAX_OBJECTS:
            node = waiting.pop()
            place = h5py.h5o.get_info(node.id).addr
            if place in seen:
                continue
            seen.add(place)
            with _faults():
                for key in node.attrs:
                    with _faults():
                        node.attrs[key]
            with _faults():
                if isinstance(node, h5py.Dataset):
                    _read_array(node)
                    continue
                for key in node:
                    with _faults():
                        if isinstance(node.get(key, getlink=True), h5py.HardLink):
                            waiting.append(node[key])


def _read_array(array: Any) -> None:  # h5py.Dataset; h5py is imported at use
    if array.external or array.is_virtual or array.shape is None:
        return
    if not array.shape:
        array[()]
        return
    row = array.dtype.itemsize
    for n in array.shape[1:]:
        row *= n
    chunk = array.dtype.itemsize
    for n in array.chunks or (0,):
        chunk *= n
    if max(chunk, row) > 4 * WHOLE_BYTES:
        return
    if row * array.shape[0] <= WHOLE_BYTES:
        array[()]
        return
    rows = max(1, PART_BYTES // max(row, 1))
    array[:rows]
    array[-rows:]


if __name__ == "__main__":
    main()
