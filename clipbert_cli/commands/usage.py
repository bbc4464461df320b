"""Wrong usage of the command line: the errors that typer finds, in our words, and checks of several commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from clipbert_cli.errors import UsageError

MEANT = {
    "finetune": "train fit resume",
    "infer": "predict test",
    "eval": "evaluate score",
    "search": "query index",
    "doctor": "info env check",
    "ls": "list",
    "--recipe": "--config --cfg --conf --c --cfg_file --config_file --config_name",
    "--nproc-per-node": "--gpus --ngpus --num_gpus --num_processes --nproc --np --devices --local_rank",
    "--device": "--accelerator --gpu --cpu --cuda",
    "--output": "--out --o --output_file --save --output_dir --save_dir --out_dir",
    "--overwrite": "--force --f --y --yes",
    "--video": "--v",
    "--image": "--i",
    "--top": "--k --topk --top_k",
    "--data-root": "--data --data_dir --data_path --dataset --root",
    "train.epochs": "--max_epochs --num_train_epochs --n_epochs",
    "train.batch_size": "--bs --train_batch_size --per_device_train_batch_size",
    "train.learning_rate": "--base_lr --init_lr",
    "train.schedule": "--scheduler --lr_scheduler --lr_scheduler_type",
    "train.warmup_ratio": "--warmup --warmup_steps --warmup_epochs",
    "train.max_grad_norm": "--clip_grad --grad_clip --gradient_clip_val",
    "train.gradient_accumulation_steps": "--grad_accum --accumulate_grad_batches --accum_iter",
    "train.precision": "--fp16 --bf16 --fp32 --amp --mixed_precision",
    "train.validate_every_steps": "--eval_steps --val_check_interval --eval_every",
    "train.save_every_steps": "--save_steps --save_freq --save_every",
    "train.log_every_steps": "--logging_steps --log_interval --log_every_n_steps --print_freq",
    "train.trackers": "--wandb --use_wandb --tensorboard --logger --report_to",
    "data.workers": "--dataloader_num_workers",
    "data.frame_size": "--image_size --img_size --resolution",
    "model.weights.checkpoint": "--model --ckpt --ckpt_path --pretrained --init --load_from --model_name_or_path",
    "--resume": "--resume_from_checkpoint --resume_from --auto_resume --continue",
    "--run": "--model --ckpt --ckpt_path --model_path --weights --logdir --log_dir --exp --exp_name --workdir "
    "--work_dir",
}
"""Our commands, options and settings, and what other programs call them: options with two dashes and underscores."""


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
    text = text.partition(". Did you mean")[0] if _commands_meant(found) else text
    if kind == "NoSuchOption" and found.ctx and _option_meant(found.option_name, found.ctx.command):
        text = text.partition(" (Possible options")[0]
    return str(text[:1].lower() + text[1:])


def _unknown_command(found: Any) -> str | None:
    """Return the word of which a message of typer says that it is no command."""
    unknown = re.match("no such command '(.*?)'", found.message, flags=re.I)
    return unknown and unknown[1]


def _commands_meant(found: Any) -> list[str]:
    """Return our names of a command that does not exist, with the group that has it."""
    if (unknown := _unknown_command(found)) is None:
        return []
    commands, names = found.ctx.command.commands, (*_ours(unknown), unknown)
    groups = {group: getattr(inside, "commands", ()) for group, inside in commands.items()}
    inside = [f"{group} {name}" for name in names for group, known in groups.items() if name in known]
    return [*(name for name in names if name in commands), *inside]


def _ours(typed: str) -> Iterator[str]:
    """Yield our names of what other programs call so."""
    return (ours for ours, others in MEANT.items() if typed in others.split())


def _hint(kind: str, found: Any) -> str:
    if kind == "BadOptionUsage":
        if "does not take a value" not in found.message:
            return f"give a value after {found.option_name}"
        return f"give {found.option_name} alone" + ("; --run names the run" if found.option_name == "--resume" else "")
    if (context := getattr(found, "ctx", None)) is None:
        return "clipbert --help lists the commands"
    command, path = context.command, context.command_path
    if hasattr(command, "commands") and kind == "UsageError":
        return _command_hint(found)
    if kind == "NoSuchOption" and (owner := _parent_with(context, found.option_name)):
        return f"it stands before the command: {owner} {found.option_name} {path.removeprefix(f'{owner} ')}"
    if kind == "NoSuchOption" and (meant := _option_meant(found.option_name, command)):
        return meant
    extra = _extra_words(found)
    if extra and (hint := _words_hint(extra, context)):
        return hint
    if (extra or kind == "MissingParameter") and (example := _example(command)):
        return f"for example: {example}"
    return f"{path} --help explains every argument and option"


def _command_hint(found: Any) -> str:
    """Return what to type in place of a command that does not exist."""
    path, root = found.ctx.command_path, found.ctx.find_root().command_path
    if names := _commands_meant(found):
        return f"here it is called {' or '.join(names)}: {path} {names[0]} --help"
    other = {
        "help": f"{root} --help lists the commands, COMMAND --help explains one",
        "version": f"it is an option: {root} --version",
    }
    return other.get(_unknown_command(found) or "", f"{path} has the commands {', '.join(found.ctx.command.commands)}")


def _words_hint(words: Sequence[str], context: Any) -> str | None:
    """Return what to type for words that the command does not expect."""
    path = context.command_path
    if context.params.get("resume"):
        return f"--resume takes no value: {path} --run {shlex.quote(words[0])} --resume"
    if lone := [each for each in context.params.get("overrides") or () if not each.partition("=")[2]]:
        value = next(filter(None, (word.lstrip("=") for word in words)), "VALUE")
        return f"--set takes one word: --set {lone[0].rstrip('=')}={value}"
    named = _with_options(words, [each for parameter in context.command.params for each in parameter.opts])
    if not named:
        return None
    is_recipe = any(each.startswith("--recipe") for each in named)
    advice = "give a recipe with --recipe, a run with --run" if is_recipe else "give an option before it"
    return f"{advice}: {path} {' '.join(named)}"


def _with_options(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Return those unexpected words that belong to an option of the command, each after its option."""
    # The first of the others is a recipe, the second a split.
    names = [name for name in ("--recipe", "--split") if "--recipe" in options]
    named = []
    for word in words:
        kinds = {"--set": "=" in word, "--against": word.endswith(".jsonl")}
        meant = [option for option, fits in kinds.items() if fits and option in options] or names[:1]
        names = [name for name in names if name not in meant]
        named += [f"{option} {shlex.quote(word)}" for option in meant]
    return named


def _option_meant(option: str, command: Any) -> str | None:
    """Return what to type for an unknown option that means another option, an argument or a setting."""
    name = option.lstrip("-").replace("-", "_")
    options = {each: parameter.metavar for parameter in command.params for each in parameter.opts}
    for ours in (option.replace("_", "-"), *_ours(f"--{name}")):
        # A download and a training have other words for the place where they write.
        places = (ours, "--to", *(["--run"] if "--resume" in options else [])) if ours == "--output" else (ours,)
        if place := next((each for each in places if each in options), None):
            return f"here it is called {place} {options[place] or ''}".rstrip()
        if key := _setting_named(ours, options):
            return f"it is a setting: --set {key}=VALUE"
        if ours == "--output" and (example := _example(command)):
            return f"for example: {example}"
    if name in ("question", "text", "query") and any(
        typed_name(each).startswith(("QUESTION", "TEXT")) for each in command.params
    ):
        return f"it has no option before it; for example: {_example(command)}"
    if name in ("video", "image") and "--split" in options:
        return 'it asks about a split; about files: clipbert ask --run RUN --video cat.mp4 "what is the cat doing?"'
    return None


def _setting_named(option: str, options: Collection[str]) -> str | None:
    """Return the setting that an unknown option or a key names, if the command takes settings."""
    from clipbert_cli.recipe.settings import all_settings, is_short_for

    name = option.lstrip("-").replace("-", "_")
    names = (name, name.removeprefix("num_"))
    last = {key: key.rpartition(".")[2] for key in all_settings()} if "--set" in options else {}
    found = [key for key, word in last.items() if key == name or word in names or is_short_for(name, word)]
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
