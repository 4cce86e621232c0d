"""Checkpoints: everything needed to go on with the same bits.

::

    checkpoints/
      round-000010/
        unit-0000.safetensors   weights and Adam moments of one unit
        ...
        MANIFEST.json           round, fingerprint, name, size and sha256 of every unit; its own sha256; written last

There is no other state: every random draw is a function of seed and round. A checkpoint is written into a folder of
its own under another name, made durable and then renamed, so a folder called ``round-*`` is complete unless damaged
later. Units are read only after their digest has been checked, and no pickle is involved.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors.torch import load, save

from musegnn.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

logger = logging.getLogger(__name__)

FORMAT = "musegnn-checkpoint"
VERSION = 1
KEEP = 2
MANIFEST = "MANIFEST.json"
FOLDER = re.compile(r"round-(\d{6,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes
    ----------
    round
        Rounds trained.
    fingerprint
        Of data and configuration, see :meth:`musegnn.MuSeGNN.fingerprint`.
    units
        Weights and moments by unit name.
    """

    round: int
    fingerprint: str
    units: Mapping[str, Mapping[str, torch.Tensor]]


def write_checkpoint(
    folder: Path, round_: int, units: Iterable[tuple[str, Mapping[str, torch.Tensor]]], *, fingerprint: str
) -> Path:
    """Write a checkpoint and drop all but the newest two.

    Parameters
    ----------
    folder
        The folder of all checkpoints; made when missing.
    round_
        Rounds trained.
    units
        Unit names with their tensors; taken one at a time.
    fingerprint
        Of data and configuration.

    Returns
    -------
    pathlib.Path
        The folder of this checkpoint. Equal content gives equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"round-{round_:06d}"
    partial = folder / f"{final.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    entries = []
    for index, (name, tensors) in enumerate(units):
        data = save(dict(tensors))
        file = f"unit-{index:04d}.safetensors"
        _write_durable(partial / file, data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append({"name": name, "file": file, "bytes": len(data), "sha256": digest})
    body = {"format": FORMAT, "version": VERSION, "round": round_, "fingerprint": fingerprint, "units": entries}
    manifest = {**body, "sha256": _digest(body)}
    _write_durable(partial / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    _sync_folder(partial)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _sync_folder(folder)
    rounds = _folders(folder)
    newest = [r for r in rounds if r <= round_][-KEEP:]
    for old in set(rounds) - set(newest):  # later rounds are of a damaged checkpoint that was passed over
        shutil.rmtree(folder / f"round-{old:06d}")
    return final


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and check every byte of it.

    Parameters
    ----------
    path
        The folder ``round-*``.

    Raises
    ------
    RunError
        E403 naming what is missing or damaged; E290 when it was written by a newer program.
    """
    manifest = _read_manifest(path)
    units = {}
    for entry in manifest["units"]:
        data = _read(path / entry["file"], f"unit `{entry['name']}`")
        if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise _damaged(path, f"unit `{entry['name']}` is not what was written")
        units[entry["name"]] = load(data)
    return Checkpoint(manifest["round"], manifest["fingerprint"], units)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; a damaged one is logged and left aside.

    Parameters
    ----------
    folder
        The folder of all checkpoints.

    Returns
    -------
    Checkpoint or None
        ``None`` when the folder is missing or holds no checkpoint at all.

    Raises
    ------
    RunError
        E403 when there are checkpoints and none is whole.
    """
    rounds = _folders(folder)
    for round_ in reversed(rounds):
        try:
            return read_checkpoint(folder / f"round-{round_:06d}")
        except RunError as error:
            if error.code != "E403":
                raise
            logger.warning("%s; trying the checkpoint before it", error)
    if rounds:
        raise _damaged(folder, "no checkpoint is whole")
    return None


def has_checkpoint(folder: Path) -> bool:
    """Tell whether the folder holds a checkpoint, whole or not."""
    return bool(_folders(folder))


def _folders(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    matches = (FOLDER.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(match[1]) for match in matches if match)


def _read_manifest(path: Path) -> dict[str, Any]:  # JSON
    try:
        manifest = json.loads(_read(path / MANIFEST, "the manifest"))
        body = {key: value for key, value in manifest.items() if key != "sha256"}
        whole = manifest["sha256"] == _digest(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path, "the manifest is not what was written") from None
    if not whole:
        raise _damaged(path, "the manifest is not what was written")
    if body["format"] != FORMAT or body["version"] != VERSION:
        msg = f"expected {FORMAT} version {VERSION}, got {body['format']} version {body['version']}"
        raise RunError(msg, code="E290", where=str(path), fix="update musegnn")
    return body


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path.parent, f"{what} cannot be read ({error.strerror})") from None


def _damaged(path: Path, what: str) -> RunError:
    fix = "train again without --resume into another folder if no older checkpoint is left"
    return RunError(f"the checkpoint is damaged: {what}", code="E403", where=str(path), fix=fix)


def _write_durable(path: Path, data: bytes) -> None:
    with path.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
