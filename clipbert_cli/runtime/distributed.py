"""The processes of a run. The only file that may import torch.distributed; one process is world size 1."""

from __future__ import annotations

import inspect
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clipbert_cli.errors import ClipbertError, UsageError
from clipbert_cli.runtime.interrupts import STOP_SIGNALS
from clipbert_cli.types import Shard

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others. One that dies is noticed by the launcher at once; this is for hangs."""

FORWARD_SYNC = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # newer releases of torch, older ones
    if name in inspect.signature(DistributedDataParallel).parameters
)
"""DDP's switch for sending buffers before every forward pass. Ours never change."""

T = TypeVar("T")


_left: list[Any] = []
"""The process groups that this process was in."""


@dataclass(frozen=True, slots=True)
class World:
    """This process's place: its rank among `size` processes, and its device. Alone, every method does the plain thing.

    Every process must call a method that speaks to the others, in the same order.
    """

    rank: int
    size: int
    device: torch.device

    def __enter__(self) -> World:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        # After a failure the others may not answer any more, and leaving does not ask them.
        if self.size > 1 and failure is None:
            # Whoever lets go of the group last waits for its threads. A wrapped model (DDP) does so with Python's lock
            # in hand, which those threads may be waiting for: both would wait forever. So this reference outlives it.
            _left.append(dist.group.WORLD)
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """This process's share of the data."""
        return Shard(self.rank, self.size)

    def gather(self, value: T) -> list[T]:
        """What every process gave, by rank, for every process."""
        values: list[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            dist.all_gather_object(values, value)
        return values

    def reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, for every process; `tensor` itself may hold it afterwards."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def main_first(self, work: Callable[[], T]) -> T:
        """What the main process's `work` returns, for every process; what it raises is raised in all of them."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome = [work(), None]
            except Exception as exc:
                known = isinstance(exc, ClipbertError | OSError)  # others may not survive the journey
                dist.broadcast_object_list([None, exc if known else RuntimeError(f"{type(exc).__name__}: {exc}")])
                raise
        dist.broadcast_object_list(outcome)
        value, failure = outcome
        if failure is not None:
            raise failure
        result: T = value
        return result

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as training calls it: gradients are averaged over the processes in the backward pass."""
        if self.size == 1:
            return model
        # Of a 1x1 convolution's weights, which are the same in every layout, only the names of the strides differ.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        options: Any = {FORWARD_SYNC: False}
        return DistributedDataParallel(model, find_unused_parameters=False, gradient_as_bucket_view=True, **options)

    def accumulating(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """The context of one forward and backward pass; only an update's last one speaks to the other processes."""
        if last or not isinstance(wrapped, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[None] = wrapped.no_sync()
        return context


def start_world(device: str | None = None) -> World:
    """The world of this process, as the launcher's environment describes it; without a launcher it is alone.

    The device is the one named, or the process's own GPU where there are any, or the CPU.

    Raises:
        UsageError: no such device here, or an environment that no launcher writes.
    """
    size, rank, local_rank = (_number(name, default) for name, default in ENVIRONMENT)
    if rank >= size:
        raise UsageError(
            f"the environment variable RANK is {rank}, and WORLD_SIZE {size}: expected a rank below it", hint=_UNSET
        )
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if size > 1 and name.startswith("cuda:"):
        raise UsageError(f"--device is {name}: each of several processes has its own", hint="give --device cuda or cpu")
    if name == "cuda":
        name = f"cuda:{local_rank}"  # with a number, as `set_device` wants it
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as exc:
        given = "--device" if device else f"the device of process {local_rank} of this machine"
        raise UsageError(
            f"{given} is {name}: {str(exc).splitlines()[0]}",
            hint="give cpu, cuda or cuda:N"
            if size == 1
            else "give --nproc-per-node the number of GPUs, or --device cpu",
        ) from exc
    world = World(rank=rank, size=size, device=torch.device(name))
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if size > 1 and not dist.is_initialized():
        # gloo carries what lives on the CPU (counts, predictions), whatever carries the gradients.
        dist.init_process_group("cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo", timeout=TIMEOUT)
    return world


_UNSET = "unset RANK, LOCAL_RANK and WORLD_SIZE for a process alone, or start with torchrun"


def _number(name: str, default: str) -> int:
    value = os.environ.get(name, default)
    if not value.isdecimal():
        raise UsageError(
            f"the environment variable {name} is {value!r}: expected a whole number, as torchrun sets it", hint=_UNSET
        )
    return int(value)


ENVIRONMENT = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
"""What torchrun tells its processes, and what holds without it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How launched processes ended.

    `signal` is what the launcher itself was stopped by; `exit_code` that of the first process that failed, negative
    where a signal killed it, and `rank` its rank. All are None where every process ended well.
    """

    signal: signal.Signals | None = None
    exit_code: int | None = None
    rank: int | None = None


def launch_processes(module: str, arguments: Sequence[str], options: Sequence[str]) -> Ended:
    """Run `python -m MODULE ARGUMENTS` in several processes, by torchrun's launcher in this one.

    Args:
        options: torchrun's own.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    config, program, rest = torchrun.config_from_args(torchrun.parse_args([*options, "-m", module]))
    # SIGUSR1 is passed on like the others: it would end the launcher, and its processes with it.
    config.signals_to_handle = ",".join(sig.name for sig in (*STOP_SIGNALS, signal.SIGHUP, signal.SIGQUIT))
    handlers = {sig: signal.getsignal(sig) for sig in (*STOP_SIGNALS, signal.SIGHUP, signal.SIGQUIT)}
    try:
        elastic_launch(config, entrypoint=program)(*rest, *arguments)
    except SignalException as exc:
        return Ended(signal=exc.sigval)
    except ChildFailedError as exc:
        rank, failure = exc.get_first_failure()
        return Ended(exit_code=failure.exitcode, rank=rank)
    finally:
        for sig, handler in handlers.items():
            signal.signal(sig, handler)
    return Ended()
