"""The catalogue: every entry is a test case, every mistake is reported with its place."""

import pytest
import yaml

from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.assets.convert.registry import CONVERTERS, part_of
from clipbert_cli.assets.unpack import MAX_FILES
from clipbert_cli.errors import CatalogError, UsageError

SHIPPED = load_catalog()
PARTS = SHIPPED.parts()


@pytest.mark.parametrize("name", SHIPPED.files)
def test_a_file_is_used_and_can_be_planned(name):
    entry = SHIPPED.files[name]
    users = [part for part in PARTS.values() if name in (*part.files, *part.optional)]
    assert users
    if not entry.sources:
        # No program may fetch it: it is optional, or a person is told how to get it.
        assert all(name in part.optional or part.manual for part in users)
    for source in entry.sources:
        assert "visualgenome.org" not in str(source)
        assert "convaisharables" not in str(source)
        assert not str(source).startswith("https://images.cocodataset.org")


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_all_its_fields(name):
    part = PARTS[name]
    assert SHIPPED.assets[name.split("/")[0]].licence
    roots = {"annotations": "txt_db/", "media": "media/", "weights": "pretrained"}
    assert part.folder.startswith(roots[part.kind])
    if part.kind == "annotations":
        assert part.convert in CONVERTERS
        assert part_of(SHIPPED, part.convert) is part
    if part.kind == "media":
        assert part.store == part.folder.replace("media/", "vis_db/")
    for line in (part.manual or "").splitlines():
        assert len(line) <= 77  # a page of 80 columns, indented


def test_every_converter_has_a_part():
    assert {part.convert for part in PARTS.values() if part.convert} == set(CONVERTERS)


def test_no_two_parts_make_one_file():
    products = [product for part in PARTS.values() for product in part.products()]
    assert len(products) == len(set(products))


def test_the_files_of_a_part_have_different_names():
    """They are unpacked and handed over by name."""
    for part in PARTS.values():
        names = [file.split("/")[1] for file in (*part.files, *part.optional)]
        assert len(names) == len(set(names))


def test_the_counts_are_those_that_agree_with_each_other():
    """Sums that the sources state: Karpathy's captions, VQA's questions, TGIF-QA's rows."""
    captions = PARTS["coco/captions"].outputs
    assert sum(expect.records for expect in captions.values()) == 616_767 - 25_010  # all but the test captions
    questions = PARTS["vqa/questions"].outputs
    total = questions["vqa_k_trainval.jsonl"].records + questions["vqa_k_test.jsonl"].records
    assert total == 443_757 + 214_354
    assert PARTS["msrvtt/retrieval"].outputs["train.jsonl"].records == 20 * 7010
    assert PARTS["msrvtt/retrieval"].outputs["train_9k.jsonl"].records == 20 * 9000


def test_the_limits_of_unpacking_admit_the_largest_dataset():
    assert MAX_FILES > 123_287


def test_an_asset_a_part_and_a_recipe_can_be_named():
    assert list(SHIPPED.select(["msrvtt/qa"])) == ["msrvtt/qa"]
    assert list(SHIPPED.select(["didemo"])) == ["didemo/videos", "didemo/retrieval"]
    assert list(SHIPPED.select(["msrvtt_qa"])) == [
        "bert-base-uncased/weights",
        "grid-feat-r50/weights",
        "clipbert-pretrained/weights",
        "msrvtt/videos",
        "msrvtt/qa",
    ]


def test_a_name_of_asset_and_recipe_means_both():
    assert {"vqa/questions", "vqa/vg-questions", "coco/images"} <= set(SHIPPED.select(["vqa"]))


def test_an_asset_does_not_mean_another_whose_name_it_begins():
    extended = SHIPPED.model_copy(update={"assets": {**SHIPPED.assets, "vg2": SHIPPED.assets["anet"]}})
    assert "vg2/videos" not in extended.select(["vg"])


@pytest.mark.parametrize("only", ["annotations", "media", "weights"])
def test_only_one_kind(only):
    assert {part.kind for part in SHIPPED.select(["msrvtt_qa"], only=only).values()} == {only}


def test_a_demo_needs_nothing():
    assert SHIPPED.select(["demo_qa"]) == {}


def test_only_a_kind_that_is_not_there_is_wrong_usage():
    with pytest.raises(UsageError, match="--only media: bert-base-uncased has no part of this kind"):
        SHIPPED.select(["bert-base-uncased"], only="media")


def test_an_unknown_name_says_what_is_close():
    with pytest.raises(UsageError, match="'msrvt_qa' is not an asset, a part or a recipe; did you mean msrvtt_qa"):
        SHIPPED.select(["msrvt_qa"])


def write(tmp_path, document):
    path = tmp_path / "mine.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return path


def test_a_catalogue_laid_over_changes_what_it_names_and_keeps_the_rest(tmp_path):
    mine = {"files": {"coco/train2014.zip": {"sources": ["http://lab/train2014.zip"]}}}
    catalog = load_catalog(write(tmp_path, mine))
    before, after = SHIPPED.files["coco/train2014.zip"], catalog.files["coco/train2014.zip"]
    assert after.sources == ["http://lab/train2014.zip"]
    assert (after.md5, after.bytes) == (before.md5, before.bytes)
    assert catalog.files["coco/val2014.zip"] == SHIPPED.files["coco/val2014.zip"]


def test_a_catalogue_laid_over_adds_assets_and_recipes(tmp_path):
    mine = """
    files:
      ours/clips.zip: {sources: ["http://lab/clips.zip"]}
    assets:
      ours:
        title: our clips
        licence: internal
        parts:
          videos:
            kind: media
            title: clips
            files: [ours/clips.zip]
            folder: media/ours
            media_kind: video
    recipes:
      our_qa: [bert-base-uncased, ours]
    """
    catalog = load_catalog(write(tmp_path, mine))
    assert list(catalog.select(["our_qa"])) == ["bert-base-uncased/weights", "ours/videos"]


PART = {"kind": "weights", "title": "x", "files": ["a/b.pth"], "folder": "pretrained", "place": {"a/b.pth": "b.pth"}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"files": {"a/b": {"sources": ["ftp://x/y"]}}}, "files.a/b.sources.0: 'ftp://x/y': an address"),
        ({"files": {"a/b": {"sources": [{}]}}}, "files.a/b.sources.0: Input should be a valid string"),
        ({"files": {"a/b": {"sources": [], "sha256": "12"}}}, "files.a/b.sha256: String should match pattern"),
        ({"files": {"a/b": {"sources": [], "bytes": "12"}}}, "files.a/b.bytes: Input should be a valid integer"),
        ({"files": {"a/b": {"sources": [], "size": 12}}}, "files.a/b.size: Extra inputs are not permitted"),
        ({"files": {"../b": {"sources": []}}}, "files.../b: String should match pattern"),
        ({"recipes": {"mine": ["nothing"]}}, "recipes.mine: 'nothing' is no asset and no part"),
        ({"assets": {"a": {"title": "x", "licence": "x", "parts": {"w": PART}}}}, "file 'a/b.pth' is not under files"),
        (
            {"assets": {"a": {"title": "x", "licence": "x", "parts": {"w": {**PART, "folder": "/etc"}}}}},
            "assets.a.parts.w.folder: '/etc' must be a path inside the data folder",
        ),
        (
            {"assets": {"a": {"title": "x", "licence": "x", "parts": {"w": {**PART, "place": {"a/b.pth": "../x"}}}}}},
            "'../x' must be a path inside the data folder",
        ),
        (
            {"assets": {"a": {"title": "x", "licence": "x", "parts": {"m": {"kind": "media", "title": "x"}}}}},
            "a part of kind media needs folder, media_kind",
        ),
        ("files: [", "not YAML"),
        ("- a\n- b\n", "a mapping with files, assets or recipes was expected"),
        ("files: 5\n", "files: Input should be a valid dictionary"),
        ("files: {}\nfiles: {}\n", "files: given twice, in line 1 and in line 2"),
        ("!mine {files: {}}\n", "the tag !mine is not allowed"),
        ("files: !!python/name:os.system x\n", "files: the tag !!python/name:os.system is not allowed"),
        ("files: {5: {}}\n", "files: the key is 5: it must be text"),
        ("files: &a {b: *a}\n", "an alias (*name) is not read"),
        (f"files: {'[' * 3000}", "nested too deeply"),
        (
            "x0: &x0 [y, y, y, y, y, y, y, y, y]\n"
            + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 9)),
            "an alias (*name) is not read",
        ),
    ],
)
def test_a_mistake_is_reported_with_file_and_place(tmp_path, document, message):
    path = write(tmp_path, document)
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert caught.value.exit_code == 2


def test_all_mistakes_are_reported_together(tmp_path):
    path = write(tmp_path, {"files": {"a/b": {"sources": [], "size": 1}, "a/c": {"sources": [], "md5": "x"}}})
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    assert len(str(caught.value).splitlines()) == 2


def test_a_catalogue_that_cannot_be_read_is_reported(tmp_path):
    with pytest.raises(CatalogError, match=r"none\.yaml: no such file"):
        load_catalog(tmp_path / "none.yaml")
