"""Every number that an option takes has bounds, and one beyond them is one message."""

from __future__ import annotations

from typing import Any

import pytest
from declared_options import declared_options, type_of
from running import Clipbert, contents

from clipbert_cli.commands.options import bounds_of

BOUNDED_TEXT = {"--nproc-per-node", "--transcode", "--fps", "--frames"}
"""Options with numbers in a text, which `test_a_number_in_a_text_is_bounded` tries."""

TEXT = {"--device", "--data-root", "--rdzv-endpoint", "--rdzv-id"}
"""Options whose metavar looks like a number and that are none."""


ALL = declared_options()
NUMBERS = [(f"{path} {each.opts[0]}", each) for path, each in ALL if type_of(each) in (int, float)]


def test_all_numbers_are_looked_at() -> None:
    found = {name for name, _ in NUMBERS}
    assert {"pack --workers", "store show --fps", "eval --resamples", "finetune --profile", "search --top"} <= found
    assert len(found) >= 20


@pytest.mark.parametrize(("name", "parameter"), NUMBERS, ids=[name for name, _ in NUMBERS])
def test_every_number_has_bounds(name: str, parameter: Any) -> None:
    declared = getattr(parameter.type_descriptor, "parameter_info", None)
    assert declared.min is not None
    assert declared.max is not None


PROCESSES = [(f"{path} {each.opts[0]}", each) for path, each in ALL if each.opts[0] == "--nproc-per-node"]
BOUNDED = [*NUMBERS, *PROCESSES]


@pytest.mark.parametrize(
    ("name", "parameter"), [*NUMBERS, *PROCESSES], ids=[name for name, _ in (*NUMBERS, *PROCESSES)]
)
def test_a_number_beyond_its_bounds_is_answered_with_them(
    name: str, parameter: Any, clipbert: Clipbert, tmp_path: Any
) -> None:
    option, bounds = parameter.opts[0], bounds_of(parameter)
    assert bounds is not None
    low, high = bounds
    for wrong in (low - 1, -7, high + 1, 10**30):
        for words in ([option, str(wrong)], [f"{option}={wrong}"]):
            done = clipbert(*name.split()[:-1], *words, cwd=tmp_path)
            assert done.returncode == 2
            assert f"{option} is {wrong}, but must be a" in done.stderr
            assert f" from {low:,} to {high:,}" in done.stderr


def test_every_text_with_a_number_in_it_is_known() -> None:
    texts = {each.opts[0] for _, each in ALL if "str" in str(type_of(each)) and "N" in (each.metavar or "").split("|")}
    texts |= {each.opts[0] for _, each in ALL if "str" in str(type_of(each)) and ":" in (each.metavar or "")}
    texts |= {each.opts[0] for _, each in ALL if (each.metavar or "").startswith("N,")}
    assert {text for text in texts if text.startswith("--")} - TEXT == BOUNDED_TEXT


@pytest.mark.parametrize(
    "words",
    [
        "finetune -r demo_qa --run out --nproc-per-node 99999",
        f"finetune -r demo_qa --run out --nproc-per-node {'9' * 5000}",
        "finetune -r demo_qa --run out --nproc-per-node ²",
        "finetune -r demo_qa --run out --nnodes 1000000",
        "finetune -r demo_qa --run out --profile 100000000",
        "pack videos out --transcode 1000000000:16:20",
        "pack videos out --transcode 448:1000000000:20",
        "pack videos out --transcode 448:16:100",
        f"pack videos out --transcode 448:16:{'9' * 5000}",
        "pack videos out --frame-folders --fps 1e400",
        f"pack videos out --frame-folders --fps {'9' * 5000}",
        "pack videos out --frame-folders --fps 1e99999999",
        "pack videos out --workers 100000",
        "pack videos out --max-pixels 100000000000",
        "store show store a -o a.png --num-clips 1000000",
        "store show store a -o a.png --fps 1e308",
        "store show store a -o a.png --fps inf",
        "store show store a -o a.png --fps nan",
        f"store show store a -o a.png --frames {','.join('0' for _ in range(5000))}",
        "store show store a -o a.png --frames 100000000000000000000",
        f"store show store a -o a.png --seed {'9' * 5000}",
        "preview videos --seed 99999999999 -o out.html",
        "search videos --run run --top 100000000000 what",
        "eval p.jsonl --seed -1",
    ],
)
def test_a_number_beyond_its_bounds_is_one_short_message(clipbert: Clipbert, tmp_path: Any, words: str) -> None:
    # Whatever else the words name is there.
    for name in ("store/data.mdb", "run/recipe.yaml", "videos/a.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "p.jsonl").write_text('{"media_id": "a", "text_digest": "b"}')
    before = contents(tmp_path)
    done = clipbert(*words.split(), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1
    assert words.split(" --")[-1].split()[0] in done.stderr
    assert len(done.stderr) < 1000
    assert contents(tmp_path) == before
