"""Hostile inputs by the thousand, in their short form: `benchmarks/fuzz.py` runs more of them, with other seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fuzzing import KINDS, TOKENS, Case, World, check, each_case, measured, places
from refused_inputs import READ, cases
from running import Finished

CASES = 34
"""Number of cases of each kind; there are more than 200 in total."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_is_understood_or_refused_with_one_message(kind: str, world: World) -> None:
    outcomes: list[str] = []
    each_case(world, kind, lambda case: outcomes.append(world.run(case)), cases=CASES, number=0)
    assert len(outcomes) == CASES
    # How many are understood depends on the modules that are loaded: hypothesis draws constants from them.
    assert "refused" in outcomes
    assert set(outcomes) <= {"understood", "refused"}


def test_the_good_world_is_understood(world: World) -> None:
    commands = {command for name, command in READ.items() if (world.good / name).exists()}
    assert len(commands) > 6
    for command in commands:
        assert world.run(Case(command)) == "understood", (command, world.answer)


# Each of these was a fault that the cases found.
FOUND = {
    "a state that is no object": Case(
        ("ask", "--run", "qa", "--video", "media/a.mp4", "what is it ?"), {"qa/checkpoints/step_2/state.json": b"[]"}
    ),
    "a validation without a step": Case(
        ("finetune", "--resume", "--run", "qa", "--data-root", "data", "--set", "train.max_steps=3"),
        {"qa/metrics.jsonl": b'{"event": "validation", "accuracy": 0.5}\n{"event": "baseline"}\n'},
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_a_fault_is_none(name: str, world: World) -> None:
    assert world.run(FOUND[name]) in ("understood", "refused")


@pytest.fixture(scope="module")
def refused(world: World) -> dict[str, Case]:
    return cases(world)


@pytest.mark.parametrize(
    "name",
    [
        *("a.yaml: deep", "aliases", "90,000 unknown keys", "a large shape", "a packed table", "wrong lines"),
        *(
            "scores/ids.json: many lists",
            "data/txt_db/test.jsonl: many names",
            "qa.jsonl: a long value",
            "media/png.png: endless",
            "a picture of 180 million pixels",
        ),
    ],
)
def test_refusing_takes_little_memory_and_time(name: str, world: World, refused: dict[str, Case]) -> None:
    row = measured(world, refused[name])
    assert row["fault"] == ""
    assert row["peak_mb"] < 1000
    # This is processor time, because other tests run at the same time.
    assert row["cpu_seconds"] < 10


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        (3, "", "error: a\n"),
        (1, "", ""),
        (1, "", "error: a\nerror: b\n"),
        (0, "done", "error: a\n"),
        (1, "", "Traceback (most recent call last):\n"),
        (0, "", "sampling.py:184: RuntimeWarning: Mean of empty slice\n"),
        (1, "", "error: \x1b[2J\n"),
        (1, "", "error: " + "a" * 30_000 + "\n"),
    ],
)
def test_a_fault_is_seen(code: int, stdout: str, stderr: str) -> None:
    with pytest.raises(AssertionError):
        check(Finished(code, stdout, stderr))


def test_a_refused_command_that_writes_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(*_: object, cwd: Path, **__: str) -> Finished:
        (cwd / "data/new").write_text("")
        return Finished(1, "", "error: refused\n")

    monkeypatch.setattr("fuzzing.run_clipbert", writes)
    with pytest.raises(AssertionError, match="data/new"):
        world.run(Case(("pack",)))


def test_the_world_is_as_before_after_each_case(world: World) -> None:
    world.run(
        Case(
            ("pack", "given", "new", "--kind", "video", "--workers", "0"),
            {"media/a.mp4": b"x", "given/b.mp4": world.read("media/a.mp4")},
        )
    )
    assert (world.used / "new").exists()
    world.run(Case(("recipes", "ls")))
    assert not (world.used / "new").exists()
    assert not (world.used / "given").exists()
    assert (world.used / "media/a.mp4").read_bytes() == world.read("media/a.mp4")


def test_places_are_all_values_of_a_document() -> None:
    assert list(places({"a": [1, {"b": 2}]})) == [(), ("a",), ("a", 0), ("a", 1), ("a", 1, "b")]
    assert json.loads("[]") == []
    assert len(set(TOKENS)) == len(TOKENS)
