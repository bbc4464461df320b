"""Miniatures in the original formats, and a converter run over them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from readers import check_readable

from clipbert_cli.assets.convert.registry import run_converter


@pytest.fixture
def raw(tmp_path):
    """`raw("a/b.json", value)` writes JSON; bytes and text are written as they are.

    With `raw.escapes = False` JSON holds other alphabets as they are, not spelt out.
    """
    folder = tmp_path / "raw"
    folder.mkdir()

    def dumps(value):
        return json.dumps(value, ensure_ascii=write.escapes)

    def write(name, content):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else dumps(content), encoding="utf-8")
        return path

    write.folder, write.escapes, write.dumps = folder, True, dumps
    return write


@pytest.fixture
def convert(raw, tmp_path):
    """Run a converter twice, into two folders: the bytes must be the same, and the tasks must read them."""

    def run(name, part=None):
        first, second = tmp_path / "out", tmp_path / "again"
        converted = run_converter(name, raw.folder, first, part)
        run_converter(name, raw.folder, second, part)
        names = sorted(path.name for path in first.iterdir())
        assert names == sorted(converted.counts)
        assert {n: (first / n).read_bytes() for n in names} == {n: (second / n).read_bytes() for n in names}
        answers = first
        if name == "vg_qa":  # its questions go with those of vqa, and have their answers
            answers = tmp_path / "vqa"
            run_converter("vqa", raw.folder, answers, None)
        return SimpleNamespace(
            folder=first,
            names=names,
            counts=converted.counts,
            warnings=list(converted.warnings),
            read=_reader(first),
            examples=check_readable(name, first, converted.counts, answers),
        )

    return run


def _reader(folder: Path):
    def read(name):
        text = (folder / name).read_text(encoding="utf-8")
        assert text == "" or text.endswith("\n")
        assert "\n\n" not in text
        # Not splitlines: a record may hold characters that it takes for line ends.
        return [json.loads(line) for line in text.split("\n")[:-1]] if name.endswith(".jsonl") else json.loads(text)

    return read
