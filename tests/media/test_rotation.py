"""Videos are turned upright as their display matrix says, and only where that is wanted."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from made_media import HEIGHT, WIDTH, image, marked_frame
from PIL import Image

from clipbert_cli import sample_clips
from clipbert_cli.loading.dataset import MediaSettings, load_clips
from clipbert_cli.media.canvas import resize_pad, upright
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.store.ingest import Transcode, transcode_video
from clipbert_cli.store.records import video_info, video_record
from clipbert_cli.store.source import MediaFolder
from clipbert_cli.types import Rotation

ONE = 1 << 16
# (a, b, c, d) of the matrix: the pixel (x, y) is shown at (a x + c y, b x + d y), up to a shift.
MATRICES = {
    1: (ONE, 0, 0, ONE),
    2: (-ONE, 0, 0, ONE),
    3: (-ONE, 0, 0, -ONE),
    4: (ONE, 0, 0, -ONE),
    5: (0, ONE, ONE, 0),
    6: (0, ONE, -ONE, 0),
    7: (0, -ONE, -ONE, 0),
    8: (0, -ONE, ONE, 0),
}


def with_matrix(a: int, b: int, c: int, d: int, *, container: str = "mp4", codec: str = "libx264") -> bytes:
    """A video of 4 frames with this display matrix."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(marked_frame(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def clips(folder: Path, name: str, data: bytes, rotation: Rotation) -> torch.Tensor:
    (folder / name).write_bytes(data)
    source = MediaFolder(folder, kind="image" if name.endswith("png") else "video", files={"x": folder / name})
    sampling = ClipSampling("uniform", num_frames=1)
    return load_clips(source, "x", MediaSettings(sampling, 96, rotation=rotation), None)


@pytest.mark.parametrize(
    ("orientation", "container", "codec"),
    [
        *((orientation, "mp4", "libx264") for orientation in MATRICES),
        *((orientation, "mov", "mpeg4") for orientation in MATRICES),
        *((orientation, "matroska", "libx264") for orientation in (1, 3, 6, 8)),  # Matroska states angles only.
    ],
)
def test_a_video_is_turned_like_a_picture(tmp_path: Path, orientation: int, container: str, codec: str) -> None:
    data = with_matrix(*MATRICES[orientation], container=container, codec=codec)
    probed = probe_video(data)
    assert probed.info.orientation == orientation
    assert video_info(video_record(probed)) == probed.info
    coded = decode_frames(data, ((0,),), info=probed.info, packets=probed.packets)[0, 0]
    assert coded.shape == (HEIGHT, WIDTH, 3)
    expected = resize_pad(upright(torch.from_numpy(coded).movedim(-1, 0), orientation).movedim(0, -1)[None], 96)[0]
    assert torch.equal(clips(tmp_path, "x.mp4", data, "apply")[0, 0], expected)
    assert torch.equal(clips(tmp_path, "x.mp4", data, "ignore")[0, 0], resize_pad(coded[None], 96)[0])
    # The same rule for a picture with this EXIF orientation.
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = image(coded, "png", exif=exif)
    assert torch.equal(clips(tmp_path, "x.png", picture, "apply")[0, 0], expected)
    assert torch.equal(clips(tmp_path, "x.png", picture, "ignore")[0, 0], resize_pad(coded[None], 96)[0])


@pytest.mark.parametrize("orientation", MATRICES)
def test_transcoding_keeps_the_orientation(orientation: int) -> None:
    probed = probe_video(transcode_video(with_matrix(*MATRICES[orientation]), Transcode(long_side=96, crf=5)))
    assert (probed.info.orientation, probed.info.width, probed.info.height) == (orientation, WIDTH, HEIGHT)


def test_an_odd_angle_counts_as_the_nearest_one() -> None:
    a, b = (round(ONE * value) for value in (np.cos(1.4), np.sin(1.4)))  # 80 degrees
    assert probe_video(with_matrix(a, b, -b, a)).info.orientation == 6


@pytest.mark.parametrize("orientation", MATRICES)
def test_clips_for_people_are_turned_as_those_for_the_model(orientation: int) -> None:
    data = with_matrix(*MATRICES[orientation])
    shown = sample_clips(data, num_frames=1, sampling="uniform").frames
    info = probe_video(data).info
    lying = torch.from_numpy(decode_frames(data, ((0,),), info=info)).movedim(-1, -3)
    np.testing.assert_array_equal(shown, upright(lying, orientation).movedim(-3, -1).numpy())
