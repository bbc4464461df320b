"""Decoding with NVIDIA DALI: NVDEC and nvJPEG on a GPU; VP8, VP9 and JPEG on a CPU.

B items, K clips, T frames, F frames of a segment, S canvas side.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.canvas import channels_first, resize_into, resize_size, upright
from clipbert_cli.media.dali.clips import EncodedClips, Segment
from clipbert_cli.memory import fits, is_out_of_memory
from clipbert_cli.types import Kind

if TYPE_CHECKING:
    import torch

_MAX_SEGMENTS = 64
_MAX_BYTES = 1 << 30
# Frames that DALI's decoder keeps on the GPU for each segment, besides the wanted ones.
_BUFFERED_FRAMES = 8
# On a GPU each thread keeps at most one hardware decoder busy, and an H100 has 7 of them.
_THREADS = {"cuda": 8, "cpu": 4}


class _Work(NamedTuple):
    """One segment to decode; `base` is the canvas position of its item's first frame."""

    item: EncodedClips
    base: int
    segment: Segment


class DaliDecoder:
    """Decodes encoded clips onto canvases of side S.

    Args:
        kind: a pipeline decodes either videos or images.
        resizes: DALI resizes the frames, too. By default it does so on a GPU. On a CPU the code for PyAV's frames does
            it, so that the pixels are the same.
    """

    def __init__(self, decoder: Decoder, *, kind: Kind, frame_size: int, resizes: bool | None = None) -> None:
        import torch

        self.device = torch.device(decoder.device)
        self.kind = kind
        self.frame_size = frame_size
        self._on_gpu = self.device.type == "cuda"
        self._resizes = self._on_gpu if resizes is None else resizes
        self._pipeline = self._build()

    def decode(self, items: Sequence[EncodedClips]) -> torch.Tensor:
        """Decode B items of K clips of T frames each, with the same K and T.

        Returns:
            (B, K, T, 3, S, S) RGB on the device, zero where padded, channels last in memory.

        Raises:
            DecodeError: an item cannot be decoded; the decoder can still be used.
        """
        import torch

        first, side = items[0], self.frame_size
        per_item = first.num_clips * first.num_frames
        canvas = torch.zeros((len(items) * per_item, side, side, 3), dtype=torch.uint8, device=self.device)
        canvas = channels_first(canvas)  # (B*K*T, 3, S, S)
        work = [
            _Work(item, number * per_item, segment) for number, item in enumerate(items) for segment in item.segments
        ]
        # DALI keeps one decoder for each frame size, so segments of equal size come together.
        work.sort(key=lambda each: each.item.coded)
        parts = list(_parts(work))
        while parts:
            part = parts.pop(0)
            if not fits(functools.partial(self._decode_part, part, canvas), divisible=len(part) > 1):
                middle = len(part) // 2
                parts[:0] = part[:middle], part[middle:]
        return canvas.view(len(items), first.num_clips, first.num_frames, 3, side, side)

    def _decode_part(self, work: Sequence[_Work], canvas: torch.Tensor) -> None:
        """Write the frames of these segments onto the canvas, (B*K*T, 3, S, S)."""
        import torch

        sizes = [(item.height, item.width) for item, *_ in work]
        if self._resizes:
            sizes = [resize_size(*size, self.frame_size) for size in sizes]
        outputs = self._run(work, sizes)
        for number, (item, base, segment) in enumerate(work):
            frames = torch.from_dlpack(outputs[number])  # (F, h, w, 3) in DALI's memory
            if self.kind == "image":
                frames = frames[None]
            height, width = sizes[number]
            if frames.shape != (len(segment.frames), height, width, 3):
                raise DecodeError(f"DALI gives {tuple(frames.shape)} for {len(segment.frames)} frames")
            for frame, slots in zip(frames, segment.slots, strict=True):
                first, *others = (canvas[base + slot] for slot in slots)
                if self._resizes:
                    turned = upright(channels_first(frame), item.orientation)  # (3, h, w)
                    first[:, : turned.shape[1], : turned.shape[2]] = turned
                else:
                    resize_into(first, frame, orientation=item.orientation)
                for other in others:
                    other.copy_(first)
        if self._on_gpu:
            # The copies must end before DALI reuses its memory for the next part.
            torch.cuda.current_stream(self.device).synchronize()

    def _run(self, work: Sequence[_Work], sizes: Sequence[tuple[int, int]]) -> Any:
        """Return DALI's output: (F, h, w, 3) per video segment, (h, w, 3) per image. `sizes` are (h, w) of each."""
        segments = [segment for *_, segment in work]
        inputs = {
            "encoded": [np.frombuffer(segment.data, dtype=np.uint8) for segment in segments],
            "offset": [np.array(item.offset, dtype=np.int32) for item, *_ in work],
            "shown": [np.array((item.height, item.width), dtype=np.int32) for item, *_ in work],
        }
        if self._resizes:
            inputs["size"] = [np.array(size, dtype=np.float32) for size in sizes]
        if self.kind == "video":
            inputs["frames"] = [np.array(segment.frames, dtype=np.int32) for segment in segments]
        try:
            for name, values in inputs.items():
                self._pipeline.feed_input(name, values)
            (outputs,) = self._pipeline.run()
        except RuntimeError as exc:
            # The executor does not promise to continue after an error. Building a pipeline takes 22 ms.
            self._pipeline = None  # frees its memory first
            self._pipeline = self._build()
            if is_out_of_memory(exc):
                raise
            raise DecodeError(f"DALI cannot decode it: {_reason(exc)}") from exc
        return outputs

    def _build(self) -> Any:
        from nvidia.dali import Pipeline, fn, types

        pipeline = Pipeline(
            batch_size=_MAX_SEGMENTS,
            num_threads=_THREADS[self.device.type],
            device_id=(self.device.index or 0) if self._on_gpu else None,
            # The loader looks ahead; a queue here would only hold more memory.
            prefetch_queue_depth=1,
            # The static executor cannot be used again after an error.
            exec_dynamic=True,
        )
        device = "mixed" if self._on_gpu else "cpu"
        with pipeline:
            encoded = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8, ndim=1)
            if self.kind == "video":
                frames = fn.external_source(name="frames", device="cpu", dtype=types.INT32, ndim=1)
                # With any other `pad_mode`, frames that the file does not have are black, without an error.
                pixels = fn.decoders.video(encoded, frames=frames, device=device, pad_mode="none")
            else:
                pixels = fn.decoders.image(
                    encoded,
                    device=device,
                    output_type=types.RGB,
                    adjust_orientation=False,  # The original ignores EXIF rotation.
                    jpeg_fancy_upsampling=True,  # As libjpeg, and with it Pillow, interpolates chroma.
                    # By default a GPU with a JPEG engine gives it a part of each batch. Its pixels differ slightly, so
                    # those of an image would depend on the others.
                    hw_decoder_load=0.0,
                    affine=False,
                )
            pixels = fn.slice(
                pixels,
                start=fn.external_source(name="offset", device="cpu", dtype=types.INT32, ndim=1),
                shape=fn.external_source(name="shown", device="cpu", dtype=types.INT32, ndim=1),
                axis_names="HW",
            )
            if self._resizes:
                # As `canvas.resize_into`: bilinear, half-pixel centres, no antialiasing. Sizes are given, because
                # DALI's own computation rounds where the original truncates.
                pixels = fn.resize(
                    pixels,
                    size=fn.external_source(name="size", device="cpu", dtype=types.FLOAT, ndim=1),
                    interp_type=types.INTERP_LINEAR,
                    antialias=False,
                    dtype=types.UINT8,
                )
            pipeline.set_outputs(pixels)
        # The message concerns NPP and cuFFT, which nothing here uses. The filter stays, because filters that are taken
        # back in a thread change those of other threads.
        warnings.filterwarnings("ignore", message="nvidia-dali-cuda120 is no longer shipped with CUDA runtime")
        pipeline.build()
        return pipeline


def _parts(work: Sequence[_Work]) -> Iterator[list[_Work]]:
    """Divide the work into parts that DALI decodes together; it allocates memory for a whole part at once."""
    part: list[_Work] = []
    size = 0
    for each in work:
        needed = 3 * math.prod(each.item.coded) * (_BUFFERED_FRAMES + len(each.segment.frames))
        if part and (len(part) == _MAX_SEGMENTS or size + needed > _MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(each)
        size += needed
    if part:
        yield part


def _reason(error: RuntimeError) -> str:
    """Return the line of DALI's long message that states the problem."""
    _, found, rest = str(error).partition("encountered:")
    lines = [line.strip() for line in (rest if found else str(error)).splitlines() if line.strip()]
    return lines[0] if lines else "no reason is given"
