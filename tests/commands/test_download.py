"""`clipbert download WHAT` from its command line to its files, against a real server."""

import errno
import hashlib
import os
import re
import shlex
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from download_world import EVERYTHING, IMAGES, WEIGHTS, World, picture, zipped
from http_site import Site
from running import can_be_without_network
from typer.testing import CliRunner

from clipbert_cli.commands.app import app
from clipbert_cli.store.packing import pack_media


@pytest.fixture
def world(tmp_path):
    server = Site()
    yield World(server, tmp_path)
    server.close()


def test_a_recipe_downloads_all_that_it_needs(world):
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


def test_complete_parts_are_not_requested_again(world):
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
    assert world.tree() == IMAGES


def test_a_part_that_fails_stops_no_other_and_is_completed_later(world):
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


@pytest.mark.parametrize("count", [2, 3])
def test_files_that_fail_for_one_reason_are_counted(world, count):
    for name in ("qa_train", "qa_val", "qa_test")[:count]:
        world.pages[f"msrvtt/{name}.json"].statuses = [403] * 9
    done = world.run("msrvtt/qa", code=1)
    assert done.stderr.count("no source gave the file") == 1
    others = "1 more file" if count == 2 else "2 more files"
    assert f"and {others} for the same reason" in done.stderr
    world.pages["msrvtt/qa_val.json"].statuses = [410] * 9
    assert world.run("msrvtt/qa", code=1).stderr.count("no source gave the file") == 2


@pytest.mark.parametrize(
    ("wanted", "failing"),
    [
        ("lab/weights", ["lab/w.pth"]),
        ("lab_qa", ["lab/w.pth"]),
        ("lab_qa", ["msrvtt/qa_test.json", "lab/w.pth", "lab/b.zip"]),
    ],
)
def test_what_to_do_without_a_source_is_said_once(world, wanted, failing):
    for name in failing:
        world.pages[name].statuses = [403] * 9
    said = " ".join(world.run(wanted, code=1).stderr.split())
    assert said.count("run the command again, which continues the download: clipbert download") == 1
    assert said.count("--mirror URL asks another server first, and --source FOLDER takes files") == 1
    assert said.count("training may start at random") == 1


def test_an_optional_file_may_be_absent(world):
    world.pages["msrvtt/train_ans2label.json"].statuses = [404]
    result = world.json("msrvtt/qa")
    assert result["parts"][0]["state"] == "complete"
    assert "msrvtt/train_ans2label.json could not be downloaded" in result["parts"][0]["warnings"][0]


def test_a_damaged_file_of_records_is_partial_and_named(world):
    world.pages["msrvtt/qa_val.json"].body = b'[{"video": "video6513.mp4"}]'
    done = world.run("msrvtt/qa", code=1)
    assert "msrvtt/qa is not complete" in done.stderr
    assert "qa_val.json, record 0: no field question" in done.stderr
    assert done.stdout.startswith("partial ")
    assert done.stderr.count("--mirror URL asks another server first") == 1
    assert "training may start at random" not in done.stderr
    assert not (world.data / "txt_db/msrvtt_qa").exists() or not any((world.data / "txt_db/msrvtt_qa").iterdir())
    assert "downloads/.raw" not in str(world.tree())


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (zipped({"../../escape.jpg": picture(1)}), "do not trust this archive: remove it"),
        (zipped({"/etc/escape.jpg": picture(1)}), "do not trust this archive: remove it"),
        (zipped({"C:\\escape.jpg": picture(1)}), "do not trust this archive: remove it"),
        (zipped({"notes.txt": b"x"}), "it is another archive than expected: remove it and download again"),
        (zipped({"one.jpg": picture(1)})[:-30], "remove it and download again"),
        (b"PK" + bytes(500), "remove it and download again"),
    ],
)
def test_an_archive_that_cannot_be_used_is_answered_with_one_hint(world, content, hint):
    world.pages["lab/a.zip"].body = content
    done = world.run("lab/images", code=1)
    assert hint in " ".join(done.stderr.split())
    assert done.stderr.count("next: ") == 1
    assert "continues" not in done.stderr


def test_a_hostile_archive_is_refused_and_leaves_nothing(world):
    world.pages["lab/b.zip"].body = zipped({"../../escape.jpg": b"bad"})
    done = world.run("lab/images", code=1)
    assert "refused: member '../../escape.jpg' reaches outside" in done.stderr
    assert not any(path.name == "escape.jpg" for path in world.data.parent.rglob("*"))
    assert not (world.data / "media/lab/b").exists()


def test_the_result_names_source_and_checksum_of_each_downloaded_file(world):
    (part,) = world.json("lab/weights")["parts"]
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    url = world.pages["lab/w.pth"].url
    (file,) = part["files"]
    assert file == {"name": "lab/w.pth", "source": url, "bytes": len(WEIGHTS), "sha256": sha256, "warnings": []}
    assert world.json("lab/weights")["parts"][0]["files"] == []


def test_data_to_fetch_by_hand_comes_with_instructions(world):
    done = world.run("lab", code=1)
    page = done.stderr[done.stderr.index("To fetch by hand") :]
    assert page.splitlines() == [
        "To fetch by hand: 1 of 3 parts",
        "",
        "== lab/closed: photographs on request",
        "   Fill in the form at http://lab/form.",
        "   Then unpack what they send.",
        f"   Then run: clipbert pack UNPACKED_FOLDER {world.data}/vis_db/closed",
        f"next: clipbert pack {world.data}/media/lab {world.data}/vis_db/lab",
    ]
    result = world.json("lab", code=1)
    assert (result["complete"], result["partial"], result["manual"]) == (2, 0, 1)
    assert result["parts"][2]["manual"].startswith("Fill in the form")


def test_media_that_were_fetched_by_hand_are_packed(world, tmp_path):
    folder = tmp_path / "by hand"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(picture(9))
    done = world.run("lab/closed", "--source", folder, code=2)
    assert f"unpacked media: clipbert pack {folder} {world.data}/vis_db/closed" in " ".join(done.stderr.split())
    pack_media([folder], world.data / "vis_db/closed")
    assert world.states("lab/closed") == {"lab/closed": "complete"}


def test_an_archive_can_be_provided_in_a_folder_or_alone(world, tmp_path):
    for page in world.pages.values():
        page.statuses = [403] * 9
    (tmp_path / "got/lab").mkdir(parents=True)
    (tmp_path / "got/lab/a.zip").write_bytes(world.pages["lab/a.zip"].body)
    (tmp_path / "got/b.zip").write_bytes(world.pages["lab/b.zip"].body)
    assert world.states("lab/images", "--source", tmp_path / "got") == {"lab/images": "complete"}
    assert world.tree() == IMAGES
    assert (tmp_path / "got/b.zip").exists()
    (tmp_path / "w.pth").write_bytes(WEIGHTS)
    assert world.states("lab/weights", "--source", tmp_path / "w.pth") == {"lab/weights": "complete"}
    assert (world.data / "pretrained/w.pth").read_bytes() == WEIGHTS
    assert world.requests() == 0


def test_a_wrong_file_that_is_provided_is_refused(world, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"<html>")
    done = world.run("lab/weights", "--source", tmp_path / "w.pth", code=1)
    assert "w.pth: not the file lab/w.pth: it is a web page" in done.stderr
    world.document["files"]["lab/w.pth"]["md5"] = "0" * 32
    (tmp_path / "w.pth").write_bytes(WEIGHTS)
    done = world.run("lab/weights", "--source", tmp_path / "w.pth", code=1)
    assert "its md5 is" in done.stderr
    assert not (world.data / "pretrained/w.pth").exists()


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
    assert "not packed: two files have the media id 'two'" in done.stderr
    assert (world.data / "media/lab/b/two.jpg").exists()
    assert not (world.data / "vis_db/lab").exists()


def test_a_dry_run_lists_everything_and_changes_nothing(world):
    world.document["files"]["lab/a.zip"]["about_bytes"] = 2_000_000
    done = world.run("lab", "--dry-run", "--mirror", "http://mirror/x")
    lines = done.stdout.splitlines()
    assert "lab/images: download and unpack" in lines
    assert "  lab/a.zip, about 2.0 MB" in lines
    assert "    http://mirror/x/lab/a.zip" in lines
    assert f"    {world.pages['lab/a.zip'].url}" in lines
    assert f"  -> {world.data}/media/lab" in lines
    assert "lab/closed: must be fetched by hand (run without --dry-run for instructions)" in lines
    assert lines[-2] == "to download: 2.0 MB and 2 file(s) of unknown size"
    assert re.fullmatch(r"disk needed: 4.0 MB; free: .* \(enough for the files of known size\)", lines[-1])
    assert not world.data.exists()
    assert world.requests() == 0


def test_a_dry_run_in_json(world):
    world.document["files"]["lab/w.pth"]["bytes"] = 10**18
    plan = world.json("lab/weights", "--dry-run")
    assert plan["parts"][0]["files"][0]["sources"] == [world.pages["lab/w.pth"].url]
    assert plan["parts"][0]["files"][0]["target"] == str(world.data / "pretrained/w.pth")
    assert (plan["download_bytes"], plan["suffices"]) == (10**18, False)


def test_downloads_larger_than_the_disk_are_refused_before_they_start(world):
    world.document["files"]["lab/w.pth"]["bytes"] = 10**18
    done = world.run("lab/weights", code=1)
    assert "1,000,000,000,000,000,000 bytes are to be downloaded" in done.stderr
    assert world.requests() == 0


def test_a_mirror_is_asked_first(world):
    mirrored = world.site.add("/mirror/lab/w.pth", WEIGHTS)
    world.run("lab/weights", "--mirror", f"{world.site.url}/mirror")
    assert len(mirrored.requests) == 1
    assert world.requests() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing' is not an asset, a part or a recipe"),
        (["lab", "--mirror", "lab.example"], "--mirror is 'lab.example'"),
        (["lab", "--source", "/none/such"], "--source /none/such: no such file or folder"),
        (["lab/weights", "--source", "/etc/hostname"], "none of the files that are needed is there: w.pth"),
        (["lab/weights", "--only", "media"], "--only media: lab/weights has no part of this kind"),
        (["lab", "--workers", "0"], "workers"),
        (["--dry-run"], "ASSET"),
    ],
)
def test_wrong_usage_exits_2(world, arguments, message):
    done = world.run(*arguments, code=2)
    assert message in done.stderr
    assert done.stdout == ""


def test_a_data_folder_that_cannot_be_made_is_reported(world, tmp_path):
    (tmp_path / "data").write_text("a file")
    done = world.run("lab/weights", code=2)
    assert "a file: a folder is expected" in done.stderr


@pytest.mark.parametrize("options", [["--pack"], ["--keep-archives", "--workers", "2"], ["--mirror", "http://[::1]:9"]])
def test_the_commands_that_are_named_keep_the_options_that_were_given(world, options):
    for page in world.pages.values():
        page.statuses = [403] * 9
    lines = world.run("lab", *options, code=1).stderr.splitlines()
    (again,) = (line for line in lines if "continues the download: clipbert download" in line)
    by_hand = [line for line in lines if "Then run: clipbert download lab/" in line]
    assert by_hand
    for line in (again, *by_hand):
        assert shlex.join(options) in line
        assert f"--catalog {world.catalog}" in line


@pytest.mark.parametrize("task", ["qa", "retrieval", "mc"])
def test_the_data_of_a_demo_are_said_to_be_made_by_it(world, task):
    done = world.run(f"demo_{task}")
    assert done.stdout == ""
    assert f"demo_{task} needs no download, its data are made by: clipbert demo --task {task}" in done.stderr


@pytest.mark.skipif(not can_be_without_network(), reason="this user may not make a network namespace")
@pytest.mark.parametrize(
    "words", ["msrvtt_qa --to data", "bert-base-uncased --to data", "msvd --to data --pack --keep-archives"]
)
def test_without_a_network_one_short_answer_is_given_and_no_folder_is_left(tmp_path, words):
    command = ["unshare", "-rn", sys.executable, "-m", "clipbert_cli", "download", *words.split()]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    said, following = done.stderr.splitlines()
    assert said.startswith("error: no network, or a proxy is needed: no host was reached (")
    assert f"run again: clipbert download {words};" in following
    assert not any((tmp_path / "data").iterdir())


def refused(*_, **__):
    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def nameless(number):
    def resolve(*_, **__):
        raise socket.gaierror(number, "no name")

    return resolve


UNREACHED = {
    "no name": ("getaddrinfo", nameless(socket.EAI_NONAME), "needed"),
    "no name service": ("getaddrinfo", nameless(socket.EAI_AGAIN), "needed"),
    "refused": ("create_connection", refused, "needed"),
    "proxy": ("create_connection", refused, "down"),
}


@pytest.mark.parametrize(
    ("asset", "hosts", "by_hand"),
    [
        ("msrvtt_qa", "huggingface.co, dl.fbaipublicfiles.com, ...", "msrvtt/videos msrvtt/qa"),
        ("bert-base-uncased grid-feat-r50", "huggingface.co, dl.fbaipublicfiles.com", ""),
        ("bert-base-uncased", "huggingface.co", ""),
        ("msrvtt/videos", "www.robots.ox.ac.uk", "msrvtt/videos"),
    ],
)
@pytest.mark.parametrize("kind", UNREACHED)
def test_hosts_none_of_which_can_be_reached_are_one_short_answer(monkeypatch, tmp_path, asset, hosts, by_hand, kind):
    name, instead, proxy = UNREACHED[kind]
    monkeypatch.setattr(socket, name, instead)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    if kind == "proxy":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    done = CliRunner().invoke(app, ["download", *asset.split(), "--to", str(tmp_path / "d")])
    assert (done.exit_code, done.stdout) == (1, "")
    said, following = done.stderr.replace(str(tmp_path), "").splitlines()
    assert said == f"error: no network, or a proxy is {proxy}: no host was reached ({hosts})"
    assert f"run again: clipbert download {asset} --to /d" in following
    assert "HTTPS_PROXY" in following
    assert ("curl -I https://" in following) == (kind != "proxy")
    assert by_hand in following
    assert by_hand or following.endswith("--source FOLDER")
    assert sum(len(textwrap.wrap(line, 80)) for line in (said, following)) <= 5
    assert not any((tmp_path / "d").iterdir())


def test_a_host_that_cannot_be_reached_is_reported_with_its_part_where_others_answer(world):
    world.document["files"]["lab/w.pth"]["sources"] = ["http://no-such-host.invalid/w.pth"]
    world.document["files"]["lab/a.zip"]["sources"] = ["http://no-such-host.invalid/a.zip"]
    done = world.run("lab_qa", code=1)
    assert "no network" not in done.stderr
    assert "error: lab/weights is not complete" in done.stderr
    assert "== lab/images: i" in done.stderr
    assert "complete  msrvtt/qa" in done.stdout
    assert "partial   lab/weights" in done.stdout
    assert "manual    lab/images" in done.stdout
