"""Wrong usage of the command line: the errors that typer finds, in our words, and checks of several commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from clipbert_cli.errors import UsageError

MEANT = {
    "finetune": "train fit",
    "infer": "predict test",
    "eval": "evaluate score",
    "search": "query",
    "assets convert": "convert",
    "--recipe": "--config --cfg --conf --c --cfg_file --config_file",
    "--nproc-per-node": "--gpus --ngpus --num_gpus --num_processes --nproc --np",
    "--output": "--out --o --output_file --save",
    "--video": "--v",
    "--image": "--i",
    "--run": "--output_dir --save_dir --logdir --log_dir --exp --workdir --work_dir "
    "--model --ckpt --model_path --weights",
}
"""Our commands and options, and what other programs call them: options with two dashes and with underscores."""


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


def usage_error(found: BaseException) -> UsageError | None:
    """Return a usage error of typer as one of ours; None for other exceptions and for the help that typer prints."""
    # The classes are in a private module of typer, so they are told apart by their names.
    kind = type(found).__name__
    if not hasattr(found, "format_message") or kind == "NoArgsIsHelpError":
        return None
    return UsageError(_message(kind, found), hint=_hint(kind, found))


def _message(kind: str, found: Any) -> str:
    parameter = getattr(found, "param", None)
    if kind == "MissingParameter" and parameter is not None:
        words = [typed_name(each) for each in found.ctx.command.params if each.param_type_name == "argument"]
        # The last words go to the last arguments, so that it may be another one that was left out.
        takes = f": {found.ctx.command_path} takes {' '.join(words)}" if typed_name(parameter) in words[:-1] else ""
        return f"{typed_name(parameter)} is missing{takes}"
    if parameter is not None:
        # Some messages are those of pydantic, which reads the values.
        says = found.message.removeprefix("Value error, ").replace("Input should be", "it must be")
        says = says.partition(", unable to parse")[0].replace("a valid integer", "a whole number")
        return f"{typed_name(parameter)}: {says.rstrip('.')}"
    if extra := _extra_words(found):
        return f"{' '.join(extra)}: {'one word' if len(extra) == 1 else f'{len(extra)} words'} too many"
    text = found.format_message().rstrip(".")
    # What another program calls so is told by the hint, better than by a name that only looks alike.
    text = text.partition(". Did you mean")[0] if _meant(text) else text
    if kind == "NoSuchOption" and found.ctx and _option_meant(found.option_name, found.ctx.command):
        text = text.partition(" (Possible options")[0]
    return str(text[:1].lower() + text[1:])


def _meant(message: str) -> str | None:
    """Return our name of the command that a message of typer says does not exist."""
    unknown = re.match("no such command '(.*?)'", message, flags=re.I)
    return next(_ours(unknown[1]), None) if unknown else None


def _ours(typed: str) -> Iterator[str]:
    """Yield our names of what other programs call so."""
    return (ours for ours, others in MEANT.items() if typed in others.split())


def _hint(kind: str, found: Any) -> str:
    if kind == "BadOptionUsage":
        return f"give a value after {found.option_name}"
    if (context := getattr(found, "ctx", None)) is None:
        return "clipbert --help lists the commands"
    command, path = context.command, context.command_path
    if kind == "NoSuchOption" and (owner := _parent_with(context, found.option_name)):
        return f"it stands before the command: {owner} {found.option_name} {path.removeprefix(f'{owner} ')}"
    commands = getattr(command, "commands", None)
    if re.match("no such command '(help|version)'", found.message, flags=re.I):
        return f"{context.find_root().command_path} --help lists the commands, COMMAND --help explains one"
    if meant := _meant(found.message):
        return f"here it is called {meant}: {path} {meant} --help"
    if commands and kind == "UsageError":
        return f"{path} has the commands {', '.join(commands)}"
    if kind == "NoSuchOption" and (meant := _option_meant(found.option_name, command)):
        return meant
    extra = _extra_words(found)
    if extra and context.params.get("resume"):
        return f"--resume takes no value: {path} --run {shlex.quote(extra[0])} --resume"
    if extra and (lone := [each for each in context.params.get("overrides") or () if not each.partition("=")[2]]):
        value = next(filter(None, (word.lstrip("=") for word in extra)), "VALUE")
        return f"--set takes one word: --set {lone[0].rstrip('=')}={value}"
    if extra and any("--recipe" in parameter.opts for parameter in command.params):
        return f"give a recipe with --recipe, a run with --run: {path} --recipe {shlex.quote(extra[0])}"
    if (extra or kind == "MissingParameter") and (example := _example(command)):
        return f"for example: {example}"
    return f"{path} --help explains every argument and option"


def _option_meant(option: str, command: Any) -> str | None:
    """Return what to type for an unknown option that means another option, an argument or a setting."""
    name = option.lstrip("-").replace("-", "_")
    options = {each: parameter.metavar for parameter in command.params for each in parameter.opts}
    for ours in (option.replace("_", "-"), *_ours(f"--{name}")):
        if ours in options:
            return f"here it is called {ours} {options[ours] or ''}".rstrip()
    if name in ("question", "text", "query") and any(
        typed_name(each).startswith(("QUESTION", "TEXT")) for each in command.params
    ):
        return f"it has no option before it; for example: {_example(command)}"
    if name in ("video", "image") and "--split" in options:
        return 'it asks about a split; about files: clipbert ask --run RUN --video cat.mp4 "what is the cat doing?"'
    key = _setting_named(option, command)
    return f"it is a setting: --set {key}=VALUE" if key else None


def _setting_named(option: str, command: Any) -> str | None:
    """Return the setting that an unknown option names, if the command takes settings."""
    from clipbert_cli.recipe.settings import all_settings, is_short_for

    name = option.lstrip("-").replace("-", "_")
    names = (name, name.removeprefix("num_"))
    options = [each for parameter in command.params for each in parameter.opts]
    last = {key: key.rpartition(".")[2] for key in all_settings()} if "--set" in options else {}
    found = [key for key, word in last.items() if word in names or is_short_for(name, word)]
    if "--run" in options and "--resume" not in options:
        # What was trained keeps its settings.
        found = [key for key in found if not key.startswith(("train.", "model."))]
    # The same name may be in several sections, of which that of training is meant most often.
    return min(found, key=lambda key: not key.startswith("train."), default=None)


def _parent_with(context: Any, option: str) -> str | None:
    """Return the path of the command above this one that has the option."""
    while (context := context.parent) is not None:
        if any(option in parameter.opts for parameter in context.command.params):
            return str(context.command_path)
    return None


def typed_name(parameter: Any) -> str:
    """Return how a person types a parameter: `--run`, or the name of an argument in capitals, as in the help."""
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper())


def _extra_words(found: Any) -> list[str]:
    words = re.search(r"unexpected extra arguments?.*? \((.*)\)$", found.message, flags=re.DOTALL)
    return words[1].split() if words else []


def _example(command: Any) -> str | None:
    """Return the first example of a command's help."""
    text = " ".join(f"{command.help or ''}\n\n{command.epilog or ''}".split("\n"))
    example = re.search(r"Example[^:]*: (.*?)(?:  |$)", text)
    return example[1].strip() if example else None
