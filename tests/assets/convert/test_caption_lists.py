"""Caption lists of CLIP4Clip and Frozen in Time: MSVD and MSR-VTT."""

import collections
import pickle

import pytest

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
        (b"\x80\x02}r\xff\xff\xff\xff.", "keeps its value under the number 4294967295"),
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


def msrvtt_lists(raw):
    """Frozen's folder: 20 captions of each of six videos, and the lists of two cuts."""
    captions = [
        {"image_id": f"video{n}", "caption": f"caption {k} of {n}\n", "id": k} for k in range(20) for n in range(6)
    ]
    raw("annotation/MSR_VTT.json", {"annotations": captions, "images": [], "info": {}, "type": "captions"})
    cuts = {"train_list_full": [0, 1], "val_list_full": [2], "test_list_full": [3, 4]}
    cuts |= {"train_list_jsfusion": [0, 1, 2], "val_list_jsfusion": [3, 4]}
    lists = {f"{name}.txt": [f"video{n}" for n in numbers] for name, numbers in cuts.items()}
    write_lists(raw, lists, "high-quality/structured-symlinks/")


def test_the_lists_of_frozen_become_files_of_their_names(raw, convert):
    msrvtt_lists(raw)
    done = convert("caption_lists")
    assert {name: count.records for name, count in done.counts.items()} == {
        "train_full.jsonl": 40,
        "val_full.jsonl": 20,
        "test_full.jsonl": 40,
        "train_jsfusion.jsonl": 60,
        "val_jsfusion.jsonl": 40,
    }
    assert done.read("val_jsfusion.jsonl")[0] == {"caption": "caption 0 of 3", "clip_name": "video3"}
    # Videos of two cuts are no leak.
    assert done.warnings == []


def test_lists_that_are_missing_or_there_twice_are_refused(raw, convert):
    raw("raw-captions.pkl", pickled(MSVD))
    with pytest.raises(AnnotationError, match=r"no file \*_list\.txt"):
        convert("msvd_retrieval")
    write_lists(raw)
    write_lists(raw, {"val_list.txt": ["x"]}, "copy/")
    with pytest.raises(AnnotationError, match=r"val_list\.txt is there twice"):
        convert("msvd_retrieval")
