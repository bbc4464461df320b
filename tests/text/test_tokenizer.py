"""Token ids and padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from goldens import golden_folder, golden_json
from running import TINY, Clipbert, as_options
from tokenizers.implementations import BertWordPieceTokenizer

from clipbert_cli.errors import WeightsError
from clipbert_cli.text.tokenizer import Tokenizer

SPECIAL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"


@pytest.mark.golden
def test_token_ids_are_the_originals() -> None:
    for block in golden_json("text/text.json")["tokenise"]:
        tokenizer = Tokenizer(golden_folder() / "text" / "vocab.txt", max_length=block["max_length"])
        for item in block["items"]:
            ids, mask = tokenizer([item["text"]])
            assert ids[0].tolist() == item["ids"][: item["n_valid"]], item["text"]
            assert mask.all()


def test_a_batch_is_padded_to_its_longest_text(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text(SPECIAL + "cat\ndog\n")
    ids, mask = Tokenizer(tmp_path, max_length=20)(["cat", "Cat dog", ""])
    assert ids.tolist() == [[2, 5, 3, 0], [2, 5, 6, 3], [2, 3, 0, 0]]
    assert ids.dtype == np.int64
    assert mask.sum(axis=1).tolist() == [3, 4, 2]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such vocabulary"), (b"cat\n", "lacks"), (b"\xff", "UTF-8")]
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        Tokenizer(path, max_length=20)


# ------------------------------------------------------------------------------------------ what the folder states

WORDS = ["the", "The", "café", "cafe", "Café", "Cafe", "中", "国", "中国", "the\u0301"]
TEXTS = ["The CAFÉ", "the café", "Café the", "中国 the", "THE"]
VOCABULARY = [*SPECIAL.split(), *WORDS]
STATED: list[dict[str, Any]] = [
    {"lowercase": True},
    {"lowercase": False},
    {"lowercase": True, "strip_accents": False},
    {"lowercase": False, "strip_accents": True},
    {"lowercase": False, "handle_chinese_chars": False},
]


def ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer([text])[0][0].tolist() for text in TEXTS]


def write_folder(
    folder: Path, form: str, settings: dict[str, Any], vocabulary: list[str] = VOCABULARY
) -> list[list[int]]:
    """Write a tokenizer as Hugging Face does, in one of the forms, and return the ids that their library gives."""
    folder.mkdir(exist_ok=True)
    library = BertWordPieceTokenizer({entry: number for number, entry in enumerate(vocabulary)}, **settings)
    if form != "tokenizer.json alone":
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    if form == "tokenizer_config.json":
        names = {"lowercase": "do_lower_case", "handle_chinese_chars": "tokenize_chinese_chars"}
        config = {names.get(name, name): value for name, value in settings.items()}
        (folder / form).write_text(json.dumps({**config, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}))
    else:
        library.save(str(folder / "tokenizer.json"))
    return [library.encode(text).ids for text in TEXTS]


@pytest.mark.parametrize("form", ["tokenizer_config.json", "tokenizer.json", "tokenizer.json alone"])
@pytest.mark.parametrize("settings", STATED, ids=str)
def test_the_files_of_a_folder_decide_what_is_done_to_texts(
    tmp_path: Path, form: str, settings: dict[str, Any]
) -> None:
    expected = write_folder(tmp_path / "bert", form, settings)
    tokenizer = Tokenizer(tmp_path / "bert", max_length=20)
    assert ids(tokenizer) == expected
    # Whoever keeps its files has the same tokenizer, from the folder and from the vocabulary's file.
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in tokenizer.files().items():
        (copy / name).write_text(content, encoding="utf-8")
    assert ids(Tokenizer(copy, max_length=20)) == ids(Tokenizer(copy / "vocab.txt", max_length=20)) == expected


def test_tokenizer_config_wins_over_tokenizer_json(tmp_path: Path) -> None:
    write_folder(tmp_path, "tokenizer.json", {"lowercase": True})
    expected = write_folder(tmp_path, "tokenizer_config.json", {"lowercase": False})
    assert ids(Tokenizer(tmp_path, max_length=20)) == expected


@pytest.mark.parametrize(
    ("words", "is_cased"),
    [(["the", "café"], False), (["the", "The"], True), (["##ing", "##ING"], True), (["中", "國", "[unused1]"], False)],
)
def test_a_vocabulary_alone_shows_whether_it_is_cased(tmp_path: Path, words: list[str], is_cased: bool) -> None:
    (tmp_path / "vocab.txt").write_text(SPECIAL + "\r\n".join(words) + "\r\n", encoding="utf-8")
    assert Tokenizer(tmp_path, max_length=20).settings.do_lower_case is not is_cased


@pytest.mark.parametrize(
    ("words", "text", "tokens"),
    [
        (["schläft", "katze"], "Katze schläft", ["katze", "schläft"]),
        (["où", "est", "l", "'", "élève"], "Où est l'élève", ["où", "est", "l", "'", "élève"]),
        (["łódź", "Łódź"], "Łódź łódź", ["Łódź", "łódź"]),
        (["मैं", "की"], "मैं की", ["मैं", "की"]),
        (["cafe\u0301"], "Cafe\u0301", ["cafe\u0301"]),
        # The uncased BERT has no accent in its vocabulary: it reads every text without them.
        (["schlaft", "cafe"], "schläft Café", ["schlaft", "cafe"]),
    ],
)
def test_words_with_accents_are_found_in_a_vocabulary_that_has_them(
    tmp_path: Path, words: list[str], text: str, tokens: list[str]
) -> None:
    (tmp_path / "vocab.txt").write_text(SPECIAL + "\n".join(words) + "\n", encoding="utf-8")
    tokenizer = Tokenizer(tmp_path, max_length=20)
    assert tokenizer.pieces(text) == tokens
    assert tokenizer.unknown([text]) == [[]]


@pytest.mark.parametrize("stated", [{"do_lower_case": True}, {"do_lower_case": True, "strip_accents": True}])
def test_a_folder_that_states_its_settings_is_obeyed_whatever_its_vocabulary_has(
    tmp_path: Path, stated: dict[str, bool]
) -> None:
    (tmp_path / "vocab.txt").write_text(SPECIAL + "schläft\nschlaft\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated))
    assert Tokenizer(tmp_path, max_length=20).pieces("schläft") == ["schlaft"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", "{", r"tokenizer_config\.json"),
        ("tokenizer_config.json", "[]", r"tokenizer_config\.json: a JSON object is expected"),
        (
            "tokenizer_config.json",
            '{"do_lower_case": "no"}',
            "do_lower_case of the tokenizer is 'no', but must be true",
        ),
        ("tokenizer_config.json", '{"do_lower_case": null}', "do_lower_case of the tokenizer is None"),
        (
            "tokenizer.json",
            '{"model": {"type": "BPE", "vocab": {}}}',
            "its model is BPE, but a vocabulary of WordPiece",
        ),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 2}}}', "ids .* are not 0 to 1"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0, "b": "1"}}}', "ids .* are not 0 to 1"),
        ("tokenizer.json", '{"model": []}', "its model is None"),
    ],
)
def test_damaged_files_of_a_tokenizer_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    if name == "tokenizer_config.json":
        (tmp_path / "vocab.txt").write_text(SPECIAL)
    with pytest.raises(WeightsError, match=message):
        Tokenizer(tmp_path, max_length=20)


def test_a_run_of_a_cased_model_keeps_its_case(made_data: Path, tmp_path: Path, clipbert: Clipbert) -> None:
    words = (made_data / "vocab.txt").read_text().split("\n")[:-1]
    folder = tmp_path / "cased"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join([*words, "What"]) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    settings = [*TINY, "train.max_steps=1", f"model.tokenizer={folder}", f"model.bert.vocab_size={len(words) + 1}"]
    common = ["--recipe", "demo_qa", "--data-root", made_data, *as_options(settings)]
    for words_of_command in (
        ["finetune", *common, "--run", tmp_path / "run"],
        ["runs", "export", tmp_path / "run", tmp_path / "exported"],
    ):
        done = clipbert(*words_of_command)
        assert done.returncode == 0, done.stderr
    for made in (tmp_path / "run", tmp_path / "exported"):
        tokenizer = Tokenizer(made / "vocab.txt", max_length=20)
        assert tokenizer(["What"])[0].tolist() == [[2, len(words), 3]]
        assert tokenizer(["WHAT"])[0].tolist() == [[2, 1, 3]]
