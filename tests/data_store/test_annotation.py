"""Counts of peaks are summed by gene: gene body and 2000 bases upstream, by a slow definition."""

from __future__ import annotations

import gzip
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from musegnn.data_store import open_matrix
from musegnn.data_store.annotation import Annotation, genes_near_peaks, read_annotation
from musegnn.data_store.location import Location
from musegnn.errors import InputError

GTF = """\
#!genome-build GRCh38
chr1\thavana\tgene\t10001\t12000\t.\t+\t.\tgene_id "ENSG00000000001.2"; gene_name "FWD";
chr1\thavana\texon\t10001\t10100\t.\t+\t.\tgene_id "ENSG00000000001.2"; gene_name "FWD"; exon_number 1;
chr1\thavana\tgene\t20001\t22000\t.\t-\t.\tgene_id "ENSG00000000002"; gene_name "REV";
chr2\thavana\tgene\t501\t900\t.\t+\t.\tgene_id "ENSG00000000003"; gene_name "TWO";
"""
PEAKS = {  # peak: genes near it, upstream of FWD being before 10000 and upstream of REV after 22000
    "chr1:7900-8000": [],
    "chr1:7900-8001": ["FWD"],
    "chr1:11999-12500": ["FWD"],
    "chr1:12000-12500": [],
    "chr1:12000-20001": ["REV"],
    "chr1:9000-21000": ["FWD", "REV"],
    "chr1:23999-24100": ["REV"],
    "chr1:24000-24100": [],
    "chr2:100-200": ["TWO"],
    "chr3:100-200": [],
}
C = 60


def write(path, text, *, packed=False):
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_genes_of_gtf(packed, tmp_path):
    genes = read_annotation(Location.of(write(tmp_path / "g.gtf.gz", GTF, packed=packed)))
    assert genes.name == ["FWD", "REV", "TWO"]
    assert genes.gene_id == ["ENSG00000000001.2", "ENSG00000000002", "ENSG00000000003"]
    assert genes.start.tolist() == [8000, 20000, -1500]
    assert genes.stop.tolist() == [12000, 24000, 900]
    assert genes.chromosome.tolist() == ["1", "1", "2"]


def test_genes_of_bed_gff_and_gtf_without_genes(tmp_path):
    bed = read_annotation(Location.of(write(tmp_path / "g.bed", "chr1\t10000\t12000\tFWD\t0\t+\nchrM\t1\t9\tMT-A\n")))
    assert (bed.name, bed.start.tolist(), bed.chromosome.tolist()) == (["FWD", "MT-A"], [8000, -1999], ["1", "MT"])
    gff = "1\tx\tgene\t10001\t12000\t.\t-\t.\tID=gene:ENSG00000000001;Name=FWD;biotype=x\n"
    found = read_annotation(Location.of(write(tmp_path / "g.gff3", gff)))
    assert (found.name, found.gene_id, found.stop.tolist()) == (["FWD"], ["ENSG00000000001"], [14000])
    exons = "".join(f'chr1\tx\texon\t{a}\t{b}\t.\t+\t.\tgene_id "G1";\n' for a, b in ((501, 600), (101, 300)))
    found = read_annotation(Location.of(write(tmp_path / "e.gtf", exons)))
    assert (found.name, found.start.tolist(), found.stop.tolist()) == (["G1"], [-1900], [600])


@given(seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_overlaps_are_those_of_every_pair(seed):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 300, 20)
    genes = Annotation(
        name=[f"g{i}" for i in range(20)], gene_id=[f"g{i}" for i in range(20)],
        chromosome=rng.choice(["1", "X"], 20), start=start, stop=start + rng.integers(1, 200, 20),
    )  # fmt: skip
    first = rng.integers(0, 500, 30)
    places = list(zip(rng.choice(["1", "X", "7"], 30), first, first + rng.integers(1, 40, 30), strict=True))
    expected = np.array(
        [
            [c == genes.chromosome[g] and a < genes.stop[g] and genes.start[g] < b for g in range(20)]
            for c, a, b in places
        ]
    )
    if not expected.any():
        return
    found = genes_near_peaks([f"chr{c}-{a}-{b}" for c, a, b in places], genes, "x")
    assert np.array_equal(found.toarray(), expected.astype(int))


@pytest.fixture
def peaks(tmp_path):
    X = sp.csr_matrix(np.random.default_rng(0).poisson(0.7, (C, len(PEAKS))).astype(np.float32))
    obs = pd.DataFrame(index=[f"c{i}" for i in range(C)])
    data = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=list(PEAKS)))
    data.write_h5ad(tmp_path / "peaks.h5ad")
    return tmp_path / "peaks.h5ad", X.toarray()


def test_counts_of_peaks_are_summed_by_gene(peaks, tmp_path):
    path, X = peaks
    annotation = write(tmp_path / "g.gtf", GTF)
    source = pickle.loads(pickle.dumps(open_matrix(path, annotation=annotation)))
    assert source.gene.tolist() == ["FWD", "REV", "TWO"]
    assert source.gene_id.tolist() == ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"]
    expected = np.stack([X[:, [g in genes for genes in PEAKS.values()]].sum(axis=1) for g in source.gene], axis=1)
    for rows in (7, 100):
        blocks = [block for _, block in source.blocks(rows)]
        assert all(
            block.has_canonical_format and block.dtype == np.int32 and (block.data > 0).all() for block in blocks
        )
        assert np.array_equal(sp.vstack(blocks).toarray(), expected)
    assert any(w.startswith("W242: 4 of 10 peaks") for w in source.warnings)
    other = write(tmp_path / "h.gtf", GTF.replace("10001\t12000", "10001\t12900"))
    assert source.fingerprint() != open_matrix(path, annotation=other).fingerprint()


def test_peaks_without_annotation_and_genes_with_one(peaks, make_adata, save, tmp_path):
    annotation = write(tmp_path / "g.gtf", GTF)
    with pytest.raises(InputError, match=r"E218.*annotation: genes.gtf"):
        open_matrix(peaks[0])
    with pytest.raises(InputError, match=r"E236.*no column is a peak.*leave `annotation` out"):
        open_matrix(save(make_adata()), annotation=annotation)
    with pytest.raises(InputError, match=r"E236.*no peak is near a gene"):
        open_matrix(peaks[0], annotation=write(tmp_path / "o.gtf", GTF.replace("chr", "contig")))
    with pytest.raises(InputError, match=r"E236.*no line is a gene"):
        open_matrix(peaks[0], annotation=write(tmp_path / "n.gtf", "x\n"))
    with pytest.raises(InputError, match=r"E230.*no such file"):
        open_matrix(peaks[0], annotation=tmp_path / "none.gtf")


def test_the_peaks_of_a_multiome_are_used(peaks, tmp_path):
    path, X = peaks
    data = ad.read_h5ad(path)
    data.var_names = [*list(PEAKS)[:8], "ACTB", "GAPDH"]
    data.var["feature_types"] = ["Peaks"] * 8 + ["Gene Expression"] * 2
    data.write_h5ad(path)
    source = open_matrix(path, annotation=write(tmp_path / "g.gtf", GTF))
    assert source.gene.tolist() == ["FWD", "REV"]
    used = [i for i, genes in enumerate(PEAKS.values()) if "FWD" in genes]
    assert next(source.blocks(100))[1][:, 0].sum() == X[:, used].sum()
    assert open_matrix(path).gene.tolist() == ["ACTB", "GAPDH"]
