"""Names of genes, cells and datasets: how they are decoded, recognised and made unique."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
ENSEMBL_GENE = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?(_PAR_Y)?\Z")
BARCODE = re.compile(r"([A-Za-z0-9]+[_-])?[ACGT]{10,}([-_.][A-Za-z0-9]+)?\Z")
EXCEL_DATE = re.compile(r"\d{1,2}-(Mar|Sep|Sept|Dec|Feb|Oct|Apr|Nov)\Z", re.IGNORECASE)
GENOME_PREFIX = re.compile(r"(hg19|hg38|GRCh3[78]|mm9|mm10|mm39|GRCm3[89])_+")
COMMON_GENES = frozenset(["ACTB", "GAPDH", "B2M", "MALAT1", "EEF1A1", "RPLP0", "TMSB4X", "FTL", "UBC", "PPIA"])


def check_dataset_name(name: str) -> str:
    """Return the name of a dataset, which is safe as that of a folder.

    Raises
    ------
    InputError
        E110.
    """
    if not DATASET_NAME.match(name):
        msg = f"dataset name {shorten(name, 60)!r} is not a plain name"
        fix = "use up to 128 letters, digits, dots, dashes and underscores, starting with a letter or digit"
        raise InputError(msg, code="E110", fix=fix)
    return name


def decode_names(raw: Sequence[bytes | str], *, where: str, what: str) -> list[str]:
    """Decode names as UTF-8; E240 for other bytes, E241 for a NUL character."""
    names = []
    for row, value in enumerate(raw):
        try:
            name = value.decode("utf-8") if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError:
            msg = f"{what}: the name in row {row} is not UTF-8"
            raise InputError(msg, code="E240", where=where, fix="write the names as UTF-8") from None
        if "\0" in name:
            msg = f"{what}: the name in row {row} holds a NUL character"
            raise InputError(msg, code="E241", where=where, fix="correct the name")
        names.append(name)
    return names


def resolve_genes(
    names: list[str], ids: list[str], *, has_ids: bool, other_keys: Sequence[str], where: str
) -> tuple[NDArray[np.str_], NDArray[np.str_], list[str]]:
    """Make gene names unique without inventing any.

    Version suffixes of Ensembl identifiers are stripped. A name that occurs more than once is replaced by the gene's
    identifier, when the atlas file names a column of identifiers.

    Parameters
    ----------
    names, ids
        Name and identifier of each gene; equal where the input has no identifiers.
    has_ids
        Whether `ids` come from a column of their own.
    other_keys
        Columns with unique values, for advice.
    where
        File for messages.

    Returns
    -------
    tuple
        Names (G,), identifiers (G,) and warnings.

    Raises
    ------
    InputError
        E210 for names that stay ambiguous, E212 when versions of one identifier collide, E213 for two genomes.
    """
    warnings: list[str] = []
    names, stripped = _strip_versions(names)
    ids, _ = _strip_versions(ids)
    twice = _repeated(names)
    if stripped and twice:
        msg = f"{len(twice)} identifiers occur in several versions (first: {_few(twice)})"
        raise InputError(msg, code="E212", where=where, fix="keep one row per gene")
    if stripped:
        warnings.append(f"W209: version suffixes of {stripped} Ensembl identifiers were stripped")
    if twice and has_ids:
        replaced = set(twice)
        names = [gene_id if name in replaced else name for name, gene_id in zip(names, ids, strict=True)]
        warnings.append(f"W210: {len(replaced)} repeated gene names were replaced by identifiers: {_few(twice)}")
        twice = _repeated(names)
    if twice:
        key = f"set `gene_id_key: {other_keys[0]}`" if other_keys and not has_ids else "make the gene names unique"
        msg = f"{len(twice)} gene names occur more than once (first: {_few(twice)})"
        raise InputError(msg, code="E210", where=where, fix=key)
    warnings.extend(_oddities(names, where))
    return np.array(names, dtype=np.str_), np.array(ids, dtype=np.str_), warnings


def looks_transposed(genes: Sequence[str], cells: Sequence[str]) -> bool:
    """Return whether gene names look like cell barcodes, or cell names like genes."""
    for names, pattern in ((genes[:1000], BARCODE), (cells[:1000], ENSEMBL_GENE)):
        if sum(bool(pattern.match(name)) for name in names) > len(names) / 2:
            return True
    common_cells = COMMON_GENES.intersection(c.upper() for c in cells)
    return len(common_cells) >= 3 and not COMMON_GENES.intersection(g.upper() for g in genes)


def _strip_versions(names: list[str]) -> tuple[list[str], int]:
    result = [re.split(r"[._]", name, maxsplit=1)[0] if ENSEMBL_GENE.match(name) else name for name in names]
    return result, sum(a != b for a, b in zip(result, names, strict=True))


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _few(names: Sequence[str]) -> str:
    return ", ".join(shorten(name, 20) for name in names[:5])


def _oddities(names: list[str], where: str) -> list[str]:
    warnings = []
    genomes = sorted({match.group(1) for name in names if (match := GENOME_PREFIX.match(name))})
    if len(genomes) > 1:
        msg = f"genes of {len(genomes)} genomes in one matrix ({', '.join(genomes)})"
        raise InputError(msg, code="E213", where=where, fix="split the file by genome")
    if genomes:
        warnings.append(f"W213: gene names carry the prefix {genomes[0]}_ and will not match other datasets")
    dates = [name for name in names if EXCEL_DATE.match(name)]
    if dates:
        warnings.append(f"W211: {len(dates)} gene names look like dates made by a spreadsheet: {_few(dates)}")
    spaced = [name for name in names if name != name.strip()]
    if spaced:
        warnings.append(f"W212: {len(spaced)} gene names start or end with a space: {_few(spaced)}")
    return warnings
