"""Files of Hugging Face repositories, through its own library: HF_HOME, HF_TOKEN, proxies, resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipbert_cli import __version__
from clipbert_cli.assets.catalog import Source
from clipbert_cli.assets.transfer import Progress, Refused


def download_from_hub(source: Source, name: str, progress: Progress) -> Path:
    """The file in the library's cache.

    Raises:
        Refused: absent, closed without an accepted licence, or out of reach.
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
    except GatedRepoError as exc:
        raise Refused(f"access must be requested at https://huggingface.co/{source.repo}, then set HF_TOKEN") from exc
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as exc:
        raise Refused("out of reach, and not in the Hugging Face cache") from exc
    except (HfHubHTTPError, EntryNotFoundError, FileMetadataError, HTTPError) as exc:
        raise Refused(str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__) from exc
    return Path(path)


def _bar(name: str, progress: Progress) -> type[Any]:
    """A progress bar class for the library that hands its counts to ours."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**{k: v for k, v in options.items() if k != "name"}, "disable": True})
            progress.begin(name, options.get("total"), options.get("initial") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            progress.advance(name, int(n or 0))
            return None

    return Bar
