"""Runs with a vision model of transformers as visual encoder: every command, one model per shape of output."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_vision_models import write_vision_model
from running import SHORT, Clipbert, ClipbertProcess, Signal, as_options
from safetensors.torch import load_file

from clipbert_cli.errors import InterruptionError
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.train.training import Training

VISUAL = ("model.visual.kind=hf", "model.visual.pixel_mean=null", "model.visual.pixel_std=null")
SETTINGS = (*VISUAL, "train.ema_decay=0.9", "train.freeze=[visual.stem,visual.0]", "train.max_steps=4")
KINDS = ("siglip", "convnext")

Train = Callable[..., Path]


@pytest.fixture(scope="module", params=KINDS)
def vision(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a vision model."""
    folder = tmp_path_factory.mktemp("vision") / request.param
    write_vision_model(request.param, folder)
    return folder


@pytest.fixture(scope="module")
def train(clipbert: Clipbert, made_data: Path, vision: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train with the vision model; the runs are kept by their recipes and options."""
    runs: dict[tuple[object, ...], Path] = {}

    def run_of(recipe: str, *options: object) -> Path:
        if (recipe, *options) not in runs:
            run = tmp_path_factory.mktemp("runs") / "run"
            settings = as_options([*SHORT, *SETTINGS, f"model.visual.weights={vision}"])
            command = ("finetune", "--recipe", recipe, "--data-root", made_data, "--run", run, *settings, *options)
            done = clipbert(*command)
            assert done.returncode == 0, done.stderr
            runs[recipe, *options] = run
        return runs[recipe, *options]

    return run_of


def test_the_plan_names_encoder_grid_and_cost(clipbert: Clipbert, made_data: Path, vision: Path) -> None:
    settings = as_options([*SHORT, *SETTINGS, f"model.visual.weights={vision}", "data.frame_size=96"])
    command = ("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--dry-run", *settings)
    done = clipbert(*command)
    assert done.returncode == 0, done.stderr
    side = {"siglip": 6, "convnext": 3}[vision.name]
    assert f"encoder    {vision.name}, 96 pixels" in done.stderr
    assert f"grid {side} x {side}" in done.stderr
    assert f"cost       {side * side} visual tokens per clip, " in done.stderr
    assert "frozen     visual.stem, visual.0" in done.stderr
    assert "optimiser  visual: " in done.stderr
    assert "new: visual_encoder.projection.weight, visual_encoder.projection.bias" in done.stderr
    found = json.loads(clipbert(*command, "--json", *as_options(["model.visual.grid_stride=2"])).stdout)
    assert found["visual_tokens"] == {"siglip": 9, "convnext": 4}[vision.name]
    assert found["clip_flops"] > 0
    assert found["pair_flops"] > 0


def test_a_run_needs_its_vision_model_no_more(
    clipbert: Clipbert, made_data: Path, train: Train, vision: Path, tmp_path: Path
) -> None:
    """A checkpoint and an export hold the encoder's configuration and weights; infer, report, ask, resume read them."""
    run = train("demo_qa")
    hidden = vision.with_name("hidden")
    vision.rename(hidden)
    try:
        predictions, page = tmp_path / "preds.jsonl", tmp_path / "report.html"
        asked = clipbert("infer", "--run", run, "--split", "test", "--data-root", made_data, "-o", predictions)
        assert asked.returncode == 0, asked.stderr
        assert len(predictions.read_text().splitlines()) > 0
        reported = clipbert("report", predictions, "--run", run, "--data-root", made_data, "-o", page)
        assert reported.returncode == 0, reported.stderr
        assert "<table" in page.read_text()
        video = next((made_data / "videos").glob("*.mp4"))
        answered = clipbert("ask", "--run", run, "--video", video, "what colour is it?", "--json")
        assert answered.returncode == 0, answered.stderr
        exported = clipbert("runs", "export", run, tmp_path / "exported")
        assert exported.returncode == 0, exported.stderr
        assert str(vision) not in (tmp_path / "exported" / "config.json").read_text()
        copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
        resumed = clipbert("finetune", "--run", copy, "--resume")
        assert resumed.returncode == 0, resumed.stderr
    finally:
        hidden.rename(vision)


def test_training_starts_from_a_checkpoint_of_such_a_run(
    clipbert: Clipbert, made_data: Path, train: Train, tmp_path: Path
) -> None:
    run = train("demo_qa")
    start = [f"model.weights.checkpoint={run / 'best'}", *VISUAL, "train.max_steps=1"]
    command = ("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", tmp_path / "run")
    done = clipbert(*command, *as_options([*SHORT, *start]))
    assert done.returncode == 0, done.stderr
    assert "clipbert model" in done.stderr


def options_of(made_data: Path, vision: Path, run: Path, *more: str) -> list[object]:
    """The arguments of a training without dropout, so that its numbers do not depend on the number of processes."""
    settings = [*SHORT, *SETTINGS, f"model.visual.weights={vision}", *more]
    settings += ["model.bert.hidden_dropout=0.0", "model.bert.attention_dropout=0.0", "train.layer_decay=0.8"]
    return ["finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", run, *as_options(settings)]


def test_a_stopped_run_ends_as_one_that_was_not(made_data: Path, vision: Path, tmp_path: Path) -> None:
    """Bit by bit: weights and average."""
    settings = [
        *SHORT,
        *SETTINGS,
        f"model.visual.weights={vision}",
        "train.layer_decay=0.8",
        "train.save_every_steps=1",
    ]
    recipe = load_recipe("demo_qa", overrides=settings, data_root=made_data)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    Training(recipe, whole).run()
    with pytest.raises(InterruptionError):
        Training(recipe, stopped).run([Signal(2, signal.SIGTERM)])
    Training(recipe, stopped, resume=True).run()
    for name in ("model.safetensors", "average.safetensors"):
        assert (stopped / "latest" / name).read_bytes() == (whole / "latest" / name).read_bytes(), name


def test_two_processes_train_as_one(
    clipbert: Clipbert, clipbert_process: ClipbertProcess, made_data: Path, vision: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    process = clipbert_process(*options_of(made_data, vision, two, "train.batch_size=2"), "--nproc-per-node", 2)
    done = clipbert(*options_of(made_data, vision, one, "train.batch_size=4"))
    assert done.returncode == 0, done.stderr
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    found, expected = (load_file(run / "latest" / "model.safetensors") for run in (two, one))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3, msg=name)


def test_search_ranks_videos(clipbert: Clipbert, made_data: Path, train: Train) -> None:
    run = train("demo_retrieval")
    done = clipbert("search", made_data / "videos", "a red circle", "--run", run, "--top", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)[0]["top"]) == 2


def test_the_kind_needs_a_model(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    command = ("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", tmp_path / "run")
    done = clipbert(*command, *as_options([*SHORT, "model.visual.kind=hf"]))
    assert done.returncode == 2
    assert "model.visual.weights is null: with kind hf it names the folder of the model" in done.stderr
    assert not (tmp_path / "run").exists()


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def state(**values: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "vit", **values}))


def pickle_code(folder: Path) -> None:
    drop("model.safetensors")(folder)
    torch.save({"embeddings.cls_token": print}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop("model.safetensors"), ": holds config.json, preprocessor_config.json; expected model.safetensors or "),
        (drop("config.json"), "config.json: not found"),
        (drop("preprocessor_config.json"), ": beside it is no preprocessor_config.json or "),
        (state(model_type="bert", vocab_size=9), ": this is a text model, expected a vision model"),
        (state(model_type="levit"), ": model_type is 'levit', expected a supported vision model"),
        (state(model_type=["vit"]), """: model_type is "['vit']", expected a supported vision model"""),
        (state(hidden_size="wide"), "config.json: hidden_size is 'wide': it must be a valid integer"),
        (state(num_channels=1), "config.json: num_channels is 1: it must be 3"),
        (pickle_code, "pytorch_model.bin: holds more than tensors and "),
        (shutil.rmtree, ": no such folder"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_message_and_leaves_no_run(
    damage: Callable[[Path], None], says: str, clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    folder, run = tmp_path / "model", tmp_path / "run"
    write_vision_model("vit", folder)
    damage(folder)
    settings = as_options([*SHORT, *VISUAL, f"model.visual.weights={folder}"])
    done = clipbert("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", run, *settings)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {folder}")
    assert says in done.stderr.partition("\n")[0]
    assert done.stdout == ""
    assert not run.exists()


def test_pretraining_with_a_vision_model_starts_a_task(
    clipbert: Clipbert, made_data: Path, vision: Path, tmp_path: Path
) -> None:
    common = [*SHORT, *VISUAL, "train.max_steps=1"]
    first = [*common, f"model.visual.weights={vision}"]
    onward = [*common, f"model.weights.checkpoint={tmp_path / 'pretrained' / 'best'}"]
    for command, recipe, name, settings in (
        ("pretrain", "demo_pretrain", "pretrained", first),
        ("finetune", "demo_retrieval", "task", onward),
    ):
        run = tmp_path / name
        done = clipbert(command, "--recipe", recipe, "--data-root", made_data, "--run", run, *as_options(settings))
        assert done.returncode == 0, done.stderr
    assert "7 of a head of task pretraining" in done.stderr
    first_weights, weights = (
        load_file(tmp_path / name / "best" / "model.safetensors") for name in ("pretrained", "task")
    )
    assert {name for name in first_weights if name.startswith("visual_encoder.")} <= set(weights)
