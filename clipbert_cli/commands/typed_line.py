"""A command line as it was typed: the command that its words name, and the parameter that each of them belongs to.

The parser keeps neither. Messages repeat what was typed with a word replaced, and wrong paths are found before it runs.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class TypedValue(NamedTuple):
    """The value of an option or an argument.

    Args:
        place: the number of the word that has it.
        parameter: None for a word that belongs to no argument.
    """

    place: int
    parameter: Any
    text: str


@dataclass(frozen=True)
class TypedLine:
    """The words of a command line after `clipbert`.

    Args:
        root: the command that has all others in it.
        command: the command or group that the words name.
        start: the number of the word after its name.
        values: the values of options, then those of arguments.
        option: the last word, if it is an option whose value is not there.
        options_end: whether `--` is among the words.
    """

    root: Any
    words: tuple[str, ...]
    command: Any
    start: int
    values: tuple[TypedValue, ...]
    option: Any
    options_end: bool

    @property
    def plain(self) -> Sequence[TypedValue]:
        """The words that belong to no option."""
        return [each for each in self.values if each.parameter is None or each.parameter.param_type_name == "argument"]

    @property
    def path(self) -> str:
        """The command as it is typed, such as `clipbert store ls`."""
        names = (word for word in self.words[: self.start] if not word.startswith("-"))
        return " ".join(["clipbert", *names])

    @property
    def after(self) -> Sequence[str]:
        """The words after the name of the command."""
        return self.words[self.start :]

    def value(self, name: str) -> str | None:
        """Return the last value of an option or an argument."""
        found = [each.text for each in self.values if each.parameter and typed_name(each.parameter) == name]
        return found[-1] if found else None

    def has(self, flag: str) -> bool:
        """Return whether an option is among the words."""
        return flag in itertools.takewhile(lambda word: word != "--", self.after)

    def with_values(self, values: Mapping[int, str | None], *more: str) -> str:
        """Return the line with other values at some places, None for none, and more words at its end."""
        words = list(self.words)
        for place, text in values.items():
            # The value of an option may begin with a dash, too, as -1 does.
            option, equals, _ = words[place].partition("=")
            words[place] = f"{option}=" if equals and option.startswith("-") else ""
            words[place] += "" if text is None else text
        removed = {place for place, text in values.items() if text is None}
        return shlex.join(["clipbert", *(word for at, word in enumerate(words) if at not in removed), *more])


def read_line(root: Any, words: Sequence[str]) -> TypedLine:
    """Return what the words mean as far as the parser would understand them; the command is the root of all."""
    command, start, option = root, 0, None
    values: list[TypedValue] = []
    plain: list[int] = []
    options_end = False
    for place, word in enumerate(words):
        name, equals, text = word.partition("=")
        if option is not None:
            values.append(TypedValue(place, option, word))
            option = None
        elif options_end or not word.startswith("-") or word == "-":
            # After a word that is no command of a group there are none.
            inner = None if options_end or plain else getattr(command, "commands", {}).get(word)
            command, start, plain = (inner, place + 1, []) if inner else (command, start, [*plain, place])
        elif word == "--":
            options_end = True
        elif takes_value(found := options_of(command).get(name)):
            option = None if equals else found
            values += [TypedValue(place, found, text)] if equals else []
    # The last value of an option that is given twice counts.
    last = {value.parameter.name: value.place for value in values}
    values = [each for each in values if each.parameter.multiple or last[each.parameter.name] == each.place]
    arguments = [argument_at(arguments_of(command), number, len(plain)) for number in range(len(plain))]
    values += [TypedValue(place, each, words[place]) for place, each in zip(plain, arguments, strict=True)]
    return TypedLine(root, tuple(words), command, start, tuple(values), option, options_end)


def argument_at(arguments: Sequence[Any], number: int, count: int) -> Any:
    """Return the argument to which a word belongs that is one of `count`; None if it is one too many.

    The last words belong to the arguments behind one that takes any number of words.
    """
    several = next((place for place, each in enumerate(arguments) if each.nargs == -1), None)
    if several is None or number < several:
        return arguments[number] if number < len(arguments) else None
    behind = len(arguments) - several - 1
    return arguments[several] if number < count - behind else arguments[number - count]


def options_of(command: Any) -> dict[str, Any]:
    """Return the options of a command by all of their names."""
    options = (each for each in command.params if each.param_type_name == "option")
    return {name: each for each in options for name in each.opts}


def arguments_of(command: Any) -> list[Any]:
    """Return the arguments of a command, which have no option before them."""
    return [each for each in command.params if each.param_type_name == "argument"]


def takes_value(parameter: Any) -> bool:
    """Return whether a parameter is an option with a value."""
    return parameter is not None and parameter.param_type_name == "option" and not parameter.is_flag


def typed_name(parameter: Any) -> str:
    """Return how a person types a parameter: `--run`, or the name of an argument in capitals, as in the help."""
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper())
