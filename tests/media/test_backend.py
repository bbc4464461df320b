"""The decoder is chosen by setting, device and driver, and says why it was chosen."""

from __future__ import annotations

import ctypes
import dataclasses
import re
from typing import Any

import pytest
import torch

from clipbert_cli.errors import RecipeError
from clipbert_cli.media import backend as decoder_module
from clipbert_cli.media.backend import choose_decoder
from clipbert_cli.media.dali import nvdec


def test_auto_chooses_pyav_without_a_gpu_and_says_so() -> None:
    chosen = choose_decoder("auto", torch.device("cpu"), "video")
    assert (chosen.name, chosen.colours) == ("pyav", "original")
    assert chosen.describe() == "pyav on cpu (data.decoder is auto: no GPU)"


def test_missing_dali_is_an_error_with_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "_load_dali", lambda: ("", "NVIDIA DALI is not installed"))
    with pytest.raises(RecipeError, match=r"data\.decoder is dali: NVIDIA DALI is not installed") as caught:
        choose_decoder("dali", torch.device("cpu"), "video")
    assert "clipbert[dali-cuda13]" in str(caught.value.hint)
    assert choose_decoder("auto", torch.device("cuda:0"), "video").name == "pyav"


@pytest.mark.dali
def test_dali_is_chosen_by_setting_or_with_a_gpu() -> None:
    said = choose_decoder("dali", torch.device("cpu"), "video").describe()
    assert said.startswith("dali on cpu (data.decoder is dali: DALI 2")
    chosen = choose_decoder("auto", torch.device("cuda:1"), "image")
    assert (chosen.name, chosen.device, chosen.device_type, chosen.colours) == ("dali", "cuda:1", "cuda", "dali")


class Driver:
    """Stands in for the library of a GPU's video decoder: codec number -> the largest side, 0 if not supported."""

    def __init__(self, sides: dict[int, int], *, status: int = 0) -> None:
        self.sides, self.status = sides, status

    def cuvidGetDecoderCaps(self, reference: Any) -> int:  # noqa: N802 - the library's name
        caps = reference._obj
        assert (caps.chroma_format, caps.bit_depth_minus_8) == (1, 0)
        side = self.sides.get(caps.codec, 0)
        caps.is_supported, caps.num_decoders = bool(side), 1
        caps.max_width = caps.max_height = side
        caps.max_macroblocks, caps.min_width, caps.min_height = side * side // 256, 48, 16
        return self.status


ALL_CODECS = {4: 4096, 8: 8192, 9: 4096, 10: 8192}


def test_the_gpus_own_limits_are_read() -> None:
    assert ctypes.sizeof(nvdec._DecodeCaps) == 88  # as the header of the Video Codec SDK declares it
    codecs, problem = nvdec.query(Driver(ALL_CODECS))  # type: ignore[arg-type]
    assert problem == ""
    assert list(codecs) == ["h264", "hevc", "vp8", "vp9"]
    assert codecs["h264"].accept(4096, 4096)
    assert not codecs["h264"].accept(4112, 64)
    assert not codecs["h264"].accept(32, 64)
    assert not dataclasses.replace(codecs["h264"], max_macroblocks=100).accept(320, 240)


@pytest.mark.dali
@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (Driver({}), "divided GPU (MIG)"),
        (Driver(ALL_CODECS, status=201), "cuvidGetDecoderCaps gives 201"),
        (None, "the driver has no NVDEC, libnvcuvid.so.1"),
    ],
    ids=["no engine", "an error", "no library"],
)
def test_auto_falls_back_to_pyav_where_the_gpu_decodes_no_video(
    driver: Driver | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if driver is not None:
        monkeypatch.setattr(decoder_module, "supported_codecs", lambda device: nvdec.query(driver))
    gpu = torch.device("cuda:0")
    chosen = choose_decoder("auto", gpu, "video")
    assert chosen.name == "pyav"
    assert reason in chosen.reason
    assert "NVIDIA_DRIVER_CAPABILITIES" in chosen.reason
    assert choose_decoder("auto", gpu, "image").name == "dali"
    with pytest.raises(RecipeError, match=re.escape(reason)):
        choose_decoder("dali", gpu, "video")


@pytest.mark.dali
def test_the_codecs_of_the_gpu_are_those_that_dali_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver({4: 4096, 10: 8192})
    monkeypatch.setattr(decoder_module, "supported_codecs", lambda device: nvdec.query(driver))  # type: ignore[arg-type]
    for setting in ("auto", "dali"):
        chosen = choose_decoder(setting, torch.device("cuda:0"), "video")
        assert (chosen.name, list(chosen.codecs), chosen.is_required) == ("dali", ["h264", "vp9"], setting == "dali")
        assert "NVDEC for h264, vp9" in chosen.reason
