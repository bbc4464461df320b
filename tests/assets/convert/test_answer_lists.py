"""The answer normaliser against what the published VQA evaluation gives, case by case."""

import pytest

from clipbert_cli.assets.convert.answer_lists import CONTRACTIONS, normalize_answer


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("net", "net"),
        ("Yes.", "yes"),
        ("A dog, and two cats!", "dog and 2 cats"),
        ("the", ""),
        ("", ""),
        ("none", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("t-shirt", "t shirt"),
        ("t -shirt", "t shirt"),
        ("no/yes", "no yes"),
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),
        ("red,white", "red white"),
        ("red, white", "red white"),
        ("3.", "3"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("10:30", "10:30"),
        ("dont", "don't"),
        ("don't", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),
        ("yalld've", "yalld've"),
        ("y'alld've", "y'all'd've"),
        ("oclock", "o'clock"),
        ("somebody'd", "somebodyd"),
        ("Its", "its"),
        ("what is  this ?", "what is this"),
    ],
)
def test_an_answer_is_written_as_the_benchmark_writes_it(raw, expected):
    assert normalize_answer(raw) == expected


def test_normalising_twice_changes_nothing_more_for_words():
    for short, long in CONTRACTIONS.items():
        assert normalize_answer(short) == long
