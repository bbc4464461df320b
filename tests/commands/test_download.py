"""`clipbert download` from its command line to its files, against a real server."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import yaml
from http_site import Site
from PIL import Image
from typer.testing import CliRunner

from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.commands.app import app
from clipbert_cli.recipe.load import list_recipes, load_recipe

WEIGHTS = os.urandom(300_000)


@pytest.fixture
def site():
    server = Site()
    yield server
    server.close()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def picture(seed):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (seed, 100, 50)).save(buffer, "JPEG")
    return buffer.getvalue()


def qa(*items):
    return json.dumps(
        [{"video": f"video{v}.mp4", "question": q, "answer": a, "question_id": n} for n, (v, q, a) in enumerate(items)]
    ).encode()


class World:
    """A server, a catalogue that points at it, a data folder, and the command."""

    def __init__(self, site, folder):
        self.site, self.data, self.catalog = site, folder / "data", folder / "mine.yaml"
        self.pages = {
            "lab/w.pth": site.add("/w.pth", WEIGHTS),
            "lab/a.zip": site.add("/a.zip", zipped({"deep/one.jpg": picture(1), "two.jpg": picture(2), "n.txt": b"x"})),
            "lab/b.zip": site.add("/b.zip", zipped({"three.jpg": picture(3)})),
            "msrvtt/qa_train.json": site.add("/t.json", qa((0, "what is it?", "cat"), (1, "who is it?", "man"))),
            "msrvtt/qa_val.json": site.add("/v.json", qa((6513, "what is it?", "couch"))),
            "msrvtt/qa_test.json": site.add("/s.json", qa((7010, "what is it?", "dog"))),
            "msrvtt/train_ans2label.json": site.add("/ans.json", b'{"cat": 0, "man": 1}'),
        }
        images = {"kind": "media", "media_kind": "image"}
        self.document = {
            "files": {name: {"sources": [{"url": page.url}]} for name, page in self.pages.items()},
            "assets": {
                "lab": {
                    "title": "the lab's own",
                    "licence": "internal",
                    "parts": {
                        "weights": {
                            "kind": "weights",
                            "title": "w",
                            "files": ["lab/w.pth"],
                            "folder": "pretrained",
                            "place": {"lab/w.pth": "w.pth"},
                        },
                        "images": {
                            **images,
                            "title": "i",
                            "files": ["lab/a.zip", "lab/b.zip"],
                            "folder": "media/lab",
                            "store": "vis_db/lab",
                            "manual": "Ask the lab.",
                        },
                        "closed": {
                            **images,
                            "title": "photographs on request",
                            "folder": "media/closed",
                            "store": "vis_db/closed",
                            "manual": "Fill in the form at http://lab/form.\nThen unpack what they send.",
                        },
                    },
                }
            },
            "recipes": {"lab_qa": ["lab/weights", "lab/images", "msrvtt/qa"]},
        }
        for name in ("lab/a.zip", "lab/b.zip"):
            self.document["files"][name]["unpack"] = "zip"
        self.document["files"]["lab/a.zip"]["members"] = ["*.jpg"]

    def command(self, *arguments):
        self.catalog.write_text(yaml.safe_dump(self.document, sort_keys=False))
        return [sys.executable, "-m", "clipbert_cli", "download", *map(str, arguments), "--catalog", str(self.catalog)]

    def start(self, *arguments, **options):
        command = self.command(*arguments, "--to", self.data)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def run(self, *arguments, code=0, to=True):
        command = self.command(*arguments, *(["--to", self.data] if to else []))
        done = CliRunner().invoke(app, command[3:])
        assert done.exit_code == code, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done

    def json(self, *arguments, code=0, to=True):
        return json.loads(self.run(*arguments, "--json", code=code, to=to).stdout)

    def states(self, *arguments, code=0):
        return {part["part"]: part["state"] for part in self.json(*arguments, code=code)["parts"]}

    def tree(self):
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*") if path.is_file())

    def requests(self):
        return sum(len(page.requests) for page in self.pages.values())


@pytest.fixture
def world(site, tmp_path):
    return World(site, tmp_path)


RECEIPTS = [f"downloads/received/lab/{name}.json" for name in ("a.zip", "b.zip", "w.pth")]
MSRVTT_RECEIPTS = [
    f"downloads/received/msrvtt/{name}.json"
    for name in ("qa_test.json", "qa_train.json", "qa_val.json", "train_ans2label.json")
]
IMAGES = ["media/lab/a/deep/one.jpg", "media/lab/a/two.jpg", "media/lab/b/three.jpg"]
TEXTS = [f"txt_db/msrvtt_qa/{name}" for name in ("test.jsonl", "train.jsonl", "train_ans2label.json", "val.jsonl")]
EVERYTHING = sorted([*RECEIPTS, *MSRVTT_RECEIPTS, *IMAGES, "pretrained/w.pth", *TEXTS])


def test_a_recipe_means_all_that_it_needs(world):
    result = world.json("lab_qa")
    assert [(part["part"], part["state"]) for part in result["parts"]] == [
        ("msrvtt/qa", "complete"),
        ("lab/weights", "complete"),
        ("lab/images", "complete"),
    ]
    assert (result["complete"], result["partial"], result["manual"]) == (3, 0, 0)
    assert world.tree() == EVERYTHING
    assert (world.data / "pretrained/w.pth").read_bytes() == WEIGHTS
    counts = result["parts"][0]["counts"]
    assert counts["train.jsonl"] == {"records": 2, "media": 2}
    assert "train.jsonl: 2 records where 149,075 were expected (unverified)" in result["parts"][0]["warnings"]


def test_what_is_complete_is_not_asked_for_again(world):
    world.run("lab_qa")
    before = world.requests()
    done = world.run("lab_qa")
    assert world.requests() == before
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["complete"] * 3


def test_results_are_on_stdout_and_the_rest_on_stderr_without_colour(world):
    done = world.run("lab_qa")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["complete", "msrvtt/qa", str(world.data / "txt_db/msrvtt_qa/train.jsonl")],
        ["complete", "lab/weights", str(world.data / "pretrained/w.pth")],
        ["complete", "lab/images", str(world.data / "media/lab")],
    ]
    assert "warning: train.jsonl: 2 records where 149,075 were expected" in done.stderr
    assert f"next: clipbert pack {world.data}/media/lab {world.data}/vis_db/lab" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_archives_are_kept_on_request(world):
    world.run("lab_qa", "--keep-archives")
    kept = ["downloads/lab/a.zip", "downloads/lab/b.zip", *(f"downloads/{n}" for n in world.pages if "msrvtt" in n)]
    assert world.tree() == sorted([*EVERYTHING, *kept])


def test_only_one_kind(world):
    assert world.states("lab_qa", "--only", "media") == {"lab/images": "complete"}
    assert world.tree() == sorted([*RECEIPTS[:2], *IMAGES])


def test_a_part_that_fails_stops_no_other_and_goes_on_later(world):
    world.pages["lab/b.zip"].statuses = [404] * 3
    world.pages["msrvtt/qa_val.json"].statuses = [404]
    result = world.json("lab_qa", code=1)
    assert {part["part"]: part["state"] for part in result["parts"]} == {
        "msrvtt/qa": "manual",
        "lab/weights": "complete",
        "lab/images": "manual",
    }
    assert "answered 404 Not Found" in result["parts"][2]["errors"][0]
    assert "downloads/lab/a.zip" in world.tree()
    world.pages["lab/b.zip"].statuses = []
    asked = len(world.pages["lab/a.zip"].requests)
    assert set(world.states("lab_qa").values()) == {"complete"}
    assert len(world.pages["lab/a.zip"].requests) == asked
    assert world.tree() == EVERYTHING


def test_an_optional_file_may_be_absent(world):
    world.pages["msrvtt/train_ans2label.json"].statuses = [404]
    result = world.json("msrvtt/qa")
    assert result["parts"][0]["state"] == "complete"
    assert "msrvtt/train_ans2label.json could not be had" in result["parts"][0]["warnings"][0]


def test_a_damaged_file_of_records_is_partial_and_named(world):
    world.pages["msrvtt/qa_val.json"].body = b'[{"video": "video6513.mp4"}]'
    done = world.run("msrvtt/qa", code=1)
    assert "msrvtt/qa is not complete" in done.stderr
    assert "qa_val.json, record 0: no field question" in done.stderr
    assert done.stdout.startswith("partial ")
    assert not (world.data / "txt_db/msrvtt_qa").exists() or not any((world.data / "txt_db/msrvtt_qa").iterdir())
    assert "downloads/.raw" not in str(world.tree())


def test_a_hostile_archive_is_refused_and_leaves_nothing(world):
    world.pages["lab/b.zip"].body = zipped({"../../escape.jpg": b"bad"})
    done = world.run("lab/images", code=1)
    assert "refused: member '../../escape.jpg' reaches outside" in done.stderr
    assert not any(path.name == "escape.jpg" for path in world.data.parent.rglob("*"))
    assert not (world.data / "media/lab/b").exists()


def test_a_file_that_changed_at_its_source_is_a_warning(world):
    world.run("lab/weights")
    (world.data / "pretrained/w.pth").unlink()
    world.pages["lab/w.pth"].body = b"other"
    warnings = world.json("lab/weights")["parts"][0]["warnings"]
    assert "lab/w.pth: its sha256 is" in warnings[0]
    assert "the file changed at its source" in warnings[0]


def test_what_no_program_may_fetch_ends_in_a_page(world):
    done = world.run("lab", code=1)
    page = done.stderr[done.stderr.index("To be got by hand") :]
    assert page.splitlines() == [
        "To be got by hand: 1 of 3 parts",
        "",
        "== lab/closed: photographs on request",
        "   Fill in the form at http://lab/form.",
        "   Then unpack what they send.",
        f"   Hand over: clipbert download lab/closed --to {world.data} --source FOLDER",
        f"next: clipbert pack {world.data}/media/lab {world.data}/vis_db/lab",
    ]
    result = world.json("lab", code=1)
    assert (result["complete"], result["partial"], result["manual"]) == (2, 0, 1)
    assert result["parts"][2]["manual"].startswith("Fill in the form")


def test_a_folder_of_media_is_handed_over(world, tmp_path):
    folder = tmp_path / "by hand"
    (folder / "x/.cache").mkdir(parents=True)
    (folder / "x/photo.jpg").write_bytes(picture(9))
    (folder / "x/.cache/hidden.jpg").write_bytes(b"hidden")
    assert world.states("lab/closed", "--source", folder) == {"lab/closed": "complete"}
    assert world.tree() == ["media/closed/handed-over/x/photo.jpg"]
    assert (folder / "x/photo.jpg").exists()
    assert world.states("lab/closed") == {"lab/closed": "complete"}


def test_an_archive_is_handed_over_in_a_folder_or_alone(world, tmp_path):
    for page in world.pages.values():
        page.statuses = [403] * 9
    (tmp_path / "got/lab").mkdir(parents=True)
    (tmp_path / "got/lab/a.zip").write_bytes(world.pages["lab/a.zip"].body)
    (tmp_path / "got/b.zip").write_bytes(world.pages["lab/b.zip"].body)
    assert world.states("lab/images", "--source", tmp_path / "got") == {"lab/images": "complete"}
    assert world.tree() == sorted([*RECEIPTS[:2], *IMAGES])
    assert (tmp_path / "got/b.zip").exists()
    (tmp_path / "w.pth").write_bytes(WEIGHTS)
    assert world.states("lab/weights", "--source", tmp_path / "w.pth") == {"lab/weights": "complete"}
    assert (world.data / "pretrained/w.pth").read_bytes() == WEIGHTS
    assert world.requests() == 0


def test_a_wrong_file_handed_over_is_refused(world, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"<html>")
    done = world.run("lab/weights", "--source", tmp_path / "w.pth", code=1)
    assert "w.pth: not the file lab/w.pth: it is a web page" in done.stderr
    world.document["files"]["lab/w.pth"]["md5"] = "0" * 32
    (tmp_path / "w.pth").write_bytes(WEIGHTS)
    done = world.run("lab/weights", "--source", tmp_path / "w.pth", code=1)
    assert "its md5 is" in done.stderr
    assert not (world.data / "pretrained/w.pth").exists()


def test_media_that_could_belong_to_several_parts_are_not_guessed(world, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/photo.jpg").write_bytes(picture(1))
    done = world.run("lab", "--source", tmp_path / "got", code=2)
    assert "these could be the media of lab/images or lab/closed" in done.stderr


def test_pack_makes_the_store(world):
    import lmdb

    result = world.json("lab_qa", "--pack")
    assert result["parts"][2]["packed"] == "packed 3, skipped 0"
    assert result["parts"][2]["products"] == [str(world.data / "vis_db/lab")]
    with lmdb.open(str(world.data / "vis_db/lab"), readonly=True, lock=False) as store, store.begin() as reading:
        assert {b"one", b"two", b"three"} <= {key for key, _ in reading.cursor()}
    assert world.json("lab_qa", "--pack")["parts"][2]["packed"] is None
    # The store stands for the media: the folder may go.
    for path in sorted((world.data / "media").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    before = world.requests()
    assert set(world.states("lab_qa").values()) == {"complete"}
    assert world.requests() == before


def test_media_that_do_not_pack_are_partial_and_stay(world):
    world.pages["lab/b.zip"].body = zipped({"two.jpg": picture(3)})
    done = world.run("lab/images", "--pack", code=1)
    assert "not packed: two files have one media id 'two'" in done.stderr
    assert (world.data / "media/lab/b/two.jpg").exists()
    assert not (world.data / "vis_db/lab").exists()


def test_a_dry_run_says_everything_and_does_nothing(world):
    world.document["files"]["lab/a.zip"]["about_bytes"] = 2_000_000
    done = world.run("lab", "--dry-run", "--mirror", "http://mirror/x")
    lines = done.stdout.splitlines()
    assert "lab/images: fetch and unpack" in lines
    assert "  lab/a.zip, about 2.0 MB" in lines
    assert "    http://mirror/x/lab/a.zip" in lines
    assert f"    {world.pages['lab/a.zip'].url}" in lines
    assert f"  -> {world.data}/media/lab" in lines
    assert "lab/closed: must be got by hand (run without --dry-run for the instructions)" in lines
    assert lines[-2] == "to download: 2.0 MB and 2 files of unknown size"
    assert re.fullmatch(r"disk needed at most: 4.0 MB; free: .*: suffices for what is known", lines[-1])
    assert not world.data.exists()
    assert world.requests() == 0


def test_a_dry_run_in_json(world):
    world.document["files"]["lab/w.pth"]["bytes"] = 10**18
    plan = world.json("lab/weights", "--dry-run")
    assert plan["parts"][0]["files"][0]["sources"] == [world.pages["lab/w.pth"].url]
    assert plan["parts"][0]["files"][0]["target"] == str(world.data / "pretrained/w.pth")
    assert (plan["download_bytes"], plan["suffices"]) == (10**18, False)


def test_what_cannot_fit_is_refused_before_it_starts(world):
    world.document["files"]["lab/w.pth"]["bytes"] = 10**18
    done = world.run("lab/weights", code=1)
    assert "1,000,000,000,000,000,000 bytes are to come" in done.stderr
    assert world.requests() == 0


def test_a_mirror_is_asked_first(world):
    mirrored = world.site.add("/mirror/lab/w.pth", WEIGHTS)
    world.run("lab/weights", "--mirror", f"{world.site.url}/mirror")
    assert len(mirrored.requests) == 1
    assert world.requests() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing': no asset, part or recipe of this name"),
        (["lab", "--mirror", "lab.example"], "--mirror is 'lab.example'"),
        (["lab", "--source", "/none/such"], "--source /none/such: no such file or folder"),
        (["lab/weights", "--source", "/etc/hostname"], "nothing here that is wanted: w.pth were expected"),
        (["lab/weights", "--only", "media"], "--only media: lab/weights has none"),
        (["lab", "--workers", "0"], "workers"),
        (["--dry-run"], "WHAT"),
    ],
)
def test_wrong_usage_exits_2(world, arguments, message):
    done = world.run(*arguments, code=2)
    assert message in done.stderr
    assert done.stdout == ""


def test_a_data_folder_that_cannot_be_made_is_said(world, tmp_path):
    (tmp_path / "data").write_text("a file")
    done = world.run("lab/weights", code=1)
    assert "data" in done.stderr
    assert "error:" in done.stderr


def part_size(world):
    part = world.data / "pretrained/w.pth.part"
    return part.stat().st_size if part.exists() else 0


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_exits_130_at_once_and_the_part_goes_on(world):
    page = world.pages["lab/w.pth"]
    page.body, page.pause = os.urandom(3_000_000), 0.1
    process = world.start("lab/weights")
    wait_for(lambda: part_size(world) > 300_000)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    here = part_size(world)
    assert here > 300_000
    page.pause = 0
    world.run("lab/weights")
    assert page.requests[-1][:2] == (206, here)
    assert (world.data / "pretrained/w.pth").read_bytes() == page.body


def test_ctrl_c_does_not_wait_for_a_silent_server(world):
    world.pages["lab/w.pth"].stall = 9
    process = world.start("lab/weights")
    wait_for(lambda: world.pages["lab/w.pth"].requests)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - started < 6


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.4])
def test_a_killed_download_is_finished_by_the_next(world, after):
    for page in world.pages.values():
        page.pause = 0.05
    process = world.start("lab_qa", "--workers", "2")
    wait_for(lambda: world.requests() > 0)
    time.sleep(after)
    process.kill()
    process.communicate()
    for page in world.pages.values():
        page.pause = 0
    assert set(world.states("lab_qa").values()) == {"complete"}
    # Killed between a part's completion and the removal of its archives, the archives stay; nothing else may.
    archives = {f"downloads/{name}" for name in world.pages}
    assert sorted(set(world.tree()) - archives) == EVERYTHING


def test_two_downloads_at_once_end_well(world):
    for page in world.pages.values():
        page.pause = 0.05
    processes = [world.start("lab_qa", "--json") for _ in range(2)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr
        assert json.loads(stdout)["complete"] == 3
    assert all(len(page.requests) == 1 for page in world.pages.values())
    assert world.tree() == EVERYTHING


def on_a_terminal(command, **environment):
    """What the command writes to stderr where that is a terminal of 80 columns."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=child, env={**os.environ, "COLUMNS": "80", **environment}
    )
    os.close(child)
    shown = b""
    while True:
        ready, _, _ = select.select([parent], [], [], 60)
        try:
            block = os.read(parent, 65536) if ready else b""
        except OSError:
            block = b""
        if not block:
            break
        shown += block
    os.close(parent)
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_sees_a_bar_a_file_with_rate_and_time_left(world):
    world.pages["lab/w.pth"].body = os.urandom(1_500_000)
    world.pages["lab/w.pth"].pause = 0.1
    shown = on_a_terminal(world.command("lab/weights", "--to", world.data), TERM="xterm-256color")
    assert "w.pth" in shown
    assert "/1.5 MB" in shown
    assert re.search(r"\d [kM]B/s", shown)
    assert re.search(r"0:00:0\d", shown)


def test_no_color_is_respected(world):
    world.document["files"]["lab/w.pth"]["bytes"] = 5  # a warning, which has a colour
    command = world.command("lab/weights", "--to", world.data)
    assert "\x1b[33m" in on_a_terminal(command, TERM="xterm-256color")
    (world.data / "pretrained/w.pth").unlink()
    assert not re.search(r"\x1b\[3\dm", on_a_terminal(command, TERM="xterm-256color", NO_COLOR="1"))


def test_ls_lists_what_there_is_and_what_is_here(world):
    world.run("lab/weights")
    lines = world.run("ls", "lab", "didemo").stdout.splitlines()
    assert lines[0] == "didemo: DiDeMo - paragraphs about 10,464 Flickr videos"
    assert "lab: the lab's own" in lines
    assert "  terms: internal" in lines
    rows = {line.split()[0]: line.split()[-1] for line in lines if line.startswith("  lab/")}
    assert rows == {"lab/weights": "complete", "lab/images": "absent", "lab/closed": "absent"}
    listed = {part["part"]: part for part in world.json("ls")}
    assert set(listed) == {*load_catalog().parts(), "lab/weights", "lab/images", "lab/closed"}
    assert listed["lab/weights"]["state"] == "complete"
    assert listed["didemo/videos"]["files"][0]["sources"]


def test_check_says_which_sources_answer(world):
    body = world.pages["lab/a.zip"].body
    world.document["files"]["lab/a.zip"]["bytes"] = len(body)
    world.document["files"]["lab/a.zip"]["sources"].insert(0, {"url": world.site.url + "/gone"})
    checked = {entry["file"]: entry for entry in world.json("check", "lab", to=False)}
    assert [source["says"] for source in checked["lab/a.zip"]["sources"]] == ["404 Not Found", "206, resumes"]
    assert checked["lab/a.zip"]["sources"][1]["bytes"] == len(body)
    assert checked["lab/a.zip"]["ok"]
    assert sum(sent for page in world.pages.values() for _, _, sent, _ in page.requests) == 3  # one byte a file


def test_check_exits_1_where_a_file_has_no_source_that_agrees(world):
    world.document["files"]["lab/w.pth"]["bytes"] = 5
    page = world.pages["lab/b.zip"]
    page.headers = {"x-goog-hash": "crc32c=AAAA,md5=1B2M2Y8AsgTpgAmY7PhCfg=="}
    world.document["files"]["lab/b.zip"]["md5"] = "d41d8cd98f00b204e9800998ecf8427e"
    world.pages["lab/a.zip"].content_type = "text/html"
    done = world.run("check", "lab", code=1, to=False)
    assert "lab/w.pth: NO SOURCE" in done.stdout
    assert "206, resumes; 300,000 bytes where the catalogue has 5 (unverified)" in done.stdout
    assert "lab/b.zip: ok" in done.stdout
    assert "md5:d41d8cd98f00b204e9800998ecf8427e" in done.stdout
    assert "206, but a web page" in done.stdout


def raw_folder(world, folder):
    folder.mkdir()
    for name, page in world.pages.items():
        if name.startswith("msrvtt/"):
            (folder / name.split("/")[1]).write_bytes(page.body)
    return folder


def test_convert_stands_alone(world, tmp_path):
    raw, out = raw_folder(world, tmp_path / "raw"), tmp_path / "out"
    done = world.run("convert", "msrvtt_qa", raw, out, to=False)
    assert f"{out}/train.jsonl  2 records, 2 media" in done.stdout.splitlines()
    assert f"{out}/train_ans2label.json  2 answers" in done.stdout.splitlines()
    assert "train.jsonl: 2 records where 149,075 were expected (unverified)" in done.stderr
    record = json.loads((out / "val.jsonl").read_text())
    assert record == {"question": "what is it?", "answer": "couch", "video_id": "video6513", "answer_type": "what"}
    result = world.json("convert", "msrvtt_qa", raw, tmp_path / "other", to=False)
    assert result["files"]["val.jsonl"] == {"records": 1, "media": 1}


def test_convert_replaces_nothing_unasked(world, tmp_path):
    raw, out = raw_folder(world, tmp_path / "raw"), tmp_path / "out"
    out.mkdir()
    (out / "val.jsonl").write_text("mine")
    done = world.run("convert", "msrvtt_qa", raw, out, to=False, code=1)
    assert f"{out}/val.jsonl exists already" in done.stderr
    assert [path.name for path in out.iterdir()] == ["val.jsonl"]
    assert (out / "val.jsonl").read_text() == "mine"
    world.run("convert", "msrvtt_qa", raw, out, "--overwrite", to=False)
    assert (out / "val.jsonl").read_text() != "mine"


@pytest.mark.parametrize(
    ("name", "folder", "options", "code", "message"),
    [
        ("nothing", "raw", [], 2, "'nothing': no converter of this name"),
        ("msrvtt_qa", "none", [], 2, "no such folder"),
        ("msrvtt_qa", "raw", ["--order", "time"], 2, "--order: msrvtt_qa joins no sentences"),
        ("didemo_retrieval", "raw", [], 1, "no file train_data.json"),
    ],
)
def test_convert_says_what_is_wrong(world, tmp_path, name, folder, options, code, message):
    raw_folder(world, tmp_path / "raw")
    done = world.run("convert", name, tmp_path / folder, tmp_path / "out", *options, to=False, code=code)
    assert message in done.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


RECIPES = [recipe.name for recipe in list_recipes()]


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
    paths = {recipe.model.tokenizer, recipe.data.answers, weights.checkpoint, weights.bert, weights.cnn}
    paths |= {path for split in recipe.data.splits.values() for path in (split.annotations, split.media)}
    products = {product for part in catalog.select([name]).values() for product in part.products()}
    folders = {product.rsplit("/", 1)[0] for product in products}
    assert {path for path in paths if path} <= products | folders


def test_every_entry_of_a_recipe_will_be_a_recipe():
    """The recipes of the published runs; what is not shipped yet is named here, so that a typo is seen."""
    published = {"pretrain_coco_vg", "msrvtt_retrieval", "didemo_retrieval", "anet_retrieval", "msrvtt_mc", "msrvtt_qa"}
    published |= {"tgif_action", "tgif_transition", "tgif_frameqa", "vqa"}
    assert set(load_catalog().recipes) - {"demo_*"} == published
