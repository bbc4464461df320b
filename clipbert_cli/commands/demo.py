"""`clipbert demo`: the whole pipeline on made videos, in one folder, with the commands a person would type."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from clipbert_cli.commands.options import DeviceOption, JsonOption
from clipbert_cli.errors import OutputError

MARK = ".clipbert-demo"  # what only a demo's folder holds, so that --force removes nothing else


class DemoTask(StrEnum):
    """What is shown."""

    qa = "qa"
    retrieval = "retrieval"
    mc = "mc"
    vqa = "vqa"
    pretrain = "pretrain"


class Size(StrEnum):
    """How much is made and trained."""

    smallest = "smallest"
    small = "small"
    full = "full"


@dataclass(frozen=True, slots=True)
class Amount:
    """Videos of each split, and steps over the training split in epochs; pretraining takes `pretraining` of them."""

    train: int
    val: int
    test: int
    epochs: int
    pretraining: int = 1


AMOUNTS = {
    Size.smallest: Amount(train=48, val=8, test=16, epochs=2, pretraining=2),
    Size.small: Amount(train=300, val=20, test=40, epochs=20, pretraining=20),
    Size.full: Amount(train=700, val=40, test=120, epochs=25, pretraining=20),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a demo happens, and with what."""

    folder: Path
    amount: Amount
    seed: int
    device: str | None
    command_line: Callable[..., Any]
    """Runs the `clipbert` command in this process."""

    @property
    def on_device(self) -> list[str]:
        return ["--device", self.device] if self.device else []


def demo(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="New folder for everything that the demo makes.")
    ] = Path("demo"),
    task: Annotated[DemoTask, typer.Option("--task", help="The task that is learnt and scored.")] = DemoTask.qa,
    size: Annotated[
        Size,
        typer.Option("--size", help="Amount of data and training. With `smallest` the demo only shows that it runs."),
    ] = Size.full,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the videos, the texts and the training.")
    ] = 42,
    force: Annotated[bool, typer.Option("--force", help="Remove a demo that is in the folder first.")] = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the whole pipeline on small videos that it makes itself.

    The demo makes videos, packs them, trains, predicts on held-out videos and scores the predictions.

    Example: clipbert demo --task retrieval --size small my-demo
    """
    from clipbert_cli.commands.terminal import note, print_json

    begin = time.monotonic()
    prepare(folder, force=force)
    stage = Stage(folder, AMOUNTS[size], seed, device, context.find_root().command.main)
    make_media(stage)
    call(stage, "pack", str(folder / ("images" if task is DemoTask.vqa else "videos")), str(folder / "vis_db"))
    result = SHOWS[task](stage)
    seconds = time.monotonic() - begin
    note(f"{seconds:.0f} seconds; everything is in {folder}")
    if as_json:
        print_json({**result, "seconds": round(seconds, 1), "folder": str(folder)})


# ----------------------------------------------------------------------------------------------------- what is shown


def show_questions(stage: Stage, recipe: str = "demo_qa") -> dict[str, Any]:
    """Questions about videos or images, and the same with the frames blacked out."""
    from clipbert_cli.commands.terminal import note

    run = train(stage, recipe, f"train.epochs={stage.amount.epochs}")
    sighted = score(stage, run, recipe, "preds.jsonl")["accuracy"] / 100
    blind = score(stage, run, recipe, "preds_blind.jsonl", "data.black_frames=true")["accuracy"] / 100
    note(f"\naccuracy        {sighted:.3f}   on {stage.amount.test} videos that training never saw")
    note(f"blind baseline  {blind:.3f}   same model, frames blacked out")
    if recipe == "demo_qa":
        note(f"Ask it something:\n  {example_question(stage.folder, run)}")
    return {"accuracy": sighted, "blind_accuracy": blind}


def show_retrieval(stage: Stage) -> dict[str, Any]:
    """Every caption of the test split against every video."""
    from clipbert_cli.commands.terminal import note

    run = train(stage, "demo_retrieval", f"train.epochs={stage.amount.epochs}")
    metrics = score(stage, run, "demo_retrieval", "scores.jsonl")
    chance = 100 / stage.amount.test
    note(f"\nR@1     {metrics['recall_at_1']:.1f} %   among {stage.amount.test} videos that training never saw")
    note(f"chance  {chance:.1f} %")
    search = ["search", str(stage.folder / "vis_db"), "a red circle on the left and a blue bar on the right"]
    note(f"Search it:\n  {shlex.join(['clipbert', *search, '--run', str(run)])}")
    return {"recall_at_1": metrics["recall_at_1"], "chance": chance}


def show_pretraining(stage: Stage) -> dict[str, Any]:
    """Retrieval after pretraining, and after the same finetuning steps without it."""
    from clipbert_cli.commands.terminal import note

    epochs = f"train.epochs={-(-stage.amount.epochs // 6)}"
    pretrained = train(stage, "demo_pretrain", f"train.epochs={stage.amount.pretraining}", command="pretrain")
    start = f"model.weights.checkpoint={(pretrained / 'latest').absolute()}"
    after = train(stage, "demo_retrieval", epochs, start, name="demo_retrieval_pretrained")
    scratch = train(stage, "demo_retrieval", epochs, name="demo_retrieval_from_scratch")
    with_it = score(stage, after, "demo_retrieval", "scores_pretrained.jsonl")["recall_at_1"]
    without = score(stage, scratch, "demo_retrieval", "scores_from_scratch.jsonl")["recall_at_1"]
    note(f"\nafter pretraining  {with_it:.1f} %   R@1 among {stage.amount.test} videos that training never saw")
    note(f"from scratch       {without:.1f} %   as many finetuning steps, no pretraining")
    return {"recall_at_1": with_it, "recall_at_1_from_scratch": without}


SHOWS: dict[DemoTask, Callable[[Stage], dict[str, Any]]] = {
    DemoTask.qa: show_questions,
    DemoTask.mc: lambda stage: show_questions(stage, "demo_mc"),
    DemoTask.vqa: lambda stage: show_questions(stage, "demo_vqa"),
    DemoTask.retrieval: show_retrieval,
    DemoTask.pretrain: show_pretraining,
}


# ------------------------------------------------------------------------------------------------------------- steps


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


def make_media(stage: Stage) -> None:
    """Made videos and pictures, texts, answers and vocabulary."""
    from clipbert_cli.assets.demo_media import write_demo_media
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.commands.terminal import note

    videos = {"train": stage.amount.train, "val": stage.amount.val, "test": stage.amount.test}
    note(f"making {sum(videos.values())} videos in {stage.folder / 'videos'}")
    with progress_bar("video") as bar:
        task = bar.add_task("encode", total=sum(videos.values()))
        write_demo_media(stage.folder, videos=videos, seed=stage.seed, progress=lambda: bar.advance(task))


def train(stage: Stage, recipe: str, *settings: str, command: str = "finetune", name: str | None = None) -> Path:
    """Train with `recipe`; the run's folder."""
    run = stage.folder / "runs" / (name or recipe)
    chosen = [word for setting in (f"seed={stage.seed}", *settings) for word in ("--set", setting)]
    call(
        stage,
        command,
        "--recipe",
        recipe,
        "--run",
        str(run),
        "--data-root",
        str(stage.folder),
        *chosen,
        *stage.on_device,
    )
    return run


def score(stage: Stage, run: Path, recipe: str, name: str, *settings: str) -> dict[str, Any]:
    """Predict the test split into the file `name`, score it, and return the metrics."""
    from clipbert_cli.build import build_task, read_split
    from clipbert_cli.infer.score import evaluate
    from clipbert_cli.recipe.load import load_recipe

    predictions = stage.folder / name
    chosen = [word for setting in settings for word in ("--set", setting)]
    call(stage, "infer", "--run", str(run), "--split", "test", "-o", str(predictions), *stage.on_device, *chosen)
    call(stage, "eval", str(predictions), "--recipe", recipe, "--data-root", str(stage.folder), "--split", "test")
    loaded = load_recipe(recipe, data_root=stage.folder)
    task = build_task(loaded)
    return evaluate(predictions, task, read_split(loaded, "test", task, task.check_truth))


def example_question(folder: Path, run: Path) -> str:
    """A command that asks a question of the test split about its video."""
    record = json.loads((folder / "txt_db" / "test.jsonl").read_text(encoding="utf-8").partition("\n")[0])
    video = folder / "videos" / f"{record['video_id']}.mp4"
    called = Path(sys.argv[0])  # by its path where a shell does not find it
    command = str(called) if called.name == "clipbert" and not shutil.which("clipbert") else "clipbert"
    return shlex.join([command, "ask", "--run", str(run), "--video", str(video), record["question"]])


def call(stage: Stage, *arguments: str) -> None:
    """Print a command and run it in this process. Its results go to stderr: stdout is for the result of the demo."""
    from clipbert_cli.commands.terminal import note

    note(f"\n$ clipbert {shlex.join(arguments)}")
    with redirect_stdout(sys.stderr):
        code = stage.command_line(list(arguments), prog_name="clipbert", standalone_mode=False)
    if code:
        raise typer.Exit(code)
