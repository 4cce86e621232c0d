"""Datasets that are split get names that datasets can have, or the error that says why not."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from musegnn.config import AtlasConfig
from musegnn.datasets import expand_strata
from musegnn.errors import InputError


def atlas(folder, labels, *names):
    """Describe one dataset `x` of 60 cells per label, split by `cell`, and others that are not split."""
    counts = np.random.default_rng(0).poisson(2.0, (60 * len(labels), 5)).astype(np.float32)
    obs = {"cell": np.repeat(labels, 60)}
    ad.AnnData(counts, obs=obs).write_h5ad(folder / "x.h5ad")
    about = {"path": folder / "x.h5ad", "modality": "scrna", "tissue": "lung", "species": "human"}
    others = [{"name": name, **about} for name in names]
    return AtlasConfig(datasets=[{"name": "x", "by": "cell", **about}, *others])


def test_labels_become_names(tmp_path):
    split = expand_strata(atlas(tmp_path, ["B cell", "T cell"], "y")).datasets
    assert [(one.name, one.stratum) for one in split] == [("x.B_cell", "B cell"), ("x.T_cell", "T cell"), ("y", None)]


def test_labels_too_long_for_a_name_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"name of 152 characters, above 128.*Fix: shorten the label") as caught:
        expand_strata(atlas(tmp_path, ["B cell", "T" * 150]))
    assert caught.value.code == "E257"


@pytest.mark.parametrize("other", ["x.T_cell", "x.B"])
def test_names_that_other_datasets_have_are_refused(tmp_path, other):
    with pytest.raises(InputError, match=r"name that another dataset has.*Fix: rename one of the datasets") as caught:
        expand_strata(atlas(tmp_path, ["B", "T cell"], other))
    assert (caught.value.code, caught.value.where) == ("E257", other)
