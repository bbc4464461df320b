"""The names that other programs have for settings."""

from __future__ import annotations

import re

import pytest
from running import Clipbert

from clipbert_cli.recipe.declaring import Change
from clipbert_cli.recipe.settings import (
    _OTHER_NAMES,
    all_settings,
    called,
    change_of,
)


def test_every_setting_with_another_name_exists() -> None:
    assert set(_OTHER_NAMES) <= set(all_settings())


def test_another_name_means_one_setting_and_is_none_of_ours() -> None:
    names = [name for names in _OTHER_NAMES.values() for name in names.split()]
    assert len(names) == len(set(names))
    assert not set(names) & {key.rpartition(".")[2] for key in all_settings()} - {"weights"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n_epochs", ["train.epochs"]),
        ("e2e_weights_path", ["model.weights.checkpoint"]),
        ("num_frm", ["data.num_frames"]),
        ("num_workers", ["data.workers"]),
        ("lr", ["train.learning_rate"]),
        ("cnn_learning_rate", ["train.visual_learning_rate"]),
        ("data.fps", ["data.fps"]),
        ("compile", ["train.compile"]),
        ("nothing", []),
    ],
)
def test_a_name_means_settings(name: str, expected: list[str]) -> None:
    assert called(name) == expected


COMMANDS = {
    "infer": ("infer --run nowhere --split test", Change.BY_SET, {"infer.num_clips", "data.media_id"}),
    "ask": ("ask --run nowhere --video a.mp4", Change.BY_SET, {"infer.num_clips", "data.media_id"}),
    "search": ("search a b --run nowhere", Change.BY_SET, {"infer.num_clips", "data.media_id"}),
    "resume": ("finetune --run nowhere --resume", Change.ON_RESUME, {"train.epochs", "data.workers"}),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_setting_is_advised_that_the_command_refuses(command: str, clipbert: Clipbert) -> None:
    names = {key.rpartition(".")[2] for key in all_settings()}
    names |= {name for text in _OTHER_NAMES.values() for name in text.split()}
    words, occasion, some = COMMANDS[command]
    advised = set()
    for name in sorted(names):
        done = clipbert(*words.split(), f"--{name}", "1")
        advised |= set(re.findall(r"--set (\S+?)=", done.stderr))
        advised |= set(re.findall(r"it is a setting, ([a-z0-9_.NAME]+)", done.stderr))
    assert some <= advised
    assert {key for key in advised if occasion not in change_of(key)} == set()
