"""The published recipe with all of its 2000 rounds, and with 200 at ten times its learning rates, on PBMC.

Both, aligned PCA and ours are scored on hold-out 0 as in ``python -m benchmarks quality``, which shows `published` of a
group only where somebody has trained it. Training takes most of an hour on one core; vectors that are in a file are
taken from there (``python -m benchmarks.quality.vectors published pbmc 0``). In a quick run nothing is trained.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.cases.quality import LOWER
from benchmarks.quality import checks, groups, vectors
from benchmarks.quality.jobs import OURS, PUBLISHED, Job, run_jobs
from benchmarks.registry import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.registry import Check

GROUP, SPLIT, PCA = "pbmc", groups.REPORT_SPLITS[0], "pca_procrustes_32"
MEASURES = (
    *("joint_mrr", "pair_mrr", "mixing", "edges_positive", "decoder_all", "decoder_positive"),
    *("within", "transfer", "dataset_nmi", "seconds"),
)


class Published:
    """What the published recipe reaches with all of its rounds."""

    name = "published"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that noise scores like noise, and that what is held out is nowhere in what training sees."""
        del quick
        yield from checks.noise_checks()
        yield from checks.holdout_checks()

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Train what is in no file, and score all on the same hold-out."""
        if GROUP not in groups.present():
            return
        for model in () if quick else PUBLISHED:
            if not vectors.vector_file(model, GROUP, SPLIT).is_file():
                vectors.make(model, GROUP, SPLIT)
        jobs = [Job(GROUP, SPLIT, 0, model) for model in (OURS, PCA, *PUBLISHED)]
        for job, result in run_jobs(jobs):
            of_sets = {name: statistics.fmean(found.values()) for name, found in result.by_set.items() if found}
            values = result.measures | of_sets
            for metric in MEASURES:
                if metric in values:
                    yield Measurement(
                        shape=f"{GROUP} {job.model}",
                        metric=metric,
                        value=values[metric],
                        unit="s" if metric == "seconds" else "hold-out 0",
                        larger_is_better=metric not in LOWER,
                    )


CASE = Published()
