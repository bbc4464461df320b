"""Options that several commands share, each defined once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from clipbert_cli.errors import UsageError

if TYPE_CHECKING:
    from clipbert_cli.infer.trained import RunSelection

MAX_SEED = 2**32 - 1
"""The largest seed, as in a recipe."""

MAX_COUNT = 1_000_000_000
"""An upper bound of counts, far above what any command needs."""

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, for example train.batch_size=8. Repeatable."),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="The folder that relative paths of the recipe start from."),
]
RunOption = Annotated[
    Path,
    typer.Option(
        "--run",
        metavar="DIR",
        help="A run's folder, a checkpoint in it, a folder that clipbert runs export made, or hf:ORG/NAME on the "
        "Hugging Face Hub.",
    ),
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
        max=MAX_COUNT,
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


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options of every command that uses a trained model."""

    run: RunOption
    checkpoint: CheckpointOption = "best"
    weights: WeightsOption = "auto"
    overrides: SetOption = None
    device: DeviceOption = None

    def selection(
        self, *, recipe: str | None = None, data_root: Path | None = None, settings: Sequence[str] = ()
    ) -> RunSelection:
        """Return the run and the settings that these options select.

        Args:
            recipe: the recipe whose splits and inference settings replace the run's own.
            settings: further overrides, which win over those of the options.
        """
        from clipbert_cli.infer.trained import RunSelection

        overrides = (*(self.overrides or ()), *settings)
        return RunSelection(self.run, self.checkpoint, self.weights, recipe, overrides, data_root)


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """The options of every command that can run in several processes."""

    nproc_per_node: Annotated[
        str | None,
        typer.Option(
            "--nproc-per-node", metavar="N|gpu", help="Number of processes on this machine; gpu means one for each GPU."
        ),
    ] = None
    nnodes: Annotated[
        int | None,
        typer.Option("--nnodes", min=1, max=65_536, help="Number of machines. Give the same command on each of them."),
    ] = None
    rdzv_endpoint: Annotated[
        str | None,
        typer.Option(
            "--rdzv-endpoint", metavar="HOST:PORT", help="Address of one of the machines, where all of them meet."
        ),
    ] = None
    rdzv_id: Annotated[
        str | None, typer.Option("--rdzv-id", metavar="NAME", help="Job id, the same on every machine.")
    ] = None


LAUNCHER_OPTIONS = tuple(field.name for field in dataclasses.fields(ProcessOptions))


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a dataclass of options by one parameter per field.

    Typer makes one option of each parameter, so that several commands can only share options as a dataclass this way.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            groups[parameter.name] = group
            hints = get_type_hints(group, include_extras=True)
            found = inspect.signature(group).parameters.values()
            parameters += (each.replace(annotation=hints[each.name]) for each in found)
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        command(**values)

    # An option with a default may stand before a required one here, which the order of parameters does not allow.
    named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    expanded.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    return expanded


def launched(context: typer.Context, options: ProcessOptions) -> bool:
    """Run the command in several processes if its options ask for them, and return whether that was done.

    Raises:
        ClipbertError: the first failure of a process.
    """
    from clipbert_cli.runtime.launch import Processes, is_launched, launch

    if options == ProcessOptions():
        return False
    if is_launched():
        raise UsageError(
            "the environment variables RANK and WORLD_SIZE are set: a launcher has started this process already",
            hint="leave --nproc-per-node and the options of its kind out, or unset RANK, LOCAL_RANK and WORLD_SIZE",
        )
    launch(
        same_command(context),
        Processes(
            per_node=options.nproc_per_node or "1",
            nodes=options.nnodes or 1,
            endpoint=options.rdzv_endpoint,
            job_id=options.rdzv_id,
        ),
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
