"""The command `finetune`: results, refusals, interruptions."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from running import TINY, Clipbert, ClipbertProcess, as_options, link_videos

from clipbert_cli.train.loop import Trainer


def arguments(made_data: Path, run: Path, *overrides: str) -> list[str]:
    options = as_options([*TINY, *overrides])
    return ["finetune", "-r", "demo_qa", "--run", str(run), "--data-root", str(made_data), *options]


def test_the_result_is_json_on_stdout_and_progress_on_stderr(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    done = clipbert(*arguments(made_data, tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["run"] == str(tmp_path / "run")
    assert result["steps"] == 4
    assert result["last"]["step"] == 4
    assert "step 2/4  loss" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_run_folder_that_exists_is_refused_and_kept(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("precious")
    done = clipbert(*arguments(made_data, tmp_path / "run"))
    assert done.returncode == 1
    assert f"{tmp_path / 'run'} exists already and is a folder that is no run" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("train.bacth_size=3", 2, "did you mean train.batch_size"),
        ("train.batch_size=0", 2, "train.batch_size is 0"),
        ("data.sampling=start", 2, ""),
        ("data.splits.train.media=absent", 1, "absent does not exist"),
        ("data.splits.train.annotations=absent.jsonl", 1, "absent.jsonl: no such annotation file"),
        ("data.answers=absent.json", 1, "absent.json: no such answer vocabulary"),
    ],
)
def test_a_wrong_setting_is_one_message_and_leaves_nothing(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, override: str, code: int, message: str
) -> None:
    overrides = [override, "data.num_clips=2"] if override == "data.sampling=start" else [override]
    done = clipbert(*arguments(made_data, tmp_path / "run", *overrides))
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["gpu", "cublas", "cpu"],
)
def test_full_memory_is_one_message_with_the_settings_at_hand(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(Trainer, "update", fails)
    done = clipbert(*arguments(made_data, tmp_path / "run"))
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "memory is full: " + str(failure)[:20] in said
    assert "train.activation_checkpointing=true (now false)" in said
    assert "half of train.batch_size with twice train.gradient_accumulation_steps" in said
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_bad_training_records_are_named_with_file_line_field_and_value(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    lines = (made_data / "txt_db" / "train.jsonl").read_text().splitlines()
    bad = tmp_path / "train.jsonl"
    outside = json.dumps({**json.loads(lines[0]), "answer": "elephant"})
    nameless = json.dumps({key: value for key, value in json.loads(lines[1]).items() if key != "question"})
    bad.write_text("\n".join([*lines[2:5], outside, nameless, lines[0][:25]]) + "\n")
    done = clipbert(*arguments(made_data, tmp_path / "run", f"data.splits.train.annotations={bad}"))
    assert done.returncode == 1
    assert f'{bad}:4: answer is "elephant": it must be one of the 13 of data.answers' in done.stderr
    assert f"{bad}:5: question is missing" in done.stderr
    assert f"{bad}:6: not JSON (" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_unreadable_video_stops_the_run_with_its_name(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    videos = link_videos(made_data / "videos", tmp_path / "videos", cut="train0003.mp4")
    media = [f"data.splits.{split}.media={videos}" for split in ("train", "val")]
    done = clipbert(*arguments(made_data, tmp_path / "run", *media))
    assert done.returncode == 1
    assert "train0003" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_leaves_whole_checkpoints_and_exits_with_130(
    clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path, workers: int
) -> None:
    run = tmp_path / "run"
    process = clipbert_process(*arguments(made_data, run, "train.epochs=10000", f"data.workers={workers}"))
    deadline = time.monotonic() + 300
    while not (run / "latest").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    step = os.readlink(run / "latest").removeprefix("checkpoints/step_")
    assert f"error: interrupted by SIGINT after step {step} of" in stderr
    assert stderr.rstrip().endswith(f"next: resume with: clipbert finetune --run {run} --resume")
    assert "Traceback" not in stderr
    assert stdout == ""
    assert {path.name for path in run.iterdir()} >= {"latest", "recipe.yaml"}
    for checkpoint in (run / "checkpoints").glob("step_*"):
        assert (checkpoint / "model.safetensors").exists()
        assert (checkpoint / "state.json").exists()


def test_no_space_left_is_one_message_and_leaves_no_half_checkpoint(
    clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path
) -> None:
    """A limit on the size of files acts like a full disk: writing the weights fails."""
    run = tmp_path / "run"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))"
    process = clipbert_process(*arguments(made_data, run, "train.epochs=1"), prelude=limit)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "File too large" in stderr or "cannot be written" in stderr
    assert "Traceback" not in stderr
    assert not list((run / "checkpoints").glob("step_*"))


def test_a_dry_run_prints_the_plan_loads_a_batch_and_writes_nothing(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    settings = arguments(made_data, tmp_path / "run", "train.gradient_accumulation_steps=2")
    done = clipbert(*settings, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["steps"], facts["global_batch"], facts["training_examples"]) == (2, 8, 96)
    for line in (
        "data       96 training examples in 8 groups, 36 validation examples",
        "training   2 steps, 2 epochs, 2 validations, one every 1 steps",
        "batch      8 groups per step: 1 process, 2 forward passes of up to 4 groups",
        "device     1 x cpu, fp32",
        "decoder    pyav on cpu (data.decoder is auto: no GPU)",
        "training   Batch(48 examples, frames=(4, 1, 1, 3, 64, 64)",
        "validation Batch(",
        "dry run: nothing was written",
    ):
        assert line in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_two_processes_needs_no_batch_for_each(
    clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path
) -> None:
    words = [*arguments(made_data, tmp_path / "run", "infer.batch_size=100"), "--dry-run", "--nproc-per-node", 2]
    process = clipbert_process(*words)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert stderr.count("dry run: nothing was written") == 1
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("batch", "accumulated", "line"),
    [
        (16, 1, "batch      8 groups per step: 1 process, 1 forward pass of up to 8 groups"),
        (3, 4, "batch      8 groups per step: 1 process, 3 forward passes of up to 3 groups"),
        (8, 4, "batch      8 groups per step: 1 process, 1 forward pass of up to 8 groups"),
        (3, 2, "batch      6 groups per step: 1 process, 2 forward passes of up to 3 groups"),
    ],
)
def test_the_plan_counts_the_groups_that_a_step_has(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, batch: int, accumulated: int, line: str
) -> None:
    """The data have 8 groups: fewer than some of these batches."""
    settings = [f"train.batch_size={batch}", f"train.gradient_accumulation_steps={accumulated}"]
    done = clipbert(*arguments(made_data, tmp_path / "run", *settings), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert line in done.stderr.splitlines()


def test_a_dry_run_reads_the_splits_that_training_does_not_need(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    one_bad = tmp_path / "bad.jsonl"
    one_bad.write_text('{"video_id": "test0000", "question": 3}\n')
    hidden = tmp_path / "hidden.csv"
    hidden.write_text("video_id,question\ntest0000,what is it?\n")
    splits = {"bad": f"{one_bad}, media: vis_db", "gone": "no.csv, media: vis_db", "hidden": f"{hidden}, media: vis_db"}
    more = [f"data.splits.{name}={{annotations: {files}}}" for name, files in splits.items()]
    done = clipbert(*arguments(made_data, tmp_path / "run", *more), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "split      test: 48 examples" in done.stderr
    assert "split      hidden: 1 examples" in done.stderr
    assert f"split      bad: cannot be read, which training does not need: {one_bad}:1: question is 3" in done.stderr
    assert "split      gone: cannot be read, which training does not need: " in done.stderr


def test_a_training_without_validation_says_so(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    done = clipbert(*arguments(made_data, tmp_path / "run", "data.splits.val=null"))
    assert done.returncode == 0, done.stderr
    assert "training   4 steps, 2 epochs, 0 validations\n" in done.stderr
    assert "no validation: the last checkpoint, step 4, counts as the best" in done.stderr
    resumed = clipbert("finetune", "--run", tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.freeze=[visual]"],
        ["train.activation_checkpointing=true"],
        ["train.precision=bf16", "train.ema_decay=0.99"],
        ["train.visual_learning_rate=1e-3", "train.schedule=constant"],
        ["train.best_metric=-loss"],
    ],
)
def test_settings_of_training_take_effect(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, overrides: list[str]
) -> None:
    done = clipbert(*arguments(made_data, tmp_path / "run", *overrides), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4


def test_a_metric_that_validation_does_not_give_is_named_with_those_it_gives(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    done = clipbert(*arguments(made_data, tmp_path / "run", "train.best_metric=recall"))
    assert done.returncode == 2
    assert "train.best_metric is 'recall', but must be one of accuracy, loss" in done.stderr
