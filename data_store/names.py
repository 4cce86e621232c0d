"""Names of genes, cells and datasets: how they are decoded, recognised and made unique."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, cast

import numpy as np

from musegnn.data_store.genes import (
    GENOME_PREFIX,
    is_row_numbers,
    mark_features,
    mark_mitochondrial,
    mark_peaks,
    without_genome,
)
from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
ENSEMBL_GENE = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?(_PAR_Y)?\Z")
BARCODE = re.compile(r"([A-Za-z0-9]+[_-])?[ACGT]{10,}([-_.][A-Za-z0-9]+)?\Z")
EXCEL_DATE = re.compile(r"\d{1,2}-(Mar|Sep|Sept|Dec|Feb|Oct|Apr|Nov)\Z", re.IGNORECASE)
PAR_COPY = re.compile(r"(.+)[-_.]PAR[-_.]Y", re.IGNORECASE)
OLD_PAR_COPY = re.compile(r"ENSGR(\d{10}(?:\.\d+)?)")
SYMBOL_THEN_ID = re.compile(r"(.*[^-_|:;.])[-_|:;.]+(ENS[A-Z]*G\d{11})(?:[._]\d+)?")
ID_THEN_SYMBOL = re.compile(r"(ENS[A-Z]*G\d{11})(?:\.\d+)?[-_|:;]+(?!PAR[-_]Y\Z)(.+)")
MOST = 0.9
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
    with suppress(TypeError, UnicodeDecodeError):  # of both types, or bytes that are looked for one by one below
        whole = b"\0".join(cast("Sequence[bytes]", raw)).decode("utf-8") if raw and isinstance(raw[0], bytes) else ""
        names = (whole or "\0".join(cast("Sequence[str]", raw))).split("\0")
        if len(names) == len(raw):
            return names
    try:
        names = [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in raw]
    except UnicodeDecodeError:
        row = next(i for i, value in enumerate(raw) if isinstance(value, bytes) and not _is_utf8(value))
        msg = f"{what}: the name in row {row} is not UTF-8"
        raise InputError(msg, code="E240", where=where, fix="write the names as UTF-8") from None
    if "\0" in "".join(names):
        row = next(i for i, name in enumerate(names) if "\0" in name)
        msg = f"{what}: the name in row {row} holds a NUL character"
        raise InputError(msg, code="E241", where=where, fix="correct the name")
    return names


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def use_columns(
    names: list[str], kinds: Sequence[str] | None, where: str, warnings: list[str]
) -> NDArray[np.intp] | None:
    """Return the columns that have a name and are genes, by their names and kinds; ``None``: all.

    What is left out is added to `warnings`; E218 where nothing is left.
    """
    used = np.array([bool(name) for name in names], dtype=np.bool_)
    if not used.all():
        first = int(np.flatnonzero(~used)[0])
        warnings.append(f"W241: {(~used).sum()} columns without a gene name were left out (first: column {first})")
    genes, left_out = mark_features(names, kinds)
    if len(genes) and not genes.any():
        msg = f"none of the {len(names)} columns is a gene ({left_out[0].partition('(')[2]}"
        raise InputError(msg, code="E218", where=where, fix="give a file with gene expression")
    warnings += left_out
    used &= genes
    return None if used.all() else np.flatnonzero(used)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneNames:
    """Result of :func:`resolve_genes`.

    Attributes
    ----------
    gene, gene_id
        Unique names and identifiers, shape (G,).
    mitochondrial
        Genes of mitochondria, shape (G,), bool.
    place
        Number of the gene of each column, shape (columns,), intp; ``None`` where each is a gene of its own.
    digest
        sha256 of what was recognised, for the identity of a build; ``None`` where every named column is a gene and
        those of mitochondria are called ``MT-``, as in builds by programs that knew no more.
    warnings
        Lines ``W###: ...``.
    """

    gene: NDArray[np.str_]
    gene_id: NDArray[np.str_]
    mitochondrial: NDArray[np.bool_]
    place: NDArray[np.intp] | None
    digest: str | None
    warnings: list[str]


def resolve_genes(
    names: list[str],
    ids: list[str],
    *,
    has_ids: bool,
    other_keys: Sequence[str],
    where: str,
    marked: NDArray[np.bool_] | None = None,
) -> GeneNames:
    """Make gene names unique without inventing any.

    The prefix of a genome and version suffixes of Ensembl identifiers are removed, and names that join a symbol and an
    identifier are split. The copies that GENCODE lists for the pseudoautosomal region of Y (``_PAR_Y``) belong to their
    gene. A name that occurs more than once is replaced by the gene's identifier, when the atlas file names a column of
    identifiers; names that are numbers of rows are all replaced.

    Parameters
    ----------
    names, ids
        Name and identifier of each column; equal where the input has no identifiers.
    has_ids
        Whether `ids` come from a column of their own.
    other_keys
        Columns with unique values, for advice.
    where
        File for messages.
    marked
        Columns that the input says to be mitochondrial genes, besides those with names of such, shape (columns,).

    Raises
    ------
    InputError
        E210 for names that stay ambiguous, E212 when versions of one identifier collide, E213 for two genomes, E218
        for peaks, E219 for numbers of rows.
    """
    warnings: list[str] = []
    _check_kind_of_names(names, warnings, has_ids=has_ids, other_keys=other_keys, where=where)
    names, ids, has_ids = _split_joined(names, ids, warnings, has_ids=has_ids)
    names, ids = _strip_genomes(names, where, warnings), [without_genome(gene_id) for gene_id in ids]
    numbered = has_ids and is_row_numbers(names)
    if numbered:
        warnings.append(f"W210: {len(names)} gene names are numbers of rows and were replaced by identifiers")
        names = ids
    names, copies, stripped = _strip_versions(names)
    ids, copied_ids, _ = _strip_versions(ids)
    place = _places_of_copies(names, ids, copies | copied_ids if has_ids else copies, warnings)
    mitochondrial = mark_mitochondrial(names, ids)
    if marked is not None:
        mitochondrial |= marked
    if place is not None:
        first = np.unique(place, return_index=True)[1]
        names, ids = [names[i] for i in first], [ids[i] for i in first]
        mitochondrial = mitochondrial[first]
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
    gene, digest = np.array(names, dtype=np.str_), None
    recognised = numbered or not {w[:4] for w in warnings} <= {"W209", "W210", "W221"}
    if recognised or not np.array_equal(mitochondrial, np.char.startswith(np.char.upper(gene), "MT-")):
        parts = [mitochondrial, *([] if place is None else [place.astype("<i8")])]
        digest = hashlib.sha256("\n".join(names).encode() + b"".join(part.tobytes() for part in parts)).hexdigest()
    warnings.extend(_oddities(names))
    return GeneNames(
        gene=gene,
        gene_id=np.array(ids, dtype=np.str_),
        mitochondrial=mitochondrial,
        place=place,
        digest=digest,
        warnings=warnings,
    )


def _check_kind_of_names(
    names: list[str], warnings: list[str], *, has_ids: bool, other_keys: Sequence[str], where: str
) -> None:
    """Refuse names that are places of the genome, or numbers of rows where there are better ones."""
    peaks = mark_peaks(names)
    if len(names) and peaks.mean() > MOST:
        msg = f"{peaks.sum()} of {len(names)} columns are peaks, such as {shorten(names[int(peaks.argmax())], 40)}"
        raise InputError(
            msg,
            code="E218",
            where=where,
            fix="set `annotation: genes.gtf`, or give gene activities",
        )
    if not has_ids and is_row_numbers(names):
        msg = f"the gene names are numbers of rows ({names[0]}, ..., {names[-1]}), another gene in another file"
        if other_keys:
            raise InputError(msg, code="E219", where=where, fix=f"set `gene_id_key: {other_keys[0]}`")
        warnings.append(f"W221: {msg}")


def _split_joined(
    names: list[str], ids: list[str], warnings: list[str], *, has_ids: bool
) -> tuple[list[str], list[str], bool]:
    """Split names such as ``TP53_ENSG00000141510``, where most are of this form."""
    parts = [_symbol_and_id(name) for name in names]
    joined = sum(part is not None for part in parts)
    if joined == 0 or joined <= MOST * len(names):
        return names, ids, has_ids
    warnings.append(f"W216: {joined} names that join a symbol and an identifier were split (first: {_few(names[:1])})")
    symbols = [part[0] if part else name for part, name in zip(parts, names, strict=True)]
    if not has_ids:
        ids = [part[1] if part else name for part, name in zip(parts, names, strict=True)]
    return symbols, ids, True


def _symbol_and_id(name: str) -> tuple[str, str] | None:
    if match := SYMBOL_THEN_ID.fullmatch(name):
        return match[1], match[2]
    if match := ID_THEN_SYMBOL.fullmatch(name):
        return match[2], match[1]
    return None


def _strip_genomes(names: list[str], where: str, warnings: list[str]) -> list[str]:
    found = Counter(match[1] for name in names if (match := GENOME_PREFIX.match(name)))
    genomes = {genome.lower(): genome for genome in found}
    if len(genomes) > 1:
        msg = f"genes of {len(genomes)} genomes in one matrix ({', '.join(sorted(genomes.values()))})"
        raise InputError(msg, code="E213", where=where, fix="split the file by genome")
    if not genomes:
        return names
    first = next(name for name in names if GENOME_PREFIX.match(name))
    warnings.append(
        f"W213: the prefix of the genome was removed from {found.total()} gene names (first: {_few([first])})"
    )
    return [without_genome(name) for name in names]


def _places_of_copies(
    names: list[str], ids: list[str], copies: NDArray[np.bool_], warnings: list[str]
) -> NDArray[np.intp] | None:
    """Return the number of the gene of each column where copies belong to another column, else ``None``."""
    if not copies.any():
        return None
    of_name = {name: i for i, name in reversed(list(enumerate(names))) if not copies[i]}
    of_id = {gene_id: i for i, gene_id in reversed(list(enumerate(ids))) if not copies[i]}
    owner = np.arange(len(names))
    for i in np.flatnonzero(copies).tolist():
        owner[i] = of_name.setdefault(names[i], of_id.get(ids[i], i))
    merged = int((owner != np.arange(len(names))).sum())
    if merged == 0:
        return None
    warnings.append(f"W208: the counts of {merged} copies of genes on Y (PAR_Y) were added to those of their genes")
    numbers: NDArray[np.intp] = np.unique(owner, return_inverse=True)[1]
    return numbers


def looks_transposed(genes: Sequence[str], cells: Sequence[str]) -> bool:
    """Return whether gene names look like cell barcodes, or cell names like genes."""
    for names, pattern in ((genes[:1000], BARCODE), (cells[:1000], ENSEMBL_GENE)):
        if sum(bool(pattern.match(name)) for name in names) > len(names) / 2:
            return True
    longest = max(map(len, COMMON_GENES))
    short = compress(cells, map(longest.__ge__, map(len, cells)))
    common_cells = COMMON_GENES.intersection(map(str.upper, short))
    return len(common_cells) >= 3 and not COMMON_GENES.intersection(g.upper() for g in genes)


def _strip_versions(names: list[str]) -> tuple[list[str], NDArray[np.bool_], int]:
    """Return names without versions and marks of copies, the copies as a mask, and the number of versions."""
    bare = [
        m[1] if (m := PAR_COPY.fullmatch(n)) else f"ENSG0{m[1]}" if (m := OLD_PAR_COPY.fullmatch(n)) else n
        for n in names
    ]
    copies = np.array([a != b for a, b in zip(bare, names, strict=True)], dtype=np.bool_)
    result = [name.partition(".")[0] if ENSEMBL_GENE.match(name) else name for name in bare]
    return result, copies, sum(a != b for a, b in zip(result, bare, strict=True))


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _few(names: Sequence[str]) -> str:
    return ", ".join(shorten(name, 20) for name in names[:5])


def _oddities(names: list[str]) -> list[str]:
    warnings = []
    dates = [name for name in names if EXCEL_DATE.match(name)]
    if dates:
        warnings.append(f"W211: {len(dates)} gene names look like dates made by a spreadsheet: {_few(dates)}")
    spaced = [name for name in names if name != name.strip()]
    if spaced:
        warnings.append(f"W212: {len(spaced)} gene names start or end with a space: {_few(spaced)}")
    return warnings
