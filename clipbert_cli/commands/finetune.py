"""`clipbert finetune` and `clipbert pretrain`: train a model on a task. Both are the same command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.profile import measure
from clipbert_cli.commands.terminal import doing, note, print_json, print_result, show_logs, warn
from clipbert_cli.commands.typed_line import typed_line
from clipbert_cli.commands.wrong_paths import refuse_absent_data
from clipbert_cli.errors import UsageError
from clipbert_cli.runs.folder import RunFolder

if TYPE_CHECKING:
    from clipbert_cli.recipe.load import Preview
    from clipbert_cli.recipe.schema import Recipe
    from clipbert_cli.train.training import Training

PRETRAIN_HELP = """Train a model on image-text pairs, as a start for other tasks.

    The model learns to predict masked words, and whether an image and a text belong together. The options are those
    of clipbert finetune.

    Example: clipbert pretrain --recipe pretrain_coco_vg --data-root ~/data
    """


@options.expand
def finetune(
    context: typer.Context,
    processes: options.ProcessOptions,
    recipe: Annotated[
        str | None,
        options.recipe(
            "Name of a shipped recipe (see clipbert recipes ls), or a recipe file. Not needed with --resume, which "
            "uses the run's own recipe."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        options.option("--run", "Folder for the run. The default is runs/ and the recipe's name.", metavar="DIR"),
    ] = None,
    resume: Annotated[
        bool, options.option("--resume", "Continue the run in the folder from its last checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool, options.option("--dry-run", "Check data and weights, load one batch, print what would run, and stop.")
    ] = False,
    profile: Annotated[
        int | None,
        options.number(
            "--profile",
            "Measure the phases of N training steps and keep no model. The result is a file beside the run folder, "
            "which ends with -profile.json.",
            most=100_000,
        ),
    ] = None,
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    device: options.Device = None,
    requeue: Annotated[
        bool,
        options.option(
            "--requeue",
            "When a signal stops the run, ask SLURM to start this job again. The job then resumes by itself.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train a model on a task, from raw videos or images.

    The run folder receives checkpoints, logs and the resolved recipe.

    Example: clipbert finetune --recipe msrvtt_qa --data-root ~/data

    Example, 4 GPUs: clipbert finetune --recipe msrvtt_qa --nproc-per-node 4

    Example of a profile: clipbert finetune --recipe msrvtt_qa --profile 20

    Example of resuming: clipbert finetune --run runs/msrvtt_qa --resume
    """
    others = [name for name, value in {"--resume": resume, "--dry-run": dry_run, "--requeue": requeue}.items() if value]
    if profile and others:
        raise UsageError(
            f"--profile and {others[0]} do not go together: a profile is a separate run that is not kept",
            hint=f"leave {others[0]} out",
        )
    if options.launched(context, processes):
        return

    from clipbert_cli.recipe.load import load_recipe
    from clipbert_cli.runtime.interrupts import check_requeue, was_requeued

    if requeue:
        check_requeue()
    show_logs()
    given = _given_recipe(context, recipe, overrides, data_root) if recipe else None
    if given is None and not resume:
        raise UsageError("--recipe is missing", hint="name a recipe, or give --run and --resume to continue a run")
    folder = run or Path("runs", given.recipe.name if given else "")
    if resume and run is None and not (given and folder.exists()):
        raise UsageError("--run is missing: --resume continues a run", hint="name its folder: --run runs/NAME --resume")
    if given:
        loaded = given.recipe
    else:
        loaded = load_recipe(RunFolder.existing(folder).recipe, overrides=overrides, data_root=data_root)
    resume = resume or (requeue and was_requeued() and folder.exists())
    if not resume:
        refuse_absent_data(loaded)

    with doing("loading torch"):
        from clipbert_cli.train.plan import describe_training, training_facts
        from clipbert_cli.train.training import Training

    with options.started(device) as world:
        must_be_new = not (profile or dry_run)
        with doing(f"loading the data and the model of {loaded.name}"):
            training = Training(loaded, folder, world=world, resume=resume, must_be_new=must_be_new)
        note(*describe_training(training))
        if training.is_finished:
            note(f"{folder} is finished: all {training.plan.total_steps:,} of its steps were done before")
        if dry_run:
            with doing("loading one batch"):
                found = [*training.load_one_batch(), *training.read_other_splits()]
            note(*_published(given), *found)
            if folder.exists() and not resume:
                warn(f"{folder} exists already: to train, give another --run, or --resume to continue a run")
            note("time       --profile 3 measures how long a step takes here, and training itself says what is left")
            note("dry run: nothing was written")
            if as_json and world.is_main:
                print_json(training_facts(training))
            return
        if profile:
            measure(training, profile, as_json=as_json)
            return
        _train(training, ask_requeue=requeue, as_json=as_json)


def _refuse_other_command(context: typer.Context, recipe: Recipe) -> None:
    """Raise UsageError if the recipe's task is trained by the other one of the two commands."""
    from clipbert_cli.task.registry import task_class

    command = task_class(recipe.task).trained_by
    if context.info_name != command:
        line = typed_line(context)
        again = line.with_values({line.start - 1: command})
        raise UsageError(
            f"recipe {recipe.name} has task {recipe.task}, which clipbert {context.info_name} does not train",
            hint=f"{again}; or give {context.info_name} another recipe (clipbert recipes ls)",
        )


def _published(given: Preview | None) -> list[str]:
    """Return what a person's own recipe has from a published run, as lines of the plan."""
    found = given.published if given else ()
    advice = "set what your data need otherwise, or extend a recipe that names no data set (clipbert recipes ls)"
    return [f"inherited  {line}" for line in (*found, advice)] if found else []


def _given_recipe(
    context: typer.Context, recipe: str, overrides: Sequence[str] | None, data_root: Path | None
) -> Preview:
    """Return the recipe that --recipe names, if this command trains its task."""
    from clipbert_cli.recipe.load import load_recipe, preview_recipe

    given = preview_recipe(recipe, overrides=overrides, data_root=data_root)
    _refuse_other_command(context, given.recipe)
    # The task is known although a variable is not set, which is an error only of a recipe that this command trains.
    if given.unset:
        load_recipe(recipe, overrides=overrides, data_root=data_root)
    return given


def _train(training: Training, *, ask_requeue: bool, as_json: bool) -> None:
    from clipbert_cli.commands.progress import TrainingProgress

    metric = training.best.metric_name
    with TrainingProgress(training.plan.total_steps, metric=metric) as progress:
        result = training.run([progress], ask_requeue=ask_requeue)
    if as_json:
        print_json(result)
        return
    if best := result["best"]:
        note(f"best checkpoint: step {best['step']}, {metric} {best[metric]:.2f}")
    else:
        note(f"no validation: the last checkpoint, step {result['steps']}, counts as the best")
    print_result(result["run"])
