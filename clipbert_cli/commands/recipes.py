"""`clipbert recipes`: list, show, explain, copy and check the YAML files that describe runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.output import refuse_other_ending, writing
from clipbert_cli.commands.terminal import aligned, note, print_json, print_result, show_logs, warn, wrapped
from clipbert_cli.errors import AnnotationError, UsageError
from clipbert_cli.printable import listed, plural

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe

recipes_app = typer.Typer(no_args_is_help=True, help="List, show, explain, copy and check recipes.")

NameArgument = Annotated[str, options.argument("NAME|FILE", "Name of a shipped recipe, or a recipe file.")]


@recipes_app.command("ls")
def list_command(as_json: options.Json = False) -> None:
    """List the shipped recipes.

    Example: clipbert recipes ls
    """
    from clipbert_cli.recipe.load import list_recipes

    recipes = list_recipes()
    if as_json:
        print_json([{"name": recipe.name, "task": recipe.task, "summary": recipe.summary} for recipe in recipes])
        return
    rows = [("NAME", "TASK", "SUMMARY"), *((recipe.name, recipe.task, recipe.summary) for recipe in recipes)]
    print_result(*aligned(rows, left=3))


@recipes_app.command("show")
def show_command(
    name: NameArgument,
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    comments: Annotated[
        bool, options.option("--comments", "Print the meaning of every setting above it, as a YAML comment.")
    ] = False,
) -> None:
    """Print the whole recipe, every setting with its value, as YAML.

    Environment variables that are not set stay as ${NAME} and are named on stderr.

    Example: clipbert recipes show msrvtt_qa --set train.batch_size=8
    """
    from clipbert_cli.recipe.load import preview_recipe
    from clipbert_cli.recipe.settings import with_comments
    from clipbert_cli.recipe.values import write_yaml

    preview = preview_recipe(name, overrides=overrides, data_root=data_root)
    print_result(*(with_comments if comments else write_yaml)(preview.values).splitlines())
    for sentence in preview.unset:
        warn(sentence)


@recipes_app.command("explain")
def explain_command(
    key: Annotated[str | None, options.argument("KEY", "Setting or section, such as data.num_clips or train.")] = None,
    as_json: options.Json = False,
) -> None:
    """Print what a setting means and where it may change.

    For a section, print this for each of its settings; without KEY, list the sections.

    Example: clipbert recipes explain data.num_clips
    """
    from clipbert_cli.recipe.settings import all_sections, nearest, settings_of
    from clipbert_cli.recipe.shipped import shipped_names

    settings = settings_of(key or "")
    if not settings:
        near = nearest(key or "")
        raise UsageError(
            f"no setting or section is called {key!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""),
            hint=f"a recipe is shown by: clipbert recipes show {key}"
            if key in shipped_names()
            else "clipbert recipes explain lists all of them",
        )
    if as_json:
        print_json([{"key": each.key, "meaning": each.meaning, **each.facts()} for each in settings])
    elif key is None:
        rows = {"name, task, seed": "Settings at the top of a recipe.", **all_sections()}
        width = max(map(len, rows))
        for section, meaning in rows.items():
            print_result(*wrapped(f"{section:{width}}  " + meaning.partition("\n")[0], indent=width + 2))
        print_result("", "clipbert recipes explain SECTION lists the settings of one.")
    else:
        for number, each in enumerate(settings):
            print_result(*([""] if number else []), each.key, *wrapped(f"  {each.meaning}", indent=2), "")
            width = max(map(len, each.facts())) + 2
            for name, value in each.facts().items():
                print_result(*wrapped(f"  {name:{width}}{value}", indent=width + 2))


@recipes_app.command("copy")
def copy_command(
    name: NameArgument,
    file: Annotated[str, options.argument("FILE", "The new file; - is standard output.")],
    overwrite: options.Overwrite = False,
) -> None:
    """Copy a recipe, with its comments, to start your own from it.

    Example: clipbert recipes copy msrvtt_qa mine.yaml
    """
    from clipbert_cli.recipe.shipped import find_recipe
    from clipbert_cli.recipe.values import read_text

    refuse_other_ending(file, [".yaml", ".yml"], what="a recipe", name="FILE")
    text = read_text(find_recipe(name))
    with writing(file, overwrite=overwrite) as out:
        out.write(text)
    if file != "-":
        note(f"wrote {file}: change it, then run: clipbert recipes validate {shlex.quote(file)}")


@recipes_app.command("answers")
def answers_command(
    name: NameArgument,
    file: Annotated[str, options.output("The new file; - is standard output.")] = "-",
    top: Annotated[int | None, options.number("--top", "Take the N most frequent answers. Default: all.")] = None,
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    overwrite: options.Overwrite = False,
) -> None:
    """List the answers of training records, for data.answers.

    The most frequent answer comes first; of equally frequent ones the first in the
    files.

    Example: clipbert recipes answers mine.yaml -o answers.json --top 1500
    """
    import json
    from collections import Counter

    from clipbert_cli.build import build_task, files_named
    from clipbert_cli.recipe.load import load_recipe
    from clipbert_cli.splits import read_split
    from clipbert_cli.task.coverage import alike_answers

    refuse_other_ending(file, [".json"], what="a list of answers")
    show_logs()
    recipe = load_recipe(name, overrides=overrides, data_root=data_root)
    task = build_task(recipe)
    if not task.needs_answers:
        raise UsageError(f"task {recipe.task} has no list of answers", hint="leave data.answers out of this recipe")
    # An earlier list is what this command makes anew; everything else that the recipe names is read.
    inputs = [path for key, path in files_named(recipe).items() if key != "data.answers"]
    with writing(file, overwrite=overwrite, inputs=inputs) as out:
        # Single records without an answer are reported by training. A file without such a field is refused here.
        read = [read_split(recipe, split, task, lambda _: None) for split in recipe.data.train_splits]
        counts = Counter(answer for examples in read for example in examples for answer in task.answers_in(example))
        if not counts:
            raise AnnotationError(
                "no training record has an answer: the fields for it are empty",
                hint="fill them, or set data.fields.answer",
            )
        chosen = dict(counts.most_common(top))
        out.write(json.dumps(list(chosen), ensure_ascii=False, indent=1) + "\n")
    records = plural(sum(map(len, read)), "training record")
    written = "" if file == "-" else f"wrote {file}: "
    note(f"{written}{plural(len(chosen), 'different answer')} of {records}")
    if left := len(counts) - len(chosen):
        share = 100 * (1 - sum(chosen.values()) / counts.total())
        warn(
            f"{plural(left, 'rarer answer')} ({share:.1f} % of those given) left out: training refuses records that "
            "have one, or leaves them out with data.on_unknown_answer: skip"
        )
    for sentence in alike_answers(list(counts)):
        warn(sentence)


@recipes_app.command("validate")
def validate_command(
    name: NameArgument, overrides: options.Overrides = None, data_root: options.DataRoot = None
) -> None:
    """Check a recipe and report all its mistakes at once.

    The exit code is 2 if there are any. An environment variable that is not set and
    files that are not there are no mistakes here; they are named on stderr, and so
    are the settings of a published run that your own recipe has from a shipped one.

    Example: clipbert recipes validate mine.yaml
    """
    from clipbert_cli.contradictions import check_any_recipe
    from clipbert_cli.recipe.load import preview_recipe

    preview = preview_recipe(name, overrides=overrides, data_root=data_root)
    for sentence in (*check_any_recipe(preview.recipe), *preview.unset, *preview.published):
        warn(sentence)
    missing, count = _missing_files(preview.recipe)
    if missing:
        warn(f"of the {count} files and folders that the recipe names, {len(missing)} are not there:", *listed(missing))
    absent = f", but {len(missing)} of the files that it names are missing" if missing else ""
    print_result(
        f"{name}: valid (name {preview.recipe.name}, task {preview.recipe.task}){absent}; its annotations and media "
        "were not read: finetune --dry-run does"
    )


def _missing_files(recipe: Recipe) -> tuple[list[str], int]:
    """Return a line for each file that a recipe names and that is not there, and how many files it names."""
    from clipbert_cli.build import files_named

    keys: dict[Path, list[str]] = {}
    for key, path in files_named(recipe).items():
        # Where an unset variable stands, the place is not known; and what a recipe for inference alone starts from is
        # not read.
        if "${" not in str(path) and (set(recipe.data.train_splits) <= recipe.data.splits.keys() or "model" not in key):
            keys.setdefault(path, []).append(key)
    missing = [
        f"  {path} ({', '.join(filter(None, [*of_path, recipe.origin(of_path[0])]))})"
        for path, of_path in keys.items()
        if not path.exists()
    ]
    return missing, len(keys)
