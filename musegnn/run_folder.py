"""The run folder: one place for everything a run reads and writes.

::

    RUN/
      config.lock.yaml     every setting, defaults included; paths relative to this folder
      orthologs.csv        copy of the ortholog table, when there is one
      run.json             format version and where the store is
      store.zarr/          the graphs (of `musegnn run`)
      partners/            what actors read of one another's datasets
      checkpoints/         resumable states of training
      metrics.jsonl        losses per round and dataset; tensorboard/ holds the same
      status.json          what a training on a cluster is doing
      embeddings.h5ad, embeddings.parquet, evaluation.json, summary.json, report.html
      contrast-A-B/        tables and figures of `musegnn contrast RUN A B`
      run.log              what happened when
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from musegnn.atlas_file import load_atlas
from musegnn.config import IN_MEMORY
from musegnn.data_store.atomic_files import PARTIAL, write_file
from musegnn.data_store.location import is_url
from musegnn.errors import RunError, version_fix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from musegnn.config import AtlasConfig

FORMAT = "musegnn-run"
VERSION = 1


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, and the names of its files."""

    path: Path

    @property
    def lock(self) -> Path:
        """The complete configuration."""
        return self.path / "config.lock.yaml"

    @property
    def evaluation(self) -> Path:
        """The scores of the model and its baselines."""
        return self.path / "evaluation.json"

    @property
    def embeddings(self) -> Path:
        """The embeddings as AnnData."""
        return self.path / "embeddings.h5ad"

    @property
    def metrics(self) -> Path:
        """The losses, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """The run in a few sentences, with its warnings."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @classmethod
    def create(cls, path: Path | str, atlas: AtlasConfig, *, store: Path | None = None) -> RunFolder:
        """Make a run folder with its parents, or open an existing one of the same configuration.

        Parameters
        ----------
        atlas
            Configuration with absolute paths. Where a checkpoint is, only ``rounds``, ``recompute`` and ``device`` of
            ``training`` may differ.
        store
            The store that the run reads; ``None``: ``store.zarr`` in the folder.

        Raises
        ------
        RunError
            E293 when the folder holds something else or a run of another configuration.
        """
        run = cls(Path(path).resolve())
        location = store.resolve() if store is not None else run.path / "store.zarr"
        if run.lock.is_file():
            run._check_same(atlas, location)
        elif run.path.exists() and not run._is_unfinished():
            msg = "the folder is not empty and holds no run"
            raise RunError(msg, code="E293", where=str(path), fix="choose another --out")
        run.path.mkdir(parents=True, exist_ok=True)
        about = {"format": FORMAT, "version": VERSION, "store": os.path.relpath(location, run.path)}
        write_file(run.path / "run.json", json.dumps(about, indent=2) + "\n")
        if atlas.orthologs is not None and atlas.orthologs.resolve() != run.path / "orthologs.csv":
            write_file(run.path / "orthologs.csv", atlas.orthologs.read_bytes())
        write_file(run.lock, yaml.safe_dump(run._relative(atlas), sort_keys=False, allow_unicode=True))
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open a run folder; ``RunError`` E401 when there is none, E290 when its format is another version."""
        run = cls(Path(path).resolve())
        if not run.lock.is_file() or not (run.path / "run.json").is_file():
            msg = "this is not a run folder (config.lock.yaml is missing)"
            raise RunError(msg, code="E401", where=str(path), fix="name the folder given to --out of `musegnn run`")
        version = run._about().get("version")
        if version != VERSION:
            msg = f"the run has format version {version}, this program reads {VERSION}"
            raise RunError(msg, code="E290", where=str(path), fix=version_fix(version, VERSION))
        return run

    def store_path(self) -> Path:
        """Return the absolute path of the store that this run reads."""
        return (self.path / str(self._about()["store"])).resolve()

    def atlas(self) -> AtlasConfig:
        """Read the configuration back, with absolute paths."""
        return load_atlas(self.lock)

    def history(self) -> list[dict[str, Any]]:  # JSON
        """Read the logged metrics; empty before training."""
        if not self.metrics.is_file():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def contrast_files(self) -> list[Path]:
        """Return ``contrast.json`` of each contrast in the folder, by name."""
        return sorted(self.path.glob("contrast-*/contrast.json"))

    def contrasts(self) -> dict[str, dict[str, Any]]:  # JSON
        """Read the contrasts in the folder, by the names of their folders."""
        return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in self.contrast_files()}

    def write_history(self, rows: Iterable[dict[str, Any]]) -> None:  # JSON
        """Write the metrics whole."""
        write_file(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Append the package's log records to ``run.log`` while the context is open."""
        handler = logging.FileHandler(self.path / "run.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger("musegnn")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            handler.close()

    def _is_unfinished(self) -> bool:
        """Return whether the folder holds nothing but what a :meth:`create` leaves that was stopped before the lock."""
        names = {path.name for path in self.path.iterdir() if path.suffix != PARTIAL}
        return names <= {"run.json", "orthologs.csv"} and (not names or "run.json" in names)

    def _about(self) -> dict[str, Any]:  # JSON
        about: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return about

    def _relative(self, atlas: AtlasConfig) -> dict[str, Any]:  # JSON
        data: dict[str, Any] = atlas.model_dump(mode="json")
        for entry in data["datasets"]:
            if Path(entry["path"]) != IN_MEMORY and not is_url(entry["path"]):
                entry["path"] = os.path.relpath(Path(entry["path"]).resolve(), self.path)
        if data["orthologs"] is not None:
            data["orthologs"] = "orthologs.csv"
        return data

    def _check_same(self, atlas: AtlasConfig, store: Path) -> None:
        if (self.path / "run.json").is_file() and self.store_path() != store.resolve():
            msg = f"the folder holds a run on another store, {self.store_path()}"
            raise RunError(msg, code="E293", where=str(self.path), fix="choose another --out, or the same store")
        table = self.path / "orthologs.csv"
        if atlas.orthologs is not None and table.is_file() and atlas.orthologs.read_bytes() != table.read_bytes():
            msg = f"the folder holds a run with another ortholog table than {atlas.orthologs}"
            raise RunError(msg, code="E293", where=str(self.path), fix="choose another --out, or the same table")
        old = _flatten(self._relative(self.atlas()))
        new = _flatten(self._relative(atlas))
        free = {"training.rounds", "training.recompute", "training.device"}
        # Until a first checkpoint nothing but graphs depends on the settings: a run that was stopped for its memory may
        # take the settings that it was advised.
        untrained = not any(self.path.glob("checkpoints/round-*.json"))
        keys = sorted(
            k
            for k in old.keys() | new.keys()
            if old.get(k) != new.get(k) and k not in free and not (untrained and k.startswith(("model.", "training.")))
        )
        if keys:
            shown = ", ".join(f"{k} ({old.get(k)} there, {new.get(k)} now)" for k in keys[:3])
            msg = f"the folder holds a run of another configuration: {shown}"
            raise RunError(msg, code="E293", where=str(self.path), fix="choose another --out, or the same settings")


def _flatten(data: object, prefix: str = "") -> dict[str, object]:
    if isinstance(data, list):
        data = dict(enumerate(data))
    if not isinstance(data, dict):
        return {prefix: data}
    flat: dict[str, object] = {}
    for key, value in data.items():
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat
