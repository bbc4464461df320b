"""`clipbert demo`: the whole pipeline on generated videos, in one folder, with the commands that a user would type."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.terminal import note, print_json, print_result
from clipbert_cli.commands.typed_line import typed_line
from clipbert_cli.errors import OutputError, UnreadableError, UsageError
from clipbert_cli.files import LockHeldError, lock, naming, remove, write_json
from clipbert_cli.foreign import parse_json, read_json, read_lines
from clipbert_cli.printable import plural
from clipbert_cli.system_errors import stops_writing, unwritable

# Only a folder that a demo has made has this file: --force removes nothing else. It says what the demo is, and which of
# its steps are complete.
MARK = ".clipbert-demo"
_LOCK = f"{MARK}.lock"
_MEDIA, _COMPLETE = "media", "complete"


@dataclass(frozen=True, slots=True)
class DemoSize:
    """The videos of each split, and the epochs of finetuning and of pretraining."""

    train: int
    val: int
    test: int
    epochs: int
    pretraining_epochs: int = 1


SIZES = {
    "smallest": DemoSize(train=48, val=8, test=16, epochs=2, pretraining_epochs=2),
    "small": DemoSize(train=300, val=20, test=40, epochs=20, pretraining_epochs=20),
    "full": DemoSize(train=700, val=40, test=120, epochs=25, pretraining_epochs=20),
}


def demo(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        options.argument(
            "FOLDER", "A new folder for everything. The default is demo, or demo_TASK for other tasks than qa."
        ),
    ] = None,
    task: Annotated[
        Literal["qa", "retrieval", "mc", "vqa", "pretrain"],
        options.option(
            "--task",
            "What the model learns: questions about videos (qa, mc) or images (vqa), retrieval, or pretraining.",
        ),
    ] = "qa",
    size: Annotated[
        Literal["smallest", "small", "full"],
        options.option(
            "--size", "How long to train: `smallest` only shows that everything runs, `full` that it learns."
        ),
    ] = "full",
    seed: Annotated[int, options.seed("The seed of the videos, the texts and the training.")] = 42,
    force: Annotated[bool, options.option("--force", "First remove an earlier demo in the folder.")] = False,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Show the whole pipeline on small generated videos.

    The demo generates videos, packs them, trains a model, predicts on held-out videos and scores the predictions.
    """
    begin = time.monotonic()
    for name, values in {"--size": [*SIZES], "--task": [*_TASKS]}.items():
        if folder and not folder.exists() and str(folder) in values:
            others = typed_line(context).without("folder", name.lstrip("-"))
            meant = shlex.join(["clipbert", *others, name, str(folder)])
            raise UsageError(
                f"FOLDER is {folder}, a value of {name}",
                hint=f"{meant}; if a folder of that name is meant, make it first: mkdir {folder}",
            )
    # Each task has a folder of its own: the demos of several tasks can be made one after the other.
    folder = folder or Path("demo" if task == "qa" else f"demo_{task}")
    what = {"task": task, **asdict(SIZES[size]), "seed": seed}
    done = _prepare(folder, what, force=force)
    try:
        with lock(folder / _LOCK):
            run = _Demo(folder, SIZES[size], seed, device, context.find_root().command.main, what, done)
            run.make_media()
            # A store appears when it is complete.
            if not (folder / "vis_db").exists():
                run.call("pack", str(folder / ("images" if task == "vqa" else "videos")), str(folder / "vis_db"))
            shown = _TASKS[task](run)
            run.note_done(_COMPLETE)
    except LockHeldError as exc:
        raise OutputError(f"{folder} is being made by {exc.owner}", hint="wait until it ends") from exc
    seconds = time.monotonic() - begin
    note("")
    if as_json:
        print_json({**shown.scores, "seconds": round(seconds, 1), "folder": str(folder)})
    else:
        print_result(*shown.lines)
    note(*shown.advice, f"{seconds:.0f} seconds; everything is in {folder}")


def _prepare(folder: Path, what: Mapping[str, Any], *, force: bool) -> list[str]:
    """Make the folder, and return the steps that the same demo has completed in it before it was stopped.

    With `force`, an earlier demo that is in it is removed, and nothing else.
    """
    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()):
        try:
            noted = read_json(mark)
        except (FileNotFoundError, UnreadableError):
            noted = {}
        done = noted["done"] if isinstance(noted, dict) and noted.get("demo") == what else [_COMPLETE]
        if not force and _COMPLETE not in done:
            return list(done)
        if not (force and mark.exists()):
            is_demo = mark.exists()
            raise OutputError(
                f"{folder} is not empty: it has {'an earlier demo' if is_demo else 'files that no demo made'}",
                hint="name another folder" + (", or give --force to make the demo again" if is_demo else ""),
            )
        remove(folder)
    write_json(mark, {"demo": what, "done": []})
    return []


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a demo has shown: its scores by name, the same as lines, and what to do with the trained model."""

    scores: dict[str, float]
    lines: tuple[str, ...]
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Demo:
    """The steps of a demo. `command_line` runs the `clipbert` command in this process."""

    folder: Path
    size: DemoSize
    seed: int
    device: str | None
    command_line: Callable[..., Any]
    what: Mapping[str, Any]
    done: list[str]

    def note_done(self, step: str) -> None:
        """Note in the folder that a step is complete, so that a demo that is stopped later does not do it again."""
        self.done.append(step)
        write_json(self.folder / MARK, {"demo": self.what, "done": self.done})

    def call(self, *arguments: str, continued: Sequence[str] = ()) -> None:
        """Print a command and run it. Its output goes to stderr: stdout is for the result of the demo.

        Args:
            continued: further words, for a command that a stopped demo has begun.
        """
        words, step = [*arguments, *continued], shlex.join(arguments)
        note("", f"$ clipbert {shlex.join(words)}")
        if step in self.done:
            note("this was done before")
            return
        with redirect_stdout(sys.stderr):
            code = self.command_line(words, prog_name="clipbert", standalone_mode=False)
        if code:
            raise typer.Exit(code)
        self.note_done(step)

    def make_media(self) -> None:
        """Generate videos, images, texts, answers and the vocabulary."""
        from clipbert_cli.assets.demo_media import write_demo_media
        from clipbert_cli.commands.progress import progress_bar

        if _MEDIA in self.done:
            return
        for entry in list(self.folder.iterdir()):
            if entry.name not in (MARK, _LOCK):
                remove(entry)
        videos = {"train": self.size.train, "val": self.size.val, "test": self.size.test}
        note(f"generating {plural(sum(videos.values()), 'video')} in {self.folder / 'videos'}")
        with progress_bar("video") as bar:
            task = bar.add_task("encode", total=sum(videos.values()))
            try:
                with naming(self.folder):
                    write_demo_media(self.folder, videos=videos, seed=self.seed, progress=lambda: bar.advance(task))
            except OSError as exc:
                if not stops_writing(exc):
                    raise
                raise unwritable(self.folder, exc, then="give the same command again") from exc
        self.note_done(_MEDIA)

    def train(self, recipe: str, *settings: str, command: str = "finetune", name: str | None = None) -> Path:
        """Train with a recipe; return the folder of the run."""
        run = self.folder / "runs" / (name or recipe)
        changes = _options("--set", f"seed={self.seed}", *settings)
        data = ["--recipe", recipe, "--run", str(run), "--data-root", str(self.folder)]
        begun = ["--resume"] if run.exists() else []
        self.call(command, *data, *changes, *self._device(), continued=begun)
        return run

    def score(self, run: Path, recipe: str, name: str, *settings: str) -> Mapping[str, Any]:
        """Predict the test split into the file `name`; return its metrics."""
        from clipbert_cli.build import build_task
        from clipbert_cli.infer.score import evaluate
        from clipbert_cli.recipe.load import load_recipe
        from clipbert_cli.splits import read_split

        predictions = self.folder / name
        changes = _options("--set", *settings)
        infer = ["infer", "--run", str(run), "--split", "test", "-o", str(predictions), *self._device(), *changes]
        self.call(*infer, continued=["--overwrite"] if predictions.exists() else [])
        self.call("eval", str(predictions), "--recipe", recipe, "--data-root", str(self.folder), "--split", "test")
        loaded = load_recipe(recipe, data_root=self.folder)
        task = build_task(loaded)
        return evaluate(predictions, task, read_split(loaded, "test", task, task.check_truth)).metrics

    def _device(self) -> list[str]:
        return ["--device", self.device] if self.device else []


def _options(name: str, *values: str) -> list[str]:
    return [word for value in values for word in (name, value)]


def _questions(demo: _Demo, recipe: str = "demo_qa") -> _Shown:
    """Answer questions, and answer them again with black frames: the difference is what the model sees."""
    run = demo.train(recipe, f"train.epochs={demo.size.epochs}")
    sighted = demo.score(run, recipe, "preds.jsonl")["accuracy"] / 100
    blind = demo.score(run, recipe, "preds_blind.jsonl", "data.black_frames=true")["accuracy"] / 100
    lines = (
        f"accuracy        {sighted:.3f}   on {demo.size.test} videos that training never saw",
        f"blind baseline  {blind:.3f}   same model, frames blacked out",
    )
    advice = ("Ask it something:", f"  {_example_question(demo.folder, run)}") if recipe == "demo_qa" else ()
    return _Shown({"accuracy": sighted, "blind_accuracy": blind}, lines, advice)


def _example_question(folder: Path, run: Path) -> str:
    """Return a command that asks a question of the test split about its video."""
    texts = folder / "txt_db" / "test.jsonl"
    number, line = next(read_lines(texts))
    record = parse_json(line, str(texts), line=number)
    video = folder / "videos" / f"{record['video_id']}.mp4"
    return shlex.join(["clipbert", "ask", "--run", str(run), "--video", str(video), record["question"]])


def _retrieval(demo: _Demo) -> _Shown:
    """Rank all test videos for every caption of the test split."""
    run = demo.train("demo_retrieval", f"train.epochs={demo.size.epochs}")
    metrics = demo.score(run, "demo_retrieval", "scores.jsonl")
    chance = 100 / demo.size.test
    lines = (
        f"R@1     {metrics['recall_at_1']:.1f} %   among {demo.size.test} videos that training never saw",
        f"chance  {chance:.1f} %",
    )
    search = ["search", str(demo.folder / "vis_db"), "a red circle on the left and a blue bar on the right"]
    advice = ("Search it:", f"  {shlex.join(['clipbert', *search, '--run', str(run)])}")
    return _Shown({"recall_at_1": metrics["recall_at_1"], "chance": chance}, lines, advice)


def _pretraining(demo: _Demo) -> _Shown:
    """Finetune for retrieval after pretraining, and the same number of steps without it."""
    # A sixth of the usual epochs: with all of them, a model without pretraining learns the task as well.
    epochs = f"train.epochs={-(-demo.size.epochs // 6)}"
    pretrained = demo.train("demo_pretrain", f"train.epochs={demo.size.pretraining_epochs}", command="pretrain")
    start = f"model.weights.checkpoint={(pretrained / 'latest').absolute()}"
    after = demo.train("demo_retrieval", epochs, start, name="demo_retrieval_pretrained")
    scratch = demo.train("demo_retrieval", epochs, name="demo_retrieval_from_scratch")
    with_it = demo.score(after, "demo_retrieval", "scores_pretrained.jsonl")["recall_at_1"]
    without = demo.score(scratch, "demo_retrieval", "scores_from_scratch.jsonl")["recall_at_1"]
    lines = (
        f"after pretraining  {with_it:.1f} %   R@1 among {demo.size.test} videos that training never saw",
        f"from scratch       {without:.1f} %   as many finetuning steps, no pretraining",
    )
    return _Shown({"recall_at_1": with_it, "recall_at_1_from_scratch": without}, lines)


_TASKS: dict[str, Callable[[_Demo], _Shown]] = {
    "qa": _questions,
    "mc": lambda demo: _questions(demo, "demo_mc"),
    "vqa": lambda demo: _questions(demo, "demo_vqa"),
    "retrieval": _retrieval,
    "pretrain": _pretraining,
}
