"""`clipbert recipes`."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from clipbert_cli.commands.app import app
from clipbert_cli.recipe.load import list_recipes, load_recipe
from clipbert_cli.recipe.shipped import shipped_folder


@pytest.fixture
def clipbert(monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    return lambda *arguments: CliRunner().invoke(app, ["recipes", *map(str, arguments)])


def test_ls_is_a_table_of_names_tasks_and_summaries(clipbert):
    result = clipbert("ls")
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["NAME", "TASK", "SUMMARY"]
    assert [row.split()[0] for row in rows] == [recipe.name for recipe in list_recipes()]
    row = next(row for row in rows if row.startswith("msrvtt_qa "))
    assert row.split()[1] == "open_ended_qa"
    assert "MSRVTT-QA" in row


def test_ls_as_json_is_one_document(clipbert):
    (first, *_) = (entry for entry in json.loads(clipbert("ls", "--json").stdout) if entry["name"] == "msrvtt_qa")
    assert first["task"] == "open_ended_qa"
    assert first["summary"].startswith("MSRVTT-QA")


def test_show_prints_the_whole_recipe(clipbert, tmp_path):
    result = clipbert("show", "msrvtt_qa", "--set", "train.batch_size=8", "--data-root", tmp_path)
    assert result.exit_code == 0
    assert result.stderr == ""
    (tmp_path / "shown.yaml").write_text(result.stdout)
    assert load_recipe(tmp_path / "shown.yaml") == load_recipe(
        "msrvtt_qa", overrides=["train.batch_size=8"], data_root=tmp_path
    )


def test_show_fills_variables(clipbert):
    assert yaml.safe_load(clipbert("show", "msrvtt_qa").stdout)["data"]["root"] == "/data"


def test_show_leaves_unset_variables_and_says_so(clipbert, monkeypatch):
    monkeypatch.delenv("DATA")
    result = clipbert("show", "msrvtt_qa")
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["data"]["root"] == "${DATA}"


def test_copy_keeps_comments_and_loads_as_the_original(clipbert, tmp_path):
    file = tmp_path / "mine.yaml"
    result = clipbert("copy", "msrvtt_qa", file)
    assert result.exit_code == 0
    assert file.read_bytes() == (shipped_folder() / "msrvtt_qa.yaml").read_bytes()
    assert load_recipe(file) == load_recipe("msrvtt_qa")
    assert os.listdir(tmp_path) == ["mine.yaml"]


def test_copy_overwrites_only_when_asked(clipbert, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    assert clipbert("copy", "msrvtt_qa", file).exit_code == 1
    assert clipbert("copy", "msrvtt_qa", tmp_path).exit_code == 1
    assert file.read_text() == "precious"
    assert clipbert("copy", "msrvtt_qa", file, "--overwrite").exit_code == 0
    assert load_recipe(file) == load_recipe("msrvtt_qa")


def test_copy_to_standard_output_prints_the_file(clipbert):
    result = clipbert("copy", "msrvtt_qa", "-")
    assert result.stdout == (shipped_folder() / "msrvtt_qa.yaml").read_text(encoding="utf-8")
    assert result.stderr == ""


def test_copy_into_a_missing_folder_fails(clipbert, tmp_path):
    assert clipbert("copy", "msrvtt_qa", tmp_path / "no" / "mine.yaml").exit_code == 1
    assert os.listdir(tmp_path) == []


def test_copy_that_cannot_be_written_leaves_nothing(tmp_path):
    command = f"ulimit -f 0; {sys.executable} -m clipbert_cli recipes copy msrvtt_qa {tmp_path}/mine.yaml"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert os.listdir(tmp_path) == []


def test_copy_of_an_unknown_recipe_leaves_nothing(clipbert, tmp_path):
    assert clipbert("copy", "msrvtt_q", tmp_path / "mine.yaml").exit_code == 2
    assert os.listdir(tmp_path) == []


def make_files(folder):
    names = ("pretrained/bert-base-uncased", "pretrained/clipbert_image_text_pretrained.pt", "vis_db/msrvtt")
    texts = ("train.jsonl", "val.jsonl", "test.jsonl", "train_ans2label.json")
    for path in [folder / name for name in (*names, *(f"txt_db/msrvtt_qa/{name}" for name in texts))]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"cat": 0, "dog": 1}' if path.suffix == ".json" else "")


def test_validate_says_one_line_for_a_good_recipe(clipbert, tmp_path):
    make_files(tmp_path)
    result = clipbert("validate", "msrvtt_qa", "--data-root", tmp_path, "--set", "objective.num_labels=2")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == (
        "msrvtt_qa: valid (name msrvtt_qa, task open_ended_qa); its annotations and media were not read: "
        "finetune --dry-run does\n"
    )


def test_validate_takes_a_missing_variable_for_no_mistake(clipbert, monkeypatch):
    monkeypatch.delenv("DATA")
    assert clipbert("validate", "msrvtt_qa").exit_code == 0


@pytest.mark.parametrize(
    "gone",
    [
        {"pretrained/bert-base-uncased": "model.tokenizer"},
        {"vis_db/msrvtt": "data.splits.train.media, data.splits.val.media, data.splits.test.media"},
        {
            "txt_db/msrvtt_qa/train_ans2label.json": "data.answers",
            "txt_db/msrvtt_qa/val.jsonl": "data.splits.val.annotations",
            "pretrained/clipbert_image_text_pretrained.pt": "model.weights.checkpoint",
        },
    ],
)
def test_validate_lists_all_files_that_are_not_there(clipbert, tmp_path, gone):
    make_files(tmp_path)
    for name in gone:
        (tmp_path / name).unlink()
    result = clipbert("validate", "msrvtt_qa", "--data-root", tmp_path, "--set", "objective.num_labels=2")
    assert result.exit_code == 0
    assert f", but {len(gone)} of the files that it names are missing; " in result.stdout
    first, *lines = result.stderr.splitlines()
    assert first == f"warning: of the 7 files and folders that the recipe names, {len(gone)} are not there:"
    assert len(lines) == len(gone)
    for name, keys in gone.items():
        assert any(line.startswith(f"  {tmp_path / name} ({keys}") for line in lines)


def test_validate_looks_for_no_file_whose_place_is_not_known_or_that_is_on_the_hub(clipbert, monkeypatch):
    monkeypatch.delenv("DATA")
    named = ("model.tokenizer=hf:a/b", "model.weights.checkpoint=null", "model.weights.bert=hf:a/b")
    result = clipbert("validate", "msrvtt_qa", *[word for each in named for word in ("--set", each)])
    assert result.exit_code == 0
    assert "not there" not in result.stderr


# ---------------------------------------------------------------------------------------------- the list of answers


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "one.csv").write_text("video_id,question,answer\na,q,red\nb,q,Red\nc,q,blue\nd,q,\ne,q,Red\n")
    (tmp_path / "two.csv").write_text("video_id,question,answer\na,q,blue\nb,q,green\n")
    files = ", ".join(f"{name}: {{annotations: {name}.csv, media: x}}" for name in ("one", "two"))
    (tmp_path / "none.csv").write_text("video_id,question,answer\na,q,\n")
    (tmp_path / "empty.yaml").write_text(
        "extends: own.yaml\ndata: {splits: {none: {annotations: none.csv, media: x}}, train_splits: [none]}\n"
    )
    (tmp_path / "own.yaml").write_text(
        f"extends: video_qa\nname: own\ndata: {{root: ., splits: {{{files}}}, train_splits: [one, two]}}\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("options", "answers"),
    [
        ([], ["Red", "blue", "red", "green"]),
        (["--top", 2], ["Red", "blue"]),
        (["--set", "objective.normalize_answers=true"], ["red", "blue", "green"]),
        (["--set", "data.train_splits=[two]"], ["blue", "green"]),
    ],
)
def test_answers_are_listed_by_how_often_training_has_them(clipbert, tables, options, answers):
    result = clipbert("answers", tables / "own.yaml", "-o", tables / "answers.json", *options)
    assert result.exit_code == 0, result.stderr
    assert json.loads((tables / "answers.json").read_text()) == answers
    assert json.loads(clipbert("answers", tables / "own.yaml", *options).stdout) == answers
    assert clipbert("answers", tables / "own.yaml", "-o", tables / "answers.json").exit_code == 1


def test_the_share_of_the_chosen_answers_is_said(clipbert, tables):
    result = clipbert("answers", tables / "own.yaml", "--top", 2)
    assert "2 different answers of 7 training records" in result.stderr
    assert "2 rarer answers (33.3 % of those given) left out: " in result.stderr
    assert "data.on_unknown_answer: skip" in result.stderr
    everything = clipbert("answers", tables / "own.yaml", "-o", tables / "answers.json").stderr
    assert f"wrote {tables / 'answers.json'}: 4 different answers of 7 training records" in everything
    assert "data.on_unknown_answer" not in everything


@pytest.mark.parametrize(
    ("others", "example"),
    [
        (["Red"], "'red' and 'Red'"),
        (["red "], "'red' and 'red '"),
        (["\u00a0red."], "'red' and '\\xa0red.'"),
        (["dark  blue", "dark blue"], "'dark  blue' and 'dark blue'"),
        (["Cafe\u0301", "café"], "'Café' and 'café'"),
        (["Straße", "STRASSE"], "'Straße' and 'STRASSE'"),
    ],
)
def test_answers_that_are_written_in_several_ways_are_named(clipbert, tables, others, example):
    records = [{"video_id": "a", "question": "q", "answer": answer} for answer in ("red", "blue", *others)]
    (tables / "one.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    words = ["--set", "data.splits.one.annotations=one.jsonl", "--set", "data.train_splits=[one]"]
    said = clipbert("answers", tables / "own.yaml", *words).stderr
    assert f"2 answers differ in case, blanks or marks at the end alone, such as {example}: " in said
    same = clipbert("answers", tables / "own.yaml", *words, "--set", "objective.normalize_answers=true")
    assert len(json.loads(same.stdout)) == len(records) - 1
    assert "differ in case" not in same.stderr


def test_answers_of_several_people_count_once_a_question(clipbert, tables):
    (tables / "votes.jsonl").write_text(
        '{"image_id": "a", "question": "q", "answers": ["cat", "cat", "dog"]}\n'
        '{"image_id": "b", "question": "q", "labels": {"dog": 1.0, "cow": 0.0}}\n'
    )
    options = ["task=image_qa", "data.splits.one.annotations=votes.jsonl", "data.train_splits=[one]"]
    words = [word for option in options for word in ("--set", option)]
    assert json.loads(clipbert("answers", tables / "own.yaml", *words).stdout) == ["dog", "cat"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["own.yaml", "--set", "task=retrieval"], 2, "task retrieval has no list of answers"),
        (["own.yaml", "--set", "task=multiple_choice"], 2, "task multiple_choice has no list of answers"),
        (["own.yaml", "--set", "data.splits.two.annotations=three.csv"], 1, "three.csv: no such annotation file"),
        (
            ["own.yaml", "--set", "data.fields={answer: answr}"],
            1,
            "answr is missing; the record has video_id, question, answer",
        ),
        (["empty.yaml"], 1, "no training record has an answer: the fields for it are empty"),
        (["own.yaml", "--top", "0"], 2, "--top"),
    ],
)
def test_answers_that_cannot_be_listed(tables, arguments, code, says):
    result = run("answers", tables / arguments[0], *arguments[1:])
    assert (result.returncode, result.stdout) == (code, "")
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clipbert_cli", "recipes", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_validate_tells_all_mistakes_at_once_and_exits_2(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: msrvtt_qa\nname: mine\ntrain: {bacth_size: 8, epochs: 0}\n")
    result = run("validate", file, "--set", "infer.top=0", DATA="/data")
    assert result.returncode == 2
    assert result.stdout == ""
    assert f"{file}:3: train.bacth_size: unknown key; did you mean train.batch_size?\n" in result.stderr
    assert f"{file}:3: train.epochs is 0: it must be a whole number from 1 to 1,000,000,000\n" in result.stderr
    assert "--set: infer.top is 0: it must be a whole number from 1 to 1,000,000\n" in result.stderr
    assert "Traceback" not in result.stderr


def test_validate_knows_the_tasks(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: msrvtt_qa\nname: mine\ntask: retreival\n")
    result = run("validate", file, DATA="/data")
    assert result.returncode == 2
    assert "task is 'retreival': it must be one of open_ended_qa" in result.stderr
    assert "did you mean retrieval?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "msrvtt_q"], 2),
        (["show", "nowhere.yaml"], 2),
        (["show", "_published"], 2),
        (["show", "/"], 2),
        (["copy", "msrvtt_qa", "/nowhere/mine.yaml"], 1),
        (["copy", "msrvtt_qa", "/proc/mine.yaml"], 1),
        (["show"], 2),
        (["nothing"], 2),
    ],
)
def test_what_goes_wrong_is_one_message_and_its_exit_code(arguments, code):
    result = run(*arguments, DATA="/data")
    assert result.returncode == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr


def test_a_recipe_can_come_through_a_pipe():
    files = "{annotations: a.csv, media: a}"
    text = f"name: a\\ntask: retrieval\\ndata: {{splits: {{train: {files}, val: null}}}}\\n"
    command = f"{sys.executable} -m clipbert_cli recipes validate <(printf '{text}') --data-root ."
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "a.csv (data.splits.train.annotations, /dev/fd/" in result.stderr
    assert "valid (name a, task retrieval)" in result.stdout


def test_every_help_has_an_example(clipbert):
    for command in ("ls", "show", "explain", "copy", "answers", "validate"):
        result = clipbert(command, "--help")
        assert result.exit_code == 0
        assert f"clipbert recipes {command}" in result.stdout.replace("\n", " ")


# explain and --comments


def test_explain_prints_the_entry_of_one_setting(clipbert):
    result = clipbert("explain", "data.num_clips")
    assert result.exit_code == 0
    assert result.stdout.split("\n") == [
        "data.num_clips",
        "  Number of clips that training takes from each video.",
        "",
        "  value                           a whole number from 1 to 65,536",
        "  default                         8",
        "  may change on --resume          no",
        "  may be overridden at inference  no",
        "",
    ]


def test_explain_prints_every_setting_of_a_section(clipbert):
    entries = clipbert("explain", "train").stdout.split("\n\n")
    keys = [entry.partition("\n")[0] for entry in entries if entry.startswith("train.")]
    assert keys[:2] == ["train.batch_size", "train.gradient_accumulation_steps"]
    assert "train.freeze" in keys


def test_explain_without_a_key_lists_the_sections(clipbert):
    output = clipbert("explain").stdout
    assert [line.split()[0] for line in output.splitlines() if line[:1].isalpha()][:4] == [
        *("name,", "data", "data.splits.NAME", "model"),
    ]


@pytest.mark.parametrize(
    "arguments", [(), ("train",), ("data.sampling",), ("objective.as_original",), ("data.fields",)]
)
def test_explain_wraps_at_80_columns(clipbert, arguments):
    assert max(map(len, clipbert("explain", *arguments).stdout.splitlines())) <= 80


def test_explain_as_json_is_one_document(clipbert):
    (entry,) = json.loads(clipbert("explain", "data.workers", "--json").stdout)
    assert entry["key"] == "data.workers"
    assert (entry["default"], entry["may change on --resume"]) == ("4", "yes")
    assert len(json.loads(clipbert("explain", "--json").stdout)) > 80


def test_explain_of_an_unknown_key_names_the_nearest():
    result = run("explain", "train.batchsize")
    assert (result.returncode, result.stdout) == (2, "")
    assert "no setting or section is called 'train.batchsize'; did you mean train.batch_size?" in result.stderr


def test_show_with_comments_prints_meanings_and_loads_the_same(clipbert, tmp_path):
    result = clipbert("show", "msrvtt_qa", "--comments")
    assert result.exit_code == 0
    assert "  # Number of clips that training takes from each video.\n  num_clips: 8\n" in result.stdout
    (tmp_path / "a.yaml").write_text(result.stdout)
    assert load_recipe(tmp_path / "a.yaml") == load_recipe("msrvtt_qa")


def test_explain_and_show_do_not_import_torch():
    for arguments in (["explain", "train"], ["show", "demo_qa", "--comments"]):
        code = (
            "import sys\nfrom clipbert_cli.commands.app import app\n"
            f"app(['recipes', *{arguments}], standalone_mode=False)\nassert 'torch' not in sys.modules\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
