"""Run cases: gate, measure, print a table, append rows to ``benchmarks/results/CASE.csv``."""

from __future__ import annotations

import csv
import json
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.registry import Case, Measurement

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("case", "shape", "metric", "value", "unit", "baseline", "baseline_value", "ratio", "goal", "met")
COLUMNS += ("device", "threads", "versions", "date")
PACKAGES = ("numpy", "scipy", "numba", "torch", "torch-geometric")

IDLE_SECONDS = 0.3
"""Pause before a job, in which spinning threads of the job before go to sleep: their time would count."""

Row = dict[str, str | float | int | bool | None]


def run_cases(cases: Iterable[Case], *, quick: bool, json_path: Path | None = None, results: Path = RESULTS) -> int:
    """Run cases one after the other; return 1 when a gate failed, else 0.

    A case is not timed when its gate fails.

    Parameters
    ----------
    quick
        Whether to take small shapes only.
    json_path
        File for all rows of this run as JSON.
    results
        Folder of the CSV files that rows are appended to.
    """
    rows: list[Row] = []
    failed = False
    for case in cases:
        print(f"\n{case.name}: correctness")
        holds = True
        for check in case.gate(quick=quick):
            print(f"  {'ok  ' if check.holds else 'FAIL'} {check.claim} (got {check.got})", flush=True)
            holds &= check.holds
        if not holds:
            print(f"{case.name}: not timed, because its results are wrong")
            failed = True
            continue
        print(f"{case.name}: measurements")
        for measurement in case.measure(quick=quick):
            rows.append(as_row(case.name, measurement))
            print("  " + describe(rows[-1]), flush=True)
            append_rows(results / f"{case.name}.csv", rows[-1:])  # at once, as some cases take hours
    if json_path is not None:
        json_path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(failed)


def interleave(
    ours: Callable[[], object], baseline: Callable[[], object], *, rounds: int, settle: int = 0
) -> tuple[float, float]:
    """Time two computations in turns, so that a busy machine slows both; return median CPU seconds of all threads.

    Each is called once untimed, to compile and to load.

    Parameters
    ----------
    rounds
        Number of timed rounds.
    settle
        Number of untimed runs before each timed one. A computation that is repeated in use finds caches and heap as it
        left them; without these runs it finds those of the other one, and may have to return the other's memory.
    """
    times: tuple[list[float], list[float]] = ([], [])
    ours()
    baseline()
    for _ in range(rounds):
        for job, seconds in zip((ours, baseline), times, strict=True):
            time.sleep(IDLE_SECONDS)
            for _ in range(settle):
                job()
            start = time.process_time()
            job()
            seconds.append(time.process_time() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def as_row(case: str, measurement: Measurement) -> Row:
    """Return a measurement as a row, with device, versions and date."""
    goal = "" if measurement.goal is None else "{} {} {:g}".format(*measurement.goal)
    values = (
        case,
        measurement.shape,
        measurement.metric,
        measurement.value,
        measurement.unit,
        measurement.baseline,
        measurement.baseline_value,
        measurement.ratio,
        goal,
        measurement.met,
        device(),
        len(os.sched_getaffinity(0)),
        versions(),
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    return dict(zip(COLUMNS, values, strict=True))


def describe(row: Row) -> str:
    """Return a row as text for the terminal."""
    text = f"{row['shape']:<24} {row['metric']:<22} {row['value']:.4g} {row['unit']}"
    if row["baseline_value"] is not None:
        text += f"   {row['baseline']} {row['baseline_value']:.4g} {row['unit']}, {row['ratio']:.2f}x"
    if row["goal"]:
        text += f"   goal {row['goal']}: {'met' if row['met'] else 'MISSED'}"
    return text


def append_rows(path: Path, rows: list[Row]) -> None:
    """Append rows to a CSV file, with a header when it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def device() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> str:
    """List the versions that matter."""
    found = [f"python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    return "; ".join(found)
