"""`clipbert recipes`: list, show, copy and check the YAML files that say everything about a run."""

from __future__ import annotations

from typing import Annotated

import typer

from clipbert_cli.commands.options import DataRootOption, JsonOption, OverwriteOption, SetOption

recipes_app = typer.Typer(no_args_is_help=True, help="List, show, copy and check recipes.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A shipped recipe's name, or a file.")]


@recipes_app.command("ls")
def list_command(as_json: JsonOption = False) -> None:
    """List the shipped recipes.

    Example: clipbert recipes ls
    """
    from clipbert_cli.commands.terminal import print_json
    from clipbert_cli.recipe.load import list_recipes

    recipes = list_recipes()
    if as_json:
        print_json([{"name": recipe.name, "task": recipe.task, "summary": recipe.summary} for recipe in recipes])
        return
    rows = [("NAME", "TASK", "WHAT"), *((recipe.name, recipe.task, recipe.summary) for recipe in recipes)]
    name_width, task_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, task, summary in rows:
        typer.echo(f"{name:{name_width}}  {task:{task_width}}  {summary}")


@recipes_app.command("show")
def show_command(name: NameArgument, overrides: SetOption = None, data_root: DataRootOption = None) -> None:
    """Print the whole recipe, every setting with its value, as YAML.

    Environment variables that are not set stay as ${NAME} and are named on stderr.

    Example: clipbert recipes show msrvtt_qa --set train.batch_size=8
    """
    from clipbert_cli.commands.terminal import warn
    from clipbert_cli.recipe.load import preview_recipe

    preview = preview_recipe(name, overrides=overrides or (), data_root=data_root)
    typer.echo(preview.text, nl=False)
    for sentence in preview.unset:
        warn(sentence)


@recipes_app.command("copy")
def copy_command(
    name: NameArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The new file; - is standard output.")],
    overwrite: OverwriteOption = False,
) -> None:
    """Copy a recipe, with its comments, as the start of your own.

    Example: clipbert recipes copy msrvtt_qa mine.yaml
    """
    from clipbert_cli.commands.output import writing
    from clipbert_cli.commands.terminal import note
    from clipbert_cli.recipe.load import find_recipe
    from clipbert_cli.recipe.yaml_nodes import read_text

    text = read_text(find_recipe(name))
    with writing(file, overwrite=overwrite) as out:
        out.write(text)
    if file != "-":
        note(f"wrote {file}: change it, then run: clipbert recipes validate {file}")


@recipes_app.command("validate")
def validate_command(name: NameArgument, overrides: SetOption = None, data_root: DataRootOption = None) -> None:
    """Check a recipe and tell all its mistakes at once (exit code 2).

    Environment variables that are not set are no mistake here; they are named on stderr.

    Example: clipbert recipes validate mine.yaml
    """
    from clipbert_cli.commands.terminal import warn
    from clipbert_cli.recipe.load import preview_recipe
    from clipbert_cli.task.registry import check_task

    preview = preview_recipe(name, overrides=overrides or (), data_root=data_root)
    check_task(preview.recipe.task)
    for sentence in preview.unset:
        warn(sentence)
    typer.echo(f"{name}: valid (name {preview.recipe.name}, task {preview.recipe.task})")
