"""`clipbert runs`: what runs there are, how they went, and a trained model as a folder of its own."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clipbert_cli.commands.options import JsonOption

runs_app = typer.Typer(no_args_is_help=True, help="List runs, draw their training curves, export trained models.")

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that clipbert finetune made.")]


class Weights(StrEnum):
    """Which of a checkpoint's weights."""

    auto = "auto"
    plain = "plain"
    ema = "ema"


CheckpointOption = Annotated[str, typer.Option("--checkpoint", metavar="best|latest|step_N", help="Which checkpoint.")]
WeightsOption = Annotated[
    Weights,
    typer.Option("--weights", help="`ema` is the moving average, `auto` takes what validation scored."),
]


@runs_app.command("ls")
def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the runs are.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List runs with their step, best score and state.

    Example: clipbert runs ls
    """
    from clipbert_cli.commands.terminal import note, print_json
    from clipbert_cli.runs.summary import find_runs

    found = find_runs(folder)
    if as_json:
        print_json([asdict(run) for run in found])
        return
    if not found:
        note(f"no runs in {folder}")
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "state", "step", "best", box=None, pad_edge=False)
    for run in found:
        step = f"{run.step}/{run.total_steps}" if run.total_steps else "-"
        best = (
            f"{(run.metric or '').removeprefix('-')} {run.best:.2f} at step {run.best_step}"
            if run.best is not None
            else "-"
        )
        table.add_row(*map(Text, (run.run, run.state, step, best)))
    Console(highlight=False, emoji=False).print(table)


@runs_app.command("plot")
def plot(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="PNG to write; default: RUN/curves.png.")
    ] = None,
) -> None:
    """Draw loss, learning rate, gradient norm and validation scores over the steps.

    Example: clipbert runs plot runs/msrvtt_qa -o curves.png
    """
    from clipbert_cli.runs.folder import RunFolder
    from clipbert_cli.runs.plot import plot_run

    folder = RunFolder.existing(run)
    target = output or run / "curves.png"
    plot_run(list(folder.records()), target, title=str(run))
    typer.echo(target)


@runs_app.command("export")
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    checkpoint: CheckpointOption = "best",
    weights: WeightsOption = Weights.auto,
) -> None:
    """Write a trained model into a folder of its own: weights, configuration, vocabulary, answers.

    Example: clipbert runs export runs/msrvtt_qa my-model --checkpoint best
    """
    from clipbert_cli.runs.export import export_run
    from clipbert_cli.runs.folder import RunFolder

    export_run(RunFolder.existing(run), out, checkpoint=checkpoint, weights=weights.value)
    typer.echo(out)
