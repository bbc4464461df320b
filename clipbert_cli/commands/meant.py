"""Commands, options and arguments that a person typed as other programs call them, and what they are called here."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

_MEANT = {
    "finetune": "train fit resume run_video_qa.py run_video_retrieval.py run_vqa.py",
    "pretrain": "run_pretrain.py",
    "infer": "predict test",
    "eval": "evaluate score",
    "search": "query index",
    "doctor": "info env check",
    "ls": "list",
    "--recipe": "--config --cfg --conf --c --cfg_file --config_file --config_name",
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


def option_meant(option: str, command: Any) -> str | None:
    """Return what to type for an unknown option: another option, an argument without an option, or a setting."""
    name = option.lstrip("-").replace("-", "_")
    options = {each: parameter.metavar for parameter in command.params for each in parameter.opts}
    arguments = [typed_name(each).strip("[]") for each in arguments_of(command)]
    meant = [option.replace("_", "-"), *_ours(f"--{name}")]
    if "--output" in meant:
        # A download and a training have other words for the place where they write.
        meant += ["--to", *(["--run"] if "--resume" in options else [])]
    if meant[0] not in options and (key := setting_meant(name, options)):
        return f"it is a setting: --set {key}=VALUE"
    if places := [f"{each} {options[each] or ''}".rstrip() for each in meant if each in options]:
        return f"here it is called {' or '.join(places)}"
    example = example_of(command)
    if example and (place := next((each for each in meant if each in arguments), None)):
        return f"{place} has no option before it; for example: {example}"
    if name in ("video", "videos", "image", "images", "input", "file") and "--split" in options:
        return 'it asks about a split; about files: clipbert ask --run RUN --video cat.mp4 "what is the cat doing?"'
    for names, (beside, advice) in _NEEDLESS.items():
        if name in names.split() and (not beside or beside in options):
            return advice
    return f"for example: {example}" if "--output" in meant and example else None


def corrected_options(words: Sequence[str], command: Any) -> list[str] | None:
    """Return the words after a command with our options in place of unknown ones, or None if one is not known."""
    unknown, known = unknown_options(words, command), options_of(command)
    corrected: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if name not in unknown:
            corrected.append(word)
            continue
        name = "--" + name.lstrip("-").replace("-", "_")
        ours = next((each for each in (name.replace("_", "-"), *_ours(name)) if each in known), None)
        key = None if ours else setting_meant(name.lstrip("-"), known)
        if ours in [*words, *corrected] or not (ours or key):
            return None
        value = value or (rest.pop(0) if rest and (ours is None or takes_value(known[ours])) else "")
        corrected += [ours or "--set", *([f"{key}={value or 'VALUE'}"] if key else [value] if value else [])]
    return corrected


def unknown_options(words: Sequence[str], command: Any) -> dict[str, None]:
    """Return the options among the words after a command that it does not have, in their order."""
    known, before = options_of(command), ""
    unknown: dict[str, None] = {}
    for word in itertools.takewhile(lambda word: word != "--", words):
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if re.match("--?[A-Za-z]", word) and name not in known and not takes_value(known.get(before)):
            unknown[name] = None
        before = word
    return unknown


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


def words_after(context: Any) -> list[str]:
    """Return the words that were typed after the name of a command."""
    words = list(context.meta["words"])
    for name in context.command_path.removeprefix(context.find_root().command_path).split():
        words = words[words.index(name) + 1 :]
    return words


def with_nearest_choice(found: Any) -> list[str]:
    """Return the words of a command line in which an option has none of its choices, with the nearest one."""
    _, _, listed = found.message.partition(" is not one of ")
    choices, words = re.findall(r"'([^']*)'", listed), list(found.ctx.meta["words"])
    for place, word in enumerate(words if choices else ()):
        name, equals, value = word.partition("=")
        if name in found.param.opts:
            at = place if equals else place + 1
            near = difflib.get_close_matches(value or words[at], choices, n=1, cutoff=0)[0]
            words[at] = f"{name}={near}" if equals else near
            return words
    return []


def setting_meant(name: str, options: Any) -> str | None:
    """Return the setting that an unknown option or a key names, if the command takes settings."""
    from clipbert_cli.recipe.settings import called, is_used_at_inference

    found = called(name) if "--set" in options else []
    if "--run" in options and "--resume" not in options:
        found = [key for key in found if is_used_at_inference(key)]
    # The same name may be in several sections, of which that of training is meant most often.
    return min(found, key=lambda key: not key.startswith("train."), default=None)


def typed_name(parameter: Any) -> str:
    """Return how a person types a parameter: `--run`, or the name of an argument in capitals, as in the help."""
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper())


def example_of(command: Any) -> str | None:
    """Return the first example of a command's help."""
    text = " ".join(f"{command.help or ''}\n\n{command.epilog or ''}".split("\n"))
    example = re.search(r"Example[^:]*: (.*?)(?:  |$)", text)
    return example[1].strip() if example else None


def _ours(typed: str) -> Iterator[str]:
    """Yield our names of what other programs call so."""
    return (ours for ours, others in _MEANT.items() if typed in others.split())
