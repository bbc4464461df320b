"""A server, a catalogue that points at it, a data folder, and the command: what the tests of `download` share."""

import io
import json
import os
import subprocess
import sys

import yaml
from hostile_inputs import zipped
from PIL import Image
from typer.testing import CliRunner

from clipbert_cli.commands.app import app

WEIGHTS = os.urandom(300_000)


def picture(seed):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (seed, 100, 50)).save(buffer, "JPEG")
    return buffer.getvalue()


def qa(*items):
    return json.dumps(
        [{"video": f"video{v}.mp4", "question": q, "answer": a, "question_id": n} for n, (v, q, a) in enumerate(items)]
    ).encode()


class World:
    """A server, a catalogue that points at it, a data folder, and the command."""

    def __init__(self, site, folder):
        self.site, self.data, self.catalog = site, folder / "data", folder / "mine.yaml"
        self.pages = {
            "lab/w.pth": site.add("/w.pth", WEIGHTS),
            "lab/a.zip": site.add("/a.zip", zipped({"deep/one.jpg": picture(1), "two.jpg": picture(2), "n.txt": b"x"})),
            "lab/b.zip": site.add("/b.zip", zipped({"three.jpg": picture(3)})),
            "msrvtt/qa_train.json": site.add("/t.json", qa((0, "what is it?", "cat"), (1, "who is it?", "man"))),
            "msrvtt/qa_val.json": site.add("/v.json", qa((6513, "what is it?", "couch"))),
            "msrvtt/qa_test.json": site.add("/s.json", qa((7010, "what is it?", "dog"))),
            "msrvtt/train_ans2label.json": site.add("/ans.json", b'{"cat": 0, "man": 1}'),
        }
        images = {"kind": "media", "media_kind": "image"}
        self.document = {
            "files": {name: {"sources": [page.url]} for name, page in self.pages.items()},
            "assets": {
                "lab": {
                    "title": "the lab's own",
                    "licence": "internal",
                    "parts": {
                        "weights": {
                            "kind": "weights",
                            "title": "w",
                            "files": ["lab/w.pth"],
                            "folder": "pretrained",
                            "place": {"lab/w.pth": "w.pth"},
                        },
                        "images": {
                            **images,
                            "title": "i",
                            "files": ["lab/a.zip", "lab/b.zip"],
                            "folder": "media/lab",
                            "manual": "Ask the lab.",
                        },
                        "closed": {
                            **images,
                            "title": "photographs on request",
                            "folder": "media/closed",
                            "manual": "Fill in the form at http://lab/form.\nThen unpack what they send.",
                        },
                    },
                }
            },
            "recipes": {"lab_qa": ["lab/weights", "lab/images", "msrvtt/qa"]},
        }
        self.document["files"]["lab/a.zip"]["members"] = ["*.jpg"]

    def command(self, *arguments):
        self.catalog.write_text(yaml.safe_dump(self.document, sort_keys=False))
        group = [] if arguments[:1] in (("assets",), ("download",)) else ["download"]
        return [sys.executable, "-m", "clipbert_cli", *group, *map(str, arguments), "--catalog", str(self.catalog)]

    def start(self, *arguments, **options):
        command = self.command(*arguments, "--to", self.data)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def run(self, *arguments, code=0, to=True):
        command = self.command(*arguments, *(["--to", self.data] if to else []))
        done = CliRunner().invoke(app, command[3:])
        assert done.exit_code == code, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done

    def json(self, *arguments, code=0, to=True):
        return json.loads(self.run(*arguments, "--json", code=code, to=to).stdout)

    def states(self, *arguments, code=0):
        return {part["part"]: part["state"] for part in self.json(*arguments, code=code)["parts"]}

    def tree(self):
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*") if path.is_file())

    def requests(self):
        return sum(len(page.requests) for page in self.pages.values())


IMAGES = ["media/lab/a/deep/one.jpg", "media/lab/a/two.jpg", "media/lab/b/three.jpg"]
TEXTS = [f"txt_db/msrvtt_qa/{name}" for name in ("test.jsonl", "train.jsonl", "train_ans2label.json", "val.jsonl")]
EVERYTHING = sorted([*IMAGES, "pretrained/w.pth", *TEXTS])
