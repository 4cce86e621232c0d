"""The frame of benchmarks for a GPU that is there for minutes: sections in processes of their own, within their time.

A section is a list of items, the most telling first. What fails is named and left out: an item, a baseline of an item,
or, where the GPU itself is lost, the process, after which the next item goes on in a new one. Rows are appended as they
come, so whatever ends the program leaves what was measured.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.run import RESULTS, append_rows, as_row, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from benchmarks.registry import Check, Measurement

MOST_SECONDS = 540
WORKERS = 12
BROKEN = 3
"""Exit code of a process whose GPU no longer answers."""
WRONG = "not timed: "
PACKAGES = {"yaml": "pyyaml", "torch_geometric": "torch-geometric", "pydantic_core": "pydantic-core"}
PACKAGES |= {"annotated_types": "annotated-types", "typing_inspection": "typing-inspection"}


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how much; ``wrong`` names the precisions whose kernels failed a check, and which are not timed."""

    device: torch.device
    quick: bool
    dry: bool
    wrong: frozenset[str] = frozenset()

    @property
    def impl(self) -> str:
        """Implementation of the kernels."""
        return "triton" if self.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1" else "reference"


class Item(NamedTuple):
    """One shape of a section."""

    name: str
    measure: Callable[[], Iterable[Measurement]]


class CheckItem(NamedTuple):
    """One check of results; where it fails, nothing of its precision is timed."""

    precision: str
    check: Callable[[], Check]


class Section(NamedTuple):
    """Seconds that a section may take, its start included, and its items."""

    seconds: float
    items: Callable[[Setting], Iterable[Item]]


class Program(NamedTuple):
    """A benchmark: module, name of its rows, modules it needs, seconds of its checks, checks and sections."""

    module: str
    case: str
    needs: tuple[str, ...]
    check_seconds: float
    checks: Callable[[Setting], Iterable[CheckItem]]
    sections: Mapping[str, Section]


def main(program: Program, doc: str, arguments: list[str] | None = None) -> int:
    """Check, then measure; return 1 when a check failed, 2 when packages or a GPU are missing, else 0."""
    parser = argparse.ArgumentParser(prog=f"python -m {program.module}", description=doc)
    parser.add_argument("--quick", action="store_true", help="fewer shapes, in a third of the time")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU; times mean nothing")
    parser.add_argument("--plan", action="store_true", help="print the seconds of each section and stop")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the CSV file is")
    for name, kind in (("section", str), ("first", int), ("seconds", float), ("part", int), ("wrong", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)  # of the processes that this one starts
    options = parser.parse_args(arguments)
    if options.dry_run:  # before Triton is imported
        os.environ.setdefault("TRITON_INTERPRET", "1")
    if options.section is not None:
        return _work(program, options)
    scale = 20.0 if options.dry_run else 1 / 3 if options.quick else 1.0  # the interpreter is slow
    plan = {"correctness": program.check_seconds} | {name: part.seconds for name, part in program.sections.items()}
    plan = {name: round(seconds * scale) for name, seconds in plan.items()}
    print(", ".join(f"{name} {seconds} s" for name, seconds in plan.items()), f"- in all {sum(plan.values())} s")
    if options.plan:
        return 0
    if missing := [PACKAGES.get(name, name) for name in program.needs if not _is_there(name)]:
        wheels = "python -m pip download --no-deps --only-binary=:all: --python-version 3.12 -d wheels"
        print(f"missing here: {', '.join(missing)}; carry wheels: {wheels} {' '.join(missing)}")
        return 2
    import torch

    if not options.dry_run and not torch.cuda.is_available():
        print("no GPU is there; --dry-run goes through everything on the CPU")
        return 2
    began = time.perf_counter()
    failed = _check(program, options, plan["correctness"])
    if failed:
        print(f"{WRONG}{', '.join(sorted(failed))}")
    for name in program.sections:
        print(f"\n{name}", flush=True)
        first, end = 0, time.perf_counter() + plan[name]
        while first is not None and time.perf_counter() < end - 1:
            arguments = ["--section", name, "--first", str(first), "--wrong", ",".join(sorted(failed))]
            first = _run(program, options, arguments, end, first)
    print(f"\n{time.perf_counter() - began:.0f} s")
    return int(bool(failed))


def device_name(device: torch.device) -> str:
    """Name the GPU; on the CPU say that it was a dry run."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu (dry run)"


def versions() -> str:
    """List the versions that matter on a GPU."""
    import torch

    found = [f"python {sys.version.split()[0]}", f"cuda {torch.version.cuda}"]
    for package in ("torch", "triton", "torch-geometric", "numpy"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    return "; ".join(found)


def is_lost(device: torch.device) -> bool:
    """Return whether a GPU no longer answers, as after an illegal access; all that follows would fail."""
    import torch

    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _is_there(module: str) -> bool:
    return module in sys.modules or find_spec(module) is not None


def _check(program: Program, options: argparse.Namespace, seconds: float) -> set[str]:
    """Run all checks in parallel processes, which also compiles the kernels; return the precisions that failed."""
    print("\ncorrectness, and compilation in parallel", flush=True)
    n = 2 if options.dry_run else min(WORKERS, os.cpu_count() or 1)
    end, failed = time.perf_counter() + seconds, set[str]()

    def work(part: int) -> None:
        arguments = ["--section", "correctness", "--part", str(part), "--first", str(n), "--wrong", ""]
        if _run(program, options, arguments, end, 0, on_line=note) is not None:
            failed.add(f"part {part} of the checks")

    def note(line: str) -> None:
        if line.startswith(WRONG):
            failed.add(line.removeprefix(WRONG).strip())

    workers = [threading.Thread(target=work, args=(part,)) for part in range(n)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return failed


def _run(
    program: Program,
    options: argparse.Namespace,
    arguments: list[str],
    end: float,
    first: int,
    on_line: Callable[[str], None] = lambda _: None,
) -> int | None:
    """Run a process until its end or the end of its time; return the item to go on with, or None."""
    command = [sys.executable, "-m", program.module, "--results", str(options.results)]
    command += ["--dry-run"] * options.dry_run + ["--quick"] * options.quick
    left = end - time.perf_counter()
    command += [*arguments, "--seconds", str(left)]
    item = first - 1
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watchdog = threading.Timer(left + 5.0, process.kill)
        watchdog.start()
        for line in process.stdout or ():
            if line.startswith("item "):
                item = int(line.split()[1])
            else:
                print(line, end="", flush=True)
                on_line(line)
        code = process.wait()
        watchdog.cancel()
    if code == 0:
        return None
    print(f"  the process ended with exit code {code} at item {item}; what follows goes on in a new one", flush=True)
    return item + 1


def _work(program: Program, options: argparse.Namespace) -> int:
    """Work through a section, or a part of the checks, in this process."""
    import torch

    end = time.perf_counter() + options.seconds
    device = torch.device("cpu" if options.dry_run else "cuda")
    wrong = frozenset(options.wrong.split(",")) - {""}
    setting = Setting(device=device, quick=options.quick, dry=options.dry_run, wrong=wrong)
    if options.section == "correctness":
        return _work_checks(program, setting, options.part, options.first, end)
    path = options.results / f"{program.case}{'-dry-run' if setting.dry else ''}.csv"
    about = {"device": device_name(device), "versions": versions()}
    for number, item in enumerate(program.sections[options.section].items(setting)):
        if number < options.first:
            continue
        if time.perf_counter() > end:
            print(f"  skipped {item.name} and what follows: the time of this section is over")
            return 0
        print(f"item {number}", flush=True)
        try:
            for measurement in item.measure():
                row = as_row(program.case, measurement) | about
                append_rows(path, [row])
                print("  " + describe(row), flush=True)
        except Exception as error:
            print(f"  failed {item.name}: {_first_line(error)}", flush=True)
            if is_lost(device):
                return BROKEN
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return 0


def _work_checks(program: Program, setting: Setting, part: int, n_parts: int, end: float) -> int:
    for number, item in enumerate(program.checks(setting)):
        if number % n_parts != part:
            continue
        if time.perf_counter() > end:
            print("  skipped further checks: their time is over")
            return 0
        try:
            check = item.check()
            holds, text = check.holds, f"{check.claim} (got {check.got})"
        except Exception as error:
            holds, text = False, f"check {number}: {_first_line(error)}"
        print(f"  {'ok  ' if holds else 'FAIL'} {text}", flush=True)
        if not holds and item.precision:
            print(f"{WRONG}{item.precision}", flush=True)
        if is_lost(setting.device):
            return BROKEN
    return 0


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
