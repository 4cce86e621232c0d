"""Foreign HDF5 files are read in a limited process first, whose end is one error line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from musegnn.data_store import hdf5_probe, open_matrix
from musegnn.errors import InputError


@pytest.fixture
def fresh(monkeypatch):
    """Start a process of its own for this test, with another program if asked."""
    probe = hdf5_probe._Probe()
    monkeypatch.setattr(hdf5_probe, "_PROBE", probe)
    yield probe
    if probe._process is not None:
        hdf5_probe._end(probe._process)


@pytest.fixture
def program(tmp_path, monkeypatch, fresh):
    """Replace the program of the process."""

    def replace(text):
        path = tmp_path / "program.py"
        path.write_text("import sys, os, signal, time\nfor line in sys.stdin:\n    " + text + "\n")
        monkeypatch.setattr(hdf5_probe, "__file__", str(path))

    return replace


def test_whole_files_pass_and_are_read_once_per_state(fresh, save, make_adata, monkeypatch):
    path = save(make_adata())
    asked = []
    ask = fresh._ask
    monkeypatch.setattr(fresh, "_ask", lambda place: asked.append(place) or ask(place))
    for _ in range(2):
        assert open_matrix(path).n_cells == 120
    process = fresh._process.pid
    os.utime(path, ns=(1, 1))
    open_matrix(path)
    assert asked == [str(path)] * 2
    assert fresh._process.pid == process


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_is_one_line_and_the_next_file_is_read(fresh, program, save, make_adata, name, monkeypatch):
    whole = hdf5_probe.__file__
    program(f"os.kill(os.getpid(), signal.{name})")
    path = save(make_adata())
    with pytest.raises(InputError, match=rf"E101.*dies \({name}\).*Fix: ") as caught:
        open_matrix(path)
    assert "\n" not in caught.value.line()
    monkeypatch.setattr(hdf5_probe, "__file__", whole)
    assert open_matrix(path).n_cells == 120


def test_a_file_without_end_is_refused(program, save, make_adata, monkeypatch):
    program("time.sleep(60)")
    monkeypatch.setattr(hdf5_probe, "WALL_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"E101.*does not come to an end"):
        open_matrix(save(make_adata()))


def test_too_much_cpu_time_is_refused(program, save, make_adata):
    program("os.kill(os.getpid(), signal.SIGXCPU)")
    with pytest.raises(InputError, match=r"E101.*does not come to an end"):
        open_matrix(save(make_adata()))


def test_small_files_get_less_cpu_time(tmp_path):
    path = tmp_path / "x.h5ad"
    found = []
    for size in (0, 2 * 2**20, 2**40):
        with path.open("wb") as file:
            file.truncate(size)
        found.append(hdf5_probe._cpu_seconds(str(path)))
    assert found == [4, 12, 60]


def test_a_name_that_declares_gigabytes_is_refused_before_they_are_allocated(fresh, save, make_adata):
    """The library allocates what a name says it takes before it reads the name."""
    path = save(make_adata())
    with h5py.File(path) as file:
        at = file["obs/_index"].id.get_offset()
    raw = bytearray(path.read_bytes())
    raw[at : at + 4] = (3 * 10**9).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"E101.*takes too much memory"):
        open_matrix(path)


def test_other_faults_are_left_to_the_reader(fresh, tmp_path):
    path = tmp_path / "text.h5ad"
    path.write_text("no HDF5")
    with pytest.raises(InputError, match="E230"):
        open_matrix(path)
    with pytest.raises(InputError, match="E230"):
        open_matrix(tmp_path / "absent.h5ad")


def test_the_process_ends_with_its_parent(tmp_path, save, make_adata):
    path = save(make_adata())
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom musegnn.data_store import hdf5_probe\n"
        "hdf5_probe.probe_hdf5(Path(sys.argv[1]))\nprint(hdf5_probe._PROBE._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    until = time.monotonic() + 30
    while Path(f"/proc/{int(done.stdout)}/exe").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{int(done.stdout)}/exe").exists()
