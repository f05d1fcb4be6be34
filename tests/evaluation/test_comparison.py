"""Is it luck? The tests against exact enumeration, other libraries, and models that differ or do not."""

import itertools

import numpy as np
import pytest
from scipy import stats

from core.ranking.comparison import (
    ALL,
    compare,
    compare_models,
    corrected,
    outcome,
    verdict,
)


def named(values) -> dict[str, float]:
    return {f"q{number}": float(value) for number, value in enumerate(values)}


def test_the_randomisation_test_is_that_of_all_signs():
    """Of twelve queries every assignment of signs can be written down."""
    generator = np.random.default_rng(3)
    gains = generator.normal(0.15, 0.4, 12)
    baseline = generator.random(12)
    means = [abs(np.dot(signs, gains) / 12) for signs in itertools.product((-1, 1), repeat=12)]
    exact = np.mean(np.array(means) >= abs(gains.mean()) - 1e-12)
    found = compare([named(baseline + gains)], [named(baseline)], permutations=200_000)
    assert found.difference == pytest.approx(gains.mean())
    assert found.p_value == pytest.approx(exact, abs=0.005)


def test_it_agrees_with_the_t_test_on_many_queries():
    generator = np.random.default_rng(1)
    baseline = generator.random(800)
    gains = generator.normal(0.012, 0.2, 800)
    found = compare([named(baseline + gains)], [named(baseline)])
    t_test = stats.ttest_1samp(gains, 0)
    assert found.p_value == pytest.approx(t_test.pvalue, abs=0.02)
    interval = t_test.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.002)
    assert found.standard_error == pytest.approx(stats.sem(gains), rel=1e-6)


def test_models_that_differ_by_chance_are_called_equal_19_times_in_20():
    generator = np.random.default_rng(7)
    found = [
        compare([named(generator.random(60))], [named(generator.random(60))], permutations=500, seed=number)
        for number in range(200)
    ]
    lucky = sum(comparison.p_value < 0.05 for comparison in found)
    assert lucky <= 20  # 10 are expected


def test_queries_are_paired_by_name_and_counted():
    mine = {"a": 0.5, "b": 1.0, "c": 0.2, "only mine": 1.0}
    theirs = {"c": 0.2, "b": 0.5, "a": 0.6, "only theirs": 1.0}
    found = compare([mine], [theirs])
    assert (found.queries, found.wins, found.losses, found.ties) == (3, 1, 1, 1)
    fewer_is_better = compare([mine], [theirs], rising=False)
    assert (fewer_is_better.wins, fewer_is_better.losses) == (1, 1)
    assert compare([{"a": 1.0}], [{"b": 1.0}]) is None


def test_the_same_seed_gives_the_same_numbers():
    generator = np.random.default_rng(0)
    one, other = named(generator.random(50)), named(generator.random(50))
    assert compare([one], [other], seed=3) == compare([one], [other], seed=3)
    assert compare([one], [other], seed=3) != compare([one], [other], seed=4)


def test_holms_correction_by_hand():
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert corrected([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert corrected([]) == []


def test_few_queries_say_nothing_however_they_differ():
    found = compare([named([1.0] * 9)], [named([0.0] * 9)])
    assert outcome(found, found.p_value, 0.05) == "no difference"
    assert "Too few queries" in verdict(found, found.p_value, 0.05, "ndcg@10")


def test_a_verdict_says_what_could_have_been_seen():
    generator = np.random.default_rng(5)
    baseline = generator.random(100)
    noise = generator.normal(0, 0.1, 100)
    found = compare([named(baseline + noise - noise.mean() + 0.001)], [named(baseline)])
    told = verdict(found, found.p_value, 0.05, "ndcg@10")
    assert told.startswith("No difference that these queries could show: ndcg@10 +0.0010")
    assert "They would show one of about 0.028" in told


def test_several_datasets_are_compared_each_and_together():
    generator = np.random.default_rng(2)
    baseline = {
        "large": {"ndcg@10": named(generator.random(400))},
        "small": {"ndcg@10": named(generator.random(30))},
        "triplets": {"margin": named(generator.random(30))},
    }
    better = {
        "large": {"ndcg@10": {query: value + 0.1 for query, value in baseline["large"]["ndcg@10"].items()}},
        "small": {"ndcg@10": {query: value + 0.3 for query, value in baseline["small"]["ndcg@10"].items()}},
        "triplets": baseline["triplets"],
    }
    found = {
        (item.model, item.dataset): item
        for item in compare_models("ndcg@10", {"better": better, "same": baseline}, baseline)
    }
    assert set(found) == {(model, name) for model in ("better", "same") for name in ("large", "small", ALL)}
    assert found["better", ALL].comparison.difference == pytest.approx(0.2)  # a dataset is a dataset
    assert found["better", ALL].outcome == found["better", "small"].outcome == "better"
    assert found["same", ALL].outcome == "no difference"
    assert found["same", ALL].comparison.p_value == 1.0


def test_a_metric_that_should_fall_is_judged_so():
    baseline = {"d": {"negative_score": named(np.linspace(0.5, 0.9, 50))}}
    lower = {"d": {"negative_score": named(np.linspace(0.5, 0.9, 50) - 0.2)}}
    (found,) = compare_models("negative_score", {"new": lower}, baseline)
    assert found.outcome == "better"
    assert found.comparison.wins == 50
