"""How annotations name media: settings that map the names, and what is said of names that are not there."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import lmdb
import pytest
from running import TINY, Clipbert, as_options

from clipbert_cli.errors import StoreError
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.store.lmdb_store import LmdbStore, open_media
from clipbert_cli.store.near_misses import fix, near_misses
from clipbert_cli.store.packing import pack_media
from clipbert_cli.store.records import MANIFEST_KEY
from clipbert_cli.store.source import MediaFolder
from clipbert_cli.store.verify import scan_store
from clipbert_cli.train.training import Training
from clipbert_cli.types import MediaNames, media_id_of

FILE = "set data.media_id: name"
PATH = "set data.media_id: path"
WRITING = "write the ids as the files are named"
MISSING = "put the missing files into x"
SKIP = "data.on_missing_media: skip"


@pytest.mark.parametrize(
    ("missing", "held", "next_step"),
    [
        ("cat1.mp4", "cat1", FILE),
        ("v1.5.MOV", "v1.5", FILE),
        ("pets/cat1.mp4", "cat1", FILE),
        ("C:\\videos\\cat1.avi", "cat1", FILE),
        ("/data/videos/cat1", "cat1", FILE),
        ("cat1.mp4#t=2,5", "cat1", FILE),
        ("cat1", "train/cat1", PATH),
        ("cat1.mp4", "train/cat1", PATH),
        ("7", "0007", WRITING),
        ("007", "7", WRITING),
        ("Cat1", "cat1", WRITING),
        (" cat1 ", "cat1", WRITING),
        ("my cat", "my_cat", WRITING),
        ("ﬁlm", "film", WRITING),
        ("img103", "IMG_0103", WRITING),
        ("clip-7b", "clip7b", WRITING),
    ],
)
def test_the_nearest_id_is_named_with_what_to_do(missing: str, held: str, next_step: str) -> None:
    source = MediaFolder(Path("x"), kind="video", files={held: b"", "other99": b"", "dog 1000": b""})
    (miss,) = near_misses(source, [missing])
    assert miss.nearest == held
    assert next_step in fix([miss], source)


@pytest.mark.parametrize("missing", ["cat3", "train0003", "3", "horse", "", "video1.mp4"])
def test_no_id_is_named_where_none_is_near_or_several_are(missing: str) -> None:
    held = ["cat1", "cat2", "train0001", "val0003", "test0003", "a/video1", "b/video1"]
    source = MediaFolder(Path("x"), kind="video", files=dict.fromkeys(held, b""))
    (miss,) = near_misses(source, [missing])
    assert miss.nearest is None
    assert str(miss) == missing
    assert MISSING in fix([miss], source)
    assert SKIP in fix([miss], source)


@pytest.mark.parametrize(
    ("missing", "next_step", "may_be_absent"),
    [
        (["cat1.mp4", "horse"], FILE, True),
        (["cat1.mp4", "dog 1000.mp4", "horse"], FILE, True),
        (["my_cat5", "cow", "horse"], WRITING, True),
        (["cat11"], MISSING, True),
        (["other98", "OTHER-99"], WRITING, True),
        (["cat1.mp4", "dog 1000.mp4"], FILE, False),
    ],
)
def test_media_that_may_not_exist_can_be_left_out(missing: list[str], next_step: str, may_be_absent: bool) -> None:
    source = MediaFolder(Path("x"), kind="video", files=dict.fromkeys(("cat1", "other99", "dog 1000", "my cat5"), b""))
    said = fix(near_misses(source, missing), source)
    assert next_step in said
    assert (SKIP in said) == may_be_absent


@pytest.mark.parametrize(
    ("name", "names", "media_id"),
    [
        ("cat1.mp4", "stem", "cat1.mp4"),
        ("cat1.mp4", "name", "cat1"),
        ("pets/cat.v2.MP4", "name", "cat.v2"),
        ("cat.v2", "name", "cat.v2"),
        ("./pets/cat1.mp4", "path", "pets/cat1"),
        ("pets\\cat1.jpg", "path", "pets/cat1"),
        ("pets//cat1", "path", "pets/cat1"),
        ("pets/cat1.mp4#t=2,5.5", "path", "pets/cat1#t=2,5.5"),
        ("cat1.mp4#t=2", "name", "cat1#t=2"),
    ],
)
def test_a_name_in_annotations_means_a_media_id(name: str, names: MediaNames, media_id: str) -> None:
    assert media_id_of(name, names) == media_id


# ------------------------------------------------------------------------------------------ paths as ids


@pytest.fixture
def folders(tmp_path: Path, clip: bytes) -> Path:
    """Two folders with files of the same names."""
    for name in ("train/a.mp4", "train/é.mp4", "val/a.mp4", "b.mp4"):
        file = tmp_path / "media" / unicodedata.normalize("NFD", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(clip)
    return tmp_path / "media"


IDS = ["b", "train/a", "train/é", "val/a"]


def test_a_store_of_paths_holds_files_of_one_name(folders: Path, tmp_path: Path, clipbert: Clipbert) -> None:
    refused = clipbert("pack", folders, tmp_path / "store", "--workers", 0)
    assert refused.returncode == 1
    assert "keep both with --id path" in " ".join(refused.stderr.split())
    assert clipbert("pack", folders, tmp_path / "store", "--workers", 0, "--id", "path").returncode == 0
    store = open_media(tmp_path / "store", kind="video", names="path")
    assert list(store) == IDS
    assert store.missing([*IDS, "train/é", "a", "train/b"]) == ["a", "train/b"]
    assert list(open_media(folders, kind="video", names="path")) == IDS
    shown = clipbert("store", "show", tmp_path / "store", "train/a", "-o", tmp_path / "a.png")
    assert shown.returncode == 0, shown.stderr


def test_records_that_are_made_again_keep_what_the_ids_are(folders: Path, tmp_path: Path) -> None:
    store = pack_media([folders], tmp_path / "store", ids="path").store
    with lmdb.open(str(store)) as environment, environment.begin(write=True) as txn:
        txn.put(MANIFEST_KEY, json.dumps({**json.loads(txn.get(MANIFEST_KEY)), "format": 1}).encode())
    scan_store(store)
    assert LmdbStore(store).has_records
    assert LmdbStore(store).ids == "path"


def test_paths_begin_at_the_source_in_which_a_file_was_found(folders: Path, tmp_path: Path) -> None:
    pack_media([folders / "train", folders / "b.mp4"], tmp_path / "store", ids="path")
    assert list(open_media(tmp_path / "store", kind="video")) == ["a", "b", "é"]


def test_a_store_keeps_to_one_kind_of_ids(folders: Path, tmp_path: Path) -> None:
    pack_media([folders / "train"], tmp_path / "store", ids="path")
    with pytest.raises(StoreError, match="was packed with --id path, but the files are added with --id stem"):
        pack_media([folders / "b.mp4"], tmp_path / "store", add=True)
    pack_media([folders / "b.mp4"], tmp_path / "store", add=True, ids="path")
    assert LmdbStore(tmp_path / "store").ids == "path"
    assert LmdbStore(pack_media([folders / "val"], tmp_path / "stems").store).ids == "stem"


def test_paths_of_a_store_of_names_lead_to_the_setting(folders: Path, tmp_path: Path) -> None:
    pack_media([folders / "train", folders / "b.mp4"], tmp_path / "store")
    store = open_media(tmp_path / "store", kind="video", names="path")
    missing = store.missing(["train/a", "train/c"])
    assert missing == ["train/a", "train/c"]
    assert FILE in fix(near_misses(store, missing), store)


# ------------------------------------------------------------------------------------------ in a run


def records(made_data: Path, split: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (made_data / "txt_db" / f"{split}.jsonl").read_text().splitlines()]


def named(made_data: Path, folder: Path, pattern: str) -> list[str]:
    """Settings of a run whose annotations name media differently."""
    settings = [*TINY, "train.max_steps=1"]
    for split in ("train", "val", "test"):
        lines = [{**record, "video_id": pattern.format(record["video_id"])} for record in records(made_data, split)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        settings.append(f"data.splits.{split}.annotations={folder}/{split}.jsonl")
    return settings


@pytest.mark.parametrize(
    ("pattern", "names", "media"),
    [
        ("{}.mp4", "name", "vis_db"),
        ("some/where/{}.MP4", "name", "videos"),
        ("./{}.mp4", "path", "videos"),
        ("videos\\{}.mp4", "path", "."),
    ],
)
def test_a_run_with_other_names_is_the_same_run(
    made_data: Path, tmp_path: Path, clipbert: Clipbert, pattern: str, names: str, media: str
) -> None:
    settings = named(made_data, tmp_path, pattern)
    media_settings = [f"data.splits.{split}.media={media}" for split in ("train", "val", "test")]
    options = as_options([*settings, *media_settings, f"data.media_id={names}"])
    common = ["--recipe", "demo_qa", "--data-root", made_data]
    refused = clipbert("finetune", *common, *options[:-2], "--run", tmp_path / "run", "--dry-run")
    assert refused.returncode == 1
    assert "data.media_id: name" in refused.stderr
    trained = clipbert("finetune", *common, *options, "--run", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert clipbert("infer", "--run", tmp_path / "run", "--split", "test", "-o", tmp_path / "p.jsonl").returncode == 0
    assert "media_error" not in (tmp_path / "p.jsonl").read_text()
    scored = clipbert("eval", tmp_path / "p.jsonl", *common, *options, "--split", "test")
    assert scored.returncode == 0, scored.stderr


def test_a_long_list_of_missing_media_is_in_a_file(made_data: Path, tmp_path: Path) -> None:
    lines = [{**records(made_data, "train")[0], "question_id": n, "video_id": f"gone{n}"} for n in range(50)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    overrides = [*TINY, f"data.splits.train.annotations={tmp_path}/train.jsonl"]
    with pytest.raises(
        StoreError, match=r"(?s)lacks 50 videos .*\.\.\. and 30 more\nAll of them are in .*\nit has "
    ) as refused:
        Training(load_recipe("demo_qa", overrides=overrides, data_root=made_data), tmp_path / "run")
    found = re.search(r"All of them are in (\S+)", str(refused.value))
    assert found
    assert Path(found[1]).read_text().split() == [f"gone{n}" for n in range(50)]
    Path(found[1]).unlink()


@pytest.fixture
def partial_store(made_data: Path, tmp_path: Path) -> Path:
    """A store without some videos of each split."""
    gone = {"train0002", "train0005", "val0001", "test0000", "test0003"}
    return pack_media(
        [f for f in sorted((made_data / "videos").iterdir()) if f.stem not in gone], tmp_path / "part"
    ).store


@pytest.mark.parametrize("recipe", ["demo_qa", "demo_retrieval", "demo_mc"])
def test_records_of_missing_media_are_left_out_and_count_as_wrong(
    made_data: Path, partial_store: Path, tmp_path: Path, clipbert: Clipbert, recipe: str
) -> None:
    media = [f"data.splits.{split}.media={partial_store}" for split in ("train", "val", "test")]
    options = as_options([*TINY, *media, "train.max_steps=2", "train.batch_size=2", "data.on_missing_media=skip"])
    common = ["--recipe", recipe, "--data-root", made_data]
    trained = clipbert("finetune", *common, *options, "--run", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    said = " ".join(trained.stderr.split())
    assert "lacks 2 videos that split 'train' needs: train0002 train0005 their records are left out" in said
    assert "lacks 1 video that split 'val' needs: val0001" in said
    answered = clipbert("infer", "--run", tmp_path / "run", "--split", "test", "-o", tmp_path / "p.jsonl")
    assert answered.returncode == 0, answered.stderr
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    failed = {line["media_id"]: line["media_error"] for line in lines if "media_error" in line}
    assert set(failed) == {"test0000", "test0003"}
    assert all(reason.endswith("it is missing") for reason in failed.values())
    scored = clipbert("eval", tmp_path / "p.jsonl", *common, "--split", "test")
    assert scored.returncode == 0, scored.stderr
    assert "records count as wrong, because their media are missing or damaged" in " ".join(scored.stderr.split())
    left = clipbert("eval", tmp_path / "p.jsonl", *common, "--split", "test", "--leave-out-media-errors")
    assert left.returncode == 0, left.stderr
    assert "records are left out, because their media are missing or damaged" in " ".join(left.stderr.split())


def test_a_training_split_without_any_media_is_refused(made_data: Path, tmp_path: Path) -> None:
    store = pack_media([made_data / "videos/test0000.mp4"], tmp_path / "store").store
    overrides = [*TINY, f"data.splits.train.media={store}", "data.on_missing_media=skip"]
    with pytest.raises(StoreError, match="has no video of split 'train'"):
        Training(load_recipe("demo_qa", overrides=overrides, data_root=made_data), tmp_path / "run")
