from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from made_media import clips_of
from running import under_other_memory

from clipbert_cli.assets import demo_media
from clipbert_cli.assets.demo_media import COLORS, SHAPES, SIDES, draw_scene, questions, render, write_demo_media
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.text.tokenizer import Tokenizer


def test_one_seed_makes_the_same_files_whatever_is_in_memory(tmp_path: Path) -> None:
    """Videos of all sizes, of whole and of cut-off rows of macroblocks, pictures and texts."""
    printed = under_other_memory(
        "import os, zlib; from pathlib import Path\n"
        "from clipbert_cli.assets.demo_media import write_demo_media\n"
        f"folder = Path({str(tmp_path)!r}, os.environ['MALLOC_PERTURB_'])\n"
        "write_demo_media(folder, videos={'train': 9, 'test': 3}, seed=7, progress=lambda: None)\n"
        "for file in sorted(path for path in folder.rglob('*') if path.is_file()):\n"
        "    print(file.relative_to(folder), zlib.crc32(file.read_bytes()))"
    )
    assert printed[0].count(".mp4") == printed[0].count(".jpg") == 12
    assert printed[0] == printed[1]


def test_one_seed_makes_the_same_questions_and_pixels(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_demo_media(tmp_path / name, videos={"test": 2}, seed=5, progress=lambda: None)
    for file in ("txt_db/test.jsonl", "txt_db/answers.json", "vocab.txt"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    one, other = (draw_scene(np.random.default_rng(5), "v") for _ in range(2))
    assert one == other
    assert all(np.array_equal(*frames) for frames in zip(render(one), render(other), strict=True))


def test_the_videos_are_h264_of_varying_size_and_length(made_data: Path) -> None:
    probed = [probe_video(video.read_bytes()) for video in sorted((made_data / "videos").iterdir())]
    assert {each.codec for each in probed} == {"h264"}
    assert len({(each.info.width, each.info.height) for each in probed}) > 1
    assert len({each.info.num_frames for each in probed}) > 3


def test_shapes_keep_their_colour_and_their_side_in_every_frame() -> None:
    rng = np.random.default_rng(0)
    for number in range(30):
        scene = draw_scene(rng, f"v{number}")
        for frame in render(scene):
            for item in scene.shapes:
                rows, columns = np.nonzero((frame == COLORS[item.color]).all(axis=2))
                assert len(rows) > 100
                middle = rows.mean() / scene.height, columns.mean() / scene.width
                found = {
                    "left": middle[1] < 0.5,
                    "right": middle[1] > 0.5,
                    "top": middle[0] < 0.5,
                    "bottom": middle[0] > 0.5,
                }
                assert found[item.side]


def test_answers_cannot_be_guessed_from_the_text() -> None:
    """The best rule that sees only the question, learnt and scored on the same large sample."""
    rng = np.random.default_rng(0)
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for number in range(4000):
        for record in questions(draw_scene(rng, f"v{number}")):
            answers[record["question"]][record["answer"]] += 1
    best = sum(count.most_common(1)[0][1] for count in answers.values())
    assert best / sum(sum(count.values()) for count in answers.values()) < 0.28


def test_every_word_is_in_the_vocabulary_and_every_answer_in_its_list(made_data: Path) -> None:
    tokenizer = Tokenizer(made_data / "vocab.txt", max_length=16)
    answers = json.loads((made_data / "txt_db" / "answers.json").read_text())
    assert set(answers) == {*COLORS, *SHAPES, *SIDES}
    for split in ("train", "val", "test"):
        for line in (made_data / "txt_db" / f"{split}.jsonl").read_text().splitlines():
            record = json.loads(line)
            assert record["answer"] in answers
            ids, _ = tokenizer([record["question"]])
            assert 1 not in ids  # [UNK]


def test_a_decoded_frame_shows_the_scene(made_data: Path) -> None:
    sampling = ClipSampling(strategy="start", num_frames=1)
    record = json.loads((made_data / "txt_db" / "train.jsonl").read_text().splitlines()[0])
    assert record["question"].startswith("what color")
    data = (made_data / "videos" / f"{record['video_id']}.mp4").read_bytes()
    (frame,) = clips_of(data, sampling)[0]
    distance = np.abs(frame.astype(int) - COLORS[record["answer"]]).max(axis=2)
    assert (distance < 40).sum() > 100


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_its_own_outline(shape: str) -> None:
    v, u = np.mgrid[-1:1:50j, -1:1:50j]
    inside = demo_media.INSIDE[shape]
    others = [np.mean(inside(u, v) != demo_media.INSIDE[other](u, v)) for other in SHAPES if other != shape]
    assert min(others) > 0.15
