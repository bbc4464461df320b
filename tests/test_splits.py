"""The fields of the splits of a recipe, compared with each other."""

import pytest

from clipbert_cli.build import build_task
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.splits import check_columns
from clipbert_cli.text.fields import Columns, Record

QUESTION = {"video_id": "v", "question": "what ?", "answer": "red"}
CHOICE = {"video_id": "v", "options": ["red", "blue"], "answer": 0}


@pytest.mark.parametrize(
    ("base", "names", "train", "val", "said"),
    [
        ("demo_qa", {"answer_type": "kind"}, {**QUESTION, "kind": "what"}, QUESTION, "answer_type is kind"),
        (
            "demo_qa",
            {"start": "from", "end": "to"},
            {**QUESTION, "from": 0, "to": 1},
            {**QUESTION, "from": 0},
            "end is to",
        ),
        ("demo_vqa", {"example_id": "number"}, {**QUESTION, "number": 1}, QUESTION, "example_id is number"),
        ("demo_mc", {"question": "asked"}, {**CHOICE, "asked": "what ?"}, CHOICE, "question is asked"),
        (
            "demo_retrieval",
            {"start": "from"},
            {"video_id": "v", "caption": "c", "from": 0},
            {"video_id": "v", "caption": "c"},
            "start is from",
        ),
    ],
)
def test_a_named_field_that_one_split_lacks_is_warned_of_once(base, names, train, val, said):
    settings = [f"data.fields.{name}={own}" for name, own in names.items()]
    recipe = load_recipe(base, overrides=settings)
    for first, second, lacks in ((train, val, "val"), (val, train, "train")):
        read = {"train": Columns(names), "val": Columns(names)}
        read["train"].add(Record("a:1", first, names))
        read["val"].add(Record("b:1", second, names))
        (warning,) = check_columns(recipe, build_task(recipe), read)
        assert warning.startswith(f"data.fields.{said}, which no record of split {lacks!r} has; they have ")
