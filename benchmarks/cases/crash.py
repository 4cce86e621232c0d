"""Kills, power failures, flipped bits, races, full disks and mutated files: how often each is tried, what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.crash.fuzz import fuzz
from benchmarks.crash.inputs import KINDS
from benchmarks.crash.kills import kill_at_random
from benchmarks.crash.store_faults import concurrent_commits, flip_bits, full_and_read_only
from benchmarks.crash.store_power_loss import store_power_losses
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

READER_MEMORY = 2**29


class Crash:
    """All claims are checks; the numbers of trials are the measurements."""

    name = "crash"

    def __init__(self) -> None:
        self._trials: list[Measurement] = []

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Try each kind of failure and compare with what was promised."""
        self._trials = []
        killed = kill_at_random(5 if quick else 200)
        self._note("SIGKILL of process groups", killed.kills, len(killed.lost))
        yield _nothing(
            f"nothing committed is lost by {killed.kills} kills ({killed.building} while building, {killed.training} "
            f"while training, {killed.finished} runs finished with the bytes of undisturbed ones)",
            killed.lost,
        )
        power = store_power_losses(60 if quick else 2000)
        self._note("simulated power failures", power.states, len(power.lost))
        yield _nothing(f"nothing promised is lost in {power.states} states after power failures", power.lost)
        flips = flip_bits(30 if quick else 1000)
        self._note("flipped bits", flips.flipped, flips.flipped - flips.found + len(flips.misread))
        yield _nothing(f"verify finds {flips.found} of {flips.flipped} flipped bits", flips.missed)
        yield _nothing("no flipped bit is read as a value", flips.misread)
        processes, commits = (2, 3) if quick else (4, 25)
        kept, problems = concurrent_commits(processes, commits)
        self._note(f"commits of {processes} processes at once", processes * commits, processes * commits - kept)
        yield Check(claim="all concurrent commits are kept", holds=kept == processes * commits, got=str(kept))
        yield _nothing("and whole", problems)
        full = full_and_read_only()
        self._note("full and read-only file systems", len(full), sum(map(bool, full.values())))
        yield _nothing(
            f"{len(full)} commands on full and read-only file systems end in one line",
            [f"{trial}: {wrong}" for trial, wrong in full.items() if wrong],
        )
        for kind in KINDS:
            yield from self._fuzz(kind, 40 if quick else 2000)

    def _fuzz(self, kind: str, files: int) -> Iterator[Check]:
        read = fuzz(kind, files)
        failed = read.died + read.errors + read.writes
        self._note(f"mutated files, {kind}", read.files, len(failed))
        refused = ", ".join(f"{code} {n}" for code, n in read.refused.most_common())
        yield _nothing(
            f"{read.files} mutated {kind} files: {read.accepted} read, the others refused: {refused}", failed
        )
        yield Check(
            claim=f"reading them takes at most {READER_MEMORY / 2**20:.0f} MiB more",
            holds=read.peak_bytes <= READER_MEMORY,
            got=f"{read.peak_bytes / 2**20:.0f} MiB",
        )

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Return the numbers of trials and of what was lost in them."""
        del quick
        yield from self._trials

    def _note(self, what: str, trials: int, lost: int) -> None:
        self._trials.append(
            Measurement(shape=f"{what}: {trials}", metric="lost", value=lost, unit="", goal=("value", "<=", 0.0))
        )


def _nothing(claim: str, found: list[str]) -> Check:
    return Check(claim=claim, holds=not found, got=f"{len(found)}" + (f", first: {found[0]}" if found else ""))


CASE = Crash()
