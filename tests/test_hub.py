"""`hf:org/name`: a repository of the Hub as a local folder, from a server that answers as the Hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import huggingface_hub.constants as hub_constants
import pytest
from http_site import Site
from huggingface_hub import file_download
from made_vision_models import write_vision_model
from running import SHORT, TINY, Clipbert, as_options
from transformers import BertConfig, BertModel
from typer.main import get_command

import clipbert_cli
from clipbert_cli import hub
from clipbert_cli.commands.app import app
from clipbert_cli.errors import ClipbertError, DownloadError, UsageError
from clipbert_cli.model.hf_encoder import quiet_transformers
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runs.export import model_card
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.task.registry import TASKS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The Hub, with repositories of one commit each; everything is kept in one cache."""

    def __init__(self, site: Site, cache: Path, patch: pytest.MonkeyPatch) -> None:
        self.site, self.cache, self.patch = site, cache, patch
        patch.setenv("HF_ENDPOINT", site.url)
        patch.setattr(hub_constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(hub_constants, "HF_HUB_OFFLINE", False)

    def add(self, name: str, files: Mapping[str, bytes], *, branch: str = "main", **answers: Any) -> None:
        """Publish a repository; `answers` are options of the pages of its files."""
        tree = [
            {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
            for path, body in files.items()
        ]
        info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]}
        # In addresses, a slash of a branch's name is encoded.
        for revision in (quote(branch, safe=""), COMMIT):
            self.site.add(f"/api/models/{name}/revision/{revision}", json.dumps(info).encode())
            self.site.add(f"/api/models/{name}/tree/{revision}", json.dumps(tree).encode())
            for path, body in files.items():
                headers = {"X-Repo-Commit": COMMIT, **answers.get("headers", {})}
                etag = f'"{hashlib.sha1(body).hexdigest()}"'
                options = {**answers, "headers": headers, "etag": etag}
                self.site.add(f"/{name}/resolve/{revision}/{path}", body, **options)

    def publish(self, name: str, folder: Path, **options: Any) -> None:
        """Publish all files of a folder."""
        self.add(name, {path.name: path.read_bytes() for path in sorted(folder.iterdir())}, **options)

    def refuse(self, name: str, status: int, code: str, *, revision: str = "v9") -> None:
        """Answer every request about a revision, and about the main branch, with an error of the Hub."""
        for each in ("main", quote(revision, safe="")):
            self._error(f"/api/models/{name}/revision/{each}", status, code)
            self._error(f"/api/models/{name}/tree/{each}", status, code)

    def _error(self, path: str, status: int, code: str) -> None:
        self.site.add(path, statuses=[status] * 20, headers={"X-Error-Code": code})

    def go_offline(self) -> None:
        self.patch.setattr(hub_constants, "HF_HUB_OFFLINE", True)

    def disappear(self) -> None:
        self.patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    site = Site()
    yield Hub(site, tmp_path / "cache", monkeypatch)
    site.close()


FILES = {
    "config.json": b'{"model_type": "vit"}',
    "preprocessor_config.json": b"{}",
    "model.safetensors": b"tensors",
    "pytorch_model.bin": b"the same again",
    "flax_model.msgpack": b"and again",
    "vocab.txt": b"words",
    "README.md": b"read me",
    "onnx/model.onnx": b"another form",
}


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_descriptions_and_one_form_of_the_weights_are_downloaded(world: Hub) -> None:
    world.add("org/name", FILES)
    folder = hub.local_folder("hf:org/name")
    assert folder.is_relative_to(world.cache)
    assert names_in(folder) == {"config.json", "preprocessor_config.json", "model.safetensors", "vocab.txt"}
    assert (folder / "model.safetensors").read_bytes() == b"tensors"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["pytorch_model.bin", "config.json"], {"pytorch_model.bin", "config.json"}),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
            {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"},
        ),
        (["model.fp16.safetensors", "model.safetensors"], {"model.safetensors"}),
        (["recipe.yaml", "answers.json", "run.py"], {"recipe.yaml", "answers.json"}),
        ([], set()),
    ],
)
def test_what_is_needed_of_a_repository(names: list[str], chosen: set[str]) -> None:
    assert set(hub.chosen_files(names)) == chosen


REVISIONS = ["v2", "v1.0-beta_2", "feature/new-head", "refs/pr/2", COMMIT]
"""Tags, branches with and without a slash, a pull request, a commit."""


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_revision_may_be_named_and_is_kept(world: Hub, revision: str) -> None:
    world.add("org/name", FILES, branch=revision)
    named = f"hf:org/name@{revision}"
    folder = hub.local_folder(named)
    assert names_in(folder) == {"config.json", "preprocessor_config.json", "model.safetensors", "vocab.txt"}
    world.go_offline()
    assert hub.local_folder(named) == folder
    # What another revision holds is not known, not even that of the main branch.
    for other in ("hf:org/name", "hf:org/name@other/branch", f"hf:org/name@{'f' * 40}"):
        with pytest.raises(DownloadError) as caught:
            hub.local_folder(other)
        assert str(caught.value).startswith(f"{other}: ")
        assert f"and {world.cache} does not have its files" in str(caught.value)


@pytest.mark.parametrize("revision", ["v9", "no/such/branch", "f" * 40])
def test_a_revision_that_does_not_exist_is_one_message(world: Hub, revision: str) -> None:
    world.add("org/name", FILES)
    world.refuse("org/name", 404, "RevisionNotFound", revision=revision)
    with pytest.raises(DownloadError) as caught:
        hub.local_folder(f"hf:org/name@{revision}")
    assert str(caught.value) == f"hf:org/name@{revision}: the repository has no such revision"
    assert "huggingface.co/org/name" in str(caught.value.hint)
    assert not names_in(world.cache)


def test_what_the_cache_has_in_part_is_named(world: Hub, clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    """A download that ended before the weights came leaves a folder without them."""
    write_vision_model("vit", tmp_path / "made")
    world.publish("org/vit", tmp_path / "made")
    folder = hub.local_folder("hf:org/vit")
    (folder / "model.safetensors").unlink()
    world.go_offline()
    settings = ["model.visual.kind=hf", "model.visual.weights=hf:org/vit"]
    settings += ["model.visual.pixel_mean=null", "model.visual.pixel_std=null"]
    command = ("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", tmp_path / "run")
    done = clipbert(*command, *as_options([*SHORT, *settings]))
    assert done.returncode == 1
    assert f"{folder}: holds config.json, preprocessor_config.json; expected model.safetensors or " in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("leave", [Hub.go_offline, Hub.disappear])
def test_without_the_hub_the_cache_serves(world: Hub, leave: Any) -> None:
    world.add("org/name", FILES)
    before = hub.local_folder("hf:org/name")
    leave(world)
    begin = time.monotonic()
    assert hub.local_folder("hf:org/name") == before
    with pytest.raises(DownloadError) as caught:
        hub.local_folder("hf:org/other")
    # huggingface_hub would try each of them again for 23 seconds.
    assert time.monotonic() - begin < 15
    assert str(caught.value).startswith("hf:org/other: ")
    assert f"and {world.cache} does not have its files" in str(caught.value)
    assert str(caught.value.hint).startswith(("unset HF_HUB_OFFLINE", "test with curl -I http://127.0.0.1"))
    assert "where clipbert download hf:org/other has put them" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "GatedRepo", "access must be requested"),
        (401, "GatedRepo", "access must be requested"),
        (404, "RepoNotFound", "there is no such repository, or it is private"),
        (404, "RevisionNotFound", "the repository has no such revision"),
        (400, "", "400"),
    ],
)
def test_what_the_hub_refuses_is_one_message(world: Hub, status: int, code: str, says: str) -> None:
    world.refuse("org/name", status, code)
    with pytest.raises(DownloadError, match=says) as caught:
        hub.local_folder("hf:org/name@v9")
    assert str(caught.value).startswith("hf:org/name@v9: ")
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert not names_in(world.cache)


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_shows_its_list_and_refuses_its_files(world: Hub, status: int) -> None:
    """The Hub does so: who may not read the files can still see which there are."""
    world.add("org/name", FILES, statuses=[status] * 20, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(DownloadError) as caught:
        hub.local_folder("hf:org/name")
    assert str(caught.value) == "hf:org/name: access must be requested"
    assert caught.value.hint == "request it at https://huggingface.co/org/name, then set HF_TOKEN"
    assert not [name for name in names_in(world.cache) if Path(name).name in FILES]


@pytest.mark.parametrize(
    ("status", "message"), [(401, "Invalid credentials in Authorization header"), (403, "Token may not read this")]
)
def test_a_token_that_is_refused_is_named_as_the_reason(world: Hub, status: int, message: str) -> None:
    for kind in ("revision", "tree"):
        path = f"/api/models/org/name/{kind}/main"
        world.site.add(path, statuses=[status] * 20, headers={"X-Error-Message": message})
    with pytest.raises(DownloadError, match=f"hf:org/name: the Hub answers {status} ") as caught:
        hub.local_folder("hf:org/name")
    assert str(caught.value.hint).startswith("check HF_TOKEN and what it may read and write, or see https://")
    assert not names_in(world.cache)


@pytest.mark.parametrize("name", ["hf:", "hf:name", "hf:org/", "hf:a/b/c", "hf:../x", "hf:org/na me", "hf:org/name@"])
def test_other_names_are_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="is no name on the Hugging Face Hub"):
        hub.local_folder(name)


def test_a_cut_download_leaves_nothing_that_is_taken_for_the_file(world: Hub) -> None:
    world.add("org/name", {**FILES, "model.safetensors": b"x" * 300_000}, cuts=[100] * 40)
    world.patch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))  # before it tries again
    with pytest.raises(ClipbertError):
        hub.local_folder("hf:org/name")
    assert "model.safetensors" not in {Path(name).name for name in names_in(world.cache)}


# ------------------------------------------------------------------------------------------------ in recipes


def test_a_recipe_trains_with_a_model_of_the_hub(
    world: Hub, clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    write_vision_model("siglip", tmp_path / "made")
    world.publish("org/siglip", tmp_path / "made")
    settings = ["model.visual.kind=hf", "model.visual.weights=hf:org/siglip", "train.max_steps=1"]
    settings += ["model.visual.pixel_mean=null", "model.visual.pixel_std=null"]
    options = as_options([*SHORT, *settings])
    command = ("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--run", tmp_path / "run", *options)
    done = clipbert(*command)
    assert done.returncode == 0, done.stderr
    world.refuse("org/exported", 404, "RepoNotFound")
    gone = clipbert("infer", "--run", "hf:org/exported", "--split", "test", "--data-root", made_data)
    assert gone.returncode == 1
    assert "hf:org/exported: there is no such repository" in gone.stderr
    assert clipbert("runs", "export", tmp_path / "run", tmp_path / "exported").returncode == 0
    world.publish("org/exported", tmp_path / "exported")
    asked = clipbert("infer", "--run", "hf:org/exported", "--split", "test", "--data-root", made_data)
    assert asked.returncode == 0, asked.stderr
    assert len(asked.stdout.splitlines()) > 0


def test_bert_tokenizer_and_checkpoint_may_be_on_the_hub(
    world: Hub, clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path
) -> None:
    words = (made_data / "vocab.txt").read_text()
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with quiet_transformers():
        BertModel(BertConfig(vocab_size=len(words.split()), **sizes)).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text(words)
    world.publish("org/bert", tmp_path / "bert")
    stated = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    command = ("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--dry-run")
    open_sizes = [f"model.bert.{name}=null" for name in (*stated, "max_position_embeddings")]
    for tokenizer in ("null", "hf:org/bert"):
        places = ["model.weights.bert=hf:org/bert", f"model.tokenizer={tokenizer}"]
        done = clipbert(*command, *as_options([*open_sizes, *places, "data.workers=0"]))
        assert done.returncode == 0, done.stderr
        assert "Hugging Face BERT, 39 entries loaded" in done.stderr
    assert clipbert("runs", "push", trained_run, "--to", tmp_path / "shared").returncode == 0
    world.publish("me/model", tmp_path / "shared")
    done = clipbert(*command, *as_options([*TINY, "model.weights.checkpoint=hf:me/model"]))
    assert done.returncode == 0, done.stderr
    assert "clipbert model, " in done.stderr


@pytest.mark.parametrize("revision", ["", "@v2", f"@{COMMIT}"])
def test_python_loads_a_shared_model_by_its_name_on_the_hub(
    revision: str, world: Hub, clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path
) -> None:
    assert clipbert("runs", "push", trained_run, "--to", tmp_path / "shared").returncode == 0
    world.publish("me/model", tmp_path / "shared", branch="v2" if revision == "@v2" else "main")
    video = made_data / "videos" / "test0001.mp4"
    answers = [
        clipbert_cli.load(source, device="cpu").ask(video, "what shape is red ?")
        for source in (f"hf:me/model{revision}", trained_run)
    ]
    assert answers[0] == answers[1]


def test_a_model_that_is_not_on_the_hub_is_one_error(world: Hub) -> None:
    world.refuse("me/absent", 404, "RepoNotFound")
    with pytest.raises(DownloadError, match="me/absent"):
        clipbert_cli.load("hf:me/absent", device="cpu")
    with pytest.raises(UsageError, match="no name on the Hugging Face Hub"):
        clipbert_cli.load("hf:model", device="cpu")


def test_download_takes_a_repository_and_prints_its_folder(world: Hub, clipbert: Clipbert) -> None:
    world.add("org/name", FILES)
    done = clipbert("download", "hf:org/name")
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "config.json").is_file()
    wrong = clipbert("download", "hf:org/name", "msrvtt_qa")
    assert wrong.returncode == 2


# ------------------------------------------------------------------------------------------------ sharing


def test_a_run_is_written_with_its_card_and_without_paths_of_this_machine(
    clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shared"
    done = clipbert("runs", "push", trained_run, "--to", out)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} >= {"README.md", "config.json", "model.safetensors", "recipe.yaml"}
    card = (out / "README.md").read_text()
    assert "license" not in card
    assert "| accuracy | " in card
    assert "* torch " in card
    for file in ("README.md", "recipe.yaml", "config.json"):
        text = (out / file).read_text()
        assert str(made_data) not in text
        assert str(Path.home()) not in text or str(Path.home()) == "/"
    asked = clipbert("infer", "--run", out, "--split", "test", "--data-root", made_data)
    assert asked.returncode == 0, asked.stderr
    again = clipbert("runs", "push", trained_run, "--to", out)
    assert again.returncode == 1
    assert "exists already" in again.stderr


@pytest.mark.parametrize("score", ["high", [1]])
def test_a_run_whose_records_are_damaged_is_not_shared_in_part(
    score: object, clipbert: Clipbert, trained_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run", symlinks=True)
    metrics = run / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    changed = [{**line, "accuracy": score} if line["event"] == "validation" else line for line in lines]
    metrics.write_text("".join(f"{json.dumps(line)}\n" for line in changed))
    done = clipbert("runs", "push", run, "--to", tmp_path / "shared")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {run}: accuracy of its records is {score!r}")
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize(
    ("visual", "says"),
    [
        ({"kind": "resnet"}, "resnet"),
        ({"kind": "hf"}, "hf"),
        ({"kind": "hf", "weights": "hf:org/siglip"}, "hf:org/siglip"),
    ],
)
def test_a_card_names_licence_and_encoder(visual: dict[str, str], says: str, trained_run: Path) -> None:
    folder = RunFolder(trained_run)
    recipe = load_recipe(folder.recipe)
    model = recipe.model.model_copy(update={"visual": recipe.model.visual.model_copy(update=visual)})
    card = model_card(folder, recipe.model_copy(update={"license": "cc-by-4.0", "model": model}))
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "* licence: cc-by-4.0\n" in card
    assert f"* visual encoder: {says}\n" in card


@pytest.mark.parametrize("task", TASKS)
def test_the_command_in_a_card_is_one_of_ours(task: str, trained_run: Path) -> None:
    folder = RunFolder(trained_run)
    card = model_card(folder, load_recipe(folder.recipe).model_copy(update={"task": task}))
    program, name, *words = shlex.split(card.splitlines()[-2])
    assert program == "clipbert"
    given = get_command(app).commands[name].make_context(name, words).params  # type: ignore[attr-defined]
    assert "hf:ORG/NAME" in f"{given.get('run')} {given.get('overrides')}"
    assert bool(given.get("option")) == (task == "multiple_choice")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "name either a repository, hf:ORG/NAME, or a folder with --to"),
        (("hf:me/model", "--to", "x"), 2, "name either a repository"),
        (("me/model",), 2, "is no name on the Hugging Face Hub"),
        (("hf:me/model",), 2, "--yes is missing"),
    ],
)
def test_wrong_ways_to_share_are_answered(
    arguments: tuple[str, ...], code: int, says: str, clipbert: Clipbert, trained_run: Path
) -> None:
    done = clipbert("runs", "push", trained_run, *arguments)
    assert done.returncode == code
    assert says in done.stderr


def test_an_upload_lists_its_files_and_is_refused_in_one_message(
    world: Hub, clipbert: Clipbert, trained_run: Path
) -> None:
    world.disappear()
    done = clipbert("runs", "push", trained_run, "hf:me/model", "--yes", HF_TOKEN="hf_x")
    assert done.returncode == 1
    assert "to be uploaded to hf:me/model:" in done.stderr
    assert "bytes  model.safetensors" in done.stderr
    assert "error: hf:me/model: " in done.stderr
    assert "Traceback" not in done.stderr


class Receiving(BaseHTTPRequestHandler):
    """The Hub's side of an upload: a repository is made, files are announced, and a commit brings them."""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: dict[str, Any] = {"url": f"{self.server.address}/me/model"}  # type: ignore[attr-defined]
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]}
        elif "/commit/" in self.path:
            for line in body.splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    content = base64.b64decode(part["value"]["content"])
                    self.server.received[part["value"]["path"]] = content  # type: ignore[attr-defined]
            address = f"{self.server.address}/me/model/commit/{COMMIT}"  # type: ignore[attr-defined]
            answer = {"success": True, "commitOid": COMMIT, "commitUrl": address}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        text = json.dumps({"id": "me/model", "sha": COMMIT, "siblings": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def test_an_upload_brings_every_file(world: Hub, clipbert: Clipbert, trained_run: Path, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiving)
    server.received, server.address = {}, f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        environment = {"HF_ENDPOINT": server.address, "HF_TOKEN": "hf_x"}  # type: ignore[attr-defined]
        done = clipbert("runs", "push", trained_run, "hf:me/model", "--yes", **environment)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"/me/model/commit/{COMMIT}")
    assert clipbert("runs", "push", trained_run, "--to", tmp_path / "same").returncode == 0
    expected = {path.name: path.read_bytes() for path in (tmp_path / "same").iterdir()}
    assert server.received == expected  # type: ignore[attr-defined]
