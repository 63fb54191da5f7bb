"""How sure a comparison of accuracies is: bootstrap over videos and runs, and McNemar's test of paired answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The 97.5 % quantiles of Student's t distribution with 1 to 15 degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
DRAWS = 4000  # resamples of a bootstrap; the ends of its interval then vary by some 3 % of its width
_BLOCK = 250  # resamples that are drawn at once; a divisor of DRAWS


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether a value lies outside the interval."""
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same videos: which videos only one of them has right, and how likely chance does that.

    Args:
        only_first: videos that the first classifier alone has right.
        only_second: videos that the second one alone has right.
        p: two-sided and exact: probability of a split as uneven as this if both were equally good.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """The exact McNemar test.

    Args:
        first, second: (V,) bool, whether each classifier has video v right.

    Raises:
        ValueError: they are not of the same videos.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"both must be (videos,) of the same length, got {first.shape} and {second.shape}")
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(second & ~first))
    trials, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(trials, i) for i in range(fewer + 1)) / 2**trials
    return McNemar(only_first, only_second, min(1.0, 2 * tail))


def bootstrap_mean(values: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> Interval:
    """The mean over runs and videos, and its interval: both are drawn with replacement, as others could have been.

    Args:
        values: (R, V) of run r and video v, such as 1.0 for a right answer; NaN where a run has not seen a video.
        groups: (V,) of anything; videos of one group, such as a speaker, are drawn together. None: one by one.
        seed: of the draws.

    Raises:
        ValueError: there is no value.
    """
    draws = _Draws(groups if groups is not None else np.arange(values.shape[1]), seed)
    return _interval(_mean(values, np.ones((1, len(values))), draws.all), draws.means(values))


def mean_of_runs(values: Sequence[float]) -> Interval:
    """The mean of a figure over runs, and Student's 95 % interval: where the mean of very many runs would be.

    With one value the interval is without limits.

    Raises:
        ValueError: there is no value.
    """
    count = len(values)
    if not count:
        raise ValueError("there is no value to take the mean of")
    mean = sum(values) / count
    if count == 1:
        return Interval(mean, -math.inf, math.inf)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    freedom = count - 1
    quantile = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.4 / freedom
    half = quantile * deviation / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def bootstrap_difference(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> Interval:
    """The difference of two means, second minus first, paired by video: both are measured on the same drawn videos.

    The runs of the two are drawn independently of each other.

    Args:
        first: (R, V), see `bootstrap_mean`.
        second: (R', V), of the same videos.
        groups: see `bootstrap_mean`.
        seed: of the draws.

    Raises:
        ValueError: they are not of the same videos, or there is no value.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"both must be (runs, videos) of the same videos, got {first.shape} and {second.shape}")
    draws = _Draws(groups if groups is not None else np.arange(first.shape[1]), seed)
    value = _mean(second, np.ones((1, len(second))), draws.all) - _mean(first, np.ones((1, len(first))), draws.all)
    return _interval(value, draws.means(second) - draws.means(first))


class _Draws:
    """How often each video is in each resample: (DRAWS, V)."""

    def __init__(self, groups: np.ndarray, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        names, members = np.unique(groups, return_inverse=True)
        self.all = np.ones((1, len(groups)))
        self._videos = self._counts(len(names))[:, members]

    def _counts(self, number: int) -> np.ndarray:
        """(DRAWS, number), in the smallest integers: a resample of 20,000 videos has as many counts."""
        share, integer = np.full(number, 1 / number), np.min_scalar_type(number)
        blocks = [self._random.multinomial(number, share, size=_BLOCK).astype(integer) for _ in range(DRAWS // _BLOCK)]
        return np.concatenate(blocks)

    def means(self, values: np.ndarray) -> np.ndarray:
        """(DRAWS,) means of resampled runs and videos."""
        runs = self._counts(len(values))
        blocks = [slice(start, start + _BLOCK) for start in range(0, DRAWS, _BLOCK)]
        return np.concatenate([_mean(values, runs[block], self._videos[block].astype(np.float64)) for block in blocks])


def _mean(values: np.ndarray, runs: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """(D,) means of values (R, V), with weights (D, R) of the runs and (D, V) of the videos; NaN are left out."""
    seen = ~np.isnan(values)
    if not seen.any():
        raise ValueError("there is no value to take the mean of")
    total = (videos @ np.where(seen, values, 0.0).T * runs).sum(1)
    count = (videos @ seen.T.astype(np.float64) * runs).sum(1)
    return total / np.where(count > 0, count, np.nan)  # a resample may consist of unseen videos alone


def _interval(value: np.ndarray, resampled: np.ndarray) -> Interval:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Interval(float(value[0]), float(low), float(high))
