"""The commands that answer questions about the vectors of a run: ``musegnn export``, ``neighbors`` and ``contrast``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  read by cyclopts
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from musegnn.errors import RunError
from musegnn.options import Common
from musegnn.output import print_result, print_table, target_file

if TYPE_CHECKING:
    from pandas import DataFrame

    from musegnn.run_folder import RunFolder


def export(
    run: Path,
    *,
    format: Literal["h5ad", "parquet", "word2vec", "tsv", "npz", "edges", "graphml", "decoupler"],  # noqa: A002
    per: Literal["dataset", "gene", "tissue"] = "dataset",
    dataset: str | None = None,
    to: Path | None = None,
    common: Common = Common(),
) -> int:
    """Write the vectors or the graphs of a run for another program.

    Parameters
    ----------
    run
        The run folder.
    format
        Vectors: h5ad (AnnData), parquet, word2vec (text), tsv, npz (a dictionary of arrays). Graphs: edges (TSV),
        graphml (Cytoscape, networkx), decoupler (a net as TSV).
    per
        One vector per dataset and gene; or consensus vectors, one per gene, or per gene and tissue.
    dataset
        Dataset of the graphs; all by default.
    to
        The file; by default embeddings.*, consensus.* or network.* in the run folder.
    """
    if format == "edges" or format == "graphml" or format == "decoupler":  # as mypy narrows it
        return _export_network(run, format, dataset, to, common)
    from musegnn.analysis.consensus import consensus
    from musegnn.analysis.export import SUFFIXES
    from musegnn.analysis.export import export as write

    adata = read_embeddings(run)
    name = "embeddings"
    if per != "dataset":
        adata, name = consensus(adata, per=per), f"consensus_{per}"
    path = target_file(to, run / f"{name}{SUFFIXES[format]}")
    write(adata, path, format=format)
    about = {"file": str(path), "rows": adata.n_obs, "dim": adata.n_vars}
    print_result(common, about, f"{adata.n_obs} vectors in {path}")
    return 0


def _export_network(
    run: Path, kind: Literal["edges", "graphml", "decoupler"], dataset: str | None, to: Path | None, common: Common
) -> int:
    from musegnn.analysis.network import SUFFIXES, edge_table, write_network
    from musegnn.data_store import Store
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    table = edge_table(Store.open(folder.store_path()), folder.atlas(), dataset=dataset)
    path = target_file(to, run / f"network{SUFFIXES[kind]}")
    write_network(table, path, format=kind)
    print_result(common, {"file": str(path), "edges": len(table)}, f"{len(table)} edges in {path}")
    return 0


def neighbors(
    run: Path,
    gene: str,
    *,
    dataset: str | None = None,
    tissue: str | None = None,
    across: bool = False,
    not_in: str | None = None,
    k: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1))] = 10,
    by: Literal["balanced", "csls", "cosine", "coexpression"] = "balanced",
    to: Path | None = None,
    common: Common = Common(),
) -> int:
    """List the genes nearest to a gene, with z and estimate of their co-expression in the dataset of the query.

    Parameters
    ----------
    run
        The run folder.
    gene
        Gene name, as in the input (upper and lower case count as equal when that is unambiguous).
    dataset
        Dataset of the query; by default one list per dataset that has the gene.
    tissue
        Tissue of the query and of its neighbours; all by default.
    across
        List genes of other datasets only.
    not_in
        Dataset or tissue in which the listed genes must have no edge with the gene.
    k
        Length of each list.
    by
        Ranking: balanced, the cosine less what is typical for the two datasets, so that genes of all datasets are
        listed; csls, corrected for both genes as well; cosine; or coexpression: partners in the graph of the query's
        dataset by falling z.
    to
        File to write the table to, as TSV.
    """
    from musegnn.analysis.neighbors import query
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    table = query(
        read_embeddings(run), gene, dataset=dataset, tissue=tissue, across=across, not_in=not_in, k=k, by=by,
        graphs=_graphs(folder), run=folder,
    )  # fmt: skip
    print_table(
        table, to, common, shown=table if common.json else table.drop(columns="query_certainty", errors="ignore")
    )
    if not common.json:
        _print_uncertain_copies(gene, table)
    return 0


def _print_uncertain_copies(gene: str, table: DataFrame) -> None:
    """Name the datasets in which the gene itself has a low certainty."""
    from musegnn.analysis.certainty import LOW

    if "query_certainty" not in table:
        return
    copies = table.drop_duplicates("query")
    low = copies[copies["query_certainty"] < LOW]
    if len(low):
        where = ", ".join(
            f"{name} ({value:.2f})" for name, value in zip(low["query"], low["query_certainty"], strict=True)
        )
        print(f"{gene} itself is uncertain in {where}: these lists may be others for other cells")


def _graphs(folder: RunFolder) -> dict[str, Any]:  # keys and edges
    """Return gene keys and edges of each dataset of a run."""
    from musegnn.coexpression.edges import select_edges
    from musegnn.data_store import Store
    from musegnn.training.genes import gene_keys, read_orthologs

    atlas, store = folder.atlas(), Store.open(folder.store_path())
    orthologs = None if atlas.orthologs is None else read_orthologs(atlas.orthologs)
    found = {}
    for dataset in atlas.datasets:
        record = store.read(dataset.name)
        keys = gene_keys(record.genes.gene, dataset.species, orthologs)
        found[dataset.name] = (keys, select_edges(record.pairs, record.n_cells, atlas.edges))
    return found


def contrast(
    run: Path,
    a: str,
    b: str,
    *,
    splits: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=3))] = 20,
    seed: int = 0,
    genes: Path | None = None,
    to: Path | None = None,
    common: Common = Common(),
) -> int:
    """Compare the co-expression of two datasets, conditions or groups: genes, partners gained and lost, modules.

    Parameters
    ----------
    run
        The run folder; the counts are read again from the files of its atlas.
    a
        Names of datasets, separated by commas, or a label such as condition=control, tissue=lung.
    b
        The other group.
    splits
        Number of random halves of the cells, which tell change from chance.
    seed
        Seed of the halves.
    genes
        File of gene names that are compared even where the graphs lack them, and marked in the volcano plot; their
        rank among all genes is tested.
    to
        Folder for genes.tsv, pairs.tsv, modules.tsv, contrast.json, volcano.png and partners.png; by default a folder
        in the run.
    """
    from musegnn.analysis.certainty import higher_certainty, with_marks
    from musegnn.analysis.comparison import contrast as compare
    from musegnn.analysis.comparison_files import folder_name, write_contrast
    from musegnn.analysis.gene_lists import list_change, read_names
    from musegnn.data_store import Store
    from musegnn.progress import TerminalProgress
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    listed = [] if genes is None else read_names(genes)
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        store = Store.open(folder.store_path())
        found = compare(store, folder.atlas(), a, b, genes=listed, splits=splits, seed=seed, progress=progress)
    place = to or folder.path / folder_name(a, b)
    about, rank = found.summary, ""
    if listed:
        change = list_change(found.genes, listed)
        about = about | {"listed": change._asdict()}
        rank = f"{change.n_genes} listed genes rank with an AUROC of {change.auroc:.2f} (p {change.p_value:.2g}).\n"
    files = [str(path) for path in write_contrast(found, place, genes=listed or None)]
    columns = ["gene", "change", "p_value", "q_value", "certainty", "n_gained", "n_lost", "gained", "lost"]
    shown, legend = with_marks(higher_certainty(found.genes).head(20))
    table = shown[[c for c in columns if c in shown]].to_string(index=False, float_format="%.3g")
    legend = f"{legend} in both groups\n" if legend else ""
    kept = int((found.modules["state"] == "kept").sum())
    text = (
        f"{table}\n{legend}{about['changed']} of {about['genes']} genes change more than others of their strength "
        f"(false discovery rate 5 %); the median gene changes {about['background']:.2f} times as much as between "
        "random halves.\n"
        f"{rank}{kept} of {len(found.modules)} modules of {a} are kept in {b}.\nTables and figures in {place}"
    )
    print_result(common, about | {"files": files}, text)
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
