"""Every field of a recipe that names a file is tried with what is none, and with content that has no sense."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import check, time_limit
from hostile_inputs import SPECIAL, make_special
from running import TINY, Clipbert, as_options, contents

from clipbert_cli.recipe.settings import all_settings, annotation_at

# Field -> files that it can lead to: the one that it names, or one in the folder that it names.
FIELDS = {
    "data.root": ["bad"],
    "data.splits.NAME.annotations": ["bad", "bad.jsonl", "bad.json", "bad.csv"],
    "data.splits.NAME.media": ["bad", "bad/data.mdb"],
    "data.answers": ["bad.json"],
    "model.tokenizer": ["bad", "bad/vocab.txt", "bad/tokenizer.json"],
    "model.weights.checkpoint": ["bad", "bad.pt", "bad/config.json", "bad/model.safetensors", "bad/state.json"],
    "model.weights.bert": ["bad.bin", "bad/config.json", "bad/model.safetensors", "bad/model.safetensors.index.json"],
    "model.visual.weights": ["bad.pth", "bad.safetensors", "bad/pytorch_model.bin"],
}
# The other texts of a recipe.
NO_FILES = {
    "data.fields",
    "data.splits",
    "data.train_splits",
    "license",
    "name",
    "published",
    "task",
    "train.best_metric",
    "train.freeze",
}


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**33)


def loop(path: Path) -> None:
    path.symlink_to(f"{path.name}.2")
    path.with_name(f"{path.name}.2").symlink_to(path.name)


CONTENTS: dict[str, Callable[[Path], object]] = {
    **{kind: lambda path, kind=kind: make_special(path, kind) for kind in SPECIAL},  # type: ignore[misc]
    "links to each other": loop,
    "8 GB": large,
    "deep": lambda path: path.write_bytes(b"[" * 1_000_000),
    "no text": lambda path: path.write_bytes(bytes(range(256)) * 4000),
    "nothing": Path.touch,
}


def test_every_field_that_may_name_a_file_is_known() -> None:
    texts = {key for key in all_settings() if "str" in repr(annotation_at(tuple(key.split("."))))}
    assert texts == FIELDS.keys() | NO_FILES


@pytest.mark.parametrize(("field", "file"), [(field, file) for field, files in FIELDS.items() for file in files])
def test_what_is_no_file_of_a_recipe_is_one_message(
    field: str, file: str, clipbert: Clipbert, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, named = field.replace("NAME", "train"), file.split("/")[0]
    for name, make in CONTENTS.items():
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        Path(file).parent.mkdir(exist_ok=True)
        make(Path(file))
        before = contents(folder)
        overrides = as_options([*TINY, f"{key}={folder / named}"])
        root = [] if field == "data.root" else ["--data-root", made_data]
        used = os.times().user
        with time_limit(60):
            done = clipbert("finetune", "--recipe", "demo_qa", *root, "--run", "new", "--dry-run", *overrides)
        check(done)
        assert done.returncode in (1, 2), f"{name}: {done.stdout}"
        assert os.times().user - used < 10
        assert contents(folder) == before
