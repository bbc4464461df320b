"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str,
    typer.Option("--recipe", "-r", metavar="NAME|FILE", help="Recipe: a shipped name (clipbert recipes ls) or a file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. train.batch_size=8. Repeatable."),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Folder that the recipe's relative paths start from."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="cpu|cuda|cuda:N", help="Default: the first GPU, or the CPU.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it is there.")]

PROCESSES = "Several processes"
ProcessesOption = Annotated[
    str | None,
    typer.Option("--nproc-per-node", metavar="N|gpu", help="Processes on this machine.", rich_help_panel=PROCESSES),
]
NodesOption = Annotated[
    int | None,
    typer.Option("--nnodes", min=1, help="Machines; give the same command on each.", rich_help_panel=PROCESSES),
]
EndpointOption = Annotated[
    str | None,
    typer.Option("--rdzv-endpoint", metavar="HOST:PORT", help="Where the machines meet.", rich_help_panel=PROCESSES),
]
MeetingOption = Annotated[
    str | None,
    typer.Option("--rdzv-id", metavar="NAME", help="What they call this job.", rich_help_panel=PROCESSES),
]
LAUNCHER_OPTIONS = ("nproc_per_node", "nnodes", "rdzv_endpoint", "rdzv_id")


def launched(context: typer.Context) -> bool:
    """Whether several processes were asked for, and have done all of the command.

    Raises:
        ClipbertError: the first failure of a process.
    """
    from clipbert_cli.runtime.launch import Processes, is_launched, launch

    per_node, nodes, endpoint, meeting = (context.params[name] for name in LAUNCHER_OPTIONS)
    if is_launched() or not any((per_node, nodes, endpoint, meeting)):
        return False
    launch(
        same_command(context),
        Processes(per_node=per_node or "1", nodes=nodes or 1, endpoint=endpoint, meeting=meeting),
    )
    return True


def same_command(context: typer.Context) -> list[str]:
    """The command line that was given, without the launcher's options, one word an option and its value."""
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
