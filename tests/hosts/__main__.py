"""Play faults on a laboratory of four hosts: ``python -m tests.hosts [--write] [NAME ...]``; without names, all.

``--write`` puts the rows into the table of docs/cluster.md.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from tests.hosts.faults import BUILDS, FAULTS, LIMITS, NAMED, REFUSED, Outcome, play
from tests.hosts.lab import Lab, why_not
from tests.hosts.plays import ROOT, SETTINGS, WORKERS, Cluster, make_store

PAGE = ROOT / "docs" / "cluster.md"
BEGIN, END = "<!-- hosts: begin -->\n", "<!-- hosts: end -->\n"
COLUMNS = ("fault", "recovery, s", "named, s", "round, s", "result", "healthy actors killed", "left after 30 s")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"


def helpers():
    """Load the maker of datasets that the tests of clusters use."""
    path = ROOT / "tests" / "cluster" / "conftest.py"
    spec = importlib.util.spec_from_file_location("cluster_helpers", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["cluster_helpers"] = module
    spec.loader.exec_module(module)
    return module


def environment() -> dict[str, str]:
    """Return the environment of the hosts: the settings of the examples, and where the program is."""
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": CACHE} | QUIET | SETTINGS


QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # as the command line sets it
CACHE = os.environ.get("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / "musegnn-hosts-numba"))


def problem(name: str, outcome: Outcome) -> str:
    """Return what is not as wanted; empty when all is."""
    if name in REFUSED:
        refused = REFUSED[name] in outcome.message and "h3" in outcome.message
        return "" if refused else f"no line that names {REFUSED[name]} and the host: {outcome.message}"
    if outcome.exit != 0:
        return f"ended with {outcome.exit}: {outcome.message}"
    wrong = []
    if name not in {*BUILDS, "firewall"} and outcome.hosts < len(WORKERS):  # which goes on with two
        wrong.append(f"actors on {outcome.hosts} hosts")
    if not outcome.same_bytes:
        wrong.append("other bytes than one process")
    if outcome.killed:
        wrong.append("a healthy actor was killed")
    if outcome.left:
        wrong.append(f"left behind: {outcome.left}")
    return "; ".join(wrong)


def late(name: str, outcome: Outcome) -> str:
    """Return what took too long; empty when nothing did."""
    if name in LIMITS and (outcome.seconds is None or outcome.seconds > LIMITS[name]):
        return f"recovery after {outcome.seconds} s, wanted {LIMITS[name]:.0f}"
    if name in NAMED and (outcome.named is None or outcome.named > NAMED[name]):
        return f"named after {outcome.named} s, wanted {NAMED[name]:.0f}"
    return ""


def play_fairly(name: str, cluster: Cluster, *where) -> tuple[Outcome, int]:
    """Play a fault; where it took too long, twice more. Return the outcome of median time, and how many there were."""
    outcomes: list[Outcome] = []
    while len(outcomes) < (3 if outcomes and late(name, outcomes[0]) else 1):
        outcomes.append(play(name, cluster, *where))
        cluster.repair()
        if problem(name, outcomes[-1]):
            return outcomes[-1], len(outcomes)
    outcomes.sort(key=lambda outcome: outcome.seconds or 0.0)
    return outcomes[len(outcomes) // 2], len(outcomes)


def row(name: str, outcome: Outcome, times: int = 1) -> str:
    number = lambda s, digits=1: f"{s:.{digits}f}" if s else ""  # noqa: E731
    result = "same bytes" if outcome.same_bytes else f"refused, {REFUSED[name]}" if name in REFUSED else "**none**"
    killed, left = "yes" if outcome.killed else "none", "yes" if outcome.left else "nothing"
    cells = [
        FAULTS[name].title,
        number(outcome.seconds) + " to its end" * (name in BUILDS) + f" (median of {times})" * (times > 1),
        number(outcome.named),
        number(outcome.round_seconds, 2),
        result,
        killed,
        left,
    ]
    return f"| {' | '.join(cells)} |\n"


def write_rows(rows: dict[str, str]) -> None:
    """Put rows into the table of the page, in the places of those that are there."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, tail = rest.partition(END)
    known = {line.split(" | ")[0].removeprefix("| "): line + "\n" for line in table.splitlines()}
    kept = {name: known[fault.title] for name, fault in FAULTS.items() if fault.title in known} | rows
    PAGE.write_text(head + BEGIN + HEADER + "".join(kept[name] for name in FAULTS if name in kept) + END + tail)


def main(words: list[str]) -> int:
    reason = why_not()
    if reason:
        print(f"no laboratory here: {reason}")
        return 0
    write, names = "--write" in words, [word for word in words if word != "--write"] or list(FAULTS)
    failed = False
    with tempfile.TemporaryDirectory(prefix="musegnn-hosts-") as place:
        folder = Path(place)
        store, config = make_store(folder / "data", helpers())
        with Lab(4, folder, env=environment()) as lab:
            cluster = Cluster(lab)
            cluster.start()
            for name in names:
                outcome, times = play_fairly(name, cluster, folder / name, store, config)
                wrong = problem(name, outcome) or late(name, outcome)
                failed |= bool(wrong)
                if write:
                    write_rows({name: row(name, outcome, times)})
                print(row(name, outcome, times).strip(), "NOT AS WANTED: " + wrong if wrong else "", flush=True)
                print(
                    f"    exit {outcome.exit}, {outcome.over:.0f} s; {outcome.cause}; {outcome.message[:300]}",
                    flush=True,
                )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
