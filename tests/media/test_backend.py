"""The decoder is chosen by setting, device and driver, and says why it was chosen."""

from __future__ import annotations

import pytest
import torch

from clipbert_cli.errors import RecipeError
from clipbert_cli.media import backend as decoder_module
from clipbert_cli.media.backend import choose_decoder


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


@pytest.mark.dali
def test_auto_chooses_dali_for_videos_only_with_nvdec(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, name in (("libc.so.6", "dali"), ("libof_no_driver.so.1", "pyav")):
        monkeypatch.setattr(decoder_module, "_NVDEC", library)
        chosen = choose_decoder("auto", torch.device("cuda:0"), "video")
        assert chosen.name == name
        assert ("NVIDIA_DRIVER_CAPABILITIES" in chosen.reason) == (name == "pyav")
        assert choose_decoder("dali", torch.device("cuda:0"), "video").name == "dali"
        assert choose_decoder("auto", torch.device("cuda:0"), "image").name == "dali"
