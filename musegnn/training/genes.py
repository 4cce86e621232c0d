"""Which genes of different datasets are the same gene.

Within a species genes match by exact name; across species only through an ortholog table. Each gene gets a *key*,
``species:name``; genes with equal keys are the same gene.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from musegnn.aliases import species_name
from musegnn.errors import ConfigError
from musegnn.text import one_line, read_text, separator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OrthologTable:
    """One-to-one orthologs between species, in the order of the table's columns.

    ``keys`` maps gene name to key of the group by species: that of the group's gene in the first species which has one.
    ``n_ambiguous`` counts rows left out because one of their genes occurs in another row as well.
    """

    species: tuple[str, ...]
    keys: Mapping[str, Mapping[str, str]] = field(repr=False)
    n_ambiguous: int


def read_orthologs(path: Path) -> OrthologTable:
    """Read a table with one column of gene names per species, such as ``human,mouse,human_id,mouse_id``.

    Fields are separated by commas, semicolons or tabs; blank lines are skipped. Columns that end in ``_id`` hold
    identifiers and are not read. Empty fields mean that a species has no such gene.
    Rows that share a gene with another row are not one-to-one and are left out whole.

    Raises
    ------
    ConfigError
        E306 when there is no such file, it names fewer than two species, or a row has too few fields.
    """
    fix = "give a CSV with a header such as human,mouse and one gene name per field"
    try:
        text = read_text(path).lstrip()
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator(text.partition("\n")[0]))
        header, *rows = [(lines.line_num, row) for row in lines if any(field.strip() for field in row)]
    except (OSError, ValueError, csv.Error) as error:
        msg = f"the ortholog table cannot be read ({one_line(error)})"
        raise ConfigError(msg, code="E306", where=str(path), fix=fix) from None
    columns = [(i, species_name(name)) for i, name in enumerate(header[1]) if not name.strip().endswith("_id")]
    species = tuple(name for _, name in columns)
    if len(species) < 2 or len(set(species)) < len(species):
        msg = f"expected two or more species as columns, each once, got {', '.join(species) or 'none'}"
        raise ConfigError(msg, code="E306", where=str(path), fix=fix)
    groups: list[tuple[str, ...]] = []
    for line, row in rows:
        if len(row) < len(header[1]):
            msg = f"line {line} has {len(row)} fields, the header {len(header[1])}"
            raise ConfigError(msg, code="E306", where=str(path), fix=fix)
        groups.append(tuple(row[i].strip() for i, _ in columns))
    groups = [group for group in dict.fromkeys(groups) if sum(map(bool, group)) > 1]
    return _one_to_one(species, groups)


def check_orthologs(config: AtlasConfig) -> OrthologTable | None:
    """Read the ortholog table of an atlas, and check that it has the species of its datasets; ``None`` without one.

    Raises
    ------
    ConfigError
        E304 when a species is missing in the table, E306 when it cannot be read.
    """
    species = sorted({species_name(d.species) for d in config.datasets})
    if config.orthologs is None:
        if len(species) > 1:
            logger.warning("W304: %s share no genes without a table of orthologs (`orthologs:`)", ", ".join(species))
        return None
    orthologs = read_orthologs(config.orthologs)
    for name in species:
        if name not in orthologs.species:
            msg = f"species `{name}` is no column of the ortholog table, which has {', '.join(orthologs.species)}"
            raise ConfigError(msg, code="E304", where=str(config.orthologs), fix="spell `species` as in the table")
    return orthologs


def _one_to_one(species: tuple[str, ...], groups: list[tuple[str, ...]]) -> OrthologTable:
    counts = [Counter(group[s] for group in groups) for s in range(len(species))]
    keys: dict[str, dict[str, str]] = {name: {} for name in species}
    n_ambiguous = 0
    for group in groups:
        present = [s for s, gene in enumerate(group) if gene]
        if any(counts[s][group[s]] > 1 for s in present):
            n_ambiguous += 1
            continue
        key = f"{species[present[0]]}:{group[present[0]]}"
        for s in present:
            keys[species[s]][group[s]] = key
    return OrthologTable(species, keys, n_ambiguous)


def gene_keys(genes: NDArray[np.str_], species: str, orthologs: OrthologTable | None = None) -> NDArray[np.str_]:
    """Return the unique key of each gene: that of its ortholog group, else ``species:name``.

    Examples
    --------
    >>> gene_keys(np.array(["ACTB", "CD4"]), "human").tolist()
    ['human:ACTB', 'human:CD4']
    """
    table = orthologs.keys.get(species, {}) if orthologs is not None else {}
    return np.array([table.get(gene, f"{species}:{gene}") for gene in genes.tolist()], dtype=np.str_)
