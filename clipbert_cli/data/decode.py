"""Encoded media and a choice of frames -> pixels: PyAV for videos, Pillow for images.

K clips, T frames, h w native size.
"""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from PIL import Image

from clipbert_cli.batch import VideoInfo
from clipbert_cli.data.probe import MAX_PIXELS, Kind, open_image, open_video, probe_video
from clipbert_cli.data.sampling import ClipSampling, FrameIndices, select
from clipbert_cli.data.transforms import check_aspect_ratio
from clipbert_cli.errors import DecodeError

# Every video is converted with BT.601 whatever its tags say, as the original's decoder did (and DALI does), and by the
# scaler's default arithmetic, which gives the original's pixels to the bit (golden/transforms, `video_raw_rgb`).
# Interpolated chroma with exact rounding, FULL_CHR_H_INT | ACCURATE_RND, would give DALI's CPU pixels to the bit, and
# differs from these by one level on average and by 24 at sharp coloured edges.
_COLOUR = {"src_colorspace": Colorspace.ITU601, "dst_colorspace": Colorspace.ITU601}


def decode_clips(
    data: bytes,
    sampling: ClipSampling,
    *,
    kind: Kind,
    info: VideoInfo | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """The pixels of a media item's clips.

    Args:
        data: the media file's bytes.
        sampling: which clips of a video; an image is one clip of one frame, whatever it says.
        info: of a video; probed where it is None, which decodes the video once more.
        rng: for random clips, see `sampling.select`.

    Returns:
        (K, T, h, w, 3) uint8 RGB in native size, see `decode_frames` and `decode_image`.

    Raises:
        DecodeError: the media item cannot give these frames; the message says why.
    """
    if kind == "image":
        return decode_image(data)[None, None]
    if info is None:
        info = probe_video(data)
    check_aspect_ratio(info.height, info.width)
    return decode_frames(data, select(info, sampling, rng), info=info)


def decode_frames(data: bytes, clips: FrameIndices, *, info: VideoInfo) -> np.ndarray:
    """The source frames `clips` of a video, in one pass that stops at the last wanted frame.

    Colours are converted with BT.601 (limited range unless the stream says full). Each frame is converted once,
    however many clips want it.

    Args:
        clips: K tuples of T source frame indices, as `sampling.select` gives them.
        info: of this video; the frames' times are compared with it.

    Returns:
        (K, T, h, w, 3) uint8 RGB.

    Raises:
        DecodeError: an index out of range, an error before the last wanted frame, or frames that are not those of
            `info` (which then belongs to other bytes).
    """
    wanted = sorted({index for clip in clips for index in clip})
    if wanted[0] < 0 or wanted[-1] >= len(info.pts):
        raise DecodeError(f"frame {wanted[-1]} is wanted, and {len(info.pts)} frames decode")
    slots = {index: slot for slot, index in enumerate(wanted)}
    pixels = np.empty((len(wanted), info.height, info.width, 3), dtype=np.uint8)
    filled = 0
    reformatter = VideoReformatter()  # keeps its conversion tables from frame to frame
    with open_video(data) as video:
        for index, (time, frame) in enumerate(video.frames()):
            slot = slots.get(index)
            if slot is None:
                continue
            if time != info.pts[index] or (frame.height, frame.width) != (info.height, info.width):
                raise DecodeError(
                    f"frame {index} is not the one that was probed: the stored information is of other data"
                )
            pixels[slot] = _to_rgb(reformatter, frame)
            filled += 1
            if filled == len(wanted):
                break
    if filled < len(wanted):
        raise DecodeError(f"frame {wanted[filled]} is wanted, and decoding ends before it")
    if len(clips) == 1 and len(wanted) == len(clips[0]) and tuple(wanted) == clips[0]:
        return pixels[None]
    return pixels[[[slots[index] for index in clip] for clip in clips]]


def _to_rgb(reformatter: VideoReformatter, frame: VideoFrame) -> np.ndarray:
    """(h, w, 3) uint8."""
    return reformatter.reformat(frame, format="rgb24", interpolation=Interpolation.BILINEAR, **_COLOUR).to_ndarray()


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture's pixels.

    EXIF rotation is ignored, as in the original. Grey and palette pictures become RGB; what is transparent lies on
    white; CMYK and other colour spaces are converted by Pillow without profiles; 16-bit grey keeps its high byte
    (rounded); of an animated picture the first frame is taken.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        DecodeError: not a picture, damaged, more than `max_pixels`, or pixels that are floating point numbers.
    """
    with open_image(data, max_pixels=max_pixels) as image:
        return np.array(_rgb_image(image))


def _rgb_image(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise DecodeError("its pixels are floating point numbers, and what is white is not known")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")
