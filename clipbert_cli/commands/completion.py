"""Completion in bash, zsh and fish: commands, options, and values that only this program knows.

    words of the shell ─► Cursor: command, values so far, parameter at the cursor ─► candidates ─► text for the shell

The shells' scripts are typer's (`--install-completion`), its own completion is not used: it reads the words before the
cursor with pydantic and knows nothing but choices.
"""

from __future__ import annotations

import os
from typing import Any

from clipbert_cli.commands.completion_cursor import Cursor, find_cursor
from clipbert_cli.commands.completion_shells import SHELLS, unquoted
from clipbert_cli.commands.completion_values import SOURCES, Candidates
from clipbert_cli.commands.meant import typed_name
from clipbert_cli.printable import printable

VARIABLE = "_CLIPBERT_COMPLETE"
"""The environment variable in which typer's scripts name the shell: `complete_bash`."""


def complete(command: Any) -> bool:
    """Print the candidates for the shell that asks, and return whether one asks that this module knows."""
    instruction, _, shell = os.environ.get(VARIABLE, "").partition("_")
    if instruction != "complete" or shell not in SHELLS:
        return False
    read, write = SHELLS[shell]
    words = read()
    try:
        cursor = find_cursor(command, [unquoted(word) for word in words[:-1]], unquoted(words[-1]))
        # The shell would obey an escape sequence in the name of a file or an id, and take a line break for the end.
        found = [(value, printable(meaning)) for value, meaning in candidates(cursor) if value.isprintable()]
    except Exception:  # noqa: BLE001 - a traceback in the middle of a line that is being typed helps nobody
        found = []
    text = write(found, words[-1])
    if text:
        print(text)
    return True


def candidates(cursor: Cursor) -> Candidates:
    """Yield what the word at the cursor may become."""
    found: Candidates = ()
    if cursor.option is not None:
        found = _values(cursor.option, cursor)
    elif cursor.word.startswith("-") and not cursor.options_end:
        found = _options(cursor)
    elif commands := getattr(cursor.command, "commands", None):
        # A word before the cursor that names no command makes the line wrong.
        found = () if cursor.plain else ((name, command.get_short_help_str()) for name, command in commands.items())
    elif cursor.argument is not None:
        found = _values(cursor.argument, cursor)
    return ((cursor.prefix + value, meaning) for value, meaning in found if value.startswith(cursor.word))


def _options(cursor: Cursor) -> Candidates:
    for option in cursor.command.params:
        if option.param_type_name == "option" and (option.multiple or typed_name(option) not in cursor.given):
            yield from ((flag, option.help or "") for flag in option.opts if flag.startswith("--"))
    yield "--help", "Show the help of the command."


def _values(parameter: Any, cursor: Cursor) -> Candidates:
    name = typed_name(parameter)
    if source := SOURCES.get(f"{cursor.path} {name}") or SOURCES.get(name):
        return source(cursor)
    # Older versions of typer have click's types.
    kind = getattr(parameter, "type_descriptor", None) or parameter.type
    return ((str(getattr(choice, "value", choice)), "") for choice in getattr(kind, "choices", None) or ())
