"""How many genes datasets share by name, and how many they would share if names were spelled alike.

Legend: D datasets, U distinct names of all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from musegnn.data_store.genes import without_genome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

VERSION = re.compile(r"(?<=\d)\.\d+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOverlap:
    """Genes that two datasets have, and share: by name as it is, and by name spelled alike.

    Attributes
    ----------
    one, other
        Names of the datasets.
    n_one, n_other
        Their genes.
    shared, any_case, any_version, any_spelling
        Genes with equal names; without regard to case; to version suffixes; to case, versions, the prefix of a genome,
        and the characters between letters.
    other_identifier
        Of those with equal names, genes whose identifiers differ; 0 where one dataset has none.
    """

    one: str
    other: str
    n_one: int
    n_other: int
    shared: int
    any_case: int
    any_version: int
    any_spelling: int
    other_identifier: int

    def to_text(self) -> str:
        """Return one line for a terminal."""
        counts = f"share {self.shared} genes by name, {self.any_case} in any case, {self.any_version} in any version"
        sizes = f"{self.one} ({self.n_one}) and {self.other} ({self.n_other})"
        return f"{sizes} {counts}, {self.any_spelling} in any spelling"

    @property
    def smaller(self) -> int:
        """Genes of the dataset that has fewer."""
        return min(self.n_one, self.n_other)

    @property
    def most(self) -> int:
        """Genes shared by the spelling that matches most."""
        return max(self.any_case, self.any_version, self.any_spelling)

    @property
    def how(self) -> str:
        """Spelling by which most genes are shared, in words."""
        ways = {"case": self.any_case, "version suffixes": self.any_version}
        return next((way for way, count in ways.items() if count == self.most), "case, versions and separators")


def overlap_table(
    genes: Mapping[str, NDArray[np.str_]], identifiers: Mapping[str, NDArray[np.str_]] | None = None
) -> list[PairOverlap]:
    """Count shared genes for every pair of datasets.

    Parameters
    ----------
    genes
        Names by dataset.
    identifiers
        Identifiers by dataset, in the order of the names, where they come from a column of their own.
    """
    names = list(genes)
    identifiers = identifiers or {}
    plain: dict[str, list[str]] = {name: genes[name].tolist() for name in names}
    number: dict[str, int] = {}
    codes = [np.array([number.setdefault(gene, len(number)) for gene in plain[name]], dtype=np.intp) for name in names]
    shared = _counts(codes)
    folded, stripped, alike = (
        _counts([np.unique(spelled[code]) for code in codes])
        for spelled in (_numbers(map(way, number)) for way in (str.casefold, _any_version, _any_spelling))
    )
    with_ids = [code if name in identifiers else code[:0] for name, code in zip(names, codes, strict=True)]
    pairs = [
        [f"{gene}\0{gene_id}" for gene, gene_id in zip(plain[name], identifiers[name].tolist(), strict=True)]
        if name in identifiers
        else []
        for name in names
    ]
    both = np.split(_numbers([pair for some in pairs for pair in some]), np.cumsum([len(some) for some in pairs])[:-1])
    differ = _counts(with_ids) - _counts(both)
    return [
        PairOverlap(
            one=one, other=names[j], n_one=len(plain[one]), n_other=len(plain[names[j]]), shared=int(shared[i, j]),
            any_case=int(folded[i, j]), any_version=int(stripped[i, j]), any_spelling=int(alike[i, j]),
            other_identifier=int(differ[i, j]),
        )
        for i, one in enumerate(names)
        for j in range(i + 1, len(names))
    ]  # fmt: skip


def _any_version(gene: str) -> str:
    return VERSION.sub("", gene)


def _any_spelling(gene: str) -> str:
    return re.sub(r"[-_.:; ]", "", _any_version(without_genome(gene)).casefold())


def _numbers(names: Iterable[str]) -> NDArray[np.intp]:
    """Return a number for each name, the same for equal ones."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.intp)


def _counts(codes: Sequence[NDArray[np.intp]]) -> NDArray[np.int64]:
    """Return the number of names that each two datasets have in common, (D, D), given the numbers of each."""
    columns = np.concatenate([np.zeros(0, dtype=np.intp), *codes])
    ends = np.concatenate([[0], np.cumsum([len(code) for code in codes])])
    shape = (len(codes), int(columns.max(initial=0)) + 1)
    has = csr_matrix((np.ones(len(columns), dtype=np.int32), columns, ends), shape=shape)
    common: NDArray[np.int64] = (has @ has.T).toarray()
    return common
