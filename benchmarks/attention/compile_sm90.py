"""Compile every Triton kernel that the dispatch table can launch, without a GPU, and look at the machine code.

``python -m benchmarks.attention.compile_sm90 [--only TEXT] [--jobs N] [--json FILE]`` compiles for sm_90, each kernel
in a process of its own, prints a table and exits with 1 when a kernel spills registers, wants more than 100 KB of
shared memory, multiplies tiles without tensor cores, or gathers without 128-bit loads. It says nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCH = 90
SHARED_LIMIT = 100 * 1024
SECONDS_LIMIT = 300
HOME = "musegnn.kernels.edge_attention.impl.triton"
LIST_SHAPES = [(4, 32, 2), (2, 128, 2), (1, 8, 1), (8, 16, 4), (2, 256, 2), (4, 32, 8)]
TYPES = {"half": "bf16", "tf32": "fp32", "tf32x3": "fp32"}
POINTERS = {
    **dict.fromkeys(("p_col", "p_row", "p_perm", "p_mask", "p_base", "p_items"), "*i32"),
    **dict.fromkeys(("p_item_row", "p_item_count", "p_item_part", "p_split_row", "p_split_part"), "*i32"),
    **dict.fromkeys(("p_item_start", "p_table"), "*i64"),
    **dict.fromkeys(("p_lse", "p_delta", "p_da", "p_part"), "*fp32"),
}
NUMBERS = {"scale": "fp32", "grow": "fp32", "key": "u64", "threshold": "i32", "n_edges": "i64", "n": "i64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One compilation: kernel, type of the inputs, constants and launch settings."""

    module: str
    kernel: str
    dtype: str
    constants: dict[str, Any]  # Any: numbers, booleans and names
    warps: int = 4
    stages: int = 2

    @property
    def name(self) -> str:
        """Kernel, type and what distinguishes the build."""
        kernel = self.kernel.removeprefix("edge_attention_").replace("_kernel_", " ")
        shape = " ".join(f"{key}={value}" for key, value in self.constants.items() if key in {"H", "D", "F", "W"})
        marks = [key[4:].lower() for key in ("USE_DROPOUT", "USE_DA") if self.constants.get(key)]
        precision = [self.constants["PRECISION"]] if self.dtype == "fp32" and "PRECISION" in self.constants else []
        return " ".join([kernel, *(precision or [self.dtype]), shape, *marks])


@dataclass(slots=True, kw_only=True)
class Report:
    """What came out of a compilation."""

    name: str
    registers: int = 0
    stack: int = 0
    shared: int = 0
    wgmma: int = 0
    mma: int = 0
    wide_loads: int = 0
    spills: int = 0
    barriers: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def builds() -> Iterator[Build]:
    """List what the dispatch table can launch: list kernels for typical shapes, tile kernels for every entry."""
    config = import_module(f"{HOME}.config")
    for dtype in ("bf16", "fp32"):
        for n_heads, dim, n_attributes in LIST_SHAPES:
            yield from _list_builds(config, dtype, n_heads, dim, n_attributes)
        sizes = {"H": 4, "D": 32, "F": 2}
        delta = {"D": 32, "F": 2, "BD": 32, "BM": 64}
        merge = {**sizes, "BD": 32, "BF": 2}
        yield Build(module="reductions", kernel="edge_attention_bwd_kernel_delta", dtype=dtype, constants=delta)
        yield Build(
            module="reductions", kernel="edge_attention_fwd_kernel_merge", dtype=dtype, constants=merge, warps=1
        )
        total = {"W": 128, "BW": 256}
        yield Build(module="reductions", kernel="edge_attention_bwd_kernel_sum", dtype=dtype, constants=total, warps=1)
    for precision, row in config.TILE_ATTRIBUTES.items():
        for dim, most in row.items():
            yield from _tile_builds(config, precision, TYPES[precision], dim, most, dropout=True)
        yield from _tile_builds(config, precision, TYPES[precision], 32, 2, dropout=False)
    yield from _tile_builds(config, "half", "fp16", 32, 2, dropout=False)


def _list_builds(config: Any, dtype: str, n_heads: int, dim: int, n_attributes: int) -> Iterator[Build]:
    extra = {"USE_PARTS": True, "USE_DROPOUT": n_attributes != 2}
    for kernel in ("fwd_kernel_csr", "bwd_kernel_csr_rows", "bwd_kernel_csr_columns"):
        shape = config.list_shape(n_heads, dim, columns=kernel.endswith("columns"))
        constants = {"H": n_heads, "D": dim, "F": n_attributes, "BE": shape.BE, "BH": shape.BH, "BD": shape.BD, **extra}
        if kernel.endswith("rows"):
            constants["USE_DA"] = n_attributes != 2
        name = f"edge_attention_{kernel}"
        yield Build(module="csr", kernel=name, dtype=dtype, constants=constants, warps=shape.warps, stages=shape.stages)


def _tile_builds(
    config: Any, precision: str, dtype: str, dim: int, n_attributes: int, *, dropout: bool
) -> Iterator[Build]:
    for kernel in ("fwd_kernel_tile", "bwd_kernel_tile_rows", "bwd_kernel_tile_columns"):
        shape = config.tile_shape(precision, dim, columns=kernel.endswith("columns"))
        constants = {"H": 4, "D": dim, "F": n_attributes, "BM": shape.BM, "BD": shape.BD}
        constants |= {"PRECISION": config.input_precision(precision), "USE_DROPOUT": dropout, "UPCAST": False}
        name = f"edge_attention_{kernel}"
        yield Build(
            module="tile", kernel=name, dtype=dtype, constants=constants, warps=shape.warps, stages=shape.stages
        )


def compile_build(build: Build) -> Report:
    """Compile for sm_90 and read registers, stack, shared memory and instructions from the result."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    start = time.perf_counter()
    kernel = getattr(import_module(f"{HOME}.{build.module}"), build.kernel)
    signature = {
        param.name: "constexpr" if param.is_constexpr else _type_of(param.name, build) for param in kernel.params
    }
    # At run time torch's tensors are aligned; without these marks there would be no wide loads.
    attrs = {
        (number,): [["tt.divisibility", 16]] for number, kind in enumerate(signature.values()) if kind.startswith("*")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=build.constants, attrs=attrs)
    options = {"num_warps": build.warps, "num_stages": build.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", ARCH, 32), options=options)
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _run(tools / "cuobjdump", "--dump-resource-usage", file.name)
        code = _run(tools / "nvdisasm", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    report = Report(
        name=build.name,
        registers=int(found[1]),
        stack=int(found[2]),
        shared=compiled.metadata.shared,
        wgmma=len(re.findall(r"\bHGMMA", code)),
        mma=len(re.findall(r"\bHMMA", code)),
        wide_loads=len(re.findall(r"\bLDG\.E\.128|\bLDGSTS\.E\.(?:BYPASS\.)?128", code)),
        spills=len(re.findall(r"\b(?:LDL|STL)\b", code)),
        barriers=_barriers_in_loops(code),
        seconds=time.perf_counter() - start,
    )
    report.faults = _judge(build, report)
    return report


def _judge(build: Build, report: Report) -> list[str]:
    faults = []
    if report.stack or report.spills:
        faults.append("spills")
    if report.shared > SHARED_LIMIT:
        faults.append("shared memory")
    if build.module == "tile" and report.wgmma == 0:
        faults.append("no tensor cores")
    if build.module in {"csr", "tile"} and report.wide_loads == 0:
        faults.append("no wide loads")
    return faults


def _barriers_in_loops(code: str) -> int:
    """Count the waits for other threads between a label and a jump back to it."""
    lines = code.splitlines()
    labels = {found[1]: at for at, line in enumerate(lines) if (found := re.match(r"\s*\.(L_x_\d+):", line))}
    loops = [
        (labels[found[1]], at)
        for at, line in enumerate(lines)
        if (found := re.search(r"BRA.*`\(\.(L_x_\d+)\)", line)) and labels.get(found[1], at) < at
    ]
    return max((sum("BAR.SYNC" in line for line in lines[first:last]) for first, last in loops), default=0)


def _type_of(name: str, build: Build) -> str:
    if name == "p_a" and build.module == "tile":
        return "*fp32"
    if name.startswith("p_part_") or name in POINTERS:
        return POINTERS.get(name, "*fp32")
    return NUMBERS.get(name, f"*{build.dtype}")


def _run(*command: object) -> str:
    parts = [str(part) for part in command]
    return subprocess.run(parts, capture_output=True, text=True, check=True).stdout


def main(arguments: list[str] | None = None) -> int:
    """Compile, print the table, judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention.compile_sm90", description=__doc__)
    parser.add_argument("--only", default="", help="builds whose name has this text")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        parser.error("TRITON_INTERPRET=1 is set: the interpreter compiles nothing")
    chosen = [build for build in builds() if options.only in build.name]
    reports = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([f"{HOME}.{name}" for name in ("csr", "tile", "reductions")])
        print(f"{'kernel':<58}regs stack  shared wgmma  mma  ld128  bar seconds")
        with context.Pool(options.jobs, maxtasksperchild=1) as pool:
            waiting = [(build, pool.apply_async(compile_build, (build,))) for build in chosen]
            for build, result in waiting:
                try:
                    report = result.get(timeout=SECONDS_LIMIT)
                except multiprocessing.TimeoutError:
                    report = Report(name=build.name, faults=[f"not compiled within {SECONDS_LIMIT} s"])
                reports.append(report)
                print(_describe(report), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n", encoding="utf-8")
    faulty = [report for report in reports if report.faults]
    print(f"{len(reports)} kernels compiled for sm_{ARCH}, {len(faulty)} with faults")
    return int(bool(faulty) or not reports)


def _describe(report: Report) -> str:
    return (
        f"{report.name:<58}{report.registers:>4}{report.stack:>6}{report.shared:>8}{report.wgmma:>6}{report.mma:>5}"
        f"{report.wide_loads:>7}{report.barriers:>5}{report.seconds:>8.1f}  {', '.join(report.faults)}"
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
