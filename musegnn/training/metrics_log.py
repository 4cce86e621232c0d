"""What a run leaves to look at: ``metrics.jsonl`` and TensorBoard, and whether the space has collapsed.

Every line of ``metrics.jsonl`` is one JSON object with ``round`` and ``kind``: ``losses`` (one per dataset and round),
``space`` (one per dataset and checkpoint) or ``process`` (one per process and checkpoint: seconds per phase since the
checkpoint before, bytes sent so far, largest memory).

Legend: N genes, d dimensions of the embedding.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self, TextIO

import numpy as np

from musegnn.data_store.atomic_files import write_file
from musegnn.vectors import effective_rank, mean_cosine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from torch.utils.tensorboard import SummaryWriter

NOT_SCALARS = ("round", "kind", "dataset", "process", "partner", "seconds")


class RunLog:
    """The metrics of a run, as a context manager that writes ``metrics.jsonl`` and ``tensorboard/``.

    Parameters
    ----------
    folder
        Run folder; ``None``: records are kept in memory only.
    after
        Number of rounds done: lines of later rounds, written before a stop, are removed.
    history
        Records so far, where there is no folder to read them from.
    """

    def __init__(self, folder: Path | None, *, after: int, history: Iterable[dict[str, Any]] = ()) -> None:
        self._folder = folder
        self._after = after
        self._board: SummaryWriter | None = None
        self._handle: TextIO | None = None
        self.history = list(history) if folder is None else _keep_until(folder / "metrics.jsonl", after)

    def __enter__(self) -> Self:
        """Open the files."""
        if self._folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            # purge_step hides points that a stopped run wrote past the round which is restored.
            self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=self._after + 1)
            self._handle = (self._folder / "metrics.jsonl").open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close the files."""
        if self._handle is not None:
            self._handle.close()
        if self._board is not None:
            self._board.close()

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write records, each with ``round``, ``kind`` and ``dataset`` or ``process``."""
        for row in rows:
            self.history.append(row)
            if self._handle is None or self._board is None:
                continue
            self._handle.write(json.dumps(row) + "\n")
            whose = row.get("dataset", f"process {row.get('process')}")
            for name, value in row.items():
                if name not in NOT_SCALARS:
                    self._board.add_scalar(f"{name}/{whose}", value, row["round"])
        if self._handle is not None:
            self._handle.flush()


def _keep_until(path: Path, after: int) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a line without its end was cut by a stop
    history = [row for row in map(json.loads, lines) if row["round"] <= after]
    write_file(path, "".join(json.dumps(row) + "\n" for row in history))
    return history


def describe_space(vectors: Mapping[str, NDArray[np.float32]], round_: int) -> list[dict[str, Any]]:
    """Return records of kind ``space``: whether the vectors (N, d) of each dataset still fill the space.

    ``effective_rank`` is 0 when all vectors are equal; ``mean_cosine`` is near 1 when they have collapsed to a line.
    """
    return [
        {
            "kind": "space",
            "round": round_,
            "dataset": name,
            "effective_rank": float(np.nan_to_num(effective_rank(z))),
            "mean_cosine": float(np.nan_to_num(mean_cosine(z))),
        }
        for name, z in vectors.items()
    ]
