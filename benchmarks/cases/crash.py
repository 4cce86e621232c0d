"""Kills, power failures, flipped bits, races and full disks: how often each is tried, what is lost.

A full run writes its table of ``SECURITY.md``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.crash.kills import Kills, kill_at_random
from benchmarks.crash.store_faults import concurrent_commits, flip_bits, full_and_read_only
from benchmarks.crash.store_power_loss import store_power_losses
from benchmarks.pages import machine_and, write_table
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator


class Crash:
    """All claims are checks; the numbers of trials are the measurements."""

    name = "crash"

    def __init__(self) -> None:
        self._trials: list[Measurement] = []
        self._killed = Kills()

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Try each kind of failure and compare with what was promised."""
        self._trials = []
        killed = kill_at_random(5 if quick else 200)
        self._note("SIGKILL of process groups", killed.kills, len(killed.lost))
        self._killed = killed
        yield nothing(
            f"nothing committed is lost by {killed.kills} kills ({killed.building} while building, {killed.training} "
            f"while training, {killed.finished} runs finished with the bytes of undisturbed ones)",
            killed.lost,
        )
        power = store_power_losses(60 if quick else 2000)
        self._note("simulated power failures", power.states, len(power.lost))
        yield nothing(f"nothing promised is lost in {power.states} states after power failures", power.lost)
        flips = flip_bits(30 if quick else 1000)
        self._note("flipped bits", flips.flipped, flips.flipped - flips.found + len(flips.misread))
        yield nothing(f"verify finds {flips.found} of {flips.flipped} flipped bits", flips.missed)
        yield nothing("no flipped bit is read as a value", flips.misread)
        processes, commits = (2, 3) if quick else (4, 25)
        kept, problems = concurrent_commits(processes, commits)
        self._note(f"commits of {processes} processes at once", processes * commits, processes * commits - kept)
        yield Check(claim="all concurrent commits are kept", holds=kept == processes * commits, got=str(kept))
        yield nothing("and whole", problems)
        full = full_and_read_only()
        self._note("full and read-only file systems", len(full), sum(map(bool, full.values())))
        yield nothing(
            f"{len(full)} commands on full and read-only file systems end in one line",
            [f"{trial}: {wrong}" for trial, wrong in full.items() if wrong],
        )

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Return the numbers of trials and of what was lost in them."""
        yield from self._trials
        parts = asdict(self._killed)
        for metric in ("building", "training", "finished"):
            yield Measurement(shape=self._trials[0].shape, metric=metric, value=parts[metric], unit="")
        if not quick:
            killed = self._killed
            about = (
                f"Of the kills {killed.building} came while graphs were built and {killed.training} while training; "
                f"{killed.finished} runs came to their end, with the bytes of undisturbed ones. "
                f"{machine_and('torch', 'h5py', 'zarr')}."
            )
            rows = [(*trial.shape.rsplit(": ", 1), int(trial.value)) for trial in self._trials]
            write_table("SECURITY.md", self.name, ("trial", "tried", "lost, damaged or missed"), rows, about)

    def _note(self, what: str, trials: int, lost: int) -> None:
        self._trials.append(
            Measurement(shape=f"{what}: {trials}", metric="lost", value=lost, unit="", goal=("value", "<=", 0.0))
        )


def nothing(claim: str, found: list[str]) -> Check:
    """Return the check that a list of faults is empty."""
    return Check(claim=claim, holds=not found, got=f"{len(found)}" + (f", first: {found[0]}" if found else ""))


CASE = Crash()
