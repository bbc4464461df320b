"""Miniatures in the original formats, and a converter run over them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipbert_cli.assets.convert.registry import run_converter


@pytest.fixture
def raw(tmp_path):
    """`raw("a/b.json", value)` writes JSON; bytes and text are written as they are."""
    folder = tmp_path / "raw"
    folder.mkdir()

    def write(name, content):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    write.folder = folder
    return write


@pytest.fixture
def convert(raw, tmp_path):
    """Run a converter twice, into two folders: the bytes must be the same."""

    def run(name, part=None, **options):
        first, second = tmp_path / "out", tmp_path / "again"
        converted = run_converter(name, raw.folder, first, part, **options)
        run_converter(name, raw.folder, second, part, **options)
        names = sorted(path.name for path in first.iterdir())
        assert names == sorted(converted.counts)
        assert {n: (first / n).read_bytes() for n in names} == {n: (second / n).read_bytes() for n in names}
        return SimpleNamespace(
            folder=first, names=names, counts=converted.counts, warnings=list(converted.warnings), read=_reader(first)
        )

    return run


def _reader(folder: Path):
    def read(name):
        text = (folder / name).read_text(encoding="utf-8")
        assert text == "" or text.endswith("\n")
        assert "\n\n" not in text
        return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)

    return read
