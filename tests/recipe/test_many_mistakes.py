"""A recipe of thousands of mistakes is answered in seconds, and lists a few of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clipbert_cli.errors import RecipeError
from clipbert_cli.printable import SHOWN
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.values import SECTION, Entry, Origin, merge

LINES = 12_000

CASES: dict[str, Callable[[int], str]] = {
    "keys at the top": lambda number: f"key{number}: {number}",
    "keys of a section": lambda number: f"{'train:' + chr(10) if not number else ''}  batch{number}: 1",
    "splits": lambda number: f"{'data: {splits: {' if not number else ''}a{number}: {{x: 1}},",
    "numbers as keys": lambda number: f"{number}: {number}",
    "one key again and again": lambda number: "seed: 1",
    "tags": lambda number: f"key{number}: !x 1",
    "wrong values": lambda number: f"{'data: {train_splits: [' if not number else ''}{number},",
    "variables": lambda number: f"a{number}: ${{A{number}}}",
}


@pytest.mark.parametrize("name", CASES)
def test_thousands_of_mistakes_are_counted_in_seconds(name: str, tmp_path: Path) -> None:
    text = "extends: demo_qa\n" + "\n".join(CASES[name](number) for number in range(LINES))
    text += {"splits": "}}", "wrong values": "]}"}.get(name, "")
    (tmp_path / "many.yaml").write_text(text[: 2**18 - 2])
    began = time.process_time()
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "many.yaml")
    assert time.process_time() - began < 10
    assert len(caught.value.lines) <= SHOWN + 1
    assert len(str(caught.value)) < 10_000


def test_the_first_of_many_unknown_keys_name_the_nearest_key(tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(
        "extends: demo_qa\ntrain:\n" + "".join(f"  batch_siz{number}: 1\n" for number in range(5000))
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "many.yaml")
    assert caught.value.lines[0].endswith("many.yaml:3: train.batch_siz0: unknown key; did you mean train.batch_size?")
    assert caught.value.lines[-1] == f"... and {5000 - SHOWN} more"


def test_a_recipe_larger_than_any_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text("".join(f"k{number}: 1\n" for number in range(90_000)))
    began = time.process_time()
    with pytest.raises(RecipeError, match="has more than 262144 bytes"):
        load_recipe(tmp_path / "many.yaml")
    assert time.process_time() - began < 2


def test_thousands_of_options_are_answered_in_seconds() -> None:
    began = time.process_time()
    with pytest.raises(RecipeError) as caught:
        load_recipe("demo_qa", overrides=[f"train.batch_siz{number}=1" for number in range(5000)])
    assert time.process_time() - began < 10
    assert "did you mean train.batch_size?" in caught.value.lines[0]


def test_thousands_of_replaced_values_are_merged_in_seconds() -> None:
    origin = Origin("a.yaml", 1)
    base = {(): Entry(SECTION, origin)}
    for number in range(20_000):
        base |= {(f"a{number}",): Entry(SECTION, origin), (f"a{number}", "b"): Entry(1, origin)}
    over = {(): Entry(SECTION, origin), **{(f"a{number}",): Entry(2, origin) for number in range(20_000)}}
    began = time.process_time()
    assert merge(base, over) == over
    assert time.process_time() - began < 2
