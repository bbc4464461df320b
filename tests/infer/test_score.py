"""Predictions are found by media item and text: reordered records change no score, changed ones are refused."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import DEMO_RECIPES

from clipbert_cli.build import build_task
from clipbert_cli.errors import PredictionsError
from clipbert_cli.infer import prediction_lines as module
from clipbert_cli.infer.prediction_lines import TextList, prediction_lines
from clipbert_cli.infer.score import evaluate
from clipbert_cli.infer.score_folder import ScoreFolder, Scoring
from clipbert_cli.printable import COUNTED
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.splits import read_split
from clipbert_cli.task.base import Task
from clipbert_cli.text.fields import Record
from clipbert_cli.text.record_files import read_records
from clipbert_cli.types import Example, Prediction, PredictionKey

# The field whose change makes another text of a record.
TEXT_FIELD = {
    "open_ended_qa": "question",
    "image_qa": "question",
    "multiple_choice": "question",
    "retrieval": "caption",
    "pretraining": "caption",
}
ANSWERED = ("open_ended_qa", "image_qa", "multiple_choice", "pretraining")
COUNTS = ("words", "words_right", "pairs", "pairs_right")
# Every record of a media item has its number in its text, and two of them are repeated.
COLOURS = ("red", "green", "blue")
Records = list[dict[str, Any]]


def made_records(task: str) -> Records:
    records: Records = []
    for number in range(12):
        text, colour = f"what is number {number} ?", COLOURS[number % 3]
        record: dict[str, Any] = {"media_id": f"v{number // 3}", TEXT_FIELD[task]: text}
        match task:
            case "open_ended_qa":
                record |= {"answer": colour, "answer_type": "what"}
            case "image_qa":
                record |= {"labels": {colour: 0.6}}
            case "multiple_choice":
                record |= {"options": [f"{each} {number}" for each in "abcd"], "answer": number % 4}
        records.append(record)
    return [*records, dict(records[4]), dict(records[4])]


class Split:
    """The records of a split in a file, and predictions that were made for them."""

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.name = folder, task
        self.records = made_records(task)
        self.preds = folder / "preds.jsonl"

    def read(self) -> tuple[Task, list[Example]]:
        path = self.folder / "split.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in self.records))
        recipe = load_recipe(
            DEMO_RECIPES[self.name], overrides=[f"data.splits.test.annotations={path}", "objective.num_options=4"]
        )
        task = build_task(recipe)
        return task, read_split(recipe, "test", task, task.check_truth)

    def predict(self) -> None:
        task, examples = self.read()
        self.write(prediction_lines(task, examples, made_predictions(self.name, examples)))

    def lines(self) -> Records:
        return [json.loads(line) for line in self.preds.read_text().splitlines()]

    def write(self, lines: Any) -> None:
        self.preds.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def score(self, **options: Any) -> dict[str, Any]:
        return evaluate(self.preds, *self.read(), **options).metrics

    def refusal(self, **options: Any) -> str:
        with pytest.raises(PredictionsError) as refused:
            self.score(**options)
        return str(refused.value)


def made_predictions(task: str, examples: Sequence[Example]) -> list[Prediction]:
    """A third of them right, in an order that is not that of the examples."""
    draw = np.random.default_rng(3)
    if task == "retrieval":
        media = dict.fromkeys(example.media_id for example in examples)
        return [Prediction(PredictionKey(each), {"scores": draw.random(len(examples), np.float32)}) for each in media]
    return [Prediction(example.key, made_fields(task, draw)) for example in reversed(examples)]


def made_fields(task: str, draw: np.random.Generator) -> dict[str, Any]:
    if task == "pretraining":
        return dict(zip(COUNTS, (5, int(draw.integers(5)), 2, int(draw.integers(2))), strict=True))
    answer = int(draw.integers(4)) if task == "multiple_choice" else COLOURS[int(draw.integers(3))]
    return {"answer": answer, "score": 0.5, "top": [{"answer": answer, "score": 0.5}]}


@pytest.fixture
def split(tmp_path: Path, request: pytest.FixtureRequest) -> Split:
    made = Split(tmp_path, request.param)
    made.predict()
    return made


every_task = pytest.mark.parametrize("split", DEMO_RECIPES, indirect=True)
answered = pytest.mark.parametrize("split", ANSWERED, indirect=True)
rankings = pytest.mark.parametrize("split", ["retrieval"], indirect=True)


def shuffled(items: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(items, len(items))


# ------------------------------------------------------------------------------------------------ another order


@every_task
@pytest.mark.parametrize("order", [lambda items: items[::-1], *(lambda items, s=s: shuffled(items, s) for s in (1, 2))])
def test_reordered_records_have_the_same_score(split: Split, order: Callable[[Records], Records]) -> None:
    before = split.score()
    split.records = order(split.records)
    assert split.score() == before


@every_task
def test_reordered_lines_have_the_same_score(split: Split) -> None:
    before = split.score()
    for seed in (1, 2, 3):
        split.write(shuffled(split.lines(), seed))
        assert split.score() == before


@rankings
def test_a_second_list_of_texts_is_refused_unless_it_is_the_same(split: Split) -> None:
    before = split.score()
    texts, *rows = split.lines()
    split.write([texts, *rows[:2], texts, *rows[2:]])
    assert split.score() == before
    other = texts["texts"][::-1]
    split.write([texts, *rows, {"texts_digest": TextList.parse(other).digest, "texts": other}])
    assert "the file lists other texts before" in split.refusal()


@rankings
def test_a_folder_of_scores_has_the_score_of_the_lines(split: Split) -> None:
    before = split.score()
    folder = score_folder(split)
    assert evaluate(folder, *split.read()).metrics == before
    split.records = shuffled(split.records, 5)
    assert evaluate(folder, *split.read()).metrics == before
    split.records[3]["caption"] = "something else"
    with pytest.raises(
        PredictionsError, match=r"1 of 14 texts of the split have no prediction; the first: 'v\d', 'someth"
    ):
        evaluate(folder, *split.read())


def score_folder(split: Split) -> Path:
    """The predictions of a split as a folder."""
    _, examples = split.read()
    predictions = made_predictions("retrieval", examples)
    media = tuple(prediction.media_id for prediction in predictions)
    folder = ScoreFolder(split.folder / "scores", Scoring(media, TextList.of(examples), "1234abcd", batch_size=4))
    with folder.opened(overwrite=False):
        folder.add(0, predictions)
        folder.finish()
    return folder.path


def spelled(value: Any, form: str) -> Any:
    """Records or lines with all texts in a Unicode form, to which an accent is added to every text of theirs."""
    return json.loads(unicodedata.normalize(form, json.dumps(value, ensure_ascii=False)))


def accented(records: Records) -> Records:
    letters = str.maketrans("aeou", "áèöū")
    texts = ("media_id", "question", "caption", "options", "answer", "labels")
    return [
        {
            name: json.loads(json.dumps(value).translate(letters)) if name in texts else value
            for name, value in record.items()
        }
        for record in records
    ]


@every_task
@pytest.mark.parametrize(("before", "after"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_another_unicode_form_of_records_is_the_same_record(split: Split, before: str, after: str) -> None:
    split.records = spelled(accented(split.records), before)
    split.predict()
    score = split.score()
    split.records = spelled(split.records, after)
    assert split.score() == score
    split.write(spelled(split.lines(), "NFD"))
    assert split.score() == score


@answered
def test_two_unicode_forms_of_one_record_are_repeats(split: Split) -> None:
    (record,) = accented(split.records[:1])
    split.records = [spelled(record, "NFC"), spelled(record, "NFD")]
    split.predict()
    assert [line.get("occurrence") for line in split.lines()] == [2, None]


# ------------------------------------------------------------------------------------------------ changed records


def change(split: Split, number: int, **fields: Any) -> Mapping[str, Any]:
    """Change a record, and return it as it was."""
    before = split.records[number]
    split.records[number] = {**before, **fields}
    return before


@every_task
def test_a_changed_text_is_refused_by_name_until_it_is_changed_back(split: Split) -> None:
    before = split.score()
    field = TEXT_FIELD[split.name]
    old = [change(split, number, **{field: f"other {number}"}) for number in (7, 9, 10)]
    message = split.refusal()
    assert "3 of 14" in message
    assert "the first: 'v2', 'other 7'" in message
    assert "what is number" in message  # the prediction that nothing belongs to
    for number, record in zip((7, 9, 10), old, strict=True):
        split.records[number] = dict(record)
    assert split.score() == before


@pytest.mark.parametrize("split", ["multiple_choice"], indirect=True)
@pytest.mark.parametrize(
    "options",
    [
        ["d 5", "c 5", "b 5", "a 5"],
        ["b 5", "a 5", "c 5", "d 5"],
        ["a 5", "b 5", "c 5", "e 5"],
        ["A 5", "b 5", "c 5", "d 5"],
    ],
)
def test_reordered_or_changed_options_are_refused(split: Split, options: list[str]) -> None:
    change(split, 5, options=options)
    assert f"1 of 14 records of the split have no prediction; the first: 'v1', 'what is number 5 ?', {options}" in (
        split.refusal()
    )


@every_task
def test_another_media_item_is_refused(split: Split) -> None:
    change(split, 0, media_id="w")
    assert "the first: 'w'" in split.refusal()


@every_task
def test_predictions_of_another_split_are_refused_even_in_part(split: Split) -> None:
    split.records = [{**record, "media_id": f"other_{record['media_id']}"} for record in split.records]
    for options in ({}, {"allow_partial": True}):
        assert "other_v0" in split.refusal(**options)


@answered
def test_of_exact_repeats_each_needs_its_prediction(split: Split) -> None:
    assert [line["occurrence"] for line in split.lines() if "occurrence" in line] == [3, 2]
    split.write([line for line in split.lines() if line.get("occurrence") != 3])
    assert "1 of 14 records of the split have no prediction" in split.refusal()
    split.records.pop()
    split.score()
    split.records += [dict(split.records[-1]), dict(split.records[-1])]
    assert "2 of 15 records of the split have no prediction" in split.refusal()


@answered
def test_a_part_is_scored_if_that_is_allowed(split: Split) -> None:
    whole = split.score()
    change(split, 2, **{TEXT_FIELD[split.name]: "other"})
    del split.records[0]
    assert "--allow-partial" in refusal_hint(split)
    found = split.score(allow_partial=True)
    assert (found["count"], found["missing"], found["unknown"]) == (12, 1, 2)
    assert found.keys() - whole.keys() == {"missing", "unknown"}


def refusal_hint(split: Split) -> str:
    with pytest.raises(PredictionsError) as refused:
        split.score()
    return str(refused.value.hint)


@rankings
def test_a_part_of_a_ranking_is_refused(split: Split) -> None:
    split.write(split.lines()[:-1])
    assert "1 of 4 media items of the split have no prediction; the first: 'v3'" in split.refusal(allow_partial=True)


# ------------------------------------------------------------------------------------------------ corrected truth


@pytest.mark.parametrize(
    ("split", "truth"),
    [
        ("open_ended_qa", lambda line: {"answer": line["answer"]}),
        ("image_qa", lambda line: {"labels": {line["answer"]: 1.0}}),
        ("multiple_choice", lambda line: {"answer": line["answer"]}),
    ],
    indirect=["split"],
)
def test_a_corrected_truth_is_scored_anew(split: Split, truth: Callable[[Mapping[str, Any]], Any]) -> None:
    """Every record gets the predicted answer as its truth, whatever truth the lines state."""
    assert split.score()["accuracy"] < 100
    said = {(line["media_id"], line["question"], line.get("occurrence", 1)): line for line in split.lines()}
    seen: dict[tuple[str, str], int] = {}
    for record in split.records:
        text = (record["media_id"], record["question"])
        seen[text] = seen.get(text, 0) + 1
        record.update(truth(said[*text, seen[text]]))
    assert split.score()["accuracy"] == 100


@pytest.mark.parametrize("split", ANSWERED[:3], indirect=True)
def test_what_the_lines_say_of_the_truth_does_not_count(split: Split) -> None:
    before = split.score()
    lines = split.lines()
    assert sum(line["correct"] for line in lines) * 100 / 14 == pytest.approx(before["accuracy"])
    split.write([{**line, "truth": "mine", "correct": True, "question": "?"} for line in lines])
    assert split.score() == before


# ------------------------------------------------------------------------------------------------ wrong predictions

NUMBERS = ("0.5", None, True, [0.5], {"a": 1})
# These are refused when the line is read, whatever field they are in.
NO_NUMBERS = (float("nan"), float("inf"), 10**400, -(10**30))
WRONG_ANSWERS: list[tuple[str, dict[str, Any], str]] = [
    *((task, {"answer": value}, "answer is ") for task in ANSWERED[:2] for value in (3, None, ["red"], True, 0.5)),
    *(("multiple_choice", {"answer": value}, "answer is ") for value in ("a", None, 4, -1, 1.0, True)),
    *((task, {"score": value}, "score is ") for task in ANSWERED[:3] for value in NUMBERS),
    *((task, {"score": value}, "JSON") for task in ANSWERED[:3] for value in NO_NUMBERS),
    *((task, {"top": value}, "top must be") for task in ANSWERED[:3] for value in ("red", ["red"], {"red": 1}, None)),
    *((task, {"top": [{"answer": None}]}, "answer is null") for task in ANSWERED[:3]),
    *(("pretraining", {name: value}, f"{name} is ") for name in COUNTS for value in ("5", None, -1, 2.0, True, 2**60)),
    ("pretraining", {"words_right": 6}, "words_right is 6: there are only 5 words"),
    ("pretraining", {"pairs_right": 3}, "pairs_right is 3: there are only 2 pairs"),
    *((task, {"media_error": value}, "media_error is ") for task in ANSWERED for value in (None, 3, True, [])),
    *((task, {"media_error": "no file"}, "has both media_error and answer") for task in ANSWERED[:3]),
    *((task, {"text_digest": value}, "text_digest is ") for task in ANSWERED for value in (None, 3, [])),
    *((task, {"occurrence": value}, "occurrence is ") for task in ANSWERED for value in (0, -1, "2", 1.0, True)),
    *((task, {"media_id": value}, "media_id is ") for task in DEMO_RECIPES for value in (None, 3, [])),
    *(("retrieval", {"scores": value}, "scores must be a list") for value in ("0.5", None, 0.5, {"a": 1}, [["a"]])),
    *(("retrieval", {"scores": [value] * 14}, "scores must be a list") for value in NUMBERS),
    *(("retrieval", {"scores": [value] * 14}, "JSON") for value in NO_NUMBERS),
    ("retrieval", {"scores": [1e39] * 14}, "scores has a number that no float32 can hold"),
    ("retrieval", {"scores": [0.5] * 13}, "scores has 13 numbers: it must have one for each of the 14 texts"),
    *(("retrieval", {"texts_digest": value}, "no line lists these texts") for value in (None, 3, "0123456789abcdef")),
    ("retrieval", {"media_error": "no file"}, "has both media_error and scores"),
]


@pytest.mark.parametrize(("split", "fields", "message"), WRONG_ANSWERS, indirect=["split"])
def test_a_wrong_prediction_is_refused_with_its_line(split: Split, fields: dict[str, Any], message: str) -> None:
    lines = split.lines()
    lines[3] = {**lines[3], **fields}
    split.write(lines)
    first, *_ = split.refusal().splitlines()
    assert first.startswith(f"{split.preds}:4: ")
    assert message in first


@pytest.mark.parametrize(
    ("split", "bad"),
    [
        ("open_ended_qa", {"text_digest": 3}),
        ("image_qa", {"media_id": "v0", "text_digest": "a", "occurrence": 0}),
        ("multiple_choice", {"media_id": "v0", "text_digest": "a"}),
        ("pretraining", {"media_id": "v0", "text_digest": "a", "media_error": 3}),
        ("retrieval", {"media_id": "v0", "texts_digest": "a", "scores": ["1"]}),
        ("retrieval", {"texts_digest": "a", "texts": []}),
        ("retrieval", ["a"]),
        ("open_ended_qa", "{]"),
    ],
    indirect=["split"],
)
def test_a_file_of_nothing_but_wrong_predictions_is_not_read_to_its_end(
    split: Split, bad: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def counted(path: Path) -> Iterator[Record | str]:
        nonlocal read
        for record in read_records(path):
            read += 1
            yield record

    monkeypatch.setattr(module, "read_records", counted)
    good = split.lines()
    split.write([*good, *[bad] * 30_000])
    message = split.refusal()
    # One more is read before the count is looked at, and the first of equal lines can be right.
    assert read <= len(good) + COUNTED + 2
    assert message.endswith("... and more: reading ended after 10,000 mistakes")
    assert len(message) < 3000


@pytest.mark.parametrize("split", ["retrieval"], indirect=True)
@pytest.mark.parametrize(
    ("bad", "first", "more"),
    [
        ({"texts_digest": "a"}, 'texts_digest is "a": no line lists these texts', "(and 10,999 more like this)"),
        ({"texts_digest": None}, "texts_digest is null: no line lists these texts", "(and 10,999 more like this)"),
        ({"texts_digest": "{}"}, 'texts_digest is "0": no line lists these texts', "... and 10,980 more"),
        ({"scores": []}, "scores has 0 numbers: it must have one for each of the", "(and 10,999 more like this)"),
        ({"scores": [0.5] * 99}, "scores has 99 numbers: it must have one for each of the", "(and 10,999 more like"),
    ],
)
def test_scores_without_their_texts_are_counted_to_the_end(
    split: Split, bad: dict[str, Any], first: str, more: str
) -> None:
    good = split.lines()
    line = next(each for each in good if "scores" in each)
    many = [{**line, **bad, "media_id": f"more{number}"} for number in range(11_000)]
    if bad.get("texts_digest") == "{}":
        many = [{**each, "texts_digest": str(number)} for number, each in enumerate(many)]
    split.write([*good, *many])
    message = split.refusal()
    assert f":{len(good) + 1}: {first}" in message
    assert more.replace(",", "") in message.replace(",", "")
    assert "reading ended" not in message


@rankings
@pytest.mark.parametrize(
    "harm",
    [
        lambda texts: texts["texts"].reverse(),
        lambda texts: texts["texts"].pop(),
        lambda texts: texts["texts"].append(dict(texts["texts"][0])),
        lambda texts: texts["texts"][2].update(media_id="v9"),
        lambda texts: texts["texts"][2].update(text_digest=None),
        lambda texts: texts.update(texts="a"),
        lambda texts: texts["texts"].__setitem__(1, "a"),
        lambda texts: texts.update(texts_digest=3),
    ],
)
def test_a_list_of_texts_that_was_changed_is_refused(split: Split, harm: Callable[[dict[str, Any]], None]) -> None:
    texts, *rows = split.lines()
    harm(texts)
    split.write([texts, *rows])
    assert split.refusal().startswith(f"{split.preds}:1: ")


@rankings
@pytest.mark.parametrize(
    "harm",
    [
        lambda ids: ids["texts"].reverse(),
        lambda ids: ids["media"].reverse(),
        lambda ids: ids["media"].__setitem__(0, "v9"),
        lambda ids: ids["texts"][0].update(media_id="v9"),
        lambda ids: ids["texts"][0].update(occurrence=2),
        lambda ids: ids["errors"].update(v0="no file"),
        lambda ids: ids.update(errors=[]),
        lambda ids: ids.update(media="v0"),
        lambda ids: ids["media"].__setitem__(0, "v1"),
        lambda ids: ids.pop("checksum"),
    ],
)
def test_ids_of_a_folder_that_were_changed_are_refused(split: Split, harm: Callable[[dict[str, Any]], None]) -> None:
    folder = score_folder(split)
    ids = json.loads((folder / "ids.json").read_text())
    harm(ids)
    (folder / "ids.json").write_text(json.dumps(ids))
    with pytest.raises(PredictionsError, match=r"ids\.json: the scores are damaged"):
        evaluate(folder, *split.read())


@rankings
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_of_a_folder_that_are_no_numbers_are_refused_with_their_row(split: Split, value: float) -> None:
    folder = score_folder(split)
    scores = np.load(folder / "scores.npy")
    scores[2:, 1] = value
    np.save(folder / "scores.npy", scores)
    with pytest.raises(PredictionsError, match=r"scores\.npy, row 2 \('v2'\): a score is not a finite number"):
        evaluate(folder, *split.read())


# ------------------------------------------------------------------------------------------------ media errors


def with_failed(split: Split, failed: str) -> Split:
    """A split whose predictions say that a media item could not be used."""
    task, examples = split.read()
    predictions = [
        Prediction(each.key, {"media_error": "it is missing"}) if each.key.media_id == failed else each
        for each in made_predictions(split.name, examples)
    ]
    split.write(prediction_lines(task, examples, predictions))
    return split


def without(split: Split, failed: str, folder: Path) -> Split:
    """The same predictions of a split that never had the media item."""
    _, examples = split.read()
    kept = [number for number, each in enumerate(examples) if each.media_id != failed]
    predictions = []
    for each in made_predictions(split.name, examples):
        if each.key.media_id != failed:
            fields = (
                {**each.fields, "scores": each.fields["scores"][kept]} if split.name == "retrieval" else each.fields
            )
            predictions.append(Prediction(each.key, fields))
    folder.mkdir()
    smaller = Split(folder, split.name)
    smaller.records = [record for record in split.records if record["media_id"] != failed]
    task, examples = smaller.read()
    smaller.write(prediction_lines(task, examples, predictions))
    return smaller


@every_task
@pytest.mark.parametrize("failed", ["v0", "v1", "v3"])
def test_media_errors_count_as_wrong_or_are_left_out_by_choice(split: Split, failed: str, tmp_path: Path) -> None:
    smaller, records = without(split, failed, tmp_path / "smaller"), len(split.records)
    whole = with_failed(split, failed).score()
    count = sum(record["media_id"] == failed for record in split.records)
    assert whole.pop("media_errors") == count
    left = split.score(leave_out_media_errors=True)
    assert left.pop("left_out") == count
    assert left == smaller.score(leave_out_media_errors=True)
    if split.name in ("open_ended_qa", "image_qa", "multiple_choice"):
        assert whole["count"] == records
        assert whole["accuracy"] == pytest.approx(left["accuracy"] * (records - count) / records)
    assert whole != left


@every_task
def test_nothing_is_said_of_media_that_could_be_used(split: Split) -> None:
    assert split.score() == split.score(leave_out_media_errors=True)
    assert {"media_errors", "left_out"}.isdisjoint(split.score())


@every_task
def test_a_score_of_nothing_is_refused(split: Split) -> None:
    split.records = [record for record in split.records if record["media_id"] == "v0"]
    assert "the media of all 3 records" in with_failed(split, "v0").refusal(leave_out_media_errors=True)


# ------------------------------------------------------------------------------------------------ submissions


def submitted(split: Split, ids: Sequence[Any]) -> Any:
    split.records = [{**record, "question_id": own} for record, own in zip(split.records, ids, strict=False)]
    split.records = [{name: value for name, value in each.items() if value is not None} for each in split.records]
    task, examples = split.read()
    return task.submission(prediction_lines(task, examples, made_predictions(split.name, examples)))


@pytest.mark.parametrize("split", ["image_qa"], indirect=True)
def test_a_submission_names_questions_by_their_own_numbers(split: Split) -> None:
    ids = [37 * number for number in range(14)]
    assert sorted(entry["question_id"] for entry in submitted(split, ids)) == ids
    task, examples = split.read()
    failed = [Prediction(each.key, {"media_error": "it is missing"}) for each in examples]
    assert {entry["answer"] for entry in task.submission(prediction_lines(task, examples, failed))} == {""}


@pytest.mark.parametrize("split", ["image_qa"], indirect=True)
@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ([None] * 3, '""'),
        ([1, 2, None], '""'),
        (["a", "b", "c"], '"c"'),
        ([-1, 2, 3], '"-1"'),
        # Three questions about the first image, and one about the second.
        ([0, 1, 2, 0], '"0"'),
    ],
)
def test_a_submission_without_numbers_of_its_own_is_refused(split: Split, ids: list[Any], named: str) -> None:
    """The place of a record in its file is no number of its own."""
    with pytest.raises(PredictionsError, match=f"question_id is {named} .* by a number of its own"):
        submitted(split, ids)
