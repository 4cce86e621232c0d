"""What the columns of a matrix are, in the spellings that pipelines write."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from musegnn.data_store import ArraySource, open_matrix
from musegnn.data_store.genes import (
    CONTROL,
    TAG,
    is_row_numbers,
    known_identifiers,
    mark_genes,
    mark_mitochondrial,
    mark_peaks,
    mark_ribosomal,
    without_genome,
)
from musegnn.errors import InputError

MT = ["ND1", "ND2", "CO1", "CO2", "ATP8", "ATP6", "CO3", "ND3", "ND4L", "ND4", "ND5", "ND6", "CYB"]
HUMAN_MT = [
    "ENSG00000198888",
    "ENSG00000198763",
    "ENSG00000198804",
    "ENSG00000198712",
    "ENSG00000228253",
    "ENSG00000198899",
    "ENSG00000198938",
    "ENSG00000198840",
    "ENSG00000212907",
    "ENSG00000198886",
    "ENSG00000198786",
    "ENSG00000198695",
    "ENSG00000198727",
]
REFSEQ_MT = ["ND1", "ND2", "COX1", "COX2", "ATP8", "ATP6", "COX3", "ND3", "ND4L", "ND4", "ND5", "ND6", "CYTB"]
NUCLEAR = ["MT1A", "MTOR", "MT2A", "mtor", "Mt1", "MTND1P23", "MTRNR2L1", "MMT", "GRCh38_MTOR", "mt", "MT-", "ND1"]

SPELLINGS = {
    "symbols": [f"MT-{gene}" for gene in MT],
    "mouse symbols": [f"mt-{gene.capitalize()}" for gene in MT],
    "rat symbols": [f"Mt-{gene.lower()}" for gene in MT],
    "dots of R": [f"MT.{gene}" for gene in MT],
    "small dots of R": [f"mt.{gene.capitalize()}" for gene in MT],
    "colons of fly": [f"mt:{gene}" for gene in MT],
    "underscores": [f"MT_{gene}" for gene in MT],
    "one genome": [f"GRCh38_MT-{gene}" for gene in MT],
    "genome of older Cell Ranger": [f"GRCh38___MT-{gene}" for gene in MT],
    "genome of Seurat": [f"GRCh38---MT-{gene}" for gene in MT],
    "genome with a dash": [f"hg19-MT-{gene}" for gene in MT],
    "mouse genome": [f"mm10___mt-{gene}" for gene in MT],
    "premrna": [f"GRCh38_premrna_MT-{gene}" for gene in MT],
    "identifiers": HUMAN_MT,
    "versions": [f"{gene}.2" for gene in HUMAN_MT],
    "genome and identifiers": [f"GRCh38_{gene}" for gene in HUMAN_MT],
    "identifier and symbol": [f"{i}_MT-{s}" for i, s in zip(HUMAN_MT, MT, strict=True)],
    "symbols of RefSeq": REFSEQ_MT,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_mitochondrial_genes_are_known_in_every_spelling(spelling):
    names = [*SPELLINGS[spelling], *(name for name in NUCLEAR if spelling != "symbols of RefSeq" or name != "ND1")]
    assert mark_mitochondrial(names).tolist() == [True] * 13 + [False] * (len(names) - 13)


def test_identifiers_of_mitochondria_are_those_of_two_genomes():
    known = known_identifiers()["mitochondrial"]
    assert set(HUMAN_MT) < known
    assert sorted(sum(name.startswith(prefix) for name in known) for prefix in ("ENSG", "ENSMUSG")) == [37, 37]


def test_shipped_identifiers_agree_with_an_export_of_ensembl(shared):
    with (shared / "annot" / "human_mouse_gene_orthologs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    symbols = {row["Gene stable ID"]: row["Gene name"] for row in rows}
    symbols |= {row["Mouse gene stable ID"]: row["Mouse gene name"] for row in rows}
    by_symbol = {i for i, name in symbols.items() if mark_mitochondrial([name])[0]}
    assert len(by_symbol) == 26
    assert by_symbol < known_identifiers()["mitochondrial"]
    ribosomal = known_identifiers()["ribosomal"]
    assert {i for i, name in symbols.items() if mark_ribosomal([name])[0]} < ribosomal
    assert all(mark_ribosomal([symbols.get(i, "RPL3")])[0] for i in ribosomal)


def test_genes_of_ribosomal_proteins():
    genes = ["RPL13A", "Rps4x", "RPLP0", "RPSA", "GRCh38_RPL3", "ENSG00000089157.16", "Rps27a"]
    others = ["RPS6KA1", "RPS19BP1", "MRPL3", "RPL13AP5", "RPH3A", "RPS", "ENSG00000075624"]
    assert mark_ribosomal(genes + others).tolist() == [True] * len(genes) + [False] * len(others)


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "Symbol", "gene_name", "features.name"])
def test_symbols_in_another_column_are_read(column, make_adata, save):
    adata = make_adata(genes=[f"ENSRNOG{i:011d}" for i in range(30)])
    adata.var[column] = pd.Categorical([f"Mt-{gene.lower()}" for gene in MT] + [f"Gene{i}" for i in range(17)])
    assert open_matrix(save(adata)).mitochondrial.sum() == (13 if column != "features.name" else 0)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("mt", [True] * 13 + [False] * 17),
        ("mito", pd.array([True] * 13 + [False] * 16 + [None], dtype="boolean")),
        ("Is_Mitochondrial", pd.Categorical(["yes"] * 13 + ["no"] * 17)),
        ("chromosome", ["MT"] * 13 + ["1"] * 17),
        ("seqname", pd.Categorical(["chrM"] * 13 + ["chr1"] * 17)),
    ],
)
def test_the_table_of_genes_may_mark_mitochondrial_ones(column, values, make_adata, save):
    adata = make_adata(genes=[f"ENSSSCG{i:011d}" for i in range(30)])
    adata.var[column] = values
    assert open_matrix(save(adata)).mitochondrial.tolist() == [True] * 13 + [False] * 17


CONTROLS = [
    "NegControlProbe_00042",
    "NegControlProbe.00042",
    "NegControlCodeword_0500",
    "negcontrolprobe-1",
    "BLANK_0006",
    "Blank-1",
    "BLANK.12",
    "blank1",
    "antisense_LRRC37A",
    "UnassignedCodeword_0001",
    "DeprecatedCodeword_0321",
    "DEPRECATED_ENSG00000123",
    "SystemControl12",
    "NegPrb3",
    "Negative7",
    "FalseCode8",
    "NegProbe-WTX",
    "ERCC-00002",
    "ERCC_00002",
    "ERCC.00130",
    "SIRV101",
    "N_unmapped",
    "N_noFeature",
    "__no_feature",
    "__not_aligned",
    "Intergenic_Region_11",
    "GenomicControlProbe_1",
]
GENES_LIKE_CONTROLS = [
    "ERCC1",
    "ERCC6L2",
    "NEGR1",
    "BLNK",
    "DEPTOR",
    "SYSTEM",
    "FALZ",
    "NEGF",
    "ANTXR1",
    "UNAG",
    "NCBP1",
    "Negr1",
    "CTRL",
]
TAGS = ["ADT_CD3", "HTO-1", "CD3_TotalSeqB", "CD4-TotalSeqC", "hashtag_1", "CMO301", "CITE_CD19", "sgRNA_TP53"]


@pytest.mark.parametrize("name", [*CONTROLS, *(f"GRCh38_{name}"[7:] for name in CONTROLS[:2])])
def test_controls_of_platforms_are_known(name):
    assert CONTROL.match(name)


@pytest.mark.parametrize("name", GENES_LIKE_CONTROLS)
def test_genes_are_no_controls_or_tags(name):
    assert not CONTROL.match(name)
    assert not TAG.match(name)


@pytest.mark.parametrize("name", TAGS)
def test_tags_are_known(name):
    assert TAG.match(name)


def test_controls_are_left_out_with_a_warning(counts, make_adata, save):
    genes = [f"NegControlProbe_{i:05d}" for i in range(10)] + [f"G{i}" for i in range(20)]
    for source in (open_matrix(save(make_adata(genes=genes))), ArraySource(counts, genes)):
        assert source.gene.tolist() == genes[10:]
        assert source.n_genes == 20
        assert source.warnings == [
            "W218: 10 columns that are not genes were left out (controls, as NegControlProbe_00000)"
        ]
        block = next(iter(source.blocks(200)))[1]
        assert np.array_equal(block.toarray(), counts.toarray()[:, 10:])


KINDS = {
    "Cell Ranger": ("Gene Expression", "Antibody Capture"),
    "small letters": ("gene expression", "antibody capture"),
    "no space": ("Gene_Expression", "Antibody_Capture"),
    "short": ("GEX", "ADT"),
    "multiome": ("GEX", "ATAC"),
    "muon": ("rna", "prot"),
    "words": ("rna", "protein"),
    "cite": ("RNA", "CITE-seq"),
    "guides": ("Gene Expression", "CRISPR Guide Capture"),
    "hashing": ("gene", "HTO"),
    "peaks": ("Gene Expression", "Peaks"),
    "custom": ("Gene Expression", "Custom"),
    "cellxgene": ("gene", "spike-in"),
}
COLUMNS = ["feature_types", "feature_type", "modality", "feature_biotype"]


def old_categories(column):
    """Write a column as AnnData before 0.8 did: codes, and categories in a group of their own."""

    def edit(file):
        values = file["var"][column]
        codes, categories = values["codes"][()], values["categories"][()]
        del file["var"][column]
        file["var"][column] = codes
        file["var"].require_group("__categories")[column] = categories

    return edit


CASES = [("feature_types", kind) for kind in KINDS] + [
    (column, kind) for column in COLUMNS[1:] for kind in ("Cell Ranger", "short", "words")
]


@pytest.mark.parametrize(("column", "kind"), CASES)
@pytest.mark.parametrize("layout", ["text", "category", "old category"])
def test_features_that_are_not_genes_are_left_out(kind, column, layout, counts, make_adata, save):
    gene, other = KINDS[kind]
    adata = make_adata()
    kinds = [gene] * 20 + [other] * 10
    adata.var[column] = kinds if layout == "text" else pd.Categorical(kinds)
    source = open_matrix(save(adata, old_categories(column) if layout == "old category" else None))
    assert source.n_genes == 20
    assert source.warnings == [f"W218: 10 columns that are not genes were left out ({other})"]
    assert np.array_equal(next(iter(source.blocks(200)))[1].toarray(), counts.toarray()[:, :20])


def test_types_of_genes_are_no_kinds_of_features(make_adata, save):
    adata = make_adata()
    adata.var["feature_type"] = ["protein_coding"] * 20 + ["lncRNA"] * 10
    adata.var["feature_types"] = "Gene Expression"
    source = open_matrix(save(adata))
    assert (source.n_genes, source.warnings) == (30, [])
    assert mark_genes(["protein_coding"] * 3) is None
    assert mark_genes(["Peaks"] * 3) is None


def test_a_matrix_without_genes_is_refused(make_adata, save):
    adata = make_adata()
    adata.var["feature_types"] = "Antibody Capture"
    with pytest.raises(InputError, match=r"E218.*none of the 30 columns is a gene \(Antibody Capture\)"):
        open_matrix(save(adata))


PEAKS = ["chr1:{}-{}", "chr1-{}-{}", "chrX_{}_{}", "1:{}-{}", "GRCh38_chr2:{}-{}", "GL000194.1:{}-{}", "chr1.{}.{}"]


@pytest.mark.parametrize("form", PEAKS)
def test_peaks_are_known_in_every_form_and_refused(form, make_adata, save):
    peaks = [form.format(1000 * i, 1000 * i + 500) for i in range(1, 31)]
    assert mark_peaks(peaks).all()
    with pytest.raises(InputError, match=r"E218.*30 of 30 columns are peaks"):
        open_matrix(save(make_adata(genes=peaks)))


def test_peaks_beside_genes_are_left_out(make_adata, save):
    peaks = [f"chr1:{i}000-{i}500" for i in range(1, 21)]
    source = open_matrix(save(make_adata(genes=peaks + [f"G{i}" for i in range(10)])))
    assert source.n_genes == 10
    assert source.warnings == ["W218: 20 columns that are not genes were left out (peaks, as chr1:1000-1500)"]


def test_clones_are_no_peaks():
    assert not mark_peaks(["RP11-206L10.2", "AC004.1", "CTD-2003-1", "HLA-DRB1", "chr1", "7SK", "Y_RNA"]).any()


# Genomes


@pytest.mark.parametrize(
    "prefix", ["GRCh38_", "GRCh38___", "GRCh38---", "GRCh38-", "hg19-", "hg19_", "hg38.", "grch38_"]
)
def test_prefixes_of_a_genome_are_removed(prefix, make_adata, save):
    source = open_matrix(save(make_adata(genes=[f"{prefix}X{i}" for i in range(30)])))
    assert source.gene.tolist() == [f"X{i}" for i in range(30)]
    assert [w[:4] for w in source.warnings] == ["W213"]
    assert "from 30 gene names" in source.warnings[0]


@pytest.mark.parametrize(
    ("human", "mouse"), [("GRCh38-X{}", "mm10---x{}"), ("hg19_X{}", "mm10_x{}"), ("GRCh38---X{}", "GRCm39-x{}")]
)
def test_two_genomes_are_refused(human, mouse, make_adata, save):
    genes = [human.format(i) for i in range(15)] + [mouse.format(i) for i in range(15)]
    with pytest.raises(InputError, match=r"E213.*2 genomes"):
        open_matrix(save(make_adata(genes=genes)))


def test_two_genomes_in_a_column_are_refused(make_adata, save):
    adata = make_adata()
    adata.var["genome"] = pd.Categorical(["GRCh38"] * 20 + ["mm10"] * 10)
    with pytest.raises(InputError, match=r"E213.*GRCh38, mm10"):
        open_matrix(save(adata))


def test_the_genome_of_a_virus_is_no_second_one(make_adata, save):
    adata = make_adata()
    adata.var["genome"] = pd.Categorical(["GRCh38"] * 20 + ["SARS-CoV-2"] * 10)
    assert open_matrix(save(adata)).n_genes == 30


def test_genes_that_begin_like_a_genome_keep_their_names():
    assert [without_genome(name) for name in ("MM1", "HG19X", "RN7SK", "T2TX", "mm10", "mm10_")] == [
        "MM1", "HG19X", "RN7SK", "T2TX", "mm10", "mm10_"
    ]  # fmt: skip


# Copies, joined names, numbers


@pytest.mark.parametrize(
    "copy", ["ENSG00000000000.4_PAR_Y", "ENSG00000000000_PAR_Y", "ENSGR0000000000.4", "ENSG00000000000.4-PAR-Y"]
)
@pytest.mark.parametrize("filled", [False, True])
def test_copies_on_y_are_added_to_their_genes(copy, filled, counts, make_adata, save):
    X = counts.toarray()
    X[:, 7] *= filled
    names = [f"ENSG{i:011d}.{i + 4}" for i in range(30)]
    names[7] = copy
    expected = np.delete(X, 7, axis=1)
    expected[:, 0] += X[:, 7]
    for encoding in (np.asarray, sp.csr_matrix):
        source = open_matrix(save(make_adata(encoding(X), genes=names)))
        assert source.gene.tolist() == [f"ENSG{i:011d}" for i in range(30) if i != 7]
        assert [w[:4] for w in source.warnings] == ["W208", "W209"]
        blocks = [block for _, block in source.blocks(50)]
        assert np.array_equal(sp.vstack(blocks).toarray(), expected)
        assert all(block.has_canonical_format for block in blocks)


def test_copies_of_symbols_and_copies_alone(counts):
    source = ArraySource(counts[:, :4], ["CD99", "CD99_PAR_Y", "XG_PAR_Y", "ACTB"])
    assert source.gene.tolist() == ["CD99", "XG", "ACTB"]
    assert np.array_equal(next(iter(source.blocks(200)))[1].toarray()[:, 0], counts.toarray()[:, :2].sum(axis=1))


@pytest.mark.parametrize(
    "form", ["{s}_{i}", "{i}_{s}", "{s}|{i}", "{i}-{s}", "{s}_{i}.7", "{i}.7_{s}", "{s}.{i}", "GRCh38_{s}_{i}"]
)
def test_joined_names_are_split(form, counts):
    symbols = ["HLA-A", "MT-ND1", *(f"GENE{i}" for i in range(27)), "GENE0"]
    names = [form.format(s=s, i=f"ENSG{i:011d}") for i, s in enumerate(symbols)]
    source = ArraySource(counts, names)
    unique = ["HLA-A", "MT-ND1", "ENSG00000000002", *symbols[3:-1], "ENSG00000000029"]
    assert source.gene.tolist() == unique
    assert source.gene_id.tolist() == [f"ENSG{i:011d}" for i in range(30)]
    assert source.mitochondrial.tolist() == [False, True] + [False] * 28
    assert {"W216", "W210"} <= {w[:4] for w in source.warnings}


@pytest.mark.parametrize("start", [0, 1])
def test_numbers_of_rows_are_no_names(start, make_adata, save):
    adata = make_adata(genes=[str(i + start) for i in range(30)])
    (warning,) = open_matrix(save(adata)).warnings
    assert warning.startswith("W221: the gene names are numbers of rows")
    adata.var["feature_id"] = [f"ENSG{i:011d}" for i in range(30)]
    with pytest.raises(InputError, match=r"E219.*Fix: set `gene_id_key: feature_id`"):
        open_matrix(save(adata))
    source = open_matrix(save(adata), gene_id_key="feature_id")
    assert source.gene.tolist() == adata.var["feature_id"].tolist()
    assert [w[:4] for w in source.warnings] == ["W210"]


def test_identifiers_of_entrez_are_names():
    assert not is_row_numbers(["7157", "1956", "3845", "672"])
    assert not is_row_numbers(["1", "2", "9", "100130426", "653635"])
    assert is_row_numbers([str(i) for i in range(0, 3000, 7)])
    assert not is_row_numbers(["1", "B"])


# A part of raw


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_a_part_of_raw_warns(kind, counts, make_adata, save):
    whole = make_adata(kind(np.repeat(counts.toarray(), 10, axis=1)))
    adata = whole[:, ::10].copy()
    adata.raw = whole
    source = open_matrix(save(adata))
    assert len(source.warnings) == 1
    assert source.warnings[0].startswith("W217: X holds 30 of the 300 genes of raw, which looks like counts")
    assert "`layer: raw`" in source.warnings[0]
    assert open_matrix(save(adata), layer="raw").warnings == []
    adata.raw = make_adata(kind(np.log1p(np.repeat(counts.toarray(), 10, axis=1))))
    assert "layer" not in open_matrix(save(adata)).warnings[0]
