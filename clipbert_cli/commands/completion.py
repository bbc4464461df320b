"""Completion in bash, zsh and fish: commands, options, and values that only this program knows.

    words of the shell ─► Cursor: command, values so far, parameter at the cursor ─► candidates ─► text for the shell

The shells' scripts are typer's (`--install-completion`), its own completion is not used: it reads the words before the
cursor with pydantic and knows nothing but choices.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clipbert_cli.commands.completion_values import SOURCES, Candidates
from clipbert_cli.commands.options import choices_of
from clipbert_cli.commands.typed_line import TypedLine, arguments_of, options_of, read_line, typed_name
from clipbert_cli.printable import printable


def unquoted(word: str) -> str:
    """Return a word as the shell passes it to a command, also if its quotes are not closed yet."""
    for closing in ("", "'", '"'):
        try:
            parts = shlex.split(word + closing)
        except ValueError:
            continue
        return parts[0] if parts else ""
    return word


def _read_bash() -> list[str]:
    """Return the words up to the cursor. Bash splits them at `=` and `:` as well, which are joined again here."""
    words: list[str] = []
    pieces = os.environ["COMP_WORDS"].split("\n")
    join = False
    for piece in [*pieces, ""][1 : int(os.environ["COMP_CWORD"]) + 1]:
        is_break = bool(piece) and not piece.strip("=:")
        if words and (is_break or join):
            words[-1] += piece
        else:
            words.append(piece)
        join = is_break
    return words or [""]


def _write_bash(found: Candidates, word: str) -> str:
    # Bash replaces what follows the last of these characters, and inserts a candidate as it is.
    kept = max(word.rfind("="), word.rfind(":")) + 1
    quoted = word[:1] in ("'", '"')
    start = len(unquoted(word[:kept]))
    values = [value[start:] for value, _ in found]
    return "\n".join(values if quoted else [re.sub(r"([^\w@%+=:,./~-])", r"\\\1", value) for value in values])


def _read_line() -> list[str]:
    """Return the words up to the cursor of zsh and fish, which pass them as one text."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = re.findall(r"(?:[^\s'\"\\]|\\.|'[^']*'?|\"(?:[^\"\\]|\\.)*\"?)+", line)[1:]
    return words if words and not line[-1:].isspace() else [*words, ""]


def _write_zsh(found: Candidates, word: str) -> str:
    items = [
        shlex.quote(value.replace("\\", "\\\\").replace(":", "\\:") + (f":{meaning}" if meaning else ""))
        for value, meaning in found
    ]
    if not items:
        return "_files"
    return f"local -a _clipbert_found; _clipbert_found=({' '.join(items)}); _describe clipbert _clipbert_found"


def _write_fish(found: Candidates, word: str) -> str:
    lines = ["\t".join(filter(None, item)) for item in found]
    if os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        # fish asks first whether there is anything; if there is not, it completes names of files.
        raise SystemExit(0 if lines else 1)
    return "\n".join(lines)


SHELLS: dict[str, tuple[Callable[[], list[str]], Callable[[Candidates, str], str]]] = {
    "bash": (_read_bash, _write_bash),
    "zsh": (_read_line, _write_zsh),
    "fish": (_read_line, _write_fish),
}


@dataclass(frozen=True)
class Cursor:
    """The place in a command line that is being completed.

    Args:
        line: the words before the cursor.
        prefix: the option before the value in one word, such as `--run=`.
        word: the word at the cursor after the prefix, as far as it is typed.
        option: the option whose value is at the cursor, None if another word is there.
    """

    line: TypedLine
    prefix: str
    word: str
    option: Any

    @property
    def argument(self) -> Any:
        """The argument that a plain word at the cursor belongs to, None if there is none."""
        arguments, plain = arguments_of(self.line.command), len(self.line.plain)
        # An argument that takes any number of words takes all that follow.
        several = [place for place, argument in enumerate(arguments) if argument.nargs == -1]
        return dict(enumerate(arguments)).get(min([plain, *several]))


def find_cursor(command: Any, words: Sequence[str], word: str) -> Cursor:
    """Return where the word after `words` stands; the command is the root of all."""
    line = read_line(command, words)
    flag, equals, value = word.partition("=")
    option = None if line.options_end else options_of(line.command).get(flag)
    if line.option is None and equals and option:
        return Cursor(line, f"{flag}=", value, option)
    return Cursor(line, "", word, line.option)


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
    elif cursor.word.startswith("-") and not cursor.line.options_end:
        found = _options(cursor.line)
    elif commands := getattr(cursor.line.command, "commands", None):
        # A word before the cursor that names no command makes the line wrong.
        found = (
            () if cursor.line.plain else ((name, command.get_short_help_str()) for name, command in commands.items())
        )
    elif cursor.argument is not None:
        found = _values(cursor.argument, cursor)
    return ((cursor.prefix + value, meaning) for value, meaning in found if value.startswith(cursor.word))


def _options(line: TypedLine) -> Candidates:
    for option in dict.fromkeys(options_of(line.command).values()):
        if option.multiple or line.value(typed_name(option)) is None:
            yield from ((flag, option.help or "") for flag in option.opts if flag.startswith("--"))
    yield "--help", "Show the help of the command."


def _values(parameter: Any, cursor: Cursor) -> Candidates:
    name = typed_name(parameter)
    if source := SOURCES.get(f"{cursor.line.path.partition(' ')[2]} {name}") or SOURCES.get(name):
        return source(cursor)
    return ((choice, "") for choice in choices_of(parameter))
