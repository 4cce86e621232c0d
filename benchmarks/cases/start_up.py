"""Start of an actor in atlases of growing size: CPU seconds follow its own datasets, memory of the others stays small.

Two ranks in threads of one process prepare an atlas of small datasets together: rank 0 owns ten of them, rank 1 the
rest. Times are CPU seconds of the thread of rank 0, which does not work while it waits.
"""

from __future__ import annotations

import tempfile
import threading
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from benchmarks.clusters import Atlas
from benchmarks.registry import Check, Measurement
from musegnn.training.overlap import Overlaps
from musegnn.training.prepare import prepare
from musegnn.training.spmd import prepare_together
from musegnn.training.torch_comm import make_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store
    from musegnn.training.prepare import Prepared

OWNED, GENES = 10, 100
COUNTS, QUICK_COUNTS = (100, 300, 1000), (20, 40)
MOST_GROWTH = 2.0
LARGE, LARGE_OWNED, LARGE_OTHERS, MOST_BYTES = 1000, 20, 12, 1e6


@dataclass(slots=True)
class Start:
    """What rank 0 prepared, and the CPU seconds of its thread."""

    data: Prepared
    seconds: float


class StartUp:
    """Random datasets of 100 genes, two of which share about half of them."""

    name = "start_up"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that what ranks prepare together is what one process prepares."""
        del quick
        with tempfile.TemporaryDirectory() as name:
            store, config = Atlas((GENES,) * 12, encoder="none").make(Path(name))
            together, alone = start(store, config, Path(name), owned=OWNED).data, prepare(store, config)
        same = (list(together.anchors), list(together.digests)) == (list(alone.anchors), list(alone.digests))
        yield Check(claim="anchor genes and digests as in one process", holds=same, got=str(same))

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Start in atlases of growing size, and read everything in one process for comparison."""
        torch.set_num_threads(1)
        found = {}
        for count in QUICK_COUNTS if quick else COUNTS:
            with tempfile.TemporaryDirectory() as name:
                store, config = Atlas((GENES,) * count, encoder="none").make(Path(name))
                found[count] = start(store, config, Path(name), owned=OWNED).seconds
                began = time.process_time()
                prepare(store, config)
                everything = time.process_time() - began
            yield Measurement(
                shape=f"T={count} N={GENES}, {OWNED} own",
                metric="cpu_time of the start",
                value=found[count],
                unit="s",
                baseline="reading all",
                baseline_value=everything,
            )
        few, many = min(found), max(found)
        yield Measurement(
            shape=f"T={few}->{many} N={GENES}, {OWNED} own",
            metric="growth of the start",
            value=found[many] / found[few],
            unit="",
            goal=None if quick else ("value", "<=", MOST_GROWTH),
        )
        shape = f"N={LARGE}, {LARGE_OWNED} own"
        bound = None if quick else ("value", "<=", MOST_BYTES / 1e6)
        metric = "memory per dataset of others, all compared"
        yield Measurement(shape=shape, metric=metric, value=bytes_of_others() / 1e6, unit="MB", goal=bound)


def start(store: Store, config: AtlasConfig, run: Path, *, owned: int) -> Start:
    """Prepare an atlas in two ranks; return what the first, which owns so many datasets, has and took."""
    meeting, found = distributed.HashStore(), {}
    owner = [0] * owned + [1] * (len(config.datasets) - owned)

    def work(rank: int) -> None:
        group: Any = make_group(distributed.PrefixStore("start", meeting), rank, 2)
        began = time.thread_time()
        data, _ = prepare_together(store, config, group, owner, run)
        found[rank] = Start(data, time.thread_time() - began)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found[0]


def bytes_of_others() -> float:
    """Return the bytes that stay of a dataset of others once it was compared with all own ones."""
    with tempfile.TemporaryDirectory() as name:
        store, config = Atlas((LARGE,) * (LARGE_OWNED + LARGE_OTHERS), encoder="none").make(Path(name))
        data = start(store, config, Path(name), owned=LARGE_OWNED).data
        overlaps = Overlaps(data.graphs)
        overlaps.pair(0, LARGE_OWNED)  # compiles
        tracemalloc.start()
        for other in range(LARGE_OWNED + 1, len(data.graphs)):
            for own in range(LARGE_OWNED):
                overlaps.pair(own, other)
        overlaps.graph(LARGE_OWNED)  # the last one read is kept until the next
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return kept / (LARGE_OTHERS - 1)


CASE = StartUp()
