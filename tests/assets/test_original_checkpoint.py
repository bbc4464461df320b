"""The original's checkpoint from an unverified source: its entries are compared before it is kept."""

import io
import json

import pytest
import torch
from download_world import World
from goldens import golden_json
from transformers import BertConfig, BertForPreTraining

NAME = "clipbert-pretrained/clipbert_image_text_pretrained.pt"
WORDS = "transformer.bert.embeddings.word_embeddings.weight"

NORM = "transformer.bert.embeddings.LayerNorm.weight"


@pytest.fixture
def world(site, tmp_path):
    """The shipped entry of the checkpoint, whose only source is a page of the test's server."""
    made = World(site, tmp_path)
    made.page = site.add("/uc", b"")
    made.document = {"files": {NAME: {"sources": [made.page.url], "note": "unverified; of strangers"}}}
    return made


def state(kind="pretrain"):
    """All entries of a published model, in published sizes. They are zeros that share one number: a small file."""
    entries = golden_json(f"model/keys_{kind}_base.json")["entries"]
    return {name: torch.zeros(1).expand(shape) if shape else torch.zeros(()) for name, shape, *_ in entries}


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def kept(world):
    return [name for name in world.tree() if ".lock" not in name]


@pytest.mark.golden
def test_a_checkpoint_of_the_published_entries_is_kept_and_its_source_named(world):
    world.page.body = saved(state())
    done = world.run("clipbert-pretrained")
    assert kept(world) == ["pretrained/clipbert_image_text_pretrained.pt"]
    assert f"warning: {NAME}: unverified; of strangers" in done.stderr
    plan = world.run("clipbert-pretrained", "--dry-run", to=False)
    assert "      unverified; of strangers" in plan.stdout.splitlines()


def without(content, name):
    return {key: value for key, value in content.items() if key != name}


def bert():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForPreTraining(BertConfig(vocab_size=30, **sizes)).state_dict()


OTHERS = {
    "an entry is missing": (lambda: saved(without(state(), WORDS)), "missing in the file (1): text_embeddings"),
    "an entry is of another shape": (
        lambda: saved({**state(), WORDS: torch.zeros(1).expand(199, 768)}),
        "word_embeddings.weight: float32 (199, 768) in the file, float32 (30522, 768) in the model",
    ),
    "an entry is not known": (lambda: saved({**state(), "prompt.pad": torch.zeros(3)}), "unexpected in the file"),
    "a value is no number": (
        lambda: saved({**state(), NORM: torch.full((768,), float("nan"))}),
        "are NaN or infinite",
    ),
    "finetuned": (lambda: saved(state("retrieval_ce")), "missing in the file"),
    "a BERT": (lambda: saved(bert()), "this is a Hugging Face BERT, expected a whole model"),
    "no state": (lambda: saved([1, 2]), "holds a list, expected weights by name"),
    "code": (
        lambda: saved({"a": json.dumps}),
        "or is damaged: Unsupported global: GLOBAL json.dumps was not an allowed global by default\n",
    ),
    "no torch file": (
        lambda: b"\x00\x01" * 500,
        "holds more than tensors and plain containers, or is damaged: Unsupported operand 0\n",
    ),
    "a web page": (lambda: b"<html><title>Quota</title>", "it is a web page"),
}


@pytest.mark.golden
@pytest.mark.parametrize("kind", OTHERS)
def test_another_file_is_refused_and_nothing_kept(world, kind, tmp_path):
    make, says = OTHERS[kind]
    world.page.body = make()
    done = world.run("clipbert-pretrained", code=1)
    assert says in done.stderr
    assert "To fetch by hand" in done.stderr
    assert kept(world) == []
    # A file of one's own is compared as well, and stays.
    own = tmp_path / "clipbert_image_text_pretrained.pt"
    own.write_bytes(world.page.body)
    done = world.run("clipbert-pretrained", "--source", own, code=1)
    assert says.strip() in done.stderr
    assert kept(world) == []
    assert own.read_bytes() == world.page.body
