"""Every number of a recipe has an upper bound, and a value beyond it is one message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clipbert_cli.errors import RecipeError
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import Recipe


def numbers(node: Any, path: str, definitions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, declaration) of every number in a JSON schema."""
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    if node.get("type") in ("integer", "number") and "enum" not in node:
        yield path, node
    for option in node.get("anyOf", []):
        yield from numbers(option, path, definitions)
    for name, child in node.get("properties", {}).items():
        yield from numbers(child, f"{path}.{name}" if path else name, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from numbers(node[key], path, definitions)


SCHEMA = Recipe.model_json_schema()
NUMBERS = list(numbers(SCHEMA, "", SCHEMA["$defs"]))


def test_all_numbers_are_looked_at() -> None:
    paths = {path for path, _ in NUMBERS}
    assert {"seed", "data.workers", "data.fps", "model.bert.hidden_size", "model.visual.depths", "train.eps"} <= paths
    assert len(paths) > 40


@pytest.mark.parametrize(("path", "declared"), NUMBERS, ids=[path for path, _ in NUMBERS])
def test_every_number_has_bounds(path: str, declared: dict[str, Any]) -> None:
    assert {"maximum", "exclusiveMaximum"} & declared.keys()
    assert {"minimum", "exclusiveMinimum"} & declared.keys()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.workers", "1000"),
        ("data.fps", "1e308"),
        ("data.fps", ".inf"),
        ("data.fps", ".nan"),
        ("data.max_pixels", "100000000000000000000"),
        ("model.bert.num_hidden_layers", "1000000000"),
        ("model.bert.hidden_size", "1000000"),
        ("train.learning_rate", ".inf"),
        ("train.epochs", "10000000000"),
        ("infer.num_clips", "1000000"),
    ],
)
def test_a_number_beyond_its_bound_is_refused(key: str, value: str) -> None:
    with pytest.raises(RecipeError, match=key):
        load_recipe("demo_qa", overrides=[f"{key}={value}"])
