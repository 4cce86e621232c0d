"""The co-expression graphs of a run as edge lists, for Cytoscape, networkx, decoupler and pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pandas as pd

from musegnn.coexpression.edges import select_edges
from musegnn.data_store.atomic_files import atomic_file
from musegnn.errors import InputError
from musegnn.text import some_of

if TYPE_CHECKING:
    from pathlib import Path

    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store

NetworkFormat = Literal["edges", "graphml", "decoupler"]
SUFFIXES = {"edges": ".edges.tsv", "graphml": ".graphml", "decoupler": ".net.tsv"}
LABELS = ("dataset", "modality", "tissue", "species")


def edge_table(store: Store, config: AtlasConfig, *, dataset: str | None = None) -> pd.DataFrame:
    """Return the edges of the graphs under the edge rule of a configuration, each once, the strongest first.

    Columns: ``source``, ``target`` (gene names), ``z`` (test statistic), ``estimate`` (co-expression in [-1, 1]),
    ``dataset``, ``modality``, ``tissue``, ``species``, and, where a store has it, ``certainty``, the lower of the two
    genes. Held-out edges are among them.

    Raises
    ------
    InputError
        E420 for a dataset that the configuration does not have.
    """
    names = [each.name for each in config.datasets]
    if dataset is not None and dataset not in names:
        msg = f"there is no dataset {dataset}"
        raise InputError(msg, code="E420", where="network", fix=f"choose one of: {some_of(names, 8)}")
    parts = []
    for name in names if dataset is None else [dataset]:
        record = store.read(name)
        edges = select_edges(record.pairs, record.n_cells, config.edges)
        once = edges.rows < edges.indices
        rows, columns, z = edges.rows[once], edges.indices[once], edges.z[once]
        order = np.lexsort((columns, rows, -np.abs(z)))
        gene = record.genes.gene
        part = pd.DataFrame(
            {
                "source": gene[rows[order]],
                "target": gene[columns[order]],
                "z": z[order],
                "estimate": edges.estimate[once][order],
            }
        )
        about = (name, record.modality, record.tissue, record.species)
        part = part.assign(**dict(zip(LABELS, about, strict=True)))
        if (known := record.genes.certainty) is not None:
            part["certainty"] = np.minimum(known[rows], known[columns])[order]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def write_network(table: pd.DataFrame, path: Path | str, *, format: NetworkFormat) -> None:  # noqa: A002
    """Write the edges of :func:`edge_table`.

    ``edges``: all columns as TSV. ``graphml``: an undirected multigraph for Cytoscape and networkx, one edge per
    dataset, with `weight` the estimate. ``decoupler``: a signed net as TSV, ``source``, ``target``, ``weight``: every
    gene with all of its partners, and the mean estimate over the datasets.
    """
    if format == "graphml":
        _write_graphml(table, path)
        return
    if format == "decoupler":
        turned = table.rename(columns={"source": "target", "target": "source"})
        both = pd.concat([table, turned])[["source", "target", "estimate"]]
        table = both.groupby(["source", "target"], sort=True).mean().reset_index()
        table = table.rename(columns={"estimate": "weight"})
    with atomic_file(path) as partial:
        table.to_csv(partial, sep="\t", index=False, float_format="%.9g", lineterminator="\n")


def _write_graphml(table: pd.DataFrame, path: Path | str) -> None:
    keys = [("weight", "double"), ("z", "double"), *((name, "string") for name in LABELS)]
    has_certainty = "certainty" in table
    certainty = table["certainty"].to_numpy(np.float64) if has_certainty else np.zeros(0)
    if has_certainty:
        keys.append(("certainty", "double"))
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as out:
        out.write('<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n')
        for name, kind in keys:
            out.write(f'<key id="{name}" for="edge" attr.name="{name}" attr.type="{kind}"/>\n')
        out.write('<key id="name" for="node" attr.name="name" attr.type="string"/>\n<graph edgedefault="undirected">\n')
        for gene in sorted(set(table["source"]) | set(table["target"])):
            out.write(f'<node id={quoteattr(gene)}><data key="name">{escape(gene)}</data></node>\n')
        for number, row in enumerate(table.itertuples(index=False)):
            values = {"weight": f"{row.estimate:.9g}", "z": f"{row.z:.9g}"} | {n: str(getattr(row, n)) for n in LABELS}
            if has_certainty and np.isfinite(certainty[number]):
                values["certainty"] = f"{certainty[number]:.9g}"
            data = "".join(f'<data key="{name}">{escape(value)}</data>' for name, value in values.items())
            ends = f"source={quoteattr(str(row.source))} target={quoteattr(str(row.target))}"
            out.write(f'<edge id="e{number}" {ends}>{data}</edge>\n')
        out.write("</graph>\n</graphml>\n")
