"""Checkpoints: everything needed to go on with the same bits, on any number of processes.

::

    checkpoints/
      shards/UNIT-SHA256.safetensors   weights and Adam moments of one unit, named by content
      round-000010.json                manifest: round, fingerprint, plan, name, size and sha256 of every unit; its own
                                       sha256; written last
      GENERATION                       number of the newest group of processes, where several have trained

There is no other state: every random draw is a function of seed and round. Each process writes the units it owns; a
unit that has not changed is not written again. One process writes the manifest when all units are on disk, so what a
manifest names is complete unless damaged later. Units are read only after their digest has been checked, and no pickle
is involved. A process that was frozen while others went on without it finds a newer group and commits nothing.

Network file systems show what another host has written some seconds late. So a checkpoint is named by round and sha256,
files are looked up by name and not only in listings, and what another process has seen is waited for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from safetensors.torch import load, save

from musegnn.data_store.atomic_files import PARTIAL, write_file
from musegnn.errors import CheckpointDamagedError, RunError, version_fix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import torch
    from torch import nn

    Tensors = Mapping[str, torch.Tensor]

logger = logging.getLogger(__name__)

FORMAT = "musegnn-checkpoint"
VERSION = 2
KEEP = 2
MANIFEST = re.compile(r"round-(\d{6,})\.json")
OLD_FOLDER = re.compile(r"round-\d{6,}")
SHARDS = "shards"
GENERATION = "GENERATION"
POLL_SECONDS = 0.2
VISIBLE_SECONDS = 10.0
"""Seconds to wait for a file that another host has written."""
NEW_FOLDER = "train again into another folder if no older checkpoint is left"


@dataclass(frozen=True, slots=True)
class Shard:
    """The file of one unit in ``shards``: name of the unit, name of the file, size and digest of its content."""

    name: str
    file: str
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the shard that :meth:`to_json` describes."""
        return cls(str(data["name"]), str(data["file"]), int(data["bytes"]), str(data["sha256"]))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a checkpoint.

    Attributes
    ----------
    round, sha256
        Number of rounds trained, and digest of the manifest: together they name the checkpoint.
    fingerprint
        Fingerprint of data and configuration, see :meth:`musegnn.MuSeGNN.fingerprint`.
    plan
        Owners of datasets, and datasets left out; JSON.
    units
        Shards by unit name.
    """

    round: int
    sha256: str
    fingerprint: str
    plan: Mapping[str, Any]
    units: Mapping[str, Shard]


def write_shard(folder: Path, name: str, tensors: Tensors) -> Shard:
    """Write the weights and moments of a unit, unless the same content is there already; equal content, equal bytes.

    Raises
    ------
    WriteError
        When it cannot be written.
    """
    data = save(dict(tensors))
    digest = hashlib.sha256(data).hexdigest()
    file = f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:128]}-{digest}.safetensors"
    path = folder / SHARDS / file
    if not (_is_there(path, len(data)) and path.read_bytes() == data):
        write_file(path, data)
    return Shard(name, file, len(data), digest)


def commit(
    folder: Path,
    round_: int,
    shards: Iterable[Shard],
    *,
    fingerprint: str,
    plan: Mapping[str, Any] | None = None,
    group_epoch: int = 0,
) -> Path:
    """Make the checkpoint of a round valid, drop all but the newest two and return its manifest.

    `shards` are of all units, from whichever process; `group_epoch` is the number of this group of processes.

    Raises
    ------
    RunError
        E403 when a shard is not on disk, E444 when a newer group of processes has taken over.
    WriteError
        When the manifest cannot be written.
    """
    _check_group_epoch(folder, group_epoch)
    units = {shard.name: shard for shard in sorted(shards, key=lambda shard: shard.name)}
    until = time.monotonic() + VISIBLE_SECONDS
    for shard in units.values():
        while not _is_there(folder / SHARDS / shard.file, shard.bytes):
            if time.monotonic() > until:
                raise _damaged(folder, f"unit `{shard.name}` is not on disk")
            time.sleep(POLL_SECONDS)
    body = {
        "format": FORMAT,
        "version": VERSION,
        "round": round_,
        "fingerprint": fingerprint,
        "plan": dict(plan or {}),
        "units": [shard.to_json() for shard in units.values()],
    }
    path = folder / f"round-{round_:06d}.json"
    text = json.dumps({**body, "sha256": _digest(body)}, indent=1) + "\n"
    write_file(path, text)
    _check_group_epoch(folder, group_epoch)
    _prune(folder, round_)
    return path


def manifests(folder: Path) -> list[Manifest]:
    """Read the manifests of a folder, the newest first; damaged ones are logged and left aside.

    Raises
    ------
    RunError
        E403 when there are manifests and none is whole; E290 for checkpoints of another version of the format.
    """
    rounds = _rounds(folder)
    found = []
    for round_ in reversed(rounds):
        try:
            found.append(_read_manifest(folder / f"round-{round_:06d}.json"))
        except CheckpointDamagedError as error:
            logger.warning("%s; trying the checkpoint before it", error)
    if rounds and not found:
        raise _damaged(folder, "no manifest is whole")
    return found


def find_manifest(folder: Path, round_: int, sha256: str, *, patience: float = 0.0) -> Manifest:
    """Read the manifest of a round by its name and check that it is the one with a digest.

    `patience` are the seconds to wait until it can be read.

    Raises
    ------
    CheckpointDamagedError
        E403 when it is not there, damaged, or of another training.
    """
    path, until = folder / f"round-{round_:06d}.json", time.monotonic() + patience
    while True:
        try:
            found = _read_manifest(path)
            if found.sha256 == sha256:
                return found
            error = _damaged(folder, f"{path.name} is not the one that other processes see")
        except CheckpointDamagedError as unread:
            error = unread
        if time.monotonic() >= until:
            raise error
        _rounds(folder)  # listing a folder makes a network file system look again
        time.sleep(POLL_SECONDS)


def is_in_sight(folder: Path, round_: int) -> bool:
    """Return whether this host sees the manifest of a round, once some seconds have passed."""
    path, until = folder / f"round-{round_:06d}.json", time.monotonic() + VISIBLE_SECONDS
    while not path.is_file():
        if time.monotonic() > until:
            return False
        _rounds(folder)  # as above
        time.sleep(POLL_SECONDS)
    return True


def read_units(
    folder: Path, manifest: Manifest, names: Sequence[str] | None = None, *, patience: float = 0.0
) -> dict[str, Tensors]:
    """Read units of a checkpoint, or all, and check every byte of them; wait up to `patience` seconds for files.

    Raises
    ------
    RunError
        E403 naming the unit that is missing or damaged.
    """
    units: dict[str, Tensors] = {}
    until = time.monotonic() + patience
    for name in manifest.units if names is None else names:
        if name not in manifest.units:
            raise _damaged(folder, f"unit `{name}` is not part of round {manifest.round}")
        shard = manifest.units[name]
        while not _is_there(folder / SHARDS / shard.file, shard.bytes) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        data = _read(folder / SHARDS / shard.file, folder, f"unit `{name}`")
        if len(data) != shard.bytes or hashlib.sha256(data).hexdigest() != shard.sha256:
            raise _damaged(folder, f"unit `{name}` of round {manifest.round} is not what was written")
        units[name] = load(data)
    return units


def load_weights(module: nn.Module, unit: str, state: Tensors) -> None:
    """Set the weights of a unit to those of its state in a checkpoint.

    Raises
    ------
    RunError
        E402 when names or shapes are not those of this model.
    """
    weights = {k.removeprefix("weight/"): v for k, v in state.items() if k.startswith("weight/")}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        msg = f"the weights of `{unit}` are not those of this model"
        fix = "use the configuration and store of the run"
        raise RunError(msg, code="E402", where="checkpoint", fix=fix) from error


def has_checkpoint(folder: Path) -> bool:
    """Return whether the folder holds a checkpoint, whole or not."""
    return bool(_rounds(folder))


def announce(folder: Path, group_epoch: int) -> None:
    """Note that a group of processes begins, so that those before it commit nothing more.

    Raises
    ------
    RunError
        E444 when a newer one has begun.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_group_epoch(folder, group_epoch)
    write_file(folder / GENERATION, f"{group_epoch}\n")


def newest_group_epoch(folder: Path) -> int:
    """Return the number of the newest group of processes; 0 before the first."""
    path = folder / GENERATION
    try:
        return int(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError):
        raise _damaged(folder, f"{GENERATION} cannot be read") from None


class Writer:
    """A thread that writes units, tensors by name, while training goes on.

    They are copied at once, so that later steps do not change what is written.
    """

    def __init__(self, folder: Path, units: Mapping[str, Tensors]) -> None:
        self._folder = folder
        self._units = {name: {k: t.clone() for k, t in tensors.items()} for name, tensors in units.items()}
        self._shards: list[Shard] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="musegnn-checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> list[Shard]:
        """Wait until all is on disk.

        Raises
        ------
        WriteError
            When a unit could not be written.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._shards

    def _write(self) -> None:
        try:
            for name in list(self._units):
                self._shards.append(write_shard(self._folder, name, self._units.pop(name)))
        except BaseException as error:
            self._error = error


def _rounds(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    entries = list(folder.iterdir())
    if any(OLD_FOLDER.fullmatch(entry.name) for entry in entries):
        msg = f"the checkpoints are {FORMAT} version 1, this program reads version {VERSION}"
        raise RunError(msg, code="E290", where=str(folder), fix=version_fix(1, VERSION))
    matches = (MANIFEST.fullmatch(entry.name) for entry in entries if entry.is_file())
    return sorted(int(match[1]) for match in matches if match)


def _read_manifest(path: Path) -> Manifest:
    try:
        data = json.loads(_read(path, path.parent, f"the manifest {path.name}"))
        body = {key: value for key, value in data.items() if key != "sha256"}
        whole = data["sha256"] == _digest(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(path.parent, f"the manifest {path.name} is not what was written") from None
    if not whole:
        raise _damaged(path.parent, f"the manifest {path.name} is not what was written")
    if body["format"] != FORMAT or body["version"] != VERSION:
        msg = f"expected {FORMAT} version {VERSION}, got {body['format']} version {body['version']}"
        raise RunError(msg, code="E290", where=str(path), fix=version_fix(body["version"], VERSION))
    units = {entry["name"]: Shard.from_json(entry) for entry in body["units"]}
    return Manifest(body["round"], data["sha256"], body["fingerprint"], body["plan"], units)


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _prune(folder: Path, round_: int) -> None:
    """Remove what the newest manifests do not name; later rounds are of a damaged checkpoint that was passed over."""
    rounds = _rounds(folder)
    kept = [r for r in rounds if r <= round_][-KEEP:]
    for old in set(rounds) - set(kept):
        (folder / f"round-{old:06d}.json").unlink(missing_ok=True)
    named: set[str] = set()
    for each in kept:
        try:
            named |= {shard.file for shard in _read_manifest(folder / f"round-{each:06d}.json").units.values()}
        except RunError as error:
            logger.warning("%s; removed", error)
            (folder / f"round-{each:06d}.json").unlink(missing_ok=True)
    for path in (folder / SHARDS).iterdir():
        if path.name not in named and path.name.endswith((".safetensors", PARTIAL)):
            path.unlink(missing_ok=True)
    for path in folder.glob(f"*{PARTIAL}"):
        path.unlink(missing_ok=True)


def _check_group_epoch(folder: Path, group_epoch: int) -> None:
    newest = newest_group_epoch(folder)
    if group_epoch < newest:
        msg = f"group {newest} of processes has taken over from group {group_epoch}"
        raise RunError(msg, code="E444", where=str(folder), fix="nothing: the newer processes go on with the run")


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(path: Path, folder: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(folder, f"{what} cannot be read ({error.strerror})") from None


def _damaged(folder: Path, what: str) -> CheckpointDamagedError:
    message = f"the checkpoint is damaged: {what}"
    return CheckpointDamagedError(message, code="E403", where=str(folder), fix=NEW_FOLDER)
