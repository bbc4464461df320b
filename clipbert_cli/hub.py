"""Repositories of the Hugging Face Hub as local folders: `hf:org/name`, or `hf:org/name@revision`.

Files are kept where `HF_HOME` says, and are used from there when the Hub cannot be reached or `HF_HUB_OFFLINE` is 1.
huggingface_hub is imported only when such a name is used.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from clipbert_cli.errors import DownloadError, UsageError

PREFIX = "hf:"

ANSWER_SECONDS = 20.0
"""The time in which the Hub must say which files a repository has; then the files that are here are used."""

DESCRIPTIONS = ("*.json", "vocab.txt", "recipe.yaml")
"""Files that say what a model is, what its words are, and what its answers are."""

WEIGHTS = (("model.safetensors",), ("model.safetensors.index.json", "model-*.safetensors"), ("pytorch_model.bin",))
"""Files of weights, the best first: each is one way in which the same weights are stored."""


class Repository(NamedTuple):
    """A repository of models; `revision` is a branch, a tag or a commit, None for the main branch."""

    name: str
    revision: str | None

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + (f"@{self.revision}" if self.revision else "")


def is_hub_name(place: str | Path) -> bool:
    """Return whether a place of weights or of a run is on the Hub."""
    return str(place).startswith(PREFIX)


def parse(place: str | Path) -> Repository:
    """Return the repository that a name of the form `hf:org/name[@revision]` means.

    Raises:
        UsageError: the name has another form.
    """
    part = r"[A-Za-z0-9][A-Za-z0-9._-]*"
    found = re.fullmatch(rf"{PREFIX}({part}/{part})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?", str(place))
    if not found:
        raise UsageError(
            f"{str(place)!r} is no name on the Hugging Face Hub", hint="write hf:org/name or hf:org/name@revision"
        )
    return Repository(found[1], found[2])


def local_folder(place: str | Path) -> Path:
    """Return the folder of a repository's description and weights; what is missing is downloaded.

    Raises:
        UsageError: the name is malformed.
        DownloadError: there is no such repository or revision, access to it must be requested, or the Hub cannot be
            reached and the files are not here.
    """
    from huggingface_hub import snapshot_download

    repository = parse(place)
    with _errors_of(repository):
        names = _listed(repository)
        wanted = list(DESCRIPTIONS if names is None else chosen_files(names))
        with _quiet():
            folder = snapshot_download(
                repository.name,
                revision=repository.revision,
                allow_patterns=wanted,
                local_files_only=names is None,
                endpoint=_endpoint(),
            )
    return Path(folder)


def upload(folder: Path, place: str | Path) -> str:
    """Upload all files of a folder as one commit, and return its address. A repository that is missing is made.

    Raises:
        UsageError: the name is malformed.
        DownloadError: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    repository = parse(place)
    with _errors_of(repository), _quiet():
        api = HfApi(endpoint=_endpoint())
        api.create_repo(repository.name, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository.name,
            folder_path=folder,
            revision=repository.revision,
            commit_message="Upload a model trained with clipbert",
        )
    return str(done.commit_url)


def chosen_files(names: Sequence[str]) -> list[str]:
    """Return those of a repository's files that are needed: descriptions, and the weights once."""
    top = [name for name in names if "/" not in name]
    for patterns in WEIGHTS:
        found = [name for name in top if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
        if found:
            break
    described = [name for name in top if any(fnmatch.fnmatch(name, pattern) for pattern in DESCRIPTIONS)]
    return list(dict.fromkeys([*described, *found]))


def _endpoint() -> str | None:
    """Return the address of another Hub than the public one, if the environment names one."""
    return os.environ.get("HF_ENDPOINT")


def _listed(repository: Repository) -> list[str] | None:
    """Return the names of a repository's files, or None if the Hub cannot be reached but the repository is here."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import DEFAULT_REVISION

    # The errors of the HTTP library come from here because huggingface_hub 1 uses httpx and 2 uses httpx2.
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        # `list_repo_files` would try for half a minute where the Hub cannot be reached, and say nothing.
        revision = repository.revision or DEFAULT_REVISION
        info = HfApi(endpoint=_endpoint()).model_info(repository.name, revision=revision, timeout=ANSWER_SECONDS)
        return [file.rfilename for file in info.siblings or ()]
    except HfHubHTTPError as error:
        # A Hub that is out of order is as good as one that cannot be reached.
        if error.response.status_code >= 500:
            return None
        raise
    except (HTTPError, OfflineModeIsEnabled):
        return None


@contextmanager
def _errors_of(repository: Repository) -> Iterator[None]:
    """Turn huggingface_hub's errors into ours."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{repository.name}"
    refusals = {
        GatedRepoError: ("access must be requested", f"request it at {page}, then set HF_TOKEN"),
        RevisionNotFoundError: ("the repository has no such revision", f"see its branches and tags at {page}"),
        RepositoryNotFoundError: (
            "there is no such repository, or it is private",
            "check the name; for a private repository set HF_TOKEN",
        ),
    }
    try:
        yield
    except LocalEntryNotFoundError as error:
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hugging Face Hub cannot be reached"
        online = f"test with curl -I {_endpoint() or 'https://huggingface.co'} (a proxy: HTTPS_PROXY)"
        raise DownloadError(
            f"{repository}: {reason}, and {constants.HF_HUB_CACHE} does not have its files",
            hint=f"{'unset HF_HUB_OFFLINE' if constants.HF_HUB_OFFLINE else online}, or set HF_HOME to a folder where "
            f"clipbert download {repository} has put them",
        ) from error
    except HfHubHTTPError as error:
        said = f"the Hub answers {error.response.status_code} {error.response.reason_phrase}"
        other = (said, f"check HF_TOKEN and what it may read and write, or see {page}")
        what, hint = next((known for kind, known in refusals.items() if isinstance(error, kind)), other)
        raise DownloadError(f"{repository}: {what}", hint=hint) from error
    except (HTTPError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DownloadError(
            f"{repository}: {reason}", hint="give the command again; what is complete is kept"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Show progress bars on a terminal alone."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silent = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if silent:
        disable_progress_bars()
    try:
        yield
    finally:
        if silent:
            enable_progress_bars()
