"""Versions, devices, optional packages, free memory and disk of this machine."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from musegnn.machine import available_memory
from musegnn.units import format_bytes

REQUIRED = (
    "torch", "torch-geometric", "ray", "zarr", "numba", "dask", "anndata", "numpy", "scipy", "pandas",
    "scikit-learn", "umap-learn", "safetensors",
)  # fmt: skip
OPTIONAL = {
    "igraph": "Leiden clusters (extra `bio`)",
    "gseapy": "enrichment (extra `bio`)",
    "scanpy": "scanpy (extra `bio`)",
    "triton": "attention on CUDA devices (extra `gpu`; torch for CUDA brings it)",
    "torch-scatter": "torch-scatter segment operations (extra `scatter`)",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination, of level ``ok``, ``note`` (works without) or ``problem``."""

    item: str
    state: str
    level: str


def examine() -> list[Finding]:
    """Return what was found on this machine; a problem stops the main job."""
    found = [Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", "ok")]
    found += [_package(name, required=True) for name in REQUIRED]
    found += [_package(name, required=False) for name in OPTIONAL]
    found += [_device(), _kernels(), _compiled(), *_resources()]
    return found


def warm_up() -> float:
    """Compile the CPU kernels, which are kept for later processes, and return the seconds it took."""
    from musegnn.coexpression.warm_up import warm_up as warm_up_coexpression
    from musegnn.kernels.edge_attention.warm_up import warm_up as warm_up_attention

    start = time.perf_counter()
    warm_up_attention()
    warm_up_coexpression()
    return time.perf_counter() - start


def as_json(findings: list[Finding]) -> list[dict[str, str]]:
    """Return findings as plain values."""
    return [asdict(f) for f in findings]


def _package(name: str, *, required: bool) -> Finding:
    try:
        return Finding(name, version(name), "ok")
    except PackageNotFoundError:
        if name == "triton" and platform.system() != "Linux":
            return Finding(name, "not on this system; GPU kernels are off", "note")
        use = OPTIONAL.get(name, "")
        return Finding(name, f"absent{': ' + use if use else ''}", "problem" if required else "note")


def _device() -> Finding:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        return Finding("device", f"torch does not import: {error}", "problem")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Finding("device", f"{names}; CUDA {torch.version.cuda}", "ok")
    return Finding("device", f"no GPU: the CPU kernels are used; {torch.get_num_threads()} torch threads", "note")


def _kernels() -> Finding:
    try:
        api = importlib.import_module("musegnn.kernels.edge_attention")
    except (ImportError, RuntimeError) as error:
        return Finding("attention kernels", f"not importable: {error}", "problem")
    return Finding("attention kernels", ", ".join(api.available()), "ok")


def _compiled() -> Finding:
    folder = importlib.import_module("musegnn.kernels.compile_cache").ensure_cache()
    if folder is None:
        return Finding("compiled kernels", "are kept for later processes", "ok")
    return Finding(
        "compiled kernels", f"are kept in {folder} for now; name a lasting folder in NUMBA_CACHE_DIR", "note"
    )


def _resources() -> list[Finding]:
    found = [Finding("cores", str(len(os.sched_getaffinity(0))), "ok")] if hasattr(os, "sched_getaffinity") else []
    free = available_memory()
    found.append(Finding("free memory", format_bytes(free), "ok" if free >= 3 * 2**30 else "problem"))
    disk = shutil.disk_usage(Path.cwd()).free
    found.append(Finding("free disk here", format_bytes(disk), "ok" if disk >= 2**30 else "problem"))
    return found
