"""`clipbert runs`: list runs, export and share trained models."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.terminal import note, print_json, print_result, print_table, warn_of_each
from clipbert_cli.errors import UsageError
from clipbert_cli.path_kinds import A_FOLDER, look_at, unlike
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runs.summary import RunSummary, find_runs

runs_app = typer.Typer(no_args_is_help=True, help="List runs, export and share trained models.")

RunArgument = Annotated[Path, options.argument("RUN", "Folder of a run that clipbert finetune made.")]


@runs_app.command("ls")
def list_runs(
    folder: Annotated[Path, options.argument("FOLDER", "Folder that holds run folders, or one run.")] = Path("runs"),
    as_json: options.Json = False,
) -> None:
    """List the runs in a folder with their step, best score and state.

    Example: clipbert runs ls
    """
    if not folder.exists():
        raise unlike(folder, A_FOLDER, hint="name the folder that holds the runs: clipbert runs ls FOLDER")
    found = find_runs(folder)
    damaged = [run for run in found if run.problem is not None]
    if as_json:
        print_json([asdict(run) for run in found])
    elif not found:
        note(f"no runs in {folder}{_runs_below(folder)}")
    else:
        print_table(("run", "state", "step", "best"), [_row(run) for run in found])
        warn_of_each("damaged", [(run.run, run.problem or "") for run in damaged])
    if damaged:
        raise typer.Exit(1)


def _runs_below(folder: Path) -> str:
    """Return how to list the runs of a folder inside, as the rest of a sentence; empty if there are none."""
    below = min((run.parent for run in look_at(folder).runs), default=None)
    return f"; there are some in {below}: {shlex.join(['clipbert', 'runs', 'ls', str(below)])}" if below else ""


def _row(run: RunSummary) -> tuple[str, str, str, str]:
    step = f"{run.step}/{run.total_steps}" if run.total_steps else "-"
    scored = run.best is not None
    best = f"{(run.metric or '').removeprefix('-')} {run.best:.2f} at step {run.best_step}" if scored else "-"
    return run.run, run.state, step, best


@runs_app.command("export")
def export(
    run: RunArgument,
    out: Annotated[Path, options.argument("OUT", "New folder for the model.")],
    checkpoint: options.Checkpoint = "best",
    weights: options.Weights = "auto",
) -> None:
    """Write a trained model into a new, self-contained folder.

    The folder has the weights, the configuration, the vocabulary, the answers and the recipe.

    Example: clipbert runs export runs/msrvtt_qa my-model --checkpoint best
    """
    from clipbert_cli.runs.export import export_run

    export_run(RunFolder.existing(run), out, checkpoint=checkpoint, weights=weights)
    print_result(str(out))


@runs_app.command("push")
def push(
    run: RunArgument,
    name: Annotated[
        str | None, options.argument("hf:ORG/NAME", "Repository on the Hugging Face Hub, made if it is missing.")
    ] = None,
    to: Annotated[
        Path | None, options.option("--to", "Write the same files into a new folder instead.", metavar="FOLDER")
    ] = None,
    yes: Annotated[bool, options.option("--yes", "Upload without asking.")] = False,
    checkpoint: options.Checkpoint = "best",
    weights: options.Weights = "auto",
) -> None:
    """Upload a trained model with a model card to the Hugging Face Hub.

    The card is made from the recipe, its licence, the validation scores and the versions of the run. All files are
    listed with their sizes before anything is uploaded. HF_TOKEN, or a login of huggingface_hub, gives the access.

    Example: clipbert runs push runs/msrvtt_qa hf:me/msrvtt-qa
    """
    import sys

    from clipbert_cli.files import temporary_folder
    from clipbert_cli.hub import parse, upload
    from clipbert_cli.runs.export import write_shared

    if (name is None) == (to is None):
        raise UsageError("name either a repository, hf:ORG/NAME, or a folder with --to")
    folder = RunFolder.existing(run)
    if to is not None:
        write_shared(folder, to, checkpoint=checkpoint, weights=weights)
        print_result(str(to))
        return
    repository = parse(name or "")
    if not yes and not sys.stdin.isatty():
        raise UsageError("--yes is missing, and there is no terminal on which to ask", hint="give --yes to upload")
    with temporary_folder() as temporary:
        shared = temporary / "model"
        write_shared(folder, shared, checkpoint=checkpoint, weights=weights)
        note(f"to be uploaded to {repository}:")
        for file in sorted(shared.iterdir()):
            note(f"  {file.stat().st_size:>15,} bytes  {file.name}")
        if not yes and not typer.confirm("Upload?", err=True):
            raise typer.Exit(1)
        print_result(upload(shared, str(repository)))
