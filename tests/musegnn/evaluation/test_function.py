"""Gene sets predicted from vectors: against scikit-learn, on planted sets, and on nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from musegnn.errors import InputError
from musegnn.evaluation.function import FOLDS, _fold_auroc, function_document, function_scores, read_gmt
from musegnn.evaluation.task import DatasetTask, HeldOutPairs

N, DIM, PLANTED, SETS = 1500, 16, 8, 12


def task(name, keys):
    none = np.zeros(0, dtype=np.int64)
    return DatasetTask(
        name=name,
        modality="scrna",
        tissue="none",
        species="human",
        gene_key=np.array(keys),
        held_out_gene=np.zeros(len(keys), dtype=bool),
        indptr=np.zeros(len(keys) + 1, dtype=np.int64),
        indices=none.astype(np.int32),
        pairs=HeldOutPairs(rows=none, cols=none, sign=none.astype(np.int8), other_rows=none, other_cols=none),
    )


@pytest.fixture
def planted():
    """Give two datasets whose vectors tell the members of the first sets."""
    random = np.random.default_rng(0)
    tasks, vectors = [], {}
    member = random.random((N, SETS)) < 0.15
    for name in ("a", "b"):
        chosen = np.sort(random.permutation(N)[:1000])
        tasks.append(task(name, [f"g{k:03}" for k in chosen]))
        x = random.normal(size=(1000, DIM))
        x[:, :PLANTED] += 1.5 * member[chosen][:, :PLANTED]
        vectors[name] = x
    sets = {f"s{k}": [f"g{g:03}" for g in np.flatnonzero(member[:, k])] for k in range(SETS)}
    return tasks, vectors, sets


def test_planted_sets_are_found_and_others_are_not(planted):
    tasks, vectors, sets = planted
    found = function_scores(tasks, vectors, sets).by_set
    assert min(found[f"s{k}"] for k in range(PLANTED)) > 0.75
    assert all(abs(found[f"s{k}"] - 0.5) < 0.1 for k in range(PLANTED, SETS))
    permuted = function_scores(tasks, vectors, sets, permute=True).by_set
    assert all(abs(value - 0.5) < 0.1 for value in permuted.values())


def test_small_and_large_sets_do_not_count(planted):
    tasks, vectors, sets = planted
    odd = {"small": sets["s0"][:5], "large": tasks[0].gene_key.tolist(), "none": ["x"]}
    assert function_scores(tasks, vectors, odd).auroc == {}
    assert np.isnan(function_scores(tasks, vectors, odd).mean)


def test_auroc_is_that_of_scikit_learn():
    random = np.random.default_rng(1)
    labels, scores = (random.random((90, 3)) < 0.3).astype(float), random.integers(0, 9, (90, 3)).astype(float)
    fold = np.arange(90) % FOLDS
    want = [
        np.mean([roc_auc_score(labels[fold == k, s], scores[fold == k, s]) for k in range(FOLDS)]) for s in range(3)
    ]
    np.testing.assert_allclose(_fold_auroc(labels, scores, fold), want, rtol=1e-12)
    labels[:, 0] = 0.0
    assert np.isnan(_fold_auroc(labels, scores, fold)[0])


def test_models_are_compared_over_sets(planted):
    tasks, vectors, sets = planted
    random = np.random.default_rng(2)
    noise = {name: random.normal(size=x.shape) for name, x in vectors.items()}
    document = function_document(tasks, {"ours": vectors, "noise": noise}, sets, subject="ours", seed=0)
    assert document["n_sets"] == SETS
    assert document["models"]["noise"]["difference"] > 0.1
    assert 0 < document["models"]["noise"]["p_value"] < 0.05
    assert np.isnan(document["models"]["ours"]["p_value"])


def test_gmt_files_are_read_and_others_refused(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("one\tabout\tA\tB\ntwo\t\tC\t\n")
    assert read_gmt(path) == {"one": {"A", "B"}, "two": {"C"}}
    path.write_text("no tabs here\n")
    with pytest.raises(InputError, match="E279"):
        read_gmt(path)
    with pytest.raises(InputError, match="E279"):
        read_gmt(tmp_path / "absent.gmt")
