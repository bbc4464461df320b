"""Wrong usage of the command line: words that the parser would misread, and its own errors, in our words."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipbert_cli.commands.meant import (
    commands_meant,
    corrected_line,
    example_of,
    option_meant,
    unknown_options,
    with_nearest_choice,
)
from clipbert_cli.commands.options import bounds_of
from clipbert_cli.commands.typed_line import (
    TypedLine,
    TypedValue,
    arguments_of,
    options_of,
    read_line,
    takes_value,
    typed_name,
)
from clipbert_cli.commands.wrong_paths import refuse_wrong_paths, splits_of
from clipbert_cli.errors import UsageError
from clipbert_cli.foreign import excerpt
from clipbert_cli.path_kinds import A_MODEL, PathKind, look_at
from clipbert_cli.recipe.shipped import shipped_names

_PATHS = ("FILE", "DIR", "FOLDER", "DATA", "PREDS", "NAME|FILE", "FILE|FOLDER")


def refuse_misread(root: Any, words: Sequence[str]) -> None:
    """Raise UsageError for words that the parser would read as something else than they are, and for wrong paths.

    These are a word such as -run, which would be -r with the value un, and what an unset variable leaves: an option
    after one that takes a value, as in `--to $DATA --pack`, and an empty path, which would be the current folder.
    """
    line = read_line(root, words)
    known = options_of(line.command)
    for word, following in itertools.pairwise([*itertools.takewhile(lambda word: word != "--", line.after), ""]):
        if re.match("-[a-z]", word) and (long := f"-{word.partition('=')[0]}") in known:
            raise UsageError(f"{word}: an option of several letters has two dashes", hint=f"give {long} in its place")
        if takes_value(known.get(word)) and following.partition("=")[0] in [*known, "-h", "--help"]:
            raise UsageError(
                f"{word} is {following!r}, which is an option",
                hint=f"give {known[word].metavar or 'a value'} after {word} (is a variable unset?): {known[word].help}",
            )
    for value in line.values:
        name = typed_name(value.parameter) if value.parameter is not None else ""
        if name and not value.text.strip():
            where = f"after {name}" if name.startswith("-") else f"for {name}"
            raise UsageError(f"{name} is empty", hint=f"give a value {where} (is a variable unset?)")
        if name.startswith("-") and value.parameter.metavar in _PATHS and re.match("-.", value.text):
            raise UsageError(
                f"{name} is {value.text!r}, which begins like an option",
                hint=f"give a path after {name}; a file of this name is ./{value.text}",
            )
    from_stdin = [typed_name(each.parameter) for each in line.values if each.text == "-" and _is_predictions(each)]
    if len(from_stdin) > 1:
        raise UsageError(
            f"{' and '.join(from_stdin)} are both -, but standard input is read once",
            hint="write one of them to a file, and name that",
        )
    if not unknown_options(line) and not (line.has("--help") or line.has("-h")):
        refuse_wrong_paths(line)


def _is_predictions(value: TypedValue) -> bool:
    return value.parameter is not None and value.parameter.metavar == "PREDS"


def usage_error(found: BaseException) -> UsageError | None:
    """Return a usage error of typer as one of ours; None for other exceptions and for the help that typer prints."""
    if isinstance(found, UsageError):
        return found
    # The classes are in a private module of typer, so they are told apart by their names.
    kind = type(found).__name__
    if not hasattr(found, "format_message") or kind == "NoArgsIsHelpError":
        return None
    if (context := getattr(found, "ctx", None)) is None:
        return UsageError(_text(found), hint=_wrong_flag(found) or "clipbert --help lists the commands")
    line = read_line(context.find_root().command, context.meta["words"])
    message, hint = _EXPLAINED.get(kind, _other_mistake)(found, line)
    return UsageError(message, hint=hint or f"{context.command_path} --help explains every argument and option")


def _text(found: Any) -> str:
    text = found.format_message().rstrip(".")
    return str(text[:1].lower() + text[1:])


def _wrong_flag(found: Any) -> str | None:
    """Return what to do about an option without its value, or a flag with one; None for other errors."""
    if not hasattr(found, "option_name"):
        return None
    if "does not take a value" not in found.message:
        return f"give a value after {found.option_name}"
    return f"give {found.option_name} alone" + ("; --run names the run" if found.option_name == "--resume" else "")


# ------------------------------------------------------------------------------------------ message and hint by kind


def _missing(found: Any, line: TypedLine) -> tuple[str, str | None]:
    name, arguments = typed_name(found.param), [typed_name(each) for each in arguments_of(line.command)]
    example = example_of(line.command)
    hint = example and f"for example: {example}"
    message = f"{name} is missing"
    # The last words go to the last arguments, so that it may be another one that was left out.
    if len(arguments) > 1 and name in arguments:
        message += f": {line.path} takes {' '.join(arguments)}"
    if name == "--run" and (words := _with_run(line)):
        hint = f"give the run with --run: {_with_split(read_line(line.root, words))}"
    if name == "--split" and (splits := splits_of(line.value("--run") or "")):
        message += f": the run has {', '.join(splits)}"
        hint = line.with_values({}, "--split", "test" if "test" in splits else splits[-1])
    return message, hint


def _with_run(line: TypedLine) -> list[str] | None:
    """Return the words of a command line in which a trained model stands elsewhere than after --run, corrected."""
    for place in range(line.start, len(line.words)):
        if A_MODEL.takes(look_at(line.words[place])):
            # Not the option that it was given to, such as --checkpoint.
            before = place - (line.words[place - 1].startswith("-"))
            return [*line.words[:before], "--run", *line.words[place:]]
    return None


def _with_split(line: TypedLine) -> str:
    """Return a command line in which a split of the run stands alone, corrected; any other line as it is."""
    splits = splits_of(line.value("--run") or "") if "--split" in options_of(line.command) else []
    alone = [each for each in line.values if each.parameter is None and each.text in splits]
    if len(alone) != 1 or line.value("--split"):
        return line.with_values({})
    return line.with_values({alone[0].place: None}, "--split", alone[0].text)


def _bad_value(found: Any, line: TypedLine) -> tuple[str, str | None]:
    if bounds := bounds_of(found.param):
        return _bad_number(found.param, bounds, line)
    # Some messages are those of pydantic, which reads the values.
    says = found.message.removeprefix("Value error, ").replace("Input should be", "it must be")
    says = says.partition(", unable to parse")[0].replace("a valid integer", "a whole number")
    return f"{typed_name(found.param)}: {says.rstrip('.')}", with_nearest_choice(found, line)


def _bad_number(parameter: Any, bounds: tuple[float, float], line: TypedLine) -> tuple[str, str | None]:
    """Return the range of an option, and the command line with the nearest number in it."""
    name, (low, high) = typed_name(parameter), bounds
    (value,) = (each for each in line.values if each.parameter is parameter)
    try:
        number = float(value.text)
    except ValueError:
        number = math.nan
    # No number is near to text that is none.
    nearest = (parameter.default or low) if math.isnan(number) else min(max(low, number), high)
    is_whole = isinstance(low, int)
    kind = "a whole number" if is_whole else "a number"
    other = f", or {parameter.metavar.partition('|')[2]}" if "|" in (parameter.metavar or "") else ""
    message = f"{name} is {excerpt(value.text)}, but must be {kind} from {low:,} to {high:,}{other}"
    return message, line.with_values({value.place: str(round(nearest) if is_whole else nearest)})


def _no_option(found: Any, line: TypedLine) -> tuple[str, str | None]:
    option, path, command = found.option_name, line.path, line.command
    above: Any = found.ctx.parent
    while above is not None:
        if any(option in each.opts for each in above.command.params):
            name = path.removeprefix(f"{above.command_path} ")
            return _text(found), f"it stands before the command: {above.command_path} {option} {name}"
        above = above.parent
    if behind := _options_behind(line):
        return _text(found).partition(" (Possible options")[0], f"options stand behind the command: {behind}"
    unknown = unknown_options(line)
    corrected = corrected_line(line)
    if len(unknown) > 1:
        advice = {each: meant for each in unknown if (meant := option_meant(each, line))}
        listed = "; ".join(f"{each}: {meant}" for each, meant in advice.items())
        return f"no such options: {', '.join(unknown)}", corrected or listed
    if meant := option_meant(option, line):
        message = _text(found).partition(" (Possible options")[0]
        return message, f"{meant}: {corrected}" if corrected else meant
    if re.match("-[^A-Za-z-]", option) and arguments_of(command):
        return _text(found), f"a path of this name is ./{option}, another word stands after --: {_after_options(line)}"
    needs_nothing = not any(map(takes_value, command.params)) and not arguments_of(command)
    return _text(found), path if needs_nothing and not hasattr(command, "commands") else None


def _options_behind(line: TypedLine) -> str | None:
    """Return a command line in which the options that stand before a command are behind it; None if it lacks some."""
    known, place = options_of(line.root), 0
    while place < len(line.words) and line.words[place] in known:
        place += 2 if takes_value(known[line.words[place]]) else 1
    named = next((at for at in range(place, len(line.words)) if line.words[at] in line.root.commands), place)
    again = read_line(line.root, [*line.words[:place], *line.words[named:], *line.words[place:named]])
    if named == place or unknown_options(again) or any(each.parameter is None for each in again.values):
        return None
    return again.with_values({})


def _after_options(line: TypedLine) -> str:
    """Return a command line whose arguments stand after its options and `--`, so that they may begin with a dash."""
    known, options, arguments = options_of(line.command), list[str](), list[str]()
    rest = [word for word in line.after if word != "--"]
    while rest:
        word = rest.pop(0)
        (options if word.partition("=")[0] in known else arguments).append(word)
        if takes_value(known.get(word)) and rest:
            options.append(rest.pop(0))
    return shlex.join(["clipbert", *line.words[: line.start], *options, "--", *arguments])


def _other_mistake(found: Any, line: TypedLine) -> tuple[str, str | None]:
    if hasattr(line.command, "commands"):
        return _no_command(found, line)
    extra = [each for each in line.values if each.parameter is None]
    if not extra:
        return _text(found), _wrong_flag(found)
    words = [each.text for each in extra]
    count = "one word" if len(words) == 1 else f"{len(words)} words"
    takes = "" if arguments_of(line.command) else f": {line.path} takes no arguments"
    message = f"{' '.join(words)}: {count} too many{takes}"
    if words == ["help"]:
        return message, None
    example = example_of(line.command)
    rest = line.with_values({each.place: None for each in extra})
    hint = _for_extra_words(line, words, rest) or (rest if takes else example and f"for example: {example}")
    return message, hint


def _for_extra_words(line: TypedLine, words: Sequence[str], rest: str) -> str | None:
    """Return what to type for words that the command does not expect.

    Args:
        rest: the command line without them.
    """
    if line.has("--resume") and not any("=" in word for word in words):
        return f"--resume takes no value: {line.path} --run {shlex.quote(words[0])} --resume"
    settings = [each for each in line.values if each.parameter and typed_name(each.parameter) == "--set"]
    if lone := [each.text for each in settings if not each.text.partition("=")[2]]:
        value = next(filter(None, (word.lstrip("=") for word in words)), "VALUE")
        return f"--set takes one word: --set {lone[0].rstrip('=')}={value}"
    options = options_of(line.command)
    # The first of the words that are nothing else is a recipe, the second a split.
    free = [each for each in ("--recipe", "--split") if {"--recipe", each} <= options.keys() and not line.value(each)]
    named: list[str] = []
    is_truth = False
    for word in words:
        found = look_at(word)
        kinds = {
            "--set": "=" in word,
            "--against": found.kind in (PathKind.PREDICTIONS, PathKind.SCORES)
            or (found.kind is PathKind.NOTHING and word.endswith((".json", ".jsonl"))),
            "--run": not line.has("--resume") and "--resume" not in options and A_MODEL.takes(found),
        }
        if "--against" in options and found.kind in (PathKind.ANNOTATIONS, PathKind.JSON):
            is_truth = True
            continue
        option = next((each for each, fits in kinds.items() if fits and each in options), free[0] if free else None)
        free = [each for each in free if each != option]
        named += [option, word] if option else []
    if not named and not is_truth:
        return None
    advice = "give an option before it"
    if "--recipe" in named:
        advice = "give a recipe with --recipe, a run with --run"
    if is_truth:
        advice = "the truth comes from PREDS.meta.json, or from --recipe and --split"
    return f"{advice}: {' '.join([rest, shlex.join(named)]).rstrip()}"


def _no_command(found: Any, line: TypedLine) -> tuple[str, str]:
    """Return what to type in place of a command that does not exist."""
    no_command = re.match("no such command '(.*?)'", found.message, flags=re.I)
    group, path, unknown = line.command, line.path, no_command[1] if no_command else ""
    if names := commands_meant(unknown, group):
        # What another program calls so is told by the hint, better than by a name that only looks alike.
        message = _text(found).partition(". Did you mean")[0]
        return (
            message,
            f"here it is called {' or '.join(names)}: {path} {_retyped(line, names) or f'{names[0]} --help'}",
        )
    if unknown in line.root.commands:
        again = read_line(line.root, line.after)
        typed = again.with_values({}) if line.after[1:] and not unknown_options(again) else f"{again.path} --help"
        return _text(found), f"it is a command of its own: {typed}"
    if Path(unknown).exists() or unknown in shipped_names():
        shows = "show" if "show" in group.commands and unknown in shipped_names() else "ls"
        return _text(found), f"a command stands before it: {path} {shows} {unknown}; {path} --help lists them all"
    other = {
        "help": "clipbert --help lists the commands, COMMAND --help explains one",
        "version": "it is an option: clipbert --version",
    }
    return _text(found), other.get(unknown, f"{path} has the commands {', '.join(group.commands)}")


def _retyped(line: TypedLine, names: Sequence[str]) -> str | None:
    """Return our name of a command with the words typed after it, or None if these do not fit or there are none."""
    if len(names) > 1:
        return None
    words = line.after[1:]
    renamed = read_line(line.command, [*names[0].split(), *words])
    is_option = words and words[0].startswith("-")
    if not words or unknown_options(renamed) or not (is_option or arguments_of(renamed.command)):
        return None
    return f"{names[0]} {shlex.join(words)}"


_EXPLAINED: dict[str, Callable[[Any, TypedLine], tuple[str, str | None]]] = {
    "MissingParameter": _missing,
    "BadParameter": _bad_value,
    "NoSuchOption": _no_option,
}
"""The message and the hint by the name of typer's class."""
