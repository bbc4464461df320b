"""Small trials: decoding every codec in every way, a training step in every precision, processes that talk."""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from PIL import Image

from clipbert_cli.doctor.findings import Finding
from clipbert_cli.errors import ClipbertError
from clipbert_cli.files import temporary_folder
from clipbert_cli.loading.dali_batches import MAX_MEAN_DIFFERENCE
from clipbert_cli.media.backend import Decoder, choose_decoder
from clipbert_cli.media.canvas import resize_pad
from clipbert_cli.media.dali.clips import EncodedClips, image_segment, video_segments
from clipbert_cli.media.dali.pipeline import DaliDecoder
from clipbert_cli.media.frames import decode_canvas
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.probe import probe_video
from clipbert_cli.model.bert_sizes import BertSizes
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.types import Batch, Kind

_FRAMES, _HEIGHT, _WIDTH = 12, 144, 192
_WANTED = ((2, 9),)
# Encoder, container and options of each codec. Small key frame distances, so that entries are used.
_ENCODERS = {
    "h264": ("libx264", "mp4", {"g": "6", "x264-params": "mbtree=0"}),
    "hevc": ("libx265", "mp4", {"x265-params": "keyint=6:log-level=none"}),
    "vp8": ("libvpx", "webm", {"g": "6", "cpu-used": "8"}),
    "vp9": ("libvpx-vp9", "webm", {"g": "6", "cpu-used": "8"}),
    "av1": ("libsvtav1", "mp4", {"g": "6", "preset": "12"}),
    "mpeg4": ("mpeg4", "mp4", {"g": "6"}),
}
_STEPS = 3
# Seconds within which processes find each other, on a slow machine as well.
_LONGEST = 60.0


def try_decoding(device: torch.device) -> Iterator[Finding]:
    """Yield one finding per codec: whether PyAV and, where it is chosen or there, DALI decode a made clip rightly."""
    os.environ.setdefault("SVT_LOG", "1")  # The AV1 encoder would print its settings.
    for codec in _ENCODERS:
        yield _try_video(codec, _dali("video", device))
    yield _try_jpeg(_dali("image", device))


def _dali(kind: Kind, device: torch.device) -> Decoder | None:
    """Return DALI on the device, None where it is not installed or decodes nothing."""
    try:
        return choose_decoder("dali", device, kind)
    except ClipbertError:
        return None


def _try_video(codec: str, dali: Decoder | None) -> Finding:
    part = f"decoding {codec}"
    try:
        data = _made_video(codec)
    except (av.FFmpegError, ValueError) as exc:
        return Finding(part, f"not tried: this PyAV does not encode it ({exc})")
    advice = "reinstall PyAV: pip install --force-reinstall av"
    try:
        probed = probe_video(data)
        linear = decode_canvas(data, _WANTED, _WIDTH, info=probed.info)
        if probed.packets is not None:
            through_packets = decode_canvas(data, _WANTED, _WIDTH, info=probed.info, packets=probed.packets)
            if not torch.equal(linear, through_packets):
                return Finding(part, "PyAV", "broken", "its two ways of decoding give different frames", advice)
        if (level := _difference(linear[0, 0], _picture(_WANTED[0][0]))) > 40:
            return Finding(part, "PyAV", "broken", f"the frames are {level:.0f} levels from those encoded", advice)
    except ClipbertError as exc:
        return Finding(part, "PyAV", "broken", str(exc), advice)
    if dali is None or probed.packets is None:
        return Finding(part, "PyAV")
    encoded = video_segments(data, _WANTED, info=probed.info, table=probed.packets, decoder=dali)
    if encoded is None:
        return Finding(part, "PyAV")
    wanted = decode_canvas(data, _WANTED, _WIDTH, info=probed.info, colours="dali")
    return _compared(part, dali, encoded, wanted, kind="video")


def _try_jpeg(dali: Decoder | None) -> Finding:
    part = "decoding jpeg"
    file = io.BytesIO()
    Image.fromarray(_picture(0)).save(file, "jpeg", quality=90)
    pixels = decode_image(file.getvalue())
    if dali is None:
        return Finding(part, "Pillow")
    segment = image_segment(file.getvalue(), height=_HEIGHT, width=_WIDTH)
    return _compared(part, dali, segment, resize_pad(pixels[None], _WIDTH)[None], kind="image")


def _compared(part: str, dali: Decoder, encoded: EncodedClips, wanted: torch.Tensor, *, kind: Kind) -> Finding:
    """Decode with DALI, and compare with the frames (K, T, 3, S, S) that are right."""
    value = f"{'PyAV' if kind == 'video' else 'Pillow'}, DALI on {dali.device}"
    advice = "set data.decoder=pyav, or install another version of DALI or of the driver"
    try:
        decoder = DaliDecoder(dali, kind=kind, frame_size=_WIDTH)
        (found,) = decoder.decode([encoded])
    except (ClipbertError, RuntimeError, OSError, ImportError) as exc:
        return Finding(part, value, "broken", str(exc).splitlines()[0], advice)
    level = (found.cpu().float() - wanted.float()).abs().mean().item()
    if level > MAX_MEAN_DIFFERENCE:
        return Finding(part, value, "broken", f"DALI's frames are {level:.0f} levels from PyAV's on average", advice)
    return Finding(part, f"{value} ({level:.2g} levels apart)")


def _picture(index: int) -> np.ndarray:
    """Return a frame (h, w, 3): a colour gradient that moves."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    return np.stack([x + 4 * index, y + 60, np.full_like(x, 20 * index)], axis=-1).clip(0, 235).astype(np.uint8)


def _made_video(codec: str) -> bytes:
    encoder, container, options = _ENCODERS[codec]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = cast(VideoStream, output.add_stream(encoder, rate=Fraction(12), options=options))
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for index in range(_FRAMES):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(_picture(index), format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def _difference(canvas: torch.Tensor, picture: np.ndarray) -> float:
    shown = canvas[:, :_HEIGHT].permute(1, 2, 0).float()
    return (shown - torch.from_numpy(picture).float()).abs().mean().item()


def try_steps(device: torch.device) -> Iterator[Finding]:
    """Yield the time of a training step of the demo's model in each precision, and whether its loss is finite."""
    for name in ("fp32", "bf16", "fp16"):
        part = f"step in {name}"
        try:
            milliseconds, is_finite = _timed_steps(Precision(name), device)
        except RuntimeError as exc:
            line = str(exc).splitlines()[0]
            yield Finding(part, str(device), "broken", line, "update torch or the driver, or choose another precision")
            continue
        value = f"{milliseconds:.1f} ms on {device}"
        if is_finite:
            yield Finding(part, value)
        else:
            yield Finding(part, value, "broken", "its loss is not finite", f"do not set train.precision={name}")


def _timed_steps(precision: Precision, device: torch.device) -> tuple[float, bool]:
    torch.manual_seed(0)
    config = load_recipe("demo_qa").model
    model = ClipBert(config, HeadSpec("classifier", 4)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = precision.scaler(device)
    batch = Batch(
        frames=torch.randint(0, 256, (2, 1, 1, 3, 64, 64), dtype=torch.uint8),
        text_ids=torch.randint(0, BertSizes.of(config.bert).vocab_size, (2, 8)),
        text_mask=torch.ones(2, 8, dtype=torch.bool),
        text_item=torch.arange(2),
        examples=(),
    ).to(device)
    times, is_finite = [], True
    for _ in range(_STEPS):
        begin = time.perf_counter()
        with precision.autocast(device):
            loss = model(batch).logits.float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        is_finite = is_finite and bool(torch.isfinite(loss))  # This also waits for the GPU.
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times), is_finite


def try_processes() -> Finding:
    """Return whether processes of this machine find each other: one per GPU, or two on the CPU."""
    count = max(2, torch.cuda.device_count())
    backend = "NCCL and gloo" if torch.cuda.device_count() > 1 else "gloo"
    device = "cuda" if torch.cuda.device_count() > 1 else "cpu"
    part, value = "processes", f"{count} by {backend}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    advice = "look at the machine's host name and firewall; NCCL_DEBUG=INFO shows more"
    try:
        with temporary_folder() as logs:
            command += ["--log-dir", str(logs), "-m", "clipbert_cli.doctor.sum", device]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return Finding(part, value, "broken", f"they do not end within {_LONGEST:.0f} s", advice)
    if done.returncode or done.stdout.split() != [str(count * (count + 1) // 2)]:
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        return Finding(part, value, "broken", lines[-1].strip() if lines else "their sum is wrong", advice)
    return Finding(part, value)
