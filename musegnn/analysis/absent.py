"""Why a gene has no vector: what the input files of a run have of it, and which setting would bring it in."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from musegnn.coexpression.scan import mitochondrial_genes
from musegnn.data_store import Store
from musegnn.datasets import open_counts
from musegnn.errors import MuseGNNError
from musegnn.text import some_of
from musegnn.training.genes import gene_keys, read_orthologs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig
    from musegnn.data_store.readers import FileSource
    from musegnn.run_folder import RunFolder

COUNTED_ENTRIES = 30_000_000  # stored counts of a file that are read to count the cells of one gene, about a second
BLOCK_CELLS = 16384
N_CLOSE = 5

Reason = Literal["unread", "not in file", "mitochondrial", "few cells", "not selected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Why one dataset has no vector of a gene.

    Attributes
    ----------
    reason
        ``unread``: its file is not where the run read it, or cannot be read; ``not in file``; ``mitochondrial``: left
        out by name; ``few cells``: detected in fewer than ``graph.min_cells``; ``not selected``.
    detail
        Numbers behind the reason, for people; may be empty.
    """

    dataset: str
    reason: Reason
    detail: str = ""


def explain_absence(gene: str, run: RunFolder, *, dataset: str | None = None) -> tuple[str, str]:
    """Return why a run, or one of its datasets, has no vector of a gene, and what would bring it in (may be empty).

    Names are read from the heads of the input files; of files that are not large, the counts of the gene as well.
    `gene` is a name, identifier or key.
    """
    atlas = run.atlas()
    names: set[str] = set()
    found = _absences(gene, atlas, [d for d in atlas.datasets if dataset in (None, d.name)], names)
    by = {reason: [a for a in found if a.reason == reason] for reason in get_args(Reason)}
    parts: list[tuple[str, str]] = []
    if by["not selected"]:
        parts.append(_not_selected(by["not selected"], run, atlas.graph))
    if by["few cells"]:
        text = f"detected in fewer than {atlas.graph.min_cells} cells in {_list(by['few cells'])}"
        parts.append((text, "lower graph.min_cells"))
    if by["mitochondrial"]:
        text = f"left out as mitochondrial in {_list(by['mitochondrial'])}"
        parts.append((text, "set graph.drop_mitochondrial: false"))
    if not parts and by["not in file"]:
        n = len(by["not in file"])
        close = close_names(gene, names) if dataset is None else []
        text = f"in none of the {n} input files that could be read" if dataset is None else "not in its input file"
        parts.append((text, f"try {', '.join(close)}" if close else ""))
    if by["unread"]:
        parts.append((f"unknown for {_list(by['unread'])}: the input file is gone or cannot be read", ""))
    return "; ".join(text for text, _ in parts), " or ".join(remedy for _, remedy in parts if remedy)


def close_names(gene: str, names: Iterable[str]) -> list[str]:
    """Return the few names most like the name of a gene, without regard to case; those that begin with it come first.

    Examples
    --------
    >>> close_names("cd3", ["CD3E", "CDH3", "GFAP", "CD3D"])
    ['CD3D', 'CD3E', 'CDH3']
    """
    folded = {name.casefold(): name for name in sorted(names)}
    begin = sorted((n for n in folded if n.startswith(gene.casefold())), key=lambda n: (len(n), n))
    like = difflib.get_close_matches(gene.casefold(), list(folded), n=N_CLOSE)
    return [folded[n] for n in list(dict.fromkeys([*begin, *like]))[:N_CLOSE]]


def _absences(gene: str, atlas: AtlasConfig, chosen: Collection[DatasetConfig], names: set[str]) -> list[Absence]:
    """Return why each dataset lacks the gene, and add the names of all readable files to `names`."""
    orthologs = None if atlas.orthologs is None else read_orthologs(atlas.orthologs)
    opened: dict[tuple[Path | str, str | None, str | None, str | None], FileSource | None] = {}
    found = []
    for dataset in chosen:
        which = (dataset.path, dataset.layer, dataset.gene_id_key, dataset.gene_name_key)
        if which not in opened:
            try:
                opened[which] = open_counts(dataset)
            except (MuseGNNError, OSError):
                opened[which] = None
        source = opened[which]
        if source is None:
            found.append(Absence(dataset=dataset.name, reason="unread"))
            continue
        names.update(source.gene.tolist())
        keys = gene_keys(source.gene, dataset.species, orthologs)
        place = _find(gene, source.gene, source.gene_id, keys)
        found.append(
            Absence(dataset=dataset.name, reason="not in file")
            if place is None
            else _judge(dataset, atlas.graph, source, place)
        )
    return found


def _find(gene: str, *columns: np.ndarray) -> int | None:
    tests: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        lambda names: names == gene,
        lambda names: np.char.lower(names) == gene.lower(),
    )
    for test in tests:
        for names in columns:
            at = np.flatnonzero(test(names))
            if len(at):
                return int(at[0])
    return None


def _judge(dataset: DatasetConfig, graph: GraphConfig, source: FileSource, place: int) -> Absence:
    if graph.drop_mitochondrial and mitochondrial_genes(source, graph)[place]:
        return Absence(dataset=dataset.name, reason="mitochondrial", detail=str(source.gene[place]))
    entries = source.n_entries if source.n_entries is not None else source.n_cells * source.n_genes
    if dataset.stratum is not None or entries > COUNTED_ENTRIES:
        return Absence(dataset=dataset.name, reason="not selected")
    cells = sum(int((block.indices == place).sum()) for _, block in source.blocks(BLOCK_CELLS, validate=False))
    reason: Reason = "few cells" if cells < graph.min_cells else "not selected"
    return Absence(dataset=dataset.name, reason=reason, detail=f"{cells} of {source.n_cells} cells")


def _not_selected(found: Collection[Absence], run: RunFolder, graph: GraphConfig) -> tuple[str, str]:
    where = f"in the input of {_list(found)}"
    if graph.selection == "list":
        return f"{where}, but not in the list graph.genes", "add it to graph.genes"
    if graph.selection == "all":
        return f"{where}, but not among the genes that were kept", "lower graph.min_cells"
    kept = [n for a in found if (n := _genes_kept(run, a.dataset)) is not None]
    many = sorted({f"{min(kept)}", f"{max(kept)}"}, key=int) if kept else []
    of = f" (of {' to '.join(many)})" if many else ""
    text = f"{where}, but not among the {graph.n_genes} genes{of} that were selected there"
    return text, "raise graph.n_genes, or list the genes wanted (graph: {selection: list, genes: FILE})"


def _genes_kept(run: RunFolder, dataset: str) -> int | None:
    """Return how many genes of a dataset passed quality control; None where the store is not there."""
    try:
        return int(Store.open(run.store_path()).report(dataset)["genes_kept"])
    except (MuseGNNError, OSError, KeyError):
        return None


def _list(found: Collection[Absence]) -> str:
    return some_of([f"{a.dataset} ({a.detail})" if a.detail else a.dataset for a in found])
