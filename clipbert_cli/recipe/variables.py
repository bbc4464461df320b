"""Environment variables in recipes: `${NAME}`, `${NAME:-default}`, and `$${` for a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clipbert_cli.recipe.messages import type_at
from clipbert_cli.recipe.yaml_nodes import KeyPath, Mistake, Node, plain_scalar

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{")


class Variables:
    """Fills `${NAME}` from an environment and notes what it could not fill; such text stays as it is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.unset: list[Mistake] = []
        self.malformed: list[Mistake] = []

    def fill(self, node: Node, path: KeyPath = ()) -> Node:
        if isinstance(node.value, dict):
            return Node({key: self.fill(child, (*path, key)) for key, child in node.value.items()}, node.origin)
        if isinstance(node.value, list):
            return Node([self.fill(child, (*path, at)) for at, child in enumerate(node.value)], node.origin)
        if not isinstance(node.value, str) or "${" not in node.value:
            return node
        text = _REFERENCE.sub(lambda match: self._value(match, node, path), node.value)
        is_typed = node.plain and type_at(path) is not str
        return Node(plain_scalar(text) if is_typed else text, node.origin)

    def _value(self, match: re.Match[str], node: Node, path: KeyPath) -> str:
        if match[0] == "$${":
            return "${"
        if match["name"] is None:
            says = f" is {node.value}: a variable is ${{NAME}} or ${{NAME:-default}}; $${{ stands for a plain ${{"
            return self._note(self.malformed, Mistake(node.origin, path, says), match[0])
        value = self.environment.get(match["name"]) or match["default"]
        if value is None:
            says = f" is {node.value}: the environment variable {match['name']} is not set"
            return self._note(self.unset, Mistake(node.origin, path, says), match[0])
        return value

    @staticmethod
    def _note(found: list[Mistake], mistake: Mistake, text: str) -> str:
        if mistake not in found:
            found.append(mistake)
        return text


def escape(text: str) -> str:
    """Text that fills back to itself."""
    return text.replace("${", "$${")


def escaped(value: Any) -> Any:
    """Plain values with every text in them escaped."""
    if isinstance(value, dict):
        return {key: escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escaped(inner) for inner in value]
    return escape(value) if isinstance(value, str) else value


def restore(values: Any, written: Any, path: KeyPath) -> None:
    """Puts back what stood at a key path before variables were filled."""
    for key in path[:-1]:
        values, written = values[key], written[key]
    values[path[-1]] = written[path[-1]]
