"""Recognise that memory is full, whichever library reports it, and say which settings need less of it."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clipbert_cli.errors import ClipbertError, MemoryFullError, with_causes
from clipbert_cli.system_errors import reason, remedy, system_error

# Only torch's GPU allocator has an exception type of its own. All others are recognised by their words, in lower case.
_WORDINGS = (
    "out of memory",  # torch, CUDA's runtime and driver, NCCL
    "out_of_memory",  # CUDA_ERROR_OUT_OF_MEMORY, as DALI and NVDEC report it
    "cudaerrormemoryallocation",
    "_alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED and the like of cuDNN and cuSOLVER
    # cuDNN reports this as well if a convolution finds no memory for its workspace.
    "unable to find an engine to execute this computation",
    "defaultcpuallocator: can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "could not allocate",
)
_ON_A_GPU = ("cuda", "cublas", "cudnn", "cusolver", "nccl", "engine")

# The cheapest first: what to do with a setting, and the value with which nothing is left to do.
_ADVICE: dict[str, tuple[str, Any]] = {
    "train.batch_size": ("half of train.batch_size with twice train.gradient_accumulation_steps", 1),
    "train.activation_checkpointing": ("train.activation_checkpointing=true", True),
    "infer.batch_size": ("a lower infer.batch_size", 1),
    "infer.num_clips": ("fewer infer.num_clips", 1),
    "data.num_clips": ("fewer data.num_clips", 1),
    "data.frame_size": ("a smaller data.frame_size", 64),
    "data.workers": ("fewer data.workers", 0),
}


def is_out_of_memory(exc: BaseException) -> bool:
    """Return whether an operation lacked memory. Errors about media and settings are never taken for that."""
    if isinstance(exc, ClipbertError):
        return False
    error = system_error(exc)
    if isinstance(exc, MemoryError) or (error and error.errno == errno.ENOMEM):
        return True
    if isinstance(exc, ImportError):  # in the words of the system's loader of libraries
        return any("failed to map segment" in str(link) for link in with_causes(exc))
    return isinstance(exc, RuntimeError) and any(words in str(exc).lower() for words in _WORDINGS)


def fits(work: Callable[[], None], *, divisible: bool) -> bool:
    """Do some work with torch, and return whether memory sufficed for it.

    Args:
        divisible: whether the work can be done in smaller parts; otherwise the error is raised.
    """
    import torch

    try:
        work()
    except RuntimeError as exc:
        if not divisible or not is_out_of_memory(exc):
            raise
    else:
        return True
    # Outside of the handler: the exception's traceback held the tensors that were computed so far.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


@contextmanager
def memory_advice(**sections: Iterable[tuple[str, Any]]) -> Iterator[None]:
    """Turn an error about memory into a message that names settings of these sections of a recipe.

    Args:
        sections: their settings and present values; those without advice in `_ADVICE` are ignored.

    Raises:
        MemoryFullError: memory was full.
    """
    try:
        yield
    except Exception as exc:
        if not is_out_of_memory(exc):
            raise
        settings = {f"{section}.{name}": value for section, values in sections.items() for name, value in values}
        raise memory_full(exc, settings) from exc


def memory_full(exc: BaseException, settings: Mapping[str, Any] | None = None) -> MemoryFullError:
    """Return the error that says which memory is full and, for these settings, what to change."""
    said = str(exc).strip()
    line = said.splitlines()[0] if said else type(exc).__name__
    where, limited = "the GPU's memory", None
    if not any(word in said.lower() for word in _ON_A_GPU):
        full = OSError(errno.ENOMEM, line)
        where, line, limited = "memory", reason(full), remedy(full)
    steps = [
        f"{advice} (now {json.dumps(settings[name])})"
        for name, (advice, least) in _ADVICE.items()
        if settings is not None and settings.get(name, least) != least
    ]
    if limited and steps:
        steps.insert(0, limited)
    hint = "try, in this order: " + "; ".join(steps) if steps else limited or "free memory, or lower the batch size"
    return MemoryFullError(f"{where} is full: {line}", hint=hint)
