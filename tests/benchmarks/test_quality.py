"""The comparison of models: files of vectors, rows that are kept, tests over hold-outs, goals and the page."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from benchmarks.cases import quality
from benchmarks.graphs import held_out_pairs, plain_graph
from benchmarks.quality import checks, goals, groups, jobs, report, vectors
from benchmarks.quality.jobs import OURS, Job
from benchmarks.quality.scores import Result, Scorer
from benchmarks.quality.table import Table


def rows(model, measure, values, group="pbmc"):
    """Return rows of one measure: values by split and seed."""
    return [
        (Job(group, split, seed, model), Result({measure: value}))
        for split, each in values.items()
        for seed, value in enumerate(each)
    ]


def test_hold_outs_of_the_report_had_no_part_in_the_choice_of_defaults():
    assert not set(groups.CHOICE_SPLITS) & set(groups.REPORT_SPLITS)
    found = quality.make_jobs(["pbmc", "atlas"], groups.REPORT_SPLITS, groups.SEEDS)
    ours = [(job.split, job.seed) for job in found if job.model == OURS and job.group == "atlas"]
    assert ours == [(0, 0), (0, 1), (0, 2), (3, 0), (4, 0), (5, 0)]
    assert [job.split for job in found if job.model == "published200" and job.group == "pbmc"] == [0]
    assert len({(job.group, job.split, job.seed, job.model) for job in found}) == len(found)


def test_vectors_are_read_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSEGNN_VECTORS", str(tmp_path / "new"))
    path = vectors.vector_file("published", "lung", 3)
    assert path == tmp_path / "new" / "published-lung-3-0.npz"
    assert vectors.vector_file("previous", "lung", 3, 1).name == "default-lung-3-1.npz"
    assert vectors.load(path) is None
    x = np.arange(6.0).reshape(3, 2)
    vectors.save(path, {"a": x}, {"cpu": 1.5})
    found = vectors.load(path)
    np.testing.assert_array_equal(found.vectors["a"], x)
    assert found.meta == {"cpu": 1.5}
    assert found.vectors["a"].dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    monkeypatch.setattr(groups, "present", lambda: ["lung"])
    wanted = vectors.missing()
    assert ("published", "lung", 0) in wanted
    assert ("baselines", "lung", 0) in wanted
    vectors.save(vectors.vector_file("previous", "lung", 5), {"a": x}, {})
    assert set(wanted) - set(vectors.missing()) == {("previous", "lung", 5)}


class FakeSplit:
    made = 0

    def __init__(self, group, split):
        FakeSplit.made += 1

    def score(self, job):
        if job.model == "previous":
            msg = "no vectors"
            raise LookupError(msg)
        return Result({"joint_mrr": 0.25}, {"transfer": {"s": 0.5}})


def test_rows_are_kept_and_what_is_absent_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "CACHE", tmp_path)
    monkeypatch.setattr(jobs, "Split", FakeSplit)
    ours, other = Job("pbmc", 0, 0, OURS), Job("pbmc", 0, 0, "previous")
    assert jobs._work([ours, other]) == ["pbmc, split 0: no vectors; left out: previous"]
    assert jobs.run_jobs([ours]) == [(ours, Result({"joint_mrr": 0.25}, {"transfer": {"s": 0.5}}))]
    assert not jobs.row_file(other).exists()


def test_another_file_is_another_row(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "CACHE", tmp_path)
    monkeypatch.setenv("MUSEGNN_VECTORS", str(tmp_path))
    assert jobs.row_file(Job("pbmc", 0, 0, "a, b")).name.startswith("a_b-pbmc-0-0-")
    previous = Job("pbmc", 0, 0, "previous")
    before = jobs.row_file(previous)
    vectors.save(vectors.vector_file("previous", "pbmc", 0), {"a": np.zeros((2, 2))}, {})
    assert jobs.row_file(previous) != before
    for part in jobs.CODE:
        assert (groups.ROOT / part).exists()


def make_graph(name, n, random):
    edges, others = random.integers(0, n, (2, 2, 50)).transpose(0, 2, 1)
    keys, held_out = [f"g{k}" for k in range(n)], held_out_pairs(edges, others)
    return plain_graph(name, keys, trainable=np.arange(n) % 2 != 0, tissue="lung", held_out=held_out)


def test_models_are_tested_against_the_reference():
    random = np.random.default_rng(0)
    n = 60
    graphs = [make_graph(name, n, random) for name in ("a", "b")]
    scorer = Scorer(graphs, sets={}, modules={}, six=False)
    x = random.normal(size=(n, 8))
    near = {"a": x, "b": x + 0.1 * random.normal(size=x.shape)}
    first = scorer.space(near)
    assert "joint_p" not in first.measures
    scorer.keep_as_reference()
    assert scorer.space(near).measures["joint_p"] == 1.0
    noise = scorer.space({name: random.normal(size=x.shape) for name in near}).measures
    assert noise["pair_p"] < 0.01
    assert noise["joint_p"] < 0.01
    assert noise["joint_mrr"] < 0.3 < 0.9 < first.measures["joint_mrr"]
    assert first.measures["joint_mrr"] == first.measures["joint_mrr_within_tissue"]


def test_noise_scores_like_noise():
    for check in checks.noise_checks():
        assert check.holds, check


def test_deviations_are_over_hold_outs_of_means_over_seeds():
    table = Table(rows(OURS, "joint_mrr", {0: [0.1, 0.3], 3: [0.4, 0.4]}))
    assert table.splits("pbmc", OURS, "joint_mrr") == {0: pytest.approx(0.2), 3: pytest.approx(0.4)}
    assert table.mean("pbmc", OURS, "joint_mrr") == pytest.approx(0.3)
    assert table.deviation("pbmc", OURS, "joint_mrr") == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert table.seed_deviation("pbmc", OURS, "joint_mrr") == pytest.approx(np.std([0.1, 0.3], ddof=1) / 2)
    assert np.isnan(table.mean("pbmc", OURS, "pair_mrr"))


def test_models_are_compared_on_the_hold_outs_of_both():
    table = Table(
        rows(OURS, "pair_mrr", {0: [0.5], 3: [0.1]})
        + rows("published", "pair_mrr", {0: [0.2]})
        + rows("published", "pair_p", {0: [0.01]})
        + rows("pca", "pair_mrr", {0: [0.6], 3: [0.2]})
        + rows("pca", "pair_p", {0: [0.01], 3: [0.07]})
        + rows("better", "pair_mrr", {0: [0.6], 3: [0.2]})
        + rows("better", "pair_p", {0: [0.01], 3: [0.03]})
    )
    assert table.margin("pbmc", OURS, "published", "pair_mrr")[0] == pytest.approx(0.3)
    assert table.p_values("pbmc", "pca", "pair_mrr") == (pytest.approx(0.07), pytest.approx(0.04))
    verdicts = [table.verdict("pbmc", model, "pair_mrr") for model in ("published", "pca", "better", OURS)]
    assert verdicts == ["worse", "tied", "better", ""]
    assert table.p_values("pbmc", "pca", "conservation") is None


def test_gene_sets_are_tested_with_the_mean_of_each_over_hold_outs():
    random = np.random.default_rng(0)
    sets = [{f"s{k}": float(v) for k, v in enumerate(random.random(9))} for _ in range(4)]
    found = [
        (Job("pbmc", split, 0, model), Result({"transfer": 0.5}, {"transfer": by_set}))
        for (split, model), by_set in zip([(0, OURS), (0, "other"), (3, OURS), (3, "other")], sets, strict=True)
    ]
    table = Table(found)
    ours, theirs = (np.mean([[s[k] for k in sets[0]] for s in pair], axis=0) for pair in (sets[::2], sets[1::2]))
    want = pytest.approx(wilcoxon(ours - theirs).pvalue)
    assert table.p_values("pbmc", "other", "transfer") == (want, want)
    assert table.p_values("pbmc", OURS, "transfer") is None


def comparison():
    """Return a table where ours is ahead of aligned PCA in joint MRR, and behind in pair MRR and gene sets."""
    values = {
        OURS: {"joint_mrr": 0.2, "pair_mrr": 0.3, "transfer": 0.55, "within": 0.56, "dataset_nmi": 0.04, "mixing": 0.9},
        "previous": {"joint_mrr": 0.1, "pair_mrr": 0.28},
        "pca_procrustes_16": {"joint_mrr": 0.1, "pair_mrr": 0.31, "transfer": 0.5, "dataset_nmi": 0.2},
        "pca_procrustes_32": {"joint_mrr": 0.08, "pair_mrr": 0.32, "transfer": 0.5, "dataset_nmi": 0.05},
        "pca_pairwise_32": {"pair_mrr": 0.25},
        "gemini_32": {"transfer": 0.6},
    }
    found = []
    for model, measures in values.items():
        for split in (0, 3):
            p = {} if model == OURS else {"joint_p": 0.001, "pair_p": 0.2}
            value = {name: x + 0.001 * split for name, x in measures.items()} | p
            sets = {"transfer": {f"s{k}": measures.get("transfer", 0.5) + 0.01 * k for k in range(8)}}
            found.append((Job("pbmc", split, 0, model), Result(value, sets if "transfer" in measures else {})))
    return Table(found)


def test_goals_are_judged_on_hold_outs():
    found = {m.metric: m for m in goals.goals(comparison(), "pbmc")}
    assert found["joint_mrr"].met
    assert found["joint_mrr / aligned PCA"].ratio == pytest.approx(0.2015 / 0.1015)
    assert found["joint_mrr / aligned PCA"].met
    assert found["joint_mrr - 1.5 x aligned PCA"].met
    assert found["pair_mrr / previous"].met
    assert not found["pair_mrr / aligned PCA"].met
    assert found["pair_mrr / aligned PCA"].baseline == "pca_procrustes_32"
    assert found["pair_mrr / PCA aligned in pairs"].met
    assert found["dataset_nmi"].met
    assert "gemini_32" in found["transfer: p of being worse"].unit
    assert not found["transfer: p of being worse"].met
    assert found["transfer / within"].met
    assert "edges_positive" not in found


def test_the_page_says_what_is_ahead_and_what_is_not(tmp_path):
    report.write_report(comparison(), tmp_path)
    page = (tmp_path / "quality.md").read_text()
    assert "joint MRR: largest of all models that have it in pbmc (p < .05 against each of them: pbmc)" in page
    assert "pair MRR: pbmc 0.3015 against 0.3215 of pca_procrustes_32 (tied)" in page
    assert "| pair_mrr / aligned PCA | **0.938 ≥ 1** |" in page
    assert "| pca_procrustes, 16 d |" in page
    assert "| pca_procrustes, 32 d |" in page
    assert (tmp_path / "quality.png").stat().st_size > 1000
