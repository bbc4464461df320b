"""Full memory is recognised in the words of every library, and the message names the settings at hand."""

from __future__ import annotations

import errno

import pytest
import torch

from clipbert_cli.errors import DecodeError, MemoryFullError
from clipbert_cli.memory import is_out_of_memory, memory_advice, memory_full

ON_A_GPU = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("NCCL error: unhandled cuda error; Cuda failure 2 'out of memory'"),
    RuntimeError("CUDA driver API error CUDA_ERROR_OUT_OF_MEMORY (2): out of memory"),
    RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory"),
]
OF_THE_MACHINE = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("could not allocate 123 bytes"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
]


@pytest.mark.parametrize("failure", [*ON_A_GPU, *OF_THE_MACHINE], ids=lambda failure: str(failure)[:30])
def test_every_wording_is_one_message_with_the_present_settings(failure: Exception) -> None:
    train = {"activation_checkpointing": False, "batch_size": 16, "epochs": 3}
    data = {"num_clips": 1, "frame_size": 448}
    with pytest.raises(MemoryFullError) as caught, memory_advice(train=train.items(), data=data.items()):
        raise failure
    assert str(caught.value).startswith("the GPU's memory is full" if failure in ON_A_GPU else "memory is full")
    assert "\n" not in str(caught.value)
    assert caught.value.hint == (
        "try, in this order: half of train.batch_size with twice train.gradient_accumulation_steps (now 16); "
        "train.activation_checkpointing=true (now false); a smaller data.frame_size (now 448)"
    )


@pytest.mark.parametrize(
    "failure",
    [
        DecodeError("there is not enough memory to decode it"),
        RuntimeError("shapes do not match"),
        RuntimeError("CUDA error: device-side assert triggered"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
        ImportError("libgomp.so: cannot allocate memory in static TLS block"),
        ModuleNotFoundError("No module named 'cffi'"),
    ],
)
def test_other_errors_are_left_as_they_are(failure: Exception) -> None:
    assert not is_out_of_memory(failure)
    with pytest.raises(type(failure)), memory_advice(train=[("batch_size", 2)]):
        raise failure


def test_a_limit_of_addresses_is_named_with_what_raises_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (700_000, 700_000))
    full = memory_full(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    assert str(full).startswith("memory is full: libtorch_cpu.so: failed to map segment from shared object: ")
    assert str(full).endswith("a process may have addresses for up to 700,000 bytes (ulimit -v)")
    assert full.hint == "raise the limit (ulimit -v unlimited, in a new shell)"
    on_a_gpu = memory_full(RuntimeError("CUDA error: out of memory"))
    assert "ulimit" not in f"{on_a_gpu}{on_a_gpu.hint}"
