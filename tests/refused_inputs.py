"""Inputs that are refused although they promise much: without an end, deeply nested, or small on the disk and large in
memory. Each is a case of the good world (`fuzzing.py`).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzzing import Case, Content, World
from made_media import image
from PIL import Image

from clipbert_cli.store import records

GIGABYTES = 2**33
"""The size of files without content: they take no place on the disk."""


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    """A pipe into which nobody writes."""
    os.mkfifo(path)


def empty_gigabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(GIGABYTES)


def deep(path: Path) -> None:
    path.write_bytes(b"[" * 10_000_000)


def many_containers(path: Path) -> None:
    path.write_bytes(b"[" + b"{}," * 10_000_000 + b"{}]")


def many_names(path: Path) -> None:
    """One object of three million names."""
    path.write_bytes(b"{" + b",".join(b'"%x":0' % number for number in range(3_000_000)) + b"}\n")


def long_value(path: Path) -> None:
    """A value that a message would repeat."""
    path.write_bytes(b'{"media_id": ["' + b"a" * 15_000_000 + b'"]}\n')


def long_line(path: Path) -> None:
    path.write_bytes(b'{"question": "' + b"a" * 100_000_000 + b'"}\n')


KINDS: dict[str, Content] = {
    "endless": endless,
    "a pipe": pipe,
    "8 GB": empty_gigabytes,
    "deep": deep,
    "many lists": many_containers,
    "a long line": long_line,
    "many names": many_names,
    "a long value": long_value,
}

QA = ("--run", "qa", "--split", "test")
RECIPE = ("--recipe", "demo_qa", "--data-root", "data", "--split", "test")
TEST = "data.splits.test.annotations=txt_db/"
# A file that is read, and a command that reads it.
READ: dict[str, tuple[str, ...]] = {
    "a.yaml": ("recipes", "validate", "a.yaml"),
    "data/txt_db/test.jsonl": ("eval", "qa.jsonl", *RECIPE),
    "data/txt_db/a.json": ("eval", "qa.jsonl", *RECIPE, "--set", f"{TEST}a.json"),
    "data/txt_db/a.csv": ("eval", "qa.jsonl", *RECIPE, "--set", f"{TEST}a.csv"),
    "data/txt_db/answers.json": ("finetune", "--dry-run", *RECIPE[:4]),
    "qa.jsonl": ("eval", "qa.jsonl", *QA),
    "qa.jsonl.meta.json": ("eval", "qa.jsonl", *QA),
    "scores/ids.json": ("eval", "scores", "--run", "retrieval", "--split", "test"),
    "scores/scores.npy": ("eval", "scores", "--run", "retrieval", "--split", "test"),
    "questions.jsonl": ("ask", "--run", "qa", "--questions", "questions.jsonl"),
    "qa/recipe.yaml": ("eval", "qa.jsonl", *QA),
    "qa/answers.json": ("eval", "qa.jsonl", *QA),
    "qa/vocab.txt": ("ask", "--run", "qa", "--video", "media/a.mp4", "what is it ?"),
    "qa/metrics.jsonl": ("runs", "ls", "qa"),
    "qa/checkpoints/step_2/state.json": ("runs", "ls", "qa"),
    "qa/checkpoints/step_2/config.json": ("ask", "--run", "qa", "--video", "media/a.mp4", "what is it ?"),
    "qa/checkpoints/step_2/model.safetensors": ("ask", "--run", "qa", "--video", "media/a.mp4", "what is it ?"),
    "mine.yaml": ("download", "lab", "--to", "new", "--catalog", "mine.yaml"),
    "media/a.mp4": ("pack", "media/a.mp4", "new", "--workers", "0"),
    "media/png.png": ("pack", "media/png.png", "new", "--workers", "0"),
}


def large_npy() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    return file.getvalue()


def aliases() -> bytes:
    """YAML of a kilobyte that stands for a billion values."""
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines).encode()


class Harmful:
    """Makes a folder `harmed` where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("harmed",)


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


def record(key: bytes, content: bytes) -> dict[bytes, bytes]:
    return {key: content} if key == records.MANIFEST_KEY else records.sealed({key: content})


def cases(world: World) -> dict[str, Case]:
    """Return every case by its name."""
    found = {
        f"{name}: {kind}": Case(command, {name: content})
        for name, command in READ.items()
        for kind, content in KINDS.items()
    }
    bitmap = image(Image.new("1", (20_000, 9_000)))
    ask, weights = READ["qa/vocab.txt"], "qa/checkpoints/step_2/model.safetensors"
    huge = {"w": {"dtype": "F32", "shape": [10**9, 10**3], "data_offsets": [0, 4 * 10**12]}}
    config = json.loads(world.read("qa/checkpoints/step_2/config.json"))
    config["model"]["bert"]["num_hidden_layers"] = 10**9
    files: dict[str, tuple[tuple[str, ...], str, bytes]] = {
        "aliases": (READ["a.yaml"], "a.yaml", aliases()),
        "90,000 unknown keys": (READ["a.yaml"], "a.yaml", "\n".join(f"key{n}: 1" for n in range(90_000)).encode()),
        "deep YAML": (READ["a.yaml"], "a.yaml", b"[" * 100_000),
        "a large shape": (READ["scores/scores.npy"], "scores/scores.npy", large_npy()),
        "a long header": (ask, weights, safetensors(b"{}", 2**40)),
        "a large tensor": (ask, weights, safetensors(json.dumps(huge).encode())),
        "a billion layers": (ask, "qa/checkpoints/step_2/config.json", json.dumps(config).encode()),
        "pickled code": (ask, weights, pickle.dumps(Harmful())),
        "a picture of 180 million pixels": (
            READ["media/png.png"],
            "media/png.png",
            bitmap,
        ),
        "columns": (READ["data/txt_db/a.csv"], "data/txt_db/a.csv", b"a," * 5_000_000),
        "an open quote": (READ["data/txt_db/a.csv"], "data/txt_db/a.csv", b'question\n"' + b"a\n" * 20_000_000),
        "wrong lines": (READ["data/txt_db/test.jsonl"], "data/txt_db/test.jsonl", b"{]\n" * 1_000_000),
        "unknown predictions": (READ["qa.jsonl"], "qa.jsonl", b'{"answer": 1}\n' * 500_000),
    }
    found |= {name: Case(command, {file: content}) for name, (command, file, content) in files.items()}
    verify = ("store", "verify", "data/vis_db", "--workers", "0")
    stored = {
        "a packed table": (records.packets_key("test0000"), zlib.compress(bytes(2**30))),
        "a deep record": (records.info_key("test0000"), b"[" * 10_000_000),
        "a deep manifest": (records.MANIFEST_KEY, b"[" * 10_000_000),
    }
    return found | {name: Case(verify, records=record(*each)) for name, each in stored.items()}
