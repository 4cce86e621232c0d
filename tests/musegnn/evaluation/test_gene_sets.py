"""Gene sets predicted from vectors: against scikit-learn, on planted sets, and on nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from benchmarks.graphs import plain_graph
from musegnn.errors import InputError
from musegnn.evaluation.gene_sets import (
    FOLDS,
    _fold_auroc,
    _folds,
    function_document,
    function_scores,
    read_gmt,
    set_titles,
    transfer_scores,
)

N, DIM, PLANTED, SETS = 1500, 16, 8, 12


@pytest.fixture
def planted():
    """Return two datasets whose vectors tell the members of the first sets."""
    random = np.random.default_rng(0)
    graphs, vectors = [], {}
    member = random.random((N, SETS)) < 0.15
    for name in ("a", "b"):
        chosen = np.sort(random.permutation(N)[:1000])
        graphs.append(plain_graph(name, [f"g{k:03}" for k in chosen]))
        x = random.normal(size=(1000, DIM))
        x[:, :PLANTED] += 1.5 * member[chosen][:, :PLANTED]
        vectors[name] = x
    sets = {f"s{k}": [f"g{g:03}" for g in np.flatnonzero(member[:, k])] for k in range(SETS)}
    return graphs, vectors, sets


def test_planted_sets_are_found_and_others_are_not(planted):
    graphs, vectors, sets = planted
    found = function_scores(graphs, vectors, sets).by_set
    assert min(found[f"s{k}"] for k in range(PLANTED)) > 0.75
    assert all(abs(found[f"s{k}"] - 0.5) < 0.1 for k in range(PLANTED, SETS))
    permuted = function_scores(graphs, vectors, sets, permute=True).by_set
    assert all(abs(value - 0.5) < 0.1 for value in permuted.values())


def test_small_and_large_sets_do_not_count(planted):
    graphs, vectors, sets = planted
    odd = {"small": sets["s0"][:5], "large": graphs[0].keys.tolist(), "none": ["x"]}
    assert function_scores(graphs, vectors, odd).auroc == {}
    assert np.isnan(function_scores(graphs, vectors, odd).mean)


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
    graphs, vectors, sets = planted
    random = np.random.default_rng(2)
    noise = {name: random.normal(size=x.shape) for name, x in vectors.items()}
    document = function_document(graphs, {"ours": vectors, "noise": noise}, sets, subject="ours", seed=0)
    assert document["n_sets"] == SETS
    assert document["models"]["noise"]["difference"] > 0.1
    assert 0 < document["models"]["noise"]["p_value"] < 0.05
    assert np.isnan(document["models"]["ours"]["p_value"])


def test_planted_sets_are_found_from_other_datasets(planted):
    graphs, vectors, sets = planted
    found = transfer_scores(graphs, vectors, sets)
    assert found.auroc.keys() == function_scores(graphs, vectors, sets).auroc.keys()
    assert min(found.by_set[f"s{k}"] for k in range(PLANTED)) > 0.75
    assert all(abs(found.by_set[f"s{k}"] - 0.5) < 0.1 for k in range(PLANTED, SETS))
    permuted = transfer_scores(graphs, vectors, sets, permute=True).by_set
    assert all(abs(value - 0.5) < 0.1 for value in permuted.values())


def test_what_only_one_dataset_knows_does_not_transfer(planted):
    graphs, vectors, sets = planted
    turned = {"a": vectors["a"], "b": np.roll(vectors["b"], PLANTED, axis=1)}
    within, between = (score(graphs, turned, sets).by_set for score in (function_scores, transfer_scores))
    for k in range(PLANTED):
        assert within[f"s{k}"] > 0.75
        assert abs(between[f"s{k}"] - 0.5) < 0.1


def test_copies_of_a_gene_are_not_trained_on(planted):
    graphs, _, _ = planted
    random = np.random.default_rng(3)
    identity = random.normal(size=(N, 200))  # enough to remember every gene by
    vectors = {t.name: identity[[int(key[1:]) for key in t.keys]] for t in graphs}
    sets = {f"s{k}": [f"g{g:03}" for g in np.flatnonzero(random.random(N) < 0.15)] for k in range(SETS)}
    values = np.array(list(transfer_scores(graphs, vectors, sets).by_set.values()))
    assert abs(values.mean() - 0.5) < 4 * values.std(ddof=1) / SETS**0.5


def test_transfer_is_a_ridge_of_the_rows_of_other_datasets():
    random = np.random.default_rng(5)
    keys = [random.permutation([f"g{k}" for k in range(150)])[:100] for _ in range(3)]
    graphs = [plain_graph(name, k) for name, k in zip("abc", keys, strict=True)]
    vectors = {t.name: random.normal(size=(100, 5)) * [1, 2, 3, 4, 0] for t in graphs}
    genes = {"s": [f"g{k}" for k in range(30)]}
    auroc = transfer_scores(graphs, vectors, genes, seed=7).auroc
    for t in graphs:
        others = [o for o in graphs if o is not t]
        x, key = (np.concatenate(v) for v in ([vectors[o.name] for o in others], [o.keys for o in others]))
        values = []
        for k in range(FOLDS):
            train, test = _folds(key, 7) != k, _folds(t.keys, 7) == k
            scaler = StandardScaler().fit(x[train])
            ridge = RidgeCV((1.0, 10.0, 100.0, 1000.0, 10000.0))
            ridge.fit(scaler.transform(x[train]), np.isin(key[train], genes["s"]).astype(float))
            label = np.isin(t.keys[test], genes["s"])
            values.append(roc_auc_score(label, ridge.predict(scaler.transform(vectors[t.name][test]))))
        assert auroc[t.name, "s"] == pytest.approx(np.mean(values))


def test_transfer_is_compared_over_sets(planted):
    graphs, vectors, sets = planted
    noise = {name: np.random.default_rng(2).normal(size=x.shape) for name, x in vectors.items()}
    spaces = {"ours": vectors, "noise": noise}
    document = function_document(graphs, spaces, sets, subject="ours", seed=0, score=transfer_scores)
    assert document["models"]["ours"]["auroc"] == transfer_scores(graphs, vectors, sets).mean
    assert document["models"]["noise"]["p_value"] < 0.05
    assert transfer_scores(graphs[:1], vectors, sets).auroc == {}


def test_gmt_files_are_read_and_others_refused(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("one\tabout\tA\tB\ntwo\t\tC\t\n")
    assert read_gmt(path) == {"one": {"A", "B"}, "two": {"C"}}
    path.write_text("no tabs here\n")
    with pytest.raises(InputError, match="E279"):
        read_gmt(path)
    with pytest.raises(InputError, match="E279"):
        read_gmt(tmp_path / "absent.gmt")


def test_sets_named_by_identifiers_are_called_by_their_descriptions(tmp_path):
    path = tmp_path / "sets.gmt"
    lines = ["GO:0042221\tresponse to chemical (1477)\tA\tB", "HALLMARK_HYPOXIA\thttps://example.org\tC\tD"]
    lines += ["R-HSA-109581\tApoptosis\tE\tF", "GO:0000001\t\tG", "MINE\tof mine\tH"]
    path.write_text("\n".join(lines) + "\n")
    assert set_titles(path) == {
        "GO:0042221": "response to chemical (GO:0042221)",
        "HALLMARK_HYPOXIA": "HALLMARK_HYPOXIA",
        "R-HSA-109581": "Apoptosis (R-HSA-109581)",
        "GO:0000001": "GO:0000001",
        "MINE": "MINE",
    }
    assert set_titles(path).keys() == read_gmt(path).keys()
