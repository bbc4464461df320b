"""Commands, options and arguments that a person typed as other programs call them, and what they are called here."""

from __future__ import annotations

import difflib
import itertools
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

_MEANT = {
    "finetune": "train fit resume run_video_qa.py run_video_retrieval.py run_vqa.py",
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
    "--overwrite": "--force --f --y --yes",
    "--format": "--f --fmt",
    "--examples": "--limit --num_examples --max_samples",
    "--to": "--data_root --data_dir --root --dir",
    "--force": "--overwrite --f --y --yes",
    "--video": "--v",
    "--image": "--i",
    "--split": "--inference_split --subset",
    "--top": "--k --topk --top_k",
    "--data-root": "--data --data_dir --data_path --dataset --root",
    "--resume": "--resume_from_checkpoint --resume_from --auto_resume --continue",
    "--run": "--model --ckpt --ckpt_path --model_path --weights --logdir --log_dir --exp --exp_name --workdir "
    "--work_dir",
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

_NEEDLESS = {
    "overwrite force": ("--resume", "a run is never replaced: name another folder, or continue it with --resume"),
    "overwrite force f": ("--add", "a store is never replaced: name a new one, or add to it with --add"),
    "do_inference do_eval": ("--profile", "clipbert infer predicts a split with a trained run: clipbert infer --help"),
    "do_inference do_train do_predict": ("", "there is none: each of these is a command of its own"),
    "limit max_samples num_samples": (
        "--split",
        "there is none: name a shorter file with --set data.splits.NAME.annotations=FILE",
    ),
    "quiet q silent": ("", "there is none: messages go to stderr, which 2>/dev/null leaves out"),
    "verbose v": ("", "there is none: clipbert --debug COMMAND shows where an error comes from"),
}
"""Options that no command has -> an option of the commands that have something else in their place, and what to do."""


def commands_meant(unknown: str, group: Any) -> list[str]:
    """Return our names of a command that does not exist, with the group that has it."""
    names = (*_ours(unknown), unknown)
    groups = {name: getattr(inside, "commands", ()) for name, inside in group.commands.items()}
    inside = [f"{name} {each}" for each in names for name, known in groups.items() if each in known]
    return [*(name for name in names if name in group.commands), *inside]


def option_meant(option: str, line: TypedLine) -> str | None:
    """Return what an unknown option means: another option, an argument without an option, or a setting."""
    command = line.command
    name, options = option.lstrip("-").replace("-", "_"), options_of(command)
    meant = [option.replace("_", "-"), *_ours(f"--{name}")]
    if "--output" in meant:
        # A download and a training have other words for the place where they write.
        meant += ["--to", *(["--run"] if "--resume" in options else [])]
    if meant[0] not in options and (key := setting_meant(name, line)):
        return f"it is a setting, {key}"
    if places := [f"{each} {options[each].metavar or ''}".rstrip() for each in meant if each in options]:
        return f"here it is called {' or '.join(places)}"
    arguments = [typed_name(each) for each in arguments_of(command)]
    if place := next((each for each in meant if each in arguments), None):
        return f"{place} has no option before it"
    if name in ("video", "videos", "image", "images", "input", "file") and "--split" in options:
        return 'it asks about a split; about files: clipbert ask --run RUN --video cat.mp4 "what is the cat doing?"'
    for names, (beside, advice) in _NEEDLESS.items():
        if name in names.split() and (not beside or beside in options):
            return advice
    example = example_of(command)
    return f"for example: {example}" if "--output" in meant and example else None


def corrected_line(line: TypedLine) -> str | None:
    """Return the command line with our options and arguments in place of unknown ones; None if one is not known.

    What the command needs besides is at its end, as in the help.
    """
    unknown, known, named = unknown_options(line), options_of(line.command), list(line.words[: line.start])
    arguments: dict[str, list[str]] = {typed_name(each): [] for each in arguments_of(line.command)}
    words: list[str] = []
    plain: list[str] = []
    rest = list(line.after)
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if name not in unknown:
            if name.startswith("-") and name in known:
                words += [word, *([rest.pop(0)] if word == name and takes_value(known[name]) and rest else [])]
            else:
                plain.append(word)
            continue
        name = "--" + name.lstrip("-").replace("-", "_")
        meant = [name.replace("_", "-"), *_ours(name)]
        key = None if meant[0] in known else setting_meant(name.lstrip("-"), line)
        ours = [each for each in meant if each in known or each in arguments]
        # Of several meanings none is certain, and an option that is given already has another value.
        if not key and (len(ours) != 1 or ours[0] in [*rest, *words]):
            return None
        takes = key or ours[0] in arguments or takes_value(known[ours[0]])
        if takes and not value and rest and not (rest[0].startswith("-") and len(rest[0]) > 1):
            value = rest.pop(0)
        if key:
            words += ["--set", f"{key}={value or 'VALUE'}"]
        elif ours[0] in arguments:
            arguments[ours[0]].append(value or ours[0])
        else:
            words += [ours[0], *([value or _placeholder(known[ours[0]])] if takes else [])]
    free = [each for each in arguments_of(line.command) if not arguments[typed_name(each)]]
    for number, word in enumerate(plain):
        place = argument_at(free, number, len(plain))
        arguments.setdefault(typed_name(place) if place else "", []).append(word)
    again = read_line(line.root, [*named, *itertools.chain.from_iterable(arguments.values()), *words])
    is_too_long = any(each.parameter is None for each in again.values)
    return None if is_too_long else shlex.join(["clipbert", *again.words, *_needed(again)])


def _needed(line: TypedLine) -> list[str]:
    """Return the options that a command line lacks, with names in place of their values."""
    options = dict.fromkeys(options_of(line.command).values())
    needed = [each for each in options if each.required and not line.value(typed_name(each))]
    if "--resume" in options_of(line.command) and not (line.has("--resume") or line.value("--recipe")):
        needed = [options_of(line.command)["--recipe"]]
    return [word for each in needed for word in (typed_name(each), _placeholder(each))]


def _placeholder(option: Any) -> str:
    """Return a word for the value of an option, which in its help may be a pipe to a shell: NAME for NAME|FILE."""
    return str(option.metavar or "VALUE").partition("|")[0]


def unknown_options(line: TypedLine) -> dict[str, None]:
    """Return the options of a command line that its command does not have, in their order."""
    known, before = options_of(line.command), ""
    unknown: dict[str, None] = {}
    for word in itertools.takewhile(lambda word: word != "--", line.after):
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if (
            re.match("--?[A-Za-z]", word)
            and name not in [*known, "-h", "--help"]
            and not takes_value(known.get(before))
        ):
            unknown[name] = None
        before = word
    return unknown


def with_nearest_choice(found: Any, line: TypedLine) -> str | None:
    """Return a command line in which an option has none of its choices, with the nearest one."""
    _, _, listed = found.message.partition(" is not one of ")
    choices = re.findall(r"'([^']*)'", listed)
    for value in line.values if choices else ():
        if value.parameter is not None and value.parameter.name == found.param.name:
            return line.with_values({value.place: difflib.get_close_matches(value.text, choices, n=1, cutoff=0)[0]})
    return None


def setting_meant(name: str, line: TypedLine) -> str | None:
    """Return the setting that an unknown option or a key names, if the command takes it."""
    from clipbert_cli.recipe.settings import called, is_used_at_inference, may_change_on_resume

    options = options_of(line.command)
    found = called(name) if "--set" in options else []
    if line.has("--resume"):
        found = [key for key in found if may_change_on_resume(key)]
    if "--run" in options and "--resume" not in options:
        found = [key for key in found if is_used_at_inference(key)]
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
