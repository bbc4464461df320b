"""Options that several commands share, each defined once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from clipbert_cli.commands.terminal import doing, mute
from clipbert_cli.commands.typed_line import typed_line
from clipbert_cli.errors import UsageError

if TYPE_CHECKING:
    from clipbert_cli.infer.trained import RunSelection, TrainedRun
    from clipbert_cli.runtime.distributed import World

MAX_SEED = 2**32 - 1
"""The largest seed, as in a recipe."""

MAX_COUNT = 1_000_000_000
"""An upper bound of counts, far above what any command needs."""


def argument(metavar: str, explained: str) -> Any:
    """Declare an argument."""
    return typer.Argument(metavar=metavar, help=explained)


def option(name: str, explained: str, *, metavar: str | None = None) -> Any:
    """Declare an option that no function below declares."""
    return typer.Option(name, metavar=metavar, help=explained)


def recipe(explained: str) -> Any:
    """Declare the option that names a recipe."""
    return typer.Option("--recipe", "-r", metavar="NAME|FILE", help=explained)


def split(explained: str) -> Any:
    """Declare the option that names a split of a recipe."""
    return option("--split", explained, metavar="NAME")


def output(explained: str) -> Any:
    """Declare the option that names the file to write."""
    return typer.Option("--output", "-o", metavar="FILE", help=explained)


def number(name: str, explained: str, *, least: int = 1, most: int = MAX_COUNT) -> Any:
    """Declare an option that is a whole number."""
    return typer.Option(name, metavar="N", min=least, max=most, help=explained)


def bounds_of(parameter: Any) -> tuple[float, float] | None:
    """Return the least and the largest number that an option takes; None for an option that is no number."""
    declared = getattr(getattr(parameter, "type_descriptor", None), "parameter_info", None)
    low, high = getattr(declared, "min", None), getattr(declared, "max", None)
    return None if low is None or high is None else (low, high)


def choices_of(parameter: Any) -> tuple[str, ...]:
    """Return what an option takes that is one of several words; nothing for any other option."""
    return tuple(map(str, getattr(parameter.type_descriptor, "choices", None) or ()))


def seed(explained: str) -> Any:
    """Declare the option that is a seed."""
    return number("--seed", explained, least=0, most=MAX_SEED)


Overrides = Annotated[
    list[str] | None,
    option("--set", "Change one setting, for example train.batch_size=8. Repeatable.", metavar="KEY=VALUE"),
]
DataRoot = Annotated[
    Path | None, option("--data-root", "The folder that relative paths of the recipe start from.", metavar="DIR")
]
Run = Annotated[
    Path,
    option(
        "--run",
        "A run's folder, a checkpoint in it, a folder that clipbert runs export made, or hf:ORG/NAME on the "
        "Hugging Face Hub.",
        metavar="DIR",
    ),
]
Checkpoint = Annotated[str, option("--checkpoint", "Which checkpoint of the run to use.", metavar="best|latest|step_N")]
Weights = Annotated[
    Literal["auto", "plain", "ema"],
    option(
        "--weights",
        "Which weights to use if the run has a moving average (train.ema_decay): the plain ones or the average "
        "(ema). By default those that validation scored.",
    ),
]
Json = Annotated[bool, option("--json", "Print the result as one JSON document.")]
Device = Annotated[
    str | None,
    option("--device", "The device to compute on. By default the first GPU, or the CPU.", metavar="cpu|cuda|cuda:N"),
]
Against = Annotated[
    Path | None, option("--against", "Other predictions for the same split, to compare these with.", metavar="PREDS")
]
Overwrite = Annotated[bool, option("--overwrite", "Replace the output if it exists.")]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options of every command that uses a trained model."""

    run: Run
    checkpoint: Checkpoint = "best"
    weights: Weights = "auto"
    overrides: Overrides = None
    device: Device = None

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

    @contextmanager
    def opened(self, *, settings: Sequence[str] = ()) -> Iterator[TrainedRun]:
        """Open the selected run while the block runs.

        Args:
            settings: as in `selection`.
        """
        with doing("loading torch"):
            from clipbert_cli.infer.trained import open_run

        with started(self.device) as world:
            with doing(f"loading {self.run}"):
                opened = open_run(self.selection(settings=settings), world)
            yield opened


@contextmanager
def started(device: str | None) -> Iterator[World]:
    """Start the processes that work together, of which only the main one prints, while the block runs."""
    from clipbert_cli.runtime.distributed import start_world

    with start_world(device) as world:
        if not world.is_main:
            mute()
        yield world


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """The options of every command that can run in several processes."""

    nproc_per_node: Annotated[
        str | None,
        # Text has no bounds for typer: these are for the message.
        typer.Option(
            "--nproc-per-node",
            metavar="N|gpu",
            min=1,
            max=9999,
            help="Number of processes on this machine; gpu means one for each GPU.",
        ),
    ] = None
    nnodes: Annotated[
        int | None, number("--nnodes", "Number of machines. Give the same command on each of them.", most=65_536)
    ] = None
    rdzv_endpoint: Annotated[
        str | None,
        option("--rdzv-endpoint", "Address of one of the machines, where all of them meet.", metavar="HOST:PORT"),
    ] = None
    rdzv_id: Annotated[str | None, option("--rdzv-id", "Job id, the same on every machine.", metavar="NAME")] = None


def expand(command: Callable[..., None]) -> Callable[..., None]:
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
    if options == ProcessOptions():
        return False
    from clipbert_cli.runtime.launch import Processes, is_launched, launch

    if is_launched():
        raise UsageError(
            "the environment variables RANK and WORLD_SIZE are set: a launcher has started this process already",
            hint="start clipbert without torchrun, or leave --nproc-per-node and its kind out; without a launcher: "
            "unset RANK, LOCAL_RANK and WORLD_SIZE",
        )
    launch(
        typed_line(context).without(*(field.name for field in dataclasses.fields(ProcessOptions))),
        Processes(
            per_node=options.nproc_per_node or "1",
            nodes=options.nnodes or 1,
            endpoint=options.rdzv_endpoint,
            job_id=options.rdzv_id,
        ),
    )
    return True
