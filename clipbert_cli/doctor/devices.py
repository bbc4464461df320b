"""GPUs, their driver and video decoder, and what the settings `auto` choose on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch

from clipbert_cli.cores import available_cores
from clipbert_cli.doctor.findings import Finding, binary_size
from clipbert_cli.media.backend import CONTAINER_HINT, Decoder, choose_decoder
from clipbert_cli.media.dali.nvdec import supported_codecs
from clipbert_cli.printable import plural
from clipbert_cli.recipe.schema import DataConfig
from clipbert_cli.runtime.precision import Precision

_DRIVER_FILES = ("/dev/nvidia0", "/proc/driver/nvidia/version")
# CUDA Toolkit Release Notes, table "CUDA Toolkit and Minimum Required NVIDIA Driver Version for CUDA Minor Version
# Compatibility".
_NEEDED = "CUDA 13 needs driver 580 or later, CUDA 12 driver 525 or later"


def examine_devices(device: torch.device) -> Iterator[Finding]:
    """Yield the driver, the GPUs, and the choices of `auto` for a process that computes on `device`."""
    yield from _driver()
    yield from _gpus()
    precision = Precision.choose("auto", device).describe()
    why = (
        "no GPU" if device.type == "cpu" else "the GPU computes bf16" if precision == "bf16" else "no bf16 on this GPU"
    )
    yield Finding("precision", f"{precision} (train.precision is auto: {why})")
    yield from _decoders(device)
    yield _workers()
    yield Finding("threads", f"{torch.get_num_threads()} for computing on the CPU")
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    yield Finding("compiler", compiler or "no C++ compiler, which train.compile needs")


def _driver() -> Iterator[Finding]:
    """Yield the NVIDIA driver, and a finding if torch cannot use it."""
    listed, problem = _nvidia_smi("-L")
    driver, _ = _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    there = bool(listed) or any(Path(file).exists() for file in _DRIVER_FILES)
    built_for = f"torch for CUDA {torch.version.cuda}" if torch.version.cuda else "torch without CUDA"
    value = f"{driver[0] if driver else 'no NVIDIA driver'}; {built_for}"
    found = Finding("driver", value)
    if not there:
        yield found
        return
    if torch.version.cuda is None:
        advice = f"install torch from https://download.pytorch.org/whl/cu130, or cu126; {_NEEDED}"
        yield found.but("broken", "this torch cannot compute on GPUs", advice)
    elif not torch.cuda.is_available():
        advice = f"compare the driver with torch's CUDA ({_NEEDED}), and look at CUDA_VISIBLE_DEVICES"
        yield found.but("broken", "torch finds no usable GPU", advice)
    elif problem:
        yield found.but("broken", problem, "load the driver again, or restart the machine")
    else:
        yield found
    if instances := re.findall(r"MIG (\S+) +Device +(\d+)", "\n".join(listed)):
        yield Finding("MIG", ", ".join(f"{profile} (device {number})" for profile, number in instances))


def _nvidia_smi(*arguments: str) -> tuple[list[str], str]:
    """Return the lines that `nvidia-smi` prints, and why it fails, if so."""
    if (program := shutil.which("nvidia-smi")) is None:
        return [], ""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as exc:
        return [], f"nvidia-smi fails: {exc}"
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        return [], f"nvidia-smi fails: {lines[0] if lines else f'exit code {done.returncode}'}"
    return done.stdout.strip().splitlines(), ""


def _gpus() -> Iterator[Finding]:
    advice = "end it (nvidia-smi shows it), or choose a GPU with CUDA_VISIBLE_DEVICES"
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_properties(index).name
        try:
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as exc:
            # A process needs memory to begin with, and a GPU can be reserved for one process.
            problem = f"it cannot be used, perhaps because another process does: {str(exc).splitlines()[0]}"
            yield Finding(f"GPU {index}", name, "broken", problem, advice)
            continue
        found = Finding(f"GPU {index}", f"{name}, {binary_size(free)} free of {binary_size(total)}")
        is_shared = free < total / 2
        yield found.but("slow", "another process uses more than half of its memory", advice) if is_shared else found


def _decoders(device: torch.device) -> Iterator[Finding]:
    if device.type == "cuda":
        codecs, problem = supported_codecs(device)
        limits = [f"{codec} up to {each.max_width} x {each.max_height}" for codec, each in codecs.items()]
        yield Finding("NVDEC", problem or ", ".join(limits))
    for kind in ("video", "image"):
        decoder: Decoder = choose_decoder("auto", device, kind)
        found = Finding(f"decoder of {kind}s", decoder.describe())
        if device.type == "cuda" and decoder.name == "pyav":
            found = found.but(
                "slow", "the GPU does not decode", f"install the extra dali-cuda13 or dali-cuda12; {CONTAINER_HINT}"
            )
        yield found


def _workers() -> Finding:
    """Return whether the cores suffice for the loading processes of a training on all GPUs."""
    workers, cores = DataConfig.model_fields["workers"].default, available_cores()
    processes = max(1, torch.cuda.device_count())
    found = Finding("loading", f"data.workers is {workers} by default, for each process")
    if workers * processes > cores:
        problem = f"{workers * processes} loading processes, but {plural(cores, 'usable core')}"
        return found.but("slow", problem, f"set data.workers={max(1, cores // processes)}, or add cores")
    return found
