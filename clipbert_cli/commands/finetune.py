"""`clipbert finetune` and `clipbert pretrain`: train a model on a task. One loop, one command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipbert_cli.commands.options import DataRootOption, DeviceOption, JsonOption, RecipeArgument, SetOption

PRETRAIN_HELP = """Train on image-text pairs: masked words, and whether image and text belong together.

    Example: clipbert pretrain --recipe pretrain_coco_vg --data-root ~/data
    """


def finetune(
    recipe: RecipeArgument,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Run folder to make; default: runs/<recipe's name>.")
    ] = None,
    overrides: SetOption = None,
    data_root: DataRootOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on a task, from raw videos.

    Example: clipbert finetune --recipe msrvtt_qa --data-root ~/data --set train.batch_size=8
    """
    from clipbert_cli.commands.progress import TrainingProgress
    from clipbert_cli.commands.terminal import note, print_json, show_logs
    from clipbert_cli.recipe.load import load_recipe

    show_logs()
    loaded = load_recipe(recipe, overrides=overrides or (), data_root=data_root)

    from clipbert_cli.runs import prepare_training

    training = prepare_training(loaded, run or Path("runs") / loaded.name, device=device)
    note(training.describe())
    with TrainingProgress(training.plan.total_steps, metric=training.task.main_metric) as progress:
        result = training.run([progress])
    if as_json:
        print_json(result)
    else:
        best = result["best"]
        note(f"best checkpoint: step {best['step']}, {training.task.main_metric} {best[training.task.main_metric]:.2f}")
        typer.echo(result["run"])
