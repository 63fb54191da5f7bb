"""Statistics of comparisons, against formulas and counts by hand."""

import numpy as np
import pytest

from engine.statistics import bootstrap_difference, bootstrap_mean, mcnemar


def hits(right: int, videos: int) -> np.ndarray:
    return (np.arange(videos) < right).astype(bool)


def test_mcnemar_counts_what_only_one_has_right() -> None:
    first = np.array([True, True, True, False, False, True])
    second = np.array([True, False, False, True, False, False])
    result = mcnemar(first, second)
    assert (result.only_first, result.only_second) == (3, 1)
    assert result.p == pytest.approx(2 * (1 + 4) / 16)  # 0 or 1 of 4 fair tosses, both sides
    assert mcnemar(first, first).p == 1
    assert mcnemar(hits(10, 10), hits(0, 10)).p == pytest.approx(2 / 2**10)
    with pytest.raises(ValueError, match=r"same length, got \(6,\) and \(5,\)"):
        mcnemar(first, second[:5])


def test_the_interval_of_a_mean_is_that_of_a_binomial_share() -> None:
    """One run: only videos are drawn, so the deviation is sqrt(p (1 - p) / V)."""
    interval = bootstrap_mean(hits(120, 200)[None].astype(float))
    deviation = (0.6 * 0.4 / 200) ** 0.5
    assert interval.value == pytest.approx(0.6)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.05)


def test_runs_that_differ_widen_the_interval() -> None:
    videos = hits(60, 100).astype(float)
    same = bootstrap_mean(np.stack([videos, videos]))
    differing = bootstrap_mean(np.stack([videos, np.zeros(100)]))
    assert differing.value == pytest.approx(0.3)
    assert differing.low == 0  # a quarter of the resamples has the second run alone
    assert differing.high - differing.low > 2 * (same.high - same.low)


def test_a_group_is_drawn_as_a_whole() -> None:
    """Ten speakers, each all right or all wrong: the interval is that of ten values, not of a thousand."""
    groups = np.repeat(np.arange(10), 100)
    values = (groups < 5).astype(float)[None]
    wide, narrow = bootstrap_mean(values, groups), bootstrap_mean(values)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(10, rel=0.1)


def test_a_difference_is_paired_by_video() -> None:
    """Both are right on the same videos but for five: the difference is far surer than either mean."""
    first, second = hits(100, 200)[None].astype(float), hits(105, 200)[None].astype(float)
    interval = bootstrap_difference(first, second)
    deviation = (0.025 * 0.975 / 200) ** 0.5
    assert interval.value == pytest.approx(0.025)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)
    assert interval.excludes(0)
    assert not bootstrap_difference(first, first).excludes(0)
    with pytest.raises(ValueError, match="same videos"):
        bootstrap_difference(first, second[:, :10])


def test_videos_that_a_run_has_not_seen_are_left_out() -> None:
    values = np.array([[1.0, 0.0, np.nan, np.nan], [1.0, 1.0, 0.0, 1.0]])
    assert bootstrap_mean(values).value == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match="no value"):
        bootstrap_mean(np.full((2, 3), np.nan))
