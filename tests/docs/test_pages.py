"""The README and the pages of docs/: every command block runs, every link resolves.

A fenced block says in its first line what is done with it:

    sh              every command runs, in one folder per page
    sh parse        commands that need a network, a GPU or published data: the command line parses them
    csv file=NAME   the text is written to that file (also json, yaml); with the word `bom` a byte order mark before it
    python          the program runs
    text            an example of output
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forking import run_python, variables
from running import TINY, Clipbert, as_options
from typer.main import get_command

from clipbert_cli.assets.convert.registry import CONVERTERS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = ("csv", "json", "yaml")
KINDS = ("sh", "bash", "python", "text", *WRITTEN)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: the words after the fence, its text, and its first line's number."""

    page: str
    line: int
    words: tuple[str, ...]
    text: str

    @property
    def kind(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def file(self) -> str | None:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)

    @property
    def is_parsed_only(self) -> bool:
        return "parse" in self.words

    def commands(self) -> Iterator[list[str]]:
        """The words of each command; comments and lines that a shell continues are resolved."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def blocks(page: Path) -> list[Block]:
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    numbers = iter(range(len(lines)))
    for number in numbers:
        if fence := re.fullmatch(r"```(.*)", lines[number]):
            end = next(after for after in numbers if lines[after] == "```")
            words = tuple(fence[1].split())
            found.append(Block(page.name, number + 1, words, "\n".join(lines[number + 1 : end])))
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


def named(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_a_block_says_what_is_done_with_it(block: Block) -> None:
    assert block.kind in KINDS
    assert (block.file is not None) == (block.kind in WRITTEN)


# ------------------------------------------------------------------------------------- parsed by the command line


def parse(words: list[str]) -> None:
    """Let the command line read a command without running it, and load the recipe that it names.

    Raises:
        click.ClickException, ClipbertError: it does not understand it.
    """
    from clipbert_cli.commands.app import app
    from clipbert_cli.recipe.load import load_recipe

    if "--help" in words or "--install-completion" in words:
        return
    command: Any = get_command(app)
    name, context = "clipbert", None
    while hasattr(command, "resolve_command"):
        context = command.context_class(command, info_name=name, parent=context)
        name, command, words = command.resolve_command(context, list(words))
    parsed = command.make_context(name, list(words), parent=context)
    if name == "convert":
        assert parsed.params["name"] in CONVERTERS
    recipe, overrides = parsed.params.get("recipe"), parsed.params.get("overrides") or ()
    if isinstance(recipe, str) and "/" not in recipe and not recipe.endswith(".yaml"):
        load_recipe(recipe, overrides=list(overrides), data_root=Path("/data"))


def check_words(words: list[str]) -> None:
    """One command of a block that is parsed only."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[0] == "pip":
        extras = re.findall(r"\[(.+)\]", words[-1])
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert set(extras) <= set(project["optional-dependencies"])
        assert "constraints.txt" in words
    elif words[0] in ("export", "cd") or re.match(r"\w+=", words[0]):
        pass
    else:
        programs = [place for place, word in enumerate(words) if word in ("clipbert", "clipbert_cli")]
        assert programs, words
        parse(words[programs[0] + 1 :])


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.kind in ("sh", "bash") and block.is_parsed_only], ids=named
)
def test_commands_that_cannot_run_here_are_understood(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    for words in block.commands():
        check_words(words)


def test_scripts_of_slurm_ask_for_cores_twice() -> None:
    """A task has one core unless it asks for more, and srun does not take over the number of sbatch."""
    scripts = [block.text for block in BLOCKS if "#SBATCH" in block.text]
    assert scripts
    for script in scripts:
        for asking in ("#SBATCH", "srun"):
            assert any(line.startswith(asking) and "--cpus-per-task=" in line for line in script.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "clipbert finetun --recipe msrvtt_qa",
        "clipbert finetune --recipe msrvtt_qa --nproc 4",
        "clipbert finetune --recipe no_such_recipe",
        "clipbert finetune --recipe msrvtt_qa --set train.batchsize=8",
        "pip install -c constraints.txt '.[no-such-extra]'",
        "make no-such-target",
        "clipbert assets convert msrvtt/qa raw/ out/",
        "curl somewhere",
    ],
)
def test_a_command_that_is_wrong_is_seen(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    block = Block("made", 1, ("sh", "parse"), line)
    with pytest.raises(Exception):  # noqa: B017, PT011 - click's, ours or an assertion
        check_words(next(block.commands()))


# ------------------------------------------------------------------------------------------------------ executed


@pytest.fixture
def folder(made_data: Path, trained_run: Path, retrieval_run: Path, choice_run: Path, tmp_path: Path) -> Path:
    """What a reader has at hand: the demo's folder with its runs, and some files of other names."""
    for name in ("txt_db", "vocab.txt", "videos"):
        (tmp_path / name).symlink_to(made_data / name)
    shutil.copytree(made_data / "vis_db", tmp_path / "vis_db")
    for run, names in (
        (trained_run, ("demo_qa", "msrvtt_qa")),
        (retrieval_run, ("demo_retrieval", "msrvtt_retrieval")),
    ):
        for name in names:
            shutil.copytree(run, tmp_path / "runs" / name, symlinks=True)
    shutil.copytree(choice_run, tmp_path / "runs" / "demo_mc", symlinks=True)
    (tmp_path / "clips").symlink_to(made_data / "videos")
    (tmp_path / "cat.mp4").symlink_to(made_data / "videos" / "test0000.mp4")
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if any(block.kind in ("sh", "python") and not block.is_parsed_only for block in blocks(page))
    ],
    ids=lambda page: page.name,
)
def test_every_command_of_a_page_runs(
    page: str, folder: Path, clipbert: Clipbert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    if page == "own-data.md":
        prepare_own_data(folder)
    for block in (block for block in BLOCKS if block.page == page):
        if block.file:
            write(block)
        elif block.kind == "python":
            done = run_python("-c", block.text, env=variables())
            assert done.returncode == 0, done.stderr
            assert done.stdout
        elif block.kind == "sh" and not block.is_parsed_only:
            for words in block.commands():
                assert words[0] == "clipbert", words
                small = as_options(sizes(folder)) if words[1] in ("finetune", "pretrain") else []
                # This recipe has a vocabulary of its own, whose size follows from its file.
                small = as_options(TINY) if "pets_from_scratch.yaml" in words and small else small
                done = clipbert(*words[1:], *small)
                assert done.returncode == 0, f"{named(block)}: {' '.join(words)}\n{done.stderr}"
                assert done.stdout + done.stderr
                if page == "own-data.md" and words[1] == "ask":
                    assert re.search("sleeping|running", done.stdout)


@pytest.mark.parametrize(
    ("program", "file", "headings", "wanted"),
    [
        (0, "export.csv", "Video;question;answer", "video"),
        (0, "export.csv", "vidoe,question,answer", "video"),
        (0, "export.csv", "film\tfrage\tantwort", "video"),
        (0, "export.csv", "", "video"),
        (1, "train.csv", "video,Question,answer", "question"),
        (1, "train.csv", "video,qestion,answer", "question"),
        (1, "train.csv", "video", "question"),
    ],
)
def test_programs_for_own_data_name_a_heading_that_is_not_there(
    program: int, file: str, headings: str, wanted: str, tmp_path: Path
) -> None:
    block = [block for block in BLOCKS if block.page == "own-data.md" and block.kind == "python"][program]
    (tmp_path / file).write_text(f"{headings}\n", encoding="utf-8-sig" if program == 0 else "utf-8")
    done = run_python("-c", block.text, cwd=tmp_path, env=variables())
    there = [name for name in re.split("[;,\t]", headings) if name]
    assert (done.returncode, done.stderr) == (1, f"{file} has no heading {wanted!r}: its headings are {there}\n")
    assert [each.name for each in tmp_path.iterdir()] == [file]


def write(block: Block) -> None:
    """Write the file of a block into the current folder."""
    assert block.file
    Path(block.file).write_text(block.text + "\n", encoding="utf-8-sig" if "bom" in block.words else "utf-8")


# The recipes of docs/own-data.md that only a dry run reads there, and how many records their validation has.
FORMS = {"choices": 4, "captions": 4, "votes": 2, "moments": 3, "frames": 4}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_records_is_trained_predicted_and_scored(
    name: str, folder: Path, clipbert: Clipbert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    prepare_own_data(folder)
    for block in BLOCKS:
        if block.page == "own-data.md" and block.file:
            write(block)
    small = as_options([*sizes(folder), "train.max_steps=1"])
    commands = [
        *([["pack", "frames", "vis_db/frames", "--frame-folders", "--fps", "5"]] if name == "frames" else []),
        ["finetune", "--recipe", f"{name}.yaml", *small],
        ["infer", "--run", f"runs/{name}", "--split", "val", "-o", "own.jsonl"],
        ["eval", "own.jsonl", "--recipe", f"{name}.yaml", "--split", "val", "--json"],
    ]
    for words in commands:
        done = clipbert(*words)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == FORMS[name]


def prepare_own_data(folder: Path) -> None:
    """The videos that docs/own-data.md speaks of, and what its `clipbert download` would have fetched, in small."""
    from made_media import image, marked_frame
    from made_weights import backbone, save_torch, to_bert, to_detectron
    from safetensors.torch import save_file

    from clipbert_cli.model.clipbert import ClipBert
    from clipbert_cli.model.heads import HeadSpec
    from clipbert_cli.recipe.load import load_recipe

    made = folder / "videos"
    videos = sorted(made.resolve().iterdir())
    made.unlink()
    made.mkdir()
    for number, video in enumerate(videos[:5], start=12):
        (made / f"IMG_00{number}.MOV").symlink_to(video)
        frames = folder / "frames" / f"IMG_00{number}"
        frames.mkdir(parents=True)
        for index in range(1, 7):
            (frames / f"{index:06d}.jpg").write_bytes(image(marked_frame(index), "jpeg"))
    (folder / "pictures").mkdir()
    for name in ("fence", "lawn"):
        (folder / "pictures" / f"{name}.jpg").write_bytes(image(marked_frame(1), "jpeg"))
    (folder / "new.mp4").symlink_to(videos[-1])
    bert = folder / "pretrained" / "bert-base-uncased"
    bert.mkdir(parents=True)
    shutil.copy(folder / "vocab.txt", bert)
    model = ClipBert(
        load_recipe("video_qa", overrides=[*sizes(folder)], data_root=folder).model, HeadSpec("pretraining", 2)
    )
    save_file({name: tensor.contiguous() for name, tensor in to_bert(model).items()}, bert / "model.safetensors")
    save_torch({"model": to_detectron(backbone(model))}, bert.parent / "grid_feat_R-50.pth")


def sizes(folder: Path) -> list[str]:
    """The settings that make a recipe small; they are all that differs from what a page says."""
    words = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    return [*TINY, f"model.bert.vocab_size={words}"]


# --------------------------------------------------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:benchmarks|tests|recipes|docs|clipbert_cli)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name


def test_the_readme_is_short_and_names_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in readme, page.name


def test_the_tree_lists_every_file_of_the_package_once() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders: list[str] = []
    listed = []
    for line in page.partition("## The tree")[2].split("```")[1].splitlines()[1:]:
        indent, name, about = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()  # type: ignore[union-attr]
        folders[len(indent) // 2 :] = [name.rstrip("/")]
        if name.endswith(".py"):
            assert about, line
            listed.append("/".join(folders))
    package = ROOT / "clipbert_cli"
    files = [str(file.relative_to(ROOT)) for file in package.rglob("*.py") if file.name != "__init__.py"]
    assert sorted(listed) == sorted(files)


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](nowhere.md)")
    with pytest.raises(AssertionError, match=r"nowhere\.md"):
        test_links_resolve(page)
    page.write_text("# One\n[a](#two)")
    with pytest.raises(AssertionError, match="#two"):
        test_links_resolve(page)
