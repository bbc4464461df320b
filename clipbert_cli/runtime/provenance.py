"""What a run ran on: kept in its folder, so that its numbers can be traced back."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from clipbert_cli import __version__
from clipbert_cli.runtime.distributed import World

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "torch-ema", "av", "lmdb", "numpy", "pillow")


def environment(world: World, *, step: int) -> dict[str, Any]:
    """Versions, devices, command line and git commit of a start at `step`. Every process must call this."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "step": step,
        "command": sys.argv,
        "clipbert": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "processes": [{"host": host, "device": device} for host, device in world.gather(_place(world))],
    }


def device_name(device: torch.device) -> str:
    """The name of a GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def git_commit() -> str | None:
    """The commit that this package's files are of, with `-dirty` where they differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        # An installed copy may lie in somebody else's checkout, which says nothing of it.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "..")
        return _git(folder, "rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _place(world: World) -> tuple[str, str]:
    return platform.node(), device_name(world.device)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
