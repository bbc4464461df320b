"""clipbert: video and image question answering and text-to-video retrieval from raw media, the ClipBERT way.

`load(run)` answers and searches from Python, `MediaStore` and `sample_clips` read media (`docs/python.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbert_cli.api import MediaStore, load, sample_clips

__version__ = "0.1.0"

__all__ = ["MediaStore", "__version__", "load", "sample_clips"]


def __getattr__(name: str) -> Any:
    # Imported when they are first used: `import clipbert_cli` needs neither torch nor a decoder.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clipbert_cli import api

    return getattr(api, name)
