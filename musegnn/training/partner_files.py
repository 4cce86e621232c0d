"""What other processes need of a dataset, in one file per dataset: written by its owner, read by its partners.

The files lie in ``partners/`` of the run folder. Their names hold the digest of what they were made from, so that a
file is never changed; equal data are written once, whoever owns them.

Legend: N genes, P processes.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.data_store.atomic_files import write_file
from musegnn.errors import RunError
from musegnn.graph import PartnerGraph, SignedNeighbours
from musegnn.training.checkpoint import POLL_SECONDS, VISIBLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.graph import GraphData, PartnerFile
    from musegnn.training.comm import Comm

    Arrays = dict[str, NDArray[Any]]  # of several types

FOLDER = "partners"


def partner_path(run: Path, name: str, digest: str) -> Path:
    """Return the path of the file of a dataset, whose `digest` is that of its data and settings."""
    return run / FOLDER / f"{name}-{digest[:32]}.npz"


def write_partner(path: Path, graph: GraphData) -> None:
    """Write the file of a dataset, whole or not at all, unless it is there."""
    if not path.is_file():
        near = graph.neighbours
        arrays: Arrays = {"indptr": near.indptr, "indices": near.indices, "is_positive": near.is_positive}
        _write(path, {"keys": np.char.encode(graph.keys, "utf-8"), "trainable": graph.trainable} | arrays)


def read_partner(file: PartnerFile) -> PartnerGraph:
    """Read the file of a dataset; ``RunError`` E446 when it is missing or damaged."""
    parts = _read(file.path, ("keys", "trainable", "indptr", "indices", "is_positive"))
    neighbours = SignedNeighbours(**{name: parts[name] for name in ("indptr", "indices", "is_positive")})
    return PartnerGraph(
        name=file.name,
        modality=file.modality,
        tissue=file.tissue,
        species=file.species,
        keys=np.char.decode(parts["keys"], "utf-8"),
        trainable=parts["trainable"],
        neighbours=neighbours,
    )


def count_anchors(comm: Comm, run: Path, digests: Sequence[str], own: Sequence[GraphData]) -> list[str]:
    """Return the anchor genes of an atlas, as :func:`musegnn.model.relational_features.anchor_genes`.

    Each process counts the genes of its own datasets, and that of rank 0 adds up P counts, so that the work of the
    others does not grow with the atlas. All processes call this together; errors as of :func:`read_partner`.
    """
    about = hashlib.sha256("".join(digests).encode()).hexdigest()[:32]
    path = run / FOLDER / f"anchors-{about}.npz"

    def part(rank: int) -> Path:
        return run / FOLDER / f"genes-{about}-{rank}-{comm.size}.npz"

    counts = Counter(key for graph in own for key in graph.keys[graph.trainable].tolist())
    _write(part(comm.rank), {"keys": _text(counts), "counts": np.array(list(counts.values()), dtype=np.int64)})
    comm.gather([])  # all have written
    if comm.rank == 0:
        total: Counter[str] = Counter()
        for rank in range(comm.size):
            found = _read(part(rank), ("keys", "counts"))
            total.update(dict(zip(_names(found["keys"]), found["counts"].tolist(), strict=True)))
        _write(path, {"keys": _text(sorted(k for k, n in total.items() if n > 1 or len(digests) == 1))})
    comm.gather([])
    part(comm.rank).unlink(missing_ok=True)
    return _names(_read(path, ("keys",))["keys"])


def _text(keys: Counter[str] | list[str]) -> NDArray[np.bytes_]:
    return np.char.encode(np.array(list(keys), dtype=np.str_), "utf-8")


def _names(keys: NDArray[np.bytes_]) -> list[str]:
    names: list[str] = np.char.decode(keys, "utf-8").tolist()
    return names


def _write(path: Path, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_file(path, buffer.getvalue())


def _read(path: Path, names: Sequence[str]) -> Arrays:
    """Read arrays of a file, which another host may have written just now."""
    until = time.monotonic() + VISIBLE_SECONDS
    while not path.is_file() and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    try:
        with np.load(path) as parts:
            return {name: parts[name] for name in names}
    except (OSError, ValueError, KeyError) as error:
        msg = f"what another process wrote here cannot be read ({type(error).__name__})"
        fix = "check that all hosts see the run folder under one path, and train again with --resume"
        raise RunError(msg, code="E446", where=str(path), fix=fix) from error
