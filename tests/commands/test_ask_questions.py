"""`ask --questions`: JSON lines in, JSON lines out, answered while further ones are written."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from running import Clipbert, ClipbertProcess, Finished

from clipbert_cli.media import frames


def videos(made_data: Path) -> list[str]:
    return [str(video) for video in sorted((made_data / "videos").glob("test*.mp4"))]


def as_lines(questions: Sequence[dict[str, Any] | str]) -> str:
    return "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in questions)


def rows(done: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_answers_are_those_of_single_questions_in_order_with_other_fields_kept(
    clipbert: Clipbert, made_data: Path, trained_run: Path, tmp_path: Path
) -> None:
    asked = [
        {"id": number, "video": video, "question": question, "note": {"nested": ["ü", None]}}
        for number, (question, video) in enumerate(
            (question, video)
            for question in ("what shape is red ?", "where is the circle ?", "what color is the bar ?")
            for video in videos(made_data)
        )
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text(as_lines(asked))
    done = clipbert("ask", "--run", trained_run, "--questions", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert [{name: row[name] for name in asked[0]} for row in rows(done)] == asked
    single = clipbert(
        "ask", "--run", trained_run, *(word for video in videos(made_data) for word in ("--video", video)),
        *dict.fromkeys(str(each["question"]) for each in asked), "--json",
    )  # fmt: skip
    expected = {(row["video"], row["question"]): row for row in json.loads(single.stdout)}
    for row in rows(done):
        same = expected[row["video"], row["question"]]
        assert row["answer"] == same["answer"]
        assert row["score"] == pytest.approx(same["score"], abs=1e-5)
    assert clipbert("ask", "--run", trained_run, "--questions", "-", stdin=as_lines(asked)).stdout == done.stdout


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('{"video": "x.mp4", "question": ', "not JSON ("),
        ('["video"]', "a JSON list, but must be an object"),
        ('{"question": "what ?"}', "neither video nor image"),
        ('{"video": "a.mp4", "image": "a.png", "question": "what ?"}', "video and image"),
        ('{"video": "a.mp4"}', "question is null"),
        ('{"video": "a.mp4", "question": "  "}', 'question is "  "'),
        ('{"video": 7, "question": "what ?"}', "video is 7"),
        ('{"video": "absent.mp4", "question": "what ?"}', "no such video file: absent.mp4"),
        ('{"video": "a.mp4", "question": "what ?", "options": "yes"}', 'options is "yes"'),
        ('{"video": "a.mp4", "question": "what ?", "options": ["yes", "no"]}', "does not choose between options"),
        ('{"video": "a.mp4", "question": "what ?", "x": NaN}', "NaN is no JSON number"),
        ("[" * 100_000, "more than 64 lists and objects in each other"),
    ],
)
def test_a_bad_line_is_an_answer_with_its_error_and_the_others_are_answered(
    clipbert: Clipbert, made_data: Path, trained_run: Path, line: str, error: str
) -> None:
    good = {"video": videos(made_data)[0], "question": "what shape is red ?"}
    done = clipbert("ask", "--run", trained_run, "--questions", "-", stdin=as_lines([good, line, good]))
    assert done.returncode == 1
    first, bad, last = rows(done)
    # The place of a row in a batch may change the last digits of its scores, as processors do.
    tops = [{each["answer"]: each["score"] for each in row.pop("top")} for row in (first, last)]
    assert tops[0] == pytest.approx(tops[1])
    assert first.pop("score") == pytest.approx(last.pop("score"))
    assert first == last
    assert "answer" in first
    assert error in bad["error"]
    assert done.stderr == "1 of 3 questions have no answer: their lines have the reason as `error`\n"


def test_a_damaged_file_is_the_error_of_its_questions_alone(
    clipbert: Clipbert, made_data: Path, trained_run: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(Path(videos(made_data)[0]).read_bytes()[:900])
    asked = [{"video": video, "question": "what ?"} for video in (str(damaged), *videos(made_data), str(damaged))]
    done = clipbert("ask", "--run", trained_run, "--questions", "-", stdin=as_lines(asked))
    assert done.returncode == 1
    assert ["error" in row for row in rows(done)] == [True, False, False, False, False, True]
    assert "damaged" in rows(done)[0]["error"]


def test_words_that_the_model_does_not_know_are_warned_of(
    clipbert: Clipbert, made_data: Path, trained_run: Path, retrieval_run: Path
) -> None:
    video = made_data / "videos" / "test0000.mp4"
    asked = ["zebra giraffe", "what gnu ?", "what shape is red ?"]
    done = clipbert("ask", "--run", trained_run, "--video", video, *asked)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    first, second = done.stderr.splitlines()
    assert first.startswith("warning: the model's vocabulary has no word of 'zebra giraffe'")
    assert second.startswith("warning: the model's vocabulary has not 'gnu' of 'what gnu ?'")
    lines = "".join(json.dumps({"video": str(video), "question": question}) + "\n" for question in asked)
    done = clipbert("ask", "--run", trained_run, "--questions", "-", stdin=lines)
    assert done.returncode == 0
    assert "2 of 3 questions or their options have words that are not in the vocabulary" in done.stderr
    done = clipbert("search", made_data / "videos", "a zebra", "a red circle", "--run", retrieval_run)
    assert done.returncode == 0
    assert done.stderr.count("warning: the model's vocabulary has not 'zebra' of 'a zebra'") == 1


def test_only_mistakes_come_out_too(clipbert: Clipbert, trained_run: Path) -> None:
    done = clipbert("ask", "--run", trained_run, "--questions", "-", stdin="x\n\ny\n")
    assert (done.returncode, len(rows(done))) == (1, 2)
    assert [row["line"] for row in rows(done)] == [1, 3]
    nothing = clipbert("ask", "--run", trained_run, "--questions", "-", stdin="")
    assert (nothing.returncode, nothing.stdout) == (0, "")


def test_a_video_is_decoded_once_however_often_it_is_asked_about(
    clipbert: Clipbert, made_data: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    original = frames.rgb_frames
    monkeypatch.setattr(frames, "rgb_frames", lambda *given, **named: decoded.append(1) or original(*given, **named))
    asked = [{"video": video, "question": f"what {n} ?"} for n in range(100) for video in videos(made_data)]
    done = clipbert("ask", "--run", trained_run, "--questions", "-", stdin=as_lines(asked))
    assert len(rows(done)) == 400
    assert len(decoded) == 4


def test_options_and_images_are_asked_about_in_one_stream(
    clipbert: Clipbert, made_data: Path, choice_run: Path, tmp_path: Path
) -> None:
    from PIL import Image

    picture = tmp_path / "a.png"
    Image.new("RGB", (90, 60), (200, 30, 30)).save(picture)
    options = ["a red bar", "a blue ring", "a green dot", "a white box"]
    asked = [
        {"video": videos(made_data)[0], "question": "which ?", "options": options},
        {"image": str(picture), "question": "which ?", "options": options[:2]},
        {"video": videos(made_data)[1], "question": "which ?", "options": options[:3]},
        {"video": videos(made_data)[1], "question": "which ?", "options": options[:1]},
    ]
    done = clipbert("ask", "--run", choice_run, "--questions", "-", stdin=as_lines(asked))
    assert done.returncode == 1
    *answered, without = rows(done)
    assert "option" in without["error"]
    for row, question in zip(answered, asked, strict=False):
        assert row["options"] == question["options"]
        assert row["option"] in question["options"]


@pytest.fixture
def asking(clipbert_process: ClipbertProcess, made_data: Path, trained_run: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that waits for questions."""
    arguments = ("ask", "--run", trained_run, "--questions", "-")
    with clipbert_process(*arguments, stdin=subprocess.PIPE, cwd=made_data / "videos") as process:
        yield process


def ask(process: subprocess.Popen[str], **fields: Any) -> None:
    assert process.stdin
    process.stdin.write(json.dumps({"video": "test0000.mp4", "question": "what ?", **fields}) + "\n")
    process.stdin.flush()


def test_a_question_is_answered_before_the_next_one_is_written(asking: subprocess.Popen[str]) -> None:
    assert asking.stdin
    assert asking.stdout
    assert asking.stderr
    for number in range(3):
        ask(asking, number=number)
        assert json.loads(asking.stdout.readline())["number"] == number
    # Whoever reads the answers leaves: the command ends without a word.
    asking.stdout.close()
    ask(asking)
    asking.stdin.close()
    assert asking.wait(60) == 0
    assert asking.stderr.read() == ""


def test_ctrl_c_while_no_question_is_there_ends_the_command(asking: subprocess.Popen[str]) -> None:
    assert asking.stdout
    assert asking.stderr
    ask(asking)
    asking.stdout.readline()
    asking.send_signal(signal.SIGINT)
    assert asking.wait(60) == 130
    assert asking.stderr.read() == "error: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--questions", "absent.jsonl"], "--questions is absent.jsonl, which does not exist"),
        (["--questions", "-", "what ?"], "--questions is given together with"),
        (["--questions", "-", "--video", "a.mp4"], "--questions is given together with"),
        (["--questions", "-", "--option", "a"], "--questions is given together with"),
        (["--video", "a.mp4"], "QUESTION is missing"),
    ],
)
def test_wrong_usage_is_one_message(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "a.mp4").touch()
    done = clipbert("ask", "--run", trained_run, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_a_search_reads_one_text_per_line(clipbert: Clipbert, made_data: Path, retrieval_run: Path) -> None:
    search = ("search", made_data / "videos", "--run", retrieval_run, "--top", "2", "--json")
    named = clipbert(*search, "a red circle", "a blue bar")
    read = clipbert(*search, "-", stdin="a red circle\n\n  a blue bar \n")
    assert (read.returncode, read.stderr) == (0, "")
    assert read.stdout == named.stdout
    nothing = clipbert(*search, "-", stdin="\n")
    assert nothing.returncode == 2
    assert "stdin has no text" in nothing.stderr
