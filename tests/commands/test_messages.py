"""What a person reads who typed something else than was meant, and what works although it looks wrong."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
from pathlib import Path

import pytest
from declared_options import declared_options
from made_media import video
from rich.progress import Task
from running import Clipbert, Finished, as_options
from typer.main import get_command

from clipbert_cli.commands import demo
from clipbert_cli.commands.app import app
from clipbert_cli.commands.progress import RateColumn
from clipbert_cli.commands.usage import refuse_wrong_usage
from clipbert_cli.errors import ClipbertError
from clipbert_cli.infer.trained import RunSelection, selected_recipes


def text(done: Finished) -> str:
    return " ".join(done.stderr.split())


# ------------------------------------------------------------------------------------------ left-over variables


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but RANK and MASTER_ADDR and MASTER_PORT are not set"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE is 2, but MASTER_ADDR and MASTER_PORT are not set"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "node7"},
            "WORLD_SIZE is 2, but MASTER_PORT is not set",
        ),
        ({"RANK": "3"}, "RANK is 3, but must be less than WORLD_SIZE, which is 1"),
        ({"WORLD_SIZE": "", "RANK": "0"}, "WORLD_SIZE is '', but must be a whole number"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        "ask --run {run} --video {data}/videos/test0000.mp4 what?",
        "infer --run {run} --split test",
        "finetune --dry-run",
    ],
)
def test_variables_that_a_launcher_left_are_named(
    clipbert: Clipbert,
    trained_run: Path,
    made_data: Path,
    tmp_path: Path,
    command: str,
    variables: dict[str, str],
    message: str,
) -> None:
    words = command.format(run=trained_run, data=made_data).split()
    if words[0] == "finetune":
        words += ["--recipe", "demo_qa", "--data-root", str(made_data)]
    done = clipbert(*words, cwd=tmp_path, **variables)
    assert done.returncode == 2
    assert message in text(done)
    assert "unset RANK, LOCAL_RANK and WORLD_SIZE" in text(done)


@pytest.mark.parametrize("option", ["--nproc-per-node=2", "--nnodes=2", "--rdzv-id=job"])
def test_a_launcher_inside_a_launcher_is_refused(clipbert: Clipbert, tmp_path: Path, option: str) -> None:
    done = clipbert("finetune", "--recipe", "demo_qa", option, cwd=tmp_path, RANK="0", WORLD_SIZE="1")
    assert done.returncode == 2
    assert "a launcher has started this process already" in text(done)


@pytest.mark.parametrize(
    "command", ["finetune --recipe demo_qa", "pretrain --recipe demo_pretrain", "infer --run {run} --split test"]
)
def test_a_process_for_each_gpu_needs_a_gpu(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path, command: str
) -> None:
    done = clipbert(*command.format(run=trained_run).split(), "--nproc-per-node", "gpu", cwd=tmp_path)
    assert done.returncode == 2
    assert "--nproc-per-node is gpu, but torch finds no GPU" in text(done)
    assert "for example --nproc-per-node 2" in text(done)


# ------------------------------------------------------------------------------------------ what is no file


@pytest.mark.parametrize(
    ("command", "address"),
    [
        ("ask --run {run} --video https://example.com/a.mp4 what?", "https://example.com/a.mp4"),
        ("ask --run {run} --image http://example.com/p.jpg what?", "http://example.com/p.jpg"),
        ("ask --run {run} --video {data}/videos/test0000.mp4 --video rtsp://camera/1 what?", "rtsp://camera/1"),
        ("pack https://example.com/a.mp4 new", "https://example.com/a.mp4"),
        ("pack {data}/videos s3://bucket/videos new", "s3://bucket/videos"),
        ("search https://example.com/videos dog --run {run}", "https://example.com/videos"),
    ],
)
def test_an_address_is_no_file(
    clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path, command: str, address: str
) -> None:
    done = clipbert(*command.format(run=trained_run, data=made_data).split(), cwd=tmp_path)
    assert done.returncode == 2
    assert f"is {address}, an address" in text(done)
    assert f"curl -LO {address}" in text(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["what?"], ["what is it?", "who?"], []])
def test_several_files_may_follow_one_option(
    clipbert: Clipbert, trained_run: Path, choice_run: Path, made_data: Path, words: list[str]
) -> None:
    """`--video *.mp4` becomes `--video a.mp4 b.mp4 c.mp4` in the shell."""
    files = [f"videos/test000{number}.mp4" for number in range(3)]
    options = [] if words else ["--option", "a red circle", "--option", "a blue bar"]
    run = trained_run if words else choice_run
    done = clipbert("ask", "--run", run, "--video", *files, *words, *options, "--json", cwd=made_data)
    assert done.returncode == 0, done.stderr
    expected = [(file, word) for file in files for word in words or [None]]
    assert [(each["video"], each["question"]) for each in json.loads(done.stdout)] == expected
    one_by_one = [part for file in files for part in ("--video", file)]
    again = clipbert("ask", "--run", run, *one_by_one, *words, *options, "--json", cwd=made_data)
    assert again.stdout == done.stdout


def test_a_file_without_its_kind_is_refused(clipbert: Clipbert, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "p.png"):
        (tmp_path / name).touch()
    for words in (["b.mp4", "what?"], ["--video", "a.mp4", "--image", "p.png", "b.mp4", "what?"]):
        done = clipbert("ask", "--run", "hf:org/name", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert "b.mp4 is a file, but stands where a question is expected" in text(done)
        assert "give --video or --image before it" in text(done)


# ------------------------------------------------------------------------------------------ what is no question


@pytest.mark.parametrize("empty", ["", " ", "\t\n", "\u3000"])
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["ask", "--video", "videos/test0000.mp4"], "QUESTION"),
        (["ask", "--video", "videos/test0000.mp4", "what?"], "QUESTION"),
        (["ask", "--video", "videos/test0000.mp4", "what?", "--option", "a dog", "--option"], "--option"),
        (["search", "vis_db"], "TEXT"),
        (["search", "vis_db", "a dog"], "TEXT"),
    ],
)
def test_an_empty_text_is_refused(
    clipbert: Clipbert, trained_run: Path, made_data: Path, words: list[str], name: str, empty: str
) -> None:
    done = clipbert(*words, empty, "--run", trained_run, cwd=made_data)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name} is empty" in text(done)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--option is missing, but this run chooses between at least two"),
        (["--option", "a dog"], "--option is given once, but this run chooses between at least two"),
    ],
)
def test_a_choice_needs_two_options(
    clipbert: Clipbert, choice_run: Path, made_data: Path, options: list[str], message: str
) -> None:
    asked = ["ask", "--run", choice_run, "--video", "videos/test0000.mp4", "what?"]
    done = clipbert(*asked, *options, cwd=made_data)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in text(done)
    assert "give --option once for each option" in text(done)


def test_options_without_a_question_have_no_column_for_it(
    clipbert: Clipbert, choice_run: Path, made_data: Path
) -> None:
    options = ["--option", "a red circle", "--option", "a blue bar"]
    done = clipbert("ask", "--run", choice_run, "--video", "videos/test0000.mp4", *options, cwd=made_data)
    assert done.returncode == 0, done.stderr
    file, answer, score = done.stdout.strip().split("\t")
    assert file == "videos/test0000.mp4"
    assert answer in options
    assert 0.5 <= float(score) <= 1


# ------------------------------------------------------------------------------------------ settings without effect


@pytest.mark.parametrize(
    "setting",
    [
        "train.epochs=4",
        "train.freeze=[bert]",
        "seed=3",
        "name=mine",
        "model.bert.hidden_size=32",
        "data.answers=a.json",
        "data.num_clips=3",
        "objective.num_labels=4",
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        "infer --run {run} --split test -o new.jsonl",
        "ask --run {run} --video {data}/videos/test0000.mp4 what?",
        "search {data}/vis_db what? --run {run}",
    ],
)
def test_settings_of_training_are_refused_at_inference(
    clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path, command: str, setting: str
) -> None:
    words = command.format(run=trained_run, data=made_data).split()
    done = clipbert(*words, "--set", setting, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--set {setting} has no effect here" in text(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", ["train.precision=fp32", "data.black_frames=true", "data.frame_size=96"])
def test_settings_with_an_effect_are_taken(clipbert: Clipbert, trained_run: Path, setting: str) -> None:
    assert clipbert("infer", "--run", trained_run, "--split", "test", "--set", setting).returncode == 0


def test_with_another_recipe_a_setting_goes_where_inference_takes_it_from(trained_run: Path, made_data: Path) -> None:
    settings = ("data.fps=3", "infer.num_clips=3", "train.precision=fp32")
    selection = RunSelection(trained_run, recipe="demo_qa", overrides=settings, data_root=made_data)
    used, _ = selected_recipes(selection)
    assert (used.data.fps, used.infer.num_clips, used.train.precision) == (3, 3, "fp32")


# ------------------------------------------------------------------------------------------ folders


@pytest.fixture
def place(tmp_path: Path, trained_run: Path) -> Path:
    """A run, a folder of media, an empty folder, a folder of notes and a file."""
    shutil.copytree(trained_run, tmp_path / "run", symlinks=True)
    for name in ("videos", "empty", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(video(4))
    (tmp_path / "notes/today.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize("name", ["videos", "notes", "empty", "file", "link"])
@pytest.mark.parametrize(
    "command", ["finetune --recipe demo_qa --data-root {data} --run {name}", "pack {data}/videos {name}"]
)
def test_what_is_no_run_and_no_store_is_never_called_removable(
    clipbert: Clipbert, place: Path, made_data: Path, name: str, command: str
) -> None:
    done = clipbert(*command.format(data=made_data, name=name).split(), cwd=place)
    assert done.returncode == 1
    assert f"{name} exists" in text(done)
    for word in ("remove", "delete", "rm ", "overwrite", "--resume", "--add"):
        assert word not in text(done)


def test_a_run_that_exists_can_be_resumed(clipbert: Clipbert, place: Path, made_data: Path) -> None:
    done = clipbert("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", "run", cwd=place)
    assert done.returncode == 1
    assert "run folder run exists already" in text(done)
    assert "--resume" in text(done)
    assert "remove" not in text(done)


@pytest.mark.parametrize("name", ["run", "videos", "empty", "file"])
def test_a_dry_run_asks_for_no_new_folder(clipbert: Clipbert, place: Path, made_data: Path, name: str) -> None:
    words = ["finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", name, "--dry-run"]
    done = clipbert(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"{name} exists already: to train, give another --run" in text(done)
    assert "nothing was written" in text(done)


def test_a_run_without_steps_left_says_so(clipbert: Clipbert, place: Path, made_data: Path) -> None:
    again = ("finetune", "--run", "run", "--resume", "--data-root", made_data)
    planned = clipbert(*again, "--dry-run", cwd=place)
    assert (planned.returncode, "training no batch" in text(planned)) == (0, True), planned.stderr
    done = clipbert(*again, cwd=place)
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
    assert "run is finished: all 4 of its steps were done before" in text(done)
    shutil.rmtree(place / "run/checkpoints/step_4")
    done = clipbert(*again, cwd=place)
    assert (done.returncode, "is finished" in text(done)) == (0, False)


@pytest.mark.parametrize("name", ["nope", "run/nope", "file", "link"])
def test_runs_of_a_folder_that_is_not_there_are_an_error(clipbert: Clipbert, place: Path, name: str) -> None:
    for options in ([], ["--json"]):
        done = clipbert("runs", "ls", name, *options, cwd=place)
        assert (done.returncode, done.stdout) == (2, "")
        what = "a file" if name == "file" else "which does not exist"
        assert f"FOLDER is {name}, {what}: a folder is expected" in text(done)


def test_runs_ls_of_a_run_lists_it(clipbert: Clipbert, place: Path) -> None:
    (found,) = json.loads(clipbert("runs", "ls", "run", "--json", cwd=place).stdout)
    assert (found["run"], found["state"]) == ("run", "finished")


# ------------------------------------------------------------------------------------------ words and options


@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        ("finetune lab.yaml", "lab.yaml: one word too many", "clipbert finetune --recipe lab.yaml"),
        ("pretrain demo_pretrain", "demo_pretrain: one word too many", "clipbert pretrain --recipe demo_pretrain"),
        ("finetune runs/x more", "runs/x more: 2 words too many", "clipbert finetune --recipe runs/x"),
        ("runs export a b c", "c: one word too many", "clipbert runs export a b"),
        ("store ls a b", "b: one word too many", "clipbert store ls a"),
        ("ask what?", "--run is missing", "clipbert ask 'what?' --run DIR"),
        ("eval preds.jsonl", "--split is missing", "name them: clipbert eval preds.jsonl --recipe NAME --split SPLIT"),
        ("pack", "SRC is missing", "for example: clipbert pack videos/ vis_db/msrvtt"),
        ("fintune", "no such command 'fintune'", "here it is called finetune: clipbert finetune --help"),
        ("recipes list", "no such command 'list'", "here it is called ls: clipbert recipes ls --help"),
        ("demo --size huge", "--size is 'huge', but must be one of smallest, small, full", "clipbert demo --size full"),
        ("runs --bogus", "no such option: --bogus", "clipbert runs --help"),
        ("demo --seed x", "--seed is x, but must be a whole number from 0 to", "clipbert demo --help"),
        ("search . a --run hf:a/b --top 0", "--top is 0, but must be", "clipbert search --help"),
        ("ask --run", "--run has no value", "give DIR after --run"),
        ("finetune --frames 3", "no such option: --frames", "clipbert finetune --help"),
        ("finetune -r demo_qa --debug", "no such option: --debug", "clipbert --debug finetune -r demo_qa"),
        ("runs ls --version", "no such option: --version", "clipbert --version runs ls"),
        ("--bogus", "no such option: --bogus", "clipbert --help"),
    ],
)
def test_wrong_words_are_answered_with_what_to_type(
    clipbert: Clipbert, tmp_path: Path, command: str, message: str, hint: str
) -> None:
    (tmp_path / "preds.jsonl").write_text('{"media_id": "a", "text_digest": "b"}\n')
    done = clipbert(*command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    said, following = done.stderr.strip().split("\n")
    assert said.startswith(f"error: {message}")
    assert following.startswith("next: ")
    assert hint in following


def test_whatever_is_typed_is_right_or_answered_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("run/recipe.yaml", "a.mp4", "p.jsonl", "x.zip"):
        (tmp_path / name).touch()
    words = ["--", "-", "", "=", "-x", "--bogus=3", "-1", "help", "run", "a.mp4", "p.jsonl", "x.zip", "demo_qa", "test"]
    words += [
        "https://a.b/c",
        "hf:a/b",
        "train.epochs=2",
        "--lr",
        "--model",
        "what",
        "is?",
        "-ofile",
        "list",
        "predict",
    ]
    words += [
        "resume",
        "\n",
        "\udce9",
        "a b",
        "*.mp4",
        "~/x",
        *dict.fromkeys(each.opts[0] for _, each in declared_options()),
    ]
    paths = [path.split() for path in dict.fromkeys(path for path, _ in declared_options())]
    root, draw = get_command(app), random.Random(5)
    unadvised: list[list[str]] = []
    for _ in range(3000):
        line = [*draw.choice(paths), *draw.choices(words, k=draw.randint(0, 6))]
        if draw.random() < 0.2:
            draw.shuffle(line)
        try:
            refuse_wrong_usage(root, line)
        except ClipbertError as error:
            unadvised += [] if error.hint else [line]
    assert unadvised == []


def test_top_decides_the_length_of_the_table(clipbert: Clipbert, retrieval_run: Path, made_data: Path) -> None:
    for top in (1, 2, 7):
        done = clipbert("search", made_data / "vis_db", "a red circle", "--run", retrieval_run, "--top", top)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == top


@pytest.mark.parametrize(
    ("speed", "shown"), [(None, ""), (0.0, ""), (0.02, "50.0 s/step"), (0.9, "1.1 s/step"), (4.0, "4.0 step/s")]
)
def test_slow_steps_are_shown_in_seconds_per_step(speed: float | None, shown: str) -> None:
    task = Task(0, "", total=9, completed=0, _get_time=lambda: 0.0)  # type: ignore[arg-type]
    task.finished_speed = speed
    assert RateColumn("step").render(task).plain == shown


# ------------------------------------------------------------------------------------------ outputs and data


@pytest.mark.parametrize(
    "command",
    [
        "infer --run {run} --split test -o {folder}/preds.jsonl",
        "recipes copy demo_qa {folder}/mine.yaml",
        "store show {data}/vis_db test0000 -o {folder}/picture.png",
    ],
)
@pytest.mark.parametrize("folder", ["no", "no/more", "my folder", "file"])
def test_a_file_in_a_folder_that_is_not_there_says_how_to_make_it(
    clipbert: Clipbert, trained_run: Path, made_data: Path, place: Path, command: str, folder: str
) -> None:
    words = [word.format(run=trained_run, data=made_data, folder=folder) for word in command.split()]
    done = clipbert(*words, cwd=place)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot be written: {folder} is no folder" in text(done)
    assert f"mkdir -p {shlex.quote(folder)}" in text(done)
    assert (place / folder).is_file() == (folder == "file")
    assert not (place / folder).is_dir()


@pytest.mark.parametrize(
    ("recipe", "field", "found"),
    [
        ("demo_qa", "question", "question, answer, video_id, answer_type"),
        ("demo_qa", "media_id", "question, answer, video_id, answer_type"),
        ("demo_retrieval", "caption", "caption, clip_name"),
        ("demo_mc", "options", "question, options, answer, gif_name"),
    ],
)
def test_a_wrong_name_of_a_field_is_one_message(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, recipe: str, field: str, found: str
) -> None:
    words = ["finetune", "-r", recipe, "--data-root", made_data, "--dry-run", "--set", f"data.fields.{field}=column"]
    done = clipbert(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "column is missing; the record has " in text(done)
    assert set(found.split(", ")) <= set(text(done).partition("the record has ")[2].replace(",", "").split())
    assert f"--set data.fields.{field}=NAME" in text(done)
    assert len(done.stderr.splitlines()) == 2


def test_a_field_that_some_records_lack_is_named_for_each(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    lines = (made_data / "txt_db/train.jsonl").read_text().splitlines()
    lines[3] = lines[3].replace('"question"', '"asked"')
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    setting = f"data.splits.train.annotations={tmp_path / 'train.jsonl'}"
    done = clipbert("finetune", "-r", "demo_qa", "--data-root", made_data, "--dry-run", "--set", setting, cwd=tmp_path)
    assert done.returncode == 1
    assert "train.jsonl:4: question is missing" in text(done)


def test_a_warning_about_several_splits_is_printed_once(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    settings = [f"data.splits.{split}.media=videos" for split in ("train", "val", "test")]
    words = ["finetune", "-r", "demo_qa", "--data-root", made_data, "--dry-run", *as_options(settings)]
    done = clipbert(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is a folder of files") == 1


@pytest.mark.parametrize("media_id", ["a" * 512, "é" * 300, "🎬" * 4000])
@pytest.mark.parametrize("media", ["vis_db", "videos"])
@pytest.mark.parametrize("command", ["finetune -r demo_qa --dry-run", "infer --run {run} --split train"])
def test_a_media_id_that_no_store_can_hold_is_missing(
    clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path, command: str, media: str, media_id: str
) -> None:
    records = [json.loads(line) for line in (made_data / "txt_db/train.jsonl").read_text().splitlines()]
    records[0]["video_id"] = media_id
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, records)))
    settings = [f"data.splits.train.annotations={tmp_path / 'train.jsonl'}", f"data.splits.train.media={media}"]
    words = [*command.format(run=trained_run).split(), "--data-root", made_data, *as_options(settings)]
    done = clipbert(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{made_data / media} lacks 1 video that split 'train' needs" in text(done)
    assert media_id[:100] in text(done)
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------ the demo


def test_the_demo_of_each_task_has_a_folder_of_its_own(
    clipbert: Clipbert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_TASKS", dict.fromkeys(demo._TASKS, lambda run: demo._Shown({}, (f"in {run.folder}",))))
    monkeypatch.setitem(demo.SIZES, "smallest", demo.DemoSize(train=2, val=1, test=1, epochs=1))
    for task in ("qa", "retrieval", "mc", "vqa", "pretrain"):
        done = clipbert("demo", "--task", task, "--size", "smallest", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("in demo")
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"demo", "demo_retrieval", "demo_mc", "demo_vqa", "demo_pretrain"}
    again = clipbert("demo", "--task", "mc", "--size", "smallest", cwd=tmp_path)
    assert again.returncode == 1
    assert "demo_mc is not empty: it has an earlier demo" in text(again)
    assert "give --force to make the demo again" in text(again)


def test_the_demo_does_not_offer_to_replace_what_is_no_demo(clipbert: Clipbert, place: Path) -> None:
    for name in ("videos", "notes", "run"):
        done = clipbert("demo", name, cwd=place)
        assert done.returncode == 1
        assert f"{name} is not empty: it has files that no demo made" in text(done)
        assert "--force" not in text(done)


# ------------------------------------------------------------------------------------------ documentation


def test_the_pages_install_from_the_checkout() -> None:
    root = Path(__file__).parents[2]
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        # The package is on no index. With extras, pip adds to the package that is installed.
        assert not re.search(r"pip install( -\S+)*( constraints.txt)? clipbert\b(?!\[)", page.read_text()), page
