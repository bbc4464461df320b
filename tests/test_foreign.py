"""Files from strangers: whatever one holds, each reader of the package understands it or raises one known error."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
from hostile_inputs import SPECIAL, make_special

from clipbert_cli import foreign
from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.assets.convert import caption_lists, msvd, raw_files
from clipbert_cli.assets.partial_file import PartialFile
from clipbert_cli.commands.ask import _questions
from clipbert_cli.errors import ClipbertError, UnreadableError
from clipbert_cli.infer import made_by
from clipbert_cli.infer.prediction_lines import TextList
from clipbert_cli.infer.question_lines import parse, read_windows
from clipbert_cli.infer.score_folder import ScoreFolder, Scoring, read_scores
from clipbert_cli.media.frame_folder import folder_as_video
from clipbert_cli.model.bert_sizes import read_bert_sizes
from clipbert_cli.model.description import read_description
from clipbert_cli.model.hf_files import read_vision_model
from clipbert_cli.model.weights.weight_files import read_index, read_safetensors
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.report.results_page import run_facts
from clipbert_cli.runs.checkpoint import damage
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.process_exit import Ended, launch_error
from clipbert_cli.store import records
from clipbert_cli.store.lmdb_store import LmdbStore
from clipbert_cli.store.packing import Packer
from clipbert_cli.store.source import MediaFolder
from clipbert_cli.text.annotations import read_answers
from clipbert_cli.text.fields import Record, RecordError
from clipbert_cli.text.record_files import read_records
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.train.trackers import TrackedRun
from clipbert_cli.types import Example

PACKAGE = Path(foreign.__file__).parent

# ------------------------------------------------------------------------------------------ contents

DEEP = b"[" * 100_000
DEEP_OBJECTS = b'{"a":' * 100_000
DEEP_BUT_WHOLE = b"[" * 400 + b"]" * 400
LONG_INTEGER = b"1" * 5000

CONTENTS = {
    "nothing": b"",
    "nested lists": DEEP,
    "nested objects": DEEP_OBJECTS,
    "whole but deep": DEEP_BUT_WHOLE,
    "a long integer": LONG_INTEGER,
    "a long integer in a list": b'["a", ' + LONG_INTEGER + b"]",
    "a long integer in an object": b'{"step": -' + LONG_INTEGER + b', "format": 2}',
    "an integer that no float can hold": b'{"step": ' + b"9" * 400 + b"}",
    "a number too large": b'{"step": 1e999, "format": 1e999, "total_steps": -1e999}',
    "not a number": b'{"step": NaN, "files": NaN, "media": Infinity}',
    "Latin-1": b'{"a": "caf\xe9"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "half an object": b'{"a": 1, "b',
    "half a surrogate pair": b'{"a": "\\ud83d"}',
    "a null character": b'{"a\x00": 1}',
    "null": b"null",
    "a list": b"[]",
    "a list of lists": b"[[1, 2], [3]]",
    "a number": b"3",
    "a text": b'"text"',
    "a name twice": b'{"format": 1, "media_id": "a", "format": 2}',
    "an object of others": b'{"format": [], "complete": {}, "kind": 3, "files": 7, "media": 1, "clipbert": 1}',
    "binary": bytes(range(256)) * 20,
    "open quotes": b'"\\"' * 3000,
}

# ------------------------------------------------------------------------------------------ readers

SCORING = Scoring(("a",), TextList.of([Example(None, "a", ("t",))]), digest="0", batch_size=1)


def stored(key: bytes, read: Callable[[LmdbStore], object]) -> Callable[[Path], object]:
    """A reader of a record of a store that has the content of a file as that record."""

    def reader(path: Path) -> object:
        store = path.with_name("store")
        with lmdb.open(str(store), map_size=2**24, lock=False) as environment, environment.begin(write=True) as txn:
            txn.put(b"a", b"media")
            txn.put(records.MANIFEST_KEY, records.manifest_record(kind="video"))
            content = path.read_bytes()
            txn.put(key, content if key == records.MANIFEST_KEY else records.sealed({key: content})[key])
        return read(LmdbStore(store))

    return reader


def headed(path: Path) -> object:
    """Read a safetensors file that has the content of a file as its header."""
    if path.is_file():
        content = path.read_bytes()
        path.write_bytes(len(content).to_bytes(8, "little") + content)
    return read_safetensors(path)


def journal(path: Path) -> object:
    packer = SimpleNamespace(journal={b"a": path.read_bytes()})
    return Packer._outcome(packer, SimpleNamespace(media_id="a"))  # type: ignore[arg-type]


def cell(path: Path) -> object:
    text = path.read_bytes().decode(errors="replace")
    return Record("here", {"options": text}, typed=False).texts("options", count=2)


def scores(path: Path) -> object:
    np.save(path.with_name("scores.npy"), np.zeros((1, 1), np.float32))
    return read_scores(path.parent)


def partial(path: Path) -> object:
    with PartialFile(path.with_name("a"), checksum_known=True) as file:
        return file.source


def meta(predictions: Path) -> object:
    predictions.write_bytes(b"")
    return made_by.read_meta(predictions)


def questions(path: Path) -> object:
    with _questions(path) as stream:
        return list(read_windows(stream, lambda: None))


def medium(path: Path) -> object:
    with MediaFolder(path.parent, kind="video", files={"a": path}).reading("a") as data:
        return len(data)


def unfinished(path: Path) -> object:
    folder = ScoreFolder(path.parent.parent, SCORING)
    return folder._rows(0), folder._continued(overwrite=False)


def started(run: RunFolder) -> object:
    """Read environment.json in each of the ways in which it is used."""
    with contextlib.suppress(ClipbertError):
        run_facts(run)
    found = run.starts()
    run.begin({"host": "here"})
    return found


def described(path: Path) -> object:
    """Read a file as each of the descriptions that lie beside weights."""
    for read in (read_bert_sizes, read_description, read_vision_model):
        with contextlib.suppress(ClipbertError):
            read(path.parent)
    return read_index(path)


# "module: function" -> the name that a file has for it, and a call of it.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "assets.catalog: load_catalog": ("catalog.yaml", load_catalog),
    "assets.convert.raw_files: read_json": ("a.json", raw_files.read_json),
    "assets.convert.raw_files: read_records": ("a.jsonl", lambda path: list(raw_files.read_records(path))),
    "assets.convert.raw_files: read_pickle": ("a.pkl", raw_files.read_pickle),
    "assets.convert.caption_lists: _listed": ("a_list.txt", lambda path: list(caption_lists._listed(path))),
    "assets.convert.msvd: _mapping": ("youtube_mapping.txt", msvd._mapping),
    "assets.convert.raw_files: read_table": ("a.csv", lambda path: list(raw_files.read_table(path, separator=","))),
    "assets.partial_file: PartialFile._known_version": (
        "a.part.json",
        partial,
    ),
    "commands.ask: _questions": ("a.jsonl", questions),
    "infer.question_lines: parse": ("a", lambda path: parse(path.read_bytes(), 1)),
    "infer.score_folder: read_scores": ("ids.json", scores),
    "infer.score_folder: ScoreFolder._rows": ("unfinished/rows-0.npy", unfinished),
    "infer.score_folder: _holds": ("unfinished/state.json", unfinished),
    "model.weights.weight_files: read_object": ("config.json", described),
    "model.weights.weight_files: _check_header": ("model.safetensors", headed),
    "infer.made_by: read_meta": (made_by.meta_file(Path("a.jsonl")).name, lambda path: meta(path.with_name("a.jsonl"))),
    "train.trackers: TrackedRun.earlier": ("run.json", lambda path: TrackedRun("a", {}, 0, path.parent).earlier()),
    "media.frame_folder: folder_as_video": ("frames/1.png", lambda path: folder_as_video(path.parent, Fraction(1))),
    "recipe.values: read_text": ("a.yaml", load_recipe),
    "runs.checkpoint: read_state": ("state.json", lambda path: damage(path.parent)),
    "runs.folder: RunFolder.records": ("metrics.jsonl", lambda path: list(RunFolder(path.parent).records())),
    "runs.folder: RunFolder.starts": ("environment.json", lambda path: started(RunFolder(path.parent))),
    "runtime.process_exit: _first_failure": ("error.json", lambda path: launch_error(Ended(exit_code=1), path.parent)),
    "store.source: read_media_file": ("a.mp4", medium),
    "store.records: media_fields": ("a", stored(records.info_key("a"), lambda store: store.record("a"))),
    "store.records: manifest": ("a", stored(records.MANIFEST_KEY, LmdbStore.__len__)),
    "store.records: video_info": ("a", stored(records.info_key("a"), lambda store: store.info("a"))),
    "store.records: packet_table": ("a", stored(records.packets_key("a"), lambda store: store.packets("a"))),
    "store.packing: Packer._outcome": ("a", journal),
    "text.fields: Record._structured": ("a", cell),
    "text.record_files: _read_lines": ("a.jsonl", lambda path: list(read_records(path))),
    "text.record_files: _read_list": ("a.json", lambda path: list(read_records(path))),
    "text.record_files: _as_object": ("a.json", lambda path: list(read_records(path))),
    "text.record_files: _read_table": ("a.tsv", lambda path: list(read_records(path))),
    "text.annotations: read_answers": ("answers.json", read_answers),
    "text.tokenizer: _vocabulary": ("vocab.txt", lambda path: Tokenizer(path, max_length=20)),
    "text.tokenizer: _read": ("tokenizer.json", lambda path: Tokenizer(path.parent, max_length=20)),
}
# Parts of the readers above, and a reader of what the same command has just written.
PARTS = {
    "commands.completion_values: _yaml": "recipe.values: read_text",  # completion ignores every error
    "path_kinds: _file": "text.record_files: _read_list",  # the first bytes, which are compared
    "text.record_files: _reader": "text.record_files: _read_table",
    "text.record_files: _read": "text.record_files: _read_table",
    "commands.demo: _example_question": "runs.folder: RunFolder.records",
    "runtime.process_exit: _stated_kept": "runtime.process_exit: _first_failure",  # what cannot be read states nothing
    "commands.demo: _prepare": "infer.made_by: read_meta",  # a mark that is none counts as absent
}
# These files have a reader of their own, for content that is not text.
OTHER_READERS = {
    "assets.catalog",
    "assets.check_file",
    "assets.convert.record_writer",
    "assets.unpack",
    "commands.app",
    "infer.made_by",
    "commands.completion_values",
    "commands.output",
    "commands.terminal",
    "files",
    "foreign",
    "infer.score_folder",
    "media.container",
    "media.images",
    "model.weights.weight_files",
    "runs.checkpoint",
    "runtime.stopping",  # what the system says of a process
    "text.record_files",  # the first bytes of a regular file, to tell tables from JSON
    "store.ingest",
    "train.loop",
}
# An OSError names its file, and the command line prints it like one of ours.
KNOWN_ERRORS = (ClipbertError, RecordError, OSError)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_understands_or_refuses(reader: str, content: bytes, tmp_path: Path) -> None:
    check(reader, tmp_path, lambda path: path.write_bytes(content))


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_packed_record(reader: str, tmp_path: Path) -> None:
    """A packet table is compressed, and its header is JSON."""
    check(reader, tmp_path, lambda path: path.write_bytes(zlib.compress(DEEP + b"\n")))


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("reader", [reader for reader, (name, _) in READERS.items() if name != "a"])
def test_every_reader_refuses_what_is_no_regular_file(
    reader: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 107 characters
    started = time.monotonic()
    check(reader, tmp_path, lambda path: make_special(path, kind))
    assert time.monotonic() - started < 5


NAME_TWICE = {
    "assets.convert.raw_files: read_json": b'{"annotations": [],\n"annotations": [1]}',
    "assets.convert.raw_files: read_records": b'{"id": 1}\n{"annotations": 1, "annotations": 2}\n',
    "infer.made_by: read_meta": b'{"step": 1,\n"annotations": 1, "annotations": 2}',
    "infer.question_lines: parse": b'{"annotations": "a", "annotations": "b"}',
    "infer.score_folder: read_scores": b'{"media": [],\n"annotations": [], "annotations": [1]}',
    "model.weights.weight_files: read_object": b'{"weight_map": {"a": "b"},\n"annotations": {}, "annotations": 1}',
    "runs.checkpoint: read_state": b'{"files": {},\n"annotations": {}, "annotations": {"a": 1}}',
    "runs.folder: RunFolder.starts": b'[{"a": 1,\n"annotations": 1, "annotations": 2}]',
    "text.annotations: read_answers": b'{"a": 0,\n"annotations": 1, "annotations": 2}',
    "text.fields: Record._structured": b'[{"annotations": 1, "annotations": 2}]',
    "text.record_files: _read_lines": b'{"id": 1}\n{"annotations": 1, "annotations": 2}\n',
    "text.record_files: _read_list": b'[{"id": 1},\n{"annotations": 1, "annotations": 2}]',
    "text.record_files: _as_object": b'{"a": {},\n"annotations": {},\n"annotations": {"a": 1}}',
    "text.tokenizer: _read": b'{"a": 1,\n"annotations": 1, "annotations": 2}',
}


@pytest.mark.parametrize("reader", NAME_TWICE)
def test_a_name_that_an_object_has_twice_is_named_with_its_file(reader: str, tmp_path: Path) -> None:
    """The last value would count here, and the first one in other programs."""
    name, read = READERS[reader]
    path = tmp_path / name
    path.write_bytes(NAME_TWICE[reader])
    try:
        outcome = str(read(path))
    except KNOWN_ERRORS as exc:
        outcome = str(exc)
    assert "has the name 'annotations' twice" in outcome
    if name != "a":
        assert re.search(rf"{re.escape(str(path))}(:2|, record 1)?: ", outcome)


def check(reader: str, folder: Path, write: Callable[[Path], object]) -> None:
    name, read = READERS[reader]
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    write(path)
    message = ""
    try:
        read(path)
    except KNOWN_ERRORS as exc:
        message = str(exc)
    assert len(message) < 2000


# ------------------------------------------------------------------------------------------ every reader is above


def functions(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST]]:
    """The functions and methods of a module with their names; a function inside another belongs to the outer one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield name + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{name}{node.name}.")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        yield module, ast.parse(path.read_text(encoding="utf-8"))


READING = {
    "open_file",
    "first_bytes",
    "read_bytes",
    "read_json_list",
    "read_text",
    "read_json",
    "read_lines",
    "read_text_lines",
    "open_text",
    "lines_of",
    "map_array",
}
PARSING = {"parse_json"}


def test_the_table_has_every_function_that_reads_or_parses() -> None:
    found = set()
    for module, tree in modules():
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "clipbert_cli.foreign"
            for alias in node.names
        }
        for name, function in functions(tree):
            called = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
            if called & (imported & (READING | PARSING) | {f"foreign.{each}" for each in READING | PARSING}):
                found.add(f"{module}: {name}")
    assert found == READERS.keys() | PARTS.keys()
    assert set(PARTS.values()) <= READERS.keys()


PARSERS = re.compile(r"json\.loads?|json\.JSONDecoder|np\.load")
FORBIDDEN = re.compile(r".*\.read_text|.*\.read_bytes|open|.*\.open|os\.open|torch\.load")


def test_no_other_function_opens_files_or_parses_json() -> None:
    own = {"foreign.read_text", "foreign.read_bytes"}
    found = set()
    for module, tree in modules():
        for node in ast.walk(tree):
            assert module == "foreign" or not PARSERS.fullmatch(ast.unparse(getattr(node, "func", node)))
            if isinstance(node, ast.Call) and FORBIDDEN.fullmatch(called := ast.unparse(node.func)):
                writes = "write" in called or any(
                    isinstance(each, ast.Constant) and str(each.value) in ("w", "wb", "xb", "ab", "a")
                    for each in [*node.args, *(keyword.value for keyword in node.keywords)]
                )
                if (
                    called not in own
                    and not called.startswith(("lmdb.", "self.", "zipped.", "received."))
                    and not writes
                ):
                    found.add(module)
    assert found <= OTHER_READERS


# ------------------------------------------------------------------------------------------ the functions themselves


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"a": [1,\n}', r"here:3: not JSON \(Expecting value at column 1\)"),
        ("[\n\n" + "[" * 100 + "]" * 101, "here: not usable JSON: more than 64 lists and objects in each other"),
        (
            "[1,\n" + "7" * 4301 + "]",
            r"here:2: not usable JSON: the number 7{27}\.\.\. does not fit into 64 bits",
        ),
        ("[9223372036854775808]", "here:1: not usable JSON: the number 9223372036854775808"),
        ("[-9223372036854775809]", "here:1: not usable JSON: the number -9223372036854775809"),
        ("[1e999]", "here:1: not usable JSON: the number 1e999 does not fit"),
        ("[1,\nNaN]", "here:2: not usable JSON: NaN is no JSON number"),
        ("[-Infinity]", "here:1: not usable JSON: -Infinity is no JSON number"),
        (b'["a",\n "\xff"]', r"here:2: not UTF-8 text \(byte 2 is 0xff\)"),
        ('["' + '\\"[' * 100, "here:1: not JSON"),
        ('{"a": 1, "b": 2,\n"a": 1}', "here: not usable JSON: one object has the name 'a' twice: remove one of them"),
        (
            '[{"a": 1}, {"b": "a", "a": 1},\n\n{"a": {"a": 1, "c": 2,\n"\\u0061": 2}}]',
            "here: .* has the name 'a' twice",
        ),
        ('{"a\\"": "a\\":", "b": {"c": 1,\n "c" :2}, "a\\"": 3}', "here: .* has the name 'c' twice"),
        ('{"' + "x" * 99 + '": 1, "' + "x" * 99 + '": 2}', r"here:1: .* has the name 'x{57}\.\.\.' twice"),
        (b'{"": 1,\n"": 2}', "here: .* has the name '' twice"),
        ("[" * 10**6, "here:1: not usable JSON: more than 64"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str | bytes, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        foreign.parse_json(text, "here")


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"a": {"b": 1}, "b": [{"a": 2}, {"a": 2}]}, "b": 3, "": {"": '"a": "a":'}},
        {"a": [1, -(2**63), 2**63 - 1, 0.5, None, True, "\ud83d", "[" * 100, '\\"' * 100]},
        [[[[]]]] * 100,
        json.loads("[" * 64 + "]" * 64),
    ],
)
def test_values_within_the_limits_are_read_as_they_were_written(value: object) -> None:
    assert foreign.parse_json(json.dumps(value), "here") == value


@pytest.mark.parametrize(
    "text",
    [
        "[" + "{}," * 1000 + "0]",
        "[" + "[]," * 1000 + "0]",
        "{" + ",".join(f'"{number}": 0' for number in range(1000)) + "}",
        "[" + '{"a":[]},' * 334 + "0]",
        '{"a":' * 60 + "[" + "{}," * 1000 + "0]" + "}" * 60,
    ],
)
def test_the_number_of_lists_objects_and_names_is_limited_before_they_are_made(text: str) -> None:
    assert foreign.parse_json(text, "here")
    with pytest.raises(UnreadableError, match="more than 1000 lists, objects and names of fields"):
        foreign.parse_json(text, "here", max_parts=1000)


def test_a_file_is_not_read_beyond_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1001)
    with pytest.raises(UnreadableError, match="more than 1000 bytes"):
        foreign.read_bytes(path, limit=1000)
    with pytest.raises(UnreadableError, match=r"a:1: the line has more than 1000 bytes"):
        list(foreign.read_lines(path, limit=1000))
    assert foreign.read_text(path, limit=1001) == "x" * 1001


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbf[1]\n\xef\xbb\xbf[2]\n")
    assert foreign.read_text(path).startswith("[1]")
    assert [line[:3] for _, line in foreign.read_lines(path)] == [b"[1]", b"\xef\xbb\xbf"]
    with foreign.open_text(path) as file:
        assert file.read(3) == "[1]"


def read_pipe(command: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that reads what a shell passes as `sys.argv[1]`."""
    program = (
        f"import sys; from pathlib import Path; from clipbert_cli import foreign; path = Path(sys.argv[1]); {code}"
    )
    shell = f"exec {sys.executable} -c '{program}' <({command})"
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=20)


def test_process_substitution_is_read_within_bounds() -> None:
    assert read_pipe("sleep 0.2; echo [1]", "print(foreign.read_json(path))").stdout == "[1]\n"
    assert read_pipe(
        "sleep 0.2; echo [1]", "print(list(foreign.read_lines(path)))"
    ).stdout == '[(1, b"[1]\\n")]\n'.replace('"', "'")
    assert "more than 9 bytes" in read_pipe("yes", "foreign.read_bytes(path, limit=9)").stderr
    endless = "while sleep 0.05; do echo; done"
    assert (
        "did not end within 1 seconds"
        in read_pipe(endless, "foreign.PIPE_SECONDS = 1; foreign.read_bytes(path)").stderr
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:5],
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content.replace(b"(3, 2)", b"(3,-2)"),
        lambda content: content.replace(b"(3, 2)", b"((((((").replace(b"'<f4'", b"'|O' "),
        lambda content: content.replace(b"(3, 2)", b"(9**9)"),
        lambda content: content.replace(b"'<f4'", b"'|O' "),
        lambda content: content.replace(b"{'descr", b"[[[[[[["),
        lambda content: content.replace(b"(3, 2)", b'"\n\x00"),'),
        lambda content: b"PK\x03\x04" + content,
    ],
)
def test_a_damaged_array_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((3, 2), np.float32))
    assert foreign.map_array(path).sum() == 6
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UnreadableError, match=r"a\.npy: not an array of numbers"):
        foreign.map_array(path)
