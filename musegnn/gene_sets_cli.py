"""The commands on sets and lists of genes: ``musegnn enrich``, ``factors`` and ``predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import Parameter

from musegnn.analysis_cli import read_embeddings
from musegnn.options import Common
from musegnn.output import print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pandas import DataFrame

    from musegnn.run_folder import RunFolder

BEST = 20


@Parameter(name="*", negative=())
@dataclass(frozen=True, slots=True)
class Listing:
    """Options of commands that test many sets or factors."""

    per: Literal["tissue", "dataset"] = "tissue"
    "Contexts of a list of genes: tissues, with consensus vectors, or datasets."
    fdr: float = 0.05
    "Largest false discovery rate that is listed."
    to: Path | None = None
    "File to write the whole table to, as TSV."
    figure: Path | None = None
    "File to draw what is listed to (PNG): sets as bubbles, factors that contexts share as an UpSet plot."


def enrich(
    run: Path,
    *,
    gmt: Path,
    of: str = "clusters",
    k: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1))] = 50,
    listing: Listing = Listing(),
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
    k
        Number of neighbours of a gene, or of the genes of a file.
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

        table = sets_near(adata, _gene_list(folder, Path(of)), sets, per=listing.per, k=k)
    else:
        lists = cluster_lists(adata) if of == "clusters" else neighbor_lists(adata, of, k=k, run=folder)
        table = test_sets(lists, sets, keys)
    table["genes"] = table["genes"].str.replace(r"(^|,)[^:,]+:", r"\1", regex=True)  # keys without their species
    if listing.figure is not None:
        from musegnn.analysis.comparison_files import write_figure
        from musegnn.analysis.plots import bubble_size, draw_bubbles

        write_figure(
            listing.figure,
            lambda axes: draw_bubbles(table, fdr=listing.fdr, axes=axes),
            bubble_size(table, fdr=listing.fdr),
        )
    _print_found(table, listing, common, "set")
    return 0


def factors(
    run: Path,
    *,
    genes: Path,
    factors: Path,
    listing: Listing = Listing(),
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
    """
    from musegnn.analysis.comparison_files import write_figure
    from musegnn.analysis.gene_lists import shared_factors
    from musegnn.analysis.plots import draw_upset, indicators
    from musegnn.run_folder import RunFolder

    folder = RunFolder.open(run)
    listed, known = (_gene_list(folder, path) for path in (genes, factors))
    table = shared_factors(read_embeddings(run), listed, known, per=listing.per)
    if listing.figure is not None:
        write_figure(listing.figure, lambda axes: draw_upset(indicators(table, fdr=listing.fdr), axes=axes), (8.0, 4.6))
    _print_found(table, listing, common, "factor")
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
    print_table(found.genes, to, common, shown=table if common.json else table.head(BEST))
    if not common.json:
        print(f"{len(table)} sets were scored; their mean AUROC is {table['auroc'].mean():.2f}, by chance .5")
    return 0


def _print_found(table: DataFrame, listing: Listing, common: Common, kind: str) -> None:
    shown = table[table["q"] <= listing.fdr]
    none = f"no {kind} at a false discovery rate of {listing.fdr:g}"
    print_table(table, listing.to, common, shown=shown, none=none)


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
    from musegnn.analysis.gene_lists import read_names

    return _key_names(folder)(read_names(path))


def _key_names(folder: RunFolder) -> Callable[[Collection[str]], list[str]]:
    """Return the function from names to keys: names are those of the run's species, or human where it has several."""
    import numpy as np

    from musegnn.training.genes import gene_keys, read_orthologs

    atlas = folder.atlas()
    species = {dataset.species for dataset in atlas.datasets}
    orthologs = None if atlas.orthologs is None else read_orthologs(atlas.orthologs)
    named = next(iter(species)) if len(species) == 1 else "human"
    return lambda names: gene_keys(np.array(sorted(names), dtype=np.str_), named, orthologs).tolist()
