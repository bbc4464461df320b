"""Hostile inputs by the thousand: a good world of small files, one of them changed, and a command that reads it.

A case is understood (exit code 0), or refused with one message (exit code 1 or 2) and nothing changed. Anything else is
a fault: an exception that nobody foresaw, several messages, raw control characters in them, a command that takes long.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from made_media import image, marked_frame, video
from running import TINY, Finished, contents, run_clipbert, train

from clipbert_cli.assets.demo_media import write_demo_media
from clipbert_cli.files import remove
from clipbert_cli.recipe.settings import all_settings
from clipbert_cli.recipe.shipped import shipped_folder, shipped_names
from clipbert_cli.store import records
from clipbert_cli.store.packing import pack_media

SECONDS = 60
"""The time in which a command must end on a machine with other work; `benchmarks/refused.py` measures it alone."""

LONGEST_MESSAGE = 20_000

Content = bytes | Callable[[Path], object]
"""The content of a file, or what makes it."""


# ------------------------------------------------------------------------------------------ the good world


@dataclass(frozen=True)
class Case:
    """An input: what is not as in the good world (files, records of the store `data/vis_db`), and a command."""

    command: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)
    records: Mapping[bytes, bytes] = field(default_factory=dict)


class World:
    """A folder in which every input is good, and a copy of it in which cases run."""

    def __init__(self, good: Path, used: Path) -> None:
        self.good, self.used = good, used
        shutil.copytree(good, used, symlinks=True)
        self.contents = contents(good)
        self.answer = ""
        """What the last command wrote to stderr."""

    @classmethod
    def make(cls, folder: Path) -> World:
        """Make the demo's data, train three small runs on them, and predict with each."""
        good = folder / "good"
        write_demo_media(good / "data", videos={"train": 4, "val": 2, "test": 2}, seed=1, progress=lambda: None)
        pack_media([good / "data/videos"], good / "data/vis_db", kind="video")
        for name, recipe in RUNS.items():
            train(recipe, (*TINY, "train.max_steps=2", "train.batch_size=2"), good / "data", good / name)
            # The copy has data of its own.
            recipe_file = good / name / "recipe.yaml"
            recipe_file.write_text(recipe_file.read_text().replace(str(good / "data"), "../data"))
            done = run_clipbert("infer", "--run", name, "--split", "test", "-o", f"{name}.jsonl", cwd=good)
            assert done.returncode == 0, done.stderr
        scores = ("infer", "--run", "retrieval", "--split", "test", "-o", "scores", "--format", "scores")
        assert run_clipbert(*scores, cwd=good).returncode == 0
        (good / "media").mkdir()
        for name, content in media().items():
            (good / "media" / name).write_bytes(content)
        return cls(good, folder / "used")

    def read(self, name: str) -> bytes:
        """Return the good content of a file."""
        return (self.good / name).read_bytes()

    def run(self, case: Case) -> str:
        """Run a case in this process and return its outcome.

        Raises:
            AssertionError: it is neither understood nor refused with one message and nothing changed.
        """
        self.place(case)
        before = contents(self.used)
        with time_limit(SECONDS):
            done = run_clipbert(*case.command, cwd=self.used, **VARIABLES)
        self.answer = done.stderr
        check(done)
        changed = {name for name, _ in contents(self.used).items() ^ before.items()}
        if "error: " not in done.stderr:  # it wrote its output, and says what is bad
            changed = {name for name in changed if not name.startswith(OUTPUT)}
        assert done.returncode == 0 or not changed, f"a refused command changed {sorted(changed)}: {done.stderr}"
        return "refused" if done.returncode else "understood"

    def place(self, case: Case) -> None:
        """Make the copy as the good world with the changes of a case."""
        self._restore()
        for name, content in case.files.items():
            path = self.used / name
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                content(path)
        if case.records:
            with (
                lmdb.open(str(self.used / "data/vis_db"), map_size=2**26, lock=False) as environment,
                environment.begin(write=True) as transaction,
            ):
                for key, value in case.records.items():
                    transaction.put(key, value)

    def _restore(self) -> None:
        """Make every entry of the copy as it is in the good world."""
        found = contents(self.used)
        for name in found:
            path = self.used / name
            if found[name] != self.contents.get(name) and os.path.lexists(path):
                remove(path)
        for name in self.contents:
            if found.get(name) != self.contents[name]:
                if self.contents[name] == "folder":
                    (self.used / name).mkdir()
                else:
                    shutil.copy2(self.good / name, self.used / name, follow_symlinks=False)


OUTPUT = "new"
"""How the names of all outputs begin."""

VARIABLES = {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


def each_case(world: World, kind: str, work: Callable[[Case], object], *, cases: int, number: int) -> None:
    """Do the work with so many cases of a kind, as `number` seeds them."""

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind](world))
    def each(case: Case) -> None:
        work(case)

    each()


# The peak of a process includes that of the one which started it, so a small one starts the command.
LAUNCHER = """
import json, resource, subprocess, sys, time
begin = time.perf_counter()
done = subprocess.run([sys.executable, "-m", "clipbert_cli", *sys.argv[2:]], stdin=subprocess.DEVNULL,
                      capture_output=True, text=True, errors="replace", timeout=float(sys.argv[1]))
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"ended": [done.returncode, done.stdout, done.stderr], "peak_mb": used.ru_maxrss / 1000,
                  "seconds": time.perf_counter() - begin, "cpu_seconds": used.ru_utime + used.ru_stime}))
"""


def measured(world: World, case: Case) -> dict[str, Any]:
    """Run a case in a process of its own; return the peak of its memory, its seconds, and what else is wrong."""
    world.place(case)
    launched = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(SECONDS), *case.command],
        cwd=world.used,
        env={**os.environ, **VARIABLES, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    if launched.returncode:
        return {"peak_mb": math.inf, "seconds": math.inf, "cpu_seconds": math.inf, "fault": launched.stderr[-200:]}
    row: dict[str, Any] = json.loads(launched.stdout)
    try:
        check(Finished(*row.pop("ended")))
    except AssertionError as exc:
        return {**row, "fault": str(exc)[:200]}
    return {**row, "fault": ""}


def check(done: Finished) -> None:
    """Raise AssertionError unless a command ended with its result or with one message."""
    everything = done.stdout + done.stderr
    assert done.returncode in (0, 1, 2), f"exit code {done.returncode}: {everything}"
    assert "Traceback" not in everything, everything
    assert "Warning: " not in done.stderr, done.stderr
    assert f"\n{done.stderr}".count("\nerror: ") <= (done.returncode != 0), done.stderr
    assert done.returncode == 0 or everything, "no message"
    assert len(done.stderr) < LONGEST_MESSAGE, f"{len(done.stderr)} characters: {done.stderr[:2000]}"
    assert all(line.isprintable() for line in done.stderr.split("\n")), repr(done.stderr)


class TooSlowError(BaseException):
    """A command that has not ended. No handler of `Exception` catches it."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlowError(f"not ended after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


RUNS = {"qa": "demo_qa", "choice": "demo_mc", "retrieval": "demo_retrieval"}


def media() -> dict[str, bytes]:
    """Return small good media by name, one or two per container and codec."""
    same = {"mbtree": "0", "g": "4"}
    made = {f"{ending}.{ending}": image(marked_frame(3), form) for ending, form in PICTURES.items()}
    for name, container in (("a.mp4", "mp4"), ("b.mkv", "matroska"), ("c.ts", "mpegts"), ("d.flv", "flv")):
        made[name] = video(8, container=container, options=same)
    made["e.mp4"] = video(8, codec="libx265", options={"x265-params": "keyint=4:log-level=none"})
    made["f.avi"] = video(8, codec="mpeg4", container="avi", options={"g": "4"})
    made["g.webm"] = video(8, codec="libvpx", container="webm", options={"g": "4", "cpu-used": "8"})
    made["h.webm"] = video(8, codec="libvpx-vp9", container="webm", options={"g": "4", "cpu-used": "8"})
    made["i.gif"] = video(8, codec="gif", container="gif")
    made["j.mpg"] = video(8, codec="mpeg2video", container="vob", options={"g": "4"}, rate=25)
    return made


PICTURES = {"png": "png", "jpg": "jpeg", "webp": "webp", "bmp": "bmp", "tiff": "tiff"}

# ------------------------------------------------------------------------------------------ changed content

TOKENS = (
    *[b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\x1b[2J", b"\n", b"\r", b"\r\n", b"\t", b" ", b'"', b"'"],
    *[b"[", b"]", b"{", b"}", b"[" * 70, b'{"a":' * 70, b'\\"', b",", b",,", b":", b": ", b"- ", b"#", b"|", b">"],
    *[b"!!python/object/apply:os.system ", b"!!binary ", b"!!set ", b"&a ", b"*a", b"<<: ", b"? ", b"---\n", b"..."],
    *[b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"9" * 30, b"9" * 5000, b"0x", b"1/0", b"1:30:99"],
    *[b"%YAML 9.9\n", b"${", b"${HOME}", b"2020-13-45", b"../../etc/passwd", b"/dev/zero", b"a" * 3000],
    *[b"\\u0000", b"\\ud800", "\u202e".encode(), "\u2028".encode(), "e\u0301".encode()],
)
VALUES = (
    *[None, True, False, 0, -1, 1, 2, 7, 100, 2**31, 2**63 - 1, -(2**63), 10**30, 0.5, -0.0, 1e-320, 1e308, -1e308],
    *["", " ", "a", "0", "1/0", "nan", "null", "a\nb", "\x1b[31m", "\x00", "\u202e", "e\u0301", "../..", "/dev/zero"],
    *["~", "${", "${HOME}", "a" * 3000, [], {}, [[]], [None], {"a": 1}, {"": ""}, [1, 2, 3], ["a", "a"], [0.5, 0.5]],
    *[{"a": {"a": {"a": []}}}, float("nan"), float("inf")],
)

tokens = st.sampled_from(TOKENS) | st.text(max_size=6).map(lambda text: text.encode(errors="replace"))
scalars = st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=4),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some places replaced, or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from((0, 1, 4)) | st.integers(0, 200))
        new = draw(st.binary(max_size=12)) if draw(st.integers(0, 3)) == 0 else draw(tokens)
        content = content[:start] + new + content[start + length :]
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 5)) == 0 else content


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one to three values in it replaced, removed or added."""
    for _ in range(draw(st.integers(1, 3))):
        *above, last = (None, *draw(st.sampled_from(list(places(value)))))
        root = parent = {None: json.loads(json.dumps(value))}
        for key in above:
            parent = parent[key]
        change = draw(st.sampled_from(("replace", "replace", "remove", "add")))
        if change == "replace" or len(above) == 0:
            parent[last] = draw(values)
        elif change == "remove":
            del parent[last]
        elif isinstance(parent, list):
            parent.insert(last, draw(values))
        else:
            parent[draw(st.text(max_size=8))] = draw(values)
        value = root[None]
    return value


@st.composite
def changed_json(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON text with other values, or damaged."""
    if draw(st.integers(0, 5)) == 0:
        return draw(damaged(content))
    return json.dumps(draw(altered(json.loads(content)))).encode()


@st.composite
def changed_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON lines of which one has other values or is twice there or missing, or damaged content."""
    lines = content.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    change = draw(st.sampled_from((*["alter"] * 8, "damage", "repeat", "remove")))
    if change == "damage":
        return draw(damaged(content))
    new = [draw(changed_json(lines[at]))] if change == "alter" else [lines[at]] * 2 if change == "repeat" else []
    return b"\n".join(lines[:at] + new + lines[at + 1 :])


# ------------------------------------------------------------------------------------------ kinds of cases

DATA = ("--recipe", "demo_qa", "--data-root", "data")
SMALL = tuple(word for setting in TINY for word in ("--set", setting))


@st.composite
def recipes(draw: st.DrawFn, world: World) -> Case:
    """A recipe whose text is damaged or has other values, or a setting as an option; sometimes the recipe of a run."""
    form = draw(st.sampled_from(("text", "value", "token", "token", "option", "whole")))
    keys = st.sampled_from([key.replace("NAME", "test") for key in all_settings()])
    command = draw(st.sampled_from(RECIPE_COMMANDS))
    if form == "option":
        setting = f"{draw(keys)}={draw(tokens).decode(errors='replace')}".replace("\x00", "")
        recipe = command[-1].replace("FILE", "demo_qa")
        return Case((*command[:-1], recipe, *DATA[2:], "--set", setting))
    if form == "text":
        name = draw(st.sampled_from(shipped_names()))
        content = draw(damaged((shipped_folder() / f"{name}.yaml").read_bytes()))
    elif form == "whole":
        content = world.read("qa/recipe.yaml")
    else:
        content = yaml.safe_dump(draw(altered(yaml.safe_load(world.read("qa/recipe.yaml"))))).encode()
    if form == "token":
        *sections, last = draw(keys).split(".")
        opening = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
        content = f"extends: demo_qa\n{opening}{'  ' * len(sections)}{last}: ".encode() + draw(tokens) + b"\n"
    return Case(tuple(word.replace("FILE", "a.yaml") for word in (*command, *DATA[2:])), {"a.yaml": content})


RECIPE_COMMANDS = (
    *[("recipes", "validate", "FILE"), ("recipes", "show", "FILE"), ("recipes", "answers", "FILE")],
    ("eval", "qa.jsonl", "--split", "test", "--recipe", "FILE"),
    ("finetune", "--dry-run", "--recipe", "FILE"),
)


@st.composite
def annotations(draw: st.DrawFn, world: World) -> Case:
    """Records of a split, as JSON lines, a JSON list or a table, or the list of answers."""
    task, folder = draw(st.sampled_from(list(ANNOTATED.items())))
    name = f"data/txt_db/{folder}test.jsonl"
    ending = draw(st.sampled_from(("jsonl", "json", "csv", "tsv", "answers")))
    lines = world.read(name)
    if ending == "answers":
        files = {"data/txt_db/answers.json": draw(changed_json(world.read("data/txt_db/answers.json")))}
    elif ending == "jsonl":
        files = {"data/txt_db/a.jsonl": draw(changed_lines(lines))}
    else:
        found = [json.loads(line) for line in lines.splitlines()]
        if ending == "json" or draw(st.integers(0, 3)):
            found = draw(altered(found))
        if ending == "json":
            content = draw(changed_json(json.dumps(found).encode()))
        else:
            content = draw(damaged(table(found, "," if ending == "csv" else "\t")))
        files = {f"data/txt_db/a.{ending}": content}
    recipe = ("--recipe", RUNS[task], "--data-root", "data")
    splits = [f"data.splits.{split}.annotations=txt_db/{Path(*files).name}" for split in ("train", "test")]
    options = [word for split in splits if ending != "answers" for word in ("--set", split)]
    command = draw(st.sampled_from([("eval", f"{task}.jsonl", "--split", "test"), *ANNOTATION_COMMANDS]))
    return Case((*command, *recipe, *options), files)


ANNOTATED = {"qa": "", "choice": "mc/", "retrieval": "retrieval/"}
ANNOTATION_COMMANDS = (
    ("preview", "--split", "test", "--examples", "3", "-o", "new.html"),
    ("finetune", "--dry-run"),
)


def table(found: Any, separator: str) -> bytes:
    """Return records, or what has become of them, as a table."""
    rows = [list(record.values()) if isinstance(record, dict) else [record] for record in flat(found)]
    rows = [[key for record in flat(found)[:1] if isinstance(record, dict) for key in record], *rows]
    cells = [[each if isinstance(each, str) else json.dumps(each) for each in row] for row in rows]
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in cells]
    return "\n".join(separator.join(row) for row in quoted).encode(errors="replace")


def flat(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


@st.composite
def predictions(draw: st.DrawFn, world: World) -> Case:
    """Predictions, their meta file, a folder of scores, or questions."""
    task = draw(st.sampled_from(list(RUNS)))
    form = draw(st.sampled_from(("lines", "lines", "meta", "scores", "questions")))
    if form == "questions":
        question = {"video": "media/a.mp4", "question": "what is it ?", "options": ["a", "b"]}
        files = {"a.jsonl": draw(changed_lines(json.dumps(question).encode()))}
        return Case(("ask", "--run", draw(st.sampled_from(("qa", "choice"))), "--questions", "a.jsonl"), files)
    if form == "scores":
        task, name = "retrieval", draw(st.sampled_from(SCORES))
        content = world.read(f"scores/{name}")
        files = {f"scores/{name}": draw(damaged(content) if name.endswith("npy") else changed_json(content))}
    else:
        name = f"{task}.jsonl" if form == "lines" else f"{task}.jsonl.meta.json"
        files = {name: draw(changed_lines(world.read(name)) if form == "lines" else changed_json(world.read(name)))}
    given = "scores" if form == "scores" else f"{task}.jsonl"
    recipe = draw(st.sampled_from((("--recipe", RUNS[task], "--data-root", "data"), ("--run", task))))
    command = draw(st.sampled_from((("eval", given), ("report", given, "-o", "new.html", "--examples", "2"))))
    return Case((*command, "--split", "test", *recipe), files)


SCORES = ("scores.npy", "ids.json")


@st.composite
def runs(draw: st.DrawFn, world: World) -> Case:
    """A file of a run, with the right checksum or a wrong one."""
    step = os.readlink(world.good / "qa/latest")
    name = draw(st.sampled_from([*RUN_FILES, *(f"{step}/{each}" for each in CHECKPOINT_FILES)]))
    content = world.read(f"qa/{name}")
    if name.endswith("yaml"):
        new = draw(damaged(content) | altered(yaml.safe_load(content)).map(yaml.safe_dump).map(str.encode))
    elif name.endswith(".json"):
        new = draw(changed_json(content))
    else:
        new = draw(changed_lines(content) if name.endswith("jsonl") else damaged(content))
    files = {f"qa/{name}": new}
    if name.startswith(step) and not name.endswith("state.json") and draw(st.booleans()):
        stated = json.loads(world.read(f"qa/{step}/state.json"))
        stated["files"][Path(name).name] = {"bytes": len(new), "crc32": zlib.crc32(new)}
        files[f"qa/{step}/state.json"] = json.dumps(stated).encode()
    return Case(draw(st.sampled_from(RUN_COMMANDS)), files)


RUN_FILES = ("recipe.yaml", "vocab.txt", "tokenizer_config.json", "answers.json", "metrics.jsonl", "environment.json")
CHECKPOINT_FILES = ("state.json", "training.pt", "model.safetensors", "config.json")
RUN_COMMANDS = (
    *[("runs", "ls", "."), ("runs", "ls", "qa", "--json"), ("runs", "export", "qa", "new")],
    ("ask", "--run", "qa", "--video", "media/a.mp4", "what is it ?"),
    ("infer", "--run", "qa", "--split", "test", "-o", "new.jsonl"),
    ("report", "--run", "qa", "-o", "new.html"),
    ("eval", "qa.jsonl", "--run", "qa", "--split", "test"),
    ("finetune", "--resume", "--run", "qa", "--data-root", "data", "--set", "train.max_steps=3"),
)


@st.composite
def stores(draw: st.DrawFn, world: World) -> Case:
    """A record of a store, with the right checksum or a wrong one, or its file."""
    command = draw(st.sampled_from(STORE_COMMANDS))
    if draw(st.integers(0, 4)) == 0:
        return Case(command, {"data/vis_db/data.mdb": draw(damaged(world.read("data/vis_db/data.mdb")))})
    key = draw(st.sampled_from(STORE_KEYS))
    with lmdb.open(str(world.good / "data/vis_db"), readonly=True, lock=False) as store, store.begin() as transaction:
        value = bytes(transaction.get(key))
    sealed = key.startswith(records.PREFIX) and key != records.MANIFEST_KEY
    if not sealed:
        new = draw(changed_json(value) if key == records.MANIFEST_KEY else damaged(value))
    elif draw(st.integers(0, 3)) == 0:
        new = draw(damaged(value))
    else:
        new = records.sealed({key: draw(changed_record(records.unsealed(key, value)))})[key]
    return Case(command, records={key: new} if key else {})


@st.composite
def changed_record(draw: st.DrawFn, record: bytes) -> bytes:
    """A media record, or a packet table, which is compressed JSON with arrays behind it."""
    if record.startswith(b"{"):
        return draw(changed_json(record))
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged(record))
    header, line, arrays = zlib.decompress(record).partition(b"\n")
    if draw(st.booleans()):
        return zlib.compress(draw(changed_json(header)) + line + arrays)
    return zlib.compress(header + line + draw(damaged(arrays)))


STORE_KEYS = (b"test0000", records.MANIFEST_KEY, records.info_key("test0000"), records.packets_key("test0000"))
STORE_COMMANDS = (
    *[("store", "ls", "data/vis_db"), ("store", "ls", "data/vis_db", "--json")],
    *[("store", "verify", "data/vis_db", "--workers", "0"), ("store", "scan", "data/vis_db", "--workers", "0")],
    *[("store", "show", "data/vis_db", "test0000", "-o", "new.png"), ("preview", "data/vis_db", "-o", "new.html")],
    ("pack", "--add", "media/a.mp4", "data/vis_db", "--workers", "0"),
    ("infer", "--run", "qa", "--split", "test", "-o", "new.jsonl"),
)


@st.composite
def hostile_media(draw: st.DrawFn, world: World) -> Case:
    """A video or a picture with a damaged head or body."""
    name = draw(st.sampled_from(sorted(path.name for path in (world.good / "media").iterdir())))
    kind = "image" if Path(name).stem == Path(name).suffix[1:] else "video"
    content = world.read(f"media/{name}")
    head = draw(st.sampled_from((64, 512, len(content))))
    files = {f"given/{name}": draw(damaged(content[:head])) + content[head:]}
    ask = ("ask", "--run", "qa", f"--{kind}", *files, "what is it ?")
    pack = ("pack", "given", "new", "--kind", kind, "--workers", "0")
    preview = ("preview", "given", "--kind", kind, "-o", "new.html")
    return Case(draw(st.sampled_from((pack, pack, ask, preview))), files)


KINDS: dict[str, Callable[[World], SearchStrategy[Case]]] = {
    "recipes": recipes,
    "annotations": annotations,
    "predictions": predictions,
    "runs": runs,
    "stores": stores,
    "media": hostile_media,
}
