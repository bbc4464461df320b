"""SLURM: a job that is about to lose its machine asks for another turn."""

from __future__ import annotations

import os
import subprocess

from clipbert_cli.errors import RunError, UsageError


def check_requeue() -> None:
    """Raises UsageError where this process is in no SLURM job."""
    if "SLURM_JOB_ID" not in os.environ:
        raise UsageError("--requeue: this is no SLURM job (SLURM_JOB_ID is not set)", hint="leave --requeue out")


def was_requeued() -> bool:
    """Whether SLURM has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requeue() -> None:
    """Ask SLURM to put this job into the queue again.

    Raises:
        RunError: it refuses.
    """
    command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as exc:
        said = getattr(exc, "stderr", None) or exc
        raise RunError(
            f"{' '.join(command)} failed: {str(said).strip()}", hint="everything is saved; submit the job again"
        ) from exc
