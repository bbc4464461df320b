"""The command line that a person meant who typed other names, words in other places, or too few of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from clipbert_cli.commands.typed_line import (
    TypedLine,
    argument_at,
    arguments_of,
    options_of,
    read_line,
    takes_value,
    typed_name,
)
from clipbert_cli.commands.wrong_paths import split_of
from clipbert_cli.path_kinds import A_MODEL, PathKind, look_at
from clipbert_cli.printable import similar

_MEANT = {
    "finetune": "train fit run_video_qa.py run_video_retrieval.py run_vqa.py",
    "finetune --resume": "resume",
    "pretrain": "run_pretrain.py",
    "infer": "predict test",
    "eval": "evaluate score",
    "search": "query index",
    "doctor": "info env check",
    "ls": "list",
    "--recipe": "--run --config --cfg --conf --c --cfg_file --config_file --config_name",
    "--nproc-per-node": "--gpus --ngpus --num_gpus --num_processes --nproc --np --devices --local_rank",
    "--device": "--accelerator --gpu --cpu --cuda",
    "--output": "--out --o --output_file --save --output_dir --save_dir --out_dir --inference_res_dir",
    "--overwrite": "--force --y --yes",
    "--format": "--f --fmt",
    "--examples": "--limit --num_examples --max_samples",
    "--to": "--data_root --data_dir --root --dir --output --out --o --output_dir",
    "--force": "--overwrite --f --y --yes",
    "--video": "--v",
    "--image": "--i",
    "--split": "--inference_split --subset",
    "--top": "--k --topk --top_k",
    "--data-root": "--data --data_dir --data_path --dataset --root",
    "--resume": "--resume_from_checkpoint --resume_from --auto_resume --continue",
    "--run": "--model --ckpt --ckpt_path --model_path --weights --logdir --log_dir --exp --exp_name --workdir "
    "--work_dir --output --out --o --output_dir --save_dir --out_dir",
    "--checkpoint": "--ckpt --ckpt_path --step --epoch --inference_model_step",
    "PREDS": "--preds --pred --predictions --prediction --pred_file --input --file",
    "SRC": "--input --i --source --src --video --videos --image --images --video_dir --folder",
    "STORE": "--output --out --o --store --dst --db --lmdb --vis_db",
    "MEDIA": "--media --video --videos --image --images --folder --input --store --vis_db",
    "QUESTION": "--question --text --query --q",
    "TEXT": "--text --query --question --q --caption",
    "RUN": "--run --model --ckpt",
    "OUT": "--out --o --output --output_dir",
    "NAME|FILE": "--recipe --config --r --name",
    "ASSET": "--recipe --asset --assets --dataset --name",
    "FOLDER": "--output --out --o --folder --dir --to",
}
"""Our commands, options and arguments, and what other programs call them: options with two dashes and underscores."""

ADVICE = {
    ("--overwrite", "--resume"): "a run is never replaced: name another folder, or continue it with --resume",
    ("--force", "--resume"): "a run is never replaced: name another folder, or continue it with --resume",
    ("--overwrite", "--add"): "a store is never replaced: name a new one, or add to it with --add",
    ("--force", "--add"): "a store is never replaced: name a new one, or add to it with --add",
    ("--limit", "--split"): "there is none: name a shorter file with --set data.splits.NAME.annotations=FILE",
}
"""What to do in place of an option that the commands with another option do not have."""


def commands_meant(unknown: str, group: Any) -> list[str]:
    """Return our names of a command that does not exist, with the group that has it."""
    names = (*_ours(unknown), unknown)
    groups = {name: getattr(inside, "commands", ()) for name, inside in group.commands.items()}
    inside = [f"{name} {each}" for each in names for name, known in groups.items() if each in known]
    found = [*(name for name in names if name.partition(" ")[0] in group.commands), *inside]
    return found or similar(unknown, group.commands)


def corrected(line: TypedLine) -> str | None:
    """Return the command line as it was meant; None if it has an option that is not known.

    Options have our names, an option of all commands is before the command, and a word that no argument takes has the
    option that fits it or is left out. The options that the command needs besides are at the end, as in the help.
    """
    known, of_all = options_of(line.command), options_of(line.root)
    arguments: dict[str, list[str]] = {typed_name(each): [] for each in arguments_of(line.command)}
    before, rest = list(line.words[: line.start]), list(line.after)
    options, plain, given = list[str](), list[str](), set[str]()
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in ("--", "help"):
            return None
        if not word.startswith("-") or word == "-":
            plain.append(word)
        elif name in known:
            if takes_value(known[name]) and not equals and rest:
                value = rest.pop(0)
            # A setting is one word.
            while name == "--set" and rest and not value.partition("=")[2] and not rest[0].startswith("-"):
                value = f"{value.rstrip('=')}={rest.pop(0).lstrip('=')}"
            given.add(typed_name(known[name]))
            options += [name] if not takes_value(known[name]) else [f"{name}={value}"] if equals else [name, value]
        elif name in of_all:
            before.insert(0, name)
        elif ours := _meaning(name, line, [*arguments, *known], given={*given, *rest}):
            takes = ours not in known or takes_value(known[ours])
            if takes and not value and rest and not (rest[0].startswith("-") and len(rest[0]) > 1):
                value = rest.pop(0)
            given.add(ours)
            if ours in arguments:
                arguments[ours].append(value or ours)
            elif ours in known:
                options += [ours, value or _placeholder(known[ours], line)] if takes else [ours]
            else:
                options += ["--set", f"{ours}={value or 'VALUE'}"]
        else:
            return None
    if "--run" in known and known["--run"].required and "--run" not in given:
        for run in list(filter(_is_model, plain))[:1]:
            plain.remove(run)
            given.add("--run")
            options += ["--run", run]
    free = [each for each in arguments_of(line.command) if not arguments[typed_name(each)]]
    places = [argument_at(free, number, len(plain)) for number in range(len(plain))]
    for place, word in zip(places, plain, strict=True):
        if place:
            arguments[typed_name(place)].append(word)
        else:
            options += (more := _option_for(word, known, given))
            given |= {*more[::2]}
    words = [*before, *(word for values in arguments.values() for word in values), *options]
    return shlex.join(["clipbert", *words, *_needed(read_line(line.root, words))])


def _meaning(option: str, line: TypedLine, names: list[str], *, given: set[str]) -> str | None:
    """Return the option, the argument or the setting that is meant by an option that the command does not have."""
    typed = option.lstrip("-").replace("-", "_")
    same = f"--{typed.replace('_', '-')}"
    if same in names:
        return same
    # An option that is given has its value.
    return setting_meant(typed, line) or next(
        (each for each in _ours(f"--{typed}") if each in names and each not in given), None
    )


def _is_model(word: str) -> bool:
    return A_MODEL.takes(look_at(word))


def _option_for(word: str, known: dict[str, Any], given: set[str]) -> list[str]:
    """Return a word with the option that it fits; nothing for a word that fits none."""
    found, is_predictions = look_at(word), word.endswith((".json", ".jsonl"))
    if "=" in word:
        option = "--set"
    elif "--against" in known and found.kind in (PathKind.ANNOTATIONS, PathKind.JSON):
        # The truth comes from the recipe.
        return []
    elif found.kind in (PathKind.PREDICTIONS, PathKind.SCORES) or (found.kind is PathKind.NOTHING and is_predictions):
        option = "--against"
    elif A_MODEL.takes(found):
        resume = ["--resume"] if "--resume" in known and "--resume" not in given else []
        return ["--run", word, *resume] if "--run" in known and "--run" not in given else []
    else:
        # What the command needs, then a recipe, then a split.
        needed = [typed_name(each) for each in known.values() if each.required and typed_name(each) != "--run"]
        option = next((each for each in (*needed, "--recipe", "--split") if each in known and each not in given), "")
    return [option, word] if option in known else []


def _needed(line: TypedLine) -> list[str]:
    """Return the options that a command line lacks, with names in place of their values."""
    options = options_of(line.command)
    needed = [each for each in dict.fromkeys(options.values()) if each.required and not line.value(typed_name(each))]
    if "--resume" in options and not (line.value("--resume") or line.value("--recipe")):
        needed = [options["--recipe"]]
    return [word for each in needed for word in (typed_name(each), _placeholder(each, line))]


def _placeholder(option: Any, line: TypedLine) -> str:
    """Return a word for the value of an option: a split of the run, else the name of the value in the help."""
    split = split_of(line.value("--run") or "") if typed_name(option) == "--split" else None
    # In a shell NAME|FILE would be a pipe.
    return split or str(option.metavar or "VALUE").partition("|")[0]


def setting_meant(name: str, line: TypedLine) -> str | None:
    """Return the setting that an unknown option or a key names, if the command takes it."""
    from clipbert_cli.recipe.declaring import Change
    from clipbert_cli.recipe.settings import called, change_of

    options = options_of(line.command)
    found = called(name) if "--set" in options else []
    if line.value("--resume"):
        found = [key for key in found if Change.ON_RESUME in change_of(key)]
    if "--run" in options and "--resume" not in options:
        found = [key for key in found if Change.BY_SET in change_of(key)]
    # The same name may be in several sections, of which that of training is meant most often.
    return min(found, key=lambda key: not key.startswith("train."), default=None)


def example_of(command: Any) -> str | None:
    """Return the first example of a command's help."""
    text = " ".join(f"{command.help or ''}\n\n{command.epilog or ''}".split("\n"))
    example = re.search(r"Example[^:]*: (.*?)(?:  |$)", text)
    return example[1].strip() if example else None


def _ours(typed: str) -> Iterator[str]:
    """Yield our names of what other programs call so."""
    return (ours for ours, others in _MEANT.items() if typed in others.split())
