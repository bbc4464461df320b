"""The page of predictions and trainings: what it says, and how it works in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import ATTACK, opened, pictures
from made_media import read_index, video
from running import TINY, Clipbert, as_options, train

from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.report.page import _environment
from clipbert_cli.store.source import single_item
from clipbert_cli.types import digest_of_texts

NAMES = ["plain", "a 'b' \"c\" & <i>d", "ünï"]


@pytest.fixture(scope="module")
def predictions(trained_run: Path, clipbert: Clipbert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predictions") / "preds.jsonl"
    assert clipbert("infer", "--run", trained_run, "--split", "test", "-o", path).returncode == 0
    return path


def report(clipbert: Clipbert, out: Path, *arguments: object) -> str:
    done = clipbert("report", *arguments, "-o", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return out.read_text(encoding="utf-8")


def rows(page: str) -> list[dict[str, str]]:
    """The data attributes of the examples."""
    found = re.findall(r"<tr (data-media=.*?)>\n", page, re.DOTALL)
    return [dict(re.findall(r'data-(\w+)="([^"]*)"', each)) for each in found]


def line(record: dict[str, Any], **fields: Any) -> dict[str, Any]:
    digest = digest_of_texts(None, (record["question"],))
    return {"media_id": record["video_id"], "text_digest": digest, **fields}


def written(path: Path, values: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], Path]:
    """Numbered videos with hostile names, texts and answers; the options that name them, and their predictions."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "videos").mkdir()
    records, lines = [], []
    for number, name in enumerate(NAMES):
        (root / "videos" / f"{name}.mp4").write_bytes(video(30 + number))
        for kind in ("what", "who", "where"):
            record = {"video_id": name, "question": f"{ATTACK} {kind} {number}", "answer": "red", "answer_type": kind}
            records.append(record)
            top = [
                {"answer": "red" if kind == "what" else f"</td>{ATTACK}", "score": 0.9},
                {"answer": "x", "score": 0.1},
            ]
            lines.append(line(record, **top[0], top=top))
    records.append({"video_id": "gone", "question": "what ?", "answer": "red"})
    lines.append(line(records[-1], media_error=f"broken {ATTACK}"))
    named = {"annotations": written(root / "test.jsonl", records), "media": root / "videos"}
    settings = [f"data.splits.test.{name}={value}" for name, value in named.items()]
    settings += ["infer.num_clips=3", "data.num_frames=2", "data.fps=4"]
    selected = ["-r", "demo_qa", "--split", "test", *as_options(settings)]
    return selected, written(root / "preds.jsonl", lines)


def test_the_page_has_the_numbers_of_eval_and_the_training(
    clipbert: Clipbert, trained_run: Path, predictions: Path, tmp_path: Path
) -> None:
    page = report(clipbert, tmp_path / "r.html", predictions, "--run", trained_run, "--split", "test")
    done = clipbert("eval", predictions, "--run", trained_run, "--split", "test", "--json")
    found = json.loads(done.stdout)
    low, high = found["intervals"]["accuracy"]
    assert f"accuracy % {found['accuracy']:.1f}</b> <small>95 % interval {low:.1f} to {high:.1f}, 48 examples" in page
    for text in ("what %", "where %", "calibration", "learning rate", "validation score", "gradient norm", "versions"):
        assert text in page
    assert len(rows(page)) == 48
    right = sum("right" in row["flags"].split() for row in rows(page))
    assert right == round(found["accuracy"] * 48 / 100)


@pytest.mark.parametrize(
    ("fixture", "stated", "headline"),
    [
        ("trained_run", "{accuracy: 37.4}", "accuracy % 37.4"),
        ("choice_run", "{accuracy: 88}", "accuracy % 88.0"),
        (
            "retrieval_run",
            "{recall_at_1: 22, recall_at_10: 59.9}",
            "text to video, R@1 % 22.0, text to video, R@10 % 59.9",
        ),
    ],
)
def test_published_scores_are_shown_at_the_head_and_in_the_table(
    clipbert: Clipbert, request: pytest.FixtureRequest, tmp_path: Path, fixture: str, stated: str, headline: str
) -> None:
    preds, run = tmp_path / "preds.jsonl", request.getfixturevalue(fixture)
    assert clipbert("infer", "--run", run, "--split", "test", "-o", preds).returncode == 0
    page = report(clipbert, tmp_path / "r.html", preds, "--set", f"published.test={stated}")
    assert f">published: {headline}</p>" in page
    heading, *body = re.findall(r"<tr>.*?</tr>", page.partition('id="scores"')[2].partition("</table>")[0])
    assert '<th class="n">published</th><th class="n">count</th>' in heading
    value = headline.rpartition(" ")[2]
    assert sum(f'<td class="n">{value}</td>' in row for row in body) == 1
    assert all(row.count("<td") == 5 for row in body)
    without = report(clipbert, tmp_path / "without.html", preds)
    assert "published: " not in without
    assert ">published<" not in without


def test_strips_show_the_frames_that_sampling_chooses_with_their_times(
    clipbert: Clipbert, hostile: tuple[list[object], Path], tmp_path: Path
) -> None:
    page = report(clipbert, tmp_path / "r.html", hostile[1], *hostile[0])
    shown = []
    for picture in pictures(page):
        pixels = np.asarray(picture.convert("RGB"))
        assert pixels.shape == (64, 2 * 96, 3)
        shown.append((read_index(pixels[:, :96]), read_index(pixels[:, 96:])))
    expected = []
    for number, name in enumerate(NAMES):
        info = single_item(name, video(30 + number), kind="video").info(name)
        assert info
        clips = select(info, ClipSampling("clips", 3, 2, 4.0, safeguard=True))
        expected += [clips] * 3
        for clip in clips:
            assert ", ".join(f"{float(info.pts[index] * info.time_base):.2f} s" for index in clip) in page
    assert shown == [clip for clips in expected for clip in clips]


def test_two_systems_and_a_blind_one_are_compared(
    clipbert: Clipbert, hostile: tuple[list[object], Path], tmp_path: Path
) -> None:
    selected, preds = hostile
    lines = [json.loads(each) for each in preds.read_text().splitlines()]
    for each in lines[:6]:
        each["answer"] = "red"
    other = written(tmp_path / "other.jsonl", lines)
    page = report(clipbert, tmp_path / "r.html", preds, *selected, "--against", other, "--blind", other)
    assert "blind baseline (no frames): accuracy % 70" in page
    assert "McNemar p" in page
    # Two of the first six answers are right, and the other four are right in the other file only.
    flags = [row["flags"].split() for row in rows(page)]
    assert [("worse" in each, "better" in each) for each in flags].count((True, False)) == 4
    assert not any("better" in each for each in flags)
    assert page.count("other: ") == 10


@pytest.mark.parametrize("option", ["--against", "--blind"])
def test_another_file_is_joined_by_its_records(
    clipbert: Clipbert, hostile: tuple[list[object], Path], tmp_path: Path, option: str
) -> None:
    selected, preds = hostile
    lines = [json.loads(each) for each in preds.read_text().splitlines()]
    lines[4]["answer"] = "red"
    other = written(tmp_path / "other.jsonl", lines)
    page = report(clipbert, tmp_path / "a.html", preds, *selected, option, other)
    written(other, lines[::-1])
    assert rows(report(clipbert, tmp_path / "b.html", preds, *selected, option, other)) == rows(page)
    lines[4] |= line({"video_id": lines[4]["media_id"], "question": "another ?"})
    written(other, lines)
    done = clipbert("report", preds, *selected, option, other, "-o", tmp_path / "c.html")
    assert done.returncode == 1
    assert "other.jsonl" in done.stderr
    assert not (tmp_path / "c.html").exists()


def test_a_sample_is_fair_by_seed_and_the_worst_are_marked(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    records = [{"video_id": f"v{n // 4}", "question": f"q{n} ?", "answer": "red"} for n in range(400)]
    lines = [line(each, answer=str(rng.choice(["red", "blue"])), score=float(rng.random())) for each in records]
    preds = written(tmp_path / "p.jsonl", lines)
    settings = as_options([f"data.splits.test.annotations={written(tmp_path / 'test.jsonl', records)}"])
    selected = ("-r", "demo_qa", "--split", "test", "--data-root", made_data, *settings, "--examples", "40")
    first = rows(report(clipbert, tmp_path / "a.html", preds, *selected))
    again = rows(report(clipbert, tmp_path / "b.html", preds, *selected))
    other = rows(report(clipbert, tmp_path / "c.html", preds, *selected, "--seed", "3"))
    assert first == again != other
    assert len(first) == len(other) == 40
    wrong = sorted((each["score"] for each in lines if each["answer"] == "blue"), reverse=True)[:10]
    for page in (first, other):
        worst = [float(row["score"]) for row in page if "worst" in row["flags"]]
        assert sorted(worst, reverse=True) == pytest.approx(wrong, abs=1e-4)


def test_retrieval_shows_ranks_in_both_directions_and_the_first_five(
    clipbert: Clipbert, retrieval_run: Path, tmp_path: Path
) -> None:
    preds = tmp_path / "p.jsonl"
    assert clipbert("infer", "--run", retrieval_run, "--split", "test", "-o", preds).returncode == 0
    page = report(clipbert, tmp_path / "r.html", preds, "--run", retrieval_run, "--split", "test")
    found = json.loads(clipbert("eval", preds, "--run", retrieval_run, "--split", "test", "--json").stdout)
    for text in ("ranks, text to video", "ranks, video to text", "recall at rank k", "text to video, R@1 %"):
        assert text in page
    ranks = [float(row["answer"]) for row in rows(page)]
    assert np.mean(ranks) == pytest.approx(found["mean_rank"])
    assert sum("right" in row["flags"].split() for row in rows(page)) == sum(rank == 1 for rank in ranks)
    # Four videos: each text has the strip of its own and four frames of those that were found.
    assert page.count('<li class="right">') == len(ranks)
    assert 'id="mistakes"' not in page
    assert len(pictures(page)) >= 5 * len(ranks)


def test_multiple_choice_has_a_page_too(clipbert: Clipbert, choice_run: Path, tmp_path: Path) -> None:
    preds = tmp_path / "p.jsonl"
    assert clipbert("infer", "--run", choice_run, "--split", "test", "-o", preds).returncode == 0
    page = report(clipbert, tmp_path / "r.html", preds, "--run", choice_run, "--split", "test")
    assert '<ol start="0">' in page
    assert "Most confused answers" in page or "No answer is wrong" in page


@pytest.mark.parametrize(
    ("words", "pairs", "said", "flag"),
    [
        ((2, 3), (1, 1), "2 of 3 masked words, 1 of 1 matches", "partly"),
        ((1, 1), (2, 2), "1 of 1 masked words, 2 of 2 matches", "right"),
        ((1, 5), (0, 1), "1 of 5 masked words, 0 of 1 matches", "partly"),
        ((0, 0), (1, 1), "0 of 0 masked words, 1 of 1 matches", "right"),
        ((0, 0), (0, 4), "0 of 0 masked words, 0 of 4 matches", "wrong"),
        (None, None, "media error: gone", "wrong"),
    ],
)
def test_pretraining_shows_the_counts_of_each_text(
    clipbert: Clipbert,
    made_data: Path,
    tmp_path: Path,
    words: tuple[int, int] | None,
    pairs: tuple[int, int] | None,
    said: str,
    flag: str,
) -> None:
    records = [{"video_id": f"v{n}", "caption": f"a red bar {n}"} for n in range(2)]
    usual = {"words": 4, "words_right": 1, "pairs": 1, "pairs_right": 1}
    own = {"media_error": "gone"}
    if words and pairs:
        own = dict(zip(("words_right", "words", "pairs_right", "pairs"), (*words, *pairs), strict=True))
    lines = [
        {"media_id": each["video_id"], "text_digest": digest_of_texts(None, (each["caption"],)), **fields}
        for each, fields in zip(records, (own, usual), strict=True)
    ]
    annotations = written(tmp_path / "val.jsonl", records)
    selected = ["-r", "demo_pretrain", "--split", "val", "--data-root", made_data]
    selected += as_options([f"data.splits.val.annotations={annotations}"])
    page = report(clipbert, tmp_path / "r.html", written(tmp_path / "p.jsonl", lines), *selected)
    assert said in page
    assert [row["flags"].split()[-1] for row in rows(page)] == [flag, "partly"]
    assert "masked words %" in page
    # Counts have no score, are no answers that could be confused, and no question was asked.
    for absent in ("0.000", 'id="mistakes"', "confident", ">question<", ">answer<"):
        assert absent not in page.partition("<body>")[2], absent


def test_the_page_of_a_pretraining_has_its_scores_and_curves(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    run = train("demo_pretrain", (*TINY, "train.max_steps=2"), made_data, tmp_path / "run")
    preds = tmp_path / "p.jsonl"
    assert clipbert("infer", "--run", run, "--split", "val", "-o", preds).returncode == 0
    page = report(clipbert, tmp_path / "r.html", preds, "--run", run)
    found = json.loads(clipbert("eval", preds, "--json").stdout)
    assert f"masked words % {found['mlm_accuracy']:.1f}</b>" in page
    assert f'matching %</bdi></td><td class="n">{found["itm_accuracy"]:.1f}</td>' in page
    assert len(pictures(page)) == len(rows(page)) == found["count"]
    training = page.partition('id="training"')[2]
    for curve in ("mlm", "itm", "validation mlm accuracy", "validation itm loss"):
        assert f"</svg>{curve}</li>" in training
    assert "validation masked words" not in page


@pytest.mark.parametrize("failed", [0, 2, 3])
def test_failed_media_of_retrieval_have_a_reason_and_no_score(
    clipbert: Clipbert, retrieval_run: Path, tmp_path: Path, failed: int
) -> None:
    preds = tmp_path / "p.jsonl"
    assert clipbert("infer", "--run", retrieval_run, "--split", "test", "-o", preds).returncode == 0
    # The first line has the texts.
    lines = [json.loads(each) for each in preds.read_text().splitlines()]
    own = lines[failed + 1]
    lines[failed + 1] = {"media_id": own["media_id"], "media_error": "cut <off"}
    page = report(clipbert, tmp_path / "r.html", written(preds, lines), "--run", retrieval_run, "--split", "test")
    shown = [row for row in rows(page) if row["media"] == own["media_id"]]
    assert shown
    assert {(row["score"], row["answer"]) for row in shown} == {("", str(len(lines) - 1))}
    assert page.count("media error: cut &lt;off") == len(shown)
    assert "-1.000" not in page
    assert "-2.000" not in page


def test_a_page_has_an_upper_bound(
    clipbert: Clipbert, made_data: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipbert_cli.report.thumbnails.PICTURE_BYTES", 20_000)
    page = report(
        clipbert, tmp_path / "r.html", predictions, "-r", "demo_qa", "--split", "test", "--data-root", made_data
    )
    assert sum(len(each.tobytes()) for each in pictures(page)) > 0
    assert len(page) < 200_000
    assert "pictures were left out, because the page would be too large" in page


BASELINE = {"event": "baseline", "step": 4, "split": "val", "metric": "accuracy"}


@pytest.mark.parametrize(
    ("scored", "said"),
    [
        ({"black_frames": {"accuracy": 12.34}}, ["accuracy 12.3 with black frames (val, step 4)"]),
        (
            {"guess": {"what": "the most frequent answer, <b>", "accuracy": 7.0}},
            ["by the most frequent answer, &lt;b&gt; ("],
        ),
        (
            {"black_frames": {"accuracy": 1.0}, "guess": {"what": "chance", "accuracy": 2.0}},
            ["accuracy 1.0 with black frames", "accuracy 2.0 by chance"],
        ),
    ],
)
def test_what_the_run_scored_without_looking_is_beside_the_score(
    scored: dict[str, Any], said: list[str], clipbert: Clipbert, trained_run: Path, predictions: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run", symlinks=True)
    for record in ({"black_frames": {"accuracy": 99.0}}, scored):  # the last one counts
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write(json.dumps(BASELINE | record) + "\n")
    page = report(clipbert, tmp_path / "r.html", predictions, "--run", run, "--split", "test")
    head = page[: page.index("<h2")]
    assert head.count("without looking: ") == len(said)
    assert all(each in head for each in said)
    assert "99.0" not in head
    blind = ["--blind", predictions]
    page = report(clipbert, tmp_path / "b.html", predictions, "--run", run, "--split", "test", *blind)
    assert "without looking: " not in page
    assert "without looking" in report(clipbert, tmp_path / "t.html", "--run", run)


@pytest.mark.parametrize("length", [119, 120, 121, 5000])
def test_a_long_text_is_cut_in_tables_of_counts_and_whole_in_its_title(length: int, tmp_path: Path) -> None:
    text = "<" + "x" * (length - 1)
    template = _environment().from_string('{% from "charts.html" import counts %}{{ counts("", ("a", "b"), rows) }}')
    page = template.render(rows=[(text, "1")])
    assert page.count("x" * (length - 1)) == 1
    assert ("title=" in page) == (length > 120)
    assert "<x" not in page


def test_trainings_alone_are_compared(
    clipbert: Clipbert, trained_run: Path, retrieval_run: Path, tmp_path: Path
) -> None:
    page = report(clipbert, tmp_path / "r.html", "--run", trained_run, "--run", retrieval_run)
    assert "tiny: loss" in page
    assert "retrieval: loss" in page
    assert 'id="examples"' not in page
    empty = tmp_path / "empty"
    shutil.copytree(trained_run, empty, symlinks=True)
    for name in ("metrics.jsonl", "environment.json"):
        (empty / name).unlink()
    assert "no numbers yet" in report(clipbert, tmp_path / "e.html", "--run", empty)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither PREDS nor --run is given"),
        (["run"], "PREDS is run, a run: predictions are expected"),
        (["p.jsonl"], "--recipe or --run is missing"),
        (["p.jsonl", "-r", "demo_qa"], "--split is missing"),
        (["--run", "run", "--against", "p.jsonl"], "without PREDS"),
    ],
)
def test_wrong_usage_is_one_message(clipbert: Clipbert, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "p.jsonl").write_text('{"media_id": "a", "text_digest": "b"}\n')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    done = clipbert("report", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "run"]


@pytest.mark.parametrize("command", ["report", "eval"])
@pytest.mark.parametrize("given", [[], ["-r", "demo_qa"], ["--split", "test"]])
def test_the_hint_names_the_command_that_was_used(
    clipbert: Clipbert, tmp_path: Path, command: str, given: list[str]
) -> None:
    (tmp_path / "p.jsonl").write_text('{"media_id": "a", "text_digest": "b"}\n')
    done = clipbert(command, "p.jsonl", *given, cwd=tmp_path)
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert f"name them: clipbert {command} " in said


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_predictions_that_are_no_file_are_one_message(clipbert: Clipbert, tmp_path: Path, name: str) -> None:
    done = clipbert("report", name, cwd=tmp_path)
    assert done.returncode == 2
    assert "does not exist: predictions are expected" in done.stderr or "an empty folder: predictions" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_predictions_of_other_records_are_refused(
    clipbert: Clipbert, made_data: Path, predictions: Path, tmp_path: Path
) -> None:
    done = clipbert(
        "report", predictions, "-r", "demo_qa", "--split", "val", "--data-root", made_data, "-o", tmp_path / "r.html"
    )
    assert done.returncode == 1
    assert "these are predictions of split test, task open_ended_qa, and not of val" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_large_file_takes_seconds_and_little_memory(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    """5,000 predictions; without media, so that nothing is decoded."""
    records = [{"video_id": f"v{n // 10}", "question": f"q{n} ?", "answer": "red"} for n in range(5000)]
    top = [{"answer": f"a{n}", "score": 0.2} for n in range(5)]
    preds = written(tmp_path / "p.jsonl", [line(each, answer="a0", score=0.2, top=top) for each in records])
    settings = as_options(
        [f"data.splits.test.annotations={written(tmp_path / 'test.jsonl', records)}", "data.splits.test.media=absent"]
    )
    selected = ("-r", "demo_qa", "--split", "test", "--data-root", made_data, *settings)
    begin = time.process_time()
    report(clipbert, tmp_path / "all.html", preds, *selected, "--examples", "5000")
    assert time.process_time() - begin < 30
    peaks = []
    for examples in (20, 1000):
        tracemalloc.start()
        clipbert("report", preds, *selected, "--examples", examples, "-o", tmp_path / f"{examples}.html")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The page is written piece by piece.
    assert peaks[1] < peaks[0] + 2e6


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_printed_page_is_dark_on_white(scheme: str, clipbert: Clipbert, trained_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    report(clipbert, page, "--run", trained_run)
    with opened(page) as found:
        shown = found.page
        shown.emulate_media(media="print", color_scheme=scheme)
        style = "getComputedStyle(document.body)"
        assert shown.evaluate(f"[{style}.backgroundColor, {style}.color]") == ["rgb(255, 255, 255)", "rgb(28, 32, 36)"]
        assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1600])
def test_filters_and_sorting_work_and_foreign_text_is_text(
    clipbert: Clipbert, hostile: tuple[list[object], Path], trained_run: Path, tmp_path: Path, width: int
) -> None:
    file = tmp_path / "r.html"
    report(clipbert, file, hostile[1], *hostile[0], "--run", trained_run, "--against", hostile[1])
    for scheme in ("light", "dark"):
        with opened(file, width=width, scheme=scheme) as found:
            found.check(file)
            text = found.page.inner_text("body")
            assert text.count(f"</td>{ATTACK}") >= 6
            assert "a 'b' \"c\" & <i>d" in text
            assert f"broken {ATTACK}" in text
            assert found.shown_rows("examples-table") == 10
            for value, count in (("wrong", 7), ("right", 3), ("confident", 6), ("error", 1), ("better", 0), ("", 10)):
                found.page.select_option("select[name=flags]", value)
                assert found.shown_rows("examples-table") == count, value
            found.page.select_option("select[name=kind]", "who")
            assert found.shown_rows("examples-table") == 3
            found.page.fill("input[type=search]", "who 2")
            assert found.shown_rows("examples-table") == 1
            assert "1 of 10" in found.page.inner_text("output")
            found.page.fill("input[type=search]", "")
            headings = "th[data-sort]"
            assert found.attributes(headings, "aria-sort") == ["none"] * 4
            for place, name in enumerate(("media", "question", "answer", "score")):
                # A heading is reached and pressed with the keyboard alone, on small screens too.
                found.page.focus(f"th[data-sort={name}] button")
                for order in ("ascending", "descending"):
                    found.page.keyboard.press("Enter")
                    expected = ["none"] * 4
                    expected[place] = order
                    assert found.attributes(headings, "aria-sort") == expected
                    values = [each for each in found.column("examples-table", name) if each]
                    assert values == sorted(values, reverse=order == "descending")
                if name in ("answer", "score"):
                    # Failed media have neither: they are last in both orders.
                    assert found.column("examples-table", "media")[-1] == "gone"


def test_a_report_needs_no_torch(made_data: Path, trained_run: Path, predictions: Path, tmp_path: Path) -> None:
    arguments = [str(predictions), "--run", str(trained_run), "--split", "test", "-o", str(tmp_path / "r.html")]
    code = f"""
import sys
from clipbert_cli.commands.app import app
try:
    app(["report", *{arguments!r}])
except SystemExit as exc:
    assert not exc.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
