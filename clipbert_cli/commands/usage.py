"""Wrong usage of the command line: the errors that typer finds, in our words, and checks of several commands."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbert_cli.commands.meant import (
    arguments_of,
    commands_meant,
    corrected_options,
    example_of,
    option_meant,
    options_of,
    takes_value,
    typed_name,
    unknown_options,
    with_nearest_choice,
    words_after,
)
from clipbert_cli.commands.options import is_model, typed_words
from clipbert_cli.errors import UsageError
from clipbert_cli.printable import shortened
from clipbert_cli.recipe.shipped import shipped_names
from clipbert_cli.store.discover import unmatched_pattern

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe


def refuse_empty(name: str, texts: Sequence[str]) -> None:
    """Raise UsageError if one of the texts that `name` gave has no words."""
    if any(not text.strip() for text in texts):
        raise UsageError(f"{name} is empty", hint="a variable of the shell may be unset; write a text in quotes")


def refuse_address(name: str, value: str) -> None:
    """Raise UsageError if a value that must be a file or a folder is an address such as https://example.com/a.mp4."""
    # As a path, https:// has one slash.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", value):
        address = re.sub(r":/+", "://", value, count=1)
        raise UsageError(
            f"{name} is {address}, an address: a file or a folder of this machine is expected",
            hint=f"download it first, for example: curl -LO {shlex.quote(address)}",
        )


def refuse_unquoted(name: str, texts: Sequence[str], command: Sequence[str]) -> None:
    """Raise UsageError for the words of one text that was typed without quotes.

    Args:
        name: the argument that takes the texts.
        command: the words of the command line without the texts.
    """
    if len(texts) < 2 or any(re.search(r"[\s?]", text.rstrip("?") if text is texts[-1] else text) for text in texts):
        return
    quoted = shlex.join(["clipbert", *command, " ".join(texts)])
    raise UsageError(f"{name} is {len(texts)} words: {' '.join(texts)}", hint=f"write one text in quotes: {quoted}")


def refuse_no_predictions(files: Sequence[Path | None], split: str | None) -> None:
    """Raise an error for what is given as predictions and is none, before anything else is read."""
    from clipbert_cli.infer.prediction_lines import check_some
    from clipbert_cli.infer.score_folder import is_score_folder

    for file in filter(None, files):
        if is_model(file):
            predict = ["clipbert", "infer", "--run", str(file), "--split", split or "test", "-o", "FILE"]
            raise UsageError(f"{file} is a run, not predictions", hint=f"predict with it first: {shlex.join(predict)}")
        if not is_score_folder(file):
            check_some(file)


def refuse_absent_data(recipe: Recipe) -> None:
    """Raise UsageError if nothing that the recipe names is there: its root is another folder, or still empty."""
    from clipbert_cli.hub import is_hub_name
    from clipbert_cli.recipe.load import resolve

    data, model = recipe.data, recipe.model
    of_splits = [file for split in data.splits.values() if split for file in (split.annotations, split.media)]
    named = [data.answers, *of_splits, model.vocabulary, model.weights.checkpoint, model.visual.weights]
    files = dict.fromkeys(file for file in named if file and not is_hub_name(file))
    if of_splits and not any(resolve(recipe, file).exists() for file in files):
        from clipbert_cli.assets.catalog import load_catalog

        download = f"; clipbert download {recipe.name} --to DIR --pack makes it"
        origin = recipe.origin("data.root")
        stated = f", or correct data.root ({origin})" if origin and origin != "--data-root" else ""
        raise UsageError(
            f"nothing that the recipe names is in {resolve(recipe, '.')}: {shortened([*files], 2)}",
            hint=f"give the folder that holds these with --data-root DIR{stated}"
            + (download if load_catalog().needs_of(recipe.name) else ""),
        )


def refuse_no_media(path: Path) -> None:
    """Raise UsageError if nothing, a recipe or a run is where media are expected."""
    recipe = path / "recipe.yaml" if (path / "recipe.yaml").is_file() else path
    if recipe == path and path.exists():
        return
    if recipe == path and str(path) not in shipped_names():
        hint = (
            "name a folder of media files or a store; a split is shown by: clipbert preview --recipe NAME --split NAME"
        )
        raise UsageError(f"{path} does not exist", hint=unmatched_pattern([path]) or hint)
    what = "a shipped recipe" if recipe == path else "the folder of a run"
    raise UsageError(
        f"MEDIA is {path}, {what}: a folder of media files or a store is expected",
        hint=f"its data are shown by: clipbert preview --recipe {recipe} --split train",
    )


_PATHS = ("--data-root", "--run", "--to", "--output", "-o", "--recipe", "-r", "--source", "--catalog")


def refuse_misread(command: Any, words: Sequence[str]) -> None:
    """Raise UsageError for words that the parser would read as something else than they are.

    These are a word such as -run, which would be -r with the value un, and what an unset variable leaves: an option
    after one that takes a value, as in `--to $DATA --pack`, and an empty path, which would be the current folder.

    Args:
        command: the command or group to which the words belong.
    """
    for word, following in itertools.zip_longest(words, words[1:]):
        command = getattr(command, "commands", {}).get(word, command)
        if word == "--":
            return
        known = options_of(command)
        long = f"-{word.partition('=')[0]}"
        if re.match("-[a-z]", word) and long in known:
            raise UsageError(f"{word}: an option of several letters has two dashes", hint=f"give {long} in its place")
        name, equals, value = word.partition("=")
        if name in _PATHS and name in known and (value if equals else following) == "":
            raise UsageError(f"{name} is empty", hint=f"give a path after {name} (is a variable unset?)")
        if takes_value(known.get(word)) and (following or "").partition("=")[0] in [*known, "-h", "--help"]:
            raise UsageError(
                f"{word} is {following!r}, which is an option",
                hint=f"give a value after {word} (is a variable unset?)",
            )


def usage_error(found: BaseException) -> UsageError | None:
    """Return a usage error of typer as one of ours; None for other exceptions and for the help that typer prints."""
    if isinstance(found, UsageError):
        return found
    # The classes are in a private module of typer, so they are told apart by their names.
    kind = type(found).__name__
    if not hasattr(found, "format_message") or kind == "NoArgsIsHelpError":
        return None
    return UsageError(_message(kind, found), hint=_hint(kind, found))


def _message(kind: str, found: Any) -> str:
    parameter = getattr(found, "param", None)
    if kind == "MissingParameter" and parameter is not None:
        words = [typed_name(each) for each in arguments_of(found.ctx.command)]
        # The last words go to the last arguments, so that it may be another one that was left out.
        takes = (
            f": {found.ctx.command_path} takes {' '.join(words)}"
            if len(words) > 1 and typed_name(parameter) in words
            else ""
        )
        return f"{typed_name(parameter)} is missing{takes}"
    if parameter is not None:
        # Some messages are those of pydantic, which reads the values.
        says = found.message.removeprefix("Value error, ").replace("Input should be", "it must be")
        says = says.partition(", unable to parse")[0].replace("a valid integer", "a whole number")
        return f"{typed_name(parameter)}: {says.rstrip('.')}"
    if extra := _extra_words(found):
        takes = "" if arguments_of(found.ctx.command) else f": {found.ctx.command_path} takes no arguments"
        return f"{' '.join(extra)}: {'one word' if len(extra) == 1 else f'{len(extra)} words'} too many{takes}"
    if several := _several_unknown(kind, found):
        return f"no such options: {', '.join(several)}"
    text = found.format_message().rstrip(".")
    # What another program calls so is told by the hint, better than by a name that only looks alike.
    if (unknown := _unknown_command(found)) and commands_meant(unknown, found.ctx.command):
        text = text.partition(". Did you mean")[0]
    if kind == "NoSuchOption" and found.ctx and option_meant(found.option_name, found.ctx.command):
        text = text.partition(" (Possible options")[0]
    return str(text[:1].lower() + text[1:])


def _unknown_command(found: Any) -> str | None:
    """Return the word of which a message of typer says that it is no command."""
    unknown = re.match("no such command '(.*?)'", found.message, flags=re.I)
    return unknown and unknown[1]


def _hint(kind: str, found: Any) -> str:
    if kind == "BadOptionUsage":
        if "does not take a value" not in found.message:
            return f"give a value after {found.option_name}"
        return f"give {found.option_name} alone" + ("; --run names the run" if found.option_name == "--resume" else "")
    if (context := getattr(found, "ctx", None)) is None:
        return "clipbert --help lists the commands"
    command, path = context.command, str(context.command_path)
    if hasattr(command, "commands") and kind == "UsageError":
        return _command_hint(found)
    if several := _several_unknown(kind, found):
        return _several_hint(several, context)
    if kind == "NoSuchOption" and (owner := _parent_with(context, found.option_name)):
        return f"it stands before the command: {owner} {found.option_name} {path.removeprefix(f'{owner} ')}"
    if kind == "NoSuchOption" and (meant := option_meant(found.option_name, command)):
        return meant
    if kind == "MissingParameter" and typed_name(found.param) == "--run" and (words := _with_run(context)):
        return f"give the run with --run: {shlex.join(['clipbert', *words])}"
    if kind == "BadParameter" and (nearest := with_nearest_choice(found)):
        return shlex.join(["clipbert", *nearest])
    extra = _extra_words(found)
    if extra and (hint := _words_hint(extra, context)):
        return hint
    if extra not in ([], ["help"]) and not arguments_of(command):
        return shlex.join(["clipbert", *typed_words(context)])
    if kind == "NoSuchOption" and not any(map(takes_value, command.params)) and not arguments_of(command):
        return f"{path} --help" if hasattr(command, "commands") else path
    if (extra not in ([], ["help"]) or kind == "MissingParameter") and (example := example_of(command)):
        return f"for example: {example}"
    return f"{path} --help explains every argument and option"


def _several_unknown(kind: str, found: Any) -> list[str]:
    """Return all unknown options of a command line that has more than one, and no option of the command above."""
    if kind != "NoSuchOption" or not found.ctx or _parent_with(found.ctx, found.option_name):
        return []
    unknown = unknown_options(words_after(found.ctx), found.ctx.command)
    return list(unknown) if len(unknown) > 1 and found.option_name in unknown else []


def _several_hint(unknown: Sequence[str], context: Any) -> str:
    """Return the corrected command line, or what to type for each of the unknown options if not all are known."""
    path, command = context.command_path, context.command
    if words := corrected_options(words_after(context), command):
        return f"{path} {shlex.join(words)}"
    advice = [f"{option}: {meant}" for option in unknown if (meant := option_meant(option, command))]
    return "; ".join(advice) or f"{path} --help explains every argument and option"


def _with_run(context: Any) -> list[str]:
    """Return the words of a command line in which a trained model stands elsewhere than after --run, corrected."""
    words = typed_words(context)
    for place, word in enumerate(words):
        if is_model(Path(word)):
            # Not the option that it was given to, such as --checkpoint.
            before = words[: place - 1] if words[place - 1].startswith("-") else words[:place]
            return [*before, "--run", word, *words[place + 1 :]]
    return []


def _command_hint(found: Any) -> str:
    """Return what to type in place of a command that does not exist."""
    path, root, unknown = found.ctx.command_path, found.ctx.find_root().command_path, _unknown_command(found) or ""
    if names := commands_meant(unknown, found.ctx.command):
        again = _retyped(found.ctx, names) or f"{names[0]} --help"
        return f"here it is called {' or '.join(names)}: {path} {again}"
    if Path(unknown).exists() or unknown in shipped_names():
        return f"a command stands before it: {path} {'|'.join(found.ctx.command.commands)} {unknown}"
    other = {
        "help": f"{root} --help lists the commands, COMMAND --help explains one",
        "version": f"it is an option: {root} --version",
    }
    return other.get(unknown, f"{path} has the commands {', '.join(found.ctx.command.commands)}")


def _retyped(context: Any, names: Sequence[str]) -> str | None:
    """Return our name of a command with the words typed after it, or None if these do not fit or there are none."""
    if len(names) > 1:
        return None
    command = context.command
    for name in names[0].split():
        command = command.commands[name]
    words = words_after(context)[1:]
    is_option = words and words[0].startswith("-")
    if not words or unknown_options(words, command) or not (is_option or arguments_of(command)):
        return None
    return f"{names[0]} {shlex.join(words)}"


def _words_hint(words: Sequence[str], context: Any) -> str | None:
    """Return what to type for words that the command does not expect."""
    if words == ["help"]:
        return None
    path, given = context.command_path, shlex.join(["clipbert", *typed_words(context)])
    settings = [word for word in words if "=" in word]
    if context.params.get("resume") and not settings:
        return f"--resume takes no value: {path} --run {shlex.quote(words[0])} --resume"
    if lone := [each for each in context.params.get("overrides") or () if not each.partition("=")[2]]:
        value = next(filter(None, (word.lstrip("=") for word in words)), "VALUE")
        return f"--set takes one word: --set {lone[0].rstrip('=')}={value}"
    named = _with_options(words, context)
    if not named:
        return None
    is_recipe = any(each.startswith("--recipe") for each in named)
    advice = "give a recipe with --recipe, a run with --run" if is_recipe else "give an option before it"
    if any(each.startswith("--against") for each in named):
        advice = "the truth comes from --recipe and --split; give an option before other predictions"
    return f"{advice}: {given} {' '.join(named)}"


def _with_options(words: Sequence[str], context: Any) -> list[str]:
    """Return those unexpected words that belong to an option of the command, each after its option."""
    options = [each for parameter in context.command.params for each in parameter.opts]
    # The first of the others is a recipe, the second a split.
    names = [name for name in ("--recipe", "--split") if {"--recipe", name} <= {*options}]
    names = [name for name in names if context.params.get(name.lstrip("-")) is None]
    named = []
    for word in words:
        kinds = {
            "--set": "=" in word,
            "--against": word.endswith((".json", ".jsonl", ".csv", ".tsv")),
            "--run": "--resume" not in options and is_model(Path(word)),
        }
        meant = [option for option, fits in kinds.items() if fits and option in options] or names[:1]
        names = [name for name in names if name not in meant]
        named += [f"{option} {shlex.quote(word)}" for option in meant]
    return named


def _parent_with(context: Any, option: str) -> str | None:
    """Return the path of the command above this one that has the option."""
    while (context := context.parent) is not None:
        if any(option in parameter.opts for parameter in context.command.params):
            return str(context.command_path)
    return None


def _extra_words(found: Any) -> list[str]:
    words = re.search(r"unexpected extra arguments?.*? \((.*)\)$", found.message, flags=re.DOTALL)
    return words[1].split() if words else []
