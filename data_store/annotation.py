"""Genes near peaks: the places of genes from GTF, GFF or BED, and which peaks of scATAC-seq count towards which gene.

Legend: P peaks, G genes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from musegnn.data_store.formats.text_files import open_text
from musegnn.data_store.genes import PEAK, without_genome
from musegnn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from musegnn.data_store.location import Location

UPSTREAM = 2000
"""Bases before a gene, in its direction, whose peaks count towards it; that of Signac's gene activity."""
NAME = re.compile(rb'(?:gene_name|gene_symbol|[Nn]ame)[ =]"?([^";]+)')
IDENTIFIER = re.compile(rb'(?:gene_id|ID)[ =]"?(?:gene:)?([^";]+)')
FORM = "give a GTF, GFF or BED file of genes, such as genes.gtf.gz of Cell Ranger's reference"


@dataclass(frozen=True, slots=True)
class Annotation:
    """Places of G genes, upstream included: chromosome without ``chr``, first base from 0, base after the last."""

    name: list[str]
    gene_id: list[str]
    chromosome: NDArray[np.str_]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def read_annotation(location: Location) -> Annotation:
    """Read genes from GTF, GFF or BED, plain or gzip.

    Genes are the lines ``gene``; where there are none, the span of all lines of a ``gene_id``. A gene of BED without
    strand is taken as one of the forward strand.

    Raises
    ------
    InputError
        E230 when there is no such file, E236 when it holds no genes.
    """
    return _read(location, location.stamp())


@lru_cache(maxsize=4)
def _read(location: Location, stamp: tuple[int, str]) -> Annotation:
    del stamp  # a file that has changed is read again
    found = list(_genes_of(location, every_line=False)) or _spans(_genes_of(location, every_line=True))
    if not found:
        msg = "no line is a gene"
        raise InputError(msg, code="E236", where=location.where, fix=FORM)
    chromosome, start, stop, strand, name, gene_id = zip(*found, strict=True)
    forward = np.array([s != b"-" for s in strand])
    first, last = np.array(start, dtype=np.int64), np.array(stop, dtype=np.int64)
    return Annotation(
        name=[n.decode("utf-8", "replace") for n in name],
        gene_id=[i.decode("utf-8", "replace") for i in gene_id],
        chromosome=np.array([_plain(c.decode("utf-8", "replace")) for c in chromosome]),
        start=np.where(forward, first - UPSTREAM, first),
        stop=np.where(forward, last, last + UPSTREAM),
    )


Gene = tuple[bytes, int, int, bytes, bytes, bytes]


def _genes_of(location: Location, *, every_line: bool) -> Iterator[Gene]:
    """Yield chromosome, start, stop, strand, name and identifier of the genes, or of all lines with an identifier."""
    with open_text(location) as file:
        for line in file:
            if line[:1] == b"#":
                continue
            fields = line.rstrip(b"\r\n").split(b"\t", 8)
            if len(fields) == 9 and fields[3].isdigit() and fields[4].isdigit():
                if every_line or fields[2] == b"gene":
                    gene_id = IDENTIFIER.search(fields[8])
                    name = NAME.search(fields[8]) or gene_id
                    if name is not None and gene_id is not None:
                        place = fields[0], int(fields[3]) - 1, int(fields[4]), fields[6]
                        yield (*place, name[1].strip(), gene_id[1].strip())
            elif not every_line and len(fields) >= 4 and fields[1].isdigit() and fields[2].isdigit():
                strand = fields[5] if len(fields) > 5 else b"."
                yield fields[0], int(fields[1]), int(fields[2]), strand, fields[3], fields[3]


def _spans(lines: Iterator[Gene]) -> list[Gene]:
    spans: dict[tuple[bytes, bytes], Gene] = {}
    for chromosome, start, stop, strand, name, gene_id in lines:
        _, first, last, *_ = spans.get((chromosome, gene_id), (chromosome, start, stop, strand, name, gene_id))
        spans[chromosome, gene_id] = (chromosome, min(first, start), max(last, stop), strand, name, gene_id)
    return list(spans.values())


def _plain(chromosome: str) -> str:
    plain = re.sub(r"^chr", "", chromosome, flags=re.IGNORECASE)
    return "MT" if plain == "M" else plain


def genes_near_peaks(peaks: Sequence[str], genes: Annotation, where: str) -> sp.csr_matrix:
    """Return which peaks overlap which genes or the 2000 bases before them.

    Parameters
    ----------
    peaks
        Names of P peaks, such as ``chr1:1000-1500`` or ``chr1-1000-1500``: first base, and the base after the last.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape (P, G), int32, one where they overlap.

    Raises
    ------
    InputError
        E236 when no peak is near a gene.
    """
    matches = [PEAK.fullmatch(without_genome(peak)) for peak in peaks]
    places = [(_plain(m[0][: m.start(1) - 1]), int(m[1]), int(m[2])) for m in matches if m is not None]
    chromosome = np.array([place[0] for place in places])
    start, stop = (np.array([place[i] for place in places], dtype=np.int64) for i in (1, 2))
    rows, columns = [], []
    for name in np.unique(chromosome):
        mine, theirs = np.flatnonzero(chromosome == name), np.flatnonzero(genes.chromosome == name)
        theirs = theirs[np.argsort(genes.start[theirs], kind="stable")]
        if len(theirs) == 0:
            continue
        # Genes that begin before a peak ends, from the first on whose like any before ends after the peak begins.
        after = np.searchsorted(genes.start[theirs], stop[mine], side="left")
        before = np.searchsorted(np.maximum.accumulate(genes.stop[theirs]), start[mine], side="right")
        n = np.maximum(after - before, 0)
        peak = np.repeat(mine, n)
        gene = theirs[np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(before, n)]
        near = genes.stop[gene] > start[peak]
        rows.append(peak[near])
        columns.append(gene[near])
    if sum(map(len, rows)) == 0:
        ours, others = sorted(set(chromosome.tolist()))[:3], sorted(set(genes.chromosome.tolist()))[:3]
        msg = f"no peak is near a gene of the annotation (chromosomes: {', '.join(ours)}; {', '.join(others)})"
        raise InputError(msg, code="E236", where=where, fix="give the annotation of the genome of the peaks")
    place = np.concatenate(rows), np.concatenate(columns)
    shape = (len(places), len(genes.name))
    return sp.csr_matrix((np.ones(len(place[0]), dtype=np.int32), place), shape=shape)
