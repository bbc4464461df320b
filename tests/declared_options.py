"""The options and arguments of all commands, as they are declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from clipbert_cli.commands.app import app


def _of(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for parameter in command.params:
        yield path, parameter
    for name, inner in getattr(command, "commands", {}).items():
        yield from _of(inner, f"{path} {name}".strip())


def declared_options() -> list[tuple[str, Any]]:
    """Return the path of the command and the declaration of every option and argument."""
    return list(_of(typer.main.get_command(app)))


def type_of(parameter: Any) -> Any:
    """Return the Python type of an option's value."""
    return parameter.type_descriptor.annotation if hasattr(parameter, "type_descriptor") else parameter.type
