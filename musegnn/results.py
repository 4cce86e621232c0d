"""The results of a run: embeddings, evaluation and page, from the model to the files of its folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.analysis.explore import ExploreServer
    from musegnn.analysis.report import ReportData
    from musegnn.api import MuSeGNN
    from musegnn.progress import Progress
    from musegnn.run_folder import RunFolder


def write_results(folder: RunFolder, model: MuSeGNN, *, progress: Progress | None = None) -> None:
    """Write embeddings, evaluation, summary and report of a trained model; what is there of this model stays."""
    report = progress or (lambda *_: None)
    report("results", 0, 3, "embeddings")
    adata = _current_embeddings(folder, model)
    if adata is None:
        adata = write_embeddings(folder, model)
    report("results", 1, 3, "evaluation")
    evaluation = _current_evaluation(folder, model)
    if evaluation is None:
        evaluation = evaluate(folder, model, progress=progress)
    report("results", 2, 3, "report")
    results = (folder.embeddings, folder.evaluation, folder.summary, *folder.contrast_files())
    made = max((path.stat().st_mtime_ns for path in results if path.is_file()), default=0)
    if not folder.report.is_file() or folder.report.stat().st_mtime_ns < made:
        write_report(folder, model, adata, evaluation, progress=progress)
    report("results", 3, 3, "")


def _current_embeddings(folder: RunFolder, model: MuSeGNN) -> AnnData | None:
    """Return the embeddings in the folder, if they are of this model."""
    if not folder.embeddings.is_file():
        return None
    import anndata

    adata = anndata.read_h5ad(folder.embeddings)
    about = dict(adata.uns.get("musegnn", {}))
    same = about == {"rounds": model.rounds, "fingerprint": model.fingerprint()}
    return adata if same and (folder.path / "embeddings.parquet").is_file() else None


def _current_evaluation(folder: RunFolder, model: MuSeGNN) -> dict[str, Any] | None:  # JSON
    """Return the evaluation in the folder, if it is of this model."""
    if not folder.evaluation.is_file() or not folder.summary.is_file():
        return None
    found: dict[str, Any] = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    same = (found.get("fingerprint"), found["settings"]["rounds"]) == (model.fingerprint(), model.rounds)
    return found if same else None


def write_embeddings(
    folder: RunFolder, model: MuSeGNN, *, vectors: Mapping[str, NDArray[np.float32]] | None = None
) -> AnnData:
    """Embed, cluster and lay out all genes; write ``embeddings.h5ad`` and ``embeddings.parquet``.

    `vectors` are those of the model where they are known; they keep their bits on any machine.
    """
    from musegnn.analysis.annotate import annotate
    from musegnn.analysis.export import export

    adata = model.embeddings(layout=False, vectors=vectors)
    annotate(adata)
    export(adata, folder.path / "embeddings.h5ad", format="h5ad")
    export(adata, folder.path / "embeddings.parquet", format="parquet")
    return adata


def evaluate(
    folder: RunFolder,
    model: MuSeGNN,
    *,
    gmt: Path | None = None,
    trained_baselines: bool = False,
    seeds: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:  # JSON
    """Score the model and its baselines on what was held out; write ``evaluation.json`` and ``summary.json``.

    Parameters
    ----------
    gmt
        File of gene sets (human names) to predict.
    trained_baselines
        Whether to train baselines as well; needs the extra ``baselines``.
    seeds
        Number of training seeds to average over, that of the run included.
    """
    from musegnn.data_store.atomic_files import write_file
    from musegnn.evaluation.evaluate import evaluate_model, write_evaluation
    from musegnn.evaluation.gene_sets import read_gmt
    from musegnn.evaluation.summary import dataset_table, sentences

    sets = None if gmt is None else model.gene_sets(read_gmt(gmt))
    evaluation = evaluate_model(
        model, sets=sets, trained_baselines=trained_baselines, seeds=seeds, progress=progress
    ) | {"fingerprint": model.fingerprint()}
    write_evaluation(evaluation, folder.evaluation)
    graphs, problems = model.graph_reports(), model.problems()
    warnings = [f"{graph['dataset']}: {line}" for graph in graphs for line in graph["report"].get("warnings", [])]
    about = {
        "sentences": sentences(evaluation, [(problem.code, problem.dataset) for problem in problems], graphs),
        "table": dataset_table(evaluation, graphs),
        "warnings": [*warnings, *map(str, problems)],
    }
    write_file(folder.summary, json.dumps(about, indent=1) + "\n")
    return evaluation


def write_report(
    folder: RunFolder,
    model: MuSeGNN,
    adata: AnnData,
    evaluation: dict[str, Any],  # JSON
    *,
    gmt: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Write ``report.html``: one self-contained page, with the gene sets of a .gmt file (human names) where given."""
    from musegnn.analysis.report import write_report as write

    write(folder.report, report_data(folder, model, adata, evaluation, gmt=gmt), progress=progress)


def explore(
    folder: RunFolder,
    model: MuSeGNN,
    adata: AnnData,
    evaluation: dict[str, Any],  # JSON
    *,
    port: int = 0,
    gmt: Path | None = None,
    progress: Progress | None = None,
) -> ExploreServer:
    """Return a server of the page on 127.0.0.1, not serving yet; parameters are those of :func:`write_report`."""
    from musegnn.analysis.explore import Explorer, ExploreServer
    from musegnn.analysis.report.page import render

    page = render(report_data(folder, model, adata, evaluation, gmt=gmt), live=True, progress=progress).encode()
    pairs = {name: record.pairs for name, record in model.records.items()}
    return ExploreServer(Explorer(page=page, adata=adata, pairs=pairs), port)


def report_data(
    folder: RunFolder,
    model: MuSeGNN,
    adata: AnnData,
    evaluation: dict[str, Any],  # JSON
    *,
    gmt: Path | None = None,
) -> ReportData:
    """Collect what the page shows of a run."""
    from musegnn.analysis.report import ReportData
    from musegnn.evaluation.gene_sets import read_gmt, set_titles

    titles = {} if gmt is None else set_titles(gmt)
    sets = {} if gmt is None else model.gene_sets({titles[name]: genes for name, genes in read_gmt(gmt).items()})
    return ReportData(
        adata=adata,
        evaluation=evaluation,
        history=folder.history(),
        graphs=model.graph_reports(),
        config=folder.lock.read_text(encoding="utf-8"),
        title=folder.path.name,
        pairs={name: record.pairs for name, record in model.records.items()},
        sets=sets,
        contrasts=folder.contrasts(),
    )
