"""A command that is refused leaves every file, link and folder that was there as it was."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from made_media import image, marked_frame, video
from running import Clipbert, contents
from store_content import original_store

from clipbert_cli.files import lock
from clipbert_cli.store import records
from clipbert_cli.store.ingest import Transcode
from clipbert_cli.store.packing import pack_media


def refuse(clipbert: Clipbert, where: Path, command: str, message: str) -> None:
    """Run a command in the folder `where`; check that it fails with the message and that nothing there changes."""
    before = contents(where)
    done = clipbert(*command.split(), cwd=where)
    assert done.returncode in (1, 2), done.stderr
    assert message in " ".join(done.stderr.split())
    assert contents(where) == before


# ------------------------------------------------------------------------------------------ stores


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of videos and images, and their stores `store` and `pictures`. Not to be changed."""
    world = tmp_path_factory.mktemp("packed")
    for name in ("videos", "more", "images", "empty"):
        (world / name).mkdir()
    (world / "videos/a.mp4").write_bytes(video(6))
    (world / "more/b.mp4").write_bytes(video(4))
    (world / "more/c.mp4").write_bytes(video(4))
    (world / "images/p.png").write_bytes(image(marked_frame(1)))
    pack_media([world / "videos"], world / "store")
    pack_media([world / "images"], world / "pictures")
    return world


@pytest.fixture
def stores(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "world")


def change(store: Path, key: bytes, value: bytes) -> None:
    with lmdb.open(str(store), map_size=2**28, lock=False) as environment, environment.begin(write=True) as txn:
        txn.put(key, value)


def stop(world: Path, source: str, store: str, **settings: object) -> None:
    """Stop a pack after its first file, as Ctrl-C does in a large store."""

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipbert_cli.store.environment._COMMIT_KEYS", 1)
        with pytest.raises(KeyboardInterrupt):
            pack_media([world / source], world / store, on_progress=interrupt, **settings)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pack videos store", "store exists"),
        ("pack videos images new", "but a store holds one kind"),
        ("pack nowhere new", "does not exist"),
        ("pack empty new", "an empty folder"),
        ("pack videos new --kind image", "there are no images"),
        ("pack videos videos/a.mp4/new", "is not a folder"),
        ("pack images new --transcode 448:16:23", "for videos"),
        ("pack videos new --transcode 448", "SIDE:GOP:CRF"),
        ("pack images new --on-duplicate longest", "for videos"),
        ("pack --add videos new", "a store is expected"),
        ("pack --add videos store", "has 'a' already"),
        ("pack --add images store", "of kind 'video'"),
        ("pack --add images store --kind image", "of kind 'video'"),
        ("pack --add images/p.png store --kind image", "of kind 'video'"),
        ("pack --add more pictures", "of kind 'image'"),
        ("pack --add more pictures --on-duplicate first", "of kind 'image'"),
        ("pack --add empty store", "an empty folder"),
        ("pack --add images store --transcode 448:16:23", "for videos"),
        ("store scan store", "has media records"),
        ("store scan videos", "a store is expected"),
        ("store scan nowhere", "does not exist"),
        ("store scan videos/a.mp4", "is videos/a.mp4, a media file: a store is expected"),
        ("store show store a -o videos/a.mp4", "the picture is written as .png or .jpg"),
        ("store show store nothing -o new.png", "no video 'nothing'"),
        ("store show store a -o images/p.png", "exists already"),
        ("store show store a -o images", "images is a folder"),
        ("store show store a -o no/new.png", "cannot be written"),
        ("store show store a -o new.png --sampling start --num-clips 3", "num_clips is 3"),
        ("store verify nowhere", "does not exist"),
        ("store verify videos", "a store is expected"),
    ],
)
def test_refused_packs_and_store_commands_change_nothing(
    clipbert: Clipbert, packed: Path, command: str, message: str
) -> None:
    workers = " --workers 0" if command.startswith(("pack", "store scan", "store verify")) else ""
    refuse(clipbert, packed, command + workers, message)


def cut_off(store: Path) -> None:
    os.truncate(store / "data.mdb", 20_000)


def overwrite(store: Path, data: bytes) -> None:
    (store / "data.mdb").write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda store: overwrite(store, b""), "cannot be read"),
        (lambda store: overwrite(store, b"no LMDB" * 5000), "cannot be read"),
        (cut_off, "cut off"),
        (lambda store: change(store, records.MANIFEST_KEY, b"{"), "its manifest cannot be read"),
        (lambda store: change(store, records.MANIFEST_KEY, b'{"format": 1}'), "its manifest cannot be read"),
        (
            lambda store: change(store, records.MANIFEST_KEY, b'{"format": 99, "complete": true, "kind": "video"}'),
            "store format 99",
        ),
    ],
    ids=["empty", "no LMDB", "cut off", "broken manifest", "half a manifest", "later format"],
)
@pytest.mark.parametrize("command", ["pack --add more store", "pack --add images store", "store scan store"])
def test_a_store_that_cannot_be_read_is_not_written(
    clipbert: Clipbert, stores: Path, command: str, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(stores / "store")
    refuse(clipbert, stores, f"{command} --workers 0", message)


def test_a_store_without_media_records_is_not_added_to(clipbert: Clipbert, stores: Path) -> None:
    original_store(stores / "theirs", {"x": video(3)})
    refuse(clipbert, stores, "pack --add more theirs --workers 0", "no media records")
    original_store(stores / "single", {"x": video(3)})
    (stores / "single/data.mdb").rename(stores / "file.mdb")
    refuse(clipbert, stores, "pack --add more file.mdb --workers 0", "not a store to add to")
    refuse(clipbert, stores, "store scan file.mdb --workers 0", "a single file")


def test_a_stopped_pack_keeps_its_work_when_it_is_called_in_another_way(clipbert: Clipbert, stores: Path) -> None:
    stop(stores, "more", "new")
    for words in ("--transcode 448:16:23", "--on-duplicate first"):
        refuse(clipbert, stores, f"pack more new --workers 0 {words}", "other settings")
    refuse(clipbert, stores, "pack images new --workers 0", "other settings")
    refuse(clipbert, stores, "store verify .new.unfinished --workers 0", "not complete")
    refuse(clipbert, stores, "store scan .new.unfinished --workers 0", "not complete")
    with lock(stores / ".new.unfinished/pack.lock"):
        refuse(clipbert, stores, "pack more new --workers 0", "another pack")
    gc.collect()  # the errors above hold the store open, and LMDB opens a file once per process
    assert pack_media([stores / "more"], stores / "new").packed == 2


def test_a_stopped_addition_keeps_its_work_when_it_is_called_in_another_way(clipbert: Clipbert, stores: Path) -> None:
    stop(stores, "more", "store", add=True)
    refuse(clipbert, stores, "pack --add images store --workers 0", "other settings")
    refuse(clipbert, stores, "pack --add more store --workers 0 --transcode 64:4:30", "other settings")
    gc.collect()
    assert pack_media([stores / "more"], stores / "store", add=True).packed == 2


def test_files_that_cannot_be_packed_leave_no_new_store(clipbert: Clipbert, stores: Path) -> None:
    (stores / "empty/broken.mp4").touch()
    refuse(clipbert, stores, "pack empty new --workers 0", "none of 1 files")
    refuse(clipbert, stores, "pack --add empty store --workers 0", "none of 1 files")


def test_what_is_in_the_way_of_a_store_is_kept(clipbert: Clipbert, stores: Path) -> None:
    (stores / "link").symlink_to("nowhere")
    (stores / "file").write_text("mine")
    for name in ("link", "file", "empty"):
        refuse(clipbert, stores, f"pack videos {name} --workers 0", "exists")
    pack_media([stores / "videos"], stores / "smaller", transcode=Transcode(64, 4, 30))
    refuse(clipbert, stores, "pack --add videos smaller --workers 0", "has 'a' already")


# ------------------------------------------------------------------------------------------ runs, recipes, data


@pytest.fixture(scope="module")
def runs(trained_run: Path, made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished run, a file and a folder of the user's. Not to be changed."""
    world = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained_run, world / "run", symlinks=True)
    shutil.copytree(made_data / "txt_db", world / "raw")
    (world / "mine").mkdir()
    (world / "mine/notes.txt").write_text("notes")
    (world / "mine/notes.jsonl").write_text("notes")
    (world / "wrong.yaml").write_text("extends: demo_qa\ntrain: {batch_size: 0}\n")
    return world


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("finetune --recipe demo_qa --run run --data-root {data}", "exists already"),
        ("finetune --recipe demo_qa --run mine --data-root {data}", "exists already"),
        ("finetune --recipe wrong.yaml --run new", "train.batch_size"),
        ("finetune --recipe demo_qa --run new --data-root {data} --set train.epochs=none", "train.epochs"),
        ("finetune --recipe demo_qa --run new --data-root nowhere", "nowhere"),
        (
            "finetune --recipe demo_qa --run run --resume --data-root {data} --set train.learning_rate=0.5",
            "with other settings",
        ),
        ("finetune --run mine --resume", "a run is expected"),
        ("finetune --recipe demo_qa --run run --requeue --data-root {data}", "--requeue"),
        ("infer --run run --split test -o mine/notes.jsonl --data-root {data}", "exists already"),
        ("infer --run run --split test -o mine --data-root {data}", "is a folder"),
        ("infer --run run --split none -o new.jsonl --data-root {data}", "none"),
        ("infer --run mine --split test -o new.jsonl", "a run is expected"),
        ("infer --run run --split test -o mine --format scores --data-root {data}", "scores"),
        ("eval mine/notes.txt --recipe demo_qa --split test --data-root {data}", "notes.txt"),
        ("runs export run mine", "mine"),
        ("runs export run run", "run"),
        ("runs export mine new", "a run is expected"),
        ("runs export run new --checkpoint step_9", "step_9"),
        ("runs export run new --weights ema", "--weights plain"),
        ("recipes copy demo_qa wrong.yaml", "exists already"),
        ("recipes copy demo_qa mine", "is a folder"),
        ("recipes copy none new.yaml", "none"),
        ("assets convert msrvtt_qa raw run", "is there 5 times"),
        ("assets convert msrvtt_qa raw new", "is there 5 times"),
        ("assets convert none raw new", "none"),
        ("demo mine --size smallest", "not empty"),
        ("demo mine --size smallest --force", "not empty"),
        ("download none --to mine", "none"),
        ("download msrvtt_qa --to mine/notes.txt", "mine/notes.txt"),
        ("download msrvtt_qa --to mine --source nowhere", "nowhere"),
        ("download msrvtt_qa --to mine --mirror ftp://host/", "--mirror"),
        ("download msrvtt_qa --to mine --catalog wrong.yaml", "wrong.yaml"),
        ("download coco --to mine --only weights", "no part of this kind"),
        ("ask --run run --image mine/notes.txt what", "notes.txt"),
        ("ask --run run --video mine what", "a media file is expected"),
        ("ask --run run --video {data}/videos/test0000.mp4 what --option a --option b", "--option"),
        ("ask --run run --video {data}/videos/test0000.mp4 what --checkpoint step_9", "step_9"),
        ("ask --run run --video {data}/videos/test0000.mp4 what --set train.epochs=2", "no effect"),
        ("ask --run mine --video {data}/videos/test0000.mp4 what", "a run is expected"),
        ("search mine what --run run", "a run of task retrieval is expected"),
        ("search mine what --run mine", "a run is expected"),
        ("search nowhere what --run run", "nowhere, which does not exist"),
        ("search https://host/videos what --run run", "an address"),
        ("search mine what --run run --set infer.top=0", "infer.top"),
    ],
)
def test_refused_commands_on_runs_and_data_change_nothing(
    clipbert: Clipbert, runs: Path, made_data: Path, command: str, message: str
) -> None:
    data = contents(made_data)
    refuse(clipbert, runs, command.format(data=made_data), message)
    assert contents(made_data) == data


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("search nowhere what --run {run}", "nowhere, which does not exist"),
        ("search mine what --run {run}", "mine"),
        ("search mine/notes.txt what --run {run}", "notes.txt"),
        ("search {data}/vis_db what --run {run} --set data.media=image", "of kind"),
        ("search {data}/vis_db what --run {run} --checkpoint step_9", "step_9"),
    ],
)
def test_refused_searches_of_a_retrieval_run_change_nothing(
    clipbert: Clipbert, runs: Path, retrieval_run: Path, made_data: Path, command: str, message: str
) -> None:
    before = contents(made_data), contents(retrieval_run)
    refuse(clipbert, runs, command.format(run=retrieval_run, data=made_data), message)
    assert (contents(made_data), contents(retrieval_run)) == before


@pytest.mark.parametrize("overwrite", ["", " --overwrite"])
@pytest.mark.parametrize("held", ["scores", "deep/er/scores", "done"])
def test_scores_that_another_process_writes_are_not_touched(
    clipbert: Clipbert, retrieval_run: Path, made_data: Path, tmp_path: Path, held: str, overwrite: str
) -> None:
    command = f"infer --run {retrieval_run} --split test -o {held} --format scores --data-root {made_data}"
    if held == "done":
        assert clipbert(*command.split(), cwd=tmp_path).returncode == 0
        command += " --overwrite"
    (tmp_path / held / "unfinished").mkdir(parents=True)
    other = "import sys, time\nfrom pathlib import Path\nfrom clipbert_cli.files import lock\n"
    other += "with lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    words = [sys.executable, "-c", other, str(tmp_path / held / "unfinished/.lock")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            refuse(clipbert, tmp_path, command.replace(" --overwrite", "") + overwrite, _held_message(held, overwrite))
        finally:
            process.kill()
    done = clipbert(*command.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / held).iterdir()} == {"scores.npy", "ids.json"}


def _held_message(held: str, overwrite: str) -> str:
    # Complete scores are refused before anything else unless they may be replaced.
    return "exists already" if held == "done" and not overwrite else "writes these scores next: wait until it ends"


def test_a_run_in_use_is_not_touched(clipbert: Clipbert, runs: Path, made_data: Path) -> None:
    with lock(runs / "run/.lock"):
        refuse(clipbert, runs, "finetune --run run --resume", "in use")


def test_scores_of_another_run_are_not_replaced(
    clipbert: Clipbert, retrieval_run: Path, made_data: Path, tmp_path: Path
) -> None:
    command = f"infer --run {retrieval_run} --split test -o scores --format scores --data-root {made_data}"
    assert clipbert(*command.split(), cwd=tmp_path).returncode == 0
    refuse(clipbert, tmp_path, command, "exists already")
    shutil.copytree(tmp_path / "scores", tmp_path / "begun")
    (tmp_path / "begun/scores.npy").unlink()
    (tmp_path / "begun/unfinished").mkdir()
    (tmp_path / "begun/unfinished/state.json").write_text('{"digest": "another"}')
    refuse(clipbert, tmp_path, command.replace("-o scores", "-o begun"), "other")
