"""Containers, read-only installations and other locales."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from musegnn.api import MuSeGNN
from musegnn.atlas_file import validate_atlas
from musegnn.coexpression.memory import memory_budget
from musegnn.errors import ConfigError
from musegnn.machine import available_memory, resolve_device

GIB = 2**30


def machine(root, *, free=7 * GIB, cgroup="0::/\n", **files):
    """Write the files of a machine with so much free memory."""
    files = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {free // 1024} kB\n", "proc/self/cgroup": cgroup} | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/memory"
LIMITS = {
    "version 2": ("0::/\n", {f"{V2}/memory.max": f"{2 * GIB}\n", f"{V2}/memory.current": "0\n"}),
    "version 2 in a group": ("0::/a/b\n", {f"{V2}/a/b/memory.max": f"{2 * GIB}\n"}),
    "version 2 in the group above": (
        "0::/a/b\n",
        {f"{V2}/a/memory.max": f"{2 * GIB}\n", f"{V2}/a/b/memory.max": "max\n"},
    ),
    "version 2 with the place of the host": ("0::/docker/x\n", {f"{V2}/memory.max": f"{2 * GIB}\n"}),
    "version 1": ("4:memory:/\n1:name=systemd:/\n", {f"{V1}/memory.limit_in_bytes": f"{2 * GIB}\n"}),
    "version 1 in a group": ("4:cpu,memory:/job\n", {f"{V1}/job/memory.limit_in_bytes": f"{2 * GIB}\n"}),
    "both": ("5:memory:/job\n0::/\n", {f"{V1}/job/memory.limit_in_bytes": f"{2 * GIB}\n"}),
}


@pytest.mark.parametrize("case", LIMITS)
def test_limits_of_containers_are_seen(case, tmp_path):
    cgroup, files = LIMITS[case]
    assert available_memory(machine(tmp_path, cgroup=cgroup, **files)) == 2 * GIB


def test_what_a_container_uses_is_taken_off_but_for_caches(tmp_path):
    files = {
        f"{V2}/memory.max": f"{2 * GIB}",
        f"{V2}/memory.current": f"{GIB}",
        f"{V2}/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
    }
    assert available_memory(machine(tmp_path, **files)) == 3 * GIB // 2
    assert available_memory(machine(tmp_path, **files | {f"{V2}/memory.current": f"{9 * GIB}"})) == 0


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/\n", {f"{V2}/memory.max": "max\n"}),
        ("4:memory:/\n", {f"{V1}/memory.limit_in_bytes": "9223372036854771712\n"}),
        ("", {}),
    ],
)
def test_machines_without_a_limit_give_what_is_free(cgroup, files, tmp_path):
    assert available_memory(machine(tmp_path, cgroup=cgroup, **files)) == 7 * GIB


def test_the_budget_is_half_of_the_limit(tmp_path, monkeypatch):
    root = machine(tmp_path, **{f"{V2}/memory.max": f"{2 * GIB}"})
    monkeypatch.setattr("musegnn.coexpression.memory.available_memory", lambda: available_memory(root))
    assert memory_budget(None) == GIB


READ_ONLY = """
mount --bind {package} {package} && mount -o remount,bind,ro {package} || exit 77
mount --bind {site} {site} && mount -o remount,bind,ro {site} || exit 77
mount -t tmpfs -o ro tmpfs {home} || exit 77
export HOME={home}
unset NUMBA_CACHE_DIR XDG_CACHE_HOME
cd /
{python} -c '
import logging
logging.basicConfig()
from musegnn.kernels.count_table.impl import numba as kernels
from musegnn.doctor import _compiled
import os
print(os.environ["NUMBA_CACHE_DIR"])
print(_compiled().state)
'
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux")
def test_a_read_only_installation_and_home(root, tmp_path):
    import numba

    home = tmp_path / "home"
    home.mkdir()
    site = Path(numba.__file__).parent.parent
    script = READ_ONLY.format(package=root, site=site, home=home, python=sys.executable)
    command = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else []), "sh", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"TMPDIR": str(tmp_path)}, check=False
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 0, done.stderr
    folder, state = done.stdout.splitlines()
    assert Path(folder) == tmp_path / f"musegnn-numba-{os.getuid()}"
    assert folder in state
    assert "NUMBA_CACHE_DIR" in state
    assert done.stderr.count("W311") == 1
    assert "Traceback" not in done.stderr


def test_a_writable_installation_needs_no_other_cache(monkeypatch):
    from musegnn.kernels import compile_cache

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert compile_cache.ensure_cache() is None
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_shared_temporary_folder_is_not_trusted(tmp_path, monkeypatch):
    from musegnn.kernels import compile_cache

    taken = tmp_path / "x"
    taken.mkdir(mode=0o777)
    taken.chmod(0o777)
    assert not compile_cache._make_private(taken)
    (tmp_path / "link").symlink_to(tmp_path)
    assert not compile_cache._make_private(tmp_path / "link")
    assert compile_cache._make_private(tmp_path / "own")


LATIN = """
import locale, sys
assert locale.getpreferredencoding(False).lower().replace("-", "") not in {"utf8"}, locale.getpreferredencoding(False)
from pathlib import Path
from musegnn.atlas_file import load_atlas, read_genes
from musegnn.training.genes import read_orthologs
from musegnn.evaluation.gene_sets import read_gmt
from musegnn.run_folder import RunFolder
here = Path(sys.argv[1])
atlas = load_atlas(here / "atlas.yaml")
assert atlas.datasets[0].tissue == "na\\u00efve-\\u03b2"
assert read_genes(here / "genes.txt") == ("\\u03b2-catenin",)
assert read_orthologs(here / "orthologs.csv").keys["mouse"] == {"\\u03b2": "human:\\u03b2"}
assert read_gmt(here / "sets.gmt") == {"\\u03b2": frozenset(["A"])}
folder = RunFolder.create(here / "run", atlas)
assert RunFolder.open(here / "run").atlas().datasets[0].tissue == "na\\u00efve-\\u03b2"
"""


def test_text_files_are_utf8_in_every_locale(tmp_path):
    texts = {
        "atlas.yaml": "datasets:\n  - {name: a, path: a.h5ad, modality: scrna, tissue: naïve-β, species: human}\n",
        "genes.txt": "β-catenin\n",
        "orthologs.csv": "human,mouse\nβ,β\n",
        "sets.gmt": "β\tx\tA\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    latin = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [
        sys.executable,
        "-X",
        "warn_default_encoding",
        "-W",
        "error::EncodingWarning:musegnn",
        "-c",
        LATIN,
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | latin, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_names_that_a_locale_cannot_write_are_printed_all_the_same(encoding, tmp_path):
    import anndata as ad

    counts = np.random.default_rng(0).poisson(2.0, (60, 8)).astype(np.float32)
    adata = ad.AnnData(counts, var=pd.DataFrame(index=[f"β{i}" for i in range(8)]))
    adata.obs["naïve-λ"] = "x"
    adata.write_h5ad(tmp_path / "a.h5ad")
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "musegnn", "inspect", str(tmp_path / "a.h5ad")]
    done = subprocess.run(command, capture_output=True, timeout=120, env=os.environ | latin, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.decode(encoding)
    assert ("β0" if encoding == "utf-8" else r"\u03b20") in printed
    assert ("naïve" if encoding != "ascii" else r"na\xefve") in printed


@pytest.fixture
def small_group():
    """Make a control group of processes that may take 2 GiB of memory, where this system lets us; remove it."""
    places = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    top = Path("/sys/fs/cgroup")
    version_1 = (top / "memory" / places.get("memory", "").strip("/"), "memory.limit_in_bytes")
    version_2 = (top / places.get("", "").strip("/"), "memory.max")
    group = next(filter(None, (_limited_group(*place) for place in (version_1, version_2))), None)
    if group is None:
        pytest.skip("this system lets nobody limit the memory of a control group")
    yield group
    group.rmdir()


def _limited_group(parent, limit):
    group = parent / f"musegnn-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        (group / limit).write_text(str(2 * GIB))
    except OSError:
        group.rmdir()
        return None
    return group


IN_GROUP = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
BUILD_IN_GROUP = """
import sys
from pathlib import Path
from musegnn.atlas_file import load_atlas
from musegnn.machine import available_memory
from musegnn.pipeline import build_graphs
print(available_memory())
store = build_graphs(load_atlas(Path(sys.argv[1])), Path(sys.argv[2]), scheduler="threads", device="cpu")
print(*store.datasets())
"""


def test_a_build_in_a_control_group_stays_within_its_memory(small_group, tmp_path):
    from benchmarks.crash.records import make_atlas

    atlas = make_atlas(tmp_path, n_datasets=1)
    command = ["sh", "-c", IN_GROUP, "sh", str(small_group), sys.executable, "-c", BUILD_IN_GROUP]
    command += [str(atlas), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if "cgroup.procs" in done.stderr:
        pytest.skip("this system lets nobody enter a control group")
    assert done.returncode == 0, done.stderr
    available, datasets = done.stdout.splitlines()
    assert 0 < int(available) <= 2 * GIB
    assert datasets == "d0"


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_device_is_what_this_machine_has_or_a_refusal(monkeypatch, tmp_path, count):
    there = tmp_path / "nvidia0"
    if count:
        there.touch()
    monkeypatch.setattr("musegnn.machine.NVIDIA", there)
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if count else "cpu")
    if count:
        assert resolve_device("cuda") == "cuda"
    else:
        with pytest.raises(ConfigError, match=r"E308.*finds no GPU on this machine.*--device cpu"):
            resolve_device("cuda")
    with pytest.raises(ConfigError, match=r"E302.*'gpu'"):
        resolve_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_model_on_cuda_is_refused_where_there_is_none():
    config = validate_atlas(
        {
            "datasets": [{"name": "a", "path": "a.h5ad", "modality": "scrna", "tissue": "lung", "species": "human"}],
            "training": {"device": "cuda"},
        },
        where="test",
    )
    for device in (None, "cuda"):
        with pytest.raises(ConfigError, match="E308"):
            MuSeGNN(None, config, device=device)
