"""What the columns of a matrix are: genes, of which some are mitochondrial or ribosomal, and other features.

Names are recognised in the spellings of common pipelines: with the prefix of a genome, in any case, and with the dashes
that R turns into dots. Identifiers of mitochondrial and ribosomal genes of human and mouse are in ``genes.tsv``.

Legend: G columns of a matrix.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.text import shorten, some_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

GENOME_PREFIX = re.compile(
    r"(hg1[89]|hg38|GRCh3[678]|mm8|mm9|mm10|mm39|GRCm3[89]|rn[567]|mRatBN7|GRCz1[01]|T2T|CHM13)"
    r"(?:[-_.]premrna)?[-_.:]+(?=\S)",
    re.IGNORECASE,
)
MITOCHONDRIAL = re.compile(r"mt[-.:_](?=[a-z])", re.IGNORECASE)
BARE_MITOCHONDRIAL = frozenset(
    ["ND1", "ND2", "ND3", "ND4", "ND4L", "ND5", "ND6", "COX1", "COX2", "COX3", "ATP6", "ATP8", "CYTB"]
)
FEWEST_BARE = 6
"""Names without prefix, as in RefSeq, that have to be there together before they count as mitochondrial."""
RIBOSOMAL = re.compile(
    r"RP(?:LP[012]|L(?:3L|7A|7L1|10A|10L|13A|18A|22L1|23A|26L1|27A|35A|36A|36AL|37A|39L|[1-9]\d?)"
    r"|S(?:A|3A1?|4X|4Y[12]|15A|27A|27L|[1-9]\d?))",
    re.IGNORECASE,
)
CONTROL = re.compile(
    r"(?:neg(?:ative)?[-_. ]?(?:control|ctrl|prb|probe)"  # Xenium, CosMx, GeoMx
    r"|(?:unassigned|deprecated)[-_. ]?codeword|genomic[-_. ]?control|intergenic[-_. ]region|deprecated[-_.]"
    r"|antisense[-_.]|blank[-_. ]?(?:codeword|\d|$)|system[-_. ]?control|false[-_. ]?code|negative[-_. ]?\d"
    r"|(?:spike[-_. ]?in[-_. ]?)?ERCC[-_.]\d{5}|SIRV\d|SIRVome"  # spike-ins
    r"|N_(?:unmapped|multimapping|noFeature|ambiguous)$"  # sums of STAR and HTSeq
    r"|__(?:no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique)$)",
    re.IGNORECASE,
)
TAG = re.compile(
    r"(?:ADT|HTO|CITE|CMO|sgRNA|gRNA)[-_.:]|(?:CMO|HTO)\d+$|hashtag|.*[-_.]TotalSeq[-_.]?[ABCD]?$", re.IGNORECASE
)
PEAK = re.compile(r"(?:chr[\w.]*?|\d{1,2}|X|Y|MT?|(?:GL|KI|JH)\d+(?:[.v]\d)?)[-:_.](\d+)[-_.](\d+)", re.IGNORECASE)

KIND_COLUMNS = frozenset(
    "featuretypes featuretype modality modalities assay featurebiotype librarytype omic kind".split()  # noqa: SIM905
)
"""Columns that may hold the kind of a feature, in small letters without separators."""
GENE_KIND = re.compile(r"genes?|geneexpression|expression|gex|m?rna(?:seq)?|s[cn]rna(?:seq)?|transcript(?:s|ome)")
OTHER_KIND = re.compile(
    r"antibod|adt|prot|cite|abseq|crispr|guide|[sg]grna|grna|hto|hash|multiplex|cmo|peak|atac|chromatin|custom|antigen"
    r"|spikein|control|barcode|vdj|tcr|bcr"
)
SYMBOL_COLUMNS = frozenset(
    "featurename genename genenames genesymbol genesymbols symbol symbols hgncsymbol mgisymbol geneshortname "  # noqa: SIM905
    "originalgenesymbols externalgenename name".split()
)
"""Columns that may hold the symbols of genes, in small letters without separators."""
MARK_COLUMNS = frozenset(["mt", "mito", "mitochondrial", "ismito", "ismitochondrial"])
CHROMOSOME_COLUMNS = frozenset(["chromosome", "chromosomename", "chrom", "chr", "seqname", "seqnames", "contig"])
MITOCHONDRIAL_CHROMOSOMES = frozenset(["mt", "m", "chrm", "chrmt", "mitochondrion"])


def plain(text: str) -> str:
    """Return a text in small letters and digits alone, so that spellings of a column or kind are equal.

    Examples
    --------
    >>> plain("Gene_Expression")
    'geneexpression'
    """
    return "".join(c for c in text.lower() if c.isalnum())


@cache
def known_identifiers() -> dict[str, frozenset[str]]:
    """Return the identifiers of ``genes.tsv`` by kind: ``mitochondrial`` and ``ribosomal``."""
    lines = files("musegnn.data_store").joinpath("genes.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")][1:]
    return {kind: frozenset(row[1] for row in rows if row[0] == kind) for kind in {row[0] for row in rows}}


def without_genome(name: str) -> str:
    """Return a name without the prefix of a genome.

    Examples
    --------
    >>> without_genome("GRCh38___MT-ND1"), without_genome("hg19-X"), without_genome("MM1")
    ('MT-ND1', 'X', 'MM1')
    """
    match = GENOME_PREFIX.match(name)
    return name[match.end() :] if match else name


def mark_mitochondrial(*columns: Sequence[str]) -> NDArray[np.bool_]:
    """Mark the mitochondrial genes, shape (G,), by what any of the columns of names or identifiers says."""
    found = np.zeros(len(columns[0]), dtype=np.bool_)
    known = known_identifiers()["mitochondrial"]
    for k, names in enumerate(columns):
        if names in columns[:k]:
            continue
        bare = [without_genome(name) for name in names]
        marked = [bool(MITOCHONDRIAL.match(name)) or _identifier(name) in known for name in bare]
        found |= np.array(marked, dtype=np.bool_)
        if len(BARE_MITOCHONDRIAL.intersection(bare)) >= FEWEST_BARE:
            found |= np.array([name in BARE_MITOCHONDRIAL for name in bare], dtype=np.bool_)
    return found


def mark_ribosomal(*columns: Sequence[str]) -> NDArray[np.bool_]:
    """Mark the genes of ribosomal proteins, shape (G,), by what any of the columns of names or identifiers says."""
    known = known_identifiers()["ribosomal"]
    found = np.zeros(len(columns[0]), dtype=np.bool_)
    for names in columns:
        bare = [without_genome(name) for name in names]
        marked = [bool(RIBOSOMAL.fullmatch(name)) or _identifier(name) in known for name in bare]
        found |= np.array(marked, dtype=np.bool_)
    return found


def _identifier(name: str) -> str:
    return re.split(r"[._-]", name, maxsplit=1)[0]


def on_mitochondrial_chromosome(chromosomes: Iterable[str]) -> NDArray[np.bool_]:
    """Mark the genes whose chromosome is that of mitochondria, shape (G,)."""
    return np.array([name.strip().lower() in MITOCHONDRIAL_CHROMOSOMES for name in chromosomes], dtype=np.bool_)


def mark_peaks(names: Sequence[str]) -> NDArray[np.bool_]:
    """Mark the names that are places of a genome, such as ``chr1:1000-1500``, shape (G,)."""
    matches = [PEAK.fullmatch(without_genome(name)) for name in names]
    return np.array([match is not None and int(match[1]) < int(match[2]) for match in matches], dtype=np.bool_)


def mark_genes(kinds: Sequence[str]) -> NDArray[np.bool_] | None:
    """Mark the columns that are genes by their kinds, shape (G,); ``None`` where `kinds` do not tell genes from others.

    Kinds are those of any pipeline: ``Gene Expression`` and ``Antibody Capture``, ``GEX`` and ``ADT``, ``rna`` and
    ``protein``.
    """
    known = {kind: plain(kind) for kind in set(kinds)}
    genes = {kind for kind, text in known.items() if GENE_KIND.fullmatch(text)}
    if not genes:
        # Matrices of tags or guides alone are no genes; those of peaks are known by their names.
        others = {kind for kind, text in known.items() if OTHER_KIND.search(text) and "peak" not in text}
        others -= {kind for kind, text in known.items() if "atac" in text or "chromatin" in text or "coding" in text}
        return np.zeros(len(kinds), dtype=np.bool_) if others == set(kinds) and others else None
    return np.array([kind in genes for kind in kinds], dtype=np.bool_)


def mark_features(names: Sequence[str], kinds: Sequence[str] | None) -> tuple[NDArray[np.bool_], list[str]]:
    """Mark the columns that are genes, and describe the others.

    Parameters
    ----------
    names
        Names of the columns.
    kinds
        Kinds of the columns by the file, where it tells genes from other features.

    Returns
    -------
    tuple of numpy.ndarray and list of str
        Columns to use, shape (G,), and a warning ``W218: ...`` per kind of feature that is left out.
    """
    used = np.ones(len(names), dtype=np.bool_)
    warnings = []
    by_kind = None if kinds is None else mark_genes(kinds)
    if kinds is not None and by_kind is not None and not by_kind.all():
        used &= by_kind
        counted = Counter(kind for kind, gene in zip(kinds, by_kind, strict=True) if not gene)
        listed = some_of([shorten(kind, 24) or "no kind" for kind in sorted(counted)])
        warnings.append(_left_out(int((~by_kind).sum()), listed))
    patterns = {"controls": CONTROL, "tags": TAG}
    for what, pattern in patterns.items():
        marked = used & np.array([bool(pattern.match(name)) for name in names], dtype=np.bool_)
        if marked.any():
            used &= ~marked
            first = shorten(names[int(np.flatnonzero(marked)[0])], 30)
            warnings.append(_left_out(int(marked.sum()), f"{what}, as {first}"))
    peaks = used & mark_peaks(names)
    if peaks.any() and not (peaks | ~used).all():
        used &= ~peaks
        first = shorten(names[int(np.flatnonzero(peaks)[0])], 30)
        warnings.append(_left_out(int(peaks.sum()), f"peaks, as {first}"))
    return used, warnings


def _left_out(count: int, what: str) -> str:
    return f"W218: {count} columns that are not genes were left out ({what})"


def is_row_numbers(names: Sequence[str]) -> bool:
    """Return whether names are the numbers of rows, as a table without names gives, rather than Entrez identifiers."""
    if not names or not all(name.isascii() and name.isdigit() for name in names):
        return False
    numbers = [int(name) for name in names]
    ascending = all(a < b for a, b in pairwise(numbers))
    return max(numbers) < (20 if ascending else 4) * len(names) + 1


def truth(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the truth values in a column, in any encoding: 1 or 0, and NaN where missing or of no known meaning.

    Examples
    --------
    >>> truth(np.array(["True", "0", "1.0", ""])).tolist()
    [1.0, 0.0, 1.0, nan]
    """
    if values.dtype.kind == "f":
        return np.where(np.isin(values, (0.0, 1.0)), values, np.nan)
    yes, no = {"true", "t", "yes", "y", "1", "1.0", "in"}, {"false", "f", "no", "n", "0", "0.0", "out"}
    words, codes = np.unique(np.char.lower(np.char.strip(values)), return_inverse=True)
    meaning = [1.0 if word in yes else 0.0 if word in no else np.nan for word in words.tolist()]
    result: NDArray[np.float64] = np.array(meaning, dtype=np.float64)[codes]
    return result
