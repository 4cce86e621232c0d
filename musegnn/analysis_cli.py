"""The commands that answer questions about the vectors of a run: ``musegnn neighbors``, ``export`` and others."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003  cyclopts reads annotations
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from musegnn.errors import RunError, WriteError
from musegnn.options import Common
from musegnn.output import print_json, print_result


def export(
    run: Path,
    *,
    format: Literal["h5ad", "parquet", "word2vec"],  # noqa: A002  the option is called --format
    to: Path | None = None,
    common: Common = Common(),
) -> int:
    """Write the embeddings of a run in another format.

    Parameters
    ----------
    run
        The run folder.
    format
        h5ad (AnnData), parquet (one row per dataset and gene), or word2vec (text).
    to
        The file; by default embeddings.* in the run folder.
    """
    from musegnn.analysis.export import SUFFIXES
    from musegnn.analysis.export import export as write

    adata = read_embeddings(run)
    path = to or run / f"embeddings{SUFFIXES[format]}"
    if path.is_dir():
        msg = "this is a folder"
        raise WriteError(msg, code="E292", where=str(path), fix=f"name a file such as embeddings{SUFFIXES[format]}")
    write(adata, path, format=format)
    print_result(
        common, {"file": str(path), "rows": adata.n_obs, "dim": adata.n_vars}, f"{adata.n_obs} vectors in {path}"
    )
    return 0


def neighbors(
    run: Path,
    gene: str,
    *,
    dataset: str | None = None,
    k: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1))] = 10,
    by: Literal["balanced", "csls", "cosine"] = "balanced",
    common: Common = Common(),
) -> int:
    """List the genes nearest to a gene.

    Parameters
    ----------
    run
        The run folder.
    gene
        Gene name, as in the input (upper and lower case count as equal when that is unambiguous).
    dataset
        Dataset of the query; by default one list per dataset that has the gene.
    k
        Length of each list.
    by
        Ranking: balanced, the cosine less what is typical for the two datasets, so that genes of all datasets are
        listed; csls, corrected for both genes as well; or cosine.
    """
    from musegnn.analysis.neighbors import query
    from musegnn.run_folder import RunFolder

    table = query(read_embeddings(run), gene, dataset=dataset, k=k, by=by, run=RunFolder.open(run))
    if common.json:
        print_json(json.loads(table.to_json(orient="records")))
    else:
        print(table.to_string(index=False, float_format="%.3f"))
    return 0


def read_embeddings(run: Path) -> Any:  # AnnData; anndata is imported at use
    """Return the embeddings of a run; E405 when it has none yet."""
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    if not folder.embeddings.is_file():
        msg = "the run has no embeddings.h5ad yet"
        raise RunError(msg, code="E405", where=str(run), fix="finish it with the command that started it")
    from anndata import read_h5ad

    return read_h5ad(folder.embeddings)
