"""Download files of Hugging Face repositories with its own library, which keeps a cache and resumes downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipbert_cli import __version__
from clipbert_cli.assets.catalog import FileSource
from clipbert_cli.assets.transfer import DownloadProgress, SourceRefusedError


def download_from_hub(source: FileSource, name: str, progress: DownloadProgress) -> Path:
    """Return the path of the file in the library's cache (HF_HOME), downloaded where it is not there yet.

    Raises:
        SourceRefusedError: the file does not exist, needs an accepted licence, or cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        path = hf_hub_download(
            source.repo or "",
            source.path or "",
            revision=source.revision,
            repo_type=source.repo_type,
            library_name="clipbert",
            library_version=__version__,
            tqdm_class=_bar(name, progress),
        )
    # The order matters: the special errors are subclasses of the general ones.
    except GatedRepoError as exc:
        message = f"access must be requested at https://huggingface.co/{source.repo}, then set HF_TOKEN"
        raise SourceRefusedError(message) from exc
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as exc:
        raise SourceRefusedError("cannot be reached, and not in the Hugging Face cache") from exc
    except (HfHubHTTPError, EntryNotFoundError, FileMetadataError, HTTPError) as exc:
        raise SourceRefusedError((str(exc).strip() or type(exc).__name__).splitlines()[0]) from exc
    return Path(path)


def _bar(name: str, progress: DownloadProgress) -> type[Any]:
    """Return a progress bar class for the library that draws nothing and reports to `progress`."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            # tqdm itself does not know the option `name`, which the library passes.
            super().__init__(*args, **{**{k: v for k, v in options.items() if k != "name"}, "disable": True})
            progress.begin(name, options.get("total"), options.get("initial") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            progress.advance(name, int(n or 0))
            return None

    return Bar
