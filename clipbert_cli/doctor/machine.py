"""The machine without its devices: versions, cores, shared memory, limits, disks, network."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from clipbert_cli.cores import available_cores
from clipbert_cli.doctor.findings import Finding, binary_size
from clipbert_cli.runtime.provenance import LIBRARIES, versions

_DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
_SHARED_MEMORY = Path("/dev/shm")

# Processes with a GPU each exchange gradients there (NCCL).
_LEAST_SHARED_MEMORY = 512 * 2**20

# Stores, pipes and sockets need file descriptors.
_LEAST_OPEN_FILES = 512

# A checkpoint of the published size, with the optimiser's state and averaged weights, has 2.2 GB.
_LEAST_FREE_SPACE = 3 * 10**9

_HUB = "https://huggingface.co"


def examine_machine(*, online: bool) -> Iterator[Finding]:
    """Yield what can be seen without starting anything heavy.

    Args:
        online: also connect to the Hugging Face Hub.
    """
    yield Finding("system", f"{platform.platform()}, Python {platform.python_version()}")
    yield Finding("clipbert", _versions(("clipbert",)))
    yield Finding("libraries", _versions(LIBRARIES))
    yield Finding("DALI", _versions(_DALI) or "not installed")
    yield _cores()
    yield _shared_memory()
    yield _open_files()
    yield _free_space("runs", Path("runs"))
    yield _free_space("downloads", _cache_folder())
    if online:
        yield _network()


def _versions(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions(names).items())


def _cores() -> Finding:
    usable, there = available_cores(), os.cpu_count() or 1
    found = Finding("cores", f"{usable} of {there}")
    if usable == 1 < there:
        advice = "ask for more (SLURM: --cpus-per-task on sbatch and srun; docker: --cpus)"
        return found.but("slow", "decoding and training share one core", advice)
    return found


def _shared_memory() -> Finding:
    if not _SHARED_MEMORY.is_dir():
        return Finding("shared memory", f"no {_SHARED_MEMORY}")
    usage = shutil.disk_usage(_SHARED_MEMORY)
    value = f"{_SHARED_MEMORY}: {binary_size(usage.free)} free of {binary_size(usage.total)}"
    found = Finding("shared memory", value)
    if usage.free < _LEAST_SHARED_MEMORY:
        problem = f"several GPUs need {binary_size(_LEAST_SHARED_MEMORY)} or more"
        advice = "start the container with --shm-size=8g or --ipc=host"
        return found.but("broken", problem, advice)
    return found


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = Finding("open files", f"{_limit(soft)}, up to {_limit(hard)}")
    if soft == resource.RLIM_INFINITY or soft >= _LEAST_OPEN_FILES:
        return found
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    can_raise = wanted >= _LEAST_OPEN_FILES
    advice = f"run first: ulimit -n {wanted}" if can_raise else "ask for a higher limit, or data.workers=0"
    return found.but("broken", f"loading processes need {_LEAST_OPEN_FILES} or more", advice)


def _limit(number: int) -> str:
    return "unlimited" if number == resource.RLIM_INFINITY else f"{number}"


def _free_space(part: str, folder: Path) -> Finding:
    existing = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    usage = shutil.disk_usage(existing)
    found = Finding(part, f"{folder.absolute()}: {binary_size(usage.free)} free")
    if not os.access(existing, os.W_OK):
        return found.but("broken", f"{existing} is not writable", "work in another folder, or give --run")
    if usage.free < _LEAST_FREE_SPACE:
        problem = f"one checkpoint needs up to {binary_size(_LEAST_FREE_SPACE)}"
        return found.but("broken", problem, "free some space, or work on another disk (--run, --to, HF_HOME)")
    return found


def _cache_folder() -> Path:
    """Return where weights of the Hub are kept, by the rules of `huggingface_hub`."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or f"{home}/hub"))


def _network() -> Finding:
    import httpx

    address = os.environ.get("HF_ENDPOINT") or _HUB
    try:
        answer = httpx.head(address, timeout=10, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        offline = "go on" if os.environ.get("HF_HUB_OFFLINE") else "set HF_HUB_OFFLINE=1"
        advice = f"check the proxy (HTTPS_PROXY), or copy files by hand and {offline}"
        found = Finding("network", f"{address} cannot be reached")
        return found.but("broken", str(exc) or type(exc).__name__, advice)
    if answer.is_error:
        found = Finding("network", f"{address} answers {answer.status_code}")
        return found.but("broken", "it refuses a plain request", "check HF_ENDPOINT and the proxy")
    return Finding("network", f"{address} answers")
