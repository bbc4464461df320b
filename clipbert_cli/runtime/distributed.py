"""The processes of a run: the only file that may import torch.distributed. One process is world size 1."""

from __future__ import annotations

import inspect
import logging
import os
import re
import signal
import threading
import warnings
from collections import Counter
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
from clipbert_cli.runtime.process_exit import ConsequenceError, Ended, check_interrupted, end_watch
from clipbert_cli.runtime.stopping import STOP_SIGNALS, Patience, children, descendants, kill, taken_signals
from clipbert_cli.types import Shard

# How long a process waits for the others before it fails. This is for hangs: the launcher notices a death at once.
TIMEOUT = timedelta(minutes=30)

# DDP's option to send buffers before every forward pass. Our model's buffers never change.
BUFFER_OPTION = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # newer releases of torch, older ones
    if name in inspect.signature(DistributedDataParallel).parameters
)

# The environment variables that torchrun sets, with their values for a single process.
ENVIRONMENT = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))

LAUNCHER_VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""The variables that every launcher sets besides WORLD_SIZE. torch needs them to connect the processes."""

# Processes have this time between a signal and SIGKILL. The launcher gives it, too, when one of them has failed.
_SECONDS_TO_END = 30

_SECONDS_BETWEEN_LOOKS = 0.1
_LOOKS_WITHOUT_PROCESSES = 20

UNSET_HINT = "unset RANK, LOCAL_RANK and WORLD_SIZE; --nproc-per-node N starts several processes, without torchrun"

T = TypeVar("T")

# Process groups that this process has left, see `World.__exit__`.
_groups: list[Any] = []


@dataclass(frozen=True, slots=True)
class World:
    """This process's rank among `size` processes, and its device.

    Methods that communicate must be called by every process, in the same order. With size 1 they do nothing special.
    """

    rank: int
    size: int
    device: torch.device

    def __enter__(self) -> World:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        # After a failure the other processes may not answer any more: leaving must not ask them.
        if self.size > 1 and failure is None:
            # Releasing the last reference to the group joins its threads. A DDP model would do so while it holds
            # Python's lock, for which those threads may be waiting: a deadlock. This reference outlives the model.
            _groups.append(dist.group.WORLD)
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """True if this process writes files and messages for all."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """This process's share of the data."""
        return Shard(self.rank, self.size)

    @property
    def processes_here(self) -> int:
        """Number of the processes that run on this machine, as the launcher states it."""
        stated = os.environ.get("LOCAL_WORLD_SIZE", "")
        return int(stated) if stated.isdecimal() else 1

    def gather(self, value: T) -> list[T]:
        """Return the values that all processes passed, by rank, in every process. Values must be picklable."""
        values: list[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            dist.all_gather_object(values, value)
        return values

    def reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes, in every process; `tensor` itself may be overwritten with it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def main_first(self, work: Callable[[], T]) -> T:
        """Run `work` in the main process, and return its result, or raise its error, in every process."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome = [work(), None]
            except Exception as exc:
                # Errors of other libraries may not survive pickling: the other processes get their text.
                known = isinstance(exc, ClipbertError | OSError)
                text = f"the main process failed: {type(exc).__name__}: {exc}"
                dist.broadcast_object_list([None, exc if known else ConsequenceError(text)])
                raise
        dist.broadcast_object_list(outcome)
        value, failure = outcome
        if failure is not None:
            raise failure
        result: T = value
        return result

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model as training must call it: its backward pass averages gradients over the processes."""
        if self.size == 1:
            return model
        # DDP warns that 1x1 weights in channels_last have other strides than their gradients. The memory is the same
        # in either layout; only the stride metadata differs.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        options: Any = {BUFFER_OPTION: False}
        return DistributedDataParallel(model, find_unused_parameters=False, gradient_as_bucket_view=True, **options)

    def accumulating(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Return the context of one forward and backward pass; only the last one of an update communicates."""
        if last or not isinstance(wrapped, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[None] = wrapped.no_sync()
        return context


def start_world(device: str | None = None) -> World:
    """Return the world that the launcher's environment variables describe, or a world of one process.

    Args:
        device: `cpu`, `cuda` or `cuda:N`; default: the GPU with this process's local rank, or the CPU without GPUs.

    Raises:
        UsageError: there is no such device, or a variable has a value that no launcher writes.
    """
    size, rank, local_rank = (_whole_number(name, default) for name, default in ENVIRONMENT)
    if rank >= size:
        raise UsageError(
            f"the environment variable RANK is {rank}, but must be less than WORLD_SIZE, which is {size}",
            hint=UNSET_HINT,
        )
    if size > 1 and (unset := [name for name in LAUNCHER_VARIABLES if name not in os.environ]):
        raise UsageError(
            f"the environment variable WORLD_SIZE is {size}, but {' and '.join(unset)} "
            f"{'is' if len(unset) == 1 else 'are'} not set: no launcher started this process",
            hint=UNSET_HINT,
        )
    if device is not None and not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
        raise UsageError(f"--device is {device!r}, which is no device", hint="give cpu, cuda or cuda:N")
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if size > 1 and name.startswith("cuda:"):
        raise UsageError(
            f"--device is {name}, but each of several processes needs its own GPU", hint="give --device cuda or cpu"
        )
    if name == "cuda":
        name = f"cuda:{local_rank}"  # `set_device` needs an index
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as exc:  # AssertionError: torch without CUDA
        if not torch.cuda.is_available():
            raise UsageError(
                f"--device is {device or name}, but torch finds no GPU on this machine",
                hint="leave --device out to compute on the CPU; clipbert doctor says what it finds",
            ) from exc
        given = "--device" if device else f"the device of process {local_rank} of this machine"
        several = "give --nproc-per-node the number of GPUs, or --device cpu"
        raise UsageError(
            f"{given} is {name}: {str(exc).splitlines()[0]}", hint="give cpu, cuda or cuda:N" if size == 1 else several
        ) from exc
    world = World(rank=rank, size=size, device=torch.device(name))
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if size > 1 and not dist.is_initialized():
        # Counts and predictions are on the CPU: gloo carries them beside NCCL, which carries the gradients.
        dist.init_process_group("cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo", timeout=TIMEOUT)
    return world


def _whole_number(name: str, default: str) -> int:
    value = os.environ.get(name, default)
    if not value.isdecimal():
        raise UsageError(
            f"the environment variable {name} is {value!r}, but must be a whole number, as torchrun sets it",
            hint=UNSET_HINT,
        )
    return int(value)


def launch_processes(module: str, arguments: Sequence[str], options: Sequence[str]) -> Ended:
    """Run `python -m MODULE ARGUMENTS` in several processes with torchrun's launcher, and return how they ended.

    Args:
        options: torchrun's own options.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    check_interrupted()
    # Its loggers repeat each failure and each signal in their own words.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config, program, rest = torchrun.config_from_args(torchrun.parse_args([*options, "-m", module]))

    raised: list[BaseException] = []

    def start() -> None:
        # The processes inherit this until they have handlers of their own (`__main__.py`): Python would print a
        # traceback on a Ctrl-C before.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            elastic_launch(config, entrypoint=program)(*rest, *arguments)
        except BaseException as exc:  # noqa: BLE001 - raised by `launch_processes`
            raised.append(exc)

    launcher = threading.Thread(target=start, name="launcher", daemon=True)
    asked = _wait_for_processes(launcher)
    for exc in raised:
        if not isinstance(exc, ChildFailedError):
            raise exc
        rank, failure = exc.get_first_failure()
        for each, other in exc.failures.items():
            # The others have only lost this one. The launcher itself ends them with SIGTERM, and kills them later.
            was_killed = other.exitcode < 0 and -other.exitcode != signal.SIGTERM
            if was_killed and other.timestamp - failure.timestamp < _SECONDS_TO_END / 2:
                rank, failure = each, other
        return Ended(signal=asked, exit_code=failure.exitcode, rank=rank)
    # Asked to stop, it may wait for processes of other machines, for example.
    return Ended(signal=asked) if launcher.is_alive() else Ended()


def _wait_for_processes(launcher: threading.Thread) -> signal.Signals | None:
    """Run the launcher's thread to its end, and return the first signal that asked this process to stop.

    In the main thread the launcher would answer signals with an exception in whatever line runs, and some of its lines
    catch all exceptions: it went on. Here signals are passed to the processes, which save and end.
    """
    signals: list[signal.Signals] = []
    handlers = {
        number: signal.signal(number, lambda number, _: signals.append(signal.Signals(number)))
        for number in taken_signals()
    }
    end_watch()  # this function ends the processes by force
    patience = Patience(limit=_SECONDS_TO_END)
    passed: Counter[int] = Counter()
    heard = looks_without = 0
    try:
        launcher.start()
        while launcher.is_alive() and looks_without < _LOOKS_WITHOUT_PROCESSES:
            launcher.join(_SECONDS_BETWEEN_LOOKS)
            if not signals:
                continue
            heard, before = len(signals), heard
            for number in signals[before:heard]:
                patience.ask(number)
            # The launcher makes each the leader of a session. Whatever else this process has started is none.
            processes = [child for child in children() if _leads_session(child)]
            looks_without = 0 if processes else looks_without + 1
            for process in processes:
                for number in signals[passed[process] : heard]:
                    os.kill(process, number)
                passed[process] = heard
            if patience.is_over(descendants(processes)):
                kill(processes)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return signals[0] if signals else None


def _leads_session(process: int) -> bool:
    try:
        return os.getsid(process) == process
    except ProcessLookupError:  # it has ended meanwhile
        return False
