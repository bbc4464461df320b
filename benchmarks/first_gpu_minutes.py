"""What works on a GPU that this project has not met: each stage in a process of its own, its result written at once.

    python benchmarks/first_gpu_minutes.py [OUT] [--device cuda:0] [--only parity ...] [--minutes 9]

A crash or a hang of a stage is a result like any other. The folder OUT (by default a temporary one) receives what each
stage prints as soon as it is known, and `summary.json` after each of them. This script prints one line per stage and
what is wrong. A stage is stopped after 150 seconds, and what it has printed until then remains.

    doctor      `clipbert doctor`
    parity      frames of DALI against PyAV: codecs, padding, full range, slices, VP8, open groups, a cache of decoders
    ends        the exit code of a process that has decoded
    jpeg        JPEG pictures of all kinds, alone and in a batch
    cache       milliseconds per segment and free memory while decoders are reused
    damaged     bits that flip inside the bitstream: an error or pixels, and the next batch is right
    tests       the tests marked `cuda`
    precisions  a step of the published size in fp32, TF32, bf16 and fp16 against the CPU's
    train_step  the rows of train_step.py for GPUs
    retrieval   the rows of retrieval.py for GPUs
    demo        the demo from pack to score with `pyav` and with `dali`

With `--device cpu` the stages run as far as a CPU goes: DALI decodes VP8, VP9 and JPEG there, and the tests marked
`cuda` are only collected. What breaks there would break on a GPU, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import ROOT

from clipbert_cli.errors import DecodeError
from clipbert_cli.loading.dali_batches import MAX_MEAN_DIFFERENCE
from clipbert_cli.media.backend import Decoder, choose_decoder
from clipbert_cli.media.dali.clips import EncodedClips, why_not
from clipbert_cli.media.dali.pipeline import DaliDecoder
from clipbert_cli.media.frames import decode_canvas
from clipbert_cli.media.probe import probe_video

from dali_cases import CLIPS, LARGE, ON_A_CPU, ON_A_GPU, VIDEOS, damaged_clips, encoded_clips, made  # isort: skip


class Found(NamedTuple):
    """What a stage has measured of one thing, and whether it is as it should be."""

    name: str
    values: Any
    is_right: bool = True


def decodable(device: str) -> tuple[str, ...]:
    """Return the videos that DALI decodes on a device."""
    return ON_A_CPU if device == "cpu" else (*ON_A_GPU, *LARGE)


def video_decoder(device: str) -> Decoder:
    return choose_decoder("dali", torch.device(device), "video")


def encoded(name: str, device: str) -> EncodedClips:
    """Return the encoded clips of a video that this device decodes."""
    clips = encoded_clips(made(name), video_decoder(device))
    assert clips is not None
    return clips


def parity(device: str) -> Iterator[Found]:
    """Measure how far DALI's frames are from PyAV's; a decoder is used three times, so that memory is reused."""
    decoder = video_decoder(device)
    decoders: dict[int, DaliDecoder] = {}  # one per canvas, shared by all videos: codecs and sizes alternate in it
    for name in VIDEOS:
        known = probe_video(made(name))
        clips = encoded_clips(made(name), decoder)
        if clips is None:
            reason = why_not(known.info, known.packets, decoder) or "left to PyAV for its packets"
            yield Found(name, reason, name not in decodable(device))
            continue
        side = max(clips.height, clips.width)
        dali = decoders.setdefault(side, DaliDecoder(decoder, kind="video", frame_size=side))
        wanted = decode_canvas(made(name), CLIPS, side, info=known.info, packets=known.packets, colours="dali").float()
        turns = [(dali.decode([clips] * (1 + turn))[-1].cpu().float() - wanted).abs() for turn in range(3)]
        mean, most = max(turn.mean().item() for turn in turns), max(turn.max().item() for turn in turns)
        yield Found(name, {"mean": mean, "most": most}, mean <= MAX_MEAN_DIFFERENCE)


def ends(device: str) -> Iterator[Found]:
    """Decode and keep the decoder: the exit code of this process is the result."""
    globals()["kept"] = dali = DaliDecoder(video_decoder(device), kind="video", frame_size=224)
    dali.decode([encoded("vp9", device)])
    yield Found("a process that keeps a decoder", "has decoded")


def jpeg(device: str) -> Iterator[Found]:
    """Measure how far JPEG pictures are from Pillow's, and whether they depend on their batch."""
    import numpy as np
    from made_media import image, marked_frame
    from PIL import Image

    from clipbert_cli.media.dali.clips import image_segment
    from clipbert_cli.media.images import decode_image

    picture = Image.fromarray(marked_frame(77, 480, 640))
    kinds: dict[str, dict[str, Any]] = {
        "4:2:0": {},
        "4:2:2": {"subsampling": 1},
        "4:4:4": {"subsampling": 0},
        "progressive": {"progressive": True},
    }
    files = {name: image(picture, "jpeg", **options) for name, options in kinds.items()}
    files["grey"] = image(picture.convert("L"), "jpeg")
    dali = DaliDecoder(choose_decoder("dali", torch.device(device), "image"), kind="image", frame_size=640)
    for name, data in files.items():
        one = image_segment(data, height=480, width=640)
        alone, batch = dali.decode([one])[0, 0, 0].cpu(), dali.decode([one] * 48)[:, 0, 0].cpu()
        difference = np.abs(alone[:, :480].permute(1, 2, 0).float().numpy() - decode_image(data))
        same = all(torch.equal(each, alone) for each in batch)
        values = {"mean": float(difference.mean()), "most": float(difference.max()), "as_alone": same}
        yield Found(name, values, same and values["mean"] <= MAX_MEAN_DIFFERENCE)


def cache(device: str) -> Iterator[Found]:
    """Measure milliseconds per segment and the GPU's free memory, six times in a row."""
    for name in decodable(device):
        clips = encoded(name, device)
        dali = DaliDecoder(video_decoder(device), kind="video", frame_size=224)
        turns = []
        for _ in range(6):
            begin = time.perf_counter()
            for _ in range(4):
                dali.decode([clips] * 12)
            each = 1000 * (time.perf_counter() - begin) / (48 * len(clips.segments))
            free = torch.cuda.mem_get_info()[0] >> 20 if device != "cpu" else 0
            turns.append({"ms_per_segment": round(each, 2), "free_mib": free})
        yield Found(name, turns)


def damaged(device: str) -> Iterator[Found]:
    """Count what becomes of 60 damaged segments, and how often the next whole one is right."""
    clips = encoded("vp9" if device == "cpu" else "h264", device)
    dali = DaliDecoder(video_decoder(device), kind="video", frame_size=320)
    before, fates, right = dali.decode([clips]), {"pixels": 0, "error": 0}, 0
    for wrong in damaged_clips(clips, 60):
        try:
            dali.decode([wrong])
            fates["pixels"] += 1
        except DecodeError:
            fates["error"] += 1
        right += bool((dali.decode([clips]) == before).all())
    yield Found("60 damaged segments", {**fates, "whole_ones_right_afterwards": right}, right == 60)


def precisions(device: str) -> Iterator[Found]:
    """Measure the loss, the gradient's norm and the time of one step in each precision, beside those of a CPU."""
    from clipbert_cli.model.clipbert import ClipBert
    from clipbert_cli.model.heads import HeadSpec
    from clipbert_cli.recipe.schema import ModelConfig
    from clipbert_cli.runtime.precision import Precision
    from clipbert_cli.types import Batch

    torch.manual_seed(0)
    model = ClipBert(ModelConfig(), HeadSpec("classifier", 100)).eval()
    batch = Batch(
        frames=torch.randint(0, 256, (2, 1, 2, 3, 224, 224), dtype=torch.uint8),
        text_ids=torch.randint(1000, 20_000, (2, 12)),
        text_mask=torch.ones(2, 12, dtype=torch.bool),
        text_item=torch.arange(2),
        examples=(),
    )
    # Relative errors of a step: fp32 has 24 bits, TF32 and fp16 11, bf16 8, and a step has some 60 layers.
    settings = [("cpu", Precision("fp32"), 0.0)]
    if device != "cpu":
        settings += [(device, Precision("fp32"), 1e-3), (device, Precision("fp32", tf32=True), 0.02)]
        settings += [(device, Precision("bf16"), 0.1), (device, Precision("fp16"), 0.02)]
    wanted: dict[str, float] = {}
    for place, precision, tolerance in settings:
        precision.choose_kernels()
        where = torch.device(place)
        model.to(where)
        for _ in range(2):  # the first one warms up
            model.zero_grad()
            begin = time.perf_counter()
            with precision.autocast(where):
                loss = model(batch.to(where)).logits.float().square().mean()
            loss.backward()
            norm = torch.nn.utils.get_total_norm([each.grad for each in model.parameters() if each.grad is not None])
            values = {"loss": loss.item(), "norm": norm.item()}
            seconds = time.perf_counter() - begin
        wanted = wanted or values
        is_right = all(abs(values[name] / wanted[name] - 1) <= tolerance for name in wanted)
        yield Found(f"{place} {precision.describe()}", {**values, "ms": 1000 * seconds}, is_right)


def demo(device: str) -> Iterator[Found]:
    """Measure score and seconds of the demo's questions, trained and answered with `pyav` and with `dali`."""
    place = device.partition(":")[0]
    clipbert("demo", "demo", "--size", "smallest", "--device", place)
    for decoder in ("pyav", "dali"):
        run, predictions = f"runs/{decoder}", f"{decoder}.jsonl"
        begin = time.perf_counter()
        of_the_demo = ["--device", place, "--set", f"data.decoder={decoder}", "--set", "train.epochs=2"]
        clipbert("finetune", "--recipe", "demo_qa", "--data-root", "demo", "--run", run, *of_the_demo)
        clipbert("infer", "--run", run, "--split", "test", "-o", predictions, *of_the_demo[:4])
        seconds = time.perf_counter() - begin
        score = clipbert("eval", predictions, "--recipe", "demo_qa", "--data-root", "demo", "--split", "test", "--json")
        yield Found(decoder, {"seconds": seconds, "score": json.loads(score)})


def clipbert(*arguments: str) -> str:
    """Run the command line, and return what it prints to stdout."""
    command = [sys.executable, "-m", "clipbert_cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=os.environ["STAGE_FOLDER"]).stdout


# ------------------------------------------------------------------------------------------------ stages

HERE: dict[str, Callable[[str], Iterator[Found]]] = {
    "parity": parity,
    "ends": ends,
    "jpeg": jpeg,
    "cache": cache,
    "damaged": damaged,
    "precisions": precisions,
    "demo": demo,
}
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    # stage: the command on a GPU, and what a CPU can run of it
    "doctor": (["-m", "clipbert_cli", "doctor"],) * 2,
    "tests": (["-m", "pytest", "-v", "-m", "cuda", "tests"], ["-m", "pytest", "-q", "-m", "cuda", "--co", "tests"]),
    "train_step": (["benchmarks/train_step.py", "--device", "cuda"], ["benchmarks/train_step.py", "--help"]),
    "retrieval": (["benchmarks/retrieval.py", "--device", "cuda"], ["benchmarks/retrieval.py", "--help"]),
}
# The cheap and telling ones first: the time may not suffice for all.
STAGES = [
    *("doctor", "parity", "ends", "jpeg", "damaged", "tests", "precisions", "cache", "train_step", "demo", "retrieval"),
]
SECONDS, GRACE = 150, 10
"""The most that one stage may take, and the time in which it may still print what it has found."""


def print_stage(name: str, device: str) -> int:
    """Run a stage in this process, print each thing that it finds at once, and return the exit code."""
    counts = {True: 0, False: 0}
    for found in HERE[name](device):
        counts[found.is_right] += 1
        print(f"{'right' if found.is_right else 'WRONG'}  {found.name}: {json.dumps(found.values)}", flush=True)
    print(f"{counts[True]} right, {counts[False]} wrong")
    return int(counts[False] > 0)


def run_stage(name: str, out: Path, device: str, seconds: float) -> dict[str, Any]:
    """Run a stage in a process of its own, write what it prints into OUT, and return how it ended."""
    if name in HERE:
        command = [str(Path(__file__).resolve()), str(out), "--device", device, "--stage", name]
    else:
        command = COMMANDS[name][device == "cpu"]
    folder = out / f"{name}.files"
    folder.mkdir(parents=True, exist_ok=True)
    required = {"CLIPBERT_REQUIRE": "cuda,dali"} if name == "tests" and device != "cpu" else {}
    environment = {**os.environ, **required, "PYTHONPATH": str(ROOT), "STAGE_FOLDER": str(folder)}
    begin = time.perf_counter()
    printed, errors = out / f"{name}.txt", out / f"{name}.stderr.txt"
    with printed.open("w") as stdout, errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
        )
        code: int | str | None = exit_code(process, seconds)
        if code is None:
            code = f"stopped after {seconds:.0f} s"
            # Upon this signal pytest prints the failures so far.
            os.killpg(process.pid, signal.SIGINT)
            exit_code(process, GRACE)
        # What a stage has started must not use the GPU beside the next stage.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = printed.read_text(errors="replace").splitlines()
    says = [line for line in lines if line.startswith("WRONG")] + lines[-1:]
    if code != 0:
        says += errors.read_text(errors="replace").splitlines()[-3:]
    return {"exit_code": code, "seconds": round(time.perf_counter() - begin, 1), "says": says}


def exit_code(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the exit code of a process, None if it still runs after so many seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--minutes", type=float, default=9, help="no stage begins or runs after so many")
    parser.add_argument("--stage", choices=HERE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        return print_stage(options.stage, options.device)
    out = (options.out or Path(tempfile.mkdtemp(prefix="clipbert-gpu-"))).resolve()
    end = time.perf_counter() + 60 * options.minutes
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {}
    for name in options.only:
        left = end - time.perf_counter()
        summary[name] = {"exit_code": "no time left", "seconds": 0.0, "says": []}
        if left > 1:
            summary[name] = run_stage(name, out, options.device, min(SECONDS, left))
        (out / "summary.json").write_text(json.dumps(summary, indent=1))
        lines = ["{:12}exit code {exit_code}, {seconds} s".format(name, **summary[name]), *summary[name]["says"]]
        print(*lines, sep="\n    ", flush=True)
    failed = [name for name, result in summary.items() if result["exit_code"] != 0]
    others = f": not {', '.join(failed)}" if failed else ""
    print(f"What the stages printed is in {out}")
    print(f"Result: {len(summary) - len(failed)} of {len(summary)} stages end well{others}.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
