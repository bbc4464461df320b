"""The place in a command line that is being completed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clipbert_cli.commands.meant import typed_name


@dataclass
class Cursor:
    """The place in a command line that is being completed.

    Args:
        command: the command that the words before the cursor name.
        path: its name, such as `store show`.
        given: the values before the cursor, by option (`--run`) or metavar of the argument (`STORE`).
        plain: the words before the cursor that belong to no option.
        options_end: whether `--` is before the cursor, so that the word at the cursor is no option.
        option: the option whose value is at the cursor, None if another word is there.
        argument: the argument that a plain word at the cursor belongs to, None if there is none.
        prefix: the option before the value in one word, such as `--run=`.
        word: the word at the cursor after the prefix, as far as it is typed.
    """

    command: Any
    path: str = ""
    given: dict[str, list[str]] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    options_end: bool = False
    option: Any = None
    argument: Any = None
    prefix: str = ""
    word: str = ""

    def last(self, name: str) -> str | None:
        """Return the value that counts of an option or an argument."""
        values = self.given.get(name)
        return values[-1] if values else None


def find_cursor(command: Any, words: Sequence[str], word: str) -> Cursor:
    """Return where the word after `words` stands; the command is the root of all."""
    cursor = Cursor(command)
    for each in words:
        if cursor.option is not None:
            cursor.given.setdefault(typed_name(cursor.option), []).append(each)
            cursor.option = None
        elif each == "--":
            cursor.options_end = True
        elif each.startswith("-") and len(each) > 1 and not cursor.options_end:
            flag, equals, value = each.partition("=")
            if option := _option(cursor.command, flag):
                cursor.given.setdefault(typed_name(option), []).extend([value] if equals else [])
                cursor.option = None if equals or option.is_flag else option
        elif inner := getattr(cursor.command, "commands", {}).get(each):
            cursor = Cursor(inner, f"{cursor.path} {each}".strip())
        else:
            cursor.plain.append(each)
    flag, equals, value = word.partition("=")
    if cursor.option is None and equals and not cursor.options_end and (option := _option(cursor.command, flag)):
        cursor.option, cursor.prefix, word = option, f"{flag}=", value
    cursor.word = word
    arguments = [each for each in cursor.command.params if each.param_type_name == "argument"]
    cursor.given |= {typed_name(argument): [each] for argument, each in zip(arguments, cursor.plain, strict=False)}
    # An argument that takes any number of words takes all that follow.
    several = [place for place, argument in enumerate(arguments) if argument.nargs == -1]
    cursor.argument = dict(enumerate(arguments)).get(min([len(cursor.plain), *several]))
    return cursor


def _option(command: Any, flag: str) -> Any:
    return next((each for each in command.params if each.param_type_name == "option" and flag in each.opts), None)
