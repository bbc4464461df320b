"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RecipeArgument = Annotated[
    str,
    typer.Option(
        "--recipe", "-r", metavar="NAME|FILE", help="A recipe: a shipped name (clipbert recipes ls) or a file."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, for example train.batch_size=8. Repeatable."),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="The folder that relative paths of the recipe start from."),
]
RunOption = Annotated[
    Path, typer.Option("--run", metavar="DIR", help="The folder of a run that clipbert finetune made.")
]
CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", metavar="best|latest|step_N", help="Which checkpoint of the run to use.")
]
WeightsOption = Annotated[
    Literal["auto", "plain", "ema"],
    typer.Option(
        "--weights",
        help="Which weights to use if the run has a moving average (train.ema_decay): the plain ones or the average "
        "(ema). By default those that validation scored.",
    ),
]
ShortlistOption = Annotated[
    int | None,
    typer.Option(
        "--shortlist",
        min=1,
        metavar="N",
        help="Retrieval only: score all media items with one frame first, and only the N best of each text with all "
        "clips. Faster, but recall can be lower.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="cpu|cuda|cuda:N", help="The device to compute on. By default the first GPU, or the CPU."
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]

ProcessesOption = Annotated[
    str | None,
    typer.Option(
        "--nproc-per-node", metavar="N|gpu", help="Number of processes on this machine; gpu means one for each GPU."
    ),
]
NodesOption = Annotated[
    int | None, typer.Option("--nnodes", min=1, help="Number of machines. Give the same command on each of them.")
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--rdzv-endpoint", metavar="HOST:PORT", help="Address of one of the machines, where all of them meet."
    ),
]
JobIdOption = Annotated[
    str | None, typer.Option("--rdzv-id", metavar="NAME", help="Job id, the same on every machine.")
]
LAUNCHER_OPTIONS = ("nproc_per_node", "nnodes", "rdzv_endpoint", "rdzv_id")


def launched(context: typer.Context) -> bool:
    """Run the command in several processes if its options ask for them, and return whether that was done.

    Raises:
        ClipbertError: the first failure of a process.
    """
    from clipbert_cli.runtime.launch import Processes, is_launched, launch

    per_node, nodes, endpoint, job_id = (context.params[name] for name in LAUNCHER_OPTIONS)
    if is_launched() or not any((per_node, nodes, endpoint, job_id)):
        return False
    launch(
        same_command(context),
        Processes(per_node=per_node or "1", nodes=nodes or 1, endpoint=endpoint, job_id=job_id),
    )
    return True


def same_command(context: typer.Context) -> list[str]:
    """Return the words of this command line without the launcher's options.

    It is rebuilt from the parsed values, because an entry point may be called with other words than `sys.argv`.
    """
    words = ["--debug"] if context.parent and context.parent.params.get("debug") else []
    words.append(str(context.info_name))
    for option in context.command.params:
        value = context.params.get(str(option.name))
        if option.name in LAUNCHER_OPTIONS or value is None or value is False:
            continue
        flag = option.opts[0]
        if value is True:
            words.append(flag)
        else:
            words += [f"{flag}={each}" for each in (value if isinstance(value, list | tuple) else [value])]
    return words
