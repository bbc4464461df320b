"""Videos, clips, a decoder and a tolerance that the tests of DALI share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.dali.nvdec import USUAL_LIMITS
from clipbert_cli.media.probe import ProbedVideo, probe_video
from clipbert_cli.media.sampling import FrameIndices

VP9: dict[str, Any] = {"codec": "libvpx-vp9", "container": "webm", "options": {"g": "12", "cpu-used": "8"}}
OPEN_GOP: dict[str, Any] = {
    "options": {"x264-params": "open-gop=1:bframes=3:b-pyramid=none:keyint=12:min-keyint=12:scenecut=0"}
}
CLIPS: FrameIndices = ((3, 17), (20, 3), (33, 47), (47, 47))
ON_CPU = Decoder("dali", "cpu", "a test", is_required=True)
ON_GPU = Decoder("dali", "cuda:0", "a test", USUAL_LIMITS, is_required=True)


def probed(data: bytes) -> ProbedVideo:
    found = probe_video(data)
    assert found.packets is not None
    return found


def assert_close_pixels(found: torch.Tensor, wanted: torch.Tensor) -> None:
    difference = (found.float() - wanted.float()).abs()
    assert difference.mean() <= 0.5
    assert np.percentile(difference.numpy(), 99) <= 3
