"""The choice of decoder, PyAV or NVIDIA DALI, made once per run from `data.decoder`, the device and its driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from clipbert_cli.errors import RecipeError
from clipbert_cli.media.dali.nvdec import FrameLimits, supported_codecs
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

# The codecs that DALI decodes without a GPU, in any size.
_ON_CPU = {"vp8": FrameLimits(), "vp9": FrameLimits()}

_INSTALL = "pip install 'clipbert[dali-cuda13]' (or dali-cuda12), or set data.decoder=pyav"


@dataclass(frozen=True, slots=True)
class Decoder:
    """The decoder of a run.

    Args:
        device: the device on which it decodes, such as `cuda:0`.
        reason: why it was chosen.
        codecs: the codecs that DALI decodes on the device, by FFmpeg's names, with the sizes that they may have.
        is_required: the recipe names it, so that nothing else may take its place.
    """

    name: Literal["pyav", "dali"] = "pyav"
    device: str = "cpu"
    reason: str = "the default"
    codecs: Mapping[str, FrameLimits] = field(default_factory=lambda: dict(_ON_CPU), repr=False)
    is_required: bool = False

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
        RecipeError: `setting` is `dali`, and DALI cannot be loaded or the GPU decodes no videos.
    """
    if setting == "pyav":
        return Decoder(reason="data.decoder is pyav")
    is_required, on_gpu = setting == "dali", device.type == "cuda"
    if not is_required and not on_gpu:
        return Decoder(reason="data.decoder is auto: no GPU")
    version, problem = _load_dali()
    codecs: Mapping[str, FrameLimits] = _ON_CPU
    if not problem and on_gpu and kind == "video":
        codecs, problem = supported_codecs(device)
        if problem:
            problem = f"{problem}; {CONTAINER_HINT}"
    if problem:
        if is_required:
            raise RecipeError(f"data.decoder is dali: {problem}", hint=_INSTALL)
        return Decoder(reason=f"data.decoder is auto: {problem}")
    reason = f"data.decoder is {setting}: {'a GPU and ' if not is_required else ''}DALI {version}"
    if not on_gpu:
        reason += ", no GPU, so only VP8, VP9 and JPEG"
    elif kind == "video":
        reason += f", NVDEC for {', '.join(codecs)}"
    return Decoder("dali", str(device) if on_gpu else "cpu", reason, codecs, is_required)


def _load_dali() -> tuple[str, str]:
    """Return (DALI's version, the reason why it cannot be used or "")."""
    try:
        import nvidia.dali
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("nvidia"):
            return "", "NVIDIA DALI is not installed"
        return "", f"NVIDIA DALI lacks the package {exc.name}"
    except (ImportError, OSError) as exc:
        return "", f"NVIDIA DALI cannot be loaded ({exc})"
    return str(nvidia.dali.__version__), ""
