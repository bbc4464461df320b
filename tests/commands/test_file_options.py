"""Every option and argument that names a file or a folder is tried with what is no file, and with endless content."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from declared_options import declared_options, type_of
from fuzzing import check, time_limit
from hostile_inputs import SPECIAL, make_special
from running import Clipbert, contents

QA = "--recipe demo_qa --data-root DATA --split test"
# The words of a command in which BAD is what a person named. Outputs are written and not read.
COMMANDS = {
    "download --to": "download msrvtt/qa --to BAD --dry-run",
    "download --source": "download msrvtt/qa --to new --source BAD --dry-run",
    "download --catalog": "download msrvtt/qa --to new --catalog BAD --dry-run",
    "pack sources": "pack BAD new --kind video --workers 0",
    "pack store": "pack DATA/videos/test0000.mp4 BAD --add --workers 0",
    "preview media": "preview BAD -o new.html",
    "preview --recipe": "preview --recipe BAD --split test -o new.html",
    "preview --data-root": "preview --recipe demo_qa --data-root BAD --split test -o new.html",
    "pretrain --recipe": "pretrain --recipe BAD --run new --dry-run",
    "pretrain --run": "pretrain --run BAD --resume --dry-run",
    "pretrain --data-root": "pretrain --recipe demo_pretrain --data-root BAD --run new --dry-run",
    "finetune --recipe": "finetune --recipe BAD --run new --dry-run",
    "finetune --run": "finetune --run BAD --resume --dry-run",
    "finetune --data-root": "finetune --recipe demo_qa --data-root BAD --run new --dry-run",
    "infer --run": "infer --run BAD --split test -o new.jsonl",
    "infer --recipe": "infer --run RUN --recipe BAD --split test -o new.jsonl",
    "infer --data-root": "infer --run RUN --data-root BAD --split test -o new.jsonl",
    "eval predictions": f"eval BAD {QA}",
    "eval --run": "eval PREDS --run BAD --split test",
    "eval --recipe": "eval PREDS --recipe BAD --split test",
    "eval --data-root": "eval PREDS --recipe demo_qa --data-root BAD --split test",
    "eval --against": f"eval PREDS --against BAD {QA}",
    "report predictions": f"report BAD {QA} -o new.html",
    "report --run": "report --run BAD -o new.html",
    "report --recipe": "report PREDS --recipe BAD --split test -o new.html",
    "report --against": f"report PREDS --against BAD {QA} -o new.html",
    "report --blind": f"report PREDS --blind BAD {QA} -o new.html",
    "report --data-root": "report PREDS --recipe demo_qa --data-root BAD --split test -o new.html",
    "ask --run": "ask --run BAD --video DATA/videos/test0000.mp4 what?",
    "ask --video": "ask --run RUN --video BAD what?",
    "ask --image": "ask --run RUN --image BAD what?",
    "ask --questions": "ask --run RUN --questions BAD",
    "search media": "search BAD what --run SEARCH",
    "search --run": "search DATA/videos what --run BAD",
    "assets ls --to": "assets ls --to BAD",
    "assets ls --catalog": "assets ls --catalog BAD",
    "assets check --catalog": "assets check msrvtt --catalog BAD",
    "assets convert raw_dir": "assets convert msrvtt_qa BAD new",
    "assets convert --catalog": "assets convert msrvtt_qa DATA new --catalog BAD",
    "store verify store": "store verify BAD --workers 0",
    "store scan store": "store scan BAD --workers 0",
    "store ls store": "store ls BAD",
    "store show store": "store show BAD test0000 -o new.png",
    "runs ls folder": "runs ls BAD",
    "runs export run": "runs export BAD new",
    "runs push run": "runs push BAD hf:a/b --to new",
    "recipes show name": "recipes show BAD",
    "recipes show --data-root": "recipes show demo_qa --data-root BAD",
    "recipes copy name": "recipes copy BAD new.yaml",
    "recipes answers name": "recipes answers BAD",
    "recipes answers --data-root": "recipes answers demo_qa --data-root BAD",
    "recipes validate name": "recipes validate BAD",
    "recipes validate --data-root": "recipes validate demo_qa --data-root BAD",
}
OUTPUTS = {
    "assets convert out_dir",
    "demo folder",
    "infer --output",
    "preview --output",
    "recipes answers --output",
    "recipes copy file",
    "report --output",
    "runs export out",
    "runs push --to",
    "store show --output",
}

CONTENTS: dict[str, Callable[[Path], object]] = {
    **{kind: lambda path, kind=kind: make_special(path, kind) for kind in SPECIAL},  # type: ignore[misc]
    "deep": lambda path: path.write_bytes(b"[" * 1_000_000),
    "no text": lambda path: path.write_bytes(bytes(range(256)) * 4000),
    "nothing": Path.touch,
}


def test_every_option_that_names_a_file_is_known() -> None:
    found = {
        f"{path} {each.opts[0]}"
        for path, each in declared_options()
        if "Path" in str(type_of(each)) or {"FILE", "FOLDER", "DIR"} & set((each.metavar or "").strip("[]").split("|"))
    }
    assert found == COMMANDS.keys() | OUTPUTS | {
        f"recipes {each} name" for each in ("show", "copy", "answers", "validate")
    }


@pytest.fixture(scope="module")
def preds(trained_run: Path, clipbert: Clipbert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preds") / "preds.jsonl"
    assert clipbert("infer", "--run", trained_run, "--split", "test", "-o", path).returncode == 0
    return path


@pytest.mark.parametrize("option", COMMANDS)
def test_what_is_no_file_or_has_no_sense_is_one_message(
    option: str,
    clipbert: Clipbert,
    made_data: Path,
    trained_run: Path,
    retrieval_run: Path,
    preds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = {"DATA": made_data, "RUN": trained_run, "SEARCH": retrieval_run, "PREDS": preds}
    words = COMMANDS[option]
    for name, place in places.items():
        words = words.replace(name, str(place))

    def ends_as_it_should(name: str, bad: str, make: Callable[[Path], object]) -> None:
        # A folder of its own for each: what one command leaves is not seen by the next.
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        make(Path("bad"))
        before = contents(folder)
        with time_limit(120):
            done = clipbert(*words.replace("BAD", bad).split(), HF_HUB_OFFLINE="1")
        check(done)
        assert done.returncode == 0 or contents(folder) == before, f"{name}: {done.stderr}"

    for name, make in CONTENTS.items():
        ends_as_it_should(name, "bad", make)
    # A shell passes such a name for <(cat /dev/zero).
    with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        ends_as_it_should("a pipe of zeros", f"/dev/fd/{endless.stdout.fileno()}", lambda _: None)
        endless.kill()
