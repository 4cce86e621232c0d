"""The commands that score and show a run: ``status``, ``evaluate``, ``benchmark``, ``report`` and ``explore``."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path  # noqa: TC003  read by cyclopts
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from musegnn.analysis_cli import read_embeddings
from musegnn.errors import RunError
from musegnn.options import Common, Device
from musegnn.output import print_json, print_result, shown

if TYPE_CHECKING:
    from musegnn.api import MuSeGNN
    from musegnn.run_folder import RunFolder

Seeds = Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1))]
Port = Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=0, lte=65535))]


def status(run: Path, *, common: Common = Common()) -> int:
    """Show the state of a training: rounds, actors, phases, failures. Exit code 1 unless all is well.

    Parameters
    ----------
    run
        The run folder.
    """
    from musegnn import pipeline
    from musegnn.run_folder import RunFolder

    found, text, well = pipeline.status(RunFolder.open(run))
    print_result(common, found, text)
    return int(not well)


def evaluate(
    run: Path, *, gmt: Path | None = None, seeds: Seeds = 1, device: Device = None, common: Common = Common()
) -> int:
    """Score a trained run and its baselines on what was held out; writes evaluation.json.

    Parameters
    ----------
    run
        The run folder.
    gmt
        File of gene sets with human names, which are predicted from the vectors.
    seeds
        Number of training seeds, that of the run included, for means, deviations and the stability of neighbours.
    device
        Where to compute: auto, cpu or cuda; by default training.device of the run.
    """
    return _evaluate(run, gmt, seeds, device, common, trained_baselines=False)


def benchmark(
    run: Path, *, gmt: Path | None = None, seeds: Seeds = 1, device: Device = None, common: Common = Common()
) -> int:
    """Train the baselines on a run's graphs and score them beside it; writes evaluation.json.

    Parameters
    ----------
    run
        The run folder of a trained run.
    gmt
        File of gene sets with human names, which are predicted from the vectors.
    seeds
        Number of training seeds, that of the run included, for means, deviations and the stability of neighbours.
    device
        Where to compute: auto, cpu or cuda; by default training.device of the run.
    """
    return _evaluate(run, gmt, seeds, device, common, trained_baselines=True)


def _evaluate(
    run: Path, gmt: Path | None, seeds: int, device: str | None, common: Common, *, trained_baselines: bool
) -> int:
    from musegnn import pipeline, results
    from musegnn.progress import TerminalProgress
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    model = pipeline.load_model(folder, device=device)
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        evaluation = results.evaluate(
            folder, model, gmt=gmt, trained_baselines=trained_baselines, seeds=seeds, progress=progress
        )
    if common.json:
        print_json(evaluation)
    else:
        _print_evaluation(folder.evaluation)
    return 0


def report(run: Path, *, gmt: Path | None = None, common: Common = Common()) -> int:
    """Write report.html of a trained run from its results.

    Parameters
    ----------
    run
        The run folder.
    gmt
        File of gene sets with human names: they name the clusters, and the page finds them enriched among any genes.
    """
    from musegnn import results
    from musegnn.progress import TerminalProgress
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        results.write_report(folder, *_results(folder), gmt=gmt, progress=progress)
    print_result(common, {"file": str(folder.report)}, f"Open {shown(folder.report)} in a browser.")
    return 0


def explore(run: Path, *, port: Port = 0, gmt: Path | None = None, common: Common = Common()) -> int:
    """Serve the page of a trained run to this computer alone, with fresh answers from the whole vectors and graphs.

    Parameters
    ----------
    run
        The run folder; it is only read.
    port
        Port on 127.0.0.1; by default a free one.
    gmt
        File of gene sets with human names, as for the report.
    """
    from musegnn import results
    from musegnn.progress import TerminalProgress
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        server = results.explore(folder, *_results(folder), port=port, gmt=gmt, progress=progress)
    with server:
        print_result(common, {"url": server.url}, f"Open {server.url} in a browser of this computer. Ctrl+C ends it.")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _results(folder: RunFolder) -> tuple[MuSeGNN, Any, dict[str, Any]]:  # AnnData, JSON
    """Return model, embeddings and evaluation of a finished run."""
    from musegnn import pipeline

    if not folder.evaluation.is_file():
        msg = "the run has no evaluation.json yet"
        raise RunError(msg, code="E405", where=str(folder.path), fix=f"musegnn evaluate {shown(folder.path)}")
    evaluation = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    model, adata = pipeline.load_model(folder), read_embeddings(folder.path)
    if adata.uns["musegnn"]["rounds"] != model.rounds:
        msg = f"embeddings.h5ad is of round {adata.uns['musegnn']['rounds']}, the newest checkpoint of {model.rounds}"
        raise RunError(msg, code="E406", where=str(folder.path), fix="finish the run with the command that started it")
    return model, adata, evaluation


def _print_evaluation(path: Path) -> None:
    from musegnn.evaluation.table import to_table

    print(to_table(json.loads(path.read_text(encoding="utf-8"))))
