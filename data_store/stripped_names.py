"""Gene names that lost their first letters because a program stripped the characters of a genome, not its prefix.

``name.lstrip("GRCh38_")`` takes away any of the characters G, R, C, h, 3, 8 and _ in front: ``GRCh38_COL1A1`` becomes
``OL1A1``. Such names are recognised by two signs together: hardly a name begins with one of these characters, and some
are what is left of genes that most tissues express.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from musegnn.text import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

GENOMES = """
GRCh38 GRCh37 GRCh36 GRCm38 GRCm39 GRCm37 mm10 mm39 mm9 hg38 hg19 hg18 mRatBN7.2 Rnor_6.0 rn6 rn7 GRCz11
T2T-CHM13 CHM13 T2T
""".split()  # noqa: SIM905
COMMON = """
RPL3 RPL4 RPL5 RPL7 RPL8 RPL10 RPL11 RPL13 RPL18 RPL19 RPL28 RPL32 RPS3 RPS6 RPS8 RPS14 RPS18 RPS20 RPS27 RHOA GAPDH
GNAS GNB1 GPX1 GPX4 GSTP1 GLUL GOLGA4 CD74 CD63 CD81 CD3D CD3E CD79A COL1A1 COL1A2 COL3A1 CALM1 CALM2 CALR CFL1 CTSB
CTSD CXCR4 COX4I1 COX6C HLA-A HLA-B HLA-DRA HSPA8 HSP90AB1 HNRNPA1 HMGB1 HINT1 MT-ND1 MT-ND2 MT-ND4 MT-ND5 MT-CO1
MT-CO2 MT-CO3 MT-CYB MT-CYTB MT-ATP6 MALAT1 MYL6 TMSB4X TMSB10 TPT1 TUBA1B TAGLN2 BTF3 BTG1 NACA NPM1 NDUFA4 NDUFB2
NFKBIA
""".split()  # noqa: SIM905
"""Genes that most tissues express, of those whose names begin with a letter of a genome."""
SEPARATORS = "-_.:"
MOST_BEGINNING = 0.01
FEWEST_LOST = 3
FAMILIES = tuple(
    (letter, re.compile(pattern))
    for letter, pattern in (
        ("C", r"\d{1,2}orf\d+"),
        ("R", r"P\d{1,2}-\d+[A-Z]+\d+\.\d+"),
        ("C", r"(?:ACNA|APN|ASP|DC|DH|DK|FAP|LDN|LEC|NOT|OL|OMMD|OQ|OX|YP)\d\w*"),
        ("G", r"(?:ALNT|BP|NG|OLGA|PR|TF)\d\w*"),
        ("R", r"(?:ANBP|ASSF|BM|PL|PS)\d\w*"),
        ("C", r"(?:acna|apn|asp|cdc|cl|d|dc|dh|dk|el|fap|ldn|lec|not|ol|ommd|oq|ox|xcl|yp)\d\w*"),
        ("G", r"(?:alnt|bp|na|ng|olga|ja|pr|px|tf)\d\w*"),
        ("R", r"(?:ab|anbp|assf|bm|gs|nf|pl|ps)\d\w*"),
    )
)
"""Names without a first letter that many genes of a matrix have and no whole symbol of human or mouse looks like:
``C1orf159``, clones such as ``RP11-431K24.1``, and families such as ``CDK6``, ``Rps3`` and ``GPR34``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrippedNames:
    """What gives away that names were stripped: the genome, the first letters, and names found with what they were."""

    genome: str
    letters: str
    lost: dict[str, str]
    n_names: int

    def describe(self) -> str:
        """Return the two signs in words."""
        lost = [f"{shorten(left, 20)} ({shorten(name, 21)})" for left, name in self.lost.items()]
        shown = ", ".join([lost[0], lost[len(lost) // 2], lost[-1]])
        return (
            f"gene names lost first letters, as by lstrip({self.genome + '_'!r}): hardly one of {self.n_names} begins "
            f"with {', '.join(self.letters)}, and {len(self.lost)} are the rest of known names, as {shown}"
        )


def find_stripped(names: Sequence[str]) -> StrippedNames | None:
    """Return the signs that characters of the name of a genome were stripped from gene names, ``None`` without them.

    Examples
    --------
    >>> found = find_stripped(["OL1A1", "APDH", "D74", "1orf159", "ACTB", "LYZ"])
    >>> found.genome, found.letters, found.lost["OL1A1"]
    ('GRCh38', 'CG', 'COL1A1')
    >>> find_stripped(["COL1A1", "GAPDH", "CD74", "C1orf159", "ACTB", "LYZ"])
    """
    present, first = set(names), Counter(name[:1] for name in names)
    # Where most names are in small letters, as those of zebrafish, these families are whole.
    capital = 2 * sum(name[:1].isupper() for name in names) > len(names)
    best: StrippedNames | None = None
    for genome, left in _leftovers().items():
        begin = sum(first[character] for character in set(genome + SEPARATORS))
        if begin > MOST_BEGINNING * len(names):
            continue
        lost = {short: name for short, name in left.items() if short in present and name not in present}
        for letter, family in FAMILIES:
            if letter in genome and capital and not {"1", "2"} & set(genome):  # which would leave 2orf42 of C12orf42
                whole = {name: letter + name for name in names if family.fullmatch(name)}
                lost |= {left: name for left, name in whole.items() if name.lstrip(genome + SEPARATORS) == left}
        if len(lost) >= FEWEST_LOST and (best is None or len(lost) > len(best.lost)):
            letters = "".join(sorted({name[0] for name in lost.values()}))
            best = StrippedNames(genome=genome, letters=letters, lost=lost, n_names=len(names))
    return best


@cache
def _leftovers() -> dict[str, dict[str, str]]:
    """Return what each spelling of a genome leaves of the common names, upper case and as mouse genes are written."""
    mouse = [f"mt-{name[3:].capitalize()}" if name.startswith("MT-") else name.capitalize() for name in COMMON]
    spellings = dict.fromkeys([*GENOMES, *map(str.upper, GENOMES), *map(str.lower, GENOMES)])
    found = {}
    for genome in spellings:
        stripped = {name.lstrip(genome + SEPARATORS): name for name in [*COMMON, *mouse]}
        left = {short: name for short, name in stripped.items() if short not in {name, ""}}
        if left:
            found[genome] = left
    return found
