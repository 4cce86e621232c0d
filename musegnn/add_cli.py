"""The command ``musegnn add``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  read by cyclopts
from typing import Annotated

from cyclopts import Parameter

from musegnn.options import BuildOptions, Common, Settings
from musegnn.output import RESULTS, print_json, print_run


def add(
    run: Path,
    file: Path,
    *,
    out: Path,
    name: str | None = None,
    modality: str | None = None,
    tissue: str | None = None,
    species: str | None = None,
    condition: str | None = None,
    layer: str | None = None,
    by: str | None = None,
    setting: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    work: BuildOptions = BuildOptions(),
    common: Common = Common(),
) -> int:
    """Add a dataset to a finished run, in a new run folder; vectors of the run stay as they are.

    Parameters
    ----------
    run
        The run folder; it is only read.
    file
        The file of counts.
    out
        The new run folder. Run again to continue where it stopped.
    name
        Name of the dataset; by default that of the file.
    modality
        scrna, scatac or spatial; like tissue and species by default what the file says of itself.
    tissue
        Tissue of the dataset.
    species
        Species of the dataset.
    condition
        Label that is carried into the results.
    layer
        Where the raw counts are, if not in X.
    by
        Column of obs, each label of which is added as a dataset.
    setting
        Any other setting of a dataset, as name=value; may be repeated.
    """
    from musegnn import pipeline, results
    from musegnn.evaluation.drift import drift_report, drift_text
    from musegnn.progress import TerminalProgress
    from musegnn.run_folder import RunFolder

    given = {"name": name, "modality": modality, "tissue": tissue, "species": species}
    given |= {"condition": condition, "layer": layer, "by": by}
    settings = Settings(set=setting).overrides() | {key: value for key, value in given.items() if value is not None}
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        model = pipeline.add(
            run,
            file,
            out=out,
            scheduler=work.scheduler,
            memory=work.memory_bytes,
            device=work.device,
            progress=progress,
            **settings,
        )
        folder = RunFolder.open(out)
        results.write_results(folder, model, progress=progress)
    n_before = len(RunFolder.open(run).atlas().datasets)
    reports = [drift_report(model.history, dataset.name) for dataset in model.config.datasets[n_before:]]
    if common.json:
        files = {each: str(folder.path / each) for each in RESULTS}
        print_json({"run": str(folder.path), "files": files, "drift": reports})
        return 0
    print("\n".join(line for report in reports for line in ["", *drift_text(report)]))
    print_run(folder, common)
    return 0
