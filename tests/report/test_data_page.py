"""The page of a split's data: what it says, and how it looks in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import ATTACK, opened, pictures
from made_media import image, marked_frame, read_index, video
from running import Clipbert

from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.store.source import single_item


def preview(clipbert: Clipbert, out: Path, *arguments: object, code: int = 0) -> str:
    done = clipbert("preview", *arguments, "-o", out)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    return out.read_text(encoding="utf-8")


def tokens(page: str) -> list[str]:
    """The text of each row of tokens."""
    found = re.findall(r'<span class="tokens faint">(.*?)</span></p>', page, re.DOTALL)
    return [" ".join(re.sub("<[^>]+>", "", each).split()) for each in found]


@pytest.fixture(scope="module")
def numbered(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose videos say which frame they show, and whose names and texts are hostile."""
    root = tmp_path_factory.mktemp("numbered")
    shutil.copy(made_data / "vocab.txt", root)
    (root / "videos").mkdir()
    names = ["plain", "a 'b' \"c\" & <i>d", "ünï"]
    records = []
    for number, name in enumerate(names):
        (root / "videos" / f"{name}.mp4").write_bytes(video(30 + number))
        records += [
            {"video_id": name, "question": f"{ATTACK} {name}", "answer": "red"},
            {"video_id": name, "question": "what color is the circle " * 30, "answer": f"nothing known <b>{number}"},
            {"video_id": name, "question": "what color is it ?", "answer": "red"},
            {"video_id": name, "question": "what color is it ?", "answer": "red"},
        ]
    (root / "videos" / "broken.mp4").write_bytes(video(30)[:700])
    records.append({"video_id": "broken", "question": "what ?", "answer": "red"})
    (root / "val.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return root


def of_numbered(numbered: Path, made_data: Path) -> list[object]:
    named = {"annotations": numbered / "val.jsonl", "media": numbered / "videos"}
    settings = [f"data.splits.val.{name}={value}" for name, value in named.items()]
    sets = [
        word
        for setting in (*settings, "infer.num_clips=3", "data.num_frames=2", "data.fps=4")
        for word in ("--set", setting)
    ]
    return ["-r", "demo_qa", "--split", "val", "--data-root", made_data, *sets]


def test_strips_show_the_frames_that_sampling_chooses_with_their_times(
    clipbert: Clipbert, numbered: Path, made_data: Path, tmp_path: Path
) -> None:
    page = preview(clipbert, tmp_path / "p.html", *of_numbered(numbered, made_data))
    found = pictures(page)
    assert len(found) == 9
    expected, times = [], []
    for number, name in enumerate(("plain", "a", "ünï")):
        info = single_item(name, video(30 + number), kind="video").info(name)
        assert info
        sampling = ClipSampling("clips", 3, 2, 4.0, safeguard=True)
        for clip in select(info, sampling):
            expected.append(clip)
            times.append(", ".join(f"{float(info.pts[index] * info.time_base):.2f} s" for index in clip))
    shown = []
    for picture in found:
        # A square canvas per frame, padded below.
        side, pixels = picture.height, np.asarray(picture.convert("RGB"))
        parts = [pixels[:64, left : left + 96] for left in range(0, picture.width, side)]
        shown.append(tuple(map(read_index, parts)))
    assert shown == expected
    for each in times:
        assert each in page


def test_what_is_cut_repeated_or_outside_the_vocabulary_is_listed(
    clipbert: Clipbert, numbered: Path, made_data: Path, tmp_path: Path
) -> None:
    page = preview(clipbert, tmp_path / "p.html", *of_numbered(numbered, made_data))
    # The three long questions, and a name of many signs.
    assert "4 of 13 have more than 16 and are cut" in page
    cut = [row.partition("[SEP]") for row in tokens(page) if row.count("color") == 30]
    assert len(cut) == 3
    for kept, _, rest in cut:
        assert len(kept.split()) == 15
        assert len(kept.split()) - 1 + len(rest.split()) == 30 * 5
    for text in ("Answer outside the vocabulary", "nothing known &lt;b&gt;0", "Text that occurs more than once"):
        assert text in page
    assert "Exact repeat of a record" in page
    assert "broken" in page
    assert "media shared with train</dt><dd><bdi>0<" in page


def test_media_that_two_splits_share_are_counted(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    same = f"data.splits.test.annotations={made_data / 'txt_db' / 'val.jsonl'}"
    arguments = ("-r", "demo_qa", "--split", "val", "--data-root", made_data)
    page = preview(clipbert, tmp_path / "a.html", *arguments, "--set", same)
    assert "media shared with test</dt><dd><bdi>3, such as val0000" in page
    page = preview(clipbert, tmp_path / "b.html", *arguments)
    assert "media shared with test</dt><dd><bdi>0<" in page


@pytest.mark.parametrize(
    ("recipe", "split", "roles"),
    [
        ("demo_retrieval", "train", {"own text", "negative"}),
        ("demo_retrieval", "test", {"own text"}),
        ("demo_pretrain", "train", {"own text", "text of another item"}),
        ("demo_mc", "train", {"option 0", "option 0, right", "option 4"}),
        ("demo_qa", "train", set()),
    ],
)
def test_each_task_shows_what_its_texts_are(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, recipe: str, split: str, roles: set[str]
) -> None:
    page = preview(clipbert, tmp_path / "p.html", "-r", recipe, "--split", split, "--data-root", made_data)
    found = set(re.findall(r'<span class="tag">([^<]+)</span>', page))
    assert roles <= found
    assert bool(roles) == bool(found)
    assert ('class="masked"' in page) == (recipe == "demo_pretrain")
    assert len(pictures(page)) > 0


def test_a_folder_needs_no_annotations_and_a_sample_is_fair_by_seed(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(5):
        (tmp_path / "photos" / f"{number}.png").write_bytes(image(marked_frame(number)))
    page = preview(clipbert, tmp_path / "a.html", tmp_path / "photos", "--examples", "3")
    assert "3 of 5 media items" in page
    assert len(pictures(page)) == 3
    again = preview(clipbert, tmp_path / "b.html", tmp_path / "photos", "--examples", "3")
    other = preview(clipbert, tmp_path / "c.html", tmp_path / "photos", "--examples", "3", "--seed", "1")
    names = [re.findall('data-media="(.)"', each) for each in (page, again, other)]
    assert names[0] == names[1] != names[2]
    for media in (made_data / "videos", made_data / "vis_db"):
        assert len(pictures(preview(clipbert, tmp_path / f"{media.name}.html", media, "--examples", "2"))) == 8


def test_what_is_missing_is_said_on_the_page(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    arguments = ("-r", "demo_qa", "--split", "test", "--data-root", made_data)
    for setting, says, code in (
        ("model.tokenizer=absent.txt", "absent.txt: no such vocabulary", 0),
        ("data.splits.test.media=absent", "does not exist", 1),
        ("data.answers=absent.json", "absent.json: no such answer vocabulary", 0),
    ):
        page = preview(clipbert, tmp_path / f"{setting[:8]}.html", *arguments, "--set", setting, code=code)
        assert says in page
        assert "what color" in page.replace('">', " ")


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("given", ["no such folder", "a folder of other media", "damaged files", "some of them"])
def test_a_page_without_media_is_no_success(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, kind: str, given: str
) -> None:
    recipe, source = ("demo_qa", "videos") if kind == "video" else ("demo_vqa", "images")
    media = tmp_path / "media"
    if given != "no such folder":
        media.mkdir()
        files = sorted((made_data / source).iterdir())
        for file in files:
            other = file.with_stem(f"other_{file.stem}").name
            name = other if given == "a folder of other media" else file.name
            (media / name).write_bytes(file.read_bytes()[: 200 if given == "damaged files" else None])
        if given == "some of them":
            (media / files[0].name).unlink()
    out = tmp_path / "p.html"
    options = ["--split", "test", "--data-root", made_data, "--set", f"data.splits.test.media={media}", "-o", out]
    done = clipbert("preview", "-r", recipe, *options)
    assert done.returncode == (given != "some of them"), done.stderr
    assert ("the page shows no media" in done.stderr) == (given != "some of them")
    says = "does not exist" if given == "no such folder" else r"\d of \d media that were looked at cannot be used"
    assert re.search(f"warning: .*{says}", done.stderr), done.stderr
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either MEDIA, or --recipe and --split"),
        (["-r", "demo_qa"], "--split is missing"),
        ([".", "-r", "demo_qa", "--split", "val"], "name either MEDIA, or --recipe and --split"),
        (["-r", "demo_qa", "--split", "dev"], "no split 'dev'"),
    ],
)
def test_wrong_usage_is_one_message(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = clipbert("preview", *arguments, "-o", tmp_path / "p.html")
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_works_in_a_browser(
    clipbert: Clipbert, numbered: Path, made_data: Path, tmp_path: Path, width: int
) -> None:
    file = tmp_path / "p.html"
    preview(clipbert, file, *of_numbered(numbered, made_data))
    for scheme in ("light", "dark"):
        with opened(file, width=width, scheme=scheme) as found:
            found.check(file)
            assert found.shown_rows("examples-table") == 4
            assert ATTACK in found.page.inner_text("#examples-table")
            assert "a 'b' \"c\" & <i>d" in found.page.inner_text("#examples-table")
            found.page.fill("input[type=search]", "ünï")
            assert found.shown_rows("examples-table") == 1
            found.page.fill("input[type=search]", "")
            found.page.click("th[data-sort=media] button")
            names = found.column("examples-table", "media")
            assert names == sorted(names)
            found.page.click("th[data-sort=media] button")
            assert found.column("examples-table", "media") == names[::-1]


def test_a_preview_of_a_folder_needs_no_torch(made_data: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from clipbert_cli.commands.app import app
try:
    app(["preview", {str(made_data / "vis_db")!r}, "-o", {str(tmp_path / "p.html")!r}])
except SystemExit as exc:
    assert not exc.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
