"""Caption lists of CLIP4Clip and Frozen in Time: MSVD, MSR-VTT and LSMDC."""

import collections
import pickle

import pytest
from originals import table

from clipbert_cli.errors import AnnotationError

MSVD = {
    "-4wsuPCjDBc_5_15": ["a squirrel is eating a peanut", "a chipmunk eats"],
    "-7KMZQEsJW4_205_208": ["a man walks"],
    "0_1-2_3": ["zwei Männer reden"],
    "not in a list": ["x"],
}
LISTS = {"train_list.txt": list(MSVD)[:1], "val_list.txt": list(MSVD)[1:2], "test_list.txt": list(MSVD)[2:3]}


def pickled(value, protocol=4):
    return pickle.dumps(value, protocol)


def write_lists(raw, lists=LISTS, folder=""):
    for name, media in lists.items():
        raw(f"{folder}{name}", "".join(f"{each}\n" for each in media))


def read_msvd(done):
    return {name: done.read(f"{name}.jsonl") for name in ("train", "val", "test")}


EXPECTED = {
    name: [{"caption": text, "clip_name": video} for video in media for text in MSVD[video]]
    for name, media in zip(("train", "val", "test"), LISTS.values(), strict=True)
}


@pytest.mark.parametrize("protocol", range(6))
def test_captions_of_clip4clip_are_lists_of_words(raw, convert, protocol):
    write_lists(raw)
    raw(
        "raw-captions.pkl",
        pickled({video: [text.split() for text in texts] for video, texts in MSVD.items()}, protocol),
    )
    assert read_msvd(convert("msvd_retrieval")) == EXPECTED


def test_captions_may_be_whole_texts(raw, convert):
    write_lists(raw)
    raw("data/raw-captions.pkl", pickled({video: tuple(texts) for video, texts in MSVD.items()}))
    assert read_msvd(convert("msvd_retrieval")) == EXPECTED


def test_the_original_captions_of_msvd_are_lines(raw, convert):
    write_lists(raw)
    lines = [f"{video} {text}" for video, texts in MSVD.items() if " " not in video for text in texts]
    raw("AllVideoDescriptions.txt", "# comment\n\n" + "\r\n".join(["without-a-caption", *lines]) + "\n")
    assert read_msvd(convert("msvd_retrieval")) == EXPECTED


def test_what_has_no_caption_and_what_leaks_is_reported(raw, convert):
    write_lists(raw, {**LISTS, "test_list.txt": [*LISTS["test_list.txt"], "unknown", *LISTS["train_list.txt"]]})
    raw("raw-captions.pkl", pickled(MSVD))
    assert convert("msvd_retrieval").warnings == [
        "test.jsonl: 1 videos have no caption, unknown among them",
        "1 media are in train.jsonl and in test.jsonl, -4wsuPCjDBc_5_15 among them",
    ]


class Harmful:
    def __reduce__(self):
        return print, ("code of a stranger",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickled({"v": [["a", Harmful()]]}), "it names builtins.print"),
        (pickled(collections.OrderedDict(v=["a"])), "it names collections.OrderedDict"),
        (pickled(MSVD)[:-20], "no pickle of texts"),
        (b"", "no pickle of texts"),
        (b"<html>", "no pickle of texts"),
        (pickled(["a"]), "an object of media ids was expected, not list"),
        (pickled({"v": "a"}), "raw-captions.pkl, v: a list of captions was expected"),
        (pickled({"v": [["a", 3]]}), "raw-captions.pkl, v: a caption or its words were expected"),
        (pickled({7: ["a"]}), "raw-captions.pkl, 7: a list of captions was expected"),
    ],
)
def test_a_pickle_is_read_without_running_what_it_names(raw, convert, capsys, content, message):
    write_lists(raw)
    raw("raw-captions.pkl", content)
    with pytest.raises(AnnotationError, match=message):
        convert("msvd_retrieval")
    assert "code of a stranger" not in capsys.readouterr().out


def msrvtt_lists(raw, index=None):
    """Frozen's folder: 20 captions of each of six videos, and the lists of two cuts."""
    captions = [
        {"image_id": f"video{n}", "caption": f"caption {k} of {n}\n", "id": k} for k in range(20) for n in range(6)
    ]
    raw("annotation/MSR_VTT.json", {"annotations": captions, "images": [], "info": {}, "type": "captions"})
    cuts = {"train_list_full": [0, 1], "val_list_full": [2], "test_list_full": [3, 4]}
    cuts |= {"train_list_jsfusion": [0, 1, 2], "val_list_jsfusion": [3, 4]}
    lists = {f"{name}.txt": [f"video{n}" for n in numbers] for name, numbers in cuts.items()}
    write_lists(raw, lists, "high-quality/structured-symlinks/")
    if index is not None:
        raw("high-quality/structured-symlinks/jsfusion_val_caption_idx.pkl", pickled(index))


def test_the_lists_of_frozen_become_files_of_their_names(raw, convert):
    msrvtt_lists(raw, {"video3": 7, "video4": 0})
    done = convert("caption_lists")
    assert {name: count.records for name, count in done.counts.items()} == {
        "train_full.jsonl": 40,
        "val_full.jsonl": 20,
        "test_full.jsonl": 40,
        "train_jsfusion.jsonl": 60,
        "val_jsfusion.jsonl": 2,
    }
    assert done.read("val_jsfusion.jsonl") == [
        {"caption": "caption 7 of 3", "clip_name": "video3"},
        {"caption": "caption 0 of 4", "clip_name": "video4"},
    ]
    # Videos of two cuts are no leak.
    assert done.warnings == []


def test_without_the_chosen_captions_all_are_there(raw, convert):
    msrvtt_lists(raw)
    assert convert("caption_lists").counts["val_jsfusion.jsonl"].records == 40


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"video3": 20}, "video3 has 20 captions, but number 20 is to be used"),
        ({"video3": "7"}, "media ids and numbers of captions was expected"),
        ([1], "media ids and numbers of captions was expected"),
    ],
)
def test_wrong_chosen_captions_are_refused(raw, convert, index, message):
    msrvtt_lists(raw, index)
    with pytest.raises(AnnotationError, match=message):
        convert("caption_lists")


def test_lists_that_are_missing_or_there_twice_are_refused(raw, convert):
    raw("raw-captions.pkl", pickled(MSVD))
    with pytest.raises(AnnotationError, match=r"no file \*_list\.txt"):
        convert("msvd_retrieval")
    write_lists(raw)
    write_lists(raw, {"val_list.txt": ["x"]}, "copy/")
    with pytest.raises(AnnotationError, match=r"val_list\.txt is there twice"):
        convert("msvd_retrieval")


CLIP = "0001_American_Beauty_00.00.51.926-00.00.54.129"


def write_lsmdc(raw, *rows):
    times = "00.00.51.926\t00.00.54.129\t00.00.51.426\t00.00.54.629"
    for name, clip in (
        ("annos_training", CLIP),
        ("annos_val", "1003_How_1"),
        ("challenge_1000_publictect", "3009_B_1"),
    ):
        lines = [f'{clip}\t{times}\tSOMEONE says "no.', f"{clip}\t{times}\tShe looks up.", *rows]
        raw(f"LSMDC16_{name}.csv", table(*lines))


def test_lsmdc_has_no_row_of_headings(raw, convert):
    write_lsmdc(raw)
    done = convert("lsmdc_retrieval")
    # The times in the name of a clip hold full stops, the last of which begins no ending.
    assert done.read("train.jsonl") == [
        {"caption": 'SOMEONE says "no.', "clip_name": CLIP},
        {"caption": "She looks up.", "clip_name": CLIP},
    ]
    assert {name: count.records for name, count in done.counts.items()} == dict.fromkeys(done.counts, 2)


@pytest.mark.parametrize("row", ["a\tb\tc", "a\t1\t2\t3\t4\tx\ty", "\t1\t2\t3\t4\tno name"])
def test_lsmdc_refuses_other_rows(raw, convert, row):
    write_lsmdc(raw, row)
    with pytest.raises(AnnotationError, match=r"line 3: (\d columns|the name of its media)"):
        convert("lsmdc_retrieval")
