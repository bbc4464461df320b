"""Intervals hold the true score as often as they say, and comparisons equal a plain reference."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from scipy import special, stats

from clipbert_cli.task.intervals import (
    Resampling,
    Sample,
    Statistic,
    difference,
    mcnemar,
    percentile_interval,
    proportion_interval,
    share_interval,
    student_quantile,
)


def grouped(rng: np.random.Generator, *, items: int, most: int, mean: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """The media item of each example, and the chance that it is right: the same for all examples of an item."""
    item = np.repeat(np.arange(items), rng.integers(1, most + 1, items))
    return item, rng.beta(4 * mean, 4 * (1 - mean), items)[item]


def sample(values: np.ndarray, item: np.ndarray) -> Sample:
    return Sample(values, [f"video{number}" for number in item])


def soft(rng: np.random.Generator, item: np.ndarray, chance: np.ndarray) -> Sample:
    """Answers that are right to a degree: 60 % of the chance on average."""
    return sample((rng.random(len(item)) < chance) * rng.choice([0.3, 0.6, 0.9], len(item)), item)


def words(rng: np.random.Generator, item: np.ndarray, chance: np.ndarray) -> Sample:
    """Some masked words per example, or none."""
    sizes = rng.integers(0, 5, len(item))
    return Sample(rng.binomial(sizes, chance), [f"video{number}" for number in item], sizes)


def hits(rng: np.random.Generator, item: np.ndarray, chance: np.ndarray) -> Sample:
    return sample(rng.random(len(item)) < chance, item)


@pytest.mark.parametrize(
    ("items", "most", "mean", "make"),
    [
        (12, 12, 0.5, hits),
        (20, 6, 0.3, hits),
        (20, 6, 0.5, words),
        (40, 6, 0.5, hits),
        (50, 5, 0.1, hits),
        (50, 5, 0.9, soft),
        (50, 5, 0.2, words),
        (100, 5, 0.5, hits),
        (100, 5, 0.95, hits),
        (100, 5, 0.1, soft),
        (300, 3, 0.05, hits),
    ],
)
def test_intervals_of_grouped_examples_hold_the_true_score_95_times_of_100(
    items: int, most: int, mean: float, make: Callable[..., Sample]
) -> None:
    rng = np.random.default_rng(items)
    held = 0
    for seed in range(1000):
        item, chance = grouped(rng, items=items, most=most, mean=mean)
        low, high = share_interval(make(rng, item, chance), Resampling(400, seed)) or (1, 0)
        held += low <= (0.6 * mean if make is soft else mean) <= high
    assert 930 <= held <= 970


def test_examples_drawn_one_by_one_would_have_intervals_that_are_too_narrow() -> None:
    rng = np.random.default_rng(0)
    item, chance = grouped(rng, items=60, most=40)
    right = rng.random(len(item)) < chance
    low, high = share_interval(sample(right, item), Resampling()) or (0, 0)
    alone_low, alone_high = share_interval(sample(right, np.arange(len(item))), Resampling()) or (0, 0)
    assert high - low > 1.5 * (alone_high - alone_low)


@pytest.mark.parametrize("make", [hits, soft, words])
def test_grouped_intervals_equal_those_of_scipy(make: Callable[..., Sample]) -> None:
    rng = np.random.default_rng(3)
    made = make(rng, *grouped(rng, items=500, most=8, mean=0.2))
    counts = np.bincount(made.item, made.sizes)
    sums = np.bincount(made.item, made.values)
    plain = stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    )
    assert percentile_interval(made, Sample.means, Resampling(20_000)) == pytest.approx(
        tuple(plain.confidence_interval), abs=6e-4
    )
    share = sums.sum() / counts.sum()
    error = plain.standard_error / (share * (1 - share))
    expected = special.expit(stats.t(499, special.logit(share), error).interval(0.95))
    assert share_interval(made, Resampling(20_000)) == pytest.approx(tuple(expected), abs=6e-4)


@pytest.mark.parametrize(("right", "trials"), [(0, 7), (7, 7), (1, 2), (220, 1000), (3, 40), (49_000, 100_000)])
def test_one_example_per_item_has_the_exact_interval(right: int, trials: int) -> None:
    expected = stats.binomtest(right, trials).proportion_ci(0.95, "exact")
    assert proportion_interval(right, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert share_interval(sample(np.arange(trials) < right, np.arange(trials)), Resampling()) == proportion_interval(
        right, trials
    )


def test_a_perfect_score_on_few_items_is_not_certain() -> None:
    item = np.repeat(np.arange(5), 20)
    for size in (None, np.full(100, 3)):
        right = np.ones(100) if size is None else size
        for values, expected in ((right, proportion_interval(5, 5)), (0 * right, proportion_interval(0, 5))):
            assert share_interval(Sample(values, [str(n) for n in item], size), Resampling()) == expected


def test_ranks_that_are_all_1_have_no_rank_below_1() -> None:
    assert percentile_interval(sample(np.ones(20), np.arange(20)), Sample.means, Resampling()) == (1.0, 1.0)


@pytest.mark.parametrize("sizes", [[0, 3], [0, 0, 2], [0, 5, 0, 7], [0, 0]])
def test_media_items_of_which_nothing_is_counted_are_no_fault(sizes: list[int]) -> None:
    right = [max(size - 1, 0) for size in sizes]
    made = Sample(right, [str(n) for n in range(len(sizes))], sizes)
    found = share_interval(made, Resampling())
    assert (found is None) == (sum(sizes) == 0)
    if found:
        assert 0 <= found[0] < sum(right) / sum(sizes) < found[1] <= 1
    assert difference(made, made, Sample.means, Resampling()).value == 0


def test_nothing_and_a_single_item_have_no_interval() -> None:
    assert percentile_interval(Sample([], []), Sample.means, Resampling()) is None
    assert share_interval(Sample([], []), Resampling()) is None
    assert share_interval(Sample([0.3, 0.6, 1.0], ["a"] * 3), Resampling()) is None
    assert percentile_interval(Sample([], []), Sample.medians, Resampling()) is None
    assert percentile_interval(Sample([0.3, 0.6, 1.0], ["a"] * 3), Sample.means, Resampling()) is None


@pytest.mark.parametrize("texts", [4, 5])
def test_medians_of_resamples_are_those_of_numpy(texts: int) -> None:
    rng = np.random.default_rng(texts)
    ranks, item = (
        rng.integers(1, 30, 10 * texts).astype(float),
        np.repeat(np.arange(10), texts)[rng.permutation(10 * texts)],
    )
    made = sample(ranks, item)
    order = sorted(set(item))
    for weights in Resampling(50).weights(10):
        expected = [
            np.median(
                np.concatenate([np.repeat(ranks[item == each], row[number]) for number, each in enumerate(order)])
            )
            for row in weights
        ]
        np.testing.assert_array_equal(made.medians(weights), expected)


@pytest.mark.parametrize("make", [hits, soft, words])
@pytest.mark.parametrize(
    "interval",
    [
        share_interval,
        functools.partial(percentile_interval, statistic=Sample.means),
        functools.partial(percentile_interval, statistic=Sample.medians),
    ],
)
def test_the_order_of_the_records_changes_nothing(make: Callable[..., Sample], interval: Callable[..., object]) -> None:
    rng = np.random.default_rng(4)
    made = make(rng, *grouped(rng, items=12, most=4))
    order = rng.permutation(len(made.values))
    sizes = None if made.sizes is None else made.sizes[order]
    other = Sample(made.values[order], [f"video{number}" for number in made.item[order]], sizes)
    first = Sample(made.values, [f"video{number}" for number in made.item], made.sizes)
    assert interval(first, resampling=Resampling(100)) == pytest.approx(
        interval(other, resampling=Resampling(100)), rel=1e-12
    )


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 10, 100, 10_000])
def test_quantiles_of_students_t_are_those_of_scipy(freedom: int) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 5), (10, 20), (0, 9), (300, 240), (1, 0)])
def test_mcnemar_is_the_binomial_test_of_scipy(wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("statistic", [Sample.means, Sample.medians])
def test_equal_systems_differ_by_0_with_p_1(statistic: Statistic) -> None:
    item, chance = grouped(np.random.default_rng(1), items=30, most=4)
    made = sample(chance.round(1), item)
    found = difference(made, made, statistic, Resampling())
    assert (found.value, found.interval, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_paired_differences_equal_those_of_scipy() -> None:
    rng = np.random.default_rng(5)
    item, chance = grouped(rng, items=400, most=5)
    first, second = (rng.random((2, len(item))) < chance + np.array([[0.03], [0.0]])).astype(float)
    found = difference(sample(first, item), sample(second, item), Sample.means, Resampling(20_000))
    sums, counts = np.bincount(item, first - second), np.bincount(item)
    expected = stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    )
    assert found.value == pytest.approx(sums.sum() / counts.sum())
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=1e-3)
    # The resampled differences are nearly normal here, so that the p of a normal distribution is a reference.
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.value) / expected.standard_error), abs=0.02)


@pytest.mark.parametrize(
    ("items", "mean", "better"), [(20, 0.5, 0.05), (20, 0.1, 0.03), (50, 0.9, 0.0), (100, 0.1, 0.05)]
)
def test_intervals_of_differences_hold_the_true_one_95_times_of_100(items: int, mean: float, better: float) -> None:
    rng = np.random.default_rng(items)
    held = 0
    for seed in range(1000):
        item, chance = grouped(rng, items=items, most=6, mean=mean)
        # The first system is right for a share of the other's mistakes as well.
        first, second = hits(rng, item, chance + better * (1 - chance)), hits(rng, item, chance)
        low, high = difference(first, second, Sample.means, Resampling(400, seed)).interval or (1, 0)
        held += low <= better * (1 - mean) <= high
    assert 930 <= held <= 970


def test_the_p_of_equal_systems_is_small_as_rarely_as_it_should_be() -> None:
    rng = np.random.default_rng(8)
    small = 0
    for seed in range(400):
        item, chance = grouped(rng, items=50, most=6)
        first, second = rng.random((2, len(item))) < chance
        small += difference(sample(first, item), sample(second, item), Sample.means, Resampling(400, seed)).p < 0.05
    # 5 % of 400 are 20; the standard deviation is 4.4.
    assert 7 <= small <= 33


def test_the_same_seed_gives_the_same_numbers_and_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    item, chance = grouped(np.random.default_rng(2), items=50, most=4)
    made = sample(chance, item)
    whole = percentile_interval(made, Sample.means, Resampling(300, 7))
    assert (
        whole
        == percentile_interval(made, Sample.means, Resampling(300, 7))
        != percentile_interval(made, Sample.means, Resampling(300, 8))
    )
    monkeypatch.setattr("clipbert_cli.task.intervals._PART", 50 * 7)
    assert percentile_interval(made, Sample.means, Resampling(300, 7)) == pytest.approx(whole, rel=1e-12)
