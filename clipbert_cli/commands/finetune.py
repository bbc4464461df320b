"""`clipbert finetune` and `clipbert pretrain`: train a model on a task. One loop, one command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipbert_cli.commands.options import (
    PROCESSES,
    DataRootOption,
    DeviceOption,
    EndpointOption,
    JsonOption,
    MeetingOption,
    NodesOption,
    ProcessesOption,
    SetOption,
    launched,
)
from clipbert_cli.commands.profile import measure, silence_tracer
from clipbert_cli.errors import RunError, UsageError

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe
    from clipbert_cli.train.session import Training

PRETRAIN_HELP = """Train on image-text pairs: masked words, and whether image and text belong together.

    Example: clipbert pretrain --recipe pretrain_coco_vg --data-root ~/data
    """


def finetune(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            metavar="NAME|FILE",
            help="Recipe: a shipped name (clipbert recipes ls) or a file. With --resume, the run's own.",
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Run folder to make; default: runs/<recipe's name>.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, where its last checkpoint left it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check data and weights, load one batch, print the plan, and stop.")
    ] = False,
    profile: Annotated[
        int | None,
        typer.Option(
            "--profile",
            min=1,
            metavar="N",
            help="Time N steps part by part and trace some, into <run folder>-profile; keep nothing else.",
        ),
    ] = None,
    overrides: SetOption = None,
    data_root: DataRootOption = None,
    device: DeviceOption = None,
    nproc_per_node: ProcessesOption = None,
    nnodes: NodesOption = None,
    rdzv_endpoint: EndpointOption = None,
    rdzv_id: MeetingOption = None,
    requeue: Annotated[
        bool,
        typer.Option(
            "--requeue",
            help="When stopped by a signal, ask SLURM to start this job again; it then goes on by itself.",
            rich_help_panel=PROCESSES,
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train on a task, from raw videos.

    Example: clipbert finetune --recipe msrvtt_qa --data-root ~/data --set train.batch_size=8

    Example, four GPUs: clipbert finetune --recipe msrvtt_qa --nproc-per-node 4

    Example, where the time of a step goes: clipbert finetune --recipe msrvtt_qa --profile 20

    Example, after an interruption: clipbert finetune --run runs/msrvtt_qa --resume
    """
    _check_profile(profile, {"--resume": resume, "--dry-run": dry_run, "--requeue": requeue})
    if launched(context):
        return
    if profile:
        silence_tracer()

    from clipbert_cli.commands.terminal import mute, note, print_json, show_logs
    from clipbert_cli.runtime.distributed import start_world
    from clipbert_cli.runtime.slurm import check_requeue, was_requeued

    if requeue:
        check_requeue()
    show_logs()
    folder = run
    if recipe and folder is None:
        folder = Path("runs") / _load(recipe, overrides, data_root).name
    if folder is None:
        raise UsageError("--recipe is missing", hint="name a recipe, or give --run with --resume to go on with a run")
    resume = resume or (requeue and was_requeued() and folder.exists())
    loaded = _recipe(recipe, folder, overrides, data_root, resume=resume)

    from clipbert_cli.train.setup import prepare_training

    with start_world(device) as world:
        if not world.is_main:
            mute()
        training = prepare_training(loaded, folder, world=world, resume=resume, must_be_new=profile is None)
        note(training.facts.describe())
        if dry_run:
            for line in training.load_one_batch():
                note(line)
            note("dry run: nothing was written")
            if as_json and world.is_main:
                print_json(training.facts.values())
            return
        if profile:
            measure(training, profile, as_json=as_json)
            return
        _train(training, ask_requeue=requeue, as_json=as_json)


def _check_profile(profile: int | None, others: Mapping[str, bool]) -> None:
    given = [name for name, is_given in others.items() if is_given]
    if profile and given:
        raise UsageError(
            f"--profile and {given[0]} do not go together: a profile is a run of its own that is not kept",
            hint=f"leave {given[0]} out",
        )


def _load(recipe: str | Path, overrides: Sequence[str] | None, data_root: Path | None) -> Recipe:
    from clipbert_cli.recipe.load import load_recipe

    return load_recipe(recipe, overrides=overrides or (), data_root=data_root)


def _recipe(
    recipe: str | None, folder: Path, overrides: Sequence[str] | None, data_root: Path | None, *, resume: bool
) -> Recipe:
    """The recipe given, or the one of the run that goes on."""
    if recipe:
        return _load(recipe, overrides, data_root)
    if not resume:
        raise UsageError("--recipe is missing", hint="name a recipe, or give --resume to go on with the run")
    own = folder / "recipe.yaml"
    if not own.is_file():
        raise RunError(
            f"--resume: there is no run in {folder}", hint="begin one with --recipe, or name its folder with --run"
        )
    return _load(own, overrides, data_root)


def _train(training: Training, *, ask_requeue: bool, as_json: bool) -> None:
    from clipbert_cli.commands.progress import TrainingProgress
    from clipbert_cli.commands.terminal import note, print_json, print_result

    metric = training.best.metric.removeprefix("-")
    with TrainingProgress(training.plan.total_steps, metric=metric) as progress:
        result = training.run([progress], ask_requeue=ask_requeue)
    if as_json:
        print_json(result)
        return
    best = result["best"]
    note(f"best checkpoint: step {best['step']}, {metric} {best[metric]:.2f}")
    print_result(result["run"])
