"""What works on a GPU that this project has not met: each stage in a process of its own, its result written at once.

    python benchmarks/first_gpu_minutes.py [OUT] [--device cuda:0] [--only parity ...] [--minutes 9]

A crash or a hang of a stage is a result like any other. The folder OUT (by default a temporary one) receives what each
stage prints, and `summary.json` after each of them.

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

With `--device cpu` the stages run as far as a CPU goes (DALI decodes VP8, VP9 and JPEG there).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import ROOT

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import Decoder, choose_decoder
from clipbert_cli.media.dali.clips import EncodedClips, why_not
from clipbert_cli.media.dali.pipeline import DaliDecoder
from clipbert_cli.media.frames import decode_canvas
from clipbert_cli.media.probe import probe_video

from dali_cases import CLIPS, LARGE, ON_A_CPU, ON_A_GPU, VIDEOS, damaged_clips, encoded_clips, made  # isort: skip


def video_decoder(device: str) -> Decoder:
    return choose_decoder("dali", torch.device(device), "video")


def encoded(name: str, device: str) -> EncodedClips:
    """Return the encoded clips of a video that this device decodes."""
    clips = encoded_clips(made(name), video_decoder(device))
    assert clips is not None
    return clips


def parity(device: str) -> dict[str, Any]:
    """Return how far DALI's frames are from PyAV's; a decoder is used three times, so that memory is reused."""
    decoder = video_decoder(device)
    found: dict[str, Any] = {}
    decoders: dict[int, DaliDecoder] = {}  # one per canvas, shared by all videos: codecs and sizes alternate in it
    for name in VIDEOS:
        known = probe_video(made(name))
        clips = encoded_clips(made(name), decoder)
        if clips is None:
            found[name] = why_not(known.info, known.packets, decoder) or "left to PyAV for its packets"
            continue
        side = max(clips.height, clips.width)
        dali = decoders.setdefault(side, DaliDecoder(decoder, kind="video", frame_size=side))
        wanted = decode_canvas(made(name), CLIPS, side, info=known.info, packets=known.packets, colours="dali").float()
        turns = [(dali.decode([clips] * (1 + turn))[-1].cpu().float() - wanted).abs() for turn in range(3)]
        found[name] = {"mean": max(turn.mean().item() for turn in turns), "most": max(t.max().item() for t in turns)}
    return found


def ends(device: str) -> str:
    """Decode, keep the decoder, and return: the exit code of this process is the result."""
    globals()["kept"] = dali = DaliDecoder(video_decoder(device), kind="video", frame_size=224)
    dali.decode([encoded("vp9", device)])
    return "decoded"


def jpeg(device: str) -> dict[str, Any]:
    """Return how far JPEG pictures are from Pillow's, and whether they depend on their batch."""
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
    found = {}
    for name, data in files.items():
        one = image_segment(data, height=480, width=640)
        alone, batch = dali.decode([one])[0, 0, 0].cpu(), dali.decode([one] * 48)[:, 0, 0].cpu()
        difference = np.abs(alone[:, :480].permute(1, 2, 0).float().numpy() - decode_image(data))
        same = all(torch.equal(each, alone) for each in batch)
        found[name] = {"mean": float(difference.mean()), "most": float(difference.max()), "as_alone": same}
    return found


def cache(device: str) -> dict[str, Any]:
    """Return milliseconds per segment and the GPU's free memory, six times in a row."""
    found: dict[str, Any] = {}
    for name in ON_A_CPU if device == "cpu" else (*ON_A_GPU, *LARGE):
        clips = encoded(name, device)
        dali = DaliDecoder(video_decoder(device), kind="video", frame_size=224)
        found[name] = []
        for _ in range(6):
            begin = time.perf_counter()
            for _ in range(4):
                dali.decode([clips] * 12)
            each = 1000 * (time.perf_counter() - begin) / (48 * len(clips.segments))
            free = torch.cuda.mem_get_info()[0] >> 20 if device != "cpu" else 0
            found[name].append({"ms_per_segment": round(each, 2), "free_mib": free})
    return found


def damaged(device: str) -> dict[str, Any]:
    """Return what becomes of 60 damaged segments, and whether the next whole one is right each time."""
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
    return {**fates, "whole_ones_right_afterwards": right}


def precisions(device: str) -> dict[str, Any]:
    """Return the loss, the gradient's norm and the time of one step in each precision, beside those of a CPU."""

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
    settings = [("cpu", Precision("fp32"))]
    if device != "cpu":
        settings += [(device, Precision(name)) for name in ("fp32", "bf16", "fp16")]
        settings += [(device, Precision("fp32", tf32=True))]
    found = {}
    for place, precision in settings:
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
            values = {"loss": loss.item(), "norm": norm.item(), "ms": 1000 * (time.perf_counter() - begin)}
        found[f"{place} {precision.describe()}"] = values
    return found


def demo(device: str) -> dict[str, Any]:
    """Return score and seconds of the demo's questions, trained and answered with `pyav` and with `dali`."""
    place = device.partition(":")[0]
    clipbert("demo", "demo", "--size", "smallest", "--device", place)
    found = {}
    for decoder in ("pyav", "dali"):
        run, predictions = f"runs/{decoder}", f"{decoder}.jsonl"
        begin = time.perf_counter()
        of_the_demo = ["--device", place, "--set", f"data.decoder={decoder}", "--set", "train.epochs=2"]
        clipbert("finetune", "--recipe", "demo_qa", "--data-root", "demo", "--run", run, *of_the_demo)
        clipbert("infer", "--run", run, "--split", "test", "-o", predictions, *of_the_demo[:4])
        seconds = time.perf_counter() - begin
        score = clipbert("eval", predictions, "--recipe", "demo_qa", "--data-root", "demo", "--split", "test", "--json")
        found[decoder] = {"seconds": seconds, "score": json.loads(score)}
    return found


def clipbert(*arguments: str) -> str:
    """Run the command line, and return what it prints to stdout."""
    command = [sys.executable, "-m", "clipbert_cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=os.environ["STAGE_FOLDER"]).stdout


# ------------------------------------------------------------------------------------------------ stages

HERE: dict[str, Callable[[str], Any]] = {
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
    "doctor": (["-m", "clipbert_cli", "doctor", "--json"],) * 2,
    "tests": (["-m", "pytest", "-q", "-m", "cuda", "tests"], ["-m", "pytest", "-q", "-m", "cuda", "--co", "tests"]),
    "train_step": (["benchmarks/train_step.py", "--device", "cuda"], ["benchmarks/train_step.py", "--help"]),
    "retrieval": (["benchmarks/retrieval.py", "--device", "cuda"], ["benchmarks/retrieval.py", "--help"]),
}
# The cheap and telling ones first: the time may not suffice for all.
STAGES = [
    *("doctor", "parity", "ends", "jpeg", "damaged", "tests", "precisions", "cache", "train_step", "demo", "retrieval"),
]
SECONDS = 150
"""The most that one stage may take."""


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
    with (out / f"{name}.txt").open("w") as stdout, (out / f"{name}.stderr.txt").open("w") as stderr:
        try:
            code: int | str = subprocess.run(
                [sys.executable, *command],
                cwd=ROOT,
                env=environment,
                stdout=stdout,
                stderr=stderr,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"stopped after {seconds:.0f} s"
    return {"exit_code": code, "seconds": round(time.perf_counter() - begin, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--minutes", type=float, default=9, help="no stage begins or runs after so many")
    parser.add_argument("--stage", choices=HERE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(HERE[options.stage](options.device), indent=1))
        return 0
    out = (options.out or Path(tempfile.mkdtemp(prefix="clipbert-gpu-"))).resolve()
    end = time.perf_counter() + 60 * options.minutes
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {}
    for name in options.only:
        left = end - time.perf_counter()
        summary[name] = {"exit_code": "no time left"}
        if left > 1:
            summary[name] = run_stage(name, out, options.device, min(SECONDS, left))
        (out / "summary.json").write_text(json.dumps(summary, indent=1))
        print(f"{name:12} {summary[name]}", flush=True)
    failed = [name for name, result in summary.items() if result["exit_code"] != 0]
    others = f": not {', '.join(failed)}" if failed else ""
    print(f"What the stages printed is in {out}")
    print(f"Result: {len(summary) - len(failed)} of {len(summary)} stages end well{others}.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
