"""Intervals, the sign-flip test and Holm's correction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lshbench.metrics import significance
from lshbench.metrics.significance import (
    bootstrap_interval,
    holm,
    paired_permutation_test,
)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation_for_many_queries() -> None:
    values = np.random.default_rng(0).beta(2, 5, 4000)
    interval = bootstrap_interval([values], resamples=4000)
    error = values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for sample in generator.random((200, 40)):
        interval = bootstrap_interval([sample], level=0.9, resamples=400)
        covered += interval.low <= 0.5 <= interval.high
    assert 165 <= covered <= 195


def test_intervals_are_the_same_for_the_same_seed_whatever_the_memory(monkeypatch) -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval([values], seed=3) == bootstrap_interval([values], seed=3)
    assert bootstrap_interval([values], seed=3) != bootstrap_interval([values], seed=4)
    monkeypatch.setattr(significance, "CELLS", 70)
    narrow = bootstrap_interval([values], seed=3)
    assert narrow.low < values.mean() < narrow.high


def test_equal_values_have_an_interval_of_no_width() -> None:
    interval = bootstrap_interval([np.full(20, 0.25)])
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("nested", [False, True])
def test_differences_between_seeds_widen_the_interval(nested: bool) -> None:
    queries = np.random.default_rng(0).random(500)
    seeds = queries + np.array([[-0.2], [0.0], [0.2]])
    values = list(seeds) if nested else seeds
    wide, narrow = bootstrap_interval(values), bootstrap_interval([queries])
    assert wide.mean == pytest.approx(queries.mean())
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_shared_queries_do_not_average_out_over_seeds_but_separate_ones_do() -> None:
    queries = np.random.default_rng(0).random(400)
    single = bootstrap_interval([queries])
    shared = bootstrap_interval(np.stack([queries] * 9))
    separate = bootstrap_interval([queries] * 9)
    assert shared.high - shared.low == pytest.approx(single.high - single.low, rel=0.1)
    assert separate.high - separate.low < 0.6 * (single.high - single.low)


def test_seeds_with_different_numbers_of_queries_count_alike() -> None:
    interval = bootstrap_interval([np.zeros(3), np.ones(300)])
    assert interval.mean == 0.5
    assert (interval.low, interval.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "options"),
    [(np.empty(0), {}), (np.ones(3), {"level": 1.0}), (np.ones(3), {"resamples": 0})],
)
def test_impossible_intervals_are_refused(values, options) -> None:
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval([values], **options)


def test_the_sign_flip_test_on_a_worked_example() -> None:
    # Differences 1, 2, 3 and -1: of 16 sign patterns, those with |sum| >= 5 are 7, 5, 5 and their mirrors.
    test = paired_permutation_test(np.array([1.0, 2, 3, 0, 4]), np.array([0.0, 0, 0, 1, 4]))
    assert test.difference == pytest.approx(1.0)
    assert test.p_value == 6 / 16
    assert (test.exact, test.pairs) == (True, 5)


def test_small_samples_are_counted_exactly_as_by_enumeration_and_by_scipy() -> None:
    from scipy import stats

    generator = np.random.default_rng(5)
    for size in (1, 2, 5, 9):
        first, second = generator.integers(0, 5, (2, size)) / 10
        differences = first - second
        sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=size)]
        wanted = np.mean([value >= abs(differences.sum()) - 1e-9 for value in sums])
        test = paired_permutation_test(first, second)
        assert test.exact
        assert test.p_value == pytest.approx(wanted)
        if size > 1 and differences.any():
            theirs = stats.permutation_test(
                (first, second), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
            )
            assert test.p_value == pytest.approx(theirs.pvalue)


def test_large_samples_agree_with_scipy_within_sampling_error() -> None:
    from scipy import stats

    generator = np.random.default_rng(2)
    first = generator.random(60)
    second = first - generator.normal(0.02, 0.08, 60)
    test = paired_permutation_test(first, second, resamples=20_000)
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    assert not test.exact
    assert 0.01 < test.p_value < 0.5
    assert test.p_value == pytest.approx(theirs.pvalue, abs=0.015)


def test_a_sampled_p_value_is_never_0_and_does_not_depend_on_the_sides() -> None:
    first, second = np.linspace(0.5, 1, 200), np.linspace(0, 0.4, 200)
    test = paired_permutation_test(first, second, resamples=999)
    assert test.p_value == 1 / 1000
    assert paired_permutation_test(second, first, resamples=999).p_value == test.p_value


def test_equal_runs_do_not_differ() -> None:
    values = np.random.default_rng(0).random(30)
    test = paired_permutation_test(values, values)
    assert (test.difference, test.p_value) == (0.0, 1.0)


def test_runs_without_a_difference_have_p_values_spread_evenly() -> None:
    generator = np.random.default_rng(4)
    p_values = [paired_permutation_test(*generator.random((2, 30)), resamples=499, seed=n).p_value for n in range(300)]
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="paired"):
        paired_permutation_test(np.ones(3), np.ones(4))


def test_holm_on_a_worked_example() -> None:
    # Sorted: .005 * 4, .01 * 3, .03 * 2 and .04 * 1, which may not fall below .06.
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1.0, 1.0])
    assert holm(np.array([0.2])).tolist() == [0.2]
    assert holm(np.empty(0)).shape == (0,)
