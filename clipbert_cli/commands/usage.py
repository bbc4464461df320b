"""Wrong usage of the command line, found before the parser reads it, and answered with the line to type."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

from clipbert_cli.commands.meant import ADVICE, commands_meant, corrected, example_of
from clipbert_cli.commands.options import bounds_of, choices_of
from clipbert_cli.commands.typed_line import (
    HELP,
    TypedLine,
    TypedValue,
    arguments_of,
    options_of,
    read_line,
    takes_value,
    typed_line,
    typed_name,
)
from clipbert_cli.commands.wrong_paths import refuse_wrong_paths, splits_of
from clipbert_cli.errors import UsageError
from clipbert_cli.foreign import excerpt
from clipbert_cli.printable import plural


def refuse_wrong_usage(root: Any, words: Sequence[str]) -> None:
    """Raise UsageError for a command line that the parser would refuse or misread, and for wrong paths in it."""
    line = read_line(root, words)
    _refuse_misread(line)
    # These print something and end, whatever else is there.
    if {*HELP} & {*words} or any(each.parameter in root.params and each.text != "--debug" for each in line.values):
        return
    if hasattr(line.command, "commands") and line.plain and not words[0].startswith("-"):
        raise _no_command(line, line.plain[0].text)
    if line.unknown:
        raise _no_option(line)
    if hasattr(line.command, "commands"):
        return
    refuse_wrong_paths(line)
    if line.option is not None:
        raise UsageError(f"{line.words[-1]} has no value", hint=_value_after(line.words[-1], line.option))
    for value in line.values:
        if value.parameter is not None:
            _check_value(value, line)
    given = [each.parameter for each in line.values]
    for parameter in line.command.params:
        if parameter.required and parameter not in given:
            raise _missing(parameter, line)
    if extra := [each.text for each in line.values if each.parameter is None]:
        takes = "" if arguments_of(line.command) else f": {line.path} takes no arguments"
        message = f"{' '.join(extra)}: {'one word' if len(extra) == 1 else plural(len(extra), 'word')} too many{takes}"
        raise UsageError(message, hint=corrected(line) or _help(line))
    _refuse_unquoted(line)


def _help(line: TypedLine) -> str:
    return f"{line.path} --help explains every argument and option"


def _value_after(name: str, option: Any) -> str:
    return f"give {option.metavar or 'a value'} after {name} (is a variable unset?): {option.help}"


def _refuse_misread(line: TypedLine) -> None:
    """Raise UsageError for words that the parser would read as something else than they are.

    These are a word such as -run, which would be -r with the value un, and what an unset variable leaves.
    """
    known = options_of(line.command)
    for word, following in itertools.pairwise(itertools.takewhile(lambda word: word != "--", line.after)):
        if takes_value(known.get(word)) and following.partition("=")[0] in [*known, *HELP]:
            raise UsageError(f"{word} is {following!r}, which is an option", hint=_value_after(word, known[word]))
    for word in line.after:
        if re.match("-[a-z]", word) and (long := f"-{word.partition('=')[0]}") in known:
            raise UsageError(f"{word}: an option of several letters has two dashes", hint=f"give {long} in its place")
    for value in line.values:
        if value.parameter is not None and not value.text.strip():
            raise UsageError(f"{typed_name(value.parameter)} is empty", hint="give a value (is a variable unset?)")


def _refuse_unquoted(line: TypedLine) -> None:
    """Raise UsageError for the words of one text that was typed without quotes."""
    texts = [each for each in line.plain if each.parameter and each.parameter.name in ("texts", "questions")]
    # The shell turns `--video *.mp4` into several words. Words with an ending or a question mark are no such text.
    places = [each.place for each in texts if not os.path.exists(each.text)]
    said = " ".join(line.words[place] for place in places)
    if len(places) < 2 or any(re.search(r"[\s?]|\.\w{2,5}$", line.words[place].rstrip("?")) for place in places):
        return
    words = [word for place, word in enumerate(line.words) if place not in places]
    words.insert(places[0], said)
    raise UsageError(
        f"{typed_name(texts[0].parameter)} is {len(places)} words: {said}",
        hint=f"write one text in quotes: {shlex.join(['clipbert', *words])}",
    )


def _no_option(line: TypedLine) -> UsageError:
    # Options stand behind the command.
    at = next((at for at, word in enumerate(line.words) if word in line.root.commands), len(line.words))
    before = read_line(line.root, line.words[:at]).unknown
    unknown = [*dict.fromkeys(before or line.unknown)]
    message = f"no such option{'s' if len(unknown) > 1 else ''}: {', '.join(unknown)}"
    if before:
        line = read_line(line.root, [*line.words[at:], *line.words[:at]])
    if re.match("-[^A-Za-z-]", unknown[0]) and arguments_of(line.command):
        return UsageError(message, hint=f"a path of this name is ./{unknown[0]}, another word stands after --")
    advice = next(filter(None, (ADVICE.get((unknown[0], each)) for each in options_of(line.command))), None)
    return UsageError(message, hint=corrected(line) or advice or _help(line))


def _no_command(line: TypedLine, unknown: str) -> UsageError:
    group, message = line.command, f"no such command {unknown!r}"
    others = [word for word in line.words if word != unknown]
    if f"--{unknown}" in [*options_of(group), *HELP]:
        return UsageError(message, hint=shlex.join(["clipbert", *others, f"--{unknown}"]))
    names = commands_meant(unknown, group)
    if not names and unknown in line.root.commands:
        group, names, line = line.root, [unknown], read_line(line.root, line.after)
    if len(names) != 1:
        listed = f"{line.path} has the commands {', '.join(group.commands)}"
        return UsageError(message, hint=f"here it is called {' or '.join(names)}" if names else listed)
    at = line.words.index(unknown)
    again = read_line(line.root, [*line.words[:at], *names[0].split(), *line.words[at + 1 :]])
    typed = corrected(again) if line.words[at + 1 :] and not hasattr(again.command, "commands") else None
    return UsageError(message, hint=f"here it is called {names[0]}: {typed or f'{again.path} --help'}")


def _missing(parameter: Any, line: TypedLine) -> UsageError:
    name, arguments = typed_name(parameter), [typed_name(each) for each in arguments_of(line.command)]
    if name in arguments:
        # The last words go to the last arguments, so that it may be another one that was left out.
        takes = f": {line.path} takes {' '.join(arguments)}" if len(arguments) > 1 else ""
        return UsageError(f"{name} is missing{takes}", hint=f"for example: {example_of(line.command)}")
    splits = splits_of(line.value("--run") or "") if name == "--split" else []
    has = f": the run has {', '.join(splits)}" if splits else ""
    return UsageError(f"{name} is missing{has}", hint=corrected(line) or _help(line))


def _check_value(value: TypedValue, line: TypedLine) -> None:
    """Raise UsageError for a number beyond its bounds and for none of the choices."""
    place, parameter, text = value
    name, choices = typed_name(parameter), choices_of(parameter)
    if parameter.param_type_name == "option" and parameter.is_flag and "=" in text:
        raise UsageError(f"{name} takes no value", hint=corrected(line) or f"give {name} alone")
    if choices and text not in choices:
        (closest,) = difflib.get_close_matches(text, choices, n=1, cutoff=0)
        raise UsageError(
            f"{name} is {excerpt(text)!r}, but must be one of {', '.join(choices)}",
            hint=line.with_values({place: closest}),
        )
    bounds, (_, _, word) = bounds_of(parameter), (parameter.metavar or "").partition("|")
    if bounds is None or text == word:
        return
    low, high = bounds
    is_whole = isinstance(low, int)
    try:
        number = int(text) if is_whole else float(text)
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        kind, other = "a whole number" if is_whole else "a number", f", or {word}" if word else ""
        raise UsageError(
            f"{name} is {excerpt(text)}, but must be {kind} from {low:,} to {high:,}{other}", hint=_help(line)
        )


def usage_error(found: BaseException) -> UsageError | None:
    """Return another usage error of typer as one of ours; None for other exceptions and the help that typer prints."""
    # The classes are in a private module of typer.
    if not hasattr(found, "format_message") or type(found).__name__ == "NoArgsIsHelpError":
        return None
    context, text = getattr(found, "ctx", None), found.format_message().rstrip(".")
    return UsageError(text[:1].lower() + text[1:], hint=_help(typed_line(context)) if context else "clipbert --help")
