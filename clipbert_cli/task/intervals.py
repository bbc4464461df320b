"""Intervals and paired comparisons of scores, with plain numpy.

Examples of one media item are not independent, so media items are drawn and not examples: a bootstrap resample holds
all examples of each media item that was drawn, as often as it was drawn.

Legend: N examples, M media items, R resamples, c resamples of one part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
"""The share of data sets whose interval holds the true score."""

Interval = tuple[float, float]

# Draws of one part of the resamples: 4 million int64 are 32 MB, whatever the size of the split.
_PART = 4_000_000


@dataclass(frozen=True)
class Resampling:
    """The number of times that media items are drawn anew, and the seed of the draws."""

    resamples: int = 2000
    seed: int = 1

    def weights(self, items: int) -> Iterator[np.ndarray]:
        """Yield (c, M) int64: how often each of `items` media items was drawn in each resample, part by part."""
        rng = np.random.default_rng(self.seed)
        left, size = self.resamples, max(1, _PART // items)
        while left:
            count = min(left, size)
            drawn = rng.integers(items, size=(count, items)) + items * np.arange(count)[:, None]  # (c, M)
            yield np.bincount(drawn.ravel(), minlength=count * items).reshape(count, items)
            left -= count


class Sample:
    """The values of N examples and the media items that they belong to.

    Args:
        sizes: how much each example counts in a mean, such as its number of masked words; its value is a sum over
            these. Default: 1.
    """

    def __init__(
        self, values: Sequence[float] | np.ndarray, media: Sequence[str], sizes: Sequence[float] | None = None
    ) -> None:
        self.values = np.asarray(values, dtype=np.float64)  # (N,)
        # In the order of their names, so that the order of the records does not decide which are drawn.
        numbers = {media_id: number for number, media_id in enumerate(sorted(set(media)))}
        self.item = np.array([numbers[media_id] for media_id in media], dtype=np.int64)  # (N,)
        self.items = len(numbers)
        self.sizes = None if sizes is None else np.asarray(sizes, dtype=np.float64)  # (N,)

    def means(self, weights: np.ndarray) -> np.ndarray:
        """Return (c,): the mean over the examples of each resample, 0 where it counts nothing; weights are (c, M)."""
        sums = np.bincount(self.item, self.values, minlength=self.items)  # (M,)
        counts = np.bincount(self.item, self.sizes, minlength=self.items)  # (M,)
        total = weights @ counts
        # Media items without a masked word can be all that a resample has.
        return np.divide(weights @ sums, total, out=np.zeros(len(weights)), where=total > 0)

    def medians(self, weights: np.ndarray) -> np.ndarray:
        """Return (c,): the median over the examples of each resample; weights are (c, M)."""
        order = np.argsort(self.values, kind="stable")
        reached = np.cumsum(weights[:, self.item[order]], axis=1)  # (c, N), how many examples up to each value
        total = reached[:, -1:]
        # The median of an even number of values is the mean of the two in the middle, which are one for an odd number.
        lower = np.argmax(reached >= (total + 1) // 2, axis=1)  # (c,)
        upper = np.argmax(reached >= total // 2 + 1, axis=1)
        result: np.ndarray = (self.values[order[lower]] + self.values[order[upper]]) / 2
        return result


Statistic = Callable[[Sample, np.ndarray], np.ndarray]
"""`Sample.means` or `Sample.medians`."""


def share_interval(sample: Sample, resampling: Resampling) -> Interval | None:
    """Return the interval of a mean of values from 0 to their size, or None if nothing, or one media item, is counted.

    It is exact (Clopper and Pearson, 1934) for values 0 and 1 if each media item has one example, and for the mean 0 or
    1: every resample is then the same, so that a bootstrap would claim certainty. Else the bootstrap's standard error
    makes an interval of Student's t on the scale of log-odds, where the error of a share near 0 or 1 is symmetric
    (as `svyciprop` with the method "logit" in R's package survey).
    """
    values, sizes = sample.values, np.ones_like(sample.values) if sample.sizes is None else sample.sizes
    if not sizes.sum():
        return None
    share = values.sum() / sizes.sum()
    single = sample.sizes is None and sample.items == len(values) and bool(np.isin(values, (0.0, 1.0)).all())
    if single or share in (0.0, 1.0):
        return proportion_interval(round(share * sample.items), sample.items)
    if sample.items < 2:
        return None
    middle, odds_per_share = math.log(share / (1 - share)), 1 / (share * (1 - share))
    half = odds_per_share * _reach(sample.items) * float(_resampled(sample, Sample.means, resampling).std())
    # The logistic function, as a hyperbolic tangent, which does not overflow.
    low, high = ((1 + math.tanh(log_odds / 2)) / 2 for log_odds in (middle - half, middle + half))
    return low, high


def percentile_interval(sample: Sample, statistic: Statistic, resampling: Resampling) -> Interval | None:
    """Return the bootstrap interval of a mean or median, or None if there is no example, or one media item."""
    return _quantiles(sample, _resampled(sample, statistic, resampling)) if len(sample.values) else None


def _resampled(sample: Sample, statistic: Statistic, resampling: Resampling) -> np.ndarray:
    """Return (R,): the statistic of every resample."""
    return np.concatenate([statistic(sample, weights) for weights in resampling.weights(sample.items)])


def _quantiles(sample: Sample, found: np.ndarray) -> Interval | None:
    """Return the interval that holds the middle of the resampled statistic; None for a single media item.

    Percentiles of few media items are too narrow, as a normal interval is where Student's t is right. They are taken
    further out by that much (Hesterberg, "What Teachers Should Know about the Bootstrap", 2014, section 5.3).
    """
    if sample.items < 2:
        # One media item says nothing about others.
        return None
    tail = NormalDist().cdf(-_reach(sample.items))
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def _reach(items: int) -> float:
    """Return the standard deviations of resamples of so many media items to the end of Student's interval."""
    # Resamples of n items vary less than samples do, by the factor (n - 1) / n in the variance.
    return math.sqrt(items / (items - 1)) * student_quantile((1 + LEVEL) / 2, items - 1)


def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution (Hill, Algorithm 396, 1970); right to 0.1 % and better."""
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        tail = 2 * (1 - probability)
        return math.sqrt(2 / (tail * (2 - tail)) - 2)
    z = NormalDist().inv_cdf(probability)
    # The expansion of Cornish and Fisher in powers of 1 / freedom.
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def _at_most(hits: int, trials: int, chance: float) -> float:
    """Return the probability of `hits` hits or fewer in independent trials; 0 < chance < 1."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    ways = (logs[-1] - logs - logs[::-1])[: hits + 1]  # logarithms of the binomial coefficients
    numbers = np.arange(hits + 1)
    logs = ways + numbers * math.log(chance) + (trials - numbers) * math.log1p(-chance)
    return min(1.0, float(np.exp(logs).sum()))


def proportion_interval(hits: int, trials: int) -> Interval:
    """Return the interval of Clopper and Pearson for the chance of a hit, in 0..1."""
    # The lower limit for hits is the upper limit for misses, seen from the other side.
    low = 0.0 if hits == 0 else 1 - _upper_limit(trials - hits, trials)
    return low, 1.0 if hits == trials else _upper_limit(hits, trials)


def _upper_limit(hits: int, trials: int) -> float:
    """Return the chance at which `hits` or fewer have the probability of one tail; it falls with the chance."""
    low, high = 0.0, 1.0
    # 50 halvings reach the precision of a float.
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(hits, trials, middle) > (1 - LEVEL) / 2 else (low, middle)
    return (low + high) / 2


def mcnemar(wins: int, losses: int) -> float:
    """Return the two-sided p of McNemar's exact test.

    Under the hypothesis that both systems are right equally often, each example that only one of them has right is as
    likely a win as a loss.
    """
    if not wins + losses:
        return 1.0
    return min(1.0, 2 * _at_most(min(wins, losses), wins + losses, 0.5))


@dataclass(frozen=True)
class Difference:
    """The first system's statistic minus the second's on the same examples.

    `p` is the probability that two equal systems differ by as much or more.
    """

    value: float
    interval: Interval | None
    p: float


def difference(first: Sample, second: Sample, statistic: Statistic, resampling: Resampling) -> Difference:
    """Compare a statistic of two systems over the same examples in the same order.

    Means have the interval of Student's t with the bootstrap's standard error, medians the bootstrap's percentiles.
    """

    # Both systems meet the same resamples: what makes a resample easy for both of them cancels out.
    def differences(sample: Sample, weights: np.ndarray) -> np.ndarray:
        return statistic(sample, weights) - statistic(second, weights)

    value = float(differences(first, np.ones((1, first.items), dtype=np.int64))[0])
    found = _resampled(first, differences, resampling)
    interval: Interval | None = None
    if statistic is Sample.medians:
        interval = _quantiles(first, found)
    elif first.items > 1:
        half = _reach(first.items) * float(found.std())
        interval = value - half, value + half
    # Moved to the mean 0, the resamples show which differences two equal systems have. The observed one counts too, so
    # that p is never 0. The tolerance counts sums of the same numbers in another order as equal.
    larger = np.abs(found - value) >= abs(value) - 1e-12
    return Difference(value, interval, (1 + int(larger.sum())) / (1 + len(found)))
