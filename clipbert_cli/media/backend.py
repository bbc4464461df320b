"""Which decoder a run uses, decided once, from `data.decoder`, the device and its driver: PyAV on CPU, or DALI.

The two give different pixels. PyAV alone converts colours as the original's decoder did, to the bit; DALI interpolates
chroma, which differs by one level on average and by some 24 at sharp coloured edges. Where a run uses DALI, what DALI
cannot take is decoded by PyAV in DALI's colours, so that one run has one kind of pixels.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Literal

import torch

from clipbert_cli.errors import RecipeError
from clipbert_cli.types import Kind

DecoderSetting = Literal["auto", "pyav", "dali"]

Colours = Literal["original", "dali"]
"""How YUV becomes RGB, by BT.601 in both cases: see the module's docstring."""

Place = Literal["cpu", "cuda"]

IN_A_CONTAINER = "in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
"""How a container is given the driver's NVDEC."""

_NVDEC = "libnvcuvid.so.1"
_INSTALL = "pip install 'clipbert[dali-cuda13]' (or dali-cuda12), or set data.decoder=pyav"


@dataclass(frozen=True, slots=True)
class Decoder:
    """`name` decodes on `device`; `why` says how it was chosen."""

    name: Literal["pyav", "dali"] = "pyav"
    device: str = "cpu"
    why: str = "the default"

    @property
    def place(self) -> Place:
        """The kind of device."""
        return "cuda" if self.device.startswith("cuda") else "cpu"

    @property
    def colours(self) -> Colours:
        """What all pixels of the run are converted like, whoever decodes an item."""
        return "dali" if self.name == "dali" else "original"

    def describe(self) -> str:
        """One line for people, e.g. `pyav on cpu (data.decoder is auto: no GPU)`."""
        rest = "; pyav on cpu what it cannot take" if self.name == "dali" else ""
        return f"{self.name} on {self.device} ({self.why}){rest}"


PYAV = Decoder()


def choose_decoder(setting: DecoderSetting, device: torch.device, kind: Kind) -> Decoder:
    """The decoder of videos or images for a process that computes on `device`.

    Raises:
        RecipeError: `dali` is asked for, and DALI is not here or does not load.
    """
    if setting == "pyav":
        return Decoder(why="data.decoder is pyav")
    if setting == "auto" and device.type != "cuda":
        return Decoder(why="data.decoder is auto: no GPU")
    found, missing = _load_dali()
    if missing is not None:
        if setting == "dali":
            raise RecipeError(f"data.decoder is dali: {missing}", hint=_INSTALL)
        return Decoder(why=f"data.decoder is auto: {missing}")
    if setting == "auto" and kind == "video" and not _has_nvdec():
        return Decoder(why=f"data.decoder is auto: the driver gives no NVDEC, {_NVDEC}; {IN_A_CONTAINER}")
    if setting == "auto":
        return Decoder("dali", str(device), f"data.decoder is auto: a GPU and DALI {found}")
    if device.type != "cuda":
        return Decoder("dali", "cpu", f"data.decoder is dali: DALI {found}, no GPU, so VP8, VP9 and JPEG alone")
    return Decoder("dali", str(device), f"data.decoder is dali: DALI {found}")


def _has_nvdec() -> bool:
    """Whether DALI will find the driver's video decoder; it looks for it with the first video."""
    try:
        ctypes.CDLL(_NVDEC)
    except OSError:
        return False
    return True


def _load_dali() -> tuple[str, str | None]:
    """(DALI's version, why it cannot be used)."""
    try:
        import nvidia.dali
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("nvidia"):
            return "", "NVIDIA DALI is not installed"
        return "", f"NVIDIA DALI lacks the package {exc.name}"
    except (ImportError, OSError) as exc:
        return "", f"NVIDIA DALI cannot be loaded ({exc})"
    return str(nvidia.dali.__version__), None
