"""Decoding with NVIDIA DALI: NVDEC and nvJPEG on a GPU; VP8, VP9 and JPEG on a CPU. Reached through `loader.py`.

One pipeline a process: encoded pieces -> frames -> torch without a copy -> the canvas. On a GPU DALI resizes them too;
on a CPU that is done by the code that resizes PyAV's frames, so that the pixels are the same.

B items, K clips, T frames, F frames of a piece, S canvas side.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.canvas import channels_first, channels_last, resize_into, resize_size
from clipbert_cli.media.dali.clips import EncodedClips, Piece
from clipbert_cli.types import Kind

_PIECES_AT_ONCE = 64
_BYTES_AT_ONCE = 1 << 30
_KEPT_FRAMES = 8  # that DALI's decoder of a piece keeps on a GPU
_THREADS = {"cuda": 8, "cpu": 4}  # each keeps one decoder of a GPU busy at most; an H100 has 7

logger = logging.getLogger("clipbert")


class DaliDecoder:
    """Decodes encoded clips onto canvases of side S.

    Args:
        kind: one pipeline decodes videos or images, not both.
        dtype: uint8, or float32 for unrounded pixels of 0..255.
    """

    def __init__(self, decoder: Decoder, *, kind: Kind, frame_size: int, dtype: torch.dtype = torch.uint8) -> None:
        self.device = torch.device(decoder.device)
        self.kind = kind
        self.frame_size = frame_size
        self.dtype = dtype
        self._resizes = self.device.type == "cuda"
        self._pipeline = self._build()
        self._failures = 0

    def decode(self, items: Sequence[EncodedClips]) -> torch.Tensor:
        """
        Args:
            items: B items of K clips of T frames each; one size of K and T.

        Returns:
            (B, K, T, 3, S, S) RGB on the device, zero where padded, channels last in memory.

        Raises:
            DecodeError: an item cannot be decoded; the pipeline works on.
        """
        first, side = items[0], self.frame_size
        places = len(items) * first.num_clips * first.num_frames
        canvas = torch.zeros((places, side, side, 3), dtype=self.dtype, device=self.device)
        canvas = channels_first(canvas)  # (B*K*T, 3, S, S)
        work = [
            (item, number * first.num_clips * first.num_frames, piece)
            for number, item in enumerate(items)
            for piece in item.pieces
        ]
        work.sort(key=lambda part: (part[0].height, part[0].width))  # a decoder is kept for each size of frames
        for some in _cut(work):
            self._decode_some(some, canvas)
        return canvas.view(len(items), first.num_clips, first.num_frames, 3, side, side)

    def _decode_some(self, work: Sequence[tuple[EncodedClips, int, Piece]], canvas: torch.Tensor) -> None:
        """Put the frames of these pieces (item, its first place on the canvas, piece) onto the canvas."""
        sizes = [(item.height, item.width) for item, *_ in work]
        if self._resizes:
            sizes = [resize_size(*size, self.frame_size) for size in sizes]
        outputs = self._run([piece for *_, piece in work], sizes)
        for number, (_, base, piece) in enumerate(work):
            frames = torch.from_dlpack(outputs[number])  # (F, h, w, 3), DALI's own memory
            if frames.ndim == 3:  # of a picture
                frames = frames[None]
            height, width = sizes[number]
            if frames.shape != (len(piece.frames), height, width, 3):
                raise DecodeError(f"DALI gives {tuple(frames.shape)} for {len(piece.frames)} frames")
            for frame, slots in zip(frames, piece.slots, strict=True):
                first, *others = (canvas[base + slot] for slot in slots)
                if self._resizes:
                    channels_last(first)[:height, :width] = frame
                else:
                    resize_into(first, frame)
                for other in others:
                    other.copy_(first)
        if self.device.type == "cuda":  # before DALI takes its memory back
            torch.cuda.current_stream(self.device).synchronize()

    def _run(self, pieces: Sequence[Piece], sizes: Sequence[tuple[int, int]]) -> Any:
        """DALI's output of a batch, (F, h, w, 3) or (h, w, 3) each; `sizes` (h, w) are used where it resizes."""
        inputs = {"encoded": [np.frombuffer(piece.data, dtype=np.uint8) for piece in pieces]}
        if self._resizes:
            inputs["size"] = [np.array(size, dtype=np.float32) for size in sizes]
        if self.kind == "video":
            inputs["frames"] = [np.array(piece.frames, dtype=np.int32) for piece in pieces]
        try:
            for name, values in inputs.items():
                self._pipeline.feed_input(name, values)
            (outputs,) = self._pipeline.run()
        except RuntimeError as exc:
            self._failures += 1
            if self._failures % 2 == 0:  # it mostly works on after an error, but does not promise to
                self._pipeline = self._build()
            raise DecodeError(f"DALI cannot decode it: {_reason(exc)}") from exc
        return outputs

    def _build(self) -> Any:
        from nvidia.dali import Pipeline, fn, types

        on_gpu = self.device.type == "cuda"
        pipeline = Pipeline(
            batch_size=_PIECES_AT_ONCE,
            num_threads=_THREADS[self.device.type],
            device_id=(self.device.index or 0) if on_gpu else None,
            prefetch_queue_depth=1,  # `loader.py` looks ahead
            exec_dynamic=True,  # the executor that goes on after an error
        )
        where = "mixed" if on_gpu else "cpu"
        with pipeline:
            encoded = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8, ndim=1)
            if self.kind == "video":
                frames = fn.external_source(name="frames", device="cpu", dtype=types.INT32, ndim=1)
                # Any other `pad_mode` gives black frames in silence where the file has fewer.
                pixels = fn.decoders.video(encoded, frames=frames, device=where, pad_mode="none")
            else:
                pixels = fn.decoders.image(
                    encoded,
                    device=where,
                    output_type=types.RGB,
                    adjust_orientation=False,
                    jpeg_fancy_upsampling=True,
                )
            if self._resizes:  # as `transforms.resize_into`: bilinear, half-pixel centres, no antialiasing, our sizes
                pixels = fn.resize(
                    pixels,
                    size=fn.external_source(name="size", device="cpu", dtype=types.FLOAT, ndim=1),
                    interp_type=types.INTERP_LINEAR,
                    antialias=False,
                    dtype=types.UINT8 if self.dtype == torch.uint8 else types.FLOAT,
                )
            pipeline.set_outputs(pixels)
        # Of NPP and cuFFT, which nothing here uses. For good: in a thread, as this may be, no filter can be taken back.
        warnings.filterwarnings("ignore", message="nvidia-dali-cuda120 is no longer shipped with CUDA runtime")
        pipeline.build()
        return pipeline


def _cut(work: Sequence[tuple[EncodedClips, int, Piece]]) -> Iterator[list[tuple[EncodedClips, int, Piece]]]:
    """The same in parts that DALI decodes together; it takes memory for all of a part before it decodes any."""
    some: list[tuple[EncodedClips, int, Piece]] = []
    size = 0
    for item, base, piece in work:
        needed = 3 * item.height * item.width * (_KEPT_FRAMES + len(piece.frames))
        if some and (len(some) == _PIECES_AT_ONCE or size + needed > _BYTES_AT_ONCE):
            yield some
            some, size = [], 0
        some.append((item, base, piece))
        size += needed
    if some:
        yield some


def _reason(error: RuntimeError) -> str:
    """The line of DALI's long message that says what was wrong."""
    _, found, rest = str(error).partition("encountered:")
    lines = [line.strip() for line in (rest if found else str(error)).splitlines() if line.strip()]
    return lines[0] if lines else "it does not say why"
