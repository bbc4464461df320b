"""The numbers of a score and the values that intervals are computed from are the same, for every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.base import Task
from clipbert_cli.task.image_qa import ImageQa
from clipbert_cli.task.intervals import Resampling, proportion_interval
from clipbert_cli.task.metrics import compare, comparison_tables, score_table
from clipbert_cli.task.multiple_choice import MultipleChoice
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.task.pretraining import Pretraining
from clipbert_cli.task.retrieval import Retrieval
from clipbert_cli.types import Example, PredictionKey, with_occurrences

Fields = dict[PredictionKey, Mapping[str, Any]]


def questions(seed: int, *, per_media: int = 4) -> tuple[list[Example], Fields]:
    rng = np.random.default_rng(seed)
    examples = with_occurrences(
        Example(None, f"v{n // per_media}", (f"question {n}",), "yes", ("what", "who", None)[n % 3])
        for n in range(40 * per_media)
    )
    fields: Fields = {each.key: {"answer": str(rng.choice(["yes", "no"])), "score": 0.5} for each in examples}
    fields[examples[3].key] = {"media_error": "broken"}
    return examples, fields


def soft_labels(seed: int) -> tuple[list[Example], Fields]:
    examples, fields = questions(seed)
    labels = {"yes": 1.0, "no": 0.3}
    return [Example(None, each.media_id, each.texts, labels, each.answer_type) for each in examples], fields


def choices(seed: int) -> tuple[list[Example], Fields]:
    rng = np.random.default_rng(seed)
    examples = [Example(None, f"v{n // 2}", ("a", f"b{n}", "c"), n % 3, "count", "which ?") for n in range(30)]
    return examples, {each.key: {"answer": int(rng.integers(3)), "score": 0.5} for each in examples}


def texts(seed: int) -> tuple[list[Example], Fields]:
    rng = np.random.default_rng(seed)
    examples = [Example(None, f"v{n % 25}", (f"text {n}",)) for n in range(40)]
    fields: Fields = {PredictionKey(f"v{n}"): {"scores": rng.random(40, dtype=np.float32)} for n in range(25)}
    fields[PredictionKey("v7")] = {"media_error": "broken"}
    return examples, fields


def masked(seed: int) -> tuple[list[Example], Fields]:
    rng = np.random.default_rng(seed)
    examples = [Example(None, f"v{n // 3}", (f"text {n}",)) for n in range(30)]
    fields: Fields = {}
    for each in examples:
        words, pairs = int(rng.integers(1, 6)), 4
        right = {"words_right": int(rng.integers(words + 1)), "pairs_right": int(rng.integers(pairs + 1))}
        fields[each.key] = {"words": words, "pairs": pairs, **right}
    fields[examples[5].key] = {"media_error": "broken"}
    return examples, fields


def made(kind: type[Task], **objective: Any) -> Task:
    return kind(ObjectiveConfig(**objective), InferConfig(), None)


TASKS = {
    "open_ended_qa": (made(OpenEndedQa), questions),
    "image_qa": (made(ImageQa), soft_labels),
    "multiple_choice": (made(MultipleChoice), choices),
    "retrieval": (made(Retrieval), texts),
    "retrieval, as the original": (made(Retrieval, as_original=True), texts),
    "pretraining": (made(Pretraining), masked),
}


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a score by their path."""
    found = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}/")
        else:
            found[f"{prefix}{name}"] = value
    return found


@pytest.mark.parametrize("name", TASKS)
def test_measures_are_the_numbers_of_the_score(name: str) -> None:
    task, make = TASKS[name]
    examples, fields = make(1)
    score = numbers(task.score(fields, examples))
    measures = task.measures(fields, examples)
    assert measures[0].name == task.main_metric
    for measure in measures:
        own = score[measure.name if measure.name in score else f"{measure.name}/accuracy"]
        assert measure.value == pytest.approx(own, rel=1e-12), measure.name
    left = {each.removesuffix("/accuracy") for each in score} - {measure.name for measure in measures}
    assert all(each.endswith(("count", "masked_words")) for each in left), left


@pytest.mark.parametrize("name", TASKS)
def test_every_number_has_an_interval_around_it_and_a_place_in_the_table(name: str) -> None:
    task, make = TASKS[name]
    examples, fields = make(2)
    measures = task.measures(fields, examples)
    intervals = {each.name: each.interval(Resampling(500)) for each in measures}
    for measure in measures:
        low, high = intervals[measure.name] or (0, 0)
        assert low <= measure.value <= high
        assert low < high
    table = score_table(measures, intervals)
    shown = " ".join(cell for row in table for cell in row)
    for interval in intervals.values():
        assert interval
        assert f"{interval[0]:.1f} to {interval[1]:.1f}" in shown
    assert len({len(row) for row in table}) == 1


@pytest.mark.parametrize("name", TASKS)
def test_identical_systems_have_difference_0_and_p_1(name: str) -> None:
    task, make = TASKS[name]
    examples, fields = make(3)
    measures = task.measures(fields, examples)
    for each in compare(measures, measures, Resampling(300)).values():
        assert (each.difference, each.interval, each.p) == (0.0, (0.0, 0.0), 1.0)
        assert (each.wins, each.losses, each.ties) == (0, 0, len(measures[0].sample.values)) or each.ties > 0
        assert each.mcnemar in (None, 1.0)


@pytest.mark.parametrize("name", TASKS)
def test_swapping_two_systems_swaps_wins_and_losses_and_signs(name: str) -> None:
    task, make = TASKS[name]
    examples, fields = make(4)
    other = make(5)[1]
    one, two = task.measures(fields, examples), task.measures(other, examples)
    forth, back = compare(one, two, Resampling(300)), compare(two, one, Resampling(300))
    for key, each in forth.items():
        assert each.difference == pytest.approx(-back[key].difference)
        assert (each.wins, each.losses, each.ties) == (back[key].losses, back[key].wins, back[key].ties)
        assert each.interval == pytest.approx([-end for end in (back[key].interval or ())][::-1])
        assert (each.p, each.mcnemar) == (back[key].p, back[key].mcnemar)


def test_wins_and_losses_are_counted_by_type_and_tested_exactly() -> None:
    task = made(OpenEndedQa)
    examples, fields = questions(6)
    _, other = questions(7)
    found = compare(task.measures(fields, examples), task.measures(other, examples), Resampling(300))
    assert list(found) == ["accuracy", "by_type/what", "by_type/who"]
    right = [[each[example.key].get("answer") == "yes" for example in examples] for each in (fields, other)]
    for key, kind in (("accuracy", None), ("by_type/who", "who")):
        own = [place for place, each in enumerate(examples) if kind in (None, each.answer_type)]
        wins = sum(right[0][place] > right[1][place] for place in own)
        losses = sum(right[0][place] < right[1][place] for place in own)
        assert (found[key].wins, found[key].losses) == (wins, losses)
        assert found[key].mcnemar == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)


def test_ranks_win_where_they_are_smaller_and_soft_labels_have_no_mcnemar() -> None:
    task, make = TASKS["retrieval"]
    examples, fields = make(8)
    best = {key: {"scores": np.array([e.media_id == key.media_id for e in examples], np.float32)} for key in fields}
    found = compare(task.measures(best, examples), task.measures(fields, examples), Resampling(300))
    assert found["mean_rank"].losses == 0
    assert found["mean_rank"].wins > 20
    assert found["mean_rank"].difference < 0
    assert found["mean_rank"].mcnemar is None
    assert found["recall_at_1"].mcnemar is not None
    task, make = TASKS["image_qa"]
    soft = compare(task.measures(make(1)[1], make(1)[0]), task.measures(make(2)[1], make(1)[0]), Resampling(300))
    assert soft["accuracy"].mcnemar is None
    differences, counts = comparison_tables(soft)
    assert len(differences) == len(counts) == 1 + len(soft)
    assert counts[1][-1] == "-"


def test_one_text_per_media_item_has_the_exact_interval() -> None:
    task = made(Retrieval)
    rng = np.random.default_rng(1)
    examples = [Example(None, f"v{n}", (f"text {n}",)) for n in range(50)]
    fields: Fields = {PredictionKey(f"v{n}"): {"scores": rng.random(50, dtype=np.float32)} for n in range(50)}
    for measure in task.measures(fields, examples):
        if "recall" in measure.name:
            hits = round(measure.value / 2)
            low, high = proportion_interval(hits, 50)
            assert measure.interval(Resampling(100)) == (100 * low, 100 * high)
