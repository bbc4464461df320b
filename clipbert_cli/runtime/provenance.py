"""The provenance of a run: versions, devices, command and git commit, kept in its folder (environment.json)."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from clipbert_cli import __version__
from clipbert_cli.runtime.distributed import World

LIBRARIES = (
    *("torch", "torchvision", "transformers", "tokenizers", "safetensors", "torch-ema", "av", "lmdb", "numpy"),
    "pillow",
)


def environment(world: World, *, step: int) -> dict[str, Any]:
    """Return the entry of environment.json for a start at `step`. Every process must call this."""
    own = (platform.node(), device_name(world.device))
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "step": step,
        "command": sys.argv,
        "clipbert": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        # `platform.platform` starts `uname` to learn of the processor.
        "platform": "-".join(
            filter(None, (platform.system(), platform.release(), platform.machine(), *platform.libc_ver()))
        ),
        "libraries": versions(LIBRARIES),
        "threads": torch.get_num_threads(),
        "processes": [{"host": host, "device": device} for host, device in world.gather(own)],
    }


def device_name(device: torch.device) -> str:
    """Return the model name of a GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def git_commit() -> str | None:
    """Return the git commit of this package's files, with `-dirty` if they were changed; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        # An installed copy may lie inside another project's checkout: this fails unless git tracks our file.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "..")
        return _git(folder, "rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    # Without the option `git status` writes the index of the checkout.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of the packages that are installed, by name."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
