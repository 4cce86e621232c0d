"""Other words for modalities and species, and the one that stands for all of them."""

from __future__ import annotations

import re

MODALITIES = {
    "scrna": "scrnaseq rna rnaseq snrna snrnaseq gex geneexpression expression transcriptomics 10x singlecell cite "
    "citeseq",
    "scatac": "scatacseq atac atacseq snatac snatacseq geneactivity accessibility chromatin chromatinaccessibility",
    "spatial": "visium visiumhd spatialtranscriptomics st stereoseq slideseq slideseqv2 xenium merfish merscope cosmx "
    "seqfish hdst",
}
SPECIES = {
    "human": "homosapiens hsapiens hsa hs hg19 hg38 grch37 grch38 9606 ncbitaxon9606 man",
    "mouse": "musmusculus mmusculus mmu mm mm9 mm10 mm39 grcm38 grcm39 10090 ncbitaxon10090 mice",
    "rat": "rattusnorvegicus rnorvegicus rno rn 10116 ncbitaxon10116",
    "zebrafish": "daniorerio drerio dre 7955 ncbitaxon7955",
    "fly": "drosophilamelanogaster dmelanogaster dme drosophila fruitfly 7227 ncbitaxon7227",
    "worm": "caenorhabditiselegans celegans cel 6239 ncbitaxon6239",
    "yeast": "saccharomycescerevisiae scerevisiae sce 4932 ncbitaxon4932",
    "chicken": "gallusgallus ggallus gga 9031 ncbitaxon9031",
    "pig": "susscrofa sscrofa ssc 9823 ncbitaxon9823",
    "macaque": "macacamulatta mmulatta mml rhesus rhesusmacaque rhesusmonkey 9544 ncbitaxon9544",
    "marmoset": "callithrixjacchus cjacchus 9483 ncbitaxon9483",
}


def _by_word(table: dict[str, str]) -> dict[str, str]:
    return {word: name for name, words in table.items() for word in (name, *words.split())}


_MODALITY, _SPECIES = _by_word(MODALITIES), _by_word(SPECIES)


def _plain(text: str) -> str:
    return re.sub(r"[^0-9a-z]", "", text.casefold())


def modality_name(text: str) -> str:
    """Return ``scrna``, ``scatac`` or ``spatial`` for a word that means one of them; other text as it is.

    Examples
    --------
    >>> [modality_name(word) for word in ("RNA", "10x Visium", "scATAC-seq", "proteins")]
    ['scrna', 'spatial', 'scatac', 'proteins']
    """
    plain = _plain(text)
    return _MODALITY.get(plain) or _MODALITY.get(plain.removeprefix("10x"), text)


def species_name(text: str) -> str:
    """Return the common name of a species for any usual spelling; other text without blanks at its ends.

    Examples
    --------
    >>> [species_name(word) for word in ("Human", "Homo sapiens", "mus_musculus", "NCBITaxon:9606", "Axolotl")]
    ['human', 'human', 'mouse', 'human', 'Axolotl']
    """
    return _SPECIES.get(_plain(text), text.strip())
