"""DALI is chosen where it is asked for and where a GPU is, and what is chosen says why."""

from __future__ import annotations

import pytest
import torch

from clipbert_cli.errors import RecipeError
from clipbert_cli.media import backend as decoder_module
from clipbert_cli.media.backend import choose_decoder


def test_auto_is_pyav_without_a_gpu_and_says_so() -> None:
    chosen = choose_decoder("auto", torch.device("cpu"), "video")
    assert (chosen.name, chosen.colours) == ("pyav", "original")
    assert chosen.describe() == "pyav on cpu (data.decoder is auto: no GPU)"


def test_asking_for_dali_where_it_is_not_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "_load_dali", lambda: ("", "NVIDIA DALI is not installed"))
    with pytest.raises(RecipeError, match=r"data\.decoder is dali: NVIDIA DALI is not installed") as caught:
        choose_decoder("dali", torch.device("cpu"), "video")
    assert "clipbert[dali-cuda13]" in str(caught.value.hint)
    assert choose_decoder("auto", torch.device("cuda:0"), "video").name == "pyav"


@pytest.mark.dali
def test_dali_is_chosen_where_it_is_asked_for_and_where_a_gpu_is() -> None:
    said = choose_decoder("dali", torch.device("cpu"), "video").describe()
    assert said.startswith("dali on cpu (data.decoder is dali: DALI 2")
    chosen = choose_decoder("auto", torch.device("cuda:1"), "image")
    assert (chosen.name, chosen.device, chosen.device_type, chosen.colours) == ("dali", "cuda:1", "cuda", "dali")


@pytest.mark.dali
def test_auto_takes_dali_for_videos_only_where_the_driver_has_nvdec(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, name in (("libc.so.6", "dali"), ("libof_no_driver.so.1", "pyav")):
        monkeypatch.setattr(decoder_module, "_NVDEC", library)
        chosen = choose_decoder("auto", torch.device("cuda:0"), "video")
        assert chosen.name == name
        assert ("NVIDIA_DRIVER_CAPABILITIES" in chosen.reason) == (name == "pyav")
        assert choose_decoder("dali", torch.device("cuda:0"), "video").name == "dali"
        assert choose_decoder("auto", torch.device("cuda:0"), "image").name == "dali"
