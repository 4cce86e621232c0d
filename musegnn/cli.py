"""The command line. Heavy libraries load inside the commands, so that ``musegnn --help`` answers at once."""

from __future__ import annotations

import io
import logging
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from musegnn.add_cli import add
from musegnn.analysis_cli import contrast, export, neighbors
from musegnn.cluster.options import ClusterOptions
from musegnn.errors import ConfigError, MuseGNNError, WriteError
from musegnn.gene_sets_cli import enrich, factors, predict
from musegnn.options import BuildOptions, Common, Device, Settings
from musegnn.output import HELD, line_of, print_json, print_result, print_run, shown, warnings_in_words
from musegnn.results_cli import benchmark, evaluate, explore, report, status
from musegnn.store_cli import store_app
from musegnn.text import one_line
from musegnn.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from musegnn.cluster.estimate import AtlasEstimate
    from musegnn.config import AtlasConfig

Cluster = Annotated[ClusterOptions, Parameter(name="*", negative=())]

app = cyclopts.App(
    name="musegnn",
    help="Joint gene embeddings from many single-cell and spatial datasets, from raw counts.",
    version_flags=["--version"],
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(store_app)


@app.command
def run(
    atlas: Path,
    *,
    out: Path,
    work: BuildOptions = BuildOptions(),
    cluster: Cluster = ClusterOptions(),
    settings: Settings = Settings(),
    common: Common = Common(),
) -> int:
    """Build graphs, train, embed, evaluate and report. Run again to continue where it stopped.

    Parameters
    ----------
    atlas
        The atlas file (YAML): datasets and settings.
    out
        The run folder.
    """
    from musegnn import pipeline
    from musegnn.progress import TerminalProgress

    config = _load(atlas, _with_device(settings, None if work.device == "auto" else work.device))
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        folder = pipeline.run(
            config,
            out,
            scheduler=work.scheduler,
            memory=work.memory_bytes,
            device=work.device,
            cluster=cluster,
            progress=progress,
        )
    print_run(folder, common)
    return 0


@app.command
def init(files: Annotated[tuple[Path, ...], Parameter(negative=())], /, *, out: Path = Path("atlas.yaml")) -> int:
    """Write a first atlas file from what files say about themselves: labels, gene names, coordinates, counts.

    Parameters
    ----------
    files
        Files of counts, such as .h5ad.
    out
        The atlas file to write, which must not exist.
    """
    from musegnn.data_store.atomic_files import write_file
    from musegnn.guesses import first_atlas

    if out.exists():
        msg = "the file exists"
        raise WriteError(msg, code="E292", where=str(out), fix="name another file with --out")
    text = first_atlas(files, out)
    write_file(out, text)
    print(text, end="")
    print(f"Wrote {shown(out)}. Correct it, then: musegnn run {shown(out)} --out RUN")
    return 0


@app.command
def inspect(files: Annotated[tuple[str, ...], Parameter(negative=())], /, *, common: Common = Common()) -> int:
    """Show what of files would be used, what would be left out and why, from their headers. Exit code 1 for problems.

    Parameters
    ----------
    files
        Files, folders or URLs of counts, or an atlas file, whose datasets are shown with their settings.
    """
    from musegnn.data_store.inspection import overlaps
    from musegnn.datasets import inspect_inputs

    found = inspect_inputs(files)
    if common.json:
        print_json([entry.to_json() for entry in found])
    else:
        print("\n".join([*(entry.to_text() for entry in found), *(pair.to_text() for pair in overlaps(found))]))
    return int(any(entry.problem for entry in found))


@app.command
def build(
    atlas: Path,
    *,
    store: Path,
    work: BuildOptions = BuildOptions(),
    settings: Settings = Settings(),
    common: Common = Common(),
) -> int:
    """Build the co-expression graphs of an atlas into a store. Finished datasets are not built again.

    Parameters
    ----------
    atlas
        The atlas file (YAML).
    store
        The store; created when missing.
    """
    from musegnn import pipeline
    from musegnn.datasets import expand_strata
    from musegnn.progress import TerminalProgress

    if not (common.quiet or common.json):
        logging.getLogger("musegnn.datasets").setLevel(logging.INFO)  # what of each file is used
    config = expand_strata(_load(atlas, settings))
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        opened = pipeline.build_graphs(
            config,
            store,
            scheduler=work.scheduler,
            memory=work.memory_bytes,
            device=work.device,
            progress=progress,
        )
    names = [d.name for d in config.datasets]
    print_result(common, {"store": str(store), "datasets": names}, f"{len(names)} datasets in {shown(opened.path)}")
    return 0


@app.command
def estimate(
    atlas: Path,
    *,
    work: BuildOptions = BuildOptions(),
    settings: Settings = Settings(),
    common: Common = Common(),
) -> int:
    """Estimate passes, memory, disk and time of building the graphs of an atlas. Nothing is built.

    Parameters
    ----------
    atlas
        The atlas file (YAML).
    """
    from musegnn import pipeline

    found = pipeline.estimate(_load(atlas, settings), scheduler=work.scheduler, memory=work.memory_bytes)
    print_result(common, asdict(found), _estimate_table(found))
    return 0


@app.command
def train(
    store: Path,
    *,
    out: Path,
    atlas: Path | None = None,
    resume: Annotated[bool, Parameter(negative="--no-resume")] = True,
    memory: str | None = None,
    device: Device = None,
    cluster: Cluster = ClusterOptions(),
    settings: Settings = Settings(),
    common: Common = Common(),
) -> int:
    """Train on a store and write embeddings, evaluation and report.

    Parameters
    ----------
    store
        The store written by `musegnn build`.
    out
        The run folder.
    atlas
        Atlas file with settings and the choice and order of datasets; by default all datasets and default settings.
    resume
        Continue from the newest checkpoint in the run folder; --no-resume refuses a folder that has one.
    memory
        Memory that each training process may use, such as 6GB; by default half of what is free. Changes no result.
    device
        Where to train: auto, cpu or cuda (training.device). With actors, each of them has a GPU of its own.
    """
    from musegnn import pipeline, results
    from musegnn.data_store import Store
    from musegnn.datasets import atlas_of_store, expand_strata
    from musegnn.progress import TerminalProgress
    from musegnn.run_folder import RunFolder

    opened = Store.open(store)
    settings = _with_device(settings, device)
    overrides = settings.overrides()
    config = expand_strata(_load(atlas, settings)) if atlas is not None else atlas_of_store(opened, overrides)
    folder = RunFolder.create(out, config, store=opened.path)
    with folder.logging(), TerminalProgress(quiet=common.quiet or common.json) as progress:
        limit = None if memory is None else parse_bytes(memory)
        model = pipeline.train(folder, opened, resume=resume, memory=limit, cluster=cluster, progress=progress)
        results.write_results(folder, model, progress=progress)
    print_run(folder, common)
    return 0


for command in (
    add, benchmark, contrast, enrich, evaluate, explore, export, factors, neighbors, predict, report, status,
):  # fmt: skip
    app.command(command)


@app.command
def explain(code: str, *, common: Common = Common()) -> int:
    """Explain a code of an error or warning, and what to do.

    Parameters
    ----------
    code
        The code, such as E201 or W274.
    """
    from musegnn.error_codes import codes
    from musegnn.setting_errors import close_word

    known = codes()
    row = known.get(code.strip().strip("[]").upper())
    if row is None:
        near = close_word(code, list(known))
        msg = f"there is no code {code!r}"
        fix = f"did you mean {near}?" if near else "see docs/errors.md"
        raise ConfigError(msg, code="E302", where="explain", fix=fix)
    kind = "A warning" if row.code.startswith("W") else f"An error ({', '.join(row.classes)} in Python)"
    text = f"{row.code}: {row.meaning}\n{kind}. What to do: {row.fix}"
    print_result(common, {"code": row.code, "meaning": row.meaning, "fix": row.fix, "classes": row.classes}, text)
    return 0


@app.command
def doctor(*, warm_up: bool = False, common: Common = Common()) -> int:
    """Show versions, devices, optional packages and free resources. Exit code 1 when something will not work.

    Parameters
    ----------
    warm_up
        Compile the CPU kernels, which are kept for later processes.
    """
    from musegnn.doctor import Finding, as_json, examine
    from musegnn.doctor import warm_up as compile_kernels

    findings = examine()
    if warm_up:
        findings.append(Finding("compilation", f"all CPU kernels are compiled; {compile_kernels():.0f} s", "ok"))
    if common.json:
        print_json(as_json(findings))
    else:
        for f in findings:
            print(f"{'!' if f.level == 'problem' else ' '} {f.item:<20} {f.state}")
    return int(any(f.level == "problem" for f in findings))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check found problems, 2 the input must be corrected."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Threads that spin slow each other down, tenfold on a busy machine; torch warns of every host without a name.
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "TORCH_CPP_LOG_LEVEL": "ERROR"} | os.environ
    logging.basicConfig(level=logging.WARNING, handlers=[HELD])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale cannot write end no command
    try:
        code = app(arguments)
    except cyclopts.CycloptsError as error:
        _fail(one_line(error))
        code = 2
    except BrokenPipeError:  # the reader, such as `head`, has stopped
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  stays open until the exit
        code = 0
    except (MuseGNNError, OSError, UnicodeEncodeError) as error:
        if "--debug" in arguments:
            raise
        _fail(line_of(error))
        code = 2
    except KeyboardInterrupt:
        _fail("stopped; run the same command again to continue")
        code = 130
    for line in warnings_in_words(HELD.lines):
        print(f"musegnn: note: {line}", file=sys.stderr)
    HELD.lines.clear()
    sys.exit(code if isinstance(code, int) else 0)


def _fail(line: str) -> None:
    print(f"musegnn: {line}", file=sys.stderr)


def _load(atlas: Path, settings: Settings) -> AtlasConfig:
    from musegnn.atlas_file import load_atlas

    return load_atlas(atlas, settings.overrides())


def _with_device(settings: Settings, device: str | None) -> Settings:
    """Return the settings with the device that an option names, if it names one."""
    return settings if device is None else replace(settings, set=(*settings.set, f"training.device={device}"))


def _estimate_table(found: AtlasEstimate) -> str:
    import pandas as pd

    rows = [
        {
            "dataset": d.name,
            "cells": d.cells,
            "genes": d.genes,
            "selected": d.selected,
            "passes": d.passes,
            "memory": format_bytes(d.memory),
            "work": format_bytes(d.work_bytes),
            "store": format_bytes(d.store_bytes),
            "CPU s": round(d.cpu_seconds),
        }
        for d in found.datasets
    ]
    workers = f", {format_bytes(found.per_worker)} in each worker" if found.per_worker else ""
    together = (
        f"together: peak memory {format_bytes(found.memory)}{workers}; store {format_bytes(found.store_bytes)}; "
        f"{found.cpu_seconds:.0f} CPU s, {found.cpu_seconds / found.workers / 60:.1f} min on {found.workers} free cores"
    )
    return pd.DataFrame(rows).to_string(index=False) + "\n" + together


if __name__ == "__main__":
    main()
