"""The commands ``musegnn store ...``: look at a store of co-expression graphs, check, mend, copy and tidy it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cyclopts

from musegnn.errors import ConfigError
from musegnn.options import Common
from musegnn.output import print_json, print_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from musegnn.data_store import Store

store_app = cyclopts.App(name="store", help="Look at a store of co-expression graphs, check, mend, copy and tidy it.")


@store_app.command
def ls(store: Path, *, common: Common = Common()) -> int:
    """List the datasets of a store.

    Parameters
    ----------
    store
        The store.
    """
    from musegnn.data_store import Store

    names = Store.open(store).datasets()
    print_result(common, {"datasets": names}, "\n".join(names))
    return 0


@store_app.command
def info(store: Path, dataset: str, *, common: Common = Common()) -> int:
    """Show what a store holds of a dataset: from which file, with which settings and versions.

    Parameters
    ----------
    store
        The store.
    dataset
        The dataset's name.
    """
    from musegnn.data_store import Store

    opened = Store.open(store)
    about = opened.info(dataset) | opened.provenance(dataset)
    if common.json:
        print_json(about)
    else:
        import yaml

        print(yaml.safe_dump(about, sort_keys=False, allow_unicode=True), end="")
    return 0


@store_app.command
def verify(store: Path, *, common: Common = Common()) -> int:
    """Read every byte of a store and compare checksums. Exit code 1 when something is damaged.

    Parameters
    ----------
    store
        The store.
    """
    from musegnn.data_store import Store

    problems = Store.open(store).verify()
    print_result(common, {"problems": problems}, "\n".join(problems) or "no damage found")
    return int(bool(problems))


@store_app.command
def repair(store: Path, *, copy: Path | None = None, atlas: Path | None = None, common: Common = Common()) -> int:
    """Replace damaged files of a store by the bytes that were committed. Exit code 1 when damage is left.

    Parameters
    ----------
    store
        The store.
    copy
        Another store that holds the same builds, such as a backup.
    atlas
        Atlas file from which the damaged datasets are built again, in a folder that is removed afterwards.
    """
    from musegnn.data_store import Store

    if (copy is None) == (atlas is None):
        msg = "expected one of --copy and --atlas"
        raise ConfigError(msg, code="E303", where="store repair", fix="name a copy of the store, or the atlas file")
    opened = Store.open(store)
    damaged = sorted({line.split(":")[0].split("/")[0] for line in opened.verify()} & set(opened.names()))
    if copy is not None:
        source, mended = Store.open(copy), []
        for name in damaged:
            mended += opened.repair(source, name)
    else:
        mended = _rebuild(opened, atlas, damaged, common) if atlas is not None and damaged else []
    left = opened.verify()
    text = "\n".join([*(f"mended {line}" for line in mended), *(f"still damaged: {line}" for line in left)])
    print_result(common, {"mended": mended, "problems": left}, text or "nothing to mend")
    return int(bool(left))


def _rebuild(store: Store, atlas: Path, damaged: Sequence[str], common: Common) -> list[str]:
    """Build the damaged datasets again beside the store, and take what is damaged from there."""
    from musegnn import pipeline
    from musegnn.atlas_file import load_atlas
    from musegnn.progress import TerminalProgress

    config = load_atlas(atlas)
    chosen = tuple(d for d in config.datasets if any(n == d.name or n.startswith(f"{d.name}.") for n in damaged))
    if not chosen:
        msg = f"the atlas has none of the damaged datasets ({', '.join(damaged[:3])})"
        raise ConfigError(msg, code="E303", where=str(atlas), fix="name the atlas file that the store was built from")
    config = config.model_copy(update={"datasets": chosen})
    with (
        tempfile.TemporaryDirectory(prefix="repair-", dir=store.path.parent) as folder,
        TerminalProgress(quiet=common.quiet or common.json) as progress,
    ):
        source = pipeline.build_graphs(config, Path(folder) / "store.zarr", progress=progress)
        return [line for name in damaged for line in store.repair(source, name)]


@store_app.command
def copy(store: Path, to: Path, *datasets: str, common: Common = Common()) -> int:
    """Copy datasets to another store, checking every byte. What is there already is left alone.

    Parameters
    ----------
    store
        The store.
    to
        The other store; created when missing.
    datasets
        Names of datasets; by default all.
    """
    from musegnn.data_store import Store

    names = Store.open(store).copy(Store.open_or_create(to), datasets or None)
    print_result(common, {"copied": names}, f"copied {len(names)} datasets")
    return 0


@store_app.command
def gc(store: Path, *, grace_hours: float = 24.0, delete: bool = False, common: Common = Common()) -> int:
    """List what no dataset needs: builds that were never committed, and unfinished files.

    Parameters
    ----------
    store
        The store.
    grace_hours
        Keep what was changed within so many hours: a running build may own it.
    delete
        Remove it.
    """
    from musegnn.data_store import Store

    found = Store.open(store).gc(grace_hours=grace_hours, dry_run=not delete)
    verb = "removed" if delete else "not needed"
    print_result(common, {"files": found, "removed": delete}, "\n".join(f"{verb}: {p}" for p in found) or "nothing")
    return 0
