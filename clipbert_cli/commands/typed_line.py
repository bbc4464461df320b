"""A command line as it was typed: the command that its words name, and the parameter that each of them belongs to.

The parser keeps neither. Messages repeat what was typed with a word replaced, and wrong paths are found before it runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

HELP = ("-h", "--help")


class TypedValue(NamedTuple):
    """An option with its value, a flag, or a plain word.

    Args:
        place: the number of the word that has the value, or that is the flag.
        parameter: None for a word that belongs to no argument.
        text: the value; that of a flag is its name.
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
        values: options and flags, then plain words.
        option: the last word, if it is an option whose value is not there.
        options_end: whether `--` is among the words.
        unknown: the options that the command does not have, in their order.
    """

    root: Any
    words: tuple[str, ...]
    command: Any
    start: int
    values: tuple[TypedValue, ...]
    option: Any
    options_end: bool
    unknown: tuple[str, ...]

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
        """Return the last value of an option or an argument, the name of a flag; None if it is not given."""
        found = [each.text for each in self.values if each.parameter and typed_name(each.parameter) == name]
        return found[-1] if found else None

    def with_values(self, values: Mapping[int, str], *more: str) -> str:
        """Return the line with other values at some places and more words at its end."""
        words = list(self.words)
        for place, text in values.items():
            # The value of an option may begin with a dash, too, as -1 does.
            option, equals, _ = words[place].partition("=")
            words[place] = (f"{option}=" if equals and option.startswith("-") else "") + text
        return shlex.join(["clipbert", *words, *more])

    def without(self, *names: str) -> list[str]:
        """Return the words without some parameters, which are named as the function of the command names them."""
        removed = set[int]()
        for place, parameter, text in self.values:
            if parameter is not None and parameter.name in names:
                is_apart = takes_value(parameter) and self.words[place] == text
                removed |= {place, place - 1} if is_apart else {place}
        return [word for place, word in enumerate(self.words) if place not in removed]


def read_line(root: Any, words: Sequence[str]) -> TypedLine:
    """Return what the words mean as far as the parser would understand them; the command is the root of all."""
    command, start, option = root, 0, None
    values: list[TypedValue] = []
    plain: list[int] = []
    unknown: list[str] = []
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
        elif found := options_of(command).get(name):
            if not takes_value(found):
                values.append(TypedValue(place, found, word))
            elif equals:
                values.append(TypedValue(place, found, text))
            else:
                option = found
        # A value may follow its short option in the same word.
        elif word.startswith("--") or word[:2] not in options_of(command):
            unknown += [name] if word not in HELP else []
    # The last value of an option that is given twice counts.
    last = {value.parameter.name: value.place for value in values}
    values = [each for each in values if each.parameter.multiple or last[each.parameter.name] == each.place]
    arguments = [argument_at(arguments_of(command), number, len(plain)) for number in range(len(plain))]
    values += [TypedValue(place, each, words[place]) for place, each in zip(plain, arguments, strict=True)]
    return TypedLine(root, tuple(words), command, start, tuple(values), option, options_end, tuple(unknown))


def typed_line(context: Any) -> TypedLine:
    """Return the command line that is run."""
    return read_line(context.find_root().command, context.meta["words"])


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
