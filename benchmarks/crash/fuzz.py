"""Mutated input files: each is read or refused in one line, and nothing worse happens to the process that reads.

``python -m benchmarks.crash.fuzz KIND FIRST LAST FOLDER`` is that process. It prints one line of JSON per file.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.crash.inputs import KINDS
from benchmarks.crash.records import committed

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = 4 * 2**30
"""Address space of the reading process, with libraries."""
BUILD_EVERY = 10
SPATIAL = {"Space Ranger folder"}
"""Kinds whose coordinates are read, too."""
WEIGHTS = (0.25, 0.15, 0.15, 0.2, 0.15, 0.05, 0.05)
"""Shares of the kinds of mutation; those that move what follows break a file at once."""
MARKS = (b"TREE", b"HEAP", b"SNOD", b"OHDR", b"FRHP", b"GCOL", b"FADB", b"EAHD", b"BTHD")
NUMBER = re.compile(rb"\b\d+\b")
TOKENS = (
    b"-1",
    b"0",
    b"1.5",
    b"4294967296",
    b"9223372036854775808",
    b"1e400",
    b"nan",
    b"",
    b"\t",
    b",",
    b'"',
    b"\r",
    b"\xe9",
)


@dataclass
class Fuzz:
    """What became of the mutated files of a kind.

    Attributes
    ----------
    files, accepted
        Number of files, and of those that are read.
    refused
        Number of refused files by code.
    died, errors, writes
        Files on which the reading process died, raised something else than an error for the user, or wrote to the
        store.
    peak_bytes
        Largest resident memory of the reading process beyond that before the first file.
    """

    files: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    died: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def failed(self) -> list[str]:
        """All that must not happen."""
        return self.died + self.errors + self.writes


def fuzz(kind: str, files: int) -> Fuzz:
    """Read mutated files of a kind, see ``KINDS``, in a process that is started again where it dies."""
    result = Fuzz()
    with TemporaryDirectory(prefix="musegnn-") as folder:
        while result.files < files:
            command = [sys.executable, "-m", __spec__.name, kind, str(result.files), str(files), folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            for line in done.stdout.splitlines():
                _count(result, json.loads(line))
            if done.returncode:
                result.died.append(f"file {result.files}: exit code {done.returncode} {done.stderr[-300:]}")
                result.files += 1
    return result


def _count(result: Fuzz, row: dict[str, object]) -> None:
    result.files += 1
    result.peak_bytes = max(result.peak_bytes, int(str(row["bytes"])))
    outcome = str(row["outcome"])
    if outcome == "accepted":
        result.accepted += 1
    elif outcome.startswith("E"):
        result.refused[outcome] += 1
    else:
        result.errors.append(f"file {row['file']}: {outcome}")
    if row["wrote"]:
        result.writes.append(f"file {row['file']}")


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes that differ from `raw` in one to four places, near structures of the format more often than not.

    Of text, half of the time a number becomes another token; what is inside gzip changes half of the time.
    """
    if raw.startswith(b"\x1f\x8b") and rng.random() < 0.5:
        return gzip.compress(mutate(gzip.decompress(raw), rng), mtime=0)
    numbers = list(NUMBER.finditer(raw)) if b"\0" not in raw else []
    if numbers and rng.random() < 0.5:
        at = numbers[int(rng.integers(min(len(numbers), 4)) if rng.random() < 0.3 else rng.integers(len(numbers)))]
        return raw[: at.start()] + TOKENS[int(rng.integers(len(TOKENS)))] + raw[at.end() :]
    data = bytearray(raw)
    marked = [at for mark in MARKS for at in _places(raw, mark)]
    for _ in range(int(rng.integers(1, 5))):
        if marked and rng.random() < 0.6:
            at = int(rng.choice(marked)) + int(rng.integers(128))
        else:
            at = int(rng.integers(len(data) + 1))
        at = min(at, max(len(data) - 9, 0))
        match rng.choice(7, p=WEIGHTS):
            case 0:
                data[at : at + 1] = bytes([data[at] ^ (1 << int(rng.integers(8)))]) if data else b""
            case 1:
                data[at : at + 8] = rng.bytes(8)
            case 2:
                data[at : at + 4] = bytes([int(rng.choice([0, 255, 127]))] * 4)
            case 3:
                data[at : at + 8] = int(rng.choice([2**31, 2**32 - 1, 2**62, 2**63, len(data)])).to_bytes(8, "little")
            case 4:
                size, source = int(rng.integers(1, 512)), int(rng.integers(len(data) + 1))
                data[at : at + size] = data[source : source + size]
            case 5:
                del data[at : at + int(rng.integers(1, 16))]
            case _:
                del data[int(len(data) * rng.random() ** 0.1) :]
    return bytes(data)


def _places(raw: bytes, mark: bytes) -> Iterator[int]:
    at = raw.find(mark)
    while at >= 0:
        yield at
        at = raw.find(mark, at + 1)


def read(kind: str, first: int, last: int, folder: Path) -> None:
    """Read the files [first, last) of a kind, and tell what became of each."""
    from musegnn.data_store import Store

    bases = KINDS[kind](folder)
    store = Store.open_or_create(folder / "store")
    before = committed(store.path)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    start: int | None = None
    for number in range(first, last):
        rng = np.random.default_rng([number, 7])
        base = bases[int(rng.integers(len(bases)))]
        target = folder / f"mutated{base.suffix}"
        _copy_mutated(base, target, rng)
        modality = "spatial" if kind in SPATIAL else "scrna"
        outcome = _outcome(target, store if number % BUILD_EVERY == 0 else None, modality)
        peak = _peak_bytes()
        start = start or peak
        wrote = outcome != "accepted" and committed(store.path) != before
        print(json.dumps({"file": number, "outcome": outcome, "wrote": wrote, "bytes": peak - start}), flush=True)
        if outcome == "accepted":
            before = committed(store.path)


def _peak_bytes() -> int:
    """Return the largest resident memory of this program; that of getrusage counts the process before exec, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _copy_mutated(base: Path, target: Path, rng: np.random.Generator) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    if base.is_file():
        target.write_bytes(mutate(base.read_bytes(), rng))
        return
    shutil.copytree(base, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    victim = files[int(rng.integers(len(files)))]
    victim.write_bytes(mutate(victim.read_bytes(), rng))


def _outcome(path: Path, store: object, modality: str = "scrna") -> str:
    """Read a file, or build from it into a store; return ``accepted``, the code of the error, or another error."""
    from musegnn.atlas_file import validate_atlas
    from musegnn.cluster.build import build_graphs
    from musegnn.datasets import open_counts
    from musegnn.errors import MuseGNNError

    entry = {"name": "lung", "path": str(path), "modality": modality, "tissue": "lung", "species": "human"}
    try:
        settings = {"datasets": [entry], "graph": {"n_genes": 15}, "edges": {"rule": "pvalue", "p_value": 0.04}}
        atlas = validate_atlas(settings, where="fuzz")
        if store is not None:
            build_graphs(atlas, store, scheduler="synchronous", memory=2**31, device="cpu")  # type: ignore[arg-type]
        else:
            source = open_counts(atlas.datasets[0])
            for _ in source.blocks(64):
                pass
            with contextlib.suppress(MuseGNNError):
                source.obs("label")
            source.fingerprint()
    except MuseGNNError as error:
        return error.code if "\n" not in error.line() and len(error.line()) < 600 else f"a long line: {error.line()}"
    except Exception as error:  # what a reader must not raise is counted by the caller
        return f"{type(error).__name__}: {error}"
    return "accepted"


if __name__ == "__main__":
    read(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
