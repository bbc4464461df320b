"""Completion in shells: what is listed, that nothing heavy is imported, and the keys that a person presses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import lmdb
import pytest
from typer.main import get_command

from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.assets.convert.registry import CONVERTERS
from clipbert_cli.commands.app import app
from clipbert_cli.commands.completion import candidates, complete, find_cursor
from clipbert_cli.commands.infer import JSONL, SCORES, SUBMISSION
from clipbert_cli.recipe.load import list_recipes, load_recipe
from clipbert_cli.recipe.settings import all_settings, annotation_at, bare

ROOT = Path(__file__).parents[2]
COMMAND = get_command(app)
SPLIT_KEYS = ("annotations", "media")


@pytest.fixture(scope="module")
def world(trained_run: Path, made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and a store below a folder, and a folder of many other files. Not to be changed."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(trained_run, folder / "runs/mine", symlinks=True)
    shutil.copytree(trained_run, folder / "runs/other", symlinks=True)
    shutil.copytree(made_data / "vis_db", folder / "stores/demo")
    (folder / "videos").mkdir()
    splits = "{blind: {annotations: a, media: b}, val: null}"
    (folder / "lab.yaml").write_text(f"extends: [msrvtt_qa, msrvtt_qa]\ndata: {{splits: {splits}}}\n")
    return folder


@pytest.fixture
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    return world


def listed(line: str) -> list[str]:
    """Return what may stand at the end of a command line."""
    *words, word = line.split(" ")[1:]
    return [value for value, _ in candidates(find_cursor(COMMAND, words, word))]


# ------------------------------------------------------------------------------------------ what is listed


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("clipbert fi", ["finetune"]),
        ("clipbert store s", ["scan", "show"]),
        ("clipbert --v", ["--version"]),
        ("clipbert finetune --re", ["--recipe", "--resume", "--requeue"]),
        ("clipbert finetune --recipe x --re", ["--resume", "--requeue"]),
        ("clipbert ask --video a.mp4 --vi", ["--video"]),
        ("clipbert pack --kind ", ["video", "image"]),
        ("clipbert pack --kind=i", ["--kind=image"]),
        ("clipbert demo --size sm", ["smallest", "small"]),
        ("clipbert finetune --recipe tgif_", ["tgif_action", "tgif_frameqa", "tgif_transition"]),
        ("clipbert finetune -r la", ["lab.yaml"]),
        ("clipbert recipes show --set a=b lab", ["lab.yaml"]),
        ("clipbert infer --run ", ["runs/mine", "runs/other"]),
        ("clipbert infer --run=runs/m", ["--run=runs/mine"]),
        ("clipbert runs export runs/o", ["runs/other"]),
        ("clipbert ask --run runs/mine --checkpoint ", ["best", "latest", "step_2", "step_4"]),
        ("clipbert infer --run runs/mine --split ", ["train", "val", "test"]),
        ("clipbert infer --run runs/mine --recipe msrvtt_mc --split ", ["test"]),
        ("clipbert eval preds.jsonl --recipe lab.yaml --split ", ["train", "test", "blind"]),
        ("clipbert eval preds.jsonl --split t", ["train", "test"]),
        ("clipbert store ls ", ["stores/demo"]),
        ("clipbert store show st", ["stores/demo"]),
        ("clipbert store show stores/demo te", [f"test000{number}" for number in range(4)]),
        ("clipbert store show -o a.png stores/demo val0001", ["val0001"]),
        ("clipbert download msrvtt/", [part for part in load_catalog(None).parts() if part.startswith("msrvtt/")]),
        ("clipbert download coco vg/ca", ["vg/captions"]),
        ("clipbert assets ls tgif_a", ["tgif_action"]),
        ("clipbert assets convert vg_", ["vg_captions", "vg_qa"]),
        ("clipbert recipes explain model.v", ["model.visual"] + [key for key in all_settings() if "model.v" in key]),
        ("clipbert ask --device c", ["cpu", "cuda"]),
        ("clipbert finetune --nproc-per-node ", ["gpu"]),
        ("clipbert infer --format s", ["scores"]),
        ("clipbert finetune --set data.ro", ["data.root", "data.rotation"]),
        ("clipbert finetune --set data.rotation", ["data.rotation=", "data.rotation=apply", "data.rotation=ignore"]),
        ("clipbert finetune --set data.rotation=i", ["data.rotation=ignore"]),
        ("clipbert infer --set data.black_frames=", ["data.black_frames=true", "data.black_frames=false"]),
        ("clipbert finetune -r lab.yaml --set data.splits.b", [f"data.splits.blind.{key}" for key in SPLIT_KEYS]),
        ("clipbert infer --run runs/mine --set data.splits.val.m", ["data.splits.val.media="]),
        ("clipbert finetune --set data.splits.test.a", ["data.splits.test.annotations="]),
        ("clipbert finetune -r msrvtt_mc --set data.splits.val.m", []),
        ("clipbert finetune --set train.batch_size=", ["train.batch_size=16"]),
        ("clipbert finetune --set a=b --set data.rotation=a", ["data.rotation=apply"]),
    ],
)
def test_values_are_listed(line: str, expected: list[str]) -> None:
    assert listed(line) == expected


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "line",
    [
        "clipbert pack ",
        "clipbert pack videos/ ",
        "clipbert ask --video ",
        "clipbert infer -o ",
        "clipbert eval ",
        "clipbert search vi",
        "clipbert finetune --data-root ",
        "clipbert finetune --run videos/",
        "clipbert ask --run nothing/ ",
        "clipbert nothing ",
        "clipbert store show nothing ",
        "clipbert store show videos ",
        "clipbert store show -- -",
        "clipbert infer --run nothing --split ",
        "clipbert eval p --recipe nothing --split ",
    ],
)
@pytest.mark.parametrize(("shell", "files"), [("bash", ""), ("zsh", "_files\n")])
def test_files_are_left_to_the_shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, shell: str, files: str
) -> None:
    ask_shell(monkeypatch, shell, line)
    assert complete(COMMAND)
    assert capsys.readouterr().out == files


def test_names_are_those_of_the_packages() -> None:
    assert listed("clipbert finetune --recipe ")[: len(list_recipes())] == [recipe.name for recipe in list_recipes()]
    catalog = load_catalog(None)
    recipes = [name for name in catalog.recipes if "*" not in name]
    assert sorted(listed("clipbert download ")) == sorted([*catalog.assets, *catalog.parts(), *recipes])
    assert sorted(listed("clipbert assets convert ")) == sorted(CONVERTERS)
    assert sorted(listed("clipbert infer --format ")) == sorted((JSONL, SCORES, SUBMISSION))


@pytest.mark.parametrize("key", [key for key in all_settings() if "NAME" not in key])
def test_every_setting_and_its_choices_are_listed(key: str) -> None:
    assert key in listed(f"clipbert finetune --set {key[:-1]}") or f"{key}=" in listed(f"clipbert finetune --set {key}")
    values = [value.partition("=")[2] for value in listed(f"clipbert finetune --set {key}=")]
    kind = bare(annotation_at(tuple(key.split("."))))
    if kind is bool:
        assert values == ["true", "false"]
    elif str(get_origin(kind)) == "typing.Literal":
        assert values[: len(get_args(kind))] == [str(choice) for choice in get_args(kind)]
    elif (default := all_settings()[key].default) is not None:
        assert values == [default]


@pytest.mark.parametrize("name", ["demo_qa", "msrvtt_mc", "pretrain_coco_vg", "tgif_frameqa"])
def test_splits_are_those_of_the_loaded_recipe(name: str) -> None:
    found = listed(f"clipbert eval preds.jsonl --recipe {name} --split ")
    assert sorted(found) == sorted(load_recipe(name, environment={"DATA": "."}).data.splits)


def test_only_so_many_media_ids_are_listed(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "store"), map_size=2**26) as environment, environment.begin(write=True) as txn:
        for number in range(3000):
            txn.put(f"video{number:04}".encode(), b"")
        txn.put(b"/clipbert/manifest", b"{}")
    assert len(listed(f"clipbert store show {tmp_path}/store ")) == 1000
    assert listed(f"clipbert store show {tmp_path}/store video299") == [f"video299{last}" for last in range(10)]
    assert "/clipbert/manifest" not in listed(f"clipbert store show {tmp_path}/store ")


# ------------------------------------------------------------------------------------------ shells


def ask_shell(monkeypatch: pytest.MonkeyPatch, shell: str, line: str) -> None:
    """Set the variables with which typer's script of a shell asks for candidates."""
    monkeypatch.setenv("_CLIPBERT_COMPLETE", f"complete_{shell}")
    # Bash splits words at these characters too.
    words = [part for word in line.split(" ") for part in (re.split(r"([=:]+)", word) if word else [""])]
    words = [word for number, word in enumerate(words) if word or (number == len(words) - 1 and line[-1] == " ")]
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")


@pytest.mark.parametrize(
    ("line", "bash"),
    [
        ("clipbert pack --kind=v", "video"),
        ("clipbert finetune --set train.precision=b", "bf16"),
        ("clipbert finetune --set=train.precision=b", "bf16"),
        ("clipbert finetune --set train.batch_size=", "16"),
        ("clipbert finetune --set data.rotation=", "apply\nignore"),
        ("clipbert finetune --set model.visual.depths=", r"\[3\,\ 4\,\ 6\,\ 3\]"),
    ],
)
def test_bash_gets_what_follows_the_last_break(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, bash: str
) -> None:
    ask_shell(monkeypatch, "bash", line)
    complete(COMMAND)
    assert capsys.readouterr().out.strip().replace("\\,", ",") == bash.replace("\\,", ",")


@pytest.mark.parametrize("name", ["my video", "it's", "a&b", "50%", "$HOME", "(1)", "a:b", "ünïcode"])
def test_unusual_names_reach_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    with lmdb.open(str(tmp_path / "store"), map_size=2**26) as environment, environment.begin(write=True) as txn:
        txn.put(name.encode(), b"")
    ask_shell(monkeypatch, "bash", f"clipbert store show {tmp_path}/store ")
    complete(COMMAND)
    found = capsys.readouterr().out.rstrip("\n")
    echoed = subprocess.run(["bash", "-c", f"printf %s {found}"], capture_output=True, text=True, check=True)
    assert echoed.stdout == name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("clipbert f", "finetune"),
        ("clipbert finetune --set train.b", "train.batch_size"),
        ("clipbert eval x --recipe demo_qa --split te", "test"),
        ("clipbert download msrvtt/q", "msrvtt/qa"),
    ],
)
def test_nothing_heavy_is_imported(monkeypatch: pytest.MonkeyPatch, shell: str, line: str, word: str) -> None:
    heavy = {"torch", "numpy", "pydantic", "av", "PIL", "httpx", "rich"}
    code = (
        "import atexit, sys; sys.argv = ['clipbert']; from clipbert_cli.commands.app import main\n"
        f"atexit.register(lambda: print('imported', *sorted({heavy} & set(sys.modules))))\n"
        "main()"
    )
    ask_shell(monkeypatch, shell, line)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *found, imported = done.stdout.splitlines()
    assert word in "\n".join(found)
    assert imported == "imported"


# ------------------------------------------------------------------------------------------ keys


class Terminal:
    """A shell in tmux."""

    def __init__(self, shell: str, folder: Path, socket: Path) -> None:
        self.base = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        start = {"bash": "bash --norc --noprofile", "zsh": "zsh -f"}[shell]
        self.tmux("new-session", "-d", "-x", "120", "-y", "40", "-c", str(folder), start)

    def tmux(self, *words: str) -> str:
        return subprocess.run([*self.base, *words], capture_output=True, text=True, check=False).stdout

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def run(self, command: str, *, until: str) -> None:
        self.tmux("send-keys", "-l", command)
        self.tmux("send-keys", "Enter")
        self.wait_for(until)

    def wait_for(self, pattern: str, seconds: float = 30) -> str:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, screen := self.screen(), flags=re.M):
            assert time.monotonic() < deadline, f"{pattern} is not on the screen:\n{screen}"
            time.sleep(0.05)
        return screen


@pytest.fixture
def terminal(request: Any, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A shell with the completion that `clipbert --show-completion` prints."""
    for program in ("tmux", request.param):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    command = tmp_path / "bin/clipbert"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from clipbert_cli.commands.app import main\nmain()\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("TMUX", raising=False)
    shell = Terminal(request.param, world, tmp_path / "tmux")
    try:
        if request.param == "zsh":
            shell.run(f"autoload -Uz compinit; compinit -u -d {tmp_path}/dump; echo comp''init", until="^compinit$")
        shell.run("eval \"$(clipbert --show-completion)\"; PS1='> '; echo is''ready", until="^isready$")
        shell.run("clear", until=r"\A> *$")
        yield shell
    finally:
        shell.tmux("kill-server")


@pytest.mark.parametrize("terminal", ["bash", "zsh"], indirect=True)
def test_a_person_presses_tab(terminal: Terminal) -> None:
    for typed, completed in (
        ("clipbert fi", "clipbert finetune "),
        ("clipbert pack vid", "clipbert pack videos/"),
        ("clipbert finetune -r msrvtt_m", "clipbert finetune -r msrvtt_mc "),
        ("clipbert finetune --set train.prec", "clipbert finetune --set train.precision="),
        ("clipbert finetune --set train.precision=b", "clipbert finetune --set train.precision=bf16 "),
        ("clipbert infer --run runs/m", "clipbert infer --run runs/mine "),
        ("clipbert infer --run runs/mine --split te", "clipbert infer --run runs/mine --split test "),
        ("clipbert store show stores/demo val0001", "clipbert store show stores/demo val0001 "),
        ("clipbert download msrvtt/q", "clipbert download msrvtt/qa "),
        ("clipbert pack --kind=v", "clipbert pack --kind=video "),
    ):
        terminal.tmux("send-keys", "-l", typed)
        terminal.tmux("send-keys", "Tab")
        # A mark behind the cursor shows whether a space was added.
        terminal.wait_for(re.escape(f"> {completed}".rstrip()))
        terminal.tmux("send-keys", "-l", "X")
        terminal.wait_for(re.escape(f"> {completed}X"))
        terminal.tmux("send-keys", "C-u")
        terminal.tmux("send-keys", "C-l")
        terminal.wait_for(r"\A> *$")


@pytest.mark.parametrize("damage", ["empty", "cut off", "text", "a folder", "keys"])
def test_a_damaged_store_offers_nothing_and_ends_nothing(
    damage: str, made_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made_data / "vis_db", tmp_path / "store")
    file = tmp_path / "store" / "data.mdb"
    content = bytearray(file.read_bytes())
    if damage == "keys":
        for page in range(2, len(content) // 4096):
            content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        contents = {"empty": b"", "cut off": content[:20_000], "text": b"no store\n" * 999, "keys": content}
        file.write_bytes(contents[damage])
    ask_shell(monkeypatch, "bash", f"clipbert store show {tmp_path}/store ")
    assert complete(COMMAND)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["step_abc", "step_", "step_-1", "step_9.5", "step_" + "9" * 5000])
def test_a_strange_checkpoint_does_not_hide_the_others(name: str, tmp_path: Path) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    for each in ("step_10", "step_9", name[:200]):
        (checkpoints / each).mkdir(parents=True)
    assert listed(f"clipbert infer --run {tmp_path}/run --checkpoint ") == ["best", "latest", "step_9", "step_10"]
