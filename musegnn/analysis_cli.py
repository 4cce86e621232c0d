"""The commands that answer questions about the vectors of a run: ``musegnn neighbors``, ``export`` and others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from musegnn.errors import InputError, RunError, WriteError
from musegnn.options import Common
from musegnn.output import print_json, print_result

BEST = 20

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

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
    path = _target(to, run / f"{name}{SUFFIXES[format]}")
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
    path = _target(to, run / f"network{SUFFIXES[kind]}")
    write_network(table, path, format=kind)
    print_result(common, {"file": str(path), "edges": len(table)}, f"{len(table)} edges in {path}")
    return 0


def _target(to: Path | None, usual: Path) -> Path:
    path = to or usual
    if path.is_dir():
        msg = "this is a folder"
        raise WriteError(msg, code="E292", where=str(path), fix=f"name a file such as {usual.name}")
    return path


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
    _print_table(
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


def enrich(
    run: Path,
    *,
    gmt: Path,
    of: str = "clusters",
    per: Literal["tissue", "dataset"] = "tissue",
    k: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1))] = 50,
    fdr: float = 0.05,
    to: Path | None = None,
    figure: Path | None = None,
    common: Common = Common(),
) -> int:
    """Name clusters, modules or the neighbours of genes by gene sets that are over-represented. Works offline.

    Parameters
    ----------
    run
        The run folder.
    gmt
        File of gene sets: human names, or those of the one species of the run.
    of
        clusters (of all vectors), modules (of each graph), a gene, whose nearest genes are tested, or a file of gene
        names: the genes nearest to their mean in each context.
    per
        Contexts of a file of gene names.
    k
        Number of neighbours of a gene, or of the genes of a file.
    fdr
        Largest false discovery rate that is listed.
    to
        File to write the whole table to, as TSV.
    figure
        File to draw the sets that are listed to, as bubbles (PNG).
    """
    from musegnn.analysis.enrichment import cluster_lists, neighbor_lists
    from musegnn.analysis.enrichment import enrich as test_sets
    from musegnn.run_folder import RunFolder

    folder, adata = RunFolder.open(run), read_embeddings(run)
    sets, keys = _gene_sets(folder, gmt), set(adata.obs["gene_key"].astype(str))
    if of == "modules":
        table = _enrich_modules(folder, sets)
    elif Path(of).is_file():
        from musegnn.analysis.gene_lists import sets_near

        table = sets_near(adata, _gene_list(folder, Path(of)), sets, per=per, k=k)
    else:
        lists = cluster_lists(adata) if of == "clusters" else neighbor_lists(adata, of, k=k, run=folder)
        table = test_sets(lists, sets, keys)
    table["genes"] = table["genes"].str.replace(r"(^|,)[^:,]+:", r"\1", regex=True)  # keys without their species
    if figure is not None:
        from musegnn.analysis.comparison_files import write_figure
        from musegnn.analysis.plots import bubble_size, draw_bubbles

        write_figure(figure, lambda axes: draw_bubbles(table, fdr=fdr, axes=axes), bubble_size(table, fdr=fdr))
    _print_table(table, to, common, shown=table[table["q"] <= fdr], none=f"no set at a false discovery rate of {fdr:g}")
    return 0


def factors(
    run: Path,
    *,
    genes: Path,
    factors: Path,
    per: Literal["tissue", "dataset"] = "tissue",
    fdr: float = 0.05,
    to: Path | None = None,
    figure: Path | None = None,
    common: Common = Common(),
) -> int:
    """List the transcription factors to which a list of genes lies nearer than to other genes, in each context.

    Parameters
    ----------
    run
        The run folder.
    genes
        File of gene names, separated by spaces, commas or lines: human, or those of the one species of the run.
    factors
        File of the names of transcription factors.
    per
        Contexts: tissues, with consensus vectors, or datasets.
    fdr
        Largest false discovery rate that is listed.
    to
        File to write the whole table to, as TSV.
    figure
        File for an UpSet plot of the factors that the contexts share (PNG).
    """
    from musegnn.analysis.comparison_files import write_figure
    from musegnn.analysis.gene_lists import shared_factors
    from musegnn.analysis.plots import draw_upset, indicators
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    listed, known = (_gene_list(folder, path) for path in (genes, factors))
    table = shared_factors(read_embeddings(run), listed, known, per=per)
    if figure is not None:
        write_figure(figure, lambda axes: draw_upset(indicators(table, fdr=fdr), axes=axes), (8.0, 4.6))
    _print_table(
        table, to, common, shown=table[table["q"] <= fdr], none=f"no factor at a false discovery rate of {fdr:g}"
    )
    return 0


def predict(
    run: Path,
    *,
    gmt: Path,
    k: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1))] = 5,
    seed: int = 0,
    to: Path | None = None,
    common: Common = Common(),
) -> int:
    """Score every gene for every gene set by its consensus vector, with cross-validated AUROC and calibration.

    Parameters
    ----------
    run
        The run folder.
    gmt
        File of gene sets: human names, or those of the one species of the run.
    k
        Number of likeliest genes outside each set to show.
    seed
        Seed of the folds.
    to
        File to write the scores of all genes to, as TSV.
    """
    from musegnn.analysis.consensus import consensus
    from musegnn.analysis.prediction import predict as score_sets
    from musegnn.progress import TerminalProgress
    from musegnn.run_folder import RunFolder

    vectors = consensus(read_embeddings(run))
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        found = score_sets(vectors, _gene_sets(RunFolder.open(run), gmt), seed=seed, progress=progress)
    fresh = found.genes[~found.genes["member"]].groupby("set")["gene"].agg(lambda genes: ", ".join(genes.iloc[:k]))
    table = found.sets.assign(candidates=found.sets["set"].map(fresh))
    _print_table(found.genes, to, common, shown=table if common.json else table.head(BEST))
    if not common.json:
        print(f"{len(table)} sets were scored; their mean AUROC is {table['auroc'].mean():.2f}, by chance .5")
    return 0


def _enrich_modules(folder: RunFolder, sets: dict[str, list[str]]) -> DataFrame:
    import pandas as pd

    from musegnn import pipeline
    from musegnn.analysis.enrichment import enrich as test_sets
    from musegnn.evaluation.evaluate import visible_pairs
    from musegnn.evaluation.modules import module_sets

    model = pipeline.load_model(folder)
    estimates = {g.name: visible_pairs(model.records[g.name].pairs, g.held_out)[0] for g in model.graphs}
    modules = module_sets(model.graphs, estimates)
    tables = [test_sets(modules[graph.name], sets, graph.keys.tolist()) for graph in model.graphs]
    return pd.concat(tables, ignore_index=True).sort_values(["p", "list", "set"], ignore_index=True)


def _gene_sets(folder: RunFolder, gmt: Path) -> dict[str, list[str]]:
    """Return gene sets as keys of the run."""
    from musegnn.evaluation.gene_sets import read_gmt, set_titles

    sets, titles, keys = read_gmt(gmt), set_titles(gmt), _key_names(folder)
    return {titles[name]: keys(genes) for name, genes in sets.items()}


def _gene_list(folder: RunFolder, path: Path) -> list[str]:
    """Return the genes of a text file as keys of the run."""
    return _key_names(folder)(read_names(path))


def read_names(path: Path) -> list[str]:
    """Read names of genes, separated by spaces, commas or lines; ``#`` starts a comment."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(error), code="E279", where=str(path), fix="name a text file of gene names") from error
    names = re.sub(r"#.*", "", text).replace(",", " ").split()
    if not names:
        msg = "the file names no gene"
        raise InputError(msg, code="E279", where=str(path), fix="write names of genes, one per line")
    return names


def _key_names(folder: RunFolder) -> Callable[[Collection[str]], list[str]]:
    """Return the function from names to keys: names are those of the run's species, or human where it has several."""
    import numpy as np

    from musegnn.training.genes import gene_keys, read_orthologs

    atlas = folder.atlas()
    species = {dataset.species for dataset in atlas.datasets}
    orthologs = None if atlas.orthologs is None else read_orthologs(atlas.orthologs)
    named = next(iter(species)) if len(species) == 1 else "human"
    return lambda names: gene_keys(np.array(sorted(names), dtype=np.str_), named, orthologs).tolist()


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


def _print_table(
    table: DataFrame, to: Path | None, common: Common, *, shown: DataFrame | None = None, none: str = "nothing found"
) -> None:
    """Write a table to a file where asked for, and print it or the part that is shown."""
    if to is not None:
        from musegnn.data_store.atomic_files import write_file

        text = table.to_csv(sep="\t", index=False, float_format="%.6g", lineterminator="\n")
        write_file(_target(to, Path("table.tsv")), text)
    shown = table if shown is None else shown
    if common.json:
        print_json(json.loads(shown.to_json(orient="records")))
    else:
        from musegnn.analysis.certainty import with_marks

        marked, legend = with_marks(shown)
        print(marked.to_string(index=False, float_format="%.3g") if len(shown) else none)
        if legend:
            print(legend)
        if to is not None:
            print(f"{len(table)} rows in {to}")


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
        File of gene names that the volcano plot marks, and whose rank among all genes is tested.
    to
        Folder for genes.tsv, pairs.tsv, modules.tsv, contrast.json, volcano.png and partners.png; by default a folder
        in the run.
    """
    from musegnn.analysis.certainty import higher_certainty, with_marks
    from musegnn.analysis.comparison import contrast as compare
    from musegnn.analysis.comparison_files import folder_name, write_contrast
    from musegnn.analysis.gene_lists import list_change
    from musegnn.data_store import Store
    from musegnn.progress import TerminalProgress
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    with TerminalProgress(quiet=common.quiet or common.json) as progress:
        found = compare(
            Store.open(folder.store_path()), folder.atlas(), a, b, splits=splits, seed=seed, progress=progress
        )
    place = to or folder.path / folder_name(a, b)
    about = found.summary
    listed, rank = None, ""
    if genes is not None:
        listed = read_names(genes)
        change = list_change(found.genes, listed)
        about = about | {"listed": change._asdict()}
        rank = f"{change.n_genes} listed genes rank with an AUROC of {change.auroc:.2f} (p {change.p_value:.2g}).\n"
    files = [str(path) for path in write_contrast(found, place, genes=listed)]
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
