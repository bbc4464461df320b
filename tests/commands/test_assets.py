"""`clipbert assets ls`, `check` and `convert`, and the recipes that the catalogue serves."""

import json
import re

import pytest
from download_world import World
from http_site import Site
from running import KINDS, SIGLIP, eventually
from typer.main import get_command

from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.assets.convert.registry import CONVERTERS
from clipbert_cli.commands.app import app
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.shipped import shipped_names


@pytest.fixture
def world(tmp_path):
    server = Site()
    yield World(server, tmp_path)
    server.close()


def test_ls_lists_all_parts_and_says_which_are_complete(world):
    world.run("download", "lab/weights")
    lines = world.run("assets", "ls", "lab", "didemo").stdout.splitlines()
    assert lines[0] == "didemo: DiDeMo - paragraphs about 10,464 Flickr videos"
    assert "lab: the lab's own" in lines
    assert "  terms: internal" in lines
    rows = {line.split()[0]: line.split()[-1] for line in lines if line.startswith("  lab/")}
    assert rows == {"lab/weights": "complete", "lab/images": "absent", "lab/closed": "absent"}
    listed = {part["part"]: part for part in world.json("assets", "ls")}
    assert set(listed) == {*load_catalog().parts(), "lab/weights", "lab/images", "lab/closed"}
    assert listed["lab/weights"]["is_complete"]
    assert listed["didemo/videos"]["files"][0]["sources"]
    by_hand = "    Fill in the form at http://lab/form.\n    Then unpack what they send.\n"
    assert world.run("assets", "ls", "lab/closed").stdout.endswith(by_hand)
    assert by_hand not in world.run("assets", "ls", "lab").stdout


def test_check_reports_which_sources_answer(world):
    body = world.pages["lab/a.zip"].body
    world.document["files"]["lab/a.zip"]["bytes"] = len(body)
    world.document["files"]["lab/a.zip"]["sources"].insert(0, world.site.url + "/gone")
    checked = {entry["file"]: entry for entry in world.json("assets", "check", "lab", to=False)}
    assert [source["answer"] for source in checked["lab/a.zip"]["sources"]] == ["404 Not Found", "206, can resume"]
    assert checked["lab/a.zip"]["sources"][1]["bytes"] == len(body)
    assert checked["lab/a.zip"]["ok"]
    # One byte per file; the command does not wait for it.
    eventually(lambda: sum(sent for page in world.pages.values() for _, _, sent, _ in page.requests) == 3)


def test_check_exits_1_where_a_file_has_no_source_that_agrees(world):
    world.document["files"]["lab/w.pth"]["bytes"] = 5
    world.pages["lab/a.zip"].content_type = "text/html"
    done = world.run("assets", "check", "lab", code=1, to=False)
    assert "lab/w.pth: NO SOURCE" in done.stdout
    assert "206, can resume; 300,000 bytes where the catalogue has 5 (unverified)" in done.stdout
    assert "lab/b.zip: ok" in done.stdout
    assert "answered with a web page, not the file" in done.stdout


def raw_folder(world, folder):
    folder.mkdir()
    for name, page in world.pages.items():
        if name.startswith("msrvtt/"):
            (folder / name.split("/")[1]).write_bytes(page.body)
    return folder


def test_convert_works_without_a_download(world, tmp_path):
    raw, out = raw_folder(world, tmp_path / "raw"), tmp_path / "out"
    done = world.run("assets", "convert", "msrvtt_qa", raw, out, to=False)
    assert f"{out}/train.jsonl  2 records, 2 media" in done.stdout.splitlines()
    assert f"{out}/train_ans2label.json  2 answers" in done.stdout.splitlines()
    assert "train.jsonl: 2 records where 149,075 were expected (unverified)" in done.stderr
    record = json.loads((out / "val.jsonl").read_text())
    assert record == {"question": "what is it?", "answer": "couch", "video_id": "video6513", "answer_type": "what"}
    result = world.json("assets", "convert", "msrvtt_qa", raw, tmp_path / "other", to=False)
    assert result["files"]["val.jsonl"] == {"records": 1, "media": 1}


def test_convert_replaces_nothing_unasked(world, tmp_path):
    raw, out = raw_folder(world, tmp_path / "raw"), tmp_path / "out"
    out.mkdir()
    (out / "val.jsonl").write_text("mine")
    done = world.run("assets", "convert", "msrvtt_qa", raw, out, to=False, code=1)
    assert f"{out}/val.jsonl exists already" in done.stderr
    assert [path.name for path in out.iterdir()] == ["val.jsonl"]
    assert (out / "val.jsonl").read_text() == "mine"
    world.run("assets", "convert", "msrvtt_qa", raw, out, "--overwrite", to=False)
    assert (out / "val.jsonl").read_text() != "mine"


@pytest.mark.parametrize(
    ("name", "folder", "code", "message"),
    [
        ("nothing", "raw", 2, "'nothing': no converter of this name"),
        ("msrvtt_qa", "none", 2, "which does not exist"),
        ("didemo_retrieval", "raw", 1, "no file train_data.json"),
    ],
)
def test_convert_reports_wrong_usage_and_missing_files(world, tmp_path, name, folder, code, message):
    raw_folder(world, tmp_path / "raw")
    done = world.run("assets", "convert", name, tmp_path / folder, tmp_path / "out", to=False, code=code)
    assert message in done.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


RECIPES = [name for name in shipped_names() if name not in KINDS]


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_has_an_entry_that_brings_all_its_files(name, tmp_path):
    catalog = load_catalog()
    needs = catalog.needs_of(name)
    assert needs is not None, f"catalog.yaml: recipes has no entry for {name}"
    if not needs:
        assert name.startswith("demo_")
        return
    recipe = load_recipe(name, data_root=tmp_path)
    weights = recipe.model.weights
    paths = {recipe.model.tokenizer, recipe.data.answers, weights.checkpoint, weights.bert, recipe.model.visual.weights}
    paths |= {path for split in recipe.data.splits.values() for path in (split.annotations, split.media)}
    products = {product for part in catalog.select([name]).values() for product in part.products()}
    folders = {product.rsplit("/", 1)[0] for product in products}
    # What is on the Hugging Face Hub is downloaded by its name when training starts.
    assert {path for path in paths if path and not path.startswith("hf:")} <= products | folders


def test_the_help_names_every_converter():
    named = next(
        option for option in get_command(app).commands["assets"].commands["convert"].params if option.name == "name"
    )
    assert all(re.search(rf"\b{name}\b", named.help) for name in CONVERTERS)


def test_every_entry_of_a_recipe_will_be_a_recipe():
    """The recipes of the published runs; what is not shipped yet is named here, so that a typo is seen."""
    published = {"pretrain_coco_vg", "msrvtt_retrieval", "didemo_retrieval", "anet_retrieval", "msrvtt_mc", "msrvtt_qa"}
    published |= {"tgif_action", "tgif_transition", "tgif_frameqa", "vqa"}
    further = {"msvd_retrieval", "msvd_qa", "next_qa"}
    assert set(load_catalog().recipes) - {"demo_*"} == published | further | {*SIGLIP}
