"""The choice of decoder, PyAV or NVIDIA DALI, made once per run from `data.decoder`, the device and its driver."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clipbert_cli.errors import RecipeError
from clipbert_cli.types import Kind

if TYPE_CHECKING:
    import torch

DecoderSetting = Literal["auto", "pyav", "dali"]

# PyAV converts colours exactly as the original's decoder did. DALI interpolates chroma, which differs by one level on
# average and by some 24 levels at sharp coloured edges. In a run with DALI, PyAV decodes what DALI cannot decode, and
# converts colours as DALI does, so that all pixels of a run are made in one way.
Colours = Literal["original", "dali"]
"""The way in which YUV becomes RGB, with BT.601 in both cases."""

DeviceType = Literal["cpu", "cuda"]

CONTAINER_HINT = "in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
"""The setting that makes the driver's video decoder visible inside a container."""

_NVDEC = "libnvcuvid.so.1"
_INSTALL = "pip install 'clipbert[dali-cuda13]' (or dali-cuda12), or set data.decoder=pyav"


@dataclass(frozen=True, slots=True)
class Decoder:
    """The decoder of a run.

    Args:
        device: the device on which it decodes, such as `cuda:0`.
        reason: why it was chosen.
    """

    name: Literal["pyav", "dali"] = "pyav"
    device: str = "cpu"
    reason: str = "the default"

    @property
    def device_type(self) -> DeviceType:
        return "cuda" if self.device.startswith("cuda") else "cpu"

    @property
    def colours(self) -> Colours:
        """The colour conversion of all pixels of the run, those that PyAV decodes for DALI included."""
        return "dali" if self.name == "dali" else "original"

    def describe(self) -> str:
        """Return one line for people, such as `pyav on cpu (data.decoder is auto: no GPU)`."""
        fallback = "; pyav on cpu for what DALI cannot decode" if self.name == "dali" else ""
        return f"{self.name} on {self.device} ({self.reason}){fallback}"


PYAV = Decoder()


def choose_decoder(setting: DecoderSetting, device: torch.device, kind: Kind) -> Decoder:
    """Return the decoder of videos or images for a process that computes on `device`.

    Raises:
        RecipeError: `setting` is `dali`, and DALI is not installed or cannot be loaded.
    """
    if setting == "pyav":
        return Decoder(reason="data.decoder is pyav")
    if setting == "auto" and device.type != "cuda":
        return Decoder(reason="data.decoder is auto: no GPU")
    version, problem = _load_dali()
    if problem is not None:
        if setting == "dali":
            raise RecipeError(f"data.decoder is dali: {problem}", hint=_INSTALL)
        return Decoder(reason=f"data.decoder is auto: {problem}")
    if setting == "auto" and kind == "video" and not _has_nvdec():
        return Decoder(reason=f"data.decoder is auto: the driver has no NVDEC, {_NVDEC}; {CONTAINER_HINT}")
    if setting == "auto":
        return Decoder("dali", str(device), f"data.decoder is auto: a GPU and DALI {version}")
    if device.type != "cuda":
        return Decoder("dali", "cpu", f"data.decoder is dali: DALI {version}, no GPU, so only VP8, VP9 and JPEG")
    return Decoder("dali", str(device), f"data.decoder is dali: DALI {version}")


def _has_nvdec() -> bool:
    """Return whether the driver's video decoder can be loaded; DALI itself loads it only with the first video."""
    try:
        ctypes.CDLL(_NVDEC)
    except OSError:
        return False
    return True


def _load_dali() -> tuple[str, str | None]:
    """Return (DALI's version, the reason why it cannot be used or None)."""
    try:
        import nvidia.dali
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("nvidia"):
            return "", "NVIDIA DALI is not installed"
        return "", f"NVIDIA DALI lacks the package {exc.name}"
    except (ImportError, OSError) as exc:
        return "", f"NVIDIA DALI cannot be loaded ({exc})"
    return str(nvidia.dali.__version__), None
