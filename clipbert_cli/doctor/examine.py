"""All examinations of a machine, in order."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from clipbert_cli.doctor.devices import examine_devices
from clipbert_cli.doctor.findings import Finding
from clipbert_cli.doctor.machine import examine_machine
from clipbert_cli.doctor.trials import try_decoding, try_processes, try_steps


def examine(*, online: bool) -> Iterator[Finding]:
    """Yield what is found, as soon as it is found.

    Args:
        online: also connect to the Hugging Face Hub.
    """
    device = _usable_device()
    yield from examine_machine(online=online)
    yield from examine_devices(device)
    yield from try_decoding(device)
    yield from try_steps(device)
    yield try_processes()


def _usable_device() -> torch.device:
    """Return the first GPU, or the CPU if there is none or if it refuses, which its finding reports."""
    try:
        return torch.empty(1, device="cuda:0" if torch.cuda.is_available() else "cpu").device
    except RuntimeError:
        return torch.device("cpu")
