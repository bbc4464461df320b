"""`clipbert demo`: the whole pipeline on made videos, in one folder, with the commands a person would type."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clipbert_cli.commands.options import DeviceOption, JsonOption
from clipbert_cli.errors import OutputError

RECIPE = "demo_qa"
MARK = ".clipbert-demo"  # what only a demo's folder holds, so that --force removes nothing else


class Size(StrEnum):
    """How much is made and trained."""

    smallest = "smallest"
    small = "small"
    full = "full"


@dataclass(frozen=True, slots=True)
class Amount:
    """Videos of each split, and epochs over the training split."""

    train: int
    val: int
    test: int
    epochs: int


AMOUNTS = {
    Size.smallest: Amount(train=48, val=8, test=16, epochs=2),
    Size.small: Amount(train=300, val=20, test=40, epochs=20),
    Size.full: Amount(train=700, val=40, test=120, epochs=28),
}


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Everything goes into this new folder.")] = Path(
        "demo"
    ),
    size: Annotated[
        Size, typer.Option("--size", help="`smallest` shows that it runs; `full` that it learns.")
    ] = Size.full,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the videos, the questions and the training.")] = 42,
    force: Annotated[bool, typer.Option("--force", help="Remove a demo that is in the folder first.")] = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make real videos, pack them, finetune, answer questions about held-out videos, score the answers.

    Example: clipbert demo --size small my-demo
    """
    from clipbert_cli.commands.terminal import note, print_json

    begin = time.monotonic()
    prepare(folder, force=force)
    amount = AMOUNTS[size]
    make_media(folder, amount, seed)
    store, run = folder / "vis_db", folder / "runs" / RECIPE
    common = ["--data-root", str(folder), "--set", f"seed={seed}", "--set", f"train.epochs={amount.epochs}"]
    on_device = ["--device", device] if device else []
    call("pack", str(folder / "videos"), str(store))
    call("finetune", "--recipe", RECIPE, "--run", str(run), *common, *on_device)
    sighted = answer(folder, run, "preds.jsonl", on_device)
    blind = answer(folder, run, "preds_blind.jsonl", [*on_device, "--set", "data.black_frames=true"])
    seconds = time.monotonic() - begin
    note(f"\naccuracy        {sighted:.3f}   on {amount.test} videos that training never saw")
    note(f"blind baseline  {blind:.3f}   same model, frames blacked out")
    note(f"{seconds:.0f} seconds; everything is in {folder}. Ask it something:")
    note(f"  {example_question(folder, run)}")
    if as_json:
        print_json({"accuracy": sighted, "blind_accuracy": blind, "seconds": round(seconds, 1), "folder": str(folder)})


def prepare(folder: Path, *, force: bool) -> None:
    """Make sure that `folder` is free; `force` removes a demo, and nothing else."""
    if folder.exists() and any(folder.iterdir()):
        if not (force and (folder / MARK).exists()):
            raise OutputError(
                f"{folder} is not empty", hint="name another folder, or give --force where it holds an earlier demo"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def make_media(folder: Path, amount: Amount, seed: int) -> None:
    """Made videos, questions, answers and vocabulary."""
    from clipbert_cli.assets.demo_media import write_demo_media
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.commands.terminal import note

    videos = {"train": amount.train, "val": amount.val, "test": amount.test}
    note(f"making {sum(videos.values())} videos in {folder / 'videos'}")
    with progress_bar("video") as bar:
        task = bar.add_task("encode", total=sum(videos.values()))
        write_demo_media(folder, videos=videos, seed=seed, progress=lambda: bar.advance(task))


def answer(folder: Path, run: Path, name: str, options: list[str]) -> float:
    """Predict the test split into `name`, score it, and return the accuracy."""
    from clipbert_cli.evaluation import evaluate
    from clipbert_cli.recipe.load import load_recipe

    predictions = folder / name
    call("infer", "--run", str(run), "--split", "test", "-o", str(predictions), *options)
    call("eval", str(predictions), "--recipe", RECIPE, "--data-root", str(folder), "--split", "test")
    accuracy: float = evaluate(predictions, load_recipe(RECIPE, data_root=folder), "test")["accuracy"] / 100
    return accuracy


def example_question(folder: Path, run: Path) -> str:
    """A command that asks a question of the test split about its video."""
    record = json.loads((folder / "txt_db" / "test.jsonl").read_text(encoding="utf-8").partition("\n")[0])
    video = folder / "videos" / f"{record['video_id']}.mp4"
    return shlex.join(["clipbert", "infer", "--run", str(run), "--video", str(video), "--question", record["question"]])


def call(*arguments: str) -> None:
    """Show a command and run it in this process, through the same command line; stdout is the demo's own result's."""
    from clipbert_cli.commands.app import app
    from clipbert_cli.commands.terminal import note

    note(f"\n$ clipbert {shlex.join(arguments)}")
    with redirect_stdout(sys.stderr):
        code = app(list(arguments), standalone_mode=False)
    if code:
        raise typer.Exit(code)
