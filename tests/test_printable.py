"""Text from strangers reaches no terminal as it is: not in messages, tables, results or JSON."""

from __future__ import annotations

import ast
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lmdb
import pytest
import torch
from fetching import QUICK
from made_media import image, marked_frame, video
from running import Clipbert, Finished
from safetensors.torch import save_file

from clipbert_cli import printable as module
from clipbert_cli.assets import fetch
from clipbert_cli.commands import terminal
from clipbert_cli.errors import AnnotationError, ClipbertError
from clipbert_cli.printable import LONGEST, clipped, listed, printable
from clipbert_cli.recipe.values import nested as values_of
from clipbert_cli.recipe.values import read_yaml, write_yaml

COMMANDS = Path(module.__file__).parent / "commands"

HOSTILE = "\x1b[31mred\x1b]0;title\x07\nerror: fake\r\x9b2J\u202egnp\u2028"
NAME = HOSTILE.replace("/", "")
"""The same as a file name."""


def is_safe(done: Finished) -> bool:
    """Whether a terminal obeys nothing of the output, and no line of it is made up."""
    lines = (done.stdout + done.stderr).split("\n")
    return all(line.replace("\t", "").isprintable() and not line.startswith("error: fake") for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("naïve 日本語 🎬", "naïve 日本語 🎬"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\udce9", "\\udce9"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\U000e0041", "\\U000e0041"),
        ("C:\\new", "C:\\new"),
        ("", ""),
    ],
)
def test_what_is_not_printable_is_escaped_once(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_an_error_has_the_lines_that_it_was_given() -> None:
    assert str(ClipbertError("a\nb")) == "a\\nb"
    assert str(AnnotationError(["a\nb", "c"])) == "a\\nb\nc"


@pytest.mark.parametrize("text", ["", "a" * LONGEST, "\x1b" * LONGEST])
def test_a_line_that_can_be_read_is_shown_whole(text: str) -> None:
    assert clipped(text) == text


@pytest.mark.parametrize(
    "print_it",
    [
        lambda text: terminal.error(*ClipbertError(text).lines),
        lambda text: terminal.error("a", hint=ClipbertError("a", hint=text).hint),
        lambda text: terminal.error(*AnnotationError(["a", text]).lines),
        lambda text: terminal.warn(text),
        lambda text: terminal.warn("a", text),
        lambda text: terminal.note(text),
        lambda text: print(json.dumps({"error": str(AnnotationError(text))})),
    ],
)
def test_of_a_long_line_of_a_message_start_and_end_are_shown(
    print_it: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    print_it("a.jsonl:7: answer is " + "x" * 10_000_000 + ": it must be text")
    shown = "".join(capsys.readouterr())
    assert "a.jsonl:7: answer is xxx" in shown
    assert " characters) ... xxx" in shown.replace("\n", " ")
    assert ": it must be text" in shown
    assert len(shown) < LONGEST + 100


def test_long_lists_end_with_the_number_of_the_others() -> None:
    assert listed(["a"] * 20) == ["a"] * 20
    assert listed(["a"] * 90_000) == [*["a"] * 20, "... and 89980 more"]


def test_a_mistake_in_many_places_is_listed_once() -> None:
    mistakes = [f"a.jsonl:{line}: answer is missing" for line in range(1, 40)]
    others = [f"a.jsonl:{line}: question is missing" for line in range(50, 53)]
    assert listed([*mistakes, *others]) == ["a.jsonl:1: answer is missing (and 38 more like this)", *others]
    assert listed(mistakes[:3]) == mistakes[:3]


def test_yaml_is_printable_and_reads_back_as_it_was() -> None:
    value = {"name": HOSTILE, "task": "naïve", "path": "a\xa0b"}
    text = write_yaml(value)
    assert all(line.isprintable() for line in text.split("\n"))
    assert values_of(read_yaml(text, "here", [])) == value
    assert "naïve" in write_yaml({"task": "naïve"})


# ------------------------------------------------------------------------------------------ commands


def from_file_names(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    (folder / "videos").mkdir()
    (folder / "videos" / f"{NAME}.mp4").write_bytes(video(4))
    (folder / "videos" / f"broken {NAME}.mp4").write_bytes(b"no video")
    (folder / "videos" / "sound.mp4").write_bytes(video(4))
    (folder / "videos" / f"{NAME}.xyz").write_bytes(b"")
    done = clipbert("pack", folder / "videos", folder / "store", "--workers", "0")
    assert "control character" in done.stderr
    yield done
    yield clipbert("pack", folder / f"absent {NAME}", folder / "new")
    yield clipbert("store", "ls", folder / f"absent {NAME}")


def from_stores(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    store = folder / "store"
    with lmdb.open(str(store), map_size=2**24, lock=False) as environment, environment.begin(write=True) as txn:
        txn.put(NAME.encode(), image(marked_frame(1)))
        txn.put(b"a\xff\x1b", b"no picture")
    yield clipbert("store", "ls", store)
    listing = clipbert("store", "ls", store, "--json")
    assert NAME in [item["id"] for item in json.loads(listing.stdout)]
    yield listing
    yield clipbert("store", "verify", store, "--workers", "0")
    yield clipbert("store", "show", store, NAME + "?", "-o", folder / "a.png")


def from_annotations(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    shutil.copytree(data / "txt_db", folder / "txt_db")
    for name in ("vis_db", "vocab.txt"):
        (folder / name).symlink_to(data / name)
    train = folder / "txt_db" / "train.jsonl"
    command = ("finetune", "--recipe", "demo_qa", "--data-root", folder, "--run", folder / "run", "--dry-run")
    first = json.loads(train.read_text(encoding="utf-8").split("\n")[0])
    for text in (
        json.dumps({HOSTILE: 1}),
        json.dumps({**first, "answer": HOSTILE}),
        json.dumps({**first, "video_id": HOSTILE}),
        HOSTILE,
        json.dumps([HOSTILE]),
        f'{{"a": "{HOSTILE}"',
    ):
        train.write_text(text, encoding="utf-8")
        yield clipbert(*command)
    table = folder / "txt_db" / "a.csv"
    table.write_text(f"video_id,{HOSTILE!r},\x1b[31m,\x1b[31m\n1,2,3,4\n", encoding="utf-8")
    yield clipbert(*command, "--set", "data.splits.train.annotations=txt_db/a.csv")
    table.write_text("video_id,\x1b[31m\n1,2,3\n", encoding="utf-8")
    yield clipbert(*command, "--set", "data.splits.train.annotations=txt_db/a.csv")
    (folder / "txt_db" / "answers.json").write_text(json.dumps({HOSTILE: 7}), encoding="utf-8")
    yield clipbert(*command, "--set", "data.answers=txt_db/answers.json")


def from_recipes(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    recipe = folder / f"{NAME}.yaml"
    for text in (
        f"{json.dumps(HOSTILE)}: 1\n",
        f"task: {json.dumps(HOSTILE)}\n",
        f"extends: {json.dumps(HOSTILE)}\n",
        "name: \x1b[31m\n",
        f"extends: demo_qa\nname: {json.dumps(HOSTILE)}\n",
        f"extends: demo_qa\ndata: {{root: {json.dumps('${' + HOSTILE + '}')}}}\n",
        f"name: !{HOSTILE!a} a\n",
    ):
        recipe.write_text(text, encoding="utf-8")
        yield clipbert("recipes", "validate", recipe)
        yield clipbert("recipes", "show", recipe)
    yield clipbert("recipes", "show", HOSTILE)
    yield clipbert("recipes", "explain", HOSTILE)


def from_runs(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    copy = shutil.copytree(run, folder / NAME, symlinks=True)
    yield clipbert("runs", "ls", folder)
    state = (copy / "latest" / "state.json").resolve()
    state.write_text(json.dumps({"metric": HOSTILE, "step": 1, "total_steps": HOSTILE}), encoding="utf-8")
    yield clipbert("runs", "ls", folder)
    yield clipbert("runs", "ls", folder, "--json")
    yield clipbert("runs", "export", copy, folder / "out", "--checkpoint", HOSTILE)
    state.write_text(json.dumps({"files": {HOSTILE: {"bytes": 1, "crc32": 1}}}), encoding="utf-8")
    yield clipbert("finetune", "--resume", copy, "--data-root", data)


def from_predictions(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    known = '{"text_digest": "0123456789abcdef", "media_id": "a"}'
    for text in (json.dumps({"example_id": HOSTILE}), HOSTILE, json.dumps({HOSTILE: 1}), json.dumps(HOSTILE)):
        text = f"{known}\n{text}"
        (folder / "preds.jsonl").write_text(text, encoding="utf-8")
        yield clipbert("eval", folder / "preds.jsonl", "--recipe", "demo_qa", "--split", "test", "--data-root", data)


def from_weights(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    save_file({HOSTILE: torch.zeros(1)}, folder / "a.safetensors")
    command = ("finetune", "--recipe", "demo_qa", "--data-root", data, "--run", folder / "run", "--dry-run")
    yield clipbert(*command, "--set", f"model.weights.bert={folder}/a.safetensors")
    known = "bert.embeddings.word_embeddings.weight"
    save_file({known: torch.zeros(1), f"bert.{HOSTILE}": torch.zeros(1)}, folder / "b.safetensors")
    yield clipbert(*command, "--set", f"model.weights.bert={folder}/b.safetensors")


def from_catalogues(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    catalogue = folder / "catalog.yaml"
    for text in (
        f"assets: {{msrvtt: {{title: {json.dumps(HOSTILE)}}}}}",
        f"assets: {{{json.dumps(HOSTILE)}: 1}}",
        f"files: {{coco/train2014.zip: {{sources: [{json.dumps('https://' + HOSTILE)}]}}}}",
        f"files: {{coco/train2014.zip: {{sources: [{json.dumps('https://here/' + HOSTILE)}]}}}}",
        json.dumps(HOSTILE),
    ):
        catalogue.write_text(text, encoding="utf-8")
        yield clipbert("assets", "ls", "--catalog", catalogue)
        yield clipbert("download", "coco", "--to", folder / "data", "--catalog", catalogue, "--dry-run")


@contextmanager
def server(reply: bytes) -> Iterator[str]:
    """An HTTP server that gives one reply to every request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/a"
        listening.shutdown(socket.SHUT_RDWR)


def from_servers(clipbert: Clipbert, data: Path, run: Path, folder: Path) -> Iterator[Finished]:
    catalogue = folder / "catalog.yaml"
    for reply in (
        b"HTTP/1.1 404 \x1b[31mred\x9b2J\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 499 \x1b]0;title\x07\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 a\r\nLocation: ftp://\xc2\x9b31m/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 ok\r\nContent-Type: \x1b[31m/\xc2\x9b\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 206 ok\r\nContent-Range: \x1b[31m\r\nContent-Length: 3\r\n\r\nabc",
    ):
        with server(reply) as url, pytest.MonkeyPatch.context() as patch:
            # The pauses before further attempts would take a quarter of a minute.
            patch.setattr(fetch, "Fetcher", partial(fetch.Fetcher, policy=QUICK))
            yield clipbert("assets", "check", "own", "--catalog", own_catalogue(catalogue, url))
            yield clipbert("download", "own", "--to", folder / "data", "--catalog", catalogue)


def own_catalogue(path: Path, url: str) -> Path:
    """A catalogue with an asset `own` of one file."""
    path.write_text(
        "files: {own/a.bin: {sources: ['" + url + "']}}\n"
        "assets: {own: {title: Own, licence: none, parts: {a: "
        "{title: A, kind: weights, files: [own/a.bin], folder: own, place: {own/a.bin: a.bin}}}}}\n"
    )
    return path


SOURCES = [
    from_file_names,
    from_stores,
    from_annotations,
    from_recipes,
    from_runs,
    from_predictions,
    from_weights,
    from_catalogues,
    from_servers,
]


@pytest.mark.parametrize("source", SOURCES, ids=[source.__name__ for source in SOURCES])
def test_no_command_prints_foreign_text_as_it_is(
    source: Callable[[Clipbert, Path, Path, Path], Iterator[Finished]],
    clipbert: Clipbert,
    made_data: Path,
    trained_run: Path,
    tmp_path: Path,
) -> None:
    shown, outputs = 0, []
    for number, done in enumerate(source(clipbert, made_data, trained_run, tmp_path)):
        outputs.append(done)
        assert is_safe(done), f"output {number} of {source.__name__}: {done!r}"
        shown += any(escape in done.stderr + done.stdout for escape in ("\\x1b", "\\u001b"))
    assert shown >= 2, outputs


PRINTING = ("print", "typer.echo", "sys.stdout.write", "sys.stderr.write", "Console")


def test_commands_print_with_the_functions_of_one_module() -> None:
    """Those make text printable. Files that a person asked for are written as they are."""
    found = {
        (path.name, ast.unparse(node.func))
        for path in COMMANDS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "typer.echo", "sys.stdout.write", "Console")
    }
    assert found - {(name, call) for name, call in found if name == "terminal.py"} == {
        ("app.py", "typer.echo"),
        ("completion.py", "print"),
    }
