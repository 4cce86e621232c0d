"""Summaries over seeds: means, deviations, and the paired test of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from musegnn.evaluation.seeds import model_measures, paired_difference, summarize_seeds


def document(mrr, baseline, *, function=None):
    joint = {
        "retrieval": {"held_out": {"overall": {"mrr": mrr / 10}}},
        "mixing": {"overall": 0.7},
        "conservation": {"overall": {"specificity": 0.8}},
    }

    def model(value, *, edges):
        retrieval = {"overall": {"mrr": value, "recall": 2 * value}}
        return {
            "retrieval": {"held_out": retrieval, "anchors": {"overall": {"mrr": None}}},
            "held_out_edges": {"overall": {"cosine": {"positive": 0.9, "all": 0.8}}} if edges else None,
            "space": {"effective_rank": 5.0} if edges else None,
            "joint": joint if edges else None,
        }

    found = {"subject": "ours", "models": {"ours": model(mrr, edges=True), "baseline": model(baseline, edges=False)}}
    if function is not None:
        found["function"] = {"models": {"ours": {"auroc": function}, "level": {"auroc": 0.5}}}
    return found


def test_measures_that_a_model_has_not_are_left_out():
    found = model_measures(document(0.2, 0.1, function=0.6))
    assert found["baseline"] == {"held_out_mrr": 0.1, "recall": 0.2}
    assert found["ours"].keys() == {
        "held_out_mrr",
        "joint_mrr",
        "mixing",
        "conservation",
        "recall",
        "positive_edges",
        "all_edges",
        "effective_rank",
        "function",
    }
    assert [found["ours"][name] for name in ("joint_mrr", "mixing", "conservation")] == [0.02, 0.7, 0.8]
    assert found["level"] == {"function": 0.5}


def test_seeds_are_averaged_and_compared_in_pairs():
    ours, baseline = [0.21, 0.25, 0.22], [0.20, 0.21, 0.17]
    found = summarize_seeds([document(a, b) for a, b in zip(ours, baseline, strict=True)], [4, 5, 6])
    assert found["seeds"] == [4, 5, 6]
    mean = found["models"]["ours"]["held_out_mrr"]
    assert mean == pytest.approx({"mean": np.mean(ours), "deviation": np.std(ours, ddof=1)})
    difference = found["differences"]["baseline"]["held_out_mrr"]
    assert difference["mean"] == pytest.approx(np.mean(ours) - np.mean(baseline))
    assert difference["p_value"] == pytest.approx(ttest_rel(ours, baseline).pvalue)
    assert "ours" not in found["differences"]


def test_one_seed_has_no_deviation_and_no_test():
    found = summarize_seeds([document(0.2, 0.1)], [0])
    assert np.isnan(found["models"]["ours"]["held_out_mrr"]["deviation"])
    assert np.isnan(paired_difference([0.1])["p_value"])
    assert np.isnan(paired_difference([0.1, 0.1, 0.1])["p_value"])


def test_seeds_that_differ_by_noise_alone_are_rarely_significant():
    random = np.random.default_rng(0)
    p = [paired_difference(random.normal(size=3).tolist())["p_value"] for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09
